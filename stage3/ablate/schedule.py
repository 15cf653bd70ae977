"""Which runs an experiment needs, and training them in several processes; finished ones are not trained again."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from multiprocessing.connection import wait as wait_for
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from stage3.ablate.arms import Plan, command_of, config_of, dataset_of, key_of, make, name_of, record_of
from stage3.ablate.findings import arms
from stage3.ablate.terms import Arm, Comparison, Finding
from stage3.ablate.thinning import write_thinned
from stage3.batches.dataset import Dataset
from stage3.cli import progress
from stage3.errors import DataError, Interrupted

POLL = 0.5  # seconds between looks at a request to stop


def arm_id(arm: Arm) -> str:
    """What tells arms apart: everything but the label."""
    return json.dumps([arm.changes, arm.data, arm.meter, arm.pinned], sort_keys=True)


@dataclass(frozen=True)
class Experiment:
    """The runs of some findings.

    Attributes:
        data: the full data set.
        plans: {arm_id: one plan per seed}; arms with equal settings share run folders.
        out: where everything is written.
    """

    data: Dataset
    plans: dict[str, list[Plan]]
    out: Path

    def of(self, arm: Arm) -> list[Plan]:
        """The runs of an arm, by seed."""
        return self.plans[arm_id(arm)]

    @property
    def distinct(self) -> list[Plan]:
        """Every run once."""
        return list({plan.path: plan for plans in self.plans.values() for plan in plans}.values())


def thinned_folder(out: Path) -> Path:
    """Where the thinned copy of an experiment's data lies."""
    return out / "data" / "thinned"


def plan(findings: Sequence[Finding], seeds: int, out: Path, given: Mapping[str, Any]) -> Experiment:
    """Read the data (features are computed here, before any process trains) and plan every run.

    Raises:
        DataError: there is nothing to train on, or no book is left for evaluation.
    """
    data = dataset_of(config_of(Arm("base"), 0, given, thinned_folder(out)))
    for split in ("train", "val"):
        if not len(data.pages(split)):
            raise DataError(f"the {split} split has no page: experiments train, choose and judge on different books")
    wanted = {arm_id(arm): arm for _, arm in arms(list(findings))}
    if any(arm.data == "thinned" for arm in wanted.values()):
        write_thinned(data, thinned_folder(out))
    wants = _wants(findings)
    drafts = {name: [_plan(arm, s, out, given, wants[name]) for s in range(seeds)] for name, arm in wanted.items()}
    every: dict[Path, frozenset[str]] = {}
    for draft in (d for ds in drafts.values() for d in ds):
        every[draft.path] = every.get(draft.path, frozenset()) | draft.wants
    meters = {d.path: d.config for ds in drafts.values() for d in ds if d.arm.meter}
    shared = {
        name: [replace(d, wants=every[d.path], config=meters.get(d.path, d.config)) for d in ds]
        for name, ds in drafts.items()
    }
    return Experiment(data, shared, out)


def _plan(arm: Arm, seed: int, out: Path, given: Mapping[str, Any], wants: frozenset[str]) -> Plan:
    config = config_of(arm, seed, given, thinned_folder(out))
    key = key_of(config, dataset_of(config).identity())
    name = name_of(arm, key, seed)
    command = command_of(config, name, pinned=arm.pinned)
    if arm.data == "thinned":
        source = " ".join(f"--{k} {given[k]}" for k in ("data", "manifest", "panels", "labels") if given.get(k))
        command = f"python -m stage3.ablate --prepare {source} --out {out.as_posix()} && {command}"
    # Equal settings give one folder, whatever the arm that asked first is called.
    return Plan(arm, config, out / "runs" / f"{key}-s{seed}", key, command, wants)


def _wants(findings: Sequence[Finding]) -> dict[str, frozenset[str]]:
    """{arm_id: extra measurements that some comparison reads}."""
    found: dict[str, frozenset[str]] = {}

    def note(arm: Arm, comparison: Comparison) -> None:
        parts = {j.metric.partition("/")[0] for j in comparison.judged} & {"noise", "chunked"}
        found[arm_id(arm)] = found.get(arm_id(arm), frozenset()) | parts

    for comparison in (c for f in findings for c in f.comparisons):
        note(comparison.fixed, comparison)
        note(comparison.reviewed, comparison)
    return found


# --- making them


def make_all(plans: Sequence[Plan], jobs: int, stop: Callable[[], bool]) -> int:
    """Train every run that is missing, `jobs` at a time; returns how many were trained.

    Raises:
        Interrupted: on request, after the running ones have saved where they are.
    """
    missing = [p for p in plans if not record_of(p)]
    with progress("experiments", len(missing)) as bar:
        if jobs == 1 or len(missing) < 2:
            for p in missing:
                if stop():
                    raise Interrupted(_resumable(missing))
                make(p, stop)
                bar.advance(1)
        else:
            _in_processes(missing, jobs, stop, bar.advance)
    return len(missing)


def _in_processes(missing: Sequence[Plan], jobs: int, stop: Callable[[], bool], advance: Callable[[int], None]) -> None:
    context = multiprocessing.get_context("spawn")
    halt = context.Event()
    jobs = min(jobs, len(missing))
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_prepare_worker, initargs=(halt,)) as pool:
        waiting: set[Future[Path]] = {pool.submit(_make_here, p) for p in missing}
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=POLL, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                    advance(1)
                if stop():
                    raise Interrupted(_resumable(missing))
        except BaseException:
            halt.set()  # runs that train now save and stop at their next step; queued ones see it and do not begin
            raise


def _resumable(missing: Sequence[Plan]) -> str:
    left = sum(not record_of(p) for p in missing)
    return f"stopped with {left} of {len(missing)} runs left to train; the same command resumes"


_halt: list[Event] = []  # of a worker process: set once the experiment is to stop


def _make_here(plan: Plan) -> Path:
    return make(plan, _halt[0].is_set)


def _prepare_worker(halt: Event) -> None:
    """One thread; Ctrl-C is the parent's to handle; and when the parent dies, so does this process."""
    _halt.append(halt)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        wait_for([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
