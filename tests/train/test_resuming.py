"""What a resumed run is asked before it goes on: its settings, forged state, lost checkpoints and lost metrics."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import math
import re
import shutil

import pandas as pd
import pytest
import synthetic
import torch

from stage3 import train
from stage3.errors import ConfigError, Interrupted, StorageError
from stage3.runs import RunFolder
from stage3.train.resuming import check_moments, check_settings, check_state, lost_metrics, recorded_settings
from stage3.train.trainer import Trainer

STOPPED = 5  # steps done


@pytest.fixture(scope="module")
def data():
    return synthetic.dataset()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, data):
    """A run of two epochs that was stopped on its way, with checkpoints of steps 0, 3, 4 and 5."""
    run = synthetic.run(tmp_path_factory.mktemp("runs") / "stopped", checkpoint_steps=3, keep_checkpoints=0)
    trainer = Trainer(run, data)
    with run.lock(), pytest.raises(Interrupted):
        trainer.fit(lambda: trainer.step >= STOPPED)
    run.write_json("data", data.identity())
    run.set_status("stopped")
    assert [c.step for c in run.checkpoints()] == [0, 3, 4, STOPPED]
    return run.path


@pytest.fixture
def run(stopped, tmp_path):
    return RunFolder.load(shutil.copytree(stopped, tmp_path / "run"))


@pytest.fixture(scope="module")
def loaded(stopped):
    return RunFolder.load(stopped).load_checkpoint()


def resumed(run: RunFolder, data) -> list[str]:
    """`stage3.train` on the run, as from a shell; what it says."""
    said: list[str] = []
    train.train_run(run.path, {}, data=data, tell=said.append)
    return said


EDITED = {
    "lr": 0.01,
    "seed": 9,
    "batch_pages": 5,
    "epochs": 3,
    "contrastive_temperature": 0.2,
    "dim": 16,
    "dropout": 0.2,
}


def test_settings_that_were_edited_in_mid_run_are_refused_by_name(run, data):
    config, state = run.config, run.load_checkpoint().state
    check_settings(run, state)
    for name, value in EDITED.items():
        run.config = config.replace(**{name: value})
        with pytest.raises(ConfigError) as refused:
            check_settings(run, state)
        told = f"of step {STOPPED} was trained with: {name} was {getattr(config, name)}, is {value}. Put"
        assert told in str(refused.value)
    for n, more in ((5, ""), (7, " and 2 more")):
        run.config = config.replace(**dict(list(EDITED.items())[:n]))
        with pytest.raises(
            ConfigError, match=rf"trained with: (\w+ was [^;]*; ){{4}}\w+ was [^;]*, is \d+{more}\. Put"
        ):
            check_settings(run, state)


def test_a_run_with_edited_settings_fails_and_keeps_its_checkpoint(run, data):
    run.write_config(run.config.replace(lr=0.01))
    with pytest.raises(ConfigError, match=rf"step {STOPPED} .* lr was "):
        resumed(RunFolder.load(run.path), data)
    assert RunFolder.load(run.path).load_checkpoint().step == STOPPED
    assert RunFolder.load(run.path).status.state == "failed"


def test_settings_that_do_not_reach_the_weights_may_be_edited(run, data):
    run.write_config(run.config.replace(keep_checkpoints=5, workers=1, patience=90))
    resumed(RunFolder.load(run.path), data)
    assert RunFolder.load(run.path).status.state == "finished"


def test_recorded_settings_do_not_know_where_the_run_lies(run):
    config = run.config.replace(vision_backbone=str(run.path.resolve() / "backbones" / "own"))
    values = recorded_settings(config, run.path)
    assert values["vision_backbone"] == "backbones/own"
    assert not {"data", "cache_dir", "threads", "device", "patience"} & set(values)
    assert {"lr", "seed", "epochs", "dim", "val_fraction"} <= set(values)


def forge(run: RunFolder, state=None, tensors=None, drop: str = "") -> None:
    """The newest checkpoint with other content, sealed as a checkpoint is."""
    newest = run.load_checkpoint()
    changed, groups = dict(newest.state), {name: dict(group) for name, group in newest.tensors.items()}
    if state:
        state(changed)
    if tensors:
        tensors(groups)
    groups.pop(drop, None)
    shutil.rmtree(newest.path)
    run.save_checkpoint(newest.step, groups, changed)


SOUND = {
    "step": STOPPED,
    "validations_since_best": 1,
    "skipped_in_a_row": 2,
    "processes": 1,
    "threads": 1,
    "floor": 0.25,
    "top": -0.5,
    "best": {"step": 3, "value": 0.5, "metric": "m"},
    "pending": {"losses": {"total": [0.5, 2]}, "counts": {"panels": 7}, "norms": [1.5], "silent": 1, "skipped": 3},
    "scaler": {"scale": 2.0},
    "moments": 12,
    "settings": {"lr": 0.1},
}
FORGED = {
    "best of wrong types": ("best", lambda s: s["best"].update(step="3")),
    "best of a later step": ("best", lambda s: s["best"].update(step=STOPPED + 1)),
    "an immense best": ("best", lambda s: s["best"].update(value=1e305)),
    "a best that is a truth": ("best", lambda s: s["best"].update(value=True)),
    "a metric that is a list": ("best", lambda s: s["best"].update(metric=["m"])),
    "an endless metric": ("best", lambda s: s["best"].update(metric="m" * 201)),
    "losses that are text": ("pending.losses", lambda s: s["pending"].update(losses={"total": "lo"})),
    "losses of three": ("pending.losses", lambda s: s["pending"].update(losses={"total": [1, 2, 3]})),
    "losses without names": ("pending.losses", lambda s: s["pending"].update(losses=[[1, 2]])),
    "a loss that is no number": ("pending.losses", lambda s: s["pending"].update(losses={"total": [1, None]})),
    "counts that are lists": ("pending.counts", lambda s: s["pending"].update(counts={"panels": [1]})),
    "counts without names": ("pending.counts", lambda s: s["pending"].update(counts=[1])),
    "norms that are objects": ("pending.norms", lambda s: s["pending"].update(norms=[{}])),
    "norms with names": ("pending.norms", lambda s: s["pending"].update(norms={})),
    "half a silent batch": ("pending.silent", lambda s: s["pending"].update(silent=0.5)),
    "less than no skipped batch": ("pending.skipped", lambda s: s["pending"].update(skipped=-1)),
    "a negative count": ("validations_since_best", lambda s: s.update(validations_since_best=-1)),
    "an immense count": ("validations_since_best", lambda s: s.update(validations_since_best=2**53)),
    "a truth for a count": ("skipped_in_a_row", lambda s: s.update(skipped_in_a_row=True)),
    "an immense floor": ("floor", lambda s: s.update(floor=1e300)),
    "an immense floor below zero": ("floor", lambda s: s.update(floor=-1e300)),
    "a top that is no number": ("top", lambda s: s.update(top=float("nan"))),
    "a scaler of other entries": ("scaler", lambda s: s.update(scaler={"scale": 2.0, "grow": 1})),
    "a negative scale": ("scaler", lambda s: s.update(scaler={"scale": -0.5})),
    "a scale that is text": ("scaler", lambda s: s.update(scaler={"scale": "2"})),
    "a threaded nothing": ("threads", lambda s: s.update(threads=0)),
    "no process": ("processes", lambda s: s.update(processes=0)),
    "fewer than no moments": ("moments", lambda s: s.update(moments=-3)),
    "settings that are a list": ("settings", lambda s: s.update(settings=["lr"])),
}


@pytest.mark.parametrize("name", FORGED)
def test_state_that_training_does_not_write_is_refused_by_name(loaded, name):
    entry, change = FORGED[name]
    state = copy.deepcopy(SOUND)
    check_state(state, loaded, {"scale": 1.0})
    change(state)
    with pytest.raises(StorageError, match=rf"state\.json: {re.escape(entry)} is not"):
        check_state(state, loaded, {"scale": 1.0})


WITHIN = {
    "a best of this very step": lambda s: s["best"].update(step=STOPPED),
    "no best yet": lambda s: s.update(best=None, floor=None, top=None),
    "the longest metric": lambda s: s["best"].update(metric="m" * 200),
    "a scale of zero": lambda s: s.update(scaler={"scale": 0}),
    "an earlier version": lambda s: s.update(moments=None, settings=None),
    "nothing counted": lambda s: s.update(validations_since_best=0, skipped_in_a_row=0, moments=0),
    "a floor that is almost immense": lambda s: s.update(floor=-0.99e300),
    "all that a float counts": lambda s: s.update(validations_since_best=2**53 - 1),
    "nothing pending": lambda s: s["pending"].update(losses={}, counts={}, norms=[], silent=0, skipped=0),
}


@pytest.mark.parametrize("name", WITHIN)
def test_the_least_and_the_most_that_training_writes_pass(loaded, name):
    state = copy.deepcopy(SOUND)
    WITHIN[name](state)
    check_state(state, loaded, {"scale": 1.0})


def moments(**changed: float) -> dict[str, torch.Tensor]:
    """Optimizer state of two weights after five steps, of which some entries are other numbers."""
    names = ("step", "exp_avg", "exp_avg_sq")
    made = {f"{name}/{of}": torch.tensor([5.0, 5.0]) for name in names for of in ("exp_avg_sq", "w.step")}
    for name, value in changed.items():
        made[f"{name}/w.step"][1] = value
    return made


@pytest.mark.parametrize(
    ("tensors", "recorded", "told"),
    [
        (moments(), 6, None),
        (moments(), None, None),
        (moments(step=0, exp_avg=-7, exp_avg_sq=0), 6, None),
        (moments(step=6), 6, None),
        (moments(step=7), 6, "step/w.step counts more steps than were trained"),
        (moments(step=-1), 6, "step/w.step counts more steps than were trained"),
        (moments(exp_avg_sq=-0.5), 6, "exp_avg_sq/w.step holds squares below 0"),
        (moments(), 7, "holds 6 tensors, 7 were saved"),
        (moments(), 0, "holds 6 tensors, 0 were saved"),
        ({}, None, "holds 0 tensors, 1 were saved"),
        ({}, 0, None),
        (None, 0, "missing, so this checkpoint cannot be resumed"),
    ],
)
def test_optimizer_state_of_another_time_is_refused_by_name(loaded, tensors, recorded, told):
    having = dataclasses.replace(loaded, tensors={"optimizer": tensors} if tensors is not None else {})
    with pytest.raises(StorageError, match=re.escape(told)) if told else contextlib.nullcontext():
        check_moments(recorded, having)
    if not tensors:
        check_moments(None, dataclasses.replace(having, step=0, tensors={"optimizer": {}}))


OUT_OF_PLACE = {
    "an immense best": lambda s: s.update(best={"step": 3, "value": 1e305, "metric": "m"}),
    "moments that are a text": lambda s: s.update(moments="12"),
    "fewer moments": lambda s: s.update(moments=3),
}


@pytest.mark.parametrize("name", OUT_OF_PLACE)
def test_forged_state_is_passed_over_with_a_word_and_the_older_checkpoint_used(run, data, name):
    forge(run, state=OUT_OF_PLACE[name])
    said = resumed(RunFolder.load(run.path), data)
    assert any("passed over" in line and "step-00000005" in line for line in said)
    assert any("after step 4" in line for line in said)
    assert RunFolder.load(run.path).status.state == "finished"


def empty(groups) -> None:
    groups["optimizer"] = {}


def cut(groups) -> None:
    name = next(n for n in groups["optimizer"] if n.startswith("step/"))
    for kind in ("step", "exp_avg", "exp_avg_sq"):
        del groups["optimizer"][f"{kind}/{name.partition('/')[2]}"]


def later(groups) -> None:
    for name, value in groups["optimizer"].items():
        if name.startswith("step/"):
            value.fill_(1000)


@pytest.mark.parametrize("change", [empty, cut, later], ids=lambda f: f.__name__)
def test_other_optimizer_state_never_goes_on_without_a_word(run, data, change):
    forge(run, tensors=change)
    said = resumed(RunFolder.load(run.path), data)
    assert any("passed over" in line and "optimizer" in line for line in said)
    whole = RunFolder.load(run.path).load_checkpoint()
    again = synthetic.run(run.path.parent / "whole", checkpoint_steps=3, keep_checkpoints=0)
    trainer = Trainer(again, data)
    with again.lock():
        trainer.fit(lambda: False)
    undisturbed = again.load_checkpoint().tensors["model"]
    assert all(torch.equal(value, undisturbed[name]) for name, value in whole.tensors["model"].items())


def test_a_checkpoint_without_its_optimizer_is_passed_over(run, data):
    forge(run, drop="optimizer")
    assert any("optimizer.safetensors: missing" in line for line in resumed(RunFolder.load(run.path), data))


def test_checkpoints_of_earlier_versions_resume(run, data):
    forge(run, state=lambda s: [s.pop(name) for name in ("settings", "moments")])
    said = resumed(RunFolder.load(run.path), data)
    assert any(f"after step {STOPPED}" in line for line in said)
    assert not any("passed over" in line for line in said)


@pytest.mark.parametrize(("metric", "top"), [("loss/total", -0.25), ("retrieval/mean_r5", 0.25)])
def test_the_best_is_the_top_of_a_checkpoint_without_one_and_pending_sums_go_on(run, data, metric, top):
    loaded = run.load_checkpoint()
    best = {"step": 3, "value": 0.25, "metric": metric}
    said: list[str] = []
    trainer = Trainer(run, data, say=said.append)
    trainer.resume(dataclasses.replace(loaded, state={**loaded.state, "best": best, "top": None, "floor": None}))
    assert trainer.top == top
    assert math.isnan(trainer.floor)
    assert (trainer.step, trainer.saved_step) == (STOPPED, STOPPED)
    assert vars(run.best()) == best
    pending = {"losses": {"total": [1.5, 2]}, "counts": {"panels": 7}, "norms": [0.5], "silent": 1, "skipped": 3}
    counted = {"validations_since_best": 6, "skipped_in_a_row": 2, "pending": pending}
    trainer.resume(dataclasses.replace(loaded, state=loaded.state | counted))
    assert (trainer.validations_since_best, trainer.skipped_in_a_row, trainer.skipped) == (6, 2, 3)
    assert pending == {name: getattr(trainer.totals, name) for name in pending}
    trainer.resume(dataclasses.replace(loaded, state={**loaded.state, "best": best, "top": 0.75, "floor": 0.125}))
    assert (trainer.top, trainer.floor) == (0.75, 0.125)
    trainer.resume(dataclasses.replace(loaded, state={**loaded.state, "best": None, "top": None}))
    assert math.isnan(trainer.top)
    assert run.best() is None
    assert said == []  # no row is lost


PENDING_SINCE = {"counts": {}, "norms": [], "silent": 0, "skipped": 0}
WRONG = {
    "step: str, expected int": {"step": "5"},
    "best: list, expected dict or NoneType": {"best": []},
    "floor: str, expected int or float or NoneType": {"floor": "low"},
    "device: NoneType, expected str": {"device": None},
    "step: 4 in the folder of step 5": {"step": 4},
    "best: entry 'metric' is missing or unknown": {"best": {"step": 3, "value": 0.5}},
    "best: entry 'extra' is missing or unknown": {"best": {"step": 3, "value": 0.5, "metric": "m", "extra": 1}},
    "pending: entry 'losses' is missing or unknown": {"pending": PENDING_SINCE},
    "encoder: another model's checkpoint (image_sizes None, this run has [24], text_size None, ": {
        "encoder": {"dim": 7}
    },
}  # fmt: skip


@pytest.mark.parametrize("told", WRONG)
def test_a_state_of_other_entries_is_refused_by_name(stopped, loaded, data, told):
    trainer = Trainer(RunFolder.load(stopped), data)
    trainer.check(loaded)
    with pytest.raises(StorageError, match=re.escape(f"state.json: {told}")):
        trainer.check(dataclasses.replace(loaded, state=loaded.state | WRONG[told]))
    odd = {f"odd {i:02d}": i for i in range(11)}
    wrong = {"encoder": loaded.state["encoder"] | odd}
    with pytest.raises(StorageError, match=r"\(odd 00 0, this run has None, .*odd 09 9, this run has None\)$"):
        trainer.check(dataclasses.replace(loaded, state=loaded.state | wrong))
    lacking = {name: value for name, value in loaded.state.items() if name != "device"}
    for goes_on in (trainer.check, trainer.resume):
        with pytest.raises(StorageError, match="device: nothing, expected str"):
            goes_on(dataclasses.replace(loaded, state=lacking))


def test_a_run_that_lost_its_checkpoints_and_its_best_does_not_start_over(run, data):
    shutil.rmtree(run.path / "checkpoints")
    (run.path / "best.json").unlink(missing_ok=True)
    before = (run.path / "metrics.jsonl").read_bytes()
    with pytest.raises(StorageError, match=rf"up to step {STOPPED}, but its folder checkpoints/ is gone"):
        resumed(RunFolder.load(run.path), data)
    (run.path / "checkpoints").mkdir()
    with pytest.raises(StorageError, match="gone or empty"):
        resumed(RunFolder.load(run.path), data)
    assert (run.path / "metrics.jsonl").read_bytes() == before


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_over(run, data):
    shutil.rmtree(run.path / "checkpoints")
    (run.path / "best.json").unlink(missing_ok=True)
    status = json.loads((run.path / "status.json").read_text())
    status |= {"step": 2, "saved_step": None, "best_step": None}
    (run.path / "status.json").write_text(json.dumps(status))
    resumed(RunFolder.load(run.path), data)
    assert RunFolder.load(run.path).status.state == "finished"


def test_metrics_that_were_lost_or_damaged_are_said(run, data):
    path = run.path / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    train_rows = [i for i, line in enumerate(lines) if json.loads(line)["split"] == "train"]
    lines[train_rows[1]] = b'{"step": "two"}\n'
    del lines[train_rows[3]]
    path.write_bytes(b"".join(lines))
    said = resumed(RunFolder.load(run.path), data)
    assert "metrics.jsonl: 1 damaged line left out" in said
    assert any("2 of 5 training rows up to step 5 are lost, the first that of step 2" in line for line in said)


def test_a_whole_record_is_not_called_lost(run, data):
    assert not any("metrics.jsonl" in line for line in resumed(run, data))
    frame = run.metrics()
    assert lost_metrics(frame, 5, 1, 6) == []
    assert lost_metrics(frame[frame["step"] < 4], 5, 1, 6)[0].startswith("metrics.jsonl: 2 of 5")
    assert lost_metrics(frame, 5, 5, 2) == []


def test_lost_rows_are_those_of_each_interval_and_of_each_epoch_s_end():
    frame = pd.DataFrame({"step": [3, 4, 6, 7, 8, 9], "split": ["train", "val", "train", "train", "val", "train"]})
    assert lost_metrics(frame, 9, 3, 7) == []
    frame.attrs["damaged_lines"] = 2
    damaged, lost = lost_metrics(frame, 9, 3, 4)
    assert damaged == "metrics.jsonl: 2 damaged lines left out"
    assert lost.startswith("metrics.jsonl: 2 of 5 training rows up to step 9 are lost, the first that of step 4; ")
    assert len(lost_metrics(frame, 3, 3, 4)) == 1
