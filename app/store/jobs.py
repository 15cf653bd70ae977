"""Training runs that the explorer started: a child process and a run folder each, nothing kept in the server.

What is running is read from disk alone (`job.json` beside the run's own status and lock), so a reload, a second tab or
a restarted server finds every job again. Two sessions never mix, because every job is a new folder.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.store import children, loaders, readonly
from app.store.waiter import PLACES as PLACES
from app.store.waiter import QUEUED
from stage3.cli import train_command
from stage3.config import Config
from stage3.errors import ConfigError, Stage3Error, StorageError
from stage3.runs import RunFolder
from stage3.small_files import Record, encodable

START_SECONDS = 60.0  # a job that has not begun to run after so long, and whose process is gone, has failed
WALL_MINUTES = 240.0
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}")
MODULE = "app.store.waiter"
MOST_REMEMBERED = 4000
MOST_PID = 2**22  # of Linux; Windows and macOS stay below
_starting = threading.Lock()
_ended: dict[tuple[object, ...], Job] = {}  # jobs that have ended, by the files that say so


@dataclass(frozen=True)
class Job:
    """A run that the explorer started.

    Attributes:
        run: its folder.
        parent: id of the run it was started from, "" for none.
        pid: process that trains (or trained) it.
        state: queued, starting, running, finished, stopped, failed.
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
        return self.state in ("queued", "starting", "running")


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

    It trains at once where a place is free, and else waits for one, see `waiter`.

    Raises:
        ConfigError: the name is taken or not allowed.
        StorageError: the folder cannot be written.
    """
    readonly.refuse()
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name[:80]!r} cannot name a run: use letters, digits, _ . - (60 at most).")
    limit = config.max_minutes or WALL_MINUTES
    # Fewer checkpoints than epochs: each is synced to disk, which is most of the time of a short run.
    every = max(config.checkpoint_every, config.epochs // 4)
    config = config.replace(
        max_minutes=min(limit, WALL_MINUTES),
        threads=1,
        checkpoint_every=every,
        cache_dir=loaders.own_cache(config),  # these two are ours to say, as the settings may be a foreign run's
        max_megapixels=min(config.max_megapixels, loaders.MAX_MEGAPIXELS),
    )
    with _starting:  # sessions of one server that ask for one name at once
        run = RunFolder.create(folder() / name, config)
    _spawn(run, {"parent": parent})
    return run


def resume(run: RunFolder) -> None:
    """Go on with a run that stopped, failed or died, from its last checkpoint.

    Raises:
        ConfigError: it is training, or waits to, or has finished.
        StorageError: it was not started here.
    """
    readonly.refuse()
    with _starting:
        job = read(run)
        if job.is_live:
            raise ConfigError(f"{run.name} is {job.state} already.")
        if job.state == "finished":
            raise ConfigError(f"{run.name} has finished. Start a new run with more epochs.")
        run.clear_stop()
        _spawn(run, {"parent": job.parent})


def start_seeds(run: RunFolder, count: int, parent: str = "") -> list[RunFolder]:
    """Start runs that differ from this one in nothing but the seed: the next seeds that no such run has.

    Args:
        run: the run to repeat.
        count: how many.
        parent: id of the run that they are compared with.
    """
    from stage3.runs import curves

    configs = {e.id: e.run.config for e in loaders.entries()}
    ours = curves.seed_key(run.config)
    taken = {c.seed for c in configs.values() if curves.seed_key(c) == ours} | {run.config.seed}
    fresh = [seed for seed in range(max(taken) + count + 1) if seed not in taken][:count]
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", re.sub(r"-seed\d+$", "", run.name))[:45].lstrip("-_.") or "run"
    started = []
    for seed in fresh:
        name = f"{stem}-seed{seed}"
        name = free_name(name) if (folder() / name).exists() else name
        started.append(start(run.config.replace(seed=seed), name, parent))
    return started


def _spawn(run: RunFolder, record: dict[str, Any]) -> None:
    """A process that waits for a place and trains, with its output in the run's `console.log`."""
    arguments = [str(run.path.resolve()), f"{time.time_ns():020d}"]
    seen = run.status.updated
    with children.open_log(run.path / "console.log") as log:
        child = children.spawn(MODULE, arguments, nice=5, log=log, HF_HUB_OFFLINE="1", PYTHONUNBUFFERED="1")
    run.write_json("job", children.remembered(child, children.MEMORY_BYTES) | record | {"seen": seen})


def jobs() -> list[Job]:
    """All jobs of this folder, newest first."""
    return sorted(_jobs(), key=lambda job: job.run.status.started or job.run.status.updated, reverse=True)


def live() -> list[Job]:
    """Jobs that train or wait to, in the order in which they were started."""
    return [job for job in _jobs() if job.is_live]


def live_and_stopped(since: float) -> tuple[list[Job], list[Job]]:
    """`live`, and jobs that can go on: stopped, or dead with a checkpoint, after a time (seconds since 1970)."""
    found = list(_jobs())
    stopped = [job for job in found if _written(job.run) >= since and _can_go_on(job)]
    latest = sorted(stopped, key=lambda job: job.run.status.updated, reverse=True)
    return [job for job in found if job.is_live], latest


def _can_go_on(job: Job) -> bool:
    return job.state == "stopped" or (job.state == "failed" and bool(job.run.checkpoints()))


def _written(run: RunFolder) -> float:
    stamp = loaders.stamp_of(run.path / "status.json")
    return stamp[1] / 1e9 if stamp else 0.0


def _jobs() -> Iterator[Job]:
    """All jobs in the order in which they were started; those that have ended are read again only when they change."""
    found = []
    root = folder()
    for name in sorted(entry.name for entry in root.iterdir()) if root.is_dir() else []:
        record = loaders.stamp_of(f"{root}/{name}/job.json")
        if record is None or name.startswith(".") or not encodable(name):
            continue
        path = root / name
        key = (str(path), record, loaders.stamp_of(f"{path}/status.json"))
        job = _ended.get(key)
        if job is None:
            try:
                run = RunFolder.load(path)
            except Stage3Error:  # the Runs view names it
                continue
            try:
                job = read(run)
            except Stage3Error as error:
                job = Job(run, "", 0, "failed", str(error))
            if not job.is_live:
                _ended[key] = job
                while len(_ended) > MOST_REMEMBERED:
                    _ended.pop(next(iter(_ended)), None)
        found.append((record[1], job))
    yield from (job for _, job in sorted(found, key=lambda f: f[0]))


def read(run: RunFolder) -> Job:
    """The job of a run, as the disk says.

    Raises:
        StorageError: the run was not started here, or its record is damaged.
    """
    record = Record(run.path / "job.json")
    pid, parent, started = record.whole("pid", low=1), record.text("parent"), record.number("started", 0.0)
    seen = record.text("seen", run.status.updated)
    if pid is None or pid > MOST_PID:
        raise StorageError(f"{record.path}: damaged, needs a pid")
    alive = children.is_alive(record.values)
    status = run.status
    state, message = str(status.state), status.message
    young = time.time() - started < START_SECONDS
    if run.is_live:
        pass
    elif alive and (run.path / QUEUED).exists():
        state, message = "queued", ""
    elif alive and status.updated == seen:  # its process has not said anything yet
        state, message = ("starting", "") if young or state == "created" else (state, message)
    elif state == "running":
        state, message = "failed", "the process died; see its log"
    elif state == "created":
        state, message = "failed", tail(run, 5)
    return Job(run, parent, pid, state, message)


def cancel(run: RunFolder) -> None:
    """Ask the trainer to save and stop at its next step; harder after a while, see `press`."""
    readonly.refuse()
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
