"""The strip on top of every view: all live training jobs with progress and Cancel, and stopped ones with Resume."""

from __future__ import annotations

import time

import streamlit as st

from app import shell
from app.store import jobs, readonly
from stage3.cli import counted
from stage3.errors import Stage3Error

SHOWN = 4  # jobs with a line of their own; more are counted
STOPPED_FOR = 24 * 3600.0  # seconds for which a stopped job is offered to go on


def show() -> None:
    """Draw it; nothing where no job is live or has stopped lately, or where nothing can be trained."""
    if readonly.on():
        return
    live, stopped = jobs.live_and_stopped(time.time() - STOPPED_FOR)
    hidden = st.session_state.get("_strip_hidden", set())
    stopped = [j for j in stopped if (j.run.name, j.run.status.updated) not in hidden]
    if not live and not stopped:
        return
    names = {job.run.name for job in live}

    @shell.fragment(run_every="2s" if live else None)
    def watch() -> None:
        now = jobs.live()
        if {job.run.name for job in now} != names:
            st.rerun()  # the page shows states, too: what has ended must not read "running" anywhere
        with st.container(key="jobs-strip", gap="xxsmall"):
            for job in now[:SHOWN]:
                _live(job)
            if len(now) > SHOWN:
                st.text(f"and {counted(len(now) - SHOWN, 'job')} more, see Retrain")
            for job in stopped[:SHOWN]:
                _stopped(job)

    watch()


def _live(job: jobs.Job) -> None:
    jobs.press(job.run)
    status, name = job.run.status, job.run.name
    word, color, icon = shell.JOB_LOOK[job.state]
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"strip-{name}"):
        st.text(name, width=150)
        st.badge(word, color=color, icon=icon)  # type: ignore[arg-type]
        share = status.step / status.total_steps if status.total_steps and job.state == "running" else 0.0
        st.progress(min(max(share, 0.0), 1.0), width=160)
        st.text(_words(job), width="stretch")
        if st.button("Watch", key=f"strip-watch-{name}", type="tertiary", icon=":material/visibility:"):
            shell.go("retrain", job=f"runs/{name}")
        asked = job.run.stop_requested
        st.button(
            "Stopping …" if asked else "Cancel",
            key=f"strip-cancel-{name}",
            type="tertiary",
            icon=":material/stop:",
            disabled=asked,
            on_click=shell.callback(jobs.cancel),
            args=(job.run,),
        )


def _words(job: jobs.Job) -> str:
    if job.state == "queued":
        return f"waits until fewer than {jobs.PLACES} runs train"
    status = job.run.status
    if job.state == "starting" or not status.total_steps:
        return ""
    return f"step {status.step:,} of {status.total_steps:,} · epoch {status.epoch} of {job.run.config.epochs}"


def _stopped(job: jobs.Job) -> None:
    name, status = job.run.name, job.run.status
    word, color, icon = shell.JOB_LOOK[job.state]
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"strip-{name}"):
        st.text(name, width=150)
        st.badge(word, color=color, icon=icon)  # type: ignore[arg-type]
        at = f"at step {status.step:,} of {status.total_steps:,}" if status.total_steps else ""
        st.text(at, width="stretch")
        if st.button("Resume", key=f"strip-resume-{name}", type="tertiary", icon=":material/play_arrow:"):
            try:
                jobs.resume(job.run)
            except Stage3Error as error:
                shell.error_box(error)
            else:
                st.rerun()
        st.button(
            "",
            key=f"strip-hide-{name}",
            type="tertiary",
            icon=":material/close:",
            help="Put away: the run stays under Runs",
            on_click=shell.callback(_hide),
            args=(name, status.updated),
        )


def _hide(name: str, updated: str) -> None:
    st.session_state["_strip_hidden"] = st.session_state.get("_strip_hidden", set()) | {(name, updated)}
