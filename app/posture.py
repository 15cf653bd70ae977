"""What every answer of the server says about itself, and which requests it does not look at.

No page of another site may show the explorer in a frame, where clicks could be stolen. A page of another site, or of
another server on this machine, may not open its websocket: Streamlit compares the name of the Origin alone, and every
port of this machine has that name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_PATH = 2048  # bytes of an address before its parameters
MAX_PART = 255  # bytes of a name in it: the longest that a file can have
HEADERS = {
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class Posture:
    """ASGI middleware.

    Args:
        app: what it stands before.
        origins: further Origins whose pages may open the websocket, such as that of a proxy.
    """

    def __init__(self, app: ASGIApp, origins: Iterable[str] = ()) -> None:
        self._app = app
        self._origins = {_place(origin) for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what is refused, and add the headers to everything else."""
        if scope["type"] == "websocket" and not self._is_own(scope):
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if too_long(scope["path"]):
            await with_headers({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
            await with_headers({"type": "http.response.body", "body": b""})
            return
        await self._app(scope, receive, with_headers)

    def _is_own(self, scope: Scope) -> bool:
        """Whether a websocket is asked for by a page of this very server; programs send no Origin."""
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if origin is None:
            return True
        secure = "https" if scope.get("scheme") == "wss" else "http"
        return _place(origin) in {_place(f"{secure}://{headers.get('host', '')}"), *self._origins}


def too_long(path: str) -> bool:
    """Whether an address can name nothing here."""
    data = path.encode("utf-8", "surrogateescape")
    return len(data) > MAX_PATH or any(len(part) > MAX_PART for part in data.split(b"/"))


def _place(origin: str) -> tuple[Any, ...]:
    """Host and port of an Origin, the port of its scheme where none is named; one that is none equals itself alone."""
    try:
        parts = urlsplit(origin.lower())
        port = parts.port
    except ValueError:
        return ("no place", origin)
    if not parts.hostname or parts.scheme not in PORTS:
        return ("no place", origin)
    return parts.hostname, port or PORTS[parts.scheme]
