"""ACBF, the Advanced Comic Book Format, alone or in a CBZ: `frame@points` in reading order, `text-area@points`.

Images are named relative to the file, within its archive, or as "#id" of a `binary` in it; addresses are not followed.
Of several text layers, which are translations, the one in the language of the drawing counts (`languages/text-layer`
with show="false"), else the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element

from stage3.data.importers.documents import words
from stage3.data.importers.format import Format, Reading, once
from stage3.data.importers.geometry import around, no_rectangle, points_of
from stage3.data.importers.page import Kind, Page, PanelBox, TextBlock
from stage3.data.importers.sight import Sight
from stage3.data.importers.trees import Embedded, ImageRef, SourceProblem, has_image_name, parent, stem

UNKNOWN = "und"  # the code of a language that nobody knows
KINDS: dict[str, Kind] = {"thought": "thought", "commentary": "caption", "heading": "caption", "audio": "sound"}


def claims(sight: Sight) -> bool:
    """A document of the ACBF namespace, or of its shape."""
    return sight.root.upper() == "ACBF"


def read(reading: Reading) -> Iterator[Page]:
    """The pages of all books."""
    yield from once((page for name in reading.files for page in _pages(reading, name)), reading.note)


def _pages(reading: Reading, name: str) -> Iterator[Page]:
    root = reading.xml(name)
    where = reading.tree.show(name)
    body = root.find("body")
    if body is None:
        raise SourceProblem("acbf_shape", f"{where}: no <body> of pages")
    binaries = {b.get("id", ""): b for b in root.iter("binary")}
    embedded = Embedded(
        Path(where),
        {key: partial(_base64, element) for key, element in binaries.items() if has_image_name(key)},
        reading.tree.stamp(name),
    )
    listed = body.findall("page")
    cover = root.find("meta-data/book-info/coverpage")
    hrefs = {_href(page) for page in listed}
    covers = [cover] if cover is not None and _href(cover) and _href(cover) not in hrefs else []
    direction = (root.findtext("meta-data/book-info/reading-direction") or "").strip().upper()
    language = _language(root)
    series = root.find("meta-data/book-info/sequence")
    for element in [*covers, *listed]:
        href = _href(element)
        image = _image(reading, embedded, name, href)
        if image is None:
            reading.without_image(href or "a page without an image", name)
            continue
        page = Page(
            book=reading.tree.name if reading.tree.file(name) is None else stem(name),
            name=stem(image.member),
            image=image,
            panels=[],
            in_order=True,
            right_to_left={"RTL": True, "LTR": False}.get(direction),
            label="cover" if element in covers else "",
            language="" if language == UNKNOWN else language,
            series="" if series is None else " ".join(filter(None, (series.get("title"), series.text))),
            file=name,
        )
        _add(page, element, language, reading, f"{where}: {href}")
        yield page


def _base64(binary: Element) -> str:
    return binary.text or ""


def _href(page: Element) -> str:
    image = page.find("image")
    return "" if image is None else image.get("href", "").strip()


def _image(reading: Reading, embedded: Embedded, name: str, href: str) -> ImageRef | None:
    if href.startswith("#"):
        return ImageRef(embedded, href[1:]) if href[1:] in embedded.names else None
    if not href or "://" in href or href.startswith("zip:"):
        return None
    folder = parent(name)
    return reading.images.find(f"{folder}/{href}" if folder else href, (stem(name),))


def _language(root: Element) -> str:
    layers = root.findall("meta-data/book-info/languages/text-layer")
    return next((layer.get("lang", "") for layer in layers if layer.get("show", "").lower() == "false"), "")


def _add(page: Page, element: Element, language: str, reading: Reading, where: str) -> None:
    assert page.panels is not None
    for frame in element.findall("frame"):
        corners = points_of(frame.get("points", ""))
        if corners is None:
            reading.note("box_invalid", f"{where}: frame {frame.get('points', '')[:60]!r}")
        else:
            page.panels.append(PanelBox(around(corners), polygon=no_rectangle(corners)))
    layers = element.findall("text-layer")
    layer = next(
        (entry for entry in layers if language and entry.get("lang") == language), layers[0] if layers else None
    )
    for area in layer if layer is not None else ():
        corners = points_of(area.get("points", ""))
        said = " ".join(filter(None, (words(p) for p in area.findall("p")))) or words(area)
        if said:
            kind = KINDS.get(area.get("type", "speech"), "dialogue")
            page.texts.append(TextBlock(said, around(corners) if corners else None, kind))
    if not page.panels:
        page.panels = None  # frames are optional in ACBF: a page without any says nothing about panels


FORMAT = Format("acbf", "ACBF", "an .acbf file: an XML of <ACBF> with <page> and <frame points>", claims, read)
