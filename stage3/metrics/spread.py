"""How embeddings fill their space: effective rank, mean cosine, alignment and uniformity."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from stage3.metrics.pages import page_gap
from stage3.metrics.rows import blocks, check_length, check_rows, mean_of, parts, similarity, unit


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
    check_rows(image, "image")
    check_rows(text, "text")
    check_length("text", text, len(image))
    pieces = ((unit(a, "image"), unit(b, "text")) for a, b in zip(parts(image), parts(text), strict=True))
    alignment = mean_of(torch.cat([(a.double() - b.double()).square().sum(dim=1) for a, b in pieces]))
    panel = unit(panel, "panel")
    pairs = len(panel) * (len(panel) - 1)
    if not pairs:
        return AlignmentUniformity(alignment, math.nan)
    total = 0.0
    for rows in blocks(torch.arange(len(panel), device=panel.device), len(panel)):
        cosine = similarity(panel[rows], panel)
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
    check_rows(z, "z")
    rows, dimension = z.shape
    if not z.numel() or not bool(z.isfinite().all()):
        return math.nan
    if rows < dimension:
        gram = z.double() @ z.double().T
    else:
        gram = torch.zeros(dimension, dimension, dtype=torch.float64, device=z.device)
        for part in parts(z):
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
