"""Maps of panels: how a dot is colored, and the figures that draw dots, hulls, reading order, and drift."""

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
        kind: "cycle" (many groups; neighbors in reading order differ), "group" (few, with a legend) or "number".
        log: numbers on a logarithmic scale.
        about: one sentence for the legend's help.
    """

    label: str
    column: str
    kind: str
    log: bool = False
    about: str = ""


COLORINGS: dict[str, Coloring] = {
    "page": Coloring("Page", "page", "cycle", about="Panels of one page share a color and a shape."),
    "book": Coloring("Book", "book", "group", about="Panels of one book share a color."),
    "type": Coloring("Page type", "page_type", "group"),
    "cluster": Coloring("Cluster", "cluster_id", "group", about="HDBSCAN on the map; gray belongs to no cluster."),
    "modality": Coloring("Modality present", "modality", "group"),
    "split": Coloring("Split", "split", "group"),
    **{
        column.removeprefix("loss_"): Coloring(f"Loss: {label.lower()}", column, "number")
        for column, label in names.PANEL_LOSSES.items()
    },
    "i2t": Coloring(f"Rank: {names.WAYS['i2t']}", "rank_i2t", "number", log=True, about="1 is best."),
    "t2i": Coloring(f"Rank: {names.WAYS['t2i']}", "rank_t2i", "number", log=True, about="1 is best."),
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


def groups(values: pd.Series[Any]) -> tuple[np.ndarray, list[str]]:
    """(N,) int16 group of each value and the groups' names, largest first; what is missing is -1."""
    if values.name == "cluster_id":
        names = [f"cluster {i}" for i in range(int(values.max(skipna=True)) + 1)] if len(values) else []
        return values.fillna(-1).to_numpy(dtype=np.int32), names
    codes, uniques = pd.factorize(values)
    counts = np.bincount(codes[codes >= 0], minlength=len(uniques))
    order = np.argsort(-counts, kind="stable")
    place = np.empty(len(uniques) + 1, np.int32)
    place[order], place[-1] = np.arange(len(uniques)), -1
    return place[codes], [str(uniques[i]) or "(none)" for i in order]


def scatter(
    rows: np.ndarray,
    xy: np.ndarray,
    values: pd.Series[Any],
    coloring: Coloring,
    *,
    hover: Sequence[str] | None = None,
    picked: np.ndarray | None = None,
    dim: float = 0.14,
    webgl: bool = False,
    tool: str = "pan",
    height: int = 620,
) -> go.Figure:
    """Dots on a map.

    Args:
        rows: (N,) panel rows, the dots' `customdata`.
        xy: (N, 2) positions.
        values: (N,) what colors them.
        coloring: how.
        hover: (N,) escaped text of each dot, or None.
        picked: (N,) bool, dots that stand out; None when there is no selection.
        dim: opacity of the dots that do not stand out.
        webgl: draw with WebGL, for many dots.
        tool: what dragging does: "pan", "lasso" or "select" (a box). A click chooses a dot only while it pans.
        height: of the figure in pixels.
    """
    figure = go.Figure()
    base = _Dots(rows, xy, hover, picked, dim, go.Scattergl if webgl else go.Scatter)
    if coloring.kind == "number":
        _numbers(figure, base, values, coloring)
    else:
        _groups(figure, base, values, coloring)
    theme.bare(theme.style(figure, height=height, legend=True))
    legend = {"y": 0.0, "yanchor": "bottom", "bgcolor": _glass(), "itemsizing": "constant"}
    behavior = {"dragmode": tool, "clickmode": "event+select", "hovermode": "closest"}
    return figure.update_layout(legend=legend, modebar=_tools(), **behavior)


@dataclass(frozen=True)
class _Dots:
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
            marker["opacity"] = 0.88
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
                hoverinfo="none" if text is None else "text",
                showlegend=legend,
                # a click or lasso must not fade dots by itself: what is picked is drawn by us, and stays
                selected={"marker": {"opacity": 1.0}},
                unselected={"marker": {"opacity": 0.35}},
            )
        )


def _size(n: int) -> int:
    return 10 if n <= 300 else 8 if n <= 1000 else 6 if n <= 5000 else 4


def _tools() -> dict[str, Any]:
    """Of Plotly's own tools only reset and full screen: what the mouse does is chosen above the map."""
    look = theme.look()
    return {
        "bgcolor": "rgba(0,0,0,0)",
        "color": look.quiet,
        "activecolor": look.accent,
        "remove": ["toImage", "zoomIn", "zoomOut", "autoScale", "zoom", "pan", "lasso", "select"],
    }


def _glass() -> str:
    return "rgba(18,21,26,.72)" if theme.is_dark() else "rgba(255,255,255,.78)"


def _cycle() -> tuple[str, ...]:
    return CYCLE_DARK if theme.is_dark() else CYCLE_LIGHT


def _groups(figure: go.Figure, dots: _Dots, values: pd.Series[Any], coloring: Coloring) -> None:
    code, names = (values.to_numpy(), []) if coloring.kind == "cycle" else groups(values)
    if coloring.kind == "cycle" or len(names) > LEGEND_MOST:
        known = np.flatnonzero(code >= 0)
        _cycled(figure, dots, known, code[known])
    else:
        colors = theme.categorical()
        for i, name in enumerate(names):
            at = np.flatnonzero(code == i)
            label = theme.safe(name, 36) + f" · {len(at):,}"
            dots.add(figure, at, label, {"color": colors[i % len(colors)]}, legend=True)
    missing = np.flatnonzero(code < 0)
    if len(missing):
        none = "no cluster" if values.name == "cluster_id" else "not known"
        marker = {"color": theme.look().quiet, "symbol": "circle-open", "size": 5}
        dots.add(figure, missing, f"{none} · {len(missing):,}", marker, legend=True)


def _cycled(figure: go.Figure, dots: _Dots, at: np.ndarray, code: np.ndarray) -> None:
    """Many groups as one trace: colors in turn, and another shape each time the colors start again."""
    colors = _cycle()
    n = len(colors)
    symbols = np.asarray(SYMBOLS, np.uint8)
    marker = {
        "color": (code % n).astype(np.uint8),
        "cmin": -0.5,
        "cmax": n - 0.5,
        "colorscale": [[(i + side) / n, c] for i, c in enumerate(colors) for side in (0, 1)],
        "symbol": symbols[(code // n) % len(symbols)] if len(at) <= SVG_MOST else "circle",  # too small to tell
        "showscale": False,
    }
    dots.add(figure, at, "", marker, legend=False)


def _numbers(figure: go.Figure, dots: _Dots, values: pd.Series[Any], coloring: Coloring) -> None:
    value = values.to_numpy(dtype=np.float32)
    defined, missing = np.flatnonzero(~np.isnan(value)), np.flatnonzero(np.isnan(value))
    if len(missing):
        marker = {"color": theme.look().quiet, "symbol": "circle-open", "size": 5}
        dots.add(figure, missing, f"not defined · {len(missing):,}", marker, legend=True)
    if not len(defined):
        return
    shown = np.log10(np.maximum(value[defined], 1)) if coloring.log else value[defined]
    low, high = (float(v) for v in np.quantile(shown, (0.02, 0.98)))
    bar: dict[str, Any] = {
        "title": {"text": coloring.label, "side": "right", "font": {"size": 12}},
        "thickness": 10,
        "len": 0.6,
        "x": 1.0,
        "xpad": 4,
        "outlinewidth": 0,
        "tickfont": {"size": 11},
    }
    if coloring.log:
        high = max(high, 1.0)
        ticks = [k * 10**e for e in range(int(np.ceil(high)) + 1) for k in (1, 3) if np.log10(k * 10**e) <= high + 0.01]
        bar |= {"tickvals": [float(np.log10(t)) for t in ticks], "ticktext": [f"{t:,}" for t in ticks]}
        low = 0.0
    marker = {
        "color": shown.astype(np.float32),
        "colorscale": theme.ORDERED,
        "cmin": low,
        "cmax": high if high > low else low + 1,
        "showscale": True,
        "colorbar": bar,
    }
    dots.add(figure, defined, coloring.label, marker, legend=False)


def add_page(figure: go.Figure, xy: np.ndarray, hull: np.ndarray, focus: int | None, *, webgl: bool) -> None:
    """The chosen page over the dots: its hull, the path through its panels in reading order, and their numbers.

    Args:
        figure: of `scatter`.
        xy: (n, 2) positions of the page's panels in reading order.
        hull: (h, 2) corners of their hull.
        focus: position in reading order of the chosen panel, or None.
        webgl: as in `scatter`.
    """
    ink = theme.look().text
    if len(hull) > 2:
        closed = np.vstack([hull, hull[:1]])
        figure.add_trace(
            go.Scatter(
                x=closed[:, 0],
                y=closed[:, 1],
                mode="lines",
                fill="toself",
                fillcolor=_soft(theme.look().accent),
                line={"color": theme.look().accent, "width": 1, "dash": "dot"},
                hoverinfo="skip",
                showlegend=False,
            )
        )
    line = {"color": ink, "width": 1.6}
    make = go.Scattergl if webgl else go.Scatter
    figure.add_trace(
        make(x=xy[:, 0], y=xy[:, 1], mode="lines", line=line, hoverinfo="skip", showlegend=False, opacity=0.75)
    )
    figure.add_trace(
        go.Scatter(
            x=xy[:, 0],
            y=xy[:, 1],
            mode="markers+text",
            text=[str(i + 1) for i in range(len(xy))],
            textfont={"size": 11, "color": theme.look().paper},
            marker={
                "size": [24 if i == focus else 18 for i in range(len(xy))],
                "color": [theme.look().accent if i == focus else ink for i in range(len(xy))],
                "line": {"color": theme.look().paper, "width": 1.5},
            },
            hoverinfo="skip",
            showlegend=False,
        )
    )


def _soft(color: str) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},.10)"


def drift(frame: pd.DataFrame, groups_of: np.ndarray, *, height: int = 620) -> go.Figure:
    """The saved epochs as an animation with a slider; a dot stands for the same panel in every epoch.

    Args:
        frame: of `stage3.projection.drift`, the same panels in the same order in each epoch.
        groups_of: (N,) what colors them, such as the page.
        height: of the figure in pixels.
    """
    epochs = [int(e) for e in pd.unique(frame["epoch"])]
    parts = dict(iter(frame.groupby("epoch", sort=False)))
    first = parts[epochs[0]]
    figure = go.Figure()
    dots = _Dots(first["row"].to_numpy(), first[["umap_dim1", "umap_dim2"]].to_numpy(), None, None, 0.1, go.Scatter)
    _cycled(figure, dots, np.arange(len(first)), groups_of)
    figure.data[0].ids = first["row"].astype(str).tolist()
    figure.frames = [
        go.Frame(
            name=str(e),
            data=[
                {
                    "type": "scatter",
                    "x": parts[e]["umap_dim1"].to_numpy(np.float32),
                    "y": parts[e]["umap_dim2"].to_numpy(np.float32),
                }
            ],
            traces=[0],
        )
        for e in epochs
    ]
    theme.bare(theme.style(figure, height=height, legend=False))
    spans = [(float(frame[c].min()), float(frame[c].max())) for c in ("umap_dim1", "umap_dim2")]
    (x0, x1), (y0, y1) = [(lo - 0.04 * (hi - lo), hi + 0.04 * (hi - lo)) for lo, hi in spans]
    figure.update_xaxes(range=[x0, x1]).update_yaxes(range=[y0, y1])
    move: dict[str, Any] = {"frame": {"duration": 700, "redraw": False}, "transition": {"duration": 600}}
    play = {"label": "Play", "method": "animate", "args": [None, {**move, "fromcurrent": True}]}
    stop = {"label": "Pause", "method": "animate", "args": [[None], {"mode": "immediate", "frame": {"duration": 0}}]}
    look = theme.look()
    menu = {"type": "buttons", "direction": "right", "x": 0, "y": -0.04, "xanchor": "left", "yanchor": "top"}
    menu |= {"buttons": [play, stop], "bgcolor": look.panel, "bordercolor": look.grid, "font": {"color": look.text}}
    steps = [{"label": str(e), "method": "animate", "args": [[str(e)], {"mode": "immediate", **move}]} for e in epochs]
    slider = {"steps": steps, "x": 0.16, "len": 0.82, "y": -0.02, "currentvalue": {"prefix": "epoch "}}
    figure.update_layout(
        modebar=_tools(),
        dragmode="pan",
        updatemenus=[{**menu, "showactive": False}],
        sliders=[{**slider, "bgcolor": look.panel, "bordercolor": look.grid}],
        margin={"l": 0, "r": 0, "t": 0, "b": 70},
    )
    return figure
