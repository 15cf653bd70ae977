"""Exports the panel embeddings of a checkpoint into a Stage 4 store, one chunk of pages in memory at a time.

A stopped export goes on where it was: chunks whose hash still is what was recorded are kept, the others are made again.
Each chunk is embedded by itself, so it has the same bytes whenever and in whatever order it is made.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stage3 import evaluation
from stage3.config import DataError, Interrupted, NumericError, StorageError
from stage3.dataset import Dataset
from stage3.durable import (
    TMP,
    Lock,
    clear_scratch,
    make_folder,
    read_json,
    rename,
    replace_file,
    storing,
    sync_file,
    sync_folder,
)
from stage3.objectives import Stage3
from stage3.runs import Run
from stage3.splits import SPLITS
from stage3.stage4 import (
    CHUNK,
    FORMAT,
    SLOTS,
    Places,
    add_done,
    array_files,
    chunk_damage,
    completion,
    damages,
    done_bytes,
    done_lines,
    pretty,
    strangers,
    write_chunk,
)

SIDECAR_ROWS = 100_000  # panels a row group of the sidecar
# Bits of an embedding may differ between these; chunks of two kinds must not meet in one store.
EXACT = ("device", "threads", "torch", "embedded_pages")
FREE = ("run",)  # written for people only


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
        cls, run: Run, step: int, model: Stage3, data: Dataset, out: Path | str, split: str, device: torch.device
    ) -> Export:
        """Plan the export of a split's pages.

        Raises:
            DataError: no page has a panel, or `out` is no name of a store.
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
            "embedded_pages": evaluation.EMBED_PAGES,
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
        embedded = evaluation.embed(self.model, self.data.panel_set, pages, self.device)
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
        """One object a page, in row order, as Stage 4 reads them."""
        _, page, slot = self.layout
        stored = np.bincount(page[slot < SLOTS], minlength=len(self.pages)).tolist()
        frame = self.data.table.pages.iloc[self.pages]
        columns = zip(frame["page_id"], frame["overall_summary"], stored, strict=True)
        for i, (page_id, summary, n) in enumerate(columns):
            yield {"sequence_index": i, "canonical_id": page_id, "num_panels": n, "overall_summary": summary}

    def sidecar(self) -> Iterator[dict[str, Any]]:
        """The sidecar's columns, in parts: a row for each stored panel."""
        rows, page, slot = (column[self.layout[2] < SLOTS] for column in self.layout)
        for start in range(0, len(rows), SIDECAR_ROWS):
            yield self._sidecar_part(*(column[start : start + SIDECAR_ROWS] for column in (rows, page, slot)))

    def _sidecar_part(self, rows: np.ndarray, page: np.ndarray, slot: np.ndarray) -> dict[str, Any]:
        table = self.data.table
        panels, pages = table.panels.iloc[rows], table.pages.iloc[self.pages[page]]
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


def run_export(
    job: Export,
    *,
    shard: tuple[int, int] | None = None,
    stop: Callable[[], bool] = lambda: False,
    on_pages: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """Write the store, or the chunks of some of its pages; go on with what an earlier attempt left.

    Args:
        job: what to export.
        shard: (first, past last) page rows to write, on chunk borders; None writes what is missing and finishes.
        stop: asked before every chunk.
        on_pages: told how many pages were done since the last time.

    Returns:
        `pages panels chunks written kept finished panels_cut pages_cut`.

    Raises:
        DataError: the store at this place is made of something else.
        StorageError: somebody else writes it, or the disk fails.
        Interrupted: `stop()` was true; the same export goes on later.
    """
    places = job.places
    wanted = range(job.chunks) if shard is None else _chunks_of(job, shard)
    name = "" if shard is None else f"-{shard[0]}-{shard[1]}"
    _check_place(places)
    make_folder(places.export)
    with _locked(places, name):
        other_bits = _begin(job, clean_all=shard is None)
        kept = _kept_chunks(places, wanted)
        on_pages(sum(_pages_in(job, chunk) for chunk in kept))
        missing = [chunk for chunk in wanted if chunk not in kept]
        if missing and kept and other_bits:
            raise StorageError(f"{places.zarr} was begun with {other_bits}; its bytes would differ. Go on as it began.")
        finished = not missing and (shard is not None or (places.complete.exists() and not any(damages(places))))
        if not finished:
            _withdraw(places)
            replace_file(places.done(name), done_bytes(kept))
            for chunk in missing:
                if stop():
                    raise Interrupted(f"stopped before chunk {chunk} of {job.chunks}; the same command goes on")
                add_done(places.done(name), write_chunk(places, chunk, *job.embed_chunk(chunk)))
                on_pages(_pages_in(job, chunk))
            if shard is None:
                _finish(job)
    panels_cut, pages_cut = job.cut
    return {
        "pages": len(job.pages),
        "panels": len(job.layout[0]) - panels_cut,
        "chunks": job.chunks,
        "written": len(missing),
        "kept": len(kept),
        "finished": shard is None,
        "panels_cut": panels_cut,
        "pages_cut": pages_cut,
    }


def _chunks_of(job: Export, shard: tuple[int, int]) -> range:
    first, end = shard
    if not 0 <= first < end <= len(job.pages) or first % CHUNK or (end % CHUNK and end != len(job.pages)):
        raise DataError(
            f"pages {first}:{end} do not lie on chunk borders: give multiples of {CHUNK}; the last page is "
            f"{len(job.pages)}"
        )
    return range(first // CHUNK, -(-end // CHUNK))


def _pages_in(job: Export, chunk: int) -> int:
    return min(CHUNK, len(job.pages) - chunk * CHUNK)


def _check_place(places: Places) -> None:
    """Refuse to write over what no export made."""
    if places.plan.exists():
        return
    for path in (places.zarr, places.metadata, places.sidecar):
        if path.exists():
            raise DataError(f"{path} exists and no export made it. Give another --out, or move it away.")


@contextmanager
def _locked(places: Places, shard: str) -> Iterator[None]:
    """Hold this writer's lock; writers of parts may work side by side, the writer of the whole store works alone."""
    own = Lock(places.lock(shard))
    own.acquire()
    try:  # both kinds take their own lock first and look at the others' then, so two never both go on
        others = [places.lock()] if shard else list(places.export.glob("lock-*"))
        for path in others:
            if Lock(path).is_held():
                raise StorageError(f"{places.zarr} is being written by another export ({path}). Wait for it.")
        yield
    finally:
        own.release()


def _begin(job: Export, *, clean_all: bool) -> str:
    """Record the plan, or refuse to go on with another one; write Zarr's own files.

    Returns:
        What is different now of all that decides an embedding's last bits; empty when nothing is.
    """
    places, other_bits = job.places, ""
    if places.plan.exists():
        before = read_json(places.plan)
        changed = [k for k in job.plan if k not in (*FREE, *EXACT) and before.get(k) != job.plan[k]]
        if changed:
            shown = "; ".join(f"{k}: {str(before.get(k))[:24]} then, {str(job.plan[k])[:24]} now" for k in changed)
            raise DataError(
                f"{places.zarr} is a store of something else ({shown}). It is not continued: give another --out, or "
                f"delete it and {places.export}."
            )
        other_bits = ", ".join(
            f"{k} {before.get(k)} (now {job.plan[k]})" for k in EXACT if before.get(k) != job.plan[k]
        )
    else:
        replace_file(places.plan, pretty(job.plan))
    files = _zarr_files(job)
    for folder in (places.zarr, *(places.zarr / name for name in ("panel_embeddings", "panel_masks"))):
        make_folder(folder)
    for folder in (places.export, places.zarr, *(p for p in places.zarr.iterdir() if p.is_dir())):
        clear_scratch(folder, all_writers=clean_all)
    for name, data in files.items():
        path = places.zarr / name
        if not path.is_file() or path.read_bytes() != data:
            replace_file(path, data)
    return other_bits


def _zarr_files(job: Export) -> dict[str, bytes]:
    told = {k: job.plan[k] for k in ("format", "step", "checkpoint", "table", "normalised")}
    return array_files(len(job.pages), job.plan["dim"], {"stage3": told})


def _kept_chunks(places: Places, wanted: range) -> dict[int, dict[str, Any]]:
    """Chunks that an earlier attempt, or a writer of a part, recorded and that still are what was recorded."""
    found: dict[int, dict[str, Any]] = {}
    for path in [places.done(), *sorted(places.export.glob("done-*.jsonl"))]:
        for chunk, entry in done_lines(path).items():
            if chunk in wanted and chunk not in found and not chunk_damage(places, entry):
                found[chunk] = entry
    return found


def _withdraw(places: Places) -> None:
    """Take the mark of a finished store away before anything in it changes."""
    with storing(places.complete):
        places.complete.unlink(missing_ok=True)
        sync_folder(places.export)


def _finish(job: Export) -> None:
    """Write what lies beside the chunks, then the mark."""
    places = job.places
    with _replacing(places, places.metadata) as scratch, scratch.open("w", encoding="ascii", newline="\n") as file:
        for i, page in enumerate(job.metadata()):  # ASCII: whatever encoding a reader opens it with, it is right
            file.write((",\n" if i else "[\n") + json.dumps(page))
        file.write("\n]\n")
    with _replacing(places, places.sidecar) as scratch:
        _write_sidecar(job, scratch)
    replace_file(places.done(), done_bytes(done_lines(places.done())))
    with storing(places.export):
        for path in places.export.glob("done-*.jsonl"):
            path.unlink()
        sync_folder(places.export)
    unknown = strangers(places, set(_zarr_files(job)), job.chunks)
    if unknown:
        raise StorageError(f"{unknown[0]} does not belong to the store. Move it away and run the same command again.")
    replace_file(places.complete, completion(places, read_json(places.plan), _zarr_files(job)))


@contextmanager
def _replacing(places: Places, target: Path) -> Iterator[Path]:
    """A scratch path to write to; it becomes the target in one step, on the disk, when the block ends well."""
    scratch = places.export / f"{TMP}{target.name}-{os.getpid()}"
    with storing(target):
        try:
            yield scratch
            sync_file(scratch)
            rename(scratch, target)
        except OSError:
            with suppress(OSError):
                scratch.unlink(missing_ok=True)
            raise
        sync_folder(target.parent)
        sync_folder(places.export)


def _write_sidecar(job: Export, path: Path) -> None:
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
