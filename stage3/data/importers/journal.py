"""What an import has done so far: one line per page, written when the page is done.

A killed import loses at most the page it was at. When an import ends, the lines are put in order, so that the same
sources give the same bytes however often they were interrupted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stage3.errors import DataError
from stage3.storage import append_line, replace_file, to_json

NAME = "import_pages.jsonl"


@dataclass
class Done:
    """One page of the sources that has been dealt with.

    Attributes:
        id: canonical id.
        origin: file or folder that the user named, or the archive in it.
        tree: folder or archive of the image, or the file that it is embedded in.
        member: the image in it.
        at: (source, page) place among all pages.
        stamp: changes when image, annotation or settings do.
        book: name of the book.
        label: page type.
        known_type: whether somebody gave the page type.
        image: path for the manifest.
        panels: how many.
        how: where the panels are from; see `assemble.Assembled`.
        format: name of the format.
        right_to_left: direction of reading.
        certain: whether the reading order is certain.
        file: SHA-256 of the panel file as it was written.
        sizes: bytes of the panel file and of the extracted image (0 where none was extracted).
        notes: (code, detail) of every oddity.
        problem: (code, detail) why the page is left out, None where it is not.
    """

    id: str
    origin: str
    tree: str
    member: str
    at: tuple[int, int]
    stamp: str
    book: str = ""
    label: str = ""
    known_type: bool = False
    image: str = ""
    panels: int = 0
    how: str = ""
    format: str = ""
    right_to_left: bool = False
    certain: bool = True
    file: str = ""
    sizes: tuple[int, int] = (0, 0)
    notes: list[tuple[str, str]] = field(default_factory=list)
    problem: tuple[str, str] | None = None

    @property
    def key(self) -> str:
        """What tells the page's image from all others."""
        return f"{self.tree}\0{self.member}"


class Journal:
    """The lines of a data set folder, the last of each id."""

    def __init__(self, out: Path) -> None:
        self.path = out / NAME
        self.done: dict[str, Done] = {}
        if not self.path.is_file():
            return
        with self.path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.endswith("\n"):
                    break  # torn by a crash: that page is done again
                try:
                    done = _parsed(json.loads(line))
                except (ValueError, TypeError, KeyError) as error:
                    raise DataError(
                        f"{self.path}:{number}: damaged ({error}). Remove the file: all pages are imported anew."
                    ) from None
                self.done[done.id] = done

    def add(self, done: Done) -> None:
        """Write a line."""
        self.done[done.id] = done
        append_line(self.path, _line(done))

    def settle(self) -> list[Done]:
        """Write all lines anew, in order, unless they stand so already; returns them."""
        ordered = sorted(self.done.values(), key=lambda d: (d.at, d.id))
        data = b"".join(map(_line, ordered))
        if not self.path.is_file() or self.path.read_bytes() != data:
            replace_file(self.path, data)
        return ordered


def _line(done: Done) -> bytes:
    return (to_json(asdict(done)) + "\n").encode()


def _parsed(value: dict[str, Any]) -> Done:
    made = Done(**value)
    made.at = (int(value["at"][0]), int(value["at"][1]))
    made.sizes = (int(value["sizes"][0]), int(value["sizes"][1]))
    made.notes = [(str(code), str(detail)) for code, detail in value["notes"]]
    made.problem = None if value["problem"] is None else (str(value["problem"][0]), str(value["problem"][1]))
    return made


def counts(done: Iterable[Done], attribute: str) -> dict[str, int]:
    """How many pages have each value of an attribute, by value."""
    made: dict[str, int] = {}
    for page in done:
        value = str(getattr(page, attribute))
        made[value] = made.get(value, 0) + 1
    return made
