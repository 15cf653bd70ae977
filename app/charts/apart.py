"""What sets a selection apart, as pairs of bars: inside against outside, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from app.charts import theme
from stage3.cli import number, percent
from stage3.metrics.bootstrap import Interval
from stage3.selection import Fact

ROW = 46  # pixels


def bars(facts: Sequence[Fact]) -> go.Figure:
    """One row per fact. Shares go from 0 to 100 %; a loss is drawn in parts of its own largest value.

    Args:
        facts: of `stage3.selection.apart`, in the order of the rows.
    """
    look = theme.look()
    figure = go.Figure()
    sides = (("inside", look.accent, -0.16), ("outside", look.quiet, 0.16))
    for name, color, shift in sides:
        found: list[Interval] = [getattr(fact, name) for fact in facts]
        scale = [_scale(fact) for fact in facts]
        length = [interval.mean / s for interval, s in zip(found, scale, strict=True)]
        figure.add_trace(
            go.Bar(
                orientation="h",
                y=[i + shift for i in range(len(facts))],
                x=length,
                width=0.26,
                name=name,
                marker={"color": color},
                error_x={
                    "array": [(i.high - i.mean) / s for i, s in zip(found, scale, strict=True)],
                    "arrayminus": [(i.mean - i.low) / s for i, s in zip(found, scale, strict=True)],
                    "symmetric": False,
                    "thickness": 1.2,
                    "width": 3,
                    "color": look.text,
                },
                customdata=[_words(fact, interval) for fact, interval in zip(facts, found, strict=True)],
                hovertemplate=f"{name}: %{{customdata}}<extra></extra>",
            )
        )
    theme.style(figure, height=ROW * len(facts) + 58)
    for i, fact in enumerate(facts):
        shown = f"{theme.safe(fact.label, 40)}: {_value(fact, fact.inside)} / {_value(fact, fact.outside)}"
        color = look.text if fact.sure else look.quiet
        figure.add_annotation(x=0, y=i - 0.42, xanchor="left", text=shown, showarrow=False, font={"color": color})
    figure.update_yaxes(range=[len(facts) - 0.5, -0.62], visible=False)
    figure.update_xaxes(range=[0, 1.04], tickformat=".0%", dtick=0.5, fixedrange=True)
    figure.update_yaxes(fixedrange=True)
    return figure.update_layout(barmode="overlay", margin={"l": 4, "r": 8, "t": 26, "b": 22}, font={"size": 12})


def _scale(fact: Fact) -> float:
    if fact.share:
        return 1.0
    ends = [v for i in (fact.inside, fact.outside) for v in (i.mean, i.high) if v == v]
    return max(*ends, 1e-9)


def _value(fact: Fact, interval: Interval) -> str:
    return percent(interval.mean, 0) if fact.share else number(interval.mean, ".2f")


def _words(fact: Fact, interval: Interval) -> str:
    shown = [percent(v) if fact.share else number(v) for v in (interval.mean, interval.low, interval.high)]
    return f"{shown[0]} [{shown[1]}, {shown[2]}], {interval.groups:,} pages"
