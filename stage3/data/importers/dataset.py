"""What names all pages of a data set folder: manifest, labels, dataset.yaml, and the report of the import."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stage3.data.importers.journal import Done
from stage3.data.readers.manifest_rows import COLUMNS
from stage3.data.readers.source import YAML_NAME
from stage3.storage import replace_file

if TYPE_CHECKING:
    from stage3.data.importers.summary import Summary

MADE_BY = "python -m stage3.data import"
MANIFEST, LABELS, PANELS, REPORT = "manifest.csv", "labels.json", "panels", "import_report.json"


def write_dataset(out: Path, pages: Sequence[Done], summary: Summary) -> None:
    """Write what names all pages; dataset.yaml comes last, so that an unfinished first import is no data set yet."""
    used = [done for done in pages if done.problem is None]
    _write(out / MANIFEST, _manifest(used))
    _write(out / LABELS, _json({done.id: done.label for done in used}))
    _write(out / REPORT, _json(summary.to_dict()))
    _write(out / YAML_NAME, _yaml(out))


def _write(path: Path, text: str) -> None:
    """Write a file, unless it is so already."""
    data = text.encode()
    if not path.is_file() or path.read_bytes() != data:
        replace_file(path, data)


def _manifest(pages: Sequence[Done]) -> str:
    made = io.StringIO()
    writer = csv.writer(made, lineterminator="\n")
    writer.writerow([*COLUMNS, "book"])
    writer.writerows([done.id, done.image, done.book] for done in pages)
    return made.getvalue()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"


def _yaml(out: Path) -> str:
    name = json.dumps(out.resolve().name, ensure_ascii=False)  # a JSON string is YAML too
    parts = [
        ("manifest", MANIFEST),
        ("panels", PANELS),
        ("panel_format", "ocr"),
        ("labels", LABELS),
        ("made_by", MADE_BY),
    ]
    return "".join([f"name: {name}\n", *(f"{key}: {value}\n" for key, value in parts)])
