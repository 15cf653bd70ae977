"""Faces: a head to draw on, and eyes, brows and mouth that follow the emotion."""

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, radians, sin

from stage3.samples.cast import Character
from stage3.samples.ink import Canvas, Point, ring
from stage3.samples.looks import FIGURE_LIGHT, Color, darker

WHITE: Color = (255, 255, 255)


@dataclass
class Head:
    """A head on a panel: where it is, whose it is, and how its outline is drawn."""

    c: Canvas
    place: Callable[[float, float], Point]
    center: Point
    radius: float
    tilt: float
    who: Character
    line: float

    def at(self, x: float, y: float) -> Point:
        """A point of the head on the panel."""
        k, s = cos(radians(self.tilt)), sin(radians(self.tilt))
        x, y = (x * k - y * s) * self.radius, (x * s + y * k) * self.radius
        return self.place(self.center[0] + x, self.center[1] + y)

    def all(self, points: list[Point]) -> list[Point]:
        """Points of the head on the panel."""
        return [self.at(x, y) for x, y in points]

    @property
    def unit(self) -> float:
        """Page pixels to a radius."""
        (x0, y0), (x1, y1) = self.at(0, 0), self.at(1, 0)
        return float(((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5)

    def blob(self, points: list[Point], fill: Color | None, line: float | None = None) -> None:
        """A smooth shape on the head."""
        self.c.blob(self.all(points), fill, self.line if line is None else line)

    def polygon(self, points: list[Point], fill: Color | None, line: float | None = None) -> None:
        """A polygon on the head."""
        self.c.polygon(self.all(points), fill, self.line if line is None else line)

    def oval(self, x: float, y: float, rx: float, ry: float, fill: Color | None, line: float = 0.0) -> None:
        """An ellipse on the head, turned with it."""
        self.c.polygon(self.all(ring(x, y, rx, ry, 20)), fill, line)

    def curve(self, points: list[Point], width: float = 1.0, ink: Color | None = None) -> None:
        """A line on the head, `width` outlines wide."""
        self.c.curve(self.all(points), ink or self.c.look.ink, self.line * width)


def skin_color(head: Head) -> Color:
    """Color of the skin, fur or metal in this light."""
    return head.c.paint(head.who.skin, FIGURE_LIGHT)


def hair_color(head: Head) -> Color:
    """Color of the hair in this light."""
    return head.c.paint(head.who.locks, FIGURE_LIGHT)


# per emotion: inner and outer end of the brows above the eyes, openness of the eyes, size of the pupils
_BROWS = {
    "happy": (0.40, 0.42, 1.0, 1.0), "sad": (0.52, 0.22, 0.75, 1.0), "angry": (0.14, 0.48, 0.8, 0.85),
    "scared": (0.62, 0.42, 1.3, 0.5), "surprised": (0.62, 0.66, 1.35, 0.7), "calm": (0.36, 0.34, 0.8, 1.0),
}  # fmt: skip


def face(head: Head, emotion: str, asleep: bool) -> None:
    """Eyes, brows, nose and mouth."""
    eyes: tuple[Point, Point] = ((-0.16, 0.08), (0.58, 0.08))
    inner, outer, wide, pupil = _BROWS[emotion]
    for side, (x, y) in zip((-1, 1), eyes, strict=True):
        if head.who.kind == "pirate" and side == 1:
            continue
        if asleep:
            head.curve([(x - 0.17, y), (x, y - 0.1), (x + 0.17, y)], 1.2)
        else:
            _eye(head, emotion, x, y, wide, pupil)
        a, b = (x + 0.2 * -side, y + inner), (x + 0.22 * side, y + outer)
        brow = 1.7 if head.who.kind not in ("woman", "alien", "rabbit") else 1.1
        head.curve([a, ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2 + 0.05), b], brow, _brow_ink(head))
    _nose(head)
    _mouth(head, "calm" if asleep else emotion)
    _extras(head, emotion, asleep)


def _brow_ink(head: Head) -> Color:
    return head.c.look.ink if head.who.hair in ("none", "black", "blonde") else darker(hair_color(head), 0.45)


def _eye(head: Head, emotion: str, x: float, y: float, wide: float, pupil: float) -> None:
    ink, style = head.c.look.ink, head.c.look.eyes
    if head.who.kind == "alien":
        head.oval(x, y + 0.1, 0.3, 0.38 * min(wide, 1.1), ink)
        head.oval(x + 0.08, y + 0.25, 0.08, 0.1, WHITE)
        return
    if emotion == "happy" and style != "white":
        head.curve([(x - 0.16, y - 0.05), (x, y + 0.13), (x + 0.16, y - 0.05)], 1.5)
        return
    if style == "white" or emotion in ("scared", "surprised"):
        head.oval(x, y, 0.21, 0.25 * wide, WHITE, head.line * 0.8)
        head.oval(x + 0.06, y, 0.12 * pupil, 0.14 * pupil, ink)
        if wide < 0.9:  # a heavy lid
            head.curve([(x - 0.22, y + 0.12), (x, y + 0.2), (x + 0.22, y + 0.12)], 1.3)
    elif style == "oval":
        head.oval(x, y, 0.11, 0.2 * wide, ink)
        head.oval(x + 0.03, y + 0.08, 0.035, 0.05, WHITE)
    else:
        head.oval(x, y, 0.11, 0.12, ink)
    if head.who.kind == "woman":
        head.curve([(x - 0.2, y + 0.16), (x, y + 0.26 * wide), (x + 0.2, y + 0.2)], 1.4)
        head.curve([(x + 0.16, y + 0.18), (x + 0.3, y + 0.28)], 1.0)


def _nose(head: Head) -> None:
    kind, ink = head.who.kind, head.c.look.ink
    if kind in ("cat", "rabbit"):
        head.polygon([(0.24, -0.2), (0.5, -0.2), (0.37, -0.34)], head.c.paint((232, 120, 130), 0.5), head.line * 0.6)
    elif kind == "bear":
        head.oval(0.42, -0.2, 0.18, 0.13, ink)
    elif kind in ("man", "wizard", "pirate"):
        big = 0.12 if kind == "wizard" else 0.04 * head.who.style
        head.blob([(0.26, 0.02), (0.52 + big, -0.22), (0.4 + big, -0.38), (0.22, -0.32)], skin_color(head), 0)
        head.curve([(0.28, 0.0), (0.54 + big, -0.22), (0.42 + big, -0.38), (0.24, -0.32)], 0.9)
    elif kind != "alien":
        head.curve([(0.34, -0.06), (0.42, -0.22), (0.3, -0.24)], 0.8)


def _mouth(head: Head, emotion: str) -> None:
    x, y = (0.32, -0.56) if head.who.kind != "alien" else (0.18, -0.62)
    red, ink = head.c.paint((176, 44, 52), 0.4), head.c.look.ink
    if emotion == "happy":
        head.blob(
            [
                (x - 0.34, y + 0.1),
                (x, y + 0.04),
                (x + 0.34, y + 0.12),
                (x + 0.22, y - 0.2),
                (x - 0.02, y - 0.28),
                (x - 0.24, y - 0.18),
            ],
            red,
            head.line * 0.9,
        )
        head.polygon([(x - 0.26, y + 0.05), (x + 0.27, y + 0.06), (x + 0.22, y - 0.04), (x - 0.22, y - 0.04)], WHITE, 0)
    elif emotion == "sad":
        head.curve([(x - 0.26, y - 0.16), (x - 0.02, y + 0.04), (x + 0.24, y - 0.14)], 1.4)
    elif emotion == "angry":
        head.polygon(
            [(x - 0.32, y - 0.14), (x - 0.24, y + 0.1), (x + 0.28, y + 0.12), (x + 0.34, y - 0.12)], WHITE, head.line
        )
        head.curve([(x - 0.28, y - 0.02), (x, y), (x + 0.31, y)], 0.7)
        for t in (-0.12, 0.04, 0.2):
            head.curve([(x + t, y + 0.1), (x + t, y - 0.12)], 0.6)
    elif emotion == "scared":
        head.curve(
            [
                (x - 0.3, y - 0.06),
                (x - 0.18, y + 0.05),
                (x - 0.04, y - 0.08),
                (x + 0.1, y + 0.05),
                (x + 0.24, y - 0.06),
            ],
            1.4,
        )
    elif emotion == "surprised":
        head.oval(x + 0.02, y - 0.06, 0.16, 0.22, red, head.line)
    else:
        head.curve([(x - 0.2, y), (x + 0.02, y - 0.06), (x + 0.24, y + 0.03)], 1.3)
    if head.who.kind == "rabbit" and emotion in ("calm", "happy"):
        head.polygon(
            [(x - 0.04, y - 0.02), (x + 0.14, y - 0.02), (x + 0.13, y - 0.2), (x - 0.03, y - 0.2)],
            WHITE,
            head.line * 0.6,
        )
    if head.who.kind == "woman" and emotion == "calm":
        head.curve([(x - 0.1, y - 0.06), (x + 0.1, y - 0.06)], 2.0, red)
    if head.who.kind == "cat":
        for dy in (-0.02, -0.16):
            for a, b in ((-0.2, -0.75), (0.85, 1.35)):
                head.curve([(a, -0.36 + dy), (b, -0.3 + 2.2 * dy)], 0.6, ink)


def _extras(head: Head, emotion: str, asleep: bool) -> None:
    if asleep:
        return
    if emotion == "sad":
        head.blob([(-0.28, -0.08), (-0.18, -0.34), (-0.28, -0.44), (-0.38, -0.34)], (150, 208, 246), head.line * 0.6)
    elif emotion == "scared":
        head.blob([(-0.72, 0.72), (-0.6, 0.44), (-0.72, 0.32), (-0.84, 0.44)], (170, 218, 248), head.line * 0.6)
    elif emotion == "happy" and head.who.kind in ("woman", "child", "cat", "rabbit"):
        for x in (-0.42, 0.82):
            head.oval(x, -0.3, 0.13, 0.09, head.c.paint((244, 140, 140), 0.4))
    elif emotion == "angry" and head.who.kind != "knight":
        red = head.c.paint((214, 40, 40), 0.3)
        head.curve([(-0.72, 0.62), (-0.58, 0.56), (-0.54, 0.72)], 1.2, red)
        head.curve([(-0.76, 0.46), (-0.6, 0.44), (-0.5, 0.34)], 1.2, red)


def robot_face(head: Head, emotion: str, asleep: bool) -> None:
    """A robot's face: lights on a screen."""
    glow = {
        "happy": (120, 240, 160),
        "sad": (110, 170, 250),
        "angry": (252, 90, 70),
        "scared": (250, 220, 90),
        "surprised": (250, 180, 250),
        "calm": (140, 230, 240),
    }[emotion]
    inner, outer, wide, _ = _BROWS[emotion]
    for side, x in ((-1, -0.12), (1, 0.56)):
        if asleep:
            head.curve([(x - 0.18, 0.12), (x + 0.18, 0.12)], 1.6, glow)
            continue
        head.oval(x, 0.12, 0.19, 0.2 * wide, glow)
        head.oval(x + 0.05, 0.12, 0.07, 0.08, (30, 40, 56))
        if emotion in ("angry", "sad", "scared"):
            slope = (inner - outer) * 0.6
            head.curve([(x - side * 0.24, 0.4 + slope), (x + side * 0.24, 0.4 - slope)], 1.8, glow)
    mouth = {
        "happy": [(-0.1, -0.3), (0.06, -0.45), (0.38, -0.45), (0.54, -0.3)],
        "sad": [(-0.1, -0.5), (0.06, -0.34), (0.38, -0.34), (0.54, -0.5)],
        "angry": [(-0.1, -0.45), (0.04, -0.32), (0.18, -0.45), (0.32, -0.32), (0.46, -0.45), (0.56, -0.36)],
        "scared": [(-0.1, -0.42), (0.02, -0.34), (0.14, -0.46), (0.26, -0.34), (0.38, -0.46), (0.52, -0.38)],
        "calm": [(-0.06, -0.4), (0.5, -0.4)],
    }
    if emotion == "surprised" and not asleep:
        head.oval(0.22, -0.4, 0.15, 0.17, None, 0)
        head.c.polygon(head.all(ring(0.22, -0.4, 0.15, 0.17, 14)), None, head.line, glow)
    else:
        head.c.stroke(head.all(mouth["calm" if asleep else emotion]), glow, head.line * 1.5)


def star(x: float, y: float, r: float) -> list[Point]:
    """Corners of a five-pointed star."""
    return [
        (
            x + (r if k % 2 == 0 else r * 0.45) * sin(radians(36 * k)),
            y + (r if k % 2 == 0 else r * 0.45) * cos(radians(36 * k)),
        )
        for k in range(10)
    ]
