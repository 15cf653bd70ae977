"""The validation-noise meter: how much a validation loss varies while the weights do not, and from which cause.

The original trainer validated with dropout on and one random panel per page masked. Here the same weights are
validated repeatedly under other seeds, with neither, with either and with both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from stage3.batches import derived_seed, fixed_batches
from stage3.model import validation
from stage3.runs import RunFolder

if TYPE_CHECKING:
    from stage3.batches.dataset import Dataset

CAUSES: dict[str, dict[str, bool]] = {
    "none": {"validation_dropout": False, "validation_random_mask": False},
    "dropout": {"validation_dropout": True, "validation_random_mask": False},
    "mask": {"validation_dropout": False, "validation_random_mask": True},
    "both": {"validation_dropout": True, "validation_random_mask": True},
}
REPEATS = 8


def repeat_validation(run: RunFolder, data: Dataset, repeats: int = REPEATS) -> dict[str, np.ndarray]:
    """Total validation losses of every checkpoint of a run, validated `repeats` times for each cause of noise.

    Returns:
        {cause: (E, repeats)} for the run's E checkpoints in order of their steps.
    """
    pages = data.pages("val")
    batches = fixed_batches(pages, run.config.batch_pages, run.config.seed)
    totals: dict[str, list[list[float]]] = {cause: [] for cause in CAUSES}
    for checkpoint in (c for c in run.checkpoints() if c.step > 0):  # an epoch lies behind each
        model = run.model(checkpoint.step)
        for cause, switches in CAUSES.items():
            model.config = run.config.replace(**switches)
            seeds = [derived_seed(run.config.seed, "noise meter", cause, checkpoint.step, r) for r in range(repeats)]
            rows = [validation.validate(model, data.panel_set, batches, noise_seed=seed) for seed in seeds]
            totals[cause].append([row["loss/total"] for row in rows])
    return {cause: np.asarray(values) for cause, values in totals.items()}


def summarize(totals: Mapping[str, np.ndarray]) -> dict[str, float]:
    """What the repeats say.

    Args:
        totals: {cause: (E, R)} losses of E epochs in R repeats; "none" must be there.

    Returns:
        `noise/CAUSE/spread`: standard deviation over repeats, root mean square over epochs;
        `noise/CAUSE/best_epoch_changes`: share of pairs of repeats that find the smallest loss at different epochs;
        `noise/CAUSE/best_epoch_off`: share of repeats that choose another epoch than the first noiseless one.
    """
    found: dict[str, float] = {}
    clean = int(np.argmin(totals["none"][:, 0]))
    for cause, values in totals.items():
        best = values.argmin(axis=0)
        r = len(best)
        same = (np.bincount(best) * (np.bincount(best) - 1)).sum()
        found[f"noise/{cause}/spread"] = float(np.sqrt(values.var(axis=1, ddof=1).mean()))
        found[f"noise/{cause}/best_epoch_changes"] = float(1 - same / (r * (r - 1)))
        found[f"noise/{cause}/best_epoch_off"] = float((best != clean).mean())
    return found


def measure(run: RunFolder, data: Dataset, repeats: int = REPEATS) -> tuple[dict[str, float], dict[str, Any]]:
    """`summarize` of a run, and the losses themselves as plain lists for a file."""
    totals = repeat_validation(run, data, repeats)
    return summarize(totals), {cause: values.tolist() for cause, values in totals.items()}
