"""What every page shares, with Streamlit's own calls looked at: hardly a session is opened."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from app import shell
from app.parts import strip
from app.store import readonly
from stage3.config import Config
from stage3.errors import StorageError

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


def test_the_run_and_the_step_of_an_address_are_shown_or_what_is_shown_instead_is_said(monkeypatch) -> None:
    steps = {"first": [3, 5, 9], "second": [2, 4, 6], "bare": []}
    runs: dict[str, Any] = {name: SimpleNamespace(name=name) for name in steps}
    entries = [shell.loaders.Entry(f"runs/{name}", run, False) for name, run in runs.items()]

    def resolve_step(run: Any, step: int | None) -> int:
        if not steps[run.name] or step not in (None, *steps[run.name]):
            raise StorageError("no such checkpoint")
        return steps[run.name][1] if step is None else step

    state: dict[str, Any] = {}
    address: dict[str, str] = {}
    monkeypatch.setattr(shell.loaders, "resolve_step", resolve_step)
    monkeypatch.setattr(shell.loaders, "steps", lambda run: steps[run.name])
    monkeypatch.setattr(shell.st, "session_state", state)
    monkeypatch.setattr(shell.st, "query_params", address)

    def found() -> tuple[Any, ...]:
        now = shell._find_chosen(entries)
        return now.id, now.step, state.pop("_notice", None)

    assert found() == ("runs/first", 5, None)
    address.update(run="runs/second", step="2")
    assert found() == ("runs/second", 2, None)
    address["step"] = "3"  # of the other run
    said = "step=3 in the address is no checkpoint of second; step 6 is shown."
    assert (found(), "step" in address) == (("runs/second", 6, said), False)
    address["step"] = "7" * 30
    assert found()[2].startswith(f"step={'7' * 20} in the address")
    assert found() == ("runs/second", 4, None), "it is said once"
    address.clear()
    assert found() == ("runs/second", 4, None), "the session keeps its run"
    address.update(run="runs/" + "x" * 96, step="2")
    said = f"There is no run 'runs/{'x' * 95}' here; showing another one."
    assert (found(), address) == (("runs/first", 5, said), {"run": "runs/first"})
    address.update(run="runs/bare", step="1")
    assert found() == ("runs/bare", None, "step=1 in the address is no checkpoint of bare; it has no checkpoint.")
    assert shell._find_chosen([]) is None


def test_facts_are_a_table_of_names_and_values(monkeypatch) -> None:
    shown: list[tuple[Any, bool]] = []
    monkeypatch.setattr(shell.st, "dataframe", lambda rows, hide_index, **_: shown.append((rows, hide_index)))
    shell.facts({"step": 5, "=1+1": "<b>"})
    assert shown == [([{"": "step", "value": "5"}, {"": "=1+1", "value": "<b>"}], True)]


def test_an_image_travels_within_its_message(monkeypatch) -> None:
    shown: list[tuple[Any, ...]] = []
    monkeypatch.setattr(shell.st, "image", lambda image, width, alt: shown.append((image, width, alt)))
    shell.show_image(b"a\xffb", "three panels", 90)
    assert shown == [("data:image/webp;base64,Yf9i", 90, "three panels")]


def test_checkpoints_are_offered_with_the_best_one_marked_where_there_is_one(monkeypatch) -> None:
    def page() -> None:
        from app import shell

        shell._run_bar(*shell.GIVEN)

    best: list[Any] = [SimpleNamespace(step=5, metric="")]
    status = SimpleNamespace(state="finished")
    run: Any = SimpleNamespace(name="a", status=status, is_live=False, config=Config(), best=lambda: best[0])
    given = [shell.loaders.Entry("runs/a", run, False)], shell.Chosen("runs/a", run, 3, False)
    monkeypatch.setattr(shell, "GIVEN", given, raising=False)
    monkeypatch.setattr(shell.loaders, "steps", lambda run: [3, 5])
    app = AppTest.from_function(page, default_timeout=60).run()
    assert not app.exception
    assert app.selectbox(key="_step_choice").options == ["step 3", "step 5 · best"]
    assert app.selectbox(key="_step_choice").value == 3
    best[0] = None
    app.run()
    assert not app.exception
    assert app.selectbox(key="_step_choice").options == ["step 3", "step 5"]


def test_a_view_that_is_not_there_is_said_once(monkeypatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(shell.st, "session_state", {})
    monkeypatch.setattr(shell.st, "query_params", {"view": "maps"})
    monkeypatch.setattr(shell, "unused", lambda name, why: said.append(f"{name} {why}"))
    for _ in range(2):
        shell._follow({"runs": "", "map": ""}, "runs")
    assert said == ["view is none of runs, map."]
