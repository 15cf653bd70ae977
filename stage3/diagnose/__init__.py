"""Have the embeddings collapsed? A verdict with its reasons; `python -m stage3.diagnose` is the command.

One number cannot tell. A high cosine within pages is what training asks for, a high page gap is largest when the panels
of a page have become one point, and an effective rank only means something beside the number of panels and pages. So
the verdict looks at how much of the spread lies within pages, at the rank against what is possible, and at whether the
neighbors of a panel are still its page mates. V panels, P pages, D dimension.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stage3.cli import counted, percent
from stage3.errors import DataError
from stage3.runs.data import check_features, chosen_pages, load_data

if TYPE_CHECKING:
    from torch import Tensor

    from stage3.batches import Dataset
    from stage3.runs import RunFolder

VERDICTS = {
    "healthy": "panels differ, also within a page, and page mates, or image and text, find each other",
    "no signal": "nothing has collapsed, but page mates are no closer than chance: untrained or badly trained",
    "page-collapsed": "the panels of a page have become one point: pages differ, panels of a page do not",
    "collapsed": "all panels have become (nearly) the same",
    "not finite": "embeddings hold NaN or infinity",
}
EXIT_CODES = {"healthy": 0, "no signal": 0, "page-collapsed": 3, "collapsed": 3, "not finite": 3}

# 1 - mean cosine of identical panels stored in float16 or computed in another order stays below 1e-6; at 1e-4 the mean
# angle between two panels is below one degree.
SAME = 1e-4
# A mean cosine above .99 is suspicious, yet a narrow cone can hold all information: then neighbors decide.
NARROW = 0.01
# (1 - cosine within pages) / (1 - cosine between pages). Identical panels give 0, panels that ignore pages 1, a
# supervised contrastive loss .1 to .6; at .01 page mates are ten times closer, in angle, than everything else.
PAGE_POINT = 0.01
# Seen at 320 steps: dimension 32, healthy 10 to 15, collapsing 3 to 6; dimension 512, healthy 30 and more, collapsed 2
# to 3. So a sixth of what is possible, at most 6, is few; fewer than 2 (of 2 panels, 1) is one direction.
RANK_FEW, RANK_SHARE, RANK_ONE = 6.0, 1 / 6, 2.0
# A cone around one direction has a low rank too. It is forgiven where half of the nearest neighbors are page mates.
TELLS_APART = 0.5
MIN_PAGES = 8  # pages with mates below which neighbors say nothing
MAX_PANELS = 20_000  # neighbors are quadratic; of more, evenly spaced pages are looked at


@dataclass(frozen=True)
class Diagnosis:
    """A verdict (a key of `VERDICTS`), why in sentences, and the numbers behind it, NaN where not defined.

    Example:
        >>> Diagnosis("healthy", ["panels differ"], {}).exit_code
        0
    """

    verdict: str
    reasons: list[str]
    numbers: dict[str, float]

    @property
    def exit_code(self) -> int:
        """0 when nothing has collapsed, 3 otherwise."""
        return EXIT_CODES[self.verdict]


def diagnose(panel: Tensor, page_ids: Tensor, retrieval: Mapping[str, float] | None = None) -> Diagnosis:
    """Judge panel embeddings.

    Args:
        panel: (V, D) fused panel embeddings, of any norm.
        page_ids: (V,) int64 page of each panel.
        retrieval: `retrieval/mean_r5` and `retrieval/gallery` of the same model on the same panels (a row of
            metrics.jsonl or an evaluation report does), or None where only embeddings are known.

    Raises:
        DataError: no panels, or another number of page ids than of panels.

    Example:
        >>> import torch
        >>> diagnose(torch.ones(8, 4), torch.arange(8) // 2).verdict
        'collapsed'
    """
    if panel.ndim != 2 or not len(panel) or len(panel) != len(page_ids):
        raise DataError(
            f"embeddings {tuple(panel.shape)} and page ids {tuple(page_ids.shape)}: expected one row and one id per "
            "panel, and at least one panel"
        )
    wrong = int((~panel.isfinite().all(dim=1)).sum())
    numbers: dict[str, float] = {"panels": len(panel), "dimension": panel.shape[1], "not_finite": wrong}
    if wrong:
        return Diagnosis("not finite", [f"{wrong:,} of {len(panel):,} panels hold NaN or infinity"], numbers)
    numbers |= measure(panel, page_ids)
    numbers |= {k: float(v) for k, v in (retrieval or {}).items() if k in ("retrieval/mean_r5", "retrieval/gallery")}
    verdict, reasons = _judge(numbers)
    return Diagnosis(verdict, reasons, numbers)


def measure(panel: Tensor, page_ids: Tensor) -> dict[str, float]:
    """The numbers that a verdict rests on: geometry, and how near page mates are, with an interval by page."""
    from stage3 import metrics
    from stage3.losses import page_index

    gap = metrics.page_gap(panel, page_ids)
    precision = metrics.same_page_r_precision(panel, page_ids)
    interval = metrics.bootstrap_interval(precision, page_ids)
    _, counts = page_index(page_ids)
    spread = 1 - metrics.mean_cosine(panel)
    within, between = 1 - gap.intra, 1 - gap.inter
    return {
        "pages": len(counts),
        "pages_with_mates": int((counts > 1).sum()),
        "zero_panels": int((panel.abs().amax(dim=1) == 0).sum()),
        "collapse/mean_cosine": 1 - spread,
        "collapse/intra_cosine": gap.intra,
        "collapse/inter_cosine": gap.inter,
        "collapse/page_gap": gap.gap,
        "collapse/within_share": within / between if between > 0 else math.nan,
        "collapse/effective_rank": metrics.effective_rank(panel),
        "retrieval/same_page_r_precision": interval.mean,
        "retrieval/same_page_r_precision_low": interval.low,
        "retrieval/same_page_r_precision_chance": metrics.chance_r_precision(page_ids),
    }


def least_ranks(possible: float) -> tuple[float, float]:
    """Effective ranks below which embeddings use one direction and few, where `possible` is the largest there is."""
    one = min(RANK_ONE, possible / 2)
    return one, max(one, min(RANK_FEW, RANK_SHARE * possible))


def _judge(n: Mapping[str, float]) -> tuple[str, list[str]]:
    """The verdict and its reasons from `measure`'s numbers. A comparison with NaN is False: no evidence, no blame."""
    spread, share, rank = 1 - n["collapse/mean_cosine"], n["collapse/within_share"], n["collapse/effective_rank"]
    one_page_point = share < PAGE_POINT
    # Page-collapsed panels span at most as many directions as there are pages; do not blame the rank twice for it.
    possible = min(n["pages"] if one_page_point else n["panels"], n["dimension"])
    reasons = [f"effective rank {rank:.1f} of at most {possible:.0f}"]
    if n["zero_panels"]:
        reasons.append(f"{n['zero_panels']:,.0f} of {n['panels']:,.0f} panels are exactly zero")
    if n["panels"] == 1:
        return "no signal", [*reasons, "one panel alone says nothing"]
    if n["zero_panels"] == n["panels"] or spread < SAME:
        return "collapsed", [f"two panels have a cosine of {1 - spread:.5f} on average: they are the same", *reasons]
    one, few = least_ranks(possible)
    told_apart = n["retrieval/same_page_r_precision"] >= TELLS_APART
    if rank < (one if told_apart else few):
        least = one if told_apart else few
        return "collapsed", [f"the rank is below {least:.1f}: panels differ in too few directions", *reasons]
    if one_page_point:
        said = f"page mates have a cosine of {n['collapse/intra_cosine']:.4f}, panels of two pages of "
        said += f"{n['collapse/inter_cosine']:.4f}: they spread {100 * share:.2g} % as wide"
        return "page-collapsed", [said, *reasons]
    near, words = _neighbors(n)
    if spread < NARROW and near is not True:
        said = f"two panels have a cosine of {1 - spread:.4f} on average, and nothing shows that they can be told apart"
        return "collapsed", [said, words, *reasons]
    if spread < NARROW:
        reasons.append(f"all panels lie in a narrow cone (mean cosine {1 - spread:.4f}), yet can be told apart")
    if math.isfinite(share):
        gap = n["collapse/page_gap"]
        against = ", contrary to the aim of training" if gap <= 0 else ""
        reasons.append(f"page gap {gap:.3f}{against}; panels of a page spread {percent(share, 0)} as wide as others")
    aligned, said = _retrieval(n)
    reasons = [words, *([said] if said else []), *reasons]
    if near is None:  # too few pages for neighbors: whether page mates are closer at all still shows
        near = not n["collapse/page_gap"] <= 0
    return ("no signal" if near is False and aligned is not True else "healthy"), reasons


def _neighbors(n: Mapping[str, float]) -> tuple[bool | None, str]:
    """Whether a panel's neighbors are its page mates more often than chance (None: too few pages to say)."""
    found, low, chance = (n[f"retrieval/same_page_r_precision{end}"] for end in ("", "_low", "_chance"))
    if n["pages_with_mates"] < MIN_PAGES:
        return None, (
            f"{n['pages_with_mates']:.0f} pages with two or more panels are too few to judge whether pages show"
        )
    words = f"same-page R-precision {percent(found)} (chance {percent(chance)})"
    return low > chance, words + ("" if low > chance else ": no better than chance")


def _retrieval(n: Mapping[str, float]) -> tuple[bool | None, str]:
    """Whether image and text find each other in the gallery more often than chance; None where it is not known."""
    found, gallery = n.get("retrieval/mean_r5", math.nan), n.get("retrieval/gallery", 0.0)
    if not math.isfinite(found) or gallery < 20:
        return None, ""
    chance = 5 / gallery
    above = found > chance + 3 * math.sqrt(chance * (1 - chance) / gallery)
    words = f"image-text R@5 {percent(found)} in a gallery of {gallery:.0f} (chance {percent(chance)})"
    return above, words + ("" if above else ": no better than chance")


def diagnose_run(
    run: RunFolder, *, split: str | None = None, checkpoint: int | None = None, data: Dataset | None = None
) -> tuple[Diagnosis, dict[str, Any]]:
    """Judge a run's checkpoint on pages it was not trained on.

    Args:
        run: the run.
        split: "test", "val", "train" or "all"; None takes test, or what there is, and says so in `notes`.
        checkpoint: step; None is the best.
        data: the data set; None loads the run's own.

    Returns:
        The diagnosis, and what was looked at: `of`, `split`, `notes`.

    Raises:
        DataError: no pages, or features of other backbones.
        StorageError: the checkpoint does not load.
    """
    from stage3.model import embedding, validation

    with run.threads():
        model = run.model(checkpoint)
        data = data or load_data(run)
        check_features(run, model.encoder.spec, data)
        split, pages, notes = chosen_pages(run, data, split)
        embedded = embedding.embed(model, data.panel_set, pages)
        found = diagnose(embedded.panel, embedded.page_ids, validation.retrieval_metrics(embedded))
    return found, {"of": str(run.path), "split": split, "notes": notes}


def diagnose_store(path: Path | str) -> tuple[Diagnosis, dict[str, Any]]:
    """Judge the embeddings of a Zarr store; at most `MAX_PANELS`, of evenly spaced pages.

    Raises:
        DataError: no such store, or none of this layout.
        StorageError: a store of ours that is unfinished or damaged.
    """
    from stage3.embed.stage4 import sample_panels

    panel, page_ids, notes = sample_panels(path, MAX_PANELS)
    return diagnose(panel, page_ids), {"of": str(path), "split": "all", "notes": notes}


def diagnosis_lines(found: Diagnosis, about: Mapping[str, Any]) -> Iterator[str]:
    """The verdict for a person, line by line."""
    n = found.numbers
    of = f" of {counted(int(n['pages']), 'page')}" if "pages" in n else ""
    yield f"{about['of']}, {about['split']} pages: {counted(int(n['panels']), 'panel')}{of}"
    yield f"{found.verdict.upper()}: {VERDICTS[found.verdict]}"
    for reason in found.reasons:
        yield f"  - {reason}"
    for note in about["notes"]:
        yield f"note: {note}"
    if found.verdict in ("collapsed", "page-collapsed"):
        yield "What helps: detach_target true; a lower reconstruction_weight; alignment_weight above 0; a lower lr."
