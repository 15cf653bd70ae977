"""What sets some panels apart from all others: facts inside against outside, with intervals by page, and one sentence.

Works on the panel frame of a checkpoint (`stage3.runs.inspection.panel_frame`, or `describe_panels`); columns that it
lacks are left out. N panels, P pages, F facts.

    frame = run.panels()
    found = selection.apart(frame, (frame["n_panels"] == 9).to_numpy())
    print(found.sentence)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from stage3.cli import counted, number, percent
from stage3.metrics.bootstrap import Interval, expanded
from stage3.metrics.distinctive import class_tfidf
from stage3.objectives import OBJECTIVES

CATEGORIES = {"n_panels": "panels per page", "modality": "modality", "page_type": "page type", "split": "split",
              "book": "book"}  # fmt: skip
GATES = {"gate_image": "image weight", "gate_text": "text weight", "gate_box": "layout weight"}
LOSSES = {f"loss_{o.name}": f"{o.label.lower()} loss" for o in OBJECTIVES}
RANKS = {"rank_i2t": "image → text", "rank_t2i": "text → image"}
FOUND = 5  # a true match at this rank or better counts as found
WORDS = 5  # distinctive words that are listed
TELLING = 0.3  # least standardized difference that the sentence mentions
IN_SENTENCE = 3
RESAMPLES = 1000
_DRAWS = 6_000_000  # pages drawn in all resamples together; very many pages are resampled less often
_LEAST_RESAMPLES = 200


@dataclass(frozen=True)
class Fact:
    """One number inside and outside of a selection.

    Attributes:
        family: what it is about: a column of `CATEGORIES`, "gate", "word", "found" or "loss".
        label: in words, such as "9 panels per page".
        share: whether the numbers are shares (0 to 1), else means.
        inside: mean over the selected panels, 95 % interval by page.
        outside: over all others.
        difference: inside − outside, with its interval; pages are drawn once for both sides.
        size: the difference in standard deviations (root mean square of both sides).
    """

    family: str
    label: str
    share: bool
    inside: Interval
    outside: Interval
    difference: Interval
    size: float

    @property
    def sure(self) -> bool:
        """Whether the interval of the difference leaves out 0."""
        return self.difference.low > 0 or self.difference.high < 0


@dataclass(frozen=True)
class Apart:
    """What sets a selection apart.

    Attributes:
        sentence: in plain words (text from data in it: show it as text).
        facts: largest standardized difference first; those whose interval holds 0, or has none, come last.
        panels: selected panels.
        pages: pages that they are on.
        others: panels outside.
    """

    sentence: str
    facts: list[Fact]
    panels: int
    pages: int
    others: int


def apart(frame: pd.DataFrame, inside: Any, *, seed: int = 0) -> Apart:
    """Compare the selected panels with all others.

    The values that are compared were chosen because they differ (the most over-represented book, the most distinctive
    words), so the intervals say how far pages agree on a difference and are no test of it.

    Args:
        frame: one row per panel, with the column `page`.
        inside: (N,) bool, the selection.
        seed: of the resampling.

    Raises:
        ValueError: `inside` has another length than the frame.
    """
    chosen = np.asarray(inside, dtype=bool)
    if chosen.shape != (len(frame),):
        raise ValueError(f"inside has shape {chosen.shape}, the frame {len(frame)} panels: give one bool per panel.")
    page = pd.factorize(frame["page"])[0]
    pages = len(np.unique(page[chosen]))
    if chosen.all() or not chosen.any():
        what = "No panel is selected." if not chosen.any() else "All panels are selected: there are no others."
        return Apart(what, [], int(chosen.sum()), pages, int((~chosen).sum()))
    named = [*_shares_of_categories(frame, chosen), *_numbers(frame), *_found(frame), *_words(frame, chosen)]
    facts = _facts(named, page, chosen, seed)
    facts.sort(key=lambda f: (not f.sure, -abs(f.size)))
    sentence = _sentence(facts, int(chosen.sum()), pages, int((~chosen).sum()))
    return Apart(sentence, facts, int(chosen.sum()), pages, int((~chosen).sum()))


_Named = tuple[str, str, bool, np.ndarray]  # family, label, share, (N,) float64 with NaN where it is not defined


def _shares_of_categories(frame: pd.DataFrame, chosen: np.ndarray) -> Iterable[_Named]:
    """Of each category the value that the selection has more of than the rest, by difference of shares."""
    for column, label in CATEGORIES.items():
        if column not in frame:
            continue
        codes, values = pd.factorize(frame[column])
        if len(values) < 2:
            continue
        shares = [np.bincount(codes[side], minlength=len(values)) / side.sum() for side in (chosen, ~chosen)]
        best = int(np.argmax(shares[0] - shares[1]))
        yield column, category_label(column, values[best], label), True, (codes == best).astype(float)


def category_label(column: str, value: Any, label: str = "") -> str:
    """A value of a category in words.

    Example:
        >>> category_label("n_panels", 9), category_label("page_type", "cover"), category_label("page_type", "")
        ('9 panels per page', 'page type cover', 'no page type')
    """
    if column == "n_panels":
        return f"{counted(int(value), 'panel')} per page"
    label = label or CATEGORIES[column]
    return f"{label} {value}" if str(value) else f"no {label}"


def _numbers(frame: pd.DataFrame) -> Iterable[_Named]:
    for names, family, share in ((GATES, "gate", True), (LOSSES, "loss", False)):
        for column, label in names.items():
            if column in frame:
                yield family, label, share, frame[column].to_numpy(dtype=float)


def _found(frame: pd.DataFrame) -> Iterable[_Named]:
    for column, way in RANKS.items():
        if column in frame:
            rank = frame[column].to_numpy(dtype=float)
            yield "found", f"found in the first {FOUND}, {way}", True, np.where(np.isnan(rank), np.nan, rank <= FOUND)


def _words(frame: pd.DataFrame, chosen: np.ndarray) -> Iterable[_Named]:
    if "text" not in frame:
        return
    texts = [str(text) for text in frame["text"]]
    found = class_tfidf(texts, chosen.astype(np.int64))
    number = {word: i for i, word in enumerate(found.vocabulary)}
    for word in found.best(1, WORDS, share=0.05):
        says = np.fromiter((number[word] in said for said in found.of_text), dtype=bool, count=len(texts))
        yield "word", f"text says “{word}”", True, says.astype(float)


# --- intervals by page


def _facts(named: list[_Named], page: np.ndarray, chosen: np.ndarray, seed: int) -> list[Fact]:
    """The facts with their intervals: pages are drawn with replacement, the same draws for all facts and both sides."""
    pages = int(page.max()) + 1
    columns = np.column_stack([values for *_, values in named]) if named else np.zeros((len(page), 0))
    defined = ~np.isnan(columns)
    filled = np.where(defined, columns, 0.0)
    sums: list[np.ndarray] = []
    counts: list[np.ndarray] = []
    for side in (chosen, ~chosen):
        for given, kept in ((filled, sums), (defined.astype(float), counts)):
            part = [np.bincount(page[side], weights=given[side, f], minlength=pages) for f in range(given.shape[1])]
            kept.append(np.column_stack(part) if part else np.zeros((pages, 0)))
    means = _resampled_means(sums, counts, seed)
    facts = []
    for f, (family, label, share, values) in enumerate(named):
        sides = [values[side & defined[:, f]] for side in (chosen, ~chosen)]
        if not len(sides[0]) or not len(sides[1]):
            continue
        ends = [_interval(sides[i], means[i][:, f], int((counts[i][:, f] > 0).sum()), share) for i in (0, 1)]
        gap = _difference(ends, means[0][:, f] - means[1][:, f])
        spread = float(np.sqrt((sides[0].var() + sides[1].var()) / 2))
        facts.append(Fact(family, label, share, ends[0], ends[1], gap, gap.mean / max(spread, 1e-6)))
    return facts


def _resampled_means(sums: list[np.ndarray], counts: list[np.ndarray], seed: int) -> list[np.ndarray]:
    """For each side (R, F) means of resampled pages; NaN where no drawn page has a value."""
    pages = len(sums[0])
    rounds = int(np.clip(_DRAWS // max(pages, 1), _LEAST_RESAMPLES, RESAMPLES))
    rng = np.random.default_rng(seed)
    means = [np.empty((rounds, sums[0].shape[1])) for _ in sums]
    for r in range(rounds):
        times = np.bincount(rng.integers(pages, size=pages), minlength=pages).astype(float)
        for mean, total, count in zip(means, sums, counts, strict=True):
            n = times @ count
            mean[r] = np.divide(times @ total, n, out=np.full(len(n), np.nan), where=n > 0)
    return means


def _interval(values: np.ndarray, means: np.ndarray, pages: int, share: bool) -> Interval:
    """The mean with the ends of its resamples, moved outwards for few pages; none on a single page."""
    found = _ends(Interval(float(values.mean()), np.nan, np.nan, pages, len(values)), means)
    return replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0)) if share and pages > 1 else found


def _difference(sides: list[Interval], means: np.ndarray) -> Interval:
    gap, pages = sides[0].mean - sides[1].mean, min(side.groups for side in sides)
    return _ends(Interval(gap, np.nan, np.nan, pages, sides[0].items + sides[1].items), means)


def _ends(found: Interval, means: np.ndarray) -> Interval:
    if found.groups < 2:
        return found
    low, high = np.nanquantile(means, (0.025, 0.975))
    low, high = expanded(replace(found, low=min(float(low), found.mean), high=max(float(high), found.mean)))
    return replace(found, low=low, high=high)


# --- words


def _sentence(facts: list[Fact], panels: int, pages: int, others: int) -> str:
    """One sentence: the largest differences, one per family."""
    who = f"{counted(panels, 'panel')} on {counted(pages, 'page')}"
    if pages < 2:
        return f"{who}: an interval needs panels of two pages or more."
    told: dict[str, str] = {}
    for fact in facts:
        if fact.sure and abs(fact.size) >= TELLING and fact.family not in told:
            told[fact.family] = clause(fact)
    if not told:
        return f"{who}: nothing that is measured sets them apart from the other {others:,}."
    return f"{who}: {'; '.join(list(told.values())[:IN_SENTENCE])}."


def clause(fact: Fact) -> str:
    """A fact in a few words.

    Example:
        >>> ends = [Interval(m, m, m, 9, 90) for m in (1.0, 0.04, 0.96)]
        >>> clause(Fact("n_panels", "9 panels per page", True, *ends, 3.0))
        '9 panels per page: all (elsewhere 4 %)'
    """
    inside, outside = fact.inside.mean, fact.outside.mean
    if not fact.share:
        return f"{fact.label} {number(inside)} (elsewhere {number(outside)})"
    shown = ["all" if value == 1 and fact.family != "gate" else percent(value, 0) for value in (inside, outside)]
    joint = " " if fact.family == "gate" else ": "
    return f"{fact.label}{joint}{shown[0]} (elsewhere {shown[1]})"
