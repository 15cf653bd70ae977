"""Gradients of one batch that several processes share; run by `tests/train/test_together.py`, once for each process."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from stage3.batches import PanelSet, generator
from stage3.batches.dataset import Dataset
from stage3.config import Config
from stage3.model import EncoderSpec, validation
from stage3.model.finetune import Tuned
from stage3.model.objectives import Stage3, sums
from stage3.peers import ALONE, Peers, joined
from stage3.train.trainer import Totals
from tests import synthetic

BASE = {**synthetic.SMALL, "dropout": 0.0, "feature_noise": 0.0}
VARIANTS: dict[str, dict[str, object]] = {
    "corrected": {},
    "plain": {"form": "plain"},
    "every panel": {"leave_one_out": True},
    "learned temperatures": {"learn_temperature": True},
    "zeros averaged in": {"singleton_anchors": True},
    "epsilon": {"log_epsilon": 1e-6},
    "image to text": {"symmetric_alignment": False, "asymmetric_form": "i2t"},
    "text to image": {"symmetric_alignment": False, "asymmetric_form": "t2i"},
    "averaged logits": {"symmetric_alignment": False, "asymmetric_form": "averaged_logits"},
    "identical texts": {"identical_text_negatives": True},
    "target not detached": {"detach_target": False},
    "context detached": {"detach_context": True},
    "leak": {"residual_leak": True},
    "batch means": {"batch_means": True},
    "contrastive alone": {"reconstruction_weight": 0.0, "alignment_weight": 0.0},
    "reconstruction alone": {"contrastive_weight": 0.0, "alignment_weight": 0.0, "reconstruction_weight": 1.0},
    "alignment alone": {"contrastive_weight": 0.0, "reconstruction_weight": 0.0},
    "small temperature": {"contrastive_temperature": 0.015, "alignment_temperature": 0.015},
}


def world() -> Dataset:
    """Uneven pages; texts that two panels share; a page whose only panel has no text comes first."""
    data = synthetic.dataset(books=30, single=0.3, textless=0.4)
    data.features.text_rows[data.features.text_rows == 7] = 3
    return data


def batches(panels: PanelSet) -> dict[str, np.ndarray]:
    """Batches by what is hard about them for several processes."""
    count = panels.usable_count
    pairs = panels.pairs
    textless = np.flatnonzero((pairs == 0) & (count > 1))[:3]
    paired = np.flatnonzero(pairs > 1)[:2]
    single = np.flatnonzero(count == 1)
    return {
        "uneven": np.array([11, 4, 30, 2, 25, 17, 8]),
        "one page": np.array([paired[0]]),
        "two pages": paired,
        "pairs in one process": np.concatenate([paired, textless]),
        "no text": textless,
        "pages of one panel": single[:5],
        "no signal": single[pairs[single] == 0][:4],
        "blockwise": np.arange(len(count)),
    }


def model_of(settings: dict[str, object], data: Dataset) -> Stage3:
    """A model whose every weight differs from its start, so that nothing is 0 by construction."""
    config = Config().replace(**{**BASE, **settings})
    spec = EncoderSpec.of(config, data.features.image_sizes, data.features.text_dim)
    return synthetic.under_way(Stage3.initialized(spec, config, seed=5)).eval()


def outcome(model: Stage3, data: Dataset, pages: np.ndarray, peers: Peers, precision: str = "float32") -> dict:
    """What an optimizer step would see: gradients by name, and the row of metrics."""
    model.zero_grad(set_to_none=True)
    batch = data.panel_set.batch(pages, peers)
    draw = None if model.config.leave_one_out else generator(3, "mask", 1)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        step = model(batch, draw)
    if step.has_signal:
        step.total.backward()
        peers.sum_gradients(model.parameters())
    totals = Totals()
    totals.add(step, peers, by_batch=model.config.batch_means)
    row = {k: v for k, v in totals.row(model.weights).items() if k.startswith(("loss/", "active/"))}
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    means = {name: value / max(n, 1) for name, (value, n) in sums(step, peers).items()}
    return {"gradients": gradients, "row": row, "means": means, "signal": step.has_signal}


def tuned_outcome(peers: Peers) -> dict:
    """Gradients of trained backbones and of what is behind them, on pages of the samples; the means after a step."""
    settings = {**BASE, "finetune": "both", "finetune_checkpointing": True, "workers": 0}
    config = Config(data="data/samples", limit_pages=14, val_fraction=0.0, test_fraction=0.0).replace(**settings)
    data = Dataset.load(config, progress=False)
    tuned = Tuned(config, data, torch.device("cpu"))
    spec = EncoderSpec.of(config, data.features.image_sizes, data.features.text_dim)
    model = synthetic.under_way(Stage3.initialized(spec, config, seed=5)).eval()
    pages = data.pages("train")
    batch = data.panel_set.batch(pages, peers)
    own = peers.own_share(pages, data.panel_set.count[pages])
    step = model(tuned(batch, [crop for page in own for crop in tuned.crops.of_page(int(page))]), generator(3, "mask"))
    step.total.backward()
    both = torch.nn.ModuleList([model, tuned])
    peers.sum_gradients(both.parameters())
    gradients = {name: p.grad.clone() for name, p in both.named_parameters() if p.grad is not None}
    assert any("backbone-image" in name for name in gradients)
    means = {name: value / max(n, 1) for name, (value, n) in sums(step, peers).items()}
    seen = tuned.panel_set(pages, peers).batch(pages)
    means |= {"image": float(seen.image.double().square().sum()), "text": float(seen.text.double().square().sum())}
    return {"gradients": gradients, "row": {}, "means": means, "signal": step.has_signal}


def everything(peers: Peers) -> dict[str, dict]:
    """Outcomes of every variant on the uneven batch, and of the corrected one on every batch, in bf16 too."""
    data = world()
    of = batches(data.panel_set)
    found = {}
    for name, settings in VARIANTS.items():
        for kind in of if name in ("corrected", "averaged logits") else ("uneven", "two pages"):
            found[f"{name} / {kind}"] = outcome(model_of(settings, data), data, of[kind], peers)
    found["trained backbones / samples"] = tuned_outcome(peers)
    found["bf16 / uneven"] = outcome(model_of({}, data), data, of["uneven"], peers, "bf16")
    model, pages = model_of({}, data), data.pages("val")
    fixed = [pages[:3], pages[3:5], pages[5:]]
    found["validation"] = validation.validate(model, data.panel_set, fixed, peers=peers)
    noisy = model_of({"validation_dropout": True, "validation_random_mask": True, "dropout": 0.3}, data)
    found["noisy validation"] = validation.validate(noisy, data.panel_set, fixed, noise_seed=4, peers=peers)
    many = np.arange(len(data.panel_set.count))
    found["metrics"], embedded = validation.all_metrics(model, data.panel_set, many, peers=peers)
    found["embedded"] = {"panel": embedded.panel, "rows": embedded.rows, "present": embedded.present}
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined() as together:
        assert together != ALONE
        made = everything(together)
        torch.save(made, Path(sys.argv[1]) / f"{together.rank}.pt")
