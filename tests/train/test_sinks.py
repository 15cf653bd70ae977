"""Rows of metrics go to TensorBoard, Trackio and Weights & Biases too: the same numbers under the same names, once."""

import importlib.util
import json
import sqlite3
import sys
from pathlib import Path

import pytest

from stage3.config import Config
from stage3.errors import ConfigError, Interrupted
from stage3.runs import RunFolder
from stage3.train import sinks, train_run
from stage3.train.trainer import Trainer
from tests import synthetic

pytestmark = pytest.mark.slow


def rows(run: RunFolder) -> list[dict]:
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


class Kept:
    """A sink that keeps what it is given, over several openings."""

    written: list[dict]

    def __init__(self, run: RunFolder, identity: str) -> None:
        self.identities.add(identity)

    def write(self, row: dict) -> None:
        self.written.append(json.loads(json.dumps(row)))

    def close(self) -> None:
        self.closed.append(len(self.written))


@pytest.fixture
def kept(monkeypatch) -> type[Kept]:
    Kept.written, Kept.closed, Kept.identities = [], [], set()
    monkeypatch.setitem(sinks.SINKS, "wandb", Kept)
    monkeypatch.setattr(sinks, "check_installed", lambda config: None)
    return Kept


def trained(run: RunFolder, data, stop_after: int = 10**6) -> None:
    trainer = Trainer(run, data)
    if run.checkpoints():
        trainer.resume(run.load_checkpoint())
    with run.lock(), sinks.opened(run) as found:
        trainer.on_row = found.write if found else trainer.on_row
        trainer.fit(lambda: trainer.step >= stop_after)


def test_a_resumed_run_sends_what_is_missing_and_nothing_twice(tmp_path, kept):
    run = synthetic.run(tmp_path / "r", log_to="wandb", epochs=2, checkpoint_steps=3)
    data = synthetic.dataset(run.config)
    with pytest.raises(Interrupted):
        trained(run, data, stop_after=5)
    for checkpoint in [c for c in run.checkpoints() if c.step > 3]:  # as if killed after it had sent step 5
        run.path.joinpath("gone").mkdir(exist_ok=True)
        checkpoint.path.rename(run.path / "gone" / checkpoint.path.name)
    sent = len(kept.written)
    trained(RunFolder.load(run.path), data)
    assert len(kept.written) == len(rows(run)) > sent
    clocks = ("seconds", "panels_per_second")
    strip = [{k: v for k, v in row.items() if k not in clocks} for row in kept.written]
    assert strip == [{k: v for k, v in row.items() if k not in clocks} for row in rows(run)]
    assert len(kept.identities) == 1
    assert len(kept.closed) == 2


def test_a_sink_that_is_named_later_gets_every_row(tmp_path, kept):
    run = synthetic.run(tmp_path / "r", epochs=2)
    data = synthetic.dataset(run.config)
    with pytest.raises(Interrupted):
        trained(run, data, stop_after=4)
    assert not kept.written
    run.write_config(run.config.replace(log_to="wandb"))
    trained(run, data)
    assert [(r["step"], r["split"]) for r in kept.written] == [(r["step"], r["split"]) for r in rows(run)]


def test_a_missing_package_is_said_in_one_line_before_anything_is_made(tmp_path, monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "wandb" else there(name, *a))
    with pytest.raises(ConfigError, match=r'log_to: wandb is not installed: pip install "stage3\[wandb\]"'):
        train_run(tmp_path / "run", {"data": "data/samples", "log_to": "tensorboard,wandb"})
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="log_to: expected where metrics also go: tensorboard, trackio, wandb"):
        Config.from_mapping({"log_to": "mlflow"})


def test_nothing_is_imported_unless_it_is_asked_for(tmp_path):
    before = set(sys.modules)
    run = synthetic.run(tmp_path / "r", epochs=1)
    trained(run, synthetic.dataset(run.config))
    assert not {"tensorboard", "trackio", "wandb"} & (set(sys.modules) - before)
    assert not (run.path / "sinks.json").exists()


def test_tensorboard_has_the_rows_under_their_names_after_a_resume_too(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = synthetic.run(tmp_path / "r", log_to="tensorboard", epochs=2)
    data = synthetic.dataset(run.config)
    with pytest.raises(Interrupted):
        trained(run, data, stop_after=4)
    trained(RunFolder.load(run.path), data)
    for split in ("train", "val"):
        read = EventAccumulator(str(run.path / "tensorboard" / split), size_guidance={"scalars": 0}).Reload()
        wanted = [(r["step"], sinks.numbers(r)) for r in rows(run) if r["split"] == split]
        names = {name for _, values in wanted for name in values}
        assert set(read.Tags()["scalars"]) == names
        assert "loss/contrastive" in names
        for name in names:
            found = [(e.step, e.value) for e in read.Scalars(name)]
            expected = [(step, values[name]) for step, values in wanted if name in values]
            assert [step for step, _ in found] == [step for step, _ in expected]
            assert [value for _, value in found] == pytest.approx([value for _, value in expected], rel=1e-6)


def test_trackio_keeps_the_rows_in_its_local_database(tmp_path, monkeypatch):
    pytest.importorskip("trackio", reason="the extra trackio is not installed")
    import trackio.sqlite_storage
    import trackio.utils

    monkeypatch.setattr(trackio.utils, "TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setattr(trackio.sqlite_storage, "TRACKIO_DIR", tmp_path / "trackio")
    run = synthetic.run(tmp_path / "r", log_to="trackio", epochs=1)
    data = synthetic.dataset(run.config)
    with pytest.raises(Interrupted):
        trained(run, data, stop_after=2)
    trained(RunFolder.load(run.path), data)
    (file,) = (tmp_path / "trackio").glob("stage3*.db")
    with sqlite3.connect(file) as base:
        found = base.execute("select step, metrics from metrics order by id").fetchall()
    assert [(step, json.loads(values)) for step, values in found] == [
        (r["step"], {f"{r['split']}/{n}": v for n, v in sinks.numbers(r).items()}) for r in rows(run)
    ]


def test_wandb_offline_writes_beside_the_run(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = synthetic.run(tmp_path / "r", log_to="wandb", epochs=1, data=str(tmp_path / "secret-place"))
    trained(run, synthetic.dataset(run.config))
    wandb.teardown()  # its own process writes the file
    files = list((run.path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 1
    content = files[0].read_bytes()
    assert b"val/loss/contrastive" in content
    assert b"secret-place" not in content


def test_what_is_sent_of_the_settings_names_no_place_of_this_machine():
    config = Config(data="/home/me/comics", vision_backbone="/home/me/models/mine+resnet50", cache_dir="/home/me/cache")
    sent = sinks.shareable(config)
    assert "/home" not in repr(sent)
    assert sent["vision_backbone"] == "mine+resnet50"
    assert sinks.shareable(Config(text_backbone="owner/model"))["text_backbone"] == "owner/model"
    assert Path("/") not in [value for value in sent.values() if isinstance(value, Path)]
