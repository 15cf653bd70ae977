"""Where a region can be cut in two: along a straight edge, a gutter with an edge, or a clean gutter.

Every cut has a *significance*: the length of the line in strips, times how surprising its share of edge (or background)
is in this region, as relative entropy. A chance line in a hatched drawing is not surprising; a frame line is. This is
the a-contrario idea of line detectors (Desolneux, Moisan, Morel 2000; LSD), which needs no threshold per book.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from stage3.data.detect.maps import PAD, STRIP, Direction, Floats
from stage3.data.detect.regions import Along, Region, is_open

SLOPES = np.linspace(-0.27, 0.27, 43, dtype=np.float32)  # up to 15 degrees
BIN = 3.0  # pixels: lines closer than this are one
CANDIDATES = 20  # lines that are looked at closely
LINE = 0.88  # share of a line without a gutter that must be edge
LIFT = 0.7  # ... and how far above the region's own density of edges, of what is possible
GUTTER_EDGE, GUTTER_CLEAN, GUTTER_BOTH = 0.5, 0.8, 0.6  # shares of a line beside a gutter: edge, background, product
GAP = 0.96  # share of a gutter without edges that must be background
SLANTED, WIDEST = 0.03, 36.0  # a gutter that leans so is narrower than so many working pixels
SURE_LINE, SURE_GUTTER, SURE_GAP = 11.0, 14.0, 12.0  # least significance; ln of the lines tried is about 10
WIDE_GAP = 3  # strips
GUTTER_BONUS, GAP_BONUS = 8.0, 4.0


@dataclass(frozen=True)
class Cut:
    """A line that parts a region: y = slope · x + offset; where the parts begin, and why it is one.

    Attributes:
        kind: "line" (both panels share it), "above" or "below" (an edge, and a gutter on that side of it), "both"
            (gutters on both sides), "gap" (a clean gutter without edges).
        significance: in nats.
        share: of the line that shows what it should.
        above: pixels from the line up to the middle of the gutter there; `below` downwards.
    """

    slope: float
    offset: float
    kind: Literal["line", "above", "below", "both", "gap"]
    significance: float
    share: float
    above: int = 0
    below: int = 0


def best_cut(maps: Direction, region: Region, least: float) -> Cut | None:
    """The most significant cut from left to right that leaves at least `least` pixels on both sides; None for none."""
    left, top, right, bottom = region.box()
    if bottom - top < 2 * least or right - left < 2 * STRIP:
        return None
    columns = slice(max(0, int(left // STRIP)), int(right // STRIP) + 1)
    rows = slice(PAD + max(0, int(top)), PAD + max(0, int(bottom)) + 1)
    edges, background = maps.edge[columns, rows], maps.background[columns, rows]
    if not edges.size:
        return None
    chance = min(float(edges.mean()) + 0.02, 0.95), min(float(background.mean()), 0.9)
    found = [_edge_cut(maps, region, least, chance), _gap_cut(maps, region, least, chance[1])]
    return max((cut for cut in found if cut), key=lambda cut: cut.significance, default=None)


def _surprise(share: Floats, chance: float) -> Floats:
    """Relative entropy of a share to what chance gives, in nats per strip; 0 at or below chance."""
    chance = max(chance, 1e-3)
    k = np.clip(share, 1e-3, 1 - 1e-3)
    value: Floats = np.where(k > chance, k * np.log(k / chance) + (1 - k) * np.log((1 - k) / (1 - chance)), 0.0)
    return value


def _lines(maps: Direction, region: Region, least: float) -> tuple[Floats, Floats]:
    """Slopes and offsets of lines on which many strips have an edge: a Hough transform of the edges' peaks."""
    left, _, right, _ = region.box()
    x, y, strength = maps.peaks
    inside = (y > region.top.line[0] * x + region.top.line[1] + 0.6 * least) & (
        y < region.bottom.line[0] * x + region.bottom.line[1] - 0.6 * least
    )
    inside &= (x > region.left.line[0] * y + region.left.line[1]) & (
        x < region.right.line[0] * y + region.right.line[1]
    )
    x, y, strength = x[inside], y[inside], strength[inside]
    if not len(x):
        return x, x
    middle = (left + right) / 2
    offset = y[None] - SLOPES[:, None] * (x - middle)[None]
    low = float(offset.min())
    bins = ((offset - low) * (1 / BIN)).astype(np.intp)
    many = int(bins.max()) + 2
    bins += np.arange(len(SLOPES))[:, None] * many
    counted = np.bincount(bins.ravel(), np.broadcast_to(strength, bins.shape).ravel(), many * len(SLOPES))
    votes: Floats = counted.astype(np.float32).reshape(len(SLOPES), many)
    votes[:, :-1] += votes[:, 1:].copy()
    votes -= 0.02 * np.abs(np.arange(len(SLOPES)) - len(SLOPES) // 2)[:, None]  # among equals, the straight one
    best = votes.max(0)
    padded = np.pad(best, 2)
    top_of_five = best >= np.maximum.reduce([padded[:-4], padded[1:-3], padded[3:-1], padded[4:]])
    chosen = np.flatnonzero(top_of_five & (best >= 0.4 * (right - left) / STRIP))
    chosen = chosen[np.argsort(-best[chosen], kind="stable")[:CANDIDATES]]
    at = (low + BIN * (chosen + 1)).astype(np.float32)
    slope = SLOPES[votes.argmax(0)[chosen]]
    slope, offset = np.concatenate([slope, 0 * slope]), np.concatenate([at - slope * middle, at])
    return np.repeat(slope, 4), (offset[:, None] + np.array([-3, -1, 1, 3], np.float32)).ravel()


def _edge_cut(maps: Direction, region: Region, least: float, chance: tuple[float, float]) -> Cut | None:
    slope, offset = _lines(maps, region, least)
    if not len(slope):
        return None
    along = Along.of(maps, region, slope, offset)
    start, end = slope * along.start + offset, slope * along.end + offset
    above = [start - _y(region.top.line, along.start), end - _y(region.top.line, along.end)]
    below = [_y(region.bottom.line, along.start) - start, _y(region.bottom.line, along.end) - end]
    size = np.minimum(np.maximum(*above), np.maximum(*below))
    within = np.minimum(np.minimum(*above), np.minimum(*below)) >= 0
    edge = along.edge()
    keep = np.flatnonzero((size >= least) & within & (edge >= GUTTER_EDGE))
    if not len(keep):
        return None
    along, slope, offset, edge = along.take(keep), slope[keep], offset[keep], edge[keep]
    clean = {sign: _gutter_beside(maps, along, slope, offset, sign) for sign in (-1, 1)}
    cleanest = np.maximum(clean[-1], clean[1])
    value = along.count * _surprise(edge, chance[0]) - 0.6 * along.count * np.abs(slope)
    with_gutter = value + along.count * _surprise(cleanest, chance[1]) + GUTTER_BONUS
    gutter = (cleanest >= GUTTER_CLEAN) & (cleanest * edge >= GUTTER_BOTH) & (with_gutter >= SURE_GUTTER)
    lift = (edge - chance[0]) / (1 - chance[0])
    line = (edge >= LINE) & (lift >= LIFT) & (value >= SURE_LINE)
    value = np.where(gutter, with_gutter, np.where(line, value, -np.inf))
    i = int(value.argmax())
    if not np.isfinite(value[i]):
        return None
    where = float(slope[i]), float(offset[i])
    if not gutter[i]:
        return Cut(*where, "line", float(value[i]), float(edge[i]))
    one = along.take(np.array([i]))
    middle = {sign: 2 + int(np.argmax([one.background(sign * k)[0] for k in range(2, 10)])) for sign in (-1, 1)}
    up, down = float(clean[-1][i]), float(clean[1][i])
    kind: Literal["above", "below", "both"] = "above" if up > down else "below"
    if min(up, down) >= GUTTER_CLEAN:
        kind = "both"
    return Cut(*where, kind, float(value[i]), float(max(edge[i], cleanest[i])), middle[-1], middle[1])


def _gutter_beside(maps: Direction, along: Along, slope: Floats, offset: Floats, sign: int) -> Floats:
    """(Q,) share of each line that has background on one side, where that may be a gutter; otherwise 0."""
    share = along.background_beside(sign)
    steps = sign * np.arange(3, 7, dtype=np.float32)[:, None]
    leaves = [
        is_open(maps, np.tile(x, len(steps)), (slope * x + offset + steps).ravel(), inwards).reshape(-1, len(x)).any(0)
        for x, inwards in ((along.start, 1), (along.end, -1))
    ]
    # A slanted gutter is narrow; what is still clean farther away is a dark or light part of a drawing.
    ends = along.moved(slope, offset + sign * WIDEST).background() < GUTTER_CLEAN
    result: Floats = np.where(leaves[0] & leaves[1] & (ends | (np.abs(slope) < SLANTED)), share, 0.0)
    return result


def _y(line: tuple[float, float], x: Floats) -> Floats:
    return line[0] * x + line[1]


def _gap_cut(maps: Direction, region: Region, least: float, chance: float) -> Cut | None:
    """The most significant run of rows that are background from side to side and leave the region at both ends."""
    _, top, _, bottom = region.box()
    rows = np.arange(int(top + least), int(bottom - least), 2, dtype=np.float32)
    if len(rows) < 2:
        return None
    along = Along.of(maps, region, np.zeros_like(rows), rows)
    share = along.background()
    clean = share >= GAP
    if not clean.any():
        return None
    clean &= is_open(maps, along.start, rows, 1) & is_open(maps, along.end, rows, -1)
    steps = np.diff(np.concatenate([[0], clean.view(np.int8), [0]]))
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    wide = ends - starts >= 2  # rows of every second pixel
    middles = (starts[wide] + ends[wide] - 1) // 2
    if not len(middles):
        return None
    height = np.clip(2 * (ends - starts)[wide] / STRIP, 1, WIDE_GAP)  # a wide gutter is so many chances at once
    value = along.count[middles] * height * _surprise(share[middles], chance) + GAP_BONUS
    i = int(value.argmax())
    if value[i] < SURE_GAP:
        return None
    at = middles[i]
    return Cut(0.0, float(rows[at]), "gap", float(value[i]), float(share[at]))
