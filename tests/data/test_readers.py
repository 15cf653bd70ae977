"""Reading data sets: where the parts are, how files are found, what each style gives, what the cache may keep."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from reader_world import (
    CLEAN,
    SIZE,
    World,
    aligned_page,
    assert_clean_pages_unchanged,
    assert_sound,
    ocr_page,
    panels_of,
    vlm_page,
)

from stage3.config import Config
from stage3.data import readers
from stage3.data.readers import cache, names, resolution
from stage3.data.readers.books import guessed_books
from stage3.data.readers.manifest import remapped
from stage3.data.readers.manifest_rows import folder_of
from stage3.data.readers.order import reading_order
from stage3.data.splits import split_books
from stage3.data.table import DataReport, PanelTable
from stage3.errors import ConfigError, DataError, StorageError


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "w")


# --- finding files ---


def resolve(ids: list[str], files: list[str], books: list[str] | None = None) -> tuple[list[str], DataReport]:
    report = DataReport()
    index = names.NameIndex(pa.array(files, pa.large_string()))
    books = [i.rpartition("/")[0] for i in ids] if books is None else books
    strings = [pa.array(column, pa.large_string()) for column in (ids, books)]
    found = resolution.resolve(strings[0], index, report, "panel_file", strings[1])
    how = [resolution.RESOLVED_BY[h] for h in found.how]
    return [f"{h} {files[r]}" if r >= 0 else h for h, r in zip(how, found.row, strict=True)], report


@pytest.mark.parametrize(
    ("ids", "files", "expected"),
    [
        (["b/#1 50%"], ["b/#1 50%", "c/1"], ["exact b/#1 50%"]),
        (["b\\1"], ["b/1"], ["exact b/1"]),
        (["b/é"], ["b/e\u0301"], ["exact b/e\u0301"]),
        (["b/1.jpg"], ["b/1"], ["extension b/1"]),
        (["b/1.avif"], ["b/1"], ["extension b/1"]),
        (["b/1"], ["b/1.jpg.png"], ["extension b/1.jpg.png"]),
        (["b/1", "b/1.webp"], ["b/1"], ["exact b/1", "unresolved"]),
        (["b/1.gif", "b/1.webp"], ["b/1"], ["ambiguous", "ambiguous"]),
        (["A/jpg/1", "B/jpg/1"], ["A/jpg/1"], ["exact A/jpg/1", "unresolved"]),
        (["A/jpg/1", "B/jpg/1"], ["C/jpg/1"], ["unresolved", "unresolved"]),  # of a book that is not listed
        (["B/jpg/1"], ["C/jpg/1"], ["unresolved"]),
        (["A/jpg/1", "B/jpg/1"], ["jpg/1"], ["ambiguous", "ambiguous"]),
        (["b/1.webp"], ["b/1.png", "b/1.jpg"], ["ambiguous"]),
        (["E/x/b/1"], ["b/1", "c/1"], ["suffix b/1"]),
        (["b/1"], ["vlm/b/1", "vlm/c/1"], ["suffix vlm/b/1"]),
        (["q/a/b/1"], ["b/1", "a/b/1"], ["suffix a/b/1"]),  # the longest suffix, not the first
        (["q/a/b/1"], ["z/a/b/1", "z/c/b/1"], ["unresolved"]),
        (["q/b/1"], ["a/b/1", "c/b/1"], ["unresolved"]),
        (["b/1"], ["x/b/1", "y/b/1"], ["ambiguous"]),
        (["q/7"], ["7", "c/8"], ["suffix 7"]),  # a leaf that nothing else has
        (["q/7"], ["a/7", "c/8"], ["unresolved"]),
        (["q/7", "r/7"], ["7", "c/8"], ["unresolved", "unresolved"]),
        (["q/7"], ["7", "a/7"], ["unresolved"]),
        (["7"], ["a/7", "c/8"], ["unresolved"]),  # a number names no book
        (["Foo 7"], ["a/Foo 7", "c/8"], ["suffix a/Foo 7"]),
        (["cover"], ["a/cover", "c/8"], ["unresolved"]),
        (["q/7"], ["a/7", "c/7"], ["unresolved"]),
        (["B_B - p0.jpg"], ["b/B - P0"], ["normalised b/B - P0"]),
        (["b/1.jpg.png"], ["B_1", "x"], ["normalised B_1"]),
        (["b/c_1"], ["B_C_1", "B/C/1"], ["ambiguous"]),
        (["x/1", "y/1"], ["z/x/1"], ["suffix z/x/1", "unresolved"]),
        ([], ["a"], []),
        (["a/1"], [], ["unresolved"]),
    ],
)
def test_a_file_is_found_by_the_first_way_that_gives_one(ids: list[str], files: list[str], expected: list[str]) -> None:
    assert resolve(ids, files)[0] == expected


def test_ambiguous_ids_are_reported_with_their_candidates() -> None:
    _, report = resolve(["b/1"], ["a/b/1", "c/b/1"])
    assert report.counts["panel_file_ambiguous"] == 1
    assert report.examples["panel_file_ambiguous"] == ["b/1 could be a/b/1, c/b/1"]


@pytest.mark.parametrize(("book", "expected"), [("a", "suffix x/a/7"), ("x/a", "suffix x/a/7"), ("b", "unresolved")])
def test_a_number_finds_its_file_in_the_folder_of_its_book(book: str, expected: str) -> None:
    assert resolve(["7"], ["x/a/7", "c/8"], [book])[0] == [expected]


def test_a_page_without_a_file_never_takes_that_of_another_book(world: World) -> None:
    world.page("Book X/inner/007", vlm_page())  # of a book that the manifest does not list
    world.ids += ["Book C/inner/007", "Book D/007"]
    report = world.load().report
    assert report.skipped == {"no_panel_file": 2}
    assert report.counts["panel_file_unlisted"] == 1


def test_every_page_found_by_suffix_is_listed_with_both_paths(world: World) -> None:
    numbers = range(30)
    for n in numbers:
        world.page(f"deep/Book C/{n}", vlm_page())
    world.ids += [f"Book C/{n}" for n in numbers]
    report = world.load().report
    assert report.facts["resolved_by"] == {"exact": 6, "suffix": 30}
    assert report.counts["panel_file_by_suffix"] == 30
    assert report.examples["panel_file_by_suffix"] == [f"Book C/{n} found as deep/Book C/{n}" for n in numbers]
    assert "Book C/0 found as deep/Book C/0" in "\n".join(readers.report_lines(report))


def test_labels_of_another_book_are_no_labels_and_suffixes_are_listed(world: World) -> None:
    labels = {f"scans/{i}": "story" for i in CLEAN[1:]} | {f"Book X/{CLEAN[0].rpartition('/')[2]}": "story"}
    (world.root / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
    report = world.load(labels=str(world.root / "labels.json")).report
    assert report.skipped == {"label_missing": 1}
    assert report.counts["label_by_suffix"] == 5
    assert f"{CLEAN[1]} found as scans/{CLEAN[1]}" in report.examples["label_by_suffix"]


def test_ambiguous_pages_are_left_out_and_how_pages_were_found_is_kept(world: World) -> None:
    world.page("x/deep/1", vlm_page())
    world.page("y/deep/1", vlm_page())
    world.page("Book C/2.jpg", vlm_page())
    world.ids += ["deep/1", "Book C/2"]
    table = world.load()
    assert table.report.skipped == {"panel_file_ambiguous": 1}
    assert table.pages.set_index("page_id")["resolved_by"].to_dict() == {
        **dict.fromkeys(CLEAN, "exact"),
        "Book C/2": "extension",
    }
    assert table.report.facts["resolved_by"] == {"exact": 6, "extension": 1, "ambiguous": 1}
    assert table.report.counts["panel_file_unlisted"] == 2


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_links_out_of_the_panels_folder_are_not_followed(world: World, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "1.json").write_text(json.dumps(vlm_page()), encoding="utf-8")
    (world.root / "panels" / "Book C").symlink_to(outside)
    (world.root / "panels" / "Book A" / "link.json").symlink_to(outside / "1.json")
    (world.root / "panels" / "Book A" / "loop").symlink_to(world.root / "panels")
    world.ids += ["Book C/1", "Book A/link"]
    table = world.load()
    assert table.report.skipped == {"no_panel_file": 2}
    assert table.report.counts["link_leaves_folder"] == 2


@pytest.mark.skipif(os.name == "nt", reason="no such files on Windows")
@pytest.mark.parametrize("kind", ["fifo", "folder", "unreadable"])
def test_a_panel_file_that_is_no_file_never_blocks(kind: str, world: World) -> None:
    path = world.page(world.bad_page({}), {})
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(world.root / "panels" / "gone")
    table = world.load()
    assert table.report.skipped == {"no_panel_file": 1}


def test_the_table_of_the_sample_comics_stays_the_same_to_the_bit(tmp_path: Path) -> None:
    samples = Path(__file__).parents[2] / "data" / "samples"
    recorded = json.loads((samples / "runs" / "sample" / "data.json").read_text(encoding="utf-8"))
    table = readers.load(Config(data=str(samples), cache_dir=str(tmp_path)))
    assert table.fingerprint() == recorded["table"]


# --- images and paths ---


@pytest.mark.parametrize(
    ("path", "remap", "expected"),
    [
        (r"E:\amazon\a b\1.jpg", (("E:\\amazon", "/d"),), "/d/a b/1.jpg"),
        (r"e:/Amazon\1.jpg", (("E:\\amazon\\", "/d"),), "/d/1.jpg"),
        (r"E:\amazonia\1.jpg", (("E:\\amazon", "/d"),), r"E:\amazonia\1.jpg"),
        (r"\\nas\comics\1.jpg", (("\\\\nas\\comics", "/d"),), "/d/1.jpg"),
        ("/old/x/1.jpg", (("/old/x", "/new"), ("/old", "/other")), "/new/1.jpg"),
        ("/older/1.jpg", (("/old", "/new"),), "/older/1.jpg"),
        ("rel/1.jpg", (), "/base/rel/1.jpg"),
        (r"rel\1.jpg", (), "/base/rel/1.jpg"),
        ("", (), ""),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="expectations are written for POSIX")
def test_image_paths_of_another_machine(path: str, remap: tuple[tuple[str, str], ...], expected: str) -> None:
    assert remapped(path, remap, Path("/base")) == expected


def test_remap_setting_finds_images_listed_with_windows_paths(world: World) -> None:
    rows = "".join(f"{i},E:\\comics\\{i}.png\r\n".replace("/", "\\") for i in CLEAN)
    (world.root / "manifest.csv").write_bytes(b"canonical_id,absolute_image_path\r\n" + rows.encode())
    lost = world.load()
    assert (lost.pages["image_path"] == "").all()
    if os.name != "nt":
        assert lost.report.counts["image_path_of_another_machine"] == 6
    found = world.load(remap=(f"E:\\comics={world.root / 'images'}",))
    assert all(Path(p).is_file() for p in found.pages["image_path"])
    assert found.pages[["width", "height"]].drop_duplicates().to_numpy().tolist() == [list(SIZE)]
    assert found.fingerprint() == lost.fingerprint()


def test_a_missing_image_costs_the_page_its_image_only(world: World) -> None:
    reference = world.load()
    (world.root / "images" / f"{CLEAN[2]}.png").unlink()
    table = world.load()
    assert table.report.counts["image_missing"] == 1
    assert table.pages["image_path"].eq("").tolist() == [i == CLEAN[2] for i in CLEAN]
    pd.testing.assert_frame_equal(table.panels, reference.panels, check_exact=True)


@pytest.mark.parametrize("extension", [".jpg", ".avif"])
def test_a_image_is_found_under_another_extension(extension: str, world: World) -> None:
    path = world.root / "images" / f"{CLEAN[0]}.png"
    path.rename(path.with_suffix(extension))
    table = world.load()
    assert table.pages["image_path"].iloc[0].endswith(extension)
    assert table.report.counts["image_other_extension"] == 1


def test_equal_images_are_reported(world: World) -> None:
    first, second = (world.root / "images" / f"{i}.png" for i in CLEAN[:2])
    second.write_bytes(first.read_bytes())
    table = world.load()
    assert table.report.facts["duplicate_images"] == {"groups": 1, "pictures": 2}
    assert table.report.counts["image_duplicate"] == 1


@pytest.mark.parametrize(
    ("page_id", "book"),
    [
        ("13thfloor vol1 - Unknown/JPG4CBZ/0001", "13thfloor vol1 - Unknown/JPG4CBZ"),
        ("a\\b\\1", "a/b"),
        ("/0001", ""),
        ("0001", ""),
    ],
)
def test_the_book_is_the_ids_folder(page_id: str, book: str) -> None:
    assert folder_of(page_id) == book


FLAT_IDS: dict[str, dict[str, str]] = {  # each a data set: id, book
    "folder-twice": {
        "#Guardian 001_#Guardian 001 - p000.jpg": "#Guardian 001",
        "#Guardian 001_#Guardian 001 - p001.jpg": "#Guardian 001",
        "#Guardian 001_#Guardian 001 - cover.jpg": "#Guardian 001",
        "#Guardian 001_#Guardian 001.jpg": "#Guardian 001",
    },
    "folder-twice-and-page": {"Foo 1_Foo 1": "Foo 1_Foo", "Foo 1_Foo 3": "Foo 1_Foo", "Foo 1_Foo 10": "Foo 1_Foo"},
    "not-twice": {"Cat_Catwoman_001": "Cat_Catwoman", "Cat_Catwoman_002": "Cat_Catwoman"},
    "p": {"Tales - p012.jpg.png": "Tales"},
    "number-alone": {"0001": "unnamed", "0002.png": "unnamed", "p3": "unnamed", "---": "unnamed"},
    "underscores": {
        "AUTHOR_ALBUM_T01_005": "AUTHOR_ALBUM_T01",
        "AUTHOR_ALBUM_T01_006": "AUTHOR_ALBUM_T01",
        "AUTHOR_ALBUM_T02_005": "AUTHOR_ALBUM_T02",
        "AUTHOR_ALBUM_T01_cover": "AUTHOR_ALBUM_T01",
    },
    "underscore-p": {"batman_p003": "batman", "batman_p004a": "batman", "batman_p004b": "batman"},
    "volume-chapter-page": {"v01c01p001": "v01c01", "v01c01p002": "v01c01", "v01c02p001": "v01c02"},
    "no-separator": {"img001": "img", "img002": "img", "step003": "step"},
    "two-extensions": {"Foo_012.jpg.png": "Foo", "Foo_013.jpg.png": "Foo"},
    "number-first": {"0001-Foo": "Foo", "0002-Foo": "Foo", "0003-Foo": "Foo"},
    "number-first-and-last": {"01-Foo 1": "Foo 1", "02-Foo 1": "Foo 1", "03-Foo 1": "Foo 1", "01-Foo 2": "Foo 2"},
    "number-in-the-title": {"100 Bullets_001": "100 Bullets", "100 Bullets_002": "100 Bullets", "300_001": "300"},
    "of": {"Foo 001 (of 24)": "Foo", "Foo 002 (of 24)": "Foo", "Foo 03of24": "Foo"},
    "brackets": {"Foo (12)": "Foo", "Foo (13)": "Foo", "Foo 014 (2019) (digital)": "Foo"},
    "double-pages": {"Foo - 011": "Foo", "Foo - 012-013": "Foo", "Foo - 014": "Foo", "Foo p016-p017": "Foo"},
    "only-double-pages": {"Foo - 012-013": "Foo", "Foo - 014-015": "Foo"},
    "issue-dash-page": {"Foo 01-01": "Foo 01", "Foo 01-02": "Foo 01", "Foo 01-24": "Foo 01", "Foo 02-03": "Foo"},
    "book-underscore-page": {"2_2": "2", "2_3": "2", "2_20": "2", "3_1": "3", "3_20": "3"},
    "titles": {"cover": "cover", "end": "end"},
}


@pytest.mark.parametrize("case", FLAT_IDS)
def test_flat_ids_tell_their_books_together(case: str) -> None:
    expected = FLAT_IDS[case]
    assert dict(zip(expected, guessed_books(list(expected)), strict=True)) == expected
    turned = list(expected)[::-1]
    assert guessed_books(turned) == [expected[page_id] for page_id in turned]


def test_pages_of_one_flat_album_never_lie_in_two_splits(world: World) -> None:
    world.ids = [f"AUTHOR_ALBUM_T{book:02d}_{page:03d}" for book in range(1, 5) for page in range(1, 5 + book)]
    for page_id in world.ids:
        world.page(page_id, vlm_page())
    table = world.load()
    split = split_books(table, 0.25, 0.25, 0)
    splits = pd.Series(split).groupby(table.pages["page_id"].str[:16]).nunique()
    assert splits.tolist() == [1, 1, 1, 1]
    assert set(split.tolist()) == {0, 1, 2}
    assert table.report.counts["book_guessed"] == 26
    largest_first = [(f"AUTHOR_ALBUM_T0{n}", 4 + n) for n in (4, 3, 2, 1)]
    assert list(table.report.facts["pages_per_book"].items()) == largest_first


def test_the_report_names_books_with_their_pages_and_warns_of_books_of_one_page(world: World) -> None:
    said = "\n".join(readers.report_lines(world.load().report))
    assert "Books (2): Book A 3 pages, Book B 3 pages." in said
    assert "of one page each" not in said
    world.ids += ["cover", "end"]
    for page_id in ("cover", "end"):
        world.page(page_id, vlm_page())
    world.write_manifest()
    report = world.load().report
    assert report.facts["books_of_one_page"] == 2
    assert "2 books of one page each" in "\n".join(readers.report_lines(report))


def test_a_book_column_wins(world: World) -> None:
    rows = "".join(f'"{i}",x.png,"{"Zed" if n == 1 else ""}"\n' for n, i in enumerate(CLEAN))
    (world.root / "manifest.csv").write_text("canonical_id,absolute_image_path,book\n" + rows, encoding="utf-8")
    assert world.load().pages["book_id"].tolist() == ["Book A", "Zed", "Book A", "Book B", "Book B", "Book B"]


def test_the_sha256_of_the_manifest_reaches_the_table(world: World) -> None:
    rows = "".join(f'"{i}",images/x.png,{"AB" * 32 if n == 1 else ""}\n' for n, i in enumerate(CLEAN))
    (world.root / "manifest.csv").write_text("canonical_id,absolute_image_path,sha256\n" + rows, encoding="utf-8")
    table = world.load()
    assert table.pages["image_sha256"].tolist() == ["", "ab" * 32, "", "", "", ""]
    assert table.report.counts["manifest_column_ignored"] == 0


# --- styles ---


def test_older_vlm_schema_and_other_keys(world: World) -> None:
    old = {
        "panels": [
            {
                "panel_number": 1,
                "speakers": [{"character": "Ann", "dialogue": "Hi", "speech_type": "shout"}, {"character": "Bo"}],
                "caption": "Later",
                "description": "rain",
            },
            {"panel_number": 2, "box": [0, 0, 1000, 1000], "text_content": [{"type": "caption", "text": "End"}, "Fin"]},
        ]
    }
    page_id = world.bad_page(old)
    kept = panels_of(world.load(), page_id)
    assert kept["dialogue"].tolist() == ["Hi Later", "End Fin"]
    assert kept["description"].tolist() == ["rain", ""]
    assert kept["speakers"].tolist() == ["Ann, Bo", ""]
    assert kept["has_box"].tolist() == [False, True]


def test_box_order_of_a_source(world: World) -> None:
    page_id = world.bad_page({"panels": [{"box_2d": [100, 200, 600, 900]}]})
    yx = panels_of(world.load(), page_id)[["x", "y", "w", "h"]].to_numpy()[0]
    xy = panels_of(world.load(box_order="xyxy"), page_id)[["x", "y", "w", "h"]].to_numpy()[0]
    np.testing.assert_allclose(yx, [0.2, 0.1, 0.7, 0.5], atol=1e-6)
    np.testing.assert_allclose(xy, [0.1, 0.2, 0.5, 0.7], atol=1e-6)


@pytest.mark.parametrize(
    ("boxes", "width"),
    [([[0, 0, 95, 98]], 0.098), ([[0, 0, 45, 98], [50, 0, 95, 98]], 0.98)],
    ids=["one small panel", "a page in percent"],
)
def test_one_box_in_a_corner_is_small_and_several_are_in_percent(
    boxes: list[list[int]], width: float, world: World
) -> None:
    page_id = world.bad_page({"panels": [{"box_2d": box} for box in boxes]})
    table = world.load()
    np.testing.assert_allclose(panels_of(table, page_id)["w"], width, atol=1e-6)
    assert table.report.counts["boxes_rescaled"] == (len(boxes) > 1)


def test_vlm_and_ocr_of_the_same_page_agree_on_boxes(tmp_path: Path) -> None:
    boxes = []
    for style, page in (("vlm", {"panels": [{"box_2d": [100, 200, 600, 900]}]}), ("ocr", ocr_page(1))):
        world = World(tmp_path / style, style)
        if style == "ocr":
            page["panels"] = [{"bbox": [40, 30, 140, 150], "text": ""}]
        page_id = world.bad_page(page)
        boxes.append(panels_of(world.load(), page_id)[["x", "y", "w", "h"]].to_numpy())
    np.testing.assert_allclose(boxes[0], boxes[1], atol=1e-6)


def aligned_world(tmp_path: Path, pages: list[dict[str, Any]] | str) -> Config:
    world = World(tmp_path / "w")
    path = world.root / "aligned.json"
    path.write_text(pages if isinstance(pages, str) else json.dumps(pages, indent=1), encoding="utf-8")
    return world.config(panels=str(path), panel_format="aligned")


def rcnn(x: float, y: float, w: float, h: float, text: str = "") -> dict[str, Any]:
    return {"rcnn_bbox": [x, y, w, h], "vlm_box_2d": None, "vlm_box_px": None, "text": text, "modality_mask": [1, 0, 1]}


TEXT_ONLY = {"rcnn_bbox": None, "vlm_box_2d": None, "vlm_box_px": None, "text": "alone", "modality_mask": [0, 1, 0]}


def test_aligned_panels_come_in_reading_order_with_their_source_index(tmp_path: Path) -> None:
    match_order = [
        rcnn(105, 155, 90, 140),
        TEXT_ONLY,
        rcnn(5, 152, 90, 140),
        rcnn(105, 8, 90, 140),
        rcnn(5, 5, 90, 140),
    ]
    table = readers.load(aligned_world(tmp_path, [aligned_page(CLEAN[0], match_order), aligned_page("other", [])]))
    assert_sound(table)
    assert table.panels["source_index"].tolist() == [4, 3, 2, 0, 1]
    assert table.page_of_panel.dtype == np.int64
    assert table.panels["has_box"].tolist() == [True] * 4 + [False]
    assert table.panels["dialogue"].tolist()[-1] == "alone"
    assert table.report.skipped == {"no_panel_file": 5}


def test_aligned_takes_the_first_sound_box(tmp_path: Path) -> None:
    panels = [
        {"rcnn_bbox": [20, 30, 100, 150], "vlm_box_px": [0, 0, 1, 1], "vlm_box_2d": [0, 0, 1, 1], "text": "a"},
        {"rcnn_bbox": None, "vlm_box_px": [20, 30, 100, 150], "vlm_box_2d": [0, 0, 1, 1], "text": "b"},
        {"rcnn_bbox": [1, None, 3, 4], "vlm_box_px": None, "vlm_box_2d": [100, 100, 600, 600], "text": "c"},
        {"rcnn_bbox": [float("nan")] * 4, "vlm_box_px": None, "vlm_box_2d": None, "text": "d"},
    ]
    table = readers.load(aligned_world(tmp_path, [aligned_page(CLEAN[0], panels)]))
    np.testing.assert_allclose(table.panels[["x", "y", "w", "h"]].to_numpy()[:3], [[0.1, 0.1, 0.5, 0.5]] * 3, atol=1e-6)
    assert table.panels["has_box"].tolist() == [True, True, True, False]
    assert table.report.counts["box_not_numbers"] == 1


def test_bad_entries_of_an_aligned_file_change_nothing_else(tmp_path: Path) -> None:
    pages = [aligned_page(i, [rcnn(5, 5, 90, 140, i)]) for i in CLEAN[1:4]]
    bad: list[Any] = [None, 7, "x", {"panels": []}, {"canonical_id": 3}, aligned_page(CLEAN[0], None)]  # type: ignore[arg-type]
    clean = readers.load(aligned_world(tmp_path / "a", pages))
    mixed = readers.load(aligned_world(tmp_path / "b", [*bad, *pages, aligned_page(CLEAN[4], [None])]))
    assert_clean_pages_unchanged(mixed, clean)
    assert mixed.report.counts["entry_without_id"] == 5
    assert mixed.report.skipped == {"no_panel_file": 1, "panels_type": 1, "no_usable_panel": 1}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ('{"canonical_id": ID, "panels": [], "panels": []}', "json_duplicate_key"),
        ('{"canonical_id": ID, "panels": [{"text": "a", "text": "b"}]}', "json_duplicate_key"),
        ('{"canonical_id": ID, "panels": [], "image_width": ' + "9" * 5000 + "}", "json_number"),
    ],
)
@pytest.mark.parametrize("chunk", [2**20, 7])
def test_an_item_that_is_refused_loses_its_page_only(
    bad: str, reason: str, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stage3.data.readers.jsonfile.CHUNK", chunk)
    pages = [json.dumps(aligned_page(i, [rcnn(5, 5, 90, 140, i)])) for i in CLEAN[1:]]
    clean = readers.load(aligned_world(tmp_path / "a", f"[{','.join(pages)}]"))
    pages.insert(2, bad.replace("ID", json.dumps(CLEAN[0])))
    mixed = readers.load(aligned_world(tmp_path / "b", f"[{','.join(pages)}]"))
    assert_clean_pages_unchanged(mixed, clean)
    assert mixed.report.skipped == {reason: 1}
    assert "aligned.json[2]: " in mixed.report.examples[f"page:{reason}"][0]


def test_an_id_twice_in_an_aligned_file_is_ambiguous(tmp_path: Path) -> None:
    pages = [aligned_page(i, [rcnn(5, 5, 90, 140, i)]) for i in (*CLEAN, CLEAN[0])]
    table = readers.load(aligned_world(tmp_path, pages))
    assert table.report.skipped == {"panel_file_ambiguous": 1}


@pytest.mark.parametrize("text", ["{}", "", "[{}", '[{"canonical_id": "a"}, {"b": }]', "null", "[" * 50_000])
def test_a_broken_aligned_file_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"aligned\.json"):
        readers.load(aligned_world(tmp_path, text))


def test_an_aligned_file_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = [aligned_page(i, [rcnn(5, 5, 90, 140, i)]) for i in CLEAN]
    whole = readers.load(aligned_world(tmp_path / "a", pages))
    monkeypatch.setattr("stage3.data.readers.jsonfile.CHUNK", 7)
    pieces = readers.load(aligned_world(tmp_path / "b", pages))
    assert_clean_pages_unchanged(pieces, whole)
    assert len(pieces.pages) == 6


GRID = np.array(
    [
        [0, 0, 0.5, 0.3],
        [0.5, 0, 0.5, 0.3],
        [0, 0.3, 1, 0.3],
        [0, 0.6, 0.4, 0.4],
        [0.4, 0.6, 0.6, 0.2],
        [0.4, 0.8, 0.6, 0.2],
    ]
)


@pytest.mark.parametrize("seed", range(5))
def test_reading_order_is_found_from_any_order(seed: int) -> None:
    shuffle = np.random.default_rng(seed).permutation(len(GRID))
    assert shuffle[reading_order(GRID[shuffle])].tolist() == [0, 1, 2, 3, 4, 5]
    assert shuffle[reading_order(GRID[shuffle], right_to_left=True)].tolist() == [1, 0, 2, 4, 5, 3]


def test_reading_order_of_overlapping_panels_keeps_every_panel() -> None:
    boxes = np.random.default_rng(0).random((40, 4)) * 0.5
    assert sorted(reading_order(boxes)) == list(range(40))
    assert reading_order(np.zeros((0, 4))) == []


# --- settings and sources ---


def dataset(world: World, **more: Any) -> Path:
    world.write_manifest()
    lines = {"name": "Tiny", "manifest": "manifest.csv", "panels": "panels", "panel_format": "vlm", **more}
    (world.root / "dataset.yaml").write_text("".join(f"{k}: {v}\n" for k, v in lines.items()), encoding="utf-8")
    return world.root


def test_a_data_set_folder_equals_its_parts(world: World) -> None:
    by_parts = world.load()
    config = Config(data=str(dataset(world)), cache_dir=str(world.root / "other"))
    by_folder = readers.load(config)
    pd.testing.assert_frame_equal(by_folder.pages, by_parts.pages)
    assert readers.source_of(config).name == "Tiny"
    spaced = Config(data=str(dataset(world, remap="'E:\\old = new '")))
    assert readers.source_of(spaced).remap == (("E:\\old", str(world.root / "new")),)


def test_settings_win_over_the_yaml(world: World, tmp_path: Path) -> None:
    root = dataset(world, labels="labels.json", box_order="xyxy")
    (root / "labels.json").write_text("{}", encoding="utf-8")
    mine = tmp_path / "mine.json"
    mine.write_text("{}", encoding="utf-8")
    (tmp_path / "ocr").mkdir()
    plain = readers.source_of(Config(data=str(root)))
    assert (plain.labels, plain.box_order, plain.panel_format) == (root / "labels.json", "xyxy", "vlm")
    changed = readers.source_of(
        Config(data=str(root), labels=str(mine), panels=str(tmp_path / "ocr"), panel_format="ocr")
    )
    assert (changed.labels, changed.panels, changed.panel_format) == (mine, tmp_path / "ocr", "ocr")
    assert changed.box_order == "auto"  # the yaml's order describes the yaml's panels


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"lables": "x.json"}, r"unknown key 'lables'\. Did you mean 'labels'\?"),
        ({"panel_format": "vllm"}, r"panel_format: 'vllm' is not one of .*Did you mean 'vlm'\?"),
        ({"manifest": "[1]"}, "manifest: expected text"),
        ({"remap": "nonsense"}, "remap: expected OLD=NEW"),
    ],
)
def test_mistakes_in_a_dataset_yaml_are_named(more: dict[str, str], message: str, world: World) -> None:
    with pytest.raises(ConfigError, match=message):
        readers.source_of(Config(data=str(dataset(world, **more))))


def test_naming_no_comics_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--data data/samples"):
        readers.load(Config())
    with pytest.raises(ConfigError, match=r"no dataset\.yaml"):
        readers.load(Config(data=str(tmp_path)))
    with pytest.raises(DataError, match="no such file"):
        readers.load(Config(manifest=str(tmp_path / "m.csv"), panels=str(tmp_path)))


def test_limit_takes_the_first_pages(world: World) -> None:
    assert world.load(limit_pages=2).pages["page_id"].tolist() == CLEAN[:2]
    table = world.load(limit_pages=100)
    assert len(table.pages) == 6
    assert table.report.counts["limit_beyond_data"] == 1


# --- cache ---


def saved(world: World) -> set[str]:
    return {p.name for p in (world.root / "cache" / "tables").iterdir()}


def test_the_second_load_reads_no_panel_file(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first = world.load()
    monkeypatch.setattr("stage3.data.readers.cache.build", None)  # any attempt to read the files again would fail
    second = world.load(max_skip_fraction=0.5, val_fraction=0.3)
    pd.testing.assert_frame_equal(second.panels, first.panels)
    pd.testing.assert_frame_equal(second.pages, first.pages)
    assert second.report.counts == first.report.counts
    assert second.fingerprint() == first.fingerprint()


@pytest.mark.parametrize("change", ["panel", "new_panel", "manifest", "setting", "image", "image in place", "label"])
def test_any_change_that_matters_is_seen(change: str, world: World) -> None:
    world.load()
    settings: dict[str, Any] = {}
    if change == "panel":
        world.page(CLEAN[0], vlm_page(3))
    elif change == "new_panel":
        world.page("Book A/new", vlm_page(3))
    elif change == "manifest":
        world.ids.pop()
        world.write_manifest()
    elif change == "setting":
        settings["max_panels"] = 1
    elif change == "image":
        (world.root / "images" / f"{CLEAN[0]}.png").unlink()
    elif change == "image in place":
        world.image(CLEAN[0], size=(90, 80))  # the folder does not change
    else:
        (world.root / "l.json").write_text(json.dumps({CLEAN[0]: "story"}), encoding="utf-8")
        settings["labels"] = str(world.root / "l.json")
    again = world.load(**settings)
    fresh = readers.load(world.config(**settings, cache_dir=str(world.root / "fresh")))
    pd.testing.assert_frame_equal(again.pages, fresh.pages)
    pd.testing.assert_frame_equal(again.panels, fresh.panels)
    if change == "panel":
        assert len(again) == len(fresh) > 0
        assert panels_of(again, CLEAN[0])["dialogue"].tolist() == ["line 0", "line 1", "line 2"]


def test_a_repaired_image_of_a_page_that_was_left_out_is_seen(tmp_path: Path) -> None:
    """Check, repair in place, check: the page is in no table that could name its image."""
    world = World(tmp_path / "w", "ocr")
    page_id = world.bad_page(ocr_page(2, image_width=None, image_height=None))
    image = world.root / "images" / f"{page_id}.png"
    sound = image.read_bytes()
    image.write_bytes(b"\0" * len(sound))
    assert world.load().report.skipped == {"page_size": 1}
    (table,) = (world.root / "cache" / "tables").rglob("pages.parquet")
    made = table.stat().st_mtime_ns
    assert world.load().report.skipped == {"page_size": 1}
    assert table.stat().st_mtime_ns == made  # nothing has changed, so nothing is read again
    image.write_bytes(sound)
    again = world.load()
    assert not again.report.skipped
    assert page_id in set(again.pages["page_id"])


@pytest.mark.parametrize("change", ["nothing", "panel", "image in place", "image gone", "new image", "manifest"])
def test_the_stamp_changes_when_panel_files_or_images_do(change: str, world: World) -> None:
    assert readers.stamp(world.config()) == ""  # nothing has been read that could have changed
    world.load()
    before = readers.stamp(world.config())
    assert before
    if change == "panel":
        world.page(CLEAN[0], vlm_page(3))
        world.load()
    elif change == "image in place":
        world.image(CLEAN[0], color=(250, 250, 250))
    elif change == "image gone":
        (world.root / "images" / f"{CLEAN[0]}.png").unlink()
    elif change == "new image":
        world.image("Book A/new")
    elif change == "manifest":
        world.ids.pop()
        world.write_manifest()
    assert (readers.stamp(world.config()) == before) == (change == "nothing")
    world.load()
    assert (readers.stamp(world.config()) == before) == (change == "nothing")


@pytest.mark.parametrize("name", ["panels.parquet", "pages.parquet", "report.json", "image_folders.json"])
def test_a_damaged_cache_is_read_again(name: str, world: World) -> None:
    first = world.load()
    (folder,) = (world.root / "cache" / "tables").iterdir()
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    pd.testing.assert_frame_equal(world.load().panels, first.panels)


def test_refresh_reads_again_and_leaves_one_table(world: World) -> None:
    first = world.load()
    before = saved(world)
    again = readers.load(world.config(), refresh=True)
    pd.testing.assert_frame_equal(again.panels, first.panels)
    assert saved(world) == before


def test_rows_do_not_depend_on_how_much_is_written_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = world.load()
    monkeypatch.setattr("stage3.data.readers.writer.CHUNK", 2)
    parts = readers.load(world.config(), refresh=True)
    pd.testing.assert_frame_equal(parts.panels, whole.panels)
    pd.testing.assert_frame_equal(parts.pages, whole.pages)


def test_large_data_sets_read_no_image_header_and_give_the_same_panels(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = world.load()
    monkeypatch.setattr("stage3.data.readers.rows.SMALL", 0)
    large = readers.load(world.config(), refresh=True)
    assert (large.pages["width"] == 0).all()
    assert (small.pages["width"] == SIZE[0]).all()
    pd.testing.assert_frame_equal(large.panels, small.panels)
    assert large.fingerprint() == small.fingerprint()


def test_the_report_survives_the_cache(world: World) -> None:
    world.bad_page(b"{")
    first = world.load().report
    second = world.load().report
    assert second.to_dict() == first.to_dict()
    assert DataReport.from_dict(json.loads(json.dumps(first.to_dict()))).to_dict() == first.to_dict()


def test_a_table_is_saved_over_an_earlier_one_and_comes_back(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "some" / "where"
    for settings in ({"limit_pages": 2}, {}):
        table = world.load(**settings)
        table.save(folder)
        again = PanelTable.load(folder)
        pd.testing.assert_frame_equal(again.panels, table.panels)
        pd.testing.assert_frame_equal(again.pages, table.pages)
        assert again.report.to_dict() == table.report.to_dict()


def test_the_order_of_the_manifest_is_the_order_of_pages(world: World) -> None:
    world.ids.reverse()
    table: PanelTable = world.load()
    assert table.pages["page_id"].tolist() == CLEAN[::-1]


def test_a_file_for_another_shape_of_page_is_pointed_out(tmp_path: Path) -> None:
    world = World(tmp_path / "w", "ocr")
    world.bad_page(ocr_page(2, image_width=SIZE[1], image_height=SIZE[0]))
    table = world.load()
    assert table.report.counts["page_shape_differs"] == 1
    assert len(table.pages) == 7


def test_a_image_folder_that_changes_meanwhile_costs_a_second_reading_only(world: World) -> None:
    first = world.load()
    os.utime(world.root / "images" / "Book A", (1, 1))
    pd.testing.assert_frame_equal(world.load().panels, first.panels)


def test_two_processes_that_make_the_same_table_get_the_same(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    config = world.config()
    real, calls = cache.build, []

    def build_while_another_finishes(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            with monkeypatch.context() as other:
                other.setattr(cache.os, "getpid", lambda: 999_999)
                readers.load(config)
        return real(*args)

    monkeypatch.setattr(cache, "build", build_while_another_finishes)
    table = readers.load(config)
    assert len(calls) == 2
    pd.testing.assert_frame_equal(readers.load(config).panels, table.panels)
    assert len(saved(world)) == 1


def test_a_cache_folder_that_cannot_be_written_is_named(world: World) -> None:
    (world.root / "file").write_text("", encoding="utf-8")
    with pytest.raises(StorageError, match="--cache_dir"):
        world.load(cache_dir=str(world.root / "file"))
