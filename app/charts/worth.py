"""What a run is worth in one line, for the bar above every view: the number, and on what it was measured."""

from __future__ import annotations

import math

from app.charts import names
from app.store import loaders
from stage3.cli import DASH, number, percent
from stage3.runs import RunFolder
from stage3.runs.curves import is_share


def shown(metric: str, value: float) -> str:
    """A metric's value for people: percent of shares, at most four digits of others."""
    if math.isnan(value):
        return DASH
    return percent(value) if is_share(metric) else number(value, ".1f" if abs(value) >= 10 else ".2f")


def headline(run: RunFolder) -> str:
    """The metric that chose a run's checkpoint, on test pages where it was measured there, in one line."""
    best = run.best()
    if not best or not best.metric:
        return ""
    name = names.metric_name(best.metric)
    report = loaders.stored_evaluation(run)
    if report is not None and report["split"] == "test":
        from stage3.evaluate import measured

        found = measured(report, best.metric)
        if not math.isnan(found.value):
            return f"Test: {_small(name)} {found.words}"
    value = shown(best.metric, best.value)
    if best.metric == "loss/total":
        return f"{name} {value}"
    return f"Validation, which chose the checkpoint: {_small(name)} {value}"


def _small(name: str) -> str:
    """A metric's name within a sentence: "Same-page precision" but "R@5" and "MRR" keep their capitals."""
    return name if name[:2].isupper() else name[:1].lower() + name[1:]
