"""How far a query finds its true match: ranks in a gallery and within a page, and what chance gives."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from stage3.metrics.rows import check_length, half_places_lost, mean_of, mid_ranks, page_pairs, unit


def retrieval_ranks(
    query: Tensor,
    gallery: Tensor,
    *,
    partner: Tensor | None = None,
    query_ids: Tensor | None = None,
    gallery_ids: Tensor | None = None,
) -> Tensor:
    """Rank of each query's true match in the gallery by cosine, 1 for first.

    A tie counts half: the rank is the mean over all orders of the tied rows (Nguyen et al. call it the mid-rank), so
    a collapsed model, where everything ties, gets (G + 1) / 2 and a recall at 1 of 0, not of 1.

    Rows that cannot be told apart from the true match do not compete: where `query_ids` and `gallery_ids` are equal and
    non-negative (identical texts, usually), the row is left out unless it is the true match itself.

    Args:
        query: (N, D) embeddings, of any norm.
        gallery: (G, D) embeddings, of any norm.
        partner: (N,) int64 gallery row that belongs to each query. Default: row n, which needs N = G.
        query_ids: (N,) int64, or None.
        gallery_ids: (G,) int64; default `query_ids`, which needs N = G.

    Returns:
        (N,) float64 ranks, in halves.

    Raises:
        ValueError: shapes disagree.

    Example:
        >>> query, gallery = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> retrieval_ranks(query, gallery).tolist()
        [1.0, 2.0]
    """
    query, gallery = unit(query, "query"), unit(gallery, "gallery")
    return mid_ranks(query, gallery, gallery.new_zeros(len(gallery)), partner, query_ids, gallery_ids)


def recall_at(ranks: Tensor, k: int) -> float:
    """Share of ranks that are at most k, 0 to 1 (R@k); NaN without ranks.

    Example:
        >>> recall_at(torch.tensor([1.0, 3.0, 6.0, 2.0]), 5)
        0.75
    """
    return mean_of(ranks <= k)


def mrr(ranks: Tensor) -> float:
    """Mean of 1 / rank, 0 to 1 (mean reciprocal rank, Voorhees 1999); NaN without ranks.

    Example:
        >>> mrr(torch.tensor([1.0, 2.0]))
        0.75
    """
    return mean_of(1 / ranks.double())


def median_rank(ranks: Tensor) -> float:
    """Median rank, the mean of the middle two for an even number; NaN without ranks.

    Example:
        >>> median_rank(torch.tensor([1.0, 2.0, 7.0, 9.0]))
        4.5
    """
    return float(ranks.double().quantile(0.5)) if len(ranks) else math.nan


def chance_recall(gallery_size: int, k: int) -> float:
    """R@k of random ranks 1 to `gallery_size`; NaN for an empty gallery.

    Example:
        >>> chance_recall(20, 5)
        0.25
    """
    return min(k, gallery_size) / gallery_size if gallery_size else math.nan


def chance_mean_reciprocal_rank(gallery_size: int) -> float:
    """MRR of random ranks 1 to `gallery_size`: the harmonic number over the size; NaN for an empty gallery.

    Example:
        >>> chance_mean_reciprocal_rank(2)  # (1 + 1/2) / 2
        0.75
    """
    if not gallery_size:
        return math.nan
    return float((1 / torch.arange(1, gallery_size + 1, dtype=torch.float64)).sum()) / gallery_size


def chance_median_rank(gallery_size: int) -> float:
    """Median of random ranks 1 to `gallery_size`; NaN for an empty gallery.

    Example:
        >>> chance_median_rank(4)
        2.5
    """
    return (gallery_size + 1) / 2 if gallery_size else math.nan


@dataclass(frozen=True)
class WithinPage:
    """Retrieval among the panels of one page only.

    Attributes:
        ranks: (N,) float64 mid-ranks of the panels that have at least one competitor.
        panels: (N,) int64 rows of these panels in the input.
        competitors: (N,) int64 rows of the page that each of them had to beat.

    Example:
        >>> found = WithinPage(torch.tensor([1.0, 2.0]), torch.tensor([0, 1]), torch.tensor([1, 1]))
        >>> found.accuracy, found.chance
        (0.5, 0.5)
    """

    ranks: Tensor
    panels: Tensor
    competitors: Tensor

    @property
    def accuracy(self) -> float:
        """Share of panels ranked first, 0 to 1; NaN when no page has two aligned panels."""
        return recall_at(self.ranks, 1)

    @property
    def chance(self) -> float:
        """Accuracy of random ranks on the same pages, 0 to 1."""
        return mean_of(1 / (1 + self.competitors.double()))


def within_page_ranks(image: Tensor, text: Tensor, page_ids: Tensor, text_ids: Tensor | None = None) -> WithinPage:
    """Rank of each image's text among the texts of its own page; swap the inputs for the other direction.

    Args:
        image: (M, D) image embeddings, the queries.
        text: (M, D) text embeddings, row for row of the same panels.
        page_ids: (M,) int64 page of each panel.
        text_ids: (M,) int64; equal and non-negative texts do not compete, as in `retrieval_ranks`.

    Raises:
        ValueError: shapes disagree.

    Example:
        >>> found = within_page_ranks(torch.eye(3), torch.eye(3), torch.tensor([0, 0, 1]))
        >>> found.panels.tolist(), found.ranks.tolist(), found.accuracy, found.chance
        ([0, 1], [1.0, 1.0], 1.0, 0.5)
    """
    image, text = unit(image, "image"), unit(text, "text")
    check_length("text", text, len(image))
    check_length("page_ids", page_ids, len(image))
    own = (image * text).sum(dim=1)
    ranks = torch.ones(len(image), dtype=torch.float64, device=image.device)
    competitors = torch.zeros(len(image), dtype=torch.int64, device=image.device)
    for one, other in page_pairs(page_ids):
        if text_ids is not None:
            rivals = (text_ids[one] != text_ids[other]) | (text_ids[one] < 0)
            one, other = one[rivals], other[rivals]
        ahead = (image[one] * text[other]).sum(dim=1) - own[one]
        ranks.index_add_(0, one, 0.5 * half_places_lost(ahead).double())
        competitors.index_add_(0, one, torch.ones_like(one))
    panels = competitors.nonzero().flatten()
    return WithinPage(ranks[panels], panels, competitors[panels])
