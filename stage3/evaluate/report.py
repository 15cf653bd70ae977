"""What a finished run is worth on held-out pages: every metric with its interval, its chance level and its meaning.

V panels, M of them with image and text (the gallery), N items of a metric.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stage3 import metrics
from stage3.batches import fixed_batches
from stage3.batches.dataset import Dataset
from stage3.errors import DataError
from stage3.features import usable_device
from stage3.metrics.bootstrap import bootstrap_interval, median_interval
from stage3.model import validation
from stage3.model.embedding import Embedded
from stage3.model.objectives import Stage3, reconstruction_target
from stage3.runs import RunFolder
from stage3.runs.data import MAX_PAGES, check_features, chosen_pages, load_data

KS = (1, 5, 10)
RESAMPLES = 1000
LEVEL = 0.95

SPACES = {
    "i2t, t2i": "image-only against text-only embeddings; the fused panel embedding plays no part",
    "text_to_panel, image_to_panel": "a text-only or image-only query against fused panel embeddings: two spaces "
    "that no loss brings together, and a fused embedding has seen the query itself",
    "same_page_r_precision": "fused panel embeddings among themselves",
}


def evaluation_report(
    run: RunFolder,
    *,
    split: str | None = None,
    data: Dataset | None = None,
    checkpoint: int | None = None,
    intervals: str = "page",
    max_pages: int = MAX_PAGES,
    device: str = "cpu",
) -> dict[str, Any]:
    """Everything that `python -m stage3.evaluate` prints, as plain JSON values (NaN where nothing is defined).

    Args:
        run: an open run.
        split: "test", "val", "train" or "all"; None takes test, or what there is, and says so in `notes`.
        data: the data set; None loads the run's own. Of other data than the run's all pages are used.
        checkpoint: step; None is the best.
        intervals: what the bootstrap resamples: "page" or "book".
        max_pages: evenly spaced pages of a larger split stand for it, and `notes` says so; 0 takes all.
        device: where the model runs: "cpu", "cuda" or "auto".

    Returns:
        The metrics under their names in metrics.jsonl, plus `retrieval/{text,image}_to_panel_*`; `intervals` and
        `chance` by the same names; `run step selected_by split pages panels books gallery notes spaces` and so on.

    Raises:
        DataError: no pages, or features of other backbones.
        StorageError: the checkpoint does not load.
    """
    if intervals not in ("page", "book"):
        raise DataError(f"intervals: {intervals!r} is not one of page, book")
    with run.threads():
        step = run.checkpoint(checkpoint).step
        device = usable_device(device)
        model = run.model(step).to(device)
        data = data or load_data(run)
        check_features(run, model.encoder.spec, data)
        split, pages, notes = chosen_pages(run, data, split, max_pages)
        row, embedded = validation.all_metrics(model, data.panel_set, pages, device)
        batches = fixed_batches(pages, run.config.batch_pages, run.config.seed)
        row |= validation.validate(model, data.panel_set, batches, device)
        values, chance = item_values(model, embedded, device)
        row |= {name: _summary(name, v) for name, (v, _) in values.items() if name not in row}
        books = data.table.book_of_page
        groups = embedded.page_ids if intervals == "page" else torch.from_numpy(books)[embedded.page_ids]
        best = run.best()
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


def item_values(
    model: Stage3, embedded: Embedded, device: torch.device | str = "cpu"
) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, float]]:
    """Per-item values whose mean (or median) is each metric, and the metrics' chance levels.

    Returns:
        {name: ((N,) values, (N,) positions in `embedded`)} and {name: chance}.
    """
    found = validation.gallery(embedded)
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
    prediction, rows = validation.reconstruct(model, embedded, device)
    target = reconstruction_target(embedded.panel[rows], model.config)
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
