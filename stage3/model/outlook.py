"""What a data set lets a model learn, and what its held-out books can show, told from the panel table alone.

`amount` measures the second on features; this is for the moment before there are any: whether to train at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from stage3 import metrics
from stage3.cli import counted, percent
from stage3.config import SPLITS, Config
from stage3.data.splits import VAL, split_books, split_sizes
from stage3.data.table import PanelTable
from stage3.errors import DataError
from stage3.model.amount import smallest_share
from stage3.model.baselines import MIN_PAGES

FINE, NOISY = 0.05, 0.25  # smallest difference in R@5 that shows: good enough to say nothing, and as good as none


@dataclass(frozen=True)
class Outlook:
    """What can be learned.

    Attributes:
        can_train: whether any loss is defined on the training pages.
        one_book: whether nothing is held out, because books are never split.
        lines: what to say before training, the most important first.
    """

    can_train: bool
    one_book: bool
    lines: tuple[str, ...]


def outlook(table: PanelTable, config: Config) -> Outlook:
    """What a model that is trained with these settings can learn from a data set.

    Args:
        table: all usable panels.
        config: how books are split, and which texts count.
    """
    one_book = False
    try:
        split = split_books(table, config.val_fraction, config.test_fraction, config.split_seed)
    except DataError:
        split, one_book = np.zeros(len(table.pages), np.int64), True
    of_panel = split[table.page_of_panel]
    image = table.has_box & (table.pages["image_path"] != "").to_numpy()[table.page_of_panel]
    text = table.has_text(config.text_parts)
    several = (table.pages["n_panels"] > 1).to_numpy()
    train = of_panel == 0
    pairs, mates = int((image & text & train).sum()), int((several & (split == 0)).sum())
    lines = [_sizes(table, split)]
    if one_book:
        lines.append("There is one book, and books are never split: training goes without validation and test.")
    can_train = bool(mates or pairs > 1)
    if not can_train:
        lines.append("Nothing can be learned: no page to train on has several panels, and no panel image and text.")
    elif not pairs:
        why = "no panel to train on has a text" if not (text & train).any() else "no panel has both"
        lines.append(f"Image and text are not aligned: {why}. Search by words will find nothing.")
    elif not mates:
        lines.append("Only image and text are aligned: every page is one panel, so there are no page mates.")
    return Outlook(can_train, one_book, (*lines, *_validation(split, several, of_panel, image & text, one_book)))


def _sizes(table: PanelTable, split: np.ndarray) -> str:
    sizes, roles = split_sizes(table, split), ("to train on", "for validation", "for the test")
    parts = [
        f"{counted(sizes[name]['books'], 'book')} {role} ({counted(sizes[name]['pages'], 'page')})"
        for name, role in zip(SPLITS, roles, strict=True)
        if sizes[name]["pages"]
    ]
    return f"{', '.join(parts)}."


def _validation(
    split: np.ndarray, several: np.ndarray, of_panel: np.ndarray, both: np.ndarray, one_book: bool
) -> list[str]:
    """Whether the validation pages can tell one model from another."""
    pages, gallery = int((split == VAL).sum()), int((both & (of_panel == VAL)).sum())
    if not pages:
        return [] if one_book else ["No book is held out for validation: the last checkpoint counts."]
    lines = []
    if int((several & (split == VAL)).sum()) < MIN_PAGES:
        lines.append(
            f"{counted(pages, 'validation page')}: whether a model is better cannot be told from fewer than {MIN_PAGES}"
            " pages with several panels."
        )
    if not gallery:
        return [*lines, "No validation panel has image and text: retrieval is not measured."]
    least = smallest_share(gallery)
    queries = f"{counted(pages, 'validation page')} with {counted(gallery, 'panel')} to search for"
    by_chance = f"two models differ by chance by up to {100 * least:.0f} points in R@5"
    if math.isnan(least) or least > NOISY:
        chance = percent(metrics.chance_recall(gallery, 5), 0)
        shown = "" if math.isnan(least) else f"; {by_chance}"
        lines.append(f"{queries}: retrieval will be noise (chance R@5 {chance}{shown}).")
    elif least > FINE:
        lines.append(f"{queries}: {by_chance}.")
    return lines
