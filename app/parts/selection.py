"""What was selected on a map: a click names one panel, a lasso or box all panels inside it, drawn or not.

A chart loses its selection whenever it is drawn again and then reports none. So the rows are copied to the session.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import streamlit as st

from app import shell
from app.parts import panel
from app.store import loaders
from stage3.projection.layouts import inside


def clicked(event: Any) -> int | None:
    """The panel row of the first dot that a chart's event names."""
    for point in ((event or {}).get("selection") or {}).get("points") or []:
        row = point.get("customdata")
        row = row[0] if isinstance(row, list | tuple) else row
        if row is not None:
            return int(row)
    return None


def offer(rows: np.ndarray, xy: np.ndarray) -> None:
    """Say which panels a lasso may take: (N,) panel rows and their (N, 2) positions."""
    st.session_state["_map_all"] = (rows, xy)


def take(event: Any) -> None:
    """Copy what the chart selected; an event without a selection changes nothing."""
    selection = (event or {}).get("selection") or {}
    shapes = [np.column_stack([s["x"], s["y"]]) for s in selection.get("lasso") or []]
    for box in selection.get("box") or []:
        (x0, x1), (y0, y1) = (sorted(box[a])[:: len(box[a]) - 1] for a in "xy")
        shapes.append(np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]))
    rows, xy = st.session_state.get("_map_all", (np.zeros(0, int), np.zeros((0, 2))))
    if shapes:
        caught = np.zeros(len(rows), bool)
        for shape in shapes:
            caught |= inside(xy, shape)
        st.session_state["_map_picked"] = (st.session_state.get("_map_data"), rows[caught])
        st.session_state.pop("map-selection-page", None)
        return
    row = clicked(event)
    if row is not None and (rows == row).any():
        panel.focus_on(row)


def picked(chosen: shell.Chosen) -> np.ndarray | None:
    """Rows in the last lasso; None without one, or once another data set is shown."""
    st.session_state["_map_data"] = key = loaders.data_key(chosen.run.config)
    of, rows = st.session_state.get("_map_picked", (None, None))
    return rows if of == key and rows is not None and len(rows) else None


def clear() -> None:
    """Forget the last lasso."""
    st.session_state.pop("_map_picked", None)
