"""Vectors by content key, in sealed files that many processes may write and any may read.

A store is a folder of segments. A segment is one safetensors file with `keys` (n, 16) uint8, `flags` (n,) uint8 and
`vectors` (n, D), plus a digest of the three. It is written beside its place, flushed to the disk and renamed, so a
segment that can be seen is complete; its digest is checked when it is opened. What a killed process had not yet
sealed is computed again. No process ever changes a segment, so several may fill one store at once: all are read.

A build is what one table asks of one store. It is split into numbered shards, each of which ends as one segment with
rows in the order of keys, named by build, shard and content. What a shard computes follows from the table and from
what the store held before the build, never from other shards: so all orders, and any number of processes, leave the
same files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from stage3.errors import StorageError
from stage3.storage import TMP, make_folder, replace_file

KEY_BYTES = 16
SUFFIX = ".safetensors"
SEAL_SECONDS = 20.0  # a killed build loses at most about this much work
STALE_SECONDS = 600.0  # an unsealed file this old belongs to a process that died

Array = np.ndarray[Any, Any]


def key_of(*parts: bytes) -> bytes:
    """16 bytes that stand for these parts."""
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


def as_keys(keys: Sequence[bytes]) -> Array:
    """(n,) array of 16-byte keys that sorts and searches bytewise."""
    return np.frombuffer(b"".join(keys), dtype=np.uint8).view(f"S{KEY_BYTES}")


class KeyIndex:
    """Key to row, as a few sorted arrays that merge as they grow; the first row of a key wins."""

    def __init__(self) -> None:
        self._levels: list[tuple[Array, Array]] = []

    def add(self, keys: Array, rows: Array) -> None:
        """Learn new keys; keys that are already known keep their row."""
        if not len(keys):
            return
        order = np.argsort(keys, kind="stable")
        self._levels.append((keys[order], rows[order]))
        while len(self._levels) > 1 and len(self._levels[-2][0]) <= 2 * len(self._levels[-1][0]):
            (newer_keys, newer_rows), (older_keys, older_rows) = self._levels.pop(), self._levels.pop()
            keys = np.concatenate([older_keys, newer_keys])
            order = np.argsort(keys, kind="stable")  # stable: the older of two equal keys stays first
            self._levels.append((keys[order], np.concatenate([older_rows, newer_rows])[order]))

    def find(self, keys: Array) -> Array:
        """(n,) int64 row of each key, -1 where it is unknown."""
        rows = np.full(len(keys), -1, dtype=np.int64)
        for known, known_rows in self._levels:
            open_ = np.flatnonzero(rows < 0)
            at = np.minimum(np.searchsorted(known, keys[open_]), len(known) - 1)
            hit = known[at] == keys[open_]
            rows[open_[hit]] = known_rows[at[hit]]
        return rows


@dataclass(frozen=True)
class Segment:
    """One sealed file: keys and vectors memory-mapped, its flags (1: the end of a text was cut) in memory."""

    path: Path
    keys: Array
    flags: Array
    vectors: Array

    def __len__(self) -> int:
        return len(self.flags)


def write_segment(path: Path, keys: Array, flags: Array, vectors: Array) -> None:
    """Seal a segment: write beside, flush, rename.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    tensors = {
        "keys": np.ascontiguousarray(keys).view(np.uint8).reshape(-1, KEY_BYTES),
        "flags": np.ascontiguousarray(flags, dtype=np.uint8),
        "vectors": np.ascontiguousarray(vectors),
    }
    data = save(tensors, metadata={"digest": _digest(**tensors)})
    try:
        make_folder(path.parent)
        replace_file(path, data)
    except StorageError as error:
        raise StorageError(f"features cannot be stored (cache_dir may name another folder): {error}") from error


def read_segment(path: Path, dim: int, dtype: str) -> Segment:
    """Open a sealed segment and check every byte of it.

    Raises:
        ValueError: it is torn, changed, or holds other vectors than expected; the message says which.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, 65536):
            raise ValueError("torn: its header does not fit the file")
        header = json.loads(file.read(length))
    if not isinstance(header, dict) or {"keys", "flags", "vectors", "__metadata__"} - header.keys():
        raise ValueError("its header lacks an entry")
    arrays = {name: _view(path, header[name], 8 + length, size) for name in ("keys", "flags", "vectors")}
    count = len(arrays["keys"])
    expected = {"keys": (count, KEY_BYTES), "flags": (count,), "vectors": (count, dim)}
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name} has shape {arrays[name].shape}, expected {shape}")
    if arrays["vectors"].dtype != np.dtype(dtype):
        raise ValueError(f"vectors are {arrays['vectors'].dtype}, expected {dtype}")
    if _digest(**arrays) != header["__metadata__"].get("digest"):
        raise ValueError("its content does not match its digest")
    keys = arrays["keys"].view(f"S{KEY_BYTES}").reshape(-1)
    return Segment(path, keys, np.array(arrays["flags"]), arrays["vectors"])


def _view(path: Path, entry: Any, start: int, size: int) -> Array:
    dtypes = {"U8": np.uint8, "F16": np.float16, "F32": np.float32}
    try:
        dtype = np.dtype(dtypes[entry["dtype"]])
        shape = tuple(int(n) for n in entry["shape"])
        first, last = (int(n) for n in entry["data_offsets"])
    except (KeyError, TypeError, ValueError):
        raise ValueError("its header is malformed") from None
    if min(shape, default=-1) < 0 or last - first != int(np.prod(shape, dtype=object)) * dtype.itemsize:
        raise ValueError("its header contradicts itself")
    if first < 0 or start + last > size:
        raise ValueError(f"torn: {size} bytes, at least {start + last} expected")
    if not int(np.prod(shape, dtype=object)):
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=start + first, shape=shape)


def _digest(keys: Array, flags: Array, vectors: Array) -> str:
    digest = hashlib.blake2b(digest_size=32)
    for array in (keys, flags, vectors):
        digest.update(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data)
    return digest.hexdigest()


class VectorStore:
    """All segments of one backbone, and the shards of one build.

    Args:
        folder: where this process seals its segments.
        dim: D.
        dtype: `float16` or `float32`.
        shipped: a read-only folder of segments that is looked up first.
        build: name of the build; its own segments are found by `ShardWriter`, and by `find` once it is settled.
        repair: set damaged segments aside, so that they are named once and their vectors are computed again.

    Attributes:
        damaged: "path: what is wrong" of each damaged segment that was met.
    """

    def __init__(
        self, folder: Path, dim: int, dtype: str, shipped: Path | None = None, *, build: str = "x", repair: bool = True
    ) -> None:
        self.folder, self.dim, self.dtype, self.repair = folder, dim, dtype, repair
        self.damaged: list[str] = []
        self._segments: list[Segment] = []
        self._starts = np.zeros(1, dtype=np.int64)
        self._index = KeyIndex()
        self._build = build
        there = self._listed()
        self._generation = max((_generation(p) for p in there), default=0)
        own = [p for p in there if p.name.startswith(self._prefix)]
        self._own = {shard: list(paths) for shard, paths in groupby(own, key=self._shard)}
        for path in [*(sorted(shipped.glob(f"*{SUFFIX}")) if shipped else []), *there]:
            if path.parent != folder or not path.name.startswith(self._prefix):
                segment = self.read(path)
                if segment is not None:
                    self._append(segment)
        self._remove_stale()

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def _prefix(self) -> str:
        return f"{self._generation:04d}-{self._build}-"

    def _listed(self) -> list[Path]:
        return sorted(self.folder.glob(f"*{SUFFIX}"), key=_priority) if self.folder.is_dir() else []

    def _shard(self, path: Path) -> int:
        return int(path.name.removeprefix(self._prefix).split("-")[0])

    def name_of(self, shard: int, keys: Array) -> Path:
        """The segment of a shard of this build that holds these keys, which are sorted."""
        digest = hashlib.blake2b(np.ascontiguousarray(keys).view(np.uint8).data, digest_size=4).hexdigest()
        return self.folder / f"{self._prefix}{shard:06d}-{digest}{SUFFIX}"

    def parts(self, shard: int) -> list[Path]:
        """The segments of a shard of this build, as they were when the store was opened."""
        return self._own.get(shard, [])

    def read(self, path: Path) -> Segment | None:
        """A segment of this store, None where it is damaged (which is noted) or gone.

        Raises:
            StorageError: the disk fails.
        """
        try:
            return read_segment(path, self.dim, self.dtype)
        except FileNotFoundError:
            return None  # another process replaced it between listing and opening
        except (ValueError, RecursionError) as error:
            self.damaged.append(f"{path}: {error}")
        except OSError as error:
            raise StorageError(f"{path}: stored features cannot be read: {error.strerror or error}") from error
        if self.repair and path.parent == self.folder:
            with contextlib.suppress(OSError):  # another process holds it (Windows), or has set it aside already
                path.replace(path.with_suffix(".damaged"))
        return None

    def _append(self, segment: Segment) -> None:
        start = len(self)
        self._segments.append(segment)
        self._starts = np.append(self._starts, start + len(segment))
        self._index.add(np.array(segment.keys), np.arange(start, start + len(segment), dtype=np.int64))

    def _remove_stale(self) -> None:
        for path in self.folder.glob(f"{TMP}*") if self.folder.is_dir() else ():
            try:
                if time.time() - path.stat().st_mtime > STALE_SECONDS:
                    path.unlink()
            except OSError:  # its writer has just renamed it, or holds it open
                continue

    def find(self, keys: Array) -> Array:
        """(n,) int64 row of each key, -1 where the store does not hold it; see `settle` for those of this build."""
        return self._index.find(keys)

    def settle(self) -> None:
        """Let `find` find what this build has sealed, by this process or another."""
        for path in self._listed():
            if path.name.startswith(self._prefix):
                segment = self.read(path)
                if segment is not None:
                    self._append(segment)

    def forget(self) -> list[Path]:
        """Look nothing up any more and seal a new generation; returns the segments that it will replace."""
        old = self._listed()
        self._segments, self._starts, self._index = [], np.zeros(1, dtype=np.int64), KeyIndex()
        self._own = {}
        self._generation += 1
        return old

    def close_index(self) -> None:
        """Free the keys once every row is known; `find` answers -1 from here on."""
        self._index = KeyIndex()

    def flags(self, rows: Array) -> Array:
        """(n,) uint8 flags of rows that `find` gave."""
        out = np.zeros(len(rows), dtype=np.uint8)
        for segment, where, local in self._by_segment(rows):
            out[where] = segment.flags[local]
        return out

    def vectors(self, rows: Array) -> Array:
        """(n, D) float32 vectors of rows that `find` gave."""
        out = np.empty((len(rows), self.dim), dtype=np.float32)
        for segment, where, local in self._by_segment(rows):
            out[where] = segment.vectors[local]
        return out

    def _by_segment(self, rows: Array) -> list[tuple[Segment, Array, Array]]:
        number = np.searchsorted(self._starts, rows, side="right") - 1
        groups = []
        for i in np.unique(number):
            where = np.flatnonzero(number == i)
            groups.append((self._segments[i], where, rows[where] - self._starts[i]))
        return groups


class ShardWriter:
    """The vectors of one shard of a build: in parts on the disk while it grows, as one segment once it is complete.

    Args:
        store: where they are kept.
        shard: its number.
    """

    def __init__(self, store: VectorStore, shard: int) -> None:
        self.store, self.shard = store, shard
        self._before = [segment for path in store.parts(shard) if (segment := store.read(path)) is not None]
        self._index = KeyIndex()
        for segment in self._before:
            self._index.add(np.array(segment.keys), np.zeros(len(segment), np.int64))
        self._added: list[tuple[Array, Array, Array]] = []
        self._parts: list[Path] = []
        self._sealed, self._unsealed_since = 0, 0.0  # how many of `_added` are in a part

    def holds(self, keys: Array) -> Array:
        """(n,) bool: which keys an earlier attempt at this shard left."""
        held: Array = self._index.find(keys) >= 0
        return held

    def add(self, keys: Array, flags: Array, vectors: Array) -> None:
        """Keep vectors; they are sealed in a part when they are some seconds old."""
        now = time.monotonic()
        self._unsealed_since = now if self._sealed == len(self._added) else self._unsealed_since
        self._added.append((keys, flags, vectors.astype(self.store.dtype)))
        if now - self._unsealed_since >= SEAL_SECONDS:
            self.seal()

    def seal(self) -> None:
        """Make everything added so far durable."""
        if self._sealed < len(self._added):
            self._parts.append(self._write(self._added[self._sealed :]))
            self._sealed = len(self._added)

    def close(self) -> None:
        """Seal the whole shard as one segment, in place of its parts."""
        if not self._added and len(self._before) < 2:
            return
        try:
            whole = self._write([*((s.keys, s.flags, s.vectors) for s in self._before), *self._added])
        except StorageError:
            if self._added:
                raise
            return  # a store that is only read: its parts say the same
        for part in {*self._parts, *(s.path for s in self._before)} - {whole}:
            with contextlib.suppress(OSError):  # another process has it open (Windows), or has removed it
                part.unlink()
        self._before, self._added, self._parts = [], [], []

    def _write(self, pieces: Sequence[tuple[Array, Array, Array]]) -> Path:
        keys, flags, vectors = (np.concatenate(column) for column in zip(*pieces, strict=True))
        keys, first = np.unique(keys, return_index=True)
        path = self.store.name_of(self.shard, keys)
        if not path.exists():  # else another process has computed the same
            write_segment(path, keys, flags[first], vectors[first])
        return path


def _generation(path: Path) -> int:
    head = path.name.split("-")[0]
    return int(head) if head.isdigit() else 0


def _priority(path: Path) -> tuple[int, str]:
    return -_generation(path), path.name
