"""How four numbers say where a box is: the order of its values, and what they are shares of.

Both belong to the source, never to one page; `notation` tells them from how far the boxes of many pages reach.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stage3.config import BOX_ORDERS

AUTO, *ORDERS = BOX_ORDERS  # corners, y or x first; corner and size, likewise
SCALES = {"permille": 1000.0, "percent": 100.0, "fraction": 1.0}  # units that know no pixel
PIXELS = "pixels"
RESIZED, WITHIN, FIXED = "smart_resize", "pixels_within", "pixels_of"
PATCH = 28  # Qwen2-VL and Qwen2.5-VL see images whose sides are multiples of 28 pixels
LEAST, MOST = 56 * 56, 16384 * PATCH**2  # pixels of such an image, by default


@dataclass(frozen=True)
class Notation:
    """How a source writes boxes.

    Attributes:
        order: one of `ORDERS`.
        unit: "permille", "percent" or "fraction" of the page; "pixels" of the page; "pixels_of:WxH", of an image of
            that size whatever the page; "pixels_within:WxH", of the page scaled down to fit in; "smart_resize:A-B", of
            the page as Qwen2.5-VL sees it, with A to B pixels.
    """

    order: str
    unit: str

    def __str__(self) -> str:
        return f"{self.unit}, {self.order}"

    @property
    def needs_size(self) -> bool:
        """Whether a box can only be read with the page's size in pixels."""
        return self.unit not in SCALES and not self.unit.startswith(FIXED)

    def scale(self, size: Any) -> np.ndarray:
        """What x and y are divided by to give shares of the page, (..., 2), for sizes (..., 2) as width and height.

        Example:
            >>> Notation("xyxy", "smart_resize:3136-655360").scale((1200, 1800)).tolist()
            [644.0, 980.0]
        """
        size = np.asarray(size, np.float64)
        if self.unit in SCALES:
            return np.full_like(size, SCALES[self.unit])
        if self.unit == PIXELS:
            return np.asarray(size)
        name, _, numbers = self.unit.partition(":")
        sides = [float(n) for n in re.findall(r"\d+", numbers)]
        if name == RESIZED:
            return smart_resize(size, *([LEAST, *sides] if len(sides) == 1 else sides))
        most = np.asarray(sides, np.float64)
        if name == FIXED:
            return np.broadcast_to(most, size.shape)
        made: np.ndarray = np.maximum(np.round(size * np.minimum((most / size).min(axis=-1, keepdims=True), 1.0)), 1.0)
        return made


def smart_resize(size: np.ndarray, least: float = LEAST, most: float = MOST) -> np.ndarray:
    """The sizes (..., 2) at which Qwen2.5-VL sees images of these sizes: multiples of 28, `least` to `most` pixels.

    As in `qwen_vl_utils`: each side is rounded to a multiple, and scaled if the area is then out of bounds.

    Example:
        >>> smart_resize(np.array([1988.0, 3057.0]), most=1_680_000).tolist()
        [1036.0, 1596.0]
    """
    seen = np.maximum(np.round(size / PATCH), 1) * PATCH
    area = size.prod(axis=-1, keepdims=True)
    rounded = seen.prod(axis=-1, keepdims=True)
    smaller = np.maximum(np.floor(size / np.sqrt(area / most) / PATCH), 1) * PATCH
    larger = np.ceil(size * np.sqrt(least / area) / PATCH) * PATCH
    made: np.ndarray = np.where(rounded > most, smaller, np.where(rounded < least, larger, seen))
    return made


def unit_problem(unit: str) -> str:
    """What is wrong with a unit that has the right form, "" when nothing is."""
    name, _, numbers = unit.partition(":")
    least, _, most = numbers.partition("-")
    if name == RESIZED and most and int(least) > int(most):
        return "the least number of pixels is above the most"
    return ""


def corners(values: Sequence[Any] | np.ndarray, order: str) -> tuple[Any, Any, Any, Any]:
    """(x0, y0, x1, y1) of four values, which may be numbers or arrays.

    Example:
        >>> corners((10, 20, 30, 40), "yxhw")
        (20, 10, 60, 40)
    """
    a, b, c, d = values
    if order in ("xywh", "yxhw"):
        c, d = a + c, b + d
    return (b, a, d, c) if order.startswith("y") else (a, b, c, d)


def transposed(order: str) -> str:
    """The order with x and y exchanged."""
    return {"yxyx": "xyxy", "xyxy": "yxyx", "xywh": "yxhw", "yxhw": "xywh"}[order]
