"""Which pages share a batch: seeded, every page once per epoch, with a signal in every batch where the data has one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from stage3.batches.batch import PanelSet, derived_seed
from stage3.config import Config


class PageSampler:
    """Which pages share a batch in each epoch: every page exactly once, seeded, the same after a resume.

    With `guaranteed` every batch gets at least `min_multi` pages of two or more panels and `min_pairs` panels with
    image and text, wherever the data has enough of them for that; on thin data (most pages single-panel, most
    panels textless) this is what keeps a signal in every batch. With fewer than two pairs per batch, spreading
    them would waste them, since a pair alone has no negative: then they meet in as few batches as hold them, drawn
    anew each epoch. Without `guaranteed` batches are a plain shuffle.
    """

    def __init__(
        self,
        pages: np.ndarray,
        panels: np.ndarray,
        pairs: np.ndarray,
        *,
        batch_pages: int,
        seed: int,
        guaranteed: bool = True,
        min_multi: int = 2,
        min_pairs: int = 4,
    ) -> None:
        """Args: `pages` (P,) page rows; `panels`, `pairs` (P,) their panel and text-pair counts."""
        self.pages, self.panels, self.pairs = pages, panels, pairs
        self.batch_pages, self.seed, self.guaranteed = batch_pages, seed, guaranteed
        self.n_batches = max(1, -(-len(pages) // batch_pages)) if len(pages) else 0
        # A guarantee the data cannot meet in every batch is lowered to what it can.
        self.min_multi = min(min_multi, int((panels >= 2).sum()) // max(self.n_batches, 1), batch_pages)
        self.min_pairs = min(min_pairs, int(pairs.sum()) // max(self.n_batches, 1))
        gathered = self.min_pairs < 2 <= min(min_pairs, int(pairs.sum()))
        smallest = len(pages) // max(self.n_batches, 1)
        needed = -(-int((pairs > 0).sum()) // max(smallest, 1))
        self.pair_batches = min(needed, self.n_batches) if gathered else self.n_batches
        if self.pair_batches < self.n_batches:
            self.min_pairs = 0

    @classmethod
    def of(cls, panel_set: PanelSet, pages: np.ndarray, config: Config) -> PageSampler:
        """The sampler of a run's training pages."""
        return cls(
            pages,
            panel_set.count[pages],
            panel_set.pairs[pages],
            batch_pages=config.batch_pages,
            seed=config.seed,
            guaranteed=config.sampler == "guaranteed",
            min_multi=config.min_multi_pages,
            min_pairs=config.min_text_pairs,
        )

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch, each an array of page rows; sizes differ by at most one page."""
        rng = np.random.default_rng(derived_seed(self.seed, "pages", epoch))
        order = rng.permutation(len(self.pages))
        sizes = np.full(self.n_batches, len(order) // self.n_batches) if self.n_batches else np.zeros(0, int)
        sizes[: len(order) - int(sizes.sum())] += 1
        if not self.guaranteed:
            batches = np.split(order, np.cumsum(sizes)[:-1])
        else:
            few = self.pair_batches < self.n_batches
            batches = self._dealt(order, sizes, rng.permutation(self.n_batches)[: self.pair_batches] if few else None)
        return [self.pages[b] for b in batches]

    def _dealt(self, order: np.ndarray, sizes: np.ndarray, pair_batches: np.ndarray | None) -> list[np.ndarray]:
        """Deal scarce pages first, each to the batch that lacks most, then fill up with the rest.

        Pages with text pairs go, richest first, to the batch with the fewest pairs; then multi-panel pages to the
        batch with the fewest of them; then the others to wherever there is room. Ties fall in the shuffled order.
        With `pair_batches` all pages with pairs fill these batches instead, one after the other.
        """
        room = sizes.copy()
        multi = np.zeros(len(sizes), np.int64)
        pairs = np.zeros(len(sizes), np.int64)
        batches: list[list[int]] = [[] for _ in sizes]

        def put(page: int, score: np.ndarray) -> None:
            add(page, int(np.argmin(np.where(room > 0, score, np.iinfo(np.int64).max))))

        def add(page: int, b: int) -> None:
            batches[b].append(page)
            room[b] -= 1
            multi[b] += self.panels[page] >= 2
            pairs[b] += self.pairs[page]

        placed = np.zeros(len(self.pages), dtype=bool)
        # Only as many rich pages are dealt as the guarantee needs, so that the rest stay a plain shuffle.
        # Among pages with one pair, those of several panels come first: they serve both promises.
        if pair_batches is not None:
            for page, b in zip(
                order[self.pairs[order] > 0], np.repeat(pair_batches, sizes[pair_batches]), strict=False
            ):
                add(int(page), int(b))
                placed[page] = True
        rich = order[np.lexsort((self.panels[order] < 2, -self.pairs[order]))]
        for page in rich[self.pairs[rich] > 0]:
            if pairs.min(initial=self.min_pairs) >= self.min_pairs:
                break
            put(int(page), pairs)
            placed[page] = True
        for page in order[(self.panels[order] >= 2) & ~placed[order]]:
            if multi.min(initial=self.min_multi) >= self.min_multi:
                break
            put(int(page), multi)
            placed[page] = True
        rest = iter(order[~placed[order]])
        for b in range(len(sizes)):
            batches[b].extend(int(page) for page in itertools.islice(rest, int(room[b])))
        return [np.asarray(b, dtype=np.int64) for b in batches]


def fixed_batches(pages: np.ndarray, batch_pages: int, seed: int) -> list[np.ndarray]:
    """Validation batches: seeded once, the same at every validation of a run, sizes equal within one page."""
    order = np.random.default_rng(derived_seed(seed, "validation")).permutation(pages)
    return [b for b in np.array_split(order, max(1, -(-len(order) // batch_pages))) if len(b)]


def steps_from(sampler: PageSampler, start_step: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """(step, epoch, pages) for every step after `start_step`, without end; step counts from 1, epoch from 1."""
    epoch, done = divmod(start_step, sampler.n_batches)
    step = start_step
    while True:
        for pages in sampler.epoch(epoch)[done:]:
            step += 1
            yield step, epoch + 1, pages
        epoch, done = epoch + 1, 0
