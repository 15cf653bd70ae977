"""Format "ocr": detector JSON, one file per page, literal text, in reading order.

Boxes are usually `[x, y, w, h]` in pixels.
"""

from __future__ import annotations

from typing import Any

from stage3.data.readers.rules import RawPage, RawPanel
from stage3.data.readers.shape import panel_list, the_page
from stage3.data.readers.source import DataSource
from stage3.data.readers.units import PIXELS, Notation


def page(value: Any, source: DataSource, note: Any) -> RawPage:
    """One page's parsed JSON in the common structure; see `stage3.data.readers`."""
    value = the_page(value, note)
    notation = source.notation("xywh", PIXELS)
    panels = [_panel(p, notation) if isinstance(p, dict) else None for p in panel_list(value, note)]
    return RawPage(
        panels,
        size=(value.get("image_width"), value.get("image_height")),
        summary=value.get("overall_summary"),
        canonical_id=value.get("canonical_id"),
    )


def _panel(panel: dict[str, Any], notation: Notation) -> RawPanel:
    return RawPanel(
        panel.get("bbox"),
        notation.order,
        notation.unit,
        dialogue=panel.get("text"),
        description=panel.get("description"),
        speakers=panel.get("speakers"),
        detected=True,
        field="bbox",
    )
