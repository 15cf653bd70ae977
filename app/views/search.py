"""Search: both directions side by side, any kind of query, and how good the lists are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from app import shell
from app.charts import search as charts
from app.parts import cards, doubt, export, query
from app.parts import failures as failures_table
from app.parts.query import Way
from app.store import loaders
from stage3.cli import counted, percent
from stage3.errors import DataError, Stage3Error
from stage3.model.distant import Distant
from stage3.model.mapped import Mapped
from stage3.search.failures import I2T, NEITHER, T2I, failures
from stage3.search.fusion import BEST
from stage3.search.rivals import ALL_REASONS, with_rivals
from stage3.search.searcher import TEXT_FILTERS, Filters, Results, Searcher

TOPS = (10, 20, 50)
MISSED = "Missed panels"
TEXT_NAMES = {
    "any": "With or without text",
    "with": "Only with text",
    "without": "Only without text",
    "pair": "Only with image and text",
}


def render() -> None:
    """The query on the left, two ranked lists beside it, metrics and failures below."""
    chosen = shell.chosen()
    searcher = shell.working("Reading the panels", query.searcher_of, chosen)
    if not len(searcher.embedded.rows):
        shell.empty("No panel to search", "The data set of this run has no panel with an image or a text.")
        return
    shell.heading("Search", "Finds panels by what they show, mean or say, in both directions.")
    cards.prepare()
    query.follow_address()
    _search(chosen, searcher)
    _quality(chosen, searcher)


@shell.fragment()
def _search(chosen: shell.Chosen, searcher: Searcher) -> None:
    left, middle, right = st.columns([1, 1.5, 1.5], gap="medium")
    ways: list[Way] = []
    with left, st.container(border=True, key="card-search-query"):
        try:
            ways = query.ask(chosen, searcher)
        except DataError as error:
            shell.error_box(error, "Invalid query")
        filters, top = _filters(searcher)
        index = _index(searcher)
    query.write_address(str(st.session_state["search_kind"]))
    if not ways:
        with middle:
            shell.empty("No query yet", "Choose or type one on the left; the nearest panels appear here.")
        return
    for side, column in enumerate((middle, right)):
        with column:
            _list(chosen, searcher, ways, side, filters, top, index)


def _filters(searcher: Searcher) -> tuple[Filters, int]:
    """Which panels may be found. A book or type that only another data set has is dropped from the choice."""
    st.subheader("Filters", anchor=False)
    picked = {}
    for name, column in (("Books", "book"), ("Page types", "page_type"), ("Splits", "split")):
        choices, key = searcher.choices(column), f"search_filter_{column}"
        if key in st.session_state:
            st.session_state[key] = [v for v in st.session_state[key] if v in choices]
        picked[column] = tuple(st.multiselect(name, choices, key=key, placeholder="all"))
    text = st.selectbox("Text", TEXT_FILTERS, format_func=TEXT_NAMES.__getitem__, key="search_filter_text")
    top = st.selectbox("Results per list", TOPS, key="search_top")
    return Filters(picked["book"], picked["page_type"], picked["split"], text), int(top)


def _index(searcher: Searcher) -> str:
    """How many panels are searched: exactly, or by an approximate index where that is offered."""
    offered = query.indices(searcher)
    if len(offered) < 2:
        return offered[0]
    about = "An approximate index is made with the first search and kept; the note beside a list says what it misses."
    return str(st.selectbox("Index", offered, key="search_index", help=about))


def _list(
    chosen: shell.Chosen, searcher: Searcher, ways: list[Way], side: int, filters: Filters, top: int, index: str
) -> None:
    """One ranked list: what is compared, where the true match stands, the cards, the export."""
    kind, labels = st.session_state["search_kind"], [way.label for way in ways]
    label = st.selectbox(
        "Left list" if side == 0 else "Right list",
        labels,
        index=min(side, len(labels) - 1),
        key=f"search_way_{kind}_{side}_{len(labels)}",
        label_visibility="collapsed",
    )
    way = ways[labels.index(label)]
    asked = (searcher, way, top, filters, index)
    found = query.found(*asked) if index == "exact" else shell.working("Searching", query.found, *asked)
    with st.container(key=f"quiet-search-{side}", gap="xxsmall"):
        shell.line(f"{_capital(found.compared)}.")
        shell.line(_standing(found, way))
        for note in found.notes:
            shell.line(f"Note: {note}.")
        if side == 0 and kind in ("words", "both") and (doubtful := doubt.of_words(chosen.run)):
            shell.line(f"Note: {doubtful}.")
    items = _items(searcher, found, way)
    mode: cards.Mode = "text" if way.target in ("text", "words") else "image"
    cards.cards(
        chosen,
        items,
        mode,
        key=f"search-cards-{side}",
        on_query=lambda row: _requery(searcher, row),
        empty="No panel that passes the filters says these words." if way.target == "words" else cards.NOTHING,
    )
    menu = st.popover(
        "Export",
        icon=":material/download:",
        disabled=not len(found.rows),
        key=f"search_export_{side}",
        on_change="rerun",
    )
    if menu.open:  # its buttons are sent only when they can be seen
        frame = searcher.frame.loc[found.rows]
        ranked = frame.assign(rank=np.arange(1, len(frame) + 1), score=found.scores, relation=found.relations)
        if found.ways is not None:
            ranked["found_by"] = [", ".join(ways) for ways in found.ways]
        with menu:
            export.buttons(chosen, ranked, f"search-{side}")


def _requery(searcher: Searcher, row: int) -> None:
    if searcher.spaces_of(row):
        query.use_panel(row)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _standing(found: Results, way: Way) -> str:
    among = f"{found.gallery:,} panels searched"
    if found.said is not None:
        return f"{among}; {counted(found.said, 'panel')} with all the words."
    if found.match_rank is not None:
        return f"True match at rank {found.match_rank:g} of {found.gallery:,}."
    if way.query.panel is not None and way.query.space != way.target:
        return f"{among}; the true match is not among them."
    return f"{among}."


def _way(name: str, rank: int) -> str:
    """How a way and a panel's rank in its list are written on a card; all that say the words share a rank."""
    return f"{name} {rank}" if name in ("text", "image") else name


def _items(searcher: Searcher, found: Results, way: Way) -> list[dict[str, Any]]:
    """Cards of the results; a true match below the list is added with its rank, so that both can be compared."""
    items = []
    for place, (row, score, relation) in enumerate(zip(found.rows, found.scores, found.relations, strict=True), 1):
        card = cards.item(searcher.frame, int(row))
        marks: dict[str, Any] = {"tag": relation, "tone": cards.TONES.get(relation, "")} if relation else {}
        if found.ways is not None:
            marks |= {"ways": [_way(*way) for way in found.ways[place - 1].items()], "bar": round(score / BEST, 4)}
        items.append({**card, "rank": str(place), "score": round(float(score), 4)} | marks)
    if found.match_rank is not None and "true match" not in found.relations and way.query.panel is not None:
        card = cards.item(searcher.frame, way.query.panel)
        mark = {"tag": "true match", "tone": "match", "gap": True}
        items.append({**card, "rank": f"{found.match_rank:g}", "score": round(found.match_score or 0.0, 4), **mark})
    return items


# --- how good it is


@shell.fragment()
def _quality(chosen: shell.Chosen, searcher: Searcher) -> None:
    st.subheader("Retrieval quality", anchor=False)
    good, missed = st.tabs(["Metrics", MISSED], key="search_tabs", on_change="rerun")
    if good.open:
        with good:
            _metrics(chosen, searcher)
    if missed.open:
        with missed:
            _failures(chosen, searcher)


def _split_choice(searcher: Searcher, key: str) -> str:
    there = [s for s in ("test", "val", "train") if s in searcher.choices("split")]
    return str(st.segmented_control("Split", there, default=there[0], key=key, required=True))


def _metrics(chosen: shell.Chosen, searcher: Searcher) -> None:
    split = _split_choice(searcher, "search_metrics_split")
    try:
        report = shell.working("Measuring both directions", loaders.evaluation, chosen.run, chosen.step, split)
    except Stage3Error as error:
        shell.error_box(error)
        return
    table = charts.metric_table(report)
    plot, numbers = st.columns([1.3, 1], gap="medium")
    with plot:
        charts.show_metrics(table)
    with numbers:
        st.dataframe(charts.metric_words(table), hide_index=True, height="content")
    with st.container(key="quiet-search-metrics", gap="xxsmall"):
        shell.line(
            f"{_capital(report['split'])} split: {report['gallery']:,} panels with image and text, "
            f"{report['pages']:,} pages. "
            f"{percent(report['level'], 0)} intervals by resampling whole pages. Equal texts do not compete. "
            "The gallery is the whole split, whatever the filters above."
        )
        for note in report["notes"]:
            shell.line(_capital(str(note)) + ".")


def _failures(chosen: shell.Chosen, searcher: Searcher) -> None:
    """Panels that a direction misses, and what beat them; a click searches with one."""
    with st.container(horizontal=True, gap="medium"):
        split = _split_choice(searcher, "search_failures_split")
        k = int(
            st.segmented_control(
                "Top k",
                [1, 5, 10],
                default=5,
                key="search_k",
                required=True,
                help="A panel is found when its true match is among the first k results",
            )
        )
    panels = shell.working("Ranking all panels", loaders.panel_frame, chosen.run, chosen.step)
    key = ("search-failures", *loaders.checkpoint_key(chosen.run, chosen.step), split, k)
    found = shell.working(
        "Looking at what was missed", loaders.remember, key, lambda: _failed(searcher, panels, split, k)
    )
    counts = found["reason"].value_counts()
    textless = found["reason"] == "no text"
    with st.container(horizontal=True, gap="medium"):
        st.metric("Only image → text", f"{(found['works'] == I2T).sum():,}", width=150)
        st.metric("Only text → image", f"{(found['works'] == T2I).sum():,}", width=150)
        st.metric("Missed both ways", f"{((found['works'] == NEITHER) & ~textless).sum():,}", width=150)
        st.metric("Textless panels", f"{textless.sum():,}", width=150)
    gallery = panels.loc[panels["split"] == split, "gallery"].max()
    with st.container(key="quiet-search-gallery"):
        shell.line(
            f"Ranks are among {gallery:,.0f} panels with image and text, the {split} split alone. The lists above "
            "search all panels that pass the filters; the button below a chosen row sets these to the same gallery."
        )
    reasons = [r for r in ALL_REASONS if counts.get(r, 0)]
    if not reasons:
        shell.line("Every panel of this split is found in both directions.")
        return
    default = max((r for r in reasons if r != "no text"), key=lambda r: counts[r], default=reasons[0])
    reason = st.segmented_control(
        "What beat the true match",
        reasons,
        format_func=lambda r: f"{r} ({counts.get(r, 0):,})",
        default=default,
        key=f"search_reason_{split}_{k}",
        required=True,
    )
    with st.container(key="quiet-search-reason"):
        shell.line(ALL_REASONS[str(reason)])
    part = found[found["reason"] == reason].reset_index(drop=True)
    failures_table.table(chosen, searcher, part, split, key=f"search_failed_{split}_{k}_{reason}")
    export.buttons(chosen, searcher.frame.loc[part["panel"]].join(part.set_index("panel")), f"missed-{split}")


def _failed(searcher: Searcher, panels: pd.DataFrame, split: str, k: int) -> pd.DataFrame:
    rows = np.flatnonzero((panels["split"] == split).to_numpy())
    i2t, t2i = panels["rank_i2t"].to_numpy(), panels["rank_t2i"].to_numpy()
    made = searcher.embedded
    known = Distant.of(searcher.model, searcher.data.panel_set) if isinstance(made, Mapped) else made
    return with_rivals(searcher, failures(known, i2t, t2i, rows, k=k), rows)
