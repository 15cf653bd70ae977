"""Imports as a whole: recognition, the data set folder, running again, going on after a kill, found panels."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from disk_faults import Disk, Killed
from hypothesis import given, settings
from hypothesis import strategies as st
from import_world import (
    BUILDERS,
    EAST,
    LEFT,
    RIGHT,
    SIZE,
    TOP,
    WEST,
    boxes,
    cbz,
    coco,
    cvat,
    kumiko,
    labels,
    manifest,
    page,
    png,
    report,
    texts,
    tree_bytes,
    write,
    write_images,
)
from PIL import Image

import stage3
from stage3.config import Config
from stage3.data import __main__ as data_command
from stage3.data.check import check
from stage3.data.detect import Found
from stage3.data.importers import import_comics
from stage3.data.importers.geometry import shared_area
from stage3.data.importers.importing import LOCK
from stage3.data.importers.naming import key_of, safe_name
from stage3.data.importers.sight import json_keys, xml_tags
from stage3.data.importers.trees import Folder, natural
from stage3.data.readers.order import Order
from stage3.errors import ConfigError, DataError, Interrupted, InUse, StorageError
from stage3.storage import Lock


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def checked(out: Path, tmp_path: Path) -> Any:
    return check(Config(data=str(out), cache_dir=str(tmp_path / "cache")))


# --- the folder


def test_what_is_written_is_a_data_set_that_everything_reads(tmp_path: Path, out: Path) -> None:
    import_comics(coco(tmp_path / "in"), out)
    read = checked(out, tmp_path)
    assert (read.pages_kept, read.facts["panels"], read.facts["books"]) == (2, 5, 1)
    assert read.counts == {}  # no anomaly
    assert read.facts["dialogue_share"] == pytest.approx(2 / 5)
    assert read.facts["resolved_by"] == {"exact": 2}


def test_speakers_reach_the_panel_table(tmp_path: Path, out: Path) -> None:
    import_comics(BUILDERS["manga109"](tmp_path / "in"), out)
    config = Config(data=str(out), cache_dir=str(tmp_path / "cache"))
    table = stage3.data.read(config)
    said = table.panels[table.panels["dialogue"] == "right words"]
    assert said["speakers"].tolist() == ["Ann"]


def test_images_of_folders_are_referenced_and_those_of_archives_extracted_as_they_are(
    tmp_path: Path, out: Path
) -> None:
    folder = write_images(tmp_path / "in" / "Book B")
    data = png((70, 90), format="JPEG")
    archive = cbz(tmp_path / "Book A.cbz", {"1.png": data})
    import_comics([folder, archive], out)
    assert {row["absolute_image_path"] for row in manifest(out).values()} == {
        str(folder / "page2.png"),
        str(folder / "page10.png"),
        "images/Book A/1.jpg",  # by what it is
    }
    assert (out / "images/Book A/1.jpg").read_bytes() == data


def test_books_of_a_folder_are_its_folders_and_archives(tmp_path: Path, out: Path) -> None:
    root = tmp_path / "in"
    write_images(root / "Series" / "Vol 1")
    write_images(root / "Series" / "Vol 2" / "images")
    write(root / "cover.png", png())
    cbz(root / "more" / "Vol 3.cbz", {"a/x/1.png": png(), "a/y/1.png": png()})
    import_comics(root, out)
    books = {row["book"] for row in manifest(out).values()}
    assert books == {"Series/Vol 1", "Series/Vol 2", "in", "Vol 3"}
    assert {"Vol 3/x/1", "Vol 3/y/1"} <= set(manifest(out))


def test_two_sources_with_books_and_pages_of_one_name_stay_apart(tmp_path: Path, out: Path) -> None:
    one = cbz(tmp_path / "a" / "Vol.cbz", {"1.png": png((50, 60)), "1.jpg": png((55, 60), format="JPEG")})
    two = cbz(tmp_path / "b" / "VOL.cbz", {"1.png": png((70, 80))})
    made = import_comics([one, two], out)
    ids = [done.id for done in made.pages]
    assert len({key_of(page_id) for page_id in ids}) == 3
    assert len({row["book"] for row in manifest(out).values()}) == 2
    before = tree_bytes(out)
    import_comics([two, one], out)  # the other way round: ids stay with their pages
    assert tree_bytes(out) == before
    assert checked(out, tmp_path).pages_kept == 3


@given(st.text(max_size=120))
@settings(max_examples=100)
def test_any_name_becomes_a_safe_path(name: str) -> None:
    made = safe_name(name)
    parts = made.split("/")
    assert all(parts)
    assert not {".", ".."} & set(parts)
    assert not set(made) & set('<>:"|?*\\\0\n\r')
    assert all(len(part) <= 80 and part == part.strip(" .") for part in parts)
    assert safe_name(made) == made


def test_the_area_that_boxes_share_is_theirs_whichever_comes_first() -> None:
    lying, standing, apart = (10.0, 40.0, 60.0, 20.0), (50.0, 5.0, 30.0, 50.0), (80.0, 5.0, 9.0, 9.0)
    for a, b, area in ((lying, standing, 20 * 15), (lying, apart, 0), (standing, apart, 0), (lying, lying, 60 * 20)):
        assert shared_area(a, b) == shared_area(b, a) == area


def test_a_folder_that_cannot_be_listed_is_noted_with_the_reason(tmp_path: Path) -> None:
    noted: list[tuple[str, str]] = []
    assert Folder(tmp_path / "gone", lambda code, detail: noted.append((code, detail))).names == ()
    assert noted == [("file_unreadable", f"{tmp_path / 'gone'}: {os.strerror(errno.ENOENT)}")]


def test_names_sort_as_people_count() -> None:
    names = ["page10", "page2", "Page1", "page02", "b/1", "a/10", "a/9", "10", "9"]
    assert sorted(names, key=natural) == ["9", "10", "a/9", "a/10", "b/1", "Page1", "page02", "page2", "page10"]


def test_single_images_are_pages_of_the_folder_they_lie_in(tmp_path: Path, out: Path) -> None:
    folder = write_images(tmp_path / "Book A")
    write(folder / "ignored.json", {"who": 1})
    made = import_comics([folder / "page10.png", folder / "page2.png"], out, panels="none")
    assert [done.id for done in made.pages] == ["Book A/page10", "Book A/page2"]  # as they were named


# --- running again


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_a_second_run_changes_no_byte(name: str, tmp_path: Path, out: Path) -> None:
    source = BUILDERS[name](tmp_path / "in")
    first = import_comics(source, out)
    before, times = tree_bytes(out), {p: p.stat().st_mtime_ns for p in out.rglob("*.json*")}
    again = import_comics(source, out)
    assert (first.new, first.kept, again.new, again.kept) == (2, 0, 0, 2)
    assert tree_bytes(out) == before
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.json*")} == times  # not even written again


def test_a_run_adds_what_is_new_and_keeps_what_other_sources_gave(tmp_path: Path, out: Path) -> None:
    folder = tmp_path / "in"
    cbz(folder / "B.cbz", {"1.png": png(), "3.png": png((60, 60))})
    import_comics(folder, out)
    kept = tree_bytes(out / "panels")
    cbz(folder / "B.cbz", {"1.png": png(), "2.png": png((90, 90)), "3.png": png((60, 60))})
    cbz(folder / "A.cbz", {"1.png": png()})
    other = write_images(tmp_path / "Other")
    made = import_comics([folder, other], out)
    assert (made.new, made.kept) == (4, 2)
    assert list(manifest(out)) == ["B/1", "B/2", "B/3", "A/1", "Other/page2", "Other/page10"]
    assert {k: v for k, v in tree_bytes(out / "panels").items() if k in kept} == kept
    assert import_comics(other, out).new == 0
    assert len(manifest(out)) == 6


def test_a_page_is_made_anew_when_its_image_annotation_or_setting_changes(tmp_path: Path, out: Path) -> None:
    folder = kumiko(tmp_path / "in")
    import_comics(folder, out)
    pages = json.loads((folder / "panels.json").read_text())
    pages[0]["panels"] = pages[0]["panels"][:1]
    write(folder / "panels.json", pages)
    assert import_comics(folder, out).new == 1
    assert boxes(out, "Book A/page2") == [TOP]
    write(folder / "page10.png", png((401, 251)))
    assert import_comics(folder, out).new == 1
    assert page(out, "Book A/page10")["image_width"] == 401
    assert import_comics(folder, out, right_to_left=False).new == 2
    assert import_comics(folder, out, right_to_left=False, panels="none").new == 0  # all pages have panels
    plain = cbz(tmp_path / "P.cbz", {"1.png": png()})
    import_comics(plain, out)
    assert import_comics(plain, out, panels="none").new == 1  # looked for before, now not


def test_panel_files_that_were_corrected_by_hand_stay(tmp_path: Path, out: Path) -> None:
    folder = kumiko(tmp_path / "in")
    import_comics(folder, out)
    mine = page(out, "Book A/page2")
    mine["panels"] = mine["panels"][:1]
    write(out / "panels" / "Book A" / "page2.json", mine)
    assert import_comics(folder, out).new == 0
    write(folder / "page2.png", png(SIZE, (9, 9, 9)))  # even when the source changes
    made = import_comics(folder, out)
    assert page(out, "Book A/page2") == mine
    assert ("changed_by_hand", "Book A/page2") in next(d for d in made.pages if d.id == "Book A/page2").notes
    write(out / "panels" / "Book A" / "page2.json", b'{"panels": [')  # a damaged file is no correction
    write(folder / "page2.png", png(SIZE, (8, 8, 8)))
    import_comics(folder, out)
    assert len(boxes(out, "Book A/page2")) == 3


def test_what_went_missing_is_made_again_and_a_source_that_moved_is_no_second_copy(tmp_path: Path, out: Path) -> None:
    source = cbz(tmp_path / "a" / "B.cbz", {"1.png": png(), "2.png": png((60, 70))})
    import_comics(source, out)
    before = {k: v for k, v in tree_bytes(out).items() if k.startswith(("panels", "images", "manifest"))}
    (out / "images/B/1.png").unlink()
    (out / "panels/B/2.json").unlink()
    assert import_comics(source, out).new == 2
    shutil.move(tmp_path / "a", tmp_path / "b")
    import_comics(tmp_path / "b" / "B.cbz", out)
    assert {k: v for k, v in tree_bytes(out).items() if k.startswith(("panels", "images", "manifest"))} == before


# --- going on after a kill


def world(root: Path) -> list[Path]:
    if root.exists():  # written once: a file that is written again counts as changed
        return [root / "A.cbz", root / "k" / "Book A"]
    archive = cbz(root / "A.cbz", {"1.png": png((40, 50))})
    return [archive, kumiko(root / "k")]


def operations(root: Path) -> int:
    sources = world(root / "in")
    with Disk() as disk:
        import_comics(sources, root / "out")
    return disk.count


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["kill", "torn", "enospc", "eio"])
def test_an_import_goes_on_after_a_fault_at_any_file_operation(fault: str, tmp_path: Path) -> None:
    total = operations(tmp_path)
    reference = tree_bytes(tmp_path / "out")
    assert total > 60
    hit = 0
    tried = range(1, total + 1, 1 if fault == "kill" else 3)
    for at in tried:
        target = tmp_path / f"{fault}-{at}"
        with Disk(fault, at) as disk, suppress(Killed, StorageError, DataError):
            import_comics(world(tmp_path / "in"), target)
        hit += disk.hit
        import_comics(world(tmp_path / "in"), target)
        made = tree_bytes(target)
        assert {k: v for k, v in made.items() if k != "dataset.yaml"} == {
            k: v
            for k, v in reference.items()
            if k != "dataset.yaml"  # it has the folder's name
        }, at
        shutil.rmtree(target)
    assert hit == len(tried)


def test_a_kill_in_the_middle_loses_at_most_the_page_it_was_at(tmp_path: Path, out: Path) -> None:
    source = cbz(tmp_path / "B.cbz", {f"{k}.png": png((40 + k, 50)) for k in range(6)})
    pid = os.fork()
    if pid == 0:  # a real kill -9, when the fourth image is about to be put in place
        with Disk("sigkill", _nth_replace(source, tmp_path / "count", 4)):
            import_comics(source, out)
        os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == 9
    assert not (out / "dataset.yaml").exists()  # no data set yet
    made = import_comics(source, out)
    assert (made.new, made.kept) == (3, 3)
    assert not list(out.rglob(".tmp-*"))


def _nth_replace(source: Path, out: Path, page_number: int) -> int:
    """Which file operation puts the image of a page in place."""
    with Disk() as disk:
        import_comics(source, out)
    replaces = [k for k, name in enumerate(disk.names, start=1) if name in ("replace", "rename")]
    return replaces[2 * (page_number - 1)]  # an image and a panel file each


def test_a_stop_ends_between_pages_and_the_same_call_goes_on(tmp_path: Path, out: Path) -> None:
    source = cbz(tmp_path / "B.cbz", {f"{k}.png": png((40 + k, 50)) for k in range(5)})
    asked = iter([False, False, True])
    with pytest.raises(Interrupted, match=r"stopped after 2 new pages; the same command goes on"):
        import_comics(source, out, stop=lambda: next(asked))  # type: ignore[arg-type]
    made = import_comics(source, out)
    assert (made.new, made.kept) == (3, 2)
    import_comics(source, tmp_path / "whole")
    assert {k: v for k, v in tree_bytes(out).items() if k != "dataset.yaml"} == {
        k: v for k, v in tree_bytes(tmp_path / "whole").items() if k != "dataset.yaml"
    }


def test_two_imports_into_one_folder_do_not_meet(tmp_path: Path, out: Path) -> None:
    out.mkdir()
    lock = Lock(out / LOCK)
    lock.acquire()
    try:
        with pytest.raises(InUse, match="is in use by process"):
            import_comics(write_images(tmp_path / "in"), out)
    finally:
        lock.release()
    assert import_comics(tmp_path / "in", out).new == 2


# --- recognition


def test_several_formats_in_one_folder_are_named_and_one_can_be_chosen(tmp_path: Path, out: Path) -> None:
    root = coco(tmp_path / "in")
    cvat(root)
    shutil.rmtree(root / "images")  # its images are the same
    with pytest.raises(DataError) as caught:
        import_comics(root, out)
    message = str(caught.value)
    assert "files of 2 formats" in message
    assert "COCO JSON (instances.json)" in message
    assert "CVAT for images 1.1 (annotations.xml)" in message
    assert "Choose one with --format coco or --format cvat" in message
    assert not out.exists()
    import_comics(root, out, format="cvat")
    assert report(out)["formats"] == {"cvat": 2}
    import_comics(root / "instances.json", tmp_path / "file")
    assert report(tmp_path / "file")["formats"] == {"coco": 2}
    with pytest.raises(ConfigError, match=r"format: 'cocoo' is not one of comic, coco.*Did you mean 'coco'"):
        import_comics(root, out, format="cocoo")


def test_nothing_known_is_an_error_that_lists_what_was_seen_and_what_is_known(tmp_path: Path, out: Path) -> None:
    folder = tmp_path / "in"
    write(folder / "a.json", {"boxes": [1], "who": "me"})
    write(folder / "b.xml", "<svg><g/></svg>")
    write(folder / "c.json", [{"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4]}])
    write(folder / "d.json", {"panels": [{"bbox": [1, 2, 3, 4]}]})
    write(folder / "e.json", [{"data": {"image": "x.png"}}])  # tasks that nobody did
    write(folder / "f.json", {"names": ["panel"]})
    made: Callable[[], object] = lambda: import_comics(folder, out)  # noqa: E731
    with pytest.raises(DataError) as caught:
        made()
    message = str(caught.value)
    for part in (
        "no page could be imported",
        "a.json: JSON with boxes, who: no known format",
        "b.xml: XML of <svg>: no known format",
        "COCO predictions without categories",
        "a panel file of Stage 3's own format",
        "e.json: JSON with",
        "f.json: JSON with names: no known format",
    ):
        assert part in message
    for n, letter in enumerate("ghijkl", 7):  # ten are named, and then how many more there are
        write(folder / f"{letter}.json", {"boxes": [1]})
        with pytest.raises(DataError) as caught:
            made()
        lines = str(caught.value).splitlines()
        assert len(lines) == 1 + min(n, 11)
        assert n <= 10 or lines[-1] == f"  and {n - 10} more"
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"nothing to import was recognized: no image .*\n.*Known:\n  comic .*"):
        import_comics(empty, out)
    with pytest.raises(DataError, match=r"a\.json: JSON with boxes, who: no known format"):
        import_comics(folder / "a.json", out)
    with pytest.raises(DataError, match="no such file or folder"):
        import_comics(tmp_path / "nowhere", out)


def test_images_elsewhere_are_named_and_classes_can_be_chosen(tmp_path: Path, out: Path) -> None:
    root = coco(tmp_path / "in")
    shutil.move(root / "Book A", tmp_path / "scans" / "x" / "Book A")
    with pytest.raises(DataError, match=r"name the folder with --images"):
        import_comics(root, out)
    value = json.loads((root / "instances.json").read_text())
    value["categories"][1]["name"] = "koma-waku"
    value["categories"][0]["name"] = "words"
    write(root / "instances.json", value)
    with pytest.raises(DataError, match="'words', 'koma-waku', 'character'"):
        import_comics(root, out, images=tmp_path / "scans")
    import_comics(root, out, images=tmp_path / "scans", panel_classes=["Koma Waku"])
    assert boxes(out, "x/Book A/page2") == [TOP, LEFT, RIGHT]


def test_a_folder_of_something_else_is_not_written_into(tmp_path: Path, out: Path) -> None:
    source = write_images(tmp_path / "in")
    write(out / "thesis.txt", "precious")
    with pytest.raises(DataError, match="holds files that no import made"):
        import_comics(source, out)
    with pytest.raises(DataError, match=r"lies in .*in, which is imported"):
        import_comics(source, source / "data")
    with pytest.raises(DataError, match="is a data set already"):
        import_comics(Path(stage3.__file__).parents[1] / "data" / "samples", tmp_path / "new")
    assert (out / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ('{"images": [{"id": 1, "x": {"y": [', {"images", "images[].id", "images[].x", "images[].x.y"}),
        ('[{"filename": "a,b{[", "panels": [[1, 2]]}, {"q": 1', {"[].filename", "[].panels", "[].q"}),
        ('{"a": "cut in the midd', {"a"}),
        ('{"a\\"b": 1, "c": [[{"d": 2}]], "e": 3}', {'a\\"b', "c", "c[][].d", "e"}),
        ("[1, 2, 3]", set()),
        ("}}]]", set()),
        ("[" * 100_000, set()),
    ],
)
def test_keys_of_the_beginning_of_a_json_document(text: str, keys: set[str]) -> None:
    assert json_keys(text) == keys


def test_tags_of_the_beginning_of_an_xml_document() -> None:
    text = '<?xml version="1.0"?><!-- <fake> --><!DOCTYPE a><n:ACBF xmlns:n="x"><body>a < b</body><pa'
    assert xml_tags(text) == ("ACBF", frozenset({"ACBF", "body", "pa"}))


# --- panels that are found


class TwoHalves:
    """Finds the two halves of a page, sure of it on wide pages only."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, tuple[int, int]]] = []

    def find(self, image: Image.Image) -> Found:
        self.seen.append((image.mode, image.size))
        wide, high = image.size
        sure = 0.9 if wide > high else 0.15
        return Found(np.array([[0, 0, wide / 2, high], [wide / 2, 0, wide / 2, high]]), np.array([sure, sure]))


@pytest.fixture
def halves(monkeypatch: pytest.MonkeyPatch) -> TwoHalves:
    detector = TwoHalves()
    monkeypatch.setattr("stage3.data.importers.importing.load_detector", lambda name, classes: {"own": detector}[name])
    return detector


def test_pages_without_boxes_get_the_detectors_where_it_is_sure(tmp_path: Path, out: Path, halves: TwoHalves) -> None:
    made = import_comics(write_images(tmp_path / "in"), out)
    assert halves.seen == [("RGB", (200, 300)), ("RGB", (400, 250))]
    assert boxes(out, "in/page2") == [(0.0, 0.0, 200.0, 300.0)]  # below the threshold: one panel
    assert boxes(out, "in/page10") == [(0.0, 0.0, 200.0, 250.0), (200.0, 0.0, 200.0, 250.0)]
    assert [p["confidence"] for p in page(out, "in/page10")["panels"]] == [0.9, 0.9]
    assert report(out)["panels_from"] == {"whole": 1, "found": 1}
    said = "\n".join(made.lines())
    assert "found on 1 page (2)" in said
    assert "1 page where panels were not found with enough confidence: each stays one panel" in said
    import_comics(tmp_path / "in", tmp_path / "low", min_confidence=0.1)
    assert len(boxes(tmp_path / "low", "in/page2")) == 2
    import_comics(tmp_path / "in", tmp_path / "rtl", right_to_left=True)
    assert boxes(tmp_path / "rtl", "in/page10")[0] == (200.0, 0.0, 200.0, 250.0)


def test_texts_go_to_the_found_panels_and_given_boxes_are_not_looked_for(
    tmp_path: Path, out: Path, halves: TwoHalves
) -> None:
    import_comics(BUILDERS["mokuro"](tmp_path / "in"), out, min_confidence=0.1)
    assert texts(out, "Book A/page2") == [
        "右",
        "上の言葉",
    ]  # 60 % of it lie in the left half… of 80 to 140, the right has more
    halves.seen.clear()
    source = kumiko(tmp_path / "k")
    (source / "page2.png").write_bytes((source / "page2.png").read_bytes()[:60])
    import_comics(source, tmp_path / "k-out")
    assert halves.seen == []
    assert len(boxes(tmp_path / "k-out", "Book A/page2")) == 3  # of its image only the header is read


def test_none_takes_the_page_as_one_panel(tmp_path: Path, out: Path) -> None:
    made = import_comics(write_images(tmp_path / "in"), out, panels="none")
    assert boxes(out, "in/page10") == [(0.0, 0.0, 400.0, 250.0)]
    assert "not looked for on 2 pages (one panel each)" in "\n".join(made.lines())


def test_a_reason_without_a_sentence_of_its_own_is_said_in_its_words(tmp_path: Path, out: Path) -> None:
    write(write_images(tmp_path / "in") / "page3.png", png((1, 1)))
    lines = import_comics(tmp_path / "in", out, panels="none").lines()
    at = lines.index("Pages left out:")
    assert lines[at + 1].split() == ["1", "image:too", "small"]
    assert lines[at + 2].strip().startswith(str(tmp_path / "in"))


def test_an_uncertain_order_is_counted(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "stage3.data.importers.assemble.page_order", lambda boxes, rtl: Order(list(range(len(boxes))), False)
    )
    made = import_comics(coco(tmp_path / "in"), out)
    assert report(out)["order_uncertain"] == 2
    assert "Uncertain on 2 pages, first Book A/page2" in "\n".join(made.lines())


def test_the_name_of_a_learned_detector_is_passed_on(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[tuple[str, tuple[str, ...]]] = []

    def load(name: str, classes: Sequence[str]) -> TwoHalves:
        names.append((name, tuple(classes)))
        return TwoHalves()

    monkeypatch.setattr("stage3.data.importers.importing.load_detector", load)
    import_comics(write_images(tmp_path / "in"), out, panels="someone/panels", panel_classes=["frame"])
    assert names == [("someone/panels", ("frame",))]
    monkeypatch.undo()
    with pytest.raises(DataError, match="someone/panels"):
        import_comics(write_images(tmp_path / "in2"), tmp_path / "out2", panels="someone/panels")


def test_numbers_out_of_range_are_refused(tmp_path: Path, out: Path) -> None:
    source = write_images(tmp_path / "in")
    with pytest.raises(ConfigError, match=r"min_score: 1\.5 is out of range"):
        import_comics(source, out, min_score=1.5)
    with pytest.raises(ConfigError, match="min_confidence"):
        import_comics(source, out, min_confidence=float("nan"))
    with pytest.raises(ConfigError, match="box_size"):
        import_comics(source, out, box_size=(0, 5))


# --- the command


def command(*args: object) -> int:
    return data_command.main([str(a) for a in args])


def test_the_command_says_what_it_made_and_what_to_type_next(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "in"
    coco(root)
    write(root / "notes.json", {"todo": 1})
    write(root / "scan.pdf", b"%PDF-1.4")
    write(root / "Book A" / "extra.png", png())
    flags = ("--out", out, "--cache-dir", tmp_path / "cache")
    assert command("import", root, *flags) == 0
    said = capsys.readouterr().out
    for part in (
        f"{root}: COCO JSON, 1 annotation file, 3 images",
        f"{out}: 2 pages of 1 book, 5 panels (2 new, 0 there already).",
        "Panels: given by the sources on 2 pages (5).",
        "Reading order: left to right (--right_to_left for manga).",
        "files that look like annotations, in no known format",
        "notes.json: JSON with todo: no known format",
        "PDF is not read. Make images of its pages",
        "images that no annotation names: import them by themselves",
        "pages kept    2",  # the report of `check`
        f"Next:\n  python -m stage3.train --run runs/out --data {out} --val_fraction 0 --test_fraction 0",
    ):
        assert part in said, said
    assert command("import", root, *flags, "--right-to-left") == 0
    assert "(2 new, 0 there already)" in capsys.readouterr().out
    assert command("import", root, *flags, "--right-to-left", "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["import"]["new"], made["import"]["kept"], made["check"]["pages_kept"]) == (0, 2, 2)
    assert made["import"]["next"].startswith("python -m stage3.train --run runs/out")


def test_the_command_passes_on_where_panels_come_from(tmp_path: Path, out: Path, halves: TwoHalves) -> None:
    source = write_images(tmp_path / "in")
    for panels, found in (("none", {"none": 2}), ("find", {"whole": 1, "found": 1})):
        where = tmp_path / panels
        assert command("import", source, "--out", where, "--cache-dir", tmp_path / "cache", "--panels", panels) == 0
        assert report(where)["panels_from"] == found


def test_the_command_refuses_what_contradicts_itself(tmp_path: Path, out: Path) -> None:
    source = write_images(tmp_path / "in")
    with pytest.raises(ConfigError, match="contradict"):
        command("import", source, "--out", out, "--right_to_left", "--left_to_right")
    with pytest.raises(ConfigError, match="box_size: '7' is not valid"):
        command("import", source, "--out", out, "--box_size", "7")
    with pytest.raises(ConfigError, match="out"):
        command("import", source)
    with pytest.raises(ConfigError, match=r"'imprt' is not one of check, import, ocr, export\. Did you mean 'import'"):
        command("imprt", source)


def test_from_python(tmp_path: Path, out: Path) -> None:
    told: list[str] = []
    made = stage3.import_comics(coco(tmp_path / "in"), out, tell=told.append)
    assert (len(made.pages), made.panels, made.new) == (2, 5, 2)
    assert told == [f"{tmp_path / 'in'}: COCO JSON, 1 annotation file, 2 images"]
    assert labels(out) == {"Book A/page10": "story", "Book A/page2": "story"}
    assert [boxes(out, "Book A/page10"), RIGHT in boxes(out, "Book A/page2")] == [[WEST, EAST], True]


# --- parts of the annotations, and a look before


def test_boxes_or_texts_of_annotations_can_be_ignored(tmp_path: Path, out: Path, halves: TwoHalves) -> None:
    source = BUILDERS["coco"](tmp_path / "in")
    for name, ignore in (("all", ()), ("found", ("panels",)), ("silent", ("texts",)), ("none", ("panels", "texts"))):
        import_comics(source, tmp_path / name, ignore=ignore, min_confidence=0.1)
    two = "Book A/page2"
    assert len(boxes(tmp_path / "all", two)) == 3
    assert boxes(tmp_path / "silent", two) == boxes(tmp_path / "all", two)
    assert boxes(tmp_path / "found", two) == [(0.0, 0.0, 100.0, 300.0), (100.0, 0.0, 100.0, 300.0)]
    assert boxes(tmp_path / "none", two) == boxes(tmp_path / "found", two)
    said = {name: page(tmp_path / name, two)["full_page_text"] for name in ("all", "found", "silent", "none")}
    assert said["all"]
    assert sorted(said["found"].split()) == sorted(said["all"].split())
    assert (said["silent"], said["none"]) == ("", "")
    with pytest.raises(ConfigError, match="ignore: 'boxes' is not one of panels, texts"):
        import_comics(source, out, ignore=("boxes",))
    assert not out.exists()


def test_a_sample_takes_pages_from_the_middle_of_as_many_books_as_it_can(tmp_path: Path, out: Path) -> None:
    for book, pages in (("a", 9), ("b", 4), ("c", 20)):
        cbz(tmp_path / "in" / f"{book}.cbz", {f"{k:02d}.png": png() for k in range(pages)})
    import_comics(tmp_path / "in", out, sample=3, panels="none")
    assert list(manifest(out)) == ["a/04", "b/02", "c/10"]
    import_comics(tmp_path / "in", tmp_path / "six", sample=6, panels="none")
    assert list(manifest(tmp_path / "six")) == ["a/02", "a/06", "b/01", "b/03", "c/05", "c/15"]
    import_comics(tmp_path / "in", tmp_path / "two", sample=2, panels="none")
    assert list(manifest(tmp_path / "two")) == ["a/04", "c/10"]
    import_comics(tmp_path / "in", tmp_path / "many", sample=500, panels="none")
    assert len(manifest(tmp_path / "many")) == 33
    with pytest.raises(ConfigError, match="sample: -1 is out of range"):
        command("import", tmp_path / "in", "--out", out, "--sample", -1)


def test_a_watched_import_writes_how_far_it_is(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cbz(tmp_path / "a.cbz", {f"{k:02d}.png": png() for k in range(7)})
    monkeypatch.setenv("STAGE3_PROGRESS", str(tmp_path / "progress.json"))
    import_comics(tmp_path / "a.cbz", out, panels="none")
    assert json.loads((tmp_path / "progress.json").read_text()) == {"what": "importing pages", "done": 7, "total": 7}
    source = coco(tmp_path / "annotated")
    for k in range(3):
        write(source / "Book A" / f"more{k}.png", png())  # images that no annotation names
    import_comics(source, tmp_path / "some")
    done = json.loads((tmp_path / "progress.json").read_text())
    assert len(manifest(tmp_path / "some")) == 2
    assert done["done"] == done["total"] >= 5
    monkeypatch.setenv("STAGE3_PROGRESS", str(tmp_path / "missing" / "progress.json"))
    import_comics(tmp_path / "a.cbz", tmp_path / "again", panels="none")
    assert len(manifest(tmp_path / "again")) == 7
