"""COCO JSON: `images`, `annotations` with `bbox` [x, y, width, height] in pixels, `categories`.

Categories are matched by name, since tools number them differently. Predictions carry `score`; a box without `bbox` is
taken from its polygons. An `image_id` that no image has, but that is a path, is read as the image's path: predictions
are often written so. Texts stand in `text`, `transcription`, `utf8_string` or `caption`, of the annotation or its
`attributes`. What `data export` adds is read: `book`, `page_type`, `right_to_left`, `double_page`, `series` and
`language` of an image, `reading_order` and `confidence` of a panel, `kind` and `speaker` of a text.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from stage3.data.importers.documents import objects
from stage3.data.importers.format import Classes, Format, Reading, classes, first_text, once, score_of
from stage3.data.importers.geometry import around, declared, no_rectangle, numbers, pairs
from stage3.data.importers.lookup import books_of
from stage3.data.importers.page import Box, Page, PanelBox, Points, TextBlock, kind_of
from stage3.data.importers.sight import Sight
from stage3.data.importers.trees import ImageRef, SourceProblem, has_image_name, natural, stem
from stage3.data.readers.boxes import four, number

TEXT_KEYS = ("text", "transcription", "utf8_string", "caption")


def claims(sight: Sight) -> bool:
    """An object of images and annotations."""
    boxes = sight.has("annotations[].bbox") or sight.has("annotations[].segmentation")
    return sight.has("images[].file_name") or (boxes and sight.has("annotations[].image_id"))


def read(reading: Reading) -> Iterator[Page]:
    """The pages of all files; an image that several files hold is taken from the first."""
    yield from once((page for name in reading.files for page in _pages(reading, name)), reading.note)


def _pages(reading: Reading, name: str) -> Iterator[Page]:
    value = reading.json(name)
    where = reading.tree.show(name)
    if not isinstance(value, dict) or not isinstance(value.get("categories"), list):
        raise SourceProblem("coco_shape", f"{where}: no list of categories, so that no box says what it is")
    names = {c["id"]: str(c["name"]) for c in objects(value["categories"]) if _is_id(c.get("id")) and "name" in c}
    kinds = classes(names.values(), reading.options, where)
    images = {i["id"]: i for i in objects(value.get("images")) if _is_id(i.get("id"))}
    found: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for annotation in objects(value.get("annotations")):
        key = annotation.get("image_id")
        if not _is_id(key):
            reading.note("annotation_without_image", f"{where}: image_id {str(key)[:80]!r}")
            continue
        found[key].append(annotation)
    for key in found.keys() - images.keys():
        if isinstance(key, str) and has_image_name(key):
            images[key] = {"file_name": key}
        else:
            reading.note("annotation_without_image", f"{where}: image_id {str(key)[:80]!r}")
    refs: list[tuple[ImageRef, Any]] = []
    for key, image in images.items():
        written = str(image.get("file_name") or image.get("coco_url") or "")
        ref = reading.images.find(written, (stem(name),))
        if ref is None:
            reading.without_image(written or f"image {key}", name)
        else:
            refs.append((ref, key))
    refs.sort(key=lambda entry: natural(entry[0].member))  # the list's order means nothing
    for (ref, key), book in zip(refs, books_of([r for r, _ in refs]), strict=True):
        page = _page(reading, where, ref, book, images[key], found[key], names, kinds)
        page.file = name
        yield page


def _is_id(value: Any) -> bool:
    return isinstance(value, int | float | str)


def _page(
    reading: Reading,
    where: str,
    ref: ImageRef,
    book: str,
    image: dict[str, Any],
    annotations: list[dict[str, Any]],
    names: dict[Any, str],
    kinds: Classes,
) -> Page:
    page = Page(
        book=str(image.get("book") or book),
        name=stem(ref.member),
        image=ref,
        size=declared(image.get("width"), image.get("height")),
        panels=[] if kinds.panels else None,
        right_to_left=image["right_to_left"] if isinstance(image.get("right_to_left"), bool) else None,
        double=True if image.get("double_page") is True else None,
        label=str(image.get("page_type") or ""),
        series=str(image.get("series") or ""),
        language=str(image.get("language") or ""),
    )
    for annotation in annotations:
        role = kinds.role(names.get(category, "") if _is_id(category := annotation.get("category_id")) else "")
        if not role or annotation.get("iscrowd") == 1:
            continue
        here = f"{where}: annotation {annotation.get('id')}"
        used, score = score_of(annotation.get("score"), reading.options.min_score, reading.note, here)
        box, polygon = _box(annotation)
        text = _text(annotation)
        if used and role == "text" and text:
            speaker = annotation.get("speaker")
            who = speaker if isinstance(speaker, str) else ""
            page.texts.append(TextBlock(text, box, kind_of(annotation.get("kind")), who))
        elif used and role == "panel" and box is None:
            reading.note("box_invalid", here)
        elif used and role == "panel" and box is not None and page.panels is not None:
            order = annotation.get("reading_order")
            sure = number(annotation.get("confidence")) if score is None else score
            page.panels.append(PanelBox(box, sure, polygon, order if isinstance(order, int) else None, text))
    return page


def _box(annotation: dict[str, Any]) -> tuple[Box | None, Points | None]:
    """The box, and the polygon where there is one that is no rectangle."""
    segmentation = annotation.get("segmentation")
    parts = (
        [pairs(numbers(part)) for part in segmentation if isinstance(part, list)]
        if isinstance(segmentation, list)
        else []
    )
    corners = tuple(point for part in parts if part for point in part)
    box = four(annotation.get("bbox"))[0] or (around(corners) if corners else None)
    return box, no_rectangle(corners) if len(parts) == 1 and corners else None


def _text(annotation: dict[str, Any]) -> str:
    attributes = annotation.get("attributes")
    within = attributes if isinstance(attributes, dict) else {}
    return first_text([*(annotation.get(k) for k in TEXT_KEYS), *(within.get(k) for k in TEXT_KEYS)])


FORMAT = Format(
    "coco", "COCO JSON", "a JSON object with images[].file_name and annotations[].bbox, or predictions so", claims, read
)
