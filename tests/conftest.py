"""One thread everywhere: the tests share two cores, and results must not depend on how many there are."""

import os
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_thread_again() -> Iterator[None]:
    """Commands set the threads of their run: whatever a test leaves behind, the next one begins with one."""
    yield
    torch.set_num_threads(1)
