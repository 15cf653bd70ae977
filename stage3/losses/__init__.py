"""The three objectives as pure functions on packed panels.

Shape letters: V panels, P pages, M panels that have both an image and a text, D dimension.

Every function computes in float32 whatever the dtype of its input and whatever autocast says, has no state and no
randomness, and returns one value per panel (`PanelLoss`), never a bare mean: who averages decides over what.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from stage3.losses.blockwise import PageIndex, info_nce_chunked, page_index, supcon_chunked, unit_rows
from stage3.losses.of_own_rows import log_sum_exp

__all__ = [
    "DENSE_UP_TO",
    "PageIndex",
    "PanelLoss",
    "info_nce",
    "leave_one_out_mean",
    "page_counts",
    "page_index",
    "page_mates",
    "reconstruction",
    "supcon",
]

DENSE_UP_TO = 256
"""Rows up to which the full similarity matrix is formed; above, blocks give the same numbers in linear memory."""


@dataclass(frozen=True)
class PanelLoss:
    """One loss value per panel, and the panels for which that loss is defined.

    Attributes:
        value: (V,) float32; exactly 0 where `valid` is False, and no gradient flows from there.
        valid: (V,) bool.

    Example:
        >>> loss = PanelLoss(torch.tensor([2.0, 0.0]), torch.tensor([True, False]))
        >>> loss.count, float(loss.mean)
        (1, 2.0)
    """

    value: Tensor
    valid: Tensor

    @property
    def count(self) -> int:
        """Number of panels for which the loss is defined."""
        return int(self.valid.sum())

    @property
    def mean(self) -> Tensor:
        """Mean over the valid panels: 0-dim; 0, still connected to the graph, when there is none."""
        return self.value.sum() / self.valid.sum().clamp(min=1)


def page_counts(page_ids: Tensor | PageIndex) -> Tensor:
    """Number of panels on each panel's page: (V,) ids, in any order, to (V,) int64 counts of at least 1.

    Example:
        >>> page_counts(torch.tensor([7, 7, 3])).tolist()
        [2, 2, 1]
    """
    page, counts = page_index(page_ids)
    return counts[page]


def page_mates(page_ids: Tensor) -> Tensor:
    """(V, V) bool: the same page, and not the panel itself.

    Example:
        >>> page_mates(torch.tensor([7, 7, 3])).int().tolist()
        [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    """
    return (page_ids[:, None] == page_ids[None, :]).fill_diagonal_(False)


def supcon(
    z: Tensor,
    page_ids: Tensor | PageIndex,
    temperature: float | Tensor,
    *,
    chunk_size: int | None = None,
    include_singletons: bool = False,
    log_epsilon: float = 0.0,
    own: slice | None = None,
) -> PanelLoss:
    """Supervised contrastive loss, L_out of Khosla et al. 2020 (arXiv:2004.11362, eq. 2).

    Every panel is an anchor; its positives are its page mates; its contrast set is every panel but itself.
    A panel alone on its page is a negative for others, but its own loss is not defined (`valid` is False).

    Args:
        z: (V, D) embeddings, of any norm.
        page_ids: (V,) int64 page of each panel: any values, any order; or their `page_index`, to save computing it.
        temperature: tau > 0 of the equation, as a number or a 0-dim tensor (which then receives its gradient).
        chunk_size: rows of the similarity matrix held at a time. Default: the full matrix up to
            `DENSE_UP_TO` panels, blocks that fit a linear memory above.
        include_singletons: ablation. Count panels without a positive as valid zeros, which dilutes the mean.
        log_epsilon: ablation. Add this inside the logarithm after subtracting the row's maximum with the anchor's
            own similarity in it; at a small tau the maximum is then 1/tau and the epsilon bends the loss.
        own: rows whose loss is computed, against all rows; their page mates must be among them. One of several
            processes computes that of its own panels. The result has one value for each of these rows.

    Raises:
        ValueError: shapes disagree, or the temperature is not a positive finite number.

    Example:
        >>> z, page_ids = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0, 1])
        >>> loss = supcon(z, page_ids, temperature=1.0)  # both anchors of page 0: ln(1 + 1/e)
        >>> round(float(loss.mean), 4), loss.valid.tolist()
        (0.3133, [True, True, False])
    """
    pages = page_index(page_ids)
    _check_rows("z", z, "page_ids", pages.page)
    if log_epsilon and chunk_size is not None:
        raise ValueError("log_epsilon has no blockwise variant: leave chunk_size out.")
    tau = _temperature(temperature, z)
    with _full_precision(z):
        n_mates = page_counts(pages) - 1
        if own is not None:
            n_mates = n_mates[own]
            if log_epsilon or len(z) <= DENSE_UP_TO:
                value = _supcon_dense(z.float(), pages.page, n_mates, tau, log_epsilon, own)
            else:
                value = _supcon_of_own(z.float(), pages.page, n_mates, tau, own)
        elif chunk_size is None and (log_epsilon or len(z) <= DENSE_UP_TO):
            value = _supcon_dense(z.float(), pages.page, n_mates, tau, log_epsilon, slice(0, len(z)))
        else:
            value = supcon_chunked(_narrow(z), pages, tau, chunk_size)
    return PanelLoss(value, torch.ones_like(n_mates, dtype=torch.bool) if include_singletons else n_mates > 0)


def info_nce(
    image: Tensor,
    text: Tensor,
    temperature: float | Tensor,
    text_ids: Tensor | None = None,
    *,
    chunk_size: int | None = None,
    own: slice | None = None,
) -> tuple[PanelLoss, PanelLoss]:
    """Both halves of the symmetric InfoNCE loss (van den Oord et al. 2018; CLIP, Radford et al. 2021).

    Row m of `image` and row m of `text` are one panel; every other row of the batch is a negative. Swapping the two
    inputs swaps the two results. The alignment objective is half their sum.

    Panels with the same `text_ids` (0 or more; -1 means "like no other") are not each other's negatives: a text
    cannot tell them apart, so those terms leave both denominators, and the panel's own pair stays. A panel that is
    left without any negative (M = 1, or all texts identical) has a loss of 0 whatever its embedding, which measures
    nothing: it is not valid.

    Args:
        image: (M, D) image embeddings, of any norm.
        text: (M, D) text embeddings, of any norm.
        temperature: tau > 0; logits are cosine / tau. A 0-dim tensor receives its gradient.
        text_ids: (M,) int64; equal and non-negative means identical text.
        chunk_size: as in `supcon`.
        own: as in `supcon`; any rows.

    Returns:
        image to text (softmax over the texts), text to image (softmax over the images); (M,) values each.

    Raises:
        ValueError: shapes disagree, or the temperature is not a positive finite number.

    Example:
        >>> to_text, to_image = info_nce(torch.eye(2), torch.eye(2), temperature=1.0)
        >>> [round(v, 4) for v in to_text.value.tolist()]  # ln(1 + 1/e)
        [0.3133, 0.3133]
    """
    _check_pair("image", image, "text", text)
    if text_ids is not None:
        _check_rows("image", image, "text_ids", text_ids)
    tau = _temperature(temperature, image)
    groups = _text_groups(len(image), text_ids, image.device)
    with _full_precision(image):
        if own is not None:
            to_text, to_image = _info_nce_of_own(image.float(), text.float(), groups, tau, own)
        elif chunk_size is None and len(image) <= DENSE_UP_TO:
            to_text, to_image = _info_nce_dense(image.float(), text.float(), groups, tau)
        else:
            to_text, to_image = info_nce_chunked(_narrow(image), _narrow(text), groups, tau, chunk_size)
    valid = (page_counts(groups) < len(groups))[own or slice(None)]
    to_text, to_image = (torch.where(valid, value, 0.0) for value in (to_text, to_image))
    return PanelLoss(to_text, valid), PanelLoss(to_image, valid)


def leave_one_out_mean(e: Tensor, page_ids: Tensor | PageIndex) -> Tensor:
    """Mean of the other panels of each panel's page, by segment sums.

    Args:
        e: (V, D) embeddings.
        page_ids: as in `supcon`.

    Returns:
        (V, D) float32; rows of pages with a single panel are 0 (`page_counts(page_ids) > 1` tells them).

    Example:
        >>> e = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
        >>> leave_one_out_mean(e, torch.tensor([0, 0, 1])).tolist()
        [[3.0, 4.0], [1.0, 2.0], [0.0, 0.0]]
    """
    page, counts = page_index(page_ids)
    _check_rows("e", e, "page_ids", page)
    with _full_precision(e):
        e = e.float()
        sums = e.new_zeros(len(counts), e.shape[1]).index_add(0, page, e)
        share = torch.where(counts > 1, 1 / (counts - 1).clamp(min=1).to(e.dtype), 0.0)
        return sums.index_select(0, page).sub_(e).mul_(share[page, None])


def reconstruction(prediction: Tensor, target: Tensor, valid: Tensor, *, detach_target: bool = True) -> PanelLoss:
    """Masked-panel reconstruction: mean squared error over D between prediction and embedding.

    Args:
        prediction: (V, D) the head's output on each panel's context.
        target: (V, D) the panels' own embeddings.
        valid: (V,) bool, the masked panels; the other rows may hold anything, NaN included.
        detach_target: the target gets no gradient. False is an ablation: the encoder may then lower the loss by
            shrinking what has to be predicted.

    Raises:
        ValueError: shapes disagree.

    Example:
        >>> prediction, target = torch.tensor([[1.0, 1.0], [9.0, 9.0]]), torch.tensor([[0.0, 1.0], [0.0, 0.0]])
        >>> reconstruction(prediction, target, torch.tensor([True, False])).value.tolist()
        [0.5, 0.0]
    """
    _check_pair("prediction", prediction, "target", target)
    _check_rows("prediction", prediction, "valid", valid)
    with _full_precision(prediction):
        target = target.detach() if detach_target else target
        difference = torch.where(valid[:, None], prediction.float() - target.float(), 0.0)
        return PanelLoss(difference.square().mean(dim=1), valid)


def _supcon_dense(z: Tensor, page: Tensor, n_mates: Tensor, tau: Tensor, log_epsilon: float, own: slice) -> Tensor:
    z = unit_rows(z)
    logits = z[own] @ z.T / tau
    itself = torch.zeros_like(logits, dtype=torch.bool)
    itself.diagonal(own.start).fill_(True)
    if log_epsilon and len(z):
        logits = logits - logits.detach().amax(dim=1, keepdim=True)
        log_prob = logits - (logits.exp().masked_fill(itself, 0.0).sum(dim=1, keepdim=True) + log_epsilon).log()
    else:  # a finite fill: a row without any other panel must not become NaN
        log_prob = logits.masked_fill(itself, torch.finfo(z.dtype).min).log_softmax(dim=1)
    mates = (page[own, None] == page[None, :]) & ~itself
    return -log_prob.masked_fill(~mates, 0.0).sum(dim=1) / n_mates.clamp(min=1)


def _supcon_of_own(z: Tensor, page: Tensor, n_mates: Tensor, tau: Tensor, own: slice) -> Tensor:
    """`_supcon_dense` without the matrix: the mates enter through their sum over the page."""
    z = unit_rows(z)
    anchors, page = z[own], page[own]
    lse = log_sum_exp(anchors, z, tau, own.start, None)
    sums = z.new_zeros(int(page.max()) + 1 if len(page) else 0, z.shape[1]).index_add(0, page, anchors)
    of_mates = (anchors * (sums[page] - anchors)).sum(dim=1)
    return torch.where(n_mates > 0, lse - of_mates / (n_mates.clamp(min=1) * tau), 0.0)


def _info_nce_dense(image: Tensor, text: Tensor, groups: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
    logits = unit_rows(image) @ unit_rows(text).T / tau
    logits = logits.masked_fill(page_mates(groups), torch.finfo(logits.dtype).min)
    return -logits.log_softmax(dim=1).diagonal(), -logits.log_softmax(dim=0).diagonal()


def _info_nce_of_own(image: Tensor, text: Tensor, groups: Tensor, tau: Tensor, own: slice) -> tuple[Tensor, Tensor]:
    image, text = unit_rows(image), unit_rows(text)
    pair = (image[own] * text[own]).sum(dim=1) / tau
    to_text = log_sum_exp(image[own], text, tau, own.start, groups)
    to_image = log_sum_exp(text[own], image, tau, own.start, groups)
    return to_text - pair, to_image - pair


def _text_groups(rows: int, text_ids: Tensor | None, device: torch.device) -> Tensor:
    """(M,) ids in which only identical texts are equal: every -1 becomes a group of its own."""
    alone = -1 - torch.arange(rows, device=device)
    return alone if text_ids is None else torch.where(text_ids >= 0, text_ids, alone)


def _full_precision(like: Tensor) -> torch.autocast:
    return torch.autocast(device_type=like.device.type, enabled=False)


def _narrow(rows: Tensor) -> Tensor:
    """Float64 to float32; halves stay, the blocks widen them one at a time."""
    return rows.float() if rows.dtype == torch.float64 else rows


def _temperature(temperature: float | Tensor, like: Tensor) -> Tensor:
    """The temperature as a 0-dim float32 tensor beside `like`, its graph kept."""
    tau = torch.as_tensor(temperature, device=like.device)
    if tau.numel() != 1:
        raise ValueError(f"temperature must be one number, not a tensor of shape {tuple(tau.shape)}.")
    number = float(tau.detach())
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"temperature must be a finite number above 0, not {number}.")
    return tau.reshape(()).float()


def _check_rows(name: str, rows: Tensor, label_name: str, labels: Tensor) -> None:
    if rows.ndim != 2:
        raise ValueError(f"{name} must have shape (rows, dimension), not {tuple(rows.shape)}.")
    if labels.shape != rows.shape[:1]:
        raise ValueError(
            f"{label_name} must hold one entry for each of the {len(rows)} rows of {name}; "
            f"its shape is {tuple(labels.shape)}."
        )


def _check_pair(name: str, a: Tensor, other: str, b: Tensor) -> None:
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError(
            f"{name} and {other} must both have shape (rows, dimension), not {tuple(a.shape)} and {tuple(b.shape)}."
        )
