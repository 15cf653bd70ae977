"""A disk that fails on purpose: kills, full disks and bad sectors at any operation, and power cuts at every one.

`Disk` counts the operations that code makes through `os`. At operation k it can raise what a failing disk raises, or
`Killed`, after which no operation reaches the disk any more, as after kill -9 (`os.close` does: the kernel closes).
Files are not really synced; instead `PowerModel` replays the recorded operations and yields the folders that a power
cut could leave when only synced content and synced names are sure to survive.
"""

from __future__ import annotations

import errno
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

COUNTED = ("open", "write", "fsync", "ftruncate", "mkdir", "replace", "rename", "unlink", "rmdir")
WRITES = ("write", "mkdir")


class Killed(BaseException):
    """The process ends here."""


class Disk:
    """Patches `os` while it is entered.

    Args:
        fault: none, kill, torn (a kill in the middle of a write), sigkill (a real one), enospc (the disk stays full),
            eio (one operation fails), short (one write stores one byte).
        at: which operation, from 1.
        root: when given, `events` records what happens below it.
    """

    def __init__(self, fault: str = "none", at: int = 0, root: Path | None = None) -> None:
        self.fault, self.at, self.root = fault, at, root
        self.names: list[str] = []  # of the operations so far; "create" for an open that may make a file
        self.dead = self.full = self.hit = False
        self.events: list[tuple] = []
        self._folders: dict[int, Path] = {}
        self._real = {name: getattr(os, name) for name in (*COUNTED, "close")}

    def __enter__(self) -> Disk:
        for name in (*COUNTED, "close"):
            setattr(os, name, getattr(self, f"_{name}", None) or self._wrapped(name))
        return self

    def __exit__(self, *exc: object) -> None:
        for name, real in self._real.items():
            setattr(os, name, real)

    def _wrapped(self, name):
        def operation(*args, **kwargs):
            creates = name in WRITES or (name == "open" and args[1] & os.O_CREAT)
            self._meet_fault("create" if name == "open" and creates else name, creates, args)
            if name == "fsync":
                self._record(name, args, kwargs, None)
                return None
            if name == "write" and self.hit and self.fault == "short" and self.count == self.at:
                args = (args[0], args[1][:1])
            before = self._stamp(args, kwargs) if name == "open" else None
            result = self._real[name](*args, **kwargs)
            if name == "open":
                self._folders[result] = self._path(args[0], kwargs.get("dir_fd"))
            self._record(name, args, kwargs, result, before)
            return result

        return operation

    def _close(self, descriptor):
        self._folders.pop(descriptor, None)
        self._real["close"](descriptor)

    @property
    def count(self) -> int:
        return len(self.names)

    def _meet_fault(self, name: str, creates: bool, args: tuple) -> None:
        if self.dead:
            raise Killed
        self.names.append(name)
        if self.full and creates:
            raise OSError(errno.ENOSPC, "No space left on device")
        if self.count != self.at or self.fault == "none":
            return
        self.hit = True
        if self.fault == "sigkill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault in ("kill", "torn"):
            self.dead = True
            if self.fault == "torn" and name == "write":
                self._real["write"](args[0], args[1][: len(args[1]) // 2])
            raise Killed
        if self.fault == "enospc":
            self.full = True
            if creates:
                raise OSError(errno.ENOSPC, "No space left on device")
        if self.fault == "eio":
            raise OSError(errno.EIO, "Input/output error")

    # --- recording

    def _path(self, name, descriptor) -> Path:
        return Path(name) if descriptor is None else self._folders[descriptor] / name

    def _stamp(self, args, kwargs) -> bool:
        return self.root is not None and os.path.lexists(self._path(args[0], kwargs.get("dir_fd")))

    def _record(self, name, args, kwargs, result, existed=None) -> None:
        if self.root is None:
            return
        if name in ("write", "ftruncate", "fsync"):
            path = self._folders.get(args[0])
            value = bytes(args[1][:result]) if name == "write" else args[1] if name == "ftruncate" else None
            where = os.lseek(args[0], 0, os.SEEK_CUR) - result if name == "write" else 0
            event = (name, path, value, where)
        elif name in ("replace", "rename"):
            event = ("replace", Path(args[0]), Path(args[1]), 0)
        elif name == "open":
            event = ("create", self._path(args[0], kwargs.get("dir_fd")), None, 0)
            if existed or not args[1] & os.O_CREAT:
                return
        else:
            event = (name, self._path(args[0], kwargs.get("dir_fd")), None, 0)
        if event[1] is not None and event[1].is_relative_to(self.root):
            paths = [p.relative_to(self.root) if isinstance(p, Path) else p for p in event[1:3]]
            self.events.append((name if event[0] != "create" else "create", *paths, event[3]))


class Node:
    """A file (its bytes now, and those that are synced) or a folder (its names now, and those that are synced)."""

    def __init__(self, folder: bool) -> None:
        self.folder = folder
        self.now = {} if folder else b""
        self.safe = {} if folder else b""


class PowerModel:
    """What the disk holds, in memory, operation by operation."""

    def __init__(self, root: Path) -> None:
        """Start from a folder whose content is all synced."""
        self.top = self._read(root)

    def _read(self, path: Path) -> Node:
        node = Node(path.is_dir())
        node.now = {p.name: self._read(p) for p in path.iterdir()} if node.folder else path.read_bytes()
        node.safe = dict(node.now) if node.folder else node.now
        return node

    def _node(self, path: Path) -> Node:
        node = self.top
        for part in path.parts:
            node = node.now[part]
        return node

    def apply(self, name: str, path: Path, value, where: int) -> None:
        if name == "fsync":
            node = self._node(path)
            node.safe = dict(node.now) if node.folder else node.now
        elif name in ("replace", "rename"):
            self._node(value.parent).now[value.name] = self._node(path.parent).now.pop(path.name)
        elif name in ("create", "mkdir"):
            self._node(path.parent).now[path.name] = Node(name == "mkdir")
        elif name in ("unlink", "rmdir"):
            del self._node(path.parent).now[path.name]
        elif name == "write":
            node = self._node(path)
            node.now = node.now[:where].ljust(where, b"\0") + value + node.now[where + len(value) :]
        elif name == "ftruncate":
            node = self._node(path)
            node.now = node.now[:value]

    def after_power_cut(self, rng: random.Random) -> Iterator[dict[str, bytes | None]]:
        """Trees that could be found afterwards, as {relative path: content, None for a folder}."""
        for names, content in (
            ("safe", "lost"), ("now", "lost"), ("now", "zeroed"), ("now", "torn"), ("now", "garbage"), ("now", "now"),
            ("any", "any"), ("any", "now"),
        ):  # fmt: skip
            yield dict(self._tree(self.top, "", names, content, rng))

    def _tree(self, node: Node, path: str, names: str, content: str, rng: random.Random):
        if not node.folder:
            yield path, self._content(node, content, rng)
            return
        if path:
            yield path, None
        chosen = rng.choice(("safe", "now")) if names == "any" else names
        for name, child in sorted((node.safe if chosen == "safe" else node.now).items()):
            yield from self._tree(child, f"{path}/{name}".lstrip("/"), names, content, rng)

    @staticmethod
    def _content(node: Node, content: str, rng: random.Random) -> bytes:
        if content == "any":
            content = rng.choice(("lost", "zeroed", "torn", "garbage", "now"))
        if content == "now" or node.now == node.safe:
            return node.now
        start = len(node.safe) if node.now.startswith(node.safe) else 0  # synced bytes before an append stay
        tail = node.now[start:]
        if content == "lost":
            return node.safe
        if content == "torn":
            return node.now[:start] + tail[: len(tail) // 2 // 512 * 512 or len(tail) // 2]
        return node.now[:start] + (bytes(len(tail)) if content == "zeroed" else rng.randbytes(len(tail)))


def write_tree(root: Path, tree: dict[str, bytes | None]) -> None:
    root.mkdir()
    for name, content in tree.items():
        if content is None:
            (root / name).mkdir()
        else:
            (root / name).write_bytes(content)
