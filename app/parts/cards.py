"""Ranked panels as cards, drawn by one component: a list of twenty results costs a few kilobytes and no widgets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal

import pandas as pd
import streamlit as st

from app import components, shell

NOTHING = "No panel passes these filters."
MAX_TEXT = 240  # characters of a text on a card
TONES = {"true match": "match", "same text": "same"}
Mode = Literal["text", "image", "strip", "compact"]
SIDES = {"text": 240, "image": 360, "strip": 240, "compact": 240}
# Waits for `prepare`, whose script may arrive after the list.
STUB = """export default function (c) {
  const go = () => (window.stage3Results ? window.stage3Results(c) : setTimeout(go, 30));
  go();
}"""


@cache
def _asset(kind: str) -> str:
    return (components.HERE / f"results.{kind}").read_text(encoding="utf-8")


def prepare() -> None:
    """Send script and styles of the cards; once per page, outside of the fragments that show them."""
    component = st.components.v2.component("stage3.cards", js=_asset("js"), css=_asset("css"), isolate_styles=False)
    component(key="hover-results", height=1)


def item(frame: pd.DataFrame, row: int) -> dict[str, Any]:
    """What a card shows of a panel; the frame's index is the panel row."""
    panel: dict[Any, Any] = frame.loc[row].to_dict()
    text = str(panel["text"])
    where = f"{panel['page_id']} · panel {int(panel['order']) + 1}"
    shown = text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
    return {"row": int(row), "text": shown, "where": where} | ({} if panel["has_box"] else {"bare": True})


def cards(
    chosen: shell.Chosen,
    items: Sequence[dict[str, Any]],
    mode: Mode,
    *,
    key: str,
    on_query: Callable[[int], None],
    hint: str = "Search with this panel",
    empty: str = NOTHING,
) -> None:
    """Show cards; a click on one calls `on_query` with its panel row, "Open page" leaves for the Page view.

    Args:
        chosen: the run.
        items: from `item`, with rank, score, tag, tone, ways and bar where the cards are ranked.
        mode: "text" where texts are what is compared, "image" where images are, "strip" for small choices,
            "compact" for many small ones with a note.
        key: of the list.
        on_query: runs before the next drawing.
        hint: what a click on a card does.
        empty: what to say when there is no card.
    """
    draw = st.components.v2.component("stage3.results", js=STUB, isolate_styles=False)
    prefix, _, suffix = shell.thumb_url(chosen, 987654321, SIDES[mode]).partition("987654321")
    data = {
        "mode": mode,
        "items": list(items),
        "hint": hint,
        "empty": empty,
        "open": "" if mode in ("strip", "compact") else "Open page",
        "prefix": prefix,
        "suffix": suffix,
    }

    def asked() -> None:
        row = st.session_state[key].get("query")
        if isinstance(row, int):  # it comes from the browser: whoever uses it checks that there is such a panel
            on_query(row)

    result = draw(data=data, key=key, on_query_change=shell.callback(asked), on_open_change=lambda: None)
    if isinstance(result.open, int):
        shell.go("page", panel=result.open)
