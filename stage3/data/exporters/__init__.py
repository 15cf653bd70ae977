"""Panels of a data set for other tools: COCO, Kumiko and CVAT as one file, ACBF as one CBZ per book.

`export_panels(source, out, format)` writes every page that has an image, whatever its label, with its panels as they
are now: given, found, or corrected by hand. What is written can be imported again; `docs/formats.md` says what each
format can hold.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stage3.config import Config, nearest
from stage3.data.exporters import acbf, coco, cvat, kumiko
from stage3.data.exporters.pages import ExportedPage, LeftOut, exported_pages
from stage3.data.importers.naming import safe_name
from stage3.errors import ConfigError, DataError
from stage3.storage import make_folder, replace_file, replacing

DOCUMENTS: dict[str, Callable[[Sequence[ExportedPage]], bytes]] = {
    "coco": coco.document,
    "kumiko": kumiko.document,
    "cvat": cvat.document,
}
FORMATS = (*DOCUMENTS, "acbf")


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        files: the files.
        pages, panels: how many are in them.
        left_out: pages that are not, by reason, with the first of each.
    """

    files: tuple[Path, ...]
    pages: int
    panels: int
    left_out: LeftOut


def export_panels(source: Path | str | Config, out: Path | str, format: str) -> Exported:
    """Write the panels of a data set for other tools; see `docs/formats.md`.

    Args:
        source: folder of the data set, or settings that name it.
        out: the file, or for acbf the folder of one CBZ per book.
        format: "coco", "kumiko", "cvat" or "acbf".

    Raises:
        ConfigError: an unknown format.
        DataError: there is no data set, or none of its pages has an image.
        StorageError: it cannot be written.
    """
    if format not in FORMATS:
        raise ConfigError(f"format: {format!r} is not one of {', '.join(FORMATS)}.{nearest(format, FORMATS)}")
    config = source if isinstance(source, Config) else Config(data=str(source))
    left_out = LeftOut()
    pages = exported_pages(config, left_out)
    target = Path(out)
    files = _books(target, pages) if format == "acbf" else _document(target, DOCUMENTS[format](pages))
    return Exported(tuple(files), len(pages), sum(len(page.panels) for page in pages), left_out)


def _document(target: Path, data: bytes) -> list[Path]:
    if target.is_dir():
        raise DataError(f"{target}: is a folder; name a file")
    make_folder(target.parent)
    replace_file(target, data)
    return [target]


def _books(target: Path, pages: Sequence[ExportedPage]) -> list[Path]:
    if target.exists() and not target.is_dir():
        raise DataError(f"{target}: is a file; acbf writes a folder with one CBZ per book")
    files = []
    for book, some in acbf.books(pages).items():
        path = target / f"{safe_name(book).replace('/', ' - ')}.cbz"
        make_folder(path.parent)
        with replacing(path) as scratch, scratch.open("wb") as file:
            assert isinstance(file, io.BufferedIOBase)
            acbf.archive(book, some, file)
        files.append(path)
    return files


__all__ = ["FORMATS", "Exported", "export_panels"]
