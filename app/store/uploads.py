"""Uploaded comics, onto the disk: archives and images, each looked at first, under names of our own making."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from app.store import readonly
from stage3.cli import counted
from stage3.data import images
from stage3.data.images import ImageProblem
from stage3.data.importers.naming import safe_name
from stage3.data.importers.pixels import suffix_of
from stage3.data.importers.recognize import BY_CONTENT, CONVERT
from stage3.data.importers.sight import look
from stage3.data.importers.trees import HEAD, Archive, SourceProblem, leaf
from stage3.errors import DataError
from stage3.storage import make_folder, remove, sha256, write_new

MAX_FILE = 20 * 2**20  # bytes; the server refuses more before they arrive, this is checked again
MAX_ALL = 400 * 2**20  # bytes of one upload
MAX_FILES = 1000
Upload = tuple[str, bytes]  # name and content


def keep(files: Sequence[Upload], folder: Path, book: str) -> list[str]:
    """Write uploads into a folder: archives side by side, images together as one book.

    Args:
        files: as they came; their names are only words.
        folder: a new one.
        book: name of the book of single images.

    Returns:
        A line for each file that is not used: its name and why.

    Raises:
        DataError: too many or too much, or nothing can be used.
        StorageError: the folder cannot be written.
    """
    readonly.refuse()
    total = sum(len(data) for _, data in files)
    if len(files) > MAX_FILES or total > MAX_ALL:
        raise DataError(
            f"{counted(len(files), 'file')} of {total / 2**20:.0f} MB are more than one upload may have ({MAX_FILES:,} "
            f"files, {MAX_ALL >> 20} MB). Put the comics into a folder and choose it under Folder."
        )
    refused: list[str] = []
    seen: dict[str, str] = {}
    taken: set[str] = set()
    for name, data in files:
        shown = _shown(name)
        digest = sha256(data)
        try:
            if digest in seen:
                raise DataError(f"the same file as {seen[digest]}")
            seen[digest] = shown
            _keep(name, data, folder, book, taken)
        except (DataError, ImageProblem, SourceProblem) as problem:
            refused.append(f"{shown}: {getattr(problem, 'detail', problem)}".replace(f"{folder}/", ""))
    if len(refused) == len(files):
        raise DataError("\n".join(["Nothing of this can be imported.", *refused]))
    return refused


def _shown(name: str) -> str:
    plain = "".join(c if c.isprintable() else "\ufffd" for c in leaf(name.replace("\\", "/")))
    return plain if len(plain) <= 80 else plain[:79] + "…"


def _keep(name: str, data: bytes, folder: Path, book: str, taken: set[str]) -> None:
    if len(data) > MAX_FILE:
        raise DataError(f"over {MAX_FILE >> 20} MB. Put it into a folder and choose it under Folder.")
    sight = look(name, data[:HEAD])
    if sight.kind == "zip":
        path = _free(folder, name, ".cbz", taken)
        _write(path, data)
        try:
            Archive(path, lambda code, detail: None).close()  # bombs and damaged ones: refused by its list of contents
        except SourceProblem:
            remove(path)
            raise
        return
    suffix = suffix_of(data)
    if not suffix:
        advice = CONVERT.get(BY_CONTENT.get(sight.kind, ""), "").partition(". ")[0]
        raise DataError(f"{advice or 'neither a CBZ or ZIP archive nor an image that is read'}.")
    images.bytes_size(data)
    _write(_free(folder / safe_name(book), name, suffix, taken), data)


def _free(folder: Path, name: str, suffix: str, taken: set[str]) -> Path:
    """A name that no other upload has, also where case does not count."""
    last = leaf(name.replace("\\", "/"))
    plain = safe_name(last.rpartition(".")[0] or last)
    made, n = plain, 1
    while (key := str(folder / made).casefold()) in taken:
        n += 1
        made = f"{plain} ({n})"
    taken.add(key)
    return folder / f"{made}{suffix}"


def _write(path: Path, data: bytes) -> None:
    make_folder(path.parent)
    write_new(path, data, durable=False)
