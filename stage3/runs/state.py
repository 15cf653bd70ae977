"""What a run says it is doing (`status.json`) and which checkpoint it chose (`best.json`), with types and ranges."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from stage3.errors import StorageError
from stage3.small_files import Record

State = Literal["created", "running", "finished", "stopped", "failed"]


@dataclass(frozen=True)
class Status:
    """What a run is doing, as `status.json` says it. Times are ISO 8601 in UTC."""

    state: State = "created"
    step: int = 0
    total_steps: int = 0
    epoch: int = 0
    message: str = ""
    pid: int | None = None
    host: str = ""
    boot_id: str = ""
    started: str = ""
    updated: str = ""
    saved_step: int | None = None  # of the newest checkpoint that was ever saved
    best_step: int | None = None
    best_value: float | None = None
    exit_code: int | None = None


@dataclass(frozen=True)
class Best:
    """Which checkpoint won, by which metric and with which value: "" and NaN of a converted run, which has but one."""

    step: int
    value: float
    metric: str


def read_status(path: Path) -> Status:
    """The last written status; a damaged `status.json` reads as a failed run that says so."""
    try:
        record = Record(path)
        state = record.text("state", "created")
        if state not in get_args(State):
            return Status(state="failed", message=f"{path}: damaged, state is {state[:40]!r}")
        return Status(
            state=cast("State", state),
            step=record.whole("step", 0),
            total_steps=record.whole("total_steps", 0),
            epoch=record.whole("epoch", 0),
            message=record.text("message"),
            pid=record.whole("pid", None),
            host=record.text("host", most=300),
            boot_id=record.text("boot_id", most=100),
            started=record.time("started"),
            updated=record.time("updated"),
            saved_step=record.whole("saved_step", None),
            best_step=record.whole("best_step", None),
            best_value=record.number("best_value", None),
            exit_code=record.whole("exit_code", None, low=-1000),
        )
    except StorageError as error:
        return Status(state="failed", message=str(error))


def read_best(path: Path) -> Best:
    """Which checkpoint won.

    Raises:
        StorageError: missing or damaged.
    """
    record = Record(path)
    step, value = record.whole("step", None), record.number("value", None)
    metric = record.text("metric", most=200)
    if value is None and not metric:
        value = math.nan
    if step is None or value is None:
        raise StorageError(f"{path}: damaged, needs a step and a value")
    return Best(step, value, metric)
