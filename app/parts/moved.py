"""One box for a run whose data is not where it was: what is missing, and where it may be now."""

from __future__ import annotations

import streamlit as st

from app import shell
from app.store import places
from stage3.errors import Stage3Error
from stage3.runs import RunFolder


def box(error: BaseException) -> None:
    """An error of a view; where the data of the chosen run has moved, the box that offers to name its new place."""
    chosen: shell.Chosen | None = st.session_state.get("_chosen")
    if chosen is None or not places.missing(chosen.run):
        shell.error_box(error)
        return
    offer(chosen.run)


def offer(run: RunFolder) -> None:
    """Say what is missing, and take the name of the new place."""
    with st.container(border=True, key="data-moved", gap="small"):
        st.badge("The data of this run is not here", icon=":material/drive_file_move:", color="orange")
        st.code(places.missing(run), language=None, wrap_lines=True)
        with st.container(key="quiet-moved"):
            shell.line("Runs, Losses, Retrain and Data still show what the run recorded. If the folder has moved:")
        found = list(places.offered())
        if not found:
            shell.line("Move it below data/, or name the folder that holds it in STAGE3_DATA and start again.")
            return
        with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
            label = st.selectbox("It is now at", found, key="moved-to", width=360, help="Below data/ or STAGE3_DATA")
            if st.button("Use this folder", key="moved-use", type="primary"):
                _use(run, label)


def _use(run: RunFolder, label: str) -> None:
    try:
        differs = shell.working("Reading the data set", places.name, run, label)
    except Stage3Error as error:
        shell.error_box(error, "Not this folder")
        return
    if differs:
        st.session_state["_notice"] = differs
    st.rerun()
