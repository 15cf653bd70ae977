"""What is decided once for a whole source, on up to 1,000 pages, evenly spaced, before the first row is written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stage3.data.readers.boxes import declared_size, four
from stage3.data.readers.no_text import NoTextCounts
from stage3.data.readers.notation import Decision, Survey, facts, notation_of
from stage3.data.readers.rules import RawPage
from stage3.data.readers.source import DataSource
from stage3.data.readers.units import Notation

SAMPLE = 1000  # pages that decisions are taken on


@dataclass
class Preview:
    """Some pages of a source: which words are no text, and how boxes are written."""

    source: DataSource
    no_text: NoTextCounts = field(default_factory=NoTextCounts)
    boxes: Survey = field(default_factory=Survey)

    def add(self, raw: RawPage, image_size: Callable[[], tuple[int, int]]) -> None:
        """Look at a page; `image_size` gives its image's width and height, (0, 0) when unknown."""
        self.no_text.add(raw)
        found: dict[str, list[Any]] = defaultdict(list)
        declared: dict[str, Notation] = {}
        for panel in raw.panels:
            values = None if panel is None else four(panel.box)[0]
            if panel is not None and values is not None:
                found[panel.field].append(values)
                declared[panel.field] = Notation(panel.corners, panel.unit)
        for name, boxes in found.items():
            self.boxes.add(
                name,
                declared[name],
                boxes,
                image_size=image_size,
                size=declared_size(raw),
                ordered=raw.order != "layout",
            )

    def decide(self, listed: int) -> dict[str, Any]:
        """The facts `no_text` and `boxes` of the data report; `listed` pages were there to look at."""
        return {
            "no_text": self.no_text.decide(),
            "boxes": {name: facts(self._decision(name), sample, listed) for name, sample in self.boxes.samples.items()},
        }

    def _decision(self, name: str) -> Decision:
        return self.boxes.decide(name, *self.source.box_settings(name))


def notations(known: Mapping[str, Any]) -> dict[str, Notation]:
    """By field, how a source writes boxes, from the facts of its data report."""
    return {name: notation_of(of) for name, of in known.get("boxes", {}).items()}
