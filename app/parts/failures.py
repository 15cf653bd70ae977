"""The panels that are found in one direction only, as a table whose rows can become the query."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from app import shell
from app.charts import names
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
            "works": st.column_config.TextColumn(
                "Found by", width="small", help="The direction that finds the true match"
            ),
            "rank_i2t": number(names.RANKS["rank_i2t"], format="%g", width="small", help=names.RANK_HELP),
            "rank_t2i": number(names.RANKS["rank_t2i"], format="%g", width="small", help=names.RANK_HELP),
            "same_text": number("Same text", width="small", help="Other panels with the same text"),
            "nearest_texts": number(
                "Nearest texts", format="%.2f", width="small", help="Mean cosine to the nearest other texts"
            ),
            "page": st.column_config.TextColumn("Page"),
        },
    )
    if len(found) > len(part):
        shell.line(f"The worst {len(part):,} of {len(found):,} are listed; the export has all of them.")
    chosen_rows = event["selection"]["rows"] if event else []
    if chosen_rows and chosen_rows[0] < len(part):
        row = int(part["panel"].iloc[chosen_rows[0]])
        if st.button(f"Search with panel {row}", icon=":material/search:", key=f"{key}-use", type="primary"):
            query.use_panel(row)
            st.rerun()
