"""What experiments measure, and on what: test books, other repeats, an exact reference, a key for each data set."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stage3.ablate import arms, chunked_check, noise
from stage3.config import Config
from stage3.model import embedding
from stage3.train.trainer import Trainer
from tests import synthetic


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of two epochs and its data."""
    run = synthetic.run(tmp_path_factory.mktemp("measured") / "run", keep_checkpoints=0)
    data = synthetic.dataset(run.config)
    with run.lock():
        Trainer(run, data).fit(lambda: False)
    return run, data


def test_evidence_is_measured_on_the_test_books(made, monkeypatch):
    run, data = made
    asked: list[np.ndarray] = []

    def measured(_run, _data, step: int, pages: np.ndarray) -> dict[str, object]:
        asked.append(pages)
        return {"step": step, "metrics": {}}

    monkeypatch.setattr(arms, "_measured", measured)
    monkeypatch.setattr(arms, "_signal", lambda *_: {})
    arms.measure(run, data)
    assert asked
    for pages in asked:
        assert pages.tolist() == data.pages("test").tolist() != data.pages("val").tolist()


def test_a_key_is_of_the_settings_and_of_the_data():
    base = Config()
    whole = arms.key_of(base, {"table": "a", "panels": 3})
    assert arms.key_of(base, {"panels": 3, "table": "a"}) == whole
    others = [
        arms.key_of(base, {"table": "b", "panels": 3}),
        arms.key_of(base, {"table": "a", "panels": 4}),
        arms.key_of(base.replace(lr=0.5), {"table": "a", "panels": 3}),
    ]
    assert len({whole, *others}) == 4
    assert arms.key_of(base.replace(seed=5), {"table": "a", "panels": 3}) == whole


def test_repeats_of_a_noisy_validation_differ_and_those_of_a_clean_one_do_not(made):
    run, data = made
    totals = noise.repeat_validation(run, data, repeats=3)
    epochs = len([c for c in run.checkpoints() if c.step > 0])
    assert {cause: values.shape for cause, values in totals.items()} == dict.fromkeys(noise.CAUSES, (epochs, 3))
    for cause, values in totals.items():
        different = [len(set(row.tolist())) for row in values]
        assert different == [1 if cause == "none" else 3] * epochs, cause


def test_the_reference_of_the_chunked_losses_is_more_exact_than_float32(made):
    run, data = made
    found = chunked_check.errors_and_memory(embedding.embed(run.model(), data.panel_set, data.pages("all")))
    for name in ("loss_error", "gradient_error"):
        for variant in ("dense", "chunked"):
            assert 1e-9 < found[f"chunked/{name}/{variant}"] < 1e-4, name  # float32 against itself would be 0
    assert found["chunked/floats_a_panel/chunked"] < found["chunked/floats_a_panel/dense"]
    assert torch.get_default_dtype() == torch.float32
