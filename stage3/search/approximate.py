"""An approximate index by FAISS, for galleries in which exact search takes too long: found roughly, ordered exactly.

Rows are parted into lists by k-means and kept as one bit per dimension (IVF with RaBitQ: Gao & Long 2024,
arXiv:2405.12497). A query looks into some of the lists; the best of what it finds is scored again with the vectors
themselves, so scores and order are those of exact search, and only rows that were not looked at can be missing. How
many are is measured when the index is made.

    CACHE/search/KEY.faiss  KEY.json      KEY = checkpoint, panels, features, space and the kind of index

Q queries, N rows, D dimensions, k results.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stage3.errors import ConfigError, StorageError
from stage3.metrics.mapped import float_blocks
from stage3.metrics.nearest import Hits
from stage3.search.index import Index, MappedIndex
from stage3.storage import clear_scratch, make_folder, read_json, replace_file, replacing, sha256, to_json

INDICES = ("exact", "faiss")
MAX_LISTS = 2048
PER_LIST = 40  # rows per list that k-means is trained on, at least and at most so many
LISTS_READ = 16  # at least
SHARE_READ = 1 / 32  # of the lists
CANDIDATES = 20  # times k rows are scored again, and at least
LEAST_CANDIDATES = 400
FEW = 20  # where fewer than one row of so many may be found, exact search reads these alone
RECALL_QUERIES, RECALL_AT = 100, 10
ROWS = 2**16  # added at a time


def check_installed() -> None:
    """Refuse an approximate index without its package.

    Raises:
        ConfigError: it is not installed.
    """
    if find_spec("faiss") is None:
        raise ConfigError('index: faiss is not installed: pip install "stage3[faiss]" (or pip install faiss-cpu)')


def _faiss() -> Any:
    check_installed()
    import faiss

    return faiss


@dataclass(frozen=True, eq=False)
class Approximate:
    """An approximate index beside the exact one.

    Attributes:
        exact: the rows themselves.
        lists: of the FAISS index.
        recall: share of the 10 nearest rows that it finds, 0 to 1, over `RECALL_QUERIES` rows that ask.
    """

    exact: Index | MappedIndex
    lists: Any
    recall: float

    @classmethod
    def open(cls, exact: Index | MappedIndex, cache: Path | None, identity: Mapping[str, str]) -> Approximate:
        """The index of some rows, read from the cache or made and left there.

        Args:
            exact: the rows.
            cache: folder of caches; None makes the index in memory alone.
            identity: what the rows are: checkpoint, panels, space; an index of anything else has another name.

        Raises:
            ConfigError: FAISS is not installed.
            StorageError: the cache cannot be written.
        """
        faiss = _faiss()
        kind = f"IVF{n_lists(len(exact))},RaBitQ"
        basis = {"faiss": faiss.__version__, "kind": kind, "rows": len(exact), "dim": exact.dim, **identity}
        path = cache / "search" / f"{sha256(to_json(basis).encode())[:32]}.faiss" if cache and identity else None
        found = _read(path, len(exact), exact.dim) if path else None
        if found is None:
            made = cls(exact, _make(exact, kind), 0.0)
            found = made.lists, made._measured()
            if path:
                _write(path, *found, basis)
        return cls(exact, *found)

    def __len__(self) -> int:
        return len(self.exact)

    def note(self) -> str:
        """What a reader of its results must know."""
        return (
            f"approximate index (FAISS IVF and RaBitQ, {self.lists.nlist:,} lists, ordered exactly): "
            f"recall@{RECALL_AT} against exact search {self.recall:.3f}, of {min(RECALL_QUERIES, len(self)):,} panels"
        )

    def search(
        self,
        queries: Tensor,
        k: int,
        *,
        allowed: np.ndarray[Any, Any] | None = None,
        exclude: np.ndarray[Any, Any] | None = None,
    ) -> Hits:
        """As `Index.search`, among the rows that the lists give; where few rows are allowed, exactly."""
        passing = len(self) if allowed is None else int(np.count_nonzero(allowed))
        if passing * FEW < len(self) or passing <= LEAST_CANDIDATES:
            return self.exact.search(queries, k, allowed=allowed, exclude=exclude)
        k = min(k, passing)
        unit = self.exact.unit(queries)
        options: dict[str, Any] = {"nprobe": max(LISTS_READ, round(SHARE_READ * self.lists.nlist))}
        if allowed is not None:
            options["sel"] = _faiss().IDSelectorBitmap(np.packbits(np.asarray(allowed, bool), bitorder="little"))
        many = min(max(CANDIDATES * k, LEAST_CANDIDATES), passing)
        found = self.lists.search(unit.numpy(), many, params=_faiss().SearchParametersIVF(**options))[1]
        hits = Hits(np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), np.nan))
        for i, rows in enumerate(found):
            rows = rows[rows >= 0]
            if exclude is not None:
                rows = rows[rows != exclude[i]]
            exact = self.exact.cosines_of(unit[i], rows)
            order = np.lexsort((rows, -exact))[:k]
            hits.rows[i, : len(order)], hits.scores[i, : len(order)] = rows[order], exact[order]
        return hits

    def _measured(self) -> float:
        """Recall over evenly spaced rows, each of which does not find itself."""
        own = np.linspace(0, len(self) - 1, min(RECALL_QUERIES, len(self))).round().astype(np.int64)
        queries = torch.from_numpy(self.exact.rows_at(own))
        right, ours = (index.search(queries, RECALL_AT, exclude=own).rows for index in (self.exact, self))
        return float(np.mean([len(np.intersect1d(a, b)) / max(len(a), 1) for a, b in zip(right, ours, strict=True)]))


def n_lists(rows: int) -> int:
    """Lists for so many rows: four times the root, so that each has about as many rows as there are lists."""
    return int(min(4 * np.sqrt(rows), MAX_LISTS, max(1, rows // PER_LIST)))


def _make(exact: Index | MappedIndex, kind: str) -> Any:
    faiss = _faiss()
    made = faiss.index_factory(exact.dim, kind, faiss.METRIC_INNER_PRODUCT)
    sample = np.linspace(0, len(exact) - 1, min(len(exact), PER_LIST * made.nlist)).round().astype(np.int64)
    made.train(exact.rows_at(sample))
    for _, block in float_blocks(exact.source, ROWS):
        made.add(np.ascontiguousarray(block))
    return made


def _read(path: Path, rows: int, dim: int) -> tuple[Any, float] | None:
    """A kept index and its recall; None where there is none that can be used."""
    try:
        about = read_json(path.with_suffix(".json"))
        found = _faiss().read_index(str(path))
        recall = float(about["recall"])
    except (StorageError, OSError, RuntimeError, KeyError, TypeError, ValueError):
        return None  # it is made again
    return (found, recall) if (found.ntotal, found.d) == (rows, dim) else None


def _write(path: Path, lists: Any, recall: float, basis: Mapping[str, Any]) -> None:
    make_folder(path.parent)
    clear_scratch(path.parent)
    with replacing(path, durable=False) as scratch:
        _faiss().write_index(lists, str(scratch))
    about = json.dumps({**basis, "recall": recall}, indent=1).encode()
    replace_file(path.with_suffix(".json"), about, durable=False)
