"""The size at which a model saw the pages, recovered from where its boxes end.

A model that gives pixels of a resized image has one rule for all pages with one number in it, so how far the boxes
reach on many pages tells that number: read with it, boxes that end with their page do so to the pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from stage3.data.readers.reach import CRAMMED, MOST_STRANGERS, NEAR, Sample, filled
from stage3.data.readers.units import AUTO, LEAST, MOST, PATCH, RESIZED, WITHIN, Notation

COARSE, FINE = 0.01, 0.001  # relative distance of the numbers that are tried, and of those about the best of them
ENOUGH_PAGES = 3
TOLERATED = 0.002  # by how much a customary number may fit worse than the best one
CUSTOMARY = tuple(PATCH**2 * n for n in (256, 512, 768, 1024, 1280, 1536, 2048, 3072, 4096, 5120, 6144, 8192, 16384))
CUSTOMARY_SIDES = (512, 640, 768, 800, 1024, 1092, 1280, 1536, 1568, 1600, 1920, 2000, 2048, 2560, 3072, 4096)


def resized(sample: Sample, order: str, *, only: str = AUTO) -> Iterator[Notation]:
    """The best notation of each rule that resizes images, for boxes in this order.

    Args:
        sample: of the source; pages of unknown size say nothing here.
        order: of the values.
        only: one rule; "auto" takes all.
    """
    low, high, sizes = sample.ends(order)
    if len(sizes) < ENOUGH_PAGES:
        return
    area = float(np.quantile(high.clip(min=1).prod(axis=1), 0.9))
    side = float(np.quantile(high.max(axis=1), 0.9))
    for rule in (
        Rule(lambda most: f"{RESIZED}:{min(LEAST, most)}-{most}", area, CUSTOMARY),
        Rule(lambda least: f"{RESIZED}:{least}-{MOST}", min(area, MOST / 2), CUSTOMARY),
        Rule(lambda most: f"{WITHIN}:{most}x{most}", side, CUSTOMARY_SIDES),
    ):
        if only == AUTO or rule.unit(1).startswith(only):
            yield rule.best(lambda unit: Notation(order, unit), lambda n: _misfit(low, high, n.scale(sizes)))


@dataclass(frozen=True)
class Rule:
    """One way to resize images.

    Attributes:
        unit: its unit, given its number.
        about: the number if boxes reach over the whole page.
        customary: numbers that people set.
    """

    unit: Callable[[int], str]
    about: float
    customary: tuple[int, ...]

    def best(self, notation: Callable[[str], Notation], misfit: Callable[[Notation], float]) -> Notation:
        """The notation of the number that fits best; of equals a customary one, else the middle."""
        misfits: dict[int, float] = {}
        for number in _numbers(self.about, 0.8, 2.0, COARSE, self.customary):
            misfits[number] = misfit(notation(self.unit(number)))
        for number in _numbers(min(misfits, key=lambda n: misfits[n]), 0.97, 1.03, FINE):
            misfits[number] = misfit(notation(self.unit(number)))
        least = min(misfits.values())
        best = sorted(n for n, value in misfits.items() if value <= least + 1e-9)
        usual = [n for n in self.customary if misfits.get(n, np.inf) <= least + TOLERATED]
        return notation(self.unit(usual[0] if usual else best[len(best) // 2]))


def _numbers(value: float, low: float, high: float, step: float, customary: Iterable[int] = ()) -> list[int]:
    """Whole numbers from a bit below a value to twice it, since boxes rarely reach over a whole page."""
    steps = value * np.exp(np.arange(np.log(low), np.log(high), step))
    more = [n for n in customary if low * value <= n <= high * value]
    return sorted({*np.round(steps).astype(np.int64).tolist(), *more})


def _misfit(low: np.ndarray, high: np.ndarray, seen: np.ndarray) -> float:
    """0 where margins are alike; more for boxes that leave their page, less for those that fill it to the pixel."""
    begin, end = low / seen, high / seen
    fits: np.ndarray = np.all(end <= 1 + NEAR, axis=1) & (end.max(axis=1) >= CRAMMED)
    strangers = 1 - float(fits.mean())
    if strangers > MOST_STRANGERS:
        return 1 + strangers
    together = np.abs(np.quantile(begin[fits], 0.1, axis=0) + np.quantile(end[fits], 0.9, axis=0) - 1).mean()
    each = np.abs(begin + end - 1)[fits].mean()
    over = np.any(high > seen + 1.01, axis=1)[fits].mean()
    return float((together + each) / 2 + 0.1 * over + strangers - 0.1 * filled(low, high, seen)[fits].mean())
