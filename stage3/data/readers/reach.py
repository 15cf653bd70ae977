"""How far the boxes of many pages reach, read in one notation or another. P pages, B boxes on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from stage3.data.readers.boxes import STRAY
from stage3.data.readers.units import Notation, corners

MEASURED = 300  # pages, evenly spaced, whose image sizes are looked up where the files give none
NEAR = 0.02  # share of the page that a box may stick out
MOST_COMPARED = 64  # boxes of a page that are compared, each with each
MOST_INSIDE, CRAMMED = 0.5, 0.2  # of a page: share of its boxes inside, and how far they reach at least
MOST_STRANGERS = 0.3  # of the pages; a source of which more do not fit is written in another notation
BACK = 0.05  # share of the page from which on a step from panel to panel goes back
USUAL_SHAPE = 0.68  # width by height of a page of unknown size


@dataclass(frozen=True)
class Reach:
    """Where boxes begin and end, in shares of the page.

    Attributes:
        left: nine pages in ten have no box that begins before; top likewise.
        right: on nine pages in ten no box ends behind; bottom likewise.
        outside: share of the boxes that have no area or leave the page by more than 2 %.
        uneven: by how much the margins of a page differ, left from right and top from bottom, on the average.
        strangers: share of the pages on which most boxes are outside or crammed into a corner; all else is about the
            other pages.
        edges: share of pages, across and down, that boxes fill from the first to the last pixel; 0 for small units.
    """

    left: float
    top: float
    right: float
    bottom: float
    outside: float
    uneven: float = 0.0
    strangers: float = 0.0
    edges: float = 0.0

    @property
    def cost(self) -> float:
        """0 where the boxes of all pages together fill a page, and every box lies on its page; a few pages may not."""
        misfit = (abs(self.left + self.right - 1) + abs(self.top + self.bottom - 1)) / 2 + self.outside
        return misfit if self.strangers <= MOST_STRANGERS else misfit + self.strangers

    @property
    def score(self) -> float:
        """For comparing: the cost, more where margins differ, less where boxes fill their page to the pixel."""
        return self.cost + self.uneven + self.strangers - 0.05 * self.edges

    def to_dict(self) -> dict[str, float]:
        """Plain numbers for the data report."""
        return {name: round(value, 4) for name, value in vars(self).items() if name not in ("uneven", "edges")}


@dataclass
class Sample:
    """The boxes of some pages, page after page."""

    _values: list[np.ndarray] = field(default_factory=list)
    _sizes: list[tuple[int, int]] = field(default_factory=list)
    _image_sizes: list[Callable[[], tuple[int, int]]] = field(default_factory=list)
    _ordered: list[bool] = field(default_factory=list)
    measured: int = 0  # pages whose image was asked for its size

    def add(
        self, boxes: Sequence[Any], size: tuple[int, int], image_size: Callable[[], tuple[int, int]], ordered: bool
    ) -> None:
        """A page's boxes; those of nothing but zeros say nothing, nor do those with absurd numbers."""
        values = np.asarray(boxes, np.float64).reshape(-1, 4)
        values = values[values.any(axis=1) & (np.abs(values).max(axis=1) <= STRAY)]
        if len(values):
            self._values.append(values)
            self._sizes.append(size)
            self._image_sizes.append(image_size)
            self._ordered.append(ordered)

    @property
    def pages(self) -> int:
        """Pages with boxes."""
        return len(self._values)

    @property
    def boxes(self) -> int:
        """Boxes on them."""
        return sum(map(len, self._values))

    @cached_property
    def _flat(self) -> np.ndarray:
        return np.concatenate(self._values)

    @cached_property
    def _page(self) -> np.ndarray:
        return np.repeat(np.arange(self.pages), list(map(len, self._values)))

    @property
    def sizes(self) -> np.ndarray:
        """(P, 2) width and height in pixels, NaN where unknown."""
        sizes = np.asarray(self._sizes, np.float64).reshape(-1, 2)
        return np.where((sizes > 0).all(axis=1, keepdims=True), sizes, np.nan)

    def measure(self) -> None:
        """Look up image sizes of at most `MEASURED` pages whose file gives none."""
        unknown = np.flatnonzero(np.isnan(self.sizes[:, 0])) if not self.measured else np.zeros(0, np.int64)
        for page in unknown[np.unique(np.linspace(0, len(unknown) - 1, min(len(unknown), MEASURED)).astype(np.int64))]:
            self._sizes[page] = self._image_sizes[page]()
            self.measured += 1

    def common_size(self) -> tuple[float, float] | None:
        """The most frequent page size, None where none is known."""
        known = self.sizes[~np.isnan(self.sizes[:, 0])]
        if not len(known):
            return None
        sizes, counts = np.unique(known, axis=0, return_counts=True)
        width, height = sizes[counts.argmax()].tolist()
        return width, height

    def in_order(self, order: str) -> float:
        """Share of the boxes that have an area where their values mean this, of pages with several boxes if there are.

        A single box is often the whole page, of which corners and sizes are the same numbers.
        """
        x0, y0, x1, y1 = corners(self._flat.T, order)
        several = np.bincount(self._page)[self._page] > 1
        return float(((x1 > x0) & (y1 > y0))[several if several.any() else slice(None)].mean())

    def overlap(self, order: str) -> float:
        """By how much the boxes of a page lie upon each other, as a share of their areas; 0 for panels side by side."""
        shares = []
        for values in (v for v in self._values if len(v) > 1):
            x0, y0, x1, y1 = corners(values[:MOST_COMPARED].T, order)
            w = np.minimum(x1[:, None], x1) - np.maximum(x0[:, None], x0)
            h = np.minimum(y1[:, None], y1) - np.maximum(y0[:, None], y0)
            common = np.triu(w.clip(min=0) * h.clip(min=0), 1).sum()
            shares.append(min(common / max(((x1 - x0).clip(min=0) * (y1 - y0).clip(min=0)).sum(), 1e-12), 1.0))
        return float(np.mean(shares)) if shares else 0.0

    def ends(self, order: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of K pages of known size: (K, 2) where their boxes begin, (K, 2) where they end, as written, (K, 2) sizes."""
        sizes = self.sizes
        known = ~np.isnan(sizes[:, 0])
        x0, y0, x1, y1 = corners(self._flat.T, order)
        low, high = self._extreme(np.minimum, x0, y0), self._extreme(np.maximum, x1, y1)
        return low[known], high[known], sizes[known]

    def _extreme(self, of: np.ufunc, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        first = np.searchsorted(self._page, np.arange(self.pages))
        return np.stack([of.reduceat(x, first), of.reduceat(y, first)], axis=1)

    def reach(self, notation: Notation) -> Reach | None:
        """How far the boxes reach in a notation; None without a page that can be read in it."""
        if not self.pages:
            return None
        scale = notation.scale(self.sizes)
        if np.isnan(scale[:, 0]).all():
            return None
        x0, y0, x1, y1 = corners(self._flat.T, notation.order)
        sx, sy = scale[self._page].T
        x0, y0, x1, y1 = x0 / sx, y0 / sy, x1 / sx, y1 / sy
        inside = (np.minimum(x0, y0) >= -NEAR) & (np.maximum(x1, y1) <= 1 + NEAR) & (x1 > x0) & (y1 > y0)
        low, high = self._extreme(np.minimum, x0, y0), self._extreme(np.maximum, x1, y1)
        readable = ~np.isnan(scale[:, 0])
        fits = readable & (self._share(inside) >= MOST_INSIDE) & (high.max(axis=1) >= CRAMMED)
        strangers = 1 - float(fits.sum() / readable.sum())
        if strangers > MOST_STRANGERS:
            fits = readable
        left, top = np.quantile(low[fits], 0.1, axis=0).tolist()
        right, bottom = np.quantile(high[fits], 0.9, axis=0).tolist()
        return Reach(
            left,
            top,
            right,
            bottom,
            outside=1 - float(inside[fits[self._page]].mean()),
            uneven=float(np.abs(low + high - 1)[fits].clip(max=1).mean()),
            strangers=strangers,
            edges=float(filled(low * scale, high * scale, scale)[fits].mean()) if scale[fits].min() > 200 else 0.0,
        )

    def _share(self, of_boxes: np.ndarray) -> np.ndarray:
        """(P,) share of each page's boxes of which something is true."""
        share: np.ndarray = np.bincount(self._page, weights=of_boxes) / np.bincount(self._page)
        return share

    def read_along(self, order: str) -> tuple[int, int]:
        """Pages on which the way from panel to panel goes back more often in y than in x, and more often in x."""
        x0, y0, x1, y1 = corners(self._flat.T, order)
        middle = np.stack([x0 + x1, y0 + y1]) / 2
        span = np.maximum(np.array([x1.max() - x0.min(), y1.max() - y0.min()]), 1e-12)
        same_page = np.diff(self._page) == 0
        back = (np.diff(middle, axis=1) / span[:, None] < -BACK) & same_page & np.asarray(self._ordered)[self._page[1:]]
        counts = [np.bincount(self._page[1:], weights=axis, minlength=self.pages) for axis in back]
        return int((counts[1] > counts[0]).sum()), int((counts[0] > counts[1]).sum())

    def lopsided(self, notation: Notation) -> float:
        """How far from square panels are in pixels: the median of |log(width / height)|, where their scale is known."""
        x0, y0, x1, y1 = corners(self._flat.T, notation.order)
        scale, sizes = notation.scale(self.sizes), self.sizes
        shape = np.where(np.isnan(sizes[:, 0]), USUAL_SHAPE, sizes[:, 0] / sizes[:, 1])
        sx, sy = scale[self._page].T
        w, h = (x1 - x0) / sx * shape[self._page], (y1 - y0) / sy
        sound = (w > 0) & (h > 0)
        return float(np.median(np.abs(np.log(w[sound] / h[sound])))) if sound.any() else np.inf


def filled(low: np.ndarray, high: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Whether boxes that begin at `low` and end at `high` fill a page of this size to the pixel; all in pixels."""
    full: np.ndarray = (np.abs(low) <= 1.01) & (np.abs(high - size) <= 1.01)
    return full
