"""The panel encoder: each present modality of a panel encoded once, then fused by a gate over what is present.

V panels, D embedding size, Di image feature size, Dt text feature size.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from stage3.batches import IMAGE, LAYOUT, TEXT, PanelBatch
from stage3.config import Config
from stage3.data.table import LAYOUT_MEANING, LAYOUT_MEANINGS
from stage3.errors import ConfigError
from stage3.model.anchor import Anchor, share_a_space, subspaces

MAX_SIZE = 65_536  # of a feature, an embedding or a hidden layer
MAX_BACKBONES = 8
LAYOUT_GAIN = 0.1  # of the layout's norm at the start of an anchored model: layout differs between series
ANCHORED, PLAIN = "anchored", "plain"
EARLIER = "earlier"  # of a converted checkpoint: `earlier.EarlierEncoder`


@dataclass(frozen=True)
class EncoderSpec:
    """Everything that fixes the encoder's shapes; stored with every checkpoint."""

    image_sizes: tuple[int, ...]  # one per vision backbone
    text_size: int
    dim: int = 512
    visual_fusion: str = "attention"
    gate_hidden: int = 128
    layout_hidden: int = 64
    dropout: float = 0.1
    feature_noise: float = 0.0
    panel_norm: bool = True
    residual_leak: bool = False  # ablation
    layout: str = LAYOUT_MEANING  # what the seven layout features mean
    form: str = ANCHORED  # or PLAIN: from random weights, as all models were before there were anchors; or EARLIER
    use_layout: bool = True
    layout_dropout: float = 0.0
    joint: bool = False  # image and text features are of one space, and stay so

    def __post_init__(self) -> None:
        if self.layout not in LAYOUT_MEANINGS:
            raise ConfigError(
                f"this model was trained on layout features {self.layout[:40]!r}, which this version does not compute "
                f"(it computes {', '.join(LAYOUT_MEANINGS)}). Train it again."
            )
        if self.form not in (ANCHORED, PLAIN, EARLIER):
            raise ConfigError(f"form: {self.form[:40]!r} is not one of {ANCHORED}, {PLAIN}, {EARLIER}")
        if len(self.image_sizes) >= self.dim:
            raise ConfigError(f"dim: {self.dim} dimensions are too few for {len(self.image_sizes)} image backbones")

    @classmethod
    def of(cls, config: Config, image_sizes: tuple[int, ...], text_size: int) -> EncoderSpec:
        """The spec a run's settings ask for, given its backbones' feature sizes."""
        return cls(
            tuple(image_sizes),
            text_size,
            config.dim,
            config.visual_fusion,
            config.gate_hidden,
            config.layout_hidden,
            config.dropout,
            config.feature_noise,
            config.panel_norm,
            config.residual_leak,
            form=config.form,
            use_layout=config.use_layout,
            layout_dropout=config.layout_dropout,
            joint=config.form == ANCHORED and share_a_space(config, tuple(image_sizes), text_size),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"image_sizes": list(self.image_sizes)}

    @classmethod
    def from_dict(cls, values: Any) -> EncoderSpec:
        """The inverse of `to_dict`, for values of unknown origin: nothing that is wrong with them gets further.

        A checkpoint that says nothing of its form is from before there were anchors.

        Raises:
            ValueError: an entry is missing, unknown, of another type, or a size that no encoder has.
        """
        known = {f.name: f.type for f in fields(cls)}
        if isinstance(values, dict) and not NEWER.keys() & values.keys():
            values = values | NEWER
        if not isinstance(values, dict) or set(values) != set(known):
            given = sorted(map(str, values))[:20] if isinstance(values, dict) else type(values).__name__
            raise ValueError(f"an encoder is described by {', '.join(known)}; found {given}")
        sizes = values["image_sizes"]
        if not isinstance(sizes, list) or not 1 <= len(sizes) <= MAX_BACKBONES:
            raise ValueError(f"image_sizes: expected a list of 1 to {MAX_BACKBONES} sizes")
        whole = {"image_sizes": sizes} | {name: [values[name]] for name, kind in known.items() if kind == "int"}
        for name, numbers in whole.items():
            for n in numbers:
                if type(n) is not int or not 1 <= n <= MAX_SIZE:
                    raise ValueError(f"{name}: {str(n)[:40]} must be an integer from 1 to {MAX_SIZE:,}")
        types = {"str": str, "bool": bool, "float": int | float}
        for name, kind in known.items():
            if kind in types and not isinstance(values[name], types[kind]):
                raise ValueError(f"{name}: {str(values[name])[:40]!r} is not a valid {kind}")
        return cls(**{**values, "image_sizes": tuple(sizes)})


NEWER: dict[str, Any] = {"form": PLAIN, "use_layout": True, "layout_dropout": 0.0, "joint": False}
"""What a model is that was saved before these entries existed."""


@dataclass(frozen=True)
class PanelEmbeddings:
    """What the encoder gives for V panels.

    Attributes:
        panel: (V, D) fused embedding of the modalities that are present.
        image: (V, D) image-only embedding; 0 where there is no image.
        text: (V, D) text-only embedding; 0 where there is no text.
        gate: (V, 3) weights of image, text, layout in the fusion; they sum to 1, absent ones are 0.
    """

    panel: Tensor
    image: Tensor
    text: Tensor
    gate: Tensor


class Adapter(nn.Sequential):
    """Two linear layers with LayerNorms from a backbone's feature to the embedding size.

    In training Gaussian noise is added to the feature first: a Tikhonov regularizer (Bishop 1995, "Training with noise
    is equivalent to Tikhonov regularization") against learning a few thousand panels by heart. Its standard deviation
    is `noise` times each row's root mean square, so that one level suits backbones of any scale.
    """

    def __init__(self, size: int, dim: int, dropout: float, noise: float) -> None:
        hidden = max(size // 2, min(size, dim // 4))
        super().__init__(
            nn.Linear(size, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, dim),
            nn.LayerNorm(dim),
        )
        self.noise = noise

    def forward(self, feature: Tensor) -> Tensor:
        """(M, S) to (M, D)."""
        if self.training and self.noise > 0:
            scale = self.noise * feature.square().mean(dim=1, keepdim=True).sqrt()
            feature = feature + scale * torch.randn_like(feature)
        out: Tensor = super().forward(feature)  # type: ignore[no-untyped-call]
        return out


class AnchoredAdapter(nn.Module):
    """The frozen feature in its subspace, fixed, plus what an `Adapter` learns, with a strength that begins at 0."""

    def __init__(self, learned: Adapter, anchor: Anchor) -> None:
        super().__init__()
        self.learned, self.anchor = learned, anchor
        self.strength = nn.Parameter(torch.zeros(()))

    def forward(self, feature: Tensor) -> Tensor:
        """(M, S) to (M, D)."""
        out: Tensor = self.anchor(feature) + self.strength * self.learned(feature)
        return out


def adapter(spec: EncoderSpec, size: int, dims: tuple[int, int]) -> Adapter | AnchoredAdapter:
    """The adapter of a backbone whose features have this size; `dims` are its anchor's, first and end."""
    learned = Adapter(size, spec.dim, spec.dropout, spec.feature_noise)
    return AnchoredAdapter(learned, Anchor(size, spec.dim, dims)) if spec.form == ANCHORED else learned


class VisualFusion(nn.Module):
    """One embedding from one or several image backbones: softmax attention, a gate, or concatenation.

    Anchored, it begins as the plain mean of the backbones, which lie in subspaces of their own.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.sizes, self.how, self.anchored = list(spec.image_sizes), spec.visual_fusion, spec.form == ANCHORED
        dims, _ = subspaces(spec.dim, len(self.sizes), spec.joint)
        self.adapters = nn.ModuleList(adapter(spec, s, at) for s, at in zip(spec.image_sizes, dims, strict=True))
        n, d = len(self.sizes), spec.dim
        self.mix: nn.Module = nn.Identity()
        if n > 1 and self.how == "attention":
            self.mix = nn.Linear(n * d, n)
        elif n > 1 and self.how == "gate":
            self.mix = nn.Sequential(nn.Linear(n * d, d), nn.ReLU(), nn.Linear(d, n))
        elif n > 1 and self.how == "concat":
            self.mix = nn.Linear(n * d, d) if self.anchored else nn.Sequential(nn.Linear(n * d, d), nn.LayerNorm(d))
        elif n > 1:
            raise ConfigError(f"visual_fusion: {self.how!r} is not one of attention, gate, concat")
        if n > 1 and self.anchored:
            zero_last(self.mix)

    def forward(self, image: Tensor) -> Tensor:
        """(M, sum of sizes) features to (M, D)."""
        parts: list[Tensor] = [a(x) for a, x in zip(self.adapters, torch.split(image, self.sizes, dim=1), strict=True)]
        if len(parts) == 1:
            return parts[0]
        joined = torch.cat(parts, dim=1)
        if self.how == "concat":
            mixed: Tensor = self.mix(joined)
            return torch.stack(parts).mean(dim=0) + mixed if self.anchored else mixed
        weights: Tensor = self.mix(joined).softmax(dim=1)  # (M, n)
        return (torch.stack(parts, dim=1) * weights[:, :, None]).sum(dim=1)


def zero_last(module: nn.Module) -> None:
    """Set the last linear layer of a module to 0, so that it begins by saying nothing."""
    last = [m for m in module.modules() if isinstance(m, nn.Linear)][-1]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)


class PanelEncoder(nn.Module):
    """Image, text and layout features of panels to one embedding each."""

    absent_image: Tensor  # the ablation `residual_leak` alone has these two
    absent_text: Tensor

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.spec = spec
        d = spec.dim
        self.vision = VisualFusion(spec)
        self.text = adapter(spec, spec.text_size, subspaces(d, len(spec.image_sizes), spec.joint)[1])
        self.layout = nn.Sequential(  # LayerNorm, not BatchNorm: one panel alone must work
            nn.Linear(7, spec.layout_hidden),
            nn.LayerNorm(spec.layout_hidden),
            nn.GELU(),
            nn.Linear(spec.layout_hidden, d),
        )
        self.norms = nn.ModuleList(nn.LayerNorm(d) for _ in range(3))
        self.gate = nn.Sequential(
            nn.Linear(3 * d + 3, spec.gate_hidden), nn.GELU(), nn.Dropout(spec.dropout), nn.Linear(spec.gate_hidden, 3)
        )
        self.residual_weight = nn.Parameter(torch.tensor(0.5))
        self.panel_norm: nn.Module = nn.LayerNorm(d) if spec.panel_norm else nn.Identity()
        if spec.form == ANCHORED:
            zero_last(self.gate)  # uniform over what is present
            nn.init.constant_(self.norms[LAYOUT].get_parameter("weight"), LAYOUT_GAIN)
        if spec.residual_leak:
            self.register_buffer("absent_image", torch.zeros(sum(spec.image_sizes)))
            self.register_buffer("absent_text", torch.zeros(spec.text_size))

    @property
    def anchors(self) -> list[Anchor]:
        """Of each image backbone, then of the text backbone; empty for a plain model."""
        return [a.anchor for a in (*self.vision.adapters, self.text) if isinstance(a, AnchoredAdapter)]

    def leak(self, absent_image: Tensor, absent_text: Tensor) -> None:
        """Ablation `residual_leak`: the features (Di,), (Dt,) that stand for an absent image and an absent text."""
        self.absent_image.copy_(absent_image)
        self.absent_text.copy_(absent_text)

    def forward(self, batch: PanelBatch) -> PanelEmbeddings:
        """Embed the panels of a batch; what an absent modality's features hold changes nothing, bit for bit."""
        if self.spec.residual_leak:
            return self._forward_leaking(batch)
        present = self._shown(batch.present)
        parts = [
            _encode_present(self.vision, batch.image, present[:, IMAGE], self.spec.dim),
            _encode_present(self.text, batch.text, present[:, TEXT], self.spec.dim),
            _encode_present(self.layout, batch.layout, present[:, LAYOUT], self.spec.dim),
        ]
        panel, gate = self.fuse(parts, present)
        return PanelEmbeddings(panel, parts[IMAGE], parts[TEXT], gate)

    def _shown(self, present: Tensor) -> Tensor:
        """`present` with layout left out where it is switched off, or dropped in training; never a panel's only one."""
        drop = self.spec.layout_dropout if self.training else 0.0
        if self.spec.use_layout and drop == 0:
            return present
        keep = ~present[:, [IMAGE, TEXT]].any(dim=1)
        if self.spec.use_layout:
            keep |= torch.rand(len(present), device=present.device) >= drop
        shown = present.clone()
        shown[:, LAYOUT] &= keep
        return shown

    def _forward_leaking(self, batch: PanelBatch) -> PanelEmbeddings:
        """As the original trainer: what is absent is encoded too, as an image of zeros, an empty text, a zero layout.

        It enters the gate's input and the residual mean; only the gate's weights leave it out.
        """
        present = self._shown(batch.present)
        image, text, layout = (present[:, [m]] for m in (IMAGE, TEXT, LAYOUT))
        parts = [
            self.vision(torch.where(image, batch.image, self.absent_image)),
            self.text(torch.where(text, batch.text, self.absent_text)),
            self.layout(torch.where(layout, batch.layout, 0.0)),
        ]
        panel, gate = self.fuse(parts, present)
        return PanelEmbeddings(panel, parts[IMAGE] * image, parts[TEXT] * text, gate)

    def fuse(self, parts: list[Tensor], present: Tensor) -> tuple[Tensor, Tensor]:
        """Gate-weighted sum plus a residual mean, both over the modalities present (but for the leak, see above).

        Args:
            parts: three (V, D) embeddings, 0 where absent.
            present: (V, 3) bool.

        Returns:
            (V, D) panel embeddings and (V, 3) gate weights.
        """
        normed = torch.stack([norm(p) for norm, p in zip(self.norms, parts, strict=True)], dim=1)  # (V, 3, D)
        seen = torch.ones_like(present) if self.spec.residual_leak else present
        shown = normed * seen[:, :, None]  # a norm's bias must not speak for what is absent
        logits = self.gate(torch.cat([shown.flatten(1), present.to(shown.dtype)], dim=1)).float()
        gate = logits.masked_fill(~present, -torch.inf).softmax(dim=1)
        residual = shown.sum(dim=1) / seen.sum(dim=1, keepdim=True)
        fused = (shown * gate[:, :, None]).sum(dim=1) + self.residual_weight * residual
        return self.panel_norm(fused), gate


def _encode_present(encoder: nn.Module, features: Tensor, present: Tensor, dim: int) -> Tensor:
    """Run the encoder on the rows that are present and leave the others 0: (V, size) to (V, D)."""
    rows = present.nonzero()[:, 0]
    out = features.new_zeros(len(features), dim)
    if len(rows) == 0:
        return out
    encoded = encoder(features[rows])
    return out.to(encoded.dtype).index_copy(0, rows, encoded)
