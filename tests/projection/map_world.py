"""A small set of panels and maps of it with a stand-in for UMAP, so that what is done around it is seen in a moment."""

from __future__ import annotations

import numpy as np
import pytest
from test_projection import table_of

from stage3.metrics.neighbors import unit_rows
from stage3.projection import files, layouts, maps

COUNTS = [3, 1, 4, 2, 6, 5, 1, 4, 2, 7] * 4  # panels of each page: 140 of 40 pages
BOOKS = [f"book{i // 9}" for i in range(40)]
PARAMETERS = files.Parameters(neighbors=18, min_dist=0.3, min_cluster=7, seed=4)
PLACE = ["umap_dim1", "umap_dim2"]
TURN = np.array([[0.6, -0.8], [0.8, 0.6]])  # no mirror, so that it is not its own transpose


def heaps(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(n, 8) embeddings of any norm around three directions, in mixed order, and (n,) which: half, a third, a sixth.

    The one in the middle of the rows is far from all others, -1.
    """
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.repeat([0, 1, 2], [n - n // 3 - n // 6, n // 3, n // 6]))
    x = 4 * np.eye(8)[label] + rng.uniform(-0.7, 0.7, (n, 8))
    x[n // 2], label[n // 2] = [-3, -3, 0, 0, 0, 0, 0, 0.1], -1
    return (x * rng.uniform(0.5, 2, (n, 1))).astype(np.float32), label


class Layout:
    """In place of UMAP: two coordinates of each direction, or the start turned, mirrored and moved as a whole."""

    def __init__(self) -> None:
        self.asked: list[tuple] = []

    def __call__(self, x, neighbors=None, seed=0, init=None, **others):
        self.asked.append((x, neighbors, seed, init, others))
        return (10 * unit_rows(x)[:, :2] if init is None else init @ TURN * 3 + [5, -9]).astype(np.float32)


def project(x, rows, table, parameters=PARAMETERS, tell=lambda *_: None, *, layout=None, **others):
    """`maps.project` with the stand-in."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (maps, layouts):
            patch.setattr(module, "umap_layout", layout or Layout())
        return maps.project(x, rows, table, parameters, tell, **others)


def small_map():
    """A map of 112 of 140 panels, every fifth being left out, and what it was made of: embeddings, rows, table."""
    rows = np.setdiff1d(np.arange(140), np.arange(0, 140, 5))
    x, table = heaps(len(rows))[0], table_of(COUNTS, BOOKS)
    return x, rows, table, project(x, rows, table)
