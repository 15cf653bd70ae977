"""Learned detectors: any folder or Hugging Face id that `transformers.AutoModelForObjectDetection` loads.

No remote code, safetensors only, image processors in their Pillow version. Nothing is downloaded unless HF_HUB_OFFLINE
is 0 (`stage3.hub`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from stage3.data.detect.found import NOTHING, Found
from stage3.hub import MAX_REASON, ModelFolder

PANEL_CLASSES = ("panel", "frame", "comic panel", "manga panel")  # as models name them, in any case, "_" and "-" as " "
LEAST = 0.3  # a box of less confidence is not a panel; the usual cut of these models for boxes without a second look
SAME = 0.7  # intersection over union above which two boxes are one panel


class LearnedDetector:
    """An object detection model from a folder.

    Args:
        name: a folder or a Hugging Face id, with or without `@revision`.
        classes: names of the classes that are panels, as the model's `id2label` has them.

    Raises:
        DataError: the model is not here, does not load, or has none of these classes.
    """

    def __init__(self, name: str, classes: Sequence[str] = PANEL_CLASSES) -> None:
        from transformers import AutoModelForObjectDetection

        self.name = name
        self.here = ModelFolder("detector", name)
        self.model = self.here.load_model(AutoModelForObjectDetection)
        self.processor = self.here.load_image_processor()
        labels = {int(i): str(label) for i, label in self.model.config.id2label.items()}
        wanted = {_plain(name) for name in classes}
        self.panel_ids = sorted(i for i, label in labels.items() if _plain(label) in wanted)
        if not self.panel_ids:
            known = ", ".join(labels.values())[:MAX_REASON]
            raise self.here.refused(
                f"none of its classes ({known}) is one of {', '.join(classes)}. Name its panel classes"
            )

    @torch.inference_mode()
    def find(self, image: Image.Image) -> Found:
        """See `Detector`."""
        image = image.convert("RGB")
        with self.here.refusing("cannot be used"):
            inputs = self.processor(images=image, return_tensors="pt")
            outputs = self.model(**inputs)
            (found,) = self.processor.post_process_object_detection(
                outputs, threshold=LEAST, target_sizes=[(image.height, image.width)]
            )
        panels = torch.isin(found["labels"], torch.tensor(self.panel_ids))
        corners = found["boxes"][panels].double().numpy().clip(0, np.tile(image.size, 2))
        confidence = found["scores"][panels].double().numpy().clip(0, 1)
        boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        keep = _distinct(boxes, confidence)
        return Found(boxes[keep], confidence[keep]) if len(keep) else NOTHING


def _plain(label: str) -> str:
    return " ".join(label.lower().replace("_", " ").replace("-", " ").split())


def _distinct(boxes: NDArray[np.float64], confidence: NDArray[np.float64]) -> list[int]:
    """Indices of boxes with area of which none is nearly the same as a surer one, surest first."""
    kept: list[int] = []
    for i in np.argsort(-confidence, kind="stable"):
        if boxes[i, 2:].min() >= 1 and all(overlap(boxes[i], boxes[k]) <= SAME for k in kept):
            kept.append(int(i))
    return kept


def overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Intersection over union of two boxes (x, y, w, h)."""
    both = np.minimum(a[:2] + a[2:], b[:2] + b[2:]) - np.maximum(a[:2], b[:2])
    shared = float(np.prod(np.maximum(both, 0)))
    return shared / (float(a[2] * a[3] + b[2] * b[3]) - shared)
