"""One run of an experiment: its settings and command, its training, and what is measured of it afterwards.

A run is an ordinary run folder made by the ordinary trainer. What was measured lies beside its metrics in
`evidence.json`, so the tables need no weights, and a run that has this file is never trained again.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stage3 import evaluate
from stage3.ablate import noise
from stage3.ablate.chunked_check import errors_and_memory
from stage3.ablate.terms import DIFFER, METRICS, MSE, ORIGINAL, Arm
from stage3.batches import PageSampler
from stage3.cli import train_command, typed
from stage3.config import Config, spec_of
from stage3.diagnose import DIFFER as PANELS_DIFFER
from stage3.diagnose import YES, diagnose
from stage3.errors import Interrupted, NumericError, Stage3Error
from stage3.model import embedding, validation
from stage3.runs import RunFolder
from stage3.storage import sha256
from stage3.train import check_identity

if TYPE_CHECKING:
    from stage3.batches.dataset import Dataset

SMALLER = {"epochs": 10, "dim": 256}
"""Half the default epochs and size, so that some four hundred runs fit a quarter of an hour on two cores."""

NEVER = 1_000_000
_FILES = {"keep_checkpoints": 0, "log_every": NEVER}  # settings that reach files but no weight
_SHOWN = ("data", *SMALLER)
_PLACES = {"manifest", "panels", "labels", "panel_format", "box_order", "box_unit", "remap", "limit_pages"}
RECORD = "evidence"


@dataclass(frozen=True)
class Plan:
    """A run to be made.

    Attributes:
        arm: what it is for.
        config: all settings, its seed among them.
        path: its folder.
        key: hash of what decides the weights apart from the seed; arms that share it share runs.
        command: makes the same weights.
        wants: extra measurements, "noise" and "chunked".
    """

    arm: Arm
    config: Config
    path: Path
    key: str
    command: str
    wants: frozenset[str]


def config_of(arm: Arm, seed: int, given: Mapping[str, Any], thinned: Path) -> Config:
    """Settings of an arm: the original values, then the caller's own settings, then the arm's changes."""
    base = (SMALLER | ORIGINAL if arm.pinned else {}) | dict(given)
    if arm.data == "thinned":
        base = {k: v for k, v in base.items() if k not in _PLACES} | {"data": thinned.as_posix()}
    files = {**_FILES, "checkpoint_every": 1 if arm.meter else NEVER}
    return Config.layered((base, "settings"), ({**arm.changes, **files, "seed": seed}, arm.label))


def key_of(config: Config, identity: Mapping[str, Any]) -> str:
    """Hash of all that reaches the weights but the seed: settings and the data set's identity."""
    left_out = {"seed", *_FILES}
    reaching = {k: v for k, v in config.to_dict().items() if k not in left_out and not spec_of(k).resume_free}
    text = json.dumps([reaching, dict(identity)], sort_keys=True)
    return sha256(text.encode("utf-8"))[:10]


def command_of(config: Config, name: str, *, pinned: bool = True) -> str:
    """The `python -m stage3.train` command that makes a run's weights again, in a folder of its own."""
    always = (*_SHOWN, *(ORIGINAL if pinned else ()))
    never = (*_FILES, "checkpoint_every", "temperature")
    return train_command(config, f"runs/again/{name}", always=always, never=never)


def name_of(arm: Arm, key: str, seed: int) -> str:
    """A readable folder name: what the arm changes, its key and its seed."""
    words = "-".join(f"{k}_{typed(v)}" for k, v in arm.changes.items()) or ("base" if arm.pinned else "defaults")
    slug = re.sub(r"[^A-Za-z0-9_.-]+", "_", words)[:60].rstrip("-._")
    return f"{slug}{'-thinned' if arm.data == 'thinned' else ''}-{key}-s{seed}"


@lru_cache(maxsize=4)
def _dataset(settings: str) -> Dataset:
    from stage3.batches.dataset import Dataset

    return Dataset.load(Config.from_mapping(json.loads(settings)), progress=False)


def dataset_of(config: Config) -> Dataset:
    """The data set of a run, read once per process."""
    groups = ("data", "features")
    reading = {k: v for k, v in config.to_dict().items() if spec_of(k).group in groups or k in ("device", "precision")}
    return _dataset(json.dumps(reading, sort_keys=True))


# --- training


def make(plan: Plan, stop: Callable[[], bool] = lambda: False) -> Path:
    """Train and measure a run, going on where an earlier attempt was stopped; a measured run is left as it is.

    A run that diverged is a result too: its record says so.

    Raises:
        Interrupted: on request; the next call goes on.
    """
    torch.set_num_threads(plan.config.threads)
    if record_of(plan):
        return plan.path
    if stop():
        raise Interrupted(f"{plan.path}: not begun")
    data = dataset_of(plan.config)
    run = _ready(plan)
    with run.lock():
        failed = ""
        if run.status.state != "finished":
            try:
                _train(run, data, stop)
            except NumericError as error:
                failed = str(error)
        run.write_json(RECORD, {"failed": failed} if failed else measure(run, data, plan.wants))
        shutil.rmtree(run.path / "checkpoints", ignore_errors=True)
    return plan.path


def record_of(plan: Plan) -> dict[str, Any] | None:
    """What was measured of a finished run; None when there is nothing, or not all that is wanted."""
    path = plan.path / f"{RECORD}.json"
    if not path.is_file():
        return None
    record: dict[str, Any] = RunFolder.load(plan.path).read_json(RECORD)
    return record if record.get("failed") or plan.wants <= set(record["parts"]) else None


def _ready(plan: Plan) -> RunFolder:
    """The run's folder, new or to go on with; one that was measured for less than is wanted now starts again."""
    if RunFolder.exists(plan.path):
        run = RunFolder.load(plan.path)
        if not (run.path / f"{RECORD}.json").is_file():
            run.write_config(plan.config)
            return run
        shutil.rmtree(plan.path)
    return RunFolder.create(plan.path, plan.config)


def _train(run: RunFolder, data: Dataset, stop: Callable[[], bool]) -> None:
    """Train to the end with the status that `python -m stage3.train` would write."""
    from stage3.train.trainer import Trainer

    run.clear_stop()
    run.set_status("running", message="reading the data")
    try:
        run.write_json("data_report", data.table.report.to_dict())
        check_identity(run, data)
        trainer = Trainer(run, data)
        if run.checkpoints():
            trainer.resume(run.load_checkpoint())
        else:
            run.cut_metrics(0)
            run.clear_best()
        trainer.fit(stop)
    except Stage3Error as error:
        run.set_status(
            "stopped" if isinstance(error, Interrupted) else "failed", message=str(error), exit_code=error.exit_code
        )
        raise
    run.set_status("finished", step=trainer.step, message="finished", exit_code=0)


# --- measuring


def measure(run: RunFolder, data: Dataset, wants: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Everything that the tables need of a finished run, as plain values.

    Returns:
        `best` and `last`: `step`, `metrics` on the test books and `books`, for each metric that is a mean over
        panels {book: [sum, count]}; `val`: the validation row of the best step; `weights_sha256` of the best step;
        `parts`: the extra measurements it holds.
    """
    steps = [c.step for c in run.checkpoints()]
    best = run.best()
    chosen = best.step if best else steps[-1]
    record: dict[str, Any] = {"failed": "", "parts": sorted(wants)}
    pages = data.pages("test") if len(data.pages("test")) else data.pages("val")
    for at, step in (("best", chosen), ("last", steps[-1])):
        record[at] = _measured(run, data, step, pages) if at == "best" or step != chosen else record["best"]
    frame = run.metrics()
    row = frame[(frame["split"] == "val") & (frame["step"] == chosen)]
    values = {} if row.empty else {str(k): v for k, v in row.iloc[0].items()}
    record["val"] = {k: v for k, v in values.items() if k.startswith(("retrieval/", "reconstruction/", "collapse/"))}
    extra = _signal(run.config, data)
    if "chunked" in wants:
        model = run.model(chosen)
        extra |= errors_and_memory(embedding.embed(model, data.panel_set, pages))
    if "noise" in wants:
        found, record["noise"] = noise.measure(run, data)
        extra |= found
    for at in ("best", "last"):
        record[at]["metrics"] |= extra
    record["weights_sha256"] = weights_digest(run, chosen)
    return record


def _measured(run: RunFolder, data: Dataset, step: int, pages: np.ndarray) -> dict[str, Any]:
    model = run.model(step)
    row, embedded = validation.all_metrics(model, data.panel_set, pages)
    row[DIFFER] = float(diagnose(embedded.panel, embedded.page_ids, row).answers[PANELS_DIFFER] == YES)
    if model.weights["reconstruction"] > 0:
        prediction, at = validation.reconstruct(model, embedded)
        row[MSE] = float((prediction - embedded.panel[at]).square().mean())
    books = data.table.pages["book_id"].to_numpy()[embedded.page_ids.numpy()]
    sums: dict[str, dict[str, list[float]]] = {}
    for name, (values, at) in evaluate.item_values(model, embedded)[0].items():
        if name in METRICS:
            sums[name] = _by_group(values.numpy(), books[at.numpy()])
    return {"step": step, "metrics": row, "books": sums}


def _by_group(values: np.ndarray, groups: np.ndarray) -> dict[str, list[float]]:
    """{group: [sum, count]} of the values that are not NaN."""
    defined = ~np.isnan(values)
    names, group = np.unique(groups[defined], return_inverse=True)
    sums = np.bincount(group, weights=values[defined], minlength=len(names))
    counts = np.bincount(group, minlength=len(names))
    return {name: [float(s), float(n)] for name, s, n in zip(names, sums, counts, strict=True)}


def _signal(config: Config, data: Dataset) -> dict[str, float]:
    """How much signal each training step had, from the sampler itself: `signal/*` over all epochs."""
    sampler = PageSampler.of(data.panel_set, data.pages("train"), config)
    panels, pairs = np.zeros(int(sampler.pages.max()) + 1), np.zeros(int(sampler.pages.max()) + 1)
    panels[sampler.pages], pairs[sampler.pages] = sampler.panels, sampler.pairs
    steps = [batch for epoch in range(config.epochs) for batch in sampler.epoch(epoch)]
    aligned = np.asarray([pairs[batch].sum() for batch in steps])
    with_mates = np.asarray([(panels[batch] > 1).any() for batch in steps])
    return {
        "signal/steps_without_alignment": float((aligned < 2).mean()),
        "signal/steps_without_anchors": float((~with_mates).mean()),
        "signal/aligned_a_step": float(aligned.min()),
    }


def weights_digest(run: RunFolder, step: int) -> str:
    """SHA-256 over names and bytes of a checkpoint's weights: equal when every bit is."""
    digest = hashlib.sha256()
    for name, tensor in sorted(run.load_checkpoint(step).tensors["model"].items()):
        digest.update(name.encode("utf-8"))
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()
