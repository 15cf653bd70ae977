"""What a trained model is measured against: the frozen features that it reads, and itself before training.

A model that is worse than its own input has lost something in training, which no loss curve shows. So wherever
same-page R-precision stands, the same number of the frozen features stands beside it, on the same panels.

V panels, Di and Dt sizes of an image's and a text's feature.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from stage3 import metrics
from stage3.batches import IMAGE, TEXT, PanelSet
from stage3.batches.dataset import Dataset
from stage3.metrics import PairedInterval
from stage3.model.anchor import FeatureSums, Statistics, sampled
from stage3.model.embedding import EMBED_PAGES, Embedded

MAIN = "retrieval/same_page_r_precision"  # the metric that is compared
# With fewer pages resampling them finds an effect in pure noise too often (4 pages: 14 % of cases instead of 2.5 %).
MIN_PAGES = 6

ADDS, NONE, LOST, UNKNOWN = "adds", "no effect", "lost", "cannot tell"


@dataclass(frozen=True)
class Centers:
    """Mean features of the training panels.

    Attributes:
        image: (Di,) mean over the panels with an image; text: (Dt,) over those with a text; 0 where there is none.
        image_sizes: sizes of the backbones' parts of an image's feature, which add up to Di.
    """

    image: Tensor
    text: Tensor
    image_sizes: tuple[int, ...]


def centers(data: Dataset, pages: np.ndarray) -> Centers:
    """Means over the panels of these pages (of at most `SAMPLE_PAGES` of them, evenly spaced)."""
    image, text = FeatureSums([data.features.image_dim]), FeatureSums([data.features.text_dim])
    for images, texts in _present(data, sampled(pages)):
        image.add(images)
        text.add(texts)
    return Centers(image.center, text.center, data.features.image_sizes)


def statistics(data: Dataset, pages: np.ndarray) -> list[Statistics]:
    """Of the features of these pages' panels, for each image backbone and then for the text backbone.

    Of at most `SAMPLE_PAGES` pages, evenly spaced.
    """
    image, text = FeatureSums(data.features.image_sizes), FeatureSums([data.features.text_dim])
    pages = sampled(pages)
    for images, texts in _present(data, pages):
        image.add(images)
        text.add(texts)
    for images, texts in _present(data, pages):
        image.add_centered(images)
        text.add_centered(texts)
    return [*image.statistics(), *text.statistics()]


def _present(data: Dataset, pages: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
    """Image and text features of the panels that have them, some pages at a time."""
    for start in range(0, len(pages), EMBED_PAGES):
        batch = data.panel_set.batch(pages[start : start + EMBED_PAGES])
        yield batch.image[batch.present[:, IMAGE]], batch.text[batch.present[:, TEXT]]


def frozen_features(panel_set: PanelSet, rows: np.ndarray, center: Centers) -> Embedded:
    """The features of some panels (rows of the panel table) as embeddings, in the same order.

    Each modality is centered and divided by its length; several image backbones count equally. A panel without a
    modality has 0 there.

    Returns:
        `image` (V, Di), `text` (V, Dt) and `panel` (V, Di + Dt), the two side by side; `gate` is 0.
    """
    batch = panel_set.batch_of_rows(rows)
    parts = torch.split(batch.image - center.image, list(center.image_sizes), dim=1)
    image = torch.cat([normalize(part, dim=1) for part in parts], dim=1) / math.sqrt(len(parts))
    image = image.masked_fill(~batch.present[:, IMAGE, None], 0.0)
    text = normalize(batch.text - center.text, dim=1).masked_fill(~batch.present[:, TEXT, None], 0.0)
    gate = torch.zeros(len(batch), 3)
    ids = (batch.present, batch.page_ids, batch.text_ids, batch.rows)
    return Embedded(torch.cat([image, text], dim=1), image, text, gate, *ids)


def frozen_of(data: Dataset, embedded: Embedded) -> tuple[Embedded, list[str]]:
    """The frozen features of embedded panels, centered on the training panels; notes where there are none of these."""
    pages, notes = data.pages("train"), []
    if not len(pages):
        pages = np.unique(embedded.page_ids.numpy())
        notes = ["no training panel is in this data: the frozen features are centered on the panels measured"]
    return frozen_features(data.panel_set, embedded.rows.numpy(), centers(data, pages)), notes


def added_to(data: Dataset, embedded: Embedded) -> Added:
    """`what_training_added` to the frozen features of the panels that a model embedded."""
    frozen = frozen_of(data, embedded)[0].panel
    return what_training_added(embedded.panel, frozen, embedded.page_ids, books_of(data, embedded))


@dataclass(frozen=True)
class Added:
    """What training added to the frozen features, in same-page R-precision of the same panels.

    Attributes:
        trained: of the model, 0 to 1; NaN where no panel has a page mate.
        frozen: of its features.
        by_page: the paired difference with an interval from resampling pages; by_book: the same from books.
    """

    trained: float
    frozen: float
    by_page: PairedInterval
    by_book: PairedInterval

    @property
    def interval(self) -> tuple[float, float]:
        """From the lower to the upper end of both intervals: an effect must show by page and by book."""
        ends = [(i.low, i.high) for i in (self.by_page, self.by_book) if math.isfinite(i.low)]
        return (min(low for low, _ in ends), max(high for _, high in ends)) if ends else (math.nan, math.nan)

    @property
    def answer(self) -> str:
        """One of "adds", "no effect", "lost" and, with fewer than `MIN_PAGES` pages, "cannot tell"."""
        low, high = self.interval
        if self.by_page.groups < MIN_PAGES or not math.isfinite(low):
            return UNKNOWN
        return ADDS if low > 0 else LOST if high < 0 else NONE

    @property
    def sentence(self) -> str:
        """What to tell a user."""
        low, high = self.interval
        points = f"{_points(self.by_page.mean)} points [{_points(low)}, {_points(high)}]"
        measured = (
            f"same-page R-precision, frozen features {100 * self.frozen:.1f} %, trained {100 * self.trained:.1f} %"
        )
        if self.answer == UNKNOWN:
            few = f"{self.by_page.groups} pages with page mates are too few"
            return f"whether training adds anything cannot be told: {few}, {MIN_PAGES} are needed"
        if self.answer == ADDS:
            return f"training adds {points} ({measured})"
        if self.answer == NONE:
            return f"no effect here: {points} ({measured})"
        return f"training lost {points} ({measured}): use fewer epochs, a lower lr, or the frozen features"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "metric": MAIN,
            "trained": self.trained,
            "frozen": self.frozen,
            "difference": self.by_page.mean,
            "by_page": [self.by_page.low, self.by_page.high],
            "by_book": [self.by_book.low, self.by_book.high],
            "answer": self.answer,
            "sentence": self.sentence,
        }


def what_training_added(trained: Tensor, frozen: Tensor, page_ids: Tensor, book_ids: Tensor) -> Added:
    """Compare the embeddings of a model with the frozen features of the same panels.

    Args:
        trained: (V, D) panel embeddings.
        frozen: (V, F) frozen features of the same panels in the same order, `frozen_features(…).panel`.
        page_ids: (V,) int64 page of each panel.
        book_ids: (V,) int64 book of each panel.

    Example:
        >>> pages = torch.arange(12) // 2
        >>> z = torch.nn.functional.one_hot(pages).float()  # each panel lies where its page mate lies
        >>> what_training_added(z, torch.ones(12, 3), pages, pages).answer
        'adds'
    """
    ours = metrics.same_page_r_precision(trained, page_ids)
    theirs = metrics.same_page_r_precision(frozen, page_ids)
    by_page = metrics.paired_bootstrap(ours - theirs, page_ids)
    by_book = metrics.paired_bootstrap(ours - theirs, book_ids)
    return Added(metrics.mean_defined(ours), metrics.mean_defined(theirs), by_page, by_book)


def books_of(data: Dataset, embedded: Embedded) -> Tensor:
    """(V,) int64 book of each embedded panel."""
    return torch.from_numpy(data.table.book_of_page)[embedded.page_ids]


def _points(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")
