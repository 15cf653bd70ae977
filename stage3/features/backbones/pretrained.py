"""Backbones from Hugging Face folders, through `transformers` alone: Pillow processors, safetensors, no remote code.

What both kinds share; beside this file `pretrained_vision`, `pretrained_text` and, for its folders, `sentence`.
The fingerprint is taken of the files. The first opening loads the model to try it on two inputs, and notes the size
of a feature; after that a run whose features are all stored never loads the model. Nothing is downloaded unless
HF_HUB_OFFLINE is set to 0: `os.environ` decides, and the default is offline.

Shapes: n crops or texts of one call, D size of a feature.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from stage3.errors import DataError, StorageError
from stage3.hub import ModelFolder
from stage3.storage import file_sha256, make_folder, read_json, replace_file

POOLING = "2"  # a new number for a new way of preparing or pooling
TOWERS = ("vision", "text")
OTHER = {"vision": "text", "text": "vision"}
PROJECTION = {"vision": "visual_projection", "text": "text_projection"}  # into the joint space, where there is one
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
MAX_LAYERS = 1000  # of a backbone; the deepest known have about 200
SAME = {"cpu": 1e-3, "cuda": 3e-2}  # relative distance of one input's two vectors: rounding, not chance
DIFFERENT = 1e-6  # relative distance below which two inputs are taken for one
_sizes: dict[str, int] = {}  # by fingerprint: what was probed in this process


class Pretrained(ModelFolder):
    """What both kinds share: where the files are, when the model loads, that it never learns, and its probe."""

    kind: str
    fingerprint: str
    beside: list[Path]  # what the folder holds beside the weights, as far as it is read

    def __init__(self, name: str, model_id: str, device: str, precision: str, notes: Path | None) -> None:
        self.name, self.notes = name, notes
        super().__init__("backbone", name, model_id)
        self.root = self.folder  # `folder` holds the model itself, which may lie in a folder of it
        self.device = torch.device(device)
        self.precision = precision

    def _fingerprint(self, files: Sequence[Path], *settings: str) -> str:
        """SHA-256 in hex over weights, preprocessing files as far as they exist, and settings.

        Raises:
            DataError: there are no safetensors weights.
        """
        weights = sorted(self.folder.glob("*.safetensors"))
        if not weights:
            other = [p.name for p in self.folder.glob("*.bin")]
            raise DataError(
                f"{self.folder}: no safetensors weights"
                + (f" ({other[0]} could run code and is not opened)" if other else "")
            )
        # Autocast changes the numbers a little, so it is part of what a stored vector is known by.
        autocast = [self.precision] if self.precision in AUTOCAST else []
        digest = hashlib.sha256(" ".join([self.kind, POOLING, *settings, *autocast]).encode())
        self.beside = [file for file in files if file.is_file()]
        for path in [*weights, *self.beside]:
            digest.update(f"\n{path.relative_to(self.root).as_posix()}\n".encode())
            digest.update(bytes.fromhex(file_sha256(path, links=True)))
        return digest.hexdigest()

    @abstractmethod
    def _probe(self) -> tuple[Tensor, Tensor]:
        """(1, D) of one input alone, and (2, D) of the same beside another one that is as large as inputs get."""

    @torch.inference_mode()
    def probed_size(self) -> int:
        """D, from the one guarded try at opening: the backbone works on two inputs, or it is refused.

        The model loads for it, once per fingerprint and folder of notes (without one: once per process).

        Raises:
            DataError: the model fails; one input has two vectors; two inputs have one.
        """
        note = self.notes / "probes" / f"{self.fingerprint}.json" if self.notes else None
        if self.fingerprint not in _sizes and note and (size := _noted(note)):
            _sizes[self.fingerprint] = size
        if self.fingerprint not in _sizes:
            with self.refusing("cannot be used"):
                alone, together = (features.float().cpu() for features in self._probe())
            if alone.ndim != 2 or together.shape != (2, alone.shape[1]) or not alone.shape[1]:
                raise self.refused(f"cannot be used: features of shape {tuple(together.shape)}, expected (2, D)")
            if not together.isfinite().all():
                raise self.refused("cannot be used: its features are not finite")
            largest = together.abs().max()
            if (alone[0] - together[0]).abs().max() > SAME[self.device.type] * largest:
                raise self.refused(
                    "cannot be used: one input gives two vectors, so they depend on chance or on what else is encoded"
                )
            if (together[0] - together[1]).abs().max() <= DIFFERENT * largest:
                raise self.refused("cannot be used: two different inputs give the same vector")
            _sizes[self.fingerprint] = alone.shape[1]
            if note:
                with suppress(StorageError):  # a cache that is only read: tried again next time
                    make_folder(note.parent)
                    replace_file(note, json.dumps({"size": alone.shape[1]}).encode(), durable=False)
        return _sizes[self.fingerprint]

    def _checked(self, features: Tensor) -> Tensor:
        features = features.float().cpu()
        expected = (len(features), _sizes[self.fingerprint])
        if features.shape != expected:
            raise self.refused(f"features of shape {tuple(features.shape)}, expected {expected}")
        return features

    @cached_property
    def config(self) -> Any:
        """The model's own configuration."""
        from transformers import AutoConfig

        with self.refusing("its config.json is not usable"):
            config = AutoConfig.from_pretrained(self.folder, trust_remote_code=False, local_files_only=True)
        # Sizes are compared with the weights before anything is allocated; layers are made one by one before that.
        for name, n in _whole_numbers(config.to_dict()):
            if n > MAX_LAYERS and ("layer" in name or "depth" in name):
                raise self.refused(f"its config.json is not usable: {name} is {n}, more than {MAX_LAYERS} layers")
        return config

    @cached_property
    def model(self) -> nn.Module:
        """The part of the model that is used: float32 weights, eval mode, no gradients."""
        from transformers import AutoModel

        self.config  # noqa: B018  a bad config is refused in its own words
        model, missing = self.loaded(AutoModel, "its weights do not load")
        used, prefixes = self._tower(model)
        own = ((k, p) for k in missing if (p := next(filter(k.startswith, prefixes), None)) is not None)
        absent = [k for k, prefix in own if self._needed(k.removeprefix(prefix))]
        if absent:
            raise self.refused(
                f"{len(absent)} weights are missing and would be random numbers: {', '.join(absent[:10])}"
            )
        for key, tensor in used.state_dict().items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise self.refused(f"weight {key} is not finite")
        return used.to(self.device).requires_grad_(False).eval()

    @property
    def net(self) -> nn.Module:
        """See `Trainable`."""
        return self.model

    @property
    def weights_file(self) -> str:
        """See `Trainable`."""
        return (self.folder.relative_to(self.root) / "model.safetensors").as_posix()

    def saved(self) -> dict[str, bytes]:
        """See `Trainable`: the weights that are used, and the folder's other files, unchanged."""
        weights = {name: t.detach().cpu().contiguous().clone() for name, t in self.model.state_dict().items()}
        files = {path.relative_to(self.root).as_posix(): path.read_bytes() for path in self.beside}
        return files | {self.weights_file: save_safetensors(weights, metadata={"format": "pt"})}

    @cached_property
    def joint(self) -> bool:
        """Whether the model has a tower for images and one for texts, whose features are compared with each other."""
        return all(getattr(self.config, f"{kind}_config", None) is not None for kind in TOWERS)

    def _tower(self, model: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
        """What is used of a model, and how the names of its weights begin.

        Of a model with two towers that is its own tower and the projection into the joint space; the other is dropped.
        """
        own, other = f"{self.kind}_model", f"{OTHER[self.kind]}_model"
        if not all(isinstance(getattr(model, name, None), nn.Module) for name in (own, other)):
            return model, ("",)
        setattr(model, other, nn.Identity())
        for name in (PROJECTION[OTHER[self.kind]], "logit_scale", "logit_bias"):
            if hasattr(model, name):
                delattr(model, name)
        return model, (f"{own}.", f"{PROJECTION[self.kind]}.")

    def _joint_features(self, **inputs: Tensor) -> Tensor:
        """(n, D) in the joint space of a model with two towers."""
        out = getattr(self.model, f"get_{'image' if self.kind == 'vision' else 'text'}_features")(**inputs)
        made: Tensor = out if isinstance(out, Tensor) else out.pooler_output
        return made.float()

    def _needed(self, key: str) -> bool:
        return True

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.device.type == "cuda" and self.precision in AUTOCAST:
            return torch.autocast("cuda", dtype=AUTOCAST[self.precision])
        return nullcontext()


def _noted(path: Path) -> int:
    """The size that an earlier probe noted; 0 where there is none that reads."""
    if not path.is_file():
        return 0
    try:
        size = read_json(path).get("size")
    except StorageError:
        return 0
    return size if isinstance(size, int) and size > 0 else 0


def _whole_numbers(value: Any, name: str = "") -> Iterator[tuple[str, int]]:
    """Every whole number of a configuration with the name that it stands under."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _whole_numbers(inner, str(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _whole_numbers(inner, name)
    elif isinstance(value, int):
        yield name, value
