"""Whether the blockwise losses equal the ones that hold the full matrix, on a model's own embeddings.

Both are compared with the plain formula in float64, in value and in gradient, and by what they keep for the backward
pass. V panels, D dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stage3 import losses
from stage3.model.embedding import Embedded

TEMPERATURES = (0.07, 0.02)
BLOCK = 64  # rows per block; small enough that a few hundred test panels make several
MEMORY_ROWS = 2048
Loss = Callable[..., Tensor]


def errors_and_memory(embedded: Embedded) -> dict[str, float]:
    """`chunked/{loss_error,gradient_error,floats_a_panel}/{chunked,dense}`: the worse of both losses.

    Errors are the largest difference from float64 over two temperatures, relative to the largest number there. The
    floats are those kept for the backward pass at `MEMORY_ROWS` rows, the same panels over and over.
    """
    rows = embedded.aligned
    pairs = (embedded.image[rows], embedded.text[rows])
    pages = (embedded.panel, embedded.page_ids)
    found: dict[str, float] = {}
    for name, variant in _VARIANTS.items():
        errors = [
            _errors(variant[loss], _VARIANTS["dense"][loss], (*inputs, tau))
            for tau in TEMPERATURES
            for loss, inputs in (("supcon", pages), ("info_nce", pairs))
        ]
        found[f"chunked/loss_error/{name}"] = max(loss for loss, _ in errors)
        found[f"chunked/gradient_error/{name}"] = max(gradient for _, gradient in errors)
        large = [
            _run(
                variant[loss],
                (*(x[torch.arange(MEMORY_ROWS) % len(x)] for x in inputs), TEMPERATURES[0]),
                torch.float32,
            )
            for loss, inputs in (("supcon", pages), ("info_nce", pairs))
        ]
        found[f"chunked/floats_a_panel/{name}"] = max(kept for _, _, kept in large) / MEMORY_ROWS
    return found


def _errors(loss: Loss, exact: Loss, inputs: tuple[Any, ...]) -> tuple[float, float]:
    value, gradient, _ = _run(loss, inputs, torch.float32)
    reference, slope, _ = _run(exact, inputs, torch.float64)
    return (
        float((value - reference).abs().max() / reference.abs().max()),
        float((gradient - slope).abs().max() / slope.abs().max()),
    )


def _run(loss: Loss, inputs: tuple[Any, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor, float]:
    """(V,) values, the gradient of their mean by the first input, and the distinct floats kept for the backward."""
    moved = [x.detach().to(dtype) if torch.is_tensor(x) and x.is_floating_point() else x for x in inputs]
    moved[0] = moved[0].clone().requires_grad_(True)
    kept: dict[int, int] = {}

    def keep(t: Tensor) -> Tensor:
        kept[t.data_ptr()] = max(kept.get(t.data_ptr(), 0), t.numel() if t.is_floating_point() else 0)
        return t

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        value = loss(*moved)
    (gradient,) = torch.autograd.grad(value.mean(), moved[0])
    return value.detach(), gradient, float(sum(kept.values()))


def _supcon_dense(z: Tensor, page: Tensor, tau: float) -> Tensor:
    z = torch.nn.functional.normalize(z, dim=1)
    itself = torch.eye(len(z), dtype=torch.bool)
    log_prob = (z @ z.T / tau).masked_fill(itself, -torch.inf).log_softmax(dim=1)
    mates = losses.page_mates(page)
    return -log_prob.masked_fill(~mates, 0.0).sum(dim=1) / mates.sum(dim=1).clamp(min=1)


def _info_nce_dense(image: Tensor, text: Tensor, tau: float) -> Tensor:
    normal = torch.nn.functional.normalize
    logits = normal(image, dim=1) @ normal(text, dim=1).T / tau
    return -(logits.log_softmax(dim=1).diagonal() + logits.log_softmax(dim=0).diagonal()) / 2


def _supcon_chunked(z: Tensor, page: Tensor, tau: float) -> Tensor:
    return losses.supcon(z, page, tau, chunk_size=BLOCK).value


def _info_nce_chunked(image: Tensor, text: Tensor, tau: float) -> Tensor:
    to_text, to_image = losses.info_nce(image, text, tau, chunk_size=BLOCK)
    return (to_text.value + to_image.value) / 2


_VARIANTS: dict[str, dict[str, Loss]] = {
    "chunked": {"supcon": _supcon_chunked, "info_nce": _info_nce_chunked},
    "dense": {"supcon": _supcon_dense, "info_nce": _info_nce_dense},
}
