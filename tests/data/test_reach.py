"""Boxes of many pages in loops over plain numbers: how far they reach, which are repeated, and what is counted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from stage3.data.readers.labels import skip_many
from stage3.data.readers.reach import Sample
from stage3.data.readers.repeated import repeated
from stage3.data.readers.units import Notation
from stage3.data.table import DataReport

Box = tuple[float, float, float, float]
Pages = list[tuple[list[Box], tuple[int, int]]]  # corners in pixels, and width and height; zeros where unknown


def drawn(seed: int, *, strange: int = 0, sizes: Sequence[tuple[int, int]] = ((400, 600), (500, 640))) -> Pages:
    """Twenty pages of one to four boxes, some from edge to edge, one box that sticks out; `strange` are tiny."""
    rng, pages = np.random.default_rng(seed), []
    for n in range(20):
        w, h = sizes[n % len(sizes)]
        low, high = (0.0, 1.0) if n % 3 == 0 else (rng.uniform(0, 0.08), rng.uniform(0.9, 1.0))
        cuts = np.linspace(low, high, 2 + n % 4)
        boxes = [(low * w, top * h, high * w, bottom * h) for top, bottom in pairwise(cuts.tolist())]
        if n == 7:
            boxes[0] = (low * w, low * h, 1.2 * w, cuts[1] * h)
        if n >= 20 - strange:
            boxes = [(a / 10, b / 10, c / 10, d / 10) for a, b, c, d in boxes]
        pages.append((boxes, (w, h)))
    pages[4] = (pages[4][0], (0, 0))
    pages[11] = ([*pages[11][0], (90.0, 90.0, 80.0, 120.0)], pages[11][1])  # its corners are not in order
    return pages


def sample_of(pages: Pages, ordered: Sequence[bool] = (), order: str = "xyxy") -> Sample:
    sample = Sample()
    for n, (boxes, size) in enumerate(pages):
        values = [(a, b, c - a, d - b) if order == "xywh" else (a, b, c, d) for a, b, c, d in boxes]
        sample.add(values, size, lambda: (0, 0), ordered[n] if ordered else True)
    return sample


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("strange", [0, 5, 7])
@pytest.mark.parametrize("sizes", [((400, 600), (500, 640)), ((200, 300), (201, 320))])
def test_how_far_boxes_reach(seed: int, strange: int, sizes: Sequence[tuple[int, int]]) -> None:
    pages = drawn(seed, strange=strange, sizes=sizes)
    shares = [([(a / w, b / h, c / w, d / h) for a, b, c, d in boxes], (w, h)) for boxes, (w, h) in pages if w]

    def inside(box: Box) -> bool:
        return min(box[:2]) >= -0.02 and max(box[2:]) <= 1.02 and box[2] > box[0] and box[3] > box[1]

    def sides(boxes: list[Box]) -> tuple[list[float], list[float]]:
        return [min(b[i] for b in boxes) for i in (0, 1)], [max(b[i] for b in boxes) for i in (2, 3)]

    fits = [
        (boxes, size)
        for boxes, size in shares
        if np.mean([inside(b) for b in boxes]) >= 0.5 and max(sides(boxes)[1]) >= 0.2
    ]
    strangers = 1 - len(fits) / len(shares)
    fits = fits if strangers <= 0.3 else shares
    low, high = (np.array([sides(boxes)[i] for boxes, _ in fits]) for i in (0, 1))
    margins = [min(abs(a + b - 1), 1) for a, b in zip(low.ravel(), high.ravel(), strict=True)]
    full = [
        abs(a * side) <= 1.01 and abs(b * side - side) <= 1.01
        for (boxes, size) in fits
        for a, b, side in zip(*sides(boxes), size, strict=True)
    ]
    found = sample_of(pages).reach(Notation("xyxy", "pixels"))
    assert found is not None
    assert [found.left, found.top] == pytest.approx([np.quantile(low[:, i], 0.1) for i in (0, 1)])
    assert [found.right, found.bottom] == pytest.approx([np.quantile(high[:, i], 0.9) for i in (0, 1)])
    assert found.outside == pytest.approx(np.mean([not inside(b) for boxes, _ in fits for b in boxes]))
    assert found.outside > 0
    assert found.uneven == pytest.approx(np.mean(margins))
    assert found.strangers == pytest.approx(strangers)
    assert (found.strangers > 0.3) == (strange == 7)
    assert found.edges == pytest.approx(np.mean(full) if min(sizes)[0] > 200 else 0.0)  # small units touch by chance
    misfit = (abs(found.left + found.right - 1) + abs(found.top + found.bottom - 1)) / 2 + found.outside
    assert found.cost == pytest.approx(misfit + (strangers if strange == 7 else 0))
    assert found.score == pytest.approx(found.cost + found.uneven + strangers - 0.05 * found.edges)


def test_a_cost_is_of_boxes_that_reach_too_far_as_of_those_that_end_too_soon() -> None:
    whole = [[(0.0, 0.0, 100.0, 100.0)]] * 5
    near = [[(0.0, 0.0, 80.0, 100.0)]] * 5
    far = [[(20.0, 0.0, 100.0, 100.0)]] * 5
    costs = []
    for pages in (whole, near, far):
        reach = sample_of([(boxes, (100, 100)) for boxes in pages]).reach(Notation("xyxy", "pixels"))
        assert reach is not None
        costs.append(reach.cost)
    assert costs == pytest.approx([0, 0.1, 0.1])


def test_nothing_is_told_from_zeros_absurd_numbers_or_pages_of_unknown_size() -> None:
    sample = Sample()
    sample.add([(0, 0, 0, 0), (1, 2, 3, 4), (1, 2, 1e30, 4), (5, 0, 0, 0)], (0, 0), lambda: (7, 9), ordered=True)
    sample.add([(0, 0, 0, 0)], (10, 10), lambda: (7, 9), ordered=True)
    assert (sample.pages, sample.boxes) == (1, 2)
    assert sample.reach(Notation("xyxy", "pixels")) is None
    assert sample.common_size() is None
    assert Sample().reach(Notation("xyxy", "permille")) is None
    sample.measure()
    assert sample.common_size() == (7, 9)
    assert sample.measured == 1
    box = [(0.0, 0.0, 1.0, 1.0)]
    half = sample_of([(box, (5, 0)), (box, (5, 6)), (box, (5, 8)), (box, (5, 8))])
    assert np.isnan(half.sizes).tolist() == [[True, True], [False, False], [False, False], [False, False]]
    assert half.common_size() == (5, 8)


def test_where_boxes_begin_and_end_on_pages_of_known_size() -> None:
    pages = drawn(5)
    low, high, sizes = sample_of(pages, order="xywh").ends("xywh")
    known = [(boxes, size) for boxes, size in pages if size[0]]
    assert sizes.tolist() == [list(size) for _, size in known]
    expected = [[min(min(b[i], b[i]) for b in boxes) for i in (0, 1)] for boxes, _ in known]
    np.testing.assert_allclose(low, expected)
    np.testing.assert_allclose(high, [[max(b[i] for b in boxes) for i in (2, 3)] for boxes, _ in known])


def test_the_share_of_boxes_in_order_is_of_pages_with_several() -> None:
    bad, good = (50.0, 50.0, 40.0, 60.0), (0.0, 0.0, 10.0, 10.0)
    assert sample_of([([good, bad], (0, 0)), ([bad], (0, 0)), ([good, good], (0, 0))]).in_order("xyxy") == 0.75
    assert sample_of([([good], (0, 0)), ([bad], (0, 0))]).in_order("xyxy") == 0.5


def test_boxes_lie_upon_each_other_by_a_share_of_their_areas() -> None:
    apart: list[Box] = [(0, 0, 10, 10), (10, 0, 20, 10)]
    half: list[Box] = [(0, 0, 10, 10), (5, 0, 15, 10), (40, 0, 50, 10)]  # 50 of 300
    alike: list[Box] = [(0, 0, 10, 10)] * 5  # ten pairs of 100, of 500: no more than all
    single: list[Box] = [(0, 0, 10, 10)]
    pages = [(boxes, (0, 0)) for boxes in (apart, half, alike, single)]
    assert sample_of(pages).overlap("xyxy") == pytest.approx((0 + 50 / 300 + 1) / 3)
    assert sample_of(pages[3:]).overlap("xyxy") == 0


@pytest.mark.parametrize("seed", range(4))
def test_pages_on_which_the_way_from_panel_to_panel_goes_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pages: Pages = []
    for _ in range(30):
        starts = rng.integers(0, 80, (int(rng.integers(1, 6)), 2))
        pages.append(([(float(x), float(y), float(x) + 20, float(y) + 10) for x, y in starts], (0, 0)))
    ordered = [bool(v) for v in rng.random(30) < 0.7]
    every = [b for boxes, _ in pages for b in boxes]
    width, height = (max(b[i + 2] for b in every) - min(b[i] for b in every) for i in (0, 1))
    counts = [0, 0]
    for (boxes, _), reads in zip(pages, ordered, strict=True):
        middles = [((a + c) / 2 / width, (b + d) / 2 / height) for a, b, c, d in boxes]
        back = [sum(q[i] - p[i] < -0.05 for p, q in pairwise(middles)) if reads else 0 for i in (0, 1)]
        counts[0] += back[1] > back[0]
        counts[1] += back[0] > back[1]
    assert min(counts) > 0
    assert sample_of(pages, ordered).read_along("xyxy") == tuple(counts)


@pytest.mark.parametrize("unit", ["permille", "pixels", "pixels_of:100x300"])
def test_how_far_from_square_panels_are(unit: str) -> None:
    pages = drawn(3)
    logs = []
    for boxes, (w, h) in pages:
        shape = w / h if w else 0.68
        sx, sy = {"permille": (1000, 1000), "pixels_of:100x300": (100, 300)}.get(unit, (w, h))
        for a, b, c, d in boxes if sx else []:  # of pixels on a page of unknown size nothing is told
            if c > a and d > b:
                logs.append(abs(math.log((c - a) / sx * shape / ((d - b) / sy))))
    assert sample_of(pages).lopsided(Notation("xyxy", unit)) == pytest.approx(np.median(logs))
    assert sample_of([([(5, 5, 1, 1)], (9, 9))]).lopsided(Notation("xyxy", unit)) == math.inf


def test_boxes_that_are_nearly_one_are_one_panel_on_pages_of_any_boxes() -> None:
    def iou(a: Box, b: Box) -> float:
        w = max(0.0, min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0]))
        h = max(0.0, min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1]))
        return w * h / (a[2] * a[3] + b[2] * b[3] - w * h)

    rng, found = np.random.default_rng(2), 0
    for _ in range(20):
        places = rng.uniform(0, 60, (3, 2))
        boxes = [(*places[k].tolist(), 40.0, 20.0 + k) for k in rng.integers(0, 3, 9)]
        boxes = [(x + float(dx), y, w, h) for (x, y, w, h), dx in zip(boxes, rng.uniform(0, 1.5, 9), strict=True)]
        expected: dict[int, int] = {}
        for n in range(9):  # without texts the first of them stays
            alike = [k for k in range(n) if k not in expected and iou(boxes[k], boxes[n]) >= 0.95]
            if alike:
                expected[n] = alike[0]
        panels = [SimpleNamespace(box=box, dialogue="", description="") for box in boxes]
        assert repeated(panels) == expected
        found += len(expected)
    assert found > 50


def test_of_many_pages_that_are_left_out_the_first_are_named_and_all_counted() -> None:
    report = DataReport()
    for part in (range(15), range(15, 50)):
        skip_many(report, "label", (f"page {n}" for n in part), len(part))
    assert report.examples["page:label"] == [f"page {n}" for n in range(20)]
    assert report.counts["page:label"] == report.skipped["label"] == 50
    for n in range(30):
        report.skip("scale", f"page {n}")  # one by one, as most are
    assert report.examples["page:scale"] == [f"page {n}" for n in range(20)]
    assert report.counts["page:scale"] == report.skipped["scale"] == 30
    assert (report.pages_listed, report.pages_kept) == (0, 0)  # whoever reads a source sets these
