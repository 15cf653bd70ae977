"""Where comics come from: files from this browser, or a folder below the roots that the explorer may read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import streamlit as st

from app import shell
from app.store import imports, loaders, uploads
from stage3.cli import counted
from stage3.data.readers.names import EXTENSIONS
from stage3.errors import Stage3Error

TYPES = [".cbz", ".zip", *EXTENSIONS]


def show() -> None:
    """Choose comics and name their data set; then a look begins."""
    with st.container(border=True, key="card-add-source"):
        st.subheader("Comics", anchor=False)
        where = st.segmented_control(
            "From", ["Files", "Folder"], default="Files", required=True, key="add-from", label_visibility="collapsed"
        )
        (_files if where == "Files" else _folder)()


def _files() -> None:
    turn = st.session_state.setdefault("_add_turn", 0)
    given = st.file_uploader(
        "CBZ, ZIP or images",
        type=TYPES,
        accept_multiple_files=True,
        key=f"add-upload-{turn}",
        max_upload_size=uploads.MAX_FILE >> 20,
        help="An archive is a book; single images together are one. Annotations may lie in an archive with its images. "
        "Larger comics: put them into a folder, and choose that.",
    )
    if not given:
        with st.container(key="quiet-add-files", gap="xsmall"):
            shell.line("An archive is a book; single images together are one. Files stay on this machine.")
            shell.line("Next: six pages with their panels to look at, then the import, then training or a map.")
        return
    name = _name(Path(given[0].name).stem if len(given) == 1 else "comics", f"files-{turn}")
    if st.button("Continue", type="primary", key="add-continue", icon=":material/arrow_forward:"):
        try:
            made = imports.create(name, counted(len(given), "uploaded file"))
            try:
                refused = uploads.keep([(g.name, g.getvalue()) for g in given], made.uploads, name)
            except Stage3Error:
                imports.discard(made)
                raise
        except Stage3Error as error:
            shell.error_box(error, "These files were not added")
            return
        st.session_state["_add_turn"] = turn + 1  # the server need not keep the files in memory any longer
        _go_on(replace(made, refused=tuple(refused)))


def _folder() -> None:
    found = shell.working("Looking for comics", imports.offered)
    if not found:
        shell.empty(
            "No folder with comics",
            "Put archives or folders of images into the folder below, or name other folders in the environment "
            "variable STAGE3_COMICS before you start the explorer.",
            str(loaders.base() / "comics"),
        )
        return
    chosen = st.selectbox(
        "Folder or archive", found, key="add-folder", width=620, help="Below comics/ and folders of STAGE3_COMICS"
    )
    if len(found) == imports.MOST_OFFERED:
        shell.line(f"The first {imports.MOST_OFFERED} are listed.")
    name = _name(Path(chosen).stem if chosen.lower().endswith(imports.ARCHIVES) else Path(chosen).name, chosen)
    if st.button("Continue", type="primary", key="add-continue", icon=":material/arrow_forward:"):
        try:
            made = imports.create(name, chosen, imports.place(chosen))
        except Stage3Error as error:
            shell.error_box(error, "This folder was not added")
            return
        _go_on(made)


def _name(stem: str, key: str) -> str:
    return st.text_input(
        "Name of the data set", value=imports.free_name(stem), max_chars=60, key=f"add-name-{key}", width=330
    ).strip()


def _go_on(made: imports.Import) -> None:
    imports.look(made, made.choice)
    shell.set_params(**{"import": made.name})
    st.rerun()
