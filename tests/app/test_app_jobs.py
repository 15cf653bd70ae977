"""Training from the explorer: a child process and a folder; found again, canceled, never mixed."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import app_support
import pytest
from streamlit.testing.v1 import AppTest

from app.parts import forms
from app.store import children, jobs, loaders, waiter
from stage3.config import FIELDS, Config, spec_of
from stage3.errors import ConfigError
from stage3.runs import RunFolder, curves

pytestmark = pytest.mark.slow

UI = Path(__file__).parents[2] / "app" / "ui.py"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return app_support.workspace(tmp_path_factory.mktemp("jobs"))


@pytest.fixture
def parent(workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    return loaders.entry("samples/first").run


def wait(run, until, seconds=60.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        job = jobs.read(run)
        if until(job):
            return job
        time.sleep(0.1)
    raise AssertionError(f"{run.name} is {jobs.read(run)} after {seconds} s: {jobs.tail(run)}")


@pytest.mark.usefixtures("new_interpreters")
def test_a_job_trains_the_asked_settings_and_remembers_its_parent(parent):
    run = jobs.start(parent.config.replace(epochs=2, alignment_weight=2.0), "asked", "samples/first")
    job = wait(run, lambda j: not j.is_live)
    assert (job.state, job.parent, job.message) == ("finished", "samples/first", "finished")
    assert run.config.alignment_weight == 2.0
    assert run.config.epochs == 2
    assert run.metrics()["epoch"].max() == 2
    assert "epoch   2/2" in jobs.tail(run)


def test_a_job_is_found_again_from_disk_alone_and_canceled(parent):
    run = jobs.start(parent.config.replace(epochs=5000), "long", "samples/first")
    wait(run, lambda j: j.state == "running" and run.status.step > 3)
    started = dict(children.STARTED)
    children.STARTED.clear()  # as after a restart of the server
    again = next(job for job in jobs.jobs() if job.run.name == "long")
    assert again.is_live
    assert os.getpgid(again.pid) != os.getpgid(0) if hasattr(os, "getpgid") else True
    jobs.cancel(again.run)
    job = wait(run, lambda j: not j.is_live)
    assert job.state == "stopped"
    assert run.checkpoints(), "a canceled run keeps what it learned"
    children.STARTED.update(started)


def end(runs):
    for run in runs:
        if jobs.read(run).is_live:
            jobs.cancel(run)
    for run in runs:
        wait(run, lambda j: not j.is_live)


def test_two_jobs_at_once_do_not_mix_and_a_third_waits_and_starts_by_itself(parent):
    long = parent.config.replace(epochs=5000)
    first, second = jobs.start(long.replace(seed=5), "one"), jobs.start(long.replace(seed=6), "two")
    started = [first, second]
    try:
        for run in (first, second):
            wait(run, lambda j: j.state == "running" and j.run.status.step > 2)
        third = jobs.start(parent.config.replace(epochs=2), "three", "samples/first")
        fourth = jobs.start(long, "four")
        started += [third, fourth]
        for run in (third, fourth):
            wait(run, lambda j: j.state == "queued")
        assert first.metrics()["loss/total"][0] != second.metrics()["loss/total"][0]
        time.sleep(1.0)
        assert [jobs.read(r).state for r in (third, fourth)] == ["queued", "queued"]  # not merely slow to start
        jobs.cancel(fourth)
        job = wait(fourth, lambda j: not j.is_live)
        assert (job.state, job.message) == ("stopped", "canceled before it started")
        assert not fourth.checkpoints()
        jobs.cancel(first)
        assert wait(third, lambda j: not j.is_live).state == "finished"
        assert jobs.read(second).state == "running"
    finally:
        end(started)
    left = [p.name for p in waiter.queue_of(jobs.folder()).iterdir() if not p.name.startswith("place-")]
    assert left == []


def test_of_four_started_in_one_instant_two_train_at_a_time_in_their_order(parent):
    names = [f"burst-{i}" for i in range(4)]
    config = parent.config.replace(epochs=2)
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda n: jobs.start(config, n), names))
    most, end_by = 0, time.monotonic() + 300  # four trainings, two at a time, on a busy machine
    while any(jobs.read(r).is_live for r in runs):
        most = max(most, sum(r.is_live for r in runs))
        assert time.monotonic() < end_by
        time.sleep(0.05)
    assert {jobs.read(r).state for r in runs} == {"finished"}
    assert 1 <= most <= 2


def test_a_dead_waiter_does_not_hold_up_the_others(parent):
    queue = waiter.queue_of(jobs.folder())
    queue.mkdir(parents=True, exist_ok=True)
    (queue / f"{1:020d}-gone").write_bytes(b"{}")  # an older ticket that no process holds
    run = jobs.start(parent.config.replace(epochs=1), "after-the-dead")
    assert wait(run, lambda j: not j.is_live).state == "finished"


def test_one_name_asked_for_six_times_at_once_starts_once_and_five_are_told(parent):
    def ask(_):
        try:
            return jobs.start(parent.config.replace(epochs=1), "same")
        except ConfigError as error:
            return str(error)

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, range(6)))
    runs = [a for a in answers if not isinstance(a, str)]
    assert len(runs) == 1
    assert all("is already a run" in a for a in answers if isinstance(a, str))
    assert wait(runs[0], lambda j: not j.is_live).state == "finished"


def test_a_stopped_job_goes_on_from_its_checkpoint(parent):
    run = jobs.start(parent.config.replace(epochs=400), "pause", "samples/first")
    wait(run, lambda j: j.state == "running" and run.status.step > 3)
    jobs.cancel(run)
    wait(run, lambda j: j.state == "stopped")
    before = run.checkpoints()[-1].step
    jobs.resume(run)
    with pytest.raises(ConfigError, match="already"):
        jobs.resume(run)
    try:
        wait(run, lambda j: j.state == "running" and run.status.step > before)
        assert jobs.read(run).parent == "samples/first"
    finally:
        end([run])
    finished = loaders.entry("runs/after-the-dead").run
    with pytest.raises(ConfigError, match="has finished"):
        jobs.resume(finished)


def test_more_seeds_are_the_same_settings_under_seeds_that_are_free(parent):
    """That such runs are trained is seen above: these are canceled at once."""
    first = jobs.start(parent.config.replace(epochs=1, seed=1, alignment_weight=0.3), "base", "samples/first")
    end([first])
    made = jobs.start_seeds(first, 2, "samples/first")
    end(made)
    assert [r.config.seed for r in made] == [0, 2]
    assert [r.name for r in made] == ["base-seed0", "base-seed2"]
    more = jobs.start_seeds(made[1], 1)
    end(more)
    assert (more[0].config.seed, more[0].name) == (3, "base-seed3")
    groups = curves.seed_groups({r.name: r.config for r in (first, *made, *more, parent)})
    assert groups == [["base-seed0", "base", "base-seed2", "base-seed3"]]


def test_a_trainer_that_ignores_the_request_is_ended(parent, monkeypatch):
    run = jobs.start(parent.config.replace(epochs=5000), "deaf")
    wait(run, lambda j: j.state == "running" and run.status.step > 2)
    record = run.read_json("job")
    run.write_json("job", {**record, "cancelled": time.time() - 100})  # asked long ago; no STOP file
    jobs.press(run)
    job = wait(run, lambda j: not j.is_live)
    assert job.state == "failed"
    assert "the process died" in job.message


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "-rf", "x" * 61, "a b", "nul\0", ".hidden"])
def test_a_name_that_is_no_plain_word_is_refused(parent, name):
    with pytest.raises(ConfigError, match="cannot name a run"):
        jobs.start(parent.config, name)


def test_a_taken_name_is_refused_and_the_run_is_left_alone(parent):
    settings = RunFolder.create(jobs.folder() / "taken", parent.config.replace(lr=0.5)).path / "config.yaml"
    before = settings.read_bytes()
    with pytest.raises(ConfigError, match="is already a run"):
        jobs.start(parent.config, "taken")
    assert settings.read_bytes() == before


def test_a_trainer_that_cannot_start_says_why(parent):
    run = jobs.start(parent.config.replace(vision_backbone="no-such-backbone"), "broken")
    job = wait(run, lambda j: not j.is_live)
    assert job.state == "failed"
    assert "no-such-backbone" in job.message


def test_the_command_makes_the_same_settings():
    config = Config(
        data="my data/it's", epochs=3, detach_target=False, keep_labels=("story", "cover"), temperature=0.05
    )
    import shlex

    from stage3.cli import Parser, settings_from

    words = shlex.split(jobs.command(config, "x"))
    parser = Parser("train", "", ())
    parser.add_argument("--run")
    parser.add_settings()
    assert settings_from(parser.parse(words[3:])) == config


@pytest.mark.parametrize("name", [*forms.WEIGHTS, "contrastive_temperature", "alignment_temperature"])
def test_sliders_stay_inside_the_declared_range(name):
    spec = spec_of(name)
    positions = forms.stops(name, FIELDS[name].default)
    assert FIELDS[name].default in positions
    assert min(positions) >= spec.low
    assert max(positions) <= spec.high
    for value in positions:
        Config(**{name: value, "contrastive_weight": 1.0} if name != "contrastive_weight" else {name: value})


# --- the view


def opened(**params: str) -> AppTest:
    app = AppTest.from_file(str(UI), default_timeout=60)
    for name, value in {"view": "retrain", **params}.items():
        app.query_params[name] = value
    return app.run()


def said(app: AppTest) -> str:
    return "\n".join(str(e.value) for kind in (app.text, app.code, app.subheader) for e in kind)


def test_the_form_starts_from_the_run_and_says_what_changes(parent):
    app = opened()
    assert app.select_slider(key="retrain-samples/first-alignment_weight").value == parent.config.alignment_weight
    assert "Nothing has changed" in said(app)
    app.select_slider(key="retrain-samples/first-alignment_weight").set_value(3.0).run()
    assert "alignment_weight: 1 → 3" in said(app)
    assert "--alignment_weight 3.0" in said(app)
    app.toggle(key="retrain-samples/first-linked").set_value(False).run()
    app.select_slider(key="retrain-samples/first-alignment_temperature").set_value(0.2).run()
    assert "alignment_temperature: 0.07 → 0.2" in said(app)
    assert "contrastive_temperature:" not in said(app)


@pytest.mark.parametrize("typed", ["nan", "abc", "-1", "1e9", ""])
def test_a_refused_setting_is_said_in_the_settings_own_words_and_cannot_start(parent, typed):
    app = opened()
    app.text_input(key="retrain-samples/first-lr").set_value(typed).run()
    assert not app.exception
    assert "lr:" in said(app)
    assert "retrain-start" not in [b.key for b in app.button]
    app.text_input(key="retrain-samples/first-lr").set_value("0.01").run()
    assert "retrain-start" in [b.key for b in app.button]


def test_press_train_watch_it_and_see_the_difference(parent):
    app = opened()
    app.text_input(key="retrain-samples/first-epochs").set_value("3").run()
    app.button(key="retrain-start").click().run()
    assert not app.exception
    job = app.query_params["job"]
    run = loaders.entry(job[0] if isinstance(job, list) else job).run
    wait(run, lambda j: not j.is_live)
    app = opened(job=f"runs/{run.name}")
    changed = next(d.value for d in app.dataframe if list(d.value.columns) == ["setting", "before", "now"])
    assert changed.to_dict("records") == [{"setting": "epochs", "before": "4", "now": "3"}]
    assert json.loads((run.path / "job.json").read_text(encoding="utf-8"))["parent"] == "samples/first"


def test_everything_means_the_features_are_computed_again(parent):
    app = opened()
    app.segmented_control(key="retrain-samples/first-what").set_value("Everything").run()
    assert "--recompute_features true" in said(app)
