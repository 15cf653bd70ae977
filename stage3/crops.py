"""Panel crops at one size, kept on disk: for work that meets the same panels again and again.

A page's crops are one file of raw bytes, mapped into memory when asked for, so nothing is decoded a second time.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path

import numpy as np

from stage3.data import images
from stage3.errors import StorageError


class CropStore:
    """Square crops of panels as uint8, made on first use.

    A page is known by its path, size and time, so a changed image or a changed box makes new crops.
    """

    def __init__(self, folder: Path, side: int, *, max_megapixels: float = images.MAX_MEGAPIXELS) -> None:
        self.folder = folder
        self.side = side
        self.max_megapixels = max_megapixels

    def panels(self, path: Path | str, boxes: np.ndarray) -> np.ndarray:
        """(N, side, side, 3) uint8, read-only, of a page's (N, 4) boxes in shares of the page.

        Raises:
            ImageProblem: as `images.decode_panels`.
            StorageError: the store cannot be written.
        """
        shape = (len(boxes), self.side, self.side, 3)
        if not len(boxes):
            return np.zeros(shape, np.uint8)
        file = self._file(path, boxes)
        try:
            if file.stat().st_size == np.prod(shape):
                return np.memmap(file, np.uint8, "r", shape=shape)
        except FileNotFoundError:
            pass
        self._write(file, self._made(path, boxes))
        return np.memmap(file, np.uint8, "r", shape=shape)

    def _file(self, path: Path | str, boxes: np.ndarray) -> Path:
        try:
            known = os.stat(path)  # noqa: PTH116 - str or Path
        except OSError as error:
            raise images.ImageProblem("missing", f"{path}: {error.strerror or error}") from None
        text = f"{path}\0{known.st_size}\0{known.st_mtime_ns}\0{self.side}\0".encode("utf-8", "surrogatepass")
        key = hashlib.sha256(text + np.ascontiguousarray(boxes, "<f4").tobytes()).hexdigest()
        return self.folder / key[:2] / f"{key[2:34]}.u8"

    def _made(self, path: Path | str, boxes: np.ndarray) -> np.ndarray:
        size = (self.side, self.side)
        crops = images.decode_panels(path, boxes, short_side=self.side, size=size, max_megapixels=self.max_megapixels)
        return np.stack([np.asarray(c) for c in crops])

    def _write(self, file: Path, crops: np.ndarray) -> None:
        """Whole or not at all: other processes may be making the same crops."""
        work = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            work.write_bytes(crops.tobytes())
            work.replace(file)
        except OSError as error:
            work.unlink(missing_ok=True)
            if not file.exists():  # on Windows a file in use cannot be replaced, and then it is already there
                raise StorageError(f"{file}: crops cannot be written: {error.strerror or error}") from error
