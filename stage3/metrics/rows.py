"""What every metric does with rows: unit length, similarities in blocks, ranks, means over what is defined."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from stage3.losses import page_index

TIE = 5e-7
CELLS_AT_ONCE = 2**22


def mean_defined(values: Tensor) -> float:
    """Mean over the entries that are not NaN; NaN when there is none.

    Example:
        >>> mean_defined(torch.tensor([1.0, math.nan, 3.0]))
        2.0
    """
    return mean_of(values[~values.isnan()])


def mid_ranks(
    query: Tensor,
    gallery: Tensor,
    bias: Tensor,
    partner: Tensor | None,
    query_ids: Tensor | None,
    gallery_ids: Tensor | None,
) -> Tensor:
    """Mid-ranks of the true matches by query . gallery + bias."""
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(f"query and gallery differ in dimension: {query.shape[1]} and {gallery.shape[1]}.")
    if partner is None:
        check_length("gallery (without partner)", gallery, len(query))
        partner = torch.arange(len(query), device=query.device)
    check_length("partner", partner, len(query))
    if query_ids is not None:
        gallery_ids = query_ids if gallery_ids is None else gallery_ids
        check_length("query_ids", query_ids, len(query))
        check_length("gallery_ids", gallery_ids, len(gallery))
    ranks = torch.empty(len(query), dtype=torch.float64, device=query.device)
    for rows in blocks(torch.arange(len(query), device=query.device), len(gallery)):
        scores = similarity(query[rows], gallery) + bias
        own = partner[rows, None]
        scores -= scores.gather(1, own)
        if query_ids is not None and gallery_ids is not None:
            same = (query_ids[rows, None] == gallery_ids[None, :]) & (query_ids[rows, None] >= 0)
            scores.masked_fill_(same, -math.inf)
        scores.scatter_(1, own, -math.inf)
        ranks[rows] = 1 + 0.5 * half_places_lost(scores).sum(dim=1).double()
    return ranks


def half_places_lost(ahead: Tensor) -> Tensor:
    """2 where a rival is ahead, 1 where it ties, else 0; a score that is not a number loses to everything."""
    return (~(ahead <= TIE)).to(torch.int8) + ~(ahead < -TIE)


def blocks(rows: Tensor, width: int) -> Iterator[Tensor]:
    """Parts of `rows` whose similarities to `width` others fit `CELLS_AT_ONCE`."""
    at_once = max(1, CELLS_AT_ONCE // max(1, width))
    return iter(torch.split(rows, at_once)) if len(rows) else iter(())


def parts(rows: Tensor) -> Iterator[Tensor]:
    """A matrix in pieces of at most `CELLS_AT_ONCE`, for what would not fit in float64 all at once."""
    return iter(torch.split(rows, max(1, CELLS_AT_ONCE // max(1, rows.shape[1]))))


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """All dot products in float32, whatever autocast is on around the caller."""
    with torch.autocast(device_type=a.device.type, enabled=False):
        return a @ b.T


def unit(rows: Tensor, name: str) -> Tensor:
    """(n, D) float32 rows of length 1, without gradient; `name` is what an error calls them."""
    check_rows(rows, name)
    return torch.nn.functional.normalize(rows.detach().float(), dim=1)


def mean_of(values: Tensor) -> float:
    """Mean in float64; NaN of nothing."""
    return float(values.double().mean()) if len(values) else math.nan


def check_rows(rows: Tensor, name: str) -> None:
    """Refuse anything but a matrix.

    Raises:
        ValueError: it has another number of dimensions.
    """
    if rows.ndim != 2:
        raise ValueError(f"{name} must have shape (rows, dimension), not {tuple(rows.shape)}.")


def check_length(name: str, rows: Tensor, expected: int) -> None:
    """Refuse another number of rows.

    Raises:
        ValueError: there are not `expected` of them.
    """
    if len(rows) != expected:
        raise ValueError(f"{name} has {len(rows)} rows where {expected} are needed.")


def page_pairs(page_ids: Tensor, pairs_at_once: int = 8192) -> Iterator[tuple[Tensor, Tensor]]:
    """All ordered pairs of different rows on one page, in parts of about `pairs_at_once`."""
    order = page_ids.argsort()
    _, counts = page_index(page_ids)
    page = torch.arange(len(counts), device=page_ids.device).repeat_interleave(counts)
    first, size = (counts.cumsum(0) - counts)[page], counts[page]  # of each row's page, in sorted order
    part = (size.cumsum(0) - 1) // pairs_at_once
    everything = torch.arange(len(order), device=page_ids.device)
    for rows in torch.split(everything, part.bincount().tolist()):
        repeated = rows.repeat_interleave(size[rows])
        ends = size[rows].cumsum(0)
        offset = torch.arange(len(repeated), device=page_ids.device) - (ends - size[rows]).repeat_interleave(size[rows])
        other = first[repeated] + offset
        different = other != repeated
        yield order[repeated[different]], order[other[different]]
