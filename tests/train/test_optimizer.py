"""The optimizer's pieces."""

import torch
from torch import nn

from stage3.config import Config
from stage3.train.optimizer import make_optimizer


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
