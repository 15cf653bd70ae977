"""What each page file holds, by path, size and time of change, so that unchanged files are not read again."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import time
from pathlib import Path
from stat import S_ISREG

import pandas as pd

from stage3 import images
from stage3.config import Config, StorageError

COLUMNS = {
    "path": "str",
    "size": "int64",
    "mtime_ns": "int64",
    "digest": "str",
    "problem": "str",
    "reading": "str",
    "pixels": "int64",
}
Row = tuple[int, int, str, str, str, int]  # without the path
CHUNK = 2**20


class PageDigests:
    """Digest of every page file, and which files could not be decoded under which image settings.

    Attributes:
        reading: the image settings that change pixels, as part of every crop's key.
    """

    def __init__(self, root: Path, config: Config) -> None:
        self.path = root / "pages.parquet"
        self.reading = b"partial" if config.truncated_images else b"whole"
        self._limits = f"{self.reading.decode()} {config.max_megapixels:g} Mpx"
        known = self._load()
        self._most_pixels = config.max_megapixels * 1e6
        self._rows: dict[str, Row] = {
            str(p): (int(s), int(m), str(d), str(q), str(r), int(n))
            for p, s, m, d, q, r, n in known.itertuples(index=False, name=None)
        }
        self._changed: dict[str, Row] = {}
        self._saved = time.monotonic()

    def _load(self) -> pd.DataFrame:
        empty = pd.DataFrame({k: pd.Series([], dtype=t) for k, t in COLUMNS.items()})
        try:
            frame = pd.read_parquet(self.path)
        except (OSError, ValueError):  # absent, or damaged: only time is lost, every file is read again
            return empty
        return frame[list(COLUMNS)] if set(COLUMNS) <= set(frame.columns) else empty

    def look(self, path: str) -> tuple[bytes, str]:
        """The digest of a page file, and a problem's code when the file is missing or known not to decode."""
        if not path:
            return b"", "image:missing"
        try:
            stat = Path(path).stat()
            if not S_ISREG(stat.st_mode):  # reading a pipe or a device could wait for ever
                return b"", "image:not_a_file"
            known = self._rows.get(path)
            if known is None or known[:2] != (stat.st_size, stat.st_mtime_ns):
                known = (stat.st_size, stat.st_mtime_ns, self._digest(path), "", "", _pixels(path))
                self._changed[path] = known
                self._rows[path] = known
        except FileNotFoundError:
            return b"", "image:missing"
        except OSError:
            return b"", "image:unreadable"
        problem = known[3] if known[4] == self._limits else ""
        if known[5] > self._most_pixels:  # also where an earlier, higher limit let its crops into the store
            problem = "too_many_pixels"
        return bytes.fromhex(known[2]), f"image:{problem}" if problem else ""

    @staticmethod
    def _digest(path: str) -> str:
        digest = hashlib.blake2b(digest_size=16)
        with Path(path).open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
        return digest.hexdigest()

    def lost(self, path: str, problem: str) -> None:
        """Remember that a file does not decode, so that the next run need not try."""
        size, mtime, digest, _, _, pixels = self._rows[path]
        self._changed[path] = self._rows[path] = (size, mtime, digest, problem, self._limits, pixels)

    def save(self, every: float = 0.0) -> None:
        """Join what was learned with what other processes learned, unless that was done `every` seconds ago."""
        if not self._changed or time.monotonic() - self._saved < every:
            return
        merged = {row[0]: row for row in self._load().itertuples(index=False, name=None)}
        merged.update({path: (path, *row) for path, row in self._changed.items()})
        frame = pd.DataFrame(list(merged.values()), columns=list(COLUMNS)).astype(COLUMNS)
        beside = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            frame.to_parquet(beside, index=False)
            beside.replace(self.path)
        except PermissionError:  # another process reads it (Windows): only time is lost, files are read again
            with contextlib.suppress(OSError):
                beside.unlink()
            return
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise StorageError(f"{self.path}: cannot be written: {error.strerror or error}") from error
        self._changed, self._saved = {}, time.monotonic()


def _pixels(path: str) -> int:
    """Pixels of a picture by its header; 0 where that does not read, since decoding will say why."""
    try:
        width, height = images.page_size(path, max_megapixels=math.inf)
    except images.ImageProblem:
        return 0
    return width * height
