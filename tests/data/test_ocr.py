"""Lines become texts of panels: joined, ordered, told apart, and written into the panel files of a data set once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from import_world import EAST, LEFT, RIGHT, TOP, coco, kumiko, page, tree_bytes
from PIL import Image

from stage3.cli import Stop
from stage3.config import Config
from stage3.data import __main__ as data_command
from stage3.data.exporters import export_panels
from stage3.data.importers import import_comics, read_texts, texts
from stage3.data.ocr import Line, rapid
from stage3.data.ocr.joining import blocks, usual_height
from stage3.data.ocr.placing import placed
from stage3.errors import ConfigError, DataError, Interrupted, InUse
from stage3.storage import Lock

SIZE = (1000, 1400)
PAGE = (0.0, 0.0, 1000.0, 1400.0)


def line(text: str, x: float, y: float, w: float = 200, h: float = 20, sure: float = 0.9) -> Line:
    return Line(text, (x, y, w, h), sure)


def said(found: Any) -> list[list[str]]:
    return [[block.text for block in some] for some in found.panels]


# --- lines into balloons, balloons into panels


def test_lines_of_a_balloon_are_joined_and_balloons_read_in_the_direction_of_the_page() -> None:
    """Two balloons of two lines side by side; the lines of the right one stand higher."""
    lines = [
        line("left two", 100, 140),
        line("right two", 600, 122),
        line("left one", 100, 118),
        line("right one", 600, 100),
    ]
    assert said(placed(lines, [PAGE], SIZE, right_to_left=False)) == [["left one left two", "right one right two"]]
    assert said(placed(lines, [PAGE], SIZE, right_to_left=True)) == [["right one right two", "left one left two"]]


@given(st.permutations(range(5)))
def test_the_order_in_which_lines_were_found_does_not_matter(order: list[int]) -> None:
    lines = [
        line("She said", 100, 100, 90),
        line("that", 200, 102, 50),  # in the row of the one before
        line("it rains.", 110, 121, 120),
        line("Again?", 700, 300, 90),
        line("Yes.", 300, 900, 60),
    ]
    found = placed([lines[k] for k in order], [PAGE], SIZE, right_to_left=False)
    assert said(found) == [["She said that it rains.", "Again?", "Yes."]]


def test_a_lower_line_stands_in_the_row_of_a_higher_one_that_it_shares_half_its_height_with() -> None:
    def two(top: float) -> list[str]:
        lines = [Line("tall", (200.0, 100.0, 60.0, 20.0), 0.9), Line("low", (150.0, top, 46.0, 16.0), 0.9)]
        return said(placed(lines, [PAGE], SIZE, right_to_left=False))[0]

    assert two(109) == two(111) == ["low tall"]  # in one row, from left to right
    higher = [Line("first", (100.0, 100.0, 60.0, 24.0), 0.9), Line("then", (170.0, 104.0, 60.0, 18.0), 0.9)]
    assert said(placed(higher[::-1], [PAGE], SIZE, right_to_left=False)) == [["first then"]]


def test_columns_are_read_from_the_right_and_joined_without_spaces() -> None:
    columns = [Line("雨だ", (500, 100, 30, 90), 0.9), Line("また", (540, 100, 30, 90), 0.9)]
    assert said(placed(columns, [PAGE], SIZE, right_to_left=True)) == [["また雨だ"]]


def test_lines_go_to_the_panel_that_holds_most_and_are_not_joined_over_a_gutter() -> None:
    """Neighbors above and below a gutter as near as lines of one balloon."""
    upper, lower = (0.0, 0.0, 1000.0, 500.0), (0.0, 506.0, 1000.0, 800.0)
    lines = [line("above", 100, 478), line("below", 100, 508), line("over the edge", 600, 490, h=30)]
    found = placed(lines, [upper, lower], SIZE, right_to_left=False)
    assert said(found) == [["above"], ["over the edge", "below"]] or said(found) == [
        ["above"],
        ["below", "over the edge"],
    ]


def test_of_panels_that_hold_a_text_alike_the_smaller_has_it() -> None:
    inset = (100.0, 100.0, 300.0, 300.0)
    assert said(placed([line("inset", 150, 150)], [PAGE, inset], SIZE, right_to_left=False)) == [[], ["inset"]]


def test_a_caption_between_panels_goes_to_the_nearest_and_one_far_away_to_none() -> None:
    upper, lower = (0.0, 0.0, 1000.0, 400.0), (0.0, 500.0, 1000.0, 400.0)
    lines = [line("near the lower", 100, 470), line("credits", 100, 1200)]
    found = placed(lines, [upper, lower], SIZE, right_to_left=False)
    assert said(found) == [[], ["near the lower"]]
    assert [block.text for block in found.outside] == ["credits"]


@pytest.mark.parametrize(
    ("odd", "kind"),
    [
        (line("KRAK!", 300, 600, 300, 70), "sound"),
        (line("The Potion Contest", 300, 600, 500, 70), "dialogue"),  # a title
        (line("- 12 -", 480, 1370, 40), "page_number"),
        (line("12", 480, 700, 40), "dialogue"),  # in the middle of the page
        (line("1850", 480, 20, 60), "page_number"),
    ],
)
def test_sounds_and_page_numbers_are_told_by_size_and_place(odd: Line, kind: str) -> None:
    usual = [line(f"words of a balloon {k}", 100, 200 + 200 * k) for k in range(4)]
    found = {block.text: block.kind for block in blocks([*usual, odd], SIZE[1])}
    assert found.pop(odd.text) == kind
    assert set(found.values()) == {"dialogue"}
    assert (usual_height([]), usual_height(usual)) == (0, 20)


def test_a_page_number_belongs_to_no_panel_and_confidence_counts_letters() -> None:
    lines = [line("abcdefghi", 100, 100, sure=1.0), line("j", 100, 122, sure=0.0), line("7", 500, 1380, 20)]
    found = placed(lines, [PAGE], SIZE, right_to_left=False)
    assert [(b.text, b.kind) for b in found.outside] == [("7", "page_number")]
    assert found.panels[0][0].confidence == pytest.approx(0.9)
    assert found.panels[0][0].box == (100, 100, 200, 42)


# --- panel files


class Reader:
    """Says the same of every page: a line in the top left, a loud one below, and a page number."""

    name = "reader 1"
    calls = 0

    def read(self, image: Image.Image) -> list[Line]:
        Reader.calls += 1
        w, h = image.size
        return [
            Line(f"seen {w}", (20.0, 20.0, 60.0, 8.0), 0.75),
            Line("BAM", (20.0, 60.0, 60.0, 20.0), 0.95),
            Line("4", (w / 2, h - 6.0, 5.0, 5.0), 1.0),
        ]


@pytest.fixture(autouse=True)
def reader(monkeypatch: pytest.MonkeyPatch) -> type[Reader]:
    Reader.calls, Reader.name = 0, "reader 1"
    monkeypatch.setattr(texts, "load_reader", lambda text: Reader())
    return Reader


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_what_was_read_stands_in_the_panel_file_with_its_source_and_confidence(tmp_path: Path, out: Path) -> None:
    import_comics(kumiko(tmp_path / "in"), out)
    before = page(out, "Book A/page2")
    made = read_texts(out)
    after = page(out, "Book A/page2")
    assert [tuple(p["bbox"]) for p in after["panels"]] == [TOP, RIGHT, LEFT]
    first = after["panels"][0]
    assert (first["text"], first["source"], first["text_confidence"]) == (
        "seen 200",
        "kumiko",
        pytest.approx((8 * 0.75 + 3 * 0.95) / 11, abs=1e-4),
    )
    entries = [(t["text"], t["kind"], t["confidence"], t["source"]) for t in first["texts"]]
    assert entries == [("seen 200", "dialogue", 0.75, "reader 1"), ("BAM", "sound", 0.95, "reader 1")]
    assert [t["kind"] for t in after["texts"]] == ["page_number"]
    assert after["panels"][1:] == before["panels"][1:]
    assert after["full_page_text"] == "seen 200"
    assert (made.pages, made.new, made.read, made.given, made.sounds, made.numbers) == (2, 2, 2, 0, 2, 2)
    exported = tmp_path / "one.json"
    export_panels(Config(data=str(out), cache_dir=str(tmp_path / "cache")), exported, "coco")
    assert "seen 200" in exported.read_text(encoding="utf-8")


def test_text_that_is_there_stays(tmp_path: Path, out: Path) -> None:
    import_comics(coco(tmp_path / "in"), out)
    before = page(out, "Book A/page2")
    had = [p["text"] for p in before["panels"]]
    assert had[0]
    assert not all(had)  # so the page is looked at
    made = read_texts(out)
    assert page(out, "Book A/page2")["panels"][0] == before["panels"][0]
    assert made.given == sum(map(bool, had)) + sum(
        bool(p["text"]) for p in page(out, "Book A/page10")["panels"] if "seen" not in p["text"]
    )


def test_a_second_call_reads_nothing_and_writes_nothing(tmp_path: Path, out: Path, reader: type[Reader]) -> None:
    import_comics(kumiko(tmp_path / "in"), out)
    read_texts(out)
    calls, bytes_before = reader.calls, tree_bytes(out)
    again = read_texts(out)
    assert (again.new, reader.calls, tree_bytes(out)) == (0, calls, bytes_before)
    assert import_comics(tmp_path / "in" / "Book A", out).new == 0
    assert page(out, "Book A/page2")["panels"][0]["text"] == "seen 200"  # an import does not make pages anew for it


@pytest.mark.parametrize("workers", [1, 3])
def test_import_with_text_equals_import_and_reading_afterwards(tmp_path: Path, out: Path, workers: int) -> None:
    source = kumiko(tmp_path / "in")
    summary = import_comics(source, out, text="ocr", workers=workers)
    assert summary.texts is not None
    assert summary.texts.new == 2
    other = tmp_path / "other" / "out"
    import_comics(source, other)
    read_texts(other)
    files = {name: data for name, data in tree_bytes(out).items() if name != "import_report.json"}
    assert files == {name: data for name, data in tree_bytes(other).items() if name != "import_report.json"}
    assert json.loads((out / "import_report.json").read_text(encoding="utf-8"))["texts"]["read"] == 2


def test_an_interrupted_reading_goes_on(tmp_path: Path, out: Path, reader: type[Reader]) -> None:
    import_comics(kumiko(tmp_path / "in"), out)
    stop = Stop()
    stop.asked = True
    with pytest.raises(Interrupted, match="after the text of 1 page; the same command goes on"):
        read_texts(out, workers=1, stop=stop)
    made = read_texts(out)
    assert (made.new, made.pages) == (1, 2)
    whole = tmp_path / "whole" / "out"
    import_comics(tmp_path / "in" / "Book A", whole)
    read_texts(whole)
    assert tree_bytes(out) == tree_bytes(whole)


def test_a_crash_between_journal_and_panel_file_leaves_no_page_that_looks_changed_by_hand(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_comics(kumiko(tmp_path / "in"), out)

    def crash(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(texts, "replace_file", crash)
        with pytest.raises(KeyboardInterrupt):
            read_texts(out)
    read_texts(out)
    whole = tmp_path / "whole" / "out"
    import_comics(tmp_path / "in" / "Book A", whole)
    read_texts(whole)
    assert tree_bytes(out) == tree_bytes(whole)


def test_a_panel_file_changed_by_hand_gets_text_and_stays_known_as_changed(tmp_path: Path, out: Path) -> None:
    source = kumiko(tmp_path / "in")
    import_comics(source, out)
    path = out / "panels" / "Book A" / "page2.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["panels"][0]["bbox"] = [0, 0, 150, 80]  # in the corner of the page
    content["panels"][1]["bbox"] = ["nonsense"]
    path.write_text(json.dumps(content), encoding="utf-8")
    read_texts(out)
    found = page(out, "Book A/page2")["panels"]
    assert (found[0]["bbox"], found[0]["text"]) == ([0, 0, 150, 80], "seen 200")
    Image.new("RGB", (200, 300), (1, 2, 3)).save(source / "page2.png")  # the source changes: made anew but for the hand
    import_comics(source, out)
    assert page(out, "Book A/page2")["panels"][0]["bbox"] == [0, 0, 150, 80]


def test_lines_stand_in_the_pixels_that_the_panel_file_counts_in(tmp_path: Path, out: Path) -> None:
    import_comics(kumiko(tmp_path / "in"), out)
    path = out / "panels" / "Book A" / "page2.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content |= {"image_width": 400, "image_height": 900}  # of an image of 200 x 300
    for panel in content["panels"]:
        panel["bbox"] = [v * scale for v, scale in zip(panel["bbox"], (2, 3, 2, 3), strict=True)]
    path.write_text(json.dumps(content), encoding="utf-8")
    read_texts(out)
    entries = page(out, "Book A/page2")["panels"][0]["texts"]
    assert [entry["bbox"] for entry in entries] == [[40, 60, 120, 24], [40, 180, 120, 60]]


def test_a_page_made_anew_is_read_anew(tmp_path: Path, out: Path) -> None:
    source = kumiko(tmp_path / "in")
    import_comics(source, out, text="ocr")
    Image.new("RGB", (400, 250), (1, 2, 3)).save(source / "page10.png")
    made = import_comics(source, out, text="ocr")
    assert made.texts is not None
    assert (made.new, made.texts.new, made.texts.pages) == (1, 1, 2)
    assert tuple(page(out, "Book A/page10")["panels"][0]["bbox"]) == EAST


def test_another_reader_reads_what_has_no_text_still(tmp_path: Path, out: Path, reader: type[Reader]) -> None:
    import_comics(kumiko(tmp_path / "in"), out)
    read_texts(out)
    reader.name = "reader 2"
    made = read_texts(out)
    assert (made.new, made.read) == (2, 2)
    sources = {t["source"] for t in page(out, "Book A/page2")["panels"][0]["texts"]}
    assert sources == {"reader 1"}


def test_an_image_that_cannot_be_read_is_counted_and_tried_again(tmp_path: Path, out: Path) -> None:
    source = kumiko(tmp_path / "in")
    import_comics(source, out)
    data = (source / "page2.png").read_bytes()
    (source / "page2.png").write_bytes(data[:60])
    made = read_texts(out)
    assert (made.pages, made.new, sum(made.problems.values())) == (1, 1, 1)
    assert any("not read: 1 page" in text and "Book A/page2" in text for text in made.lines())
    (source / "page2.png").write_bytes(data)
    assert read_texts(out).new == 1


def test_one_at_a_time_and_only_what_an_import_made(tmp_path: Path, out: Path) -> None:
    import_comics(kumiko(tmp_path / "in"), out)
    lock = Lock(out / texts.LOCK)
    lock.acquire()
    try:
        with pytest.raises(InUse):
            read_texts(out)
    finally:
        lock.release()
    with pytest.raises(DataError, match=r"no data set that .* made\. Import it into a new folder first"):
        read_texts(tmp_path / "in" / "Book A")
    with pytest.raises(ConfigError, match="workers: 0 is out of range"):
        read_texts(out, workers=0)


def test_the_command_reads_and_reports(tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import_comics(kumiko(tmp_path / "in"), out)
    assert data_command.main(["ocr", "--data", str(out), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["read"], made["new"], made["reader"]) == (2, 2, "reader 1")
    assert data_command.main(["ocr", "--data", str(out)]) == 0
    assert "Text: 2 panels of 5 by reader 1 on 2 pages (0 new)" in capsys.readouterr().out


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rapid, "find_spec", lambda name: None if name == "onnxruntime" else name)
    with pytest.raises(ConfigError, match=r'^reading text needs onnxruntime: pip install "stage3\[ocr\]"$'):
        rapid.RapidReader()
