"""Small browser parts: style sheet, keyboard shortcuts, images on hover. Scripts and styles are our own constants."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st
from PIL import Image, ImageDraw

from app.addresses import VIEWS
from app.guard import callback

HERE = Path(__file__).parent
KEYS = {
    "runs": "r",
    "map": "m",
    "search": "s",
    "page": "p",
    "losses": "l",
    "retrain": "t",
    "evidence": "e",
    "data": "d",
    "add": "a",
}


@cache
def _asset(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _component(name: str, **parts: str) -> Callable[..., Any]:
    return st.components.v2.component(f"stage3.{name}", isolate_styles=False, **parts)


@cache
def icon() -> Image.Image:
    """The tab's icon, drawn here: a named icon would be fetched from a server on the internet."""
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    for box, fill in (((4, 4, 36, 28), "#1F5FA8"), ((42, 4, 60, 28), "#E69F00"), ((4, 34, 60, 60), "#009E73")):
        draw.rounded_rectangle(box, radius=5, fill=fill)
    return image


def style() -> None:
    """Spacing and type that the theme settings do not reach."""
    _component("style", css=_asset("style.css"))(key="style", height=1)


def shortcuts(run: str | None) -> None:
    """Keys: `g` and a letter opens a view, `?` lists them. The browser completes the address by the run's id."""
    views = [[KEYS[name], title] for name, (title, _) in VIEWS.items()]
    _component("keys", js=_asset("keys.js"))(key="keys", data={"views": views, "run": run}, height=1)


def framed_page(
    image: str,
    boxes: Sequence[Sequence[float] | None],
    focus: int | None,
    *,
    ratio: float,
    alt: str,
    key: str,
    on_pick: Callable[[int], None],
) -> None:
    """A page's image with a numbered frame around each panel; a click on one chooses it.

    Args:
        image: address of the image.
        boxes: x, y, w, h of each panel in reading order, shares of the page; None for panels without a box.
        focus: place of the panel that stands out.
        ratio: width over height of the page.
        alt: what the image shows.
        key: of the component.
        on_pick: called with the place of the panel that was clicked, if there is one.
    """

    def picked() -> None:
        place = st.session_state[key].get("pick")
        if type(place) is int and 0 <= place < len(boxes):  # it comes from the browser
            on_pick(place)

    data = {"image": image, "boxes": list(boxes), "focus": -1 if focus is None else focus, "ratio": ratio, "alt": alt}
    _component("page", js=_asset("page.js"))(key=key, data=data, on_pick_change=callback(picked))


def into_view(container_key: str, token: str) -> None:
    """Scroll a container into view, once per token; nothing for an empty one."""
    data = {"target": f".st-key-{container_key}", "token": token}
    _component("into-view", js=_asset("into_view.js"))(key="hover-into-view", data=data, height=1)


def chips(
    items: Sequence[dict[str, Any]],
    *,
    key: str,
    on_pick: Callable[[Any], None],
    hint: str,
    close: bool = False,
    column: bool = False,
) -> None:
    """Short texts to click; text from data is safe in them.

    Args:
        items: each with id and text, and maybe note, color and on (chosen).
        key: of the component.
        on_pick: called with the id of the one that was clicked, if it is among the items.
        hint: what a click does.
        close: show a cross behind each.
        column: one below the other, with a color before and the note at the right.
    """

    def picked() -> None:
        given = st.session_state[key].get("pick")
        if given is not None and any(item["id"] == given for item in items):  # it comes from the browser
            on_pick(given)

    data = {"items": list(items), "hint": hint, "close": close, "list": column}
    _component("chips", js=_asset("chips.js"))(key=key, data=data, on_pick_change=callback(picked))


def zoom(charts: Sequence[str], *, key: str, on_zoom: Callable[[int, list[float] | None, int], None]) -> None:
    """Learn which part of a map is shown when a person zooms or moves it.

    Args:
        charts: keys of the containers around the charts.
        key: of the component.
        on_zoom: called with the index of the chart, x0, x1, y0, y1 or None for the whole map, and the chart's height
            in pixels, 200 to 4000.
    """

    def moved() -> None:
        given = st.session_state[key].get("zoom")
        if not isinstance(given, dict) or given.get("chart") not in range(len(charts)):
            return
        part = given.get("range")
        finite = isinstance(part, list) and len(part) == 4 and all(isinstance(v, int | float) for v in part)
        high = given.get("height")
        if not isinstance(high, int | float) or not 200 <= high <= 4000:
            return
        if part is None or (finite and all(math.isfinite(v) for v in part)):
            on_zoom(int(given["chart"]), part, round(high))

    _component("map", js=_asset("map.js"))(
        key=key, data={"charts": list(charts)}, on_zoom_change=callback(moved), height=1
    )


def hover(
    chart_key: str,
    image_url: Callable[[int], str],
    side: int = 220,
    page_url: Callable[[int], str] | None = None,
) -> None:
    """Show a panel's image beside the pointer over a Plotly chart whose `customdata` is the panel's row.

    The point's `text` stands below the image, where nothing covers it.

    Args:
        chart_key: the `key` of the chart (or of a container around it).
        image_url: address of a row's image, such as `lambda row: shell.thumb_url(chosen, row, 240)`.
        side: longest side on screen, in pixels.
        page_url: address of a page's image, for points whose customdata is -1 - page.
    """
    data: dict[str, Any] = {"chart": chart_key, "side": side}
    for name, url in (("panel", image_url), ("page", page_url)):
        if url is not None:
            prefix, _, suffix = url(987654321).partition("987654321")
            data[name] = [prefix, suffix]
    _component("hover", js=_asset("hover.js"))(key=f"hover-{chart_key}", data=data, height=1)


def box_editor(data: dict[str, Any], key: str) -> Any:
    """The panels of a page as boxes to move, draw, delete and reorder; `save` and `revert` are what a person asked.

    Args:
        data: as `boxes.js` says.
        key: of the component.
    """
    component = _component("boxes", js=_asset("boxes.js"), css=_asset("boxes.css"))
    return component(key=key, data=data, on_save_change=lambda: None, on_revert_change=lambda: None)
