"""Positions of panels: PCA at once, UMAP from the run's folder, made there by a child process when it is missing.

The child is `python -m stage3.projection`; what it does is on the disk, so any tab of any session sees it, and a
restarted server too. This module only remembers which children it started, to start none twice.
"""

from __future__ import annotations

import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app.store import children, frames, loaders
from app.store.cache import Memory
from stage3.errors import StorageError
from stage3.projection import files, layouts, reference
from stage3.projection.files import Job
from stage3.runs import RunFolder

if TYPE_CHECKING:
    import pandas as pd

MOST_AT_ONCE = 2
PCA = ("pca_1", "pca_2")
SHOWN = ("row", "umap_dim1", "umap_dim2", "cluster_id", files.NAME, "trust", *PCA)  # of a map's columns
_kept: Memory[Any] = Memory(16)
_children: dict[Path, subprocess.Popen[bytes]] = {}
_guard = threading.Lock()


def pca_positions(run: RunFolder, step: int | None) -> np.ndarray:
    """(N, 2) principal components, one row for each of `loaders.embedded_rows(run, step)`.

    They are those of the stored map; while there is none, their axes lie as on the map that it will be aligned with.
    """
    stored = umap_map(run, step)
    if stored is not None:
        return stored[list(PCA)].to_numpy(np.float32)

    def make() -> np.ndarray:
        seen = loaders.frame(run, step)
        rows, flat = seen.rows, _components(run, step, len(seen.rows))
        onto = reference.reference_of(run, seen.table, len(rows), _roots())
        return flat if onto is None else layouts.oriented(flat, onto.positions(rows, PCA))

    return _kept.get(("pca", *loaders.checkpoint_key(run, step)), make)  # type: ignore[no-any-return]


def _components(run: RunFolder, step: int | None, n: int) -> np.ndarray:
    """(n, 2) principal components as they are computed, from the cache where they were before: they read all vectors.

    Of 100,000 pages that took 13 s. They are exact, not those of a sample: the map holds the same ones when it is made.
    """
    place = loaders.frame_place(run, step)
    if place is not None:
        with suppress(StorageError):
            return frames.read_positions(place, n)
    loaders.frame(run, step).give_back()  # as far as it was read: all vectors pass now
    flat = layouts.pca(loaders.panel_vectors(run, step))
    loaders.give_back()
    if place is not None:
        with suppress(StorageError):
            frames.keep_positions(place, flat)
    return flat


def umap_map(run: RunFolder, step: int | None) -> pd.DataFrame | None:
    """The stored map in the order of `loaders.embedded_rows(run, step)`, None while there is none that fits."""
    path = files.projection_path(run, loaders.resolve_step(run, step))
    if not path.is_file():
        return None

    def make() -> pd.DataFrame | None:
        try:
            frame = files.load(path, SHOWN)
        except StorageError:
            return None
        seen = loaders.frame(run, step)
        if frame.attrs["about"].get("table") != seen.table:
            return None  # the data set changed since; rows of the map name other panels now
        found = frame.set_index("row")
        if not np.array_equal(found.index.to_numpy(), seen.rows):
            found = found.reindex(seen.rows)
        found.attrs["key"] = key
        return None if found["umap_dim1"].isna().any() else found

    key = ("map", path, path.stat().st_mtime_ns, *loaders.checkpoint_key(run, step))
    return _kept.get(key, make)  # type: ignore[no-any-return]


def map_path(run: RunFolder, step: int | None) -> Path:
    """Where the map of a checkpoint is kept."""
    return files.projection_path(run, loaders.resolve_step(run, step))


def state(path: Path) -> Job:
    """How far a map is. A child that this server started and that has not written yet counts as running."""
    job = files.job_state(path)
    child = _children.get(path)
    if job.state in ("missing", "failed") and child is not None and child.poll() is None:
        return Job("running", "starting")
    if job.state == "missing" and child is not None and child.poll() not in (None, 0):
        return Job("failed", message="the process that computes the map died without an error message")
    return job


def ensure(run: RunFolder, step: int | None, *, drift: bool = False, again: bool = False) -> Job:
    """The state of a map, after starting a child for it where it is missing (or failed, and `again` is asked).

    A map of other data than the run's data set holds now, or one that cannot be read, is made again.
    """
    path = files.drift_path(run) if drift else map_path(run, step)
    stale = not drift and path.is_file() and umap_map(run, step) is None
    job = _made_again(path) if stale else state(path)
    if job.state in ("ready", "running") or (job.state == "failed" and not again):
        return job
    with _guard:
        alive = [p for p, c in _children.items() if c.poll() is None]
        if path in alive:
            return state(path)
        if len(alive) >= MOST_AT_ONCE:
            return Job("running", "waiting for another map")
        here = loaders.config_here(run.config)  # never what a foreign run names
        what = ["--cache_dir", here.cache_dir, "--max_megapixels", f"{here.max_megapixels:g}"]
        if drift:
            what += ["--drift"]
        else:
            what += ["--checkpoint", str(loaders.resolve_step(run, step))]
            what += [part for root in _roots() for part in ("--beside", str(root))]
        what += ["--again"] if stale else []
        _children[path] = _spawn(["--run", str(run.path.resolve()), *what])
    return Job("running", "starting")


def _roots() -> list[Path]:
    """Where older maps of the same comics may be: a run that was started here lies elsewhere than the one before it."""
    return [root.resolve() for root in loaders.roots().values() if root.is_dir()]


def _made_again(path: Path) -> Job:
    """How far the child is that makes a map again; the old file says nothing of it."""
    child = _children.get(path)
    if child is None:
        return Job("missing")
    if child.poll() is None:
        return Job("running", "the data set has changed")
    return Job("failed", message="the map does not fit the data set, and could not be made again")


def _spawn(arguments: list[str]) -> subprocess.Popen[bytes]:
    child = children.spawn("stage3.projection", ["--json", *arguments], nice=10)
    children.bound(child, children.MEMORY_BYTES)
    return child
