"""Every dash of an evaluation has a reason, and every reason stands for a dash."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from stage3.batches.dataset import Dataset
from stage3.cli import DASH
from stage3.data.splits import TEST, TRAIN
from stage3.evaluate import evaluation_report, report_lines, undefined
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


COUNTS = undefined.Counts(panels=9, images=8, texts=6, pairs=5, mates=4, pages=7)  # no two are equal
TWO_MODELS, PAIRS = "from two models", "both an image and a text (9 panels, 8 with an image and 6 with a text)"
KINDS = {  # what a reason must say of a value, and of that of frozen features; counts that are others
    "retrieval/within_page_t2i": [("different texts (5 panels with image", TWO_MODELS, {})],
    "retrieval/t2i_mrr": [(PAIRS, TWO_MODELS, {})],
    "retrieval/text_to_panel_r1": [(PAIRS, "the fused panel embedding is the model's", {})],
    "retrieval/same_page_r_precision": [("no panel has page mates (7 pages with 9 panels)",) * 2 + ({},)],
    "collapse/alignment": [(PAIRS, TWO_MODELS, {})],
    "collapse/inter_cosine": [("all panels are on one page",) * 2 + ({"pages": 1},)],
    "collapse/page_gap": [
        ("all panels are on one page",) * 2 + ({"pages": 1},),
        ("no panel has page mates",) * 2 + ({"pages": 2},),
    ],
    "collapse/intra_cosine": [("no panel has page mates (1 page with",) * 2 + ({"pages": 1},)],
    "collapse/uniformity": [("two panels, and there is 1",) * 2 + ({"panels": 1, "pages": 1},)],
    "reconstruction/skill": [
        ("have the same embedding", "only a model has a head", {}),
        ("no panel has page mates", "only a model has a head", {"mates": 0}),
    ],
}


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_of_number_has_a_reason_of_its_own(name):
    nothing = {"chance": {}, "intervals": {}, "baselines": {"frozen": {}, "untrained": {}}, "resampled": "book"}
    report = {name: math.nan, "loss/total": math.nan} | nothing
    for value, frozen, other in KINDS[name]:
        counts = dataclasses.replace(COUNTS, **other)
        found = undefined.undefined(report, counts, {}, torch.zeros(0), joint=False)
        assert list(found) == [name]
        assert list(found[name]) == ["value", "frozen", "untrained"]
        assert value in found[name]["value"] == found[name]["untrained"]
        assert frozen in found[name]["frozen"]
        if frozen == TWO_MODELS:
            found = undefined.undefined(report, counts, {}, torch.zeros(0), joint=True)
            assert value in found[name]["frozen"]


def test_one_group_with_a_value_has_no_interval_and_what_is_defined_needs_no_reason():
    names = ("retrieval/i2t_r1", "retrieval/t2i_r1", "retrieval/mean_r1")
    at, groups = torch.tensor([1, 3]), torch.tensor([5, 6, 5, 7])  # of the panels; the values are of two of them
    values = {name: (torch.tensor([0.0, math.nan if name == names[0] else 1.0]), at) for name in names}
    numbers = dict.fromkeys(names, 0.5)
    report = {
        **numbers, names[1]: math.nan, "resampled": "book", "chance": {names[0]: 0.5, names[2]: 0.5},
        "intervals": {names[0]: [math.nan] * 2, names[1]: [math.nan] * 2, names[2]: [0.25, 0.75]},
        "baselines": {"frozen": numbers, "untrained": {names[0]: 0.5, names[2]: 0.5}},
    }  # fmt: skip
    found = undefined.undefined(report, COUNTS, values, groups, joint=True)
    assert list(found) == list(names[:2])
    assert found[names[0]] == {"interval": "resampling takes two books with a value, and there is 1"}
    assert list(found[names[1]]) == ["value", "interval", "untrained", "chance"]
    assert all(PAIRS in reason for reason in found[names[1]].values())
