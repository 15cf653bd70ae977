"""Image models from Hugging Face folders.

Shapes: n crops of one call, H and W the sides that the model takes, D size of a feature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stage3.features.backbones import VisionBackbone
from stage3.features.backbones.pretrained import Pretrained

PREPROCESSING = ("config.json", "preprocessor_config.json", "processor_config.json")
MAX_SIDE = 4096  # pixels, of what a processor may ask for
IN_FLIGHT = 2  # batches that a GPU has at once: one that it works on, and the next one on its way
WHOLE = {"do_resize": False, "do_center_crop": False, "do_pad": False}  # for a crop that is fitted already


class PretrainedVision(Pretrained, VisionBackbone):
    """An image model: its pooled output, or the mean of its last map where it has no pooling.

    Of a model with two towers (CLIP, SigLIP) it is the image's place in their joint space.

    Args:
        name: as given to `resolve_vision`.
        model_id: a folder or a Hugging Face id.
        device: where it runs.
        precision: `float32`, or `bf16` / `fp16` for autocast on a GPU.
        crop_fit: `squash` and `pad` show the model the whole crop, stretched or with borders in its mean color;
            `processor` leaves it to the model's own image processor, which often cuts to the center.
        notes: a folder that remembers which backbones were tried, such as the feature store's.
    """

    kind = "vision"

    def __init__(
        self,
        name: str,
        model_id: str,
        device: str = "cpu",
        precision: str = "float32",
        crop_fit: str = "squash",
        notes: Path | None = None,
    ) -> None:
        super().__init__(name, model_id, device, precision, notes)
        self.crop_fit = crop_fit
        projected = ["joint"] if self.joint and hasattr(self.config, "projection_dim") else []
        self.fingerprint = self._fingerprint([self.folder / file for file in PREPROCESSING], crop_fit, *projected)
        config = getattr(self.config, "vision_config", None) or self.config
        if not (hasattr(config, "num_channels") or hasattr(config, "image_size")):
            raise self.refused(f"a {getattr(config, 'model_type', 'nameless')} model is not a vision backbone")
        self.target = self._target(config)
        self.short_side = max(self.target)
        if crop_fit == "processor":
            asked = max(_sides(getattr(self.processor, "size", None)), default=self.short_side)
            self.short_side = round(asked / (getattr(self.processor, "crop_pct", None) or 1.0))
        self.in_flight = IN_FLIGHT if self.device.type == "cuda" else 0
        self.sizes = (self.probed_size(),)

    @cached_property
    def processor(self) -> Any:
        """The model's own image processor, in its Pillow version."""
        processor = self.load_image_processor()
        asked = [side for name in ("size", "crop_size") for side in _sides(getattr(processor, name, None))]
        if max(asked, default=1) > MAX_SIDE:
            raise self.refused(f"its preprocessing asks for {max(asked)} pixels, more than {MAX_SIDE}")
        return processor

    def _target(self, config: Any) -> tuple[int, int]:
        """(H, W) of what the model takes: what its processor makes of a square image."""
        stated = max(_sides(getattr(config, "image_size", None)), default=224)
        square = Image.new("RGB", (min(stated, MAX_SIDE),) * 2)
        with self.refusing("no usable image preprocessing (preprocessor_config.json)"):
            made = self._processed(square)
        if made.ndim != 3:
            raise self.refused(f"its preprocessing gives {made.ndim - 1}-dimensional patches or tiles, not one image")
        return made.shape[1], made.shape[2]

    def prepare(self, image: Image.Image) -> Any:
        """See the base class."""
        image = image.convert("RGB")
        if self.crop_fit == "processor":
            return self._processed(image)
        return self._processed(self._fitted(image), **WHOLE)

    def compact(self, image: Image.Image) -> Any:
        """See the base class: (H, W, 3) uint8 where a table turns them into what the processor gives, else its floats.

        They spare the threads that decode three quarters of the bytes and most of the time under Python's lock.
        """
        if self.crop_fit == "processor" or self._table is None:
            return self.prepare(image)
        return torch.from_numpy(np.array(self._fitted(image.convert("RGB"))))

    @cached_property
    def _table(self) -> Tensor | None:
        """(3, 256) float32: what the processor makes of each value of each color; None where it does other things.

        It is tried on an image of noise: every number must be the processor's own, to the last bit.
        """
        height, width = self.target
        if height * width < 256:
            return None
        values = np.broadcast_to((np.arange(height * width) % 256).reshape(height, width, 1), (height, width, 3))
        noise = np.random.default_rng(0).integers(0, 256, (height, width, 3))
        made = [self._processed(Image.fromarray(a.astype(np.uint8)), **WHOLE) for a in (values, noise)]
        if any(tuple(m.shape) != (3, height, width) for m in made):
            return None
        table = made[0].reshape(3, -1)[:, :256].contiguous()
        found = torch.stack([table[color][torch.from_numpy(noise[..., color])] for color in range(3)])
        return table.to(self.device) if torch.equal(found, made[1]) else None

    def _processed(self, image: Image.Image, **changes: bool) -> Tensor:
        values: Tensor = self.processor(images=image, return_tensors="pt", **changes)["pixel_values"]
        return values[0].float()

    def _fitted(self, image: Image.Image) -> Image.Image:
        """The whole crop at (H, W): stretched, or centered between borders."""
        height, width = self.target
        stated = getattr(self.processor, "resample", None)  # transformers resizes bilinearly where none is stated
        how = Image.Resampling.BILINEAR if stated is None else Image.Resampling(int(stated))
        if self.crop_fit == "squash":
            return image.resize((width, height), how)
        scale = min(width / image.width, height / image.height)
        inner = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        out = Image.new("RGB", (width, height), self.zero_color)
        out.paste(image.resize(inner, how), ((width - inner[0]) // 2, (height - inner[1]) // 2))
        return out

    @cached_property
    def zero_color(self) -> tuple[int, int, int]:
        """See the base class."""
        mean = np.asarray(getattr(self.processor, "image_mean", None) or 0.5, dtype=np.float64).ravel()
        red, green, blue = np.broadcast_to((mean * 255).round().clip(0, 255), 3).astype(int).tolist()
        return red, green, blue

    @torch.inference_mode()
    def encode_prepared(self, prepared: Sequence[Any]) -> Tensor:
        """See the base class."""
        return self._checked(self._encode(prepared)) if prepared else torch.zeros(0, *self.sizes)

    def encode_later(self, prepared: Sequence[Any]) -> Callable[[], Tensor]:
        """See the base class."""
        if self.device.type != "cuda" or not prepared:
            return super().encode_later(prepared)
        with torch.inference_mode():
            made = self._encode(prepared).float()
            host = torch.empty(made.shape, pin_memory=True).copy_(made, non_blocking=True)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record()

        def wait() -> Tensor:
            done.synchronize()
            return self._checked(host)

        return wait

    def _pixels(self, prepared: Sequence[Tensor]) -> Tensor:
        """(n, 3, H, W) float32 on the device, by memory that a GPU reads by itself."""
        shape = (len(prepared), *prepared[0].shape)
        stacked = torch.empty(shape, dtype=prepared[0].dtype, pin_memory=self.device.type == "cuda")
        pixels = torch.stack(list(prepared), out=stacked).to(self.device, non_blocking=True)
        if pixels.dtype != torch.uint8:
            return pixels
        assert self._table is not None
        n, height, width, _ = pixels.shape
        colors = [self._table[c].index_select(0, pixels[..., c].reshape(-1).int()) for c in range(3)]
        return torch.stack([values.view(n, height, width) for values in colors], dim=1)

    def in_graph(self, prepared: Sequence[Any]) -> Tensor:
        """See `Trainable`."""
        return self._encode(prepared).float()

    def _encode(self, prepared: Sequence[Tensor]) -> Tensor:
        with self._autocast():
            pixels = self._pixels(prepared)
            return self._joint_features(pixel_values=pixels) if self.joint else _pooled(self.model(pixel_values=pixels))

    def _probe(self) -> tuple[Tensor, Tensor]:
        tall, wide = Image.new("RGB", (40, 120), "white"), Image.new("RGB", (120, 40), (200, 40, 30))
        tall.paste("black", (0, 0, 20, 120))
        wide.paste((30, 60, 200), (0, 20, 120, 40))
        prepared = [self.prepare(image) for image in (tall, wide)]
        sizes = [tuple(values.shape[1:]) for values in prepared]
        if self.crop_fit == "processor" and sizes[0] != sizes[1]:
            raise self.refused(
                "its own processor gives tall and wide panels different sizes; set crop_fit to squash or pad"
            )
        if sizes != [self.target] * 2:
            raise self.refused(f"its processor gives {sizes[0]} pixels where {self.target} were asked for")
        return self._encode(prepared[:1]), self._encode(prepared)

    def _needed(self, key: str) -> bool:
        return not key.startswith(("classifier.", "mask_token", "embeddings.mask_token"))


def _pooled(out: Any) -> Tensor:
    """(n, D) from a vision model's output: its own pooling, else the mean over tokens or over the map."""
    pooled = getattr(out, "pooler_output", None)
    if isinstance(pooled, Tensor):
        return pooled.flatten(1)
    last: Tensor = out.last_hidden_state
    return last.mean(dim=1) if last.ndim == 3 else last.flatten(2).mean(dim=2)


def _sides(size: Any) -> Iterable[int]:
    """The sides in pixels in a stated size: a number, a list, or a mapping such as {"shortest_edge": 224}."""
    if isinstance(size, Mapping):
        values = [size[key] for key in size]
    elif isinstance(size, list | tuple):
        values = list(size)
    else:
        values = list(vars(size).values()) if hasattr(size, "__dict__") else [size]
    return [v for v in values if isinstance(v, int) and v > 0]
