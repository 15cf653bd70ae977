"""Format "vlm": a vision-language model's JSON, one file per page, boxes usually in 0-1000 of the page.

Variants: the box under `box_2d`, `box` or `bbox_2d`; entries of `text_content` with `label` or `type`, or plain
strings; an older schema without boxes, with `speakers: [{character, dialogue, speech_type}]` and `caption`.
"""

from __future__ import annotations

from typing import Any

from stage3.data.readers.rules import RawPage, RawPanel, as_list
from stage3.data.readers.shape import panel_list, the_page
from stage3.data.readers.source import DataSource
from stage3.data.readers.units import Notation

BOX_KEYS = ("box_2d", "box", "bbox_2d")


def page(value: Any, source: DataSource, note: Any) -> RawPage:
    """One page's parsed JSON in the common structure; see `stage3.data.readers`."""
    value = the_page(value, note)
    notation = source.notation("yxyx", "permille")
    panels = [_panel(p, notation) if isinstance(p, dict) else None for p in panel_list(value, note)]
    return RawPage(panels, summary=value.get("overall_summary"), order="number", canonical_id=value.get("canonical_id"))


def _panel(panel: dict[str, Any], notation: Notation) -> RawPanel:
    spoken, speakers = [], []
    for entry in as_list(panel.get("text_content")):
        if isinstance(entry, dict):
            spoken.append(entry.get("text", entry.get("content")))
            speakers.append(entry.get("speaker"))
        else:
            spoken.append(entry)
    for entry in as_list(panel.get("speakers")):  # the older schema
        if isinstance(entry, dict):
            spoken.append(entry.get("dialogue"))
            speakers.append(entry.get("character"))
        else:
            speakers.append(entry)
    spoken += [panel.get(key) for key in ("caption", "dialogue", "text")]
    return RawPanel(
        box=next((panel[key] for key in BOX_KEYS if panel.get(key) is not None), None),
        corners=notation.order,
        unit=notation.unit,
        field=BOX_KEYS[0],
        dialogue=spoken,
        description=panel.get("description"),
        speakers=speakers,
        number=panel.get("panel_number"),
    )
