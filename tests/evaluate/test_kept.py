"""A kept evaluation: read again where nothing changed, measured again where anything did, and never trusted blindly."""

import json
import math
import shutil

import numpy as np
import pytest

from stage3.evaluate import above_chance, evaluation_report, kept_report, measured, stored_report
from stage3.evaluate import report as reports
from stage3.runs import RunFolder


@pytest.fixture
def made(only_read, tmp_path):
    """A run of its own for each test, which may damage it."""
    run, data = only_read
    shutil.copytree(run.path, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation-*"))
    return RunFolder(tmp_path / "run", run.config), data


def count_measuring(monkeypatch):
    calls = []

    def measure(*args, **kwargs):
        calls.append(kwargs["split"])
        return evaluation_report(*args, **kwargs)

    monkeypatch.setattr(reports, "evaluation_report", measure)
    return calls


def same(a, b):
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)  # NaN is NaN


def test_it_is_measured_once_and_read_as_the_same_report(made, monkeypatch, tmp_path):
    run, data = made
    calls = count_measuring(monkeypatch)
    assert stored_report(run) is None
    first = kept_report(run, data=data)
    assert same(first, evaluation_report(run, data=data))
    assert same(kept_report(run, data=data), first)
    assert same(stored_report(run), first)
    assert calls == [None]
    moved = RunFolder(run.path.rename(tmp_path / "handed-on"), run.config)
    for read in (stored_report(moved), kept_report(moved, data=data)):
        assert same(read, first | {"run": str(moved.path)})
    assert calls == [None]


def test_other_data_another_split_or_checkpoint_is_measured_again(made, monkeypatch):
    run, data = made
    kept_report(run, data=data)
    calls = count_measuring(monkeypatch)
    kept_report(run, data=data, split="val")
    turned = np.select([data.split == 1, data.split == 2], [2, 1], data.split)  # val for test: as many books
    kept_report(run, data=data.with_split(turned))
    kept_report(run, data=data, max_pages=3)
    earlier = next(c.step for c in run.checkpoints() if c.step != run.checkpoint().step)
    at_earlier = kept_report(run, data=data, checkpoint=earlier)
    assert calls == ["val", None, None, None]
    assert at_earlier["step"] == earlier
    assert stored_report(run)["step"] == run.checkpoint().step  # only the best checkpoint's is kept


def test_test_pages_are_preferred_whatever_was_measured_last(made):
    run, data = made
    kept_report(run, data=data)
    kept_report(run, data=data, split="val")
    assert stored_report(run)["split"] == "test"
    assert (
        kept_report(run, data=data)["retrieval/i2t_r5"] != kept_report(run, data=data, split="val")["retrieval/i2t_r5"]
    )


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


def test_a_damaged_file_is_as_good_as_none(made):
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


def test_a_report_of_weights_that_have_changed_since_is_not_shown(made):
    run, data = made
    kept_report(run, data=data)
    loaded = run.load_checkpoint(run.checkpoint().step)
    weights = {name: tensor + 1e-3 for name, tensor in loaded.tensors["model"].items() if tensor.is_floating_point()}
    run.save_checkpoint(loaded.step, {"model": loaded.tensors["model"] | weights}, loaded.state)
    assert stored_report(run) is None


def test_a_number_says_its_interval_chance_baselines_and_what_it_was_measured_on(made):
    run, data = made
    report = kept_report(run, data=data)
    way = measured(report, "retrieval/t2i_r5")
    assert (way.value, [way.low, way.high]) == (report["retrieval/t2i_r5"], report["intervals"]["retrieval/t2i_r5"])
    assert way.chance == report["chance"]["retrieval/t2i_r5"]
    assert way.of == f"{report['gallery']} panels with image and text"
    assert math.isnan(way.frozen)  # two towers that share no space
    page = measured(report, "retrieval/same_page_r_precision")
    assert page.of == f"{report['panels']} panels"
    assert page.frozen == report["baselines"]["frozen"]["retrieval/same_page_r_precision"]
    assert page.untrained == report["baselines"]["untrained"]["retrieval/same_page_r_precision"]
    assert page.words.startswith(f"{100 * page.value:.1f} % [{100 * page.low:.1f} %, {100 * page.high:.1f} %], chance ")
    assert math.isnan(measured(report, "retrieval/none_such").value)


def test_above_chance_needs_the_whole_interval(made):
    run, data = made
    report = kept_report(run, data=data)
    name = "retrieval/mean_r5"
    chance = report["chance"][name]
    for low, said in ((chance + 0.01, True), (chance, False), (chance - 0.01, False), (math.nan, False)):
        report["intervals"][name] = [low, 1.0]
        assert above_chance(report) is said
