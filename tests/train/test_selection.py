"""Which checkpoint is the best: never one below the start, the later of equals, and an average where one is better."""

import math

import pytest
import torch

from stage3.errors import Interrupted
from stage3.runs import RunFolder
from stage3.train.trainer import Outcome, Trainer
from tests import synthetic

SAME_PAGE, R5 = "retrieval/same_page_r_precision", "retrieval/mean_r5"


def without_steps(monkeypatch) -> None:
    """Steps and losses cost nothing: the scripted rows choose, whatever the weights are."""
    monkeypatch.setattr(Trainer, "train_step", lambda *_: Outcome.DONE)
    monkeypatch.setattr("stage3.train.trainer.validation.validate", lambda *_, **__: {})
    monkeypatch.setattr("stage3.train.trainer.validation.gradient_budget", lambda *_: {})


def trained(tmp_path, monkeypatch, rows: list[dict[str, float]], *, steps: bool = False, **settings):
    """A run whose validations find these rows, one before the first step and one per epoch; what it said."""
    if not steps:
        without_steps(monkeypatch)
    said: list[str] = []
    run = synthetic.run(tmp_path / "run", epochs=len(rows) - 1, keep_checkpoints=0, **settings)
    found = iter(rows)
    monkeypatch.setattr("stage3.train.trainer.validation.all_metrics", lambda *_: (next(found), None))
    with run.lock():
        trainer = Trainer(run, synthetic.dataset(run.config), say=said.append)
        trainer.fit(lambda: False)
    return run, trainer.sampler.n_batches, said


def same_page(*values: float) -> list[dict[str, float]]:
    return [{SAME_PAGE: v} for v in values]


def test_the_start_is_validated_and_kept_as_a_checkpoint(tmp_path, monkeypatch):
    run, n, _ = trained(tmp_path, monkeypatch, same_page(0.2, 0.3), steps=True)
    assert run.metrics().query("split == 'val'")["step"].tolist() == [0, n]
    assert [c.step for c in run.checkpoints()] == [0, n]
    start, later = run.model(0), run.model(n)
    assert float(start.encoder.text.strength.detach()) == 0
    assert float(later.encoder.text.strength.detach()) != 0


def test_the_start_is_the_best_where_training_only_loses(tmp_path, monkeypatch):
    run, _, said = trained(tmp_path, monkeypatch, same_page(0.2, 0.19, 0.12), select_margin=0.05)
    best = run.best()
    assert (best.step, best.value, best.metric) == (0, 0.2, SAME_PAGE)
    assert run.checkpoint().step == 0
    assert any("the start is used" in line for line in said)


@pytest.mark.parametrize(
    ("margin", "values", "epoch"),
    [
        (0.0, (0.1, 0.30, 0.28, 0.29), 1),
        (0.0, (0.1, 0.30, 0.30, 0.30), 1),  # without a margin the first of equals, as ever
        (0.015, (0.1, 0.30, 0.28, 0.29), 3),
        (0.015, (0.1, 0.30, 0.29, 0.28), 2),  # measured from the highest, not from the one before
        (0.015, (0.1, 0.30, 0.29, 0.31), 3),
        (0.5, (0.2, 0.30, 0.21, 0.19), 2),  # within the margin, but below the start
    ],
)
def test_the_latest_within_the_margin_of_the_highest_wins(tmp_path, monkeypatch, margin, values, epoch):
    run, n, _ = trained(tmp_path, monkeypatch, same_page(*values), select_margin=margin)
    assert run.best().step == epoch * n
    assert run.best().value == values[epoch]


def test_what_is_below_the_start_may_be_the_best_where_that_is_asked_for(tmp_path, monkeypatch):
    rows = [{SAME_PAGE: s, R5: r} for s, r in ((0.2, 0.1), (0.1, 0.3), (0.05, 0.2))]
    run, n, _ = trained(tmp_path, monkeypatch, rows, select_by=R5, not_below_start=False)
    assert (run.best().step, run.best().value) == (n, 0.3)


def test_another_metric_chooses_among_those_that_are_not_below_the_start(tmp_path, monkeypatch):
    rows = [{SAME_PAGE: s, R5: r} for s, r in ((0.2, 0.0), (0.2, 0.1), (0.19, 0.9), (0.25, 0.05))]
    run, n, _ = trained(tmp_path, monkeypatch, rows, select_by=R5, select_margin=0.0)
    assert (run.best().step, run.best().metric) == (n, R5)


def test_same_page_precision_chooses_where_the_metric_is_not_measured(tmp_path, monkeypatch):
    rows = [{SAME_PAGE: s, R5: math.nan} for s in (0.2, 0.3, 0.25)]
    run, n, said = trained(tmp_path, monkeypatch, rows, select_by=R5, select_margin=0.0)
    assert (run.best().step, run.best().metric) == (n, SAME_PAGE)
    assert any(f"{R5} was not measured" in line for line in said)


def test_a_loss_is_better_when_it_is_lower_and_has_no_margin(tmp_path, monkeypatch):
    """The scripted rows hold no loss of their own, so the real one is compared."""
    settings = {"select_by": "loss/total", "select_margin": 1.0}
    run, _, _ = trained(tmp_path, monkeypatch, same_page(0.1, 0.2, 0.2), steps=True, **settings)
    val = run.metrics().query("split == 'val'").set_index("step")["loss/total"]
    assert run.best().step == val.idxmin()


def test_nothing_measured_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    run, n, said = trained(tmp_path, monkeypatch, [{}, {}, {}])
    assert run.best() is None
    assert run.checkpoint().step == 2 * n
    assert any("the last checkpoint is used" in line for line in said)


def test_patience_counts_from_the_highest_not_from_the_latest_within_the_margin(tmp_path, monkeypatch):
    values = (0.1, 0.30, 0.299, 0.298, 0.297, 0.296)
    run, n, said = trained(tmp_path, monkeypatch, same_page(*values), select_margin=0.01, patience=2)
    assert run.best().step == 3 * n
    assert any("stopped early" in line for line in said)


def test_patience_goes_on_where_a_run_was_stopped(tmp_path, monkeypatch):
    without_steps(monkeypatch)
    found = iter(same_page(0.1, 0.3, 0.2, 0.2, 0.2, 0.2, 0.2))
    monkeypatch.setattr("stage3.train.trainer.validation.all_metrics", lambda *_: (next(found), None))
    run = synthetic.run(tmp_path / "run", epochs=6, patience=2, select_margin=0.0)
    data = synthetic.dataset(run.config)
    with run.lock():
        trainer = Trainer(run, data)
        stopping = iter([False] * (2 * trainer.sampler.n_batches) + [True])
        with pytest.raises(Exception, match="stopped after step"):
            trainer.fit(lambda: next(stopping))
    assert trainer.validations_since_best == 1
    run = RunFolder.load(run.path)
    with run.lock():
        again = Trainer(run, data)
        again.resume(run.load_checkpoint())
        again.fit(lambda: False)
    assert run.metrics().query("split == 'val'")["epoch"].max() == 3


def test_the_start_is_validated_once_and_many_pages_are_ranked_in_part(tmp_path, monkeypatch):
    without_steps(monkeypatch)
    monkeypatch.setattr("stage3.train.trainer.validation.all_metrics", lambda *_: ({SAME_PAGE: 0.1}, None))
    monkeypatch.setattr("stage3.train.trainer.validation.evenly", lambda pages: pages[::2])
    run, said = synthetic.run(tmp_path / "run"), []
    data = synthetic.dataset(run.config, single=0.9, textless=0.8)
    for resumed in (False, True):
        trainer = Trainer(run, data, say=said.append)
        if resumed:
            assert [f"batches: {line}" for line in trainer.sampler.shortfalls] == said[:2]
            trainer.resume(run.load_checkpoint())
        with run.lock(), pytest.raises(Interrupted):
            trainer.fit(lambda: True)  # before its first step
    assert run.metrics()["step"].tolist() == [0]
    assert (
        "validation: losses on all pages; retrieval, collapse and reconstruction on 4 of 8 pages, evenly spaced" in said
    )


def test_a_resumed_run_remembers_the_start_and_the_highest(tmp_path):
    settings = {"epochs": 4, "select_margin": 0.02}
    whole = synthetic.run(tmp_path / "whole", **settings)
    with whole.lock():
        Trainer(whole, synthetic.dataset(whole.config)).fit(lambda: False)
    parts = synthetic.run(tmp_path / "parts", **settings)
    data = synthetic.dataset(parts.config)
    with parts.lock():
        trainer = Trainer(parts, data)
        stopping = iter([False] * (2 * trainer.sampler.n_batches) + [True])
        with pytest.raises(Exception, match="stopped after step"):
            trainer.fit(lambda: next(stopping))
    parts = RunFolder.load(parts.path)
    with parts.lock():
        again = Trainer(parts, data)
        again.resume(parts.load_checkpoint())
        assert (again.floor, again.top) == (trainer.floor, trainer.top)
        assert math.isfinite(again.floor)
        again.fit(lambda: False)
    assert parts.best() == whole.best()


@pytest.mark.parametrize(("better", "chosen"), [(True, 1), (False, 0)])
def test_an_average_with_the_start_is_kept_only_where_it_is_better(tmp_path, monkeypatch, better, chosen):
    values = (0.1, 0.3, 0.5 if better else 0.2, 0.2, 0.2)
    run = synthetic.run(tmp_path / "run", epochs=1, keep_checkpoints=0, average_back=True, select_margin=0.15)
    found = iter(same_page(*values))
    monkeypatch.setattr("stage3.train.trainer.validation.all_metrics", lambda *_: (next(found), None))
    said: list[str] = []
    with run.lock():
        trainer = Trainer(run, synthetic.dataset(run.config), say=said.append)
        trainer.fit(lambda: False)
    last = trainer.total_steps
    assert run.best().step == last + chosen
    assert ("the average of 75.0 % of the trained weights with the start is better" in said) is better
    averages = run.metrics().query("split == 'val'")["average"].dropna().tolist()
    assert averages == ([0.75] if better else [0.75, 0.5, 0.25])
    start, trained, name = run.model(0), run.model(last), "encoder.text.learned.0.weight"
    if better:
        expected = torch.lerp(start.state_dict()[name], trained.state_dict()[name], 0.75)
        torch.testing.assert_close(run.model(last + 1).state_dict()[name], expected)
        averaged, whole = (run.model(s).encoder.text.strength.item() for s in (last + 1, last))
        assert averaged == pytest.approx(0.75 * whole)
    else:
        assert [c.step for c in run.checkpoints()] == [0, last]
        assert torch.equal(trainer.model.state_dict()[name], trained.state_dict()[name])
