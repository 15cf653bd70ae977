"""Child processes of the explorer: one thread, lower priority, a group of their own, the code that the app runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Any

from app.store import loaders

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def spawn(
    module: str, arguments: Sequence[str], *, nice: int, log: IO[bytes] | None = None, **environment: str
) -> subprocess.Popen[bytes]:
    """Start `python -m MODULE ARGUMENTS` in the folder that the explorer was started in; returns at once.

    Args:
        module: such as `stage3.train`.
        arguments: of the command.
        nice: how much lower than the explorer's its priority is, 0 to 19; any positive value is one class on Windows.
        log: where its output goes; None drops it.
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
        stdout=log or subprocess.DEVNULL,
        stderr=subprocess.STDOUT if log else subprocess.DEVNULL,
        **options,
    )
    if sys.platform != "win32":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, child.pid, nice)
    return child
