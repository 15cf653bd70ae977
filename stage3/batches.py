"""Packed batches of whole pages, and the sampler that decides which pages share a batch.

V panels of a batch, Di and Dt sizes of the picture and text features. No padding row exists anywhere.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from stage3.config import Config

IMAGE, TEXT, LAYOUT = 0, 1, 2  # columns of `present`


class Features(Protocol):
    """What a batch needs of a feature store; `stage3.features.FeatureSet` is the real one."""

    @property
    def image_rows(self) -> np.ndarray:
        """(V,) int64, -1 where a panel has no picture."""

    @property
    def text_rows(self) -> np.ndarray:
        """(V,) int64, -1 where a panel has no text; equal for identical texts."""

    def gather(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Float32 picture (n, Di) and text (n, Dt) features; zeros where absent."""


@dataclass(frozen=True)
class PanelBatch:
    """The panels of some whole pages, packed.

    Attributes:
        image: (V, Di) picture features; any value where absent, it is never read.
        text: (V, Dt) text features, likewise.
        layout: (V, 7) layout features, likewise.
        present: (V, 3) bool: picture, text, layout. No row is all False.
        page_ids: (V,) int64 page of each panel: the labels of the contrastive loss.
        text_ids: (V,) int64, equal for identical texts, -1 without text.
        rows: (V,) int64 rows of the panel table.
    """

    image: Tensor
    text: Tensor
    layout: Tensor
    present: Tensor
    page_ids: Tensor
    text_ids: Tensor
    rows: Tensor

    def __post_init__(self) -> None:
        absent = ~self.present.any(dim=1)
        if bool(absent.any()):
            row = int(self.rows[absent][0])
            raise ValueError(
                f"{int(absent.sum())} of {len(self)} panels have no modality at all; the first is row {row}. "
                "Such panels carry no information; leave them out of the panel table."
            )

    def __len__(self) -> int:
        return len(self.page_ids)

    def to(self, device: torch.device | str) -> PanelBatch:
        """The same batch on another device."""
        return PanelBatch(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})


@dataclass(frozen=True)
class PanelSet:
    """Everything a batch is cut from: features, layout, presence and pages of V panels on P pages.

    `first` and `count` (P,) say which rows are a page's panels; `active` restricts work to pages of one split.
    """

    features: Features
    layout: np.ndarray  # (V, 7) float32
    present: np.ndarray  # (V, 3) bool
    page_of_panel: np.ndarray  # (V,) int64
    first: np.ndarray  # (P,) int64
    count: np.ndarray  # (P,) int64

    @classmethod
    def build(cls, features: Features, layout: np.ndarray, has_box: np.ndarray, page_of_panel: np.ndarray) -> PanelSet:
        """From a feature store and the arrays of a panel table; panels of a page must be contiguous."""
        present = np.stack([features.image_rows >= 0, features.text_rows >= 0, has_box], axis=1)
        pages = int(page_of_panel[-1]) + 1 if len(page_of_panel) else 0
        count = np.bincount(page_of_panel, minlength=pages).astype(np.int64)
        first = np.concatenate([[0], np.cumsum(count)[:-1]]).astype(np.int64) if pages else np.zeros(0, np.int64)
        return cls(features, layout, present, page_of_panel, first, count)

    @property
    def usable_pages(self) -> np.ndarray:
        """(P,) bool: pages with at least one panel that has a modality (a picture may have failed to decode)."""
        some = self.present.any(axis=1)
        return np.bincount(self.page_of_panel[some], minlength=len(self.first)) > 0

    @property
    def pairs(self) -> np.ndarray:
        """(P,) panels of each page that have both a picture and a text."""
        both = self.present[:, IMAGE] & self.present[:, TEXT]
        return np.bincount(self.page_of_panel[both], minlength=len(self.first)).astype(np.int64)

    def rows_of(self, pages: np.ndarray) -> np.ndarray:
        """Rows of the panels of these pages, page after page, leaving out panels without any modality."""
        spans = [np.arange(self.first[p], self.first[p] + self.count[p]) for p in pages]
        rows: np.ndarray = np.concatenate(spans) if spans else np.zeros(0, np.int64)
        usable: np.ndarray = rows[self.present[rows].any(axis=1)]
        return usable

    def batch(self, pages: np.ndarray) -> PanelBatch:
        """The packed batch of these pages."""
        return self.batch_of_rows(self.rows_of(pages))

    def batch_of_rows(self, rows: np.ndarray) -> PanelBatch:
        """The packed batch of these panels."""
        image, text = self.features.gather(rows)
        return PanelBatch(
            image=torch.from_numpy(image),
            text=torch.from_numpy(text),
            layout=torch.from_numpy(self.layout[rows]),
            present=torch.from_numpy(self.present[rows]),
            page_ids=torch.from_numpy(self.page_of_panel[rows]),
            text_ids=torch.from_numpy(self.features.text_rows[rows].astype(np.int64)),
            rows=torch.from_numpy(rows.astype(np.int64)),
        )


def derived_seed(*parts: int | str) -> int:
    """A 63-bit seed from a run's seed and what it is for, so that no draw depends on another."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A torch generator of its own for (seed, purpose, step ...)."""
    return torch.Generator().manual_seed(derived_seed(*parts))


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's global generators seeded inside (dropout reads them), and put back as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


class PageSampler:
    """Which pages share a batch in each epoch: every page exactly once, seeded, the same after a resume.

    With `guaranteed` every batch gets at least `min_multi` pages of two or more panels and `min_pairs` panels with
    picture and text, wherever the data has enough of them for that; on thin data (most pages single-panel, most
    panels silent) this is what keeps a signal in every batch. Where there are fewer than two pairs a batch, spreading
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
