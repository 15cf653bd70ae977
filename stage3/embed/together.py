"""Several processes write one store: each the chunks of its own pages, then the first one finishes it.

A chunk is embedded by itself and has one writer, so the store has the bytes that one process would have written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from stage3.embed.exporter import begin, run_export
from stage3.embed.stage4 import CHUNK
from stage3.errors import Interrupted
from stage3.peers import ALONE, Peers

if TYPE_CHECKING:
    from stage3.embed.plan import Export


def share_of(pages: tuple[int, int], rank: int, size: int) -> tuple[int, int] | None:
    """The pages that one of several processes writes: consecutive whole chunks, about as many as any other writes.

    Args:
        pages: (first, past last) row of the store that all of them write; the first is the start of a chunk.
        rank: 0 to size - 1.
        size: number of processes.

    Returns:
        (first, past last), or None where there are fewer chunks than processes and none is left for this one.

    Example:
        >>> [share_of((0, 252), rank, 2) for rank in (0, 1)]
        [(0, 100), (100, 252)]
    """
    first, end = pages
    chunks = -(-(end - first) // CHUNK)
    low, high = (chunks * place // size for place in (rank, rank + 1))
    return (first + low * CHUNK, min(first + high * CHUNK, end)) if low < high else None


def export_together(
    job: Export,
    peers: Peers = ALONE,
    *,
    shard: tuple[int, int] | None = None,
    stop: Callable[[], bool] = lambda: False,
    on_pages: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """`run_export` by all processes; each of them gets the same summary of what all have written.

    Args:
        job: what to export.
        peers: the processes; one alone simply exports.
        shard: as in `run_export`.
        stop: asked before every chunk; where it is true in one process, all end.
        on_pages: told how many pages this process has done since the last time.

    Raises:
        DataError, StorageError: as in `run_export`.
        Interrupted: a process was asked to stop; the same export goes on, with any number of processes.
    """
    if peers.size == 1:
        return run_export(job, shard=shard, stop=stop, on_pages=on_pages)
    if peers.leads:
        begin(job)  # so that no process takes what another has just made for the work of a stranger
    peers.wait()
    own, stopped = share_of(shard or (0, len(job.pages)), peers.rank, peers.size), ""
    found: dict[str, Any] = {"written": 0, "kept": 0}
    try:
        if own:
            found = run_export(job, shard=own, stop=stop, on_pages=on_pages)
    except Interrupted as error:
        stopped = str(error)
    if peers.any(bool(stopped)):
        raise Interrupted(stopped or "another process was asked to stop; the same command resumes")
    written, kept = (int(n) for n in peers.sum([found["written"], found["kept"]]))
    if peers.leads:  # which looks at every chunk again, as it does at those of parts that were written one by one
        found = found if shard else run_export(job)
    return peers.share(found | {"written": written, "kept": kept})
