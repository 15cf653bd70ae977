"""What a model makes of each single panel: its losses, ranks, gate and reconstruction error, as one table.

The means of these columns over the validation panels are the numbers of a run's validation row: the same batches, the
same gallery, no dropout and no random mask. V panels, D embedding size.

Of a large data set the measured columns are kept with the run, for ranking is quadratic (100,000 panels: 17 s of CPU):

    runs/NAME/inspection/  KEY.arrow      KEY = checkpoint fingerprint - data, settings and version

It is a file of `stage3.data.column_file`. Of 5,000,000 panels it has 320 MB, which are read into memory: whoever copies
a run over this one would cut a mapped file short, and with it the process that reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from stage3 import __version__, metrics
from stage3.batches import IMAGE, LAYOUT, TEXT, fixed_batches
from stage3.batches.dataset import Dataset
from stage3.config import SPLITS, spec_of
from stage3.data import column_file
from stage3.errors import StorageError
from stage3.model import validation
from stage3.model.distant import Distant, take
from stage3.model.embedding import Embedded, frozen
from stage3.model.objectives import Stage3, reconstruction_target
from stage3.objectives import LOSSES
from stage3.runs.folder import RunFolder
from stage3.storage import make_folder, replacing, sha256, storing, to_json

MAX_GALLERY = 20_000  # panels of a split that are ranked; a larger split is ranked on so many, drawn once by a seed
KEPT_FROM = 10_000  # panels; fewer are measured again in about a second
FAR_ROWS = 1000  # described before what was read of the texts' files is given back
COLUMNS = 2  # raise it when a number of `measured_columns` changes: kept ones are then measured again
GATES = ("gate_image", "gate_text", "gate_box")
MEASURED = (
    *GATES,
    *(f"loss_{name}" for name in (*LOSSES, "total")),
    *("rank_i2t", "rank_t2i", "within_i2t", "within_t2i", "gallery", "reconstruction_error", "reconstruction_rank"),
)
MODALITIES = {IMAGE: "image", TEXT: "text", LAYOUT: "box"}


def describe_panels(data: Dataset, text_parts: str, rows: np.ndarray | None = None) -> pd.DataFrame:
    """The panel table joined with its pages, for people: one row per panel, in table order.

    Args:
        data: the data set.
        text_parts: what the text backbone read, the setting of this name.
        rows: (n,) rows of the panel table that are described, in this order; None is all.

    Returns:
        Columns panel_id, page, page_id, book, page_type, order, n_panels, source_index, x, y, w, h, has_box, dialogue,
        description, speakers, text (what the text backbone read), text_id (-1 without), split, has_image, has_text,
        modality ("image + text + box" …). The index is the row of the panel table.
    """
    panels, pages = data.table.panels, data.table.pages
    page, present, text_ids = data.table.page_of_panel, data.panel_set.present, data.features.text_rows
    frame = panels.drop(columns=["page"])
    if rows is None:
        frame = frame.copy()
    else:
        frame, page, present, text_ids = frame.iloc[rows], page[rows], present[rows], text_ids[rows]
    frame.insert(1, "page", page)
    for name, column in (("page_id", "page_id"), ("book", "book_id"), ("page_type", "page_type")):
        frame[name] = pages[column].array[page]
    frame["n_panels"] = pages["n_panels"].to_numpy()[page]
    frame["text"] = data.table.text_column(text_parts) if rows is None else data.table.texts(text_parts, rows)
    frame["text_id"] = text_ids
    frame["split"] = pd.array(SPLITS, dtype="str")[data.split[page]]
    frame["has_image"], frame["has_text"] = present[:, IMAGE], present[:, TEXT]
    frame["modality"] = _modality_names(present)
    return frame


def describe_scattered(data: Dataset, text_parts: str, rows: np.ndarray) -> pd.DataFrame:
    """`describe_panels` of rows that may lie far apart, without the texts between them staying in memory.

    Around each text that is asked for the system reads some more of its file: of 20,000 in 5,000,000 panels, all.
    """
    parts = []
    for start in range(0, max(len(rows), 1), FAR_ROWS):
        parts.append(describe_panels(data, text_parts, rows[start : start + FAR_ROWS]))
        data.table.give_back()
    return pd.concat(parts)


def _modality_names(present: np.ndarray) -> pd.api.extensions.ExtensionArray:
    codes = present @ np.array([1, 2, 4])
    names = [" + ".join(MODALITIES[i] for i in MODALITIES if code >> i & 1) or "nothing" for code in range(8)]
    found: pd.api.extensions.ExtensionArray = pd.array(names, dtype="str")[codes]
    return found


def panel_frame(
    data: Dataset, model: Stage3, embedded: Embedded | Distant, measured: Mapping[str, np.ndarray] | None = None
) -> pd.DataFrame:
    """`describe_panels` and what the model makes of each panel; NaN where a number is not defined.

    Args:
        data: the data set.
        model: a model that was trained on features of these sizes.
        embedded: its embeddings of all usable pages, as `embedding.embed(model, data.panel_set, data.pages("all"))`.
        measured: its `measured_columns`, where they are known already.

    Returns:
        Also gate_image, gate_text, gate_box; loss_NAME of `objectives.LOSSES`, and loss_total, the weighted sum of
        the terms defined for the panel; rank_i2t, rank_t2i (1 is best, in the gallery of the panel's own split),
        gallery (its size), within_i2t, within_t2i (rank on its own page); reconstruction_error (mean squared error of
        the leave-one-out prediction) and reconstruction_rank (1: the prediction is nearest to its own panel).
    """
    frame = describe_panels(data, model.config.text_parts)
    for name, values in (measured or measured_columns(data, model, embedded)).items():
        frame[name] = values
    return frame


def panel_frame_parts(data: Dataset, text_parts: str, measured: Mapping[str, np.ndarray]) -> Iterator[pd.DataFrame]:
    """`panel_frame`, some rows at a time: the texts of 5,000,000 panels do not come into memory together."""
    for rows in data.table.parts():
        part = describe_panels(data, text_parts, rows)
        yield part.assign(**{name: values[rows] for name, values in measured.items()})


def measured_columns(data: Dataset, model: Stage3, embedded: Embedded | Distant) -> dict[str, np.ndarray]:
    """(V,) float32 gate weights, losses, ranks and errors, `MEASURED`: the columns of `panel_frame` that take long."""
    found = retrieval_columns(data, embedded, len(data.table))  # first, since it takes most memory
    found |= _reconstruction_columns(data, model, embedded, len(data.table))
    found |= {f"loss_{name}": values for name, values in panel_losses(data, model).items()}
    found |= _gate_columns(embedded, len(data.table))
    return {name: found[name] for name in MEASURED}


def kept_columns(
    run: RunFolder, step: int, data: Dataset, model: Stage3, embedded: Embedded | Distant
) -> dict[str, np.ndarray]:
    """`measured_columns`, of a large data set read from the run's folder or left there for the next time.

    A file that is damaged, or that cannot be written (a run that is only to be read), is as good as none.
    """
    if len(data.table) < KEPT_FROM:
        return measured_columns(data, model, embedded)
    path = _columns_path(run, step, data, model)
    with suppress(StorageError):
        return _read_columns(path, len(data.table))
    found = measured_columns(data, model, embedded)
    with suppress(StorageError):
        make_folder(path.parent)
        with replacing(path) as scratch:
            column_file.write(scratch, [found])
    return found


def _columns_path(run: RunFolder, step: int, data: Dataset, model: Stage3) -> Path:
    settings = {name: value for name, value in model.config.to_dict().items() if not spec_of(name).resume_free}
    basis = to_json({"version": [__version__, COLUMNS], "data": data.identity(), "settings": settings})
    name = f"{run.fingerprint(step)[:24]}-{sha256(basis.encode())[:24]}.arrow"
    return run.path / "inspection" / name


def _read_columns(path: Path, size: int) -> dict[str, np.ndarray]:
    """Kept columns of the right kind and length; else StorageError."""
    with storing(path):
        too_large = path.stat().st_size > 4 * size * len(MEASURED) + 2**20
    if too_large:
        raise StorageError(f"{path}: damaged (too large)")
    file = column_file.ColumnFile(path)
    numbers = {name: values for name, values in file.columns.items() if isinstance(values, np.ndarray)}
    right = all(values.shape == (size,) and values.dtype == np.float32 for values in numbers.values())
    if list(numbers) != list(MEASURED) or not right:
        raise StorageError(f"{path}: damaged")
    found = {}
    for name, values in numbers.items():
        found[name] = values.copy()
        file.give_back()
    return found


def _gate_columns(embedded: Embedded | Distant, size: int) -> dict[str, np.ndarray]:
    gate = embedded.gate() if isinstance(embedded, Distant) else embedded.gate.numpy()
    return {name: _spread(gate[:, i], embedded.rows.numpy(), size) for i, name in enumerate(GATES)}


def panel_losses(data: Dataset, model: Stage3) -> dict[str, np.ndarray]:
    """(V,) float32 loss of every panel by name, in the fixed batches that a validation of its split would use."""
    config = model.config
    batches = [b for s in SPLITS for b in fixed_batches(data.pages(s), config.batch_pages, config.seed)]
    return losses_in(data, model, batches)


def losses_in(data: Dataset, model: Stage3, batches: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """(V,) float32 loss of every panel by name, where these batches of pages define it; NaN elsewhere.

    `total` is the weighted sum of the terms that are defined for the panel.
    """
    found = {name: np.full(len(data.table), np.nan, np.float32) for name in (*LOSSES, "total")}
    with frozen(model):
        for pages in batches:
            batch = data.panel_set.batch(pages)
            step = model(batch)
            total = np.full(len(batch), np.nan, np.float32)
            for name, loss in step.losses.items():
                values = np.where(loss.valid.numpy(), loss.value.float().numpy(), np.nan)
                found[name][batch.rows.numpy()] = values
                if name in step.weights:
                    weighted = step.weights[name] * values
                    total = np.where(np.isnan(total), weighted, total + np.nan_to_num(weighted))
            found["total"][batch.rows.numpy()] = total
    return found


def retrieval_columns(data: Dataset, embedded: Embedded | Distant, size: int) -> dict[str, np.ndarray]:
    """(V,) ranks of each true match both ways, within its split and within its page; NaN outside the gallery."""
    names = ("rank_i2t", "rank_t2i", "within_i2t", "within_t2i", "gallery")
    found = {name: np.full(size, np.nan, np.float32) for name in names}
    split_of = torch.from_numpy(data.split)[embedded.page_ids]
    for i in range(len(SPLITS)):
        chosen = gallery_sample((split_of == i).nonzero()[:, 0], embedded)
        if not len(chosen):
            continue
        part = take(embedded, chosen)
        result = validation.gallery(part)
        rows = part.rows[result["rows"]].numpy()
        for way in ("i2t", "t2i"):
            found[f"rank_{way}"][rows] = result[way].numpy()
            within: metrics.WithinPage = result[f"within_{way}"]
            found[f"within_{way}"][rows[within.panels.numpy()]] = within.ranks.numpy()
        found["gallery"][rows] = len(rows)
    return found


def gallery_sample(positions: torch.Tensor, embedded: Embedded | Distant) -> torch.Tensor:
    """These positions, or of a large split whole pages drawn once by a fixed seed, about `MAX_GALLERY` panels."""
    if len(positions) <= MAX_GALLERY:
        return positions
    page_ids = embedded.page_ids[positions]
    marked = torch.zeros(int(page_ids.max()) + 1, dtype=torch.bool)  # to sort 5,000,000 ids takes 200 MB
    marked[page_ids] = True
    pages = marked.nonzero()[:, 0]
    order = torch.randperm(len(pages), generator=torch.Generator().manual_seed(0))
    marked.zero_()
    marked[pages[order[: max(1, len(pages) * MAX_GALLERY // len(positions))]]] = True
    return positions[marked[page_ids]]


def _reconstruction_columns(
    data: Dataset, model: Stage3, embedded: Embedded | Distant, size: int
) -> dict[str, np.ndarray]:
    found = {name: np.full(size, np.nan, np.float32) for name in ("reconstruction_error", "reconstruction_rank")}
    if model.weights["reconstruction"] == 0:
        return found
    split_of = torch.from_numpy(data.split)[embedded.page_ids]
    for i in range(len(SPLITS)):
        positions = gallery_sample((split_of == i).nonzero()[:, 0], embedded)
        if not len(positions):
            continue
        part = take(embedded, positions)
        prediction, at = validation.reconstruct(model, part)
        target = reconstruction_target(part.panel[at], model.config)
        rows = part.rows[at].numpy()
        found["reconstruction_error"][rows] = (prediction - target).square().mean(dim=1).numpy()
        found["reconstruction_rank"][rows] = metrics.reconstruction_ranks(prediction, target).numpy()
    return found


def _spread(values: np.ndarray, rows: np.ndarray, size: int) -> np.ndarray:
    out = np.full(size, np.nan, np.float32)
    out[rows] = values
    return out
