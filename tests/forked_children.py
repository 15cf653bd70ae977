"""What the explorer or Jupyter starts, without three seconds of imports for each: in the place of `subprocess.Popen`.

The process comes from the fork server of `forked`. It has the given working folder, environment and outputs, a session
and a process group of its own, and the command line that it would have, so that whoever looks for it, signals it,
bounds it or waits for it does the same. So does the trainer that `app.store.waiter` starts in its turn.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import forked


class Popen:
    """A started `python -m MODULE ARGUMENTS`; options before `-m` are passed over."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path | str,
        env: Mapping[str, str],
        stdin: int | None,
        stdout: IO[bytes] | int | None,
        stderr: IO[bytes] | int | None,
        start_new_session: bool,
    ) -> None:
        assert command[0] == sys.executable
        assert stdin in (subprocess.DEVNULL, None)  # read by none of them
        assert start_new_session
        self._once = threading.Lock()  # two threads that ask for the end at once: the second would be told 255
        given = (list(command), str(cwd), dict(env), _path(stdout), _path(stderr))
        self._process = forked.process(_run, given)
        self.pid: int = self._process.pid
        with suppress(ProcessLookupError):
            while os.getpgid(self.pid) != self.pid and self.poll() is None:  # whoever signals its group means no other
                time.sleep(0.001)

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        with self._once:
            code: int | None = self._process.exitcode
            return code

    def wait(self, timeout: float | None = None) -> int | None:
        """Its exit code, once it has ended."""
        self._process.join(timeout)
        return self.poll()

    def send_signal(self, number: int) -> None:
        """Signal it alone."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()


def run(
    command: Sequence[str],
    *,
    cwd: Path | str,
    env: Mapping[str, str],
    stdin: int,
    capture_output: bool,
    timeout: float,
    check: bool,
) -> subprocess.CompletedProcess[bytes]:
    """Start a command, and wait for what it says."""
    assert capture_output
    assert not check
    with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as err:
        started = Popen(command, cwd=cwd, env=env, stdin=stdin, stdout=out, stderr=err, start_new_session=True)
        code = started.wait(timeout)
        if code is None:
            started.kill()
            raise subprocess.TimeoutExpired(list(command), timeout)
        return subprocess.CompletedProcess(list(command), code, out.read(), err.read())


SUBPROCESS = SimpleNamespace(  # what `app.store.children` and `stage3.convert.opening` take of `subprocess`
    Popen=Popen, run=run, DEVNULL=subprocess.DEVNULL, TimeoutExpired=subprocess.TimeoutExpired
)


def _path(stream: IO[bytes] | int | None) -> str:
    return (
        os.devnull
        if stream is None or isinstance(stream, int)
        else str(Path(f"/proc/self/fd/{stream.fileno()}").readlink())
    )


def _run(command: list[str], cwd: str, env: dict[str, str], out: str, err: str) -> None:
    """In the new process: what the system and then `python -m` do."""
    assert set(forked.PRELOADED) <= sys.modules.keys()
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for number, path in ((1, out), (2, err)):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(descriptor, number)
        os.close(descriptor)
    if env.get("PYTHONUNBUFFERED"):
        sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
    subprocess.call = _call  # type: ignore[assignment]
    _main(command)


def _call(command: list[str]) -> int | None:
    """`subprocess.call` of a command of the package: a fork of this process, which has one thread."""
    child = multiprocessing.get_context("fork").Process(target=_as_child, args=(command,))
    child.start()
    child.join()
    return child.exitcode


def _as_child(command: list[str]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # what a new program starts with
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _main(command)


def _main(command: list[str]) -> None:
    _title(command)
    sys.argv = command[command.index("-m") + 1 :]
    sys.orig_argv = command
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _title(command: list[str]) -> None:
    """Write a command line in the place of this process's own, which is that of the fork server."""
    fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    first, last = int(fields[45]), int(fields[46])  # arg_start and arg_end, 48 and 49 of proc(5)
    room = last - first
    ctypes.memmove(first, "\0".join(command).encode()[: room - 1].ljust(room, b"\0"), room)
