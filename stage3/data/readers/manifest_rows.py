"""The rows of a page manifest: which of them name a page, and what is wrong with the others."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from stage3.data.table import DataReport
from stage3.errors import DataError

COLUMNS = ("canonical_id", "absolute_image_path")
OPTIONAL = ("book", "sha256")
MAX_FIELD = 131072  # csv's own default, checked here because that one is a setting of the whole process
MAX_LISTED = 100  # bad rows named in an error
UNCLOSED = "a quoted field spans several lines; a quote is not closed"
JUNK_NAMES = frozenset({"thumbs.db", ".ds_store"})


class BadRows:
    """Rows of a manifest that cannot be used: all of them are found before anybody is told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: list[tuple[int, str]] = []  # line, what is wrong with it

    def add(self, line: int, what: str) -> None:
        """Remember a row."""
        self.found.append((line, what))

    def settle(self, report: DataReport, *, skip: bool) -> None:
        """Count the rows as left out, or refuse the manifest.

        Raises:
            DataError: there are such rows and `skip` is False; it lists them.
        """
        self.found.sort()
        rows = [f"{self.path}:{line}: {what}" for line, what in self.found]
        if skip:
            report.pages_listed += len(rows)
            for row in rows:
                report.skip("bad_row", row)
        elif rows:
            if len(rows) == 1:
                raise DataError(f"{rows[0]}. Mend it, or leave it out with --skip_bad_rows.")
            more = [f"and {len(rows) - MAX_LISTED:,} more"] if len(rows) > MAX_LISTED else []
            head = f"{self.path}: {len(rows):,} bad rows. Mend them, or leave them out with --skip_bad_rows."
            raise DataError("\n".join([head, *rows[:MAX_LISTED], *more]))


def manifest_rows(
    file: TextIO, path: Path, report: DataReport, bad: BadRows
) -> Iterator[tuple[str, str, str, str, int]]:
    """(id, image, book, sha256, line) of every row that names a page."""
    header = _header(next(file, ""), path, report)
    at_id, at_image = header.index("canonical_id"), header.index("absolute_image_path")
    at_book, at_sha256 = (header.index(name) if name in header else -1 for name in OPTIONAL)
    for line, row in _fields_of_rows(file, len(header), bad):
        page_id, image = row[at_id], row[at_image]
        sha256 = row[at_sha256].strip().lower() if at_sha256 >= 0 else ""
        problem = _field_problem(page_id, image) or _sha256_problem(sha256)
        if problem:
            bad.add(line, problem)
        elif is_junk(page_id) or is_junk(image):
            report.note("junk_row", f"{path}:{line}: {page_id}")
        elif page_id.strip() in {"", "."}:
            report.pages_listed += 1
            report.skip("id_invalid", f"{path}:{line}: canonical_id: {page_id!r} names no page")
        else:
            yield page_id, image, (row[at_book].strip() if at_book >= 0 else "") or folder_of(page_id), sha256, line


def _fields_of_rows(file: TextIO, width: int, bad: BadRows) -> Iterator[tuple[int, list[str]]]:
    """(line, fields) of every sound row behind the header.

    Every line is read by itself, because an unclosed quote would otherwise swallow the rows behind it.
    """
    open_quote = 0  # line of a quote that is still open
    for line, text in enumerate(file, start=2):
        try:
            row = _fields(text)
        except csv.Error as error:
            ends = str(error) == "unexpected end of data"
            open_quote = line if ends else open_quote
            bad.add(line, UNCLOSED if ends else f"{error}. Check the quotes of this row")
            continue
        if open_quote and text.count('"') % 2:
            bad.add(line, f"ends the quoted field of line {open_quote}")
            open_quote = 0
            continue
        while len(row) > width and not row[-1].strip():
            row.pop()  # a spreadsheet writes empty cells
        if len(row) == width:
            if any(field.strip() for field in row):
                yield line, row
        elif any(field.strip() for field in row):
            bad.add(line, f"{len(row)} fields where the header has {width}{_quote_hint(row, width)}")


def _fields(text: str) -> list[str]:
    text = text.rstrip("\r\n")
    return next(csv.reader([text], strict=True)) if '"' in text else text.split(",")


def folder_of(page_id: str) -> str:
    """The id's parent folder, "" for an id without one."""
    cut = max(page_id.rfind("/"), page_id.rfind("\\"))
    return page_id[:cut].replace("\\", "/") if cut > 0 else ""


def _quote_hint(row: list[str], width: int) -> str:
    return "; a path with a comma needs double quotes" if len(row) > width else ""


def _header(text: str, path: Path, report: DataReport) -> list[str]:
    try:
        names = [name.strip() for name in _fields(text)] if text else []
    except csv.Error as error:
        raise DataError(f"{path}:1: {error}. Check the quotes of the header.") from None
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
        if name and name not in (*COLUMNS, *OPTIONAL):
            report.note("manifest_column_ignored", f"{path}:1: {name}")
    return names


_SHA256 = re.compile("[0-9a-f]{64}")


def _sha256_problem(value: str) -> str:
    if not value or _SHA256.fullmatch(value):
        return ""
    return f"sha256: {value[:80]!r} is not a SHA-256: expected 64 hexadecimal digits or nothing"


_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


def _field_problem(page_id: str, image: str) -> str:
    for name, value in zip(COLUMNS, (page_id, image), strict=True):
        if len(value) > MAX_FIELD:
            return f"{name}: longer than {MAX_FIELD:,} characters; perhaps a quote is not closed"
        if "\0" in value:
            return f"{name}: contains a NUL character"
    unsafe = page_id[:1] in ("/", "\\") or (page_id[1:2] == ":" and _DRIVE.match(page_id))
    if unsafe or (".." in page_id and ".." in page_id.replace("\\", "/").split("/")):
        return (
            f"canonical_id: {page_id!r} is an absolute path or leaves its folder; "
            "expected a relative path below the panels folder"
        )
    return ""


def is_junk(name: str) -> bool:
    """Whether a path is something an operating system left behind: `__MACOSX`, `._*`, Thumbs.db, .DS_Store."""
    if "__MACOSX" in name and "__MACOSX" in re.split(r"[\\/]", name):
        return True
    leaf = name[max(name.rfind("/"), name.rfind("\\")) + 1 :]
    return leaf[:2] == "._" or leaf.lower() in JUNK_NAMES
