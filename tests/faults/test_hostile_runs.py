"""Run folders as an enemy or a failing disk would leave them cost nothing but their own row."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import app_support
import pytest
import torch
from streamlit.testing.v1 import AppTest

from app.store import jobs, loaders
from app.store.cache import Memory
from stage3.config import Config
from stage3.errors import Stage3Error
from stage3.runs import RunFolder, curves, list_broken, list_runs
from stage3.runs.data import recorded
from tests.faults.hostile_runs import CASES, NOT_UTF8, plant

UI = Path(__file__).parents[2] / "app" / "ui.py"
SECONDS = 3.0  # of CPU; the slowest takes 0.3
READABLE = (  # damage that is not a damaged run: it opens, and what is wrong is said where it is looked at
    *("config-date", "config-real-date", "config-empty", "config-cache-elsewhere", "config-no-limit"),
    *("best-elsewhere", "nothing-inside", "stop-folder", "lock-folder", "checkpoints-file"),
)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    run = RunFolder.create(tmp_path_factory.mktemp("good") / "good", Config(data="nowhere"))
    run.append_metrics({"step": 3, "epoch": 1, "split": "val", "loss/total": 1.5})
    run.save_checkpoint(3, {"model": {"w": torch.ones(2)}}, {"step": 3})
    run.set_best(3, 0.5, "retrieval/mean_r5")
    run.write_json("data", {"table": "t", "features": "f", "books": {"train": ["a"]}})
    return run.path


def look(path: Path) -> list[str]:
    """Everything that a list of runs and its details ask of a run; the reasons it gives."""
    said = []
    try:
        run = RunFolder.load(path)
    except Stage3Error as error:
        return [str(error)]
    for ask in (
        lambda: (run.status.updated, run.is_live, run.stop_requested, run.config.to_yaml()),
        lambda: run.checkpoint(),
        lambda: curves.series(run.metrics(), "loss/total", "val"),
        lambda: curves.best_validation(run.metrics(), run.best()),
        lambda: recorded(run),
        lambda: run.read_json("environment"),
        lambda: jobs.read(run),
        lambda: jobs.tail(run),
    ):
        try:
            ask()
        except Stage3Error as error:
            said.append(str(error))
    return said


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_run_ends_in_words_or_in_nothing_at_all(good, tmp_path, name):
    path = plant(good, tmp_path, name)
    began = time.process_time()
    said = look(path)
    listed, broken = list_runs([tmp_path]), list_broken([tmp_path])
    assert time.process_time() - began < SECONDS
    assert len(listed) + len(broken) == 1
    for line in (*said, *(why for _, why in broken)):
        assert "\n" not in line
        assert len(line) < 1000
    if name.startswith(("config-", "best-", "data-")) and name not in (*READABLE, "data-report-types"):
        assert [at for at, _ in broken] == [path]
        assert any(part in broken[0][1] for part in ("settings cannot be read", "damaged", "not a regular file"))
    if name.startswith("status-"):
        assert [(run.status.state, "status.json" in run.status.message) for run in listed] == [("failed", True)]
    if name.startswith("metrics-") and name not in ("metrics-fifo", "metrics-folder"):
        frame = listed[0].metrics()
        assert frame.attrs["damaged_lines"] > 0
        kinds = frame.drop(columns="split").dtypes
        assert all(kind.kind in "fi" for kind in kinds), "every metric but the split is a number"


def test_the_cases_are_not_fewer_than_they_were():
    assert len(CASES) >= (70 if sys.platform == "win32" else 85)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has names that are not UTF-8")
@pytest.mark.slow
def test_the_explorer_lists_hostile_runs_with_their_reason_and_shows_the_others(tmp_path_factory, monkeypatch):
    folder = app_support.workspace(tmp_path_factory.mktemp("hostile"), books=6, pages=3, panels=3, epochs=1)
    monkeypatch.chdir(folder)
    good = folder / "data" / "samples" / "runs" / "first"
    for name in CASES:
        plant(good, folder / "runs", name)
    shutil.copytree(good, folder / "runs" / NOT_UTF8)
    for view in ("runs", "retrain"):
        app = AppTest.from_file(str(UI), default_timeout=60)
        app.query_params["view"], app.query_params["run"] = view, "samples/first"
        app.run()
        assert not app.exception
        assert app.session_state["_chosen"].id == "samples/first"
        if view == "runs":
            named = next(d.value for d in app.dataframe if "reason" in d.value.columns)
    expected = {f"runs/{os.fsencode(NOT_UTF8).decode(errors='replace')}"} | {
        f"runs/{name}"
        for name in CASES
        if name.startswith(("config-", "best-", "data-")) and name not in (*READABLE, "data-report-types")
    }
    assert set(named["folder"]) == expected
    assert all(named["reason"].str.len() > 10)
    read = []
    real = Config.recorded
    monkeypatch.setattr(Config, "recorded", classmethod(lambda cls, path: (read.append(path), real(path))[1]))
    monkeypatch.setattr(loaders, "_folders", Memory(5000))  # as after a run's status has changed
    assert len(loaders.broken()) == len(expected)
    assert read == [], "what could not be read is not read again before it changes"
