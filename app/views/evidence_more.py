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
from app.store import evidence as files
from stage3.objectives import TERMS

MEASURES = {
    "spread": (
        "Spread of the loss",
        "Standard deviation of the total validation loss of unchanged weights over repeats, rms over epochs",
    ),
    "best_epoch_changes": (
        "Two validations choose different epochs",
        "Share of pairs of repeats whose smallest loss lies at different epochs",
    ),
    "best_epoch_off": (
        "Another epoch than without noise",
        "Share of repeats that choose another epoch than the noiseless validation",
    ),
}
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
            "The validation-noise meter was not read here",
            "It validates every epoch's weights again and again, with and without dropout and the random mask:",
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
    """What each cause does, in numbers; the colors of the bars by arm."""
    rows = []
    for arm, found in meter.items():
        row: dict[str, Any] = {"arm": arm, "runs": found.get("runs")}
        for cause, name in charts.CAUSE_NAMES.items():
            spread, changes = (
                found["means"].get(f"noise/{cause}/{m}", float("nan")) for m in ("spread", "best_epoch_changes")
            )
            row[name] = f"{spread:.3g} · {100 * changes:.0f} %"
        rows.append(row)
    with _card(
        "Spread of the loss · how often the chosen epoch changes", "noise-facts", "Means over the runs of an arm"
    ):
        table = pd.DataFrame(rows)
        hues = [theme.categorical()[i % 8] for i in range(len(rows))]
        shown = table.style.apply(lambda column: [f"color: {h}" for h in hues], subset=["arm"])
        st.dataframe(shown, hide_index=True, key="evidence-noise-table", alt="Spread and changes of the best epoch")


def _repeats(meter: Mapping[str, Mapping[str, Any]]) -> None:
    about = "Each thin line validates the same checkpoints under another seed; a ring marks the epoch it would choose"
    with _card("The first run, validated again and again", "noise-repeats", about):
        with st.container(horizontal=True, gap="medium", vertical_alignment="bottom"):
            arm = st.selectbox("Arm", list(meter), key="evidence-noise-arm", width=420)
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
    arm = st.selectbox("Arm", arms, index=arms.index(base), key="evidence-budget-arm", width=460)
    left, right = st.columns(2, gap="small")
    seeds = int(frame.loc[frame["arm"] == arm, "seeds"].max())
    band = f"mean over {seeds} seeds, band from the least to the most"
    with left, _card("Who does the work", "budget-norm", f"Gradient norm of each weighted loss on the encoder; {band}"):
        theme.show(charts.budget(frame, arm, "gradient"), key="evidence-budget-norm", alt="Gradient norms by epoch")
    with right, _card("Do they pull the same way", "budget-cosine", f"Cosine between two losses' gradients; {band}"):
        theme.show(charts.budget(frame, arm, "gradient_cosine"), key="evidence-budget-cosine", alt="Cosines by epoch")
    with _card("Every arm at its last epoch", "budget-table", "Means over seeds"):
        st.dataframe(
            last_epoch(frame),
            key="evidence-budget-table",
            height=330,
            alt="Gradient norms and cosines of every arm",
            column_config={"_index": st.column_config.TextColumn("arm", width="large")}
            | {c: st.column_config.NumberColumn(format="%.3f") for c in (*TERMS, *charts.PAIR_NAMES.values())},
        )


def last_epoch(frame: pd.DataFrame) -> pd.DataFrame:
    """Arms by gradient norms and cosines at each arm's last epoch."""
    names = {f"gradient/{t}": t for t in TERMS} | {f"gradient_cosine/{p}": n for p, n in charts.PAIR_NAMES.items()}
    known = frame[frame["metric"].isin(names)]
    last = known[known["epoch"] == known.groupby("arm")["epoch"].transform("max")]
    wide = last.pivot_table(index="arm", columns="metric", values="mean", sort=False).rename(columns=names)
    return wide[[n for n in names.values() if n in wide]]


# --- the trade-off


def tradeoff(where: Path) -> None:
    """What the sweeps of weights, temperatures and batch sizes buy, and at what price."""
    frame = files.table(where, "pareto")
    if frame.empty:
        shell.empty(
            "No sweep was run here",
            "The sweeps train the system under other weights, temperatures and batch sizes:",
            files.command(files.swept()),
        )
        return
    split = str(
        st.segmented_control(
            "Measured on", list(SPLITS), default="test", required=True, format_func=lambda s: SPLITS[s],
            key="evidence-split", help="A setting is chosen on the validation books; the test books say what it gives",
        )
    )  # fmt: skip
    about = "Dot: mean over seeds; bars: one standard deviation. No other arm beats an arm of the front in both"
    with _card("Retrieval against page coherence", "pareto", about):
        figure = charts.pareto(frame, split)
        on_front = frame.loc[frame[f"{split}_front"].astype(bool), "arm"].astype(str).tolist()
        alt = f"{len(frame)} arms; on the front: {', '.join(on_front)}"
        theme.show(figure, key="evidence-pareto", alt=alt)
    columns = {f"{split}_retrieval": "R@5, both ways", f"{split}_page_coherence": "same-page precision"}
    table = frame.sort_values(f"{split}_retrieval", ascending=False)
    shown = table[["arm", "changes", "findings", "seeds", f"{split}_front", *columns]].rename(columns=columns)
    percent = {c: st.column_config.NumberColumn(format="percent") for c in columns.values()}
    st.dataframe(
        shown.rename(columns={f"{split}_front": "front"}),
        hide_index=True,
        key="evidence-pareto-table",
        height=330,
        alt="Every arm of the sweeps",
        column_config=percent | {"changes": st.column_config.TextColumn(width="large")},
    )
