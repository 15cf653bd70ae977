"""Exact nearest neighbors and what becomes of them: in another embedding, or in two dimensions.

Everything is a block of rows against all rows, so memory grows with the number of panels and not with its square.
Shape letters: N queries, G gallery rows, D dimension, K neighbors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from stage3.metrics.nearest import Array

TRUST_K = 15


def unit_rows(x: Array) -> Array:
    """(N, D) float32 rows of length 1; rows of zeros stay zeros.

    Raises:
        ValueError: `x` is not a matrix, or not finite.

    Example:
        >>> unit_rows(np.array([[0.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.0, 1.0], [0.0, 0.0]]
    """
    x = np.asarray(x, dtype=np.float32)
    if x.ndim != 2:
        raise ValueError(f"embeddings must be a matrix (panels, dimension), got shape {x.shape}")
    if not np.isfinite(x).all():
        bad = int((~np.isfinite(x).all(axis=1)).sum())
        raise ValueError(f"{bad:,} of {len(x):,} embeddings are not finite. Train with a lower lr, or look at the run.")
    length = np.linalg.norm(x, axis=1, keepdims=True)
    unit: Array = x / np.maximum(length, np.finfo(np.float32).tiny)
    return unit


def exact_neighbors(
    x: Array, k: int, gallery: Array | None = None, own: Array | None = None, *, refine: bool = False
) -> tuple[Array, Array]:
    """The k rows of highest cosine for each row: `nearest` for embeddings of any norm.

    Args:
        x: (N, D) query embeddings, of any norm.
        k: neighbors wanted; cut to what the gallery can give.
        gallery: (G, D) rows to search; default `x` itself.
        own: (N,) gallery row that is the query itself and never its neighbor, -1 for none. Default: row n when the
            gallery is `x`, none otherwise.
        refine: order by float64 cosines, as `nearest` does by default. Not by default here, since it takes two to
            five times as long when every panel asks, and a map does not depend on the order of near-ties.

    Returns:
        (N, K) int32 gallery rows and (N, K) float32 cosines, best first.

    Example:
        >>> near, cosine = exact_neighbors(np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), k=1)
        >>> near.tolist()
        [[1], [0], [1]]
    """
    query = unit_rows(x)
    searched = query if gallery is None else unit_rows(gallery)
    if own is None:
        own = np.arange(len(query)) if gallery is None else np.full(len(query), -1)
    k = max(0, min(k, len(searched) - int((own >= 0).any())))
    import torch

    from stage3.metrics.nearest import nearest

    hits = nearest(torch.from_numpy(query), torch.from_numpy(searched), k, exclude=own, refine=refine)
    return hits.rows.astype(np.int32), hits.scores.astype(np.float32)


def plane_neighbors(xy: Array, k: int, gallery: Array | None = None, own: Array | None = None) -> Array:
    """(N, K) int32 rows nearest in two dimensions by Euclidean distance; arguments as in `exact_neighbors`.

    Example:
        >>> plane_neighbors(np.array([[0.0, 0.0], [1.0, 0.0], [5.0, 0.0]]), k=1).tolist()
        [[1], [0], [1]]
    """
    from sklearn.neighbors import KDTree

    searched = xy if gallery is None else gallery
    if own is None:
        own = np.arange(len(xy)) if gallery is None else np.full(len(xy), -1)
    spare = int((own >= 0).any())
    k = max(0, min(k, len(searched) - spare))
    if not k or not len(xy):
        return np.empty((len(xy), k), np.int32)
    found = KDTree(searched).query(xy, k=k + spare, return_distance=False)
    # points that lie on one another come in any order, so the point itself need not come first
    itself = found == own[:, None]
    order = np.argsort(itself, axis=1, kind="stable")[:, :k]
    nearest: Array = np.take_along_axis(found, order, axis=1).astype(np.int32)
    return nearest


def shared(a: Array, b: Array) -> Array:
    """(N,) share of each row of `a` (N, K) that is also in the same row of `b` (N, K), 0 to 1; NaN where K is 0.

    Example:
        >>> shared(np.array([[0, 1], [2, 3]]), np.array([[1, 5], [3, 2]])).tolist()
        [0.5, 1.0]
    """
    if a.shape[1] == 0:
        return np.full(len(a), np.nan, np.float32)
    share = np.empty(len(a), np.float32)
    for start in range(0, len(a), 65536):
        rows = slice(start, start + 65536)
        share[rows] = (a[rows, :, None] == b[rows, None, :]).any(axis=2).mean(axis=1)
    return share


def trust(x: Array, xy: Array, k: int = TRUST_K, *, gallery: Array | None = None, near: Array | None = None) -> Array:
    """Share of each panel's k nearest panels in D dimensions that are among its k nearest on the map, 0 to 1.

    Args:
        x: (N, D) embeddings.
        xy: (N, 2) positions on the map.
        k: neighbors compared.
        gallery: (G,) rows that count as neighbors; default all. With 100,000 panels a sample of them is plenty.
        near: (N, >= k) neighbors that `exact_neighbors` found among the gallery, to save the product.

    Returns:
        (N,) float32; NaN where there is no other panel.

    Example:
        >>> x = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
        >>> trust(x, xy=np.array([[0.0, 0.0], [1.0, 0.0], [5.0, 0.0]]), k=1).tolist()
        [1.0, 1.0, 1.0]
    """
    if gallery is None:
        high = exact_neighbors(x, k)[0] if near is None else near[:, :k]
        return shared(high, plane_neighbors(xy, high.shape[1]))
    own = own_rows(len(x), gallery)
    high = exact_neighbors(x, k, x[gallery], own)[0] if near is None else near[:, :k]
    return shared(high, plane_neighbors(xy, high.shape[1], xy[gallery], own))


def own_rows(n: int, gallery: Array) -> Array:
    """(n,) position of each row within the rows `gallery`, -1 for those that are not in it.

    Example:
        >>> own_rows(4, gallery=np.array([2, 0])).tolist()
        [1, -1, 0, -1]
    """
    own = np.full(n, -1, np.int64)
    own[gallery] = np.arange(len(gallery))
    return own


def neighbor_overlap(a: Array, b: Array, k: int = TRUST_K) -> Array:
    """Share of each panel's k nearest panels in one embedding that are among its k nearest in another.

    Args:
        a: (N, D) embeddings of some panels.
        b: (N, D') embeddings of the same panels, row for row.
        k: neighbors compared.

    Returns:
        (N,) float32, 0 to 1; NaN with a single panel.

    Raises:
        ValueError: different numbers of panels.

    Example:
        >>> a = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
        >>> neighbor_overlap(a, 5 * a, k=1).tolist()
        [1.0, 1.0, 1.0]
    """
    if len(a) != len(b):
        raise ValueError(f"the two embeddings hold {len(a):,} and {len(b):,} panels; compare the same panels")
    return shared(exact_neighbors(a, k)[0], exact_neighbors(b, k)[0])


def similarity(a: Array, b: Array) -> Array:
    """(N, M) float32 cosines of every row of one matrix with every row of another; 0 where a row is zero.

    Example:
        >>> similarity(np.array([[2.0, 0.0]]), np.array([[3.0, 0.0], [0.0, 1.0]])).tolist()
        [[1.0, 0.0]]
    """
    cosines: Array = unit_rows(a) @ unit_rows(b).T
    return cosines


def share_below(values: Array, value: float) -> float:
    """Share of the defined values below one of them, ties counting half; NaN where nothing is.

    Example:
        >>> share_below(np.array([1.0, 2.0, 2.0, 3.0]), 2.0)  # one below, two ties
        0.5
    """
    defined = np.asarray(values)[~np.isnan(values)]
    if not len(defined) or np.isnan(value):
        return float("nan")
    return float(((defined < value).sum() + (defined == value).sum() / 2) / len(defined))


def pages_pulled_to(page: int, near: Array, cosine: Array, page_of_row: Array) -> list[tuple[int, int, float]]:
    """The pages of a page's nearest panels, its own among them.

    Args:
        page: the page.
        near: (N, K) nearest rows of its N panels.
        cosine: (N, K) their cosines.
        page_of_row: (G,) page of each row that `near` may name.

    Returns:
        (page, neighbors on it, their mean cosine), most neighbors first; the page itself, if there, first of all.

    Example:
        >>> near, cosine = np.array([[1, 2], [2, 0]]), np.array([[0.75, 0.5], [0.5, 0.25]])
        >>> pages_pulled_to(0, near, cosine, page_of_row=np.array([0, 0, 9]))
        [(0, 2, 0.5), (9, 2, 0.5)]
    """
    pages = page_of_row[near.ravel()]
    found, inverse, counts = np.unique(pages, return_inverse=True, return_counts=True)
    mean = np.bincount(inverse.ravel(), weights=cosine.ravel().astype(np.float64)) / counts
    order = np.lexsort((-mean, -counts, found != page))
    return [(int(found[i]), int(counts[i]), float(mean[i])) for i in order]
