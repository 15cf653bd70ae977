"""Add comics: from a folder or uploaded files, over boxes and texts, to a data set, and on to training.

Everything that is made lies on the disk (`app.store.imports`), and the address names the import: a reload goes on here.
"""

from __future__ import annotations

import streamlit as st

from app import shell
from app.parts import add_choice, add_import, add_source, add_train
from app.store import imports, readonly
from stage3.errors import Stage3Error


def render() -> None:
    """The import of the address, step by step; without one, where comics come from."""
    shell.heading("Add comics", "From files to a data set that can be trained on, mapped and searched.")
    if readonly.on():
        shell.empty(readonly.TITLE, readonly.ABOUT)
        return
    name = shell.param("import")
    made = None
    if name is not None:
        try:
            made = imports.load(name)
        except Stage3Error as error:
            shell.error_box(error)
    if made is None:
        add_source.show()
        _earlier()
        return
    _head(made)
    add_choice.show(made)
    if add_import.show(made):
        add_train.show(made)


def _head(made: imports.Import) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="add-head"):
        st.text(made.name, width="content")
        with st.container(key="quiet-add-source"):
            shell.line(made.source)
        if st.button("Other comics", icon=":material/add:", key="add-other", type="tertiary"):
            shell.set_params(**{"import": None})
            st.rerun()
        unused = made.task("all").state().word == "none"
        if unused and st.button("Discard", icon=":material/delete:", key="add-discard", type="tertiary"):
            imports.discard(made)
            shell.set_params(**{"import": None})
            st.rerun()
    if made.refused:
        shell.error_box("\n".join(made.refused), "Not used")


def _earlier() -> None:
    found = imports.imports()[:20]
    if not found:
        return
    st.subheader("Added before", anchor=False)
    for made in found:
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            if st.button("Open", key=f"add-open-{made.name}", type="tertiary"):
                shell.set_params(**{"import": made.name})
                st.rerun()
            word = made.task("all").state().word
            state = {"none": "not imported yet", "finished": "imported"}.get(word, word)
            st.text("  ·  ".join((made.name, made.source, state)), width="stretch")
