"""Why a number of an evaluation is not defined: every dash of the table has a reason."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stage3.batches import IMAGE, TEXT
from stage3.cli import counted
from stage3.evaluate.items import Items
from stage3.evaluate.words import COLUMNS
from stage3.model.embedding import Embedded

NO_PAIR_OF_TOWERS = "image and text features come from two models, so they cannot be compared with each other"
OF_THE_MODEL = "the fused panel embedding is the model's: frozen features of one modality have no such counterpart"
NO_HEAD = "only a model has a head that reconstructs panels"


@dataclass(frozen=True)
class Counts:
    """What decides whether a metric is defined on some panels.

    Attributes:
        panels: all of them; images, texts: those with an image, with a text.
        pairs: panels with both; mates: panels with page mates.
        pages: with a panel.
    """

    panels: int
    images: int
    texts: int
    pairs: int
    mates: int
    pages: int

    @classmethod
    def of(cls, embedded: Embedded) -> Counts:
        """From the panels that are evaluated."""
        present = embedded.present
        per_page = torch.bincount(torch.unique(embedded.page_ids, return_inverse=True)[1])
        return cls(
            panels=len(embedded.page_ids),
            images=int(present[:, IMAGE].sum()),
            texts=int(present[:, TEXT].sum()),
            pairs=len(embedded.aligned),
            mates=int(per_page[per_page > 1].sum()),
            pages=len(per_page),
        )


def undefined(
    report: Mapping[str, Any], counts: Counts, values: Items, groups: Tensor, joint: bool
) -> dict[str, dict[str, str]]:
    """{metric: {column: reason}} of every number in the table that is not defined; columns are `COLUMNS`.

    Args:
        report: the metrics, `intervals`, `chance`, `baselines` and `resampled` of an evaluation report.
        counts: of the panels evaluated.
        values: the values behind each metric.
        groups: (V,) page or book of each panel, which the bootstrap resamples.
        joint: frozen image and text features come from one model.
    """
    found: dict[str, dict[str, str]] = {}
    for name in (n for n in report if n.startswith(("retrieval/", "reconstruction/", "collapse/"))):
        why = _why_no_value(name, counts)
        baselines = report["baselines"]
        column = {
            "value": (report[name], why),
            "frozen": (baselines["frozen"].get(name), _why_no_baseline(name, joint) or why),
            "untrained": (baselines["untrained"].get(name), why),
        }
        if name in values:
            column["interval"] = (report["intervals"][name][0], _why_no_interval(name, report, values, groups) or why)
            column["chance"] = (report["chance"].get(name), why)
        missing = {c: reason for c, (value, reason) in column.items() if value is None or not math.isfinite(value)}
        if missing:
            found[name] = {c: missing[c] for c in COLUMNS if c in missing}
    return found


def _why_no_value(name: str, counts: Counts) -> str:
    have = f"{counted(counts.panels, 'panel')}, {counts.images:,} with an image and {counts.texts:,} with a text"
    if name.startswith("retrieval/within_page"):
        pairs = f"{counted(counts.pairs, 'panel')} with image and text"
        return f"no page has two panels with an image and different texts ({pairs})"
    if name.startswith("retrieval/") and not name.endswith("same_page_r_precision"):
        return f"no panel has both an image and a text ({have})"
    if name == "collapse/alignment":
        return f"no panel has both an image and a text ({have})"
    if name in ("collapse/inter_cosine", "collapse/page_gap") and counts.pages < 2:
        return "all panels are on one page, so there is no other page to compare with"
    if name.startswith("collapse/") and name not in ("collapse/intra_cosine", "collapse/page_gap"):
        return f"it takes two panels, and there is {counts.panels}"
    if name.startswith("reconstruction/") and counts.mates:
        return "all these panels have the same embedding, which leaves nothing to explain"
    return f"no panel has page mates ({counted(counts.pages, 'page')} with {counted(counts.panels, 'panel')})"


def _why_no_interval(name: str, report: Mapping[str, Any], values: Items, groups: Tensor) -> str:
    numbers, at = values[name]
    defined = len(torch.unique(groups[at[~numbers.isnan()]]))
    what = report["resampled"]
    return f"resampling takes two {what}s with a value, and there is 1" if defined == 1 else ""


def _why_no_baseline(name: str, joint: bool) -> str:
    if "_to_panel_" in name:
        return OF_THE_MODEL
    if name.startswith("reconstruction/"):
        return NO_HEAD
    between = name.startswith("retrieval/") and not name.endswith("same_page_r_precision")
    return NO_PAIR_OF_TOWERS if not joint and (between or name == "collapse/alignment") else ""
