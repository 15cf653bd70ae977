"""Evidence: what `stage3.ablate` measured for each finding of the loss review, with its interval and its command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from app import loaders, shell
from app.charts import theme
from stage3.config import DataError

COLUMNS = (
    "finding",
    "question",
    "fixed",
    "reviewed",
    "metric",
    "difference",
    "low",
    "high",
    "verdict",
    "seeds",
    "command",
)
VERDICTS: dict[str, Any] = {"helps": "green", "no effect here": "gray", "hurts": "red"}
FOLDERS = (Path("runs") / "evidence", loaders.SAMPLES / "evidence")
COMMAND = "python -m stage3.ablate --findings all --seeds 5"


def folders() -> list[Path]:
    """Folders of evidence that are there: made here first, then the shipped one."""
    return [loaders.base() / f for f in FOLDERS if (loaders.base() / f / "evidence.parquet").is_file()]


def read(folder: Path) -> pd.DataFrame:
    """The table of an evidence folder.

    Raises:
        DataError: it is no Parquet file, or lacks a column.
    """
    import pyarrow

    path = folder / "evidence.parquet"
    try:
        frame = pd.read_parquet(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path.name}: not readable: {' '.join(str(error).split())[:200]}. Run: {COMMAND}") from None
    missing = [c for c in COLUMNS if c not in frame.columns]
    if missing:
        raise DataError(f"{path.name}: missing column {missing[0]!r}; it has {', '.join(map(str, frame.columns))}.")
    return frame


def render() -> None:
    """The verdicts, the differences with their intervals, and one finding in full."""
    shell.heading(
        "Evidence",
        "Each finding of the loss review as an experiment: the same run with and without it, over the same seeds.",
    )
    found = folders()
    if not found:
        shell.empty(
            "No evidence has been made yet",
            "The command below trains each pair over five seeds on the sample comics and writes runs/evidence.",
            COMMAND,
        )
        return
    labels = {str(f): "made here" if f.parent.name == "runs" else "shipped with the samples" for f in found}
    where = found[0]
    if len(found) > 1:
        where = Path(
            st.segmented_control(
                "Evidence",
                list(labels),
                format_func=lambda f: labels[f],
                default=str(found[0]),
                required=True,
                key="evidence-folder",
            )
        )
    frame = read(where)
    if frame.empty:
        shell.empty("The evidence table is empty", "No finding was run. Run them all:", COMMAND)
        return
    _summary(frame, labels[str(where)])
    left, right = st.columns([3, 2], gap="medium")
    with left, st.container(border=True, key="card-forest"):
        st.subheader("Fixed minus reviewed", anchor=False, help="Paired over seeds; the bar is the interval")
        theme.show(forest(frame), key="evidence-forest", alt="Difference and interval of every finding's metrics")
    with right, st.container(border=True, key="card-finding"):
        _finding(frame, where)
    st.dataframe(frame, hide_index=True, height=320, key="evidence-table")


def _summary(frame: pd.DataFrame, label: str) -> None:
    with st.container(horizontal=True, gap="medium", vertical_alignment="center"):
        st.metric("Findings", str(frame["finding"].nunique()), width=130)
        for verdict in VERDICTS:
            st.metric(verdict.capitalize(), str(int((frame["verdict"] == verdict).sum())), width=150)
        st.metric("Seeds a pair", str(int(frame["seeds"].max())), width=130)
        st.text(f"One count a finding and metric; {label}.")


def forest(frame: pd.DataFrame) -> go.Figure:
    """Each finding's difference with its interval.

    Metrics differ in unit, so rows are scaled by the widest |bound| of their metric; hovering gives the numbers.
    """
    look = theme.look()
    hues = {"helps": theme.categorical()[2], "hurts": theme.categorical()[5], "no effect here": look.quiet}
    figure = go.Figure()
    rows = frame.reset_index(drop=True).iloc[::-1]
    scale = rows.groupby("metric")[["low", "high", "difference"]].transform(lambda c: c.abs().max()).max(axis=1)
    scale = scale.where(scale > 0, 1.0)
    for verdict, hue in hues.items():
        part = rows[rows["verdict"] == verdict]
        if part.empty:
            continue
        by = scale[part.index]
        names = [theme.safe(f"{f} · {m}", 60) for f, m in zip(part["finding"], part["metric"], strict=True)]
        texts = [f"{d:+.3g} [{a:+.3g}, {b:+.3g}]" for d, a, b in part[["difference", "low", "high"]].to_numpy()]
        figure.add_scatter(
            x=part["difference"] / by,
            y=names,
            mode="markers",
            name=verdict,
            marker={"color": hue, "size": 9},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": (part["high"] - part["difference"]) / by,
                "arrayminus": (part["difference"] - part["low"]) / by,
                "color": hue,
                "thickness": 2,
            },
            text=texts,
            hovertemplate="%{y}<br>%{text}<extra></extra>",
        )
    theme.style(figure, height=max(260, 60 + 26 * len(rows)))
    figure.add_vline(x=0, line={"color": look.quiet, "width": 1, "dash": "dot"})
    figure.update_xaxes(
        title_text="difference, scaled to its metric's widest interval (exact numbers on hover)", range=[-1.1, 1.1]
    )
    return figure.update_layout(margin={"l": 10}).update_yaxes(automargin=True)


def _finding(frame: pd.DataFrame, where: Path) -> None:
    names = frame["finding"].astype(str).drop_duplicates().tolist()
    asked = shell.param("finding")
    at = names.index(asked) if asked in names else 0
    name = st.selectbox("Finding", names, index=at, key="evidence-finding")
    shell.set_params(finding=name)
    rows = frame[frame["finding"].astype(str) == name]
    st.text(str(rows["question"].iloc[0]))
    for row in rows.to_dict("records"):
        with st.container(horizontal=True, gap="small", vertical_alignment="center"):
            st.badge(
                str(row["verdict"]) if row["verdict"] in VERDICTS else "?",
                color=VERDICTS.get(str(row["verdict"]), "gray"),
            )
            st.text(
                f"{row['metric']}: {_number(row['reviewed'])} reviewed, {_number(row['fixed'])} fixed; "
                f"{_number(row['difference'], '+')} [{_number(row['low'], '+')}, {_number(row['high'], '+')}], "
                f"{row['seeds']} seeds",
                width="stretch",
            )
    shell.line("The command that makes it again")
    st.code(str(rows["command"].iloc[0]), language="bash", wrap_lines=True)
    runs = [e.id for e in loaders.entries() if e.run.path.resolve().is_relative_to(where.resolve())]
    if runs:
        shell.line("Its runs can be laid over each other under Losses.")


def _number(value: object, sign: str = "") -> str:
    return f"{value:{sign}.4g}" if isinstance(value, int | float) else str(value)
