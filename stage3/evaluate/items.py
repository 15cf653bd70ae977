"""Per-item values whose mean (or median) is each metric, the metrics' chance levels, and intervals.

V panels, M of them with image and text (the gallery), N items of a metric.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stage3 import metrics
from stage3.metrics.bootstrap import bootstrap_interval, median_interval
from stage3.model import validation
from stage3.model.chance import gallery_sizes
from stage3.model.embedding import Embedded
from stage3.model.objectives import Stage3, reconstruction_target

KS = (1, 5, 10)
RESAMPLES = 1000
LEVEL = 0.95

Items = dict[str, tuple[Tensor, Tensor]]  # of each metric: (N,) values and (N,) positions in the embeddings


def item_values(
    model: Stage3, embedded: Embedded, device: torch.device | str = "cpu"
) -> tuple[Items, dict[str, float]]:
    """Per-item values whose mean (or median) is each metric, and the metrics' chance levels.

    Returns:
        {name: ((N,) values, (N,) positions in `embedded`)} and {name: chance}.
    """
    found = validation.gallery(embedded)
    rows, ids = found["rows"], embedded.text_ids[found["rows"]]
    ranks = {
        way: metrics.retrieval_ranks(query[rows], embedded.panel[rows], query_ids=ids)
        for way, query in (("text_to_panel", embedded.text), ("image_to_panel", embedded.image))
    }
    values, chance = pair_values(embedded, found, ranks)
    values["retrieval/same_page_r_precision"] = precision_values(embedded)
    chance["retrieval/same_page_r_precision"] = metrics.chance_r_precision(embedded.page_ids)
    if model.weights["reconstruction"] > 0:
        _add_reconstruction(values, chance, model, embedded, device)
    return values, chance


def precision_values(embedded: Embedded) -> tuple[Tensor, Tensor]:
    """Same-page R-precision of every panel, as an entry of `Items`."""
    precision = metrics.same_page_r_precision(embedded.panel, embedded.page_ids)
    return precision, torch.arange(len(embedded.page_ids))


def pair_values(
    embedded: Embedded, found: dict[str, Any], further: dict[str, Tensor]
) -> tuple[Items, dict[str, float]]:
    """`item_values` of retrieval alone, from `validation.gallery` and the (M,) ranks of further ways by name."""
    rows, ids = found["rows"], embedded.text_ids[found["rows"]]
    ranks = {"i2t": found["i2t"], "t2i": found["t2i"]} | further
    values: Items = {}
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
    return values, chance


def _add_reconstruction(
    values: Items,
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
    sizes, times = gallery_sizes(text_ids)

    def mean(levels: list[float]) -> float:
        return float(np.average(levels, weights=times)) if levels else math.nan

    g = sizes.tolist()
    return {f"r{k}": mean([metrics.chance_recall(n, k) for n in g]) for k in KS} | {
        "mrr": mean([metrics.chance_mean_reciprocal_rank(n) for n in g]),
        "median_rank": mean([metrics.chance_median_rank(n) for n in g]),
    }


def summary(name: str, values: Tensor) -> float:
    """The metric that per-item values make: their median for a median rank, else their mean."""
    return metrics.median_rank(values) if name.endswith("median_rank") else metrics.mean_defined(values)


def interval(name: str, values: Tensor, groups: Tensor) -> tuple[float, float]:
    """The interval of `summary` from resampling whole groups."""
    if name.endswith("median_rank"):
        return median_interval(values, groups)
    found = bootstrap_interval(values, groups, level=LEVEL, resamples=RESAMPLES)
    return found.low, found.high
