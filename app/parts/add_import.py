"""The import itself: started, watched, canceled, and its data report."""

from __future__ import annotations

import re

import streamlit as st

from app import shell
from app.parts import data_report
from app.store import imports
from stage3.data.table import DataReport
from stage3.errors import Stage3Error


def show(made: imports.Import) -> bool:
    """How the import stands; True once there is a data set to train on."""
    task = made.task("all")
    state = task.state()
    if state.is_live:
        _watch(made)
        return False
    _start(made, state)
    if state.word in ("failed", "stopped"):
        title = "Not everything was imported" if state.word == "stopped" else "The import failed"
        shell.error_box(state.message, title)
    result = task.result()
    if state.word != "finished" or not result:
        return False
    try:
        report = DataReport.from_dict(result["check"])
    except (KeyError, TypeError, AttributeError):
        shell.error_box(f"{task.folder / 'result.json'}: damaged. Import again: what is there stays.")
        return False
    _report(result, report)
    return True


def _start(made: imports.Import, state: imports.State) -> None:
    with st.container(border=True, key="card-add-import"):
        st.subheader("Import", anchor=False)
        label = {"none": "Import all pages", "finished": "Import again", "stopped": "Go on", "failed": "Try again"}
        looked = made.task("look").state().word == "finished"
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            first = state.word != "finished"
            if st.button(
                label[state.word],
                type="primary" if first else "secondary",
                icon=":material/download:",
                key="add-import",
                disabled=not looked,
                help="Adds what is new; pages that are there already stay as they are." if not first else None,
            ):
                try:
                    imports.start(made)
                except Stage3Error as error:
                    shell.error_box(error, "The import was not started")
                else:
                    st.rerun()
            with st.container(key="quiet-add-target"):
                shell.line(f"into {made.data}; images of folders stay where they are")
        with st.expander("As a command", icon=":material/terminal:"):
            st.code(made.command(), language="bash", wrap_lines=True)


def _watch(made: imports.Import) -> None:
    @shell.fragment(run_every="1s")
    def watch() -> None:
        task = made.task("all")
        state = task.state()
        if not state.is_live:
            st.rerun()
        task.press()
        with st.container(border=True, key="card-add-import"):
            st.subheader("Import", anchor=False)
            asked = task.cancelled
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                if st.button(
                    "Stopping …" if asked else "Cancel", icon=":material/stop:", key="add-cancel", disabled=asked
                ):
                    task.cancel()
                    st.rerun(scope="fragment")
                far = f"{state.done:,} of {state.total:,}" if state.total else ""
                shell.line("  ·  ".join(filter(None, (state.what, far))))
            st.progress(min(1.0, state.done / state.total) if state.total else 0.0)
            with st.container(key="quiet-add-running"):
                shell.line("The import goes on when this page is closed.")

    watch()


def _report(result: dict[str, object], report: DataReport) -> None:
    with st.container(border=True, key="card-add-report"):
        st.subheader("Data report", anchor=False)
        data_report.numbers(report)
        with st.container(key="quiet-add-lines", gap="xsmall"):
            for line in list(imports.lines(result, "lines"))[1:]:
                shell.line(re.sub(r" \(--\w+[^)]*\)", "", line))  # flags of the command
        data_report.charts_of(report)
        data_report.anomalies(report)
