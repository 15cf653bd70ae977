"""Two checkpoints or runs side by side, on the panels that both hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from app import components, shell
from app.charts import maps, theme
from app.parts import gallery, panel, selection, waiting
from app.store import loaders, map_jobs
from stage3.cli import percent
from stage3.metrics import neighbors
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
    asked = shell.param("with")
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
    return shell.Chosen(run.id, run.run, step, run.is_sample)


def common(a: shell.Chosen, b: shell.Chosen) -> tuple[np.ndarray, np.ndarray]:
    """Positions among the embedded panels of each side that are the same panels, by id."""

    def make() -> tuple[np.ndarray, np.ndarray]:
        ids = []
        for side in (a, b):
            rows = loaders.embedded(side.run, side.step).rows.numpy()
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
        pages = data.page_of_panel[loaders.embedded(a.run, a.step).rows.numpy()[here]]
        sample = layouts.stratified(data.book_of_page[pages], MOST_COMPARED)
        here, there = here[sample], there[sample]
        x = loaders.embedded(a.run, a.step).panel.numpy()[here]
        y = loaders.embedded(b.run, b.step).panel.numpy()[there]
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


@st.fragment
def _body(
    chosen: shell.Chosen,
    frame: pd.DataFrame,
    other: shell.Chosen,
    here: np.ndarray,
    there: np.ndarray,
    kept: np.ndarray,
) -> None:
    names = [n for n, c in maps.COLORINGS.items() if c.column not in ("cluster_id", "trust")]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium", key="map-pair-controls"):
        name = st.selectbox(
            "Color by",
            ["overlap", *names],
            key="map_pair_color",
            width=230,
            format_func=lambda n: "Neighbors in common" if n == "overlap" else maps.COLORINGS[n].label,
        )
        chance = min(1.0, NEIGHBORS / max(len(here) - 1, 1))
        st.metric(
            "Neighbors in common",
            percent(np.nanmean(kept), 0),
            width=180,
            help=f"Mean share of the {NEIGHBORS} nearest panels that both have; {percent(chance)} by chance",
        )
        st.metric("Panels compared", f"{len(here):,}", width=150, help="Panels that both runs embed, matched by id")
    rows = loaders.embedded(chosen.run, chosen.step).rows.numpy()[here]
    rows_there = loaders.embedded(other.run, other.step).rows.numpy()[there]
    both = _positions(chosen, other, here, there)
    columns = st.columns(2, gap="medium")
    sides = ((chosen, rows, both[0], both[2]), (other, rows_there, both[1], both[2]))
    for i, (side, own, xy, layout) in enumerate(sides):
        with columns[i]:
            values = _values(side, frame if i == 0 else None, own, name, kept)
            _side(chosen, side, rows, own, xy, layout, values, name, i)
    worst = rows[np.argsort(kept, kind="stable")[:12]]
    st.subheader("Panels whose neighbors changed most", anchor=False)
    share = dict(zip(rows.tolist(), kept.tolist(), strict=True))
    gallery.panels(
        chosen,
        frame,
        worst,
        key="map-moved",
        per_page=12,
        width=130,
        captions=lambda r: f"{percent(share[r], 0)} in common",
    )


def _positions(
    a: shell.Chosen, b: shell.Chosen, here: np.ndarray, there: np.ndarray
) -> tuple[np.ndarray, np.ndarray, str]:
    """Both layouts, the second turned onto the first: UMAP where both have it, else PCA."""
    maps_of = [map_jobs.umap_map(side.run, side.step) for side in (a, b)]
    if maps_of[0] is not None and maps_of[1] is not None:
        columns = ["umap_dim1", "umap_dim2"]
        first, second = maps_of[0][columns].to_numpy()[here], maps_of[1][columns].to_numpy()[there]
        return first, layouts.aligned(second, first), "UMAP"
    first = map_jobs.pca_positions(a.run, a.step)[here]
    second = map_jobs.pca_positions(b.run, b.step)[there]
    return first, layouts.aligned(second, first), "PCA"


def _values(
    side: shell.Chosen, frame: pd.DataFrame | None, own: np.ndarray, name: str, kept: np.ndarray
) -> pd.Series[Any]:
    if name == "overlap":
        return pd.Series(kept, name="overlap")
    frame = loaders.panel_frame(side.run, side.step) if frame is None else frame
    return frame[maps.COLORINGS[name].column].loc[own].reset_index(drop=True)


def _side(
    chosen: shell.Chosen,
    side: shell.Chosen,
    rows: np.ndarray,
    own: np.ndarray,
    xy: np.ndarray,
    layout: str,
    values: pd.Series[Any],
    name: str,
    place: int,
) -> None:
    coloring = maps.OVERLAP if name == "overlap" else maps.COLORINGS[name]
    focus = shell.int_param("panel")
    picked = np.isin(rows, _same_page(chosen, focus)) if focus is not None and (rows == focus).any() else None
    with st.container(key=f"quiet-map-side-{place}"):
        st.text(f"{side.id}  ·  step {side.step}  ·  {layout}{'' if place == 0 else ', aligned with the left map'}")
    figure = maps.scatter(rows, xy, values, coloring, picked=picked, webgl=len(rows) > maps.SVG_MOST, height=480)
    chart = f"map-side-{place}"
    with st.container(key=chart, border=True):
        theme.show(
            figure,
            key=f"{chart}-plot",
            alt=f"{layout} map of {len(rows):,} panels of run {side.id}",
            on_select=_click,
            selection_mode=("points",),
            tools=True,
        )
    components.hover(chart, lambda row: shell.thumb_url(chosen, row, 240), 220)


def _same_page(chosen: shell.Chosen, row: int) -> np.ndarray:
    table = loaders.open_dataset(chosen.run).table
    return np.fromiter(panel.page_rows(chosen, int(table.page_of_panel[row])), dtype=np.int64)


def _click() -> None:
    """A click on either map marks that panel's page on both."""
    for place in (0, 1):
        row = selection.clicked(st.session_state.get(f"map-side-{place}-plot"))
        if row is not None:
            panel.focus_on(row)
            return
