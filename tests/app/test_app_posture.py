"""What the server refuses before it looks, and what it says of itself; the viewer's own limits on what a run names."""

from __future__ import annotations

import ast
import asyncio
import runpy
import sys
import threading
import zlib
from pathlib import Path

import pytest
import streamlit
from PIL import Image
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from app import addresses
from app.posture import Posture, too_long
from app.store import children, embeds, jobs, loaders, map_jobs, thumbs
from stage3.config import Config
from stage3.data.images import ImageProblem
from stage3.runs import RunFolder

APP = Path(__file__).parents[2] / "app"


async def hello(request):
    return PlainTextResponse("hello", headers={"X-Frame-Options": "SAMEORIGIN"} if "own" in request.url.path else None)


async def stream(socket):
    await socket.accept()
    await socket.send_text("in")
    await socket.close()


@pytest.fixture(scope="module")
def client():
    routes = [Route("/", hello), Route("/own", hello), *thumbs.ROUTES, WebSocketRoute("/_stcore/stream", stream)]
    app = Starlette(routes=routes, middleware=[Middleware(Posture, origins=["https://comics.example"])])
    return TestClient(app, base_url="http://127.0.0.1:8501")


def test_no_other_page_may_show_the_explorer_in_a_frame(client):
    for path in ("/", "/missing", "/" + "a" * 300):
        headers = client.get(path).headers
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Content-Security-Policy"] == "frame-ancestors 'none'"
    assert client.get("/own").headers["X-Frame-Options"] == "SAMEORIGIN"  # what an answer says itself stays


@pytest.mark.parametrize(
    "name", ["a" * 256, "ü" * 128, "x/" * 1025, "images/panel/runs/" + "r" * 300 + "/0/240", "%00" * 100 + "a" * 200]
)
def test_names_that_no_file_can_have_are_not_found(client, name):
    assert client.get(f"/{name}").status_code == 404
    assert [too_long("/images/panel/runs/" + "r" * n) for n in (255, 256)] == [False, True]


@pytest.mark.parametrize(
    ("origin", "opens"),
    [
        ("http://127.0.0.1:8501", True),
        ("HTTP://127.0.0.1:8501", True),
        (None, True),
        ("https://comics.example", True),
        ("http://127.0.0.1:9999", False),
        ("http://localhost:8501", False),  # the Host is 127.0.0.1
        ("http://127.0.0.1", False),
        ("https://127.0.0.1:8501.evil.example", False),
        ("http://127.0.0.1:99999", False),
        ("http://comics.example", False),
        ("null", False),
        ("", False),
    ],
)
def test_the_websocket_opens_for_pages_of_this_very_server(client, origin, opens):
    def connect():
        with client.websocket_connect(
            "ws://127.0.0.1:8501/_stcore/stream", headers={"origin": origin} if origin is not None else {}
        ) as s:
            return s.receive_text()

    if opens:
        assert connect() == "in"
        return
    with pytest.raises(WebSocketDisconnect) as refused:
        connect()
    assert refused.value.code == 1008


def test_the_server_uses_it_and_reads_the_first_run_while_it_starts(monkeypatch):
    made, warm = [], threading.Event()
    monkeypatch.setattr(streamlit, "App", lambda script, **parts: made.append((script, parts)))
    monkeypatch.setattr(loaders, "warm_up", warm.set)
    monkeypatch.setattr(streamlit, "get_option", {}.get)
    root = str(APP.parent)  # `streamlit run` puts the folder of the script on the path, and not this one
    monkeypatch.setattr(sys, "path", [p for p in sys.path if Path(p).resolve() != APP.parent])
    runpy.run_path(str(APP / "main.py"))
    given = {"server.allowedHosts": ["comics.lan"], "server.corsAllowedOrigins": ["https://comics.lan"]}
    monkeypatch.setattr(streamlit, "get_option", given.get)
    runpy.run_path(str(APP / "main.py"))
    assert sys.path.count(root) == 1
    for (script, parts), hosts, origins in zip(
        made, (["*"], ["comics.lan"]), ([], ["https://comics.lan"]), strict=True
    ):
        assert script == str(APP / "ui.py")
        assert [m.cls for m in parts["middleware"]] == [Posture, TrustedHostMiddleware]
        assert [m.kwargs for m in parts["middleware"]] == [{"origins": origins}, {"allowed_hosts": hosts}]
        assert parts["routes"] == [*thumbs.ROUTES, *addresses.ROUTES]

    async def started():
        async with made[0][1]["lifespan"](None):
            return warm.wait(30)

    assert asyncio.run(started())


def png(path: Path, side: int) -> Path:
    """A gray PNG of side² pixels whose file is small."""
    row = b"\0" + bytes(side)
    packer = zlib.compressobj(1)
    data = b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    header = side.to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    return path


def test_a_run_does_not_decide_how_large_images_the_explorer_decodes(tmp_path, monkeypatch):
    monkeypatch.setattr(loaders, "MAX_MEGAPIXELS", 0.5)
    path = png(tmp_path / "large.png", 1000)
    config = Config(data="d", max_megapixels=2000)

    class Run:
        pass

    run = Run()
    run.config = config
    table = type("Table", (), {})()
    import pandas as pd

    table.pages = pd.DataFrame({"image_path": [str(path)]})
    monkeypatch.setattr(loaders, "entry", lambda run_id: type("Entry", (), {"run": run})())
    monkeypatch.setattr(loaders, "data_key", lambda config: ("key", str(tmp_path)))
    monkeypatch.setattr(loaders, "open_dataset", lambda run: type("Data", (), {"table": table})())
    with pytest.raises(ImageProblem, match="too_many_pixels"):
        thumbs.image("runs/x", "page", 0, 96)
    with pytest.raises(ImageProblem, match="too_many_pixels"):
        thumbs.whole_page(run, 0, "PNG")
    loaders._config_at.cache_clear()
    assert loaders.config_here(config).max_megapixels == 0.5
    assert loaders.config_here(config.replace(max_megapixels=0.2)).max_megapixels == 0.2
    loaders._config_at.cache_clear()
    with Image.open(path) as image:
        assert image.size == (1000, 1000)


def test_no_decoder_of_the_explorer_takes_its_limit_from_a_run():
    for path in APP.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "max_megapixels":
                assert "MAX_MEGAPIXELS" in ast.unparse(node.value), f"{path}:{node.value.lineno}"


def test_a_run_does_not_decide_where_the_explorer_writes(tmp_path, monkeypatch):
    (tmp_path / "home" / "runs").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "home")
    loaders._config_at.cache_clear()
    default = Config().cache_dir

    def cache(given: str) -> str:
        return loaders.config_here(Config(cache_dir=given)).cache_dir

    assert Path(cache(str(tmp_path / "elsewhere"))) == tmp_path / "home" / default
    assert Path(cache("../elsewhere")) == tmp_path / "home" / default
    assert Path(cache("imports/x/cache")) == tmp_path / "home" / "imports" / "x" / "cache"
    (tmp_path / "home" / "out").symlink_to(tmp_path)
    assert Path(cache("out/elsewhere")) == tmp_path / "home" / default
    foreign = RunFolder.create(tmp_path / "x", Config(cache_dir=str(tmp_path / "elsewhere"), max_megapixels=2000))
    started = []
    monkeypatch.setattr(map_jobs, "_children", {})
    monkeypatch.setattr(map_jobs, "_spawn", started.append)
    map_jobs.ensure(foreign, None, drift=True)
    own = ["--cache_dir", str(tmp_path / "home" / default), "--max_megapixels", "100"]
    assert started == [["--run", str(foreign.path), *own, "--drift"]]

    class Child:
        pid = 2**22 + 1

    spawned = []
    monkeypatch.setattr(children, "spawn", lambda module, arguments, **_: (spawned.append(arguments), Child())[1])
    monkeypatch.setattr(children, "STARTED", {})
    out = embeds.start(foreign, foreign.config)
    assert spawned.pop() == ["--run", str(foreign.path), "--out", str(out), *own]
    trained = jobs.start(foreign.config, "trained").config
    assert (trained.cache_dir, trained.max_megapixels) == (default, 100)
    assert jobs.start(foreign.config.replace(max_megapixels=5), "small").config.max_megapixels == 5
    monkeypatch.setenv("STAGE3_CACHE", str(tmp_path / "big"))
    loaders._config_at.cache_clear()
    assert Path(cache(str(tmp_path / "big" / "features"))) == tmp_path / "big" / "features"
    loaders._config_at.cache_clear()
