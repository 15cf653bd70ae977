"""Tall strips, as webtoons are scrolled, cut into screens between their panels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from PIL import Image

TALL = 3.5  # height by width from which a page is a strip
SHORTEST, LONGEST = 0.9, 6.0  # height of a screen by its width; a longer one is cut where it is cleanest
EVEN = 24  # of 255: range of the gray of a row that no panel crosses
NARROW = 64  # pixels; nothing narrower holds panels above each other
THUMB = 160  # pixels across, enough to see whether a row is even


def is_strip(image: Image.Image) -> bool:
    """Whether a page is so tall that it would be looked at in screens."""
    return image.width >= NARROW and image.height > TALL * image.width


def screens(image: Image.Image) -> list[tuple[int, int]]:
    """Top and bottom of each screen in pixels, without gaps: cuts lie in even rows, the widest run within reach."""
    width = min(THUMB, image.width)
    rows = round(image.height * width / image.width)
    gray = np.asarray(image.convert("L").resize((width, rows), Image.Resampling.BOX, reducing_gap=2.0))
    spread = gray.max(1).astype(np.int16) - gray.min(1)
    steps = np.diff(np.concatenate([[0], (spread <= EVEN).view(np.int8), [0]]))
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    middles, sizes = (starts + ends) / 2, ends - starts
    cuts = [0.0]
    while rows - cuts[-1] > TALL * width:
        ahead = middles - cuts[-1]
        for reach in (2.4 * width, LONGEST * width):
            near = np.flatnonzero((ahead >= SHORTEST * width) & (ahead <= reach))
            if len(near):
                cuts.append(float(middles[near[int(sizes[near].argmax())]]))
                break
        else:
            first = int(cuts[-1] + SHORTEST * width)
            cuts.append(float(first + int(spread[first : int(cuts[-1] + LONGEST * width)].argmin())))
    scale = image.height / rows
    edges = [round(cut * scale) for cut in cuts] + [image.height]
    return list(pairwise(edges))
