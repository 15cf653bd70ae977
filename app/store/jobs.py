"""Training runs that the explorer started: a child process and a run folder each, nothing kept in the server.

What is running is read from disk alone (`job.json` beside the run's own status and lock), so a reload, a second tab or
a restarted server finds every job again. Two sessions never mix, because every job is a new folder.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from app.store import loaders
from app.store.children import spawn
from stage3.cli import train_command
from stage3.config import Config
from stage3.errors import ConfigError, Stage3Error, StorageError
from stage3.runs import RunFolder
from stage3.storage import pid_alive, this_process

MOST_AT_ONCE = 2  # each takes a core
START_SECONDS = 60.0  # a job that has not begun to run after so long, and whose process is gone, has failed
GRACE_SECONDS = 8.0  # between the STOP file, SIGTERM and SIGKILL
MEMORY_BYTES = 24 * 2**30  # of address space; torch alone reserves several
WALL_MINUTES = 240.0
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}")
_children: dict[int, subprocess.Popen[bytes]] = {}  # only so that finished ones leave the process table


@dataclass(frozen=True)
class Job:
    """A run that the explorer started.

    Attributes:
        run: its folder.
        parent: id of the run it was started from, "" for none.
        pid: process that trains (or trained) it.
        state: starting, running, finished, stopped, failed.
        message: why it failed, in the trainer's own words.
    """

    run: RunFolder
    parent: str
    pid: int
    state: str
    message: str

    @property
    def is_live(self) -> bool:
        """Whether something may still change."""
        return self.state in ("starting", "running")


def folder() -> Path:
    """Where new runs go."""
    return loaders.base() / "runs"


def free_name(stem: str = "retrain") -> str:
    """`stem-1`, `stem-2` …: the first that no run has."""
    n = 1
    while (folder() / f"{stem}-{n}").exists():
        n += 1
    return f"{stem}-{n}"


def command(config: Config, name: str) -> str:
    """What a person would type to train the same run from a shell, in the same folder."""
    return train_command(config, f"runs/{name}")


def start(config: Config, name: str, parent: str = "") -> RunFolder:
    """Make the run and spawn the trainer in a process group of its own; returns at once.

    Raises:
        ConfigError: the name is taken or not allowed, or as many jobs as may run at once are running.
        StorageError: the folder cannot be written.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name[:80]!r} cannot name a run: use letters, digits, _ . - (60 at most).")
    running = [job for job in jobs() if job.is_live]
    if len(running) >= MOST_AT_ONCE:
        names = ", ".join(job.run.name for job in running)
        raise ConfigError(f"{MOST_AT_ONCE} runs are training already ({names}). Wait for one to finish, or cancel one.")
    limit = config.max_minutes or WALL_MINUTES
    # Fewer checkpoints than epochs: each is synced to disk, which is most of the time of a short run.
    every = max(config.checkpoint_every, config.epochs // 4)
    config = config.replace(max_minutes=min(limit, WALL_MINUTES), threads=1, checkpoint_every=every)
    run = RunFolder.create(folder() / name, config)
    child = _spawn(run)
    run.write_json("job", {"pid": child.pid, "parent": parent, "started": time.time(), "boot_id": _boot()})
    return run


def _spawn(run: RunFolder) -> subprocess.Popen[bytes]:
    """`python -m stage3.train --run …` with its output in the run's `console.log`."""
    arguments = ["--run", str(run.path.resolve())]
    with (run.path / "console.log").open("ab") as log:
        child = spawn("stage3.train", arguments, nice=5, log=log, HF_HUB_OFFLINE="1", PYTHONUNBUFFERED="1")
    _children[child.pid] = child
    _limit(child.pid)
    return child


def _limit(pid: int) -> None:
    """Where the system can, a bound on memory (not with a GPU: drivers reserve far more)."""
    if sys.platform == "linux" and not Path("/proc/driver/nvidia").exists():
        import resource

        with contextlib.suppress(OSError, ValueError):
            resource.prlimit(pid, resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def jobs() -> list[Job]:
    """All jobs of this folder, newest first."""
    _reap()
    found = []
    for entry in loaders.entries():
        if entry.id.startswith("runs/") and (entry.run.path / "job.json").exists():
            with contextlib.suppress(Stage3Error):
                found.append(read(entry.run))
    return sorted(found, key=lambda job: job.run.status.started or job.run.status.updated, reverse=True)


def read(run: RunFolder) -> Job:
    """The job of a run, as the disk says.

    Raises:
        StorageError: the run was not started here, or its record is damaged.
    """
    _reap()
    record = run.read_json("job")
    pid, parent = record.get("pid"), record.get("parent", "")
    if type(pid) is not int or not isinstance(parent, str):
        raise StorageError(f"{run.path / 'job.json'}: damaged, needs a pid")
    alive = record.get("boot_id") == _boot() and pid_alive(pid)
    status = run.status
    state, message = str(status.state), status.message
    if state == "running" and not run.is_live:
        state, message = ("starting", "") if alive else ("failed", "the process died; see its log")
    elif state == "created":
        young = time.time() - float(record.get("started", 0.0)) < START_SECONDS
        state, message = ("starting", "") if alive and young else ("failed", tail(run, 5))
    return Job(run, parent, pid, state, message)


def cancel(run: RunFolder) -> None:
    """Ask the trainer to save and stop at its next step; harder after a while, see `press`."""
    run.request_stop()
    record = run.read_json("job")
    run.write_json("job", {**record, "cancelled": time.time()})


def press(run: RunFolder) -> None:
    """A canceled job that goes on gets SIGTERM, then SIGKILL; call it while a canceled job is watched."""
    record = run.read_json("job")
    asked, job = record.get("cancelled"), read(run)
    if not isinstance(asked, int | float) or not job.is_live or not _is_ours(job.pid):
        return
    waited = time.time() - asked
    if waited > 2 * GRACE_SECONDS:
        _signal(job.pid, hard=True)
    elif waited > GRACE_SECONDS:
        _signal(job.pid, hard=False)


def _signal(pid: int, *, hard: bool) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            os.kill(pid, signal.SIGTERM if hard else signal.CTRL_BREAK_EVENT)
        else:
            os.killpg(pid, signal.SIGKILL if hard else signal.SIGTERM)  # start_new_session: the group has the pid's id


def _is_ours(pid: int) -> bool:
    """Whether the process is a trainer: a pid may have been given to another program since."""
    if sys.platform != "linux":
        return True
    try:
        return b"stage3.train" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def tail(run: RunFolder, lines: int = 12) -> str:
    """The last lines that the trainer printed."""
    try:
        with (run.path / "console.log").open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 8192))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    shown = "\n".join(text.splitlines()[-lines:])
    return "".join(c if c in "\n\t" or c.isprintable() else "\ufffd" for c in shown)


def _reap() -> None:
    for pid, child in list(_children.items()):
        if child.poll() is not None:
            _children.pop(pid, None)


def _boot() -> str:
    return str(this_process()["boot_id"])
