"""Rows of metrics go to TensorBoard, Trackio and Weights & Biases too: the same numbers under the same names, once."""

import importlib.util
import json
import re
import sqlite3
import sys
import types
from pathlib import Path

import pytest

from stage3.config import Config
from stage3.errors import ConfigError, Interrupted
from stage3.runs import RunFolder
from stage3.train import sinks, train_run
from stage3.train.trainer import Trainer
from tests import synthetic

ROWS = [
    {"step": 0, "split": "val", "loss/total": 3.5, "seconds": None},
    {"step": 2, "split": "train", "loss/total": 2.5, "panels": 7, "grad_norm": None},
    {"step": 2, "split": "val", "loss/total": 1.25, "note": "half"},
    {"step": 4, "split": "train", "loss/total": 0.75, "panels": 9},
    {"step": 4, "split": "val", "loss/total": 1.5},
]


def rows(run: RunFolder) -> list[dict]:
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


class Kept:
    """A sink that keeps what it is given, over several openings."""

    written: list[dict]

    def __init__(self, run: RunFolder, identity: str) -> None:
        self.identities.append(identity)

    def write(self, row: dict) -> None:
        self.written.append(json.loads(json.dumps(row)))

    def close(self) -> None:
        self.closed.append(len(self.written))


def kept_by(name: str, monkeypatch) -> type[Kept]:
    kept = type(name, (Kept,), {"written": [], "closed": [], "identities": []})
    monkeypatch.setitem(sinks.SINKS, name, kept)
    return kept


def trained(run: RunFolder, data, stop_after: int = 10**6) -> None:
    trainer = Trainer(run, data)
    if run.checkpoints():
        trainer.resume(run.load_checkpoint())
    with run.lock(), sinks.opened(run) as found:
        trainer.on_row = found.write if found else trainer.on_row
        trainer.fit(lambda: trainer.step >= stop_after)


def send(run: RunFolder, *new: dict) -> None:
    """Rows as a training of the run writes them, from its opening to its end."""
    with sinks.opened(run) as found:
        for row in new:
            run.append_metrics(row)
            if found:
                found.write(row)


def test_a_resumed_run_sends_what_is_missing_and_nothing_twice(tmp_path, monkeypatch):
    kept = kept_by("wandb", monkeypatch)
    run = synthetic.run(tmp_path / "r", log_to="wandb")
    send(run, *ROWS[:3])
    assert kept.written == ROWS[:3]
    run.cut_metrics(0)  # as if killed before the checkpoint of step 2
    send(run, *ROWS[1:])
    assert kept.written == rows(run) == ROWS
    run.append_metrics(ROWS[0] | {"step": 6})  # written, and killed before it was sent
    send(run)
    assert kept.written == rows(run)
    assert kept.closed == [3, 5, 6]
    (identity,) = set(kept.identities)
    assert run.read_json("sinks") == {"wandb": {"id": identity, "sent": 6}}
    assert re.fullmatch("[0-9a-f]{8}", identity)


def test_a_sink_that_is_named_later_gets_every_row_and_one_that_comes_back_the_rest(tmp_path, monkeypatch):
    wandb, trackio = (kept_by(name, monkeypatch) for name in ("wandb", "trackio"))
    run = synthetic.run(tmp_path / "r")
    settings = run.config
    for log_to, row in zip(("", "wandb", "trackio", "trackio,wandb"), ROWS, strict=False):
        run.config = settings.replace(log_to=tuple(log_to.split(",")) if log_to else ())
        send(run, row)
        if not log_to:
            assert not (run.path / "sinks.json").exists()
        if log_to == "trackio":
            assert wandb.written == ROWS[:2]
    assert wandb.written == trackio.written == ROWS[:4]
    assert len(set(wandb.identities)) == len(set(trackio.identities)) == 1
    assert wandb.identities[0] != trackio.identities[0]
    assert (wandb.closed, trackio.closed) == ([2, 4], [3, 4])


def test_sinks_are_closed_when_training_fails(tmp_path, monkeypatch):
    kept = kept_by("wandb", monkeypatch)
    with pytest.raises(Interrupted), sinks.opened(synthetic.run(tmp_path / "r", log_to="wandb")):
        raise Interrupted("stopped")
    assert kept.closed == [0]


class Writer:
    """In place of TensorBoard's: what was asked of it, for each folder."""

    calls: list[tuple[object, ...]]

    def __init__(self, folder: str, flush_secs: int) -> None:
        self.split = Path(folder).name
        self.calls.append(("open", folder, flush_secs))

    def add_scalar(self, *of: object) -> None:
        self.calls.append((self.split, *of))

    def close(self) -> None:
        self.calls.append(("close", self.split))


def test_tensorboard_is_written_anew_at_each_opening_by_split(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))
    run = synthetic.run(tmp_path / "r", log_to="tensorboard")
    folder = run.path / "tensorboard"
    wanted = [
        *(("open", str(folder / "val"), 10), ("val", "loss/total", 3.5, 0)),
        *(("open", str(folder / "train"), 10), ("train", "loss/total", 2.5, 2), ("train", "panels", 7.0, 2)),
        ("val", "loss/total", 1.25, 2),
    ]
    for again in (False, True):
        Writer.calls = []
        if again:
            folder.mkdir()
            (folder / "events of before").touch()
        send(run, *(ROWS[:3] if not again else ()))
        assert Writer.calls == [*wanted, ("close", "val"), ("close", "train")]
        assert not (folder / "events of before").exists()


class Elsewhere:
    """In place of the packages Trackio and Weights & Biases: what they are asked."""

    class Error(Exception):
        """What theirs is called."""

    def __init__(self, refusal: str = "") -> None:
        self.refusal, self.begun, self.logged, self.ended = refusal, {}, [], 0

    def Settings(self, **settings: object) -> dict[str, object]:
        return settings

    def init(self, **of: object):
        if self.refusal:
            raise self.Error(self.refusal)
        self.begun = of
        return self

    def log(self, values: dict, step: int) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.ended += 1


def test_trackio_and_wandb_get_the_numbers_of_both_splits_under_their_names(tmp_path, monkeypatch):
    trackio, wandb = Elsewhere(), Elsewhere()
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    run = synthetic.run(tmp_path / "r", log_to="trackio,wandb", dim=12)
    send(run, *ROWS[:3])
    told = [
        (0, {"val/loss/total": 3.5}),
        (2, {"train/loss/total": 2.5, "train/panels": 7.0}),
        (2, {"val/loss/total": 1.25}),
    ]
    assert (trackio.logged, trackio.ended) == (wandb.logged, wandb.ended) == (told, 1)
    ids = {name: about["id"] for name, about in run.read_json("sinks").items()}
    config = trackio.begun.pop("config")
    assert (config["dim"], config["lr"]) == (12, run.config.lr)
    assert trackio.begun == {
        "project": "stage3", "name": f"r-{ids['trackio']}", "resume": "allow", "embed": False,
        "auto_log_gpu": False, "auto_log_cpu": False,
    }  # fmt: skip
    quiet = {"console": "off", "disable_git": True, "save_code": False, "x_disable_stats": True, "x_disable_meta": True}
    assert wandb.begun == {
        "project": "stage3", "name": "r", "id": ids["wandb"], "resume": "allow", "dir": str(run.path),
        "config": config, "settings": quiet,
    }  # fmt: skip


def test_a_refusal_of_wandb_is_said_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", Elsewhere("no key\n  found"))
    with pytest.raises(ConfigError, match=r"^log_to: wandb: no key found\. Log in, or set WANDB_MODE=offline\.$"):
        send(synthetic.run(tmp_path / "r", log_to="wandb"))


def test_a_missing_package_is_said_in_one_line_before_anything_is_made(tmp_path, monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "wandb" else there(name, *a))
    with pytest.raises(ConfigError, match=r'log_to: wandb is not installed: pip install "stage3\[wandb\]"'):
        train_run(tmp_path / "run", {"data": "data/samples", "log_to": "tensorboard,wandb"})
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="log_to: expected where metrics also go: tensorboard, trackio, wandb"):
        Config.from_mapping({"log_to": "mlflow"})


@pytest.mark.slow
def test_nothing_is_imported_unless_it_is_asked_for(tmp_path):
    before = set(sys.modules)
    run = synthetic.run(tmp_path / "r", epochs=1)
    trained(run, synthetic.dataset(run.config))
    assert not {"tensorboard", "trackio", "wandb"} & (set(sys.modules) - before)
    assert not (run.path / "sinks.json").exists()


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
    assert not {"data", "manifest", "panels", "labels", "remap", "cache_dir", "log_to", "log_epsilon"} & set(sent)
    assert {"dim", "lr", "seed", "val_fraction"} <= set(sent)
    assert sent["vision_backbone"] == "mine+resnet50"
    assert Path("/") not in [value for value in sent.values() if isinstance(value, Path)]


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("owner/model", "owner/model"),
        ("of/three/parts/", "parts"),
        ("/one", "one"),
        ("./mine", "mine"),
        ("../mine", "mine"),
        ("~/mine", "mine"),
        (r"home\mine", "mine"),
        ("C:/mine", "mine"),
        ("/home/a+resnet50+./b", "a+resnet50+b"),
    ],
)
def test_a_backbone_that_lies_here_is_sent_by_its_last_name(name, sent):
    assert sinks.shareable(Config(text_backbone=name))["text_backbone"] == sent


def test_numbers_of_a_row_are_what_can_be_drawn():
    row = {"step": 3, "split": "val", "a": 2, "b": -0.5, "c": None, "d": "4", "e": float("inf"), "f": float("nan")}
    assert sinks.numbers(row) == {"a": 2.0, "b": -0.5}
