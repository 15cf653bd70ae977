"""Every fragment and callback of the explorer ends in the error box, and a map of a running run never breaks."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import app_support
import pytest
from streamlit.testing.v1 import AppTest

from app import guard
from app.store import loaders, map_jobs
from app.views import map_column

APP = Path(__file__).parents[2] / "app"
WRAPPING = {"show", "chips", "zoom", "cards"}  # these wrap what they are given


def calls(path: Path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node


def name_of(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


@pytest.mark.parametrize("path", sorted(APP.rglob("*.py")), ids=lambda p: str(p.relative_to(APP)))
def test_every_callback_of_a_widget_goes_through_the_box(path):
    for call in calls(path):
        for keyword in call.keywords:
            value = keyword.value
            if not (keyword.arg or "").startswith("on_") or isinstance(value, ast.Constant):
                continue
            if isinstance(value, ast.IfExp):  # `callback(f) if callable(f) else f`
                value = value.body
            wrapped = isinstance(value, ast.Call) and name_of(value.func) == "callback"
            nothing = isinstance(value, ast.Lambda) and isinstance(value.body, ast.Constant)
            own = name_of(call.func) in WRAPPING or keyword.arg in ("on_choose", "on_pick", "on_query", "on_zoom")
            assert wrapped or nothing or own, f"{path}:{value.lineno}: wrap {keyword.arg} in shell.callback"


@pytest.mark.parametrize("path", sorted(APP.rglob("*.py")), ids=lambda p: str(p.relative_to(APP)))
def test_every_fragment_goes_through_the_box(path):
    uses = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Attribute)]
    plain = [n for n in uses if n.attr == "fragment" and name_of(n.value) == "st"]
    assert len(plain) == (1 if path.name == "guard.py" else 0), f"{path}: use shell.fragment"


def test_a_callback_that_fails_is_told_when_the_page_is_drawn():
    def script() -> None:
        import streamlit as st

        from app import guard
        from stage3.errors import DataError

        def fail() -> None:
            raise DataError("the disk is full")

        guard.show_pending()
        st.button("go", on_click=guard.callback(fail))
        st.text("drawn")

    app = AppTest.from_function(script).run()
    app.button[0].click().run()
    assert not app.exception
    assert [c.value for c in app.code] == ["the disk is full"]
    assert [t.value for t in app.text] == ["drawn"]
    app.run()
    assert not app.code


def test_a_fragment_that_fails_is_told_in_its_place():
    def script() -> None:
        import streamlit as st

        from app import guard
        from stage3.errors import DataError

        @guard.fragment()
        def part() -> None:
            raise DataError("no such checkpoint")

        part()
        st.text("the rest")

    app = AppTest.from_function(script).run()
    assert not app.exception
    assert [c.value for c in app.code] == ["no such checkpoint"]
    assert [t.value for t in app.text] == ["the rest"]


def test_other_errors_are_not_hidden():
    with pytest.raises(ZeroDivisionError), guard.boxed():
        raise ZeroDivisionError


@pytest.mark.slow
def test_a_map_whose_checkpoint_retention_removes_goes_on_with_the_one_that_is_left(tmp_path, monkeypatch):
    folder = app_support.workspace(tmp_path, checkpoint_every=4, keep_checkpoints=3)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(map_jobs, "_spawn", lambda arguments: type("Child", (), {"poll": lambda self: None})())
    monkeypatch.setattr(map_jobs, "_children", {})
    run = loaders.entry("samples/first").run
    steps = loaders.steps(run)
    assert len(steps) > 1
    app = AppTest.from_file(str(APP / "ui.py"), default_timeout=60)
    app.query_params["view"], app.query_params["step"] = "map", str(steps[0])
    app.run()
    assert not app.exception
    removed = []
    render = map_column.render

    def then_retention(*args, **kwargs):  # while the page is being drawn
        if not removed:
            removed.append(steps[0])
            shutil.rmtree(run.path / "checkpoints" / f"step-{steps[0]:08d}")
        loaders.resolve_step(run, args[0].step)
        render(*args, **kwargs)

    monkeypatch.setattr(map_column, "render", then_retention)
    app.run()
    assert removed
    assert not app.exception
    assert not app.code, "no box: the page starts again with a checkpoint that is there"
    assert len(app.get("plotly_chart")) >= 1
    assert app.session_state["_chosen"].step in steps[1:]


def test_a_checkpoint_that_is_gone_is_noticed(monkeypatch):
    class Chosen:
        step = 3
        run = None

    monkeypatch.setattr(guard.st, "session_state", {"_chosen": Chosen()})
    monkeypatch.setattr(guard.loaders, "steps", lambda run: [4])
    assert guard._checkpoint_is_gone()
    monkeypatch.setattr(guard.loaders, "steps", lambda run: [3, 4])
    assert not guard._checkpoint_is_gone()
