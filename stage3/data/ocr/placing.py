"""Which panel a text belongs to, and in which order the texts of a panel are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stage3.data.ocr.joining import Block, blocks
from stage3.data.ocr.lines import Box, Line
from stage3.data.readers.order import reading_order

CERTAIN = 0.8  # share of a line inside a panel from which nobody doubts that it is the panel's
NEAR = 0.05  # of the page's longer side; a text in no panel belongs to one as near as this (captions between panels)


@dataclass(frozen=True)
class Placed:
    """The texts of a page.

    Attributes:
        panels: of each panel its texts, in reading order.
        outside: those in no panel, in reading order.
    """

    panels: list[list[Block]]
    outside: list[Block]


def placed(lines: Sequence[Line], panels: Sequence[Box], size: tuple[int, int], right_to_left: bool) -> Placed:
    """Join lines, and give them to panels.

    A text goes to the panel that holds most of it, the smallest of several; one in no panel to the nearest, where one
    is near; page numbers to none.

    Args:
        lines: the lines of a page, boxes in pixels.
        panels: boxes in pixels of the same image.
        size: (width, height) of the page in pixels.
        right_to_left: direction in which the texts of a panel are read.
    """
    inside = np.array([[_share(line.box, panel) for panel in panels] for line in lines]).reshape(
        len(lines), len(panels)
    )
    owners = [int(row.argmax()) if row.size and row.max() >= CERTAIN else None for row in inside]
    made: list[list[Block]] = [[] for _ in panels]
    outside: list[Block] = []
    for block in blocks(lines, size[1], owners):
        owner = None if block.kind == "page_number" else _owner(block.box, panels, NEAR * max(size))
        (outside if owner is None else made[owner]).append(block)
    return Placed([_ordered(some, right_to_left) for some in made], _ordered(outside, right_to_left))


def _owner(box: Box, panels: Sequence[Box], near: float) -> int | None:
    """The panel that holds most of a box, else the nearest within `near` pixels."""
    if not panels:
        return None
    shares = [_share(box, panel) for panel in panels]
    most = max(shares)
    if most > 0:
        holders = [k for k, share in enumerate(shares) if share >= most * (1 - 1e-9)]
        return min(holders, key=lambda k: panels[k][2] * panels[k][3])
    gaps = [_gap(box, panel) for panel in panels]
    nearest = int(np.argmin(gaps))
    return nearest if gaps[nearest] <= near else None


def _share(box: Box, panel: Box) -> float:
    """Share of a box that lies in a panel, 0 to 1."""
    wide = min(box[0] + box[2], panel[0] + panel[2]) - max(box[0], panel[0])
    high = min(box[1] + box[3], panel[1] + panel[3]) - max(box[1], panel[1])
    return max(wide, 0.0) * max(high, 0.0) / (box[2] * box[3])


def _gap(box: Box, panel: Box) -> float:
    """Pixels between two boxes that have nothing in common."""
    across = max(panel[0] - box[0] - box[2], box[0] - panel[0] - panel[2], 0.0)
    down = max(panel[1] - box[1] - box[3], box[1] - panel[1] - panel[3], 0.0)
    return float(np.hypot(across, down))


def _ordered(some: Sequence[Block], right_to_left: bool) -> list[Block]:
    return [some[k] for k in reading_order(np.array([block.box for block in some]), right_to_left)]
