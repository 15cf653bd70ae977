"""CoMix: an XML of `<book title>` with `<page id width height>`, and in it `<panel points>` and `<text points>`.

Points are "x,y x,y …" in the size that the page declares, which is the original or a squashed one, so each axis is
scaled by itself. Images are `BOOK/%03d.jpg`, where BOOK is the file's name (a hash) or the title. The direction of
reading is not said.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from stage3.data.importers.documents import words
from stage3.data.importers.format import Format, Reading, once
from stage3.data.importers.geometry import around, declared, no_rectangle, points_of, whole_number
from stage3.data.importers.page import Page, PanelBox, TextBlock
from stage3.data.importers.sight import Sight
from stage3.data.importers.trees import SourceProblem, stem


def claims(sight: Sight) -> bool:
    """A book with pages of panels that have points."""
    return sight.root in ("annotations", "book") and sight.has("page") and (sight.has("panel") or _only_texts(sight))


def _only_texts(sight: Sight) -> bool:
    return sight.root == "annotations" and sight.has("book", "pages")


def read(reading: Reading) -> Iterator[Page]:
    """The pages of all books."""
    yield from once((page for name in reading.files for page in _pages(reading, name)), reading.note)


def _pages(reading: Reading, name: str) -> Iterator[Page]:
    root = reading.xml(name)
    where = reading.tree.show(name)
    books = [root] if root.tag == "book" else list(root.iter("book"))
    if not books:
        raise SourceProblem("comix_shape", f"{where}: no <book> with pages")
    for book in books:
        title = book.get("title") or stem(name)
        for page in book.iter("page"):
            made = _page(reading, page, title, name, where)
            if made is not None:
                yield made


def _page(reading: Reading, page: Element, title: str, name: str, where: str) -> Page | None:
    index = page.get("id") or page.get("index") or ""
    at = whole_number(index)
    written = index if at is None else f"{at:03d}.jpg"
    image = reading.images.find(f"{stem(name)}/{written}", (stem(name), title))
    if image is None:
        reading.without_image(f"{title}: page {index}", name)
        return None
    made = Page(
        book=title,
        name=stem(image.member),
        image=image,
        size=declared(page.get("width"), page.get("height")),
        squashed=True,
        panels=[],
        file=name,
    )
    assert made.panels is not None
    for element in page.iter():
        if element.tag not in ("panel", "text"):
            continue
        corners = points_of(element.get("points", ""))
        if element.tag == "text":
            said = words(element) or " ".join(element.get("text", "").split())
            if said:
                made.texts.append(TextBlock(said, around(corners) if corners else None))
        elif corners is None:
            reading.note("box_invalid", f"{where}: page {index}: panel {element.get('id', '')}")
        else:
            made.panels.append(PanelBox(around(corners), polygon=no_rectangle(corners)))
    return made


FORMAT = Format("comix", "CoMix XML", "an XML of <book> with <page> and <panel points>", claims, read)
