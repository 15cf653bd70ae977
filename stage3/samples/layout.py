"""Page layouts: a page's area is split again and again by gutters that may lean; insets lie on top."""

from dataclasses import dataclass

import numpy as np

from stage3.samples.ink import Point
from stage3.samples.looks import Look

PAGE = (400.0, 600.0)  # width and height of a page in page pixels
Tree = tuple[str, tuple[float, ...], tuple["Tree | None", ...]]
Quad = tuple[Point, Point, Point, Point]  # top left, top right, bottom right, bottom left


def _rows(*counts: int, weights: tuple[float, ...] | None = None) -> Tree:
    rows: list[Tree | None] = [None if n == 1 else ("columns", (1.0,) * n, (None,) * n) for n in counts]
    return ("rows", weights or (1.0,) * len(counts), tuple(rows))


_TREES: dict[str, Tree | None] = {
    "splash": None,
    "inset": None,
    "two-tiers": _rows(1, 1),
    "two-columns": ("columns", (1.0, 1.0), (None, None)),
    "three-tiers": _rows(1, 1, 1),
    "tall-left": ("columns", (1.0, 1.2), (None, ("rows", (1.0, 1.0), (None, None)))),
    "tall-right": ("columns", (1.2, 1.0), (("rows", (1.0, 1.0, 1.0), (None, None, None)), None)),
    "one-two": _rows(1, 2, weights=(1.2, 1.0)),
    "two-one": _rows(2, 1, weights=(1.0, 1.25)),
    "grid-2x2": _rows(2, 2),
    "one-two-two": _rows(1, 2, 2),
    "two-one-two": _rows(2, 1, 2),
    "two-three": _rows(2, 3, weights=(1.15, 1.0)),
    "three-two": _rows(3, 2, weights=(1.0, 1.15)),
    "grid-2x3": _rows(2, 2, 2),
    "grid-3x3": _rows(3, 3, 3),
}
_SHARES = {
    "splash": 0.07, "inset": 0.05, "two-tiers": 0.05, "two-columns": 0.02, "three-tiers": 0.09, "tall-left": 0.07,
    "tall-right": 0.08, "one-two": 0.10, "two-one": 0.10, "grid-2x2": 0.11, "one-two-two": 0.08,
    "two-one-two": 0.08, "two-three": 0.06, "three-two": 0.05, "grid-2x3": 0.09, "grid-3x3": 0.05,
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """A panel's outline on the page, in page pixels; its stored box is `box`."""

    corners: Quad
    inset: bool = False

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the bounding box."""
        xs, ys = [p[0] for p in self.corners], [p[1] for p in self.corners]
        return min(xs), min(ys), max(xs), max(ys)

    @property
    def slanted(self) -> bool:
        """Whether some edge is not along the page."""
        (a, b), (c, d), (e, f), (g, h) = self.corners
        return max(abs(b - d), abs(c - e), abs(f - h), abs(a - g)) > 0.5

    def safe(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of an upright box inside the outline."""
        (a, b), (c, d), (e, f), (g, h) = self.corners
        return max(a, g), max(b, d), min(c, e), min(f, h)


def choose_layout(rng: np.random.Generator, allow_nine: bool = True) -> str:
    """Draw the name of a layout."""
    names = [n for n in _SHARES if allow_nine or n != "grid-3x3"]
    p = np.array([_SHARES[n] for n in names])
    return str(rng.choice(names, p=p / p.sum()))


def panel_shapes(name: str, look: Look, rng: np.random.Generator) -> list[Shape]:
    """The panels of a layout in reading order."""
    m, (w, h) = look.margin, PAGE
    page: Quad = ((m, m), (w - m, m), (w - m, h - m), (m, h - m))
    shapes = [Shape(quad) for quad in _split(page, _TREES[name], look, rng)]
    if name == "inset":
        shapes += _insets(rng)
    return shapes


def _insets(rng: np.random.Generator) -> list[Shape]:
    w, h = PAGE
    wide, tall = float(rng.uniform(130, 160)), float(rng.uniform(130, 165))
    left = bool(rng.random() < 0.5)
    x = 26.0 if left else w - 26 - wide
    y = h - 26 - tall
    boxes = [(x, y)]
    if rng.random() < 0.6:
        boxes.append((w - 26 - wide if left else 26.0, y))
        boxes.sort()
    return [Shape(((x, y), (x + wide, y), (x + wide, y + tall), (x, y + tall)), inset=True) for x, y in boxes]


def _between(a: Point, b: Point, t: float) -> Point:
    return a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t


def _split(quad: Quad, tree: Tree | None, look: Look, rng: np.random.Generator) -> list[Quad]:
    if tree is None:
        return [quad]
    kind, weights, children = tree
    tl, tr, br, bl = quad
    start, end = ((tl, tr), (bl, br)) if kind == "rows" else ((tl, bl), (tr, br))
    length = end[0][1] - start[0][1] if kind == "rows" else end[0][0] - start[0][0]
    share = np.array(weights) * rng.uniform(0.88, 1.12, len(weights))
    ends = np.cumsum(share / share.sum())
    gap = look.gutter / max(length, 1.0) / 2
    parts: list[Quad] = []
    before = (0.0, 0.0)  # where the last gutter ended, on the first and on the second side
    for k, child in enumerate(children):
        last = k == len(children) - 1
        lean = 0.0 if last else float(rng.uniform(-1, 1)) * look.slant / max(length, 1.0)
        a, b = (1.0, 1.0) if last else (float(ends[k]) + lean - gap, float(ends[k]) - lean - gap)
        p, q = _between(start[0], end[0], before[0]), _between(start[1], end[1], before[1])
        r, s = _between(start[0], end[0], a), _between(start[1], end[1], b)
        part: Quad = (p, q, s, r) if kind == "rows" else (p, r, s, q)
        parts += _split(part, child, look, rng)
        before = (a + 2 * gap, b + 2 * gap)
    return parts
