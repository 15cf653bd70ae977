"""What every page shares, with Streamlit's own calls looked at: no session is opened."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from app import shell
from app.parts import strip
from app.store import readonly

WARNING = "Anyone on the network can open this explorer: server.address is not 127.0.0.1."


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """What a page without a run warns of and which bars it draws; its view, start, draws nothing."""
    found: dict[str, list[Any]] = {"warnings": [], "bars": [], "keys": []}
    page = SimpleNamespace(url_path="", run=lambda: None)
    monkeypatch.setattr(shell.st, "navigation", lambda pages, position: page)
    monkeypatch.setattr(shell.st, "warning", found["warnings"].append)
    monkeypatch.setattr(shell.st, "session_state", {})
    monkeypatch.setattr(shell.st, "query_params", {})
    monkeypatch.setattr(shell, "_run_bar", lambda *given: found["bars"].append(given))
    monkeypatch.setattr(shell.loaders, "entries", list)
    monkeypatch.setattr(shell.loaders, "view_drawn", lambda: None)
    monkeypatch.setattr(shell.components, "shortcuts", found["keys"].append)
    monkeypatch.setattr(strip, "show", lambda: None)
    return found


@pytest.mark.parametrize("address", [None, "", "0.0.0.0", "192.168.1.5", "127.0.0.1", "localhost", "::1"])
def test_it_warns_where_others_can_reach_a_server_that_changes_things(said, address, monkeypatch) -> None:
    monkeypatch.delenv(readonly.VARIABLE, raising=False)
    monkeypatch.setattr(shell.st, "get_option", lambda name: {"server.address": address}[name])
    shell._whole_page()
    assert said["warnings"] == ([] if address in ("127.0.0.1", "localhost", "::1") else [WARNING])
    monkeypatch.setenv(readonly.VARIABLE, "1")
    shell._whole_page()
    assert len(said["warnings"]) <= 1, "what only shows things may be open to anyone"
    assert (said["bars"], said["keys"]) == ([], [None, None]), "there is no run"


def test_a_view_that_an_installation_lacks_is_said(monkeypatch) -> None:
    told: list[tuple[str, ...]] = []
    monkeypatch.setitem(shell.VIEWS, "gone", ("Gone for good", ":material/help:"))
    monkeypatch.setattr(shell, "empty", lambda *words: told.append(words))
    shell._runner("gone")()
    assert told == [("Gone for good is not installed", "This installation lacks that view.")]


@pytest.mark.parametrize(
    ("state", "is_live", "shown"),
    [
        ("running", True, "running"),
        ("running", False, "lost"),
        ("finished", False, "finished"),
        ("failed", True, "failed"),
    ],
)
def test_a_run_that_says_it_trains_is_believed_while_its_process_lives(state, is_live, shown) -> None:
    run: Any = SimpleNamespace(status=SimpleNamespace(state=state), is_live=is_live)
    assert shell.run_state(run) == shown
    assert shown in shell.STATE_LOOK


def test_each_state_of_a_job_has_a_look_of_its_own() -> None:
    states = {"running", "finished", "stopped", "failed", "created", "lost", "starting", "queued"}
    assert set(shell.JOB_LOOK) == states
    assert len({icon for _, _, icon in shell.JOB_LOOK.values()}) == len(states)
