"""Why a list that typed words found by meaning may mean nothing: one line, or none."""

from __future__ import annotations

from app.store import loaders
from stage3.cli import percent
from stage3.config import Config
from stage3.errors import Stage3Error
from stage3.evaluate import above_chance, measured
from stage3.features.known_comics import is_synthetic
from stage3.runs import RunFolder

BOTH_WAYS = "retrieval/mean_r5"


def of_words(run: RunFolder) -> str:
    """What to know before typed words are believed: a run at chance, or backbones that know other comics only."""
    report = loaders.stored_evaluation(run)
    if report is not None and not above_chance(report):
        found = measured(report, BOTH_WAYS)
        return (
            f"This run finds image and text no better than chance (R@5 {percent(found.value)}, chance "
            f"{percent(found.chance)}): what words find by meaning is arbitrary, only exact words count"
        )
    if run.config.text_backbone == "tiny" and not _is_synthetic(loaders.config_here(run.config)):
        return (
            "The tiny text backbone was trained on the synthetic samples only: expect little from search by meaning. "
            "Train with text_backbone minilm for words of all kinds"
        )
    return ""


def _is_synthetic(config: Config) -> bool:
    """Where the data is not here nothing can be said of it."""
    try:
        return is_synthetic(config)
    except Stage3Error:
        return False
