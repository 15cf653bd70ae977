"""Charts that no other test draws, against hand values: bars, bands, marks and scales, each under its own name."""

from __future__ import annotations

import io
import itertools
import math

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from app.charts import apart, curves, data, evidence, map_drift, map_marks, maps, pages, search, theme
from stage3.ablate.evidence import Row
from stage3.ablate.terms import HELPS, HURTS, METRICS, NONE
from stage3.data import page_check
from stage3.metrics.bootstrap import Interval
from stage3.objectives import TERMS
from stage3.projection.marks import group_means
from stage3.selection import Fact

I2T = "loss/alignment_i2t"


def interval(mean: float, low: float, high: float, groups: int = 9) -> Interval:
    return Interval(mean, low, high, groups, 10 * groups)


FACTS = [
    Fact("n_panels", "<b>9</b> panels per page", True, interval(0.6, 0.5, 0.875, 1200), interval(0.25, 0.125, 0.375),
         interval(0.35, 0.1, 0.5), 1.0),
    Fact("loss", "alignment loss", False, interval(1.5, 1.0, 4.0), interval(2.0, 1.75, 2.5),
         interval(-0.5, -1.0, 0.5), 0.5),
]  # fmt: skip


def test_bars_of_a_selection_lie_inside_above_outside_with_both_ends_in_parts_of_their_scale():
    figure = apart.bars(FACTS)
    inside, outside = figure.data
    assert (inside.name, outside.name) == ("inside", "outside")
    assert (inside.orientation, list(inside.y), list(outside.y)) == ("h", [-0.16, 0.84], [0.16, 1.16])
    assert list(inside.x) == pytest.approx([0.6, 1.5 / 4])  # a loss in parts of its largest number
    assert list(outside.x) == pytest.approx([0.25, 0.5])
    assert list(inside.error_x.array) == pytest.approx([0.275, 2.5 / 4])
    assert list(inside.error_x.arrayminus) == pytest.approx([0.1, 0.5 / 4])
    assert list(outside.error_x.array) == pytest.approx([0.125, 0.5 / 4])
    assert list(outside.error_x.arrayminus) == pytest.approx([0.125, 0.25 / 4])
    assert not inside.error_x.symmetric
    assert list(inside.customdata) == ["60.0 % [50.0 %, 87.5 %], 1,200 pages", "1.500 [1.000, 4.000], 9 pages"]
    assert inside.hovertemplate == "inside: %{customdata}<extra></extra>"
    look = theme.look()
    assert (inside.marker.color, outside.marker.color) == (look.accent, look.quiet)
    assert [(a.text, a.x, a.y, a.font.color) for a in figure.layout.annotations] == [
        ("&lt;b&gt;9&lt;/b&gt; panels per page: 60 % / 25 %", 0, pytest.approx(-0.42), look.text),
        ("alignment loss: 1.50 / 2.00", 0, pytest.approx(0.58), look.quiet),  # its interval holds 0
    ]
    assert list(figure.layout.yaxis.range) == pytest.approx([1.5, -0.62])  # the first row on top
    assert (list(figure.layout.xaxis.range), figure.layout.xaxis.dtick) == ([0, 1.04], 0.5)
    assert figure.layout.barmode == "overlay"
    alone = Fact("loss", "a", False, interval(0.5, math.nan, math.nan), interval(0.25, 0.2, 0.3), interval(0, 0, 0), 0)
    assert list(apart.bars([alone]).data[0].x) == [1.0]


# --- a data set


def test_pages_are_counted_by_how_many_panels_they_have():
    figure = data._panels_per_page([(1, 3), (4, 2000)])
    (bar,) = figure.data
    assert (list(bar.x), list(bar.y), list(bar.text)) == ([1, 4], [3, 2000], ["3", "2,000"])
    assert (bar.marker.color, bar.textposition, bar.cliponaxis) == (theme.categorical()[0], "outside", False)
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == ("panels per page", "pages")
    assert list(figure.layout.yaxis.range) == pytest.approx([0, 2300])
    assert figure.layout.xaxis.dtick == 1
    assert data._panels_per_page([(n, 1) for n in range(25)]).layout.xaxis.dtick is None
    assert list(data._panels_per_page([]).layout.yaxis.range) == pytest.approx([0, 1.15])


@pytest.fixture
def shown(monkeypatch):
    """What a chart would have shown: figures and their words, by key."""
    found = {}
    monkeypatch.setattr(theme, "show", lambda figure, *, key, alt: found.update({key: (figure, alt)}))
    return found


def test_shares_and_splits_stand_in_their_rows_under_their_names(shown):
    data.show_coverage({"textless_share": 0.25, "dialogue_share": 0.5, "no_picture_share": 0.125, "other": 1})
    figure, alt = shown["data-coverage"]
    (bar,) = figure.data
    assert alt == "pages without image 12.5%; textless panels 25.0%; panels with dialogue 50.0%"
    assert list(bar.y) == ["pages without image", "textless panels", "panels with dialogue"]  # the first one on top
    assert (list(bar.x), list(bar.text)) == ([0.125, 0.25, 0.5], ["12.5 %", "25.0 %", "50.0 %"])
    plenty, lack = theme.categorical()[2], theme.categorical()[1]
    assert list(bar.marker.color) == [lack, lack, plenty]
    assert (bar.orientation, list(figure.layout.xaxis.range)) == ("h", [0, 1.12])
    data.show_panels_per_page({"10": 2, "9": 5})
    figure, alt = shown["data-histogram"]
    assert alt == "Panels per page: 5 pages with 9, 2 pages with 10"
    assert list(figure.data[0].x) == [9, 10]
    data.show_splits(
        {"train": {"books": 3, "pages": 40, "panels": 1500}, "val": {"books": 1, "pages": 10, "panels": 500}}
    )
    figure, alt = shown["data-splits"]
    train, val = figure.data
    assert [(t.name, list(t.y)) for t in (train, val)] == [(n, ["books", "pages", "panels"]) for n in ("train", "val")]
    assert (list(train.x), list(val.x)) == ([0.75, 0.8, 0.75], [0.25, 0.2, 0.25])
    assert (list(train.text), list(val.text)) == (["3", "40", "1,500"], ["1", "10", "500"])
    assert (train.marker.color, val.marker.color) == tuple(theme.categorical()[:2])
    assert figure.layout.yaxis.autorange == "reversed"
    assert (figure.layout.barmode, train.orientation, train.textposition) == ("stack", "h", "inside")
    assert alt == ("Split by book. train: 3 books, 40 pages, 1500 panels; val: 1 books, 10 pages, 500 panels")
    data.show_splits({"train": {"books": 0, "pages": 0, "panels": 0}})
    assert list(shown["data-splits"][0].data[0].x) == [0, 0, 0]


def test_kept_panels_are_framed_above_dropped_ones_which_are_crossed_out():
    one = page_check.PanelCheck
    panels = [one(0, 0, (0.2, 0.2, 0.6, 0.2), "", []), one(3, None, (0.2, 0.4, 0.3, 0.4), "", []),
              one(1, None, None, "", []), one(2, 1, (0.0, 0.9, 0.001, 0.05), "", [])]  # fmt: skip
    sheet = Image.open(io.BytesIO(data.overlay(page_check.PageCheck("x", "", "", None, panels, []), 1000)))
    pixels = np.asarray(sheet.convert("RGB")).astype(int)
    assert pixels.shape == (1000, 700, 3)
    blue = np.abs(pixels - (0x00, 0x72, 0xB2)).max(axis=2) < 60
    orange = np.abs(pixels - (0xD5, 0x5E, 0x00)).max(axis=2) < 60
    for x, y in ((142, 300), (558, 300), (450, 201), (450, 399)):  # left, right, top, bottom of the first
        assert blue[y - 2 : y + 3, x - 2 : x + 3].any()
        assert not orange[y - 2 : y + 3, x - 2 : x + 3].any()
    assert not blue[250:350, 200:500].any()
    for x, y in ((141, 600), (349, 600), (280, 799), (245, 600), (193, 500), (297, 500), (193, 700), (297, 700)):
        assert orange[y - 2 : y + 3, x - 2 : x + 3].any()  # its frame, its middle, and four places of its cross
    assert blue[397:400, 230:340].mean() > 0.9  # where both have an edge, the kept one's is seen
    assert blue[188:198, 128:140].mean() > 0.5  # numbers stand on corners, mostly outside
    assert orange[385:395, 60:136].mean() > 0.2
    assert blue[900:950, 0:4].any()  # a box of no width is seen, and its number stays on the page


def test_the_entries_of_a_file_say_what_became_of_each():
    notes = [("box_clamped", "cut"), ("odd", "x")]
    found = page_check.PageCheck("x", "", "", None, [
        page_check.PanelCheck(0, 2, (0.1, 0.2, 0.3, 0.4), "first in the file", notes),
        page_check.PanelCheck(1, 0, None, "only words", []),
        page_check.PanelCheck(2, None, (0.1, 0.2, 0.3, 0.4), "", []),
    ], [])  # fmt: skip
    assert data.entries(found).to_dict("list") == {
        "order": ["3", "1", "–"], "entry": [0, 1, 2], "outcome": ["kept", "kept, text only", "dropped"],
        "notes": ["box_clamped: cut; odd: x", "", ""], "text": ["first in the file", "only words", ""],
    }  # fmt: skip


# --- curves


def logged(split: str, **columns: list[float]) -> pd.DataFrame:
    length = len(next(iter(columns.values())))
    steps = {"step": list(range(10, 10 * length + 1, 10)), "epoch": list(range(1, length + 1))}
    return pd.DataFrame({**steps, "split": split, **{k.replace("__", "/"): v for k, v in columns.items()}})


def test_axes_chance_and_legend_of_curves_are_those_asked_for():
    frame = logged("val", loss__alignment_i2t=[1.0, 2.0])
    source, val = curves.Source("a", frame), curves.How(splits=("val",))
    plain = curves.chart([source], {I2T: "x"}, val, y_title="τ")
    assert (plain.layout.yaxis.title.text, plain.layout.yaxis.type, plain.layout.yaxis.tickformat) == ("τ", None, None)
    assert (plain.layout.xaxis.title.text, plain.layout.showlegend, plain.layout.height) == ("step", False, 260)
    assert not plain.layout.shapes
    assert (plain.data[0].mode, plain.data[0].marker.color) == ("lines+markers", theme.color("alignment_i2t"))
    share = curves.chart([source], {I2T: "x"}, val, percent=True, chance=0.125, height=300)
    assert (share.layout.yaxis.tickformat, share.layout.height) == (".0%", 300)
    (line,) = share.layout.shapes
    assert (line.y0, line.y1, line.line.dash) == (0.125, 0.125, "dot")
    logarithmic = curves.chart([source], {I2T: "x"}, val, log=True)
    assert (logarithmic.layout.yaxis.type, logarithmic.layout.yaxis.tickformat) == ("log", "~g")
    nothing = curves.chart([source], {"no/metric": "x"}, val, chance=0.5)
    assert (len(nothing.data), len(nothing.layout.shapes)) == (0, 0)
    long = curves.chart([source, curves.Source("b" * 60, frame)], {I2T: "x"}, curves.How(splits=("val",)))
    assert long.layout.showlegend
    assert long.layout.legend.yref == "container"
    # two keys of 50 pixels and 5 + 60 letters of 7, in lines of 430
    assert (long.layout.height, long.layout.margin.b) == (260 + 2 * 21, 40 + 2 * 21)
    two = curves.chart([source, curves.Source("b", frame)], {I2T: "x"}, val)
    assert (two.layout.height, two.layout.legend.y, two.layout.legend.yref) == (260, None, None)
    common = two.layout.template.layout.legend
    assert (common.y, common.yanchor, common.yref) == (1, "bottom", None)  # on top of the plot
    assert [t.name for t in two.data] == ["a", "b"]


def test_a_metric_that_is_no_loss_has_a_color_by_its_place_and_single_points_are_seen():
    frame = pd.concat([logged("train", grad_norm=[3.0], weighted__total=[1.0]), logged("val", grad_norm=[5.0] * 61)])
    figure = curves.chart([curves.Source("a", frame)], {"weighted/total": "t", "grad_norm": "g"}, curves.How())
    found = {t.name: (t.line.color, t.mode, list(t.y)) for t in figure.data}
    assert found == {
        "t · train": (theme.look().text, "lines+markers", [1.0]),
        "g · train": (theme.categorical()[1], "lines+markers", [3.0]),
        "g · val": (theme.categorical()[1], "lines", [5.0] * 61),
    }
    assert [curves._color(f"{kind}/alignment", 3) for kind in ("loss", "weighted", "gradient", "temperature")] == [
        *[theme.color("alignment")] * 3, theme.categorical()[3]
    ]  # fmt: skip
    sixty = curves.chart([curves.Source("a", logged("val", lr=[1.0] * 60))], {"lr": "x"}, curves.How(splits=("val",)))
    assert sixty.data[0].mode == "lines+markers"
    assert curves.spark(range(100)) == [float(v) for v in range(0, 100, 2)]
    assert curves.spark([3]) == [3.0]
    short = curves.chart([curves.Source("a", logged("train", grad_norm=[3.0, 1.0]))], {"grad_norm": "g"},
                         curves.How(smoothing=0.9))  # fmt: skip
    assert [list(t.y) for t in short.data] == [[3.0, 1.0]]  # too few to smooth


# --- evidence


def test_the_budget_draws_each_loss_in_its_color_and_each_pair_between_minus_one_and_one():
    rows = [("a", f"gradient/{t}", i + 1.0, 0.5 * (i + 1), 2.0 * (i + 1)) for i, t in enumerate(TERMS)]
    rows += [("a", "gradient_cosine/contrastive_alignment", -0.25, -0.5, 0.0), ("b", "gradient/alignment", 9, 9, 9)]
    frame = pd.DataFrame(rows, columns=["arm", "metric", "mean", "low", "high"]).assign(epoch=1)
    frame = pd.concat([frame.assign(epoch=2), frame])  # not in order
    norms = evidence.budget(frame, "a", "gradient")
    named = [t for t in norms.data if t.name]
    assert [(t.name, list(t.x), list(t.y), t.line.color, t.line.dash) for t in named] == [
        (t, [1, 2], [i + 1.0] * 2, theme.color(t), ("solid", "dash", "dot")[i]) for i, t in enumerate(TERMS)
    ]
    low, high = norms.data[:2]
    assert (list(low.y), list(high.y), low.fill, high.fill) == ([0.5] * 2, [2.0] * 2, None, "tonexty")
    assert (norms.layout.yaxis.type, norms.layout.yaxis.title.text) == ("log", "gradient norm")
    assert norms.layout.xaxis.title.text == "epoch"
    cosines = evidence.budget(frame, "a", "gradient_cosine")
    (line,) = [t for t in cosines.data if t.name]
    assert (line.name, list(line.y)) == ("contrastive · alignment", [-0.25] * 2)
    assert line.line.color == theme.categorical()[4]  # the second pair's
    assert list(cosines.layout.yaxis.range) == [-1.05, 1.05]
    assert cosines.layout.shapes[0].y0 == cosines.layout.shapes[0].y1 == 0


def test_a_faint_color_is_the_color():
    assert evidence._faint("#2072B2", 0.5) == "rgba(32,114,178,0.5)"
    assert map_marks._soft("#D55E00") == "rgba(213,94,0,.10)"


def test_the_noise_of_each_cause_has_a_bar_for_its_mean_and_a_dot_for_each_run():
    meter = {
        arm: {
            "means": {"noise/none/spread": 0.0, "noise/both/spread": mean, "noise/both/best_epoch_off": 0.5},
            "by_seed": {"noise/both/spread": seeds, "noise/dropout/spread": seeds[:1]},
        }
        for arm, mean, seeds in (("<i>", 0.04, [0.03, 0.05]), ("b", 0.2, [0.1, 0.3]))
    }
    figure = evidence.noise(meter, "spread", percent=False)
    bars, dots = [t for t in figure.data if t.type == "bar"], [t for t in figure.data if t.type == "scatter"]
    for i, (bar, dot, name) in enumerate(zip(bars, dots, ("&lt;i&gt;", "b"), strict=True)):
        assert bar.name == dot.name == name
        assert bar.offsetgroup == dot.offsetgroup == bar.legendgroup == str(i)
        assert dot.marker.color == bar.marker.line.color == theme.categorical()[i]
        assert (bar.showlegend, dot.showlegend) == (None, False)
    assert dict(zip(bars[0].x, bars[0].y, strict=True)) == {
        "neither": 0.0, "dropout": None, "random mask": None, "both": 0.04
    }  # fmt: skip
    assert list(zip(dots[1].x, dots[1].y, strict=True)) == [("dropout", 0.1), ("both", 0.1), ("both", 0.3)]
    assert figure.layout.yaxis.tickformat is None
    assert figure.layout.yaxis.rangemode == "tozero"
    share = evidence.noise(meter, "best_epoch_off", percent=True)
    assert share.data[0].y[list(share.data[0].x).index("both")] == 0.5
    assert share.layout.yaxis.tickformat == ".0%"


def test_a_ring_marks_the_smallest_loss_of_each_repeat_and_the_noiseless_line_is_dashed():
    losses = {"none": [[3.0, 9.0], [1.0, 9.0], [2.0, 9.0]], "both": [[2.0, 0.5], [1.0, 1.5], [4.0, 0.75]]}
    one, two, rings, clean = evidence.repeats(losses, "both").data
    assert ([list(t.x) for t in (one, two, clean)], list(one.y), list(two.y)) == (
        [[1, 2, 3]] * 3, [2.0, 1.0, 4.0], [0.5, 1.5, 0.75]
    )  # fmt: skip
    assert (one.showlegend, two.showlegend, one.legendgroup, two.legendgroup) == (True, False, "repeats", "repeats")
    assert (list(rings.x), list(rings.y), rings.name) == ([2, 1], [1.0, 0.5], "chosen epoch")
    assert (one.line.color, rings.marker.color) == ("rgba(0,114,178,0.6)", "#D55E00")  # blue, and what stands out
    assert (list(clean.y), clean.name, clean.line.dash) == ([3.0, 1.0, 2.0], "without noise", "dash")
    assert [t.name for t in evidence.repeats(losses, "none").data] == ["repeats", "repeats", "chosen epoch"]


def test_the_trade_off_has_retrieval_across_and_coherence_up_with_a_deviation_each():
    points = [("a", 0.5, 0.3, True), ("b", 0.6, 0.2, True), ("beaten", 0.4, 0.1, False)]
    frame = pd.DataFrame(
        {"arm": a, "changes": '{"lr": 1}' if f else "{}", "seeds": 3, "test_retrieval": x, "test_page_coherence": y,
         "test_front": f, "test_retrieval_std": x / 10, "test_page_coherence_std": y / 5} for a, x, y, f in points
    )  # fmt: skip
    beaten, front, line = evidence.pareto(frame.iloc[::-1], "test").data
    assert (beaten.name, list(beaten.x), list(beaten.y), beaten.mode) == ("dominated", [0.4], [0.1], "markers")
    assert (front.name, list(front.x), list(front.y)) == ("Pareto front", [0.5, 0.6], [0.3, 0.2])
    assert (list(front.text), front.mode) == (["a", "b"], "markers+text")
    assert list(front.error_x.array) == pytest.approx([0.05, 0.06])
    assert list(front.error_y.array) == pytest.approx([0.06, 0.04])
    assert front.customdata[0] == "a<br>lr: 1<br>3 seeds"
    assert beaten.customdata[0] == "beaten<br>nothing changed<br>3 seeds"
    assert (list(line.x), list(line.y), line.mode, line.line.dash) == ([0.5, 0.6], [0.3, 0.2], "lines", "dot")
    layout = evidence.pareto(frame, "test").layout
    assert (layout.xaxis.title.text, layout.yaxis.title.text) == ("R@5, both ways", "same-page precision")
    assert (layout.xaxis.tickformat, layout.yaxis.tickformat) == (".0%", ".0%")


def row(comparison: int, metric: str, difference: float, low: float, high: float, verdict: str) -> Row:
    """A row of the evidence of finding F1."""
    return Row(
        "F1", "title", "question", comparison, f"new {comparison}", "as it was", metric, metric, 0.5, 0.25, difference,
        low, high, 5, verdict, "helps", True, True, False, "last", "", "", "",
    )  # fmt: skip


def test_differences_stand_on_one_scale_with_more_is_better_to_the_right_and_what_is_far_off_at_its_end():
    shares = [
        row(0, "retrieval/mean_r5", 0.125, 0.0625, 0.25, HELPS),
        row(1, "retrieval/mean_r1", -0.0625, -0.125, 0.0, HURTS),
        row(2, "retrieval/i2t_r5", 2.0, 1.5, 2.5, HELPS),
        row(3, "retrieval/t2i_r5", 0.0, math.nan, math.nan, NONE),
    ]
    figure = evidence.forest(shares, "F1:1", "points of percent")
    behind, helps, none, hurts = figure.data
    end = 1.08 * 25  # the third is far beyond four times the median of 25, 12.5, 250 and 0
    assert (list(behind.y), list(behind.x), behind.base) == ([4, 3, 2, 1], pytest.approx([2 * end] * 4), -end)
    assert len(set(behind.marker.color)) == 2
    assert behind.marker.color[1] not in behind.marker.color[2:]
    assert [key for (key,) in behind.customdata] == ["F1:0", "F1:1", "F1:2", "F1:3"]
    assert [t.name for t in (helps, none, hurts)] == [HELPS, NONE, HURTS]
    assert list(helps.x) == pytest.approx([12.5, 0.97 * end])
    assert list(helps.y) == pytest.approx([3.84, 1.84])
    assert list(helps.marker.symbol) == ["circle", "triangle-right"]
    assert list(helps.error_x.array) == pytest.approx([12.5, 0])
    assert list(helps.error_x.arrayminus) == pytest.approx([6.25, 0])
    assert (list(none.x), list(none.marker.symbol), list(none.error_x.array)) == ([0], ["circle-open"], [0])
    assert (list(hurts.x), list(hurts.error_x.array), list(hurts.error_x.arrayminus)) == ([-6.25], [6.25], [6.25])
    assert {t.mode for t in figure.data[1:]} == {"markers"}
    assert {a.showarrow for a in figure.layout.annotations} == {False}
    assert len({t.marker.color for t in figure.data[1:]}) == 3
    assert list(figure.layout.xaxis.range) == pytest.approx([-end, end])
    assert figure.layout.xaxis.title.text == "points of percent, right of 0 is better; triangles: off the scale"
    losses = [row(0, "noise/spread", -0.5, -0.75, -0.25, HELPS)]
    assert [evidence.gain(losses[0], v) for v in (-0.5, 0.25)] == [0.5, -0.25]  # less is better
    assert evidence.by_unit([*losses, *shares]) == {evidence.POINTS: shares, METRICS["noise/spread"].label: losses}


def test_both_variants_are_drawn_over_epochs_with_their_bands_each_in_a_color_and_dash():
    rows = [
        {"arm": arm, "metric": metric, "split": split, "epoch": epoch, "mean": mean, "low": mean - 1, "high": mean + 2}
        for i, (arm, metric, split) in enumerate(
            itertools.product(("new", "old"), ("retrieval/mean_r5", "grad_norm"), ("train", "val"))
        )
        for epoch, mean in ((2, 10 * i + 1.0), (1, 10 * i))
    ]
    figure = evidence.arms(pd.DataFrame(rows), {"new": "New", "old": "Old"}, "grad_norm", "val")
    low, high, mean = figure.data[:3]
    assert (list(low.x), list(low.y), list(high.y), high.fill) == ([1, 2], [29, 30], [32, 33], "tonexty")
    lines = {t.name: (list(t.y), t.line.color, t.line.dash) for t in figure.data if t.name}
    first, second = theme.categorical()[:2]
    assert lines == {"New": ([30, 31], first, "solid"), "Old": ([70, 71], second, "dash")}
    assert mean.name == "New"
    assert figure.layout.yaxis.tickformat is None


# --- marks on a map, and the map over epochs


def test_the_numbers_of_a_page_stand_at_its_panels_in_reading_order_and_the_chosen_one_differs():
    xy, window = np.array([[0.0, 0.0], [4.0, 0.0], [2.0, 3.0]]), (-8.0, 8.0, -4.0, 10.0)
    assert map_marks.pixel(window) == pytest.approx(max(16 / 800, 14 / 560))
    assert map_marks.pixel((0.0, 8.0, 0.0, 1.0)) == pytest.approx(0.01)
    figure = theme.go.Figure()
    map_marks.add_page(figure, xy, 1, window, webgl=False)
    outline, path, dots = figure.data
    assert (list(path.x), list(path.y), path.mode) == ([0, 4, 2], [0, 0, 3], "lines")
    assert {(x, y) for x, y in zip(outline.x, outline.y, strict=True)} == {(0, 0), (4, 0), (2, 3)}
    assert (outline.x[0], outline.y[0], outline.fill) == (outline.x[-1], outline.y[-1], "toself")
    assert outline.fillcolor == "rgba(31,95,168,.10)"  # the accent
    look = theme.look()
    assert (list(dots.x), list(dots.y), dots.mode) == ([0, 4, 2], [0, 0, 3], "markers")
    assert list(dots.marker.color) == [look.text, look.accent, look.text]
    notes = figure.layout.annotations
    assert [(a.text, a.x, a.y, a.bgcolor) for a in notes] == [
        ("1", 0, 0, look.text), ("2", 4, 0, look.accent), ("3", 2, 3, look.text)
    ]  # fmt: skip
    assert [(a.ax, a.ay) for a in notes] == [pytest.approx((0, -map_marks.NUMBER), abs=0.1)] * 3  # upwards
    line = theme.go.Figure()
    map_marks.add_page(line, xy[:2], None, window, webgl=True)
    assert [t.type for t in line.data] == ["scattergl", "scatter"]  # two panels have no outline
    assert set(line.data[1].marker.color) == {look.text}


def test_labels_means_hulls_and_rings_lie_where_they_belong():
    figure = theme.go.Figure()
    long = "red · <b>blue</b> · green"
    map_marks.add_labels(figure, np.array([[1.0, 2.0], [3.0, 4.0]]), [long, "x" * 40], ["#111111", "#222222"])
    assert [(a.text, a.x, a.y, a.bordercolor) for a in figure.layout.annotations] == [
        ("red · &lt;b&gt;blue&lt;/b&gt;", 1, 2, "#111111"), ("x" * 29 + "…", 3, 4, "#222222")
    ]  # fmt: skip
    sizes = map_marks.label_sizes(["abcde", "x" * 40], (0.0, 8.0, 0.0, 1.0))
    np.testing.assert_allclose(sizes, 0.01 * np.array([[6.4 * 5 + 12, 20], [6.4 * 30 + 12, 20]]))
    xy, page = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [5.0, 5.0]]), np.array([7, 7, 7, 9])
    figure = theme.go.Figure()
    map_marks.add_page_means(figure, group_means(xy, page), ["seven", "nine"], 50.0)
    (means,) = figure.data
    assert list(means.customdata) == [-8, -10]
    assert (list(means.x), list(means.y)) == (pytest.approx([2 / 3, 5]), pytest.approx([2 / 3, 5]))
    spread = 100 * math.sqrt((2 * (4 / 3) ** 2 + 4 * (2 / 3) ** 2) / 3) / 50
    assert list(means.marker.color) == pytest.approx([spread, 0])
    assert list(means.marker.size) == pytest.approx([7 + 2 * math.sqrt(3), 9])
    assert (means.marker.cmin, means.marker.cmax) == (0, pytest.approx(spread))
    assert means.text[0] == f"seven · 3 panels · spread {spread:.1f} % of the width"
    figure = theme.go.Figure()
    map_marks.add_page_hulls(figure, np.vstack([xy, xy[:3] + 9]), np.array([7, 7, 7, 9, 1, 1, 1]))
    assert [(set(t.x), t.line.color) for t in figure.data] == [
        ({9.0, 11.0}, maps.cycle()[0]), ({0.0, 2.0}, maps.cycle()[1])
    ]  # fmt: skip
    map_marks.add_rings(figure, xy[2:], webgl=False)
    rings = figure.data[-1]
    assert (list(rings.x), list(rings.y), rings.name) == ([0, 5], [2, 5], "selected")
    assert rings.marker.symbol == "circle-open"
    assert {t.hoverinfo for t in figure.data} == {"skip"}  # dots below them can be pointed at


def test_groups_without_a_legend_given_have_their_own():
    values, xy = pd.Series(["x", "y", "x"], name="book"), np.arange(6.0).reshape(3, 2)
    drawn = maps.scatter(np.arange(3), xy, values, maps.COLORINGS["book"], maps.whole(xy)).data
    assert [(t.name, list(t.customdata)) for t in drawn] == [("x · 2", [0, 2]), ("y · 1", [1])]


def test_a_scale_of_ranks_goes_to_ten_at_least_and_one_value_has_a_scale_too():
    xy = np.eye(2)
    few = maps.scatter(np.arange(2), xy, pd.Series([1.0, 2.0]), maps.COLORINGS["i2t"], maps.whole(xy)).data[0]
    assert (few.marker.cmin, few.marker.cmax, few.marker.showscale) == (0, 1, True)
    assert list(few.marker.colorbar.ticktext) == ["1", "3", "10"]
    alike = maps.scatter(np.arange(2), xy, pd.Series([0.5, 0.5]), maps.COLORINGS["total"], maps.whole(xy)).data[0]
    assert (alike.marker.cmin, alike.marker.cmax) == (0.5, 1.5)
    nothing = maps.scatter(np.arange(2), xy, pd.Series([np.nan] * 2), maps.COLORINGS["total"], maps.whole(xy))
    assert [t.name for t in nothing.data] == ["not defined · 2"]
    sizes = [maps._size(n) for n in (2, 500, 3000, 20_000)]  # more dots are smaller
    assert sizes == sorted(set(sizes), reverse=True)


def test_drift_shows_each_epoch_s_own_positions_and_colors_that_stay():
    parts = [
        pd.DataFrame({"row": [4, 9, 11], "umap_dim1": [e + 0.0, e + 1, e + 2], "umap_dim2": [10.0 * e, 0.0, 5.0]})
        for e in (2, 5)
    ]
    frame = pd.concat([p.assign(epoch=e) for p, e in zip(parts, (2, 5), strict=True)])
    figure = map_drift.drift(frame, np.array([0, 9, 17]), height=400)
    dots = figure.data[0]
    assert (list(dots.x), list(dots.y), list(dots.customdata)) == ([2, 3, 4], [20, 0, 5], [4, 9, 11])
    assert list(dots.ids) == ["4", "9", "11"]
    assert (list(dots.marker.color), dots.marker.color.dtype) == ([0, 1, 1], np.uint8)  # a byte for each dot
    assert list(dots.marker.symbol) == [0, 2, 1]  # eight colors, then the next shape
    assert [(f.name, list(f.data[0].x), list(f.data[0].y)) for f in figure.frames] == [
        ("2", [2, 3, 4], [20, 0, 5]), ("5", [5, 6, 7], [50, 0, 5])
    ]  # fmt: skip
    assert list(figure.layout.xaxis.range) == pytest.approx([2 - 0.2, 7 + 0.2])
    assert list(figure.layout.yaxis.range) == pytest.approx([-2, 52])
    menu, slider = figure.layout.updatemenus[0], figure.layout.sliders[0]
    assert [(s.label, s.args[0]) for s in slider.steps] == [("2", ("2",)), ("5", ("5",))]
    assert menu.x == 0  # the slider begins beside the two buttons
    assert 0.1 < slider.x < slider.x + slider.len < 1
    assert -0.1 < slider.y < 0
    assert figure.layout.height == 400
    play, pause = figure.layout.updatemenus[0].buttons
    assert (play.label, play.args[0], pause.label, pause.args[0]) == ("Play", None, "Pause", (None,))
    assert play.args[1]["fromcurrent"]
    assert not play.args[1]["frame"]["redraw"]


def test_many_groups_share_one_trace_with_a_step_of_the_scale_for_each_color(monkeypatch):
    names = [f"g{i}" for i in range(9)]
    values = pd.Series([n for i, n in enumerate(names) for _ in range(10 - i)], name="book")
    xy = np.column_stack([np.arange(54.0), np.zeros(54)])
    legend = maps.legend_of(values, xy)
    assert (legend.names, legend.counts) == (names, list(range(10, 1, -1)))
    assert set(legend.colors) == set(maps.cycle())  # nine groups, eight colors: one is used twice, by the farthest
    assert legend.colors[8] == legend.colors[0]
    (trace,) = maps.scatter(np.arange(54), xy, values, maps.COLORINGS["book"], maps.whole(xy), legend=legend).data
    shades = sorted(set(legend.colors))
    assert [shades[int(c)] for c in trace.marker.color] == [legend.colors[names.index(v)] for v in values]
    assert (trace.marker.cmin, trace.marker.cmax) == (-0.5, 7.5)
    assert [tuple(s) for s in trace.marker.colorscale] == [
        (pytest.approx((i + side) / 8), c) for i, c in enumerate(shades) for side in (0, 1)
    ]
    assert not trace.showlegend


# --- pages and searches


def test_a_page_is_numbered_in_reading_order_with_frames_where_its_boxes_are():
    boxes = [(0.5, 0.1, 0.4, 0.2), None, (0.1, 0.6, 0.2, 0.3)]
    sheet = Image.open(io.BytesIO(pages.boxed(None, boxes, focus=0, ratio=0.5, side=800))).convert("RGB")
    assert sheet.size == (400, 800)
    pixels = np.asarray(sheet).astype(int)
    orange = np.abs(pixels - (0xD5, 0x5E, 0x00)).max(axis=2) < 70
    blue = np.abs(pixels - (0x1F, 0x5F, 0xA8)).max(axis=2) < 70
    for found, (x0, y0, x1, y1) in ((orange, (200, 80, 360, 240)), (blue, (40, 480, 120, 720))):
        assert found[(y0 + y1) // 2, x0 : x0 + 3].any()
        assert found[y1 - 2 : y1 + 1, (x0 + x1) // 2].any()
        assert found[y0 - 8 : y0 + 8, x0 - 8 : x0 + 8].mean() > 0.3  # its number, on the corner
        away = found.copy()
        away[y0 - 30 : y1 + 5, x0 - 30 : x1 + 5] = False
        assert not away.any()
    for x, y in ((198, 78), (38, 478)):  # a digit stands in the middle of its label
        rows = np.flatnonzero((pixels[y - 7 : y + 8, x - 6 : x + 7].min(axis=2) > 150).any(axis=1))
        assert 7 <= len(rows) <= 11
        assert abs(rows.mean() - 7) < 2
    assert min(pixels[160, 280]) > 240  # white within frames, gray beside them
    assert max(pixels[400, 280]) < 240
    assert Image.open(io.BytesIO(pages.boxed(None, [], ratio=0.01, side=500))).size == (100, 500)
    assert Image.open(io.BytesIO(pages.boxed(None, [], ratio=9.0, side=500))).size == (500, 100)


def test_the_scale_of_retrieval_holds_every_interval():
    columns = ["direction", "metric", "value", "low", "high", "chance"]
    table = pd.DataFrame([("a", "R@1", 0.02, 0.01, 0.03, 0.005), ("b", "R@1", 0.04, math.nan, math.nan, 0.005)],
                         columns=columns)  # fmt: skip
    small = search._metrics(table)
    assert list(small.layout.yaxis.range) == pytest.approx([0, 1.15 * 0.05])
    assert small.layout.yaxis.tickformat == ".1%"
    assert [list(t.error_y.array) for t in small.data[:2]] == [[pytest.approx(0.01)], [0]]
    assert [list(t.error_y.arrayminus) for t in small.data[:2]] == [[pytest.approx(0.01)], [0]]
    assert [t.marker.color for t in small.data[:2]] == theme.categorical()[:2]
    large = search._metrics(table.assign(high=[0.5, 0.95]))
    assert list(large.layout.yaxis.range) == [0, 1]
    assert large.layout.yaxis.tickformat == ".0%"
    empty = search.metric_table({"intervals": {}, "chance": {}})
    assert len(empty) == 8
    assert empty[["value", "low", "high", "chance"]].isna().all(axis=None)


def test_tools_of_a_chart_are_shown_where_it_takes_something(monkeypatch):
    asked = []
    monkeypatch.setattr(theme.st, "plotly_chart", lambda figure, **more: asked.append(more))
    figure = theme.go.Figure()
    theme.show(figure, key="a", alt="words")
    theme.show(figure, key="a", alt="words", on_select=lambda: None, selection_mode=["points"])
    theme.show(figure, key="a", alt="words", tools=True, fill=True)
    assert [more["config"] for more in asked] == [
        {"displaylogo": False, "displayModeBar": False, "scrollZoom": False},
        {"displaylogo": False, "displayModeBar": True, "scrollZoom": False},
        {"displaylogo": False, "displayModeBar": True, "scrollZoom": True, "doubleClick": "autosize"},
    ]
    assert [callable(more["on_select"]) or more["on_select"] for more in asked] == ["ignore", True, "ignore"]
    assert [more["height"] for more in asked] == ["content", "content", "stretch"]
    assert asked[1]["selection_mode"] == ("points",)
    assert {more["alt"] for more in asked} == {"words"}
    assert {more["theme"] for more in asked} == {None}  # ours, not Streamlit's
