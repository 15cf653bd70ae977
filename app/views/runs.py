"""Runs: a table of all with their state and metrics; one or two at a time in detail."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

import pandas as pd
import streamlit as st

from app import shell
from app.charts import curves as curve_charts
from app.charts import names, theme
from app.parts import compared, forms, results, tiles
from app.parts.results import I2T, RANK, SAME_PAGE, SKILL, T2I
from app.store import children, loaders, readonly
from stage3.config import FIELDS, changes, spec_of
from stage3.errors import Stage3Error
from stage3.evaluate.between import why_not
from stage3.objectives import OBJECTIVES
from stage3.runs import curves

LAMP_LOOK = {  # color and sign: a lamp is read without color, too
    "good": ("green", ":material/check_circle:"),
    "bad": ("red", ":material/cancel:"),
    "cannot tell": ("gray", ":material/help:"),
}
MANY = 12  # runs from which the table has a filter and is grouped by data set
TILES = (I2T, T2I, SAME_PAGE, SKILL, RANK)
SHORT = {I2T: "R@5 i → t", T2I: "R@5 t → i", SAME_PAGE: "Same page"}  # in narrow columns
COLUMNS = {"i2t": I2T, "t2i": T2I, "same_page": SAME_PAGE}
AT_BEST = "On validation pages, at each run's best checkpoint. What test pages give stands below, for the picked run."


def render() -> None:
    """The table, then the runs that are picked."""
    shell.heading("Runs", "Every training run is a folder. Pick one to see its details, two to compare them.")
    found = loaders.entries()
    if found:
        picked = _table(_filtered(found))
        if len(picked) == 2:
            _pair(*picked)
        else:
            _one(picked[0])
    else:
        shell.empty(
            "No run yet",
            "Train one on the sample comics, then come back:",
            "python -m stage3.train --run runs/first --data data/samples",
        )
    _broken()


def _filtered(found: list[loaders.Entry]) -> list[loaders.Entry]:
    """The runs that are listed: by words of name, data and state, and by data set; all where nothing fits."""
    if len(found) < MANY:
        return found
    places = list(dict.fromkeys(_place(e) for e in found))
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="runs-filter"):
        words = st.text_input(
            "Filter", key="runs-words", placeholder="name, state or data", max_chars=200, width=260
        ).lower()
        data = st.selectbox("Data set", ["", *places], format_func=lambda p: p or "all", key="runs-data", width=260)
        kept = [
            e
            for e in found
            if data in ("", _place(e))
            and all(w in f"{e.id} {_place(e)} {shell.run_state(e.run)}".lower() for w in words.split())
        ]
        st.text(f"{len(kept):,} of {len(found):,} runs" if kept else "No run fits: all are shown")
    return kept or found


def _place(entry: loaders.Entry) -> str:
    """Where a run's data is: its folder, or its manifest where it names the files one by one."""
    return entry.run.config.data or entry.run.config.manifest


def _in_order(found: list[loaders.Entry], wanted: list[str | None]) -> list[loaders.Entry]:
    """The picked runs first, so that they are in view, then by data set, the latest first."""
    order = {place: i for i, place in enumerate(dict.fromkeys(_place(e) for e in found))}
    return sorted(found, key=lambda e: (wanted.index(e.id) if e.id in wanted else len(wanted), order[_place(e)]))


def _table(found: list[loaders.Entry]) -> list[loaders.Entry]:
    """All runs; returns the one or two that are picked."""
    asked = [shell.param("pick") or st.session_state.get("_run"), shell.param("with")]
    key = f"runs-table-{abs(hash(tuple(e.id for e in found))) % 10**8}"
    again = st.session_state.pop("_runs_again", False)
    if key not in st.session_state and not again:  # rows keep their places while they are picked
        st.session_state["_runs_first"] = asked
        known = {e.id for e in loaders.entries()}
        named = {name: shell.param(name) for name in ("pick", "with")}
        st.session_state["_runs_unused"] = {name: value for name, value in named.items() if value not in (None, *known)}
    if len(found) >= MANY:
        found = _in_order(found, st.session_state.get("_runs_first", asked))
    rows = [_row(entry) for entry in found]
    start = [i for w in asked for i, e in enumerate(found) if e.id == w]
    percent: dict[str, Any] = {"format": "%.1f %%", "min_value": 0.0, "max_value": 100.0, "width": 96}
    event = st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        on_select="rerun",
        selection_mode="multi-row",
        selection_default={"selection": {"rows": start, "columns": [], "cells": []}},
        key=key,
        height=min(38 + 35 * len(rows), 360),
        alt="One row per run with its state, metrics and settings",
        column_config={
            "run": st.column_config.TextColumn("Run", width="medium", pinned=True),
            "state": st.column_config.TextColumn("State", width=76),
            "data": st.column_config.TextColumn("Data", width=96),
            "progress": st.column_config.ProgressColumn("Steps", format="percent", min_value=0, max_value=1, width=84),
            **{
                column: st.column_config.ProgressColumn(
                    SHORT[metric], help=f"{names.metric_name(metric)}. {AT_BEST}", **percent
                )
                for column, metric in COLUMNS.items()
            },
            "gallery": st.column_config.NumberColumn(
                "Gallery",
                format="%d",
                width=64,
                help="Validation panels with image and text: chance of R@5 is 5 in so many",
            ),
            "rank": st.column_config.NumberColumn(
                "Eff. rank", format="%.1f", width=72, help=f"Effective rank. {AT_BEST}"
            ),
            "curve": st.column_config.LineChartColumn(
                "Val loss", width=84, help="Total loss on validation pages by step"
            ),
            "weights": st.column_config.TextColumn(
                f"Weights {' / '.join(o.name[0] for o in OBJECTIVES)}",
                width=104,
                help=", ".join(o.label.lower() for o in OBJECTIVES),
            ),
            "tau": st.column_config.TextColumn("τ", width=60),
            "seed": st.column_config.NumberColumn("Seed", format="%d", width=52),
            "epochs": st.column_config.NumberColumn("Epochs", format="%d", width=62),
            "updated": st.column_config.DatetimeColumn("Updated", format="distance", width=110),
        },
    )
    chosen = list(event["selection"]["rows"])[:2] if event["selection"]["rows"] else start[:1] or [0]
    if len(event["selection"]["rows"]) > 2:
        shell.line("Two runs are compared at a time: the first two of those picked.")
    if event["selection"]["rows"] != start and not again:
        st.session_state["_runs_unused"] = {}
    for name, value in st.session_state["_runs_unused"].items():
        shell.unused(name, "is no run here.", value)
    picked = [found[i] for i in chosen if i < len(found)] or [found[0]]
    shell.set_params(pick=picked[0].id, **{"with": picked[1].id if len(picked) == 2 else None})
    return picked


def _row(entry: loaders.Entry) -> dict[str, Any]:
    """A run's row; read again only when one of its files has changed, or while it trains."""
    run = entry.run
    files = ("config.yaml", "status.json", "metrics.jsonl", "best.json")
    key = (entry.id, str(run.path), *(loaders.stamp_of(f"{run.path}/{name}") for name in files), shell.run_state(run))
    return loaders.remember_row(key, lambda: _made_row(entry))


def _made_row(entry: loaders.Entry) -> dict[str, Any]:
    run, status, c = entry.run, entry.run.status, entry.run.config
    best, val_loss = {}, []
    try:
        best = loaders.result(run)
        val_loss = curve_charts.spark(curves.series(loaders.metrics(run), "loss/total", "val")["y"].tolist())
    except Stage3Error:
        pass  # the run's own box reports it; the table still lists the run
    return {
        "run": entry.id,
        "state": shell.STATE_LOOK[shell.run_state(run)][0],
        "data": PurePath(c.data or c.manifest).name,
        "progress": status.step / status.total_steps if status.total_steps else 0.0,
        **{column: _in_percent(best.get(metric)) for column, metric in COLUMNS.items()},
        "gallery": best.get("retrieval/gallery"),
        "rank": best.get(RANK),
        "curve": val_loss,
        "weights": shell.weights_of(c),
        "tau": shell.temperatures_of(c),
        "seed": c.seed,
        "epochs": c.epochs,
        "updated": pd.to_datetime(status.updated, errors="coerce", utc=True),
    }


def _in_percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


# --- one run


def _one(entry: loaders.Entry) -> None:
    left, right = st.columns([3, 2], gap="medium")
    with left, st.container(border=True, key="card-run"):
        _title(entry)
        _worth(entry)
        _actions(entry)
    with right, st.container(border=True, key="card-health"):
        _health(entry)
    with st.expander("Settings", key="settings-open", on_change="rerun") as box:
        if box.open:
            _settings(entry)
    with st.expander("Files, versions and log", key="files-open", on_change="rerun") as box:
        if box.open:
            _record(entry)


def _title(entry: loaders.Entry) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.text(entry.id, width="content")
        shell.state_badge(entry.run)
        best = entry.run.best()
        if best:
            st.badge(f"best at step {best.step}", color="gray")
    status = entry.run.status
    if shell.run_state(entry.run) in ("failed", "stopped") and status.message:
        st.code(status.message, language=None, wrap_lines=True)


def _worth(entry: loaders.Entry) -> None:
    """The evaluation on held-out pages, else what the last validation said."""
    known = loaders.stored_evaluation(entry.run) is not None
    report = results.of_run(entry.run)
    if report is not None:
        if not known and loaders.stored_evaluation(entry.run) is not None:
            st.session_state["_runs_again"] = True  # nobody has seen yet what the address asks for in vain
            st.rerun()  # the bar above was drawn before it was known
        results.table(report, key=f"results-{entry.id}")
        return
    values = loaders.result(entry.run)
    with st.container(horizontal=True, gap="small"):
        tiles.show(TILES, values)
    with st.container(key="quiet-no-evaluation"):
        gallery = values.get("retrieval/gallery")
        of = f", {gallery:,.0f} panels with image and text" if gallery is not None else ""
        shell.line(f"Validation pages{of}; without intervals, for the run has no checkpoint or its data is not here.")


def _actions(entry: loaders.Entry) -> None:
    with st.container(horizontal=True, gap="small"):
        for label, icon, view in (
            ("Map", ":material/scatter_plot:", "map"),
            ("Losses", ":material/show_chart:", "losses"),
            ("Retrain", ":material/model_training:", "retrain"),
        ):
            if view == "retrain" and readonly.on():
                continue
            if st.button(label, icon=icon, key=f"open-{view}"):
                shell.go(view, run=entry.id)


def _health(entry: loaders.Entry) -> None:
    """The verdict in words; computed for a run that has a checkpoint."""
    st.subheader("Health", anchor=False)
    if not loaders.steps(entry.run):
        shell.line("No checkpoint yet, so there is nothing to diagnose.")
        return
    from stage3.diagnose import FEATURES, LAMPS, VERDICTS

    try:
        found = shell.working("Diagnosing the embeddings", loaders.diagnosis, entry.run)
    except Stage3Error as error:
        shell.error_box(error, "The embeddings could not be diagnosed")
        return
    with st.container(key="lamps", gap="xsmall"):
        for question, lamp in found.lamps.items():
            _lamp(question, lamp)
        if FEATURES in found.answers:
            _lamp(FEATURES, LAMPS[found.answers[FEATURES]])
    st.text(f"{_capital(found.verdict)}: {VERDICTS[found.verdict]}.")
    with st.container(key="quiet-reasons", gap="xsmall"):
        for reason in found.reasons:
            st.text(f"–  {reason}")


def _lamp(question: str, lamp: str) -> None:
    color, icon = LAMP_LOOK[lamp]
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.text(_capital(question), width=190)
        st.badge(lamp, color=color, icon=icon)  # type: ignore[arg-type]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _settings(entry: loaders.Entry) -> None:
    values = entry.run.config.to_dict()
    rows = [
        {
            "setting": n,
            "value": _shown(v),
            "changed": n in FIELDS and v != forms.plain(FIELDS[n].default),
            "group": spec_of(n).group,
        }
        | {"meaning": spec_of(n).help}
        for n, v in values.items()
    ]
    frame = pd.DataFrame(rows).sort_values("changed", ascending=False, kind="stable")
    changed = st.column_config.CheckboxColumn("changed", width="small", help="Not the default")
    st.dataframe(frame, hide_index=True, height=420, column_config={"changed": changed})


def _record(entry: loaders.Entry) -> None:
    left, right = st.columns(2)
    with left:
        shell.line("Last lines of train.log")
        st.code(children.tail(entry.run.path / "train.log") or "(empty)", language=None, wrap_lines=True)
    with right:
        shell.line("Environment")
        try:
            environment = entry.run.read_json("environment")
        except Stage3Error as error:
            shell.error_box(error)
            return
        versions = environment.pop("versions", {})
        shell.facts({**(versions if isinstance(versions, dict) else {"versions": versions}), **environment})


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "–" if value in ("", None) else str(value)


# --- two runs


def _pair(first: loaders.Entry, second: loaders.Entry) -> None:
    with st.container(border=True, key="card-pair"):
        for entry in (first, second):
            _title(entry)
        found = compared.of_runs(first.run, second.run)
        if found is not None:
            compared.table(found, ("first", "second"), key="pair-compared")
    left, right = st.columns([2, 3], gap="medium")
    with left, st.container(border=True, key="card-differences"):
        st.subheader("Settings that differ", anchor=False)
        changed = changes(first.run.config, second.run.config)
        if changed:
            rows = [{"setting": n, "first": _shown(a), "second": _shown(b)} for n, (a, b) in changed.items()]
            st.dataframe(pd.DataFrame(rows), hide_index=True)
        else:
            shell.line("None: all settings are the same, including the seed.")
        with st.expander("Last validation of both", key="pair-validation", on_change="rerun") as box:
            if box.open:
                tiles.differences(
                    loaders.result(first.run), loaders.result(second.run), ("first", "second"), height=330
                )
    with right, st.container(border=True, key="card-curves"):
        sources = [curve_charts.Source(e.id, loaders.metrics(e.run)) for e in (first, second)]
        how = curve_charts.How(by="epoch", splits=("val",))
        why = why_not("total", first.run.config, second.run.config)
        totals = () if why else (("loss/total", False),)
        if why:
            shell.line(f"The total losses are not comparable: {why}.")
        for metric, percent in (*totals, (SAME_PAGE, True), ("retrieval/mean_r5", True)):
            label = names.metric_name(metric)
            st.subheader(label, anchor=False)
            figure = curve_charts.chart(sources, {metric: label}, how, height=230, percent=percent)
            theme.show(figure, key=f"pair-{metric}", alt=f"{label} of two runs by epoch")


# --- folders that do not open


def _broken() -> None:
    found = loaders.broken()
    if not found:
        return
    with st.expander(f"Folders that look like runs but cannot be opened: {len(found)}", icon=":material/warning:"):
        st.dataframe(pd.DataFrame(found, columns=["folder", "reason"]), hide_index=True)
