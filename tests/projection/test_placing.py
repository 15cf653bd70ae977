"""Many panels on the map of a sample: exact neighbors, no dependence on blocks or order."""

import numpy as np
import pytest

from stage3.metrics.mapped import MappedRows
from stage3.metrics.neighbors import own_rows, plane_neighbors, unit_rows
from stage3.projection import layouts, placing


@pytest.fixture(scope="module")
def world():
    """900 panels, some of them copies of each other, of which 300 have positions; rows are not places."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(900, 24)).astype(np.float32)
    x[100:140] = x[7] * rng.uniform(0.5, 2, (40, 1)).astype(np.float32)  # the same direction forty times: ties
    x[500:530] = x[7] + 1e-4 * rng.normal(size=(30, 24)).astype(np.float32)  # closer than float32 products can tell
    x[895:899] = x[12]  # a few alike, fitted all
    others = rng.choice(np.arange(140, 895), 266, replace=False)
    fitted = np.sort(np.concatenate([np.arange(100, 130), others, np.arange(895, 899)]))
    layout = rng.normal(size=(300, 2)).astype(np.float32)
    return x, fitted, layout, rng.integers(-1, 5, 300)


def test_neighbors_are_those_of_float64_brute_force_with_ties_in_order_of_rows(world):
    x, fitted, _, _ = world
    unit, own = unit_rows(x), own_rows(len(x), fitted)
    near, cosine = placing.nearest_fitted(unit, unit[fitted], 15, own)
    wide = unit.astype(np.float64)
    exact = (wide[:, None, :] * wide[fitted][None]).sum(axis=2)
    exact[own >= 0, own[own >= 0]] = -np.inf
    order = np.argsort(-exact, axis=1, kind="stable")[:, :15]
    np.testing.assert_array_equal(near, order)
    np.testing.assert_allclose(cosine, np.take_along_axis(exact, order, axis=1), atol=1e-12)


def test_positions_are_weighted_means_by_hand_and_fitted_panels_keep_theirs(world):
    x, fitted, layout, label = world
    xy, cluster, kept = placing.place_all(x, fitted, layout, label)
    np.testing.assert_array_equal(xy[fitted], layout)
    np.testing.assert_array_equal(cluster[fitted], label)
    unit = unit_rows(x).astype(np.float64)
    for row in (0, 7, 135, 510, 899):
        if row in fitted:
            continue
        cosine = unit[fitted] @ unit[row]
        near = np.argsort(-cosine, kind="stable")[: placing.K]
        weight = np.maximum(cosine[near], placing.WEIGHT)
        np.testing.assert_allclose(xy[row], (layout[near] * weight[:, None]).sum(axis=0) / weight.sum(), rtol=1e-6)
        assert cluster[row] == label[near[0]]
        around = plane_neighbors(xy[row][None], 15, layout)[0]
        best = np.argsort(-cosine, kind="stable")[:15]
        assert kept[row] == pytest.approx(len(set(best) & set(around)) / 15)


def test_a_handful_of_fitted_panels_are_all_neighbors_of_each_other(world):
    x, _, layout, label = world
    xy, cluster, kept = placing.place_all(x[:9], np.arange(1, 7), layout[:6], label[:6])
    assert kept[1:7].tolist() == [1] * 6
    np.testing.assert_array_equal(xy[1:7], layout[:6])
    assert set(cluster.tolist()) <= set(label[:6].tolist())


def test_no_bit_depends_on_blocks_or_on_the_order_of_the_panels(world, monkeypatch):
    x, fitted, layout, label = world
    expected = placing.place_all(x, fitted, layout, label)
    for rows, cells in ((7, 2**24), (256, 3000), (10**6, 300)):
        monkeypatch.setattr(placing, "CELLS_AT_ONCE", cells)
        for found, right in zip(placing.place_all(x, fitted, layout, label, rows_at_once=rows), expected, strict=True):
            np.testing.assert_array_equal(found, right)
    others = np.setdiff1d(np.arange(900), fitted)
    order = np.arange(900)
    order[others] = np.random.default_rng(0).permutation(others)  # the sample stays where it is
    for found, right in zip(placing.place_all(x[order], fitted, layout, label), expected, strict=True):
        np.testing.assert_array_equal(found, right[order])


def test_a_mapped_matrix_gives_what_its_rows_in_memory_give(world, tmp_path):
    x, fitted, layout, label = world
    half = unit_rows(x).astype(np.float16)
    np.save(tmp_path / "x.npy", half)
    mapped = MappedRows(tmp_path / "x.npy")
    expected = placing.place_all(half.astype(np.float32), fitted, layout, label, rows_at_once=50)
    for found, right in zip(placing.place_all(mapped, fitted, layout, label), expected, strict=True):
        np.testing.assert_array_equal(found, right)
    np.testing.assert_array_equal(layouts.pca(mapped), layouts.pca(half.astype(np.float32)))


def test_components_in_blocks_are_those_of_the_whole(world, monkeypatch):
    x = world[0]
    whole = layouts.pca(x)
    monkeypatch.setattr(layouts, "ROWS", 77)
    np.testing.assert_allclose(layouts.pca(x), whole, atol=1e-6)


def test_a_map_records_how_panels_were_placed():
    assert placing.record(10, 10) == {"placed": None}
    told = placing.record(20_000, 1_000_000)["placed"]
    assert (told["panels"], told["fitted"], told["neighbors"]) == (980_000, 20_000, placing.K)
