"""ACBF: one CBZ per book, with its images and a description of frames and texts that open readers zoom along.

Texts are declared as drawn in the images (`show="false"`), so that readers do not draw them again. The format counts in
whole pixels, and knows no page type but the cover.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from stage3.data.exporters.pages import ExportedPage, ExportedPanel, Text
from stage3.data.exporters.xml import element, text
from stage3.data.images import ImageProblem, open_regular
from stage3.errors import DataError

NAMESPACE = "http://www.acbf.info/xml/acbf/1.2"
TYPES = {"dialogue": "speech", "thought": "thought", "caption": "commentary", "sound": "audio"}
EPOCH = (1980, 1, 1, 0, 0, 0)  # the same pages give the same bytes, whenever they are written


def books(pages: Sequence[ExportedPage]) -> dict[str, list[ExportedPage]]:
    """The pages of each book."""
    made: dict[str, list[ExportedPage]] = {}
    for page in pages:
        made.setdefault(page.book, []).append(page)
    return made


def archive(title: str, pages: Sequence[ExportedPage], file: io.BufferedIOBase) -> None:
    """Write the CBZ of one book.

    Raises:
        DataError: an image cannot be read.
    """
    names = list(_names(pages))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as made:
        for page, name in zip(pages, names, strict=True):
            try:
                with open_regular(page.image) as image:
                    made.writestr(zipfile.ZipInfo(name, EPOCH), image.read())
            except (ImageProblem, OSError) as error:
                raise DataError(f"{page.image}: cannot be read: {error}") from None
        made.writestr(zipfile.ZipInfo("comic.acbf", EPOCH), description(title, pages, names))


def _names(pages: Sequence[ExportedPage]) -> Iterator[str]:
    """Names of the images in the archive: their own, with their number where two would be the same."""
    leaves = [PurePosixPath(page.file_name).name for page in pages]
    for number, leaf in enumerate(leaves):
        yield leaf if leaves.count(leaf) == 1 else f"{number:04d}_{leaf}"


def description(title: str, pages: Sequence[ExportedPage], names: Sequence[str]) -> bytes:
    """The ACBF document."""
    cover = next((k for k, page in enumerate(pages) if page.label == "cover"), None)
    language = next((page.language for page in pages if page.language), "und")
    in_body = [k for k in range(len(pages)) if k != cover]
    first = cover if cover is not None else 0
    info = [
        element("author", element("nickname", "unknown"), activity="Other"),
        element("book-title", text(title)),
        element("genre", "other"),
        element("coverpage", _page(pages[first], names[first], language) if cover is not None else _image(names[0])),
        element("languages", element("text-layer", None, lang=language, show="false")),
        *(element("sequence", "", title=s) for s in dict.fromkeys(page.series for page in pages if page.series)),
        element("reading-direction", "RTL" if any(page.right_to_left for page in pages) else "LTR"),
    ]
    body = "".join(f"\n{element('page', _page(pages[k], names[k], language))}" for k in in_body)
    meta = element(
        "meta-data", element("book-info", "".join(info)) + element("publish-info", "") + element("document-info", "")
    )
    root = element("ACBF", f"\n{meta}\n{element('body', body)}\n", xmlns=NAMESPACE)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{root}\n'.encode()


def _image(name: str) -> str:
    return element("image", None, href=name)


def _page(page: ExportedPage, name: str, language: str) -> str:
    areas = [_area(t) for panel in page.panels for t in _texts(panel)] + [_area(t) for t in page.texts]
    layers = [element("text-layer", "".join(areas), lang=language)] if areas else []
    frames = [element("frame", None, points=_points(panel.polygon or _corners(panel.box))) for panel in page.panels]
    return "".join([_image(name), *layers, *frames])


def _texts(panel: ExportedPanel) -> Iterator[Text]:
    """The texts of a panel; what has no place of its own takes the panel's."""
    if panel.other_text:
        yield Text(panel.other_text, panel.box)
    yield from panel.texts


def _area(block: Text) -> str:
    paragraph = element("p", text(block.text))
    return element("text-area", paragraph, points=_points(_corners(block.box)), type=TYPES.get(block.kind, "speech"))


def _corners(box: tuple[float, float, float, float]) -> list[tuple[float, float]]:
    x, y, w, h = box
    return [(x, y), (x + w, y), (x + w, y + h), (x, y + h)]


def _points(corners: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{round(x)},{round(y)}" for x, y in corners)
