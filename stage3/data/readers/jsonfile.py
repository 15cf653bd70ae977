"""JSON of unknown origin: bounded in size, strict about what json.loads silently accepts."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from stage3.data.images import ImageProblem, open_regular
from stage3.errors import DataError

MAX_BYTES = 20 * 2**20  # of one page's JSON; the largest honest page is far below 1 MB
CHUNK = 2**20
FENCE = "```"
Note = Callable[[str, str], None]  # counts an oddity: code, detail


def unheard(code: str, detail: str) -> None:
    """A note that nobody counts."""


class PageProblem(Exception):
    """A page cannot be used; `code` is the reason it is counted under, `detail` says what was found."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class _DuplicateKey(ValueError):
    pass


@dataclass(frozen=True)
class DamagedItem:
    """An item of a list that is refused by itself; the items around it are intact."""

    page_id: str
    problem: PageProblem


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are all different; json.loads alone silently keeps the last of equal keys."""
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        raise _DuplicateKey(twice)
    return made


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)
_FORGIVING = json.JSONDecoder(parse_int=float)  # only to find where an item ends that `_DECODER` refuses


def read_json(path: Path | str, note: Note = unheard) -> Any:
    """One JSON document from a regular file.

    A fence of three backticks around it, as language models write, is taken off, with what stands around the fence.

    UTF-8 with or without a byte order mark, and UTF-16 when it has one. NaN and infinities come through as floats, for
    the box rules to refuse.

    Raises:
        PageProblem: the file is missing, too large, in another encoding, or not exactly one JSON document.
    """
    try:
        with open_regular(path) as file:
            data = file.read(MAX_BYTES + 1)
    except ImageProblem as problem:
        raise PageProblem("file_unreadable", problem.detail) from None
    except OSError as error:
        raise PageProblem("file_unreadable", str(error.strerror or error)) from None
    if len(data) > MAX_BYTES:
        raise PageProblem("json_too_large", f"more than {MAX_BYTES // 2**20} MB")
    return parse(data, note)


def parse(data: bytes, note: Note = unheard) -> Any:
    """The value of one JSON document; see `read_json`."""
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise PageProblem("json_encoding", f"not UTF-8: byte {error.start} is 0x{data[error.start]:02x}") from None
    if not text.strip():
        raise PageProblem("json_empty", "the file is empty")
    if FENCE in text and not text.lstrip().startswith(("{", "[", '"')):
        text = _unfenced(text)
        note("json_fenced", "the JSON stands between fences of three backticks")
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise PageProblem("json_syntax", f"line {error.lineno}: {error.msg}") from None
    except RecursionError:
        raise PageProblem("json_too_deep", "nested too deeply") from None
    except ValueError as error:
        raise _problem(error) from None


def _unfenced(text: str) -> str:
    """What stands between the first fence, with its language, and the last one."""
    inside = text[text.index(FENCE) + len(FENCE) :]
    end = inside.rfind(FENCE)
    return re.sub(r"\A[A-Za-z0-9]*\s+", "", inside if end < 0 else inside[:end])


def _problem(error: ValueError) -> PageProblem:
    """Of what the decoder refuses although it is JSON: a key twice, or an integer of thousands of digits."""
    if isinstance(error, _DuplicateKey):
        return PageProblem("json_duplicate_key", f"key {str(error)[:80]!r} twice in one object")
    return PageProblem("json_number", str(error)[:120])


def iterate_list(path: Path) -> Iterator[Any]:
    """The items of one large JSON list, one at a time, so that the file is never in memory at once.

    An item with a key twice or an absurd number comes as a `DamagedItem`.

    Raises:
        DataError: the file is not a JSON list, or an item is broken or over the size of a page (nothing behind it
            could be trusted).
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from _items(file, path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8: {error.reason}") from None


def _decoded(text: str, start: int) -> tuple[Any, int]:
    """The item that begins at `start`, and where it ends."""
    try:
        return _DECODER.raw_decode(text, start)
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        item, end = _FORGIVING.raw_decode(text, start)
        page_id = item.get("canonical_id") if isinstance(item, dict) else None
        return DamagedItem(page_id if isinstance(page_id, str) else "", _problem(error)), end


def _items(file: TextIO, path: Path) -> Iterator[Any]:
    buffer = file.read(CHUNK).lstrip()
    if not buffer.startswith("["):
        raise DataError(f"{path}: expected a JSON list of pages, found {buffer[:20]!r}")
    start, number, ended = 1, 0, False
    while True:
        while start < len(buffer) and buffer[start] in " \t\r\n,":
            start += 1
        if start < len(buffer) and buffer[start] == "]":
            return
        problem = "the list is not closed"
        if start < len(buffer):
            try:
                item, end = _decoded(buffer, start)
                if end < len(buffer) or ended:  # a number at the end of the buffer might go on
                    yield item
                    start, number = end, number + 1
                    continue
            except json.JSONDecodeError as error:
                problem = error.msg  # broken, or cut by the end of the buffer
            except RecursionError:
                raise DataError(f"{path}: page {number} of the list is nested too deeply") from None
        if ended:
            raise DataError(f"{path}: page {number} of the list: {problem}")
        if len(buffer) - start > MAX_BYTES:
            raise DataError(f"{path}: page {number} of the list is over {MAX_BYTES // 2**20} MB or not JSON: {problem}")
        more = file.read(max(CHUNK, len(buffer) - start))
        buffer, start, ended = buffer[start:] + more, 0, not more
