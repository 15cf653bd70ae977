"""A run's metrics as curves and tables: by step or epoch, smoothed by a stated rule, gaps, and bands over seeds.

Everything takes the frame of `Run.metrics()` (one row per logged step or validation) and returns small frames.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from stage3.config import Config, spec_of
from stage3.objectives import LOSSES, OBJECTIVES
from stage3.runs.state import Best

# A mean over an epoch weighs each row by the items its own mean was taken over.
COUNT_OF = {part.name: f"active/{o.counted}" for o in OBJECTIVES for part in o.parts}
AXES = ("step", "epoch")


def series(frame: pd.DataFrame, name: str, split: str, by: str = "step") -> pd.DataFrame:
    """One metric of one split as a curve.

    Args:
        frame: `Run.metrics()`.
        name: a column, such as "loss/total".
        split: "train" or "val".
        by: "step" gives every row; "epoch" one point per epoch, rows weighted by their active items (losses), summed
            (`active/*`, `skipped_steps`) or averaged (everything else).

    Returns:
        Columns x and y, ascending in x, without undefined points; empty where the run has no such metric.
    """
    if by not in AXES:
        raise ValueError(f"by must be one of {', '.join(AXES)}, not {by!r}")
    empty = pd.DataFrame({"x": pd.Series(dtype="float64"), "y": pd.Series(dtype="float64")})
    if name not in frame.columns or frame.empty:
        return empty
    rows = frame[frame["split"] == split]
    values = pd.to_numeric(rows[name], errors="coerce")
    points = pd.DataFrame({"x": pd.to_numeric(rows[by], errors="coerce"), "y": values, "n": _weights(rows, name)})
    points = points.dropna(subset=["x", "y"])
    if points.empty:
        return empty
    if by == "epoch":
        points = _by_epoch(points, name)
    return points[["x", "y"]].sort_values("x", kind="stable").reset_index(drop=True)


def _weights(rows: pd.DataFrame, name: str) -> pd.Series:
    kind, _, term = name.partition("/")
    column = COUNT_OF.get(term, "") if kind in ("loss", "weighted") else ""
    if column not in rows.columns:
        return pd.Series(1.0, index=rows.index)
    return pd.to_numeric(rows[column], errors="coerce").fillna(0.0)


def _by_epoch(points: pd.DataFrame, name: str) -> pd.DataFrame:
    if name.startswith("active/") or name == "skipped_steps":
        return points.groupby("x", as_index=False)[["y"]].sum()
    weighted = points.assign(y=points["y"] * points["n"]).groupby("x", as_index=False)[["y", "n"]].sum()
    weighted = weighted[weighted["n"] > 0]
    return weighted.assign(y=weighted["y"] / weighted["n"])


def smooth(y: np.ndarray, weight: float) -> np.ndarray:
    """Exponential moving average without the pull to zero at the start (as Kingma & Ba 2015 correct theirs).

    Args:
        y: (n,) values.
        weight: 0 leaves them, towards 1 averages over about 1 / (1 - weight) points.

    Returns:
        (n,) weighted means of each value and those before it.
    """
    if not 0 <= weight < 1:
        raise ValueError(f"weight must be from 0 to below 1, not {weight}")
    out = np.empty(len(y), dtype=np.float64)
    total = mass = 0.0
    for i, value in enumerate(np.asarray(y, dtype=np.float64)):
        total = weight * total + (1 - weight) * value
        mass = weight * mass + (1 - weight)
        out[i] = total / mass
    return out


def gap_table(frame: pd.DataFrame, best_step: int | None = None) -> pd.DataFrame:
    """Each loss at a glance: where it began, where it is, how it moves, and how far validation lies from training.

    Args:
        frame: `Run.metrics()`.
        best_step: the step of the chosen checkpoint, or None for the last validation.

    Returns:
        One row per loss: loss, train_first, train_last (means over the first and last epoch), val_best (at
        `best_step`), val_last, val_change (the last validation against the one before), gap (val_last - train_last).
    """
    rows = []
    for name in ("total", *LOSSES):
        train = series(frame, f"loss/{name}", "train", "epoch")["y"].to_numpy()
        val = series(frame, f"loss/{name}", "val", "step")
        y = val["y"].to_numpy()
        if not len(train) and not len(y):
            continue
        at_best = val.loc[val["x"] == best_step, "y"] if best_step is not None else val["y"].tail(1)
        train_last, val_last = _at(train, -1), _at(y, -1)
        rows.append(
            {
                "loss": name,
                "train_first": _at(train, 0),
                "train_last": train_last,
                "val_best": float(at_best.iloc[-1]) if len(at_best) else np.nan,
                "val_last": val_last,
                "val_change": val_last - _at(y, -2),
                "gap": val_last - train_last,
            }
        )
    columns = ("loss", "train_first", "train_last", "val_best", "val_last", "val_change", "gap")
    return pd.DataFrame(rows, columns=columns)


def _at(values: np.ndarray, index: int) -> float:
    return float(values[index]) if -len(values) <= index < len(values) else float("nan")


def band(curves: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Mean and spread of several runs' curves at the x that all of them have.

    Returns:
        Columns x, mean, low, high (mean -+ one standard deviation, ddof 1) and n; empty where fewer than two agree.
    """
    whole = [c.drop_duplicates("x", keep="last").set_index("x")["y"] for c in curves if len(c)]
    columns = ["x", "mean", "low", "high", "n"]
    if len(whole) < 2:
        return pd.DataFrame(columns=columns, dtype="float64")
    joined = pd.concat(whole, axis=1, join="inner").sort_index()
    mean, spread = joined.mean(axis=1), joined.std(axis=1, ddof=1)
    values = {"x": joined.index, "mean": mean, "low": mean - spread, "high": mean + spread, "n": len(whole)}
    return pd.DataFrame(values).reset_index(drop=True)


def seed_key(config: Config) -> tuple[object, ...]:
    """Equal for settings that differ in nothing but `seed` and what never reaches the weights."""
    values = config.to_dict()
    return (config.data, config.manifest, *(str(v) for k, v in values.items() if k != "seed" and not _is_free(k)))


@functools.cache
def _is_free(name: str) -> bool:
    return spec_of(name).resume_free


def seed_groups(configs: Mapping[str, Config]) -> list[list[str]]:
    """Runs that differ in nothing but `seed` (and what never reaches the weights), two or more together.

    Args:
        configs: settings by run id.

    Returns:
        Lists of ids, each ordered by seed; a seed that appears twice keeps its first run.
    """
    groups: dict[tuple[object, ...], dict[int, str]] = {}
    for name, config in configs.items():
        groups.setdefault(seed_key(config), {}).setdefault(config.seed, name)
    return [[by_seed[s] for s in sorted(by_seed)] for by_seed in groups.values() if len(by_seed) > 1]


def is_share(metric: str) -> bool:
    """Whether a metric is a share, which people read in percent.

    >>> is_share("retrieval/i2t_r5"), is_share("retrieval/i2t_mrr"), is_share("loss/total")
    (True, False, False)
    """
    if metric == "reconstruction/rank_r1":
        return True
    return metric.startswith("retrieval/") and not metric.endswith(("mrr", "rank", "gallery"))


def best_validation(frame: pd.DataFrame, best: Best | None) -> dict[str, float]:
    """The metrics of the validation that chose the best checkpoint, or of the last one; empty without any.

    Args:
        frame: `Run.metrics()`.
        best: `Run.best()`.
    """
    val = frame[frame["split"] == "val"]
    rows = val[val["step"] == best.step] if best else val.tail(1)
    return {} if rows.empty else {str(k): v for k, v in rows.iloc[0].items() if "/" in str(k)}


def metric_differences(ours: Mapping[str, float], theirs: Mapping[str, float]) -> pd.DataFrame:
    """Validation metrics of two runs side by side: metric, first, second, difference (second - first)."""
    left_out = ("active/", "gradient", "temperature/", "skipped_steps")  # counts, settings and how training went
    names = [n for n in ours if n in theirs and not n.startswith(left_out)]
    rows = [(n, float(ours[n]), float(theirs[n])) for n in names if ours[n] is not None and theirs[n] is not None]
    found = pd.DataFrame(rows, columns=["metric", "first", "second"])
    found = found.dropna(subset=["first", "second"])
    return found.assign(difference=found["second"] - found["first"]).reset_index(drop=True)


def skipped_since_validation(frame: pd.DataFrame) -> int:
    """Skipped steps that the training rows after the last validation count.

    Args:
        frame: `Run.metrics()`.
    """
    if "skipped_steps" not in frame:
        return 0
    validated = frame.loc[frame["split"] == "val", "step"].max()  # NaN before the first
    later = frame[(frame["split"] == "train") & ~(frame["step"] <= validated)]
    return int(later["skipped_steps"].sum())


def expected_seconds(frame: pd.DataFrame, epochs: int, validate_every: int = 1) -> float:
    """How long `epochs` would take at the pace of a run that was measured; NaN without one.

    Args:
        frame: `Run.metrics()` of a run on the same data and machine.
        epochs: passes over the training pages.
        validate_every: epochs between validations.
    """
    if frame.empty or "seconds" not in frame.columns:
        return float("nan")
    train, val = frame[frame["split"] == "train"], frame[frame["split"] == "val"]
    done = train["epoch"].nunique()
    if not done:
        return float("nan")
    validation = float(val["seconds"].median()) if len(val) else 0.0
    return epochs * float(train["seconds"].sum()) / done + -(-epochs // validate_every) * validation
