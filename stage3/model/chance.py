"""Whether a model finds the text of an image, and the image of a text, more often than chance does.

A share of 20 % sounds little and may be much: of 400 panels, chance finds 1 %. What counts is where the interval lies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stage3 import metrics
from stage3.cli import counted, percent
from stage3.metrics.bootstrap import bootstrap_interval
from stage3.model.baselines import MIN_PAGES
from stage3.model.embedding import Embedded

K = 5  # a query counts as answered when its match is among so many nearest
WAYS = {"i2t": "image → text", "t2i": "text → image"}
ABOVE, AT, UNKNOWN = "above chance", "at chance", "cannot tell"


@dataclass(frozen=True)
class AgainstChance:
    """Retrieval in one direction, beside what random ranks would give.

    Attributes:
        way: "i2t" or "t2i".
        recall: R@5, 0 to 1; NaN without queries.
        low, high: ends of its 95 % interval, the wider of resampling pages and books.
        chance: R@5 of random ranks.
        queries: panels with image and text.
        pages: in which they are.
    """

    way: str
    recall: float
    low: float
    high: float
    chance: float
    queries: int
    pages: int

    @property
    def answer(self) -> str:
        """One of "above chance", "at chance" (chance is not clearly exceeded) and "cannot tell"."""
        if self.pages < MIN_PAGES or self.chance >= 1:
            return UNKNOWN
        return ABOVE if self.low > self.chance else AT

    @property
    def sentence(self) -> str:
        """What to tell a user."""
        if self.answer == UNKNOWN:
            few = f"{counted(self.queries, 'panel')} with image and text on {counted(self.pages, 'page')}"
            return f"{WAYS[self.way]}: whether it is above chance cannot be told from {few}"
        interval = f"R@{K} {percent(self.recall)} [{percent(self.low)}, {percent(self.high)}]"
        return f"{WAYS[self.way]} is {self.answer}: {interval}, chance {percent(self.chance)}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return vars(self) | {"answer": self.answer, "sentence": self.sentence}


def against_chance(embedded: Embedded, book_ids: Tensor) -> list[AgainstChance]:
    """Both directions, among the panels that have image and text.

    Args:
        embedded: V panels.
        book_ids: (V,) book of each.
    """
    rows = embedded.aligned
    image, text, ids = embedded.image[rows], embedded.text[rows], embedded.text_ids[rows]
    ranks = {
        "i2t": metrics.retrieval_ranks(image, text, query_ids=ids),
        "t2i": metrics.retrieval_ranks(text, image, query_ids=ids),
    }
    chance = _chance(ids)
    pages, books = embedded.page_ids[rows], book_ids[rows]
    return [_one(way, (rank <= K).double(), chance, pages, books) for way, rank in ranks.items()]


def _one(way: str, hits: Tensor, chance: float, pages: Tensor, books: Tensor) -> AgainstChance:
    n_pages = len(torch.unique(pages))
    if not len(hits):
        return AgainstChance(way, math.nan, math.nan, math.nan, math.nan, 0, 0)
    of = [bootstrap_interval(hits, groups) for groups in (pages, books) if len(torch.unique(groups)) > 1]
    low = min((i.low for i in of), default=math.nan)
    high = max((i.high for i in of), default=math.nan)
    return AgainstChance(way, float(hits.mean()), low, high, chance, len(hits), n_pages)


def gallery_sizes(text_ids: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Sizes of the queries' galleries, and how many queries have each: panels with a query's text do not compete.

    Args:
        text_ids: (M,) of the panels with image and text.
    """
    _, inverse, count = np.unique(text_ids.numpy(), return_inverse=True, return_counts=True)
    sizes, times = np.unique(len(text_ids) - count[inverse] + 1, return_counts=True)
    return sizes, times


def _chance(text_ids: Tensor) -> float:
    """R@5 of random ranks."""
    sizes, times = gallery_sizes(text_ids)
    levels = [metrics.chance_recall(n, K) for n in sizes.tolist()]
    return float(np.average(levels, weights=times)) if levels else math.nan
