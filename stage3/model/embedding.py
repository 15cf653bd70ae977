"""Embeddings of whole data sets; the model is left in the mode in which it was found. V panels, D embedding size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stage3.batches import IMAGE, TEXT, PanelSet
from stage3.model.objectives import Stage3
from stage3.peers import ALONE, Peers
from stage3.storage import replace_file

EMBED_PAGES = 64  # pages a forward pass when embedding; fixed, so that embeddings do not depend on a setting


@contextmanager
def frozen(model: torch.nn.Module) -> Iterator[None]:
    """Eval mode and no gradients inside; every module gets its own former mode back, also after an exception."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@dataclass(frozen=True)
class Embedded:
    """Embeddings of V panels, on the CPU in float32.

    Attributes:
        panel, image, text: (V, D); image and text rows are 0 where the modality is absent.
        gate: (V, 3) fusion weights.
        present: (V, 3) bool.
        page_ids: (V,) int64; text_ids: (V,) int64, -1 without text; rows: (V,) int64 rows of the panel table.
    """

    panel: Tensor
    image: Tensor
    text: Tensor
    gate: Tensor
    present: Tensor
    page_ids: Tensor
    text_ids: Tensor
    rows: Tensor

    @property
    def aligned(self) -> Tensor:
        """(M,) positions of the panels that have both image and text: the retrieval gallery."""
        return (self.present[:, IMAGE] & self.present[:, TEXT]).nonzero()[:, 0]


def embed(
    model: Stage3,
    panel_set: PanelSet,
    pages: np.ndarray,
    device: torch.device | str = "cpu",
    peers: Peers = ALONE,
) -> Embedded:
    """Embed all panels of these pages, page after page; several processes share the work, and each gets all of it."""
    chunks = [pages[i : i + EMBED_PAGES] for i in range(0, len(pages), EMBED_PAGES)]
    share = -(-len(chunks) // peers.size)
    chunks = chunks[peers.rank * share : (peers.rank + 1) * share] or [pages[:0]]  # tensors of no row have a shape too
    size, at = sum(len(panel_set.rows_of(chunk)) for chunk in chunks), 0
    whole: dict[str, Tensor] = {}
    with frozen(model):
        for chunk in chunks:
            found = forward(model, panel_set, chunk, device)
            for name, value in found.items():
                if name not in whole:  # a plain tensor: inference tensors cannot be saved for backward by a caller
                    with torch.inference_mode(mode=False):
                        whole[name] = torch.empty((size, *value.shape[1:]), dtype=value.dtype)
                whole[name][at : at + len(value)] = value
            at += len(found["rows"])
    names = list(Embedded.__dataclass_fields__)
    with torch.no_grad():
        gathered = peers.gather(*(whole[name] for name in names))[0]
    return Embedded(**dict(zip(names, gathered, strict=True)))


def forward(
    model: Stage3, panel_set: PanelSet, pages: np.ndarray, device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """The tensors of `Embedded`, by name, of at most `EMBED_PAGES` pages; to be called inside `frozen`."""
    batch = panel_set.batch(pages)
    e = model.encoder(batch.to(device))
    found = {"panel": e.panel, "image": e.image, "text": e.text, "gate": e.gate}
    found |= {n: getattr(batch, n) for n in ("present", "page_ids", "text_ids", "rows")}
    return {name: value.float().cpu() if value.is_floating_point() else value for name, value in found.items()}


def save_embeddings(path: Path, embedded: Embedded) -> None:
    """Write float16 panel embeddings and their rows as safetensors, complete or not at all."""
    from safetensors.torch import save

    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, save({"panel": embedded.panel.half(), "rows": embedded.rows}))


def load_embeddings(path: Path) -> tuple[Tensor, Tensor]:
    """What `save_embeddings` wrote: (n, D) float32 panel embeddings and (n,) rows of the panel table."""
    from safetensors.torch import load_file

    tensors = load_file(path)
    return tensors["panel"].float(), tensors["rows"]
