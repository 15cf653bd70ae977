"""Correcting the boxes of a page by hand, in a dialog over the Page view; one call draws its button."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from app import components, shell
from app.charts import pages
from app.store import loaders, readonly, watch
from stage3.cli import counted
from stage3.data import correct
from stage3.data.correct import CorrectedPanel
from stage3.data.readers.boxes import four
from stage3.errors import DataError, Stage3Error
from stage3.storage import sha256

KEY = "page-boxes"


def button(chosen: shell.Chosen, page: int) -> None:
    """A button that opens the editor for a page (a row of the data set's pages); none where nothing may be changed."""
    if readonly.on():
        return
    if st.button("Correct boxes", icon=":material/edit:", key="page-correct", help="Move, add, delete, reorder panels"):
        _editor(chosen, page)


@shell.dialog("Correct boxes", width="large", icon=":material/edit:")
def _editor(chosen: shell.Chosen, page: int) -> None:
    try:
        record = loaders.open_dataset(chosen.run).table.pages.iloc[page]
        found = _found(chosen, record)
    except Stage3Error as error:
        shell.error_box(error, "This page cannot be corrected")
        return
    data = _data(chosen, page, record, found)
    asked = components.box_editor(data, KEY)
    with st.container(key="quiet-boxes"):
        shell.line(
            "Draw on the page for a new panel. On a box: arrows move, Alt and arrows size, Delete deletes, [ and ] "
            "change the order. Saved beside the data; the files stay as they are."
        )
    try:
        if asked.get("revert") or asked.get("save") is not None:
            readonly.refuse()
        if asked.get("revert"):
            correct.uncorrect(loaders.config_here(chosen.run.config), str(record["page_id"]))
            _done("The panels of this page are as in its file again.")
        elif asked.get("save") is not None:
            panels = taken(asked["save"])
            correct.correct(loaders.config_here(chosen.run.config), str(record["page_id"]), panels)
            _done(f"Saved: {counted(len(panels), 'panel')}. Retrain trains on them; this run knew the earlier ones.")
    except Stage3Error as error:
        shell.error_box(error, "Not saved")


def _found(chosen: shell.Chosen, record: pd.Series[Any]) -> correct.Page:
    table = loaders.open_dataset(chosen.run).table
    config = loaders.config_here(chosen.run.config)
    return correct.page_to_correct(config, str(record["page_id"]), str(record["image_path"]), table.report.facts)


def _data(chosen: shell.Chosen, page: int, record: pd.Series[Any], found: correct.Page) -> dict[str, Any]:
    """What the component shows."""
    version = loaders.data_version(chosen.run)
    return {
        "token": sha256(f"{chosen.id} {page} {version} {found}".encode("utf-8", "replace"))[:16],
        "image": shell.thumb_url(chosen, page, 1200, kind="page"),
        "ratio": pages.ratio_of(record),
        "corrected": found.is_corrected,
        "most": correct.MOST,
        "panels": [_entry(entry) for entry in found.panels],
        "dropped": [_entry(entry) for entry in found.dropped],
    }


def _entry(entry: correct.Entry) -> dict[str, Any]:
    return {"of": entry.of, "box": entry.box and [round(v, 5) for v in entry.box], "text": entry.text[:200]}


def taken(value: Any) -> list[CorrectedPanel]:
    """The panels that came from the browser, which may be anything.

    Raises:
        DataError: they are no panels.
    """
    if not isinstance(value, list) or len(value) > correct.MOST:
        raise DataError(f"expected a list of at most {correct.MOST} panels")
    made = []
    for number, entry in enumerate(value):
        of, box = (entry.get("of"), entry.get("box")) if isinstance(entry, dict) else ("", None)
        known = four(box)[0] if isinstance(box, list) else None
        if not (of is None or type(of) is int) or (of or 0) < 0 or (box is not None and known is None):
            raise DataError(f"panel {number + 1}: not a panel")
        made.append(CorrectedPanel(of, known))
    return made


def _done(notice: str) -> None:
    watch.forget()
    st.session_state["_notice"] = notice
    shell.set_params(panel=None)  # rows of panels may have changed
    st.rerun()
