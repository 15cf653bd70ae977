"""Heads: skull, hair or helmet by kind, and a face whose eyes, brows and mouth follow the emotion.

Inside a head lengths are shares of its radius, x towards where it faces, y up.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, radians, sin

from stage3.samples.cast import Character
from stage3.samples.ink import Canvas, Point, ring
from stage3.samples.looks import FIGURE_LIGHT, Color, darker, lighter

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


def draw_head(
    c: Canvas, place: Callable[[float, float], Point], center: Point, radius: float, who: Character,
    emotion: str, action: str, line: float, tilt: float = 0.0,
) -> None:  # fmt: skip
    """Draw the head of `who` at a point of its figure."""
    head = Head(c, place, center, radius, tilt, who, line)
    _KINDS[who.kind](head)
    asleep = action == "sleep"
    if who.kind == "robot":
        _robot_face(head, emotion, asleep)
    else:
        face(head, emotion, asleep)
    _over_face(head)
    _hat(head)


def _skin(head: Head) -> Color:
    return head.c.paint(head.who.skin, FIGURE_LIGHT)


def _hair(head: Head) -> Color:
    return head.c.paint(head.who.locks, FIGURE_LIGHT)


def _skull(head: Head, points: list[Point], fill: Color) -> None:
    head.blob(points, fill)
    if head.c.look.shading == "cel" and head.unit > 20:  # the shadow lies on the back of the head
        inner = [(x * 0.9 + 0.1, y * 0.9 + 0.07) for x, y in points]
        head.blob(points, darker(fill, 0.18), 0)
        head.blob(inner, fill, 0)
        head.blob(points, None)


FACE: list[Point] = [(0, 1), (0.62, 0.84), (0.95, 0.3), (0.93, -0.25), (0.62, -0.78), (0.12, -0.98), (-0.45, -0.85), (-0.86, -0.35), (-0.97, 0.2), (-0.66, 0.8)]
WIDE: list[Point] = [(0, 0.86), (0.6, 0.76), (0.98, 0.3), (1.06, -0.2), (0.72, -0.72), (0.1, -0.9), (-0.55, -0.78), (-1.0, -0.3), (-1.0, 0.25), (-0.62, 0.74)]


def _man(head: Head) -> None:
    hair = _hair(head)
    _skull(head, FACE, _skin(head))
    _ear(head)
    if head.who.style == 0:  # short back and sides
        head.blob([(-1.02, -0.1), (-1.08, 0.55), (-0.5, 1.12), (0.35, 1.16), (0.9, 0.72), (0.6, 0.55), (0.0, 0.62), (-0.5, 0.45), (-0.66, -0.05)], hair)
    elif head.who.style == 1:  # a quiff
        head.blob([(-1.0, -0.05), (-1.05, FIGURE_LIGHT), (-0.35, 1.1), (0.4, 1.2), (1.12, 1.3), (1.02, 0.72), (0.45, FIGURE_LIGHT), (-0.3, 0.62), (-0.68, 0.1)], hair)
    elif head.who.style == 2:  # spikes
        head.polygon([(-0.98, 0.0), (-1.2, 0.5), (-0.9, FIGURE_LIGHT), (-1.0, 1.05), (-0.5, 0.95), (-0.3, 1.4), (0.1, 1.05), (0.5, 1.3), (0.6, 0.92), (0.98, 0.9), (0.84, 0.5), (0.3, 0.68), (-0.4, 0.56), (-0.66, 0.05)], hair)
    else:  # bald on top, with a moustache drawn over the face
        head.blob([(-0.95, -0.3), (-1.1, 0.1), (-0.98, 0.5), (-0.72, 0.42), (-0.7, -0.1)], hair)


def _woman(head: Head) -> None:
    hair, style = _hair(head), head.who.style
    if style == 0:  # long
        head.blob([(0.1, 1.2), (0.9, 0.85), (0.85, 0.3), (-0.2, -0.4), (-0.3, -1.5), (-0.9, -1.75), (-1.45, -1.3), (-1.25, 0.3), (-0.8, 1.05)], hair)
    elif style == 1:  # ponytail
        head.blob([(-0.7, 0.75), (-1.35, 0.95), (-1.8, 0.3), (-1.65, -0.7), (-1.85, -1.1), (-1.3, -0.85), (-1.15, 0.1)], hair)
    elif style == 2:  # bun
        head.oval(-0.75, 1.0, 0.5, 0.46, hair, head.line)
    else:  # bob
        head.blob([(0.1, 1.22), (0.95, 0.8), (1.0, 0.1), (0.6, -0.5), (-0.6, -1.1), (-1.2, -0.9), (-1.3, 0.1), (-0.85, 1.0)], hair)
    _skull(head, FACE, _skin(head))
    if style != 0:
        _ear(head)
    head.blob([(-1.02, -0.25), (-1.12, 0.45), (-0.6, 1.1), (0.2, 1.2), (0.85, 0.85), (0.98, 0.3), (0.6, 0.5), (0.1, 0.78), (-0.5, 0.5), (-0.72, 0.0)], hair)
    head.curve([(-0.7, 0.7), (-0.2, 0.98), (0.3, 0.98)], 0.7, lighter(hair, 0.35))


def _child(head: Head) -> None:
    hair = _hair(head)
    if head.who.style % 2:  # pigtails
        for side in (-1, 1):
            head.blob([(side * 0.85, 0.3), (side * 1.3, 0.45), (side * 1.5, -0.1), (side * 1.25, -0.4), (side * 1.0, -0.1)], hair)
    _skull(head, WIDE, _skin(head))
    _ear(head)
    head.blob([(-1.0, 0.0), (-1.05, FIGURE_LIGHT), (-0.4, 1.08), (0.15, 1.02), (0.3, 1.3), (0.5, 1.0), (0.98, FIGURE_LIGHT), (0.72, 0.5), (0.4, 0.66), (0.0, 0.5), (-0.35, 0.64), (-0.7, 0.3)], hair)
    for x, y in ((-0.22, -0.32), (-0.08, -0.4), (0.78, -0.32), (0.66, -0.4)):  # freckles
        head.oval(x, y, 0.04, 0.04, darker(_skin(head), 0.3))


def _ear(head: Head) -> None:
    skin = _skin(head)
    head.oval(-0.78, -0.08, 0.2, 0.26, skin, head.line)
    head.curve([(-0.85, 0.02), (-0.72, -0.02), (-0.74, -0.16)], FIGURE_LIGHT)


def _cat(head: Head) -> None:
    fur = _skin(head)
    for side in (-1, 1):
        x = 0.05 + side * 0.62
        head.polygon([(x - 0.36, 0.5), (x + side * 0.28, 1.38), (x + 0.36, 0.5)], fur)
        head.polygon([(x - 0.18, FIGURE_LIGHT), (x + side * 0.2, 1.12), (x + 0.18, FIGURE_LIGHT)], head.c.paint((244, 170, 170), FIGURE_LIGHT), 0)
    _skull(head, WIDE, fur)
    for x in (-0.15, 0.1, 0.35):
        head.curve([(x, 0.82), (x + 0.02, 0.5)], 1.3, darker(fur, 0.4))
    head.blob([(0.3, -0.1), (0.78, -0.25), (0.85, -0.6), (0.35, -0.82), (-0.15, -0.6), (-0.08, -0.25)], lighter(fur, FIGURE_LIGHT), 0)


def _bear(head: Head) -> None:
    fur = _skin(head)
    for side in (-1, 1):
        head.oval(0.02 + side * 0.72, 0.72, 0.36, 0.36, fur, head.line)
        head.oval(0.02 + side * 0.72, 0.72, 0.19, 0.19, darker(fur, 0.3))
    _skull(head, WIDE, fur)
    head.oval(0.36, -0.38, 0.52, 0.42, lighter(fur, 0.5), head.line * 0.7)


def _rabbit(head: Head) -> None:
    fur = _skin(head)
    bend = 0.45 if head.who.style % 2 else 0.0
    for x, lean in ((0.3, 0.25), (-0.35, -0.2)):
        top = x + lean
        head.blob([(x - 0.24, FIGURE_LIGHT), (top - 0.3, 1.6), (top - 0.05 - bend, 2.35), (top + 0.28, 1.65), (x + 0.26, FIGURE_LIGHT)], fur)
        head.blob([(x - 0.1, 0.7), (top - 0.14, 1.6), (top - 0.03 - bend * 0.8, 2.05), (top + 0.12, 1.6), (x + 0.12, 0.7)], head.c.paint((246, 176, 180), FIGURE_LIGHT), 0)
    _skull(head, WIDE, fur)
    head.oval(0.36, -0.42, 0.46, 0.36, lighter(fur, FIGURE_LIGHT))


def _alien(head: Head) -> None:
    skin = _skin(head)
    for x in (-0.35, 0.5):
        head.curve([(x * 0.8, 0.9), (x * 1.1, 1.3), (x * 1.5, 1.55)], 1.4)
        head.oval(x * 1.55, 1.62, 0.14, 0.14, head.c.paint((250, 214, 90), 0.4), head.line * 0.8)
    _skull(head, [(0, 1.18), (0.8, 1.0), (1.12, 0.42), (0.9, -0.25), (0.5, -0.8), (0.15, -1.0), (-0.25, -0.86), (-0.82, -0.25), (-1.08, 0.42), (-0.78, 1.0)], skin)
    for x, y in ((-0.62, 0.72), (-0.42, 0.9), (-0.75, 0.45)):
        head.oval(x, y, 0.09, 0.07, darker(skin, 0.22))


def _robot(head: Head) -> None:
    steel = _skin(head)
    head.oval(-0.98, 0.0, 0.2, 0.3, darker(steel), head.line)
    shell = [(-0.95, 0.8), (0.95, 0.8), (1.02, 0.7), (1.02, -0.75), (0.92, -0.85), (-0.92, -0.85), (-1.02, -0.75), (-1.02, 0.7)]
    head.polygon(shell, steel)
    if head.c.look.shading == "cel":
        head.polygon([(-0.98, 0.72), (-0.62, 0.76), (-0.62, -0.8), (-0.98, -0.78)], darker(steel, 0.2), 0)
    head.polygon([(-0.5, 0.58), (0.92, 0.58), (0.92, -0.66), (-0.5, -0.66)], head.c.paint((44, 56, 74), 0.4), head.line * 0.8)
    for x, y in ((-0.8, 0.62), (-0.8, -0.66)):
        head.oval(x, y, 0.07, 0.07, darker(steel, 0.5))


def _wizard(head: Head) -> None:
    hair = _hair(head)
    head.blob([(-0.6, FIGURE_LIGHT), (-1.25, 0.1), (-1.35, -0.9), (-0.9, -1.1), (-0.6, -0.4)], hair)
    _skull(head, FACE, _skin(head))
    _ear(head)


def _knight(head: Head) -> None:
    steel = head.c.paint((184, 194, 208), FIGURE_LIGHT)
    _skull(head, [(0, 1.12), (0.7, 0.92), (1.0, 0.35), (1.0, -0.5), (0.75, -0.98), (-0.3, -1.0), (-0.9, -0.75), (-1.05, 0.1), (-0.75, 0.9)], steel)
    head.blob([(-0.28, 0.42), (0.3, 0.5), (0.86, 0.4), (0.9, -0.3), (0.66, -0.78), (0.1, -0.82), (-0.26, -0.5)], _skin(head), head.line * 0.9)


def _pirate(head: Head) -> None:
    hair = _hair(head)
    head.blob([(-0.5, 0.5), (-1.2, 0.1), (-1.3, -0.9), (-0.7, -1.0), (-0.55, -0.2)], hair)
    _skull(head, FACE, _skin(head))
    _ear(head)
    head.oval(-0.84, -0.42, 0.1, 0.14, None, head.line)


_KINDS: dict[str, Callable[[Head], None]] = {
    "man": _man, "woman": _woman, "child": _child, "cat": _cat, "bear": _bear, "rabbit": _rabbit, "robot": _robot,
    "alien": _alien, "wizard": _wizard, "knight": _knight, "pirate": _pirate,
}  # fmt: skip

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
    return head.c.look.ink if head.who.hair in ("none", "black", "blonde") else darker(_hair(head), 0.45)


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
        head.blob([(0.26, 0.02), (0.52 + big, -0.22), (0.4 + big, -0.38), (0.22, -0.32)], _skin(head), 0)
        head.curve([(0.28, 0.0), (0.54 + big, -0.22), (0.42 + big, -0.38), (0.24, -0.32)], 0.9)
    elif kind != "alien":
        head.curve([(0.34, -0.06), (0.42, -0.22), (0.3, -0.24)], 0.8)


def _mouth(head: Head, emotion: str) -> None:
    x, y = (0.32, -0.56) if head.who.kind != "alien" else (0.18, -0.62)
    red, ink = head.c.paint((176, 44, 52), 0.4), head.c.look.ink
    if emotion == "happy":
        head.blob([(x - 0.34, y + 0.1), (x, y + 0.04), (x + 0.34, y + 0.12), (x + 0.22, y - 0.2), (x - 0.02, y - 0.28), (x - 0.24, y - 0.18)], red, head.line * 0.9)
        head.polygon([(x - 0.26, y + 0.05), (x + 0.27, y + 0.06), (x + 0.22, y - 0.04), (x - 0.22, y - 0.04)], WHITE, 0)
    elif emotion == "sad":
        head.curve([(x - 0.26, y - 0.16), (x - 0.02, y + 0.04), (x + 0.24, y - 0.14)], 1.4)
    elif emotion == "angry":
        head.polygon([(x - 0.32, y - 0.14), (x - 0.24, y + 0.1), (x + 0.28, y + 0.12), (x + 0.34, y - 0.12)], WHITE, head.line)
        head.curve([(x - 0.28, y - 0.02), (x, y), (x + 0.31, y)], 0.7)
        for t in (-0.12, 0.04, 0.2):
            head.curve([(x + t, y + 0.1), (x + t, y - 0.12)], FIGURE_LIGHT)
    elif emotion == "scared":
        head.curve([(x - 0.3, y - 0.06), (x - 0.18, y + 0.05), (x - 0.04, y - 0.08), (x + 0.1, y + 0.05), (x + 0.24, y - 0.06)], 1.4)
    elif emotion == "surprised":
        head.oval(x + 0.02, y - 0.06, 0.16, 0.22, red, head.line)
    else:
        head.curve([(x - 0.2, y), (x + 0.02, y - 0.06), (x + 0.24, y + 0.03)], 1.3)
    if head.who.kind == "rabbit" and emotion in ("calm", "happy"):
        head.polygon([(x - 0.04, y - 0.02), (x + 0.14, y - 0.02), (x + 0.13, y - 0.2), (x - 0.03, y - 0.2)], WHITE, head.line * 0.6)
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


def _robot_face(head: Head, emotion: str, asleep: bool) -> None:
    glow = {"happy": (120, 240, 160), "sad": (110, 170, 250), "angry": (252, 90, 70), "scared": (250, 220, 90), "surprised": (250, 180, 250), "calm": (140, 230, 240)}[emotion]
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


def _over_face(head: Head) -> None:
    """What covers part of the face: beards, moustaches, the eye patch."""
    who, hair = head.who, _hair(head)
    if who.kind == "wizard":
        long = -2.3 if who.style % 2 else -1.8
        head.blob([(-0.72, -0.1), (-0.55, -0.3), (-0.1, -0.32), (0.3, -0.78), (0.66, -0.34), (0.86, -0.2), (0.9, -0.8), (0.6, -1.35), (0.3, long), (-0.1, -1.5), (-0.6, -1.0)], hair)
        head.blob([(0.34, -0.38), (0.75, -0.5), (0.98, -0.36), (0.8, -0.3), (0.4, -0.28), (0.0, -0.32), (-0.25, -0.4), (0.0, -0.54)], lighter(hair, 0.25), head.line * 0.7)
        for x in (0.05, 0.35):
            head.curve([(x, -0.9), (x + 0.02, -1.4)], 0.6, darker(hair, 0.3))
    elif who.kind == "man" and who.style == 3:
        head.blob([(0.36, -0.36), (0.8, -0.52), (0.95, -0.42), (0.8, -0.34), (0.38, -0.28), (0.0, -0.34), (-0.16, -0.44), (0.0, -0.52)], hair)
    elif who.kind == "pirate":
        head.oval(0.58, 0.08, 0.25, 0.24, head.c.look.ink)
        head.curve([(-0.98, 0.34), (-0.2, 0.36), (0.58, 0.2), (0.95, 0.3)], 1.4)
        if who.style % 2:
            head.blob([(0.2, -0.72), (0.5, -0.72), (0.44, -1.25), (0.24, -1.2)], hair, head.line * 0.8)
        head.blob([(0.36, -0.36), (0.85, -0.5), (1.05, -0.3), (0.75, -0.32), (0.38, -0.28), (0.0, -0.32), (-0.28, -0.28), (-0.1, -0.5)], hair, head.line * 0.8)


def _hat(head: Head) -> None:
    who = head.who
    cloth, gold = head.c.paint(who.fabric, FIGURE_LIGHT), head.c.paint((244, 206, 92), 0.5)
    if who.hat == "pointed hat":
        head.blob([(-0.75, FIGURE_LIGHT), (-0.5, 1.3), (-0.55, 2.1), (-0.95, 2.6), (-0.1, 2.3), (0.5, 1.4), (0.85, 0.62)], cloth)
        head.blob([(-1.45, 0.5), (-0.6, 0.82), (0.2, 0.86), (1.0, 0.74), (1.5, 0.42), (0.8, 0.46), (0.1, 0.52), (-0.7, 0.46)], cloth)
        head.polygon(_star(0.05, 1.35, 0.24), gold, head.line * 0.5)
        head.polygon(_star(-0.32, 1.9, 0.15), gold, 0)
    elif who.hat == "cap":
        dark = darker(cloth, 0.25)
        head.blob([(-1.02, 0.42), (-0.92, 0.95), (-0.3, 1.3), (0.4, 1.26), (0.92, 0.85), (0.98, 0.5), (0.0, 0.56)], cloth)
        head.blob([(0.5, 0.62), (1.1, 0.62), (1.62, 0.42), (1.1, 0.42), (0.5, 0.44)], dark)
        head.oval(-0.05, 1.28, 0.1, 0.08, dark, head.line * 0.7)
    elif who.hat == "top hat":
        black = head.c.paint((48, 44, 58), FIGURE_LIGHT)
        head.polygon([(-0.7, 0.7), (-0.78, 1.85), (0.86, 1.85), (0.78, 0.7)], black)
        head.polygon([(-0.71, 0.8), (-0.74, 1.1), (0.81, 1.1), (0.79, 0.8)], cloth, head.line * 0.6)
        head.blob([(-1.2, 0.68), (0.0, 0.84), (1.3, 0.68), (0.0, 0.5)], black)
    elif who.hat == "bow":
        x, y = (-0.35, 1.08) if who.kind != "rabbit" else (-0.05, 0.95)
        head.blob([(x, y), (x - 0.5, y + 0.34), (x - 0.55, y - 0.26)], cloth)
        head.blob([(x, y), (x + 0.5, y + 0.34), (x + 0.55, y - 0.26)], cloth)
        head.oval(x, y, 0.14, 0.14, lighter(cloth, 0.3), head.line * 0.8)
    elif who.hat == "helmet":
        plume = cloth
        head.blob([(-0.2, 1.05), (-0.1, 1.75), (-0.7, 1.7), (-1.3, 1.2), (-1.5, 0.4), (-1.0, 0.75), (-0.6, 1.0)], plume)
        head.curve([(-0.9, 0.62), (-0.2, 0.7), (0.5, 0.72), (0.95, 0.5)], 1.2)
    elif who.hat == "tricorne":
        black = head.c.paint((52, 44, 58), FIGURE_LIGHT)
        head.blob([(-1.35, 0.62), (-0.95, 1.2), (-0.3, 1.4), (0.4, 1.45), (1.0, 1.1), (1.4, FIGURE_LIGHT), (0.7, 0.62), (0.0, 0.72), (-0.7, 0.58)], black)
        head.curve([(-1.3, 0.66), (-0.7, 0.64), (0.0, 0.78), (0.7, 0.68), (1.36, 0.64)], 1.2, gold)
        head.oval(0.15, 1.08, 0.15, 0.15, WHITE)
        head.oval(0.15, 0.9, 0.09, 0.07, WHITE)
        for x in (0.1, 0.21):
            head.oval(x, 1.08, 0.035, 0.045, black)
    elif who.hat == "antenna" and who.kind == "robot":
        head.curve([(0.0, 0.8), (0.02, 1.3)], 1.6)
        head.oval(0.02, 1.4, 0.16, 0.16, cloth, head.line)


def _star(x: float, y: float, r: float) -> list[Point]:
    return [(x + (r if k % 2 == 0 else r * 0.45) * sin(radians(36 * k)), y + (r if k % 2 == 0 else r * 0.45) * cos(radians(36 * k))) for k in range(10)]
