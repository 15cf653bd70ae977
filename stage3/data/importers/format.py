"""What a format declares, and what its reader gets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from xml.etree.ElementTree import Element

from stage3.data.importers import documents
from stage3.data.importers.lookup import Images
from stage3.data.importers.page import Page
from stage3.data.importers.sight import Sight
from stage3.data.importers.trees import SourceProblem, Tree
from stage3.data.readers.boxes import number
from stage3.data.readers.jsonfile import Note


@dataclass(frozen=True)
class Options:
    """What a user said about the sources.

    Attributes:
        panel_classes: names of classes that are panels, beside the usual ones.
        min_score: boxes with a lower score are left out, 0 to 1.
        right_to_left: direction of reading; None leaves it to the source.
        box_size: (width, height) of the images that boxes were made on, where the file does not say.
    """

    panel_classes: tuple[str, ...] = ()
    min_score: float = 0.5
    right_to_left: bool | None = None
    box_size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Reading:
    """One source in one format.

    Attributes:
        tree: where the annotation files lie.
        files: the annotation files of this format.
        image_trees: where images are looked for.
        note: counts an oddity: code, detail.
        options: what the user said.
    """

    tree: Tree
    files: tuple[str, ...]
    image_trees: tuple[Tree, ...]
    note: Note
    options: Options = field(default_factory=Options)

    @cached_property
    def images(self) -> Images:
        """The images of the source."""
        return Images(self.image_trees)

    def json(self, name: str) -> Any:
        """One of the files as JSON."""
        return documents.read_json(self.tree, name)

    def xml(self, name: str) -> Element:
        """One of the files as XML."""
        return documents.read_xml(self.tree, name)

    def without_image(self, written: str, file: str) -> None:
        """Count a page whose image is not below the source, or for which several would do."""
        self.note("image_not_found", f"{self.tree.show(file)}: {written[:200]}")


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        name: what `--format` takes.
        label: what people call it.
        looks_like: what is looked for, in words; ends a message about files that were not recognized.
        claims: whether a file is of this format, by its name and first bytes.
        read: its pages, one at a time; SourceProblem where a file cannot be used.
    """

    name: str
    label: str
    looks_like: str
    claims: Callable[[Sight], bool]
    read: Callable[[Reading], Iterator[Page]]


PANEL_WORDS = ("panel", "panels", "frame", "frames", "koma", "vignette", "viñeta")
TEXT_WORDS = (
    *("text", "texts", "textbox", "textblock", "textarea", "textregion", "dialogue", "dialog", "speech", "caption"),
    *("narration", "thought", "balloon", "bubble", "speechballoon", "speechbubble", "onomatopoeia", "sfx"),
)


def _plain(name: str) -> str:
    return re.sub(r"[\W_\d]+", "", name.casefold())


@dataclass(frozen=True)
class Classes:
    """Which names of classes are panels and which are texts."""

    panels: frozenset[str]
    texts: frozenset[str]

    def role(self, name: str) -> str:
        """What a class is: "panel", "text", or "" for anything else."""
        return "panel" if name in self.panels else "text" if name in self.texts else ""


def classes(names: Iterable[Any], options: Options, where: str) -> Classes:
    """Sort the names of a source's classes, by the words in them and by what the user said.

    Raises:
        SourceProblem: none of them is a panel or a text.
    """
    known = [str(n) for n in dict.fromkeys(names)]
    said = {_plain(n) or n for n in options.panel_classes}
    panels = {n for n in known if (_plain(n) or n) in said}
    if not panels:
        panels = {n for n in known if any(_plain(n).endswith(word) for word in PANEL_WORDS)}
    texts = {n for n in known if _plain(n) in TEXT_WORDS and n not in panels}
    if known and not panels and not texts:
        shown = ", ".join(map(repr, known[:12]))
        raise SourceProblem(
            "no_panel_class", f"{where}: no class is a panel or a text: {shown}. Name it with --panel_class NAME."
        )
    return Classes(frozenset(panels), frozenset(texts))


def once(pages: Iterable[Page], note: Note) -> Iterator[Page]:
    """The pages, each image once; a second one is counted."""
    seen: set[str] = set()
    for page in pages:
        if page.image.key in seen:
            note("page_twice", page.image.shown)
        else:
            seen.add(page.image.key)
            yield page


def score_of(value: Any, floor: float, note: Note, where: str) -> tuple[bool, float | None]:
    """Whether a box with this score is used, and the score; a box without one is."""
    score = number(value)
    if score is not None and score < floor:
        note("score_low", where)
        return False, score
    return True, None if score is None else min(score, 1.0)


def first_text(values: Sequence[Any]) -> str:
    """The first value that is text with words in it, as one line."""
    for value in values:
        if isinstance(value, list):
            value = " ".join(v for v in value if isinstance(v, str))
        if isinstance(value, str) and value.split():
            return " ".join(value.split())
    return ""
