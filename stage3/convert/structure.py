"""What a checkpoint of the original trainer holds, told from the names and shapes of its tensors alone.

D embedding size, H width of the fusion's gate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stage3.convert import towers
from stage3.convert.towers import Tower
from stage3.errors import DataError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from stage3.model import EncoderSpec

LAYOUT_LAYERS = ((0, 1), (4, 5), (8, None))  # of comp.mlp: each linear layer, and the batch norm behind it
BATCH_NORM_EPS = 1e-5
ADAPTER = {0: 0, 1: 1, 4: 3, 5: 4}  # layers of an adapter: in the file, and here, where there is no dropout
NORMS = ("vision", "text", "comp")


@dataclass(frozen=True)
class Earlier:
    """A checkpoint, sorted.

    Attributes:
        spec: of the encoder.
        images: its image backbones.
        text: its text backbone.
        learned: the state dict of `EarlierEncoder`, but for the constants of absent modalities.
        indicators: whether its gate reads which modalities are present.
    """

    spec: EncoderSpec
    images: tuple[Tower, ...]
    text: Tower
    learned: dict[str, Tensor]
    indicators: bool


def sort_out(
    weights: Mapping[str, Tensor], layout: str, tokenizer: Path, *, image_heads: int = 0, text_heads: int = 0
) -> Earlier:
    """Tell what a checkpoint holds and rename it; every tensor is accounted for.

    Args:
        weights: by the names in the file.
        layout: what its layout features mean, which cannot be told from the file.
        tokenizer: folder of the tokenizer; a config.json there may state the heads of the text model.
        image_heads: attention heads of the SigLIP, 0 for what its width usually has.
        text_heads: of the text model, likewise.

    Raises:
        DataError: tensors are missing, unknown, of another shape or not finite; they are named as in the file.
        ConfigError: a number of heads does not fit, or its D is no dimension that a run can have.
    """
    weights = {name: t for name, t in weights.items() if not towers.ignored(name)}
    kinds = [k for k in ("siglip", "resnet") if any(name.startswith(f"vision.{k}.") for name in weights)]
    if not kinds:
        raise DataError("no tensor begins with vision.siglip. or vision.resnet.: this is not its model")
    both = len(kinds) == 2
    inside = {k: f"vision.{k}." if both else "vision." for k in kinds}  # where the adapter of a backbone lies
    images = tuple(_image_tower(weights, k, both, image_heads) for k in kinds)
    text = towers.text(weights, "text.encoder.", text_heads, tokenizer)
    fusion = _visual_fusion(weights, both)
    d, h = _matrix(weights, "text.proj.weight")[0], _matrix(weights, "fusion.gate.0.weight")[0]
    spec = _spec(images, text, d, fusion, h, _matrix(weights, "comp.mlp.0.weight")[0], layout)
    indicators = _matrix(weights, "fusion.gate.0.weight")[1] == 3 * d + 3
    expected = _expected(spec, list(inside.values()), fusion if both else "", indicators)
    towers_hold = {name for tower in (*images, text) for name in tower.names.values()}
    found = [problem for tower in (*images, text) for problem in towers.problems(tower)]
    found += _differences(expected, {n: t for n, t in weights.items() if n not in towers_hold})
    floats = {n: t for n, t in weights.items() if t.is_floating_point()}
    found += [f"{n} is not finite" for n, t in floats.items() if not bool(t.isfinite().all())]
    if found:
        more = f" and {len(found) - 10} more" if len(found) > 10 else ""
        raise DataError(f"its tensors are not those of the original trainer's model: {'; '.join(found[:10])}{more}")
    return Earlier(spec, images, text, _learned(weights, spec, list(inside.values()), fusion, indicators), indicators)


def _image_tower(weights: Mapping[str, Tensor], kind: str, both: bool, heads: int) -> Tower:
    prefix = f"vision.{kind}.{kind}." if both else f"vision.{kind}."
    return towers.siglip(weights, prefix, heads) if kind == "siglip" else towers.resnet(weights, prefix)


def _visual_fusion(weights: Mapping[str, Tensor], both: bool) -> str:
    """How the file's two image backbones are combined; "attention", which then means nothing, for a single one."""
    ways = [way for way in ("attention", "gate") if f"vision.{way}.0.weight" in weights]
    if both and not ways:
        raise DataError(
            "it has two image backbones and neither vision.attention nor vision.gate: a model that concatenates them "
            "never ran in the original trainer, so there is nothing to convert"
        )
    return ways[0] if both else "attention"


def _matrix(weights: Mapping[str, Tensor], name: str) -> tuple[int, int]:
    """The shape of a matrix that sizes are read off."""
    if name not in weights:
        raise DataError(f"{name} is missing")
    shape = tuple(weights[name].shape)
    if len(shape) != 2 or 0 in shape:
        raise DataError(f"{name} has shape {shape}; expected a matrix")
    return shape[0], shape[1]


def _spec(
    images: tuple[Tower, ...], text: Tower, d: int, fusion: str, gate: int, layout_hidden: int, layout: str
) -> EncoderSpec:
    from stage3.model.encoder import EARLIER, MAX_SIZE, EncoderSpec

    sizes = tuple(tower.size for tower in images)
    if max(*sizes, text.size, d, gate, layout_hidden) > MAX_SIZE:
        raise DataError(f"a feature or layer has more than {MAX_SIZE:,} numbers")
    return EncoderSpec(
        sizes, text.size, d, fusion, gate, layout_hidden, dropout=0.0, panel_norm=False, layout=layout, form=EARLIER
    )


def _expected(spec: EncoderSpec, inside: list[str], fusion: str, indicators: bool) -> dict[str, tuple[int, ...]]:
    """Every learned tensor that the file must have, with its shape."""
    d, h = spec.dim, spec.layout_hidden
    shapes: dict[str, tuple[int, ...]] = {"fusion.residual_weight": ()}

    def linear(name: str, out: int, size: int) -> None:
        shapes.update({f"{name}.weight": (out, size), f"{name}.bias": (out,)})

    def norm(name: str, size: int, *more: str) -> None:
        shapes.update({f"{name}.{part}": (size,) for part in ("weight", "bias", *more)})

    for prefix, size in zip(inside, spec.image_sizes, strict=True):
        hidden = max(size // 2, 1)
        linear(f"{prefix}adaptation.0", hidden, size)
        norm(f"{prefix}adaptation.1", hidden)
        linear(f"{prefix}adaptation.4", d, hidden)
        norm(f"{prefix}adaptation.5", d)
    if fusion == "attention":
        linear("vision.attention.0", 2, 2 * d)
    elif fusion == "gate":
        linear("vision.gate.0", d, 2 * d)
        linear("vision.gate.2", 2, d)
    linear("text.proj", d, spec.text_size)
    for (layer, behind), (out, size) in zip(LAYOUT_LAYERS, ((h, 7), (h, h), (d, h)), strict=True):
        linear(f"comp.mlp.{layer}", out, size)
        if behind is not None:
            norm(f"comp.mlp.{behind}", out, "running_mean", "running_var")
    for name in NORMS:
        norm(f"fusion.norm_{name}", d)
    linear("fusion.gate.0", spec.gate_hidden, 3 * d + (3 if indicators else 0))
    linear("fusion.gate.2", 3, spec.gate_hidden)
    return shapes


def _differences(expected: Mapping[str, tuple[int, ...]], weights: Mapping[str, Tensor]) -> list[str]:
    import torch

    from stage3.model.checkpoint import tensor_differences

    return tensor_differences({n: torch.empty(shape, device="meta") for n, shape in expected.items()}, weights)


def _learned(
    weights: Mapping[str, Tensor], spec: EncoderSpec, inside: list[str], fusion: str, indicators: bool
) -> dict[str, Tensor]:
    """The file's learned tensors under the names of `EarlierEncoder`."""
    import torch

    pairs = {
        f"vision.adapters.{i}.{ours}": f"{p}adaptation.{n}" for i, p in enumerate(inside) for n, ours in ADAPTER.items()
    }
    if len(inside) > 1:
        pairs |= {"vision.mix": "vision.attention.0"} if fusion == "attention" else {}
        pairs |= {f"vision.mix.{n}": f"vision.gate.{n}" for n in (0, 2)} if fusion == "gate" else {}
    pairs |= {"text": "text.proj"} | {f"norms.{i}": f"fusion.norm_{name}" for i, name in enumerate(NORMS)}
    pairs |= {f"gate.{n}": f"fusion.gate.{n}" for n in (0, 2)}
    out = {f"{ours}.{part}": weights[f"{name}.{part}"] for ours, name in pairs.items() for part in ("weight", "bias")}
    out["residual_weight"] = weights["fusion.residual_weight"]
    if not indicators:  # three columns of zeros read which modalities are present, and say nothing
        out["gate.0.weight"] = torch.cat([out["gate.0.weight"], torch.zeros(spec.gate_hidden, 3)], dim=1)
    for i, (layer, behind) in enumerate(LAYOUT_LAYERS):
        out |= {f"layout.{2 * i}.{part}": t for part, t in _folded(weights, layer, behind).items()}
    return out


def _folded(weights: Mapping[str, Tensor], layer: int, behind: int | None) -> dict[str, Tensor]:
    """A linear layer of comp.mlp with the batch norm behind it, in eval mode, folded into it in float64."""
    weight, bias = (weights[f"comp.mlp.{layer}.{part}"] for part in ("weight", "bias"))
    if behind is None:
        return {"weight": weight, "bias": bias}
    gain, shift, mean, variance = (
        weights[f"comp.mlp.{behind}.{part}"].double() for part in ("weight", "bias", "running_mean", "running_var")
    )
    if bool((variance < 0).any()):
        raise DataError(f"comp.mlp.{behind}.running_var is negative")
    scale = gain / (variance + BATCH_NORM_EPS).sqrt()
    folded: torch.Tensor = (bias.double() - mean) * scale + shift
    return {"weight": (weight.double() * scale[:, None]).float(), "bias": folded.float()}
