"""What an amount of data can show: the smallest difference is the one that chance reaches once in twenty times."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from stage3 import metrics
from stage3.batches.dataset import Dataset
from stage3.data.splits import TEST, TRAIN, VAL
from stage3.metrics.bootstrap import student_quantile
from stage3.model.amount import amount, smallest_difference, smallest_share
from stage3.model.baselines import centers, frozen_features
from stage3.storage import to_json
from tests import synthetic


def test_the_smallest_difference_equals_its_formula_for_groups_of_different_sizes():
    values = torch.tensor([0.1, 0.5, 0.9, 0.2, float("nan"), 0.4, 0.8, 0.3])
    groups = torch.tensor([7, 7, 3, 3, 3, 9, 9, 5])
    of_group = {7: [0.1, 0.5], 3: [0.9, 0.2], 9: [0.4, 0.8], 5: [0.3]}
    mean = sum(map(sum, of_group.values())) / 7
    square = sum((sum(v) - len(v) * mean) ** 2 for v in of_group.values())
    error = math.sqrt(square * 4 / 3) / 7
    found = smallest_difference(values, groups) / (math.sqrt(2) * error)
    assert found == pytest.approx(3.18, rel=0.04)  # Student's t for 3 degrees of freedom, nearly


@pytest.mark.parametrize(("pages", "per_page"), [(12, 3), (60, 5)])
def test_chance_exceeds_the_smallest_difference_once_in_twenty_times(pages, per_page):
    rng = np.random.default_rng(0)
    ids = torch.arange(pages).repeat_interleave(per_page)
    beyond = 0
    for _ in range(800):  # two models of equal worth, whose pages spread by themselves
        a, b = (torch.from_numpy(rng.normal(size=pages)[ids] * 0.2 + 0.1 * rng.normal(size=len(ids))) for _ in range(2))
        beyond += abs(float((a - b).mean())) > smallest_difference(a, ids)
    assert 0.03 < beyond / 800 < 0.075


def test_single_values_or_groups_resolve_nothing():
    assert math.isnan(smallest_difference(torch.tensor([0.1, 0.2]), torch.tensor([4, 4])))
    assert math.isnan(smallest_difference(torch.full((3,), math.nan), torch.arange(3)))
    two = smallest_difference(torch.tensor([0.0, 1.0]), torch.arange(2))
    assert two == pytest.approx(student_quantile(1) * math.sqrt(2) * 0.5)
    assert math.isnan(smallest_share(1))
    assert smallest_share(2) == pytest.approx(student_quantile(1) * 0.5)
    assert smallest_share(400) == pytest.approx(1.966 * math.sqrt(2) * 0.5 / 20, rel=1e-3)


@pytest.fixture(scope="module")
def data():
    return synthetic.dataset(books=40, pages=6)


def held_out(data: Dataset, test: list[int], val: tuple[int, ...] = ()) -> Dataset:
    split = np.full(len(data.split), TRAIN)
    split[test] = TEST
    split[list(val)] = VAL
    return data.with_split(split)


def test_it_counts_the_pages_books_and_pairs_of_the_test_split_alone(data):
    pages = list(range(0, 240, 3))
    found = amount(held_out(data, pages))
    counts = data.table.pages["n_panels"].to_numpy()[pages]
    assert found.sizes["test"] == {"books": 40, "pages": 80, "panels": int(counts.sum())}
    assert found.sizes["train"]["pages"] == 160
    assert found.pages == int((counts > 1).sum())
    rows = data.panel_set.rows_of(np.array(pages))
    assert found.gallery == int(data.panel_set.present[rows, :2].all(axis=1).sum())
    features = frozen_features(data.panel_set, rows, centers(data, np.setdiff1d(np.arange(240), pages)))
    precision = metrics.same_page_r_precision(features.panel, features.page_ids)
    assert found.frozen == pytest.approx(metrics.mean_defined(precision))
    assert found.by_page == pytest.approx(smallest_difference(precision, features.page_ids))
    assert found.by_book == pytest.approx(smallest_difference(precision, features.page_ids // 6))
    assert found.smallest == max(found.by_page, found.by_book)
    assert json.loads(to_json(found.to_dict()))["smallest"] == pytest.approx(found.smallest)


def test_four_times_the_pages_resolve_half_the_difference():
    values, groups = torch.rand(300, generator=torch.Generator().manual_seed(0)), torch.arange(300) // 4
    more = torch.cat([groups + 75 * copy for copy in range(4)])
    once, four_times = smallest_difference(values, groups), smallest_difference(values.repeat(4), more)
    assert once / four_times == pytest.approx(2, rel=0.03)


def test_of_many_pages_a_part_stands_for_all(data, monkeypatch):
    pages = list(range(160))
    whole = amount(held_out(data, pages))
    monkeypatch.setattr("stage3.model.amount.MEASURED_PAGES", 40)
    part = amount(held_out(data, pages))
    assert part.gallery == whole.gallery
    assert part.pages == pytest.approx(whole.pages, rel=0.1)
    assert part.by_page == pytest.approx(whole.by_page, rel=0.4)  # of other pages among a quarter of the panels


def test_without_test_books_the_validation_books_are_said_and_without_either_nothing(data):
    by_val = amount(held_out(data, [], val=tuple(range(60))))
    assert by_val.split == "val"
    assert any("val pages with page mates" in line for line in by_val.lines())
    told = [dataclasses.replace(by_val, r5=r5) for r5 in (0.125, math.nan)]
    assert [", in R@5 from about 12.5 points" in " ".join(amount.lines()) for amount in told] == [True, False]
    nothing = amount(held_out(data, []))
    assert (nothing.split, nothing.pages) == ("", 0)
    assert any("no book is held out" in line for line in nothing.lines())


def test_few_pages_and_few_books_are_said_to_tell_nothing(data):
    counts = data.table.pages["n_panels"].to_numpy()
    lines = list(amount(held_out(data, np.flatnonzero(counts > 1)[:5].tolist())).lines())
    assert "cannot be told there: it takes 6 such pages" in lines[-1]
    two_books = amount(held_out(data, list(range(12))))
    assert two_books.books == 2
    assert math.isfinite(two_books.smallest)
    assert "how books differ cannot be told from 2 books" in list(two_books.lines())[-1]
    assert "how books differ" not in " ".join(amount(held_out(data, list(range(0, 240, 3)))).lines())
