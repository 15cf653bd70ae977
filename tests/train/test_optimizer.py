"""The optimizer by hand on two small matrices: rates, decay, clipping by scope, and what a checkpoint holds of it."""

import math

import pytest
import torch
from torch import nn

from stage3.config import Config
from stage3.errors import StorageError
from stage3.train.optimizer import (
    check_optimizer,
    clip,
    clip_backbones,
    learning_rate,
    make_optimizer,
    optimizer_tensors,
    peak_rate,
    restore_optimizer,
    set_learning_rate,
)


class Model(nn.Module):
    """What is learned: a matrix, a bias and a strength in the encoder, and a head beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Module()
        self.encoder.weight = nn.Parameter(torch.full((2, 3), 0.5))
        self.encoder.bias = nn.Parameter(torch.ones(2))
        self.encoder.strength = nn.Parameter(torch.tensor(0.25))
        self.head = nn.Parameter(torch.full((1, 4), 2.0))
        self.still = nn.Parameter(torch.ones(2, 2), requires_grad=False)


def with_gradients(model: Model) -> Model:
    """Norms 6 (matrix), 2 (bias) and 3 (strength): 7 in the encoder; 24 in the head; 25 together."""
    model.encoder.weight.grad = torch.zeros(2, 3).index_fill_(1, torch.tensor([1]), 6 / math.sqrt(2))
    model.encoder.bias.grad = torch.tensor([0.0, -2.0])
    model.encoder.strength.grad = torch.tensor(3.0)
    model.head.grad = torch.full((1, 4), 12.0)
    return model


def norms(model: Model) -> tuple[float, float]:
    encoder = [p.grad for p in model.encoder.parameters()]
    return float(nn.utils.get_total_norm(encoder)), float(model.head.grad.norm())


@pytest.mark.parametrize(
    ("scope", "encoder", "head"),
    [("all", 7 * 5 / 25, 24 * 5 / 25), ("encoder", 5, 24), ("separate", 5, 5), ("none", 7, 24)],
)
def test_each_scope_clips_what_it_names_and_the_norm_is_that_before(scope, encoder, head):
    model = with_gradients(Model())
    assert clip(model, Config(grad_clip=5.0, clip_scope=scope)) == pytest.approx(25)
    assert norms(model) == pytest.approx((encoder, head), rel=1e-5)
    model = with_gradients(Model())
    clip(model, Config(grad_clip=50.0, clip_scope=scope))
    assert norms(model) == pytest.approx((7, 24))  # nothing is made longer
    backbones = nn.Linear(1, 2)
    backbones.weight.grad = torch.tensor([[8.0], [6.0]])
    assert clip_backbones(backbones, Config(grad_clip=5.0, clip_scope=scope)) == pytest.approx(10)
    assert float(backbones.weight.grad.norm()) == pytest.approx(10 if scope == "none" else 5, rel=1e-5)


def test_matrices_and_strengths_decay_and_groups_with_a_rate_keep_their_share():
    model, other = Model(), nn.Parameter(torch.ones(3))
    group = {"params": [other], "weight_decay": 0.5, "rate": 0.004}
    optimizer = make_optimizer(model, Config(weight_decay=0.125, lr=0.01), [group])
    encoder = model.encoder
    expected = [([encoder.weight, encoder.strength, model.head], 0.125), ([encoder.bias], 0.0), ([other], 0.5)]
    for found, (parameters, decay) in zip(optimizer.param_groups, expected, strict=True):
        assert {id(p) for p in found["params"]} == {id(p) for p in parameters}
        assert found["weight_decay"] == decay
        assert found["lr"] == 0.01
    set_learning_rate(optimizer, 0.002, peak=0.008)
    assert [g["lr"] for g in optimizer.param_groups] == [0.002, 0.002, pytest.approx(0.001)]


@pytest.mark.parametrize(("panels", "peak"), [(0, 0.0), (250, 0.03125), (500, 0.125), (1000, 0.5), (4000, 0.5)])
def test_the_peak_falls_with_the_square_of_few_panels(panels, peak):
    assert peak_rate(Config(lr=0.5, lr_panels=1000), panels) == peak
    assert peak_rate(Config(lr=0.5, lr_panels=0), panels) == 0.5


def test_rates_of_every_step_of_a_small_run():
    config = Config(warmup=0.2)
    rates = [learning_rate(step, 10, config, 8.0) for step in range(1, 12)]
    cosine = [4 * (1 + math.cos(math.pi * k / 8)) for k in range(1, 9)]
    assert rates == pytest.approx([4.0, 8.0, *cosine, 0.0])
    assert cosine[-1] == 0
    assert learning_rate(1, 1, Config(warmup=0.0), 8.0) == 0  # the last step of a run of one
    assert learning_rate(1, 3, Config(warmup=0.0), 8.0) == pytest.approx(6.0)
    assert learning_rate(2, 2, Config(warmup=0.9), 8.0) == 8.0
    assert learning_rate(2, 1, Config(warmup=0.9), 8.0) == 0  # a run of one step, all of it warm-up


def stepped() -> tuple[Model, torch.optim.AdamW]:
    model = Model()
    optimizer = make_optimizer(model, Config(lr=0.1))
    for _ in range(3):
        with_gradients(model)
        optimizer.step()
    return model, optimizer


def test_a_restored_optimizer_makes_the_same_next_step():
    model, optimizer = stepped()
    tensors = optimizer_tensors(model, optimizer)
    names = ("encoder.weight", "encoder.bias", "encoder.strength", "head")
    assert set(tensors) == {f"{key}/{name}" for key in ("step", "exp_avg", "exp_avg_sq") for name in names}
    assert {float(v) for k, v in tensors.items() if k.startswith("step/")} == {3.0}
    again = Model()
    again.load_state_dict(model.state_dict())
    other = make_optimizer(again, Config(lr=0.1))
    restore_optimizer(again, other, tensors)
    for one, o in ((model, optimizer), (again, other)):
        with_gradients(one)
        o.step()
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    # both are copies: neither the file's tensors nor the restored state moves with the other
    assert float(tensors["step/head"]) == 3
    assert float(other.state[again.head]["step"]) == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"exp_avg/nobody": torch.zeros(2)}, "'nobody', which this model does not have"),
        ({"exp_avg/head": torch.zeros(4)}, r"exp_avg/head' of shape \(4,\)"),
        ({"step/head": torch.zeros(1)}, r"step/head' of shape \(1,\)"),
        ({"momentum/head": torch.zeros(1, 4)}, "momentum/head"),
        ({"exp_avg_sq/head": torch.tensor([[0.0, 0.0, math.inf, 0.0]])}, "exp_avg_sq/head"),
        ({"exp_avg/head": None}, "'head' lacks exp_avg$"),
        ({"exp_avg/head": None, "step/head": None}, "'head' lacks (step, exp_avg|exp_avg, step)$"),
    ],
)
def test_the_state_of_another_optimizer_is_refused_by_name(change, said):
    model, optimizer = stepped()
    tensors = {k: v for k, v in (optimizer_tensors(model, optimizer) | change).items() if v is not None}
    with pytest.raises(StorageError, match=said):
        check_optimizer(model, tensors)
    check_optimizer(model, {})  # a run that begins has none


def test_adamw_without_the_compiler_makes_the_steps_of_torchs_own():
    generator = torch.Generator().manual_seed(0)
    gradients = [[torch.randn(s, generator=generator) for s in ((4, 3), (4,))] for _ in range(5)]
    start = nn.Linear(3, 4).state_dict()
    config = Config(lr=0.01, weight_decay=0.3)

    def trained(own: bool) -> dict[str, torch.Tensor]:
        model = nn.Linear(3, 4)
        model.load_state_dict(start)
        optimizer = make_optimizer(model, config)
        if not own:
            optimizer = torch.optim.AdamW(
                [{"params": [model.weight], "weight_decay": 0.3}, {"params": [model.bias], "weight_decay": 0.0}],
                lr=0.01,
                fused=True,
            )
        for pair in gradients:
            optimizer.zero_grad()
            assert model.weight.grad is None
            model.weight.grad, model.bias.grad = (g.clone() for g in pair)
            with torch.enable_grad():
                optimizer.step()
        assert model.weight.grad_fn is None
        return model.state_dict()

    own, torchs = trained(own=True), trained(own=False)
    assert all(torch.equal(own[name], torchs[name]) for name in start)
    assert not any(torch.equal(own[name], start[name]) for name in start)
