"""What experiments measure, and on what: test books, other repeats, an exact reference, a key for each data set."""

from __future__ import annotations

from types import SimpleNamespace

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
    steps = [c.step for c in run.checkpoints()]
    assert len(steps) == 3

    def measured(_run, _data, step: int, pages: np.ndarray) -> dict[str, object]:
        asked.append(pages)
        return {"step": step, "metrics": {}}

    monkeypatch.setattr(arms, "_measured", measured)
    monkeypatch.setattr(arms, "_signal", lambda *_: {})
    for best in (steps[0], steps[1], steps[2], None):  # without a validation the last one is the best
        asked.clear()
        known = None if best is None else SimpleNamespace(step=best)
        monkeypatch.setattr(type(run), "best", lambda _, known=known: known)
        record = arms.measure(run, data)
        chosen = steps[-1] if best is None else best
        assert (record["best"]["step"], record["last"]["step"]) == (chosen, steps[-1])
        assert len(asked) == 1 + (chosen != steps[-1])  # nothing is measured twice
        assert record["weights_sha256"] == arms.weights_digest(run, chosen)
    for pages in asked:
        assert pages.tolist() == data.pages("test").tolist() != data.pages("val").tolist()


def test_a_key_is_of_the_settings_and_of_the_data():
    base = Config()
    whole = arms.key_of(base, {"table": "a", "panels": 3})
    assert arms.key_of(base, {"panels": 3, "table": "a"}) == whole
    assert len(whole) == 10  # runs of earlier experiments are found again by it
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


def test_errors_are_of_the_largest_number_whatever_its_sign_and_floats_are_counted_once():
    z = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    errors = chunked_check._errors(lambda z: (-3 * z).sum(dim=1), lambda z: (-4 * z).sum(dim=1), (z,))
    assert errors == pytest.approx((7 / 28, 0.5 / 2))
    page = torch.tensor([1, 0, 1])
    value, gradient, kept = chunked_check._run(lambda z, p: z[p].square().sum(dim=1), (z, page), torch.float32)
    assert value.tolist() == [25, 5, 25]
    torch.testing.assert_close(gradient, torch.tensor([[2.0, 4.0], [12.0, 16.0]], dtype=torch.float64) / 3)
    assert kept == 6  # the three rows that were squared, and not their numbers
