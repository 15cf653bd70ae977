"""Two runs on the same panels: which numbers may be compared, how much they differ, and whether that is noise.

Per-panel values of both runs are subtracted panel by panel, and whole pages are resampled. An interval that contains 0
is noise. It says nothing about other seeds, which often differ by more.

V panels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from stage3 import metrics
from stage3.batches import fixed_batches
from stage3.batches.dataset import Dataset
from stage3.config import Config
from stage3.errors import DataError
from stage3.evaluate.items import item_values, summary
from stage3.model import embedding
from stage3.model.baselines import MIN_PAGES
from stage3.model.distant import Distant, take
from stage3.model.embedding import Embedded
from stage3.model.objectives import Stage3
from stage3.objectives import LOSSES, OBJECTIVES, WITH_TEMPERATURE
from stage3.runs import RunFolder
from stage3.runs.data import load_data
from stage3.runs.inspection import losses_in
from stage3.runs.tuned import seen_by

BETTER, WORSE, NOISE, UNKNOWN, NOT = "better", "worse", "within noise", "cannot tell", "not comparable"
MAX_COMPARED = 5000  # pages; ranking is quadratic


@dataclass(frozen=True)
class Side:
    """One of the two runs: a model, the data that it reads, and its embeddings of all usable panels."""

    model: Stage3
    data: Dataset
    embedded: Embedded | Distant


@dataclass(frozen=True)
class Comparison:
    """What differs between two runs on the same held-out panels.

    Attributes:
        table: one row per metric: metric, first, second, difference (second − first), low, high (95 % interval of the
            difference by page), verdict (`BETTER`, `WORSE`, `NOISE`, `UNKNOWN` with too few pages, or `NOT`), why
            ("τ changed", "" where it may be compared). Numbers that may not be subtracted have no difference.
        split: of the pages, which neither run was trained on.
        panels: number of panels.
        gallery: those with image and text.
        pages: number of pages.
    """

    table: pd.DataFrame
    split: str
    panels: int
    gallery: int
    pages: int

    def verdict(self, metric: str) -> str:
        """The verdict on a metric; `UNKNOWN` for one that was not compared."""
        found = self.table.loc[self.table["metric"] == metric, "verdict"]
        return str(found.iloc[0]) if len(found) else UNKNOWN


def why_not(
    loss: str,
    first: Config,
    second: Config,
    temperatures: tuple[Mapping[str, float], Mapping[str, float]] | None = None,
) -> str:
    """Why a loss of two runs measures different things: "τ changed", "weights changed" …; "" where it does not.

    Args:
        loss: a name of `objectives.LOSSES`, or "total".
        first: settings of a run.
        second: of another.
        temperatures: where training ended, of each objective that has one; None takes those of the settings.

    Example:
        >>> warm = Config(temperature=0.2)
        >>> why_not("contrastive", Config(), warm), why_not("reconstruction", Config(), warm)
        ('τ changed', '')
    """
    if loss == "total":
        if first.weights != second.weights:
            return "weights changed"
        terms = [o.name for o in OBJECTIVES if first.weights[o.name] > 0]
        return next((why for name in terms if (why := why_not(name, first, second, temperatures))), "")
    objective = next(o for o in OBJECTIVES if loss in {part.name for part in o.parts})
    if objective.temperature is not None:
        if temperatures is None and (first.learn_temperature or second.learn_temperature):
            return "τ is learned"
        ours, theirs = (t[objective.name] for t in temperatures or (first.temperatures, second.temperatures))
        if not math.isclose(ours, theirs, rel_tol=1e-6):
            return "τ changed"
    settings = ("batch_pages", "batch_means", *objective.defined_by)
    return next((f"{name} changed" for name in settings if getattr(first, name) != getattr(second, name)), "")


def compare_runs(first: RunFolder, second: RunFolder, *, split: str | None = None) -> Comparison:
    """`compare` of the best checkpoints of two runs.

    Raises:
        DataError: the runs are of different data, or share no held-out page.
        StorageError: a checkpoint does not load.
    """
    return compare(_side(first), _side(second), split=split)


def _side(run: RunFolder) -> Side:
    with run.threads():
        step = run.checkpoint().step
        model, data = run.model(step), seen_by(run, step, load_data(run))
        return Side(model, data, embedding.embed(model, data.panel_set, data.pages("all")))


def compare(first: Side, second: Side, *, split: str | None = None, max_pages: int = MAX_COMPARED) -> Comparison:
    """Every metric that both runs have on the pages that neither was trained on, paired panel by panel.

    Args:
        first: the run that is compared with.
        second: the run that is judged.
        split: "test" or "val"; None takes test, or val where no page is in the test split of both.
        max_pages: evenly spaced pages of a larger split stand for it.

    Raises:
        DataError: the two have different data, or share no page of the split.
    """
    if first.data.table.fingerprint() != second.data.table.fingerprint():
        raise DataError("the two runs are of different data: their panels cannot be compared one by one")
    name, pages = _shared_pages(first, second, split)
    if len(pages) > max_pages:
        pages = pages[np.linspace(0, len(pages) - 1, max_pages).round().astype(np.int64)]
    ours, theirs = _same_panels(first.embedded, second.embedded, pages)
    rows = _metric_rows(first, second, ours, theirs) + _loss_rows(first, second, pages)
    columns = ["metric", "first", "second", "difference", "low", "high", "verdict", "why"]
    table = pd.DataFrame(rows, columns=columns)
    return Comparison(table, name, len(ours.rows), len(ours.aligned), len(pages))


def _shared_pages(first: Side, second: Side, split: str | None) -> tuple[str, np.ndarray]:
    for name in ("test", "val") if split is None else (split,):
        pages = np.intersect1d(first.data.pages(name), second.data.pages(name))
        if len(pages):
            return name, pages
    raise DataError("the two runs share no held-out page: each was trained on the other's test pages, or has none")


def _same_panels(a: Embedded | Distant, b: Embedded | Distant, pages: np.ndarray) -> tuple[Embedded, Embedded]:
    """Both runs' embeddings of the panels of some pages that both have, in the order of the panel table."""
    wanted = torch.from_numpy(pages)
    of_a, of_b = (e.rows[torch.isin(e.page_ids, wanted)].numpy() for e in (a, b))
    rows = np.intersect1d(of_a, of_b)
    parts = []
    for e in (a, b):
        order = torch.argsort(e.rows)
        parts.append(take(e, order[torch.searchsorted(e.rows[order], torch.from_numpy(rows))]))
    return parts[0], parts[1]


def _metric_rows(first: Side, second: Side, ours: Embedded, theirs: Embedded) -> list[tuple[object, ...]]:
    before, _ = item_values(first.model, ours)
    now, _ = item_values(second.model, theirs)
    rows: list[tuple[object, ...]] = []
    # the median of differences is not the difference of medians; fused panels have seen the query itself
    for name in (n for n in before if n in now and not n.endswith("median_rank") and "_to_panel_" not in n):
        (a, at), (b, also_at) = before[name], now[name]
        if not torch.equal(at, also_at):
            continue  # other panels have the modality: nothing to pair
        rows.append(_row(name, summary(name, a), summary(name, b), b - a, ours.page_ids[at], larger_is_better=True))
    return rows


def _loss_rows(first: Side, second: Side, pages: np.ndarray) -> list[tuple[object, ...]]:
    """Losses in the same batches for both, one row per loss that both have, and the total."""
    config = first.model.config
    batches = fixed_batches(pages, config.batch_pages, config.seed)
    before, now = (losses_in(side.data, side.model, batches) for side in (first, second))
    page_of = first.data.table.page_of_panel
    ended = (_temperatures(first.model), _temperatures(second.model))
    rows: list[tuple[object, ...]] = []
    for name in (*LOSSES, "total"):
        a, b = before[name], now[name]
        defined = ~np.isnan(a) & ~np.isnan(b)
        if not defined.any():
            continue
        a, b = a[defined].astype(np.float64), b[defined].astype(np.float64)
        label, reason = f"loss/{name}", why_not(name, config, second.model.config, ended)
        if reason:
            rows.append((label, a.mean(), b.mean(), math.nan, math.nan, math.nan, NOT, reason))
        else:
            rows.append(_row(label, a.mean(), b.mean(), b - a, page_of[defined], larger_is_better=False))
    return rows


def _temperatures(model: Stage3) -> dict[str, float]:
    return {o.name: model.temperature_of(o.name).value for o in WITH_TEMPERATURE}


def _row(
    name: str, before: float, now: float, differences: Tensor | np.ndarray, groups: Tensor | np.ndarray, *,
    larger_is_better: bool,
) -> tuple[object, ...]:  # fmt: skip
    found = metrics.paired_bootstrap(differences, groups)
    low, high = metrics.expanded(found)
    verdict = judged(low, high, found.groups, larger_is_better=larger_is_better)
    return (name, before, now, found.mean, low, high, verdict, "")


def judged(low: float, high: float, pages: int, *, larger_is_better: bool) -> str:
    """What an interval of a difference (second − first) says.

    Args:
        low: its lower end.
        high: its upper end.
        pages: number of pages that were resampled; fewer than `MIN_PAGES` say nothing.
        larger_is_better: False of losses.

    Example:
        >>> judged(0.01, 0.03, 40, larger_is_better=False), judged(-0.01, 0.03, 40, larger_is_better=True)
        ('worse', 'within noise')
    """
    if pages < MIN_PAGES or not math.isfinite(low):
        return UNKNOWN
    if low <= 0 <= high:
        return NOISE
    return BETTER if (low > 0) == larger_is_better else WORSE
