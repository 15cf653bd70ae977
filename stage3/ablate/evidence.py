"""From measured runs to statements: paired differences with intervals, verdicts, tables.

S seeds, B books of the test split. Both arms of a comparison are measured on the same panels after training with the
same seeds, so a difference exists for each seed and each book; neither seeds nor books are many, and both move it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from stage3 import cli
from stage3.ablate.terms import HELPS, HURTS, METRICS, NONE, Comparison, Finding, Judged
from stage3.metrics.bootstrap import Interval, student_quantile

LEVEL, RESAMPLES = 0.95, 2000
LEAST_SEEDS = 3
UNKNOWN = "not judged"
START, END = "<!-- evidence:start -->", "<!-- evidence:end -->"

Record = Mapping[str, Any]


def seed_stretch(seeds: int, level: float = LEVEL) -> float:
    """What widens a bootstrap over few seeds to the width that Student's t gives them.

    Resampling S values underestimates their spread by sqrt((S - 1) / S), and a normal quantile is too small for it;
    together about 1.6 at five seeds. The quantile is Cornish and Fisher's expansion, 3 % too small at three seeds.
    """
    z, df = NormalDist().inv_cdf(0.5 + level / 2), seeds - 1
    t = student_quantile(df, z) + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * df**3)
    return t / z * math.sqrt(seeds / (seeds - 1))


def paired_interval(
    sums: np.ndarray, counts: np.ndarray, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Mean difference with an interval from resampling seeds and books at once.

    This is the bootstrap for crossed random effects of Owen (2007, "The pigeonhole bootstrap"): a resample draws S
    seeds and B books with replacement and uses every drawn pair. The seeds' part is widened by `seed_stretch`. With
    one book (a metric of the whole gallery, such as the effective rank) the seeds alone decide.

    Args:
        sums: (S, B) summed differences of the items.
        counts: (S, B) items behind each sum.
        level: share of the resamples inside.
        resamples: how many.
        seed: of the generator.

    Returns:
        The mean over all items; NaN bounds with fewer than `LEAST_SEEDS` seeds. `groups` is S.
    """
    s, b = sums.shape
    total = float(counts.sum())
    if not total:
        return Interval(math.nan, math.nan, math.nan, s, 0)
    mean = float(sums.sum() / total)
    if s < LEAST_SEEDS:
        return Interval(mean, math.nan, math.nan, s, int(total))
    of_seed = sums.sum(axis=1) / counts.sum(axis=1)
    wide = sums + (seed_stretch(s, level) - 1) * (of_seed - mean)[:, None] * counts
    rng = np.random.default_rng(seed)
    seeds = rng.multinomial(s, np.full(s, 1 / s), size=resamples).astype(np.float64)
    books = rng.multinomial(b, np.full(b, 1 / b), size=resamples)
    above, below = ((seeds @ table * books).sum(axis=1) for table in (wide, counts))
    low, high = np.quantile(above[below > 0] / below[below > 0], [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), s, int(total))


def verdict(better: int, interval: Interval) -> str:
    """*helps*, *hurts* or *no effect here*: on which side of 0 the whole interval lies, if on one."""
    if better == 0 or not math.isfinite(interval.low):
        return UNKNOWN
    if interval.low > 0 or interval.high < 0:
        return HELPS if (interval.low > 0) == (better > 0) else HURTS
    return NONE


@dataclass(frozen=True)
class Row:
    """One comparison and one metric of it."""

    finding: str
    title: str
    question: str
    comparison: int
    fixed: str
    reviewed: str
    metric: str
    label: str
    fixed_mean: float
    reviewed_mean: float
    difference: float
    low: float
    high: float
    seeds: int
    verdict: str
    expected: str
    headline: bool
    main: bool
    half_fix: bool
    measured_at: str
    command: str
    fixed_command: str
    reviewed_command: str


def compare(
    fixed: Sequence[Record], reviewed: Sequence[Record], judged: Judged, at: str
) -> tuple[float, float, Interval] | None:
    """Means of both sides and their paired difference, over seeds that both sides finished; None without numbers.

    Args:
        fixed: records of `arms.measure`, one per seed.
        reviewed: the other side's, in the same order of seeds.
        judged: the metric, by its name on each side.
        at: "best" or "last" checkpoint.
    """
    pairs = [
        (f[at], r[at]) for f, r in zip(fixed, reviewed, strict=True) if not f.get("failed") and not r.get("failed")
    ]
    tables = [_tables(f, r, judged) for f, r in pairs]
    known = [t for t in tables if t is not None and np.isfinite(t[0]).all() and np.isfinite(t[1]).all()]
    if not known:
        return None
    ours, theirs, counts = (np.stack(part) for part in zip(*known, strict=True))
    interval = paired_interval(ours - theirs, counts)
    return float(ours.sum() / counts.sum()), float(theirs.sum() / counts.sum()), interval


def _tables(f: Record, r: Record, judged: Judged) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """(B,) sums of both sides and (B,) counts; one "book" for a metric of the whole gallery."""
    ours, theirs = f["books"].get(judged.fixed), r["books"].get(judged.reviewed)
    if ours and theirs and {b: n for b, (_, n) in ours.items()} == {b: n for b, (_, n) in theirs.items()}:
        names = sorted(ours)
        counts = np.asarray([ours[b][1] for b in names])
        return np.asarray([ours[b][0] for b in names]), np.asarray([theirs[b][0] for b in names]), counts
    a, b = f["metrics"].get(judged.fixed), r["metrics"].get(judged.reviewed)
    if a is None or b is None:
        return None
    return np.asarray([float(a)]), np.asarray([float(b)]), np.ones(1)


def rows_of(
    finding: Finding, position: int, comparison: Comparison, fixed: Sequence[Any], reviewed: Sequence[Any], again: str
) -> Iterator[Row]:
    """The rows of one comparison, one per metric that exists.

    Args:
        finding: whose comparison it is.
        position: number of the comparison within it.
        comparison: arms and metrics.
        fixed: (plan, record) of every seed; likewise `reviewed`.
        reviewed: the other arm's.
        again: command that repeats the finding.
    """
    headline = True
    for judged in comparison.judged:
        found = compare([r for _, r in fixed], [r for _, r in reviewed], judged, comparison.at)
        if found is None:
            continue
        ours, theirs, interval = found
        metric = METRICS[judged.metric]
        yield Row(
            finding=finding.id,
            title=finding.title,
            question=finding.question,
            comparison=position,
            fixed=comparison.fixed.label,
            reviewed=comparison.reviewed.label,
            metric=judged.metric,
            label=metric.label,
            fixed_mean=ours,
            reviewed_mean=theirs,
            difference=interval.mean,
            low=interval.low,
            high=interval.high,
            seeds=interval.groups,
            verdict=verdict(metric.better, interval),
            expected=comparison.expected if headline else "",
            headline=headline,
            main=comparison.main and headline,
            half_fix=comparison.half,
            measured_at=comparison.at,
            command=again,
            fixed_command=fixed[0][0].command,
            reviewed_command=reviewed[0][0].command,
        )
        headline = False


# --- text -----------------------------------------------------------------------------------------------------------


def number(value: float, metric: str, sign: bool = False) -> str:
    """A value as text: shares in percent, the rest with three significant digits."""
    if METRICS[metric].percent:
        return cli.percent(value, sign=sign)
    extreme = value and (abs(value) < 1e-3 or abs(value) >= 1e5)
    form = ".1e" if extreme else ".1f" if abs(value) >= 100 else ".3g"
    return cli.number(value, f"{'+' if sign else ''}{form}")


def difference(row: Row) -> str:
    """The difference with its interval."""
    unit = " %" if METRICS[row.metric].percent else ""
    parts = [number(v, row.metric, sign=True).removesuffix(" %") for v in (row.difference, row.low, row.high)]
    points = " points" if unit else ""
    return f"{parts[0]}{points} [{parts[1]}, {parts[2]}]"


def short_table(rows: Sequence[Row]) -> str:
    """The main comparisons by their headline metric, as Markdown."""
    lines = [
        "| | variant | against | judged by | variant | against | difference, 95 % interval | verdict |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in (r for r in rows if r.main):
        fixed, reviewed = number(row.fixed_mean, row.metric), number(row.reviewed_mean, row.metric)
        lines.append(
            f"| {row.finding} | {row.fixed} | {row.reviewed} | {row.label} | {fixed} | {reviewed} "
            f"| {difference(row)} | {row.verdict} |"
        )
    return "\n".join(lines)


def document(rows: Sequence[Row], findings: Sequence[Finding], about: Mapping[str, Any]) -> str:
    """Everything as Markdown: how it was made, then one section per finding."""
    judged = [r for r in rows if r.verdict != UNKNOWN]
    lines = [
        "# Evidence",
        "",
        f"Made by `{about['command']}` on {about['data']}: {about['runs']} runs of {about['epochs']} epochs, "
        f"{about['seeds']} seeds per arm, {about['panels']} test panels in {about['books']} books. The checkpoint of a "
        "run is chosen on the validation books; every number here is measured on the test books.",
        "",
        "A difference is *variant − against*, where a fault is switched on *corrected − ablated*, paired by seed and "
        "book, with a 95 % interval from resampling seeds and books together (the seeds' part widened to Student's "
        "t). A verdict needs the whole interval on one side of 0; of "
        f"{len(judged)} judged rows about {math.ceil(len(judged) / 20)} would get one by chance alone.",
        "",
    ]
    for finding in findings:
        lines += _section(finding, [r for r in rows if r.finding == finding.id])
    return "\n".join(lines)


def _section(finding: Finding, rows: Sequence[Row]) -> list[str]:
    lines = [f"## {finding.id} · {finding.title}", "", finding.question, ""]
    lines += [
        "| variant | against | metric | variant | against | difference | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        names = f"{row.fixed} | {row.reviewed}" if row.headline else " | "
        fixed, reviewed = number(row.fixed_mean, row.metric), number(row.reviewed_mean, row.metric)
        lines.append(f"| {names} | {row.label} | {fixed} | {reviewed} | {difference(row)} | {row.verdict} |")
    surprises = [r for r in rows if r.expected and r.expected != r.verdict and r.verdict != UNKNOWN]
    lines += ["", finding.note] if finding.note else []
    lines += [
        f"- Expected from earlier trials: *{r.expected}* for {r.label}, “{r.fixed}” against “{r.reviewed}”; "
        f"found here: *{r.verdict}* ({difference(r)})."
        for r in surprises
    ]
    return [*lines, ""]


def replaced(text: str, table: str, name: str) -> str:
    """A document with the lines between the two evidence markers replaced by the table.

    Raises:
        ValueError: the markers are missing, twice there, or in the wrong order; `name` tells where.
    """
    if text.count(START) != 1 or text.count(END) != 1 or text.index(START) > text.index(END):
        raise ValueError(f"{name}: needs one line {START} and, below it, one line {END}; the table goes between them.")
    head, _, rest = text.partition(START)
    _, _, tail = rest.partition(END)
    return f"{head}{START}\n{table}\n{END}{tail}"
