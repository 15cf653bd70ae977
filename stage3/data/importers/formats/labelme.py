"""LabelMe: one JSON per image with `shapes[].points` and `imagePath`; words stand in a shape's `description`.

`imageData`, the image as Base64, is used where the image itself does not lie below the source.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stage3.data.importers.documents import objects
from stage3.data.importers.format import Classes, Format, Reading, classes, first_text, once
from stage3.data.importers.geometry import around, declared, no_rectangle, numbers
from stage3.data.importers.lookup import books_of
from stage3.data.importers.page import Page, PanelBox, Points, TextBlock
from stage3.data.importers.sight import Sight
from stage3.data.importers.trees import Embedded, ImageRef, leaf, stem

SHAPES = ("rectangle", "polygon", "rotation")


def claims(sight: Sight) -> bool:
    """Shapes of one image."""
    return sight.has("shapes") and (sight.has("shapes[].points") or sight.has("imagePath") or sight.has("flags"))


def read(reading: Reading) -> Iterator[Page]:
    """One page per file; the names of classes are gathered from all files first."""
    values = {name: _value(reading, name) for name in reading.files}
    labels = {str(s.get("label")): None for value in values.values() for s in objects(value.get("shapes"))}
    kinds = classes(labels, reading.options, str(reading.tree.where))
    found = [(name, image) for name, value in values.items() if (image := _image(reading, name, value)) is not None]
    pages = (
        _page(reading, name, values[name], image, book, kinds)
        for (name, image), book in zip(found, books_of([image for _, image in found]), strict=True)
    )
    yield from once(pages, reading.note)


def _value(reading: Reading, name: str) -> dict[str, Any]:
    """A file without its image, of which only stays whether there is one."""
    value = reading.json(name)
    value = value if isinstance(value, dict) else {}
    return {**value, "imageData": isinstance(value.get("imageData"), str)}


def _image(reading: Reading, name: str, value: dict[str, Any]) -> ImageRef | None:
    written = str(value.get("imagePath") or f"{stem(name)}.png").replace("\\", "/")
    # imagePath is relative to the file, so among images of one name the one beside the file is meant.
    image = reading.images.find("/".join([*name.split("/")[:-1], written]))
    if image is None and value["imageData"]:
        inside = {leaf(written): lambda: str(reading.json(name)["imageData"])}
        return ImageRef(Embedded(Path(reading.tree.show(name)), inside, reading.tree.stamp(name)), leaf(written))
    if image is None:
        reading.without_image(written, name)
    return image


def _page(reading: Reading, name: str, value: dict[str, Any], image: ImageRef, book: str, kinds: Classes) -> Page:
    page = Page(
        book=book,
        name=stem(image.member),
        image=image,
        size=declared(value.get("imageWidth"), value.get("imageHeight")),
        panels=[] if kinds.panels or not kinds.texts else None,
        file=name,
    )
    for k, shape in enumerate(objects(value.get("shapes"))):
        role = kinds.role(str(shape.get("label")))
        where = f"{reading.tree.show(name)}: shapes[{k}]"
        if not role:
            continue
        if shape.get("shape_type", "polygon") not in SHAPES:
            reading.note("shape_ignored", where)
            continue
        corners = _corners(shape)
        if corners is None:
            reading.note("box_invalid", where)
            continue
        text = first_text([shape.get("description"), shape.get("text")])
        if role == "panel" and page.panels is not None:
            page.panels.append(PanelBox(around(corners), polygon=no_rectangle(corners), text=text))
        elif role == "text" and text:
            page.texts.append(TextBlock(text, around(corners)))
    return page


def _corners(shape: dict[str, Any]) -> Points | None:
    points = shape.get("points")
    rows = (
        [numbers(p) if isinstance(p, list) and len(p) == 2 else None for p in points]
        if isinstance(points, list)
        else []
    )
    made = tuple((r[0], r[1]) for r in rows if r)
    return made if len(made) == len(rows) >= 2 else None


FORMAT = Format("labelme", "LabelMe JSON", "one JSON per image with shapes[].points", claims, read)
