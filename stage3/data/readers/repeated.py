"""The same panel twice on a page: a model that repeats its list, two detectors that found the same frame.

Copies are near-perfect page mates of each other and would raise every measure of what page mates share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

SAME_IOU = 0.95  # intersection over union from which on two boxes are one panel
MOST = 1000  # panels of a page that are compared, each with each; no page keeps more than 64


class _Panel(Protocol):
    @property
    def box(self) -> tuple[float, float, float, float] | None: ...
    @property
    def dialogue(self) -> str: ...
    @property
    def description(self) -> str: ...


def repeated(panels: Sequence[_Panel]) -> dict[int, int]:
    """Panels that say nothing new, as {position: position of the panel that stands for it}.

    Two panels are the same if their boxes are nearly equal (IoU of at least `SAME_IOU`) and they have the same text, or
    one of them has none; the one with text stays, else the first. A panel without a box is a copy if another panel has
    its text.

    Args:
        panels: the usable panels of one page.
    """
    panels = panels[:MOST]
    texts = [(_key(p.dialogue), _key(p.description)) for p in panels]
    boxed = [i for i, p in enumerate(panels) if p.box is not None]
    copies = _same_boxes(boxed, np.array([panels[i].box for i in boxed], np.float64).reshape(-1, 4), texts)
    seen: dict[tuple[str, str], int] = {}
    for i in (i for i in boxed if i not in copies):
        _remember(seen, texts[i], i)
    for i in (i for i, p in enumerate(panels) if p.box is None):
        if texts[i] in seen:
            copies[i] = seen[texts[i]]
        else:
            _remember(seen, texts[i], i)
    return copies


def _key(text: str) -> str:
    return " ".join(text.casefold().split())


def _remember(seen: dict[tuple[str, str], int], text: tuple[str, str], at: int) -> None:
    """A panel with dialogue and description also has what a panel of only one of them says."""
    for known in (text, (text[0], ""), ("", text[1])):
        seen.setdefault(known, at)


def _same_boxes(rows: list[int], boxes: np.ndarray, texts: list[tuple[str, str]]) -> dict[int, int]:
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    area = boxes[:, 2] * boxes[:, 3]
    numbers = {text: n for n, text in enumerate(dict.fromkeys([("", ""), *(texts[row] for row in rows)]))}
    text = np.array([numbers[texts[row]] for row in rows], np.int64)  # 0 is no text
    stays = np.ones(len(rows), bool)
    copies: dict[int, int] = {}
    common = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
    both = np.clip(common, 0.0, None).prod(axis=2)
    same = np.tril(both >= SAME_IOU * (area[:, None] + area - both), -1)  # (N, N), of each panel those before it
    for n in np.flatnonzero(same.any(axis=1)).tolist():
        row, alike = rows[n], same[n, :n]
        if text[n]:
            alike &= (text[:n] == text[n]) | (text[:n] == 0)
        for other in np.flatnonzero(alike & stays[:n]).tolist():
            if text[n] and not text[other]:
                copies[rows[other]], stays[other] = row, False
            else:
                copies[row], stays[n] = rows[other], False
                break
    return copies
