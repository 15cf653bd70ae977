"""Panels of a large set on the map of a sample: each amid the nearest of those that have a position.

Where a panel comes to lie depends on it and on the sample alone: its neighbors are ordered by float64 cosines, equal
ones by row, so neither the size of the blocks nor the order of the panels matters. Memory does not grow with the number
of panels, but for four numbers each. Shape letters: N panels, F fitted ones, D dimension, K neighbors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from stage3.metrics.mapped import MappedRows, float_blocks
from stage3.metrics.nearest import CELLS_AT_ONCE, Array
from stage3.metrics.neighbors import TRUST_K, own_rows, plane_neighbors, shared, unit_rows

ROWS = 2**13  # panels placed at a time
SPARE = 8  # candidates beyond K that are ordered by exact sums; a panel with more near-ties is looked at again
K = 5  # nearest fitted panels that are averaged
WEIGHT = 1e-6  # least weight of one, where its cosine is not positive


def nearest_fitted(x: Array, fitted: Array, k: int, own: Array) -> tuple[Array, Array]:
    """The k fitted panels of highest cosine for each panel: `metrics.nearest` with `refine`, for many panels at once.

    Args:
        x: (N, D) float32 rows of norm 1.
        fitted: (F, D) float32 rows of norm 1.
        k: neighbors, at most F - 1.
        own: (N,) place of each panel in `fitted`, -1 where it is not there; none is its own neighbor.

    Returns:
        (N, k) int64 places in `fitted` and (N, k) float64 cosines, best first.
    """
    near, cosine = np.empty((len(x), k), np.int64), np.empty((len(x), k))
    undecided = np.arange(len(x))
    for kind in (torch.float32, torch.float64):
        if len(undecided):
            undecided = _decided(x, fitted, own, undecided, kind, near, cosine)
    return near, cosine


def _decided(x: Array, fitted: Array, own: Array, rows: Array, kind: torch.dtype, near: Array, cosine: Array) -> Array:
    """Fill in the neighbors of some rows by products of a kind; returns the rows whose near-ties it cannot tell apart.

    In float64, which is slower, such rows are few: copies of each other. These are compared with all that tie.
    """
    k, last = near.shape[1], kind == torch.float64
    # the most that two dot products of unit vectors can differ from exact ones, both together
    slack = 4.0 * max(x.shape[1], 1) * torch.finfo(kind).eps
    many = min(k + SPARE, len(fitted) - 1)
    wide = torch.from_numpy(fitted).to(kind).T
    undecided = []
    step = max(1, CELLS_AT_ONCE // len(fitted) // (2 if last else 1))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        scores = torch.from_numpy(x[part]).to(kind) @ wide
        itself = np.flatnonzero(own[part] >= 0)
        scores[torch.from_numpy(itself), torch.from_numpy(own[part][itself])] = -torch.inf
        found = scores.topk(many, dim=1)
        values = found.values.numpy()
        near[part], cosine[part] = _ordered(x[part], fitted, found.indices.numpy(), k)
        close = np.flatnonzero(values[:, -1] >= values[:, k - 1] - slack) if many < len(fitted) - 1 else itself[:0]
        undecided.append(part[close])
        for i in close if last else ():
            tied = np.flatnonzero(scores[i].numpy() >= values[i, k - 1] - slack)[None]
            near[part[[i]]], cosine[part[[i]]] = _ordered(x[part[[i]]], fitted, tied, k)
    return np.concatenate(undecided)


def _ordered(x: Array, fitted: Array, at: Array, k: int) -> tuple[Array, Array]:
    exact = np.empty(at.shape)
    for start in range(0, len(x), 256):
        part = slice(start, start + 256)
        exact[part] = (fitted[at[part]].astype(np.float64) * x[part, None].astype(np.float64)).sum(axis=2)
    order = np.lexsort((at, -exact), axis=1)[:, :k]
    return np.take_along_axis(at, order, axis=1), np.take_along_axis(exact, order, axis=1)


def placed(near: Array, cosine: Array, xy: Array) -> Array:
    """(N, 2) float32 positions: the mean of the `K` nearest fitted panels, each weighted by its cosine.

    Args:
        near: (N, >= K) neighbors among the fitted panels, nearest first.
        cosine: their cosines.
        xy: (F, 2) positions of the fitted panels.
    """
    weight = np.maximum(cosine[:, :K].astype(np.float64), WEIGHT)
    position = (np.asarray(xy, np.float64)[near[:, :K]] * weight[..., None]).sum(axis=1)
    result: Array = (position / weight.sum(axis=1, keepdims=True)).astype(np.float32)
    return result


def place_all(
    x: Array | MappedRows,
    fitted: Array,
    layout: Array,
    label: Array,
    *,
    rows_at_once: int = ROWS,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[Array, Array, Array]:
    """Position, cluster and neighbors kept of every panel when a sample has a layout.

    Args:
        x: (N, D) embeddings, of any norm.
        fitted: (F,) ascending rows that have a position; they keep it.
        layout: (F, 2) their positions.
        label: (F,) their clusters; another panel is in that of the fitted panel nearest to it.
        rows_at_once: panels placed at a time; no result depends on it.
        advance: told how many panels were placed since the last time.

    Returns:
        (N, 2) float32 positions, (N,) int32 clusters and (N,) float32 shares of neighbors kept among the fitted panels.
    """
    gallery = unit_rows(x.take(fitted) if isinstance(x, MappedRows) else x[fitted])
    own = own_rows(len(x), fitted)
    xy = np.empty((len(x), 2), np.float32)
    cluster, kept = np.empty(len(x), np.int32), np.empty(len(x), np.float32)
    k = min(max(TRUST_K, K), len(fitted) - 1)
    for start, block in float_blocks(x, rows_at_once):
        rows = slice(start, start + len(block))
        near, cosine = nearest_fitted(unit_rows(block), gallery, k, own[rows])
        there = own[rows] >= 0
        xy[rows] = placed(near, cosine, layout)
        xy[rows][there] = layout[own[rows][there]]
        cluster[rows] = np.where(there, label[own[rows]], label[near[:, 0]])
        kept[rows] = shared(near[:, :TRUST_K], plane_neighbors(xy[rows], min(TRUST_K, k), layout, own[rows]))
        advance(len(block))
    return xy, cluster, kept


def record(fitted: int, panels: int) -> dict[str, Any]:
    """What a map says of how the panels beyond the sample were placed; None where all were fitted."""
    if fitted == panels:
        return {"placed": None}
    rule = {"neighbors": K, "weight": "cosine", "least_weight": WEIGHT, "sample": "every n-th panel by book and page"}
    return {"placed": {"panels": panels - fitted, "fitted": fitted, **rule}}
