"""Retrain: change settings, train in a child process, watch, cancel, compare with the run that it started from."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import streamlit as st

from app import shell
from app.charts import names, theme
from app.charts.curves import How, Source, chart
from app.parts import baseline, forms, tiles
from app.store import jobs, loaders
from stage3.config import FIELDS, GROUPS, Config, differences, spec_of
from stage3.errors import Stage3Error
from stage3.runs import RunFolder, curves

START_UP = 3.0  # rough number of seconds until the first step: imports, data, features from the store
SHOWN = (*forms.WEIGHTS, "epochs", "seed", "lr")
HIDDEN = (
    "temperature",
    *forms.TEMPERATURES,
    "recompute_features",
    "threads",
    "max_minutes",
)
TILES = ("retrieval/i2t_r5", "retrieval/t2i_r5", "retrieval/same_page_r_precision", "loss/total")


def render() -> None:
    """The form on the left; on the right the run that is watched, beside the run it was started from."""
    chosen = shell.chosen(needs_checkpoint=False)
    shell.heading("Retrain", "Change the settings of a run, train it again, and compare it with the original.")
    page = st.container(horizontal=True, wrap=False, gap="medium")
    with page.container(border=True, key="card-form", width=340):
        _form(chosen)
    with page.container(key="retrain-right"):
        watched = _watched()
        if watched is None:
            shell.empty(
                "Nothing is training",
                "Move a slider on the left and press Train. The curves appear here beside those of the run above. "
                "Training goes on when this page is closed.",
            )
        else:
            _watch(watched)
        _list(watched)


# --- the form


def _form(chosen: shell.Chosen) -> None:
    base, prefix = chosen.run.config, f"retrain-{chosen.id}"
    typed: dict[str, Any] = {}
    st.subheader("Weights", anchor=False)
    for name, label in forms.WEIGHTS.items():
        typed[name] = forms.slider(name, getattr(base, name), prefix, label)
    typed |= _temperatures(base, prefix)
    st.subheader("Training", anchor=False)
    columns = st.columns(3, gap="small")
    for column, name in zip(columns, ("epochs", "seed", "lr"), strict=True):
        with column:
            typed[name] = forms.field(name, getattr(base, name), prefix)
    what = st.segmented_control(
        "Compute",
        ["Heads only", "Everything"],
        default="Heads only",
        required=True,
        key=f"{prefix}-what",
        help="Heads only: train on stored features. Everything: run the frozen backbones again, too.",
    )
    typed["recompute_features"] = what == "Everything"
    with st.expander("Ablations", icon=":material/science:"):
        shell.line("Faults of the original trainer, on purpose.")
        for name in forms.group(of="ablations"):
            typed[name] = forms.field(name, getattr(base, name), prefix)
    with st.expander("All other settings", icon=":material/tune:"):
        for group in ("objectives", "training", "model", "run"):
            st.caption(GROUPS[group].capitalize())
            for name in forms.group(of=group):
                if name not in (*SHOWN, *HIDDEN):
                    typed[name] = forms.field(name, getattr(base, name), prefix)
    config, problem = forms.checked(base, typed)
    _launch(chosen, config, problem)


def _temperatures(base: Config, prefix: str) -> dict[str, float]:
    st.subheader("Temperatures", anchor=False)
    same = len(set(base.temperatures.values())) == 1
    linked = st.toggle("Linked", value=same, key=f"{prefix}-linked", help="One temperature for all losses")
    if linked:
        first = next(iter(forms.TEMPERATURES))
        return dict.fromkeys(forms.TEMPERATURES, forms.slider(first, getattr(base, first), f"{prefix}-both", "Both, τ"))
    return {
        name: forms.slider(name, getattr(base, name), prefix, f"{label}, τ")
        for name, label in forms.TEMPERATURES.items()
    }


def _launch(chosen: shell.Chosen, config: Config | None, problem: str) -> None:
    if config is None:
        shell.error_box(problem, "Invalid setting")
        return
    changed = {n: v for n, v in differences(chosen.run.config, config).items() if n not in HIDDEN or "temperature" in n}
    with st.container(key="quiet-changes", gap="xsmall"):
        if changed:
            for name, (old, new) in changed.items():
                st.text(f"{name}: {_short(old)} → {_short(new)}")
        else:
            st.text("Nothing has changed: the same seed gives the same run again.")
        st.text(_estimate(chosen, config))
    started = st.session_state.get("_retrain_started", 0)
    name = st.text_input("Name", value=jobs.free_name(), max_chars=60, key=f"retrain-name-{started}")
    if st.button("Train", type="primary", icon=":material/play_arrow:", width="stretch", key="retrain-start",
                 shortcut="Ctrl+Enter"):  # fmt: skip
        try:
            run = jobs.start(config, name.strip(), chosen.id)
        except Stage3Error as error:
            shell.error_box(error, "The run was not started")
        else:
            st.session_state["_retrain_started"] = started + 1  # a new key: the field starts from a free name
            shell.set_params(job=f"runs/{run.name}")
            st.rerun()
    with st.expander("As a command or a YAML file", icon=":material/terminal:"):
        st.code(jobs.command(config, name), language="bash", wrap_lines=True)
        lines = {n: v for n, v in config.to_dict().items() if v != forms.plain(FIELDS[n].default)}
        st.code("\n".join(f"{n}: {_short(v)}" for n, v in lines.items()), language="yaml")
        st.download_button("All settings as YAML", data=config.to_yaml, file_name="config.yaml", on_click="ignore",
                           icon=":material/download:", type="tertiary")  # fmt: skip


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def _estimate(chosen: shell.Chosen, config: Config) -> str:
    seconds = curves.expected_seconds(loaders.metrics(chosen.run), config.epochs, config.validate_every)
    if not math.isfinite(seconds):
        return "Duration unknown: the run above has no timings."
    total = START_UP + seconds
    duration = f"{total:.0f} s" if total < 90 else f"{total / 60:.0f} min"
    return f"About {duration}{' and the time to compute features' if config.recompute_features else ''}."


# --- the run that is watched


def _watched() -> loaders.Entry | None:
    """The job of the address, else the newest one that is running."""
    asked = shell.param("job")
    if asked:
        try:
            entry = loaders.entry(asked)
        except Stage3Error as error:
            shell.error_box(error)
            return None
        return entry if (entry.run.path / "job.json").exists() else None
    live = next((job for job in jobs.jobs() if job.is_live), None)
    if live is None:
        return None
    shell.set_params(job=f"runs/{live.run.name}")
    return loaders.Entry(f"runs/{live.run.name}", live.run, False)


def _watch(entry: loaders.Entry) -> None:
    live = jobs.read(entry.run).is_live

    @shell.fragment(run_every="1s" if live else None)
    def progress() -> None:
        job = jobs.read(entry.run)
        if job.is_live:
            jobs.press(entry.run)
        elif live:
            st.rerun()  # before anything is drawn, so that no button of a page about to go can be pressed
        _head(entry, job)
        _paired(entry, job)

    progress()


def _head(entry: loaders.Entry, job: jobs.Job) -> None:
    status = job.run.status
    with st.container(border=True, key="card-job", gap="small"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.text(entry.id, width="content")
            word, color, icon = {**shell.STATE_LOOK, "starting": ("starting", "blue", ":material/hourglass:")}[
                job.state
            ]
            st.badge(word, color=color, icon=icon)  # type: ignore[arg-type]
            st.text(_progress_words(job), width="stretch")
            if job.is_live:
                asked = job.run.stop_requested
                if st.button(
                    "Stopping …" if asked else "Cancel", icon=":material/stop:", key="job-cancel", disabled=asked
                ):
                    jobs.cancel(job.run)
                    st.rerun(scope="fragment")
            elif loaders.steps(job.run):
                for label, icon_, view in (
                    ("Map", ":material/scatter_plot:", "map"),
                    ("Losses", ":material/show_chart:", "losses"),
                    ("Side by side", ":material/compare:", "compare"),
                ):
                    if st.button(label, icon=icon_, key=f"job-{view}"):
                        _open(view, entry, job)
        if job.is_live:
            st.progress(status.step / status.total_steps if status.total_steps else 0.0)
        elif job.state == "failed":
            st.code(job.message or jobs.tail(job.run), language=None, wrap_lines=True)


def _open(view: str, entry: loaders.Entry, job: jobs.Job) -> None:
    if view == "compare" and job.parent:
        shell.go("map", run=entry.id, mode="two", **{"with": job.parent})
    elif view == "losses" and job.parent:
        shell.go("losses", run=entry.id, **{"with": job.parent})
    else:
        shell.go("runs" if view == "compare" else view, run=entry.id)


def _progress_words(job: jobs.Job) -> str:
    status = job.run.status
    if job.state == "starting":
        return "starting"
    parts = [f"step {status.step:,} of {status.total_steps:,}"] if status.total_steps else [status.message]
    took = _seconds_between(status.started, status.updated if not job.is_live else "")
    if math.isfinite(took):
        parts.append(f"{took:.0f} s")
    return "  ·  ".join(p for p in parts if p)


def _seconds_between(start: str, end: str) -> float:
    try:
        began = datetime.fromisoformat(start)
        until = datetime.fromisoformat(end) if end else datetime.now(UTC)
    except ValueError:
        return math.nan
    return (until - began).total_seconds()


def _parent(job: jobs.Job) -> loaders.Entry | None:
    try:
        return loaders.entry(job.parent) if job.parent else None
    except Stage3Error:
        return None  # it was deleted; the new run is shown alone


def _paired(entry: loaders.Entry, job: jobs.Job) -> None:
    """Curves and metrics of the run beside its parent's, as they come."""
    parent = _parent(job)
    sources = [Source(entry.id, loaders.metrics(job.run))]
    if parent is not None:
        sources.append(Source(f"{parent.id} (before)", loaders.metrics(parent.run)))
    if sources[0].frame.empty:
        with st.container(border=True, key="card-waiting"):
            shell.line("The first numbers come after the first step." if job.is_live else "No step was logged.")
        return
    values = loaders.result(job.run)
    added = None if job.is_live else baseline.measured(job.run)
    with st.container(horizontal=True, gap="small", key="card-tiles"):
        before = loaders.result(parent.run) if parent else {}
        tiles.show(TILES, values, before, beside={baseline.PRECISION: lambda: baseline.tile(added)})
    baseline.sentence(added)
    how = How(by="epoch", splits=("val",))
    cells: tuple[tuple[str, dict[str, str], How, dict[str, Any]], ...] = (
        ("Validation loss", {"loss/total": "total"}, how, {}),
        (names.metric_name("retrieval/mean_r5"), {"retrieval/mean_r5": "R@5"}, how, {"percent": True}),
        ("Training loss", {"loss/total": "total"}, How(by="step", splits=("train",), smoothing=0.8), {}),
        ("Effective rank", {"collapse/effective_rank": "rank"}, how, {}),
    )
    columns = st.columns(2, gap="small")
    for i, (title, metrics, chosen, more) in enumerate(cells):
        with columns[i % 2], st.container(border=True, key=f"card-live-{i}", gap="xxsmall"):
            st.subheader(title, anchor=False)
            figure = chart(sources, metrics, chosen, height=200, **more)
            theme.show(figure, key=f"retrain-live-{i}", alt=f"{title} of the new run and the run that it started from")
    if not job.is_live and parent is not None:
        _compare(entry, job.run, parent)


def _compare(entry: loaders.Entry, run: RunFolder, parent: loaders.Entry) -> None:
    left, right = st.columns([2, 3], gap="small")
    with left, st.container(border=True, key="card-changed"):
        st.subheader("Changed settings", anchor=False)
        changed = differences(parent.run.config, run.config)
        rows = [
            {"setting": n, "before": _short(a), "now": _short(b)}
            for n, (a, b) in changed.items()
            if not spec_of(n).resume_free  # those never reach the weights
        ]
        if rows:
            st.dataframe(pd.DataFrame(rows), hide_index=True)
        else:
            shell.line("None: all settings are the same.")
    with right, st.container(border=True, key="card-metrics"):
        st.subheader("Metrics at each run's best checkpoint", anchor=False)
        tiles.differences(loaders.result(parent.run), loaders.result(run), ("before", "now"), height=260)


# --- what was started here


def _list(watched: loaders.Entry | None) -> None:
    found = jobs.jobs()
    others = [job for job in found if watched is None or job.run.path != watched.run.path]
    if not others:
        return
    with st.expander(f"Earlier runs started here: {len(others)}", icon=":material/history:"):
        for job in others[:20]:
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                if st.button("Watch" if job.is_live else "Show", key=f"watch-{job.run.name}", type="tertiary"):
                    shell.set_params(job=f"runs/{job.run.name}")
                    st.rerun()
                parent = f"from {job.parent}" if job.parent else ""
                st.text("  ·  ".join(filter(None, (job.run.name, job.state, parent))), width="stretch")
