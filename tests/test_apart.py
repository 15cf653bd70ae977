"""What sets a selection apart, against hand values; panels of a page belong together, rows are not positions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from stage3.selection import apart


def panels(pages, seed=0):
    """A frame of panels, its rows in another order than its pages, with an index that is no position.

    Args:
        pages: (panels, book, page type, text or None) of each page.
        seed: of the order.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for page, (n, book, kind, text) in enumerate(pages):
        for k in range(n):
            rows.append({"page": 100 + page, "order": k, "n_panels": n, "book": book, "page_type": kind,
                         "text": text or "", "split": "train"})  # fmt: skip
    frame = pd.DataFrame(rows).iloc[rng.permutation(len(rows))]
    frame.index = 7 * np.arange(len(frame)) + 3
    return frame


@pytest.fixture(scope="module")
def comics():
    """Nine-panel pages of two books with a layout gate of 99 %, among others of 30 to 50 %."""
    pages = [(9, f"b{i % 2}", "story", "a red kitchen") for i in range(6)]
    pages += [
        (3 + i % 2, f"b{i % 5}", ("story", "cover")[i % 2], ("a blue street", None)[i % 3 == 0]) for i in range(40)
    ]
    frame = panels(pages)
    rng = np.random.default_rng(1)
    frame["gate_box"] = np.where(frame["n_panels"] == 9, 0.99, rng.uniform(0.3, 0.5, len(frame)))
    frame["loss_contrastive"] = rng.normal(2.0, 0.2, len(frame))
    frame["rank_i2t"] = np.where(frame["text"] == "", np.nan, rng.integers(1, 9, len(frame)))
    return frame


def test_an_island_of_nine_panel_pages_with_a_layout_gate_of_99_percent_says_so(comics):
    found = apart(comics, comics["n_panels"] == 9)
    assert found.sentence.startswith("54 panels on 6 pages: ")
    assert "9 panels per page: all (elsewhere 0 %)" in found.sentence
    elsewhere = comics["gate_box"][comics["n_panels"] != 9].mean()
    assert f"layout weight 99 % (elsewhere {100 * elsewhere:.0f} %)" in found.sentence
    assert "text says “kitchen”: all" in found.sentence or "text says “red”: all" in found.sentence


def test_means_are_those_of_the_panels_and_intervals_hold_them(comics):
    inside = (comics["book"] == "b1").to_numpy()
    found = {f.label: f for f in apart(comics, inside).facts}
    assert found["book b1"].inside.mean == 1
    assert found["layout weight"].inside.mean == pytest.approx(comics["gate_box"][inside].mean())
    assert found["layout weight"].outside.mean == pytest.approx(comics["gate_box"][~inside].mean())
    rank = comics["rank_i2t"]
    hit = found["found in the first 5, image → text"]
    assert hit.outside.mean == pytest.approx((rank[~inside].dropna() <= 5).mean())
    assert hit.outside.items == int(rank[~inside].notna().sum())
    for fact in found.values():
        for side in (fact.inside, fact.outside, fact.difference):
            assert side.low <= side.mean <= side.high
        assert fact.difference.mean == pytest.approx(fact.inside.mean - fact.outside.mean)
        if fact.share:
            assert 0 <= fact.inside.low <= fact.inside.high <= 1


def test_the_interval_is_by_page_not_by_panel():
    """A number that is the same for all panels of a page says as much as one panel per page would."""
    rng = np.random.default_rng(0)
    frame = panels([(8, "b", "story", None)] * 40)
    of_page = dict(zip(sorted(frame["page"].unique()), rng.normal(size=40), strict=True))
    frame["loss_contrastive"] = frame["page"].map(of_page)
    inside = (frame["page"] < 120).to_numpy()
    fact = next(f for f in apart(frame, inside).facts if f.family == "loss")
    values = np.array(list(of_page.values()))[:20]
    by_page = 2 * 2.09 * values.std(ddof=1) / np.sqrt(20)  # Student's t of 19 degrees
    assert fact.inside.high - fact.inside.low == pytest.approx(by_page, rel=0.25)  # by panel it would be 0.36 of it
    assert fact.inside.groups == 20


def test_a_random_half_is_not_set_apart():
    frame = panels([(4, f"b{i % 3}", "story", "a red kitchen") for i in range(60)])
    frame["gate_box"] = np.random.default_rng(0).uniform(size=len(frame))
    found = apart(frame, np.random.default_rng(5).random(len(frame)) < 0.5)
    assert "nothing that is measured sets them apart" in found.sentence


def test_one_page_has_no_interval_and_says_so(comics):
    found = apart(comics, comics["page"] == 100)
    assert found.sentence == "9 panels on 1 page: an interval needs panels of two pages or more."
    assert not any(f.sure for f in found.facts)
    assert np.isnan(found.facts[0].inside.low)


@pytest.mark.parametrize(("all_of_them", "says"), [(True, "there are no others"), (False, "No panel is selected")])
def test_nothing_and_everything_have_nothing_to_compare_with(comics, all_of_them, says):
    found = apart(comics, np.full(len(comics), all_of_them))
    assert says in found.sentence
    assert found.facts == []


def test_a_selection_of_another_length_is_refused(comics):
    with pytest.raises(ValueError, match="one bool per panel"):
        apart(comics, np.ones(3, bool))


def test_the_same_seed_gives_the_same_interval(comics):
    inside = comics["n_panels"] == 9
    assert repr(apart(comics, inside, seed=3)) == repr(apart(comics, inside, seed=3))
