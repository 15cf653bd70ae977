"""What an amount of data can show, before anything is trained on it: how small a difference its test pages resolve.

On few pages chance moves every measure by points, and a difference that is smaller than that says nothing. How far
chance moves same-page R-precision is measured on the frozen features of the very pages that will be tested.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stage3 import metrics
from stage3.batches.dataset import Dataset
from stage3.cli import counted, percent
from stage3.config import SPLITS
from stage3.data.splits import split_sizes
from stage3.metrics.bootstrap import student_quantile
from stage3.model.baselines import MIN_PAGES, centers, frozen_features

MEASURED_PAGES = 2000  # evenly spaced, on which the spread is measured
ROLES = {"train": "to train on", "val": "to choose the checkpoint", "test": "held out for the test"}


@dataclass(frozen=True)
class Amount:
    """What a data set can show about two models that are compared on its held-out pages.

    Attributes:
        sizes: books, pages and panels of each split by its name.
        split: where models are compared: "test", without such pages "val", "" without either.
        pages: pages of that split with page mates; books: in which these are.
        gallery: its panels with an image and a text.
        chance_precision: same-page R-precision of random order; chance_r5: R@5, likewise.
        frozen: same-page R-precision of the frozen features.
        by_page: smallest difference in it that the pages resolve, 0 to 1; by_book: that the books resolve, NaN where
            they are too few to tell how books differ.
        r5: the same for R@5, if half of the queries are found, which is where chance moves it most.
    """

    sizes: dict[str, dict[str, int]]
    split: str
    pages: int
    books: int
    gallery: int
    chance_precision: float
    chance_r5: float
    frozen: float
    by_page: float
    by_book: float
    r5: float

    @property
    def smallest(self) -> float:
        """Smallest difference in same-page R-precision that shows both by page and by book; NaN where none can."""
        if self.pages < MIN_PAGES:
            return math.nan
        return max((d for d in (self.by_page, self.by_book) if math.isfinite(d)), default=math.nan)

    def lines(self) -> Iterator[str]:
        """What to tell a user."""
        parts = [
            f"{counted(of['books'], 'book')} with {counted(of['pages'], 'page')} {ROLES[name]}"
            for name, of in self.sizes.items()
            if of["pages"]
        ]
        yield f"what this data can show: {', '.join(parts)}"
        if not self.split:
            yield "  no book is held out, so nothing can be said about books that were not trained on"
            return
        chances = f"same-page R-precision {percent(self.chance_precision)}, R@5 {percent(self.chance_r5)}"
        yield (
            f"  {self.split} pages with page mates: {self.pages:,} of {counted(self.books, 'book')}; gallery: "
            f"{counted(self.gallery, 'panel')} with image and text; chance: {chances}"
        )
        if math.isnan(self.smallest):
            yield f"  whether one model is better than another cannot be told there: it takes {MIN_PAGES} such pages"
            return
        r5 = f", in R@5 from about {_points(self.r5)}" if math.isfinite(self.r5) else ""
        yield (
            f"  differences between two models show in same-page R-precision from about {_points(self.smallest)}{r5}; "
            "smaller ones may be chance"
        )
        if math.isnan(self.by_book):
            yield (
                f"  how books differ cannot be told from {counted(self.books, 'book')} ({MIN_PAGES} are needed): other "
                "books may say otherwise"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return vars(self) | {"smallest": self.smallest}


def amount(data: Dataset) -> Amount:
    """What a data set can show.

    Two models that are compared on the same pages differ by chance with a standard deviation of sqrt(2) times that of
    one model's mean, if what they have in common is left out of account; a 95 % interval reaches 1.96 of these (more
    for few pages or books) to either side. Models that fail on the same pages, as two seeds do, differ by chance by
    less; where R-precision is far above that of the frozen features, pages spread more.
    """
    split = next((name for name in ("test", "val") if len(data.pages(name))), "")
    sizes = split_sizes(data.table, data.split)
    pages = data.pages(split) if split else np.zeros(0, np.int64)
    batch_pages = _even(pages, MEASURED_PAGES)
    rows = data.panel_set.rows_of(batch_pages)
    frozen = frozen_features(data.panel_set, rows, centers(data, data.pages("train")))
    precision = metrics.same_page_r_precision(frozen.panel, frozen.page_ids)
    books = torch.from_numpy(data.table.book_of_page)[frozen.page_ids]
    share = len(batch_pages) / max(len(pages), 1)
    mated, of_books = (torch.unique(ids[~precision.isnan()]) for ids in (frozen.page_ids, books))
    too_few = len(of_books) < MIN_PAGES
    gallery = int(data.panel_set.pairs[pages].sum())
    return Amount(
        sizes={name: sizes[name] for name in SPLITS},
        split=split,
        pages=round(len(mated) / share) if share else 0,
        books=len(of_books),
        gallery=gallery,
        chance_precision=metrics.chance_r_precision(frozen.page_ids),
        chance_r5=metrics.chance_recall(gallery, 5) if gallery else math.nan,
        frozen=metrics.mean_defined(precision),
        by_page=smallest_difference(precision, frozen.page_ids) * math.sqrt(share),
        by_book=math.nan if too_few else smallest_difference(precision, books),
        r5=smallest_share(gallery),
    )


def smallest_difference(values: Tensor, groups: Tensor) -> float:
    """From which difference on the means of two models do not overlap by chance, if both spread like these values.

    Args:
        values: (V,) of one model; NaN entries are left out.
        groups: (V,) page or book of each, whose values hang together.

    Returns:
        t · sqrt(2) · standard error of the mean, the standard error from the groups' sums (they differ in size), t the
        97.5 % quantile of Student's distribution; NaN with fewer than two groups.

    Example:
        >>> values = torch.tensor([0.0, 1.0]).repeat(200)  # 400 groups of one: 1.966 · sqrt(2) · 0.5 / sqrt(400)
        >>> round(smallest_difference(values, torch.arange(400)), 4)
        0.0696
    """
    defined = ~values.isnan()
    of_group = torch.unique(groups[defined], return_inverse=True)[1]
    off = (values[defined] - values[defined].mean()).double()
    sums = torch.zeros(int(of_group.max()) + 1 if len(of_group) else 0, dtype=torch.float64)
    n = len(sums.index_add_(0, of_group, off))
    if n < 2:
        return math.nan
    error = math.sqrt(float(sums.square().sum()) * n / (n - 1)) / len(off)
    return student_quantile(n - 1) * math.sqrt(2) * error


def smallest_share(queries: int) -> float:
    """The same for a share of queries that are found, if that is a half; NaN with fewer than two queries."""
    return student_quantile(queries - 1) * math.sqrt(2 * 0.25 / queries) if queries > 1 else math.nan


def _even(pages: np.ndarray, most: int) -> np.ndarray:
    if len(pages) <= most:
        return pages
    return pages[np.linspace(0, len(pages) - 1, most).round().astype(np.int64)]


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"
