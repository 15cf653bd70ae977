"""Where an anchored model begins: its backbones' frozen features, carried into the embedding space by a fixed map.

Each backbone has a subspace of its own, images and texts side by side, so that the untrained panel embedding has the
cosines of the frozen features laid end to end. What is learned is added to that, from 0. A model that begins elsewhere
has to learn again what its features knew, and on some hundred pages it does not (docs/evidence.md).

V panels, D embedding size, S size of a feature, K dimensions of a backbone's subspace.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from stage3.config import Config

IMAGE_SHARE = 0.625  # of the D dimensions; text has the rest. Image features are wider and say more about a page.
PANELS_PER_DIRECTION = 10  # a leading direction counts as known when there are so many training panels for it
SAMPLE_PAGES = 5000  # training pages, evenly spaced, that the statistics are taken from


@dataclass(frozen=True)
class Statistics:
    """What the training panels' features of one backbone look like.

    Attributes:
        center: (S,) their mean.
        covariance: (S, S) mean outer product of the centered features, each divided by its length.
        panels: how many there are.
    """

    center: Tensor
    covariance: Tensor
    panels: int


class Anchor(nn.Module):
    """A backbone's feature in its subspace of the embedding: centered, divided by its length, mapped, fixed.

    Its two tensors are buffers: a checkpoint holds them, training does not change them.
    """

    center: Tensor
    directions: Tensor

    def __init__(self, size: int, dim: int, dims: tuple[int, int]) -> None:
        """A map from features of `size` to dimensions `dims[0]` up to `dims[1]` of `dim`; it is 0 until `fit`."""
        super().__init__()
        self.dim, self.dims = dim, dims
        self.register_buffer("center", torch.zeros(size))
        self.register_buffer("directions", torch.zeros(size, dims[1] - dims[0]))

    def fit(self, statistics: Statistics, generator: torch.Generator) -> None:
        """Take the center and the directions of the training panels."""
        self.center.copy_(statistics.center)
        self.directions.copy_(directions(statistics, self.directions.shape[1], generator))

    def join(self, other: Anchor) -> None:
        """Take the directions of the other tower, so that cosines between the two are those of the features."""
        self.directions.copy_(other.directions)

    def forward(self, feature: Tensor) -> Tensor:
        """(M, S) features to (M, D) with a root mean square of 1.

        A feature that equals the center has no direction, and gets the diagonal of the subspace: an embedding of 0 has
        no cosine with anything.
        """
        mapped = normalize(feature - self.center, dim=1) @ self.directions
        mapped = torch.where(mapped.any(dim=1, keepdim=True), mapped, torch.ones_like(mapped))
        inside = normalize(mapped, dim=1) * math.sqrt(self.dim)
        first, end = self.dims
        return nn.functional.pad(inside, (first, self.dim - end))


def share_a_space(config: Config, image_sizes: tuple[int, ...], text_size: int) -> bool:
    """Whether image and text features come from the two towers of one model, so that they can be compared as they are.

    The two `tiny` backbones share a name and nothing else.
    """
    from stage3.features.backbones import SHORT_NAMES

    image, text = (SHORT_NAMES.get(n, ((), n))[1] for n in (config.vision_backbone, config.text_backbone))
    return image == text != "tiny" and image_sizes == (text_size,)


def subspaces(dim: int, image_backbones: int, joint: bool = False) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Dimensions (first, end) of each image backbone and of the text backbone.

    Two towers of one model (`joint`) share all dimensions, so that image and text find each other from the start.

    Example:
        >>> subspaces(512, 1), subspaces(512, 2)[0]
        (([(0, 320)], (320, 512)), [(0, 160), (160, 320)])
    """
    if joint:
        return [(0, dim)], (0, dim)
    images = max(image_backbones, min(round(IMAGE_SHARE * dim), dim - 1))
    edges = [images * i // image_backbones for i in range(image_backbones + 1)]
    return list(pairwise(edges)), (images, dim)


def directions(statistics: Statistics, k: int, generator: torch.Generator) -> Tensor:
    """(S, K) map that keeps the cosines of centered features as well as K dimensions can.

    With K of at least S it is a rotation, exactly. With fewer, up to half of the dimensions are leading principal
    directions of the training panels, one per `PANELS_PER_DIRECTION` panels: what is far out in them is known to be
    large. The others are random orthogonal directions of what is left (Johnson & Lindenstrauss 1984), lengthened so
    that inner products keep their expectation: a new series lies mostly outside of what few training panels span.
    """
    size = len(statistics.center)
    order: Tensor = torch.linalg.eigh(statistics.covariance.double())[1].flip(1)  # (S, S), leading direction first
    if k >= size:
        turned = _orthogonal(k, size, generator)  # spread evenly over the K dimensions
        rotated: Tensor = (order @ turned.T).float()
        return rotated
    leading = min(k // 2, statistics.panels // PANELS_PER_DIRECTION)
    rest = order[:, leading:]
    spread = rest @ _orthogonal(rest.shape[1], k - leading, generator)
    longer = math.sqrt(rest.shape[1] / (k - leading))
    found: Tensor = torch.cat([order[:, :leading], spread * longer], dim=1).float()
    return found


def _orthogonal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """(rows, columns) float64 with random orthonormal columns."""
    drawn = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    q: Tensor = torch.linalg.qr(drawn)[0]
    return q


class FeatureSums:
    """Adds up features of several batches into `Statistics` of some backbones; two passes, in float64."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = list(sizes)
        self.total = torch.zeros(sum(sizes), dtype=torch.float64)
        self.outer = [torch.zeros(s, s, dtype=torch.float64) for s in sizes]
        self.panels = 0

    def add(self, feature: Tensor) -> None:
        """First pass: (M, sum of sizes) features for the mean."""
        self.total += feature.double().sum(dim=0)
        self.panels += len(feature)

    @property
    def center(self) -> Tensor:
        """(sum of sizes,) float32 mean; 0 where there was no panel."""
        return (self.total / max(self.panels, 1)).float()

    def add_centered(self, feature: Tensor) -> None:
        """Second pass: the same features for the covariance."""
        for outer, part in zip(self.outer, torch.split(feature - self.center, self.sizes, dim=1), strict=True):
            unit = normalize(part, dim=1).double()
            outer += unit.T @ unit

    def statistics(self) -> list[Statistics]:
        """One per backbone."""
        centers = torch.split(self.center, self.sizes)
        n = max(self.panels, 1)
        return [Statistics(c, outer / n, self.panels) for c, outer in zip(centers, self.outer, strict=True)]


def sampled(pages: np.ndarray) -> np.ndarray:
    """The pages that statistics are taken from: all, or `SAMPLE_PAGES` of them, evenly spaced."""
    if len(pages) <= SAMPLE_PAGES:
        return pages
    return pages[np.linspace(0, len(pages) - 1, SAMPLE_PAGES).round().astype(np.int64)]
