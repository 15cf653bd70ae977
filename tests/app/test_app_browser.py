"""Journeys through the explorer in a real browser, with no error in its console."""

from __future__ import annotations

import io
import re
import time
from contextlib import suppress

import app_support
import pytest
from PIL import Image

from stage3.runs import list_runs
from tools import screenshots
from tools.screenshots import settled

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
if screenshots.browser_path() is None:
    pytest.skip(f"no browser: looked for {', '.join(screenshots.BROWSERS)}", allow_module_level=True)
pytestmark = [pytest.mark.browser, pytest.mark.slow]
PATIENCE = 60_000  # ms; a busy machine draws slowly


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = app_support.workspace(tmp_path_factory.mktemp("browser"))
    yield folder
    for run in list_runs([folder / "runs"]):  # whatever a failed journey left training
        run.request_stop()


@pytest.fixture(scope="module")
def address(workspace):
    with screenshots.server(workspace) as found:
        yield found


@pytest.fixture(scope="module")
def browser():
    with screenshots.browser() as started:
        yield started


@pytest.fixture
def tab(browser, address):
    problems = []
    with screenshots.page(browser, address, 1440, 1000) as page:
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: problems.append(str(e)))
        page.on("response", lambda r: problems.append(f"{r.status} {r.url}") if r.status >= 400 else None)
        outside = []
        page.on("request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else outside.append(r.url))
        yield page
    assert not problems, "\n".join(problems)
    assert not [url for url in outside if not url.startswith(address.replace("http", "ws"))], "no other host is asked"


def open_view(tab, path):
    tab.goto(path)
    settled(tab)


def computed(tab):
    """Wait until UMAP has taken the place of the principal components, which it does whatever the mouse is at."""
    busy = tab.locator("[data-testid=stProgress]").first
    busy.wait_for(state="hidden", timeout=5 * PATIENCE)  # it compiles, at the lowest priority of all that runs
    settled(tab)


def in_view(locator, height):
    """Whether the top of an element lies on the screen, and its button whole."""
    box = locator.bounding_box()
    return box is not None and box["y"] >= 0 and box["y"] + min(box["height"], 60) <= height


def test_open_then_lasso_then_gallery_then_page(tab):
    open_view(tab, "/")
    computed(tab)
    tab.get_by_text("Lasso", exact=True).first.click()
    settled(tab)
    plot = tab.locator(".st-key-map-plot .nsewdrag").first
    plot.wait_for()
    tab.wait_for_timeout(1000)
    box = plot.bounding_box()
    left, top, right, bottom = box["x"] + 6, box["y"] + 6, box["x"] + box["width"] - 6, box["y"] + box["height"] - 6
    tab.mouse.move(left, top)
    tab.mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom), (left, top + 8)):
        tab.mouse.move(x, y, steps=8)
    tab.mouse.up()
    cards = tab.locator(".st-key-map-selection-cards .s3r-card")
    cards.nth(11).wait_for()
    settled(tab)
    tab.wait_for_function("document.querySelector('.st-key-map-selection-cards img').naturalWidth > 20")
    for part in (cards.nth(11), tab.get_by_text("122 panels selected"), tab.get_by_text("All panels are selected")):
        place = part.bounding_box()
        assert place["y"] + place["height"] <= 1000, "what the lasso did is seen without scrolling"
    cards.first.locator("button").click()
    tab.get_by_role("button", name="Open page").click()
    tab.get_by_role("heading", name="Page", exact=True).wait_for()
    settled(tab)
    assert re.search(r"/page\?.*panel=\d+", tab.url)
    assert tab.get_by_text("book00").first.is_visible()


def shown_part(tab):
    return tab.evaluate(
        "(() => { const a = document.querySelector('.st-key-map-plot .js-plotly-plot')._fullLayout;"
        " return [...a.xaxis.range, ...a.yaxis.range]; })()"
    )


def shows(tab, zoomed: list[float]) -> None:
    """Wait until the zoomed part is shown, all of it and nothing beside it."""
    until, shown = time.monotonic() + 20, []
    while time.monotonic() < until:
        settled(tab)
        shown = shown_part(tab)
        slack = 0.01 * (zoomed[1] - zoomed[0])
        inside = all(shown[i] <= zoomed[i] + slack and zoomed[i + 1] <= shown[i + 1] + slack for i in (0, 2))
        if inside and all(shown[i + 1] - shown[i] < 1.03 * (zoomed[i + 1] - zoomed[i]) for i in (0, 2)):
            return
        tab.wait_for_timeout(250)
    raise AssertionError(f"{shown} is shown instead of {zoomed}")


def test_zoom_is_kept_through_color_click_reload_and_a_fresh_browser(tab, address):
    open_view(tab, "/map?run=samples/first")
    entries = tab.evaluate("history.length")
    plot = tab.locator(".st-key-map-plot .nsewdrag").first
    plot.wait_for()
    tab.wait_for_timeout(1000)
    box = plot.bounding_box()
    whole = shown_part(tab)
    tab.mouse.move(box["x"] + box["width"] / 3, box["y"] + box["height"] / 3)
    for _ in range(3):
        tab.mouse.wheel(0, -400)
    tab.wait_for_function("location.href.includes('zoom=')")
    settled(tab)
    zoomed = shown_part(tab)
    assert zoomed[1] - zoomed[0] < 0.8 * (whole[1] - whole[0])

    def kept():
        shows(tab, zoomed)

    tab.get_by_text("Box", exact=True).first.click()
    tab.wait_for_function("location.href.includes('tool=select')")
    kept()
    tab.locator(".st-key-map_color input").first.click()
    tab.get_by_role("option", name="Color: Book").click()
    tab.wait_for_function("location.href.includes('color=book')")
    kept()
    assert tab.evaluate("history.length") == entries
    shown = tab.url
    tab.reload()
    kept()
    fresh = tab.context.browser.new_context(viewport=tab.viewport_size).new_page()  # another browser, without cookies
    fresh.set_default_timeout(PATIENCE)
    fresh.goto(shown)
    shows(fresh, zoomed)
    fresh.context.close()


def test_words_then_a_result_as_the_query_then_an_uploaded_image_and_a_damaged_one(tab):
    open_view(tab, "/search?run=samples/first")
    tab.get_by_text("Words", exact=True).first.click()
    field = tab.get_by_label("Words", exact=True).last
    field.wait_for()
    field.fill("a red circle before green")
    field.press("Enter")
    cards = tab.locator(".s3r-card")
    tab.wait_for_function("document.querySelectorAll('.s3r-card .s3r-rank').length >= 5")
    settled(tab)
    first = cards.locator(".s3r-main").first
    where = first.get_attribute("aria-label").split(": ", 1)[1].split(". ")[0]
    first.click()
    tab.wait_for_function(
        "w => [...document.querySelectorAll('[data-testid=stText]')].some(t => t.textContent.includes(w))",
        arg=where.rsplit(" · ", 1)[0],
    )
    settled(tab)
    assert "panel=" in tab.url
    assert cards.count() >= 5
    tab.get_by_text("Image", exact=True).first.click()
    upload = tab.locator('input[type="file"]')
    upload.wait_for(state="attached")
    settled(tab)
    assert cards.count() == 0, "nothing is searched with yet"
    image = io.BytesIO()
    Image.new("RGB", (120, 90), (200, 60, 50)).save(image, "PNG")
    upload.set_input_files({"name": "own.png", "mimeType": "image/png", "buffer": image.getvalue()})
    tab.wait_for_function("document.querySelectorAll('.s3r-card .s3r-rank').length >= 5")
    settled(tab)
    upload = tab.locator('input[type="file"]')
    upload.set_input_files({"name": "<b>.png", "mimeType": "image/png", "buffer": image.getvalue()[:60]})
    tab.get_by_text("This image cannot be used").wait_for()
    settled(tab)
    assert tab.get_by_role("heading", name="Search", exact=True).is_visible()


def test_retrain_watch_cancel_retrain_compare(tab):
    open_view(tab, "/retrain?run=samples/first")
    epochs = tab.get_by_label("Epochs", exact=True)
    epochs.fill("3000")
    epochs.press("Enter")
    tab.get_by_text("epochs: 4 → 3000").wait_for()
    tab.set_viewport_size({"width": 1440, "height": 900})
    tab.get_by_text("Ablations", exact=True).click()
    settled(tab)
    train = tab.locator(".st-key-retrain-start button")
    assert in_view(train, 900)  # also with a form longer than the screen
    tab.mouse.move(200, 500)
    tab.mouse.wheel(0, 600)
    tab.wait_for_timeout(500)
    assert in_view(train, 900)
    train.click()
    tab.locator(".st-key-card-job").get_by_text(re.compile(r"step [\d,]+ of 9,000")).wait_for()
    tab.wait_for_timeout(1500)
    assert in_view(tab.locator(".st-key-card-job"), 900)
    strip = tab.locator(".st-key-jobs-strip")
    strip.get_by_text(re.compile(r"step [\d,]+ of 9,000")).wait_for()
    tab.get_by_role("heading", name="Training loss").wait_for()
    job = re.search(r"job=([^&]+)", tab.url).group(1)
    tab.reload()  # nothing is lost: the run goes on and is found again
    cancel = tab.locator(".st-key-job-cancel button")
    cancel.wait_for()
    assert job in tab.url
    cancel.click()
    tab.locator(".st-key-card-job").get_by_text(re.compile("stopped")).first.wait_for()
    epochs = tab.get_by_label("Epochs", exact=True)
    epochs.fill("3")
    epochs.press("Enter")
    tab.get_by_text("epochs: 4 → 3", exact=True).wait_for()
    tab.locator(".st-key-retrain-start button").click()
    tab.wait_for_function("job => !location.href.includes(job)", arg=job)
    tab.locator(".st-key-card-job").get_by_text(re.compile("finished")).first.wait_for()
    tab.get_by_role("heading", name="Before and now, at each run's best checkpoint").wait_for()
    settled(tab)
    tab.get_by_role("button", name="Side by side").click()
    tab.get_by_text("Neighbors in common").first.wait_for()
    tab.locator(".st-key-map-side-1 .js-plotly-plot").wait_for()
    tab.wait_for_function("location.href.includes('mode=two') && location.href.includes('with=samples%2Ffirst')")


def test_a_deep_link_restores_view_run_and_panel(tab):
    open_view(tab, "/page?run=samples/first&panel=9")
    assert tab.get_by_role("heading", name="Page", exact=True).is_visible()
    assert "panel=9" in tab.url
    before = tab.locator('[data-testid="stMain"]').inner_text()
    tab.reload()
    settled(tab)
    after = tab.locator('[data-testid="stMain"]').inner_text()
    assert before.split() == after.split()
    losses = tab.get_by_role("heading", name="Losses", exact=True)
    for _ in range(6):  # on a busy machine the page may not listen to keys yet
        tab.keyboard.press("g")
        tab.keyboard.press("l")
        with suppress(playwright.TimeoutError):
            losses.wait_for(timeout=5000)
            break
    losses.wait_for()
    settled(tab)
    tab.go_back()  # what a view writes into its own address is no entry of its own
    tab.get_by_role("heading", name="Page", exact=True).wait_for()
    assert "panel=9" in tab.url
    assert "run=samples%2Ffirst" in tab.url or "run=samples/first" in tab.url


def test_a_click_in_the_page_image_chooses_the_panel_and_tables_have_no_csv_download_of_their_own(tab):
    """Theirs would write texts from data as they are, formulas included; the export guards them."""
    open_view(tab, "/page?page=1")
    tab.get_by_label("Panel 3", exact=True).click()  # the frames lie in order of size
    tab.wait_for_function("location.href.includes('panel=6')")
    settled(tab)
    tab.get_by_role("heading", name="Panel 3", exact=True).wait_for()
    assert tab.locator(".s3p-focus").get_attribute("aria-label") == "Panel 3"
    tab.locator('[data-testid="stDataFrame"]').first.hover()
    toolbar = tab.locator('[data-testid="stElementToolbarButton"]')
    toolbar.filter(has=tab.locator('[aria-label^="Search"]')).first.wait_for()
    assert tab.locator('[aria-label^="Download as CSV"]').count() == 0, "not there at all, hidden or not"
