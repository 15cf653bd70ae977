"""The panels that are missed in one direction or both, with what beat them, as a table whose rows become the query."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from app import shell
from app.charts import names
from app.parts import query
from stage3.search import Searcher

MAX_LISTED = 500
GALLERY_HELP = "The panel that is ranked first instead of the true match"


def table(chosen: shell.Chosen, searcher: Searcher, found: pd.DataFrame, split: str, *, key: str) -> None:
    """The panels as a table with images; choosing a row makes it the query, in the gallery that the ranks are of."""
    part = found.head(MAX_LISTED)
    frame = searcher.frame.loc[part["panel"]]
    rival = part["rival"].to_numpy()
    table = pd.DataFrame(
        {
            "image": [shell.thumb_url(chosen, int(r), 160) for r in part["panel"]],
            "text": frame["text"].to_numpy(),
            "works": part["works"].to_numpy(),
            "rank_i2t": part["rank_i2t"].to_numpy(),
            "rank_t2i": part["rank_t2i"].to_numpy(),
            "way": part["way"].to_numpy(),
            "rival": [shell.thumb_url(chosen, int(r), 160) if r >= 0 else None for r in rival],
            "rival_text": [searcher.frame["text"][r] if r >= 0 else "" for r in rival],
            "match_score": part["match_score"].to_numpy(),
            "rival_score": part["rival_score"].to_numpy(),
            "common": part["common"].to_numpy(),
            "page": frame["page_id"].to_numpy(),
        }
    )
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    event = st.dataframe(
        table,
        hide_index=True,
        row_height=86,
        height=min(470, 40 + 86 * len(table)),
        key=key,
        on_select="rerun",
        selection_mode="single-row",
        alt="Missed panels with ranks, the panel that beat each, and what the two have in common",
        column_config={
            "image": st.column_config.ImageColumn("Panel", width=72),
            "text": text("Text", width=230),
            "works": text("Found by", width=104, help="The direction that finds the true match"),
            "rank_i2t": number(names.RANKS["rank_i2t"], format="%g", width=78, help=names.RANK_HELP),
            "rank_t2i": number(names.RANKS["rank_t2i"], format="%g", width=78, help=names.RANK_HELP),
            "way": text("Missed by", width=104, help="The direction that misses; of both the worse one"),
            "rival": st.column_config.ImageColumn("Beaten by", width=76, help=GALLERY_HELP),
            "rival_text": text("Its text", width=230),
            "match_score": number("True match", format="%.3f", width=80, help="Cosine of the query and its true match"),
            "rival_score": number("Beaten by", format="%.3f", width=76, help="Cosine of the query and that panel"),
            "common": text("In common", width=210, help="What the panel and the one that beat it have in common"),
            "page": text("Page", width=110),
        },
    )
    if len(found) > len(part):
        shell.line(f"The worst {len(part):,} of {len(found):,} are listed; the export has all of them.")
    chosen_rows = event["selection"]["rows"] if event else []
    if chosen_rows and chosen_rows[0] < len(part):
        row = int(part["panel"].iloc[chosen_rows[0]])
        st.button(
            "Search with this panel",
            icon=":material/search:",
            key=f"{key}-use",
            type="primary",
            on_click=shell.callback(query.use_panel_within),
            args=(row, split),
            help="In the same gallery: panels of this split that have an image and a text",
        )
