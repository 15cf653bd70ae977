"""Every column of a map by hand, and which positions a map starts from; UMAP has a stand-in."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from map_world import BOOKS, COUNTS, PARAMETERS, PLACE, Layout, heaps, project, small_map
from test_projection import by_hand, table_of

from stage3.errors import DataError
from stage3.projection import files, layouts, maps, reference


@pytest.fixture(scope="module")
def small():
    return small_map()


def near_on_plane(xy, k):
    away = np.linalg.norm(xy[:, None].astype(np.float64) - xy, axis=2) + np.diag(np.full(len(xy), np.inf))
    return [set(np.argsort(line)[:k].tolist()) for line in away]


def test_each_row_of_a_map_tells_of_its_own_panel(small):
    x, rows, _, frame = small
    panels = [(page, k) for page, n in enumerate(COUNTS) for k in range(n)]
    for at, row in enumerate(rows.tolist()):
        page, k = panels[row]
        told = frame.iloc[at]
        numbers = ["row", "page_index", "panel_index", "panel_count"]
        assert told[numbers].tolist() == [row, page, k, COUNTS[page]]
        name = f"p{page:03d}.jpg"
        assert (told["comic_name"], told["page_name"]) == (BOOKS[page], name)
        assert told["canonical_id"] == (f"{BOOKS[page]}\\scans/{name}" if page else name)
    assert frame["fitted"].all()
    np.testing.assert_array_equal(frame[["pca_1", "pca_2"]], layouts.pca(x))
    xy = frame[PLACE].to_numpy()
    both = zip(by_hand(x, 15), near_on_plane(xy, 15), strict=True)
    np.testing.assert_allclose(frame["trust"], [len(a & b) / 15 for a, b in both], atol=1e-6)
    kinds = {n: str(frame[n].dtype) for n in ("panel_index", "panel_count", "cluster_id", "row", "trust")}
    whole = dict.fromkeys(("panel_index", "panel_count", "row"), "int64")
    assert kinds == {**whole, "cluster_id": "int32", "trust": "float32"}
    assert frame.attrs["aligned_to"] is None


def test_clusters_of_a_map_are_numbered_by_size_and_named_by_their_panels(small):
    x, rows, table, frame = small
    label = heaps(112)[1]
    found = frame["cluster_id"].to_numpy()
    assert set(found) == {-1, 0, 1, 2}
    assert (found[found >= 0] == label[found >= 0]).all()
    assert found[label < 0].tolist() == [-1]
    assert frame[files.NAME].tolist() == [f"cluster {c}" if c >= 0 else "" for c in found]

    def described(which):
        assert which.tolist() == rows.tolist()
        return pd.DataFrame({"text": [["moon", "tree", "boat"][c] for c in label]})

    named = project(x, rows, table, described=described)
    assert named[files.NAME].tolist() == ["" if c < 0 else ["moon", "tree", "boat"][c] for c in found]


@pytest.mark.parametrize("neighbors", [8, 18])
def test_the_layout_gets_what_was_asked_for_and_the_exact_neighbors(small, neighbors):
    x, rows, table, _ = small
    layout, told = Layout(), []
    parameters = files.Parameters(neighbors=neighbors, min_dist=0.3, seed=4)
    project(x, rows, table, parameters, lambda *now: told.append(now), layout=layout)
    ((given, (near, cosine), seed, init, others),) = layout.asked
    np.testing.assert_array_equal(given, x)
    assert [set(line) for line in near.tolist()] == by_hand(x, max(neighbors - 1, 15))
    assert cosine.shape == near.shape
    assert (seed, init, others) == (4, None, {"n_neighbors": neighbors, "min_dist": 0.3})
    assert [(done, total) for _, done, total in told] == [(i, 5) for i in range(6)]
    assert (told[2][0], told[4][0], told[5][0]) == ("layout", "neighbors kept", "done")


def test_of_too_many_panels_a_sample_of_each_book_is_laid_out_and_the_others_placed():
    x, label = heaps(140, seed=2)
    rows = np.arange(150, 290)  # places are not rows
    table = table_of([5] * 30 + COUNTS, ["other"] * 30 + BOOKS)
    layout, seen, told = Layout(), [], []

    def described(which):
        seen.extend(which.tolist())
        return pd.DataFrame({"text": [["moon", "tree", "boat"][label[row - 150]] for row in which]})

    parameters = files.Parameters(limit=100, min_cluster=7)
    frame = project(x, rows, table, parameters, lambda *now: told.append(now), layout=layout, described=described)
    fitted = frame["fitted"].to_numpy()
    assert seen == rows[fitted].tolist()
    assert fitted.sum() == 100
    for book, n in Counter(frame["comic_name"]).items():
        assert fitted[frame["comic_name"] == book].sum() == pytest.approx(100 / 140 * n, abs=1)
    np.testing.assert_array_equal(layout.asked[0][0], x[fitted])
    xy = frame[PLACE].to_numpy()
    np.testing.assert_array_equal(xy[fitted], Layout()(x[fitted]))
    centers = np.stack([xy[fitted & (label == c)].mean(axis=0) for c in range(3)])
    assert (np.linalg.norm(xy[:, None] - centers, axis=2).argmin(axis=1) == label)[label >= 0].all()
    inside = frame["cluster_id"].to_numpy() >= 0
    assert (~fitted & inside).sum() > 30
    assert frame.loc[inside, files.NAME].tolist() == [["moon", "tree", "boat"][c] for c in label[inside]]
    assert told[-3:] == [
        ("placing the other panels", 4, 5),
        ("placing the other panels: 140 of 140", 500, 500),
        ("done", 5, 5),
    ]


# --- on an older map


def older(frame, **about):
    return reference.Reference(files.Path("runs/first/projections/a.parquet"), {"checkpoint": "c0", **about}, frame)


def test_a_map_on_an_older_one_lies_there_and_says_how(small):
    x, rows, table, frame = small
    held = frame.iloc[::-1].drop(index=[3, 50, 51])  # in another order
    moved = held.assign(pca_1=-held["pca_2"], pca_2=held["pca_1"])
    layout = Layout()
    new = project(x, rows, table, layout=layout, onto=older(moved))
    told = new.attrs["aligned_to"]
    assert (told["file"], told["checkpoint"], told["shared"]) == ("first/a.parquet", "c0", 109)
    assert told["layout"] == "moved"  # three panels have no place yet
    assert told["moved"] == pytest.approx(0, abs=1e-6)
    ((_, (near, _), seed, init, others),) = layout.asked
    assert (seed, others) == (4, {"n_neighbors": 18, "min_dist": 0.3, "epochs": 120, "rate": 0.2})
    assert near.shape == (112, 17)
    there = np.setdiff1d(np.arange(112), [3, 50, 51])
    np.testing.assert_array_equal(init[there], frame[PLACE].to_numpy()[there])
    np.testing.assert_allclose(new[PLACE].to_numpy()[there], frame[PLACE].to_numpy()[there], atol=1e-4)
    known = [["pca_1", "pca_2"]]
    np.testing.assert_allclose(new[known[0]].to_numpy()[there], moved.sort_index()[known[0]], atol=1e-6)
    other = project(x, rows, table, onto=older(frame.assign(trust=0.99), checkpoint=None))
    assert other.attrs["aligned_to"]["layout"] in ("moved", "new")  # it kept more of its own
    assert other.attrs["aligned_to"]["checkpoint"] is None


def test_old_positions_are_kept_moved_or_left_by_the_share_of_neighbors_that_they_keep(small, monkeypatch):
    x, _, _, frame = small
    near, cosine = layouts.exact_neighbors(x, 17)
    old, share = frame[PLACE].to_numpy(np.float64), float(frame["trust"].mean())
    layout = Layout()
    monkeypatch.setattr(layouts, "umap_layout", layout)
    expected = {0.979: "kept", 0.981: "moved", 1.66: "moved", 1.67: "new"}  # 0.98 of the share before, and 0.6 of it
    for part, how in expected.items():
        before = share * part / 0.98 / 0.98 if part < 1 else share * part
        found, told = reference.settled(x, near, cosine, old, before, PARAMETERS)
        assert (part, told) == (part, how)
        np.testing.assert_allclose(found, old, atol=1e-4)
        assert found.dtype == np.float32
    asked = [others for *_, others in layout.asked]
    assert [(o["epochs"], o["rate"]) for o in asked] == [(120, 0.2), (120, 0.2), (None, 1.0)]


def test_panels_without_an_old_place_start_amid_their_five_nearest_that_have_one():
    nan = [np.nan, np.nan]
    old = np.array([[0.0, 0.0], nan, [2.0, 4.0], [6.0, 1.0], [9.0, 9.0], [1.0, 7.0], [3.0, 3.0], nan, nan])
    near = np.array([[1] * 7] * 9)
    near[1] = [7, 3, 2, 0, 4, 5, 6]  # 7 has none; five of the six others count
    near[7] = [8, 1, 8, 1, 8, 1, 8]  # none has one
    near[8] = [2, 0, 7, 7, 7, 7, 7]
    cosine = np.full((9, 7), 9.0)
    cosine[1] = [0.9, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05]
    cosine[8] = [-0.5, 3e-6, 1, 1, 1, 1, 1]  # a weight is positive
    found = reference.filled(old, near, cosine)
    known = [0, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(found[known], old[known])
    weights = np.array([0.5, 0.4, 0.3, 0.2, 0.1])
    np.testing.assert_allclose(found[1], weights @ old[[3, 2, 0, 4, 5]] / 1.5)
    np.testing.assert_allclose(found[7], old[known].mean(axis=0))
    np.testing.assert_allclose(found[8], [2 / 4, 4 / 4])


def test_the_distance_from_old_places_is_told_in_widths_of_the_old_map():
    old = np.array([[0.0, 0.0], [10.0, 70.0], [4.0, 1.0], [np.nan, np.nan]])
    new = old + np.array([[3.0, 4.0], [0.0, 1.0], [0.0, 2.0], [0.0, 0.0]])
    assert reference.moved_share(new, old) == pytest.approx(0.2)  # 5, 1 and 2: the one in the middle, of 10
    assert reference.moved_share(old[:1] + 7, old[:1]) == pytest.approx(7 * 2**0.5)  # no width to measure by


# --- drift


def test_each_epoch_starts_from_the_one_before_and_lies_on_it(monkeypatch):
    x, _ = heaps(40)
    layout, told = Layout(), []
    monkeypatch.setattr(maps, "umap_layout", layout)
    rows = np.arange(7, 47)
    later = np.concatenate([heaps(40, seed=1)[0][:10], x[10:]])  # ten panels elsewhere
    shuffled = np.random.default_rng(1).permutation(40)
    epochs = [(2, x, rows), (3, x[shuffled], rows[shuffled]), (9, later[:36], rows[:36])]
    frame = maps.drift(epochs, PARAMETERS, lambda *now: told.append(now))
    assert tuple(frame.columns) == files.DRIFT_COLUMNS
    assert frame.index.tolist() == list(range(108))
    assert told == [("epoch 2", 0, 3), ("epoch 3", 1, 3), ("epoch 9", 2, 3)]
    assert frame["row"].tolist() == list(range(7, 43)) * 3  # four are not in the last
    assert frame["epoch"].tolist() == [2] * 36 + [3] * 36 + [9] * 36
    places = frame[PLACE].to_numpy().reshape(3, 36, 2)
    np.testing.assert_array_equal(places[0], Layout()(x[:36]))
    np.testing.assert_allclose(places[1:], places[:2], atol=1e-4)
    kept = frame["kept"].to_numpy().reshape(3, 36)
    assert np.isnan(kept[0]).all()
    assert (kept[1] == 1).all()
    both = zip(by_hand(x[:36], 15), by_hand(later[:36], 15), strict=True)
    np.testing.assert_allclose(kept[2], [len(a & b) / 15 for a, b in both], atol=1e-6)
    for i, (given, (near, _), seed, init, others) in enumerate(layout.asked):
        np.testing.assert_array_equal(given, [x, x, later][i][:36])
        assert near.shape == (36, 17)
        first = {"epochs": None, "rate": 1.0} if i == 0 else {"epochs": 120, "rate": 0.2}
        assert (seed, others) == (4, {"n_neighbors": 18, "min_dist": 0.3, **first})
        assert init is None if i == 0 else np.array_equal(init, places[i - 1])
    few = files.Parameters(neighbors=8)
    maps.drift([(0, x, rows)], few)
    assert layout.asked[-1][1][0].shape == (40, 15)
    with pytest.raises(DataError, match="--embed_every 1"):
        maps.drift([], few)
    with pytest.raises(DataError, match="no panel in common"):
        maps.drift([(1, x[:4], rows[:4]), (2, x[4:], rows[4:])], few)
