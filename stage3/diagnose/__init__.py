"""Are embeddings healthy? A verdict with its reasons; `python -m stage3.diagnose` is the command.

One number cannot tell. A high cosine within pages is what training asks for, a high page gap is largest when the panels
of a page have become one point, and an effective rank only means something beside the number of panels and pages. So
four questions are asked, each answered "yes", "no" or "cannot tell": do panels differ, are the neighbors of a panel its
page mates, do image and text find each other, and are the embeddings at least as good as the frozen features that the
model reads. V panels, P pages, D dimension.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stage3.cli import counted, percent
from stage3.errors import DataError
from stage3.runs.data import check_features, chosen_pages, load_data
from stage3.runs.tuned import seen_by

if TYPE_CHECKING:
    from torch import Tensor

    from stage3.batches import Dataset
    from stage3.model.baselines import Added
    from stage3.runs import RunFolder

VERDICTS = {
    "healthy": "panels differ, also within a page, and whatever can be measured shows that they mean something",
    "partial signal": "nothing has collapsed, but only one of page mates and image-text pairs is found",
    "no signal": "nothing has collapsed, but page mates are no closer than chance: untrained or badly trained",
    "cannot tell": "nothing has collapsed; whether the embeddings mean anything cannot be told from these panels",
    "below its features": "page mates were found more often among the frozen features, before the model",
    "page-collapsed": "the panels of a page have become one point: pages differ, panels of a page do not",
    "collapsed": "all panels have become (nearly) the same",
    "not finite": "embeddings hold NaN or infinity",
}
USABLE = ("healthy", "partial signal", "no signal", "cannot tell")  # exit code 0: nothing is known to be broken
EXIT_CODES = {verdict: 0 if verdict in USABLE else 3 for verdict in VERDICTS}

YES, NO, UNKNOWN = "yes", "no", "cannot tell"
DIFFER, PAGES, PAIRS, FEATURES = (
    "panels differ",
    "page mates show",
    "image and text match",
    "not below frozen features",
)

LAMPS = {YES: "good", NO: "bad", UNKNOWN: "cannot tell"}
SHOWN = (DIFFER, PAGES, PAIRS)  # the questions about the embeddings alone, each a lamp

# 1 - mean cosine of identical panels stored in float16 or computed in another order stays below 1e-6; at 1e-4 the mean
# angle between two panels is below one degree.
SAME = 1e-4
# A mean cosine above .98 (11 degrees) is suspicious, yet a narrow cone can hold all information: neighbors decide.
NARROW = 0.02
# (1 - cosine within pages) / (1 - cosine between pages). Identical panels give 0, panels that ignore pages 1, a
# supervised contrastive loss .1 to .6; at .01 page mates are ten times closer, in angle, than everything else.
PAGE_POINT = 0.01
# Seen at 320 steps: dimension 32, healthy 10 to 15, collapsing 3 to 6; dimension 512, healthy 30 and more, collapsed 2
# to 3. So a sixth of what is possible, at most 6, is few; fewer than 2 (of 2 panels, 1) is one direction.
RANK_FEW, RANK_SHARE, RANK_ONE = 6.0, 1 / 6, 2.0
# A cone around one direction has a low rank too. It is forgiven where half of the nearest neighbors are page mates.
TELLS_APART = 0.5
# What is not above chance is a "no" only where the interval excludes an effect this large; else nothing can be told.
MATTERS = 0.05
MIN_GALLERY = 20  # panels with image and text
MAX_PANELS = 20_000  # neighbors are quadratic; of more, evenly spaced pages are looked at


@dataclass(frozen=True)
class Diagnosis:
    """A verdict (a key of `VERDICTS`), why in sentences, and the numbers behind it, NaN where not defined.

    `answers` has "yes", "no" or "cannot tell" for each of four questions: "panels differ", "page mates show", "image
    and text match" and "not below frozen features". Numbers that are not finite leave it empty.

    Example:
        >>> Diagnosis("healthy", ["panels differ"], {}).exit_code
        0
    """

    verdict: str
    reasons: list[str]
    numbers: dict[str, float]
    answers: dict[str, str] = field(default_factory=dict)

    @property
    def lamps(self) -> dict[str, str]:
        """One of "good", "bad", "cannot tell" for each of "panels differ", "page mates show", "image and text match".

        Numbers that are not finite make the first one bad and leave the others open.

        Example:
            >>> Diagnosis("not finite", [], {}).lamps["panels differ"]
            'bad'
        """
        answers = self.answers or {DIFFER: NO}
        return {question: LAMPS[answers.get(question, UNKNOWN)] for question in SHOWN}

    @property
    def exit_code(self) -> int:
        """3 when something has collapsed or the frozen features were better, else 0."""
        return EXIT_CODES[self.verdict]


def diagnose(
    panel: Tensor, page_ids: Tensor, retrieval: Mapping[str, float] | None = None, added: Added | None = None
) -> Diagnosis:
    """Judge panel embeddings.

    Args:
        panel: (V, D) fused panel embeddings, of any norm.
        page_ids: (V,) int64 page of each panel.
        retrieval: `retrieval/mean_r5`, `retrieval/gallery` and, if there is one, `reconstruction/skill` of the same
            model on the same panels (a row of metrics.jsonl or an evaluation report does), or None where only
            embeddings are known.
        added: `stage3.model.baselines.what_training_added` on the same panels, or None where the frozen features are
            not known.

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
    known = ("retrieval/mean_r5", "retrieval/gallery", "reconstruction/skill")
    numbers |= {k: float(v) for k, v in (retrieval or {}).items() if k in known}
    if added is not None:
        numbers |= {"frozen/same_page_r_precision": added.frozen, "frozen/difference": added.by_page.mean}
    return _judge(numbers, added)


def measure(panel: Tensor, page_ids: Tensor) -> dict[str, float]:
    """The numbers that a verdict rests on: geometry, and how near page mates are, with an interval by page."""
    from stage3 import metrics
    from stage3.losses import page_index

    gap = metrics.page_gap(panel, page_ids)
    precision = metrics.same_page_r_precision(panel, page_ids)
    interval = metrics.bootstrap_interval(precision, page_ids)
    low, high = metrics.expanded(interval)
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
        "retrieval/same_page_r_precision_low": low,
        "retrieval/same_page_r_precision_high": high,
        "retrieval/same_page_r_precision_chance": metrics.chance_r_precision(page_ids),
    }


def least_ranks(possible: float) -> tuple[float, float]:
    """Effective ranks below which embeddings use one direction and few, where `possible` is the largest there is."""
    one = min(RANK_ONE, possible / 2)
    return one, max(one, min(RANK_FEW, RANK_SHARE * possible))


def _judge(n: dict[str, float], added: Added | None) -> Diagnosis:
    """The verdict from `measure`'s numbers. A comparison with NaN is False: no evidence, no blame."""
    pages, pages_said = _page_mates(n)
    pairs, pairs_said = _pairs(n)
    collapse, differ, geometry = _geometry(n, YES in (pages, pairs))
    features, features_said = _features(added)
    answers = {DIFFER: differ, PAGES: pages, PAIRS: pairs, FEATURES: features}
    said = [line for line in (pages_said, pairs_said, features_said) if line]
    if n.get("reconstruction/skill", 0.0) < 0:
        said.append(f"R² of reconstruction {n['reconstruction/skill']:.2f}: worse than predicting the mean panel")
    if collapse:
        return Diagnosis(collapse, [*geometry, *said], n, answers)
    # A question that nothing can be measured for (no text, no page mates) does not stand in the way of "healthy".
    asked = [a for a, line in ((pages, pages_said), (pairs, pairs_said)) if line]
    if features == NO:
        verdict = "below its features"
    elif differ == YES and set(asked) == {YES}:
        verdict = "healthy"
    elif UNKNOWN in asked or differ != YES or not asked:
        verdict = "cannot tell"
    else:
        verdict = "partial signal" if YES in asked else "no signal"
    return Diagnosis(verdict, [*said, *geometry], n, answers)


def _geometry(n: Mapping[str, float], shows: bool) -> tuple[str, str, list[str]]:
    """The kind of collapse ("" for none), whether panels differ, and why; `shows`: something is found above chance."""
    spread, share, rank = 1 - n["collapse/mean_cosine"], n["collapse/within_share"], n["collapse/effective_rank"]
    one_page_point = share < PAGE_POINT
    # Page-collapsed panels span at most as many directions as there are pages; do not blame the rank twice for it.
    possible = min(n["pages"] if one_page_point else n["panels"], n["dimension"])
    reasons = [f"effective rank {rank:.1f} of at most {possible:.0f}"]
    if n["zero_panels"]:
        reasons.append(f"{n['zero_panels']:,.0f} of {n['panels']:,.0f} panels are exactly zero")
    if n["panels"] == 1:
        return "", UNKNOWN, [*reasons, "one panel alone says nothing"]
    if n["zero_panels"] == n["panels"] or spread < SAME:
        return (
            "collapsed",
            NO,
            [f"two panels have a cosine of {1 - spread:.5f} on average: they are the same", *reasons],
        )
    one, few = least_ranks(possible)
    told_apart = n["retrieval/same_page_r_precision"] >= TELLS_APART
    least = one if told_apart else few
    if rank < least:
        return "collapsed", NO, [f"the rank is below {least:.1f}: panels differ in too few directions", *reasons]
    if one_page_point:
        said = f"page mates have a cosine of {n['collapse/intra_cosine']:.4f}, panels of two pages of "
        said += f"{n['collapse/inter_cosine']:.4f}: they spread {100 * share:.2g} % as wide"
        return "page-collapsed", NO, [said, *reasons]
    if math.isfinite(share):
        gap = n["collapse/page_gap"]
        against = ", contrary to the aim of training" if gap <= 0 else ""
        reasons.append(f"page gap {gap:.3f}{against}; panels of a page spread {percent(share, 0)} as wide as others")
    if spread >= NARROW:
        return "", YES, reasons
    cone = f"all panels lie in a narrow cone (mean cosine {1 - spread:.4f})"
    if not shows:
        return "collapsed", NO, [f"{cone}, and nothing shows that they can be told apart", *reasons]
    if not told_apart:
        return "", UNKNOWN, [f"{cone}, and little shows that they can be told apart", *reasons]
    return "", YES, [*reasons, f"{cone}, yet can be told apart"]


def _page_mates(n: Mapping[str, float]) -> tuple[str, str]:
    """Whether a panel's neighbors are its page mates more often than chance, and in words; "" without page mates."""
    from stage3.model.baselines import MIN_PAGES

    found, low, high, chance = (n[f"retrieval/same_page_r_precision{end}"] for end in ("", "_low", "_high", "_chance"))
    if not math.isfinite(chance) or n["pages"] < 2:
        return UNKNOWN, ""
    words = f"same-page R-precision {percent(found)}"
    if n["pages_with_mates"] < MIN_PAGES:
        few = f"{n['pages_with_mates']:.0f} pages with two or more panels are too few to judge whether pages show"
        return UNKNOWN, f"{words} (chance {percent(chance)}): {few}"
    words += f" [{percent(low)}, {percent(high)}] (chance {percent(chance)})"
    return _above_chance(low, high, chance, words)


def _pairs(n: Mapping[str, float]) -> tuple[str, str]:
    """Whether image and text find each other in the gallery more often than chance; "" where there is no gallery."""
    found, gallery = n.get("retrieval/mean_r5", math.nan), n.get("retrieval/gallery", 0.0)
    if not math.isfinite(found) or gallery < 2:
        return UNKNOWN, ""
    chance = min(5 / gallery, 1.0)
    words = f"image-text R@5 {percent(found)} in a gallery of {gallery:.0f} (chance {percent(chance)})"
    if gallery < MIN_GALLERY:
        return UNKNOWN, f"{words}: too few panels with image and text to judge"
    reach = 3 * math.sqrt(chance * (1 - chance) / gallery)  # of what random ranks give
    return _above_chance(found - reach, found + reach, chance, words)


def _above_chance(low: float, high: float, chance: float, words: str) -> tuple[str, str]:
    if low > chance:
        return YES, words
    if high < chance + MATTERS:
        return NO, f"{words}: no better than chance"
    return UNKNOWN, f"{words}: not above chance, and too few to exclude {percent(MATTERS, 0)} more"


def _features(added: Added | None) -> tuple[str, str]:
    from stage3.model import baselines

    if added is None:
        return UNKNOWN, ""
    answer = {baselines.LOST: NO, baselines.UNKNOWN: UNKNOWN}.get(added.answer, YES)
    return answer, added.sentence


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
    from stage3.model import baselines, embedding, validation

    with run.threads():
        model = run.model(checkpoint)
        data = data or load_data(run)
        check_features(run, model.encoder.spec, data)
        split, pages, notes = chosen_pages(run, data, split)
        seen = seen_by(run, run.checkpoint(checkpoint).step, data)
        embedded = embedding.embed(model, seen.panel_set, pages)
        added = baselines.added_to(data, embedded)
        row = validation.retrieval_metrics(embedded) | validation.reconstruction_metrics(model, embedded)
        found = diagnose(embedded.panel, embedded.page_ids, row, added)
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
    for question, answer in found.answers.items():
        yield f"  {question + '?':<28}{answer}"
    for reason in found.reasons:
        yield f"  - {reason}"
    for note in about["notes"]:
        yield f"note: {note}"
    if found.verdict in ("collapsed", "page-collapsed"):
        yield "What helps: detach_target true; a lower reconstruction_weight; alignment_weight above 0; a lower lr."
    if found.verdict == "below its features":
        yield "What helps: fewer epochs, a lower lr; or use the frozen features."
