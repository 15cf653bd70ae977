"""The table of planted bugs stays true to the source, and its runner can tell a caught bug from a living one."""

import pytest

from tests.planted_bugs import BUGS, ROOT, Bug, caught


@pytest.mark.parametrize("bug", BUGS, ids=lambda b: b.name)
def test_each_bug_still_has_its_place_in_the_source(bug):
    source = (ROOT / bug.file).read_text(encoding="utf-8")
    assert source.count(bug.old) >= 1
    assert bug.old != bug.new


@pytest.mark.slow
@pytest.mark.heavy  # two test runs in copies of the repository, about the runner alone, which is run weekly at most
def test_the_runner_tells_a_caught_bug_from_a_harmless_change():
    harmless = Bug("harmless", "stage3/data/splits.py", "import annotations", "import annotations  # as before", "")
    tests = "tests/batches/test_batches.py -k split_by_book"
    assert not caught(Bug(harmless.name, harmless.file, harmless.old, harmless.new, tests))
    assert caught(next(b for b in BUGS if b.name == "data a split by page"))
