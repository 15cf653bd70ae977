"""What each of several processes embeds and validates of its own, put together, is what one alone does."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from stage3.config import Config
from stage3.model import EncoderSpec, Stage3, embedding, validation
from stage3.model.embedding import Embedded
from stage3.peers import Peers
from tests import synthetic


class Part(Peers):
    """One of several that keeps what it would send, and gets nothing back."""

    def gather(self, *rows):
        return list(rows), slice(0, len(rows[0]))


@pytest.fixture(scope="module")
def made():
    config = Config.from_mapping({**synthetic.SMALL, "val_fraction": 0.25, "test_fraction": 0.25})
    data = synthetic.dataset(config)
    spec = EncoderSpec((24,), 20, dim=16, gate_hidden=8, layout_hidden=8)
    return synthetic.under_way(Stage3.initialized(spec, config, seed=0)), data.panel_set


@pytest.mark.parametrize("size", [2, 3, 9])
def test_each_embeds_its_own_chunks_and_all_of_them_are_the_whole(made, size, monkeypatch):
    monkeypatch.setattr(embedding, "EMBED_PAGES", 4)
    model, panel_set = made
    pages = np.random.default_rng(0).permutation(30)
    whole = embedding.embed(model, panel_set, pages)
    parts = [embedding.embed(model, panel_set, pages, peers=Part(rank, size)) for rank in range(size)]
    for field in fields(Embedded):
        joined = torch.cat([getattr(part, field.name) for part in parts])
        torch.testing.assert_close(joined, getattr(whole, field.name))
    sizes = [len(part.rows) for part in parts]
    assert max(sizes) < len(whole.rows) * 2 / size  # shared about evenly: eight chunks


@pytest.mark.parametrize("dropout", [False, True])
def test_each_validates_every_other_batch_once_unless_the_draws_follow_their_order(made, dropout, monkeypatch):
    summed: list[int] = []
    monkeypatch.setattr(Part, "sum_by_name", lambda self, values: summed.append(self.rank) or dict(values))
    config = made[0].config.replace(validation_dropout=dropout)
    model, panel_set = Stage3.initialized(made[0].encoder.spec, config, seed=0), made[1]
    batches = np.array_split(np.arange(20), 5)
    whole = validation.validate(model, panel_set, batches)
    parts = [validation.validate(model, panel_set, batches, peers=Part(rank, 2)) for rank in range(2)]
    assert summed == ([] if dropout else [0, 1])
    for term, weight in config.weights.items():
        assert whole[f"weighted/{term}"] == pytest.approx(weight * whole[f"loss/{term}"])
    assert whole["loss/total"] == pytest.approx(sum(whole[f"weighted/{term}"] for term in config.weights))
    counted = [n for n in whole if n.startswith("active/")]
    assert whole["active/panels"] == int(panel_set.count[:20].sum())
    assert whole["active/silent_batches"] == 0
    assert all(n.startswith(("loss/", "weighted/", "active/")) for n in whole)
    for name in counted:
        found = [part.get(name, 0) for part in parts]
        assert found == [whole[name]] * 2 if dropout else sum(found) == whole[name]
    for name in [n for n in whole if n.startswith("loss/") and n != "loss/total"]:
        assert min(part[name] for part in parts) - 1e-5 <= whole[name] <= max(part[name] for part in parts) + 1e-5
