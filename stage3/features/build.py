"""What building images' and texts' features has in common: keys of rows, shards and who takes them, threads, progress.

What is encoded together depends on the table, and on what the store held before, alone: never on threads, on how many
processes share the work, or on how often it was interrupted.

Shapes: V panels, n rows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from stage3 import cli
from stage3.errors import DataError
from stage3.features.store import KEY_BYTES, Array

EXAMPLES = 20  # paths kept of each kind of problem


class Noting(Protocol):
    """The part of `features.FeatureReport` that building fills in."""

    computed_images: int
    reused_images: int
    computed_texts: int
    reused_texts: int

    def note(self, code: str, where: str, n: int = 1) -> None:
        """Count a problem."""


class Keys:
    """Content keys of crops or texts.

    Attributes:
        keys: (V,) 16-byte keys.
        wanted: (V,) bool; rows that have a key: a box and a page file that could be read, or a text that is not empty.
    """

    def __init__(self, n: int) -> None:
        self.keys = np.zeros(n, dtype=f"S{KEY_BYTES}")
        self.wanted = np.zeros(n, dtype=bool)


@dataclass(frozen=True)
class Share:
    """The shards that one of several processes computes: its number's, counted round.

    Attributes:
        number: of the process, from 0.
        of: how many processes there are.
    """

    number: int = 0
    of: int = 1

    def shards(self, n: int) -> range:
        """Those of n shards that are this process's."""
        return range(self.number, n, self.of)


ALL = Share()


def fitting(vectors: Array, dtype: str, name: str) -> Array:
    """The vectors, if all their numbers are finite and stay so in the store's format."""
    if not np.isfinite(vectors).all():
        raise DataError(f"backbone {name}: its features are not finite; check its weights and the precision")
    if np.abs(vectors).max(initial=0.0) > np.finfo(dtype).max:
        raise DataError(f"backbone {name}: features up to {np.abs(vectors).max():.3g}; set feature_dtype to float32")
    return vectors


def ordered(
    pool: ThreadPoolExecutor | None, work: Callable[[Any], Any], jobs: Iterable[Any], workers: int
) -> Iterator[Any]:
    """Results in the order of the jobs; at most a few jobs per thread are ahead of the reader."""
    if pool is None:
        yield from map(work, jobs)
        return
    ahead: deque[Future[Any]] = deque()
    try:
        for job in jobs:
            ahead.append(pool.submit(work, job))
            if len(ahead) > 4 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        for future in ahead:
            future.cancel()


@contextmanager
def threads(workers: int) -> Iterator[ThreadPoolExecutor | None]:
    """Threads that decode; None for none."""
    if not workers:
        yield None
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        yield pool


@contextmanager
def bar(what: str, total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar's `advance`; one that does nothing where none is shown."""
    if not shown or not total:
        yield lambda n: None
        return
    with cli.progress(what, total) as shown_bar:
        yield shown_bar.advance
