"""Reading a data set once: the table is kept as Parquet under a key that hashes everything it was made from."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stage3.cli import counted
from stage3.config import Config
from stage3.data.readers.corrections import place as place_of_corrections
from stage3.data.readers.formats import READERS
from stage3.data.readers.image_files import Stamp
from stage3.data.readers.names import Listing, chunks, scan
from stage3.data.readers.rows import build
from stage3.data.readers.sight import format_hint, sight_problems
from stage3.data.readers.source import DataSource, source_of
from stage3.data.seal import is_sealed, seal
from stage3.data.splits import split_books, split_sizes
from stage3.data.table import UNWANTED, DataReport, PanelTable
from stage3.errors import DataError, StorageError
from stage3.processes import pid_alive
from stage3.storage import file_sha256, rename, sha256

MOST_BOOKS = 20  # named in the report with their page counts
VERSION = 5  # of the rules: a change to what a reader makes of the same files raises it
LOOKED_AT = "image_folders.json"
# Not faults of a page: it is listed, and just not part of what is trained on, or nothing was ever found on it.
NOT_DAMAGE = frozenset({*UNWANTED, "no_panel_file", "panel_file_ambiguous", "no_panels"})


def load(config: Config, *, refresh: bool = False) -> PanelTable:
    """The panel table of the data set that the settings name, fit to train on; see `read`.

    Raises:
        ConfigError, DataError, StorageError: as `read`.
        DataError: nothing is left to train on, or more than `max_skip_fraction` of the pages that the labels keep are
            damaged, or too many panels have no box (`max_without_box`) or pages no image (`max_without_image`).
    """
    table = read(config, refresh=refresh)
    problem = nothing_left(table.report) or refusal(table.report, config)
    if problem:
        raise DataError(f"{problem}{format_hint(source_of(config))}")
    return table


def refusal(report: DataReport, config: Config) -> str:
    """Why a run would refuse to start on this data, "" when it would not."""
    return " ".join(filter(None, [damage_problem(report, config), *(f"{p}." for p in sight_problems(report, config))]))


def read(config: Config, *, refresh: bool = False) -> PanelTable:
    """The panel table of a data set, from its files the first time and then from the cache, however much is damaged.

    The cache is used only while manifest, labels, panel files and images (path, size, time), image folders and the
    settings that matter are the same. `refresh` reads everything again.

    Raises:
        ConfigError: the settings name no data set, or its dataset.yaml has an unknown key.
        DataError: the manifest or the labels cannot be used.
        StorageError: the cache folder cannot be written.
    """
    scanned = DataReport()
    source, listing, folder = _place(config, scanned)
    texts = Path(config.cache_dir) / "texts"
    table = None if refresh else _cached(folder, texts)
    if table is None:
        _make(config, source, listing, scanned, folder)
        table = PanelTable.load(folder, texts)
    table.report.facts["source"] = {
        "name": source.name,
        "format": source.panel_format,
        "manifest": str(source.manifest),
        "panels": str(source.panels),
        "labels": str(source.labels or ""),
        "table": str(folder),
    }
    table.report.facts["splits"] = _planned_splits(table, config)
    return table


def stamp(config: Config) -> str:
    """A text that changes when `read` would give another table or images have changed; "" before the first `read`.

    Raises:
        ConfigError, DataError: as `read`.
    """
    _, _, folder = _place(config)
    try:
        looked = _looked_at(folder)
        column = pq.read_table(folder / "pages.parquet", columns=["image_path"])["image_path"]
        images = _stamp_of(looked, (path for chunk in column.chunks for part in chunks(chunk) for path in part))
        folders = sorted((name, _mtime(name)) for name in looked["folders"])
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return ""
    return sha256(f"{folder.name} {images} {folders}".encode())[:24]


def _place(config: Config, report: DataReport | None = None) -> tuple[DataSource, Listing | None, Path]:
    """The data set, its panel files as they are now, and the folder of a table that was made of these."""
    source = source_of(config)
    listing = None if READERS[source.panel_format].items else scan(source.panels, report)
    return source, listing, Path(config.cache_dir) / "tables" / _key(config, source, listing)


def _key(config: Config, source: DataSource, listing: Listing | None) -> str:
    parts = {
        "version": VERSION,
        "manifest": _digest(source.manifest),
        "folder": str(source.manifest.resolve().parent),  # relative image paths start here
        "labels": _digest(source.labels) if source.labels else "",
        "panels": [str(source.panels.resolve()), listing.digest if listing else _digest(source.panels)],
        "format": [source.panel_format, source.box_order, source.box_unit, source.remap],
        "settings": [list(config.keep_labels), config.max_panels, config.limit_pages, config.max_megapixels],
        "skip_bad_rows": config.skip_bad_rows,
    }
    if config.allow_remote_images:
        parts["remote"] = True
    corrections = place_of_corrections(source.panels)
    if corrections.exists():
        parts["corrections"] = _digest(corrections)
    return sha256(json.dumps(parts, sort_keys=True).encode())[:24]


def _digest(path: Path) -> str:
    try:
        return file_sha256(path, links=True)
    except StorageError as error:
        raise DataError(str(error)) from None


def _cached(folder: Path, texts: Path | None = None) -> PanelTable | None:
    """The table in the folder; None when there is none, it is damaged, or an image or image folder has changed."""
    if not is_sealed(folder):
        return None
    try:
        looked = _looked_at(folder)
        if any(_mtime(name) != time for name, time in looked["folders"].items()):
            return None
        table = PanelTable.load(folder, texts)
        unchanged = _stamp_of(looked, table.pages["image_path"]) == looked["images"]
        table.give_back()
        return table if unchanged else None
    except (DataError, OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None


def _looked_at(folder: Path) -> dict[str, Any]:
    """What a table was made of beside its panel files: image folders, the stamp of all images, images of no page."""
    looked: dict[str, Any] = json.loads((folder / LOOKED_AT).read_text(encoding="utf-8"))
    return looked


def _stamp_of(looked: dict[str, Any], paths: Iterable[str]) -> str:
    """The stamp of the images of a table's pages, and of those of pages that were left out, as they are now."""
    found = Stamp()
    for path in chain(paths, looked["unused"]):
        if path:
            found.add(path)
    return str(found)


def _mtime(folder: str) -> int:
    try:
        return os.stat(folder).st_mtime_ns  # noqa: PTH116 - many folders
    except OSError:
        return -1


def _make(config: Config, source: DataSource, listing: Listing | None, scanned: DataReport, folder: Path) -> None:
    """Build in a folder of its own and put it in place at once, so that no reader ever sees half a table."""
    work = folder.with_name(f".{folder.name}.{os.getpid()}")
    _clear_dead(folder.parent)
    try:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        report, images = build(config, source, listing, work)
        for code, n in scanned.counts.items():
            report.counts[code] += n
            report.examples[code] = scanned.examples[code]
        (work / "report.json").write_text(json.dumps(report.to_dict(), ensure_ascii=False), encoding="utf-8")
        table = PanelTable.load(work, Path(config.cache_dir) / "texts")
        table.report.facts.update(table_facts(table))
        (work / "report.json").write_text(json.dumps(table.report.to_dict(), ensure_ascii=False), encoding="utf-8")
        looked = {"folders": images.folders, "images": str(images.stamp), "unused": images.unused}
        (work / LOOKED_AT).write_text(json.dumps(looked, ensure_ascii=False), encoding="utf-8")
        seal(work)
        _put_in_place(work, folder)
    except OSError as error:
        raise StorageError(
            f"{folder}: the panel table cannot be written: {error.strerror or error}. "
            "Name another folder with --cache_dir."
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _clear_dead(tables: Path) -> None:
    """Remove what processes left that were killed while they built a table."""
    for entry in tables.glob(".*"):
        pid = entry.name.removesuffix(".old").rpartition(".")[2]
        if pid.isdecimal() and not pid_alive(int(pid)):
            shutil.rmtree(entry, ignore_errors=True)


def _put_in_place(work: Path, folder: Path) -> None:
    """Rename, so that another process sees the old table or the new one; if it was quicker, its table is as good."""
    old = work.with_name(f"{work.name}.old")
    if folder.exists():
        rename(folder, old)
    try:
        rename(work, folder)
    except OSError:
        if not (folder / LOOKED_AT).is_file():
            raise
    shutil.rmtree(old, ignore_errors=True)


def table_facts(table: PanelTable) -> dict[str, object]:
    """What one first asks of a data set: how many panels per page, how much text, how many boxes."""
    per_page = table.pages["n_panels"].to_numpy()
    numbers, pages = np.unique(per_page, return_counts=True)
    dialogue, description = table.has_text("dialogue"), table.has_text("description")
    per_book = table.pages["book_id"].value_counts()
    no_image = (table.pages["image_path"] == "").to_numpy()
    return {
        "panels": len(table),
        "books": len(per_book),
        "pages_per_book": {str(book): int(n) for book, n in sorted(per_book.items(), key=_largest)[:MOST_BOOKS]},
        "books_of_one_page": int((per_book == 1).sum()),
        "panels_per_page": {str(n): int(k) for n, k in zip(numbers, pages, strict=True)},
        "single_panel_share": _share(per_page == 1),
        "textless_share": _share(~(dialogue | description)),
        "dialogue_share": _share(dialogue),
        "description_share": _share(description),
        "boxless_share": _share(~table.has_box),
        "no_picture_share": _share(no_image),
        **_spans(table),
        "pages_by_type": {str(k): int(v) for k, v in table.pages["page_type"].value_counts().items()},
    }


def _largest(book: tuple[Any, int]) -> tuple[int, str]:
    return -book[1], str(book[0])


def _spans(table: PanelTable) -> dict[str, int]:
    """Panels that cross their page from side to side, and from top to bottom.

    Comics are drawn in rows: where far more panels are columns, x and y of the boxes may be swapped. No single page
    tells; a person must look.
    """
    w, h = (table.panels[c].to_numpy() for c in "wh")
    return {"wide_panels": int(((w > 0.8) & (h < 0.6)).sum()), "tall_panels": int(((h > 0.8) & (w < 0.6)).sum())}


def _share(which: np.ndarray) -> float:
    return round(float(which.mean()), 6) if len(which) else 0.0


def _planned_splits(table: PanelTable, config: Config) -> dict[str, object]:
    """Sizes of the splits that a new run would have; `problem` instead when the books do not allow one."""
    if not len(table.pages):
        return {}
    try:
        split = split_books(table, config.val_fraction, config.test_fraction, config.split_seed)
    except DataError as error:
        return {"problem": str(error)}
    return {**split_sizes(table, split)}


def damaged_pages(report: DataReport) -> int:
    """Pages left out because something is wrong with them, rather than because of their label or emptiness."""
    return sum(n for reason, n in report.skipped.items() if reason not in NOT_DAMAGE)


def damage_problem(report: DataReport, config: Config) -> str:
    """Which pages are damaged, where they are too many to train on, "" where they are not."""
    damaged, considered = damaged_pages(report), int(report.facts.get("considered", report.pages_listed))
    if damaged <= config.max_skip_fraction * considered:
        return ""
    reason = next(r for r, _ in report.skipped.most_common() if r not in NOT_DAMAGE)
    first = (report.examples.get(f"page:{reason}") or [""])[0]
    return (
        f"{damaged:,} of {considered:,} pages are damaged, more than max_skip_fraction {config.max_skip_fraction:g}; "
        f"the most frequent reason is {reason}, first {first}{label_remedy(report, reason)}. "
        "See `python -m stage3.data check`, then repair them or raise --max_skip_fraction."
    )


def label_remedy(report: DataReport, reason: str) -> str:
    """Which labels there are to choose from, when a label is why pages are left out; "" for other reasons."""
    if reason not in {"label", "label_unknown"}:
        return ""
    fact, what = ("labels", "Labels") if reason == "label" else ("unknown_labels", "Unknown labels")
    found = ", ".join(f"{name} {n:,}" for name, n in report.facts.get(fact, {}).items())
    return f". {what} found: {found}; choose those to use with --keep_labels"


def nothing_left(report: DataReport) -> str:
    """Why nothing is left to train on, "" when something is."""
    if report.pages_kept:
        return ""
    reasons = ", ".join(f"{reason} {n:,}" for reason, n in report.skipped.most_common(5)) or "no page is listed"
    first = next((f"; first {e[0]}" for c, e in report.examples.items() if c.startswith("page:") and e), "")
    remedy = label_remedy(report, next(iter(report.skipped.most_common(1)), ("", 0))[0])
    listed = counted(report.pages_listed, "page")
    return f"nothing is left to train on: {listed} listed, none kept ({reasons}{first}){remedy}"
