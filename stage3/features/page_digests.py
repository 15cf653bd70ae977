"""What each page file holds, by path, size and time of change, so that unchanged files are not read again.

Every page file is read once here for the key of its crops. Where the manifest gives its sha256, that is taken in the
same pass, so checking it costs no second one, and none at all on later runs.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from stat import S_ISREG

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from stage3.config import Config
from stage3.data import images, remote
from stage3.data.seal import KEY, digest_of
from stage3.errors import ConfigError, StorageError
from stage3.processes import pid_alive
from stage3.storage import TMP, make_folder, replacing

COLUMNS = {
    "path": "str",
    "size": "int64",
    "mtime_ns": "int64",
    "pixels": "int64",  # by the header, 0 where that does not read
    "digest": "str",
    "sha256": "str",  # "" where nobody has asked for it
    "problem": "str",
    "remarks": "str",
    "reading": "str",
}
CHUNK = 2**20


@dataclass(frozen=True)
class _Known:
    """A row of `COLUMNS` but its path; `problem` and `remarks` hold under the image settings `reading`."""

    size: int
    mtime_ns: int
    pixels: int
    digest: str
    sha256: str = ""
    problem: str = ""
    remarks: str = ""
    reading: str = ""


@dataclass(frozen=True)
class PageFile:
    """What is known of a page file.

    Attributes:
        digest: of its bytes; empty when there is a problem.
        problem: code of why it cannot be used: missing, unreadable, other bytes than the manifest says, or known not
            to decode; "" when nothing is known against it.
        remarks: codes of what was seen when it was decoded.
    """

    digest: bytes = b""
    problem: str = ""
    remarks: tuple[str, ...] = ()


class PageDigests:
    """Digest of every page file, and what decoding it under the image settings showed.

    Args:
        root: folder of the feature store.
        config: the image settings.
        gone: files that are no longer there count as they were; nothing is written.
        part: what one of several processes is called, each of which writes a file of its own; "" joins them all.

    Attributes:
        reading: the image settings that change pixels, as part of every crop's key.
    """

    def __init__(self, root: Path, config: Config, *, gone: bool = False, part: str = "") -> None:
        self.path = root / (f"pages-{part}.parquet" if part else "pages.parquet")
        self._is_part = part != ""
        self.gone = gone
        self.reading = b"partial" if config.truncated_images else b"whole"
        self._limits = f"{self.reading.decode()} {config.max_megapixels:g} Mpx"
        self._most_pixels = config.max_megapixels * 1e6
        known = self._load()
        self._rows: dict[str, _Known] = {
            path: _Known(int(size), int(mtime), int(pixels), *map(str, rest))
            for path, size, mtime, pixels, *rest in known.itertuples(index=False, name=None)
        }
        self._changed: dict[str, _Known] = {}
        self._saved = time.monotonic()

    def _files(self) -> dict[Path, int]:
        """The files that processes wrote and when, the last one last: it knows best."""
        found: dict[Path, int] = {}
        for path in self.path.parent.glob("pages*.parquet"):
            with suppress(OSError):  # joined and removed meanwhile
                found[path] = path.stat().st_mtime_ns
        return dict(sorted(found.items(), key=lambda item: item[1]))

    def _load(self) -> pd.DataFrame:
        frames = [pd.DataFrame({k: pd.Series([], dtype=t) for k, t in COLUMNS.items()})]
        for path in self._files():
            try:
                table = pq.read_table(path)
                frame = table.to_pandas()[list(COLUMNS)].astype(COLUMNS)
                intact = (table.schema.metadata or {}).get(KEY) == digest_of(frame)
            except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):  # gone, or damaged
                continue
            if intact:  # else only time is lost: every file is read again
                frames.append(frame)
        return pd.concat(frames, ignore_index=True) if len(frames) > 2 else frames[-1]

    def look(self, path: str, sha256: str = "") -> PageFile:
        """What is known of a page file, read only when it is new or has changed.

        Args:
            path: the file, "" when it is missing.
            sha256: what its bytes must hash to; "" accepts any.
        """
        if not path:
            return PageFile(problem="image:missing")
        if self.gone and path in self._rows:
            return self._as_known(self._rows[path], sha256)
        try:
            stamp = _stamp(path)
            if stamp is None:  # reading a pipe or a device could wait for ever
                return PageFile(problem="image:not_a_file")
            known = self._rows.get(path)
            if known is None or (known.size, known.mtime_ns) != stamp:
                pixels, *digests = _digests(path, sha256 != "")
                known = self._keep(path, _Known(*stamp, pixels, *digests))
            elif sha256 and not known.sha256:  # read before its manifest had the column
                known = self._keep(path, replace(known, sha256=_digests(path, True)[2]))
        except FileNotFoundError:
            return PageFile(problem="image:missing")
        except ConfigError:
            raise
        except OSError:
            return PageFile(problem="image:unreadable")
        except images.ImageProblem as problem:  # replaced in between
            return PageFile(problem=f"image:{problem.code}")
        return self._as_known(known, sha256)

    def _as_known(self, known: _Known, sha256: str) -> PageFile:
        """What is known of a file under the image settings."""
        if sha256 and known.sha256 != sha256:
            return PageFile(problem="image:sha256")
        if known.pixels > self._most_pixels:  # also where an earlier, higher limit let its crops into the store
            return PageFile(problem="image:too_many_pixels")
        if known.reading != self._limits:
            return PageFile(bytes.fromhex(known.digest))
        if known.problem:
            return PageFile(problem=f"image:{known.problem}")
        return PageFile(bytes.fromhex(known.digest), remarks=tuple(f"image:{r}" for r in known.remarks.split()))

    def lost(self, path: str, problem: str) -> None:
        """Remember that a file does not decode, so that the next run need not try."""
        self._keep(path, replace(self._rows[path], problem=problem, remarks="", reading=self._limits))

    def remark(self, path: str, remarks: Iterable[str]) -> bool:
        """Remember what decoding a file showed, so that later runs, which do not decode it, can say it too.

        Returns whether it is news: `look` has not said it yet.
        """
        before = self._rows[path]
        after = self._keep(path, replace(before, problem="", remarks=" ".join(remarks), reading=self._limits))
        return after != before

    def _clear_dead(self) -> None:
        """Remove what processes that were killed left of such a file."""
        for left in self.path.parent.glob(f"{TMP}pages*"):
            pid = left.name.rpartition("-")[2]
            if pid.isdecimal() and int(pid) != os.getpid() and not pid_alive(int(pid)):
                with suppress(OSError):
                    left.unlink()

    def _keep(self, path: str, row: _Known) -> _Known:
        self._changed[path] = self._rows[path] = row
        return row

    def save(self, every: float = 0.0) -> None:
        """Join what was learned with what other processes learned, unless that was done `every` seconds ago."""
        if self._changed and time.monotonic() - self._saved >= every:
            self.join()

    def join(self) -> None:
        """`save`, also when nothing was learned here: files that several processes wrote become one."""
        if self.gone or not (self._changed or len(self._files()) > 1):
            return
        changed = dict(self._changed)  # threads go on learning
        parts = {} if self._is_part else {p: t for p, t in self._files().items() if p != self.path}
        merged = {} if self._is_part else {row[0]: row for row in self._load().itertuples(index=False, name=None)}
        merged.update({path: (path, *astuple(row)) for path, row in changed.items()})
        frame = pd.DataFrame(list(merged.values()), columns=list(COLUMNS)).astype(COLUMNS)
        try:
            make_folder(self.path.parent)
            self._clear_dead()
            with replacing(self.path, durable=False) as scratch:
                table = pa.Table.from_pandas(frame, preserve_index=False)
                sealed = {**(table.schema.metadata or {}), KEY: digest_of(frame)}
                pq.write_table(table.replace_schema_metadata(sealed), scratch)
        except StorageError as error:
            if isinstance(error.__cause__, PermissionError):  # another process reads it (Windows): only time is lost
                return
            raise
        self._saved = time.monotonic()
        if self._is_part:  # all of it again next time: whoever joins the parts removes them
            return
        for path, row in changed.items():
            if self._changed.get(path) is row:
                del self._changed[path]
        for joined, written in parts.items():
            with suppress(OSError):
                if joined.stat().st_mtime_ns == written:
                    joined.unlink()


def _stamp(path: str) -> tuple[int, int] | None:
    """Size and time of change of a file; of a URL, size and what tells its versions apart. None for no regular file."""
    if remote.is_url(path):
        return remote.stamp(path)
    stat = Path(path).stat()
    return (stat.st_size, stat.st_mtime_ns) if S_ISREG(stat.st_mode) else None


def _digests(path: str, with_sha256: bool) -> tuple[int, str, str]:
    """Pixels of an image, the digest of its bytes and, from the same pass, their SHA-256 ("" when not wanted)."""
    digest, sha256 = hashlib.blake2b(digest_size=16), hashlib.sha256()
    url = remote.is_url(path)
    with io.BytesIO(remote.read(path, keep=True)) if url else images.open_regular(path) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            if with_sha256:
                sha256.update(chunk)
        pixels = images.header_pixels(file, path)
    return pixels, digest.hexdigest(), sha256.hexdigest() if with_sha256 else ""
