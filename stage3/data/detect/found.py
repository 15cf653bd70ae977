"""What a detector gives, and the interface of all detectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class Found:
    """Panels of one page, in no order.

    Attributes:
        boxes: (N, 4) x, y, w, h in pixels of the page, inside it.
        confidence: (N,) from 0 to 1; higher is surer. Values of different detectors cannot be compared.
    """

    boxes: NDArray[np.float64]
    confidence: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.boxes)


NOTHING = Found(np.zeros((0, 4)), np.zeros(0))


class Detector(Protocol):
    """Finds panels on a page."""

    def find(self, image: Image.Image) -> Found:
        """Panels of an upright page in mode RGB or L; none at all is an answer too."""
        ...
