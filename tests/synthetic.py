"""Data sets made in memory: panels whose image and text features share what they show, pages that share a theme."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from stage3.batches.dataset import Dataset
from stage3.config import Config
from stage3.data.splits import split_books
from stage3.data.table import PAGE_COLUMNS, PANEL_COLUMNS, DataReport, PanelTable
from stage3.features import FeatureSet
from stage3.model.anchor import FeatureSums
from stage3.model.objectives import Stage3
from stage3.runs import RunFolder

SMALL = {
    "dim": 32,
    "dropout": 0.1,
    "feature_noise": 0.1,
    "lr": 0.003,
    "lr_panels": 0,
    "gate_hidden": 16,
    "layout_hidden": 8,
    "batch_pages": 4,
    "epochs": 2,
    "warmup": 0.2,
}


def table(
    books: int = 8, pages: int = 4, seed: int = 0, *, single: float = 0.1, textless: float = 0.2, boxless: float = 0.05
) -> PanelTable:
    """A panel table with shares of single-panel pages, of panels without text and of panels without a box."""
    rng = np.random.default_rng(seed)
    panels: dict[str, list] = {name: [] for name in PANEL_COLUMNS}
    page_rows: dict[str, list] = {name: [] for name in PAGE_COLUMNS}
    for book in range(books):
        for number in range(pages):
            page_id = f"book{book:03d}/p{number:03d}"
            n = 1 if rng.random() < single else int(rng.integers(2, 7))
            page = len(page_rows["page_id"])
            first = len(panels["panel_id"])
            for i in range(n):
                has_text = rng.random() >= textless
                has_box = rng.random() >= boxless or not has_text
                box = (0.05, 0.9 * i / n + 0.05, 0.9, 0.85 / n) if has_box else (np.nan,) * 4
                values = (f"{page_id}#{i}", page, i, i, *box, has_box)
                values += (f"line {book} {number} {i}" if has_text else "", "", "")
                for name, value in zip(PANEL_COLUMNS, values, strict=True):
                    panels[name].append(value)
            values = (page_id, f"book{book:03d}", "story", "", "", 600, 900, "", "exact", first, n)
            for name, value in zip(PAGE_COLUMNS, values, strict=True):
                page_rows[name].append(value)
    report = DataReport(pages_listed=books * pages, pages_kept=books * pages)
    return PanelTable.build(panels, page_rows, report)


def dataset(
    config: Config | None = None, noise: float = 0.5, theme: float = 1.0, seed: int = 0, **kinds: float
) -> Dataset:
    """A data set that can be learned: image and text are noisy views of what a panel shows."""
    config = config or Config(val_fraction=0.25, test_fraction=0.25)
    made = table(seed=seed, **kinds)
    rng = np.random.default_rng(seed + 1)
    themes = theme * rng.normal(size=(len(made.pages), 16))[made.page_of_panel]
    shown = themes + rng.normal(size=(len(made), 16))
    to_image, to_text = rng.normal(size=(16, 24)), rng.normal(size=(16, 20))
    has_text = np.array([bool(t) for t in made.texts("dialogue")])
    features = FeatureSet.in_memory(
        (shown @ to_image + noise * rng.normal(size=(len(made), 24))).astype(np.float32),
        (shown @ to_text + noise * rng.normal(size=(len(made), 20))).astype(np.float32),
        has_image=made.has_box,
        has_text=has_text,
    )
    return Dataset(made, features, split_books(made, config.val_fraction, config.test_fraction, config.split_seed))


def run(path: Path, **settings: object) -> RunFolder:
    """A new run with small settings."""
    return RunFolder.create(
        path, Config.from_mapping({**SMALL, "val_fraction": 0.25, "test_fraction": 0.25, **settings})
    )


def under_way(model: Stage3) -> Stage3:
    """The model as if some training lay behind it: anchors of random features, and what is learned has strength."""
    draw = torch.Generator().manual_seed(5)
    encoder = model.encoder
    for anchor in encoder.anchors:
        size = len(anchor.center)
        feature = torch.randn(4 * size, size, generator=draw)
        sums = FeatureSums([size])
        sums.add(feature)
        sums.add_centered(feature)
        anchor.fit(sums.statistics()[0], draw)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if name.endswith(".strength"):
                parameter.fill_(0.7)
            elif name.startswith("gate.") or ".mix." in name:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    return model
