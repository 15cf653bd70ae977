"""The rules that hold for every format: numbers, text, boxes, which panels of a page are kept and in which order.

A reader only says where things are in its format (`RawPage`); every decision is made here, once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from stage3.data.readers.jsonfile import Note as Note
from stage3.data.readers.jsonfile import PageProblem
from stage3.data.readers.order import page_order
from stage3.data.readers.repeated import repeated

MAX_TEXT = 10_000  # characters of one panel's dialogue or description; encoders read about 300
MIN_PIXELS = 2.0  # a box under this on a side holds no image
THOUSAND = 1000.0
OVERSHOOT = 1.05  # a box may stick out so far before its unit is doubted
NO_TEXT_COLUMNS = ("dialogue", "description")
Corners = tuple[float, float, float, float]


@dataclass(slots=True)
class RawPanel:
    """One panel as its file has it; nothing is trusted yet.

    Attributes:
        box: four values in some notation, or None.
        corners: order of those values; "xywh" is corner and size.
        unit: "permille" of the page, or "pixel".
        dialogue: literal text of the panel: string, list, dict, null.
        description: what the image shows, likewise.
        speakers: names, likewise.
        number: the file's own panel number, None when the format has none.
        detected: a detector made the box; without area it found nothing, whatever text was read there.
    """

    box: Any
    corners: Literal["yxyx", "xyxy", "xywh"]
    unit: Literal["permille", "pixel"]
    dialogue: Any = None
    description: Any = None
    speakers: Any = None
    number: Any = None
    detected: bool = False


@dataclass(slots=True)
class RawPage:
    """One page as its file has it.

    Attributes:
        panels: in the file's order; None where an entry is not a panel.
        size: (width, height) as the file gives it, in pixels.
        summary: text about the page.
        order: how panels are put in reading order: "number" (the file's panel numbers when they are sound), "file", or
            "layout" (by position, for files in no reading order).
        canonical_id: the id that the file itself carries.
    """

    panels: Sequence[RawPanel | None]
    size: tuple[Any, Any] | None = None
    summary: Any = None
    order: Literal["number", "file", "layout"] = "file"
    canonical_id: Any = None


@dataclass(slots=True)
class Panel:
    """A usable panel: it has a box, or text, or both. The box is (x, y, w, h) in shares of the page."""

    source_index: int
    box: Corners | None
    dialogue: str
    description: str
    speakers: str


@dataclass(slots=True)
class PageInfo:
    """What is known of a page besides its panel file.

    Attributes:
        page_id: canonical id.
        image_size: (width, height) of the upright image, (0, 0) when unknown; called only when it is needed.
        note: count an anomaly of this page: code, detail.
        no_text: by column, the `text_key` of what is no text in this source; see `no_text`.
    """

    page_id: str
    image_size: Callable[[], tuple[int, int]]
    note: Note
    no_text: Mapping[str, Sequence[str]] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    def once(self, code: str, detail: str) -> None:
        """Count an anomaly at most once for this page."""
        if code not in self.seen:
            self.seen.add(code)
            self.note(code, detail)


def finish(raw: RawPage, page: PageInfo, max_panels: int) -> tuple[list[Panel], tuple[int, int]]:
    """The usable panels of a page in reading order, and the page's size in pixels (0, 0 when unknown).

    Raises:
        PageProblem: no panel is usable, or the unit of the boxes cannot be told.
    """
    if not raw.panels:
        raise PageProblem("no_panels", "the list of panels is empty")
    corners = [_corners(panel, i, page) for i, panel in enumerate(raw.panels)]
    boxes, size = _shares(raw, corners, page)
    kept: list[Panel] = []
    for i, (panel, box) in enumerate(zip(raw.panels, boxes, strict=True)):
        if panel is not None and panel.detected and box is None and corners[i] is not None:
            page.note("panel_dropped", f"panels[{i}]: a detector's box that holds nothing")
            continue
        made = None if panel is None else _usable(panel, i, box, page)
        if made is not None:
            kept.append(made)
    if not kept:
        raise PageProblem("no_usable_panel", f"none of {len(raw.panels)} panels has a valid box or text")
    kept = _ordered(*_once(kept, raw, page), page)
    if len(kept) > max_panels:
        page.note("panels_cut", f"{len(kept)} panels, the first {max_panels} kept")
    return kept[:max_panels], size


def _once(kept: list[Panel], raw: RawPage, page: PageInfo) -> tuple[list[Panel], RawPage]:
    """The panels without those that repeat another one, and the page without them (None stands in their places)."""
    copies = repeated(kept)
    if not copies:
        return kept, raw
    panels = list(raw.panels)
    for copy, of in sorted(copies.items()):
        where = kept[copy].source_index
        panels[where] = None
        page.note("panel_repeated", f"panels[{where}]: the same as panels[{kept[of].source_index}]")
    return [p for i, p in enumerate(kept) if i not in copies], replace(raw, panels=panels)


def _usable(panel: RawPanel, index: int, box: Corners | None, page: PageInfo) -> Panel | None:
    texts = [clip(_text(getattr(panel, column), column, index, page), index, page) for column in NO_TEXT_COLUMNS]
    if box is None and not any(texts):
        page.note("panel_dropped", f"panels[{index}]: neither a valid box nor text")
        return None
    names = dict.fromkeys(n for n in (flatten(s) for s in as_list(panel.speakers)) if n)
    return Panel(index, box, texts[0], texts[1], ", ".join(names)[:500])


def _ordered(kept: list[Panel], raw: RawPage, page: PageInfo) -> list[Panel]:
    if raw.order == "layout":
        boxed = [p for p in kept if p.box is not None]
        order = page_order(np.array([p.box for p in boxed], dtype=np.float64).reshape(-1, 4))
        if not order.certain:
            page.note("order_uncertain", f"{len(boxed)} panels that no clean line parts")
        return [boxed[i] for i in order.rows] + [p for p in kept if p.box is None]
    if raw.order == "number":
        numbers = [p.number for p in raw.panels if p is not None]
        if all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in numbers) and len(set(numbers)) == len(
            numbers
        ):
            return sorted(kept, key=lambda p: raw.panels[p.source_index].number)  # type: ignore[union-attr]
        if any(n is not None for n in numbers):
            page.note("panel_number", f"numbers {str(numbers[:8])[:80]} give no order; the file's order is kept")
    return kept


# --- numbers and text ---

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


def as_list(value: Any) -> list[Any]:
    """A list of values; a single one becomes a list of one, null an empty list."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


_SURROGATES = re.compile("[\ud800-\udfff]")
_TEXT_KEYS = ("text", "dialogue", "caption", "content", "description", "name")


def flatten(value: Any, depth: int = 0) -> str:
    """Any JSON value as one line of text: null is "", a list is joined, a dict gives its text.

    Characters that are not text (lone surrogates) become U+FFFD; white space at the ends goes.
    """
    if isinstance(value, str):
        text = value.strip()
        return text if text.isascii() else _SURROGATES.sub("\ufffd", text)
    if value is None or isinstance(value, bool) or depth > 20:
        return ""
    if isinstance(value, int | float):
        if isinstance(value, float) and not math.isfinite(value):
            return ""
        made = number(value)  # None for an integer of hundreds of digits, which says nothing
        return "" if made is None else str(value) if abs(value) < 1e15 else f"{made:g}"
    if isinstance(value, dict):
        known = [value[k] for k in _TEXT_KEYS if k in value]
        value = known[:1] or list(value.values())
    return " ".join(t for t in (flatten(v, depth + 1) for v in value) if t) if isinstance(value, list) else ""


_AROUND_TEXT = " \t\r\n.\"'`*_()[]{}<>“”„«»-–—"


def text_key(text: str) -> str:
    """A text for comparing: lower case, single spaces, no quotes or brackets around it; "[]" for nothing but such.

    Example:
        >>> text_key('(None).'), text_key('No  dialogue'), text_key('{}'), text_key('...')
        ('none', 'no dialogue', '[]', '...')

    """
    key = " ".join(text[:200].lower().strip(_AROUND_TEXT).split())
    return key or (text if set(text) <= set(". ") else "[]")


def _text(value: Any, column: str, index: int, page: PageInfo) -> str:
    """A panel's text without the words that are no text in this source."""
    refused = page.no_text.get(column)
    if not refused:
        return flatten(value)
    parts = [flatten(v) for v in as_list(value)]
    kept = [part for part in parts if text_key(part) not in refused]
    if len(kept) == len(parts):
        return flatten(value)
    gone = next(part for part in parts if text_key(part) in refused)
    page.note("text_is_no_text", f"panels[{index}]: {column} {gone[:60]!r}")
    return " ".join(filter(None, kept))


def clip(text: str, index: int, page: PageInfo) -> str:
    """Text cut to `MAX_TEXT` characters, counted when it was longer."""
    if len(text) > MAX_TEXT:
        page.note("text_cut", f"panels[{index}]: {len(text):,} characters, the first {MAX_TEXT:,} kept")
    return text[:MAX_TEXT]


# --- boxes ---


def _corners(panel: RawPanel | None, index: int, page: PageInfo) -> Corners | None:
    """(x0, y0, x1, y1) in the panel's own unit, each pair in order; None when the box is not four finite numbers."""
    if panel is None:
        page.note("panel_type", f"panels[{index}]: not an object")
        return None
    values, problem = four(panel.box)
    if values is None:
        page.note(problem, f"panels[{index}]: box {str(panel.box)[:60]}")
        return None
    a, b, c, d = values
    if panel.corners == "xywh":
        x0, y0, x1, y1 = a, b, a + c, b + d
    else:
        x0, y0, x1, y1 = (b, a, d, c) if panel.corners == "yxyx" else values
    if x1 < x0 or y1 < y0:
        page.note("box_swapped", f"panels[{index}]: reversed corners {str(panel.box)[:60]}")
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def _shares(
    raw: RawPage, corners: list[Corners | None], page: PageInfo
) -> tuple[list[Corners | None], tuple[int, int]]:
    """Boxes as (x, y, w, h) in shares of the page, and the page's size in pixels."""
    permille = [c for p, c in zip(raw.panels, corners, strict=True) if c is not None and p and p.unit == "permille"]
    pixels = any(
        c is not None and p is not None and p.unit == "pixel" for p, c in zip(raw.panels, corners, strict=True)
    )
    size = _declared_size(raw)
    if pixels and size == (0, 0):
        size = page.image_size()
        page.note("page_size_missing", "the file gives no page size; the image's is used")
        if size == (0, 0):
            raise PageProblem("page_size", "boxes in pixels, but neither the file nor the image gives the page's size")
    unit = _permille_unit(permille, size, page)
    made: list[Corners | None] = []
    for index, (panel, c) in enumerate(zip(raw.panels, corners, strict=True)):
        if panel is None or c is None:
            made.append(None)
            continue
        scale = unit if panel.unit == "permille" else (float(size[0]), float(size[1]))
        share = (c[0] / scale[0], c[1] / scale[1], c[2] / scale[0], c[3] / scale[1])
        made.append(_clamped(share, index, size, page))
    return made, size


def _declared_size(raw: RawPage) -> tuple[int, int]:
    sides = [number(v) for v in raw.size or (None, None)]
    if any(s is None or not 1 <= s <= 1e6 for s in sides):
        return 0, 0
    return round(sides[0] or 0), round(sides[1] or 0)


def _permille_unit(boxes: list[Corners], size: tuple[int, int], page: PageInfo) -> tuple[float, float]:
    """What the coordinates of a 0-1000 source are really shares of: 1000, 1, or the page's pixels.

    Fractions: every box lies within 0..1. Pixels: something lies well outside 0..1000, all of it fits the image, and
    the boxes reach over most of it. When half the boxes lie outside and the image does not explain them, nothing can
    be said and the page is left out; a stray box among sound ones is clamped later.
    """
    if not boxes:
        return THOUSAND, THOUSAND
    far_x, far_y = max(b[2] for b in boxes), max(b[3] for b in boxes)
    if 0 < max(far_x, far_y) <= 1.0 and any(b[2] > b[0] and b[3] > b[1] for b in boxes):
        page.note("boxes_rescaled", "boxes look like shares (0 to 1) instead of 0-1000")
        return 1.0, 1.0
    outside = [b for b in boxes if THOUSAND * OVERSHOOT < max(b) <= 65535]
    if not outside:
        return THOUSAND, THOUSAND
    width, height = size if size != (0, 0) else page.image_size()
    if (
        width
        and far_x <= width * OVERSHOOT
        and far_y <= height * OVERSHOOT
        and far_x >= width / 2
        and far_y >= height / 2
    ):
        page.note("boxes_rescaled", f"boxes look like pixels of {width} x {height} instead of 0-1000")
        return float(width), float(height)
    if 2 * len(outside) > len(boxes) and (len(boxes) > 1 or min(outside[0][:2]) > 0 or width == 0):
        raise PageProblem("scale", f"{len(outside)} of {len(boxes)} boxes lie outside 0-1000 and do not fit the image")
    return THOUSAND, THOUSAND


def _clamped(share: Corners, index: int, size: tuple[int, int], page: PageInfo) -> Corners | None:
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
        if (x1 - x0) * (width or THOUSAND) < MIN_PIXELS or (y1 - y0) * (height or THOUSAND) < MIN_PIXELS:
            page.note("box_thin", f"{where}: under {MIN_PIXELS:g} pixels on a side")
            return None
    x, y = np.float32(x0), np.float32(y0)
    w, h = np.float32(x1) - x, np.float32(y1) - y
    if w <= 0 or h <= 0:
        page.note("box_thin", f"{where}: nothing left after rounding")
        return None
    return float(x), float(y), float(w), float(h)
