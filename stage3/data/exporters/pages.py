"""The pages of a data set, in whatever format its panels are, as other tools want them: boxes in pixels, in order."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stage3.config import Config
from stage3.data import images
from stage3.data.importers.page import APART
from stage3.data.readers import READERS, PageProblem, source_of
from stage3.data.readers.boxes import four, number
from stage3.data.readers.corrections import Correction, read_corrections
from stage3.data.readers.image_files import ImageFinder
from stage3.data.readers.jsonfile import read_json, unheard
from stage3.data.readers.labels import read_labels
from stage3.data.readers.manifest import Manifest, read_manifest
from stage3.data.readers.names import NameIndex, scan
from stage3.data.readers.preview import SAMPLE, Preview, notations
from stage3.data.readers.resolution import resolve
from stage3.data.readers.rules import PageInfo, Panel, finish
from stage3.data.readers.source import DataSource
from stage3.data.table import DataReport
from stage3.errors import DataError

MANY = 100_000  # panels; no page has so many, and none is cut

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Text:
    """A text with its place, in pixels."""

    text: str
    box: Box
    kind: str = "dialogue"
    speaker: str = ""


@dataclass(frozen=True)
class ExportedPanel:
    """A panel, in pixels of its image.

    Attributes:
        box: x, y, width, height.
        text: what it says; what `texts` say is part of it.
        polygon: its corners, where it is no upright rectangle.
        confidence: 0 to 1, None where nobody said.
        texts: texts whose places are known.
    """

    box: Box
    text: str
    polygon: tuple[tuple[float, float], ...] | None = None
    confidence: float | None = None
    texts: tuple[Text, ...] = ()

    @property
    def other_text(self) -> str:
        """What it says beside the texts whose places are known."""
        placed = " ".join(t.text for t in self.texts if t.kind not in APART)
        return "" if self.text == placed else self.text.removesuffix(placed).strip() if placed else self.text


@dataclass(frozen=True)
class ExportedPage:
    """A page that has an image.

    Attributes:
        page_id: canonical id.
        book: name of the book.
        image: the file.
        file_name: its path below the folder that all images share, with "/".
        size: (width, height) in pixels.
        panels: in reading order.
        texts: texts in no panel.
        label: page type, "" where there is no labels file.
        right_to_left: direction of reading.
        double: whether the image shows two pages.
        series: series and number, "" where nobody said.
        language: ISO code, likewise.
    """

    page_id: str
    book: str
    image: Path
    file_name: str
    size: tuple[int, int]
    panels: tuple[ExportedPanel, ...]
    texts: tuple[Text, ...] = ()
    label: str = ""
    right_to_left: bool = False
    double: bool = False
    series: str = ""
    language: str = ""


@dataclass
class LeftOut:
    """Pages that cannot be exported: how many by reason, and the first of each."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, what: str) -> None:
        """Count a page."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self.first.setdefault(reason, what)


def exported_pages(config: Config, left_out: LeftOut) -> list[ExportedPage]:
    """All pages of a data set that have an image, whatever their label.

    Args:
        config: settings that name the data set.
        left_out: counts the others.

    Raises:
        ConfigError, DataError: there is no data set, or none of its pages can be exported.
    """
    source = source_of(config)
    report = DataReport()
    manifest = read_manifest(source.manifest, report, skip_bad_rows=config.skip_bad_rows)
    labels = _labels(source, manifest, config)
    finder = ImageFinder(report, source.remap, source.manifest.resolve().parent)
    found: list[tuple[int, str, Any]] = []
    for row, value in _values(source, manifest, left_out):
        image = finder.find(str(manifest.images[row]), str(manifest.ids[row]))
        if image:
            found.append((row, image, value))
        else:
            left_out.add("without an image", str(manifest.ids[row]))
    known, corrections = _known(source, found), read_corrections(source.panels)
    root = _common([image for _, image, _ in found])
    pages = []
    for row, image, value in sorted(found, key=lambda entry: entry[0]):
        name, page_id = Path(os.path.relpath(image, root)).as_posix(), str(manifest.ids[row])
        try:
            page = _page(
                *(source, known, value, page_id, Path(image), name, str(manifest.books[row]), labels[row]),
                corrections.get(page_id),
            )
        except PageProblem as problem:
            left_out.add(problem.code, f"{page_id}: {problem.detail}")
        except images.ImageProblem as problem:
            left_out.add(f"image:{problem.code}", problem.detail)
        else:
            pages.append(page)
    if not pages:
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in left_out.counts.items()) or "no page is listed"
        raise DataError(f"{source.name}: no page can be exported ({reasons})")
    return pages


def _known(source: DataSource, found: Sequence[tuple[int, str, Any]]) -> dict[str, Any]:
    """What holds for the whole source, as the readers decide it: how boxes are written, which words are no text."""
    preview = Preview(source)
    for at in np.linspace(0, len(found) - 1, min(len(found), SAMPLE)).astype(np.int64).tolist():
        _, image, value = found[at]
        with suppress(PageProblem):
            preview.add(READERS[source.panel_format].page(value, source, unheard), partial(_size_or_none, Path(image)))
    return preview.decide(len(found))


def _size_or_none(image: Path) -> tuple[int, int]:
    with suppress(images.ImageProblem):
        return images.page_size(image)
    return 0, 0


def _labels(source: DataSource, manifest: Manifest, config: Config) -> list[str]:
    if source.labels is None:
        return [""] * len(manifest)
    report = DataReport()
    labels = read_labels(source.labels, config.keep_labels, report)
    codes = labels.of_pages(manifest.ids, report, manifest.books)
    return ["" if code < 0 else labels.names[code] for code in np.asarray(codes).tolist()]


def _values(source: DataSource, manifest: Manifest, left_out: LeftOut) -> Iterator[tuple[int, Any]]:
    """(row of the manifest, parsed panel file) of every page that has one that parses."""
    report = DataReport()
    items = READERS[source.panel_format].items
    if items is not None:
        rows = {page_id: row for row, page_id in enumerate(manifest.ids.to_pylist())}
        for page_id, value in items(source.panels):
            if page_id in rows:
                yield rows[page_id], value
        return
    listing = scan(source.panels, report)
    names = listing.names.to_pylist()
    found = resolve(manifest.ids, NameIndex(listing.names), report, "panel_file", manifest.books)
    for row, at in enumerate(found.row.tolist()):
        if at < 0:
            left_out.add("without a panel file", str(manifest.ids[row]))
            continue
        try:
            yield row, read_json(source.panels / f"{names[at]}.json")
        except PageProblem as problem:
            left_out.add(problem.code, f"{names[at]}.json: {problem.detail}")


def _common(paths: list[str]) -> str:
    """The folder that all images share; of a single folder the one above it, so that names still say the book."""
    folders = {os.path.dirname(path) for path in paths}  # noqa: PTH120 - texts, many of them
    if len(folders) == 1:
        return os.path.dirname(next(iter(folders)))  # noqa: PTH120
    try:
        return os.path.commonpath(folders) if folders else ""
    except ValueError:  # drives of Windows share nothing
        raise DataError("images lie on several drives: export one drive at a time") from None


def _page(
    source: DataSource,
    known: Mapping[str, Any],
    value: Any,
    page_id: str,
    image: Path,
    name: str,
    book: str,
    label: str,
    correction: Correction | None,
) -> ExportedPage:
    size = images.page_size(image)
    raw = READERS[source.panel_format].page(value, source, unheard)
    panels: list[Panel] = []
    if raw.panels or correction is not None:
        info = PageInfo(page_id, lambda: size, unheard, known["no_text"], notations(known), correction)
        panels, _ = finish(raw, info, MANY)
    redrawn = {p.of for p in correction.panels if p.box} if correction is not None else set()
    scale = _scale(value, size)
    entries = value.get("panels") if isinstance(value, dict) else None
    entries = entries if isinstance(entries, list) else []
    made = [
        _panel(
            panel,
            entries[panel.source_index] if panel.source_index < len(entries) else None,
            size,
            scale,
            redrawn=panel.source_index in redrawn,
        )
        for panel in panels
        if panel.box is not None
    ]
    details: Mapping[str, Any] = value if isinstance(value, dict) else {}
    said = {k: details[k] for k in ("series", "language") if isinstance(details.get(k), str)}
    return ExportedPage(
        page_id,
        book,
        image,
        name,
        size,
        tuple(made),
        _texts(details.get("texts"), scale),
        label,
        details.get("right_to_left") is True,
        details.get("double_page") is True,
        **said,
    )


def _scale(value: Any, size: tuple[int, int]) -> tuple[float, float]:
    """What coordinates of the panel file are multiplied with to count in pixels of the image."""
    wide, high = (number(value.get(k)) if isinstance(value, dict) else None for k in ("image_width", "image_height"))
    return (size[0] / wide, size[1] / high) if wide and high else (1.0, 1.0)


def _panel(
    panel: Panel, entry: Any, size: tuple[int, int], scale: tuple[float, float], *, redrawn: bool
) -> ExportedPanel:
    """A panel; a box that was drawn by hand is no longer the polygon that its file has."""
    assert panel.box is not None
    x, y, w, h = panel.box
    box = (x * size[0], y * size[1], w * size[0], h * size[1])
    details: Mapping[str, Any] = entry if isinstance(entry, dict) else {}
    return ExportedPanel(
        _rounded(box),
        " ".join(filter(None, (panel.dialogue, panel.description))),
        None if redrawn else _polygon(details.get("polygon"), scale),
        None if redrawn else number(details.get("confidence")),
        _texts(details.get("texts"), scale),
    )


def _polygon(value: Any, scale: tuple[float, float]) -> tuple[tuple[float, float], ...] | None:
    rows = [[number(v) for v in row] for row in value if isinstance(row, list)] if isinstance(value, list) else []
    if len(rows) < 3 or any(len(row) != 2 or None in row for row in rows):
        return None
    return tuple((round(x * scale[0], 2), round(y * scale[1], 2)) for x, y in rows if x is not None and y is not None)


def _texts(value: Any, scale: tuple[float, float]) -> tuple[Text, ...]:
    made = []
    for entry in value if isinstance(value, list) else ():
        box = four(entry.get("bbox"))[0] if isinstance(entry, dict) else None
        if box is not None and isinstance(entry.get("text"), str) and entry["text"].strip():
            placed = (box[0] * scale[0], box[1] * scale[1], box[2] * scale[0], box[3] * scale[1])
            kind, speaker = str(entry.get("kind") or "dialogue"), str(entry.get("speaker") or "")
            made.append(Text(" ".join(entry["text"].split()), _rounded(placed), kind, speaker))
    return tuple(made)


def _rounded(box: Box) -> Box:
    return round(box[0], 2), round(box[1], 2), round(box[2], 2), round(box[3], 2)
