"""A thinned copy of a data set: mostly single-panel, mostly textless training pages, as many real collections are.

The copy is an ordinary data set folder (manifest, one JSON per page, labels, dataset.yaml) that points at the original
images. Validation and test books stay as they are, so every model is measured on the same panels.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from stage3.batches import derived_seed
from stage3.data.splits import TRAIN
from stage3.storage import TMP, rename

if TYPE_CHECKING:
    from stage3.batches.dataset import Dataset

SINGLE, TEXTLESS = 0.85, 0.85  # shares of the training pages
SEED = 0


def write_thinned(data: Dataset, folder: Path, *, single: float = SINGLE, textless: float = TEXTLESS) -> Path:
    """Write the thinned copy of a data set, unless it is there already, and return its folder.

    Args:
        data: the data set to thin, with its split by book.
        folder: where to; an unfinished copy never has this name. The data set's fingerprint is kept beside the copy,
            and a copy of other data is written anew.
        single: share of the training pages that keep one panel, drawn at random.
        textless: share of the training pages, drawn on its own, whose panels lose their texts.
    """
    wanted = {"table": data.table.fingerprint(), "single": single, "silent": textless, "seed": SEED}
    made = folder / "thinned.json"
    if made.is_file() and json.loads(made.read_text(encoding="utf-8")) == wanted:
        return folder
    scratch = folder.with_name(f"{TMP}{folder.name}-{os.getpid()}")
    shutil.rmtree(scratch, ignore_errors=True)
    keep_one, no_text, kept = _draw(data, single, textless)
    pages = data.table.pages
    first, count = pages["first_panel"].to_numpy(), pages["n_panels"].to_numpy()
    panels = {name: column.tolist() for name, column in data.table.panels.items()}
    for row, page in enumerate(pages.itertuples()):
        rows = first[row] + np.arange(count[row])
        chosen = rows[[kept[row]]] if keep_one[row] else rows
        record = {"panels": [_panel(panels, i, number, bool(no_text[row])) for number, i in enumerate(chosen, start=1)]}
        path = scratch / "panels" / f"{page.page_id}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record | {"canonical_id": page.page_id}, ensure_ascii=False), encoding="utf-8")
    _write_lists(scratch, data)
    (scratch / "thinned.json").write_text(json.dumps(wanted), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    rename(scratch, folder)
    return folder


def _draw(data: Dataset, single: float, textless: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(P,) bool one panel is kept, (P,) bool texts go, (P,) which panel is kept; exact shares of the training pages."""
    rng = np.random.default_rng(derived_seed(SEED, "thinning"))
    training = np.flatnonzero(data.split == TRAIN)
    counts = data.table.pages["n_panels"].to_numpy()
    flags = []
    for share in (single, textless):
        flag = np.zeros(len(counts), dtype=bool)
        flag[rng.permutation(training)[: round(share * len(training))]] = True
        flags.append(flag)
    return flags[0], flags[1], rng.integers(0, counts)


def _panel(panels: Mapping[Any, list[Any]], i: int, number: int, textless: bool) -> dict[str, Any]:
    x, y, w, h = (float(panels[c][i]) for c in "xywh")
    entry: dict[str, Any] = {"panel_number": number}
    if panels["has_box"][i]:
        entry["box_2d"] = [1000 * y, 1000 * x, 1000 * (y + h), 1000 * (x + w)]
    if not textless or not panels["has_box"][i]:  # without box and text nothing would be left
        entry |= {"description": panels["description"][i], "text_content": [{"text": panels["dialogue"][i]}]}
    return entry


def _write_lists(folder: Path, data: Dataset) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("canonical_id", "absolute_image_path", "book"))
    labels = {}
    for page in data.table.pages.itertuples():
        writer.writerow((page.page_id, page.image_path, page.book_id))
        labels[page.page_id] = page.page_type or "story"
    (folder / "manifest.csv").write_text(text.getvalue(), encoding="utf-8", newline="\n")
    (folder / "labels.json").write_text(json.dumps(labels, ensure_ascii=False), encoding="utf-8")
    parts = {"name": "thinned", "manifest": "manifest.csv", "panels": "panels", "panel_format": "vlm"}
    parts |= {"box_order": "yxyx", "box_unit": "permille"}  # not told from pages of a single panel
    (folder / "dataset.yaml").write_text(yaml.safe_dump(parts | {"labels": "labels.json"}), encoding="utf-8")
