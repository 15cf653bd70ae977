"""Columns in a file that is mapped into memory, so that only what is asked for is held: the texts of a large table.

    NAME.arrow     of each column of texts the values' bytes and n + 1 offsets (Arrow's large_string), of each column of
                   numbers the numbers; then where they lie, as JSON, then the SHA-256 of all bytes before

The texts of a Parquet file are in CACHE/texts/SHA-256 of that file.arrow. It is made from the Parquet file alone and
named by its content, so it is never replaced by another one: a process that has it mapped (which on Windows keeps a
file where it is) is in nobody's way. One that is damaged is made again; all may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from stage3.errors import StorageError
from stage3.storage import clear_scratch, file_sha256, make_folder, open_regular, replacing, storing

MAPPED_FROM = 64 * 2**20  # bytes of texts; fewer are held in memory
SMALL = 2**22  # bytes of all columns; up to here memory is no matter, and reading them together is five times as fast
FORMAT = 1  # raise it when the layout changes
MOST = 8  # files that are kept, those used last: two for each panel table
DIGEST = hashlib.sha256().digest_size
LENGTH = 8  # bytes that say how long the description of the columns is
ALIGNED = 64  # Arrow's buffers begin at multiples of it
Column: TypeAlias = "pa.LargeStringArray | np.ndarray"


class ColumnFile:
    """Some columns, mapped into memory.

    Attributes:
        columns: the columns by name, each one array over the mapped file.
        about: what was said of them when they were written.
    """

    columns: dict[str, pa.LargeStringArray | np.ndarray]

    def __init__(self, path: Path) -> None:
        """Map a file that `write` made.

        Raises:
            StorageError: there is none, it is damaged, or of another version.
        """
        self._map = mapped_intact(path)
        end = len(self._map) - DIGEST - LENGTH
        described = int.from_bytes(self._map[end : end + LENGTH], "little")
        try:
            about = json.loads(self._map[end - described : end])
        except (ValueError, RecursionError):
            about = {}
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise StorageError(f"{path}: of another version")
        with suppress(OSError):  # the one that was used last goes last
            os.utime(path)
        self.columns = {}
        try:  # a digest is nobody's signature: what is well sealed may be forged
            self.about: dict[str, Any] = about["about"]
            for name, at in about["columns"].items():
                self.columns[name] = self._column(about["rows"], at)
        except (LookupError, ValueError, TypeError, AttributeError, OverflowError) as error:
            raise StorageError(f"{path}: damaged ({error})") from None

    def _column(self, rows: int, at: Mapping[str, Any]) -> Column:
        if "offsets" not in at:
            return np.frombuffer(self._map, at["dtype"], rows, at["data"])
        whole = pa.py_buffer(self._map)
        buffers = whole.slice(at["offsets"], 8 * (rows + 1)), whole.slice(at["data"], at["bytes"])
        return pa.LargeStringArray.from_buffers(rows, *buffers)

    def frame(self) -> pd.DataFrame:
        """All columns, read when they are asked for."""
        return pd.DataFrame({name: self.column(name) for name in self.columns}, copy=False)

    def column(self, name: str) -> pd.Series:
        """One of them."""
        values = self.columns[name]
        if isinstance(values, np.ndarray):
            return pd.Series(values, copy=False)
        column: pd.Series = pa.table({name: values}).to_pandas()[name]
        return column

    def give_back(self) -> None:
        """Let the system have the memory of what was read; it stays in the disk cache."""
        if hasattr(mmap, "MADV_DONTNEED"):  # elsewhere the system takes it when it needs it
            with suppress(OSError):
                self._map.madvise(mmap.MADV_DONTNEED)


def mapped_intact(path: Path) -> mmap.mmap:
    """A file that ends with the SHA-256 of all bytes before, mapped; it is read in parts, not through its mapping.

    Raises:
        StorageError: there is none, or it is damaged.
    """
    with storing(path):
        descriptor, size = open_regular(path)
        with os.fdopen(descriptor, "rb") as file:
            digest, left = hashlib.sha256(), size - DIGEST
            while left > 0 and (part := file.read(min(left, 2**20))):
                digest.update(part)
                left -= len(part)
            if size <= DIGEST or file.read() != digest.digest():
                raise StorageError(f"{path}: damaged")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def columns_of(path: Path, kept: Path | None) -> tuple[pd.DataFrame, ColumnFile | None]:
    """A Parquet file, and the mapping of its texts where there are many: they are read when they are asked for.

    Args:
        path: the file; it is read column after column, which takes a third of the memory, unless it is small.
        kept: folder of the mapped files; None reads all into memory, as happens where it cannot be written.
    """
    with path.open("rb") as opened, pq.ParquetFile(opened) as file:
        names = file.schema_arrow.names
        if size_of(file, names) < SMALL:
            return file.read(use_threads=False).to_pandas(split_blocks=True), None
        texts = [name for name in names if pa.types.is_large_string(file.schema_arrow.field(name).type)]
        mapped = None
        if kept is not None and size_of(file, texts) >= MAPPED_FROM:
            with suppress(OSError, StorageError):
                mapped = _mapped(path, file, texts, kept)
        found = {
            name: mapped.column(name)
            if mapped is not None and name in texts
            else file.read([name], use_threads=False).to_pandas()[name]
            for name in names
        }
    pa.default_memory_pool().release_unused()
    return pd.DataFrame(found, copy=False), mapped


def size_of(file: pq.ParquetFile, names: list[str]) -> int:
    """Bytes of some columns in memory, about: values that occur again within a part of the file are counted once."""
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    columns = [group.column(i) for group in groups for i in range(group.num_columns)]
    return sum(column.total_uncompressed_size for column in columns if column.path_in_schema in names)


def _mapped(path: Path, file: pq.ParquetFile, names: list[str], kept: Path) -> ColumnFile:
    place = kept / f"{file_sha256(path)}.arrow"
    with suppress(StorageError):
        return ColumnFile(place)
    make_folder(kept)
    clear_scratch(kept)
    with replacing(place, durable=False) as scratch:
        write(scratch, _texts_of(file, names))
    _forget_old(kept, place)
    return ColumnFile(place)


def write(path: Path, parts: Iterable[Mapping[str, Column]], about: Mapping[str, Any] | None = None) -> None:
    """Write columns, some rows of all of them at a time; at most one such part is in memory.

    Args:
        path: the file.
        parts: the columns of some rows, of texts or of numbers.
        about: what a reader finds as `ColumnFile.about`.

    Raises:
        StorageError: a text is missing, which the columns cannot say.
    """
    held: dict[str, BinaryIO] = {}
    offsets: dict[str, BinaryIO] = {}  # 8 bytes for each text: of 5,000,000 panels and ten columns 400 MB
    dtypes: dict[str, str] = {}
    rows = 0
    with ExitStack() as left, path.open("wb") as out:

        def scratch() -> BinaryIO:
            return left.enter_context(tempfile.TemporaryFile(dir=path.parent))

        for part in parts:
            for name, values in part.items():
                if name not in held:
                    held[name] = scratch()
                if isinstance(values, np.ndarray):
                    dtypes[name] = values.dtype.str
                    held[name].write(np.ascontiguousarray(values).data)
                    continue
                if values.null_count:
                    raise StorageError(f"{path}: column {name!r} has missing values")
                if name not in offsets:
                    offsets[name] = scratch()
                    offsets[name].write(bytes(8))
                if len(values):  # an array without values need not have an offset
                    own = np.frombuffer(values.buffers()[1], np.int64, len(values) + 1, 8 * values.offset)
                    offsets[name].write((held[name].tell() + own[1:] - own[0]).data)
                    held[name].write(memoryview(values.buffers()[2] or b"")[own[0] : own[-1]])
            rows += max(map(len, part.values()), default=0)
        columns: dict[str, dict[str, int | str]] = {}
        for name, file in held.items():
            columns[name] = {"bytes": file.tell(), "data": _appended(file, out)}
            if name in dtypes:
                columns[name]["dtype"] = dtypes[name]
            else:
                columns[name]["offsets"] = _appended(offsets[name], out)
        described = json.dumps(
            {"format": FORMAT, "rows": rows, "columns": columns, "about": dict(about or {})}
        ).encode()
        out.write(described + len(described).to_bytes(LENGTH, "little"))
    with path.open("r+b") as whole:
        whole.write(hashlib.file_digest(whole, "sha256").digest())


def _texts_of(file: pq.ParquetFile, names: list[str]) -> Iterator[dict[str, pa.LargeStringArray]]:
    for group in range(file.metadata.num_row_groups):
        table = file.read_row_group(group, names, use_threads=False)
        yield {name: table[name].combine_chunks() for name in names}


def _appended(file: BinaryIO, out: BinaryIO) -> int:
    """Copy a file to where the next buffer may begin, and say where that is."""
    out.write(bytes(-out.tell() % ALIGNED))
    at = out.tell()
    file.seek(0)
    shutil.copyfileobj(file, out, 2**20)
    return at


def _forget_old(kept: Path, latest: Path) -> None:
    held: list[tuple[float, Path]] = []
    for path in kept.glob("*.arrow"):
        with suppress(OSError):
            held.append((path.stat().st_mtime, path))
    for _, path in sorted(held, reverse=True)[MOST:]:
        if path != latest:
            with suppress(OSError):  # another process removed it, or still reads it (Windows)
                path.unlink()
