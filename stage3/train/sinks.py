"""Other places that the rows of `metrics.jsonl` go to: TensorBoard, Trackio, Weights & Biases.

Each is an extra, imported when a run asks for it by `log_to`, and takes the numbers of each row under their names.
Where they go is the package's own affair: its environment variables say so, among them the switch to stay offline
(`WANDB_MODE=offline`; TensorBoard and Trackio write files by default). All here goes on reading `metrics.jsonl`.

What a sink has is remembered in the run (`sinks.json`), as a number of rows: a resumed run makes the rows after its
checkpoint again, bit for bit, and sends only those that the sink lacks; a sink that is named later gets all of them.
"""

from __future__ import annotations

import importlib.util
import json
import math
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from stage3.config import Config, spec_of
from stage3.errors import ConfigError
from stage3.runs import RunFolder
from stage3.storage import remove, replace_file, to_json

PROJECT = "stage3"  # what runs are listed under in Trackio and Weights & Biases
RECORD = "sinks"
PACKAGES = {"tensorboard": "tensorboard", "trackio": "trackio", "wandb": "wandb"}


class Sink(Protocol):
    """Takes rows of metrics."""

    def write(self, row: Mapping[str, Any]) -> None:
        """One row, as `RunFolder.append_metrics` takes it."""

    def close(self) -> None:
        """Write out what is still on its way."""


def check_installed(config: Config) -> None:
    """Refuse a sink whose package is not there, before anything is trained.

    Raises:
        ConfigError: names it, and how to install it.
    """
    for name in config.log_to:
        if importlib.util.find_spec(PACKAGES[name]) is None:
            raise ConfigError(f'log_to: {name} is not installed: pip install "stage3[{name}]"')


class Sinks:
    """The sinks of a run that is trained; the process that writes the run has them."""

    def __init__(self, run: RunFolder) -> None:
        """Open them, and send what is in `metrics.jsonl` and was not sent.

        Raises:
            ConfigError: one refuses to begin.
        """
        self.run = run
        known = run.read_json(RECORD) if (run.path / f"{RECORD}.json").exists() else {}
        self.record = {n: known.get(n) or {"id": uuid.uuid4().hex[:8], "sent": 0} for n in run.config.log_to}
        self.record = {**known, **self.record}
        self.sinks: dict[str, Sink] = {}
        self.rows = 0
        for name in dict.fromkeys(run.config.log_to):
            if name == "tensorboard":  # its files are written anew: what a killed process had not flushed is in them
                self.record[name]["sent"] = 0
            self.sinks[name] = SINKS[name](run, str(self.record[name]["id"]))
        for row in _rows(run):
            self._send(row)
        self._remember()

    def write(self, row: Mapping[str, Any]) -> None:
        """A row that was just added to `metrics.jsonl`."""
        self._send(row)
        self._remember()

    def _send(self, row: Mapping[str, Any]) -> None:
        self.rows += 1
        for name, sink in self.sinks.items():
            if self.rows > self.record[name]["sent"]:
                sink.write(row)
                self.record[name]["sent"] = self.rows

    def _remember(self) -> None:
        # like the metrics themselves safe from kills, and from power cuts after a checkpoint
        replace_file(self.run.path / f"{RECORD}.json", to_json(self.record).encode(), durable=False)

    def close(self) -> None:
        """Let each write out what is on its way."""
        for sink in self.sinks.values():
            sink.close()


@contextmanager
def opened(run: RunFolder) -> Iterator[Sinks | None]:
    """The sinks that the run's settings name, closed at the end however it comes; None where they name none."""
    if not run.config.log_to:
        yield None
        return
    sinks = Sinks(run)
    try:
        yield sinks
    finally:
        sinks.close()


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """What can be drawn of a row: its finite numbers but `step`.

    >>> numbers({"step": 3, "split": "val", "loss/total": 2.5, "seconds": None, "grad_norm": float("nan")})
    {'loss/total': 2.5}
    """
    found = {n: float(v) for n, v in row.items() if isinstance(v, int | float) and n != "step"}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def shareable(config: Config) -> dict[str, Any]:
    """The settings without what says where files lie on this machine.

    >>> shareable(Config(data="/home/me/comics", vision_backbone="/models/mine"))["vision_backbone"]
    'mine'
    """
    places = ("data", "manifest", "panels", "labels", "remap", "cache_dir", "log_to")
    values = {n: v for n, v in config.to_dict().items() if n not in places and not spec_of(n).ablation}
    for name in ("vision_backbone", "text_backbone"):
        parts = str(values[name]).split("+")
        values[name] = "+".join(p if _public(p) else p.replace("\\", "/").rstrip("/").rpartition("/")[2] for p in parts)
    return values


def _public(name: str) -> bool:
    """Whether a backbone's name is one that others can use: a short name or owner/model."""
    return name.count("/") <= 1 and not name.startswith((".", "/", "~")) and "\\" not in name and ":" not in name


def _rows(run: RunFolder) -> Iterator[dict[str, Any]]:
    path = run.path / "metrics.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        yield json.loads(line)


# --- the three


class TensorBoard:
    """Scalars under `tensorboard/train` and `tensorboard/val` in the run: `tensorboard --logdir runs`."""

    def __init__(self, run: RunFolder, _: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.folder = run.path / "tensorboard"
        if self.folder.exists():
            remove(self.folder)
        self.make = SummaryWriter
        self.writers: dict[str, Any] = {}

    def write(self, row: Mapping[str, Any]) -> None:
        """See `Sink`."""
        split = str(row["split"])
        if split not in self.writers:
            self.writers[split] = self.make(str(self.folder / split), flush_secs=10)
        for name, value in numbers(row).items():
            self.writers[split].add_scalar(name, value, row["step"])

    def close(self) -> None:
        """See `Sink`."""
        for writer in self.writers.values():
            writer.close()


def _by_split(row: Mapping[str, Any]) -> dict[str, float]:
    """Numbers under `train/NAME` and `val/NAME`: these sinks have one row per step for both."""
    return {f"{row['split']}/{name}": value for name, value in numbers(row).items()}


class Trackio:
    """A run in Trackio's local database (`TRACKIO_DIR`), or where its environment variables say: `trackio show`."""

    def __init__(self, run: RunFolder, identity: str) -> None:
        import trackio

        self.run = trackio.init(
            project=PROJECT,
            name=f"{run.name}-{identity}",
            resume="allow",
            config=shareable(run.config),
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def write(self, row: Mapping[str, Any]) -> None:
        """See `Sink`."""
        self.run.log(_by_split(row), step=int(row["step"]))

    def close(self) -> None:
        """See `Sink`."""
        self.run.finish()


class Wandb:
    """A run in Weights & Biases; `WANDB_MODE=offline` keeps it in `wandb/` of the run."""

    def __init__(self, run: RunFolder, identity: str) -> None:
        import wandb

        settings = wandb.Settings(
            console="off", disable_git=True, save_code=False, x_disable_stats=True, x_disable_meta=True
        )
        try:
            self.run = wandb.init(
                project=PROJECT,
                name=run.name,
                id=identity,
                resume="allow",
                dir=str(run.path),
                config=shareable(run.config),
                settings=settings,
            )
        except wandb.Error as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"log_to: wandb: {reason}. Log in, or set WANDB_MODE=offline.") from None

    def write(self, row: Mapping[str, Any]) -> None:
        """See `Sink`."""
        self.run.log(_by_split(row), step=int(row["step"]))

    def close(self) -> None:
        """See `Sink`."""
        self.run.finish()


SINKS: dict[str, type[TensorBoard] | type[Trackio] | type[Wandb]] = {
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "wandb": Wandb,
}
