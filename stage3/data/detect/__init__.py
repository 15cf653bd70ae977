"""Panels of pages that come without boxes.

`load_detector("own")` cuts pages along lines and gutters (numpy and Pillow alone, milliseconds of CPU); any other name
is a folder or Hugging Face id of an object detection model. Both have one method, `find(image) -> Found`.
"""

from __future__ import annotations

from collections.abc import Sequence

from stage3.data.detect.found import WHOLE_PAGE, Detector, Found, or_whole_page, page_confidence
from stage3.data.detect.own import OwnDetector

OWN = "own"

__all__ = [
    "OWN",
    "WHOLE_PAGE",
    "Detector",
    "Found",
    "OwnDetector",
    "load_detector",
    "or_whole_page",
    "page_confidence",
]


def load_detector(name: str = OWN, classes: Sequence[str] = ()) -> Detector:
    """A detector of panels by its name.

    Args:
        name: "own", or a folder or Hugging Face id (with or without `@revision`) of a model that
            `transformers.AutoModelForObjectDetection` loads.
        classes: names of the model's classes that are panels; empty for the usual names (`learned.PANEL_CLASSES`).

    Raises:
        DataError: the model is not on this machine, does not load, or has no class of panels.
    """
    if name == OWN:
        return OwnDetector()
    from stage3.data.detect.learned import PANEL_CLASSES, LearnedDetector  # torch is slow to import

    return LearnedDetector(name, classes or PANEL_CLASSES)
