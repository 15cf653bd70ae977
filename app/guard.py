"""One way for errors that a person can fix to be shown: the page, its fragments and its callbacks all go through here.

A fragment runs again by itself and a callback runs before the page, so that the page's own box catches neither. While a
run trains, its older checkpoints are removed; a fragment that was drawn for one of them starts the page again, which
then finds the checkpoint that there is now.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import streamlit as st

from app.store import loaders
from stage3.data.images import ImageProblem
from stage3.errors import Stage3Error, StorageError

F = TypeVar("F", bound=Callable[..., Any])
SHOWN = (Stage3Error, ImageProblem)
_PENDING = "_callback_error"


def error_box(error: BaseException | str, title: str = "This did not work") -> None:
    """One plain box: what happened and what to do, in the error's own words."""
    with st.container(border=True, key=f"error-{abs(hash(str(error))) % 10**8}"):
        st.badge(title, icon=":material/error:", color="red")
        st.code(str(error), language=None, wrap_lines=True)


@contextmanager
def boxed() -> Iterator[None]:
    """Show what a person can fix in the box; where the chosen checkpoint is gone, run the page again instead."""
    try:
        yield
    except SHOWN as error:
        if _checkpoint_is_gone():
            st.rerun()
        importlib.import_module("app.parts.moved").box(error)  # parts stand on the shell, and that on this module


def fragment(run_every: str | None = None) -> Callable[[F], F]:
    """`st.fragment` whose errors end in the box: `@shell.fragment()` or `@shell.fragment(run_every="1s")`."""

    def wrap(draw: F) -> F:
        @functools.wraps(draw)
        def safe(*args: Any, **kwargs: Any) -> None:
            show_pending()
            with boxed():
                draw(*args, **kwargs)

        return st.fragment(safe, run_every=run_every)  # type: ignore[return-value]

    return wrap


def callback(act: Callable[..., Any]) -> Callable[..., None]:
    """A widget's callback whose error is shown in the box when the page, or the fragment, is drawn after it."""

    @functools.wraps(act)
    def safe(*args: Any, **kwargs: Any) -> None:
        try:
            act(*args, **kwargs)
        except SHOWN as error:
            st.session_state[_PENDING] = str(error)

    return safe


def show_pending() -> None:
    """The box of a callback that failed just now, if one did."""
    if error := st.session_state.pop(_PENDING, None):
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
