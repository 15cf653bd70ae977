"""Whether the training pages define a loss at all, before a run trains to its end on nothing."""

from __future__ import annotations

from collections.abc import Iterator

from stage3.batches.dataset import Dataset
from stage3.cli import counted
from stage3.errors import DataError
from stage3.model.embedding import frozen
from stage3.objectives import PARTS
from stage3.runs import RunFolder
from stage3.train.trainer import Trainer

LOOKED_AT = 100  # batches of the first epoch that must define a term before it is said to be missing


def check_signal(trainer: Trainer) -> Iterator[str]:
    """Lines about terms of the loss that the training pages do not define.

    Raises:
        DataError: no batch of the first epoch defines any, and later epochs have the same pages.
    """
    wanted = {name for name, weight in trainer.config.weights.items() if weight > 0}
    found: set[str] = set()
    model, panels = trainer.model, trainer.data.panel_set
    with frozen(model):
        for number, pages in enumerate(trainer.sampler.epoch(0)):
            losses = model(panels.batch(pages).to(trainer.device)).losses
            found |= {name for name in wanted if name in losses and bool(losses[name].valid.any())}
            if found == wanted or (found and number >= LOOKED_AT):
                break
    if not found and trainer.config.sampler == "guaranteed":
        raise DataError(nothing_to_learn(trainer.data))
    for name in (n for n in trainer.config.weights if n in wanted - found):
        yield f"{PARTS[name].label} is defined on no training batch: nothing is learned from it"


def nothing_to_learn(data: Dataset) -> str:
    """Why no loss is defined on the training pages, and what to do."""
    pages, panels = data.pages("train"), data.panel_set
    several = int((panels.count[pages] > 1).sum())
    pairs = int(panels.pairs[pages].sum())
    return (
        f"no loss is defined on the {counted(len(pages), 'training page')}: {several:,} of them have several panels, "
        f"and {counted(pairs, 'panel')} of them have an image and a text (alignment takes two with different texts in "
        "one batch). Add pages, hold out less with --val_fraction and --test_fraction, or give the terms that are "
        "defined a weight."
    )


def check_learned(run: RunFolder, data: Dataset) -> None:
    """Refuse to call a run finished in which no step had a loss.

    Raises:
        DataError: that is so.
    """
    rows = run.metrics()
    trained = rows[rows["split"] == "train"]
    terms = [f"loss/{name}" for name in run.config.weights if f"loss/{name}" in trained]
    if len(trained) and not trained[terms].notna().to_numpy().any():
        raise DataError(nothing_to_learn(data))
