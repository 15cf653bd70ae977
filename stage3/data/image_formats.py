"""Which formats of images are read, told by a file's first bytes."""

from __future__ import annotations

import io
import zlib
from typing import BinaryIO

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from stage3.data import remote

READ = "JPEG, PNG, WEBP, AVIF, TIFF, GIF or BMP"
MAX_METADATA = 64 * 2**20  # bytes of a PNG's texts and profiles, decompressed; more is an attack


class ImageProblem(ValueError):
    """An image cannot be used; `code` is the reason it is counted under, `detail` says what was found."""

    def __init__(self, code: str, detail: str) -> None:
        detail = remote.redacted(detail)
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class Jpeg(JpegImagePlugin.JpegImageFile):
    """JPEG without Pillow's look at EXIF for a resolution, which warns of every damaged EXIF block."""

    def _read_dpi_from_exif(self) -> None:
        return


def sniff(head: bytes) -> type[ImageFile.ImageFile] | None:
    """The plugin that reads a file, by its first bytes; None when none does."""
    if head.startswith(b"\xff\xd8\xff"):
        return Jpeg
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImagePlugin.PngImageFile
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile
    if _brands(head) & {b"avif", b"avis"}:
        return AvifImagePlugin.AvifImageFile
    if head[:4] in (b"II*\0", b"MM\0*"):
        return TiffImagePlugin.TiffImageFile
    if head.startswith((b"GIF87a", b"GIF89a")):
        return GifImagePlugin.GifImageFile
    return BmpImagePlugin.BmpImageFile if head.startswith(b"BM") else None


def _brands(head: bytes) -> set[bytes]:
    """The brands of a file in the container that AVIF and HEIC share."""
    if head[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(head[:4], "big"), len(head))
    return {head[at : at + 4] for at in range(8, end, 4)}


_NAMES = {  # formats that are not read, by their first bytes
    b"II+\0": "BigTIFF",
    b"MM\0+": "BigTIFF",
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"8BPS": "Photoshop",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"PK\x03\x04": "a ZIP archive",
    b"Rar!": "a RAR archive",
    b"<": "text (HTML, SVG or XML)",
}


def unread(head: bytes) -> str:
    """What a file is that is not read, as far as its first bytes tell."""
    if _brands(head) & {b"heic", b"heix", b"mif1", b"msf1"}:
        return "is HEIC"
    named = next((name for start, name in _NAMES.items() if head.lstrip(b"\xef\xbb\xbf \r\n").startswith(start)), "")
    return f"is {named}" if named else f"begins {head[:8]!r}"


def lean_png(file: BinaryIO) -> BinaryIO:
    """The file itself; of a PNG with more texts or a larger color profile than Pillow reads, a copy without them.

    Nothing here needs them, and the limit on them is a setting of the whole process.

    Raises:
        ValueError: they take more than `MAX_METADATA` bytes.
    """
    at, total, largest = 8, 0, 0
    metadata: list[tuple[int, int]] = []  # where such a chunk begins and ends
    while True:
        file.seek(at)
        head = file.read(8)
        end = at + 12 + int.from_bytes(head[:4], "big")
        if len(head) < 8 or head[4:] == b"IEND":
            break
        if head[4:] in (b"tEXt", b"zTXt", b"iTXt", b"iCCP"):
            size = _inflated(head[4:], file.read(end - at - 12))
            total, largest = total + size, max(largest, size)
            metadata.append((at, end))
        at = end
        if total > MAX_METADATA:
            raise ValueError(f"more than {MAX_METADATA // 2**20} MB of texts and color profiles")
    file.seek(0)
    if largest <= PngImagePlugin.MAX_TEXT_CHUNK:
        return file
    data = file.read()
    starts, ends = [0, *(end for _, end in metadata)], [*(start for start, _ in metadata), len(data)]
    return io.BytesIO(b"".join(data[a:b] for a, b in zip(starts, ends, strict=True)))


def _inflated(kind: bytes, body: bytes) -> int:
    """Bytes that a PNG's text or profile holds, counted up to a little more than `MAX_METADATA`."""
    rest = body.partition(b"\0")[2]
    packed = rest[1:]
    if kind == b"iTXt":
        packed = rest[2:].split(b"\0", 2)[-1] if rest[:1] == b"\1" else b""
    if kind == b"tEXt" or not packed:
        return len(body)
    try:
        return len(zlib.decompressobj().decompress(packed, MAX_METADATA + 1))
    except zlib.error:
        return len(body)
