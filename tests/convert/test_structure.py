"""What is told from a checkpoint's tensors, and the encoder that is made of them, against the original model."""

from __future__ import annotations

import pytest
import torch

from stage3.batches import IMAGE, LAYOUT, TEXT, PanelBatch
from stage3.convert import towers
from stage3.convert.structure import sort_out
from stage3.errors import ConfigError, DataError
from stage3.model.earlier import EarlierEncoder
from tests.original_trainer import SIDE, Original

FAMILIES = [
    ("siglip", "attention", True, 32),
    ("siglip", "gate", False, 48),
    ("resnet", "attention", True, 136),  # wider than the backbone's feature: the adapter stays half of the feature
    ("resnet", "attention", False, 24),
    ("both", "attention", True, 32),
    ("both", "attention", False, 40),
    ("both", "gate", True, 24),
    ("both", "gate", False, 136),
]
MASKS = torch.tensor([[1, 1, 1], [1, 0, 1], [1, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 1, 1]]).bool()
TEXTS = ["a cat runs", "where is he", "red house", "dog", "they were here now", "!", "the forest jumps"]


def rebuilt(model: Original, folder, **names) -> EarlierEncoder:
    """The encoder of a model's checkpoint, with the constants of absent modalities."""
    found = sort_out(model.weights(**names), "vlm", folder)
    encoder = EarlierEncoder(found.spec).eval()
    encoder.load_state_dict(found.learned | {"absent": encoder.absent})
    with torch.inference_mode():
        zeros = model.vision.feature(torch.zeros(1, 3, SIDE, SIDE))[0]
        nothing = model.text.feature("")
    encoder.set_absent(zeros.clone(), nothing.clone())
    return encoder


def inputs(model: Original, present: torch.Tensor):
    """A batch of features, NaN where a modality is absent, and what the original gives for each panel."""
    g = torch.Generator().manual_seed(1)
    pixels, layout = torch.randn(len(present), 3, SIDE, SIDE, generator=g), torch.rand(len(present), 7, generator=g)
    expected = [
        model.panel(pixels[i] if p[0] else None, TEXTS[i] if p[1] else "", layout[i] if p[2] else None)
        for i, p in enumerate(present.tolist())
    ]
    with torch.inference_mode():
        image = model.vision.feature(pixels)
        text = torch.stack([model.text.feature(t) for t in TEXTS])
    features = [t.clone() for t in (image, text, layout)]
    for i, values in enumerate(features):
        values[~present[:, i]] = torch.nan
    n = torch.arange(len(present))
    batch = PanelBatch(*features, present, n // 2, n, n)
    return batch, {name: torch.stack([e[name] for e in expected]) for name in expected[0]}


@pytest.mark.parametrize(("backbone", "fusion", "indicators", "d"), FAMILIES)
def test_every_family_gives_the_originals_embeddings_for_every_set_of_modalities(
    backbone, fusion, indicators, d, tmp_path
):
    model = Original(backbone, fusion, indicators=indicators, d=d)
    encoder = rebuilt(model, tmp_path)
    for present in (MASKS, torch.ones_like(MASKS)):
        batch, expected = inputs(model, present)
        with torch.inference_mode():
            e = encoder(batch)
        close = {"rtol": 0, "atol": 1e-5}
        torch.testing.assert_close(e.panel, expected["fused"], **close)
        for name, i in (("image", IMAGE), ("text", TEXT)):
            ours, there = getattr(e, name), present[:, i]
            torch.testing.assert_close(ours[there], expected[name][there], **close)
            assert (ours[~there] == 0).all()
            torch.testing.assert_close(encoder.absent[i].expand_as(ours)[~there], expected[name][~there], **close)
        assert (e.gate[~present] == 0).all()
        torch.testing.assert_close(e.gate.sum(dim=1), torch.ones(len(present)))
    layout = torch.rand(5, 7, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        torch.testing.assert_close(encoder.layout(layout), model.comp.mlp(layout), rtol=0, atol=1e-5)
        torch.testing.assert_close(encoder.absent[LAYOUT], model.comp.mlp(torch.zeros(1, 7))[0], rtol=0, atol=1e-5)


def test_the_expected_values_move_when_one_weight_of_each_kind_does(tmp_path):
    """Otherwise the comparison above could not see a layer that is left out."""
    model = Original("both", "gate", d=24)
    batch, _ = inputs(model, MASKS)
    with torch.inference_mode():
        before = rebuilt(model, tmp_path)(batch).panel
    moved = ("vision.resnet.adaptation.1.bias", "vision.gate.0.bias", "text.proj.bias", "comp.mlp.5.running_mean")
    moved += ("comp.mlp.1.running_var", "fusion.norm_text.weight", "fusion.gate.0.bias", "fusion.residual_weight")
    for name in moved:
        with torch.no_grad():
            numbers = model.state_dict()[name].view(-1)
            numbers[: (len(numbers) + 1) // 2].add_(0.7)  # not all alike: a norm hides what all of them share
        with torch.inference_mode():
            after = rebuilt(model, tmp_path)(batch).panel
        assert (after - before).abs().max() > 1e-3, name
        before = after


def test_both_spellings_of_the_siglip_are_one_model(tmp_path):
    for backbone in ("siglip", "both"):
        model = Original(backbone)
        old, new = (sort_out(model.weights(transformers4=four), "vlm", tmp_path) for four in (True, False))
        assert any(".vision_model." in name for name in model.weights(transformers4=True))
        assert old.spec == new.spec
        assert old.images[0].weights.keys() == new.images[0].weights.keys()


def test_the_spec_says_what_the_file_holds(tmp_path):
    found = sort_out(Original("both", "gate", indicators=False, d=40).weights(), "ocr", tmp_path)
    assert (found.spec.image_sizes, found.spec.text_size, found.spec.dim) == ((24, 128), 16, 40)
    assert (found.spec.visual_fusion, found.spec.layout, found.spec.form) == ("gate", "ocr", "earlier")
    assert (found.spec.gate_hidden, found.spec.layout_hidden, found.indicators) == (40, 256, False)
    resnet = found.images[1].config
    assert (resnet.depths, resnet.hidden_sizes, resnet.embedding_size) == ([1, 2, 1, 1], [16, 32, 64, 128], 4)


def changed(weights: dict, change: str) -> dict:
    """Weights with one thing wrong."""
    match change:
        case "missing":
            del weights["fusion.norm_comp.bias"]
        case "missing in a tower":
            del weights["vision.siglip.siglip.head.probe"]
        case "missing in the ResNet":
            del weights["vision.resnet.resnet.layer2.1.bn3.running_var"]
        case "unknown":
            weights["fusion.extra"] = torch.zeros(2)
        case "unknown in a tower":
            weights["text.encoder.lm.weight"] = torch.zeros(2)
        case "another shape":
            weights["comp.mlp.4.weight"] = torch.zeros(256, 255)
        case "a vector for a matrix":
            weights["text.proj.weight"] = torch.zeros(32)
        case "not finite":
            weights["vision.attention.0.bias"] = torch.tensor([0.0, float("nan")])
        case "negative variance":
            weights["comp.mlp.1.running_var"] = -torch.ones(256)
        case "no vision":
            weights = {n: t for n, t in weights.items() if not n.startswith("vision.")}
        case "no text":
            weights = {n: t for n, t in weights.items() if not n.startswith("text.encoder.")}
        case "concat":
            weights = {n: t for n, t in weights.items() if not n.startswith("vision.attention.")}
        case "integers":
            weights["text.proj.bias"] = weights["text.proj.bias"].long()
        case "both ways":
            weights["vision.gate.0.weight"] = torch.zeros(32, 64)
    return weights


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("missing", "fusion.norm_comp.bias is missing"),
        ("missing in a tower", "vision.siglip.siglip.head.probe is missing"),
        ("missing in the ResNet", "vision.resnet.resnet.layer2.1.bn3.running_var is missing"),
        ("unknown", "fusion.extra is not known"),
        ("unknown in a tower", "text.encoder.lm.weight is not known"),
        ("another shape", r"comp.mlp.4.weight is \(256, 255\) .* expected \(256, 256\)"),
        ("a vector for a matrix", r"text.proj.weight has shape \(32,\)"),
        ("not finite", "vision.attention.0.bias is not finite"),
        ("negative variance", "comp.mlp.1.running_var is negative"),
        ("no vision", r"vision\.siglip\. or vision\.resnet\."),
        ("no text", "text.encoder.embeddings.word_embeddings.weight is missing"),
        ("concat", "concatenates"),
        ("integers", "text.proj.bias is .* torch.int64, expected"),
        ("both ways", "vision.gate.0.weight is not known"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_name_in_the_file(change, said, tmp_path):
    with pytest.raises(DataError, match=said):
        sort_out(changed(Original("both").weights(), change), "vlm", tmp_path)


def test_crops_have_the_side_that_the_siglip_takes_or_that_is_usual_for_the_resnet(tmp_path):
    both, resnet = (sort_out(Original(kind).weights(), "vlm", tmp_path).images for kind in ("both", "resnet"))
    assert (towers.side_of(both, 0), towers.side_of(both, SIDE)) == (SIDE, SIDE)
    with pytest.raises(ConfigError, match="image_side: its SigLIP takes 32 pixels, not 224"):
        towers.side_of(both, 224)
    assert (towers.side_of(resnet, 0), towers.side_of(resnet, 96)) == (32, 96)
    resnet[0].config.embedding_size = 64
    assert towers.side_of(resnet, 0) == 224


def test_attention_heads_are_those_that_models_of_a_width_have(tmp_path):
    assert [towers._heads("siglip", width, 0) for width in (768, 1024, 1152, 24)] == [12, 16, 16, 2]
    assert [towers._heads("text", width, 0) for width in (384, 768, 1024)] == [12, 12, 16]
    assert towers._heads("text", 384, 6) == 6
    with pytest.raises(ConfigError, match=r"image_heads.*--image_heads"):
        towers._heads("siglip", 768, 7)
    (tmp_path / "config.json").write_text('{"hidden_size": 16, "num_attention_heads": 4}')
    model = Original("siglip").weights()
    assert sort_out(model, "vlm", tmp_path).text.config.num_attention_heads == 4
    assert sort_out(model, "vlm", tmp_path, text_heads=8).text.config.num_attention_heads == 8
    (tmp_path / "config.json").write_text('{"hidden_size": 384, "num_attention_heads": 4}')  # of another model
    assert sort_out(model, "vlm", tmp_path).text.config.num_attention_heads == 2
