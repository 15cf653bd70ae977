"""Reading order from positions alone, for files whose panels come in none."""

from __future__ import annotations

import numpy as np

SLACK = 0.01  # share of the page that neighboring panels may overlap and still count as apart


def reading_order(boxes: np.ndarray, right_to_left: bool = False) -> list[int]:
    """Order panels as a page is read: tiers from top to bottom, within a tier from left to right, and so on inwards.

    A recursive cut: the page is parted at horizontal gutters that run through; each tier at vertical gutters, each of
    those columns at horizontal ones again. What no gutter parts is sorted by the top edge, then by the left edge.

    Args:
        boxes: (N, 4) x, y, w, h in shares of the page.
        right_to_left: read tiers from the right, as manga.
    """
    return [int(i) for i in _cut(boxes, np.arange(len(boxes)), right_to_left, depth=0)]


def _cut(boxes: np.ndarray, rows: np.ndarray, right_to_left: bool, depth: int) -> list[int]:
    if len(rows) < 2 or depth > 40:
        return list(rows)
    for axis in (1, 0):  # horizontal gutters first
        groups = _parted(boxes[rows, axis], boxes[rows, axis] + boxes[rows, axis + 2], rows)
        if len(groups) > 1:
            if axis == 0 and right_to_left:
                groups.reverse()
            return [i for group in groups for i in _cut(boxes, group, right_to_left, depth + 1)]
    side = -(boxes[rows, 0] + boxes[rows, 2]) if right_to_left else boxes[rows, 0]
    return list(rows[np.lexsort((rows, side, np.round(boxes[rows, 1] / 0.05)))])


def _parted(low: np.ndarray, high: np.ndarray, rows: np.ndarray) -> list[np.ndarray]:
    """Groups of rows between which a line runs that crosses none, in the order of that axis."""
    order = np.lexsort((rows, high, low))
    reach = np.maximum.accumulate(high[order])
    gaps = np.flatnonzero(low[order][1:] >= reach[:-1] - SLACK) + 1
    return list(np.split(rows[order], gaps))
