"""Panels on a plane: PCA, UMAP from exact neighbors, clusters of the map, samples for large sets.

Pure functions of arrays and a seed: the same input gives the same bits. UMAP and scikit-learn are imported when a
function needs them, since compiling UMAP alone takes several seconds. N panels, D dimension.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from stage3.metrics.neighbors import exact_neighbors, unit_rows

if TYPE_CHECKING:
    from stage3.metrics.mapped import MappedRows
    from stage3.metrics.nearest import Array

ROWS = 2**14  # read at a time
NEIGHBORS = 15
MIN_DIST = 0.1
SMALLEST_UMAP = 8  # below, a neighborhood graph says nothing that PCA does not


def pca(x: Array | MappedRows, components: int = 2) -> Array:
    """(N, components) float32 principal components of unit-length, centered embeddings.

    Each axis points so that its largest loading is positive, so that two calls never mirror each other. Axes that the
    data do not have are 0. Read in blocks, so that a mapped matrix does not come into memory.
    """
    from stage3.metrics.mapped import MappedRows, float_blocks

    result = np.zeros((len(x), components), np.float32)
    if len(x) < 2:
        return result
    mean = sum(unit_rows(block).sum(axis=0, dtype=np.float64) for _, block in float_blocks(x, ROWS)) / len(x)
    total = 0.0
    for _, block in float_blocks(x, ROWS):
        z = unit_rows(block) - mean
        total = total + z.T @ z
    values, vectors = np.linalg.eigh(total)
    keep = [i for i in np.argsort(values)[::-1][:components] if values[i] > 1e-12 * max(values[-1], 1e-300)]
    axes = vectors[:, keep]
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(len(keep))] < 0, -1.0, 1.0)
    for start, block in float_blocks(x, ROWS):
        result[start : start + len(block), : len(keep)] = (unit_rows(block) - mean) @ axes
    if isinstance(x, MappedRows):
        x.give_back()
    return result


def umap_layout(
    x: Array,
    neighbors: tuple[Array, Array] | None = None,
    seed: int = 0,
    init: Array | None = None,
    *,
    n_neighbors: int = NEIGHBORS,
    min_dist: float = MIN_DIST,
    epochs: int | None = None,
    rate: float = 1.0,
) -> Array:
    """UMAP by cosine (McInnes et al. 2018, arXiv:1802.03426) on exact neighbors, from PCA or from given positions.

    The graph and the optimizer are umap-learn's own; what its estimator class would do besides (searching neighbors
    approximately, preparing for new points) is not needed here. One thread and a seeded generator: same bits again.

    Args:
        x: (N, D) embeddings, of any norm.
        neighbors: what `exact_neighbors(x, k)` returned with k >= n_neighbors - 1, to save the product.
        seed: of the optimizer's negative samples.
        init: (N, 2) starting positions on a map about 10 wide, such as the previous epoch's; default PCA.
        n_neighbors: size of a neighborhood, the panel itself included.
        min_dist: how close points may come.
        epochs: passes over the graph's edges; default 500 up to 10,000 panels, 200 above.
        rate: initial step size; a layout that starts from a good one takes a smaller one.

    Returns:
        (N, 2) float32; PCA where there are too few panels for a graph.
    """
    rng = np.random.default_rng(seed)
    start = np.array(pca(x) if init is None else init, dtype=np.float32)
    if len(x) < SMALLEST_UMAP:
        return start
    size = min(n_neighbors, len(x) - 1)
    near, cosine = exact_neighbors(x, size - 1) if neighbors is None else neighbors
    if near.shape[1] < size - 1:
        raise ValueError(f"{near.shape[1]} neighbors per panel given, {size - 1} needed for n_neighbors={size}")
    itself = np.arange(len(x))[:, None]
    indices = np.hstack([itself, near[:, : size - 1]]).astype(np.int32)
    distances = np.hstack([np.zeros_like(itself), 1 - cosine[:, : size - 1]]).clip(0, 2).astype(np.float32)
    spread = max(float(np.ptp(start, axis=0).max()), 1e-12)
    start = start * (10 / spread) if init is None else start
    # noise parts panels with the same embedding, which the optimizer cannot
    start = (start + rng.normal(scale=1e-4, size=start.shape)).astype(np.float32)
    return _optimized(unit_rows(x), indices, distances, start, size, (min_dist, epochs, rate), seed)


def _optimized(
    x: Array,
    indices: Array,
    distances: Array,
    start: Array,
    size: int,
    settings: tuple[float, int | None, float],
    seed: int,
) -> Array:
    min_dist, epochs, rate = settings
    _import_umap()
    from umap.layouts import optimize_layout_euclidean
    from umap.umap_ import find_ab_params, fuzzy_simplicial_set, make_epochs_per_sample

    state = np.random.RandomState(seed)
    graph = fuzzy_simplicial_set(x, size, state, "cosine", {}, indices, distances)[0].tocoo()
    passes = epochs or (500 if len(x) <= 10_000 else 200)
    graph.data[graph.data < graph.data.max() / passes] = 0.0  # edges too weak to be drawn once
    graph.eliminate_zeros()
    a, b = find_ab_params(1.0, min_dist)
    # umap's own wrapper of this call first stretches the start to a square, which would move every panel of a drift
    layout = optimize_layout_euclidean(
        start,
        start,
        graph.row,
        graph.col,
        passes,
        len(x),
        make_epochs_per_sample(graph.data, passes),
        a,
        b,
        state.randint(-(2**31) + 1, 2**31 - 1, 3).astype(np.int64),
        gamma=1.0,
        initial_alpha=rate,
        negative_sample_rate=5.0,
        move_other=True,
    )
    placed: Array = np.asarray(layout, dtype=np.float32)
    return placed


@cache
def _import_umap() -> None:
    """Import it, and let numba keep what it compiles on disk, as it does for what umap marks: ten seconds per process.

    Numba keeps it beside umap's files, or in the user's cache where that folder cannot be written.
    """
    with warnings.catch_warnings():
        # importing umap announces, as an ImportWarning, that TensorFlow is not there; there is no argument for that
        warnings.filterwarnings("ignore", message="Tensorflow not installed", category=ImportWarning)
        from umap import layouts, umap_
    compiled = (
        umap_.smooth_knn_dist,
        umap_.compute_membership_strengths,
        layouts._nb_optimize_layout_euclidean_single_epoch,
    )
    with suppress(RuntimeError):  # neither folder can be written: it is compiled anew
        for function in compiled:
            function.enable_caching()


def clusters(xy: Array, min_cluster_size: int = 0) -> Array:
    """(N,) int32 HDBSCAN clusters of positions on the map, numbered by size from 0; -1 belongs to none.

    They are clusters of what is seen: the density of two dimensions, with every distortion that the map has.

    Args:
        xy: (N, 2) positions.
        min_cluster_size: smallest cluster in panels, from 2; 0 takes a hundredth of the panels, between 5 and 100.
    """
    size = min_cluster_size or int(np.clip(len(xy) // 100, 5, 100))
    if len(xy) <= max(size, 2):
        return np.full(len(xy), -1, np.int32)
    from sklearn.cluster import HDBSCAN

    labels = HDBSCAN(min_cluster_size=size, min_samples=5 if len(xy) > 5 else 1, copy=True).fit_predict(xy)
    found, counts = np.unique(labels[labels >= 0], return_counts=True)
    number = np.full(int(labels.max()) + 2, -1, np.int32)  # the last entry serves label -1
    number[found[np.argsort(-counts, kind="stable")]] = np.arange(len(found))
    numbered: Array = number[labels]
    return numbered


def stratified(groups: Array, limit: int) -> Array:
    """Ascending rows of a sample that holds each group's share: every n-th row in the order of the groups.

    Args:
        groups: (N,) such as the book of each panel; rows of one group keep their order, so pages are spread too.
        limit: most rows returned.
    """
    n = len(groups)
    if n <= limit:
        return np.arange(n)
    order = np.argsort(groups, kind="stable")
    picked = ((np.arange(limit) + 0.5) * n / limit).astype(np.int64)
    return np.sort(order[picked])


def aligned(xy: Array, onto: Array, shared: Array | None = None) -> Array:
    """Positions turned, mirrored, scaled and moved as a whole to lie best on others (Procrustes); nothing else moves.

    Args:
        xy: (N, 2) positions.
        onto: (N, 2) positions of the same panels; where `shared` is False they are not looked at.
        shared: (N,) bool, panels that decide how the whole is turned; default all.
    """
    everything = np.asarray(xy, np.float64)
    decide = np.ones(len(everything), bool) if shared is None else np.asarray(shared, bool)
    a, b = everything[decide], np.asarray(onto, np.float64)[decide]
    if not len(a):
        return everything.astype(np.float32)
    middle = a.mean(axis=0)
    centered, target = a - middle, b - b.mean(axis=0)
    size = float((centered**2).sum())
    if size == 0:  # a single panel, or all in one place: only a move is known
        there: Array = everything - middle + b.mean(axis=0)
        return there.astype(np.float32)
    u, s, vt = np.linalg.svd(centered.T @ target)
    moved: Array = (everything - middle) @ (u @ vt) * (s.sum() / size) + b.mean(axis=0)
    return moved.astype(np.float32)


def oriented(xy: Array, onto: Array) -> Array:
    """Positions whose axes are swapped and mirrored, and nothing else, so that they lie best on others.

    Principal components keep their meaning by it: each axis is still one of them.

    Args:
        xy: (N, 2) positions.
        onto: (N, 2) positions of the same panels; rows with NaN are not looked at.
    """
    a, b = np.asarray(xy, np.float64), np.asarray(onto, np.float64)
    known = ~np.isnan(b).any(axis=1)
    product = (a[known] - a[known].mean(axis=0)).T @ (b[known] - b[known].mean(axis=0)) if known.any() else np.eye(2)
    straight, crossed = np.abs(np.diag(product)).sum(), np.abs(np.diag(product[::-1])).sum()
    order = [0, 1] if straight >= crossed else [1, 0]
    sign = np.where(product[order, [0, 1]] < 0, -1.0, 1.0)
    result: Array = (a[:, order] * sign).astype(np.float32)
    return result


def hull(xy: Array) -> Array:
    """(n, 2) corners of the convex hull of some points, counter-clockwise (Andrew's monotone chain)."""
    points = sorted({(float(x), float(y)) for x, y in xy})
    if len(points) < 3:
        return np.array(points, np.float32).reshape(-1, 2)

    def half(ordered: list[tuple[float, float]]) -> list[tuple[float, float]]:
        chain: list[tuple[float, float]] = []
        for p in ordered:
            while len(chain) > 1 and _turn(chain[-2], chain[-1], p) <= 0:
                chain.pop()
            chain.append(p)
        return chain[:-1]

    return np.array(half(points) + half(points[::-1]), np.float32)


def _turn(a: Any, b: Any, c: Any) -> float:
    return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))


def inside(xy: Array, polygon: Array) -> Array:
    """(N,) bool: which points lie inside a polygon (even-odd rule), for a lasso on all panels and not the drawn ones.

    Args:
        xy: (N, 2) positions.
        polygon: (C, 2) corners in order; fewer than three hold nothing.
    """
    xy, polygon = np.asarray(xy, np.float64), np.asarray(polygon, np.float64).reshape(-1, 2)
    result = np.zeros(len(xy), bool)
    if len(polygon) < 3:
        return result
    low, high = polygon.min(axis=0), polygon.max(axis=0)
    near = np.flatnonzero(((xy >= low) & (xy <= high)).all(axis=1))
    near = near[np.argsort(xy[near, 1], kind="stable")]
    x, y = xy[near, 0], xy[near, 1]
    odd = np.zeros(len(near), bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        first, last = np.searchsorted(y, [min(y0, y1), max(y0, y1)])  # points beside this edge: y0 <= y < y1
        if first < last:
            beside = slice(first, last)
            odd[beside] ^= x[beside] < (x1 - x0) * (y[beside] - y0) / (y1 - y0) + x0
    result[near] = odd
    return result
