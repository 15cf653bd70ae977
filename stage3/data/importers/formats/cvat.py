"""CVAT for images 1.1: an XML of `<annotations>` with `<image name width height>`, in it `<box>` and `<polygon>`.

A box is turned by `rotation` degrees around its center. Attributes `text` (or `transcription`) and `reading_order` are
read, and an image's `<tag>` as its page type. Tracks of a video are another shape, and refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from stage3.data.importers.format import Classes, Format, Reading, classes, first_text, once
from stage3.data.importers.geometry import (
    around,
    declared,
    from_corners,
    no_rectangle,
    numbers,
    points_of,
    rotated,
    whole_number,
)
from stage3.data.importers.lookup import books_of
from stage3.data.importers.page import Page, PanelBox, Points, TextBlock, kind_of
from stage3.data.importers.sight import Sight
from stage3.data.importers.trees import ImageRef, SourceProblem, natural, stem
from stage3.data.readers.boxes import number
from stage3.data.readers.labels import VOCABULARY, normalized

TEXT_NAMES = ("text", "transcription", "caption")


def claims(sight: Sight) -> bool:
    """Annotations of images, or of a video (which reading refuses)."""
    return sight.root == "annotations" and (sight.has("image") or sight.has("track") or sight.has("meta"))


def read(reading: Reading) -> Iterator[Page]:
    """The pages of all files."""
    yield from once((page for name in reading.files for page in _pages(reading, name)), reading.note)


def _pages(reading: Reading, name: str) -> Iterator[Page]:
    root = reading.xml(name)
    where = reading.tree.show(name)
    if next(root.iter("track"), None) is not None:
        raise SourceProblem(
            "cvat_video", f'{where}: tracks of a video. Export the task as "CVAT for images 1.1" instead.'
        )
    listed = list(root.iter("image"))
    kinds = classes((s.get("label", "") for image in listed for s in image if s.tag != "tag"), reading.options, where)
    found: list[tuple[ImageRef, Element]] = []
    for image in listed:
        ref = reading.images.find(image.get("name", ""), (stem(name),))
        if ref is None:
            reading.without_image(image.get("name", ""), name)
        else:
            found.append((ref, image))
    found.sort(key=lambda entry: natural(entry[0].member))  # the order of images means nothing
    for (ref, image), book in zip(found, books_of([ref for ref, _ in found]), strict=True):
        page = Page(
            book=book,
            name=stem(ref.member),
            image=ref,
            size=declared(image.get("width"), image.get("height")),
            panels=[] if kinds.panels or not kinds.texts else None,
            label=_page_type(image),
            file=name,
        )
        for shape in image:
            _add(page, shape, kinds, reading, f"{where}: {ref.member}: {shape.tag} {shape.get('label', '')}")
        yield page


def _page_type(image: Element) -> str:
    tags = [normalized(tag.get("label", "")) for tag in image.iter("tag")]
    return next((tag for tag in tags if tag in VOCABULARY), "")


def _add(page: Page, shape: Element, kinds: Classes, reading: Reading, where: str) -> None:
    role = kinds.role(shape.get("label", ""))
    if not role or shape.tag == "tag":
        return
    if shape.tag not in ("box", "polygon"):
        reading.note("shape_ignored", where)
        return
    corners = _corners(shape)
    if corners is None:
        reading.note("box_invalid", where)
        return
    attributes = {a.get("name", "").casefold(): a.text or "" for a in shape.iter("attribute")}
    text = first_text([attributes.get(n) for n in TEXT_NAMES])
    if role == "panel" and page.panels is not None:
        page.panels.append(
            PanelBox(
                around(corners),
                number(attributes.get("confidence")),
                polygon=no_rectangle(corners),
                order=whole_number(attributes.get("reading_order", "")),
                text=text,
            )
        )
    elif role == "text" and text:
        who = attributes.get("speaker", "")
        page.texts.append(TextBlock(text, around(corners), kind_of(attributes.get("kind")), who))


def _corners(shape: Element) -> Points | None:
    if shape.tag == "polygon":
        return points_of(shape.get("points", ""))
    edges = numbers(shape.get(k) for k in ("xtl", "ytl", "xbr", "ybr"))
    if edges is None:
        return None
    box = from_corners(*edges)
    return rotated(box, number(shape.get("rotation")) or 0.0, (box[0] + box[2] / 2, box[1] + box[3] / 2))


FORMAT = Format("cvat", "CVAT for images 1.1", "an XML of <annotations> with <image> and <box>", claims, read)
