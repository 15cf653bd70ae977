"""Two checkpoints or runs side by side, on the panels that both hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
import torch

from app import components, shell
from app.charts import maps, theme
from app.parts import cards, filters, map_address, selection, waiting
from app.store import loaders, map_jobs
from app.views import map_column, map_controls, map_parts
from stage3.cli import percent
from stage3.metrics import neighbors
from stage3.model.distant import take
from stage3.projection import layouts

MOST_COMPARED = 20_000
NEIGHBORS = 15


def render(chosen: shell.Chosen, frame: pd.DataFrame) -> None:
    """Choose the other side, then show both."""
    other = _other(chosen)
    if other is None:
        shell.empty(
            "Nothing to compare with",
            "This run has one checkpoint and there is no other run. Train it again with other settings under Retrain.",
        )
        return
    _pair(chosen, frame, other)


def _other(chosen: shell.Chosen) -> shell.Chosen | None:
    """The run and checkpoint on the right, from two lists; the address keeps them."""
    entries = [e for e in loaders.entries() if loaders.steps(e.run)]
    options = [e.id for e in entries if e.id != chosen.id or len(loaders.steps(e.run)) > 1]
    if not options:
        return None
    asked = shell.param("with") or st.session_state.get("_map_with")
    if shell.param("with") and asked not in options:
        shell.unused("with", "is no other run with a checkpoint; another one is shown.")
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="map-with"):
        start = (
            options.index(asked) if asked in options else next((i for i, o in enumerate(options) if o != chosen.id), 0)
        )
        name = st.selectbox("Compare with", options, index=start, key="map_with", width=330)
        run = next(e for e in entries if e.id == name)
        steps = [s for s in loaders.steps(run.run) if name != chosen.id or s != chosen.step]
        best = run.run.best()
        default = steps.index(best.step) if best and best.step in steps else len(steps) - 1
        step = st.selectbox(
            "Checkpoint",
            steps,
            index=default,
            key=f"map_with_step_{name}",
            format_func=lambda s: f"step {s}",
            width=170,
        )
    shell.set_params(**{"with": name})
    st.session_state["_map_with"] = name
    return shell.Chosen(run.id, run.run, step, run.is_sample)


def common(a: shell.Chosen, b: shell.Chosen) -> tuple[np.ndarray, np.ndarray]:
    """Positions among the embedded panels of each side that are the same panels, by id."""

    def make() -> tuple[np.ndarray, np.ndarray]:
        ids = []
        for side in (a, b):
            rows = loaders.embedded_rows(side.run, side.step)
            ids.append(pd.Index(loaders.open_dataset(side.run).table.panels["panel_id"].iloc[rows]))
        place = ids[1].get_indexer(ids[0])
        here = np.flatnonzero(place >= 0)
        return here, place[here]

    return loaders.remember(("common", *_keys(a, b)), make)  # type: ignore[no-any-return]


def _keys(a: shell.Chosen, b: shell.Chosen) -> tuple[Any, ...]:
    return (*loaders.checkpoint_key(a.run, a.step), *loaders.checkpoint_key(b.run, b.step))


def overlap(a: shell.Chosen, b: shell.Chosen) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions in a, positions in b, and the share of neighbors that each of these panels keeps."""

    def make() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        here, there = common(a, b)
        data = loaders.open_dataset(a.run).table
        pages = data.page_of_panel[loaders.embedded_rows(a.run, a.step)[here]]
        sample = layouts.stratified(data.book_of_page[pages], MOST_COMPARED)
        here, there = here[sample], there[sample]
        x = take(loaders.embedded(a.run, a.step), torch.from_numpy(here)).panel.numpy()
        y = take(loaders.embedded(b.run, b.step), torch.from_numpy(there)).panel.numpy()
        return here, there, neighbors.neighbor_overlap(x, y, NEIGHBORS)

    return loaders.remember(("overlap", *_keys(a, b)), make)  # type: ignore[no-any-return]


def _pair(chosen: shell.Chosen, frame: pd.DataFrame, other: shell.Chosen) -> None:
    here, there, kept = shell.working("Comparing neighbors", overlap, chosen, other)
    if len(here) < 2:
        shell.empty(
            "No panel in common", "The two runs were trained on different panels. Choose a run on the same data."
        )
        return
    job = map_jobs.ensure(other.run, other.step)
    if job.state != "ready":
        waiting.show(map_jobs.map_path(other.run, other.step), job, other)
    _body(chosen, frame, other, here, there, kept)


@shell.fragment()
def _body(
    chosen: shell.Chosen,
    frame: pd.DataFrame,
    other: shell.Chosen,
    here: np.ndarray,
    there: np.ndarray,
    kept: np.ndarray,
) -> None:
    notes: list[str] = []
    stored = map_jobs.umap_map(chosen.run, chosen.step)
    joined = map_parts.joined(chosen, frame, stored).iloc[here].assign(overlap=kept)
    joined.attrs["of"] = (joined.attrs.get("of"), *_keys(chosen, other))  # the panels that both hold
    found = filters.asked(joined, notes)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="map-controls"):
        name = map_controls.color(map_parts.colorings(joined), notes, {"overlap": maps.OVERLAP})
        map_controls.tool(notes)
        with st.popover("Filter", icon=":material/filter_alt:", help="Show only some panels"):
            filters.popover(chosen, joined, found)
        filters.chips(found)
    first, second, layout = _positions(chosen, other, here, there)
    passing, drawn = filters.passing(found, joined), map_address.drawn(notes)
    picked = np.zeros(len(here), bool)
    if drawn is not None and drawn.on in (layout, "right"):
        picked = selection.caught(drawn, second if drawn.on == "right" else first) & passing
    zoom, both = map_address.zoom(notes), np.vstack([first, second])
    moved = st.session_state.pop("_moved", None)
    rows = loaders.embedded_rows(chosen.run, chosen.step)[here]
    coloring = maps.OVERLAP if name == "overlap" else maps.COLORINGS[name]
    about = layout.upper()
    group = map_parts.group_asked(joined, notes)
    window = map_parts.window_of("side-0", zoom, both, moved == 0)
    left = map_parts.Shown(joined, rows, first, passing, layout, about, picked, group, window)
    right = replace(left, xy=second, window=map_parts.window_of("side-1", zoom, both, moved == 1))
    map_controls.say(notes)
    legend = map_parts.legend(chosen, left, coloring)
    with st.container(key="map-board", horizontal=True, wrap=False, gap="small"):
        with st.container(key="map-left", gap="xxsmall"):
            with st.container(key="map-pair", horizontal=True, wrap=False, gap="small"):
                for i, (side, shown) in enumerate(((chosen, left), (other, right))):
                    values = joined[coloring.column] if i == 0 else _values(other, there, joined, coloring)
                    _side(chosen, side, shown, coloring, values, i)
            with st.container(key="quiet-map-facts"):
                st.text("  ·  ".join(_facts(coloring, about)))
        with st.container(border=True, key="card-map-column"):
            map_column.render(chosen, left, coloring, legend, lambda: _start(chosen, left, kept))
    components.zoom(["map-side-0", "map-side-1"], key="hover-map-zoom", on_zoom=map_controls.zoomed)


def _facts(coloring: maps.Coloring, about: str) -> list[str]:
    facts = [f"{about}, the right map aligned with the left one"]
    if coloring.kind == "group":
        facts.append("groups are those of the left run on both maps")
    return [*facts, coloring.about.rstrip(".")] if coloring.about else facts


def _start(chosen: shell.Chosen, shown: map_parts.Shown, kept: np.ndarray) -> None:
    """What the comparison says as a whole: neighbors in common, and the panels that changed most."""
    chance = min(1.0, NEIGHBORS / max(len(kept) - 1, 1))
    with st.container(horizontal=True, gap="medium"):
        st.metric(
            "Neighbors in common",
            percent(np.nanmean(kept), 0),
            width=180,
            help=f"Mean share of the {NEIGHBORS} nearest panels that both have; {percent(chance)} by chance",
        )
        st.metric("Panels compared", f"{len(kept):,}", width=150, help="Panels that both runs embed, matched by id")
    st.markdown("**Neighbors changed most**", help="Click one to see its page on both maps")
    worst = shown.frame.iloc[np.argsort(kept, kind="stable")[: map_column.CARDS]]
    items = [
        map_column.card(worst, int(row)) | {"note": f"{percent(share, 0)} in common"}
        for row, share in zip(worst.index, worst["overlap"], strict=True)
    ]
    cards.cards(chosen, items, "compact", key="map-moved", on_query=selection.choose, hint="Show this panel")


def _positions(
    a: shell.Chosen, b: shell.Chosen, here: np.ndarray, there: np.ndarray
) -> tuple[np.ndarray, np.ndarray, str]:
    """Both layouts, the second turned onto the first: UMAP where both have it, else PCA."""
    stored = [map_jobs.umap_map(side.run, side.step) for side in (a, b)]
    layout = "umap" if stored[0] is not None and stored[1] is not None else "pca"
    made = [None if s is None else s.attrs["key"] for s in stored]

    def make() -> tuple[np.ndarray, np.ndarray]:
        first, second = (map_parts.positions(side, s, layout)[0] for side, s in zip((a, b), stored, strict=True))
        return first[here], layouts.aligned(second[there], first[here])

    return (*loaders.remember(("pair", layout, *made, *_keys(a, b)), make), layout)


def _values(other: shell.Chosen, there: np.ndarray, joined: pd.DataFrame, coloring: maps.Coloring) -> pd.Series[Any]:
    """What colors the right map: its own numbers, but the groups of the left run, so that they can be followed."""
    if coloring.kind != "number" or coloring.column == "overlap":
        return joined[coloring.column]
    frame = loaders.panel_frame(other.run, other.step)
    rows = loaders.embedded_rows(other.run, other.step)[there]
    if coloring.column not in frame:  # of the map, such as the neighbors kept
        stored = map_jobs.umap_map(other.run, other.step)
        own = np.full(len(rows), np.nan) if stored is None else stored[coloring.column].to_numpy()[there]
        return pd.Series(own, index=joined.index, name=coloring.column)
    return pd.Series(frame[coloring.column].loc[rows].to_numpy(), index=joined.index, name=coloring.column)


def _side(
    chosen: shell.Chosen,
    side: shell.Chosen,
    shown: map_parts.Shown,
    coloring: maps.Coloring,
    values: pd.Series[Any],
    place: int,
) -> None:
    at = map_parts.drawn_rows(shown, "auto")
    focus = map_column.focus_row(shown) if map_column.tab() == "panel" else None
    figure = map_parts.figure_of(
        chosen, shown, coloring, at, values=values, focus=focus, webgl=len(at) > maps.SVG_MOST,
        rings=shown.picked if shown.picked.any() else None, labels=place == 0,
    )  # fmt: skip
    chart = f"map-side-{place}"

    def selected() -> None:
        on = shown.layout if place == 0 else "right"
        selection.take(st.session_state.get(f"{chart}-plot"), on, shown.rows, shown.xy)

    with st.container(key=f"map-half-{place}", gap="xxsmall"):
        with st.container(key=f"quiet-map-side-{place}"):
            st.text(f"{side.id}  ·  step {side.step}")
        with st.container(key=chart, border=True):
            theme.show(
                figure,
                key=f"{chart}-plot",
                alt=f"{shown.about} map of {len(at):,} panels of run {side.id}",
                on_select=selected,
                tools=True,
                fill=True,
            )
    components.hover(chart, lambda row: shell.thumb_url(chosen, row, 240), 220,
                     lambda page: shell.thumb_url(chosen, page, 360, "page"))  # fmt: skip
