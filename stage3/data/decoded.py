"""Decoded images: to RGB in strips, and only so many of them at a time, so that large pages need little memory."""

from __future__ import annotations

import ctypes
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from stage3.data.image_formats import ImageProblem

T = TypeVar("T")

MOST_PIXELS = 100_000_000  # of all images that are being decoded; about 7 bytes each at the most
LARGE = 20_000_000  # pixels of an image after which memory is given back at once
STRIP = 4_000_000  # pixels that are converted at a time


class Turn:
    """The right to decode one image; it ends once the image's memory is free again."""

    def __init__(self) -> None:
        self.pixels = 0

    def take(self, size: tuple[int, int]) -> None:
        """Wait until an image of this size can be decoded; once per turn."""
        assert not self.pixels
        wanted = size[0] * size[1]
        with _changed:
            _changed.wait_for(lambda: not _taken or sum(_taken.values()) + wanted <= MOST_PIXELS)
            self.pixels = _taken[self] = wanted

    def end(self) -> None:
        """Let others decode."""
        if self.pixels > LARGE:
            _give_back()
        with _changed:
            _taken.pop(self, None)
            _changed.notify_all()


def _give_back() -> None:
    """Return freed memory to the system: the C library keeps it for the thread that freed it, and others need it."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library than glibc
            ctypes.CDLL(None).malloc_trim(0)


_changed = threading.Condition()
_taken: dict[Turn, int] = {}  # images that are being decoded are few pixels in all, or one that is large


def in_turn(work: Callable[[Turn], T]) -> T:
    """Do work that decodes one image, whose intermediate images are gone before the turn ends; no turn in a turn."""
    turn = Turn()
    try:
        return work(turn)
    finally:
        turn.end()


def rgb(image: Image.Image, path: Path | str) -> Image.Image:
    """An image as RGB: transparency on white, 16-bit gray with 65535 becoming 255.

    Raises:
        ImageProblem: `mode` of a color mode that is not supported, `blank` of one that is transparent everywhere.
    """
    if image.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info:
        return _on_white(image, path)
    if image.mode.startswith("I"):
        return _from_16_bits(image, path)
    if image.mode in {"F", "LAB", "HSV"}:
        raise ImageProblem("mode", f"{path}: color mode {image.mode} is not supported")
    return image.convert("RGB") if image.mode != "RGB" else image.copy() if image.readonly else image


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """The image in parts of whole rows, each with its top row."""
    rows = max(1, STRIP // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _on_white(image: Image.Image, path: Path | str) -> Image.Image:
    whole = Image.new("RGB", image.size)
    seen = 0
    for top, part in _strips(image):
        layered = part.convert("RGBA")
        seen = max(seen, int(np.asarray(layered.getchannel("A")).max()))
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        whole.paste(Image.alpha_composite(white, layered).convert("RGB"), (0, top))
    if seen == 0:
        raise ImageProblem("blank", f"{path} is transparent everywhere")
    return whole


def _from_16_bits(image: Image.Image, path: Path | str) -> Image.Image:
    whole = Image.new("RGB", image.size)
    for top, part in _strips(image):
        values = np.asarray(part)
        if values.min() < 0 or values.max() > 65535:
            raise ImageProblem("mode", f"{path}: 32-bit gray with values up to {values.max()}")
        gray = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
        whole.paste(Image.fromarray(gray).convert("RGB"), (0, top))
    return whole


@functools.cache
def quiet_tiff() -> None:
    """Stop libtiff from writing a line to standard error for each row of a damaged TIFF; the decoder's answer counts.

    Pillow offers no way, so the library that it has loaded is asked itself. Where it is part of Pillow's own module
    (Windows, macOS) it goes on writing.
    """
    with suppress(OSError, AttributeError):
        loaded = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libtiff" in line}
        for path in loaded:
            library = ctypes.CDLL(path)
            library.TIFFSetErrorHandler(None)
            library.TIFFSetWarningHandler(None)
