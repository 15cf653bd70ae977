"""A hundred runs: filtered, grouped by data set, the picked one in view, and cheap to come back to."""

from __future__ import annotations

import shutil
import time
from itertools import pairwise
from pathlib import Path

import app_support
import pytest
from streamlit.testing.v1 import AppTest

from app.store import loaders
from stage3.runs import RunFolder

pytestmark = pytest.mark.slow
UI = Path(__file__).parents[2] / "app" / "ui.py"
MANY = 130


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """Copies of one run without checkpoints: three data sets, seeds, names that sort differently from their times."""
    folder = app_support.workspace(tmp_path_factory.mktemp("crowd"), books=6, pages=3, panels=3, epochs=2)
    first = RunFolder.load(folder / "data" / "samples" / "runs" / "first")
    for i in range(MANY - 1):
        path = folder / "runs" / f"copy-{(i * 37) % (MANY - 1):03d}"
        path.mkdir()
        for name in ("metrics.jsonl", "best.json", "status.json"):
            shutil.copy(first.path / name, path / name)
        listed = {"data": "", "manifest": "lists/pages.csv", "panels": "lists/panels"}
        place = ({"data": "data/other"}, {"data": first.config.data}, listed)[i % 3]
        (path / "config.yaml").write_text(first.config.replace(seed=i, **place).to_yaml(), encoding="utf-8")
    return folder


def opened(**params: str) -> AppTest:
    app = AppTest.from_file(str(UI), default_timeout=120)
    for name, value in {"view": "runs", **params}.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception
    return app


def table(app: AppTest):
    return next(d.value for d in app.dataframe if "same_page" in d.value.columns)


def test_the_picked_run_is_in_view_and_data_sets_stand_together(crowd, monkeypatch):
    monkeypatch.chdir(crowd)
    app = opened(run="runs/copy-123", pick="runs/copy-123")
    rows = table(app)
    assert len(rows) == MANY
    assert rows["run"][0] == "runs/copy-123"
    rest = rows["data"][1:].tolist()
    assert sum(a != b for a, b in pairwise(rest)) == 2  # three groups
    assert rows.set_index("run").loc["runs/copy-123", "seed"] == loaders.entry("runs/copy-123").run.config.seed
    assert any("runs/copy-123" in t.value for t in app.text)


def test_words_and_a_data_set_narrow_the_list(crowd, monkeypatch):
    monkeypatch.chdir(crowd)
    app = opened()
    app.text_input(key="runs-words").set_value("copy-01 finished").run()
    assert sorted(table(app)["run"]) == [f"runs/copy-01{i}" for i in range(10)]
    app.selectbox(key="runs-data").set_value("data/other").run()
    narrowed = table(app)
    assert 0 < len(narrowed) < 10
    assert set(narrowed["data"]) == {"other"}
    app.selectbox(key="runs-data").set_value("").run()
    app.text_input(key="runs-words").set_value("lists/pages").run()
    of_manifest = sorted(table(app)["run"])
    assert len(of_manifest) == MANY // 3
    app.text_input(key="runs-words").set_value("").run()
    app.selectbox(key="runs-data").set_value("lists/pages.csv").run()
    assert sorted(table(app)["run"]) == of_manifest
    app.text_input(key="runs-words").set_value("no such run").run()
    assert len(table(app)) == MANY
    assert "No run fits: all are shown" in [t.value for t in app.text]


def test_a_second_visit_opens_no_run_again_and_a_changed_one_is_seen(crowd, monkeypatch):
    monkeypatch.chdir(crowd)
    opened(run="samples/first")
    read = []
    real = RunFolder.load.__func__
    monkeypatch.setattr(RunFolder, "load", classmethod(lambda cls, path: (read.append(path), real(cls, path))[1]))
    parsed = []
    metrics = RunFolder.metrics
    monkeypatch.setattr(RunFolder, "metrics", lambda self: (parsed.append(self.name), metrics(self))[1])
    opened(run="samples/first")
    assert (read, parsed) == ([], [])
    changed = crowd / "runs" / "copy-007"
    run = RunFolder(changed, loaders.entry("runs/copy-007").run.config)
    read.clear()
    time.sleep(0.02)
    run.write_config(run.config.replace(epochs=9))
    rows = table(opened(run="samples/first")).set_index("run")
    assert rows.loc["runs/copy-007", "epochs"] == 9
    assert {Path(p).name for p in read} <= {"copy-007"}
