"""One page of any format as a panel file: boxes in pixels of the image, in reading order, each with its texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from stage3.data.detect import WHOLE_PAGE, Detector, Found, page_confidence
from stage3.data.importers.geometry import shared_area, upright
from stage3.data.importers.page import Box, Page, PanelBox, Points, TextBlock, spoken
from stage3.data.readers.jsonfile import Note, PageProblem
from stage3.data.readers.order import page_order

MIN_SIDE = 2.0  # pixels; a smaller box holds no image
SAME_SHAPE = 0.03  # relative difference of two pages' proportions
ACROSS = 0.1  # of the width; a panel that reaches so far over the middle of a double page goes over both


@dataclass(frozen=True)
class Assembled:
    """A panel file, and how it came about.

    Attributes:
        content: the file as JSON.
        how: where the panels are from: the "source", "found" by a detector, the "whole" page because the detector was
            not sure, or the whole page because nobody was asked ("none").
        confidence: share of the page that found panels cover, each counted by its confidence; None where nothing was
            looked for.
        certain: whether the reading order is certain.
    """

    content: dict[str, Any]
    how: Literal["source", "found", "whole", "none"]
    confidence: float | None
    certain: bool


def assemble(
    page: Page,
    image: Image.Image | None,
    size: tuple[int, int],
    detector: Detector | None,
    note: Note,
    *,
    min_confidence: float = WHOLE_PAGE,
) -> Assembled:
    """Make a page's panel file.

    Args:
        page: what its format says.
        image: its pixels, where panels have to be found.
        size: (width, height) of its image.
        detector: finds panels on pages without; None takes the whole page.
        note: counts an oddity: code, detail.
        min_confidence: page confidence (`detect.page_confidence`) below which a page stays one panel.

    Raises:
        PageProblem: the boxes were made on another image than this.
    """
    scale = _scale(page, size, note)
    texts = [_placed(text, scale, size) for text in page.texts]
    confidence = None
    how: Literal["source", "found", "whole", "none"] = "source"
    if page.panels is not None:
        panels = _usable(page.panels, scale, size, note)
    elif detector is None or image is None:
        how, panels = "none", [_whole(size)]
    else:
        panels, confidence = _found(detector, image, size)
        how = "found"
        if not panels or confidence < min_confidence:
            how, panels = "whole", [_whole(size)]
    order, certain = _order(page, panels, size)
    panels = [panels[k] for k in order]
    owners = [_owner(text, panels) for text in texts]
    content: dict[str, Any] = {
        "image_width": size[0],
        "image_height": size[1],
        "right_to_left": bool(page.right_to_left),
        **({"double_page": True} if page.double else {}),
        **({"series": page.series} if page.series else {}),
        **({"language": page.language} if page.language else {}),
        "source": {"format": page.format, "file": page.file, "image": page.image.member},
        "panels": [
            _panel(panel, k, [t for t, o in zip(texts, owners, strict=True) if o == k], page, how, size)
            for k, panel in enumerate(panels)
        ],
    }
    outside = [t for t, owner in zip(texts, owners, strict=True) if owner is None]
    for text in outside:
        note("text_in_no_panel", f"{page.image.shown}: {text.text[:60]!r}")
    if outside:
        content["texts"] = [_text(t) for t in outside]
    content["full_page_text"] = " ".join(filter(None, [*(p["text"] for p in content["panels"]), spoken(outside)]))
    return Assembled(content, how, confidence, certain)


def _whole(size: tuple[int, int]) -> PanelBox:
    return PanelBox((0.0, 0.0, float(size[0]), float(size[1])))


def _scale(page: Page, size: tuple[int, int], note: Note) -> tuple[float, float]:
    """What the page's coordinates are multiplied with, per axis.

    Raises:
        PageProblem: the page was turned by a quarter since.
    """
    if page.size is None:
        return 1.0, 1.0
    ratio = (page.size[0] / page.size[1]) / (size[0] / size[1])
    if not page.squashed and abs(ratio - 1) > SAME_SHAPE:
        what = f"made for {page.size[0]:g} x {page.size[1]:g}, the image has {size[0]} x {size[1]}"
        turned = (page.size[1] / page.size[0]) / (size[0] / size[1])
        if abs(turned - 1) <= SAME_SHAPE:
            raise PageProblem("page_turned", f"{page.image.shown}: {what}: one of them was turned by a quarter")
        note("page_shape_differs", f"{page.image.shown}: {what}")
    return size[0] / page.size[0], size[1] / page.size[1]


def _scaled(box: Box, scale: tuple[float, float], size: tuple[int, int]) -> Box | None:
    """A box in pixels of the image, cut to it; None when too little is left."""
    x, y, w, h = upright(box)
    left, top = max(x * scale[0], 0.0), max(y * scale[1], 0.0)
    right, low = min((x + w) * scale[0], float(size[0])), min((y + h) * scale[1], float(size[1]))
    return (left, top, right - left, low - top) if min(right - left, low - top) >= MIN_SIDE else None


def _usable(
    panels: Sequence[PanelBox], scale: tuple[float, float], size: tuple[int, int], note: Note
) -> list[PanelBox]:
    made = []
    for k, panel in enumerate(panels):
        box = _scaled(panel.box, scale, size)
        if box is None:
            note("box_invalid", f"panel {k + 1}: {tuple(round(v, 1) for v in panel.box)} holds nothing of the page")
            continue
        polygon: Points | None = None
        if panel.polygon is not None:
            polygon = tuple((x * scale[0], y * scale[1]) for x, y in panel.polygon)
        made.append(PanelBox(box, panel.confidence, polygon, panel.order, panel.text))
    return made


def _placed(text: TextBlock, scale: tuple[float, float], size: tuple[int, int]) -> TextBlock:
    box = None if text.box is None else _scaled(text.box, scale, size)
    return TextBlock(text.text, box, text.kind, text.speaker)


def _found(detector: Detector, image: Image.Image, size: tuple[int, int]) -> tuple[list[PanelBox], float]:
    """What a detector finds, and the page's confidence."""
    found = detector.find(image)
    panels = []
    for row, sure in zip(found.boxes.tolist(), found.confidence.tolist(), strict=True):
        box = _scaled((row[0], row[1], row[2], row[3]), (1.0, 1.0), size)
        if box is not None:
            panels.append(PanelBox(box, sure))
    kept = Found(np.array([p.box for p in panels]).reshape(-1, 4), np.array([p.confidence for p in panels], np.float64))
    return panels, page_confidence(kept, *size)


# --- order


def _order(page: Page, panels: Sequence[PanelBox], size: tuple[int, int]) -> tuple[list[int], bool]:
    """The panels in reading order: the file's, where it says so; else by position."""
    given = [panel.order for panel in panels]
    numbers = [order for order in given if order is not None]
    if len(numbers) == len(given) and len(set(numbers)) == len(numbers):
        return sorted(range(len(panels)), key=lambda k: numbers[k]), True
    if page.in_order and page.panels is not None:
        return list(range(len(panels))), True
    return _by_position([panel.box for panel in panels], page, size)


def _by_position(boxes: Sequence[Box], page: Page, size: tuple[int, int]) -> tuple[list[int], bool]:
    """Boxes in the order in which the page is read; of a double page all of the first page comes first."""
    shares = np.array(boxes, np.float64).reshape(-1, 4) / np.array([*size, *size])
    right_to_left = bool(page.right_to_left)
    if page.double and (halves := _halves(shares, right_to_left)):
        order: list[int] = []
        certain = True
        for half in halves:
            inner, sure = page_order(shares[half], right_to_left)
            order += [int(half[k]) for k in inner]
            certain = certain and sure
        return order, certain
    whole, certain = page_order(shares, right_to_left)
    return [int(k) for k in whole], certain


def _halves(boxes: np.ndarray, right_to_left: bool) -> list[np.ndarray] | None:
    """Rows of the first and of the second page of a double page; None when a panel goes over both."""
    left, right = boxes[:, 0], boxes[:, 0] + boxes[:, 2]
    if ((left < 0.5 - ACROSS) & (right > 0.5 + ACROSS)).any():
        return None
    on_the_left = (left + right) / 2 < 0.5
    first = ~on_the_left if right_to_left else on_the_left
    return [np.flatnonzero(first), np.flatnonzero(~first)]


# --- texts


def _owner(text: TextBlock, panels: Sequence[PanelBox]) -> int | None:
    """The panel that holds most of a text, the smallest of several; None when no panel holds any of it."""
    if len(panels) == 1 and text.box is None:
        return 0
    if text.box is None:
        return None
    areas = [shared_area(panel.box, text.box) for panel in panels]
    most = max(areas, default=0.0)
    if most <= 0:
        return None
    holders = [k for k, area in enumerate(areas) if area >= most * (1 - 1e-9)]
    return min(holders, key=lambda k: panels[k].box[2] * panels[k].box[3])


def _panel(
    panel: PanelBox, place: int, texts: list[TextBlock], page: Page, how: str, size: tuple[int, int]
) -> dict[str, Any]:
    boxes = [t.box for t in texts if t.box is not None]
    if not page.in_order and len(boxes) == len(texts):
        texts = [texts[k] for k in _by_position(boxes, page, size)[0]]
    said = spoken(texts)
    speakers = list(dict.fromkeys(t.speaker for t in texts if t.speaker))
    return {
        "bbox": _rounded(panel.box),
        "text": " ".join(filter(None, (panel.text if panel.text != said else "", said))),
        **({} if panel.confidence is None else {"confidence": round(panel.confidence, 4)}),
        "reading_order": place + 1,
        "source": page.format if how == "source" else how,
        **({} if panel.polygon is None else {"polygon": [_rounded(point) for point in panel.polygon]}),
        **({"speakers": speakers} if speakers else {}),
        **({"texts": [_text(t) for t in texts]} if texts else {}),
    }


def _text(text: TextBlock) -> dict[str, Any]:
    return {
        "bbox": None if text.box is None else _rounded(text.box),
        "text": text.text,
        "kind": text.kind,
        **({"speaker": text.speaker} if text.speaker else {}),
    }


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(v, 2) for v in values]
