"""Corrections by hand: beside the data, applied by every reader, and never to panels that they were not made for."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reader_world import CLEAN, World, aligned_page, assert_clean_pages_unchanged, panels_of

from stage3.config import Config
from stage3.data import __main__ as data_command
from stage3.data import correct, page_check, readers
from stage3.data.correct import CorrectedPanel as P
from stage3.data.exporters.pages import LeftOut, exported_pages
from stage3.data.readers import corrections
from stage3.data.readers.corrections import Correction, place, read_corrections
from stage3.errors import DataError, StorageError

THREE = CLEAN[2]  # three panels stacked from top to bottom
BOX = (0.125, 0.25, 0.5, 0.375)


@pytest.fixture(params=["vlm", "ocr", "aligned"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    made = World(tmp_path / "w", "vlm" if request.param == "aligned" else request.param)
    if request.param == "aligned":
        made.style = "aligned"
        entries = []
        for number, page_id in enumerate(made.ids):
            n = 1 + number % 3
            rows = [{"rcnn_bbox": [0, 300 * i / n, 200, 300 / n - 6], "text": f"line {i}"} for i in range(n)]
            entries.append(aligned_page(page_id, rows))
        (made.root / "aligned.json").write_text(json.dumps(entries), encoding="utf-8")
    return made


def config(world: World, **settings: Any) -> Config:
    if world.style == "aligned":
        settings = {"panels": str(world.root / "aligned.json"), **settings}
    return world.config(**settings)


def rows(config: Config, page_id: str = THREE) -> list[tuple[Any, ...]]:
    found = panels_of(readers.read(config), page_id)
    boxes = [tuple(np.round(b, 4)) for b in found[["x", "y", "w", "h"]].to_numpy().tolist()]
    return list(zip(found["source_index"], boxes, found["dialogue"], found["order"], strict=True))


def test_panels_are_moved_added_deleted_and_put_in_order(world: World) -> None:
    settings = config(world)
    before, reference = rows(settings), readers.read(settings)
    originals = {p: p.read_bytes() for p in world.root.rglob("*.json")}
    correct.correct(settings, THREE, [P(2, None), P(None, (0.0, 0.0, 0.25, 0.5)), P(0, BOX)])
    table = readers.read(settings)
    assert rows(settings) == [
        (2, before[2][1], "line 2", 0),
        (3, (0.0, 0.0, 0.25, 0.5), "", 1),
        (0, BOX, "line 0", 2),
    ]
    assert table.report.counts["page_corrected"] == 1
    assert table.report.counts["panel_deleted"] == 1
    assert table.report.counts["correction_unused"] == 0
    assert table.report.examples["page_corrected"][0].endswith("3 panels in its file, 3 by hand (1 new)")
    for page in set(CLEAN) - {THREE}:
        now, then = (panels_of(t, page).drop(columns=["page"]) for t in (table, reference))
        pd.testing.assert_frame_equal(now, then)
    assert {p: p.read_bytes() for p in originals} == originals, "panel files stay as they are"
    assert table.fingerprint() != reference.fingerprint()
    correct.uncorrect(settings, THREE)
    assert_clean_pages_unchanged(readers.read(settings), reference)
    assert readers.read(settings).fingerprint() == reference.fingerprint()


def test_the_file_lies_beside_the_panels_and_is_read_anew_when_it_changes(world: World) -> None:
    settings = config(world)
    readers.read(settings)
    first = readers.stamp(settings)
    correct.correct(settings, THREE, [P(1, BOX)])
    name = "aligned.corrections.json" if world.style == "aligned" else "panels.corrections.json"
    assert place(Path(settings.panels)) == world.root / name
    assert (world.root / name).is_file()
    assert len(rows(settings)) == 1
    second = readers.stamp(settings)
    correct.correct(settings, THREE, [P(1, BOX), P(0, None)])
    assert [index for index, *_ in rows(settings)] == [1, 0]
    assert len({first, second, readers.stamp(settings)}) == 3
    assert correct.corrected_pages(settings) == [THREE]
    correct.correct(settings, THREE, [P(None, (1 / 3, 0.25, 2 / 3, 0.5))])  # a thousandth of a pixel is enough
    written = (world.root / name).read_text(encoding="utf-8")
    assert '"box":[0.33333,0.25,0.66667,0.5]' in written.replace(" ", "")
    assert json.loads(written)["format"] == 1  # files of earlier versions must stay readable


def test_a_correction_is_not_applied_to_panels_that_it_was_not_made_for(world: World) -> None:
    if world.style == "aligned":
        pytest.skip("one file of all pages: as the others")
    settings = config(world)
    correct.correct(settings, THREE, [P(1, BOX)])
    path = world.root / "panels" / f"{THREE}.json"
    value = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(value, indent=3), encoding="utf-8")  # the same panels, written otherwise
    assert len(rows(settings)) == 1
    value["panels"].reverse()
    path.write_text(json.dumps(value), encoding="utf-8")
    assert len(rows(settings)) == 3
    report = readers.read(settings).report
    assert report.counts["correction_outdated"] == 1
    assert report.counts["page_corrected"] == 0


def test_the_cut_to_max_panels_comes_after(world: World) -> None:
    settings = config(world)
    correct.correct(settings, THREE, [P(2, None), P(0, None), P(1, None)])
    assert [index for index, *_ in rows(config(world, max_panels=2))] == [2, 0]
    assert readers.read(config(world, max_panels=2)).report.counts["panels_cut"] == 2  # of six pages, two have three
    page = correct.page_to_correct(config(world, max_panels=2), THREE, f"images/{THREE}.png")
    assert [entry.of for entry in page.panels] == [2, 0, 1]
    assert page.is_corrected


def test_a_page_without_usable_panels_gets_some_and_one_can_be_emptied(tmp_path: Path) -> None:
    world = World(tmp_path / "w", "ocr")
    bad = world.bad_page({"image_width": 200, "image_height": 300, "panels": [{"bbox": [0, 0, 0, 0], "text": "found"}]})
    settings = world.config()
    assert readers.read(settings).report.skipped["no_usable_panel"] == 1
    correct.correct(settings, bad, [P(0, BOX), P(None, (0.0, 0.0, 0.5, 0.25))])
    assert rows(settings, bad) == [(0, BOX, "found", 0), (1, (0.0, 0.0, 0.5, 0.25), "", 1)]
    correct.correct(settings, bad, [])
    table = readers.load(settings)  # a page without panels is no damage
    assert table.report.skipped == {"no_panels": 1}
    assert_clean_pages_unchanged(table, World(tmp_path / "clean", "ocr").load())


def test_a_correction_of_a_page_that_is_not_listed_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    world = World(tmp_path / "w")
    settings = world.config()
    correct.correct(settings, THREE, [P(0, None)])
    path = place(world.root / "panels")
    path.write_text(path.read_text(encoding="utf-8").replace(json.dumps(THREE, ensure_ascii=False), '"Book Z/1"'))
    report = readers.read(settings).report
    assert report.examples["correction_unused"] == ["Book Z/1"]
    flags = [f"--{n}={getattr(settings, n)}" for n in ("manifest", "panels", "cache_dir")]
    assert data_command.main(["check", *flags]) == 0
    assert "corrections by hand of pages that are not listed" in capsys.readouterr().out


def test_one_page_read_again_says_what_was_done(tmp_path: Path) -> None:
    world = World(tmp_path / "w", "ocr")
    settings = world.config()
    correct.correct(settings, THREE, [P(2, None), P(None, BOX)])
    check = page_check.check_page(settings, THREE, f"images/{THREE}.png", readers.read(settings).report.facts)
    assert [(p.index, p.order) for p in check.panels] == [(0, None), (1, None), (2, 0), (3, 1)]
    assert check.panels[0].notes == [("panel_deleted", "deleted by hand")]
    assert check.panels[3].box == BOX


def test_exports_have_corrected_panels(tmp_path: Path) -> None:
    world = World(tmp_path / "w", "ocr")
    value = json.loads((world.root / "panels" / f"{THREE}.json").read_text(encoding="utf-8"))
    for panel in value["panels"]:
        panel["polygon"] = [[0, 0], [50, 0], [50, 60]]
    world.page(THREE, value)
    settings = world.config()
    correct.correct(settings, THREE, [P(2, None), P(0, BOX), P(None, (0.0, 0.0, 0.5, 0.5))])
    page = next(p for p in exported_pages(settings, LeftOut()) if p.page_id == THREE)
    assert [p.text for p in page.panels] == ["line 2", "line 0", ""]
    assert page.panels[1].box == (25.0, 75.0, 100.0, 112.5)  # of 200 x 300
    assert page.panels[2].box == (0.0, 0.0, 100.0, 150.0)
    assert [p.polygon is None for p in page.panels] == [False, True, True]


GOOD = {"made_for": "0" * 16, "panels": [{"of": 0}]}


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("{", "damaged, not readable as JSON"),
        ("[]", "expected an object"),
        ('{"format": 1, "format": 1, "pages": {}}', "twice"),
        ({"format": 2, "pages": {}}, "format '2', expected 1"),
        ({"pages": {}}, "format 'None', expected 1"),
        ({"format": 1, "pages": []}, "expected an object with format and pages"),
        ({"format": 1, "pages": {}, "more": 1}, "expected an object with format and pages"),
        ({"format": 1, "pages": {"a": {"panels": []}}}, "page 'a': expected made_for and panels"),
        ({"format": 1, "pages": {"a": {**GOOD, "panels": {}}}}, "page 'a': panels must be a list of at most 64"),
        ({"format": 1, "pages": {"a": {**GOOD, "panels": [{"of": k} for k in range(65)]}}}, "at most 64"),
        ({"format": 1, "pages": {"a": {**GOOD, "panels": [{}]}}}, "page 'a', panel 0: expected of, box or both"),
        ({"format": 1, "pages": {"a": {**GOOD, "panels": [{"of": -1}]}}}, "of must be the number of an entry"),
        ({"format": 1, "pages": {"a": {**GOOD, "panels": [{"of": True}]}}}, "of must be the number of an entry"),
        ({"format": 1, "pages": {"a": {**GOOD, "panels": [{"of": 1}, {"of": 1}]}}}, "stands there twice"),
        (
            {"format": 1, "pages": {"a": {**GOOD, "panels": [{"of": 0}, {"box": [0, 0, 1]}]}}},
            "panel 1: box must be four",
        ),
        ({"format": 1, "pages": {"a": {**GOOD, "panels": [{"box": [0, 0, "1e999", 1]}]}}}, "box must be four numbers"),
        ({"format": 1, "pages": {"a": {**GOOD, "panels": [{"box": [0, 0, 0, 1]}]}}}, "is no part of the page"),
        ({"format": 1, "pages": {"a": {**GOOD, "panels": [{"box": [0.5, 0, 0.6, 1]}]}}}, "is no part of the page"),
        ({"format": 1, "pages": {"a": {**GOOD, "panels": [{"box": [-0.1, 0, 0.6, 1]}]}}}, "is no part of the page"),
    ],
)
def test_a_damaged_file_refuses_the_data_and_names_itself_and_the_remedy(
    content: Any, what: str, tmp_path: Path
) -> None:
    world = World(tmp_path / "w")
    path = place(world.root / "panels")
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError) as refused:
        readers.read(world.config())
    assert what in str(refused.value)
    assert str(path) in str(refused.value)
    assert "move it away" in str(refused.value)
    before = path.read_bytes()
    with pytest.raises(DataError):
        correct.correct(world.config(), THREE, [P(0, None)])
    assert path.read_bytes() == before, "what cannot be read is not overwritten"


@pytest.mark.parametrize(
    ("panels", "what"),
    [
        ([P(3, None)], "no entry 3 in its panel file, which has 3"),
        ([P(None, None)], "a new panel needs a box"),
        ([P(0, None), P(0, BOX)], "twice"),
        ([P(0, (0.0, 0.0, float("nan"), 1.0))], "no part of the page"),
        ([P(None, BOX)] * 65, "65 panels; a page may have 64"),
    ],
)
def test_panels_that_cannot_be_are_refused_before_anything_is_written(
    panels: list[P], what: str, tmp_path: Path
) -> None:
    world = World(tmp_path / "w")
    with pytest.raises(DataError, match=what):
        correct.correct(world.config(), THREE, panels)
    assert not place(world.root / "panels").exists()


def test_a_page_without_a_panel_file_cannot_be_corrected(tmp_path: Path) -> None:
    world = World(tmp_path / "w")
    with pytest.raises(DataError, match="Book A/none: its panel file cannot be corrected"):
        correct.correct(world.config(), "Book A/none", [P(None, BOX)])
    with pytest.raises(DataError, match="cannot be corrected"):
        correct.correct(world.config(), "../../etc/passwd", [P(None, BOX)])


def test_two_at_once_lose_nothing(tmp_path: Path) -> None:
    world = World(tmp_path / "w")
    settings = world.config()
    threads = [threading.Thread(target=correct.correct, args=(settings, page, [P(0, BOX)])) for page in CLEAN]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert correct.corrected_pages(settings) == sorted(CLEAN)


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path / "w")

    def full(path: Path, data: bytes) -> None:
        raise StorageError(f"{path}: No space left on device")

    monkeypatch.setattr(corrections, "replace_file", full)
    with pytest.raises(StorageError, match="No space left"):
        correct.correct(world.config(), THREE, [P(0, None)])


SHARE = st.integers(0, 99_999).map(lambda n: n / 100_000)


@st.composite
def panels(draw: st.DrawFn) -> P:
    x, y = draw(SHARE), draw(SHARE)
    w = draw(st.integers(1, 100_000 - round(x * 100_000))) / 100_000
    h = draw(st.integers(1, 100_000 - round(y * 100_000))) / 100_000
    return P(None, (x, y, w, h))


@settings(max_examples=10, deadline=None)
@given(
    st.dictionaries(st.text(min_size=1, max_size=20).filter(lambda t: t.isprintable()), st.lists(panels(), max_size=5))
)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, pages: dict[str, list[P]]) -> None:
    folder = tmp_path_factory.mktemp("c") / "panels"
    folder.mkdir()
    for page_id, some in pages.items():
        corrections.change(folder, page_id, Correction(tuple(some), "ab" * 8))
    assert read_corrections(folder) == {page_id: Correction(tuple(some), "ab" * 8) for page_id, some in pages.items()}
