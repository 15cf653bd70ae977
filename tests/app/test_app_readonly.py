"""An explorer for looking only: views offer nothing that changes anything, and what would change it refuses."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import app_support
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from app.parts import boxes
from app.store import embeds, imports, jobs, loaders, places, readonly, uploads
from stage3.data import correct
from stage3.errors import ConfigError

pytestmark = pytest.mark.slow

UI = Path(__file__).parents[2] / "app" / "ui.py"
CHANGES = {  # keys of buttons and fields that begin a change
    "add": ("add-continue", "add-from"),
    "data": ("data_add",),
    "page": ("page-correct",),
    "retrain": ("retrain-start", "retrain-embed"),
    "runs": ("open-retrain",),
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return app_support.workspace(tmp_path_factory.mktemp("looking"))


def opened(view: str, **session: str) -> AppTest:
    app = AppTest.from_file(str(UI), default_timeout=60)
    for name, value in session.items():
        app.session_state[name] = value
    app.query_params["view"] = view
    app.query_params["run"] = "samples/first"
    return app.run()


def keys(app: AppTest) -> set[str]:
    kinds = (app.button, app.text_input, app.button_group, app.selectbox, app.toggle, app.get("file_uploader"))
    return {str(element.key) for kind in kinds for element in kind if getattr(element, "key", None)}


def everything_below(folder: Path) -> dict[str, bytes]:
    places_of = ("inspection", "evaluation-", "projections", ".stage3")  # what is computed to be shown
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(p): p.read_bytes() for p in files if not any(part in str(p) for part in places_of)}


@pytest.mark.parametrize("view", CHANGES)
def test_a_view_offers_no_change(view: str, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    before = opened(view)
    assert not before.exception
    assert set(CHANGES[view]) & keys(before), "what is looked for is there otherwise"
    monkeypatch.setenv(readonly.VARIABLE, "1")
    kept = everything_below(workspace)
    app = opened(view)
    assert not app.exception
    assert not set(CHANGES[view]) & keys(app)
    assert not app.get("file_uploader")
    if view in ("retrain", "add"):
        assert readonly.TITLE in [element.value for element in app.subheader]
    assert everything_below(workspace) == kept


def test_search_takes_words_but_no_images(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    assert opened("search", search_kind="image").get("file_uploader")
    monkeypatch.setenv(readonly.VARIABLE, "yes")
    app = opened("search", search_kind="image")
    assert not app.exception
    assert not app.get("file_uploader")
    assert opened("search", search_kind="words").text_input(key="search_words")


def test_every_function_that_changes_something_refuses(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    run = loaders.entry("samples/first").run
    made = imports.create("kept", "a folder", workspace)
    picture = io.BytesIO()
    Image.new("RGB", (32, 32)).save(picture, "PNG")
    kept = everything_below(workspace)
    monkeypatch.setenv(readonly.VARIABLE, "true")
    embed = embeds.Embed(workspace / "x.zarr", "first", "data", "running", "", 2**22 + 1, 0.0)
    calls: dict[str, Any] = {
        "train": lambda: jobs.start(run.config, "new"),
        "resume": lambda: jobs.resume(run),
        "seeds": lambda: jobs.start_seeds(run, 1),
        "cancel": lambda: jobs.cancel(run),
        "add": lambda: imports.create("new", "a folder", workspace),
        "look": lambda: imports.look(made, made.choice),
        "import": lambda: imports.start(made),
        "discard": lambda: imports.discard(made),
        "upload": lambda: uploads.keep([("a.png", picture.getvalue())], workspace / "uploaded", "a"),
        "embed": lambda: embeds.start(run, run.config),
        "end embedding": lambda: embeds.cancel(embed),
        "name data": lambda: places.name(run, "data"),
    }
    for name, call in calls.items():
        with pytest.raises(ConfigError, match="for looking only"):
            call()
        assert everything_below(workspace) == kept, name


def test_boxes_that_come_from_a_browser_all_the_same_are_not_saved(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the dialog had been open when the explorer was restarted for looking only."""
    monkeypatch.chdir(workspace)
    monkeypatch.setenv(readonly.VARIABLE, "1")
    monkeypatch.setattr(boxes.components, "box_editor", lambda data, key: {"save": [{"of": 0, "box": None}]})
    run = loaders.entry("samples/first").run

    def page() -> None:
        from app import shell
        from app.parts import boxes
        from app.store import loaders

        boxes._editor(shell.Chosen("samples/first", loaders.entry("samples/first").run, None, True), 0)

    app = AppTest.from_function(page, default_timeout=60).run()
    assert not app.exception
    assert any("for looking only" in element.value for element in app.code)
    assert correct.corrected_pages(loaders.config_here(run.config)) == []


@pytest.mark.parametrize(("value", "on"), [("1", True), ("yes", True), ("", False), ("0", False), ("False", False)])
def test_the_variable_switches_it(value: str, on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(readonly.VARIABLE, value)
    assert readonly.on() is on
