"""The benchmarks' command: the table that it writes, and that every script still runs. No test looks at a time."""

import importlib
import json

import numpy as np
import pytest

from benchmarks import ocr, own_comics
from benchmarks.__main__ import BENCHMARKS, END, HEAD, START, as_rows, main, measure, updated
from benchmarks.panels import Score, add, matched, overlaps
from tests.planted_bugs import ROOT

pytestmark = pytest.mark.slow

TABLE = "\n".join(
    [
        "# Title",
        START,
        *HEAD,
        "| `step` | a | 1 | 2 | 2020-01-01 |",
        "| `images` | b | 3 | 4 | 2020-01-01 |",
        END,
        "rest",
    ]
)


def test_rows_of_what_was_measured_are_replaced_and_others_stay():
    once = updated(TABLE, {"images": as_rows("images", [("new", "5", "6")], "2026-01-01")})
    lines = once.splitlines()
    assert lines[0] == "# Title"
    assert lines[-1] == "rest"
    assert lines.count("| `step` | a | 1 | 2 | 2020-01-01 |") == 1
    assert lines.count("| `images` | new | 5 | 6 | 2026-01-01 |") == 1
    assert "| `images` | b |" not in once
    assert updated(once, {}) == once


@pytest.mark.parametrize("text", ["nothing", f"{END} {START}", 2 * f"{START} {END} "])
def test_a_file_without_proper_markers_is_refused_before_anything_is_measured(text, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.__main__.measure", lambda *_, **__: pytest.fail("measured"))
    path = tmp_path / "x.md"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="benchmarks:start"):
        main(["images", "--update", str(path)])
    assert path.read_text(encoding="utf-8") == text


def test_the_documentation_has_every_benchmark_and_no_quick_number():
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert updated(text, {}) == text
    assert all(f"| `{name}` |" in text and f"**`{name}`**" in text for name in BENCHMARKS)
    assert ", quick |" not in text


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("[a-z]*.py")), ids=lambda p: p.stem)
def test_every_script_imports_what_there_is(path):
    importlib.import_module(f"benchmarks.{path.stem}")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["images", "search", "manifest", "panels"])
def test_a_script_prints_what_the_table_reads(name):
    lines = measure(name, quick=True)
    assert lines
    assert all(len(line) == 3 and all(line) for line in lines)


def test_boxes_are_matched_one_to_one_with_the_best_partner_first():
    true = np.array([[0.0, 0, 10, 10], [20, 0, 10, 10]])
    found = np.array([[1.0, 0, 10, 10], [0, 0, 10, 10], [20, 0, 10, 5]])
    assert np.allclose(overlaps(found, true), [[9 / 11, 0], [1, 0], [0, 0.5]])
    assert matched(found, true, 0.8) == 1
    assert matched(found, true, 0.5) == 2
    assert matched(found[:0], true, 0.5) == 0
    score = Score()
    add(score, found, true)
    add(score, true[::-1], true)
    assert (score.pages, score.true, score.found, score.right_5, score.right_8, score.exact) == (2, 4, 5, 4, 3, 1)
    assert score.f1(score.right_5) == pytest.approx(8 / 9)


@pytest.mark.parametrize(
    ("a", "b", "edits"),
    [("", "", 0), ("soup", "", 4), ("kitten", "sitting", 3), ("pumpkin", "pumpkins", 1), ("ab", "ba", 2)],
)
def test_edits_are_counted_by_hand(a, b, edits):
    assert ocr.distance(a, b) == ocr.distance(b, a) == edits


def test_texts_are_compared_without_signs_and_a_panel_is_right_up_to_a_fifth():
    assert ocr.plain(" I'll  have FOUR… pumpkin-stars!") == "ill have four pumpkin stars"
    score = ocr.Score()
    assert ocr.add(score, "Where is it", "Where is it?")
    assert ocr.add(score, "abcdefgh", "abcdefghij")  # two of ten
    assert not ocr.add(score, "abcdefg", "abcdefghij")
    assert not ocr.add(score, "seen", "")
    assert ocr.add(score, "...", "")
    assert (score.edits, score.letters) == (0 + 2 + 3 + 4, 11 + 10 + 10)
    assert (score.with_text, score.right, score.without_text, score.left_empty) == (3, 2, 2, 1)
    assert ocr.add(score, "allis well", "all is well")
    assert score.edits_without_spaces == 2 + 3 + 4  # a missing space is no letter


def test_what_a_search_found_is_compared_with_the_panels_that_say_it(tmp_path):
    for book, page, texts in (("a", "p1", ["Pumpkins!", "no"]), ("b", "p2", ["no", "two pumpkinstars"])):
        path = tmp_path / book / f"{page}.json"
        path.parent.mkdir()
        path.write_text(json.dumps({"panels": [{"text": text} for text in texts]}), encoding="utf-8")
    assert own_comics.with_word(tmp_path, "pumpkin") == {("p1", 1), ("p2", 2)}
    hits = [
        {"page_id": "b/p2", "order": 1, "text": "two PUMPKINSTARS"},
        {"page_id": "a/p1", "order": 0, "text": "soup"},
    ]
    assert own_comics.said(hits, "pumpkin") == {("p2", 2)}
