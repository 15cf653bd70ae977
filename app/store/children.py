"""Child processes of the explorer: one thread, lower priority, a group of their own, the code that the app runs.

What a child is doing is told from its record on disk (`record`), so that a restarted server finds it again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from app.store import loaders
from stage3.processes import pid_alive, this_process
from stage3.storage import open_for_adding, open_regular

GRACE_SECONDS = 8.0  # between asking a child to stop, SIGTERM and SIGKILL
STARTED: dict[int, subprocess.Popen[bytes]] = {}  # only so that finished ones leave the process table
MEMORY_BYTES = 24 * 2**30  # of address space, for a child with torch, which alone reserves several
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def spawn(
    module: str,
    arguments: Sequence[str],
    *,
    nice: int,
    log: IO[bytes] | None = None,
    out: IO[bytes] | None = None,
    **environment: str,
) -> subprocess.Popen[bytes]:
    """Start `python -m MODULE ARGUMENTS` in the folder that the explorer was started in; returns at once.

    Args:
        module: such as `stage3.train`.
        arguments: of the command.
        nice: how much lower than the explorer's its priority is, 0 to 19; any positive value is one class on Windows.
        log: where its output goes; None drops it.
        out: where its standard output goes, if not into the log.
        environment: variables besides the explorer's own.
    """
    path = os.pathsep.join(filter(None, [str(loaders.PROJECT), os.environ.get("PYTHONPATH", "")]))
    options: dict[str, Any] = {"start_new_session": True}  # so that a signal to its group reaches its children too
    if sys.platform == "win32":
        lower = subprocess.BELOW_NORMAL_PRIORITY_CLASS if nice else 0
        options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | lower}
    child = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=loaders.base(),
        env={**os.environ, **dict.fromkeys(THREADS, "1"), "PYTHONPATH": path, **environment},
        stdin=subprocess.DEVNULL,
        stdout=out or log or subprocess.DEVNULL,
        stderr=log or subprocess.DEVNULL,
        **options,
    )
    if sys.platform != "win32":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, child.pid, nice)
    return child


def remembered(child: subprocess.Popen[bytes], memory: int) -> dict[str, Any]:
    """The record of a child that was just started, for its folder; its memory is bounded, see `bound`."""
    STARTED[child.pid] = child
    bound(child, memory)
    return {"pid": child.pid, "started": time.time(), "boot_id": str(this_process()["boot_id"])}


def bound(child: subprocess.Popen[bytes], memory: int) -> None:
    """Limit a child's memory, where the system can.

    Args:
        child: from `spawn`.
        memory: bytes of address space; no bound with a GPU, whose drivers reserve far more.
    """
    if sys.platform == "linux" and not Path("/proc/driver/nvidia").exists():
        import resource

        with suppress(OSError, ValueError):
            resource.prlimit(child.pid, resource.RLIMIT_AS, (memory, memory))


def is_alive(record: Mapping[str, Any]) -> bool:
    """Whether the process of a record still runs."""
    for started, child in list(STARTED.items()):
        if child.poll() is not None:
            STARTED.pop(started, None)
    pid = record.get("pid")
    return type(pid) is int and record.get("boot_id") == this_process()["boot_id"] and pid_alive(pid)


def end(pid: int, module: str, *, hard: bool) -> None:
    """SIGTERM or SIGKILL to a child and its group, if the process still is one of that module."""
    if not _runs(pid, module):
        return
    with suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            os.kill(pid, signal.SIGTERM if hard else signal.CTRL_BREAK_EVENT)
        else:
            os.killpg(pid, signal.SIGKILL if hard else signal.SIGTERM)  # start_new_session: the group has the pid's id


def _runs(pid: int, module: str) -> bool:
    """Whether a process is a child of ours: a pid may have been given to another program since."""
    if sys.platform != "linux":
        return True
    try:
        return module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def press(pid: int, module: str, asked: float) -> None:
    """End a child that was asked to stop at a time and goes on: after a while with SIGTERM, then with SIGKILL."""
    waited = time.time() - asked
    if waited > GRACE_SECONDS:
        end(pid, module, hard=waited > 2 * GRACE_SECONDS)


def open_log(path: Path) -> IO[bytes]:
    """A log to add to.

    Raises:
        StorageError: something else than a file is in its place.
    """
    return os.fdopen(open_for_adding(path), "ab")


def tail(path: Path, lines: int = 12) -> str:
    """The last lines that a child printed into a file."""
    try:
        descriptor, _ = open_regular(path)  # a pipe in its place is not waited for
        with os.fdopen(descriptor, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 8192))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    shown = "\n".join(text.splitlines()[-lines:])
    return "".join(c if c in "\n\t" or c.isprintable() else "\ufffd" for c in shown)
