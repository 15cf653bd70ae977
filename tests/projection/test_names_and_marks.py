"""Names of clusters, and where labels, numbers and outlines stand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stage3.projection import marks
from stage3.projection.layouts import inside
from stage3.projection.names import cluster_names, named


def comics():
    rows = []
    for i in range(40):
        rows.append((0, 9, "story", "b0", f"a red kitchen {'stove' if i % 2 else 'night'}"))
        rows.append((1, 4, "story", f"b{i % 4}", "a castle by night"))
        rows.append((2, 3 + i % 3, "cover", f"b{i % 4}", ""))
        rows.append((-1, 5, "story", "b3", "a castle"))
    frame = pd.DataFrame(rows, columns=["cluster", "n_panels", "page_type", "book", "text"])
    frame = frame.iloc[np.random.default_rng(0).permutation(len(frame))]
    return frame.assign(has_text=frame["text"] != ""), frame["cluster"].to_numpy()


def test_clusters_are_named_by_what_holds_for_them_and_their_own_words():
    frame, cluster = comics()
    assert cluster_names(frame, cluster) == [
        "9-panel pages · b0 · kitchen",
        "4-panel pages · castle · night",
        "cover pages · textless",
    ]
    told = named(frame, cluster)
    assert {t for t, c in zip(told, cluster, strict=True) if c < 0} == {""}
    assert {t for t, c in zip(told, cluster, strict=True) if c == 2} == {"cover pages · textless"}


def test_names_differ_and_a_cluster_without_facts_has_its_number():
    frame = pd.DataFrame({"text": ["same words"] * 8, "n_panels": [4] * 8})
    assert cluster_names(frame, np.repeat([0, 1], 4)) == ["cluster 0", "cluster 1"]
    frame["n_panels"] = [4, 4, 4, 4, 4, 4, 9, 9]
    two = cluster_names(frame, np.array([0, 0, 0, 1, 1, 1, 2, 2]))
    assert len(set(two)) == 3
    assert two[2].startswith("9-panel pages")


def test_a_name_has_two_facts_at_most_and_none_that_holds_elsewhere_too():
    frame = pd.DataFrame({"text": ["moon", "moon", "moon", "moon", "moon", "moon", "sun", "sun"]})
    cluster = np.repeat([0, 1], 4)
    said = ["moon", "sun"]  # twice as often as elsewhere
    assert cluster_names(frame, cluster) == said
    assert cluster_names(frame.assign(n_panels=[4, 4, 4, 4, 4, 4, 9, 9]), cluster) == said  # half of the others too
    apart = frame.assign(split=["test"] * 4 + ["train"] * 4, page_type=[""] * 4 + ["cover"] * 4)
    assert cluster_names(apart, cluster) == ["moon", "cover pages · sun"]
    frame = pd.DataFrame({"text": [""] * 4 + ["sun"] * 4, "n_panels": [2] * 4 + [6] * 4, "book": list("aaaabbcd")})
    assert cluster_names(frame, cluster) == ["2-panel pages · a", "6-panel pages · sun"]  # not that it is textless
    assert named(frame[:0], cluster[:0]) == []


def test_group_means_and_spreads_equal_loops():
    rng = np.random.default_rng(0)
    xy, group = rng.normal(size=(60, 2)), rng.integers(3, 9, 60)
    found = marks.group_means(xy, group)
    for number, mean, spread, panels in zip(found.number, found.mean, found.spread, found.panels, strict=True):
        own = xy[group == number]
        np.testing.assert_allclose(mean, own.mean(axis=0))
        assert spread == pytest.approx(np.sqrt(((own - own.mean(axis=0)) ** 2).sum(axis=1).mean()))
        assert panels == len(own)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 25), st.integers(0, 1000))
def test_labels_that_are_shown_never_cover_each_other(n, seed):
    rng = np.random.default_rng(seed)
    xy, size = rng.uniform(0, 10, (n, 2)), rng.uniform([0.5, 0.2], [3.0, 0.5], (n, 2))
    zooms = marks.label_zooms(xy, size)
    assert zooms[0] == 1
    for zoom in (1, 2, 4, 8):
        shown = np.flatnonzero(zooms <= zoom)
        for i in shown:
            for j in shown:
                apart = np.abs(xy[i] - xy[j]) * zoom - (size[i] + size[j]) / 2
                assert i == j or (apart >= -1e-9).any()


def test_a_label_appears_at_the_first_zoom_that_has_room_for_it():
    xy, size = np.array([[0.0, 0.0], [0.6, 0.0], [5.0, 0.0]]), np.ones((3, 2))
    assert marks.label_zooms(xy, size).tolist() == [1, 2, 1]


@pytest.mark.parametrize("n", [1, 2, 9, 15])
def test_numbers_of_a_heap_fan_out(n):
    xy = np.random.default_rng(0).normal(scale=3.0, size=(n, 2))  # pixels
    at = marks.fan(xy, 20)
    gap = np.hypot(*(at[:, None] - at[None]).transpose(2, 0, 1)) + 1e9 * np.eye(n)
    assert n == 1 or gap.min() > 19
    assert np.abs(at - xy).max() < 20 * n  # and stay near
    far = np.array([[0.0, 0.0], [500.0, 0.0]])
    np.testing.assert_allclose(marks.fan(far, 20), far, atol=0.1)


def test_a_heap_of_equal_points_fans_out_too():
    at = marks.fan(np.zeros((9, 2)), 20)
    gap = np.hypot(*(at[:, None] - at[None]).transpose(2, 0, 1)) + 1e9 * np.eye(9)
    assert gap.min() > 19
    (up, right, down, left) = marks.fan(np.zeros((4, 2)), 20)  # in the direction of a clock
    for (x, y), (along, sign) in zip((up, right, down, left), ((1, 1), (0, 1), (1, -1), (0, -1)), strict=True):
        assert np.sign([x, y][along]) == sign
        assert abs([x, y][1 - along]) < 1e-6 * abs([x, y][along])


def test_a_simplified_lasso_holds_the_same_panels_but_for_its_edge():
    turn = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    lasso = np.column_stack([4 * np.cos(turn) + np.cos(5 * turn), 3 * np.sin(turn)])
    short = marks.simplified(lasso, 0.01)
    assert len(short) < 120
    xy = np.random.default_rng(0).uniform(-5, 5, (20_000, 2))
    differs = inside(xy, lasso) != inside(xy, short)
    assert differs.mean() < 0.002
    assert marks.simplified(lasso[:3], 9).shape == (3, 2)
    line = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0], [4.0, 0.0]])
    assert marks.simplified(line, 1).tolist() == [[0, 0], [4, 0]]  # one that is 1 off is not more than 1 off


def test_the_middle_of_a_ring_lies_on_the_ring():
    turn = np.linspace(0, 2 * np.pi, 50, endpoint=False)
    ring = np.column_stack([np.cos(turn), np.sin(turn)])
    assert np.hypot(*marks.middle(ring)) == pytest.approx(1)
