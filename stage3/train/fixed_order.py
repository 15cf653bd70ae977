"""Sums in a fixed order: on a GPU many threads add to one place, and without asking who is first is left to chance."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# cuBLAS reads it when a process first multiplies matrices; with it a product of equal inputs is always the same.
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def fixed_order(device: torch.device, *, strict: bool = True) -> Iterator[None]:
    """Equal inputs give equal bits on this device, within one version of torch and one kind of GPU.

    A processor with one number of threads does so anyway. See https://docs.pytorch.org/docs/stable/notes/randomness.html

    Args:
        device: where the sums are.
        strict: an operation for which a GPU has no such form is a RuntimeError that names it. Otherwise it stays as it
            is, with a warning: nobody knows all operations of a backbone.
    """
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault(WORKSPACE, ":4096:8")
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
