"""The published evidence is of these very experiments: whoever changes one has to measure it anew."""

import re
from pathlib import Path

import pytest

from stage3.ablate.arms import command_of, config_of
from stage3.ablate.evidence import END, START, document, short_table
from stage3.ablate.findings import FINDINGS
from stage3.ablate.tables import read_rows
from stage3.ablate.terms import METRICS, Arm

FOLDER = Path("data/samples/evidence")


@pytest.fixture(scope="module")
def published():
    return read_rows(FOLDER)


def of_command(arm: Arm) -> str:
    config = config_of(arm, 0, {"data": "data/samples"}, Path("thinned"))
    prepared = "python -m stage3.ablate --prepare --data data/samples --out runs/evidence && "
    return (prepared if arm.data == "thinned" else "") + without_folder(command_of(config, "", pinned=arm.pinned))


def without_folder(command: str) -> str:
    """The run's folder is named by hashes of the data and of the whole settings, thinned data by the experiment's."""
    return re.sub(r"--data \S*thinned", "--data thinned", re.sub(r"--run \S+", "", command))


def test_every_published_row_is_of_an_experiment_that_is_there(published):
    listed = [(finding, i, c) for finding in FINDINGS.values() for i, c in enumerate(finding.comparisons)]
    assert list(dict.fromkeys((r.finding, r.comparison) for r in published)) == [(f.id, i) for f, i, _ in listed]
    for finding, i, comparison in listed:
        rows = [r for r in published if (r.finding, r.comparison) == (finding.id, i)]
        first, *rest = rows
        assert first.headline
        assert not any(r.headline or r.main or r.expected for r in rest)
        assert (first.main, first.expected) == (comparison.main, comparison.expected)
        assert [r.metric for r in rows] == [j.metric for j in comparison.judged]
        for row in rows:
            assert (row.title, row.question) == (finding.title, finding.question)
            assert (row.fixed, row.reviewed) == (comparison.fixed.label, comparison.reviewed.label)
            assert row.label == METRICS[row.metric].label
            assert (row.measured_at, row.half_fix) == (comparison.at, comparison.half)
            assert without_folder(row.fixed_command) == of_command(comparison.fixed)
            assert without_folder(row.reviewed_command) == of_command(comparison.reviewed)


def test_the_published_texts_are_made_of_the_published_rows(published):
    text = (FOLDER / "evidence.md").read_text(encoding="utf-8")
    made = r"Made by `(.*)` on (.*): (\d+) runs of (\d+) epochs, (\d+) seeds per arm, (\d+) test panels in (\d+) books"
    found = re.search(made, text)
    about = dict(zip(("command", "data", "runs", "epochs", "seeds", "panels", "books"), found.groups(), strict=True))
    assert document(published, list(FINDINGS.values()), about) == text
    page = Path("docs/evidence.md").read_text(encoding="utf-8")
    assert page.partition(START)[2].partition(END)[0].strip() == short_table(published)
