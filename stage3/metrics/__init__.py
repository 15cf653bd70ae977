"""What panel embeddings can do, as pure functions on tensors and ids.

Shape letters: V panels, M panels with both modalities, N queries, G gallery rows, D dimension.

Similarities are float32 cosines computed in blocks, so memory grows with the number of rows and not with its square.
Differences below `TIE` are float32 rounding and count as ties. A mean over nothing is NaN, never an error or a zero.
Per-item results come as tensors, so that `bootstrap_interval` can resample them by page or book.
"""

from stage3.metrics.bootstrap import Interval, PairedInterval, bootstrap_interval, expanded, paired_bootstrap
from stage3.metrics.pages import PageGap, chance_r_precision, page_gap, same_page_r_precision
from stage3.metrics.predicted import reconstruction_rank_r1, reconstruction_ranks, reconstruction_skill
from stage3.metrics.retrieval import (
    WithinPage,
    chance_mean_reciprocal_rank,
    chance_median_rank,
    chance_recall,
    median_rank,
    mrr,
    recall_at,
    retrieval_ranks,
    within_page_ranks,
)
from stage3.metrics.rows import TIE, mean_defined
from stage3.metrics.spread import AlignmentUniformity, alignment_uniformity, effective_rank, mean_cosine

__all__ = [
    "TIE",
    "AlignmentUniformity",
    "Interval",
    "PageGap",
    "PairedInterval",
    "WithinPage",
    "alignment_uniformity",
    "bootstrap_interval",
    "chance_mean_reciprocal_rank",
    "chance_median_rank",
    "chance_r_precision",
    "chance_recall",
    "effective_rank",
    "expanded",
    "mean_cosine",
    "mean_defined",
    "median_rank",
    "mrr",
    "page_gap",
    "paired_bootstrap",
    "recall_at",
    "reconstruction_rank_r1",
    "reconstruction_ranks",
    "reconstruction_skill",
    "retrieval_ranks",
    "same_page_r_precision",
    "within_page_ranks",
]
