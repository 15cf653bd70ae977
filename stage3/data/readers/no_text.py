"""Words that stand for "there is no text": "None", "N/A", "No dialogue", "[]" where a model had nothing to say.

Whether a word is meant so is a property of the source, never of one panel, because people in comics do say "None". It
is decided once, over many pages, and then holds for every panel.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from stage3.data.readers.rules import NO_TEXT_COLUMNS, RawPage, as_list, flatten, text_key

KNOWN_SHARE, KNOWN_COUNT = 0.05, 3  # of the panels with text, from which on a known word is no text
OTHER_SHARE, OTHER_COUNT = 0.5, 50  # and from which on any words are
_KNOWN = re.compile(
    r"""
      \[\] | n/?a | n\.a | null | nil | nan | undefined
    | none (\s (visible | present | detected | given))?
    | not \s (applicable | available)
    | no \s ((visible | spoken | readable | legible | apparent) \s)?
      (dialogues? | dialogs? | text | captions? | speech | words? | descriptions?)
      (\s (visible | present | available | detected | found | given))?
    """,
    re.VERBOSE,
)


@dataclass
class NoTextCounts:
    """How often each text stands on the panels of some pages of a source."""

    panels: Counter[str] = field(default_factory=Counter)  # with text, by column
    values: dict[str, Counter[str]] = field(default_factory=lambda: {c: Counter() for c in NO_TEXT_COLUMNS})

    def add(self, raw: RawPage) -> None:
        """Count a page."""
        for panel in raw.panels:
            for column in NO_TEXT_COLUMNS if panel is not None else ():
                keys = {text_key(t) for t in map(flatten, as_list(getattr(panel, column))) if t}
                self.panels[column] += bool(keys)
                self.values[column].update(keys)

    def decide(self) -> dict[str, list[str]]:
        """The `text_key` of everything that is no text, by column."""
        return {column: sorted(self._of(column)) for column in NO_TEXT_COLUMNS}

    def _of(self, column: str) -> Iterable[str]:
        for key, n in self.values[column].items():
            share = n / self.panels[column]
            known = _KNOWN.fullmatch(key) and n >= KNOWN_COUNT and share >= KNOWN_SHARE
            if known or (n >= OTHER_COUNT and share >= OTHER_SHARE):
                yield key
