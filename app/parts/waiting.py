"""The progress of a map that a child process computes, for every view that shows one."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from app import shell
from app.store import map_jobs
from stage3.projection.files import Job


def show(path: Path, job: Job, chosen: shell.Chosen, *, drift: bool = False) -> None:
    """The progress of the child process, once per second; the page is drawn again when the map is there."""
    if job.state == "failed":
        shell.error_box(job.message, "The map could not be computed")
        if st.button("Try again", key="map-again"):
            map_jobs.ensure(chosen.run, chosen.step, drift=drift, again=True)
            st.rerun()
        return

    @shell.fragment(run_every="1s")
    def watch() -> None:
        now = map_jobs.ensure(chosen.run, chosen.step, drift=drift)
        if now.state != "running":
            st.rerun()
        what = "the drift over the saved epochs" if drift else "UMAP"
        meanwhile = "" if drift else "; showing principal components meanwhile"
        share = min(1.0, (now.done + 0.5) / now.total) if now.total else 0.05
        st.progress(share, text=f"Computing {what} ({now.stage or 'starting'}){meanwhile}.")

    watch()
