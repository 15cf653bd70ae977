"""Small comics on disk for the tests of imports: images, archives, annotations in every format, what was made."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

SIZE = (200, 300)  # pixels of page 2
WIDE = (400, 250)  # pixels of page 10, which comes second

# Page 2: a panel over the whole width, then two side by side; written in an order that is neither direction's.
TOP, LEFT, RIGHT = (10.0, 10.0, 180.0, 80.0), (10.0, 100.0, 80.0, 190.0), (110.0, 100.0, 80.0, 190.0)
WRITTEN = (RIGHT, TOP, LEFT)
# A text that lies mostly in RIGHT and a little in LEFT, and one in TOP.
IN_RIGHT, IN_TOP = (80.0, 120.0, 60.0, 20.0), (20.0, 20.0, 40.0, 30.0)
# Page 10: two panels side by side.
WEST, EAST = (20.0, 25.0, 150.0, 200.0), (220.0, 30.0, 160.0, 190.0)


def png(size: tuple[int, int] = SIZE, color: tuple[int, int, int] = (200, 90, 40), format: str = "PNG") -> bytes:
    """The bytes of an image of one color."""
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, format)
    return buffer.getvalue()


def write(path: Path, data: bytes | str | Any) -> Path:
    """Write bytes or text as they are, anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(data, bytes):
        path.write_bytes(data)
    else:
        path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return path


def write_images(folder: Path, *, two: str = "page2.png", ten: str = "page10.png") -> Path:
    """The two pages as files."""
    write(folder / two, png(SIZE))
    write(folder / ten, png(WIDE, (10, 20, 30)))
    return folder


def cbz(path: Path, members: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """An archive with members in this order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, compress_type=compression)
    return path


# --- what was made


def manifest(out: Path) -> dict[str, dict[str, str]]:
    """The rows of the manifest by id, in order."""
    with (out / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return {row["canonical_id"]: row for row in csv.DictReader(file)}


def page(out: Path, page_id: str) -> dict[str, Any]:
    """A panel file."""
    made: dict[str, Any] = json.loads((out / "panels" / f"{page_id}.json").read_text(encoding="utf-8"))
    return made


def boxes(out: Path, page_id: str) -> list[tuple[float, ...]]:
    """The boxes of a page, in reading order."""
    panels = page(out, page_id)["panels"]
    assert [p["reading_order"] for p in panels] == list(range(1, len(panels) + 1))
    return [tuple(p["bbox"]) for p in panels]


def texts(out: Path, page_id: str) -> list[str]:
    """What the panels of a page say, in reading order."""
    return [p["text"] for p in page(out, page_id)["panels"]]


def labels(out: Path) -> dict[str, str]:
    made: dict[str, str] = json.loads((out / "labels.json").read_text(encoding="utf-8"))
    return made


def report(out: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((out / "import_report.json").read_text(encoding="utf-8"))
    return made


def tree_bytes(out: Path) -> dict[str, bytes]:
    """Every file of a folder by its relative path."""
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


# --- one builder per format: files below a root, and what to import


def corners(box: tuple[float, ...]) -> list[list[float]]:
    x, y, w, h = box
    return [[x, y], [x + w, y], [x + w, y + h], [x, y + h]]


def points(box: tuple[float, ...], between: str = " ") -> str:
    return between.join(f"{x:g},{y:g}" for x, y in corners(box))


def xyxy(box: tuple[float, ...]) -> list[float]:
    x, y, w, h = box
    return [x, y, x + w, y + h]


def coco(root: Path) -> Path:
    """Categories numbered against their order; the text's id below the panel's."""
    write_images(root / "Book A")
    boxed = [(7, WRITTEN[0], None), (3, IN_RIGHT, "right words"), (7, WRITTEN[1], None), (7, WRITTEN[2], None)]
    boxed.append((3, IN_TOP, "top words"))
    annotations = [
        {"id": k, "image_id": 11, "category_id": c, "bbox": list(b), **({"text": t} if t else {})}
        for k, (c, b, t) in enumerate(boxed)
    ]
    annotations += [
        {"id": 90 + k, "image_id": 4, "category_id": 7, "bbox": list(b)} for k, b in enumerate((EAST, WEST))
    ]
    value = {
        "images": [
            {"id": 4, "file_name": "elsewhere\\Book A\\page10.png", "width": WIDE[0], "height": WIDE[1]},
            {"id": 11, "file_name": "Book A/page2.png", "width": SIZE[0], "height": SIZE[1]},
        ],
        "annotations": annotations,
        "categories": [{"id": 3, "name": "Text"}, {"id": 7, "name": "Comic Panel"}, {"id": 1, "name": "character"}],
    }
    write(root / "instances.json", value)
    return root


def yolo(root: Path) -> Path:
    write_images(root / "train" / "images" / "Book A")

    def line(box: tuple[float, ...], size: tuple[int, int]) -> str:
        x, y, w, h = box
        return f"1 {(x + w / 2) / size[0]:.9f} {(y + h / 2) / size[1]:.9f} {w / size[0]:.9f} {h / size[1]:.9f}"

    polygon = " ".join(f"{x / SIZE[0]} {y / SIZE[1]}" for x, y in corners(LEFT))
    rows = [line(RIGHT, SIZE), line(TOP, SIZE) + " 0.75", f"1 {polygon}", "0 0.5 0.5 0.1 0.1"]
    write(root / "train" / "labels" / "Book A" / "page2.txt", "\n".join(rows) + "\n")
    write(root / "train" / "labels" / "Book A" / "page10.txt", f"{line(EAST, WIDE)}\n{line(WEST, WIDE)}\n")
    write(root / "data.yaml", "path: /home/someone/else\ntrain: ../train/images\nnames:\n  0: face\n  1: panel\n")
    return root


def mokuro(root: Path) -> Path:
    """Texts alone; the images lie in a CBZ of the same name."""
    cbz(root / "Book A.cbz", {"page10.png": png(WIDE), "page2.png": png(SIZE)})
    blocks = [
        {"box": xyxy(IN_TOP), "vertical": True, "font_size": 9, "lines_coords": [], "lines": ["上の", "言葉"]},
        {"box": xyxy(IN_RIGHT), "vertical": True, "font_size": 9, "lines_coords": [], "lines": ["右"]},
    ]
    pages = [
        {"version": "0.2.1", "img_width": 100, "img_height": 150, "blocks": _halved(blocks), "img_path": "page2.png"},
        {"version": "0.2.1", "img_width": WIDE[0], "img_height": WIDE[1], "blocks": [], "img_path": "page10.png"},
    ]
    write(root / "Book A.mokuro", {"version": "0.2.1", "title": "T", "volume": "Book A", "pages": pages})
    write(root / "_ocr" / "Book A" / "page2.json", pages[0])
    return root


def _halved(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The blocks on an image of half the size."""
    return [{**block, "box": [v / 2 for v in block["box"]]} for block in blocks]


def magi(root: Path) -> Path:
    """As `json.dumps(..., default=str)` writes numpy: numbers and arrays as text."""
    write_images(root / "Book A")
    first = {
        "panels": [[f"np.float32({v})" for v in xyxy(b)] for b in WRITTEN],
        "panel_scores": "array([0.9, 0.8, 0.7], dtype=float32)",
        "texts": str([xyxy(IN_RIGHT), xyxy(IN_TOP), [1.0, 1.0, 9.0, 9.0]]).replace(",", " "),
        "characters": [],
        "ocr": ["right words", "top words", "BOOM"],
        "is_essential_text": ["True", "True", "False"],
        "character_names": ["Ann", "Other"],
        "text_character_associations": [[0, 0], [1, 1]],
    }
    second = {"panels": [xyxy(EAST), xyxy(WEST), [0, 0, 9, 9]], "panel_scores": ["0.9", "0.8", "0.1"], "texts": []}
    write(root / "magi.json", [first, second])
    return root


def manga109(root: Path) -> Path:
    """Elements in no order; ids that are no numbers; who speaks in a file of its own."""
    write_images(root / "images" / "Book A", two="002.jpg", ten="010.jpg")

    def element(tag: str, name: str, box: tuple[float, ...], more: str = "", inner: str = "") -> str:
        x0, y0, x1, y1 = xyxy(box)
        return f'<{tag} id="{name}" xmin="{x0:g}" ymin="{y0:g}" xmax="{x1:g}" ymax="{y1:g}"{more}>{inner}</{tag}>'

    page2 = [
        element("text", "00000a01", IN_RIGHT, inner="right\nwords"),
        element("frame", "0000000a", RIGHT),
        element("body", "20000001", TOP, ' character="c1"'),
        element("frame", "0000000b", TOP),
        element("text", "00000a02", IN_TOP, inner="top words"),
        element("frame", "0000000c", LEFT),
    ]
    page10 = [element("frame", "0000000d", WEST), element("frame", "0000000e", EAST)]
    book = (
        '<?xml version="1.0" encoding="utf-8"?><book title="Book A">'
        '<characters><character id="c1" name="Ann"/></characters>'
        f'<pages><page index="2" width="200" height="300">{"".join(page2)}</page>'
        f'<page index="10" width="400" height="250">{"".join(page10)}</page>'
        '<page index="99" width="200" height="300"/></pages></book>'
    )
    write(root / "annotations" / "Book A.xml", book)
    write(root / "annotations.v2018.05.31" / "Book A.xml", book.replace('xmin="110"', 'xmin="150"'))
    said = '<speaker_to_text id="r1" text_id="00000a01" speaker_id="20000001"/>'
    write(
        root / "relationships" / "Book A.xml",
        f'<book title="Book A"><pages><page index="2">{said}</page></pages></book>',
    )
    return root


def kumiko(root: Path) -> Path:
    """In reading order as Kumiko found it, which is not ours: it is kept."""
    write_images(root / "Book A")
    pages = [
        {
            "filename": "page2.png",
            "size": list(SIZE),
            "numbering": "rtl",
            "panels": [list(b) for b in (TOP, RIGHT, LEFT)],
        },
        {"filename": "page10.png", "size": list(WIDE), "numbering": "rtl", "panels": [list(EAST), list(WEST)]},
    ]
    write(root / "Book A" / "panels.json", pages)
    return root / "Book A"


def label_studio(root: Path) -> Path:
    write_images(root / "Book A")

    def region(name: str, label: str, box: tuple[float, ...], size: tuple[int, int]) -> dict[str, Any]:
        x, y, w, h = box
        share = {
            "x": 100 * x / size[0],
            "y": 100 * y / size[1],
            "width": 100 * w / size[0],
            "height": 100 * h / size[1],
        }
        drawn = {"original_width": size[0], "original_height": size[1]}
        return {
            "id": name,
            "type": "rectanglelabels",
            "value": {**share, "rotation": 0, "rectanglelabels": [label]},
            **drawn,
        }

    def said(name: str, words: str) -> dict[str, Any]:
        return {"id": name, "type": "textarea", "value": {"text": [words]}}

    regions = [region(f"p{k}", "panel", box, SIZE) for k, box in enumerate(WRITTEN)]
    # LEFT as it is drawn when it is turned by a quarter around its top left corner, which then is its top right one
    turned = region("p2", "panel", (LEFT[0] + LEFT[2], LEFT[1], LEFT[3], LEFT[2]), SIZE)
    turned["value"]["rotation"] = 90
    regions[2] = turned
    regions += [region("t1", "text", IN_RIGHT, SIZE), region("t2", "text", IN_TOP, SIZE)]
    regions += [said("t1", "right words"), said("t2", "top words")]
    wrong = [region("x", "panel", EAST, SIZE)]
    tasks = [
        {
            "id": 1,
            "data": {"image": "/data/upload/3/0a1b2c3d-page2.png"},
            "annotations": [
                {"id": 1, "was_cancelled": True, "updated_at": "2030", "result": wrong},
                {"id": 2, "was_cancelled": False, "updated_at": "2025-02", "result": regions},
                {"id": 3, "was_cancelled": False, "updated_at": "2025-01", "result": wrong},
            ],
            "predictions": [{"result": wrong}],
        },
        {
            "id": 2,
            "data": {"image": "/data/local-files/?d=Book%20A/page10.png"},
            "annotations": [{"id": 4, "result": [region("a", "panel", EAST, WIDE), region("b", "panel", WEST, WIDE)]}],
        },
    ]
    write(root / "export.json", tasks)
    return root


def cvat(root: Path) -> Path:
    write_images(root / "images" / "Book A")

    def box(label: str, b: tuple[float, ...], inner: str = "", rotation: str = "") -> str:
        x0, y0, x1, y1 = xyxy(b)
        edges = f'xtl="{x0}" ytl="{y0}" xbr="{x1}" ybr="{y1}"'
        return f'<box label="{label}" source="manual" occluded="0" {edges}{rotation} z_order="0">{inner}</box>'

    # TOP, drawn upright and turned by a quarter around its center
    center = (TOP[0] + TOP[2] / 2, TOP[1] + TOP[3] / 2)
    stood = (center[0] - TOP[3] / 2, center[1] - TOP[2] / 2, TOP[3], TOP[2])
    shapes = [
        box("panel", RIGHT),
        box("panel", stood, rotation=' rotation="90.0"'),
        f'<polygon label="panel" points="{points(LEFT, ";")}" z_order="0"></polygon>',
        box("text", IN_RIGHT, '<attribute name="text">right words</attribute>'),
        box("text", IN_TOP, '<attribute name="text">top  words</attribute>'),
        '<points label="panel" points="1,2"></points>',
        '<tag label="Cover"></tag>',
    ]
    images = (
        f'<image id="1" name="Book A/page2.png" width="200" height="300">{"".join(shapes)}</image>'
        f'<image id="0" name="Book A/page10.png" width="400" height="250">'
        f"{box('panel', EAST)}{box('panel', WEST)}</image>"
    )
    head = "<version>1.1</version><meta><task><name>x</name></task></meta>"
    write(root / "annotations.xml", f"<annotations>{head}{images}</annotations>")
    return root


def labelme(root: Path) -> Path:
    write_images(root / "Book A")

    def shape(label: str, b: tuple[float, ...], kind: str = "rectangle", words: str = "") -> dict[str, Any]:
        ends = corners(b) if kind == "polygon" else [corners(b)[2], corners(b)[0]]
        return {"label": label, "points": ends, "shape_type": kind, "flags": {}, "description": words}

    page2 = [shape("panel", RIGHT), shape("panel", TOP, "polygon"), shape("panel", LEFT)]
    page2 += [shape("text", IN_RIGHT, words="right words"), shape("text", IN_TOP, words="top words")]
    page2.append({"label": "panel", "points": [[1, 2]], "shape_type": "point"})
    head = {"version": "5.5.0", "flags": {}}
    write(
        root / "Book A" / "page2.json",
        {**head, "shapes": page2, "imagePath": "..\\Book A\\page2.png", "imageData": None},
    )
    page10 = {"shapes": [shape("panel", EAST), shape("panel", WEST)], "imagePath": "page10.png"}
    write(root / "Book A" / "page10.json", {**head, **page10, "imageHeight": WIDE[1], "imageWidth": WIDE[0]})
    return root


def acbf(root: Path) -> Path:
    """Frames in an order of their own, two translations, in a CBZ."""
    frames = "".join(f'<frame points="{points(b)}"/>' for b in (TOP, RIGHT, LEFT))

    def layer(language: str, right: str, top: str) -> str:
        areas = "".join(
            f'<text-area points="{points(b)}"><p>{words}</p></text-area>'
            for b, words in ((IN_RIGHT, right), (IN_TOP, top))
        )
        return f'<text-layer lang="{language}">{areas}</text-layer>'

    both = layer("fr", "à droite", "en haut") + layer("en", "right <strong>words</strong>", "top words")
    body = (
        f'<page><image href="art/page2.png"/>{both}{frames}</page>'
        f'<page><image href="art/page10.png"/><frame points="{points(EAST)}"/><frame points="{points(WEST)}"/></page>'
    )
    info = (
        '<coverpage><image href="art/page2.png"/></coverpage><reading-direction>RTL</reading-direction>'
        '<languages><text-layer lang="fr" show="true"/><text-layer lang="en" show="false"/></languages>'
        '<sequence title="Series">3</sequence>'
    )
    document = (
        '<?xml version="1.0"?><ACBF xmlns="http://www.acbf.info/xml/acbf/1.1">'
        f"<meta-data><book-info>{info}</book-info></meta-data><body>{body}</body></ACBF>"
    )
    members = {"art/page10.png": png(WIDE), "book.acbf": document.encode(), "art/page2.png": png(SIZE)}
    return cbz(root / "Book A.cbz", members)


def comix(root: Path) -> Path:
    """Points in a squashed size, which is not the image's and has other proportions."""
    write_images(root / "images" / "a1b2", two="002.png", ten="010.png")

    def squashed(b: tuple[float, ...], size: tuple[int, int]) -> str:
        return " ".join(f"{x * 100 / size[0]:g},{y * 100 / size[1]:g}" for x, y in corners(b))

    page2 = "".join(f'<panel id="p{k}" points="{squashed(b, SIZE)}"/>' for k, b in enumerate(WRITTEN))
    page2 += f'<text id="t1" points="{squashed(IN_RIGHT, SIZE)}">right words</text>'
    page2 += f'<text id="t2" points="{squashed(IN_TOP, SIZE)}">top words</text>'
    page10 = "".join(f'<panel id="q{k}" points="{squashed(b, WIDE)}"/>' for k, b in enumerate((EAST, WEST)))
    pages = (
        f'<page id="2" width="100" height="100">{page2}</page><page id="10" width="100" height="100">{page10}</page>'
    )
    write(root / "xml" / "a1b2.xml", f'<annotations><book title="Book A"><pages>{pages}</pages></book></annotations>')
    return root


BUILDERS = {
    f.__name__: f for f in (coco, yolo, mokuro, magi, manga109, kumiko, label_studio, cvat, labelme, acbf, comix)
}
