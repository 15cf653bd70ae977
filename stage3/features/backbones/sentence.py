"""What a sentence-transformers folder says beyond its transformer: pooling, dense layers, window, lower case.

Such a folder lists its modules in `modules.json`; where that file is missing, the numbered folders (`1_Pooling`,
`2_Dense`, `3_Normalize`) say the same. A plain Hugging Face folder has neither: the mean over its tokens, as before.

Shapes: n texts, L tokens of the longest, D size of a token's hidden state.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from stage3.errors import DataError

POOLINGS = ("cls", "max", "mean", "mean_sqrt")  # in the order in which several of them are put side by side
FLAGS = {  # of 1_Pooling/config.json
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
NEWER_NAMES = {"mean_sqrt_len_tokens": "mean_sqrt"}  # of `pooling_mode`, which newer versions write instead of flags
NUMBERED = re.compile(r"(\d+)_([A-Z]\w*)")
ACTIVATIONS = {"Identity": nn.Identity, "Tanh": nn.Tanh, "ReLU": nn.ReLU, "GELU": nn.GELU, "Sigmoid": nn.Sigmoid}


@dataclass(frozen=True)
class SentenceModules:
    """A text model's modules.

    Attributes:
        transformer: the folder of the Hugging Face model itself.
        pooling: some of `POOLINGS`.
        after: (`Dense` or `Normalize`, its folder), in order.
        max_tokens: stated longest text, 0 where none is stated.
        lower_case: texts become lower case before they are tokenized.
        files: everything read here, for the fingerprint.
    """

    transformer: Path
    pooling: tuple[str, ...] = ("mean",)
    after: tuple[tuple[str, Path], ...] = ()
    max_tokens: int = 0
    lower_case: bool = False
    files: tuple[Path, ...] = ()

    def layers(self) -> nn.ModuleList:
        """What follows the pooling, weights loaded."""
        return nn.ModuleList(_dense(path) if kind == "Dense" else _Normalize() for kind, path in self.after)


class _Normalize(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1)


def read(folder: Path) -> SentenceModules:
    """The modules of a folder.

    Raises:
        DataError: a file does not read, is missing, or names a module that is not supported.
    """
    listed = [(kind, path) for kind, path in _listed(folder) if kind != "Dropout"]
    first = listed[0][1] if listed and listed[0][0] == "Transformer" else folder
    rest = [(kind, path) for kind, path in listed if kind != "Transformer"]
    pooling = _pooling(rest[0][1]) if rest and rest[0][0] == "Pooling" else ("mean",)
    after = rest[1:] if rest and rest[0][0] == "Pooling" else rest
    for kind, path in after:
        if kind not in ("Dense", "Normalize"):
            raise DataError(f"{folder}: the sentence-transformers module {kind!r} ({path.name}) is not supported")
    _refuse_prompt(folder)
    limit, lower = _stated(first)
    files = [folder / "modules.json", *first.glob("sentence_*_config.json")]
    files += [path / name for _, path in rest for name in ("config.json", "model.safetensors")]
    return SentenceModules(first, pooling, tuple(after), limit, lower, tuple(f for f in sorted(files) if f.is_file()))


def pooled(hidden: Tensor, mask: Tensor, pooling: Sequence[str]) -> Tensor:
    """(n, D · number of poolings) from hidden states, over the tokens that exist.

    Args:
        hidden: (n, L, D).
        mask: (n, L), 1 for tokens and 0 for padding.
        pooling: some of `POOLINGS`.
    """
    there = mask[..., None].to(hidden.dtype)
    total, count = (hidden * there).sum(dim=1), there.sum(dim=1).clamp(min=1)
    ways = {
        "cls": lambda: hidden[torch.arange(len(hidden)), mask.argmax(dim=1)],  # the first token, wherever padding is
        "max": lambda: hidden.masked_fill(there == 0, torch.finfo(hidden.dtype).min).amax(dim=1),
        "mean": lambda: total / count,
        "mean_sqrt": lambda: total / count.sqrt(),
    }
    return torch.cat([ways[way]() for way in pooling], dim=1)


def _listed(folder: Path) -> list[tuple[str, Path]]:
    """(kind, folder) of each module in order, from `modules.json` or the numbered folders; empty for a plain model."""
    path = folder / "modules.json"
    if not path.is_file():
        numbered = [(found, p) for p in folder.iterdir() if (found := NUMBERED.fullmatch(p.name)) and p.is_dir()]
        return [(found[2], p) for found, p in sorted(numbered, key=lambda pair: int(pair[0][1]))]
    entries = _json(path)
    if not isinstance(entries, list) or not all(isinstance(e, dict) and {"type", "path"} <= e.keys() for e in entries):
        raise DataError(f"{path} is not a list of modules with type and path")
    if not entries or str(entries[0]["type"]).rpartition(".")[2] != "Transformer":
        raise DataError(f"{path}: the first module is not a Transformer, so this is not a text backbone")
    return [(str(e["type"]).rpartition(".")[2], folder / _inside(path, str(e["path"]))) for e in entries]


def _inside(path: Path, name: str) -> PurePosixPath:
    """A module's folder, which may not lead out of the model's."""
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or "\\" in name or ":" in name:
        raise DataError(f"{path}: the module path {name!r} leads out of the folder")
    return relative


def _pooling(folder: Path) -> tuple[str, ...]:
    path = folder / "config.json"
    values = _object(path)
    ways = [way for flag, way in FLAGS.items() if values.get(flag) is True]
    newer = values.get("pooling_mode")
    if newer is not None and not ways:
        ways = [NEWER_NAMES.get(str(way), str(way)) for way in (newer if isinstance(newer, list) else [newer])]
    unknown = [way for way in ways if way not in POOLINGS]
    if unknown or not ways:
        raise DataError(
            f"{path}: pooling {unknown[0] if unknown else 'none'!r} is not supported; known: {', '.join(POOLINGS)}"
        )
    return tuple(way for way in POOLINGS if way in ways)


def _dense(folder: Path) -> nn.Sequential:
    """A dense layer with its activation; its size is that of its weights."""
    values, weights = _object(folder / "config.json"), folder / "model.safetensors"
    name = str(values.get("activation_function")).rpartition(".")[2]
    if name not in ACTIVATIONS:
        raise DataError(f"{folder}: activation {name!r} is not supported; known: {', '.join(ACTIVATIONS)}")
    for key in ("module_input_name", "module_output_name"):
        if values.get(key) not in (None, "sentence_embedding"):
            raise DataError(f"{folder}: {key} {values[key]!r} is not supported: only the pooled vector is")
    if not weights.is_file():
        raise DataError(f"{folder}: no safetensors weights")
    tensors = load_file(weights)
    if "linear.weight" not in tensors or tensors.keys() - {"linear.weight", "linear.bias"}:
        raise DataError(f"{weights}: expected linear.weight and linear.bias, found {', '.join(sorted(tensors))}")
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise DataError(f"{weights}: weights are not finite")
    outside, inside = tensors["linear.weight"].shape
    linear = nn.Linear(inside, outside, bias="linear.bias" in tensors)
    linear.load_state_dict({key.removeprefix("linear."): tensor.float() for key, tensor in tensors.items()})
    return nn.Sequential(linear, ACTIVATIONS[name]())


def _stated(folder: Path) -> tuple[int, bool]:
    """The longest text in tokens (0: not stated) and whether texts become lower case, from sentence_*_config.json."""
    for path in sorted(folder.glob("sentence_*_config.json")):
        values = _json(path)
        values = values if isinstance(values, dict) else {}
        limit, lower = values.get("max_seq_length"), values.get("do_lower_case")
        return (limit if isinstance(limit, int) and limit > 0 else 0), lower is True
    return 0, False


def _refuse_prompt(folder: Path) -> None:
    path = folder / "config_sentence_transformers.json"
    values = _object(path) if path.is_file() else {}
    name, prompts = values.get("default_prompt_name"), values.get("prompts")
    if name and isinstance(prompts, dict) and prompts.get(name):
        raise DataError(f"{path}: a prompt before every text ({name!r}) is not supported; use a model without one")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path.parent}: {path.name} does not read: {error}") from None


def _object(path: Path) -> dict[str, Any]:
    values = _json(path)
    if not isinstance(values, dict):
        raise DataError(f"{path}: expected a JSON object, found a {type(values).__name__}")
    return values
