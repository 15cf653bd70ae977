"""Images of a source: their size, or their pixels, from a file or from an archive, under the same guards."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from PIL import Image

from stage3.data import image_formats, images
from stage3.data.importers.page import Page
from stage3.data.importers.trees import HEAD, ImageRef, SourceProblem

SUFFIXES = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "AVIF": ".avif",
    "TIFF": ".tif",
    "GIF": ".gif",
    "BMP": ".bmp",
}


def decoded(image: ImageRef, data: bytes | None = None) -> Image.Image:
    """The whole image, upright and RGB; see `stage3.data.images.open_page`.

    Args:
        image: where it is.
        data: its bytes, where they were read already.

    Raises:
        ImageProblem: it cannot be used.
        SourceProblem: it cannot be read.
    """
    path = image.tree.file(image.member)
    if data is None and path is not None:
        return images.open_page(path)
    return images.open_bytes(image.tree.read(image.member) if data is None else data)


def size_of(image: ImageRef) -> tuple[int, int]:
    """(width, height) of the upright image, from its header.

    Raises:
        ImageProblem: it cannot be used.
        SourceProblem: it cannot be read.
    """
    path = image.tree.file(image.member)
    if path is not None:
        return images.page_size(path)
    try:
        return images.bytes_size(image.tree.head(image.member))
    except images.ImageProblem:  # a header behind much else, such as a color profile
        return images.bytes_size(image.tree.read(image.member))


DOUBLE = 1.7  # times as wide for its height as the pages around it: two pages in one image
AROUND = 4  # pages; fewer say nothing about what is usual in a book


def mark_double_pages(pages: Sequence[Page]) -> None:
    """Say of each page whether it is a double page, where nobody has: by its shape beside the others of the book."""
    books: dict[str, list[tuple[Page, float]]] = defaultdict(list)
    for page in pages:
        if page.double is None:
            try:
                wide, high = size_of(page.image)
            except (images.ImageProblem, SourceProblem):
                continue  # counted when its turn comes
            books[page.book].append((page, wide / high))
    for shapes in books.values():
        usual = median(shape for _, shape in shapes)
        if len(shapes) >= AROUND and usual < 1:
            for page, shape in shapes:
                page.double = shape >= DOUBLE * usual or None


def suffix_of(data: bytes) -> str:
    """The extension that an image's bytes ask for, "" when they are none that is read."""
    plugin = image_formats.sniff(data[:HEAD])
    return "" if plugin is None else SUFFIXES[plugin.format or ""]
