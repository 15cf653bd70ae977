"""The encoder: absent modalities reach nothing, every mask but all-absent works, fusions fit."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stage3.batches import IMAGE, LAYOUT, TEXT, PanelBatch
from stage3.config import Config
from stage3.errors import ConfigError, StorageError
from stage3.model import EncoderSpec, PanelEncoder
from stage3.model.checkpoint import check_tensors, tensor_differences
from stage3.model.encoder import MAX_BACKBONES, MAX_SIZE, NEWER, PLAIN, Adapter
from stage3.model.objectives import Stage3
from tests import synthetic

MASKS = [[1, 1, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]


def encoder(sizes=(6,), **changes) -> PanelEncoder:
    spec = replace(EncoderSpec(sizes, 5, dim=16, gate_hidden=8, layout_hidden=8), **changes)
    return synthetic.under_way(Stage3.initialized(spec, Config(), seed=0)).encoder.eval()


def batch(masks=MASKS, image_size=6, seed=0) -> PanelBatch:
    g = torch.Generator().manual_seed(seed)
    v = len(masks)
    return PanelBatch(
        image=torch.randn(v, image_size, generator=g),
        text=torch.randn(v, 5, generator=g),
        layout=torch.rand(v, 7, generator=g),
        present=torch.tensor(masks, dtype=torch.bool),
        page_ids=torch.arange(v) // 2,
        text_ids=torch.arange(v),
        rows=torch.arange(v),
    )


def randomized(module: torch.nn.Module) -> torch.nn.Module:
    """Every parameter random: a norm's bias of 0 would hide a leak."""
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return module


@pytest.mark.parametrize("garbage", [0.0, 1e6, float("nan"), float("inf")])
def test_what_an_absent_modality_holds_changes_nothing_bit_for_bit(garbage):
    model = randomized(Stage3(EncoderSpec((6,), 5, dim=16, gate_hidden=8, layout_hidden=8), Config())).eval()
    clean = batch()
    dirty = batch()
    for column, name in ((IMAGE, "image"), (TEXT, "text"), (LAYOUT, "layout")):
        getattr(dirty, name)[~dirty.present[:, column]] = garbage
    a, b = model(clean), model(dirty)
    for field in ("panel", "image", "text", "gate"):
        assert torch.equal(getattr(a.embeddings, field), getattr(b.embeddings, field))
    assert all(torch.equal(a.losses[k].value, b.losses[k].value) for k in a.losses)
    assert torch.isfinite(b.total)


def test_the_fusion_is_gate_weighted_sum_plus_mean_over_what_is_present():
    """By hand, panel by panel: the norms' biases of absent modalities must be in neither part."""
    model, whole = randomized(encoder(panel_norm=False)), batch()
    e = model(whole)
    features = (whole.image, whole.text, whole.layout)
    encoders = (model.vision, model.text, model.layout)
    for row, mask in enumerate(MASKS):
        parts = [
            norm(encode(x[row : row + 1]))[0]
            for norm, encode, x, there in zip(model.norms, encoders, features, mask, strict=True)
            if there
        ]
        weights = e.gate[row][whole.present[row]]
        expected = sum(w * part for w, part in zip(weights, parts, strict=True))
        expected = expected + model.residual_weight * sum(parts) / len(parts)
        torch.testing.assert_close(e.panel[row], expected, rtol=1e-4, atol=1e-4)


def test_gate_weights_sum_to_one_over_what_is_present():
    gate = randomized(encoder())(batch()).gate
    present = batch().present
    assert torch.equal(gate > 0, present)
    torch.testing.assert_close(gate.sum(dim=1), torch.ones(len(MASKS)))


def test_one_modality_alone_is_its_own_embedding():
    e = encoder()(batch())
    for row, mask in enumerate(MASKS):
        assert bool(e.image[row].any()) == bool(mask[IMAGE])
        assert bool(e.text[row].any()) == bool(mask[TEXT])


def test_a_panel_without_any_modality_is_refused_with_its_row():
    with pytest.raises(ValueError, match=r"1 of 2 panels .* row 1"):
        batch([[1, 1, 1], [0, 0, 0]])


def test_a_panel_embeds_the_same_alone_and_among_others():
    model, whole = encoder(), batch()
    for row in range(len(MASKS)):
        fields = {n: getattr(whole, n)[row : row + 1] for n in PanelBatch.__dataclass_fields__ if n != "peers"}
        alone = model(PanelBatch(**fields))
        torch.testing.assert_close(alone.panel[0], model(whole).panel[row], rtol=1e-5, atol=1e-6)


def test_one_panel_trains_without_a_batch_statistic():
    model = encoder().train()
    model(batch([[1, 1, 1]])).panel.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert not any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in model.modules())


@pytest.mark.parametrize("how", ["attention", "gate", "concat"])
def test_two_image_backbones_fuse_and_both_get_gradient(how):
    model = encoder((6, 10), visual_fusion=how)
    e = model(batch(image_size=16))
    assert e.panel.shape == (len(MASKS), 16)
    e.image.square().sum().backward()
    for adapter in model.vision.adapters:
        assert adapter.learned[0].weight.grad.abs().sum() > 0
        assert adapter.strength.grad.abs() > 0
    image = batch(image_size=16).image
    parts = [adapter(x) for adapter, x in zip(model.vision.adapters, image.split([6, 10], dim=1), strict=True)]
    mixed = model.vision.mix(torch.cat(parts, dim=1))
    if how == "concat":
        expected = (parts[0] + parts[1]) / 2 + mixed
    else:
        share = 1 / (1 + (mixed[:, [1]] - mixed[:, [0]]).exp())
        expected = share * parts[0] + (1 - share) * parts[1]
    torch.testing.assert_close(model.vision(image), expected)
    alone = encoder(visual_fusion=how).vision  # one backbone is not mixed with anything
    image = batch().image
    assert torch.equal(alone(image), alone.adapters[0](image))
    assert not list(alone.mix.parameters())


def test_noise_on_features_follows_their_scale_in_training_and_is_absent_from_evaluation():
    model = encoder((40, 40), feature_noise=0.5, dropout=0.0)
    seen: list[torch.Tensor] = []
    for adapter in model.vision.adapters:
        adapter.learned[0].register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    image = torch.randn(200, 80, generator=torch.Generator().manual_seed(0))
    image[:, 40:] *= 1000  # the second backbone's numbers are a thousand times larger
    model.train().vision(image)
    for given, noisy in zip(image.split(40, dim=1), seen, strict=True):
        share = (noisy - given).square().mean().sqrt() / given.square().mean().sqrt()
        assert float(share) == pytest.approx(0.5, rel=0.03)
    plain = encoder((40, 40), feature_noise=0.0, dropout=0.0)
    assert torch.equal(model.eval().vision(image), plain.vision(image))
    assert torch.equal(plain.train().vision(image), plain.eval().vision(image))


def test_an_unknown_fusion_is_refused_by_name():
    with pytest.raises(ConfigError, match="'sum' is not one of attention, gate, concat"):
        encoder((6, 10), visual_fusion="sum")


def test_each_present_modality_is_encoded_once_and_only_where_present():
    model, calls = encoder(), []
    for name in ("vision", "text", "layout"):
        getattr(model, name).register_forward_pre_hook(lambda _, x, name=name: calls.append((name, len(x[0]))))
    model(batch())
    assert sorted(calls) == [("layout", 4), ("text", 4), ("vision", 4)]


@pytest.mark.parametrize(("dim", "hidden"), [(8, 8), (16, 8), (40, 20)])
def test_the_head_that_reconstructs_has_half_the_width_and_eight_at_least(dim, hidden):
    """Checkpoints hold its tensors: with another width they could not be read."""
    head = Stage3(EncoderSpec((6,), 5, dim=dim), Config()).reconstruction_head
    shapes = [tuple(p.shape) for p in head.parameters() if p.ndim == 2]
    assert shapes == [(hidden, dim), (dim, hidden)]


def test_the_spec_survives_json():
    spec = EncoderSpec((6, 10), 5, dim=16, visual_fusion="gate")
    assert EncoderSpec.from_dict(spec.to_dict()) == spec


WRONG = [
    ({"dim": 2.5}, "dim: 2.5 must be an integer from 1 to"),
    ({"dim": True}, "dim: True must be an integer"),
    ({"text_size": 0}, "text_size: 0 must be an integer from 1"),
    ({"gate_hidden": MAX_SIZE + 1}, f"gate_hidden: {MAX_SIZE + 1} must be"),
    ({"image_sizes": [6, "10"]}, "image_sizes: 10 must be an integer"),
    ({"image_sizes": []}, "image_sizes: expected a list of 1 to"),
    ({"image_sizes": [2] * (MAX_BACKBONES + 1)}, "image_sizes: expected a list of 1 to"),
    ({"image_sizes": (6, 10)}, "image_sizes: expected a list of 1 to"),
    ({"dropout": "0.1"}, "dropout: '0.1' is not a valid float"),
    ({"panel_norm": 1}, "panel_norm: '1' is not a valid bool"),
    ({"visual_fusion": None}, "visual_fusion: 'None' is not a valid str"),
    ({"form": "square"}, "form: 'square' is not one of"),
    ({"dim": 2}, "dim: 2 dimensions are too few for 2 image backbones"),
    ({"more": 1}, "found ['dim', 'dropout'"),
]


@pytest.mark.parametrize(("changed", "told"), WRONG)
def test_a_spec_of_unknown_origin_is_refused_by_what_is_wrong(changed, told):
    values = EncoderSpec((6, 10), 5, dim=16).to_dict()
    assert EncoderSpec.from_dict({**values, "dropout": 0, "dim": 3}).dim == 3
    with pytest.raises((ValueError, ConfigError), match=re.escape(told)):
        EncoderSpec.from_dict({**values, **changed})
    with pytest.raises(ValueError, match=r"an encoder is described by .*found list"):
        EncoderSpec.from_dict([values])
    with pytest.raises(ValueError, match=r"found \['entry 00', .*'entry 19'\]$"):
        EncoderSpec.from_dict({f"entry {i:02d}": i for i in range(99)})


def test_a_spec_from_before_some_entries_existed_is_one_of_random_weights():
    values = EncoderSpec((6,), 5, dim=16).to_dict()
    old = {name: value for name, value in values.items() if name not in NEWER}
    found = EncoderSpec.from_dict(old)
    assert (found.form, found.use_layout, found.layout_dropout, found.joint) == (PLAIN, True, 0.0, False)


@pytest.mark.parametrize("recorded", ["pixels", None])
def test_a_model_of_other_layout_features_is_refused_by_their_meaning(recorded):
    values = EncoderSpec((6,), 5, dim=16).to_dict() | ({"layout": recorded} if recorded else {})
    if recorded is None:
        del values["layout"]
    with pytest.raises(ValueError, match="layout features 'pixels'.*Train it again" if recorded else "is described by"):
        EncoderSpec.from_dict(values)


def test_tensors_of_another_model_are_named_with_what_differs():
    ours = {name: torch.zeros(2, 3) for name in ("same", "shape", "dtype", "lost")}
    theirs = {
        "same": torch.ones(2, 3),
        "shape": torch.zeros(3, 2),
        "dtype": torch.zeros(2, 3).half(),
        "new": ours["lost"],
    }
    assert tensor_differences(ours, theirs) == [
        "dtype is (2, 3) torch.float16, expected (2, 3) torch.float32",
        "lost is missing",
        "new is not known",
        "shape is (3, 2) torch.float32, expected (2, 3) torch.float32",
    ]
    check_tensors(ours, ours, Path("run"))
    many = {f"{i:02d}": torch.zeros(1) for i in range(12)}
    for n, told in ((10, "09 is missing$"), (11, "09 is missing and 1 more$")):
        with pytest.raises(StorageError, match=rf"^run: its tensors are not this model's: 00 is missing; .*{told}"):
            check_tensors(dict(list(many.items())[:n]), {}, Path("run"))


def test_initial_weights_depend_on_the_seed_alone():
    spec = EncoderSpec((6,), 5, dim=16)
    torch.manual_seed(5)
    a = Stage3.initialized(spec, Config(), 3).state_dict()
    after = torch.get_rng_state()
    torch.manual_seed(5)
    assert torch.equal(after, torch.get_rng_state())
    torch.manual_seed(6)
    b = Stage3.initialized(spec, Config(), 3).state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_absent_images_stay_absent_in_packed_batches():
    data = synthetic.dataset(boxless=0.5, textless=0.5)
    b = data.panel_set.batch(data.pages("all"))
    assert len(b) == len(data.table)
    assert not b.image[~b.present[:, IMAGE]].any()
    assert b.present.any(dim=1).all()


@pytest.mark.parametrize("how", ["attention", "gate", "concat"])
@pytest.mark.parametrize("form", ["anchored", "plain"])
def test_an_embedding_does_not_depend_on_who_else_is_in_the_batch(how, form):
    """Weights of backbones are shared out within a panel, never over the batch."""
    e = randomized(encoder((6, 4), visual_fusion=how, form=form))
    both = batch(image_size=10)
    whole = e(both)
    for i in range(len(both)):
        alone = e(PanelBatch(*(getattr(both, n)[i : i + 1] for n in ("image", "text", "layout", "present")), *(
            getattr(both, n)[i : i + 1] for n in ("page_ids", "text_ids", "rows"))))  # fmt: skip
        torch.testing.assert_close(alone.panel[0], whole.panel[i])
        torch.testing.assert_close(alone.image[0], whole.image[i])


def test_noise_is_measured_by_each_panel_s_own_feature():
    adapter = Adapter(400, 8, 0.0, noise=0.5).train()
    seen: list[torch.Tensor] = []
    adapter[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    feature = torch.randn(3, 400, generator=torch.Generator().manual_seed(0)) * torch.tensor([[0.01], [1.0], [100.0]])
    torch.manual_seed(0)
    adapter(feature)
    rms = feature.square().mean(dim=1).sqrt()
    assert ((seen[0] - feature).std(dim=1) / rms).tolist() == pytest.approx([0.5] * 3, rel=0.12)
    seen.clear()
    adapter.eval()(feature)
    assert torch.equal(seen[0], feature)
