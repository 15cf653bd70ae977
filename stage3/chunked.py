"""Exact contrastive losses whose memory grows with V, not with V squared.

Shape letters: V rows (panels), D dimension, B rows of one block of the similarity matrix, P pages.

The matrix is visited in B x B blocks and never stored: the forward pass keeps one log-sum-exp a row, the backward
pass forms each block again (the idea of FlashAttention, Dao et al. 2022, arXiv:2205.14135). Three savings bring
the time near that of the bare matrix products:

- z z^T is symmetric, so `supcon` visits only blocks on and above the diagonal, and G + G^T needs one product;
- the positives of an anchor enter only through their sum, which segment sums give without any V x V mask;
- while exp(1 / tau) is far from float32's limits no maximum is subtracted, so one exponential serves the softmax
  over rows and the softmax over columns. Below `PLAIN_EXP_DOWN_TO` each has its own, shifted by its log-sum-exp.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

PLAIN_EXP_DOWN_TO = 1 / 60
"""Temperature down to which exp(cosine / tau) and a sum of millions of them stay in float32's normal range."""
KEPT_FLOATS_PER_ENTRY = 1.5
"""Blocks of `info_nce` kept from forward to backward, in floats for each of the V x D entries of one input."""
_TINY_NORM = 1e-12


def supcon_chunked(z: Tensor, page_ids: Tensor, tau: Tensor, chunk_size: int | None = None) -> Tensor:
    """`losses.supcon` by blocks: (V,) values, 0 for panels without page mates.

    Args:
        z: (V, D) embeddings of any norm, float32 (float64 is kept, for gradient checks).
        page_ids: (V,) int64.
        tau: 0-dim temperature.
        chunk_size: B; default from V and D.
    """
    page, counts = page_index(page_ids)
    value: Tensor = _SupCon.apply(z, tau, page, counts, _block_rows(z, chunk_size))  # type: ignore[no-untyped-call]
    return value


def info_nce_chunked(
    image: Tensor, text: Tensor, groups: Tensor, tau: Tensor, chunk_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """`losses.info_nce` by blocks: (M,) values image to text and text to image.

    Args:
        image: (M, D) of any norm, float32 (float64 is kept, for gradient checks).
        text: (M, D).
        groups: (M,) int64; rows of one group are not each other's negatives.
        tau: 0-dim temperature.
        chunk_size: B; default from M and D.
    """
    masked = groups if len(page_index(groups)[1]) < len(groups) else None
    rows = _block_rows(image, chunk_size)
    to_text, to_image = _InfoNCE.apply(image, text, tau, masked, rows)  # type: ignore[no-untyped-call]
    return to_text, to_image


def page_index(page_ids: Tensor) -> tuple[Tensor, Tensor]:
    """(V,) pages renumbered 0 to P - 1, and the (P,) numbers of their panels."""
    _, page, counts = torch.unique(page_ids, return_inverse=True, return_counts=True)
    return page, counts


class _SupCon(torch.autograd.Function):
    """L_i = lse_i - z_i . (S_i - z_i) / (n_i tau), with S_i the sum over i's page and n_i its number of mates."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, tau: Tensor, page: Tensor, counts: Tensor, rows: int) -> Tensor:
        unit, norm = unit_rows(z)
        softmax = _Softmax(float(tau))
        lse = softmax.empty(unit, len(unit))
        buffer = unit.new_empty(rows, rows)
        for i, j in _upper_blocks(len(unit), rows):
            block = softmax.block(unit[i], unit[j], buffer)
            if i == j:
                block.fill_diagonal_(softmax.nothing)
            softmax.accumulate(lse[i], block, dim=1)
            if i != j:
                softmax.accumulate(lse[j], block, dim=0)
        lse = softmax.close(lse)

        n_mates = (counts[page] - 1).to(unit.dtype)
        of_mates = unit.new_empty(len(unit))
        sums = _page_sums(unit, page, len(counts), rows)
        for i in _blocks(len(unit), rows):
            of_mates[i] = (unit[i] * (sums[page[i]] - unit[i])).sum(dim=1)
        ctx.save_for_backward(unit, norm, tau, page, counts, lse)
        ctx.rows = rows
        return torch.where(n_mates > 0, lse - of_mates / (n_mates.clamp(min=1) * tau), 0.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        unit, norm, tau, page, counts, lse = ctx.saved_tensors
        rows, n_mates = ctx.rows, counts[page] - 1
        upstream = torch.where(n_mates > 0, upstream, 0.0)
        with torch.autocast(device_type=unit.device.type, enabled=False):
            grad = _grad_of_mates(unit, page, len(counts), upstream / n_mates.clamp(min=1), rows)
            softmax = _Softmax(float(tau))
            buffer, other = unit.new_empty(rows, rows), unit.new_empty(rows, rows)
            for i, j in _upper_blocks(len(unit), rows):
                block = softmax.block(unit[i], unit[j], buffer)
                if i == j:
                    block.fill_diagonal_(softmax.nothing)
                block = softmax.weigh(block, lse[i], upstream[i], lse[j], upstream[j], other)
                grad[i].addmm_(block, unit[j])
                if i != j:  # a block on the diagonal is symmetric and complete: it counts once
                    grad[j].addmm_(block.T, unit[i])
            grad.mul_(1 / tau)
            along = _row_dot(unit, grad)
            return _through_norm(grad, unit, norm, along), -along.sum() / (2 * tau), None, None, None


class _InfoNCE(torch.autograd.Function):
    """Row loss lse over texts minus the own pair; column loss lse over images minus the own pair."""

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, text: Tensor, tau: Tensor, groups: Tensor | None, rows: int
    ) -> tuple[Tensor, Tensor]:
        v, v_norm = unit_rows(image)
        t, t_norm = unit_rows(text)
        softmax = _Softmax(float(tau))
        over_text, over_image = softmax.empty(v, len(v)), softmax.empty(v, len(v))
        kept: list[Tensor] = []
        room = KEPT_FLOATS_PER_ENTRY * v.numel() / rows**2 if any(ctx.needs_input_grad) else 0
        buffer = v.new_empty(rows, rows)
        for i, j in _all_blocks(len(v), rows):
            keep = len(kept) + 1 <= room
            block = softmax.block(v[i], t[j], torch.empty_like(buffer) if keep else buffer)
            _mask_group(block, groups, i, j, softmax.nothing)
            softmax.accumulate(over_text[i], block, dim=1)
            softmax.accumulate(over_image[j], block, dim=0)
            if keep:
                kept.append(block)
        over_text, over_image = softmax.close(over_text), softmax.close(over_image)
        own = _row_dot(v, t) / tau
        ctx.save_for_backward(v, v_norm, t, t_norm, tau, over_text, over_image, groups, *kept)
        ctx.rows = rows
        return over_text - own, over_image - own

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_text: Tensor, to_image: Tensor) -> tuple[Tensor | None, ...]:
        v, v_norm, t, t_norm, tau, over_text, over_image, groups, *kept = ctx.saved_tensors
        rows = ctx.rows
        with torch.autocast(device_type=v.device.type, enabled=False):
            own = (to_text + to_image)[:, None]
            grad_v, grad_t = t * -own, v * -own
            softmax = _Softmax(float(tau))
            buffer, other = v.new_empty(rows, rows), v.new_empty(rows, rows)
            for n, (i, j) in enumerate(_all_blocks(len(v), rows)):
                if n < len(kept):
                    block = kept[n]
                else:
                    block = softmax.block(v[i], t[j], buffer)
                    _mask_group(block, groups, i, j, softmax.nothing)
                block = softmax.weigh(block, over_text[i], to_text[i], over_image[j], to_image[j], other)
                grad_v[i].addmm_(block, t[j])
                grad_t[j].addmm_(block.T, v[i])
            grad_v.mul_(1 / tau)
            grad_t.mul_(1 / tau)
            along_v, along_t = _row_dot(v, grad_v), _row_dot(t, grad_t)
            grad_v = _through_norm(grad_v, v, v_norm, along_v)
            grad_t = _through_norm(grad_t, t, t_norm, along_t)
            return grad_v, grad_t, -along_v.sum() / tau, None, None


class _Softmax:
    """How blocks of logits are exponentiated and summed at one temperature."""

    def __init__(self, tau: float) -> None:
        self.scale = 1 / tau
        self.plain = tau >= PLAIN_EXP_DOWN_TO
        self.nothing = 0.0 if self.plain else -math.inf  # what an excluded pair holds in a block

    def block(self, a: Tensor, b: Tensor, buffer: Tensor) -> Tensor:
        """exp(logits) where that is safe, else logits, of rows `a` against rows `b`, written into `buffer`."""
        out = buffer.view(-1)[: len(a) * len(b)].view(len(a), len(b))
        torch.addmm(out, a, b.T, beta=0, alpha=self.scale, out=out)
        return out.exp_() if self.plain else out

    def empty(self, like: Tensor, rows: int) -> Tensor:
        """The sum of nothing, or its logarithm."""
        return like.new_full((rows,), self.nothing)

    def accumulate(self, total: Tensor, block: Tensor, dim: int) -> None:
        """Add the block's rows (dim 1) or columns (dim 0) to their running sums, in place."""
        if self.plain:
            total.add_(block.sum(dim=dim))
        else:
            torch.logaddexp(total, block.logsumexp(dim=dim), out=total)

    def close(self, total: Tensor) -> Tensor:
        """Log-sum-exp of each row; 0 for a row whose every term was excluded, so that it stays finite."""
        lse = total.log() if self.plain else total
        return lse.masked_fill(lse == -math.inf, 0.0)

    def weigh(self, block: Tensor, row_lse: Tensor, row: Tensor, col_lse: Tensor, col: Tensor, out: Tensor) -> Tensor:
        """row_i softmax over the row + col_j softmax over the column; `block` itself is left as it is."""
        out = out.view(-1)[: block.numel()].view_as(block)
        if self.plain:
            weights = torch.add((row * (-row_lse).exp())[:, None], (col * (-col_lse).exp())[None, :], out=out)
            return weights.mul_(block)
        over_row = torch.sub(block, row_lse[:, None], out=out).exp_().mul_(row[:, None])
        return over_row.add_((block - col_lse[None, :]).exp_().mul_(col[None, :]))


def _grad_of_mates(unit: Tensor, page: Tensor, pages: int, share: Tensor, rows: int) -> Tensor:
    """Gradient, times tau, of -sum_i share_i z_i . (S_i - z_i): both as an anchor and as a positive."""
    grad = torch.empty_like(unit)
    sums = _page_sums(unit, page, pages, rows)
    for i in _blocks(len(unit), rows):
        torch.mul(share[i, None], 2 * unit[i] - sums[page[i]], out=grad[i])
    del sums  # before the second one: both at once would be two more times V x D
    shares = _page_sums(unit, page, pages, rows, share)
    for i in _blocks(len(unit), rows):
        grad[i] -= shares[page[i]]
    return grad


def _page_sums(unit: Tensor, page: Tensor, pages: int, rows: int, weight: Tensor | None = None) -> Tensor:
    """(P, D) sums of the rows of each page, optionally weighted."""
    sums = unit.new_zeros(pages, unit.shape[1])
    for i in _blocks(len(unit), rows):
        sums.index_add_(0, page[i], unit[i] if weight is None else unit[i] * weight[i, None])
    return sums


def _mask_group(block: Tensor, groups: Tensor | None, i: slice, j: slice, nothing: float) -> None:
    """Take pairs of one group out of the block, except each row's own pair."""
    if groups is None:
        return
    same = groups[i, None] == groups[None, j]
    if i == j:
        same.fill_diagonal_(False)
    block.masked_fill_(same, nothing)


def unit_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of norm 1, and the norms (V, 1); a zero row stays zero and has "norm" 1, so its gradient is tame."""
    norm = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    norm = torch.where(norm > _TINY_NORM, norm, 1.0)
    return rows / norm, norm


def _row_dot(a: Tensor, b: Tensor) -> Tensor:
    """(V,) dot products of paired rows, without a V x D product in memory."""
    return torch.bmm(a[:, None, :], b[:, :, None]).view(len(a))


def _through_norm(grad: Tensor, unit: Tensor, norm: Tensor, along: Tensor) -> Tensor:
    """Gradient before normalisation, in place: what points along the row is lost, the rest shrinks by its norm."""
    return grad.addcmul_(unit, along[:, None], value=-1).div_(norm)


def _block_rows(rows: Tensor, chunk_size: int | None) -> int:
    """B: given, or such that a block is a small part of one (V, D) tensor and fits a processor's cache."""
    if chunk_size is None:
        return max(1, min(max(64, math.isqrt(rows.numel() // 8)), 512, len(rows)))
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, not {chunk_size}.")
    return min(chunk_size, max(1, len(rows)))


def _blocks(total: int, rows: int) -> Iterator[slice]:
    return (slice(start, min(start + rows, total)) for start in range(0, total, rows))


def _all_blocks(total: int, rows: int) -> Iterator[tuple[slice, slice]]:
    return ((i, j) for i in _blocks(total, rows) for j in _blocks(total, rows))


def _upper_blocks(total: int, rows: int) -> Iterator[tuple[slice, slice]]:
    return ((i, j) for i, j in _all_blocks(total, rows) if i.start <= j.start)
