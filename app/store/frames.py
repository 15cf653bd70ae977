"""Panel frames on the disk, so that the map of a checkpoint that was shown once is there at once the next time.

    CACHE/frames/KEY.arrow      one column after the other, then the SHA-256 of all bytes before it

Reading one takes neither the data set, nor the features, nor torch: 50 ms for 100,000 panels, whose data set takes
seconds. It is mapped into memory, so that only what is looked at is held. What is damaged, or of another version, is as
good as none; the cache may be removed at any time. N panels that the model embedded, V panels of the table.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from stage3 import __version__
from stage3.errors import StorageError
from stage3.storage import make_folder, open_regular, replacing, sha256, storing

FORMAT = 1  # raise it when what is kept beside a frame changes
COLUMNS = 2  # `stage3.runs.inspection.COLUMNS`, which to import takes seconds; a test holds them equal
SUFFIX = ".arrow"
MOST, MOST_BYTES = 12, 4 * 2**30  # how many are kept; the last one always is
DIGEST = hashlib.sha256().digest_size
NOTHING = "nothing"  # modality of a panel that has no image, no text and no box


@dataclass(frozen=True)
class Frame:
    """A checkpoint's panel frame, with what is asked of its data set and its model without opening them.

    Attributes:
        panels: `stage3.runs.inspection.panel_frame`: V rows, the index is the row of the panel table. Shared.
        table: fingerprint of the panel table.
        dim: size of the model's embeddings.
    """

    panels: pd.DataFrame
    table: str
    dim: int

    @cached_property
    def rows(self) -> np.ndarray:
        """(N,) int64, ascending: the rows of the panels that the model embedded, as in `Embedded.rows`."""
        found: np.ndarray = np.flatnonzero((self.panels["modality"] != NOTHING).to_numpy())
        found.flags.writeable = False
        return found


def place(cache: str, key: object) -> Path:
    """Where the frame of a key is kept; `key` says all that it was made from."""
    basis = repr((FORMAT, COLUMNS, __version__, key)).encode("utf-8", "replace")
    return Path(cache) / "frames" / f"{sha256(basis)[:32]}{SUFFIX}"


def read(path: Path) -> Frame:
    """A kept frame, mapped into memory.

    Raises:
        StorageError: there is none, or it is damaged.
    """
    with storing(path):
        descriptor, size = open_regular(path)
        with os.fdopen(descriptor, "rb") as file:
            whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b"")
    if hashlib.sha256(whole[:-DIGEST]).digest() != whole[-DIGEST:]:
        raise StorageError(f"{path}: damaged")
    table = pa.ipc.open_file(pa.py_buffer(whole[:-DIGEST])).read_all()
    about = table.schema.metadata
    with suppress(OSError):  # the one that was used last goes last
        os.utime(path)
    return Frame(table.to_pandas(split_blocks=True), about[b"table"].decode(), int(about[b"dim"]))


def keep(path: Path, frame: Frame) -> None:
    """Leave a frame for the next time, and remove those that were not used for long.

    Raises:
        StorageError: the cache cannot be written.
    """
    columns = [pa.array(frame.panels[name].array) if _is_text(frame.panels[name]) else _numbers(frame.panels[name])
               for name in frame.panels]  # fmt: skip
    about = {"table": frame.table, "dim": str(frame.dim)}
    table = pa.Table.from_arrays(columns, names=list(frame.panels), metadata=about)
    make_folder(path.parent)
    with replacing(path, durable=False) as scratch:
        with scratch.open("wb") as file, pa.ipc.new_file(file, table.schema) as out:
            out.write_table(table)
        with scratch.open("r+b") as whole:
            whole.write(hashlib.file_digest(whole, "sha256").digest())
    _forget_old(path.parent)


def _is_text(column: pd.Series) -> bool:
    return isinstance(column.dtype, pd.StringDtype)


def _numbers(column: pd.Series) -> pa.Array:
    return pa.array(column.to_numpy())  # not a number stays that, and does not become a null


def _forget_old(folder: Path) -> None:
    held: list[tuple[float, int, Path]] = []
    for path in folder.glob(f"*{SUFFIX}"):
        with suppress(OSError):
            held.append((path.stat().st_mtime, path.stat().st_size, path))
    total = 0
    for place_in_line, (_, size, path) in enumerate(sorted(held, reverse=True)):
        total += size
        if place_in_line and (place_in_line >= MOST or total > MOST_BYTES):
            with suppress(OSError):  # another server removed it, or still reads it (Windows)
                path.unlink()
