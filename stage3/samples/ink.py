"""Pen and paper: shapes in page pixels, drawn on a larger image that is reduced at the end."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from math import cos, hypot, pi, radians, sin

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from stage3.samples.looks import Color, Look, lit

Point = tuple[float, float]
SCALE = 3  # image pixels to a page pixel while drawing


@cache
def font(size: float) -> ImageFont.FreeTypeFont:
    """Pillow's own font at `size` page pixels."""
    loaded = ImageFont.load_default(size=size * SCALE)
    assert isinstance(loaded, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return loaded


@dataclass(frozen=True)
class Letters:
    """A line of lettering that waits for the page to be reduced to its final size."""

    x: float
    y: float
    words: str
    size: float
    color: Color
    anchor: str


@cache
def _page_font(size: float) -> ImageFont.FreeTypeFont:
    loaded = ImageFont.load_default(size=size)
    assert isinstance(loaded, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return loaded


def letter_page(page: Image.Image, letters: Sequence[Letters]) -> None:
    """Put lettering on a page of its final size."""
    draw = ImageDraw.Draw(page)
    for item in letters:
        at = (round(item.x), round(item.y))
        draw.text(at, item.words, fill=item.color, font=_page_font(item.size), anchor=item.anchor)


def smooth(points: Sequence[Point], closed: bool = True, steps: int = 6) -> list[Point]:
    """Points on the Catmull-Rom curve through `points`."""
    p: NDArray[np.float64] = np.asarray(points, dtype=float)
    ends = (p[-1:], p[:2]) if closed else (2 * p[:1] - p[1:2], 2 * p[-1:] - p[-2:-1])
    padded = np.concatenate([ends[0], p, ends[1]])
    a, b, c, d = (padded[k : len(padded) - 3 + k, None] for k in range(4))
    t = np.arange(steps)[None, :, None] / steps
    curve = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    flat = curve.reshape(-1, 2)
    if not closed:
        flat = np.concatenate([flat, p[-1:]])
    return [(x, y) for x, y in flat.tolist()]


def ring(cx: float, cy: float, rx: float, ry: float, n: int = 28) -> list[Point]:
    """Points on an ellipse."""
    return [(cx + rx * cos(2 * pi * k / n), cy + ry * sin(2 * pi * k / n)) for k in range(n)]


def turn(points: Sequence[Point], about: Point, degrees: float) -> list[Point]:
    """Points turned about a point, clockwise on the page."""
    c, s = cos(radians(degrees)), sin(radians(degrees))
    ox, oy = about
    return [(ox + (x - ox) * c - (y - oy) * s, oy + (x - ox) * s + (y - oy) * c) for x, y in points]


@dataclass
class Canvas:
    """An image to draw on; every coordinate and length is in page pixels from `origin`."""

    image: Image.Image
    look: Look
    time: str = "day"
    origin: Point = (0.0, 0.0)
    letters: list[Letters] = field(default_factory=list)
    pass_: str = "full"  # "full" outlines every shape; "contour" draws all in ink; "fill" leaves outlines out
    draw: ImageDraw.ImageDraw = field(init=False)

    def __post_init__(self) -> None:
        self.draw = ImageDraw.Draw(self.image)

    @property
    def size(self) -> Point:
        """Width and height in page pixels."""
        return self.image.width / SCALE, self.image.height / SCALE

    def paint(self, color: Color, amount: float = 1.0) -> Color:
        """A color as the book prints it, under the light of the scene."""
        return lit(self.look.color(color), self.time, amount)

    def _at(self, points: Sequence[Point]) -> list[Point]:
        ox, oy = self.origin
        return [((x + ox) * SCALE, (y + oy) * SCALE) for x, y in points]

    def polygon(self, points: Sequence[Point], fill: Color | None, line: float = 0.0, ink: Color | None = None) -> None:
        """A filled polygon, outlined when `line` is above 0."""
        at = self._at(points)
        if self.pass_ == "contour":
            fill, ink = None if fill is None else self.look.ink, self.look.ink
        if fill is not None:
            self.draw.polygon(at, fill=fill)
        if line > 0 and (self.pass_ != "fill" or ink is not None):
            width = max(round(line * SCALE), SCALE)
            self.draw.line([*at, at[0], at[1]], fill=ink or self.look.ink, width=width, joint="curve")

    def blob(self, points: Sequence[Point], fill: Color | None, line: float = 0.0, ink: Color | None = None) -> None:
        """A smooth closed shape through `points`."""
        self.polygon(smooth(points), fill, line, ink)

    def ellipse(
        self,
        cx: float,
        cy: float,
        rx: float,
        ry: float,
        fill: Color | None,
        line: float = 0.0,
        ink: Color | None = None,
    ) -> None:
        """An ellipse with its axes along the page; the outline lies half outside."""
        if self.pass_ == "contour":
            fill, ink = None if fill is None else self.look.ink, self.look.ink
        if line > 0 and self.pass_ != "fill":
            (a, b), (c, d) = self._at(
                [(cx - rx - line / 2, cy - ry - line / 2), (cx + rx + line / 2, cy + ry + line / 2)]
            )
            if fill is None:
                self.draw.ellipse((a, b, c, d), outline=ink or self.look.ink, width=max(round(line * SCALE), 1))
                return
            self.draw.ellipse((a, b, c, d), fill=ink or self.look.ink)
            rx, ry = max(rx - line / 2, 0.1), max(ry - line / 2, 0.1)
        (a, b), (c, d) = self._at([(cx - rx, cy - ry), (cx + rx, cy + ry)])
        self.draw.ellipse((a, b, c, d), fill=fill)

    def stroke(self, points: Sequence[Point], color: Color, width: float, round_ends: bool = True) -> None:
        """An open line through `points`."""
        if width <= 0 or self.pass_ == "contour":
            return
        at = self._at(points)
        w = max(width * SCALE, SCALE)  # never thinner than a pixel of the page, or it would break up
        self.draw.line(at, fill=color, width=round(w), joint="curve")
        if round_ends and w > 3:
            for x, y in (at[0], at[-1]):
                self.draw.ellipse((x - w / 2, y - w / 2, x + w / 2, y + w / 2), fill=color)

    def curve(self, points: Sequence[Point], color: Color, width: float) -> None:
        """A smooth open line through `points`."""
        self.stroke(smooth(points, closed=False), color, width)

    def limb(
        self, points: Sequence[Point], widths: Sequence[float], fill: Color, line: float, shade: Color | None
    ) -> None:
        """A tapering limb along `points` with an outline, and a shadow on its lower side."""
        path = smooth(points, closed=False, steps=5) if len(points) > 2 else list(points)
        spread = np.interp(np.linspace(0, 1, len(path)), np.linspace(0, 1, len(widths)), widths)
        if self.pass_ != "fill":
            self._taper(path, spread + 2 * line, self.look.ink)
        if self.pass_ == "contour":
            return
        if shade is None:
            self._taper(path, spread, fill)
            return
        self._taper(path, spread, shade)
        inset = [(x - 0.12 * w, y - 0.12 * w) for (x, y), w in zip(path, spread, strict=True)]
        self._taper(inset, spread * 0.76, fill)

    def _taper(self, path: Sequence[Point], widths: NDArray[np.float64], color: Color) -> None:
        at = self._at(path)
        radii = widths * SCALE / 2
        for (x, y), r in zip(at, radii, strict=True):
            self.draw.ellipse((x - r, y - r, x + r, y + r), fill=color)
        for (x0, y0), (x1, y1), r0, r1 in zip(at[:-1], at[1:], radii[:-1], radii[1:], strict=True):
            length = hypot(x1 - x0, y1 - y0)
            if length < 0.5:
                continue
            nx, ny = (y0 - y1) / length, (x1 - x0) / length
            self.draw.polygon(
                [(x0 + nx * r0, y0 + ny * r0), (x1 + nx * r1, y1 + ny * r1),
                 (x1 - nx * r1, y1 - ny * r1), (x0 - nx * r0, y0 - ny * r0)],
                fill=color,
            )  # fmt: skip

    def tone(
        self, points: Sequence[Point], color: Color, kind: str = "dots", pitch: int = 5, weight: float = 0.4
    ) -> None:
        """Screen tone or hatching in a polygon; a pitch in whole page pixels keeps the pattern, and the file, small."""
        mask = Image.new("L", self.image.size, 0)
        ImageDraw.Draw(mask).polygon(self._at(points), fill=255)
        box = mask.getbbox()
        if box is None:
            return
        box = (box[0] // (pitch * SCALE) * pitch * SCALE, box[1] // (pitch * SCALE) * pitch * SCALE, box[2], box[3])
        sheet = _pattern(kind, pitch, weight, (box[2] - box[0], box[3] - box[1]))
        self.image.paste(color, box, Image.composite(sheet, Image.new("L", sheet.size, 0), mask.crop(box)))

    def text(self, x: float, y: float, words: str, size: float, color: Color, anchor: str = "mm") -> None:
        """Letters at a point; they are drawn last, at the size of the page, where they come out sharpest."""
        self.letters.append(Letters(x + self.origin[0], y + self.origin[1], words, size, color, anchor))


def _pattern(kind: str, pitch: int, weight: float, size: tuple[int, int]) -> Image.Image:
    """A mask of dots or diagonal strokes, repeated every `pitch` page pixels."""
    n = pitch * SCALE
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    if kind == "dots":
        u, v = (x % n) - n / 2, (y % n) - n / 2
        on = u * u + v * v < (weight * n * 0.62) ** 2
    else:
        on = ((x + y) % n) < max(weight * n * 0.5, 1)
    return Image.fromarray((on * 255).astype(np.uint8))


def text_width(words: str, size: float) -> float:
    """Width of a line of letters in page pixels."""
    return float(font(size).getlength(words)) / SCALE
