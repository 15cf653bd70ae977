"""Writes a Stage 4 store so that no fault can spoil it: after any end of an attempt the next one makes the same bytes.

Chunks whose hash still is what was recorded are kept, the others are made again; the mark of a finished store is taken
away before anything changes and written last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from stage3.embed.plan import Export, write_metadata, write_sidecar
from stage3.embed.stage4 import (
    CHUNK,
    Places,
    add_done,
    array_files,
    chunk_damage,
    completion,
    damages,
    done_bytes,
    done_lines,
    pretty,
    strangers,
    write_chunk,
)
from stage3.errors import DataError, Interrupted, StorageError
from stage3.storage import (
    Lock,
    clear_scratch,
    make_folder,
    read_json,
    replace_file,
    replacing,
    storing,
    sync_folder,
)

__all__ = ["Export", "begin", "run_export"]

# Bits of an embedding may differ between these; chunks of two kinds must not meet in one store.
EXACT = ("device", "threads", "torch", "embedded_pages")
FREE = ("run",)  # written for people only


def run_export(
    job: Export,
    *,
    shard: tuple[int, int] | None = None,
    stop: Callable[[], bool] = lambda: False,
    on_pages: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """Write the store, or the chunks of some of its pages; go on with what an earlier attempt left.

    Args:
        job: what to export.
        shard: (first, past last) page rows to write, on chunk borders; None writes what is missing and finishes.
        stop: asked before every chunk.
        on_pages: told how many pages were done since the last time.

    Returns:
        `pages panels chunks written kept finished panels_cut pages_cut`.

    Raises:
        DataError: the store at this place is made of something else.
        StorageError: somebody else writes it, or the disk fails.
        Interrupted: `stop()` was true; the same export goes on later.
    """
    places = job.places
    wanted = range(job.chunks) if shard is None else _chunks_of(job, shard)
    name = "" if shard is None else f"-{shard[0]}-{shard[1]}"
    _check_place(places)
    make_folder(places.export)
    with _locked(places, name):
        other_bits = _begin(job, clean_all=shard is None)
        kept = _kept_chunks(places, wanted)
        on_pages(sum(_pages_in(job, chunk) for chunk in kept))
        missing = [chunk for chunk in wanted if chunk not in kept]
        if missing and kept and other_bits:
            raise StorageError(
                f"{places.zarr} was begun with {other_bits}; its bytes would differ. Continue with the same."
            )
        finished = not missing and (shard is not None or (places.complete.exists() and not any(damages(places))))
        if not finished:
            _withdraw(places)
            replace_file(places.done(name), done_bytes(kept))
            for chunk in missing:
                if stop():
                    raise Interrupted(f"stopped before chunk {chunk} of {job.chunks}; the same command resumes")
                add_done(places.done(name), write_chunk(places, chunk, *job.embed_chunk(chunk)))
                on_pages(_pages_in(job, chunk))
            if shard is None:
                _finish(job)
    panels_cut, pages_cut = job.cut
    return {
        "pages": len(job.pages),
        "panels": len(job.layout[0]) - panels_cut,
        "chunks": job.chunks,
        "written": len(missing),
        "kept": len(kept),
        "finished": shard is None,
        "panels_cut": panels_cut,
        "pages_cut": pages_cut,
    }


def begin(job: Export) -> None:
    """Record the plan and write Zarr's own files, before several processes write the chunks of their pages.

    Raises:
        DataError: the store at this place is made of something else.
    """
    _check_place(job.places)
    make_folder(job.places.export)
    _begin(job, clean_all=False)


def _chunks_of(job: Export, shard: tuple[int, int]) -> range:
    first, end = shard
    if not 0 <= first < end <= len(job.pages) or first % CHUNK or (end % CHUNK and end != len(job.pages)):
        raise DataError(f"pages {first}:{end} must be multiples of {CHUNK}; the last page is {len(job.pages)}")
    return range(first // CHUNK, -(-end // CHUNK))


def _pages_in(job: Export, chunk: int) -> int:
    return min(CHUNK, len(job.pages) - chunk * CHUNK)


def _check_place(places: Places) -> None:
    """Refuse to write over what no export made."""
    if places.plan.exists():
        return
    for path in (places.zarr, places.metadata, places.sidecar):
        if path.exists():
            raise DataError(f"{path} exists and was not written by an export. Choose another --out, or move it away.")


@contextmanager
def _locked(places: Places, shard: str) -> Iterator[None]:
    """Hold this writer's lock; writers of parts may work side by side, the writer of the whole store works alone."""
    own = Lock(places.lock(shard))
    own.acquire()
    try:  # both kinds take their own lock first and look at the others' then, so two never both go on
        others = [places.lock()] if shard else list(places.export.glob("lock-*"))
        for path in others:
            if Lock(path).is_held():
                raise StorageError(f"{places.zarr} is being written by another export ({path}). Wait for it.")
        yield
    finally:
        own.release()


def _begin(job: Export, *, clean_all: bool) -> str:
    """Record the plan, or refuse to go on with another one; write Zarr's own files.

    Returns:
        What is different now of all that decides an embedding's last bits; empty when nothing is.
    """
    places, other_bits = job.places, ""
    if places.plan.exists():
        before = read_json(places.plan)
        changed = [k for k in job.plan if k not in (*FREE, *EXACT) and before.get(k) != job.plan[k]]
        if changed:
            shown = "; ".join(f"{k}: {str(before.get(k))[:24]} then, {str(job.plan[k])[:24]} now" for k in changed)
            raise DataError(
                f"{places.zarr} is a store of something else ({shown}). Choose another --out, or "
                f"delete it and {places.export}."
            )
        other_bits = ", ".join(
            f"{k} {before.get(k)} (now {job.plan[k]})" for k in EXACT if before.get(k) != job.plan[k]
        )
    else:
        replace_file(places.plan, pretty(job.plan))
    files = _zarr_files(job)
    for folder in (places.zarr, *(places.zarr / name for name in ("panel_embeddings", "panel_masks"))):
        make_folder(folder)
    for folder in (places.export, places.zarr, *(p for p in places.zarr.iterdir() if p.is_dir())):
        clear_scratch(folder, all_writers=clean_all)
    for name, data in files.items():
        path = places.zarr / name
        if not path.is_file() or path.read_bytes() != data:
            replace_file(path, data)
    return other_bits


def _zarr_files(job: Export) -> dict[str, bytes]:
    told = {k: job.plan[k] for k in ("format", "step", "checkpoint", "table", "normalised")}
    return array_files(len(job.pages), job.plan["dim"], {"stage3": told})


def _kept_chunks(places: Places, wanted: range) -> dict[int, dict[str, Any]]:
    """Chunks that an earlier attempt, or a writer of a part, recorded and that still are what was recorded."""
    found: dict[int, dict[str, Any]] = {}
    for path in [places.done(), *sorted(places.export.glob("done-*.jsonl"))]:
        for chunk, entry in done_lines(path).items():
            if chunk in wanted and chunk not in found and not chunk_damage(places, entry):
                found[chunk] = entry
    return found


def _withdraw(places: Places) -> None:
    """Take the mark of a finished store away before anything in it changes."""
    with storing(places.complete):
        places.complete.unlink(missing_ok=True)
        sync_folder(places.export)


def _finish(job: Export) -> None:
    """Write what lies beside the chunks, then the mark."""
    places = job.places
    for target, write in ((places.metadata, write_metadata), (places.sidecar, write_sidecar)):
        with replacing(target, within=places.export) as scratch:
            write(job, scratch)
    replace_file(places.done(), done_bytes(done_lines(places.done())))
    with storing(places.export):
        for path in places.export.glob("done-*.jsonl"):
            path.unlink()
        sync_folder(places.export)
    unknown = strangers(places, set(_zarr_files(job)), job.chunks)
    if unknown:
        raise StorageError(f"{unknown[0]} does not belong to the store. Move it away and run the same command again.")
    replace_file(places.complete, completion(places, read_json(places.plan), _zarr_files(job)))
