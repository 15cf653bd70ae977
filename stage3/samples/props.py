"""A dozen things to hold, to stand beside and to talk about."""

from collections.abc import Callable
from math import cos, radians, sin

from stage3.samples.ink import Canvas, Point, ring, turn
from stage3.samples.looks import Color, darker, mix

INSIDE = 0.3  # how much of the scene's light a prop takes


class _Pencil:
    """Draws in a prop's own square: x from -0.5 to 0.5 towards its front, y from 0 (bottom) to 1."""

    def __init__(self, c: Canvas, x: float, y: float, size: float, line: float, facing: int, angle: float) -> None:
        self.c, self.x, self.y, self.size, self.line, self.facing, self.angle = c, x, y, size, line, facing, angle

    def at(self, points: list[Point]) -> list[Point]:
        placed = [(self.x + self.facing * px * self.size, self.y - py * self.size) for px, py in points]
        return turn(placed, (self.x, self.y - self.size / 2), self.angle) if self.angle else placed

    def paint(self, color: Color) -> Color:
        return self.c.paint(color, INSIDE)

    def poly(self, points: list[Point], color: Color, line: float = 1.0) -> None:
        self.c.polygon(self.at(points), self.paint(color), self.line * line)

    def blob(self, points: list[Point], color: Color, line: float = 1.0) -> None:
        self.c.blob(self.at(points), self.paint(color), self.line * line)

    def oval(self, x: float, y: float, rx: float, ry: float, color: Color | None, line: float = 1.0) -> None:
        self.c.polygon(self.at(ring(x, y, rx, ry, 24)), None if color is None else self.paint(color), self.line * line)

    def curve(self, points: list[Point], width: float = 1.0, color: Color | None = None) -> None:
        self.c.curve(self.at(points), self.c.look.ink if color is None else self.paint(color), self.line * width)


def draw_prop(
    c: Canvas, prop: str, x: float, y: float, size: float, line: float, facing: int = 1, angle: float = 0.0
) -> None:
    """Draw a prop standing on (x, y), `size` page pixels high."""
    _PROPS[prop](_Pencil(c, x, y, size, line, facing, angle))


def _sword(p: _Pencil) -> None:
    p.poly([(-0.06, 0.3), (-0.06, 1.06), (0.0, 1.22), (0.06, 1.06), (0.06, 0.3)], (214, 224, 236))
    p.poly([(0.0, 0.3), (0.0, 1.15), (0.05, 1.04), (0.05, 0.3)], (168, 184, 206), 0)
    p.poly([(-0.24, 0.24), (-0.24, 0.32), (0.24, 0.32), (0.24, 0.24)], (240, 196, 70))
    p.poly([(-0.045, 0.05), (-0.045, 0.24), (0.045, 0.24), (0.045, 0.05)], (116, 66, 44))
    p.oval(0, 0.03, 0.07, 0.07, (228, 60, 60))


def _lamp(p: _Pencil) -> None:
    glow = [(0.72 * cos(radians(a)), 0.42 + 0.72 * sin(radians(a))) for a in range(0, 360, 30)]
    if p.c.time != "day":
        p.c.blob(p.at(glow), p.c.look.color(mix(p.c.paint((150, 130, 110)), (255, 214, 110), 0.45)))
    p.poly([(-0.26, 0.0), (0.26, 0.0), (0.2, 0.14), (-0.2, 0.14)], (90, 84, 98))
    p.c.polygon(p.at([(-0.2, 0.14), (0.2, 0.14), (0.25, 0.62), (-0.25, 0.62)]), (255, 236, 130), p.line)
    p.c.blob(p.at([(0.0, 0.18), (0.09, 0.3), (0.0, 0.52), (-0.09, 0.3)]), (246, 140, 40))
    for x in (-0.1, 0.1):
        p.curve([(x, 0.14), (x * 1.2, 0.62)], 0.6)
    p.poly([(-0.3, 0.62), (0.3, 0.62), (0.12, 0.8), (-0.12, 0.8)], (90, 84, 98))
    p.oval(0, 0.9, 0.12, 0.1, None)


def _ball(p: _Pencil) -> None:
    p.oval(0, 0.42, 0.42, 0.42, (240, 240, 236))
    for k, color in enumerate(((226, 60, 54), (250, 206, 70), (64, 120, 210))):
        a = radians(120 * k + 20)
        b = radians(120 * k + 80)
        arc = [(0.4 * cos(a + (b - a) * t / 6), 0.42 + 0.4 * sin(a + (b - a) * t / 6)) for t in range(7)]
        p.poly([(0.0, 0.48), *arc], color, 0.6)
    p.oval(0, 0.42, 0.42, 0.42, None)
    p.oval(0.0, 0.48, 0.07, 0.07, (240, 240, 236), 0.6)


def _book(p: _Pencil) -> None:
    p.poly([(-0.52, 0.08), (-0.56, 0.66), (0.0, 0.56), (0.56, 0.66), (0.52, 0.08), (0.0, 0.0)], (150, 44, 52))
    p.blob(
        [(0.0, 0.06), (-0.25, 0.14), (-0.48, 0.12), (-0.5, 0.38), (-0.5, 0.62), (-0.25, 0.65), (0.0, 0.56)],
        (252, 248, 232),
        0.8,
    )
    p.blob(
        [(0.0, 0.06), (0.25, 0.14), (0.48, 0.12), (0.5, 0.38), (0.5, 0.62), (0.25, 0.65), (0.0, 0.56)],
        (252, 248, 232),
        0.8,
    )
    for y in (0.28, 0.4, 0.52):
        p.curve([(-0.42, y), (-0.1, y - 0.02)], 0.5, (130, 120, 120))
        p.curve([(0.1, y - 0.02), (0.42, y)], 0.5, (130, 120, 120))


def _fish(p: _Pencil) -> None:
    orange = (250, 150, 50)
    p.blob([(-0.28, 0.4), (-0.62, 0.68), (-0.54, 0.4), (-0.62, 0.1)], darker(orange, 0.15))
    p.blob([(-0.05, 0.62), (0.0, 0.88), (-0.3, 0.78)], darker(orange, 0.15))
    p.blob([(0.52, 0.42), (0.3, 0.64), (0.0, 0.7), (-0.36, 0.44), (0.0, 0.14), (0.3, 0.2)], orange)
    p.curve([(0.22, 0.62), (0.12, 0.42), (0.22, 0.22)], 0.8)
    p.curve([(-0.02, 0.52), (-0.1, 0.42), (-0.02, 0.32)], 0.7)
    p.oval(0.33, 0.5, 0.075, 0.085, (255, 255, 255), 0.7)
    p.oval(0.35, 0.5, 0.035, 0.04, (20, 20, 30), 0)


def _rocket(p: _Pencil) -> None:
    p.c.blob(p.at([(-0.12, 0.2), (-0.16, 0.02), (0.0, -0.14), (0.16, 0.02), (0.12, 0.2)]), (252, 190, 60), p.line * 0.7)
    p.poly([(-0.18, 0.5), (-0.42, 0.14), (-0.14, 0.22)], (214, 52, 48))
    p.poly([(0.18, 0.5), (0.42, 0.14), (0.14, 0.22)], (214, 52, 48))
    p.blob(
        [(0.0, 1.25), (0.2, 0.92), (0.22, 0.5), (0.13, 0.18), (-0.13, 0.18), (-0.22, 0.5), (-0.2, 0.92)],
        (236, 238, 242),
    )
    p.blob([(0.0, 1.27), (0.17, 0.98), (0.0, 0.94), (-0.17, 0.98)], (214, 52, 48))
    p.oval(0.0, 0.66, 0.1, 0.1, (110, 190, 236))
    p.curve([(-0.2, 0.36), (0.0, 0.32), (0.2, 0.36)], 0.8)


def _umbrella(p: _Pencil) -> None:
    p.curve([(0.0, 0.95), (0.0, 0.16), (0.05, 0.03), (0.16, 0.06), (0.16, 0.16)], 2.4)
    canopy = [
        (-0.62, 0.56),
        (-0.5, 0.86),
        (0.0, 1.08),
        (0.5, 0.86),
        (0.62, 0.56),
        (0.42, 0.62),
        (0.21, 0.55),
        (0.0, 0.62),
        (-0.21, 0.55),
        (-0.42, 0.62),
    ]
    p.blob(canopy, (220, 60, 120))
    p.poly([(0.0, 1.06), (-0.21, 0.56), (0.0, 0.63), (0.21, 0.56)], (252, 232, 240), 0.8)
    p.poly([(0.0, 1.06), (0.42, 0.62), (0.6, 0.57), (0.47, 0.86), (0.25, 1.0)], (252, 232, 240), 0.8)
    p.curve([(0.0, 1.06), (0.0, 1.16)], 1.6)


def _car(p: _Pencil) -> None:
    red = (226, 62, 52)
    p.blob(
        [
            (-0.78, 0.2),
            (-0.8, 0.44),
            (-0.48, 0.52),
            (-0.3, 0.8),
            (0.22, 0.82),
            (0.46, 0.52),
            (0.78, 0.44),
            (0.82, 0.2),
            (0.0, 0.14),
        ],
        red,
    )
    p.blob([(-0.36, 0.52), (-0.22, 0.74), (-0.03, 0.75), (-0.03, 0.52)], (186, 226, 244), 0.8)
    p.blob([(0.05, 0.52), (0.05, 0.75), (0.2, 0.74), (0.36, 0.52)], (186, 226, 244), 0.8)
    p.curve([(0.0, 0.5), (0.02, 0.2)], 0.7)
    p.oval(0.74, 0.38, 0.06, 0.07, (255, 236, 140), 0.8)
    for x in (-0.46, 0.46):
        p.oval(x, 0.17, 0.19, 0.19, (44, 42, 50))
        p.oval(x, 0.17, 0.08, 0.08, (200, 204, 212), 0.6)


def _chest(p: _Pencil) -> None:
    wood = (156, 98, 52)
    p.poly([(-0.5, 0.45), (-0.44, 0.85), (0.44, 0.85), (0.5, 0.45)], darker(wood, 0.3))
    p.blob([(-0.44, 0.42), (-0.3, 0.62), (-0.08, 0.54), (0.12, 0.66), (0.32, 0.56), (0.44, 0.42)], (250, 208, 70))
    for x, y in ((-0.22, 0.52), (0.02, 0.5), (0.24, 0.53)):
        p.oval(x, y, 0.08, 0.07, (255, 232, 120), 0.6)
    p.poly([(-0.52, 0.0), (-0.52, 0.46), (0.52, 0.46), (0.52, 0.0)], wood)
    p.curve([(-0.5, 0.2), (0.5, 0.2)], 0.6)
    for x in (-0.36, 0.36):
        p.poly([(x - 0.05, 0.0), (x - 0.05, 0.46), (x + 0.05, 0.46), (x + 0.05, 0.0)], (226, 184, 76), 0.7)
    p.poly([(-0.09, 0.2), (-0.09, 0.46), (0.09, 0.46), (0.09, 0.2)], (226, 184, 76), 0.8)
    p.oval(0, 0.34, 0.03, 0.04, (30, 24, 30), 0)


def _guitar(p: _Pencil) -> None:
    wood = (214, 132, 56)
    p.poly([(-0.045, 0.55), (-0.045, 1.18), (0.045, 1.18), (0.045, 0.55)], (110, 66, 42))
    p.poly([(-0.08, 1.14), (-0.1, 1.34), (0.1, 1.34), (0.08, 1.14)], (80, 48, 36))
    p.blob(
        [
            (0.0, 0.72),
            (0.2, 0.68),
            (0.2, 0.5),
            (0.17, 0.42),
            (0.33, 0.26),
            (0.26, 0.03),
            (0.0, -0.03),
            (-0.26, 0.03),
            (-0.33, 0.26),
            (-0.17, 0.42),
            (-0.2, 0.5),
            (-0.2, 0.68),
        ],
        wood,
    )
    p.oval(0, 0.42, 0.095, 0.095, (60, 36, 30), 0.8)
    p.poly([(-0.12, 0.14), (-0.12, 0.19), (0.12, 0.19), (0.12, 0.14)], (80, 48, 36), 0.5)
    for x in (-0.022, 0.022):
        p.curve([(x, 0.17), (x, 1.15)], 0.4, (250, 244, 226))


def _clock(p: _Pencil) -> None:
    for x in (-0.24, 0.24):
        p.poly([(x * 0.8, 0.16), (x * 1.3, 0.0), (x * 0.5, 0.12)], (80, 78, 92))
        p.oval(x, 0.86, 0.17, 0.13, (244, 196, 70))
    p.curve([(0.0, 0.84), (0.0, 1.0)], 2.0)
    p.oval(0, 0.46, 0.42, 0.42, (64, 158, 170))
    p.oval(0, 0.46, 0.32, 0.32, (254, 252, 244), 0.8)
    for k in range(12):
        a = radians(30 * k)
        p.curve([(0.25 * sin(a), 0.46 + 0.25 * cos(a)), (0.29 * sin(a), 0.46 + 0.29 * cos(a))], 0.8)
    p.curve([(0, 0.46), (0.0, 0.7)], 1.4)
    p.curve([(0, 0.46), (0.17, 0.38)], 1.6, (200, 40, 40))


def _cake(p: _Pencil) -> None:
    p.oval(0, 0.06, 0.58, 0.07, (226, 232, 240))
    p.poly([(-0.44, 0.06), (-0.44, 0.44), (0.44, 0.44), (0.44, 0.06)], (232, 176, 110))
    p.curve([(-0.43, 0.24), (0.43, 0.24)], 2.4, (250, 244, 236))
    p.blob(
        [
            (-0.46, 0.36),
            (-0.46, 0.56),
            (0.0, 0.62),
            (0.46, 0.56),
            (0.46, 0.36),
            (0.3, 0.3),
            (0.16, 0.42),
            (0.0, 0.32),
            (-0.18, 0.42),
            (-0.32, 0.28),
        ],
        (250, 150, 186),
    )
    for x, color in ((-0.24, (90, 160, 230)), (0.0, (250, 220, 90)), (0.24, (120, 200, 120))):
        p.poly([(x - 0.035, 0.56), (x - 0.035, 0.8), (x + 0.035, 0.8), (x + 0.035, 0.56)], color, 0.6)
        p.c.blob(p.at([(x, 0.8), (x + 0.05, 0.88), (x, 1.0), (x - 0.05, 0.88)]), (255, 190, 50), p.line * 0.5)


_PROPS: dict[str, Callable[[_Pencil], None]] = {
    "sword": _sword, "lamp": _lamp, "ball": _ball, "book": _book, "fish": _fish, "rocket": _rocket,
    "umbrella": _umbrella, "car": _car, "chest": _chest, "guitar": _guitar, "clock": _clock, "cake": _cake,
}  # fmt: skip
