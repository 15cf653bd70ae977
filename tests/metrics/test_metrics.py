"""Metrics against nested loops, at chance, when collapsed, and on nothing at all."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stage3 import metrics
from stage3.metrics import bootstrap
from stage3.metrics import rows as shared

PROFILE = settings(max_examples=30, deadline=None, derandomize=True)


def rows(n, d=6, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def cosine(a, b):
    return float(a.double() @ b.double() / (a.double().norm() * b.double().norm()))


def ranks_by_hand(query, gallery, partner, query_ids=None, gallery_ids=None, score=cosine):
    ranks = []
    for i, own in enumerate(partner):
        rank = 1.0
        for j in range(len(gallery)):
            same = query_ids is not None and query_ids[i] >= 0 and query_ids[i] == gallery_ids[j]
            if j == own or same:
                continue
            difference = score(query[i], gallery[j]) - score(query[i], gallery[own])
            rank += 0.5 if abs(difference) < 1e-7 else float(difference > 0)
        ranks.append(rank)
    return ranks


# --- retrieval -------------------------------------------------------------------------------------------------


@PROFILE
@given(st.lists(st.integers(-1, 3), max_size=14), st.integers(0, 2**31), st.booleans())
def test_ranks_equal_nested_loops_with_identical_texts_and_repeated_rows(ids, seed, repeated):
    query, gallery = rows(len(ids), seed=seed), rows(len(ids), seed=seed + 1)
    if repeated:
        gallery[1::2] = gallery[0::2][: len(gallery[1::2])]
    text_ids = torch.tensor(ids, dtype=torch.long)
    found = metrics.retrieval_ranks(query, gallery)
    assert found.tolist() == ranks_by_hand(query, gallery, range(len(ids)))
    found = metrics.retrieval_ranks(query, gallery, query_ids=text_ids)
    assert found.tolist() == ranks_by_hand(query, gallery, range(len(ids)), ids, ids)


def test_ranks_in_a_larger_gallery_and_over_several_blocks(monkeypatch):
    monkeypatch.setattr(shared, "CELLS_AT_ONCE", 120)
    query, gallery, partner = rows(11), rows(30, seed=1), torch.arange(11) * 2 + 1
    query_ids, gallery_ids = torch.arange(11) % 3 - 1, torch.arange(30) % 5 - 1
    found = metrics.retrieval_ranks(query, gallery, partner=partner, query_ids=query_ids, gallery_ids=gallery_ids)
    by_hand = ranks_by_hand(query, gallery, partner.tolist(), query_ids.tolist(), gallery_ids.tolist())
    assert found.tolist() == by_hand
    found = metrics.retrieval_ranks(query, gallery, partner=partner, gallery_ids=gallery_ids)  # no query has an id
    assert found.tolist() == ranks_by_hand(query, gallery, partner.tolist())


def test_ranks_do_not_depend_on_norms_order_or_autocast():
    query, gallery, order = rows(20), rows(20, seed=1), torch.randperm(20, generator=torch.Generator().manual_seed(2))
    ranks = metrics.retrieval_ranks(query, gallery)
    assert torch.equal(ranks, metrics.retrieval_ranks(query * 7, gallery * torch.linspace(0.1, 9, 20)[:, None]))
    assert torch.equal(ranks[order], metrics.retrieval_ranks(query[order], gallery[order]))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ranks, metrics.retrieval_ranks(query, gallery))
    half = rows(200).half(), rows(200, seed=1).half()  # their products are not rounded to 11 bits
    assert torch.equal(metrics.retrieval_ranks(*half), metrics.retrieval_ranks(*(x.float() for x in half)))


def test_a_collapsed_model_does_not_win():
    """Counting only strictly better rows would give R@1 = 1 to embeddings that are all the same."""
    z = torch.ones(40, 6) + 1e-9 * rows(40)
    ranks = metrics.retrieval_ranks(z, z.flip(0))
    assert ranks.tolist() == [20.5] * 40
    assert metrics.recall_at(ranks, 1) == 0
    assert metrics.median_rank(ranks) == metrics.chance_median_rank(40)
    assert metrics.reconstruction_rank_r1(z, z) == 0
    assert metrics.reconstruction_ranks(torch.ones(4, 2), torch.ones(4, 2)).tolist() == [2.5] * 4
    pages = torch.arange(40) // 4
    assert metrics.within_page_ranks(z, z, pages).accuracy == 0
    precision = metrics.mean_defined(metrics.same_page_r_precision(z, pages))
    assert precision == pytest.approx(metrics.chance_r_precision(pages))


def test_a_model_that_diverged_to_nan_does_not_win():
    z, pages = torch.full((8, 4), math.nan), torch.arange(8) // 4
    assert metrics.retrieval_ranks(z, z).tolist() == [8.0] * 8
    assert metrics.retrieval_ranks(torch.cat([rows(1, 4), z[1:]]), rows(8, 4))[1:].tolist() == [8.0] * 7
    assert metrics.within_page_ranks(z, z, pages).accuracy == 0
    assert metrics.same_page_r_precision(z, pages).tolist() == [0.0] * 8


def test_identical_texts_do_not_compete():
    image, text = torch.eye(4), torch.eye(4)[[0, 0, 2, 3]]
    ids = torch.tensor([5, 5, 6, -1])
    assert metrics.retrieval_ranks(image, text, query_ids=ids)[0] == 1
    assert metrics.retrieval_ranks(image, text)[0] == 1.5


def test_differences_that_float32_can_tell_are_no_ties():
    query, own = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])  # a cosine of 0
    for ahead, rank in ((4e-7, 1.5), (6e-7, 2.0), (-4e-7, 1.5), (-6e-7, 1.0)):
        gallery = torch.cat([own, torch.tensor([[ahead, 1.0]])])
        assert metrics.retrieval_ranks(query, gallery, partner=torch.tensor([0])).tolist() == [rank]
        within = metrics.within_page_ranks(torch.cat([query, own]), gallery, torch.zeros(2))
        assert within.ranks[0] == rank


def test_summaries_of_ranks():
    ranks = torch.tensor([1.0, 2.0, 4.0, 10.0])
    assert metrics.recall_at(ranks, 1) == 0.25
    assert metrics.recall_at(ranks, 5) == 0.75
    assert metrics.mrr(ranks) == pytest.approx((1 + 0.5 + 0.25 + 0.1) / 4)
    assert metrics.mrr(torch.tensor([3])) == 1 / 3
    assert metrics.median_rank(ranks) == 3.0
    assert metrics.median_rank(torch.tensor([1, 2])) == 1.5


def test_random_embeddings_score_at_chance():
    n, generator = 400, torch.Generator().manual_seed(0)
    draws = [metrics.retrieval_ranks(torch.randn(n, 6, generator=generator), rows(n, seed=9)) for _ in range(5)]
    ranks = torch.cat(draws)
    assert metrics.recall_at(ranks, 20) == pytest.approx(metrics.chance_recall(n, 20), abs=0.02)
    assert metrics.mrr(ranks) == pytest.approx(metrics.chance_mean_reciprocal_rank(n), abs=0.006)
    assert metrics.median_rank(ranks) == pytest.approx(metrics.chance_median_rank(n), rel=0.1)
    assert metrics.chance_recall(3, 10) == 1.0
    assert metrics.chance_mean_reciprocal_rank(2) == 0.75
    exact = math.fsum(1 / i for i in range(1, 20_001)) / 20_000
    assert metrics.chance_mean_reciprocal_rank(20_000) == pytest.approx(exact, rel=1e-12)
    pages = torch.randint(0, 100, (n,), generator=generator)
    within = metrics.within_page_ranks(rows(n, seed=1), rows(n, seed=2), pages)
    assert within.accuracy == pytest.approx(within.chance, abs=0.06)
    assert metrics.mean_defined(metrics.same_page_r_precision(rows(n), pages)) == pytest.approx(
        metrics.chance_r_precision(pages), abs=0.01
    )


@PROFILE
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 3)), max_size=16), st.integers(0, 2**31))
def test_within_page_ranks_equal_a_loop_over_pages(panels, seed):
    pages, ids = [p for p, _ in panels], [t for _, t in panels]
    image, text = rows(len(panels), seed=seed), rows(len(panels), seed=seed + 1)
    expected = {}
    for i in range(len(panels)):
        rivals = [j for j in range(len(panels)) if j != i and pages[j] == pages[i] and (ids[j] != ids[i] or ids[i] < 0)]
        if rivals:
            expected[i] = (ranks_by_hand(image[i : i + 1], text[[i, *rivals]], [0])[0], len(rivals))
    found = metrics.within_page_ranks(
        image, text, torch.tensor(pages, dtype=torch.long), torch.tensor(ids, dtype=torch.long)
    )
    assert found.panels.tolist() == list(expected)
    assert list(zip(found.ranks.tolist(), found.competitors.tolist(), strict=True)) == list(expected.values())
    chance = np.mean([1 / (1 + n) for _, n in expected.values()]) if expected else math.nan
    assert found.chance == pytest.approx(chance, rel=1e-12, nan_ok=True)


def test_pairs_of_a_page_come_once_each_whatever_the_parts():
    pages = torch.tensor([2, 0, 2, 1, 0, 2, 2, 7])
    expected = {(i, j) for i in range(8) for j in range(8) if i != j and pages[i] == pages[j]}
    for at_once in (1, 3, 1000):
        parts = list(shared.page_pairs(pages, at_once))
        pairs = [pair for one, other in parts for pair in zip(one.tolist(), other.tolist(), strict=True)]
        assert len(pairs) == len(set(pairs))
        assert set(pairs) == expected
        assert len(parts) == 1 or at_once < 1000


@PROFILE
@given(st.lists(st.integers(0, 4), max_size=14), st.integers(0, 2**31))
def test_r_precision_equals_a_loop(pages, seed):
    z = rows(len(pages), seed=seed)
    found = metrics.same_page_r_precision(z, torch.tensor(pages, dtype=torch.long)).tolist()
    for i, page in enumerate(pages):
        others = sorted((j for j in range(len(pages)) if j != i), key=lambda j: -cosine(z[i], z[j]))
        wanted = pages.count(page) - 1
        expected = sum(pages[j] == page for j in others[:wanted]) / wanted if wanted else math.nan
        assert found[i] == pytest.approx(expected, nan_ok=True)


def test_chance_is_the_mean_over_panels_with_mates():
    pages = torch.tensor([0, 0, 1, 1, 1, 2])  # mates: 1, 1, 2, 2, 2, none; five others each
    assert metrics.chance_r_precision(pages) == pytest.approx((1 + 1 + 2 + 2 + 2) / 5 / 5)


def test_r_precision_shares_the_places_that_a_tie_leaves():
    z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    # panel 0 wants one mate (1); 1 and 2 tie for that place
    assert metrics.same_page_r_precision(z, torch.tensor([0, 0, 1, 2]))[0] == 0.5
    assert metrics.same_page_r_precision(torch.ones(4, 2), torch.tensor([0, 0, 1, 2]))[0] == 1 / 3


# --- geometry --------------------------------------------------------------------------------------------------


def test_the_cosine_of_one_pair_is_exact_among_thousands_of_panels_alone_on_their_page():
    z, pages = rows(6000), torch.arange(6000).clamp(max=5998)
    assert metrics.page_gap(z, pages).intra == pytest.approx(cosine(z[-2], z[-1]), abs=1e-6)


@PROFILE
@given(st.lists(st.integers(0, 4), max_size=12), st.integers(0, 2**31))
def test_page_gap_and_mean_cosine_equal_loops_over_pairs(pages, seed):
    z = rows(len(pages), seed=seed)
    intra, inter = [], []
    for i in range(len(pages)):
        for j in range(len(pages)):
            if i != j:
                (intra if pages[i] == pages[j] else inter).append(cosine(z[i], z[j]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared, "CELLS_AT_ONCE", 20)  # a few rows at a time
        found = metrics.page_gap(z, torch.tensor(pages, dtype=torch.long))
    expected = (np.mean(part) if part else math.nan for part in (intra, inter))
    assert (found.intra, found.inter) == pytest.approx(tuple(expected), abs=1e-6, nan_ok=True)
    assert found.gap == pytest.approx(found.intra - found.inter, nan_ok=True)
    everything = np.mean(intra + inter) if intra + inter else math.nan
    assert metrics.mean_cosine(z) == pytest.approx(everything, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("cells", [30, 1024])
def test_alignment_and_uniformity_equal_the_paper(cells, monkeypatch):
    monkeypatch.setattr(shared, "CELLS_AT_ONCE", cells)
    v, t, z = (torch.nn.functional.normalize(rows(10, seed=s).double(), dim=1) for s in range(3))
    found = metrics.alignment_uniformity(3 * v, t, 0.2 * z)
    assert found.alignment == pytest.approx(float((v - t).norm(dim=1).pow(2).mean()), rel=1e-5)
    assert found.uniformity == pytest.approx(float(torch.pdist(z).pow(2).mul(-2).exp().mean().log()), rel=1e-5)
    collapsed = metrics.alignment_uniformity(v, v, torch.ones(10, 6))
    assert (collapsed.alignment, collapsed.uniformity) == pytest.approx((0.0, 0.0), abs=1e-6)


@pytest.mark.parametrize("shape", [(50, 6), (5, 20), (3000, 16)])
def test_effective_rank_equals_rankme_on_singular_values(shape):
    z = rows(*shape) * torch.linspace(0.01, 3, shape[1])
    sigma = torch.linalg.svdvals(z.double())
    p = sigma / sigma.sum() + 1e-7
    assert metrics.effective_rank(z) == pytest.approx(float((-(p * p.log()).sum()).exp()), rel=1e-4)


def test_effective_rank_tells_healthy_from_collapsed():
    assert metrics.effective_rank(torch.eye(8)) == pytest.approx(8, rel=1e-4)
    assert metrics.effective_rank(torch.ones(50, 8) * torch.arange(1, 51)[:, None]) == pytest.approx(1, rel=1e-3)
    assert metrics.effective_rank(rows(10, 2) @ rows(2, 32, seed=1)) <= 2.001
    assert metrics.effective_rank(torch.zeros(5, 3)) == 0
    for wrong in (math.inf, math.nan):
        z = rows(20)
        z[3, 2] = wrong
        assert math.isnan(metrics.effective_rank(z))


# --- reconstruction --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cells", [25, 2**22])
def test_skill_is_zero_for_the_mean_and_one_for_the_truth(cells, monkeypatch):
    monkeypatch.setattr(shared, "CELLS_AT_ONCE", cells)
    target = rows(20) + 5
    mean = target.mean(0).expand_as(target)
    for prediction, skill in [(mean, 0.0), (target, 1.0), (mean + 2 * (mean - target), -8.0)]:
        mse = (prediction - target).square().mean(dim=1)
        assert metrics.reconstruction_skill(mse, target) == pytest.approx(skill, abs=1e-6)
        assert metrics.reconstruction_skill(float(mse.mean()), target) == pytest.approx(skill, abs=1e-6)
    shrunk = target * 1e-3  # a thousand times smaller, with the same relative error: mse falls, skill does not
    assert metrics.reconstruction_skill((0.5 * (mean - target) * 1e-3).square().mean(1), shrunk) == pytest.approx(0.75)
    assert math.isnan(metrics.reconstruction_skill(0.0, torch.ones(4, 2)))


@pytest.mark.parametrize("cells", [25, 2**22])
def test_reconstruction_ranks_are_by_distance_and_not_by_angle(cells, monkeypatch):
    monkeypatch.setattr(shared, "CELLS_AT_ONCE", cells)
    target, prediction = rows(15) * torch.linspace(0.2, 4, 15)[:, None] + 3, rows(15) + 3
    partner = torch.arange(15).flip(0)
    by_hand = ranks_by_hand(
        prediction, target, partner.tolist(), score=lambda p, t: -float((p.double() - t.double()).square().sum())
    )
    assert metrics.reconstruction_ranks(prediction, target, partner).tolist() == by_hand
    for scale in (1e-5, 1e5):
        assert metrics.reconstruction_ranks(scale * prediction, scale * target, partner).tolist() == by_hand
    many = rows(400, d=2)
    many[:2] = torch.tensor([[1.0, 0.0], [1.0 + 2e-5, 0.0]])  # a hundred-thousandth of the spread: no tie
    near = metrics.reconstruction_ranks(torch.tensor([[2.0, 0.0]] * 2), many, torch.tensor([0, 1]))
    assert near[0] - near[1] == 1
    assert metrics.reconstruction_rank_r1(target + 1e-3, target) == 1.0
    assert metrics.reconstruction_rank_r1(target[[1, 0, 2]], target[:3]) == pytest.approx(1 / 3)
    subset = metrics.reconstruction_ranks(target[4:6], target, torch.tensor([4, 5]))
    assert subset.tolist() == [1.0, 1.0]


# --- nothing to measure ----------------------------------------------------------------------------------------


def test_nothing_is_nan_and_neither_a_crash_nor_a_zero():
    none, ids, ranks = rows(0), torch.zeros(0, dtype=torch.long), torch.zeros(0)
    both = metrics.alignment_uniformity(none, none, none)
    within = metrics.within_page_ranks(none, none, ids)
    numbers = [
        metrics.recall_at(ranks, 1),
        metrics.mrr(ranks),
        metrics.median_rank(ranks),
        metrics.chance_recall(0, 1),
        metrics.chance_mean_reciprocal_rank(0),
        metrics.chance_median_rank(0),
        metrics.chance_r_precision(ids),
        within.accuracy,
        within.chance,
        metrics.mean_defined(metrics.same_page_r_precision(none, ids)),
        both.alignment,
        both.uniformity,
        metrics.effective_rank(none),
        metrics.mean_cosine(none),
        metrics.mean_cosine(rows(1)),
        metrics.page_gap(none, ids).gap,
        metrics.page_gap(rows(3), torch.arange(3)).intra,
        metrics.page_gap(rows(3), torch.zeros(3)).inter,
        metrics.alignment_uniformity(rows(1), rows(1), rows(1)).uniformity,
        metrics.reconstruction_skill(ranks, none),
        metrics.reconstruction_skill(ranks, rows(3)),
        metrics.reconstruction_skill(0.5, none),
        metrics.reconstruction_rank_r1(none, none),
        metrics.bootstrap_interval([], []).mean,
        metrics.paired_bootstrap([], []).sign_flips,
    ]
    assert all(math.isnan(number) for number in numbers), numbers
    nothing = metrics.bootstrap_interval([], [])
    assert (nothing.groups, nothing.items) == (0, 0)
    assert metrics.retrieval_ranks(none, none).tolist() == []
    assert metrics.same_page_r_precision(rows(2), torch.arange(2)).isnan().all()


def test_shapes_that_disagree_are_refused():
    with pytest.raises(ValueError, match="partner"):
        metrics.retrieval_ranks(rows(3), rows(4))
    with pytest.raises(ValueError, match="dimension"):
        metrics.retrieval_ranks(rows(3), rows(3, d=5))
    with pytest.raises(ValueError, match="gallery_ids"):
        metrics.retrieval_ranks(rows(2), rows(3), partner=torch.arange(2), query_ids=torch.arange(2))
    for of_pages in (metrics.page_gap, metrics.same_page_r_precision):
        with pytest.raises(ValueError, match="page_ids"):
            of_pages(rows(3), torch.arange(2))
    with pytest.raises(ValueError, match="page_ids"):
        metrics.within_page_ranks(rows(3), rows(3), torch.arange(2))
    with pytest.raises(ValueError, match="text has 2 rows where 3 are needed"):
        metrics.within_page_ranks(rows(3), rows(2), torch.arange(3))
    with pytest.raises(ValueError, match="shape"):
        metrics.effective_rank(torch.zeros(3))
    for name in ("prediction", "target"):
        wrong = {key: torch.zeros(3) if key == name else rows(3) for key in ("prediction", "target")}
        with pytest.raises(ValueError, match=f"^{name} must have shape"):
            metrics.reconstruction_ranks(**wrong)
    with pytest.raises(ValueError, match="target must have shape"):
        metrics.reconstruction_skill(0.5, torch.zeros(3))
    with pytest.raises(ValueError, match="text has 1 rows where 3 are needed"):
        metrics.alignment_uniformity(rows(3), rows(1), rows(3))
    for i, name in enumerate(("image", "text", "panel")):
        wrong = [torch.zeros(3) if i == j else rows(3) for j in range(3)]
        with pytest.raises(ValueError, match=rf"^{name} must have shape \(rows, dimension\), not \(3,\)"):
            metrics.alignment_uniformity(*wrong)


# --- intervals -------------------------------------------------------------------------------------------------


def test_the_interval_equals_a_loop_of_resamples():
    values = [1.0, 0.0, 1.0, 1.0, math.nan, 0.0]
    groups = ["a", "a", "b", "c", "c", "d"]
    found = metrics.bootstrap_interval(values, groups, resamples=4000, seed=3)
    generator, means = np.random.default_rng(0), []
    members = [[1.0, 0.0], [1.0], [1.0], [0.0]]
    for _ in range(4000):
        drawn = [v for g in generator.integers(0, 4, size=4) for v in members[g]]
        means.append(np.mean(drawn))
    assert (found.mean, found.groups, found.items) == (0.6, 4, 5)
    assert (found.low, found.high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.05)


def test_intervals_are_seeded_and_do_not_depend_on_item_order():
    values, groups = rows(60)[:, 0], torch.arange(60) // 5
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    one = metrics.bootstrap_interval(values, groups, seed=7)
    assert metrics.bootstrap_interval(values, groups, seed=7) == one
    other = metrics.bootstrap_interval(values[order], groups[order], seed=7)
    assert (other.low, other.high) == pytest.approx((one.low, one.high))
    assert metrics.bootstrap_interval(values, groups, seed=8) != one
    assert one.low < one.mean < one.high


@pytest.mark.parametrize("cells", [3, 40])
def test_the_interval_is_the_same_whatever_is_drawn_at_a_time(cells, monkeypatch):
    values, groups = rows(60)[:, 0], torch.arange(60) // 5
    bootstrap._kept_draws.cache_clear()
    whole = metrics.bootstrap_interval(values, groups, resamples=50)
    assert bootstrap._kept_draws.cache_info().misses == 1
    monkeypatch.setattr(bootstrap, "_CELLS_KEPT", 0)
    monkeypatch.setattr(bootstrap, "_CELLS_AT_ONCE", cells)  # less than one resample, and three of them
    assert metrics.bootstrap_interval(values, groups, resamples=50) == whole
    assert bootstrap._kept_draws.cache_info().misses == 1  # what is too large to be kept is not


def test_panels_of_one_page_are_not_independent():
    """Resampling panels would report an interval that is far too narrow when pages decide everything."""
    page_means = rows(20)[:, 0]
    values, pages = page_means.repeat_interleave(25), torch.arange(20).repeat_interleave(25)
    by_page = metrics.bootstrap_interval(values, pages)
    by_panel = metrics.bootstrap_interval(values, torch.arange(500))
    assert by_page.high - by_page.low > 3 * (by_panel.high - by_panel.low)
    ends = metrics.bootstrap_interval(rows(200)[:, 0], torch.arange(200), level=0.8, resamples=4000)
    tenth = 1.2816 * float(rows(200)[:, 0].std(unbiased=False)) / math.sqrt(200)  # a tenth lies beyond each end
    assert (ends.mean - ends.low, ends.high - ends.mean) == pytest.approx((tenth, tenth), rel=0.08)
    half_width = 1.96 * float(page_means.std(unbiased=False)) / math.sqrt(20)
    assert (by_page.high - by_page.low) / 2 == pytest.approx(half_width, rel=0.15)


def test_paired_differences_tell_a_better_model():
    books = np.repeat(np.arange(12), 10)
    noise = np.random.default_rng(0).normal(size=120)
    better = metrics.paired_bootstrap(0.5 + 0.3 * noise, books)
    assert better.low > 0
    assert (better.sign_flips, better.groups, better.items) == (0, 12, 120)
    same = metrics.paired_bootstrap(noise - noise.mean() + 0.01, books)
    assert same.low < 0 < same.high
    assert same.sign_flips > 0.2
    worse = metrics.paired_bootstrap(-0.5 + 0.3 * noise, books)
    assert (worse.high < 0, worse.sign_flips) == (True, 0)
    assert metrics.paired_bootstrap([0.0, 0.0], [0, 1]).sign_flips == 1


def test_a_single_group_has_a_mean_and_no_interval():
    found = metrics.bootstrap_interval([1.0, 0.0], ["only", "only"])
    assert (found.mean, found.groups, found.items) == (0.5, 1, 2)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


@pytest.mark.parametrize("wrong", [{"level": 1.0}, {"level": 0.0}, {"resamples": 0}])
def test_interval_settings_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        metrics.bootstrap_interval([1.0], [0], **wrong)
    for values, groups in (([1.0], [0, 1]), (np.zeros((2, 2)), np.zeros((2, 2)))):
        with pytest.raises(ValueError, match="equally long"):
            metrics.bootstrap_interval(values, groups)


@pytest.mark.parametrize("groups", [4, 7, 12])
def test_the_expanded_interval_covers_the_truth_of_few_groups_where_the_plain_one_does_not(groups):
    draw = np.random.default_rng(groups)
    plain = wide = 0
    for seed in range(300):
        found = metrics.bootstrap_interval(draw.normal(size=groups), np.arange(groups), resamples=300, seed=seed)
        low, high = metrics.expanded(found)
        plain += found.low <= 0 <= found.high
        wide += low <= 0 <= high
    assert 0.91 <= wide / 300 <= 0.99
    assert plain < wide


def test_many_groups_are_hardly_expanded_and_none_stays_undefined():
    found = metrics.bootstrap_interval(np.arange(500.0) % 7, np.arange(500))
    low, high = metrics.expanded(found)
    assert (high - low) / (found.high - found.low) == pytest.approx(1, abs=0.01)
    assert all(map(math.isnan, metrics.expanded(metrics.bootstrap_interval([1.0, 2.0], [0, 0]))))


def test_student_s_quantile_by_the_series_at_whole_numbers():
    assert bootstrap.student_quantile(2, 2.0) == 2 + 10 / 8 + (160 + 128 + 6) / 384
    assert bootstrap.student_quantile(1, 1.0) == 1 + 2 / 4 + 24 / 96


def test_the_interval_of_a_median_is_that_of_resampled_groups():
    values = torch.tensor([4.0, 1.0, 1.0, 7.0, 2.0, 9.0, 3.0])
    groups = torch.tensor([5, 5, 2, 2, 9, 7, 7])  # of unequal size: the number of drawn values is even or odd
    draw, medians = np.random.default_rng(3), []
    names = sorted(set(groups.tolist()))
    for _ in range(60):
        drawn = [names[i] for i in draw.integers(len(names), size=len(names))]
        medians.append(np.median(np.concatenate([values[groups == g].numpy() for g in drawn])))
    found = bootstrap.median_interval(values, groups, level=0.8, resamples=60, seed=3)
    assert found == pytest.approx(tuple(np.quantile(medians, [0.1, 0.9])))
    assert len(set(medians)) >= 5
    assert all(map(math.isnan, bootstrap.median_interval(values, torch.ones(7))))
