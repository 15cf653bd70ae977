"""Which pages a batch needs so that it has its multi-panel pages and its text pairs: dealing them out.

To a batch pages differ in two things only: how many text pairs they have (more than the batch needs are worth no more)
and whether they have two or more panels. Giving every batch `multi` multi-panel pages and `pairs` text pairs, with
no more pages than it has room for, is a bin covering problem, which is NP-hard in general. Batches need few pairs,
though, so there are few kinds of pages: `plan` deals them with care, and deals the batches that this leaves short again
by exhaustive search. Up to `SEARCHED` batches that decides the question.

P pages, n batches.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest

import numpy as np

Kind = tuple[int, bool]
"""Text pairs of a page, at most as many as a batch needs, and whether it has two or more panels."""

SEARCHED = 32  # batches that are dealt again together
GROUPS = (1, 4, 16)  # batches short of pairs that are tried together with others, where there are more than that
SHORT = 64  # with more batches short than that, too many pairs are asked for
BUDGET = 100_000  # times that a search may try a page in a batch; it gives up after a second or two


def spread(
    pages: np.ndarray, gains: np.ndarray, totals: np.ndarray, room: np.ndarray, goal: int
) -> tuple[list[int], list[int]]:
    """Deal pages one by one, each to the batch with the lowest total, until every batch has `goal`.

    Args:
        pages: (x,) pages in the order in which they are dealt.
        gains: (P,) what each page adds to a total.
        totals: (n,) what each batch has so far; changed.
        room: (n,) pages that each batch can still take; changed.
        goal: what each batch shall have.

    Returns:
        The pages that were dealt, and the batch of each.
    """
    heap = [(int(total), b) for b, total in enumerate(totals) if room[b] > 0]
    heapq.heapify(heap)
    below = int((totals < goal).sum())
    dealt: list[int] = []
    batches: list[int] = []
    for page in pages.tolist():
        if not below or not heap:
            break
        total, b = heap[0]
        more = total + int(gains[page])
        below -= total < goal <= more
        totals[b] = more
        room[b] -= 1
        dealt.append(page)
        batches.append(b)
        if room[b] > 0:
            heapq.heapreplace(heap, (more, b))
        else:
            heapq.heappop(heap)
    return dealt, batches


def gather(
    pages: np.ndarray, is_multi: np.ndarray, batches: np.ndarray, sizes: np.ndarray, multi: int
) -> tuple[list[int], list[int]]:
    """Deal pages to as few batches as hold them, in their order, so that every batch can still get `multi` others.

    Args:
        pages: (x,) pages to gather, in the order in which they are dealt.
        is_multi: (P,) bool, which pages have two or more panels.
        batches: (n,) batches in the order in which they are filled.
        sizes: (n,) pages of each batch.
        multi: multi-panel pages that each of all n batches has to have in the end.

    Returns:
        The pages that were dealt, and the batch of each.
    """
    spare = int(is_multi.sum()) - multi * len(sizes)  # multi-panel pages beyond those that batches have to have
    there = is_multi[pages]
    waiting = {kind: deque(np.flatnonzero(there == kind).tolist()) for kind in (False, True)}
    dealt: list[int] = []
    where: list[int] = []
    for b in batches.tolist():
        need, free = multi, int(sizes[b]) - multi
        while True:
            fit = {False: free > 0, True: need > 0 or (free > 0 and spare > 0)}
            first = min(((waiting[kind][0], kind) for kind in fit if fit[kind] and waiting[kind]), default=None)
            if first is None:
                break
            at, kind = first
            waiting[kind].popleft()
            dealt.append(int(pages[at]))
            where.append(b)
            if kind and need > 0:
                need -= 1
            else:
                free, spare = free - 1, spare - kind
    return dealt, where


def plan(have: Mapping[Kind, int], sizes: Sequence[int], multi: int, pairs: int) -> list[list[Kind]] | None:
    """The kinds of pages that give each batch `multi` multi-panel pages and `pairs` text pairs.

    Args:
        have: pages of each kind.
        sizes: (n,) pages of each batch.
        multi: multi-panel pages per batch; there must be as many for all batches.
        pairs: text pairs per batch.

    Returns:
        The kinds of pages for each batch, not more than its size; None where that cannot be. With more than `SEARCHED`
        batches, or when a search used up its `BUDGET`, None means that no way was found.
    """
    dealt = _dealt_with_care(have, sizes, multi, pairs)
    while short := [b for b, kinds in enumerate(dealt) if _pairs_of(kinds) < pairs]:
        if len(short) > SHORT or not any(
            _dealt_again(pool, dealt, have, sizes, multi, pairs) for pool in _pools(short, dealt, sizes)
        ):
            return None
    return _completed(dealt, have, multi)


def as_far_as_it_goes(have: Mapping[Kind, int], sizes: Sequence[int], multi: int, pairs: int) -> list[list[Kind]]:
    """As `plan` where not all batches can have `pairs`: each has `multi`, and rich pages go to different ones."""
    return _completed(_dealt_with_care(have, sizes, multi, pairs), have, multi)


def _pairs_of(kinds: Sequence[Kind]) -> int:
    return sum(pairs for pairs, _ in kinds)


def _multi_of(kinds: Sequence[Kind]) -> int:
    return sum(multi for _, multi in kinds)


def _dealt_with_care(have: Mapping[Kind, int], sizes: Sequence[int], multi: int, pairs: int) -> list[list[Kind]]:
    """Pages with pairs dealt richest first to the batch with the fewest, as long as all can still get their `multi`.

    Of batches with equally many pairs the one with the least room goes first, since it has the fewest ways to get more;
    then, for a multi-panel page, the one that lacks most of these, and for another page the one that lacks fewest.
    """
    room, need, total = list(sizes), [multi] * len(sizes), [0] * len(sizes)
    spare = sum(n for (_, is_multi), n in have.items() if is_multi) - multi * len(sizes)
    dealt: list[list[Kind]] = [[] for _ in sizes]

    def rank(b: int, is_multi: bool) -> tuple[int, int, int, int]:
        return total[b], room[b], -need[b] if is_multi else need[b], b

    def takes(b: int, is_multi: bool) -> bool:
        free = room[b] > need[b]
        return need[b] > 0 or (free and spare > 0) if is_multi else free

    heaps = {kind: [rank(b, kind) for b in range(len(sizes))] for kind in (False, True)} if pairs else {}
    for heap in heaps.values():
        heapq.heapify(heap)
    for kind in sorted((k for k in have if k[0] > 0), reverse=True):
        heap = heaps[kind[1]]
        for _ in range(have[kind]):
            # an entry is out of date once its batch has changed; a batch that cannot take a page now never will again
            while heap and not (heap[0] == rank(heap[0][-1], kind[1]) and takes(heap[0][-1], kind[1])):
                heapq.heappop(heap)
            if not heap:
                break
            b = heap[0][-1]
            dealt[b].append(kind)
            total[b], room[b] = total[b] + kind[0], room[b] - 1
            if kind[1] and need[b] > 0:
                need[b] -= 1
            else:
                spare -= kind[1]
            if total[b] < pairs:
                for is_multi, other in heaps.items():
                    heapq.heappush(other, rank(b, is_multi))
    return dealt


def _pools(short: Sequence[int], dealt: Sequence[Sequence[Kind]], sizes: Sequence[int]) -> Iterator[list[int]]:
    """Batches to deal again together: all of them, or some short ones with others that differ as much as possible."""
    if len(sizes) <= SEARCHED:
        yield list(range(len(sizes)))
        return
    alike: dict[tuple[int, tuple[Kind, ...]], list[int]] = {}
    for b in sorted(set(range(len(sizes))) - set(short)):
        alike.setdefault((sizes[b], tuple(sorted(dealt[b]))), []).append(b)
    groups = sorted(alike.values(), key=len)
    others = [b for turn in zip_longest(*groups) for b in turn if b is not None]  # one of each group, then the next
    for several in (n for i, n in enumerate(GROUPS) if i == 0 or GROUPS[i - 1] < len(short)):
        chosen = list(short[:several])
        yield chosen + others[: SEARCHED - len(chosen)]


def _dealt_again(
    pool: Sequence[int],
    dealt: list[list[Kind]],
    have: Mapping[Kind, int],
    sizes: Sequence[int],
    multi: int,
    pairs: int,
) -> bool:
    """Deal the batches of the pool from scratch with what the others leave; whether that gave them all they need."""
    inside = set(pool)
    outside = [kinds for b, kinds in enumerate(dealt) if b not in inside]
    left = Counter(have)
    for kinds in outside:
        left.subtract(kinds)
    owed = sum(max(0, multi - _multi_of(kinds)) for kinds in outside)
    for kind in sorted(kind for kind in left if kind[1]):  # the poorest multi-panel pages are owed to the others
        given = min(owed, left[kind])
        left[kind] -= given
        owed -= given
    found = _Search(left, [sizes[b] for b in pool], multi, pairs).result()
    if found is None:
        return False
    for b in pool:
        dealt[b] = found[sizes[b]].pop()
    return True


def _completed(dealt: list[list[Kind]], have: Mapping[Kind, int], multi: int) -> list[list[Kind]]:
    """The same deal, with the multi-panel pages that batches still lack; the poorest pages come first."""
    left = Counter(have)
    for kinds in dealt:
        left.subtract(kinds)
    rest = iter([kind for kind in sorted(left) if kind[1] for _ in range(left[kind])])
    return [kinds + [next(rest) for _ in range(multi - _multi_of(kinds))] for kinds in dealt]


class _Search:
    """Exhaustive search for a deal, richest page first.

    The richest page that is left goes to the next batch, or none of its sort (multi-panel or not) has to be used any
    more: a poorer one of the sort could change places with it. So each step chooses what joins that page.
    """

    def __init__(self, have: Mapping[Kind, int], sizes: Sequence[int], multi: int, pairs: int) -> None:
        self.kinds = sorted(have, reverse=True)
        self.counts = tuple(have[kind] for kind in self.kinds)
        self.sizes = sorted(set(sizes))
        self.left = tuple(list(sizes).count(size) for size in self.sizes)
        self.multi, self.pairs = multi, pairs
        self.seen: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
        self.poorest = [i for i in reversed(range(len(self.kinds))) if self.kinds[i][1]]
        self.tries = 0

    def result(self) -> dict[int, list[list[Kind]]] | None:
        """What each batch gets, by its size; None if there is no deal, or `BUDGET` did not suffice to find it."""
        steps = self._deal(self.counts, self.left)
        if steps is None:
            return None
        found: dict[int, list[list[Kind]]] = {size: [] for size in self.sizes}
        for size, way in steps:
            found[size].append([self.kinds[i] for i in way])
        return found

    def _deal(self, counts: tuple[int, ...], left: tuple[int, ...]) -> list[tuple[int, tuple[int, ...]]] | None:
        if not any(left):
            return []
        if (counts, left) in self.seen or self.tries > BUDGET or self._hopeless(counts, left):
            return None
        self.seen.add((counts, left))
        for first in self._firsts(counts):
            for s, size in enumerate(self.sizes):
                for way in self._ways(counts, first, size) if left[s] else ():
                    used = Counter(way)
                    rest = tuple(n - used[i] for i, n in enumerate(counts))
                    others = self._deal(rest, tuple(n - (i == s) for i, n in enumerate(left)))
                    if others is not None:
                        return [(size, way), *others]
        return None

    def _hopeless(self, counts: tuple[int, ...], left: tuple[int, ...]) -> bool:
        """Whether there are too few multi-panel pages, or too few pairs on pages that find room."""
        batches = sum(left)
        multis = sum(n for n, (_, multi) in zip(counts, self.kinds, strict=True) if multi)
        free = sum(n * (size - self.multi) for n, size in zip(left, self.sizes, strict=True))
        pairs = 0
        for n, (value, multi) in zip(counts, self.kinds, strict=True):
            used = n if multi else min(n, free)
            pairs += used * value
            free -= 0 if multi else used
        return multis < self.multi * batches or pairs < self.pairs * batches

    def _firsts(self, counts: tuple[int, ...]) -> list[int]:
        """The richest page that is left, then the richest of the other sort."""
        there = [i for i, n in enumerate(counts) if n]
        other = [i for i in there if self.kinds[i][1] != self.kinds[there[0]][1]]
        return there[:1] + other[:1]

    def _ways(self, counts: tuple[int, ...], first: int, size: int) -> list[tuple[int, ...]]:
        """What a batch of this size can hold beside a page of kind `first` and none before it; least waste first."""
        found: dict[tuple[int, ...], int] = {}
        there = list(counts)  # pages of each kind that are not chosen

        def choose(chosen: tuple[int, ...], i: int, need: int, lacking: int) -> None:
            self.tries += 1
            value, multi = self.kinds[i]
            still = need - (multi and need > 0)
            if not there[i] or not value or len(chosen) + 1 + still > size or self.tries > BUDGET:
                return
            there[i] -= 1
            if lacking > value:
                for j in range(i, len(there)):
                    choose((*chosen, i), j, still, lacking - value)
            else:
                whole = [*chosen, i]
                for j in self.poorest:  # the multi-panel pages that it still needs
                    more = min(still, there[j])
                    whole, still = whole + [j] * more, still - more
                if not still:
                    found.setdefault(tuple(sorted(whole)), value - lacking)
            there[i] += 1

        choose((), first, self.multi, self.pairs)
        return sorted(found, key=lambda way: (found[way], len(way)))
