"""What a model is measured against: frozen features by hand, the model before training, and what training added."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from stage3 import metrics
from stage3.batches.dataset import Dataset
from stage3.config import Config
from stage3.data.table import PAGE_COLUMNS, PANEL_COLUMNS, DataReport, PanelTable
from stage3.features import FeatureSet
from stage3.model import Stage3, baselines, embedding
from stage3.model.anchor import share_a_space
from stage3.model.baselines import (
    Added,
    centers,
    frozen_features,
    frozen_of,
    statistics,
    what_training_added,
)
from stage3.train.trainer import Trainer
from tests import synthetic


def by_hand(image_sizes: tuple[int, ...] = (2,)) -> Dataset:
    """Two training panels, one without text; three test panels, one without image and one with a box alone."""
    panels = {name: [] for name in PANEL_COLUMNS}
    pages = {name: [] for name in PAGE_COLUMNS}
    texts = ["a", "", "b", "c", ""]
    for page, (book, count) in enumerate((("one", 2), ("two", 3))):
        first = len(panels["panel_id"])
        pages_row = (f"{book}/p", book, "story", "", "", 10, 10, "", "exact", first, count)
        for name, value in zip(PAGE_COLUMNS, pages_row, strict=True):
            pages[name].append(value)
        for i in range(count):
            row = (f"{book}/p#{i}", page, i, i, 0.1, 0.1, 0.5, 0.5, True, texts[first + i], "", "")
            for name, value in zip(PANEL_COLUMNS, row, strict=True):
                panels[name].append(value)
    features = FeatureSet.in_memory(
        np.array([[2.0, 0.0], [4.0, 2.0], [3.0, 5.0], [9.0, 9.0], [9.0, 9.0]]),
        np.array([[1.0, 1.0], [8.0, 8.0], [4.0, 5.0], [1.0, 3.0], [8.0, 8.0]]),
        has_image=np.array([True, True, True, False, False]),
        has_text=np.array([bool(t) for t in texts]),
        image_sizes=image_sizes,
    )
    table = PanelTable.build(panels, pages, DataReport(pages_listed=2, pages_kept=2))
    return Dataset(table, features, np.array([0, 2]))


def test_frozen_features_are_centered_on_the_training_panels_and_of_length_one_by_hand():
    data = by_hand()
    center = centers(data, data.pages("train"))
    assert center.image.tolist() == [3.0, 1.0]  # of (2, 0) and (4, 2)
    assert center.text.tolist() == [1.0, 1.0]  # the textless training panel's (8, 8) does not count
    frozen = frozen_features(data.panel_set, np.array([2, 3, 4]), center)
    torch.testing.assert_close(frozen.image, torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]))
    torch.testing.assert_close(frozen.text, torch.tensor([[0.6, 0.8], [0.0, 1.0], [0.0, 0.0]]))
    torch.testing.assert_close(frozen.panel, torch.cat([frozen.image, frozen.text], dim=1))
    assert frozen.rows.tolist() == [2, 3, 4]


def test_several_image_backbones_count_equally_whatever_their_scale():
    data = by_hand(image_sizes=(1, 1))
    frozen = frozen_features(data.panel_set, np.array([0, 1]), centers(data, data.pages("train")))
    half = math.sqrt(0.5)
    torch.testing.assert_close(frozen.image, torch.tensor([[-half, -half], [half, half]]))


def test_panels_that_are_measured_move_the_center_only_where_no_training_panel_is_there():
    data = by_hand()
    embedded = frozen_features(data.panel_set, np.array([2, 3, 4]), centers(data, data.pages("train")))
    assert frozen_of(data, embedded)[1] == []
    assert torch.equal(frozen_of(data, embedded)[0].panel, embedded.panel)
    held_out = dataclasses.replace(data, split=np.array([2, 2]))
    other, notes = frozen_of(held_out, embedded)
    assert "no training panel" in notes[0]
    assert other.image[0].tolist() == [0.0, 0.0]  # the only image measured is its own mean
    both = frozen_features(data.panel_set, np.arange(5), centers(data, data.pages("train")))
    other, _ = frozen_of(held_out, both)
    mean = torch.tensor([3.0, 7 / 3])  # of (2, 0), (4, 2) and (3, 5), each once, though their pages are not of one size
    expected = torch.nn.functional.normalize(torch.tensor([[2.0, 0.0], [4.0, 2.0], [3.0, 5.0]]) - mean, dim=1)
    torch.testing.assert_close(other.image[:3], expected)


def test_the_untrained_model_is_the_one_that_training_begins_with_bit_for_bit(tmp_path):
    run = synthetic.run(tmp_path / "run", seed=5)
    data = synthetic.dataset(run.config)
    with run.lock():
        trainer = Trainer(run, data)
        before = {name: t.clone() for name, t in trainer.model.state_dict().items()}
        trainer.fit(lambda: False)
    trained = trainer.model.state_dict()
    assert not torch.equal(trained["encoder.text.strength"], before["encoder.text.strength"])
    features = statistics(data, data.pages("train"))
    for untrained in (
        Stage3.untrained(trainer.model.encoder.spec, run.config, features).state_dict(),
        trainer.model.before_training().state_dict(),
    ):
        assert untrained.keys() == before.keys()
        assert all(torch.equal(untrained[name], before[name]) for name in before)
    other = Stage3.untrained(trainer.model.encoder.spec, run.config.replace(seed=6), features).state_dict()
    name = "encoder.text.learned.0.weight"
    assert not torch.equal(other[name], before[name])


def test_towers_of_one_model_share_a_space_and_the_tiny_ones_do_not():
    assert not share_a_space(Config(), (96,), 96)
    siglip = Config(vision_backbone="siglip", text_backbone="google/siglip-base-patch16-224")
    assert share_a_space(siglip, (768,), 768)
    assert not share_a_space(siglip, (768,), 384)
    assert not share_a_space(siglip.replace(vision_backbone="siglip+resnet50"), (768, 2048), 768)
    assert not share_a_space(siglip.replace(text_backbone="minilm"), (384,), 384)


# --- what training added


def pages_and_books(pages: int, panels: int = 3, pages_per_book: int = 4):
    page_ids = torch.arange(pages).repeat_interleave(panels)
    return page_ids, page_ids // pages_per_book


def near_mates(page_ids: torch.Tensor, strength: float, seed: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    center = torch.randn(int(page_ids.max()) + 1, 16, generator=draw)[page_ids]
    return strength * center + torch.randn(len(page_ids), 16, generator=draw)


@pytest.mark.parametrize(
    ("trained", "frozen", "answer", "words"),
    [
        (3.0, 0.3, "adds", "training adds +"),
        (0.3, 3.0, "lost", "training lost −"),
        (0.6, 0.6, "no effect", "no effect"),
    ],
)
def test_the_sentence_says_in_which_direction_training_moved_and_what_to_do(trained, frozen, answer, words):
    page_ids, book_ids = pages_and_books(40)
    found = what_training_added(near_mates(page_ids, trained, 1), near_mates(page_ids, frozen, 2), page_ids, book_ids)
    assert found.answer == answer
    assert found.sentence.startswith(words)
    assert ("fewer epochs" in found.sentence) is (answer == "lost")
    assert found.by_page.mean == pytest.approx(found.trained - found.frozen)
    low, high = found.interval
    assert low <= found.by_page.mean <= high


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.125, 0.5, "training adds +25.0 points [+12.5, +50.0] ({})"),
        (-0.125, 0.5, "no effect here: +25.0 points [−12.5, +50.0] ({})"),
        (-0.5, -0.125, "training lost +25.0 points [−50.0, −12.5] ({}): use fewer epochs, a lower lr, or the frozen"),
    ],
)
def test_the_sentence_has_the_difference_its_interval_and_both_numbers(low, high, words):
    interval = metrics.PairedInterval(mean=0.25, low=low, high=high, groups=6, items=60, sign_flips=0.0)
    found = Added(0.75, 0.5, interval, dataclasses.replace(interval, low=math.nan, high=math.nan))
    measured = "same-page R-precision, frozen features 50.0 %, trained 75.0 %"
    assert found.sentence.startswith(words.format(measured))


def test_the_difference_is_paired_panel_by_panel():
    """Two models that are equal up to one page differ by that page alone, however different pages are."""
    page_ids, book_ids = pages_and_books(40)
    z = near_mates(page_ids, 0.8, 1)
    same = what_training_added(z, z, page_ids, book_ids)
    assert (same.by_page.mean, *same.interval) == (0, 0, 0)
    assert same.answer == "no effect"


def test_an_effect_must_show_by_page_and_by_book():
    """Many pages of two books: one is much better, the other is not, so resampling books sees no certain gain."""
    page_ids, _ = pages_and_books(40)
    book_ids = (page_ids >= 20).long()
    theirs = near_mates(page_ids, 0.8, 3)
    worse = near_mates(page_ids, 0.7, 4)
    ours = torch.cat([near_mates(page_ids, 6.0, 1)[:60], worse[60:]])
    found = what_training_added(ours, theirs, page_ids, book_ids)
    assert found.by_page.low > 0 > found.by_book.low
    assert found.answer == "no effect"
    assert found.interval[0] == min(found.by_page.low, found.by_book.low)
    assert found.interval[1] == max(found.by_page.high, found.by_book.high)


def test_with_one_book_only_pages_are_resampled():
    page_ids, _ = pages_and_books(40)
    z = near_mates(page_ids, 3.0, 1)
    found = what_training_added(z, near_mates(page_ids, 0.3, 2), page_ids, torch.zeros_like(page_ids))
    assert math.isnan(found.by_book.low)
    assert found.answer == "adds"


@pytest.mark.parametrize("pages", [1, 5])
def test_too_few_pages_say_nothing(pages):
    page_ids, book_ids = pages_and_books(pages)
    found = what_training_added(near_mates(page_ids, 9.0, 1), near_mates(page_ids, 0.1, 2), page_ids, book_ids)
    assert found.answer == "cannot tell"
    assert "too few" in found.sentence


def test_panels_without_page_mates_say_nothing_and_do_not_crash():
    ids = torch.arange(30)
    found = what_training_added(near_mates(ids, 1.0, 1), near_mates(ids, 1.0, 2), ids, ids // 4)
    assert found.answer == "cannot tell"
    assert math.isnan(found.trained)


def test_resampling_finds_an_effect_in_noise_rarely():
    """Two models that are equally good, 12 pages of three books: 5 % is what a 95 % interval promises."""
    page_ids, book_ids = pages_and_books(12)
    answers = [
        what_training_added(
            near_mates(page_ids, 0.7, 2 * s), near_mates(page_ids, 0.7, 2 * s + 1), page_ids, book_ids
        ).answer
        for s in range(60)
    ]
    assert answers.count("no effect") >= 53


def test_a_model_that_embeds_noise_is_below_its_features(tmp_path):
    run = synthetic.run(tmp_path / "run")
    data = synthetic.dataset(run.config, books=16)
    model = Trainer(run, data).model
    embedded = embedding.embed(model, data.panel_set, data.pages("all"))
    noise = torch.randn(embedded.panel.shape, generator=torch.Generator().manual_seed(0))
    found = baselines.added_to(data, dataclasses.replace(embedded, panel=noise))
    assert isinstance(found, Added)
    assert found.answer == "lost"
    assert found.trained < 2 * metrics.chance_r_precision(embedded.page_ids) < found.frozen
