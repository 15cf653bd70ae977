"""Embeddings of a data set that is too large for memory: float16 files in the cache, read in blocks.

    CACHE/embeddings/KEY/  panel.npy  image.npy  text.npy      (n, D) float16 rows of length 1: the panels that have it

KEY stands for the checkpoint, the panels and their features, so a file that is there is the right one; all may be
deleted at any time. Directions are kept, lengths are not: cosines differ by at most 0.0005 from those of float32
embeddings.

N panels that are embedded, D embedding size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stage3.batches import IMAGE, TEXT
from stage3.errors import NumericError
from stage3.metrics.mapped import MappedRows
from stage3.model.embedding import EMBED_PAGES, forward, frozen
from stage3.storage import clear_scratch, make_folder, replacing, sha256, to_json

if TYPE_CHECKING:
    from stage3.batches.dataset import Dataset
    from stage3.model.objectives import Stage3

SPACES = ("panel", "image", "text")
LARGE_BYTES = 256 * 2**20  # of float32 embeddings in three spaces; smaller data sets are embedded in memory
FORMAT = 1


@dataclass(frozen=True)
class Mapped:
    """Where the embeddings of a checkpoint lie, and of which panels they are.

    Attributes:
        folder: of the files.
        rows: (N,) int64 rows of the panel table that are embedded, ascending.
        present: (N, 3) bool: image, text, layout; both as in `Embedded`.
    """

    folder: Path
    rows: Tensor
    present: Tensor

    def rows_of(self, space: str) -> np.ndarray:
        """(n,) int64 rows of the panel table behind a file: the panels that have the modality."""
        chosen = self.rows if space == "panel" else self.rows[self.present[:, IMAGE if space == "image" else TEXT]]
        return chosen.numpy()

    def path(self, space: str) -> Path:
        """The file of "panel", "image" or "text"."""
        return self.folder / f"{space}.npy"

    def open(self, space: str) -> MappedRows:
        """(n, D) float16 rows of a space."""
        return MappedRows(self.path(space))


def is_large(data: Dataset, dim: int) -> bool:
    """Whether the embeddings of all panels would take more memory than `LARGE_BYTES`."""
    return 3 * 4 * dim * len(data.table) > LARGE_BYTES


def embed_mapped(
    model: Stage3,
    fingerprint: str,
    data: Dataset,
    cache: Path | str,
    spaces: Sequence[str] = SPACES,
    *,
    on_pages: Callable[[int], None] = lambda _: None,
) -> Mapped:
    """Embeddings of all usable panels by a checkpoint; spaces whose file is there are only opened.

    Args:
        model: the checkpoint's model, on the CPU.
        fingerprint: of the checkpoint.
        data: the panels.
        cache: folder of caches, the setting `cache_dir`.
        spaces: those that are needed, of `SPACES`.
        on_pages: told how many pages were embedded since the last time.

    Raises:
        NumericError: an embedding is zero or not finite.
        StorageError: the files cannot be written.
    """
    known = data.identity()
    basis = {"format": FORMAT, "checkpoint": fingerprint, "layout": data.layout, "pages": EMBED_PAGES}
    basis |= {name: known[name] for name in ("table", "features", "pictures")}
    rows = np.flatnonzero(data.panel_set.present.any(axis=1))
    folder = Path(cache) / "embeddings" / sha256(to_json(basis).encode())[:24]
    made = Mapped(folder, torch.from_numpy(rows), torch.from_numpy(data.panel_set.present[rows]))
    missing = [space for space in spaces if not made.path(space).is_file()]
    if missing:
        make_folder(made.folder)
        clear_scratch(made.folder)
        _write(model, data, made, missing, on_pages)
    return made


def _write(model: Stage3, data: Dataset, made: Mapped, spaces: Sequence[str], on_pages: Callable[[int], None]) -> None:
    pages, dim = data.pages("all"), model.encoder.spec.dim
    with ExitStack() as stack, frozen(model):
        files = {}
        for space in spaces:
            scratch = stack.enter_context(replacing(made.path(space), durable=False))
            files[space] = stack.enter_context(scratch.open("wb"))
            header = {"descr": "<f2", "fortran_order": False, "shape": (len(made.rows_of(space)), dim)}
            np.lib.format.write_array_header_1_0(files[space], header)
        for start in range(0, len(pages), EMBED_PAGES):
            part = pages[start : start + EMBED_PAGES]
            found = forward(model, data.panel_set, part)
            for space, file in files.items():
                vectors = found[space]
                if space != "panel":
                    vectors = vectors[found["present"][:, IMAGE if space == "image" else TEXT]]
                length = vectors.norm(dim=1)
                if not bool(((length > 0) & length.isfinite()).all()):
                    raise NumericError(
                        f"the {space} embeddings of pages {int(part[0])} to {int(part[-1])} are zero or not finite. "
                        "Look at the features of these pages, or use an earlier checkpoint."
                    )
                file.write(F.normalize(vectors, dim=1).half().numpy().tobytes())
            on_pages(len(part))
