"""Processes of this machine: who this one is, and whether another still exists."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any


def pid_alive(pid: int) -> bool:
    """Whether a process of this machine exists."""
    if sys.platform == "win32":
        import ctypes

        handle = ctypes.windll.kernel32.OpenProcess(0x100000, False, pid)  # SYNCHRONIZE
        if not handle:
            return False
        running = ctypes.windll.kernel32.WaitForSingleObject(handle, 0) == 0x102  # WAIT_TIMEOUT
        ctypes.windll.kernel32.CloseHandle(handle)
        return bool(running)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def this_process() -> dict[str, Any]:
    """Who is writing: pid, host and, on Linux, the boot that the pid belongs to."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    try:
        boot_id = boot.read_text(encoding="ascii").strip()
    except OSError:
        boot_id = ""
    return {"pid": os.getpid(), "host": socket.gethostname(), "boot_id": boot_id}
