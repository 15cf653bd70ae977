"""The optimizer's pieces: decay groups, the schedule as a function of the step, one clip, and its state as tensors."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn, optim

from stage3.config import Config
from stage3.errors import StorageError


class AdamW(optim.AdamW):
    """torch's AdamW without its compiler, which nothing here uses and which takes two seconds to import.

    torch wraps these methods to say that they must not be compiled, and imports the compiler to say so. Here is what
    they wrap; the numbers are the same.
    """

    add_param_group = inspect.unwrap(optim.AdamW.add_param_group)
    zero_grad = inspect.unwrap(optim.AdamW.zero_grad)
    step = torch.no_grad()(inspect.unwrap(optim.AdamW.step))


ADAMW = ("step", "exp_avg", "exp_avg_sq")  # what AdamW keeps of a parameter


def make_optimizer(model: nn.Module, config: Config, backbones: Sequence[dict[str, Any]] = ()) -> AdamW:
    """AdamW over everything learned; norms, biases and scalars (tensors below two dimensions) do not decay.

    The strengths of anchored adapters do, like the matrices: decay pulls such a model back to its frozen features.

    Args:
        model: everything learned but backbones.
        config: the run's settings.
        backbones: further groups of parameters, each with its own peak learning rate, `rate`
            (`stage3.model.finetune.Tuned.groups`).
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for n, p in named if decays(n, p)], "weight_decay": config.weight_decay},
        {"params": [p for n, p in named if not decays(n, p)], "weight_decay": 0.0},
    ]
    # One kernel for all tensors; a GPU's is left at torch's default, where the loss scaler has its own say.
    on_cpu = all(p.device.type == "cpu" for _, p in named)
    return AdamW([*groups, *backbones], lr=config.lr, fused=True if on_cpu else None)


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay applies to a parameter."""
    return parameter.ndim >= 2 or name.endswith(".strength")


def peak_rate(config: Config, panels: int) -> float:
    """The peak learning rate for so many training panels: `lr`, lowered where there are fewer than `lr_panels`.

    Few panels are soon learned by heart, and what is learned of them does not carry over to other books.

    Example:
        >>> peak_rate(Config(lr=0.01, lr_panels=1000), 500)
        0.0025
    """
    share = min(1.0, panels / config.lr_panels) if config.lr_panels else 1.0
    return config.lr * share**2


def learning_rate(step: int, total_steps: int, config: Config, peak: float) -> float:
    """Linear warm-up, then a cosine to 0 (Loshchilov & Hutter 2017): a function of the step, so nothing to save.

    Args:
        step: the step about to be made, from 1.
        total_steps: steps of the whole run.
        config: gives the share of warm-up.
        peak: the rate at its highest, `peak_rate`.
    """
    warm = round(config.warmup * total_steps)
    if step <= warm:
        return peak * step / warm
    share = (step - warm) / max(total_steps - warm, 1)
    return peak * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def set_learning_rate(optimizer: AdamW, lr: float, peak: float = 1.0) -> None:
    """Use this learning rate for the next step; groups with a `rate` of their own have the same share of that.

    Args:
        optimizer: as `make_optimizer` makes it.
        lr: of this step.
        peak: the highest `lr` of the run.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr / peak * group["rate"] if "rate" in group else lr


def clip(model: nn.Module, config: Config) -> float:
    """Clip gradients to `grad_clip` and return the global norm over everything learned before clipping.

    `clip_scope` other than "all" are ablations: "encoder" misses the reconstruction head and the temperatures,
    "separate" clips the two parts by norms of their own, "none" clips nothing.
    """
    norm = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    if config.clip_scope == "all":
        nn.utils.clip_grads_with_norm_(model.parameters(), config.grad_clip, norm)
    elif config.clip_scope != "none":
        encoder = [p for name, p in model.named_parameters() if name.startswith("encoder.")]
        nn.utils.clip_grad_norm_(encoder, config.grad_clip)
        if config.clip_scope == "separate":
            rest = [p for name, p in model.named_parameters() if not name.startswith("encoder.")]
            nn.utils.clip_grad_norm_(rest, config.grad_clip)
    return float(norm)


def clip_backbones(backbones: nn.Module, config: Config) -> float:
    """Clip the gradients of trained backbones by a norm of their own, which is returned as it was before.

    So their gradients, of another size, do not shorten the steps of everything else.
    """
    learned = [p for p in backbones.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in learned if p.grad is not None])
    if config.clip_scope != "none":
        nn.utils.clip_grads_with_norm_(learned, config.grad_clip, norm)
    return float(norm)


def optimizer_tensors(model: nn.Module, optimizer: AdamW) -> dict[str, Tensor]:
    """AdamW's state by parameter name, as tensors that safetensors can hold."""
    tensors = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{key}/{name}"] = value.detach().clone()
    return tensors


def check_optimizer(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Refuse optimizer state that is not this model's.

    Raises:
        StorageError: a tensor names a parameter that this model does not have, or is no moment of it; or one of a
            parameter's three tensors is missing.
    """
    parameters = dict(model.named_parameters())
    for full_name, value in tensors.items():
        key, _, name = full_name.partition("/")
        if name not in parameters:
            raise StorageError(
                f"optimizer state for {name!r}, which this model does not have: another model's checkpoint"
            )
        shape = torch.Size() if key == "step" else parameters[name].shape
        if key not in ADAMW or value.shape != shape or not bool(value.isfinite().all()):
            raise StorageError(f"optimizer state {full_name!r} of shape {tuple(value.shape)} does not fit this model")
        missing = [k for k in ADAMW if f"{k}/{name}" not in tensors]
        if missing:
            raise StorageError(f"optimizer state for {name!r} lacks {', '.join(missing)}")


def restore_optimizer(model: nn.Module, optimizer: AdamW, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave.

    Raises:
        StorageError: the tensors are not this model's.
    """
    check_optimizer(model, tensors)
    parameters = dict(model.named_parameters())
    for full_name, value in tensors.items():
        key, _, name = full_name.partition("/")
        parameter = parameters[name]
        # AdamW keeps its step count on the CPU, and the moments beside the parameter and in the layout of its memory,
        # which its fused kernel walks through in step
        kept = value.clone() if key == "step" else torch.empty_like(parameter, requires_grad=False).copy_(value)
        optimizer.state[parameter][key] = kept
