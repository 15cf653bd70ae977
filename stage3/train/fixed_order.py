"""Sums in a fixed order: on a GPU many threads add to one place, and without asking who is first is left to chance."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from stage3.features.loading import WORKSPACE


@contextmanager
def fixed_order(device: torch.device, *, strict: bool = True) -> Iterator[None]:
    """Equal inputs give equal bits on this device, within one version of torch and one kind of GPU.

    A processor with one number of threads does so anyway. See https://docs.pytorch.org/docs/stable/notes/randomness.html

    Args:
        device: where the sums are.
        strict: an operation for which a GPU has no such form is a RuntimeError that names it. Otherwise it stays as it
            is, with a warning: nobody knows all operations of a backbone. So it is, too, in a process that used the GPU
            before anything here chose it, for then it is too late to ask cuBLAS.
    """
    if device.type != "cuda":
        yield
        return
    strict = strict and WORKSPACE in os.environ  # `usable_device` has set it, unless it was too late
    asked, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=not strict)
    memory.fill_uninitialized_memory = False  # nothing here reads what it has not written
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(asked, warn_only=warned)
        memory.fill_uninitialized_memory = filled
