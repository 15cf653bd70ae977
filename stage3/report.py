"""What a finished run is worth on held-out pages: every metric with its interval, its chance level and its meaning.

V panels, M of them with picture and text (the gallery), N items of a metric.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stage3 import evaluation, metrics
from stage3.batches import fixed_batches
from stage3.bootstrap import bootstrap_interval
from stage3.config import DataError
from stage3.dataset import Dataset
from stage3.evaluation import Embedded
from stage3.loading import check_features, is_own, load_data, recorded
from stage3.objectives import Stage3
from stage3.runs import Run

KS = (1, 5, 10)
MAX_PAGES = 5000  # ranking is quadratic: about a minute for 25,000 panels on one core
RESAMPLES = 1000
LEVEL = 0.95

SPACES = {
    "i2t, t2i": "picture-only against text-only embeddings; the fused panel embedding plays no part",
    "text_to_panel, image_to_panel": "a text-only or picture-only query against fused panel embeddings: two spaces "
    "that no loss brings together, and a fused embedding has seen the query itself",
    "same_page_r_precision": "fused panel embeddings among themselves",
}


def evaluation_report(
    run: Run,
    *,
    split: str | None = None,
    data: Dataset | None = None,
    checkpoint: int | None = None,
    intervals: str = "page",
    max_pages: int = MAX_PAGES,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Everything that `python -m stage3.evaluate` prints, as plain JSON values (NaN where nothing is defined).

    Args:
        run: an open run.
        split: "test", "val", "train" or "all"; None takes test, or what there is, and says so in `notes`.
        data: the data set; None loads the run's own. Of other data than the run's all pages are used.
        checkpoint: step; None is the best.
        intervals: what the bootstrap resamples: "page" or "book".
        max_pages: evenly spaced pages of a larger split stand for it, and `notes` says so; 0 takes all.
        device: where the model runs.

    Returns:
        The metrics under their names in metrics.jsonl, plus `retrieval/{text,image}_to_panel_*`; `intervals` and
        `chance` by the same names; `run step selected_by split pages panels books gallery notes spaces` and so on.

    Raises:
        DataError: no pages, or features of other backbones.
        StorageError: the checkpoint does not load.
    """
    if intervals not in ("page", "book"):
        raise DataError(f"intervals: {intervals!r} is not one of page, book")
    model = evaluation.load_model(run, checkpoint).to(device)
    data = data or load_data(run)
    check_features(run, model.encoder.spec, data)
    split, pages, notes = chosen_pages(run, data, split, max_pages)
    row, embedded = evaluation.all_metrics(model, data.panel_set, pages, device)
    batches = fixed_batches(pages, run.config.batch_pages, run.config.seed)
    row |= evaluation.validate(model, data.panel_set, batches, device)
    values, chance = item_values(model, embedded, device)
    row |= {name: _summary(name, v) for name, (v, _) in values.items() if name not in row}
    books = data.table.book_of_page
    groups = embedded.page_ids if intervals == "page" else torch.from_numpy(books)[embedded.page_ids]
    best = run.best()
    step = checkpoint if checkpoint is not None else best.step if best else run.load_checkpoint().step
    return {
        "run": str(run.path),
        "step": step,
        "fingerprint": run.fingerprint(step),
        "selected_by": best.metric if best and best.step == step else None,
        "split": split,
        "pages": len(pages),
        "books": len(np.unique(books[pages])),
        "panels": len(embedded.rows),
        "gallery": len(embedded.aligned),
        "resampled": intervals,
        "level": LEVEL,
        "notes": notes,
        "spaces": SPACES,
        **{name: float(value) for name, value in row.items()},
        "intervals": {name: list(_interval(name, v, groups[at])) for name, (v, at) in values.items()},
        "chance": chance | {"collapse/effective_rank_most": float(min(embedded.panel.shape))},
    }


def chosen_pages(
    run: Run, data: Dataset, split: str | None, max_pages: int = MAX_PAGES
) -> tuple[str, np.ndarray, list[str]]:
    """The split's name, (n,) its page rows, and what a reader of the numbers must know about the choice."""
    notes = []
    if not is_own(run, data):
        if split not in (None, "all"):
            notes.append(f"not the data of this run, so there is no split {split!r}: all pages are used")
        seen = set(recorded(run).get("books", {}).get("train", [])) & set(data.table.pages["book_id"])
        if seen:
            notes.append(f"{len(seen)} of these books have the name of a book that was trained on, {min(seen)!r} first")
        wanted = ["all"]
    elif split is None:
        wanted = ["test", "val", "all"]
    else:
        wanted = [split]
    for name in wanted:
        pages = data.pages(name)
        if len(pages):
            break
        notes.append(f"the {name} split has no pages; the next one is used")
    else:
        raise DataError(f"split {wanted[-1]!r} of {run.path} has no page with a usable panel. Choose another --split.")
    if name == "val":
        notes.append("these pages chose the checkpoint, so the numbers are a little too good")
    if name in ("train", "all") and is_own(run, data):
        notes.append("the model was trained on these pages: the numbers show memory, not skill")
    if 0 < max_pages < len(pages):
        notes.append(f"{max_pages:,} evenly spaced pages stand for {len(pages):,}; --max_pages 0 takes all")
        pages = pages[np.linspace(0, len(pages) - 1, max_pages).round().astype(np.int64)]
    return name, pages, notes


def item_values(
    model: Stage3, embedded: Embedded, device: torch.device | str = "cpu"
) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, float]]:
    """Per-item values whose mean (or median) is each metric, and the metrics' chance levels.

    Returns:
        {name: ((N,) values, (N,) positions in `embedded`)} and {name: chance}.
    """
    found = evaluation.gallery(embedded)
    rows, ids = found["rows"], embedded.text_ids[found["rows"]]
    ranks = {"i2t": found["i2t"], "t2i": found["t2i"]}
    for way, query in (("text_to_panel", embedded.text), ("image_to_panel", embedded.image)):
        ranks[way] = metrics.retrieval_ranks(query[rows], embedded.panel[rows], query_ids=ids)
    values: dict[str, tuple[Tensor, Tensor]] = {}
    chance: dict[str, float] = {}
    for way, rank in ranks.items():
        values |= {f"retrieval/{way}_r{k}": ((rank <= k).double(), rows) for k in KS}
        values[f"retrieval/{way}_mrr"] = (1 / rank, rows)
        values[f"retrieval/{way}_median_rank"] = (rank, rows)
        chance |= {f"retrieval/{way}_{name}": c for name, c in _chance(ids).items()}
    for k in ("r1", "r5", "r10", "mrr"):
        both = (values[f"retrieval/i2t_{k}"][0] + values[f"retrieval/t2i_{k}"][0]) / 2
        values[f"retrieval/mean_{k}"] = (both, rows)
        chance[f"retrieval/mean_{k}"] = chance[f"retrieval/i2t_{k}"]
    for way in ("i2t", "t2i"):
        within = found[f"within_{way}"]
        values[f"retrieval/within_page_{way}"] = ((within.ranks <= 1).double(), rows[within.panels])
        chance[f"retrieval/within_page_{way}"] = within.chance
    everything = torch.arange(len(embedded.page_ids))
    precision = metrics.same_page_r_precision(embedded.panel, embedded.page_ids)
    values["retrieval/same_page_r_precision"] = (precision, everything)
    chance["retrieval/same_page_r_precision"] = metrics.chance_r_precision(embedded.page_ids)
    if model.weights["reconstruction"] > 0:
        _add_reconstruction(values, chance, model, embedded, device)
    return values, chance


def _add_reconstruction(
    values: dict[str, tuple[Tensor, Tensor]],
    chance: dict[str, float],
    model: Stage3,
    embedded: Embedded,
    device: torch.device | str,
) -> None:
    prediction, rows = evaluation.reconstruct(model, embedded, device)
    target = embedded.panel[rows]
    if model.config.normalize_target:
        target = torch.nn.functional.layer_norm(target, target.shape[-1:])
    error = (prediction - target).square().mean(dim=1).double()
    spread = (target.double() - target.double().mean(dim=0)).square().mean() if len(rows) else target.sum()
    hit = (metrics.reconstruction_ranks(prediction, target) <= 1).double()
    values["reconstruction/skill"] = (1 - error / spread, rows)  # its mean is 1 - mse / mse(mean embedding)
    values["reconstruction/rank_r1"] = (hit, rows)
    chance["reconstruction/skill"] = 0.0
    chance["reconstruction/rank_r1"] = metrics.chance_recall(len(rows), 1)


def _chance(text_ids: Tensor) -> dict[str, float]:
    """Chance levels of gallery retrieval; identical texts do not compete, so each query has a gallery of its own."""
    _, inverse, count = np.unique(text_ids.numpy(), return_inverse=True, return_counts=True)
    sizes, times = np.unique(len(text_ids) - count[inverse] + 1, return_counts=True)

    def mean(levels: list[float]) -> float:
        return float(np.average(levels, weights=times)) if levels else math.nan

    g = sizes.tolist()
    return {f"r{k}": mean([metrics.chance_recall(n, k) for n in g]) for k in KS} | {
        "mrr": mean([metrics.chance_mean_reciprocal_rank(n) for n in g]),
        "median_rank": mean([metrics.chance_median_rank(n) for n in g]),
    }


def _summary(name: str, values: Tensor) -> float:
    return metrics.median_rank(values) if name.endswith("median_rank") else metrics.mean_defined(values)


def _interval(name: str, values: Tensor, groups: Tensor) -> tuple[float, float]:
    if name.endswith("median_rank"):
        return median_interval(values, groups)
    interval = bootstrap_interval(values, groups, level=LEVEL, resamples=RESAMPLES)
    return interval.low, interval.high


def median_interval(
    values: Tensor, groups: Tensor, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the median from resampling whole groups, as `bootstrap_interval` does for the mean.

    Args:
        values: (N,) numbers.
        groups: (N,) group of each.
        level: share of resamples inside.
        resamples: how many.
        seed: of the generator.

    Returns:
        (low, high); NaN with fewer than two groups.
    """
    order = np.argsort(values.numpy(), kind="stable")
    ordered = values.numpy()[order]
    names, group = np.unique(groups.numpy()[order], return_inverse=True)
    if len(names) < 2:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    medians = np.empty(resamples)
    for i in range(resamples):
        times = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))
        upto = np.cumsum(times[group])  # how many drawn values are at most ordered[j]
        low, high = np.searchsorted(upto, [(upto[-1] - 1) // 2, upto[-1] // 2], side="right")
        medians[i] = (ordered[low] + ordered[high]) / 2
    low, high = np.quantile(medians, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
