"""Figures for the notebooks: plotly figures that need no network, and pages with frames around their panels."""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio
from PIL import Image, ImageDraw

from stage3.objectives import OBJECTIVES

# Okabe & Ito (2008): eight colors that stay apart for the common kinds of color blindness.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6BB1", "#999933")
QUIET = "#66707C"
DASHES = {"train": "solid", "val": "dash"}

TERMS = {objective.name: COLORS[objective.color] for objective in OBJECTIVES}

# tqdm, which UMAP imports, warns in a notebook that it cannot draw its bars; none are drawn here
warnings.filterwarnings("ignore", message="IProgress not found")

pio.templates["stage3"] = go.layout.Template(
    layout={
        "colorway": COLORS,
        "font": {"size": 13, "color": "#1A1F26"},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "xaxis": {"gridcolor": "#E8ECF0", "zeroline": False, "linecolor": QUIET, "ticks": "outside"},
        "yaxis": {"gridcolor": "#E8ECF0", "zeroline": False, "linecolor": QUIET, "ticks": "outside"},
        "margin": {"l": 70, "r": 20, "t": 75, "b": 50},
        "modebar": {"orientation": "v"},
        "title": {"x": 0.01, "y": 0.98, "yanchor": "top", "font": {"size": 15}},
        "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"},  # between title and figure
    }
)
pio.templates.default = "stage3"
pio.renderers.default = "plotly_mimetype+notebook"  # both are self-contained: no network, no image export


def figure(title: str, x: str, y: str, width: int = 760, height: int = 380, **layout: object) -> go.Figure:
    """An empty figure with named axes."""
    fig = go.Figure()
    return fig.update_layout(title=title, xaxis_title=x, yaxis_title=y, width=width, height=height, **layout)


def lines(
    title: str, x: str, y: str, curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], **layout: object
) -> go.Figure:
    """One line per name; a name that ends in "(val)" is dashed, one that begins with an objective has its color."""
    fig = figure(title, x, y, **layout)
    for i, (name, (xs, ys)) in enumerate(curves.items()):
        color = next((c for term, c in TERMS.items() if name.startswith(term)), COLORS[i % len(COLORS)])
        style = {"color": color, "dash": DASHES["val" if name.endswith("(val)") else "train"]}
        fig.add_scatter(x=list(xs), y=list(ys), name=name, mode="lines+markers", line=style, marker={"size": 5})
    return fig


def bars(title: str, y: str, groups: Mapping[str, Mapping[str, float]], **layout: object) -> go.Figure:
    """Groups of bars: {name in the legend: {name on the x axis: value}}."""
    fig = figure(title, "", y, **layout)
    for name, values in groups.items():
        fig.add_bar(x=list(values), y=list(values.values()), name=name)
    return fig.update_layout(barmode="group", showlegend=len(groups) > 1)


def intervals(title: str, x: str, table: pd.DataFrame, mark: str = "chance", **layout: object) -> go.Figure:
    """One row per dot with its interval, and a small stroke at chance, or at another mark.

    Args:
        title: above the figure.
        x: name of the axis.
        table: columns label, value, low, high, chance (NaN for none) and group, which sets the color.
        mark: what the stroke stands for.
        layout: more of the figure.
    """
    fig = figure(title, x, "", **layout)
    for i, (group, rows) in enumerate(table.groupby("group", sort=False)):
        error = {"array": rows["high"] - rows["value"], "arrayminus": rows["value"] - rows["low"], "symmetric": False}
        fig.add_scatter(
            x=rows["value"], y=rows["label"], error_x=error, mode="markers", name=str(group), marker_color=COLORS[i]
        )
    fig.add_scatter(
        x=table["chance"],
        y=table["label"],
        mode="markers",
        name=mark,
        marker={"symbol": "line-ns", "size": 14, "line": {"width": 2, "color": QUIET}},
    )
    return fig.update_yaxes(autorange="reversed", automargin=True)


def dots(title: str, xy: np.ndarray, groups: Sequence[str], hover: Sequence[str] | None = None) -> go.Figure:
    """Points on a plane whose axes have no meaning, colored by group; groups called "other …" are gray."""
    fig = figure(title, "", "", width=640, height=520)
    names = np.asarray(groups)
    for i, name in enumerate(dict.fromkeys(names.tolist())):
        at = names == name
        said = None if hover is None else np.asarray(hover)[at]
        color = "#B9C1CA" if str(name).startswith("other") else COLORS[i % len(COLORS)]
        fig.add_scatter(
            x=xy[at, 0], y=xy[at, 1], mode="markers", name=str(name), text=said, hoverinfo="text+name",
            marker={"size": 7, "opacity": 0.85, "color": color},
        )  # fmt: skip
    fig.update_yaxes(scaleanchor="x", showticklabels=False, ticks="", showgrid=False)
    return fig.update_xaxes(showticklabels=False, ticks="", showgrid=False)


def on_circle(
    title: str, z: np.ndarray, groups: Sequence[str], pull: np.ndarray | None = None, names: Sequence[str] = ()
) -> go.Figure:
    """Embeddings on the unit circle, with an arrow for where each is pulled.

    Args:
        title: above the figure.
        z: (V, 2) embeddings of length 1.
        groups: (V,) names that set the color.
        pull: (V, 2) arrows, in the units of z.
        names: (V,) labels of the points.
    """
    fig = figure(title, "", "", width=520, height=480, margin={"l": 10, "r": 60, "t": 65, "b": 10})
    turn = np.linspace(0, 2 * np.pi, 200)
    circle = {"color": "#C9D0D8", "width": 1}
    fig.add_scatter(x=np.cos(turn), y=np.sin(turn), mode="lines", line=circle, hoverinfo="skip", showlegend=False)
    color = {name: COLORS[i % len(COLORS)] for i, name in enumerate(dict.fromkeys(groups))}
    for name, c in color.items():
        at = [i for i, g in enumerate(groups) if g == name]
        said = [names[i] for i in at] if len(names) else None
        outward = [(z[i, 0] >= 0) == (np.hypot(*z[i]) > 0.95) for i in at]  # labels of inner points go inwards
        place = ["middle right" if o else "middle left" for o in outward]
        fig.add_scatter(
            x=z[at, 0], y=z[at, 1], mode="markers+text", text=said, textposition=place, name=name,
            marker={"size": 12, "color": c}, cliponaxis=False,
        )  # fmt: skip
    for start, by, group in zip(z, [] if pull is None else pull, groups, strict=pull is not None):
        if np.hypot(*by) > 0.02:
            fig.add_annotation(
                x=start[0] + by[0], y=start[1] + by[1], ax=start[0], ay=start[1], axref="x", ayref="y", text="",
                arrowhead=2, arrowsize=1, arrowwidth=2.5, arrowcolor=color[group],
            )  # fmt: skip
    fig.update_yaxes(range=[-1.4, 1.2], scaleanchor="x", visible=False)
    return fig.update_xaxes(range=[-1.4, 1.4], visible=False)


def framed(image: Image.Image, boxes: Sequence[tuple[float, float, float, float]], height: int = 420) -> Image.Image:
    """A page with a numbered frame around each panel.

    Args:
        image: the page.
        boxes: x, y, w, h as shares of the page, in reading order.
        height: of the result, in pixels.
    """
    size = (round(image.width * height / image.height), height)
    page = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(page)
    for number, (x, y, w, h) in enumerate(boxes, start=1):
        left, top = x * size[0], y * size[1]
        draw.rectangle((left, top, left + w * size[0] - 1, top + h * size[1] - 1), outline=COLORS[5], width=3)
        draw.rectangle((left, top, left + 20, top + 20), fill=COLORS[5])
        draw.text((left + 7, top + 4), str(number), fill="white")
    return page


def side_by_side(images: Sequence[Image.Image], gap: int = 12) -> Image.Image:
    """Images in a row, their tops aligned."""
    width = sum(p.width for p in images) + gap * (len(images) - 1)
    sheet = Image.new("RGB", (width, max(p.height for p in images)), "white")
    left = 0
    for image in images:
        sheet.paste(image, (left, 0))
        left += image.width + gap
    return sheet
