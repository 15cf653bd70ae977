"""Training runs that the explorer started: a child process and a run folder each, nothing kept in the server.

What is running is read from disk alone (`job.json` beside the run's own status and lock), so a reload, a second tab or
a restarted server finds every job again. Two sessions never mix, because every job is a new folder.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from app.store import children, loaders
from stage3.cli import train_command
from stage3.config import Config
from stage3.errors import ConfigError, Stage3Error, StorageError
from stage3.runs import RunFolder

MOST_AT_ONCE = 2  # each takes a core
START_SECONDS = 60.0  # a job that has not begun to run after so long, and whose process is gone, has failed
MEMORY_BYTES = 24 * 2**30  # of address space; torch alone reserves several
WALL_MINUTES = 240.0
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}")
MODULE = "stage3.train"


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
    run.write_json("job", children.remembered(child, MEMORY_BYTES) | {"parent": parent})
    return run


def _spawn(run: RunFolder) -> subprocess.Popen[bytes]:
    """`python -m stage3.train --run …` with its output in the run's `console.log`."""
    arguments = ["--run", str(run.path.resolve())]
    with (run.path / "console.log").open("ab") as log:
        return children.spawn(MODULE, arguments, nice=5, log=log, HF_HUB_OFFLINE="1", PYTHONUNBUFFERED="1")


def jobs() -> list[Job]:
    """All jobs of this folder, newest first."""
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
    record = run.read_json("job")
    pid, parent = record.get("pid"), record.get("parent", "")
    if type(pid) is not int or not isinstance(parent, str):
        raise StorageError(f"{run.path / 'job.json'}: damaged, needs a pid")
    alive = children.is_alive(record)
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
    if isinstance(asked, int | float) and job.is_live:
        children.press(job.pid, MODULE, asked)


def tail(run: RunFolder, lines: int = 12) -> str:
    """The last lines that the trainer printed."""
    return children.tail(run.path / "console.log", lines)
