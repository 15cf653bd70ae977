"""The map: every panel a dot; lasso, click, color, filter; two checkpoints side by side; drift over epochs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from app import components, shell
from app.charts import maps, theme
from app.parts import export, gallery, panel, selection, waiting
from app.store import loaders, map_jobs
from app.store.cache import Memory
from app.views import map_compare, map_drift
from stage3.cli import percent
from stage3.projection.layouts import hull, stratified

CHART = "map-chart"
_figures: Memory[Any] = Memory(24)  # of up to 20,000 dots, half a megabyte each
MODES = {"one": "One map", "two": "Side by side", "drift": "Drift"}
FILTERS = {"book": "Books", "page_type": "Page types", "split": "Splits", "modality": "Modalities"}
LONG_LIST = 500  # values; a longer list is filtered by typing
TOOLS = {"pan": ":material/arrow_selector_tool: Click", "lasso": ":material/gesture: Lasso"}
TOOLS |= {"select": ":material/select: Box"}
DRAWING = {"auto": "Automatic", "svg": "SVG", "webgl": "WebGL"}


@dataclass(frozen=True)
class Shown:
    """A map as it was asked for: all panels with their positions, and which of them pass the filters.

    Attributes:
        frame: one row per embedded panel: the panel frame with cluster_id and trust (the share of neighbors kept).
        rows: (N,) panel rows.
        xy: (N, 2) positions.
        kept: (N,) bool, panels that pass the filters.
        about: which layout, in words.
    """

    frame: pd.DataFrame
    rows: np.ndarray
    xy: np.ndarray
    kept: np.ndarray
    about: str


def render() -> None:
    """Everything on one screen: controls, the map, the chosen panel, and below it the panels in the lasso."""
    chosen = shell.chosen()
    frame = shell.working("Reading the panels", loaders.panel_frame, chosen.run, chosen.step)
    if not len(loaders.embedded(chosen.run, chosen.step).rows):
        shell.empty("No panel to draw", "The data set of this run has no panel with an image or a text.")
        return
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute", key="map-head"):
        shell.heading("Map", "Every dot is a panel; nearby dots have similar embeddings.")
        mode = st.segmented_control(
            "What to show",
            list(MODES),
            format_func=MODES.__getitem__,
            default=_known(shell.param("mode"), MODES, "one"),
            key="map_mode",
            label_visibility="collapsed",
            required=True,
        )
    shell.set_params(mode=mode if mode != "one" else None)
    if mode == "drift":
        map_drift.render(chosen, frame)
        return
    job = map_jobs.ensure(chosen.run, chosen.step)
    if job.state != "ready":
        waiting.show(map_jobs.map_path(chosen.run, chosen.step), job, chosen)
    if mode == "two":
        map_compare.render(chosen, frame)
    else:
        _one(chosen, frame)


def _known(name: str | None, names: Any, default: str) -> str:
    return name if name is not None and name in names else default


# --- one map


@st.fragment
def _one(chosen: shell.Chosen, frame: pd.DataFrame) -> None:
    shown, coloring = controls(chosen, frame)
    left, right = st.columns([2.1, 1], gap="medium")
    with left:
        _chart(chosen, shown, coloring)
    with right, st.container(border=True, key="card-map-panel"):
        _panel(chosen, shown)
    _selection(chosen, shown, coloring)


def controls(chosen: shell.Chosen, frame: pd.DataFrame) -> tuple[Shown, maps.Coloring]:
    """One row of controls, and what they ask for."""
    stored = map_jobs.umap_map(chosen.run, chosen.step)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="map-controls"):
        names = [n for n, c in maps.COLORINGS.items() if stored is not None or c.column not in ("cluster_id", "trust")]
        key = f"map_color_{len(names)}"  # the list grows when the map is there; the address keeps the choice
        name = st.selectbox(
            "Color by",
            names,
            index=names.index(_known(shell.param("color"), names, "page")),
            format_func=lambda n: f"Color: {maps.COLORINGS[n].label}",
            key=key,
            on_change=lambda: shell.set_params(color=st.session_state[key]),
            label_visibility="collapsed",
            width=260,
        )
        layouts = ["UMAP", "PCA"] if stored is not None else ["PCA"]
        layout = st.segmented_control(
            "Layout",
            layouts,
            default=layouts[0],
            key=f"map_layout_{len(layouts)}",
            required=True,
            label_visibility="collapsed",
        )
        st.segmented_control(
            "Mouse",
            list(TOOLS),
            format_func=TOOLS.__getitem__,
            default="pan",
            key="map_tool",
            required=True,
            label_visibility="collapsed",
            help="Click: a click chooses a dot, dragging moves the map. Lasso and box select the panels inside",
        )
        with st.popover("Filter", icon=":material/filter_alt:", help="Show only some panels"):
            wanted = {column: _filter(chosen, frame, column, label) for column, label in FILTERS.items()}
        with st.popover("Drawing", icon=":material/tune:"):
            st.segmented_control(
                "Draw with",
                list(DRAWING),
                format_func=DRAWING.__getitem__,
                default="auto",
                key="map_drawing",
                required=True,
                help="WebGL is fast with many dots; SVG works on machines without it.",
            )
            st.toggle(
                "Outline chosen page",
                value=True,
                key="map_outline",
                help="The outline of the page's panels, and their reading order as a path",
            )
    return shown_map(chosen, frame, stored if layout == "UMAP" else None, stored, wanted), maps.COLORINGS[name]


def _filter(chosen: shell.Chosen, frame: pd.DataFrame, column: str, label: str) -> list[str]:
    key = ("values", column, *loaders.checkpoint_key(chosen.run, chosen.step))
    values: list[str] = loaders.remember(key, lambda: sorted(frame[column].unique().tolist()))
    if len(values) < 2:
        return []
    if len(values) > LONG_LIST:
        part = st.text_input(
            f"{label} containing", key=f"map_filter_{column}_part", placeholder="part of the name", max_chars=200
        )
        return [v for v in values if part.casefold() in v.casefold()] if part else []
    return st.multiselect(
        label, values, key=f"map_filter_{column}", placeholder="all", format_func=lambda v: v or "(none)"
    )


def shown_map(
    chosen: shell.Chosen,
    frame: pd.DataFrame,
    umap: pd.DataFrame | None,
    stored: pd.DataFrame | None,
    wanted: dict[str, list[str]],
) -> Shown:
    """Positions and filters put together; the joined frame is kept for the checkpoint."""
    rows = loaders.embedded(chosen.run, chosen.step).rows.numpy()

    def join() -> pd.DataFrame:
        # where every panel is on the map, the frame is shared, not copied
        joined = frame if np.array_equal(frame.index.to_numpy(), rows) else frame.loc[rows]
        extra = ("cluster_id", "trust")
        return joined.assign(**{c: stored[c].to_numpy() for c in extra}) if stored is not None else joined

    key = ("map frame", stored is not None, *loaders.checkpoint_key(chosen.run, chosen.step))
    joined = loaders.remember(key, join)
    if umap is not None:
        xy = umap[["umap_dim1", "umap_dim2"]].to_numpy(np.float32)
        about = "UMAP by cosine from exact neighbors"
    else:
        xy = map_jobs.pca_positions(chosen.run, chosen.step)
        about = "first two principal components"
    kept = np.ones(len(rows), bool)
    for column, values in wanted.items():
        if values:
            kept &= joined[column].isin(values).to_numpy()
    return Shown(joined, rows, xy, kept, about)


def drawn_rows(shown: Shown, webgl_or_auto: bool) -> np.ndarray:
    """Positions of the panels that are drawn: all that pass, or an even sample over books and pages."""
    passing = np.flatnonzero(shown.kept)
    most = maps.DRAWN_MOST if webgl_or_auto else maps.SVG_MOST
    if len(passing) <= most:
        return passing
    books = pd.factorize(shown.frame["book"])[0]
    return passing[stratified(books[passing], most)]


def _chart(chosen: shell.Chosen, shown: Shown, coloring: maps.Coloring) -> None:
    drawing = st.session_state.get("map_drawing", "auto")
    at = drawn_rows(shown, drawing != "svg")
    webgl = drawing == "webgl" or (drawing == "auto" and len(at) > maps.SVG_MOST)
    selection.offer(shown.rows[shown.kept], shown.xy[shown.kept])
    if not len(at):
        shell.empty("No panel passes the filters", "Remove some of them under Filter.")
        return
    picked, focus = selection.picked(chosen), focus_row(shown)
    if not st.session_state.get("map_outline", True):
        focus = None
    dim = 0.14
    if focus is not None and picked is None:
        picked, dim = np.asarray(list(panel.page_rows(chosen, int(shown.frame["page"][focus])))), 0.4
    if picked is None and focus is None:
        figure = _plain_figure(chosen, shown, coloring, at, webgl)
    else:
        figure = figure_of(shown, coloring, at, picked, dim=dim, webgl=webgl)
    if focus is not None:
        _outline(figure, shown, focus, webgl)
    name = "UMAP" if shown.about.startswith("UMAP") else "PCA"
    alt = f"{name} map of {len(at):,} panels colored by {coloring.label.lower()}"
    with st.container(key=CHART, border=True):
        theme.show(figure, key="map-plot", alt=alt, on_select=_on_select, tools=True)
    components.hover(CHART, lambda row: shell.thumb_url(chosen, row, 240), 240)
    facts = [f"showing {len(at):,} of {len(shown.rows):,} panels", shown.about]
    if "trust" in shown.frame and name == "UMAP":
        kept, cluster = shown.frame["trust"].to_numpy()[shown.kept], shown.frame["cluster_id"].to_numpy()[shown.kept]
        facts.append(f"{percent(np.nanmean(kept), 0)} of neighbors kept from {_dim(chosen)} dimensions")
        facts.append(f"{len(np.unique(cluster[cluster >= 0]))} clusters")
    if coloring.about and coloring.kind != "cycle":
        facts.append(coloring.about.rstrip("."))
    with st.container(key="quiet-map-facts"):
        st.text("  ·  ".join(facts))


def _dim(chosen: shell.Chosen) -> int:
    return int(loaders.embedded(chosen.run, chosen.step).panel.shape[1])


def _plain_figure(chosen: shell.Chosen, shown: Shown, coloring: maps.Coloring, at: np.ndarray, webgl: bool) -> Any:
    """The scatter without a selection, which is the same for all sessions that ask for it."""
    key = (*loaders.checkpoint_key(chosen.run, chosen.step), shown.about, coloring.label, "trust" in shown.frame)
    dots = hashlib.sha256(at.tobytes() + shown.xy[at].tobytes()).hexdigest()
    key = (*key, dots, webgl, st.session_state.get("map_tool"), theme.is_dark())
    return _figures.get(key, lambda: figure_of(shown, coloring, at, None, dim=1.0, webgl=webgl))


def figure_of(
    shown: Shown, coloring: maps.Coloring, at: np.ndarray, picked: np.ndarray | None, *, dim: float, webgl: bool
) -> Any:
    """The scatter of some positions of a map."""
    columns = ["page_id", "order", "n_panels", coloring.column]
    part = shown.frame[list(dict.fromkeys(columns))].iloc[at]
    hover = None
    if len(at) <= maps.HOVER_TEXT_MOST:
        about = (part["page_id"], part["order"], part["n_panels"])
        hover = [f"{theme.safe(p, 40)} · {o + 1}/{n}" for p, o, n in zip(*about, strict=True)]
    marked = None if picked is None else np.isin(shown.rows[at], picked)
    tool = st.session_state.get("map_tool", "pan")
    colored = part[coloring.column]
    return maps.scatter(
        shown.rows[at], shown.xy[at], colored, coloring, hover=hover, picked=marked, dim=dim, webgl=webgl, tool=tool
    )


def _outline(figure: Any, shown: Shown, focus: int, webgl: bool) -> None:
    page = shown.frame["page"].to_numpy()
    where = np.flatnonzero(shown.rows == focus)[0]
    mates = np.flatnonzero(page == page[where])
    xy = shown.xy[mates]
    maps.add_page(figure, xy, hull(xy), int(np.flatnonzero(mates == where)[0]), webgl=webgl)


# --- selection


def _on_select() -> None:
    selection.take(st.session_state.get("map-plot"))


def focus_row(shown: Shown) -> int | None:
    """The panel that the address names, if it is on the map."""
    row = shell.int_param("panel")
    return row if row is not None and (shown.rows == row).any() else None


def _selection(chosen: shell.Chosen, shown: Shown, coloring: maps.Coloring) -> None:
    picked = selection.picked(chosen)
    if picked is None:
        return
    part = shown.frame.loc[picked[np.isin(picked, shown.rows)]]
    order = "in reading order"
    if coloring.kind == "number" and coloring.column in part:
        part = part.sort_values(coloring.column, ascending=False, na_position="last", kind="stable")
        order = f"highest first: {coloring.label.lower()}"
    st.divider()
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.subheader(f"{len(part):,} panels selected", anchor=False, help="All panels inside the lasso, drawn or not")
        with st.container(horizontal=True, vertical_alignment="center", width="content"):
            export.buttons(chosen, part, "map-selection")
            st.button("Clear", icon=":material/close:", on_click=selection.clear, key="map-clear")
    with st.container(key="quiet-map-order"):
        st.text(f"{order}  ·  {part['page'].nunique():,} pages  ·  {part['book'].nunique():,} books")
    gallery.panels(
        chosen,
        shown.frame,
        part.index.tolist(),
        key="map-selection",
        per_page=24,
        width=150,
        actions={":material/center_focus_strong:": panel.focus_on},
    )


# --- the chosen panel


def _panel(chosen: shell.Chosen, shown: Shown) -> None:
    row = focus_row(shown)
    if row is None:
        _hint(shown)
        return
    frame = shown.frame
    page = int(frame["page"][row])
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.subheader("Chosen panel", anchor=False)
        st.button("", icon=":material/close:", on_click=panel.focus_on, args=(None,), key="map-unfocus", help="Close")
    shell.line(panel.title_of(frame, row))
    image, real = panel.page_image(chosen, page, int(frame["order"][row]), 640)
    with st.container(horizontal_alignment="center"):
        st.image(image, width=300, alt=f"The page with {int(frame['n_panels'][row])} numbered panels")
    if not real:
        with st.container(key="quiet-map-missing"):
            st.text("The image of this page is missing; this is its layout.")
    shell.line(panel.words(frame, row, 280))
    with st.container(horizontal=True, gap="small"):
        st.button(
            "Open page",
            icon=":material/auto_stories:",
            key="map-open",
            type="primary",
            on_click=shell.go,
            args=("page",),
            kwargs={"page": page, "panel": row},
        )
        st.button(
            "Search with it",
            icon=":material/search:",
            key="map-search",
            on_click=shell.go,
            args=("search",),
            kwargs={"panel": row},
        )
    kept = float(frame["trust"][row]) if "trust" in frame else float("nan")
    if not np.isnan(kept):
        shell.line(f"Neighbors kept on the map: {percent(kept, 0)} of the 15 nearest")
    panel.show_gate(frame, row)
    panel.show_measures(frame, row, "map-measures")
    st.markdown("**Nearest panels**", help="By cosine in the full space, not on the map. A check mark: same page.")
    panel.show_neighbors(chosen, frame, row, key="map")


def _hint(shown: Shown) -> None:
    st.subheader("Look closer", anchor=False)
    st.markdown(
        "- **Point** at a dot to see its panel.\n- **Click** a dot for its page, losses and neighbors.\n"
        "- **Lasso** dots to see them together and to export them.\n"
        "- **Scroll** to zoom, drag to move, double-click to reset."
    )
    facts = {
        "Panels": f"{len(shown.rows):,}",
        "Pages": f"{shown.frame['page'].nunique():,}",
        "Books": f"{shown.frame['book'].nunique():,}",
    }
    with st.container(horizontal=True):
        for name, value in facts.items():
            st.metric(name, value)
