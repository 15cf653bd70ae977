"""The look of every chart: quiet axes, one palette, text from data escaped.

Colors are those of Okabe & Ito (2008) and Paul Tol's "muted" scheme, which stay apart for the common kinds of color
blindness; lines also differ by dash where two meanings share a chart.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import plotly.graph_objects as go
import plotly.io
import streamlit as st

from app.guard import callback
from app.store.cache import Memory
from stage3.objectives import PARTS

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6BB1", "#999933")
OKABE_ITO_DARK = ("#4FA3E0", "#F0B23A", "#2FC29A", "#E39CC3", "#8CD0F5", "#F0803C", "#B79BE0", "#C6C65A")
# Many groups (pages, books): Tol's muted and light schemes together; beyond that colors repeat.
MANY = (
    "#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#EE7733", "#009988", "#882255", "#999933",
    "#33BBEE", "#CC3311", "#117733", "#DDCC77", "#332288", "#AA4499", "#44AA99", "#BBBBBB",
)  # fmt: skip
# From low to high, safe for color-blind readers and in gray: parts of plasma and viridis (van der Walt & Smith 2015) in
# which every color has a contrast of 3:1 and more to the page.
ORDERED_LIGHT = ("#0D0887", "#40039D", "#6901A6", "#8F10A1", "#B02A90", "#CB4778", "#DC5E66")
ORDERED_DARK = ("#26838E", "#22908C", "#28A883", "#46BE6F", "#7CD14F", "#BCDF2A", "#FDE725")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
TRACES = ("bar", "heatmap", "scatter", "scattergl")  # what our charts draw
FONT = '"Source Sans", "Source Sans Pro", "Segoe UI", sans-serif'


@dataclass(frozen=True)
class Look:
    """The few colors that a chart takes from the page."""

    text: str
    quiet: str
    grid: str
    paper: str
    panel: str
    accent: str


LIGHT = Look("#1A1F26", "#66707C", "#E8ECF0", "#FFFFFF", "#F3F5F7", "#1F5FA8")
DARK = Look("#E3E7EC", "#97A1AE", "#262D36", "#12151A", "#1B2028", "#6FA8EC")


def is_dark() -> bool:
    """Whether this session's page is dark."""
    return st.context.theme.type == "dark"


def look() -> Look:
    """The colors of this session's theme."""
    return DARK if is_dark() else LIGHT


def categorical(n: int | None = None) -> list[str]:
    """Colors for groups: eight that differ well, or of a longer list when more are asked for."""
    base = list(OKABE_ITO_DARK if is_dark() else OKABE_ITO)
    if n is None or n <= len(base):
        return base[:n]
    return [MANY[i % len(MANY)] for i in range(n)]


def ordered() -> list[list[Any]]:
    """The color scale of numbers, from low to high."""
    colors = ORDERED_DARK if is_dark() else ORDERED_LIGHT
    return [[i / (len(colors) - 1), c] for i, c in enumerate(colors)]


def color(term: str) -> str:
    """The color that a loss has in every chart: a term's or a half's own, the text's for the total."""
    if term == "total":
        return look().text
    colors = categorical()
    return colors[PARTS[term].color % len(colors) if term in PARTS else -1]


def safe(text: object, length: int = 80) -> str:
    """Text from data for hover labels and axis names, where Plotly reads a little HTML."""
    shown = " ".join(str(text).split())
    return html.escape(shown if len(shown) <= length else shown[: length - 1] + "…")


_figures: Memory[go.Figure] = Memory(200)


def kept(key: tuple[Hashable, ...], make: Callable[[], go.Figure]) -> go.Figure:
    """A figure that all sessions of one look share, made once.

    Args:
        key: names the chart and everything it shows: fingerprints of files and what the person chose.
        make: draws it. Whoever gets the figure must not change it.
    """
    return _figures.get((is_dark(), *key), make)


@cache
def _template(dark: bool) -> go.layout.Template:
    """What all charts of a look share, checked once for all of them: given to each figure it took most of its time.

    It is Plotly's own template without the parts that no chart here uses, since it is sent with every figure.
    """
    whole = plotly.io.templates["plotly_dark" if dark else "plotly_white"].to_plotly_json()
    unused = ("geo", "map", "mapbox", "polar", "scene", "smith", "ternary")
    template = go.layout.Template(
        layout={name: value for name, value in whole["layout"].items() if name not in unused},
        data={name: whole["data"][name] for name in TRACES},
    )
    c = DARK if dark else LIGHT
    template.layout.update(
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": FONT, "size": 13, "color": c.text},
        colorway=OKABE_ITO_DARK if dark else OKABE_ITO,
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0, "font": {"size": 12}},
        hoverlabel={"bgcolor": c.panel, "bordercolor": c.grid, "font": {"color": c.text, "size": 12, "family": FONT}},
        title={"x": 0, "xanchor": "left", "font": {"size": 14}},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": c.quiet, "activecolor": c.accent},
    )
    axis = {
        "gridcolor": c.grid,
        "zerolinecolor": c.grid,
        "linecolor": c.grid,
        "tickfont": {"color": c.quiet, "size": 12},
        "title_font": {"color": c.quiet, "size": 12},
        "ticklabeloverflow": "allow",  # else the browser is asked where each label ends, which takes long
    }
    template.layout.xaxis.update(**axis, title_standoff=6)
    template.layout.yaxis.update(**axis)
    return template


def style(figure: go.Figure, *, height: int = 320, legend: bool = True, title: str = "") -> go.Figure:
    """Give a figure the page's look; `title` is our own words."""
    return figure.update_layout(
        template=_template(is_dark()),
        height=height,
        margin={"l": 48, "r": 12, "t": 34 if title else 12, "b": 36},
        showlegend=legend,
        title={"text": title} if title else None,
        uirevision="keep",
    )


def bare(figure: go.Figure) -> go.Figure:
    """Without axes, for maps: positions of a projection have no unit."""
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, scaleanchor="x")
    return figure.update_layout(margin={"l": 0, "r": 0, "t": 0, "b": 0})


def show(
    figure: go.Figure,
    *,
    key: str,
    alt: str,
    on_select: Any = "ignore",
    selection_mode: Sequence[Literal["points", "box", "lasso"]] = ("points", "box", "lasso"),
    tools: bool = False,
    fill: bool = False,
) -> Any:
    """Draw a figure that `style` prepared; `alt` says in words what it shows; `fill` takes the container's height."""
    config = {"displaylogo": False, "displayModeBar": tools or on_select != "ignore", "scrollZoom": tools}
    return st.plotly_chart(
        figure,
        key=key,
        alt=alt,
        theme=None,
        config={**config, "doubleClick": "autosize"} if tools else config,
        on_select=callback(on_select) if callable(on_select) else on_select,
        selection_mode=tuple(selection_mode),
        height="stretch" if fill else "content",
    )
