"""The explorer's own views by content: empty, on a small run, on five thousand synthetic panels."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import app_images
import app_support
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from app.addresses import VIEWS
from app.charts import curves
from app.store import loaders
from app.views import losses, retrain
from stage3.runs import RunFolder
from stage3.train.trainer import Outcome, Trainer

pytestmark = pytest.mark.slow

UI = Path(__file__).parents[2] / "app" / "ui.py"
OWN = ("runs", "losses", "retrain", "evidence")
ALL = tuple(VIEWS)


def opened(view: str, **params: object) -> AppTest:
    app = AppTest.from_file(str(UI), default_timeout=60)
    app.query_params["view"] = view
    for name, value in params.items():
        app.query_params[name] = str(value)
    return app.run()


def words(app: AppTest) -> str:
    """Everything that the page says as text."""
    kinds = (app.text, app.code, app.header, app.subheader, app.caption, app.markdown, app.error, app.warning)
    return "\n".join(str(element.value) for kind in kinds for element in kind)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = app_support.world(tmp_path_factory.mktemp("small"))
    first = {"embed_every": 2, "lr": 0.04, "epochs": 5, "keep_checkpoints": 5}
    app_support.make_run(folder / "runs", "seed", folder / "data" / "samples", seed=1, **first)
    return folder


@pytest.mark.parametrize("view", ALL)
def test_an_empty_start_says_what_to_run(view, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    app = opened(view)
    assert not app.exception
    if view == "add":  # it is where one starts
        assert "An archive is a book" in words(app)
    else:
        assert "python -m stage3." in words(app)


@pytest.mark.parametrize("view", ALL)
def test_a_view_opens_on_the_sample_run_by_its_address(view, small, monkeypatch):
    monkeypatch.chdir(small)
    app = opened(view)
    assert not app.exception
    assert not app_images.undecided(app)
    assert len(words(app)) > 100
    if view not in ("evidence", "add"):  # not about one run
        assert app.selectbox(key="_run_choice").value == "samples/first"
        assert app.session_state["_run"] in ("samples/first", ["samples/first"])


# Weekly: map, search and data, whose own tests look at what they show of so many; and views that show no panel.
WEEKLY = set(ALL) - {"runs", "page"}


@pytest.mark.parametrize("view", [pytest.param(v, marks=[pytest.mark.heavy] * (v in WEEKLY)) for v in ALL])
def test_a_view_opens_on_five_thousand_panels(view, large):
    app = opened(view)
    assert not app.exception
    assert len(loaders.panel_frame(loaders.entry("samples/first").run)) == 5300
    assert len(words(app)) > 100


# --- runs


def test_runs_lists_every_run_with_its_best_recall_and_judges_the_picked_one(small, monkeypatch):
    monkeypatch.chdir(small)
    app = opened("runs", pick="runs/other")
    table = app.dataframe[0].value.set_index("run")
    assert set(table.index) == {"samples/first", "runs/second", "runs/other", "runs/seed"}
    updated = [loaders.entry(name).run.status.updated for name in table.index]
    assert updated == sorted(updated, reverse=True)
    assert len(set(updated)) == 4
    for name in table.index:
        run = loaders.entry(name).run
        metrics = run.metrics()
        at_best = metrics[(metrics["split"] == "val") & (metrics["step"] == run.best().step)].iloc[0]
        assert at_best["retrieval/i2t_r5"] != at_best["retrieval/t2i_r5"]  # or a swap could not be seen
        for way in ("i2t", "t2i"):
            assert table[way][name] == pytest.approx(100 * at_best[f"retrieval/{way}_r5"])
    assert table["weights"].to_dict() == {
        "samples/first": "1 / 0.5 / 1", "runs/seed": "1 / 0.5 / 1",
        "runs/second": "2 / 0.25 / 3", "runs/other": "0.5 / 1.5 / 0.75",
    }  # fmt: skip
    shown = {n: c["type_config"] for n, c in json.loads(app.dataframe[0].proto.columns).items() if "type_config" in c}
    bars = {n: (c["min_value"], c["max_value"]) for n, c in shown.items() if c["type"] == "progress"}
    assert bars.pop("progress") == (0, 1)
    assert set(bars.values()) == {(0, 100)}
    assert any(verdict in words(app) for verdict in ("healthy", "no signal", "collapsed"))
    names = app.dataframe[0].value["run"]
    app.session_state[app.dataframe[0].key] = {"selection": {"rows": [2, 0, 3], "columns": [], "cells": []}}
    app.run()
    assert "the first two of those picked" in words(app)
    assert names[2] in app.query_params["pick"]
    assert names[0] in app.query_params["with"]


def test_two_runs_show_only_the_settings_that_differ(small, monkeypatch):
    monkeypatch.chdir(small)
    app = opened("runs", pick="samples/first", **{"with": "runs/second"})
    tables = [d.value for d in app.dataframe]
    changed = next(t for t in tables if list(t.columns) == ["setting", "first", "second"]).set_index("setting")
    assert changed.to_dict("index") == {
        name: {"first": first, "second": second}
        for name, first, second in (
            ("contrastive_weight", "1.0", "2.0"), ("reconstruction_weight", "0.5", "0.25"),
            ("alignment_weight", "1.0", "3.0"), ("contrastive_temperature", "0.07", "0.4"),
            ("alignment_temperature", "0.07", "0.3"), ("epochs", "5", "3"), ("lr", "0.04", "0.03"), ("seed", "0", "1"),
            ("split_seed", "0", "5"), ("test_fraction", "0.2", "0.3"),
        )
    }  # fmt: skip


def test_a_folder_that_is_not_an_intact_run_is_listed_with_its_reason(small, monkeypatch):
    monkeypatch.chdir(small)
    bad = small / "runs" / "bad"
    bad.mkdir()
    (bad / "config.yaml").write_text("temprature: 3\n", encoding="utf-8")
    try:
        app = opened("runs")
        table = next(d.value for d in app.dataframe if "reason" in d.value.columns)
        assert table["folder"].tolist() == ["runs/bad"]
        assert "temprature" in table["reason"][0]
        assert "temperature" in table["reason"][0]
    finally:
        shutil.rmtree(bad)


def test_a_run_without_a_checkpoint_is_no_error(small, monkeypatch):
    monkeypatch.chdir(small)
    fresh = RunFolder.create(small / "runs" / "fresh", loaders.entry("samples/first").run.config)
    try:
        for view in ALL:
            app = opened(view, run="runs/fresh")
            assert not app.exception
            assert "checkpoint yet" in words(app) or view in ("losses", "retrain", "evidence", "data", "add")
    finally:
        shutil.rmtree(fresh.path)


@pytest.mark.parametrize(
    "run_id", ["runs/../data", "../../etc", "runs/..", "nowhere/x", "runs/<script>", "/etc/passwd"]
)
def test_addresses_cannot_name_folders_outside_the_roots(run_id, small, monkeypatch):
    monkeypatch.chdir(small)
    app = opened("runs", run=run_id)
    assert not app.exception
    assert app.selectbox(key="_run_choice").value == "samples/first"
    assert "There is no run" in words(app)


# --- losses


def titles(app: AppTest) -> list[str]:
    return [s.value for s in app.subheader]


def figures(app: AppTest) -> list[dict]:
    return [json.loads(f.proto.spec) for f in app.get("plotly_chart")]


def both(**names: str) -> dict[str, str]:
    """The curves of training and validation under some names."""
    return {f"{n} · {s}": f"{s} {m}" for n, m in names.items() for s in ("train", "val")}


WAYS = {"image → text": "i2t", "text → image": "t2i"}
LOSS_CURVES = {
    "total": both(total="loss/total"),
    "contrastive": both(contrastive="loss/contrastive"),
    "reconstruction": both(reconstruction="loss/reconstruction"),
    "alignment": both(**{name: f"loss/alignment_{way}" for name, way in WAYS.items()}),
}
ACTIVE_CURVES = {
    "active-anchors": both(**{"anchors with a page mate": "active/anchors"}),
    "active-reconstructed": both(**{"reconstructed panels": "active/reconstructed"}),
    "active-aligned": both(**{"panels with image and text": "active/aligned"}),
    "active-pairs": both(**{"page-mate pairs": "active/pairs"}),
    "active-silent_batches": both(**{"no-signal batches": "active/silent_batches"}),
}
PAIRS = (("contrastive", "reconstruction"), ("contrastive", "alignment"), ("reconstruction", "alignment"))
WORK_CURVES = {
    "gradient": {t: f"val gradient/{t}" for t in ("contrastive", "reconstruction", "alignment")},
    "cosine": {f"{a} · {b}": f"val gradient_cosine/{a}_{b}" for a, b in PAIRS},
    "norm": {"before clipping": "train grad_norm"},
    "retrieval": {f"R@5 {name}": f"val retrieval/{way}_r5" for name, way in WAYS.items()},
    "rank": {"effective rank": "val collapse/effective_rank"},
    "cosines": {"same page": "val collapse/intra_cosine", "different pages": "val collapse/inter_cosine"},
    "skill": {"R²": "val reconstruction/skill"},
    "temperature": both(contrastive="temperature/contrastive", alignment="temperature/alignment"),
    "rate": {"learning rate": "train lr"},
    "idle": {"no signal": "train active/silent_batches", "not finite": "train skipped_steps"},
}


def key_of(chart: Any) -> str:
    """What a chart of Losses is called in its code."""
    return chart.proto.id.rpartition("losses-")[2]


def curves_of(app: AppTest, frame: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Which logged numbers stand under which name of which chart; the first of those that are all the same."""
    logged = {
        f"{split} {c}": frame.loc[frame["split"] == split, c].dropna().tolist()
        for split in ("train", "val") for c in frame.columns if c not in ("split", "step", "epoch")
    }  # fmt: skip
    found: dict[str, dict[str, str]] = {}
    expected = {k: v for part in (LOSS_CURVES, ACTIVE_CURVES, WORK_CURVES) for k, v in part.items()}
    for chart in app.get("plotly_chart"):
        for trace in json.loads(chart.proto.spec)["data"]:
            hoped = expected[key_of(chart)].get(trace["name"], "")
            same = [m for m, values in logged.items() if values == pytest.approx(numbers(trace["y"]))]
            found.setdefault(key_of(chart), {})[trace["name"]] = hoped if hoped in same else (same or ["none"])[0]
    return found


def test_losses_draw_every_term_and_both_directions_of_the_run(small, monkeypatch):
    monkeypatch.chdir(small)
    app = opened("losses", run="runs/second")
    assert {"Total", "Contrastive", "Reconstruction", "Alignment, both directions", "Change and gap"} <= set(
        titles(app)
    )
    frame = loaders.metrics(loaders.entry("runs/second").run)
    assert curves_of(app, frame) == LOSS_CURVES | WORK_CURVES
    layouts = {key_of(c): json.loads(c.proto.spec)["layout"] for c in app.get("plotly_chart")}
    logarithmic = {key for key, layout in layouts.items() if layout["yaxis"].get("type") == "log"}
    assert logarithmic == {"gradient", "norm", "rate"}
    assert {key for key, layout in layouts.items() if layout["yaxis"].get("tickformat") == ".0%"} == {"retrieval"}
    units = {key: layout["yaxis"].get("title", {}).get("text") for key, layout in layouts.items()}
    cosines = dict.fromkeys(("cosine", "cosines"), "cosine, −1 to 1")
    assert {k: u for k, u in units.items() if u} == cosines | {
        "gradient": "gradient norm", "temperature": "temperature τ", "idle": "steps per row"
    }  # fmt: skip
    app.segmented_control(key="losses-kind").set_value("active").run()
    assert curves_of(app, frame) == ACTIVE_CURVES | WORK_CURVES
    app.segmented_control(key="losses-kind").set_value("raw").run()
    app.segmented_control(key="losses-split").set_value(["val"]).run()
    found = curves_of(app, frame)
    assert found["total"] == {"total": "val loss/total"}
    assert found["temperature"] == {t: f"val temperature/{t}" for t in ("contrastive", "alignment")}
    assert found["norm"] == {"before clipping": "train grad_norm"}
    app.segmented_control(key="losses-split").set_value([]).run()
    assert curves_of(app, frame)["total"] == LOSS_CURVES["total"], "none chosen are both"
    gap = next(d.value for d in app.dataframe if "gap" in d.value.columns).set_index("loss")
    assert {"Alignment, image → text", "Alignment, text → image"} <= set(gap.index)
    total = gap.loc["Total loss"]
    assert total["gap"] == pytest.approx(total["val_last"] - total["train_last"])


def test_the_retrieval_curve_says_among_how_many_panels_and_what_chance_is(small, monkeypatch):
    monkeypatch.chdir(small)
    gallery = int(loaders.metrics(loaders.entry("samples/first").run)["retrieval/gallery"].dropna().iloc[-1])
    app = opened("losses")
    assert f"among {gallery:,} panels with image and text; dotted: chance, {500 / gallery:.1f} %" in words(app)
    drawn = [line for figure in figures(app) for line in figure["layout"].get("shapes", ())]
    assert [line["y0"] for line in drawn] == [pytest.approx(5 / gallery)]


def test_runs_of_several_galleries_share_no_chance():
    def source(name: str, size: int) -> curves.Source:
        sizes = {"split": ["val"] * 3, "step": [1, 2, 3], "retrieval/gallery": [size + 9, size + 5, size]}  # the last
        return curves.Source(name, pd.DataFrame(sizes))

    sizes, chance = losses._gallery([source("a", 40), source("b", 1200), source("c", 80)])
    assert "among 40 to 1,200 panels" in sizes
    assert "among 40 to 80 panels" in losses._gallery([source("a", 40), source("c", 80)])[0]
    assert math.isnan(chance)
    assert losses._gallery([source("a", 40)])[1] == pytest.approx(0.125)


def test_weighted_losses_add_up_to_the_total_on_screen(small, monkeypatch):
    monkeypatch.chdir(small)
    app = opened("losses")
    app.segmented_control(key="losses-kind").set_value("weighted").run()
    traces = {t["name"]: t["y"] for t in figures(app)[0]["data"] if t.get("name", "").endswith("val")}
    total = numbers(traces["total · val"])
    parts = [numbers(traces[f"{t} · val"]) for t in ("contrastive", "reconstruction", "alignment")]
    assert total == pytest.approx([sum(values) for values in zip(*parts, strict=True)])


def numbers(values: object) -> list[float]:
    """A trace's numbers, which Plotly may have packed."""
    import base64

    import numpy as np

    if isinstance(values, dict):
        return np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"]).tolist()
    return list(values)  # type: ignore[call-overload]


def test_several_runs_become_one_mean_with_a_band(small, monkeypatch):
    monkeypatch.chdir(small)
    app = opened("losses", **{"with": "runs/seed"})
    assert app.multiselect(key="losses-with").value == ["runs/seed"]
    assert app.toggle(key="losses-band-True").value is True  # they differ only in the seed
    names = [t.get("name", "") for t in figures(app)[0]["data"]]
    assert "total · train · mean of 2 seeds" in names
    assert not any("samples/first" in name for name in names)
    app = opened("losses", **{"with": "runs/second"})
    assert app.toggle(key="losses-band-False").value is False
    assert "samples/first · train" in [t.get("name", "") for t in figures(app)[0]["data"]]


def test_a_legend_of_many_runs_stands_below_the_plot_in_room_of_its_own(small, monkeypatch):
    monkeypatch.chdir(small)
    frame = loaders.metrics(loaders.entry("samples/first").run)
    how = curves.How(by="epoch", splits=("train", "val"))
    few = curves.chart([curves.Source("a", frame)], {"loss/total": "total"}, how, height=220)
    many = [curves.Source(f"runs/a-long-name-{i}", frame) for i in range(5)]
    figure = curves.chart(many, {"loss/total": "total"}, how, height=220)
    assert few.layout.height == 220
    assert {"y", "yanchor", "yref"}.isdisjoint(few.layout.legend.to_plotly_json())
    assert few.layout.template.layout.legend.yanchor == "bottom"
    plot = figure.layout.height - figure.layout.margin.t - figure.layout.margin.b
    assert plot >= 150
    assert (figure.layout.legend.yref, figure.layout.legend.y) == ("container", 0)
    rate = curves.chart([curves.Source("a", frame)], {"lr": "learning rate"}, how, log=True)
    assert rate.layout.yaxis.tickformat == "~g"  # 0.0001, not 100μ


@pytest.fixture(scope="module")
def thin(tmp_path_factory):
    """A run whose every page has one panel, two pages per batch, and whose second step is skipped."""
    folder = tmp_path_factory.mktemp("thin")
    data = app_support.write_comics(folder / "data" / "samples", panels=1)
    real = Trainer.train_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_step", lambda t, b, n, c: Outcome.NOT_FINITE if n == 2 else real(t, b, n, c))
        settings = {"batch_pages": 2, "sampler": "shuffled", "learn_temperature": True, "temperature": 0.2}
        app_support.make_run(data / "runs", "first", data, **settings)
    return folder


def curve(app: AppTest, unit: str, name: str) -> list[float]:
    """What the chart with this unit draws under a name."""
    figure = next(f for f in figures(app) if f["layout"]["yaxis"].get("title", {}).get("text") == unit)
    return numbers(next(trace["y"] for trace in figure["data"] if trace.get("name") == name))


def test_steps_without_effect_and_temperatures_of_both_splits_are_drawn(thin, monkeypatch):
    monkeypatch.chdir(thin)
    app = opened("losses")
    assert not app.exception
    assert {"Temperatures", "Learning rate", "Steps without effect"} <= set(titles(app))
    metrics = loaders.entry("samples/first").run.metrics()
    train, val = metrics[metrics["split"] == "train"], metrics[metrics["split"] == "val"]
    assert train["active/silent_batches"].sum() > 0
    assert curve(app, "steps per row", "no signal") == train["active/silent_batches"].tolist()
    assert curve(app, "steps per row", "not finite") == [float(step == 2) for step in train["step"]]
    for term in ("contrastive", "alignment"):
        for split, rows in (("train", train), ("val", val)):
            drawn = curve(app, "temperature τ", f"{term} · {split}")
            assert drawn == pytest.approx(rows[f"temperature/{term}"].tolist())
    assert len(set(val["temperature/alignment"])) > 1
    app.segmented_control(key="losses-kind").set_value("active").run()
    assert curve(app, "batches per row", "no-signal batches · val") == val["active/silent_batches"].tolist()
    assert val["active/silent_batches"].max() > 0
    app.segmented_control(key="losses-by").set_value("epoch").run()
    skipped = curve(app, "steps per row", "not finite")
    assert skipped == [1.0, 0.0, 0.0, 0.0], "summed over the steps of an epoch"


# --- text from data


@pytest.fixture(scope="module")
def wordless(tmp_path_factory):
    """A run on comics without a word, as an import leaves them where nothing read the balloons."""
    folder = tmp_path_factory.mktemp("wordless")
    data = app_support.write_comics(folder / "data" / "samples")
    for path in (data / "panels").rglob("*.json"):
        page = json.loads(path.read_text(encoding="utf-8"))
        for panel in page["panels"]:
            panel.pop("description", None)
            panel.pop("text_content", None)
        path.write_text(json.dumps(page), encoding="utf-8")
    app_support.make_run(data / "runs", "first", data)
    return folder


@pytest.mark.parametrize("view", ALL)
def test_a_view_opens_on_comics_without_a_word(view, wordless, monkeypatch):
    monkeypatch.chdir(wordless)
    assert loaders.result(loaders.entry("samples/first").run)["retrieval/gallery"] == 0
    app = opened(view, run="samples/first")
    assert not app.exception
    assert not app.error
    assert [h.value for h in app.header][:1] == [VIEWS[view][0]]


def test_what_a_running_training_says_of_comics_without_a_word(wordless, monkeypatch):
    monkeypatch.chdir(wordless)
    said: list[str] = []
    monkeypatch.setattr(retrain.shell, "line", said.append)
    retrain._validation(loaders.entry("samples/first").run)
    assert "no panel has image and text" in said[0]


def test_text_from_the_data_is_never_markdown(small, monkeypatch):
    """A label, caption or Markdown element with a page's hostile id or text would be drawn as a link or bold."""
    monkeypatch.chdir(small)
    for view in ALL:
        app = opened(view, page=0, panel=0)
        assert not app.exception
        for element in (*app.markdown, *app.caption, *app.header, *app.subheader, *app.error, *app.warning):
            assert "**bold**" not in element.value
            assert "[x](http:)" not in element.value
