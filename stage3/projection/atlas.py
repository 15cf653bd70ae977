"""The map as one Parquet file that Embedding Atlas (https://apple.github.io/embedding-atlas) opens as it is.

    embedding-atlas FILE --x projection_x --y projection_y --text text --neighbors neighbors

One row per panel of the map. `neighbors` has the form that Embedding Atlas documents, {"ids": […], "distances": […]}
with row numbers of the file from 0. It is left out where there are more panels than UMAP laid out.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stage3.config import SPLITS
from stage3.errors import ConfigError
from stage3.metrics.neighbors import exact_neighbors
from stage3.storage import make_folder, replacing

if TYPE_CHECKING:
    import pandas as pd

    from stage3.batches.dataset import Dataset
    from stage3.metrics.nearest import Array

ROWS = 100_000  # per row group
NEIGHBORS = 15
COMMAND = "embedding-atlas {} --x projection_x --y projection_y --text text"


def command(path: Path, *, neighbors: bool) -> str:
    """What a person types to see the file."""
    return COMMAND.format(path) + (" --neighbors neighbors" if neighbors else "")


def write_atlas(path: Path | str, frame: pd.DataFrame, data: Dataset, text_parts: str, x: Array | None = None) -> str:
    """Write the file, completely or not at all, in parts, so that its size is not the memory that it takes.

    Args:
        path: `X.parquet`.
        frame: a map, as `files.load` gives it.
        data: its data set.
        text_parts: the setting of the run: what `text` holds.
        x: (N, D) embeddings in the order of the frame, for the neighbors; None leaves them out.

    Returns:
        The command that opens it.

    Raises:
        ConfigError: the name does not end in .parquet.
        StorageError: it cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    if path.suffix != ".parquet":
        raise ConfigError(f"atlas: {path} must end in .parquet")
    near = None if x is None or len(x) < 2 else exact_neighbors(x, NEIGHBORS, refine=True)
    text = [pa.field(name, pa.string()) for name in ("id", "text", "book", "page", "page_type", "split", "cluster")]
    fields = [pa.field(name, pa.float32()) for name in ("projection_x", "projection_y", "neighbors_kept")]
    both = [("ids", pa.list_(pa.int64())), ("distances", pa.list_(pa.float32()))]
    schema = pa.schema([*fields, *text] + ([pa.field("neighbors", pa.struct(both))] if near else []))
    make_folder(path.absolute().parent)
    with replacing(path) as scratch, pq.ParquetWriter(scratch, schema) as writer:
        for start in range(0, len(frame), ROWS):
            part = slice(start, start + ROWS)
            columns = _columns(frame.iloc[part], data, text_parts)
            if near:
                columns["neighbors"] = pa.StructArray.from_arrays(
                    [
                        pa.array(list(near[0][part].astype(np.int64)), pa.list_(pa.int64())),
                        pa.array(list(1 - near[1][part]), pa.list_(pa.float32())),
                    ],
                    names=["ids", "distances"],
                )
            writer.write_table(pa.table(columns, schema=schema))
            data.table.give_back()
    return command(path, neighbors=near is not None)


def _columns(part: pd.DataFrame, data: Dataset, text_parts: str) -> dict[str, Any]:
    panels = data.table.panels.iloc[part["row"].to_numpy()]
    page = panels["page"].to_numpy()
    pages = data.table.pages.iloc[page]
    texts = zip(*(panels[name].tolist() for name in text_parts.split("+")), strict=True)
    return {
        "projection_x": part["umap_dim1"].to_numpy(np.float32),
        "projection_y": part["umap_dim2"].to_numpy(np.float32),
        "neighbors_kept": part["trust"].to_numpy(np.float32),
        "id": panels["panel_id"].tolist(),
        "text": [" ".join(t for t in row if t) for row in texts],
        "book": pages["book_id"].tolist(),
        "page": pages["page_id"].tolist(),
        "page_type": pages["page_type"].tolist(),
        "split": np.asarray(SPLITS)[data.split[page]].tolist(),
        "cluster": part["cluster_name"].tolist(),
    }
