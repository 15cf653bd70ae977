"""The page manifest: a CSV of canonical ids and image paths, up to millions of rows, kept as columns."""

from __future__ import annotations

import csv
import itertools
import ntpath
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stage3.data.readers.books import guessed_books
from stage3.data.readers.names import chunks, exact_key, normal_key
from stage3.data.table import DataReport
from stage3.errors import DataError

COLUMNS = ("canonical_id", "absolute_image_path")
OPTIONAL = ("book", "sha256")
MAX_FIELD = 131072  # csv's own default, checked here because that one is a setting of the whole process
BATCH = 65536
JUNK_NAMES = frozenset({"thumbs.db", ".ds_store"})


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


def read_manifest(path: Path, report: DataReport) -> Manifest:
    """Read and check the manifest.

    An id that is empty or "." is not a page's and is skipped. An id that would leave the panels folder (absolute, a
    drive, "..") refuses the file, as do two rows that contradict each other.

    Raises:
        DataError: naming file and line: wrong header, quoting, row length, encoding, NUL, unsafe or contradicting ids,
            a sha256 that is not one.
    """
    columns: list[list[pa.Array]] = [[], [], [], []]
    lines: list[np.ndarray] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for *batch, at in _batches(_rows(file, path, report)):
                for column, values in zip(columns, batch, strict=True):
                    column.append(pa.array(values, pa.large_string()))
                lines.append(np.asarray(at, np.int32))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason}). Save the manifest as UTF-8 CSV.") from None
    if not lines:
        raise DataError(f"{path}: the manifest lists no page")
    made = Manifest(path, *(pa.concat_arrays(columns.pop(0)) for _ in COLUMNS + OPTIONAL))  # pieces freed on the way
    return _with_guessed_books(_without_repeats(made, np.concatenate(lines), report), report)


def _batches(rows: Iterator[tuple[str, str, str, str, int]]) -> Iterator[list[list[Any]]]:
    """Rows as columns, `BATCH` at a time."""
    while batch := list(itertools.islice(rows, BATCH)):
        yield [list(column) for column in zip(*batch, strict=True)]


def _rows(file: TextIO, path: Path, report: DataReport) -> Iterator[tuple[str, str, str, str, int]]:
    """(id, image, book, sha256, line) of every row that names a page."""
    reader = csv.reader(file, strict=True)
    line = 1  # where the row being read begins; behind an unclosed quote the reader is many lines further
    try:
        header = _header(next(reader, []), path, report)
        width = len(header)
        at_id, at_image = header.index("canonical_id"), header.index("absolute_image_path")
        at_book, at_sha256 = (header.index(name) if name in header else -1 for name in OPTIONAL)
        line = reader.line_num + 1
        for row in reader:
            here, line = line, reader.line_num + 1
            if line - here > 1:
                raise DataError(f"{path}:{here}: a quoted field spans several lines; a quote is not closed")
            if len(row) != width:
                if not row:
                    continue  # an empty line
                raise DataError(
                    f"{path}:{here}: {len(row)} fields where the header has {width}{_quote_hint(row, width)}"
                )
            page_id, image = row[at_id], row[at_image]
            _check_field(page_id, image, f"{path}:{here}")
            if is_junk(page_id) or is_junk(image):
                report.note("junk_row", f"{path}:{here}: {page_id}")
            elif page_id.strip() in {"", "."}:
                report.pages_listed += 1
                report.skip("id_invalid", f"{path}:{here}: canonical_id: {page_id!r} names no page")
            else:
                book = (row[at_book].strip() if at_book >= 0 else "") or folder_of(page_id)
                sha256 = _sha256(row[at_sha256], f"{path}:{here}") if at_sha256 >= 0 else ""
                yield page_id, image, book, sha256, here
    except csv.Error as error:
        raise DataError(f"{path}:{line}: {error}. Check the quotes of this row.") from None


def folder_of(page_id: str) -> str:
    """The id's parent folder, "" for an id without one."""
    cut = max(page_id.rfind("/"), page_id.rfind("\\"))
    return page_id[:cut].replace("\\", "/") if cut > 0 else ""


def _quote_hint(row: list[str], width: int) -> str:
    return "; a path with a comma needs double quotes" if len(row) > width else ""


def _header(header: list[str], path: Path, report: DataReport) -> list[str]:
    names = [name.strip() for name in header]
    if len(names) == 1 and any(mark in names[0] for mark in (";", "\t")):
        mark = "';'" if ";" in names[0] else "tabs"
        raise DataError(f"{path}:1: columns are separated by {mark}; expected commas")
    for name in COLUMNS:
        if name not in names:
            found = ", ".join(repr(n[:40]) for n in names[:8]) or "an empty line"
            raise DataError(f"{path}:1: no column {name!r}; the header has {found}")
    for name in (*COLUMNS, *OPTIONAL):
        if names.count(name) > 1:
            raise DataError(f"{path}:1: column {name!r} appears twice in the header")
    for name in names:
        if name not in (*COLUMNS, *OPTIONAL):
            report.note("manifest_column_ignored", f"{path}:1: {name}")
    return names


_SHA256 = re.compile("[0-9a-f]{64}")


def _sha256(written: str, where: str) -> str:
    value = written.strip().lower()
    if value and not _SHA256.fullmatch(value):
        raise DataError(
            f"{where}: sha256: {written[:80]!r} is not a SHA-256: expected 64 hexadecimal digits or nothing"
        )
    return value


_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


def _check_field(page_id: str, image: str, where: str) -> None:
    for name, value in zip(COLUMNS, (page_id, image), strict=True):
        if len(value) > MAX_FIELD:
            raise DataError(f"{where}: {name}: longer than {MAX_FIELD:,} characters; perhaps a quote is not closed")
        if "\0" in value:
            raise DataError(f"{where}: {name}: contains a NUL character")
    unsafe = page_id[:1] in ("/", "\\") or (page_id[1:2] == ":" and _DRIVE.match(page_id))
    if unsafe or (".." in page_id and ".." in page_id.replace("\\", "/").split("/")):
        raise DataError(
            f"{where}: canonical_id: {page_id!r} is an absolute path or leaves its folder; "
            "expected a relative path below the panels folder"
        )


def is_junk(name: str) -> bool:
    """Whether a path is something an operating system left behind: `__MACOSX`, `._*`, Thumbs.db, .DS_Store."""
    if "__MACOSX" in name and "__MACOSX" in re.split(r"[\\/]", name):
        return True
    leaf = name[max(name.rfind("/"), name.rfind("\\")) + 1 :]
    return leaf[:2] == "._" or leaf.lower() in JUNK_NAMES


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


def _without_repeats(manifest: Manifest, lines: np.ndarray, report: DataReport) -> Manifest:
    """Drop rows that repeat an id and all it says; refuse ids that contradict each other.

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
            _check_repeat(manifest, lines, int(first), int(row))
            keep[row] = False
            report.note("repeated_row", f"{manifest.path}:{lines[row]}: {manifest.ids[int(row)]}")
        kept = pa.array(keep)
        manifest = Manifest(manifest.path, *(column.filter(kept) for column in manifest.columns))
    report.pages_listed += len(manifest)
    return manifest


def _check_repeat(manifest: Manifest, lines: np.ndarray, a: int, b: int) -> None:
    ids = [manifest.ids[r].as_py() for r in (a, b)]
    where = f"{manifest.path}:{lines[b]}: canonical_id: {ids[1]!r}"
    if ids[0] != ids[1]:
        raise DataError(
            f"{where} and {ids[0]!r} on line {lines[a]} differ only in case, separators or extension, "
            "so both would use the same panel file. Rename or remove one."
        )
    for what, column in (("image", manifest.images), ("book", manifest.books), ("sha256", manifest.sha256)):
        if column[a].as_py() != column[b].as_py():
            raise DataError(f"{where} is also on line {lines[a]}, with another {what}. Remove one of the two rows.")


def _all(column: pa.Array) -> Iterator[str]:
    for part in chunks(column):
        yield from part


def remapped(path: str, remap: tuple[tuple[str, str], ...], base: Path) -> str:
    """An image path of the manifest as a path of this machine; `base` is where relative paths start.

    A prefix matches whole folders only, without regard to case and to the direction of slashes where it names a
    Windows drive or share. Returns "" for an empty path.
    """
    if not path:
        return ""
    for old, new in remap:
        rest = _after_prefix(path, old)
        if rest is not None:
            return os.path.join(new, *re.split(r"[\\/]", rest)) if rest else new  # noqa: PTH118 - a million rows
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
