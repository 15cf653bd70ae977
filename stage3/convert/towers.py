"""A checkpoint's own backbones as Hugging Face folders: names, configurations and preprocessing.

They are the file's weights, never a published model's of that name: the running statistics of the ResNet moved in
training, and the text encoder may have been trained.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stage3.errors import ConfigError, DataError
from stage3.features.backbones.pretrained_text import TOKENIZER_FILES
from stage3.storage import make_folder, read_file, read_json, write_new

if TYPE_CHECKING:
    from torch import Tensor

IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SIDE, SMALL_SIDE = 224, 32  # pixels of a crop, where no SigLIP says: of a ResNet-50, and of a narrower one
STEM = 64  # channels of a ResNet-50's first layer
MAX_TOKENS = 128  # of a text, in the original trainer
HEADS = {"siglip": {1152: 16}, "text": {384: 12, 312: 12}}  # by width, where it is not one per 64
TOKENIZER = (*TOKENIZER_FILES, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
MAX_TOKENIZER = 64 * 2**20  # bytes of one of its files


@dataclass(frozen=True)
class Tower:
    """One backbone of a checkpoint.

    Attributes:
        kind: siglip, resnet or text.
        weights: under the names of transformers.
        names: of each, its name in the file.
        config: of transformers' model.
        size: of its feature.
        spell: the name in the file that a tensor of transformers' model would have.
    """

    kind: str
    weights: dict[str, Tensor]
    names: dict[str, str]
    config: Any
    size: int
    spell: Callable[[str], str]


def siglip(weights: Mapping[str, Tensor], prefix: str, heads: int) -> Tower:
    """The SigLIP image tower under a prefix, as transformers 4 or 5 named it. `heads` 0: what its width usually has."""
    from transformers import SiglipVisionConfig

    names = {
        name.removeprefix(prefix).removeprefix("vision_model."): name for name in weights if name.startswith(prefix)
    }
    patch = _tensor(weights, names, "embeddings.patch_embedding.weight", prefix, 4)
    places = _tensor(weights, names, "embeddings.position_embedding.weight", prefix, 2)
    inner = _tensor(weights, names, "encoder.layers.0.mlp.fc1.weight", prefix, 2)
    width, side = patch.shape[0], math.isqrt(places.shape[0])
    config = SiglipVisionConfig(
        hidden_size=width,
        intermediate_size=inner.shape[0],
        num_hidden_layers=_count(names, r"encoder\.layers\.(\d+)\."),
        num_attention_heads=_heads("siglip", width, heads),
        image_size=side * patch.shape[2],
        patch_size=patch.shape[2],
        architectures=["SiglipVisionModel"],
    )
    four = "vision_model." if any(name.startswith(f"{prefix}vision_model.") for name in names.values()) else ""
    own = {ours: weights[name] for ours, name in names.items()}
    return Tower("siglip", own, names, config, width, lambda ours: f"{prefix}{four}{ours}")


RESNET_NAMES: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (  # of timm, and of transformers
    (r"conv1\.", lambda m: "embedder.embedder.convolution."),
    (r"bn1\.", lambda m: "embedder.embedder.normalization."),
    (r"layer(\d)\.(\d+)\.conv(\d)\.", lambda m: _layer(m, f"layer.{int(m[3]) - 1}.convolution.")),
    (r"layer(\d)\.(\d+)\.bn(\d)\.", lambda m: _layer(m, f"layer.{int(m[3]) - 1}.normalization.")),
    (r"layer(\d)\.(\d+)\.downsample\.0\.", lambda m: _layer(m, "shortcut.convolution.")),
    (r"layer(\d)\.(\d+)\.downsample\.1\.", lambda m: _layer(m, "shortcut.normalization.")),
)


def _layer(match: re.Match[str], rest: str) -> str:
    return f"encoder.stages.{int(match[1]) - 1}.layers.{match[2]}.{rest}"


def resnet(weights: Mapping[str, Tensor], prefix: str) -> Tower:
    """The ResNet with bottlenecks under a prefix, as timm named it."""
    from transformers import ResNetConfig

    own = {name.removeprefix(prefix): name for name in weights if name.startswith(prefix)}
    names = {_renamed(short): name for short, name in own.items()}
    stem = _tensor(weights, own, "conv1.weight", prefix, 4)
    stages = _count(own, r"layer(\d)\.")
    config = ResNetConfig(
        embedding_size=stem.shape[0],
        hidden_sizes=[_tensor(weights, own, f"layer{n + 1}.0.conv3.weight", prefix, 4).shape[0] for n in range(stages)],
        depths=[_count(own, rf"layer{n + 1}\.(\d+)\.") for n in range(stages)],
        layer_type="bottleneck",
        architectures=["ResNetModel"],
    )
    tensors = {ours: weights[name] for ours, name in names.items()}
    return Tower("resnet", tensors, names, config, config.hidden_sizes[-1], lambda ours: prefix + _as_in_timm(ours))


def _renamed(name: str) -> str:
    for pattern, ours in RESNET_NAMES:
        if match := re.match(pattern, name):
            return ours(match) + name[match.end() :]
    return name


def _as_in_timm(ours: str) -> str:
    """The inverse of `_renamed`, for messages."""
    kinds = {"convolution": ("conv", 0), "normalization": ("bn", 1)}
    if match := re.fullmatch(r"embedder\.embedder\.(\w+)\.(\w+)", ours):
        return f"{kinds[match[1]][0]}1.{match[2]}"
    match = re.fullmatch(r"encoder\.stages\.(\d+)\.layers\.(\d+)\.(?:layer\.(\d)|shortcut)\.(\w+)\.(\w+)", ours)
    assert match, ours
    word, place = kinds[match[4]]
    inner = f"downsample.{place}" if match[3] is None else f"{word}{int(match[3]) + 1}"
    return f"layer{int(match[1]) + 1}.{match[2]}.{inner}.{match[5]}"


def text(weights: Mapping[str, Tensor], prefix: str, heads: int, tokenizer: Path) -> Tower:
    """The BERT under a prefix. `heads` 0: what the tokenizer's folder says of the same model, else what is usual."""
    from transformers import BertConfig

    names = {name.removeprefix(prefix): name for name in weights if name.startswith(prefix)}
    words = _tensor(weights, names, "embeddings.word_embeddings.weight", prefix, 2)
    places = _tensor(weights, names, "embeddings.position_embeddings.weight", prefix, 2)
    kinds = _tensor(weights, names, "embeddings.token_type_embeddings.weight", prefix, 2)
    inner = _tensor(weights, names, "encoder.layer.0.intermediate.dense.weight", prefix, 2)
    width = words.shape[1]
    config = BertConfig(
        vocab_size=words.shape[0],
        hidden_size=width,
        num_hidden_layers=_count(names, r"encoder\.layer\.(\d+)\."),
        num_attention_heads=_heads("text", width, heads or _stated_heads(tokenizer, width)),
        intermediate_size=inner.shape[0],
        max_position_embeddings=places.shape[0],
        type_vocab_size=kinds.shape[0],
        architectures=["BertModel"],
    )
    own = {ours: weights[name] for ours, name in names.items()}
    return Tower("text", own, names, config, width, lambda ours: prefix + ours)


def _tensor(weights: Mapping[str, Tensor], names: Mapping[str, str], name: str, prefix: str, ndim: int) -> Tensor:
    """One tensor that the sizes are read off; DataError where it is missing or has another number of axes."""
    if name not in names:
        raise DataError(f"{prefix}{name} is missing")
    tensor = weights[names[name]]
    if tensor.ndim != ndim or 0 in tensor.shape:
        raise DataError(f"{names[name]} has shape {tuple(tensor.shape)}; expected {ndim} axes")
    return tensor


def _count(names: Mapping[str, str], pattern: str) -> int:
    """How many different numbers the names have at the pattern's group."""
    return len({match[1] for name in names if (match := re.match(pattern, name))})


def _heads(kind: str, width: int, given: int) -> int:
    """Attention heads: as given, else as models of this width usually have, which the summary then says."""
    heads = given or HEADS[kind].get(width) or max(2, width // 64)
    if width % heads:
        which = "image_heads" if kind == "siglip" else "text_heads"
        raise ConfigError(f"{which}: a width of {width} cannot be split into {heads} attention heads. Give --{which}.")
    return heads


def _stated_heads(tokenizer: Path, width: int) -> int:
    """The heads that a config.json beside the tokenizer states for a model of this width; 0 where none does."""
    path = tokenizer / "config.json"
    values = read_json(path, limit=2**20) if path.is_file() else {}
    heads = values.get("num_attention_heads")
    return heads if values.get("hidden_size") == width and type(heads) is int and heads > 0 else 0


def problems(tower: Tower) -> list[str]:
    """In what a tower differs from transformers' model of its sizes, by the names in the file."""
    import torch
    from transformers import BertModel, ResNetModel, SiglipVisionModel

    from stage3.model.checkpoint import tensor_differences

    with torch.device("meta"):
        if tower.kind == "siglip":
            model = SiglipVisionModel(tower.config)
        elif tower.kind == "resnet":
            model = ResNetModel(tower.config)
        else:
            pooler = any(name.startswith("pooler.") for name in tower.weights)  # nothing reads it
            model = BertModel(tower.config, add_pooling_layer=pooler)
    expected = {tower.names.get(n) or tower.spell(n): t for n, t in model.state_dict().items() if not ignored(n)}
    return tensor_differences(expected, {tower.names[ours]: t for ours, t in tower.weights.items()})


def ignored(name: str) -> bool:
    """Counters that say nothing of what a model computes."""
    return name.endswith((".num_batches_tracked", ".position_ids"))


def write(tower: Tower, folder: Path, side: int, tokenizer: Path) -> None:
    """Write a tower as a Hugging Face folder.

    Args:
        tower: what.
        folder: where; must not exist.
        side: pixels of the square that crops are stretched to.
        tokenizer: folder with the tokenizer's files, for the text tower.
    """
    import torch
    from safetensors.torch import save

    make_folder(folder)
    tensors = {name: t.contiguous() for name, t in tower.weights.items()}
    for name in [name for name in tensors if name.endswith(".running_mean")]:  # a counter that transformers asks for
        tensors[name.replace("running_mean", "num_batches_tracked")] = torch.tensor(0)
    write_new(folder / "model.safetensors", save(tensors, metadata={"format": "pt"}))
    write_new(folder / "config.json", tower.config.to_json_string().encode())
    if tower.kind == "text":
        write_new(folder / "sentence_bert_config.json", json.dumps({"max_seq_length": MAX_TOKENS}).encode())
        for path in tokenizer_files(tokenizer):
            write_new(folder / path.name, read_file(path.resolve(), limit=MAX_TOKENIZER))
        return
    processor = {
        "image_processor_type": "SiglipImageProcessor",
        "do_resize": True,
        "size": {"height": side, "width": side},
        "resample": 2,  # bilinear
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": IMAGENET_MEAN,
        "image_std": IMAGENET_STD,
    }
    write_new(folder / "preprocessor_config.json", json.dumps(processor, indent=1).encode())


def side_of(images: Sequence[Tower], given: int) -> int:
    """Pixels of the square that crops are stretched to: what the SigLIP takes, else as given, else as is usual.

    Raises:
        ConfigError: another side was given than the SigLIP takes.
    """
    for tower in images:
        if tower.kind == "siglip":
            takes = int(tower.config.image_size)
            if given not in (0, takes):
                raise ConfigError(f"image_side: its SigLIP takes {takes} pixels, not {given}. Leave it out.")
            return takes
    return given or (SIDE if images[0].config.embedding_size >= STEM else SMALL_SIDE)


def tokenizer_files(folder: Path) -> list[Path]:
    """The files of a tokenizer in a folder.

    Raises:
        ConfigError: it has none.
    """
    found = [folder / name for name in TOKENIZER if (folder / name).is_file()]
    if not any(path.name in TOKENIZER_FILES for path in found):
        raise ConfigError(
            f"tokenizer: {folder} has no tokenizer.json and no vocab.txt. A checkpoint holds no words: give the folder "
            "of the text model that it was trained with, such as a copy of sentence-transformers/all-MiniLM-L6-v2."
        )
    return found
