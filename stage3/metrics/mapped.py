"""Exact nearest neighbors in a matrix that is too large for memory: float16 rows in a file, read in blocks.

A block is scored quickly and roughly; every row that this cannot tell from the best is scored again in float64. So the
answer is that of float64 brute force over the rows as they are stored. What was read is given back to the system while
the search goes on, so that resident memory does not grow with the file.

Shape letters: Q queries, N rows, D dimension, K neighbors.
"""

from __future__ import annotations

import contextlib
import mmap
import warnings
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stage3.metrics.nearest import Array, Hits

BLOCK = 8192  # rows scored at a time
HELD_BYTES = 64 * 2**20  # that are read before they are given back
FAR_ROWS = 64  # that lie far apart, likewise: the system may map a megabyte around each
SPARSE = 8  # where fewer than one row of so many may be found, only these are read
FEW_QUERIES = 4  # up to so many are scored one by one, in float16 products
QUERIES_AT_ONCE = 128
KEPT_AT_MOST = 2**21  # candidates of all queries before those that fell behind are let go
ROUGH = 0.0016  # most by which a quick score differs from the cosine: query, row and result are rounded to 11 bits
EXACT_AT_ONCE = 4096  # rows scored in float64 at a time


class MappedRows:
    """(N, D) float16 rows of about length 1 in a `.npy` file, memory-mapped.

    Attributes:
        array: (N, D) float16, read-only.

    Args:
        path: file that `numpy.save` or `stage3.model.mapped` wrote.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, by_columns, dtype = header(file)
            if by_columns or dtype != np.float16 or len(shape) != 2:
                raise ValueError(f"{path}: holds {dtype} of shape {shape}, not (N, D) float16 rows")
            start = file.tell()
            if path.stat().st_size < start + 2 * int(np.prod(shape)):
                raise ValueError(f"{path}: shorter than its header says")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.array: Array = np.frombuffer(self._map, np.float16, int(np.prod(shape)), start).reshape(shape)
        self.path = path
        self._read = 0

    def __len__(self) -> int:
        return len(self.array)

    @property
    def dim(self) -> int:
        """D."""
        return int(self.array.shape[1])

    def take(self, rows: Array) -> Array:
        """(n, D) float32 rows by number."""
        return self.gather(rows).astype(np.float32)

    def gather(self, rows: Array) -> Array:
        """(n, D) float16 rows by number, as a copy."""
        out = np.empty((len(rows), self.dim), np.float16)
        for start in range(0, len(rows), FAR_ROWS):
            part = slice(start, start + FAR_ROWS)
            out[part] = self.array[rows[part]]
            self._read += HELD_BYTES // FAR_ROWS * len(out[part])
            if self._read > HELD_BYTES:
                self.give_back()
        return out

    def block(self, start: int, stop: int) -> Tensor:
        """(n, D) float16 rows that lie in the file's own memory: valid until the next block is asked for."""
        self._read += 2 * self.dim * (stop - start)
        if self._read > HELD_BYTES:
            self.give_back()
        with warnings.catch_warnings():  # torch warns of read-only memory; nothing here writes
            warnings.filterwarnings("ignore", "The given", UserWarning)
            return torch.from_numpy(self.array[start:stop])

    def give_back(self) -> None:
        """Let the system have the memory of what was read; it stays in the disk cache."""
        self._read = 0
        if hasattr(mmap, "MADV_DONTNEED"):  # elsewhere the system takes it when it needs it
            with contextlib.suppress(OSError):
                self._map.madvise(mmap.MADV_DONTNEED)


def float_blocks(x: Array | MappedRows, rows: int) -> Iterator[tuple[int, Array]]:
    """The first row and the (n, D) float32 rows of each block of a matrix, in memory or mapped."""
    for start in range(0, len(x), rows):
        stop = min(start + rows, len(x))
        yield start, (x.block(start, stop).numpy() if isinstance(x, MappedRows) else x[start:stop]).astype(np.float32)


@lru_cache(1)
def _half_products_hold() -> bool:
    """Whether float16 products on this machine are as exact as `ROUGH` needs: they must be summed in float32."""
    draw = torch.Generator().manual_seed(0)
    x = torch.nn.functional.normalize(torch.rand(64, 4096, generator=draw), dim=1).half()
    rough, exact = torch.mv(x, x[0]).double(), torch.mv(x.double(), x[0].double())
    return bool((rough - exact).abs().max() < ROUGH / 2)


def _scores(queries: Tensor, block: Tensor) -> Tensor:
    """(Q, n) float32 products, right to within `ROUGH`."""
    if len(queries) <= FEW_QUERIES and _half_products_hold():
        return torch.stack([torch.mv(block, q) for q in queries.half()]).float()
    return queries @ block.float().T


def nearest_mapped(
    queries: Tensor, matrix: MappedRows, k: int, *, allowed: Array | None = None, exclude: Array | None = None
) -> Hits:
    """The k rows of highest cosine for each query, ordered by float64 cosines, equal ones in the order of rows.

    Args:
        queries: (Q, D) float32 rows of norm 1.
        matrix: the rows.
        k: how many; fewer come back where fewer may be found.
        allowed: (N,) bool, rows that may be found; None is all. Blocks without any are not read.
        exclude: (Q,) int64 a row that its query must not find, such as itself; -1 for none.
    """
    k = max(0, min(k, len(matrix) if allowed is None else int(np.count_nonzero(allowed))))
    hits = Hits(np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), np.nan))
    for start in range(0, len(queries) if k else 0, QUERIES_AT_ONCE):
        part = slice(start, start + QUERIES_AT_ONCE)
        own = None if exclude is None else exclude[part]
        for i, rows in enumerate(_candidates(queries[part], matrix, k, allowed, own)):
            exact = exact_cosines(queries[start + i], matrix, rows)
            order = np.lexsort((rows, -exact))[:k]
            hits.rows[start + i, : len(order)], hits.scores[start + i, : len(order)] = rows[order], exact[order]
    matrix.give_back()
    return hits


def exact_cosines(query: Tensor, matrix: MappedRows, rows: Array) -> Array:
    """(n,) float64 cosines of a unit query with some rows."""
    wide = query.double().numpy()
    found = np.empty(len(rows))
    for start in range(0, len(rows), EXACT_AT_ONCE):
        x = matrix.gather(rows[start : start + EXACT_AT_ONCE]).astype(np.float64)
        found[start : start + len(x)] = (x * wide).sum(axis=1) / np.sqrt((x * x).sum(axis=1))
    return found


def scores_around(query: Tensor, matrix: MappedRows, value: float) -> Tensor:
    """(N,) float32 cosines of a query of norm 1 with all rows: right to the last digit near a value, else to `ROUGH`.

    Enough to count the rows above that value, and those equal to it, in a tenth of the time that all digits take.
    """
    out = torch.empty(len(matrix))
    for start in range(0, len(matrix), BLOCK):
        block = matrix.block(start, min(start + BLOCK, len(matrix)))
        scores = _scores(query[None], block)[0]
        near = ((scores - value).abs() <= 2 * ROUGH).nonzero()[:, 0]
        rows = block[near].double()
        scores[near] = (rows @ query.double() / rows.norm(dim=1)).float()
        out[start : start + len(block)] = scores
    matrix.give_back()
    return out


def _candidates(
    queries: Tensor, matrix: MappedRows, k: int, allowed: Array | None, exclude: Array | None
) -> list[Array]:
    """For each query the rows that may be among its k best, ascending."""
    best = torch.full((len(queries), k), -torch.inf)  # the k best quick scores so far
    kept: list[tuple[Array, Array, Array]] = []  # queries, rows, scores
    many = 0
    for start in range(0, len(matrix), BLOCK):
        stop = min(start + BLOCK, len(matrix))
        passing = None if allowed is None else np.flatnonzero(allowed[start:stop])
        if passing is not None and not len(passing):
            continue
        if passing is not None and len(passing) * SPARSE < stop - start:
            block, at = torch.from_numpy(matrix.gather(start + passing)), passing + start
        else:
            block, at = matrix.block(start, stop), np.arange(start, stop)
        scores = _scores(queries, block)
        if passing is not None and len(at) > len(passing):
            barred = np.ones(len(at), bool)
            barred[passing] = False
            scores[:, torch.from_numpy(barred)] = -torch.inf
        if exclude is not None:
            scores[torch.from_numpy(exclude[:, None] == at)] = -torch.inf
        if bool((scores.amax(dim=1) > best[:, -1]).any()):
            best = torch.cat([best, scores.topk(min(k, len(at)), dim=1).values], dim=1).topk(k, dim=1).values
        last = best[:, -1:] - 2 * ROUGH
        near = ((scores >= last) & (scores > -torch.inf)).nonzero().numpy()
        if len(near):
            kept.append((near[:, 0], at[near[:, 1]], scores.numpy()[near[:, 0], near[:, 1]]))
            many += len(near)
        if many > KEPT_AT_MOST:
            kept = [_above(kept, last)]
            many = len(kept[0][0])
    query, row, _ = _above(kept, best[:, -1:] - 2 * ROUGH)
    return [row[query == i] for i in range(len(queries))]


def _above(kept: list[tuple[Array, Array, Array]], last: Tensor) -> tuple[Array, Array, Array]:
    """Those whose score is still near the k-th best of their query."""
    if not kept:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
    query, row, score = (np.concatenate(column) for column in zip(*kept, strict=True))
    there = score >= last.numpy()[query, 0]
    return query[there], row[there], score[there]
