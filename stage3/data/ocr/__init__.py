"""Text of pages that come without a transcript.

`load_reader("ocr")` is rapidocr, whose models lie in its wheel (the extra `ocr`); any other name is a folder or Hugging
Face id of a `transformers` model from image to text, which reads what rapidocr finds. Both have one method,
`read(image) -> list[Line]`. `blocks` makes balloons of lines.
"""

from __future__ import annotations

from stage3.data.ocr.joining import Block, blocks, column_layout
from stage3.data.ocr.lines import Line, TextReader

OCR = "ocr"

__all__ = ["OCR", "Block", "Line", "TextReader", "blocks", "column_layout", "load_reader"]


def load_reader(name: str = OCR) -> TextReader:
    """A reader of text by its name.

    Args:
        name: "ocr", or a folder or Hugging Face id (with or without `@revision`) of a model that
            `transformers.AutoModelForImageTextToText` loads.

    Raises:
        ConfigError: the extra `ocr` is not installed.
        DataError: the model is not on this machine, or does not load.
    """
    from stage3.data.ocr.rapid import RapidReader

    rapid = RapidReader()
    if name == OCR:
        return rapid
    from stage3.data.ocr.learned import ModelReader  # torch is slow to import

    return ModelReader(name, rapid.find)
