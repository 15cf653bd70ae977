"""A data set ready for a model: its panel table, features and split by book. The way in for commands and app."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from stage3.batches.batch import PanelSet
from stage3.config import SPLITS, Config, spec_of
from stage3.data import readers
from stage3.data.splits import split_books
from stage3.data.table import LAYOUT_MEANING, PanelTable
from stage3.errors import DataError
from stage3.features import FeatureSet, load_or_build


@dataclass(frozen=True)
class Dataset:
    """Panels, their features, and which pages train, choose and test.

    Attributes:
        table: the panel table.
        features: frozen features of every panel.
        split: (P,) int 0 train, 1 val, 2 test for each page.
        config: the settings it was loaded with; None for a data set that was made in memory.
        layout: what its layout features mean, one of `stage3.data.table.LAYOUT_MEANINGS`.
        source: the settings it was read with, where `config` does not say them: its split is another, a run's.

    Example:
        >>> data = Dataset.load("data/samples")
        >>> len(data.table), sorted(set(data.split.tolist()))
        (2100, [0, 1, 2])
    """

    table: PanelTable
    features: FeatureSet
    split: np.ndarray
    config: Config | None = None
    layout: str = LAYOUT_MEANING
    source: Config | None = None

    @classmethod
    def load(cls, source: Config | Path | str, *, progress: bool = True, **settings: Any) -> Dataset:
        """Read a data set and find or compute its features.

        Args:
            source: folder with a dataset.yaml, or settings that name the data.
            progress: show on standard error how far the work is.
            **settings: of the groups "data" and "features" of `Config`, such as `vision_backbone`.

        Raises:
            DataError, ConfigError: the data or a backbone cannot be used; the message says what to do.

        Example:
            >>> data = Dataset.load("data/samples")
            >>> len(data.table), len(data.pages("test"))
            (2100, 108)
        """
        base = source if isinstance(source, Config) else Config(data=str(source))
        return cls._load(base.replace(**settings) if settings else base, progress)

    @classmethod
    def _load(cls, config: Config, progress: bool) -> Dataset:
        source = readers.source_of(config)
        table = readers.load(config)
        features = load_or_build(table, config, shipped=source.features, progress=progress)
        split = split_books(table, config.val_fraction, config.test_fraction, config.split_seed)
        return cls(table, features, split, config)

    def with_split(self, split: np.ndarray) -> Dataset:
        """The same panels under another split of the pages, (P,) int; itself where that is the split it has."""
        if np.array_equal(split, self.split):
            return self
        other = replace(self, split=split)
        other.__dict__["panel_set"] = self.panel_set  # shared: it is as large as the table
        return other

    def with_layout(self, meaning: str) -> Dataset:
        """The same panels with layout features of another meaning; itself where that is the one it has."""
        return self if meaning == self.layout else replace(self, layout=meaning)

    def settings(self) -> dict[str, Any]:
        """What it was loaded with: the settings of the groups "data" and "features"; empty when made in memory."""
        values = self.config.to_dict() if self.config else {}
        return {name: value for name, value in values.items() if spec_of(name).group in ("data", "features")}

    @cached_property
    def panel_set(self) -> PanelSet:
        """What batches are cut from."""
        layout, has_layout = self.table.layout(self.layout), self.table.has_layout(self.layout)
        return PanelSet.build(self.features, layout, has_layout, self.table.page_of_panel)

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
        images = hashlib.sha256(self.features.image_rows.tobytes())
        if self.features.keys is not None:
            images.update(self.features.keys.images.tobytes())
        return {
            "table": self.table.fingerprint(),
            "features": self.features.fingerprint,
            "pictures": images.hexdigest(),  # the key that runs have recorded; the digest of which panels have an image
            "image_sizes": list(self.features.image_sizes),
            "text_size": self.features.text_dim,
            "panels": len(self.table),
            "pages": len(self.table.pages),
            "books": {name: sorted(set(books[self.split == i])) for i, name in enumerate(SPLITS)},
        }
