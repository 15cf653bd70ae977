"""The outer shape that the JSON formats share: an object with a list of panels."""

from __future__ import annotations

from typing import Any

from stage3.data.readers.jsonfile import PageProblem
from stage3.data.readers.rules import Note


def the_page(value: Any, note: Note) -> Any:
    """The page of a file; a list that holds nothing but one object with panels is that page."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict) and "panels" in value[0]:
        note("page_in_list", "the page stands in a list by itself")
        return value[0]
    return value


def panel_list(value: Any, note: Note) -> list[Any]:
    """The `panels` of a page; an object of panels counts as a list in its own order.

    Raises:
        PageProblem: the page is not an object, or its panels are missing, null or not a list.
    """
    if not isinstance(value, dict):
        raise PageProblem("json_not_object", f"expected an object with panels, found {type(value).__name__}")
    if "panels" not in value:
        raise PageProblem(
            "panels_missing", f"no field 'panels'; the page has {', '.join(map(str, list(value)[:6]))[:120]}"
        )
    panels = value["panels"]
    if isinstance(panels, dict):
        note("panels_as_object", "panels is an object; its values are taken in order")
        return list(panels.values())
    if not isinstance(panels, list):
        raise PageProblem("panels_type", f"panels is {'null' if panels is None else type(panels).__name__}, not a list")
    return panels
