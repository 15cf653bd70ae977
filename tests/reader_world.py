"""Small data sets on disk for the tests of readers: clean pages in every style, to which one bad page is added."""

from __future__ import annotations

import functools
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from stage3.config import Config
from stage3.data import readers
from stage3.data.table import PanelTable

SIZE = (200, 300)  # pixels of every image
CLEAN = [f"Book {b}/#p{p:03d} é" for b in "AB" for p in range(3)]


def vlm_page(n: int = 2, **changes: Any) -> dict[str, Any]:
    """A sound vlm page of n panels stacked from top to bottom."""
    panels = []
    for i in range(n):
        box = [round(1000 * i / n), 0, round(1000 * (i + 1) / n) - 20, 1000]
        text = [{"label": "dialogue", "speaker": "Ann", "text": f"line {i}"}]
        panels.append({"panel_number": i + 1, "box_2d": box, "description": f"scene {i}", "text_content": text})
    return {"overall_summary": "a page", "panels": panels, **changes}


def ocr_page(n: int = 2, **changes: Any) -> dict[str, Any]:
    height = SIZE[1] / n
    panels = [{"bbox": [0.0, i * height, 200.0, height - 6], "text": f"line {i}", "confidence": 0.9} for i in range(n)]
    return {"image_width": SIZE[0], "image_height": SIZE[1], "panels": panels, "full_page_text": "", **changes}


def aligned_page(page_id: str, panels: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    size = {"image_width": SIZE[0], "image_height": SIZE[1]}
    return {"sequence_index": 0, "canonical_id": page_id, "overall_summary": "", **size, "panels": panels, **changes}


@functools.cache
def _plain(size: tuple[int, int], color: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, "PNG")
    return file.getvalue()


@dataclass
class World:
    """A data set below `root`; `ids` are listed in the manifest in this order."""

    root: Path
    style: str = "vlm"

    def __post_init__(self) -> None:
        self.ids = list(CLEAN)
        self.rows: list[str] = []
        (self.root / "panels").mkdir(parents=True)
        for number, page_id in enumerate(self.ids):
            self.image(page_id, color=(number * 20, 90, 90))
            self.page(page_id, (vlm_page if self.style == "vlm" else ocr_page)(1 + number % 3))

    def image(self, page_id: str, size: tuple[int, int] = SIZE, color: tuple[int, int, int] = (1, 2, 3)) -> Path:
        path = self.root / "images" / f"{page_id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_plain(size, color))
        return path

    def page(self, page_id: str, content: Any) -> Path:
        """Write a page's panel file: bytes and text as they are, anything else as JSON."""
        path = self.root / "panels" / f"{page_id}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    def bad_page(self, content: Any, page_id: str = "Book B/bad", size: tuple[int, int] = SIZE) -> str:
        """Add the page under test in the middle of the manifest."""
        self.ids.insert(3, page_id)
        self.image(page_id, size)
        self.page(page_id, content)
        return page_id

    def write_manifest(self) -> Path:
        path = self.root / "manifest.csv"
        lines = ["canonical_id,absolute_image_path", *(f'"{i}","images/{i}.png"' for i in self.ids), *self.rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    def config(self, **settings: Any) -> Config:
        manifest = self.root / "manifest.csv"
        base = {
            "manifest": str(manifest if manifest.exists() else self.write_manifest()),
            "panels": str(self.root / "panels"),
            "panel_format": self.style,
            "cache_dir": str(self.root / "cache"),
            "max_skip_fraction": 1.0,
            "max_without_box": 1.0,
            "max_without_image": 1.0,
        }
        return Config(**{**base, **settings})

    def load(self, **settings: Any) -> PanelTable:
        table = readers.load(self.config(**settings))
        assert_sound(table)
        return table


def assert_sound(table: PanelTable) -> None:
    """What holds for every table, whatever was read."""
    report = table.report
    assert report.pages_listed == report.pages_kept + sum(report.skipped.values())
    assert report.pages_kept == len(table.pages)
    table.check()
    boxed = table.panels[table.panels["has_box"]]
    assert (boxed[["x", "y"]] >= 0).all().all()
    assert (boxed[["w", "h"]] > 0).all().all()
    assert (boxed["x"] + boxed["w"] <= 1 + 1e-6).all()
    assert (boxed["y"] + boxed["h"] <= 1 + 1e-6).all()
    bare = table.panels[~table.panels["has_box"]]
    assert bare[["x", "y", "w", "h"]].isna().all().all()
    assert ((bare["dialogue"] != "") | (bare["description"] != "")).all()
    for column in ("dialogue", "description", "speakers"):
        assert table.panels[column].map(lambda t: t.isascii() or t.encode() is not None).all()


def clean_rows(table: PanelTable) -> pd.DataFrame:
    """All panels of the clean pages, joined with their page, without row numbers that depend on other pages."""
    pages = table.pages.drop(columns=["first_panel"])
    joined = table.panels.merge(pages, left_on="page", right_index=True)
    return joined[joined["page_id"].isin(CLEAN)].drop(columns=["page"]).reset_index(drop=True)


def assert_clean_pages_unchanged(table: PanelTable, reference: PanelTable) -> None:
    """The clean pages are the same to the bit (the folder of the images aside)."""
    ours, theirs = (clean_rows(t).drop(columns=["image_path"]) for t in (table, reference))
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)


def panels_of(table: PanelTable, page_id: str) -> pd.DataFrame:
    row = table.pages.index[table.pages["page_id"] == page_id]
    return table.panels[table.panels["page"].isin(row)].reset_index(drop=True)
