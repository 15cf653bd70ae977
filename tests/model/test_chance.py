"""Retrieval beside chance: one answer for each direction, with the wider of two intervals."""

import math

import pytest
import torch

from stage3.metrics.bootstrap import bootstrap_interval
from stage3.model.chance import ABOVE, AT, UNKNOWN, against_chance
from stage3.model.embedding import Embedded

N, HUBS = 40, 6


def embedded(image: torch.Tensor, text: torch.Tensor, *, pages: int, text_ids: torch.Tensor | None = None) -> Embedded:
    """Panels in pages of equal size; of the last panel there is no text, so it is no query."""
    n = len(image)
    present = torch.ones(n, 3, dtype=torch.bool)
    present[-1, 1] = False
    page_ids = torch.arange(n) * pages // n
    ids = torch.arange(n) if text_ids is None else text_ids
    return Embedded(image, image, text, torch.zeros(n, 3), present, page_ids, ids, torch.arange(n))


def one_way() -> tuple[torch.Tensor, torch.Tensor]:
    """Images find their texts, but of every text six other images are nearer than its own."""
    size = N + N + HUBS + HUBS + 1
    axis = torch.eye(size)
    own, noise, lonely = axis[:N], axis[N : 2 * N], axis[2 * N : 2 * N + HUBS]
    hubs = own.sum(0).expand(HUBS, size) + 0.01 * axis[2 * N + HUBS : 2 * N + 2 * HUBS]
    image = torch.cat([own + 10 * noise, hubs, axis[-1:]])
    text = torch.cat([own, lonely, axis[-1:]])
    order = torch.randperm(N + HUBS, generator=torch.Generator().manual_seed(2))
    order = torch.cat([order, torch.tensor([N + HUBS])])
    return image[order], text[order]


def test_each_direction_has_its_own_answer_and_the_wider_interval_counts():
    panels = embedded(*one_way(), pages=12)
    books = panels.page_ids // 2
    i2t, t2i = against_chance(panels, books)
    assert (i2t.way, i2t.answer, t2i.way, t2i.answer) == ("i2t", ABOVE, "t2i", AT)
    assert i2t.recall == pytest.approx(N / (N + HUBS))
    assert t2i.recall == 0
    assert i2t.chance == t2i.chance == pytest.approx(5 / (N + HUBS))
    image, text = (torch.nn.functional.normalize(e[:-1]) for e in (panels.image, panels.text))
    hits = torch.tensor([float((text @ image[k] > text[k] @ image[k]).sum() < 5) for k in range(N + HUBS)])
    two = torch.cat([hits.long(), torch.zeros(1, dtype=torch.long)])  # one where all is found, one where nothing is
    for books in (panels.page_ids // 2, two, torch.zeros_like(two)):
        i2t = against_chance(panels, books)[0]
        of = [bootstrap_interval(hits, groups[:-1]) for groups in (panels.page_ids, books)]
        of = [interval for interval in of if not math.isnan(interval.low)]  # of one book it is not defined
        assert (i2t.low, i2t.high) == (min(i.low for i in of), max(i.high for i in of))
    assert (i2t.queries, i2t.pages) == (N + HUBS, 12)


def test_noise_is_at_chance_in_most_draws():
    """Of 40 galleries of noise an interval of 95 % lies above chance in one or two, in both directions together."""
    generator = torch.Generator().manual_seed(3)
    above = 0
    for _ in range(20):
        image, text = torch.randn(2, 61, 8, generator=generator)
        panels = embedded(image, text, pages=20)
        above += sum(way.answer == ABOVE for way in against_chance(panels, panels.page_ids // 2))
    assert above <= 4


def test_identical_texts_do_not_compete_in_chance_either():
    image, text = torch.randn(2, 21, 4, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([0] * 8 + list(range(1, 14)))
    text = text[ids]
    way = against_chance(embedded(image, text, pages=7, text_ids=ids), torch.arange(21) // 3)[0]
    assert way.chance == pytest.approx((8 * 5 / 13 + 12 * 5 / 20) / 20)


@pytest.mark.parametrize(
    ("panels", "pages"),
    [(31, 5), (9, 1), (5, 5), (1, 1)],  # few pages; one; a gallery of four, in which all is among five; no query at all
)
def test_too_little_is_said_to_be_too_little(panels, pages):
    image = torch.randn(panels, 8, generator=torch.Generator().manual_seed(1))
    one_each, one = torch.arange(panels), torch.zeros(panels, dtype=torch.long)
    for books in (one_each, one):
        for way in against_chance(embedded(image, image, pages=pages), books):
            assert way.answer == UNKNOWN
            assert "cannot be told from" in way.sentence
            assert way.queries == panels - 1


def test_the_sentence_has_both_numbers_and_the_interval():
    image = torch.eye(30)
    i2t, _ = against_chance(embedded(image, image, pages=10), torch.arange(30) // 6)
    assert i2t.sentence == "image → text is above chance: R@5 100.0 % [100.0 %, 100.0 %], chance 17.2 %"
    assert i2t.to_dict()["answer"] == ABOVE
    assert not math.isnan(i2t.low)
