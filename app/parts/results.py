"""What a run is worth, with all that it takes to read it: split, gallery, interval, chance and what baselines reach."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from app import shell
from app.charts import names
from app.charts.worth import shown
from app.store import loaders
from stage3.cli import DASH, counted
from stage3.errors import Stage3Error
from stage3.evaluate import measured
from stage3.runs import RunFolder

I2T, T2I, SAME_PAGE = "retrieval/i2t_r5", "retrieval/t2i_r5", "retrieval/same_page_r_precision"
SKILL, RANK = "reconstruction/skill", "collapse/effective_rank"
SHOWN = (I2T, T2I, SAME_PAGE, SKILL, RANK)
SPLITS = {"test": "Test pages", "val": "Validation pages", "train": "Training pages", "all": "All pages"}
HELP = {
    "interval": "95 % interval: whole pages are resampled, since panels of a page resemble each other",
    "chance": "What random embeddings would reach in the same gallery",
    "frozen": "Frozen features: what the model reads, centered on the training panels. A model below them has lost "
    "something in training. Image and text can be compared only where one model made both",
    "untrained": "The model before its first step",
}


def of_run(run: RunFolder) -> dict[str, Any] | None:
    """The run's evaluation on held-out pages; None without a checkpoint, or where the data is not there."""
    if not loaders.steps(run):
        return None
    try:
        return shell.working("Measuring on held-out pages", loaders.evaluation, run)
    except Stage3Error:
        return None  # the views that read the data say why


def table(report: Mapping[str, Any], metrics: Sequence[str] = SHOWN, *, key: str = "results-table") -> None:
    """An evaluation as a table, a line that says on what it was measured, and what training added.

    Args:
        report: of `stage3.evaluate`.
        metrics: the rows.
        key: of the table.
    """
    column = st.column_config.TextColumn
    st.dataframe(
        rows(report, metrics),
        hide_index=True,
        key=key,
        alt=f"{SPLITS[report['split']]}: each metric with its interval, chance, and baselines",
        column_config={
            "metric": column("Metric", width=146),
            "value": column("Trained", width=60),
            "interval": column("95 % interval", width=104, help=HELP["interval"]),
            "chance": column("Chance", width=56, help=HELP["chance"]),
            "frozen": column("Frozen", width=62, help=HELP["frozen"]),
            "untrained": column("Untrained", width=68, help=HELP["untrained"]),
        },
    )
    with st.container(key=f"quiet-{key}", gap="xxsmall"):
        shell.line(basis(report))
        for note in report["notes"]:
            shell.line(f"Note: {note}.")
    sentence(report)


def rows(report: Mapping[str, Any], metrics: Sequence[str] = SHOWN) -> pd.DataFrame:
    """One row per metric that the report has."""
    found = []
    for metric in metrics:
        m = measured(report, metric)
        if math.isnan(m.value):
            continue
        between = f"{shown(metric, m.low)} to {shown(metric, m.high)}" if math.isfinite(m.low) else DASH
        cells = {name: shown(metric, getattr(m, name)) for name in ("value", "chance", "frozen", "untrained")}
        found.append({"metric": names.metric_name(metric), **cells, "interval": between})
    return pd.DataFrame(found, columns=["metric", "value", "interval", "chance", "frozen", "untrained"])


def basis(report: Mapping[str, Any]) -> str:
    """On what a report was measured."""
    chose = ", which chose the checkpoint" if report["split"] == "val" else ""
    return (
        f"{SPLITS[report['split']]}{chose}: {counted(int(report['panels']), 'panel')} of "
        f"{counted(int(report['pages']), 'page')}; R@5 among the {report['gallery']:,.0f} with image and text."
    )


def sentence(report: Mapping[str, Any]) -> None:
    """What training added to the frozen features, in words; a loss stands out."""
    words = str(report["added"]["sentence"])
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if report["added"].get("answer") == "lost":
            st.badge("below frozen features", color="red", icon=":material/warning:")
        st.text(words[:1].upper() + words[1:], width="stretch")
