"""Evaluations that are kept with the run, so that whoever shows a run says what it is worth without measuring again.

runs/NAME/evaluation-SPLIT.json    report of the best checkpoint on the run's own data, and what it was measured on
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stage3.cli import counted, number, percent
from stage3.config import SPLITS
from stage3.errors import StorageError
from stage3.runs import RunFolder
from stage3.runs.curves import is_share
from stage3.runs.data import MAX_PAGES, chosen_pages, load_data
from stage3.storage import sha256, to_json

if TYPE_CHECKING:
    from stage3.batches.dataset import Dataset

FORMAT = 1  # raise it when a number of a report changes its meaning: kept ones are then measured again
FILE = "evaluation-{}"
HELD_OUT = ("test", "val", "all")  # the order in which an evaluation looks for pages
NUMBERS = ("intervals", "chance", "baselines", "difference")  # parts of a report that hold numbers by metric


@dataclass(frozen=True)
class Measured:
    """One metric with all that it takes to read it; NaN where a number is not defined.

    Attributes:
        metric: its name in metrics.jsonl.
        value: what was measured.
        low, high: ends of the 95 % interval.
        chance: what random embeddings give.
        frozen: what the frozen features give; untrained: what the model gave before its first step.
        split: "test", "val", "train" or "all".
        of: what it was measured on: "310 panels with image and text".
    """

    metric: str
    value: float
    low: float
    high: float
    chance: float
    frozen: float
    untrained: float
    split: str
    of: str

    @property
    def words(self) -> str:
        """The number with its interval, chance and gallery."""
        show = percent if is_share(self.metric) else number
        between = f" [{show(self.low)}, {show(self.high)}]" if math.isfinite(self.low) else ""
        chance = f", chance {show(self.chance)}" if math.isfinite(self.chance) else ""
        return f"{show(self.value)}{between}{chance}, {self.of}"


def measured(report: Mapping[str, Any], metric: str) -> Measured:
    """A metric of an evaluation report; NaN where the report does not have it."""
    low, high = report["intervals"].get(metric, (math.nan, math.nan))
    base = report["baselines"]
    paired = metric.startswith("retrieval/") and not metric.endswith("same_page_r_precision")
    of = f"{report['gallery']:,.0f} panels with image and text" if paired else counted(int(report["panels"]), "panel")
    return Measured(
        metric,
        float(report.get(metric, math.nan)),
        float(low),
        float(high),
        float(report["chance"].get(metric, math.nan)),
        float(base.get("frozen", {}).get(metric, math.nan)),
        float(base.get("untrained", {}).get(metric, math.nan)),
        str(report["split"]),
        of,
    )


def above_chance(report: Mapping[str, Any], metric: str = "retrieval/mean_r5") -> bool:
    """Whether a metric of an evaluation report is better than chance beyond its interval."""
    found = measured(report, metric)
    return found.low > found.chance


def kept_report(
    run: RunFolder,
    *,
    split: str | None = None,
    data: Dataset | None = None,
    checkpoint: int | None = None,
    max_pages: int = MAX_PAGES,
    again: bool = False,
) -> dict[str, Any]:
    """`evaluation_report` with intervals by page, read from the run where the same was measured before.

    Of the best checkpoint it is kept in the run; a run that is only to be read, or a damaged file, is as good as none.

    Args:
        run: an open run.
        split: "test", "val", "train" or "all"; None takes test, or what there is.
        data: the run's own data set, None loads it.
        checkpoint: step; None is the best.
        max_pages: as of `evaluation_report`.
        again: measure and keep it even if it is there.

    Raises:
        DataError: no pages, or features of other backbones.
        StorageError: the checkpoint does not load.
    """
    from stage3.evaluate.report import evaluation_report  # reading a kept report needs no torch

    data = data or load_data(run)
    step = run.checkpoint(checkpoint).step
    name, pages, _ = chosen_pages(run, data, split, max_pages)
    noted = split is None and name != HELD_OUT[0]  # the report says which split was taken instead
    basis = [FORMAT, run.fingerprint(step), data.identity(), name, len(pages), noted]
    key = sha256(to_json(basis).encode())
    if not again:
        with suppress(StorageError):
            found = _read(run, name)
            if found["key"] == key:
                return dict(found["report"])
    report = evaluation_report(run, split=split, data=data, checkpoint=step, max_pages=max_pages)
    if step == run.checkpoint().step:
        with suppress(StorageError):
            kept = {"format": FORMAT, "fingerprint": run.fingerprint(step), "key": key, "report": report}
            run.write_json(FILE.format(name), kept)
    return report


def stored_report(run: RunFolder) -> dict[str, Any] | None:
    """The kept report of the run's best checkpoint on test pages, else on what was measured; None without one.

    Reads no data: the report is of the data as it was when it was measured.

    Example:
        >>> report = stored_report(RunFolder.load("data/samples/runs/sample"))
        >>> report["split"], above_chance(report)
        ('test', True)
    """
    for split in HELD_OUT:
        with suppress(StorageError):
            found = _read(run, split)
            if found["fingerprint"] == run.fingerprint(run.checkpoint().step):
                return dict(found["report"])
    return None


def _read(run: RunFolder, split: str) -> dict[str, Any]:
    """A kept report of the right form, with NaN where JSON has null; else StorageError."""
    name = FILE.format(split)
    if not (run.path / f"{name}.json").is_file():
        raise StorageError(f"{run.path / name}.json: not there")
    kept = run.read_json(name)
    report = _defined(kept.get("report"))
    if kept.get("format") != FORMAT or not isinstance(report, dict) or not _is_report(report):
        raise StorageError(f"{run.path / name}.json: damaged, or of another version; measure again")
    return kept | {"report": report | {"run": str(run.path)}}  # the folder may have been moved, or handed on


def _defined(value: Any) -> Any:
    """The value with NaN for every null."""
    if isinstance(value, dict):
        return {name: _defined(v) for name, v in value.items()}
    if isinstance(value, list):
        return [_defined(v) for v in value]
    return math.nan if value is None else value


def _is_report(report: Mapping[str, Any]) -> bool:
    """Whether everything that is read of a report has its type."""
    numbers = ("panels", "pages", "gallery", "level", "step")
    if not all(_is_number(report.get(name)) for name in numbers) or report.get("split") not in (*SPLITS, "all"):
        return False
    if not all(isinstance(report.get(part), dict) for part in (*NUMBERS, "added", "undefined")):
        return False
    named = [v for name, v in report.items() if "/" in name] + list(report["chance"].values())
    pairs = list(report["intervals"].values())
    rows = list(report["baselines"].values())
    return (
        all(map(_is_number, named))
        and all(isinstance(p, list) and len(p) == 2 and all(map(_is_number, p)) for p in pairs)
        and all(isinstance(r, dict) and all(map(_is_number, r.values())) for r in rows)
        and isinstance(report["added"].get("sentence"), str)
        and isinstance(report.get("notes"), list)
        and all(isinstance(note, str) for note in report["notes"])
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
