"""A run is a folder: its settings, what it is doing, its metrics and its checkpoints. Everything else only reads it.

    runs/NAME/  config.yaml  environment.json  status.json  lock  STOP  metrics.jsonl  train.log
                best.json  checkpoints/step-NNNNNNNN/  embeddings/

Any number of readers may look while one process, the holder of the lock, writes. Listing runs imports neither torch
nor pandas. `checkpoints`, beside this file, writes and reads the folders of tensors.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from stage3.cli import clean
from stage3.config import Config
from stage3.errors import ConfigError, DataError
from stage3.processes import this_process
from stage3.runs import metrics_file
from stage3.runs.checkpoints import MANIFEST, Checkpoint, CheckpointFolder, Loaded
from stage3.runs.environment import environment
from stage3.runs.settings import read_config
from stage3.runs.state import Best, State, Status, read_best, read_status
from stage3.small_files import path_problem, shown
from stage3.storage import (
    TMP,
    Lock,
    append_line,
    clear_scratch,
    clear_scratch_of,
    make_folder,
    read_file,
    read_json,
    remove,
    rename,
    replace_file,
    sha256,
    storing,
    sync_file,
    sync_folder,
    to_json,
    write_new,
)

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from stage3.model import Stage3


class RunFolder:
    """The folder of one run. Make one with `RunFolder.create` or `RunFolder.load`.

    Example:
        >>> run = RunFolder.load("data/samples/runs/sample")
        >>> run.name, run.status.state
        ('sample', 'finished')
    """

    def __init__(self, path: Path, config: Config) -> None:
        self.path = path
        self.name = path.resolve().name
        self.config = config
        self._lock = Lock(path / "lock")
        self._announced = False  # whether `status.json` names this process as the one that runs
        self._folder = CheckpointFolder(path / "checkpoints")

    # --- the folder

    @classmethod
    def create(cls, path: Path | str, config: Config) -> Self:
        """Make a new run; the folder appears with its settings in it, or not at all.

        Raises:
            ConfigError: the folder is already a run, or holds something else.
            StorageError: it cannot be written.
        """
        path = Path(path)
        if problem := path_problem(str(path)):
            raise ConfigError(f"{shown(str(path))} {problem}")
        if cls.exists(path):
            raise ConfigError(f"{path} is already a run. Choose another name, or resume it.")
        with storing(path):
            if path.is_symlink() or (path.exists() and not path.is_dir()) or (path.is_dir() and any(path.iterdir())):
                raise ConfigError(f"{path} exists and is not an empty folder. Choose another name for the run.")
            make_folder(path.parent)
            scratch = path.with_name(f"{TMP}{path.name}-{os.getpid()}")
            clear_scratch_of(path)
            try:
                scratch.mkdir()
                write_new(scratch / "config.yaml", config.to_yaml().encode("utf-8"))
                write_new(scratch / "environment.json", _pretty(environment(config)))
                write_new(scratch / "status.json", _pretty(dataclasses.asdict(Status(updated=_now()))))
                sync_folder(scratch)
                if path.is_dir():
                    path.rmdir()
                rename(scratch, path)
            except OSError:
                with suppress(OSError):
                    remove(scratch)
                if cls.exists(path):  # another process was faster
                    raise ConfigError(f"{path} is already a run. Choose another name, or resume it.") from None
                raise
            sync_folder(path.parent)
        return cls(path, config)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Open an existing run.

        Raises:
            DataError: the folder is missing or not a run, or its settings cannot be read; the message says which.
            StorageError: the disk fails while they are read.

        Example:
            >>> RunFolder.load("runs/nowhere")
            Traceback (most recent call last):
            stage3.errors.DataError: runs/nowhere: no such run
        """
        path = Path(path)
        if problem := path_problem(str(path)):
            raise DataError(f"{shown(str(path))} {problem}")
        if not path.is_dir():
            raise DataError(f"{path}: no such run")
        if not cls.exists(path):
            if os.path.lexists(path / "config.yaml"):
                raise DataError(f"{path}: its settings cannot be read: config.yaml is not a regular file")
            raise DataError(f"{path}: not a run, it has no config.yaml")
        return cls(path, read_config(path / "config.yaml"))

    @staticmethod
    def exists(path: Path | str) -> bool:
        """Whether a folder is a run (it may still be a damaged one).

        Example:
            >>> RunFolder.exists("data/samples/runs/sample"), RunFolder.exists("data/samples")
            (True, False)
        """
        return not path_problem(str(path)) and (Path(path) / "config.yaml").is_file()

    def write_config(self, config: Config) -> None:
        """Record changed settings, as a resumed run may have."""
        replace_file(self.path / "config.yaml", config.to_yaml().encode("utf-8"))
        self.config = config

    # --- what it is doing

    @property
    def status(self) -> Status:
        """The last written status; a damaged `status.json` reads as a failed run that says so."""
        return read_status(self.path / "status.json")

    def set_status(self, state: State | None = None, **fields: Any) -> Status:
        """Change some fields of `status.json` in one step and return the result.

        A change to "running" records this process and the time. A change of state reaches the disk before this
        returns; progress within a state need not, so it costs little.
        """
        before = self.status
        after = dataclasses.replace(before, **{"updated": _now(), **fields})
        if state is not None:
            after = dataclasses.replace(after, state=state)
        if state == "running" and not self._announced:
            who = {"started": _now(), "exit_code": None, **this_process()}
            after = dataclasses.replace(after, **{k: v for k, v in who.items() if k not in fields})
            self._announced = True
        self._announced = self._announced and after.state == "running"
        durable = after.state != before.state
        replace_file(self.path / "status.json", _pretty(dataclasses.asdict(after)), durable=durable)
        return after

    @property
    def is_live(self) -> bool:
        """Whether a process is training it now: the status says running and the lock is really held."""
        return self.status.state == "running" and self._lock.is_held()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for writing. The lock ends with this process, however that ends.

        Raises:
            StorageError: another process holds it; the message names its pid and host.
        """
        self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()

    @property
    def stop_requested(self) -> bool:
        """Whether somebody asked the run to stop at the next step."""
        return (self.path / "STOP").exists()

    def request_stop(self) -> None:
        """Ask the process that trains this run to save and stop."""
        replace_file(self.path / "STOP", b"")

    def clear_stop(self) -> None:
        """Withdraw the request to stop."""
        with storing(self.path / "STOP"):
            (self.path / "STOP").unlink(missing_ok=True)

    def log(self, text: str) -> None:
        """One line of `train.log`, with the time in UTC; control characters and line breaks are replaced."""
        line = clean(text).replace("\n", " ").replace("\t", " ")
        append_line(self.path / "train.log", f"{_now()} {line}\n".encode("utf-8", errors="replace"))

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Torch computes with the run's number of threads inside, which numbers depend on; as before afterwards."""
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self.config.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    # --- metrics

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Add one row to `metrics.jsonl`, NaN as null; safe from kills at once, from power cuts after a checkpoint."""
        metrics_file.append(self.path / "metrics.jsonl", row)

    def cut_metrics(self, step: int) -> int:
        """Drop rows after a step, which a resumed run writes again, and lines that are no rows; returns how many."""
        return metrics_file.cut(self.path / "metrics.jsonl", step)

    def metrics(self) -> pd.DataFrame:
        """All rows of `metrics.jsonl`; null is NaN, and a line that is being written is left out.

        `attrs["damaged_lines"]` counts unreadable lines before the last.

        Example:
            >>> frame = RunFolder.load("data/samples/runs/sample").metrics()
            >>> sorted(frame["split"].unique())
            ['train', 'val']
        """
        return metrics_file.read(self.path / "metrics.jsonl")

    # --- small files

    def write_json(self, name: str, value: Mapping[str, Any]) -> Path:
        """Replace `NAME.json` in the run in one step, synced; NaN becomes null."""
        path = self._json_path(name)
        replace_file(path, _pretty(value))
        return path

    def read_json(self, name: str) -> dict[str, Any]:
        """Read `NAME.json` of the run; StorageError when it is missing or damaged.

        Example:
            >>> sorted(RunFolder.load("data/samples/runs/sample").read_json("best"))
            ['metric', 'step', 'value']
        """
        return read_json(self._json_path(name))

    def _json_path(self, name: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", name):
            raise ValueError(f"{name!r} cannot name a file of a run: use letters, digits, _ . -")
        return self.path / (name if name.endswith(".json") else f"{name}.json")

    # --- checkpoints

    def save_checkpoint(
        self,
        step: int,
        tensors: dict[str, dict[str, Tensor]],
        state: dict[str, Any],
        models: Mapping[str, bytes] | None = None,
    ) -> Path:
        """Write `checkpoints/step-NNNNNNNN`; after a crash anywhere in here it is complete or absent.

        The metrics written so far are synced first, so a visible checkpoint never lacks the rows before it.

        Args:
            step: steps done; names the folder. A checkpoint of the same step is replaced.
            tensors: groups of named tensors, such as "model" and "optimizer"; each becomes one safetensors file.
            state: everything else, as strict JSON (NaN raises ValueError: null in its place would not resume exactly).
            models: files of the folders of trained backbones, by their path in the checkpoint.

        Raises:
            StorageError: the disk is full or fails; checkpoints that were there are untouched.
        """
        self._sync_metrics()
        return self._folder.save(step, tensors, state, models)

    def _sync_metrics(self) -> None:
        sync_file(self.path / "metrics.jsonl")
        with storing(self.path):
            sync_folder(self.path)

    def checkpoints(self) -> list[Checkpoint]:
        """Every visible checkpoint, ascending, unread. Damaged ones count, so that no run silently restarts.

        Example:
            >>> len(RunFolder.load("data/samples/runs/sample").checkpoints()) > 0
            True
        """
        return self._folder.visible()

    def load_checkpoint(self, step: int | None = None, check: Callable[[Loaded], None] | None = None) -> Loaded:
        """A checkpoint whose files all have the length and SHA-256 of its manifest.

        Args:
            step: which; None takes the newest intact one and names the damaged ones it passed over in `Loaded.damaged`.
            check: raises StorageError for content that is of no use to the caller, which then counts as damaged.

        Raises:
            StorageError: no such checkpoint, or a damaged file, or NaN among the weights; the file is named.

        Example:
            >>> sorted(RunFolder.load("data/samples/runs/sample").load_checkpoint().tensors)
            ['model']
        """
        return self._folder.load(step, check)

    def checkpoint(self, step: int | None = None) -> Checkpoint:
        """The checkpoint to use: of this step, else the best, else the newest that is intact.

        Raises:
            NotThere: the run has no checkpoint of this step, or none yet.
            StorageError: every checkpoint is damaged.

        Example:
            >>> run = RunFolder.load("data/samples/runs/sample")
            >>> run.checkpoint().step == run.best().step
            True
        """
        if step is not None:
            return self._folder.at(step)
        best = self.best()
        there = {c.step: c for c in self.checkpoints()}
        if best is not None and best.step in there:
            return there[best.step]
        return self._folder.newest_intact()

    def model(self, step: int | None = None) -> Stage3:
        """The model of a checkpoint, in eval mode on the CPU.

        Args:
            step: which; None as in `checkpoint`.

        Raises:
            StorageError: no checkpoint, a damaged one, or tensors that do not fit the settings.

        Example:
            >>> RunFolder.load("data/samples/runs/sample").model().training
            False
        """
        from stage3.model.checkpoint import model_of

        loaded = self.load_checkpoint(self.checkpoint(step).step)
        return model_of(loaded.tensors.get("model", {}), loaded.state.get("encoder"), self.config, loaded.path)

    def fingerprint(self, step: int) -> str:
        """SHA-256 of a checkpoint's manifest: it changes when a bit of the checkpoint does."""
        return sha256(read_file(self._folder.at(step).path / MANIFEST))

    def set_best(self, step: int, value: float, metric: str) -> None:
        """Point `best.json` at a checkpoint. Call it once that checkpoint is saved."""
        self.write_json("best", {"step": step, "value": value, "metric": metric})

    def best(self) -> Best | None:
        """Which checkpoint is the best so far; None before the first validation. StorageError when it cannot be read.

        Example:
            >>> RunFolder.load("data/samples/runs/sample").best().metric
            'retrieval/same_page_r_precision'
        """
        if not (self.path / "best.json").exists():
            return None
        return read_best(self.path / "best.json")

    def clear_best(self) -> None:
        """Forget the best checkpoint, as a run does that resumes from before it was found."""
        with storing(self.path / "best.json"):
            (self.path / "best.json").unlink(missing_ok=True)

    def prune(self, keep: int) -> list[int]:
        """Delete checkpoints older than the newest `keep` intact ones, but the best; returns the deleted steps.

        Only `keep` intact ones, checked by hash, make an older one expendable, so the newest intact one always stays.
        Also removes what dead processes left unfinished.

        Args:
            keep: how many; 0 keeps all.
        """
        best = self.best()
        deleted = self._folder.prune(keep, best.step if best else None, all_writers=self._lock.mine)
        self.clear_leftovers()
        return deleted

    def clear_leftovers(self) -> None:
        """Remove what processes that were killed left unfinished, here and in the run's folders."""
        with storing(self.path):
            clear_scratch(self.path)
            for entry in list(self.path.iterdir()):
                if not entry.name.startswith(TMP) and entry.is_dir() and not entry.is_symlink():
                    clear_scratch(entry)


def _pretty(value: Mapping[str, Any]) -> bytes:
    """Strict JSON (NaN is null), one entry per line."""
    text = json.dumps(json.loads(to_json(dict(value))), ensure_ascii=False, indent=1)
    return text.encode("utf-8") + b"\n"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
