"""Which runs an experiment makes, in which order, and the thinned copy of its data; nothing is trained here."""

import json
import math
import multiprocessing
import os
import signal
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml

from stage3 import ablate
from stage3.ablate import schedule
from stage3.ablate.arms import NEVER
from stage3.ablate.tables import read_rows
from stage3.ablate.terms import ORIGINAL, PAGE, R5, SKILL, Arm, Comparison, Finding, Judged
from stage3.ablate.thinning import write_thinned
from stage3.data.splits import TRAIN
from stage3.errors import DataError, Interrupted
from stage3.runs import RunFolder
from tests import synthetic

BASE, AGAIN = Arm("corrected"), Arm("the same under another name")
LR = Arm("another rate", {"lr": 0.5})
METERED = Arm("metered", {}, meter=True)
THIN = Arm("on thin data", {"lr": 0.25}, data="thinned")


def finding(*sides: tuple[Arm, Arm, str]) -> Finding:
    return Finding("X1", "x", "?", tuple(Comparison(a, b, (R5, Judged(metric))) for a, b, metric in sides))


@pytest.fixture
def planned(monkeypatch, tmp_path):
    """Plans of findings on data made in memory, with what was thinned."""
    data, thinned = synthetic.dataset(), []
    monkeypatch.setattr(schedule, "dataset_of", lambda config: data)
    monkeypatch.setattr(schedule, "write_thinned", lambda of, folder: thinned.append((of is data, folder)))

    def of(*findings: Finding, seeds: int = 2, **given: object) -> schedule.Experiment:
        return schedule.plan(findings, seeds, Path("out"), {"data": "somewhere", **given})

    return SimpleNamespace(of=of, data=data, thinned=thinned)


def test_arms_of_equal_settings_share_runs_that_measure_what_any_comparison_reads(planned):
    made = planned.of(finding((BASE, LR, "collapse/intra_cosine"), (AGAIN, METERED, "noise/spread")))
    assert planned.thinned == []
    base, other, metered = (made.of(arm) for arm in (BASE, LR, METERED))
    assert [p.path for p in base] == [p.path for p in made.of(AGAIN)] == [p.path for p in metered]
    assert [p.config.seed for p in base] == [p.config.seed for p in other] == [0, 1]
    assert len(made.distinct) == 4
    assert {p.path for p in made.distinct} == {p.path for p in [*base, *other]}
    assert {p.wants for p in [*base, *metered]} == {frozenset({"noise"})}
    assert {p.wants for p in other} == {frozenset()}
    assert {p.config.checkpoint_every for p in base} == {1}  # the meter reads every epoch's weights
    assert {p.config.checkpoint_every for p in other} == {NEVER}
    assert {p.config.keep_checkpoints for p in [*base, *other]} == {0}  # all, until they are measured
    assert base[1].path == Path("out") / "runs" / f"{base[1].key}-s1"
    assert base[0].config.lr == ORIGINAL["lr"]
    assert other[0].config.lr == 0.5
    assert " --contrastive_weight 1.0" in base[0].command  # in words, whatever the package's defaults are
    own, _ = planned.of(finding((Arm("defaults", pinned=False), BASE, R5)), seeds=1).distinct
    assert " --data somewhere " in own.command
    assert "_weight" not in own.command
    chunked = planned.of(finding((BASE, LR, "chunked/loss_error")), seeds=1)
    assert [p.wants for p in chunked.distinct] == [frozenset({"chunked"})] * 2


def test_a_thinned_arm_has_its_data_written_and_its_command_begins_with_that(planned):
    made = planned.of(finding((THIN, LR, R5)), manifest="m.csv", labels="", lr=0.75)
    assert planned.thinned == [(True, Path("out/data/thinned"))]
    thin, whole = made.of(THIN)[1], made.of(LR)[1]
    assert (thin.config.data, thin.config.manifest) == ("out/data/thinned", "")
    assert (whole.config.data, whole.config.manifest) == ("somewhere", "m.csv")
    prepare = "python -m stage3.ablate --prepare --data somewhere --manifest m.csv --out out && python -m stage3.train "
    assert thin.command.startswith(prepare)
    assert whole.command.startswith("python -m stage3.train ")


def test_thin_data_is_prepared_where_an_experiment_would_write_it(monkeypatch):
    asked, written = [], []
    monkeypatch.setattr("stage3.ablate.arms.dataset_of", lambda config: asked.append(config) or "data")
    monkeypatch.setattr("stage3.ablate.thinning.write_thinned", lambda data, folder: written.append((data, folder)))
    assert ablate.prepare("out", {"val_fraction": 0.3}) == Path("out/data/thinned")
    assert written == [("data", Path("out/data/thinned"))]
    assert [(c.data, c.val_fraction, c.lr) for c in asked] == [("data/samples", 0.3, ORIGINAL["lr"])]


@pytest.mark.parametrize("lacking", ["train", "val"])
def test_an_experiment_needs_pages_to_train_on_and_to_choose_by(planned, monkeypatch, lacking):
    pages = planned.data.pages
    empty = SimpleNamespace(pages=lambda split: [] if split == lacking else pages(split))
    monkeypatch.setattr(schedule, "dataset_of", lambda config: empty)
    with pytest.raises(DataError, match=f"the {lacking} split has no page"):
        planned.of(finding((BASE, LR, R5)))


def bars_of(monkeypatch) -> list[tuple[int, list[int]]]:
    """(total, steps) of each bar of progress that is shown from now on."""
    bars: list[tuple[int, list[int]]] = []

    def progress(label: str, total: int) -> nullcontext[SimpleNamespace]:
        bars.append((total, []))
        return nullcontext(SimpleNamespace(advance=bars[-1][1].append))

    monkeypatch.setattr(schedule, "progress", progress)
    return bars


def test_missing_runs_are_made_in_order_until_it_is_asked_to_stop(planned, monkeypatch):
    plans = planned.of(finding((BASE, LR, R5))).distinct
    there, made, bars = {plans[1].path}, [], bars_of(monkeypatch)
    monkeypatch.setattr(schedule, "record_of", lambda plan: plan.path in there)

    def make(plan, stop) -> None:
        made.append(plan)
        there.add(plan.path)

    monkeypatch.setattr(schedule, "make", make)
    stops = iter([False, True])
    with pytest.raises(Interrupted, match="stopped with 2 of 3 runs left to train; the same command resumes"):
        schedule.make_all(plans, 1, lambda: next(stops))
    assert made == [plans[0]]
    assert schedule.make_all(plans, 1, lambda: False) == 2
    assert made == [plans[0], *plans[2:]]
    assert bars == [(3, [1]), (2, [1, 1])]
    assert schedule.make_all(plans, 8, lambda: True) == 0
    there.remove(plans[3].path)
    assert schedule.make_all(plans, 8, lambda: False) == 1  # one alone needs no process of its own


@pytest.fixture
def workers(planned, monkeypatch, tmp_path):
    """Four runs to be made by processes, which are forked here: they need no imports, and what is patched is theirs."""
    if sys.platform != "linux":
        pytest.skip("needs fork")
    started: list[object] = []

    class Forking(multiprocessing.context.ForkContext):
        def Process(self, *args, **kwargs):
            started.append(super().Process(*args, **kwargs))
            return started[-1]

    contexts = {"spawn": Forking()}  # the only one that is asked for: a forked process may hang in torch
    parent = multiprocessing.parent_process
    patched = SimpleNamespace(get_context=contexts.__getitem__, parent_process=parent)
    monkeypatch.setattr(schedule, "multiprocessing", patched)
    monkeypatch.setattr(schedule, "POLL", 0.01)
    monkeypatch.setattr(schedule, "record_of", lambda plan: plan.path.exists() or None)
    plans = planned.of(finding((BASE, LR, R5))).distinct
    (tmp_path / "begun").mkdir()
    yield SimpleNamespace(plans=[replace(p, path=tmp_path / p.path.name) for p in plans], started=started)
    assert started
    assert not any(process.is_alive() for process in started)


def waits(plan, stop) -> None:
    """A run that takes until it is asked to stop."""
    if not stop():
        (plan.path.parent / "begun" / plan.path.name).touch()
    end = time.monotonic() + 30
    while not stop() and time.monotonic() < end:
        time.sleep(0.005)
    raise Interrupted("saved")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("jobs", [2, 9])
def test_processes_make_what_is_missing_and_leave_ctrl_c_to_their_parent(workers, monkeypatch, jobs):
    def make(plan, stop) -> None:
        assert not stop()
        time.sleep(0.02)
        plan.path.write_text(f"{os.getpid()} {signal.getsignal(signal.SIGINT) == signal.SIG_IGN}")

    monkeypatch.setattr(schedule, "make", make)
    bars = bars_of(monkeypatch)
    first, *missing = workers.plans
    first.path.touch()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs that ignore it
    assert schedule.make_all(workers.plans, jobs, lambda: False) == 3
    assert bars == [(3, [1, 1, 1])]
    assert len(workers.started) == min(jobs, 3)
    ids, ignoring = zip(*(p.path.read_text().split() for p in missing), strict=True)
    assert set(ids) <= {str(process.pid) for process in workers.started}
    assert set(ignoring) == {"True"}
    assert signal.signal(signal.SIGINT, before) == signal.default_int_handler


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_processes_that_are_asked_to_stop_save_and_no_further_run_begins(workers, monkeypatch):
    monkeypatch.setattr(schedule, "make", waits)
    begun = workers.plans[0].path.parent / "begun"
    with pytest.raises(Interrupted, match="stopped with 4 of 4 runs left to train; the same command resumes"):
        schedule.make_all(workers.plans, 2, lambda: any(begun.iterdir()))
    assert 1 <= len(list(begun.iterdir())) <= 2


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_run_that_fails_in_a_process_ends_the_others(workers, monkeypatch):
    def make(plan, stop) -> None:
        if plan.path == workers.plans[1].path:
            raise DataError("no such page")
        waits(plan, stop)

    monkeypatch.setattr(schedule, "make", make)
    with pytest.raises(DataError, match="no such page"):
        schedule.make_all(workers.plans, 2, lambda: False)
    assert len(list((workers.plans[0].path.parent / "begun").iterdir())) <= 2


# --- thin data


def records(folder: Path) -> dict[str, dict]:
    files = sorted((folder / "panels").rglob("*.json"))
    return {
        json.loads(f.read_text(encoding="utf-8"))["canonical_id"]: json.loads(f.read_text(encoding="utf-8"))
        for f in files
    }


def texts(record: dict) -> list[str]:
    return [p["text_content"][0]["text"] for p in record["panels"] if "text_content" in p]


def test_exact_shares_of_the_training_pages_lose_panels_and_texts_and_nothing_else_changes(tmp_path):
    data = synthetic.dataset(books=12, single=0.0, textless=0.0, boxless=0.0)
    folder = write_thinned(data, tmp_path / "thin", single=0.5, textless=0.25)
    pages, panels, found = data.table.pages, data.table.panels, records(folder)
    assert list(found) == sorted(pages["page_id"])
    training = [p.page_id for i, p in enumerate(pages.itertuples()) if data.split[i] == TRAIN]
    single = {name for name in training if len(found[name]["panels"]) == 1}
    textless = {name for name in training if not texts(found[name])}
    assert (len(single), len(textless)) == (round(0.5 * len(training)), round(0.25 * len(training)))
    assert single & textless
    assert textless - single
    which = set()
    for i, page in enumerate(pages.itertuples()):
        rows = range(page.first_panel, page.first_panel + page.n_panels)
        shown = found[page.page_id]["panels"]
        assert [p["panel_number"] for p in shown] == list(range(1, len(shown) + 1))
        if page.page_id in single:
            (row,) = (r for r in rows if box(panels, r) == shown[0]["box_2d"])
            which.add(row - page.first_panel)
            rows = [row]
        assert [p["box_2d"] for p in shown] == [box(panels, r) for r in rows]
        if page.page_id not in textless:
            assert texts(found[page.page_id]) == [panels["dialogue"][r] for r in rows]
            assert [p["description"] for p in shown] == [panels["description"][r] for r in rows]
        assert (data.split[i] == TRAIN) or len(shown) == page.n_panels
    assert len(which) > 2  # not always the first


def box(panels, row: int) -> list[float]:
    x, y, w, h = (float(panels[name][row]) for name in "xywh")
    return [1000 * y, 1000 * x, 1000 * (y + h), 1000 * (x + w)]


def test_a_panel_without_a_box_keeps_its_text(tmp_path):
    data = synthetic.dataset(single=0.0, textless=0.0, boxless=0.4)
    found = records(write_thinned(data, tmp_path / "thin", single=0.0, textless=1.0))
    has_box = data.table.panels["has_box"]
    for i, page in enumerate(data.table.pages.itertuples()):
        shown = found[page.page_id]["panels"]
        boxes = [bool(has_box[page.first_panel + n]) for n in range(page.n_panels)]
        assert ["box_2d" in p for p in shown] == boxes
        assert ["text_content" in p for p in shown] == [data.split[i] != TRAIN or not b for b in boxes]


def test_a_thinned_copy_says_what_it_is_of_and_is_left_alone_until_that_changes(tmp_path):
    data, folder = synthetic.dataset(), tmp_path / "thin"
    pages = data.table.pages
    pages.loc[0, "page_type"], pages.loc[1, "page_type"] = "cover", ""
    pages.loc[0, "image_path"] = "images/é.png"
    assert write_thinned(data, folder) == folder
    first = pages.iloc[0]
    lines = (folder / "manifest.csv").read_bytes().decode().split("\n")
    assert lines[:2] == ["canonical_id,absolute_image_path,book", f"{first.page_id},images/é.png,{first.book_id}"]
    assert len(lines) == len(pages) + 2
    labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    assert list(labels.items())[:2] == [(first.page_id, "cover"), (pages.iloc[1].page_id, "story")]
    assert yaml.safe_load((folder / "dataset.yaml").read_text(encoding="utf-8")) == {
        "name": "thinned", "manifest": "manifest.csv", "panels": "panels", "panel_format": "vlm", "box_order": "yxyx",
        "box_unit": "permille", "labels": "labels.json",
    }  # fmt: skip
    about = {"table": data.table.fingerprint(), "single": 0.85, "silent": 0.85, "seed": 0}
    assert json.loads((folder / "thinned.json").read_text(encoding="utf-8")) == about
    assert sorted(p.name for p in tmp_path.iterdir()) == ["thin"]
    before = records(folder)
    (folder / "mark").touch()
    write_thinned(data, folder)
    assert (folder / "mark").exists()
    write_thinned(replace(data), folder, textless=0.5)
    assert not (folder / "mark").exists()
    write_thinned(data, folder)
    assert records(folder) == before  # the same draw each time
    assert np.mean([len(r["panels"]) == 1 for r in before.values()]) < 0.85


# --- from plans to files

PULLS = (
    "gradient/reconstruction",
    "gradient/contrastive",
    "gradient_cosine/contrastive_alignment",
    "gradient/alignment",
)


def record(plan, value: float) -> dict:
    """As `arms.measure` writes it: the first book has four panels, the second one."""

    def at(v: float, step: int) -> dict:
        metrics = {R5: v, PAGE: 0.9 - v, "noise/spread": v / 8, "loss/reconstruction": 1.0, SKILL: math.nan}
        return {"step": step, "metrics": metrics, "books": {R5: {"a": [4 * v, 4], "b": [v + 0.05, 1]}}}

    about = {"failed": "", "best": at(value, 8), "last": at(value / 2, 12), "val": {R5: value + 0.25, PAGE: 0.5}}
    about |= {"weights_sha256": f"{value:064.3f}", "parts": sorted(plan.wants)}
    return about | ({"noise": {"none": [[value, 1 / 3]]}} if "noise" in plan.wants else {})


@pytest.fixture
def measured(planned, monkeypatch, tmp_path):
    """An experiment of two findings, of which one run diverges and one is never made; nothing of it is trained."""
    both = [
        replace(finding((BASE, LR, "noise/spread"), (METERED, LR, "noise/spread")), id="F4"),
        replace(finding((LR, THIN, "collapse/intra_cosine")), id="F1"),
    ]

    def make(plan, stop) -> None:
        if plan.config.lr == 0.25 and plan.config.seed == 1:
            return
        run = RunFolder.create(plan.path, plan.config)
        value = plan.config.lr + plan.config.seed / 100
        for epoch in (1, 2):
            run.append_metrics({"step": 4 * epoch, "epoch": epoch, "split": "train", "grad_norm": value * epoch})
            row = {"loss/total": value + epoch, "lr": 1.0} | dict.fromkeys(PULLS, value)
            run.append_metrics({"step": 4 * epoch, "epoch": epoch, "split": "val", **row})
        diverged = plan.config.lr == 0.25 and plan.config.seed == 2
        run.write_json("evidence", {"failed": "not finite"} if diverged else record(plan, value))

    monkeypatch.setattr(schedule, "make", make)
    monkeypatch.setattr(ablate, "chosen", lambda names: both)
    said: list[str] = []

    def again() -> dict:
        return ablate.run_experiments(
            ["F4", "F1"], 3, tmp_path / "o", settings={"data": "d", "dim": 8}, tell=said.append
        )

    return SimpleNamespace(out=tmp_path / "o", again=again, said=said, data=planned.data)


def test_an_experiment_makes_what_is_missing_and_says_what_came_out(measured):
    summary = measured.again()
    assert {name: summary[name] for name in ("out", "runs", "trained", "rows")} == {
        "out": str(measured.out), "runs": 9, "trained": 9, "rows": 5,
    }  # fmt: skip
    assert len(summary["failed"]) == 2
    assert measured.said[0] == f"9 runs trained, 0 already present: {measured.out / 'runs'}"
    assert measured.said[-1] == f"tables: {measured.out / 'evidence.md'}, {measured.out / 'evidence.parquet'}"
    # of five panels, the fifth being worth 5 points more
    assert measured.said[1].startswith(
        "F4  corrected / another rate: R@5, both ways 2.3 % against 52.0 %, -49.7 points ["
    )
    assert measured.said[1].endswith(": hurts")
    assert len(measured.said) == 5
    before = (measured.out / "evidence.parquet").read_bytes()
    assert measured.again()["trained"] == 1
    assert measured.said[5] == f"1 runs trained, 8 already present: {measured.out / 'runs'}"
    assert (measured.out / "evidence.parquet").read_bytes() == before


def test_the_files_of_an_experiment_hold_its_runs_curves_budget_front_and_noise(measured):
    measured.again()
    files = {name: pd.read_parquet(measured.out / f"{name}.parquet") for name in ("runs", "curves", "budget", "pareto")}
    runs, curves, budget, front = files.values()
    assert runs["arm"].tolist() == ["corrected"] * 3 + ["another rate"] * 3 + ["on thin data"] * 3
    assert runs["findings"].tolist() == ["F4"] * 3 + ["F4,F1"] * 3 + ["F1"] * 3
    assert runs["failed"].tolist() == [""] * 7 + ["was not made", "not finite"]
    assert runs[f"test:{SKILL}"].isna().all()  # a metric that no test panel has
    known = {"arm": "another rate", "findings": "F4,F1", "seeds": 3}
    shown = curves[(curves["arm"] == "another rate") & (curves["epoch"] == 2)].set_index("metric")
    assert shown.loc["loss/total", [*known, "split"]].to_dict() == known | {"split": "val"}
    assert shown.loc["loss/total", ["mean", "low", "high"]].tolist() == pytest.approx([2.51, 2.5, 2.52], abs=1e-3)
    assert shown.loc["grad_norm", ["mean", "low", "high"]].tolist() == pytest.approx([1.02, 1.0, 1.04], abs=1e-3)
    thin = curves[curves["arm"] == "on thin data"]
    assert set(thin["seeds"]) == {1}  # the run that diverged has none, nor has the one that is not there
    assert budget["metric"].tolist() == [name for name in sorted(PULLS) for _ in (1, 2)] * 3
    assert set(budget["arm"]) == {"corrected", "metered", "another rate"}  # F1 alone has no budget
    assert front["arm"].tolist() == ["corrected", "another rate"]
    assert front["retrieval"].tolist() == pytest.approx([0.013, 0.51])
    meter = json.loads((measured.out / "noise.json").read_text(encoding="utf-8"))
    assert meter == {
        "metered": {
            "changes": {}, "runs": 3, "means": {"noise/spread": pytest.approx(0.013 / 8)},
            "by_seed": {"noise/spread": pytest.approx([0.003 / 8, 0.013 / 8, 0.023 / 8])},
            "losses_of_seed_0": {"none": [[0.003, 0.333333]]},
        }
    }  # fmt: skip
    text = (measured.out / "evidence.md").read_text(encoding="utf-8")
    assert "Made by `python -m stage3.ablate --seeds 3 --data d --dim 8 --findings F4 F1` on d: 9 runs of 10" in text
    pages = measured.data.pages("test")
    panels = int(measured.data.table.pages["n_panels"].to_numpy()[pages].sum())
    books = measured.data.table.pages["book_id"].to_numpy()[pages]
    assert f"3 seeds per arm, {panels} test panels in {len(set(books))} books" in text
    rows = read_rows(measured.out)
    assert {r.command for r in rows if r.finding == "F1"} == {
        "python -m stage3.ablate --seeds 3 --data d --dim 8 --findings F1"
    }
    assert [(r.finding, r.comparison) for r in rows if r.headline] == [("F4", 0), ("F4", 1), ("F1", 0)]
