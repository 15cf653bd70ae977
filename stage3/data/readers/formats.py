"""The readers by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stage3.data.readers import aligned, ocr, vlm
from stage3.data.readers.rules import Note, RawPage
from stage3.data.readers.source import DataSource


@dataclass(frozen=True)
class Reader:
    """One format.

    Attributes:
        page: one page as parsed, to the common structure.
        items: for formats with all pages in one file: (canonical id, page) of each.
    """

    page: Callable[[Any, DataSource, Note], RawPage]
    items: Callable[[Path], Iterator[tuple[str, Any]]] | None = None


READERS: dict[str, Reader] = {
    "vlm": Reader(vlm.page),
    "ocr": Reader(ocr.page),
    "aligned": Reader(aligned.page, aligned.items),
}
