"""From records to statements, by hand: books of unequal size, sides that read different metrics."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from stage3 import ablate
from stage3.ablate import arms, evidence, tables
from stage3.ablate.terms import INTRA, METRICS, MSE, PAGE, R5, Arm, Comparison, Finding, Judged
from stage3.config import Config
from stage3.errors import ConfigError, DataError
from stage3.metrics.bootstrap import Interval
from tests import synthetic

SEEDS = 3


def record(value: float, *, last: float = 0.0, counts=(4, 1), failed: str = "", step: int = 10):
    """A run whose first book has four items and is worth `value`, and whose second has one and is worth 0.05 more."""

    def at(v: float, step: int):
        sums = {"a": [counts[0] * v, counts[0]], "b": [counts[1] * (v + 0.05), counts[1]]}
        metrics = {R5: 0.9, PAGE: v / 2, "loss/reconstruction": 1.25 + v}
        return {"step": step, "metrics": metrics, "books": {"mine": sums, "theirs": sums}}

    return {
        "failed": failed,
        "best": at(value, step),
        "last": at(last, step + 5),
        "val": {R5: value + 0.3, PAGE: 0.5},
        "weights_sha256": "0123456789abcdef" * 4,
    }


FIXED = [record(v, last=0.8) for v in (0.5, 0.6, 0.7)]
REVIEWED = [record(v, last=0.1) for v in (0.3, 0.4, 0.5)]
JUDGED = Judged(R5, "mine", "theirs")
FINDING = Finding(
    "X1",
    "Title",
    "Question?",
    (
        Comparison(
            Arm("new"), Arm("old"), (JUDGED, PAGE, "loss/reconstruction", "no/such"), expected="hurts", main=True
        ),
    ),
    note="A note.",
)


def plans(side: str):
    return [SimpleNamespace(command=f"train {side} {seed}", path=Path(f"{side}{seed}")) for seed in range(SEEDS)]


def rows(comparison=FINDING.comparisons[0]) -> list[evidence.Row]:
    sides = (list(zip(plans("fixed"), FIXED, strict=True)), list(zip(plans("reviewed"), REVIEWED, strict=True)))
    return list(evidence.rows_of(FINDING, 2, comparison, *sides, "again X1"))


def at_best(books: dict[str, dict[str, list[float]]]) -> dict[str, object]:
    return {"failed": "", "best": {"metrics": {}, "books": books}}


def test_items_and_not_books_weigh_and_each_side_reads_its_own_metric():
    found = evidence.compare(FIXED, REVIEWED, JUDGED, "best")
    assert found is not None
    ours, theirs, interval = found
    assert (ours, theirs) == pytest.approx((0.6 + 0.05 / 5, 0.4 + 0.05 / 5))
    assert (interval.mean, interval.groups, interval.items) == (pytest.approx(0.2), 3, 15)
    assert evidence.compare(FIXED, REVIEWED, JUDGED, "last")[2].mean == pytest.approx(0.7)
    of_books = [{"a": [0.1, 2], "b": [0.9, 2]}, {"a": [0.3, 2], "b": [0.4, 2]}, {"a": [0.2, 2], "b": [1.0, 2]}]
    one = [at_best({"mine": books}) for books in of_books]
    turned = [*one[:2], at_best({"mine": dict(reversed(of_books[2].items()))})]
    none = [at_best({"theirs": {"a": [0.0, 2], "b": [0.0, 2]}})] * 3
    assert evidence.compare(turned, none, JUDGED, "best") == evidence.compare(one, none, JUDGED, "best")
    # where the sides count other items, the numbers of the whole gallery are compared
    other = [record(0.3, counts=(4, 2))] * 3
    assert evidence.compare(FIXED, other, replace(JUDGED, fixed=PAGE, reviewed=PAGE), "best")[:2] == pytest.approx(
        (0.3, 0.15)
    )
    assert evidence.compare(FIXED, other, JUDGED, "best") is None  # "mine" is no number of the whole gallery
    for one, two in (("mine", PAGE), (PAGE, "theirs"), (PAGE, "no/such")):
        assert evidence.compare(FIXED, REVIEWED, Judged(R5, one, two), "best") is None
    lost = [{**FIXED[0], "best": {"metrics": {PAGE: math.nan}, "books": {}}}, *FIXED[1:]]
    assert evidence.compare(lost, REVIEWED, Judged(PAGE, PAGE, PAGE), "best")[0] == pytest.approx((0.3 + 0.35) / 2)
    diverged = [*FIXED[:2], {"failed": "diverged"}], [{"failed": "diverged"}, *REVIEWED[1:]]
    assert evidence.compare(*diverged, JUDGED, "best")[2].mean == pytest.approx(0.2)
    assert evidence.compare(*diverged, JUDGED, "best")[2].groups == 1


def test_an_interval_of_nothing_is_undefined_and_the_published_ones_are_of_2000_resamples():
    nothing = evidence.paired_interval(np.zeros((4, 2)), np.zeros((4, 2)))
    assert all(map(math.isnan, (nothing.mean, nothing.low, nothing.high)))
    assert (nothing.groups, nothing.items) == (4, 0)
    sums, counts = np.array([[1.0, 5.0], [2.0, 9.0], [4.0, 1.0]]), np.array([[3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])
    published = evidence.paired_interval(sums, counts, level=0.95, resamples=2000, seed=0)
    assert evidence.paired_interval(sums, counts) == published
    one_book = evidence.paired_interval(sums[:, :1], counts[:, :1])  # drawn each time: the seeds alone differ
    assert one_book.mean == pytest.approx(7 / 15)
    assert one_book.low < one_book.mean < one_book.high
    two_books = np.tile([0.0, 1.0], (4, 1))  # of equal seeds: a quarter of the draws has the first alone, or the second
    for level, ends in ((0.95, (0.0, 1.0)), (0.4, (0.5, 0.5))):
        found = evidence.paired_interval(two_books, np.ones((4, 2)), level=level)
        assert (found.low, found.high) == ends


@pytest.mark.parametrize(
    ("better", "low", "high", "expected"),
    [
        (1, 0.1, 0.2, "helps"),
        (1, -0.2, -0.1, "hurts"),
        (-1, 0.1, 0.2, "hurts"),
        (-1, -0.2, -0.1, "helps"),
        (1, -0.1, 0.2, "no effect here"),
        (-1, 0.0, 0.2, "no effect here"),
        (1, -0.2, 0.0, "no effect here"),
        (0, 0.1, 0.2, "not judged"),
        (1, math.nan, math.nan, "not judged"),
    ],
)
def test_a_verdict_needs_the_whole_interval_on_one_side(better, low, high, expected):
    assert evidence.verdict(better, Interval(0.0, low, high, 5, 9)) == expected


def test_a_row_has_the_numbers_the_names_and_the_commands_of_its_sides():
    first, page, mse = rows()
    assert (first.fixed, first.reviewed, first.finding, first.comparison) == ("new", "old", "X1", 2)
    assert (first.fixed_mean, first.reviewed_mean, first.difference) == pytest.approx((0.61, 0.41, 0.2))
    assert first.low <= 0.2 <= first.high
    assert (first.fixed_command, first.reviewed_command, first.command) == (
        "train fixed 0",
        "train reviewed 0",
        "again X1",
    )
    assert (first.metric, first.label, first.verdict, first.seeds) == (R5, "R@5, both ways", "helps", 3)
    # the first metric that exists is the headline, and carries what was expected
    assert [(r.headline, r.main, r.expected) for r in (first, page, mse)] == [
        (True, True, "hurts"),
        (False, False, ""),
        (False, False, ""),
    ]
    assert (page.fixed_mean, page.reviewed_mean, mse.verdict) == (pytest.approx(0.3), pytest.approx(0.2), "not judged")
    gone = replace(FINDING.comparisons[0], metrics=("chunked/loss_error", PAGE), at="last", half=True, main=False)
    (page,) = rows(gone)
    assert (page.headline, page.expected, page.main, page.half_fix, page.measured_at) == (
        True, "hurts", False, True, "last",
    )  # fmt: skip
    assert page.fixed_mean == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("value", "metric", "sign", "expected"),
    [
        (0.1234, R5, False, "12.3 %"),
        (0.1234, R5, True, "+12.3 %"),
        (-0.5, "reconstruction/skill", True, "-0.5"),
        (0.12345, "reconstruction/skill", True, "+0.123"),
        (99.94, "collapse/effective_rank", False, "99.9"),
        (100.0, "collapse/effective_rank", False, "100.0"),
        (100.04, "collapse/effective_rank", False, "100.0"),
        (123456.0, "collapse/effective_rank", False, "1.2e+05"),
        (100000.0, "collapse/effective_rank", False, "1.0e+05"),
        (99999.0, "collapse/effective_rank", False, "99999.0"),
        (0.00099, "chunked/loss_error", False, "9.9e-04"),
        (0.001, "chunked/loss_error", False, "0.001"),
        (-0.0005, "chunked/loss_error", False, "-5.0e-04"),
        (0.0, "chunked/loss_error", False, "0"),
        (math.nan, "chunked/loss_error", False, "–"),
    ],
)
def test_numbers_as_text(value, metric, sign, expected):
    assert evidence.number(value, metric, sign) == expected


def test_the_short_table_and_the_sections_say_each_number_under_its_name():
    first, page, mse = (replace(r, low=0.125, high=0.3) for r in rows())
    assert evidence.difference(first) == "+20.0 points [+12.5, +30.0]"
    assert evidence.difference(mse) == "+0.2 [+0.125, +0.3]"
    lines = evidence.short_table([page, first, mse]).splitlines()
    line = "| X1 | new | old | R@5, both ways | 61.0 % | 41.0 % | +20.0 points [+12.5, +30.0] | helps |"
    assert lines[2:] == [line]
    about = {"command": "c", "data": "d", "runs": 6, "epochs": 7, "seeds": 3, "panels": 80, "books": 9}
    text = evidence.document([first, page, mse, replace(first, finding="X2")], [FINDING], about)
    assert "Made by `c` on d: 6 runs of 7 epochs, 3 seeds per arm, 80 test panels in 9 books." in text
    assert "of 3 judged rows about 1 would" in text  # one of twenty; mse is shown and not judged
    assert text[text.index("## ") :].splitlines() == [
        "## X1 · Title", "", "Question?", "",
        "| variant | against | metric | variant | against | difference | verdict |", "|---|---|---|---|---|---|---|",
        "| new | old | R@5, both ways | 61.0 % | 41.0 % | +20.0 points [+12.5, +30.0] | helps |",
        "|  |  | same-page precision | 30.0 % | 20.0 % | +10.0 points [+12.5, +30.0] | helps |",
        "|  |  | reconstruction mse | 1.85 | 1.65 | +0.2 [+0.125, +0.3] | not judged |",
        "", "A note.",
        "- Expected from earlier trials: *hurts* for R@5, both ways, “new” against “old”; found here: *helps* "
        "(+20.0 points [+12.5, +30.0]).",
    ]  # fmt: skip
    for quiet in (replace(first, expected="helps"), replace(first, verdict="not judged")):
        assert "Expected from earlier" not in evidence.document([quiet], [FINDING], about)


def experiment():
    """Two arms of three seeds; the last run of the second one diverged, and both arms share a run with a third."""
    names = {"one": plans("one"), "two": plans("two")}
    names["same"] = names["one"]
    return SimpleNamespace(plans=names)


LABELS = {
    "one": ("first arm", Arm("first arm", {"lr": 1}), ["S1"]),
    "two": ("second arm", Arm("second arm", {"lr": 2}, data="thinned"), ["F2"]),
    "same": ("first arm again", Arm("first arm again", {"lr": 1}), ["S1", "F9"]),
}
RECORDS = {
    **{p.path: record(0.1 * i + 0.2, last=0.1 * i, step=i + 1) for i, p in enumerate(plans("one"))},
    **{p.path: record(0.9, failed="diverged" if i == 2 else "") for i, p in enumerate(plans("two"))},
}


def test_a_row_per_run_with_its_own_measures():
    frame = tables._runs(experiment(), LABELS, RECORDS)
    assert frame["run"].tolist() == ["one0", "one1", "one2", "two0", "two1", "two2"]
    assert frame["findings"].tolist() == ["S1,F9"] * 3 + ["F2"] * 3
    assert frame["seed"].tolist() == [0, 1, 2] * 2
    assert frame["arm"].tolist() == ["first arm"] * 3 + ["second arm"] * 3
    assert frame["data"].tolist() == ["whole"] * 3 + ["thinned"] * 3
    assert frame["changes"].tolist() == ['{"lr": 1}'] * 3 + ['{"lr": 2}'] * 3
    assert frame["command"].tolist()[1:4:2] == ["train one 1", "train two 0"]
    assert set(frame["weights_sha256"]) == {"0123456789abcdef"}
    assert frame["failed"].tolist() == [""] * 5 + ["diverged"]
    assert frame.loc[:2, ["best_step", "last_step"]].to_numpy().tolist() == [[1, 6], [2, 7], [3, 8]]
    assert frame[f"test:{PAGE}"].tolist()[:3] == pytest.approx([0.1, 0.15, 0.2])
    assert frame[f"last:{PAGE}"].tolist()[:3] == pytest.approx([0, 0.05, 0.1])
    assert frame[f"val:{R5}"].tolist()[:3] == pytest.approx([0.5, 0.6, 0.7])
    assert frame.loc[5, [c for c in frame if ":" in c]].isna().all()


def test_the_front_is_of_means_over_the_seeds_that_ended(monkeypatch):
    monkeypatch.setattr(tables, "SWEEPS", ("S1", "F2"))
    frame = tables._pareto(experiment(), LABELS, RECORDS)
    assert frame["arm"].tolist() == ["first arm", "second arm"]  # the third has the same runs
    assert frame["seeds"].tolist() == [3, 2]
    assert frame["page_coherence"].tolist() == pytest.approx([0.15, 0.45])
    assert frame["test_page_coherence_std"].tolist() == pytest.approx([0.05, 0.0])
    assert frame["val_retrieval"].tolist() == pytest.approx([0.6, 1.2])
    assert frame["val_retrieval_std"].tolist() == pytest.approx([0.1, 0.0])
    assert frame["retrieval"].tolist() == pytest.approx([0.9, 0.9])
    assert frame["test_front"].tolist() == frame["val_front"].tolist() == [False, True]
    ended = {path: record(0.7) if path.name == "two1" else {"failed": "diverged"} for path in RECORDS}
    frame = tables._pareto(experiment(), LABELS, RECORDS | {Path(n): ended[Path(n)] for n in ("one1", "one2", "two1")})
    assert frame["seeds"].tolist() == [1, 2]
    assert frame["test_page_coherence_std"].tolist() == pytest.approx([0.0, 0.1 / math.sqrt(2)])
    undefined = {path: r | {"val": r["val"] | {R5: None}} for path, r in RECORDS.items() if path.name == "two1"}
    frame = tables._pareto(experiment(), LABELS, RECORDS | undefined)
    assert frame["val_retrieval"].isna().tolist() == [False, True]
    assert frame["val_front"].tolist() == [True, False]
    monkeypatch.setattr(tables, "SWEEPS", ("E1",))
    assert tables._pareto(experiment(), LABELS, RECORDS).empty


def test_curves_are_of_each_split_and_epoch_over_the_seeds_that_have_it():
    def metrics(*rows):
        return pd.DataFrame(rows, columns=["split", "epoch", "x", "y"])

    frames = [
        metrics(("train", 1, 9.0, 1.0), ("val", 1, 1.0, np.nan), ("val", 1, 3.0, np.nan), ("val", 2, 5.0, np.nan)),
        metrics(("val", 1, 4.0, np.nan), ("val", 2, np.nan, np.nan), ("val", 3, np.nan, np.nan)),
    ]
    found = tables._over_seeds(frames, "val", "x", {"arm": "a"})
    about = {"arm": "a", "metric": "x", "split": "val"}
    assert found == [
        about | {"epoch": 1, "mean": 3.0, "low": 2.0, "high": 4.0, "seeds": 2},
        about | {"epoch": 2, "mean": 5.0, "low": 5.0, "high": 5.0, "seeds": 1},
    ]
    assert tables._over_seeds(frames, "val", "z", {}) == []
    short = tables._short(pd.DataFrame(found).assign(mean=1.23456, high=123456.0))
    assert short.dtypes[["epoch", "seeds"]].tolist() == [np.int16] * 2
    assert short[["mean", "low", "high"]].to_numpy().tolist() == [[1.235, 2.0, 123500.0], [1.235, 5.0, 123500.0]]


def test_a_fraction_of_a_curve_s_file_is_enough(tmp_path):
    path = tmp_path / "very" / "deep" / "x.parquet"
    tables.parquet(path, pd.DataFrame({"a": [0.5], "n": [3], "s": ["t"]}))
    assert [str(t) for t in pd.read_parquet(path).dtypes[:2]] == ["float32", "int64"]


def test_a_table_of_another_version_is_refused_by_the_column_that_it_lacks(tmp_path):
    pd.DataFrame([vars(rows()[0])]).drop(columns=["seeds", "label"]).to_parquet(tmp_path / "evidence.parquet")
    with pytest.raises(DataError, match=r"evidence\.parquet: missing column 'label'; written by another version"):
        tables.read_rows(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"seeds": 0}, "seeds: 0 is out of range"),
        ({"jobs": 0}, "jobs: 0 is out of range"),
        ({"settings": {"seed": 3}}, "Use --seeds N"),
        ({"settings": {"finetune": "text"}}, "experiments compare runs on frozen features"),
    ],
)
def test_what_no_experiment_can_have_is_refused_before_anything_is_made(wrong, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        ablate.run_experiments(["S2"], out=tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()


def test_the_samples_are_the_data_unless_others_are_named():
    assert ablate._with_data({}) == {"data": ablate.DATA}
    assert ablate._with_data({"finetune": "none", "dim": 8}) == {"data": ablate.DATA, "finetune": "none", "dim": 8}
    assert ablate._with_data({"data": "mine"}) == {"data": "mine"}
    assert ablate._with_data({"manifest": "m.csv"}) == {"manifest": "m.csv"}


def test_a_run_s_folder_says_what_its_arm_changes():
    assert arms.name_of(Arm("a", {"dropout": 0.5, "select_by": "loss/total"}), "k", 3) == (
        "dropout_0.5-select_by_loss_total-k-s3"
    )
    assert arms.name_of(Arm("a", data="thinned"), "k", 0) == "base-thinned-k-s0"
    assert arms.name_of(Arm("a", pinned=False), "k", 12) == "defaults-k-s12"
    long = arms.name_of(Arm("a", {"visual_fusion": "x" * 45 + "." + "y" * 9}), "k", 0)
    assert long == f"visual_fusion_{'x' * 45}-k-s0"  # sixty characters, and no mark at their end


def test_the_text_counts_the_test_panels_and_their_books():
    data = synthetic.dataset()
    made = SimpleNamespace(data=data, distinct=[SimpleNamespace(config=Config(data="comics", epochs=7))] * 4)
    about = ablate._about(made, [FINDING], 5, "again")
    pages = data.pages("test")
    books = {data.table.pages["book_id"][page] for page in pages}
    assert len(books) < len(pages) < about["panels"] == int(data.panel_set.count[pages].sum())
    assert about == {
        "command": "again --findings X1", "data": "comics", "runs": 4, "epochs": 7, "seeds": 5,
        "panels": about["panels"], "books": len(books),
    }  # fmt: skip


def test_a_table_goes_between_one_pair_of_markers():
    start, end = evidence.START, evidence.END
    assert evidence.replaced(f"a\n{start}\nold\n{end}\nz", "new", "f") == f"a\n{start}\nnew\n{end}\nz"
    for text in ("", start, end, f"{end}{start}", f"{start}{start}{end}", f"{start}{end}{end}"):
        with pytest.raises(ValueError, match=r"^f: needs one line"):
            evidence.replaced(text, "new", "f")


def test_less_is_better_of_errors_and_noise_alone():
    less = {name for name, metric in METRICS.items() if metric.better < 0}
    assert less == {name for name in METRICS if name.startswith(("noise/", "chunked/", "signal/steps_without"))}
    assert {name for name, metric in METRICS.items() if metric.better == 0} == {MSE, INTRA}  # a scale can be shrunk
    assert {metric.better for metric in METRICS.values()} == {-1, 0, 1}
    shares = {name for name in METRICS if name.startswith("retrieval/") and not name.endswith("mrr")}
    shares |= {"reconstruction/rank_r1", "diagnose/panels_differ", "signal/steps_without_alignment"}
    shares |= {"signal/steps_without_anchors", "noise/best_epoch_changes", "noise/best_epoch_off"}
    assert {name for name, metric in METRICS.items() if metric.percent} == shares
