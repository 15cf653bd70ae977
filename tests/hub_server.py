"""A Hugging Face Hub on this machine, as small as its own client allows: repositories, commits, downloads.

It has what `HfApi.create_repo`, `upload_folder` and `snapshot_download` ask for. Every file is taken as a regular one:
large-file storage is the Hub's business and its client's.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import pytest


class Hub(ThreadingHTTPServer):
    """What is stored: for each repository whether it is private, the files, and the messages of its commits.

    Attributes:
        token: without which nothing is answered.
        full: whether no commit is taken any more.
    """

    token = "hf_secret"

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Asked)
        self.private: dict[str, bool] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.messages: dict[str, list[str]] = {}
        self.full = False

    @property
    def address(self) -> str:
        """http://host:port"""
        return f"http://127.0.0.1:{self.server_port}"


class Asked(BaseHTTPRequestHandler):
    """One request."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def reply(self, value: object, status: int = 200, head: bool = False, **headers: str) -> None:
        """Bytes as they are, anything else as JSON."""
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if not head:
            self.wfile.write(data)

    def refused(self) -> bool:
        """Whether somebody asks who has not logged in."""
        known = self.headers.get("Authorization") == f"Bearer {self.server.token}"
        if not known:
            self.reply({"error": "Invalid username or password."}, 401)
        return not known

    def do_POST(self) -> None:
        """Make a repository, say how files travel, take a commit."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.refused():
            return
        hub, path = self.server, urlsplit(self.path).path
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
            hub.private[repo] = asked.get("visibility") == "private" or asked.get("private", False)
            self.reply({"url": f"{hub.address}/{repo}", "name": repo, "id": repo})
            return
        if path == "/api/validate-yaml":  # the head of a model card
            self.reply({"errors": [], "warnings": []})
            return
        repo, _, action = path.removeprefix("/api/models/").partition("/paths-info/")
        if action:
            asked, kept = parse_qs(body.decode())["paths"], hub.files[repo]
            self.reply([_entry(name, kept[name]) for name in asked if name in kept])
            return
        repo, _, action = path.removeprefix("/api/models/").partition("/preupload/")
        if action:
            files = [f["path"] for f in json.loads(body)["files"]]
            self.reply({"files": [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in files]})
            return
        repo, _, action = path.removeprefix("/api/models/").partition("/commit/")
        if action and not hub.full:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "header":
                    hub.messages.setdefault(repo, []).append(entry["value"]["summary"])
                else:
                    kept = hub.files.setdefault(repo, {})
                    kept[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            self.reply({"commitUrl": f"{hub.address}/{repo}/commit/{SHA}", "commitOid": SHA, "hookOutput": ""})
        else:
            self.reply({"error": "Storage limit reached." if action else path}, 403 if action else 404)

    def do_HEAD(self) -> None:
        """Of a file."""
        self.do_GET(head=True)

    def do_GET(self, head: bool = False) -> None:
        """What a repository holds, or a file of it."""
        hub, path = self.server, unquote(urlsplit(self.path).path)
        if path.startswith("/api/models/"):
            repo = "/".join(path.removeprefix("/api/models/").split("/")[:2])
            if self.refused():
                return
            if repo not in hub.files:
                self.reply({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
            elif "/tree/" in path:
                self.reply([_entry(name, data) for name, data in hub.files[repo].items()])
            else:
                self.reply({"id": repo, "sha": SHA, "siblings": [{"rfilename": name} for name in hub.files[repo]]})
            return
        repo, _, rest = path.removeprefix("/").partition("/resolve/")
        data = hub.files.get(repo, {}).get(rest.partition("/")[2])
        if self.refused():
            return
        if data is None:
            self.reply({"error": path}, 404, X_Error_Code="EntryNotFound")
        else:
            self.reply(data, head=head, ETag=f'"{_digest(data)}"', X_Repo_Commit=SHA)


SHA = "0123456789abcdef0123456789abcdef01234567"  # of every commit


def _entry(name: str, data: bytes) -> dict[str, object]:
    return {"type": "file", "path": name, "size": len(data), "oid": _digest(data)}


def _digest(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


@contextmanager
def in_use(patch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """`running`, and the real client of this process talks to it and is logged in."""
    from huggingface_hub import HfFileSystem, close_session, constants

    with running() as hub:
        own = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.address)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", own)
        patch.setattr(constants, "ENDPOINT", hub.address)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setenv("HF_TOKEN", hub.token)
        yield hub
        HfFileSystem.clear_instance_cache()
        close_session()


@contextmanager
def running() -> Iterator[Hub]:
    """A Hub that answers until the end of the block."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join(10)
