"""What runs are worth, on screen: which pages and gallery, chance and interval; two runs compared without illusions."""

from __future__ import annotations

from pathlib import Path

import app_images
import app_support
import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app.charts import worth
from app.parts import compared, results
from app.store import loaders
from stage3.evaluate import Comparison, compare_runs, evaluation_report
from stage3.evaluate.between import BETTER, NOISE, NOT, WORSE

pytestmark = pytest.mark.slow
UI = Path(__file__).parents[2] / "app" / "ui.py"


def opened(view: str, **params: object) -> AppTest:
    app = AppTest.from_file(str(UI), default_timeout=60)
    app.query_params["view"] = view
    for name, value in params.items():
        app.query_params[name] = str(value)
    return app.run()


def said(app: AppTest) -> str:
    return "\n".join(str(e.value) for kind in (app.text, app.code, app.subheader, app.markdown) for e in kind)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Five-panel pages with textless panels, and runs whose weights, temperatures, seeds and lengths differ."""
    folder = app_support.workspace(tmp_path_factory.mktemp("world"), books=10, pages=5, panels=5, epochs=6)
    data = folder / "data" / "samples"
    app_support.make_run(folder / "runs", "warm", data, temperature=0.4, seed=2, epochs=6)
    app_support.make_run(folder / "runs", "heavy", data, alignment_weight=4.0, epochs=6)
    app_support.make_run(
        folder / "runs", "short", data, epochs=3, lr=0.004, seed=3, checkpoint_every=7, max_minutes=3.0
    )
    return folder


@pytest.fixture(autouse=True)
def here(world, monkeypatch):
    monkeypatch.chdir(world)


def report_of(name: str) -> dict:
    run = loaders.entry(name).run
    report = evaluation_report(run, data=loaders.open_dataset(run))
    assert report["retrieval/i2t_r5"] != report["retrieval/t2i_r5"]  # or a swap could not be seen
    return report


def test_the_card_has_each_metric_under_its_name_with_interval_chance_and_baselines():
    report = report_of("runs/heavy")
    table = results_table(opened("runs", pick="runs/heavy", run="runs/heavy"))
    for label, metric in (
        ("R@5 image → text", "retrieval/i2t_r5"),
        ("R@5 text → image", "retrieval/t2i_r5"),
        ("Same-page precision", "retrieval/same_page_r_precision"),
    ):
        low, high = report["intervals"][metric]
        row = table.loc[label]
        assert row["value"] == f"{100 * report[metric]:.1f} %"
        assert row["interval"] == f"{100 * low:.1f} % to {100 * high:.1f} %"
        assert row["chance"] == f"{100 * report['chance'][metric]:.1f} %"
        assert row["untrained"] == f"{100 * report['baselines']['untrained'][metric]:.1f} %"
    main = "retrieval/same_page_r_precision"
    assert table.loc["Same-page precision", "frozen"] == f"{100 * report['baselines']['frozen'][main]:.1f} %"
    assert table.loc["R@5 image → text", "frozen"] == "–"


def results_table(app: AppTest):
    return next(d.value for d in app.dataframe if "untrained" in d.value.columns).set_index("metric")


def test_it_says_on_what_it_was_measured_and_what_training_added():
    report = report_of("runs/heavy")
    words = said(opened("runs", pick="runs/heavy"))
    assert (
        f"Test pages: {report['panels']} panels of {report['pages']} pages; R@5 among the {report['gallery']}" in words
    )
    assert report["added"]["sentence"][1:] in words
    assert report["gallery"] < report["panels"]


def test_the_bar_says_which_value_it_shows_and_prefers_test_pages(world):
    run = loaders.entry("runs/short").run
    for kept in run.path.glob("evaluation-*.json"):
        kept.unlink()
    best = run.best()
    assert worth.headline(run) == (
        f"Validation, which chose the checkpoint: same-page precision {100 * best.value:.1f} %"
    )
    opened("runs", pick="runs/short", run="runs/short")  # measures
    report = report_of("runs/short")
    value, (low, high) = report[best.metric], report["intervals"][best.metric]
    assert abs(value - best.value) > 1e-3
    line = worth.headline(run)
    assert line == (
        f"Test: same-page precision {100 * value:.1f} % [{100 * low:.1f} %, {100 * high:.1f} %], "
        f"chance {100 * report['chance'][best.metric]:.1f} %, {report['panels']} panels"
    )
    assert line in said(opened("losses", run="runs/short"))  # a view that reads no data


def test_the_bar_names_the_test_value_in_the_view_that_measures_it(world):
    run = loaders.entry("runs/warm").run
    for kept in run.path.glob("evaluation-*.json"):
        kept.unlink()
    assert "Test: same-page precision" in said(opened("runs", pick="runs/warm", run="runs/warm"))


def test_the_table_lists_what_chose_the_checkpoints_and_directions_are_not_swapped():
    app = opened("runs")
    table = next(d.value for d in app.dataframe if "same_page" in d.value.columns).set_index("run")
    for name in ("samples/first", "runs/warm", "runs/heavy", "runs/short"):
        run = loaders.entry(name).run
        rows = run.metrics()
        at_best = rows[(rows["split"] == "val") & (rows["step"] == run.best().step)].iloc[0]
        assert table.loc[name, "same_page"] == pytest.approx(100 * run.best().value)
        assert table.loc[name, "i2t"] == pytest.approx(100 * at_best["retrieval/i2t_r5"])
        assert table.loc[name, "t2i"] == pytest.approx(100 * at_best["retrieval/t2i_r5"])
        assert table.loc[name, "gallery"] == at_best["retrieval/gallery"]


def test_a_run_whose_data_is_gone_shows_validation_and_says_so(world):
    import shutil

    app_support.make_run(world / "runs", "moved", world / "data" / "samples", epochs=1)
    run = loaders.entry("runs/moved").run
    gone = {"data": str(world / "elsewhere"), "cache_dir": str(world / "no cache")}
    run.write_config(run.config.replace(**gone))
    try:
        app = opened("runs", pick="runs/moved", run="runs/moved")
        assert not app.exception
        values = loaders.result(run)
        shown = {m.label: m.value for m in app.metric}
        assert shown["R@5 image → text"] == f"{100 * values['retrieval/i2t_r5']:.1f} %"
        assert shown["R@5 text → image"] == f"{100 * values['retrieval/t2i_r5']:.1f} %"
        assert f"Validation pages, {values['retrieval/gallery']:.0f} panels with image and text" in said(app)
    finally:
        shutil.rmtree(run.path)


# --- two runs


def compared_table(app: AppTest):
    return next(d.value for d in app.dataframe if "verdict" in d.value.columns).set_index("metric")


def test_two_runs_show_the_paired_differences_of_test_pages_with_their_signs():
    app = opened("runs", pick="runs/short", **{"with": "samples/first"})
    first, second = (loaders.entry(n).run for n in ("runs/short", "samples/first"))
    found = compare_runs(first, second).table.set_index("metric")
    table = compared_table(app)
    for label, metric in (
        ("R@5 image → text", "retrieval/i2t_r5"),
        ("R@5 text → image", "retrieval/t2i_r5"),
        ("Same-page precision", "retrieval/same_page_r_precision"),
    ):
        row = found.loc[metric]
        reports = [evaluation_report(r, data=loaders.open_dataset(r))[metric] for r in (first, second)]
        assert [row["first"], row["second"]] == pytest.approx(reports)
        assert row["difference"] == pytest.approx(reports[1] - reports[0])
        assert table.loc[label, "first"] == f"{100 * row['first']:.1f} %"
        assert table.loc[label, "second"] == f"{100 * row['second']:.1f} %"
        points = [f"{100 * row[n]:+.1f}".replace("-", "−") for n in ("difference", "low", "high")]
        assert table.loc[label, "difference"] == f"{points[0]} [{points[1]}, {points[2]}]"
        assert row["verdict"] in table.loc[label, "verdict"]
    for label, metric in (
        ("Alignment, image → text", "loss/alignment_i2t"),
        ("Alignment, text → image", "loss/alignment_t2i"),
    ):
        points = [f"{found.loc[metric, n]:+.3f}".replace("-", "−") for n in ("difference", "low", "high")]
        assert table.loc[label, "difference"] == f"{points[0]} [{points[1]}, {points[2]}]"
    assert table.loc["Alignment, image → text", "difference"] != table.loc["Alignment, text → image", "difference"]
    assert "Test pages that neither run was trained on" in said(app)


def test_temperatures_and_weights_forbid_what_they_change():
    table = compared_table(opened("runs", pick="samples/first", **{"with": "runs/warm"}))
    for label in ("Contrastive", "Alignment", "Total loss"):
        assert table.loc[label, "verdict"] == "not comparable: τ changed"
        assert table.loc[label, "difference"] == "–"
    assert "not comparable" not in table.loc["Reconstruction", "verdict"]
    app = opened("runs", pick="samples/first", **{"with": "runs/heavy"})
    table = compared_table(app)
    assert table.loc["Total loss", "verdict"] == "not comparable: weights changed"
    assert "not comparable" not in table.loc["Contrastive", "verdict"]
    assert "The total losses are not comparable: weights changed." in said(app)


def test_the_settings_that_differ_are_those_that_a_person_changed():
    app = opened("runs", pick="samples/first", **{"with": "runs/short"})
    changed = next(d.value for d in app.dataframe if list(d.value.columns) == ["setting", "first", "second"])
    assert set(changed["setting"]) == {"epochs", "lr", "seed"}  # not checkpoint_every, max_minutes
    assert {"card-pair", "card-differences", "card-curves"} <= app_images.containers(app)


def a_comparison(verdict: str, difference: float, metric: str, why: str = "") -> Comparison:
    import pandas as pd

    row = {"metric": metric, "first": 0.5, "second": 0.5 + difference, "difference": difference}
    row |= {"low": difference - 0.01, "high": difference + 0.01, "verdict": verdict, "why": why}
    return Comparison(pd.DataFrame([row]), "test", 10, 8, 6)


@pytest.mark.parametrize(
    ("verdict", "difference", "metric", "expected"),
    [
        (BETTER, 0.1, "retrieval/i2t_r5", {"delta": "+10.0 points", "delta_color": "normal"}),
        (WORSE, -0.1, "retrieval/i2t_r5", {"delta": "-10.0 points", "delta_color": "normal"}),
        (BETTER, -0.1, "loss/contrastive", {"delta": "-0.100", "delta_color": "inverse"}),
        (WORSE, 0.1, "loss/contrastive", {"delta": "+0.100", "delta_color": "inverse"}),
    ],
)
def test_an_arrow_has_a_color_where_the_interval_excludes_zero(verdict, difference, metric, expected):
    assert compared.delta(a_comparison(verdict, difference, metric), metric) == expected


def test_noise_is_gray_and_what_cannot_be_compared_has_no_number():
    found = compared.delta(a_comparison(NOISE, 0.006, "retrieval/t2i_r5"), "retrieval/t2i_r5")
    assert (found["delta_color"], found["delta_arrow"], found["delta_description"]) == ("off", "off", NOISE)
    found = compared.delta(a_comparison(NOT, np.nan, "loss/total", "weights changed"), "loss/total")
    assert (found["delta"], found["delta_color"]) == ("not comparable: weights changed", "off")
    assert compared.delta(a_comparison(NOISE, 0.0, "loss/total"), "retrieval/i2t_r5") == {}


# --- health


def test_health_is_three_lamps_and_the_frozen_features():
    run = loaders.entry("runs/short").run
    app = opened("runs", pick="runs/short", run="runs/short")
    words = said(app)
    lamps = loaders.diagnosis(run).lamps
    assert list(lamps) == ["panels differ", "page mates show", "image and text match"]
    lines = [t.value for t in app.text]
    badges = [m.value for m in app.markdown if "-badge[" in m.value]
    shown = badges[-4:]  # after the state and the best step
    color = {"good": "green", "bad": "red", "cannot tell": "gray"}
    for lamp, badge in zip(lamps.values(), shown, strict=False):
        assert badge.startswith(f":{color[lamp]}-badge[")
        assert lamp in badge
    assert [f"{q[0].upper()}{q[1:]}" for q in lamps] == [t for t in lines if t.lower() in lamps]
    assert "healthy" not in words.lower() or lamps["image and text match"] == "good"


def test_a_report_line_names_the_split():
    report = report_of("samples/first")
    assert results.basis(report | {"split": "val"}).startswith("Validation pages, which chose the checkpoint: ")
    assert results.basis(report).startswith("Test pages: ")


# --- typed words on a run that cannot know


def test_words_on_a_run_at_chance_say_so_and_on_one_above_chance_do_not(world):
    from app.parts import doubt
    from stage3.storage import read_json

    run = loaders.entry("runs/heavy").run
    loaders.evaluation(run)
    path = run.path / "evaluation-test.json"
    kept = read_json(path)
    found = kept["report"]["chance"]["retrieval/mean_r5"]
    for low, at_chance in ((found + 0.01, False), (found - 0.01, True)):
        kept["report"]["intervals"]["retrieval/mean_r5"] = [low, 1.0]
        run.write_json("evaluation-test", kept)
        assert ("no better than chance" in doubt.of_words(run)) is at_chance
    app = opened("search", run="runs/heavy", q="a red circle")
    assert f"no better than chance (R@5 {100 * kept['report']['retrieval/mean_r5']:.1f} %" in said(app)
    path.unlink()


def test_tiny_backbones_on_comics_that_were_not_drawn_by_us_say_so(world):
    from app.parts import doubt

    run = loaders.entry("samples/first").run
    about = world / "data" / "samples" / "dataset.yaml"
    loaders.evaluation(run)
    assert "no better than chance" not in doubt.of_words(run)
    assert "tiny text backbone" in doubt.of_words(run)
    before = about.read_text(encoding="utf-8")
    facts = about.with_name("facts.jsonl.gz")  # only the samples come with their ground truth
    facts.touch()
    about.write_text(before + f"facts: {facts.name}\n", encoding="utf-8")
    try:
        assert doubt.of_words(run) == ""
    finally:
        about.write_text(before, encoding="utf-8")
        facts.unlink()
