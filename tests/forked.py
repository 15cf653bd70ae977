"""Commands of the package as processes of their own, without two seconds of imports for each.

A process is forked from one that has imported torch and this package already (`multiprocessing`'s fork server). What a
user meets is the same: its own process id, signals, locks, output and exit code. Where there is no fork server that is
safe with torch, it is `python -m MODULE`.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from stage3 import cli

ROOT = Path(__file__).resolve().parents[1]
PRELOADED = ["stage3.train.trainer", "stage3.batches.dataset", "stage3.evaluate.report", "forked"]


class Process(Protocol):
    """What tests ask of a process: a part of `subprocess.Popen`."""

    pid: int

    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def send_signal(self, number: signal.Signals) -> None: ...
    def kill(self) -> None: ...
    def communicate(self, *, timeout: float) -> tuple[str, str]: ...


def start(module: str, argv: Sequence[str]) -> Process:
    """Start `python -m MODULE ARGV` in the root of the repository; its output is text."""
    if sys.platform == "linux":
        return Forked(module, argv)
    command = [sys.executable, "-m", module, *argv]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


class Forked:
    """A started command."""

    def __init__(self, module: str, argv: Sequence[str]) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self._folder = tempfile.TemporaryDirectory()
        self._streams = [Path(self._folder.name) / name for name in ("out", "err")]
        self._process = context.Process(target=_run, args=(module, list(argv), *map(str, self._streams)))
        with contextlib.chdir(ROOT):  # where the server looks for what it imports ahead
            self._process.start()
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


def _run(module: str, argv: list[str], out: str, err: str) -> None:
    """In the new process: what `python -m` does."""
    os.chdir(ROOT)
    for number, path in ((1, out), (2, err)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.argv = [module, *argv]
    assert Path(cli.__file__).is_relative_to(ROOT), cli.__file__
    cli.run(importlib.import_module(f"{module}.__main__").main)
