"""Batches that are cut while the step before is computed: a GPU need not wait for the host's memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")


def ahead(items: Iterable[T], make: Callable[[T], U], *, beforehand: bool) -> Iterator[tuple[T, U]]:
    """Each item with what is made of it, in order.

    Args:
        items: read in the caller's thread, at most one more than was given out.
        make: a function of the item alone, so that it does not matter when it runs.
        beforehand: the next one is made in a thread of its own while the caller works; else each when asked for.

    Raises:
        Exception: whatever `make` raised, when its item's turn comes.
    """
    if not beforehand:
        yield from ((item, make(item)) for item in items)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="batch") as pool:
        waiting: tuple[T, Future[U]] | None = None
        for item in items:
            following = (item, pool.submit(make, item))
            if waiting is not None:
                yield waiting[0], waiting[1].result()
            waiting = following
        if waiting is not None:
            yield waiting[0], waiting[1].result()
