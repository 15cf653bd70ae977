"""Panels for other tools: what stands in the files, and that a round loses nothing that a format can hold."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from import_world import EAST, IN_RIGHT, IN_TOP, LEFT, RIGHT, SIZE, TOP, WEST, WIDE, labels, page, png, write

import stage3
from stage3.data import __main__ as data_command
from stage3.data.exporters import FORMATS, export_panels
from stage3.data.exporters.xml import element, text
from stage3.data.importers import import_comics
from stage3.errors import ConfigError, DataError

SLANTED = [[10.0, 100.0], [90.0, 120.0], [90.0, 290.0], [10.0, 290.0]]  # its box is LEFT


def data_set(root: Path, *, rtl: bool = True) -> Path:
    """Two books; a page whose order no layout gives, with placed and unplaced texts, a polygon, a text in no panel."""
    for book, leaf, size in (("Book A", "page2", SIZE), ("Book A", "page10", WIDE), ("Book B", "page2", SIZE)):
        write(root / "scans" / book / f"{leaf}.png", png(size, (len(book), len(leaf), size[0] % 255)))
    placed = {"bbox": list(IN_RIGHT), "text": "right <&> words", "kind": "thought", "speaker": "Ann"}
    bang = {"bbox": list(IN_TOP), "text": "BANG", "kind": "sound"}
    first = {
        "image_width": SIZE[0],
        "image_height": SIZE[1],
        "right_to_left": rtl,
        "language": "de",
        "series": "Fox 2",
        "panels": [
            {"bbox": list(LEFT), "text": "loose words", "polygon": SLANTED, "confidence": 0.25},
            {"bbox": list(TOP), "text": "", "texts": [bang]},
            {"bbox": list(RIGHT), "text": "right <&> words", "texts": [placed]},
        ],
        "texts": [{"bbox": [2, 95, 6, 4], "text": "gutter", "kind": "caption"}],
    }
    # declared at half the size of the image
    second = {"image_width": 200, "image_height": 125, "right_to_left": rtl, "panels": [_half(EAST), _half(WEST)]}
    second["texts"] = [{"bbox": [90, 2, 10, 5], "text": "entre été", "kind": "dialogue"}]
    third = {
        "image_width": SIZE[0],
        "image_height": SIZE[1],
        "right_to_left": rtl,
        "panels": [{"bbox": [5, 6, 100, 200]}],
    }
    for page_id, value in (("Book A/page2", first), ("Book A/page10", second), ("Book B/page2", third)):
        write(root / "data" / "json" / f"{page_id}.json", value)
    rows = [f"{i},{root}/scans/{i}.png" for i in ("Book A/page2", "Book A/page10", "Book B/page2")]
    rows.append(f"Book B/gone,{root}/scans/Book B/gone.png")
    write(root / "data" / "json" / "Book B" / "gone.json", third)
    write(root / "data" / "pages.csv", "canonical_id,absolute_image_path\n" + "\n".join(rows) + "\n")
    types = {"Book A/page2": "cover", "Book A/page10": "story", "Book B/page2": "advertisement", "Book B/gone": "story"}
    write(root / "data" / "labels.json", types)
    parts = "manifest: pages.csv\npanels: json\npanel_format: ocr\nlabels: labels.json\n"
    write(root / "data" / "dataset.yaml", parts)
    return root / "data"


def _half(box: tuple[float, ...]) -> dict[str, Any]:
    return {"bbox": [v / 2 for v in box], "text": ""}


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return data_set(tmp_path)


# --- what stands in the files


def test_coco_by_hand(made: Path, tmp_path: Path) -> None:
    written = export_panels(made, tmp_path / "x.json", "coco")
    said = (tmp_path / "x.json").read_text(encoding="utf-8")
    value = json.loads(said)
    assert "entre été" in said  # as it is, for whoever looks into the file
    assert (written.pages, written.panels, written.left_out.counts) == (3, 6, {"without an image": 1})
    assert written.left_out.first == {"without an image": "Book B/gone"}
    assert value["images"][1] == {
        "id": 2,
        "width": 400,
        "height": 250,
        "file_name": "Book A/page10.png",
        "page_id": "Book A/page10",
        "book": "Book A",
        "page_type": "story",
        "right_to_left": True,
    }
    by_category: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    for annotation in value["annotations"]:
        by_category[annotation["category_id"]].append(annotation)
    assert [a["id"] for a in value["annotations"]] == list(range(1, 11))  # ids start at 1, none twice
    assert {c["id"]: c["name"] for c in value["categories"]} == {1: "panel", 2: "text"}
    slanted = by_category[1][0]
    assert (slanted["bbox"], slanted["reading_order"], slanted["text"]) == (list(LEFT), 1, "loose words")
    assert slanted["segmentation"] == [[v for point in SLANTED for v in point]]
    assert slanted["area"] == 80 * 190 - 80 * 20 / 2
    assert [a["bbox"] for a in by_category[1][3:5]] == [list(EAST), list(WEST)]  # in pixels of the image
    assert by_category[1][3]["area"] == 160 * 190
    assert "text" not in by_category[1][2]  # what it says stands with its place
    assert [(a["bbox"], a["text"]) for a in by_category[2]] == [
        ([2, 95, 6, 4], "gutter"),
        (list(IN_TOP), "BANG"),
        (list(IN_RIGHT), "right <&> words"),
        ([180, 4, 20, 10], "entre été"),  # the file counts in halves of the image's pixels
    ]


def test_kumiko_by_hand(made: Path, tmp_path: Path) -> None:
    export_panels(made, tmp_path / "x.json", "kumiko")
    assert json.loads((tmp_path / "x.json").read_text()) == [
        {
            "filename": "Book A/page2.png",
            "size": [200, 300],
            "numbering": "rtl",
            "panels": [[10, 100, 80, 190], [10, 10, 180, 80], [110, 100, 80, 190]],
            "texts": ["loose words", "", "right <&> words"],
        },
        {
            "filename": "Book A/page10.png",
            "size": [400, 250],
            "numbering": "rtl",
            "panels": [[220, 30, 160, 190], [20, 25, 150, 200]],
        },
        {"filename": "Book B/page2.png", "size": [200, 300], "numbering": "rtl", "panels": [[5, 6, 100, 200]]},
    ]


def test_what_xml_cannot_hold_is_replaced_in_words_and_in_attributes() -> None:
    assert text("a\0<b>\ud800") == "a\ufffd&lt;b&gt;\ufffd"
    assert element("p", text("\x1b"), of='a\0"<') == "<p of='a\ufffd\"&lt;'>\ufffd</p>"


def test_cvat_by_hand(made: Path, tmp_path: Path) -> None:
    export_panels(made, tmp_path / "x.xml", "cvat")
    root = ElementTree.parse(tmp_path / "x.xml").getroot()
    assert [label.findtext("name") for label in root.iter("label")] == [
        "panel",
        "text",
        "advertisement",
        "cover",
        "story",
    ]
    first, second, _ = root.findall("image")
    assert first.attrib == {"id": "0", "name": "Book A/page2.png", "width": "200", "height": "300"}
    polygon = first.find("polygon")
    assert polygon is not None
    assert polygon.get("points") == "10.00,100.00;90.00,120.00;90.00,290.00;10.00,290.00"
    boxes = [b for b in second.findall("box") if b.get("label") == "panel"]
    assert [boxes[0].get(k) for k in ("xtl", "ytl", "xbr", "ybr")] == ["220.00", "30.00", "380.00", "220.00"]
    assert [b.findtext("attribute[@name='reading_order']") for b in boxes] == ["1", "2"]
    tags = [image.find("tag") for image in root.findall("image")]
    assert [tag.get("label") if tag is not None else None for tag in tags] == ["cover", "story", "advertisement"]


def test_acbf_by_hand(made: Path, tmp_path: Path) -> None:
    written = export_panels(made, tmp_path / "books", "acbf")
    assert [path.name for path in written.files] == ["Book A.cbz", "Book B.cbz"]
    with zipfile.ZipFile(tmp_path / "books" / "Book A.cbz") as archive:
        assert archive.namelist() == ["page2.png", "page10.png", "comic.acbf"]
        assert archive.read("page10.png") == (tmp_path / "scans/Book A/page10.png").read_bytes()
        text = archive.read("comic.acbf").decode()
    name = "{http://www.acbf.info/xml/acbf/1.2}"
    root = ElementTree.fromstring(text)
    cover = root.find(f".//{name}coverpage")
    assert cover is not None
    assert [f.get("points") for f in cover.iter(f"{name}frame")] == [
        "10,100 90,120 90,290 10,290",
        "10,10 190,10 190,90 10,90",
        "110,100 190,100 190,290 110,290",
    ]
    assert [i.get("href") for i in root.iter(f"{name}image")] == ["page2.png", "page10.png"]
    assert root.findtext(f".//{name}reading-direction") == "RTL"
    shown = root.find(f".//{name}languages/{name}text-layer")
    assert shown is not None
    assert shown.attrib == {"lang": "de", "show": "false"}  # drawn in the image: readers do not draw it again
    areas = {area.findtext(f"{name}p"): area.get("type") for area in root.iter(f"{name}text-area")}
    assert areas == {
        "loose words": "speech",
        "BANG": "audio",
        "right <&> words": "thought",
        "gutter": "commentary",
        "entre été": "speech",
    }


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_data_gives_the_same_bytes(format: str, made: Path, tmp_path: Path) -> None:
    one = export_panels(made, tmp_path / "one", format).files
    two = export_panels(made, tmp_path / "two", format).files
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in two]


# --- rounds


def held(out: Path, page_id: str, *, polygons: bool = True, places: bool = True, kinds: bool = True) -> Any:
    """What a page holds, as far as a format can."""
    value = page(out, page_id)
    panels = []
    for panel in value["panels"]:
        texts = [
            (t["text"], t["bbox"], *((t["kind"], t.get("speaker")) if kinds else ())) for t in panel.get("texts", ())
        ]
        panels.append(
            (panel["bbox"], panel["text"], panel.get("polygon") if polygons else None, texts if places else None)
        )
    loose = [(t["text"], t["bbox"]) for t in value.get("texts", ())] if places else None
    return panels, loose, value["right_to_left"]


def back(made: Path, tmp_path: Path, format: str, **options: Any) -> Path:
    """Import what was exported."""
    written = export_panels(made, tmp_path / ("books" if format == "acbf" else "panels.file"), format)
    out = tmp_path / "back"
    import_comics(written.files, out, images=None if format == "acbf" else tmp_path / "scans", format=format, **options)
    return out


BANG = [("BANG", list(IN_TOP), "sound", None)]
PLACED = [("right <&> words", list(IN_RIGHT), "thought", "Ann")]


def test_a_round_through_coco_loses_nothing(made: Path, tmp_path: Path) -> None:
    out = back(made, tmp_path, "coco")
    panels, loose, rtl = held(out, "Book A/page2")
    assert panels == [
        (list(LEFT), "loose words", SLANTED, []),
        (list(TOP), "", None, BANG),
        (list(RIGHT), "right <&> words", None, PLACED),
    ]
    assert loose == [("gutter", [2.0, 95.0, 6.0, 4.0])]
    assert rtl is True
    assert page(out, "Book A/page2")["panels"][0]["confidence"] == 0.25  # no score: nothing is left out for it
    assert (page(out, "Book A/page2")["language"], page(out, "Book A/page2")["series"]) == ("de", "Fox 2")
    assert held(out, "Book A/page10")[0] == [(list(EAST), "", None, []), (list(WEST), "", None, [])]
    assert labels(out) == {"Book A/page2": "cover", "Book A/page10": "story", "Book B/page2": "advertisement"}


def test_a_round_through_cvat_loses_the_direction_alone(made: Path, tmp_path: Path) -> None:
    out = back(made, tmp_path, "cvat")
    panels, loose, rtl = held(out, "Book A/page2")
    assert panels == [
        (list(LEFT), "loose words", SLANTED, []),
        (list(TOP), "", None, BANG),
        (list(RIGHT), "right <&> words", None, PLACED),
    ]
    assert loose == [("gutter", [2.0, 95.0, 6.0, 4.0])]
    assert rtl is False  # CVAT has no place for it; the order is kept
    assert held(out, "Book A/page10")[0] == [(list(EAST), "", None, []), (list(WEST), "", None, [])]
    assert labels(out) == {"Book A/page2": "cover", "Book A/page10": "story", "Book B/page2": "advertisement"}


def test_a_round_through_kumiko_keeps_boxes_words_order_and_direction(made: Path, tmp_path: Path) -> None:
    out = back(made, tmp_path, "kumiko")
    panels, _, rtl = held(out, "Book A/page2", places=False)
    assert panels == [
        (list(LEFT), "loose words", None, None),
        (list(TOP), "", None, None),
        (list(RIGHT), "right <&> words", None, None),
    ]
    assert rtl is True
    assert held(out, "Book A/page10")[0] == [(list(EAST), "", None, []), (list(WEST), "", None, [])]


def test_a_round_through_acbf_keeps_frames_places_of_texts_order_cover_and_direction(
    made: Path, tmp_path: Path
) -> None:
    out = back(made, tmp_path, "acbf")
    panels, loose, rtl = held(out, "Book A/page2", kinds=False)
    loose_words = [("loose words", list(LEFT))]  # what has no place of its own takes the panel's
    assert panels == [
        (list(LEFT), "loose words", SLANTED, loose_words),
        (list(TOP), "", None, [("BANG", list(IN_TOP))]),
        (list(RIGHT), "right <&> words", None, [("right <&> words", list(IN_RIGHT))]),
    ]
    assert (page(out, "Book A/page2")["language"], page(out, "Book A/page2")["series"]) == ("de", "Fox 2")
    kinds = [t["kind"] for p in page(out, "Book A/page2")["panels"] for t in p.get("texts", ())]
    assert kinds == ["dialogue", "sound", "thought"]
    assert loose == [("gutter", [2.0, 95.0, 6.0, 4.0])]
    assert rtl is True
    assert held(out, "Book A/page10")[0] == [(list(EAST), "", None, []), (list(WEST), "", None, [])]
    assert labels(out) == {"Book A/page2": "cover", "Book A/page10": "story", "Book B/page2": "story"}


@pytest.mark.parametrize("format", FORMATS)
def test_a_second_round_changes_nothing_any_more(format: str, made: Path, tmp_path: Path) -> None:
    out = back(made, tmp_path, format)
    again = tmp_path / "again"
    again.mkdir()
    written = export_panels(out, again / ("books" if format == "acbf" else "panels.file"), format)
    first = [tmp_path / path.relative_to(again) for path in written.files]
    assert [p.read_bytes() for p in written.files] == [p.read_bytes() for p in first]


def test_panels_that_were_corrected_by_hand_are_what_is_exported(tmp_path: Path) -> None:
    write(tmp_path / "B" / "1.png", png())
    import_comics(tmp_path / "B", tmp_path / "out", panels="none")
    value = page(tmp_path / "out", "B/1")
    value["panels"] = [{"bbox": [1, 2, 30, 40], "text": "mine"}]
    write(tmp_path / "out" / "panels" / "B" / "1.json", value)
    export_panels(tmp_path / "out", tmp_path / "x.json", "kumiko")
    (exported,) = json.loads((tmp_path / "x.json").read_text())
    assert (exported["filename"], exported["panels"], exported["texts"]) == ("B/1.png", [[1, 2, 30, 40]], ["mine"])


# --- other data sets, and refusals


def test_boxes_of_language_models_are_exported_in_pixels(tmp_path: Path) -> None:
    write(tmp_path / "scans" / "B" / "1.png", png((200, 400)))
    panel = {"panel_number": 1, "box_2d": [250, 100, 750, 600], "description": "A cat.", "text_content": ["Meow"]}
    write(tmp_path / "json" / "B" / "1.json", {"panels": [panel]})
    write(tmp_path / "pages.csv", f"canonical_id,absolute_image_path\nB/1,{tmp_path}/scans/B/1.png\n")
    write(tmp_path / "dataset.yaml", "manifest: pages.csv\npanels: json\n")
    stage3.export_panels(tmp_path, tmp_path / "x.json", "coco")
    (annotation,) = json.loads((tmp_path / "x.json").read_text())["annotations"]
    assert annotation["bbox"] == [20, 100, 100, 200]
    assert annotation["text"] == "Meow A cat."


def test_one_list_of_all_pages_is_exported_too(tmp_path: Path) -> None:
    write(tmp_path / "scans" / "1.png", png((200, 400)))
    panels = [{"rcnn_bbox": [10, 250, 100, 90], "text": "below"}, {"rcnn_bbox": [10, 20, 100, 90], "text": "above"}]
    item = {"canonical_id": "B/1", "image_width": 200, "image_height": 400, "panels": panels}
    write(tmp_path / "panels.json", [item, {**item, "canonical_id": "unlisted"}])
    write(tmp_path / "pages.csv", f"canonical_id,absolute_image_path\nB/1,{tmp_path}/scans/1.png\n")
    write(tmp_path / "dataset.yaml", "manifest: pages.csv\npanels: panels.json\npanel_format: aligned\n")
    stage3.export_panels(tmp_path, tmp_path / "x.json", "kumiko")
    (exported,) = json.loads((tmp_path / "x.json").read_text())
    assert (exported["filename"], exported["texts"]) == ("scans/1.png", ["above", "below"])


def test_pages_that_cannot_be_read_are_left_out_by_reason(made: Path, tmp_path: Path) -> None:
    write(made / "json" / "Book A" / "page2.json", b"{")
    write(tmp_path / "scans" / "Book A" / "page10.png", b"no image")
    (made / "json" / "Book B" / "gone.json").unlink()
    written = export_panels(made, tmp_path / "x.json", "coco")
    assert written.pages == 1
    assert written.left_out.counts == {"json_syntax": 1, "image:format": 1, "without a panel file": 1}
    books = export_panels(made, tmp_path / "books", "acbf").files
    assert [path.name for path in books] == ["Book B.cbz"]


def test_what_cannot_be_exported_is_said(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        data_command.main(["export", "--data", str(made), "--format", "coco", "--out", str(tmp_path / "x.json")]) == 0
    )
    said = capsys.readouterr().out
    assert f"3 pages, 6 panels written to {tmp_path / 'x.json'}" in said
    assert "left out: 1 page without an image, first Book B/gone" in said
    with pytest.raises(ConfigError, match=r"format: 'coc' is not one of coco, kumiko, cvat, acbf"):
        data_command.main(["export", "--data", str(made), "--format", "coc", "--out", "x"])
    with pytest.raises(ConfigError, match="Did you mean 'coco'"):
        export_panels(made, tmp_path / "x.json", "coc")
    with pytest.raises(DataError, match="is a folder; name a file"):
        export_panels(made, tmp_path, "kumiko")
    for path in (tmp_path / "scans").rglob("*.png"):
        path.unlink()
    with pytest.raises(DataError, match=r"no page can be exported \(without an image 4\)"):
        export_panels(made, tmp_path / "y.json", "coco")
    assert not (tmp_path / "y.json").exists()
