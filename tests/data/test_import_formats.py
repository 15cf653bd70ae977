"""Every format that can be imported: a round on files that the test writes, its traps, and a malformed variant."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest
from import_world import (
    BUILDERS,
    EAST,
    IN_RIGHT,
    LEFT,
    RIGHT,
    SIZE,
    TOP,
    WEST,
    WIDE,
    boxes,
    cbz,
    coco,
    labels,
    manifest,
    page,
    png,
    points,
    report,
    texts,
    write,
    write_images,
    xyxy,
)

from stage3.data.importers import Summary, import_comics
from stage3.errors import DataError

RIGHT_TO_LEFT = {"mokuro", "magi", "manga109", "kumiko", "acbf"}
WITHOUT_TEXT = {"yolo", "kumiko"}
IDS = {"manga109": ("002", "010"), "comix": ("002", "010")}


def run(source: Path, out: Path, **options: object) -> Summary:
    return import_comics(source, out, **options)  # type: ignore[arg-type]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


# --- one round each


@pytest.mark.parametrize("name", [n for n in BUILDERS if n != "mokuro"])
def test_boxes_texts_order_and_direction_of_every_format(name: str, tmp_path: Path, out: Path) -> None:
    made = run(BUILDERS[name](tmp_path / "in"), out)
    two, ten = (f"Book A/{leaf}" for leaf in IDS.get(name, ("page2", "page10")))
    rtl = name in RIGHT_TO_LEFT
    assert list(manifest(out)) == [two, ten]  # as people count, whatever order they are listed in
    assert {row["book"] for row in manifest(out).values()} == {"Book A"}
    assert boxes(out, two) == ([TOP, RIGHT, LEFT] if rtl else [TOP, LEFT, RIGHT])
    assert boxes(out, ten) == ([EAST, WEST] if rtl else [WEST, EAST])
    right = "" if name in WITHOUT_TEXT else "right words"
    top = "" if name in WITHOUT_TEXT else "top words"
    assert texts(out, two) == ([top, right, ""] if rtl else [top, "", right])
    assert (page(out, two)["image_width"], page(out, two)["image_height"]) == SIZE
    assert page(out, two)["right_to_left"] is rtl
    assert {p["source"] for p in page(out, two)["panels"]} == {name}
    assert page(out, ten)["source"]["format"] == name
    assert report(out)["formats"] == {name: 2}
    assert report(out)["panels_from"] == {"source": 2}
    assert made.left_out == {}


def test_mokuro_knows_texts_and_its_panels_are_found(tmp_path: Path, out: Path) -> None:
    made = run(BUILDERS["mokuro"](tmp_path / "in"), out)
    first = page(out, "Book A/page2")
    assert first["right_to_left"] is True
    assert boxes(out, "Book A/page2") == [(0.0, 0.0, 200.0, 300.0)]
    # declared at half the size; texts without spaces between their lines, from right to left and top to bottom
    assert [(t["text"], t["bbox"]) for t in first["panels"][0]["texts"]] == [
        ("上の言葉", [20.0, 20.0, 40.0, 30.0]),
        ("右", list(IN_RIGHT)),
    ]
    assert texts(out, "Book A/page2") == ["上の言葉 右"]
    assert [done.id for done in made.pages] == ["Book A/page2", "Book A/page10"]
    assert report(out)["sources"][str(tmp_path / "in")]["not_read"] == []  # the cache of mokuro is passed by


# --- traps


def test_magi_keeps_sounds_apart_drops_low_scores_and_names_speakers(tmp_path: Path, out: Path) -> None:
    run(BUILDERS["magi"](tmp_path / "in"), out)
    panels = page(out, "Book A/page2")["panels"]
    assert [p["confidence"] for p in panels] == [0.8, 0.9, 0.7]
    assert panels[1]["speakers"] == ["Ann"]
    assert "speakers" not in panels[0]  # "Other" is nobody
    loose = page(out, "Book A/page2")["texts"]
    assert [(t["text"], t["kind"]) for t in loose] == [("BOOM", "sound")]
    assert "BOOM" not in page(out, "Book A/page2")["full_page_text"]
    assert report(out)["sources"][str(tmp_path / "in")]["counts"]["score_low"] == 1


def test_magi_of_resized_images_needs_their_size(tmp_path: Path, out: Path) -> None:
    root = write_images(tmp_path / "in" / "Book A").parent
    doubled = [{"panels": [[2 * v for v in xyxy(box)]], "texts": []} for box in (RIGHT, EAST)]
    write(root / "magi.json", doubled)
    far = "first Book A/page2.png: boxes reach to 380, 580, the image has 200 x 300"
    with pytest.raises(DataError, match=f"boxes reach out of the image, {far}.*--box_size WIDTHxHEIGHT"):
        run(root, out)
    write(
        root / "magi.json",
        [{"panels": [[v * k for v, k in zip(xyxy(RIGHT), (2, 3, 2, 3), strict=True)]], "texts": []}] * 2,
    )
    run(root, out, box_size=(400, 900))
    assert boxes(out, "Book A/page2") == [RIGHT]
    assert boxes(out, "Book A/page10") == [(220.0, 83.33, 160.0, 158.33)]  # each axis by itself: 400/400, 250/900


def test_magi_without_as_many_images_is_refused(tmp_path: Path, out: Path) -> None:
    root = BUILDERS["magi"](tmp_path / "in")
    write(root / "Book A" / "page11.png", png())
    with pytest.raises(DataError, match="2 pages, but 3 images"):
        run(root, out)


def test_manga109_joins_who_speaks_and_passes_older_annotations_by(tmp_path: Path, out: Path) -> None:
    run(BUILDERS["manga109"](tmp_path / "in"), out)
    said = {t["text"]: t.get("speaker") for p in page(out, "Book A/002")["panels"] for t in p.get("texts", ())}
    assert said == {"right words": "Ann", "top words": None}
    assert page(out, "Book A/010")["double_page"] is True  # wider than high: two pages
    assert "double_page" not in page(out, "Book A/002")
    counts = report(out)["sources"][str(tmp_path / "in")]["counts"]
    assert counts["older_annotations"] == 1
    assert "image_not_found" not in counts  # page 99 has no annotation, and no image


def test_manga109_keeps_a_text_that_stands_nowhere_and_counts_a_frame_that_does(tmp_path: Path, out: Path) -> None:
    root = BUILDERS["manga109"](tmp_path / "in")
    file = root / "annotations" / "Book A.xml"
    nowhere = '<text id="t">a voice</text><frame id="f" xmin="1"/></page><page index="10"'
    write(file, file.read_text(encoding="utf-8").replace('</page><page index="10"', nowhere))
    run(root, out)
    assert "a voice" in page(out, "Book A/002")["full_page_text"]
    said = report(out)["sources"][str(root)]
    assert said["counts"]["box_invalid"] == 1
    assert said["examples"]["box_invalid"][0].endswith("page 2: frame f")


def test_a_double_page_is_read_page_by_page(tmp_path: Path, out: Path) -> None:
    """Two rows of two panels on each half: the right half comes first, not the upper row of both."""
    root = tmp_path / "in"
    write(root / "images" / "B" / "000.jpg", png((800, 400)))
    cells = {(side, row): (side * 400 + 10, row * 200 + 10, 380, 180) for side in (0, 1) for row in (0, 1)}
    frames = "".join(
        f'<frame id="f{k}" xmin="{x}" ymin="{y}" xmax="{x + w}" ymax="{y + h}"/>'
        for k, (x, y, w, h) in enumerate(cells.values())
    )
    write(
        root / "B.xml",
        f'<book title="B"><pages><page index="0" width="800" height="400">{frames}</page></pages></book>',
    )
    run(root, out)
    assert boxes(out, "B/000") == [cells[1, 0], cells[1, 1], cells[0, 0], cells[0, 1]]
    run(root, tmp_path / "ltr", right_to_left=False)
    assert boxes(tmp_path / "ltr", "B/000") == [cells[0, 0], cells[0, 1], cells[1, 0], cells[1, 1]]


def test_kumiko_says_nothing_found_with_one_box_of_the_page(tmp_path: Path, out: Path) -> None:
    folder = write_images(tmp_path / "in")
    pages = [
        {"filename": "page2.png", "size": list(SIZE), "numbering": "ltr", "panels": [[0, 0, *SIZE]]},
        {"filename": "x/page10.png", "size": list(WIDE), "panels": [[0, 0, 100, 250], [0, 0, "x", 9]]},
    ]
    write(folder / "kumiko.json", pages)
    run(folder, out)
    assert page(out, "in/page2")["panels"][0]["source"] == "whole"  # looked for, not found with confidence
    assert boxes(out, "in/page10") == [(0.0, 0.0, 100.0, 250.0)]
    assert report(out)["panels_from"] == {"whole": 1, "source": 1}
    counts = report(out)["sources"][str(folder)]["counts"]
    assert counts == {"kumiko_nothing_found": 1, "box_invalid": 1}


def test_coco_predictions_polygons_scores_and_ids_that_are_paths(tmp_path: Path, out: Path) -> None:
    folder = write_images(tmp_path / "in")
    slanted = [10, 10, 190, 30, 190, 90, 10, 90]
    value = {
        "images": [{"id": "f00d", "file_name": "page2.png", "width": 100, "height": 150}],
        "annotations": [
            {
                "id": 1,
                "image_id": "f00d",
                "category_id": 4,
                "segmentation": [[v / 2 for v in slanted]],
                "score": 0.91237,
            },
            {"id": 2, "image_id": "f00d", "category_id": 4, "bbox": [5, 50, 40, 95], "score": 0.49},
            {"id": 3, "image_id": "f00d", "category_id": 4, "segmentation": {"counts": "aa"}},
            {"id": 4, "image_id": "C:\\x\\page10.png", "category_id": 4, "bbox": list(EAST), "score": "0.75"},
            {"id": 5, "image_id": 77, "category_id": 4, "bbox": list(EAST)},
            {"id": 6, "image_id": ["x" * 90], "category_id": 4, "bbox": list(EAST)},
        ],
        "categories": [{"id": 4, "name": "panel"}, {"id": 7, "name": "face"}],
    }
    write(folder / "predictions.json", value)
    run(folder, out)
    first = page(out, "in/page2")["panels"]
    assert boxes(out, "in/page2") == [(10.0, 10.0, 180.0, 80.0)]  # scaled from half the size
    assert first[0]["polygon"] == [[10.0, 10.0], [190.0, 30.0], [190.0, 90.0], [10.0, 90.0]]
    assert (first[0]["confidence"], page(out, "in/page10")["panels"][0]["confidence"]) == (0.9124, 0.75)
    counts = report(out)["sources"][str(folder)]["counts"]
    assert counts == {"score_low": 1, "box_invalid": 1, "annotation_without_image": 2}
    examples = report(out)["sources"][str(folder)]["examples"]["annotation_without_image"]
    assert examples[0].endswith(f": image_id {str(['x' * 90])[:80]!r}")
    run(folder, tmp_path / "low", min_score=0.4)
    assert len(boxes(tmp_path / "low", "in/page2")) == 2


def test_coco_of_texts_alone_leaves_panels_to_be_found(tmp_path: Path, out: Path) -> None:
    root = coco(tmp_path / "in")
    value = json.loads((root / "instances.json").read_text())
    value["categories"] = [{"id": 3, "name": "text"}]
    write(root / "instances.json", value)
    run(root, out, panels="none")
    assert report(out)["panels_from"] == {"none": 2}
    assert texts(out, "Book A/page2") == ["top words right words"]


def test_two_coco_files_of_one_folder_are_joined_and_an_image_counts_once(tmp_path: Path, out: Path) -> None:
    root = coco(tmp_path / "in")
    value = json.loads((root / "instances.json").read_text())
    value["images"] = value["images"][1:]
    value["annotations"] = [{"id": 1, "image_id": 11, "category_id": 7, "bbox": [1, 1, 50, 50]}]
    write(root / "more.json", value)
    run(root, out)
    assert len(boxes(out, "Book A/page2")) == 3  # from instances.json, the first by name
    assert report(out)["sources"][str(root)]["counts"] == {"page_twice": 1}


def test_yolo_an_empty_file_has_no_panels_and_a_missing_one_is_not_labeled(tmp_path: Path, out: Path) -> None:
    folder = write_images(tmp_path / "in")
    write(folder / "page2.txt", "")
    write(folder / "classes.txt", "face\npanel\n")
    write(folder / "page3.png", png())
    write(folder / "page3.txt", "1 0.5 0.5 1.0000001 1.0\n\n7 0.5 0.5 0.1 0.1\n")
    assert "another shape" not in "\n".join(run(folder, out).lines())
    said = report(out)["sources"][str(folder)]
    assert said["counts"] == {"class_unknown": 1}
    assert said["examples"]["class_unknown"][0].endswith("page3.txt:3: class 7")
    assert page(out, "in/page2")["panels"] == []
    assert page(out, "in/page10")["panels"][0]["source"] == "whole"
    assert boxes(out, "in/page3") == [(0.0, 0.0, 200.0, 300.0)]


def test_yolo_with_key_points_reads_the_box_alone(tmp_path: Path, out: Path) -> None:
    folder = write_images(tmp_path / "in")
    write(folder / "data.yaml", "names: [panel]\nkpt_shape: [2, 3]\n")
    write(folder / "page2.txt", "0 0.5 0.5 0.5 0.5 0.9 0.9 2 0.1 0.1 2\n")
    run(folder, out)
    assert boxes(out, "in/page2") == [(50.0, 75.0, 100.0, 150.0)]


def test_label_studio_uses_predictions_only_where_nobody_annotated(tmp_path: Path, out: Path) -> None:
    root = BUILDERS["label_studio"](tmp_path / "in")
    tasks = json.loads((root / "export.json").read_text())
    tasks[1]["predictions"] = [{"result": tasks[1]["annotations"][0]["result"][:1]}]
    tasks[1]["annotations"] = []
    write(root / "export.json", tasks)
    run(root, out)
    assert boxes(out, "Book A/page10") == [EAST]
    counts = report(out)["sources"][str(root)]["counts"]
    assert counts == {"several_annotations": 1, "prediction_used": 1}
    for task in tasks:
        task["predictions"] = [{"result": tasks[1]["predictions"][0]["result"]}]
        del task["annotations"]
    write(root / "export.json", tasks)  # of predictions alone
    run(root, tmp_path / "guessed")
    assert boxes(tmp_path / "guessed", "Book A/page10") == [EAST]


def test_label_studio_reads_polygons_and_counts_what_it_cannot_place(tmp_path: Path, out: Path) -> None:
    folder = write_images(tmp_path / "in")
    drawn = {"original_width": 200, "original_height": 300}

    def region(name: str, value: dict[str, object], size: dict[str, int]) -> dict[str, object]:
        return {"id": name, "type": "polygonlabels", "value": {**value, "polygonlabels": ["Panel"]}, **size}

    slanted = [[5, 10], [45, 20], [45, 60], [5, 60]]
    result = [
        region("a", {"points": slanted}, drawn),
        region("b", {"points": [[1, 2], [3]]}, drawn),
        region("c", {"points": slanted}, {}),
        region("d", {"x": 50, "y": 50, "width": 25, "height": 40}, drawn),
        region("e", {"x": 50, "y": "x", "width": 25, "height": 40}, drawn),
        {"id": "a", "type": "textarea", "value": {"text": ["said by", "the panel"]}},
    ]
    tasks = [{"id": 1, "data": {"image": "s3://bucket/page2.png"}, "annotations": [{"result": result}]}]
    elsewhere = [{"image": "gone.png"}, {"page": "https://host/render?id=4"}, {}]
    tasks += [{"id": 2 + k, "data": data, "annotations": []} for k, data in enumerate(elsewhere)]
    write(folder / "export.json", tasks)
    run(folder, out)
    assert boxes(out, "in/page2") == [(10.0, 30.0, 80.0, 150.0), (100.0, 150.0, 50.0, 120.0)]
    first = page(out, "in/page2")["panels"][0]
    assert first["polygon"] == [[10.0, 30.0], [90.0, 60.0], [90.0, 180.0], [10.0, 180.0]]
    assert first["text"] == "said by the panel"
    counts = report(out)["sources"][str(folder)]["counts"]
    assert counts == {"box_invalid": 3, "image_not_found": 3, "image_unlisted": 1}
    lost = report(out)["sources"][str(folder)]["examples"]["image_not_found"]
    assert [text.rpartition("export.json: ")[2] for text in lost] == ["gone.png", "https://host/render?id=4", "task 4"]


def test_comicinfo_of_a_folder_counts_the_images_of_that_folder(tmp_path: Path, out: Path) -> None:
    root = tmp_path / "in"
    write_images(root / "Vol 1")
    write_images(root / "Vol 2")
    pages = '<Pages><Page Image="1" Type="BackCover"/><Page Image="0" Type="Nonsense"/></Pages>'
    write(root / "Vol 2" / "ComicInfo.xml", f"<ComicInfo><Manga>No</Manga>{pages}</ComicInfo>")
    made = run(root, out)
    assert labels(out) == {
        "Vol 1/page2": "story",
        "Vol 1/page10": "story",
        "Vol 2/page2": "story",
        "Vol 2/page10": "back_cover",
    }
    assert report(out)["sources"][str(root)]["counts"] == {"comicinfo_type": 1}
    types = "Page types: story 3, back_cover 1. No type is known of 2 pages, which count as story."
    assert types in made.lines()


def test_cvat_reads_page_types_reading_order_and_passes_points_by(tmp_path: Path, out: Path) -> None:
    root = BUILDERS["cvat"](tmp_path / "in")
    text = (root / "annotations.xml").read_text()
    ordered = re.sub(
        r'(<box label="panel"[^>]*>)(</box></image>)', r'\1<attribute name="reading_order">1</attribute>\2', text
    ).replace(
        'xtl="220.0" ytl="30.0" xbr="380.0" ybr="220.0" z_order="0">',
        'xtl="220.0" ytl="30.0" xbr="380.0" ybr="220.0" z_order="0"><attribute name="reading_order">2</attribute>',
    )
    write(root / "annotations.xml", ordered)
    run(root, out)
    assert labels(out) == {"Book A/page2": "cover", "Book A/page10": "story"}
    assert boxes(out, "Book A/page10") == [WEST, EAST]
    assert report(out)["sources"][str(root)]["counts"] == {"shape_ignored": 1}


def test_labelme_uses_the_image_inside_where_there_is_no_other(tmp_path: Path, out: Path) -> None:
    folder = tmp_path / "in"
    data = base64.b64encode(png((120, 160))).decode()
    shape = {"label": "panel", "points": [[10, 20], [60, 90]], "shape_type": "rectangle"}
    write(
        folder / "b.json",
        {"version": "5", "flags": {}, "shapes": [shape], "imagePath": "c:\\gone\\b.jpg", "imageData": data},
    )
    run(folder, out)
    (row,) = manifest(out).values()
    assert row["absolute_image_path"] == "images/b/b.png"  # named by what it is, not by what it says
    assert (out / "images/b/b.png").read_bytes() == png((120, 160))
    assert boxes(out, "b/b") == [(10.0, 20.0, 50.0, 70.0)]


def test_labelme_of_texts_alone_leaves_panels_to_be_found_and_no_shapes_are_no_panels(
    tmp_path: Path, out: Path
) -> None:
    for name, shapes in (
        ("said", [{"label": "text", "points": [[10, 20], [60, 90]], "shape_type": "rectangle", "text": "Hello"}]),
        ("empty", []),
    ):
        folder = write_images(tmp_path / name)
        write(folder / "page2.json", {"version": "5", "flags": {}, "shapes": shapes, "imagePath": "page2.png"})
        run(folder, tmp_path / f"out {name}", panels="none")
    assert page(tmp_path / "out said", "said/page2")["panels"][0]["source"] == "none"
    assert texts(tmp_path / "out said", "said/page2") == ["Hello"]
    assert page(tmp_path / "out empty", "empty/page2")["panels"] == []


def test_acbf_takes_the_language_of_the_drawing_and_embedded_images(tmp_path: Path, out: Path) -> None:
    folder = tmp_path / "in"
    binary = base64.encodebytes(png()).decode()
    body = (
        f'<page><image href="#p1.png"/><frame points="{points(LEFT)}"/>'
        '<text-layer lang="xx"><text-area points="0,0 9,0 9,9 0,9" type="audio"><p>bang</p></text-area></text-layer>'
        "</page>"
        '<page><image href="https://example.org/x.png"/></page><page><image href="#p2.png"/></page>'
    )
    cover = '<coverpage><image href="cover.jpg"/></coverpage>'
    document = (
        f'<ACBF xmlns="http://www.acbf.info/xml/acbf/1.0"><meta-data><book-info>{cover}</book-info></meta-data>'
        f'<body>{body}</body><data><binary id="p1.png" content-type="image/png">{binary}</binary></data></ACBF>'
    )
    write(folder / "Solo.acbf", document)
    write(folder / "cover.jpg", png(WIDE, format="JPEG"))
    run(folder, out)
    assert labels(out) == {"Solo/cover": "cover", "Solo/p1": "story"}
    assert boxes(out, "Solo/p1") == [LEFT]
    assert page(out, "Solo/p1")["texts"][0]["kind"] == "sound"
    assert page(out, "Solo/cover")["panels"][0]["source"] == "whole"  # no frames: nothing is said about panels
    assert report(out)["sources"][str(folder)]["counts"]["image_not_found"] == 2


def test_comicinfo_counts_images_as_they_are_stored(tmp_path: Path, out: Path) -> None:
    """Stored in another order than that of their names; one is deleted, one a double page."""
    info = (
        "<ComicInfo><Series>Hero</Series><Number>7</Number><LanguageISO>ja</LanguageISO><Manga>YesAndRightToLeft</Manga>"
        '<Pages><Page Image="0" Type="BackCover"/><Page Image="1" Type="FrontCover"/>'
        f'<Page Image="2" Type="Story {"x" * 90} Deleted"/><Page Image="3" DoublePage="true"/>'
        f'<Page Image="{"9" * 30}"/></Pages></ComicInfo>'
    )
    members = {
        "x/p10.png": png(),
        "x/p1.png": png(color=(1, 2, 3)),
        "ComicInfo.xml": info.encode(),
        "x/p3.png": png(color=(4, 5, 6)),
        "x/p2.png": png(WIDE),
    }
    run(cbz(tmp_path / "Vol.cbz", members), out)
    assert list(manifest(out)) == ["Vol/p1", "Vol/p2", "Vol/p10"]  # natural order, without what all share
    assert labels(out) == {"Vol/p1": "cover", "Vol/p2": "story", "Vol/p10": "back_cover"}
    second = page(out, "Vol/p2")
    assert (second["right_to_left"], second["double_page"], second["series"], second["language"]) == (
        True,
        True,
        "Hero 7",
        "ja",
    )
    said = report(out)["sources"][str(tmp_path / "Vol.cbz")]
    assert said["counts"] == {"page_deleted": 1, "comicinfo_index": 1, "comicinfo_type": 1}
    assert said["examples"]["comicinfo_type"][0].endswith(f": Type='{'x' * 60}'")
    assert said["examples"]["comicinfo_index"][0].endswith(f": Image='{'9' * 20}', of 4 images")


def test_a_page_far_wider_than_its_book_is_a_double_page(tmp_path: Path, out: Path) -> None:
    members = {f"{k}.png": png((200, 300), (k, 0, 0)) for k in range(4)} | {
        "4.png": png((400, 300)),
        "5.png": png((230, 300)),
    }
    run(cbz(tmp_path / "B.cbz", members), out)
    assert [k for k in range(6) if page(out, f"B/{k}").get("double_page")] == [4]
    strips = {f"{k}.png": png((600, 200), (k, 0, 0)) for k in range(4)}  # strips are wide by nature
    strips["4.png"] = png((1800, 200))
    run(cbz(tmp_path / "S.cbz", strips), out)
    assert not any(page(out, f"S/{k}").get("double_page") for k in range(5))


# --- malformed


MALFORMED = [
    ("coco", "instances.json", '{"images": [{"file_name": "a.png"', "not JSON|line 1"),
    ("coco", "instances.json", {"images": [{"id": 1, "file_name": "Book A/page2.png"}]}, "no list of categories"),
    (
        "coco",
        "instances.json",
        {
            "images": [{"id": 1, "file_name": "page2.png"}],
            "categories": [{"id": 1, "name": "object"}],
            "annotations": [],
        },
        r"no class is a panel or a text: 'object'\. Name it with --panel_class",
    ),
    ("yolo", "data.yaml", "names: 3\n", "no YAML file has the names of the classes"),
    ("yolo", "data.yaml", "names: [face]\n", "no class is a panel or a text: 'face'"),
    ("yolo", "data.yaml", "a: &a [1]\nnames: *a\n", "aliases"),
    ("yolo", "train/labels/Book A/page2.txt", "1 0.5 0.5 0.5\n", "expected a class and at least four numbers"),
    ("yolo", "train/labels/Book A/page2.txt", "1 100 100 50 50\n", "shares of the page"),
    ("mokuro", "Book A.mokuro", {"pages": {"img_path": "x"}, "version": 1}, "no list of pages"),
    ("magi", "magi.json", '[{"panels": [], "texts": []}, 3]', "one object per page"),
    ("manga109", "annotations/Book A.xml", "<book><pages><page><frame/></pages></book>", "not well-formed XML"),
    (
        "manga109",
        "annotations/Book A.xml",
        '<!DOCTYPE book [<!ENTITY a "b">]><book title="Book A"><pages><page index="2"><frame/>&a;</page></pages>'
        "</book>",
        "has a DTD or entities, which are refused",
    ),
    ("kumiko", "panels.json", '[{"filename": "page2.png", "panels": [[1,2,3,4]], "size": [NaN]', "line 1"),
    ("label_studio", "export.json", '[{"data": {"image": "x"}, "annotations": [}]', "line 1"),
    (
        "cvat",
        "annotations.xml",
        '<annotations><meta/><track id="0" label="panel"></track></annotations>',
        "CVAT for images 1.1",
    ),
    ("cvat", "annotations.xml", "<annotations><image></annotations>", "not well-formed XML"),
    ("labelme", "Book A/page2.json", '{"shapes": [], "flags": {}, "flags": {}}', "key 'flags' twice"),
    ("comix", "xml/a1b2.xml", "<annotations><book><pages><page><panel></book></annotations>", "not well-formed XML"),
]


@pytest.mark.parametrize(("name", "file", "content", "message"), MALFORMED)
def test_a_malformed_file_is_refused_by_name(
    name: str, file: str, content: object, message: str, tmp_path: Path, out: Path
) -> None:
    source = BUILDERS[name](tmp_path / "in")
    write(source / file, content)
    if "page2.txt" in file:  # of one page: the others are imported
        problems = [done.problem[1] for done in run(source, out).done if done.problem]
        assert len(problems) == 1
    else:
        with pytest.raises(DataError) as caught:
            run(source, out)
        problems = [str(caught.value)]
    assert re.search(message, problems[0]), problems
    assert Path(file).name in problems[0] or f"{source}:" in problems[0]


def test_an_acbf_that_is_damaged_is_refused_by_name(tmp_path: Path, out: Path) -> None:
    source = cbz(tmp_path / "B.cbz", {"a.png": png(), "b.acbf": b"<ACBF><body><page></ACBF>"})
    with pytest.raises(DataError, match=r"B\.cbz: b\.acbf: not well-formed XML"):
        run(source, out)
    source = cbz(tmp_path / "C.cbz", {"a.png": png(), "b.acbf": b"<ACBF><meta-data/></ACBF>"})
    with pytest.raises(DataError, match="no <body> of pages"):
        run(source, out)


def test_a_damaged_comicinfo_says_nothing_and_is_counted(tmp_path: Path, out: Path) -> None:
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaa">]><ComicInfo><Manga>YesAndRightToLeft</Manga>&a;</ComicInfo>'
    for name, data in {"A": bomb, "B": b"<ComicInfo>", "C": b"<Other/>"}.items():
        run(cbz(tmp_path / f"{name}.cbz", {"1.png": png(), "ComicInfo.xml": data}), out)
        assert page(out, f"{name}/1")["right_to_left"] is False
        assert report(out)["sources"][str(tmp_path / f"{name}.cbz")]["counts"] == {"comicinfo_unread": 1}


def test_boxes_that_hold_nothing_are_counted_and_others_are_cut_to_the_page(tmp_path: Path, out: Path) -> None:
    folder = write_images(tmp_path / "in")
    listed = [[150, 200, 500, 500], [0, 0, 1, 50], [300, 10, 50, 50], [100, 60, -80, -50]]
    write(folder / "kumiko.json", [{"filename": "page2.png", "size": list(SIZE), "panels": listed}])
    made = run(folder, out)
    assert boxes(out, "in/page2") == [(150.0, 200.0, 50.0, 100.0), (20.0, 10.0, 80.0, 50.0)]
    assert [code for code, _ in made.pages[0].notes] == ["box_invalid", "box_invalid"]
    assert made.lines()[-6:-3] == [
        "Noted:",
        "  2  boxes that hold nothing of their page: not used",
        "     panel 2: (0.0, 0.0, 1.0, 50.0) holds nothing of the page",
    ]


def test_a_page_that_was_turned_since_is_left_out_and_another_shape_is_counted(tmp_path: Path, out: Path) -> None:
    folder = write_images(tmp_path / "in")
    pages = [
        {"filename": "page2.png", "size": [600, 400], "panels": [[0, 0, 100, 100]]},
        {"filename": "page10.png", "size": [400, 500], "panels": [[0, 0, 200, 250]]},
    ]
    write(folder / "kumiko.json", pages)
    made = run(folder, out)
    assert made.left_out == {"page_turned": 1}
    assert boxes(out, "in/page10") == [(0.0, 0.0, 200.0, 125.0)]
    assert [code for code, _ in made.pages[0].notes] == ["page_shape_differs"]
