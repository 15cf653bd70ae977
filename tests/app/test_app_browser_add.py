"""Two journeys in a real browser: comics are uploaded, imported and trained on; a box is corrected."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path

import app_support
import pytest

from stage3.batches.dataset import Dataset
from stage3.runs import RunFolder, list_runs
from tools import screenshots
from tools.screenshots import settled

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
if screenshots.browser_path() is None:
    pytest.skip(f"no browser: looked for {', '.join(screenshots.BROWSERS)}", allow_module_level=True)
pytestmark = [pytest.mark.browser, pytest.mark.slow]
PATIENCE = 90_000  # ms; a busy machine draws slowly


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = app_support.workspace(tmp_path_factory.mktemp("browser-add"))
    yield folder
    for run in list_runs([folder / "runs"]):  # whatever a failed journey left training
        run.request_stop()


@pytest.fixture(scope="module")
def opened(workspace):
    """The explorer's address, and a browser."""
    with screenshots.server(workspace) as address, screenshots.browser() as started:
        yield address, started


@pytest.fixture
def tab(opened):
    problems = []
    address, browser = opened
    with screenshots.page(browser, address, 1440, 900) as page:
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: problems.append(str(e)))
        yield page
    assert not problems


def book(workspace: Path, number: int) -> dict[str, object]:
    """A CBZ of one drawn book, as a browser sends it."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for path in sorted((workspace / "data" / "samples" / "pages").glob(f"b{number:03d}*.png")):
            archive.write(path, path.name)
    return {"name": f"Book {number}.cbz", "mimeType": "application/zip", "buffer": made.getvalue()}


def test_comics_are_uploaded_imported_and_trained_on(tab, workspace: Path) -> None:
    tab.goto("/data?run=samples/first")
    settled(tab)
    tab.locator(".st-key-data_add button").click()
    upload = tab.locator('input[type="file"]')
    upload.wait_for(state="attached")
    evil = {"name": "../../evil.png", "mimeType": "image/png", "buffer": b"MZ not an image"}
    upload.set_input_files([*(book(workspace, n) for n in range(3)), evil])
    name = tab.get_by_label("Name of the data set")
    name.fill("mine")
    name.press("Enter")
    settled(tab)
    tab.get_by_role("button", name="Continue").click()
    tab.get_by_text("As it would be imported").wait_for()
    settled(tab)
    assert "import=mine" in tab.url
    assert tab.get_by_text("evil.png: neither a CBZ or ZIP archive nor an image").is_visible()
    assert tab.locator('[class*="st-key-tile-add-"] img').count() == 6
    tab.get_by_role("button", name="Import all pages").click()
    again = tab.get_by_role("button", name="Import again")  # a short import may end before a busy browser shows it
    tab.locator(".st-key-add-cancel").or_(again).first.wait_for()  # the click has arrived
    tab.reload()  # nothing is lost: the import goes on
    tab.get_by_text("What can be learned").wait_for()
    settled(tab)
    assert tab.get_by_text("retrieval is not measured").is_visible()
    tab.locator(".st-key-add-train button").click()
    tab.locator(".st-key-card-job").get_by_text(re.compile("finished")).first.wait_for()
    settled(tab)
    assert "run=runs%2Fmine-1" in tab.url
    run = RunFolder.load(workspace / "runs" / "mine-1")
    assert run.config.data == "data/mine"
    assert not (workspace / "evil.png").exists()
    assert not (workspace.parent / "evil.png").exists()


def test_a_box_is_corrected_by_hand_for_whoever_trains_next(tab, workspace: Path) -> None:
    tab.goto("/page?run=samples/first&page=2")
    settled(tab)
    tab.get_by_role("button", name="Correct boxes").click()
    boxes = tab.locator(".s3b-box")
    boxes.nth(3).wait_for()
    tab.wait_for_timeout(1000)
    boxes.nth(0).focus()
    for key in ("ArrowRight", "ArrowRight", "Alt+ArrowLeft", "]"):  # moved, narrower, read second
        tab.keyboard.press(key)
    assert "page=2" in tab.url, "arrows on a box turn no page"
    boxes.nth(3).focus()
    tab.keyboard.press("Delete")
    assert boxes.count() == 3
    stage = tab.locator(".s3b-stage").bounding_box()
    x, y = stage["x"] + 0.2 * stage["width"], stage["y"] + 0.80 * stage["height"]
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x + 0.5 * stage["width"], y + 0.15 * stage["height"], steps=6)
    tab.mouse.up()
    assert boxes.count() == 4
    field = tab.get_by_label("Panel 4, width in percent of the page")
    field.fill("40")
    field.press("Tab")
    tab.get_by_role("button", name="Save these panels").click()
    tab.get_by_text("Saved: 4 panels").wait_for()
    settled(tab)
    path = workspace / "data" / "samples" / "panels.corrections.json"
    (page,) = json.loads(path.read_text(encoding="utf-8"))["pages"].values()
    first, second, third, fourth = page["panels"]
    assert [p.get("of") for p in page["panels"]] == [2, 3, 1, None]  # a file lists its panels backwards
    assert "box" not in first
    assert "box" not in third
    assert second["box"] == pytest.approx([0.03, 0.01, 0.955, 0.23], abs=0.003)
    assert fourth["box"] == pytest.approx([0.2, 0.8, 0.4, 0.15], abs=0.02)
    first = RunFolder.load(workspace / "data/samples/runs/first")  # what a retraining would train on now
    now = Dataset.load(first.config, progress=False)
    assert now.table.report.to_dict()["counts"]["page_corrected"] == 1
    assert now.table.fingerprint() != first.read_json("data")["table"]
