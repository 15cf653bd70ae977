"""Format "ocr": detector JSON, one file per page, boxes `[x, y, w, h]` in pixels, literal text, in reading order."""

from __future__ import annotations

from typing import Any

from stage3.data.readers.rules import RawPage, RawPanel
from stage3.data.readers.shape import panel_list, the_page
from stage3.data.readers.source import DataSource


def page(value: Any, source: DataSource, note: Any) -> RawPage:
    """One page's parsed JSON in the common structure; see `stage3.data.readers`."""
    value = the_page(value, note)
    panels = [
        RawPanel(
            p.get("bbox"),
            "xywh",
            "pixel",
            dialogue=p.get("text"),
            description=p.get("description"),
            speakers=p.get("speakers"),
            detected=True,
        )
        if isinstance(p, dict)
        else None
        for p in panel_list(value, note)
    ]
    return RawPage(
        panels,
        size=(value.get("image_width"), value.get("image_height")),
        summary=value.get("overall_summary"),
        canonical_id=value.get("canonical_id"),
    )
