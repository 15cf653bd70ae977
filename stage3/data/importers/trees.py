"""Files of a source, in a folder or in an archive, behind one interface.

An archive is read under limits, and no name in it ever becomes a path: members are looked up by name, read as bytes
and decoded by what they hold.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from stage3.data.images import ImageProblem, open_regular
from stage3.data.readers.jsonfile import Note
from stage3.data.readers.manifest_rows import is_junk
from stage3.data.readers.names import EXTENSIONS

HEAD = 32 * 1024  # bytes that recognition looks at
MAX_ENTRIES = 10_000  # of an archive
MAX_RATIO = 100  # of a member's size to its compressed size
RATIO_FROM = 2**20  # bytes; smaller members may be compressed as far as they can
MAX_ENTRY = 256 * 2**20  # bytes of one member
MAX_TOTAL = 4 * 2**30  # bytes of all members
ARCHIVES = (".cbz", ".zip")


class SourceProblem(Exception):
    """A source, or one of its files, cannot be used; `code` is counted, `detail` says what was found and the remedy."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts names as people count: page 2 before page 10."""
    parts = re.split(r"([0-9]+)", name.casefold())
    key = [(1, 0, p) if not p[0].isdecimal() or not p.isascii() else _counted(p) for p in parts if p]
    return (*key, (2, 0, name))  # a total order: names that differ only in case or zeros


def _counted(digits: str) -> tuple[int, int, str]:
    """Sorts as the number does, however many digits it has."""
    plain = digits.lstrip("0")
    return 0, len(plain), plain


def has_image_name(name: str) -> bool:
    """Whether a name ends as an image's does; what the file is, its first bytes say."""
    return name.lower().endswith(EXTENSIONS)


def leaf(name: str) -> str:
    """The last part of a path."""
    return name.rpartition("/")[2]


def parent(name: str) -> str:
    """The folder of a path, "" at the top."""
    return name.rpartition("/")[0]


def stem(name: str) -> str:
    """The last part of a path without its extension."""
    last = leaf(name)
    return last.rpartition(".")[0] or last


class Tree(ABC):
    """Files by their relative names, with "/" between folders."""

    where: Path  # the folder or archive, for people
    name: str  # what a book made of it is called
    names: tuple[str, ...]  # in natural order

    @abstractmethod
    def read(self, name: str, limit: int = MAX_ENTRY) -> bytes:
        """A file's bytes; SourceProblem when it is larger than `limit` or cannot be read."""

    @abstractmethod
    def head(self, name: str) -> bytes:
        """The first `HEAD` bytes; fewer, or none, where the file cannot be read."""

    @abstractmethod
    def stamp(self, name: str) -> str:
        """A text that changes when the file does."""

    def file(self, name: str) -> Path | None:
        """The file itself, None where it lies in an archive."""
        return None

    def in_archive_order(self) -> tuple[str, ...]:
        """The names in the order in which they are stored; of a folder the natural order."""
        return self.names

    def show(self, name: str) -> str:
        """The file, for messages."""
        return f"{self.where}: {name}"


@dataclass(frozen=True)
class ImageRef:
    """An image of a source."""

    tree: Tree
    member: str

    def __repr__(self) -> str:
        return f"ImageRef({str(self.tree.where)!r}, {self.member!r})"

    @property
    def shown(self) -> str:
        """The image, for messages."""
        return self.tree.show(self.member)

    @property
    def key(self) -> str:
        """What tells this image from all others."""
        return f"{self.tree.where}\0{self.member}"


class Folder(Tree):
    """A folder and all below it, or one file of it."""

    def __init__(self, where: Path, note: Note, *, only: str = "") -> None:
        self.where = where
        self.name = where.resolve().name or "comics"
        self.names = (only,) if only else tuple(sorted(_walk(where, note), key=natural))

    def read(self, name: str, limit: int = MAX_ENTRY) -> bytes:  # noqa: D102
        try:
            with open_regular(self.where / name) as file:
                data = file.read(limit + 1)
        except (ImageProblem, OSError) as error:
            raise SourceProblem("file_unreadable", str(error)) from None
        if len(data) > limit:
            raise SourceProblem("file_too_large", f"{self.show(name)}: over {limit // 2**20} MB")
        return data

    def head(self, name: str) -> bytes:  # noqa: D102
        try:
            with open_regular(self.where / name) as file:
                return file.read(HEAD)
        except (ImageProblem, OSError):
            return b""

    def stamp(self, name: str) -> str:  # noqa: D102
        try:
            info = (self.where / name).stat()
        except OSError:
            return "missing"
        return f"{info.st_size}-{info.st_mtime_ns}"

    def file(self, name: str) -> Path | None:  # noqa: D102
        return self.where / name

    def show(self, name: str) -> str:  # noqa: D102
        return str(self.where / name)


def _walk(root: Path, note: Note) -> Iterator[str]:
    """Relative names of regular files; links to folders, hidden folders and what systems leave behind are passed by."""
    stack = [("", root)]
    while stack:
        prefix, folder = stack.pop()
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            note("file_unreadable", f"{folder}: {error.strerror or error}")
            continue
        for entry in found:
            name = prefix + entry.name
            if is_junk(name) or entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                stack.append((f"{name}/", folder / entry.name))
            elif not name.isprintable():  # also what is not UTF-8: it could not be written into a manifest
                note("file_name", f"{folder}: {entry.name!r}")
            elif entry.is_file():
                yield name


class Archive(Tree):
    """A ZIP archive (CBZ), read under limits.

    Members that cannot be used are counted and left out: unsafe names, links, passwords, archives within, names that
    occur twice, members that grow more than a hundredfold.
    """

    def __init__(self, where: Path, note: Note) -> None:
        self.where = where
        self.name = where.stem
        self._note = note
        self._budget = MAX_TOTAL
        try:
            self._file = open_regular(where)
            self._zip = zipfile.ZipFile(self._file)
        except ImageProblem as problem:
            raise SourceProblem("file_unreadable", problem.detail) from None
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            self._file.close()
            raise SourceProblem("archive_damaged", f"{where}: not a ZIP archive that can be read ({error})") from None
        try:
            self._members = self._usable(self._zip.infolist())
        except SourceProblem:
            self.close()
            raise
        self.names = tuple(sorted(self._members, key=natural))

    def close(self) -> None:
        """Close the file."""
        self._zip.close()
        self._file.close()

    def _usable(self, entries: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
        files = [e for e in entries if not e.is_dir()]
        if len(entries) > MAX_ENTRIES:
            raise SourceProblem("archive_entries", f"{self.where}: {len(entries):,} entries, more than {MAX_ENTRIES:,}")
        total = sum(e.file_size for e in files)
        if total > MAX_TOTAL:
            raise SourceProblem(
                "archive_size",
                f"{self.where}: {total / 2**30:.1f} GB unpacked, more than {MAX_TOTAL // 2**30} GB. "
                "Unpack it yourself and import the folder.",
            )
        end = 0
        for entry in sorted(files, key=lambda e: e.header_offset):
            if entry.header_offset < end:
                raise SourceProblem("archive_overlap", f"{self.where}: its entries overlap, as in a ZIP bomb")
            end = entry.header_offset + 30 + entry.compress_size
        usable: dict[str, zipfile.ZipInfo] = {}
        for entry in files:
            name = entry.filename.replace("\\", "/")
            if is_junk(name):
                continue
            problem = self._problem(entry, name) or ("archive_twice" if name in usable else "")
            if problem:
                self._note(problem, f"{self.where}: {name[:200]!r}")
            else:
                usable[name] = entry
        return usable

    @staticmethod
    def _problem(entry: zipfile.ZipInfo, name: str) -> str:
        """Why a member is not looked at, "" when it is."""
        if not name.isprintable() or name.startswith("/") or ":" in name[:3] or ".." in name.split("/"):
            return "archive_name"
        if stat.S_ISLNK(entry.external_attr >> 16):
            return "archive_link"
        if entry.flag_bits & 1:
            return "archive_password"
        if name.lower().endswith((*ARCHIVES, ".cbr", ".cb7", ".cbt", ".rar", ".7z", ".tar", ".gz")):
            return "archive_nested"
        if entry.file_size > MAX_ENTRY:
            return "archive_entry_size"
        if entry.file_size > RATIO_FROM and entry.file_size > MAX_RATIO * max(entry.compress_size, 1):
            return "archive_ratio"
        return ""

    def read(self, name: str, limit: int = MAX_ENTRY) -> bytes:  # noqa: D102
        entry = self._members[name]
        if entry.file_size > limit:
            raise SourceProblem("file_too_large", f"{self.show(name)}: over {limit // 2**20} MB")
        data = self._read(name, entry.file_size + 1)
        if len(data) != entry.file_size:
            raise SourceProblem("archive_entry_damaged", f"{self.show(name)}: another size than the archive says")
        self._budget -= len(data)
        if self._budget < 0:
            raise SourceProblem("archive_size", f"{self.where}: more than {MAX_TOTAL // 2**30} GB were read from it")
        return data

    def _read(self, name: str, most: int) -> bytes:
        try:
            with self._zip.open(self._members[name]) as file:
                return file.read(most)
        # What zipfile raises on damaged members: checksums, methods that it lacks, streams that end too early.
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as e:
            raise SourceProblem("archive_entry_damaged", f"{self.show(name)}: {e}") from None

    def head(self, name: str) -> bytes:  # noqa: D102
        try:
            return self._read(name, HEAD)
        except SourceProblem:
            return b""

    def stamp(self, name: str) -> str:  # noqa: D102
        entry = self._members[name]
        return f"{entry.file_size}-{entry.CRC:08x}"

    def in_archive_order(self) -> tuple[str, ...]:  # noqa: D102
        return tuple(self._members)


class Embedded(Tree):
    """Images that stand as Base64 inside an annotation file.

    Args:
        where: the file, for people.
        images: the Base64 of each image, given when it is asked for.
        stamp: a text that changes when the file does.
    """

    def __init__(self, where: Path, images: Mapping[str, Callable[[], str]], stamp: str) -> None:
        self.where = where
        self.name = where.stem
        self._images = images
        self._stamp = stamp
        self.names = tuple(sorted(images, key=natural))

    def read(self, name: str, limit: int = MAX_ENTRY) -> bytes:  # noqa: D102
        text = self._images[name]()
        if len(text) > limit * 4 // 3 + 4:
            raise SourceProblem("file_too_large", f"{self.show(name)}: over {limit // 2**20} MB")
        try:
            return base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise SourceProblem("file_unreadable", f"{self.show(name)}: not Base64 ({error})") from None

    def head(self, name: str) -> bytes:  # noqa: D102
        try:
            return self.read(name)[:HEAD]
        except SourceProblem:
            return b""

    def stamp(self, name: str) -> str:  # noqa: D102
        return self._stamp
