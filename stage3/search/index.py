"""Exact nearest neighbors by cosine: a matrix product, the best of it, and the last digits in float64.

Q queries, N rows searched, D dimensions, k results.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stage3.errors import DataError

CELLS_AT_ONCE = 2**24  # scores held at a time: 64 MiB
ROWS_AT_ONCE = 2**16  # rows read at a time, which is what a memory-mapped matrix costs in memory
UNIT = 1e-3  # how far a row's norm may be from 1


@dataclass(frozen=True)
class Hits:
    """The best rows of each query, best first.

    Attributes:
        rows: (Q, k) int64 rows of the matrix; -1 where fewer than k rows may be found.
        scores: (Q, k) float64 cosines; NaN where there is no row.
    """

    rows: np.ndarray[Any, Any]
    scores: np.ndarray[Any, Any]


class Index:
    """Search over N rows of length 1. The order is that of float64 cosines; equal ones come in the order of rows.

    Args:
        matrix: (N, D) float32, each row of norm 1; an array may be memory-mapped and is then read in blocks.

    Raises:
        DataError: not a float32 matrix, or a row without direction (zero, NaN) or of another norm.
    """

    def __init__(self, matrix: Tensor | np.ndarray[Any, Any]) -> None:
        if matrix.ndim != 2 or str(matrix.dtype).removeprefix("torch.") != "float32":
            raise DataError(f"an index needs an (N, D) float32 matrix, not {tuple(matrix.shape)} {matrix.dtype}")
        self._source = matrix.detach().cpu() if isinstance(matrix, Tensor) else matrix
        self.size, self.dim = (int(n) for n in matrix.shape)
        # the most that two float32 dot products of unit vectors can differ from exact ones, both together
        self._slack = 4.0 * max(self.dim, 1) * float(np.finfo(np.float32).eps)
        for start in range(0, self.size, ROWS_AT_ONCE):
            off = (self._rows(start, start + ROWS_AT_ONCE).norm(dim=1) - 1).abs()
            bad = (~(off <= UNIT)).nonzero()
            if len(bad):
                row = int(bad[0, 0])
                raise DataError(
                    f"row {start + row} of the index is not of norm 1 (off by {off[row]:.3g}). Normalize the rows, "
                    "and leave out panels that lack the modality."
                )

    @classmethod
    def of(cls, embeddings: Tensor) -> Index:
        """An index of embeddings of any norm but zero."""
        return cls(F.normalize(embeddings.float(), dim=1))

    def __len__(self) -> int:
        return self.size

    def _rows(self, start: int, stop: int) -> Tensor:
        block = self._source[start:stop]
        if isinstance(block, Tensor):
            return block
        with warnings.catch_warnings():  # torch warns of a read-only map; nothing here writes
            warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
            return torch.from_numpy(np.ascontiguousarray(block))

    def scores(self, queries: Tensor) -> Tensor:
        """(Q, N) float32 cosines of queries of any norm but zero.

        Raises:
            DataError: another number of dimensions, or a query without direction.
        """
        return self._scores(self._unit(queries))

    def _unit(self, queries: Tensor) -> Tensor:
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise DataError(f"the index holds vectors of {self.dim} numbers, the queries are {tuple(queries.shape)}")
        norms = queries.double().norm(dim=1, keepdim=True)
        if not bool(((norms > 0) & norms.isfinite()).all()):
            raise DataError("the query's vector is zero or not finite")
        unit: Tensor = (queries.double() / norms).float()
        return unit

    def _scores(self, unit: Tensor) -> Tensor:
        if self.size <= ROWS_AT_ONCE or isinstance(self._source, Tensor):
            whole: Tensor = unit @ self._rows(0, self.size).T
            return whole
        out = torch.empty(len(unit), self.size)
        for start in range(0, self.size, ROWS_AT_ONCE):
            block = self._rows(start, start + ROWS_AT_ONCE)
            out[:, start : start + len(block)] = unit @ block.T
        return out

    def search(
        self,
        queries: Tensor,
        k: int,
        *,
        allowed: np.ndarray[Any, Any] | None = None,
        exclude: np.ndarray[Any, Any] | None = None,
    ) -> Hits:
        """The k rows of highest cosine for each query.

        Args:
            queries: (Q, D) vectors of any norm but zero.
            k: how many; fewer come back where fewer may be found.
            allowed: (N,) bool, rows that may be found; None is all.
            exclude: (Q,) int64 a row that its query must not find, such as itself; -1 for none.

        Raises:
            DataError: another number of dimensions, or a query without direction.
        """
        unit = self._unit(queries)
        k = max(0, min(k, self.size if allowed is None else int(np.count_nonzero(allowed))))
        hits = Hits(np.full((len(unit), k), -1, np.int64), np.full((len(unit), k), np.nan))
        barred = None if allowed is None else torch.from_numpy(~np.asarray(allowed, dtype=bool))
        at_once = max(1, CELLS_AT_ONCE // max(1, self.size))
        for start in range(0, len(unit) if k else 0, at_once):
            part = unit[start : start + at_once]
            scores = self._scores(part)
            if barred is not None:
                scores.masked_fill_(barred, -torch.inf)
            for i in range(len(part)):
                if exclude is not None and exclude[start + i] >= 0:
                    scores[i, int(exclude[start + i])] = -torch.inf
                self._refine(part[i], scores[i], k, hits, start + i)
        return hits

    def _refine(self, query: Tensor, scores: Tensor, k: int, hits: Hits, at: int) -> None:
        """Every row that float32 cannot tell from the k-th best is scored again in float64; ties by row."""
        last = scores.topk(k).values[-1] if k < self.size else scores.new_tensor(-torch.inf)
        near = ((scores >= last - self._slack) & (scores > -torch.inf)).nonzero()[:, 0].numpy()
        exact = np.empty(len(near))
        wide = query.double().numpy()
        for start in range(0, len(near), ROWS_AT_ONCE):
            rows = near[start : start + ROWS_AT_ONCE]
            exact[start : start + len(rows)] = (np.asarray(self._source[rows], np.float64) * wide).sum(axis=1)
        order = np.lexsort((near, -exact))[:k]
        hits.rows[at, : len(order)], hits.scores[at, : len(order)] = near[order], exact[order]
