"""The baselines beside each metric of an evaluation: frozen features, and the model before training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stage3 import metrics
from stage3.batches.dataset import Dataset
from stage3.evaluate.items import Items, item_values, pair_values, precision_values, summary
from stage3.model import embedding, validation
from stage3.model.anchor import share_a_space
from stage3.model.baselines import MAIN
from stage3.model.embedding import Embedded
from stage3.model.objectives import Stage3

NAMES = {
    "frozen": "frozen features of image and text side by side",
    "frozen_image": "frozen image features alone",
    "frozen_text": "frozen text features alone",
    "untrained": "the model before its first step",
}


@dataclass(frozen=True)
class Baseline:
    """One baseline's metrics by the names of the report, and the items behind those that are means or medians."""

    row: dict[str, float]
    items: Items


def baselines(
    model: Stage3, data: Dataset, pages: np.ndarray, frozen: Embedded, device: torch.device | str = "cpu"
) -> dict[str, Baseline]:
    """Every metric that a baseline has, for each of `NAMES`.

    Retrieval between image and text is defined for frozen features only where both come from one model; there it is
    said once, under "frozen".

    Args:
        model: the trained model.
        data: the data set.
        pages: (n,) rows of the pages that are evaluated.
        frozen: `baselines.frozen_of` the same panels.
        device: where the untrained model runs.
    """
    untrained = model.before_training().to(device)
    embedded = embedding.embed(untrained, data.panel_set, pages, device)
    items, _ = item_values(untrained, embedded, device)
    joint = are_joint(model, data)
    return {
        "frozen": _frozen(frozen, joint),
        "frozen_image": _frozen(replace(frozen, panel=frozen.image), False),
        "frozen_text": _frozen(replace(frozen, panel=frozen.text), False),
        "untrained": Baseline(_means(items) | validation.collapse_metrics(embedded), items),
    }


def are_joint(model: Stage3, data: Dataset) -> bool:
    """Whether the frozen features of image and text can be compared with each other."""
    return share_a_space(model.config, data.features.image_sizes, data.features.text_dim)


def _frozen(embedded: Embedded, joint: bool) -> Baseline:
    items: Items = pair_values(embedded, validation.gallery(embedded), {})[0] if joint else {}
    items[MAIN] = precision_values(embedded)
    # image and text of two models may differ in size: no distance between them
    geometry = validation.collapse_metrics(embedded if joint else replace(embedded, text=embedded.image))
    if not joint:
        del geometry["collapse/alignment"]
    return Baseline(_means(items) | geometry, items)


def _means(items: Items) -> dict[str, float]:
    return {name: summary(name, values) for name, (values, _) in items.items()}


def differences(ours: Items, theirs: Items, page_ids: Tensor, book_ids: Tensor) -> dict[str, dict[str, Any]]:
    """Trained minus baseline, item by item: `mean`, and the intervals `page` and `book` from resampling these.

    A median rank is left out: the median of differences is not the difference of medians.
    """
    found = {}
    for name in [n for n in ours if n in theirs and not n.endswith("median_rank")]:
        (a, at), (b, _) = ours[name], theirs[name]
        by = {of: metrics.paired_bootstrap(a - b, ids[at]) for of, ids in (("page", page_ids), ("book", book_ids))}
        found[name] = {"mean": by["page"].mean} | {of: [i.low, i.high] for of, i in by.items()}
    return found
