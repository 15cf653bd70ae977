"""One box for a run whose data is not where it was: what is missing, and where it may be now."""

from __future__ import annotations

import streamlit as st

from app import shell
from app.store import loaders, places, readonly
from stage3.errors import Stage3Error
from stage3.runs import RunFolder


def box(error: BaseException | str) -> None:
    """An error of a view; where the data has moved, the page says so already, and there is nothing to add but this."""
    chosen: shell.Chosen | None = st.session_state.get("_chosen")
    if chosen is None or str(error).partition(" (the data that ")[0] != loaders.missing(chosen.run):
        shell.error_box(error)
    else:
        shell.line("This view needs the data, and the cache does not hold all of it.")


def notice(run: RunFolder) -> None:
    """Where the data of a run is missing, say so, and take the name of its new place."""
    why = loaders.missing(run)
    if not why:
        return
    with st.container(border=True, key="data-moved", gap="small"):
        st.badge("The data of this run is not here", icon=":material/drive_file_move:", color="orange")
        st.code(why, language=None, wrap_lines=True)
        with st.container(key="quiet-moved"):
            shell.line("Views show what the run recorded and what the cache holds, without images.")
        if readonly.on():
            return
        found = list(places.offered())
        if not found:
            shell.line("If it has moved: move it below data/, or name the folder that holds it in STAGE3_DATA.")
            return
        with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
            label = st.selectbox("If it has moved", found, key="moved-to", width=360, help="Below data/ or STAGE3_DATA")
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
