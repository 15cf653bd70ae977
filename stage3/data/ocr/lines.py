"""What a reader of text gives, and the interface of all readers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from PIL import Image

Box = tuple[float, float, float, float]  # x, y, width, height


@dataclass(frozen=True)
class Line:
    """One line of text, or one column of vertical text.

    Attributes:
        text: its words, without line breaks.
        box: x, y, width, height in pixels of the image, inside it.
        confidence: 0 to 1; higher is surer. Values of different readers cannot be compared.
    """

    text: str
    box: Box
    confidence: float


class TextReader(Protocol):
    """Reads the text of an image.

    Attributes:
        name: what panel files name as the source of their text.
    """

    name: str

    def read(self, image: Image.Image) -> list[Line]:
        """The lines of an upright image in mode RGB or L, in no order; none at all is an answer too."""
        ...


def within(left: float, top: float, right: float, low: float, size: tuple[int, int]) -> Box | None:
    """A box from its corners, cut to the image; None when nothing is left."""
    left, top = max(left, 0.0), max(top, 0.0)
    right, low = min(right, float(size[0])), min(low, float(size[1]))
    return (left, top, right - left, low - top) if right > left and low > top else None
