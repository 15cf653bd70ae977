"""What experiments measure, and on what: test books, other repeats, an exact reference, a key for each data set."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stage3.ablate import arms, chunked_check, noise
from stage3.ablate.findings import FINDINGS
from stage3.ablate.terms import Arm
from stage3.batches.dataset import Dataset
from stage3.config import Config
from stage3.errors import Interrupted, NumericError
from stage3.model import embedding, validation
from stage3.runs import RunFolder
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


def test_what_is_wanted_beside_belongs_to_both_checkpoints(made, monkeypatch):
    run, data = made
    steps = [c.step for c in run.checkpoints()]
    monkeypatch.setattr(type(run), "best", lambda _: SimpleNamespace(step=steps[1]))
    monkeypatch.setattr(arms, "_measured", lambda _run, _data, step, pages: {"step": step, "metrics": {"own": step}})
    monkeypatch.setattr(arms, "_signal", lambda *_: {"signal/x": 3.0})
    monkeypatch.setattr(noise, "measure", lambda *given: ({"noise/x": 1.0}, [given == (run, data)]))
    monkeypatch.setattr(arms, "errors_and_memory", lambda embedded: {"chunked/x": float(len(embedded.panel))})
    record = arms.measure(run, data, frozenset({"noise", "chunked"}))
    n = len(data.panel_set.rows_of(data.pages("test")))
    also = {"signal/x": 3.0, "noise/x": 1.0, "chunked/x": n}
    assert record["best"]["metrics"] == {"own": steps[1], **also}
    assert record["last"]["metrics"] == {"own": steps[2], **also}
    assert (record["parts"], record["noise"], record["failed"]) == (["chunked", "noise"], [True], "")
    row = run.metrics().query(f"split == 'val' and step == {steps[1]}").iloc[0]
    names = [name for name in row.index if name.startswith(("retrieval/", "reconstruction/", "collapse/"))]
    assert record["val"] == pytest.approx({name: row[name] for name in names}, nan_ok=True)
    assert len(names) > 10


def test_a_data_set_is_read_once_for_all_runs_whose_settings_do_not_reach_it(monkeypatch):
    read = []
    monkeypatch.setattr(Dataset, "load", lambda config, progress: read.append((config, progress)) or len(read))
    arms._dataset.cache_clear()
    base = Config(data="one", lr=0.25)
    for config in (base, base.replace(lr=0.5, epochs=3, batch_pages=9, seed=4)):
        assert arms.dataset_of(config) == 1
    others = [base.replace(data="two"), base.replace(text_parts="dialogue"), base.replace(device="cpu")]
    assert [arms.dataset_of(c) for c in others] == [2, 3, 4]
    assert [(c.data, c.text_parts, c.device, progress) for c, progress in read[:2]] == [
        ("one", base.text_parts, base.device, False),
        ("two", base.text_parts, base.device, False),
    ]
    arms._dataset.cache_clear()


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
    model = synthetic.under_way(run.model())  # images and texts are at right angles when training begins
    embedded = embedding.embed(model, data.panel_set, data.pages("all"))
    assert torch.nn.functional.cosine_similarity(embedded.image, embedded.text).abs().max() > 0.1
    found = chunked_check.errors_and_memory(embedded)
    for name in ("loss_error", "gradient_error"):
        for variant in ("dense", "chunked"):
            assert 1e-9 < found[f"chunked/{name}/{variant}"] < 1e-4, name  # float32 against itself would be 0
    assert found["chunked/floats_a_panel/chunked"] < found["chunked/floats_a_panel/dense"]
    assert torch.get_default_dtype() == torch.float32


def test_the_worst_of_each_variant_against_the_full_matrix_in_float64_counts(made, monkeypatch):
    run, data = made
    asked = []

    def errors(loss, exact, inputs) -> tuple[float, float]:
        asked.append((loss, exact, inputs[-1]))
        return (0.25, 0.5, 0.125, 0.0)[len(asked) % 4], (0.0, 8.0, 4.0, 2.0)[len(asked) % 4]

    monkeypatch.setattr(chunked_check, "_errors", errors)
    found = chunked_check.errors_and_memory(embedding.embed(run.model(), data.panel_set, data.pages("test")))
    assert {found[f"chunked/loss_error/{name}"] for name in ("dense", "chunked")} == {0.5}
    assert {found[f"chunked/gradient_error/{name}"] for name in ("dense", "chunked")} == {8.0}
    assert "at τ {} and {}.".format(*chunked_check.TEMPERATURES) in FINDINGS["S1"].note
    every = chunked_check._VARIANTS
    assert asked == [
        (variant[loss], every["dense"][loss], tau)
        for variant in every.values()
        for tau in chunked_check.TEMPERATURES
        for loss in ("supcon", "info_nce")
    ]


def test_errors_are_of_the_largest_number_whatever_its_sign_and_floats_are_counted_once():
    z = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    errors = chunked_check._errors(lambda z: (-3 * z).sum(dim=1), lambda z: (-4 * z).sum(dim=1), (z,))
    assert errors == pytest.approx((7 / 28, 0.5 / 2))
    page = torch.tensor([1, 0, 1])
    value, gradient, kept = chunked_check._run(lambda z, p: z[p].square().sum(dim=1), (z, page), torch.float32)
    assert value.tolist() == [25, 5, 25]
    torch.testing.assert_close(gradient, torch.tensor([[2.0, 4.0], [12.0, 16.0]]) / 3)
    assert kept == 6  # the three rows that were squared, and not their numbers


def test_sums_are_by_book_of_what_is_defined():
    values = np.array([0.5, np.nan, 0.25, 1.0, np.nan])
    found = arms._by_group(values, np.array(["b", "a", "b", "a", "c"], dtype=object))
    assert found == {"a": [1.0, 1.0], "b": [0.75, 2.0]}


def test_what_is_measured_of_a_checkpoint_is_what_validation_and_evaluation_say(made):
    run, data = made
    step, pages = run.checkpoints()[-1].step, data.pages("test")
    found = arms._measured(run, data, step, pages)
    model = run.model(step)
    row, embedded = validation.all_metrics(model, data.panel_set, pages)
    assert found["step"] == step
    assert {name: found["metrics"][name] for name in row} == pytest.approx(row, nan_ok=True)
    prediction, at = validation.reconstruct(model, embedded)
    errors = [float(((prediction[i] - embedded.panel[j]) ** 2).mean()) for i, j in enumerate(at.tolist())]
    assert found["metrics"]["loss/reconstruction"] == pytest.approx(np.mean(errors), rel=1e-5)
    assert found["metrics"]["diagnose/panels_differ"] in (0.0, 1.0)
    assert len(found["books"]["retrieval/mean_r1"]) == len(set(data.table.pages["book_id"].to_numpy()[pages])) > 1
    for name, sums in found["books"].items():
        total, count = np.sum(list(sums.values()), axis=0)
        assert total / count == pytest.approx(row[name], rel=1e-5), name


def test_signal_is_counted_over_the_sampler_s_steps(made, monkeypatch):
    run, data = made
    epochs = [[[5, 3], [9]], [[9, 5], [3]]]
    sampler = SimpleNamespace(
        pages=np.array([3, 5, 9]), panels=np.array([2, 2, 1]), pairs=np.array([0, 1, 2]), epoch=epochs.__getitem__
    )
    monkeypatch.setattr(arms, "PageSampler", SimpleNamespace(of=lambda *_: sampler))
    assert arms._signal(run.config.replace(epochs=2), data) == {
        "signal/steps_without_alignment": 0.5,  # pairs 1, 2, 3 and 0: two are needed
        "signal/steps_without_anchors": 0.25,
        "signal/aligned_a_step": 0.0,
    }


class Ends:
    """In place of the trainer: it ends as it is told."""

    error: Exception | None = None
    resumed: list[int]

    def __init__(self, run, data) -> None:
        self.run, self.step = run, 12

    def resume(self, loaded) -> None:
        self.resumed.append(loaded.step)

    def fit(self, stop) -> None:
        if self.error:
            raise self.error
        self.run.save_checkpoint(12, {}, {"step": 12})


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """A run to be made of data in memory, measured by its name alone."""
    Ends.error, Ends.resumed = None, []
    monkeypatch.setattr("stage3.train.trainer.Trainer", Ends)
    monkeypatch.setattr(arms, "dataset_of", lambda _: synthetic.dataset())
    monkeypatch.setattr(arms, "measure", lambda run, data, wants: {"parts": sorted(wants), "of": run.path.name})
    config = Config.from_mapping({**synthetic.SMALL, "threads": 1})
    return arms.Plan(Arm("a"), config, tmp_path / "run", "key", "command", frozenset({"noise"}))


def test_a_run_is_made_once_and_again_only_where_more_is_wanted(plan):
    assert arms.record_of(plan) is None
    assert arms.make(plan) == plan.path
    assert arms.record_of(plan) == {"parts": ["noise"], "of": "run"}
    run = RunFolder.load(plan.path)
    assert (run.status.state, run.status.step, run.status.exit_code) == ("finished", 12, 0)
    assert (run.path / "data_report.json").exists()
    assert not (run.path / "checkpoints").exists()  # what was measured needs no weights
    Ends.error = NumericError("never asked")
    assert arms.make(replace(plan, wants=frozenset()), lambda: True) == plan.path
    more = replace(plan, wants=frozenset({"noise", "chunked"}))
    assert arms.record_of(more) is None
    with pytest.raises(Interrupted, match="run: not begun"):
        arms.make(more, lambda: True)
    Ends.error = None
    arms.make(more)
    assert arms.record_of(more)["parts"] == ["chunked", "noise"]


def test_a_run_that_was_stopped_goes_on_and_one_that_diverged_is_a_result(plan):
    Ends.error = Interrupted("stopped after step 3")
    with pytest.raises(Interrupted):
        arms.make(plan)
    run = RunFolder.load(plan.path)
    assert (run.status.state, run.status.message, run.status.exit_code) == ("stopped", "stopped after step 3", 75)
    assert arms.record_of(plan) is None
    run.save_checkpoint(3, {}, {"step": 3})
    run.append_metrics({"step": 3, "epoch": 1, "split": "train"})
    Ends.error = NumericError("three steps")
    arms.make(replace(plan, config=plan.config.replace(checkpoint_every=7)))
    assert Ends.resumed == [3]
    run = RunFolder.load(plan.path)
    assert run.config.checkpoint_every == 7
    assert len(run.metrics()) == 1  # only a run that begins anew forgets its rows
    assert (run.status.state, run.status.exit_code) == ("failed", NumericError.exit_code)
    assert arms.record_of(plan) == {"failed": "three steps"}
