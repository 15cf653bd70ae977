"""What the address says of a map: color, layout, zoom, selection, group and tab. The address is the only place for it.

A reload, the back button and another browser then show the same. What cannot be read is said and left out.

    color=cluster  layout=pca  tool=lasso  tab=selection  group=cluster_id:3
    zoom=x0,x1,y0,y1            lasso=umap:x,y;x,y;x,y|x,y;…     (a box is a lasso with four corners)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from app import shell
from stage3.projection.marks import simplified

MAX_CORNERS = 400
MAX_SHAPES = 20
Zoom = tuple[float, float, float, float]  # x0, x1, y0, y1


@dataclass(frozen=True)
class Drawn:
    """What was drawn around dots: the layout that it was drawn on ("umap", "pca" or "right"), and its (C, 2) shapes."""

    on: str
    shapes: tuple[np.ndarray, ...]


def one_of(name: str, known: Iterable[str], default: str, notes: list[str]) -> str:
    """A parameter that must be one of some words; another value is noted, and the default taken."""
    value, known = shell.param(name), list(known)
    if value is None or value in known:
        return value or default
    notes.append(f"{name}={value[:40]} in the address is not known here; {default} is shown.")
    return default


def zoom(notes: list[str]) -> Zoom | None:
    """The part of the map that is shown; None is all of it."""
    text = shell.param("zoom")
    if text is None:
        return None
    found = _numbers(text.split(","))
    if len(found) != 4 or found[0] >= found[1] or found[2] >= found[3]:
        notes.append(f"zoom={text[:60]} in the address is not x0,x1,y0,y1; the whole map is shown.")
        return None
    return found[0], found[1], found[2], found[3]


def set_zoom(value: Sequence[float] | None) -> None:
    """Write the shown part; None removes it."""
    shell.set_params(zoom=None if value is None else ",".join(f"{v:.5g}" for v in value))


def drawn(notes: list[str]) -> Drawn | None:
    """The shapes around the selected panels."""
    text = shell.param("lasso")
    if text is None:
        return None
    on, _, rest = text.partition(":")
    shapes = [_shape(part) for part in rest.split("|")[:MAX_SHAPES]]
    if on not in ("umap", "pca", "right") or any(len(shape) < 3 for shape in shapes):
        notes.append("lasso in the address is not a layout and at least three corners; nothing is selected.")
        return None
    return Drawn(on, tuple(shapes))


def set_drawn(on: str, shapes: Sequence[np.ndarray], width: float) -> None:
    """Write shapes, simplified to a thousandth of the map's width: what is selected follows from the address alone."""
    digits = max(0, 4 - math.floor(math.log10(max(width, 1e-9))))
    parts = []
    for shape in shapes[:MAX_SHAPES]:
        corners = simplified(shape, width / 1000)[:MAX_CORNERS]
        parts.append(";".join(f"{round(float(x), digits):g},{round(float(y), digits):g}" for x, y in corners))
    shell.set_params(lasso=f"{on}:{'|'.join(parts)}")


def _shape(text: str) -> np.ndarray:
    corners = [_numbers(pair.split(",")) for pair in text.split(";")[:MAX_CORNERS]]
    return np.array([c for c in corners if len(c) == 2]) if all(len(c) == 2 for c in corners) else np.zeros((0, 2))


def _numbers(parts: Sequence[str]) -> list[float]:
    """Finite numbers; none where one of them is no number."""
    try:
        found = [float(part) for part in parts]
    except ValueError:
        return []
    return found if all(math.isfinite(value) and abs(value) < 1e9 for value in found) else []
