"""Dealing pages to batches, by hand and where there is nothing to spare."""

import itertools
import random
from collections import Counter

import numpy as np
import pytest

from stage3.batches import PageSampler, deal


def even(seed: int, batches: int, size: int) -> Counter[deal.Kind]:
    """Pages of which each batch gets just two multi-panel pages and four pairs, if they are dealt right."""
    draw = random.Random(seed)
    ways = [(4,), (3, 1), (2, 2), (2, 1, 1), (1, 1, 1, 1)]
    kinds: list[deal.Kind] = []
    for _ in range(batches):
        way = draw.choice([way for way in ways if len(way) <= size])
        multi = [True] * 2 + [False] * (size - 2)
        draw.shuffle(multi)
        kinds += zip([*way, *[0] * (size - len(way))], multi, strict=True)
    return Counter(kinds)


@pytest.mark.parametrize(
    ("seed", "batches"), [(0, 34), (20, 34), (33, 34), (35, 36), (67, 36), (35, 60), (53, 60), (38, 40)]
)
def test_a_plan_gives_every_batch_all_it_needs_also_of_more_batches_than_are_searched_at_once(seed, batches):
    have, sizes = even(seed, batches, 3), [3] * batches
    careful = [sum(n for n, _ in kinds) for kinds in deal.as_far_as_it_goes(have, sizes, 2, 4)]
    found = deal.plan(have, sizes, 2, 4)
    assert found is not None
    for kinds in found:
        assert (sum(n for n, _ in kinds), sum(multi for _, multi in kinds)) == (4, 2)
        assert len(kinds) <= 3
    used = Counter(kind for kinds in found for kind in kinds)
    assert all(used[kind] <= have[kind] for kind in used)
    assert sum(n >= 4 for n in careful) in range(batches - 8, batches)  # by care alone nearly all have what they need


def test_rich_pages_go_to_different_batches_and_each_batch_gets_its_multi_panel_page():
    have = {(4, False): 2, (2, True): 1, (1, True): 1, (0, True): 2, (1, False): 1}
    found = deal.as_far_as_it_goes(have, [2, 2, 2, 3], 1, 4)
    assert [sorted(kinds) for kinds in found] == [
        [(0, True), (4, False)],
        [(0, True), (4, False)],
        [(2, True)],
        [(1, False), (1, True)],  # the fewest pairs of all until then
    ]


def test_pages_are_spread_to_the_batch_with_the_lowest_total_that_has_room():
    gains, totals, room = np.array([5, 3, 2, 2, 1, 9]), np.array([1, 0, 4]), np.array([2, 1, 1])
    dealt = deal.spread(np.array([1, 2, 3, 4, 0]), gains, totals, room, 5)
    assert dealt == ([1, 2, 3, 4], [1, 0, 0, 2])  # 3 to the empty one, which is full then; the last has 5 with 1 more
    assert (totals.tolist(), room.tolist()) == ([5, 3, 5], [0, 0, 0])
    assert deal.spread(np.array([0]), gains, np.array([5, 6]), np.array([1, 1]), 5) == ([], [])


def test_pairs_are_gathered_beside_the_multi_panel_pages_that_each_batch_has_to_have():
    is_multi = np.array([True, False, True, True, False, False, False])
    found = deal.gather(np.array([0, 1, 2, 4, 5, 6]), is_multi, np.array([1, 0]), np.array([3, 3]), 1)
    # batch 1 first: a multi-panel page of its own and another, of three for two batches, and one more
    assert found == ([0, 1, 2, 4, 5], [1, 1, 1, 0, 0])


def drawn(seed: int, most: int = 3, pages: int = 9) -> tuple[Counter[deal.Kind], list[int], int, int]:
    """A few pages of each kind, the sizes of the batches (which differ by one at most), and what each needs."""
    draw = random.Random(seed)
    sizes = sorted((draw.choice([2, 3]) for _ in range(draw.randint(1, most))), reverse=True)
    pairs = draw.randint(1, 4)
    have = Counter((draw.randint(0, pairs), draw.random() < 0.6) for _ in range(draw.randint(2, pages)))
    multi = draw.randint(0, min(2, sum(n for (_, is_multi), n in have.items() if is_multi) // len(sizes)))
    return have, sizes, multi, pairs


def can_be(have: Counter[deal.Kind], sizes: list[int], multi: int, pairs: int) -> bool:
    """Whether there is a deal at all: every choice of pages for the first batch, then for the others."""
    have = have + Counter({(0, False): sum(sizes)})  # a place may be empty, too
    kinds = sorted(have)
    left = {tuple(have[kind] for kind in kinds)}  # after each batch, all that can be left
    for size in sizes:
        ways = [
            tuple(way.count(kind) for kind in kinds)
            for way in itertools.combinations_with_replacement(kinds, size)
            if sum(v for v, _ in way) >= pairs and sum(m for _, m in way) >= multi
        ]
        rest = (tuple(map(int.__sub__, counts, way)) for counts in left for way in ways)
        left = {counts for counts in rest if min(counts) >= 0}
    return bool(left)


def just_enough(seed: int, full: bool = False) -> tuple[Counter[deal.Kind], list[int], int, int]:
    """As `drawn`, of four batches that can just have their pairs: no page may be wasted.

    With `full` there is no room for anything but multi-panel pages.
    """
    draw = random.Random(seed)
    sizes, multi = sorted(draw.choices([2, 3], k=4), reverse=True), draw.randint(1, 2)
    sizes, multi, pairs = ([3] * 4, 3, 16) if full else (sizes, multi, 8)
    kinds: list[deal.Kind] = []
    for size in sizes:
        cuts = [0, *sorted(draw.sample(range(1, pairs), size - 1)), pairs]
        sorts = [i < multi or draw.random() < 0.3 for i in range(size)]
        kinds += zip([b - a for a, b in itertools.pairwise(cuts)], draw.sample(sorts, size), strict=True)
    return Counter(kinds), sizes, multi, pairs


def assert_dealt(dealt: list[list[deal.Kind]], have: Counter[deal.Kind], sizes: list[int], multi: int) -> None:
    assert Counter(kind for kinds in dealt for kind in kinds) <= have
    for kinds, size in zip(dealt, sizes, strict=True):
        assert len(kinds) <= size
        assert sum(is_multi for _, is_multi in kinds) >= multi


def pairs_of(dealt: list[list[deal.Kind]]) -> list[int]:
    return [sum(value for value, _ in kinds) for kinds in dealt]


def test_a_plan_is_found_where_there_is_one_and_gives_each_batch_what_it_needs():
    found_for = Counter()
    for seed in range(250):
        have, sizes, multi, pairs = drawn(seed)
        found = deal.plan(have, sizes, multi, pairs)
        assert (found is not None) is can_be(have, sizes, multi, pairs), seed
        found_for[found is not None] += 1
        if found:
            assert_dealt(found, have, sizes, multi)
            assert min(pairs_of(found)) >= pairs
        assert_dealt(deal.as_far_as_it_goes(have, sizes, multi, pairs), have, sizes, multi)
    assert min(found_for[True], found_for[False]) > 50


def test_pages_that_just_suffice_are_dealt_where_care_does_not_find_how():
    short = 0
    for seed in range(80):
        have, sizes, multi, pairs = just_enough(seed)
        found = deal.plan(have, sizes, multi, pairs)
        assert found is not None, seed
        assert_dealt(found, have, sizes, multi)
        assert pairs_of(found) == [pairs] * 4
        short += min(pairs_of(deal.as_far_as_it_goes(have, sizes, multi, pairs))) < pairs
        value, is_multi = max(have)
        assert deal.plan(have + Counter({(value, is_multi): -1, (value - 1, is_multi): 1}), sizes, multi, pairs) is None
        have, sizes, multi, pairs = just_enough(seed, full=True)
        found = deal.plan(have + Counter({(16, False): 2}), sizes, multi, pairs)  # rich pages that find no room
        assert found is not None, seed
        assert_dealt(found, have, sizes, multi)
    assert short > 20


def test_multi_panel_pages_that_batches_outside_a_search_still_need_are_not_dealt_within():
    """One batch of 33 has no rich page: it lacks two pairs, which only others' multi-panel pages could give it."""
    have = Counter({(4, True): 32, (1, True): 34, (0, False): 66})
    assert deal.plan(have, [4] * 33, 2, 4) is None
    enough = deal.plan(have + Counter({(1, False): 2, (0, False): -2}), [4] * 33, 2, 4)
    assert enough is not None
    assert_dealt(enough, have + Counter({(1, False): 2}), [4] * 33, 2)


def test_a_short_batch_is_dealt_again_with_others_that_differ():
    """Of 40 batches, two of which are short, those of rare kinds come first, then the next of each kind."""
    rich, poor, other = [(4, True)], [(1, True)], [(2, True), (2, True)]
    dealt = [rich] * 36 + [poor] * 2 + [other[::-1], other]
    sizes = [3] * 20 + [2] * 20
    found = list(deal._pools([36, 37], dealt, sizes))
    in_turn = [38, *[b for pair in zip(range(20, 36), range(16), strict=True) for b in pair]]
    assert found == [
        [36, 38, 20, 0, 39, 21, 1, *in_turn[5:]][:32],
        [36, 37, 38, 20, 0, 39, 21, 1, *in_turn[5:]][:32],
    ]
    five = list(deal._pools([36, 37, 0, 1, 2], dealt, sizes))
    assert [pool[:5] for pool in five] == [[36, 38, 20, 3, 39], [36, 37, 0, 1, 38], [36, 37, 0, 1, 2]]
    assert {len(pool) for pool in five} == {32}
    assert list(deal._pools([3], dealt[:32], sizes[:32])) == [list(range(32))]  # all at once


def with_care(have: Counter[deal.Kind], sizes: list[int], multi: int, pairs: int) -> list[list[deal.Kind]]:
    """Each page with pairs, richest first, to the best batch that can take it; looked for anew for each page."""
    dealt: list[list[deal.Kind]] = [[] for _ in sizes]
    left = Counter(have)

    def order(b: int, is_multi: bool) -> tuple[int, ...]:
        lacking = max(0, multi - sum(m for _, m in dealt[b]))
        total, room = sum(v for v, _ in dealt[b]), sizes[b] - len(dealt[b])
        return total, room, -lacking if is_multi else lacking, b

    def takes(b: int, kind: deal.Kind) -> bool:
        """Whether all batches can still get their multi-panel pages, and this one has room for its own."""
        after = [[*kinds, kind] if other == b else kinds for other, kinds in enumerate(dealt)]
        lacking = [max(0, multi - sum(m for _, m in kinds)) for kinds in after]
        multis = sum(n for (_, m), n in left.items() if m) - kind[1]
        fits = all(len(kinds) + n <= size for kinds, n, size in zip(after, lacking, sizes, strict=True))
        return fits and sum(lacking) <= multis

    for kind in sorted((kind for kind in have if kind[0]), reverse=True):
        for _ in range(have[kind]):
            able = [b for b in range(len(sizes)) if sum(v for v, _ in dealt[b]) < pairs and takes(b, kind)]
            if able:
                dealt[min(able, key=lambda b: order(b, kind[1]))].append(kind)
                left[kind] -= 1
    rest = iter(sorted(kind for kind in left.elements() if kind[1]))
    return [kinds + [next(rest) for _ in range(multi - sum(m for _, m in kinds))] for kinds in dealt]


def test_care_is_to_look_for_the_best_batch_anew_for_each_page():
    for seed in range(300):
        have, sizes, multi, pairs = drawn(seed, most=6, pages=18)
        assert deal.as_far_as_it_goes(have, sizes, multi, pairs) == with_care(have, sizes, multi, pairs), seed


def test_pages_are_spread_as_by_looking_for_the_lowest_total_each_time():
    for seed in range(200):
        draw = np.random.default_rng(seed)
        gains, order = draw.integers(0, 4, 12), draw.permutation(12)
        totals, room = draw.integers(0, 4, 4), draw.integers(0, 4, 4)
        expected: tuple[list[int], list[int]] = ([], [])
        had, free = totals.copy(), room.copy()
        for page in order.tolist():
            able = [b for b in range(4) if free[b]]
            if (had >= 5).all() or not able:
                break
            b = min(able, key=lambda b: (had[b], b))
            had[b], free[b] = had[b] + gains[page], free[b] - 1
            expected[0].append(page)
            expected[1].append(b)
        assert deal.spread(order, gains, totals, room, 5) == expected
        assert (totals.tolist(), room.tolist()) == (had.tolist(), free.tolist())


def test_pages_are_gathered_as_by_asking_each_batch_what_it_can_take():
    for seed in range(200):
        draw = np.random.default_rng(seed)
        is_multi, sizes = draw.random(14) < 0.6, draw.integers(2, 5, 4)
        multi = min(2, int(is_multi.sum()) // 4)
        waiting, batches = draw.permutation(14)[:9].tolist(), draw.permutation(4)
        expected: list[tuple[int, int]] = []
        lacking = [multi] * 4
        left = int(is_multi.sum())
        for b in batches.tolist():
            room = int(sizes[b])
            while True:
                for page in waiting:
                    own = bool(is_multi[page]) and lacking[b] > 0
                    spared = left - sum(lacking) > 0 if is_multi[page] else True
                    if own or (room > lacking[b] and spared):
                        break
                else:
                    break
                waiting.remove(page)
                expected.append((page, b))
                room, left, lacking[b] = room - 1, left - int(is_multi[page]), lacking[b] - own
        found = deal.gather(np.array([*[p for p, _ in expected], *waiting]), is_multi, batches, sizes, multi)
        assert list(zip(*found, strict=True)) == expected


def test_a_sampler_promises_as_many_pairs_as_any_deal_could_give():
    promised = Counter()
    for seed in range(120):
        draw = random.Random(seed)
        batch_pages, least, wanted = draw.randint(2, 3), draw.randint(0, 2), draw.randint(1, 4)
        richest, multis = draw.randint(1, 4), draw.random()
        pages = [(draw.randint(0, richest), draw.random() < multis) for _ in range(draw.randint(2, 9))]
        pairs, panels = (np.array(column) for column in zip(*[(n, 2 if m else 1) for n, m in pages], strict=True))
        s = PageSampler(
            np.arange(len(pages)), panels, pairs, batch_pages=batch_pages, seed=seed, min_multi=least, min_pairs=wanted
        )
        sizes = [len(batch) for batch in s.epoch(0)]
        assert s.min_multi == min(least, sum(m for _, m in pages) // len(sizes))
        most = 0
        while most < wanted and can_be(Counter((min(n, most + 1), m) for n, m in pages), sizes, s.min_multi, most + 1):
            most += 1
        assert s.min_pairs == most or s.min_pairs < most < min(2, wanted), (
            seed
        )  # one pair alone has no negative: others go before
        for epoch in range(2):
            batches = s.epoch(epoch)
            assert sorted(np.concatenate(batches).tolist()) == list(range(len(pages)))
            assert min(int((panels[batch] >= 2).sum()) for batch in batches) >= s.min_multi
            assert min(int(pairs[batch].sum()) for batch in batches) >= s.min_pairs
        assert len(s.shortfalls) == (s.min_multi < least) + (s.min_pairs < wanted)
        if 2 <= s.min_pairs < wanted:
            assert f"can have {wanted} text pairs: each has {s.min_pairs} (" in s.shortfalls[-1]
        promised[most] += 1
    assert min(promised[n] for n in range(4)) > 5
