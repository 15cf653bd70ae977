"""Packed batches and the sampler's promises."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from stage3.batches import LAYOUT, PageSampler, derived_seed, fixed_batches, generator, steps_from
from stage3.batches.batch import seeded
from stage3.batches.dataset import Dataset
from stage3.config import SPLITS, Config
from stage3.data.splits import split_books
from stage3.errors import DataError
from tests import synthetic

sizes = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=2, max_size=80)


def sampler(counts, **kwargs) -> PageSampler:
    panels = np.array([n for n, _ in counts])
    pairs = np.array([min(m, n) for n, m in counts])
    settings = {"batch_pages": 5, "seed": 0, "min_multi": 2, "min_pairs": 4} | kwargs
    return PageSampler(np.arange(100, 100 + len(counts)), panels, pairs, **settings)


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(2, 9), st.integers(0, 3), st.booleans())
def test_every_page_comes_once_an_epoch_in_batches_of_even_size(counts, batch_pages, epoch, guaranteed):
    s = sampler(counts, batch_pages=batch_pages, guaranteed=guaranteed)
    batches = s.epoch(epoch)
    assert sorted(np.concatenate(batches)) == list(range(100, 100 + len(counts)))
    lengths = [len(b) for b in batches]
    assert max(lengths) <= batch_pages
    assert max(lengths) - min(lengths) <= 1


def batch_counts(s: PageSampler, epoch: int) -> tuple[list[int], list[int]]:
    batches = [b - 100 for b in s.epoch(epoch)]
    return [int((s.panels[b] >= 2).sum()) for b in batches], [int(s.pairs[b].sum()) for b in batches]


def thin(pages: int, seed: int) -> list[tuple[int, int]]:
    """80 % single-panel pages, 90 % of panels without text."""
    rng = np.random.default_rng(seed)
    panels = [1 if rng.random() < 0.8 else int(rng.integers(2, 8)) for _ in range(pages)]
    return [(n, int(rng.binomial(n, 0.1))) for n in panels]


@pytest.mark.parametrize("batch_pages", [4, 16])
@pytest.mark.parametrize("seed", range(5))
def test_thin_data_gets_its_guarantee_in_every_batch_and_a_shuffle_does_not(batch_pages, seed):
    counts = thin(400, seed)
    kept = sampler(counts, batch_pages=batch_pages, min_multi=2, min_pairs=2)
    multis = sum(n >= 2 for n, _ in counts)
    assert kept.min_multi == min(2, multis // kept.n_batches)  # lowered only when infeasible
    plain = sampler(counts, batch_pages=batch_pages, guaranteed=False)
    for epoch in range(3):
        multi, pairs = batch_counts(kept, epoch)
        assert min(multi) >= kept.min_multi
        assert min(pairs) >= kept.min_pairs
    worst = [min(batch_counts(plain, epoch)[1]) for epoch in range(3)]
    assert min(worst) < max(kept.min_pairs, 1)


def feasible(s: PageSampler, min_multi: int, min_pairs: int) -> bool:
    """Whether any deal of these pages gives every batch both, by integer programming: so many of each kind to each."""
    kinds, have = np.unique(
        np.stack([s.panels >= 2, np.minimum(s.pairs, min_pairs)], axis=1), axis=0, return_counts=True
    )
    sizes = [len(batch) for batch in s.epoch(0)]
    n, k = len(sizes), len(kinds)
    given = np.tile(np.eye(k), n)  # pages of each kind in all batches
    taken, multi, pairs = (np.kron(np.eye(n), row) for row in (np.ones(k), kinds[:, 0], kinds[:, 1]))
    limits = [
        LinearConstraint(given, -np.inf, have),
        LinearConstraint(taken, -np.inf, sizes),
        LinearConstraint(multi, min_multi, np.inf),
        LinearConstraint(pairs, min_pairs, np.inf),
    ]
    found = milp(np.zeros(n * k), constraints=limits, integrality=np.ones(n * k), bounds=Bounds(0, np.inf))
    assert found.status in (0, 2), found.message  # solved, or shown to be infeasible
    return found.status == 0


def assert_best_promise(s: PageSampler, min_multi: int, min_pairs: int, epochs: int = 2) -> None:
    """The promise is kept, every page comes once, and none better would be feasible: multi-panel pages go first."""
    for epoch in range(epochs):
        batches = s.epoch(epoch)
        assert sorted(np.concatenate(batches)) == s.pages.tolist()
        lengths = [len(batch) for batch in batches]
        assert max(lengths) - min(lengths) <= 1
        multi, pairs = batch_counts(s, epoch)
        assert min(multi) >= s.min_multi
        assert min(pairs) >= s.min_pairs
    assert s.min_multi == min_multi or not feasible(s, s.min_multi + 1, 0)
    if s.min_pairs < min_pairs and not feasible(s, s.min_multi, min(2, min_pairs)):
        assert s.min_pairs < 2  # one pair alone has no negative: where two are not feasible, pairs may be gathered
    else:
        assert s.min_pairs == min_pairs or not feasible(s, s.min_multi, s.min_pairs + 1)
    lowered = [s.min_multi < min_multi, s.min_pairs < min_pairs]
    assert len(s.shortfalls) == sum(lowered)
    assert [word in " ".join(s.shortfalls) for word in ("multi-panel pages:", "text pairs:")] == lowered


few_kinds = st.lists(st.tuples(st.integers(1, 2), st.integers(0, 5)), min_size=1, max_size=5, unique=True)


@pytest.mark.slow
@settings(max_examples=250, deadline=None)
@given(st.data())
def test_both_guarantees_hold_together_wherever_that_is_feasible(data):
    """Few kinds of pages, so that they often do not come out even; sizes 2 to 32, up to eight batches."""
    batch_pages = data.draw(st.integers(2, 32))
    kinds = data.draw(few_kinds)
    counts = data.draw(st.lists(st.sampled_from(kinds), min_size=2, max_size=min(8 * batch_pages, 70)))
    min_multi, min_pairs = data.draw(st.integers(0, 3)), data.draw(st.integers(0, 4))
    panels, pairs = (np.array([c[i] for c in counts]) for i in (0, 1))
    s = PageSampler(
        np.arange(100, 100 + len(counts)), panels, pairs, batch_pages=batch_pages, seed=0, min_multi=min_multi,
        min_pairs=min_pairs,
    )  # fmt: skip
    assert_best_promise(s, min_multi, min_pairs)


@pytest.mark.parametrize("batch_pages", range(2, 33))
def test_pages_that_come_out_even_are_dealt_even(batch_pages):
    """Ten batches worth of pages, each batch with just what it needs, mixed up: there is no page to spare."""
    rng = np.random.default_rng(batch_pages)
    ways = [(4,), (3, 1), (2, 2), (2, 1, 1), (1, 1, 1, 1)]
    counts: list[tuple[int, int]] = []
    for _ in range(10):
        way = ways[rng.integers(len(ways)) if batch_pages >= 4 else rng.integers(3)]
        pairs = [*way, *[0] * (batch_pages - len(way))]
        multi = rng.permutation([2, 2, *[1] * (batch_pages - 2)])
        counts += zip(multi.tolist(), pairs, strict=True)
    counts = [counts[i] for i in rng.permutation(len(counts))]
    panels, pairs = np.array(counts).T
    s = PageSampler(np.arange(len(counts)), panels, pairs, batch_pages=batch_pages, seed=1, min_multi=2, min_pairs=4)
    assert (s.min_multi, s.min_pairs, s.shortfalls) == (2, 4, [])
    for epoch in range(2):
        assert {int((panels[b] >= 2).sum()) for b in s.epoch(epoch)} == {2}
        assert {int(pairs[b].sum()) for b in s.epoch(epoch)} == {4}


def test_pairs_on_single_panel_pages_leave_room_for_a_multi_panel_page_in_every_batch():
    counts = [(3, 0)] * 100 + [(1, 1)] * 40 + [(1, 0)] * 260
    s = sampler(counts, batch_pages=4)
    for epoch in range(5):
        multi, pairs = batch_counts(s, epoch)
        assert set(multi) == {1}
        assert sorted(pairs)[-14:] == [1, *[3] * 13]  # 40 pairs meet in as few batches as hold them beside that page
        assert sum(pairs) == 40
    assert s.shortfalls == [
        "not every batch can have 2 multi-panel pages: each has 1 "
        "(100 of 400 pages have two or more panels, in 100 batches)",
        "not every batch can have 4 text pairs: they meet in some of the batches "
        "(40 pairs on 40 of 400 pages, in 100 batches)",
    ]


def test_pairs_on_too_few_pages_for_all_batches_are_spread_over_as_many_as_can_be():
    s = sampler([(5, 5)] * 20 + [(2, 0)] * 60 + [(1, 0)] * 20, batch_pages=4)
    multi, pairs = batch_counts(s, 0)
    assert min(multi) == 2
    assert sorted(pairs) == [0] * 5 + [5] * 20  # each of these pages has negatives of its own
    assert s.shortfalls == [
        "not every batch can have 4 text pairs: 20 have at least two (100 pairs on 20 of 100 pages, in 25 batches)"
    ]


def test_pages_that_have_to_be_put_together_just_so_are_drawn_anew_each_epoch():
    """Dealing the richest page to the poorest batch fails here: a pair that a full batch lacks is on single pages."""
    counts = [(1, 0), (1, 0), (4, 1), (4, 3)] * 10 + [(1, 1), (1, 1), (4, 1), (4, 1)] * 10
    s = sampler(counts, batch_pages=4)
    assert (s.min_multi, s.min_pairs) == (2, 4)
    epochs = [s.epoch(e) for e in range(3)]
    for batches in epochs:
        assert sorted(np.concatenate(batches)) == s.pages.tolist()
        assert {(int((s.panels[b - 100] >= 2).sum()), int(s.pairs[b - 100].sum())) for b in batches} == {(2, 4)}
    first, second, third = ({frozenset(b.tolist()) for b in batches} for batches in epochs)
    assert len(first & second) <= 2
    assert len(second & third) <= 2
    rich = [[i for i, b in enumerate(batches) if s.pairs[b - 100].max() == 3] for batches in epochs]
    assert rich[0] != rich[1], "not always the same steps of an epoch"


KNOTTY = [(4, 0), (4, 0), (1, 1), (4, 2), (4, 2), (4, 3), (4, 4)]


def test_batches_that_careful_dealing_leaves_short_are_dealt_again():
    """The page with three pairs has to go to the larger batch, where there is room for a single-panel page too."""
    for counts in (KNOTTY, KNOTTY[::-1]):
        s = sampler(counts, batch_pages=3)
        assert (s.min_multi, s.min_pairs) == (2, 4)
        for epoch in range(3):
            first, *others = [sorted(s.pairs[b - 100].tolist()) for b in s.epoch(epoch)]
            assert first == [0, 1, 3]
            assert sorted(others) == [[0, 4], [2, 2]]


@pytest.mark.parametrize("batches", [33, 60])
def test_of_more_batches_than_are_searched_at_once_the_short_ones_are_dealt_again_with_some_others(batches):
    s = sampler(KNOTTY + [(4, 0), (4, 4), (1, 0)] * (batches - 3), batch_pages=3)
    assert s.n_batches == batches
    assert (s.min_multi, s.min_pairs) == (2, 4)
    assert_best_promise(s, 2, 4, epochs=1)


def test_a_panel_without_any_modality_does_not_make_its_page_a_multi_panel_page():
    data = synthetic.dataset(single=0.0)
    present = data.panel_set.present.copy()
    pages = data.pages("train")
    emptied = pages[::2]
    for page in emptied:  # one panel of each of these pages is left
        present[data.panel_set.first[page] + 1 : data.panel_set.first[page] + data.panel_set.count[page]] = False
    asked = Config(batch_pages=4, seed=9, min_multi_pages=1, min_text_pairs=3)
    s = PageSampler.of(data.panel_set, pages, asked)
    assert (s.batch_pages, s.seed, s.min_multi, s.min_pairs, s.shortfalls) == (4, 9, 1, 3, [])
    s = PageSampler.of(replace(data.panel_set, present=present), pages, Config(batch_pages=4))
    assert (s.panels[::2] == 1).all()
    assert (s.panels[1::2] >= 2).all()


def test_an_infeasible_guarantee_is_lowered_not_refused():
    s = sampler([(1, 0)] * 20 + [(3, 2)] * 2, batch_pages=4, min_multi=3, min_pairs=8)
    assert (s.min_multi, s.min_pairs) == (0, 0)
    assert len(np.concatenate(s.epoch(0))) == 22
    assert sampler([(1, 0)] * 20, guaranteed=False).shortfalls == []  # nothing was promised
    nothing = np.arange(0)
    for guaranteed in (True, False):
        empty = PageSampler(nothing, nothing, nothing, batch_pages=4, seed=0, guaranteed=guaranteed)
        assert (empty.n_batches, empty.epoch(0), empty.shortfalls) == (0, [], [])


@pytest.mark.parametrize("batch_pages", [2, 4, 8])
def test_where_pairs_are_too_few_for_all_batches_they_meet_in_some(batch_pages):
    """A pair alone in its batch has no negative, so spreading them evenly would give no alignment signal at all."""
    counts = [(1, 0)] * 176 + [(1, 1)] * 20 + [(3, 2)] * 4
    kept, plain = (sampler(counts, batch_pages=batch_pages, guaranteed=g) for g in (True, False))
    useful = [sum(n for n in batch_counts(s, 0)[1] if n >= 2) for s in (kept, plain)]
    assert useful[0] >= 27  # of 28 pairs; the last chosen batch may hold a single one
    assert useful[0] > 1.5 * useful[1]
    assert sorted(np.concatenate(kept.epoch(0))) == list(range(100, 300))
    where = [{i for i, n in enumerate(batch_counts(kept, epoch)[1]) if n} for epoch in range(3)]
    assert where[0] != where[1], "not always the same steps of an epoch"


def test_order_depends_on_seed_and_epoch_alone():
    counts = thin(60, 0)
    flat = lambda s, e: np.concatenate(s.epoch(e)).tolist()  # noqa: E731
    assert flat(sampler(counts), 2) == flat(sampler(counts), 2)
    assert flat(sampler(counts), 1) != flat(sampler(counts), 2)
    assert flat(sampler(counts), 1) != flat(sampler(counts, seed=1), 1)
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - proves that the global state is untouched
    sampler(counts).epoch(0)
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def test_the_same_seed_gives_the_same_batches_from_one_version_to_the_next():
    """Else a run that is resumed with a newer version would go on with other pages."""
    plenty, scarce = [(2, 2), (1, 0), (3, 1), (1, 1), (2, 0), (4, 4)] * 2, [(1, 0)] * 8 + [(2, 1), (1, 1), (2, 0)]
    made = {  # how its pages are dealt, and the batches of its second epoch
        "spread": (sampler(plenty, batch_pages=4), [[5, 2, 3, 9], [11, 8, 10, 1], [0, 6, 7, 4]]),
        "as planned": (sampler(KNOTTY, batch_pages=3), [[0, 2, 5], [1, 6], [3, 4]]),
        "gathered": (
            sampler(scarce, batch_pages=4, min_multi=1, min_pairs=2),
            [[2, 10, 3, 5], [0, 1, 6, 7], [9, 8, 4]],
        ),
        "shuffled": (sampler(plenty, batch_pages=4, guaranteed=False), [[2, 5, 3, 9], [11, 8, 10, 0], [1, 6, 7, 4]]),
    }
    many = sampler(KNOTTY + [(4, 0), (4, 4), (1, 0)] * 7, batch_pages=3)  # pages of a kind keep their shuffled order
    made["of ten"] = (
        many,
        [
            [25, 8, 27],
            [10, 17, 21],
            [13, 6, 9],
            [3, 4, 24],
            [16, 2, 5],
            [19, 14, 12],
            [7, 26, 18],
            [0, 11, 15],
            [22, 20],
            [1, 23],
        ],
    )
    for name, (s, batches) in made.items():
        assert [(batch - 100).tolist() for batch in s.epoch(1)] == batches, name


@pytest.mark.parametrize("start", [0, 1, 12, 13, 30])
def test_resuming_at_any_step_continues_the_same_sequence(start):
    s = sampler(thin(60, 0))
    whole = [next_ for next_, _ in zip(steps_from(s, 0), range(40), strict=False)]
    rest = [next_ for next_, _ in zip(steps_from(s, start), range(40 - start), strict=False)]
    assert [(a, b, c.tolist()) for a, b, c in rest] == [(a, b, c.tolist()) for a, b, c in whole[start:]]
    assert [step for step, _, _ in whole] == list(range(1, 41))
    assert whole[s.n_batches - 1][1] == 1
    assert whole[s.n_batches][1] == 2


def test_validation_batches_are_fixed_and_whole():
    pages = np.arange(37)
    a, b = fixed_batches(pages, 8, 0), fixed_batches(pages, 8, 0)
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert sorted(np.concatenate(a)) == list(range(37))
    assert sorted(map(len, a)) == [7, 7, 7, 8, 8]
    assert [batch.tolist() for batch in a] != [batch.tolist() for batch in fixed_batches(pages, 8, 1)]
    assert fixed_batches(pages[:0], 8, 0) == []
    assert list(map(len, fixed_batches(pages[:8], 8, 0))) == [8]


def test_seeds_for_different_purposes_do_not_meet():
    seen = {
        derived_seed(s, purpose, i) for s in range(5) for purpose in ("mask", "dropout", "pages") for i in range(50)
    }
    assert len(seen) == 5 * 3 * 50
    assert 2**62 < max(seen) < 2**63  # 63 bits
    assert torch.equal(torch.rand(3, generator=generator(1, "a")), torch.rand(3, generator=generator(1, "a")))


def test_torch_is_seeded_within_a_block_and_goes_on_as_before():
    before = torch.get_rng_state()
    drawn = []
    for seed in (5, 5, 6):
        with seeded(seed, torch.device("cpu")):
            drawn.append(torch.rand(3).tolist())
        assert torch.equal(torch.get_rng_state(), before)
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0] == torch.rand(3, generator=torch.Generator().manual_seed(5)).tolist()


def test_a_batch_is_the_rows_of_its_pages_and_nothing_else():
    data = synthetic.dataset()
    pages = data.pages("train")[[3, 0]]
    texts = data.panel_set.features.text_rows
    texts[texts >= 0] = texts[texts >= 0][::-1]  # a text is not where its picture is
    b = data.panel_set.batch(pages)
    assert b.text_ids.tolist() == texts[b.rows.numpy()].tolist()
    expected = [r for p in pages for r in np.flatnonzero(data.table.page_of_panel == p)]
    assert b.rows.tolist() == expected
    assert b.page_ids.tolist() == data.table.page_of_panel[expected].tolist()
    image, _ = data.features.gather(np.array(expected))
    assert np.array_equal(b.image.numpy(), image)
    assert torch.equal(b.present[:, LAYOUT], torch.from_numpy(data.table.has_box[expected]))
    moved = b.to("cpu")
    assert moved.peers is b.peers
    assert all(torch.equal(getattr(moved, name), getattr(b, name)) for name in ("image", "text", "present", "rows"))
    gone = b.present.clone()
    gone[[1, 3]] = False
    with pytest.raises(ValueError, match=rf"^2 of {len(b)} panels have no modality .* row {expected[1]}\."):
        replace(b, present=gone)


def test_what_a_run_records_of_its_data():
    made = synthetic.dataset()
    config = Config(limit_pages=3, dim=48, text_backbone="minilm")
    data = replace(made, config=config)
    settings = data.settings()
    assert (settings["limit_pages"], settings["text_backbone"]) == (3, "minilm")
    assert not {"dim", "epochs", "seed"} & set(settings)
    assert made.settings() == {}
    found = data.identity()
    assert (found["image_sizes"], found["text_size"]) == ([24], 20)
    assert (
        (found["panels"], found["pages"])
        == (len(made.table), len(made.table.pages))
        == (data.panel_set.count.sum(), 32)
    )
    assert found["books"] == {
        split: sorted(set(made.table.pages["book_id"][made.split == i])) for i, split in enumerate(SPLITS)
    }
    assert found["table"] == made.table.fingerprint() != synthetic.dataset(seed=1).table.fingerprint()
    absent = made.features.image_rows.copy()
    absent[0] = -1
    assert replace(data, features=replace(made.features, image_rows=absent)).identity()["pictures"] != found["pictures"]


def test_layout_features_are_the_documented_seven_and_follow_from_the_page_alone():
    made = synthetic.table(boxless=0.3)
    features = made.layout()
    for row in np.flatnonzero(made.has_box)[:40]:
        p = made.panels.iloc[row]
        expected = [p.w / p.h, p.w * p.h, p.order / 15, 0, 0, p.x + p.w / 2, p.y + p.h / 2]
        np.testing.assert_allclose(features[row], expected, rtol=1e-5)
    assert not features[~made.has_box].any()
    half = made.subset(np.arange(0, len(made.pages), 2))
    kept = np.isin(made.page_of_panel, np.arange(0, len(made.pages), 2))
    assert np.array_equal(half.layout(), features[kept])
    assert half.pages["first_panel"].tolist() == [np.argmax(half.page_of_panel == p) for p in range(len(half.pages))]


def test_layout_features_of_the_ocr_meaning_are_in_pixels_and_say_nothing_of_order():
    made = synthetic.table(boxless=0.3)
    made.pages.loc[0, ["width", "height"]] = 0, 0  # neither the panel file nor an image says
    made.pages.loc[1, ["width", "height"]] = 9000, 250
    features, has = made.layout("ocr"), made.has_layout("ocr")
    sized = made.page_of_panel != 0
    assert np.array_equal(has, made.has_box & sized)
    assert not has[~sized].any()
    assert not features[~has].any()
    for row in np.flatnonzero(has)[:40]:
        p, page = made.panels.iloc[row], made.pages.iloc[made.page_of_panel[row]]
        aspect = (p.w * page.width) / (p.h * page.height)
        expected = [aspect, p.w * p.h, 0, 0, 0, p.x + p.w / 2, p.y + p.h / 2]
        np.testing.assert_allclose(features[row], expected, rtol=1e-5)
    assert features[has, 0].max() > 20  # wide panels are not cut, as the original trainer did not


def test_a_data_set_is_read_in_the_meaning_of_its_model():
    data = synthetic.dataset()
    data.table.pages.loc[0, ["width", "height"]] = 0, 0
    ocr = data.with_layout("ocr")
    assert data.with_layout("vlm") is data
    assert data.with_split(data.split.copy()) is data
    assert data.with_split(1 - data.split).split.tolist() == (1 - data.split).tolist()
    assert np.array_equal(ocr.panel_set.layout, data.table.layout("ocr"))
    assert np.array_equal(ocr.panel_set.present[:, 2], data.table.has_layout("ocr"))
    assert not np.array_equal(ocr.panel_set.present, data.panel_set.present)
    assert np.array_equal(ocr.with_split(1 - data.split).panel_set.layout, ocr.panel_set.layout)


def test_a_data_set_is_loaded_with_the_settings_that_name_it_and_what_ships_with_it(tmp_path):
    base = Config(data="data/samples", cache_dir=str(tmp_path), val_fraction=0.3)
    data = Dataset.load(base, limit_pages=40, split_seed=3, progress=False)
    assert data.config == base.replace(limit_pages=40, split_seed=3)
    assert data.split.tolist() == split_books(data.table, 0.3, base.test_fraction, 3).tolist()
    made = [path.name for path in (tmp_path / "features").iterdir()]
    assert made == ["pages.parquet"]  # no vectors: those of the samples ship with them
    again = Dataset.load("data/samples", cache_dir=str(tmp_path), limit_pages=40, progress=False)
    assert again.config == Config(data="data/samples", cache_dir=str(tmp_path), limit_pages=40)
    assert again.features.fingerprint == data.features.fingerprint
    assert Dataset.load(base.replace(limit_pages=40), progress=False).config == base.replace(limit_pages=40)
    with pytest.raises(DataError, match="split 'dev' is not one of train, val, test, all"):
        data.pages("dev")


def test_texts_are_composed_in_the_order_of_the_setting():
    made = synthetic.table(books=1, pages=1, textless=0, single=0)
    made.panels.loc[[0, 1], "dialogue"] = ["Who?", ""]
    made.panels.loc[[0, 1], "description"] = ["A cat", "A dog"]
    assert made.texts("dialogue+description")[:2] == ["Who? A cat", "A dog"]
    assert made.texts("description+dialogue")[:2] == ["A cat Who?", "A dog"]
    assert made.texts("dialogue")[:2] == ["Who?", ""]
    assert made.texts("dialogue", np.array([1, 0])) == ["", "Who?"]
    assert made.has_text("dialogue")[:2].tolist() == [True, False]
    assert made.has_text("dialogue+description")[:2].tolist() == [True, True]


def test_pages_split_by_book_and_never_twice():
    data = synthetic.dataset(books=12)
    books = [set(data.table.pages["book_id"].iloc[data.pages(s)]) for s in SPLITS]
    assert all(books)
    assert not (books[0] & books[1])
    assert not (books[0] & books[2])
    assert not (books[1] & books[2])
    assert sum(len(data.pages(s)) for s in SPLITS) == len(data.pages("all"))


def test_pairs_are_panels_with_an_image_and_a_text():
    """Neither a text without an image nor an image without a text is one."""
    data = synthetic.dataset(boxless=0.4, textless=0.4)
    present, page = data.panel_set.present, data.table.page_of_panel
    expected = [sum(bool(p[0] and p[1]) for p in present[page == n]) for n in range(len(data.table.pages))]
    assert data.panel_set.pairs.tolist() == expected
    assert present[:, 0].tolist() == data.table.has_box.tolist()
    assert present[:, 1].tolist() == data.table.has_text("dialogue").tolist()
    assert synthetic.dataset(boxless=0.0, textless=0.0).panel_set.present.all()  # also of the first rows of features
    gone = np.where((page == page.max())[:, None], False, present)
    without = replace(data.panel_set, present=gone)
    assert without.pairs.tolist() == [*expected[:-1], 0]  # the last page, too, has its place
    assert without.usable_count.tolist() == [*data.panel_set.usable_count.tolist()[:-1], 0]
    texts = [int(present[page == n, 1].sum()) for n in range(len(data.table.pages))]
    images = [int(present[page == n, 0].sum()) for n in range(len(data.table.pages))]
    assert expected not in (texts, images)
