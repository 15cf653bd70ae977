"""Embeddings of a data set that is too large to hold them all: which panels there are, and those that are asked for.

N panels that can be embedded, D embedding size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from stage3.batches import PanelSet
from stage3.model.embedding import EMBED_PAGES, Embedded, embed, forward, frozen

if TYPE_CHECKING:
    from stage3.model.objectives import Stage3


@dataclass(frozen=True, eq=False)
class Distant:
    """The panels of `Embedded` without their embeddings, which `take` makes.

    Attributes:
        model: of a checkpoint, on the CPU.
        panel_set: the panels.
        present: (N, 3) bool.
        page_ids: (N,) int64; text_ids: (N,) int64, -1 without text; rows: (N,) int64 rows of the panel table.
    """

    model: Stage3
    panel_set: PanelSet
    present: Tensor
    page_ids: Tensor
    text_ids: Tensor
    rows: Tensor

    @classmethod
    def of(cls, model: Stage3, panel_set: PanelSet) -> Distant:
        """All usable panels of a set."""
        rows = np.flatnonzero(panel_set.present.any(axis=1))
        return cls(
            model,
            panel_set,
            torch.from_numpy(panel_set.present[rows]),
            torch.from_numpy(panel_set.page_of_panel[rows].astype(np.int64)),
            torch.from_numpy(panel_set.features.text_rows[rows].astype(np.int64)),
            torch.from_numpy(rows.astype(np.int64)),
        )

    def take(self, positions: Tensor) -> Embedded:
        """The embeddings at some positions, in that order; the whole pages that they lie on are embedded.

        They differ from those of `embed` over all pages by rounding alone.
        """
        pages = torch.unique(self.page_ids[positions]).numpy()
        some = embed(self.model, self.panel_set, pages)
        if torch.equal(some.rows, self.rows[positions]):
            return some
        at = torch.searchsorted(some.rows, self.rows[positions])
        return Embedded(**{name: getattr(some, name)[at] for name in Embedded.__dataclass_fields__})

    def gate(self) -> np.ndarray:
        """(N, 3) float32 fusion weights of all panels, in one pass."""
        out = np.empty((len(self.rows), 3), np.float32)
        pages, done = torch.unique(self.page_ids).numpy(), 0
        with frozen(self.model):
            for start in range(0, len(pages), EMBED_PAGES):
                part = forward(self.model, self.panel_set, pages[start : start + EMBED_PAGES])["gate"]
                out[done : done + len(part)] = part.numpy()
                done += len(part)
        return out


def take(embedded: Embedded | Distant, positions: Tensor) -> Embedded:
    """The embeddings at some positions, in that order."""
    if isinstance(embedded, Distant):
        return embedded.take(positions)
    return Embedded(**{name: getattr(embedded, name)[positions] for name in Embedded.__dataclass_fields__})
