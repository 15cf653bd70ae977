"""Log-sum-exp of some rows against all, by blocks: what one of several processes computes of a contrastive loss.

Shape letters: A anchors (the process's own rows), V rows of all processes, D dimension, B rows of a block.

`blockwise` visits a square matrix and saves half of it by symmetry; here each process has a strip of it. Memory grows
with V + A, not with their product: the backward pass forms each block again.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

ROWS, COLUMNS = 256, 1024


def log_sum_exp(anchors: Tensor, rows: Tensor, tau: Tensor, first: int, groups: Tensor | None) -> Tensor:
    """(A,) log-sum-exp over `rows` of cosine / tau, without the pairs that are left out.

    Args:
        anchors: (A, D) float32 rows of norm 1; anchor i stands at row `first` + i.
        rows: (V, D) float32 rows of norm 1.
        tau: 0-dim temperature.
        first: where the anchors stand.
        groups: None leaves out each anchor's own row. Otherwise (V,) int64: rows of the anchor's group are left out
            and its own row stays.

    Returns:
        Log-sum-exp of each anchor; 0 where every row was left out.
    """
    value: Tensor = _LogSumExp.apply(anchors, rows, tau, first, groups)  # type: ignore[no-untyped-call]
    return value


def _logits(a: Tensor, b: Tensor, tau: Tensor, i: slice, j: slice, first: int, groups: Tensor | None) -> Tensor:
    """Logits of one block; left-out pairs are -inf."""
    logits = (a @ b.T).div_(tau)
    own = torch.arange(first + i.start, first + i.stop, device=a.device)
    itself = own[:, None] == torch.arange(j.start, j.stop, device=a.device)[None, :]
    out = itself if groups is None else (groups[own, None] == groups[None, j]) & ~itself
    return logits.masked_fill_(out, -math.inf)


def _blocks(size: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchors: Tensor, rows: Tensor, tau: Tensor, first: int, groups: Tensor | None) -> Tensor:
        lse = anchors.new_full((len(anchors),), -math.inf)
        for i in _blocks(len(anchors), ROWS):
            for j in _blocks(len(rows), COLUMNS):
                block = _logits(anchors[i], rows[j], tau, i, j, first, groups)
                lse[i] = torch.logaddexp(lse[i], block.logsumexp(dim=1))
        lse = lse.masked_fill(lse == -math.inf, 0.0)
        ctx.save_for_backward(anchors, rows, tau, lse, groups)
        ctx.first = first
        return lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        anchors, rows, tau, lse, groups = ctx.saved_tensors
        grad_anchors, grad_rows = torch.zeros_like(anchors), torch.zeros_like(rows)
        with torch.autocast(device_type=rows.device.type, enabled=False):
            for i in _blocks(len(anchors), ROWS):
                for j in _blocks(len(rows), COLUMNS):
                    logits = _logits(anchors[i], rows[j], tau, i, j, ctx.first, groups)
                    share = logits.sub_(lse[i, None]).exp_().mul_(upstream[i, None] / tau)
                    grad_anchors[i].addmm_(share, rows[j])
                    grad_rows[j].addmm_(share.T, anchors[i])
            grad_tau = -(grad_anchors * anchors).sum() / tau
        return grad_anchors, grad_rows, grad_tau, None, None
