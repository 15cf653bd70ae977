"""Files that survive a crash: atomic replacement, fsync, strict JSON, and a lock that dies with its holder.

Every function here turns the operating system's refusal (disk full, no permission, a failing disk) into
`StorageError` with the path, so that callers need no `except OSError` of their own.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from stage3.errors import InUse, StorageError
from stage3.processes import pid_alive, this_process
from stage3.strict_json import parse_object as parse_object
from stage3.strict_json import to_json as to_json

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

TMP = ".tmp-"  # every unfinished file or folder starts so and ends in the pid of its writer
MAX_JSON = 64 * 2**20  # bytes; larger JSON is refused before it is parsed
_BINARY = getattr(os, "O_BINARY", 0)
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)  # for a pipe that takes a file's place


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a StorageError that names the path and, for a full disk, the remedy."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None))
        remedy = ". Free some space and run the same command again." if full else ""
        raise StorageError(f"{path}: {error.strerror or error}{remedy}") from error


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power cut. Windows journals them itself and cannot open folders."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make a file's content survive a power cut; a file that does not exist needs nothing."""
    with storing(path):
        try:
            descriptor = os.open(path, os.O_RDWR | _BINARY | _NOFOLLOW)
        except FileNotFoundError:
            return
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_folder(path: Path) -> None:
    """Create a folder (and its parents) whose name survives a power cut; nothing when it exists."""
    with storing(path):
        if path.is_dir():
            return
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def write_new(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file that must not exist yet, with its content on the disk when this returns (if durable)."""
    with storing(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY | _NOFOLLOW, 0o644)
        try:
            write_all(descriptor, data)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte: one call may write fewer (quota, signal, more than 2 GiB)."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view[: 2**30]) :]


def replace_file(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace a file's content in one step: readers and reruns after a crash see the old or the new, never a part."""
    with replacing(path, durable=durable) as scratch:
        write_new(scratch, data, durable=False)


@contextmanager
def replacing(path: Path, *, within: Path | None = None, durable: bool = True) -> Iterator[Path]:
    """A scratch path to write to; it becomes `path` in one step when the block ends well, and goes when the disk fails.

    Args:
        path: what is replaced.
        within: folder of the scratch file, on the same file system; default that of `path`.
        durable: content and name survive a power cut once the block has ended.
    """
    scratch = (within or path.parent) / f"{TMP}{path.name}-{os.getpid()}"
    with storing(path):
        scratch.unlink(missing_ok=True)
        try:
            yield scratch
            if durable:
                sync_file(scratch)
            rename(scratch, path)
        except OSError:  # also StorageError
            with suppress(OSError):
                scratch.unlink(missing_ok=True)
            raise
        if durable:
            sync_folder(path.parent)
            if within is not None:
                sync_folder(within)


def rename(source: Path, target: Path) -> None:
    """`os.replace`; on Windows tried again for half a second, since a reader's open file blocks it there."""
    for attempt in range(25):
        try:
            source.replace(target)
            return
        except PermissionError:
            if os.name != "nt" or attempt == 24:
                raise
            time.sleep(0.02)


def append_line(path: Path, line: bytes) -> None:
    """Append one line in one write; a torn line that a crash left at the end is cut off first.

    When the disk is full the file goes back to its old length, so that no half line stays.
    """
    with storing(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _BINARY | _NOFOLLOW, 0o644)
        try:
            end = end_of_last_line(descriptor)
            os.ftruncate(descriptor, end)
            os.lseek(descriptor, end, os.SEEK_SET)
            try:
                write_all(descriptor, line)
            except OSError:
                with suppress(OSError):
                    os.ftruncate(descriptor, end)
                raise
        finally:
            os.close(descriptor)


def end_of_last_line(descriptor: int) -> int:
    """Position after the last newline of an open file, 0 when it has none."""
    end = os.fstat(descriptor).st_size
    while end > 0:
        start = max(0, end - 4096)
        os.lseek(descriptor, start, os.SEEK_SET)
        newline = os.read(descriptor, end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def open_regular(path: Path | str, limit: int | None = None, *, links: bool = False) -> tuple[int, int]:
    """Open a regular file for reading, as (descriptor, size in bytes); nothing else is opened, nor waited for.

    Args:
        path: the file.
        limit: larger files are refused; None is any size.
        links: follow symbolic links. Only for what a user names, such as images and model weights.

    Raises:
        StorageError: a pipe, a device, a folder, a link that may not be followed, or too large.
        OSError: as the system has it; callers wrap it, see `storing`.
    """
    _check_regular(path, os.stat(path, follow_symlinks=links), limit)  # noqa: PTH116 - opening may have effects
    descriptor = os.open(path, os.O_RDONLY | _BINARY | _NONBLOCK | (0 if links else _NOFOLLOW))
    try:
        info = os.fstat(descriptor)
        _check_regular(path, info, limit)  # it may have been replaced in between
    except StorageError:
        os.close(descriptor)
        raise
    return descriptor, info.st_size


def open_for_adding(path: Path) -> int:
    """A descriptor that adds to a regular file, which is made where there is none; a pipe is refused, not waited for.

    Raises:
        StorageError: something else is in its place, or the system refuses.
    """
    with storing(path):
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | _BINARY | _NOFOLLOW | _NONBLOCK
        descriptor = os.open(path, flags, 0o644)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise StorageError(f"{path}: not a regular file (links and devices are not followed)")
    return descriptor


def _check_regular(path: Path | str, info: os.stat_result, limit: int | None) -> None:
    if not stat.S_ISREG(info.st_mode):
        raise StorageError(f"{path}: not a regular file (links and devices are not followed)")
    if limit is not None and info.st_size > limit:
        raise StorageError(f"{path}: {info.st_size:,} bytes, more than the {limit:,} allowed")


def sha256(data: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: Path, limit: int | None = None, *, links: bool = False) -> str:
    """Hex digest of a regular file's bytes, read in parts; StorageError names the file and the reason."""
    return size_and_sha256(path, limit, links=links)[1]


def size_and_sha256(path: Path, limit: int | None = None, *, links: bool = False) -> tuple[int, str]:
    """Length in bytes and hex digest of a regular file, read in parts."""
    with storing(path):
        descriptor, size = open_regular(path, limit, links=links)
        with os.fdopen(descriptor, "rb") as file:
            return size, hashlib.file_digest(file, "sha256").hexdigest()


def read_file(path: Path, limit: int = MAX_JSON, *, links: bool = False) -> bytes:
    """Read a regular file of at most `limit` bytes; StorageError names the file and the reason."""
    with storing(path):
        descriptor, size = open_regular(path, limit, links=links)
        with os.fdopen(descriptor, "rb") as file:
            return file.read(min(size, limit))


def read_json(path: Path, limit: int = MAX_JSON) -> dict[str, Any]:
    """Read one strict JSON object: no NaN, no name twice, no huge numbers or nesting, at most `limit` bytes."""
    return parse_object(read_file(path, limit), path)


def clear_scratch(folder: Path, *, all_writers: bool = False) -> None:
    """Remove what dead writers left unfinished in a folder (and this process); `all_writers` needs the run's lock."""
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(TMP):
            pid = entry.name.rpartition("-")[2]
            if all_writers or not pid.isdecimal() or int(pid) == os.getpid() or not pid_alive(int(pid)):
                remove(entry)


def clear_scratch_of(path: Path) -> None:
    """Remove what processes left that died while they created this very run."""
    for entry in path.parent.glob(f"{TMP}*"):
        name, _, pid = entry.name.removeprefix(TMP).rpartition("-")
        if name == path.name and pid.isdecimal() and (int(pid) == os.getpid() or not pid_alive(int(pid))):
            remove(entry)


def remove(path: Path) -> None:
    """Delete a file, a link (not what it points to) or a folder with all it holds."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


_held: set[int] = set()  # descriptors of the locks that this process holds


def _drop_inherited() -> None:
    """A forked worker must not keep its parent's lock: it would outlive a killed parent."""
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_inherited)


class Lock:
    """An exclusive lock of the operating system on a file: it ends with its holder, even at kill -9.

    The file keeps the holder's pid and host for the message that a second one gets; it is never deleted, since a
    deleted lock file can be held twice.
    """

    _BYTE = 2**30  # Windows locks byte ranges and hides them from readers: one far behind the holder's record

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    @property
    def mine(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def acquire(self, patience: float = 0.5) -> None:
        """Take the lock.

        Args:
            patience: seconds to keep trying; `is_held` of another process takes the lock for an instant.

        Raises:
            InUse: somebody else holds it (named).
            StorageError: the file system cannot lock.
        """
        with storing(self.path):
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | _BINARY | _NOFOLLOW, 0o644)
            try:
                deadline = time.monotonic() + patience
                while not self._try(descriptor):
                    if time.monotonic() > deadline:
                        raise InUse(f"{self.path.parent} is in use by {self._holder()}. Stop it, or wait for it.")
                    time.sleep(0.02)
                os.ftruncate(descriptor, 0)
                write_all(descriptor, json.dumps(this_process()).encode())
            except BaseException:  # also Ctrl-C: the lock would stay with this process
                os.close(descriptor)
                raise
        self._descriptor = descriptor
        _held.add(descriptor)

    def release(self) -> None:
        """Give the lock up; nothing when it is not held."""
        if self._descriptor is not None:
            _held.discard(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    def is_held(self) -> bool:
        """Whether any process holds the lock now."""
        try:
            descriptor = os.open(self.path, os.O_RDWR | _BINARY | _NOFOLLOW)
        except OSError:
            return False
        try:
            return not self._try(descriptor)
        finally:
            os.close(descriptor)

    def _holder(self) -> str:
        try:
            record = read_json(self.path, limit=4096)
        except StorageError:
            return "another process"
        return f"process {record.get('pid')} on {record.get('host')}"

    @classmethod
    def _try(cls, descriptor: int) -> bool:
        if sys.platform == "win32":
            os.lseek(descriptor, cls._BYTE, os.SEEK_SET)
            try:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            except OSError:
                return False
            finally:
                os.lseek(descriptor, 0, os.SEEK_SET)
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
