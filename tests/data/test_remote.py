"""Images behind URLs: read through one door, only where it is allowed, counted when gone, without a secret anywhere."""

import csv
import importlib
import json
import os
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stage3.cli import typed
from stage3.config import Config
from stage3.data import images, page_check, readers, remote
from stage3.data.__main__ import main as data_command
from stage3.errors import ConfigError, DataError
from stage3.features import load_or_build, page_digests
from tests import hub_server

fsspec = pytest.importorskip("fsspec")

SECRET = "pa55word"
BOOKS = "abcdef"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No waiting; what another test has imported of the explorer forbids nothing here."""
    monkeypatch.setattr(remote, "WAITS", (0.0, 0.0))
    monkeypatch.setenv(remote.SWITCH, "on")


@pytest.fixture(scope="module")
def comics(tmp_path_factory) -> Path:
    """Twelve pages of two panels; images/BOOK/PAGE.png and json/."""
    folder = tmp_path_factory.mktemp("comics")
    rng = np.random.default_rng(0)
    for book in BOOKS:
        for kind in ("json", "images"):
            (folder / kind / book).mkdir(parents=True)
        for page in range(2):
            noise = rng.integers(0, 255, (120, 80, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / "images" / book / f"{page}.png")
            panels = [{"box_2d": [0, x, 1000, x + 480], "description": f"{book}{page}{x}"} for x in (0, 500)]
            (folder / "json" / book / f"{page}.json").write_text(json.dumps({"panels": panels}), encoding="utf-8")
    return folder


def listed(comics: Path, where: Path, form: str, **changes) -> Config:
    """Settings of a manifest with image paths of a form such as memory://{book}/{page}.png."""
    with (where / "pages.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("canonical_id", "absolute_image_path"))
        writer.writerows((f"{b}/{p}", form.format(book=b, page=p)) for b in BOOKS for p in range(2))
    given = {"allow_remote_images": True, "workers": 2, "cache_dir": str(where / "cache")} | changes
    return Config(manifest=str(where / "pages.csv"), panels=str(comics / "json"), **given)


@pytest.fixture
def memory(comics):
    """The images at memory://BOOK/PAGE.png."""
    system = fsspec.filesystem("memory")
    for path in (comics / "images").rglob("*.png"):
        system.pipe(f"/{path.relative_to(comics / 'images').as_posix()}", path.read_bytes())
    yield system
    system.store.clear()


def test_urls_have_the_very_features_of_files_and_are_read_once(comics, memory, tmp_path, monkeypatch):
    files = listed(comics, tmp_path, f"{comics}/images/{{book}}/{{page}}.png")
    local = load_or_build(readers.load(files), files, progress=False)
    assert local.report.computed_images == 24
    config = listed(comics, tmp_path, "memory://{book}/{page}.png")
    fetched = []
    own = remote._bytes
    monkeypatch.setattr(remote, "_bytes", lambda url: fetched.append(url) or own(url))
    table = readers.load(config)
    assert table.pages["image_path"].iloc[3] == "memory://b/1.png"
    assert (table.pages["width"] == 80).all()
    fetched.clear()
    found = load_or_build(table, config, progress=False)
    assert (found.report.computed_images, found.report.reused_images) == (0, 24)  # known by content
    np.testing.assert_array_equal(found.gather(np.arange(24))[0], local.gather(np.arange(24))[0])
    assert sorted(fetched) == sorted(table.pages["image_path"])
    monkeypatch.setattr(page_digests, "_digests", None)  # from then on size and stamp are enough
    assert not load_or_build(table, config, progress=False).report.computed_images
    fetched.clear()
    monkeypatch.undo()
    monkeypatch.setenv(remote.SWITCH, "on")
    monkeypatch.setattr(remote, "_bytes", lambda url: fetched.append(url) or own(url))
    fresh = config.replace(cache_dir=str(tmp_path / "other"))
    assert load_or_build(table, fresh, progress=False).report.computed_images == 24
    assert sorted(fetched) == sorted(table.pages["image_path"])  # for digest and pixels: each once


def test_what_is_gone_is_counted_and_what_has_changed_is_read_again(comics, memory, tmp_path):
    config = listed(comics, tmp_path, "memory://{book}/{page}.png", max_without_image=0.5)
    table = readers.load(config)
    first = load_or_build(table, config, progress=False)
    memory.rm("/c/0.png")
    memory.pipe("/d/1.png", (comics / "images" / "a" / "0.png").read_bytes())
    memory.pipe("/e/0.png", b"no image")
    again = load_or_build(table, config, progress=False)
    assert again.report.problems == {"image:missing": 1, "image:format": 1}
    assert again.report.examples["image:missing"] == ["memory://c/0.png"]
    assert table.report.counts["image:missing"] == 1
    assert again.image_rows.reshape(12, 2)[[4, 8]].tolist() == [[-1, -1], [-1, -1]]
    changed = np.array([14])  # its pixels are now those of the first page, its box too
    np.testing.assert_array_equal(again.gather(changed)[0], first.gather(np.array([0]))[0])


def test_thumbnails_and_the_page_check_use_the_same_door(comics, memory, tmp_path):
    config = listed(comics, tmp_path, "memory://{book}/{page}.png")
    assert images.thumbnail("memory://a/0.png", None, 30).size == (20, 30)
    assert images.page_size("memory://a/0.png") == (80, 120)
    check = page_check.check_page(config, "a/1", "memory://a/1.png")
    assert check.image == "memory://a/1.png"
    assert len(check.panels) == 2
    refusing = config.replace(allow_remote_images=False)
    assert page_check.check_page(refusing, "a/1", "memory://a/1.png").image == ""


def test_members_of_zip_files_are_read_and_a_relative_archive_lies_beside_the_manifest(comics, tmp_path):
    with zipfile.ZipFile(tmp_path / "book.zip", "w") as archive:
        for path in (comics / "images").rglob("*.png"):
            archive.write(path, path.relative_to(comics / "images").as_posix())
    config = listed(comics, tmp_path, "zip://{book}/{page}.png::book.zip")
    table = readers.load(config)
    assert table.pages["image_path"].iloc[0] == f"zip://a/0.png::{tmp_path}/book.zip"
    assert load_or_build(table, config, progress=False).report.computed_images == 24
    with pytest.raises(FileNotFoundError):
        remote.read(f"zip://a/7.png::{tmp_path}/book.zip")
    os.mkfifo(tmp_path / "pipe.zip")
    with pytest.raises(OSError, match="not a regular file"):  # and not a wait for ever
        remote.read(f"zip://a/0.png::{tmp_path}/pipe.zip")


# --- who allows it


def test_without_leave_no_url_is_read_and_the_remedy_is_named(comics, memory, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "_opened", lambda url: pytest.fail(f"{url} was opened"))
    config = listed(comics, tmp_path, "memory://{book}/{page}.png", allow_remote_images=False)
    with pytest.raises(DataError, match=r"100.0 % of the pages have no image.*--allow_remote_images"):
        readers.load(config)
    assert readers.read(config).report.counts["image_remote"] == 12


def test_the_explorer_forbids_it_to_its_process_and_to_what_it_starts(comics, memory, tmp_path, monkeypatch):
    import app.store

    config = listed(comics, tmp_path, "memory://{book}/{page}.png", max_without_image=1.0)
    table = readers.load(config)
    monkeypatch.delenv(remote.SWITCH)
    importlib.reload(app.store)
    assert os.environ[remote.SWITCH] == "off"
    with pytest.raises(images.ImageProblem, match=f"unreadable: .*{remote.SWITCH}=on"):
        images.thumbnail(table.pages["image_path"].iloc[0], None, 30)
    found = load_or_build(table, config.replace(cache_dir=str(tmp_path / "new")), progress=False)
    assert found.report.problems == {"image:unreadable": 12}
    monkeypatch.setenv(remote.SWITCH, "on")
    importlib.reload(app.store)
    assert os.environ[remote.SWITCH] == "on"  # whoever starts it has the last word


@pytest.mark.parametrize(
    ("url", "lacking", "message"),
    [
        ("s3://b/1.png", "s3fs", r"s3://b/1.png: s3:// needs the package s3fs. Run: pip install s3fs"),
        ("gs://b/1.png", "gcsfs", "pip install gcsfs"),
        ("https://h/1.png", "aiohttp", "pip install aiohttp"),
        ("memory://1.png", "fsspec", "pip install fsspec"),
        ("zip://1.png::az://b/1.zip", "adlfs", "pip install adlfs"),
        ("github://o:r@h/1.png", "", "not read by github://. Known protocols: abfs"),
        ("zip://1.png::file:///etc/passwd", "", "not read by file://"),
    ],
)
def test_a_url_that_cannot_be_read_here_says_what_to_install(url, lacking, message, comics, tmp_path, monkeypatch):
    own = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == lacking else own(name))
    with pytest.raises(ConfigError, match=message) as refused:
        readers.load(listed(comics, tmp_path, url))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("new", [f"https://me:{SECRET}@host/x", f"s3://comics?sig={SECRET}"])
def test_credentials_have_no_place_in_settings(comics, tmp_path, new):
    config = listed(comics, tmp_path, "E:\\{book}\\{page}.png", remap=(f"E:\\={new}",))
    with pytest.raises(ConfigError, match="credentials are the environment's") as refused:
        readers.load(config)
    assert SECRET not in str(refused.value)


def test_a_prefix_can_be_mapped_to_a_bucket(comics, memory, tmp_path):
    config = listed(comics, tmp_path, "E:\\comics\\{book}\\{page}.png", remap=("E:\\comics=memory://",))
    assert readers.load(config).pages["image_path"].iloc[1] == "memory://a/1.png"


# --- a server


class Serving(BaseHTTPRequestHandler):
    """Files below `root`; /flaky fails twice, /busy always, /slow never ends."""

    root: Path
    asked: dict[str, int]

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        kind, _, name = self.path.lstrip("/").partition("?")[0].partition("/")
        self.asked[kind] = self.asked.get(kind, 0) + 1
        path = self.root / name
        if kind == "busy" or (kind == "flaky" and self.asked[kind] < 3):
            self.send_error(503)
        elif kind == "secret" or not path.is_file():
            self.send_error(403 if kind == "secret" else 404)
        else:
            data = path.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data) + (kind == "slow")))
            self.send_header("ETag", f'"{len(data)}"')
            self.end_headers()
            if body:
                self.wfile.write(data)
                self.wfile.flush()
            if kind == "slow":
                self.server.stopping.wait(5)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server(comics):
    pytest.importorskip("aiohttp")
    made = ThreadingHTTPServer(("127.0.0.1", 0), Serving)
    made.stopping = threading.Event()
    Serving.root, Serving.asked = comics / "images", {}
    thread = threading.Thread(target=made.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"127.0.0.1:{made.server_port}"
    made.stopping.set()
    made.shutdown()
    made.server_close()
    thread.join(5)


def test_a_server_is_tried_again_given_up_on_and_never_waited_for(server, comics, monkeypatch):
    expected = (comics / "images" / "a" / "0.png").read_bytes()
    assert remote.read(f"http://{server}/flaky/a/0.png") == expected
    assert remote.stamp(f"http://{server}/files/a/0.png")[0] == len(expected)
    with pytest.raises(FileNotFoundError):
        remote.read(f"http://{server}/files/a/9.png")
    with pytest.raises(OSError, match="503"):
        remote.read(f"http://{server}/busy/a/0.png")
    Serving.asked.clear()
    with pytest.raises(OSError, match="403"):
        remote.read(f"http://{server}/secret/a/0.png")
    assert Serving.asked["secret"] <= 2  # HEAD and GET: no second attempt
    monkeypatch.setattr(remote, "SECONDS", 0.3)
    monkeypatch.setattr(remote, "WAITS", ())
    with pytest.raises(OSError, match=r"slow/a/0.png: .*Timeout"):
        remote.read(f"http://{server}/slow/a/0.png")
    monkeypatch.setattr(remote, "MAX_BYTES", 100)
    with pytest.raises(OSError, match="more than the 100 bytes"):
        remote.read(f"http://{server}/files/a/0.png")


def test_no_secret_of_a_url_is_ever_shown(server, comics, tmp_path, capsys):
    form = f"http://me:{SECRET}@{server}/files/{{book}}/{{page}}0.png?signature={SECRET}"
    config = listed(comics, tmp_path, form, max_without_image=1.0)
    table = readers.load(config)
    report = load_or_build(table, config, progress=False).report
    assert report.problems == {"image:missing": 12}
    assert data_command(["check", *flags(config), "--json"]) == 0
    assert data_command(["check", *flags(config)]) == 0
    shown = capsys.readouterr()
    everything = [shown.out, shown.err, json.dumps(table.report.to_dict()), report.sentence()]
    everything += [p.read_text(encoding="utf-8") for p in (tmp_path / "cache").rglob("*.json")]
    with pytest.raises(images.ImageProblem) as problem:
        images.open_page(table.pages["image_path"].iloc[0])
    everything.append(str(problem.value))
    assert any(f"http://***@{server}/files/a/00.png?***" in text for text in everything)
    assert not [text for text in everything if SECRET in text]
    with pytest.raises(OSError, match="403") as refused:
        remote.read(f"http://me:{SECRET}@{server}/secret/a/0.png?signature={SECRET}")
    assert SECRET not in str(refused.value)


def test_images_in_a_repository_of_the_hub_are_read(comics, tmp_path, monkeypatch):
    with hub_server.in_use(monkeypatch) as hub:
        images = comics / "images"
        hub.files["me/comics"] = {p.relative_to(images).as_posix(): p.read_bytes() for p in images.rglob("*.png")}
        del hub.files["me/comics"]["b/1.png"]
        config = listed(comics, tmp_path, "hf://me/comics/{book}/{page}.png", max_without_image=1.0)
        table = readers.load(config)
        found = load_or_build(table, config, progress=False)
        assert (found.report.computed_images, table.report.counts["image:missing"]) == (22, 1)
        files = listed(comics, tmp_path, f"{images}/{{book}}/{{page}}.png")
        local = load_or_build(readers.load(files), files, progress=False)
        rows = np.array([0, 1, 22, 23])
        np.testing.assert_array_equal(found.gather(rows)[0], local.gather(rows)[0])
        with pytest.raises(FileNotFoundError, match=r"^hf://me/nowhere/a\.png is not there$"):
            remote.read("hf://me/nowhere/a.png")
        hub.token = "another"
        with pytest.raises(OSError, match=r"^hf://me/comics/a/0\.png: [^\n]*401[^\n]*$"):
            remote.read("hf://me/comics/a/0.png")


def flags(config: Config) -> list[str]:
    names = ("manifest", "panels", "cache_dir", "allow_remote_images", "max_without_image")
    return [part for name in names for part in (f"--{name}", typed(getattr(config, name)))]
