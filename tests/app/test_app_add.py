"""Comics come in: uploads that do harm, what is offered, and an import as a child process that anybody finds again."""

from __future__ import annotations

import io
import itertools
import random
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import app_images
import app_support
import pytest
from import_world import BUILDERS, cbz, png, write
from PIL import Image
from streamlit.testing.v1 import AppTest

from app.charts import data as charts
from app.parts import add_choice
from app.parts.add_train import estimate
from app.store import children, imports, loaders, uploads
from app.store.imports import Choice
from stage3.config import Config
from stage3.data import __main__ as data_command
from stage3.data import page_check
from stage3.errors import ConfigError, DataError
from stage3.runs import RunFolder

UI = Path(__file__).parents[2] / "app" / "ui.py"


def archive(members: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return made.getvalue()


def below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# --- uploads


def test_uploads_get_names_of_our_own_and_stay_in_their_folder(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "files"
    evil = ["../../up.png", "/etc/passwd.png", "C:\\windows\\x.png", "a\nb<script>.png", f"{'n' * 300}.png", "con.png"]
    files = [(name, png((20 + k, 30))) for k, name in enumerate(evil)]
    assert uploads.keep([*files, ("..\\..\\Bad.CBZ", archive({"1.png": png()}))], folder, "mine") == []
    kept = below(folder)
    assert {"mine/up.png", "mine/passwd.png", "mine/x.png", "mine/a_b_script_.png", "mine/con_.png", "Bad.cbz"} <= kept
    assert len(kept) == 7
    assert below(tmp_path) == {f"in/files/{name}" for name in kept}


def test_the_same_name_twice_is_two_files_and_the_same_file_twice_is_one(tmp_path: Path) -> None:
    red, blue = png(color=(255, 0, 0)), png(color=(0, 0, 255))
    again = [("other.png", red), ("o" * 80, red), ("o" * 81, red)]  # a long name is cut
    refused = uploads.keep([("p.png", red), ("P.PNG", blue), *again], tmp_path, "mine")
    assert refused == [f"{name}: the same file as p.png" for name in ("other.png", "o" * 80, "o" * 79 + "…")]
    assert below(tmp_path) == {"mine/p.png", "mine/P (2).png"}
    assert (tmp_path / "mine/P (2).png").read_bytes() == blue


def bomb() -> bytes:
    """An archive that says it holds 5 GB."""
    data = bytearray(archive({f"{k}.png": b"x" for k in range(2)}))
    for at in range(len(data) - 4):
        if data[at : at + 4] == b"PK\x01\x02":
            data[at + 24 : at + 28] = (2_600_000_000).to_bytes(4, "little")
    return bytes(data)


def huge() -> bytes:
    made = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(made, "PNG")
    return made.getvalue()


UNUSABLE: dict[str, tuple[Callable[[], bytes], str]] = {  # functions, since some take a second to make
    "virus.exe.png": (lambda: b"MZ" + random.Random(0).randbytes(100), "neither a CBZ or ZIP archive nor an image"),
    "page.png": (lambda: b"<html>404</html>", "neither a CBZ or ZIP archive nor an image"),
    "cut.png": (lambda: png()[:20], "cut.png"),
    "junk.cbz": (lambda: random.Random(0).randbytes(5000), "neither"),
    "book.cbz": (lambda: b"Rar!\x1a\x07\x00" + bytes(100), "CBR"),
    "broken.cbz": (lambda: archive({"a.png": png()})[:-30], "not a ZIP archive that can be read"),
    "bomb.cbz": (bomb, "4.8 GB unpacked, more than 4 GB"),
    "huge.png": (huge, "900 megapixels"),
    "large.cbz": (lambda: bytes(uploads.MAX_FILE + 1), "over 20 MB"),
    "nothing.png": (bytes, "neither"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_cannot_be_used_is_named_with_the_reason_and_the_others_are_kept(name: str, tmp_path: Path) -> None:
    make, why = UNUSABLE[name]
    data = make()
    (refused,) = uploads.keep([("good.png", png()), (name, data)], tmp_path / "files", "mine")
    assert refused.startswith(f"{name}: ")
    assert why in refused
    assert str(tmp_path) not in refused
    assert below(tmp_path / "files") == {"mine/good.png"}
    with pytest.raises(DataError, match="Nothing of this can be imported"):
        uploads.keep([(name, data)], tmp_path / "alone", "mine")


def test_too_much_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    part = bytes(uploads.MAX_FILE)  # 100 MB of junk five times over
    with pytest.raises(DataError, match=r"21 files of 420 MB are more than .* files, 400 MB"):
        uploads.keep([(f"{k}.cbz", part) for k in range(21)], tmp_path, "mine")
    with pytest.raises(DataError, match="1,001 files"):
        uploads.keep([("x.png", b"")] * 1001, tmp_path, "mine")
    assert below(tmp_path) == set()


# --- what is offered


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STAGE3_COMICS", raising=False)
    return tmp_path


def test_only_folders_below_the_roots_are_offered_and_links_are_passed_by(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert imports.offered() == []
    write(here / "comics" / "A" / "1.png", png())
    write(here / "comics" / "A" / "deep" / "2.png", png())
    cbz(here / "comics" / "b.cbz", {"1.png": png()})
    write(here / "comics" / ".hidden" / "1.png", png())
    write(here / "secret" / "1.png", png())
    (here / "comics" / "link").symlink_to(here / "secret")
    (here / "comics" / "link.cbz").symlink_to(here / "comics" / "b.cbz")
    assert imports.offered() == ["comics", "comics/b.cbz", "comics/A", "comics/A/deep"]
    assert imports.place("comics/A/deep") == here / "comics" / "A" / "deep"
    for name in ("comics/../secret", "comics/link", "secret", "/etc", "", "comics/.hidden", "comics/A/../../secret"):
        with pytest.raises(DataError, match="is not among the folders with comics"):
            imports.place(name)
    monkeypatch.setenv("STAGE3_COMICS", str(here / "secret"))
    assert "secret" in imports.offered()
    monkeypatch.setattr(imports, "MOST_OFFERED", 1)
    assert imports.offered() == ["comics"]


@pytest.mark.parametrize("name", ["", "..", "a/b", "x" * 61, "a b", ".hidden"])
def test_a_name_that_is_no_plain_word_is_refused(name: str, here: Path) -> None:
    with pytest.raises(ConfigError, match="cannot name a data set"):
        imports.create(name, "x")
    with pytest.raises(DataError, match="no import is called"):
        imports.load(name)


def test_a_taken_name_is_refused_and_a_free_one_is_found(here: Path) -> None:
    write(here / "data" / "mine" / "dataset.yaml", "name: mine")
    with pytest.raises(ConfigError, match="'mine' is taken"):
        imports.create("mine", "x")
    assert imports.free_name("mine") == "mine-2"
    assert imports.free_name("漫画 <b>") == "b"
    assert imports.free_name("漫画") == "comics"
    made = imports.create("one", "comics/A")
    assert (imports.load("one"), imports.imports()) == (made, [made])
    kept = imports.create("kept", "comics/B")
    write(here / "data" / "kept" / "dataset.yaml", "name: kept")
    for each in (made, kept):
        imports.discard(each)
    assert imports.imports() == [kept], "what made a data set stays"
    made = imports.create("one", "comics/A")
    with pytest.raises(DataError, match="no import is called 'two' here"):
        imports.load("two")


def test_how_an_import_ended_is_told_by_its_record_its_result_and_its_last_words(here: Path, monkeypatch) -> None:
    monkeypatch.setattr(children, "is_alive", lambda record: False)
    task = imports.create("one", "comics/A").task("all")
    assert task.state() == imports.State("none")
    write(task.folder / "job.json", {"pid": 5})
    log = task.folder / "console.log"
    log.write_text("first\nsecond\nthird\n", encoding="utf-8")
    assert task.state() == imports.State("failed", message="first\nsecond\nthird")
    log.write_text("first\nerror: no comics\nhere", encoding="utf-8")
    assert task.state() == imports.State("failed", message="no comics\nhere")
    assert not task.cancelled
    task.cancel()
    assert task.cancelled
    assert task.state() == imports.State("stopped", message="here")
    write(task.folder / "result.json", {"import": {"notes": ["a", 1, "b"]}, "check": {}})
    assert list(imports.lines(task.result(), "notes")) == ["a", "b"]
    assert task.state().word == "stopped"
    log.write_text("done", encoding="utf-8")
    assert task.state() == imports.State("finished")


def test_what_the_command_prints_is_its_result_and_what_it_complains_of_its_last_words(here: Path, monkeypatch) -> None:
    def spawn(module: str, arguments: list[str], *, log, out, **more: object) -> object:
        asked.append((module, arguments))
        out.write(b'{"import": {"pages": 6}, "check": {}}')
        log.write(b"a warning")
        return None

    asked: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(children, "spawn", spawn)
    monkeypatch.setattr(children, "remembered", lambda child, most: {"pid": 5})
    monkeypatch.setattr(children, "is_alive", lambda record: False)
    made = imports.create("one", "comics/A", Path("A"))
    imports.start(made)
    task = made.task("all")
    assert asked == [("stage3.data", ["import", "A", "--out", "data/one", "--json"])]
    assert task.result()["import"] == {"pages": 6}
    assert task.state().word == "finished"
    assert children.tail(task.folder / "console.log") == "a warning"


# --- how it is asked for


@pytest.mark.parametrize(("boxes", "texts"), list(itertools.product(("files", "find", "page"), ("files", "none"))))
def test_each_choice_is_what_the_command_does(boxes: str, texts: str, tmp_path: Path) -> None:
    source = BUILDERS["coco"](tmp_path / "in")
    arguments = Choice(boxes, texts, direction="right").arguments()
    command = ["import", str(source), "--out", str(tmp_path / "out"), "--cache_dir", str(tmp_path / "c"), *arguments]
    assert data_command.main(command) == 0
    report = imports.read_json(tmp_path / "out" / "import_report.json")
    assert set(report["panels_from"]) <= {"files": {"source"}, "find": {"found", "whole"}, "page": {"none"}}[boxes]
    panels = imports.read_json(tmp_path / "out" / "panels" / "Book A" / "page2.json")
    assert panels["right_to_left"] is True
    assert bool(panels["full_page_text"]) is (texts == "files")


def test_reading_texts_is_offered_only_where_the_package_can(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"stage3.data.ocr", "rapidocr", "onnxruntime"}
    monkeypatch.setattr(imports.importlib.util, "find_spec", lambda name: name if name in there else None)
    assert imports.reads_text()
    assert Choice("find", "read").arguments() == ["--format", "comic", "--text", "ocr"]
    there.discard("rapidocr")
    assert not imports.reads_text()


def test_the_estimate_grows_with_the_work_and_is_not_made_up() -> None:
    small, large = (estimate(Config(epochs=10), panels, panels // 5) for panels in (100, 100_000))
    assert "about 15 s" in small
    assert "min" in large
    assert "unknown" in estimate(Config(vision_backbone="siglip"), 100, 20)


# --- child processes


def wait(task: imports.Task, seconds: float = 400.0) -> imports.State:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        state = task.state()
        if not state.is_live:
            return state
        time.sleep(0.1)
    raise AssertionError(f"{task.folder} is {task.state()} after {seconds} s")


def comics(folder: Path, books: int = 2, pages: int = 3) -> Path:
    """Archives with drawn pages."""
    drawn = app_support.write_comics(folder / "drawn", books, pages)
    images = sorted((drawn / "pages").glob("*.png"))
    for b in range(books):
        members = {f"{k}.png": path.read_bytes() for k, path in enumerate(images[b * pages : (b + 1) * pages])}
        cbz(folder / "comics" / f"Book {b}.cbz", members)
    return folder / "comics"


@pytest.mark.slow
@pytest.mark.usefixtures("new_interpreters")
def test_an_import_is_looked_at_made_and_found_again_from_disk_alone(here: Path) -> None:
    made = imports.create("mine", "comics", comics(here))
    made = imports.look(made, Choice("page", "none"))
    assert wait(made.task("look")).word == "finished"
    result = made.task("look").result()
    assert result["import"]["pages"] == 6
    assert not (here / "data" / "mine").exists(), "a look writes no data set"
    imports.start(made)
    started = dict(children.STARTED)
    children.STARTED.clear()  # as after a restart of the server
    assert imports.load("mine").task("all").state().is_live
    with pytest.raises(ConfigError, match="mine is being imported"):
        imports.start(made)
    children.STARTED.update(started)
    assert wait(made.task("all")).word == "finished"
    assert made.task("all").result()["check"]["pages_kept"] == 6
    assert (here / "data" / "mine" / "dataset.yaml").is_file()
    assert imports.load("mine").choice == Choice("page", "none")
    imports.discard(made)
    assert made.folder.exists(), "what made a data set stays"


@pytest.mark.slow
def test_a_canceled_import_keeps_what_is_done_and_goes_on(here: Path) -> None:
    source = here / "comics" / "long.cbz"
    cbz(source, {f"{k:03d}.png": png((300, 400 + k)) for k in range(200)})
    made = imports.create("long", "long.cbz", source)
    imports.start(made)
    task = made.task("all")
    end = time.monotonic() + 300
    while task.state().done < 5 and time.monotonic() < end:
        time.sleep(0.05)
    task.cancel()
    state = wait(task)
    assert state.word == "stopped"
    assert "the same command goes on" in state.message
    done = len((here / "data" / "long" / "import_pages.jsonl").read_text().splitlines())
    assert 5 <= done < 200
    imports.start(made)
    assert wait(task).word == "finished"
    assert task.result()["import"]["kept"] >= done
    assert task.result()["import"]["pages"] == 200


@pytest.mark.slow
def test_files_of_another_kind_end_in_the_commands_own_words(here: Path) -> None:
    write(here / "comics" / "odd" / "notes.json", {"hello": 1})
    made = imports.look(imports.create("odd", "comics/odd", here / "comics" / "odd"), Choice())
    state = wait(made.task("look"))
    assert state.word == "failed"
    assert "notes.json: JSON with hello: no known format" in state.message
    imports.discard(made)
    assert not made.folder.exists()


# --- the view


def opened(**params: str) -> AppTest:
    app = AppTest.from_file(str(UI), default_timeout=180)
    for name, value in {"view": "add", **params}.items():
        app.query_params[name] = value
    return app.run()


def said(app: AppTest) -> str:
    return "\n".join(str(e.value) for kind in (app.text, app.code, app.subheader) for e in kind)


@pytest.mark.slow
def test_from_a_folder_over_a_look_and_a_report_to_a_run(here: Path) -> None:
    comics(here, books=3, pages=4)
    app = opened()
    app.segmented_control(key="add-from").set_value("Folder").run()
    app.selectbox(key="add-folder").set_value("comics").run()
    app.text_input(key="add-name-comics").set_value("mine").run()
    app.button(key="add-continue").click().run()
    assert not app.exception
    assert wait(imports.load("mine").task("look")).word == "finished"
    app = opened(**{"import": "mine"})
    assert "As it would be imported" in said(app)
    assert app.radio(key="add-mine-boxes").options == ["Find panels", "Whole page as one panel"]
    reading = ["Read from the images"] if imports.reads_text() else []
    assert app.radio(key="add-mine-texts").options == [*reading, "None"]
    app.radio(key="add-mine-texts").set_value("none").run()
    app.radio(key="add-mine-boxes").set_value("page").run()
    assert wait(imports.load("mine").task("look")).word == "finished"
    app = opened(**{"import": "mine"})
    assert "Book 1/1  ·  1 panel" in said(app)
    folder = imports.load("mine").task("look").folder  # below each page stands whose it is
    config = Config(data=str(folder / "data"), cache_dir=str(folder / "cache"), max_panels=64)
    written = page_check.listed_pages(config).set_index("page_id")["image"]
    named = [t.value.removesuffix("  ·  1 panel") for t in app.text if t.value.endswith("  ·  1 panel")]
    checked = [page_check.check_page(config, page_id, written[page_id]) for page_id in named]
    assert len(set(named)) == len(named) > 1
    name = "A page with 1 panel framed and numbered"
    assert app_images.shown(app) == [(name, charts.overlay(check, add_choice.SIDE)) for check in checked]
    app.button(key="add-import").click().run()
    assert wait(imports.load("mine").task("all")).word == "finished"
    app = opened(**{"import": "mine"})
    assert {m.label: m.value for m in app.metric}["Panels"] == "12"
    assert "Data report" in [s.value for s in app.subheader]
    assert "Nothing can be learned" in said(app)
    assert app.button(key="add-train").disabled
    app.button(key="add-embed").click().run()
    assert not app.exception
    run = RunFolder.load(here / "runs" / "mine-1")
    assert (run.config.epochs, run.config.data) == (0, "data/mine")
    end = time.monotonic() + 400
    while run.status.state != "finished" and time.monotonic() < end:
        time.sleep(0.2)
    assert run.status.state == "finished", run.status.message
    assert len(loaders.panel_frame(run)) == 12


@pytest.mark.slow
def test_annotations_are_recognized_and_boxes_that_do_not_fit_are_pointed_out(here: Path) -> None:
    source = BUILDERS["coco"](here / "comics")
    for page in (source / "Book A").iterdir():  # other images under the same names
        page.write_bytes(png((600, 90)))
    made = imports.look(imports.create("odd", "comics", source), Choice())
    assert wait(made.task("look")).word == "finished"
    app = opened(**{"import": "odd"})
    assert not app.exception
    assert app.radio(key="add-odd-boxes").options == ["My files", "Find panels", "Whole page as one panel"]
    assert "COCO JSON, 1 annotation file, 2 images" in said(app)
    assert "boxes do not fit the image" in said(app)


def test_an_unknown_import_is_said_and_there_is_a_way_to_begin(here: Path) -> None:
    app = opened(**{"import": "../../etc"})
    assert not app.exception
    assert "no import is called '../../etc' here" in said(app)
    app.file_uploader[0].set_value([("my book.cbz", b"not looked at yet", "application/zip")]).run()
    assert [t.value for t in app.text_input if t.label == "Name of the data set"] == [imports.free_name("my book")]
    app.segmented_control(key="add-from").set_value("Folder").run()
    assert "No folder with comics" in said(app)
    assert str(here / "comics") in said(app)


def test_without_a_run_the_first_screen_offers_to_add_comics(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaders, "SAMPLES", Path("none"))
    app = AppTest.from_file(str(UI), default_timeout=180).run()
    assert app.button(key="empty-add").label == "Add comics"
