"""Moving the sides of a region inwards to where its drawing begins."""

from __future__ import annotations

import numpy as np

from stage3.data.detect.maps import Direction, Maps
from stage3.data.detect.regions import Along, Region, Side

CLEAN = 0.88  # share of a line that is background outside of a panel; page numbers and tails of balloons stick out
REACH = 0.45  # share of a region that a margin may take on one side
NEAR = 60  # pixels inwards that are looked at first
RIM = 6  # pixels at the page's edge that a scanner may have darkened
MOVED = 3  # pixels that make another look at the other sides worth it
FRAME = 0.6  # share of a side that makes it a frame line
STICKING_OUT = 0.06  # share of a region that a drawing may stick out of its frame
LONG_FRAME, STILL_CLEAN = 0.75, 0.8  # ... share of the frame that must be edge then, and of what lies outside
DENSE = 0.55  # share of background a few pixels inside below which a drawing ends along a side
BLEED_STRENGTH = 0.8


def settled(maps: Maps, region: Region) -> Region:
    """The region with every side where its drawing begins; a ragged side at the page's edge stays there."""
    for _ in range(2):  # a second time, since a side is judged between the others
        before = region
        region = _upright(maps.down, _upright(maps.across, region).turned()).turned()
        if all(abs(side.line[1] - old.line[1]) < MOVED for side, old in zip(region, before, strict=True)):
            break
    return region


def _upright(maps: Direction, region: Region) -> Region:
    _, top, _, bottom = region.box()
    reach = int(REACH * max(bottom - top, 0))
    region = region._replace(top=_moved(maps, region, region.top, 1, reach))
    return region._replace(bottom=_moved(maps, region, region.bottom, -1, reach))


def _moved(maps: Direction, region: Region, side: Side, inwards: int, reach: int) -> Side:
    """A side after background was skipped, and what it stands on then."""
    if side.kind == "line":
        return side
    if reach > NEAR:  # most margins and gutters end soon
        soon = _moved(maps, region, side, inwards, NEAR)
        if soon.evidence != "empty":
            return soon
    slope, offset = side.line
    depth = np.arange(-2, reach + 16, dtype=np.float32)
    offsets = (offset + inwards * depth).astype(np.float32)
    along = Along.of(maps, region, np.full_like(offsets, slope), offsets)
    edge, clean = along.edge(), along.background()

    sticking = STICKING_OUT * abs(region.bottom.line[1] - region.top.line[1])

    def at(i: int) -> Side:
        kind = "margin" if side.kind == "page" else side.kind
        return side._replace(line=(slope, float(offsets[i])), kind=kind)

    last = len(depth) - 14
    first = RIM if side.kind == "page" else 2
    if side.kind == "page":
        if clean[RIM : RIM + 3].min() < CLEAN:
            return side._replace(evidence="bleed", strength=BLEED_STRENGTH)
    elif edge[:6].max() >= 0.5 and clean[2:5].min() < STILL_CLEAN:
        return side._replace(evidence="line", strength=float(edge[:6].max()))
    dirty = np.flatnonzero(clean[first:last] < CLEAN)
    if not len(dirty):
        return at(last)._replace(evidence="empty", strength=0.0)
    stop = first + int(dirty[0])
    near = np.flatnonzero(edge[max(stop - 2, 0) : stop + 7] >= FRAME)
    if len(near):
        i = max(stop - 2, 0) + int(near[0])
        i += int(edge[i : i + 4].argmax())
        return at(i)._replace(evidence="line", strength=float(edge[i]))
    for i in range(stop + 3, min(last, stop + int(sticking) + 1)):
        if edge[i] >= LONG_FRAME and clean[stop : i - 2].mean() >= STILL_CLEAN:
            return at(i)._replace(evidence="line", strength=float(edge[i]))
    inside = float(clean[stop + 6 : stop + 14].mean())
    if inside < DENSE:
        return at(stop)._replace(evidence="dense", strength=1 - inside)
    moved = side if side.kind == "page" else at(stop)
    return moved._replace(evidence="ragged", strength=0.5 * (1 - inside))
