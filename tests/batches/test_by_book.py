"""Batches by book: every page once, one book a batch."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stage3.batches import BookSampler, PageSampler, sampler_of
from stage3.config import Config
from tests import synthetic


@given(st.lists(st.integers(1, 12), min_size=1, max_size=8), st.integers(2, 6), st.integers(0, 5), st.randoms())
def test_every_page_comes_once_and_no_two_books_share_a_batch(sizes, batch_pages, epoch, shuffle):
    books = np.repeat(np.arange(len(sizes)) * 7, sizes)
    order = list(range(len(books)))
    shuffle.shuffle(order)
    books = books[order]
    pages = 100 + 3 * np.arange(len(books))  # a page's row is not its position
    book_of = dict(zip(pages.tolist(), books.tolist(), strict=True))
    sampler = BookSampler(pages, books, batch_pages=batch_pages, seed=1)
    batches = sampler.epoch(epoch)
    assert len(batches) == sampler.n_batches
    assert sorted(np.concatenate(batches).tolist()) == pages.tolist()
    for batch in batches:
        assert len({book_of[p] for p in batch.tolist()}) == 1
        assert len(batch) <= batch_pages
    for book in set(books.tolist()):
        own = [len(b) for b in batches if book_of[int(b[0])] == book]
        assert max(own) - min(own) <= 1


def test_epochs_differ_and_repeat_after_a_resume():
    books = np.repeat([3, 1, 2], 5)
    a, b = (BookSampler(np.arange(15), books, batch_pages=4, seed=0) for _ in range(2))
    first, second = a.epoch(0), a.epoch(1)
    assert [x.tolist() for x in first] != [x.tolist() for x in second]
    assert [x.tolist() for x in b.epoch(1)] == [x.tolist() for x in second]


def test_the_setting_chooses_the_sampler():
    data = synthetic.dataset()
    pages = data.pages("train")
    books = data.table.book_of_page[pages]
    by_book = sampler_of(data.panel_set, pages, books, Config(sampler="book"))
    assert isinstance(by_book, BookSampler)
    assert sorted(np.concatenate(by_book.epoch(0)).tolist()) == sorted(pages.tolist())
    assert isinstance(sampler_of(data.panel_set, pages, books, Config()), PageSampler)
    shuffled = sampler_of(data.panel_set, pages, books, Config(sampler="shuffled"))
    assert not shuffled.guaranteed
    assert sorted(np.concatenate(shuffled.epoch(0)).tolist()) == sorted(pages.tolist())
    none = BookSampler(pages[:0], books[:0], batch_pages=4, seed=0)
    assert (none.n_batches, none.epoch(0), none.shortfalls) == (0, [], [])
