"""A grid of panels: images large enough to read, pages of a fixed size, one click to a panel's page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from app import shell

PER_PAGE = 24


def panels(
    chosen: shell.Chosen,
    frame: pd.DataFrame,
    rows: Sequence[int],
    *,
    key: str,
    per_page: int = PER_PAGE,
    width: int = 170,
    captions: Mapping[int, str] | Callable[[int], str] | None = None,
    marked: Sequence[int] = (),
    actions: Mapping[str, Callable[[int], None]] | None = None,
) -> None:
    """Show these panels in this order.

    Args:
        chosen: the run.
        frame: the panel frame (for texts).
        rows: panel rows.
        key: of the grid; two galleries on a page need two.
        per_page: images per page of the grid.
        width: least width of a tile in pixels.
        captions: a short text of a row (untrusted text is fine); its own text when left out.
        marked: rows that get a "true match" badge.
        actions: icon name (`:material/…:`) to what its button does with a row; opening the page is always there.
    """
    if not len(rows):
        shell.line("No panel selected.")
        return
    pages = -(-len(rows) // per_page)
    at = st.pagination(pages, key=f"{key}-page") if pages > 1 else 1
    at = min(max(int(at or 1), 1), pages)
    shown = [int(r) for r in rows[(at - 1) * per_page : at * per_page]]
    with st.grid(min_column_width=width, gap="small", key=f"{key}-grid"):
        for row in shown:
            _tile(chosen, frame, row, key, captions, row in marked, actions or {})


def _tile(
    chosen: shell.Chosen,
    frame: pd.DataFrame,
    row: int,
    key: str,
    captions: Mapping[int, str] | Callable[[int], str] | None,
    marked: bool,
    actions: Mapping[str, Callable[[int], None]],
) -> None:
    panel: Any = frame.loc[row]
    text = str(panel["text"])
    with st.container(border=True, key=f"tile-{key}-{row}", gap="xxsmall"):
        alt = f"Panel {int(panel['order']) + 1} of page {panel['page_id']}: {text or 'no text'}"
        st.image(shell.thumb(chosen, row, 240), width="stretch", alt=alt)
        if marked:
            st.badge("true match", icon=":material/check:", color="green")
        caption = captions(row) if callable(captions) else captions.get(row, "") if captions is not None else text
        st.text(caption if len(caption) <= 90 else caption[:89] + "…")
        with st.container(horizontal=True, gap="xxsmall"):
            open_it = st.button(
                "", icon=":material/auto_stories:", key=f"{key}-open-{row}", help="Open its page", type="tertiary"
            )
            if open_it:  # not a callback: a gallery may stand in a fragment, and only `go` leaves one
                shell.go("page", page=int(panel["page"]), panel=row)
            for icon, act in actions.items():
                st.button(
                    "", icon=icon, key=f"{key}-{icon}-{row}", type="tertiary", on_click=shell.callback(act), args=(row,)
                )
