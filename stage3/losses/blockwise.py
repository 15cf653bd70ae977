"""Exact contrastive losses whose memory grows with V, not with V squared.

Shape letters: V rows (panels), D dimension, B rows of one block of the similarity matrix, P pages.

The matrix is visited in B x B blocks and never stored: the forward pass keeps one log-sum-exp per row, the backward
pass forms each block again (the idea of FlashAttention, Dao et al. 2022, arXiv:2205.14135). Four savings bring
the time near that of the bare matrix products:

- z z^T is symmetric, so `supcon` visits only blocks on and above the diagonal, and G + G^T needs one product;
- the positives of an anchor enter only through their sum, which segment sums give without any V x V mask;
- as many blocks as a small multiple of V x D floats holds are kept, the others are formed a second time;
- while exp(1 / tau) is far from float32's limits no maximum is subtracted, so one exponential serves the softmax
  over rows and the softmax over columns. Below `PLAIN_EXP_DOWN_TO` each has its own, shifted by its log-sum-exp.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

PLAIN_EXP_DOWN_TO = 1 / 60
"""Temperature down to which exp(cosine / tau) and a sum of millions of them stay in float32's normal range."""
KEPT_BY_SUPCON, KEPT_BY_INFO_NCE = 2.5, 3.0
"""Floats of blocks kept from forward to backward, for each of the V x D entries of one input."""
LARGEST_BLOCK, GPU_BLOCK = 512, 4096
"""Rows of a block: on a CPU at most what stays in its cache, on a GPU what keeps it busy for longer than a launch."""
_TINY_NORM = 1e-12


class PageIndex(NamedTuple):
    """Pages renumbered, so that sums over them are segment sums.

    Attributes:
        page: (V,) int64, 0 to P - 1.
        counts: (P,) int64 panels of each page.

    Example:
        >>> PageIndex(torch.tensor([0, 0, 1]), torch.tensor([2, 1])).counts.tolist()
        [2, 1]
    """

    page: Tensor
    counts: Tensor


def page_index(page_ids: Tensor | PageIndex) -> PageIndex:
    """The index of (V,) page ids, in any order; one that a caller has already is taken as it is.

    Example:
        >>> page, counts = page_index(torch.tensor([7, 3, 7]))
        >>> page.tolist(), counts.tolist()
        ([1, 0, 1], [1, 2])
    """
    if isinstance(page_ids, PageIndex):
        return page_ids
    _, page, counts = torch.unique(page_ids, return_inverse=True, return_counts=True)
    return PageIndex(page, counts)


def supcon_chunked(z: Tensor, page_ids: Tensor | PageIndex, tau: Tensor, chunk_size: int | None = None) -> Tensor:
    """`losses.supcon`, blockwise: (V,) values, 0 for panels without page mates.

    Args:
        z: (V, D) embeddings of any norm and any floating dtype, computed in float32
            (float64 in float64, for gradient checks).
        page_ids: (V,) int64, or their index.
        tau: 0-dim temperature.
        chunk_size: B; default from V and D.
    """
    page, counts = page_index(page_ids)
    value: Tensor = _SupCon.apply(z, tau, page, counts, _block_rows(z, chunk_size))  # type: ignore[no-untyped-call]
    return value


def info_nce_chunked(
    image: Tensor, text: Tensor, groups: Tensor, tau: Tensor, chunk_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """`losses.info_nce`, blockwise: (M,) values image to text and text to image.

    Args:
        image: (M, D) of any norm and any floating dtype, computed in float32
            (float64 in float64, for gradient checks).
        text: (M, D).
        groups: (M,) int64; rows of one group are not each other's negatives.
        tau: 0-dim temperature.
        chunk_size: B; default from M and D.
    """
    masked = groups if len(page_index(groups)[1]) < len(groups) else None
    rows = _block_rows(image, chunk_size)
    to_text, to_image = _InfoNCE.apply(image, text, tau, masked, rows)  # type: ignore[no-untyped-call]
    return to_text, to_image


class _SupCon(torch.autograd.Function):
    """L_i = lse_i - z_i . (S_i - z_i) / (n_i tau), with S_i the sum over i's page and n_i its number of mates."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, tau: Tensor, page: Tensor, counts: Tensor, rows: int) -> Tensor:
        left, right = _UnitRows(z, rows), _UnitRows(z, rows)
        softmax = _Softmax(float(tau))
        lse = left.scale.new_full((len(z),), softmax.nothing)
        kept, buffer = left.kept(KEPT_BY_SUPCON if any(ctx.needs_input_grad) else 0), left.matrix()
        for n, (i, j, a, b) in enumerate(_pairs(left, right, upper=True)):
            block = softmax.block(a, b, kept[n] if n < len(kept) else buffer)
            if i == j:
                block.fill_diagonal_(softmax.nothing)
            softmax.accumulate(lse[i], block, dim=1)
            if i != j:
                softmax.accumulate(lse[j], block, dim=0)
        lse = softmax.close(lse)

        n_mates = (counts[page] - 1).to(lse.dtype)
        of_mates = torch.empty_like(lse)
        sums = _page_sums(left, page, len(counts))
        for i in left.blocks():
            a = left.block(i)
            of_mates[i] = (a * (sums[page[i]] - a)).sum(dim=1)
        ctx.save_for_backward(z, tau, page, counts, lse, kept)
        ctx.rows = rows
        return torch.where(n_mates > 0, lse - of_mates / (n_mates.clamp(min=1) * tau), 0.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        z, tau, page, counts, lse, kept = ctx.saved_tensors
        left, right = _UnitRows(z, ctx.rows), _UnitRows(z, ctx.rows)
        n_mates = counts[page] - 1
        upstream = torch.where(n_mates > 0, upstream, 0.0) / tau
        with torch.autocast(device_type=z.device.type, enabled=False):
            grad = _grad_of_mates(left, page, len(counts), upstream / n_mates.clamp(min=1))
            softmax = _Softmax(float(tau))
            buffer, other = left.matrix(), left.matrix()
            for n, (i, j, a, b) in enumerate(_pairs(left, right, upper=True)):
                if n < len(kept):
                    block = _fit(kept[n], len(a), len(b))
                else:
                    block = softmax.block(a, b, buffer)
                    if i == j:
                        block.fill_diagonal_(softmax.nothing)
                block = softmax.weigh(block, lse[i], upstream[i], lse[j], upstream[j], other)
                grad[i].addmm_(block, b)
                if i != j:  # a block on the diagonal is symmetric and complete: it counts once
                    grad[j].addmm_(block.T, a)
            radial = left.through_norm(grad)
        return grad.to(z.dtype), -radial / (2 * tau), None, None, None


class _InfoNCE(torch.autograd.Function):
    """Row loss: lse over texts minus the own pair; column loss: lse over images minus the own pair."""

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, text: Tensor, tau: Tensor, groups: Tensor | None, rows: int
    ) -> tuple[Tensor, Tensor]:
        left, right = _UnitRows(image, rows), _UnitRows(text, rows)
        softmax = _Softmax(float(tau))
        over_text, over_image = (left.scale.new_full((len(image),), softmax.nothing) for _ in range(2))
        kept = left.kept(KEPT_BY_INFO_NCE if any(ctx.needs_input_grad) else 0)
        own = torch.empty_like(over_text)
        buffer = left.matrix()
        for n, (i, j, v, t) in enumerate(_pairs(left, right)):
            block = softmax.block(v, t, kept[n] if n < len(kept) else buffer)
            _mask_group(block, groups, i, j, softmax.nothing)
            softmax.accumulate(over_text[i], block, dim=1)
            softmax.accumulate(over_image[j], block, dim=0)
            if i == j:
                own[i] = (v * t).sum(dim=1) / tau
        over_text, over_image = softmax.close(over_text), softmax.close(over_image)
        ctx.save_for_backward(image, text, tau, over_text, over_image, groups, kept)
        ctx.rows = rows
        return over_text - own, over_image - own

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_text: Tensor, to_image: Tensor) -> tuple[Tensor | None, ...]:
        image, text, tau, over_text, over_image, groups, kept = ctx.saved_tensors
        left, right = _UnitRows(image, ctx.rows), _UnitRows(text, ctx.rows)
        to_text, to_image = to_text / tau, to_image / tau
        own = -(to_text + to_image)[:, None]
        with torch.autocast(device_type=image.device.type, enabled=False):
            grad_v, grad_t = text * (own * right.scale), image * (own * left.scale)
            softmax = _Softmax(float(tau))
            buffer, other = left.matrix(), left.matrix()
            for n, (i, j, v, t) in enumerate(_pairs(left, right)):
                if n < len(kept):
                    block = _fit(kept[n], len(v), len(t))
                else:
                    block = softmax.block(v, t, buffer)
                    _mask_group(block, groups, i, j, softmax.nothing)
                block = softmax.weigh(block, over_text[i], to_text[i], over_image[j], to_image[j], other)
                grad_v[i].addmm_(block, t)
                grad_t[j].addmm_(block.T, v)
            radial, _ = left.through_norm(grad_v), right.through_norm(grad_t)
        return grad_v.to(image.dtype), grad_t.to(text.dtype), -radial / tau, None, None


class _UnitRows:
    """Rows of norm 1 by blocks: of the input's size only the inverse norms are stored."""

    def __init__(self, raw: Tensor, rows: int) -> None:
        dtype = torch.promote_types(raw.dtype, torch.float32)
        self.raw, self.rows, self.scale = raw, rows, 1 / _safe_norm(raw, dtype)
        self.buffer = raw.new_empty(rows, raw.shape[1], dtype=dtype)

    def blocks(self) -> Iterator[slice]:
        """Slices of at most `rows` rows."""
        return (slice(start, min(start + self.rows, len(self.raw))) for start in range(0, len(self.raw), self.rows))

    def block(self, i: slice) -> Tensor:
        """(B, D) unit rows, valid until the next call."""
        return torch.mul(self.raw[i], self.scale[i], out=self.buffer[: i.stop - i.start])

    def matrix(self) -> Tensor:
        """A fresh buffer for one block of the similarity matrix."""
        return self.buffer.new_empty(self.rows, self.rows)

    def kept(self, floats_per_entry: float) -> Tensor:
        """(n, B, B) memory for the first n blocks, of about so many floats for each entry of the rows."""
        room = int(floats_per_entry * self.raw.numel() / self.rows**2)
        pairs = math.ceil(len(self.raw) / self.rows) ** 2
        return self.buffer.new_empty(min(room, pairs), self.rows, self.rows)

    def through_norm(self, grad: Tensor) -> Tensor:
        """Turn a gradient at the unit rows into one at the raw rows, in place; returns its sum along the rows."""
        radial = grad.new_zeros(())
        for i in self.blocks():
            unit = self.block(i)
            along = (unit * grad[i]).sum(dim=1, keepdim=True)
            grad[i].addcmul_(unit, along, value=-1).mul_(self.scale[i])
            radial += along.sum()
        return radial


class _Softmax:
    """How blocks of logits are exponentiated and summed at one temperature."""

    def __init__(self, tau: float) -> None:
        self.scale = 1 / tau
        self.plain = tau >= PLAIN_EXP_DOWN_TO
        self.nothing = 0.0 if self.plain else -math.inf  # what an excluded pair holds in a block

    def block(self, a: Tensor, b: Tensor, buffer: Tensor) -> Tensor:
        """exp(logits) where that is safe, else logits, of rows `a` against rows `b`, written into `buffer`."""
        out = _fit(buffer, len(a), len(b))
        torch.addmm(out, a, b.T, beta=0, alpha=self.scale, out=out)
        return out.exp_() if self.plain else out

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
        out = _fit(out, *block.shape)
        if self.plain:
            weights = torch.add((row * (-row_lse).exp())[:, None], (col * (-col_lse).exp())[None, :], out=out)
            return weights.mul_(block)
        over_row = torch.sub(block, row_lse[:, None], out=out).exp_().mul_(row[:, None])
        return over_row.add_((block - col_lse[None, :]).exp_().mul_(col[None, :]))


def _grad_of_mates(unit: _UnitRows, page: Tensor, pages: int, share: Tensor) -> Tensor:
    """Gradient, times tau, of -sum_i share_i z_i . (S_i - z_i): both as an anchor and as a positive."""
    grad = torch.empty_like(unit.raw, dtype=unit.buffer.dtype)
    sums = _page_sums(unit, page, pages)
    for i in unit.blocks():
        torch.mul(share[i, None], 2 * unit.block(i) - sums[page[i]], out=grad[i])
    del sums  # before the second one: both at once would be two more times V x D
    shares = _page_sums(unit, page, pages, share)
    for i in unit.blocks():
        grad[i] -= shares[page[i]]
    return grad


def _page_sums(unit: _UnitRows, page: Tensor, pages: int, weight: Tensor | None = None) -> Tensor:
    """(P, D) sums of the unit rows of each page, optionally weighted."""
    sums = unit.buffer.new_zeros(pages, unit.raw.shape[1])
    for i in unit.blocks():
        a = unit.block(i)
        sums.index_add_(0, page[i], a if weight is None else a * weight[i, None])
    return sums


def _fit(buffer: Tensor, rows: int, columns: int) -> Tensor:
    """The start of a buffer as a contiguous (rows, columns) matrix: the last blocks are smaller."""
    return buffer.view(-1)[: rows * columns].view(rows, columns)


def _mask_group(block: Tensor, groups: Tensor | None, i: slice, j: slice, nothing: float) -> None:
    """Take pairs of one group out of the block, except each row's own pair."""
    if groups is None:
        return
    same = groups[i, None] == groups[None, j]
    if i == j:
        same.fill_diagonal_(False)
    block.masked_fill_(same, nothing)


def unit_rows(rows: Tensor) -> Tensor:
    """Rows of norm 1; a zero row stays zero, with a tame gradient."""
    return rows / _safe_norm(rows, rows.dtype)


def _safe_norm(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """(V, 1) norms, 1 for rows that are zero."""
    norm = torch.linalg.vector_norm(rows, dim=1, keepdim=True, dtype=dtype)
    return torch.where(norm > _TINY_NORM, norm, 1.0)


def _pairs(left: _UnitRows, right: _UnitRows, upper: bool = False) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """All pairs of blocks with their unit rows, row by row; `upper` leaves out what lies below the diagonal."""
    for i in left.blocks():
        a = left.block(i)
        for j in right.blocks():
            if not upper or j.start >= i.start:
                yield i, j, a, right.block(j)


def _block_rows(rows: Tensor, chunk_size: int | None) -> int:
    """B: given, or on a CPU such that the buffers are a small part of one (V, D) tensor and fit its cache."""
    if chunk_size is None and rows.device.type != "cpu":
        chunk_size = GPU_BLOCK
    if chunk_size is None:
        chunk_size = min(LARGEST_BLOCK, max(64, min(len(rows) // 8, math.isqrt(rows.numel() // 8))))
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, not {chunk_size}.")
    return min(chunk_size, max(1, len(rows)))
