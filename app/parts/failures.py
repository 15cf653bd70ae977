"""The panels that are found in one direction only, as a table whose rows can become the query."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from app import shell
from app.parts import query
from stage3.search import Searcher

MAX_LISTED = 500


def table(chosen: shell.Chosen, searcher: Searcher, found: pd.DataFrame, *, key: str) -> None:
    """The panels as a table with images; choosing a row makes it the query."""
    part = found.head(MAX_LISTED)
    frame = searcher.frame.loc[part["panel"]]
    table = pd.DataFrame(
        {
            "image": [shell.thumb_url(chosen, int(r), 160) for r in part["panel"]],
            "text": frame["text"].to_numpy(),
            "works": part["works"].to_numpy(),
            "rank_i2t": part["rank_i2t"].to_numpy(),
            "rank_t2i": part["rank_t2i"].to_numpy(),
            "same_text": part["same_text"].to_numpy(),
            "nearest_texts": part["nearest_texts"].to_numpy(),
            "page": frame["page_id"].to_numpy(),
        }
    )
    number = st.column_config.NumberColumn
    event = st.dataframe(
        table,
        hide_index=True,
        row_height=86,
        height=min(470, 40 + 86 * len(table)),
        key=key,
        on_select="rerun",
        selection_mode="single-row",
        column_config={
            "image": st.column_config.ImageColumn("Panel", width="small"),
            "text": st.column_config.TextColumn("Text", width="large"),
            "works": st.column_config.TextColumn("Works", width="small"),
            "rank_i2t": number("Rank image → text", format="%g", width="small"),
            "rank_t2i": number("Rank text → image", format="%g", width="small"),
            "same_text": number("Others with this text", width="small"),
            "nearest_texts": number("Nearest texts, cosine", format="%.2f", width="small"),
            "page": st.column_config.TextColumn("Page"),
        },
    )
    if len(found) > len(part):
        shell.line(f"The worst {len(part):,} of {len(found):,} are listed; the export has all.")
    chosen_rows = event["selection"]["rows"] if event else []
    if chosen_rows and chosen_rows[0] < len(part):
        row = int(part["panel"].iloc[chosen_rows[0]])
        if st.button(f"Search with panel {row}", icon=":material/search:", key=f"{key}-use", type="primary"):
            query.use_panel(row)
            st.rerun()
