"""What sessions share: one figure a checkpoint, look and choice; and what opening a large run leaves for the next."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import app_support
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest

from app import shell
from app.charts import theme
from app.store import loaders, map_jobs, thumbs, watch
from app.store.cache import Memory
from app.views import map_parts
from stage3.batches.dataset import Dataset
from stage3.config import Config
from stage3.data import column_file, readers
from stage3.errors import StorageError
from stage3.model import embedding
from stage3.projection.files import Job
from stage3.runs import RunFolder, inspection

pytestmark = pytest.mark.slow

UI = Path(__file__).parents[2] / "app" / "ui.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return app_support.world(tmp_path_factory.mktemp("shared"))


@pytest.fixture
def made(folder, monkeypatch):
    """Keys of the figures that were drawn, not taken from memory."""
    monkeypatch.chdir(folder)
    drawn: list[tuple] = []

    class Counting(Memory):
        def get(self, key, make):
            return super().get(key, lambda: (drawn.append(key), make())[1])

    for module in (theme, map_parts):
        monkeypatch.setattr(module, "_figures", Counting(200))
    monkeypatch.setattr(map_jobs, "ensure", lambda *_, **__: Job("running"))  # no child: principal components are shown
    return drawn


def session(view: str, run: str) -> AppTest:
    app = AppTest.from_file(str(UI), default_timeout=60)
    app.query_params["view"], app.query_params["run"] = view, run
    app.run()
    assert not app.exception
    return app


def specs(app: AppTest) -> list[str]:
    return [chart.proto.spec for chart in app.get("plotly_chart")]


@pytest.mark.parametrize("view", ["losses", "map"])
def test_two_sessions_get_the_same_figures_and_another_checkpoint_others(view, made):
    first = specs(session(view, "samples/first"))
    count = len(made)
    assert first
    assert count == len(set(made)) == len(first)
    assert specs(session(view, "samples/first")) == first
    assert len(made) == count  # nothing was drawn again
    assert specs(session(view, "runs/second")) != first
    assert len(made) > count


def test_a_run_that_goes_on_is_drawn_again(made, folder):
    before = specs(session("losses", "runs/second"))
    path = folder / "runs" / "second" / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    try:
        assert specs(session("losses", "runs/second")) != before
    finally:
        path.write_bytes(whole)


def test_light_and_dark_have_figures_of_their_own(monkeypatch):
    drawn = []
    for dark in (False, True, False):
        monkeypatch.setattr(theme, "is_dark", lambda dark=dark: dark)
        drawn.append(theme.kept(("a test",), lambda: theme.style(theme.go.Figure())))
    assert drawn[0] is drawn[2] is not drawn[1]
    looks = [figure.layout.template.layout for figure in drawn]
    assert looks[0].font.color == theme.LIGHT.text
    assert looks[1].font.color == theme.DARK.text


# --- columns kept with the run


@pytest.fixture
def opened(folder, monkeypatch):
    """A run, and what its columns are made of; so small a set is kept too."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(inspection, "KEPT_FROM", 1)
    run = RunFolder.load("runs/second")
    data, model = Dataset.load(run.config, progress=False), loaders.load_model(run)
    return run, data, model, embedding.embed(model, data.panel_set, data.pages("all"))


def files(run: RunFolder) -> list[Path]:
    return sorted((run.path / "inspection").glob("*"))


def columns(opened) -> dict[str, np.ndarray]:
    run, *parts = opened
    return inspection.kept_columns(run, run.best().step, *parts)


def forget(run: RunFolder) -> None:
    for path in files(run):
        path.unlink()


def test_kept_columns_are_those_that_were_measured_and_are_not_measured_again(opened, monkeypatch):
    run, data, model, embedded = opened
    forget(run)
    first = columns(opened)
    assert [p.suffix for p in files(run)] == [".arrow"]
    monkeypatch.setattr(inspection, "measured_columns", lambda *_: pytest.fail("measured again"))
    again = columns(opened)
    assert list(again) == list(first) == list(inspection.MEASURED)
    for name, values in again.items():
        np.testing.assert_array_equal(values, first[name])
    frames = [inspection.panel_frame(data, model, embedded, c) for c in (first, again)]
    pd.testing.assert_frame_equal(*frames)


def forge(path: Path, **changes: object) -> None:
    """Change what a file of columns says of itself, and seal it again."""
    whole = path.read_bytes()[:-40]
    start = whole.rindex(b'{"format"')
    said = json.loads(whole[start:])
    for name, value in changes.items():
        said[name] = value(said[name]) if callable(value) else value
    described = json.dumps(said).encode()
    sealed = whole[:start] + described + len(described).to_bytes(8, "little")
    path.write_bytes(sealed + hashlib.sha256(sealed).digest())


FORGED = {
    "rows": {"rows": 10**30},
    "no rows": {"rows": None},
    "fewer rows": {"rows": lambda n: n - 1},
    "objects": {"columns": lambda c: {name: at | {"dtype": "O"} for name, at in c.items()}},
    "beyond": {"columns": lambda c: {name: at | {"data": 10**9} for name, at in c.items()}},
    "texts": {"columns": lambda c: {name: at | {"offsets": 0} for name, at in c.items()}},
    "no columns": {"columns": {}},
    "a list": {"columns": []},
    "two swapped": {"columns": lambda c: dict(sorted(c.items()))},
}


@pytest.mark.parametrize("harm", ["a bit", "cut", "empty", "other columns", "float16", "too large", *FORGED])
def test_a_damaged_file_is_measured_again_and_replaced(opened, harm):
    run = opened[0]
    forget(run)
    first = columns(opened)
    (path,) = files(run)
    whole = path.read_bytes()
    if harm == "a bit":
        at = len(whole) - len(whole) // 3
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
    elif harm == "other columns":
        column_file.write(path, [{"loss_total": first["loss_total"]}])
    elif harm == "float16":
        column_file.write(path, [{name: values.astype(np.float16) for name, values in first.items()}])
    elif harm == "too large":
        path.write_bytes(whole + bytes(2 * len(whole) + 2**20))
    elif harm in FORGED:
        forge(path, **FORGED[harm])
        with pytest.raises(StorageError, match="damaged"):
            inspection._read_columns(path, len(opened[1].table))
    else:
        path.write_bytes(whole[:200] if harm == "cut" else b"")
    again = columns(opened)
    for name, values in first.items():
        np.testing.assert_array_equal(values, again[name])
    assert path.read_bytes() == whole


def test_another_checkpoint_data_or_version_has_another_file(opened, monkeypatch):
    run, data, model, _ = opened
    step = run.best().step
    path = inspection._columns_path(run, step, data, model)
    others = [c.step for c in run.checkpoints() if c.step != step]
    assert others
    assert inspection._columns_path(run, others[0], data, model) != path
    moved = Dataset(data.table, data.features, np.roll(data.split, 1))
    assert inspection._columns_path(run, step, moved, model) != path
    monkeypatch.setattr(inspection, "COLUMNS", inspection.COLUMNS + 1)
    assert inspection._columns_path(run, step, data, model) != path


def test_a_run_that_cannot_be_written_to_is_measured(opened, monkeypatch):
    forget(opened[0])

    def full(*_: object, **__: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(inspection, "replacing", full)
    assert list(columns(opened)) == list(inspection.MEASURED)
    assert not files(opened[0])


def test_a_small_set_leaves_nothing(opened, monkeypatch):
    forget(opened[0])
    monkeypatch.setattr(inspection, "KEPT_FROM", 10**6)
    columns(opened)
    assert not files(opened[0])


# --- files that change under a running explorer


@pytest.fixture
def repaired(folder, tmp_path, monkeypatch):
    """A run on comics of its own, whose files are looked at every time."""
    monkeypatch.setattr(watch, "SECONDS", 0.0)
    monkeypatch.setattr(watch, "SHARE", 0)
    comics = app_support.write_comics(tmp_path / "comics", books=3, pages=2, panels=2)
    run = RunFolder.load(folder / "runs" / "second")
    run.config = run.config.replace(data=str(comics))
    monkeypatch.setattr(loaders, "entry", lambda run_id: loaders.Entry(run_id, run, False))
    return run, comics


def test_an_image_that_is_overwritten_in_place_is_seen_everywhere(repaired):
    run, comics = repaired
    row = int(np.flatnonzero(loaders.open_dataset(run).table.panels["panel_id"] == "book001/page001#1")[0])
    chosen = shell.Chosen("runs/second", run, None, False)
    address, shown = shell.thumb_url(chosen, row), thumbs.image("runs/second", "panel", row, 240)
    at = loaders.embedded(run).rows.tolist().index(row)
    vector = loaders.embedded(run).image[at]
    assert shell.thumb_url(chosen, row) == address
    Image.new("RGB", (300, 100), "purple").save(comics / "pages" / "b001p001.png")
    assert shell.thumb_url(chosen, row) != address
    assert thumbs.image("runs/second", "panel", row, 240) != shown
    assert not torch.equal(loaders.embedded(run).image[at], vector)
    page = loaders.open_dataset(run).table.pages.set_index("page_id").loc["book001/page001"]
    assert (page["width"], page["height"]) == (300, 100)


def test_a_panel_file_that_is_overwritten_in_place_is_seen(repaired):
    run, comics = repaired
    assert len(loaders.panel_frame(run)) == 12
    path = comics / "panels" / "book001" / "page001.json"
    path.write_text('{"panels": [{"box_2d": [0, 0, 900, 900], "description": "repaired"}]}', encoding="utf-8")
    frame = loaders.panel_frame(run)
    assert len(frame) == 11
    assert frame.set_index("panel_id").loc["book001/page001#0", "text"] == "repaired"


@pytest.mark.parametrize("named", [{"data": "comics"}, {"manifest": "comics.csv"}])
def test_files_that_were_not_read_here_are_read_before_a_key_stands_for_them(named, monkeypatch):
    seen = [""]
    monkeypatch.setattr(loaders.watch, "stamp", lambda key, config: seen[0])
    monkeypatch.setattr(readers, "read", lambda config: seen.append(seen.pop() + "read once"))
    for _ in range(2):
        assert loaders.data_key(Config(**named))[-1] == "read once"


def test_files_are_looked_at_seldom_and_less_often_where_it_takes_long(monkeypatch):
    clock, looked = [100.0], []

    def look(_: object) -> str:
        looked.append(clock[0])
        clock[0] += 0.5  # it takes half a second
        return "as it is"

    monkeypatch.setattr(watch, "_looks", {})
    monkeypatch.setattr(watch.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(readers, "stamp", look)
    for _ in range(200):
        assert watch.stamp("key", None) == "as it is"
        clock[0] += 1.0
    assert looked == pytest.approx([100.0 + 51 * i for i in range(4)], abs=4)
