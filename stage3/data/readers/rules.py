"""The rules that hold for every format: text, which panels of a page are kept and in which order; `boxes` has theirs.

A reader only says where things are in its format (`RawPage`); every decision is made here, once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from stage3.data.readers.boxes import Corners, as_corners, declared_size, number, shares
from stage3.data.readers.corrections import Correction, mark
from stage3.data.readers.jsonfile import Note as Note
from stage3.data.readers.jsonfile import PageProblem
from stage3.data.readers.order import page_order
from stage3.data.readers.repeated import repeated
from stage3.data.readers.units import Notation

MAX_TEXT = 10_000  # characters of one panel's dialogue or description; encoders read about 300
NO_TEXT_COLUMNS = ("dialogue", "description")


@dataclass(slots=True)
class RawPanel:
    """One panel as its file has it; nothing is trusted yet.

    Attributes:
        box: four values in some notation, or None.
        corners: order of those values as the format has them, or as a setting says: one of `units.ORDERS`.
        unit: their unit, likewise; see `units.Notation`.
        field: where the box stands in the file. All boxes of a source in one field have one notation.
        dialogue: literal text of the panel: string, list, dict, null.
        description: what the image shows, likewise.
        speakers: names, likewise.
        number: the file's own panel number, None when the format has none.
        detected: a detector made the box; without area it found nothing, whatever text was read there.
    """

    box: Any
    corners: str
    unit: str
    dialogue: Any = None
    description: Any = None
    speakers: Any = None
    number: Any = None
    detected: bool = False
    field: str = "box"


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
        notations: by field, how this source writes boxes; without an entry, as the format does.
        correction: which panels a person said that it has; None where nobody did.
    """

    page_id: str
    image_size: Callable[[], tuple[int, int]]
    note: Note
    no_text: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notations: Mapping[str, Notation] = field(default_factory=dict)
    correction: Correction | None = None
    seen: set[str] = field(default_factory=set)

    def once(self, code: str, detail: str) -> None:
        """Count an anomaly at most once for this page."""
        if code not in self.seen:
            self.seen.add(code)
            self.note(code, detail)

    def notation(self, panel: RawPanel) -> Notation:
        """How the box of a panel is written."""
        return self.notations.get(panel.field) or Notation(panel.corners, panel.unit)


def finish(raw: RawPage, page: PageInfo, max_panels: int) -> tuple[list[Panel], tuple[int, int]]:
    """The usable panels of a page in reading order, and the page's size in pixels (0, 0 when unknown).

    Raises:
        PageProblem: no panel is usable, or the unit of the boxes cannot be told.
    """
    correction = page.correction
    if correction is not None and correction.made_for != mark(raw):
        page.note("correction_outdated", "its panels have changed since they were corrected by hand")
        correction = None
    try:
        kept, size = _as_written(raw, page)
    except PageProblem:
        if correction is None:
            raise
        kept, size = [], declared_size(raw)  # whatever is wrong with them, a person said which there are
    if correction is not None:
        kept = _corrected(kept, raw, page, correction)
    if len(kept) > max_panels:
        page.note("panels_cut", f"{len(kept)} panels, the first {max_panels} kept")
    return kept[:max_panels], size


def _as_written(raw: RawPage, page: PageInfo) -> tuple[list[Panel], tuple[int, int]]:
    """The usable panels of a page as its file has them, in reading order, and the page's size."""
    if not raw.panels:
        raise PageProblem("no_panels", "the list of panels is empty")
    corners = as_corners(raw, page)
    boxes, size = shares(raw, corners, page)
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
    return _ordered(*_once(kept, raw, page), page), size


def _corrected(kept: list[Panel], raw: RawPage, page: PageInfo, correction: Correction) -> list[Panel]:
    """The panels that a person said the page has; new ones are numbered behind the entries of the file."""
    usable = {panel.source_index: panel for panel in kept}
    made: list[Panel] = []
    added = 0
    for said in correction.panels:
        if said.of is None:
            made.append(Panel(len(raw.panels) + added, said.box, "", "", ""))
            added += 1
            continue
        entry = raw.panels[said.of] if said.of < len(raw.panels) else None
        panel = usable.get(said.of) or (None if entry is None else _panel(entry, said.of, None, page))
        if panel is not None and (said.box or panel.box or panel.dialogue or panel.description):
            made.append(replace(panel, box=said.box or panel.box))
    named = {panel.of for panel in correction.panels}
    deleted = [index for index in usable if index not in named]
    for index in deleted:
        page.note("panel_deleted", f"panels[{index}]: deleted by hand")
    page.note("page_corrected", f"{len(kept)} panels in its file, {len(made)} by hand ({added} new)")
    if not made:
        raise PageProblem("no_panels", "all its panels were deleted by hand")
    return made


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
    made = _panel(panel, index, box, page)
    if box is None and not made.dialogue and not made.description:
        page.note("panel_dropped", f"panels[{index}]: neither a valid box nor text")
        return None
    return made


def _panel(panel: RawPanel, index: int, box: Corners | None, page: PageInfo) -> Panel:
    texts = [clip(_text(getattr(panel, column), column, index, page), index, page) for column in NO_TEXT_COLUMNS]
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


# --- text ---


def as_list(value: Any) -> list[Any]:
    """A list of values; a single one becomes a list of one, null an empty list."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


_SURROGATES = re.compile("[\ud800-\udfff]")
MAX_NESTING = 20  # lists and objects in each other around a text
_TEXT_KEYS = ("text", "dialogue", "caption", "content", "description", "name")


def flatten(value: Any, depth: int = 0) -> str:
    """Any JSON value as one line of text: null is "", a list is joined, a dict gives its text.

    Characters that are not text (lone surrogates) become U+FFFD; white space at the ends goes.
    """
    if isinstance(value, str):
        text = value.strip()
        return text if text.isascii() else _SURROGATES.sub("\ufffd", text)
    if value is None or isinstance(value, bool) or depth > MAX_NESTING:
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


def unreadable(value: Any, depth: int = 0) -> str:
    """What `flatten` leaves out of a value without being asked to: true, false, and what lies too deep; "" for nothing.

    Example:
        >>> unreadable(["a", True]), unreadable({"text": "a", "bold": True}), unreadable(3)
        ('True is no text', '', '')
    """
    if value is None or isinstance(value, str):
        return ""
    if depth > MAX_NESTING:
        return f"nested more than {MAX_NESTING} deep"
    if isinstance(value, bool):
        return f"{value} is no text"
    if not isinstance(value, dict | list):
        return ""
    if isinstance(value, dict):
        known = [value[k] for k in _TEXT_KEYS if k in value]
        value = known[:1] or list(value.values())
    return next(filter(None, (unreadable(v, depth + 1) for v in value)), "")


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
    """A panel's text without the words that are no text in this source; values that are no text at all are counted."""
    if not isinstance(value, str) and (why := unreadable(value)):
        page.note("text_unreadable", f"panels[{index}]: {column}: {why}")
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
