"""Details of views on the adversarial world: each number and word on the screen beside the name that it belongs to."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import app_images
import app_support
import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from app.charts.names import metric_name
from app.store import loaders, map_jobs
from app.views import map as map_view
from stage3.config import FIELDS, spec_of
from stage3.diagnose import VERDICTS

pytestmark = pytest.mark.slow
UI = Path(__file__).parents[2] / "app" / "ui.py"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return app_support.world(tmp_path_factory.mktemp("shown"))


@pytest.fixture(autouse=True)
def here(world, monkeypatch):
    monkeypatch.chdir(world)
    monkeypatch.setattr(map_jobs, "ensure", lambda *_, **__: map_jobs.Job("running"))  # no child is started


def opened(view: str, state: dict[str, object] | None = None, **params: object) -> AppTest:
    app = AppTest.from_file(str(UI), default_timeout=60)
    for name, value in {"view": view, **params}.items():
        app.query_params[name] = str(value)
    for name, value in (state or {}).items():
        app.session_state[name] = value
    app.run()
    assert not app.exception
    for shown in app.dataframe:
        columns = json.loads(shown.proto.columns)
        # positions in a table mean nothing to a reader
        assert columns.get("_index", {}).get("hidden"), list(shown.value.columns)
        for name, how in columns.items():  # a bar that is full or empty whatever the number would be no bar
            kind = how.get("type_config", {})
            if kind.get("type") == "progress" and shown.value[name].notna().any():
                assert shown.value[name].between(kind["min_value"], kind["max_value"]).any(), name
    assert not app_images.undecided(app)
    return app


def table(app: AppTest, *columns: str) -> pd.DataFrame:
    return next(d.value for d in app.dataframe if set(columns) <= set(d.value.columns))


def decoded(value: object) -> np.ndarray:
    if isinstance(value, dict):
        return np.frombuffer(base64.b64decode(value["bdata"]), dtype=value["dtype"])
    return np.asarray(value)


def component(app: AppTest, key: str) -> dict:
    found = [c for c in app.get("bidi_component") if f"-{key}-" in c.proto.id or c.proto.id.endswith(f"-{key}")]
    return json.loads(found[0].proto.json)


def test_a_run_shows_its_settings_its_log_its_versions_and_why_it_failed():
    run = loaders.entry("runs/second").run
    (run.path / "train.log").write_text("one\nstep 9 of nine\n", encoding="utf-8")
    before = run.status
    run.set_status("failed", message="the disk is full")
    try:
        app = opened("runs", {"settings-open": True, "files-open": True}, pick="runs/second", run="runs/other")
    finally:
        run.set_status(before.state, message=before.message)
        (run.path / "train.log").unlink()
    codes = [c.value for c in app.code]
    assert "the disk is full" in codes
    assert any("step 9 of nine" in code for code in codes)
    found, texts = loaders.diagnosis(run), [t.value for t in app.text]
    assert f"{found.verdict[0].upper()}{found.verdict[1:]}: {VERDICTS[found.verdict]}." in texts
    assert [f"–  {reason}" in texts for reason in found.reasons] == [True] * len(found.reasons)
    assert {f"{question[0].upper()}{question[1:]}" for question in found.lamps} <= set(texts)
    shown = table(app, "setting", "value", "changed").set_index("setting")
    config = run.config.to_dict()
    assert set(shown.index) == set(config)
    default = {n: FIELDS[n].default if n in FIELDS else None for n in config}
    for name in ("seed", "epochs", "lr", "alignment_weight", "alignment_temperature", "test_fraction"):
        assert (shown["value"][name], shown["changed"][name]) == (str(config[name]), True), name
        assert config[name] != default[name]
    for name in ("weight_decay", "grad_clip"):
        assert (shown["value"][name], shown["changed"][name]) == (str(default[name]), False), name
    assert shown["changed"].tolist() == sorted(shown["changed"], reverse=True)  # what a person changed comes first
    groups = [spec_of(name).group for name in ("lr", "test_fraction")]
    assert shown["group"][["lr", "test_fraction"]].tolist() == groups
    assert groups[0] != groups[1]
    assert shown["meaning"]["lr"] == spec_of("lr").help
    environment = run.read_json("environment")
    facts = table(app, "", "value").set_index("")["value"]
    assert facts["torch"] == environment["versions"]["torch"]
    assert facts["python"] == str((environment | environment["versions"])["python"])


def test_cards_of_a_selection_are_turned_page_by_page():
    app = opened("map", tab="selection", lasso="pca:-9,-9;9,-9;9,9;-9,9")
    rows = loaders.embedded(loaders.entry("samples/first").run).rows.numpy()
    frame = loaders.panel_frame(loaders.entry("samples/first").run)
    version = loaders.data_version(loaders.entry("samples/first").run)
    hover = component(app, f"hover-{map_view.CHART}")
    assert (hover["panel"], hover["side"]) == (["/images/panel/samples/first/", f"/240?v={version}"], 240)
    assert hover["page"] == ["/images/page/samples/first/", f"/360?v={version}"]
    (pages,) = app.get("pagination")
    assert pages.proto.num_pages == 11  # of 122 panels, 12 to a page
    for at in (1, 2):
        if at == 2:
            app.session_state["map-selection-page"] = 2
            app.run()
        items = component(app, "map-selection-cards")["items"]
        assert [i["row"] for i in items] == rows[12 * (at - 1) : 12 * at].tolist()
        for item in items:
            panel = frame.loc[item["row"]]
            ranks = ["–" if np.isnan(panel[f"rank_{way}"]) else f"{panel[f'rank_{way}']:.0f}" for way in ("i2t", "t2i")]
            assert item["note"].startswith(f"rank {ranks[0]} / {ranks[1]} · loss ")
            assert item["text"] == f"{panel['page_id']} · {panel['order'] + 1}"
            assert item.get("bare", False) == (not panel["has_box"])


def test_a_pair_of_runs_is_drawn_with_the_units_of_each_metric():
    app = opened("runs", {"pair-validation": True}, pick="runs/second", **{"with": "samples/first"})
    layouts = {c.proto.id.rpartition("pair-")[2]: json.loads(c.proto.spec)["layout"] for c in app.get("plotly_chart")}
    shares = {key: layout["yaxis"].get("tickformat") == ".0%" for key, layout in layouts.items()}
    assert shares.pop("loss/total", False) is False
    assert shares == {"retrieval/same_page_r_precision": True, "retrieval/mean_r5": True}
    titles = {s.value for s in app.subheader}
    for key in shares:
        assert metric_name(key) in titles
        traces = next(json.loads(c.proto.spec)["data"] for c in app.get("plotly_chart") if c.proto.id.endswith(key))
        for name in ("runs/second", "samples/first"):
            metrics = loaders.metrics(loaders.entry(name).run)
            drawn = next(t for t in traces if name in t["name"])
            own = metrics[metrics["split"] == "val"][key].dropna().tolist()
            np.testing.assert_allclose(decoded(drawn["y"]), own, atol=1e-6)


def test_a_map_is_compared_with_the_runs_and_steps_that_are_there(monkeypatch):
    run, every = loaders.entry("samples/first").run, loaders.steps
    best = loaders.resolve_step(run, None)
    two = sorted({best, next(s for s in every(run) if s != best)})
    # a run with one checkpoint is compared, but not with itself
    monkeypatch.setattr(loaders, "steps", lambda run: two if run.name == "first" else every(run)[-1:])
    app = opened("map", mode="two", **{"with": "samples/first"})
    box = app.selectbox(key="map_with")
    assert sorted(box.options) == ["runs/other", "runs/second", "samples/first"]
    assert box.value == "samples/first"
    checkpoint = next(s for s in app.selectbox if s.label == "Checkpoint" and s.key != "_step_choice")
    assert checkpoint.options == [f"step {s}" for s in two if s != best]
    texts = [t.value for t in app.text]
    assert f"samples/first  ·  step {best}" in texts
    assert f"samples/first  ·  step {checkpoint.value}" in texts
    alone = opened("map", mode="two", run="runs/second", **{"with": "runs/second"})
    assert sorted(alone.selectbox(key="map_with").options) == ["runs/other", "samples/first"]
    assert "with=runs/second in the address is no other run" in " ".join(t.value for t in alone.text)
    kept = app.metric[0].proto.help
    assert f"Mean share of the 15 nearest panels that both have; {100 * 15 / 121:.1f} % by chance" == kept
