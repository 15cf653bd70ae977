"""The quick share of `python -m tests.faults`, and that its report counts what breaks."""

from __future__ import annotations

import pytest

from tests.faults import families
from tests.faults.__main__ import report, run
from tests.faults.families import FAMILIES, Outcome

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", [name for name, (_, quick, _) in FAMILIES.items() if quick])
def test_a_quick_share_of_each_family_holds(name):
    outcome, rounds, _ = run(name, seed=1, full=False)
    assert outcome.violations == []
    assert outcome.tried >= min(rounds, 4) - 1


def test_a_family_notices_what_it_is_for(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    monkeypatch.setattr(families.cache, "is_sealed", lambda folder: True)
    outcome = families.cached_tables(40, 1, tmp_path)
    assert 5 < len(outcome.violations) < outcome.tried == 40


def test_the_report_counts_and_names():
    found = {"a": (Outcome(7, ["round 3: x was believed"]), 7, 1.0), "b": (Outcome(5), 5, 2.0)}
    text = report(found, seed=4)
    assert "Seed 4" in text
    assert "12 faults, 1 violations" in text
    assert "| a | 7 | 1 | 1 |" in text
    assert "- round 3: x was believed" in text
