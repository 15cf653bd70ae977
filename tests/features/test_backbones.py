"""Frozen backbones: their own preprocessing and pooling, never in train mode, refused by name when unusable.

The models are small random ones, saved to a folder and loaded through the code that loads the real ones.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stage3.errors import ConfigError, DataError
from stage3.features import backbones

pytestmark = pytest.mark.slow

SPOKEN = "a cat dog runs in the forest red house jumps over ! ? ."
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *SPOKEN.split()]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """Small random SigLIP (both towers), ResNet and BERT folders, as `save_pretrained` writes them."""
    import transformers as hf

    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    tower = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = hf.SiglipConfig(
        text_config={**tower, "vocab_size": 50, "max_position_embeddings": 16},
        vision_config={**tower, "image_size": 32, "patch_size": 8},
    )
    hf.SiglipModel(config).save_pretrained(root / "siglip")
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    SiglipImageProcessorPil(
        size={"height": 32, "width": 32}, image_mean=[0.5, 0.4, 0.3], image_std=[0.5, 0.6, 0.7]
    ).save_pretrained(root / "siglip")

    resnet = hf.ResNetModel(hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 20, 28], depths=[1, 1, 1, 1]))
    for module in resnet.modules():  # statistics that a train-mode pass would visibly move
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2.0)
    resnet.save_pretrained(root / "resnet")
    from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil

    ConvNextImageProcessorPil(size={"shortest_edge": 32}, crop_pct=0.875).save_pretrained(root / "resnet")

    bert = hf.BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=12, hidden_dropout_prob=0.5,
    )  # fmt: skip
    hf.BertModel(bert, add_pooling_layer=False).save_pretrained(root / "bert")
    (root / "bert" / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    hf.BertTokenizer(vocab={w: i for i, w in enumerate(WORDS)}).save_pretrained(root / "bert")
    return root


def drawings(n: int = 3) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    shapes = [(40, 60), (90, 33), (32, 32)]
    return [Image.fromarray(rng.integers(0, 255, (*shapes[i % 3], 3), dtype=np.uint8)) for i in range(n)]


def test_siglip_is_its_vision_tower_with_its_own_preprocessing(models):
    import transformers as hf

    backbone = backbones.resolve_vision(str(models / "siglip"))
    assert backbone.sizes == (24,)
    image = drawings(1)[0]
    raw = np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC), dtype=np.float32) / 255
    by_hand = (raw - np.array([0.5, 0.4, 0.3], np.float32)) / np.array([0.5, 0.6, 0.7], np.float32)
    np.testing.assert_allclose(backbone.prepare(image).numpy(), by_hand.transpose(2, 0, 1), atol=1e-5)
    whole = hf.SiglipModel.from_pretrained(models / "siglip").eval()
    with torch.no_grad():
        expected = whole.get_image_features(pixel_values=torch.tensor(by_hand.transpose(2, 0, 1))[None])
    expected = expected if isinstance(expected, torch.Tensor) else expected.pooler_output
    torch.testing.assert_close(backbone.encode([image]), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["siglip", "resnet"])
@pytest.mark.parametrize("fit", ["squash", "pad"])
def test_crops_that_wait_as_bytes_give_the_very_vectors(models, name, fit):
    backbone = backbones.resolve_vision(str(models / name), crop_fit=fit)
    drawn = drawings(5)
    waiting = [backbone.compact(image) for image in drawn]
    assert {(w.dtype, tuple(w.shape)) for w in waiting} == {(torch.uint8, (32, 32, 3))}
    prepared = [backbone.prepare(image) for image in drawn]
    assert torch.equal(backbone._pixels(waiting), torch.stack(prepared))
    assert torch.equal(backbone.encode_later(waiting)(), backbone.encode_prepared(prepared))


def test_a_processor_that_does_more_than_look_up_keeps_its_floats(models, monkeypatch):
    backbone = backbones.resolve_vision(str(models / "siglip"))
    own = backbone._processed
    monkeypatch.setattr(backbone, "_processed", lambda image, **changes: own(image, **changes).roll(1, dims=2))
    assert torch.equal(backbone.compact(drawings(1)[0]), backbone.prepare(drawings(1)[0]))


def test_resnet_pools_its_last_map(models):
    import transformers as hf

    backbone = backbones.resolve_vision(str(models / "resnet"))
    assert backbone.sizes == (28,)
    drawn = drawings()
    whole = hf.ResNetModel.from_pretrained(models / "resnet").eval()
    stack = torch.stack([backbone.prepare(i) for i in drawn])
    assert stack.shape == (3, 3, 32, 32)
    with torch.no_grad():
        expected = whole(pixel_values=stack).last_hidden_state.mean(dim=(2, 3))
    torch.testing.assert_close(backbone.encode(drawn), expected, atol=1e-5, rtol=1e-4)


def test_text_is_the_mean_over_real_tokens_and_says_what_did_not_fit(models):
    backbone = backbones.resolve_text(str(models / "bert"))
    assert backbone.size == 16
    short, long = "a cat runs", "the red cat jumps over the red dog in the red house in the forest !"
    together, cut = backbone.encode_counted([short, long])
    assert cut == [False, True]
    alone, _ = backbone.encode_counted([short])
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=1e-4)  # padding does not leak into the mean
    with torch.no_grad():
        ids = torch.tensor([[2, *(WORDS.index(w) for w in short.split()), 3]])
        expected = backbone.model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.mean(dim=1)
    torch.testing.assert_close(alone, expected, atol=1e-5, rtol=1e-4)
    exactly = "a cat runs in the red house jumps over ."  # 10 words and 2 special tokens: 12, the window
    assert backbone.encode_counted([exactly])[1] == [False]
    assert backbone.encode_counted([exactly + " !"])[1] == [True]


@pytest.mark.parametrize("which", ["siglip", "resnet"])
def test_a_vision_backbone_is_frozen(models, which):
    backbone = backbones.resolve_vision(str(models / which))
    first = backbone.encode(drawings())
    before = {k: v.clone() for k, v in backbone.model.state_dict().items()}
    torch.testing.assert_close(backbone.encode(drawings()), first, rtol=0, atol=0)
    assert not any(module.training for module in backbone.model.modules())
    assert not any(p.requires_grad for p in backbone.model.parameters())
    assert not first.requires_grad
    for key, value in backbone.model.state_dict().items():  # BatchNorm statistics and their counters among them
        assert torch.equal(value, before[key]), key


def test_dropout_of_a_text_backbone_is_off(models):
    backbone = backbones.resolve_text(str(models / "bert"))
    torch.testing.assert_close(backbone.encode(["a red cat"]), backbone.encode(["a red cat"]), rtol=0, atol=0)


def test_joined_backbones_put_their_features_side_by_side(models):
    names = [str(models / "siglip"), str(models / "resnet"), "tiny"]
    joined = backbones.resolve_vision("+".join(names))
    parts = [backbones.resolve_vision(n) for n in names]
    assert joined.sizes == (24, 28, *parts[2].sizes)
    expected = torch.cat([p.encode(drawings()) for p in parts], dim=1)
    torch.testing.assert_close(joined.encode(drawings()), expected)
    assert joined.fingerprint not in {p.fingerprint for p in parts}
    with pytest.raises(ConfigError, match="twice"):
        backbones.resolve_vision("tiny+tiny")


def copied(models: Path, which: str, to: Path) -> Path:
    to.mkdir()
    for path in (models / which).iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def test_the_fingerprint_covers_weights_and_preprocessing(models, tmp_path):
    from safetensors.torch import load_file, save_file

    original = backbones.resolve_vision(str(models / "resnet")).fingerprint
    same = copied(models, "resnet", tmp_path / "same")
    assert backbones.resolve_vision(str(same)).fingerprint == original  # where it lies does not matter

    mean = copied(models, "resnet", tmp_path / "mean")
    settings = json.loads((mean / "preprocessor_config.json").read_text())
    settings["image_mean"][1] += 0.001
    (mean / "preprocessor_config.json").write_text(json.dumps(settings))
    weight = copied(models, "resnet", tmp_path / "weight")
    tensors = load_file(weight / "model.safetensors")
    name = next(k for k in tensors if "running_mean" in k)
    tensors[name][0] += 1e-3
    save_file(tensors, weight / "model.safetensors", metadata={"format": "pt"})
    changed = {backbones.resolve_vision(str(p)).fingerprint for p in (mean, weight)}
    assert len(changed | {original}) == 3
    assert backbones.resolve_vision(str(same), precision="bf16").fingerprint != original


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("siglp", "siglip"),
        ("tinny", "tiny"),
        ("", "unknown"),
        ("minilm", "text backbone"),
        ("../nowhere", "unknown"),
        ("a/b/c", "unknown"),
    ],
)
def test_unknown_vision_names_are_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        backbones.resolve_vision(name)


def test_a_model_that_is_not_here_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DataError, match=r"hf download nobody/nothing.*local folder"):
        backbones.resolve_text("nobody/nothing")
    with pytest.raises(ConfigError, match="vision backbone"):
        backbones.resolve_text("resnet50")


def test_pickled_missing_and_unsound_weights_are_refused(models, tmp_path):
    from safetensors.torch import load_file, save_file

    pickled = copied(models, "resnet", tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(DataError, match="no safetensors"):
        backbones.resolve_vision(str(pickled))

    lacking = copied(models, "resnet", tmp_path / "lacking")
    tensors = load_file(lacking / "model.safetensors")
    dropped = next(k for k in tensors if k.endswith("convolution.weight"))
    save_file(
        {k: v for k, v in tensors.items() if k != dropped}, lacking / "model.safetensors", metadata={"format": "pt"}
    )
    with pytest.raises(DataError, match="missing"):
        backbones.resolve_vision(str(lacking)).encode(drawings(1))

    unsound = copied(models, "resnet", tmp_path / "unsound")
    tensors[dropped][0] = float("nan")
    save_file(tensors, unsound / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="not finite"):
        backbones.resolve_vision(str(unsound)).encode(drawings(1))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"hidden_sizes": [8, 16, 20, 10**9]}, "weights do not load"),
        ({"embedding_size": 10**9}, "weights do not load"),
        ({"depths": [1, 1, 1, 10**9]}, "depths is 1000000000"),
        ({"model_type": "nonesuch"}, "config.json is not usable"),
        ({"model_type": "nonesuch", "auto_map": {"AutoConfig": "evil.Config"}}, "config.json is not usable"),
        ({"auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}, ""),
        ({"_name_or_path": "../../elsewhere"}, ""),
    ],
    ids=lambda v: str(v)[:40],
)
def test_a_hostile_configuration_allocates_nothing_and_runs_nothing(models, tmp_path, change, reason):
    hostile = copied(models, "resnet", tmp_path / "hostile")
    values = json.loads((hostile / "config.json").read_text(encoding="utf-8")) | change
    (hostile / "config.json").write_text(json.dumps(values), encoding="utf-8")
    canary = tmp_path / "canary"
    (hostile / "evil.py").write_text(f"open({str(canary)!r}, 'w')\n", encoding="utf-8")
    if reason:
        with pytest.raises(DataError, match=reason):
            backbones.resolve_vision(str(hostile)).encode(drawings(1))
    else:  # the package's own class reads it
        plain = backbones.resolve_vision(str(models / "resnet")).encode(drawings(1))
        assert torch.equal(backbones.resolve_vision(str(hostile)).encode(drawings(1)), plain)
    assert not canary.exists()


@pytest.mark.parametrize(
    ("text", "limit"), [("[]", 12), ('{"max_seq_length": null}', 12), ('{"max_seq_length": 7}', 7)]
)
def test_a_stated_text_length_is_read_with_care(models, tmp_path, text, limit):
    model = copied(models, "bert", tmp_path / "m")
    (model / "sentence_bert_config.json").write_text(text, encoding="utf-8")
    assert backbones.resolve_text(str(model)).max_tokens == limit
    (model / "sentence_bert_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"sentence_bert_config\.json does not read"):
        backbones.resolve_text(str(model))


def test_a_text_model_is_no_vision_backbone(models):
    with pytest.raises(DataError, match="is not a vision backbone"):
        backbones.resolve_vision(str(models / "bert"))
    with pytest.raises(DataError, match="is not a text backbone"):
        backbones.resolve_text(str(models / "resnet"))


def test_hostile_texts_are_cut_before_they_are_tokenised(models):
    backbone = backbones.resolve_text(str(models / "bert"))
    hostile = ["a cat\ud800 runs", "\0\0 a \0 cat", "cat " * 800_000, "", "🐱 " * 5]
    assert torch.isfinite(backbone.encode(hostile)).all()
    assert backbones.clean_text("x\ud83d y") == ("x� y", False)
    assert backbones.clean_text("🐱") == ("🐱", False)  # a pair of surrogates in UTF-16, and no lone one
    assert len(backbones.clean_text("y" * 3_000_000)[0]) == backbones.MAX_CHARACTERS


def test_tiny_never_imports_transformers(run_python):
    run_python(
        "from stage3.features import backbones; import sys;"
        "backbones.resolve_text('tiny'); backbones.resolve_vision('tiny');"
        "assert 'transformers' not in sys.modules and 'huggingface_hub' not in sys.modules"
    )


@pytest.fixture
def run_python():
    import subprocess

    def run(code: str) -> str:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_preprocessing_files_of_the_known_models_are_understood(models, tmp_path):
    """The forms in which the real SigLIP and ResNet-50 keep their preprocessing, the older one by another name."""
    import transformers as hf

    resnet = copied(models, "resnet", tmp_path / "resnet")
    old = {
        "crop_pct": 0.875,
        "do_normalize": True, "do_resize": True, "feature_extractor_type": "ConvNextFeatureExtractor",
        "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 3, "size": 224,
    }  # fmt: skip
    (resnet / "preprocessor_config.json").write_text(json.dumps(old))
    assert backbones.resolve_vision(str(resnet), crop_fit="processor").short_side == 256  # then cropped to 224
    backbone = backbones.resolve_vision(str(resnet))
    assert backbone.short_side == 224
    image = drawings(1)[0]
    prepared = backbone.prepare(image)
    assert prepared.shape == (3, 224, 224)
    white = backbone.prepare(Image.new("RGB", (300, 300), "white"))
    torch.testing.assert_close(
        white[:, 0, 0], torch.tensor([(1 - m) / s for m, s in zip(old["image_mean"], old["image_std"], strict=True)])
    )

    siglip = copied(models, "siglip", tmp_path / "siglip")
    config = hf.SiglipConfig.from_pretrained(siglip)
    config.vision_config.image_size, config.vision_config.patch_size = 224, 56
    hf.SiglipModel(config).save_pretrained(siglip)
    new = {
        "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
        "image_processor_type": "SiglipImageProcessor", "processor_class": "SiglipProcessor", "resample": 3,
        "rescale_factor": 1 / 255, "size": {"height": 224, "width": 224},
    }  # fmt: skip
    (siglip / "preprocessor_config.json").write_text(json.dumps(new))
    backbone = backbones.resolve_vision(str(siglip))
    assert backbone.short_side == 224
    assert backbone.prepare(image).shape == (3, 224, 224)


def test_a_vision_tower_alone_is_read_under_its_old_and_new_weight_names(models, tmp_path):
    import transformers as hf
    from safetensors.torch import load_file, save_file

    new = copied(models, "siglip", tmp_path / "new")
    hf.SiglipModel.from_pretrained(new).vision_model.save_pretrained(new)
    old = copied(tmp_path, "new", tmp_path / "old")
    tensors = load_file(new / "model.safetensors")
    assert not any(key.startswith("vision_model.") for key in tensors)
    renamed = {f"vision_model.{key}": value for key, value in tensors.items()}  # as transformers 4 wrote it
    save_file(renamed, old / "model.safetensors", metadata={"format": "pt"})
    expected = backbones.resolve_vision(str(models / "siglip")).encode(drawings())
    for folder in (new, old):
        torch.testing.assert_close(backbones.resolve_vision(str(folder)).encode(drawings()), expected)
