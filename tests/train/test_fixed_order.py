"""Training asks a GPU for sums in a fixed order, and leaves torch as it was. What that gives is seen where one is."""

from __future__ import annotations

import os

import pytest
import torch

from stage3.train.fixed_order import WORKSPACE, fixed_order
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
    monkeypatch.delenv(WORKSPACE, raising=False)
    before = state()

    def work() -> None:
        with fixed_order(torch.device("cuda"), strict=strict):
            assert state() == (True, not strict, False)
            assert os.environ[WORKSPACE] == ":4096:8"
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert state() == before
    monkeypatch.delenv(WORKSPACE)  # so that it is not left behind


def test_a_processor_is_left_alone(monkeypatch):
    monkeypatch.delenv(WORKSPACE, raising=False)
    before = state()
    with fixed_order(torch.device("cpu")):
        assert state() == before
    assert WORKSPACE not in os.environ


@pytest.mark.parametrize(("finetune", "strict"), [("none", True), ("text", False)])
def test_training_is_strict_unless_a_backbone_is_trained(finetune, strict, tmp_path, monkeypatch):
    asked = []
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
