"""The rules for boxes: four numbers in the source's notation become a share of the page, or a reason why not.

A page whose boxes cannot be in the notation of its source is read in another unit where one clearly fits, and counted:
sources whose pages differ are a mixture that somebody should look at.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from stage3.data.readers.jsonfile import PageProblem
from stage3.data.readers.units import PIXELS, SCALES, Notation, corners

if TYPE_CHECKING:
    from stage3.data.readers.rules import PageInfo, RawPage, RawPanel

Corners = tuple[float, float, float, float]
Size = tuple[int, int]

MIN_PIXELS = 2.0  # a box under this on a side holds no image
OVERSHOOT = 1.05  # a box may stick out so far before its unit is doubted
STRAY = 65535  # coordinates beyond are a slip of one box and no unit
FILLED = 0.75  # of the page, on both sides, that boxes reach over where another unit explains them
CORNER = 0.11  # of the page, into which all boxes of a page are crammed where they are percent

# --- numbers ---

_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)


def number(value: Any) -> float | None:
    """A finite float from a number or the text of one; None for anything else."""
    if isinstance(value, str):
        if len(value) > 50 or not _NUMBER.fullmatch(value):
            return None
    elif isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        made = float(value)
    except OverflowError:
        return None
    return made if math.isfinite(made) else None


def four(value: Any) -> tuple[Corners | None, str]:
    """Four finite floats and "", or None and why not. A text such as "[0,0,500,1000]" is read as a list."""
    if value is None:
        return None, "box_missing"
    if isinstance(value, str):
        value = [v for v in re.split(r"[,\s]+", value[:200].strip(" []()")) if v]
    if not isinstance(value, list | tuple) or len(value) != 4:
        return None, "box_shape"
    made = [number(v) for v in value]
    if any(v is None for v in made):
        return None, "box_not_numbers"
    a, b, c, d = (v for v in made if v is not None)
    return (a, b, c, d), ""


# --- boxes of a page ---


def as_corners(raw: RawPage, page: PageInfo) -> list[Corners | None]:
    """(x0, y0, x1, y1) of each panel in its own unit, each pair in order; None where there are no four numbers."""
    return [_corners(panel, i, page) for i, panel in enumerate(raw.panels)]


def _corners(panel: RawPanel | None, index: int, page: PageInfo) -> Corners | None:
    if panel is None:
        page.note("panel_type", f"panels[{index}]: not an object")
        return None
    values, problem = four(panel.box)
    if values is None:
        page.note(problem, f"panels[{index}]: box {str(panel.box)[:60]}")
        return None
    x0, y0, x1, y1 = corners(values, page.notation(panel).order)
    if x1 < x0 or y1 < y0:
        page.note("box_swapped", f"panels[{index}]: reversed corners {str(panel.box)[:60]}")
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def shares(raw: RawPage, found: list[Corners | None], page: PageInfo) -> tuple[list[Corners | None], Size]:
    """Boxes as (x, y, w, h) in shares of the page, and the page's size in pixels, (0, 0) when unknown.

    Args:
        raw: the page.
        found: its `as_corners`.
        page: what else is known of it.

    Raises:
        PageProblem: the unit of the boxes cannot be told, or the page's size is needed and unknown.
    """
    size = declared_size(raw)
    scales: dict[str, tuple[float, float]] = {}
    for notation, boxes in _by_notation(raw, found, page):
        if notation.needs_size and size == (0, 0):
            size = _size_of_image(raw, page)
        scales[notation.unit] = _scale(boxes, notation, size, page)
    made: list[Corners | None] = []
    for index, (panel, c) in enumerate(zip(raw.panels, found, strict=True)):
        if panel is None or c is None:
            made.append(None)
            continue
        sx, sy = scales[page.notation(panel).unit]
        made.append(_clamped((c[0] / sx, c[1] / sy, c[2] / sx, c[3] / sy), index, size, page))
    return made, size


def _by_notation(
    raw: RawPage, found: Iterable[Corners | None], page: PageInfo
) -> Iterator[tuple[Notation, list[Corners]]]:
    """The boxes of each unit that occurs on the page."""
    groups: dict[str, tuple[Notation, list[Corners]]] = {}
    for panel, c in zip(raw.panels, found, strict=True):
        if panel is not None and c is not None:
            notation = page.notation(panel)
            groups.setdefault(notation.unit, (notation, []))[1].append(c)
    yield from groups.values()


def declared_size(raw: RawPage) -> Size:
    """The page's width and height as its file gives them, (0, 0) when it does not."""
    sides = [number(v) for v in raw.size or (None, None)]
    if any(s is None or not 1 <= s <= 1e6 for s in sides):
        return 0, 0
    return round(sides[0] or 0), round(sides[1] or 0)


def _size_of_image(raw: RawPage, page: PageInfo) -> Size:
    size = page.image_size()
    if raw.size is not None:
        page.note("page_size_missing", "the file gives no page size; the image's is used")
    if size == (0, 0):
        raise PageProblem("page_size", "boxes in pixels, but neither the file nor the image gives the page's size")
    return size


def _scale(boxes: list[Corners], notation: Notation, size: Size, page: PageInfo) -> tuple[float, float]:
    """What x and y of this page's boxes are divided by: the source's unit, or the one that the page must be in.

    Fractions: every box lies within 0..1 where that is next to nothing in the source's unit. Percent: the boxes of
    several panels are crammed into a corner. Another unit: most boxes lie well outside the page, and in one other unit
    they fill it. When most boxes lie outside and nothing explains them, nothing can be said and the page is left out; a
    stray box among sound ones is clamped later.
    """
    own = _of(notation, size)
    far = max(b[2] for b in boxes), max(b[3] for b in boxes)
    if notation.unit != "fraction" and 0 < max(far) <= OVERSHOOT and any(b[2] > b[0] and b[3] > b[1] for b in boxes):
        return _rescaled(notation, "fraction", size, page)
    crammed = max(far[0] / own[0], far[1] / own[1]) <= CORNER and len(boxes) > 1
    if notation.unit != "percent" and crammed and _fills(far, (100.0, 100.0)):
        return _rescaled(notation, "percent", size, page)
    outside = [b for b in boxes if _is_outside(b, own) and max(b) <= STRAY]
    if not outside:
        return own
    if size == (0, 0):
        size = page.image_size()
    for unit in (PIXELS, "permille", "percent"):
        known = unit in SCALES or size != (0, 0)
        if unit != notation.unit and known and _fills(far, _of(Notation(notation.order, unit), size)):
            return _rescaled(notation, unit, size, page)
    if 2 * len(outside) > len(boxes) and (len(boxes) > 1 or min(outside[0][:2]) > 0 or size == (0, 0)):
        detail = f"{len(outside)} of {len(boxes)} boxes lie outside {_words(notation.unit)} and do not fit the image"
        raise PageProblem("scale", detail)
    return own


def _of(notation: Notation, size: Size) -> tuple[float, float]:
    """`Notation.scale` of one page, for millions of them."""
    side = SCALES.get(notation.unit)
    if side is not None:
        return side, side
    sx, sy = size if notation.unit == PIXELS else notation.scale(size).tolist()
    return float(sx), float(sy)


def _is_outside(box: Corners, scale: tuple[float, float]) -> bool:
    return max(box[0] / scale[0], box[1] / scale[1], box[2] / scale[0], box[3] / scale[1]) > OVERSHOOT


def _fills(far: tuple[float, float], scale: tuple[float, float]) -> bool:
    return all(FILLED <= reach / side <= OVERSHOOT for reach, side in zip(far, scale, strict=True))


def _rescaled(notation: Notation, unit: str, size: Size, page: PageInfo) -> tuple[float, float]:
    found = f"pixels of {size[0]} x {size[1]}" if unit == PIXELS else _words(unit)
    page.note("boxes_rescaled", f"boxes look like {found} instead of {_words(notation.unit)}")
    return _of(Notation(notation.order, unit), size)


def _words(unit: str) -> str:
    return {"permille": "0-1000", "percent": "percent (0 to 100)", "fraction": "shares (0 to 1)"}.get(unit, unit)


def _clamped(share: Corners, index: int, size: Size, page: PageInfo) -> Corners | None:
    """A box cut to the page, as (x, y, w, h) that float32 holds; None when too little is left of it."""
    where = f"panels[{index}]"
    if share[2] <= share[0] or share[3] <= share[1]:
        page.note("box_no_area", f"{where}: width or height 0")
        return None
    x0, y0, x1, y1 = (min(max(v, 0.0), 1.0) for v in share)
    if x1 <= x0 or y1 <= y0:
        page.note("box_outside", f"{where}: the box lies outside the page")
        return None
    if (x0, y0, x1, y1) != share and max(abs(a - b) for a, b in zip((x0, y0, x1, y1), share, strict=True)) > 1e-6:
        page.note("box_clamped", f"{where}: the box extends beyond the page")
    if min(x1 - x0, y1 - y0) < 0.05:  # thin: only now is the image's size worth asking for
        width, height = size if size != (0, 0) else page.image_size()
        if (x1 - x0) * (width or 1000) < MIN_PIXELS or (y1 - y0) * (height or 1000) < MIN_PIXELS:
            page.note("box_thin", f"{where}: under {MIN_PIXELS:g} pixels on a side")
            return None
    x, y = np.float32(x0), np.float32(y0)
    w, h = np.float32(x1) - x, np.float32(y1) - y
    if w <= 0 or h <= 0:
        page.note("box_thin", f"{where}: nothing left after rounding")
        return None
    return float(x), float(y), float(w), float(h)
