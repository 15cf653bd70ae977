"""What all tests of the explorer share."""

from __future__ import annotations

import functools
import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import app_support
import forked_children
import pytest
from streamlit import config
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import local_script_runner

from app import guard
from app.store import children, map_jobs
from stage3.storage import Lock


@pytest.fixture(autouse=True)
def _nothing_unforeseen_fails(request, monkeypatch) -> Iterator[None]:
    """A mistake of ours ends in a box and in the log, so that `app.exception` says nothing of it."""
    failed: list[Exception] = []
    log = guard._log
    monkeypatch.setattr(guard, "_log", lambda error: (failed.append(error), log(error)))
    yield
    if request.path.name != "test_app_guard.py":  # which makes such mistakes
        assert not failed


@pytest.fixture(scope="session", autouse=True)
def _components_are_looked_for_once() -> Iterator[None]:
    """Each `AppTest` reads the metadata of all installed packages anew, a third of a second; a server does so once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            manifest_scanner, "scan_component_manifests", functools.cache(manifest_scanner.scan_component_manifests)
        )
        yield


def _until_it_has_run(runner: local_script_runner.LocalScriptRunner, timeout: float = 3) -> None:
    thread = runner._script_thread
    assert thread is not None
    thread.join(timeout)
    if not runner.script_stopped():
        runner.request_stop()
        runner.join()
        raise RuntimeError(f"the script still ran after {timeout} seconds")


@pytest.fixture(scope="session", autouse=True)
def _a_script_is_waited_for_without_asking() -> Iterator[None]:
    """An `AppTest` asks each millisecond whether its script has ended, a tenth of what these tests take."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_script_runner, "require_widgets_deltas", _until_it_has_run)
        yield


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_collected_after_a_run() -> None:
    """As the explorer's own configuration says, which an `AppTest` does not read."""
    config.set_option("runner.postScriptGC", False)


@pytest.fixture(scope="module", autouse=True)
def _what_is_loaded_stays() -> None:
    """As after collection, see `tests/conftest.py`: by now the views have imported more."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _children_are_forked() -> Iterator[None]:
    """Children of the explorer are forks of a process that has imported what they need."""
    with pytest.MonkeyPatch.context() as patch:
        if sys.platform == "linux":
            patch.setattr(children, "subprocess", forked_children.SUBPROCESS)
        yield


@pytest.fixture
def new_interpreters(monkeypatch) -> None:
    """Children of the explorer are what they are outside of tests: new processes of Python."""
    monkeypatch.setattr(children, "subprocess", subprocess)


@pytest.fixture(scope="session")
def _five_thousand(tmp_path_factory) -> Path:
    """A copy of what the first process of this test run that needed it has made."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    made, lock = shared / "five-thousand", Lock(shared / "five-thousand.lock")
    lock.acquire(patience=300)
    try:
        if not (made / "runs").exists():  # made last
            shutil.rmtree(made, ignore_errors=True)
            app_support.five_thousand(made)
    finally:
        lock.release()
    return app_support.copied(made, tmp_path_factory.mktemp("large"))


@pytest.fixture
def large(_five_thousand, monkeypatch) -> Iterator[Path]:
    """The explorer is in a folder with 5,300 panels; a map that a test starts there and does not wait for is ended."""
    monkeypatch.chdir(_five_thousand)
    before = set(map_jobs._children)
    yield _five_thousand
    for path in set(map_jobs._children) - before:
        child = map_jobs._children.pop(path)
        if isinstance(child, subprocess.Popen | forked_children.Popen):
            child.kill()
            child.wait()
