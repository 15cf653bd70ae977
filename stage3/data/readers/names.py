"""The names of pages and files, for millions of them at once; `resolution` finds one by the other.

Names are compared through 64-bit hashes held in sorted arrays (Python's own keyed hash of strings, which no input can
aim at), so an index costs eight bytes per name and key instead of a dict of strings.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stage3.data.table import DataReport

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff")
NORMAL_ENDINGS = (".jpg.png", ".png", ".jpg", ".jpeg")
MAX_PARTS = 8  # path components that suffix matching looks at


def chunks(column: pa.Array, size: int = 65536) -> Iterator[list[str]]:
    """A string column as lists of at most `size` strings."""
    for start in range(0, len(column), size):
        yield column.slice(start, size).to_pylist()


def exact_key(name: str) -> str:
    """The name with forward slashes, in Unicode form NFC (file systems differ in both)."""
    name = name.replace("\\", "/")
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def stem_key(key: str) -> str:
    """The exact key without image extensions at its end (`x.jpg.png` gives `x`)."""
    while True:
        dot = key.rfind(".")
        if dot <= 0 or len(key) - dot > 5 or key[dot:].lower() not in EXTENSIONS:
            return key
        key = key[:dot]


def normal_key(key: str) -> str:
    """Lower case, one image ending removed, separators as underscores."""
    key = key.lower()
    for ending in NORMAL_ENDINGS:
        if key.endswith(ending) and len(key) > len(ending):
            key = key[: -len(ending)]
            break
    return key.replace("/", "_")


def suffix_key(key: str, parts: int) -> str | None:
    """The last `parts` components of the stem, None when there are fewer."""
    pieces = stem_key(key).rsplit("/", parts)
    return "/".join(pieces[-parts:]) if len(pieces) >= parts else None


Key = Callable[[str], str | None]


class NameIndex:
    """Names and their sorted hashes under one way of comparing at a time."""

    def __init__(self, names: pa.Array) -> None:
        self.names = names
        self.depth = min(MAX_PARTS, 1 + max(pc.max(pc.count_substring(names, "/")).as_py() or 0, 0))

    def sorted_by(self, key: Key, free: np.ndarray) -> SortedNames:
        """The names at rows `free`, by the hash of their key."""
        whole = len(free) == len(self.names)
        hashes, rows = hashes_of(self.names if whole else self.names.take(pa.array(free)), key)
        order = np.argsort(hashes, kind="stable")
        return SortedNames(hashes[order], free[rows[order]])


@dataclass(frozen=True)
class SortedNames:
    """Hashes in rising order and the row of the name behind each."""

    hashes: np.ndarray
    rows: np.ndarray

    def find(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(first row, number of rows) of the names behind each query; row is -1 where there is none."""
        left = np.searchsorted(self.hashes, queries, "left")
        count = np.searchsorted(self.hashes, queries, "right") - left
        found = np.full(len(queries), -1, np.int64)
        found[count > 0] = self.rows[left[count > 0]]
        return found, count

    def behind(self, query: int, most: int = 3) -> list[int]:
        """The first few rows behind an ambiguous query."""
        left, right = (int(np.searchsorted(self.hashes, query, side)) for side in ("left", "right"))
        return [int(r) for r in self.rows[left : min(right, left + most)]]


def hashes_of(names: pa.Array, key: Key) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the keys of those names that have one, and their rows."""
    hashes: list[np.ndarray] = []
    rows: list[np.ndarray] = []
    start = 0
    for part in chunks(names):
        keys = [key(exact_key(name)) for name in part]
        have = np.fromiter((k is not None for k in keys), bool, len(keys))
        hashes.append(np.fromiter((hash(k) for k in keys if k is not None), np.int64, int(have.sum())))
        rows.append(np.flatnonzero(have) + start)
        start += len(part)
    empty = np.zeros(0, np.int64)
    return np.concatenate([empty, *hashes]), np.concatenate([empty, *rows])


@dataclass(frozen=True)
class Listing:
    """The JSON files below a folder: names relative to it without ".json", and a digest of paths, sizes and times."""

    root: Path
    names: pa.Array
    digest: str


def scan(root: Path, report: DataReport | None = None) -> Listing:
    """One pass over a folder of panel files.

    Only regular files count. Links that lead out of the folder are not followed, so an id can never reach a file
    outside it.
    """
    names: list[pa.Array] = []
    batch: list[str] = []
    total, count = 0, 0
    real_root = os.path.realpath(root)
    for relative, entry in _walk(str(root), real_root, report):
        stat = entry.stat()
        line = f"{relative}\0{stat.st_size}\0{stat.st_mtime_ns}".encode("utf-8", "surrogatepass")
        # a sum does not depend on the order in which the file system lists names
        total = (total + int.from_bytes(hashlib.blake2b(line, digest_size=16).digest(), "little")) % 2**128
        count += 1
        batch.append(relative[: -len(".json")])
        if len(batch) == 65536:
            names.append(_strings(batch))
            batch = []
    names.append(_strings(batch))
    return Listing(root, pa.concat_arrays(names), f"{count}-{total:032x}")


def _strings(names: list[str]) -> pa.Array:
    return pa.array(names, pa.large_string())


def _walk(folder: str, root: str, report: DataReport | None) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """(path relative to the folder, entry) of every usable JSON file."""
    stack = [("", folder)]
    visited = {root}
    while stack:
        prefix, current = stack.pop()
        with os.scandir(current) as entries:
            for entry in entries:
                name = prefix + entry.name
                problem = _unusable(entry, name, root)
                if problem:
                    if report is not None:
                        report.note(problem, name.encode("utf-8", "replace").decode())
                elif entry.is_dir():
                    real = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
                    if real not in visited:  # a link to a folder above would never end
                        visited.update({real} if entry.is_symlink() else ())
                        stack.append((f"{name}/", entry.path))
                elif name.lower().endswith(".json"):
                    yield name, entry


def _unusable(entry: os.DirEntry[str], name: str, root: str) -> str:
    """Why an entry is not looked at, "" when it is."""
    if entry.name.startswith("._") or entry.name == "__MACOSX":
        return "junk_file"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "file_name_not_utf8"
    if entry.is_symlink() and not f"{os.path.realpath(entry.path)}{os.sep}".startswith(root.rstrip(os.sep) + os.sep):
        return "link_leaves_folder"
    if entry.name.lower().endswith(".json") and not entry.is_file() and not entry.is_dir():
        return "not_a_file"
    return ""
