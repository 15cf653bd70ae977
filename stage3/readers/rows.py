"""From listed pages to rows: find each page's panel file and picture, read it, and write the table as it grows."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stage3 import images
from stage3.config import Config
from stage3.console import progress
from stage3.panels import PAGE_COLUMNS, PANEL_COLUMNS, DataReport
from stage3.readers.formats import READERS, Reader
from stage3.readers.jsonfile import PageProblem, read_json
from stage3.readers.labels import Labels, read_labels, select, skip_many
from stage3.readers.manifest import Manifest, is_windows_path, read_manifest, remapped
from stage3.readers.names import (
    AMBIGUOUS,
    RESOLVED_BY,
    Listing,
    NameIndex,
    Resolution,
    exact_key,
    normal_key,
    resolve,
)
from stage3.readers.rules import PageInfo, Panel, finish, flatten
from stage3.readers.source import DataSource

CHUNK = 20_000  # panels held as Python objects before they are written
SMALL = 20_000  # pages up to which every picture's header is read, and equal pictures are looked for
_TYPES = {"str": pa.large_string(), "bool": pa.bool_()}


class TableWriter:
    """Writes panels.parquet and pages.parquet in pieces, so that no list grows with the data set."""

    def __init__(self, folder: Path) -> None:
        self.pages_written = 0
        self.panels_written = 0
        self._columns = {name: _empty(c) for name, c in (("panels", PANEL_COLUMNS), ("pages", PAGE_COLUMNS))}
        self._writers = {
            name: pq.ParquetWriter(folder / f"{name}.parquet", _schema(c))
            for name, c in (("panels", PANEL_COLUMNS), ("pages", PAGE_COLUMNS))
        }

    def add(self, page: dict[str, Any], panels: list[Panel]) -> None:
        """One page with its panels in reading order."""
        pages = self._columns["pages"]
        for key, value in {**page, "first_panel": self.panels_written, "n_panels": len(panels)}.items():
            pages[key].append(value)
        columns = self._columns["panels"]
        nan = float("nan")
        for order, panel in enumerate(panels):
            box = panel.box or (nan, nan, nan, nan)
            values: list[Any] = [
                f"{page['page_id']}#{panel.source_index}",
                self.pages_written,
                order,
                panel.source_index,
                *box,
            ]
            values += [panel.box is not None, panel.dialogue, panel.description, panel.speakers]
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
        self.pages_written += 1
        self.panels_written += len(panels)
        if len(columns["panel_id"]) >= CHUNK:
            self._flush()

    def close(self) -> None:
        """Write what is left."""
        self._flush()
        for writer in self._writers.values():
            writer.close()

    def _flush(self) -> None:
        for name, writer in self._writers.items():
            columns = self._columns[name]
            writer.write_table(pa.table(columns, schema=writer.schema))
            for column in columns.values():
                column.clear()


def _empty(columns: dict[str, str]) -> dict[str, list[Any]]:
    return {name: [] for name in columns}


def _schema(columns: dict[str, str]) -> pa.Schema:
    return pa.schema([(name, _TYPES.get(t) or pa.type_for_alias(t)) for name, t in columns.items()])


@dataclass
class PictureFinder:
    """Which pictures exist, by one listing a folder instead of one question a file."""

    report: DataReport
    remap: tuple[tuple[str, str], ...]
    base: Path
    folders: dict[str, int] = field(default_factory=dict)  # every folder looked into: its mtime_ns, or -1
    _listed: dict[str, dict[str, str]] = field(default_factory=dict)

    def find(self, written: str, page_id: str) -> str:
        """The picture's path on this machine, "" when it is missing (which is counted)."""
        path = remapped(written, self.remap, self.base)
        folder, name = os.path.split(path)
        names = self._names(folder) if folder else {}
        for candidate in (name, *_other_extensions(name)):
            found = names.get(_name_key(candidate))
            if found is not None:
                if candidate != name:
                    self.report.note("image_other_extension", f"{path} found as {found}")
                return os.path.join(folder, found)  # noqa: PTH118
        foreign = os.sep == "/" and is_windows_path(path)
        self.report.note(
            "image_path_of_another_machine" if foreign else "image_missing", f"{page_id}: {path or written}"
        )
        return ""

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
    """The name without its picture extension (`x.jpg.png` to `x.jpg`), with another one, with one added."""
    common = (".png", ".jpg", ".jpeg", ".webp")
    stem, dot, ending = name.rpartition(".")
    if dot and stem and f".{ending.lower()}" in common:
        yield stem
        yield from (stem + extension for extension in common)
    yield from (name + extension for extension in common)


@dataclass
class Build:
    """Everything one pass over a data set needs."""

    config: Config
    source: DataSource
    report: DataReport
    writer: TableWriter
    manifest: Manifest
    all_ids: pa.Array  # of the whole manifest, of which `manifest` may be the beginning
    labels: Labels | None
    codes: np.ndarray  # (N,) label code of each page
    keep: np.ndarray  # (N,) bool, kept by label
    pictures: PictureFinder
    small: bool = False
    pages_with_picture: list[str] = field(default_factory=list)

    @property
    def reader(self) -> Reader:
        """The format's reader."""
        return READERS[self.source.panel_format]


def build(
    config: Config, source: DataSource, listing: Listing | None, folder: Path
) -> tuple[DataReport, dict[str, int]]:
    """Read a data set into panels.parquet and pages.parquet in `folder`.

    Returns the report (without split sizes) and the picture folders with their times, for `cache` to compare later.
    """
    report = DataReport()
    # Labels first: parsing them takes the most memory, and it is free again before the manifest's columns are there.
    labels = None if source.labels is None else read_labels(source.labels, config.keep_labels, report)
    manifest = read_manifest(source.manifest, report)
    all_ids = manifest.ids  # files are matched against all of them: a limit must not change which file is whose
    if config.limit_pages > len(manifest):
        report.note("limit_beyond_data", f"limit_pages {config.limit_pages}, {len(manifest)} pages listed")
    elif config.limit_pages:
        report.pages_listed -= len(manifest) - config.limit_pages
        manifest = manifest.head(config.limit_pages)
    codes, keep = np.zeros(0, np.int32), np.ones(len(manifest), bool)
    if labels is not None:
        codes = labels.of_pages(manifest.ids, report)
        keep = select(labels, codes, manifest.ids, config.keep_labels, report)
    report.facts["labels_file"] = "" if source.labels is None else source.labels.name
    report.facts["considered"] = int(keep.sum())
    base = source.manifest.resolve().parent
    writer = TableWriter(folder)
    made = Build(
        config,
        source,
        report,
        writer,
        manifest,
        all_ids,
        labels,
        codes,
        keep,
        PictureFinder(report, source.remap, base),
    )
    try:
        (_read_one_file if made.reader.items else _read_folder)(made, listing)
    finally:
        writer.close()
    report.pages_kept = writer.pages_written
    if made.small:
        report.facts["duplicate_images"] = duplicate_pictures(made.pages_with_picture, report)
    return report, made.pictures.folders


def _read_folder(made: Build, listing: Listing | None) -> None:
    """One file a page, in the manifest's order."""
    assert listing is not None
    found = _resolve(made, listing.names)
    rows = np.flatnonzero(made.keep & (found.row >= 0))
    made.small = len(rows) <= SMALL
    with progress("reading pages", len(rows)) as bar:
        for start in range(0, len(rows), 4096):
            part = rows[start : start + 4096]
            names = listing.names.take(pa.array(found.row[part])).to_pylist()
            for row, name in zip(part.tolist(), names, strict=True):
                path = _file_of(listing.root, name)
                _add_page(made, row, int(found.how[row]), path, partial(read_json, path))
            bar.advance(len(part))


def _file_of(root: Path, name: str) -> str:
    path = os.path.join(root, f"{name}.json")  # noqa: PTH118
    return path if os.path.exists(path) else os.path.join(root, f"{name}.JSON")  # noqa: PTH110, PTH118


def _read_one_file(made: Build, listing: Listing | None) -> None:
    """All pages in one file: a first pass for the ids, a second for the pages, in the file's order."""
    items = made.reader.items
    assert items is not None
    path = made.source.panels
    ids: list[str] = []
    for position, (page_id, _) in enumerate(items(path)):
        if not page_id:
            made.report.note("entry_without_id", f"{path}: page {position} of the list")
        ids.append(page_id.encode("utf-8", "replace").decode())
    found = _resolve(made, pa.array(ids, pa.large_string()))
    row_of = np.full(len(ids), -1, np.int64)
    rows = np.flatnonzero(made.keep & (found.row >= 0))
    row_of[found.row[rows]] = rows
    made.small = len(rows) <= SMALL
    with progress("reading pages", len(ids)) as bar:
        for position, (_, value) in enumerate(items(path)):
            row = int(row_of[position])
            if row >= 0:
                where = f"{path}[{position}]"
                _add_page(made, row, int(found.how[row]), where, partial(_same, value))
            bar.advance(1)


def _same(value: Any) -> Any:
    return value


def _resolve(made: Build, names: pa.Array) -> Resolution:
    """Find every kept page among the panel files; the others are counted."""
    ids = made.manifest.ids
    found = resolve(made.all_ids, NameIndex(names), made.report, "panel_file")
    spare = len(names) - int((found.row >= 0).sum())
    found = Resolution(found.row[: len(ids)], found.how[: len(ids)])
    kept_how = found.how[made.keep]
    made.report.facts["resolved_by"] = {
        RESOLVED_BY[code]: int(n) for code, n in zip(*np.unique(kept_how, return_counts=True), strict=True)
    }
    lost = made.keep & (found.row < 0)
    for reason, mask in (
        ("panel_file_ambiguous", lost & (found.how == AMBIGUOUS)),
        ("no_panel_file", lost & (found.how != AMBIGUOUS)),
    ):
        rows = np.flatnonzero(mask)
        if len(rows):
            skip_many(made.report, reason, (str(ids[int(r)]) for r in rows), len(rows))
    if spare:
        made.report.counts["panel_file_unlisted"] += spare
    return found


def _add_page(made: Build, row: int, how: int, path: str, parsed: Callable[[], Any]) -> None:
    """Read one page and write its rows; a page that cannot be used is counted and leaves no trace."""
    page_id, report = made.manifest.ids[row].as_py(), made.report
    picture = _Picture(made, row, page_id)
    notes: list[tuple[str, str]] = []
    info = PageInfo(page_id, picture.size, lambda code, detail: notes.append((code, detail)))
    try:
        raw = made.reader.page(parsed(), made.source, info.note)
        panels, size = finish(raw, info, made.config.max_panels)
    except PageProblem as problem:
        report.skip(problem.code, f"{path}: {problem.detail}")
        _write_notes(notes, path, report)
        return
    if isinstance(raw.canonical_id, str) and normal_key(exact_key(raw.canonical_id)) != normal_key(exact_key(page_id)):
        report.note("id_differs_inside", f"{path}: {raw.canonical_id[:200]}")
    if made.small or picture.asked:
        size = _agreed(size, picture.size(), info)
    _write_notes(notes, path, report)
    label = made.labels.names[made.codes[row]] if made.labels is not None else ""
    made.writer.add(
        {
            "page_id": page_id,
            "book_id": made.manifest.books[row].as_py(),
            "page_type": label,
            "image_path": picture.path,
            "width": size[0],
            "height": size[1],
            "overall_summary": flatten(raw.summary)[:10_000],
            "resolved_by": RESOLVED_BY[how],
        },
        panels,
    )
    if made.small and picture.path:
        made.pages_with_picture.append(picture.path)


def _agreed(declared: tuple[int, int], pictured: tuple[int, int], page: PageInfo) -> tuple[int, int]:
    """The picture's size when it is known; a file made for another shape of page is worth a look."""
    if 0 in pictured:
        return declared
    if 0 not in declared and abs(declared[0] * pictured[1] / (declared[1] * pictured[0]) - 1) > 0.03:
        page.note("page_shape_differs", f"the file says {declared}, the picture has {pictured}")
    return pictured


def _write_notes(notes: list[tuple[str, str]], path: str, report: DataReport) -> None:
    for code, detail in notes:
        report.note(code, f"{path}: {detail}")


class _Picture:
    """A page's picture: where it is, and its size once somebody asks."""

    def __init__(self, made: Build, row: int, page_id: str) -> None:
        self.made = made
        self.row = row
        self.page_id = page_id
        self.asked = False
        self._path: str | None = None
        self._size: tuple[int, int] | None = None

    @property
    def path(self) -> str:
        if self._path is None:
            self._path = self.made.pictures.find(self.made.manifest.images[self.row].as_py(), self.page_id)
        return self._path

    def size(self) -> tuple[int, int]:
        """(width, height), (0, 0) when the picture is missing or its header is refused (which is counted)."""
        self.asked = True
        if self._size is None:
            self._size = (0, 0)
            if self.path:
                try:
                    self._size = images.page_size(self.path, max_megapixels=self.made.config.max_megapixels)
                except images.ImageProblem as problem:
                    self.made.report.note(f"image:{problem.code}", f"{self.page_id}: {problem.detail}")
        return self._size


def duplicate_pictures(paths: list[str], report: DataReport) -> dict[str, Any]:
    """Groups of pictures with the same bytes. Only files of equal size are read."""
    by_size: dict[int, list[str]] = {}
    for path in paths:
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
