"""The frozen features beside a run's numbers: what training added to them, as a tile and as a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import streamlit as st

from app import shell
from app.store import loaders
from stage3.errors import Stage3Error
from stage3.runs import RunFolder

if TYPE_CHECKING:
    from stage3.model.baselines import Added
    from stage3.model.chance import AgainstChance

PRECISION = "retrieval/same_page_r_precision"  # the tile that the frozen features stand beside
HELP = (
    "Same-page R-precision of the features that the model reads, mean-centered, image and text side by side, on the "
    "same held-out pages. A model below it has lost something in training."
)


def measured(run: RunFolder) -> Added | None:
    """What training added; None without a checkpoint, or where the data is not there (other parts say so)."""
    if not loaders.steps(run):
        return None
    try:
        return shell.working("Comparing with the frozen features", loaders.added, run)
    except Stage3Error:
        return None


def retrieval(run: RunFolder, added: Added | None) -> list[AgainstChance]:
    """Whether retrieval is above chance, where `added` could be measured."""
    return [] if added is None else shell.working("Comparing with chance", loaders.against_chance, run)


def tile(added: Added | None) -> None:
    """The frozen features' number, as wide as the tiles beside it."""
    if added is not None and added.frozen == added.frozen:
        st.metric("Frozen features", f"{100 * added.frozen:.1f} %", width=142, help=HELP)


def sentence(added: Added | None, ways: Sequence[AgainstChance] = ()) -> None:
    """What training added, in words, and whether retrieval is above chance; a loss stands out."""
    if added is None:
        return
    words = added.sentence[0].upper() + added.sentence[1:]
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if added.answer == "lost":
            st.badge("below frozen features", color="red")
        st.text(words, width="stretch")
    for way in ways:
        st.text(way.sentence[0].upper() + way.sentence[1:])
