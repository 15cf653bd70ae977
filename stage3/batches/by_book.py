"""Batches that hold pages of one book alone, so that a panel is told from its own book and not from another's style."""

from __future__ import annotations

import numpy as np

from stage3.batches.batch import PanelSet, derived_seed
from stage3.batches.sampler import PageSampler, Sampler
from stage3.config import Config


class BookSampler:
    """Which pages share a batch in each epoch: every page exactly once, no two books together, seeded.

    A book of more than `batch_pages` pages is dealt over batches whose sizes differ by at most one page; a smaller one
    is a batch by itself. A book of a single page gives a batch without a contrast between pages.
    """

    def __init__(self, pages: np.ndarray, books: np.ndarray, *, batch_pages: int, seed: int) -> None:
        """Args: `pages` (P,) page rows; `books` (P,) the book of each."""
        self.pages, self.batch_pages, self.seed = pages, batch_pages, seed
        order = np.argsort(books, kind="stable")
        self.of_book = np.split(order, np.flatnonzero(np.diff(books[order])) + 1) if len(pages) else []
        self.shortfalls: list[str] = []  # it guarantees nothing that could not be kept
        self.n_batches = sum(-(-len(rows) // batch_pages) for rows in self.of_book)

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch, each an array of page rows, books in random order."""
        rng = np.random.default_rng(derived_seed(self.seed, "pages by book", epoch))
        batches: list[np.ndarray] = []
        for rows in self.of_book:
            batches += np.array_split(rng.permutation(rows), -(-len(rows) // self.batch_pages))
        return [self.pages[batches[b]] for b in rng.permutation(len(batches))]


def sampler_of(panel_set: PanelSet, pages: np.ndarray, books: np.ndarray, config: Config) -> Sampler:
    """The sampler that a run's settings ask for; `books` (P,) is the book of each of the pages."""
    if config.sampler == "book":
        return BookSampler(pages, books, batch_pages=config.batch_pages, seed=config.seed)
    return PageSampler.of(panel_set, pages, config)
