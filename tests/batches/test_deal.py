"""Dealing pages to batches, by hand and where there is nothing to spare."""

import random
from collections import Counter

import numpy as np
import pytest

from stage3.batches import deal


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
