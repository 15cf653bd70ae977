"""Vectors by content key, in sealed files that many processes may write and any may read.

A store is a folder of segments. A segment is one safetensors file with `keys` (n, 16) uint8, `flags` (n,) uint8 and
`vectors` (n, D), plus a digest of the three. It is written beside its place, flushed to the disk and renamed, so a
segment that can be seen is complete; its digest is checked when it is opened. What a killed process had not yet
sealed is computed again. No process ever changes a segment, so two may fill one store at once: both are read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from stage3.errors import StorageError
from stage3.storage import TMP, make_folder, replace_file

KEY_BYTES = 16
SUFFIX = ".safetensors"
SEAL_SECONDS = 20.0  # a killed build loses at most about this much work
SEAL_BYTES = 64 * 2**20
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
    """One sealed file: its vectors memory-mapped, its flags (1: the end of a text was cut) in memory."""

    path: Path
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


def read_segment(path: Path, dim: int, dtype: str) -> tuple[Segment, Array]:
    """Open a sealed segment and check every byte of it; returns it and its keys.

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
    keys = np.array(arrays["keys"]).view(f"S{KEY_BYTES}").ravel()
    return Segment(path, np.array(arrays["flags"]), arrays["vectors"]), keys


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
    """All segments of one backbone, and the buffer of the next one.

    Args:
        folder: where this process seals its segments.
        dim: D.
        dtype: `float16` or `float32`.
        shipped: a read-only folder of segments that is looked up first.
    """

    def __init__(self, folder: Path, dim: int, dtype: str, shipped: Path | None = None) -> None:
        self.folder, self.dim, self.dtype = folder, dim, dtype
        self.damaged: list[str] = []  # "path: what is wrong", for the report
        self._segments: list[Segment] = []
        self._starts = np.zeros(1, dtype=np.int64)
        self._index = KeyIndex()
        self._buffer: list[tuple[Array, Array, Array]] = []
        self._buffered_bytes, self._buffered_since = 0, 0.0
        self._sealed = 0
        own = sorted(folder.glob(f"*{SUFFIX}"), key=_priority) if folder.is_dir() else []
        self._generation = max((_generation(p) for p in own), default=0)
        for path in [*(sorted(shipped.glob(f"*{SUFFIX}")) if shipped else []), *own]:
            self._open(path, ours=path.parent == folder)
        self._remove_stale()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _open(self, path: Path, ours: bool) -> None:
        try:
            self._append(*read_segment(path, self.dim, self.dtype))
            return
        except FileNotFoundError:
            return  # another process replaced it between listing and opening
        except (ValueError, RecursionError) as error:
            self.damaged.append(f"{path}: {error}")
        except OSError as error:
            raise StorageError(f"{path}: stored features cannot be read: {error.strerror or error}") from error
        if ours:  # set aside, so that it is named once and its vectors are computed again
            with contextlib.suppress(OSError):  # another process holds it (Windows), or has set it aside already
                path.replace(path.with_suffix(".damaged"))

    def _append(self, segment: Segment, keys: Array) -> None:
        start = len(self)
        self._segments.append(segment)
        self._starts = np.append(self._starts, start + len(segment))
        self._index.add(keys, np.arange(start, start + len(segment), dtype=np.int64))

    def _remove_stale(self) -> None:
        for path in self.folder.glob(f"{TMP}*") if self.folder.is_dir() else ():
            try:
                if time.time() - path.stat().st_mtime > STALE_SECONDS:
                    path.unlink()
            except OSError:  # its writer has just renamed it, or holds it open
                continue

    def find(self, keys: Array) -> Array:
        """(n,) int64 row of each key, -1 where nothing is sealed for it."""
        return self._index.find(keys)

    def add(self, keys: Array, flags: Array, vectors: Array) -> None:
        """Keep vectors for the next segment; it is sealed when it is large or some seconds old."""
        if not len(keys):
            return
        now = time.monotonic()
        self._buffered_since = self._buffered_since if self._buffer else now
        self._buffer.append((keys, flags, vectors.astype(self.dtype)))
        self._buffered_bytes += self._buffer[-1][2].nbytes
        if self._buffered_bytes >= SEAL_BYTES or now - self._buffered_since >= SEAL_SECONDS:
            self.seal()

    def seal(self) -> None:
        """Make everything added so far durable and findable."""
        if not self._buffer:
            return
        keys, flags, vectors = (np.concatenate(column) for column in zip(*self._buffer, strict=True))
        name = f"{self._generation:04d}-{time.time_ns():020d}-{os.getpid()}-{self._sealed:05d}{SUFFIX}"
        write_segment(self.folder / name, keys, flags, vectors)
        self._buffer, self._buffered_bytes = [], 0
        self._sealed += 1
        self._append(*read_segment(self.folder / name, self.dim, self.dtype))

    def forget(self) -> list[Path]:
        """Look nothing up any more and seal a new generation; returns the segments that it will replace."""
        old = [s.path for s in self._segments if s.path.parent == self.folder]
        self._segments, self._starts, self._index = [], np.zeros(1, dtype=np.int64), KeyIndex()
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


def _generation(path: Path) -> int:
    head = path.name.split("-")[0]
    return int(head) if head.isdigit() else 0


def _priority(path: Path) -> tuple[int, str]:
    return -_generation(path), path.name
