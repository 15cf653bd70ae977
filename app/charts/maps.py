"""Maps of panels: how a dot is colored, and the figure of dots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from app.charts import names, theme

SVG_MOST = 5_000
DRAWN_MOST = 20_000
# In this order colors that follow each other differ most, also for protanopic and deuteranopic eyes.
CYCLE_LIGHT = ("#0072B2", "#B0A030", "#332288", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9", "#117733")
CYCLE_DARK = ("#3B9BE0", "#DDD26A", "#A79BFF", "#3FBF6A", "#9ADBFF", "#FF7A33", "#E39CC3", "#F0B23A")
SYMBOLS = (0, 2, 1)  # circle, diamond, square: a page that repeats a color does not repeat its shape
LEGEND_MOST = 8
HOVER_TEXT_MOST = 3_000


@dataclass(frozen=True)
class Coloring:
    """One way to color dots.

    Attributes:
        label: what a person chooses.
        column: of the panel frame, or of the map.
        kind: "page" (means of pages), "group" or "number".
        log: numbers on a logarithmic scale.
        about: one sentence for the legend's help.
    """

    label: str
    column: str
    kind: str
    log: bool = False
    about: str = ""


RANKS = "1 is best, among the panels of the same split with image and text."
COLORINGS: dict[str, Coloring] = {
    "cluster": Coloring(
        "Cluster", "cluster_name", "group", about="Dense places of the map, named by what sets their panels apart."
    ),
    "page": Coloring(
        "Page",
        "page",
        "page",
        about="large dots are means of pages",
    ),
    "book": Coloring("Book", "book", "group", about="Panels of one book share a color."),
    "type": Coloring("Page type", "page_type", "group"),
    "modality": Coloring("Modality present", "modality", "group"),
    "split": Coloring("Split", "split", "group"),
    **{
        column.removeprefix("loss_"): Coloring(f"Loss: {label.lower()}", column, "number")
        for column, label in names.PANEL_LOSSES.items()
    },
    "i2t": Coloring(f"Rank: {names.WAYS['i2t']}", "rank_i2t", "number", log=True, about=RANKS),
    "t2i": Coloring(f"Rank: {names.WAYS['t2i']}", "rank_t2i", "number", log=True, about=RANKS),
    "image": Coloring("Image weight", "gate_image", "number", about="The fusion gate's share, 0 to 1."),
    "trust": Coloring(
        "Neighbors kept",
        "trust",
        "number",
        about="Share of the 15 nearest panels that are nearest on the map, too.",
    ),
}
OVERLAP = Coloring(
    "Neighbors in common", "overlap", "number", about="Share of the 15 nearest panels that both have, 0 to 1."
)


@dataclass(frozen=True)
class Legend:
    """The groups of a coloring, largest first.

    Attributes:
        names: as in the column.
        colors: of each.
        counts: panels of each.
        missing: panels that belong to none.
    """

    names: list[str]
    colors: list[str]
    counts: list[int]
    missing: int


def legend_of(values: pd.Series[Any], xy: np.ndarray) -> Legend:
    """Groups and their colors. More groups than colors share them, near ones as seldom as possible.

    Args:
        values: (N,) group of each panel; "" in the column `cluster_name` is none.
        xy: (N, 2) positions.
    """
    codes, found = pd.factorize(values)
    names = [str(v) for v in found]
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    order = [int(i) for i in np.argsort(-counts, kind="stable") if values.name != "cluster_name" or names[i]]
    colors = theme.categorical()
    if len(order) > len(colors):
        centers = np.array([np.median(xy[codes == i], axis=0) for i in order])
        palette = cycle()
        picked = [palette[i] for i in _far_apart(centers, len(palette))]
    else:
        picked = colors[: len(order)]
    held = [int(counts[i]) for i in order]
    return Legend([names[i] for i in order], picked, held, len(values) - sum(held))


def _far_apart(centers: np.ndarray, colors: int) -> list[int]:
    """A color number for each center in turn: the one whose nearest use so far is farthest away."""
    nearest = np.full((len(centers), colors), np.inf)
    chosen: list[int] = []
    for i, center in enumerate(centers):
        c = int(np.argmax(np.where(np.isinf(nearest[i]), 1e9 - np.arange(colors), nearest[i])))
        chosen.append(c)
        nearest[:, c] = np.minimum(nearest[:, c], np.hypot(*(centers - center).T))
    return chosen


Window = tuple[float, float, float, float]  # x0, x1, y0, y1


def whole(xy: np.ndarray) -> Window:
    """The part of the plane that holds all dots, with a margin."""
    low, high = xy.min(axis=0), xy.max(axis=0)
    margin = np.maximum(0.04 * (high - low), 1e-3)
    (x0, y0), (x1, y1) = (low - margin).tolist(), (high + margin).tolist()
    return x0, x1, y0, y1


def scatter(
    rows: np.ndarray,
    xy: np.ndarray,
    values: pd.Series[Any],
    coloring: Coloring,
    window: Window,
    *,
    legend: Legend | None = None,
    hover: Sequence[str] | None = None,
    picked: np.ndarray | None = None,
    dim: float = 0.14,
    webgl: bool = False,
    tool: str = "pan",
    height: int = 620,
    zoomed: bool = False,
) -> go.Figure:
    """Dots on a map.

    Args:
        rows: (N,) panel rows, the dots' `customdata`.
        xy: (N, 2) positions.
        values: (N,) what colors them.
        coloring: how.
        window: the part of the map that is shown.
        legend: of the groups, for a coloring by groups.
        hover: (N,) text of each dot for the image that follows the pointer, or None.
        picked: (N,) bool, dots that stand out; None when there is no selection.
        dim: opacity of the dots that do not stand out.
        webgl: draw with WebGL, for many dots.
        tool: what dragging does: "pan", "lasso" or "select" (a box). A click chooses a dot only while it pans.
        height: of the figure in pixels.
        zoomed: whether `window` is to be shown exactly, whatever the shape of the chart.
    """
    figure = go.Figure()
    base = Dots(rows, xy, hover, picked, dim, go.Scattergl if webgl else go.Scatter)
    if coloring.kind == "number":
        _numbers(figure, base, values, coloring)
    elif coloring.kind == "page":
        base.add(figure, np.arange(len(rows)), "", {"color": theme.look().quiet, "size": 4}, legend=False)
    else:
        _groups(figure, base, values, legend or legend_of(values, xy))
    theme.bare(theme.style(figure, height=height, legend=True))
    place = {"y": 0.0, "yanchor": "bottom", "bgcolor": glass(), "itemsizing": "constant"}
    behavior = {"dragmode": tool, "clickmode": "event+select", "hovermode": "closest"}
    show(figure, window)
    if zoomed:  # what a person has zoomed to is shown, and no more: the plot gives way, not the part
        figure.update_xaxes(constrain="domain").update_yaxes(constrain="domain")
    return figure.update_layout(legend=place, modebar=tools(), **behavior)


def show(figure: go.Figure, window: Window) -> None:
    """Set the part of the map that a figure shows."""
    x0, x1, y0, y1 = window
    figure.update_xaxes(range=[x0, x1]).update_yaxes(range=[y0, y1])


@dataclass(frozen=True)
class Dots:
    """Dots that traces are made of: see `scatter`; `make` is the class of the traces."""

    rows: np.ndarray
    xy: np.ndarray
    hover: Sequence[str] | None
    picked: np.ndarray | None
    dim: float
    make: Any

    def add(self, figure: go.Figure, at: np.ndarray, name: str, marker: dict[str, Any], legend: bool) -> None:
        """Draw the dots at some positions as one trace."""
        if self.picked is not None:
            marker["opacity"] = np.where(self.picked[at], 1.0, self.dim).astype(np.float32)
        else:
            marker["opacity"] = 1.0 if "colorbar" in marker else 0.88  # a number's color must not pale
        marker.setdefault("size", _size(len(self.rows)))
        marker["line"] = {"width": 0}
        text = None if self.hover is None else [self.hover[i] for i in at]
        figure.add_trace(
            self.make(
                x=self.xy[at, 0].astype(np.float32),
                y=self.xy[at, 1].astype(np.float32),
                mode="markers",
                name=name,
                marker=marker,
                customdata=self.rows[at].astype(np.int32),
                text=text,
                hoverinfo="none",  # the label stands below the image that follows the pointer
                showlegend=legend,
                # a click or lasso must not fade dots by itself: what is picked is drawn by us, and stays
                selected={"marker": {"opacity": 1.0}},
                unselected={"marker": {"opacity": 0.35}},
            )
        )


def _size(n: int) -> int:
    return 10 if n <= 300 else 8 if n <= 1000 else 6 if n <= 5000 else 4


def tools() -> dict[str, Any]:
    """Of Plotly's own tools only reset and full screen: what the mouse does is chosen above the map."""
    return {"remove": ["toImage", "zoomIn", "zoomOut", "resetScale", "zoom", "pan", "lasso", "select"]}


def glass() -> str:
    """The page's color, through which dots show: behind texts on a map."""
    return "rgba(18,21,26,.72)" if theme.is_dark() else "rgba(255,255,255,.78)"


def cycle() -> tuple[str, ...]:
    """Eight colors; those that follow each other differ most."""
    return CYCLE_DARK if theme.is_dark() else CYCLE_LIGHT


def _groups(figure: go.Figure, dots: Dots, values: pd.Series[Any], legend: Legend) -> None:
    """One trace per group where the legend has room for them, else one for all; what belongs to none is open."""
    code = pd.Index(legend.names).get_indexer(pd.Index(values.astype(str)))
    if len(legend.names) > LEGEND_MOST:
        at = np.flatnonzero(code >= 0)
        colors = sorted(set(legend.colors))
        number = np.array([colors.index(c) for c in legend.colors])
        dots.add(figure, at, "", {**stepped(colors), "color": number[code[at]].astype(np.uint8)}, legend=False)
    else:
        for i, (name, color) in enumerate(zip(legend.names, legend.colors, strict=True)):
            at = np.flatnonzero(code == i)
            label = theme.safe(name or "(none)", 36) + f" · {len(at):,}"
            dots.add(figure, at, label, {"color": color}, legend=True)
    missing = np.flatnonzero(code < 0)
    if len(missing):
        none = "no cluster" if values.name == "cluster_name" else "not known"
        marker = {"color": theme.look().quiet, "symbol": "circle-open", "size": 5}
        dots.add(figure, missing, f"{none} · {len(missing):,}", marker, legend=True)


def stepped(colors: Sequence[str]) -> dict[str, Any]:
    """A marker's color scale that gives numbers 0, 1, 2 … one color each."""
    n = len(colors)
    scale = [[(i + side) / n, c] for i, c in enumerate(colors) for side in (0, 1)]
    return {"cmin": -0.5, "cmax": n - 0.5, "colorscale": scale, "showscale": False}


def cycled(figure: go.Figure, dots: Dots, at: np.ndarray, code: np.ndarray) -> None:
    """Many groups as one trace: colors in turn, and another shape each time the colors start again."""
    colors = cycle()
    n = len(colors)
    symbols = np.asarray(SYMBOLS, np.uint8)
    marker = {
        **stepped(colors),
        "color": (code % n).astype(np.uint8),
        "symbol": symbols[(code // n) % len(symbols)] if len(at) <= SVG_MOST else "circle",  # too small to tell
    }
    dots.add(figure, at, "", marker, legend=False)


def bar_of(label: str) -> dict[str, Any]:
    """A color bar at the right edge."""
    title = {"text": label, "side": "right", "font": {"size": 12}}
    look = {"thickness": 10, "len": 0.6, "outlinewidth": 0, "tickfont": {"size": 11}}
    return {"title": title, "x": 1.0, "xanchor": "right", "xpad": 8, **look}


def _numbers(figure: go.Figure, dots: Dots, values: pd.Series[Any], coloring: Coloring) -> None:
    value = values.to_numpy(dtype=np.float32)
    defined, missing = np.flatnonzero(~np.isnan(value)), np.flatnonzero(np.isnan(value))
    if len(missing):
        marker = {"color": theme.look().quiet, "symbol": "circle-open", "size": 5}
        dots.add(figure, missing, f"not defined · {len(missing):,}", marker, legend=True)
    if not len(defined):
        return
    shown = np.log10(np.maximum(value[defined], 1)) if coloring.log else value[defined]
    low, high = (float(v) for v in np.quantile(shown, (0.02, 0.98)))
    bar = bar_of(coloring.label)
    if coloring.log:
        high = max(high, 1.0)
        ticks = [k * 10**e for e in range(int(np.ceil(high)) + 1) for k in (1, 3) if np.log10(k * 10**e) <= high + 0.01]
        bar |= {"tickvals": [float(np.log10(t)) for t in ticks], "ticktext": [f"{t:,}" for t in ticks]}
        low = 0.0
    marker = {
        "color": shown.astype(np.float32),
        "colorscale": theme.ordered(),
        "cmin": low,
        "cmax": high if high > low else low + 1,
        "showscale": True,
        "colorbar": bar,
    }
    dots.add(figure, defined, coloring.label, marker, legend=False)
