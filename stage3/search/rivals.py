"""What beat the true match: the wrong panel that is ranked first for a missed one, and what the two have in common.

M panels of a gallery: those of a split with image and text. n missed panels.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from stage3.batches import IMAGE, TEXT
from stage3.metrics.distinctive import STOP_WORDS
from stage3.model.distant import Distant, take
from stage3.model.embedding import Embedded
from stage3.model.mapped import Mapped
from stage3.runs.inspection import gallery_sample
from stage3.search.failures import I2T, REASONS, T2I
from stage3.search.searcher import Searcher
from stage3.search.words import folded

SAME_WORDS = 0.6  # share of the words of both texts that they have in common from which they are nearly the same
RARE = 0.1  # a word that at most this share of the gallery's texts has says something of what is shown
ALIKE = 0.02  # an image among this share of the gallery that is nearest by frozen features is seen alike
AT_ONCE = 2048  # queries
RELATIONS = {
    "same page": "The panel that beat the true match is on the same page.",
    "nearly the same text": f"Its text has at least {SAME_WORDS:.0%} of its words in common with the panel's.",
    "same book": "It is in the same book.",
    "same words": f"The texts share words that at most {RARE:.0%} of all texts have, such as those of a setting.",
    "image alike": f"Before the model, its image is among the {ALIKE:.0%} nearest of the gallery.",
}
OTHER = {"other": "The panel that beat the true match shares neither page, book, words nor looks with it."}
ALL_REASONS = {n: t for n, t in REASONS.items() if n != "other"} | RELATIONS | OTHER


@dataclass(frozen=True)
class _Gallery:
    """The panels that are ranked, with what relations are judged by."""

    part: Embedded
    rows: np.ndarray[Any, Any]
    images: Tensor  # (M, Di) centered frozen image features of norm 1
    words: list[frozenset[str]]
    rare: dict[str, int]  # rare words: how many texts have them


def with_rivals(searcher: Searcher, found: pd.DataFrame, rows: np.ndarray[Any, Any]) -> pd.DataFrame:
    """`failures` with the panel that beat each true match, and a reason where that one explains it.

    The direction is the one that misses; where both do, the one with the worse rank.

    Args:
        searcher: of the checkpoint.
        found: `failures` of the same panels.
        rows: (n,) panel rows that were judged, such as those of a split: the same gallery.

    Returns:
        Also way (`I2T` or `T2I`: the direction that misses), rival (row of the wrong panel ranked first, -1 where the
        panel cannot be asked), match_score and rival_score (cosines to the query), common (what the two have in
        common, in words); `reason` is one of `ALL_REASONS`.
    """
    gallery = _gallery(searcher, rows)
    i2t, t2i = found["rank_i2t"].to_numpy(), found["rank_t2i"].to_numpy()
    way = np.where(np.nan_to_num(t2i) > np.nan_to_num(i2t), T2I, I2T)
    place = {int(row): at for at, row in enumerate(gallery.rows)}
    at = np.array([place.get(int(row), -1) for row in found["panel"]], np.int64)
    rival, match, beat = _first_wrong(gallery.part, at, way)
    out = found.assign(
        way=way, rival=np.where(rival >= 0, gallery.rows[rival], -1), match_score=match, rival_score=beat
    )
    judged = [
        _common(searcher.frame, gallery, int(a), int(b)) if b >= 0 else [] for a, b in zip(at, rival, strict=True)
    ]
    out["common"] = ["; ".join(f"{name}: {more}" if more else name for name, more in found_) for found_ in judged]
    first = [found_[0][0] if found_ else "" for found_ in judged]
    open_ = out["reason"].isin(["other", "generic"])
    out["reason"] = [f if free and f else reason for f, free, reason in zip(first, open_, out["reason"], strict=True)]
    return out


def _gallery(searcher: Searcher, rows: np.ndarray[Any, Any]) -> _Gallery:
    everything: Embedded | Distant | Mapped = searcher.embedded
    if isinstance(everything, Mapped):
        everything = Distant.of(searcher.model, searcher.data.panel_set)
    wanted = torch.isin(everything.rows, torch.from_numpy(np.asarray(rows, np.int64)))
    part = take(everything, gallery_sample(wanted.nonzero()[:, 0], everything))
    part = take(part, (part.present[:, IMAGE] & part.present[:, TEXT]).nonzero()[:, 0])
    at = part.rows.numpy()
    features = torch.from_numpy(searcher.data.features.gather(at)[0])
    images = F.normalize(features - features.mean(dim=0), dim=1)
    words = [content_words(text) for text in searcher.frame["text"].loc[at]]
    counts: dict[str, int] = {}
    for said in words:
        for word in said:
            counts[word] = counts.get(word, 0) + 1
    most = max(2, math.floor(RARE * len(words)))
    return _Gallery(part, at, images, words, {w: n for w, n in counts.items() if n <= most})


def content_words(text: str) -> frozenset[str]:
    """The words of a text that say something, folded: no stop words and no Latin ones of one or two letters.

    >>> sorted(content_words("Under the sea, at DUSK: a knight."))
    ['dusk', 'knight', 'sea', 'under']
    """
    return frozenset(
        w for w in re.findall(r"\w+", folded(text)) if (len(w) > 2 or not w.isascii()) and w not in STOP_WORDS
    )


def _first_wrong(
    part: Embedded, at: np.ndarray[Any, Any], way: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """(n,) place of the first wrong panel (-1 for none), and (n,) cosines of the true match and of that one.

    Panels with the same text do not compete, as in the ranks.
    """
    rival = np.full(len(at), -1, np.int64)
    match, beat = (np.full(len(at), np.nan) for _ in range(2))
    image, text = F.normalize(part.image, dim=1), F.normalize(part.text, dim=1)
    for name, query, target in ((I2T, image, text), (T2I, text, image)):
        asked = np.flatnonzero((way == name) & (at >= 0))
        for start in range(0, len(asked), AT_ONCE):
            some = asked[start : start + AT_ONCE]
            own = torch.from_numpy(at[some])
            scores = query[own] @ target.T
            match[some] = scores[torch.arange(len(own)), own].numpy()
            scores[part.text_ids[own][:, None] == part.text_ids[None]] = -torch.inf
            best = scores.max(dim=1)
            there = torch.isfinite(best.values).numpy()
            rival[some[there]] = best.indices.numpy()[there]
            beat[some[there]] = best.values.numpy()[there]
    return rival, match, beat


def _common(frame: pd.DataFrame, gallery: _Gallery, a: int, b: int) -> list[tuple[str, str]]:
    """What two panels of the gallery (by place) have in common, as (a key of `RELATIONS`, details), strongest first."""
    row, other = gallery.rows[a], gallery.rows[b]
    ours, theirs = gallery.words[a], gallery.words[b]
    shared = ours & theirs
    found = []
    if frame["page"][row] == frame["page"][other]:
        found.append(("same page", ""))
    if shared and len(shared) >= SAME_WORDS * len(ours | theirs):
        found.append(("nearly the same text", ""))
    if frame["book"][row] == frame["book"][other]:
        found.append(("same book", ""))
    telling = sorted((w for w in shared if w in gallery.rare), key=lambda w: (gallery.rare[w], w))[:4]
    if telling:
        found.append(("same words", ", ".join(telling)))
    near = gallery.images @ gallery.images[a]
    closer = int((near > near[b]).sum()) - 1  # not counting the panel itself
    if closer < max(1, math.floor(ALIKE * len(near))):
        found.append(("image alike", f"cosine {float(near[b]):.2f}"))
    return found
