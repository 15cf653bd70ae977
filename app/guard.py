"""The error boundary: whatever goes wrong in the page, its fragments, dialogs and callbacks ends in one plain box.

A fragment runs again by itself and a callback runs before the page, so that the page's own box catches neither: all of
them go through here. An error that a person can fix is shown in its own words. Any other one is a mistake of ours or a
failure of this machine: the box names its kind, and the log of the server has the whole of it. Either way the next
action, or the next tick of a fragment, draws what failed again.

While a run trains, its older checkpoints are removed; what was drawn for one of them starts the page again, which then
finds the checkpoint that there is now.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import streamlit as st
from streamlit.errors import StreamlitDuplicateElementKey

from app.store import loaders
from stage3.data.images import ImageProblem
from stage3.errors import Stage3Error, StorageError
from stage3.storage import sha256

F = TypeVar("F", bound=Callable[..., Any])
SHOWN = (Stage3Error, ImageProblem)
_PENDING = "_callback_errors"
_LOGGED = "_logged_error"
log = logging.getLogger("stage3.app")


def error_box(error: BaseException | str, title: str = "This did not work") -> None:
    """One plain box: what happened and what to do, in the error's own words."""
    with _error_container(str(error)):
        st.badge(title, icon=":material/error:", color="red")
        st.code(str(error), language=None, wrap_lines=True)


def _error_container(text: str) -> Any:
    """A container for this text; several parts of a page may fail with the same words, and no key may come twice."""
    for number in itertools.count():
        try:
            return st.container(border=True, key=f"error-{sha256(text.encode('utf-8', 'replace'))[:8]}-{number}")
        except StreamlitDuplicateElementKey:
            continue


@contextmanager
def boundary(show: Callable[[BaseException | str], None] = error_box) -> Iterator[None]:
    """Show what fails by this function; what nobody foresaw goes into the log, with where it was raised.

    `st.stop`, `st.rerun` and `st.switch_page` pass: Streamlit's own exceptions are no `Exception`.
    """
    try:
        yield
    except SHOWN as error:
        show(error)
    except Exception as error:  # the one place in this repository that catches every error; see the architecture test
        _log(error)
        show(unforeseen(error))


def _log(error: Exception) -> None:
    """Into the log, with where it was raised: once, though a part that draws itself anew fails again and again."""
    words = f"{type(error).__name__}: {error}"
    if st.session_state.get(_LOGGED) != words:
        st.session_state[_LOGGED] = words
        log.exception("A view failed")


def unforeseen(error: BaseException) -> str:
    """What the box says of an error that nobody foresaw: its words may be of anything, and stay in the log."""
    kind = type(error).__name__
    return f"Something in this view failed ({kind}). The next action tries again; the server's log has the details."


@contextmanager
def boxed() -> Iterator[None]:
    """Show what fails in the box; where the chosen checkpoint is gone, run the page again instead."""
    with boundary(), boundary(_box):
        yield


def _box(error: BaseException | str) -> None:
    if _checkpoint_is_gone():
        st.rerun()
    importlib.import_module("app.parts.moved").box(error)  # parts stand on the shell, and that on this module


def _guarded(draw: Callable[..., Any]) -> Callable[..., None]:
    """What runs again by itself, apart from the page: it also shows what a callback of its own widgets left."""

    @functools.wraps(draw)
    def safe(*args: Any, **kwargs: Any) -> None:
        show_pending()
        with boxed():
            draw(*args, **kwargs)

    return safe


def fragment(run_every: str | None = None) -> Callable[[F], F]:
    """`st.fragment` whose errors end in the box: `@shell.fragment()` or `@shell.fragment(run_every="1s")`."""
    return lambda draw: st.fragment(_guarded(draw), run_every=run_every)  # type: ignore[return-value]


def dialog(title: str, **look: Any) -> Callable[[F], F]:
    """`st.dialog`, a fragment too, whose errors end in the box: `@shell.dialog("Correct boxes", width="large")`."""
    return lambda draw: st.dialog(title, **look)(_guarded(draw))  # type: ignore[return-value]


def callback(act: Callable[..., Any]) -> Callable[..., None]:
    """A widget's callback whose error is shown in the box when the page, or the fragment, is drawn after it."""

    @functools.wraps(act)
    def safe(*args: Any, **kwargs: Any) -> None:
        with boundary(lambda error: st.session_state.setdefault(_PENDING, []).append(str(error))):
            act(*args, **kwargs)

    return safe


def show_pending() -> None:
    """A box for each callback that failed just now."""
    for error in st.session_state.pop(_PENDING, ()):
        error_box(error)


def _checkpoint_is_gone() -> bool:
    """Whether the checkpoint that this page shows was removed since: retention keeps only some."""
    chosen = st.session_state.get("_chosen")
    if chosen is None or chosen.step is None:
        return False
    try:
        return chosen.step not in loaders.steps(chosen.run)
    except StorageError:  # the whole run is gone
        return True
