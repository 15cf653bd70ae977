"""Images of unknown origin to RGB: whole pages, panel crops, thumbnails.

Only JPEG, PNG, WEBP, AVIF, TIFF, GIF and BMP are opened, told apart by their first bytes, never by their name. Size and
shape are checked on the header before anything is decoded, and no setting of Pillow that holds for the whole process
is touched, so threads and other users of Pillow are safe. Color profiles are ignored.
"""

from __future__ import annotations

import io
import math
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image, ImageFile, PngImagePlugin, TiffImagePlugin

from stage3 import storage
from stage3.data import remote
from stage3.data.decoded import Turn, in_turn, quiet_tiff, rgb
from stage3.data.image_formats import READ, Jpeg, lean_png, sniff, unread
from stage3.data.image_formats import ImageProblem as ImageProblem
from stage3.errors import ConfigError, StorageError

MIN_SIDE = 4  # pixels; nothing below holds a panel
MAX_ASPECT = 100  # a long webtoon strip is about 70 times as high as wide
MAX_MEGAPIXELS = 100.0
CROP_LIMIT = 80_000_000  # pixels; above, Image.crop would warn of a bomb that the page's own check has let in
OVERSAMPLE = 2  # crops are decoded at no less than this many times what they will be shrunk to, for fidelity
Box = Sequence[float]  # x, y, w, h as shares of the page


# What Pillow raises on damaged files, by its own documentation and by fuzzing.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    EOFError,
    AttributeError,
    OverflowError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
_QUIET = threading.Lock()


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
            return _decoded(_opened(file, path, max_megapixels), path, turn, truncated=truncated)

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
        image = _opened(io.BytesIO(data), "the image", max_megapixels)
        if longest:
            scale = longest / max(image.size)
            _draft(image, [(0.0, 0.0, 1.0, 1.0)], max(1, int(min(image.size) * scale)))
        page = _decoded(image, "the image", turn, truncated=False)
        return _shrunk(page, longest) if longest else page

    return in_turn(decoded)


def page_size(path: Path | str, *, max_megapixels: float = MAX_MEGAPIXELS) -> tuple[int, int]:
    """(width, height) in pixels of the upright page, from the header alone.

    Raises:
        ImageProblem: the header is damaged, or names a size or format that is refused.
    """
    with open_regular(path) as file:
        image = _opened(file, path, max_megapixels)
        width, height = image.size
        return (height, width) if _orientation(image) >= 5 else (width, height)


def bytes_size(data: bytes, *, max_megapixels: float = MAX_MEGAPIXELS) -> tuple[int, int]:
    """(width, height) in pixels of an upright image, from the first bytes of its file.

    Raises:
        ImageProblem: as `page_size`, also where the header goes on behind these bytes.
    """
    image = _opened(io.BytesIO(data), "the image", max_megapixels)
    width, height = image.size
    return (height, width) if _orientation(image) >= 5 else (width, height)


def header_pixels(file: BinaryIO, path: Path | str) -> int:
    """Pixels of an open image by its header, however many; 0 where that does not read: decoding will say why."""
    file.seek(0)
    try:
        width, height = _opened(file, path, math.inf).size
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
            image = _opened(file, path, max_megapixels)
            full, scale = image.size, _draft(image, boxes, OVERSAMPLE * short_side)
            page = _decoded(image, path, turn, truncated=truncated)
            full = full[::-1] if _orientation(image) >= 5 else full
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
    width, height = image.size[::-1] if _orientation(image) >= 5 else image.size
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
            image = _opened(file, path, max_megapixels)
            width, height = image.size[::-1] if _orientation(image) >= 5 else image.size
            longest, shortest = max(w * width, h * height), min(w * width, h * height)
            _draft(image, [(x, y, w, h)], max(1, int(side * shortest / max(longest, 1.0))))
            page = _decoded(image, path, turn, truncated=False)
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


def _opened(file: BinaryIO, path: Path | str, max_megapixels: float) -> ImageFile.ImageFile:
    """The image with its header read and its size checked; nothing is decoded.

    The plugin is called directly because `Image.open` compares with a limit of the process and only warns.
    """
    head = file.read(64)
    file.seek(0)
    if not head:
        raise ImageProblem("empty", f"{path} has no bytes")
    plugin = sniff(head)
    if plugin is None:
        raise ImageProblem("format", f"{path} {unread(head)}, which is not read: convert it to {READ}")
    try:
        with _without_warnings(plugin is not Jpeg):
            image = plugin(lean_png(file) if plugin is PngImagePlugin.PngImageFile else file)
    except _BROKEN as error:
        raise ImageProblem("corrupt", f"{path}: {_reason(error)}") from None
    width, height = image.size
    if min(width, height) < MIN_SIDE:
        raise ImageProblem("too_small", f"{path} has {width} x {height} pixels")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageProblem("aspect", f"{path} has {width} x {height} pixels")
    if width * height > max_megapixels * 1e6:
        raise ImageProblem(
            "too_many_pixels",
            f"{path} has {width * height / 1e6:.0f} megapixels, more than max_megapixels {max_megapixels:g}",
        )
    return image


@contextmanager
def _without_warnings(quiet: bool) -> Iterator[None]:
    """Silence Pillow's remarks on metadata that is not used here; one thread at a time, the filter is global."""
    if not quiet:
        yield
        return
    with _QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _decoded(image: ImageFile.ImageFile, path: Path | str, turn: Turn, *, truncated: bool) -> Image.Image:
    turn.take(image.size)
    cut = False
    try:
        if not truncated:
            _check_complete(image, path)
        is_tiff = isinstance(image, TiffImagePlugin.TiffImageFile)
        if is_tiff:
            quiet_tiff()
        with _without_warnings(is_tiff):
            image.load()
    except ImageProblem:
        raise
    except _BROKEN as error:
        if not (truncated and isinstance(error, OSError) and _keep_what_was_read(image)):
            code = "truncated" if "truncated" in str(error) else "corrupt"
            raise ImageProblem(code, f"{path}: {_reason(error)}") from None
        cut = True
    animated, orientation = _animated(image), _orientation(image)
    try:
        page = _upright(rgb(image, path), orientation)
    except ImageProblem:
        raise
    except _BROKEN as error:
        raise ImageProblem("mode", f"{path}: {image.mode} cannot become RGB: {_reason(error)}") from None
    if page is not image:
        image.close()  # its pixels: the plugin is part of a cycle, which is collected at some later time
    page.info = {name: True for name, holds in (("truncated", cut), ("animated", animated)) if holds}
    return page


def _animated(image: ImageFile.ImageFile) -> bool:
    """Whether more frames or pages follow the first."""
    try:
        return bool(getattr(image, "is_animated", False))
    except _BROKEN:  # a GIF looks for its second frame only now, and there is something that is none
        return True


def _keep_what_was_read(image: ImageFile.ImageFile) -> bool:
    """After a failed load: mark the rows decoded so far as the image; whether there are any.

    Pillow has a switch for this, but for the whole process.
    """
    image.tile = []
    try:
        image.load()
    except _BROKEN:
        return False
    return image.im is not None


def _check_complete(image: ImageFile.ImageFile, path: Path | str) -> None:
    """Find a cut or changed PNG and a cut WEBP, some of which Pillow would read in silence."""
    file = image.fp
    if isinstance(image, PngImagePlugin.PngImageFile) and file is not None:
        at = file.tell()
        file.seek(8)
        kind = b""
        while kind != b"IEND":
            header = file.read(8)
            length = int.from_bytes(header[:4], "big")
            kind = header[4:]
            body = file.read(length + 4) if len(header) == 8 and length < 2**31 else b""
            if len(body) < length + 4:
                raise ImageProblem("truncated", f"{path}: the PNG ends inside a chunk")
            if zlib.crc32(body[:-4], zlib.crc32(kind)) != int.from_bytes(body[-4:], "big"):
                raise ImageProblem("corrupt", f"{path}: checksum of a PNG {kind.decode('latin-1')!r} chunk is wrong")
        file.seek(at)


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__} {str(error)[:160]}".strip()


_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TRANSPOSE[orientation]) if orientation in _TRANSPOSE else image


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8; 1 for none, nonsense or a damaged block."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return 1  # Pillow turns TIFFs itself, and gives their upright size
    data = image.info.get("exif", b"")
    if not isinstance(data, bytes):
        return 1
    data = data.removeprefix(b"Exif\0\0")
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    if data[:2] not in (b"II", b"MM"):
        return 1
    at = int.from_bytes(data[4:8], order)
    for entry in range(at + 2, at + 2 + 12 * int.from_bytes(data[at : at + 2], order), 12):
        if entry + 12 > len(data):
            return 1
        if int.from_bytes(data[entry : entry + 2], order) == 274:
            value = int.from_bytes(data[entry + 8 : entry + 10], order)
            return value if 1 <= value <= 8 else 1
    return 1


def file_digest(path: Path | str) -> str:
    """SHA-256 of a file's bytes, "" when it cannot be read."""
    try:
        if isinstance(path, str) and remote.is_url(path):
            return storage.sha256(remote.read(path))
        return storage.file_sha256(Path(path), links=True)
    except (OSError, ValueError):  # also StorageError; a NUL in the path
        return ""
