"""What panel embeddings can do, as pure functions on tensors and ids.

Shape letters: V panels, M panels with both modalities, N queries, G gallery rows, D dimension.

Similarities are float32 cosines computed in blocks, so memory grows with the number of rows and not with its square.
Differences below `TIE` are float32 rounding and count as ties. A mean over nothing is NaN, never an error or a zero.
Per-item results come as tensors, so that `bootstrap_interval` can resample them by page or book.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from stage3.losses import page_counts, page_index
from stage3.metrics.bootstrap import Interval, PairedInterval, bootstrap_interval, expanded, paired_bootstrap

__all__ = [
    "AlignmentUniformity",
    "Interval",
    "PageGap",
    "PairedInterval",
    "WithinPage",
    "alignment_uniformity",
    "bootstrap_interval",
    "chance_mean_reciprocal_rank",
    "chance_median_rank",
    "chance_r_precision",
    "chance_recall",
    "effective_rank",
    "expanded",
    "mean_cosine",
    "mean_defined",
    "median_rank",
    "mrr",
    "page_gap",
    "paired_bootstrap",
    "recall_at",
    "reconstruction_rank_r1",
    "reconstruction_ranks",
    "reconstruction_skill",
    "retrieval_ranks",
    "same_page_r_precision",
    "within_page_ranks",
]

TIE = 5e-7
_CELLS_AT_ONCE = 2**22


# --- retrieval -------------------------------------------------------------------------------------------------


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
    query, gallery = _unit(query, "query"), _unit(gallery, "gallery")
    return _ranks(query, gallery, gallery.new_zeros(len(gallery)), partner, query_ids, gallery_ids)


def recall_at(ranks: Tensor, k: int) -> float:
    """Share of ranks that are at most k, 0 to 1 (R@k); NaN without ranks.

    Example:
        >>> recall_at(torch.tensor([1.0, 3.0, 6.0, 2.0]), 5)
        0.75
    """
    return _mean(ranks <= k)


def mrr(ranks: Tensor) -> float:
    """Mean of 1 / rank, 0 to 1 (mean reciprocal rank, Voorhees 1999); NaN without ranks.

    Example:
        >>> mrr(torch.tensor([1.0, 2.0]))
        0.75
    """
    return _mean(1 / ranks.double())


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
        return _mean(1 / (1 + self.competitors.double()))


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
    image, text = _unit(image, "image"), _unit(text, "text")
    _check_length("text", text, len(image))
    _check_length("page_ids", page_ids, len(image))
    own = (image * text).sum(dim=1)
    ranks = torch.ones(len(image), dtype=torch.float64, device=image.device)
    competitors = torch.zeros(len(image), dtype=torch.int64, device=image.device)
    for one, other in _page_pairs(page_ids):
        if text_ids is not None:
            rivals = (text_ids[one] != text_ids[other]) | (text_ids[one] < 0)
            one, other = one[rivals], other[rivals]
        ahead = (image[one] * text[other]).sum(dim=1) - own[one]
        ranks.index_add_(0, one, 0.5 * _half_places_lost(ahead).double())
        competitors.index_add_(0, one, torch.ones_like(one))
    panels = competitors.nonzero().flatten()
    return WithinPage(ranks[panels], panels, competitors[panels])


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
    z = _unit(z, "z")
    _check_length("page_ids", page_ids, len(z))
    mates = page_counts(page_ids) - 1
    result = torch.full((len(z),), math.nan, dtype=torch.float64, device=z.device)
    for rows in _blocks((mates > 0).nonzero().flatten(), len(z)):
        scores = _similarity(z[rows], z)
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
    return _mean(mates[mates > 0].double() / max(1, len(page_ids) - 1))


# --- geometry and collapse -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AlignmentUniformity:
    """Alignment (0 to 4, lower is closer) and uniformity (-4 or so to 0, lower is more spread).

    Example:
        >>> AlignmentUniformity(alignment=0.5, uniformity=-2.0).uniformity
        -2.0
    """

    alignment: float
    uniformity: float


def alignment_uniformity(image: Tensor, text: Tensor, panel: Tensor, t: float = 2.0) -> AlignmentUniformity:
    """Alignment of paired images and texts and uniformity of panels (Wang & Isola 2020, arXiv:2005.10242).

    Args:
        image: (M, D) image embeddings.
        text: (M, D) text embeddings of the same panels; alignment = mean ||image - text||^2 on the sphere.
        panel: (V, D) panel embeddings; uniformity = log mean exp(-t ||z_i - z_j||^2) over pairs i != j.
        t: the t of the paper's uniformity.

    Returns:
        NaN where there is no pair to average.

    Example:
        >>> found = alignment_uniformity(torch.eye(2), torch.eye(2), torch.eye(2))  # distance^2 of the panels: 2
        >>> round(found.alignment, 6), round(found.uniformity, 6)
        (0.0, -4.0)
    """
    image, text, panel = _unit(image, "image"), _unit(text, "text"), _unit(panel, "panel")
    _check_length("text", text, len(image))
    alignment = _mean((image.double() - text.double()).square().sum(dim=1))
    pairs = len(panel) * (len(panel) - 1)
    if not pairs:
        return AlignmentUniformity(alignment, math.nan)
    total = 0.0
    for rows in _blocks(torch.arange(len(panel), device=panel.device), len(panel)):
        cosine = _similarity(panel[rows], panel)
        kernel = (2 * t * (cosine - 1)).exp_()  # ||a - b||^2 = 2 - 2 cos
        kernel[torch.arange(len(rows), device=panel.device), rows] = 0.0
        total += float(kernel.sum(dtype=torch.float64))
    return AlignmentUniformity(alignment, math.log(total / pairs))


def effective_rank(z: Tensor, epsilon: float = 1e-7) -> float:
    """RankMe: exp of the entropy of the normalized singular values (Garrido et al. 2023, arXiv:2210.02885, eq. 1).

    As in the paper the embeddings are taken as they are: neither centered nor normalized, and p_k is sigma_k over
    their sum, plus `epsilon`. The singular values come from a float64 Gram matrix, D x D at most.

    Args:
        z: (V, D) embeddings.
        epsilon: the paper's epsilon.

    Returns:
        1 to about min(V, D); 0 for embeddings that are all zero; NaN for an empty or a non-finite input.

    Example:
        >>> round(effective_rank(torch.eye(4)), 3), round(effective_rank(torch.ones(4, 4)), 3)
        (4.0, 1.0)
    """
    _check_rows(z, "z")
    rows, dimension = z.shape
    if not z.numel() or not bool(z.isfinite().all()):
        return math.nan
    if rows < dimension:
        gram = z.double() @ z.double().T
    else:
        gram = torch.zeros(dimension, dimension, dtype=torch.float64, device=z.device)
        for part in torch.split(z, max(1, _CELLS_AT_ONCE // dimension)):
            gram += part.double().T @ part.double()
    singular = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    if not float(singular.sum()):
        return 0.0
    p = singular / singular.sum() + epsilon
    return float((-(p * p.log()).sum()).exp())


def mean_cosine(z: Tensor) -> float:
    """Mean cosine over all pairs of different panels, from one sum; NaN with fewer than two panels.

    Args:
        z: (V, D) embeddings.

    Example:
        >>> mean_cosine(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]))  # pairs: 1, 0, 0
        0.3333333333333333
    """
    return page_gap(z, torch.arange(len(z), device=z.device)).inter


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
    z = _unit(z, "z").double()
    _check_length("page_ids", page_ids, len(z))
    page, counts = page_index(page_ids)
    sums = z.new_zeros(len(counts), z.shape[1]).index_add_(0, page, z)
    own, within, everything = z.square().sum(), sums.square().sum(), z.sum(dim=0).square().sum()
    intra_pairs = int((counts * (counts - 1)).sum())
    inter_pairs = len(z) ** 2 - int((counts * counts).sum())
    return PageGap(
        float(within - own) / intra_pairs if intra_pairs else math.nan,
        float(everything - within) / inter_pairs if inter_pairs else math.nan,
    )


# --- reconstruction --------------------------------------------------------------------------------------------


def reconstruction_skill(mse: Tensor | float, target: Tensor) -> float:
    """1 - mse / mse(mean embedding): 1 is perfect, 0 no better than one constant answer, negative is worse.

    A collapsed model has a tiny mse and a skill near or below 0, which is why the mse alone is never judged.

    Args:
        mse: mean squared error of the predictions, or (V,) one value per panel.
        target: (V, D) the embeddings that were predicted.

    Returns:
        NaN without panels, and when all targets are the same (nothing to explain).

    Example:
        >>> target = torch.tensor([[0.0], [2.0]])  # the mean embedding has an mse of 1
        >>> reconstruction_skill(0.25, target)
        0.75
    """
    _check_rows(target, "target")
    errors = torch.as_tensor(mse, dtype=torch.float64)
    if not len(target) or not errors.numel():
        return math.nan
    target = target.double()
    baseline = float((target - target.mean(dim=0)).square().mean())
    return 1 - float(errors.mean()) / baseline if baseline > 0 else math.nan


def reconstruction_ranks(prediction: Tensor, target: Tensor, partner: Tensor | None = None) -> Tensor:
    """Rank of each prediction's own panel among all panels by Euclidean distance, 1 for nearest; ties count half.

    Args:
        prediction: (N, D) predicted embeddings.
        target: (G, D) all panels' embeddings, the gallery.
        partner: (N,) int64 gallery row of each prediction. Default: row n, which needs N = G.

    Returns:
        (N,) float64 ranks, in halves.

    Example:
        >>> target = torch.tensor([[0.0], [2.0], [8.0]])
        >>> reconstruction_ranks(torch.tensor([[0.5], [7.0], [7.0]]), target).tolist()
        [1.0, 2.0, 1.0]
    """
    _check_rows(prediction, "prediction")
    _check_rows(target, "target")
    if not len(target):
        return _ranks(prediction.float(), target.float(), target.new_zeros(0).float(), partner, None, None)
    center = target.double().mean(dim=0)  # distances do not change, rounding does
    prediction, target = prediction.double() - center, target.double() - center
    # |p - t|^2 orders like t.p - |t|^2 / 2; in units of the gallery's spread, so that TIE means rounding
    scale = target.square().sum(dim=1).mean().sqrt().clamp(min=torch.finfo(torch.float32).tiny)
    prediction, target = (prediction / scale).float(), (target / scale).float()
    return _ranks(prediction, target, -target.square().sum(dim=1) / 2, partner, None, None)


def reconstruction_rank_r1(prediction: Tensor, target: Tensor, partner: Tensor | None = None) -> float:
    """Share of predictions that are nearest to their own panel, 0 to 1; see `reconstruction_ranks`.

    Example:
        >>> target = torch.tensor([[0.0], [8.0]])
        >>> reconstruction_rank_r1(torch.tensor([[0.5], [1.0]]), target)
        0.5
    """
    return recall_at(reconstruction_ranks(prediction, target, partner), 1)


def mean_defined(values: Tensor) -> float:
    """Mean over the entries that are not NaN; NaN when there is none.

    Example:
        >>> mean_defined(torch.tensor([1.0, math.nan, 3.0]))
        2.0
    """
    return _mean(values[~values.isnan()])


# --- helpers ---------------------------------------------------------------------------------------------------


def _ranks(
    query: Tensor,
    gallery: Tensor,
    bias: Tensor,
    partner: Tensor | None,
    query_ids: Tensor | None,
    gallery_ids: Tensor | None,
) -> Tensor:
    """Mid-ranks of the true matches by query . gallery + bias."""
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(f"query and gallery differ in dimension: {query.shape[1]} and {gallery.shape[1]}.")
    if partner is None:
        _check_length("gallery (without partner)", gallery, len(query))
        partner = torch.arange(len(query), device=query.device)
    _check_length("partner", partner, len(query))
    if query_ids is not None:
        gallery_ids = query_ids if gallery_ids is None else gallery_ids
        _check_length("query_ids", query_ids, len(query))
        _check_length("gallery_ids", gallery_ids, len(gallery))
    ranks = torch.empty(len(query), dtype=torch.float64, device=query.device)
    for rows in _blocks(torch.arange(len(query), device=query.device), len(gallery)):
        scores = _similarity(query[rows], gallery) + bias
        own = partner[rows, None]
        scores -= scores.gather(1, own)
        if query_ids is not None and gallery_ids is not None:
            same = (query_ids[rows, None] == gallery_ids[None, :]) & (query_ids[rows, None] >= 0)
            scores.masked_fill_(same, -math.inf)
        scores.scatter_(1, own, -math.inf)
        ranks[rows] = 1 + 0.5 * _half_places_lost(scores).sum(dim=1).double()
    return ranks


def _half_places_lost(ahead: Tensor) -> Tensor:
    """2 where a rival is ahead, 1 where it ties, else 0; a score that is not a number loses to everything."""
    return (~(ahead <= TIE)).to(torch.int8) + (~(ahead < -TIE)).to(torch.int8)


def _page_pairs(page_ids: Tensor, pairs_at_once: int = 65_536) -> Iterator[tuple[Tensor, Tensor]]:
    """All ordered pairs of different rows on one page, in parts of about `pairs_at_once`."""
    order = page_ids.argsort(stable=True)
    _, counts = page_index(page_ids)
    page = torch.arange(len(counts), device=page_ids.device).repeat_interleave(counts)
    first, size = (counts.cumsum(0) - counts)[page], counts[page]  # of each row's page, in sorted order
    part = (size.cumsum(0) - 1) // pairs_at_once
    everything = torch.arange(len(order), device=page_ids.device)
    for rows in torch.split(everything, part.bincount().tolist() if len(part) else 1):
        repeated = rows.repeat_interleave(size[rows])
        ends = size[rows].cumsum(0)
        offset = torch.arange(len(repeated), device=page_ids.device) - (ends - size[rows]).repeat_interleave(size[rows])
        other = first[repeated] + offset
        different = other != repeated
        yield order[repeated[different]], order[other[different]]


def _blocks(rows: Tensor, width: int) -> Iterator[Tensor]:
    """Parts of `rows` whose similarities to `width` others fit `_CELLS_AT_ONCE`."""
    at_once = max(1, _CELLS_AT_ONCE // max(1, width))
    return iter(torch.split(rows, at_once)) if len(rows) else iter(())


def _similarity(a: Tensor, b: Tensor) -> Tensor:
    """All dot products in float32, whatever autocast is on around the caller."""
    with torch.autocast(device_type=a.device.type, enabled=False):
        return a @ b.T


def _unit(rows: Tensor, name: str) -> Tensor:
    _check_rows(rows, name)
    return torch.nn.functional.normalize(rows.detach().float(), dim=1)


def _mean(values: Tensor) -> float:
    return float(values.double().mean()) if len(values) else math.nan


def _check_rows(rows: Tensor, name: str) -> None:
    if rows.ndim != 2:
        raise ValueError(f"{name} must have shape (rows, dimension), not {tuple(rows.shape)}.")


def _check_length(name: str, rows: Tensor, expected: int) -> None:
    if len(rows) != expected:
        raise ValueError(f"{name} has {len(rows)} rows where {expected} are needed.")
