"""Panel frames on the disk, so that the map of a checkpoint that was shown once is there at once the next time.

    CACHE/frames/KEY.arrow      its columns, see `stage3.data.column_file`
                 KEY.pca        (N, 2) float32 principal components, then their SHA-256

Reading one takes neither the data set, nor the features, nor torch: 50 ms for 100,000 panels, whose data set takes
seconds. It is mapped into memory, so that only what is looked at is held, and written some rows at a time. What is
damaged, or of another version, is as good as none; the cache may be removed at any time. N panels that the model
embedded, V panels of the table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from stage3 import __version__
from stage3.data import column_file
from stage3.errors import StorageError
from stage3.storage import make_folder, replace_file, replacing, sha256

FORMAT = 2  # raise it when what is kept beside a frame changes
COLUMNS = 2  # `stage3.runs.inspection.COLUMNS`, which to import takes seconds; a test holds them equal
SUFFIX, POSITIONS = ".arrow", ".pca"
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
        file: what its columns are read from when they are asked for; None where they are in memory.
    """

    panels: pd.DataFrame
    table: str
    dim: int
    file: column_file.ColumnFile | None = None

    @cached_property
    def rows(self) -> np.ndarray:
        """(N,) int64, ascending: the rows of the panels that the model embedded, as in `Embedded.rows`."""
        found: np.ndarray = np.flatnonzero((self.panels["modality"] != NOTHING).to_numpy())
        found.flags.writeable = False
        self.give_back()
        return found

    def give_back(self) -> None:
        """Let the system have the memory of what was read of a mapped file."""
        if self.file is not None:
            self.file.give_back()


def place(cache: str, key: object) -> Path:
    """Where the frame of a key is kept; `key` says all that it was made from."""
    basis = repr((FORMAT, COLUMNS, __version__, key)).encode("utf-8", "replace")
    return Path(cache) / "frames" / f"{sha256(basis)[:32]}{SUFFIX}"


def read(path: Path) -> Frame:
    """A kept frame, mapped into memory.

    Raises:
        StorageError: there is none, or it is damaged.
    """
    file = column_file.ColumnFile(path)
    return Frame(file.frame(), file.about["table"], file.about["dim"], file)


def keep(path: Path, parts: Iterable[pd.DataFrame], table: str, dim: int) -> None:
    """Leave a frame for the next time, and remove those that were not used for long.

    Args:
        path: its `place`.
        parts: some rows of the frame at a time; no more than one part is in memory.
        table: fingerprint of the panel table.
        dim: size of the model's embeddings.

    Raises:
        StorageError: the cache cannot be written.
    """
    make_folder(path.parent)
    with replacing(path, durable=False) as scratch:
        column_file.write(scratch, map(_columns, parts), {"table": table, "dim": dim})
    _forget_old(path.parent)


def _columns(part: pd.DataFrame) -> dict[str, column_file.Column]:
    return {str(name): _array(part[name]) for name in part.columns}


def read_positions(path: Path, n: int) -> np.ndarray:
    """(n, 2) float32 positions that were kept beside the frame of this path.

    Raises:
        StorageError: there are none, they are damaged, or of another number of panels.
    """
    whole = column_file.mapped_intact(path.with_suffix(POSITIONS))
    if len(whole) != 8 * n + DIGEST:
        raise StorageError(f"{path}: not the positions of {n:,} panels")
    return np.frombuffer(whole[:-DIGEST], "<f4").reshape(n, 2).astype(np.float32)


def keep_positions(path: Path, xy: np.ndarray) -> None:
    """Leave (n, 2) positions beside the frame of this path.

    Raises:
        StorageError: the cache cannot be written.
    """
    data = xy.astype("<f4").tobytes()
    make_folder(path.parent)
    replace_file(path.with_suffix(POSITIONS), data + hashlib.sha256(data).digest(), durable=False)


def _array(column: pd.Series) -> column_file.Column:
    if not isinstance(column.dtype, pd.StringDtype):
        return column.to_numpy()
    found = pa.array(column.array)
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def _forget_old(folder: Path) -> None:
    held: list[tuple[float, int, Path]] = []
    for path in folder.glob(f"*{SUFFIX}"):
        with suppress(OSError):
            held.append((path.stat().st_mtime, path.stat().st_size, path))
    total = 0
    for place_in_line, (_, size, path) in enumerate(sorted(held, reverse=True)):
        total += size
        if place_in_line and (place_in_line >= MOST or total > MOST_BYTES):
            for file in (path, path.with_suffix(POSITIONS)):
                with suppress(OSError):  # another server removed it, or still reads it (Windows)
                    file.unlink()
