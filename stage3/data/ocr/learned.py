"""Other writing: any folder or Hugging Face id of a `transformers` model from an image to its text.

Models such as TrOCR and manga-ocr (a vision encoder and a text decoder) read one balloon at a time. No remote code,
safetensors only, image processors in their Pillow version. Nothing is downloaded unless HF_HUB_OFFLINE is 0
(`stage3.hub`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from PIL import Image

from stage3.data.ocr.joining import balloons
from stage3.data.ocr.lines import Box, Line, within
from stage3.hub import ModelFolder

LONGEST = 200  # tokens of one balloon
AIR = 0.1  # of a balloon's shorter side; models are trained on crops with some space around the letters
AT_ONCE = 8  # balloons

Find = Callable[[Image.Image], Sequence[Box]]


class ModelReader:
    """An image-to-text model from a folder.

    Args:
        name: a folder or a Hugging Face id, with or without `@revision`.
        find: where lines of text stand on an image, in pixels.

    Raises:
        DataError: the model is not here or does not load.
    """

    def __init__(self, name: str, find: Find) -> None:
        from transformers import AutoModelForImageTextToText

        self.name = name
        self.find = find
        self.here = ModelFolder("reader", name)
        self.model = self.here.load_model(AutoModelForImageTextToText)
        self.processor = self.here.load_image_processor()
        self.tokenizer = self.here.load_tokenizer()

    def read(self, image: Image.Image) -> list[Line]:
        """See `TextReader`; each line is a balloon."""
        image = image.convert("RGB")
        boxes = balloons(self.find(image))
        lines = []
        for start in range(0, len(boxes), AT_ONCE):
            some = boxes[start : start + AT_ONCE]
            for box, (text, sure) in zip(some, self._texts([_crop(image, box) for box in some]), strict=True):
                if text:
                    lines.append(Line(text, box, sure))
        return lines

    @torch.inference_mode()
    def _texts(self, crops: Sequence[Image.Image]) -> list[tuple[str, float]]:
        """Text and confidence of each crop: the mean probability of its tokens, as a geometric mean."""
        with self.here.refusing("cannot be used"):
            pixels = self.processor(images=list(crops), return_tensors="pt")["pixel_values"]
            made = self.model.generate(
                pixels,
                max_new_tokens=LONGEST,
                num_beams=1,
                do_sample=False,
                output_scores=True,
                return_dict_in_generate=True,
            )
            logs = self.model.compute_transition_scores(made.sequences, made.scores, normalize_logits=True)
            new = made.sequences[:, -logs.shape[1] :]
            texts = self.tokenizer.batch_decode(new, skip_special_tokens=True)
            ends = torch.isin(new, torch.tensor(self._ends()))
        result = []
        for text, row, ended in zip(texts, logs, ends, strict=True):
            tokens = int(ended.int().argmax()) + 1 if bool(ended.any()) else len(row)  # what follows the end is padding
            result.append((" ".join(text.split()), math.exp(float(row[:tokens].double().mean()))))
        return result

    def _ends(self) -> list[int]:
        """Tokens that end a text."""
        known = self.model.generation_config.eos_token_id
        return [] if known is None else [known] if isinstance(known, int) else list(known)


def _crop(image: Image.Image, box: Box) -> Image.Image:
    """A balloon with some air around it."""
    air = AIR * min(box[2:])
    wider = within(box[0] - air, box[1] - air, box[0] + box[2] + air, box[1] + box[3] + air, image.size)
    assert wider is not None  # the box itself lies inside
    x, y, w, h = wider
    return image.crop((math.floor(x), math.floor(y), math.ceil(x + w), math.ceil(y + h)))
