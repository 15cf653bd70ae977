"""Figures: a jointed skeleton put into a pose, then limbs, clothes and a head drawn over it.

Lengths inside a figure are shares of a grown-up's height: feet at y = 0, y up, x towards where the figure faces.
"""

from dataclasses import dataclass, replace
from math import cos, radians, sin

import numpy as np

from stage3.samples.cast import Character
from stage3.samples.heads import draw_head
from stage3.samples.ink import Canvas, Point
from stage3.samples.looks import FIGURE_LIGHT, Color, darker, lighter
from stage3.samples.props import draw_prop

UPPER_ARM, FOREARM, THIGH, SHIN = 0.135, 0.125, 0.165, 0.165
TORSO, HEAD = 0.255, 0.175  # hip to neck; radius of the head
WIDTH = {"bear": 1.3, "robot": 1.15, "knight": 1.15, "alien": 0.82, "rabbit": 0.92, "woman": 0.88, "cat": 0.92}


@dataclass(frozen=True)
class Pose:
    """Angles in degrees from straight down, forwards positive: (upper, lower) for each limb."""

    lean: float = 0.0
    near_arm: tuple[float, float] = (12.0, 18.0)
    far_arm: tuple[float, float] = (-14.0, -6.0)
    near_leg: tuple[float, float] = (5.0, 2.0)
    far_leg: tuple[float, float] = (-9.0, -5.0)
    lift: float = 0.0
    lying: bool = False
    nod: float = 0.0


POSES: dict[str, tuple[Pose, ...]] = {
    "stand": (
        Pose(),
        Pose(near_arm=(-38, 42), far_arm=(24, 34), near_leg=(9, 7), far_leg=(-10, -10)),
        Pose(near_arm=(26, 112), far_arm=(18, 100), near_leg=(3, 2), far_leg=(-8, -6)),
        Pose(lean=-3, near_arm=(30, 62), far_arm=(-34, 36), near_leg=(12, 6), far_leg=(-6, -12)),
    ),
    "run": (
        Pose(19, (-62, 18), (58, 130), (78, 8), (-34, -92), 0.05, nod=-8),
        Pose(24, (64, 132), (-66, 14), (-30, -80), (72, 14), 0.04, nod=-12),
    ),
    "jump": (
        Pose(6, (-132, -158), (128, 150), (62, -34), (-6, -72), 0.17),
        Pose(-4, (-116, -150), (118, 152), (48, -62), (24, -88), 0.2),
        Pose(12, (-96, -128), (108, 98), (84, 40), (-58, -74), 0.18),
    ),
    "sit": (
        Pose(-4, (34, 66), (20, 58), (86, 6), (74, -4)),
        Pose(10, (46, 104), (-22, 18), (84, -6), (92, 14)),
    ),
    "point": (
        Pose(4, (92, 90), (-40, 38), (14, 10), (-16, -14)),
        Pose(2, (112, 108), (-28, 4), (10, 6), (-12, -10), nod=6),
        Pose(8, (84, 88), (-50, 20), (30, 8), (-22, -26)),
    ),
    "sleep": (
        Pose(0, (16, 34), (-10, 10), (4, 2), (-4, 2), lying=True),
        Pose(0, (60, 120), (30, 70), (24, -14), (4, 0), lying=True),
    ),
    "punch": (
        Pose(16, (94, 92), (-26, 96), (52, -8), (-38, -50), nod=-8),
        Pose(10, (118, 112), (-60, 60), (40, -4), (-30, -36), nod=4),
    ),
    "cheer": (
        Pose(0, (-128, -168), (128, 168), (10, 6), (-12, -8)),
        Pose(-6, (-120, -178), (136, 176), (14, 4), (-20, -14), nod=8),
        Pose(3, (-136, -150), (116, 160), (22, 2), (-14, -20), 0.03),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """Places a figure on a panel: ground point, page pixels to a grown-up's height, facing, turn."""

    x: float
    y: float
    scale: float
    facing: int = 1
    angle: float = 0.0

    def at(self, x: float, y: float) -> Point:
        """A point of the figure on the panel."""
        c, s = cos(radians(self.angle)), sin(radians(self.angle))
        x, y = x * c - y * s, x * s + y * c
        return self.x + self.facing * x * self.scale, self.y - y * self.scale

    def all(self, points: list[Point]) -> list[Point]:
        """Points of the figure on the panel."""
        return [self.at(x, y) for x, y in points]


@dataclass(frozen=True)
class Body:
    """Where the joints of a posed figure are, in the figure's own lengths."""

    hip: Point
    neck: Point
    head: Point
    near_arm: tuple[Point, Point, Point]
    far_arm: tuple[Point, Point, Point]
    near_leg: tuple[Point, Point, Point]
    far_leg: tuple[Point, Point, Point]


def _limb(start: Point, angles: tuple[float, float], lengths: tuple[float, float]) -> tuple[Point, Point, Point]:
    a, b = radians(angles[0]), radians(angles[1])
    knee = (start[0] + lengths[0] * sin(a), start[1] - lengths[0] * cos(a))
    return start, knee, (knee[0] + lengths[1] * sin(b), knee[1] - lengths[1] * cos(b))


def pose_body(pose: Pose, kind: str) -> Body:
    """Joints of a figure of some kind in a pose, standing on y = 0 (or `lift` above it)."""
    tall = 0.8 if kind == "child" else 1.0
    leg = (THIGH * tall, SHIN * tall)
    legs = [_limb((0.0, 0.0), angles, leg) for angles in (pose.near_leg, pose.far_leg)]
    hip_y = pose.lift + 0.035 - min(point[1] for limb in legs for point in limb)
    lean = radians(pose.lean)
    torso = TORSO * tall
    hip = (0.0, hip_y)
    neck = (torso * sin(lean), hip_y + torso * cos(lean))
    tilt = radians(pose.lean * 0.6)
    head = (neck[0] + HEAD * 0.86 * sin(tilt) + 0.012, neck[1] + HEAD * 0.86 * cos(tilt))
    wide = WIDTH.get(kind, 1.0)
    shoulder = (neck[0] - 0.02 * sin(lean), neck[1] - 0.035)
    near = (shoulder[0] - 0.052 * wide, shoulder[1] - 0.004)
    far = (shoulder[0] + 0.06 * wide, shoulder[1])
    arm = (UPPER_ARM * (0.9 if tall < 1 else 1.0), FOREARM * (0.9 if tall < 1 else 1.0))
    return Body(
        hip,
        neck,
        head,
        _limb(near, pose.near_arm, arm),
        _limb(far, pose.far_arm, arm),
        _limb((-0.028 * wide, hip_y), pose.near_leg, leg),
        _limb((0.03 * wide, hip_y), pose.far_leg, leg),
    )


@dataclass
class Figure:
    """A character in a pose on a panel, ready to be drawn."""

    who: Character
    action: str
    emotion: str
    frame: Frame
    pose: Pose
    holds: str | None = None

    def __post_init__(self) -> None:
        self.body = pose_body(self.pose, self.who.kind)
        if self.pose.lying:
            f = self.frame
            self.frame = replace(f, x=f.x + f.facing * f.scale * 0.42, y=f.y - 0.085 * f.scale, angle=90.0)

    @property
    def head_at(self) -> Point:
        """Center of the head on the panel."""
        return self.frame.at(*self.body.head)

    @property
    def head_radius(self) -> float:
        """Radius of the head in page pixels."""
        return HEAD * self.frame.scale

    @property
    def mouth_at(self) -> Point:
        """Where a balloon's tail should point."""
        x, y = self.body.head
        return self.frame.at(x + 0.4 * HEAD, y - 0.3 * HEAD)

    def bounds(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the figure on the panel, in page pixels."""
        b, r = self.body, HEAD * 1.12
        top = {"rabbit": 1.75, "wizard": 1.7, "knight": 0.4, "alien": 0.5}.get(self.who.kind, 0.15) * HEAD
        x, y = b.head
        points = [(x - r, y), (x + r, y), (x, y + r + top), (x, y - r)]
        for limb in (b.near_arm, b.far_arm, b.near_leg, b.far_leg):
            for px, py in limb:
                points += [(px - 0.04, py - 0.03), (px + 0.04, py + 0.03)]
        at = self.frame.all(points)
        xs, ys = [p[0] for p in at], [p[1] for p in at]
        return min(xs), min(ys), max(xs), max(ys)


def draw_figure(c: Canvas, figure: Figure) -> None:
    """Draw a figure, and its silhouette in ink below it unless every part has an outline of its own."""
    line = _line(c, figure)
    if figure.frame.scale < 64:  # small figures read better without
        c.pass_ = "fill"
        _draw_parts(c, figure, line)
        c.pass_ = "full"
        return
    if c.look.contour == "full" and figure.frame.scale > 120:
        _draw_parts(c, figure, line)
        return
    c.pass_ = "contour"
    _draw_parts(c, figure, line)
    c.pass_ = "fill"
    _draw_parts(c, figure, line)
    c.pass_ = "full"


def _draw_parts(c: Canvas, figure: Figure, line: float) -> None:
    """Far limbs, body, near leg, clothes, head, near arm."""
    who, body = figure.who, figure.body
    wide = WIDTH.get(who.kind, 1.0)
    if who.kind in ("cat", "rabbit"):
        _tail(c, figure, line)
    if who.kind == "knight" or (who.kind == "pirate" and who.clothes == "coat"):
        _cape(c, figure, line)
    _arm(c, figure, body.far_arm, line, far=True)
    _leg(c, figure, body.far_leg, line, far=True)
    _leg(c, figure, body.near_leg, line, far=False)
    _torso(c, figure, line, wide)
    draw_head(c, figure.frame.at, body.head, HEAD, who, figure.emotion, figure.action, line, tilt=figure.pose.nod)
    if figure.holds:
        hand = figure.frame.at(*body.near_arm[2])
        size = figure.frame.scale * 0.34
        draw_prop(c, figure.holds, hand[0], hand[1] + size * 0.42, size, line, figure.frame.facing)
    passing = c.pass_
    if (
        passing == "fill" and figure.frame.scale >= 64
    ):  # the near arm lies over clothes of its own color: it keeps its outline
        c.pass_ = "full"
    _arm(c, figure, body.near_arm, line, far=False)
    c.pass_ = passing


def _line(c: Canvas, figure: Figure) -> float:
    """Outline width: the book's own, thinner on small figures."""
    return c.look.line * float(np.clip(figure.frame.scale / 130, 0.6, 1.5))


def _shade(c: Canvas, figure: Figure, color: Color) -> Color | None:
    """The shadow side's color; none on figures too small to show it."""
    return None if c.look.shading != "cel" or figure.frame.scale < 150 else darker(color, 0.22)


def _skin(c: Canvas, who: Character) -> Color:
    return c.paint(who.skin, FIGURE_LIGHT)


def _cloth(c: Canvas, who: Character) -> Color:
    return c.paint(who.fabric, FIGURE_LIGHT)


def _trousers(c: Canvas, who: Character) -> Color:
    if who.clothes == "overalls":
        return _cloth(c, who)
    if who.kind == "knight":
        return c.paint((170, 178, 192), FIGURE_LIGHT)
    options: tuple[Color, ...] = ((70, 78, 110), (96, 80, 66), (60, 64, 72), (110, 112, 130))
    return c.paint(options[who.style], FIGURE_LIGHT)


def _arm(c: Canvas, figure: Figure, arm: tuple[Point, Point, Point], line: float, far: bool) -> None:
    who, f = figure.who, figure.frame
    k = f.scale * WIDTH.get(who.kind, 1.0) ** 0.5
    at = f.all(list(arm))
    skin = _skin(c, who)
    sleeve = skin if who.clothes == "dress" and who.style % 2 else _cloth(c, who)
    if who.clothes == "overalls":
        sleeve = c.paint((240, 232, 214), FIGURE_LIGHT)
    if who.kind == "knight":
        sleeve = c.paint((178, 188, 202), FIGURE_LIGHT)
    if who.kind == "robot":
        sleeve = skin
    if far:
        sleeve, skin = darker(sleeve, 0.16), darker(skin, 0.12)
    wide = 0.088 if who.clothes == "robe" else 0.066
    flare = 0.125 if who.clothes == "robe" else 0.056
    fist = figure.action == "punch" and not far
    if who.kind == "robot":
        _segments(c, at, k, sleeve, line)
    elif who.clothes == "shirt" and who.kind not in ("bear", "cat", "rabbit"):  # short sleeves show the forearm
        c.limb(at, [0.056 * k, 0.05 * k, 0.046 * k], skin, line, _shade(c, figure, skin))
        cuff = (at[0][0] + (at[1][0] - at[0][0]) * 0.75, at[0][1] + (at[1][1] - at[0][1]) * 0.75)
        c.limb([at[0], cuff], [0.075 * k, 0.078 * k], sleeve, line, _shade(c, figure, sleeve))
    else:
        c.limb(at, [wide * k, 0.062 * k, flare * k], sleeve, line, _shade(c, figure, sleeve))
    _hand(c, figure, at, k * (1.35 if fist else 1.0), skin, line, pointing=figure.action == "point" and not far)
    if who.clothes == "armour" and not far:
        c.ellipse(at[0][0], at[0][1], 0.052 * k, 0.046 * k, c.paint((200, 208, 220), FIGURE_LIGHT), line)


def _segments(c: Canvas, at: list[Point], k: float, color: Color, line: float) -> None:
    c.stroke(at, c.look.ink, 0.046 * k + 2 * line)
    c.stroke(at, darker(color, 0.25), 0.046 * k)
    for t in (0.5,):
        for a, b in ((at[0], at[1]), (at[1], at[2])):
            x, y = a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t
            c.ellipse(x, y, 0.033 * k, 0.033 * k, color, line * 0.8)


def _hand(c: Canvas, figure: Figure, at: list[Point], k: float, skin: Color, line: float, pointing: bool) -> None:
    (x0, y0), (x, y) = at[1], at[2]
    n = max(float(np.hypot(x - x0, y - y0)), 1e-6)
    dx, dy = (x - x0) / n, (y - y0) / n
    x, y = x + dx * 0.018 * k, y + dy * 0.018 * k
    if figure.who.kind == "knight":
        skin = c.paint((150, 158, 174), FIGURE_LIGHT)
    if pointing:
        tip = (x + dx * 0.085 * k, y + dy * 0.085 * k)
        c.limb([(x, y), tip], [0.034 * k, 0.024 * k], skin, line, None)
    else:  # a thumb
        side = figure.frame.facing * (1 if dy > 0 else -1)
        c.limb(
            [(x, y), (x + side * 0.034 * k + dx * 0.02 * k, y - 0.012 * k + dy * 0.02 * k)],
            [0.028 * k, 0.022 * k],
            skin,
            line,
            None,
        )
    c.ellipse(x, y, 0.036 * k, 0.036 * k, skin, line)


def _leg(c: Canvas, figure: Figure, leg: tuple[Point, Point, Point], line: float, far: bool) -> None:
    who, f = figure.who, figure.frame
    k = f.scale * WIDTH.get(who.kind, 1.0) ** 0.5
    at = f.all(list(leg))
    color = _trousers(c, who)
    if who.clothes in ("dress", "robe"):
        color = _skin(c, who) if who.clothes == "dress" else darker(_cloth(c, who), 0.3)
    if who.kind == "robot":
        color = _skin(c, who)
    if far:
        color = darker(color, 0.18)
    slim = 0.72 if who.clothes == "dress" else 1.0
    if who.kind == "robot":
        _segments(c, at, k * 1.15, color, line)
    else:
        c.limb(at, [0.092 * k * slim, 0.076 * k * slim, 0.06 * k * slim], color, line, _shade(c, figure, color))
    _shoe(c, figure, leg, k, line, far)


def _shoe(c: Canvas, figure: Figure, leg: tuple[Point, Point, Point], k: float, line: float, far: bool) -> None:
    who, f = figure.who, figure.frame
    (kx, ky), (x, y) = leg[1], leg[2]
    n = max(float(np.hypot(x - kx, y - ky)), 1e-6)
    dx, dy = (x - kx) / n, (y - ky) / n
    fx, fy = -dy, dx  # forwards from the sole
    color: Color = ((58, 44, 40), (150, 52, 44), (52, 60, 90), (92, 64, 40))[who.style]
    if who.kind in ("cat", "bear", "rabbit"):
        color = who.skin
    if who.kind in ("knight", "robot"):
        color = (136, 144, 160)
    paint = c.paint(color, FIGURE_LIGHT)
    paint = darker(paint, 0.15) if far else paint
    size = 1.25 if who.kind in ("rabbit", "bear", "robot") else 1.0
    heel, toe, up = 0.035 * size, 0.085 * size, 0.05
    outline = [
        (x - fx * heel + dx * 0.03, y - fy * heel + dy * 0.03),
        (x + fx * toe + dx * 0.032, y + fy * toe + dy * 0.032),
        (x + fx * toe * 0.92 - dx * 0.006, y + fy * toe * 0.92 - dy * 0.006),
        (x + fx * 0.035 - dx * up * 0.55, y + fy * 0.035 - dy * up * 0.55),
        (x - fx * heel - dx * up * 0.5, y - fy * heel - dy * up * 0.5),
    ]
    c.blob(f.all(outline), paint, line)


def _torso(c: Canvas, figure: Figure, line: float, wide: float) -> None:
    who, f, body = figure.who, figure.frame, figure.body
    cloth = _skin(c, who) if who.kind == "robot" and who.clothes == "shirt" else _cloth(c, who)
    if who.clothes == "overalls":
        cloth = c.paint((240, 232, 214), FIGURE_LIGHT)
    if who.kind == "robot":
        _box_torso(c, figure, line)
        return
    (hx, hy), (nx, ny) = body.hip, body.neck
    w, top = 0.083 * wide, 0.072 * wide
    belly = 0.03 if who.kind == "bear" else 0.012
    waist = 0.78 if who.clothes == "dress" else 1.0
    mx, my = (hx + nx) / 2, (hy + ny) / 2
    shape = [
        (nx - top, ny - 0.022), (nx - 0.025, ny + 0.012), (nx + 0.035, ny + 0.012), (nx + top, ny - 0.022),
        (mx + w * waist + belly, my - 0.02), (hx + w * waist, hy - 0.02), (hx, hy - 0.045), (hx - w * waist, hy - 0.02),
        (mx - w * waist, my),
    ]  # fmt: skip
    if who.clothes in ("dress", "robe", "coat"):
        _skirt(c, figure, line, w)
    c.blob(f.all(shape), cloth, line)
    shade = _shade(c, figure, cloth)
    if shade is not None:
        shadow = [
            (nx - top * 0.9, ny - 0.03),
            (mx - w * waist * 0.5, my),
            (hx - w * 0.3, hy - 0.03),
            (hx - w * waist * 0.9, hy - 0.02),
            (mx - w * waist * 0.92, my),
        ]
        c.blob(f.all(shadow), shade)
    _trim(c, figure, shape, line, w)


def _box_torso(c: Canvas, figure: Figure, line: float) -> None:
    who, f, (hx, hy), (nx, ny) = figure.who, figure.frame, figure.body.hip, figure.body.neck
    steel, cloth = _skin(c, who), _cloth(c, who)
    c.polygon(
        f.all([(nx - 0.02, ny - 0.02), (nx + 0.03, ny - 0.02), (nx + 0.03, ny + 0.05), (nx - 0.02, ny + 0.05)]),
        darker(steel),
        line,
    )
    c.polygon(
        f.all([(nx - 0.115, ny), (nx + 0.115, ny), (hx + 0.095, hy - 0.035), (hx - 0.095, hy - 0.035)]), cloth, line
    )
    if c.look.shading == "cel":
        c.polygon(
            f.all([(nx - 0.11, ny - 0.006), (nx - 0.06, ny - 0.006), (hx - 0.06, hy - 0.03), (hx - 0.09, hy - 0.03)]),
            darker(cloth, 0.22),
        )
    mx, my = (hx + nx) / 2, (hy + ny) / 2
    c.polygon(
        f.all([(mx - 0.03, my + 0.06), (mx + 0.075, my + 0.06), (mx + 0.07, my - 0.01), (mx - 0.03, my - 0.01)]),
        lighter(steel),
        line * 0.8,
    )
    for k, light in enumerate(((236, 80, 60), (250, 210, 70), (90, 200, 120))):
        x, y = f.at(mx - 0.008 + 0.03 * k, my + 0.028)
        c.ellipse(x, y, 0.011 * f.scale, 0.011 * f.scale, light)
    c.stroke(f.all([(mx - 0.05, my - 0.045), (mx + 0.06, my - 0.045)]), c.look.ink, line * 0.8)


def _skirt(c: Canvas, figure: Figure, line: float, w: float) -> None:
    who, f, body = figure.who, figure.frame, figure.body
    hx, hy = body.hip
    cloth = _cloth(c, who)
    drop = {"dress": 0.55, "robe": 0.97, "coat": 0.5}[who.clothes]
    legs = [body.near_leg, body.far_leg]
    hem = []
    for _, knee, foot in legs:
        t = (drop - 0.5) * 2
        hem.append((knee[0] + (foot[0] - knee[0]) * t, knee[1] + (foot[1] - knee[1]) * t))
    hem.sort()
    flare = {"dress": 0.075, "robe": 0.07, "coat": 0.045}[who.clothes]
    (lx, ly), (rx, ry) = hem
    shape = [
        (hx - w * 0.8, hy + 0.05), (hx + w * 0.8, hy + 0.05), (hx + w * 1.1, hy - 0.04), (rx + flare, ry),
        ((lx + rx) / 2 + 0.02, (ly + ry) / 2 - 0.02),
        (lx - flare, ly), (hx - w * 1.1, hy - 0.04),
    ]  # fmt: skip
    c.blob(f.all(shape), cloth, line)
    shade = _shade(c, figure, cloth)
    if shade is not None:
        c.blob(
            f.all(
                [
                    (hx - w * 0.75, hy),
                    (lx + 0.01, (hy + ly) / 2),
                    (lx + 0.005, ly + 0.012),
                    (lx - flare * 0.85, ly + 0.008),
                    (hx - w * 1.0, hy - 0.045),
                ]
            ),
            shade,
        )
    for t in (0.36, 0.68) if f.scale > 150 else ():  # folds
        bottom = (lx + (rx - lx) * t, ly + (ry - ly) * t + 0.005)
        c.curve(
            f.all([(hx + (t - 0.5) * w, hy - 0.05), (bottom[0] * 0.7 + hx * 0.3, (hy + bottom[1]) / 2), bottom]),
            darker(cloth, 0.4),
            line * 0.6,
        )


def _trim(c: Canvas, figure: Figure, shape: list[Point], line: float, w: float) -> None:
    """What tells one garment from another: stripes, lapels, straps, a belt."""
    who, f, (hx, hy), (nx, ny) = figure.who, figure.frame, figure.body.hip, figure.body.neck
    cloth, ink = _cloth(c, who), c.look.ink

    def along(t: float, u: float) -> Point:
        return (nx + (hx - nx) * t + u * w, ny + (hy - ny) * t)

    if who.clothes == "stripes":
        pale = (
            c.paint((250, 248, 240), FIGURE_LIGHT)
            if who.clothes_color != "white"
            else c.paint((60, 70, 110), FIGURE_LIGHT)
        )
        for t in (0.24, 0.5, 0.76):
            c.curve(f.all([along(t, -0.9), along(t + 0.05, 0), along(t, 0.98)]), pale, 0.026 * f.scale)
        c.blob(f.all(shape), None, line)
    elif who.clothes == "coat":
        c.polygon(
            f.all([along(0, -0.2), along(0, 0.7), along(0.62, 0.35)]),
            c.paint((250, 246, 236), FIGURE_LIGHT),
            line * 0.7,
        )
        c.polygon(
            f.all([along(0, 0.18), along(0.05, 0.4), along(0.45, 0.36), along(0.08, 0.16)]),
            c.paint((60, 50, 60), FIGURE_LIGHT),
        )
        c.stroke(f.all([along(0.62, 0.35), along(1.5, 0.4)]), ink, line * 0.7)
        for t in (0.75, 0.98):
            x, y = f.at(*along(t, 0.12))
            c.ellipse(x, y, 0.011 * f.scale, 0.011 * f.scale, c.paint((240, 206, 96), 0.5), line * 0.5)
    elif who.clothes == "overalls":
        bib = [
            along(0.36, -0.55),
            along(0.36, 0.8),
            along(0.75, 1.0),
            along(1.12, 0.95),
            along(1.15, -0.95),
            along(0.75, -0.98),
        ]
        c.polygon(f.all(bib), cloth, line * 0.8)
        for u, v in ((-0.5, -0.62), (0.72, 0.66)):
            c.stroke(f.all([along(0.4, u), along(0.0, v)]), ink, 0.03 * f.scale + line)
            c.stroke(f.all([along(0.4, u), along(0.0, v)]), cloth, 0.03 * f.scale)
        for u in (-0.45, 0.68):
            x, y = f.at(*along(0.42, u))
            c.ellipse(x, y, 0.012 * f.scale, 0.012 * f.scale, c.paint((245, 214, 110), 0.5), line * 0.4)
        c.polygon(
            f.all([along(0.56, -0.1), along(0.56, 0.5), along(0.78, 0.45), along(0.78, -0.1)]),
            darker(cloth, 0.15),
            line * 0.5,
        )
    elif who.clothes == "armour":
        c.polygon(f.all([along(0.02, -0.6), along(0.02, 0.75), along(1.3, 0.9), along(1.3, -0.8)]), cloth, line * 0.8)
        c.stroke(f.all([along(0.2, 0.1), along(0.85, 0.1)]), lighter(cloth, 0.7), 0.022 * f.scale)
        c.stroke(f.all([along(0.42, -0.35), along(0.42, 0.55)]), lighter(cloth, 0.7), 0.022 * f.scale)
    elif who.clothes == "robe":
        c.stroke(
            f.all([along(0.86, -0.92), along(0.9, 0), along(0.86, 0.98)]),
            c.paint((240, 206, 96), FIGURE_LIGHT),
            0.026 * f.scale,
        )
        c.stroke(f.all([along(0.9, 0.3), along(1.25, 0.38)]), c.paint((240, 206, 96), FIGURE_LIGHT), 0.018 * f.scale)
    elif who.clothes == "dress":
        c.stroke(f.all([along(0.8, -0.74), along(0.83, 0), along(0.8, 0.78)]), lighter(cloth, 0.6), 0.024 * f.scale)
        c.blob(f.all([along(-0.02, -0.3), along(-0.02, 0.55), along(0.14, 0.15)]), lighter(cloth, 0.6), line * 0.5)
    else:
        c.curve(f.all([along(0.0, -0.35), along(0.1, 0.15), along(0.0, 0.55)]), ink, line * 0.7)
        if who.style % 2:
            x, y = f.at(*along(0.5, 0.2))
            c.ellipse(x, y, 0.03 * f.scale, 0.03 * f.scale, lighter(cloth, 0.65), line * 0.4)
        c.stroke(f.all([along(1.05, -0.85), along(1.08, 0.9)]), c.paint((70, 52, 44), FIGURE_LIGHT), 0.024 * f.scale)


def _tail(c: Canvas, figure: Figure, line: float) -> None:
    f, (hx, hy), fur = figure.frame, figure.body.hip, _skin(c, figure.who)
    if figure.who.kind == "rabbit":
        x, y = f.at(hx - 0.095, hy - 0.01)
        c.ellipse(x, y, 0.04 * f.scale, 0.04 * f.scale, lighter(fur, 0.5), line)
        return
    path = [
        (hx - 0.05, hy - 0.02),
        (hx - 0.16, hy - 0.03),
        (hx - 0.21, hy + 0.08),
        (hx - 0.17, hy + 0.17),
        (hx - 0.22, hy + 0.22),
    ]
    c.limb(f.all(path), [0.045 * f.scale, 0.04 * f.scale, 0.03 * f.scale], fur, line, _shade(c, figure, fur))


def _cape(c: Canvas, figure: Figure, line: float) -> None:
    f, (hx, hy), (nx, ny) = figure.frame, figure.body.hip, figure.body.neck
    color = darker(_cloth(c, figure.who), 0.35)
    flow = 0.08 if figure.action in ("run", "jump", "punch") else 0.0
    shape = [
        (nx + 0.05, ny),
        (nx - 0.08, ny - 0.01),
        (hx - 0.15 - flow, hy),
        (hx - 0.2 - 2 * flow, hy - 0.17 + 2 * flow),
        (hx - 0.06, hy - 0.2),
        (hx + 0.04, hy - 0.1),
    ]
    c.blob(f.all(shape), color, line)
