"""Where marks stand on a map: labels that do not cover each other, means of pages, numbers that fan out of a heap.

Pure functions of positions. N panels, L labels, G groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from stage3.metrics.nearest import Array

FAN_ROUNDS = 200


@dataclass(frozen=True)
class Groups:
    """Where the panels of each group are.

    Attributes:
        number: (G,) the group's number, ascending.
        mean: (G, 2) mean position.
        spread: (G,) root of the mean squared distance from it.
        panels: (G,) panels.
    """

    number: Array
    mean: Array
    spread: Array
    panels: Array


def group_means(xy: Array, group: Array) -> Groups:
    """Mean position and spread of each group, such as a page.

    Args:
        xy: (N, 2) positions.
        group: (N,) number of each panel's group.

    Example:
        >>> found = group_means(np.array([[0.0, 0.0], [4.0, 0.0], [1.0, 1.0]]), np.array([7, 7, 3]))
        >>> found.number.tolist(), found.mean.tolist(), found.spread.tolist()
        ([3, 7], [[1.0, 1.0], [2.0, 0.0]], [0.0, 2.0])
    """
    number, at = np.unique(group, return_inverse=True)
    panels = np.bincount(at, minlength=len(number))
    xy = np.asarray(xy, np.float64)
    total = np.column_stack([np.bincount(at, weights=xy[:, d], minlength=len(number)) for d in (0, 1)])
    mean = total / np.maximum(panels, 1)[:, None]
    away = ((xy - mean[at]) ** 2).sum(axis=1)
    spread = np.sqrt(np.bincount(at, weights=away, minlength=len(number)) / np.maximum(panels, 1))
    return Groups(number, mean, spread, panels)


def middle(xy: Array) -> Array:
    """(2,) the one of some points whose distance to their median is least: it lies among them, even in a ring."""
    xy = np.asarray(xy, np.float64)
    best: Array = xy[((xy - np.median(xy, axis=0)) ** 2).sum(axis=1).argmin()]
    return best


def label_zooms(xy: Array, size: Array, levels: tuple[float, ...] = (1, 2, 4, 8, 16)) -> Array:
    """(L,) the least zoom of `levels` at which a label is shown; earlier labels go first, none covers another.

    Zooming by z moves labels z times as far apart and leaves their size as it is. A label that finds no room at any
    level gets the last one.

    Args:
        xy: (L, 2) where labels stand (their middle), most important first.
        size: (L, 2) width and height of each label at zoom 1, in the unit of `xy`.
        levels: zooms, ascending.
    """
    shown = np.full(len(xy), float(levels[-1]))
    placed = np.zeros(len(xy), bool)
    for zoom in levels:
        at = np.asarray(xy, np.float64) * zoom
        for i in np.flatnonzero(~placed):
            room = np.abs(at[placed] - at[i]) >= (size[placed] + size[i]) / 2
            if room.any(axis=1).all():
                placed[i], shown[i] = True, zoom
    return shown


def fan(xy: Array, least: float) -> Array:
    """(N, 2) positions moved apart until any two are `least` apart, or nearly: numbers of a heap of points.

    Points that lie on each other part in the direction of a clock that starts above and goes on with each point.

    Args:
        xy: (N, 2) positions, such as pixels.
        least: smallest distance wanted.
    """
    n = len(xy)
    turn = 2 * np.pi * np.arange(n) / max(n, 1)
    at = np.asarray(xy, np.float64) + 1e-3 * least * np.column_stack([np.sin(turn), np.cos(turn)])
    for _ in range(FAN_ROUNDS):
        apart = at[:, None] - at[None]
        distance = np.sqrt((apart**2).sum(axis=2))
        push = np.clip(least - distance, 0, None)
        np.fill_diagonal(push, 0)
        if push.max(initial=0) < 0.02 * least:
            break
        at += 0.5 * (apart / np.maximum(distance, 1e-9)[..., None] * push[..., None]).sum(axis=1) / 1.5
    return at


def simplified(polygon: Array, tolerance: float) -> Array:
    """(C', 2) corners of a drawn line; none that is left out is more than `tolerance` off it (Douglas & Peucker 1973).

    Args:
        polygon: (C, 2) corners in order.
        tolerance: in the unit of the positions.
    """
    points = np.asarray(polygon, np.float64).reshape(-1, 2)
    if len(points) < 4:
        return points
    kept = np.zeros(len(points), bool)
    kept[[0, -1]] = True
    parts = [(0, len(points) - 1)]
    while parts:
        first, last = parts.pop()
        inner = points[first + 1 : last]
        if not len(inner):
            continue
        along = points[last] - points[first]
        length = float(np.hypot(*along))
        offset = inner - points[first]
        away = np.abs(offset @ [-along[1], along[0]]) / length if length else np.hypot(*offset.T)
        worst = int(away.argmax())
        if away[worst] > tolerance:
            kept[first + 1 + worst] = True
            parts += [(first, first + 1 + worst), (first + 1 + worst, last)]
    return points[kept]
