"""Curves of a run that trains are read again at a pace, and at once when it no longer does."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
import streamlit as st

from app.parts import followed
from stage3.config import Config
from stage3.runs import RunFolder


@pytest.fixture(autouse=True)
def _session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(st, "session_state", {})


def began(run: RunFolder, seconds: float) -> None:
    run.set_status("running", started=(datetime.now(UTC) - timedelta(seconds=seconds)).isoformat())


def steps(name: str, run: RunFolder) -> list[int]:
    return [int(step) for step in followed.source(name, run).frame["step"]]


def log(run: RunFolder, step: int) -> None:
    run.append_metrics({"step": step, "epoch": 1, "split": "train", "loss/total": 1.0})


def test_a_run_that_has_trained_for_long_is_not_read_each_second(tmp_path: Path) -> None:
    run, other = (RunFolder.create(tmp_path / name, Config()) for name in ("run", "other"))
    with run.lock(), other.lock():
        began(run, 3600)
        began(other, 3600)
        assert followed.source("run", run).frame.empty
        log(run, 1)
        assert steps("run", run) == [1], "nothing was shown before, so the first row is"
        log(other, 7)
        assert steps("other", other) == [7]
        log(run, 2)
        log(other, 8)
        assert steps("run", run) == [1]
        assert steps("other", other) == [7]
        assert followed.source("run", run).stamp == followed.source("run", run).stamp
        assert steps("run (before)", run) == [1, 2], "under another name it is another curve"
        run.set_status("finished")
    log(run, 3)
    assert steps("run (before)", run) == [1, 2, 3]


def test_the_pace_is_a_tenth_of_what_the_run_has_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder.create(tmp_path / "run", Config())
    now = [1000.0]
    monkeypatch.setattr(followed.time, "monotonic", lambda: now[0])
    with run.lock():
        for at, (age, wait) in enumerate([(0, 2.0), (100, 10.0), (7200, 30.0)]):
            began(run, age)
            log(run, 3 * at)
            now[0] += 100
            shown = steps("run", run)
            assert shown[-1] == 3 * at
            log(run, 3 * at + 1)
            now[0] += wait - 0.5
            assert steps("run", run) == shown
            now[0] += 1
            assert steps("run", run) == [*shown, 3 * at + 1]


def test_a_row_that_comes_while_rows_are_read_is_drawn_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder.create(tmp_path / "run", Config())
    log(run, 1)
    read = followed.loaders.metrics

    def late(found: RunFolder) -> pd.DataFrame:
        frame = read(found)
        log(run, 2)
        return frame

    monkeypatch.setattr(followed.loaders, "metrics", late)
    first = followed.source("run", run)
    monkeypatch.setattr(followed.loaders, "metrics", read)
    then = followed.source("run", run)
    assert (len(first.frame), len(then.frame)) == (1, 2)
    assert first.stamp != then.stamp, "a chart that is kept by the stamp would lack the last row for good"


def test_a_session_keeps_few_runs(tmp_path: Path) -> None:
    runs = [RunFolder.create(tmp_path / f"run{i}", Config()) for i in range(followed.RUNS + 2)]
    for run in runs:
        with run.lock():
            began(run, 3600)
            log(run, 1)
            assert steps(run.name, run) == [1]
    assert list(st.session_state["_followed_curves"]) == [str(run.path) for run in runs[2:]]


def test_seconds_of_a_run() -> None:
    assert followed.seconds_between("2026-01-01T00:00:00+00:00", "2026-01-01T01:00:30+00:00") == 3630
    assert math.isnan(followed.seconds_between("", "2026-01-01T00:01:30+00:00"))
    assert followed.seconds_between(datetime.now(UTC).isoformat()) == pytest.approx(0, abs=5)
    assert math.isnan(followed.seconds_between("yesterday"))
