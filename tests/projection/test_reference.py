"""A new map of the same panels stays where the old one was."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from test_projection import blobs, table_of

from stage3.projection import files, layouts, maps, reference

PARAMETERS = files.Parameters(limit=1000)


def told(*_):
    pass


@pytest.fixture(scope="module")
def world():
    x, _ = blobs(240, dim=16)
    table = table_of([4] * 75, [f"b{i % 5}" for i in range(75)])  # 300 panels: 60 of them were not embedded
    rows = np.setdiff1d(np.arange(300), np.arange(0, 300, 5))
    return x, rows, table, maps.project(x, rows, table, PARAMETERS, told)


def as_reference(frame, path="old"):
    return reference.Reference(files.Path(path) / "projections" / "a.parquet", {"checkpoint": "c0"}, frame)


def width(frame):
    return np.ptp(frame["umap_dim1"])


@pytest.mark.slow
def test_the_same_embeddings_do_not_move_at_all(world):
    x, rows, table, old = world
    new = maps.project(x, rows, table, PARAMETERS, told, onto=as_reference(old))
    pd.testing.assert_frame_equal(new[["umap_dim1", "umap_dim2"]], old[["umap_dim1", "umap_dim2"]])
    assert new.attrs["aligned_to"] == {
        "file": "old/a.parquet", "checkpoint": "c0", "shared": 240, "layout": "kept", "moved": 0.0,
    }  # fmt: skip


@pytest.mark.slow
def test_nearly_the_same_embeddings_move_by_less_than_a_hundredth_of_the_width(world):
    x, rows, table, old = world
    noise = 0.01 * np.random.default_rng(3).normal(size=x.shape).astype(np.float32)
    new = maps.project(x + noise, rows, table, PARAMETERS, told, onto=as_reference(old))
    moved = np.hypot(*(new[["umap_dim1", "umap_dim2"]].to_numpy() - old[["umap_dim1", "umap_dim2"]].to_numpy()).T)
    assert np.median(moved) <= 0.01 * width(old)


@pytest.mark.slow
def test_embeddings_that_changed_move_but_less_than_without_the_old_map(world):
    x, rows, table, old = world
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(16, 16)))[0].astype(np.float32)
    changed = x @ turn + 0.15 * np.random.default_rng(2).normal(size=x.shape).astype(np.float32)
    onto = maps.project(changed, rows, table, PARAMETERS, told, onto=as_reference(old))
    alone = maps.project(changed, rows, table, PARAMETERS, told)
    place = ["umap_dim1", "umap_dim2"]
    away = [reference.moved_share(f[place].to_numpy(), old[place].to_numpy()) for f in (onto, alone)]
    assert away[0] < 0.5 * away[1]
    assert onto.attrs["aligned_to"]["layout"] != "kept"
    assert onto["trust"].mean() > alone["trust"].mean() - 0.05
    assert onto.attrs["aligned_to"]["moved"] == pytest.approx(away[0])


@pytest.mark.slow
def test_panels_that_the_old_map_lacks_start_amid_their_nearest(world):
    x, rows, table, old = world
    lacking = old.drop(index=[3, 50, 51])
    new = maps.project(x, rows, table, PARAMETERS, told, onto=as_reference(lacking))
    assert np.isfinite(new["umap_dim1"]).all()
    assert new.attrs["aligned_to"]["shared"] == 237
    start = reference.filled(
        np.array([[0.0, 0.0], [np.nan, np.nan], [2.0, 4.0]]), np.array([[2], [0], [0]]), np.ones((3, 1))
    )
    assert start.tolist() == [[0, 0], [0, 0], [2, 4]]


def test_a_turned_map_is_turned_back_by_the_shared_panels_alone():
    """A rotation by 30°, no mirror: its matrix is not symmetric, so a transposed one turns the wrong way."""
    rng = np.random.default_rng(0)
    old = rng.normal(size=(50, 2)) * [3, 1]
    turn = np.array([[np.cos(0.52), -np.sin(0.52)], [np.sin(0.52), np.cos(0.52)]])
    new = 1.7 * old @ turn + [5, -2]
    shared = np.ones(50, bool)
    shared[40:] = False
    wrong = new.copy()
    wrong[40:] = 99.0  # what the others do must not matter
    np.testing.assert_allclose(layouts.aligned(new, np.where(shared[:, None], old, np.nan), shared), old, atol=1e-5)
    np.testing.assert_allclose(layouts.aligned(wrong, old, shared)[:40], old[:40], atol=1e-5)


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
@pytest.mark.parametrize("sign", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
def test_principal_components_are_swapped_and_mirrored_back_and_nothing_else(order, sign):
    rng = np.random.default_rng(0)
    old = rng.normal(size=(60, 2)) * [3, 2.5]
    new = (old + 0.1 * rng.normal(size=(60, 2)))[:, order] * sign
    back = layouts.oriented(new, old)
    assert np.abs(back - old).max() < 1
    assert sorted(np.abs(back[7]).tolist()) == pytest.approx(sorted(np.abs(new[7]).tolist()), rel=1e-5)


@pytest.mark.slow
def test_what_a_map_was_aligned_to_is_in_its_file_and_summary(world, tmp_path):
    x, rows, table, old = world
    new = maps.project(x, rows, table, PARAMETERS, told, onto=as_reference(old))
    path = tmp_path / "m.parquet"
    files.save(path, new, {"aligned_to": new.attrs["aligned_to"]})
    back = files.load(path)
    assert back.attrs["about"]["aligned_to"]["shared"] == 240
    assert files.summary_of(path, back)["aligned_to"]["layout"] == "kept"
    json.dumps(files.summary_of(path, back))
