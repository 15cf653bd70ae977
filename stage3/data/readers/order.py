"""Reading order from positions alone, for files whose panels come in none and for panels that were found.

A tree of cuts, as Kovanen and Aizawa describe it (A layered method for determining manga text bubble reading order,
ICIP 2015; described at manga109/panel-order-estimator): a line parts the panels of a page in two groups, each group is
parted again. Panels may reach over a line with a part of themselves, since they overlap, lean, and are measured.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

OVER = 0.25  # share of a panel's height (or width) that may lie on the other side of a cut
CLEAN = 0.05  # ... up to which nobody doubts the cut
DEPTH = 64  # cuts inside cuts; a page of so many panels is read in the order of their corners


class Order(NamedTuple):
    """A reading order.

    Attributes:
        rows: the panels' indices, first read first.
        certain: every cut was clean, or the only one possible; False where panels lie inside others or no line parts
            them, and where a doubtful horizontal and a doubtful vertical cut would give different orders.
    """

    rows: list[int]
    certain: bool


def reading_order(boxes: np.ndarray, right_to_left: bool = False) -> list[int]:
    """The indices of `page_order`."""
    return page_order(boxes, right_to_left).rows


def page_order(boxes: np.ndarray, right_to_left: bool = False) -> Order:
    """Order panels as a page is read: tiers from top to bottom, within a tier from left to right, and so on inwards.

    Args:
        boxes: (N, 4) x, y, w, h in shares of the page or in pixels.
        right_to_left: read tiers from the right, as manga.

    Example:
        >>> tall_beside_two = np.array([[0.0, 0.0, 0.5, 1.0], [0.5, 0.5, 0.5, 0.5], [0.5, 0.0, 0.5, 0.5]])
        >>> page_order(tall_beside_two)
        Order(rows=[0, 2, 1], certain=True)
        >>> page_order(tall_beside_two, right_to_left=True).rows
        [2, 1, 0]
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    mirrored = boxes.copy()
    if right_to_left:
        mirrored[:, 0] = -(boxes[:, 0] + boxes[:, 2])
    rows, certain = _ordered(mirrored, np.arange(len(boxes)), DEPTH)
    return Order([int(row) for row in rows], certain)


def _ordered(boxes: np.ndarray, rows: np.ndarray, depth: int) -> tuple[list[int], bool]:
    if len(rows) < 2:
        return list(rows), True
    horizontal = _best_cut(boxes[rows, 1], boxes[rows, 3])
    if horizontal[0] <= CLEAN and depth:  # most pages: it comes first, whatever the vertical one is
        a, sure_a = _ordered(boxes, rows[horizontal[1]], depth - 1)
        b, sure_b = _ordered(boxes, rows[~horizontal[1]], depth - 1)
        return a + b, sure_a and sure_b
    vertical = _best_cut(boxes[rows, 0], boxes[rows, 2])
    # A clean horizontal cut comes first, then a clean vertical one, then whichever is cleaner.
    first, second = (horizontal, vertical) if horizontal[0] <= max(CLEAN, vertical[0]) else (vertical, horizontal)
    over, before = first
    if over > OVER or depth == 0:
        corner = boxes[rows, :2]
        return list(rows[np.lexsort((rows, corner[:, 0], corner[:, 1]))]), False
    a, sure_a = _ordered(boxes, rows[before], depth - 1)
    b, sure_b = _ordered(boxes, rows[~before], depth - 1)
    return a + b, sure_a and sure_b and (over <= CLEAN or second[0] > OVER)


def _best_cut(low: np.ndarray, size: np.ndarray) -> tuple[float, np.ndarray]:
    """The line that panels reach over least, as (largest share of a panel beyond it, (N,) which panels lie before it).

    The first such line when several are as good; a share above 1 when no line has panels on both sides.
    """
    size = np.maximum(size, 1e-12)
    gap = _first_gap(low, size)
    if gap is not None:
        return 0.0, gap
    lines = np.unique(np.concatenate([low, low + size]))
    lines = np.concatenate([lines, (lines[1:] + lines[:-1]) / 2])
    share_before = np.clip((lines[:, None] - low[None]) / size[None], 0, 1)  # (L, N)
    over = np.minimum(share_before, 1 - share_before).max(1)
    before = share_before > 0.5
    over[before.all(1) | ~before.any(1)] = 2.0
    best = np.lexsort((lines, np.round(over, 9)))[0]
    return float(over[best]), before[best]


def _first_gap(low: np.ndarray, size: np.ndarray) -> np.ndarray | None:
    """(N,) which panels lie before the first line that none reaches over; None where only comparing all lines tells.

    A short cut to the answer of `_best_cut`, which takes most of the time of reading a data set.
    """
    lows, sizes = low.tolist(), size.tolist()
    largest = max(sizes)
    if min(sizes) < 1e-6 * largest:
        return None
    order = sorted(range(len(lows)), key=lows.__getitem__)
    reach = lows[order[0]] + sizes[order[0]]
    for n, row in enumerate(order[1:], 1):
        if lows[row] >= reach:
            before = np.zeros(len(lows), bool)
            before[order[:n]] = True
            return before
        if lows[row] >= reach - 1e-8 * largest:  # panels overlap by less than `_best_cut` tells apart
            return None
        reach = max(reach, lows[row] + sizes[row])
    return None
