"""The other parts of Evidence: the validation-noise meter, the loss budget, retrieval against page coherence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from app import shell
from app.charts import evidence as charts
from app.charts import theme
from app.charts.names import PAIR_NAMES, metric_name
from app.store import evidence as files
from stage3.cli import number, percent
from stage3.objectives import TERMS

MEASURES = {
    "spread": (
        "Loss spread",
        "Standard deviation of the validation loss over repeats with unchanged weights, root mean square over epochs",
    ),
    "best_epoch_changes": (
        "Different epochs chosen",
        "Share of pairs of repeats whose smallest loss lies at different epochs",
    ),
    "best_epoch_off": (
        "Wrong epoch chosen",
        "Share of repeats that choose a different epoch than the noiseless validation",
    ),
}
ARM = {"arm": st.column_config.TextColumn("variant")}
SPLITS = {"test": "test books", "val": "validation books"}


def _card(title: str, key: str, about: str) -> Any:
    box = st.container(border=True, key=f"card-{key}", gap="small")
    with box:
        st.subheader(title, anchor=False, help=about)
    return box


# --- the meter


def noise(where: Path) -> None:
    """How far the loss of unchanged weights moves, by cause, and how often another epoch is chosen."""
    meter = files.noise(where)
    if not meter:
        shell.empty(
            "The validation noise was not measured here",
            "The meter validates every epoch's weights repeatedly, with and without dropout and the random mask:",
            files.command(files.metered()),
        )
        return
    _noise_facts(meter)
    columns = st.columns(3, gap="small")
    for column, (measure, (title, about)) in zip(columns, MEASURES.items(), strict=True):
        with column, _card(title, f"noise-{measure}", about):
            figure = charts.noise(meter, measure, percent=measure != "spread")
            figure.update_layout(showlegend=False)
            theme.show(figure, key=f"evidence-noise-{measure}", alt=f"{title}, by cause of noise")
    _repeats(meter)


def _noise_facts(meter: Mapping[str, Mapping[str, Any]]) -> None:
    """The effect of each cause, in numbers; the colors of the bars by variant."""
    rows = []
    for arm, found in meter.items():
        row: dict[str, Any] = {"arm": arm, "runs": found.get("runs")}
        for cause, name in charts.CAUSE_NAMES.items():
            spread, changes = (
                found["means"].get(f"noise/{cause}/{m}", float("nan")) for m in ("spread", "best_epoch_changes")
            )
            row[name] = f"{number(spread, '.3g')} · {percent(changes, 0)}"
        rows.append(row)
    with _card("Loss spread · different epochs chosen", "noise-facts", "Means over the runs of a variant"):
        table = pd.DataFrame(rows)
        hues = [theme.categorical()[i % 8] for i in range(len(rows))]
        shown = table.style.apply(lambda column: [f"color: {h}" for h in hues], subset=["arm"])
        st.dataframe(
            shown,
            hide_index=True,
            key="evidence-noise-table",
            alt="Loss spread, and how often the chosen epoch changes",
            column_config=ARM,
        )


def _repeats(meter: Mapping[str, Mapping[str, Any]]) -> None:
    about = "Each thin line validates the same checkpoints with another seed; a ring marks the epoch it would choose"
    with _card("First run, validated repeatedly", "noise-repeats", about):
        with st.container(horizontal=True, gap="medium", vertical_alignment="bottom"):
            arm = st.selectbox("Variant", list(meter), key="evidence-noise-arm", width=420)
            causes = [c for c in charts.CAUSE_NAMES if c in meter[arm]["losses_of_seed_0"]]
            cause = st.segmented_control(
                "Noise", causes, default=causes[-1], required=True, key="evidence-noise-cause",
                format_func=lambda c: charts.CAUSE_NAMES[c],
            )  # fmt: skip
        losses = meter[arm]["losses_of_seed_0"]
        picked = pd.DataFrame(losses[str(cause)]).idxmin() + 1
        counts = ", ".join(f"epoch {e}: {n} of {len(picked)}" for e, n in picked.value_counts().sort_index().items())
        st.text(f"Smallest loss at {counts} repeats.")
        theme.show(charts.repeats(losses, str(cause)), key="evidence-noise-repeats", alt=f"Repeated losses: {counts}")


# --- the budget


def budget(where: Path) -> None:
    """How hard each loss pulls on the encoder, and whether they pull the same way."""
    frame = files.table(where, "budget")
    if frame.empty:
        shell.empty("No loss budget was written here", "Every experiment writes one:", files.COMMAND)
        return
    arms = list(dict.fromkeys(frame["arm"].astype(str)))
    base = files.base_arm(files.table(where, "runs"), arms)
    arm = st.selectbox("Variant", arms, index=arms.index(base), key="evidence-budget-arm", width=460)
    left, right = st.columns(2, gap="small")
    seeds = int(frame.loc[frame["arm"] == arm, "seeds"].max())
    band = f"mean over {seeds} seeds, band from minimum to maximum"
    with (
        left,
        _card("Gradient norm per loss", "budget-norm", f"Norm on the encoder, losses weighted; {band}"),
    ):
        theme.show(charts.budget(frame, arm, "gradient"), key="evidence-budget-norm", alt="Gradient norms by epoch")
    with right, _card("Gradient agreement", "budget-cosine", f"Cosine between two losses' gradients; {band}"):
        theme.show(charts.budget(frame, arm, "gradient_cosine"), key="evidence-budget-cosine", alt="Cosines by epoch")
    with _card("Every variant at its last epoch", "budget-table", "Means over seeds"):
        st.dataframe(
            last_epoch(frame),
            key="evidence-budget-table",
            height=330,
            alt="Gradient norms and cosines of every variant",
            column_config={"_index": st.column_config.TextColumn("variant", width="large")}
            | {c: st.column_config.NumberColumn(format="%.3f") for c in (*TERMS, *PAIR_NAMES.values())},
        )


def last_epoch(frame: pd.DataFrame) -> pd.DataFrame:
    """Variants by gradient norms and cosines at the last epoch of each."""
    names = {f"gradient/{t}": t for t in TERMS} | {f"gradient_cosine/{p}": n for p, n in PAIR_NAMES.items()}
    known = frame[frame["metric"].isin(names)]
    last = known[known["epoch"] == known.groupby("arm")["epoch"].transform("max")]
    wide = last.pivot_table(index="arm", columns="metric", values="mean", sort=False).rename(columns=names)
    return wide[[n for n in names.values() if n in wide]]


# --- the trade-off


def tradeoff(where: Path) -> None:
    """What the sweeps of weights, temperatures and batch sizes gain and lose."""
    frame = files.table(where, "pareto")
    if frame.empty:
        shell.empty(
            "No sweep was run here",
            "The sweeps train with other weights, temperatures and batch sizes:",
            files.command(files.swept()),
        )
        return
    split = str(
        st.segmented_control(
            "Measured on", list(SPLITS), default="test", required=True, format_func=lambda s: SPLITS[s],
            key="evidence-split", help="Settings are chosen on the validation books and measured on the test books",
        )
    )  # fmt: skip
    about = "Dot: mean over seeds; bars: one standard deviation. No other variant beats one of the Pareto front in both"
    with _card("Retrieval, page coherence", "pareto", about):
        figure = charts.pareto(frame, split)
        on_front = frame.loc[frame[f"{split}_front"].astype(bool), "arm"].astype(str).tolist()
        alt = f"{len(frame)} variants; on the Pareto front: {', '.join(on_front)}"
        theme.show(figure, key="evidence-pareto", alt=alt)
    columns = {
        f"{split}_retrieval": metric_name("retrieval/mean_r5"),
        f"{split}_page_coherence": metric_name("retrieval/same_page_r_precision"),
    }
    table = frame.sort_values(f"{split}_retrieval", ascending=False)
    shown = table[["arm", "changes", "findings", "seeds", f"{split}_front", *columns]].rename(columns=columns)
    shares = {c: st.column_config.NumberColumn(format="percent") for c in columns.values()}
    st.dataframe(
        shown.rename(columns={f"{split}_front": "Pareto front"}),
        hide_index=True,
        key="evidence-pareto-table",
        height=330,
        alt="Every variant of the sweeps",
        column_config=ARM | shares | {"changes": st.column_config.TextColumn(width="large")},
    )
