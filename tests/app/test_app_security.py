"""The explorer's posture: how it is served, what it never calls, what its route gives away, what exports may run."""

from __future__ import annotations

import ast
import csv
import io
import json
import tomllib
import zipfile
from pathlib import Path

import app_support
import pandas as pd
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient
from streamlit.config import get_config_options

from app import addresses, components, shell
from app.charts import theme
from app.parts import export
from app.store import loaders, thumbs
from stage3.config import Config
from stage3.errors import DataError
from stage3.runs import RunFolder

APP = Path(__file__).parents[2] / "app"
SOURCES = sorted(APP.rglob("*.py"))
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_ATTRIBUTES = {"html", "iframe", "write", "number_input", "html5", "experimental_rerun", "data_editor"}
FORBIDDEN_KEYWORDS = {"unsafe_allow_html", "unsafe_allow_javascript", "use_container_width", "shell"}
MARKDOWN = {
    "markdown",
    "caption",
    "error",
    "warning",
    "info",
    "success",
    "title",
    "header",
    "subheader",
    "toast",
    "badge",
}


def test_the_server_is_for_this_machine_and_sends_nothing_out():
    config = tomllib.loads((APP / ".streamlit" / "config.toml").read_text(encoding="utf-8"))
    assert config["server"]["address"] == "127.0.0.1"
    assert config["server"]["allowedHosts"] == ["localhost", "127.0.0.1"]
    assert config["server"]["enableXsrfProtection"] is True
    assert config["server"]["enableStaticServing"] is False
    assert config["server"]["maxUploadSize"] == 20
    assert config["browser"]["gatherUsageStats"] is False
    assert config["client"]["showErrorDetails"] == "none"
    assert config["client"]["disableDataExport"] is True, "tables would hand formulas to a spreadsheet"
    known = get_config_options()
    named = [f"{group}.{name}" for group, values in config.items() for name in values]
    assert not [name for name in named if not name.startswith("theme.") and name not in known]


def streamlit_calls(tree: ast.AST):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(APP).as_posix())
def test_no_call_that_would_run_or_render_what_data_says(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in streamlit_calls(tree):
        name = node.func.id if isinstance(node.func, ast.Name) else None
        assert name not in FORBIDDEN_CALLS, f"line {node.lineno}"
        for keyword in node.keywords:
            assert keyword.arg not in FORBIDDEN_KEYWORDS, f"line {node.lineno}: {keyword.arg}"
        if (
            isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "st"
        ):
            assert node.func.attr not in FORBIDDEN_ATTRIBUTES, f"line {node.lineno}: st.{node.func.attr}"
    imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    imported |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert not imported & {"pickle", "marshal", "shelve", "streamlit.components.v1"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(APP).as_posix())
def test_markdown_elements_get_our_own_words(path):
    """An f-string in a Markdown element may only format numbers and names declared in code."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    untrusted = {
        "page_id",
        "panel_id",
        "text",
        "dialogue",
        "description",
        "book",
        "book_id",
        "speakers",
        "message",
        "error",
    }
    for node in streamlit_calls(tree):
        if not (isinstance(node.func, ast.Attribute) and node.func.attr in MARKDOWN):
            continue
        if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "st"):
            continue
        for argument in node.args[:1]:
            named = {n.id for n in ast.walk(argument) if isinstance(n, ast.Name)}
            named |= {n.value for n in ast.walk(argument) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
            assert not named & untrusted, f"line {node.lineno}: st.{node.func.attr} of {sorted(named & untrusted)}"


def test_scripts_of_our_own_fetch_nothing_and_build_no_html():
    for name in ("hover.js", "keys.js", "style.css"):
        text = (components.HERE / name).read_text(encoding="utf-8")
        assert "http" not in text
        assert "innerHTML" not in text
        assert "eval(" not in text


def test_hover_text_of_charts_is_escaped():
    assert theme.safe('<a href="javascript:x">**b**</a>\n' + "y" * 200, 60).startswith("&lt;a href=")
    assert "<" not in theme.safe("<<<")


# --- the image route


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return app_support.workspace(tmp_path_factory.mktemp("route"))


@pytest.fixture
def client(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return TestClient(Starlette(routes=[*thumbs.ROUTES, *addresses.ROUTES]), follow_redirects=False)


def test_a_panel_image_is_its_crop_and_stays_with_this_origin(client, folder):
    got = client.get(thumbs.url("panel", "samples/first", 5, 96))
    assert got.status_code == 200
    assert got.headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in got.headers
    small = Image.open(io.BytesIO(got.content))
    frame = loaders.panel_frame(loaders.entry("samples/first").run)
    w, h = frame["w"][5] * app_support.SIZE[0], frame["h"][5] * app_support.SIZE[1]
    assert max(small.size) <= 96
    assert small.width / small.height == pytest.approx(w / h, rel=0.1)


@pytest.mark.parametrize(
    "path",
    [
        "/images/panel/samples/first/999999/96",
        "/images/panel/samples/../96/1/96",
        "/images/panel/samples/%2e%2e%2f%2e%2e/1/96",
        "/images/panel/nowhere/first/1/96",
        "/images/panel/samples/first/1/97",
        "/images/file/samples/first/1/96",
        "/images/panel/samples/first/-1/96",
        "/images/panel/samples/first/1e9/96",
    ],
)
def test_anything_else_is_not_found(client, path):
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("end", ["", "/", "/.", "/..", "/first/x", "/a\\b", "/a\0b"])
def test_an_id_of_a_run_is_a_root_and_a_plain_name(client, end):
    with pytest.raises(DataError, match="no run is called"):
        loaders.entry(f"samples{end}")


def test_the_shipped_run_opens_first_and_without_it_the_one_that_was_active_last():
    first, second = (loaders.Entry(f"runs/{n}", RunFolder(Path(n), Config()), False) for n in "ab")
    sample = loaders.Entry("samples/c", RunFolder(Path("c"), Config()), True)
    assert loaders.default_entry([first, second, sample]) is sample
    assert loaders.default_entry([first, second]) is first
    assert loaders.default_entry([]) is None


def test_an_address_of_a_view_is_kept_through_a_reload(client):
    got = client.get("/map?run=samples/first&panel=3")
    assert got.status_code == 307
    assert got.headers["location"] == "/?view=map&run=samples%2Ffirst&panel=3"
    assert client.get("/etc").status_code == 404


# --- exports


@pytest.fixture
def chosen(folder, monkeypatch):
    monkeypatch.chdir(folder)
    run = loaders.entry("samples/first").run
    return shell.Chosen("samples/first", run, loaders.resolve_step(run, None), True)


def test_no_cell_of_a_csv_is_a_formula(chosen):
    frame = loaders.panel_frame(chosen.run).copy()
    frame["text"] = ["=1+1", "+x", "-x", "@x", "\tx", "ok"] + ["plain"] * (len(frame) - 6)
    rows = list(csv.DictReader(io.StringIO(export.csv(frame).decode("utf-8-sig"))))
    assert [r["text"] for r in rows[:6]] == ["'=1+1", "'+x", "'-x", "'@x", "'\tx", "ok"]
    assert float(rows[0]["box_x"]) == pytest.approx(float(frame["x"][0]))
    assert len(rows) == len(frame)


def test_coco_boxes_are_pixels_of_their_page(chosen):
    frame = loaders.panel_frame(chosen.run)
    found = json.loads(export.coco(chosen, frame.iloc[[6, 2]]))
    assert {a["id"] for a in found["annotations"]} == {7, 3}
    one = next(a for a in found["annotations"] if a["id"] == 7)
    assert one["bbox"] == pytest.approx(
        [float(frame.loc[6, c]) * s for c, s in zip("xywh", app_support.SIZE * 2, strict=True)], abs=0.01
    )
    assert {i["id"] for i in found["images"]} == {int(frame.loc[6, "page"]) + 1, int(frame.loc[2, "page"]) + 1}


def test_coco_ids_start_at_1_and_its_file_names_are_unique_and_found(chosen):
    """To pycocotools a match with annotation 0 is none, so that a file does not even agree with itself."""
    found = json.loads(export.coco(chosen, loaders.panel_frame(chosen.run)))
    for what in ("images", "categories"):
        assert sorted(entry["id"] for entry in found[what]) == list(range(1, len(found[what]) + 1)), what
    boxed = loaders.panel_frame(chosen.run)["has_box"]
    assert sorted(entry["id"] for entry in found["annotations"]) == (boxed.index[boxed] + 1).tolist()
    assert {a["image_id"] for a in found["annotations"]} == {i["id"] for i in found["images"]}
    folder = Path(chosen.run.config.data) / "pages"
    names = [i["file_name"] for i in found["images"]]
    assert len(set(names)) == len(names)
    assert all((folder / name).is_file() for name in names)


def test_file_names_are_unique_also_where_images_are_shared_missing_or_named_alike():
    paths = ["/a/one/1.png", "/a/two/1.png", "", "/a/one/1.png", "/a/one/2.png"]
    pages = pd.DataFrame({"image_path": paths, "page_id": ["p", "q", "r", "one/2.png", "s"]})
    assert export.file_names(pages) == ["one/1.png", "two/1.png", "r", "one/2.png", "s"]
    stems = [
        export.file_stem(name) for name in ("runs/a-map", "runs/é-map", "runs/ü-map", f"{'x' * 90}1", f"{'x' * 90}2")
    ]
    assert stems[0] == "runs-a-map"
    assert len(set(stems)) == 5
    assert all(len(stem) <= 80 and stem.isascii() for stem in stems)


def test_a_zip_has_the_crops_by_row_and_number_and_the_pages_by_their_names_in_the_coco_file(chosen):
    frame = loaders.panel_frame(chosen.run).iloc[[6, 1, 5]]
    archive = zipfile.ZipFile(io.BytesIO(export.crops(chosen, frame)))
    crops = [f"panels/row-000000{r}-panel-{o + 1}.webp" for r, o in zip((6, 1, 5), frame["order"], strict=True)]
    found = json.loads(archive.read("coco.json"))
    pages = [i["file_name"] for i in found["images"]]
    assert sorted(archive.namelist()) == sorted([*crops, *pages, "coco.json", "panels.tsv"])
    assert all(name.endswith(".png") for name in pages)
    for row, name in zip((6, 1, 5), crops, strict=True):
        whole = Image.open(io.BytesIO(thumbs.image(chosen.id, "panel", row, 640)))
        assert Image.open(archive.open(name)).tobytes() == whole.tobytes()
    by_id = {i["id"]: i for i in found["images"]}
    for one in found["annotations"]:
        page = by_id[one["image_id"]]
        image = Image.open(archive.open(page["file_name"]))
        assert image.size == (page["width"], page["height"])
        assert one["bbox"][0] + one["bbox"][2] <= page["width"]
        row = one["id"] - 1
        assert one["panel_number"] == frame.loc[row, "order"] + 1
    assert json.loads(export.coco(chosen, frame))["images"] == found["images"]


def test_names_that_are_no_plain_paths_or_of_other_formats_are_replaced():
    paths = ["/a/one/1.png", "/a/b/2.PNG", "", "/a/b/x.tif", "/a/b/..png", "/a/b/e\nvil.png", "/a/b/c:d.png"]
    pages = pd.DataFrame({"image_path": paths, "page_id": list("pqrstuv")})
    numbered = [f"page-000000{i}.png" for i in range(7)]
    assert export.page_names(pages) == ["one/1.png", "b/2.PNG", *numbered[2:4], "b/..png", *numbered[5:]]


def test_files_have_box_and_map_coordinates_and_panel_numbers_as_on_screen(chosen):
    frame = loaders.panel_frame(chosen.run).iloc[[9, 2]]
    frame = frame.assign(umap_x=[0.25, -3.0], umap_y=[1.5, 2.0])
    for back in (
        pd.read_parquet(io.BytesIO(export.parquet(frame))),
        pd.read_csv(io.BytesIO(export.csv(frame)), encoding="utf-8-sig"),
    ):
        assert back["panel_number"].tolist() == (frame["order"] + 1).tolist()
        assert back["umap_x"].tolist() == [0.25, -3.0]
        assert back["umap_y"].tolist() == [1.5, 2.0]
        for new, old in zip(("box_x", "box_y", "box_w", "box_h"), "xywh", strict=True):
            assert back[new].to_numpy() == pytest.approx(frame[old].to_numpy())


def test_parquet_holds_the_row_and_every_column(chosen):
    frame = loaders.panel_frame(chosen.run).iloc[[3, 1]]
    back = pd.read_parquet(io.BytesIO(export.parquet(frame)))
    assert back["row"].tolist() == [3, 1]
    assert back["panel_id"].tolist() == frame["panel_id"].tolist()
