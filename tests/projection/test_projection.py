"""The map's numbers against brute force, its seeds, and its files."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from stage3.data.table import PAGE_COLUMNS, PANEL_COLUMNS, DataReport, PanelTable
from stage3.errors import ConfigError
from stage3.metrics import nearest, neighbors
from stage3.projection import files, layouts, maps


def blobs(n=240, groups=6, dim=16, noise=0.25, seed=0):
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(groups), n // groups)
    x = rng.normal(size=(groups, dim))[label] + noise * rng.normal(size=(n, dim))
    return x.astype(np.float32), label


def table_of(counts, books):
    pages = {c: [] for c in PAGE_COLUMNS}
    panels = {c: [] for c in PANEL_COLUMNS}
    first = 0
    for i, (n, book) in enumerate(zip(counts, books, strict=True)):
        name = f"{book}\\scans/p{i:03d}.jpg" if i else "p000.jpg"  # the first lies in no folder
        values = (name, book, "story", "", "", 0, 0, "", "exact", first, n)
        for name, value in zip(PAGE_COLUMNS, values, strict=True):
            pages[name].append(value)
        for k in range(n):
            row = (f"{values[0]}#{k}", i, k, k, 0.0, 0.0, 1.0, 0.5, True, "", "", "")
            for name, value in zip(PANEL_COLUMNS, row, strict=True):
                panels[name].append(value)
        first += n
    return PanelTable.build(panels, pages, DataReport())


def by_hand(x, k):
    z = x.astype(np.float64) / np.linalg.norm(x, axis=1, keepdims=True)
    cosine = z @ z.T
    np.fill_diagonal(cosine, -np.inf)
    return [set(np.argsort(-row)[:k].tolist()) for row in cosine]


# --- neighbors


@pytest.mark.parametrize("block", [1, 1000, 2**24])
def test_neighbors_equal_brute_force_whatever_the_block(monkeypatch, block):
    monkeypatch.setattr(nearest, "CELLS_AT_ONCE", block)
    x, _ = blobs()
    found, cosine = neighbors.exact_neighbors(7 * x, 10)
    assert [set(r.tolist()) for r in found] == by_hand(x, 10)
    assert (np.diff(cosine, axis=1) <= 0).all()
    z = neighbors.unit_rows(x)
    np.testing.assert_allclose(cosine, np.einsum("nd,nkd->nk", z, z[found]), atol=1e-5)


@pytest.mark.parametrize("refine", [False, True])
def test_refining_changes_nothing_but_the_order_of_near_ties(refine):
    x, _ = blobs()
    found, cosine = neighbors.exact_neighbors(x, 10, refine=refine)
    assert [set(r.tolist()) for r in found] == by_hand(x, 10)
    copies = np.repeat(x[:1], 40, axis=0)
    if refine:  # equal cosines come in the order of rows
        expected = [[row for row in range(40) if row != own][:15] for own in range(40)]
        assert neighbors.exact_neighbors(copies, 15, refine=True)[0].tolist() == expected
    assert (found.dtype, cosine.dtype) == (np.int32, np.float32)


def test_a_panel_is_never_its_own_neighbor_even_among_copies_of_itself():
    x = np.ones((30, 4), np.float32)
    found = neighbors.exact_neighbors(x, 15)[0]
    assert (found != np.arange(30)[:, None]).all()
    flat = neighbors.plane_neighbors(np.zeros((30, 2)), 15)
    assert (flat != np.arange(30)[:, None]).all()
    assert all(len(set(row)) == 15 for row in flat.tolist())


def test_neighbors_in_a_gallery_leave_out_the_query_only_where_it_is_in_it():
    x, _ = blobs(60)
    gallery = np.arange(0, 60, 3)
    found = neighbors.exact_neighbors(x, 5, x[gallery], neighbors.own_rows(60, gallery))[0]
    assert (gallery[found] != np.arange(60)[:, None]).all()
    z = neighbors.unit_rows(x)
    cosine = z @ z[gallery].T
    cosine[gallery, np.arange(20)] = -9
    np.testing.assert_array_equal(found[:, 0], cosine.argmax(axis=1))


def test_embeddings_with_nan_are_refused_with_a_count():
    x, _ = blobs(60)
    x[3] = np.nan
    with pytest.raises(ValueError, match="1 of 60 embeddings are not finite"):
        neighbors.exact_neighbors(x, 3)


def test_trust_is_one_where_the_map_is_the_space_and_chance_where_it_is_noise():
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 300)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    assert neighbors.trust(circle, circle, 15).min() > 0.93  # equal but for ties that float32 cannot part
    shuffled = neighbors.trust(circle, circle[rng.permutation(300)], 15)
    assert shuffled.mean() == pytest.approx(15 / 299, abs=0.03)


def test_trust_counts_the_neighbors_that_are_kept():
    x, _ = blobs(120)
    xy = layouts.pca(x)
    expected = []
    for i, near in enumerate(by_hand(x, 15)):
        distance = np.linalg.norm(xy.astype(np.float64) - xy[i], axis=1)
        distance[i] = np.inf
        expected.append(len(near & set(np.argsort(distance)[:15].tolist())) / 15)
    np.testing.assert_allclose(neighbors.trust(x, xy, 15), expected, atol=1e-6)


def test_overlap_is_one_with_a_turned_copy_and_symmetric():
    x, _ = blobs()
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(16, 16)))[0].astype(np.float32)
    assert neighbors.neighbor_overlap(x, 3 * x @ turn).mean() > 0.999
    other = blobs(seed=5)[0]
    ab, ba = neighbors.neighbor_overlap(x, other), neighbors.neighbor_overlap(other, x)
    np.testing.assert_array_equal(ab, ba)
    assert 0 < ab.mean() < 1
    with pytest.raises(ValueError, match="compare the same panels"):
        neighbors.neighbor_overlap(x, other[:10])


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_tiny_sets_have_a_map_and_no_invented_trust(n):
    x = blobs(6, 2)[0][:n]
    xy = layouts.umap_layout(x)
    assert xy.shape == (n, 2)
    assert np.isfinite(xy).all()
    assert np.isnan(neighbors.trust(x, xy)).all() if n < 2 else (neighbors.trust(x, xy) == 1).all()


# --- layouts


def test_the_optimizer_gets_each_panel_before_its_nearest_and_a_start_of_ten_units(monkeypatch):
    asked = []
    monkeypatch.setattr(layouts, "_optimized", lambda *given: asked.append(given))
    x, near = blobs(60)[0], by_hand(blobs(60)[0], 5)
    layouts.umap_layout(x, None, 3, n_neighbors=6, min_dist=0.2, epochs=7, rate=0.5)
    unit, indices, distances, start, *others = asked[0]
    assert others == [6, (0.2, 7, 0.5), 3]
    assert indices[:, 0].tolist() == list(range(60))
    assert [set(row) for row in indices[:, 1:].tolist()] == near
    np.testing.assert_allclose(unit, x / np.linalg.norm(x, axis=1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(distances, 1 - np.einsum("nd,nkd->nk", unit, unit[indices]), atol=1e-5)
    assert (indices.dtype, distances.dtype, start.dtype) == (np.int32, np.float32, np.float32)
    flat = layouts.pca(x)
    np.testing.assert_allclose(start, flat * 10 / np.ptp(flat, axis=0).max(), atol=1e-3)
    more, cosine = neighbors.exact_neighbors(x, 9)
    cosine[4, 0] = 1.0001  # as rounding has it
    layouts.umap_layout(x, (more, cosine), n_neighbors=6, init=3 * flat)  # a given start keeps its width
    assert asked[1][1].tolist() == indices.tolist()
    assert asked[1][2][4, 1] == 0
    np.testing.assert_allclose(asked[1][3], 3 * flat, atol=1e-3)
    assert len(np.unique(asked[1][3] - 3 * flat)) > 60  # equal panels are parted by noise
    with pytest.raises(ValueError, match="4 neighbors per panel given, 5 needed for n_neighbors=6"):
        layouts.umap_layout(x, (more[:, :4], cosine[:, :4]), n_neighbors=6)
    layouts.umap_layout(x[:9], n_neighbors=15)
    assert asked[2][1].shape == (9, 8)  # of nine panels each has eight


def test_pca_equals_the_svd_up_to_sign_and_fixes_the_sign():
    x, _ = blobs()
    z = neighbors.unit_rows(x).astype(np.float64)
    z -= z.mean(axis=0)
    u, s, _ = np.linalg.svd(z, full_matrices=False)
    ours = layouts.pca(x)
    np.testing.assert_allclose(np.abs(ours), np.abs(u[:, :2] * s[:2]), atol=1e-4)
    np.testing.assert_allclose(layouts.pca(x[::-1])[::-1], ours, atol=1e-4)
    loadings = z.T @ ours
    assert (loadings.max(axis=0) > -loadings.min(axis=0)).all()  # the largest is positive
    two = layouts.pca(np.array([[1.0, 0.0], [0.0, 1.0]], np.float32), 3)
    np.testing.assert_allclose(np.abs(two), [[np.sqrt(0.5), 0, 0]] * 2, atol=1e-6)  # an axis that they have, two not
    assert two[0, 0] == -two[1, 0]
    np.testing.assert_array_equal(layouts.pca(np.ones((5, 3), np.float32)), 0)


def test_a_sample_holds_each_book_by_its_share():
    books = np.repeat([0, 1, 2], [1000, 300, 100])
    books = books[np.random.default_rng(0).permutation(1400)]
    rows = layouts.stratified(books, 140)
    assert len(set(rows.tolist())) == 140
    assert (np.diff(rows) > 0).all()
    assert all(abs(Counter(books[rows].tolist())[b] - n) <= 1 for b, n in ((0, 100), (1, 30), (2, 10)))
    np.testing.assert_array_equal(layouts.stratified(books, 5000), np.arange(1400))
    np.testing.assert_array_equal(layouts.stratified(books, 1400), np.arange(1400))
    for book in range(3):  # spread over the pages of each
        picked = np.searchsorted(np.flatnonzero(books == book), rows[books[rows] == book])
        assert (np.diff(picked) == 10).all()
        assert picked[0] < 10


@pytest.mark.parametrize("mirror", [1, -1])  # a mirrored turn is its own transpose, a plain one is not
def test_alignment_undoes_a_turn_a_mirror_a_scale_and_a_move(mirror):
    xy = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]]) @ np.diag([1, mirror])
    np.testing.assert_allclose(layouts.aligned(3 * xy @ turn + 5, xy), xy, atol=1e-5)


def test_inside_agrees_with_a_disc_and_a_notch():
    xy = np.random.default_rng(0).uniform(-1, 1, (2000, 2))
    angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    disc = np.stack([np.cos(angle), np.sin(angle)], axis=1) * 0.7
    radius = np.linalg.norm(xy, axis=1)
    clear = np.abs(radius - 0.7) > 0.01
    np.testing.assert_array_equal(layouts.inside(xy, disc)[clear], (radius < 0.7)[clear])
    notch = np.array([[0, 0], [4, 0], [4, 4], [2, 1], [0, 4]])
    np.testing.assert_array_equal(layouts.inside(np.array([[2, 0.5], [2, 3], [1, 1.5]]), notch), [True, False, True])
    assert not layouts.inside(xy, disc[:2]).any()


def test_inside_is_the_even_odd_rule_edge_by_edge_also_on_corners_and_flat_edges():
    rng = np.random.default_rng(4)
    polygon = rng.integers(0, 6, (40, 2)).astype(float)  # crosses itself; corners share heights with points
    xy = np.concatenate([rng.integers(0, 6, (300, 2)), rng.uniform(-1, 7, (700, 2)), [[np.nan, 1.0]]])
    for (px, py), found in zip(xy.tolist(), layouts.inside(xy, polygon), strict=True):
        odd = False
        for (x0, y0), (x1, y1) in zip(polygon.tolist(), np.roll(polygon, -1, axis=0).tolist(), strict=True):
            if (y0 > py) != (y1 > py):
                odd ^= px < (x1 - x0) * (py - y0) / (y1 - y0) + x0
        assert found == (odd and not np.isnan(px))


def test_a_hull_holds_its_points_and_only_corners():
    xy = np.random.default_rng(0).normal(size=(80, 2))
    corners = layouts.hull(xy)
    center = corners.mean(axis=0)
    assert layouts.inside(xy, center + 1.001 * (corners - center)).all()
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0.5, 0], [0.5, 0.5]])
    assert layouts.hull(square).tolist() == [[0, 0], [1, 0], [1, 1], [0, 1]]  # counter-clockwise
    assert layouts.hull(square[[1, 0, 1]]).tolist() == [[0, 0], [1, 0]]


def test_clusters_find_blobs_and_are_numbered_by_size():
    rng = np.random.default_rng(0)
    xy = np.concatenate([rng.normal(c, 0.1, (n, 2)) for c, n in (((0, 0), 40), ((5, 5), 90), ((9, 0), 60))])
    found = layouts.clusters(xy, 10)
    assert Counter(found[40:130].tolist()).most_common(1)[0][0] == 0
    assert Counter(found[130:].tolist()).most_common(1)[0][0] == 1
    assert Counter(found[:40].tolist()).most_common(1)[0][0] == 2
    assert (layouts.clusters(xy[:3]) == -1).all()
    small = np.concatenate([xy[:100], rng.normal((2, 9), 0.01, (6, 2))])
    assert set(layouts.clusters(small)[100:].tolist()) == {2}  # of itself a cluster has five panels of so few
    assert set(layouts.clusters(small, 7)[100:].tolist()) == {0}  # too few for one of their own
    assert layouts.clusters(xy[:5], 5).tolist() == [-1] * 5
    close = np.concatenate([rng.normal((c, 0), 0.1, (45, 2)) for c in (0, 0.7, 3)])
    assert Counter(layouts.clusters(close, 30).tolist()) == {0: 45, 1: 45, 2: 45}  # dense is what holds six
    many = np.concatenate([rng.normal((0, 0), 0.1, (850, 2)), rng.normal((5, 5), 0.1, (9, 2))])
    assert set(layouts.clusters(many)[850:].tolist()) == {1}  # a hundredth of 859 is 8


# --- one small fit, shared


@pytest.fixture(scope="module")
def made():
    """A map of 160 panels of which UMAP lays out 100, made twice, and the drift of two epochs."""
    x, label = blobs(160, 4)
    table = table_of([4] * 40, [f"book{i // 10}" for i in range(40)])
    told: list[str] = []
    parameters = files.Parameters(limit=100, neighbors=8)

    def described(rows):
        assert len(rows) == 100  # those that were laid out
        return pd.DataFrame({"text": [f"{['north', 'east', 'south', 'west'][label[row]]} side" for row in rows]})

    def tell(*stage):
        told.append(stage[0])

    frames = [maps.project(x, np.arange(160), table, parameters, tell, described=described) for _ in "ab"]
    moved = x.copy()
    moved[:40] = blobs(160, 4, seed=3)[0][:40]
    rows = np.arange(160)
    epochs = [(1, x, rows), (2, x[::-1].copy(), rows[::-1].copy()), (5, moved[:150], rows[:150]), (9, moved, rows)]
    return x, label, frames, told, maps.drift(epochs, parameters)


@pytest.mark.slow
def test_the_map_is_the_same_for_the_same_seed_and_has_the_promised_columns(made):
    _, label, (frame, again), told, _ = made
    pd.testing.assert_frame_equal(frame, again)
    assert tuple(frame.columns) == (*files.FORMATS_COLUMNS, *files.OUR_COLUMNS, files.NAME)
    assert told[0] == "principal components"
    assert frame["panel_index"].tolist()[:5] == [0, 1, 2, 3, 0]
    assert frame.loc[5, ["page_name", "comic_name", "panel_count"]].tolist() == ["p001.jpg", "book0", 4]
    assert frame["fitted"].sum() == 100
    xy = frame[["umap_dim1", "umap_dim2"]].to_numpy()
    centers = np.stack([xy[label == i].mean(axis=0) for i in range(4)])
    nearest = np.linalg.norm(xy[:, None] - centers, axis=2).argmin(axis=1)
    assert (nearest == label).mean() > 0.97  # the placed ones too
    names = frame.loc[frame["cluster_id"] >= 0, files.NAME].astype("str")
    expected = np.array(["north", "east", "south", "west"])[label[names.index]]
    assert (names == expected).mean() > 0.97
    assert (frame.loc[frame["cluster_id"] < 0, files.NAME] == "").all()
    assert frame["trust"].between(0, 1).all()
    assert frame["trust"].mean() > 0.3


@pytest.mark.slow
def test_what_is_compiled_for_a_map_is_kept_on_disk_and_nothing_fails_where_it_cannot_be(made, monkeypatch):
    from umap import layouts as optimizer
    from umap import umap_

    epoch = optimizer._nb_optimize_layout_euclidean_single_epoch
    for function in (umap_.smooth_knn_dist, umap_.compute_membership_strengths, epoch):
        assert sum(function.stats.cache_hits.values()) + sum(function.stats.cache_misses.values()) > 0

    def read_only(function):
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(type(epoch), "enable_caching", read_only)
    layouts._import_umap.__wrapped__()


@pytest.mark.slow
def test_drift_follows_panels_by_row_and_starts_each_epoch_from_the_last(made):
    drift = made[4]
    assert drift.groupby("epoch").size().to_dict() == {1: 150, 2: 150, 5: 150, 9: 150}
    one, two, five = (drift[drift["epoch"] == e].reset_index(drop=True) for e in (1, 2, 5))
    assert one["kept"].isna().all()
    assert two["kept"].mean() == 1  # the same embeddings in another order
    assert five.loc[five["row"] < 40, "kept"].mean() < five.loc[five["row"] >= 40, "kept"].mean()
    nine = drift[drift["epoch"] == 9]
    assert nine["kept"].mean() > 0.97  # against the epoch before, not the first; ten more panels may be neighbors
    places = [e[["umap_dim1", "umap_dim2"]].to_numpy() for e in (one, two)]
    step = np.median(np.linalg.norm(places[1] - places[0], axis=1))
    across = np.median(np.linalg.norm(places[0][:, None] - places[0], axis=2))
    assert step < across / 6


# --- formats, parameters, packages


def test_the_columns_of_a_map_stand_as_the_formats_say():
    assert (
        *("page_index", "panel_index", "canonical_id", "comic_name", "page_name", "panel_count"),
        *("cluster_id", "umap_dim1", "umap_dim2"),
    ) == files.FORMATS_COLUMNS


@pytest.mark.parametrize(("name", "value"), [("neighbors", 2), ("min_dist", 1.5), ("limit", 5), ("seed", -1)])
def test_parameters_out_of_range_are_refused_and_every_parameter_reaches_the_key(name, value):
    with pytest.raises(ConfigError, match=f"{name}: {value!r} is out of range"):
        files.Parameters(**{name: value})
    changed = {"neighbors": 20, "min_dist": 0.3, "limit": 500, "seed": 4}[name]
    assert files.Parameters(**{name: changed}).digest != files.Parameters().digest


def test_importing_the_module_does_not_import_umap_or_sklearn():
    code = "import sys, stage3.projection; print('umap' in sys.modules or 'sklearn' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"


def test_a_map_without_its_packages_says_what_to_install(monkeypatch):
    monkeypatch.setattr(maps, "find_spec", lambda name: None if name == "umap" else object())
    with pytest.raises(ConfigError, match="a map needs umap-learn: pip install umap-learn"):
        maps.check_installed()
