"""The evaluation report: the run's own numbers again, intervals that hold, chance levels that random numbers reach."""

import dataclasses
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

import stage3.evaluate
from stage3 import metrics
from stage3.batches.dataset import Dataset
from stage3.errors import ConfigError, DataError
from stage3.evaluate import __main__ as evaluate_command
from stage3.evaluate import compared, evaluation_report, item_values, report_lines
from stage3.evaluate import report as evaluate_report
from stage3.features import FeatureSet
from stage3.metrics.bootstrap import bootstrap_interval, median_interval
from stage3.model import Stage3, embedding, validation
from stage3.model.baselines import MAIN, frozen_of, statistics
from stage3.model.embedding import Embedded
from stage3.runs import data
from stage3.runs.data import MAX_PAGES, as_recorded, chosen_pages


@pytest.fixture(scope="module")
def made(only_read):
    return only_read


@pytest.fixture(scope="module")
def report(made):
    return evaluation_report(made[0], data=made[1])


def test_on_the_validation_pages_it_repeats_what_training_logged_bit_for_bit(made):
    run, data = made
    report = evaluation_report(run, split="val", data=data)
    rows = run.metrics()
    logged = rows[(rows["split"] == "val") & (rows["step"] == run.best().step)].iloc[0].dropna()
    names = [
        n for n in logged.index if n.startswith(("loss/", "weighted/", "active/", "retrieval/", "collapse/", "rec"))
    ]
    assert len(names) > 40
    assert {n: report[n] for n in names} == {n: logged[n] for n in names}
    assert any("chose the checkpoint" in note for note in report["notes"])


def test_every_headline_metric_has_an_interval_around_it_and_a_chance_level(report):
    needed = [f"retrieval/{w}_{m}" for w in ("i2t", "t2i") for m in ("r1", "r5", "r10", "mrr", "median_rank")]
    needed += ["retrieval/within_page_i2t", "retrieval/within_page_t2i", "retrieval/same_page_r_precision"]
    needed += ["reconstruction/skill", "reconstruction/rank_r1", "retrieval/mean_r5", "retrieval/text_to_panel_r1"]
    for name in needed:
        low, high = report["intervals"][name]
        assert low <= report[name] <= high, name
        assert math.isfinite(report["chance"][name]), name


def test_the_report_is_strict_json_and_says_what_was_measured(made, report):
    run, data = made
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert (report["split"], report["step"], report["notes"]) == ("test", run.best().step, [])
    assert report["panels"] == int(np.isin(data.table.page_of_panel, data.pages("test")).sum())
    assert report["gallery"] == report["retrieval/gallery"] < report["panels"]
    assert report["books"] == data.table.pages["book_id"].iloc[data.pages("test")].nunique() < report["pages"]
    assert (report["run"], report["selected_by"]) == (str(run.path), run.best().metric)
    assert report["chance"]["collapse/effective_rank_most"] == min(report["panels"], run.config.dim)


def test_intervals_by_book_resample_books_and_not_pages(made, report):
    run, data = made
    by_book = evaluation_report(run, data=data, intervals="book")
    values = {n: v for n, v in report.items() if "/" in n}
    assert values == {n: v for n, v in by_book.items() if "/" in n}
    assert by_book["intervals"] != report["intervals"]
    with pytest.raises(DataError, match="page, book"):
        evaluation_report(run, data=data, intervals="panel")


def test_an_interval_resamples_the_pages_of_the_panels_that_were_asked(made, report):
    run, data = made
    embedded = embedding.embed(run.model(), data.panel_set, data.pages("test"))
    found = validation.gallery(embedded)
    rows = found["rows"]
    assert rows.tolist() != list(range(len(rows)))  # some panels lack a text
    for way in ("i2t", "t2i"):
        exact = bootstrap_interval((found[way] <= 5).double(), embedded.page_ids[rows])
        shifted = bootstrap_interval((found[way] <= 5).double(), embedded.page_ids[: len(rows)])
        assert report["intervals"][f"retrieval/{way}_r5"] == pytest.approx([exact.low, exact.high])
        assert [exact.low, exact.high] != pytest.approx([shifted.low, shifted.high])


def test_the_mean_of_the_items_is_the_metric(made, report):
    run, data = made
    model = run.model()
    embedded = embedding.embed(model, data.panel_set, data.pages("test"))
    values, _ = item_values(model, embedded)
    for name, (value, at) in values.items():
        assert len(value) == len(at)
        mean = float(value.quantile(0.5) if name.endswith("median_rank") else value[~value.isnan()].mean())
        assert mean == pytest.approx(report[name], abs=1e-9), name


def test_random_embeddings_score_at_the_chance_levels(made):
    """Also with identical texts, which do not compete and so raise the chance."""

    model = made[0].model()
    draw, panels = torch.Generator().manual_seed(0), 900
    vectors = [torch.randn(panels, 32, generator=draw) for _ in range(3)]
    text_ids = torch.arange(panels)
    text_ids[:300] = 0
    present = torch.ones(panels, 3, dtype=torch.bool)
    pages = torch.arange(panels) // 3
    embedded = Embedded(*vectors, present.float() / 3, present, pages, text_ids, torch.arange(panels))
    values, chance = item_values(model, embedded)
    assert chance["retrieval/i2t_r10"] > 10 / panels * 1.1
    for name, level in chance.items():
        if name.startswith("retrieval"):
            found = values[name][0]
            found = found[~found.isnan()]
            if name.endswith("median_rank"):
                assert float(found.median()) == pytest.approx(level, rel=0.1)
            else:
                spread = max(float(found.std()), math.sqrt(level * (1 - level)))
                assert abs(float(found.mean()) - level) < 4 * spread / math.sqrt(len(found)), name


def test_the_interval_of_a_median_covers_the_median_of_the_groups():
    draw = np.random.default_rng(0)
    hits = 0
    for seed in range(60):
        values = draw.normal(size=(40, 3)) + draw.normal(size=(40, 1))  # pages differ
        groups = torch.arange(40).repeat_interleave(3)
        low, high = median_interval(torch.from_numpy(values.ravel()), groups, resamples=200, seed=seed)
        hits += low <= 0 <= high
    assert 52 <= hits <= 60  # 95 % of 60 is 57; resampling panels would cover about 48
    assert all(map(math.isnan, median_interval(torch.ones(3), torch.zeros(3))))


def test_it_falls_back_where_no_book_is_held_out_and_says_so(made):
    run, data = made
    no_test = Dataset(data.table, data.features, np.where(data.split == 2, 0, data.split))
    split, pages, notes = chosen_pages(run, no_test, None)
    assert (split, len(pages)) == ("val", len(data.pages("val")))
    assert any("test split has no pages" in note for note in notes)
    only_train = Dataset(data.table, data.features, data.split * 0)
    split, _, notes = chosen_pages(run, only_train, None)
    assert split == "all"
    assert any("trained on these pages" in note for note in notes)
    with pytest.raises(DataError, match="has no page"):
        chosen_pages(run, only_train, "test")


def test_many_pages_are_thinned_evenly_and_it_is_said(made):
    run, data = made
    _, pages, notes = chosen_pages(run, data, "all", 10)
    assert len(np.unique(pages)) == 10
    assert any("10 of 64 pages used, evenly spaced" in note for note in notes)


def other(data: Dataset, **changes) -> Dataset:
    """The first half of the pages as other data, with the same backbones unless changed."""
    pages = np.arange(len(data.table.pages) // 2)
    rows = np.flatnonzero(data.table.page_of_panel < len(pages))
    features = dataclasses.replace(
        data.features, image_rows=data.features.image_rows[rows], text_rows=data.features.text_rows[rows], **changes
    )
    return Dataset(data.table.subset(pages), features, np.full(len(pages), 2))


def test_changed_data_is_said_and_training_books_among_the_held_out_are_named(made):
    run, data = made
    report = evaluation_report(run, data=other(data), split="test")
    assert (report["split"], report["pages"]) == ("test", 32)
    assert "64 pages then and 32 now" in report["notes"][0]
    assert "share a name with a training book" in report["notes"][1]
    recorded = evaluation_report(run, data=as_recorded(run, other(data)))
    assert (recorded["split"], recorded["notes"]) == ("test", report["notes"][:1])
    assert recorded["pages"] < 32


def test_other_backbones_are_refused_and_both_named(made):
    run, data = made
    ours = data.features.fingerprint
    with pytest.raises(DataError, match=f"{ours[:16]}.*ffffffffffffffff"):
        evaluation_report(run, data=other(data, fingerprint="f" * 64))
    with pytest.raises(DataError, match=r"24 and text.*8 \+ 16"):
        evaluation_report(run, data=other(data, image_sizes=(8, 16)))


def test_without_reconstruction_in_training_there_is_none_in_the_report(tmp_path, trained):
    run, data = trained(tmp_path, reconstruction_weight=0, epochs=1)
    report = evaluation_report(run, data=data)
    assert not [name for name in (*report, *report["intervals"]) if name.startswith("reconstruction/")]
    assert any("its weight is 0" in line for line in report_lines(report))


def test_pages_without_text_leave_gaps_and_no_crash(made):
    run, data = made
    features = dataclasses.replace(data.features, text_rows=np.full_like(data.features.text_rows, -1))
    report = evaluation_report(run, data=Dataset(data.table, features, data.split))
    assert report["gallery"] == 0
    assert math.isnan(report["retrieval/i2t_r1"])
    assert report["retrieval/same_page_r_precision"] > 0
    assert any("R@1" in line and "–" in line for line in report_lines(report))


def test_an_earlier_checkpoint_can_be_asked_for_and_the_run_s_own_data_is_the_default(made, monkeypatch):
    run, data = made
    monkeypatch.setattr(evaluate_report, "load_data", lambda of: {run.path: data}[of.path])
    step = min(c.step for c in run.checkpoints() if c.step != run.best().step)
    report = evaluation_report(run, checkpoint=step)
    assert report["panels"] == int(np.isin(data.table.page_of_panel, data.pages("test")).sum())
    assert (report["step"], report["fingerprint"]) == (step, run.fingerprint(step))
    assert (step == run.best().step, report["selected_by"]) == (False, None)  # another metric chose another one


def test_the_command_prints_a_table_and_one_json_object(made, report, monkeypatch, capsys):
    run, data = made
    asked = []
    monkeypatch.setattr(evaluate_command, "load_data", lambda run, given: asked.append(given) or data)
    assert evaluate_command.main(["--run", str(run.path)]) == 0
    printed = capsys.readouterr().out
    assert f"{100 * report['retrieval/i2t_r5']:.1f} %" in printed
    assert "chance" in printed
    assert "image-only against text-only" in printed
    assert evaluate_command.main(["--run", str(run.path), "--json", "--data", "elsewhere"]) == 0
    assert json.loads(capsys.readouterr().out) == report
    assert asked == [{}, {"data": "elsewhere"}]


def test_what_the_command_was_asked_reaches_the_evaluation_and_only_the_usual_one_is_kept(made, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(evaluate_command, "load_data", lambda run, given: run.path.name)
    monkeypatch.setattr(evaluate_command, "report_lines", lambda report: [])
    for name in ("kept_report", "evaluation_report"):
        monkeypatch.setattr(stage3.evaluate, name, lambda run, name=name, **what: asked.append((name, what)))
    argv = ["--run", str(made[0].path), "--split", "val", "--checkpoint", "7", "--max_pages", "5"]
    for more in ([], ["--intervals", "book"], ["--device", "auto"], ["--data", "d"]):
        assert evaluate_command.main([*argv, *more]) == 0
    what = {"split": "val", "data": made[0].path.name, "checkpoint": 7, "max_pages": 5}
    assert asked == [
        ("kept_report", what | {"again": True}),
        ("evaluation_report", what | {"intervals": "book", "device": "cpu"}),
        ("evaluation_report", what | {"intervals": "page", "device": "auto"}),
        ("evaluation_report", what | {"intervals": "page", "device": "cpu"}),
    ]
    with pytest.raises(SystemExit):
        evaluate_command.main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    for words in (
        "--run RUN [--split SPLIT] [--data FOLDER] [--json] ...",
        "default test, or val",
        "resamples; default page",
        "--max_pages N use",
    ):
        assert words in said
    assert f"evenly spaced; 0 uses all; default {MAX_PAGES}" in said
    assert "default cpu, which gives the same" in said
    assert evaluate_command.main(argv[:2]) == 0
    assert asked[-1] == (
        "kept_report",
        what | {"split": None, "checkpoint": None, "max_pages": MAX_PAGES, "again": True},
    )


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--run", "x", "--split", "tests"], "Did you mean 'test'"),
        (["--run", "x", "--intervals", "panel"], "page, book"),
        (["--run", "no/such/run"], "no such run"),
        ([], "--run"),
    ],
)
def test_wrong_requests_are_refused(argv, words):
    with pytest.raises((ConfigError, DataError), match=words):
        evaluate_command.main(argv)


def test_an_error_is_one_line_with_exit_code_2():
    command = [sys.executable, "-m", "stage3.evaluate", "--run", "no/such/run"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)


def test_other_data_given_by_flags_replaces_every_place_of_the_runs_own(made):
    run, _ = made
    run = type(run)(run.path, run.config.replace(manifest="m", panels="p", panel_format="ocr", limit_pages=3))
    config = data.config_for(run, {"data": "d"})
    assert (config.data, config.manifest, config.panels, config.limit_pages) == ("d", "", "", 0)
    assert config.panel_format == "vlm"
    assert data.config_for(run, {"cache_dir": "c"}).manifest == "m"
    trained_elsewhere = type(run)(run.path, run.config.replace(device="cuda:7", recompute_features=True))
    looking = data.config_for(trained_elsewhere, {})
    assert (looking.device, looking.recompute_features) == ("auto", False)  # as the machine that reads has it
    with pytest.raises(ConfigError, match="--data FOLDER"):
        data.load_data(made[0])


# --- baselines


def test_frozen_features_and_the_untrained_model_stand_beside_every_metric(made, report):
    run, data = made
    model = run.model()
    start = Stage3.untrained(model.encoder.spec, run.config, statistics(data, data.pages("train"))).eval()
    row, _ = validation.all_metrics(start, data.panel_set, data.pages("test"))
    untrained = report["baselines"]["untrained"]
    assert {n: untrained[n] for n in row if n != "retrieval/gallery"} == pytest.approx(
        {n: v for n, v in row.items() if n != "retrieval/gallery"}
    )
    assert untrained.keys() == report["difference"]["untrained"].keys() | {
        n for n in untrained if n.startswith("collapse/") or n.endswith("median_rank")
    }
    embedded = embedding.embed(model, data.panel_set, data.pages("test"))
    frozen, _ = frozen_of(data, embedded)
    for name, features in (("frozen", frozen.panel), ("frozen_image", frozen.image), ("frozen_text", frozen.text)):
        precision = metrics.same_page_r_precision(features, embedded.page_ids)
        assert report["baselines"][name][MAIN] == pytest.approx(metrics.mean_defined(precision))
    assert set(report["difference"]["frozen"]) == {MAIN}  # two backbones: their features cannot be compared


def test_the_difference_is_the_difference_of_the_two_numbers_with_an_interval_by_page_and_by_book(report):
    for baseline, found in report["difference"].items():
        for name, entry in found.items():
            assert entry["mean"] == pytest.approx(report[name] - report["baselines"][baseline][name]), name
            assert all(low <= entry["mean"] <= high for low, high in (entry["page"], entry["book"])), name
    added = report["added"]
    assert added["difference"] == report["difference"]["frozen"][MAIN]["mean"]
    assert added["by_page"] == report["difference"]["frozen"][MAIN]["page"]
    assert added["by_book"] == report["difference"]["frozen"][MAIN]["book"]


def test_the_table_shows_the_baselines_and_ends_with_the_sentence(report):
    lines = list(report_lines(report))
    (head,) = [line for line in lines if line.endswith("chance")]
    assert head.split()[-3:] == ["frozen", "untrained", "chance"]
    (line,) = [line for line in lines if line.startswith("same-page")]
    frozen, untrained = (f"{100 * report['baselines'][n][MAIN]:.1f} %" for n in ("frozen", "untrained"))
    assert line.index(frozen) < line.rindex(untrained)
    assert report["added"]["sentence"] in lines
    for way in report["against_chance"]:
        assert way["sentence"] in lines
        assert way["recall"] == pytest.approx(report[f"retrieval/{way['way']}_r5"])
        assert way["chance"] == pytest.approx(report["chance"][f"retrieval/{way['way']}_r5"])
    assert len(line) == len(head) <= 100


def test_towers_of_one_model_give_frozen_retrieval(made):
    """Image features of the text's own size are compared with it only where one model made both."""
    run, data = made
    features = FeatureSet.in_memory(
        *np.random.default_rng(0).normal(size=(2, len(data.table), 20)).astype(np.float32),
        has_image=data.features.image_rows >= 0,
        has_text=data.features.text_rows >= 0,
    )
    pair = Dataset(data.table, features, data.split)
    config = run.config.replace(vision_backbone="owner/pair", text_backbone="owner/pair")
    spec = dataclasses.replace(run.model().encoder.spec, image_sizes=(20,), text_size=20)
    pages = pair.pages("test")
    for settings, there in ((config, True), (run.config, False)):
        model = Stage3.untrained(spec, settings, statistics(pair, pair.pages("train")))
        embedded = embedding.embed(model, pair.panel_set, pages)
        frozen = frozen_of(pair, embedded)[0]
        baselines = compared.baselines(model, pair, pages, frozen)
        found = baselines["frozen"].row
        assert ("retrieval/i2t_r5" in found) is ("collapse/alignment" in found) is there
        for name, rows in (("frozen", frozen.panel), ("frozen_image", frozen.image), ("frozen_text", frozen.text)):
            check, gap = baselines[name].row, metrics.page_gap(rows, frozen.page_ids)
            assert ("retrieval/i2t_r5" in check) is (there and name == "frozen")  # said once
            assert check["collapse/effective_rank"] == pytest.approx(metrics.effective_rank(rows))
            assert [check[f"collapse/{n}"] for n in ("intra_cosine", "inter_cosine", "page_gap")] == pytest.approx(
                [gap.intra, gap.inter, gap.gap]
            )
        if there:
            expected = metrics.recall_at(validation.gallery(frozen)["i2t"], 5)
            assert found["retrieval/i2t_r5"] == pytest.approx(expected)
            gaps = frozen.image[frozen.aligned] - frozen.text[frozen.aligned]  # both have rows of norm 1
            assert found["collapse/alignment"] == pytest.approx(float(gaps.square().sum(dim=1).mean()), rel=1e-4)


def test_other_data_has_no_training_panels_to_center_on_and_says_so(made):
    run, data = made
    assert any("no training panel" in note for note in evaluation_report(run, data=other(data))["notes"])
