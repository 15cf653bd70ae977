"""A run whose data has moved, or whose checkpoints are gone: what still works, what is said, and the way back."""

from __future__ import annotations

import shutil
from pathlib import Path

import app_support
import pytest
from streamlit.testing.v1 import AppTest

from app.store import loaders, places
from stage3.config import Config
from stage3.errors import ConfigError, DataError, InUse
from stage3.runs import RunFolder
from stage3.runs.data import differences, load_data

pytestmark = pytest.mark.slow

UI = Path(__file__).parents[2] / "app" / "ui.py"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run `runs/first` on a data set that was `data/comics` and is `elsewhere` now."""
    folder = tmp_path_factory.mktemp("moved")
    data = app_support.write_comics(folder / "data" / "comics")
    (folder / "runs").mkdir()
    app_support.make_run(folder / "runs", "first", data)
    data.rename(folder / "elsewhere")
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it whose data has moved from data/comics to data/archive/comics."""
    folder = tmp_path / "here"
    shutil.copytree(made, folder)
    run = RunFolder.load(folder / "runs" / "first")
    run.write_config(run.config.replace(data="data/comics", cache_dir=str(folder / "data" / "cache")))
    (folder / "data" / "archive").mkdir()
    (folder / "elsewhere").rename(folder / "data" / "archive" / "comics")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("STAGE3_DATA", raising=False)
    return folder


def opened(view: str) -> AppTest:
    app = AppTest.from_file(str(UI), default_timeout=180)
    app.query_params["view"], app.query_params["run"] = view, "runs/first"
    return app.run()


def said(app: AppTest) -> str:
    return "\n".join(str(e.value) for kind in (app.text, app.code, app.subheader, app.header) for e in kind)


@pytest.mark.parametrize("view", ["map", "search", "page", "data"])
def test_views_of_the_data_show_one_box_that_offers_the_new_place(view: str, here: Path) -> None:
    app = opened(view)
    assert not app.exception
    assert said(app).count("data/comics has no dataset.yaml") == 1
    assert app.selectbox(key="moved-to").options == ["data/archive/comics"]


@pytest.mark.parametrize("view", ["runs", "losses", "retrain"])
def test_views_of_what_the_run_recorded_go_on(view: str, here: Path) -> None:
    app = opened(view)
    assert not app.exception
    assert [s.key for s in app.selectbox if s.key == "moved-to"] == []
    assert "This did not work" not in said(app)


def test_map_search_and_page_go_on_from_the_cache(here: Path) -> None:
    run = loaders.entry("runs/first").run
    frame = loaders.panel_frame(run)
    assert len(frame) == 128
    assert differences(run, loaders.open_dataset(run)) == []
    moved_back = here / "data" / "comics"
    (here / "data" / "archive" / "comics").rename(moved_back)
    again = RunFolder.load(run.path)
    found = loaders.panel_frame(again)
    assert loaders.data_key(again.config)[-1], "the files count again"
    assert found["loss_total"].tolist() == pytest.approx(frame["loss_total"].tolist(), nan_ok=True)
    moved_back.rename(here / "data" / "archive" / "comics")
    page = opened("page")
    assert "The image of this page is missing" in said(page)
    assert "book000" in said(page)
    assert "Panels in reading order" in said(page)


def test_what_the_cache_does_not_hold_is_not_made_up(here: Path) -> None:
    shutil.rmtree(here / "data" / "cache" / "features")
    run = loaders.entry("runs/first").run
    with pytest.raises(ConfigError, match=r"has no dataset\.yaml"):
        loaders.open_dataset(run)
    app = opened("search")
    assert not app.exception
    assert "This view needs the data, and the cache does not hold all of it." in said(app)
    assert said(app).count("data/comics has no dataset.yaml") == 1


def test_the_data_view_shows_what_the_run_recorded(here: Path) -> None:
    assert {m.label: m.value for m in opened("data").metric}["Panels"] == "128"


def test_the_new_place_is_remembered_in_the_run_for_the_app_and_for_commands(here: Path) -> None:
    app = opened("page")
    app.button(key="moved-use").click().run()
    assert not app.exception
    assert "moved-to" not in [s.key for s in app.selectbox]
    assert "book000" in said(app)
    run = RunFolder.load(here / "runs" / "first")
    assert run.config.data == "data/archive/comics"
    assert differences(run, load_data(run)) == []
    assert "moved-to" not in [s.key for s in opened("map").selectbox]


def test_another_data_set_is_refused_and_the_run_stays_as_it_is(here: Path) -> None:
    other = app_support.write_comics(here / "data" / "other", books=1, pages=1)
    for path in (other / "manifest.csv", other / "labels.json"):
        path.write_text(path.read_text().replace("book000/", "elsewhere/"))
    (other / "panels" / "book000").rename(other / "panels" / "elsewhere")
    run = RunFolder.load(here / "runs" / "first")
    with pytest.raises(DataError, match="data/other is another data set: none of the 8 books of first is there"):
        places.name(run, "data/other")
    for label in ("data/../..", "/etc", "", "data/comics"):
        with pytest.raises(DataError, match="no data set is called"):
            places.name(run, label)
    assert RunFolder.load(run.path).config.data == "data/comics"


def test_a_place_where_books_are_missing_is_taken_and_said(here: Path) -> None:
    manifest = here / "data" / "archive" / "comics" / "manifest.csv"
    rows = manifest.read_text().splitlines()
    manifest.write_text("\n".join(row for row in rows if not row.startswith("book003/")) + "\n")
    run = RunFolder.load(here / "runs" / "first")
    said_of = places.name(run, "data/archive/comics")
    assert said_of == "data/archive/comics differs from what first was trained on: 1 of its books are missing"


def test_a_run_that_is_being_trained_keeps_its_place(here: Path) -> None:
    run = RunFolder.load(here / "runs" / "first")
    with RunFolder.load(run.path).lock(), pytest.raises(InUse):
        places.name(run, "data/archive/comics")


def test_where_nothing_is_offered_it_says_how_to_name_a_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "data" / "archive").rename(here / "far")
    app = opened("map")
    assert "name the folder that holds it in STAGE3_DATA" in said(app)
    monkeypatch.setenv("STAGE3_DATA", str(here / "far"))
    assert opened("map").selectbox(key="moved-to").options == ["far/comics"]
    run = RunFolder.load(here / "runs" / "first")
    assert places.moved(run.config, here / "far" / "comics").data == "far/comics"


def test_parts_of_the_old_place_are_forgotten_and_other_settings_kept(here: Path) -> None:
    config = Config(manifest="old/m.csv", panels="old/p", labels="old/l", panel_format="ocr", remap=("a=b",), epochs=3)
    found = places.moved(config, here / "data" / "archive" / "comics")
    assert found == Config(data="data/archive/comics", epochs=3)


def test_a_finished_run_without_checkpoints_waits_for_nothing(here: Path) -> None:
    shutil.rmtree(here / "runs" / "first" / "checkpoints")
    app = opened("map")
    assert not app.exception
    assert "The checkpoints of this run are gone" in said(app)
    assert "first epoch" not in said(app)
    run = loaders.entry("runs/first").run
    run.set_status("failed", message="the disk is full", exit_code=4)
    title, about = loaders.without_checkpoint(run)
    assert title == "This run has no checkpoint"
    assert "the disk is full" in about
    run.set_status("created")
    assert "after its first epoch" in loaders.without_checkpoint(run)[1]
