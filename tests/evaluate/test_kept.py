"""A kept evaluation: read again where nothing changed, measured again where anything did, and never trusted blindly."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from stage3.evaluate import above_chance, evaluation_report, kept_report, measured, stored_report
from stage3.evaluate import report as reports
from stage3.runs import RunFolder
from stage3.runs.data import chosen_pages


@pytest.fixture(scope="module")
def report(only_read):
    """One that was measured; no test changes it."""
    return evaluation_report(only_read[0], data=only_read[1])


@pytest.fixture
def made(only_read, tmp_path):
    """A run of its own for each test, which may damage it."""
    run, data = only_read
    shutil.copytree(run.path, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation-*"))
    return RunFolder(tmp_path / "run", run.config), data


@pytest.fixture
def calls(monkeypatch, report):
    """The splits that were to be measured: the one report stands for each, with what was asked of it."""
    asked = []

    def measure(run, *, split, data, checkpoint, max_pages):
        asked.append(split)
        name, pages, notes = chosen_pages(run, data, split, max_pages)
        about = {"run": str(run.path), "split": name, "pages": len(pages), "notes": notes, "step": checkpoint}
        return json.loads(json.dumps(report | about))

    monkeypatch.setattr(reports, "evaluation_report", measure)
    return asked


def same(a, b):
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)  # NaN is NaN


def test_it_is_measured_once_and_read_as_the_same_report(made, report):
    run, data = made
    assert stored_report(run) is None
    first = kept_report(run, data=data)
    assert same(first, report | {"run": str(run.path)})
    assert same(stored_report(run), first)


def test_what_is_kept_is_read_wherever_the_run_lies(made, calls, tmp_path):
    run, data = made
    first = kept_report(run, data=data)
    assert same(kept_report(run, data=data), first)
    assert same(kept_report(run, data=data, split="test"), first)
    assert same(stored_report(run), first)
    assert calls == [None]
    moved = RunFolder(run.path.rename(tmp_path / "handed-on"), run.config)
    for read in (stored_report(moved), kept_report(moved, data=data)):
        assert same(read, first | {"run": str(moved.path)})
    assert calls == [None]


def test_other_data_another_split_or_checkpoint_is_measured_again(made, calls):
    run, data = made
    kept_report(run, data=data)
    kept_report(run, data=data, split="val")
    turned = np.select([data.split == 1, data.split == 2], [2, 1], data.split)  # val for test: as many books
    kept_report(run, data=data.with_split(turned))
    assert kept_report(run, data=data, max_pages=3)["pages"] == 3
    earlier = next(c.step for c in run.checkpoints() if c.step != run.checkpoint().step)
    at_earlier = kept_report(run, data=data, checkpoint=earlier)
    assert calls == [None, "val", None, None, None]
    no_test = data.with_split(np.where(data.split == 2, 0, data.split))
    instead, asked = kept_report(run, data=no_test), kept_report(run, data=no_test, split="val")
    assert (len(instead["notes"]), calls[5:]) == (len(asked["notes"]) + 1, [None, "val"])  # who asked needs no note
    assert at_earlier["step"] == earlier
    assert stored_report(run)["step"] == run.checkpoint().step  # only the best checkpoint's is kept


def test_test_pages_are_preferred_whatever_was_measured_last(made, calls):
    run, data = made
    for split in ("train", "all", "all", "train"):
        assert kept_report(run, data=data, split=split)["split"] == split
    assert stored_report(run)["split"] == "all"  # not of training pages alone
    assert calls == ["train", "all"]
    calls.clear()
    assert kept_report(run, data=data, split="val")["split"] == stored_report(run)["split"] == "val"
    kept_report(run, data=data)
    kept_report(run, data=data, split="val", again=True)
    assert stored_report(run)["split"] == "test"
    assert [kept_report(run, data=data, split=name)["split"] for name in ("test", "val")] == ["test", "val"]
    assert calls == ["val", None, "val"]


DAMAGES = {
    "intervals are a list": lambda v: v["report"].update(intervals=[1, 2]),
    "an interval is no list": lambda v: v["report"]["intervals"].update({"retrieval/i2t_r5": 0.1}),
    "an interval of one end": lambda v: v["report"]["intervals"].update({"retrieval/i2t_r5": [0.1]}),
    "an interval of words": lambda v: v["report"]["intervals"].update({"retrieval/i2t_r5": [0.1, "b"]}),
    "chance in words": lambda v: v["report"]["chance"].update({"retrieval/i2t_r5": "much"}),
    "a metric is a list": lambda v: v["report"].update({"retrieval/i2t_r5": [0.5]}),
    "a metric is true": lambda v: v["report"].update({"retrieval/i2t_r5": True}),
    "another split": lambda v: v["report"].update(split="<b>"),
    "panels in words": lambda v: v["report"].update(panels="many"),
    "no step": lambda v: v["report"].pop("step"),
    "nothing added": lambda v: v["report"].pop("added"),
    "added without a sentence": lambda v: v["report"]["added"].update(sentence=5),
    "undefined is a list": lambda v: v["report"].update(undefined=[]),
    "a baseline is a list": lambda v: v["report"]["baselines"].update(frozen=[1.0]),
    "a baseline in words": lambda v: v["report"]["baselines"]["untrained"].update({"retrieval/i2t_r5": "x"}),
    "notes are a text": lambda v: v["report"].update(notes="a"),
    "a note is a number": lambda v: v["report"].update(notes=["a", 5]),
    "of another version": lambda v: v.update(format=99),
    "no report": lambda v: v.update(report=5),
}


def test_a_damaged_file_is_as_good_as_none(made, calls):
    run, data = made
    right = kept_report(run, data=data)
    path = run.path / "evaluation-test.json"
    intact = path.read_text(encoding="utf-8")
    for name, damage in DAMAGES.items():
        value = json.loads(intact)
        damage(value)
        path.write_text(json.dumps(value), encoding="utf-8")
        assert stored_report(run) is None, name
    assert same(kept_report(run, data=data), right)
    assert same(stored_report(run), right)
    damaged = json.loads(intact) | {"report": right | {"notes": ["measured earlier"]}}
    path.write_text(json.dumps(damaged), encoding="utf-8")
    assert kept_report(run, data=data)["notes"] == ["measured earlier"]  # not again
    assert same(kept_report(run, data=data, again=True), right)
    assert same(stored_report(run), right)


def test_a_report_of_weights_that_have_changed_since_is_not_shown(made, calls):
    run, data = made
    kept_report(run, data=data)
    loaded = run.load_checkpoint(run.checkpoint().step)
    weights = {name: tensor + 1e-3 for name, tensor in loaded.tensors["model"].items() if tensor.is_floating_point()}
    run.save_checkpoint(loaded.step, {"model": loaded.tensors["model"] | weights}, loaded.state)
    assert stored_report(run) is None


def test_a_number_says_its_interval_chance_baselines_and_what_it_was_measured_on(report):
    way = measured(report, "retrieval/t2i_r5")
    assert (way.value, [way.low, way.high]) == (report["retrieval/t2i_r5"], report["intervals"]["retrieval/t2i_r5"])
    assert way.chance == report["chance"]["retrieval/t2i_r5"]
    assert way.split == "test"
    assert way.of == f"{report['gallery']} panels with image and text"
    assert math.isnan(way.frozen)  # two towers that share no space
    page = measured(report, "retrieval/same_page_r_precision")
    assert page.of == f"{report['panels']} panels"
    assert page.frozen == report["baselines"]["frozen"]["retrieval/same_page_r_precision"]
    assert page.untrained == report["baselines"]["untrained"]["retrieval/same_page_r_precision"]
    assert page.words.startswith(f"{100 * page.value:.1f} % [{100 * page.low:.1f} %, {100 * page.high:.1f} %], chance ")
    rank = measured(report, "collapse/effective_rank")
    assert rank.words == f"{rank.value:.3f}, {rank.of}"  # no share, no interval, no chance
    none = measured(report, "retrieval/none_such")
    assert all(map(math.isnan, (none.value, none.low, none.high, none.chance, none.frozen, none.untrained)))


def test_above_chance_needs_the_whole_interval(report):
    name = "retrieval/mean_r5"
    chance = report["chance"][name]
    for low, said in ((chance + 0.01, True), (chance, False), (chance - 0.01, False), (math.nan, False)):
        other = report | {"intervals": report["intervals"] | {name: [low, 1.0]}}
        assert above_chance(other) is said


def test_the_evaluation_that_ships_with_the_sample_run_is_read():
    """Its format number is a contract: with another one it is measured and written anew."""
    report = stored_report(RunFolder.load(Path(__file__).resolve().parents[2] / "data/samples/runs/sample"))
    assert report["split"] == "test"
    assert report["intervals"]["retrieval/mean_r5"][0] < report["retrieval/mean_r5"]
