"""Why one page is, or is not, in the panel table: its file read again, panel by panel, with what happened to each."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stage3.config import Config
from stage3.data import images, remote
from stage3.data.readers import READERS, DataSource, PageProblem, source_of
from stage3.data.readers.boxes import four
from stage3.data.readers.corrections import read_corrections
from stage3.data.readers.jsonfile import read_json, unheard
from stage3.data.readers.labels import read_labels
from stage3.data.readers.manifest import read_manifest, remapped
from stage3.data.readers.names import exact_key, stem_key
from stage3.data.readers.preview import notations
from stage3.data.readers.rules import Note, PageInfo, Panel, RawPage, RawPanel, finish, flatten
from stage3.data.readers.units import Notation, corners
from stage3.data.table import DataReport, PanelTable

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class PanelCheck:
    """One entry of a page's file.

    Attributes:
        index: its position in the file, from 0; of a panel that was added by hand behind those of the file.
        order: its place in reading order among the kept panels, None when it was dropped.
        box: x, y, w, h as shares of the page: the one that is used, or of a dropped panel the one its file gives.
        text: dialogue and description.
        notes: (code, detail) of everything that happened to it.
    """

    index: int
    order: int | None
    box: Box | None
    text: str
    notes: list[tuple[str, str]]


@dataclass(frozen=True)
class PageCheck:
    """One listed page.

    Attributes:
        page_id: canonical id.
        image: path of its image, "" when it is missing.
        file: path of its panel file, "" when none is found by its exact id.
        problem: (reason, detail) why its file is refused, None when panels can be read from it.
        panels: every entry of the file.
        notes: (code, detail) of what concerns the page itself.
    """

    page_id: str
    image: str
    file: str
    problem: tuple[str, str] | None
    panels: list[PanelCheck]
    notes: list[tuple[str, str]]


def listed_pages(config: Config) -> pd.DataFrame:
    """All pages of the manifest: page_id, image (as written), label ("" without one), one row per page.

    Raises:
        ConfigError, DataError: the data set, its manifest or labels cannot be read.
    """
    source = source_of(config)
    manifest = read_manifest(source.manifest, DataReport(), skip_bad_rows=config.skip_bad_rows)
    if config.limit_pages:
        manifest = manifest.head(config.limit_pages)
    frame = pd.DataFrame(
        {"page_id": manifest.ids.to_pandas(), "image": manifest.images.to_pandas(), "label": [""] * len(manifest)}
    )
    if source.labels is not None:
        report = DataReport()
        labels = read_labels(source.labels, config.keep_labels, report)
        codes = labels.of_pages(manifest.ids, report, manifest.books)
        names = np.array([*labels.names, "", ""], dtype=object)  # missing and invalid codes are negative
        frame["label"] = names[np.maximum(codes, -2)]
    return frame


def left_out(listed: pd.DataFrame, table: PanelTable) -> pd.DataFrame:
    """The listed pages that the table does not hold, with `reason` where the report or the label knows it.

    Args:
        listed: from `listed_pages`.
        table: the panel table of the same data set.
    """
    kept = set(table.pages["page_id"])
    out = listed[[page not in kept for page in listed["page_id"]]].reset_index(drop=True)
    known: dict[str, str] = {}
    root = (table.report.facts.get("source") or {}).get("panels", "")
    for code, texts in table.report.examples.items():
        if code.startswith("page:"):
            known |= {page: code.removeprefix("page:") for text in texts for page in _ids_in(text, root)}
    by_label = table.report.skipped.get("label", 0) > 0
    kept_labels = set(table.pages["page_type"])
    reasons = []
    for page, label in zip(out["page_id"], out["label"], strict=True):
        guess = "label" if by_label and label and label not in kept_labels else ""
        reasons.append(known.get(page, guess))
    return out.assign(reason=reasons)


def _ids_in(text: str, root: str) -> list[str]:
    """What may be the page id at the head of an example such as "book/p1: cover" or "panels/book/p1.json: line 3"."""
    heads = [text, *(text[: m.start()] for m in re.finditer(": ", text))]
    files = [h.removesuffix(".json") for h in heads if h.endswith(".json")]
    below = [f.removeprefix(root).lstrip("/\\") for f in files if root]
    return [*heads, *files, *(f.replace("\\", "/") for f in below)]


def check_page(config: Config, page_id: str, image: str = "", facts: Mapping[str, Any] | None = None) -> PageCheck:
    """Read one page again and say what becomes of each of its panels.

    Args:
        config: settings that name the data set.
        page_id: canonical id of a listed page.
        image: its image as the manifest writes it.
        facts: of the data set's report: they say which words are no text in this source and how boxes are written.

    Raises:
        ConfigError, DataError: the data set is not there.
    """
    source = source_of(config)
    known = facts or {}
    path = _image(source, image, config)
    notes: list[tuple[str, str]] = []
    file = ""

    def note(code: str, detail: str) -> None:
        notes.append((code, detail))

    try:
        value, file = panel_file(source, page_id, note)
        raw = READERS[source.panel_format].page(value, source, note)
    except PageProblem as problem:
        return PageCheck(page_id, path, file, (problem.code, problem.detail), [], notes)
    size = _size(path, config, note)
    correction = read_corrections(source.panels).get(page_id)
    info = PageInfo(page_id, lambda: size, note, known.get("no_text", {}), notations(known), correction)
    kept: list[Panel] = []
    problem_found = None
    try:
        kept, declared = finish(raw, info, config.max_panels)
        size = declared if 0 not in declared else size
    except PageProblem as problem:
        problem_found = (problem.code, problem.detail)
    places = {panel.source_index: (order, panel.box) for order, panel in enumerate(kept)}
    rescaled = any(code == "boxes_rescaled" for code, _ in notes)
    entries = [_entry(raw, i, places, info, notes, size, rescaled) for i in range(len(raw.panels))]
    entries += [PanelCheck(i, *places[i], "", []) for i in sorted(places) if i >= len(raw.panels)]  # new ones
    general = [(code, detail) for code, detail in notes if not detail.startswith("panels[")]
    return PageCheck(page_id, path, file, problem_found, entries, general)


def _image(source: DataSource, written: str, config: Config) -> str:
    path = remapped(written, source.remap, source.manifest.resolve().parent)
    if remote.is_url(path):
        return path if config.allow_remote_images else ""
    return path if os.path.isfile(path) else ""  # noqa: PTH113 - a name that is too long is no file, and no error


def _size(path: str, config: Config, note: Any) -> tuple[int, int]:
    if not path:
        return 0, 0
    try:
        return images.page_size(path, max_megapixels=config.max_megapixels)
    except images.ImageProblem as problem:
        note(f"image:{problem.code}", problem.detail)
        return 0, 0


def panel_file(source: DataSource, page_id: str, note: Note = unheard) -> tuple[Any, str]:
    """The page's parsed JSON and the file it came from, found by its id without listing the whole folder.

    Raises:
        PageProblem: there is no such file, or it cannot be read.
    """
    items = READERS[source.panel_format].items
    if items is not None:
        for name, value in items(source.panels):
            if name == page_id:
                return value, str(source.panels)
        raise PageProblem("no_panel_file", f"{source.panels.name} does not hold this page")
    key = exact_key(page_id)
    root = source.panels.resolve()
    for name in dict.fromkeys((page_id, key, stem_key(key))):
        path = os.path.join(root, f"{name}.json")  # noqa: PTH118 - as above
        if os.path.isfile(path) and Path(path).resolve().is_relative_to(root):  # noqa: PTH113
            return read_json(path, note), path
    raise PageProblem("no_panel_file", "no panel file by its exact id; other spellings are not tried here")


def _entry(
    raw: RawPage,
    index: int,
    places: dict[int, tuple[int, Box | None]],
    info: PageInfo,
    notes: list[tuple[str, str]],
    size: tuple[int, int],
    rescaled: bool,
) -> PanelCheck:
    panel = raw.panels[index]
    where = f"panels[{index}]: "
    own = [(code, detail.removeprefix(where)) for code, detail in notes if detail.startswith(where)]
    text = "" if panel is None else " ".join(filter(None, (flatten(panel.dialogue), flatten(panel.description))))
    order, box = places.get(index, (None, None))
    if order is None and panel is not None and not rescaled:
        box = _as_written(panel, info.notation(panel), size)
    return PanelCheck(index, order, box, text[:2000], own)


def _as_written(panel: RawPanel, notation: Notation, size: tuple[int, int]) -> Box | None:
    """The box of a dropped panel as its file gives it, cut to the page for drawing; None when that makes no box."""
    values, _ = four(panel.box)
    if values is None or (notation.needs_size and 0 in size):
        return None
    x0, y0, x1, y1 = corners(values, notation.order)
    wide, high = notation.scale(size).tolist()
    left, right = sorted(min(max(v / wide, 0.0), 1.0) for v in (x0, x1))
    top, bottom = sorted(min(max(v / high, 0.0), 1.0) for v in (y0, y1))
    return (left, top, right - left, bottom - top)
