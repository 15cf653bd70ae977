"""What an export writes: a checkpoint's embeddings of some pages, chunk by chunk, and what lies beside them.

Each chunk is embedded by itself, so it has the same bytes whenever and in whatever order it is made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stage3.batches.dataset import Dataset
from stage3.config import SPLITS
from stage3.embed.stage4 import CHUNK, FORMAT, SLOTS, Places
from stage3.errors import DataError, NumericError
from stage3.model import embedding
from stage3.model.objectives import Stage3
from stage3.runs import RunFolder

SIDECAR_ROWS = 100_000  # panels per row group of the sidecar, and pages described at a time
_OF_PAGE = ("page_id", "book_id", "page_type")


@dataclass(frozen=True)
class Export:
    """What is exported, and where to.

    Attributes:
        places: where the store's parts lie.
        plan: what the store is made of; two exports with equal plans write equal bytes.
        model: the checkpoint's model, in eval mode.
        data: the data set.
        pages: (P,) rows of the page table, ascending: row i of the store is page `pages[i]`.
        device: where the model runs.
    """

    places: Places
    plan: dict[str, Any]
    model: Stage3
    data: Dataset
    pages: np.ndarray
    device: torch.device

    @classmethod
    def of(
        cls, run: RunFolder, step: int, model: Stage3, data: Dataset, out: Path | str, split: str, device: torch.device
    ) -> Export:
        """Plan the export of a split's pages.

        Raises:
            DataError: no page has a panel, or `out` is not the name of a store.
        """
        pages = data.pages(split)
        if not len(pages):
            raise DataError(f"the {split} split has no page with a panel; there is nothing to export")
        plan = {
            "format": FORMAT,
            "run": run.name,
            "step": step,
            "checkpoint": run.fingerprint(step),
            "table": data.table.fingerprint(),
            "features": data.features.fingerprint,
            "split": split,
            "pages": len(pages),
            "page_list": page_list_sha256(data, pages),
            "dim": model.encoder.spec.dim,
            "slots": SLOTS,
            "chunk": CHUNK,
            "normalised": False,
            "device": device.type,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "embedded_pages": embedding.EMBED_PAGES,
        }
        return cls(Places.of(out), plan, model, data, pages, device)

    @property
    def chunks(self) -> int:
        """How many chunks the store has."""
        return -(-len(self.pages) // CHUNK)

    @cached_property
    def layout(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(N,) rows of the panel table, store rows and places on the page of every usable panel, beyond 16 too."""
        panel_set = self.data.panel_set
        store_row = np.full(len(panel_set.first), -1, dtype=np.int64)
        store_row[self.pages] = np.arange(len(self.pages))
        usable = panel_set.present.any(axis=1) & (store_row[panel_set.page_of_panel] >= 0)
        rows = np.flatnonzero(usable)
        page = store_row[panel_set.page_of_panel[rows]]
        first = np.searchsorted(page, np.arange(len(self.pages)))
        return rows, page, np.arange(len(rows)) - first[page]

    @property
    def cut(self) -> tuple[int, int]:
        """(panels, pages): how many panels were left out because their page has more than 16, and on how many pages."""
        _, page, slot = self.layout
        return int((slot >= SLOTS).sum()), len(np.unique(page[slot >= SLOTS]))

    def embed_chunk(self, chunk: int) -> tuple[np.ndarray, np.ndarray]:
        """(n, 16, D) embeddings and (n, 16) masks of the pages of one chunk.

        Raises:
            NumericError: an embedding is not finite.
        """
        rows, page, slot = self.layout
        pages = self.pages[chunk * CHUNK : (chunk + 1) * CHUNK]
        low, high = np.searchsorted(page, [chunk * CHUNK, chunk * CHUNK + len(pages)])
        embedded = embedding.embed(self.model, self.data.panel_set, pages, self.device)
        assert np.array_equal(embedded.rows.numpy(), rows[low:high])
        found = embedded.panel.numpy()
        bad = ~np.isfinite(found).all(axis=1)
        if bad.any():
            panel = self.data.table.panels["panel_id"].iloc[int(rows[low:high][bad][0])]
            raise NumericError(
                f"{int(bad.sum())} of {len(found)} embeddings of chunk {chunk} are not finite, the first of panel "
                f"{panel!r}. Look at its features, or export an earlier checkpoint with --checkpoint."
            )
        kept = slot[low:high] < SLOTS
        at = page[low:high][kept] - chunk * CHUNK, slot[low:high][kept]
        embeddings = np.zeros((len(pages), SLOTS, found.shape[1]), dtype=np.float32)
        masks = np.zeros((len(pages), SLOTS), dtype=bool)
        embeddings[at], masks[at] = found[kept], True
        return embeddings, masks

    def metadata(self) -> Iterator[dict[str, Any]]:
        """One object per page, in row order, as Stage 4 reads them."""
        _, page, slot = self.layout
        stored = np.bincount(page[slot < SLOTS], minlength=len(self.pages))
        for start in range(0, len(self.pages), SIDECAR_ROWS):
            part = slice(start, start + SIDECAR_ROWS)
            frame = self.data.table.pages[["page_id", "overall_summary"]].iloc[self.pages[part]]
            columns = zip(frame["page_id"], frame["overall_summary"], stored[part].tolist(), strict=True)
            for i, (page_id, summary, n) in enumerate(columns, start):
                yield {"sequence_index": i, "canonical_id": page_id, "num_panels": n, "overall_summary": summary}
            self.data.table.give_back()

    def sidecar(self) -> Iterator[dict[str, Any]]:
        """The sidecar's columns, in parts: one row per stored panel."""
        kept = np.flatnonzero(self.layout[2] < SLOTS)
        for start in range(0, len(kept), SIDECAR_ROWS):
            yield self._sidecar_part(*(column[kept[start : start + SIDECAR_ROWS]] for column in self.layout))
            self.data.table.give_back()

    def _sidecar_part(self, rows: np.ndarray, page: np.ndarray, slot: np.ndarray) -> dict[str, Any]:
        table = self.data.table
        panels, pages = table.panels.iloc[rows], table.pages[[*_OF_PAGE]].iloc[self.pages[page]]
        image, text, box = self.data.panel_set.present[rows].T
        names = np.asarray(SPLITS)[self.data.split[self.pages[page]]]
        return {
            "page_row": page,
            "slot": slot.astype(np.int8),
            "canonical_id": pages["page_id"].to_list(),
            "panel_id": panels["panel_id"].to_list(),
            "book_id": pages["book_id"].to_list(),
            "source_index": panels["source_index"].to_numpy(np.int32),
            **{axis: panels[axis].to_numpy(np.float32) for axis in "xywh"},
            "has_box": box,
            "has_picture": image,
            "has_text": text,
            "has_dialogue": (panels["dialogue"] != "").to_numpy(),
            "has_description": (panels["description"] != "").to_numpy(),
            "page_type": pages["page_type"].to_list(),
            "split": names.tolist(),
            "checkpoint": [self.plan["checkpoint"]] * len(rows),
        }


def page_list_sha256(data: Dataset, pages: np.ndarray) -> str:
    """Hex digest of the page ids in row order."""
    digest = hashlib.sha256()
    for page_id in data.table.pages["page_id"].iloc[pages]:
        digest.update(json.dumps(page_id).encode() + b"\n")
    return digest.hexdigest()


def write_metadata(job: Export, path: Path) -> None:
    """Write the JSON list of pages; in ASCII, so that it is right in whatever encoding a reader opens it."""
    with path.open("w", encoding="ascii", newline="\n") as file:
        for i, page in enumerate(job.metadata()):
            file.write((",\n" if i else "[\n") + json.dumps(page))
        file.write("\n]\n")


def write_sidecar(job: Export, path: Path) -> None:
    """Write the Parquet table of panels."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    flags = ("has_box", "has_picture", "has_text", "has_dialogue", "has_description")
    schema = pa.schema(
        [
            ("page_row", pa.int64()),
            ("slot", pa.int8()),
            *((name, pa.string()) for name in ("canonical_id", "panel_id", "book_id")),
            ("source_index", pa.int32()),
            *((axis, pa.float32()) for axis in "xywh"),
            *((name, pa.bool_()) for name in flags),
            *((name, pa.string()) for name in ("page_type", "split", "checkpoint")),
        ]
    )
    with pq.ParquetWriter(path, schema) as writer:
        for part in job.sidecar():
            writer.write_table(pa.table(part, schema=schema))
