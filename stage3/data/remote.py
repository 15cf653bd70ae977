"""Images behind URLs: S3, Google Cloud, Azure, HTTP, the Hugging Face hub, and members of zip files, by fsspec.

Nothing is read unless two people agree: whoever names the data (`allow_remote_images`), and whoever started the process
(the environment variable STAGE3_REMOTE_IMAGES, which the explorer sets to off where it is not set). A manifest of
unknown origin could otherwise let this machine fetch what only this machine may see. Credentials are those of the
environment, as each protocol's own tools have them; what a URL holds of them is never shown.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import stat
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from stage3.errors import ConfigError

T = TypeVar("T")

SWITCH = "STAGE3_REMOTE_IMAGES"  # environment variable: set to anything but "on" it forbids them to the whole process
PACKAGES = {  # what fsspec needs beside itself for each protocol that is read; "" for nothing
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "http": "aiohttp",
    "https": "aiohttp",
    "hf": "",
    "memory": "",
    "zip": "",
}
MAX_BYTES = 512 * 2**20  # of one image file
CHUNK = 2**20
SECONDS = 60.0  # for one attempt at one file
CONNECT_SECONDS = 10.0
WAITS = (0.5, 2.0)  # seconds before the second and the third attempt
KEPT_BYTES = 512 * 2**20  # of files that were read for their digest and wait to be decoded
KEPT_SECONDS = 600.0
STAMPS = (  # of what file systems say of a file: what changes when its bytes do
    *("ETag", "etag", "Content-MD5", "md5Hash", "content_settings", "blob_id", "oid", "CRC"),
    *("Last-Modified", "LastModified", "last_modified", "updated", "mtime", "created", "date_time"),
)
FAILURES = (  # of libraries that do not raise OSError
    ("aiohttp", "ClientError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("gcsfs.retry", "HttpError"),
    ("azure.core.exceptions", "AzureError"),
)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+://")
_SHOWN = re.compile(
    r"(?P<protocol>[A-Za-z][A-Za-z0-9+.\-]+://)(?P<user>[^\s/@'\"]*@)?(?P<path>[^\s?'\"]*)(?P<query>\?[^\s'\"]*)?"
)


def is_url(path: str) -> bool:
    r"""Whether a path of a manifest is a URL and not a file's; `C:\x` is a file's.

    >>> is_url("s3://comics/1.png"), is_url("zip://1.png::/books/one.zip"), is_url("C://x/1.png"), is_url("/x/1.png")
    (True, True, False, False)
    """
    return _URL.match(path) is not None


def redacted(text: str) -> str:
    """A text whose URLs show neither a password nor a query, which may be a signature.

    >>> redacted("https://me:secret@host/a.png?sig=123: gone")
    'https://***@host/a.png?*** gone'
    >>> redacted("book/p1: s3://comics/a b.png is missing")
    'book/p1: s3://comics/a b.png is missing'
    """
    if "://" not in text:
        return text

    def shown(found: re.Match[str]) -> str:
        user, query = "***@" if found["user"] else "", "?***" if found["query"] else ""
        return f"{found['protocol']}{user}{found['path']}{query}"

    return _SHOWN.sub(shown, text)


def require(url: str) -> None:
    """Refuse a URL that cannot be read here, whatever lies behind it.

    Raises:
        ConfigError: fsspec or the protocol's package is not installed, or the protocol is none that is read.
    """
    for protocol in protocols(url):
        if protocol not in PACKAGES:
            known = ", ".join(sorted(PACKAGES))
            raise ConfigError(f"{redacted(url)}: images are not read by {protocol}://. Known protocols: {known}")
        for package in ("fsspec", PACKAGES[protocol]):
            if package and importlib.util.find_spec(package) is None:
                lacks = f"{protocol}:// needs the package {package}"
                raise ConfigError(f"{redacted(url)}: {lacks}. Run: pip install {package}")


def protocols(url: str) -> list[str]:
    """The protocols of a URL, outermost first; of a local file behind `::` none.

    >>> protocols("zip://a.png::https://host/b.zip"), protocols("zip://a.png::/b.zip")
    (['zip', 'https'], ['zip'])
    """
    return [part.partition("://")[0].lower() for part in url.split("::") if is_url(part)]


def stamp(url: str) -> tuple[int, int]:
    """(size in bytes, a number that changes with ETag, checksum or time of change, whichever the file system has).

    Raises:
        FileNotFoundError: nothing is there.
        OSError: it cannot be reached, also not at the third attempt, or may not be; the message shows no secret.
    """

    def look() -> tuple[int, int]:
        system, path = _opened(url)
        info = system.info(path)
        if info.get("type") == "directory":
            raise IsADirectoryError("is a folder, not a file")
        seen = " ".join(f"{name}={info[name]}" for name in STAMPS if info.get(name) is not None)
        digest = hashlib.blake2b(seen.encode("utf-8", "replace"), digest_size=8).digest()
        return int(info.get("size") or 0), int.from_bytes(digest, "little") >> 1

    return _tried(url, look)


def read(url: str, *, keep: bool = False) -> bytes:
    """All bytes of the file behind a URL.

    Args:
        url: where it is.
        keep: hold the bytes, as far as there is room, for the next `read`, which takes them.

    Raises:
        FileNotFoundError, OSError: as `stamp`.
    """
    data = None if keep else _kept.take(url)
    if data is None:
        data = _tried(url, lambda: _bytes(url))
        if keep:
            _kept.put(url, data)
    return data


def _bytes(url: str) -> bytes:
    system, path = _opened(url)
    if protocols(url)[0] in ("http", "https"):
        with system.open(path, "rb", block_size=0) as file:  # as a stream, which may lack a size
            parts: list[bytes] = []
            while chunk := file.read(CHUNK):
                parts.append(chunk)
                _check_size(sum(map(len, parts)))
            return b"".join(parts)
    _check_size(int(system.info(path).get("size") or 0))
    data: bytes = system.cat_file(path)
    return data


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise OSError(f"more than the {MAX_BYTES:,} bytes allowed")


def _opened(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path in it."""
    if os.environ.get(SWITCH, "on").lower() != "on":
        raise PermissionError(f"URLs are not read here; start with {SWITCH}=on to allow it")
    require(url)
    last = url.split("::")[-1]
    if not is_url(last) and not stat.S_ISREG(os.stat(last).st_mode):  # noqa: PTH116 - a pipe could wait for ever
        raise OSError(f"{redacted(last)} is not a regular file")
    import fsspec

    system, path = fsspec.core.url_to_fs(url, **{name: _options(name) for name in protocols(url) if _options(name)})
    return system, path


def _options(protocol: str) -> dict[str, Any]:
    """Time-outs as each protocol's package takes them; attempts are counted here."""
    if protocol in ("http", "https"):
        import aiohttp

        return {"client_kwargs": {"timeout": aiohttp.ClientTimeout(total=SECONDS, sock_connect=CONNECT_SECONDS)}}
    if protocol in ("s3", "s3a"):
        limits = {"connect_timeout": CONNECT_SECONDS, "read_timeout": SECONDS, "retries": {"max_attempts": 1}}
        return {"config_kwargs": limits}
    if protocol in ("az", "abfs"):
        return {"connection_timeout": round(CONNECT_SECONDS), "read_timeout": round(SECONDS)}
    return {"requests_timeout": SECONDS} if protocol in ("gs", "gcs") else {}


def _tried(url: str, work: Callable[[], T]) -> T:
    """What the work gives, in up to three attempts; whatever goes wrong becomes an OSError without secrets."""
    for wait in (*WAITS, None):
        try:
            return work()
        except ConfigError:
            raise
        except _failures() as raised:
            error = _cause(raised)
            status, reason = _status(error), redacted(" ".join(str(error).split()))
            if isinstance(error, FileNotFoundError) or status in (404, 410):  # no attempt changes this, or the next
                raise FileNotFoundError(f"{redacted(url)} is not there") from None
            if isinstance(error, PermissionError | IsADirectoryError):
                raise type(error)(f"{redacted(url)}: {reason or 'access is denied'}") from None
            if wait is None or 400 <= status < 408:
                kind = "" if type(error) is OSError else f"{type(error).__name__} "
                raise OSError(f"{redacted(url)}: {kind}{reason}"[:600].strip()) from None
            time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def _status(error: BaseException) -> int:
    """What a server answered, as each library has it; 0 where none did."""
    answer = getattr(error, "response", None)
    if isinstance(answer, dict):  # botocore's
        return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
    for holder, name in ((error, "status"), (error, "status_code"), (answer, "status_code"), (error, "code")):
        if isinstance(value := getattr(holder, name, None), int):
            return value
    return 0


def _cause(error: Exception) -> BaseException:
    """What went wrong: fsspec says of any answer of an HTTP server, and of none, that nothing is there."""
    cause = error.__cause__
    return cause if isinstance(error, FileNotFoundError) and isinstance(cause, _failures()) else error


def _failures() -> tuple[type[Exception], ...]:
    """What reading may raise: of Python, and of the libraries that are loaded."""
    found: list[type[Exception]] = [OSError, EOFError, ValueError, KeyError]
    for module, name in FAILURES:
        if module in sys.modules:
            found.append(getattr(sys.modules[module], name))
    return tuple(found)


class _Kept:
    """Bytes that were read for a digest and are about to be decoded, so that they travel once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, tuple[float, bytes]] = {}
        self._bytes = 0

    def put(self, url: str, data: bytes) -> None:
        """Hold bytes if there is room, once what nobody came for has gone."""
        with self._lock:
            if self._bytes + len(data) > KEPT_BYTES:
                old = time.monotonic() - KEPT_SECONDS
                for name in [name for name, (since, _) in self._held.items() if since < old]:
                    self._bytes -= len(self._held.pop(name)[1])
            if self._bytes + len(data) <= KEPT_BYTES and url not in self._held:
                self._held[url] = time.monotonic(), data
                self._bytes += len(data)

    def take(self, url: str) -> bytes | None:
        """The bytes, which are then held no more; None where there are none."""
        with self._lock:
            entry = self._held.pop(url, None)
            self._bytes -= len(entry[1]) if entry else 0
        return entry[1] if entry else None


_kept = _Kept()
