"""The map by content: positions, colors, lasso, the chosen panel, two runs, drift, and what it says while it waits."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import app_support
import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from app.charts import maps
from app.parts import selection
from app.store import loaders, map_jobs
from stage3.errors import DataError
from stage3.metrics.neighbors import neighbor_overlap, trust
from stage3.projection import __main__ as projection_command
from stage3.projection import files
from stage3.projection import maps as projection_maps
from stage3.projection.layouts import pca

pytestmark = pytest.mark.slow

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
    folder = app_support.workspace(tmp_path_factory.mktemp("map"), embed_every=2)
    app_support.make_run(folder / "runs", "second", folder / "data" / "samples", seed=1)
    return folder


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


def store_map(run, *, drift: bool = False) -> pd.DataFrame:
    """A map with the promised columns whose positions are quick to make: 3 times the principal components."""
    step = loaders.resolve_step(run, None)
    embedded, table = loaders.embedded(run), loaders.open_dataset(run).table
    x, rows = embedded.panel.numpy(), embedded.rows.numpy()
    frame = pd.DataFrame(projection_maps._identity(table, rows))
    xy = 3 * pca(x)
    frame["cluster_id"] = np.where(np.arange(len(rows)) % 5 == 0, -1, np.arange(len(rows)) % 3)
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


def traces(app: AppTest, index: int = 0) -> list[dict]:
    """The traces of dots of a chart."""
    figure = json.loads(app.get("plotly_chart")[index].proto.spec)
    return [t for t in figure["data"] if "customdata" in t]


def drawn(app: AppTest, index: int = 0) -> dict[int, tuple[float, float]]:
    found = {}
    for t in traces(app, index):
        for row, x, y in zip(decoded(t["customdata"]), decoded(t["x"]), decoded(t["y"]), strict=True):
            found[int(row)] = (float(x), float(y))
    return found


# --- one map


def test_principal_components_are_shown_while_the_map_is_made_and_one_child_is_started(run, started):
    app = opened()
    assert started == [["--run", str(run.path.resolve()), "--checkpoint", str(loaders.resolve_step(run, None))]]
    with pytest.raises(DataError, match="nowhere"):  # what the command says of a run, once it understands the rest
        projection_command.main(["--json", "--run", "nowhere", *started[0][2:]])
    app.run()
    assert len(started) == 1
    assert "showing 128 of 128 panels" in said(app)
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


def test_a_map_of_other_data_is_not_shown(run):
    frame = store_map(run)
    files.save(files.projection_path(run, loaders.resolve_step(run, None)), frame, {"table": "other"})
    assert "principal components" in said(opened())


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
    assert sorted(rows.tolist()) == sorted(loaders.embedded(run).rows.tolist())
    if name == "total":
        frame = loaders.panel_frame(run)
        for t in parts:
            expected = frame["loss_total"].loc[decoded(t["customdata"])]
            if t["name"].startswith("not defined"):
                assert expected.isna().all()
            else:
                np.testing.assert_allclose(decoded(t["marker"]["color"]), expected, rtol=1e-5)
    if name == "cluster":
        assert [t["name"].split(" · ")[0] for t in parts] == ["cluster 0", "cluster 1", "cluster 2", "no cluster"]


def test_filters_draw_only_what_passes(run):
    app = opened()
    app.multiselect(key="map_filter_book").set_value(["book001", "book003"]).run()
    assert "showing 32 of 128 panels" in said(app)
    frame = loaders.panel_frame(run)
    assert set(frame["book"].loc[list(drawn(app))]) == {"book001", "book003"}


def test_names_from_data_are_escaped_where_plotly_reads_html_and_never_markdown(run):
    app = opened(panel=0)
    assert "[x](http:) =1+1 page" in said(app)
    assert not any("http:" in m.value or "script" in m.value for m in app.markdown)
    spec = app.get("plotly_chart")[0].proto.spec
    assert "<script" not in spec


# --- selection


def select(app: AppTest, event: dict) -> None:
    """Do what the chart's callback does with an event."""
    at = {k: app.session_state[k] for k in ("_map_all", "_map_data")}
    import streamlit as st

    original = st.session_state
    st.session_state = dict(at)  # type: ignore[assignment]
    try:
        selection.take({"selection": event})
        app.session_state["_map_picked"] = st.session_state["_map_picked"]
    finally:
        st.session_state = original


def test_a_lasso_takes_all_panels_inside_it_also_those_that_were_not_drawn(run, monkeypatch):
    monkeypatch.setattr(maps, "DRAWN_MOST", 40)
    app = opened(color="contrastive")
    assert "showing 40 of 128 panels" in said(app)
    xy = pca(loaders.embedded(run).panel.numpy())
    middle = float(np.median(xy[:, 0]))
    left = [float(xy[:, 0].min()) - 1, middle], [-9.0, 9.0]
    select(app, {"lasso": [], "box": [{"x": left[0], "y": left[1]}], "points": []})
    app.run()
    inside = int((xy[:, 0] <= middle).sum())
    assert f"{inside} panels selected" in [s.value for s in app.subheader]
    frame = loaders.panel_frame(run).loc[loaders.embedded(run).rows.numpy()[xy[:, 0] < middle]]
    worst = frame.sort_values("loss_contrastive", ascending=False, kind="stable").index[0]
    tiles = [b.key for b in app.button if b.key and b.key.startswith("map-selection-open-")]
    assert tiles[0] == f"map-selection-open-{worst}"
    bright = {
        r
        for t in traces(app)
        for r, o in zip(decoded(t["customdata"]), decoded(t["marker"]["opacity"]), strict=True)
        if o == 1
    }
    assert bright <= set(frame.index)
    app.button(key="map-clear").click().run()
    assert not any("selected" in s.value for s in app.subheader)


def test_a_chart_that_forgets_its_selection_does_not_clear_ours(run):
    app = opened()
    select(app, {"lasso": [{"x": [-9, 9, 9, -9], "y": [-9, -9, 9, 9]}], "box": [], "points": []})
    kept = app.session_state["_map_picked"]
    assert len(kept[1]) == 128
    app.session_state["_map_picked"] = kept
    app.run()
    assert "128 panels selected" in [s.value for s in app.subheader]


# --- the chosen panel


def test_the_address_names_a_panel_whose_page_words_losses_and_neighbors_are_shown(run):
    app = opened(panel=13)
    frame = loaders.panel_frame(run)
    assert f"Panel 2 of 4  ·  {frame['page_id'][13]}" in said(app)
    assert frame["text"][13] in said(app)
    table = app.dataframe[0].value.set_index("what")
    assert table.loc["Contrastive", "value"] == pytest.approx(frame["loss_contrastive"][13])
    defined = frame["loss_contrastive"].dropna()
    assert table.loc["Contrastive", "below"] == pytest.approx(
        100 * (defined < frame["loss_contrastive"][13]).mean(), abs=1
    )
    figure = json.loads(app.get("plotly_chart")[0].proto.spec)
    assert figure["data"][-1]["text"] == ["1", "2", "3", "4"]
    x = loaders.embedded(run).panel.numpy()
    xy = pca(x)[np.flatnonzero(frame["page"].to_numpy() == frame["page"][13])]
    np.testing.assert_allclose(decoded(figure["data"][-1]["x"]), xy[:, 0], atol=1e-5)
    z = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine = z @ z[13]
    cosine[13] = -1
    near = [int(b.key.split("-")[2]) for b in app.button if b.key and b.key.startswith("map-near-")]
    np.testing.assert_allclose(cosine[near], np.sort(cosine)[::-1][:8], atol=1e-6)


@pytest.mark.parametrize("panel", [128, 10**9, "x", "-1"])
def test_a_panel_that_is_not_there_is_no_error(run, panel):
    assert "Look closer" in [s.value for s in opened(panel=panel).subheader]


# --- two maps, drift


def test_two_runs_side_by_side_count_the_neighbors_they_share(run):
    app = opened(mode="two", **{"with": "runs/second"})
    other = loaders.entry("runs/second").run
    expected = neighbor_overlap(loaders.embedded(run).panel.numpy(), loaders.embedded(other).panel.numpy(), 15)
    shown = {m.label: m.value for m in app.metric}
    assert shown == {"Neighbors in common": f"{100 * expected.mean():.0f} %", "Panels compared": "128"}
    assert drawn(app, 0).keys() == drawn(app, 1).keys()
    colors = np.concatenate([decoded(t["marker"]["color"]) for t in traces(app, 0)])
    np.testing.assert_allclose(colors, expected, atol=1e-6)
    worst = [int(b.key.split("-")[-1]) for b in app.button if b.key and b.key.startswith("map-moved-open-")]
    assert expected[worst[0]] == expected.min()


def test_drift_moves_every_panel_from_epoch_to_epoch(run, started):
    app = opened(mode="drift")
    assert started[0][-1] == "--drift"
    frame = store_map(run, drift=True)
    app = opened(mode="drift")
    figure = json.loads(app.get("plotly_chart")[0].proto.spec)
    assert [f["name"] for f in figure["frames"]] == ["2", "4"]
    assert all(len(decoded(f["data"][0]["x"])) == len(frame) for f in figure["frames"])
    assert "showing 128 of 128 panels" in said(app)


def test_a_run_without_saved_epochs_says_how_to_get_them(run):
    app = opened(run="runs/second", mode="drift")
    assert "--embed_every 1" in said(app)


# --- five thousand panels


@pytest.mark.slow
def test_five_thousand_panels_are_all_drawn_with_webgl_and_fewer_with_svg(tmp_path_factory, monkeypatch):
    folder = app_support.workspace(tmp_path_factory.mktemp("many"), books=51, pages=25, panels=4, epochs=1)
    monkeypatch.chdir(folder)
    app = opened(color="book")
    assert "showing 5,100 of 5,100 panels" in said(app)
    assert {t["type"] for t in traces(app)} == {"scattergl"}
    app.segmented_control(key="map_drawing").set_value("svg").run()
    assert "showing 5,000 of 5,100 panels" in said(app)
    assert {t["type"] for t in traces(app)} == {"scatter"}
    books = loaders.panel_frame(loaders.entry("samples/first").run)["book"].loc[list(drawn(app))]
    assert books.value_counts().between(97, 99).all()


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
