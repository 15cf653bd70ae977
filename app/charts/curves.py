"""Curves of one run or several: a color per term or per run, solid for training, dashed for validation."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from app.charts import theme
from stage3.objectives import PARTS
from stage3.runs import curves

LEGEND_WIDTH, LEGEND_LINE = 430, 21  # pixels: a chart in the narrower of two columns, and a line of its legend
KEY_WIDTH, LETTER_WIDTH = 50, 7


@dataclass(frozen=True)
class Source:
    """A run's metrics under the name a chart shows."""

    name: str
    frame: pd.DataFrame
    stamp: Hashable = None  # changes with the frame; None: not known


@dataclass(frozen=True)
class How:
    """What the person chose: axis, splits, smoothing (0 for none), and whether runs are drawn as mean and band."""

    by: str = "step"
    splits: tuple[str, ...] = ("train", "val")
    smoothing: float = 0.0
    as_band: bool = False


def chart(
    sources: Sequence[Source],
    metrics: Mapping[str, str],
    how: How,
    *,
    height: int = 260,
    y_title: str = "",
    log: bool = False,
    percent: bool = False,
    chance: float = math.nan,
) -> go.Figure:
    """Some metrics over time.

    Args:
        sources: one run, or several to compare.
        metrics: metric name to its label (our own words).
        how: axis, splits, smoothing, band.
        height: in pixels.
        y_title: the unit or range.
        log: logarithmic y axis.
        percent: y as a percentage.
        chance: what random embeddings would reach, a dotted line; NaN for none.
    """
    figure = go.Figure()
    if how.as_band and len(sources) > 1:
        for i, (metric, label) in enumerate(metrics.items()):
            for split in how.splits:
                _add_band(figure, sources, metric, label, split, _color(metric, i), how)
    else:
        for j, source in enumerate(sources):
            for i, (metric, label) in enumerate(metrics.items()):
                several = len(sources) > 1
                hue = theme.categorical(max(len(sources), 8))[j] if several else _color(metric, i)
                shown = _label(source.name if several else "", label if len(metrics) > 1 or not several else "")
                for split in how.splits:
                    dash = theme.DASHES[i % len(theme.DASHES)] if several and len(metrics) > 1 else None
                    _add_line(figure, source, metric, shown, split, hue, dash, how)
    theme.style(figure, height=height, legend=len(figure.data) > 1)
    form = ".0%" if percent else "~g" if log else None  # "~g": 0.0001, where Plotly would write 100μ
    # a margin that is measured makes the browser draw a chart twice, and these are drawn again while a run trains
    wide = bool(y_title) or log
    figure.update_xaxes(title_text=how.by, automargin=False)
    figure.update_yaxes(title_text=y_title or None, type="log" if log else None, tickformat=form, automargin=wide)
    figure.update_layout(margin={"b": 40} if wide else {"b": 40, "l": 52})
    _place_legend(figure, height)
    if math.isfinite(chance) and figure.data:
        figure.add_hline(y=chance, line={"dash": "dot", "width": 1, "color": theme.look().quiet})
    return figure.update_layout(hovermode="x unified")


def kept_chart(sources: Sequence[Source], metrics: Mapping[str, str], how: How, **more: Any) -> go.Figure:
    """`chart`, made once for all sessions as long as the files of the runs are as they are. Nobody may change it."""
    if any(source.stamp is None for source in sources):
        return chart(sources, metrics, how, **more)
    shown = ("curves", *metrics.items(), how, *more.items(), *((s.name, s.stamp) for s in sources))
    return theme.kept(shown, lambda: chart(sources, metrics, how, **more))


def _place_legend(figure: go.Figure, height: int) -> None:
    """A legend of one line stands above the plot; a longer one below it, in room of its own."""
    shown = [t.name for t in figure.data if t.name and t.showlegend is not False]
    lines = math.ceil(sum(KEY_WIDTH + LETTER_WIDTH * len(name) for name in shown) / LEGEND_WIDTH)
    if lines > 1:
        below = 40 + LEGEND_LINE * lines
        figure.update_layout(
            height=height + LEGEND_LINE * lines,
            margin={"b": below},
            legend={"y": 0, "yref": "container", "yanchor": "bottom", "x": 0},
        )


def _label(*parts: str) -> str:
    return " · ".join(p for p in parts if p)


def _color(metric: str, i: int) -> str:
    term = metric.partition("/")[2]
    if metric.startswith(("loss/", "weighted/", "gradient/")) and term in (*PARTS, "total"):
        return theme.color(term)
    return theme.categorical()[i % 8]


def _add_line(
    figure: go.Figure, source: Source, metric: str, label: str, split: str, hue: str, dash: str | None, how: How
) -> None:
    points = curves.series(source.frame, metric, split, how.by)
    if points.empty:
        return
    y = points["y"].to_numpy()
    name = theme.safe(_label(label, split if len(how.splits) > 1 or not label else ""))
    is_val = split == "val"
    line = {"color": hue, "width": 2, "dash": dash or ("dash" if is_val else "solid")}
    smoothed = how.smoothing > 0 and not is_val and len(y) > 2
    if smoothed:
        faint = {**line, "width": 1}
        quiet = {"opacity": 0.25, "hoverinfo": "skip", "showlegend": False}
        figure.add_scatter(x=points["x"], y=y, mode="lines", line=faint, **quiet)
        y = curves.smooth(y, how.smoothing)
    mode = "lines+markers" if (is_val and len(y) <= 60) or len(y) == 1 else "lines"
    figure.add_scatter(
        x=points["x"], y=y, mode=mode, name=name, line=line, marker={"size": 5, "color": hue}, legendgroup=name,
        hovertemplate="%{y:.4g}",
    )  # fmt: skip


def _add_band(
    figure: go.Figure, sources: Sequence[Source], metric: str, label: str, split: str, hue: str, how: How
) -> None:
    found = curves.band([curves.series(s.frame, metric, split, how.by) for s in sources])
    if found.empty:
        return
    name = theme.safe(_label(label, split, f"mean of {len(sources)} seeds"))
    fill = f"rgba({int(hue[1:3], 16)},{int(hue[3:5], 16)},{int(hue[5:7], 16)},0.18)"
    edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    figure.add_scatter(x=found["x"], y=found["low"], **edge)
    figure.add_scatter(x=found["x"], y=found["high"], fill="tonexty", fillcolor=fill, **edge)
    dash = "dash" if split == "val" else "solid"
    line = {"color": hue, "width": 2, "dash": dash}
    figure.add_scatter(x=found["x"], y=found["mean"], mode="lines", name=name, line=line, hovertemplate="%{y:.4g}")


def spark(values: Sequence[float]) -> list[float]:
    """Up to forty points of a curve for a table cell."""
    step = max(1, len(values) // 40)
    return [float(v) for v in values[::step]]
