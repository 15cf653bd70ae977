"""Panels whose true match is missed in one direction or both, and what about them explains it.

M panels of a gallery: those with image and text.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from stage3.model.distant import Distant, take
from stage3.model.embedding import Embedded
from stage3.runs.inspection import gallery_sample
from stage3.search.index import Index

GENERIC = 0.9  # share of the gallery's texts whose nearest other texts lie further away than a generic one's
NEAREST = 5
REASONS: dict[str, str] = {
    "no text": "The panel has no text to search with, and none to find.",
    "same text": "Other panels have the same text, so it cannot tell them apart.",
    "generic": f"Its {NEAREST} nearest other texts are closer to it than those of {GENERIC:.0%} of all texts are to "
    "theirs: it says little of its own.",
    "other": "None of these; see the panels ranked above it.",
}
I2T, T2I, NEITHER = "image → text", "text → image", "neither"


def failures(
    embedded: Embedded | Distant,
    ranks_i2t: np.ndarray[Any, Any],
    ranks_t2i: np.ndarray[Any, Any],
    rows: np.ndarray[Any, Any],
    *,
    k: int = 5,
) -> pd.DataFrame:
    """The panels whose true match is not among the first k in both directions, worst first, then those without text.

    Reasons are tested in the order of `REASONS`: no text; a text that another panel of the gallery has too; a text
    among the tenth whose nearest other texts are closest; other. Panels without text can be asked in
    neither direction: they are listed with NaN ranks, because a reader looks for them here.

    Args:
        embedded: embeddings of all usable panels.
        ranks_i2t: (V,) rank of each panel's text for its image, by panel row; NaN outside the gallery.
        ranks_t2i: (V,) the other direction.
        rows: (n,) panel rows to judge, such as those of a split; their texts are what a text is compared with.
        k: a rank of at most k is a success.

    Returns:
        Columns panel, works (`I2T`, `T2I` or `NEITHER`: the direction that finds it), rank_i2t, rank_t2i, reason,
        same_text (other panels with that text), nearest_texts (mean cosine to the nearest other texts).
    """
    wanted = torch.isin(embedded.rows, torch.from_numpy(np.asarray(rows, np.int64)))
    part = take(embedded, gallery_sample(wanted.nonzero()[:, 0], embedded))
    same, near = text_crowding(part)
    panel = part.rows.numpy()
    i2t, t2i = ranks_i2t[panel], ranks_t2i[panel]
    only_i2t, only_t2i = (i2t <= k) & (t2i > k), (t2i <= k) & (i2t > k)  # NaN is neither
    missed = (i2t > k) & (t2i > k)
    textless = part.text_ids.numpy() < 0
    reason = np.full(len(panel), "other", dtype=object)
    reason[near >= crowded(near, part.text_ids.numpy())] = "generic"
    reason[same > 0] = "same text"
    reason[textless] = "no text"
    frame = pd.DataFrame(
        {
            "panel": panel,
            "works": np.select([only_i2t, only_t2i], [I2T, T2I], NEITHER),
            "rank_i2t": i2t,
            "rank_t2i": t2i,
            "reason": reason,
            "same_text": same,
            "nearest_texts": near,
        }
    )
    worst = np.fmax(i2t, t2i)
    order = np.lexsort((panel, -np.nan_to_num(worst)))
    listed = only_i2t | only_t2i | missed | textless
    found: pd.DataFrame = frame.iloc[order[listed[order]]].reset_index(drop=True)
    return found


def crowded(near: np.ndarray[Any, Any], text_ids: np.ndarray[Any, Any]) -> float:
    """The crowding from which a text is called generic: the `GENERIC` quantile over distinct texts; inf without any."""
    _, first = np.unique(text_ids, return_index=True)
    values = near[first][~np.isnan(near[first])]
    return float(np.quantile(values, GENERIC)) if len(values) else float("inf")


def text_crowding(embedded: Embedded) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """How alone each text is: (V,) panels that share it, and (V,) mean cosine to the nearest different texts (or NaN).

    Different texts with equal embeddings count as different; equal texts count once.
    """
    ids = embedded.text_ids.numpy()
    same = np.zeros(len(ids), np.int64)
    near = np.full(len(ids), np.nan)
    has = ids >= 0
    _, first, inverse, count = np.unique(ids[has], return_index=True, return_inverse=True, return_counts=True)
    same[has] = count[inverse] - 1
    vectors = F.normalize(embedded.text[torch.from_numpy(np.flatnonzero(has)[first])], dim=1)
    if len(vectors) > 1:
        hits = Index(vectors).search(vectors, NEAREST, exclude=np.arange(len(vectors)))
        near[has] = np.nanmean(hits.scores, axis=1)[inverse]
    return same, near
