"""Packed batches of whole pages, and the sampler that decides which pages share a batch.

V panels of a batch, Di and Dt sizes of the image and text features. No padding row exists anywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from stage3.losses import PageIndex, page_index
from stage3.peers import ALONE, Peers

IMAGE, TEXT, LAYOUT = 0, 1, 2  # columns of `present`


class Features(Protocol):
    """What a batch needs of a feature store; `stage3.features.FeatureSet` is the real one."""

    @property
    def image_rows(self) -> np.ndarray:
        """(V,) int64, -1 where a panel has no image."""

    @property
    def text_rows(self) -> np.ndarray:
        """(V,) int64, -1 where a panel has no text; equal for identical texts."""

    def gather(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Float32 image (n, Di) and text (n, Dt) features; zeros where absent."""


@dataclass(frozen=True)
class PanelBatch:
    """The panels of some whole pages, packed.

    Attributes:
        image: (V, Di) image features; any value where absent, it is never read.
        text: (V, Dt) text features, likewise.
        layout: (V, 7) layout features, likewise.
        present: (V, 3) bool: image, text, layout. No row is all False.
        page_ids: (V,) int64 page of each panel: the labels of the contrastive loss.
        text_ids: (V,) int64, equal for identical texts, -1 without text.
        rows: (V,) int64 rows of the panel table.
        peers: the processes that hold the rest of the batch, where this is a share of one.
    """

    image: Tensor
    text: Tensor
    layout: Tensor
    present: Tensor
    page_ids: Tensor
    text_ids: Tensor
    rows: Tensor
    peers: Peers = ALONE

    def __post_init__(self) -> None:
        absent = ~self.present.any(dim=1)
        if bool(absent.any()):
            row = int(self.rows[absent][0])
            raise ValueError(
                f"{int(absent.sum())} of {len(self)} panels have no modality at all; the first is row {row}. "
                "Leave them out of the panel table."
            )

    def __len__(self) -> int:
        return len(self.page_ids)

    @cached_property
    def pages(self) -> PageIndex:
        """The index of `page_ids`, which every objective needs; computed once."""
        return page_index(self.page_ids)

    def to(self, device: torch.device | str) -> PanelBatch:
        """The same batch on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> PanelBatch:
        """The same batch in memory that a GPU copies from while it computes."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> PanelBatch:
        changed: dict[str, Any] = {f.name: change(getattr(self, f.name)) for f in fields(self) if f.name != "peers"}
        return replace(self, **changed)


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
    def build(
        cls, features: Features, layout: np.ndarray, has_layout: np.ndarray, page_of_panel: np.ndarray
    ) -> PanelSet:
        """From a feature store and the arrays of a panel table; panels of a page must be contiguous."""
        present = np.stack([features.image_rows >= 0, features.text_rows >= 0, has_layout], axis=1)
        count = np.bincount(page_of_panel).astype(np.int64)
        return cls(features, layout, present, page_of_panel, np.cumsum(count) - count, count)

    @property
    def usable_count(self) -> np.ndarray:
        """(P,) panels of each page that have a modality (an image may have failed to decode): those of a batch."""
        some = self.present.any(axis=1)
        return np.bincount(self.page_of_panel[some], minlength=len(self.first)).astype(np.int64)

    @property
    def usable_pages(self) -> np.ndarray:
        """(P,) bool: pages with at least one panel that has a modality."""
        return self.usable_count > 0

    @property
    def pairs(self) -> np.ndarray:
        """(P,) panels of each page that have both an image and a text."""
        both = self.present[:, IMAGE] & self.present[:, TEXT]
        return np.bincount(self.page_of_panel[both], minlength=len(self.first)).astype(np.int64)

    def rows_of(self, pages: np.ndarray) -> np.ndarray:
        """Rows of the panels of these pages, page after page, leaving out panels without any modality."""
        count = self.count[pages]
        before = np.cumsum(count) - count  # panels of the pages before
        rows: np.ndarray = np.repeat(self.first[pages] - before, count) + np.arange(int(count.sum()))
        usable: np.ndarray = rows[self.present[rows].any(axis=1)]
        return usable

    def batch(self, pages: np.ndarray, peers: Peers = ALONE) -> PanelBatch:
        """The packed batch of these pages; with `peers`, this process's share of it."""
        own = peers.own_share(pages, self.count[pages])
        return replace(self.batch_of_rows(self.rows_of(own)), peers=peers)

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
        if device.type == "cpu":
            torch.default_generator.manual_seed(seed)  # torch.manual_seed formats a stack trace per absent accelerator
        else:
            torch.manual_seed(seed)
        yield
