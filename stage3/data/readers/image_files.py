"""Which images exist, where, and which are the same."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stage3.data import images, remote
from stage3.data.readers.manifest import is_windows_path, remapped
from stage3.data.table import DataReport


@dataclass
class Stamp:
    """Paths, sizes and times of many files as one number, whatever order they come in."""

    total: int = 0

    def add(self, path: str) -> None:
        """Add a file as it is now; one that is not there counts too."""
        try:
            info = os.stat(path)  # noqa: PTH116 - many files
            seen = f"{path}\0{info.st_size}\0{info.st_mtime_ns}"
        except (OSError, ValueError):
            seen = path
        digest = hashlib.blake2b(seen.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        self.total = (self.total + int.from_bytes(digest, "little")) % 2**128

    def __str__(self) -> str:
        return f"{self.total:032x}"


@dataclass
class ImageFinder:
    """Which images exist, by one listing per folder instead of one query per file."""

    report: DataReport
    remap: tuple[tuple[str, str], ...]
    base: Path
    remote: bool = False  # whether URLs are allowed
    folders: dict[str, int] = field(default_factory=dict)  # every folder looked into: its mtime_ns, or -1
    stamp: Stamp = field(default_factory=Stamp)  # of every image found, before it was read
    unused: list[str] = field(default_factory=list)  # images that were read for pages that were then left out
    _listed: dict[str, dict[str, str]] = field(default_factory=dict)

    def find(self, written: str, page_id: str) -> str:
        """The image's path on this machine, "" when it is missing (which is counted)."""
        path = remapped(written, self.remap, self.base)
        if remote.is_url(path):
            return self._url(path, page_id)
        folder, name = os.path.split(path)
        names = self._names(folder) if folder else {}
        for candidate in (name, *_other_extensions(name)):
            found = names.get(_name_key(candidate))
            if found is not None:
                if candidate != name:
                    self.report.note("image_other_extension", f"{path} found as {found}")
                there = os.path.join(folder, found)  # noqa: PTH118
                self.stamp.add(there)
                return there
        foreign = os.sep == "/" and is_windows_path(path)
        self.report.note(
            "image_path_of_another_machine" if foreign else "image_missing", f"{page_id}: {path or written}"
        )
        return ""

    def _url(self, url: str, page_id: str) -> str:
        """A URL as it is, "" where URLs are not allowed; whether something is there shows when it is read."""
        if not self.remote:
            self.report.note("image_remote", f"{page_id}: {url}")
            return ""
        remote.require(url)
        return url

    def _names(self, folder: str) -> dict[str, str]:
        if folder not in self._listed:
            if len(self._listed) > 64:
                self._listed.clear()
            names: dict[str, str] = {}
            try:
                self.folders.setdefault(folder, os.stat(folder).st_mtime_ns)  # noqa: PTH116
                with os.scandir(folder) as entries:
                    names = {_name_key(e.name): e.name for e in entries}
            except OSError:
                self.folders[folder] = -1
            except ValueError:  # a NUL in the path
                names = {}
            self._listed[folder] = names
        return self._listed[folder]


def _name_key(name: str) -> str:
    return os.path.normcase(name if name.isascii() else unicodedata.normalize("NFC", name))


def _other_extensions(name: str) -> Iterator[str]:
    """The name without its image extension (`x.jpg.png` to `x.jpg`), with another one, with one added."""
    common = (".png", ".jpg", ".jpeg", ".webp", ".avif")
    stem, dot, ending = name.rpartition(".")
    if dot and stem and f".{ending.lower()}" in common:
        yield stem
        yield from (stem + extension for extension in common)
    yield from (name + extension for extension in common)


def duplicate_images(paths: list[str], report: DataReport) -> dict[str, Any]:
    """Groups of images with the same bytes. Only files of equal size are read."""
    by_size: dict[int, list[str]] = {}
    for path in paths:
        if remote.is_url(path):  # each would be fetched for it
            continue
        try:
            by_size.setdefault(os.stat(path).st_size, []).append(path)  # noqa: PTH116
        except OSError:
            report.note("image_missing", path)
    by_digest: dict[str, list[str]] = {}
    for group in by_size.values():
        for path in group if len(group) > 1 else ():
            digest = images.file_digest(path)
            if digest:
                by_digest.setdefault(digest, []).append(path)
    groups = [g for g in by_digest.values() if len(g) > 1]
    for group in groups:
        report.note("image_duplicate", " = ".join(group[:3]), len(group) - 1)
    sizes = Counter(len(g) for g in groups)
    return {"groups": len(groups), "pictures": sum(n * k for n, k in sizes.items())}
