"""Finding a page's file, or its label, by its canonical id."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from stage3.data.readers.books import names_its_book
from stage3.data.readers.names import Key, NameIndex, exact_key, hashes_of, normal_key, stem_key, suffix_key
from stage3.data.table import DataReport

UNRESOLVED, AMBIGUOUS, EXACT, EXTENSION, SUFFIX, NORMALISED = range(6)
RESOLVED_BY = ("unresolved", "ambiguous", "exact", "extension", "suffix", "normalised")  # as kept tables have it
MOST_SUFFIXES = 1000  # of those found by suffix that the report lists


@dataclass(frozen=True)
class Resolution:
    """Which name each query got: (N,) row or -1, and (N,) how, an index into `RESOLVED_BY`."""

    row: np.ndarray
    how: np.ndarray


def resolve(
    queries: pa.Array, index: NameIndex, report: DataReport, what: str, books: pa.Array | None = None
) -> Resolution:
    """Find each query among the names, by the first way that gives exactly one.

    Exact; without image extensions; the longest path suffix of two or more components; a bare leaf that no other name
    and no other query has; the normalized key. A suffix never leads to another book: either name has to be the end of
    the other, so that only folders above the book differ (`scans/Foo/1` and `Foo/1`, not `Foo/1` and `Bar/1`); see
    `_SameBook` for bare leaves. A name that one way has given away is out of reach of the next, so a page without a
    file never takes its neighbor's; a name that two queries claim at once goes to neither.

    Args:
        queries: canonical ids.
        index: the names among which they are looked for.
        report: ambiguous queries are noted there.
        what: the beginning of the note's code.
        books: the book of each query, for ids without a folder.
    """
    state = Resolution(np.full(len(queries), -1, np.int64), np.full(len(queries), UNRESOLVED, np.int8))
    clues: dict[int, list[int]] = {}  # of ambiguous queries: some rows that they could mean
    ways: list[tuple[Key, Key, int]] = [(key, key, code) for key, code in ((_same, EXACT), (stem_key, EXTENSION))]
    for parts in range(index.depth, 1, -1):
        ways += [(_suffix(parts), _whole(parts), SUFFIX), (_whole(parts), _suffix(parts), SUFFIX)]
    for of_query, of_name, code in ways:
        _step(state, queries, index, of_query, of_name, code, clues)
    if (state.how < EXACT).any():
        hashes, _ = hashes_of(queries, _suffix(1))
        values, counts = np.unique(hashes, return_counts=True)
        leaf, same_book = _suffix(1), _SameBook(queries, index.names, books)
        _step(state, queries, index, leaf, leaf, SUFFIX, clues, only=values[counts == 1], allowed=same_book)
    _step(state, queries, index, normal_key, normal_key, NORMALISED, clues, also_ambiguous=True)
    for row in np.flatnonzero(state.how == AMBIGUOUS)[: DataReport.MAX_EXAMPLES]:
        could = ", ".join(index.names[r].as_py() for r in clues.get(int(row), []))
        report.note(f"{what}_ambiguous", f"{queries[int(row)]} could be {could}", 0)
    if ambiguous := int((state.how == AMBIGUOUS).sum()):
        report.counts[f"{what}_ambiguous"] += ambiguous
    return state


def note_suffixes(found: Resolution, queries: pa.Array, names: pa.Array, report: DataReport, what: str) -> None:
    """List what was found by the end of its path, with both paths: nothing but folders above them tells them apart."""
    rows = np.flatnonzero(found.how == SUFFIX)
    if len(rows):
        pairs = ((queries[int(row)], names[int(found.row[row])]) for row in rows[:MOST_SUFFIXES])
        report.counts[f"{what}_by_suffix"] += len(rows)
        report.examples.setdefault(f"{what}_by_suffix", []).extend(f"{query} found as {name}" for query, name in pairs)


def _same(key: str) -> str:
    return key


def _suffix(parts: int) -> Key:
    return lambda key: suffix_key(key, parts)


def _whole(parts: int) -> Key:
    """The stem of names of exactly so many components."""
    return lambda key: stem if (stem := stem_key(key)).count("/") == parts - 1 else None


@dataclass(frozen=True)
class _SameBook:
    """Whether a query and a name with the same leaf may belong to one book.

    They may if the name stands in no folder. If the query stands in none, its leaf has to name its book (`Foo 012`, not
    `012`), or the name's folder has to.
    """

    queries: pa.Array
    names: pa.Array
    books: pa.Array | None

    def __call__(self, query: int, name: int) -> bool:
        page, file = (stem_key(exact_key(of[row].as_py())) for of, row in ((self.queries, query), (self.names, name)))
        if "/" not in file:
            return True
        book = "" if self.books is None else exact_key(self.books[query].as_py())
        in_its_book = bool(book) and f"/{file}".endswith(f"/{book}/{page}")
        return "/" not in page and (in_its_book or names_its_book(page))


def _step(
    state: Resolution,
    queries: pa.Array,
    index: NameIndex,
    of_query: Key,
    of_name: Key,
    code: int,
    clues: dict[int, list[int]],
    *,
    only: np.ndarray | None = None,
    allowed: Callable[[int, int], bool] | None = None,
    also_ambiguous: bool = False,
) -> None:
    """Try one way of comparing on the queries that are still open and the names that nobody has."""
    todo = np.flatnonzero(state.how < EXACT if also_ambiguous else state.how == UNRESOLVED)
    taken = np.zeros(len(index.names), bool)
    taken[state.row[state.row >= 0]] = True
    free = np.flatnonzero(~taken)
    if not len(todo) or not len(free):
        return
    hashes, have = hashes_of(queries if len(todo) == len(queries) else queries.take(pa.array(todo)), of_query)
    if only is not None:
        wanted = np.isin(hashes, only)
        hashes, have = hashes[wanted], have[wanted]
    names = index.sorted_by(of_name, free)
    rows, counts = names.find(hashes)
    uses = np.bincount(rows[counts == 1], minlength=len(index.names))
    one = counts == 1
    one[one] = uses[rows[one]] == 1
    at = todo[have]
    if allowed is not None:
        pairs = zip(at[one].tolist(), rows[one].tolist(), strict=True)
        one[one] = [allowed(query, name) for query, name in pairs]
    state.row[at[one]] = rows[one]
    state.how[at[one]] = code
    if only is None:  # a leaf that several names have is no clue at all
        many = (counts > 0) & ~one
        state.how[at[many]] = AMBIGUOUS
        for query, value in zip(at[many][:1000].tolist(), hashes[many][:1000].tolist(), strict=True):
            clues.setdefault(query, names.behind(value))
