"""The panel table: one row per panel, one row per page, and the report of everything that was left out.

Every reader makes this table and everything after it reads only this. Panels of a page are contiguous and in
reading order; no row exists for a panel that has neither a usable box nor text.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from stage3.data.column_file import ColumnFile, columns_of
from stage3.data.remote import redacted
from stage3.errors import DataError

LAYOUT_MEANING = "vlm"
LAYOUT_MEANINGS = (LAYOUT_MEANING, "ocr")
"""What the 7 layout features can mean (see `PanelTable.layout`); a checkpoint records which it was trained on. New
models are trained on `LAYOUT_MEANING`; checkpoints of the original trainer may know the other."""

# One row per panel. Boxes are shares of the page (0..1, after clamping), NaN where there is none.
PANEL_COLUMNS: dict[str, str] = {
    "panel_id": "str",  # "{page_id}#{source_index}"
    "page": "int32",  # row of `pages`
    "order": "int16",  # position in reading order among the kept panels of the page, from 0
    "source_index": "int32",  # position in the page's own file, from 0
    "x": "float32",
    "y": "float32",
    "w": "float32",
    "h": "float32",
    "has_box": "bool",
    "dialogue": "str",
    "description": "str",
    "speakers": "str",  # names, comma-separated, for display only
}
# One row per page that has at least one usable panel.
PAGE_COLUMNS: dict[str, str] = {
    "page_id": "str",  # canonical id
    "book_id": "str",
    "page_type": "str",  # normalized label, "" when there is no labels file
    "image_path": "str",  # absolute on this machine, "" when the image is missing
    "image_sha256": "str",  # what its bytes must hash to, "" when the manifest does not say
    "width": "int32",  # pixels after EXIF orientation; 0 when unknown
    "height": "int32",
    "overall_summary": "str",
    "resolved_by": "str",  # exact, extension, suffix, normalized
    "first_panel": "int64",
    "n_panels": "int16",
}


AT_ONCE = 2**16  # rows whose texts are Python strings for a moment
UNWANTED = ("label", "label_missing", "bad_row")
"""Reasons of pages that were left out because somebody wants it so: no share of damage counts them, above or below."""


@dataclass
class DataReport:
    """Counts and first examples of everything a reader kept, changed or left out.

    `counts[code]` is how often an anomaly happened, `examples[code]` the first paths it hit, `skipped` one entry per
    page left out, with its reason; `seen == kept + sum of skipped` always holds for pages.
    """

    pages_listed: int = 0
    pages_kept: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)  # histograms, shares, split sizes

    MAX_EXAMPLES = 20

    def note(self, code: str, where: str, n: int = 1) -> None:
        """Count an anomaly and remember where it was first seen."""
        self.counts[code] += n
        seen = self.examples.setdefault(code, [])
        if len(seen) < self.MAX_EXAMPLES:
            seen.append(redacted(where))

    def skip(self, reason: str, where: str) -> None:
        """Count a page that is left out."""
        self.skipped[reason] += 1
        self.note(f"page:{reason}", where)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "pages_listed": self.pages_listed,
            "pages_kept": self.pages_kept,
            "skipped": dict(self.skipped),
            "counts": dict(self.counts),
            "examples": self.examples,
            **self.facts,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DataReport:
        """The inverse of `to_dict`."""
        own = {"pages_listed", "pages_kept", "skipped", "counts", "examples"}
        return cls(
            values["pages_listed"],
            values["pages_kept"],
            Counter(values["skipped"]),
            Counter(values["counts"]),
            {k: list(v) for k, v in values["examples"].items()},
            {k: v for k, v in values.items() if k not in own},
        )


@dataclass(frozen=True)
class PanelTable:
    """All usable panels of a data set.

    Attributes:
        panels: one row per panel, columns `PANEL_COLUMNS`, contiguous by page, in reading order.
        pages: one row per page, columns `PAGE_COLUMNS`.
        report: what was kept and left out.
        mapped: the files that hold its texts, where they are many: each text is read when it is asked for.
    """

    panels: pd.DataFrame
    pages: pd.DataFrame
    report: DataReport
    mapped: tuple[ColumnFile, ...] = ()

    def __len__(self) -> int:
        return len(self.panels)

    @classmethod
    def build(cls, panels: dict[str, list[Any]], pages: dict[str, list[Any]], report: DataReport) -> PanelTable:
        """From columns as lists; checks the promises in this module's docstring."""
        table = cls(
            pd.DataFrame({k: pd.Series(panels[k], dtype=t) for k, t in PANEL_COLUMNS.items()}),
            pd.DataFrame({k: pd.Series(pages[k], dtype=t) for k, t in PAGE_COLUMNS.items()}),
            report,
        )
        table.check()
        return table

    def check(self) -> None:
        """Raise DataError where the table breaks its own promises (an edited or foreign Parquet file)."""
        for frame, columns, what in (
            (self.panels, PANEL_COLUMNS, "panels"),
            (self.pages, PAGE_COLUMNS, "pages"),
        ):
            missing = [c for c in columns if c not in frame.columns]
            if missing:
                raise DataError(f"{what} table: missing column {missing[0]!r}; it has {', '.join(frame.columns)}")
        page = self.panels["page"].to_numpy()
        expected = np.repeat(np.arange(len(self.pages)), self.pages["n_panels"].to_numpy())
        if not np.array_equal(page, expected):
            raise DataError("panel table: panels are not contiguous by page, or a page has no panel")
        if pc.count_distinct(pa.array(self.pages["page_id"]), mode="all").as_py() < len(self.pages):
            first = self.pages.loc[self.pages["page_id"].duplicated(), "page_id"].iloc[0]
            raise DataError(f"panel table: page {first!r} appears twice")
        self.give_back()

    def give_back(self) -> None:
        """Let the system have the memory of texts that were read from files; they are read again when asked for."""
        for file in self.mapped:
            file.give_back()

    def parts(self) -> Iterator[np.ndarray]:
        """The rows of all panels, (n,) int64 at a time: for whoever reads all texts. What a part read is given back."""
        for start in range(0, max(len(self), 1), AT_ONCE):
            yield np.arange(start, min(start + AT_ONCE, len(self)))
            self.give_back()

    @property
    def page_of_panel(self) -> np.ndarray:
        """(V,) int64 row of `pages` for each panel."""
        return self.panels["page"].to_numpy(dtype=np.int64)

    @property
    def book_of_page(self) -> np.ndarray:
        """(P,) int64 code of each page's book, numbered in order of first appearance."""
        codes, _ = pd.factorize(self.pages["book_id"])
        return codes.astype(np.int64)

    @property
    def has_box(self) -> np.ndarray:
        """(V,) bool."""
        return self.panels["has_box"].to_numpy(dtype=bool)

    def texts(self, text_parts: str, rows: np.ndarray | None = None) -> list[str]:
        """(V,) text fed to the encoder, its parts in the order of the setting; "" when there is none.

        Dialogue usually comes first, so that truncation never drops it.

        Args:
            text_parts: the setting of this name.
            rows: (n,) only of these panels; None is all.
        """
        parts = text_parts.split("+")
        panels = self.panels[parts] if rows is None else self.panels[parts].iloc[rows]
        columns = [panels[p].tolist() for p in parts]
        return [" ".join(t for t in row if t) for row in zip(*columns, strict=True)]

    def text_column(self, text_parts: str) -> pd.Series:
        """`texts` of all panels as a column, without a Python object for each.

        Where only one of the parts is ever given it is that column itself, which may be read from a file.
        """
        given = [part for part in text_parts.split("+") if self.has_text(part).any()] or text_parts.split("+")[:1]
        if len(given) == 1:
            return self.panels[given[0]]
        return pd.concat([pd.Series(self.texts(text_parts, rows), rows, dtype="str") for rows in self.parts()])

    def has_text(self, text_parts: str) -> np.ndarray:
        """(V,) bool: `texts` has more than "" for the panel."""
        columns = [(self.panels[part] != "").to_numpy(dtype=bool) for part in text_parts.split("+")]
        has: np.ndarray = np.logical_or.reduce(columns)
        self.give_back()
        return has

    def layout(self, meaning: str = LAYOUT_MEANING) -> np.ndarray:
        """(V, 7) float32 layout features; rows of panels without them (`has_layout`) are 0.

        vlm: w/h in page units (at most 20), area share, place in reading order / 15, 0, 0, center x, center y. It is
        15, of the original trainer's 16 panels per page, whatever `max_panels` is, so that a panel's features follow
        from its page alone. ocr: w/h in pixels, area share, 0, 0, 0, center x, center y. Centers are shares of the
        page; zeros are counts that the original trainer never filled in.

        Args:
            meaning: one of `LAYOUT_MEANINGS`.
        """
        p = self.panels
        x, y, w, h = (np.nan_to_num(p[c].to_numpy(dtype=np.float32)) for c in "xywh")
        rows = np.zeros((len(p), 7), np.float32)
        if meaning == "ocr":
            width, height = (self.pages[c].to_numpy(dtype=np.float32)[self.page_of_panel] for c in ("width", "height"))
            rows[:, 0] = (w * width) / np.maximum(h * height, 1e-6)
        else:
            assert meaning == LAYOUT_MEANING, meaning
            rows[:, 0] = np.minimum(w / np.maximum(h, 1e-6), 20.0)
            rows[:, 2] = p["order"].to_numpy(dtype=np.float32) / 15
        rows[:, 1], rows[:, 5], rows[:, 6] = w * h, x + w / 2, y + h / 2
        rows[~self.has_layout(meaning)] = 0.0
        return rows

    def has_layout(self, meaning: str = LAYOUT_MEANING) -> np.ndarray:
        """(V,) bool: the panel has a box and, where the meaning needs pixels, its page's size is known."""
        if meaning != "ocr":
            return self.has_box
        known: np.ndarray = ((self.pages["width"] > 0) & (self.pages["height"] > 0)).to_numpy()
        has: np.ndarray = self.has_box & known[self.page_of_panel]
        return has

    def subset(self, page_rows: np.ndarray) -> PanelTable:
        """Only these pages (rows of `pages`), in the order given, renumbered."""
        counts = self.pages["n_panels"].to_numpy()[page_rows]
        first = self.pages["first_panel"].to_numpy()[page_rows]
        rows = np.concatenate([np.arange(f, f + n) for f, n in zip(first, counts, strict=True)] or [np.zeros(0, int)])
        panels = self.panels.iloc[rows].reset_index(drop=True)
        panels["page"] = np.repeat(np.arange(len(page_rows), dtype=np.int32), counts)
        pages = self.pages.iloc[page_rows].reset_index(drop=True)
        pages["first_panel"] = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64) if len(counts) else 0
        return PanelTable(panels, pages, self.report, self.mapped)

    def fingerprint(self) -> str:
        """SHA-256 of everything that reaches the model or the split: ids, boxes, order, texts; not local paths."""
        digest = hashlib.sha256()
        for frame, columns in (
            (self.panels, [c for c in PANEL_COLUMNS if c != "speakers"]),
            (self.pages, ["page_id", "book_id", "page_type", "n_panels"]),
        ):
            for start in range(0, len(frame), AT_ONCE):
                part = frame[columns].iloc[start : start + AT_ONCE]
                hashed = pd.util.hash_pandas_object(part, index=False, categorize=False)
                digest.update(hashed.to_numpy().astype("<u8").tobytes())
                self.give_back()
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Write panels.parquet, pages.parquet and report.json."""
        folder.mkdir(parents=True, exist_ok=True)
        self.panels.to_parquet(folder / "panels.parquet", index=False)
        self.pages.to_parquet(folder / "pages.parquet", index=False)
        (folder / "report.json").write_text(json.dumps(self.report.to_dict(), ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, texts: Path | None = None) -> PanelTable:
        """Read what `save` wrote.

        Args:
            folder: where it was saved.
            texts: folder for files of texts, see `column_file`; None reads all texts into memory, however many.

        Raises:
            DataError: a file or column is missing, or the rows break the table's promises.
        """
        try:
            report = DataReport.from_dict(json.loads((folder / "report.json").read_text(encoding="utf-8")))
            read = [columns_of(folder / f"{name}.parquet", texts) for name in ("panels", "pages")]
        except FileNotFoundError as error:
            raise DataError(f"{folder}: not a saved panel table, {Path(str(error.filename)).name} is missing") from None
        (panels, _), (pages, _) = read
        table = cls(panels, pages, report, tuple(mapped for _, mapped in read if mapped is not None))
        table.check()
        return table
