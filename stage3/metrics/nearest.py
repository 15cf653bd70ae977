"""Exact nearest neighbors by cosine: blocks of a matrix product, the best of each row, the last digits in float64.

Search, maps and panel views all find neighbors here. Shape letters: Q queries, N rows, D dimension, K neighbors.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[Any]

CELLS_AT_ONCE = 2**24  # scores held at a time: 64 MiB
ROWS_AT_ONCE = 2**16  # rows read at a time, which is what a memory-mapped matrix costs in memory


@dataclass(frozen=True)
class Hits:
    """The best rows of each query, best first.

    Attributes:
        rows: (Q, K) int64 rows of the matrix; -1 where fewer than K rows may be found.
        scores: (Q, K) float64 cosines; NaN where there is no row.
    """

    rows: Array
    scores: Array


def rows_between(matrix: Tensor | Array, start: int, stop: int) -> Tensor:
    """Rows of a matrix that may be memory-mapped; no more than these are read."""
    block = matrix[start:stop]
    if isinstance(block, Tensor):
        return block
    with warnings.catch_warnings():  # torch warns of a read-only map; nothing here writes
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(np.ascontiguousarray(block))


def cosines(queries: Tensor, matrix: Tensor | Array) -> Tensor:
    """(Q, N) float32 products of unit queries with unit rows; a memory-mapped matrix is read in blocks."""
    if isinstance(matrix, Tensor):
        return queries @ matrix.T
    out = torch.empty(len(queries), len(matrix))
    for start in range(0, len(matrix), ROWS_AT_ONCE):
        block = rows_between(matrix, start, start + ROWS_AT_ONCE)
        out[:, start : start + len(block)] = queries @ block.T
    return out


def nearest(
    queries: Tensor,
    matrix: Tensor | Array,
    k: int,
    *,
    allowed: Array | None = None,
    exclude: Array | None = None,
    refine: bool = True,
) -> Hits:
    """The k rows of highest cosine for each query.

    Args:
        queries: (Q, D) float32 rows of norm 1.
        matrix: (N, D) float32 rows of norm 1; an array may be memory-mapped and is then read in blocks.
        k: how many; fewer come back where fewer may be found.
        allowed: (N,) bool, rows that may be found; None is all.
        exclude: (Q,) int64 a row that its query must not find, such as itself; -1 for none.
        refine: order by float64 cosines, equal ones in the order of rows. Without it the order and the scores are
            those of the float32 product, whose near-ties come in any order; that is a little quicker for many queries.
    """
    k = max(0, min(k, len(matrix) if allowed is None else int(np.count_nonzero(allowed))))
    hits = Hits(np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), np.nan))
    barred = None if allowed is None else torch.from_numpy(~np.asarray(allowed, dtype=bool))
    at_once = max(1, CELLS_AT_ONCE // max(1, len(matrix)))
    for start in range(0, len(queries) if k else 0, at_once):
        part = queries[start : start + at_once]
        scores = cosines(part, matrix)
        if barred is not None:
            scores.masked_fill_(barred, -torch.inf)
        if exclude is not None:
            own = torch.from_numpy(exclude[start : start + at_once])
            with_own = (own >= 0).nonzero()[:, 0]
            scores[with_own, own[with_own]] = -torch.inf
        if refine:
            for i in range(len(part)):
                _refine(part[i], matrix, scores[i], hits, start + i)
        else:
            found = scores.topk(k, dim=1)
            there = found.values > -torch.inf
            hits.rows[start : start + at_once] = found.indices.where(there, -1).numpy()
            hits.scores[start : start + at_once] = found.values.where(there, torch.nan).numpy()
    return hits


def _refine(query: Tensor, matrix: Tensor | Array, scores: Tensor, hits: Hits, at: int) -> None:
    """Every row that float32 cannot tell from the k-th best is scored again in float64; ties by row."""
    k = hits.rows.shape[1]
    # the most that two float32 dot products of unit vectors can differ from exact ones, both together
    slack = 4.0 * max(len(query), 1) * float(np.finfo(np.float32).eps)
    last = scores.topk(k).values[-1] if k < len(scores) else scores.new_tensor(-torch.inf)
    near = ((scores >= last - slack) & (scores > -torch.inf)).nonzero()[:, 0].numpy()
    exact = np.empty(len(near))
    wide = query.double().numpy()
    for start in range(0, len(near), ROWS_AT_ONCE):
        rows = near[start : start + ROWS_AT_ONCE]
        exact[start : start + len(rows)] = (np.asarray(matrix[rows], np.float64) * wide).sum(axis=1)
    order = np.lexsort((near, -exact))[:k]
    hits.rows[at, : len(order)], hits.scores[at, : len(order)] = near[order], exact[order]
