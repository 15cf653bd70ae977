"""How a run starts and ends beside the ordinary: refused input, names that are no paths, signals, leftovers, races."""

from __future__ import annotations

import os
import signal
import sys
import threading

import app_support
import forked
import pytest
import synthetic

from stage3 import cli, train
from stage3.config import Config
from stage3.errors import ConfigError, DataError, Interrupted
from stage3.runs import RunFolder
from stage3.train import trainer as trainer_module

DEAD = 2**22 - 7  # no process has it: the largest pid of this machine is below
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and names of POSIX")


@pytest.fixture(scope="module")
def comics(tmp_path_factory):
    return app_support.write_comics(tmp_path_factory.mktemp("comics") / "data", books=5, pages=2, panels=2)


@pytest.fixture(scope="module")
def data():
    return synthetic.dataset()


def settings(tmp_path, comics, **more):
    return {"data": str(comics), "cache_dir": str(tmp_path / "cache"), "epochs": 1, "dim": 16, **more}


@pytest.mark.parametrize("name", ["vision_backbone", "text_backbone"])
def test_an_unknown_backbone_leaves_no_run(tmp_path, comics, name):
    with pytest.raises((ConfigError, DataError), match="no-such-model"):
        train.train_run(tmp_path / "r", settings(tmp_path, comics, **{name: "no-such-model"}))
    assert not (tmp_path / "r").exists()


def test_a_run_that_was_prepared_keeps_its_folder_when_it_is_refused(tmp_path, comics):
    config = Config.from_mapping(settings(tmp_path, comics, vision_backbone="no-such-model"))
    RunFolder.create(tmp_path / "r", config)
    with pytest.raises((ConfigError, DataError)):
        train.train_run(tmp_path / "r", {})
    assert RunFolder.load(tmp_path / "r").status.state == "failed"


@pytest.mark.parametrize("bad", ["a" * 100_000, "a" * 256, "x\0y", "caf\udce9", "a\nb"])
def test_names_that_are_no_paths_are_refused_in_one_short_line(tmp_path, comics, bad):
    attempts = [
        lambda: train.train_run(bad, settings(tmp_path, comics)),
        lambda: train.train_run(tmp_path / "r", {"data": bad}),
        lambda: train.train_run(tmp_path / "r", {"manifest": bad, "panels": bad}),
        lambda: train.train_run(tmp_path / "r", settings(tmp_path, comics, cache_dir=bad)),
        lambda: train.train_run(tmp_path / "r", settings(tmp_path, comics, vision_backbone=bad)),
        lambda: train.train_run(tmp_path / "r", settings(tmp_path, comics), config=bad),
        lambda: RunFolder.load(bad),
    ]
    for attempt in attempts:
        with pytest.raises((ConfigError, DataError)) as caught:
            attempt()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400
    assert list(tmp_path.iterdir()) == []


def test_a_hang_up_stops_like_ctrl_c_and_nohup_still_ignores_it():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may themselves run under nohup
    try:
        with cli.stopping() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with cli.stopping() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_ctrl_c_in_a_save_after_sigterm_is_a_stop_and_the_rerun_ends_as_if_undisturbed(tmp_path, data, monkeypatch):
    run = synthetic.run(tmp_path / "r", checkpoint_steps=2, keep_checkpoints=0)
    real = RunFolder.save_checkpoint

    def pressed(self, step, *rest):
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, step, *rest)

    monkeypatch.setattr(RunFolder, "save_checkpoint", pressed)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        train.train_run(run.path, {}, data=data)
    status = RunFolder.load(run.path).status
    assert (status.state, status.exit_code) == ("stopped", 75)
    assert "nothing since step 0 was saved" in status.message
    monkeypatch.setattr(RunFolder, "save_checkpoint", real)
    train.train_run(run.path, {}, data=data)
    assert RunFolder.load(run.path).status.state == "finished"
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_killed_processes_left_is_gone_after_the_rerun(tmp_path, data, monkeypatch):
    run = synthetic.run(tmp_path / "r", embed_every=1)
    monkeypatch.setattr(trainer_module.Trainer, "_should_stop", lambda self, stop: self.step >= 1)
    with pytest.raises(Interrupted):
        train.train_run(run.path, {}, data=data)
    monkeypatch.undo()
    (run.path / "embeddings").mkdir(exist_ok=True)
    left = [
        run.path / f".tmp-best.json-{DEAD}",
        run.path / f".tmp-status.json-{DEAD}",
        run.path / "embeddings" / f".tmp-epoch-0001.safetensors-{DEAD}",
        run.path / "checkpoints" / f".tmp-00000004-{DEAD}",
    ]
    for path in left:
        path.write_bytes(b"half")
    train.train_run(run.path, {}, data=data)
    for path in left:
        assert not path.exists()
        path.write_bytes(b"half")
    train.train_run(run.path, {}, data=data)  # finished, and still cleared
    assert not any(path.exists() for path in left)


def test_a_page_digest_that_was_being_written_is_cleared(tmp_path):
    from stage3.features.page_digests import PageDigests

    left = tmp_path / f".tmp-pages.parquet-{DEAD}"
    left.write_bytes(b"half")
    page = tmp_path / "page.bin"
    page.write_bytes(b"x")
    digests = PageDigests(tmp_path, Config())
    digests.look(str(page))
    digests.save()
    assert not left.exists()
    assert (tmp_path / "pages.parquet").exists()


def test_of_three_starts_of_one_name_one_trains_and_the_others_are_told_why(tmp_path, data):
    run, told, held = synthetic.run(tmp_path / "r"), [], threading.Event()

    def other() -> None:
        code = (
            "import sys; sys.path[:0] = ['tests']; import synthetic; from stage3 import train\n"
            "from stage3.errors import Stage3Error\n"
            f"try: train.train_run({str(run.path)!r}, {{}}, data=synthetic.dataset())\n"
            "except Stage3Error as error: print(type(error).__name__, error); raise SystemExit(error.exit_code)"
        )
        held.wait(20)
        process = forked.start("-c", [code])
        out, _ = process.communicate(timeout=120)
        told.append((process.returncode, out))

    with run.lock():
        thread = threading.Thread(target=other)
        thread.start()
        held.set()
        thread.join()
        with pytest.raises(ConfigError, match="already a run"):
            RunFolder.create(run.path, Config())
    [(code, words)] = told
    assert code == 2
    assert f"is in use by process {os.getpid()}" in words
