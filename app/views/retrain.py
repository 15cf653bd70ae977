"""Retrain: change settings, train in a child process, watch, cancel, compare with the run that it started from."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import streamlit as st

from app import components, shell
from app.charts import names, theme
from app.charts.curves import How, Source, kept_chart
from app.parts import compared, embedding, followed, results, retrain_form, tiles
from app.parts.followed import seconds_between
from app.parts.results import I2T, SAME_PAGE, T2I
from app.store import jobs, loaders, readonly
from stage3.cli import percent
from stage3.config import changes
from stage3.errors import Stage3Error
from stage3.evaluate.between import why_not
from stage3.objectives import OBJECTIVES
from stage3.runs import RunFolder

MORE_SEEDS = 4
TILES = (SAME_PAGE, I2T, T2I, "loss/total")


def render() -> None:
    """The form on the left; on the right the run that is watched, beside the run it was started from."""
    chosen = shell.chosen(needs_checkpoint=False)
    shell.heading("Retrain", "Change the settings of a run, train it again, and compare it with the original.")
    if readonly.on():
        shell.empty(readonly.TITLE, readonly.ABOUT)
        return
    page = st.container(horizontal=True, wrap=False, gap="medium", key="retrain-page")
    with page.container(border=True, key="card-form", width=340):
        retrain_form.show(chosen)
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
        embedding.show()
        _list(watched)
    components.into_view("card-job", st.session_state.pop("_retrain_into_view", ""))


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
        if (entry.run.path / "job.json").exists():
            return entry
        shell.unused("job", "is a run that was not started here.")
        return None
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
            word, color, icon = shell.JOB_LOOK[job.state]
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
                if job.state == "finished":
                    st.button(
                        f"Train {MORE_SEEDS} more seeds",
                        icon=":material/casino:",
                        key="job-seeds",
                        help="The same settings under other seeds: together a group whose mean and spread Losses shows",
                        on_click=shell.callback(_more_seeds),
                        args=(entry, job),
                    )
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


def _more_seeds(entry: loaders.Entry, job: jobs.Job) -> None:
    try:
        jobs.start_seeds(job.run, MORE_SEEDS, job.parent or entry.id)
    except Stage3Error as error:
        st.session_state["_notice"] = str(error)


def _progress_words(job: jobs.Job) -> str:
    status = job.run.status
    if job.state in ("starting", "queued"):
        return "" if job.state == "starting" else f"waits until fewer than {jobs.PLACES} runs train"
    parts = [f"step {status.step:,} of {status.total_steps:,}"] if status.total_steps else [status.message]
    took = seconds_between(status.started, status.updated if not job.is_live else "")
    if math.isfinite(took):
        parts.append(f"{took:.0f} s")
    return "  ·  ".join(p for p in parts if p)


def _parent(job: jobs.Job) -> loaders.Entry | None:
    try:
        return loaders.entry(job.parent) if job.parent else None
    except Stage3Error:
        return None  # it was deleted; the new run is shown alone


def _paired(entry: loaders.Entry, job: jobs.Job) -> None:
    """Curves and metrics of the run beside its parent's, as they come; when it has ended, what differs for sure."""
    parent = _parent(job)
    sources = [followed.source(entry.id, job.run)]
    if parent is not None:
        sources.append(followed.source(f"{parent.id} (before)", parent.run))
    if sources[0].frame.empty:
        with st.container(border=True, key="card-waiting"):
            shell.line("The first numbers come after the first step." if job.is_live else "No step was logged.")
        return
    if job.is_live or not loaders.steps(job.run):
        _validation(job.run)
    else:
        _ended(job.run, parent)
    _live_curves(sources, job.run, parent)


def _validation(run: RunFolder) -> None:
    """The best validation so far; it is compared with the run before when both can be measured on the same panels."""
    values = loaders.result(run)
    with st.container(horizontal=True, gap="small", key="card-tiles"):
        tiles.show(TILES, values)
    gallery = values.get("retrieval/gallery")
    if gallery is None:
        return
    found = "no panel has image and text, so that there is no R@5"
    if gallery:
        found = f"R@5 among {gallery:,.0f} panels with image and text (chance {percent(min(1.0, 5 / gallery))})"
    with st.container(key="quiet-live-basis"):
        shell.line(
            f"Validation so far, at the best epoch: {found}. Compared with the run before on test pages when it ends."
        )


def _ended(run: RunFolder, parent: loaders.Entry | None) -> None:
    found = compared.of_runs(parent.run, run) if parent is not None else None
    if found is None:
        report = results.of_run(run)
        if report is None:
            _validation(run)
        else:
            with st.container(border=True, key="card-results"):
                results.table(report, key="retrain-results")
    else:
        with st.container(horizontal=True, gap="small", key="card-tiles"):
            for metric in TILES:
                known = found.table.loc[found.table["metric"] == metric, "second"]
                if len(known):
                    shown = compared.value(metric, float(known.iloc[0]))
                    st.metric(names.metric_name(metric), shown, width=178, **compared.delta(found, metric))
        with st.container(border=True, key="card-metrics"):
            st.subheader("Before and now, at each run's best checkpoint", anchor=False)
            compared.table(found, ("before", "now"), key="retrain-compared")
            if (report := results.of_run(run)) is not None:
                results.sentence(report)
    if parent is not None:
        _changed(run, parent)


def _changed(run: RunFolder, parent: loaders.Entry) -> None:
    with st.container(border=True, key="card-changed"):
        st.subheader("Changed settings", anchor=False)
        rows = [
            {"setting": n, "before": retrain_form.short(a), "now": retrain_form.short(b)}
            for n, (a, b) in changes(parent.run.config, run.config).items()
        ]
        if rows:
            st.dataframe(pd.DataFrame(rows), hide_index=True)
        else:
            shell.line("None: all settings are the same.")


def _live_curves(sources: list[Source], run: RunFolder, parent: loaders.Entry | None) -> None:
    """Curves by epoch; a loss that measures something else than the parent's is drawn alone, and it is said why."""
    how = How(by="epoch", splits=("val",))
    train = How(by="step", splits=("train",), smoothing=0.8)
    cells: list[tuple[str, str, How, dict[str, Any]]] = [
        (names.metric_name(SAME_PAGE), SAME_PAGE, how, {"percent": True}),
        (names.metric_name("retrieval/mean_r5"), "retrieval/mean_r5", how, {"percent": True}),
        ("Training loss", "loss/total", train, {}),
        *((f"{o.label}, validation", f"loss/{o.name}", how, {}) for o in OBJECTIVES),
        ("Effective rank", "collapse/effective_rank", how, {}),
    ]
    columns = st.columns(2, gap="small")
    for i, (title, metric, chosen, more) in enumerate(cells):
        loss = metric.removeprefix("loss/")
        why = ""
        if parent is not None and loss != metric:
            why = why_not(loss, parent.run.config, run.config)
        with columns[i % 2], st.container(border=True, key=f"card-live-{i}", gap="xxsmall"):
            st.subheader(title, anchor=False)
            figure = kept_chart(sources[:1] if why else sources, {metric: title}, chosen, height=200, **more)
            if not figure.data:
                shell.line("Not measured in this run.")
                continue
            theme.show(figure, key=f"retrain-live-{i}", alt=f"{title} of the new run and the run that it started from")
            if why:
                with st.container(key=f"quiet-alone-{i}"):
                    shell.line(f"The run before is not comparable: {why}.")


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
