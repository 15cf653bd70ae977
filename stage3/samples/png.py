"""A page's file: reduced to its size, lettered, and stored in few colors."""

import struct
import zlib

import numpy as np
from PIL import Image

from stage3.samples.ink import Letters, letter_page
from stage3.samples.layout import PAGE

COLORS = 36  # palette of a page's file


def encode(image: Image.Image, letters: list[Letters]) -> bytes:
    """A page's PNG: reduced to page size, lettered, and stored with as few colors as keep it small."""
    page = image.resize((round(PAGE[0]), round(PAGE[1])), Image.Resampling.NEAREST)
    letter_page(page, letters)
    return _png(_palette(page, COLORS))


def _png(page: Image.Image) -> bytes:
    """An 8-bit palette PNG without row filters: on flat colors several per cent smaller than Pillow's own."""
    width, height = page.size
    rows = np.asarray(page, dtype=np.uint8)
    raw = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()
    palette = bytes(page.getpalette() or ())[: 3 * (int(rows.max()) + 1)]
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", palette), (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b""))
    body = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def _palette(page: Image.Image, colors: int) -> Image.Image:
    """The page in the colors that leave the least to be seen: each next one is far from those chosen, and frequent."""
    counted = page.getcolors(1 << 18) or []
    counts = np.array([n for n, _ in counted], dtype=float)
    rgb = np.array([color for _, color in counted], dtype=float)
    chosen = [int(counts.argmax())]
    distance = ((rgb - rgb[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < min(colors, len(rgb)):
        best = int((counts**0.7 * distance).argmax())
        if distance[best] < 100:
            break
        chosen.append(best)
        distance = np.minimum(distance, ((rgb - rgb[best]) ** 2).sum(axis=1))
    sheet = Image.new("P", (1, 1))
    sheet.putpalette([int(channel) for k in chosen for channel in rgb[k]])
    return page.quantize(palette=sheet, dither=Image.Dither.NONE)
