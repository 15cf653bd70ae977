"""The data report in numbers, charts and anomalies: of a run's data set, and of one that was just imported."""

from __future__ import annotations

import re

import pandas as pd
import streamlit as st

from app import shell
from app.charts import data as charts
from stage3.cli import percent
from stage3.data.readers.report import ANOMALIES
from stage3.data.table import DataReport


def numbers(report: DataReport) -> None:
    """How many pages, panels and books, and how much of them is empty or equal."""
    facts, out = report.facts, sum(report.skipped.values())
    values = {
        "Pages listed": f"{report.pages_listed:,}",
        "Pages kept": f"{report.pages_kept:,}",
        "Pages left out": f"{out:,}",
        "Panels": f"{facts.get('panels', 0):,}",
        "Books": f"{facts.get('books', 0):,}",
        "Textless panels": percent(facts.get("textless_share")),
        "Equal images": f"{facts.get('duplicate_images', {}).get('pictures', 0):,}",
    }
    for column, (name, value) in zip(st.columns(len(values)), values.items(), strict=True):
        with column:
            st.metric(name, value)


def charts_of(report: DataReport) -> None:
    """Panels per page, and how many have text, a box, an image."""
    left, right = st.columns(2, gap="medium")
    with left, st.container(border=True, key="card-data-histogram"):
        st.subheader("Panels per page", anchor=False)
        charts.show_panels_per_page(report.facts.get("panels_per_page", {}))
    with right, st.container(border=True, key="card-data-coverage"):
        st.subheader("Coverage", anchor=False)
        charts.show_coverage(report.facts)


def anomalies(report: DataReport) -> None:
    """What was unusual, how often, and the first places."""
    rows = [
        (code, n, ANOMALIES.get(code, "images that cannot be used" if code.startswith("image:") else ""))
        for code, n in report.counts.most_common()
        if n and not code.startswith("page:")
    ]
    if not rows:
        shell.line("Nothing unusual was found: every box, text and image could be used as it is.")
        return
    table = pd.DataFrame(
        [(code, n, meaning, (report.examples.get(code) or [""])[0]) for code, n, meaning in rows],
        columns=["code", "count", "meaning", "first"],
    )
    event = st.dataframe(
        table,
        hide_index=True,
        key="data_anomalies",
        on_select="rerun",
        selection_mode="single-row",
        column_config={"meaning": st.column_config.TextColumn(width="large")},
    )
    picked = event["selection"]["rows"] if event else []
    code = rows[picked[0] if picked and picked[0] < len(rows) else 0][0]
    examples = report.examples.get(code, [])
    if examples:
        with st.container(key="quiet-data-examples"):
            shell.line(f"{code}: the first {len(examples)} of {report.counts[code]:,}. Choose a row for another code.")
        st.code("\n".join(re.sub(r"[^\S ]+", " ", e) for e in examples), language=None, wrap_lines=True)
