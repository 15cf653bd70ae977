"""Settings inside a house: the bedroom and the kitchen."""

import numpy as np

from stage3.samples.looks import Color, darker, lighter, mix
from stage3.samples.views import SKY, View, rect


def _room(v: View, wall: Color, floor: Color) -> tuple[Color, Color]:
    """Back wall, skirting and floor boards of a room; indoor light is warmer and less dark than outdoors."""
    tint = {"day": 0.0, "dusk": 0.55, "night": 0.62}[v.time]
    wall_paint = mix(v.c.look.color(wall), v.paint(wall), tint)
    floor_paint = mix(v.c.look.color(floor), v.paint(floor), tint)
    rect(v, -4, -4, v.w + 4, v.horizon + 2, wall_paint)
    rect(v, -4, v.horizon, v.w + 4, v.h + 4, floor_paint)
    return wall_paint, floor_paint


def _window(v: View, x: float, y: float, w: float, h: float, frame: Color) -> None:
    m = 0.018 * v.unit
    rect(v, x - m, y - m, x + w + m, y + h + m, frame, v.line)
    sky = SKY[v.time]
    for k, color in enumerate(sky):
        rect(v, x, y + h * k / 4, x + w, y + h, v.c.look.color(color))
    r = 0.16 * min(w, h)
    if v.time == "night":
        v.c.ellipse(x + 0.7 * w, y + 0.28 * h, r, r, (250, 244, 208))
        for a, b in ((0.2, 0.2), (0.35, 0.55), (0.15, 0.75), (0.85, 0.7)):
            v.c.ellipse(x + a * w, y + b * h, 0.9, 0.9, (250, 246, 214))
    elif v.time == "dusk":
        v.c.ellipse(x + 0.6 * w, y + 0.72 * h, r * 1.3, r * 1.3, (255, 226, 130))
    else:
        v.c.ellipse(x + 0.28 * w, y + 0.3 * h, r, r, (255, 232, 120))
    rect(v, x, y, x + w, y + h, None, v.line)
    v.c.stroke([(x + w / 2, y), (x + w / 2, y + h)], frame, m)
    v.c.stroke([(x, y + h / 2), (x + w, y + h / 2)], frame, m)


def _boards(v: View, color: Color) -> None:
    v.c.stroke([(-4, v.horizon), (v.w + 4, v.horizon)], v.c.look.ink, v.line)
    for x, _ in v.many(0.17, 1.0):
        v.c.stroke([(x, v.horizon), (v.w / 2 + (x - v.w / 2) * 1.9, v.h + 4)], darker(color, 0.24), v.line * 0.8)


def bedroom(v: View) -> None:
    """A bed, a window with curtains, a picture and a rug."""
    wall, floor = _room(v, (236, 196, 186), (186, 132, 90))
    u = v.unit
    for x, _ in v.many(0.1, 0.8):
        v.c.stroke([(x, -4), (x, v.horizon)], darker(wall, 0.08), 0.022 * u)
    _boards(v, floor)
    rug = v.c.paint((104, 132, 186), 0.5)
    x = v.x(0.1)
    v.c.ellipse(x, v.horizon + (v.h - v.horizon) * 0.66, 0.46 * u, (v.h - v.horizon) * 0.24, rug, v.line)
    v.c.ellipse(x, v.horizon + (v.h - v.horizon) * 0.66, 0.37 * u, (v.h - v.horizon) * 0.17, lighter(rug, 0.2))
    for middle in (-1.3, 0.0, 1.3):
        x, y = v.x(middle, 0.8), v.horizon
        white = v.c.paint((250, 244, 232), 0.5)
        _window(v, x - 0.16 * u, y - 0.5 * u, 0.26 * u, 0.28 * u, white)
        curtain = v.c.paint((206, 92, 100), 0.5)
        for side in (-1, 1):
            cx = x - 0.03 * u + side * 0.17 * u
            v.c.polygon(
                [
                    (cx - 0.055 * u, y - 0.54 * u),
                    (cx + 0.055 * u, y - 0.54 * u),
                    (cx + 0.055 * u, y - 0.19 * u),
                    (cx - 0.055 * u, y - 0.19 * u),
                ],
                curtain,
                v.line,
            )
            rect(v, cx - 0.01 * u, y - 0.54 * u, cx + 0.01 * u, y - 0.19 * u, darker(curtain, 0.2))
        wood, cover = v.c.paint((134, 84, 56), 0.5), v.c.paint((88, 122, 184), 0.5)
        bx = x + 0.26 * u
        v.c.blob(
            [
                (bx, y + 0.06 * u),
                (bx, y - 0.24 * u),
                (bx + 0.06 * u, y - 0.28 * u),
                (bx + 0.12 * u, y - 0.24 * u),
                (bx + 0.12 * u, y + 0.06 * u),
            ],
            wood,
            v.line,
        )
        v.c.polygon(
            [
                (bx + 0.1 * u, y - 0.1 * u),
                (bx + 0.62 * u, y - 0.1 * u),
                (bx + 0.66 * u, y + 0.06 * u),
                (bx + 0.08 * u, y + 0.06 * u),
            ],
            cover,
            v.line,
        )
        v.c.polygon(
            [
                (bx + 0.08 * u, y + 0.06 * u),
                (bx + 0.66 * u, y + 0.06 * u),
                (bx + 0.66 * u, y + 0.13 * u),
                (bx + 0.08 * u, y + 0.13 * u),
            ],
            darker(cover, 0.25),
            v.line,
        )
        v.c.blob(
            [
                (bx + 0.1 * u, y - 0.07 * u),
                (bx + 0.16 * u, y - 0.14 * u),
                (bx + 0.26 * u, y - 0.12 * u),
                (bx + 0.25 * u, y - 0.04 * u),
                (bx + 0.14 * u, y - 0.02 * u),
            ],
            white,
            v.line,
        )
        rect(v, bx + 0.62 * u, y - 0.2 * u, bx + 0.67 * u, y + 0.14 * u, wood, v.line)
        rect(
            v, x - 0.5 * u, y - 0.42 * u, x - 0.34 * u, y - 0.28 * u, v.c.paint((244, 216, 132), 0.5), v.line
        )  # a picture
        v.c.blob(
            [
                (x - 0.48 * u, y - 0.3 * u),
                (x - 0.43 * u, y - 0.37 * u),
                (x - 0.39 * u, y - 0.33 * u),
                (x - 0.36 * u, y - 0.3 * u),
            ],
            v.c.paint((92, 150, 98), 0.5),
        )


def kitchen(v: View) -> None:
    """Cupboards, a stove with a pot, a window over the sink, a tiled floor."""
    wall, floor = _room(v, (196, 222, 206), (220, 214, 200))
    u, y = v.unit, v.horizon
    for k in range(4):  # checkered floor in perspective
        t0, t1 = (k / 4) ** 1.5, ((k + 1) / 4) ** 1.5
        y0, y1 = y + (v.h + 4 - y) * t0, y + (v.h + 4 - y) * t1
        for j, (x, _) in enumerate(
            View(v.c, v.w, v.h, v.horizon, v.pan, v.zoom, np.random.default_rng(0)).many(0.34, 1.0)
        ):
            if (j + k) % 2:
                continue
            s0, s1, w = 1 + 1.0 * t0, 1 + 1.0 * t1, 0.34 * u
            m = v.w / 2
            v.c.polygon(
                [
                    (m + (x - m) * s0, y0),
                    (m + (x + w - m) * s0, y0),
                    (m + (x + w - m) * s1, y1),
                    (m + (x - m) * s1, y1),
                ],
                darker(floor, 0.2),
            )
    for x, _ in v.many(0.07, 0.8):
        v.c.stroke([(x, y - 0.3 * u), (x, y - 0.16 * u)], darker(wall, 0.12), v.line * 0.6)
    v.c.stroke([(-4, y - 0.23 * u), (v.w + 4, y - 0.23 * u)], darker(wall, 0.12), v.line * 0.6)
    cream, wood = v.c.paint((246, 238, 216), 0.5), v.c.paint((92, 150, 164), 0.5)
    rect(v, -4, y - 0.18 * u, v.w + 4, y + 0.05 * u, wood, v.line)
    rect(v, -4, y - 0.2 * u, v.w + 4, y - 0.165 * u, cream, v.line)
    for x, _ in v.many(0.22, 0.8):
        rect(v, x, y - 0.14 * u, x + 0.18 * u, y + 0.02 * u, lighter(wood, 0.12), v.line * 0.8)
        v.c.ellipse(x + 0.15 * u, y - 0.07 * u, 0.01 * u, 0.01 * u, cream, v.line * 0.6)
    for middle in (-1.3, 0.0, 1.3):
        x = v.x(middle, 0.8)
        _window(v, x - 0.12 * u, y - 0.54 * u, 0.24 * u, 0.22 * u, cream)
        for side in (-0.48, 0.3):
            rect(v, x + side * u, y - 0.56 * u, x + (side + 0.2) * u, y - 0.34 * u, wood, v.line)
            v.c.stroke(
                [(x + (side + 0.1) * u, y - 0.56 * u), (x + (side + 0.1) * u, y - 0.34 * u)], v.c.look.ink, v.line * 0.8
            )
        _stove(v, x + 0.3 * u, y, u)
        tap = v.c.paint((190, 200, 210), 0.5)
        v.c.curve(
            [
                (x - 0.02 * u, y - 0.2 * u),
                (x - 0.02 * u, y - 0.27 * u),
                (x + 0.03 * u, y - 0.28 * u),
                (x + 0.04 * u, y - 0.24 * u),
            ],
            tap,
            0.02 * u,
        )


def _stove(v: View, x: float, y: float, u: float) -> None:
    iron = v.c.paint((92, 92, 108), 0.5)
    rect(v, x, y - 0.2 * u, x + 0.26 * u, y + 0.07 * u, iron, v.line)
    rect(v, x + 0.035 * u, y - 0.1 * u, x + 0.225 * u, y + 0.03 * u, (250, 168, 80), v.line)
    for k in range(3):
        v.c.ellipse(x + (0.06 + 0.07 * k) * u, y - 0.145 * u, 0.014 * u, 0.014 * u, (240, 236, 226), v.line * 0.6)
    pot = v.c.paint((206, 74, 62), 0.5)
    v.c.blob(
        [
            (x + 0.05 * u, y - 0.29 * u),
            (x + 0.2 * u, y - 0.29 * u),
            (x + 0.19 * u, y - 0.2 * u),
            (x + 0.06 * u, y - 0.2 * u),
        ],
        pot,
        v.line,
    )
    v.c.ellipse(x + 0.125 * u, y - 0.3 * u, 0.085 * u, 0.014 * u, lighter(pot, 0.2), v.line * 0.8)
    for k in range(2):
        s = x + (0.1 + 0.05 * k) * u
        v.c.curve(
            [
                (s, y - 0.33 * u),
                (s + 0.015 * u, y - 0.37 * u),
                (s - 0.01 * u, y - 0.4 * u),
                (s + 0.01 * u, y - 0.44 * u),
            ],
            v.c.look.color((250, 250, 250)),
            v.line * 1.3,
        )
