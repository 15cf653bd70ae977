"""Charts of retrieval quality: each metric with its interval beside chance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from app.charts import names, theme
from stage3.cli import number, percent

METRICS = {"r1": "R@1", "r5": "R@5", "r10": "R@10", "mrr": "MRR"}


def metric_table(report: Mapping[str, Any]) -> pd.DataFrame:
    """One row per metric and direction: value, low, high, chance, from an evaluation report."""
    rows = []
    for way, direction in names.WAYS.items():
        for short, label in METRICS.items():
            key = f"retrieval/{way}_{short}"
            low, high = report["intervals"].get(key, (math.nan, math.nan))
            value, chance = report.get(key, math.nan), report["chance"].get(key, math.nan)
            rows.append((direction, label, value, low, high, chance))
    return pd.DataFrame(rows, columns=["direction", "metric", "value", "low", "high", "chance"])


def metric_words(table: pd.DataFrame) -> pd.DataFrame:
    """The table for reading: percent for shares, three digits for MRR."""

    def shown(row: Any, name: str) -> str:
        return number(row[name]) if row["metric"] == "MRR" else percent(row[name])

    return pd.DataFrame(
        {
            "": [f"{r['metric']}  {r['direction']}" for _, r in table.iterrows()],
            "value": [shown(r, "value") for _, r in table.iterrows()],
            "95 % interval": [f"{shown(r, 'low')} to {shown(r, 'high')}" for _, r in table.iterrows()],
            "chance": [shown(r, "chance") for _, r in table.iterrows()],
        }
    )


def show_metrics(table: pd.DataFrame) -> None:
    """Both directions side by side: bars with intervals, and a short line where chance lies."""
    figure = theme.kept(("search metrics", table.to_json()), lambda: _metrics(table))
    said = "; ".join(f"{r['metric']} {r['direction']} {r['value']:.3f}" for _, r in table.iterrows())
    theme.show(figure, key="search-metrics", alt=f"Retrieval in both directions against chance: {said}")


def _metrics(table: pd.DataFrame) -> go.Figure:
    figure = go.Figure()
    colors = theme.categorical()
    for i, (way, part) in enumerate(table.groupby("direction", sort=False)):
        figure.add_bar(
            x=part["metric"],
            y=part["value"],
            name=str(way),
            marker_color=colors[i],
            error_y={
                "type": "data",
                "array": (part["high"] - part["value"]).fillna(0),
                "arrayminus": (part["value"] - part["low"]).fillna(0),
                "thickness": 1.5,
                "width": 5,
                "color": theme.look().text,
            },
            hovertemplate="%{x} " + str(way) + ": %{y:.3f}<extra></extra>",
        )
    first = table[table["direction"] == table["direction"].iloc[0]]
    figure.add_scatter(
        x=first["metric"],
        y=first["chance"],
        name="chance",
        mode="markers",
        marker={"symbol": "line-ew", "size": 70, "line": {"width": 2, "color": theme.look().quiet}},
        hovertemplate="chance %{y:.3f}<extra></extra>",
    )
    top = min(1.0, 1.15 * max(0.05, float(table[["value", "high", "chance"]].max().max())))
    figure.update_layout(barmode="group", bargap=0.35, bargroupgap=0.08)
    theme.style(figure, height=310)
    return figure.update_yaxes(range=[0, top], tickformat=".0%" if top > 0.1 else ".1%")
