"""The Evidence view by content: on a small made folder, a damaged one, an empty one, and what ships."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import os
import shutil
from pathlib import Path

import app_images
import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from app.charts import evidence as charts
from app.charts import theme
from app.store import evidence as files
from app.store import loaders
from app.views import evidence as view
from app.views import evidence_more
from stage3.ablate.evidence import Row, difference

pytestmark = pytest.mark.slow

UI = Path(__file__).parents[2] / "app" / "ui.py"
SHIPPED = loaders.PROJECT / files.SHIPPED
EVIL = "<b>bold</b> [x](http:)"
R5, PAGE = "retrieval/mean_r5", "retrieval/same_page_r_precision"


def row(**changed: object) -> Row:
    values = {"finding": "F4", "title": "Weights", "question": EVIL, "comparison": 2, "fixed": "alignment 1"}
    values |= {"reviewed": "original weights", "metric": R5, "label": "R@5, both ways", "fixed_mean": 0.66}
    values |= {"reviewed_mean": 0.53, "difference": 0.13, "low": 0.08, "high": 0.17, "seeds": 3, "verdict": "helps"}
    values |= {"expected": "", "headline": True, "main": True, "half_fix": False, "measured_at": "best"}
    values |= {"command": "python -m stage3.ablate --findings F4 --seeds 3", "fixed_command": "train a"}
    return Row(**(values | {"reviewed_command": "train b"} | changed))  # type: ignore[arg-type]


ROWS = [
    row(),
    row(metric=PAGE, label="same-page precision", headline=False, main=False, verdict="no effect here", low=-0.01),
    row(finding="F3", comparison=0, verdict="hurts", difference=-0.09, low=-0.12, high=-0.06, expected="helps"),
    row(finding="F6", comparison=1, main=False, verdict="no effect here", difference=0.0, low=-0.1, high=0.1),
]


def curve(arm: str, metric: str, means: list[float], split: str = "val") -> list[dict[str, object]]:
    about = {"arm": arm, "findings": "F4", "metric": metric, "split": split, "seeds": 3}
    return [about | {"epoch": e, "mean": m, "low": m - 0.01, "high": m + 0.02} for e, m in enumerate(means, start=1)]


def write(folder: Path) -> Path:
    """A folder as `stage3.ablate` leaves it; the original arm has another name in the curves than in its row."""
    folder.mkdir(parents=True)
    pd.DataFrame([dataclasses.asdict(r) for r in ROWS]).to_parquet(folder / "evidence.parquet")
    about = {"seed": 0, "data": "whole", "failed": "", "findings": "F4"}
    runs = [about | {"arm": "alignment 1", "changes": '{"alignment_weight": 1.0}', "command": "train a"}]
    runs.append(about | {"arm": "corrected", "changes": "{}", "command": "train b"})
    pd.DataFrame(runs).to_parquet(folder / "runs.parquet")
    curves = [*curve("alignment 1", R5, [0.1, 0.6]), *curve("corrected", R5, [0.2, 0.5])]
    pd.DataFrame([*curves, *curve("other", R5, [0.9, 0.9])]).to_parquet(folder / "curves.parquet")
    budget = [*curve("alignment 1", "gradient/alignment", [9.0, 7.0])]
    for name, means in (("gradient/alignment", [1.0, 2.0]), ("gradient/contrastive", [4.0, 3.0])):
        budget += curve("corrected", name, means)
    budget += curve("corrected", "gradient_cosine/contrastive_alignment", [0.5, -0.25])
    pd.DataFrame(budget).to_parquet(folder / "budget.parquet")
    points = [("a", 0.5, 0.3, True), ("b", 0.6, 0.2, True), ("beaten", 0.4, 0.1, False)]
    pareto = [{"arm": a, "changes": "{}", "findings": "F4", "seeds": 3} | both(x, y, f) for a, x, y, f in points]
    pd.DataFrame(pareto).to_parquet(folder / "pareto.parquet")
    losses = {"none": [[2.0, 2.0], [1.0, 1.0]], "dropout": [[3.0, 4.0], [2.0, 1.0]], "both": [[2.0, 0.5], [1.0, 1.5]]}
    means = {"noise/none/spread": 0.0, "noise/both/spread": 0.04, "noise/both/best_epoch_changes": 0.25}
    meter = {"metered": {"runs": 2, "means": means, "by_seed": {"noise/both/spread": [0.03, 0.05]}}}
    meter["metered"]["losses_of_seed_0"] = losses
    (folder / "noise.json").write_text(json.dumps(meter), encoding="utf-8")
    (folder / "evidence.md").write_text("# Evidence\n\nMade by `x`: 6 runs.\n\n## F4\n\nno\n", encoding="utf-8")
    return folder


def both(x: float, y: float, front: bool) -> dict[str, object]:
    found: dict[str, object] = {}
    for split, shift in (("test", 0.0), ("val", 0.1)):
        found |= {f"{split}_retrieval": x + shift, f"{split}_page_coherence": y, f"{split}_front": front}
        found |= {f"{split}_retrieval_std": 0.01, f"{split}_page_coherence_std": 0.02}
    return found


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write(tmp_path / "runs" / "evidence")


def opened(**params: object) -> AppTest:
    app = AppTest.from_file(str(UI), default_timeout=60)
    for name, value in {"view": "evidence", **params}.items():
        app.query_params[name] = str(value)
    app.run()
    assert not app.exception
    assert not app_images.undecided(app)
    return app


def texts(app: AppTest) -> str:
    return "\n".join(str(e.value) for kind in (app.text, app.code, app.subheader, app.caption) for e in kind)


def drawn(app: AppTest, key: str) -> list[dict]:
    charts_there = [c for c in app.get("plotly_chart") if key in c.proto.id]
    assert charts_there, key
    return json.loads(charts_there[0].proto.spec)["data"]


def numbers(value: object) -> list[float]:
    """What a chart's specification holds for an array."""
    if isinstance(value, dict):
        return np.frombuffer(base64.b64decode(value["bdata"]), dtype=value["dtype"]).tolist()
    return list(value)  # type: ignore[call-overload]


def test_a_finding_shows_verdict_interval_metrics_and_commands(made):
    app = opened(finding="F4")
    said = texts(app)
    assert "R@5, both ways: +13.0 points [+8.0, +17.0], 3 seeds" in said
    assert EVIL in [t.value for t in app.text]  # as it is, not as Markdown
    command = next(c for c in app.code if c.value == "python -m stage3.ablate --findings F4 --seeds 3")
    assert command.proto.wrap_lines, "a long command is read to its end"
    table = app.dataframe[0].value
    assert table["corrected"].tolist()[0] == "66.0 %"
    assert table["verdict"].tolist() == ["helps", "no effect here"]
    assert {m.label: m.value for m in app.metric} == {
        "Helps": "1", "No effect here": "0", "Hurts": "1", "Seeds per variant": "3"
    }  # fmt: skip
    assert "Made by x: 6 runs." in said
    assert "## F4" not in said


def test_what_the_numbers_were_measured_on_is_said(made):
    noise = row(finding="F1", comparison=0, metric="noise/spread", label="spread of the validation loss", low=0.1)
    late = row(finding="F5", comparison=1, metric="signal/aligned_a_step", measured_at="last")
    pd.DataFrame([dataclasses.asdict(r) for r in (noise, late)]).to_parquet(made / "evidence.parquet")
    assert "Validation books, every epoch's checkpoint" in texts(opened(finding="F1"))
    assert "Test books, last checkpoint; batches: training steps" in texts(opened(finding="F5"))
    assert "finding=F9 in the address is not in this table" in texts(opened(finding="F9", comparison=1))


def test_the_rows_widen_to_all_and_narrow_by_verdict(made):
    app = opened(comparison=0)
    assert "comparison=0 in the address needs the finding" in texts(app)
    forest = drawn(app, "evidence-forest")
    assert [k[0] for k in forest[0]["customdata"]] == ["F4:2", "F3:0"]
    app.segmented_control(key="evidence-width").set_value("all").run()
    assert len(drawn(app, "evidence-forest")[0]["customdata"]) == 3
    app.pills(key="evidence-verdicts").set_value(["hurts"]).run()
    assert [k[0] for k in drawn(app, "evidence-forest")[0]["customdata"]] == ["F3:0"]


def test_nothing_that_is_kept_answers_for_another_file_choice_or_label(made):
    """One server: each input in turn changes, and what is drawn from it changes with it."""
    page = "retrieval/same_page_r_precision"
    path = made / "curves.parquet"
    both = [*curve("alignment 1", page, [0.3, 0.4]), *curve("corrected", page, [0.35, 0.45])]
    frame = pd.concat([pd.read_parquet(path), pd.DataFrame(both)], ignore_index=True)
    frame.to_parquet(path)

    def means(app: AppTest) -> dict[str, list[float]]:
        named = [t for t in drawn(app, "evidence-curves") if t.get("name")]
        return {t["name"]: pytest.approx(numbers(t["y"])) for t in named}

    def dots(app: AppTest) -> list[float]:
        return [x for t in drawn(app, "evidence-forest") if t["type"] == "scatter" for x in numbers(t["x"])]

    app = opened(finding="F4")
    assert means(app) == {"alignment 1": [0.1, 0.6], "original weights": [0.2, 0.5]}
    app.pills(key="evidence-curve-F4:2").set_value(page).run()
    assert means(app) == {"alignment 1": [0.3, 0.4], "original weights": [0.35, 0.45]}
    frame.assign(mean=frame["mean"] + 0.25).to_parquet(path)
    assert means(opened(finding="F4")) == {"alignment 1": [0.35, 0.85], "original weights": [0.45, 0.75]}

    older = made.parent / "older"
    shutil.copytree(made, older)
    frame.assign(mean=frame["mean"] + 0.125).to_parquet(older / "curves.parquet")
    os.utime(older / "evidence.parquet", (1, 1))
    app = opened(finding="F4")
    assert app.selectbox(key="evidence-folder").options == ["made here: evidence", "made here: older"]
    assert app.selectbox(key="evidence-folder").value == str(made)
    app.selectbox(key="evidence-folder").select(str(older)).run()
    assert means(app)["alignment 1"] == [0.225, 0.725]
    shutil.rmtree(older)

    turned = [dataclasses.replace(r, difference=-r.difference, low=-r.high, high=-r.low) for r in ROWS]
    app = opened(finding="F4")
    assert dots(app) == pytest.approx([13.0, -9.0])
    fills = drawn(app, "evidence-forest")[0]["marker"]["color"]
    app.selectbox(key="evidence-row").select("F3:0").run()
    assert drawn(app, "evidence-forest")[0]["marker"]["color"] == fills[::-1] != fills
    pd.DataFrame([dataclasses.asdict(r) for r in turned]).to_parquet(made / "evidence.parquet")
    assert dots(opened(finding="F4")) == pytest.approx([-13.0, 9.0])
    renamed = [*turned, dataclasses.replace(ROWS[0], comparison=4, fixed="another name")]
    pd.DataFrame([dataclasses.asdict(r) for r in renamed]).to_parquet(made / "evidence.parquet")
    app = opened(finding="F4", comparison=4)  # not the first of its finding
    assert app.selectbox(key="evidence-row").value == "F4:4"
    assert list(means(app)) == ["another name", "original weights"]


def test_choosing_another_row_changes_the_address_and_says_what_was_expected(made):
    app = opened(finding="F4")
    app.selectbox(key="evidence-row").select("F3:0").run()
    assert "F3" in app.query_params["finding"]
    assert "part" not in app.query_params  # the findings need not be named
    assert "Expected from earlier trials: helps. Found here: hurts." in texts(app)


def test_curves_are_those_of_both_variants_even_under_another_name(made):
    lines = [t for t in drawn(opened(finding="F4"), "evidence-curves") if t.get("name")]
    assert [t["name"] for t in lines] == ["alignment 1", "original weights"]
    figure = charts.arms(files.table(made, "curves"), {"alignment 1": "A", "corrected": "B"}, R5, "val")
    means = {t.name: list(t.y) for t in figure.data if t.name}
    assert means == {"A": [0.1, 0.6], "B": [0.2, 0.5]}
    units = [charts.arms(files.table(made, "curves"), {}, m, "val").layout.yaxis.tickformat for m in (R5, "grad_norm")]
    assert units == [".0%", None]
    low, high = figure.data[0].y, figure.data[1].y
    assert [list(low), list(high)] == [pytest.approx([0.09, 0.59]), pytest.approx([0.12, 0.62])]


def test_the_dots_lie_at_their_differences_in_points_with_both_ends():
    rows = [row(), row(comparison=3, difference=-0.34, low=-0.4, high=-0.3, verdict="hurts")]
    figure = charts.forest(rows, "F4:2", charts.POINTS)
    helps, hurts = (t for t in figure.data if t.type == "scatter")
    assert helps.x[0] == pytest.approx(13.0)
    assert helps.error_x.array[0] == pytest.approx(4.0)
    assert helps.error_x.arrayminus[0] == pytest.approx(5.0)
    assert (hurts.x[0], hurts.error_x.array[0], hurts.error_x.arrayminus[0]) == pytest.approx((-34.0, 4.0, 6.0))
    assert "right of 0 is better" in figure.layout.xaxis.title.text
    reach = 1.08 * 40  # the largest bound
    band = figure.data[0]  # what takes the click
    assert (list(band.y), list(band.x), band.base) == ([2, 1], [pytest.approx(2 * reach)] * 2, pytest.approx(-reach))
    assert list(figure.layout.xaxis.range) == pytest.approx([-reach, reach])
    assert [k[0] for k in band.customdata] == ["F4:2", "F4:3"]
    faint, none = band.marker.color
    assert (faint, none) == ("rgba(31,95,168,0.14)", "rgba(128,128,128,0.004)")  # the chosen one is marked
    assert [(t.name, t.y[0], t.customdata[0][0]) for t in (helps, hurts)] == [
        ("helps", pytest.approx(2 - charts.DOT_BELOW), "F4:2"), ("hurts", pytest.approx(1 - charts.DOT_BELOW), "F4:3")
    ]  # fmt: skip
    assert (helps.marker.color, hurts.marker.color) == (theme.categorical()[2], theme.categorical()[5])
    told = [(a.x, a.y, a.text, a.font.color) for a in figure.layout.annotations]
    assert [t[:2] for t in told] == [pytest.approx(at) for at in ((0, 2.3), (0.52, 1.84), (0, 1.3), (0.52, 0.84))]
    assert "<b>F4</b>  alignment 1" in told[0][2]
    assert "against original weights" in told[0][2]
    assert told[3][2].startswith("-34.0 points")
    assert [t[3] for t in told[1::2]] == [helps.marker.color, hurts.marker.color]
    lone = row(low=math.nan, high=math.nan, verdict="not judged", seeds=2)
    dots = charts.forest([lone], "", charts.POINTS).data[1]
    assert (dots.name, dots.error_x.array[0]) == ("not judged", 0.0)


def test_where_less_is_better_the_drawing_is_turned_and_the_words_are_not():
    less = row(metric="noise/spread", label="spread of the validation loss", difference=-0.3, low=-0.5, high=-0.2)
    figure = charts.forest([less], "", "spread of the validation loss")
    dots = figure.data[1]
    assert (dots.x[0], dots.error_x.array[0], dots.error_x.arrayminus[0]) == pytest.approx((0.3, 0.2, 0.1))
    assert difference(less) in dots.text[0]
    assert difference(less).startswith("-0.3")


def test_a_row_far_beyond_the_others_does_not_squeeze_them_and_is_marked():
    near = [
        row(comparison=i, difference=d, low=d - 0.02, high=d + 0.02) for i, d in enumerate((0.05, 0.06, 0.07, 0.08))
    ]
    far = row(comparison=9, difference=1.0, low=0.9, high=1.0)
    figure = charts.forest([*near, far], "", charts.POINTS)
    dots = figure.data[1]
    assert figure.layout.xaxis.range[1] == pytest.approx(10.8)
    assert list(dots.x[:4]) == pytest.approx([5.0, 6.0, 7.0, 8.0])
    assert dots.x[4] < 10.8
    assert list(dots.marker.symbol) == ["circle"] * 4 + ["triangle-right"]
    assert "+100.0 points" in dots.text[4]
    assert "off the scale" in figure.layout.xaxis.title.text
    assert "off the scale" not in charts.forest(near, "", charts.POINTS).layout.xaxis.title.text


def test_rows_are_grouped_by_unit_and_every_row_is_in_one_group():
    rows = [row(), row(metric="noise/spread", comparison=4), row(metric=PAGE, comparison=5)]
    found = charts.by_unit(rows)
    assert list(found) == [charts.POINTS, "spread of the validation loss"]
    assert [[charts.key_of(r) for r in part] for part in found.values()] == [["F4:2", "F4:5"], ["F4:4"]]


def test_the_noise_meter_tells_spread_changes_and_chosen_epochs(made):
    app = opened(part="noise")
    assert app.query_params["part"] in ("noise", ["noise"])
    table = app.dataframe[0].value
    assert table["both"].tolist() == ["0.04 · 25 %"]
    assert "Smallest loss at epoch 1: 1 of 2, epoch 2: 1 of 2 repeats." in texts(app)
    dots = [t for t in drawn(app, "evidence-noise-spread") if t["type"] == "scatter"]
    assert dots[0]["y"] == [0.03, 0.05]
    app.segmented_control(key="evidence-noise-cause").set_value("none").run()
    assert "Smallest loss at epoch 2: 2 of 2 repeats." in texts(app)


def test_the_budget_starts_at_the_variant_that_changes_nothing(made):
    app = opened(part="budget")
    assert app.selectbox(key="evidence-budget-arm").value == "corrected"
    last = evidence_more.last_epoch(files.table(made, "budget"))
    assert last.loc["corrected"].tolist()[:2] == [3.0, 2.0]
    assert last.loc["corrected", "contrastive · alignment"] == -0.25
    names = [t["name"] for t in drawn(app, "evidence-budget-norm") if t.get("name")]
    assert sorted(names) == ["alignment", "contrastive"]


def test_the_trade_off_joins_the_front_and_follows_the_split(made):
    frame = files.table(made, "pareto")
    beaten, front, line = charts.pareto(frame, "val").data
    assert list(beaten.text) == ["beaten"]
    assert list(front.x) == list(line.x) == pytest.approx([0.6, 0.7])
    app = opened(part="tradeoff")
    assert app.dataframe[0].value["arm"].tolist() == ["b", "a", "beaten"]


@pytest.mark.parametrize("part", ["findings", "noise", "budget", "tradeoff"])
def test_an_empty_part_says_which_command_fills_it(part, made):
    for name in ("curves", "budget", "pareto", "evidence"):
        path = made / f"{name}.parquet"
        frame = pd.read_parquet(path)
        frame.iloc[:0].to_parquet(path)
    (made / "noise.json").write_text("{}", encoding="utf-8")
    app = opened(part=part)
    assert any(c.value.startswith("python -m stage3.ablate --findings") for c in app.code)


def test_a_damaged_folder_is_said_plainly(made):
    path = made / "evidence.parquet"
    frame = pd.read_parquet(path)
    for broken, words in (
        (frame.drop(columns="low"), "missing column 'low'"),
        (frame.assign(metric="x"), "metric 'x'"),
    ):
        broken.to_parquet(path)
        assert words in texts(opened())
    path.write_bytes(b"no parquet")
    assert "not readable" in texts(opened())
    (made / "noise.json").write_text("[", encoding="utf-8")
    assert "noise.json: not readable" in texts(opened(part="noise"))


def test_without_evidence_the_command_is_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert files.COMMAND in [c.value for c in opened().code]


def test_curves_are_of_validation_books_but_for_the_norm_that_training_alone_has():
    assert {metric for metric, (split, _) in view.CURVES.items() if split != "val"} == {"grad_norm"}


@pytest.mark.skipif(not (SHIPPED / "evidence.parquet").is_file(), reason="no evidence is shipped in this checkout")
def test_the_shipped_evidence_is_shown_as_its_table_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "folders", lambda: [SHIPPED])
    main = [r for r in files.rows(SHIPPED) if r.main]
    app = opened(finding=main[-1].finding, comparison=main[-1].comparison)
    counts = {m.label: int(m.value) for m in app.metric if m.label != "Seeds per variant"}
    assert sum(counts.values()) == len(main)
    assert f"{main[-1].label}: {difference(main[-1])}, {main[-1].seeds} seeds" in texts(app)
    runs, curves = files.table(SHIPPED, "runs"), files.table(SHIPPED, "curves")
    for r in main:  # every chosen line has the curves of both of its arms
        names = {files.arm_of(runs, c, n) for c, n in ((r.fixed_command, r.fixed), (r.reviewed_command, r.reviewed))}
        assert names <= set(curves["arm"])
    for part in ("noise", "budget", "tradeoff"):
        assert opened(part=part).get("plotly_chart"), part
