"""Neighbors against loops: by cosine, on the plane, among some of the rows, and where there are not enough."""

import importlib
import math

import numpy as np
import pytest
import torch

from stage3.metrics import neighbors

search = importlib.import_module("stage3.metrics.nearest")  # the package has a function of this name
GALLERY = np.array([11, 3, 7, 0, 5, 8])


def points(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def ordered(near, itself, k):
    """The k best of (value, row), smallest value first, without the row itself."""
    return [j for _, j in sorted((value, j) for j, value in enumerate(near) if j != itself)][:k]


def cosine(a, b):
    return float(a.astype(np.float64) @ b.astype(np.float64) / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("refine", [False, True])
@pytest.mark.parametrize("k", [3, 40])
def test_neighbors_by_cosine_among_all_and_among_some_rows(k, refine):
    x = points(12, 5)
    near, score = neighbors.exact_neighbors(x, k, refine=refine)
    assert (near.dtype, score.dtype) == (np.int32, np.float32)
    expected = [ordered([-cosine(a, b) for b in x], i, k) for i, a in enumerate(x)]
    assert near.tolist() == expected
    assert score == pytest.approx(np.array([[cosine(x[i], x[j]) for j in expected[i]] for i in range(12)]), abs=1e-6)

    own = neighbors.own_rows(12, GALLERY)
    assert own.tolist() == [3, -1, -1, 1, -1, 4, -1, 2, 5, -1, -1, 0]
    near, _ = neighbors.exact_neighbors(x, k, x[GALLERY], own, refine=refine)
    assert near.shape == (12, min(k, 5))  # one less than the gallery: some query lies in it
    for i in range(12):
        assert near[i].tolist() == ordered([-cosine(x[i], x[j]) for j in GALLERY], own[i], min(k, 5))
    others = points(4, 5, seed=1)
    near, _ = neighbors.exact_neighbors(others, k, x, refine=refine)
    assert near.tolist() == [ordered([-cosine(a, b) for b in x], -1, k) for a in others]


@pytest.mark.parametrize("k", [3, 40])
def test_neighbors_on_the_plane_among_all_and_among_some_rows(k):
    xy = points(12, 2)
    xy[4] = xy[9]  # on one another: neither is its own neighbor
    distance = np.linalg.norm(xy[:, None].astype(np.float64) - xy[None], axis=2)
    found = neighbors.plane_neighbors(xy, k)
    assert found.dtype == np.int32
    for i in range(12):
        assert i not in found[i]
        assert distance[i, found[i]].tolist() == sorted(np.delete(distance[i], i))[:k]
    xy[4] += 0.1
    distance = np.linalg.norm(xy[:, None].astype(np.float64) - xy[None], axis=2)
    own = neighbors.own_rows(12, GALLERY)
    found = neighbors.plane_neighbors(xy, k, xy[GALLERY], own)
    assert found.tolist() == [ordered(distance[i, GALLERY], own[i], min(k, 5)) for i in range(12)]
    found = neighbors.plane_neighbors(xy[:2] + 0.1, k, xy)
    assert found.shape == (2, min(k, 12))  # nobody's own point is in the gallery: all of it counts
    many = points(200, 2)
    distance = np.linalg.norm(many[:, None].astype(np.float64) - many[None], axis=2)
    assert neighbors.plane_neighbors(many, 100 + k)[7].tolist() == ordered(distance[7], 7, 100 + k)
    assert neighbors.plane_neighbors(xy[:1], k).shape == (1, 0)
    assert neighbors.plane_neighbors(xy[:2], k, xy[:0]).shape == (2, 0)
    assert neighbors.plane_neighbors(xy[:0], k, xy).shape == (0, min(k, 12))


def test_a_gallery_that_holds_one_of_the_queries_in_its_first_row():
    x, own = points(4, 3), np.array([-1, -1, 0])
    near, _ = neighbors.exact_neighbors(x[[2, 3, 0]], 4, x[:2], own)
    assert near.tolist()[2] == [1]
    assert near.shape == neighbors.plane_neighbors(x[[2, 3, 0], :2], 4, x[:2, :2], own).shape == (3, 1)


@pytest.mark.parametrize("gallery", [None, GALLERY])
def test_trust_is_the_share_of_neighbors_that_are_kept(gallery):
    x, xy, k = points(12, 5), points(12, 2, seed=2), 4
    rows = np.arange(12) if gallery is None else gallery
    expected = []
    for i in range(12):
        own = rows.tolist().index(i) if i in rows else -1
        high = ordered([-cosine(x[i], x[j]) for j in rows], own, k)
        low = ordered([math.dist(xy[i], xy[j]) for j in rows], own, k)
        expected.append(len(set(high) & set(low)) / k)
    assert 0 < np.mean(expected) < 1
    assert neighbors.trust(x, xy, k, gallery=gallery) == pytest.approx(expected)
    near = neighbors.exact_neighbors(x, k + 1, *(() if gallery is None else (x[rows], neighbors.own_rows(12, rows))))[0]
    assert neighbors.trust(x, xy, k, gallery=gallery, near=near) == pytest.approx(expected)


def test_overlap_and_shares_by_loops():
    a, b = points(9, 5), points(9, 3, seed=4)
    pairs = [[ordered([-cosine(x[i], y) for y in x], i, 3) for i in range(9)] for x in (a, b)]
    expected = [len(set(one) & set(other)) / 3 for one, other in zip(*pairs, strict=True)]
    assert 0 < np.mean(expected) < 1
    assert neighbors.neighbor_overlap(a, b, 3) == pytest.approx(expected)
    with pytest.raises(ValueError, match="9 and 8 panels"):
        neighbors.neighbor_overlap(a, b[:8])
    assert np.isnan(neighbors.shared(np.empty((2, 0)), np.empty((2, 0)))).tolist() == [True, True]
    values = np.array([3.0, np.nan, 1.0, 2.0, 2.0])
    assert [neighbors.share_below(values, v) for v in (0.0, 1.0, 2.0, 9.0)] == [0, 0.125, 0.5, 1]
    assert math.isnan(neighbors.share_below(values, math.nan))
    assert math.isnan(neighbors.share_below(values[1:2], 1.0))
    near, score = np.array([[4, 1], [4, 2], [3, 0]]), np.array([[0.5, 0.25], [0.75, 1.0], [0.5, 0.125]])
    # rows 0 and 1 lie on page 7, 2 on page 5, 3 on page 6, 4 on page 8: by number of neighbors, then by cosine
    expected = [(6, 1, 0.5), (8, 2, 0.625), (7, 2, 0.1875), (5, 1, 1.0)]
    assert neighbors.pages_pulled_to(6, near, score, np.array([7, 7, 5, 6, 8])) == expected


def test_rows_that_are_not_finite_are_counted_in_the_refusal():
    x = points(5, 3)
    x[1], x[4, 2] = np.nan, np.inf
    with pytest.raises(ValueError, match="2 of 5 embeddings are not finite"):
        neighbors.unit_rows(x)
    with pytest.raises(ValueError, match=r"got shape \(3,\)"):
        neighbors.unit_rows(x[0])


@pytest.mark.parametrize("refine", [False, True])
def test_a_mapped_matrix_is_read_in_blocks_and_what_may_not_be_found_is_not(refine, monkeypatch, tmp_path):
    monkeypatch.setattr(search, "ROWS_AT_ONCE", 3)
    monkeypatch.setattr(search, "CELLS_AT_ONCE", 33)  # three queries at a time
    x = torch.nn.functional.normalize(torch.from_numpy(points(11, 6)), dim=1)
    np.save(tmp_path / "x.npy", x.numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    queries = torch.nn.functional.normalize(torch.from_numpy(points(5, 6, seed=8)), dim=1)
    torch.testing.assert_close(search.cosines(queries, mapped), queries @ x.T)
    assert torch.equal(search.rows_between(mapped, 2, 5), x[2:5])
    allowed = np.isin(np.arange(11), [1, 2, 6, 9])
    own = np.array([6, -1, 0, 9, 1])
    hits = search.nearest(queries, mapped, 10, allowed=allowed, exclude=own, refine=refine)
    assert hits.rows.shape == (5, 4)
    for i in range(5):
        left = [j for j in (1, 2, 6, 9) if j != own[i]]
        expected = sorted(left, key=lambda j, i=i: -float(queries[i] @ x[j]))
        gone = 4 - len(expected)
        assert hits.rows[i].tolist() == expected + [-1] * gone
        scores = [float(queries[i].double() @ x[j].double()) for j in expected] + [math.nan] * gone
        assert hits.scores[i] == pytest.approx(scores, abs=1e-6, nan_ok=True)


def test_of_equal_rows_the_first_are_found_and_only_rows_near_the_best_are_scored_twice():
    read = []

    class Told(np.ndarray):
        """A matrix that tells which of its rows are read by number."""

        def __getitem__(self, key):
            if isinstance(key, np.ndarray):
                read.extend(key.tolist())
            return super().__getitem__(key)

    x = neighbors.unit_rows(points(30, 6))
    x[[4, 9, 20, 22]] = x[4]
    hits = search.nearest(torch.from_numpy(x[4:5]), x.view(Told), 3)
    assert hits.rows.tolist() == [[4, 9, 20]]
    assert sorted(read) == [4, 9, 20, 22]
