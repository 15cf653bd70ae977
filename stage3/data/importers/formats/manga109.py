"""Manga109: one XML per book, `page@index,width,height` with `frame` and `text` of xmin, ymin, xmax, ymax.

Ids are texts and are never counted with. The images are `BOOK/%03d.jpg`; one shows two pages. The order of elements
means nothing; reading is from right to left. Files of Manga109Dialog (`speaker_to_text@text_id,speaker_id`) tell who
speaks: a speaker is a body or face of the annotations, whose character has a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element

from stage3.data.importers.documents import words
from stage3.data.importers.format import Format, Reading, once
from stage3.data.importers.geometry import declared, from_corners, numbers, whole_number
from stage3.data.importers.page import Box, Page, PanelBox, TextBlock
from stage3.data.importers.sight import Sight
from stage3.data.importers.trees import SourceProblem, parent, stem

_OLDER = re.compile(r"annotations\.v[\d.]+", re.IGNORECASE)  # a release keeps earlier annotations beside its own


def claims(sight: Sight) -> bool:
    """A book with pages of frames, or of who speaks which text."""
    return sight.root == "book" and (sight.has("frame") or sight.has("speaker_to_text") or _only_texts(sight))


def _only_texts(sight: Sight) -> bool:
    return sight.has("pages", "page") and not sight.has("panel") and (sight.has("body") or sight.has("face"))


def read(reading: Reading) -> Iterator[Page]:
    """The pages of all books; older annotations of a release are passed by."""
    names = []
    for name in reading.files:
        if any(_OLDER.fullmatch(part) for part in parent(name).split("/")):
            reading.note("older_annotations", reading.tree.show(name))
        else:
            names.append(name)
    roots = {name: _book(reading, name) for name in names or reading.files}
    speakers: dict[str, dict[str, str]] = {}  # of each book: speaker by text
    for root in roots.values():
        for pair in root.iter("speaker_to_text"):
            speakers.setdefault(root.get("title", ""), {})[pair.get("text_id", "")] = pair.get("speaker_id", "")
    books = {name: root for name, root in roots.items() if next(root.iter("speaker_to_text"), None) is None}
    if not books:
        raise SourceProblem("manga109_pages", f"{reading.tree.where}: only who speaks what, no annotations of pages")
    yield from once((p for name, root in books.items() for p in _pages(reading, name, root, speakers)), reading.note)


def _book(reading: Reading, name: str) -> Element:
    root = reading.xml(name)
    if root.tag != "book" or root.find("pages") is None:
        raise SourceProblem("manga109_shape", f"{reading.tree.show(name)}: no <book> with <pages>")
    return root


def _pages(reading: Reading, name: str, root: Element, speakers: dict[str, dict[str, str]]) -> Iterator[Page]:
    where = reading.tree.show(name)
    title = root.get("title") or stem(name)
    who = {c.get("id", ""): c.get("name", "") for c in root.iter("character")}
    of_text = speakers.get(root.get("title", ""), {})
    for page in root.iter("page"):
        index = page.get("index", "")
        at = whole_number(index)
        written = f"{title}/{index}" if at is None else f"{title}/{at:03d}.jpg"
        image = reading.images.find(written, (title, stem(name)))
        if image is None:
            if len(page):  # pages that nobody annotated are listed too, without images in some copies
                reading.without_image(written, name)
            continue
        size = declared(page.get("width"), page.get("height"))
        characters = {e.get("id", ""): who.get(e.get("character", ""), "") for e in page if e.tag in ("body", "face")}
        made = Page(
            book=title,
            name=stem(image.member),
            image=image,
            size=size,
            panels=[],
            right_to_left=True,
            double=size is not None and size[0] > size[1],
            file=name,
        )
        for element in page:
            box = _box(element)
            here = f"{where}: page {index}: {element.tag} {element.get('id', '')}"
            if element.tag == "frame" and box is None:
                reading.note("box_invalid", here)
            elif element.tag == "frame" and box is not None and made.panels is not None:
                made.panels.append(PanelBox(box))
            elif element.tag == "text" and words(element):
                speaker = characters.get(of_text.get(element.get("id", ""), ""), "")
                made.texts.append(TextBlock(words(element), box, speaker=speaker))
        yield made


def _box(element: Element) -> Box | None:
    corners = numbers(element.get(k) for k in ("xmin", "ymin", "xmax", "ymax"))
    return from_corners(*corners) if corners else None


FORMAT = Format(
    "manga109", "Manga109 XML", "an XML of <book> with <page> and <frame xmin ymin xmax ymax>", claims, read
)
