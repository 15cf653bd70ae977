"""The charts of the Evidence view: differences with intervals, both variants' curves, noise, gradients, trade-offs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go

from app.charts import theme
from app.charts.names import PAIR_NAMES, metric_name
from stage3.ablate.evidence import difference
from stage3.ablate.noise import CAUSES
from stage3.ablate.terms import HELPS, HURTS, METRICS, NONE
from stage3.objectives import TERMS

if TYPE_CHECKING:
    from stage3.ablate.evidence import Row

ROW = 58  # pixels a comparison takes
DOT_BELOW = 0.16  # share of a row by which the interval lies below its middle
POINTS = "points of percent"
FAR = 4.0
TOOLS = ("zoom", "pan", "select", "lasso", "zoomIn", "zoomOut", "autoScale", "resetScale")
PAIR_COLORS = (3, 4, 6)  # of the palette: none that a term has
CAUSE_NAMES = {"none": "neither", "dropout": "dropout", "mask": "random mask", "both": "both"}


def key_of(row: Row) -> str:
    """The name of a comparison in addresses and charts: `F4:2`."""
    return f"{row.finding}:{row.comparison}"


def hue_of(verdict: str) -> str:
    """The color of a verdict: green-blue, vermilion, gray."""
    return {HELPS: theme.categorical()[2], HURTS: theme.categorical()[5]}.get(verdict, theme.look().quiet)


def by_unit(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The comparisons whose differences have one unit together, shares first: they share a scale."""
    found: dict[str, list[Row]] = {POINTS: []}
    for row in rows:
        found.setdefault(POINTS if METRICS[row.metric].percent else METRICS[row.metric].label, []).append(row)
    return {unit: part for unit, part in found.items() if part}


def gain(row: Row, value: float) -> float:
    """A difference of a row in its unit, turned so that more is better."""
    metric = METRICS[row.metric]
    return value * (100 if metric.percent else 1) * (metric.better or 1)


def forest(rows: Sequence[Row], chosen: str, unit: str) -> go.Figure:
    """Two lines for each comparison: its variants, and below them the difference as dot and interval with the numbers.

    All rows have one unit and one scale, and right of 0 is better in every one: the difference of a metric of which
    less is better is drawn with its sign turned. A nearly invisible bar behind each row takes the click.

    Args:
        rows: one per comparison, top first.
        chosen: `key_of` the row that is marked.
        unit: what the axis counts.
    """
    figure, look = go.Figure(), theme.look()
    at = list(range(len(rows), 0, -1))
    reach = scale_of(rows)
    fills = [_faint(look.accent, 0.14) if key_of(r) == chosen else "rgba(128,128,128,0.004)" for r in rows]
    figure.add_bar(
        x=[2 * reach] * len(rows), y=at, base=-reach, orientation="h", width=0.96,
        marker={"color": fills, "line_width": 0}, customdata=[[key_of(r)] for r in rows], hoverinfo="skip",
        showlegend=False, selected={"marker": {"opacity": 1}}, unselected={"marker": {"opacity": 1}},
    )  # fmt: skip
    for verdict in (HELPS, NONE, HURTS, "not judged"):
        part = [(y, r) for y, r in zip(at, rows, strict=True) if r.verdict == verdict]
        if part:
            _dots(figure, verdict, part, reach)
    theme.style(figure, height=84 + ROW * len(rows))
    # all at once: adding one checks all that are there again
    figure.update_layout(annotations=[note for y, r in zip(at, rows, strict=True) for note in _words(y, r)])
    figure.add_vline(x=0, line={"color": look.quiet, "width": 1, "dash": "dot"}, layer="below")
    figure.update_xaxes(
        range=[-reach, reach], domain=[0.0, 0.5], zeroline=False, nticks=5, tickformat="~g",
        title_text=f"{unit}, right of 0 is better" + ("; triangles: off the scale" if _is_off(rows, reach) else ""),
    )  # fmt: skip
    figure.update_yaxes(visible=False, range=[0.4, len(rows) + 0.6])
    figure.update_layout(margin={"l": 6, "r": 6, "t": 26, "b": 44}, clickmode="event+select", barmode="overlay")
    return figure.update_layout(legend={"x": 0, "xanchor": "left"}, dragmode=False, modebar={"remove": list(TOOLS)})


def scale_of(rows: Sequence[Row]) -> float:
    """Half the width of the axis: the largest bound, but of those far beyond the usual one (`FAR` medians)."""
    largest = [max(abs(gain(r, v)) for v in (r.difference, r.low, r.high) if math.isfinite(v)) for r in rows]
    usual = [b for b in largest if b <= FAR * statistics.median(largest)]
    return 1.08 * max([*usual, 1e-12])


def _is_off(rows: Sequence[Row], reach: float) -> bool:
    return any(abs(gain(r, r.difference)) > reach for r in rows)


def _symbol(row: Row, reach: float) -> str:
    x = gain(row, row.difference)
    shape = "circle" if abs(x) <= reach else "triangle-right" if x > 0 else "triangle-left"
    return shape if row.verdict in (HELPS, HURTS) else f"{shape}-open"


def _dots(figure: go.Figure, verdict: str, part: list[tuple[int, Row]], reach: float) -> None:
    hue = hue_of(verdict)

    def within(value: float) -> float:
        """On the axis; what lies beyond it at its end. NaN stays."""
        return value if math.isnan(value) else min(max(value, -0.97 * reach), 0.97 * reach)

    ends = [sorted((within(gain(r, r.low)), within(gain(r, r.high)))) for _, r in part]
    at = [within(gain(r, r.difference)) for _, r in part]
    above = [high - x for (_, high), x in zip(ends, at, strict=True)]
    below = [x - low for (low, _), x in zip(ends, at, strict=True)]
    figure.add_scatter(
        x=at,
        y=[y - DOT_BELOW for y, _ in part],
        mode="markers",
        name=verdict,
        marker={"color": hue, "size": 10, "symbol": [_symbol(r, reach) for _, r in part]},
        error_x={
            "type": "data", "symmetric": False, "color": hue, "thickness": 2, "width": 4,
            "array": [0.0 if math.isnan(v) else v for v in above],
            "arrayminus": [0.0 if math.isnan(v) else v for v in below],
        },
        customdata=[[key_of(r)] for _, r in part],
        text=[f"{theme.safe(r.label)}: {theme.safe(difference(r))}, {r.seeds} seeds" for _, r in part],
        hovertemplate="%{text}<extra></extra>",
        selected={"marker": {"opacity": 1}},
        unselected={"marker": {"opacity": 1}},
    )  # fmt: skip


def _words(y: int, r: Row) -> list[dict[str, Any]]:
    """The text of a row: its two variants above, the numbers and the metric to the right of the interval."""
    look = theme.look()
    where: dict[str, Any] = {
        "yref": "y",
        "xref": "paper",
        "xanchor": "left",
        "showarrow": False,
        "align": "left",
        "captureevents": False,
    }
    small = f"<span style='color:{look.quiet};font-size:11px'>"
    names = (
        f"<b>{theme.safe(r.finding)}</b>  {theme.safe(r.fixed, 36)}{small}  against {theme.safe(r.reviewed, 32)}</span>"
    )
    told = f"{theme.safe(difference(r))}<br>{small}{theme.safe(r.verdict)} · {theme.safe(r.label, 34)}</span>"
    return [
        {"x": 0, "y": y + 0.3, "text": names, "font": {"size": 12.5, "color": look.text}, **where},
        {"x": 0.52, "y": y - DOT_BELOW, "text": told, "font": {"size": 12.5, "color": hue_or_text(r)}, **where},
    ]


def hue_or_text(row: Row) -> str:
    """The verdict's color where there is an effect, else that of text."""
    return hue_of(row.verdict) if row.verdict in (HELPS, HURTS) else theme.look().text


def arms(curves: pd.DataFrame, names: Mapping[str, str], metric: str, split: str) -> go.Figure:
    """A metric of each variant over epochs: mean over seeds, band from minimum to maximum.

    Args:
        curves: `curves.parquet`.
        names: {arm: label}, at most two; the first is drawn solid, the second dashed.
        metric: its name; likewise `split`.
        split: "train" or "val".
    """
    figure = go.Figure()
    part = curves[(curves["metric"] == metric) & (curves["split"] == split)]
    hues = (theme.categorical()[0], theme.categorical()[1])
    for i, (arm, label) in enumerate(names.items()):
        _line(figure, part[part["arm"] == arm], label, hues[i % 2], theme.DASHES[i % 2])
    theme.style(figure, height=265)
    figure.update_xaxes(title_text="epoch")
    percent = metric in METRICS and METRICS[metric].percent
    return figure.update_yaxes(tickformat=".0%" if percent else None).update_layout(hovermode="x unified")


def budget(frame: pd.DataFrame, arm: str, kind: str) -> go.Figure:
    """The gradient of each weighted loss on the encoder, by epoch: its norm, or the cosine between two of them.

    Args:
        frame: `budget.parquet`.
        arm: of which variant.
        kind: "gradient" or "gradient_cosine".
    """
    figure, norms = go.Figure(), kind == "gradient"
    part = frame[frame["arm"] == arm]
    for i, (name, label) in enumerate({t: t for t in TERMS}.items() if norms else PAIR_NAMES.items()):
        found = part[part["metric"] == f"{kind}/{name}"]
        hue = theme.color(name) if norms else theme.categorical()[PAIR_COLORS[i % len(PAIR_COLORS)]]
        _line(figure, found, label, hue, theme.DASHES[i % len(theme.DASHES)])
    theme.style(figure, height=300)
    figure.update_xaxes(title_text="epoch")
    if norms:
        figure.update_yaxes(title_text="gradient norm", type="log", dtick=1)
    else:
        figure.update_yaxes(title_text="cosine, −1 to 1", range=[-1.05, 1.05])
        figure.add_hline(y=0, line={"color": theme.look().quiet, "width": 1, "dash": "dot"})
    return figure.update_layout(hovermode="x unified")


def _line(figure: go.Figure, part: pd.DataFrame, label: str, hue: str, dash: str) -> None:
    """Mean and band of one arm's rows; nothing without rows."""
    if part.empty:
        return
    part = part.sort_values("epoch")
    edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    figure.add_scatter(x=part["epoch"], y=part["low"], **edge)
    figure.add_scatter(x=part["epoch"], y=part["high"], fill="tonexty", fillcolor=_faint(hue, 0.18), **edge)
    figure.add_scatter(
        x=part["epoch"], y=part["mean"], mode="lines", name=theme.safe(label, 60),
        line={"color": hue, "width": 2.2, "dash": dash}, hovertemplate="%{y:.4g}",
    )  # fmt: skip


def noise(meter: Mapping[str, Mapping[str, Any]], measure: str, percent: bool) -> go.Figure:
    """A measure of the meter for each cause of noise: bars for means over runs, a dot for each run.

    Args:
        meter: `noise.json`, by arm.
        measure: "spread", "best_epoch_changes" or "best_epoch_off".
        percent: y as a percentage.
    """
    figure = go.Figure()
    causes = list(CAUSES)
    for i, (arm, found) in enumerate(meter.items()):
        hue = theme.categorical()[i % 8]
        means = [found["means"].get(f"noise/{c}/{measure}") for c in causes]
        names = [CAUSE_NAMES.get(c, c) for c in causes]
        look: dict[str, Any] = {"name": theme.safe(arm, 60), "offsetgroup": str(i), "legendgroup": str(i)}
        bar = {"color": _faint(hue, 0.55), "line": {"color": hue, "width": 1}}
        figure.add_bar(x=names, y=means, marker=bar, hovertemplate="%{y:.3g}<extra>mean of runs</extra>", **look)
        dots = [(CAUSE_NAMES.get(c, c), v) for c in causes for v in found["by_seed"].get(f"noise/{c}/{measure}", [])]
        figure.add_scatter(
            x=[c for c, _ in dots], y=[v for _, v in dots], mode="markers", **{**look, "showlegend": False},
            marker={"color": hue, "size": 6, "line": {"color": theme.look().paper, "width": 1}},
            hovertemplate="%{y:.3g}<extra>one run</extra>",
        )  # fmt: skip
    theme.style(figure, height=300)
    figure.update_layout(barmode="group", scattermode="group", legend={"orientation": "v", "y": 1, "yanchor": "top"})
    return figure.update_yaxes(tickformat=".0%" if percent else None, rangemode="tozero")


def repeats(losses: Mapping[str, Sequence[Sequence[float]]], cause: str) -> go.Figure:
    """Every repeat's validation loss by epoch, the noiseless one on top, and a ring at the minimum of each.

    Args:
        losses: {cause: E epochs of R repeats}, of one run.
        cause: which to show.
    """
    figure, look = go.Figure(), theme.look()
    values = pd.DataFrame(losses[cause], index=range(1, len(losses[cause]) + 1))
    hue, ring = theme.categorical()[0], theme.categorical()[5]
    for i, repeat in enumerate(values):
        figure.add_scatter(
            x=values.index, y=values[repeat], mode="lines", line={"color": _faint(hue, 0.6), "width": 1.2},
            name="repeats", legendgroup="repeats", showlegend=i == 0, hovertemplate="%{y:.4f}<extra>a repeat</extra>",
        )  # fmt: skip
    best = values.idxmin()
    figure.add_scatter(
        x=best, y=values.min(), mode="markers", name="chosen epoch", hovertemplate="epoch %{x}<extra></extra>",
        marker={"color": ring, "size": 11, "symbol": "circle-open", "line": {"width": 2}},
    )  # fmt: skip
    if "none" in losses and cause != "none":
        clean = [row[0] for row in losses["none"]]
        line = {"color": look.text, "width": 2, "dash": "dash"}
        figure.add_scatter(x=values.index, y=clean, mode="lines", name="without noise", line=line)
    theme.style(figure, height=300)
    figure.update_xaxes(title_text="epoch")
    return figure.update_yaxes(title_text="validation loss")


def pareto(frame: pd.DataFrame, split: str) -> go.Figure:
    """Retrieval against page coherence, a dot for each variant of the sweeps, with the Pareto front.

    Args:
        frame: `pareto.parquet`.
        split: "val" or "test".
    """
    x, y = f"{split}_retrieval", f"{split}_page_coherence"
    figure, look = go.Figure(), theme.look()
    ordered = frame.sort_values(x)
    front = ordered[ordered[f"{split}_front"].astype(bool)]
    for part, name, hue, size in (
        (ordered.drop(front.index), "dominated", look.quiet, 8),
        (front, "Pareto front", theme.categorical()[0], 11),
    ):
        bars = {"color": _faint(hue, 0.35), "thickness": 1, "width": 0}
        texts = [
            f"{theme.safe(a)}<br>{theme.safe(_plain(c), 120)}<br>{n} seeds"
            for a, c, n in zip(part["arm"], part["changes"], part["seeds"], strict=True)
        ]
        figure.add_scatter(
            x=part[x], y=part[y], name=name, mode="markers+text" if part is front else "markers",
            marker={"color": hue, "size": size}, customdata=texts,
            text=[theme.safe(a, 34) for a in part["arm"]], textposition="top center",
            textfont={"size": 11, "color": look.text},
            error_x=bars | {"type": "data", "array": part[f"{x}_std"]},
            error_y=bars | {"type": "data", "array": part[f"{y}_std"]},
            hovertemplate="%{customdata}<br>R@5 %{x:.1%}, same page %{y:.1%}<extra></extra>",
        )  # fmt: skip
    line = {"color": theme.categorical()[0], "width": 1.5, "dash": "dot"}
    figure.add_scatter(x=front[x], y=front[y], mode="lines", line=line, showlegend=False, hoverinfo="skip")
    theme.style(figure, height=480)
    figure.update_xaxes(title_text=metric_name("retrieval/mean_r5"), tickformat=".0%")
    return figure.update_yaxes(title_text="same-page precision", tickformat=".0%")


def _plain(changes: object) -> str:
    """Settings as written in the file, without JSON's brackets and quotes."""
    return str(changes).strip("{}").replace('"', "") or "nothing changed"


def _faint(hue: str, opacity: float) -> str:
    return f"rgba({int(hue[1:3], 16)},{int(hue[3:5], 16)},{int(hue[5:7], 16)},{opacity})"
