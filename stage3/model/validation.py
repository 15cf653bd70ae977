"""Metrics of a model on a table: fixed-batch losses, gallery retrieval both ways, collapse, reconstruction.

Nothing here draws a random number or leaves the model in another mode than it found it. V panels, D embedding size.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stage3 import losses, metrics
from stage3.batches import PanelBatch, PanelSet, generator, seeded
from stage3.model.embedding import Embedded, embed, frozen
from stage3.model.objectives import Stage3, reconstruction_target, sums
from stage3.objectives import LOSSES, TERMS
from stage3.peers import ALONE, Peers

MAX_MEASURED = 5000  # pages of a validation that are ranked; losses are of all


def validate(
    model: Stage3,
    panel_set: PanelSet,
    batches: Sequence[np.ndarray],
    device: torch.device | str = "cpu",
    *,
    noise_seed: int = 0,
    peers: Peers = ALONE,
) -> dict[str, float]:
    """Losses over fixed batches, averaged over active panels: the same weights give the same numbers, always.

    The two `validation_*` ablation settings bring back the original trainer's noise; only then is `noise_seed` used.
    With the ablation `batch_means` losses are averaged over batches. Several processes take turns with the batches,
    each batch whole; with `validation_dropout`, whose draws follow the order of batches, each takes all of them.

    Returns:
        `loss/*`, `weighted/*` and `active/*` as in metrics.jsonl; a term of weight 0 is absent.
    """
    totals: Counter[str] = Counter()
    mask, dropout = model.config.validation_random_mask, model.config.validation_dropout
    with frozen(model), seeded(noise_seed, torch.device(device)):
        model.reconstruction_head.train(dropout)  # what the original trainer left in train mode, and no more
        for i, pages in enumerate(batches):
            if not dropout and i % peers.size != peers.rank:
                continue
            draw = generator(noise_seed, "validation mask", i) if mask else None
            step = model(panel_set.batch(pages).to(device), draw)
            for name, (value, count) in sums(step, by_batch=model.config.batch_means).items():
                totals.update({f"sum/{name}": value, f"count/{name}": count})
            totals.update({f"active/{name}": n for name, n in step.counts.items()})
            totals["active/silent_batches"] += not step.has_signal
    found = totals if dropout else peers.sum_by_name(totals)
    means = {name: found[f"sum/{name}"] / n for name in LOSSES if (n := found.get(f"count/{name}", 0))}
    return loss_row(means, model.weights) | {name: int(n) for name, n in found.items() if name.startswith("active/")}


def loss_row(means: dict[str, float], weights: dict[str, float]) -> dict[str, float]:
    """`loss/*` and `weighted/*` from mean losses; the total is the weighted sum of the terms that are defined.

    Where none is defined the total is NaN: a zero would be averaged in wherever rows are.
    """
    row = {f"loss/{name}": value for name, value in means.items()}
    weighted = {t: weights[t] * means[t] for t in TERMS if t in means and weights[t] > 0}
    row["loss/total"] = sum(weighted.values()) if weighted else math.nan
    return row | {f"weighted/{t}": value for t, value in weighted.items()}


def gallery(embedded: Embedded) -> dict[str, Any]:
    """Per-item retrieval results on the gallery of all panels with image and text.

    Returns:
        `rows` (M,) positions in `embedded`; `i2t`, `t2i` (M,) ranks (1 is best; identical texts do not compete);
        `within_i2t`, `within_t2i`: `metrics.WithinPage` of the same panels.
    """
    rows = embedded.aligned
    image, text = embedded.image[rows], embedded.text[rows]
    ids, pages = embedded.text_ids[rows], embedded.page_ids[rows]
    return {
        "rows": rows,
        "i2t": metrics.retrieval_ranks(image, text, query_ids=ids),
        "t2i": metrics.retrieval_ranks(text, image, query_ids=ids),
        "within_i2t": metrics.within_page_ranks(image, text, pages, ids),
        "within_t2i": metrics.within_page_ranks(text, image, pages, ids),
    }


def retrieval_metrics(embedded: Embedded, found: dict[str, Any] | None = None) -> dict[str, float]:
    """`retrieval/*`: R@1, 5, 10, MRR, median rank both ways, within-page accuracy, same-page R-precision."""
    found = found or gallery(embedded)
    row: dict[str, float] = {"retrieval/gallery": float(len(found["rows"]))}
    for way in ("i2t", "t2i"):
        ranks = found[way]
        row |= {f"retrieval/{way}_r{k}": metrics.recall_at(ranks, k) for k in (1, 5, 10)}
        row[f"retrieval/{way}_mrr"] = metrics.mrr(ranks)
        row[f"retrieval/{way}_median_rank"] = metrics.median_rank(ranks)
        row[f"retrieval/within_page_{way}"] = found[f"within_{way}"].accuracy
    for k in ("r1", "r5", "r10", "mrr"):
        row[f"retrieval/mean_{k}"] = (row[f"retrieval/i2t_{k}"] + row[f"retrieval/t2i_{k}"]) / 2
    precision = metrics.same_page_r_precision(embedded.panel, embedded.page_ids)
    row["retrieval/same_page_r_precision"] = metrics.mean_defined(precision)
    return row


def collapse_metrics(embedded: Embedded) -> dict[str, float]:
    """`collapse/*`: effective rank, mean cosine, page gap, uniformity of panels, alignment of pairs."""
    rows = embedded.aligned
    au = metrics.alignment_uniformity(embedded.image[rows], embedded.text[rows], embedded.panel)
    gap = metrics.page_gap(embedded.panel, embedded.page_ids)
    return {
        "collapse/effective_rank": metrics.effective_rank(embedded.panel),
        "collapse/mean_cosine": metrics.mean_cosine(embedded.panel),
        "collapse/page_gap": gap.gap,
        "collapse/intra_cosine": gap.intra,
        "collapse/inter_cosine": gap.inter,
        "collapse/uniformity": au.uniformity,
        "collapse/alignment": au.alignment,
    }


def reconstruct(model: Stage3, embedded: Embedded, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Leave-one-out predictions for every panel with a page mate: (n, D) predictions and (n,) positions."""
    context = losses.leave_one_out_mean(embedded.panel, embedded.page_ids)
    rows = (losses.page_counts(embedded.page_ids) > 1).nonzero()[:, 0]
    with frozen(model):
        prediction = model.predict(context[rows].to(device)).float().cpu()
    return prediction.clone(), rows


def reconstruction_metrics(model: Stage3, embedded: Embedded, device: torch.device | str = "cpu") -> dict[str, float]:
    """`reconstruction/*`: skill against the mean embedding, and how often the nearest panel is the right one.

    The head learns only with a reconstruction weight above 0; without, there is nothing to measure.
    """
    if model.weights["reconstruction"] == 0:
        return {}
    prediction, rows = reconstruct(model, embedded, device)
    target = reconstruction_target(embedded.panel[rows], model.config)
    return {
        "reconstruction/skill": metrics.reconstruction_skill((prediction - target).square().mean(dim=1), target),
        "reconstruction/rank_r1": metrics.reconstruction_rank_r1(prediction, target),
    }


def evenly(pages: np.ndarray, most: int = MAX_MEASURED) -> np.ndarray:
    """These pages, or so many of them at even distances: ranking is quadratic, a million pages would take hours.

    Example:
        >>> evenly(np.arange(10), 4).tolist()
        [0, 3, 6, 9]
    """
    if len(pages) <= most:
        return pages
    chosen: np.ndarray = pages[np.linspace(0, len(pages) - 1, most).round().astype(np.int64)]
    return chosen


def all_metrics(
    model: Stage3,
    panel_set: PanelSet,
    pages: np.ndarray,
    device: torch.device | str = "cpu",
    peers: Peers = ALONE,
) -> tuple[dict[str, float], Embedded]:
    """Every gallery metric of a model on some pages, and the embeddings they were measured on.

    Several processes share the embedding; each then measures on all of it.
    """
    embedded = embed(model, panel_set, pages, device, peers)
    row = retrieval_metrics(embedded) | collapse_metrics(embedded) | reconstruction_metrics(model, embedded, device)
    return row, embedded


def gradient_budget(model: Stage3, batch: PanelBatch) -> dict[str, float]:
    """How hard each weighted term pulls on the encoder, and whether two terms pull the same way, on one batch.

    Returns:
        `gradient/TERM`: norm of the weighted term's gradient over the encoder's parameters;
        `gradient_cosine/A_B`: cosine between two terms' gradients, -1 to 1.
    """
    parameters = [p for p in model.encoder.parameters() if p.requires_grad]
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.enable_grad():
            step = model(batch)
            flat: dict[str, Tensor] = {}
            for term in (t for t in TERMS if t in step.losses and step.losses[t].count):
                weighted = step.weights[term] * step.losses[term].mean
                grads = torch.autograd.grad(weighted, parameters, retain_graph=True, allow_unused=True)
                pairs = zip(grads, parameters, strict=True)
                flat[term] = torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])
    finally:
        for module, mode in modes.items():
            module.training = mode
    row = {f"gradient/{term}": float(g.norm()) for term, g in flat.items()}
    for i, a in enumerate(flat):
        for b in list(flat)[i + 1 :]:
            row[f"gradient_cosine/{a}_{b}"] = float(torch.cosine_similarity(flat[a], flat[b], dim=0))
    return row
