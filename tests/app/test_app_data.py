"""The Data view by content: counts, reasons down to the page, overlay, anomalies, splits, downloads; and page_check."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import app_images
import app_support
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from app.charts import data as charts
from app.parts import export
from app.store import loaders
from app.views import data as view
from stage3.config import SPLITS, Config
from stage3.data import page_check
from stage3.runs.data import load_data

pytestmark = pytest.mark.slow

UI = Path(__file__).parents[2] / "app" / "ui.py"
BAD = "book003/page002"


def spoil(data: Path) -> None:
    """Give a data set one of each: a left-out label, a broken file, a dropped and a clamped panel, a lost image."""
    labels = json.loads((data / "labels.json").read_text(encoding="utf-8"))
    labels["book001/page000"] = "cover"
    (data / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
    (data / "panels" / "book002" / "page001.json").write_text('{"panels": [', encoding="utf-8")
    page = json.loads((data / "panels" / f"{BAD}.json").read_text(encoding="utf-8"))
    page["panels"][0]["description"] = "kept and first"
    page["panels"][1] |= {"box_2d": [300, 20, 300, 980], "description": ""}
    page["panels"][2]["box_2d"] = [510, -40, 740, 980]
    page["panels"].append("no panel")
    (data / "panels" / f"{BAD}.json").write_text(json.dumps(page), encoding="utf-8")
    (data / "pages" / "b004p001.png").unlink()
    shutil.copy(data / "pages" / "b005p000.png", data / "pages" / "b005p001.png")


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data-view")
    data = app_support.write_comics(folder / "data" / "samples")
    spoil(data)
    app_support.make_run(data / "runs", "first", data, max_skip_fraction=0.5, epochs=1)
    return folder


@pytest.fixture
def here(spoiled, monkeypatch):
    monkeypatch.chdir(spoiled)
    return spoiled


@pytest.fixture
def config(here) -> Config:
    return loaders.config_here(loaders.entry("samples/first").run.config)


def opened(tab: str | None = None) -> AppTest:
    app = AppTest.from_file(str(UI), default_timeout=60)
    app.query_params["view"] = "data"
    if tab:
        app.session_state["data_tabs"] = tab
    app.run()
    assert not app.exception, app.exception[0].message
    return app


def words(app: AppTest) -> str:
    return "\n".join(str(e.value) for kind in (app.text, app.code, app.subheader, app.caption) for e in kind)


def table(app: AppTest, column: str) -> pd.DataFrame:
    return next(d.value for d in app.dataframe if column in d.value.columns)


def test_the_counts_are_those_of_the_report(here):
    app = opened()
    shown = {m.label: m.value for m in app.metric}
    report = loaders.open_dataset(loaders.entry("samples/first").run).table.report
    assert shown["Pages listed"] == "32"
    assert shown["Pages left out"] == "2"
    assert shown["Pages kept"] == str(report.pages_kept) == "30"
    assert shown["Panels"] == str(report.facts["panels"])
    assert shown["Equal images"] == str(report.facts["duplicate_images"]["pictures"]) != "0"
    reasons = table(app, "meaning").set_index("reason")["pages"].to_dict()
    assert reasons == {"label": 1, "json_syntax": 1}


def test_a_left_out_page_is_shown_with_its_reason_and_its_image(here):
    app = opened()
    pages = table(app, "page_id")
    assert dict(zip(pages["page_id"], pages["reason"], strict=True)) == {
        "book001/page000": "label",
        "book002/page001": "json_syntax",
    }
    assert dict(zip(pages["page_id"], pages["label"], strict=True))["book001/page000"] == "cover"
    assert "Left out under “label”: the page type is not among keep_labels." in words(app)
    entries = table(app, "outcome")
    assert entries["outcome"].tolist() == ["usable, page left out"] * 4  # what its file would have given
    config = loaders.config_here(loaders.entry("samples/first").run.config)
    check = page_check.check_page(config, "book001/page000", "pages/b001p000.png")
    name = "The page with 4 usable panels framed and 0 dropped ones crossed out"
    assert app_images.shown(app) == [(name, charts.overlay(check))]
    other = charts.overlay(page_check.check_page(config, "book002/page001", "pages/b002p001.png"))
    app.session_state["data_left_out_2"] = {"selection": {"rows": [1], "columns": [], "cells": []}}
    assert app_images.shown(app.run())[0][1] == other
    app.pills(key="data_reason").set_value("json_syntax").run()
    assert app_images.shown(app)[0][1] == other
    assert "Left out under “json_syntax”: the panel file is not JSON; line 1" in words(app)


def test_any_kept_page_shows_what_became_of_each_panel(here):
    app = opened("Any page")
    app.selectbox(key="data_book").select("book003").run()
    page = next(s for s in app.selectbox if s.label == "Page")
    page.select(BAD).run()
    assert not app.exception
    entries = table(app, "outcome").set_index("entry")
    assert entries["outcome"].tolist() == ["kept", "dropped", "kept", "kept", "dropped"]
    assert entries["order"].tolist() == ["3", "–", "2", "1", "–"]  # a file lists its panels backwards
    assert "box_no_area" in entries["notes"][1]
    assert "box_clamped" in entries["notes"][2]
    assert "panel_type" in entries["notes"][4]
    config = loaders.config_here(loaders.entry("samples/first").run.config)
    name = "The page with 3 usable panels framed and 2 dropped ones crossed out"
    check = page_check.check_page(config, BAD, "pages/b003p002.png")
    assert app_images.shown(app) == [(name, charts.overlay(check))]
    facts = next(d.value for d in app.dataframe if list(d.value.columns) == ["", "value"]).set_index("")["value"]
    assert facts.to_dict() == {
        "type": "narrative" if 14 % 3 == 1 else "story", "file found": "by the exact id",
        "image": "150 × 200 pixels", "panels": "3",
    }  # fmt: skip


def test_anomalies_carry_counts_meanings_and_first_paths(here):
    app = opened("Anomalies")
    report = loaders.open_dataset(loaders.entry("samples/first").run).table.report
    found = table(app, "code").set_index("code")
    assert found["count"].to_dict() == {c: n for c, n in report.counts.items() if n and not c.startswith("page:")}
    assert "book004/page001" in found["first"]["image_missing"]
    assert {"box_no_area", "box_clamped", "panel_type", "panel_dropped", "image_duplicate"} <= set(found.index)
    code = found.index[0]
    assert report.examples[code][0] in words(app)


def test_the_split_lists_every_book_once(here):
    app = opened("Split by book")
    data = loaders.open_dataset(loaders.entry("samples/first").run)
    books = table(app, "textless").set_index("book")
    assert len(books) == 8
    assert books["panels"].sum() == len(data.table)
    textless = (data.table.panels["dialogue"] == "") & (data.table.panels["description"] == "")
    mine = (data.table.pages["book_id"].to_numpy()[data.table.page_of_panel]) == "book003"
    assert books["textless"]["book003"] == pytest.approx(textless[mine].mean())
    sizes = data.table.report.facts["splits"]
    assert books["split"].value_counts().to_dict() == {k: v["books"] for k, v in sizes.items() if v["books"]}


def test_how_files_were_found_and_labels(here):
    app = opened("How files were found")
    assert table(app, "found").set_index("found")["pages"]["exact"] >= 31
    assert table(app, "label").set_index("label")["pages"].to_dict() == {"story": 21, "narrative": 10, "cover": 1}


def test_a_lost_data_set_leaves_the_run_s_own_report(spoiled, tmp_path, monkeypatch):
    shutil.copytree(spoiled / "data" / "samples" / "runs" / "first", tmp_path / "runs" / "moved")
    config = tmp_path / "runs" / "moved" / "config.yaml"
    gone = str(tmp_path / "gone")
    lines = [f"data: {gone}" if x.startswith("data:") else x for x in config.read_text(encoding="utf-8").splitlines()]
    config.write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    app = opened()
    assert gone in words(app)
    assert {m.label: m.value for m in app.metric}["Pages listed"] == "32"


def test_names_that_would_be_formulas_or_markup_stay_text(here):
    app = opened("Any page")
    evil = "book000/[x](http:) =1+1 page"
    assert evil in [str(t.value) for t in app.text]
    assert all(evil not in str(e.value) for kind in (app.markdown, app.caption, app.subheader) for e in kind)
    frame = pd.DataFrame({"page_id": ["=1+1", "@a", "ok"], "n": [-1, 2, 3]})
    text = export.csv(frame).decode("utf-8-sig")
    assert "'=1+1" in text
    assert "'@a" in text
    assert "-1" in text


# --- page_check


def test_listed_pages_and_left_out_ones_add_up(config):
    listed = page_check.listed_pages(config)
    data = loaders.open_dataset(loaders.entry("samples/first").run)
    out = page_check.left_out(listed, data.table)
    assert len(listed) == 32
    assert sorted([*out["page_id"], *data.table.pages["page_id"]]) == sorted(listed["page_id"])
    assert set(listed["label"]) == {"story", "narrative", "cover"}


def test_a_checked_page_agrees_with_the_table(config):
    table = loaders.open_dataset(loaders.entry("samples/first").run).table
    listed = page_check.listed_pages(config).set_index("page_id")["image"]
    for row, page in table.pages.iterrows():
        check = page_check.check_page(config, page["page_id"], listed[page["page_id"]])
        kept = sorted((p for p in check.panels if p.order is not None), key=lambda p: p.order)
        mine = table.panels[table.panels["page"] == row]
        assert [p.index for p in kept] == mine["source_index"].tolist()
        boxes = [p.box or (np.nan,) * 4 for p in kept]
        np.testing.assert_array_equal(boxes, mine[["x", "y", "w", "h"]].to_numpy())
        assert check.image == page["image_path"]
        assert check.problem is None


def test_a_page_id_cannot_leave_the_panels_folder(config, here):
    (here / "secret.json").write_text('{"panels": []}', encoding="utf-8")
    for page_id in ("../../../secret", str(here / "secret"), "nope", "y" * 300, "a\0b"):
        check = page_check.check_page(config, page_id)
        assert check.problem is not None
        assert check.problem[0] == "no_panel_file"
        assert check.file == ""


def test_the_overlay_frames_kept_panels_and_crosses_dropped_ones_out(config):
    check = page_check.check_page(config, BAD, "pages/b003p002.png")
    with Image.open(io.BytesIO(charts.overlay(check, 1200))) as drawn:
        pixels = np.asarray(drawn.convert("RGB")).astype(int)
    box = next(p.box for p in check.panels if p.index == 3)
    left, bottom = round(box[0] * pixels.shape[1]), round((box[1] + box[3] / 2) * pixels.shape[0])
    assert np.abs(pixels[bottom, left + 1] - (0, 114, 178)).max() < 60
    nothing = page_check.PageCheck("x", "", "", None, check.panels, [])
    with Image.open(io.BytesIO(charts.overlay(nothing, 400))) as sheet:
        assert sheet.size == (280, 400)
    orange = page_check.PanelCheck(0, None, (0.2, 0.2, 0.6, 0.6), "", [])
    with Image.open(io.BytesIO(charts.overlay(page_check.PageCheck("x", "", "", None, [orange], []), 1000))) as sheet:
        middle = np.asarray(sheet.convert("RGB")).astype(int)[500, 350]
    assert np.abs(middle - (213, 94, 0)).max() < 60  # the cross


def test_no_panel_of_a_page_that_is_left_out_is_kept():
    panels = [page_check.PanelCheck(0, 0, (0.2, 0.2, 0.6, 0.6), "", []), page_check.PanelCheck(1, None, None, "", [])]
    check = page_check.PageCheck("x", "", "", None, panels, [])
    assert charts.entries(check)["outcome"].tolist() == ["kept", "dropped"]
    assert charts.entries(check, left_out=True)["outcome"].tolist() == ["usable, page left out", "dropped"]


def test_a_number_stands_mostly_outside_of_its_frame_where_no_balloon_is():
    panel = page_check.PanelCheck(0, 0, (0.3, 0.3, 0.5, 0.5), "", [])
    with Image.open(io.BytesIO(charts.overlay(page_check.PageCheck("x", "", "", None, [panel], []), 1000))) as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    blue = np.abs(pixels - (0, 114, 178)).max(axis=2) < 60
    x0, y0 = round(0.3 * pixels.shape[1]), round(0.3 * pixels.shape[0])
    inside = blue[y0 + 8 : y0 + 80, x0 + 8 : x0 + 80].sum()
    outside = blue[y0 - 60 : y0 - 2, x0 - 60 : x0 - 2].sum()
    assert outside > inside > 0


@pytest.mark.slow
def test_five_thousand_panels(large):
    app = opened("Split by book")
    assert {m.label: m.value for m in app.metric}["Panels"] == "5,300"
    assert len(table(app, "textless")) == 53
    assert view.books(loaders.open_dataset(loaders.entry("samples/first").run))["pages"].sum() == 1325


def test_the_explorer_and_the_commands_put_every_page_in_the_same_split(here, tmp_path):
    """Also when the data has changed since: books keep the split that the run recorded."""
    shutil.copytree(here / "data" / "samples", tmp_path / "comics")
    run = loaders.entry("samples/first").run
    run.config = run.config.replace(data=str(tmp_path / "comics"))
    manifest = tmp_path / "comics" / "manifest.csv"
    lines = manifest.read_text(encoding="utf-8").splitlines()
    manifest.write_text("\n".join(line for line in lines if not line.startswith("book001/")), encoding="utf-8")
    command, shown = load_data(run, progress=False), loaders.open_dataset(run)
    assert shown.table.pages["page_id"].tolist() == command.table.pages["page_id"].tolist()
    assert shown.split.tolist() == command.split.tolist()
    split_of = {book: s for s, name in enumerate(SPLITS) for book in run.read_json("data")["books"][name]}
    assert shown.split.tolist() == shown.table.pages["book_id"].map(split_of).tolist()
    assert "1 book not here (the first is 'book001')" in loaders.data_changed(run)
