"""What a run that is begun, resumed or ended asks, refuses, records and says; no step is trained here."""

import json
import os
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import synthetic

from stage3 import train
from stage3.batches.dataset import Dataset
from stage3.config import Config
from stage3.data import readers
from stage3.errors import ConfigError, DataError, Interrupted, StorageError
from stage3.runs import RunFolder
from stage3.train import Asked
from stage3.train import __main__ as command
from stage3.train.together import Begin, Follower, Leader, follow


def asked(settings=(), of_file=()) -> Asked:
    return Asked(dict(settings), dict(of_file), "some.yaml", "form")


def test_flags_override_the_file_and_the_file_the_run(tmp_path):
    run = synthetic.run(tmp_path / "r", lr=0.5, dim=8, seed=3)
    given = asked({"lr": 0.1}, {"lr": 0.2, "dim": 16})
    on_top, alone = given.over(run), asked({"lr": 0.1}, {"lr": 0.2, "dim": 16}).over()
    assert (on_top.lr, on_top.dim, on_top.seed) == (0.1, 16, 3)
    assert (alone.lr, alone.dim, alone.seed) == (0.1, 16, Config().seed)


def test_what_is_overruled_is_said_unless_both_say_the_same():
    given = asked({"lr": "0.1", "dim": "16", "seed": 4}, {"dim": 16, "lr": 0.2, "epochs": 7})
    assert given.overruled() == ["lr: 0.1 from the form overrides 0.2 of some.yaml"]


def test_the_device_is_the_flag_s_then_the_file_s_then_the_run_s_then_the_default(tmp_path):
    run = synthetic.run(tmp_path / "r", device="cpu")
    assert asked({"device": "cuda:1"}, {"device": "cuda:2"}).device(run.path) == "cuda:1"
    assert asked({}, {"device": "cuda:2"}).device(run.path) == "cuda:2"
    assert asked().device(run.path) == "cpu"
    assert asked().device(tmp_path / "new") == Config().device != "cpu"


def test_a_run_is_made_only_where_its_data_can_be_used_or_is_there(tmp_path):
    with pytest.raises(ConfigError, match="no data set"):
        train.open_or_create(tmp_path / "r", asked({"lr": 0.5}))
    assert not (tmp_path / "r").exists()
    run, was_there = train.open_or_create(tmp_path / "r", asked({"lr": 0.5}), synthetic.dataset())
    assert (run.config.lr, was_there) == (0.5, False)
    run, was_there = train.open_or_create(tmp_path / "r", asked({"lr": 0.1}))
    assert (run.config.lr, was_there) == (0.5, True)


def test_the_others_are_told_once_that_all_is_prepared_or_that_nothing_will_be():
    told = []
    leader = Leader(SimpleNamespace(share=told.append))
    with leader.preparing():
        leader.begin(4)
    assert told == [Begin(4)]
    with pytest.raises(DataError), Leader(leader.peers).preparing():
        raise DataError("no")
    assert told == [Begin(4), None]


def followed(tmp_path, monkeypatch, word, data="data") -> list[object]:
    """What a process does that the leader tells a word."""
    did: list[object] = []

    class Follows:
        def __init__(self, run, data, *, peers) -> None:
            did.append((type(run).__name__, data, peers.size))

        def resume(self, loaded, *, inexact: bool) -> None:
            did.append((loaded.step, inexact))

        def fit(self, stop) -> None:
            did.append(stop)

    monkeypatch.setattr("stage3.train.trainer.Trainer", Follows)
    run = synthetic.run(tmp_path / "r")
    for step in (4, 6):
        run.save_checkpoint(step, {}, {"step": step})
    peers = SimpleNamespace(share=lambda _: word, size=2)
    assert isinstance(follow(run.path, peers, "stop", data, inexact=True), Follower)
    return did


def test_who_follows_begins_where_the_leader_does_and_writes_nothing(tmp_path, monkeypatch):
    assert followed(tmp_path / "new", monkeypatch, Begin(None)) == [("Follower", "data", 2), "stop"]
    assert followed(tmp_path / "old", monkeypatch, Begin(4)) == [("Follower", "data", 2), (4, True), "stop"]
    monkeypatch.setattr(Dataset, "load", lambda _, progress: "read without a bar" if not progress else "read")
    (_, data, _), _ = followed(tmp_path / "alone", monkeypatch, Begin(None), None)
    assert data == "read without a bar"  # the leader's is enough
    with pytest.raises(SystemExit) as ended:
        followed(tmp_path / "none", monkeypatch, None)
    assert ended.value.code == 0


@pytest.mark.parametrize("error", [ConfigError, DataError])
def test_a_refused_new_run_leaves_its_name_free(tmp_path, error):
    run = synthetic.run(tmp_path / "r")
    with pytest.raises(error), train.nothing_left_of(None):
        raise error("no")
    with pytest.raises(StorageError), train.nothing_left_of(run):
        raise StorageError("no")
    assert RunFolder.exists(run.path)
    run.save_checkpoint(3, {}, {"step": 3})
    with pytest.raises(error), train.nothing_left_of(run):
        raise error("no")
    assert RunFolder.exists(run.path)
    new = synthetic.run(tmp_path / "new")
    with pytest.raises(error), train.nothing_left_of(new):
        raise error("no")
    assert not new.path.exists()


def test_a_run_that_never_began_takes_what_is_given_now_and_says_what_it_leaves(tmp_path):
    data, said = synthetic.dataset(), []
    run = RunFolder.create(tmp_path / "r", Config(lr=0.5, seed=7, dim=8, log_to=("wandb", "trackio")))
    train.begin_anew(run, asked(), data, said.append)
    assert (run.config.lr, said) == (0.5, [])
    train.begin_anew(run, asked({"seed": 8}, {"dim": 16}), data, said.append)
    now = RunFolder.load(run.path).config
    assert now == Config(seed=8, dim=16)
    assert said == [
        f"{run.path} never began, so it starts from the defaults and the settings given now; not kept from its "
        "earlier start: lr 0.5, log_to wandb,trackio"
    ]
    assert (run.path / "train.log").read_text(encoding="utf-8").endswith(f" {said[0]}\n")
    train.begin_anew(run, asked({}, {"seed": 8, "dim": 16}), data, said.append)
    assert len(said) == 1
    with pytest.raises(ConfigError, match="no data set"):
        train.begin_anew(run, asked({"seed": 9}), None, said.append)
    assert RunFolder.load(run.path).config == now


def test_a_run_that_has_begun_changes_only_what_does_not_reach_its_weights(tmp_path):
    run = synthetic.run(tmp_path / "r", lr=0.5, threads=1, device="cpu")
    train.change_settings(run, asked({"keep_checkpoints": 7}), False)
    assert RunFolder.load(run.path).config.keep_checkpoints == 7
    for settings, told in (
        ({"lr": 0.1, "threads": 2}, "lr is 0.5, asked for 0.1; threads is 1, asked for 2. Resume without them, or"),
        ({"threads": 2}, "threads is 1, asked for 2. Resume without them, choose a new run name, or give --allow_in"),
    ):
        with pytest.raises(ConfigError) as refused:
            train.change_settings(run, asked(settings), False)
        assert str(refused.value).startswith(f"{run.path} was started with other settings: {told}")
    with pytest.raises(ConfigError, match=r"settings: lr is 0\.5, asked for 0\.1\. Resume without them, or choose"):
        train.change_settings(run, asked({"lr": 0.1, "threads": 2}), True)
    assert RunFolder.load(run.path).config.threads == 1
    train.change_settings(run, asked({"threads": 2}), True)
    assert RunFolder.load(run.path).config.threads == 2


def test_a_run_lies_outside_the_panels_that_it_reads(tmp_path):
    config = Config(data="data/samples")
    panels = readers.source_of(config).panels
    train.check_places(panels.parent / "run", config)
    with pytest.raises(ConfigError, match=r"run lies inside the panels .*panels\. Choose"):
        train.check_places(panels / "below" / "run", config)


@pytest.mark.parametrize("field", ["saved_step", "best_step"])
def test_a_run_has_begun_once_a_checkpoint_is_there_or_told_of(tmp_path, field):
    run = synthetic.run(tmp_path / "r")
    assert not train.has_begun(run)
    run.set_status("stopped", **{field: 0})
    assert train.has_begun(run)
    run.set_status("stopped", saved_step=None, best_step=None)
    assert not train.has_begun(run)
    run.save_checkpoint(0, {}, {"step": 0})
    assert train.has_begun(run)


def test_settings_that_are_hardly_meant_are_named(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert train.cautions(Config(max_panels=2, workers=8)) == []
    alone, threads = train.cautions(Config(max_panels=1, workers=9))
    assert alone == "max_panels 1: no panel has page mates, so only alignment is trained"
    assert threads == "workers 9: more than four threads per core (2 cores) do not help"
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert train.cautions(Config(workers=4)) == []
    assert train.cautions(Config(workers=5)) == [threads.replace("9", "5").replace("2 cores", "1 cores")]


def trainer_of(monkeypatch, *, fails=None) -> SimpleNamespace:
    """In place of what trains: its steps, or what happens on its way."""
    trainer = SimpleNamespace(step=9, total_steps=12, data="data", on_row=None, on_step=None)

    def fit(stop) -> None:
        trainer.on_step(1)
        if fails:
            raise fails

    trainer.fit = fit
    monkeypatch.setattr(train, "prepare", lambda the_run, **_: trainer)
    monkeypatch.setattr(train, "compare", lambda the_run, _: the_run.log("compared"))
    monkeypatch.setattr("stage3.train.signal.check_learned", lambda the_run, data: the_run.log(f"learned of {data}"))
    return trainer


def ended(run: RunFolder) -> tuple[str, str, int | None]:
    with train.stopping() as stop:
        train.train(run, resumed=False, inexact=False, stop=stop, tell=print, leader=None)
    return run.status.state, run.status.message, run.status.exit_code


def test_the_status_says_that_training_finished(tmp_path, monkeypatch):
    trainer_of(monkeypatch)
    run = synthetic.run(tmp_path / "r")
    (run.path / "STOP").touch()
    assert ended(run) == ("finished", "finished", 0)
    assert run.status.step == 9
    assert not (run.path / "STOP").exists()
    log = (run.path / "train.log").read_text(encoding="utf-8").splitlines()
    assert [line.partition("Z ")[2] or line.split(" ", 1)[1] for line in log] == [
        "learned of data", "compared", "finished at step 9",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "told", "logged"),
    [
        (Interrupted("stopped after step 3"), ("stopped", "stopped after step 3", 75), "stopped after step 3"),
        (DataError("no page"), ("failed", "no page", DataError.exit_code), "failed: no page"),
        (KeyboardInterrupt(), ("stopped", "stopped at once: nothing was saved; the same command resumes it", 75), ""),
        (ValueError("odd"), ("failed", "ValueError: odd", 1), ""),
    ],
)
def test_the_status_says_how_training_ended_otherwise(tmp_path, monkeypatch, error, told, logged):
    trainer_of(monkeypatch, fails=error)
    run = synthetic.run(tmp_path / "r")
    with pytest.raises(type(error)):
        ended(run)
    assert (run.status.state, run.status.message, run.status.exit_code) == told
    log = run.path / "train.log"
    assert (log.read_text(encoding="utf-8") if log.exists() else "").endswith(f" {logged}\n" if logged else "")
    if isinstance(error, KeyboardInterrupt):
        for step in (4, 6, 8):
            run.save_checkpoint(step, {}, {"step": step})
        with pytest.raises(KeyboardInterrupt):
            ended(run)
        assert "nothing since step 8 was saved" in run.status.message


def test_other_data_is_refused_by_what_differs(tmp_path):
    run = synthetic.run(tmp_path / "r")
    first = {"pages": 4, "pictures": "a" * 70, "texts": "t"}
    data = SimpleNamespace(identity=lambda: {"pages": 1})
    train.check_identity(run, data)
    data.identity = lambda: first
    train.check_identity(run, data)  # until it has begun, the last counts
    assert run.read_json("data") == first
    run.set_status("stopped", saved_step=2)
    train.check_identity(run, data)
    data.identity = lambda: {"pages": 5, "pictures": "b" * 70, "texts": "t"}
    with pytest.raises(DataError) as refused:
        train.check_identity(run, data)
    assert f"other data (pages: 4 then, 5 now; images: {'a' * 60} then, {'b' * 60} now). Restore" in str(refused.value)
    data.identity = lambda: first | {"more": "m"}
    with pytest.raises(DataError, match=r"other data \(more: None then, m now\)"):
        train.check_identity(run, data)
    assert run.read_json("data") == first
    (run.path / "data.json").unlink()
    with pytest.raises(StorageError, match=r"data\.json is gone"):
        train.check_identity(run, data)


def images(lost: int, pages: int) -> SimpleNamespace:
    """Two panels per page, the first without a box; of the last pages no image can be read."""
    panels = np.arange(2 * pages)
    page = panels // 2
    report = SimpleNamespace(
        problems=Counter({"cut": 1, "gone": 1200, "odd": 3, "never": 0}),
        examples={"cut": ["c1"], "gone": ["g1", "g2"], "odd": ["o1"], "never": ["n1"]},
    )
    has_box = panels % 2 == 1
    rows = np.where(has_box & (page < pages - lost), page, -1)
    table = SimpleNamespace(page_of_panel=page, has_box=has_box)
    return SimpleNamespace(table=table, features=SimpleNamespace(image_rows=rows, report=report))


def test_too_many_pages_without_an_image_are_refused_with_what_is_wrong_most_often():
    config = Config(max_without_image=0.25)
    train.check_images(config, images(2, 8))
    with pytest.raises(DataError) as refused:
        train.check_images(config, images(3, 8))
    assert str(refused.value).startswith(
        "3 of 8 pages with boxes have no image that can be read, more than max_without_image 25"
    )
    assert "; gone 1,200, first g1; odd 3, first o1; cut 1, first c1. Repair" in str(refused.value)


def test_a_run_begins_with_its_sizes_in_one_line(tmp_path):
    run = synthetic.run(tmp_path / "r", lr=0.5)
    pages = {"train": [0, 1, 2], "val": [3, 4], "test": [5]}
    panel_set = SimpleNamespace(rows_of=lambda of: np.arange(7 * len(of)))
    data = SimpleNamespace(pages=pages.get, panel_set=panel_set)
    weights = [np.zeros(1000), np.zeros((2, 100))]
    weights = [SimpleNamespace(numel=lambda w=w: w.size) for w in weights]
    everything = SimpleNamespace(parameters=lambda: weights)
    trainer = SimpleNamespace(everything=everything, total_steps=1, device="cpu", peak=0.5)
    line = train.start_line(run, data, trainer)
    assert line == (f"training {run.path}: 1,200 parameters, 3 pages to train, 2 to choose, 1 held out; 1 step on cpu")
    trainer.peak = 0.123
    lowered = "; lr 0.5 lowered to 0.12, for there are only 21 training panels (lr_panels)"
    assert train.start_line(run, data, trainer) == line + lowered


def test_a_result_is_of_the_validation_that_chose(tmp_path):
    run = synthetic.run(tmp_path / "r")
    run.set_status("stopped", step=6)
    nothing = train.result(run)
    assert nothing == {
        "run": str(run.path), "state": "stopped", "step": 6, "best_step": None, "selected_by": None, "validation": {},
        "added": None,
    }  # fmt: skip
    next_one = f"next: python -m stage3.evaluate --run {run.path}"
    assert train.summary_lines(run, nothing) == [f"stopped at step 6: {run.path}", next_one]
    for step, value in ((2, 0.123456), (4, 0.25)):
        run.append_metrics({"step": step, "split": "val", "m/r": value})
        run.save_checkpoint(step, {}, {"step": step})
    run.set_best(2, 0.123456, "m/r")
    run.write_json("baselines", {"sentence": "added 3", "retrieval": [{"sentence": "above chance"}]})
    found = train.result(run)
    assert (found["best_step"], found["selected_by"], found["validation"]) == (2, "m/r", {"m/r": 0.123456})
    assert train.summary_lines(run, found)[1:] == [
        "best checkpoint: step 2, m/r 0.1235", "validation pages: added 3", "  above chance", next_one,
    ]  # fmt: skip


def test_the_command_hands_on_what_is_asked_and_prints_the_end(tmp_path, monkeypatch, capsys):
    run, calls = synthetic.run(tmp_path / "r"), []

    def train_run(path: str, settings, **more):
        calls.append((path, dict(settings), more["config"], more["allow_inexact_resume"]))
        more["tell"]("a line on the way")
        return Follower(run.path, run.config) if len(calls) == 3 else run

    monkeypatch.setattr(command, "train_run", train_run)
    name = str(run.path)
    assert command.main(["--run", name, "--lr", "0.25", "--config", "c.yaml"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == ["a line on the way", *train.summary_lines(run, train.result(run))]
    assert command.main(["--run", name, "--allow_inexact_resume", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == train.result(run)
    assert command.main(["--run", name]) == 0
    assert capsys.readouterr().out.splitlines() == ["a line on the way"]
    shown = [(Path(path), settings, config, inexact) for path, settings, config, inexact in calls]
    assert [(c[0], c[2] and str(c[2]), c[3]) for c in shown] == [
        (run.path, "c.yaml", False), (run.path, None, True), (run.path, None, False),
    ]  # fmt: skip
    assert [c[1] for c in shown] == [{"lr": "0.25"}, {}, {}]


def test_a_stop_ends_the_command_as_one_and_under_torchrun_as_done(tmp_path, monkeypatch, capsys):
    def stopped(*_: object, **__: object):
        raise Interrupted("stopped after step 3")

    monkeypatch.setattr(command, "train_run", stopped)
    with pytest.raises(Interrupted):
        command.main(["--run", str(tmp_path / "r")])
    monkeypatch.setattr("stage3.peers.by_torchrun", lambda: True)
    assert command.main(["--run", str(tmp_path / "r")]) == 0
    assert "stopped after step 3" in capsys.readouterr().out
