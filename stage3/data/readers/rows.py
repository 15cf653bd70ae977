"""From listed pages to rows: find each page's panel file and image, read it, and write the table as it grows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stage3.cli import progress
from stage3.config import Config
from stage3.data import images
from stage3.data.readers.corrections import Correction, read_corrections
from stage3.data.readers.formats import READERS, Reader
from stage3.data.readers.image_files import ImageFinder, duplicate_images
from stage3.data.readers.jsonfile import Note, PageProblem, read_json, unheard
from stage3.data.readers.labels import Labels, read_labels, select, skip_many
from stage3.data.readers.manifest import Manifest, read_manifest
from stage3.data.readers.names import Listing, NameIndex, exact_key, normal_key
from stage3.data.readers.preview import SAMPLE, Preview, notations
from stage3.data.readers.resolution import AMBIGUOUS, RESOLVED_BY, UNRESOLVED, Resolution, note_suffixes, resolve
from stage3.data.readers.rules import PageInfo, finish, flatten
from stage3.data.readers.source import DataSource
from stage3.data.readers.units import Notation
from stage3.data.readers.writer import TableWriter
from stage3.data.table import UNWANTED, DataReport

SMALL = 20_000  # pages up to which every image's header is read, and equal images are looked for
AT_ONCE = 4096  # pages whose file names are looked up together


@dataclass
class Build:
    """Everything one pass over a data set needs."""

    config: Config
    source: DataSource
    report: DataReport
    writer: TableWriter
    manifest: Manifest
    whole: Manifest  # of which `manifest` may be the beginning
    labels: Labels | None
    codes: np.ndarray  # (N,) label code of each page
    keep: np.ndarray  # (N,) bool, kept by label
    image_finder: ImageFinder
    corrections: dict[str, Correction] = field(default_factory=dict)  # by page id
    small: bool = False
    no_text: dict[str, list[str]] = field(default_factory=dict)  # see `no_text`
    notations: dict[str, Notation] = field(default_factory=dict)  # see `notation`
    pages_with_image: list[str] = field(default_factory=list)

    @property
    def reader(self) -> Reader:
        """The format's reader."""
        return READERS[self.source.panel_format]


def build(config: Config, source: DataSource, listing: Listing | None, folder: Path) -> tuple[DataReport, ImageFinder]:
    """Read a data set into panels.parquet and pages.parquet in `folder`.

    Returns the report (without split sizes) and which images and folders were looked at, for `cache` to compare later.
    """
    report = DataReport()
    # Labels first: parsing them takes the most memory, and it is free again before the manifest's columns are there.
    labels = None if source.labels is None else read_labels(source.labels, config.keep_labels, report)
    manifest = read_manifest(source.manifest, report, skip_bad_rows=config.skip_bad_rows)
    whole = manifest  # files are matched against all pages: a limit must not change which file is whose
    if config.limit_pages > len(manifest):
        report.note("limit_beyond_data", f"limit_pages {config.limit_pages}, {len(manifest)} pages listed")
    elif config.limit_pages:
        report.pages_listed -= len(manifest) - config.limit_pages
        manifest = manifest.head(config.limit_pages)
    codes, keep = np.zeros(0, np.int32), np.ones(len(manifest), bool)
    if labels is not None:
        codes = labels.of_pages(manifest.ids, report, manifest.books)
        keep = select(labels, codes, manifest.ids, config.keep_labels, report)
    report.facts["labels_file"] = "" if source.labels is None else source.labels.name
    base = source.manifest.resolve().parent
    writer = TableWriter(folder)
    made = Build(
        config,
        source,
        report,
        writer,
        manifest,
        whole,
        labels,
        codes,
        keep,
        ImageFinder(report, source.remap, base, remote=config.allow_remote_images),
        _corrections(source, whole, report),
    )
    try:
        (_read_one_file if made.reader.items else _read_folder)(made, listing)
    finally:
        writer.close()
    report.pages_kept = writer.pages_written
    report.facts["considered"] = report.pages_listed - sum(report.skipped[reason] for reason in UNWANTED)
    if made.small:
        report.facts["duplicate_images"] = duplicate_images(made.pages_with_image, report)
    return report, made.image_finder


def _corrections(source: DataSource, manifest: Manifest, report: DataReport) -> dict[str, Correction]:
    """Corrections by hand; those of pages that are not listed are counted."""
    found = read_corrections(source.panels)
    listed = set(manifest.ids.to_pylist()) if found else set()
    for page_id in found:
        if page_id not in listed:
            report.note("correction_unused", page_id)
    return found


def _read_folder(made: Build, listing: Listing | None) -> None:
    """One file per page, in the manifest's order."""
    assert listing is not None
    found = _resolve(made, listing.names)
    rows = np.flatnonzero(made.keep & (found.row >= 0))
    made.small = len(rows) <= SMALL
    some = rows[np.linspace(0, len(rows) - 1, min(len(rows), SAMPLE)).astype(np.int64)] if len(rows) else rows
    names = listing.names.take(pa.array(found.row[some])).to_pylist()
    files = (partial(read_json, _file_of(listing.root, name)) for name in names)
    _decide(made, zip(some.tolist(), files, strict=True), len(rows))
    with progress("reading pages", len(rows)) as bar:
        for start in range(0, len(rows), AT_ONCE):
            part = rows[start : start + AT_ONCE]
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
    some: dict[int, Any] = {}  # evenly spaced, however many there turn out to be
    every = 1
    for position, (page_id, value) in enumerate(items(path)):
        if position % every == 0:
            some[position] = value
        if len(some) > 2 * SAMPLE:
            every *= 2
            some = {at: kept for at, kept in some.items() if at % every == 0}
        if not page_id:
            made.report.note("entry_without_id", f"{path}: page {position} of the list")
        ids.append(page_id.encode("utf-8", "replace").decode())
    found = _resolve(made, pa.array(ids, pa.large_string()))
    row_of = np.full(len(ids), -1, np.int64)
    rows = np.flatnonzero(made.keep & (found.row >= 0))
    row_of[found.row[rows]] = rows
    seen = ((int(row_of[at]), partial(_same, value)) for at, value in some.items() if row_of[at] >= 0)
    _decide(made, seen, len(rows))
    made.small = len(rows) <= SMALL
    with progress("reading pages", len(ids)) as bar:
        for position, (_, value) in enumerate(items(path)):
            row = int(row_of[position])
            if row >= 0:
                where = f"{path}[{position}]"
                _add_page(made, row, int(found.how[row]), where, partial(_same, value))
            bar.advance(1)


def _same(value: Any, note: Note) -> Any:
    return value


def _decide(made: Build, pages: Iterable[tuple[int, Callable[[Note], Any]]], listed: int) -> None:
    """Look through some pages, as (row, content), for what holds for all; one that cannot be read says so later."""
    preview = Preview(made.source)
    base, allowed = made.source.manifest.resolve().parent, made.config.allow_remote_images
    finder = ImageFinder(DataReport(), made.source.remap, base, remote=allowed)
    for row, parsed in pages:
        with suppress(PageProblem):
            raw = made.reader.page(parsed(unheard), made.source, unheard)
            preview.add(raw, partial(_size_of, made, finder, row))
    known = preview.decide(listed)
    made.no_text, made.notations = known["no_text"], notations(known)
    made.report.facts.update(known)
    for name, of in known["boxes"].items():
        if of["why"] not in ("format", "setting"):
            made.report.note("box_notation", f"{made.source.panels}: {name}: {of['unit']}, {of['order']}")
        if of["doubtful"]:
            made.report.note("box_unit_doubtful", f"{made.source.panels}: {name}")


def _size_of(made: Build, finder: ImageFinder, row: int) -> tuple[int, int]:
    """Width and height of a page's image without counting anything, (0, 0) when unknown."""
    path = finder.find(made.manifest.images[row].as_py(), "")
    with suppress(images.ImageProblem):
        return images.page_size(path, max_megapixels=made.config.max_megapixels) if path else (0, 0)
    return 0, 0


def _resolve(made: Build, names: pa.Array) -> Resolution:
    """Find every kept page among the panel files; the others are counted."""
    ids = made.manifest.ids
    found = resolve(made.whole.ids, NameIndex(names), made.report, "panel_file", made.whole.books)
    spare = len(names) - int((found.row >= 0).sum())
    found = Resolution(found.row[: len(ids)], found.how[: len(ids)])
    kept_how = found.how[made.keep]
    kept = Resolution(found.row, np.where(made.keep, found.how, UNRESOLVED))
    note_suffixes(kept, ids, names, made.report, "panel_file")
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


def _add_page(made: Build, row: int, how: int, path: str, parsed: Callable[[Note], Any]) -> None:
    """Read one page and write its rows; a page that cannot be used is counted and leaves no trace."""
    page_id, report = made.manifest.ids[row].as_py(), made.report
    image = _Image(made, row, page_id)
    notes: list[tuple[str, str]] = []
    info = PageInfo(
        page_id,
        image.size,
        lambda code, detail: notes.append((code, detail)),
        made.no_text,
        made.notations,
        made.corrections.get(page_id),
    )
    try:
        raw = made.reader.page(parsed(info.note), made.source, info.note)
        panels, size = finish(raw, info, made.config.max_panels)
    except PageProblem as problem:
        report.skip(problem.code, f"{path}: {problem.detail}")
        _write_notes(notes, path, report)
        if image.asked and image.path:
            made.image_finder.unused.append(image.path)
        return
    if isinstance(raw.canonical_id, str) and normal_key(exact_key(raw.canonical_id)) != normal_key(exact_key(page_id)):
        report.note("id_differs_inside", f"{path}: {raw.canonical_id[:200]}")
    if made.small or image.asked:
        size = _agreed(size, image.size(), info)
    _write_notes(notes, path, report)
    label = made.labels.names[made.codes[row]] if made.labels is not None else ""
    made.writer.add(
        {
            "page_id": page_id,
            "book_id": made.manifest.books[row].as_py(),
            "page_type": label,
            "image_path": image.path,
            "image_sha256": made.manifest.sha256[row].as_py(),
            "width": size[0],
            "height": size[1],
            "overall_summary": flatten(raw.summary)[:10_000],
            "resolved_by": RESOLVED_BY[how],
        },
        panels,
    )
    if made.small and image.path:
        made.pages_with_image.append(image.path)


def _agreed(declared: tuple[int, int], measured: tuple[int, int], page: PageInfo) -> tuple[int, int]:
    """The image's size when it is known; a file made for another shape of page is worth a look."""
    if 0 in measured:
        return declared
    if 0 not in declared and abs(declared[0] * measured[1] / (declared[1] * measured[0]) - 1) > 0.03:
        page.note("page_shape_differs", f"the file says {declared}, the image has {measured}")
    return measured


def _write_notes(notes: list[tuple[str, str]], path: str, report: DataReport) -> None:
    for code, detail in notes:
        report.note(code, f"{path}: {detail}")


class _Image:
    """A page's image: where it is, and its size once somebody asks."""

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
            self._path = self.made.image_finder.find(self.made.manifest.images[self.row].as_py(), self.page_id)
        return self._path

    def size(self) -> tuple[int, int]:
        """(width, height), (0, 0) when the image is missing or its header is refused (which is counted)."""
        self.asked = True
        if self._size is None:
            self._size = (0, 0)
            if self.path:
                try:
                    self._size = images.page_size(self.path, max_megapixels=self.made.config.max_megapixels)
                except images.ImageProblem as problem:
                    self.made.report.note(f"image:{problem.code}", f"{self.page_id}: {problem.detail}")
        return self._size
