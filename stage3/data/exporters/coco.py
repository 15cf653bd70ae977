"""COCO JSON: panels and texts as boxes; what COCO has no field for stands in further keys, which `import` reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from stage3.data.exporters.pages import Box, ExportedPage, ExportedPanel, Text

CATEGORIES = [{"id": 1, "name": "panel"}, {"id": 2, "name": "text"}]


def document(pages: Sequence[ExportedPage]) -> bytes:
    """The file; ids start at 1, since pycocotools takes 0 for none."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, page in enumerate(pages, start=1):
        images.append(
            {
                "id": number,
                "width": page.size[0],
                "height": page.size[1],
                "file_name": page.file_name,
                "page_id": page.page_id,
                "book": page.book,
                **({"page_type": page.label} if page.label else {}),
                "right_to_left": page.right_to_left,
                **({"double_page": True} if page.double else {}),
                **({"series": page.series} if page.series else {}),
                **({"language": page.language} if page.language else {}),
            }
        )
        texts = list(page.texts)
        for order, panel in enumerate(page.panels, start=1):
            annotations.append({"id": len(annotations) + 1, "image_id": number, **_panel(panel, order)})
            texts += panel.texts
        annotations += [{"id": len(annotations) + 1 + k, "image_id": number, **_text(t)} for k, t in enumerate(texts)]
    value = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()


def _panel(panel: ExportedPanel, order: int) -> dict[str, Any]:
    corners = panel.polygon or _corners(panel.box)
    return {
        "category_id": 1,
        "bbox": list(panel.box),
        "segmentation": [[v for point in corners for v in point]],
        "area": round(_area(corners), 2),
        "iscrowd": 0,
        "reading_order": order,
        **({"text": panel.other_text} if panel.other_text else {}),
        **({} if panel.confidence is None else {"confidence": panel.confidence}),
    }


def _text(text: Text) -> dict[str, Any]:
    corners = _corners(text.box)
    return {
        "category_id": 2,
        "bbox": list(text.box),
        "segmentation": [[v for point in corners for v in point]],
        "area": round(_area(corners), 2),
        "iscrowd": 0,
        "text": text.text,
        "kind": text.kind,
        **({"speaker": text.speaker} if text.speaker else {}),
    }


def _corners(box: Box) -> tuple[tuple[float, float], ...]:
    x, y, w, h = box
    right, low = round(x + w, 2), round(y + h, 2)
    return (x, y), (right, y), (right, low), (x, low)


def _area(corners: Sequence[tuple[float, float]]) -> float:
    """Area of a polygon, by the shoelace formula."""
    following = [*corners[1:], corners[0]]
    return abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(corners, following, strict=True))) / 2
