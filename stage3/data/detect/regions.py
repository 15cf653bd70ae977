"""Regions of a page between four straight sides, and what lies along lines through them.

A line is (slope, offset). `Region` holds left and right as x = slope · y + offset, top and bottom as y = slope · x +
offset; turned, the two pairs change places, so that everything is written for lines from left to right alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stage3.data.detect.maps import PAD, STRIP, Direction, Floats

Line = tuple[float, float]
Indices = NDArray[np.intp]


class Side(NamedTuple):
    """A side of a region.

    Attributes:
        line: slope and offset.
        kind: "page": the page's edge, as long as nothing moved it; "gutter": inside or at the end of a gutter;
            "line": a line that two panels share.
        evidence: what was seen there: "line", "bleed" (the drawing reaches the page's edge), "dense" (a drawing ends
            along the side without a line), "ragged" (it ends somewhere), "empty"; "" before it was looked at.
        strength: of that evidence, 0 to 1.
    """

    line: Line
    kind: str
    evidence: str = ""
    strength: float = 0.0


class Region(NamedTuple):
    """The part of a page between four sides."""

    left: Side
    right: Side
    top: Side
    bottom: Side

    def turned(self) -> Region:
        """The same region of the turned page: what was top is left."""
        return Region(self.top, self.bottom, self.left, self.right)

    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the box around it."""
        xs, ys = [], []
        for slope, offset in (self.top.line, self.bottom.line):
            for a, c in (self.left.line, self.right.line):
                x = (a * offset + c) / (1 - a * slope)
                xs.append(x)
                ys.append(slope * x + offset)
        return min(xs), min(ys), max(xs), max(ys)


@dataclass(frozen=True)
class Along:
    """Q lines through a region, strip by strip.

    Attributes:
        start: (Q,) where each line enters, in pixels; `end` where it leaves.
        inside: (Q, B) 1 for strips that lie in the region.
        count: (Q,) how many.
        at: (Q, B) positions in the flattened maps.
    """

    maps: Direction
    start: Floats
    end: Floats
    inside: Floats
    count: Floats
    at: Indices

    @classmethod
    def of(cls, maps: Direction, region: Region, slope: Floats, offset: Floats) -> Along:
        """Lines y = slope · x + offset from the region's left to its right side."""
        (a, c), (b, d) = region.left.line, region.right.line
        start, end = (a * offset + c) / (1 - a * slope), (b * offset + d) / (1 - b * slope)
        first = max(0, int(start.min() // STRIP))
        last = min(len(maps.centers), int(end.max() // STRIP) + 1)
        x = maps.centers[first : max(last, first)][None]
        inside = ((x >= start[:, None] + STRIP / 3) & (x <= end[:, None] - STRIP / 3)).astype(np.float32)
        height = maps.pixels.shape[0]
        y = _within(slope[:, None] * x + offset[:, None], height)
        y += PAD + np.arange(first, max(last, first))[None] * (height + 2 * PAD)
        return cls(maps, start, end, inside, np.maximum(inside.sum(1), 1), y)

    def edge(self) -> Floats:
        """(Q,) share of each line that is an edge."""
        share: Floats = (self.maps.edge.ravel()[self.at] * self.inside).sum(1) / self.count
        return share

    def background(self, offset: int = 0) -> Floats:
        """(Q,) share of each line, moved down by `offset` pixels, that is background."""
        share: Floats = (self.maps.background.ravel()[self.at + offset] * self.inside).sum(1) / self.count
        return share

    def background_beside(self, sign: int) -> Floats:
        """(Q,) share along which there is background three to six pixels below (sign 1) or above (-1)."""
        flat = self.maps.background.ravel()
        best = flat[self.at + 3 * sign]
        for k in (4, 5, 6):
            np.maximum(best, flat[self.at + k * sign], out=best)
        share: Floats = (best * self.inside).sum(1) / self.count
        return share

    def moved(self, slope: Floats, offset: Floats) -> Along:
        """The same strips along other lines of as many: what lies beside them at some distance."""
        first = self.at[0, 0] // (self.maps.pixels.shape[0] + 2 * PAD) if self.at.size else 0
        height = self.maps.pixels.shape[0]
        strips = first + np.arange(self.at.shape[1])
        y = _within(slope[:, None] * self.maps.centers[strips][None] + offset[:, None], height)
        at = PAD + y + strips[None] * (height + 2 * PAD)
        return replace(self, at=at)

    def take(self, rows: NDArray[np.intp]) -> Along:
        """Some of the lines."""
        return Along(self.maps, self.start[rows], self.end[rows], self.inside[rows], self.count[rows], self.at[rows])


def _within(values: Floats, size: int) -> Indices:
    """Rounded positions, those outside of 0 to size - 1 moved to its ends."""
    return np.minimum(np.maximum(np.rint(values), 0), size - 1).astype(np.intp)  # np.clip is slow on small arrays


SAME_GUTTER = 24  # of 255: how much the tone may change where a gutter leaves a region


def is_open(maps: Direction, x: Floats, y: Floats, inwards: int) -> NDArray[np.bool_]:
    """(Q,) whether background of one tone runs through a region's side at (x, y), or the side is the page's edge.

    A gutter does not end inside a frame; a white area in a panel does.
    """
    height, width = maps.pixels.shape
    columns = _within(x[:, None] + inwards * np.arange(-2, 5), width)
    rows = _within(y, height)[:, None]
    tone = maps.tone[rows, columns]
    through = maps.pixels[rows, columns].all(1) & (tone.max(1) - tone.min(1) <= SAME_GUTTER)
    at_edge = (x <= 4) if inwards > 0 else (x >= width - 5)
    result: NDArray[np.bool_] = through | at_edge
    return result
