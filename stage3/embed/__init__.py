"""Write the panel embeddings of a run into the store that Stage 4 reads, or check one.

`plan` says what an export writes, `exporter` writes it, alone or `together` with other processes, and `stage4` is the
store; `python -m stage3.embed` is the command.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stage3.cli import counted, progress, stopping
from stage3.errors import ConfigError, DataError
from stage3.runs import RunFolder
from stage3.runs.data import check_features, differences, load_data
from stage3.runs.tuned import seen_by

if TYPE_CHECKING:
    from stage3.batches import Dataset
    from stage3.peers import Peers


def export_run(
    run: RunFolder,
    out: Path | str,
    *,
    checkpoint: int | None = None,
    data: Dataset | None = None,
    split: str = "all",
    pages: str | None = None,
    device: str = "auto",
    tell: Callable[[str], None] = lambda _: None,
    peers: Peers | None = None,
) -> dict[str, Any]:
    """Write the panel embeddings of a checkpoint as a Zarr store, or go on with one that was stopped.

    Args:
        run: the run.
        out: the store, `X.zarr`.
        checkpoint: step; None is the best.
        data: the data set; None loads the run's own.
        split: which pages: "all", "train", "val" or "test".
        pages: `A:B` writes only these rows of the store, on borders of 100 pages; others may run beside it.
        device: "auto", "cpu" or "cuda"; part of what makes bytes equal.
        tell: takes a line for a person.
        peers: the processes that write the store together, see `stage3.embed.together`; None is this one alone.

    Returns:
        What was written: `finished`, `pages`, `panels`, `written`, `kept`, `run`, `step`, `checkpoint`, `notes` (how
        the data differs from what the run was trained on) and so on.

    Raises:
        ConfigError, DataError: nothing to export, or data that is not for this run.
        Interrupted: it was asked to stop; the same call goes on.
        StorageError: the store is of other embeddings, or cannot be written.
    """
    from stage3.embed.plan import Export
    from stage3.embed.together import export_together, share_of
    from stage3.features import usable_device
    from stage3.peers import ALONE

    peers = peers or ALONE
    where = peers.device(usable_device(device))
    with run.threads():
        step = run.checkpoint(checkpoint).step
        model = run.model(step).to(where)
        data = data or load_data(run)
        check_features(run, model.encoder.spec, data)
        job = Export.of(run, step, model, seen_by(run, step, data), out, split, where)
        shard = page_range(pages, len(job.pages)) if pages else None
        tell(f"exporting {run.path}, step {step}, {counted(len(job.pages), 'page')}, to {job.places.zarr}")
        notes = differences(run, data)
        for note in notes:
            tell(f"note: {note}")
        first, end = share_of(shard or (0, len(job.pages)), peers.rank, peers.size) or (0, 0)
        shown = progress("embedding pages", end - first) if peers.leads else nullcontext()
        with stopping() as stop, shown as bar:
            on_pages = bar.advance if bar else lambda _: None
            found = export_together(job, peers, shard=shard, stop=stop, on_pages=on_pages)
        for line in summary_lines(found, job.places):
            tell(line)
    return found | {"run": str(run.path), "step": step, "checkpoint": job.plan["checkpoint"], "notes": notes}


def page_range(text: str, pages: int) -> tuple[int, int]:
    """`A:B` as numbers; an end left out, or beyond the last page, is the last page."""
    first, colon, end = text.partition(":")
    if not colon or not (first or "0").isdecimal() or not (end or "0").isdecimal():
        raise ConfigError(f"pages: {text!r} is not A:B, such as 0:1000")
    if int(first or 0) >= pages:
        raise ConfigError(f"pages: {text!r} starts after the last row; the store has {counted(pages, 'page')}")
    return int(first or 0), min(int(end or pages), pages)


def summary_lines(found: Mapping[str, Any], places: Any) -> Iterator[str]:
    """What was written, in words."""
    if found["panels_cut"]:
        cut = f"{counted(found['panels_cut'], 'panel')} on {counted(found['pages_cut'], 'page')}"
        yield f"left out: {cut}; Stage 4 holds 16 panels per page"
    if not found["finished"]:
        written = f"{counted(found['written'], 'chunk')} written, {found['kept']} were there"
        yield f"{written}; run without --pages to finish the store"
        return
    if not found["written"]:
        yield f"{places.zarr} is complete: {counted(found['chunks'], 'chunk')} as written"
    else:
        yield f"{places.zarr}: {counted(found['pages'], 'page')}, {counted(found['panels'], 'panel')}"
        yield f"{counted(found['written'], 'chunk')} written, {found['kept']} kept from an earlier attempt"
    yield f"beside it: {places.metadata.name} (pages in row order), {places.sidecar.name} (one row per panel)"


def verify(out: Path | str, tell: Callable[[str], None] = lambda _: None) -> list[str]:
    """Every damage of a finished store, told one by one.

    Raises:
        DataError: there is no store.
    """
    from stage3.embed.stage4 import Places, damages

    places = Places.of(out)
    if not places.zarr.is_dir():
        raise DataError(f"{places.zarr}: no such store")
    found = []
    for damage in damages(places):
        found.append(damage)
        tell(damage)
    if not found:
        tell(f"{places.zarr}: intact")
    return found
