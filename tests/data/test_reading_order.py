"""Reading order from positions: a tree of cuts that tolerates overlap."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stage3.config import Config
from stage3.data import read
from stage3.data.readers import order as reading
from stage3.data.readers.order import page_order
from tests.planted_bugs import ROOT

SAMPLES = ROOT / "data" / "samples"
SAMPLES_TABLE = "9402e100347cd8a07f0105be733429b740d77c3a59fce5f603d4fb18fcd58581"


def shuffled(boxes, seed, right_to_left=False):
    """The order found from shuffled boxes, as indices of the boxes before, and whether it is certain."""
    shuffle = np.random.default_rng(seed).permutation(len(boxes))
    order = page_order(boxes[shuffle], right_to_left)
    return shuffle[order.rows].tolist(), order.certain


def test_the_panel_table_of_the_samples_is_what_it_was(tmp_path, monkeypatch):
    table = read(Config(data=str(SAMPLES), cache_dir=str(tmp_path)))
    assert table.fingerprint() == SAMPLES_TABLE
    monkeypatch.setattr("stage3.data.table.AT_ONCE", 77)
    assert table.fingerprint() == SAMPLES_TABLE


def test_every_page_of_the_samples_is_read_in_the_order_that_it_was_drawn_in():
    pages = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((SAMPLES / "panels").rglob("*.json"))]
    boxes = [np.array([panel["box_2d"] for panel in page["panels"]], dtype=float)[:, [1, 0, 3, 2]] for page in pages]
    boxes = [np.concatenate([b[:, :2], b[:, 2:] - b[:, :2]], axis=1) for b in boxes if len(b) > 1]
    assert len(boxes) > 400
    orders = [shuffled(b, seed) for seed, b in enumerate(boxes)]
    assert all(order == list(range(len(b))) for (order, _), b in zip(orders, boxes, strict=True))
    uncertain = [len(b) for (_, certain), b in zip(orders, boxes, strict=True) if not certain]
    assert len(uncertain) < 0.1 * len(boxes)


SLANTED = np.array([[0, 0, 52, 30], [44, 0, 56, 30], [0, 32, 30, 68], [32, 26, 68, 34], [32, 62, 68, 38]], dtype=float)


@pytest.mark.parametrize("seed", range(4))
def test_overlap_up_to_a_quarter_is_cut_through(seed):
    order, certain = shuffled(SLANTED, seed)
    assert order == [0, 1, 2, 3, 4]
    assert not certain
    order, _ = shuffled(SLANTED, seed, right_to_left=True)
    assert order == [1, 0, 3, 4, 2]


@pytest.mark.parametrize(("over", "cut"), [(24, True), (26, False)])
def test_more_than_a_quarter_is_not_cut_through(over, cut):
    # Two panels of the same columns, each 100 high: a line in the middle has `over` of each on its other side.
    boxes = np.array([[5.0, 0, 60, 100], [0.0, 100 - 2 * over, 60, 100]])
    assert page_order(boxes) == ([0, 1], cut)


def test_a_tall_panel_beside_two_is_read_whole_before_or_after_them():
    boxes = np.array([[0, 0, 40, 100], [42, 0, 58, 48], [42, 50, 58, 50]], dtype=float)
    assert shuffled(boxes, 1) == ([0, 1, 2], True)
    assert shuffled(boxes, 1, right_to_left=True) == ([1, 2, 0], True)


def test_an_inset_follows_its_panel_and_is_uncertain():
    boxes = np.array([[0, 0, 100, 100], [60, 60, 30, 30], [0, 104, 100, 40]], dtype=float)
    assert shuffled(boxes, 2) == ([0, 1, 2], False)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.booleans(), st.integers(0, 10**6), st.sampled_from([4, 16, 64]))
def test_any_boxes_are_all_ordered_whatever_the_unit_and_the_place(n, right_to_left, seed, largest):
    boxes = np.round(np.random.default_rng(seed).random((n, 4)) * [64, 64, largest, largest]) / 64
    boxes += [0, 0, 1 / 64, 1 / 64]
    order = page_order(boxes, right_to_left)
    assert sorted(order.rows) == list(range(n))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_first_gap", lambda low, size: None)
        assert page_order(boxes, right_to_left) == order  # what comparing all lines finds
    mirrored = boxes * [-1, 1, 1, 1] + [1, 0, 0, 0] - [1, 0, 0, 0] * boxes[:, 2:3]
    assert page_order(mirrored, not right_to_left).rows == order.rows
    assert page_order(boxes * 2.0 + [4.0, 4.0, 0, 0], right_to_left) == order
    assert page_order(np.zeros((0, 4))) == ([], True)
