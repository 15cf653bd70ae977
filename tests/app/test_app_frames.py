"""What opening a checkpoint leaves on the disk: the same frame the next time, and never that of something else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import app_support
import numpy as np
import pandas as pd
import pytest

from app.store import frames, loaders, map_jobs, watch
from app.store.cache import Memory
from stage3.data import table
from stage3.errors import StorageError
from stage3.projection import layouts
from stage3.runs import RunFolder, inspection
from stage3.runs.data import chosen_pages

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# A server that shows the first view, as the browser gets it, and says what it took.
FIRST_VIEW = """
import sys
from streamlit.testing.v1 import AppTest
view = AppTest.from_file(sys.argv[1], default_timeout=60).run()
assert not view.exception
print(len(view.get("plotly_chart")), "torch" in sys.modules)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return app_support.world(tmp_path_factory.mktemp("frames"))


@pytest.fixture
def run(folder, monkeypatch):
    """A run whose frame is on the disk, and a server that has just started."""
    monkeypatch.chdir(folder)
    restart(monkeypatch)
    found = RunFolder.load("runs/second")
    loaders.panel_frame(found)
    restart(monkeypatch)
    return found


def restart(monkeypatch) -> None:
    monkeypatch.setattr(loaders, "_frames", Memory(6))


def files(run: RunFolder) -> list[Path]:
    return sorted((Path(loaders.config_here(run.config).cache_dir) / "frames").glob("*.arrow"))


def refuse(*_: object) -> None:
    raise AssertionError("made again")


def test_the_next_server_shows_the_same_frame_and_opens_nothing(run, monkeypatch):
    parts, *_ = loaders._frame_parts(run, None)
    monkeypatch.setattr(table, "AT_ONCE", 5)
    made = list(parts())
    assert len(made) > 2  # made and written some rows at a time
    monkeypatch.setattr(loaders, "_frame_parts", refuse)
    again = loaders.frame(run)
    data, model, embedded = loaders.seen(run), loaders.load_model(run), loaders.embedded(run)
    whole = inspection.panel_frame(data, model, embedded)
    pd.testing.assert_frame_equal(pd.concat(made, ignore_index=True), whole, check_exact=True)
    pd.testing.assert_frame_equal(again.panels, whole, check_exact=True)
    assert again.file is not None
    again.file.give_back()  # what was read is read again
    pd.testing.assert_frame_equal(again.panels, whole, check_exact=True)
    assert again.table == loaders.open_dataset(run).table.fingerprint()
    assert again.dim == loaders.load_model(run).encoder.spec.dim
    assert loaders.panel_frame(run) is again.panels


def test_its_rows_are_those_that_are_embedded(run):
    rows = loaders.embedded_rows(run)
    np.testing.assert_array_equal(rows, loaders.embedded(run).rows.numpy())
    assert 0 < len(rows) < len(loaders.panel_frame(run))  # one panel at least is not embedded
    with pytest.raises(ValueError, match="read-only"):
        rows[0] = 7


def test_its_principal_components_are_computed_once(run, monkeypatch):
    asked = []
    whole = layouts.pca(loaders.panel_vectors(run))
    monkeypatch.setattr(layouts, "pca", lambda x: asked.append(len(x)) or whole)
    path = loaders.frame_place(run, None).with_suffix(frames.POSITIONS)
    n, shown = len(whole), []
    for damage in (lambda: None, lambda: None, lambda: path.write_bytes(path.read_bytes()[:-9] + b"damagedxx")):
        damage()
        monkeypatch.setattr(map_jobs, "_kept", Memory(4))
        shown.append(map_jobs.pca_positions(run, None))
    assert asked == [n, n]  # the second time they were read, the third time they were damaged
    for xy in shown:
        np.testing.assert_array_equal(xy, shown[0])
    np.testing.assert_array_equal(frames.read_positions(path, n), whole)
    with pytest.raises(StorageError, match="not the positions"):
        frames.read_positions(path, n - 1)


def test_each_checkpoint_has_a_frame_of_its_own(run, monkeypatch):
    steps = loaders.steps(run)
    assert len(steps) > 1
    shown = [loaders.panel_frame(run, step)["loss_total"].to_numpy() for step in steps]
    restart(monkeypatch)
    monkeypatch.setattr(loaders, "_frame_parts", refuse)
    for step, values in zip(steps, shown, strict=True):
        np.testing.assert_array_equal(loaders.panel_frame(run, step)["loss_total"].to_numpy(), values)
    assert not np.array_equal(*shown[:2], equal_nan=True)


@pytest.mark.parametrize("part", range(4))
def test_any_part_of_the_key_names_another_file(part, monkeypatch):
    key = ["fingerprint", ("data", "stamp"), (17, 4)]
    before = frames.place("cache", tuple(key))
    if part < 3:
        key[part] = ("other", key[part])
    else:
        monkeypatch.setattr(frames, "COLUMNS", frames.COLUMNS + 1)
    assert frames.place("cache", tuple(key)) != before


def test_its_version_is_that_of_the_columns_it_keeps():
    assert frames.COLUMNS == inspection.COLUMNS


def test_a_bit_that_flips_anywhere_is_noticed_and_the_frame_made_again(run, monkeypatch):
    path = frames.place(loaders.config_here(run.config).cache_dir, loaders.checkpoint_key(run))
    whole = path.read_bytes()
    for at in np.linspace(0, len(whole) - 1, 25).astype(int):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        with pytest.raises(StorageError, match="damaged"):
            frames.read(path)
    for cut in (b"", whole[:20], whole[:-1]):
        path.write_bytes(cut)
        with pytest.raises(StorageError, match="damaged"):
            frames.read(path)
    shown = loaders.panel_frame(run)
    restart(monkeypatch)
    pd.testing.assert_frame_equal(frames.read(path).panels, shown)


def test_files_that_have_changed_have_another_frame(run, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "SECONDS", 0.0)
    monkeypatch.setattr(watch, "SHARE", 0)
    comics = app_support.write_comics(tmp_path / "comics", books=3, pages=2, panels=2)
    run.config = run.config.replace(data=str(comics))
    assert len(loaders.panel_frame(run)) == 12
    path = comics / "panels" / "book001" / "page001.json"
    path.write_text('{"panels": [{"box_2d": [0, 0, 900, 900], "description": "repaired"}]}', encoding="utf-8")
    restart(monkeypatch)
    assert len(loaders.panel_frame(run)) == 11


def test_where_the_data_is_gone_no_frame_is_read_or_left(run, tmp_path, monkeypatch):
    held = files(run)
    run.config = run.config.replace(data=str(tmp_path / "gone"))
    made = pd.DataFrame({"modality": ["text"]})
    monkeypatch.setattr(loaders, "_frame_parts", lambda *_: (lambda: [made], "", 1))
    pd.testing.assert_frame_equal(loaders.frame(run).panels, made)
    assert files(run) == held


def test_a_cache_that_cannot_be_written_changes_nothing(run, monkeypatch):
    for path in files(run):
        path.unlink()

    def full(*_: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(frames, "keep", full)
    assert len(loaders.panel_frame(run)) == len(loaders.open_dataset(run).table)
    assert not files(run)


def test_those_that_were_not_used_for_long_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(frames, "MOST", 3)
    frame = [pd.DataFrame({"modality": ["text", frames.NOTHING], "x": [0.5, np.nan]})], "table", 8
    paths = [frames.place(str(tmp_path), n) for n in range(4)]
    for age, path in enumerate(paths[:3]):
        frames.keep(path, *frame)
        os.utime(path, (1000 + age, 1000 + age))
    frames.read(paths[0])  # now the second is the one that was not used for longest
    frames.keep(paths[3], *frame)
    assert [p.exists() for p in paths] == [True, False, True, True]
    monkeypatch.setattr(frames, "MOST_BYTES", 1)
    frames.keep(paths[1], *frame)
    assert [p.exists() for p in paths] == [False, True, False, False]


def test_the_first_view_of_a_checkpoint_that_was_shown_before_does_without_torch(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "data" / "samples", tmp_path / "data" / "samples")  # its run has a map already
    monkeypatch.chdir(tmp_path)
    loaders.panel_frame(loaders.default_entry(loaders.entries()).run)
    command = [sys.executable, "-c", FIRST_VIEW, str(ROOT / "app" / "ui.py")]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=True)
    assert ended.stdout.split() == ["1", "False"]


def test_a_diagnosis_judges_the_pages_that_an_evaluation_measures(run, monkeypatch):
    monkeypatch.setattr(loaders, "_other", Memory(16))
    monkeypatch.setattr(loaders, "MAX_EVALUATED", 2)
    data = loaders.open_dataset(run)
    pages = chosen_pages(run, data, None, 2)[1]
    found = loaders.diagnosis(run).numbers
    usable = np.isin(data.table.page_of_panel[loaders.embedded_rows(run)], pages)
    assert (found["pages"], found["panels"]) == (2, usable.sum())
    assert usable.sum() == loaders.evaluation(run)["panels"]
