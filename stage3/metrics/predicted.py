"""How well a panel is predicted from its page mates: skill against the mean, and its rank among all panels."""

import math

import torch
from torch import Tensor

from stage3.metrics.retrieval import recall_at
from stage3.metrics.rows import check_rows, mid_ranks, parts


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
    check_rows(target, "target")
    errors = torch.as_tensor(mse, dtype=torch.float64)
    if not len(target):
        return math.nan
    center = _mean(target)
    baseline = sum(float((part - center).square().sum()) for part in parts(target)) / target.numel()
    return 1 - float(errors.mean()) / baseline if baseline > 0 else math.nan


def _mean(rows: Tensor) -> Tensor:
    """(D,) float64."""
    return torch.stack([part.double().sum(dim=0) for part in parts(rows)]).sum(dim=0) / len(rows)


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
    check_rows(prediction, "prediction")
    check_rows(target, "target")
    if not len(target):
        return mid_ranks(prediction.float(), target.float(), target.new_zeros(0).float(), partner, None, None)
    center = _mean(target)  # distances do not change, rounding does
    # |p - t|^2 orders like t.p - |t|^2 / 2; in units of the gallery's spread, so that TIE means rounding
    squares = torch.cat([(part - center).square().sum(dim=1) for part in parts(target)])
    scale = squares.mean().sqrt().clamp(min=torch.finfo(torch.float32).tiny)
    prediction, target = (
        torch.cat([((part - center) / scale).float() for part in parts(rows)]) for rows in (prediction, target)
    )
    return mid_ranks(prediction, target, -target.square().sum(dim=1) / 2, partner, None, None)


def reconstruction_rank_r1(prediction: Tensor, target: Tensor, partner: Tensor | None = None) -> float:
    """Share of predictions that are nearest to their own panel, 0 to 1; see `reconstruction_ranks`.

    Example:
        >>> target = torch.tensor([[0.0], [8.0]])
        >>> reconstruction_rank_r1(torch.tensor([[0.5], [1.0]]), target)
        0.5
    """
    return recall_at(reconstruction_ranks(prediction, target, partner), 1)
