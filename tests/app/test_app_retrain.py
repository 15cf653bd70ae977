"""Retrain's form and the strip of jobs: what a switch means, what a reload keeps, what can be pressed where."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import app_support
import pytest
from streamlit.testing.v1 import AppTest

from app.parts import forms, retrain_form
from app.store import children, embeds, jobs, loaders
from stage3.config import FIELDS, Config
from stage3.errors import ConfigError
from stage3.runs import RunFolder

pytestmark = pytest.mark.slow
UI = Path(__file__).parents[2] / "app" / "ui.py"
FIRST = "retrain-samples/first"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = app_support.workspace(tmp_path_factory.mktemp("retrain"))
    app_support.write_comics(folder / "data" / "others", books=6, pages=3, panels=3, seed=9)
    return folder


@pytest.fixture(autouse=True)
def here(workspace, monkeypatch):
    monkeypatch.chdir(workspace)


def opened(view: str = "retrain", **params: str) -> AppTest:
    app = AppTest.from_file(str(UI), default_timeout=60)
    for name, value in {"view": view, **params}.items():
        app.query_params[name] = value
    return app.run()


def said(app: AppTest) -> str:
    return "\n".join(str(e.value) for kind in (app.text, app.code, app.subheader, app.markdown) for e in kind)


def param(app: AppTest, name: str) -> str:
    value = app.query_params.get(name, "")
    return value[0] if isinstance(value, list) else value


# --- the form


def ablations():
    return [n for n in forms.group(of="ablations") if isinstance(FIELDS[n].default, bool)]


def test_every_ablation_switch_is_off_for_the_corrected_variant_and_on_deviates():
    app = opened()
    for name in ablations():
        assert app.toggle(key=f"{FIRST}-{name}").value is False, name
        assert app.toggle(key=f"{FIRST}-{name}").label == forms.DEVIATIONS[name]
    for name in ("detach_target", "batch_means"):  # one whose default is true, one whose default is false
        app.toggle(key=f"{FIRST}-{name}").set_value(True).run()
        was, now = FIELDS[name].default, not FIELDS[name].default
        assert f"{name}: {str(was).lower()} → {str(now).lower()}" in said(app)
        app.toggle(key=f"{FIRST}-{name}").set_value(False).run()
    assert "Nothing has changed" in said(app)


def test_a_run_that_deviates_shows_its_switches_on(workspace):
    run = RunFolder.create(workspace / "runs" / "faulty", loaders.entry("samples/first").run.config.replace(
        detach_target=False, residual_leak=True))  # fmt: skip
    app = opened(run="runs/faulty")
    on = {n for n in ablations() if app.toggle(key=f"retrain-runs/faulty-{n}").value}
    assert on == {"detach_target", "residual_leak"}
    assert run.config.detach_target is False


def test_a_reload_keeps_what_was_typed():
    app = opened()
    app.select_slider(key=f"{FIRST}-alignment_weight").set_value(3.0).run()
    app.text_input(key=f"{FIRST}-lr").set_value("0.02").run()
    app.toggle(key=f"{FIRST}-detach_target").set_value(True).run()
    kept = param(app, "set")
    again = opened(run="samples/first", set=kept)
    assert again.select_slider(key=f"{FIRST}-alignment_weight").value == 3.0
    assert again.text_input(key=f"{FIRST}-lr").value == "0.02"
    assert again.toggle(key=f"{FIRST}-detach_target").value is True
    assert "lr: 0.01 → 0.02" in said(again)
    assert param(again, "set") == kept


@pytest.mark.parametrize(
    "asked",
    ["lr:nan", "nothing:1", "data:%2Fetc", "manifest:%2Fetc%2Fpasswd", "cache_dir:%2Ftmp", "epochs", "lr:1e99;seed:2"],
)
def test_a_bad_address_is_said_and_changes_nothing(asked):
    app = opened(run="samples/first", set=asked)
    assert not app.exception
    assert "The address asks for settings that are refused" in said(app)
    assert app.text_input(key=f"{FIRST}-lr").value == "0.01"
    assert "Nothing has changed" in said(app)


def test_an_address_gives_back_every_kind_of_setting():
    base = Config(data="data/samples")
    changed = base.replace(
        seed=5, lr=0.5, keep_labels=("story",), sampler="book", detach_target=False, alignment_temperature=0.3
    )
    assert retrain_form.from_address(base, retrain_form.to_address(base, changed)) == (changed, "")
    assert retrain_form.to_address(base, base) == ""


def test_another_data_set_can_be_chosen_and_is_trained_on(workspace):
    app = opened()
    choice = app.selectbox(key=f"{FIRST}-data")
    assert len(choice.options) == 2
    choice.set_value("data/others").run()
    assert "data/others" in said(app)
    assert "Duration unknown: no run on this data" in said(app)
    app.text_input(key=f"{FIRST}-epochs").set_value("1").run()
    app.button(key="retrain-start").click().run()
    run = loaders.entry(param(app, "job")).run
    until(lambda: not jobs.read(run).is_live)
    assert jobs.read(run).state == "finished"
    assert run.config.data == "data/others"
    assert run.read_json("data")["pages"] == 18
    app = opened(job=f"runs/{run.name}")
    assert "Not compared panel by panel: the two runs are of different data" in said(app)
    assert any("untrained" in d.value.columns for d in app.dataframe)


def until(done, seconds=90.0):
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_few_validation_pages_are_named_before_training(workspace):
    small = app_support.write_comics(workspace / "data" / "few", books=4, pages=3, panels=3, seed=4)
    app = opened(run="samples/first")
    assert "two models differ by chance" in said(app)  # 20 panels with image and text
    app.selectbox(key=f"{FIRST}-data").select("data/few").run()
    assert "whether a model is better cannot be told from fewer than 6 pages" in said(app)
    shutil.rmtree(small)


def test_embed_only_writes_a_store_of_the_chosen_data_by_this_runs_model(workspace):
    from stage3.embed import verify

    app = opened()
    app.selectbox(key=f"{FIRST}-data").set_value("data/others").run()
    app.button(key="retrain-embed").click().run()
    assert not app.exception
    until(lambda: embeds.embeds()[0].state != "running")
    made = embeds.embeds()[0]
    assert (made.state, made.run, made.data) == ("finished", "first", "data/others"), made.log
    assert verify(made.out, lambda _: None) == []
    app = opened()
    assert str(made.out) in said(app)


# --- the strip


@pytest.fixture
def training():
    config = loaders.entry("samples/first").run.config
    runs = [jobs.start(config.replace(epochs=5000, seed=s), f"long-{s}", "samples/first") for s in (4, 5, 6)]
    until(lambda: [jobs.read(r).state for r in runs].count("running") == 2)
    until(lambda: [jobs.read(r).state for r in runs].count("queued") == 1)
    if sys.platform == "linux":  # it is enough that they live: a core for each would be lacking elsewhere
        for run in runs:
            if jobs.read(run).state == "running":
                os.killpg(jobs.read(run).pid, signal.SIGSTOP)
    yield runs
    for run in runs:
        if jobs.read(run).is_live:
            children.end(jobs.read(run).pid, jobs.MODULE, hard=True)
    until(lambda: not any(jobs.read(r).is_live for r in runs))
    for run in runs:
        shutil.rmtree(run.path)


def test_every_view_lists_all_live_jobs_with_cancel_and_a_stopped_one_with_resume(training):
    for view in ("losses", "data", "runs"):
        app = opened(view)
        assert {b.key for b in app.button if b.key and b.key.startswith("strip-cancel")} == {
            f"strip-cancel-{r.name}" for r in training
        }
        assert "waits until fewer than 2 runs train" in said(app)
    waiting = next(r for r in training if jobs.read(r).state == "queued")
    app.button(key=f"strip-cancel-{waiting.name}").click().run()
    until(lambda: jobs.read(waiting).state == "stopped")
    app = opened("losses")
    assert f"strip-resume-{waiting.name}" in {b.key for b in app.button}
    app.button(key=f"strip-resume-{waiting.name}").click().run()
    until(lambda: jobs.read(waiting).state == "queued")
    app = opened("losses")
    assert f"strip-cancel-{waiting.name}" in {b.key for b in app.button}


def test_a_stopped_job_can_be_put_away(training):
    waiting = next(r for r in training if jobs.read(r).state == "queued")
    jobs.cancel(waiting)
    until(lambda: jobs.read(waiting).state == "stopped")
    app = opened("losses")
    app.button(key=f"strip-hide-{waiting.name}").click().run()
    assert f"strip-resume-{waiting.name}" not in {b.key for b in app.button}


def test_a_taken_name_is_refused_in_one_line(workspace):
    if not (workspace / "runs" / "faulty").exists():
        RunFolder.create(workspace / "runs" / "faulty", loaders.entry("samples/first").run.config)
    with pytest.raises(ConfigError, match="is already a run"):
        jobs.start(Config(data="data/samples"), "faulty")
