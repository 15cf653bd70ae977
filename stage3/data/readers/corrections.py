"""Corrections by hand: which panels a page has, in which order, whatever its panel file says.

They stand in one file beside the panel files, which stay as they are:

    {"format": 1, "pages": {"Cats 01/001": {"made_for": "0f3a…", "panels": [{"of": 1, "box": [x, y, w, h]}, …]}}}

The list is the page's panels in reading order. `of` is the entry of the panel file, from 0, whose texts a panel keeps;
without it the panel is new. `box` is in shares of the page; without it the panel keeps the box of its entry. Entries
that the list does not name are deleted. `made_for` tells the content of the panel file that was corrected: when that
changes, numbers of entries mean other panels, so the correction is counted as outdated and not applied.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stage3.data.readers.boxes import Corners, four
from stage3.errors import DataError, StorageError
from stage3.storage import Lock, read_json, replace_file, sha256, to_json

if TYPE_CHECKING:
    from stage3.data.readers.rules import RawPage

FORMAT = 1
ENDING = ".corrections.json"
MOST = 64  # panels of a page
EDGE = 1e-6  # by which rounding may carry a box over the edge of its page
REMEDY = "Repair the file, or move it away: the pages are then read as their panel files have them."


@dataclass(frozen=True)
class CorrectedPanel:
    """One panel of a corrected page.

    Attributes:
        of: its entry in the panel file, from 0; None for a panel that is new.
        box: x, y, w, h in shares of the page; None keeps the entry's own.
    """

    of: int | None
    box: Corners | None


@dataclass(frozen=True)
class Correction:
    """One corrected page.

    Attributes:
        panels: its panels in reading order.
        made_for: `mark` of the page that was corrected.
    """

    panels: tuple[CorrectedPanel, ...]
    made_for: str


def place(panels: Path) -> Path:
    """The file of corrections of a folder of panel files, or of the one file with all pages."""
    return panels.with_name(f"{panels.stem if panels.is_file() else panels.name}{ENDING}")


def mark(raw: RawPage) -> str:
    """16 hexadecimal digits that change with any box or text of a page, and not with how its file is written."""
    entries = [None if p is None else [p.box, p.dialogue, p.description, p.number] for p in raw.panels]
    return sha256(json.dumps(entries, default=str).encode())[:16]


def read_corrections(panels: Path) -> dict[str, Correction]:
    """All corrections of a data set by page id; none without a file.

    Raises:
        DataError: the file is damaged or holds something else; it names the page and the remedy.
    """
    path = place(panels)
    if not path.exists():
        return {}
    try:
        value = read_json(path)
    except StorageError as error:
        raise DataError(f"{error}. {REMEDY}") from None
    if value.get("format") != FORMAT:
        raise DataError(f"{path}: format {str(value.get('format'))[:20]!r}, expected {FORMAT}. {REMEDY}")
    pages = value.get("pages")
    if not isinstance(pages, dict) or set(value) != {"format", "pages"}:
        raise DataError(f"{path}: expected an object with format and pages, got {', '.join(value)[:100]}. {REMEDY}")
    return {page_id: _correction(entry, f"{path}: page {page_id[:200]!r}") for page_id, entry in pages.items()}


def _correction(value: Any, where: str) -> Correction:
    if not isinstance(value, dict) or set(value) != {"made_for", "panels"} or not isinstance(value["made_for"], str):
        raise DataError(f"{where}: expected made_for and panels. {REMEDY}")
    entries = value["panels"]
    if not isinstance(entries, list) or len(entries) > MOST:
        raise DataError(f"{where}: panels must be a list of at most {MOST}. {REMEDY}")
    return Correction(
        checked([_panel(e, f"{where}, panel {k}") for k, e in enumerate(entries)], where), value["made_for"]
    )


def _panel(value: Any, where: str) -> CorrectedPanel:
    if not isinstance(value, dict) or not value or not set(value) <= {"of", "box"}:
        raise DataError(f"{where}: expected of, box or both. {REMEDY}")
    of, box = value.get("of"), None
    if "of" in value and (type(of) is not int or of < 0):
        raise DataError(f"{where}: of must be the number of an entry, from 0. {REMEDY}")
    if "box" in value:
        box = four(value["box"])[0] if isinstance(value["box"], list) else None
        if box is None:
            raise DataError(f"{where}: box must be four numbers. {REMEDY}")
    return CorrectedPanel(of, box)


def checked(panels: Sequence[CorrectedPanel], where: str) -> tuple[CorrectedPanel, ...]:
    """The panels of a page, if they can be.

    Raises:
        DataError: a box leaves its page or has no area, a new panel has no box, or an entry stands there twice.
    """
    entries = [p.of for p in panels if p.of is not None]
    if len(set(entries)) != len(entries):
        raise DataError(f"{where}: an entry of the panel file stands there twice. {REMEDY}")
    for number, panel in enumerate(panels):
        if panel.box is None:
            if panel.of is None:
                raise DataError(f"{where}, panel {number}: a new panel needs a box. {REMEDY}")
            continue
        x, y, w, h = panel.box
        if not (min(x, y) >= 0 and min(w, h) > 0 and x + w <= 1 + EDGE and y + h <= 1 + EDGE):
            raise DataError(f"{where}, panel {number}: box {list(panel.box)} is no part of the page (0 to 1). {REMEDY}")
    return tuple(panels)


def change(panels: Path, page_id: str, correction: Correction | None) -> None:
    """Write a page's correction, or take it away; the others stay.

    Args:
        panels: the folder of panel files, or the one file with all pages.
        page_id: canonical id.
        correction: the new one; None takes it away.

    Raises:
        DataError: the file of corrections is damaged.
        StorageError: it cannot be written, or somebody else is writing it.
    """
    path = place(panels)
    lock = Lock(path.with_name(f"{path.name}.lock"))
    lock.acquire(patience=5.0)
    try:
        pages: dict[str, Correction] = dict(read_corrections(panels))
        pages.pop(page_id, None)
        if correction is not None:
            pages[page_id] = correction
        replace_file(path, _text(pages).encode())
    finally:
        lock.release()


def _text(pages: Mapping[str, Correction]) -> str:
    """One line per page, in the order of ids, so that a person can read and compare it."""
    lines = []
    for page_id, correction in sorted(pages.items()):
        entries = [
            {
                **({} if p.of is None else {"of": p.of}),
                **({} if p.box is None else {"box": [round(v, 5) for v in p.box]}),
            }
            for p in correction.panels
        ]
        lines.append(f" {to_json(page_id)}: {to_json({'made_for': correction.made_for, 'panels': entries})}")
    return f'{{"format": {FORMAT}, "pages": {{\n' + ",\n".join(lines) + "\n}}\n"
