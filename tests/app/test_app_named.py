"""Charts and tables against hand values: every number under its own name, on its own axis, in its own direction."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from app import shell
from app.charts import curves, maps, names, pages, search, theme
from app.parts import panel
from stage3.config import Config

I2T, T2I = "loss/alignment_i2t", "loss/alignment_t2i"


def rows(train: dict[str, list[float]], val: dict[str, list[float]]) -> pd.DataFrame:
    """Metrics of a run as `metrics.jsonl` holds them: a row per step and split."""
    made = []
    for split, columns in (("train", train), ("val", val)):
        length = len(next(iter(columns.values())))
        steps = {"step": [10 * (i + 1) for i in range(length)], "epoch": list(range(1, length + 1))}
        made.append(pd.DataFrame({**steps, "split": split, **columns}))
    return pd.concat(made, ignore_index=True)


def drawn(figure) -> dict[str, tuple[list[float], str, str]]:
    """What stands under each name of a legend: the numbers, the dash and the color."""
    return {t.name: (list(t.y), t.line.dash, t.line.color) for t in figure.data if t.name}


def test_each_curve_has_the_numbers_of_its_name_and_only_validation_is_dashed():
    frame = rows({I2T: [1.0, 2.0, 3.0], T2I: [4.0, 5.0, 6.0]}, {I2T: [7.0, 8.0, 9.0], T2I: [10.0, 11.0, 12.0]})
    figure = curves.chart([curves.Source("a", frame)], {I2T: "image to text", T2I: "text to image"}, curves.How())
    hue = {way: theme.color(f"alignment_{way}") for way in ("i2t", "t2i")}
    assert hue["i2t"] != hue["t2i"]
    assert drawn(figure) == {
        "image to text · train": ([1.0, 2.0, 3.0], "solid", hue["i2t"]),
        "image to text · val": ([7.0, 8.0, 9.0], "dash", hue["i2t"]),
        "text to image · train": ([4.0, 5.0, 6.0], "solid", hue["t2i"]),
        "text to image · val": ([10.0, 11.0, 12.0], "dash", hue["t2i"]),
    }
    assert [list(t.x) for t in figure.data] == [[10, 20, 30]] * 4
    by_epoch = curves.chart([curves.Source("a", frame)], {I2T: "x"}, curves.How(by="epoch", splits=("val",)))
    assert [(t.name, list(t.x), t.line.dash) for t in by_epoch.data] == [("x", [1, 2, 3], "dash")]
    assert by_epoch.layout.xaxis.title.text == "epoch"


def test_two_runs_have_a_color_each_and_keep_the_dashes_of_their_splits():
    sources = [
        curves.Source("one", rows({I2T: [1.0, 2.0]}, {I2T: [3.0, 4.0]})),
        curves.Source("two", rows({I2T: [5.0, 6.0]}, {I2T: [7.0, 8.0]})),
    ]
    found = drawn(curves.chart(sources, {I2T: "x"}, curves.How()))
    first, second = theme.categorical()[:2]
    assert found == {
        "one · train": ([1.0, 2.0], "solid", first), "one · val": ([3.0, 4.0], "dash", first),
        "two · train": ([5.0, 6.0], "solid", second), "two · val": ([7.0, 8.0], "dash", second),
    }  # fmt: skip


def test_several_metrics_of_several_runs_differ_by_their_dashes():
    sources = [
        curves.Source(n, rows({I2T: [v], T2I: [v + 1]}, {I2T: [v], T2I: [v + 1]})) for n, v in (("a", 1.0), ("b", 5.0))
    ]
    found = drawn(curves.chart(sources, {I2T: "x", T2I: "y"}, curves.How(splits=("train",))))
    first, second = theme.categorical()[:2]
    one, two = theme.DASHES[:2]
    assert found == {
        "a · x": ([1.0], one, first), "a · y": ([2.0], two, first),
        "b · x": ([5.0], one, second), "b · y": ([6.0], two, second),
    }  # fmt: skip


def test_a_band_reaches_one_deviation_below_and_above_the_mean():
    runs = [curves.Source(n, rows({I2T: [0.0]}, {I2T: v})) for n, v in (("a", [1.0, 4.0]), ("b", [3.0, 10.0]))]
    how = curves.How(splits=("val",), as_band=True)
    low, high, mean = curves.chart(runs, {I2T: "x"}, how).data
    assert list(mean.y) == [2.0, 7.0]
    assert list(low.y) == pytest.approx([2 - math.sqrt(2), 7 - math.sqrt(18)])
    assert list(high.y) == pytest.approx([2 + math.sqrt(2), 7 + math.sqrt(18)])
    assert (low.fill, high.fill) == (None, "tonexty")  # the area is between the two
    red, green, blue = (int(theme.color("alignment_i2t")[i : i + 2], 16) for i in (1, 3, 5))
    assert high.fillcolor == f"rgba({red},{green},{blue},0.18)"
    assert (mean.name, mean.mode, mean.line.dash) == ("x · val · mean of 2 seeds", "lines", "dash")


def test_smoothing_leaves_validation_and_the_faint_numbers_as_they_are():
    frame = rows({I2T: [1.0, 2.0, 4.0]}, {I2T: [7.0, 5.0, 9.0]})
    faint, smooth, val = curves.chart([curves.Source("a", frame)], {I2T: "x"}, curves.How(smoothing=0.5)).data
    assert (list(faint.y), faint.showlegend, faint.opacity) == ([1.0, 2.0, 4.0], False, 0.25)
    assert list(smooth.y) == pytest.approx([1.0, (0.5 * 1 + 2) / 1.5, (0.25 * 1 + 0.5 * 2 + 4) / 1.75])
    assert list(val.y) == [7.0, 5.0, 9.0]


def report() -> dict:
    """An evaluation report whose numbers are all different."""
    values, intervals, chance = {}, {}, {}
    for i, way in enumerate(("i2t", "t2i")):
        for j, short in enumerate(("r1", "r5", "r10", "mrr")):
            value = 0.3 + 0.2 * i + 0.04 * j
            key = f"retrieval/{way}_{short}"
            values[key], chance[key] = value, 0.01 * (j + 1) + 0.001 * i
            intervals[key] = [value - 0.01 * (j + 1), value + 0.005 * (j + 1)]
    return values | {"intervals": intervals, "chance": chance}


def test_bars_and_their_two_ends_and_chance_stand_under_their_direction():
    given = report()
    table = search.metric_table(given)
    assert table["direction"].tolist() == ["image → text"] * 4 + ["text → image"] * 4
    bars = {t.name: t for t in search._metrics(table).data}
    assert list(bars) == ["image → text", "text → image", "chance"]
    for way, name in names.WAYS.items():
        bar, keys = bars[name], [f"retrieval/{way}_{short}" for short in ("r1", "r5", "r10", "mrr")]
        assert list(bar.x) == ["R@1", "R@5", "R@10", "MRR"]
        assert list(bar.y) == pytest.approx([given[k] for k in keys])
        assert list(bar.error_y.array) == pytest.approx([0.005, 0.01, 0.015, 0.02])
        assert list(bar.error_y.arrayminus) == pytest.approx([0.01, 0.02, 0.03, 0.04])
    assert list(bars["chance"].x) == ["R@1", "R@5", "R@10", "MRR"]
    assert list(bars["chance"].y) == pytest.approx([0.01, 0.02, 0.03, 0.04])
    said = search.metric_words(table).set_index("")
    assert said.loc["R@5  text → image"].tolist() == ["54.0 %", "52.0 % to 55.0 %", "2.1 %"]
    assert said.loc["MRR  image → text"].tolist() == ["0.420", "0.380 to 0.440", "0.040"]


def test_rows_of_a_heat_map_are_rows():
    matrix = np.array([[0.1, 0.2, 0.3], [0.4, np.nan, 0.6]])
    figure = pages._similarities(matrix, ["r1", "r2"], ["c1", "c2", "c3"], ("image", "text"))
    heat = figure.data[0]
    assert (list(heat.y), list(heat.x)) == (["r1", "r2"], ["c1", "c2", "c3"])
    np.testing.assert_allclose(np.array(heat.z), matrix, atol=1e-6)
    assert [list(row) for row in heat.text] == [["0.10", "0.20", "0.30"], ["0.40", "", "0.60"]]
    assert (figure.layout.yaxis.title.text, figure.layout.xaxis.title.text) == ("image", "text")
    assert heat.hovertemplate.startswith("image %{y}, text %{x}")


# three groups of unequal size, met in another order than that of their sizes
GROUPS = ["a", "b", "b", "c", "b", "c", "b", "c", "b", "a"]


@pytest.mark.parametrize("turn", [0, 1, 2])
def test_a_legend_names_its_own_dots_whatever_the_order_in_which_groups_are_met(turn):
    values = pd.Series(np.roll(GROUPS, turn * 3), name="book")
    xy = np.column_stack([np.arange(10.0), np.arange(10.0) ** 2])
    legend = maps.legend_of(values, xy)
    assert (legend.names, legend.counts, legend.missing) == (["b", "c", "a"], [5, 3, 2], 0)
    assert legend.colors == theme.categorical()[:3]
    figure = maps.scatter(np.arange(50, 60), xy, values, maps.COLORINGS["book"], maps.whole(xy), legend=legend)
    for trace, name, color in zip(figure.data, legend.names, legend.colors, strict=True):
        at = np.flatnonzero(values == name)
        assert trace.name == f"{name} · {len(at)}"
        assert trace.marker.color == color
        assert list(trace.customdata) == (50 + at).tolist()
        assert list(trace.x) == at.tolist()
        assert list(trace.y) == (at**2).tolist()


def test_dots_without_a_group_are_open_and_not_counted_for_one():
    values = pd.Series(["x", "", "y", "", "x", ""], name="cluster_name")
    xy = np.arange(12.0).reshape(6, 2)
    legend = maps.legend_of(values, xy)
    assert (legend.names, legend.counts, legend.missing) == (["x", "y"], [2, 1], 3)
    figure = maps.scatter(np.arange(6), xy, values, maps.COLORINGS["cluster"], maps.whole(xy), legend=legend)
    assert [(t.name, list(t.customdata)) for t in figure.data] == [
        ("x · 2", [0, 4]),
        ("y · 1", [2]),
        ("no cluster · 3", [1, 3, 5]),
    ]
    assert figure.data[2].marker.symbol == "circle-open"


def test_ticks_of_a_logarithmic_scale_stand_where_their_numbers_are():
    ranks = pd.Series([1.0, 2.0, 10.0, 30.0, 100.0, np.nan])
    xy = np.arange(12.0).reshape(6, 2)
    figure = maps.scatter(np.arange(6), xy, ranks, maps.COLORINGS["t2i"], maps.whole(xy))
    missing, dots = figure.data
    assert (missing.name, list(missing.customdata), missing.marker.size) == ("not defined · 1", [5], 5)
    assert list(dots.marker.color) == pytest.approx(np.log10([1, 2, 10, 30, 100]).tolist(), abs=1e-6)
    bar = dots.marker.colorbar
    assert list(bar.ticktext) == ["1", "3", "10", "30"]  # the scale ends at the 98 % quantile
    assert list(bar.tickvals) == pytest.approx(np.log10([1, 3, 10, 30]).tolist())
    assert dots.marker.cmin == 0
    assert dots.marker.cmax == pytest.approx(np.quantile(np.log10([1, 2, 10, 30, 100]), 0.98))
    assert bar.title.text == "Rank: text → image"
    assert maps.COLORINGS["t2i"].column == "rank_t2i"
    plain = maps.scatter(np.arange(6), xy, ranks, maps.COLORINGS["total"], maps.whole(xy)).data[1]
    assert list(plain.marker.color) == [1, 2, 10, 30, 100]
    assert (plain.marker.colorbar.ticktext, plain.marker.colorbar.title.text) == (None, "Loss: weighted sum")
    assert plain.marker.cmin == pytest.approx(np.quantile([1, 2, 10, 30, 100], 0.02))


def test_what_is_picked_stands_out_and_the_window_is_the_one_asked_for():
    values, xy = pd.Series([0.0, 1.0, 2.0]), np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
    picked = np.array([False, True, False])
    figure = maps.scatter(
        np.array([7, 8, 9]), xy, values, maps.COLORINGS["total"], (-1.0, 2.0, -3.0, 4.0), picked=picked, dim=0.2,
        hover=["a", "b", "c"], tool="lasso",
    )  # fmt: skip
    assert list(figure.data[0].marker.opacity) == pytest.approx([0.2, 1.0, 0.2])
    assert list(figure.data[0].text) == ["a", "b", "c"]
    assert list(figure.layout.xaxis.range) == [-1.0, 2.0]
    assert list(figure.layout.yaxis.range) == [-3.0, 4.0]
    assert figure.layout.dragmode == "lasso"
    assert (figure.layout.height, figure.layout.xaxis.visible) == (620, False)  # positions have no unit
    assert maps.whole(np.array([[0.0, 10.0], [100.0, 60.0]])) == pytest.approx((-4, 104, 8, 62))


def test_colors_are_shared_by_groups_that_are_far_apart():
    centers = np.array([[0.0, 0.0], [1.0, 0.0], [100.0, 0.0], [99.0, 0.0]])
    assert maps._far_apart(centers, 2) == [0, 1, 0, 1]


def test_weights_and_temperatures_stand_in_the_order_of_the_objectives():
    config = Config(
        contrastive_weight=2, reconstruction_weight=0.25, alignment_weight=3,
        contrastive_temperature=0.4, alignment_temperature=0.3,
    )  # fmt: skip
    assert shell.weights_of(config) == "2 / 0.25 / 3"
    assert shell.temperatures_of(config) == "0.4 / 0.3"
    assert shell.temperatures_of(config.replace(temperature=0.2)) == "0.2"


def test_metrics_and_ranks_are_called_by_their_direction():
    assert names.metric_name("retrieval/i2t_r10") == "R@10 image → text"
    assert names.metric_name("retrieval/t2i_mrr") == "MRR text → image"
    assert names.metric_name("retrieval/mean_r1") == "R@1, both ways"
    assert names.metric_name("retrieval/within_page_t2i") == "Within page, text → image"
    assert names.metric_name("retrieval/i2t_median_rank") == "Median rank image → text"
    assert names.metric_name("loss/alignment_i2t") == "Alignment, image → text"
    assert names.metric_name("retrieval/gallery") == "Gallery"  # of no direction
    assert names.RANKS == {"rank_i2t": "Rank i → t", "rank_t2i": "Rank t → i"}


def test_a_panel_s_measures_stand_under_their_names_with_the_share_that_is_lower():
    columns = list(panel.MEASURES)
    frame = pd.DataFrame(
        {c: [float(i), 10.0 + i, 20.0 - i, math.nan] for i, c in enumerate(columns, 1)}, index=[3, 5, 8, 9]
    )
    table = panel.measures(frame, 5).set_index("what")
    assert [panel.MEASURES[c] for c in names.RANKS] == ["Rank i → t", "Rank t → i"]
    assert table["value"].to_dict() == {panel.MEASURES[c]: 10.0 + i for i, c in enumerate(columns, 1)}
    # below 10 + i: always the first; 20 − i is lower from i = 6 on, and 15 ties at i = 5; a tie counts half
    share = {i: 100 * (1 + (20 - i < 10 + i) + 0.5 + 0.5 * (20 - i == 10 + i)) / 3 for i in range(1, len(columns) + 1)}
    assert table["below"].tolist() == pytest.approx(list(share.values()))
    assert panel.measures(frame, 9).empty
