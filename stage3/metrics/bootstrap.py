"""Percentile bootstrap over groups (Efron & Tibshirani 1993, ch. 13).

Panels of one page or one book resemble each other, so whole groups are resampled and never single panels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # importing torch takes two seconds, and intervals of arrays do without
    from torch import Tensor

_CELLS_AT_ONCE = 4_000_000
_CELLS_KEPT = 500_000  # of draws that the next metric of the same groups uses again: 4 MB

Values: TypeAlias = "Tensor | NDArray[Any] | Sequence[Any]"


@dataclass(frozen=True)
class Interval:
    """A mean and the interval that groups of this kind leave it.

    Attributes:
        mean: mean over the defined (not NaN) values; NaN when there is none.
        low: lower end of the interval; NaN with fewer than two groups, which say nothing about their spread.
        high: upper end.
        groups: number of groups (pages, books) that were resampled.
        items: number of values behind the mean.

    Example:
        >>> Interval(mean=0.5, low=0.4, high=0.6, groups=12, items=80).low
        0.4
    """

    mean: float
    low: float
    high: float
    groups: int
    items: int


@dataclass(frozen=True)
class PairedInterval(Interval):
    """The interval of a difference, and how often a resample turns its sign.

    Attributes:
        sign_flips: share of resamples (0 to 1) whose mean is zero or on the other side of zero; NaN like `low`.

    Example:
        >>> PairedInterval(mean=0.1, low=-0.1, high=0.3, groups=5, items=40, sign_flips=0.2).sign_flips
        0.2
    """

    sign_flips: float


def bootstrap_interval(
    values: Values,
    groups: Values,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Mean of `values` with a percentile interval from resampling entire groups with replacement.

    Args:
        values: (N,) one number per item, such as 1.0 for a hit at rank 1; NaN entries are left out.
        groups: (N,) group of each item, numbers or strings: its page, better its book.
        level: share of resamples inside the interval, in (0, 1).
        resamples: number of resamples.
        seed: of the generator; the same seed gives the same interval.

    Raises:
        ValueError: lengths differ, or a setting is out of range.

    Example:
        >>> bootstrap_interval([1.0, 0.0, 1.0, 1.0], ["a", "a", "b", "c"], seed=0).mean
        0.75
    """
    return _interval(*_resampled(values, groups, level, resamples, seed), level)


def expanded(interval: Interval, z: float = 1.96) -> tuple[float, float]:
    """The ends of an interval moved outwards for few groups.

    This is the expanded percentile interval of Hesterberg 2015 (arXiv:1411.5279): resampling n groups spreads too
    little by sqrt((n - 1) / n), and a normal quantile ignores that the spread itself is estimated. For 7 groups that
    is a third of the width, for 100 two percent.

    Args:
        interval: of two or more groups; NaN ends stay NaN.
        z: normal quantile of its level; 1.96 for 95 %.

    Example:
        >>> low, high = expanded(Interval(mean=0.5, low=0.4, high=0.6, groups=7, items=70))
        >>> round(low, 3), round(high, 3)
        (0.366, 0.634)
    """
    free = max(interval.groups - 1, 1)
    wider = student_quantile(free, z) / z * math.sqrt(interval.groups / free)
    return interval.mean - wider * (interval.mean - interval.low), interval.mean + wider * (
        interval.high - interval.mean
    )


def student_quantile(free: int, z: float = 1.96) -> float:
    """The quantile of Student's distribution that belongs to a normal quantile (Abramowitz and Stegun 26.7.5).

    Args:
        free: degrees of freedom, at least 1.
        z: normal quantile; 1.96 for 95 % in the middle.

    Example:
        >>> round(student_quantile(10), 2), round(student_quantile(1000), 2)
        (2.23, 1.96)
    """
    return z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)


def paired_bootstrap(
    differences: Values,
    groups: Values,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> PairedInterval:
    """Mean difference between two models on the same items, resampling groups; see `bootstrap_interval`.

    Args:
        differences: (N,) value of one model minus value of the other, item by item; NaN entries are left out.
        groups: (N,) group of each item.
        level: share of resamples inside the interval, in (0, 1).
        resamples: number of resamples.
        seed: of the generator.

    Example:
        >>> found = paired_bootstrap([0.5, 0.5, 0.5], ["a", "b", "c"])  # the same difference everywhere
        >>> found.mean, found.low, found.high, found.sign_flips
        (0.5, 0.5, 0.5, 0.0)
    """
    items, group_count, mean, means = _resampled(differences, groups, level, resamples, seed)
    base = _interval(items, group_count, mean, means, level)
    flips = float(np.mean(means * np.sign(mean) <= 0)) if len(means) else float("nan")
    return PairedInterval(**vars(base), sign_flips=flips)


def median_interval(
    values: Tensor, groups: Tensor, *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the median from resampling whole groups, as `bootstrap_interval` does for the mean.

    Args:
        values: (N,) numbers.
        groups: (N,) group of each.
        level: share of resamples inside.
        resamples: how many.
        seed: of the generator.

    Returns:
        (low, high); NaN with fewer than two groups.

    Example:
        >>> import torch
        >>> median_interval(torch.tensor([2.0, 2.0, 2.0]), torch.tensor([0, 1, 2]))
        (2.0, 2.0)
    """
    order = np.argsort(values.numpy())
    ordered = values.numpy()[order]
    names, group = np.unique(groups.numpy()[order], return_inverse=True)
    if len(names) < 2:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    medians = np.empty(resamples)
    for i in range(resamples):
        times = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))
        upto = np.cumsum(times[group])  # how many drawn values are at most ordered[j]
        low, high = np.searchsorted(upto, [(upto[-1] - 1) // 2, upto[-1] // 2], side="right")
        medians[i] = (ordered[low] + ordered[high]) / 2
    low, high = np.quantile(medians, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _resampled(
    values: Values, groups: Values, level: float, resamples: int, seed: int
) -> tuple[int, int, float, NDArray[np.float64]]:
    """Items, groups, their mean, and the means of the resamples (none with fewer than two groups)."""
    numbers, labels = _array(values).astype(np.float64), _array(groups)
    if numbers.ndim != 1 or numbers.shape != labels.shape:
        raise ValueError(f"values and groups must be equally long lists, not {numbers.shape} and {labels.shape}.")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}.")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, not {resamples}.")
    defined = ~np.isnan(numbers)
    numbers, labels = numbers[defined], labels[defined]
    if not len(numbers):
        return 0, 0, float("nan"), np.empty(0)
    _, group = np.unique(labels, return_inverse=True)
    sizes = np.bincount(group).astype(np.float64)
    sums = np.bincount(group, weights=numbers)
    mean = float(sums.sum() / sizes.sum())
    if len(sizes) < 2:
        return len(numbers), len(sizes), mean, np.empty(0)
    parts = [(times @ sums) / (times @ sizes) for times in _draws(len(sizes), resamples, seed)]
    return len(numbers), len(sizes), mean, np.concatenate(parts)


def _draws(groups: int, resamples: int, seed: int) -> Iterable[NDArray[np.float64]]:
    """How often each group is drawn, (resamples, groups) in blocks of rows; the same for all values of these groups."""
    return (
        _kept_draws(groups, resamples, seed) if groups * resamples <= _CELLS_KEPT else _drawn(groups, resamples, seed)
    )


@lru_cache(maxsize=8)
def _kept_draws(groups: int, resamples: int, seed: int) -> tuple[NDArray[np.float64], ...]:
    return tuple(_drawn(groups, resamples, seed))


def _drawn(groups: int, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    generator = np.random.default_rng(seed)
    at_once = max(1, _CELLS_AT_ONCE // groups)
    for start in range(0, resamples, at_once):
        draws = min(at_once, resamples - start)
        times = generator.multinomial(groups, np.full(groups, 1 / groups), size=draws)
        yield times.astype(np.float64)


def _interval(items: int, groups: int, mean: float, means: NDArray[np.float64], level: float) -> Interval:
    if not len(means):
        return Interval(mean, float("nan"), float("nan"), groups, items)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), groups, items)


def _array(values: Values) -> NDArray[Any]:
    return np.asarray(values) if isinstance(values, np.ndarray | Sequence) else values.detach().cpu().numpy()
