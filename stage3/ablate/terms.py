"""What experiments are made of: metrics and how they are judged, arms, comparisons, findings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

HELPS, NONE, HURTS = "helps", "no effect here", "hurts"

ORIGINAL: dict[str, Any] = {
    "contrastive_weight": 1.0,
    "reconstruction_weight": 0.5,
    "alignment_weight": 0.3,
    "contrastive_temperature": 0.07,
    "alignment_temperature": 0.07,
    "dropout": 0.1,
    "feature_noise": 0.0,
    "batch_pages": 16,
    "lr": 3e-3,
    "gate_hidden": 128,
    "lr_panels": 0,
    "select_by": "retrieval/mean_r5",
    "select_margin": 0.0,
    "not_below_start": False,
}
"""The original trainer's weights, temperatures, dropout and gate, and the learning rate, batch size and choice of the
checkpoint used here; written into every command, whatever the package's defaults are. Arms begin at the frozen
features as the package's models do; E8's original trainer and E11 begin at random weights."""

R5, R1, MRR = "retrieval/mean_r5", "retrieval/mean_r1", "retrieval/mean_mrr"
I2T, T2I = "retrieval/i2t_r1", "retrieval/t2i_r1"
PAGE, WITHIN_I2T, WITHIN_T2I = (
    "retrieval/same_page_r_precision",
    "retrieval/within_page_i2t",
    "retrieval/within_page_t2i",
)
SKILL, RANK_R1, MSE = "reconstruction/skill", "reconstruction/rank_r1", "loss/reconstruction"
RANK, INTRA = "collapse/effective_rank", "collapse/intra_cosine"
DIFFER = "diagnose/panels_differ"


@dataclass(frozen=True)
class Metric:
    """What a metric is called, how it is shown and judged.

    Attributes:
        label: for people.
        better: +1 when more is better, -1 when less is, 0 when it is shown but never judged.
        percent: shown times 100.
    """

    label: str
    better: int = 1
    percent: bool = False


METRICS: dict[str, Metric] = {
    R5: Metric("R@5, both ways", percent=True),
    R1: Metric("R@1, both ways", percent=True),
    MRR: Metric("reciprocal rank, both ways"),
    I2T: Metric("R@1 image → text", percent=True),
    T2I: Metric("R@1 text → image", percent=True),
    "retrieval/i2t_r5": Metric("R@5 image → text", percent=True),
    "retrieval/t2i_r5": Metric("R@5 text → image", percent=True),
    PAGE: Metric("same-page precision", percent=True),
    WITHIN_I2T: Metric("within page, image → text", percent=True),
    WITHIN_T2I: Metric("within page, text → image", percent=True),
    SKILL: Metric("R² of reconstruction"),
    RANK_R1: Metric("reconstruction finds its panel", percent=True),
    MSE: Metric("reconstruction mse", better=0),
    RANK: Metric("effective rank"),
    INTRA: Metric("cosine within page", better=0),
    DIFFER: Metric("diagnosed: panels differ", percent=True),
    "noise/spread": Metric("spread of the validation loss", better=-1),
    "noise/best_epoch_changes": Metric("two validations choose different epochs", better=-1, percent=True),
    "noise/best_epoch_off": Metric("different epoch than without noise", better=-1, percent=True),
    "chunked/loss_error": Metric("largest error of a loss", better=-1),
    "chunked/gradient_error": Metric("largest error of a gradient", better=-1),
    "chunked/floats_a_panel": Metric("floats per panel kept for backward", better=-1),
    "signal/steps_without_alignment": Metric("steps without an image-text pair", better=-1, percent=True),
    "signal/steps_without_anchors": Metric("steps without page mates", better=-1, percent=True),
    "signal/aligned_a_step": Metric("fewest image-text pairs in a step"),
}


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        label: for people.
        changes: settings on top of `ORIGINAL`.
        data: "whole", or "thinned" for the thinned copy of the training books.
        meter: keep every epoch's weights until the validation-noise meter has read them.
        pinned: start from `ORIGINAL` and the experiments' smaller runs; False starts from the package's own defaults.
    """

    label: str
    changes: dict[str, Any] = field(default_factory=dict)
    data: str = "whole"
    meter: bool = False
    pinned: bool = True


@dataclass(frozen=True)
class Judged:
    """A metric of a comparison; `fixed` and `reviewed` name what each side reads where that differs."""

    metric: str
    fixed: str = ""
    reviewed: str = ""


@dataclass(frozen=True)
class Comparison:
    """Two arms on the same seeds and data, and what they are judged by; the first metric is the headline.

    Attributes:
        fixed: the arm that should be better.
        reviewed: the arm with the fault, an incomplete correction, or the original value of a setting.
        metrics: what is compared on the test books.
        at: "best" for the checkpoint that the validation books chose, "last" for the end of training: a collapse
            would hide behind an early checkpoint.
        expected: the headline's verdict in earlier trials; "" where there was none.
        main: whether the short table shows it.
        half: whether `reviewed` is an incomplete correction.
    """

    fixed: Arm
    reviewed: Arm
    metrics: tuple[Judged | str, ...]
    at: str = "best"
    expected: str = ""
    main: bool = False
    half: bool = False

    @property
    def judged(self) -> tuple[Judged, ...]:
        """The metrics with the name that each side reads."""
        named = [m if isinstance(m, Judged) else Judged(m) for m in self.metrics]
        return tuple(Judged(m.metric, m.fixed or m.metric, m.reviewed or m.metric) for m in named)


@dataclass(frozen=True)
class Finding:
    """One point of the review: its question, and the comparisons that answer it.

    Attributes:
        id: short name, such as F2.
        title: for a heading.
        question: what the review asks, as a question an experiment can answer.
        comparisons: the experiments.
        note: how to read the answer; printed under the table.
    """

    id: str
    title: str
    question: str
    comparisons: tuple[Comparison, ...]
    note: str = ""
