"""The page, every fragment, dialog and callback end in the error box, and a map of a running run never breaks."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import app_support
import pytest
from streamlit.testing.v1 import AppTest

from app import guard, shell
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
    plain = sorted(n.attr for n in uses if n.attr in ("dialog", "fragment") and name_of(n.value) == "st")
    wrapped = ["dialog", "fragment"] if path.name == "guard.py" else []
    assert plain == wrapped, f"{path}: use shell.fragment and shell.dialog"


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


def whole(where: str, kind: str) -> None:
    """A page with a view, a fragment, a dialog and a callback, of which one raises while the session says so."""
    import streamlit as st

    from app import guard

    def fails(here: str) -> None:
        if here == where and st.session_state.get("broken"):
            raise {"ValueError": ValueError, "KeyError": KeyError, "OSError": OSError}[kind]("a secret of /home")

    @guard.fragment()
    def part() -> None:
        fails("fragment")
        st.text("the fragment")

    @guard.dialog("A dialog")
    def over() -> None:
        fails("dialog")
        st.text("the dialog")

    guard.show_pending()
    st.button("go", on_click=guard.callback(fails), args=("callback",))
    with guard.boxed():
        fails("view")
        st.text("the view")
    part()
    over()


@pytest.mark.parametrize("kind", ["ValueError", "KeyError", "OSError"])
@pytest.mark.parametrize("where", ["view", "fragment", "dialog", "callback"])
def test_what_nobody_foresaw_ends_in_the_box_and_in_the_log_and_is_drawn_again(where, kind, caplog):
    app = AppTest.from_function(whole, args=(where, kind))
    app.session_state["broken"] = True
    app.run()
    app.button[0].click().run()
    assert not app.exception
    [box] = app.code
    assert f"Something in this view failed ({kind})" in box.value
    assert "secret" not in box.value, "its words may be of anything"
    drawn = {"the view", "the fragment", "the dialog"}
    assert {t.value for t in app.text} == drawn - {f"the {where}"}, "the rest of the page stays"
    [record] = [record for record in caplog.records if record.name == "stage3.app"]  # once, though drawn twice
    raised, _, trace = record.exc_info
    assert (record.levelname, raised.__name__) == ("ERROR", kind)
    assert trace.tb_next is not None, "with the place where it was raised"
    app.session_state["broken"] = False
    app.run()
    assert not app.exception
    assert not app.code
    assert {t.value for t in app.text} == drawn


def test_each_session_and_each_other_error_is_written_into_the_log(caplog):
    def script() -> None:
        import streamlit as st

        from app import guard

        with guard.boxed():
            raise KeyError(st.session_state["what"])

    for _ in range(2):
        app = AppTest.from_function(script)
        for what in ("a", "a", "b", "a"):
            app.session_state["what"] = what
            app.run()
    assert [str(r.exc_info[1]) for r in caplog.records if r.name == "stage3.app"] == ["'a'", "'b'", "'a'"] * 2


def test_stopping_and_starting_again_are_no_errors():
    def script() -> None:
        import streamlit as st

        from app import guard

        with guard.boxed():
            if "again" not in st.session_state:
                st.session_state["again"] = True
                st.rerun()
            st.text("drawn")
            st.stop()
        st.text("behind the end")

    app = AppTest.from_function(script).run()
    assert not app.code
    assert [t.value for t in app.text] == ["drawn"]


def test_two_parts_that_fail_with_the_same_words_have_a_box_each():
    def script() -> None:
        import streamlit as st

        from app import guard
        from stage3.errors import DataError

        def fail() -> None:
            raise DataError("the disk is full")

        guard.show_pending()
        st.button("go", on_click=guard.callback(fail))
        guard.fragment()(fail)()
        guard.fragment()(fail)()

    app = AppTest.from_function(script).run().button[0].click().run()
    assert not app.exception
    assert [c.value for c in app.code] == ["the disk is full"] * 3


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

    def missing(*args):
        raise KeyError("run")

    with monkeypatch.context() as broken:  # the same in the frame of all views, and in one of them
        broken.setattr(shell, "_run_bar", missing)
        app.run()
        assert [("KeyError" in c.value, not app.exception) for c in app.code] == [(True, True)]
        assert len(app.get("plotly_chart")) >= 1, "the view is drawn without the line above it"
        broken.setattr(map_column, "render", missing)
        assert len(app.run().code) == 2
        broken.setattr(loaders, "entries", missing)
        assert [("KeyError" in c.value, not app.exception) for c in app.run().code] == [(True, True)]
    assert not app.run().code
    assert not app.exception


def test_a_checkpoint_that_is_gone_is_noticed(monkeypatch):
    class Chosen:
        step = 3
        run = None

    monkeypatch.setattr(guard.st, "session_state", {"_chosen": Chosen()})
    monkeypatch.setattr(guard.loaders, "steps", lambda run: [4])
    assert guard._checkpoint_is_gone()
    monkeypatch.setattr(guard.loaders, "steps", lambda run: [3, 4])
    assert not guard._checkpoint_is_gone()
