"""What every format is read into: pages with boxes and texts in pixels, before anything is decided about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from stage3.data.importers.trees import ImageRef

Box = tuple[float, float, float, float]  # x, y, width, height
Points = tuple[tuple[float, float], ...]
Kind = Literal["dialogue", "caption", "thought", "sound", "page_number"]
KINDS: tuple[Kind, ...] = ("dialogue", "caption", "thought", "sound", "page_number")
APART: tuple[Kind, ...] = ("sound", "page_number")  # kept, but no part of what a panel says


@dataclass(slots=True)
class PanelBox:
    """One panel as its file has it.

    Attributes:
        box: x, y, width, height, in the page's `size`; width and height may be negative, and the box may reach out.
        confidence: 0 to 1, None where the file gives none.
        polygon: corners of a panel that is no upright rectangle.
        order: its place in reading order, where the file says so.
        text: words that the file attaches to the panel itself.
    """

    box: Box
    confidence: float | None = None
    polygon: Points | None = None
    order: int | None = None
    text: str = ""


@dataclass(slots=True)
class TextBlock:
    """One text on the page.

    Attributes:
        text: the words, one line.
        box: x, y, width, height; None where the file gives no place.
        kind: what kind of text; those in `APART` are no part of what a panel says.
        speaker: a name, "" where nobody is named.
    """

    text: str
    box: Box | None
    kind: Kind = "dialogue"
    speaker: str = ""


@dataclass(slots=True)
class Page:
    """One page as its file has it.

    Attributes:
        book: name of the book, as a user would call it; "/" parts levels.
        name: name of the page within the book, without an extension.
        image: where the image is.
        size: (width, height) that the coordinates count in; None is the image's own pixels.
        squashed: `size` may have other proportions than the image: each axis is scaled by itself.
        panels: None where the file says nothing about panels; an empty list where it says that there are none.
        texts: texts in the file's order.
        in_order: panels and texts stand in reading order.
        right_to_left: direction of reading, None where the file does not say.
        double: the image shows two pages side by side, None where the file does not say.
        label: page type in the words of the labels file, "" where the file does not say.
        series: series and number, for people.
        language: ISO code, "" where the file does not say.
        format: name of the format.
        file: the annotation file that it stands in, "" where there is none.
        problem: (code, what was found) when the page's annotation cannot be used; the page is left out and counted.
    """

    book: str
    name: str
    image: ImageRef
    size: tuple[float, float] | None = None
    squashed: bool = False
    panels: list[PanelBox] | None = None
    texts: list[TextBlock] = field(default_factory=list)
    in_order: bool = False
    right_to_left: bool | None = None
    double: bool | None = None
    label: str = ""
    series: str = ""
    language: str = ""
    format: str = ""
    file: str = ""
    problem: tuple[str, str] | None = None


def kind_of(value: object) -> Kind:
    """A kind of text by its name; anything else is dialogue."""
    return next((kind for kind in KINDS if kind == value), "dialogue")


def spoken(texts: Sequence[TextBlock]) -> str:
    """What the texts say, in order, without sounds and page numbers."""
    return " ".join(t.text for t in texts if t.text and t.kind not in APART)
