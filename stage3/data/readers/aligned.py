"""Format "aligned": one list of all pages, detector boxes matched with a language model's panels, in match order.

Of a panel's boxes the first sound one counts: `rcnn_bbox`, then `vlm_box_px` (both pixels), then `vlm_box_2d` (0-1000).
The settings `box_order` and `box_unit` are about the last one, which a language model wrote.
A panel with text and no box (`modality_mask` `[0, 1, 0]`) is a text-only panel; it has no place on the page, so it
follows the panels that have one. The mask itself is not read: boxes and texts speak for themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stage3.data.readers.boxes import four
from stage3.data.readers.jsonfile import DamagedItem, iterate_list
from stage3.data.readers.rules import RawPage, RawPanel
from stage3.data.readers.shape import panel_list
from stage3.data.readers.source import DataSource
from stage3.data.readers.units import PIXELS, Notation


def items(path: Path) -> Iterator[tuple[str, Any]]:
    """(canonical id, page) of every page in the file; "" where a page has none."""
    for item in iterate_list(path):
        if isinstance(item, DamagedItem):
            yield item.page_id, item
            continue
        page_id = item.get("canonical_id") if isinstance(item, dict) else None
        yield page_id if isinstance(page_id, str) else "", item


def page(value: Any, source: DataSource, note: Any) -> RawPage:
    """One page of the list in the common structure; see `stage3.data.readers`."""
    if isinstance(value, DamagedItem):
        raise value.problem
    of_model = source.notation("yxyx", "permille")
    panels = [_panel(p, of_model) if isinstance(p, dict) else None for p in panel_list(value, note)]
    size = (value.get("image_width"), value.get("image_height"))
    return RawPage(panels, size=size, summary=value.get("overall_summary"), order="layout")


def _panel(panel: dict[str, Any], of_model: Notation) -> RawPanel:
    made = RawPanel(None, "xywh", PIXELS, dialogue=panel.get("text"), description=panel.get("description"))
    for key in ("rcnn_bbox", "vlm_box_px", "vlm_box_2d"):
        made.box = made.box if panel.get(key) is None else panel[key]
        if four(panel.get(key))[0] is not None:
            if key == "vlm_box_2d":
                made.corners, made.unit = of_model.order, of_model.unit
            made.box, made.field = panel[key], key
            made.detected = key == "rcnn_bbox"
            break
    return made
