"""The detector of our own: a page is cut again and again where a line or a gutter runs through it.

A tree of cuts: each region is first narrowed to its drawing, then cut at the most significant line or gutter that runs
from side to side, straight or slanted (`cuts`), until there is none. What is left over are panels, margins and text.
Tall strips are cut into screens first. numpy and Pillow only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from stage3.data.detect.cuts import Cut, best_cut
from stage3.data.detect.found import NOTHING, Found
from stage3.data.detect.maps import LONG_SIDE, Bools, Maps, page_maps
from stage3.data.detect.regions import Region, Side
from stage3.data.detect.screens import is_strip, screens
from stage3.data.detect.sides import settled

LEAST = 0.05  # share of the page (square root of its area, at most 600 working pixels) that a panel measures at least
SMALLEST = 0.01  # share of the page
LEAST_PIXELS = 8  # of the working image
STRIP_WIDTH, STRIP_SIDE = 480, 2 * LONG_SIDE  # working pixels of a strip's screen: across, and at most downwards
DEPTH = 12  # cuts inside cuts
GUTTERS, SURE_GUTTER = 2, 18.0  # so many gutters, so significant, make a page on which panels are parted by gutters
SURE_LINE = 18.0  # ... where a line without a gutter must be as significant
LETTERS, FRAMED = 0.03, 0.9  # less solid content in a less certain frame is text outside of panels
BLANK, CERTAIN = 0.004, 0.95  # a panel with nothing in it needs a certain frame


@dataclass(frozen=True)
class Part:
    """A node of the tree of cuts; a panel or something else where it has no parts."""

    region: Region
    cut: Cut | None = None
    parts: tuple[Part, ...] = ()

    def leaves(self, least: float) -> Iterator[Region]:
        """The regions that are left when lines less significant than `least` do not cut."""
        if self.cut is None or (self.cut.kind == "line" and self.cut.significance < least):
            yield self.region
            return
        for part in self.parts:
            yield from part.leaves(least)

    def gutters(self) -> int:
        """How many cuts are certain gutters."""
        own = self.cut is not None and self.cut.kind != "line" and self.cut.significance >= SURE_GUTTER
        return int(own) + sum(part.gutters() for part in self.parts)


class OwnDetector:
    """See the module; `find` keeps nothing between pages."""

    def find(self, image: Image.Image) -> Found:
        """Panels of a page; see `Detector`."""
        image = image if image.mode in ("L", "RGB") else image.convert("RGB")
        if not is_strip(image):
            return panels(image, min(1.0, LONG_SIDE / max(image.size)))
        scale = min(1.0, STRIP_WIDTH / image.width)
        parts = []
        for top, bottom in screens(image):
            part = panels(image.crop((0, top, image.width, bottom)), min(scale, STRIP_SIDE / (bottom - top)))
            parts.append((part.boxes + np.array([0, top, 0, 0]), part.confidence))
        return Found(np.concatenate([boxes for boxes, _ in parts]), np.concatenate([sure for _, sure in parts]))


def panels(image: Image.Image, scale: float) -> Found:
    """Panels of an image that is looked at shrunk by `scale`."""
    if min(image.size) * scale < 3 * LEAST_PIXELS:
        return NOTHING
    maps = page_maps(image, scale)
    width, height = maps.size
    least = max(LEAST * min(math.sqrt(width * height), 600.0), LEAST_PIXELS)
    edge = [Side((0.0, at), "page") for at in (0.0, width - 1.0, 0.0, height - 1.0)]
    tree = _split(maps, Region(*edge), least, 0)
    if tree is None:
        return NOTHING
    found = [
        (region, solid)
        for region in tree.leaves(SURE_LINE if tree.gutters() >= GUTTERS else 0.0)
        if _is_panel(region, solid := _inside(maps.solid, region), width * height)
    ]
    boxes = _bled([region for region, _ in found], [solid for _, solid in found])
    confidence = np.array([np.mean([side.strength for side in region]) for region, _ in found])
    return _on_page(boxes, confidence, image, scale)


def _on_page(boxes: np.ndarray, confidence: np.ndarray, image: Image.Image, scale: float) -> Found:
    """Corners in working pixels as boxes in pixels of the page."""
    limit = np.array([*image.size, *image.size], np.float64)
    corners = np.clip((boxes.reshape(-1, 4) + np.array([0, 0, 1, 1])) / scale, 0, limit)
    made = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    keep = (made[:, 2:] >= 1).all(1)
    return Found(made[keep], np.clip(confidence[keep], 0, 1))


def _split(maps: Maps, region: Region, least: float, depth: int) -> Part | None:
    region = settled(maps, region)
    left, top, right, bottom = region.box()
    if min(right - left, bottom - top) < least or any(side.evidence == "empty" for side in region):
        return None
    if depth == DEPTH:
        return Part(region)
    across, down = best_cut(maps.across, region, least), best_cut(maps.down, region.turned(), least)
    if across is None and down is None:
        return Part(region)
    turn = across is None or (down is not None and down.significance > across.significance)
    cut = down if turn else across
    assert cut is not None
    above, below = _halves(region.turned() if turn else region, cut)
    parts = [_split(maps, half.turned() if turn else half, least, depth + 1) for half in (above, below)]
    return Part(region, cut, tuple(part for part in parts if part is not None))


def _halves(region: Region, cut: Cut) -> tuple[Region, Region]:
    """The parts above and below a cut: each begins in the gutter if there is one on its side, else at the line."""
    gutter_above, gutter_below = cut.kind in ("above", "both", "gap"), cut.kind in ("below", "both", "gap")
    up, low = cut.offset, cut.offset
    if gutter_above:
        up -= cut.above
    if gutter_below:
        low += cut.below
    bottom = Side((cut.slope, up), "gutter" if gutter_above else "line", "line", cut.share)
    top = Side((cut.slope, low), "gutter" if gutter_below else "line", "line", cut.share)
    return region._replace(bottom=bottom), region._replace(top=top)


def _inside(solid: Bools, region: Region) -> Bools:
    """The part of the half-size map of solid content in the region's box."""
    left, top, right, bottom = (int(max(v, 0)) // 2 for v in region.box())
    return solid[top : bottom + 1, left : right + 1]


def _is_panel(region: Region, solid: Bools, page: float) -> bool:
    left, top, right, bottom = region.box()
    if (right - left) * (bottom - top) < SMALLEST * page or not solid.size:
        return False
    share, frame = float(solid.mean()), float(np.mean([side.strength for side in region]))
    return share >= BLANK * (frame < CERTAIN) and (share >= LETTERS or frame >= FRAMED)


def _bled(regions: list[Region], solids: list[Bools]) -> np.ndarray:
    """(N, 4) corners. A drawing that ends raggedly before the page's edge ends where other panels show a margin.

    Without such panels it reaches the edge: the drawing bleeds, with a blank part at the edge.
    """
    corners = np.array([region.box() for region in regions]).reshape(-1, 4)
    settled = corners.copy()
    for i, column in enumerate((0, 2, 1, 3)):  # left, right, top, bottom
        sign = 1 if i % 2 == 0 else -1
        margin = [
            sign * corners[k, column]
            for k, region in enumerate(regions)
            if region[i].kind == "margin" and region[i].evidence in ("line", "dense")
        ]
        for k, (region, solid) in enumerate(zip(regions, solids, strict=True)):
            drawn = np.flatnonzero(solid.any(axis=0 if i < 2 else 1))
            if region[i].evidence != "ragged" or not len(drawn):
                continue
            ends = int(max(corners[k, column % 2], 0)) // 2 * 2 + 2 * (drawn[0] if sign > 0 else drawn[-1] + 1)
            if region[i].kind != "page":
                settled[k, column] = ends
            elif margin:
                settled[k, column] = sign * min(min(margin), sign * ends)
    return settled
