"""A panel's view of a place, and what outdoor settings share: sky, clouds, hills, ground."""

from dataclasses import dataclass

import numpy as np

from stage3.samples.ink import Canvas, Point, smooth
from stage3.samples.looks import Color, darker, mix

SKY: dict[str, tuple[Color, ...]] = {
    "day": ((112, 186, 236), (146, 206, 242), (182, 224, 246), (216, 240, 248)),
    "dusk": ((108, 72, 140), (186, 88, 128), (240, 128, 96), (252, 190, 110)),
    "night": ((18, 22, 58), (26, 34, 80), (36, 48, 104), (52, 66, 128)),
}


@dataclass
class View:
    """A panel's view of a place: its size, the horizon, how far it is panned and how close it looks."""

    c: Canvas
    w: float
    h: float
    horizon: float
    pan: float
    zoom: float
    rng: np.random.Generator

    @property
    def unit(self) -> float:
        """Page pixels to one unit of the place (a panel's height at zoom 1)."""
        return min(max(self.h, 0.62 * self.w), 1.45 * self.w) * self.zoom

    @property
    def line(self) -> float:
        """Width of an outline in the background: none, so that figures, which have outlines, stand out."""
        return 0.0

    @property
    def time(self) -> str:
        """Time of day."""
        return self.c.time

    def x(self, u: float, depth: float = 1.0) -> float:
        """Page x of a place's coordinate; far things (small depth) move less when the view pans."""
        return self.w / 2 + (u - self.pan * depth) * self.unit

    def many(self, step: float, depth: float = 1.0) -> list[tuple[float, np.random.Generator]]:
        """Positions along the place every `step`, each with its own generator, that may be in view."""
        seed = int(self.rng.integers(1 << 30))
        half = self.w / 2 / self.unit + step * 2.5
        middle = self.pan * depth
        first, last = int((middle - half) // step), int((middle + half) // step) + 1
        return [(self.x(k * step, depth), np.random.default_rng([seed, k + 10_000])) for k in range(first, last + 1)]

    def paint(self, color: Color, far: float = 0.0) -> Color:
        """A color in this light, hazier the farther away."""
        haze = self.c.look.color(SKY[self.time][3])
        return mix(self.c.paint(color), haze, far)


def rect(v: View, x0: float, y0: float, x1: float, y1: float, color: Color | None, line: float = 0.0) -> None:
    """An upright rectangle from one corner to the other."""
    v.c.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], color, line)


def sky(v: View, bottom: float | None = None, orb: bool = True) -> None:
    """Bands of sky down to the horizon, with sun, moon, stars and clouds."""
    base = v.horizon if bottom is None else bottom
    bands = SKY[v.time]
    tops = [0.0, 0.34, 0.62, 0.84]
    for k, color in enumerate(bands):
        rect(v, -2, base * tops[k], v.w + 2, base + 2, v.c.look.color(color))
    rng = np.random.default_rng(int(v.rng.integers(1 << 30)))
    r = v.unit * 0.085
    x, y = v.x(float(rng.uniform(-0.45, 0.5)), 0.12), base * (0.3 if v.time != "dusk" else 0.74)
    if v.time == "night":
        for k in range(11):
            sx, sy = float(rng.random()) * v.w, float(rng.random()) * base * 0.9
            v.c.ellipse(sx, sy, 1.0 if k % 4 else 1.6, 1.0 if k % 4 else 1.6, (250, 246, 214))
    if not orb:
        return
    if v.time == "night":
        v.c.ellipse(x, y, r, r, (250, 244, 208), v.line * 0.7)
        for dx, dy, s in ((-0.3, -0.2, 0.22), (0.3, 0.25, 0.16), (0.05, -0.5, 0.12)):
            v.c.ellipse(x + dx * r, y + dy * r, s * r, s * r, (226, 218, 178))
    elif v.time == "dusk":
        v.c.ellipse(x, y, r * 1.75, r * 1.75, v.c.look.color((250, 168, 92)))
        v.c.ellipse(x, y, r * 1.25, r * 1.25, (255, 226, 130))
    else:
        v.c.ellipse(x, y, r, r, (255, 232, 120), v.line * 0.8)
    if v.c.look.shading == "dots" and v.time == "day" and v.w * v.h > 70_000:
        v.c.tone(
            [(-2, -2), (v.w + 2, -2), (v.w + 2, base * 0.3), (-2, base * 0.3)],
            v.c.look.color(darker(bands[0], 0.14)),
            "dots",
            5,
            0.36,
        )
    clouds(v, base)


def clouds(v: View, base: float) -> None:
    """Clouds that drift past as the view pans."""
    color = {"day": (252, 252, 250), "dusk": (250, 176, 150), "night": (62, 72, 122)}[v.time]
    for x, rng in v.many(0.8, 0.2):
        if rng.random() < 0.35:
            continue
        y, s = base * float(rng.uniform(0.12, 0.5)), v.unit * float(rng.uniform(0.05, 0.085))
        x += float(rng.uniform(-0.2, 0.2)) * v.unit
        shape = [
            (x - 2.3 * s, y),
            (x - 1.7 * s, y - 0.7 * s),
            (x - 0.8 * s, y - 0.75 * s),
            (x, y - 1.35 * s),
            (x + 0.9 * s, y - 0.8 * s),
            (x + 1.7 * s, y - 0.7 * s),
            (x + 2.4 * s, y),
            (x, y + 0.18 * s),
        ]
        v.c.blob(shape, v.c.look.color(color))


def hills(v: View, color: Color, base: float, height: float, step: float, depth: float, line: float) -> None:
    """A soft line of hills, filled down to `base`."""
    tops = [(x, base - height * v.unit * float(rng.uniform(0.25, 1.0))) for x, rng in v.many(step, depth)]
    if len(tops) > 2:
        v.c.polygon([(tops[0][0], base + 4), *soft(tops), (tops[-1][0], base + 4)], color, line)


def soft(points: list[Point]) -> list[Point]:
    """A smooth open line through points."""
    return smooth(points, closed=False, steps=5)


def floor(v: View, color: Color, line: float = 0.0) -> None:
    """The ground, from the horizon down."""
    v.c.polygon([(-4, v.horizon), (v.w + 4, v.horizon), (v.w + 4, v.h + 4), (-4, v.h + 4)], color, line)


def tufts(v: View, color: Color, step: float) -> None:
    """Tufts of grass on the ground."""
    for x, rng in v.many(step, 1.0):
        y, s = v.horizon + (v.h - v.horizon) * float(rng.uniform(0.15, 0.95)), 0.02 * v.unit
        v.c.stroke([(x - s, y - s * 0.8), (x - s * 0.3, y)], color, v.line)
        v.c.stroke([(x + s, y - s * 0.9), (x + s * 0.3, y)], color, v.line)
        v.c.stroke([(x, y - s * 1.3), (x, y)], color, v.line)
