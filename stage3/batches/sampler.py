"""Which pages share a batch: seeded, every page once per epoch, with a signal in every batch where the data has one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from stage3.batches import deal
from stage3.batches.batch import PanelSet, derived_seed
from stage3.config import Config


class Sampler(Protocol):
    """Which pages share a batch.

    Attributes:
        n_batches: batches per epoch.
        shortfalls: what was asked for and cannot be kept in every batch, in sentences.
    """

    n_batches: int
    shortfalls: list[str]

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch, each an array of page rows."""
        ...


class PageSampler:
    """Which pages share a batch in each epoch: every page exactly once, seeded, the same after a resume.

    With `guaranteed` every batch gets at least `min_multi` pages of two or more panels and `min_pairs` panels with
    image and text, wherever the data has enough of them for that; on thin data (most pages single-panel, most
    panels textless) this is what keeps a signal in every batch. What cannot be kept in every batch is lowered to what
    can, multi-panel pages before text pairs, and `shortfalls` says so. With fewer than two pairs per batch, spreading
    them would waste them, since a pair alone has no negative: then they meet in as few batches as hold them beside
    the multi-panel pages, drawn anew each epoch. Without `guaranteed` batches are a plain shuffle.

    Attributes:
        n_batches: batches per epoch.
        min_multi: multi-panel pages that every batch has; 0 without `guaranteed`.
        min_pairs: text pairs that every batch has; likewise.
        shortfalls: for each promise that was asked for and cannot be kept in every batch, a sentence.

    Example:
        >>> panels, pairs = np.array([1, 1, 1, 1, 3, 2]), np.array([1, 1, 1, 0, 0, 0])
        >>> sampler = PageSampler(np.arange(6), panels, pairs, batch_pages=3, seed=0, min_multi=1, min_pairs=1)
        >>> [sorted(batch.tolist()) for batch in sampler.epoch(0)], sampler.shortfalls
        ([[2, 3, 4], [0, 1, 5]], [])
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
        self.n_batches = n = -(-len(pages) // batch_pages)
        self._sizes = np.full(n, len(pages) // max(n, 1))
        self._sizes[: len(pages) - int(self._sizes.sum())] += 1
        self._is_multi = panels >= 2
        self.min_multi = self.min_pairs = 0
        self.shortfalls: list[str] = []
        self._gathers = False
        self._plan: _Plan | None = None
        if guaranteed and n:
            self._promise(min_multi, min_pairs)

    @classmethod
    def of(cls, panel_set: PanelSet, pages: np.ndarray, config: Config) -> PageSampler:
        """The sampler of a run's training pages."""
        return cls(
            pages,
            panel_set.usable_count[pages],
            panel_set.pairs[pages],
            batch_pages=config.batch_pages,
            seed=config.seed,
            guaranteed=config.sampler == "guaranteed",
            min_multi=config.min_multi_pages,
            min_pairs=config.min_text_pairs,
        )

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch, each an array of page rows; sizes differ by at most one page."""
        if not self.n_batches:
            return []
        rng = np.random.default_rng(derived_seed(self.seed, "pages", epoch))
        order = rng.permutation(len(self.pages))
        if not self.guaranteed:
            dealt = np.zeros((2, 0), np.int64)
        elif self._gathers:
            dealt = self._gathered(order, rng.permutation(self.n_batches))
        elif self._plan:
            dealt = self._plan.dealt(order, self._kinds(self._plan.pairs)[order], self._renamed(rng))
        else:
            dealt = self._spread(order, self.min_pairs)
        return [self.pages[batch] for batch in self._filled(order, *dealt)]

    # --- what can be promised

    def _promise(self, min_multi: int, min_pairs: int) -> None:
        """Find out how much every batch can have, and in what way."""
        n, total = self.n_batches, int(self.pairs.sum())
        multis, with_pairs = int(self._is_multi.sum()), int((self.pairs > 0).sum())
        self.min_multi = min(min_multi, multis // n)  # no batch has fewer pages than that
        if self.min_multi < min_multi:
            self.shortfalls.append(
                f"not every batch can have {min_multi} multi-panel pages: each has {self.min_multi} "
                f"({multis:,} of {len(self.pages):,} pages have two or more panels, in {n:,} batches)"
            )
        fit_in_fewer = with_pairs <= (n - 1) * int(self._sizes.min())
        self._gathers = min(min_pairs, total // n) < 2 <= min(min_pairs, total) and fit_in_fewer
        instead = "they meet in some of the batches"
        if not self._gathers:
            instead = self._promise_pairs(min(min_pairs, total // n))
        if self.min_pairs < min_pairs:
            self.shortfalls.append(
                f"not every batch can have {min_pairs} text pairs: {instead} "
                f"({total:,} pairs on {with_pairs:,} of {len(self.pages):,} pages, in {n:,} batches)"
            )

    def _promise_pairs(self, wanted: int) -> str:
        """Find the most pairs, up to `wanted`, that every batch can have beside its multi-panel pages; in words."""
        low, high = 0, wanted + 1  # `low` can be promised, `high` cannot
        most = wanted
        while low < most:
            enough = bool(np.minimum(self.pairs, most).sum() >= most * self.n_batches)
            plan = None
            simple = enough and self._holds(self._spread(np.arange(len(self.pages)), most), most)
            if enough and not simple:
                kinds = deal.plan(self._have(most), self._sizes.tolist(), self.min_multi, most)
                plan = _Plan(kinds, most) if kinds else None
            if simple or plan:
                low, self._plan = most, plan
            else:
                high = most
            most = (low + high) // 2
        self.min_pairs = low
        if low >= min(wanted, 2):
            return f"each has {low}"
        # Most batches would get none, or one that has no negative: pages with several go to as many as they can.
        kinds = deal.as_far_as_it_goes(self._have(wanted), self._sizes.tolist(), self.min_multi, wanted)
        self._plan = _Plan(kinds, wanted)
        found = [sum(pairs for pairs, _ in batch) for batch in kinds]
        self.min_pairs = min(found)
        return f"{sum(n >= 2 for n in found):,} have at least two"

    def _holds(self, dealt: np.ndarray, pairs: int) -> bool:
        """Whether a deal gives every batch its multi-panel pages and this many pairs."""
        of_batch = [
            np.bincount(dealt[1], weights=gain[dealt[0]], minlength=self.n_batches)
            for gain in (self._is_multi, self.pairs)
        ]
        return bool(of_batch[0].min() >= self.min_multi and of_batch[1].min() >= pairs)

    def _kinds(self, pairs: int) -> np.ndarray:
        """(P,) kind of each page as a number, where a batch needs `pairs` text pairs."""
        kinds: np.ndarray = 2 * np.minimum(self.pairs, pairs) + self._is_multi
        return kinds

    def _have(self, pairs: int) -> Counter[deal.Kind]:
        """Pages of each kind."""
        kinds, counts = np.unique(self._kinds(pairs), return_counts=True)
        return Counter({(int(k) // 2, bool(k % 2)): int(n) for k, n in zip(kinds, counts, strict=True)})

    # --- how an epoch is dealt: (2, x) pages, as positions in `pages`, and the batch of each

    def _spread(self, order: np.ndarray, min_pairs: int) -> np.ndarray:
        """Pages with text pairs, richest first, then multi-panel pages, each to the batch that has fewest.

        Only as many are dealt as the promise needs, so that the rest stay a plain shuffle. Among pages with equally
        many pairs those of several panels come first: they serve both promises. Ties fall in the shuffled order.
        """
        room, pairs = self._sizes.copy(), np.zeros(self.n_batches, np.int64)
        rich = order[np.lexsort((~self._is_multi[order], -self.pairs[order]))]
        dealt = deal.spread(rich[self.pairs[rich] > 0], self.pairs, pairs, room, min_pairs)
        return self._with_multi(order, dealt, room)

    def _gathered(self, order: np.ndarray, batches: np.ndarray) -> np.ndarray:
        """Pages with text pairs to as few batches as hold them, then multi-panel pages to those that lack some."""
        rich = order[self.pairs[order] > 0]
        dealt = deal.gather(rich, self._is_multi, batches, self._sizes, self.min_multi)
        return self._with_multi(order, dealt, self._sizes - np.bincount(dealt[1], minlength=self.n_batches))

    def _with_multi(self, order: np.ndarray, dealt: tuple[list[int], list[int]], room: np.ndarray) -> np.ndarray:
        so_far = np.array(dealt, dtype=np.int64).reshape(2, -1)
        placed = np.zeros(len(self.pages), dtype=bool)
        placed[so_far[0]] = True
        gains = self._is_multi.astype(np.int64)
        totals = np.bincount(so_far[1], weights=gains[so_far[0]], minlength=self.n_batches).astype(np.int64)
        more = deal.spread(order[self._is_multi[order] & ~placed[order]], gains, totals, room, self.min_multi)
        return np.concatenate([so_far, np.array(more, dtype=np.int64).reshape(2, -1)], axis=1)

    def _renamed(self, rng: np.random.Generator) -> np.ndarray:
        """(n,) a batch for each batch of a plan, of the same size: not always the same steps get the same."""
        larger = int((self._sizes > self._sizes[-1]).sum())
        return np.concatenate([rng.permutation(larger), larger + rng.permutation(self.n_batches - larger)])

    def _filled(self, order: np.ndarray, pages: np.ndarray, batches: np.ndarray) -> list[np.ndarray]:
        """All batches: what was dealt to each, then the other pages in the shuffled order to wherever there is room."""
        placed = np.zeros(len(order), dtype=bool)
        placed[pages] = True
        room = self._sizes - np.bincount(batches, minlength=self.n_batches)
        whose = np.concatenate([batches, np.repeat(np.arange(self.n_batches), room)])
        everything = np.concatenate([pages, order[~placed[order]]])[np.argsort(whose, kind="stable")]
        return np.split(everything, np.cumsum(self._sizes)[:-1])


class _Plan:
    """Which kinds of pages go to which batch; which page of a kind that is, is drawn anew each epoch.

    Attributes:
        pairs: text pairs that a batch needs, which is what makes the kinds.
    """

    def __init__(self, kinds: list[list[deal.Kind]], pairs: int) -> None:
        self.pairs = pairs
        slots = [(2 * value + multi, b) for b, batch in enumerate(kinds) for value, multi in batch]
        slot_kinds, self.batches = np.array(sorted(slots), dtype=np.int64).reshape(-1, 2).T
        self.kinds, counts = np.unique(slot_kinds, return_counts=True)
        self.nth = np.concatenate([np.arange(n) for n in counts] or [np.zeros(0, np.int64)])  # page of its kind
        self.counts = counts

    def dealt(self, order: np.ndarray, kinds: np.ndarray, names: np.ndarray) -> np.ndarray:
        """(2, x) pages and batches, from pages in shuffled order, the kind of each, and the batch for each batch."""
        by_kind = np.argsort(kinds, kind="stable")
        first = np.searchsorted(kinds[by_kind], self.kinds)
        pages = order[by_kind[np.repeat(first, self.counts) + self.nth]]
        return np.stack([pages, names[self.batches]])


def fixed_batches(pages: np.ndarray, batch_pages: int, seed: int) -> list[np.ndarray]:
    """Validation batches: seeded once, the same at every validation of a run, sizes equal within one page."""
    order = np.random.default_rng(derived_seed(seed, "validation")).permutation(pages)
    return [b for b in np.array_split(order, max(1, -(-len(order) // batch_pages))) if len(b)]


def steps_from(sampler: Sampler, start_step: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """(step, epoch, pages) for every step after `start_step`, without end; step counts from 1, epoch from 1."""
    epoch, done = divmod(start_step, sampler.n_batches)
    step = start_step
    while True:
        for pages in sampler.epoch(epoch)[done:]:
            step += 1
            yield step, epoch + 1, pages
        epoch, done = epoch + 1, 0
