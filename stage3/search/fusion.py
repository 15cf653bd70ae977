"""Typed words in three ways at once: panels that say them, texts that mean the like, images that show it.

The three ranked lists are fused by reciprocal rank (Cormack, Clarke and Büttcher 2009, with their k = 60): a panel's
score is the sum of weight / (k + rank) over the lists that hold it. Where panels say all the words, this list weighs 2,
as much as the two by meaning together, and all of these share its rank 1. So each of them stands before every panel
that does not say the words, whatever the model has learned, and the model orders them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from stage3.batches import IMAGE, TEXT
from stage3.errors import DataError
from stage3.search.searcher import SPACE_NAMES, WORD_WAYS, Filters, Results, Searcher, checked_words
from stage3.search.words import Said

WordTarget = Literal["all", "words"]
WORD_TARGETS: tuple[WordTarget, ...] = ("all", "words")
K = 60  # of reciprocal rank fusion
DEPTH = 100  # panels of each list by meaning that take part, or as many as are asked for
EVERY_WORD = 2.0  # weight of the list of panels that say all the words
BEST = (EVERY_WORD + 2.0) / (K + 1)  # the highest score: first in all lists

Ranked = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], float]
"""(n,) rows of the panel table, (n,) ranks from 1, and the weight of the list."""


@dataclass(frozen=True)
class Words:
    """Typed words that are looked up as they are.

    Attributes:
        text: as typed.
    """

    text: str
    space: ClassVar[str] = "text"
    said: ClassVar[str] = "the words that were typed"
    panel: ClassVar[None] = None


def fuse(lists: Mapping[str, Ranked], top: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Rows of the panel table and their scores, best first; ties as in the list of words, then by row.

    Args:
        lists: "words", "text" and "image", those that there are.
        top: how many.

    Example:
        >>> words, text = (np.array([7]), np.array([1]), 2.0), (np.array([3, 7]), np.array([1, 2]), 1.0)
        >>> fuse({"words": words, "text": text}, 5)[0].tolist()
        [7, 3]
    """
    rows = np.unique(np.concatenate([np.zeros(0, np.int64), *(rows for rows, _, _ in lists.values())]))
    scores, place = np.zeros(len(rows)), np.full(len(rows), len(rows))
    for name, (found, ranks, weight) in lists.items():
        at = np.searchsorted(rows, found)
        scores[at] += weight / (K + ranks)
        if name == "words":
            place[at] = np.arange(len(found))
    order = np.lexsort((rows, place, -scores))[:top]
    return rows[order], scores[order]


def search_words(
    searcher: Searcher,
    text: str,
    target: WordTarget = "all",
    top: int = 10,
    filters: Filters | None = None,
    index: str = "exact",
) -> Results:
    """The panels for typed words, each with the ways that found it.

    Args:
        searcher: of a run.
        text: words; those in double quotes must be said exactly so.
        target: "all", or "words" for the panels that say them alone.
        top: how many panels.
        filters: which panels may be found.
        index: as in `Searcher.search`, for what is found by meaning; words are looked up exactly.

    Returns:
        Results whose scores are those of `fuse`, with `ways`, `said` and `notes`.

    Raises:
        DataError: no words or too many, a filter that names what no panel has, or nothing that can be searched.
    """
    checked_words(text)
    seen = np.zeros(len(searcher.data.table), bool)
    seen[searcher.embedded.rows.numpy()] = True  # a panel without an embedding is found by no other way either
    allowed = seen & searcher.allowed(filters) if filters else seen
    notes: list[str] = []
    problems: list[str] = []
    parts: list[str] = []
    lists: dict[str, Ranked] = {}
    said = Said(np.zeros(0, np.int64), np.zeros(0, np.int64))
    try:
        said = searcher.words.find(text, allowed)
    except DataError as error:
        problems.append(f"the words themselves are not looked up: {error}")
    else:
        notes += said.notes if searcher.words.has_text.any() else ["no panel has a text, so no words are looked up"]
        lists["words"] = (said.rows, said.ranks, EVERY_WORD if said.every or said.parts else 1.0)
        parts.append("words in panels' texts")
    if target == "all":
        try:
            query = searcher.from_words(text)
        except DataError as error:  # its text backbone is not on this machine
            problems.append(f"only words are searched, not their meaning: {error}")
        else:
            depth = max(DEPTH, top)
            for space in ("text", "image"):
                if len(searcher.gallery(space)[1]):
                    found = searcher.search(query, space, depth, filters, index)
                    rows = found.rows
                    notes += [f"{space}s: {note}" for note in found.notes]
                    lists[space] = (rows, np.arange(1, len(rows) + 1), 1.0)
                    parts.append(f"{SPACE_NAMES['text']} against {SPACE_NAMES[space]}s")
    if not parts:
        raise DataError("; ".join(problems))
    rows, scores = fuse(lists, top)
    return Results(
        rows,
        scores,
        [""] * len(rows),
        _searched(searcher, allowed, lists),
        None,
        None,
        "; ".join(parts) + (": fused by reciprocal rank" if len(parts) > 1 else ""),
        ways=_ways(rows, lists, said),
        said=said.every if "words" in lists else None,
        notes=(*notes, *problems),
    )


def _ways(rows: np.ndarray[Any, Any], lists: Mapping[str, Ranked], words: Said) -> list[dict[str, int]]:
    """For each row the ways that found it with its rank there; words are exact, other forms, parts, or some."""
    ends = np.cumsum([words.exact, words.forms, words.parts])
    places = {name: dict(zip(found.tolist(), range(len(found)), strict=True)) for name, (found, _, _) in lists.items()}
    out = []
    for row in rows.tolist():
        ways = {}
        for name, place in places.items():
            if row in place:
                at = place[row]
                said = WORD_WAYS[int(np.searchsorted(ends, at, side="right"))]
                ways[said if name == "words" else name] = int(lists[name][1][at])
        out.append(ways)
    return out


def _searched(searcher: Searcher, allowed: np.ndarray[Any, Any], lists: Mapping[str, Ranked]) -> int:
    """How many panels have something that was searched."""
    has = np.zeros(len(allowed), bool)
    for name, column in (("text", TEXT), ("image", IMAGE)):
        if name in lists:
            has |= searcher.data.panel_set.present[:, column]
    if "words" in lists:
        has |= searcher.words.has_text
    return int((allowed & has).sum())
