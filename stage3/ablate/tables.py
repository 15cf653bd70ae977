"""The files an experiment leaves: Parquet for programs and the explorer, Markdown for people."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stage3.ablate.arms import Plan, record_of
from stage3.ablate.evidence import Row, document, rows_of
from stage3.ablate.findings import SWEEPS, arms
from stage3.ablate.schedule import Experiment, arm_id
from stage3.ablate.terms import (
    DIFFER,
    INTRA,
    METRICS,
    MRR,
    MSE,
    PAGE,
    R1,
    R5,
    RANK,
    SKILL,
    Arm,
    Finding,
)
from stage3.runs import RunFolder
from stage3.storage import replace_file

CURVES = {
    "val": ("loss/total", R5, PAGE, "collapse/effective_rank", "collapse/intra_cosine", "reconstruction/skill"),
    "train": ("grad_norm",),
}
AT_THE_END = (R1, R5, PAGE, SKILL, MSE, RANK, INTRA, DIFFER)
CHOSEN_BY = (R1, R5, MRR, PAGE, SKILL, RANK)
UNBUDGETED = {"F1", "F5", "F6", "E7"}  # arms of these alone tell nothing new about which term pulls how hard
BUDGET = ("gradient/", "gradient_cosine/")


def write(out: Path, experiment: Experiment, findings: Sequence[Finding], again: str, about: Mapping[str, Any]) -> Any:
    """Write every table of these findings.

    Args:
        out: the folder.
        experiment: its runs, all made.
        findings: what was asked.
        again: the command, up to `--findings`, that repeats them.
        about: for the text: command, data, runs, epochs, seeds, panels, books.

    Returns:
        The rows of the evidence table, and the names of runs that diverged.
    """
    records = {p.path: record_of(p) or {"failed": "was not made"} for p in experiment.distinct}
    rows = [row for finding in findings for row in _rows(experiment, finding, records, again)]
    labels = _labels(findings)
    parquet(out / "evidence.parquet", pd.DataFrame([dataclasses.asdict(r) for r in rows], columns=_columns()))
    parquet(out / "runs.parquet", _runs(experiment, labels, records))
    curves, budget = _histories(experiment, labels, records)
    parquet(out / "curves.parquet", curves)
    parquet(out / "budget.parquet", budget)
    parquet(out / "pareto.parquet", _pareto(experiment, labels, records))
    noise = {p.path.name: r["noise"] for p in experiment.distinct if "noise" in (r := records[p.path])}
    replace_file(out / "noise.json", (json.dumps(_noise(noise, experiment, labels)) + "\n").encode("utf-8"))
    replace_file(out / "evidence.md", document(rows, findings, about).encode("utf-8"))
    return rows, [p.path.name for p in experiment.distinct if records[p.path].get("failed")]


def read_rows(folder: Path) -> list[Row]:
    """The rows of a written evidence table.

    Raises:
        DataError: there is none, or it lacks a column.
    """
    from stage3.errors import DataError

    path = folder / "evidence.parquet"
    if not path.is_file():
        raise DataError(f"{path}: no such file. Write it with: python -m stage3.ablate --out {folder}")
    frame = pd.read_parquet(path)
    missing = [c for c in _columns() if c not in frame.columns]
    if missing:
        raise DataError(f"{path}: missing column {missing[0]!r}; written by another version. Make it again.")
    return [Row(**{str(k): v for k, v in values.items()}) for values in frame[_columns()].to_dict("records")]


def _columns() -> list[str]:
    return [f.name for f in dataclasses.fields(Row)]


def parquet(path: Path, frame: pd.DataFrame) -> None:
    """Write a table completely or not at all, its floats in single precision."""
    path.parent.mkdir(parents=True, exist_ok=True)
    floats = {c: "float32" for c in frame.columns if frame[c].dtype == np.float64}
    replace_file(path, frame.astype(floats).to_parquet(index=False, compression="zstd", compression_level=19))


def _rows(experiment: Experiment, finding: Finding, records: Mapping[Path, Any], again: str) -> Iterator[Row]:
    for position, comparison in enumerate(finding.comparisons):
        sides = [[(p, records[p.path]) for p in experiment.of(a)] for a in (comparison.fixed, comparison.reviewed)]
        yield from rows_of(finding, position, comparison, sides[0], sides[1], f"{again} --findings {finding.id}")


def _labels(findings: Sequence[Finding]) -> dict[str, tuple[str, Arm, list[str]]]:
    """{arm_id: (label, arm, ids of its findings)}, by the label that came first."""
    found: dict[str, tuple[str, Arm, list[str]]] = {}
    for finding, arm in arms(list(findings)):
        entry = found.setdefault(arm_id(arm), (arm.label, arm, []))
        if finding.id not in entry[2]:
            entry[2].append(finding.id)
    return found


Labels = Mapping[str, tuple[str, Arm, list[str]]]


def _runs(experiment: Experiment, labels: Labels, records: Mapping[Path, Any]) -> pd.DataFrame:
    """One row per run: what it is, how to make it, and everything measured."""
    rows: dict[Path, dict[str, Any]] = {}
    for name, (label, arm, ids) in labels.items():
        for seed, plan in enumerate(experiment.plans[name]):
            if plan.path in rows:
                rows[plan.path]["findings"] = ",".join(dict.fromkeys([*rows[plan.path]["findings"].split(","), *ids]))
                continue
            record = records[plan.path]
            rows[plan.path] = {
                "run": plan.path.name,
                "arm": label,
                "findings": ",".join(ids),
                "seed": seed,
                "data": arm.data,
                "changes": json.dumps(arm.changes),
                "failed": record.get("failed", ""),
                "command": plan.command,
                "weights_sha256": record.get("weights_sha256", "")[:16],  # enough to tell runs apart
            } | _measured(record)
    return pd.DataFrame(list(rows.values()))


def _measured(record: Mapping[str, Any]) -> dict[str, Any]:
    if record.get("failed"):
        return {}
    values: dict[str, Any] = {"best_step": record["best"]["step"], "last_step": record["last"]["step"]}
    best, last, val = record["best"]["metrics"], record["last"]["metrics"], record["val"]
    for at, source, wanted in (("test", best, tuple(METRICS)), ("last", last, AT_THE_END), ("val", val, CHOSEN_BY)):
        known = {k: math.nan if source[k] is None else source[k] for k in wanted if k in source}  # a file's NaN is null
        values |= {f"{at}:{k}": float(f"{v:.5g}") for k, v in known.items()}
    return values


def _histories(
    experiment: Experiment, labels: Labels, records: Mapping[Path, Any]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Curves and gradient budget by arm and epoch: mean, minimum and maximum over seeds."""
    curves, budget = [], []
    for name, (label, _, ids) in labels.items():
        paths = [p.path for p in experiment.plans[name] if not records[p.path].get("failed")]
        frames = [RunFolder.load(path).metrics() for path in paths]
        for split, wanted in CURVES.items():
            for metric in wanted:
                curves += _over_seeds(frames, split, metric, {"arm": label, "findings": ",".join(ids)})
        terms = sorted({c for f in frames for c in f.columns if c.startswith(BUDGET) and set(ids) - UNBUDGETED})
        for term in terms:
            budget += _over_seeds(frames, "val", term, {"arm": label, "findings": ",".join(ids)})
    return _short(pd.DataFrame(curves)), _short(pd.DataFrame(budget))


def _short(frame: pd.DataFrame) -> pd.DataFrame:
    """Curves with four significant digits, which is all that a plot shows and half the file."""
    if frame.empty:
        return frame
    digits = {c: frame[c].map(lambda v: float(f"{v:.4g}")) for c in ("mean", "low", "high")}
    return frame.assign(**digits).astype({"epoch": "int16", "seeds": "int16"})


def _over_seeds(frames: Sequence[pd.DataFrame], split: str, metric: str, about: dict[str, str]) -> list[dict[str, Any]]:
    parts = [f.loc[f["split"] == split, ["epoch", metric]].dropna() for f in frames if metric in f]
    if not parts:
        return []
    by_epoch = pd.concat([p.groupby("epoch")[metric].mean() for p in parts]).groupby(level=0)
    table = by_epoch.agg(["mean", "min", "max", "count"])
    return [
        about
        | {"metric": metric, "split": split, "epoch": int(epoch), "mean": v["mean"], "low": v["min"], "high": v["max"]}
        | {"seeds": int(v["count"])}
        for epoch, v in table.iterrows()
    ]


def _pareto(experiment: Experiment, labels: Labels, records: Mapping[Path, Any]) -> pd.DataFrame:
    """Retrieval against page coherence for each arm of the sweeps, on validation and on test books."""
    rows, seen = [], set()
    for name, (label, arm, ids) in labels.items():
        paths = tuple(p.path for p in experiment.plans[name])
        if not set(ids) & set(SWEEPS) or paths in seen:
            continue
        seen.add(paths)
        good = [r for path in paths if not (r := records[path]).get("failed")]
        if not good:
            continue
        row: dict[str, Any] = {"arm": label, "findings": ",".join(ids), "changes": json.dumps(arm.changes)}
        for split, source in (("test", [r["best"]["metrics"] for r in good]), ("val", [r["val"] for r in good])):
            for column, metric in (("retrieval", R5), ("page_coherence", PAGE)):
                values = np.asarray([v.get(metric, math.nan) for v in source], dtype=np.float64)
                row[f"{split}_{column}"] = values.mean()
                row[f"{split}_{column}_std"] = values.std(ddof=min(1, len(values) - 1))
        rows.append(row | {"seeds": len(good)})
    frame = pd.DataFrame(rows)
    if frame.empty:
        return frame
    frame["retrieval"], frame["page_coherence"] = frame["test_retrieval"], frame["test_page_coherence"]
    for split in ("val", "test"):
        frame[f"{split}_front"] = on_front(frame[[f"{split}_retrieval", f"{split}_page_coherence"]].to_numpy())
    return frame


def on_front(points: np.ndarray) -> np.ndarray:
    """(N,) bool: points (N, 2) that no other point beats in both, more being better; none with a NaN."""
    points = points.round(9)  # the means of equal results differ in their last bit
    ours, others = points[:, None, :], points[None, :, :]
    beaten: np.ndarray = np.all(ours <= others, axis=2) & np.any(ours < others, axis=2)
    front: np.ndarray = ~beaten.any(axis=1) & ~np.isnan(points).any(axis=1)
    return front


def _noise(noise: Mapping[str, Any], experiment: Experiment, labels: Labels) -> dict[str, Any]:
    """The validation-noise meter, by arm: what each cause does, and the repeated losses of the first seed."""
    found: dict[str, Any] = {}
    for name, (label, arm, _) in labels.items():
        plans: list[Plan] = experiment.plans[name]
        known = [p for p in plans if p.path.name in noise]
        if not arm.meter or not known or any(label.endswith(f"({other})") for other in found):
            continue
        summaries = [(record_of(p) or {})["best"]["metrics"] for p in known]
        keys = sorted(k for k in summaries[0] if k.startswith("noise/"))
        first = {c: [[round(x, 6) for x in row] for row in v] for c, v in noise[known[0].path.name].items()}
        found[label] = {
            "changes": arm.changes,
            "runs": len(known),
            "means": {k: float(np.mean([s[k] for s in summaries])) for k in keys},
            "by_seed": {k: [s[k] for s in summaries] for k in keys},
            "losses_of_seed_0": first,
        }
    return found
