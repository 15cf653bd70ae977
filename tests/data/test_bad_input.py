"""The corpus of bad panel files, labels and manifests: what happens to the page, and that nothing else changes."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from reader_world import (
    CLEAN,
    SIZE,
    World,
    aligned_page,
    assert_clean_pages_unchanged,
    ocr_page,
    panels_of,
    vlm_page,
)

from stage3.batches.dataset import Dataset
from stage3.data import page_check, readers
from stage3.data.table import PanelTable
from stage3.errors import DataError
from stage3.runs import RunFolder
from stage3.train.trainer import Trainer


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PanelTable]:
    return {style: World(tmp_path_factory.mktemp(style) / "w", style).load() for style in ("vlm", "ocr")}


def as_bytes(page: Any) -> bytes:
    return json.dumps(page).encode()


GOOD = as_bytes(vlm_page())
SKIPPED: dict[str, tuple[Any, str]] = {
    "empty": (b"", "json_empty"),
    "blank": (b" \n\t", "json_empty"),
    "truncated": (GOOD[:-40], "json_syntax"),
    "truncated-in-a-code-fence": (b"```json\n" + GOOD[:-40], "json_syntax"),
    "two-code-fences": (b"```json\n" + GOOD + b"\n```\n```json\n" + GOOD + b"\n```", "json_syntax"),
    "two-objects": (GOOD + b"\n" + GOOD, "json_syntax"),
    "trailing-comma": (GOOD[:-1] + b",}", "json_syntax"),
    "single-quotes": (GOOD.replace(b'"', b"'"), "json_syntax"),
    "utf-16-without-bom": (GOOD.decode().encode("utf-16-le"), "json_syntax"),
    "latin-1": (GOOD.replace(b"a page", b"\xe9t\xe9"), "json_encoding"),
    "list-of-two": ([vlm_page(), vlm_page()], "json_not_object"),
    "list-of-panels": (vlm_page()["panels"], "json_not_object"),
    "empty-list": ([], "json_not_object"),
    "null": (b"null", "json_not_object"),
    "string": (b'"panels"', "json_not_object"),
    "deep-nesting": (b"[" * 100_000 + b"]" * 100_000, "json_too_deep"),
    "5000-digits": (GOOD.replace(b'"box_2d": [0', b'"box_2d": [' + b"9" * 5000), "json_number"),
    "duplicate-key": (GOOD[:-1] + b', "panels": []}', "json_duplicate_key"),
    "duplicate-inner-key": (
        GOOD.replace(b'"panel_number": 1,', b'"panel_number": 1, "panel_number": 1,'),
        "json_duplicate_key",
    ),
    "21-megabytes": (GOOD + b" " * (21 * 2**20), "json_too_large"),
    "panels-missing": ({"overall_summary": "x"}, "panels_missing"),
    "panels-null": ({"panels": None}, "panels_type"),
    "panels-string": ({"panels": "none"}, "panels_type"),
    "panels-empty": ({"panels": []}, "no_panels"),
    "panels-empty-object": ({"panels": {}}, "no_panels"),
    "only-bad-panels": ({"panels": [None, 3, {"box_2d": [0, 0, 0, 0]}]}, "no_usable_panel"),
}


@pytest.mark.parametrize("case", SKIPPED)
def test_page_is_skipped_and_counted(case: str, tmp_path: Path, reference: dict[str, PanelTable]) -> None:
    content, reason = SKIPPED[case]
    world = World(tmp_path / "w")
    page_id = world.bad_page(content)
    table = world.load()
    assert table.report.skipped == {reason: 1}
    assert page_id not in set(table.pages["page_id"])
    assert "Book B/bad.json" in table.report.examples[f"page:{reason}"][0].replace("\\", "/")
    assert_clean_pages_unchanged(table, reference["vlm"])


def panel(box: Any = (0, 0, 500, 1000), **fields: Any) -> dict[str, Any]:
    return {"box_2d": list(box) if isinstance(box, tuple) else box, **fields}


BARE = panel((510, 10, 990, 990))  # the sound neighbor on the same page

DROPPED: dict[str, tuple[Any, str]] = {
    "null": (None, "panel_type"),
    "list": ([1, 2], "panel_type"),
    "integer": (7, "panel_type"),
    "box-missing": ({"description": ""}, "box_missing"),
    "three-values": (panel((0, 0, 500)), "box_shape"),
    "five-values": (panel((0, 0, 500, 500, 500)), "box_shape"),
    "nested": (panel([[0, 0, 500, 500]]), "box_shape"),
    "object": (panel({"ymin": 0}), "box_shape"),
    "letters": (panel(("a", "b", "c", "d")), "box_not_numbers"),
    "text": (panel("the whole page"), "box_shape"),
    "nan": (panel((0, float("nan"), 500, 500)), "box_not_numbers"),
    "nan-text": (panel((0, "nan", 500, 500)), "box_not_numbers"),
    "infinity": (panel((0, 0, float("inf"), 500)), "box_not_numbers"),
    "huge-text": (panel((0, 0, "1e999", 500)), "box_not_numbers"),
    "4000-digits": (panel((0, 0, 10**3999, 500)), "box_not_numbers"),
    "booleans": (panel((False, False, True, True)), "box_not_numbers"),
    "null-value": (panel((0, None, 500, 500)), "box_not_numbers"),
    "no-area": (panel((100, 100, 100, 500)), "box_no_area"),
    "zeros": (panel((0, 0, 0, 0)), "box_no_area"),
    "outside": (panel((-500, -500, -10, -10)), "box_outside"),
    "thin": (panel((0, 0, 500, 8)), "box_thin"),  # 8 thousandths of 200 pixels are 1.6
}


@pytest.mark.parametrize("case", DROPPED)
def test_bad_panel_is_dropped_and_the_page_goes_on(case: str, tmp_path: Path, reference: dict[str, PanelTable]) -> None:
    bad, code = DROPPED[case]
    world = World(tmp_path / "w")
    page_id = world.bad_page({"panels": [bad, BARE]})
    table = world.load()
    kept = panels_of(table, page_id)
    assert kept["source_index"].tolist() == [1]
    np.testing.assert_allclose(kept[["x", "y", "w", "h"]].to_numpy()[0], [0.01, 0.51, 0.98, 0.48], atol=1e-6)
    assert table.report.counts[code] == 1
    where = table.report.examples[code][0].replace("\\", "/")
    assert "Book B/bad.json: panels[0]: " in where  # the file and the field
    assert table.report.counts["panel_dropped"] == (0 if code == "panel_type" else 1)
    assert_clean_pages_unchanged(table, reference["vlm"])


@pytest.mark.parametrize("case", [c for c, (p, _) in DROPPED.items() if isinstance(p, dict)])
def test_bad_box_with_text_is_a_text_only_panel(case: str, tmp_path: Path) -> None:
    bad, _ = DROPPED[case]
    world = World(tmp_path / "w")
    page_id = world.bad_page({"panels": [{**bad, "description": "a cat"}, BARE]})
    kept = panels_of(world.load(), page_id)
    assert kept["has_box"].tolist() == [False, True]
    assert kept["description"].tolist() == ["a cat", ""]
    assert kept[["x", "y", "w", "h"]].iloc[0].isna().all()


BOXES: dict[str, tuple[Any, list[float], str]] = {
    "numbers-as-text": (("0", " 100 ", "500", "1e3"), [0.1, 0, 0.9, 0.5], ""),
    "list-as-text": ("[0, 100, 500, 1000]", [0.1, 0, 0.9, 0.5], ""),
    "reversed-corners": ((500, 1000, 0, 100), [0.1, 0, 0.9, 0.5], "box_swapped"),
    "beyond-the-page": ((-100, 100, 500, 1040), [0.1, 0, 0.9, 0.5], "box_clamped"),
    "far-beyond-the-page": ((0, 100, 500, 1_000_000_000), [0.1, 0, 0.9, 0.5], "box_clamped"),
}


@pytest.mark.parametrize("case", BOXES)
def test_box_is_repaired_to_a_stated_value(case: str, tmp_path: Path, reference: dict[str, PanelTable]) -> None:
    box, expected, code = BOXES[case]
    world = World(tmp_path / "w")
    page_id = world.bad_page({"panels": [panel(box), BARE]})
    table = world.load()
    np.testing.assert_allclose(panels_of(table, page_id)[["x", "y", "w", "h"]].to_numpy()[0], expected, atol=1e-6)
    assert {c for c in table.report.counts if c.startswith("box")} == ({code} if code else set())
    assert_clean_pages_unchanged(table, reference["vlm"])


def test_pixels_in_a_0_1000_field_are_rescaled_by_the_image(tmp_path: Path) -> None:
    world = World(tmp_path / "w")
    pixels = [panel((0, 0, 1500, 1900)), panel((1520, 100, 3000, 1000))]
    page_id = world.bad_page({"panels": pixels}, size=(1988, 3057))
    table = world.load()
    boxes = panels_of(table, page_id)[["x", "y", "w", "h"]].to_numpy()
    expected = [[0, 0, 1900 / 1988, 1500 / 3057], [100 / 1988, 1520 / 3057, 900 / 1988, 1480 / 3057]]
    np.testing.assert_allclose(boxes, expected, atol=1e-6)
    assert table.report.counts["boxes_rescaled"] == 1


def test_pixels_that_no_image_explains_lose_the_page(tmp_path: Path, reference: dict[str, PanelTable]) -> None:
    world = World(tmp_path / "w")
    world.bad_page({"panels": [panel((1100, 1200, 1500, 1900)), panel((1520, 100, 3000, 1000))]})
    table = world.load()
    assert table.report.skipped == {"scale": 1}
    assert_clean_pages_unchanged(table, reference["vlm"])


def test_fractions_in_a_0_1000_field_are_rescaled(tmp_path: Path) -> None:
    world = World(tmp_path / "w")
    page_id = world.bad_page({"panels": [panel((0, 0.1, 0.5, 1)), panel((0.5, 0, 1.0, 0.5))]})
    table = world.load()
    boxes = panels_of(table, page_id)[["x", "y", "w", "h"]].to_numpy()
    np.testing.assert_allclose(boxes, [[0.1, 0, 0.9, 0.5], [0, 0.5, 0.5, 0.5]], atol=1e-6)
    assert table.report.counts["boxes_rescaled"] == 1


OCR_BOXES: dict[str, tuple[Any, list[float] | None, str]] = {
    "numbers-as-text": (["0", "10", "100", "30.5"], [0, 10 / 300, 0.5, 30.5 / 300], ""),
    "nan": ([float("nan"), 10, 100, 30], None, "box_not_numbers"),
    "no-area": ([10, 10, 0, 30], None, "box_no_area"),
    "reversed-corners": ([100, 40, -100, -30], [0, 10 / 300, 0.5, 30 / 300], "box_swapped"),
    "outside": ([300, 10, 100, 30], None, "box_outside"),
    "beyond-the-page": ([-50, 10, 150, 30], [0, 10 / 300, 0.5, 30 / 300], "box_clamped"),
    "far-beyond-the-page": ([100, 10, 1e9, 30], [0.5, 10 / 300, 0.5, 30 / 300], "box_clamped"),
    "beyond-float32": ([100, 10, 1e308, 1e308], [0.5, 10 / 300, 0.5, 290 / 300], "box_clamped"),
    "thin": ([10, 10, 1.9, 30], None, "box_thin"),
    "thin-enough": ([10, 10, 2.1, 30], [0.05, 10 / 300, 2.1 / 200, 0.1], ""),
    "thin-after-clamping": ([-50, 10, 51.5, 30], None, "box_thin"),
}


@pytest.mark.parametrize("case", OCR_BOXES)
def test_ocr_boxes(case: str, tmp_path: Path, reference: dict[str, PanelTable]) -> None:
    box, expected, code = OCR_BOXES[case]
    world = World(tmp_path / "w", "ocr")
    page = ocr_page(1)
    page["panels"].insert(0, {"bbox": box, "text": ""})
    page_id = world.bad_page(page)
    table = world.load()
    kept = panels_of(table, page_id)
    assert kept["source_index"].tolist() == ([1] if expected is None else [0, 1])
    if expected is not None:
        np.testing.assert_allclose(kept[["x", "y", "w", "h"]].to_numpy()[0], expected, atol=1e-6)
    assert not code or table.report.counts[code] == 1
    assert_clean_pages_unchanged(table, reference["ocr"])


def test_panels_across_or_down_the_whole_page_are_counted(tmp_path: Path) -> None:
    before, world = World(tmp_path / "before").load().report.facts, World(tmp_path / "w")
    boxes = [[0, 0, 550, 900], [0, 0, 700, 900], [0, 0, 550, 780], [0, 0, 900, 550], [0, 0, 900, 700], [0, 0, 780, 550]]
    world.bad_page({"panels": [{"box_2d": box, "description": f"scene {k}"} for k, box in enumerate(boxes)]})
    facts = world.load().report.facts
    assert [facts[k] - before[k] for k in ("wide_panels", "tall_panels")] == [1, 1]


def test_what_is_odd_is_shown_in_a_line(tmp_path: Path) -> None:
    world = World(tmp_path / "w")
    box = [500.1234567890123, 1000.0, 0.12345678901234568, 100.12345678901234]
    world.bad_page(vlm_page(1) | {"panels": [{"box_2d": box, "description": "turned around"}]})
    (example,) = world.load().report.examples["box_swapped"]
    assert example.endswith(f"panels[0]: reversed corners {str(box)[:60]}")


@pytest.mark.skipif(os.name == "nt", reason="no pipes of this kind")
def test_a_pipe_named_like_a_panel_file_is_counted_and_not_opened(tmp_path: Path) -> None:
    world = World(tmp_path / "w")
    for name in ("one.json", "two.JSON"):
        os.mkfifo(world.root / "panels" / name)
    assert world.load().report.counts["not_a_file"] == 2


@pytest.mark.parametrize("side", [None, 0, -5, "wide", float("nan"), True])
def test_ocr_page_size_comes_from_the_image_when_the_file_has_none(side: Any, tmp_path: Path) -> None:
    world = World(tmp_path / "w", "ocr")
    page_id = world.bad_page(ocr_page(2, image_width=side))
    table = world.load()
    assert table.report.counts["page_size_missing"] == 1
    np.testing.assert_allclose(panels_of(table, page_id)["h"], (150 - 6) / 300, rtol=1e-6)
    assert table.pages.set_index("page_id").loc[page_id, ["width", "height"]].tolist() == list(SIZE)


def test_ocr_page_of_unknown_size_is_skipped(tmp_path: Path) -> None:
    world = World(tmp_path / "w", "ocr")
    page_id = world.bad_page(ocr_page(2, image_width=None))
    (world.root / "images" / f"{page_id}.png").unlink()
    assert world.load().report.skipped == {"page_size": 1}


FENCE = b"```"
ENCODED = {
    "code-fence": (FENCE + b"json\n" + GOOD + b"\n" + FENCE, vlm_page()),
    "code-fence-without-language": (b"\n " + FENCE + b"\n" + GOOD + FENCE + b"\n\n", vlm_page()),
    "code-fence-that-stays-open": (FENCE + b"json\n" + GOOD, vlm_page()),
    "code-fence-in-prose": (b"Here it is:\n" + FENCE + b"JSON\n" + GOOD + b"\n" + FENCE + b"\nBye!", vlm_page()),
    "fence-in-a-text": (as_bytes(vlm_page(overall_summary="```a```")), vlm_page(overall_summary="```a```")),
    "list-of-one": ([vlm_page()], vlm_page()),
    "utf-8-bom": (b"\xef\xbb\xbf" + GOOD, vlm_page()),
    "utf-16": (GOOD.decode().encode("utf-16"), vlm_page()),
    "panels-object": ({"panels": dict(zip("ba", vlm_page()["panels"], strict=True))}, vlm_page()),
}


@pytest.mark.parametrize("case", ENCODED)
def test_odd_but_sound_files_read_as_the_plain_one(case: str, tmp_path: Path) -> None:
    content, plain = ENCODED[case]
    odd, even = World(tmp_path / "odd"), World(tmp_path / "even")
    odd_id, even_id = odd.bad_page(content), even.bad_page(plain)
    odd_table = odd.load()
    a, b = panels_of(odd_table, odd_id), panels_of(even.load(), even_id)
    assert a.equals(b)
    assert odd_table.report.counts["panels_as_object"] == (case == "panels-object")
    assert odd_table.report.counts["json_fenced"] == case.startswith("code-fence")
    assert odd_table.report.counts["page_in_list"] == (case == "list-of-one")


def test_ten_thousand_panels_are_cut_after_the_bad_ones_are_gone(tmp_path: Path) -> None:
    world = World(tmp_path / "w")
    page_id = world.bad_page(
        {"panels": [panel((5, 5, 5, 5))] * 10 + [panel(description=str(i)) for i in range(10_000)]}
    )
    table = world.load(max_panels=12)
    assert panels_of(table, page_id)["source_index"].tolist() == list(range(10, 22))
    assert table.report.counts["panels_cut"] == 1


TEXTS: dict[str, tuple[Any, str]] = {
    "null": (None, ""),
    "number": (3, "3"),
    "list": (["one", None, ["two", 3]], "one two 3"),
    "object": ({"text": "hey", "speaker": "Ann"}, "hey"),
    "objects": ({"a": "one", "b": {"c": "two"}}, "one two"),
    "boolean": (True, ""),
    "nan": (float("nan"), ""),
    "digits": (10**3999, ""),
    "lone-surrogate": ("a\ud800b", "a\ufffdb"),
    "three-million-characters": ("x" * 3_000_000, "x" * 10_000),
    "control-characters": ("a\x00b\u202ec\u200b", "a\x00b\u202ec\u200b"),
    "white-space": (" \n\t ", ""),
}


@pytest.mark.parametrize("case", TEXTS)
@pytest.mark.parametrize("field", ["description", "text_content"])
def test_text_of_any_shape(case: str, field: str, tmp_path: Path) -> None:
    text, expected = TEXTS[case]
    world = World(tmp_path / "w")
    page_id = world.bad_page({"panels": [panel(**{field: text})]})
    table = world.load()
    column = "description" if field == "description" else "dialogue"
    if case == "objects" and field == "text_content":
        expected = ""  # an entry of text_content says under which keys its words stand
    assert panels_of(table, page_id)[column].tolist() == [expected]
    assert table.report.counts["text_cut"] == (case == "three-million-characters")


def nested(depth: int) -> Any:
    value: Any = "deep"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("text", "expected", "counted"),
    [
        (["a", True, "b"], "a b", "True is no text"),
        ({"text": "a", "bold": True}, "a", ""),  # the text's own key is read, the others are not meant
        ({"text": False}, "", "False is no text"),
        (False, "", "False is no text"),
        (nested(20), "deep", ""),
        (["near", nested(60)], "near", "nested more than 20 deep"),
    ],
)
def test_what_is_no_text_in_a_texts_place_is_counted(tmp_path: Path, text: Any, expected: str, counted: str) -> None:
    world = World(tmp_path / "w")
    page_id = world.bad_page({"panels": [panel(description=text)]})
    table = world.load()
    assert panels_of(table, page_id)["description"].tolist() == [expected]
    assert table.report.counts["text_unreadable"] == bool(counted)
    assert [e for e in table.report.examples.get("text_unreadable", []) if page_id in e] != [] or not counted


def same(box: tuple[float, ...], text: str = "", **fields: Any) -> dict[str, Any]:
    return panel(box, text_content=[{"text": text}] if text else [], **fields)


LEFT, RIGHT = (0, 0, 1000, 490), (0, 500, 1000, 1000)
NEARLY = (2, 3, 1000, 490)  # IoU with LEFT .992
REPEATED: dict[str, tuple[list[dict[str, Any]], list[int]]] = {  # panels, and those that are kept
    "list-twice": ([same(LEFT, "a"), same(RIGHT, "b")] * 2, [0, 1]),
    "list-three-times-without-text": ([same(LEFT), same(RIGHT)] * 3, [0, 1]),
    "list-twice-without-boxes": ([same(None, "a"), same(None, "b")] * 2, [0, 1]),  # type: ignore[arg-type]
    "nearly": ([same(LEFT, "a"), same(NEARLY, "A ")], [0]),
    "one-has-text": ([same(LEFT), same(NEARLY, "a"), same(RIGHT)], [1, 2]),
    "the-first-has-text": ([same(LEFT, "a"), same(NEARLY), same(LEFT)], [0]),
    "other-text": ([same(LEFT, "a"), same(LEFT, "b")], [0, 1]),
    "other-description": ([same(LEFT, "a", description="x"), same(LEFT, "a", description="y")], [0, 1]),
    "same-text-elsewhere": ([same(LEFT, "a"), same(RIGHT, "a")], [0, 1]),
    "less-than-nearly": ([same(LEFT, "a"), same((0, 0, 940, 490), "a")], [0, 1]),
    "outside": ([same(LEFT, "a"), same((-400, 0, -100, 400), "a"), same((-400, 0, -100, 400), "c")], [0, 2]),
    "no-area": ([same((0, 0, 0, 0), "b"), same(LEFT, "a"), same(RIGHT, "b")], [1, 2]),
    "part-of-a-text": ([same(LEFT, "a", description="x"), same((0, 0, 0, 0), "a"), panel(None, description="X")], [0]),
    "more-than-a-text": ([same(LEFT, "a"), same((0, 0, 0, 0), "a", description="x")], [0, 1]),
}


@pytest.mark.parametrize("case", REPEATED)
def test_the_same_panel_twice_is_one(case: str, tmp_path: Path, reference: dict[str, PanelTable]) -> None:
    panels, kept = REPEATED[case]
    world = World(tmp_path / "w")
    page_id = world.bad_page({"panels": panels})
    table = world.load()
    assert panels_of(table, page_id)["source_index"].tolist() == kept
    assert table.report.counts["panel_repeated"] == len(panels) - len(kept)
    assert_clean_pages_unchanged(table, reference["vlm"])


@pytest.mark.parametrize("style", ["vlm", "ocr"])
def test_a_data_set_whose_lists_are_there_twice_gives_the_same_table(
    style: str, tmp_path: Path, reference: dict[str, PanelTable]
) -> None:
    world = World(tmp_path / "w", style)
    for path in (world.root / "panels").rglob("*.json"):
        page = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**page, "panels": page["panels"] * 2}), encoding="utf-8")
    table = world.load()
    assert table.fingerprint() == reference[style].fingerprint()
    assert table.report.counts["panel_repeated"] == len(table)


def test_panel_numbers_of_a_list_that_is_there_twice_still_give_the_order(tmp_path: Path) -> None:
    world = World(tmp_path / "w")
    panels = [same(RIGHT, "b", panel_number=2), same(LEFT, "a", panel_number=1)]
    page_id = world.bad_page({"panels": panels * 2})
    table = world.load()
    assert panels_of(table, page_id)["source_index"].tolist() == [1, 0]
    assert table.report.counts["panel_number"] == 0
    check = page_check.check_page(world.config(), page_id)
    assert [p.order for p in check.panels] == [1, 0, None, None]
    assert check.panels[3].notes == [("panel_repeated", "the same as panels[1]")]


def test_the_check_of_a_page_draws_dropped_panels_where_their_file_has_them(tmp_path: Path) -> None:
    world = World(tmp_path / "w", "ocr")
    boxes = [[20, 30, 80, 150], [150, 60, 0, 90], [20, 270, 100, 0.5]]  # the second and the third hold nothing
    page_id = world.bad_page(ocr_page(1) | {"panels": [{"bbox": box, "text": ""} for box in boxes]})
    world.load()
    check = page_check.check_page(world.config(), page_id, f"images/{page_id}.png")
    assert [p.order for p in check.panels] == [0, None, None]
    expected = [(x / 200, y / 300, w / 200, h / 300) for x, y, w, h in boxes]
    np.testing.assert_allclose([p.box for p in check.panels], expected, atol=1e-6)  # type: ignore[arg-type]


def test_of_pages_that_are_left_out_the_report_or_the_label_knows_why(tmp_path: Path) -> None:
    world = World(tmp_path / "w")
    page_id = world.bad_page({"panels": []})
    world.ids.append("Book C/none")
    (tmp_path / "labels.json").write_text(json.dumps(dict.fromkeys(world.ids, "story") | {CLEAN[0]: "cover"}))
    settings = world.config(labels=str(tmp_path / "labels.json"), keep_labels=("story",))
    table = readers.read(settings)
    out = page_check.left_out(page_check.listed_pages(settings), table)
    expected = {CLEAN[0]: "label", page_id: "no_panels", "Book C/none": "no_panel_file"}
    assert dict(zip(out["page_id"], out["reason"], strict=True)) == expected
    table.report.examples.clear()  # as of many pages: only the first of a reason are named
    out = page_check.left_out(page_check.listed_pages(settings), table)
    assert out["reason"].tolist() == ["label", "", ""]


@pytest.mark.parametrize("box", [[300, 10, 100, 30], [10, 10, 0, 30], [0, 0, 0, 0], [10, 10, 1, 1]])
@pytest.mark.parametrize("style", ["ocr", "aligned"])
def test_a_box_of_a_detector_that_holds_nothing_is_no_page_mate(style: str, box: list[int], tmp_path: Path) -> None:
    ghost = {"bbox" if style == "ocr" else "rcnn_bbox": box, "text": "noise"}
    spoken = {"bbox" if style == "ocr" else "rcnn_bbox": None, "text": "a voice"}
    sound = {"bbox" if style == "ocr" else "rcnn_bbox": [0, 0, 200, 300], "text": "a"}
    world = World(tmp_path / "w", "ocr")
    page = ocr_page(1, panels=[ghost, sound, spoken])
    page_id = world.bad_page(page)
    settings: dict[str, Any] = {}
    if style == "aligned":
        settings = {"panels": str(tmp_path / "all.json"), "panel_format": "aligned"}
        (tmp_path / "all.json").write_text(json.dumps([aligned_page(page_id, page["panels"])]), encoding="utf-8")
    table = world.load(**settings)
    assert panels_of(table, page_id)["dialogue"].tolist() == ["a", "a voice"]
    assert table.report.counts["panel_dropped"] == 1


NO_TEXT = [
    "None",
    "N/A",
    "n/a",
    "null",
    "No dialogue",
    "No dialogue.",
    "[]",
    "{}",
    "(none)",
    "NONE",
    "No visible text",
    "-",
]


def world_that_says(tmp_path: Path, words: str, column: str = "dialogue", share: float = 1.0) -> World:
    """Twenty more pages of four panels, of which a share says nothing but `words`."""
    world = World(tmp_path / "w")
    for number in range(20):
        panels = [panel((250 * i, 0, 250 * i + 240, 1000)) for i in range(4)]
        for i, made in enumerate(panels):
            text = words if 4 * number + i < round(80 * share) else f"words {number} {i}"
            made |= {"text_content": [{"label": "dialogue", "text": text}]} if column == "dialogue" else {column: text}
        world.bad_page({"panels": panels}, f"Book C/{number:02d}")
    return world


@pytest.mark.parametrize("words", NO_TEXT)
@pytest.mark.parametrize("column", ["dialogue", "description"])
def test_words_that_say_there_is_no_text_are_none(
    words: str, column: str, tmp_path: Path, reference: dict[str, PanelTable]
) -> None:
    table = world_that_says(tmp_path, words, column, 0.75).load()
    panels = table.panels[table.panels["panel_id"].str.startswith("Book C")]
    assert len(panels) == 80
    assert (panels[column] == "").sum() == 60
    assert table.report.counts["text_is_no_text"] == 60
    assert table.report.facts["textless_share"] == round(60 / len(table), 6)
    assert_clean_pages_unchanged(table, reference["vlm"])


def test_any_words_on_most_panels_are_no_text(tmp_path: Path) -> None:
    table = world_that_says(tmp_path, "Scanned by Quack", share=0.75).load()
    assert table.report.counts["text_is_no_text"] == 60
    assert not table.panels["dialogue"].str.contains("Quack").any()


@pytest.mark.parametrize(("times", "gone"), [(4, False), (5, True)])
def test_a_word_for_no_text_is_on_a_twentieth_of_the_panels(times: int, gone: bool, tmp_path: Path) -> None:
    table = world_that_says(tmp_path, "None", share=times / 80).load()  # of 92 panels with text
    assert (table.panels["dialogue"] == "None").sum() == (0 if gone else times)


@pytest.mark.parametrize(("words", "share"), [("None", 0.025), ("Quack!", 0.3), ("...", 0.3), ("No!", 0.3)])
def test_words_that_somebody_says_stay(words: str, share: float, tmp_path: Path) -> None:
    table = world_that_says(tmp_path, words, share=share).load()
    assert table.report.counts["text_is_no_text"] == 0
    assert (table.panels["dialogue"] == words).sum() == round(80 * share)


@pytest.mark.parametrize(("times", "stay"), [(2, True), (3, False)])
def test_a_word_that_was_said_twice_is_no_habit(times: int, stay: bool, tmp_path: Path) -> None:
    world = World(tmp_path / "w")
    for page_id in CLEAN[:times]:  # of twelve panels with text
        world.page(page_id, {"panels": [panel(text_content=["None"]), {**BARE, "text_content": ["Hi"]}]})
    assert (world.load().panels["dialogue"] == "None").sum() == (times if stay else 0)


def test_of_several_texts_only_the_one_that_is_none_goes(tmp_path: Path) -> None:
    world = world_that_says(tmp_path, "None")
    spoken = [{"text": "Hi"}, {"text": "None"}, {"text": "None of us"}]
    bare = {"text_content": [{"text": "None"}]}
    page_id = world.bad_page({"panels": [panel(text_content=spoken), {**BARE, "caption": "N/A"}, bare]}, "Book D/1")
    table = world.load()
    kept = panels_of(table, page_id)
    assert kept["dialogue"].tolist() == ["Hi None of us", "N/A"]  # N/A is no habit of this source
    assert table.report.counts["panel_dropped"] == 1  # neither a box nor words
    check = page_check.check_page(world.config(), page_id, facts=table.report.facts)
    assert [p.order for p in check.panels] == [0, 1, None]
    assert ("text_is_no_text", "dialogue 'None'") in check.panels[2].notes


def test_words_that_are_no_text_are_found_in_aligned_files_too(tmp_path: Path) -> None:
    boxes = [[0, 75 * i, 190, 70] for i in range(4)]
    pages = [aligned_page(i, [{"rcnn_bbox": b, "text": "None" if b[1] else i} for b in boxes]) for i in CLEAN]
    path = tmp_path / "aligned.json"
    path.write_text(json.dumps(pages), encoding="utf-8")
    table = World(tmp_path / "w").load(panels=str(path), panel_format="aligned")
    assert (table.panels["dialogue"] == "").sum() == 18
    assert table.report.counts["text_is_no_text"] == 18


def test_swapped_axes_cannot_be_told_on_a_page_and_are_pointed_out_on_many(tmp_path: Path) -> None:
    rows = [panel((250 * i, 0, 250 * i + 240, 1000)) for i in range(4)]
    columns = [panel((0, 250 * i, 1000, 250 * i + 240)) for i in range(4)]
    said = {}
    for name, panels in (("rows", rows), ("columns", columns)):
        world = World(tmp_path / name)
        for number in range(12):
            world.bad_page({"panels": panels}, f"Book C/{number}")
        said[name] = "\n".join(readers.report_lines(world.load().report))
    assert "48 panels reach from top to bottom" in said["columns"]
    assert "--box_order" in said["columns"]
    assert "may be swapped" not in said["rows"]


@pytest.mark.parametrize("numbers", [(0, 1), (-1, 2), ("3", 1), (float("nan"), 1), (2, 2), (1, None), (2.5, 1)])
def test_unsound_panel_numbers_leave_the_files_order(numbers: tuple[Any, Any], tmp_path: Path) -> None:
    world = World(tmp_path / "w")
    page_id = world.bad_page({"panels": [panel(panel_number=numbers[0]), {**BARE, "panel_number": numbers[1]}]})
    table = world.load()
    assert panels_of(table, page_id)["source_index"].tolist() == [0, 1]
    assert table.report.counts["panel_number"] == 1


def test_sound_panel_numbers_give_the_order_and_the_source_index_stays(tmp_path: Path) -> None:
    world = World(tmp_path / "w")
    page_id = world.bad_page({"panels": [panel(panel_number=2), None, {**BARE, "panel_number": 1}]})
    kept = panels_of(world.load(), page_id)
    assert kept["source_index"].tolist() == [2, 0]
    assert kept["order"].tolist() == [0, 1]
    assert kept["panel_id"].tolist() == [f"{page_id}#2", f"{page_id}#0"]


# --- labels ---


def labeled(world: World, labels: Any, **settings: Any) -> PanelTable:
    path = world.root / "labels.json"
    path.write_text(labels if isinstance(labels, str) else json.dumps(labels), encoding="utf-8")
    return world.load(labels=str(path), **settings)


@pytest.mark.parametrize("labels", ["[]", "null", '"story"', "{", "", "[" * 100_000], ids=repr)
def test_labels_that_are_not_an_object_stop_the_run(labels: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels\.json"):
        labeled(World(tmp_path / "w"), labels)


LABELS: dict[str, tuple[Any, str]] = {
    "null": (None, "label_invalid"),
    "number": (3, "label_invalid"),
    "list": (["story"], "label_invalid"),
    "blank": (" ", "label_invalid"),
    "unknown": ("splash", "label_unknown"),
    "cover": ("Covers", "label"),
    "first": ("First Page", "label"),
    "back": ("back-cover", "label"),
    "trailing-space": ("Story ", ""),
    "plural": ("STORIES", ""),
    "narratives": ("Narratives", ""),
}


@pytest.mark.parametrize("case", LABELS)
def test_label_decides_whether_a_page_counts(case: str, tmp_path: Path, reference: dict[str, PanelTable]) -> None:
    label, reason = LABELS[case]
    world = World(tmp_path / "w")
    page_id = world.bad_page(vlm_page())
    table = labeled(world, {**dict.fromkeys(CLEAN, "story"), page_id: label})
    assert table.report.skipped == ({reason: 1} if reason else {})
    assert (page_id in set(table.pages["page_id"])) == (not reason)
    if case == "unknown":
        assert table.report.facts["unknown_labels"] == {"splash": 1}


def test_unlabeled_pages_and_unlisted_labels_are_counted(tmp_path: Path) -> None:
    table = labeled(World(tmp_path / "w"), {**dict.fromkeys(CLEAN[1:], "story"), "Book Z/lost": "story"})
    assert table.report.skipped == {"label_missing": 1}
    assert table.report.counts["label_unlisted"] == 1
    assert table.report.examples["label_unlisted"] == ["Book Z/lost"]


def test_nested_labels_equal_flat_ones(tmp_path: Path) -> None:
    nested: dict[str, dict[str, str]] = {}
    for page_id in CLEAN[:4]:
        book, _, page = page_id.partition("/")
        nested.setdefault(book, {})[page] = "narrative"
    a = labeled(World(tmp_path / "a"), nested)
    b = labeled(World(tmp_path / "b"), dict.fromkeys(CLEAN[:4], "narrative"))
    assert a.pages["page_id"].tolist() == b.pages["page_id"].tolist() == CLEAN[:4]
    assert set(a.pages["page_type"]) == {"narrative"}


def test_label_contradicting_itself_is_no_label(tmp_path: Path) -> None:
    pairs = ", ".join(
        f"{json.dumps(i)}: {json.dumps(v)}" for i, v in [(CLEAN[0], "cover"), *((i, "story") for i in CLEAN)]
    )
    table = labeled(World(tmp_path / "w"), f"{{{pairs}}}")
    assert table.report.skipped == {"label_invalid": 1}


def test_no_usable_page_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing is left to train on: 6 pages listed, none kept \(label 6"):
        labeled(World(tmp_path / "w"), dict.fromkeys(CLEAN, "cover"))


def test_a_kept_label_outside_the_vocabulary_is_known(tmp_path: Path) -> None:
    table = labeled(World(tmp_path / "w"), dict.fromkeys(CLEAN, "Splash Pages"), keep_labels=("splash page",))
    assert len(table.pages) == len(CLEAN)


# --- manifest ---

HEADER = "canonical_id,absolute_image_path\n"
HASHED = "canonical_id,absolute_image_path,sha256\n"
REFUSED: dict[str, tuple[str | bytes, str]] = {
    "no-image-column": ("canonical_id,path\na,b\n", r":1: no column 'absolute_image_path'"),
    "no-id-column": ("id,absolute_image_path\na,b\n", r":1: no column 'canonical_id'"),
    "empty": ("", r":1: no column 'canonical_id'"),
    "semicolons": ("canonical_id;absolute_image_path\na;b\n", r":1: columns are separated by ';'"),
    "tabs": ("canonical_id\tabsolute_image_path\na\tb\n", r":1: columns are separated by tabs"),
    "column-twice": (
        "canonical_id,absolute_image_path,canonical_id\na,b,c\n",
        r":1: column 'canonical_id' appears twice",
    ),
    "too-few-fields": (HEADER + "x/a,b\nx/c\n", r":3: 1 fields where the header has 2"),
    "too-many-fields": (HEADER + "x/a,b\nx/c,d,e\n", r":3: 3 fields where the header has 2"),
    "open-quote": (HEADER + 'x/a,"b\nx/c,d\nx/e,"f"\n', r":2: "),
    "quote-closed-rows-later": (HEADER + 'x/a,"b\nx/c,d\nx/e,f"\n', r":2: a quoted field spans several lines"),
    "quote-open-to-the-end": (HEADER + 'x/a,b\nx/b,"b\nx/c,d\n', r":3: "),
    "text-after-quote": (HEADER + 'x/a,"b"c\n', r":2: .*expected after"),
    "long-field": (HEADER + "x/a,b\nx/" + "y" * 140_000 + ",d\n", r":3: "),
    "nul": (HEADER + "x/a\0b,c\n", r":2: canonical_id: contains a NUL"),
    "id-with-two-images": (
        HEADER + "x/a,b\nx/z,q\nx/a,c\n",
        r":4: canonical_id: 'x/a' is also on line 2, with another image",
    ),
    "id-with-two-books": (
        "canonical_id,absolute_image_path,book\nx/a,b,c\nx/a,b,d\n",
        r":3: .* line 2, with another book",
    ),
    "id-with-two-hashes": (f"{HASHED}x/a,b,{'a' * 64}\nx/a,b,{'b' * 64}\n", r":3: .* line 2, with another sha256"),
    "short-sha256": (f"{HASHED}x/a,b,{'a' * 64}\nx/b,c,{'a' * 63}\n", r":3: sha256: 'a+' is not a SHA-256"),
    "sha256-column-twice": (
        "canonical_id,absolute_image_path,sha256,sha256\na,b,,\n",
        r":1: column 'sha256' appears twice",
    ),
    "ids-differ-in-case": (
        HEADER + "x/a,b\nX/A.jpg,c\n",
        r":3: canonical_id: 'X/A.jpg' and 'x/a' on line 2 differ only in case",
    ),
    "ids-differ-in-unicode": (HEADER + "x/é,b\nx/e\u0301,c\n", r":3: canonical_id: .* on line 2"),
    "parent-folder": (HEADER + "../../etc/passwd,b\n", r":2: canonical_id: .*leaves its folder"),
    "absolute": (HEADER + "/abs,b\n", r":2: canonical_id: .*absolute"),
    "drive": (HEADER + "C:\\x,b\n", r":2: canonical_id: .*absolute"),
    "windows-parent-folder": (HEADER + "..\\..\\x,b\n", r":2: canonical_id: .*leaves its folder"),
    "parent-folder-inside": (HEADER + "a/../../x,b\n", r":2: canonical_id: .*leaves its folder"),
    "no-rows": (HEADER, "lists no page"),
    "latin-1": (HEADER.encode() + b"x/\xe9,b\n", "not UTF-8"),
    "utf-16": ((HEADER + "x/a,b\n").encode("utf-16"), "not UTF-8"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_manifest_is_refused_with_file_and_line(case: str, tmp_path: Path) -> None:
    content, message = REFUSED[case]
    world = World(tmp_path / "w")
    path = world.root / "manifest.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message) as caught:
        world.load()
    assert str(path) in str(caught.value)
    assert not list((world.root / "cache" / "tables").iterdir())  # nothing half made is left behind


ACCEPTED: dict[str, tuple[str, dict[str, int], dict[str, int]]] = {
    "bom": ("\ufeff" + HEADER, {}, {}),
    "same-row-twice": (HEADER + f'"{CLEAN[0]}","images/{CLEAN[0]}.png"\n', {}, {"repeated_row": 1}),
    "empty-id": (HEADER + ",b\n", {"id_invalid": 1}, {}),
    "dot-id": (HEADER + ".,b\n", {"id_invalid": 1}, {}),
    "colon-that-is-no-drive": (HEADER + "1: the start,b\nQ:and A,c\n", {"no_panel_file": 2}, {}),
    "without-quotes": (HEADER + f"{CLEAN[0]},images/{CLEAN[0]}.png\n", {}, {"repeated_row": 1}),
    "long-id": (HEADER + "x/" + "y" * 300 + ",b\n", {"no_panel_file": 1}, {}),
    "junk": (HEADER + "__MACOSX/a,b\nx/._a,b\nx/b,c/Thumbs.db\nx/.DS_Store,d\n", {}, {"junk_row": 4}),
    "blank-lines": (HEADER + "\n\n", {}, {}),
    "spreadsheet-lines": (HEADER + ",\n , \n,,,\n" * 184, {}, {}),
    "spreadsheet-cells": (HEADER + f"{CLEAN[0]},images/{CLEAN[0]}.png,,,\n", {}, {"repeated_row": 1}),
    "spreadsheet-columns": ("canonical_id,absolute_image_path,,\n", {}, {"manifest_column_ignored": 0}),
    "sha256-empty": (HASHED, {}, {"manifest_column_ignored": 0}),
    "extra-column": ("canonical_id,absolute_image_path,note\n", {}, {"manifest_column_ignored": 1}),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_manifest_oddities_that_are_read(case: str, tmp_path: Path, reference: dict[str, PanelTable]) -> None:
    start, skipped, counts = ACCEPTED[case]
    world = World(tmp_path / "w")
    extra = "," * (start.splitlines()[0].count(",") - 1)
    rows = "".join(f'"{i}","images/{i}.png"{extra}\n' for i in CLEAN)
    (world.root / "manifest.csv").write_text(start + rows, encoding="utf-8")
    table = world.load()
    assert dict(table.report.skipped) == skipped
    for code, n in counts.items():
        assert table.report.counts[code] == n
    assert_clean_pages_unchanged(table, reference["vlm"])


BAD_ROWS = [  # each beside sound rows; the first of two that contradict each other counts
    ("../../etc/passwd,b", "absolute path or leaves its folder"),
    ("short", "1 fields where the header has 2"),
    ("x/long,b,c", "3 fields where the header has 2; a path with a comma needs double quotes"),
    ('x/open,"b', "a quoted field spans several lines"),
    ('x/closed,"b"c', "expected after"),
    ("x/nul\0,b", "contains a NUL"),
    (f'"{CLEAN[1].upper()}",images/other.png', "differ only in case"),
    (f'"{CLEAN[2]}.jpg",images/{CLEAN[2]}.jpg', "differ only in case, separators or extension"),
    (f'"{CLEAN[3]}",images/other.png', "with another image"),
]


def with_bad_rows(world: World) -> Path:
    world.rows = [row for row, _ in BAD_ROWS] + [",", f'"{CLEAN[4]}","images/{CLEAN[4]}.png"']
    return world.write_manifest()


def test_all_bad_rows_of_a_manifest_are_listed_at_once(tmp_path: Path) -> None:
    world = World(tmp_path / "w")
    path = with_bad_rows(world)
    with pytest.raises(DataError, match=r"9 bad rows.*--skip_bad_rows") as caught:
        world.load()
    head, *listed = str(caught.value).splitlines()
    assert head.startswith(f"{path}: ")
    assert len(listed) == len(BAD_ROWS)
    for number, (line, (_, message)) in enumerate(zip(listed, BAD_ROWS, strict=True), start=2 + len(CLEAN)):
        assert line.startswith(f"{path}:{number}: ")
        assert message in line


def test_bad_rows_are_left_out_and_counted_on_request(tmp_path: Path, reference: dict[str, PanelTable]) -> None:
    world = World(tmp_path / "w")
    with_bad_rows(world)
    table = world.load(skip_bad_rows=True, max_skip_fraction=0.0)
    assert table.report.skipped == {"bad_row": len(BAD_ROWS)}
    assert table.report.counts["repeated_row"] == 1
    assert len(table.report.examples["page:bad_row"]) == len(BAD_ROWS)
    assert table.pages["page_id"].tolist() == CLEAN
    assert_clean_pages_unchanged(table, reference["vlm"])
    listed = page_check.listed_pages(world.config(skip_bad_rows=True))
    assert listed["page_id"].tolist() == CLEAN
    left_out = page_check.left_out(listed, table.subset(np.arange(2)))
    assert left_out.columns.tolist() == [*listed.columns, "reason"]
    assert list(left_out["page_id"].items()) == list(enumerate(CLEAN[2:]))


def test_a_quote_that_closes_rows_later_takes_neither_its_end_nor_the_rows_between(tmp_path: Path) -> None:
    world = World(tmp_path / "w")
    world.rows = ['x/a,"b', f'"{CLEAN[0]}","images/{CLEAN[0]}.png"', 'x/c,d"', 'x/e,12" vinyl.jpg']
    world.write_manifest()
    table = world.load(skip_bad_rows=True)
    assert table.report.skipped == {"bad_row": 2, "no_panel_file": 1}
    assert table.report.counts["repeated_row"] == 1


def test_damaged_pages_are_a_share_of_pages_that_could_be_wanted(tmp_path: Path) -> None:
    world = World(tmp_path / "w")
    labels = dict(zip(CLEAN, ["story", "splash", "splash", "splash", "cover", "cover"], strict=True))
    with pytest.raises(DataError, match=r"3 of 4 pages are damaged.* splash 3; choose .* --keep_labels") as caught:
        labeled(world, labels, max_skip_fraction=0.7)
    assert "label_unknown" in str(caught.value)
    assert labeled(world, labels, max_skip_fraction=0.75).report.pages_kept == 1
    world.rows = [",b"]
    world.write_manifest()
    with pytest.raises(DataError, match="4 of 5 pages are damaged"):
        labeled(world, labels, max_skip_fraction=0.75)


def test_keep_labels_is_named_where_every_label_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none kept .*splash 6; choose those to use with --keep_labels"):
        labeled(World(tmp_path / "w"), dict.fromkeys(CLEAN, "splash"))


def test_too_many_damaged_pages_refuse_the_run_but_not_the_check(tmp_path: Path) -> None:
    world = World(tmp_path / "w")
    world.bad_page(b"{")
    with pytest.raises(DataError, match=r"1 of 7 pages are damaged, more than max_skip_fraction 0.14.*json_syntax"):
        world.load(max_skip_fraction=0.14)
    assert world.load(max_skip_fraction=1 / 7).report.pages_kept == 6
    assert readers.read(world.config(max_skip_fraction=0.0)).report.pages_kept == 6


def test_pages_without_panels_or_files_are_not_damage(tmp_path: Path) -> None:
    world = World(tmp_path / "w")
    world.bad_page({"panels": []})
    world.ids.append("Book C/none")
    assert world.load(max_skip_fraction=0.0).report.skipped == {"no_panels": 1, "no_panel_file": 1}


# --- features and training


def trained(world: World, name: str) -> tuple[bytes, np.ndarray, PanelTable]:
    """A small run on the world: its weights, the features of its clean pages, its table."""
    small = {"dim": 16, "gate_hidden": 8, "layout_hidden": 8, "epochs": 2, "batch_pages": 2, "workers": 0}
    config = world.config(**small, val_fraction=0.3, test_fraction=0.0)
    data = Dataset.load(config, progress=False)
    run = RunFolder.create(world.root / name, config)
    with run.lock():
        Trainer(run, data).fit(lambda: False)
    rows = np.flatnonzero(np.isin(data.table.pages["page_id"].to_numpy()[data.table.page_of_panel], CLEAN))
    features = np.concatenate(data.features.gather(rows), axis=1)
    return (run.checkpoints()[-1].path / "model.safetensors").read_bytes(), features, data.table


@pytest.fixture(scope="module")
def without_panels(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, np.ndarray]:
    """What is trained beside a page that has no panels."""
    world = World(tmp_path_factory.mktemp("empty") / "w")
    world.bad_page({"panels": []})
    return trained(world, "run")[:2]


@pytest.mark.parametrize(
    "case",
    [
        "no-such-page",
        "empty",
        "latin-1",
        "deep-nesting",
        "5000-digits",
        "duplicate-key",
        "panels-string",
        "only-bad-panels",
    ],
)
def test_a_bad_page_trains_exactly_as_a_page_without_panels(
    case: str, tmp_path: Path, without_panels: tuple[bytes, np.ndarray]
) -> None:
    world = World(tmp_path / "w")
    if case in SKIPPED:
        world.bad_page(SKIPPED[case][0])
    weights, features, _ = trained(world, "run")
    np.testing.assert_array_equal(features, without_panels[1])
    assert weights == without_panels[0]


def image_bytes(**options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise(SIZE, 50).convert(options.pop("mode", "RGB")).save(buffer, **{"format": "PNG", **options})
    return buffer.getvalue()


IMAGES: dict[str, tuple[bytes | None, str]] = {
    "empty": (b"", "image:empty"),
    "html": (b"<!DOCTYPE html><title>404</title>", "image:format"),
    "truncated": (image_bytes()[:-500], "image:truncated"),
    "truncated-webp": (image_bytes(format="WEBP")[:-500], "image:truncated|image:corrupt"),
    "flipped-bit": (image_bytes()[:3000] + b"\1" + image_bytes()[3001:], "image:corrupt"),
    "one-pixel": (
        image_bytes()[:16] + (1).to_bytes(4, "big") * 2 + image_bytes()[24:],
        "image:corrupt|image:too_small",
    ),
    "float": (image_bytes(mode="F", format="TIFF"), "image:mode"),
    "folder": (None, "image:not_a_file"),
}


@pytest.fixture(scope="module")
def without_image(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, np.ndarray]:
    """What is trained beside a page whose image is missing."""
    world = World(tmp_path_factory.mktemp("missing") / "w")
    (world.root / "images" / f"{world.bad_page(vlm_page())}.png").unlink()
    weights, features, table = trained(world, "run")
    assert table.report.counts["image_missing"] == 1
    return weights, features


@pytest.mark.parametrize("case", IMAGES)
def test_a_bad_image_trains_exactly_as_a_missing_one(
    case: str, tmp_path: Path, without_image: tuple[bytes, np.ndarray]
) -> None:
    content, codes = IMAGES[case]
    world = World(tmp_path / "w")
    path = world.root / "images" / f"{world.bad_page(vlm_page())}.png"
    path.unlink()
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    weights, features, table = trained(world, "run")
    (code,) = (c for c in codes.split("|") if table.report.counts[c])
    assert table.report.counts[code] == 1
    assert "bad" in table.report.examples[code][0]
    np.testing.assert_array_equal(features, without_image[1])
    assert weights == without_image[0]
