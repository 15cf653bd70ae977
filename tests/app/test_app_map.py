"""The map by content: positions, colors, lasso, the chosen panel, two runs, drift, and what it says while it waits."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from types import SimpleNamespace

import app_images
import app_support
import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from app import shell
from app.charts import map_marks, maps, pages
from app.parts import export, filters, map_address, selection
from app.store import jobs, loaders, map_jobs, thumbs
from app.views import map_compare, map_drift, map_parts
from stage3 import selection as stage3_selection
from stage3.config import changes
from stage3.errors import DataError
from stage3.metrics.neighbors import neighbor_overlap, trust
from stage3.projection import __main__ as projection_command
from stage3.projection import files, layouts
from stage3.projection import maps as projection_maps
from stage3.projection.layouts import pca

pytestmark = pytest.mark.slow

NAMES = ("red circle", "<b>9</b>-panel pages", "textless")
UI = Path(__file__).parents[2] / "app" / "ui.py"


class Child:
    """A child process that has not ended yet."""

    def poll(self) -> None:
        return None


@pytest.fixture(autouse=True)
def started(monkeypatch):
    """What the explorer would have started; nothing is."""
    asked: list[list[str]] = []
    monkeypatch.setattr(map_jobs, "_children", {})
    monkeypatch.setattr(map_jobs, "_spawn", lambda arguments: (asked.append(arguments), Child())[1])
    return asked


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return app_support.world(tmp_path_factory.mktemp("map"))


@pytest.fixture
def run(small, monkeypatch):
    monkeypatch.chdir(small)
    run = loaders.entry("samples/first").run
    yield run
    for path in (run.path / "projections").glob("*"):
        path.unlink()


def opened(**params: object) -> AppTest:
    app = AppTest.from_file(str(UI), default_timeout=60)
    app.query_params["view"] = "map"
    for name, value in params.items():
        app.query_params[name] = str(value)
    app.run()
    assert not app.exception
    return app


def shown_frame(run) -> pd.DataFrame:
    """The panels that are embedded, in the order of the embeddings; the index is the row of the table."""
    return loaders.panel_frame(run).loc[loaders.embedded(run).rows.numpy()]


def store_map(run, *, drift: bool = False) -> pd.DataFrame:
    """A map with the promised columns whose positions are quick to make: 3 times the principal components."""
    step = loaders.resolve_step(run, None)
    embedded, table = loaders.embedded(run), loaders.open_dataset(run).table
    x, rows = embedded.panel.numpy(), embedded.rows.numpy()
    frame = pd.DataFrame(projection_maps._identity(table, rows))
    xy = 3 * pca(x)
    frame["cluster_id"] = np.where(np.arange(len(rows)) % 5 == 0, -1, np.arange(len(rows)) % 3)
    frame["cluster_name"] = np.array([*NAMES, ""])[frame["cluster_id"]]
    frame["umap_dim1"], frame["umap_dim2"], frame["row"] = xy[:, 0], xy[:, 1], rows
    frame["pca_1"], frame["pca_2"], frame["trust"], frame["fitted"] = xy[:, 0], xy[:, 1], trust(x, xy), True
    if drift:
        parts = [frame[["row", "umap_dim1", "umap_dim2"]].assign(epoch=e, kept=k) for e, k in ((2, np.nan), (4, 0.5))]
        files.save(files.drift_path(run), pd.concat(parts), {})
    else:
        files.save(files.projection_path(run, step), frame, {"table": table.fingerprint()})
    return frame


def said(app: AppTest) -> str:
    kinds = (app.text, app.code, app.subheader, app.caption)
    return "\n".join(str(e.value) for kind in kinds for e in kind)


def decoded(value):
    if isinstance(value, dict) and "bdata" in value:
        array = np.frombuffer(base64.b64decode(value["bdata"]), dtype=value["dtype"])
        return array.reshape([int(n) for n in value["shape"].split(",")]) if "shape" in value else array
    return np.asarray(value)


def component(app: AppTest, key: str) -> dict:
    """The data of a component of ours, by its key."""
    found = [c for c in app.get("bidi_component") if f"-{key}-" in c.proto.id or c.proto.id.endswith(f"-{key}")]
    return json.loads(found[0].proto.json)


def traces(app: AppTest, index: int = 0) -> list[dict]:
    """The traces of dots of a chart."""
    figure = json.loads(app.get("plotly_chart")[index].proto.spec)
    return [t for t in figure["data"] if "customdata" in t]


def colors(app: AppTest, index: int = 0) -> dict[int, float]:
    """The number that colors each panel of a chart."""
    shown = [(decoded(t["customdata"]), decoded(t["marker"]["color"])) for t in traces(app, index)]
    return {int(row): float(value) for pair in shown for row, value in zip(*pair, strict=True)}


def drawn(app: AppTest, index: int = 0) -> dict[int, tuple[float, float]]:
    found = {}
    for t in traces(app, index):
        for row, x, y in zip(decoded(t["customdata"]), decoded(t["x"]), decoded(t["y"]), strict=True):
            found[int(row)] = (float(x), float(y))
    return found


# --- one map


def test_principal_components_are_shown_while_the_map_is_made_and_one_child_is_started(run, started):
    app = opened()
    roots = [part for root in loaders.roots().values() for part in ("--beside", str(root.resolve()))]
    own = ["--cache_dir", str(loaders.base() / "data" / "cache"), "--max_megapixels", "100"]
    step = str(loaders.resolve_step(run, None))
    assert started == [["--run", str(run.path.resolve()), *own, "--checkpoint", step, *roots]]
    with pytest.raises(DataError, match="nowhere"):  # what the command says of a run, once it understands the rest
        projection_command.main(["--json", "--run", "nowhere", *started[0][2:]])
    app.run()
    assert len(started) == 1
    assert "in the address" not in said(app)
    assert "showing 122 of 122 panels" in said(app)
    assert "principal components" in said(app)
    rows = loaders.embedded(run).rows.numpy()
    at = drawn(app)
    np.testing.assert_allclose([at[r] for r in rows], pca(loaders.embedded(run).panel.numpy()), atol=1e-5)


def test_the_stored_map_is_shown_with_neighbors_kept_and_clusters(run, started):
    frame = store_map(run)
    app = opened()
    assert not started
    assert "UMAP" in said(app)
    assert "3 clusters" in said(app)
    assert f"{100 * frame['trust'].mean():.0f} % of neighbors kept from 32 dimensions" in said(app)
    at = drawn(app)
    np.testing.assert_allclose([at[r] for r in frame["row"]], frame[["umap_dim1", "umap_dim2"]], atol=1e-5)
    app.segmented_control(key="map_layout_2").set_value("pca").run()
    assert first(app, "layout") == "pca"
    assert "principal components" in said(app)


def test_a_map_of_other_data_is_not_shown_but_made_again(run, started):
    frame = store_map(run)
    files.save(files.projection_path(run, loaders.resolve_step(run, None)), frame, {"table": "other"})
    assert "principal components" in said(opened())
    assert [arguments[-1] for arguments in started] == ["--again"]


def test_a_failed_map_says_why_and_can_be_tried_again(run, started):
    path = map_jobs.map_path(run, None)
    path.parent.mkdir(exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps({"state": "failed", "message": "the disk is full"}))
    app = opened()
    assert "the disk is full" in said(app)
    assert not started
    assert drawn(app)
    app.button(key="map-again").click().run()
    assert len(started) == 1


@pytest.mark.parametrize("name", list(maps.COLORINGS))
def test_every_coloring_draws_every_panel_once(run, name):
    store_map(run)
    app = opened(color=name)
    parts = traces(app)
    rows = np.concatenate([decoded(t["customdata"]) for t in parts])
    rows = rows[rows >= 0]  # below are the means of pages
    assert sorted(rows.tolist()) == sorted(loaders.embedded(run).rows.tolist())
    coloring = maps.COLORINGS[name]
    told = bool(coloring.about) and coloring.about.rstrip(".") in said(app)
    assert told == (name in ("page", "i2t", "t2i", "image", "trust")), "what its numbers mean, below the map"
    alt = f"UMAP map of 122 panels colored by {coloring.label.lower()}"
    assert app.get("plotly_chart")[0].proto.alt == alt
    if name == "total":
        frame = loaders.panel_frame(run)
        for t in parts:
            expected = frame["loss_total"].loc[decoded(t["customdata"])]
            if t["name"].startswith("not defined"):
                assert expected.isna().all()
            else:
                np.testing.assert_allclose(decoded(t["marker"]["color"]), expected, rtol=1e-5)
    if name == "cluster":
        counts = {t["name"].rsplit(" · ", 1)[0]: t["name"].rsplit(" · ", 1)[1] for t in parts}
        assert counts == {
            "red circle": "32",
            "&lt;b&gt;9&lt;/b&gt;-panel pages": "33",
            "textless": "32",
            "no cluster": "25",
        }


def test_filters_draw_only_what_passes(run):
    app = opened()
    app.multiselect(key="map_filter_book").set_value(["book001", "book003"]).run()
    assert "showing 30 of 122 panels" in said(app)
    frame = loaders.panel_frame(run)
    assert set(frame["book"].loc[[r for r in drawn(app) if r >= 0]]) == {"book001", "book003"}


def test_names_from_data_are_escaped_where_plotly_reads_html_and_never_markdown(run):
    app = opened(panel=0)
    assert "[x](http:) =1+1 page" in said(app)
    assert not any("http:" in m.value or "script" in m.value for m in app.markdown)
    spec = app.get("plotly_chart")[0].proto.spec
    assert "<script" not in spec


# --- selection


def lasso(*corners: tuple[float, float], on: str = "pca") -> str:
    """A drawn shape as the address holds it."""
    return f"{on}:" + ";".join(f"{x},{y}" for x, y in corners)


EVERYTHING = lasso((-9, -9), (9, -9), (9, 9), (-9, 9))


def test_a_lasso_takes_all_panels_inside_it_also_those_that_were_not_drawn(run, monkeypatch):
    monkeypatch.setattr(maps, "DRAWN_MOST", 40)
    xy = pca(loaders.embedded(run).panel.numpy())
    middle = float(np.median(xy[:, 0]))
    app = opened(color="contrastive", tab="selection", lasso=lasso((-9, -9), (middle, -9), (middle, 9), (-9, 9)))
    assert "showing 40 of 122 panels" in said(app)
    inside = int((xy[:, 0] < middle).sum())
    assert f"{inside} panels selected" in [s.value for s in app.subheader]
    chosen = set(loaders.embedded(run).rows.numpy()[xy[:, 0] < middle].tolist())
    opacity = {
        int(r): o
        for t in traces(app)
        for r, o in zip(decoded(t["customdata"]), decoded(t["marker"]["opacity"]), strict=True)
    }
    assert {r for r, o in opacity.items() if o == 1} == chosen & set(opacity)
    app.button(key="map-clear").click().run()
    assert not any("panels selected" in s.value for s in app.subheader)
    assert "lasso" not in app.query_params
    app.query_params["lasso"] = lasso((-9, -9), (9, -9), (0, 9), on="umap")
    assert "drawn on the UMAP map; it returns when that is ready" in said(app.run())


def test_a_selection_shows_count_sentence_cards_with_rank_and_loss_and_export_at_once(run):
    store_map(run)
    app = opened(tab="selection", lasso=lasso((-99, -99), (99, -99), (0, 99), on="umap"))
    frame = shown_frame(run)
    stored = map_jobs.umap_map(run, None)
    inside = layouts.inside(stored[["umap_dim1", "umap_dim2"]].to_numpy(), np.array([[-99, -99], [99, -99], [0, 99]]))
    part = frame[inside]
    assert f"{len(part)} panels selected" in said(app)
    expected = stage3_selection.apart(frame, inside).sentence
    assert expected in said(app)
    cards = component(app, "map-selection-cards")
    assert [c["row"] for c in cards["items"]] == part.index[:12].tolist()
    first = part.iloc[0]
    assert str(first["page_id"]) in cards["items"][0]["text"]
    assert f"loss {first['loss_total']:.2f}" in cards["items"][0]["note"]
    csv = export.csv(map_parts.joined(shell.Chosen("x", run, None, True), frame, stored)[inside]).decode("utf-8-sig")
    assert "umap_x,umap_y,cluster_id,cluster_name" in csv.splitlines()[0]


def test_a_lasso_is_kept_in_the_address_and_gives_the_same_panels_from_there(monkeypatch):
    """The polygon is simplified and rounded before anything is selected with it."""
    kept: dict[str, object] = {}
    monkeypatch.setattr(selection.shell, "set_params", lambda **values: kept.update(values))
    turn = np.linspace(0, 2 * np.pi, 300)
    event = {"selection": {"lasso": [{"x": (3 * np.cos(turn)).tolist(), "y": np.sin(turn).tolist()}], "points": []}}
    positions = np.array([[-5.0, 0.0], [5.0, 900.0], [0.0, -900.0]])  # ten wide, and much higher
    selection.take(event, "umap", np.arange(3), positions)
    monkeypatch.setattr(map_address.shell, "param", lambda name: kept.get(name))
    notes: list[str] = []
    drawn_shape = map_address.drawn(notes)
    assert not notes
    assert drawn_shape.on == "umap"
    xy = np.random.default_rng(0).uniform(-4, 4, (5000, 2))
    exact = (xy[:, 0] / 3) ** 2 + xy[:, 1] ** 2 <= 1
    assert (selection.caught(drawn_shape, xy) != exact).mean() < 0.003
    assert kept["tab"] == "selection"
    assert len(str(kept["lasso"])) < 1500


def test_a_click_chooses_a_panel_or_a_page_and_an_empty_event_changes_nothing(monkeypatch):
    kept: dict[str, object] = {}
    monkeypatch.setattr(selection.shell, "set_params", lambda **values: kept.update(values))
    rows = np.array([4, 9])
    xy = np.zeros((2, 2))
    selection.take({"selection": {"points": [], "lasso": [], "box": []}}, "pca", rows, xy)
    selection.take({"selection": {"points": [{"customdata": 5}]}}, "pca", rows, xy)  # no panel of this map
    assert kept == {}
    selection.take({"selection": {"points": [{"customdata": [9]}]}}, "pca", rows, xy)
    assert kept == {"panel": 9, "tab": None}
    selection.take({"selection": {"points": [{"customdata": -3}]}}, "pca", rows, xy)
    assert kept["group"] == "page:2"
    assert kept["tab"] == "group"


# --- the address


def axes(app: AppTest, index: int = 0) -> list[float]:
    layout = json.loads(app.get("plotly_chart")[index].proto.spec)["layout"]
    return [*layout["xaxis"]["range"], *layout["yaxis"]["range"]]


def test_zoom_stays_through_color_tool_filter_click_and_rerun(run):
    store_map(run)
    app = opened(zoom="-1,2,-0.5,1")
    assert axes(app) == [-1, 2, -0.5, 1]
    app.selectbox(key="map_color").set_value("contrastive").run()
    app.segmented_control(key="map_tool_3").set_value("lasso").run()
    app.multiselect(key="map_filter_book").set_value(["book001"]).run()
    app.query_params["panel"] = "17"
    app.run()
    app.run()
    assert axes(app) == [-1, 2, -0.5, 1]
    assert first(app, "color") == "contrastive"
    assert first(app, "filter") == "book:book001"


def first(app: AppTest, name: str) -> str:
    value = app.query_params[name]
    return value[0] if isinstance(value, list) else value


def test_a_zoom_alone_draws_nothing_again_until_other_names_are_due(run):
    store_map(run)
    app = opened()
    whole = axes(app)

    def zoom(text: str) -> list[float]:
        app.session_state["_moved"] = 0
        app.query_params["zoom"] = text
        app.run()
        return axes(app)

    x0, x1, y0, y1 = whole
    assert zoom(f"{x0 + 0.05 * (x1 - x0)},{x1},{y0},{y1}") == whole  # the browser shows it already
    far = [x0, x0 + 0.2 * (x1 - x0), y0, y0 + 0.2 * (y1 - y0)]
    assert zoom(",".join(map(str, far))) == pytest.approx(far)
    app.selectbox(key="map_color").set_value("book").run()
    assert axes(app) == pytest.approx(far)


def test_a_fresh_browser_shows_all_that_the_address_says(run):
    store_map(run)
    says = {"color": "split", "layout": "pca", "tool": "select", "tab": "group", "zoom": "-1,1,-1,1"}
    app = opened(**says, group="book:book003", filter="loss_contrastive:0..9")
    assert app.selectbox(key="map_color").value == "split"
    assert app.segmented_control(key="map_layout_2").value == "pca"
    assert app.segmented_control(key="map_tool_3").value == "select"
    assert json.loads(app.get("plotly_chart")[0].proto.spec)["layout"]["dragmode"] == "select"
    assert app.segmented_control(key="map_tab").value == "group"
    assert axes(app) == [-1, 1, -1, 1]
    assert "Book: book003" in said(app)
    assert [c["text"] for c in component(app, "map-chips")["items"]] == ["Loss: contrastive 0 to 9"]
    frame = shown_frame(run)
    assert f"showing {int((frame['loss_contrastive'] <= 9).sum())} of 122 panels" in said(app)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("color", "rainbow"),
        ("layout", "tsne"),
        ("mode", "three"),
        ("tool", "saw"),
        ("zoom", "1,2,3"),
        ("zoom", "5,1,nan,2"),
        ("lasso", "umap:1,2"),
        ("lasso", "sky:1,2;3,4;5,6"),
        ("filter", "book:nobody"),
        ("filter", "rank_i2t:9..1"),
        ("filter", "__class__:x"),
        ("group", "book:nobody"),
        ("panel", "x"),
        ("panel", "100000"),
    ],
)
def test_a_bad_value_in_the_address_is_said_and_the_map_is_shown(run, name, value):
    app = opened(**{name: value})
    assert f"{name}=" in said(app) or f"{name} in the address" in said(app)
    assert len([r for r in drawn(app) if r >= 0]) == 122


def test_a_stored_map_that_lacks_a_panel_is_none(run):
    frame = store_map(run)
    assert len(map_jobs.umap_map(run, None)) == 122
    about = {"table": loaders.open_dataset(run).table.fingerprint()}
    files.save(files.projection_path(run, loaders.resolve_step(run, None)), frame.iloc[1:], about)
    assert map_jobs.umap_map(run, None) is None


def test_filters_by_rank_loss_cluster_and_text_agree_with_the_frame(run):
    store_map(run)
    frame = shown_frame(run)
    stored = map_jobs.umap_map(run, None)
    median = float(frame["loss_total"].median())
    cases = {
        "rank_i2t:1..3": frame["rank_i2t"] <= 3,
        f"loss_total:{median}..": frame["loss_total"] >= np.float32(median),
        "cluster_name:textless": (stored["cluster_name"] == "textless").to_numpy(),
        "text:CIRCLE": frame["text"].str.contains("circle"),
    }
    for text, passes in cases.items():
        assert f"showing {int(passes.sum())} of 122 panels" in said(opened(filter=text)), text


def test_filters_of_one_column_add_up_and_a_chip_removes_one(run, monkeypatch):
    frame = loaders.panel_frame(run)
    monkeypatch.setattr(
        filters.st, "query_params", QueryParams({"filter": ["book:book001", "book:book003", "text:red"]})
    )
    notes: list[str] = []
    found = filters.asked(frame, notes)
    assert [one.label() for one in found] == ["Books: book001, book003", "Text: red"]
    many = filters.Filter("split", ("a", "", "c", "d", "e"))
    assert many.label() == "Splits: a, (none), c and 2 more"
    ends = [filters.Filter("gate_image", low=-0.5), filters.Filter("gate_image", high=0.25)]
    assert [one.label() for one in ends] == ["Image weight ≥ -0.5", "Image weight ≤ 0.25"]
    expected = frame["book"].isin(["book001", "book003"]) & frame["text"].str.contains("red")
    np.testing.assert_array_equal(filters.passing(found, frame), expected)
    filters.put(found, None, "book")
    assert filters.st.query_params["filter"] == ["text:red"]
    filters.put(found, filters.Filter("rank_i2t", low=2, high=5), "rank_i2t")
    assert filters.st.query_params["filter"][-1] == "rank_i2t:2..5"


class QueryParams(dict):
    def get_all(self, name):
        return self.get(name, [])


# --- names of clusters, pages


def test_names_of_clusters_stand_on_the_map_and_in_the_group_tab_and_open_what_sets_them_apart(run):
    frame = store_map(run)
    app = opened(tab="group")
    texts = [a["text"] for a in json.loads(app.get("plotly_chart")[0].proto.spec)["layout"]["annotations"]]
    assert "textless" in texts
    assert not any("<b>" in text for text in texts)
    items = component(app, "map-legend")["items"]
    counts = frame["cluster_name"].value_counts()
    assert {i["text"]: i["note"] for i in items} == {name: str(counts[name]) for name in NAMES}
    app = opened(tab="group", group="cluster_name:textless")
    assert "Cluster: textless" in said(app)
    inside = (frame["cluster_name"] == "textless").to_numpy()
    assert stage3_selection.apart(shown_frame(run), inside).sentence in said(app)


def test_by_page_draws_the_mean_of_every_page_with_its_spread_and_hulls_where_there_are_few(run):
    app = opened(color="page")
    spec = json.loads(app.get("plotly_chart")[0].proto.spec)
    means = next(t for t in spec["data"] if "customdata" in t and decoded(t["customdata"]).max() < 0)
    xy, page = pca(loaders.embedded(run).panel.numpy()), shown_frame(run)["page"].to_numpy()
    pages = -1 - decoded(means["customdata"])
    assert pages.tolist() == sorted(set(page.tolist()))
    np.testing.assert_allclose(decoded(means["x"]), [xy[page == p, 0].mean() for p in pages], atol=1e-5)
    spread = [np.sqrt(((xy[page == p] - xy[page == p].mean(axis=0)) ** 2).sum(axis=1).mean()) for p in pages]
    np.testing.assert_allclose(
        decoded(means["marker"]["color"]), 100 * np.array(spread) / np.ptp(maps_width(xy)), rtol=1e-3
    )
    hulls = [t for t in spec["data"] if t.get("fill") == "toself"]
    assert 20 < len(hulls) <= 32  # a page whose panels lie on a line has none
    opened_page = opened(color="page", tab="group", group="page:3")
    assert len(component(opened_page, "map-group-cards")["items"]) == int((page == 3).sum())


def maps_width(xy):
    x0, x1, *_ = maps.whole(xy)
    return np.array([x0, x1])


def test_the_numbers_of_a_compact_page_do_not_cover_each_other():
    xy = np.random.default_rng(0).normal(scale=0.01, size=(9, 2))  # a heap on a map that is 10 wide
    window = (-5.0, 5.0, -5.0, 5.0)
    at = xy / map_marks.pixel(window) + map_marks.offsets(xy, window)
    gap = np.hypot(*(at[:, None] - at[None]).transpose(2, 0, 1)) + 1e9 * np.eye(9)
    assert gap.min() >= 0.95 * map_marks.NUMBER
    assert np.abs(map_marks.offsets(xy, window)).max() < 120  # pixels: they stay beside their dots


# --- the chosen panel


def test_the_address_names_a_panel_whose_page_words_losses_and_neighbors_are_shown(run, monkeypatch):
    asked = []
    monkeypatch.setattr(shell, "go", lambda view, **params: asked.append((view, params)))
    app = opened(panel=13)
    frame = loaders.panel_frame(run)
    rows = loaders.embedded(run).rows.numpy()
    at = rows.tolist().index(13)
    assert at != 13
    assert f"Panel 2 of 4  ·  {frame['page_id'][13]}" in said(app)
    assert frame["text"][13] in said(app)
    table = app.dataframe[0].value.set_index("what")
    assert table.loc["Contrastive", "value"] == pytest.approx(frame["loss_contrastive"][13])
    defined = frame["loss_contrastive"].dropna()
    assert table.loc["Contrastive", "below"] == pytest.approx(
        100 * (defined < frame["loss_contrastive"][13]).mean(), abs=1
    )
    figure = json.loads(app.get("plotly_chart")[0].proto.spec)
    assert [a["text"] for a in figure["layout"]["annotations"]] == ["1", "2", "3", "4"]
    x = loaders.embedded(run).panel.numpy()
    xy = pca(x)[np.flatnonzero(frame["page"].to_numpy()[rows] == frame["page"][13])]
    np.testing.assert_allclose(decoded(figure["data"][-1]["x"]), xy[:, 0], atol=1e-5)
    z = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine = z @ z[at]
    cosine[at] = -1
    buttons = [b for b in app.button if b.key and b.key.startswith("map-near-")]
    near = [rows.tolist().index(int(b.key.split("-")[2])) for b in buttons]
    np.testing.assert_allclose(cosine[near], np.sort(cosine)[::-1][:8], atol=1e-6)
    (name, page), *mates = app_images.shown(app)
    assert name == "The page with 4 numbered panels"
    boxes = [tuple(b) for b in frame.loc[12:15, list("xywh")].to_numpy().tolist()]
    assert page == pages.boxed(app_images.of_page(run, 3, 640), boxes, 1)
    assert mates == [
        (f"Panel {frame['order'][r] + 1} of 4  ·  {frame['page_id'][r]}",
         app_images.of_panel(run, r, 160) or thumbs.placeholder(160))
        for r in rows[near].tolist()
    ]  # fmt: skip
    app.button(key="map-page").click().run().button(key="map-search").click().run()
    assert asked == [("page", {"page": 3, "panel": 13}), ("search", {"panel": 13})]
    app.query_params["tab"] = "x"  # no tab: the panel's is open
    buttons[1].click().run()
    assert app.query_params["panel"] in (str(rows[near[1]]), [str(rows[near[1]])])
    assert "tab" not in app.query_params

    def outlined() -> bool:
        return bool(json.loads(app.run().get("plotly_chart")[0].proto.spec)["layout"].get("annotations"))

    assert outlined()
    app.toggle(key="map_outline").set_value(False)
    assert not outlined()
    app.toggle(key="map_outline").set_value(True)
    app.query_params["tab"] = "selection"  # which is of other panels
    assert not outlined()


@pytest.mark.parametrize("panel", [128, 10**9, "x", "-1"])
def test_a_panel_that_is_not_there_is_no_error(run, panel):
    assert "Look closer" in [s.value for s in opened(panel=panel).subheader]


# --- two maps, drift


def test_two_runs_side_by_side_count_the_neighbors_they_share(run):
    app = opened(mode="two", **{"with": "runs/second"})
    other = loaders.entry("runs/second").run
    expected = neighbor_overlap(loaders.embedded(run).panel.numpy(), loaders.embedded(other).panel.numpy(), 15)
    shown = {m.label: m.value for m in app.metric}
    assert shown == {"Neighbors in common": f"{100 * expected.mean():.0f} %", "Panels compared": "122"}
    assert drawn(app, 0).keys() == drawn(app, 1).keys()
    assert {"map-board", "map-left", "map-pair", "card-map-column"} <= app_images.containers(app)
    rows = loaders.embedded(run).rows.tolist()
    for i in (0, 1):  # one number of both runs
        np.testing.assert_allclose([colors(app, i)[r] for r in rows], expected, atol=1e-6)
    worst = component(app, "map-moved")["items"][0]["row"]
    assert expected[rows.index(worst)] == expected.min()
    app = opened(mode="two", color="image", **{"with": "runs/second"})
    for i, side in enumerate((run, other)):  # each its own numbers
        gates = loaders.panel_frame(side)["gate_image"]
        np.testing.assert_allclose([colors(app, i)[r] for r in rows], gates[rows], atol=1e-6)


def test_two_maps_are_those_of_umap_where_both_runs_have_one(run):
    entries = [loaders.entry(name) for name in ("samples/first", "runs/second")]
    pair = [shell.Chosen(e.id, e.run, loaders.resolve_step(e.run, None), e.is_sample) for e in entries]
    theirs = files.projection_path(pair[1].run, pair[1].step)
    every = np.arange(122)

    def layout() -> str:
        return map_compare._positions(*pair, every, every)[2]

    store_map(run)
    assert layout() == "pca"
    store_map(pair[1].run)
    try:
        assert layout() == "umap"
        files.projection_path(run, pair[0].step).unlink()
        assert layout() == "pca"
    finally:
        theirs.unlink()


def test_groups_are_those_of_the_panels_in_common_and_of_the_map_that_is_stored_now(run):
    """In one server: another run beside it, and another map of the same checkpoint, have groups of their own."""
    frame = shown_frame(run)
    for name in ("runs/other", "runs/second"):  # of seven books, and of all eight
        app = opened(mode="two", color="book", **{"with": name})
        side = loaders.entry(name).run
        theirs = loaders.panel_frame(side).loc[loaders.embedded(side).rows.numpy(), "panel_id"]
        counts = frame.loc[frame["panel_id"].isin(theirs), "book"].value_counts()
        assert {t["name"] for t in traces(app)} == {f"{book} · {n}" for book, n in counts.items()}
        assert app.multiselect(key="map_filter_book").options == sorted(counts.index)
    stored = store_map(run)
    path = files.projection_path(run, loaders.resolve_step(run, None))
    about = {"table": loaders.open_dataset(run).table.fingerprint()}
    for new in ("textless", "a new name"):
        files.save(path, stored.assign(cluster_name=stored["cluster_name"].replace("textless", new)), about)
        app = opened(color="cluster", layout="pca")
        assert app.multiselect(key="map_filter_cluster_name").options == sorted(["(none)", NAMES[0], NAMES[1], new])
        named = {t["name"] for t in traces(app)}
        assert named == {"red circle · 32", "&lt;b&gt;9&lt;/b&gt;-panel pages · 33", f"{new} · 32", "no cluster · 25"}


@pytest.mark.parametrize("on", ["pca", "right"])
def test_a_selection_on_one_of_two_maps_rings_the_same_panels_on_both(run, on):
    two = {"mode": "two", "with": "runs/second"}
    app = opened(**two)
    rows = loaders.embedded(run).rows.tolist()
    side = drawn(app, 1 if on == "right" else 0)
    xy = np.array([side[r] for r in rows])
    middle = float(np.median(xy[:, 0]))
    corners = ((-9, -9), (middle, -9), (middle, 9), (-9, 9))
    app = opened(**two, tab="selection", lasso=lasso(*corners, on=on), color="book", zoom="-1,1,-1,1")
    chosen = [r for r, (x, _) in zip(rows, xy, strict=True) if x < middle]
    assert f"{len(chosen)} panels selected" in said(app)
    for i in (0, 1):
        spec = json.loads(app.get("plotly_chart")[i].proto.spec)
        ring = next(t for t in spec["data"] if t.get("name") == "selected")
        here = drawn(app, i)
        np.testing.assert_allclose(decoded(ring["x"]), [here[r][0] for r in chosen], atol=1e-5)
        assert axes(app, i) == [-1, 1, -1, 1]
    app.button(key="map-clear").click().run()
    assert "lasso" not in app.query_params


def test_a_zoom_on_one_of_two_maps_moves_the_other(run):
    app = opened(mode="two", **{"with": "runs/second"})
    whole = axes(app, 0)
    assert axes(app, 1) == whole
    app.session_state["_moved"] = 0
    near = [0.9 * v for v in whole]
    app.query_params["zoom"] = ",".join(map(str, near))
    app.run()
    assert axes(app, 0) == whole  # where the person zoomed, the browser shows it already
    assert axes(app, 1) == pytest.approx(near)


def test_drift_moves_every_panel_from_epoch_to_epoch(run, started):
    app = opened(mode="drift")
    assert started[0][-1] == "--drift"
    frame = store_map(run, drift=True)
    app = opened(mode="drift")
    figure = json.loads(app.get("plotly_chart")[0].proto.spec)
    assert [f["name"] for f in figure["frames"]] == ["2", "4"]
    assert all(len(decoded(f["data"][0]["x"])) == len(frame) for f in figure["frames"])
    assert "showing 122 of 128 panels" in said(app)  # of the table: a run may have saved fewer
    assert "this view failed" not in said(app)  # one epoch is compared with one before it
    (kept,) = json.loads(app.get("plotly_chart")[1].proto.spec)["data"]
    assert (decoded(kept["x"]).tolist(), decoded(kept["y"]).tolist(), kept["mode"]) == ([4], [50], "lines+markers")


def test_the_drift_of_each_run_is_its_own_also_of_files_of_one_time(tmp_path, monkeypatch):
    shown: list[str] = []
    for name in ("a", "b"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (5, 5))
    monkeypatch.setattr(map_drift, "epoch_files", lambda run: ["an epoch"])
    monkeypatch.setattr(map_drift, "drift_path", lambda run: tmp_path / run)
    monkeypatch.setattr(map_drift.map_jobs, "ensure", lambda *_, **__: map_jobs.Job("ready"))
    monkeypatch.setattr(map_drift, "load", lambda path: path.name)
    monkeypatch.setattr(map_drift, "_show", lambda chosen, frame, made: shown.append(made))
    for name in ("a", "b"):
        map_drift.render(SimpleNamespace(run=name, step=1), pd.DataFrame())
    assert shown == ["a", "b"]


def test_a_run_without_saved_epochs_says_how_to_get_them(run):
    app = opened(run="runs/second", mode="drift")
    assert "--embed_every 1" in said(app)


def test_a_button_trains_such_a_run_again_with_every_epoch_kept(run, monkeypatch):
    asked = []
    monkeypatch.setattr(jobs, "_spawn", lambda made, record: asked.append((made, record)))
    app = opened(run="runs/second", mode="drift")
    app.button(key="drift-train").click().run()
    ((made, record),) = asked
    before = loaders.entry("runs/second").run.config
    assert set(changes(before, made.config)) <= {"embed_every"}
    assert (before.embed_every, made.config.embed_every) == (0, 1)
    assert record == {"parent": "runs/second"}


# --- five thousand panels


@pytest.mark.slow
def test_five_thousand_panels_are_all_drawn_with_webgl_and_fewer_with_svg(large):
    app = opened(color="book")
    assert "showing 5,079 of 5,079 panels" in said(app)
    assert {t["type"] for t in traces(app)} == {"scattergl"}
    app.segmented_control(key="map_drawing").set_value("svg").run()
    assert "showing 5,000 of 5,079 panels" in said(app)
    assert {t["type"] for t in traces(app)} == {"scatter"}
    books = loaders.panel_frame(loaders.entry("samples/first").run)["book"].loc[list(drawn(app))]
    assert books.value_counts().between(93, 95).all()


# --- colors


@pytest.mark.parametrize("cycle", [maps.CYCLE_LIGHT, maps.CYCLE_DARK])
def test_pages_next_to_each_other_differ_also_for_color_blind_eyes(cycle):
    deutan = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])  # Machado et al. 2009
    protan = np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]])
    rgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in cycle])
    for matrix in (np.eye(3), deutan, protan):
        seen = rgb @ matrix.T
        gap = np.linalg.norm(seen - np.roll(seen, 1, axis=0), axis=1)
        assert gap.min() > 0.5
