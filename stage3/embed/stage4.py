"""The store of panel embeddings that Stage 4 reads: written chunk by chunk, verified by hash, refused while unfinished.

    X.zarr/           Zarr format 2, a directory store: panel_embeddings (pages, 16, D) float32 and panel_masks
                      (pages, 16) bool, chunks of 100 pages; a page's panels first, in reading order, the rest exactly 0
    X.metadata.json   a JSON list, one object per page in row order
    X.panels.parquet  one row per panel
    X.export/         plan.json (what the store is made of), done.jsonl (SHA-256 of each chunk), COMPLETE.json

Zarr reads a missing chunk as zeros without a word. So every chunk is written, also one of zeros alone; a chunk enters
done.jsonl when it is on the disk; COMPLETE.json is written last and holds the hash of everything else. Nothing in any
file depends on when, where or in how many attempts it was written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stage3.errors import DataError, StorageError
from stage3.storage import (
    MAX_JSON,
    append_line,
    file_sha256,
    parse_object,
    read_file,
    read_json,
    replace_file,
    sha256,
    storing,
)

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
SLOTS = 16  # panels of a page that Stage 4 can hold; it crashes on more
CHUNK = 100  # pages
ZSTD_LEVEL = 1  # one thread, no checksum: the same input gives the same bytes, and zarr 2.18 reads it
OF_THE_DESKTOP = (".DS_Store", "Thumbs.db", "desktop.ini")  # file managers leave these anywhere
ARRAYS = ("panel_embeddings", "panel_masks")
KEYS = (  # of an array's metadata, in the order in which they are written
    *("order", "filters", "dimension_separator", "zarr_format", "compressor"),
    *("shape", "chunks", "dtype", "fill_value"),
)


@dataclass(frozen=True)
class Places:
    """Where the parts of a store lie, given the path of its Zarr folder."""

    zarr: Path

    @classmethod
    def of(cls, path: Path | str) -> Places:
        """Of `X.zarr`."""
        path = Path(path)
        if path.suffix != ".zarr":
            raise DataError(f"{path}: the name of a store must end in .zarr")
        return cls(path)

    @property
    def metadata(self) -> Path:
        """The JSON list of pages."""
        return self.zarr.with_suffix(".metadata.json")

    @property
    def sidecar(self) -> Path:
        """The Parquet table of panels."""
        return self.zarr.with_suffix(".panels.parquet")

    @property
    def export(self) -> Path:
        """The folder of the export's own record."""
        return self.zarr.with_suffix(".export")

    @property
    def plan(self) -> Path:
        """What the store is made of."""
        return self.export / "plan.json"

    @property
    def complete(self) -> Path:
        """The mark of a finished store."""
        return self.export / "COMPLETE.json"

    def done(self, shard: str = "") -> Path:
        """The done list of one writer: of the whole store, or of a range of pages."""
        return self.export / f"done{shard}.jsonl"

    def lock(self, shard: str = "") -> Path:
        """The lock of one writer."""
        return self.export / f"lock{shard}"

    def chunk_files(self, chunk: int) -> tuple[Path, Path]:
        """The chunk's file of embeddings and its file of masks."""
        return self.zarr / ARRAYS[0] / f"{chunk}.0.0", self.zarr / ARRAYS[1] / f"{chunk}.0"


# --- writing ---------------------------------------------------------------------------------------------------------


def _written(rows: int, dim: int, attributes: Mapping[str, Any], *parts: np.ndarray) -> dict[str, bytes]:
    """What `zarr` itself writes for a store of so many rows, by path in the store (Zarr storage specification 2).

    It writes into memory, not to the disk: its own LocalStore neither flushes a chunk nor tells when one is safe.

    Args:
        rows: pages.
        dim: D.
        attributes: of the group.
        parts: (n, 16, D) float32 and (n, 16) bool, the first rows of the two arrays; none for metadata alone.
    """
    import zarr
    from numcodecs.zstd import Zstd  # type: ignore[import-untyped]

    written: dict[str, Any] = {}
    group = zarr.create_group(zarr.storage.MemoryStore(written), zarr_format=2, attributes=dict(attributes))
    kinds = (((SLOTS, dim), "<f4", 0.0), ((SLOTS,), "|b1", False))
    for name, (shape, dtype, fill), part in zip_longest(ARRAYS, kinds, parts):
        array = group.create_array(
            name,
            shape=(rows, *shape),
            chunks=(CHUNK, *shape),
            dtype=dtype,
            fill_value=fill,
            order="C",
            filters=None,
            compressors=Zstd(level=ZSTD_LEVEL),
            chunk_key_encoding={"name": "v2", "separator": "."},
            config={"write_empty_chunks": True},
        )
        if part is not None:
            array[: len(part)] = part
    return {path: data.to_bytes() for path, data in written.items()}


def array_files(pages: int, dim: int, attributes: Mapping[str, Any]) -> dict[str, bytes]:
    """Zarr's own metadata, by path in the store.

    The values are those that `zarr` writes, put in our own order and indentation: the order that zarr gives its keys
    depends on its version and cannot be set, and the same input must give the same bytes.
    """
    made = {path: json.loads(data) for path, data in _written(pages, dim, attributes).items()}
    return {path: pretty({key: value[key] for key in KEYS if key in value} | value) for path, value in made.items()}


def chunk_bytes(embeddings: np.ndarray, masks: np.ndarray) -> tuple[bytes, bytes]:
    """Encode the rows of one chunk; the last chunk of a store is filled up with zeros, as the format has it.

    Args:
        embeddings: (n, 16, D) float32, n up to 100.
        masks: (n, 16) bool.
    """
    files = _written(CHUNK, embeddings.shape[2], {}, embeddings, masks)
    first = Places(Path()).chunk_files(0)
    return files[first[0].as_posix()], files[first[1].as_posix()]


def write_chunk(places: Places, chunk: int, embeddings: np.ndarray, masks: np.ndarray) -> dict[str, Any]:
    """Write both files of a chunk, on the disk when this returns; its line for the done list."""
    encoded = chunk_bytes(embeddings, masks)
    for path, data in zip(places.chunk_files(chunk), encoded, strict=True):
        replace_file(path, data)
    return {"chunk": chunk, "sha256": [sha256(data) for data in encoded], "bytes": [len(data) for data in encoded]}


def add_done(path: Path, line: Mapping[str, Any]) -> None:
    """Record a chunk that is on the disk."""
    append_line(path, json.dumps(line).encode() + b"\n")


def done_bytes(done: Mapping[int, Mapping[str, Any]]) -> bytes:
    """A done list in order of chunks."""
    return b"".join(json.dumps(done[chunk]).encode() + b"\n" for chunk in sorted(done))


def done_lines(path: Path) -> dict[int, dict[str, Any]]:
    """The chunks that a done list vouches for; a line that a kill or a power cut left torn vouches for nothing."""
    if not path.exists():
        return {}
    found: dict[int, dict[str, Any]] = {}
    for line in read_file(path, 64 * MAX_JSON).splitlines(keepends=True):
        try:
            entry = parse_object(line, path)
            pairs = list(zip(entry["sha256"], entry["bytes"], strict=True))
            if line.endswith(b"\n") and len(pairs) == 2 and isinstance(entry["chunk"], int):
                found[entry["chunk"]] = entry
        except (StorageError, KeyError, TypeError, ValueError):
            continue
    return found


def chunk_damage(places: Places, entry: Mapping[str, Any], *, thorough: bool = True) -> list[str]:
    """What is wrong with a chunk of the done list, one sentence per file; nothing when it is intact.

    Args:
        places: of the store.
        entry: the chunk's line of the done list.
        thorough: read the files and compare hashes, not lengths alone.
    """
    first = entry["chunk"] * CHUNK
    wrong = []
    for path, digest, size in zip(places.chunk_files(entry["chunk"]), entry["sha256"], entry["bytes"], strict=True):
        reason = _file_damage(path, digest if thorough else None, size)
        if reason:
            wrong.append(f"{path}: {reason} (rows {first:,} to {first + CHUNK - 1:,})")
    return wrong


def _file_damage(path: Path, digest: str | None, size: int | None) -> str:
    if not path.is_file() or path.is_symlink():
        return "missing"
    with storing(path):
        length = path.stat().st_size
    if size is not None and length != size:
        return f"{length:,} bytes where {size:,} were written"
    return "its bytes have changed since they were written" if digest and file_sha256(path) != digest else ""


def completion(places: Places, plan: Mapping[str, Any], names: Mapping[str, bytes]) -> bytes:
    """The content of COMPLETE.json: hash of every file but the chunks, which the hashed done list vouches for."""
    files = {path.name: path for path in (places.metadata, places.sidecar)}
    return pretty(
        {
            "format": FORMAT,
            "checkpoint": plan["checkpoint"],
            "table": plan["table"],
            "page_list": plan["page_list"],
            "plan": file_sha256(places.plan),
            "done": file_sha256(places.done()),
            "zarr": {name: sha256(data) for name, data in sorted(names.items())},
            "beside": {name.removeprefix(places.zarr.stem): file_sha256(path) for name, path in files.items()},
        }
    )


# --- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Store:
    """A finished store, open for reading.

    Attributes:
        places: where its parts are.
        plan: what it was made of: checkpoint, table, pages, dim and so on.
        embeddings: Zarr array (pages, 16, D) float32.
        masks: Zarr array (pages, 16) bool.
    """

    places: Places
    plan: dict[str, Any]
    embeddings: Any
    masks: Any

    def metadata(self) -> list[dict[str, Any]]:
        """One object per page, in row order."""
        pages: list[dict[str, Any]] = json.loads(read_file(self.places.metadata, 2**36))
        return pages

    def panels(self) -> Any:
        """The sidecar, a DataFrame with one row per panel in the order of the store."""
        import pandas as pd

        return pd.read_parquet(self.places.sidecar)


def read_store(path: Path | str) -> Store:
    """Open a store that an export finished. Reads no chunk: the length of each is compared, not its content.

    Raises:
        DataError: there is no such store.
        StorageError: the export is unfinished, or a part is missing or not what was written.
    """
    import zarr

    places = Places.of(path)
    if not places.zarr.is_dir():
        raise DataError(f"{places.zarr}: no such store")
    if not places.complete.exists():
        raise StorageError(
            f"{places.zarr}: not finished, {places.complete} is missing, so rows may read as zeros. Run the same "
            "`python -m stage3.embed` command again to finish it."
        )
    wrong = list(damages(places, thorough=False))
    if wrong:
        raise StorageError(f"{wrong[0]}{_more(wrong)}. Repeat the command that wrote the store to repair it.")
    group = zarr.open_group(str(places.zarr), mode="r", zarr_format=2)
    return Store(places, read_json(places.plan), group[ARRAYS[0]], group[ARRAYS[1]])


def damages(places: Places, *, thorough: bool = True) -> Iterator[str]:
    """Everything that is wrong with a finished store, one sentence per file.

    Args:
        places: of the store.
        thorough: read every chunk and compare hashes; otherwise lengths only.
    """
    try:
        complete, plan = read_json(places.complete), read_json(places.plan)
        zarr_files, beside = complete["zarr"], complete["beside"]
        chunks = -(-plan["pages"] // CHUNK)
    except (StorageError, KeyError, TypeError) as error:
        yield f"{places.complete}: missing or damaged ({error})"
        return
    own: dict[Path, Any] = {places.plan: complete.get("plan"), places.done(): complete.get("done")}
    own |= {places.zarr / name: digest for name, digest in zarr_files.items()}
    if thorough:
        own |= {places.zarr.with_name(places.zarr.stem + name): digest for name, digest in beside.items()}
    for path, digest in own.items():
        if reason := _file_damage(path, str(digest), None):
            yield f"{path}: {reason}"
    if not thorough:
        yield from (f"{p}: missing" for p in (places.metadata, places.sidecar) if not p.is_file())
    done = done_lines(places.done())
    for chunk in range(chunks):
        if chunk in done:
            yield from chunk_damage(places, done[chunk], thorough=thorough)
        else:
            yield f"{places.done()}: chunk {chunk} was never recorded"
    yield from (f"{path}: does not belong to the store" for path in strangers(places, set(zarr_files), chunks))


def strangers(places: Places, zarr_files: set[str], chunks: int) -> list[Path]:
    """Files in the Zarr folder that the export did not write, such as a chunk too many."""
    known = {places.zarr / name for name in zarr_files}
    known |= {path for chunk in range(chunks) for path in places.chunk_files(chunk)}
    found = (path for path in places.zarr.rglob("*") if not path.is_dir() and path.name not in OF_THE_DESKTOP)
    return sorted(path for path in found if path not in known)


def _more(wrong: list[str]) -> str:
    return f" (and {len(wrong) - 1:,} more; --verify names all)" if len(wrong) > 1 else ""


def sample_panels(path: Path | str, most: int) -> tuple[Tensor, Tensor, list[str]]:
    """Panels of evenly spaced chunks of any store of this layout, also one that another program wrote.

    Args:
        path: the Zarr folder.
        most: panels at which reading stops.

    Returns:
        (V, D) embeddings, (V,) page rows, and notes: what was left out, and whether the store is vouched for.

    Raises:
        DataError: no such store, not this layout, or a chunk is missing.
        StorageError: a store of ours that is unfinished or damaged.
    """
    import torch

    path = Path(path)
    notes = []
    if path.suffix == ".zarr" and Places.of(path).export.is_dir():
        store = read_store(path)
        embeddings, masks = store.embeddings, store.masks
    else:
        embeddings, masks = _foreign_arrays(path)
        notes.append("no record of an export lies beside this store, so its bytes cannot be verified")
    step, pages = int(masks.chunks[0]), int(masks.shape[0])
    starts = range(0, pages, step)
    per_page = max(float(np.asarray(masks[:step]).sum()) / min(step, pages), 1.0) if pages else 1.0
    wanted = max(1, int(most / (per_page * step)))
    chosen = list(starts)[:: max(1, -(-len(starts) // wanted))]
    if len(chosen) < len(starts):
        notes.append(f"{len(chosen):,} evenly spaced chunks of {len(starts):,} were looked at")
    parts, ids = [], []
    for start in chosen:
        used = np.asarray(masks[start : start + step])
        parts.append(np.asarray(embeddings[start : start + step])[used])
        ids.append(start + np.nonzero(used)[0])
    if not sum(map(len, parts)):
        raise DataError(f"{path}: holds no panel")
    return torch.from_numpy(np.concatenate(parts)).float(), torch.from_numpy(np.concatenate(ids)), notes


def _foreign_arrays(path: Path) -> tuple[Any, Any]:
    """Both arrays of a store without a record; refused where a chunk is missing, since that would read as zeros."""
    import zarr
    from zarr.errors import BaseZarrError

    if not path.is_dir():
        raise DataError(f"{path}: no such store")
    try:
        group = zarr.open_group(str(path), mode="r")
        embeddings, masks = group[ARRAYS[0]], group[ARRAYS[1]]
        shapes = embeddings.shape[:2] == masks.shape and embeddings.ndim == 3
    except (BaseZarrError, KeyError, ValueError, AttributeError, FileNotFoundError) as error:
        raise DataError(f"{path}: not a store with {' and '.join(ARRAYS)}: {error}") from None
    if not shapes or masks.dtype != bool or not np.issubdtype(embeddings.dtype, np.floating):
        raise DataError(
            f"{path}: {ARRAYS[0]} {embeddings.shape} {embeddings.dtype} and {ARRAYS[1]} {masks.shape} {masks.dtype} "
            "must be (pages, panels, dim) of floats and (pages, panels) of bools"
        )
    if embeddings.metadata.zarr_format == 2:
        for chunk in range(-(-int(masks.shape[0]) // int(masks.chunks[0]))):
            used = bool(np.asarray(masks.blocks[chunk, 0]).any())
            separator = embeddings.metadata.dimension_separator
            file = path / ARRAYS[0] / separator.join((str(chunk), "0", "0"))
            if used and not file.is_file():
                raise DataError(f"{file}: missing, though its mask has panels; they would read as zeros")
    return embeddings, masks


# --- small things ----------------------------------------------------------------------------------------------------


def pretty(value: Mapping[str, Any]) -> bytes:
    """Strict JSON, one line per entry, keys in the order given."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n"
