"""What was selected on a map: a click names one panel or page, a lasso or box all panels inside it, drawn or not.

A chart loses its selection whenever it is drawn again and then reports none. So what was drawn goes into the address,
and the panels follow from it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from app import shell
from app.parts import map_address
from stage3.projection.layouts import inside


def clicked(event: Any) -> int | None:
    """The `customdata` of the first dot that a chart's event names: a panel's row, or −1 − page for a page's mean."""
    for point in ((event or {}).get("selection") or {}).get("points") or []:
        value = point.get("customdata")
        value = value[0] if isinstance(value, list | tuple) else value
        if value is not None:
            return int(value)
    return None


def shapes_of(event: Any) -> list[np.ndarray]:
    """(C, 2) corners of each lasso and box of a chart's event."""
    selection = (event or {}).get("selection") or {}
    shapes = [np.column_stack([s["x"], s["y"]]) for s in selection.get("lasso") or []]
    for box in selection.get("box") or []:
        (x0, x1), (y0, y1) = (sorted(box[a])[:: len(box[a]) - 1] for a in "xy")
        shapes.append(np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]))
    return shapes


def take(event: Any, on: str, rows: np.ndarray, xy: np.ndarray) -> None:
    """Put what a chart selected into the address; an event without a selection changes nothing.

    Args:
        event: of the chart.
        on: which map it is: see `map_address.Drawn`.
        rows: (N,) panel rows that a click may name.
        xy: (N, 2) their positions on it.
    """
    shapes = [shape for shape in shapes_of(event) if len(shape) > 2]
    if shapes:
        map_address.set_drawn(on, shapes, float(np.ptp(xy[:, 0])) or 1.0)
        shell.set_params(tab="selection")
        return
    row = clicked(event)
    if row is None:
        return
    if row < 0:
        shell.set_params(group=f"page:{-1 - row}", tab="group")
    elif (rows == row).any():
        choose(row)


def choose(row: int | None) -> None:
    """Make a panel the chosen one and show it; None closes it."""
    shell.set_params(panel=row, tab=None)


def caught(drawn: map_address.Drawn | None, xy: np.ndarray) -> np.ndarray:
    """(N,) bool, panels inside of what was drawn."""
    found = np.zeros(len(xy), bool)
    for shape in drawn.shapes if drawn else ():
        found |= inside(xy, shape)
    return found


def clear() -> None:
    """Forget what was drawn."""
    shell.set_params(lasso=None)
