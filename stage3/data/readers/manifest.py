"""The page manifest: a CSV of canonical ids and image paths, up to millions of rows, kept as columns."""

from __future__ import annotations

import itertools
import ntpath
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stage3.data.readers.books import guessed_books
from stage3.data.readers.manifest_rows import COLUMNS, OPTIONAL, BadRows, manifest_rows
from stage3.data.readers.names import chunks, exact_key, normal_key
from stage3.data.remote import is_url
from stage3.data.table import DataReport
from stage3.errors import DataError

BATCH = 65536


@dataclass(frozen=True)
class Manifest:
    """Pages as listed, junk and repeated rows left out.

    Attributes:
        path: the CSV.
        ids: (N,) canonical ids.
        images: (N,) image paths as written.
        books: (N,) book of each page.
        sha256: (N,) what the image's bytes must hash to, in lower case; "" where the manifest does not say.
    """

    path: Path
    ids: pa.Array
    images: pa.Array
    books: pa.Array
    sha256: pa.Array

    def __len__(self) -> int:
        return len(self.ids)

    def head(self, n: int) -> Manifest:
        """The first n pages."""
        return Manifest(self.path, *(column.slice(0, n) for column in self.columns))

    @property
    def columns(self) -> tuple[pa.Array, pa.Array, pa.Array, pa.Array]:
        """Ids, images, books, hashes."""
        return self.ids, self.images, self.books, self.sha256


def read_manifest(path: Path, report: DataReport, *, skip_bad_rows: bool = False) -> Manifest:
    """Read and check the manifest.

    An empty line, also one of nothing but commas, is no row. An id that is empty or "." is not a page's and is left
    out. A bad row has too many or too few fields, a quote that is not closed, an id that would leave the panels folder
    (absolute, a drive, ".."), a sha256 that is not one, or contradicts a row before it. All bad rows are found at
    once; they refuse the file, or with `skip_bad_rows` are left out and counted.

    Raises:
        DataError: naming file and line: a wrong header or encoding, or bad rows.
    """
    columns: list[list[pa.Array]] = [[], [], [], []]
    lines: list[np.ndarray] = []
    bad = BadRows(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for *batch, at in _batches(manifest_rows(file, path, report, bad)):
                for column, values in zip(columns, batch, strict=True):
                    column.append(pa.array(values, pa.large_string()))
                lines.append(np.asarray(at, np.int32))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason}). Save the manifest as UTF-8 CSV.") from None
    if not lines:
        bad.settle(report, skip=skip_bad_rows)
        raise DataError(f"{path}: the manifest lists no page")
    made = Manifest(path, *(pa.concat_arrays(columns.pop(0)) for _ in COLUMNS + OPTIONAL))  # pieces freed on the way
    made = _without_repeats(made, np.concatenate(lines), report, bad)
    bad.settle(report, skip=skip_bad_rows)
    return _with_guessed_books(made, report)


def _batches(rows: Iterator[tuple[str, str, str, str, int]]) -> Iterator[list[list[Any]]]:
    """Rows as columns, `BATCH` at a time."""
    while batch := list(itertools.islice(rows, BATCH)):
        yield [list(column) for column in zip(*batch, strict=True)]


def _with_guessed_books(manifest: Manifest, report: DataReport) -> Manifest:
    """Give pages without a folder the book that their ids suggest, each counted as a guess.

    Flat ids such as `Book 1_Book 1 - p000.jpg` would otherwise all fall into one nameless book, and a split by book
    would be impossible.
    """
    flat = pc.equal(manifest.books, "")
    if not pc.any(flat).as_py():
        return manifest
    ids = manifest.ids.filter(flat).to_pylist()
    for page_id in ids[: DataReport.MAX_EXAMPLES]:
        report.note("book_guessed", page_id, 0)
    report.counts["book_guessed"] += len(ids)
    guessed = pa.array(guessed_books(ids), pa.large_string())
    return replace(manifest, books=pc.replace_with_mask(manifest.books, flat, guessed))


def _without_repeats(manifest: Manifest, lines: np.ndarray, report: DataReport, bad: BadRows) -> Manifest:
    """Drop rows that repeat an id and all it says; of rows that contradict each other the first counts.

    Ids count as the same when they differ only in case, separators, Unicode form or image extension, because then
    the same panel file would serve both.
    """
    keys = np.fromiter((hash(normal_key(exact_key(i))) for i in _all(manifest.ids)), np.int64, len(manifest))
    order = np.argsort(keys, kind="stable")
    same = keys[order][1:] == keys[order][:-1]
    if same.any():
        keep = np.ones(len(manifest), bool)
        first = order[0]
        for row, repeats in zip(order[1:], same, strict=True):
            if not repeats:
                first = row
                continue
            keep[row] = False
            if problem := _contradiction(manifest, lines, int(first), int(row)):
                bad.add(int(lines[row]), problem)
            else:
                report.note("repeated_row", f"{manifest.path}:{lines[row]}: {manifest.ids[int(row)]}")
        kept = pa.array(keep)
        manifest = Manifest(manifest.path, *(column.filter(kept) for column in manifest.columns))
    report.pages_listed += len(manifest)
    return manifest


def _contradiction(manifest: Manifest, lines: np.ndarray, a: int, b: int) -> str:
    """What row b says that does not go with row a of the same page, "" when it only repeats it."""
    ids = [manifest.ids[r].as_py() for r in (a, b)]
    if ids[0] != ids[1]:
        return (
            f"canonical_id: {ids[1]!r} and {ids[0]!r} on line {lines[a]} differ only in case, separators or extension, "
            "so both would use the same panel file"
        )
    for what, column in (("image", manifest.images), ("book", manifest.books), ("sha256", manifest.sha256)):
        if column[a].as_py() != column[b].as_py():
            return f"canonical_id: {ids[1]!r} is also on line {lines[a]}, with another {what}"
    return ""


def _all(column: pa.Array) -> Iterator[str]:
    for part in chunks(column):
        yield from part


def remapped(path: str, remap: tuple[tuple[str, str], ...], base: Path) -> str:
    """An image path of the manifest as a path of this machine; `base` is where relative paths start.

    A URL stays as it is, but for a file behind `::`. A prefix matches whole folders only, without regard to case and
    to the direction of slashes where it names a Windows drive or share. Returns "" for an empty path.
    """
    if not path:
        return ""
    for old, new in remap:
        rest = _after_prefix(path, old)
        if rest is not None:
            return os.path.join(new, *re.split(r"[\\/]", rest)) if rest else new  # noqa: PTH118 - a million rows
    if is_url(path):
        head, archive, file = path.rpartition("::")  # of a chain, a file of this machine is mapped as any other
        return path if not archive or is_url(file) else f"{head}::{remapped(file, remap, base)}"
    if is_windows_path(path) or os.path.isabs(path):  # noqa: PTH117
        return path
    return os.path.join(base, path if os.sep == "\\" else path.replace("\\", "/"))  # noqa: PTH118


def is_windows_path(path: str) -> bool:
    """Whether the path has a drive letter or names a share."""
    return path[1:3] in (":\\", ":/") or path.startswith("\\\\")


def _after_prefix(path: str, old: str) -> str | None:
    windows = is_windows_path(old) or ntpath.splitdrive(old)[0] != ""
    a, b = (path.replace("\\", "/").lower(), old.replace("\\", "/").lower()) if windows else (path, old)
    if not a.startswith(b):
        return None
    rest = path[len(old) :]
    if rest and b[-1] != "/" and rest[0] not in ("/\\" if windows else "/"):
        return None
    return rest.lstrip("/\\" if windows else "/")
