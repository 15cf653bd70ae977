"""Small files that people edit and other programs may have written (settings, records): one strict, bounded reader.

A run folder may come from anybody. So a small file is a regular file of bounded size, its YAML has no aliases, tags or
depth, and each value is taken with its type and range. What does not hold is one line that names the file. A file that
could not be read is not read again before it changes: a list of runs is drawn at every click.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import yaml

from stage3.errors import ConfigError, Stage3Error, StorageError
from stage3.storage import read_file, read_json

T = TypeVar("T")

MAX_YAML = 2**16  # bytes of a file of settings; ours have 5 KB, and a YAML reader takes some 10 s per MB
MAX_RECORD = 2**20  # bytes of a small JSON file
MAX_DEPTH = 8  # of lists and mappings in each other in YAML; settings need two
MAX_WHOLE = 2**63  # whole numbers stay below it in size
MAX_TEXT = 10_000  # characters of a text that is shown to a person
MAX_PATH = 4096  # characters of a path: the longest that Linux opens
MAX_NAME = 255  # bytes of a file's name: the longest that common file systems take
MAX_SHOWN = 100  # characters of a value in an error message


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping with names as keys, in at most `MAX_YAML` bytes; errors name the file.

    Raises:
        ConfigError: no such file, no regular file, or not such a mapping.
        StorageError: the disk fails.
    """
    if problem := path_problem(str(path)):
        raise ConfigError(f"{shown(str(path))} {problem}")
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; expected a YAML file of settings")
    try:
        data = read_file(path, MAX_YAML, links=True)
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise ConfigError(f"{path}: no such file") from None
        if error.__cause__ is not None:
            raise
        raise ConfigError(str(error)) from None  # not a regular file, or too large
    return parse_yaml(data, path)


def parse_yaml(data: bytes, source: Path) -> dict[str, Any]:
    """Parse a YAML mapping with names as keys, without aliases, tags, dates and names that occur twice.

    Raises:
        ConfigError: not such a mapping; the message names `source`.
    """
    try:
        loader = _Strict(data.decode("utf-8-sig"))
        loaded = loader.get_single_data()
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"{source}: not readable as YAML: {reason}") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(f"{source}: expected 'name: value' lines, found a {type(loaded).__name__}")
    return loaded


class _Strict(yaml.SafeLoader):
    """YAML as settings need it: what each value is can be read off its text, and nothing stands for much more."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - of the base class, without dates: 2001-12-14 is a text
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":merge"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        where = f"line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"{where}: aliases (*{str(event.anchor)[:40]}) are not read; write the value itself")
        tag: str | None = getattr(event, "tag", None)
        if tag is not None:
            raise ValueError(f"{where}: tags ({tag[:60]}) are not read")
        if self._depth >= MAX_DEPTH:
            raise ValueError(f"{where}: nested more than {MAX_DEPTH} deep")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        names: set[Any] = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True) if isinstance(key, yaml.ScalarNode) else None
            where = f"line {key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode):
                raise ValueError(f"{where}: a name must be a text")
            if name in names:
                raise ValueError(f"{where}: {str(name)[:60]!r} occurs twice")
            names.add(name)
        return super().construct_mapping(node, deep)


def _whole(loader: _Strict, node: Any) -> int:
    value = loader.construct_yaml_int(node)
    if abs(value) >= MAX_WHOLE:
        raise ValueError(f"line {node.start_mark.line + 1}: a whole number of more than 63 bits")
    return int(value)


_Strict.add_constructor("tag:yaml.org,2002:int", _whole)


class Record:
    """A small JSON object, each of whose entries is taken with its type and range.

    Args:
        path: the file; errors name it.
        values: its content; read from the file when left out.

    Raises:
        StorageError: missing, no regular file, more than `MAX_RECORD` bytes, or no strict JSON object.
    """

    def __init__(self, path: Path, values: dict[str, Any] | None = None) -> None:
        self.path = path
        self.values = read_json(path, limit=MAX_RECORD) if values is None else values

    @overload
    def whole(self, name: str, default: int, *, low: int = 0) -> int: ...
    @overload
    def whole(self, name: str, default: None = None, *, low: int = 0) -> int | None: ...
    def whole(self, name: str, default: int | None = None, *, low: int = 0) -> int | None:
        """A whole number from `low` to 63 bits, or the default where there is none or null."""
        value = self.values.get(name)
        if value is None:
            return default
        if type(value) is not int or not low <= value < MAX_WHOLE:
            raise self._wrong(name, value, f"a whole number from {low}")
        return value

    @overload
    def number(self, name: str, default: float) -> float: ...
    @overload
    def number(self, name: str, default: None = None) -> float | None: ...
    def number(self, name: str, default: float | None = None) -> float | None:
        """A finite number, or the default where there is none or null."""
        value = self.values.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) >= 1e300:
            raise self._wrong(name, value, "a number")
        return float(value)

    def text(self, name: str, default: str = "", *, most: int = MAX_TEXT) -> str:
        """A text of at most `most` characters, or the default where there is none."""
        value = self.values.get(name, default)
        if not isinstance(value, str) or len(value) > most or not encodable(value):
            raise self._wrong(name, value, f"a text of at most {most:,} characters")
        return value

    def time(self, name: str) -> str:
        """A time as ISO 8601 with its zone, "" where there is none."""
        value = self.text(name, most=40)
        try:
            known = not value or datetime.fromisoformat(value).tzinfo is not None
        except ValueError:
            known = False
        if not known:
            raise self._wrong(name, value, "a time as ISO 8601")
        return value

    def _wrong(self, name: str, value: Any, expected: str) -> StorageError:
        return StorageError(f"{self.path}: damaged, {name} is {shown(value)}, expected {expected}")


def encodable(text: str) -> bool:
    """Whether a text can be written as UTF-8: names of files that are not UTF-8 cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def path_problem(text: str) -> str:
    """Why a text can be no path and no name that is stored, in words that follow it; "" where it can.

    Example:
        >>> path_problem("data/samples"), path_problem("data" + chr(0))
        ('', 'holds a control character')
    """
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        return "holds a control character"
    if not encodable(text):
        return "is not UTF-8. Rename the file or folder."
    if len(text) > MAX_PATH:
        return f"has {len(text):,} characters, more than {MAX_PATH:,}"
    if any(len(part.encode()) > MAX_NAME for part in re.split(r"[/\\\\+=,]", text)):
        return f"holds a name of more than {MAX_NAME} bytes, which no file system takes"
    return ""


def shown(value: Any) -> str:
    """A value as an error message shows it: `repr`, cut where it is long."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]} …"


class Remembered(Generic[T]):
    """What is read of a file, kept until the file changes, and why it could not be read likewise.

    A failing disk is not remembered: the file may be well.
    """

    def __init__(self, read: Callable[[Path], T], most: int = 512) -> None:
        self._read, self._most = read, most
        self._known: dict[tuple[Path, int, int, int, int], T | Stage3Error] = {}

    def __call__(self, path: Path) -> T:
        """What the file holds.

        Raises:
            Stage3Error: as `read`; for an unchanged file again with the same words.
        """
        try:
            info = os.stat(path)  # noqa: PTH116 - a thousand are asked for at a time
        except (OSError, ValueError):
            return self._read(path)
        key = (path, info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_ino)
        known = self._known.get(key)
        if known is None:
            try:
                known = self._read(path)
            except Stage3Error as error:
                if error.__cause__ is not None:
                    raise
                known = error
            self._known[key] = known
            while len(self._known) > self._most:
                self._known.pop(next(iter(self._known)), None)
        if isinstance(known, Stage3Error):
            raise type(known)(str(known))
        return known
