"""The encoder of converted checkpoints among the other forms; its numbers are tested with `stage3.convert`."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from stage3.batches import IMAGE, LAYOUT, TEXT
from stage3.config import Config
from stage3.errors import ConfigError, StorageError
from stage3.model import EncoderSpec
from stage3.model.checkpoint import model_of
from stage3.model.earlier import EarlierEncoder, EarlierVision
from stage3.model.objectives import Stage3
from tests.model.test_model import MASKS, batch, randomized

SPEC = EncoderSpec((6,), 5, dim=16, gate_hidden=8, layout_hidden=8, layout="ocr", form="earlier")
NO_HEAD = Config(reconstruction_weight=0)


def earlier(spec: EncoderSpec = SPEC) -> EarlierEncoder:
    encoder = randomized(EarlierEncoder(spec)).eval()
    encoder.absent.copy_(torch.randn(3, 16, generator=torch.Generator().manual_seed(5)))
    return encoder


@pytest.mark.parametrize("garbage", [0.0, 1e6, float("nan"), float("inf")])
def test_what_an_absent_modality_holds_changes_nothing_bit_for_bit(garbage):
    encoder, clean, dirty = earlier(), batch(), batch()
    for column, name in ((IMAGE, "image"), (TEXT, "text"), (LAYOUT, "layout")):
        getattr(dirty, name)[~dirty.present[:, column]] = garbage
    a, b = encoder(clean), encoder(dirty)
    for field in ("panel", "image", "text", "gate"):
        assert torch.equal(getattr(a, field), getattr(b, field))
    with torch.autocast("cpu", torch.bfloat16):
        rough = encoder(dirty).panel
    torch.testing.assert_close(rough, a.panel, rtol=0.1, atol=0.1)


def test_the_constant_of_each_modality_enters_the_panels_without_it_and_no_others():
    encoder = earlier()
    before = encoder(batch()).panel
    for column in (IMAGE, TEXT, LAYOUT):
        encoder.absent[column, :5] += 2
        after = encoder(batch()).panel
        moved = (after - before).abs().amax(dim=1) > 1e-6
        assert moved.tolist() == [not mask[column] for mask in MASKS]
        before = after


def test_constants_are_what_a_black_image_an_empty_text_and_no_layout_give():
    encoder = earlier()
    encoder.set_absent(torch.full((6,), 2.0), torch.full((5,), -1.0))
    expected = {
        IMAGE: encoder.vision(torch.full((1, 6), 2.0)),
        TEXT: encoder.text(torch.full((1, 5), -1.0)),
        LAYOUT: encoder.layout(torch.zeros(1, 7)),
    }
    for column, value in expected.items():
        torch.testing.assert_close(encoder.absent[column], value[0].detach())
    assert not encoder.absent.requires_grad
    first, second, third = (layer for layer in encoder.layout if isinstance(layer, torch.nn.Linear))
    layout = batch().layout
    torch.testing.assert_close(encoder.layout(layout), third(second(first(layout).relu()).relu()))


@pytest.mark.parametrize("fusion", ["attention", "gate"])
def test_several_image_backbones_are_weighed_panel_by_panel(fusion):
    vision = randomized(EarlierVision(replace(SPEC, image_sizes=(2, 4), visual_fusion=fusion))).eval()
    image = torch.randn(5, 6, generator=torch.Generator().manual_seed(2))
    alone = randomized(EarlierVision(replace(SPEC, visual_fusion=fusion))).eval()
    assert torch.equal(alone(image), alone.adapters[0](image))
    first, second = vision.adapters[0](image[:, :2]), vision.adapters[1](image[:, 2:])
    for i, found in enumerate(vision(image)):
        scores = vision.mix(torch.cat([first[i], second[i]]))
        share = 1 / (1 + (scores[1] - scores[0]).exp())
        torch.testing.assert_close(found, share * first[i] + (1 - share) * second[i])


def test_a_converted_model_comes_back_from_its_checkpoint(tmp_path):
    model = Stage3.initialized(SPEC, NO_HEAD, seed=3).eval()
    model.encoder.absent.copy_(torch.randn(3, 16))
    again = model_of(model.state_dict(), SPEC.to_dict(), NO_HEAD, tmp_path)
    assert torch.equal(again(batch()).embeddings.panel, model(batch()).embeddings.panel)
    assert again.encoder.spec == SPEC
    assert (SPEC.layout_dropout, SPEC.feature_noise) == (0, 0)  # such a file says nothing of them
    assert not [name for name in model.state_dict() if name.startswith("reconstruction_head")]
    untrained = again.before_training()
    assert torch.isfinite(untrained(batch()).embeddings.panel).all()
    assert untrained.encoder.residual_weight.item() == 0.5  # as that of every model


def test_a_converted_model_has_no_reconstruction_and_says_so(tmp_path):
    with pytest.raises(ConfigError, match="reconstruction_weight must be 0"):
        Stage3.initialized(SPEC, Config(), seed=0)
    model = Stage3.initialized(SPEC, NO_HEAD, seed=0)
    with pytest.raises(StorageError, match=r"state\.json: encoder: reconstruction_weight must be 0"):
        model_of(model.state_dict(), SPEC.to_dict(), Config(), tmp_path)


def test_forms_and_meanings_that_no_version_had_are_refused():
    for change, said in (
        ({"form": "older"}, "not one of anchored, plain, earlier"),
        ({"layout": "px"}, "which this version does not compute \\(it computes vlm, ocr\\)"),
    ):
        with pytest.raises(ConfigError, match=said):
            replace(SPEC, **change)
    both = replace(SPEC, image_sizes=(3, 3), visual_fusion="concat")
    with pytest.raises(ConfigError, match="never trained"):
        EarlierEncoder(both)


def test_no_setting_asks_for_it():
    with pytest.raises(ConfigError, match="form: 'earlier' is not one of"):
        Config(form="earlier")
