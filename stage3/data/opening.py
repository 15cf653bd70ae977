"""One image file of unknown origin: its header is checked first, then its pixels are decoded; for `images`."""

from __future__ import annotations

import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

from PIL import Image, ImageFile, PngImagePlugin, TiffImagePlugin

from stage3.data.decoded import Turn, quiet_tiff, rgb
from stage3.data.image_formats import READ, ImageProblem, Jpeg, lean_png, sniff, unread

MIN_SIDE = 4  # pixels; nothing below holds a panel
MAX_ASPECT = 100  # a long webtoon strip is about 70 times as high as wide

# What Pillow raises on damaged files, by its own documentation and by fuzzing.
BROKEN = (
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


def opened(file: BinaryIO, path: Path | str, max_megapixels: float) -> ImageFile.ImageFile:
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
    except BROKEN as error:
        raise ImageProblem("corrupt", f"{path}: {reason(error)}") from None
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


def decoded(image: ImageFile.ImageFile, path: Path | str, turn: Turn, *, truncated: bool) -> Image.Image:
    """The pixels of an opened image as `images.open_page` gives them; the image itself is used up."""
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
    except BROKEN as error:
        if not (truncated and isinstance(error, OSError) and _keep_what_was_read(image)):
            code = "truncated" if "truncated" in str(error) else "corrupt"
            raise ImageProblem(code, f"{path}: {reason(error)}") from None
        cut = True
    animated, orientation = _animated(image), orientation_of(image)
    try:
        page = _upright(rgb(image, path), orientation)
    except ImageProblem:
        raise
    except BROKEN as error:
        raise ImageProblem("mode", f"{path}: {image.mode} cannot become RGB: {reason(error)}") from None
    if page is not image:
        image.close()  # its pixels: the plugin is part of a cycle, which is collected at some later time
    page.info = {name: True for name, holds in (("truncated", cut), ("animated", animated)) if holds}
    return page


def _animated(image: ImageFile.ImageFile) -> bool:
    """Whether more frames or pages follow the first."""
    try:
        return bool(getattr(image, "is_animated", False))
    except BROKEN:  # a GIF looks for its second frame only now, and there is something that is none
        return True


def _keep_what_was_read(image: ImageFile.ImageFile) -> bool:
    """After a failed load: mark the rows decoded so far as the image; whether there are any.

    Pillow has a switch for this, but for the whole process.
    """
    image.tile = []
    try:
        image.load()
    except BROKEN:
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


def reason(error: BaseException) -> str:
    """What Pillow said, in few words."""
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


def orientation_of(image: Image.Image) -> int:
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
