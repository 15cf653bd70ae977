"""Images of unknown origin to RGB: whole pages, panel crops, thumbnails.

Only JPEG, PNG, WEBP, AVIF, TIFF, GIF and BMP are opened, told apart by their first bytes, never by their name. Size and
shape are checked on the header before anything is decoded, and no setting of Pillow that holds for the whole process
is touched, so threads and other users of Pillow are safe. Color profiles are ignored.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image, ImageFile

from stage3 import storage
from stage3.data import opening, remote
from stage3.data.decoded import Turn, in_turn
from stage3.data.image_formats import ImageProblem as ImageProblem
from stage3.data.image_formats import Jpeg
from stage3.data.opening import MIN_SIDE as MIN_SIDE
from stage3.errors import ConfigError, StorageError

MAX_MEGAPIXELS = 100.0
CROP_LIMIT = 80_000_000  # pixels; above, Image.crop would warn of a bomb that the page's own check has let in
OVERSAMPLE = 2  # crops are decoded at no less than this many times what they will be shrunk to, for fidelity
Box = Sequence[float]  # x, y, w, h as shares of the page


def open_regular(path: Path | str) -> BinaryIO:
    """Open a regular file, or what a URL names, for reading; pipes, devices and folders are refused without blocking.

    Raises:
        ImageProblem: missing, unreadable or not a regular file.
        ConfigError: a URL whose protocol's package is not installed.
    """
    try:
        if isinstance(path, str) and remote.is_url(path):
            return io.BytesIO(remote.read(path))
        handle, _ = storage.open_regular(path, links=True)
    except StorageError:
        raise ImageProblem("not_a_file", f"{path} is not a regular file") from None
    except FileNotFoundError:
        raise ImageProblem("missing", f"{path} does not exist") from None
    except ConfigError:
        raise
    except ValueError as error:  # a NUL in the path
        raise ImageProblem("missing", f"{path!r}: {error}") from None
    except OSError as error:
        raise ImageProblem("unreadable", f"{path}: {error.strerror or error}") from None
    return os.fdopen(handle, "rb")


def open_page(path: Path | str, *, max_megapixels: float = MAX_MEGAPIXELS, truncated: bool = False) -> Image.Image:
    """Decode a whole page: upright by its EXIF orientation, RGB, transparency over white, first frame.

    Args:
        path: the file.
        max_megapixels: larger pages are refused by their header.
        truncated: read a cut file as far as it goes; the result then has `info["truncated"]`.

    Returns:
        The page; of an animation its first frame, with `info["animated"]`.

    Raises:
        ImageProblem: with a code: missing, unreadable, not_a_file, empty, format, corrupt, truncated, too_small,
            aspect, too_many_pixels, mode, blank.
    """

    def decoded(turn: Turn) -> Image.Image:
        with open_regular(path) as file:
            return opening.decoded(opening.opened(file, path, max_megapixels), path, turn, truncated=truncated)

    return in_turn(decoded)


def open_bytes(data: bytes, *, max_megapixels: float = MAX_MEGAPIXELS, longest: int = 0) -> Image.Image:
    """Decode an image that somebody handed over, under the same guards as `open_page`; messages call it "the image".

    Args:
        data: the bytes of the file.
        max_megapixels: larger images are refused by their header.
        longest: shrink the result so that its long side has at most so many pixels; 0 keeps the size.

    Raises:
        ImageProblem: as `open_page`.
    """

    def decoded(turn: Turn) -> Image.Image:
        image = opening.opened(io.BytesIO(data), "the image", max_megapixels)
        if longest:
            scale = longest / max(image.size)
            _draft(image, [(0.0, 0.0, 1.0, 1.0)], max(1, int(min(image.size) * scale)))
        page = opening.decoded(image, "the image", turn, truncated=False)
        return _shrunk(page, longest) if longest else page

    return in_turn(decoded)


def page_size(path: Path | str, *, max_megapixels: float = MAX_MEGAPIXELS) -> tuple[int, int]:
    """(width, height) in pixels of the upright page, from the header alone.

    Raises:
        ImageProblem: the header is damaged, or names a size or format that is refused.
    """
    with open_regular(path) as file:
        image = opening.opened(file, path, max_megapixels)
        width, height = image.size
        return (height, width) if opening.orientation_of(image) >= 5 else (width, height)


def bytes_size(data: bytes, *, max_megapixels: float = MAX_MEGAPIXELS) -> tuple[int, int]:
    """(width, height) in pixels of an upright image, from the first bytes of its file.

    Raises:
        ImageProblem: as `page_size`, also where the header goes on behind these bytes.
    """
    image = opening.opened(io.BytesIO(data), "the image", max_megapixels)
    width, height = image.size
    return (height, width) if opening.orientation_of(image) >= 5 else (width, height)


def header_pixels(file: BinaryIO, path: Path | str) -> int:
    """Pixels of an open image by its header, however many; 0 where that does not read: decoding will say why."""
    file.seek(0)
    try:
        width, height = opening.opened(file, path, math.inf).size
    except ImageProblem:
        return 0
    return width * height


def crop(image: Image.Image, box: Box) -> Image.Image:
    """The part of a page that a box covers, rounded to whole pixels, at least one per side."""
    return _cut(image, _pixels(box, image.size), None, Image.Resampling.NEAREST)


def _pixels(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    x, y, w, h = (float(v) for v in box)
    left, top = min(max(round(x * size[0]), 0), size[0] - 1), min(max(round(y * size[1]), 0), size[1] - 1)
    right, bottom = (
        min(max(round((x + w) * size[0]), left + 1), size[0]),
        min(max(round((y + h) * size[1]), top + 1), size[1]),
    )
    return left, top, right, bottom


def decode_panels(
    path: Path | str,
    boxes: Sequence[Box] | np.ndarray,
    *,
    short_side: int,
    size: tuple[int, int] | None = None,
    resample: Image.Resampling = Image.Resampling.BICUBIC,
    max_megapixels: float = MAX_MEGAPIXELS,
    truncated: bool = False,
) -> list[Image.Image]:
    """The panels of a page as RGB crops, decoded no finer than needed.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its size (inside the decoder, which saves most of the work) as far as
    every crop keeps at least twice `short_side` pixels on its short side; a page with a small panel is decoded in
    full. With `size` the crops are resized here, from edges that are exact within a pixel of the small page; without
    it they come as decoded, cut at whole pixels, for the caller to resize.

    Args:
        path: the page.
        boxes: (N, 4) x, y, w, h as shares of the upright page.
        short_side: pixels that each crop's short side is shrunk to in the end.
        size: (width, height) to resize every crop to.
        resample: filter of that resize.
        max_megapixels: larger pages are refused by their header.
        truncated: read a cut file as far as it goes.

    Returns:
        One crop a box; each has the page's `info`, see `open_page`.

    Raises:
        ImageProblem: as `open_page`.
    """

    def decoded(turn: Turn) -> list[Image.Image]:
        with open_regular(path) as file:
            image = opening.opened(file, path, max_megapixels)
            full, scale = image.size, _draft(image, boxes, OVERSAMPLE * short_side)
            page = opening.decoded(image, path, turn, truncated=truncated)
            full = full[::-1] if opening.orientation_of(image) >= 5 else full
        crops = [_cut(page, tuple(edge / scale for edge in _pixels(box, full)), size, resample) for box in boxes]
        page.close()
        return crops

    return in_turn(decoded)


def _cut(
    page: Image.Image, edges: tuple[float, ...], size: tuple[int, int] | None, resample: Image.Resampling
) -> Image.Image:
    """A crop between edges that may lie within a pixel, where the page was decoded at a fraction."""
    left, top, right, bottom = edges[0], edges[1], min(edges[2], page.width), min(edges[3], page.height)
    if size is not None:
        return page.resize(size, resample, (left, top, right, bottom))
    x, y = min(round(left), page.width - 1), min(round(top), page.height - 1)
    box = x, y, max(round(right), x + 1), max(round(bottom), y + 1)
    if (box[2] - x) * (box[3] - y) > CROP_LIMIT:
        return page.resize((box[2] - x, box[3] - y), Image.Resampling.NEAREST, box)
    return page.crop(box)


def _draft(image: ImageFile.ImageFile, boxes: Sequence[Box] | np.ndarray, short_side: float) -> int:
    """Let a JPEG decode at 1/2, 1/4 or 1/8 that still leaves every box `short_side` pixels; returns 2, 4, 8 or 1."""
    if not isinstance(image, Jpeg) or not len(boxes) or short_side < 1:
        return 1
    width, height = image.size[::-1] if opening.orientation_of(image) >= 5 else image.size
    smallest = min(min(float(w) * width, float(h) * height) for _, _, w, h in boxes)
    for scale in (8, 4, 2):
        if smallest / scale >= short_side and min(image.size) // scale >= MIN_SIDE:
            image.draft(None, (image.size[0] // scale, image.size[1] // scale))
            return scale
    return 1


def thumbnail(path: Path | str, box: Box | None, side: int, *, max_megapixels: float = MAX_MEGAPIXELS) -> Image.Image:
    """A page (box None) or one panel, its long side at most `side` pixels.

    Raises:
        ImageProblem: as `open_page`.
    """
    x, y, w, h = (0.0, 0.0, 1.0, 1.0) if box is None else (float(v) for v in box)

    def decoded(turn: Turn) -> Image.Image:
        with open_regular(path) as file:
            image = opening.opened(file, path, max_megapixels)
            width, height = image.size[::-1] if opening.orientation_of(image) >= 5 else image.size
            longest, shortest = max(w * width, h * height), min(w * width, h * height)
            _draft(image, [(x, y, w, h)], max(1, int(side * shortest / max(longest, 1.0))))
            page = opening.decoded(image, path, turn, truncated=False)
            part = crop(page, (x, y, w, h))
            page.close()
            return _shrunk(part, side)

    return in_turn(decoded)


def _shrunk(image: Image.Image, side: int) -> Image.Image:
    """The image with its long side at most `side` pixels."""
    scale = side / max(image.size)
    if scale >= 1:
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)


def encode(image: Image.Image, format: Literal["PNG", "JPEG", "WEBP"] = "PNG", quality: int = 85) -> bytes:
    """The bytes of an image file; `quality` (0-95) is for JPEG and WEBP."""
    buffer = io.BytesIO()
    image.save(buffer, format, **({} if format == "PNG" else {"quality": quality}))
    return buffer.getvalue()


def file_digest(path: Path | str) -> str:
    """SHA-256 of a file's bytes, "" when it cannot be read."""
    try:
        if isinstance(path, str) and remote.is_url(path):
            return storage.sha256(remote.read(path))
        return storage.file_sha256(Path(path), links=True)
    except (OSError, ValueError):  # also StorageError; a NUL in the path
        return ""
