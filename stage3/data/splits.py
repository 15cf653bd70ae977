"""Which books train, which choose the checkpoint, and which are held out for the final test.

Whole books only: pages of one book share characters, palette and lettering, so a split by page would measure memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from stage3.config import SPLITS
from stage3.data.table import PanelTable
from stage3.errors import DataError

TRAIN, VAL, TEST = range(len(SPLITS))


def split_books(table: PanelTable, val_fraction: float, test_fraction: float, seed: int) -> np.ndarray:
    """(P,) int64 split of each page, an index into `SPLITS`; no book is in two splits.

    Books are shuffled (by `seed` alone) and handed to test, then to val, as long as each brings the split's pages
    closer to its fraction; the rest trains. A split with a positive fraction gets at least one book while one remains
    for training: three books give 1/1/1, and with two books and both fractions positive test stays empty.

    Args:
        table: the pages, by `book_id`.
        val_fraction: share of pages that choose the checkpoint; 0 for none.
        test_fraction: share of pages held out; 0 for none.
        seed: of the shuffle.

    Raises:
        DataError: one book cannot be both trained on and held out.
    """
    books = table.book_of_page
    sizes = np.bincount(books) if len(books) else np.zeros(0, np.int64)
    if len(sizes) == 1 and (val_fraction > 0 or test_fraction > 0):
        raise DataError(
            f"all pages belong to one book, {table.pages['book_id'].iloc[0]!r}, and books are never split. Add books, "
            "give the manifest a column 'book', or train without validation: --val_fraction 0 --test_fraction 0."
        )
    # Sorted by name first: which books are held out must not depend on the manifest's order.
    names = np.asarray(table.pages["book_id"].drop_duplicates().tolist(), dtype=object)
    order = np.argsort(names, kind="stable")[np.random.default_rng(seed).permutation(len(names))]
    split_of_book = np.full(len(sizes), TRAIN, np.int64)
    free = order.tolist()
    # val before test when books are scarce: without val no checkpoint can be chosen
    wanted = [(split, f) for split, f in ((TEST, test_fraction), (VAL, val_fraction)) if f > 0]
    for position, (split, fraction) in enumerate(wanted):
        reserve = 1 + len(wanted) - position - 1  # training, and splits still to come
        taken = _take(free, sizes, fraction * sizes.sum(), len(free) - reserve)
        split_of_book[taken] = split
        free = [b for b in free if b not in set(taken)]
    of_page: np.ndarray = split_of_book[books]
    return of_page


def recorded_split(table: PanelTable, books: Mapping[str, Iterable[str]]) -> np.ndarray:
    """(P,) int64 split of each page as it was decided before, by book; a book that is not listed is held out (test).

    What was trained on stays known as such however the data has changed since: a page more, an edited word, other
    comics beside them.

    Args:
        table: the pages, by `book_id`.
        books: names of books by the name of their split, as `Dataset.identity` gives them.
    """
    # Backwards, so that a book that is listed twice counts as trained on.
    of_book = {book: SPLITS.index(name) for name in reversed(SPLITS) for book in books.get(name, ())}
    return np.array([of_book.get(book, TEST) for book in table.pages["book_id"]], np.int64)


def split_sizes(table: PanelTable, split: np.ndarray) -> dict[str, dict[str, int]]:
    """`books`, `pages` and `panels` of each split by its name; `split` is (P,) as `split_books` gives it."""
    books, panels = table.book_of_page, table.pages["n_panels"].to_numpy()
    return {
        name: {
            "books": len(np.unique(books[split == s])),
            "pages": int((split == s).sum()),
            "panels": int(panels[split == s].sum()),
        }
        for s, name in enumerate(SPLITS)
    }


def _take(free: list[int], sizes: np.ndarray, target: float, most: int) -> list[int]:
    """Books whose pages come closest to the target, in the order given; at least one when `most` allows."""
    if most < 1:
        return []
    taken: list[int] = []
    total = 0
    for book in free:
        if len(taken) < most and abs(total + sizes[book] - target) < abs(total - target):
            taken.append(book)
            total += int(sizes[book])
    return taken or [min(free, key=lambda b: abs(sizes[b] - target))]
