"""Page styles that are hard for panel detectors; the shipped samples are plain."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from stage3.samples.ink import Point
from stage3.samples.layout import PAGE, Quad, Shape
from stage3.samples.looks import Look

STYLES = ("plain", "bleeding", "borderless", "overlapping", "slanted")
BLEED = 4.0  # page pixels beyond the page's edge, so that the frame is cut off
LEAN = 26.0  # page pixels that a slanted gutter may lean


def styled_look(look: Look, style: str) -> Look:
    """A book's look in a style: without frames, or with gutters that lean, or with frames that overlaps show."""
    if style == "borderless":
        return replace(look, border=0.0, corner=0.0)
    if style == "slanted":
        return replace(look, slant=LEAN)
    if style == "overlapping":
        return replace(look, border=max(look.border, 1.8))
    return look


def styled_shapes(shapes: list[Shape], look: Look, style: str, rng: np.random.Generator) -> list[Shape]:
    """The panels of a page in a style, in the same order; a later one lies on top of an earlier one."""
    if style == "bleeding":
        return _bleeding(shapes, look, rng)
    if style == "overlapping":
        return [shape if shape.inset else _grown(shape, look, rng) for shape in shapes]
    return shapes


def _bleeding(shapes: list[Shape], look: Look, rng: np.random.Generator) -> list[Shape]:
    """Panels at one to four sides of the page reach over its edge."""
    sides = rng.random(4) < 0.6
    sides[int(rng.integers(4))] = True
    left, right, top, bottom = (bool(side) for side in sides)
    (w, h), near = PAGE, look.margin + 0.5

    def moved(x: float, y: float) -> Point:
        x = -BLEED if left and x < near else w + BLEED if right and x > w - near else x
        y = -BLEED if top and y < near else h + BLEED if bottom and y > h - near else y
        return x, y

    return [shape if shape.inset else Shape(_each(shape.corners, moved)) for shape in shapes]


def _each(corners: Quad, moved: Callable[[float, float], Point]) -> Quad:
    a, b, c, d = (moved(*point) for point in corners)
    return a, b, c, d


def _grown(shape: Shape, look: Look, rng: np.random.Generator) -> Shape:
    """A panel that lies over its left or upper neighbor, if it has one; every second one does."""
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = shape.corners
    by = look.gutter + float(rng.uniform(8, 20))
    grows, to_the_left = bool(rng.random() < 0.5), bool(rng.random() < 0.5)
    inside = look.margin + 1
    if not grows:
        return shape
    if to_the_left and min(x0, x3) > inside:
        return Shape(((x0 - by, y0), (x1, y1), (x2, y2), (x3 - by, y3)))
    if min(y0, y1) > inside:
        return Shape(((x0, y0 - by), (x1, y1 - by), (x2, y2), (x3, y3)))
    return shape
