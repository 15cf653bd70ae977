"""Whether panels of a page lie together: same-page precision and the gap between cosines."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from stage3.losses import page_counts, page_index
from stage3.metrics.rows import TIE, blocks, check_length, mean_of, parts, similarity, unit


def same_page_r_precision(z: Tensor, page_ids: Tensor) -> Tensor:
    """Share of page mates among each panel's R nearest panels, R being its number of mates (R-precision).

    Ties at the R-th place share the places that are left, which is the mean over their orders: a collapsed model
    gets chance, R / (V - 1).

    Args:
        z: (V, D) embeddings, of any norm.
        page_ids: (V,) int64 page of each panel.

    Returns:
        (V,) float64, 0 to 1; NaN for panels without mates (`mean_defined` skips them).

    Example:
        >>> z = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
        >>> same_page_r_precision(z, torch.tensor([0, 0, 1])).tolist()
        [1.0, 1.0, nan]
    """
    z = unit(z, "z")
    check_length("page_ids", page_ids, len(z))
    mates = page_counts(page_ids) - 1
    result = torch.full((len(z),), math.nan, dtype=torch.float64, device=z.device)
    for rows in blocks((mates > 0).nonzero().flatten(), len(z)):
        scores = similarity(z[rows], z)
        scores[torch.arange(len(rows), device=z.device), rows] = -math.inf
        wanted = mates[rows, None]
        last = scores.topk(int(wanted.max()), dim=1).values.gather(1, wanted - 1)
        above, tied = scores > last + TIE, (scores - last).abs() <= TIE
        mate = page_ids[rows, None] == page_ids[None, :]
        places = (wanted[:, 0] - above.sum(dim=1)).double()
        share = (tied & mate).sum(dim=1) / tied.sum(dim=1).clamp(min=1).double()  # 0 ties: not finite, no hits
        result[rows] = ((above & mate).sum(dim=1) + places * share) / wanted[:, 0]
    return result


def chance_r_precision(page_ids: Tensor) -> float:
    """Mean R-precision of random order: the mean of R / (V - 1) over panels with mates; NaN without any.

    Example:
        >>> chance_r_precision(torch.tensor([0, 0, 1, 1, 2]))  # one mate among four others
        0.25
    """
    mates = page_counts(page_ids) - 1
    return mean_of(mates[mates > 0].double() / max(1, len(page_ids) - 1))


@dataclass(frozen=True)
class PageGap:
    """Mean cosine of pairs on one page, of pairs on two pages, and the first minus the second.

    Example:
        >>> PageGap(intra=0.75, inter=0.25).gap
        0.5
    """

    intra: float
    inter: float

    @property
    def gap(self) -> float:
        """Intra minus inter: near 0 when collapsed, and also when pages mean nothing to the model."""
        return self.intra - self.inter


def page_gap(z: Tensor, page_ids: Tensor) -> PageGap:
    """Mean cosine within pages and between pages over all pairs, exact, in O(VD) through sums.

    The sum over pairs of a set is ||sum of z||^2 - sum of ||z||^2, so no pair is ever formed.

    Args:
        z: (V, D) embeddings, of any norm.
        page_ids: (V,) int64 page of each panel.

    Returns:
        NaN where there is no such pair.

    Example:
        >>> gap = page_gap(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0, 1]))
        >>> gap.intra, gap.inter, gap.gap
        (1.0, 0.0, 1.0)
    """
    z = unit(z, "z")
    check_length("page_ids", page_ids, len(z))
    page, counts = page_index(page_ids)
    sums = z.new_zeros(len(counts), z.shape[1], dtype=torch.float64)
    own = sums.new_zeros(())
    for rows, of in zip(parts(z), torch.split(page, len(next(parts(z)))), strict=True):
        sums.index_add_(0, of, rows.double())
        own += rows.double().square().sum()
    within, everything = sums.square().sum(), sums.sum(dim=0).square().sum()
    intra_pairs = int((counts * (counts - 1)).sum())
    inter_pairs = len(z) ** 2 - int((counts * counts).sum())
    return PageGap(
        float(within - own) / intra_pairs if intra_pairs else math.nan,
        float(everything - within) / inter_pairs if inter_pairs else math.nan,
    )
