"""The panel table, written as it grows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stage3.data.readers.rules import Panel
from stage3.data.table import PAGE_COLUMNS, PANEL_COLUMNS

CHUNK = 20_000  # panels held as Python objects before they are written
_TYPES = {"str": pa.large_string(), "bool": pa.bool_()}


class TableWriter:
    """Writes panels.parquet and pages.parquet in pieces, so that no list grows with the data set."""

    def __init__(self, folder: Path) -> None:
        self.pages_written = 0
        self.panels_written = 0
        self._columns = {name: _empty(c) for name, c in (("panels", PANEL_COLUMNS), ("pages", PAGE_COLUMNS))}
        self._writers = {
            name: pq.ParquetWriter(folder / f"{name}.parquet", _schema(c))
            for name, c in (("panels", PANEL_COLUMNS), ("pages", PAGE_COLUMNS))
        }

    def add(self, page: dict[str, Any], panels: list[Panel]) -> None:
        """One page with its panels in reading order."""
        pages = self._columns["pages"]
        for key, value in {**page, "first_panel": self.panels_written, "n_panels": len(panels)}.items():
            pages[key].append(value)
        columns = self._columns["panels"]
        nan = float("nan")
        for order, panel in enumerate(panels):
            box = panel.box or (nan, nan, nan, nan)
            values: list[Any] = [
                f"{page['page_id']}#{panel.source_index}",
                self.pages_written,
                order,
                panel.source_index,
                *box,
            ]
            values += [panel.box is not None, panel.dialogue, panel.description, panel.speakers]
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
        self.pages_written += 1
        self.panels_written += len(panels)
        if len(columns["panel_id"]) >= CHUNK:
            self._flush()

    def close(self) -> None:
        """Write what is left."""
        self._flush()
        for writer in self._writers.values():
            writer.close()

    def _flush(self) -> None:
        for name, writer in self._writers.items():
            columns = self._columns[name]
            writer.write_table(pa.table(columns, schema=writer.schema))
            for column in columns.values():
                column.clear()


def _empty(columns: dict[str, str]) -> dict[str, list[Any]]:
    return {name: [] for name in columns}


def _schema(columns: dict[str, str]) -> pa.Schema:
    return pa.schema([(name, _TYPES.get(t) or pa.type_for_alias(t)) for name, t in columns.items()])
