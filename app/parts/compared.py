"""Two runs side by side: what differs in what they are worth, colored only where it is more than noise."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import streamlit as st

from app import shell
from app.charts import names, theme
from app.charts.worth import shown
from app.parts.results import SPLITS
from app.store import loaders
from stage3.cli import DASH, counted
from stage3.errors import Stage3Error
from stage3.evaluate.between import BETTER, NOISE, NOT, UNKNOWN, WORSE, Comparison
from stage3.runs import RunFolder
from stage3.runs.curves import is_share

FIRST = (  # rows in this order, then the losses; the others are in the file that `stage3.evaluate` writes
    "retrieval/same_page_r_precision", "retrieval/i2t_r5", "retrieval/t2i_r5", "retrieval/i2t_mrr", "retrieval/t2i_mrr",
    "retrieval/within_page_i2t", "retrieval/within_page_t2i", "reconstruction/skill",
)  # fmt: skip
DIFFERENCE_HELP = (
    "Second minus first on the same panels, with its 95 % interval from resampling pages. Gray: the interval holds 0. "
    "Another seed can move a run by more than that"
)


def of_runs(first: RunFolder, second: RunFolder) -> Comparison | None:
    """The comparison; None where there is none, with a line that says why."""
    try:
        return shell.working("Comparing panel by panel", loaders.comparison, first, second)
    except Stage3Error as error:
        shell.line(f"Not compared panel by panel: {error}")
        return None


def table(found: Comparison, called: tuple[str, str], *, key: str) -> None:
    """The metrics of both runs, the difference with its interval, and the verdict in words and color."""
    rows = rows_of(found, called)
    hues = {BETTER: theme.categorical()[2], WORSE: theme.categorical()[5]}
    look = rows.style.map(lambda v: f"color: {next((h for n, h in hues.items() if n in str(v)), theme.look().quiet)}",
                          subset=["verdict"])  # fmt: skip
    text = st.column_config.TextColumn
    st.dataframe(
        look,
        hide_index=True,
        key=key,
        height="content",
        alt="Each metric of both runs with difference, interval and verdict",
        column_config={
            "metric": text("Metric", width=150),
            **{name: text(name.capitalize(), width=64) for name in called},
            "difference": text("Difference", width=176, help=DIFFERENCE_HELP),
            "verdict": text("Verdict", width=170),
        },
    )
    with st.container(key=f"quiet-{key}", gap="xxsmall"):
        shell.line(basis(found))


def basis(found: Comparison) -> str:
    """On what two runs were compared."""
    return (
        f"{SPLITS[found.split]} that neither run was trained on: {counted(found.panels, 'panel')} of "
        f"{counted(found.pages, 'page')}, {found.gallery:,} with image and text. Paired by panel; intervals by page."
    )


def rows_of(found: Comparison, called: tuple[str, str]) -> pd.DataFrame:
    """The table for reading, losses last; `called` names the two columns of values."""
    known: dict[str, Any] = {r["metric"]: r for r in found.table.to_dict("records")}
    order = [m for m in FIRST if m in known] + [m for m in known if m.startswith("loss/")]
    made = []
    for metric in order:
        r = known[metric]
        made.append(
            {
                "metric": names.metric_name(metric),
                called[0]: value(metric, r["first"]),
                called[1]: value(metric, r["second"]),
                "difference": difference(metric, r),
                "verdict": verdict_words(r),
            }
        )
    return pd.DataFrame(made, columns=["metric", *called, "difference", "verdict"])


def value(metric: str, number: float) -> str:
    """A metric's value; losses with three digits."""
    return f"{number:.3f}" if metric.startswith("loss/") else shown(metric, number)


def difference(metric: str, row: dict[str, Any]) -> str:
    """The difference and its interval, in points of percent for shares."""
    if math.isnan(row["difference"]):
        return DASH
    scale, form = (100, "+.1f") if is_share(metric) else (1, "+.3f")
    words = [f"{scale * row[n]:{form}}".replace("-", "−") for n in ("difference", "low", "high")]
    if not math.isfinite(row["low"]):
        return words[0]
    return f"{words[0]} [{words[1]}, {words[2]}]"


def verdict_words(row: dict[str, Any]) -> str:
    """The verdict with an arrow for where the number went: "↓ better" of a loss that fell."""
    verdict = str(row["verdict"])
    if verdict == NOT:
        return f"{NOT}: {row['why']}"
    if verdict not in (BETTER, WORSE):
        return verdict
    return f"{'↑' if row['difference'] > 0 else '↓'} {verdict}"


def delta(found: Comparison, metric: str) -> dict[str, Any]:
    """`st.metric`'s arguments for a metric of the second run: a color only where the verdict is one."""
    known: dict[str, Any] = {r["metric"]: r for r in found.table.to_dict("records")}
    row = known.get(metric)
    if row is None:
        return {}
    if row["verdict"] == NOT:
        return {"delta": f"{NOT}: {row['why']}", "delta_color": "off", "delta_arrow": "off"}
    scale, form, unit = (100, "+.1f", " points") if is_share(metric) else (1, "+.3f", "")
    words = f"{scale * row['difference']:{form}}{unit}"
    rises = row["difference"] > 0
    if row["verdict"] in (NOISE, UNKNOWN):
        return {"delta": words, "delta_color": "off", "delta_arrow": "off", "delta_description": row["verdict"]}
    good = row["verdict"] == BETTER
    return {"delta": words, "delta_color": "normal" if rises == good else "inverse"}
