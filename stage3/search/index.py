"""A matrix to search, in memory or mapped: rows of length 1, queries with a direction.

`metrics.nearest` and `metrics.mapped` find the rows.

Q queries, N rows searched, D dimensions, k results.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from stage3.errors import DataError
from stage3.metrics.mapped import MappedRows, exact_cosines, nearest_mapped, scores_around
from stage3.metrics.nearest import ROWS_AT_ONCE, Hits, cosines, nearest, rows_between

UNIT = 1e-3  # how far a row's norm may be from 1


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
        for start in range(0, self.size, ROWS_AT_ONCE):
            off = (rows_between(self._source, start, start + ROWS_AT_ONCE).norm(dim=1) - 1).abs()
            bad = (~(off <= UNIT)).nonzero()
            if len(bad):
                row = int(bad[0])
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

    def scores(self, queries: Tensor) -> Tensor:
        """(Q, N) float32 cosines of queries of any norm but zero.

        Raises:
            DataError: another number of dimensions, or a query without direction.
        """
        return cosines(self.unit(queries), self._source)

    def scores_around(self, query: Tensor, own: int) -> Tensor:
        """(N,) float32 cosines of a query of any norm but zero, exact wherever they are near that of row `own`."""
        return self.scores(query[None])[0]

    def unit(self, queries: Tensor) -> Tensor:
        """(Q, D) queries of norm 1."""
        return _unit(queries, self.dim)

    @property
    def source(self) -> np.ndarray[Any, Any]:
        """(N, D) the rows."""
        return self._source.numpy() if isinstance(self._source, Tensor) else self._source

    def rows_at(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """(n, D) float32 rows by number."""
        return np.asarray(self.source[rows], np.float32)

    def cosines_of(self, query: Tensor, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """(n,) float64 cosines of a query of norm 1 with some rows."""
        exact: np.ndarray[Any, Any] = (self.rows_at(rows) * query.double().numpy()).sum(axis=1)
        return exact

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
        return nearest(self.unit(queries), self._source, k, allowed=allowed, exclude=exclude)


class MappedIndex:
    """Search over N float16 rows in a file: the answers of float64 brute force over these rows, in bounded memory.

    Args:
        source: the rows, of about length 1.
    """

    def __init__(self, source: MappedRows) -> None:
        self.source = source
        self.size, self.dim = len(source), source.dim

    def __len__(self) -> int:
        return self.size

    def unit(self, queries: Tensor) -> Tensor:
        """(Q, D) queries of norm 1."""
        return _unit(queries, self.dim)

    def scores_around(self, query: Tensor, own: int) -> Tensor:
        """(N,) as `Index.scores_around`, from quick scores but for those rows."""
        unit = self.unit(query[None])[0]
        return scores_around(unit, self.source, float(self.cosines_of(unit, np.array([own]))[0]))

    def rows_at(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """(n, D) float32 rows by number."""
        return self.source.take(rows)

    def cosines_of(self, query: Tensor, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """(n,) float64 cosines of a query of norm 1 with some rows."""
        return exact_cosines(query, self.source, rows)

    def search(
        self,
        queries: Tensor,
        k: int,
        *,
        allowed: np.ndarray[Any, Any] | None = None,
        exclude: np.ndarray[Any, Any] | None = None,
    ) -> Hits:
        """As `Index.search`; blocks without an allowed row are not read."""
        return nearest_mapped(self.unit(queries), self.source, k, allowed=allowed, exclude=exclude)


def _unit(queries: Tensor, dim: int) -> Tensor:
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise DataError(f"the index holds vectors of {dim} numbers, the queries are {tuple(queries.shape)}")
    norms = queries.double().norm(dim=1, keepdim=True)
    if not bool(((norms > 0) & norms.isfinite()).all()):
        raise DataError("the query's vector is zero or not finite")
    unit: Tensor = (queries.double() / norms).float()
    return unit
