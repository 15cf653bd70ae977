"""mokuro: the texts of a manga volume (`.mokuro`), which knows no panels; they are found.

`pages[]` have `img_path`, `img_width`, `img_height` and `blocks[]` with `box` [x0, y0, x1, y1] and `lines`. Read from
right to left. The images lie in a folder or a CBZ called as the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stage3.data.importers.documents import objects
from stage3.data.importers.format import Format, Reading, once
from stage3.data.importers.geometry import declared, from_corners
from stage3.data.importers.page import Page, TextBlock
from stage3.data.importers.sight import Sight
from stage3.data.importers.trees import SourceProblem, stem
from stage3.data.readers.boxes import four


def claims(sight: Sight) -> bool:
    """Pages with blocks of text, or a file that is called so."""
    named = sight.name.lower().endswith(".mokuro")
    return named or sight.has("pages[].img_path") or sight.has("pages[].img_width", "pages[].blocks")


def read(reading: Reading) -> Iterator[Page]:
    """The pages of all volumes."""
    yield from once((page for name in reading.files for page in _pages(reading, name)), reading.note)


def _pages(reading: Reading, name: str) -> Iterator[Page]:
    value = reading.json(name)
    where = reading.tree.show(name)
    if not isinstance(value, dict) or not isinstance(value.get("pages"), list):
        raise SourceProblem("mokuro_shape", f"{where}: no list of pages")
    volume = str(value.get("volume") or stem(name))
    for page in objects(value["pages"]):
        written = str(page.get("img_path") or "")
        image = reading.images.find(written, (stem(name), volume))
        if image is None:
            reading.without_image(written, name)
            continue
        yield Page(
            book=volume,
            name=stem(image.member),
            image=image,
            size=declared(page.get("img_width"), page.get("img_height")),
            texts=[_block(b) for b in objects(page.get("blocks"))],
            right_to_left=True,
            file=name,
        )


def _block(block: dict[str, Any]) -> TextBlock:
    lines = block.get("lines")
    said = [line.strip() for line in lines if isinstance(line, str)] if isinstance(lines, list) else []
    # Japanese is written without spaces, so lines of a balloon are joined without one.
    text = ("" if any(_is_cjk(c) for line in said for c in line) else " ").join(filter(None, said))
    corners = four(block.get("box"))[0]
    return TextBlock(text, from_corners(*corners) if corners else None)


def _is_cjk(char: str) -> bool:
    return "\u3040" <= char <= "\u30ff" or "\u3400" <= char <= "\u9fff"


FORMAT = Format("mokuro", "mokuro", "a .mokuro file: pages[].img_path and pages[].blocks", claims, read)
