"""Anchored models: where they begin, what decides their subspaces, and what leads back to the start."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from stage3.batches import LAYOUT, PanelBatch
from stage3.config import Config
from stage3.model import EncoderSpec, baselines
from stage3.model.anchor import Anchor, FeatureSums, Statistics, directions, sampled, subspaces
from stage3.model.objectives import Stage3
from stage3.train.optimizer import decays, make_optimizer, peak_rate
from tests import synthetic


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def statistics_of(feature: torch.Tensor, sizes: list[int] | None = None) -> list[Statistics]:
    sums = FeatureSums(sizes or [feature.shape[1]])
    for part in feature.split(7):  # several batches
        sums.add(part)
    for part in feature.split(5):
        sums.add_centered(part)
    return sums.statistics()


def spread_out(n: int, size: int, seed: int = 0) -> torch.Tensor:
    """Features with a mean of their own and a few directions that hold most of the variance."""
    scale = torch.linspace(3, 0.2, size)
    return torch.randn(n, size, generator=drawn(seed)) * scale + torch.linspace(-2, 2, size)


# --- subspaces and statistics


@pytest.mark.parametrize(("dim", "backbones"), [(512, 1), (512, 2), (512, 3), (16, 1), (8, 2), (9, 8)])
def test_subspaces_lie_side_by_side_and_fill_the_embedding(dim, backbones):
    images, text = subspaces(dim, backbones)
    edges = [0, *(end for _, end in images), text[1]]
    assert [first for first, _ in images] == edges[:backbones]
    assert text == (edges[backbones], dim)
    assert all(end > first for first, end in (*images, text))
    if dim == 512:
        assert text == (320, 512)  # five eighths for images, however many backbones read them


def test_statistics_are_the_mean_and_the_mean_outer_product_of_unit_rows():
    feature = spread_out(23, 6)
    parts = statistics_of(feature, [4, 2])
    for found, own in zip(parts, feature.split([4, 2], dim=1), strict=True):
        center = own.mean(dim=0)
        unit = [(row - center) / (row - center).norm() for row in own]
        outer = sum(torch.outer(u, u) for u in unit) / len(unit)
        torch.testing.assert_close(found.center, center)
        torch.testing.assert_close(found.covariance.float(), outer, rtol=1e-4, atol=1e-5)
        exact = normalize(own - found.center, dim=1).double()
        torch.testing.assert_close(found.covariance, exact.T @ exact / 23, rtol=0, atol=1e-12)  # added up in float64
        assert found.panels == 23


def test_without_a_panel_the_center_is_zero():
    assert FeatureSums([3]).statistics()[0].center.tolist() == [0, 0, 0]


def test_statistics_of_a_data_set_come_from_its_training_panels_that_have_the_modality():
    data = synthetic.dataset()
    pages = data.pages("train")
    image, text = baselines.statistics(data, pages)
    batch = data.panel_set.batch(pages)
    torch.testing.assert_close(image.center, batch.image[batch.present[:, 0]].mean(dim=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(text.center, batch.text[batch.present[:, 1]].mean(dim=0), rtol=1e-4, atol=1e-5)
    assert (image.panels, text.panels) == (int(batch.present[:, 0].sum()), int(batch.present[:, 1].sum()))
    assert image.panels != text.panels
    other = baselines.statistics(data, data.pages("test"))[0]
    assert not torch.allclose(other.center, image.center)


def test_many_pages_are_sampled_evenly(monkeypatch):
    monkeypatch.setattr("stage3.model.anchor.SAMPLE_PAGES", 5)
    assert sampled(np.arange(100, 200)).tolist() == [100, 125, 150, 174, 199]
    assert sampled(np.arange(3)).tolist() == [0, 1, 2]


# --- directions


@pytest.mark.parametrize(("size", "k"), [(6, 6), (6, 20)])
def test_with_room_enough_every_cosine_is_kept_exactly(size, k):
    feature = spread_out(40, size)
    found = statistics_of(feature)[0]
    unit = normalize(feature - found.center, dim=1)
    mapped = unit @ directions(found, k, drawn())
    torch.testing.assert_close(mapped @ mapped.T, unit @ unit.T, rtol=1e-4, atol=1e-5)


def test_with_many_panels_half_of_the_dimensions_are_the_leading_directions():
    found = statistics_of(spread_out(2000, 30))[0]
    mapping = directions(found, 8, drawn())
    leading = torch.linalg.eigh(found.covariance)[1].flip(1)[:, :4].float()
    torch.testing.assert_close((mapping[:, :4].T @ leading).abs(), torch.eye(4), atol=1e-3, rtol=0)
    assert (mapping[:, 4:].T @ leading).abs().max() < 1e-3  # the others lie outside of them


def test_few_panels_determine_few_leading_directions():
    leading = torch.linalg.eigh(statistics_of(spread_out(25, 30))[0].covariance)[1].flip(1).float()
    mapping = directions(statistics_of(spread_out(25, 30))[0], 16, drawn())
    inside = (mapping.T @ leading[:, :2]).abs()
    assert inside[:2].diagonal().min() > 0.999
    assert (mapping.T @ leading[:, 2]).abs().max() < 0.999  # the third is one of many in a random mixture


def test_random_directions_keep_inner_products_on_average():
    feature = spread_out(300, 60)
    found = replace(statistics_of(feature)[0], panels=0)
    unit = normalize(feature - found.center, dim=1)
    mapped = [unit @ directions(found, 30, drawn(s)) for s in range(200)]
    mean = torch.stack([m[:10] @ m[:10].T for m in mapped]).mean(dim=0)
    torch.testing.assert_close(mean, unit[:10] @ unit[:10].T, atol=0.06, rtol=0)


def test_an_anchor_stays_in_its_dimensions_with_a_root_mean_square_of_one():
    feature = spread_out(50, 6)
    anchor = Anchor(6, 16, (4, 11))
    assert not anchor.center.any()
    assert not anchor.directions.any()
    anchor.fit(statistics_of(feature)[0], drawn())
    out = anchor(feature)
    assert not out[:, :4].any()
    assert not out[:, 11:].any()
    torch.testing.assert_close(out.square().mean(dim=1), torch.ones(50))
    middle = anchor(torch.stack([anchor.center, feature[0]]))[
        0
    ]  # without a direction it still has a length, or no cosine would be defined
    assert middle[4:11].tolist() == pytest.approx([math.sqrt(16 / 7)] * 7)
    assert not middle[:4].any()


# --- the model


def started(data, **settings) -> Stage3:
    config = Config(**settings)
    spec = EncoderSpec.of(config, data.features.image_sizes, data.features.text_dim)
    return Stage3.untrained(spec, config, baselines.statistics(data, data.pages("train"))).eval()


def test_an_untrained_panel_has_the_cosines_of_its_frozen_features():
    """With room for all features, and layout left out, they are the same up to rounding."""
    data = synthetic.dataset()
    rows = data.panel_set.rows_of(data.pages("test"))
    model = started(data, use_layout=False)
    with torch.inference_mode():
        panel = normalize(model.encoder(data.panel_set.batch_of_rows(rows)).panel, dim=1)
    frozen = baselines.frozen_features(data.panel_set, rows, baselines.centers(data, data.pages("train"))).panel
    frozen = normalize(frozen, dim=1)
    torch.testing.assert_close(panel @ panel.T, frozen @ frozen.T, atol=0.02, rtol=0)  # LayerNorm takes its mean out


def test_layout_begins_weak_and_a_plain_model_begins_elsewhere():
    data = synthetic.dataset()
    batch = data.panel_set.batch(data.pages("test"))
    with torch.inference_mode():
        without = normalize(started(data, use_layout=False).encoder(batch).panel, dim=1)
        weak = normalize(started(data).encoder(batch).panel, dim=1)
        plain = normalize(started(data, form="plain").encoder(batch).panel, dim=1)
    reads = batch.present[:, :2].any(dim=1)
    assert float((without * weak).sum(dim=1)[reads].min()) > 0.98
    assert float((without @ without.T - weak @ weak.T)[reads][:, reads].abs().max()) < 0.1
    assert float((without @ without.T - plain @ plain.T).abs().mean()) > 0.3


def test_training_begins_with_uniform_weights_over_what_is_present():
    data = synthetic.dataset()
    batch = data.panel_set.batch(data.pages("all"))
    with torch.inference_mode():
        gate = started(data).encoder(batch).gate
    expected = batch.present.float() / batch.present.sum(dim=1, keepdim=True)
    torch.testing.assert_close(gate, expected)


@pytest.mark.parametrize("how", ["attention", "gate", "concat"])
def test_several_image_backbones_begin_side_by_side(how):
    spec = EncoderSpec((6, 10), 5, dim=64, visual_fusion=how)
    features = [statistics_of(spread_out(200, s, s))[0] for s in (6, 10, 5)]
    model = Stage3.untrained(spec, Config(), features).eval()
    image = torch.cat([spread_out(12, 6, 1), spread_out(12, 10, 2)], dim=1)
    with torch.inference_mode():
        out = normalize(model.encoder.vision(image), dim=1)
    parts = [normalize(x - f.center, dim=1) for x, f in zip(image.split([6, 10], dim=1), features, strict=False)]
    frozen = torch.cat(parts, dim=1) / math.sqrt(2)
    torch.testing.assert_close(out @ out.T, frozen @ frozen.T, atol=1e-4, rtol=0)


def test_layout_is_left_out_where_it_is_switched_off_but_never_a_panels_only_modality():
    data = synthetic.dataset()
    batch = data.panel_set.batch(data.pages("all"))
    alone = batch.present.clone()
    alone[0] = torch.tensor([False, False, True])
    fields = {n: getattr(batch, n) for n in PanelBatch.__dataclass_fields__} | {"present": alone}
    model = synthetic.under_way(started(data, use_layout=False))
    with torch.inference_mode():
        gate = model.encoder(PanelBatch(**fields)).gate
    assert gate[0].tolist() == [0, 0, 1]
    assert not gate[1:, LAYOUT].any()


def test_layout_is_dropped_at_random_in_training_alone():
    data = synthetic.dataset()
    batch = data.panel_set.batch(data.pages("all"))
    model = synthetic.under_way(started(data, layout_dropout=0.3))
    has = batch.present[:, LAYOUT] & batch.present[:, :2].any(dim=1)
    torch.manual_seed(0)
    seen = torch.stack([model.train().encoder(batch).gate[has, LAYOUT] > 0 for _ in range(20)]).float()
    assert 0.65 < float(seen.mean()) < 0.75
    assert bool((model.eval().encoder(batch).gate[has, LAYOUT] > 0).all())


# --- back to the start


def test_decay_pulls_the_strength_to_the_anchor_and_leaves_gains_alone():
    model = Stage3.initialized(EncoderSpec((6,), 5, dim=16), Config(), seed=0)
    decaying, still = make_optimizer(model, Config(weight_decay=0.5)).param_groups
    names = {id(p): n for n, p in model.named_parameters()}
    of = [{names[id(p)] for p in group["params"]} for group in (decaying, still)]
    assert {"encoder.text.strength", "encoder.vision.adapters.0.strength", "encoder.gate.3.weight"} <= of[0]
    assert {"encoder.norms.0.weight", "encoder.residual_weight", "encoder.gate.3.bias"} <= of[1]
    assert decaying["weight_decay"] == 0.5
    assert still["weight_decay"] == 0
    assert not decays("encoder.norms.2.weight", torch.ones(4))


@pytest.mark.parametrize(("panels", "expected"), [(1000, 0.02), (5000, 0.02), (100, 0.0002), (0, 0.0)])
def test_the_peak_rate_follows_the_square_of_the_training_panels(panels, expected):
    assert peak_rate(Config(lr=0.02, lr_panels=1000), panels) == pytest.approx(expected)
    assert peak_rate(Config(lr=0.02, lr_panels=0), panels) == 0.02


# --- towers of one model


def test_two_towers_of_one_model_keep_their_joint_space():
    """Image and text features of one space lie in the same dimensions, so retrieval works before the first step."""
    spec = EncoderSpec((6,), 6, dim=32, joint=True)
    image, text = spread_out(60, 6, 1), spread_out(60, 6, 2) + 1
    features = [statistics_of(image)[0], statistics_of(text)[0]]
    encoder = Stage3.untrained(spec, Config(), features).eval().encoder
    with torch.inference_mode():
        a, b = normalize(encoder.vision(image), dim=1), normalize(encoder.text(text), dim=1)
    centered = [normalize(x - f.center, dim=1) for x, f in zip((image, text), features, strict=True)]
    torch.testing.assert_close(a @ b.T, centered[0] @ centered[1].T, atol=1e-5, rtol=0)
    apart = Stage3.untrained(replace(spec, joint=False), Config(), features).eval().encoder
    with torch.inference_mode():
        assert not (apart.vision(image) * apart.text(text)).any()


def test_only_the_two_towers_of_one_model_are_joint():
    one = Config(vision_backbone="a/clip", text_backbone="a/clip")
    assert EncoderSpec.of(one, (8,), 8).joint
    assert not EncoderSpec.of(one.replace(form="plain"), (8,), 8).joint
    assert not EncoderSpec.of(one.replace(text_backbone="b/clip"), (8,), 8).joint
    assert not EncoderSpec.of(Config(), (8,), 8).joint
