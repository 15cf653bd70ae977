"""Heads: skull, hair or helmet by kind, and a face whose eyes, brows and mouth follow the emotion.

Inside a head lengths are shares of its radius, x towards where it faces, y up.
"""

from collections.abc import Callable

from stage3.samples.cast import Character
from stage3.samples.faces import WHITE, Head, face, hair_color, robot_face, skin_color, star
from stage3.samples.ink import Canvas, Point
from stage3.samples.looks import FIGURE_LIGHT, Color, darker, lighter


def draw_head(
    c: Canvas, place: Callable[[float, float], Point], center: Point, radius: float, who: Character,
    emotion: str, action: str, line: float, tilt: float = 0.0,
) -> None:  # fmt: skip
    """Draw the head of `who` at a point of its figure."""
    head = Head(c, place, center, radius, tilt, who, line)
    _KINDS[who.kind](head)
    asleep = action == "sleep"
    if who.kind == "robot":
        robot_face(head, emotion, asleep)
    else:
        face(head, emotion, asleep)
    _over_face(head)
    _hat(head)


def _skull(head: Head, points: list[Point], fill: Color) -> None:
    head.blob(points, fill)
    if head.c.look.shading == "cel" and head.unit > 20:  # the shadow lies on the back of the head
        inner = [(x * 0.9 + 0.1, y * 0.9 + 0.07) for x, y in points]
        head.blob(points, darker(fill, 0.18), 0)
        head.blob(inner, fill, 0)
        head.blob(points, None)


FACE: list[Point] = [
    (0, 1),
    (0.62, 0.84),
    (0.95, 0.3),
    (0.93, -0.25),
    (0.62, -0.78),
    (0.12, -0.98),
    (-0.45, -0.85),
    (-0.86, -0.35),
    (-0.97, 0.2),
    (-0.66, 0.8),
]
WIDE: list[Point] = [
    (0, 0.86),
    (0.6, 0.76),
    (0.98, 0.3),
    (1.06, -0.2),
    (0.72, -0.72),
    (0.1, -0.9),
    (-0.55, -0.78),
    (-1.0, -0.3),
    (-1.0, 0.25),
    (-0.62, 0.74),
]


def _man(head: Head) -> None:
    hair = hair_color(head)
    _skull(head, FACE, skin_color(head))
    _ear(head)
    if head.who.style == 0:  # short back and sides
        head.blob(
            [
                (-1.02, -0.1),
                (-1.08, 0.55),
                (-0.5, 1.12),
                (0.35, 1.16),
                (0.9, 0.72),
                (0.6, 0.55),
                (0.0, 0.62),
                (-0.5, 0.45),
                (-0.66, -0.05),
            ],
            hair,
        )
    elif head.who.style == 1:  # a quiff
        head.blob(
            [
                (-1.0, -0.05),
                (-1.05, 0.6),
                (-0.35, 1.1),
                (0.4, 1.2),
                (1.12, 1.3),
                (1.02, 0.72),
                (0.45, 0.6),
                (-0.3, 0.62),
                (-0.68, 0.1),
            ],
            hair,
        )
    elif head.who.style == 2:  # spikes
        head.polygon(
            [
                (-0.98, 0.0),
                (-1.2, 0.5),
                (-0.9, 0.6),
                (-1.0, 1.05),
                (-0.5, 0.95),
                (-0.3, 1.4),
                (0.1, 1.05),
                (0.5, 1.3),
                (0.6, 0.92),
                (0.98, 0.9),
                (0.84, 0.5),
                (0.3, 0.68),
                (-0.4, 0.56),
                (-0.66, 0.05),
            ],
            hair,
        )
    else:  # bald on top, with a moustache drawn over the face
        head.blob([(-0.95, -0.3), (-1.1, 0.1), (-0.98, 0.5), (-0.72, 0.42), (-0.7, -0.1)], hair)


def _woman(head: Head) -> None:
    hair, style = hair_color(head), head.who.style
    if style == 0:  # long
        head.blob(
            [
                (0.1, 1.2),
                (0.9, 0.85),
                (0.85, 0.3),
                (-0.2, -0.4),
                (-0.3, -1.5),
                (-0.9, -1.75),
                (-1.45, -1.3),
                (-1.25, 0.3),
                (-0.8, 1.05),
            ],
            hair,
        )
    elif style == 1:  # ponytail
        head.blob(
            [(-0.7, 0.75), (-1.35, 0.95), (-1.8, 0.3), (-1.65, -0.7), (-1.85, -1.1), (-1.3, -0.85), (-1.15, 0.1)], hair
        )
    elif style == 2:  # bun
        head.oval(-0.75, 1.0, 0.5, 0.46, hair, head.line)
    else:  # bob
        head.blob(
            [(0.1, 1.22), (0.95, 0.8), (1.0, 0.1), (0.6, -0.5), (-0.6, -1.1), (-1.2, -0.9), (-1.3, 0.1), (-0.85, 1.0)],
            hair,
        )
    _skull(head, FACE, skin_color(head))
    if style != 0:
        _ear(head)
    head.blob(
        [
            (-1.02, -0.25),
            (-1.12, 0.45),
            (-0.6, 1.1),
            (0.2, 1.2),
            (0.85, 0.85),
            (0.98, 0.3),
            (0.6, 0.5),
            (0.1, 0.78),
            (-0.5, 0.5),
            (-0.72, 0.0),
        ],
        hair,
    )
    head.curve([(-0.7, 0.7), (-0.2, 0.98), (0.3, 0.98)], 0.7, lighter(hair, 0.35))


def _child(head: Head) -> None:
    hair = hair_color(head)
    if head.who.style % 2:  # pigtails
        for side in (-1, 1):
            head.blob(
                [(side * 0.85, 0.3), (side * 1.3, 0.45), (side * 1.5, -0.1), (side * 1.25, -0.4), (side * 1.0, -0.1)],
                hair,
            )
    _skull(head, WIDE, skin_color(head))
    _ear(head)
    head.blob(
        [
            (-1.0, 0.0),
            (-1.05, 0.6),
            (-0.4, 1.08),
            (0.15, 1.02),
            (0.3, 1.3),
            (0.5, 1.0),
            (0.98, 0.6),
            (0.72, 0.5),
            (0.4, 0.66),
            (0.0, 0.5),
            (-0.35, 0.64),
            (-0.7, 0.3),
        ],
        hair,
    )
    for x, y in ((-0.22, -0.32), (-0.08, -0.4), (0.78, -0.32), (0.66, -0.4)):  # freckles
        head.oval(x, y, 0.04, 0.04, darker(skin_color(head), 0.3))


def _ear(head: Head) -> None:
    skin = skin_color(head)
    head.oval(-0.78, -0.08, 0.2, 0.26, skin, head.line)
    head.curve([(-0.85, 0.02), (-0.72, -0.02), (-0.74, -0.16)], 0.6)


def _cat(head: Head) -> None:
    fur = skin_color(head)
    for side in (-1, 1):
        x = 0.05 + side * 0.62
        head.polygon([(x - 0.36, 0.5), (x + side * 0.28, 1.38), (x + 0.36, 0.5)], fur)
        head.polygon(
            [(x - 0.18, 0.6), (x + side * 0.2, 1.12), (x + 0.18, 0.6)],
            head.c.paint((244, 170, 170), FIGURE_LIGHT),
            0,
        )
    _skull(head, WIDE, fur)
    for x in (-0.15, 0.1, 0.35):
        head.curve([(x, 0.82), (x + 0.02, 0.5)], 1.3, darker(fur, 0.4))
    head.blob(
        [(0.3, -0.1), (0.78, -0.25), (0.85, -0.6), (0.35, -0.82), (-0.15, -0.6), (-0.08, -0.25)],
        lighter(fur, 0.6),
        0,
    )


def _bear(head: Head) -> None:
    fur = skin_color(head)
    for side in (-1, 1):
        head.oval(0.02 + side * 0.72, 0.72, 0.36, 0.36, fur, head.line)
        head.oval(0.02 + side * 0.72, 0.72, 0.19, 0.19, darker(fur, 0.3))
    _skull(head, WIDE, fur)
    head.oval(0.36, -0.38, 0.52, 0.42, lighter(fur, 0.5), head.line * 0.7)


def _rabbit(head: Head) -> None:
    fur = skin_color(head)
    bend = 0.45 if head.who.style % 2 else 0.0
    for x, lean in ((0.3, 0.25), (-0.35, -0.2)):
        top = x + lean
        head.blob(
            [
                (x - 0.24, 0.6),
                (top - 0.3, 1.6),
                (top - 0.05 - bend, 2.35),
                (top + 0.28, 1.65),
                (x + 0.26, 0.6),
            ],
            fur,
        )
        head.blob(
            [(x - 0.1, 0.7), (top - 0.14, 1.6), (top - 0.03 - bend * 0.8, 2.05), (top + 0.12, 1.6), (x + 0.12, 0.7)],
            head.c.paint((246, 176, 180), FIGURE_LIGHT),
            0,
        )
    _skull(head, WIDE, fur)
    head.oval(0.36, -0.42, 0.46, 0.36, lighter(fur, 0.6))


def _alien(head: Head) -> None:
    skin = skin_color(head)
    for x in (-0.35, 0.5):
        head.curve([(x * 0.8, 0.9), (x * 1.1, 1.3), (x * 1.5, 1.55)], 1.4)
        head.oval(x * 1.55, 1.62, 0.14, 0.14, head.c.paint((250, 214, 90), 0.4), head.line * 0.8)
    _skull(
        head,
        [
            (0, 1.18),
            (0.8, 1.0),
            (1.12, 0.42),
            (0.9, -0.25),
            (0.5, -0.8),
            (0.15, -1.0),
            (-0.25, -0.86),
            (-0.82, -0.25),
            (-1.08, 0.42),
            (-0.78, 1.0),
        ],
        skin,
    )
    for x, y in ((-0.62, 0.72), (-0.42, 0.9), (-0.75, 0.45)):
        head.oval(x, y, 0.09, 0.07, darker(skin, 0.22))


def _robot(head: Head) -> None:
    steel = skin_color(head)
    head.oval(-0.98, 0.0, 0.2, 0.3, darker(steel), head.line)
    shell = [
        (-0.95, 0.8),
        (0.95, 0.8),
        (1.02, 0.7),
        (1.02, -0.75),
        (0.92, -0.85),
        (-0.92, -0.85),
        (-1.02, -0.75),
        (-1.02, 0.7),
    ]
    head.polygon(shell, steel)
    if head.c.look.shading == "cel":
        head.polygon([(-0.98, 0.72), (-0.62, 0.76), (-0.62, -0.8), (-0.98, -0.78)], darker(steel, 0.2), 0)
    head.polygon(
        [(-0.5, 0.58), (0.92, 0.58), (0.92, -0.66), (-0.5, -0.66)], head.c.paint((44, 56, 74), 0.4), head.line * 0.8
    )
    for x, y in ((-0.8, 0.62), (-0.8, -0.66)):
        head.oval(x, y, 0.07, 0.07, darker(steel, 0.5))


def _wizard(head: Head) -> None:
    hair = hair_color(head)
    head.blob([(-0.6, 0.6), (-1.25, 0.1), (-1.35, -0.9), (-0.9, -1.1), (-0.6, -0.4)], hair)
    _skull(head, FACE, skin_color(head))
    _ear(head)


def _knight(head: Head) -> None:
    steel = head.c.paint((184, 194, 208), FIGURE_LIGHT)
    _skull(
        head,
        [
            (0, 1.12),
            (0.7, 0.92),
            (1.0, 0.35),
            (1.0, -0.5),
            (0.75, -0.98),
            (-0.3, -1.0),
            (-0.9, -0.75),
            (-1.05, 0.1),
            (-0.75, 0.9),
        ],
        steel,
    )
    head.blob(
        [(-0.28, 0.42), (0.3, 0.5), (0.86, 0.4), (0.9, -0.3), (0.66, -0.78), (0.1, -0.82), (-0.26, -0.5)],
        skin_color(head),
        head.line * 0.9,
    )


def _pirate(head: Head) -> None:
    hair = hair_color(head)
    head.blob([(-0.5, 0.5), (-1.2, 0.1), (-1.3, -0.9), (-0.7, -1.0), (-0.55, -0.2)], hair)
    _skull(head, FACE, skin_color(head))
    _ear(head)
    head.oval(-0.84, -0.42, 0.1, 0.14, None, head.line)


_KINDS: dict[str, Callable[[Head], None]] = {
    "man": _man, "woman": _woman, "child": _child, "cat": _cat, "bear": _bear, "rabbit": _rabbit, "robot": _robot,
    "alien": _alien, "wizard": _wizard, "knight": _knight, "pirate": _pirate,
}  # fmt: skip


def _over_face(head: Head) -> None:
    """What covers part of the face: beards, moustaches, the eye patch."""
    who, hair = head.who, hair_color(head)
    if who.kind == "wizard":
        long = -2.3 if who.style % 2 else -1.8
        head.blob(
            [
                (-0.72, -0.1),
                (-0.55, -0.3),
                (-0.1, -0.32),
                (0.3, -0.78),
                (0.66, -0.34),
                (0.86, -0.2),
                (0.9, -0.8),
                (0.6, -1.35),
                (0.3, long),
                (-0.1, -1.5),
                (-0.6, -1.0),
            ],
            hair,
        )
        head.blob(
            [
                (0.34, -0.38),
                (0.75, -0.5),
                (0.98, -0.36),
                (0.8, -0.3),
                (0.4, -0.28),
                (0.0, -0.32),
                (-0.25, -0.4),
                (0.0, -0.54),
            ],
            lighter(hair, 0.25),
            head.line * 0.7,
        )
        for x in (0.05, 0.35):
            head.curve([(x, -0.9), (x + 0.02, -1.4)], 0.6, darker(hair, 0.3))
    elif who.kind == "man" and who.style == 3:
        head.blob(
            [
                (0.36, -0.36),
                (0.8, -0.52),
                (0.95, -0.42),
                (0.8, -0.34),
                (0.38, -0.28),
                (0.0, -0.34),
                (-0.16, -0.44),
                (0.0, -0.52),
            ],
            hair,
        )
    elif who.kind == "pirate":
        head.oval(0.58, 0.08, 0.25, 0.24, head.c.look.ink)
        head.curve([(-0.98, 0.34), (-0.2, 0.36), (0.58, 0.2), (0.95, 0.3)], 1.4)
        if who.style % 2:
            head.blob([(0.2, -0.72), (0.5, -0.72), (0.44, -1.25), (0.24, -1.2)], hair, head.line * 0.8)
        head.blob(
            [
                (0.36, -0.36),
                (0.85, -0.5),
                (1.05, -0.3),
                (0.75, -0.32),
                (0.38, -0.28),
                (0.0, -0.32),
                (-0.28, -0.28),
                (-0.1, -0.5),
            ],
            hair,
            head.line * 0.8,
        )


def _hat(head: Head) -> None:
    who = head.who
    cloth, gold = head.c.paint(who.fabric, FIGURE_LIGHT), head.c.paint((244, 206, 92), 0.5)
    if who.hat == "pointed hat":
        head.blob(
            [(-0.75, 0.6), (-0.5, 1.3), (-0.55, 2.1), (-0.95, 2.6), (-0.1, 2.3), (0.5, 1.4), (0.85, 0.62)],
            cloth,
        )
        head.blob(
            [(-1.45, 0.5), (-0.6, 0.82), (0.2, 0.86), (1.0, 0.74), (1.5, 0.42), (0.8, 0.46), (0.1, 0.52), (-0.7, 0.46)],
            cloth,
        )
        head.polygon(star(0.05, 1.35, 0.24), gold, head.line * 0.5)
        head.polygon(star(-0.32, 1.9, 0.15), gold, 0)
    elif who.hat == "cap":
        dark = darker(cloth, 0.25)
        head.blob(
            [(-1.02, 0.42), (-0.92, 0.95), (-0.3, 1.3), (0.4, 1.26), (0.92, 0.85), (0.98, 0.5), (0.0, 0.56)], cloth
        )
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
        head.blob(
            [
                (-1.35, 0.62),
                (-0.95, 1.2),
                (-0.3, 1.4),
                (0.4, 1.45),
                (1.0, 1.1),
                (1.4, 0.6),
                (0.7, 0.62),
                (0.0, 0.72),
                (-0.7, 0.58),
            ],
            black,
        )
        head.curve([(-1.3, 0.66), (-0.7, 0.64), (0.0, 0.78), (0.7, 0.68), (1.36, 0.64)], 1.2, gold)
        head.oval(0.15, 1.08, 0.15, 0.15, WHITE)
        head.oval(0.15, 0.9, 0.09, 0.07, WHITE)
        for x in (0.1, 0.21):
            head.oval(x, 1.08, 0.035, 0.045, black)
    elif who.hat == "antenna" and who.kind == "robot":
        head.curve([(0.0, 0.8), (0.02, 1.3)], 1.6)
        head.oval(0.02, 1.4, 0.16, 0.16, cloth, head.line)
