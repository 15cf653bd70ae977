"""Experiments: the statistics tell a difference from none, runs are made once, and a command makes a run again."""

import json
import math
import shlex
import subprocess
import sys
import time
from pathlib import Path

import app_support
import numpy as np
import pandas as pd
import psutil
import pytest

from stage3.ablate import __main__ as ablate_command
from stage3.ablate import arms as arms_module
from stage3.ablate import evidence, noise, schedule, tables
from stage3.ablate.arms import config_of, key_of, record_of, weights_digest
from stage3.ablate.findings import FINDINGS, arms, chosen
from stage3.ablate.terms import METRICS, ORIGINAL, Arm, Judged
from stage3.ablate.thinning import write_thinned
from stage3.batches.dataset import Dataset
from stage3.config import Config
from stage3.errors import ConfigError, Interrupted
from stage3.runs import RunFolder
from stage3.train import __main__ as train_command

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["--dim", "16", "--gate_hidden", "8", "--layout_hidden", "8", "--epochs", "2", "--batch_pages", "4"]
SPLIT = ["--val_fraction", "0.25", "--test_fraction", "0.25"]


@pytest.fixture(scope="module")
def comics(tmp_path_factory):
    return app_support.write_comics(tmp_path_factory.mktemp("comics") / "set", seed=5)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def flags(comics, cache, out, *more):
    return ["--data", str(comics), "--cache_dir", str(cache), "--out", str(out), *QUICK, *SPLIT, *more]


@pytest.fixture(scope="module")
def made(comics, cache, tmp_path_factory):
    """One small experiment, shared by the tests that only read it."""
    out = tmp_path_factory.mktemp("made") / "evidence"
    assert ablate_command.main(flags(comics, cache, out, "--findings", "S2", "E6", "--seeds", "2")) == 0
    return out


# --- statistics


def differences(rng, seeds=5, books=16, effect=0.0, of_seed=0.02, of_book=0.05, noise=0.02):
    counts = rng.integers(10, 30, size=books) * np.ones((seeds, 1))
    of_both = of_seed * rng.normal(size=(seeds, 1)) + of_book * rng.normal(size=books)
    return (effect + of_both + noise * rng.normal(size=(seeds, books))) * counts, counts


@pytest.mark.slow
def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    for kind in ({}, {"of_book": 0.0}, {"books": 1, "of_book": 0.0}, {"seeds": 3, "of_book": 0.0, "books": 1}):
        inside = 0
        for i in range(300):
            found = evidence.paired_interval(*differences(rng, effect=0.03, **kind), resamples=400, seed=i)
            inside += found.low <= 0.03 <= found.high
        assert 0.91 <= inside / 300 <= 0.995, (kind, inside / 300)


def test_resampling_seeds_alone_would_be_too_sure(monkeypatch):
    """Without the widening five seeds cover the truth in about five of six cases only."""
    rng = np.random.default_rng(0)
    cases = [differences(rng, of_book=0.0, books=1) for _ in range(150)]

    def covered() -> float:
        found = [evidence.paired_interval(*case, resamples=200, seed=i) for i, case in enumerate(cases)]
        return float(np.mean([f.low <= 0 <= f.high for f in found]))

    widened = covered()
    monkeypatch.setattr(evidence, "seed_stretch", lambda *_: 1.0)
    assert covered() < 0.88
    assert widened > 0.91


def test_the_seed_stretch_is_student_t():
    t = {3: 4.303, 5: 2.776, 8: 2.365, 30: 2.045}  # 97.5 % quantiles at S - 1 degrees of freedom
    for seeds, quantile in t.items():
        wanted = quantile / 1.95996 * np.sqrt(seeds / (seeds - 1))
        assert evidence.seed_stretch(seeds) == pytest.approx(wanted, rel=0.035)
    series = 1 + 2 / 4 + 24 / 96 + 24 / 384  # at a normal quantile of 1 and one degree of freedom
    assert evidence.seed_stretch(2, math.erf(1 / math.sqrt(2))) == pytest.approx(series * math.sqrt(2))


def record(value, books=("a", "b", "c"), metric="retrieval/mean_r5", failed=""):
    sums = {b: [10 * v, 10.0] for b, v in zip(books, value, strict=True)}
    at = {"metrics": {metric: float(np.mean(value))}, "books": {metric: sums}}
    return {"failed": failed, "best": at, "last": at}


def judge(fixed, reviewed, metric="retrieval/mean_r5"):
    ours, theirs, interval = evidence.compare(fixed, reviewed, Judged(metric, metric, metric), "best")
    return ours, theirs, interval, evidence.verdict(METRICS[metric].better, interval)


def test_a_planted_difference_is_found_in_its_direction():
    rng = np.random.default_rng(1)
    level = rng.normal(0.3, 0.1, size=(5, 3))  # seeds and books differ far more than the arms do
    better = [record(v + 0.02 + 0.002 * rng.normal(size=3)) for v in level]
    worse = [record(v) for v in level]
    ours, theirs, interval, verdict = judge(better, worse)
    assert verdict == "helps"
    assert interval.low < 0.02 < interval.high
    assert ours - theirs == pytest.approx(interval.mean)
    assert judge(worse, better)[3] == "hurts"
    shuffled = [worse[i] for i in (3, 0, 4, 1, 2)]
    assert judge(better, shuffled)[3] == "no effect here", "the pairing by seed carries the difference"


def test_less_is_better_where_the_metric_says_so():
    fixed = [{"failed": "", "best": {"metrics": {"noise/spread": 0.0}, "books": {}}}] * 4
    noisy = [{"failed": "", "best": {"metrics": {"noise/spread": s}, "books": {}}} for s in (0.5, 0.6, 0.4, 0.5)]
    assert judge(fixed, noisy, "noise/spread")[3] == "helps"


def test_equal_runs_show_no_effect_and_few_seeds_no_verdict():
    same = [record([0.1, 0.2, 0.3])] * 4
    assert judge(same, same)[3] == "no effect here"
    assert judge(same[:2], [record([0.0, 0.1, 0.2])] * 2)[3] == "not judged"


def test_a_failed_seed_leaves_its_pair_out():
    good, other = [record([0.4, 0.4, 0.4])] * 4, [record([0.1, 0.1, 0.1])] * 3 + [{"failed": "diverged"}]
    assert judge(good, other)[2].groups == 3
    assert evidence.compare(good[3:], other[3:], Judged("m", "m", "m"), "best") is None


def test_the_noise_meter_counts_pairs_that_disagree():
    clean = np.asarray([[3.0, 3.0, 3.0], [1.0, 1.0, 1.0], [2.0, 2.0, 2.0]])
    noisy = np.asarray([[3.0, 3.0, 3.0], [1.0, 1.0, 2.5], [2.0, 2.0, 2.0]])
    found = noise.summarize({"none": clean, "mask": noisy})
    assert (
        found["noise/none/spread"] == found["noise/none/best_epoch_changes"] == found["noise/none/best_epoch_off"] == 0
    )
    assert found["noise/mask/best_epoch_changes"] == pytest.approx(2 / 3)  # of three pairs two disagree
    assert found["noise/mask/best_epoch_off"] == pytest.approx(1 / 3)
    first = noise.summarize({"none": np.array([[1.0, 3.0], [2.0, 2.0]]), "mask": np.array([[1.0, 1.0], [2.0, 2.0]])})
    assert first["noise/mask/best_epoch_off"] == 0
    assert found["noise/mask/spread"] == pytest.approx(np.sqrt(np.var([1, 1, 2.5], ddof=1) / 3))


def test_the_front_is_what_nothing_beats():
    points = np.asarray([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0], [1.5, 1.5], [2.0, 2.0]])
    assert tables.on_front(points).tolist() == [True, True, True, False, True]
    assert tables.on_front(np.array([[0.1 + 0.2, 0.5], [0.3, 0.6]])).tolist() == [False, True], "a tie but for rounding"
    assert tables.on_front(np.array([[math.nan, 0.5], [0.3, math.nan], [0.1, 0.1]])).tolist() == [False, False, True]


# --- the declaration


def test_every_arm_is_made_of_real_settings_and_every_metric_is_declared():
    for finding in FINDINGS.values():
        for comparison in finding.comparisons:
            assert all(j.metric in METRICS for j in comparison.judged)
            assert comparison.expected in ("", "helps", "no effect here", "hurts")
    for _, arm in arms(list(FINDINGS.values())):
        config = config_of(arm, 0, {"data": "somewhere"}, Path("thinned"))
        for name, value in arm.changes.items():
            assert getattr(config, name) == value, "an arm's change is what is trained"


def test_an_ablated_arm_differs_from_the_corrected_one_in_what_it_names():
    """Two arms of a comparison never train the same thing, but where one run is read in two ways."""
    for finding in FINDINGS.values():
        for comparison in finding.comparisons:
            pair = [config_of(a, 0, {"data": "x"}, Path("t")) for a in (comparison.fixed, comparison.reviewed)]
            if not comparison.fixed.pinned:  # the package's defaults may be the original values
                continue
            read_twice = any(j.fixed != j.reviewed for j in comparison.judged)
            assert (key_of(pair[0], {}) == key_of(pair[1], {})) == read_twice, comparison.reviewed.label


def test_the_corrected_variant_has_every_ablation_off():
    config = config_of(Arm("corrected"), 0, {}, Path("t"))
    default = Config()
    for name, value in default.to_dict().items():
        if Config.__dataclass_fields__[name].metadata["spec"].ablation:
            assert getattr(config, name) == value
    for name, value in ORIGINAL.items():
        assert getattr(config, name) == value


def test_all_findings_or_some_are_chosen_each_once_and_unknown_ones_are_named():
    assert chosen(["all"]) == chosen(["F2", "all"]) == list(FINDINGS.values())
    assert chosen(["F2", "E1", "F2"]) == [FINDINGS["F2"], FINDINGS["E1"]]
    with pytest.raises(ConfigError, match="'F9'"):
        chosen(["F9"])
    with pytest.raises(ConfigError, match="--seeds"):
        ablate_command.main(["--seed", "3"])


# --- runs


@pytest.mark.slow
def test_arms_with_equal_settings_share_their_runs(made):
    runs = pd.read_parquet(made / "runs.parquet")
    base = runs[runs["changes"] == "{}"]
    assert len(base) == 2, "one run per seed, though four comparisons use it"
    assert base["findings"].tolist() == ["S2,E6"] * 2
    assert len(runs) == len(list((made / "runs").iterdir())) == 2 * 5


@pytest.mark.slow
def test_a_second_call_trains_nothing_and_writes_the_same_table(made, comics, cache, capsys):
    before = (made / "evidence.parquet").read_bytes()
    stamps = {p: p.stat().st_mtime_ns for p in (made / "runs").rglob("*") if p.is_file()}
    assert ablate_command.main(flags(comics, cache, made, "--findings", "S2", "E6", "--seeds", "2", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["trained"] == 0
    assert (made / "evidence.parquet").read_bytes() == before
    assert {p: p.stat().st_mtime_ns for p in (made / "runs").rglob("*") if p.is_file()} == stamps


@pytest.mark.slow
def test_the_table_pairs_what_was_measured(made):
    rows = pd.read_parquet(made / "evidence.parquet")
    runs = pd.read_parquet(made / "runs.parquet")
    row = rows[(rows["reviewed"] == "no clip") & (rows["metric"] == "retrieval/mean_r5")].iloc[0]
    clip = runs[runs["changes"] == '{"clip_scope": "none"}']["test:retrieval/mean_r5"]
    base = runs[runs["changes"] == "{}"]["test:retrieval/mean_r5"]
    assert row["fixed_mean"] == pytest.approx(base.mean(), abs=1e-4)
    assert row["reviewed_mean"] == pytest.approx(clip.mean(), abs=1e-4)
    assert row["difference"] == pytest.approx(base.mean() - clip.mean(), abs=1e-4)
    assert row["verdict"] == "not judged", "two seeds are too few"


@pytest.mark.slow
def test_curves_and_budget_cover_every_epoch(made):
    curves, budget = (pd.read_parquet(made / f"{name}.parquet") for name in ("curves", "budget"))
    one = curves[(curves["arm"] == "corrected") & (curves["metric"] == "loss/total") & (curves["split"] == "val")]
    assert one["epoch"].tolist() == [0, 1, 2]  # the start is validated too
    assert one["seeds"].tolist() == [2, 2, 2]
    assert (one["low"] <= one["mean"]).all()
    assert {"gradient/contrastive", "gradient_cosine/contrastive_alignment"} <= set(budget["metric"])


@pytest.mark.slow
def test_the_command_of_the_table_makes_the_same_weights(made, tmp_path, monkeypatch, cache):
    monkeypatch.chdir(tmp_path)
    row = pd.read_parquet(made / "runs.parquet").query('changes == \'{"clip_scope": "none"}\' and seed == 1').iloc[0]
    words = shlex.split(row["command"])
    assert words[:3] == ["python", "-m", "stage3.train"]
    assert train_command.main(words[3:]) == 0
    run = RunFolder.load(words[words.index("--run") + 1])
    assert weights_digest(run, int(row["best_step"])).startswith(row["weights_sha256"])
    assert len(row["weights_sha256"]) == 16


@pytest.mark.slow
def test_an_experiment_stopped_between_steps_goes_on_to_the_same_result(comics, cache, tmp_path):
    given = {"data": str(comics), "cache_dir": str(cache), "dim": 16, "gate_hidden": 8, "layout_hidden": 8}
    given |= {"epochs": 2, "batch_pages": 4, "val_fraction": 0.25, "test_fraction": 0.25}
    whole = schedule.plan(chosen(["E6"]), 1, tmp_path / "whole", given).distinct
    schedule.make_all(whole, 1, lambda: False)
    parts = schedule.plan(chosen(["E6"]), 1, tmp_path / "parts", given).distinct
    asked = iter([False, False, False, True])
    with pytest.raises(Interrupted, match="same command"):
        schedule.make_all(parts, 1, lambda: next(asked))
    assert any(RunFolder.exists(p.path) for p in parts)
    assert not all(record_of(p) for p in parts)
    schedule.make_all(parts, 1, lambda: False)
    for a, b in zip(whole, parts, strict=True):
        assert record_of(a)["weights_sha256"] == record_of(b)["weights_sha256"]


@pytest.mark.slow
def test_a_killed_experiment_leaves_no_process_and_keeps_its_finished_runs(made, comics, cache, tmp_path, capsys):
    """Also: what a worker process makes is what this process made of the same settings."""
    args = flags(comics, cache, tmp_path, "--findings", "E6", "S2", "--seeds", "1", "--json")
    command = [sys.executable, "-m", "stage3.ablate", *args, "--jobs", "2"]
    parent = psutil.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("runs/*/evidence.json")) and time.monotonic() < deadline and parent.poll() is None:
        time.sleep(0.05)
    workers = parent.children(recursive=True)
    parent.kill()
    parent.wait()
    assert not psutil.wait_procs(workers, timeout=20)[1], "workers outlive the parent"
    finished = list(tmp_path.glob("runs/*/evidence.json"))
    assert finished
    theirs = pd.read_parquet(made / "runs.parquet").set_index("run")["weights_sha256"]
    for path in finished:
        assert json.loads(path.read_text(encoding="utf-8"))["weights_sha256"].startswith(theirs[path.parent.name])
    assert ablate_command.main(args) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["runs"] == 5
    assert told["trained"] == 5 - len(finished)


@pytest.mark.slow
def test_measured_runs_keep_no_weights_and_remeasure_when_more_is_wanted(comics, cache, tmp_path):
    base = flags(comics, cache, tmp_path, "--seeds", "1")
    ablate_command.main([*base, "--findings", "E6"])
    assert not list(tmp_path.rglob("*.safetensors"))
    ablate_command.main([*base, "--findings", "S1"])  # reads the base run in a way that needs its weights again
    row = pd.read_parquet(tmp_path / "evidence.parquet").set_index("metric")
    assert row.loc["chunked/loss_error", "fixed_mean"] < 1e-5
    assert row.loc["chunked/gradient_error", "fixed_mean"] < 1e-4
    assert row.loc["chunked/floats_a_panel", "difference"] < 0


@pytest.mark.slow
def test_diverging_runs_are_told_and_count_nowhere(comics, cache, tmp_path, monkeypatch):
    def diverge(run, data, stop):
        raise arms_module.NumericError("three steps in a row were not finite")

    monkeypatch.setattr(arms_module, "_train", diverge)
    with pytest.raises(arms_module.NumericError, match="2 runs diverged"):
        ablate_command.main(flags(comics, cache, tmp_path, "--findings", "E6", "--seeds", "1"))
    assert pd.read_parquet(tmp_path / "evidence.parquet").empty
    assert (pd.read_parquet(tmp_path / "runs.parquet")["failed"] != "").all()


# --- thinned data


@pytest.mark.slow
def test_thinning_keeps_its_shares_and_spares_the_other_books(comics, cache, tmp_path):
    config = Config(data=str(comics), cache_dir=str(cache), val_fraction=0.25, test_fraction=0.25)
    whole = Dataset.load(config)
    folder = write_thinned(whole, tmp_path / "thinned")
    thin = Dataset.load(config.replace(data=str(folder)))
    assert thin.table.pages["page_id"].tolist() == whole.table.pages["page_id"].tolist()
    assert thin.split.tolist() == whole.split.tolist()
    train_pages = whole.split == 0
    single = thin.table.pages["n_panels"].to_numpy() == 1
    was_single = whole.table.pages["n_panels"].to_numpy() == 1
    n = int(train_pages.sum())
    assert int((single & train_pages).sum()) >= round(0.85 * n)
    assert int((single & ~was_single & train_pages).sum()) <= round(0.85 * n)
    textless = thin.panel_set.pairs == 0
    assert int((textless & train_pages).sum()) >= round(0.85 * n)
    assert int((thin.panel_set.pairs[train_pages] > 0).sum()) > 0
    for split in ("val", "test"):
        ours, theirs = (d.panel_set.rows_of(d.pages(split)) for d in (thin, whole))
        assert len(ours) == len(theirs)
        for a, b in zip(thin.features.gather(ours), whole.features.gather(theirs), strict=True):
            np.testing.assert_array_equal(a, b)
    stamp = (folder / "manifest.csv").stat().st_mtime_ns
    assert write_thinned(whole, folder) == folder
    assert (folder / "manifest.csv").stat().st_mtime_ns == stamp, "a copy that is there is left alone"


# --- the text


@pytest.mark.slow
def test_the_text_says_where_the_result_is_not_what_was_expected(made):
    text = (made / "evidence.md").read_text(encoding="utf-8")
    assert "## S2 · Clipping over everything learned" in text
    assert "2 seeds per arm" in text
    rows = [r for r in tables.read_rows(made) if r.headline and r.finding == "S2"]
    from dataclasses import replace

    moved = [replace(r, verdict="helps", expected="no effect here", low=0.1, high=0.2) for r in rows]
    about = {"command": "c", "data": "d", "runs": 1, "epochs": 1, "seeds": 1, "panels": 1, "books": 1}
    assert "Expected from earlier trials: *no effect here* for" in evidence.document(moved, [FINDINGS["S2"]], about)
