"""Our own reader: rapidocr (PP-OCRv6 small), whose wheel holds its models, on onnxruntime. CPU alone, no network."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np
from PIL import Image

from stage3.data.ocr.lines import Box, Line, within
from stage3.errors import ConfigError

LEAST = 0.5  # lines of less confidence are not kept: textures and drawings that look like letters
PARAMS = {
    "Global.log_level": "error",
    "Global.text_score": LEAST,
    "Global.use_cls": False,  # turns lines that stand upside down; comics have next to none, and it is often wrong
    "Rec.rec_batch_num": 1,  # lines of one batch are filled up to the longest: a tenth more CPU for nothing
    "EngineConfig.onnxruntime.intra_op_num_threads": 1,  # pages are read side by side instead
    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
}


class RapidReader:
    """Lines by rapidocr. An instance must not be used by two threads at once.

    Raises:
        ConfigError: the extra `ocr` is not installed.
    """

    def __init__(self) -> None:
        missing = [name for name in ("rapidocr", "onnxruntime") if find_spec(name) is None]
        if missing:
            raise ConfigError(f'reading text needs {" and ".join(missing)}: pip install "stage3[ocr]"')
        from rapidocr import RapidOCR

        self.name = f"rapidocr {version('rapidocr')}"
        self._engine: Any = RapidOCR(params=PARAMS)

    def read(self, image: Image.Image) -> list[Line]:
        """See `TextReader`."""
        found = self._engine(_pixels(image))
        if found.boxes is None or not found.txts:
            return []
        lines = []
        for corners, text, sure in zip(found.boxes, found.txts, found.scores, strict=True):
            box, said = _around(corners, image.size), " ".join(text.split())
            if box is not None and said:
                lines.append(Line(said, box, float(sure)))
        return lines

    def find(self, image: Image.Image) -> list[Box]:
        """Where lines stand, without reading them."""
        found = self._engine(_pixels(image), use_rec=False)
        self._engine.update_params(use_rec=True)  # the call above is remembered by the engine
        made = [_around(corners, image.size) for corners in ([] if found.boxes is None else found.boxes)]
        return [box for box in made if box is not None]


def _pixels(image: Image.Image) -> Any:
    return np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1])  # the engine's order is BGR


def _around(corners: Any, size: tuple[int, int]) -> Box | None:
    """The upright box around the corners (4, 2) of a line."""
    points = np.asarray(corners, np.float64)
    (left, top), (right, low) = points.min(0).tolist(), points.max(0).tolist()
    return within(left, top, right, low, size)
