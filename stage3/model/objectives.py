"""Everything learned, in one module, and one forward pass that gives every loss.

`Stage3` owns the encoder, the reconstruction head and the temperatures, so that train and eval mode, gradient
clipping and the checkpoint cannot disagree about what exists. V panels, M with image and text, D embedding size.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from stage3 import losses
from stage3.batches import IMAGE, TEXT, PanelBatch, derived_seed, generator
from stage3.config import Config, spec_of
from stage3.errors import ConfigError
from stage3.losses import PanelLoss
from stage3.model.anchor import Statistics
from stage3.model.earlier import EarlierEncoder
from stage3.model.encoder import EARLIER, EncoderSpec, PanelEmbeddings, PanelEncoder
from stage3.objectives import OBJECTIVES, TERMS, WITH_TEMPERATURE, Objective
from stage3.peers import ALONE, Peers


@dataclass(frozen=True)
class Step:
    """One forward pass over a batch.

    Attributes:
        losses: one `PanelLoss` over the batch's V panels for each name in `LOSSES`; a term of weight 0 is absent. Of a
            batch that several processes share, each has those of its own panels.
        active: for each of them how many panels it is defined for, in the whole batch.
        weights: the weight of each term.
        counts: active items of the whole batch: pages, panels, anchors, pairs, reconstructed, aligned.
        embeddings: what the encoder gave.
        temperatures: of each objective that has one, by its name.
    """

    losses: dict[str, PanelLoss]
    active: dict[str, int]
    weights: dict[str, float]
    counts: dict[str, int]
    embeddings: PanelEmbeddings
    temperatures: dict[str, float]

    @property
    def total(self) -> Tensor:
        """Weighted sum of the terms' means over their active panels: a scalar on the graph.

        Of a shared batch it is this process's part: the parts add up to the total, and their gradients to its.
        """
        found = [t for t in TERMS if t in self.losses]
        parts = [self.weights[t] * (self.losses[t].value.sum() / max(self.active[t], 1)) for t in found]
        return torch.stack(parts).sum()

    @property
    def has_signal(self) -> bool:
        """Whether any loss is defined on any panel; a step without signal must not move a weight."""
        return any(self.active[t] > 0 for t in TERMS if t in self.losses)


def sums(step: Step, peers: Peers = ALONE, *, by_batch: bool = False) -> dict[str, tuple[float, int]]:
    """(sum, count) over active panels of each loss: what adds up over batches, unlike their means.

    With `by_batch`, the ablation `batch_means`, a batch counts once, with its mean, which is 0 where none is active.
    """
    total = peers.sum([float(loss.value.detach().sum()) for loss in step.losses.values()])
    found = {name: (value, step.active[name]) for name, value in zip(step.losses, total, strict=True)}
    return {name: (value / max(n, 1), 1) for name, (value, n) in found.items()} if by_batch else found


class Temperature(nn.Module):
    """A temperature: fixed, or learned on a log scale that cannot leave its declared range."""

    def __init__(self, initial: float, learned: bool, setting: str) -> None:
        super().__init__()
        spec = spec_of(setting)
        assert spec.low is not None
        assert spec.high is not None
        self.low, self.span = math.log(spec.low), math.log(spec.high) - math.log(spec.low)
        self.initial = initial
        self.raw: nn.Parameter | None = None
        if learned:
            share = min(max((math.log(initial) - self.low) / self.span, 1e-3), 1 - 1e-3)
            self.raw = nn.Parameter(torch.tensor(math.log(share / (1 - share))))

    def forward(self) -> float | Tensor:
        """The temperature: a number, or a 0-dim tensor on the graph when learned."""
        if self.raw is None:
            return self.initial
        return (self.low + self.span * self.raw.float().sigmoid()).exp()

    @property
    def value(self) -> float:
        """The temperature as a plain number."""
        return self.initial if self.raw is None else float(torch.as_tensor(self()).detach())


class Stage3(nn.Module):
    """The encoder, the reconstruction head and the temperatures, trained together.

    Dropout follows train and eval mode. What is reconstructed follows the `generator` of the forward pass: with one,
    a single panel drawn on each page, as in training; without, every panel that has a page mate, so a validation
    has no randomness to seed.

    Example:
        >>> model = Stage3.initialized(EncoderSpec(image_sizes=(8,), text_size=4, dim=16), Config(), seed=0)
        >>> model.weights
        {'contrastive': 1.0, 'reconstruction': 0.5, 'alignment': 1.0}
    """

    def __init__(self, spec: EncoderSpec, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder: PanelEncoder | EarlierEncoder
        self.encoder = EarlierEncoder(spec) if spec.form == EARLIER else PanelEncoder(spec)
        if spec.form == EARLIER and config.reconstruction_weight > 0:
            raise ConfigError("reconstruction_weight must be 0: a converted model has no reconstruction head")
        d, hidden = spec.dim, max(spec.dim // 2, 8)
        head = nn.Sequential(
            nn.Linear(d, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(spec.dropout), nn.Linear(hidden, d)
        )
        self.reconstruction_head: nn.Module = nn.Identity() if spec.form == EARLIER else head
        for objective in WITH_TEMPERATURE:
            name = objective.temperature_setting
            self.add_module(name, Temperature(config.temperatures[objective.name], config.learn_temperature, name))

    @classmethod
    def initialized(cls, spec: EncoderSpec, config: Config, seed: int) -> Stage3:
        """A new model whose weights depend on `seed` alone; the global random state is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(spec, config)

    @classmethod
    def untrained(cls, spec: EncoderSpec, config: Config, features: Sequence[Statistics]) -> Stage3:
        """The model that training with these settings begins with, before its first step.

        Args:
            spec: of the encoder.
            config: the run's settings.
            features: of the training panels, of each image backbone and then of the text backbone
                (`baselines.statistics`); a plain model does not read them.
        """
        model = cls.initialized(spec, config, derived_seed(config.seed, "weights"))
        draw = generator(config.seed, "anchors")
        for anchor, statistics in zip(model.encoder.anchors, features, strict=False):
            anchor.fit(statistics, draw)
        if spec.joint and features:
            image, text = model.encoder.anchors
            text.join(image)
        return model

    def before_training(self) -> Stage3:
        """The model that this one was before its first step, in eval mode on the CPU."""
        model = self.untrained(self.encoder.spec, self.config, [])
        ours = dict(self.named_buffers())  # anchors: fixed, and made of data
        for name, buffer in model.named_buffers():
            buffer.copy_(ours[name])
        return model.eval()

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each term, from the settings."""
        return self.config.weights

    def temperature_of(self, term: str) -> Temperature:
        """The temperature of an objective that has one."""
        found = self.get_submodule(f"{term}_temperature")
        assert isinstance(found, Temperature)
        return found

    def forward(self, batch: PanelBatch, generator: torch.Generator | None = None) -> Step:
        """All losses of a batch.

        Args:
            batch: packed panels of whole pages.
            generator: CPU generator that draws one masked panel per page; None reconstructs every panel.
        """
        embeddings = self.encoder(batch)
        weights = self.weights
        found: dict[str, PanelLoss] = {}
        for objective in OBJECTIVES:
            if weights[objective.name] > 0:
                found |= loss_function(objective)(self, batch, embeddings, generator)
        mates = losses.page_counts(batch.pages) - 1
        here = {"pages": len(batch.pages.counts), "panels": len(batch)}
        here |= {"anchors": int((mates > 0).sum()), "pairs": int(mates.sum()) // 2}
        total = [int(n) for n in batch.peers.sum([*here.values(), *(loss.count for loss in found.values())])]
        counts, active = dict(zip(here, total, strict=False)), dict(zip(found, total[len(here) :], strict=True))
        for objective in OBJECTIVES:
            counts.setdefault(objective.counted, active.get(objective.name, 0))
        temperatures = {objective.name: self.temperature_of(objective.name).value for objective in WITH_TEMPERATURE}
        return Step(found, active, weights, counts, embeddings, temperatures)

    def reconstruct(
        self,
        panel: Tensor,
        page_ids: Tensor | losses.PageIndex,
        generator: torch.Generator | None,
        peers: Peers = ALONE,
    ) -> PanelLoss:
        """Predict masked panels (V, D) from the mean of their page mates; the head runs on the masked rows only."""
        pages = losses.page_index(page_ids)
        masked = masked_panels(pages, generator, peers)
        context = losses.leave_one_out_mean(panel, pages)
        if self.config.detach_context:
            context = context.detach()
        rows = masked.nonzero()[:, 0]
        prediction = self.predict(context[rows]) if len(rows) else context[rows]
        spread = torch.zeros_like(context).index_copy(0, rows, prediction.float())
        target = reconstruction_target(panel, self.config)
        return losses.reconstruction(spread, target, masked, detach_target=self.config.detach_target)

    def predict(self, context: Tensor) -> Tensor:
        """(n, D) panel embeddings predicted from (n, D) means of their page mates."""
        predicted: Tensor = self.reconstruction_head(context)
        return predicted


LossFunction = Callable[["Stage3", PanelBatch, PanelEmbeddings, "torch.Generator | None"], dict[str, PanelLoss]]


@cache
def loss_function(objective: Objective) -> LossFunction:
    """The function that an objective names."""
    module, _, name = objective.loss.partition(":")
    found: LossFunction = getattr(importlib.import_module(module), name)
    return found


def contrastive(
    model: Stage3, batch: PanelBatch, e: PanelEmbeddings, generator: torch.Generator | None
) -> dict[str, PanelLoss]:
    """Panels of a page attract each other: supcon over the fused embeddings."""
    config = model.config
    panel, pages, own = e.panel, batch.pages, None
    if batch.peers.size > 1:
        (panel, page_ids), own = batch.peers.gather(panel.float(), batch.page_ids)
        pages = losses.page_index(page_ids)
    loss = losses.supcon(
        panel,
        pages,
        model.temperature_of("contrastive")(),
        include_singletons=config.singleton_anchors,
        log_epsilon=config.log_epsilon,
        own=own,
    )
    return {"contrastive": loss}


def reconstruction(
    model: Stage3, batch: PanelBatch, e: PanelEmbeddings, generator: torch.Generator | None
) -> dict[str, PanelLoss]:
    """Masked panels are predicted from the mean of their page mates."""
    return {"reconstruction": model.reconstruct(e.panel, batch.pages, generator, batch.peers)}


def reconstruction_target(panel: Tensor, config: Config) -> Tensor:
    """(V, D) float32 embeddings that reconstruction is to predict: as they are, or layer-normalized (no affine)."""
    target = panel.float()
    return nn.functional.layer_norm(target, target.shape[-1:]) if config.normalize_target else target


def masked_panels(pages: losses.PageIndex, generator: torch.Generator | None, peers: Peers = ALONE) -> Tensor:
    """(V,) bool: one panel drawn per page of several, or without a generator all of them.

    The lots are drawn for the whole batch, so that it does not matter how many processes share it.
    """
    page, counts = pages
    several = counts[page] > 1
    if generator is None:
        return several
    own, total = peers.spans(len(page))
    lot = torch.rand(total, generator=generator, dtype=torch.float64)[own].to(page.device)
    highest = lot.new_zeros(len(counts)).scatter_reduce(0, page, lot, "amax")
    return several & (lot == highest[page])


def alignment(
    model: Stage3, batch: PanelBatch, e: PanelEmbeddings, generator: torch.Generator | None
) -> dict[str, PanelLoss]:
    """Image and text of a panel find each other: both halves over the M panels that have both, spread to V rows."""
    config, temperature = model.config, model.temperature_of("alignment")()
    rows = (batch.present[:, IMAGE] & batch.present[:, TEXT]).nonzero()[:, 0]
    image, text, text_ids, own = e.image[rows], e.text[rows], batch.text_ids[rows], None
    if batch.peers.size > 1:
        (image, text, text_ids), own = batch.peers.gather(image.float(), text.float(), text_ids)
    i2t, t2i = losses.info_nce(image, text, temperature, None if config.identical_text_negatives else text_ids, own=own)
    both = PanelLoss((i2t.value + t2i.value) / 2, i2t.valid & t2i.valid)
    if not config.symmetric_alignment:
        variants = {"i2t": i2t, "t2i": t2i, "averaged_logits": None}
        own = own or slice(0, len(rows))
        both = variants[config.asymmetric_form] or _averaged_logits(image, text, temperature, own)
    parts = {"alignment": both, "alignment_i2t": i2t, "alignment_t2i": t2i}
    return {name: _spread(loss, rows, len(batch)) for name, loss in parts.items()}


def _spread(loss: PanelLoss, rows: Tensor, size: int) -> PanelLoss:
    value = loss.value.new_zeros(size).index_copy(0, rows, loss.value)
    valid = loss.valid.new_zeros(size).index_copy(0, rows, loss.valid)
    return PanelLoss(value, valid)


def _averaged_logits(image: Tensor, text: Tensor, temperature: float | Tensor, own: slice) -> PanelLoss:
    """Ablation: the wrong fix that averages the logits with their transpose and takes one cross entropy.

    It is computed for the rows `own` of (M, D) inputs.
    """
    v, t = nn.functional.normalize(image.float(), dim=-1), nn.functional.normalize(text.float(), dim=-1)
    averaged = (v[own] @ t.T / temperature + t[own] @ v.T / temperature) / 2
    value = -averaged.log_softmax(dim=1).diagonal(own.start)
    return PanelLoss(value, torch.full_like(value, len(v) > 1, dtype=torch.bool))
