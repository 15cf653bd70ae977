"""Splits by book."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stage3.config import SPLITS
from stage3.data.splits import recorded_split, split_books
from stage3.data.table import DataReport, PanelTable
from stage3.errors import DataError


def table_of(sizes: list[int], shuffle: int | None = None) -> PanelTable:
    """Pages of books of these sizes; only the columns that a split reads."""
    books = [f"book {b:03d}" for b, n in enumerate(sizes) for _ in range(n)]
    if shuffle is not None:
        np.random.default_rng(shuffle).shuffle(books)
    return PanelTable(pd.DataFrame(), pd.DataFrame({"book_id": pd.Series(books, dtype="str")}), DataReport())


def books_of(table: PanelTable, split: np.ndarray) -> list[set[str]]:
    return [set(table.pages["book_id"][split == s]) for s in range(len(SPLITS))]


@given(
    sizes=st.lists(st.integers(1, 60), min_size=2, max_size=40),
    val=st.sampled_from([0.0, 0.1, 0.12, 0.3]),
    test=st.sampled_from([0.0, 0.2, 0.4]),
    seed=st.integers(0, 50),
)
@settings(max_examples=60, deadline=None)
def test_no_book_is_in_two_splits_and_every_wanted_split_has_one(
    sizes: list[int], val: float, test: float, seed: int
) -> None:
    table = table_of(sizes, shuffle=seed)
    split = split_books(table, val, test, seed)
    train_books, val_books, test_books = books_of(table, split)
    assert len(train_books) + len(val_books) + len(test_books) == len(sizes)
    assert train_books
    assert bool(val_books) == (val > 0)
    assert bool(test_books) == (test > 0 and (len(sizes) > 2 or val == 0))
    np.testing.assert_array_equal(split, split_books(table, val, test, seed))


def test_fractions_are_met_as_well_as_books_allow() -> None:
    rng = np.random.default_rng(0)
    table = table_of(rng.integers(5, 60, 200).tolist())
    for seed in range(10):
        shares = np.bincount(split_books(table, 0.12, 0.20, seed), minlength=3) / len(table.pages)
        np.testing.assert_allclose(shares, [0.68, 0.12, 0.20], atol=0.01)


def test_one_huge_book_trains() -> None:
    table = table_of([900, 10, 12, 9, 11, 10])
    for seed in range(5):
        assert "book 000" in books_of(table, split_books(table, 0.12, 0.2, seed))[0]


def test_the_seed_moves_books_and_the_order_of_pages_does_not() -> None:
    sizes = [10] * 30
    a, b = table_of(sizes), table_of(sizes, shuffle=3)
    assert books_of(a, split_books(a, 0.12, 0.2, 0)) == books_of(b, split_books(b, 0.12, 0.2, 0))
    assert len({frozenset(books_of(a, split_books(a, 0.12, 0.2, seed))[2]) for seed in range(5)}) == 5


def test_few_books() -> None:
    three, two = table_of([7, 9, 6]), table_of([7, 9])
    for seed in range(6):
        assert [len(b) for b in books_of(three, split_books(three, 0.12, 0.2, seed))] == [1, 1, 1]
        assert [len(b) for b in books_of(two, split_books(two, 0.12, 0.2, seed))] == [1, 1, 0]
    with pytest.raises(DataError, match=r"one book, 'book 000'.*--val_fraction 0 --test_fraction 0"):
        split_books(table_of([7]), 0.12, 0.0, 0)
    with pytest.raises(DataError, match=r"one book, 'book 000'"):
        split_books(table_of([7]), 0.0, 0.2, 0)
    assert split_books(table_of([7]), 0.0, 0.0, 0).tolist() == [0] * 7
    assert split_books(table_of([]), 0.12, 0.2, 0).tolist() == []


@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=12),
    known=st.lists(st.sampled_from(SPLITS), max_size=12),
    seed=st.integers(0, 20),
)
@settings(max_examples=50, deadline=None)
def test_a_recorded_split_is_kept_by_book_and_books_it_lacks_are_held_out(
    sizes: list[int], known: list[str], seed: int
) -> None:
    table = table_of(sizes, shuffle=seed)
    record = {name: [f"book {b:03d}" for b, split in enumerate(known) if split == name] for name in SPLITS}
    found = recorded_split(table, record)
    for book, split in zip(table.pages["book_id"], found, strict=True):
        at = int(book.removeprefix("book "))
        assert SPLITS[split] == (known[at] if at < len(known) else "test")


def test_a_book_that_is_recorded_twice_counts_as_trained_on() -> None:
    assert recorded_split(table_of([2]), {"train": ["book 000"], "test": ["book 000"]}).tolist() == [0, 0]
