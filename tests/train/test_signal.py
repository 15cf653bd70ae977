"""A run on training pages that define no loss is refused; terms that nothing defines are named."""

import json

import numpy as np
import pytest

from stage3 import train
from stage3.batches.dataset import Dataset
from stage3.data.splits import TEST, TRAIN, VAL
from stage3.errors import DataError
from stage3.train.signal import check_signal
from stage3.train.trainer import Trainer
from tests import synthetic


def trained_on(data: Dataset, pages: np.ndarray) -> Dataset:
    """The rest chooses and tests."""
    split = np.where(np.arange(len(data.split)) % 2, VAL, TEST)
    split[pages] = TRAIN
    return data.with_split(split)


def single_panels(data: Dataset) -> np.ndarray:
    return np.flatnonzero(data.table.pages["n_panels"].to_numpy() == 1)


def test_a_run_whose_only_training_panel_defines_no_loss_is_refused(tmp_path):
    run = synthetic.run(tmp_path / "run")
    data = synthetic.dataset(run.config, books=12)
    data = trained_on(data, single_panels(data)[:1])
    with pytest.raises(DataError, match="no loss is defined on the 1 training page: 0 of them have several panels"):
        train.train_run(run.path, {}, data=data)
    assert run.status.state == "failed"
    assert run.status.exit_code == 2
    assert not run.checkpoints()
    with pytest.raises(DataError, match="no page is left for training after the split by book"):
        train.train_run(run.path, {}, data=trained_on(data, np.zeros(0, int)))


def test_single_panels_with_texts_can_still_be_aligned(tmp_path):
    run = synthetic.run(tmp_path / "run", epochs=1)
    data = synthetic.dataset(run.config, books=12, single=1.0, textless=0.0, boxless=0.0)
    said = []
    train.train_run(run.path, {}, data=data, tell=said.append)
    assert run.status.state == "finished"
    assert "Contrastive is defined on no training batch: nothing is learned from it" in said
    assert "Reconstruction is defined on no training batch: nothing is learned from it" in said
    assert not any(line.startswith("Alignment is defined") for line in said)


@pytest.mark.parametrize(("pairs", "refused"), [(1, True), (2, False)])
def test_a_pair_alone_has_nothing_to_be_told_from(pairs, refused, tmp_path):
    run = synthetic.run(tmp_path / "run")
    data = synthetic.dataset(run.config, books=40, single=1.0, textless=0.7, boxless=0.0)
    with_text = np.flatnonzero(data.panel_set.pairs > 0)[:pairs]
    without = np.flatnonzero(data.panel_set.pairs == 0)[:6]
    trainer = Trainer(run, trained_on(data, np.r_[with_text, without]))
    if refused:
        with pytest.raises(DataError, match="and 1 panel of them have an image and a text"):
            list(check_signal(trainer))
    else:
        assert len(list(check_signal(trainer))) == 2


def test_what_every_batch_defines_is_not_named_and_costs_one_batch(tmp_path, monkeypatch):
    run = synthetic.run(tmp_path / "run")
    trainer = Trainer(run, synthetic.dataset(run.config, books=16))
    batches, modes = [], [module.training for module in trainer.model.modules()]
    real = type(trainer.model).forward
    monkeypatch.setattr(type(trainer.model), "forward", lambda *args: batches.append(1) or real(*args))
    assert list(check_signal(trainer)) == []
    assert len(batches) == 1
    assert [module.training for module in trainer.model.modules()] == modes


def test_a_shuffled_run_without_any_loss_does_not_finish(tmp_path):
    run = synthetic.run(tmp_path / "run", sampler="shuffled", epochs=2)
    data = synthetic.dataset(run.config, books=40, single=1.0, textless=1.0)
    with pytest.raises(DataError, match=r"no loss is defined on the \d+ training pages"):
        train.train_run(run.path, {}, data=data)
    assert run.status.state == "failed"


def test_what_the_data_can_show_is_said_once_and_kept_beside_the_run(tmp_path):
    run = synthetic.run(tmp_path / "run", epochs=1)
    data = synthetic.dataset(run.config, books=24)
    said = []
    train.train_run(run.path, {}, data=data, tell=said.append)
    heads = [n for n, line in enumerate(said) if line.startswith("what this data can show: ")]
    assert len(heads) == 1
    assert "differences between two models show in same-page R-precision from about" in said[heads[0] + 2]
    assert heads[0] < next(n for n, line in enumerate(said) if line.startswith("training "))
    kept = json.loads((run.path / "data_report.json").read_text(encoding="utf-8"))["can_show"]
    assert kept["sizes"]["test"]["pages"] == len(data.pages("test"))
    assert 0 < kept["smallest"] < 1
    added = train.result(run)["added"]
    assert (added["split"], added["step"]) == ("val", run.best().step)
    assert added["by_page"][0] <= added["difference"] <= added["by_page"][1]
    log = (run.path / "train.log").read_text(encoding="utf-8")
    assert all(sentence in log for sentence in (added["sentence"], *(way["sentence"] for way in added["retrieval"])))
    again = []
    train.train_run(run.path, {}, data=data, tell=again.append)
    assert not any("what this data can show" in line for line in again)


def test_without_a_step_nothing_has_to_be_learned(tmp_path):
    """`epochs 0` keeps the model as it begins, so pages that define no loss are no reason to refuse it."""
    run, said = synthetic.run(tmp_path / "r", epochs=0, max_panels=1), []
    data = synthetic.dataset(run.config, single=1.0, textless=1.0)
    done = train.train_run(run.path, {}, data=data, tell=said.append)
    assert done.status.state == "finished"
    (caution,) = train.cautions(run.config)
    assert said[0] == caution
    assert caution in (run.path / "train.log").read_text(encoding="utf-8")
    assert [c.step for c in done.checkpoints()] == [0]
