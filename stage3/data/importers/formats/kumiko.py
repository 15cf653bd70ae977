"""Kumiko: a JSON list of `{filename, size [w, h], numbering, panels [[x, y, w, h]]}`, in reading order.

`filename` is a file's name alone, or its path. A single panel that is as large as the page is how Kumiko says that it
found none; such a page counts as not labeled. Beyond Kumiko's own keys, `texts` are read as `data export` writes them:
one per panel.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stage3.data.importers.documents import objects
from stage3.data.importers.format import Format, Reading, first_text, once
from stage3.data.importers.geometry import declared
from stage3.data.importers.lookup import books_of
from stage3.data.importers.page import Page, PanelBox
from stage3.data.importers.sight import Sight
from stage3.data.importers.trees import SourceProblem, stem
from stage3.data.readers.boxes import four


def claims(sight: Sight) -> bool:
    """A list of pages with file names and panels."""
    return sight.has("[].filename", "[].panels")


def read(reading: Reading) -> Iterator[Page]:
    """The pages of all files."""
    yield from once((page for name in reading.files for page in _pages(reading, name)), reading.note)


def _pages(reading: Reading, name: str) -> Iterator[Page]:
    value = reading.json(name)
    where = reading.tree.show(name)
    if not isinstance(value, list):
        raise SourceProblem("kumiko_shape", f"{where}: expected a list of pages")
    found = []
    for item in objects(value):
        written = str(item.get("filename") or "")
        image = reading.images.find(written, (stem(name),))
        if image is None:
            reading.without_image(written, name)
        else:
            found.append((image, item))
    for (image, item), book in zip(found, books_of([i for i, _ in found]), strict=True):
        listed = item.get("size")
        size = declared(*listed) if isinstance(listed, list) and len(listed) == 2 else None
        page = Page(
            book=book,
            name=stem(image.member),
            image=image,
            size=size,
            panels=_panels(reading, item, f"{where}: {image.member}"),
            in_order=True,
            right_to_left={"rtl": True, "ltr": False}.get(str(item.get("numbering")).lower()),
            file=name,
        )
        if page.panels is not None and [p.box for p in page.panels] == [(0.0, 0.0, *(size or ()))]:
            reading.note("kumiko_nothing_found", f"{where}: {image.member}")
            page.panels = None
        yield page


def _panels(reading: Reading, item: dict[str, Any], where: str) -> list[PanelBox] | None:
    listed, texts = item.get("panels"), item.get("texts")
    if not isinstance(listed, list):
        return None
    panels = []
    for k, value in enumerate(listed):
        box = four(value)[0]
        if box is None:
            reading.note("box_invalid", f"{where}: panels[{k}]: {str(value)[:60]}")
            continue
        text = first_text([texts[k]]) if isinstance(texts, list) and k < len(texts) else ""
        panels.append(PanelBox(box, text=text))
    return panels


FORMAT = Format("kumiko", "Kumiko JSON", "a JSON list with filename, size and panels of each page", claims, read)
