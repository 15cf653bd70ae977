"""Maps that stay put: which map a new one starts from, and how it is turned onto it.

A new map of panels that were mapped before (another checkpoint, another run on the same comics) starts from their old
positions and is turned onto them as a whole, so that a person finds everything where it was. N panels.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stage3.errors import DataError, StorageError
from stage3.metrics.neighbors import TRUST_K, trust
from stage3.projection import files, layouts

if TYPE_CHECKING:
    import pandas as pd

    from stage3.metrics.nearest import Array
    from stage3.runs import RunFolder

LEAST_SHARED = 0.5  # share of the new map's panels that an older map must hold
LOOKED_AT = 200  # maps whose heads are read at most
GENTLE_PASSES, GENTLE_RATE = 120, 0.2  # of a layout that starts from a good one
FITS = 0.98  # old positions that keep this part of the neighbors that they kept before need not move
NEAR = 0.6  # those that keep this part need only move gently


@dataclass(frozen=True)
class Reference:
    """An older map of the same panels.

    Attributes:
        path: its file.
        about: what it was made of.
        frame: its columns.
    """

    path: Path
    about: dict[str, Any]
    frame: pd.DataFrame

    def positions(self, rows: Array, columns: tuple[str, str]) -> Array:
        """(N, 2) positions of panel rows, NaN for panels that it does not hold."""
        found = self.frame.set_index("row").reindex(rows)[list(columns)]
        result: Array = found.to_numpy(np.float64)
        return result


def reference_of(run: RunFolder, table: str, panels: int, roots: Sequence[Path] = ()) -> Reference | None:
    """The map that others of these panels are aligned with: the oldest of the run itself, else of the runs beside it.

    Args:
        run: the run.
        table: fingerprint of its panel table; rows of a map of another table name other panels.
        panels: of the new map; an older one must hold half as many at least.
        roots: more folders of runs to look in, after the one that the run is in.
    """
    around = [folder for folder in (run.path.parent, *roots) if folder.is_dir()]
    folders = [run.path, *dict.fromkeys(p for folder in around for p in sorted(folder.iterdir()) if p != run.path)]
    looked = 0
    for folder in folders:
        paths = [p for p in (folder / "projections").glob("*.parquet") if not p.name.startswith("drift-")]
        found = []
        for path in paths[: LOOKED_AT - looked]:
            looked += 1
            about = _head(path)
            if about is not None and about.get("table") == table:
                found.append((about.get("aligned_to") is not None, path.stat().st_mtime_ns, path))
        for _, _, path in sorted(found):
            try:
                frame = files.load(path, ("row", "umap_dim1", "umap_dim2", "pca_1", "pca_2", "trust"))
            except (DataError, StorageError):
                continue  # a damaged map is made again when its own run is looked at
            if len(frame) >= LEAST_SHARED * panels:
                return Reference(path, frame.attrs["about"], frame)
    return None


def _head(path: Path) -> dict[str, Any] | None:
    """What a map says it was made of, without its columns; None where it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        about = json.loads((pq.read_schema(path).metadata or {}).get(b"stage3", b"null"))
    except (OSError, pa.ArrowInvalid, ValueError):
        return None
    return about if isinstance(about, dict) else None


def filled(old: Array, near: Array, cosine: Array) -> Array:
    """(N, 2) starting positions: the old ones, and for new panels the mean of their nearest with one, else of all.

    Args:
        old: (N, 2), NaN for panels without one.
        near: (N, K) neighbors of each panel, nearest first.
        cosine: (N, K) their cosines, the weights.
    """
    known = np.asarray(~np.isnan(old).any(axis=1))
    start = np.where(known[:, None], old, old[known].mean(axis=0))
    for i in np.flatnonzero(~known):
        there = near[i][known[near[i]]][:5]
        if len(there):
            start[i] = np.average(old[there], axis=0, weights=np.maximum(cosine[i][known[near[i]]][:5], 1e-6))
    return start


def settled(
    x: Array, near: Array, cosine: Array, old: Array, kept_before: float, parameters: files.Parameters
) -> tuple[Array, str]:
    """A layout that starts from old positions, and how far it had to leave them.

    Args:
        x: (N, D) embeddings.
        near: (N, K) their neighbors.
        cosine: (N, K) the cosines.
        old: (N, 2) positions on the older map, NaN for panels that it does not hold.
        kept_before: share of neighbors that the older map keeps of its own embeddings.
        parameters: of the layout.

    Returns:
        (N, 2) positions aligned with the old ones, and "kept" (they serve the new embeddings as they are), "moved"
        (a gentle layout from them) or "new" (a full layout from them).
    """
    start = filled(old, near, cosine)
    known = np.asarray(~np.isnan(old).any(axis=1))
    kept = float(np.nanmean(trust(x, start, TRUST_K, near=near)))
    if known.all() and kept >= FITS * kept_before:
        return start.astype(np.float32), "kept"
    gentle = kept >= NEAR * kept_before
    layout = layouts.umap_layout(
        x,
        (near, cosine),
        parameters.seed,
        start,
        n_neighbors=parameters.neighbors,
        min_dist=parameters.min_dist,
        epochs=GENTLE_PASSES if gentle else None,
        rate=GENTLE_RATE if gentle else 1.0,
    )
    return layouts.aligned(layout, old, known), "moved" if gentle else "new"


def moved_share(xy: Array, old: Array) -> float:
    """The median distance of panels from their old positions, in parts of the old map's width."""
    known = np.asarray(~np.isnan(old).any(axis=1))
    width = float(np.ptp(old[known, 0])) or 1.0
    return float(np.median(np.hypot(*(np.asarray(xy, np.float64)[known] - old[known]).T)) / width)
