"""Dumps of Magi (v1 to v3): a JSON list of pages with `panels`, `texts` and `characters`, each [x0, y0, x1, y1]s.

There are no file names: the list is matched with the images in natural order, and refused when the numbers differ.
Boxes count in pixels of the image that the model was given, which may have been resized: what reaches out of the images
is refused with `--box_size`. Numbers may be texts, as `json.dumps(…, default=str)` writes those of numpy. Of v2 and
later, `ocr` are the words of the texts, `is_essential_text` is false for sounds, and `text_character_associations` with
`character_names` tell who speaks. Read from right to left.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from stage3.data.images import ImageProblem
from stage3.data.importers.format import Format, Reading, score_of
from stage3.data.importers.geometry import from_corners, numbers
from stage3.data.importers.lookup import books_of, in_order
from stage3.data.importers.page import Box, Page, PanelBox, TextBlock
from stage3.data.importers.pixels import size_of
from stage3.data.importers.sight import Sight
from stage3.data.importers.trees import ImageRef, SourceProblem, stem

REACH = 1.05  # of the image; boxes may reach out so far before they count as pixels of another image


def claims(sight: Sight) -> bool:
    """Pages with panels and texts or characters, and no file names."""
    page = sight.has("[].panels") and (sight.has("[].texts") or sight.has("[].characters"))
    alone = sight.has("panels") and (sight.has("texts") or sight.has("characters"))
    return (page and not sight.has("[].filename")) or alone


def read(reading: Reading) -> Iterator[Page]:
    """The pages of one dump; several dumps cannot be told apart without file names."""
    if len(reading.files) > 1:
        names = ", ".join(reading.files[:6])
        raise SourceProblem(
            "magi_files",
            f"{reading.tree.where}: {len(reading.files)} dumps ({names}) name no images. Import them one by one, "
            "each with --images FOLDER.",
        )
    name = reading.files[0]
    where = reading.tree.show(name)
    value = reading.json(name)
    pages = [value] if isinstance(value, dict) else value
    if not isinstance(pages, list) or not all(isinstance(p, dict) for p in pages):
        raise SourceProblem("magi_shape", f"{where}: expected a list with one object per page")
    images = _images(reading, len(pages), where)
    if reading.options.box_size is None:
        _check_unit(reading, pages, images, where)
    for page, image, book in zip(pages, images, books_of(images), strict=True):
        made = _page(reading, page, image, book, where)
        made.file = name
        yield made


def _images(reading: Reading, wanted: int, where: str) -> list[ImageRef]:
    images = in_order(reading.images.all)
    if len(images) != wanted:
        raise SourceProblem(
            "magi_images",
            f"{where}: {wanted:,} pages, but {len(images):,} images in {reading.image_trees[0].where}. A dump "
            "names no files, so both must be the same. Name the folder of exactly these images with --images.",
        )
    return images


def _check_unit(reading: Reading, pages: list[dict[str, Any]], images: list[ImageRef], where: str) -> None:
    """Refuse boxes that count in pixels of other images than these; the unit belongs to the whole dump.

    Raises:
        SourceProblem: boxes reach out of their images; the message says how far.
    """
    outside = []
    for page, image in zip(pages, images, strict=True):
        boxes = [box for key in ("panels", "texts") for box, _ in _scored(page, key)]
        try:
            wide, high = size_of(image)
        except (ImageProblem, SourceProblem):
            continue  # counted when its turn comes
        right, low = max((b[0] + b[2] for b in boxes), default=0), max((b[1] + b[3] for b in boxes), default=0)
        if right > REACH * wide or low > REACH * high:
            outside.append(f"{image.member}: boxes reach to {right:.0f}, {low:.0f}, the image has {wide} x {high}")
    if outside:
        raise SourceProblem(
            "box_unit",
            f"{where}: on {len(outside):,} of {len(pages):,} pages boxes reach out of the image, first {outside[0]}. "
            "They were made on resized images: give their size with --box_size WIDTHxHEIGHT.",
        )


def _page(reading: Reading, value: dict[str, Any], image: ImageRef, book: str, where: str) -> Page:
    page = Page(
        book=book,
        name=stem(image.member),
        image=image,
        size=reading.options.box_size,
        squashed=reading.options.box_size is not None,
        panels=[],
        right_to_left=True,
    )
    here = f"{where}: {image.member}"
    assert page.panels is not None
    for box, score in _scored(value, "panels"):
        used, score = score_of(score, reading.options.min_score, reading.note, here)
        if used:
            page.panels.append(PanelBox(box, score))
    names = _names(value)
    essential = value.get("is_essential_text")
    essential = [str(e).strip().lower() in {"true", "1"} for e in _list(essential)]
    said = _list(value.get("ocr"))
    for k, (box, _) in enumerate(_scored(value, "texts")):
        text = " ".join(str(said[k]).split()) if k < len(said) and said[k] is not None else ""
        sound = k < len(essential) and not essential[k]
        page.texts.append(TextBlock(text, box, "sound" if sound else "dialogue", names.get(k, "")))
    return page


def _scored(value: dict[str, Any], key: str) -> list[tuple[Box, float | None]]:
    """Boxes of one kind with their scores; a box that is none keeps its place among the scores and texts."""
    rows = rows_of(value.get(key))
    scores = [v for row in rows_of(value.get(f"{key[:-1]}_scores") or value.get(f"{key}_scores")) for v in row]
    made = []
    for k, row in enumerate(rows):
        whole = row if len(row) == 4 else [0.0, 0.0, 0.0, 0.0]  # without area: dropped with a count
        made.append((from_corners(*whole), scores[k] if k < len(scores) else None))
    return made


def _names(value: dict[str, Any]) -> dict[int, str]:
    """Who speaks, by number of the text."""
    names = [str(n) for n in _list(value.get("character_names"))]
    pairs = [[int(v) for v in row] for row in rows_of(value.get("text_character_associations")) if len(row) == 2]
    return {
        text: names[who] for text, who in pairs if 0 <= who < len(names) and names[who].lower() not in {"other", "none"}
    }


def _list(value: Any) -> list[Any]:
    if isinstance(value, str):
        return re.findall(r"\b(?:True|False)\b", value)
    return value if isinstance(value, list) else []


_TYPES = re.compile(r"\b(?:dtype=)?(?:np\.|numpy\.|torch\.)?(?:float|int|uint|bfloat)\d+|device='[^']*'", re.ASCII)
_VALUE = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)


def rows_of(value: Any) -> list[list[float]]:
    r"""Rows of numbers from lists of lists, of numbers as text, or of the text of a numpy array.

    Example:
        >>> rows_of([["1.5", "np.float32(2.0)"]]), rows_of("array([0.9], dtype=float32)")
        ([[1.5, 2.0]], [[0.9]])
        >>> rows_of("[[ 1.  2.]\\n [3.e+00 4.]]")
        [[1.0, 2.0], [3.0, 4.0]]
    """
    if isinstance(value, str):
        text = _TYPES.sub("", value)
        if "..." in text:
            return []  # numpy cuts long arrays in print; what is missing is lost
        return [[float(v) for v in _VALUE.findall(row)] for row in re.findall(r"\[([^\[\]]*)\]", text)]
    if not isinstance(value, list):
        return []
    if all(not isinstance(row, list | str) for row in value):
        return [numbers(value) or []] if value else []
    rows = []
    for row in value:
        if not isinstance(row, list | str):
            rows.append(numbers([row]) or [])
            continue
        parts = _VALUE.findall(_TYPES.sub("", row)) if isinstance(row, str) else row
        cleaned = [_TYPES.sub("", v).strip("() ") if isinstance(v, str) else v for v in parts]
        rows.append(numbers(cleaned) or [])
    return rows


FORMAT = Format("magi", "a Magi dump", "a JSON list of pages with panels, texts and characters", claims, read)
