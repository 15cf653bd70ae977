"""Evidence: what `stage3.ablate` measured for each finding of the loss review, with intervals and commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from app import shell
from app.charts import evidence as charts
from app.charts import theme
from app.charts.evidence import key_of
from app.store import evidence as files
from app.views import evidence_more as more
from stage3.ablate.evidence import UNKNOWN, difference, number
from stage3.ablate.findings import FINDINGS
from stage3.ablate.terms import HELPS, HURTS, METRICS, NONE

if TYPE_CHECKING:
    from stage3.ablate.evidence import Row

VERDICTS: dict[str, Any] = {HELPS: "green", NONE: "gray", HURTS: "red"}
PARTS = {
    "findings": "Findings",
    "noise": "Validation noise",
    "budget": "Loss budget",
    "tradeoff": "Trade-off",
}
CURVES = {
    "retrieval/mean_r5": ("val", "R@5"),
    "retrieval/same_page_r_precision": ("val", "Same-page precision"),
    "reconstruction/skill": ("val", "R² of reconstruction"),
    "collapse/effective_rank": ("val", "Effective rank"),
    "collapse/intra_cosine": ("val", "Cosine within page"),
    "loss/total": ("val", "Loss"),
    "grad_norm": ("train", "Gradient norm"),
}


def render() -> None:
    """Which evidence and which part of it; then that part."""
    shell.heading(
        "Evidence", "Each finding of the loss review as an experiment: with and without it, over the same seeds."
    )
    found = files.folders()
    if not found:
        shell.empty(
            "No evidence yet",
            "The command below trains each pair of variants over the same seeds on the sample comics.",
            files.COMMAND,
        )
        return
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium", key="evidence-controls"):
        part = _part()
        where = _folder(found)
    if part == "noise":
        more.noise(where)
    elif part == "budget":
        more.budget(where)
    elif part == "tradeoff":
        more.tradeoff(where)
    else:
        _findings(where)
    _how_made(where)


def _part() -> str:
    asked = shell.param("part")
    if asked is not None and asked not in PARTS:
        shell.unused("part", f"is none of {', '.join(PARTS)}.")
    part = st.segmented_control(
        "Part",
        list(PARTS),
        format_func=lambda p: PARTS[p],
        default=asked if asked in PARTS else "findings",
        required=True,
        key="evidence-part",
    )
    shell.set_params(part=part if part != "findings" else None)
    return str(part)


def _folder(found: list[Path]) -> Path:
    if len(found) == 1:
        return found[0]
    names = {str(f): f"made here: {f.name}" if f.parent.name == "runs" else "shipped with the samples" for f in found}
    return Path(st.selectbox("Source", list(names), format_func=lambda f: names[f], key="evidence-folder", width=260))


def _how_made(where: Path) -> None:
    paragraphs = files.how_made(where)
    if paragraphs:
        with st.container(key="quiet-evidence-made", gap="xxsmall"):
            for text in paragraphs:
                shell.line(text)


# --- findings


def _findings(where: Path) -> None:
    rows = files.rows(where)
    heads = [r for r in rows if r.headline]
    if not heads:
        shell.empty("The evidence table is empty", "No finding was tested. Test them all:", files.COMMAND)
        return
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom", key="evidence-filter"):
        shown = _filtered(heads)
        _counts(shown)
    options = {key_of(r): r for r in heads}
    _keep_choice(options, shown)
    left, right = st.columns([11, 9], gap="small")
    with left, st.container(border=True, key="card-forest", gap="small"):
        st.subheader(
            "Difference: corrected − original",
            anchor=False,
            help="Corrected: the variant that should be better. Original: the one with the fault, a partial "
            "correction or another value. Paired over seeds and books; dot: mean, bar: 95 % interval. Right of 0 is "
            "better in every row: where less is better, the sign is turned in the drawing. Click a row for details",
        )
        _forest(shown, where)
    with right, st.container(border=True, key="card-finding", gap="small"):
        _comparison(options, rows, where)


def _filtered(heads: list[Row]) -> list[Row]:
    """The comparisons that are listed."""
    width = st.segmented_control(
        "Comparisons",
        ["main", "all"],
        default="main",
        required=True,
        format_func=lambda w: f"{w} ({sum(r.main for r in heads) if w == 'main' else len(heads)})",
        key="evidence-width",
        help="main: the short table. all: every comparison. Each by its first metric",
    )
    verdicts = st.pills("Verdict", list(VERDICTS), selection_mode="multi", key="evidence-verdicts")
    pool = [r for r in heads if r.main] if width == "main" and any(r.main for r in heads) else heads
    return [r for r in pool if not verdicts or r.verdict in verdicts]


def _counts(shown: list[Row]) -> None:
    for verdict in VERDICTS:
        st.metric(verdict.capitalize(), str(sum(r.verdict == verdict for r in shown)), width=104)
    seeds = sorted({r.seeds for r in shown})
    if seeds:
        st.metric("Seeds per variant", "–".join(str(s) for s in dict.fromkeys((seeds[0], seeds[-1]))), width=126)


def _keep_choice(options: dict[str, Row], shown: list[Row]) -> None:
    """The chosen comparison: kept, else the address's, else the first that is listed."""
    if st.session_state.get("evidence-row") in options:
        return
    finding, at = shell.param("finding"), shell.param("comparison")
    asked = [k for k, r in options.items() if r.finding == finding and at in (None, str(r.comparison))]
    listed = [key_of(r) for r in shown] or list(options)
    st.session_state["evidence-row"] = next((k for k in asked if k in listed), (asked or listed)[0])
    if not asked and finding is not None:
        shell.unused("finding", "is not in this table, or has no such comparison. The first one is shown.")
    elif not asked and at is not None:
        shell.unused("comparison", "needs the finding that it belongs to, such as finding=F1. The first one is shown.")


def _forest(shown: list[Row], where: Path) -> None:
    if not shown:
        shell.line("No comparison has this verdict.")
        return
    chosen = str(st.session_state["evidence-row"])
    for i, (unit, part) in enumerate(charts.by_unit(shown).items()):
        _unit(part, unit, chosen, f"evidence-forest-{i}", where)


def _unit(part: list[Row], unit: str, chosen: str, name: str, where: Path) -> None:
    """The comparisons of one unit."""
    key = ("forest", chosen, unit, *map(key_of, part), *files.stamp(where / "evidence.parquet"))
    theme.show(
        theme.kept(key, lambda: charts.forest(part, chosen, unit)),
        key=name,
        alt=f"Difference and interval of {len(part)} comparisons, {unit}: "
        + "; ".join(f"{r.finding} {r.label} {difference(r)} {r.verdict}" for r in part[:8]),
        on_select=lambda: _clicked(name),
        selection_mode=("points",),
    )


def _clicked(name: str) -> None:
    """Take the clicked line as the choice (the chart itself forgets it when it is drawn again)."""
    points = st.session_state[name]["selection"]["points"]
    if points:
        st.session_state["evidence-row"] = points[0]["customdata"][0]


def _comparison(options: dict[str, Row], rows: Sequence[Row], where: Path) -> None:
    """The chosen comparison in full."""
    names = {k: f"{r.finding} · {r.fixed} against {r.reviewed}" for k, r in options.items()}
    chosen = options[st.selectbox("Comparison", list(options), format_func=lambda k: names[k], key="evidence-row")]
    shell.set_params(finding=chosen.finding, comparison=chosen.comparison)
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        st.badge(chosen.verdict if chosen.verdict in VERDICTS else UNKNOWN, color=VERDICTS.get(chosen.verdict, "gray"))
        if chosen.half_fix:
            st.badge("against a partial correction", color="orange")
        st.text(f"{chosen.label}: {difference(chosen)}, {chosen.seeds} seeds")
    st.text(chosen.question)
    if chosen.expected and chosen.expected != chosen.verdict and chosen.verdict != UNKNOWN:
        st.text(f"Expected from earlier trials: {chosen.expected}. Found here: {chosen.verdict}.")
    _metrics([r for r in rows if key_of(r) == key_of(chosen)])
    _curves(chosen, where)
    st.text("Command to repeat it")
    st.code(chosen.command, language="bash", wrap_lines=True)
    with st.expander("First run of each variant, and how to read it", key="evidence-arms", on_change="rerun") as box:
        if box.open:
            _one_run(chosen)


def _metrics(rows: Sequence[Row]) -> None:
    table = [
        {
            "metric": r.label,
            "corrected": number(r.fixed_mean, r.metric),
            "original": number(r.reviewed_mean, r.metric),
            "difference": difference(r),
            "verdict": r.verdict,
        }
        for r in rows
    ]
    st.dataframe(
        table,
        hide_index=True,
        key="evidence-metrics",
        alt="All judged metrics of the comparison",
        column_config={
            "metric": st.column_config.TextColumn(width="medium"),
            "difference": st.column_config.TextColumn(help="Corrected − original, with its 95 % interval"),
        },
    )
    st.caption(f"{_measured_on(rows)}; means over seeds.")


def _measured_on(rows: Sequence[Row]) -> str:
    """What the numbers of a comparison were measured on."""
    kinds = {r.metric.partition("/")[0] for r in rows}
    if kinds == {"noise"}:
        return "Validation books, every epoch's checkpoint"
    training = "; batches: training steps" if "signal" in kinds else ""
    return f"Test books, {'best' if rows[0].measured_at == 'best' else 'last'} checkpoint{training}"


def _curves(chosen: Row, where: Path) -> None:
    """A metric of both variants over epochs."""
    frame, runs = files.table(where, "curves"), files.table(where, "runs")
    names = {files.arm_of(runs, chosen.fixed_command, chosen.fixed): chosen.fixed}
    names.setdefault(files.arm_of(runs, chosen.reviewed_command, chosen.reviewed), chosen.reviewed)
    there = set(frame.loc[frame["arm"].isin(names), "metric"])
    choices = [m for m in CURVES if m in there]
    if not choices:
        shell.line("No curves were written for these variants.")
        return
    metric = st.pills(
        "Over epochs",
        choices,
        format_func=lambda m: CURVES[m][1],
        default=chosen.metric if chosen.metric in choices else choices[0],
        required=True,
        key=f"evidence-curve-{key_of(chosen)}",
        help="Validation books (gradient norm: training). Line: mean over seeds; band: minimum to maximum",
    )
    if len(names) == 1:
        st.text("Both sides are the same runs, measured in two ways.")
    split, label = CURVES[str(metric)]
    told = METRICS[metric].label if metric in METRICS else label
    key = ("arms", *names.items(), metric, split, *files.stamp(where / "curves.parquet"))
    figure = theme.kept(key, lambda: charts.arms(frame, names, str(metric), split))
    theme.show(figure, key="evidence-curves", alt=f"{told} of both variants by epoch")


def _one_run(chosen: Row) -> None:
    for label, command in ((chosen.fixed, chosen.fixed_command), (chosen.reviewed, chosen.reviewed_command)):
        shell.line(label)
        st.code(command, language="bash", wrap_lines=True)
    note = FINDINGS[chosen.finding].note if chosen.finding in FINDINGS else ""
    if note:
        shell.line(note)
