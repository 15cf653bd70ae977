"""What a page shows along its rows and columns: straight edges and background, summed up in short strips.

Letters: H, W height and width of the working image in pixels; B strips of `STRIP` pixels side by side along a row. A
`Direction` is written for cuts that run from left to right; the other one is the same of the turned page.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LONG_SIDE = 900  # pixels of the working image; thin gutters close below, and more costs time without finding more
STRIP = 16  # pixels along a line that are seen as one
PAD = 16  # rows of nothing around a map, so that offsets need no clipping
EDGE = 24  # of 255, across two pixels: what counts as an edge
FLAT = 12  # of 255, across two pixels: what counts as even
SAME_TONE = 12  # of 255: how far background may be from its tone
SAME_COLOR = 20  # of 255: how far the difference of a channel to the tone may be from the background's
GRAYISH = 4  # of 255: mean difference of the channels of a page without color
STEADY, UNEVEN = 6, 60  # of 255: change of light over a page that is not worth a correction, and that is no light
PEAK = 0.6  # share of a strip that makes an edge worth a vote
PAPER = 235  # of 255: a tone as light as this is background wherever it occurs
DARK, PALE = 30, 190  # of 255: a gutter is mostly darker or lighter than these
ON_THE_RIM, AROUND = 0.04, 0.15  # share of the page's rim that such a tone, and any other, holds if it is background

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Direction:
    """Maps for lines that run from left to right.

    Attributes:
        edge: (B, H + 2 PAD) share of a strip where a nearly horizontal edge lies within two pixels of the row.
        background: (B, H + 2 PAD) share of a strip that is background.
        pixels: (H, W) background, pixel by pixel.
        tone: (H, W) gray.
        peaks: middle, row and strength of every strip's strong edges, (K,) each.
    """

    edge: Floats
    background: Floats
    pixels: Bools
    tone: Bytes
    peaks: tuple[Floats, Floats, Floats]

    @cached_property
    def centers(self) -> Floats:
        """(B,) where the middle of each strip lies."""
        return (np.arange(len(self.edge), dtype=np.float32) + 0.5) * STRIP


@dataclass(frozen=True)
class Maps:
    """A page at working size: `across` for cuts from left to right, `down` for cuts from top to bottom."""

    across: Direction
    down: Direction
    solid: Bools  # (H / 2, W / 2): what is left of the content without letters and thin strokes
    scale: float  # working pixels per pixel of the page

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the working image."""
        height, width = self.across.pixels.shape
        return width, height


def page_maps(image: Image.Image, scale: float) -> Maps:
    """Maps of an RGB or gray page shrunk by `scale` (at most 1)."""
    gray = image if image.mode == "L" else image.convert("L")
    if scale < 1:
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        gray = gray.resize(size, Image.Resampling.BILINEAR, reducing_gap=1.5)
    tone = np.asarray(gray)
    down, along = _steps(tone)
    even = np.maximum(down, along) <= FLAT
    pixels = _background(image, tone, even)
    return Maps(
        _direction(down, along, pixels, tone),
        _direction(*(np.ascontiguousarray(values.T) for values in (along, down, pixels, tone))),
        _solid(pixels),
        scale,
    )


def _direction(across: Bytes, along: Bytes, pixels: Bools, tone: Bytes) -> Direction:
    edge = _edges(across, along)
    inner = edge[:, PAD:-PAD]
    peak = (inner >= PEAK) & (inner >= edge[:, PAD - 1 : -PAD - 1]) & (inner > edge[:, PAD + 1 : 1 - PAD])
    strips, rows = np.nonzero(peak)
    middles = (strips.astype(np.float32) + 0.5) * STRIP
    wider = edge.copy()
    np.maximum(wider[:, 1:], edge[:, :-1], out=wider[:, 1:])
    np.maximum(wider[:, :-1], edge[:, 1:], out=wider[:, :-1])
    return Direction(
        wider, _padded(_strips(pixels)), pixels, tone, (middles, rows.astype(np.float32), inner[strips, rows])
    )


def _steps(tone: Bytes) -> tuple[Bytes, Bytes]:
    """(H, W) how much the tone changes over two pixels downwards, and to the right."""
    down, along = np.zeros_like(tone), np.zeros_like(tone)
    down[1:-1] = np.maximum(tone[2:], tone[:-2]) - np.minimum(tone[2:], tone[:-2])
    along[:, 1:-1] = np.maximum(tone[:, 2:], tone[:, :-2]) - np.minimum(tone[:, 2:], tone[:, :-2])
    return down, along


def _background(image: Image.Image, tone: Bytes, even: Bools) -> Bools:
    """(H, W) even areas in the color of paper or a gutter: the two most frequent tones that are light or on the rim."""
    height, width = tone.shape
    depth = max(3, round(0.012 * min(height, width)))
    rim = np.zeros_like(even)
    rim[2 : depth + 2] = rim[-depth - 2 : -2] = True
    rim[:, 2 : depth + 2] = rim[:, -depth - 2 : -2] = True
    area = np.convolve(np.bincount(tone[even], minlength=256), np.ones(9), "same")
    on_rim = np.convolve(np.bincount(tone[rim & even], minlength=256), np.ones(25), "same") / max(int(rim.sum()), 1)
    tints = _tints(image, (-(-height // 2), -(-width // 2)))
    levels = np.arange(256)
    found = np.zeros_like(even)
    for _ in range(2):
        needed = np.select([levels >= PAPER, (levels <= DARK) | (levels >= PALE)], [0.0, ON_THE_RIM], AROUND)
        allowed = np.where(on_rim >= needed, area, 0.0)
        level = int(allowed.argmax())
        if allowed[level] < 0.02 * tone.size:
            break
        paper = _lit(tone, even, level)
        low, high = int(paper.min()), int(paper.max())
        area[max(0, low - 30) : high + 31] = 0
        near = even & (np.abs(tone - paper) <= SAME_TONE)
        for tint in tints:
            some = tint[near[::2, ::2]][::7]
            if len(some):
                same = np.abs(tint - int(np.median(some))) <= SAME_COLOR
                near &= np.repeat(np.repeat(same, 2, 0), 2, 1)[:height, :width]
        found |= near
    return found


def _tints(image: Image.Image, shape: tuple[int, int]) -> list[NDArray[np.int16]]:
    """Red and blue minus the tone, at half size; green hardly differs from it. Nothing for a gray page."""
    if image.mode == "L":
        return []
    small = image.resize((shape[1], shape[0]), Image.Resampling.BOX, reducing_gap=1.0)
    red, green, blue = (np.asarray(band).astype(np.int16) for band in small.split())
    if np.abs(red - green)[::3, ::3].mean() + np.abs(blue - green)[::3, ::3].mean() <= GRAYISH:
        return []  # a gray page saved in color
    tone = (299 * red.astype(np.int32) + 587 * green + 114 * blue) // 1000
    return [(red - tone).astype(np.int16), (blue - tone).astype(np.int16)]


def _lit(tone: Bytes, even: Bools, level: int) -> NDArray[np.int16]:
    """(H, W), or (1, 1) where it is the same all over: the background's tone under uneven light, a plane through it."""
    rows, columns = np.nonzero(even[::8, ::8])
    values = tone[::8, ::8][rows, columns].astype(np.float64)
    terms = np.stack([np.ones(len(rows)), rows / even[::8].shape[0], columns / even[:, ::8].shape[1]], axis=1)
    plane = np.array([level, 0.0, 0.0])
    for _ in range(4):
        near = np.abs(values - terms @ plane) <= SAME_TONE
        if near.sum() < 50:
            return np.full((1, 1), level, np.int16)
        plane = np.linalg.lstsq(terms[near], values[near])[0]
    if np.abs(plane[1:]).sum() <= STEADY or np.abs(plane[1:]).max() > UNEVEN:
        return np.full((1, 1), level, np.int16)
    height, width = tone.shape
    down, along = np.linspace(0, plane[1], height)[:, None], np.linspace(0, plane[2], width)[None]
    light: NDArray[np.int16] = np.rint(plane[0] + down + along).astype(np.int16)
    return light


def _strips(mask: Bools) -> Floats:
    """(B, H) share of each strip that is True."""
    ones = mask.view(np.uint8)
    count = ones.shape[1] // STRIP * STRIP
    total = ones[:, 0:count:STRIP].copy()
    for k in range(1, STRIP):
        total += ones[:, k:count:STRIP]
    return np.ascontiguousarray(total.T).astype(np.float32) / np.float32(STRIP)


def _padded(strips: Floats) -> Floats:
    return np.pad(strips, ((0, 0), (PAD, PAD)))


def _edges(across: Bytes, along: Bytes) -> Floats:
    """(B, H + 2 PAD) share of each strip within a pixel of an edge that runs along it, at the best of five slopes."""
    on = ((across >= EDGE) & (across // 3 * 2 >= along)).view(np.uint8)
    near = on.copy()
    near[1:] |= on[:-1]
    near[:-1] |= on[1:]
    count = near.shape[1] // STRIP * STRIP
    quarter = STRIP // 4
    parts = []
    for k in range(4):
        part = near[:, k * quarter : count : STRIP].copy()
        for i in range(k * quarter + 1, (k + 1) * quarter):
            part += near[:, i:count:STRIP]
        parts.append(part)
    best = parts[0] + parts[1] + parts[2] + parts[3]
    for rise in (-4, -2, 2, 4):  # pixels per strip
        shifts = [round(rise * (k - 1.5) / 4) for k in range(4)]
        total = np.zeros_like(best)
        for part, shift in zip(parts, shifts, strict=True):
            if shift > 0:
                total[:-shift] += part[shift:]
            elif shift < 0:
                total[-shift:] += part[:shift]
            else:
                total += part
        np.maximum(best, total, out=best)
    return _padded(np.ascontiguousarray(best.T).astype(np.float32) / np.float32(STRIP))


def _solid(background: Bools) -> Bools:
    """(H / 2, W / 2) content that survives an opening by five half-size pixels: drawings do, letters do not."""
    ink = ~_grown(background, 1)  # without the soft rims of letters, which would join them
    half = (ink[:-1:2, :-1:2] & ink[1::2, :-1:2]) | (ink[:-1:2, 1::2] & ink[1::2, 1::2])
    return _grown(~_grown(~half, 2), 2)


def _grown(mask: Bools, by: int) -> Bools:
    for _ in range(by):
        wide = mask.copy()
        wide[1:] |= mask[:-1]
        wide[:-1] |= mask[1:]
        mask = wide.copy()
        mask[:, 1:] |= wide[:, :-1]
        mask[:, :-1] |= wide[:, 1:]
    return mask
