"""Whether anything of the comics is seen: boxes, images, and panel files that are read in the format they have.

A data set that is read in another format than its own, or whose image paths lead nowhere, gives pages full of text
without an image: training on them would run to its end and mean nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stage3.cli import percent
from stage3.config import Config
from stage3.data.readers.jsonfile import PageProblem, read_json
from stage3.data.readers.source import DataSource
from stage3.data.table import DataReport

SAMPLED = 20  # panel files that say which format they have
KEYS = {  # of a panel; the first format with one of its keys there is the file's
    "aligned": ("rcnn_bbox", "vlm_box_2d", "vlm_box_px", "modality_mask"),
    "ocr": ("bbox",),
    "vlm": ("box_2d", "box", "bbox_2d", "text_content", "speakers"),
}
NO_IMAGE = ("image_missing", "image_path_of_another_machine", "image_remote")


def sight_problems(report: DataReport, config: Config) -> Iterator[str]:
    """What too many panels or pages lack for training to see anything, each with its remedy."""
    boxless = float(report.facts.get("boxless_share", 0.0))
    if boxless > config.max_without_box:
        yield (
            f"{percent(boxless)} of the panels have no box, more than max_without_box "
            f"{percent(config.max_without_box)}: neither their image nor their layout is seen. "
            "If only their text is meant to be used, raise --max_without_box"
        )
    without = float(report.facts.get("no_picture_share", 0.0))
    if without > config.max_without_image:
        first = next((f", first {report.examples[code][0]}" for code in NO_IMAGE if report.examples.get(code)), "")
        yield (
            f"{percent(without)} of the pages have no image, more than max_without_image "
            f"{percent(config.max_without_image)}{first}. "
            + ("Let URLs be read with --allow_remote_images, " if report.counts.get("image_remote") else "")
            + "Correct the manifest's paths, map them with --remap OLD=NEW, or raise --max_without_image"
        )


def format_hint(source: DataSource) -> str:
    """A sentence that names the format that the panel files seem to have, "" where it is the one they are read in."""
    looks = Counter(format_of(value) for value in _sample(source.panels)) if source.panels.is_dir() else Counter()
    looks.pop("", None)
    if not looks or looks.most_common(1)[0][0] == source.panel_format:
        return ""
    found = looks.most_common(1)[0][0]
    return (
        f" The panel files look like {found}, but are read as {source.panel_format}: "
        f"set panel_format to {found} (--panel_format {found}, or in dataset.yaml)."
    )


def format_of(value: Any) -> str:
    """The format that one panel file seems to have by the fields of its panels, "" where they tell nothing."""
    pages = value if isinstance(value, list) else [value]
    for page in pages[:SAMPLED]:
        panels = page.get("panels") if isinstance(page, dict) else None
        panels = list(panels.values()) if isinstance(panels, dict) else panels
        for panel in panels if isinstance(panels, list) else ():
            for name, keys in KEYS.items():
                if isinstance(panel, dict) and any(key in panel for key in keys):
                    return name
    return ""


def _sample(folder: Path) -> Iterator[Any]:
    """The first few panel files that can be read."""
    found = 0
    for path in folder.rglob("*.json"):
        if found == SAMPLED:
            return
        try:
            value = read_json(path)
        except PageProblem:
            continue
        found += 1
        yield value
