"""The encoder of a checkpoint of the original trainer, as `stage3.convert` rebuilds it. It embeds, and never trains.

It differs from `encoder.PanelEncoder` throughout: the text is projected by one linear layer, the layout by three
without norms (the file's batch norms are folded into them), both gates use GELU, nothing is normalized after the
fusion, and an absent modality is a constant that enters the gate and the residual mean of always three parts.

V panels, D embedding size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from stage3.batches import IMAGE, LAYOUT, TEXT, PanelBatch
from stage3.errors import ConfigError
from stage3.model.anchor import Anchor
from stage3.model.encoder import EncoderSpec, PanelEmbeddings


class EarlierVision(nn.Module):
    """One embedding from one or two image backbones, weighted by a softmax."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.sizes, d, n = list(spec.image_sizes), spec.dim, len(spec.image_sizes)
        self.adapters = nn.ModuleList(_adapter(size, d) for size in self.sizes)
        self.mix: nn.Module = nn.Identity()
        if n > 1 and spec.visual_fusion == "attention":
            self.mix = nn.Linear(n * d, n)
        elif n > 1 and spec.visual_fusion == "gate":
            self.mix = nn.Sequential(nn.Linear(n * d, d), nn.GELU(), nn.Linear(d, n))
        elif n > 1:
            raise ConfigError(f"visual_fusion: {spec.visual_fusion!r} was never trained by the original trainer")

    def forward(self, feature: Tensor) -> Tensor:
        """(M, sum of sizes) to (M, D)."""
        split = torch.split(feature, self.sizes, dim=1)
        parts = torch.stack([adapter(x) for adapter, x in zip(self.adapters, split, strict=True)], dim=1)  # (M, n, D)
        if len(self.sizes) == 1:
            return parts[:, 0]
        weights: Tensor = self.mix(parts.flatten(1)).softmax(dim=1)  # (M, n)
        return (parts * weights[:, :, None]).sum(dim=1)


class EarlierEncoder(nn.Module):
    """Image, text and layout features of panels to one embedding each, as the original trainer's model gave them.

    `absent` (3, D) are the parts of a panel without image, text and layout: what the original model gave for an
    image of zeros, for an empty text and for a layout of zeros.
    """

    absent: Tensor

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.spec = spec
        d = spec.dim
        self.vision = EarlierVision(spec)
        self.text = nn.Linear(spec.text_size, d)
        hidden = spec.layout_hidden
        self.layout = nn.Sequential(
            nn.Linear(7, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, d)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(d) for _ in range(3))
        self.gate = nn.Sequential(nn.Linear(3 * d + 3, spec.gate_hidden), nn.GELU(), nn.Linear(spec.gate_hidden, 3))
        self.residual_weight = nn.Parameter(torch.tensor(0.5))
        self.register_buffer("absent", torch.zeros(3, d))

    @property
    def anchors(self) -> list[Anchor]:
        """None: this form has no anchors."""
        return []

    def forward(self, batch: PanelBatch) -> PanelEmbeddings:
        """Embed the panels of a batch; what an absent modality's features hold changes nothing."""
        encoders: tuple[Callable[[Tensor], Tensor], ...] = (self.vision, self.text, self.layout)
        features = (batch.image, batch.text, batch.layout)
        parts = torch.stack([self.absent[i].expand(len(batch), -1) for i in range(3)], dim=1).clone()  # (V, 3, D)
        for i, (encoder, values) in enumerate(zip(encoders, features, strict=True)):
            rows = batch.present[:, i].nonzero()[:, 0]
            parts[rows, i] = encoder(values[rows]).to(parts.dtype)
        panel, gate = self.fuse(parts, batch.present)
        shown = parts * batch.present[:, :, None]
        return PanelEmbeddings(panel, shown[:, IMAGE], shown[:, TEXT], gate)

    def fuse(self, parts: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Gate-weighted sum over the modalities present, plus a residual mean over all three.

        Args:
            parts: (V, 3, D) embeddings, `absent` where a modality is.
            present: (V, 3) bool.

        Returns:
            (V, D) panel embeddings and (V, 3) gate weights.
        """
        normed = torch.stack([norm(parts[:, i]) for i, norm in enumerate(self.norms)], dim=1)
        logits = self.gate(torch.cat([normed.flatten(1), present.to(normed.dtype)], dim=1)).float()
        gate = logits.masked_fill(~present, -torch.inf).softmax(dim=1)
        return (normed * gate[:, :, None]).sum(dim=1) + self.residual_weight * normed.mean(dim=1), gate

    @torch.no_grad()
    def set_absent(self, image: Tensor, text: Tensor) -> None:
        """Set `absent` from the features (sum of sizes,) of a black image and (text size,) of an empty text."""
        self.absent[IMAGE] = self.vision(image[None])[0]
        self.absent[TEXT] = self.text(text[None])[0]
        self.absent[LAYOUT] = self.layout(torch.zeros(1, 7))[0]


def _adapter(size: int, dim: int) -> nn.Sequential:
    """From a backbone's feature to the embedding size."""
    hidden = max(size // 2, 1)
    return nn.Sequential(
        nn.Linear(size, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Linear(hidden, dim), nn.LayerNorm(dim)
    )
