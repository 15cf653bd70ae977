"""Boxes and polygons from what files say."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from stage3.data.importers.page import Box, Points
from stage3.data.readers.boxes import number


def declared(wide: Any, high: Any) -> tuple[float, float] | None:
    """The size of a page as a file gives it; None where it gives none, or one that no page has."""
    sides = numbers((wide, high))
    return (sides[0], sides[1]) if sides is not None and all(1 <= side <= 1e6 for side in sides) else None


def whole_number(text: str) -> int | None:
    """A number of at most nine digits; None for anything else."""
    text = text.strip()
    return int(text) if text.isdecimal() and text.isascii() and len(text) < 10 else None


def from_corners(x0: float, y0: float, x1: float, y1: float) -> Box:
    """A box from two opposite corners."""
    return min(x0, x1), min(y0, y1), abs(x1 - x0), abs(y1 - y0)


def upright(box: Box) -> Box:
    """A box with width and height that are not negative."""
    return from_corners(box[0], box[1], box[0] + box[2], box[1] + box[3])


def numbers(values: Iterable[Any]) -> list[float] | None:
    """All values as finite floats; None when one is none."""
    made = [number(v) for v in values]
    return None if any(v is None for v in made) else [v for v in made if v is not None]


_BETWEEN = re.compile(r"[,;\s]+")


def points_of(text: str) -> Points | None:
    """Corners from text such as "10,20 30,20 30,40" (semicolons part them too); None when it is none."""
    return pairs(numbers(_BETWEEN.split(text.strip(" ,;\t\r\n")[:20_000])))


def pairs(values: list[float] | None) -> Points | None:
    """Corners from x, y, x, y …; None when there are fewer than two, or one lacks its y."""
    if values is None or len(values) < 4 or len(values) % 2:
        return None
    return tuple(zip(values[::2], values[1::2], strict=True))


def around(points: Points) -> Box:
    """The upright box around corners."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return from_corners(min(xs), min(ys), max(xs), max(ys))


def no_rectangle(points: Points, tolerance: float = 1.0) -> Points | None:
    """The corners, unless they are those of an upright rectangle (within so many pixels): then None."""
    x, y, w, h = around(points)
    on_corners = all(
        min(abs(px - x), abs(px - x - w)) <= tolerance and min(abs(py - y), abs(py - y - h)) <= tolerance
        for px, py in points
    )
    return None if on_corners else points


def rotated(box: Box, degrees: float, pivot: tuple[float, float]) -> Points:
    """The corners of a box that was turned clockwise (y points down) around a point."""
    x, y, w, h = box
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turned = []
    for cx, cy in ((x, y), (x + w, y), (x + w, y + h), (x, y + h)):
        dx, dy = cx - pivot[0], cy - pivot[1]
        turned.append((pivot[0] + dx * cos - dy * sin, pivot[1] + dx * sin + dy * cos))
    return tuple(turned)


def shared_area(a: Box, b: Box) -> float:
    """Area of what two boxes have in common."""
    wide = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    high = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(wide, 0.0) * max(high, 0.0)
