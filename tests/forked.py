"""Commands of the package as processes of their own, without two seconds of imports for each.

A process is forked from one that has imported torch and this package already (`multiprocessing`'s fork server). What a
user meets is the same: its own process id, signals, locks, output and exit code. Where there is no fork server that is
safe with torch, it is `python -m MODULE`.
"""

from __future__ import annotations

import functools
import multiprocessing
import multiprocessing.context
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Protocol

import stage3

ROOT = Path(__file__).resolve().parents[1]
PRELOADED = ["tests.preloaded"]
_starting = threading.Lock()


class Process(Protocol):
    """What tests ask of a process: a part of `subprocess.Popen`."""

    pid: int

    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def send_signal(self, number: signal.Signals) -> None: ...
    def kill(self) -> None: ...
    def communicate(self, *, timeout: float) -> tuple[str, str]: ...


def start(module: str, argv: Sequence[str], **environment: str) -> Process:
    """Start `python -m MODULE ARGV` in the root of the repository, with further variables; its output is text.

    With `-c` as the module, the first of ARGV is code.
    """
    if sys.platform == "linux":
        return Forked(module, argv, environment)
    command = [sys.executable, *(["-m"] if module != "-c" else []), module, *argv]
    variables = {**os.environ, **environment}
    return subprocess.Popen(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


class Forked:
    """A started command."""

    def __init__(self, module: str, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._streams = [Path(self._folder.name) / name for name in ("out", "err")]
        given = (module, list(argv), dict(environment), *map(str, self._streams))
        self._process = process(_run, given)
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    poll = returncode.fget

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, *, timeout: float) -> tuple[str, str]:
        """Wait for the end; what it wrote to its output and its error output."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired([str(self.pid)], timeout)
        out, err = (p.read_text(encoding="utf-8") if p.exists() else "" for p in self._streams)
        self._folder.cleanup()
        return out, err


@functools.cache
def _server() -> multiprocessing.context.ForkServerContext:
    """The fork server of this process, which is started."""
    from multiprocessing import forkserver

    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(PRELOADED)
    given = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), given]))  # where it looks for what to preload
    try:
        forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONPATH") if given is None else os.environ.update(PYTHONPATH=given)
    return made


def context() -> multiprocessing.context.BaseContext:
    """How `multiprocessing` starts such processes; its own way where there is no fork server."""
    return _server() if sys.platform == "linux" else multiprocessing.get_context("spawn")


def process(target: Callable[..., None], given: tuple[object, ...]) -> BaseProcess:
    """A call in a new process, which is started."""
    with _starting:  # threads that are the first at once
        made = context().Process(target=target, args=given)
        # an `AppTest` leaves its script there, which the new process would run
        left, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
        try:
            made.start()
        finally:
            sys.modules["__main__"] = left
    return made


def _run(module: str, argv: list[str], environment: dict[str, str], out: str, err: str) -> None:
    """In the new process: what `python -m` does."""
    os.chdir(ROOT)
    os.environ.update(environment)
    for number, path in ((1, out), (2, err)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.argv = [module, *argv]
    assert set(PRELOADED) <= sys.modules.keys(), "the fork server passes over what it cannot import"
    assert Path(stage3.__file__).is_relative_to(ROOT), stage3.__file__
    if module == "-c":
        sys.argv = ["-c", *argv[1:]]
        exec(compile(argv[0], "<string>", "exec"), vars(sys.modules["__main__"]))
        return
    runpy.run_module(module, run_name="__main__", alter_sys=True)
