"""Correcting the panels of a page by hand: what there is to correct, and writing it beside the data.

The file and its format: `stage3.data.readers.corrections`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stage3.config import Config
from stage3.data import page_check
from stage3.data.readers import READERS, PageProblem, source_of
from stage3.data.readers.corrections import (
    MOST,
    CorrectedPanel,
    Correction,
    change,
    checked,
    mark,
    place,
    read_corrections,
)
from stage3.data.readers.jsonfile import unheard
from stage3.data.readers.rules import RawPage
from stage3.errors import DataError

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Entry:
    """A panel as it is used now.

    Attributes:
        of: its entry in the panel file, from 0; None where it was added by hand.
        box: x, y, w, h in shares of the page; None for a text without a place.
        text: what it says and shows.
    """

    of: int | None
    box: Box | None
    text: str


@dataclass(frozen=True)
class Page:
    """A page that can be corrected.

    Attributes:
        panels: those that are used, in reading order, however many a run would cut.
        dropped: usable entries of the file that are not used.
        is_corrected: whether a correction is applied.
    """

    panels: tuple[Entry, ...]
    dropped: tuple[Entry, ...]
    is_corrected: bool


def page_to_correct(config: Config, page_id: str, image: str = "", facts: Mapping[str, Any] | None = None) -> Page:
    """The panels of a page as they are used now.

    Args:
        config: settings that name the data set.
        page_id: canonical id.
        image: its image as the manifest writes it.
        facts: of the data set's report, as `page_check.check_page` takes them.

    Raises:
        ConfigError, DataError: the data set or the page's panel file cannot be read.
    """
    everything = config.replace(max_panels=MOST)
    entries = len(_raw(config, page_id).panels)
    check = page_check.check_page(everything, page_id, image, facts)
    made = [(p.order, Entry(None if p.index >= entries else p.index, p.box, p.text)) for p in check.panels]
    used = sorted((pair for pair in made if pair[0] is not None), key=lambda pair: pair[0] or 0)
    return Page(
        tuple(entry for _, entry in used),
        tuple(entry for order, entry in made if order is None),
        any(code == "page_corrected" for code, _ in check.notes),
    )


def correct(config: Config, page_id: str, panels: Sequence[CorrectedPanel]) -> None:
    """Say which panels a page has, in reading order; its panel file stays as it is.

    Args:
        config: settings that name the data set.
        page_id: canonical id.
        panels: all of them; entries of the file that are not among them are deleted.

    Raises:
        DataError: a panel cannot be: see `corrections.checked`, or an entry that the page does not have.
        StorageError: the file of corrections cannot be written.
    """
    raw = _raw(config, page_id)
    if len(panels) > MOST:
        raise DataError(f"{page_id}: {len(panels)} panels; a page may have {MOST}")
    for panel in panels:
        if panel.of is not None and panel.of >= len(raw.panels):
            raise DataError(f"{page_id}: no entry {panel.of} in its panel file, which has {len(raw.panels)}")
    change(source_of(config).panels, page_id, Correction(checked(panels, page_id), mark(raw)))


def uncorrect(config: Config, page_id: str) -> None:
    """Read a page as its panel file has it again."""
    change(source_of(config).panels, page_id, None)


def corrected_pages(config: Config) -> list[str]:
    """Ids of the pages that were corrected, whether the corrections still apply or not."""
    return sorted(read_corrections(source_of(config).panels))


def _raw(config: Config, page_id: str) -> RawPage:
    source = source_of(config)
    try:
        value, _ = page_check.panel_file(source, page_id)
        return READERS[source.panel_format].page(value, source, unheard)
    except PageProblem as problem:
        raise DataError(f"{page_id}: its panel file cannot be corrected: {problem.detail}") from None


__all__ = [
    "MOST",
    "CorrectedPanel",
    "Entry",
    "Page",
    "correct",
    "corrected_pages",
    "page_to_correct",
    "place",
    "uncorrect",
]
