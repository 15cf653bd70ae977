"""Finding a page's file by its canonical id, for millions of names at once.

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
UNRESOLVED, AMBIGUOUS, EXACT, EXTENSION, SUFFIX, NORMALISED = range(6)
RESOLVED_BY = ("unresolved", "ambiguous", "exact", "extension", "suffix", "normalised")  # as kept tables have it


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
        hashes, rows = _hashes(self.names if whole else self.names.take(pa.array(free)), key)
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


def _hashes(names: pa.Array, key: Key) -> tuple[np.ndarray, np.ndarray]:
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
class Resolution:
    """Which name each query got: (N,) row or -1, and (N,) how, an index into `RESOLVED_BY`."""

    row: np.ndarray
    how: np.ndarray


def resolve(queries: pa.Array, index: NameIndex, report: DataReport, what: str) -> Resolution:
    """Find each query among the names, by the first way that gives exactly one.

    Exact; without image extensions; the longest path suffix of two or more components (a bare leaf only when no
    other name and no other query has it); the normalized key. A name that one way has given away is out of reach of the
    next, so a page without a file never takes its neighbor's; a name that two queries claim at once goes to neither.
    """
    state = Resolution(np.full(len(queries), -1, np.int64), np.full(len(queries), UNRESOLVED, np.int8))
    clues: dict[int, list[int]] = {}  # of ambiguous queries: some rows that they could mean
    ways: list[tuple[Key, int]] = [(lambda key: key, EXACT), (stem_key, EXTENSION)]
    ways += [(_suffix(parts), SUFFIX) for parts in range(index.depth, 1, -1)]
    for key, code in ways:
        _step(state, queries, index, key, code, clues)
    if (state.how < EXACT).any():
        hashes, _ = _hashes(queries, _suffix(1))
        values, counts = np.unique(hashes, return_counts=True)
        _step(state, queries, index, _suffix(1), SUFFIX, clues, only=values[counts == 1])
    _step(state, queries, index, normal_key, NORMALISED, clues, also_ambiguous=True)
    for row in np.flatnonzero(state.how == AMBIGUOUS)[: DataReport.MAX_EXAMPLES]:
        could = ", ".join(index.names[r].as_py() for r in clues.get(int(row), []))
        report.note(f"{what}_ambiguous", f"{queries[int(row)]} could be {could}", 0)
    if ambiguous := int((state.how == AMBIGUOUS).sum()):
        report.counts[f"{what}_ambiguous"] += ambiguous
    return state


def _suffix(parts: int) -> Key:
    return lambda key: suffix_key(key, parts)


def _step(
    state: Resolution,
    queries: pa.Array,
    index: NameIndex,
    key: Key,
    code: int,
    clues: dict[int, list[int]],
    *,
    only: np.ndarray | None = None,
    also_ambiguous: bool = False,
) -> None:
    """Try one way of comparing on the queries that are still open and the names that nobody has."""
    todo = np.flatnonzero(state.how < EXACT if also_ambiguous else state.how == UNRESOLVED)
    taken = np.zeros(len(index.names), bool)
    taken[state.row[state.row >= 0]] = True
    free = np.flatnonzero(~taken)
    if not len(todo) or not len(free):
        return
    hashes, have = _hashes(queries if len(todo) == len(queries) else queries.take(pa.array(todo)), key)
    if only is not None:
        wanted = np.isin(hashes, only)
        hashes, have = hashes[wanted], have[wanted]
    names = index.sorted_by(key, free)
    rows, counts = names.find(hashes)
    uses = np.bincount(rows[counts == 1], minlength=len(index.names))
    one = counts == 1
    one[one] = uses[rows[one]] == 1
    at = todo[have]
    state.row[at[one]] = rows[one]
    state.how[at[one]] = code
    if only is None:  # a leaf that several names have is no clue at all
        many = (counts > 0) & ~one
        state.how[at[many]] = AMBIGUOUS
        for query, value in zip(at[many][:1000].tolist(), hashes[many][:1000].tolist(), strict=True):
            clues.setdefault(query, names.behind(value))


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
