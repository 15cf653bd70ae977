"""What the map views share: the panels with their positions, what is asked of them, and the figure of a map."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from app import shell
from app.charts import map_marks, maps, theme
from app.parts import map_address, panel
from app.store import loaders, map_jobs
from app.store.cache import Memory
from stage3.projection.layouts import stratified
from stage3.projection.marks import group_means, label_zooms, middle

_figures: Memory[Any] = Memory(24)  # of up to 20,000 dots, half a megabyte each
HULLS_MOST = 40  # pages; more are drawn as their means
RINGS_MOST = 2000
GROUPS = {"cluster_name": "cluster", "page": "page", "book": "book", "page_type": "type", "modality": "modality",
          "split": "split"}  # fmt: skip


@dataclass(frozen=True)
class Shown:
    """A map as it was asked for: all panels with their positions, and which of them pass the filters.

    Attributes:
        frame: one row per embedded panel: the panel frame with umap_x, umap_y, cluster_id, cluster_name and trust
            (the share of neighbors kept) where UMAP is there.
        rows: (N,) panel rows.
        xy: (N, 2) positions.
        kept: (N,) bool, panels that pass the filters.
        layout: "umap" or "pca".
        about: the layout in words.
        picked: (N,) bool, panels inside of what was drawn that pass the filters.
        group: (column, value as text) of the group that is looked at, or None.
        window: the part of the map that is shown.
    """

    frame: pd.DataFrame
    rows: np.ndarray
    xy: np.ndarray
    kept: np.ndarray
    layout: str
    about: str
    picked: np.ndarray
    group: tuple[str, str] | None
    window: maps.Window

    @property
    def members(self) -> np.ndarray:
        """(N,) bool, panels of the group that pass the filters."""
        if self.group is None:
            return np.zeros(len(self.rows), bool)
        column, value = self.group
        found: np.ndarray = (self.frame[column].astype(str) == value).to_numpy() & self.kept
        return found


def joined(chosen: shell.Chosen, frame: pd.DataFrame, stored: pd.DataFrame | None) -> pd.DataFrame:
    """The panel frame with what a map adds, kept for the checkpoint.

    What is kept of the frame has `attrs["of"]` in its key: another map of the same checkpoint has other clusters.
    """
    rows = loaders.embedded_rows(chosen.run, chosen.step)

    def join() -> pd.DataFrame:
        # where every panel is on the map, the frame is shared, not copied
        part = frame if np.array_equal(frame.index.to_numpy(), rows) else frame.loc[rows]
        if stored is None:
            return part
        names = {"umap_dim1": "umap_x", "umap_dim2": "umap_y"}
        extra = ("umap_dim1", "umap_dim2", "cluster_id", "cluster_name", "trust")
        both = part.assign(**{names.get(c, c): stored[c].to_numpy() for c in extra})
        both.attrs["of"] = made
        return both

    made = None if stored is None else stored.attrs["key"]
    found: pd.DataFrame = loaders.remember(("map frame", made, *loaders.checkpoint_key(chosen.run, chosen.step)), join)
    return found


def positions(chosen: shell.Chosen, stored: pd.DataFrame | None, layout: str) -> tuple[np.ndarray, str]:
    """(N, 2) positions and what they are, in words."""
    if layout == "umap" and stored is not None:
        return stored[["umap_dim1", "umap_dim2"]].to_numpy(np.float32), "UMAP by cosine from exact neighbors"
    return map_jobs.pca_positions(chosen.run, chosen.step), "first two principal components"


def group_asked(frame: pd.DataFrame, notes: list[str]) -> tuple[str, str] | None:
    """The group that the address names, `group=column:value`; one that is not there is noted."""
    text = shell.param("group")
    if text is None:
        return None
    column, _, value = text.partition(":")
    if column in GROUPS and column in frame and (frame[column].astype(str) == value).any():
        return column, value
    notes.append(f"group={text[:60]} in the address is not among these panels.")
    return None


def colorings(frame: pd.DataFrame) -> list[str]:
    """The colorings whose numbers are there."""
    return [name for name, coloring in maps.COLORINGS.items() if coloring.column in frame]


# --- which part is shown


def level_of(window: maps.Window, full: maps.Window) -> int:
    """How far the map is zoomed in, in doublings."""
    spans = [max(w[1] - w[0], w[3] - w[2]) for w in (window, full)]
    return max(0, round(math.log2(max(spans[1], 1e-12) / max(spans[0], 1e-12))))


def window_of(name: str, zoom: map_address.Zoom | None, xy: np.ndarray, moved: bool) -> maps.Window:
    """The part of the map to draw.

    The browser shows a zoom at once. Drawing the same dots again would only jump back and forth while a person still
    turns the wheel; so the figure stays as it was drawn until another level of names is due or something else changes.

    Args:
        name: of the chart.
        zoom: of the address.
        xy: (N, 2) positions of all panels.
        moved: whether this run only follows a zoom of this chart.
    """
    full = maps.whole(xy)
    wanted = zoom or full
    before = st.session_state.get(f"_window_{name}")
    if moved and before is not None and level_of(before, full) == level_of(wanted, full):
        return before  # type: ignore[no-any-return]
    st.session_state[f"_window_{name}"] = wanted
    st.session_state["_map_height"] = st.session_state.get("_map_next_height", 620)
    return wanted


# --- the figure


def drawn_rows(shown: Shown, drawing: str) -> np.ndarray:
    """Positions of the panels that are drawn: all that pass, or an even sample over books and pages."""
    passing = np.flatnonzero(shown.kept)
    most = maps.SVG_MOST if drawing == "svg" else maps.DRAWN_MOST
    if len(passing) <= most:
        return passing
    books = pd.factorize(shown.frame["book"])[0]
    return passing[stratified(books[passing], most)]


def legend(chosen: shell.Chosen, shown: Shown, coloring: maps.Coloring) -> maps.Legend | None:
    """Groups and colors of all panels, whatever passes the filters, so that a filter recolors nothing."""
    if coloring.kind != "group":
        return None
    about = (coloring.column, shown.layout, theme.is_dark(), shown.frame.attrs.get("of"))
    key = ("legend", *about, *loaders.checkpoint_key(chosen.run, chosen.step))
    found: maps.Legend = loaders.remember(key, lambda: maps.legend_of(shown.frame[coloring.column], shown.xy))
    return found


def figure_of(
    chosen: shell.Chosen,
    shown: Shown,
    coloring: maps.Coloring,
    at: np.ndarray,
    *,
    values: pd.Series[Any] | None = None,
    focus: int | None = None,
    webgl: bool = False,
    rings: np.ndarray | None = None,
    labels: bool = True,
) -> Any:
    """A map with what stands on it.

    Args:
        chosen: the run.
        shown: the map.
        coloring: of the dots.
        at: positions of the panels to draw.
        values: (N,) what colors them, if it is no column of the frame.
        focus: panel row whose page stands out.
        webgl: draw with WebGL.
        rings: (N,) bool, panels with a ring around them.
        labels: draw names of clusters.
    """
    column = shown.frame[coloring.column] if values is None else values
    picked, dim = _standing_out(chosen, shown, focus)
    if rings is not None:
        picked = None
    tool = shell.param("tool") or "pan"
    drawing: dict[str, Any] = {"picked": None if picked is None else picked[at], "dim": dim, "webgl": webgl}
    drawing |= {"height": st.session_state.get("_map_height", 620)}
    drawing |= {
        "tool": tool if tool in ("pan", "lasso", "select") else "pan",
        "legend": legend(chosen, shown, coloring),
        "zoomed": shown.window != maps.whole(shown.xy),
    }

    named = labels and focus is None and coloring.kind == "group"

    def plain() -> Any:
        hover = _hover(shown, coloring, column, at) if len(at) <= maps.HOVER_TEXT_MOST else None
        part = column.iloc[at]
        figure = maps.scatter(shown.rows[at], shown.xy[at], part, coloring, shown.window, hover=hover, **drawing)
        if coloring.kind == "page":
            _pages(figure, shown, at)
        if named:
            _labels(figure, shown, coloring, drawing["legend"])
        return figure

    if picked is None and focus is None and rings is None and values is None:
        return _figures.get((*_figure_key(chosen, shown, coloring, at, drawing), named), plain)
    figure = plain()
    if rings is not None and rings.any():
        map_marks.add_rings(figure, shown.xy[np.flatnonzero(rings)[:RINGS_MOST]], webgl=webgl)
    if focus is not None:
        page = shown.frame["page"].to_numpy()
        where = int(np.flatnonzero(shown.rows == focus)[0])
        mates = np.flatnonzero(page == page[where])
        place = int(np.flatnonzero(mates == where)[0])
        map_marks.add_page(figure, shown.xy[mates], place, shown.window, webgl=webgl)
    return figure


def _figure_key(chosen: shell.Chosen, shown: Shown, coloring: maps.Coloring, at: np.ndarray, drawing: Any) -> Any:
    dots = hashlib.sha256(at.tobytes() + shown.xy[at].tobytes()).hexdigest()
    key = (coloring.label, shown.window, shown.frame.attrs.get("of"), drawing["webgl"], drawing["tool"],
           theme.is_dark(), drawing["height"])  # fmt: skip
    return (*loaders.checkpoint_key(chosen.run, chosen.step), *key, dots)


def _standing_out(chosen: shell.Chosen, shown: Shown, focus: int | None) -> tuple[np.ndarray | None, float]:
    """Which panels stand out, and the opacity of the others: the group looked at, else the selection, else the page."""
    if shell.param("tab") == "group" and (members := shown.members).any():
        return members, 0.14
    if shown.picked.any():
        return shown.picked, 0.14
    if focus is not None:
        return np.isin(shown.rows, panel.page_rows(chosen, int(shown.frame["page"][focus]))), 0.4
    return None, 1.0


def _hover(shown: Shown, coloring: maps.Coloring, column: pd.Series[Any], at: np.ndarray) -> list[str]:
    part = shown.frame[["page_id", "order", "n_panels"]].iloc[at]
    told = column.iloc[at].tolist()
    lines = []
    for page, order, n, value in zip(part["page_id"], part["order"], part["n_panels"], told, strict=True):
        shown_value = f"{value:.3g}" if isinstance(value, float) else str(value)
        more = f"\n{coloring.label}: {shown_value or '(none)'}" if coloring.kind != "page" else ""
        lines.append(f"{page} · {order + 1}/{n}{more}")
    return lines


def _pages(figure: Any, shown: Shown, at: np.ndarray) -> None:
    page, xy = shown.frame["page"].to_numpy()[at], shown.xy[at]
    found = group_means(xy, page)
    if len(found.number) <= HULLS_MOST:
        map_marks.add_page_hulls(figure, xy, page)
    first = pd.Series(shown.frame["page_id"].iloc[at].to_numpy(), index=page).groupby(level=0).first()
    x0, x1, *_ = maps.whole(shown.xy)
    map_marks.add_page_means(figure, found, first.loc[found.number].tolist(), x1 - x0)


def _labels(figure: Any, shown: Shown, coloring: maps.Coloring, found: maps.Legend | None) -> None:
    """Names of the groups: the largest at first, more with each doubling of the zoom, none over another."""
    if found is None:
        return
    kinds, values = pd.factorize(shown.frame[coloring.column], use_na_sentinel=False)
    code = pd.Index(found.names).get_indexer(pd.Index(values.astype(str)))[kinds]
    full = maps.whole(shown.xy)
    names, colors, places = [], [], []
    for i, (name, color) in enumerate(zip(found.names, found.colors, strict=True)):
        own = (code == i) & shown.kept
        if own.any() and name:
            names.append(name)
            colors.append(color)
            places.append(middle(shown.xy[own]))
    if not names:
        return
    xy = np.array(places)
    zooms = label_zooms(xy, map_marks.label_sizes(names, full))
    visible = np.flatnonzero(zooms <= 2 ** level_of(shown.window, full))
    map_marks.add_labels(figure, xy[visible], [names[i] for i in visible], [colors[i] for i in visible])
