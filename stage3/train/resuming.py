"""What a resumed run checks before it goes on: its settings, the state of its checkpoint, the record of its metrics.

A checkpoint is sealed by its manifest, but whoever can write the folder can seal anything. So everything that a
checkpoint's state holds is looked at for its inner types before it is used, and what differs is said by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stage3.config import FIELDS, Config, spec_of
from stage3.errors import ConfigError, StorageError
from stage3.small_files import shown

if TYPE_CHECKING:
    import pandas as pd

    from stage3.runs import Loaded, RunFolder

APART = ("threads", "device")  # a checkpoint records what they were in effect; `--allow_inexact_resume` is for them
MOST = 2**53  # of a count or a step


def recorded_settings(config: Config, run: Path) -> dict[str, Any]:
    """The settings that reach the weights, for a checkpoint; the run's own folder is left out of paths."""
    here = f"{run.resolve()}/"
    values = config.to_dict()
    fixed = {name: values[name] for name in FIELDS if not spec_of(name).resume_free and name not in APART}
    return {name: v.replace(here, "") if isinstance(v, str) else v for name, v in fixed.items()}


def check_settings(run: RunFolder, state: Mapping[str, Any]) -> None:
    """Refuse to go on with other settings than a checkpoint was trained with: `config.yaml` was edited since.

    Raises:
        ConfigError: what differs, by name, and the remedy.
    """
    before = state.get("settings")
    if not isinstance(before, dict):  # of an earlier version, or forged: the state's check says so
        return
    now = recorded_settings(run.config, run.path)
    differ = [name for name in now if name in before and before[name] != now[name]]
    if differ:
        listed = "; ".join(f"{name} was {shown(before[name])}, is {shown(now[name])}" for name in differ[:5])
        more = f" and {len(differ) - 5} more" if len(differ) > 5 else ""
        raise ConfigError(
            f"{run.path / 'config.yaml'} has other settings than the checkpoint of step {state.get('step')} was "
            f"trained with: {listed}{more}. Put the former values back, or train a new run with the new ones."
        )


def check_state(state: Mapping[str, Any], loaded: Loaded, scaler: Mapping[str, Any]) -> None:
    """Refuse state whose inner values are not what training wrote, whatever its manifest vouches for.

    Args:
        state: entries of the checkpoint's `state.json`, each of its own type already.
        loaded: the checkpoint.
        scaler: this run's own loss scaler, whose entries the checkpoint's must have.

    Raises:
        StorageError: the first entry that is wrong.
    """
    best, pending = state["best"], state["pending"]
    step = loaded.step
    rules = {
        "step": _count(state["step"]),
        "validations_since_best": _count(state["validations_since_best"]),
        "skipped_in_a_row": _count(state["skipped_in_a_row"]),
        "processes": _count(state["processes"]) and state["processes"] >= 1,
        "threads": _count(state["threads"]) and state["threads"] >= 1,
        "floor": state["floor"] is None or _number(state["floor"]),
        "top": state["top"] is None or _number(state["top"]),
        "best": best is None
        or (_count(best["step"]) and best["step"] <= step and _number(best["value"]) and _text(best["metric"])),
        "pending.losses": isinstance(pending["losses"], dict)
        and all(isinstance(v, list) and len(v) == 2 and all(map(_number, v)) for v in pending["losses"].values()),
        "pending.counts": isinstance(pending["counts"], dict) and all(map(_count, pending["counts"].values())),
        "pending.norms": isinstance(pending["norms"], list) and all(map(_number, pending["norms"])),
        "pending.silent": _count(pending["silent"]),
        "pending.skipped": _count(pending["skipped"]),
        "scaler": set(state["scaler"]) == set(scaler) and all(_number(v) and v >= 0 for v in state["scaler"].values()),
        "moments": state["moments"] is None or _count(state["moments"]),
        "settings": state["settings"] is None or isinstance(state["settings"], dict),
    }
    wrong = [name for name, holds in rules.items() if not holds]
    if wrong:
        raise StorageError(f"{loaded.path / 'state.json'}: {wrong[0]} is not what training writes")


def check_moments(recorded: int | None, loaded: Loaded) -> None:
    """Refuse optimizer state that is gone, cut, or of another time: AdamW would start anew without a word.

    Args:
        recorded: how many tensors were saved; None in checkpoints of earlier versions.
        loaded: the checkpoint.

    Raises:
        StorageError: what is wrong with it.
    """
    where = loaded.path / "optimizer.safetensors"
    moments = loaded.tensors.get("optimizer")
    if moments is None:
        raise StorageError(f"{where}: missing, so this checkpoint cannot be resumed")
    expected = recorded if recorded is not None else (len(moments) or int(loaded.step > 0))
    if len(moments) != expected:
        raise StorageError(f"{where}: holds {len(moments)} tensors, {expected} were saved")
    for name, value in moments.items():
        key = name.partition("/")[0]
        if key == "step" and not bool(((value >= 0) & (value <= loaded.step + 1)).all()):
            raise StorageError(f"{where}: {name} counts more steps than were trained")
        if key == "exp_avg_sq" and bool((value < 0).any()):
            raise StorageError(f"{where}: {name} holds squares below 0")


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < MOST


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and abs(value) < 1e300


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 200


def lost_metrics(frame: pd.DataFrame, step: int, log_every: int, steps_per_epoch: int) -> list[str]:
    """What the record of a resumed run lacks, in sentences: lines that are damaged, training rows that are not there.

    Args:
        frame: `RunFolder.metrics()` before it is cut.
        step: of the checkpoint that the run goes on from.
        log_every: steps per training row.
        steps_per_epoch: an epoch ends with a row as well.
    """
    said = []
    damaged = int(frame.attrs.get("damaged_lines", 0))
    if damaged:
        said.append(f"metrics.jsonl: {damaged} damaged line{'s' if damaged > 1 else ''} left out")
    logged = set(frame["step"][frame["split"] == "train"].tolist())
    expected = [s for s in range(1, step + 1) if s % log_every == 0 or s % steps_per_epoch == 0]
    lost = [s for s in expected if s not in logged]
    if lost:
        said.append(
            f"metrics.jsonl: {len(lost)} of {len(expected)} training rows up to step {step} are lost, the first that "
            f"of step {lost[0]}; curves lack them"
        )
    return said
