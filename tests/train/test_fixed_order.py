"""Training asks a GPU for sums in a fixed order, and leaves torch as it was. What that gives is seen where one is."""

from __future__ import annotations

import os

import pytest
import torch

from stage3.features.loading import WORKSPACE, usable_device
from stage3.train.fixed_order import fixed_order
from stage3.train.trainer import Trainer
from tests import synthetic

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def state() -> tuple[bool, bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )


@pytest.mark.parametrize("strict", [True, False])
def test_a_gpu_is_asked_for_it_and_torch_is_left_as_it_was(strict, monkeypatch):
    monkeypatch.setenv(WORKSPACE, ":4096:8")
    before = state()

    def work() -> None:
        with fixed_order(torch.device("cuda"), strict=strict):
            assert state() == (True, not strict, False)
            raise KeyError

    try:
        for asked in (True, False):
            torch.use_deterministic_algorithms(asked, warn_only=False)
            found = state()
            with pytest.raises(KeyError):
                work()
            assert state() == found
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def test_choosing_a_gpu_asks_cublas_before_its_first_product_and_choosing_a_processor_does_not(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name in ("cpu", "auto", "cuda:0"):
        monkeypatch.delenv(WORKSPACE, raising=False)
        assert usable_device(name) == ("cuda" if name == "auto" else name)
        assert (WORKSPACE in os.environ) == (name != "cpu")
    monkeypatch.setenv(WORKSPACE, ":16:8")  # who has chosen knows
    usable_device("auto")
    assert os.environ[WORKSPACE] == ":16:8"


def test_a_gpu_that_was_used_before_it_was_chosen_is_no_error(monkeypatch):
    monkeypatch.delenv(WORKSPACE, raising=False)
    for name, found in (("is_available", True), ("device_count", 1), ("is_initialized", True)):
        monkeypatch.setattr(torch.cuda, name, lambda found=found: found)
    for _ in range(2):
        assert usable_device("cuda") == "cuda"
        assert WORKSPACE not in os.environ  # cuBLAS has looked already
        with fixed_order(torch.device("cuda")):
            assert state() == (True, True, False)


def test_a_processor_is_left_alone(monkeypatch):
    monkeypatch.delenv(WORKSPACE, raising=False)
    before = state()
    with fixed_order(torch.device("cpu")):
        assert state() == before
    assert WORKSPACE not in os.environ


@pytest.mark.parametrize(("finetune", "strict"), [("none", True), ("text", False)])
def test_training_is_strict_unless_a_backbone_is_trained(finetune, strict, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setenv(WORKSPACE, ":4096:8")
    run = synthetic.run(tmp_path / "run", epochs=1)
    trainer = Trainer(run, synthetic.dataset(run.config))
    trainer.tuned = None if finetune == "none" else object()
    monkeypatch.setattr(trainer, "_fit", lambda _: asked.append(state()))
    trainer.device = torch.device("cuda")
    trainer.fit(lambda: False)
    assert asked == [(True, not strict, False)]


@gpu
def test_equal_runs_on_a_gpu_are_equal_bit_for_bit(tmp_path):
    weights = []
    for name in ("first", "second"):
        run = synthetic.run(tmp_path / name, epochs=2, device="cuda")
        trainer = Trainer(run, synthetic.dataset(run.config))
        with run.lock():
            trainer.fit(lambda: False)
        weights.append(trainer.model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(*(w.values() for w in weights), strict=True))
