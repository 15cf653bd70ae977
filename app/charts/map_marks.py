"""What stands over the dots of a map: names of clusters, means and hulls of pages, the chosen page, rings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from app.charts import maps, theme
from stage3.projection.layouts import hull
from stage3.projection.marks import Groups, fan

WIDE, HIGH = 800, 560  # pixels: about the size of the map on a laptop, for marks that must not cover each other
LETTER, LINE = 6.4, 20  # pixels of a letter and of a line of a label
NUMBER = 20  # pixels between the numbers of a page's panels
LONGEST = 30  # letters of a label


def pixel(window: maps.Window) -> float:
    """About how long a pixel is in the unit of the map."""
    x0, x1, y0, y1 = window
    return max((x1 - x0) / WIDE, (y1 - y0) / HIGH)


def label_sizes(names: Sequence[str], window: maps.Window) -> np.ndarray:
    """(L, 2) width and height of labels in the unit of the map, when this part of it is shown."""
    letters = np.array([min(len(short(name)), LONGEST) for name in names], float)
    return pixel(window) * np.column_stack([LETTER * letters + 12, np.full(len(names), LINE)])


def short(name: str) -> str:
    """The first two parts of a cluster's name: three do not fit beside each other."""
    return " · ".join(name.split(" · ")[:2])


def add_labels(figure: go.Figure, xy: np.ndarray, names: Sequence[str], colors: Sequence[str]) -> None:
    """Names at their places, each with its group's color at the left."""
    look = theme.look()
    for (x, y), name, color in zip(xy.tolist(), names, colors, strict=True):
        figure.add_annotation(
            x=x,
            y=y,
            text=theme.safe(short(name), LONGEST),
            showarrow=False,
            yshift=16,
            font={"size": 11.5, "color": look.text},
            bgcolor=maps.glass(),
            bordercolor=color,
            borderwidth=1,
            borderpad=2,
        )


def add_page_means(figure: go.Figure, pages: Groups, names: Sequence[str], width: float) -> None:
    """A dot at the mean of each page, larger with more panels; its color is the spread in percent of the map's width.

    Its `customdata` is −1 − page, so that a click is told from one on a panel.
    """
    spread = 100 * pages.spread / width
    figure.add_trace(
        go.Scatter(
            x=pages.mean[:, 0],
            y=pages.mean[:, 1],
            mode="markers",
            customdata=-1 - pages.number,
            text=[
                f"{name} · {n} panels · spread {s:.1f} % of the width"
                for name, n, s in zip(names, pages.panels.tolist(), spread.tolist(), strict=True)
            ],
            hoverinfo="none",
            showlegend=False,
            marker={
                "size": 7 + 2 * np.sqrt(pages.panels),
                "color": spread,
                "colorscale": theme.ordered(),
                "cmin": 0,
                "cmax": max(float(spread.max(initial=0)), 1e-6),
                "showscale": True,
                "colorbar": maps.bar_of("Spread, % of width"),
                "opacity": 1.0,
                "line": {"width": 1, "color": theme.look().paper},
            },
            selected={"marker": {"opacity": 1.0}},
            unselected={"marker": {"opacity": 1.0}},
        )
    )


def add_page_hulls(figure: go.Figure, xy: np.ndarray, page: np.ndarray) -> None:
    """The outline of each page's panels, in colors that go round."""
    colors = maps.cycle()
    for i, number in enumerate(np.unique(page)):
        _outline(figure, hull(xy[page == number]), colors[i % len(colors)])


def add_page(figure: go.Figure, xy: np.ndarray, focus: int | None, window: maps.Window, *, webgl: bool) -> None:
    """The chosen page over the dots: its outline, the path through its panels in reading order, and their numbers.

    Numbers of panels that lie in a heap fan out and keep a line to their dot.

    Args:
        figure: of `maps.scatter`.
        xy: (n, 2) positions of the page's panels in reading order.
        focus: position in reading order of the chosen panel, or None.
        window: the part of the map that is shown.
        webgl: as in `scatter`.
    """
    look = theme.look()
    _outline(figure, hull(xy), look.accent)
    make = go.Scattergl if webgl else go.Scatter
    line = {"color": look.text, "width": 1.4}
    figure.add_trace(
        make(x=xy[:, 0], y=xy[:, 1], mode="lines", line=line, hoverinfo="skip", showlegend=False, opacity=0.6)
    )
    colors = [look.accent if i == focus else look.text for i in range(len(xy))]
    marker = {"size": 9, "color": colors, "line": {"color": look.paper, "width": 1.5}}
    figure.add_trace(
        go.Scatter(x=xy[:, 0], y=xy[:, 1], mode="markers", marker=marker, hoverinfo="skip", showlegend=False)
    )
    for i, ((x, y), (right, up)) in enumerate(zip(xy.tolist(), offsets(xy, window).tolist(), strict=True)):
        figure.add_annotation(
            x=x,
            y=y,
            ax=right,
            ay=-up,
            text=str(i + 1),
            font={"size": 11, "color": look.paper},
            bgcolor=colors[i],
            bordercolor=look.paper,
            borderpad=2,
            arrowcolor=colors[i],
            arrowwidth=1,
            arrowhead=0,
        )


def offsets(xy: np.ndarray, window: maps.Window) -> np.ndarray:
    """(n, 2) pixels right and up from each panel to its number: no two numbers closer than `NUMBER`."""
    pixels = np.asarray(xy, np.float64) / pixel(window)
    return fan(pixels + np.array([0.0, NUMBER]), NUMBER) - pixels


def add_rings(figure: go.Figure, xy: np.ndarray, *, webgl: bool) -> None:
    """A ring around each of some dots."""
    make: Any = go.Scattergl if webgl else go.Scatter
    marker = {"symbol": "circle-open", "size": 11, "color": theme.look().text, "line": {"width": 1.6}}
    figure.add_trace(
        make(x=xy[:, 0], y=xy[:, 1], mode="markers", marker=marker, hoverinfo="skip", showlegend=False, name="selected")
    )


def _outline(figure: go.Figure, corners: np.ndarray, color: str) -> None:
    if len(corners) < 3:
        return
    closed = np.vstack([corners, corners[:1]])
    figure.add_trace(
        go.Scatter(
            x=closed[:, 0],
            y=closed[:, 1],
            mode="lines",
            fill="toself",
            fillcolor=_soft(color),
            line={"color": color, "width": 1, "dash": "dot"},
            hoverinfo="skip",
            showlegend=False,
        )
    )


def _soft(color: str) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},.10)"
