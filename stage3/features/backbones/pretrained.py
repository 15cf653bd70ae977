"""Backbones from Hugging Face folders, through `transformers` alone: Pillow processors, safetensors, no remote code.

The fingerprint is taken of the files, so that a run whose features are all stored never loads the model. Nothing is
downloaded unless HF_HUB_OFFLINE is set to 0: `os.environ` decides, and the default is offline.

Shapes: n crops or texts of one call, L tokens of the longest, D size of a feature.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by huggingface_hub when it is first imported

import torch
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from PIL import Image
from torch import Tensor, nn

from stage3.errors import DataError
from stage3.features.backbones import TextBackbone, VisionBackbone
from stage3.storage import file_sha256, sha256

FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model")
PREPROCESSING = {  # files besides the weights that change what comes out
    "vision": ("config.json", "preprocessor_config.json", "processor_config.json"),
    "text": (
        "config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt",
        "special_tokens_map.json", "added_tokens.json", "sentencepiece.bpe.model", "spiece.model", "tokenizer.model",
        "sentence_bert_config.json",
    ),
}  # fmt: skip
POOLING = "1"  # a new number for a new way of pooling
UNUSED = ("pooler.", "lm_head.", "classifier.", "cls.")  # of a text model: mean pooling reads none of these
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
MAX_LAYERS = 1000  # of a backbone; the deepest known have about 200
LONGEST = 512  # tokens, for tokenizers that state no limit


def local_folder(name: str, model_id: str) -> Path:
    """The folder with a model's files: a folder as given, or the local cache's snapshot of a Hugging Face id.

    Raises:
        DataError: the model is not on this machine; says how to get it.
    """
    if Path(model_id).is_dir():
        return Path(model_id)
    repo, _, revision = model_id.partition("@")
    try:
        found = snapshot_download(
            repo, revision=revision or None, allow_patterns=list(FILES), local_files_only=constants.HF_HUB_OFFLINE
        )
    except HFValidationError as error:
        raise DataError(f"backbone {name!r}: {' '.join(str(error).split())}") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        why = (
            "is not on this machine"
            if constants.HF_HUB_OFFLINE
            else f"could not be downloaded ({type(error).__name__})"
        )
        at = f" --revision {revision}" if revision else ""
        raise DataError(
            f"backbone {name!r}: {repo} {why}. Run `hf download {repo}{at}` on a machine with a network and copy "
            "the folder here, set HF_HUB_OFFLINE=0 to let this program download it, or give the path of a local folder"
        ) from None
    return Path(found)


def fingerprint(folder: Path, kind: str) -> str:
    """SHA-256 in hex over the weights and the preprocessing files of a model.

    Raises:
        DataError: there are no safetensors weights, or no config.json.
    """
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        other = [p.name for p in folder.glob("*.bin")]
        raise DataError(
            f"{folder}: no safetensors weights" + (f" ({other[0]} could run code and is not opened)" if other else "")
        )
    digest = hashlib.sha256(f"{kind} {POOLING}".encode())
    for path in [*weights, *(folder / name for name in PREPROCESSING[kind] if (folder / name).is_file())]:
        digest.update(f"\n{path.name}\n".encode())
        digest.update(bytes.fromhex(file_sha256(path, links=True)))
    return digest.hexdigest()


class _Pretrained:
    """What both kinds share: where the files are, when the model loads, and that it never learns."""

    kind: str

    def __init__(self, name: str, model_id: str, device: str, precision: str) -> None:
        self.name = name
        self.folder = local_folder(name, model_id)
        self.device = torch.device(device)
        self.precision = precision
        digest = fingerprint(self.folder, self.kind)
        # Autocast changes the numbers a little, so it is part of what a stored vector is known by.
        self.fingerprint = sha256(f"{digest} {precision}".encode()) if precision in AUTOCAST else digest

    def _refuse(self, problem: object) -> DataError:
        return DataError(f"backbone {self.name!r} ({self.folder}): {' '.join(str(problem).split())}")

    @cached_property
    def config(self) -> Any:
        """The model's own configuration."""
        from transformers import AutoConfig

        try:
            config = AutoConfig.from_pretrained(self.folder, trust_remote_code=False, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._refuse(f"its config.json is not usable: {error}") from None
        # Sizes are compared with the weights before anything is allocated; layers are made one by one before that.
        for name, n in _whole_numbers(config.to_dict()):
            if n > MAX_LAYERS and ("layer" in name or "depth" in name):
                raise self._refuse(f"its config.json is not usable: {name} is {n}, more than {MAX_LAYERS} layers")
        return config

    @cached_property
    def model(self) -> nn.Module:
        """The part of the model that is used: float32 weights, eval mode, no gradients."""
        from transformers import AutoModel

        self.config  # noqa: B018  a bad config is refused in its own words
        try:
            model, loading = AutoModel.from_pretrained(
                self.folder,
                trust_remote_code=False,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise self._refuse(f"its weights do not load: {error}") from None
        used, prefix = self._tower(model)
        absent = [k for k in loading["missing_keys"] if k.startswith(prefix) and self._needed(k[len(prefix) :])]
        if absent:
            raise self._refuse(
                f"{len(absent)} weights are missing and would be random numbers: {', '.join(sorted(absent)[:10])}"
            )
        for key, tensor in used.state_dict().items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise self._refuse(f"weight {key} is not finite")
        return used.to(self.device).requires_grad_(False).eval()

    def _tower(self, model: nn.Module) -> tuple[nn.Module, str]:
        """The encoder of this kind inside an image-and-text model, or the whole model."""
        inner = getattr(model, f"{self.kind}_model", None)
        both = isinstance(getattr(model, "vision_model", None), nn.Module) and isinstance(
            getattr(model, "text_model", None), nn.Module
        )
        return (inner, f"{self.kind}_model.") if both and inner is not None else (model, "")

    def _needed(self, key: str) -> bool:
        return True

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.device.type == "cuda" and self.precision in AUTOCAST:
            return torch.autocast("cuda", dtype=AUTOCAST[self.precision])
        return nullcontext()


class PretrainedVision(_Pretrained, VisionBackbone):
    """A vision model: the pooled output of its vision tower, or the mean of its last map where it has no pooling."""

    kind = "vision"

    def __init__(self, name: str, model_id: str, device: str = "cpu", precision: str = "float32") -> None:
        super().__init__(name, model_id, device, precision)
        config = getattr(self.config, "vision_config", None) or self.config
        size = (getattr(config, "hidden_sizes", None) or [getattr(config, "hidden_size", 0)])[-1]
        if not size or not (hasattr(config, "num_channels") or hasattr(config, "image_size")):
            raise self._refuse(f"a {getattr(config, 'model_type', 'nameless')} model is not a vision backbone")
        self.sizes = (int(size),)
        side = max(_numbers(getattr(self.processor, "size", None)), default=224)
        self.short_side = round(side / (getattr(self.processor, "crop_pct", None) or 1.0))

    @cached_property
    def processor(self) -> Any:
        """The model's own image processor, in its Pillow version."""
        from transformers import AutoImageProcessor

        try:
            processor = AutoImageProcessor.from_pretrained(
                self.folder, backend="pil", trust_remote_code=False, local_files_only=True
            )
        except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
            raise self._refuse(f"no usable image preprocessing (preprocessor_config.json): {error}") from None
        if getattr(processor, "backend", "pil") != "pil":
            raise self._refuse(f"{type(processor).__name__} has no Pillow version")
        return processor

    def prepare(self, image: Image.Image) -> Any:
        """See the base class."""
        values = self.processor(images=image.convert("RGB"), return_tensors="pt")["pixel_values"]
        return values[0].float()

    @torch.inference_mode()
    def encode_prepared(self, prepared: Sequence[Any]) -> Tensor:
        """See the base class."""
        if not prepared:
            return torch.zeros(0, *self.sizes)
        with self._autocast():
            out = self.model(pixel_values=torch.stack(list(prepared)).to(self.device))
        return _checked(self, _pooled(out), self.sizes[0])

    def _needed(self, key: str) -> bool:
        return not key.startswith(("classifier.", "mask_token", "embeddings.mask_token"))


def _pooled(out: Any) -> Tensor:
    """(n, D) from a vision model's output: its own pooling, else the mean over tokens or over the map."""
    pooled = getattr(out, "pooler_output", None)
    if isinstance(pooled, Tensor):
        return pooled.flatten(1)
    last: Tensor = out.last_hidden_state
    return last.mean(dim=1) if last.ndim == 3 else last.flatten(2).mean(dim=2)


class PretrainedText(_Pretrained, TextBackbone):
    """A BERT-like text model: the mean of its last hidden states over the tokens that exist."""

    kind = "text"

    def __init__(self, name: str, model_id: str, device: str = "cpu", precision: str = "float32") -> None:
        super().__init__(name, model_id, device, precision)
        config = getattr(self.config, "text_config", None) or self.config
        self.size = int(getattr(config, "hidden_size", 0) or getattr(config, "dim", 0))
        if not self.size or not hasattr(config, "vocab_size"):
            raise self._refuse(f"a {getattr(config, 'model_type', 'nameless')} model is not a text backbone")
        limits = [getattr(config, "max_position_embeddings", 0) - _position_offset(config)]
        limits.append(self._stated_limit())
        limits.append(int(min(self.tokenizer.model_max_length, 10**9)))
        self.max_tokens = min([n for n in limits if 0 < n < 10**6], default=LONGEST)

    def _stated_limit(self) -> int:
        """The longest text in tokens that sentence-transformers' own file states, 0 when it states none."""
        path = self.folder / "sentence_bert_config.json"
        if not path.is_file():
            return 0
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise self._refuse(f"{path.name} does not read: {error}") from None
        limit = values.get("max_seq_length") if isinstance(values, dict) else None
        return limit if isinstance(limit, int) else 0

    @cached_property
    def tokenizer(self) -> Any:
        """The model's own tokenizer."""
        from transformers import AutoTokenizer

        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        try:
            return AutoTokenizer.from_pretrained(self.folder, trust_remote_code=False, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
            raise self._refuse(f"its tokenizer does not load: {error}") from None

    @torch.inference_mode()
    def encode_counted(self, texts: Sequence[str]) -> tuple[Tensor, list[bool]]:
        """See the base class."""
        if not texts:
            return torch.zeros(0, self.size), []
        special = self.tokenizer.num_special_tokens_to_add()
        plain = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        cut = [len(ids) + special > self.max_tokens for ids in plain]
        tokens = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        ).to(self.device)
        with self._autocast():
            hidden = self.model(**tokens).last_hidden_state.float()
        mask = tokens["attention_mask"][..., None].float()  # (n, L, 1)
        mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
        return _checked(self, mean, self.size), cut

    def _needed(self, key: str) -> bool:
        return not key.startswith(UNUSED)


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


def _position_offset(config: Any) -> int:
    """Positions that RoBERTa-like models keep for padding."""
    return (
        2 if "roberta" in str(getattr(config, "model_type", "")) or getattr(config, "model_type", "") == "mpnet" else 0
    )


def _numbers(size: Any) -> Iterable[int]:
    """The sizes in a processor's `size`: a number, or a mapping such as {"shortest_edge": 224}."""
    values = (
        [size[key] for key in size]
        if isinstance(size, Mapping)
        else vars(size).values()
        if hasattr(size, "__dict__")
        else [size]
    )
    return [v for v in values if isinstance(v, int)]


def _checked(backbone: _Pretrained, features: Tensor, size: int) -> Tensor:
    features = features.float().cpu()
    if features.ndim != 2 or features.shape[1] != size:
        raise DataError(f"backbone {backbone.name!r}: features of shape {tuple(features.shape)}, expected (n, {size})")
    return features
