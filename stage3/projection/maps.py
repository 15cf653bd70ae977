"""Maps of embedded panels, of one checkpoint or of one epoch after the other.

The explorer spawns the command, shows PCA while it works, reads the progress file, and then the Parquet.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from stage3.errors import ConfigError, DataError
from stage3.metrics.mapped import MappedRows
from stage3.metrics.nearest import Array
from stage3.metrics.neighbors import TRUST_K, exact_neighbors, own_rows, shared, trust
from stage3.projection import files
from stage3.projection.atlas import write_atlas
from stage3.projection.files import (
    NAME,
    Parameters,
    Tell,
    drift_path,
    epoch_files,
    make,
    projection_path,
)
from stage3.projection.layouts import aligned, clusters, oriented, pca, stratified, umap_layout
from stage3.projection.names import named
from stage3.projection.placing import place_all, record
from stage3.projection.reference import Reference, moved_share, reference_of, settled
from stage3.runs import RunFolder

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from stage3.batches.dataset import Dataset
    from stage3.data.table import PanelTable

DRIFT_PASSES = 120  # UMAP passes for an epoch that starts from the one before
DRIFT_RATE = 0.2


# --- computing


def project(
    x: Array | MappedRows,
    rows: Array,
    table: PanelTable,
    parameters: Parameters,
    tell: Tell,
    *,
    described: Callable[[Array], pd.DataFrame] | None = None,
    onto: Reference | None = None,
) -> pd.DataFrame:
    """The map of embedded panels: positions, clusters and neighbors kept (`trust`), one row per panel.

    Args:
        x: (N, D) panel embeddings, in memory or mapped.
        rows: (N,) rows of the panel table.
        table: the panels.
        parameters: of the layout; of more panels than its `limit` a sample is laid out, and `placing` does the rest.
        tell: called with (stage, done, total) as the work goes on.
        described: describes rows of the panel table, as `stage3.runs.inspection.describe_scattered`, to name clusters
            by the panels that were laid out; without it they are numbered.
        onto: an older map of panels of this table, which the new one starts from and is turned onto; the result's
            `attrs["aligned_to"]` says how.
    """
    import pandas as pd

    fitted = stratified(table.book_of_page[table.page_of_panel[rows]], parameters.limit)
    all_fitted = len(fitted) == len(x)
    tell("principal components", 0, 5)
    flat = pca(x)
    tell("nearest neighbors", 1, 5)
    own_x = x.take(fitted) if isinstance(x, MappedRows) else x[fitted]
    own_near, own_cosine = exact_neighbors(own_x, max(parameters.neighbors - 1, TRUST_K))
    tell("layout", 2, 5)
    aligned_to = None
    if onto is None:
        layout = umap_layout(
            own_x,
            (own_near, own_cosine),
            parameters.seed,
            n_neighbors=parameters.neighbors,
            min_dist=parameters.min_dist,
        )
    else:
        old = onto.positions(rows, ("umap_dim1", "umap_dim2"))
        flat = oriented(flat, onto.positions(rows, ("pca_1", "pca_2")))
        before = float(onto.frame["trust"].mean())
        layout, how = settled(own_x, own_near, own_cosine, old[fitted], before, parameters)
        aligned_to = {
            "file": f"{onto.path.parent.parent.name}/{onto.path.name}",
            "checkpoint": onto.about.get("checkpoint"),
            "shared": int((~np.isnan(old[:, 0])).sum()),
            "layout": how,
            "moved": moved_share(layout, old[fitted]),
        }
    tell("clusters", 3, 5)
    label = clusters(layout, parameters.min_cluster)
    tell("neighbors kept" if all_fitted else "placing the other panels", 4, 5)
    if all_fitted:
        xy, cluster, kept = layout, label, trust(own_x, layout, TRUST_K, near=own_near)
    else:
        advance = _percents(tell, "placing the other panels", 4, len(x))
        xy, cluster, kept = place_all(x, fitted, layout, label, advance=advance)
    frame = pd.DataFrame(_identity(table, rows), copy=False)
    frame["cluster_id"] = cluster.astype(np.int32)
    frame["umap_dim1"], frame["umap_dim2"] = xy[:, 0], xy[:, 1]
    frame["row"] = rows.astype(np.int64)
    frame["pca_1"], frame["pca_2"] = flat[:, 0], flat[:, 1]
    frame["trust"], frame["fitted"] = kept, own_rows(len(x), fitted) >= 0
    names = files.numbered(label) if described is None else named(described(rows[fitted]), label)
    of_cluster = dict(zip(label.tolist(), names, strict=True))
    frame[NAME] = _repeated([of_cluster.get(c, "") for c in range(-1, int(cluster.max()) + 1)], cluster + 1)
    frame.attrs["aligned_to"] = aligned_to
    tell("done", 5, 5)
    return frame


def _percents(tell: Tell, stage: str, done: int, total: int) -> Callable[[int], None]:
    """What takes note of the parts of a long stage: how many of its panels or pages, at each percent of them."""
    reached = 0

    def advance(more: int) -> None:
        nonlocal reached
        before, reached = reached * 100 // total, reached + more
        if (percent := reached * 100 // total) > before:
            tell(f"{stage}: {reached:,} of {total:,}", 100 * done + percent, 500)

    return advance


def _identity(table: PanelTable, rows: Array) -> dict[str, Any]:
    page, pages = table.page_of_panel[rows], table.pages
    name = pages["page_id"].str.replace(r"(?s)^.*[/\\]", "", regex=True)
    return {
        "page_index": page,
        "panel_index": table.panels["order"].to_numpy()[rows].astype(np.int64),
        "canonical_id": _repeated(pages["page_id"], page),
        "comic_name": _repeated(pages["book_id"], page),
        "page_name": _repeated(name, page),
        "panel_count": pages["n_panels"].to_numpy().astype(np.int64)[page],
    }


def _repeated(values: Sequence[str] | pd.Series, at: Array) -> pd.arrays.ArrowExtensionArray:
    """(N,) the texts at these places of a short list; each is held once, and files have them as plain texts.

    Not a `Categorical`, which keeps a Python object of every text to see that none is there twice.
    """
    import pandas as pd
    import pyarrow as pa

    found = pa.array(values, pa.large_string(), from_pandas=True)
    texts = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
    return pd.arrays.ArrowExtensionArray(pa.DictionaryArray.from_arrays(pa.array(at.astype(np.int32)), texts))


def drift(epochs: Sequence[tuple[int, Array, Array]], parameters: Parameters, tell: Tell | None = None) -> pd.DataFrame:
    """The map of each saved epoch, each layout started from the one before, so that panels move only as they must.

    Args:
        epochs: (epoch, (N, D) embeddings, (N,) rows of the panel table), ascending; only panels that every epoch
            holds are drawn.
        parameters: of the layouts.
        tell: called with (stage, done, total).

    Returns:
        Columns epoch, row, umap_dim1, umap_dim2, kept: the share of a panel's 15 neighbors in D dimensions that it
        had in the epoch before, NaN in the first.

    Raises:
        DataError: no epoch, or no panel that all of them hold.
    """
    import pandas as pd

    if not epochs:
        raise DataError("no saved embeddings: train with --embed_every 1 to keep them")
    rows = epochs[0][2]
    for _, _, other in epochs[1:]:
        rows = np.intersect1d(rows, other)
    if not len(rows):
        raise DataError("the saved epochs have no panel in common: the data changed between them")
    parts, xy, before = [], None, None
    for i, (epoch, x, held) in enumerate(epochs):
        if tell:
            tell(f"epoch {epoch}", i, len(epochs))
        z = x[own_rows(int(max(held.max(), rows.max())) + 1, held)[rows]]
        near, cosine = exact_neighbors(z, max(parameters.neighbors - 1, TRUST_K))
        layout = umap_layout(
            z,
            (near, cosine),
            parameters.seed,
            xy,
            n_neighbors=parameters.neighbors,
            min_dist=parameters.min_dist,
            epochs=None if xy is None else DRIFT_PASSES,
            rate=1.0 if xy is None else DRIFT_RATE,
        )
        xy = layout if xy is None else aligned(layout, xy)
        kept = (
            np.full(len(rows), np.nan, np.float32) if before is None else shared(before[:, :TRUST_K], near[:, :TRUST_K])
        )
        columns = {"epoch": epoch, "row": rows, "umap_dim1": xy[:, 0], "umap_dim2": xy[:, 1], "kept": kept}
        parts.append(pd.DataFrame(columns))
        before = near
    return pd.concat(parts, ignore_index=True)


# --- what the child process does


def _map_work(
    the_run: RunFolder,
    step: int,
    parameters: Parameters,
    say: Callable[[str], None],
    *,
    align: bool,
    roots: Sequence[Path],
) -> Callable[[Tell], Any]:
    def work(tell: Tell) -> tuple[pd.DataFrame, dict[str, Any]]:
        from stage3.runs.data import differences, load_data
        from stage3.runs.inspection import describe_scattered
        from stage3.runs.tuned import seen_by

        data = load_data(the_run, progress=False)
        for note in differences(the_run, data):
            say(note)
        tell("embedding panels", 0, 5)
        x, rows = _embeddings(the_run, step, seen_by(the_run, step, data), tell)
        if not len(rows):
            raise DataError(f"{the_run.path}: its data set has no panel that can be embedded")
        onto = reference_of(the_run, data.table.fingerprint(), len(rows), roots) if align else None
        described = partial(describe_scattered, data, the_run.config.text_parts)
        frame = project(x, rows, data.table, parameters, tell, described=described, onto=onto)
        aligned_to = frame.attrs["aligned_to"]
        if onto is not None and onto.path == projection_path(the_run, step, parameters):
            aligned_to = onto.about.get("aligned_to")  # a map that is made again stays where it was put
        about = {"checkpoint": the_run.fingerprint(step), "step": step, "table": data.table.fingerprint()}
        about |= dataclasses.asdict(parameters) | record(int(frame["fitted"].sum()), len(frame))
        return frame, about | {"aligned_to": aligned_to}

    return work


def _embeddings(
    the_run: RunFolder, step: int, data: Dataset, tell: Tell = lambda *_: None
) -> tuple[Array | MappedRows, Array]:
    """(N, D) panel embeddings, mapped where there are many, and (N,) their rows of the panel table."""
    from stage3.model.embedding import embed
    from stage3.model.mapped import embed_mapped, is_large

    with the_run.threads():
        model = the_run.model(step)
        if is_large(data, model.encoder.spec.dim):
            advance = _percents(tell, "embedding pages", 0, len(data.pages("all")))
            made = embed_mapped(
                model, the_run.fingerprint(step), data, the_run.config.cache_dir, ("panel",), on_pages=advance
            )
            return made.open("panel"), made.rows.numpy()
        embedded = embed(model, data.panel_set, data.pages("all"))
    return embedded.panel.numpy(), embedded.rows.numpy()


def _drift_work(the_run: RunFolder, parameters: Parameters) -> Callable[[Tell], Any]:
    def work(tell: Tell) -> tuple[pd.DataFrame, dict[str, Any]]:
        from stage3.model.embedding import load_embeddings

        epochs = []
        for epoch, path in epoch_files(the_run):
            x, rows = load_embeddings(path)
            epochs.append((epoch, x.numpy(), rows.numpy()))
        frame = drift(epochs, parameters, tell)
        return frame, {"epochs": [e for e, _, _ in epochs]} | dataclasses.asdict(parameters)

    return work


# --- what the command and `Run.project` share


def project_run(
    run: RunFolder,
    *,
    checkpoint: int | None = None,
    drift: bool = False,
    parameters: Parameters | None = None,
    align: bool = True,
    roots: Sequence[Path] = (),
    again: bool = False,
    advance: Callable[[int], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Path, bool]:
    """The map of a run's checkpoint, or of its saved epochs, made unless it is there.

    Args:
        run: the run.
        checkpoint: step; None is the best.
        drift: lay out the saved epochs instead of one checkpoint.
        parameters: of the layout.
        align: start from an older map of the same panels, in this run or one beside it, and lie on it.
        roots: folders of runs to look for it in, besides the run's own.
        again: make the map even if it is there: after the data set has changed, or without `align` to begin anew.
        advance: called with the percents of the work that were done since the last time; each stage counts alike.
        say: takes a note on how the data differs from what the run was trained on, where a map is made.

    Returns:
        The Parquet file, and whether it was there already.

    Raises:
        ConfigError: the packages that make a map are not installed.
        DataError: nothing to lay out.
        StorageError: no such checkpoint, or the map cannot be written.
    """
    parameters = parameters or Parameters()
    if drift:
        path, work = drift_path(run, parameters), _drift_work(run, parameters)
    else:
        step = run.checkpoint(checkpoint).step
        path, work = (
            projection_path(run, step, parameters),
            _map_work(run, step, parameters, say, align=align, roots=roots),
        )
    there = path.is_file() and not again
    if not there:  # a map that is there is only read: a shipped run's folder stays as it is
        check_installed()
        make(path, _shown(work, advance), again=again)
    return path, there


def atlas_of_run(
    run: RunFolder, out: Path | str, *, checkpoint: int | None = None, parameters: Parameters | None = None
) -> str:
    """Write a map that was made as a file for Embedding Atlas, see `stage3.projection.atlas`.

    Returns:
        The command that opens it.

    Raises:
        ConfigError: `out` does not end in .parquet.
        DataError: the data set has changed since the map was made.
        StorageError: there is no such map, or the file cannot be written.
    """
    from stage3.runs.data import load_data
    from stage3.runs.tuned import seen_by

    step = run.checkpoint(checkpoint).step
    path = projection_path(run, step, parameters)
    frame, data = files.load(path), load_data(run, progress=False)
    if frame.attrs["about"].get("table") != data.table.fingerprint():
        raise DataError(f"{path}: the data set has changed since this map was made. Make it again with --again.")
    x = None
    if bool(frame["fitted"].all()):
        found, rows = _embeddings(run, step, seen_by(run, step, data))
        assert np.array_equal(rows, frame["row"])
        x = found.take(np.arange(len(rows))) if isinstance(found, MappedRows) else found
    return write_atlas(out, frame, data, run.config.text_parts, x)


def check_installed() -> None:
    """Refuse to make a map without the packages for it, which come with the explorer."""
    wanted = {"umap": "umap-learn", "sklearn": "scikit-learn"}
    missing = [package for module, package in wanted.items() if find_spec(module) is None]
    if missing:
        raise ConfigError(f"a map needs {' and '.join(missing)}: pip install {' '.join(missing)}, or stage3[app]")


def _shown(work: Callable[[Tell], Any], advance: Callable[[int], None]) -> Callable[[Tell], Any]:
    def shown(tell: Tell) -> Any:
        reached = 0

        def both(stage: str, done: int, total: int) -> None:
            nonlocal reached
            tell(stage, done, total)
            now = done * 100 // total
            advance(max(0, now - reached))
            reached = max(reached, now)

        return work(both)

    return shown
