"""Every dash of an evaluation has a reason, and every reason stands for a dash."""

import dataclasses
import json

import numpy as np
import pytest

from stage3.batches.dataset import Dataset
from stage3.cli import DASH
from stage3.data.splits import TEST, TRAIN
from stage3.evaluate import evaluation_report, report_lines
from stage3.evaluate.words import COLUMNS, TITLES
from stage3.storage import to_json
from stage3.train.trainer import Trainer
from tests import synthetic


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = synthetic.run(tmp_path_factory.mktemp("runs") / "run", epochs=1)
    with run.lock():
        Trainer(run, synthetic.dataset(run.config)).fit(lambda: False)
    return run


def without(data: Dataset, **rows) -> Dataset:
    absent = {name: np.full_like(getattr(data.features, name), -1) for name in rows}
    return Dataset(data.table, dataclasses.replace(data.features, **absent), data.split)


def only(data: Dataset, pages: list[int]) -> Dataset:
    """Nothing is held out but these pages."""
    split = np.full(len(data.split), TRAIN)
    split[pages] = TEST
    return Dataset(data.table, data.features, split)


def with_panels(data: Dataset, at_least: int, at_most: int = 99) -> int:
    """The first page with so many panels."""
    counts = data.table.pages["n_panels"].to_numpy()
    return int(np.flatnonzero((counts >= at_least) & (counts <= at_most))[0])


CASES = {  # data, and words that the explanation must hold
    "as usual": (lambda d: d, ["image and text features come from two models", "has a head that reconstructs"]),
    "no text": (lambda d: without(d, text_rows=1), ["no panel has both an image and a text", "and 0 with a text"]),
    "no image": (lambda d: without(d, image_rows=1), ["no panel has both an image and a text", "0 with an image"]),
    "single panels": (lambda d: synthetic.dataset(single=1.0), ["no panel has page mates"]),
    "one page": (lambda d: only(d, [with_panels(d, 3)]), ["resampling takes two pages", "all panels are on one page"]),
    "one panel": (lambda d: only(d, [with_panels(d, 1, 1)]), ["it takes two panels, and there is 1"]),
}


@pytest.mark.parametrize("case", CASES)
def test_every_dash_has_its_reason(case, run):
    change, words = CASES[case]
    report = evaluation_report(run, data=change(synthetic.dataset(run.config, boxless=0.0, textless=0.1)))
    lines = list(report_lines(report))
    start = next(i for i, line in enumerate(lines) if line.endswith("chance"))
    end = next(i for i, line in enumerate(lines) if line.startswith("losses, "))
    # The line "of frozen image features alone" is about the same panels as the one above it.
    dashes = sum(line.split().count(DASH) for line in lines[start:end] if not line.startswith("  of frozen"))
    explained = {name: of for name, of in report["undefined"].items() if name in TITLES}
    assert sum(map(len, explained.values())) == dashes
    assert all(set(of) <= set(COLUMNS) and all(of.values()) for of in explained.values())
    why = " ".join(" ".join(lines[lines.index(f"Why there is a {DASH}:") : lines.index("What is compared:")]).split())
    for part in words:
        assert part in why
    assert json.loads(to_json(report))["undefined"] == report["undefined"]


def test_an_interval_by_book_says_that_there_is_one_book(run):
    data = synthetic.dataset(run.config, boxless=0.0)
    report = evaluation_report(run, data=only(data, [0, 1, 2, 3]), intervals="book")
    assert (
        report["undefined"]["retrieval/i2t_r1"]["interval"] == "resampling takes two books with a value, and there is 1"
    )
    assert "value" not in report["undefined"]["retrieval/i2t_r1"]


def test_a_table_without_a_dash_explains_none(run):
    report = evaluation_report(run, data=synthetic.dataset(run.config)) | {"undefined": {}}
    assert not [line for line in report_lines(report) if "Why there is" in line]
