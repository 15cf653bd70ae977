"""Packed batches of whole pages, cut from a data set: no padding row exists anywhere.

Beside this file: `batch` is what the encoder reads, `sampler` and `by_book` decide which pages share a batch, `deal`
deals them out so that every batch has a signal, and `dataset` joins a panel table, its features and its split by book.
"""

from stage3.batches.batch import (
    IMAGE,
    LAYOUT,
    TEXT,
    Features,
    PanelBatch,
    PanelSet,
    derived_seed,
    generator,
    seeded,
)
from stage3.batches.by_book import BookSampler, sampler_of
from stage3.batches.dataset import Dataset
from stage3.batches.sampler import PageSampler, fixed_batches, steps_from

__all__ = [
    "IMAGE",
    "LAYOUT",
    "TEXT",
    "BookSampler",
    "Dataset",
    "Features",
    "PageSampler",
    "PanelBatch",
    "PanelSet",
    "derived_seed",
    "fixed_batches",
    "generator",
    "sampler_of",
    "seeded",
    "steps_from",
]
