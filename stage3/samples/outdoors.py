"""Settings under a sky, among the stars or under the sea."""

from math import cos, radians, sin

import numpy as np

from stage3.samples.ink import Point
from stage3.samples.looks import Color, darker, lighter, mix
from stage3.samples.views import View, floor, hills, rect, sky, soft, tufts


def city(v: View) -> None:
    """Blocks of houses along a street, with windows lit after dark."""
    sky(v)
    far, near = v.paint((120, 132, 170), 0.45), [(176, 98, 84), (120, 128, 150), (196, 160, 116), (98, 124, 140)]
    for x, rng in v.many(0.17, 0.45):
        top = v.horizon - v.unit * float(rng.uniform(0.2, 0.5))
        rect(v, x, top, x + 0.15 * v.unit, v.horizon, far)
    for x, rng in v.many(0.36, 0.9):
        wide, tall = v.unit * float(rng.uniform(0.24, 0.33)), v.unit * float(rng.uniform(0.24, 0.56))
        _block(v, x, wide, tall, near[int(rng.integers(4))], rng)
    floor(v, v.paint((112, 112, 124)))
    kerb = v.horizon + (v.h - v.horizon) * 0.26
    rect(v, -4, v.horizon, v.w + 4, kerb, v.paint((176, 172, 168)), v.line)
    for x, _ in v.many(0.2, 1.0):
        v.c.stroke(
            [(x, v.horizon), (v.w / 2 + (x - v.w / 2) * 1.25, kerb)],
            darker(v.paint((176, 172, 168)), 0.3),
            v.line * 0.6,
        )
    y = v.horizon + (v.h - v.horizon) * 0.66
    for x, _ in v.many(0.4, 1.15):
        v.c.polygon(
            [(x, y), (x + 0.2 * v.unit, y), (x + 0.22 * v.unit, y + 0.025 * v.unit), (x, y + 0.025 * v.unit)],
            v.paint((240, 222, 140)),
        )


def _block(v: View, x: float, wide: float, tall: float, color: Color, rng: np.random.Generator) -> None:
    top, wall = v.horizon - tall, v.paint(color, 0.08)
    side = wide * 0.16 * (1 if x > v.w / 2 else -1)  # the flank that faces the middle of the view
    edge = x if side > 0 else x + wide
    v.c.polygon(
        [(edge, top), (edge - side, top + abs(side) * 0.5), (edge - side, v.horizon), (edge, v.horizon)],
        darker(wall, 0.3),
        v.line,
    )
    rect(v, x, top, x + wide, v.horizon, wall, v.line)
    rect(v, x - wide * 0.04, top - v.unit * 0.012, x + wide * 1.04, top + v.unit * 0.02, darker(wall, 0.15), v.line)
    pane_on, pane_off = (255, 226, 120), v.paint((178, 214, 232) if v.time == "day" else (70, 84, 120))
    columns, rows = 3, max(int(tall / (v.unit * 0.1)), 1)
    for i in range(columns):
        for j in range(rows):
            wx, wy = x + wide * (0.12 + 0.29 * i), top + v.unit * (0.045 + 0.1 * j)
            if wy + 0.05 * v.unit > v.horizon - 0.03 * v.unit:
                continue
            on = v.time != "day" and rng.random() < 0.55
            rect(v, wx, wy, wx + wide * 0.19, wy + v.unit * 0.055, pane_on if on else pane_off, v.line * 0.5)


def forest(v: View) -> None:
    """Trunks between a canopy above and a path below."""
    sky(v)
    _canopy(v, v.horizon - 0.2 * v.unit, v.horizon + 3, v.paint((92, 150, 116), 0.35), 0.26, 0.4, up=True)
    floor(v, v.paint((118, 164, 84)))
    u, path = v.unit, v.paint((206, 176, 122))
    for k in range(5):  # a path in flat steps, wider towards the reader
        y0, y1 = v.horizon + (v.h - v.horizon) * k / 5, v.horizon + (v.h - v.horizon) * (k + 1) / 5 + 1
        x, wide = v.x(0.04 * (-1) ** k), u * (0.03 + 0.07 * k)
        v.c.polygon([(x - wide, y0), (x + wide, y0), (x + wide + 0.05 * u, y1), (x - wide - 0.05 * u, y1)], path)
    for far, step, thick in ((0.3, 0.2, 0.022), (0.0, 0.5, 0.05)):
        for x, rng in v.many(step, 0.6 if far else 0.95):
            x += float(rng.uniform(-0.05, 0.05)) * u
            if not far and abs(x - v.x(0.0)) < 0.1 * u:
                continue
            y = v.horizon + (v.h - v.horizon) * (0.02 if far else float(rng.uniform(0.08, 0.2)))
            bark, s = v.paint((112, 76, 52), far), u * thick
            v.c.polygon(
                [(x - s, -2), (x + s, -2), (x + s, y - s), (x + 1.6 * s, y), (x - 1.6 * s, y), (x - s, y - s)],
                bark,
                0 if far else v.line,
            )
            if not far:
                rect(v, x - s, -2, x - s * 0.35, y - s, darker(bark, 0.25))
    _canopy(v, -4, v.horizon * 0.3, v.paint((58, 134, 76)), 0.22, 0.9, up=False)


def _canopy(v: View, top: float, bottom: float, leaf: Color, step: float, depth: float, up: bool) -> None:
    """Leaves with a scalloped edge, above or below."""
    rect(v, -4, top, v.w + 4, bottom, leaf)
    edge = top if up else bottom
    for x, rng in v.many(step, depth):
        r = v.unit * step * float(rng.uniform(0.5, 0.66))
        v.c.ellipse(x, edge, r, r * 0.55, leaf)


def castle(v: View) -> None:
    """Walls and towers behind a path to the gate."""
    sky(v)
    hills(v, v.paint((132, 168, 112), 0.3), v.horizon + 3, 0.1, 0.5, 0.35, 0)
    stone, roof = v.paint((178, 172, 176)), v.paint((176, 70, 78))
    u, base = v.unit, v.horizon + 0.02 * v.unit
    for k, depth in ((-1.25, 0.7), (0.0, 0.7), (1.25, 0.7)):
        x = v.x(k, depth)
        _wall(v, x - 0.34 * u, x + 0.34 * u, base, 0.2 * u, stone)
        for dx, tall, wide in ((-0.36, 0.36, 0.085), (0.36, 0.4, 0.085), (-0.13, 0.48, 0.07), (0.16, 0.42, 0.065)):
            _tower(v, x + dx * u, base, tall * u, wide * u, stone, roof)
        v.c.blob(
            [
                (x - 0.07 * u, base),
                (x - 0.07 * u, base - 0.1 * u),
                (x, base - 0.16 * u),
                (x + 0.07 * u, base - 0.1 * u),
                (x + 0.07 * u, base),
            ],
            v.paint((92, 62, 48)),
            v.line,
        )
        for dx in (-0.03, 0.0, 0.03):
            v.c.stroke(
                [(x + dx * u, base), (x + dx * u, base - 0.12 * u)], darker(v.paint((92, 62, 48)), 0.4), v.line * 0.7
            )
    floor(v, v.paint((134, 174, 96)))
    x = v.x(0.0, 0.7)
    v.c.polygon(
        [
            (x - 0.06 * u, base),
            (x + 0.06 * u, base),
            (v.w / 2 + (x - v.w / 2) * 1.3 + 0.34 * u, v.h + 4),
            (v.w / 2 + (x - v.w / 2) * 1.3 - 0.34 * u, v.h + 4),
        ],
        v.paint((214, 194, 150)),
    )
    tufts(v, v.paint((92, 138, 76)), 0.22)


def _wall(v: View, x0: float, x1: float, base: float, tall: float, stone: Color) -> None:
    rect(v, x0, base - tall, x1, base, stone, v.line)
    tooth = 0.035 * v.unit
    n = int((x1 - x0) / tooth)
    for k in range(0, n, 2):
        rect(v, x0 + k * tooth, base - tall - tooth, x0 + (k + 1) * tooth, base - tall + 1, stone, v.line * 0.8)
    for k in range(7):
        bx, by = x0 + (x1 - x0) * ((k * 0.37) % 0.9), base - tall * (0.2 + 0.7 * ((k * 0.53) % 1.0))
        v.c.stroke([(bx, by), (bx + 0.04 * v.unit, by)], darker(stone, 0.3), v.line * 0.7)


def _tower(v: View, x: float, base: float, tall: float, wide: float, stone: Color, roof: Color) -> None:
    rect(v, x - wide, base - tall, x + wide, base, stone, v.line)
    rect(v, x - wide, base - tall, x - wide * 0.45, base, darker(stone, 0.2))
    v.c.polygon(
        [(x - wide * 1.25, base - tall), (x, base - tall - wide * 2.6), (x + wide * 1.25, base - tall)], roof, v.line
    )
    tip = base - tall - wide * 2.6
    v.c.stroke([(x, tip), (x, tip - wide * 0.9)], v.c.look.ink, v.line)
    v.c.polygon(
        [(x, tip - wide * 0.9), (x + wide * 1.0, tip - wide * 0.62), (x, tip - wide * 0.35)],
        v.paint((244, 204, 84)),
        v.line * 0.7,
    )
    glow = (255, 224, 120) if v.time != "day" else darker(stone, 0.6)
    rect(v, x - wide * 0.22, base - tall * 0.84, x + wide * 0.22, base - tall * 0.62, glow, v.line * 0.8)


def beach(v: View) -> None:
    """Sand, palms and the sea with a boat."""
    sky(v)
    sea, sand = v.paint((54, 148, 196)), v.paint((244, 216, 154))
    shore = v.horizon + (v.h - v.horizon) * 0.34
    rect(v, -4, v.horizon, v.w + 4, shore + 8, sea, v.line * 0.7)
    for k, y in enumerate((0.25, 0.5, 0.72)):
        yy = v.horizon + (shore - v.horizon) * y
        for x, rng in v.many(0.5 - 0.04 * k, 0.6 + 0.1 * k):
            x += float(rng.uniform(-0.1, 0.1)) * v.unit
            v.c.curve(
                [(x, yy), (x + 0.04 * v.unit, yy - 1.6), (x + 0.09 * v.unit, yy)], lighter(sea, 0.45), v.line * 0.9
            )
    boat = v.x(0.55, 0.4)
    s, y = 0.05 * v.unit, v.horizon + 0.015 * v.unit
    v.c.polygon(
        [(boat, y - 0.3 * s), (boat, y - 2.8 * s), (boat + 1.5 * s, y - 0.5 * s)], v.paint((252, 250, 244)), v.line
    )
    v.c.polygon(
        [
            (boat - 1.2 * s, y - 0.2 * s),
            (boat + 1.5 * s, y - 0.2 * s),
            (boat + 1.0 * s, y + 0.5 * s),
            (boat - 0.8 * s, y + 0.5 * s),
        ],
        v.paint((206, 78, 66)),
        v.line,
    )
    edge = [(x, shore + float(rng.uniform(-0.012, 0.012)) * v.unit) for x, rng in v.many(0.14)]
    v.c.polygon(
        [(edge[0][0], v.h + 4), *soft([(x, y - 0.018 * v.unit) for x, y in edge]), (edge[-1][0], v.h + 4)],
        v.paint((250, 250, 246)),
    )
    v.c.polygon([(edge[0][0], v.h + 4), *soft(edge), (edge[-1][0], v.h + 4)], sand)
    for x, rng in v.many(1.15, 0.9):
        _palm(
            v,
            x - 0.42 * v.unit,
            shore + 0.1 * v.unit,
            v.unit * float(rng.uniform(0.5, 0.62)),
            1 if rng.random() < 0.5 else -1,
        )
    for x, rng in v.many(0.23):
        y = shore + (v.h - shore) * float(rng.uniform(0.2, 0.9))
        v.c.curve([(x, y), (x + 0.03 * v.unit, y + 1.2), (x + 0.07 * v.unit, y)], darker(sand, 0.2), v.line * 0.8)


def _palm(v: View, x: float, y: float, tall: float, lean: int) -> None:
    bark, leaf = v.paint((158, 112, 70)), v.paint((62, 150, 84))
    top = (x + lean * 0.26 * tall, y - tall)
    trunk = [(x, y), (x + lean * 0.06 * tall, y - 0.5 * tall), top]
    v.c.limb(trunk, [0.1 * tall, 0.07 * tall, 0.055 * tall], bark, v.line, None)
    for a in (-165, -118, -55, -12, 25):
        reach = 0.36 * tall
        tip = (top[0] + reach * cos(radians(a)), top[1] + reach * sin(radians(a)) * 0.7 + 0.1 * tall)
        mid = (top[0] + 0.6 * reach * cos(radians(a)), top[1] + 0.75 * reach * sin(radians(a)) - 0.05 * tall)
        v.c.blob([top, (mid[0], mid[1] - 0.05 * tall), tip, (mid[0], mid[1] + 0.04 * tall)], leaf, v.line)
    v.c.ellipse(top[0], top[1] + 0.03 * tall, 0.035 * tall, 0.035 * tall, v.paint((116, 74, 48)), v.line)


def desert(v: View) -> None:
    """Dunes, cactuses and far table mountains."""
    sky(v)
    for x, rng in v.many(0.75, 0.35):
        s, tall = v.unit * float(rng.uniform(0.13, 0.2)), v.unit * float(rng.uniform(0.1, 0.2))
        rock = v.paint((206, 122, 84), 0.25)
        v.c.polygon(
            [
                (x - s, v.horizon + 2),
                (x - s * 0.8, v.horizon - tall * 0.3),
                (x - s * 0.8, v.horizon - tall),
                (x + s * 0.8, v.horizon - tall),
                (x + s * 0.8, v.horizon - tall * 0.3),
                (x + s, v.horizon + 2),
            ],
            rock,
        )
        v.c.polygon(
            [
                (x - s * 0.8, v.horizon + 2),
                (x - s * 0.8, v.horizon - tall),
                (x - s * 0.4, v.horizon - tall),
                (x - s * 0.4, v.horizon + 2),
            ],
            darker(rock, 0.15),
        )
    floor(v, v.paint((240, 192, 112)))
    sand = v.paint((240, 192, 112))
    for k, tone in enumerate((lighter(sand, 0.18), darker(sand, 0.1), sand)):
        base = v.horizon + (v.h - v.horizon) * (0.16 + 0.3 * k)
        hills(v, tone, base + (v.h - base) + 4, (v.h - base) / v.unit + 0.09, 0.5, 0.6 + 0.2 * k, 0)
    for x, rng in v.many(0.85, 0.9):
        x += float(rng.uniform(-0.15, 0.15)) * v.unit
        _cactus(
            v, x, v.horizon + (v.h - v.horizon) * float(rng.uniform(0.15, 0.4)), v.unit * float(rng.uniform(0.24, 0.36))
        )
    for x, rng in v.many(0.3):
        y = v.horizon + (v.h - v.horizon) * float(rng.uniform(0.4, 0.95))
        v.c.curve([(x, y), (x + 0.05 * v.unit, y - 2), (x + 0.12 * v.unit, y)], darker(sand, 0.22), v.line * 0.8)


def _cactus(v: View, x: float, y: float, tall: float) -> None:
    green = v.paint((74, 150, 88))
    for side, at, up in ((-1, 0.45, 0.34), (1, 0.32, 0.42)):
        v.c.limb(
            [
                (x, y - at * tall),
                (x + side * 0.2 * tall, y - at * tall),
                (x + side * 0.22 * tall, y - (at + up) * tall),
            ],
            [0.09 * tall] * 3,
            green,
            v.line,
            None,
        )
    v.c.limb([(x, y), (x, y - 0.5 * tall), (x, y - tall)], [0.15 * tall, 0.16 * tall, 0.14 * tall], green, v.line, None)
    for t in (0.25, 0.5, 0.75):
        v.c.stroke(
            [(x - 0.02 * tall, y - t * tall), (x - 0.02 * tall, y - (t + 0.08) * tall)],
            lighter(green, 0.45),
            v.line * 0.8,
        )


def space(v: View) -> None:
    """A cratered asteroid below a ringed planet and stars."""
    top = {"day": (40, 30, 92), "dusk": (78, 24, 82), "night": (10, 12, 34)}[v.time]
    low = {"day": (70, 60, 150), "dusk": (150, 52, 104), "night": (20, 24, 60)}[v.time]
    for k in range(4):
        rect(v, -2, v.horizon * k / 4, v.w + 2, v.h, v.c.look.color(mix(top, low, k / 3)))
    rng = np.random.default_rng(int(v.rng.integers(1 << 30)))
    for k in range(18):
        x, y = float(rng.random()) * v.w, float(rng.random()) * v.horizon
        r = 0.6 + 0.9 * float(rng.random()) ** 3
        if k % 9 == 0:
            v.c.stroke([(x - 3 * r, y), (x + 3 * r, y)], (255, 250, 220), 0.7)
            v.c.stroke([(x, y - 3 * r), (x, y + 3 * r)], (255, 250, 220), 0.7)
        v.c.ellipse(x, y, r, r, (250, 246, 224))
    planet = v.c.look.color(((232, 120, 92), (96, 180, 196), (226, 186, 108))[int(rng.integers(3))])
    x, y, r = v.x(float(rng.uniform(-0.35, 0.35)), 0.25), v.horizon * 0.36, 0.14 * v.unit
    v.c.ellipse(x, y, r, r, planet, v.line)
    v.c.blob(
        [
            (x - 0.9 * r, y - 0.3 * r),
            (x, y - 0.12 * r),
            (x + 0.92 * r, y - 0.3 * r),
            (x + 0.98 * r, y - 0.05 * r),
            (x, y + 0.14 * r),
            (x - 0.98 * r, y - 0.05 * r),
        ],
        lighter(planet, 0.3),
    )
    v.c.polygon(
        [
            (x - 1.7 * r, y + 0.06 * r),
            (x + 1.7 * r, y + 0.06 * r),
            (x + 1.6 * r, y + 0.2 * r),
            (x - 1.6 * r, y + 0.2 * r),
        ],
        lighter(planet, 0.6),
    )
    if v.time == "day":
        v.c.ellipse(v.x(0.85, 0.2), v.horizon * 0.12, 0.1 * v.unit, 0.1 * v.unit, (255, 244, 190))
    ground = v.paint((168, 158, 172)) if v.time != "night" else v.paint((190, 184, 206))
    hills(v, darker(ground, 0.3), v.horizon + 0.05 * v.unit, 0.1, 0.34, 0.6, v.line)
    floor(v, ground)
    for x, rng in v.many(0.5):
        x += float(rng.uniform(-0.1, 0.1)) * v.unit
        y, s = v.horizon + (v.h - v.horizon) * float(rng.uniform(0.15, 0.9)), v.unit * float(rng.uniform(0.03, 0.075))
        v.c.ellipse(x, y, s * 1.5, s * 0.5, darker(ground, 0.28), v.line * 0.7)
        v.c.ellipse(x, y + s * 0.14, s * 1.25, s * 0.34, darker(ground, 0.12))


def underwater(v: View) -> None:
    """The sea floor with weeds, corals and bubbles."""
    top = {"day": (88, 190, 216), "dusk": (150, 110, 158), "night": (18, 50, 92)}[v.time]
    low = {"day": (20, 92, 150), "dusk": (52, 44, 108), "night": (8, 18, 52)}[v.time]
    for k in range(5):
        rect(v, -2, v.h * 0.17 * k, v.w + 2, v.h + 2, v.c.look.color(mix(top, low, k / 4)))
    back = v.c.look.color(mix(low, (40, 60, 90), 0.4))
    hills(v, back, v.horizon + 0.1 * v.unit, 0.16, 0.5, 0.5, 0)
    sand = v.paint((222, 204, 150)) if v.time != "day" else v.c.look.color((196, 202, 160))
    hills(v, sand, v.h + 6, (v.h - v.horizon) / v.unit, 0.4, 1.0, v.line)
    for x, rng in v.many(0.4, 0.9):
        x += float(rng.uniform(-0.08, 0.08)) * v.unit
        base = v.horizon + (v.h - v.horizon) * float(rng.uniform(0.25, 0.5))
        if rng.random() < 0.55:
            tall = v.unit * float(rng.uniform(0.2, 0.42))
            green = v.paint((58, 156, 96) if rng.random() < 0.6 else (150, 160, 60))
            for dx in (-0.03, 0.03):
                path = [
                    (x + dx * v.unit + 0.012 * v.unit * (-1) ** k, base - tall * (1 - abs(dx) * 6) * k / 4)
                    for k in range(5)
                ]
                v.c.limb(path, [0.035 * v.unit, 0.028 * v.unit, 0.01 * v.unit], green, v.line * 0.8, None)
        else:
            _coral(
                v,
                x,
                base,
                v.unit * float(rng.uniform(0.1, 0.16)),
                v.paint((236, 104, 112) if rng.random() < 0.6 else (240, 160, 90)),
            )
    for x, rng in v.many(0.4, 0.5):
        y, r = v.h * float(rng.uniform(0.05, 0.5)), float(rng.uniform(1.2, 3.4))
        v.c.ellipse(x, y, r, r, (190, 226, 240))


def _coral(v: View, x: float, y: float, s: float, color: Color) -> None:
    for a, reach in ((-32, 0.8), (2, 1.15), (34, 0.85)):
        tip = (x + s * reach * sin(radians(a)) * 1.1, y - s * reach)
        v.c.limb(
            [(x, y), (x + s * 0.4 * sin(radians(a)), y - 0.5 * s * reach), tip],
            [0.24 * s, 0.2 * s, 0.2 * s],
            color,
            v.line * 0.8,
            None,
        )


def mountains(v: View) -> None:
    """Snowy peaks in two layers, and firs on snow."""
    sky(v)
    for step, tall, depth, far in ((0.62, 0.26, 0.25, 0.5), (0.85, 0.46, 0.5, 0.15)):
        for x, rng in v.many(step, depth):
            x += float(rng.uniform(-0.1, 0.1)) * v.unit
            _peak(v, x, v.unit * tall * float(rng.uniform(0.75, 1.1)), far, rng)
    snow = v.paint((232, 240, 246))
    floor(v, snow)
    hills(v, snow, v.h + 6, (v.h - v.horizon) / v.unit + 0.03, 0.45, 0.8, v.line)
    for x, rng in v.many(0.6, 0.9):
        x += float(rng.uniform(-0.1, 0.1)) * v.unit
        y, s = v.horizon + (v.h - v.horizon) * float(rng.uniform(0.1, 0.3)), v.unit * float(rng.uniform(0.05, 0.075))
        pine = v.paint((48, 106, 92))
        rect(v, x - 0.16 * s, y - 0.5 * s, x + 0.16 * s, y, v.paint((104, 72, 54)), v.line * 0.8)
        for k in range(3):
            b, w = y - (0.4 + 0.85 * k) * s, (1.15 - 0.25 * k) * s
            v.c.polygon([(x - w, b), (x, b - 1.5 * s), (x + w, b)], pine, v.line * 0.8)
    for x, rng in v.many(0.3):
        y = v.horizon + (v.h - v.horizon) * float(rng.uniform(0.3, 0.95))
        v.c.curve([(x, y), (x + 0.05 * v.unit, y + 2), (x + 0.12 * v.unit, y)], darker(snow, 0.14), v.line)


def _peak(v: View, x: float, tall: float, far: float, rng: np.random.Generator) -> None:
    rock, base = v.paint((124, 118, 142), far), v.horizon + 0.03 * v.unit
    half, lean = tall * 0.72, tall * float(rng.uniform(-0.1, 0.1))
    tip = (x + lean, base - tall)
    v.c.polygon([(x - half, base), tip, (x + half, base)], rock, v.line if far < 0.3 else 0)
    if far < 0.3:
        v.c.polygon([(x - half, base), tip, (tip[0], base)], darker(rock, 0.2))
    white = v.paint((250, 252, 254), far * 0.5)

    def down(t: float, side: float) -> Point:
        edge = (x - half, base) if side < 0 else (x + half, base)
        return (tip[0] + (edge[0] - tip[0]) * t, tip[1] + (edge[1] - tip[1]) * t)

    a, b = down(0.34, -1), down(0.34, 1)
    jag = [
        b,
        (tip[0] + 0.12 * tall, tip[1] + 0.26 * tall),
        (tip[0] + 0.04 * tall, tip[1] + 0.4 * tall),
        (tip[0] - 0.06 * tall, tip[1] + 0.27 * tall),
        (tip[0] - 0.13 * tall, tip[1] + 0.38 * tall),
        a,
    ]
    v.c.polygon([tip, *jag], white, v.line * 0.7 if far < 0.3 else 0)
