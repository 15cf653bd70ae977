"""The index of words against plain Python over the same texts, its file, and what can go wrong with either."""

from __future__ import annotations

import re
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import forked
import numpy as np
import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st

from stage3.data.table import PanelTable
from stage3.errors import DataError
from stage3.search import words
from stage3.search.words import MAX_PIECES, WordIndex, folded, parsed

# Row by row: (dialogue, description). Rows 1 and 8 have no text.
TEXTS = (
    ("Look, a pumpkin!", "A witch points."),
    ("", ""),
    ("PUMPKINS everywhere", ""),
    ("", "She carves the Pumpkin king"),
    ("The king of the pumpkin field runs", "a king"),
    ("かぼちゃを食べる", "南瓜"),
    ("ฟักทองอยู่ที่นี่", "호박을 먹는다"),
    ("¿Dónde está la calabaza? Ａｌｌｏ", "E\u0301te\u0301, pump\u00adkin pie, हिन्दी"),
    ("", ""),
    ("Don't panic: it is the end", "the-witch-house"),
)


MADE = synthetic.table(books=4, pages=4, textless=1.0)


def table_of(texts: tuple[tuple[str, str], ...]) -> PanelTable:
    panels = MADE.panels.iloc[: len(texts)].copy()
    panels["dialogue"], panels["description"] = zip(*texts, strict=True)
    return PanelTable(panels, MADE.pages, MADE.report)


INDEX = WordIndex(table_of(TEXTS))


@pytest.fixture
def index() -> WordIndex:
    return INDEX


@pytest.mark.parametrize(
    ("query", "exact", "forms"),
    [
        ("pumpkin", [0, 3, 4, 7], [2]),  # a soft hyphen does not part a word
        ("Pumpkins", [2], [0, 3, 4, 7]),
        ('"pumpkins"', [2], []),
        ("pumpkin king", [3, 4], []),
        ("king pumpkin", [3, 4], []),
        ('"pumpkin king"', [3], []),
        ("\u201cpumpkin king\u201d", [3], []),
        ("running pumpkin", [], [4]),
        ('running "pumpkin"', [], [4]),
        ('"running" pumpkin', [], []),
        ("the pumpkin", [0, 3, 4, 7], [2]),
        ('"the" pumpkin', [3, 4], []),
        ("witch", [0, 9], []),
        ("don't", [9], []),
        ("don’t", [9], []),
        ("donde esta", [7], []),
        ("ÉTÉ", [7], []),
        ("allo", [7], []),
        ("हिन्दी", [7], []),
        ("हन", [], []),
        ("南瓜", [5], []),
        ("瓜", [5], []),
        ("瓜南", [], []),
        ("ぼちゃ", [5], []),
        ("「かぼちゃ」", [5], []),
        ("호박", [6], []),
        ("ทอง", [6], []),
        ("pumpkin pointless", [], []),
        ("dialogue:pumpkin", [], []),
        ("pumpk*", [], []),
    ],
)
def test_a_query_finds_exactly_the_panels_that_say_it(index, query, exact, forms):
    said = index.find(query)
    got = said.rows.tolist() if said.every else []
    assert got == exact + forms
    if said.every:
        assert said.exact == len(exact)
        assert said.ranks.tolist() == [1] * len(exact + forms)


def test_without_a_panel_that_says_all_words_rare_words_come_first_and_equal_ones_share_the_last_rank(
    index, monkeypatch
):
    said = index.find("witch pumpkin calabaza zebra")
    assert not said.every
    # calabaza (in 1 text) and pumpkin (in 5): row 7. witch (2) and pumpkin: 0. witch: 9. pumpkin: 2, 3, 4.
    assert said.rows.tolist() == [7, 0, 9, 2, 3, 4]
    assert said.ranks.tolist() == [1, 2, 3, 6, 6, 6]
    monkeypatch.setattr(words, "MAX_PARTIAL", 4)  # only the first ones, with the ranks that they have among all
    said = index.find("witch pumpkin calabaza zebra")
    assert (said.rows.tolist(), said.ranks.tolist()) == ([7, 0, 9, 2], [1, 2, 3, 6])


def test_one_rare_word_against_two_that_a_quarter_of_all_texts_have():
    """Of 19 texts, one against five and five: log(20 / 1.5) = 2.590 is more than 2 log(20 / 5.5) = 2.582."""
    index = WordIndex(table_of((("gate oak", ""), ("pumpkin", ""), *[("gate", ""), ("oak", "")] * 4, *[("x", "")] * 9)))
    assert index.find("pumpkin gate oak").rows.tolist()[:2] == [1, 0]
    index = WordIndex(
        table_of((("gate oak", ""), ("pumpkin", ""), *[("gate", ""), ("oak", "")] * 4, *[("x", "")] * 10))
    )
    assert index.find("pumpkin gate oak").rows.tolist()[:2] == [0, 1]  # of 20 it is less: 2.639 and 2.680


def test_a_word_within_longer_ones_is_found_after_all_that_say_it():
    index = WordIndex(
        table_of(
            (
                ("pumpkinstars", ""),  # glued by a text recognizer
                ("a pumpkin", ""),
                ("THEGREATPUMPKIN of the mill", ""),
                ("pumpkins", "mill"),
                ("an ant", ""),
                ("want", "windmills"),
                ("", "pumpkin windmills"),
            )
        )
    )
    said = index.find("pumpkin")
    assert said.rows.tolist() == [1, 6, 3, 0, 2]
    assert (said.exact, said.forms, said.parts) == (2, 1, 2)
    assert said.ranks.tolist() == [1, 1, 1, 5, 5]
    assert index.find('"pumpkin"').rows.tolist() == [1, 6]  # exactly so
    assert index.find("ant").rows.tolist() == [4]  # too short
    both = index.find("mill pumpkin")
    assert (both.rows.tolist(), both.exact, both.forms, both.parts) == ([3, 2, 6], 0, 1, 2)
    alone = index.find("great mill")
    assert (alone.rows.tolist(), alone.every, alone.parts) == ([2], 0, 1)
    assert index.find("great mill pumpkin of zebra lamp").parts == 0


def test_of_the_panels_that_say_only_some_words_a_thousand_are_found():
    panels = MADE.panels.iloc[np.arange(1002) % len(MADE)].assign(dialogue="gate", description="")
    said = WordIndex(PanelTable(panels, MADE.pages, MADE.report)).find("gate zebra")
    assert said.rows.tolist() == list(range(1000))
    assert set(said.ranks.tolist()) == {1002}


def test_only_allowed_panels_are_found_and_a_filter_can_leave_only_partial_ones(index):
    allowed = np.ones(len(TEXTS), bool)
    allowed[[3, 0]] = False
    said = index.find("pumpkin king", allowed)
    assert (said.every, said.rows.tolist()) == (True, [4])
    allowed[4] = False
    said = index.find("pumpkin king", allowed)
    assert not said.every
    assert said.rows.tolist() == [2, 7]


def test_frequent_words_alone_are_one_phrase_and_that_is_said(index):
    said = index.find("of the")
    assert said.rows.tolist() == [4]
    assert "only very frequent words" in said.notes[0]
    assert index.find("the of").rows.tolist() == []
    assert index.find("it is the").rows.tolist() == [9]
    assert index.find("pumpkin of the").notes == ()


@pytest.mark.parametrize("query", ["", '"', '""', "\0", "♪ !?", "\ud800", "*", "'", "\u200b"])
def test_a_query_without_letters_finds_nothing_and_says_why(index, query):
    said = index.find(query)
    assert not len(said.rows)
    assert "no letter or digit" in said.notes[0]


def test_many_words_are_cut_and_that_is_said(index):
    said = index.find(" ".join(f"w{i}" for i in range(1000)))
    assert said.notes == (f"only the first {MAX_PIECES} words are looked up",)
    filler = " ".join(f"w{i}" for i in range(MAX_PIECES - 1))
    assert index.find(f"{filler} pumpkin").rows.tolist() == [0, 2, 3, 4, 7]
    assert index.find(f"{filler} pumpkin").notes == ()
    assert index.find(f"{filler} w pumpkin").rows.tolist() == []
    assert index.find("pumpkin " * 500).rows.tolist() == [0, 3, 4, 7, 2]  # one word, however often


@given(st.text(max_size=60) | st.text(alphabet="\"'*^:(){}-+ ANDORNT南ab\0", max_size=30))
def test_no_text_is_a_command_or_an_error(query):
    pieces, _ = parsed(query)
    assert all('"' not in piece.text and "\0" not in piece.text for piece in pieces)
    said = INDEX.find(query)
    assert len(said.rows) == len(said.ranks) == len(set(said.rows.tolist()))


@given(
    st.lists(st.lists(st.sampled_from(["gate", "mill", "oak", "fern", "lamp"]), max_size=4), min_size=6, max_size=6),
    st.lists(st.sampled_from(["gate", "mill", "oak", "fern", "lamp"]), min_size=1, max_size=3),
)
def test_all_words_are_found_as_a_loop_over_the_texts_finds_them(texts, query):
    table = table_of(tuple((" ".join(t[:2]), ", ".join(t[2:])) for t in texts))
    said = WordIndex(table).find(" ".join(query))
    expected = [row for row, text in enumerate(texts) if set(query) <= set(text)]
    assert (said.rows.tolist() if said.every else []) == expected
    if not said.every and len(set(query)) > 1:
        assert sorted(said.rows.tolist()) == [row for row, text in enumerate(texts) if set(query) & set(text)]


def test_a_text_is_folded_alike_however_it_is_written():
    assert folded("Straße") == folded("STRASSE")
    assert folded("ｶﾎﾞﾁｬ") == folded("カボチャ")
    assert folded("cafe\u0301") == folded("CAFÉ") == "cafe"
    assert not re.search("[\0\ud800]", folded("a\0b\ud800c"))


# --- the file


def test_the_file_is_made_once_found_again_and_another_for_other_texts(tmp_path):
    first = WordIndex(table_of(TEXTS), tmp_path)
    made = first.path.stat().st_mtime_ns
    assert [p.name for p in (tmp_path / "words").iterdir()] == [first.path.name]
    again = WordIndex(table_of(TEXTS), tmp_path)
    assert again.path.stat().st_mtime_ns == made
    with ThreadPoolExecutor(1) as elsewhere:  # the explorer asks from the threads of its sessions
        assert elsewhere.submit(again.find, "pumpkin").result().rows.tolist() == [0, 3, 4, 7, 2]
    changed = WordIndex(table_of((("no such thing", ""), *TEXTS[1:])), tmp_path)
    assert changed.path != first.path
    assert changed.find("pumpkin").rows.tolist() == [3, 4, 7, 2]


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "foreign", "scrambled"])
def test_a_damaged_file_is_made_again(tmp_path, damage):
    path = WordIndex(table_of(TEXTS), tmp_path).path
    data = path.read_bytes()
    if damage == "foreign":
        path.unlink()
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE about (key TEXT)")
        other.close()
    else:
        kinds = {"empty": b"", "cut": data[: len(data) // 2], "text": b"hello", "scrambled": data[:100] + data[:99:-1]}
        path.write_bytes(kinds[damage])
    index = WordIndex(table_of(TEXTS), tmp_path)
    assert index.find("pumpkin").rows.tolist() == [0, 3, 4, 7, 2]
    assert index.path == path
    assert WordIndex(table_of(TEXTS), tmp_path).find("南瓜").rows.tolist() == [5]


def test_a_file_that_is_damaged_while_it_is_open_is_made_again(tmp_path):
    many = tuple((f"word{i} pumpkin{i % 7} filler {i * 7919 % 10007}", "x" * (i % 40)) for i in range(50))
    index = WordIndex(table_of(many), tmp_path)
    size = index.path.stat().st_size
    with index.path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    assert index.find("pumpkin3").rows.tolist() == [i for i in range(50) if i % 7 == 3]
    assert WordIndex(table_of(many), tmp_path).find("word31").rows.tolist() == [31]


def test_where_nothing_can_be_written_the_index_is_in_memory(tmp_path):
    (tmp_path / "words").write_text("a file in the folder's place", encoding="utf-8")
    index = WordIndex(table_of(TEXTS), tmp_path)
    assert index.path is None
    with ThreadPoolExecutor(1) as elsewhere:
        assert elsewhere.submit(index.find, "pumpkin").result().rows.tolist() == [0, 3, 4, 7, 2]


def test_a_full_disk_leaves_no_half_file(tmp_path, monkeypatch):
    def until_full(self: WordIndex, connection: sqlite3.Connection) -> None:
        write(self, connection)
        if connection.execute("PRAGMA database_list").fetchone()[2]:  # a file, not memory
            raise sqlite3.OperationalError("database or disk is full")

    write = WordIndex._write
    monkeypatch.setattr(WordIndex, "_write", until_full)
    index = WordIndex(table_of(TEXTS), tmp_path)
    assert index.path is None
    assert index.find("pumpkin").rows.tolist() == [0, 3, 4, 7, 2]
    assert list((tmp_path / "words").iterdir()) == []


def test_a_python_without_full_text_search_is_an_error_that_says_so(monkeypatch):
    monkeypatch.setattr(words, "_TABLES", {"exact": "unicode61"})
    write = WordIndex._write

    class Without:
        def execute(self, statement: str, *_: object) -> None:
            if "fts5" in statement:
                raise sqlite3.OperationalError("no such module: fts5")

    with pytest.raises(DataError, match="no full-text search"):
        write(INDEX, Without())


def _find(folder: str, barrier: object, answers: object) -> None:
    barrier.wait()
    answers.put(WordIndex(table_of(TEXTS), Path(folder)).find("pumpkin").rows.tolist())


@pytest.mark.slow
def test_two_processes_at_once_make_one_good_file(tmp_path):
    context = forked.context()
    barrier, answers = context.Barrier(2), context.Queue()
    both = [forked.process(_find, (str(tmp_path), barrier, answers)) for _ in range(2)]
    found = [answers.get(timeout=120) for _ in both]
    for process in both:
        process.join(30)
    assert found == [[0, 3, 4, 7, 2]] * 2
    assert len(list((tmp_path / "words").iterdir())) == 1
    assert WordIndex(table_of(TEXTS), tmp_path).find("南瓜").rows.tolist() == [5]
