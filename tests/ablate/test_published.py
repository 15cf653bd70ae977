"""The published evidence is of these very experiments: whoever changes one has to measure it anew."""

import json
import re
from pathlib import Path

import pytest

from stage3.ablate import __main__ as command
from stage3.ablate.arms import command_of, config_of
from stage3.ablate.evidence import END, START, document, short_table, verdict
from stage3.ablate.findings import FINDINGS
from stage3.ablate.tables import read_rows
from stage3.ablate.terms import METRICS, Arm
from stage3.errors import DataError, NumericError
from stage3.metrics.bootstrap import Interval

MARKERS = f"{START}\nold\n{END}"
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
            assert row.verdict == verdict(METRICS[row.metric].better, Interval(0, row.low, row.high, row.seeds, 1))
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


def test_the_table_goes_between_the_markers_and_nothing_else_changes(published, tmp_path, capsys):
    page = tmp_path / "README.md"
    page.write_text(f"# Title\n\n{MARKERS}\n\nrest é\n", encoding="utf-8")
    args = ["--out", str(FOLDER), "--update", str(page)]
    assert command.main(args) == 0
    once = page.read_text(encoding="utf-8")
    assert once == f"# Title\n\n{START}\n{short_table(published)}\n{END}\n\nrest é\n"
    assert capsys.readouterr().out == f"{page}: table replaced\n"
    assert command.main([*args, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": str(page), "changed": False}
    assert page.read_text(encoding="utf-8") == once
    page.unlink()
    with pytest.raises(DataError, match=r"README\.md: no such file"):
        command.main(args)


@pytest.mark.parametrize("text", ["nothing", f"{END} {START}", f"{START} {END} {START}", f"{START} {END} {END}"])
def test_a_file_without_proper_markers_is_left_alone(tmp_path, text):
    page = tmp_path / "README.md"
    page.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"README\.md: needs one line .*evidence:start"):
        command.main(["--out", str(FOLDER), "--update", str(page)])
    assert page.read_text(encoding="utf-8") == text


def test_the_command_hands_on_what_is_asked_and_fails_where_runs_diverged(tmp_path, monkeypatch, capsys):
    asked, failed = [], []

    def run_experiments(findings, seeds, out, **more):
        more["tell"]("a line on the way")
        asked.append((findings, seeds, out, more["jobs"], more["settings"]))
        return {"out": out, "failed": failed}

    monkeypatch.setattr(command, "run_experiments", run_experiments)
    monkeypatch.setattr(command, "prepare", lambda out, settings: Path(out, settings["data"]))
    assert command.main([]) == 0
    assert command.main(["--findings", "F1", "F4", "--seeds", "3", "--jobs", "2", "--out", "o", "--lr", "0.5"]) == 0
    assert asked == [(["all"], 5, "runs/evidence", 1, {}), (["F1", "F4"], 3, "o", 2, {"lr": "0.5"})]
    assert capsys.readouterr().out == "a line on the way\n" * 2
    failed += [f"run{i}" for i in range(6)]
    with pytest.raises(NumericError, match=r"^6 runs diverged .*: run0, run1, run2, run3, run4$"):
        command.main(["--json"])
    assert json.loads(capsys.readouterr().out)["failed"] == failed
    assert command.main(["--prepare", "--out", "o", "--data", "d"]) == 0
    assert capsys.readouterr().out == f"thinned data: {Path('o/d')}\n"
    with pytest.raises(SystemExit):
        command.main(["--help"])
    help_text = capsys.readouterr().out
    for option in ("--findings ID [ID ...]", "--seeds N", "--out DIR", "--jobs N", "--update FILE", "--prepare "):
        assert f" {option}" in help_text
