"""A data set ready for a model: its panel table, features and split by book. One way in for every verb and the app."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from stage3 import readers
from stage3.batches import PanelSet
from stage3.config import Config, DataError
from stage3.features import FeatureSet, load_or_build
from stage3.panels import PanelTable
from stage3.splits import SPLITS, split_books


@dataclass(frozen=True)
class Dataset:
    """Panels, their features, and which pages train, choose and test.

    Attributes:
        table: the panel table.
        features: frozen features of every panel.
        split: (P,) int 0 train, 1 val, 2 test for each page.
    """

    table: PanelTable
    features: FeatureSet
    split: np.ndarray

    @classmethod
    def load(cls, config: Config, *, progress: bool = True) -> Dataset:
        """Read the data set that the settings name and find or compute its features.

        Raises:
            DataError, ConfigError: the data or a backbone cannot be used; the message says what to do.
        """
        source = readers.source_of(config)
        table = readers.load(config)
        features = load_or_build(table, config, shipped=source.features, progress=progress)
        split = split_books(table, config.val_fraction, config.test_fraction, config.split_seed)
        return cls(table, features, split)

    @cached_property
    def panel_set(self) -> PanelSet:
        """What batches are cut from."""
        return PanelSet.build(self.features, self.table.layout(), self.table.has_box, self.table.page_of_panel)

    def pages(self, split: str) -> np.ndarray:
        """(n,) rows of the pages of "train", "val", "test" or "all" that have at least one usable panel."""
        usable = self.panel_set.usable_pages
        if split == "all":
            return np.flatnonzero(usable)
        if split not in SPLITS:
            raise DataError(f"split {split!r} is not one of {', '.join(SPLITS)}, all")
        return np.flatnonzero(usable & (self.split == SPLITS.index(split)))

    def identity(self) -> dict[str, Any]:
        """What a run records of its data, and what a resumed run must find unchanged."""
        books = self.table.pages["book_id"]
        pictures = hashlib.sha256(self.features.image_rows.tobytes())
        if self.features.keys is not None:
            pictures.update(self.features.keys.images.tobytes())
        return {
            "table": self.table.fingerprint(),
            "features": self.features.fingerprint,
            "pictures": pictures.hexdigest(),  # which panels have one, and of which bytes
            "image_sizes": list(self.features.image_sizes),
            "text_size": self.features.text_dim,
            "panels": len(self.table),
            "pages": len(self.table.pages),
            "books": {name: sorted(set(books[self.split == i])) for i, name in enumerate(SPLITS)},
        }
