"""The map: every panel a dot; lasso, click, color, filter; two checkpoints side by side; drift over epochs.

Everything that is asked of a map stands in the address (`app.parts.map_address`); widgets follow it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import streamlit as st

from app import components, shell
from app.charts import maps, theme
from app.parts import cards, filters, map_address, selection, waiting
from app.store import loaders, map_jobs
from app.views import map_column, map_controls, map_drift, map_parts
from stage3.cli import percent

CHART = "map-chart"
MODES = {"one": "One map", "two": "Side by side", "drift": "Drift"}
LAYOUTS = {"umap": "UMAP", "pca": "PCA"}
DRAWING = {"auto": "Automatic", "svg": "SVG", "webgl": "WebGL"}


def render() -> None:
    """Everything on one screen: controls, the map, and the column beside it."""
    chosen = shell.chosen()
    frame = shell.working("Reading the panels", loaders.panel_frame, chosen.run, chosen.step)
    if not len(loaders.embedded_rows(chosen.run, chosen.step)):
        shell.empty("No panel to draw", "The data set of this run has no panel with an image or a text.")
        return
    cards.prepare()
    notes: list[str] = []
    mode = map_address.one_of("mode", MODES, "one", notes)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute", key="map-head"):
        shell.heading("Map", "Every dot is a panel; nearby dots have similar embeddings.")
        st.session_state["map_mode"] = mode
        st.segmented_control(
            "What to show",
            list(MODES),
            format_func=MODES.__getitem__,
            key="map_mode",
            label_visibility="collapsed",
            required=True,
            on_change=shell.callback(
                lambda: shell.set_params(
                    mode=map_controls.unless(st.session_state["map_mode"], "one"), **{"with": None}
                )
            ),
        )
    if shell.param("with") is not None and mode != "two":
        notes.append("with in the address needs mode=two; one run is shown.")
    map_controls.say(notes, "quiet-map-mode-notes")
    if mode == "drift":
        map_drift.render(chosen, frame)
        return
    job = map_jobs.ensure(chosen.run, chosen.step)
    if job.state != "ready":
        waiting.show(map_jobs.map_path(chosen.run, chosen.step), job, chosen)
    if mode == "two":
        from app.views import map_compare  # it needs torch, and one map does not

        map_compare.render(chosen, frame)
    else:
        _one(chosen, frame)


# --- one map


@shell.fragment()
def _one(chosen: shell.Chosen, frame: pd.DataFrame) -> None:
    asked = controls(chosen, frame)
    shown, coloring = asked.shown, asked.coloring
    with st.container(key="map-board", horizontal=True, wrap=False, gap="small"):
        with st.container(key="map-left", gap="xxsmall"):
            _chart(chosen, asked)
        with st.container(border=True, key="card-map-column"):
            map_column.render(chosen, shown, coloring, map_parts.legend(chosen, shown, coloring))


@dataclass(frozen=True)
class Asked:
    """A map with how it is drawn: its coloring, "auto", "svg" or "webgl", and whether the chosen page is outlined."""

    shown: map_parts.Shown
    coloring: maps.Coloring
    drawing: str
    outline: bool


def controls(chosen: shell.Chosen, frame: pd.DataFrame) -> Asked:
    """One row of controls, the filters as chips, and what they ask for."""
    notes: list[str] = []
    stored = map_jobs.umap_map(chosen.run, chosen.step)
    joined = map_parts.joined(chosen, frame, stored)
    found = filters.asked(joined, notes)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="map-controls"):
        name = map_controls.color(map_parts.colorings(joined), notes)
        layouts = [name for name in LAYOUTS if stored is not None or name != "umap"]
        layout = map_address.one_of("layout", layouts, layouts[0], notes)
        map_controls.segments("Layout", "layout", {name: LAYOUTS[name] for name in layouts}, layout, layouts[0])
        map_controls.tool(notes)
        with st.popover("Filter", icon=":material/filter_alt:", help="Show only some panels"):
            filters.popover(chosen, joined, found)
        with st.popover("", icon=":material/tune:", help="How the map is drawn"):
            drawing = st.segmented_control(
                "Draw with",
                list(DRAWING),
                format_func=DRAWING.__getitem__,
                default="auto",
                key="map_drawing",
                required=True,
                help="WebGL is fast with many dots; SVG works on machines without it.",
            )
            outline = st.toggle("Outline chosen page", value=True, key="map_outline",
                                help="The outline of the page's panels, and their reading order as a path")  # fmt: skip
        filters.chips(found)
    xy, about = map_parts.positions(chosen, stored, layout)
    kept = filters.passing(found, joined)
    drawn = map_address.drawn(notes)
    picked = np.zeros(len(xy), bool)
    if drawn is not None:
        at, _ = map_parts.positions(chosen, stored, drawn.on)
        if drawn.on == "umap" and stored is None:
            notes.append("The selection was drawn on the UMAP map; it returns when that is ready.")
        elif drawn.on in LAYOUTS:
            picked = selection.caught(drawn, at) & kept
        else:
            notes.append("The selection was drawn on the right one of two maps; it returns side by side.")
    zoom = map_address.zoom(notes)
    window = map_parts.window_of(CHART, zoom, xy, st.session_state.pop("_moved", None) == 0)
    rows = loaders.embedded_rows(chosen.run, chosen.step)
    if shell.param("panel") is not None and not (rows == shell.int_param("panel")).any():
        notes.append(f"panel={shell.param('panel')!s:.20} in the address is not on this map.")
    map_address.one_of("tab", map_column.TABS, "panel", notes)
    shown = map_parts.Shown(joined, rows, xy, kept, layout, about, picked, map_parts.group_asked(joined, notes), window)
    map_controls.say(notes)
    return Asked(shown, maps.COLORINGS[name], drawing or "auto", bool(outline))


def _chart(chosen: shell.Chosen, asked: Asked) -> None:
    shown, coloring = asked.shown, asked.coloring
    at = map_parts.drawn_rows(shown, asked.drawing)
    if not len(at):
        shell.empty("No panel passes the filters", "Remove some of them above the map.")
        return
    webgl = asked.drawing == "webgl" or (asked.drawing == "auto" and len(at) > maps.SVG_MOST)
    focus = map_column.focus_row(shown) if asked.outline and map_column.tab() == "panel" else None
    figure = map_parts.figure_of(chosen, shown, coloring, at, focus=focus, webgl=webgl)

    def selected() -> None:
        selection.take(st.session_state.get("map-plot"), shown.layout, shown.rows, shown.xy)

    alt = f"{LAYOUTS[shown.layout]} map of {len(at):,} panels colored by {coloring.label.lower()}"
    with st.container(key=CHART, border=True):
        theme.show(figure, key="map-plot", alt=alt, on_select=selected, tools=True, fill=True)
    components.hover(CHART, lambda row: shell.thumb_url(chosen, row, 240), 240,
                     lambda page: shell.thumb_url(chosen, page, 360, "page"))  # fmt: skip
    components.zoom([CHART], key="hover-map-zoom", on_zoom=map_controls.zoomed)
    facts = [f"showing {len(at):,} of {len(shown.rows):,} panels", shown.about]
    if shown.layout == "umap":
        kept, cluster = shown.frame["trust"].to_numpy()[shown.kept], shown.frame["cluster_id"].to_numpy()[shown.kept]
        dim = loaders.frame(chosen.run, chosen.step).dim
        facts.append(f"{percent(np.nanmean(kept), 0)} of neighbors kept from {dim} dimensions")
        facts.append(f"{len(np.unique(cluster[cluster >= 0]))} clusters")
    if coloring.about and coloring.kind != "group":
        facts.append(coloring.about.rstrip("."))
    with st.container(key="quiet-map-facts"):
        st.text("  ·  ".join(facts))
