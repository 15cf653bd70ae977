"""Model folders are read for what they say, whole panels reach the model, and what cannot work is refused at opening.

The models are small random ones, saved to a folder as their authors would save them.
"""

import json
import math
from pathlib import Path

import app_support
import numpy as np
import pytest
import torch
from PIL import Image

from stage3.config import Config
from stage3.errors import DataError
from stage3.features import backbones
from stage3.features.backbones import pretrained

pytestmark = pytest.mark.slow

SPOKEN = "a cat dog runs in the forest red house jumps"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *SPOKEN.split()]
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
TEXTS = ["a cat runs", "the red dog jumps in the red house", "cat"]


@pytest.fixture(autouse=True)
def nothing_probed_before(monkeypatch):
    monkeypatch.setattr(pretrained, "_sizes", {})
    torch.manual_seed(0)


def processor(kind: str, **settings):
    """An image processor of transformers in its Pillow version, by the names of its module and class."""
    import importlib

    module = importlib.import_module(f"transformers.models.{kind.lower()}.image_processing_pil_{kind.lower()}")
    return getattr(module, f"{kind}ImageProcessorPil")(**settings)


def square(kind: str, side: int = 32):
    return processor(kind, size={"height": side, "width": side})


def cropping(kind: str, side: int = 32):
    """As CLIP, DINOv2 and ResNet have it: the short side is resized, then the center is cut out."""
    return processor(kind, size={"shortest_edge": side}, crop_size={"height": side, "width": side})


def saved(folder: Path, *parts, **files: str) -> str:
    for part in parts:
        part.save_pretrained(folder)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")
    return str(folder)


def vit(**changes):
    import transformers as hf

    return hf.ViTModel(hf.ViTConfig(**{**SMALL, "image_size": 32, "patch_size": 8} | changes))


def bert(**changes):
    import transformers as hf

    settings = {**SMALL, "vocab_size": len(WORDS), "max_position_embeddings": 24} | changes
    return hf.BertModel(hf.BertConfig(**settings), add_pooling_layer=False)


def words(vocabulary=WORDS, **settings):
    import transformers as hf

    return hf.BertTokenizer(vocab={w: i for i, w in enumerate(vocabulary)}, **settings)


def panels() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (*s, 3), dtype=np.uint8)) for s in ((90, 30), (30, 90), (40, 40))]


# --- how a crop is fitted


def tall_panel() -> Image.Image:
    """White, with a red top and a blue bottom, three times as tall as wide."""
    image = Image.new("RGB", (32, 96), "white")
    image.paste("red", (0, 0, 32, 20))
    image.paste("blue", (0, 76, 32, 96))
    return image


@pytest.mark.parametrize("kind", ["CLIP", "Bit"])
def test_the_whole_of_a_tall_panel_reaches_the_model_unless_its_processor_is_asked_for(tmp_path, kind, monkeypatch):
    import transformers

    monkeypatch.setattr(transformers, "AutoImageProcessor", None)  # in 5.17 it refuses without torchvision
    folder = saved(tmp_path / "m", vit(), cropping(kind))
    white = backbones.resolve_vision(folder, crop_fit="processor").prepare(Image.new("RGB", (32, 96), "white"))
    processed = backbones.resolve_vision(folder, crop_fit="processor").prepare(tall_panel())
    assert torch.equal(processed, white)  # two thirds of the panel are hidden
    for fit in ("squash", "pad"):
        seen = backbones.resolve_vision(folder, crop_fit=fit).prepare(tall_panel())
        assert seen.shape == white.shape
        assert seen[2, 0, 16] < white[2, 0, 16]  # red: no blue in the top row
        assert seen[0, -1, 16] < white[0, -1, 16]
    assert torch.equal(backbones.resolve_vision(folder).prepare(tall_panel()), squashed_by_hand(tall_panel(), folder))


def squashed_by_hand(image: Image.Image, folder: str) -> torch.Tensor:
    settings = json.loads((Path(folder) / "preprocessor_config.json").read_text(encoding="utf-8"))
    resized = image.resize((32, 32), Image.Resampling(settings["resample"]))
    mean, std = (np.array(settings[name], np.float32) for name in ("image_mean", "image_std"))
    return torch.from_numpy(((np.asarray(resized, np.float32) / 255 - mean) / std).transpose(2, 0, 1)).float()


def test_padding_keeps_proportions_between_borders_that_are_zero_to_the_model(tmp_path):
    folder = saved(tmp_path / "m", vit(), cropping("CLIP"))
    backbone = backbones.resolve_vision(folder, crop_fit="pad")
    seen = backbone.prepare(Image.new("RGB", (24, 96), "white"))  # 8 of 32 columns
    assert seen[:, :, :12].abs().max() < 0.02  # the mean color, rounded to whole numbers
    assert seen[:, :, 20:].abs().max() < 0.02
    assert (seen[:, :, 12:20] > 1).all()
    assert backbone.prepare(Image.new("RGB", (1, 4000), "white")).shape == (3, 32, 32)


def test_how_crops_fit_is_part_of_the_fingerprint_and_comes_from_the_setting(tmp_path):
    folder = saved(tmp_path / "m", vit(), cropping("CLIP"))
    assert (
        len({backbones.resolve_vision(folder, crop_fit=fit).fingerprint for fit in ("squash", "pad", "processor")}) == 3
    )
    assert backbones.resolve_vision(folder).crop_fit == Config().crop_fit == "squash"
    joined = backbones.resolve_vision(f"{folder}+tiny", crop_fit="pad")
    assert joined.parts[0].crop_fit == "pad"
    tiny = backbones.resolve_vision("tiny")
    assert backbones.resolve_vision("tiny", crop_fit="pad").fingerprint == tiny.fingerprint


def test_the_setting_reaches_the_stored_features(tmp_path):
    from stage3.batches.dataset import Dataset

    app_support.write_comics(tmp_path / "set", books=4, pages=2, seed=1)
    base = Config(
        data=str(tmp_path / "set"),
        vision_backbone=saved(tmp_path / "m", vit(), cropping("CLIP")),
        cache_dir=str(tmp_path / "cache"),
        feature_dtype="float32",
    )
    loaded = {fit: Dataset.load(base, progress=False, crop_fit=fit).features for fit in ("squash", "pad", "processor")}
    assert len({features.fingerprint for features in loaded.values()}) == 3
    every = np.arange(5)
    assert not np.allclose(loaded["squash"].gather(every)[0], loaded["processor"].gather(every)[0])
    assert not np.allclose(loaded["squash"].gather(every)[0], loaded["pad"].gather(every)[0])


# --- sizes that only the model knows


def efficientnet():
    import transformers as hf

    config = hf.EfficientNetConfig(image_size=32, width_coefficient=0.25, depth_coefficient=0.1, hidden_dim=320)
    return hf.EfficientNetModel(config), 320


def mobilenet():
    import transformers as hf

    return hf.MobileNetV2Model(hf.MobileNetV2Config(image_size=32, depth_multiplier=0.35)), 1280


def regnet():
    import transformers as hf

    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 24], "depths": [1, 1, 1, 1], "groups_width": 8}
    return hf.RegNetModel(hf.RegNetConfig(**sizes)), 24


@pytest.mark.parametrize("make", [efficientnet, mobilenet, regnet])
def test_a_model_that_states_no_size_is_measured(tmp_path, make):
    model, size = make()
    for parameter in model.parameters():  # as trained networks are; the initial ones fade to nothing
        if parameter.ndim == 4:
            torch.nn.init.kaiming_normal_(parameter)
    folder = saved(tmp_path / "m", model, cropping("Bit"))
    backbone = backbones.resolve_vision(folder)
    assert backbone.sizes == (size,)
    stack = torch.stack([backbone.prepare(image) for image in panels()])
    with torch.no_grad():
        expected = model.eval()(pixel_values=stack).pooler_output.flatten(1)
    torch.testing.assert_close(backbone.encode(panels()), expected)


def test_the_model_is_tried_once_per_process_and_kept_out_of_memory_after_that(tmp_path):
    folder = saved(tmp_path / "m", vit(), square("ViT"))
    first, second = backbones.resolve_vision(folder), backbones.resolve_vision(folder)
    assert "model" in vars(first)
    assert "model" not in vars(second)
    assert second.sizes == first.sizes
    torch.testing.assert_close(second.encode(panels()), first.encode(panels()), rtol=0, atol=0)


def test_a_noted_trial_is_not_repeated_by_the_next_process(tmp_path, monkeypatch):
    folder, notes = saved(tmp_path / "m", vit(), square("ViT")), tmp_path / "cache"
    first = backbones.resolve_vision(folder, notes=notes)
    monkeypatch.setattr(pretrained, "_sizes", {})  # as another process begins
    second = backbones.resolve_vision(folder, notes=notes)
    assert second.sizes == first.sizes
    assert "model" not in vars(second)
    torch.testing.assert_close(second.encode(panels()), first.encode(panels()), rtol=0, atol=0)
    (note,) = (notes / "probes").iterdir()
    note.write_text("{", encoding="utf-8")
    monkeypatch.setattr(pretrained, "_sizes", {})
    assert "model" in vars(backbones.resolve_vision(folder, notes=notes))  # a torn note is no note


# --- sentence-transformers folders

POOLINGS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt": "pooling_mode_mean_sqrt_len_tokens",
}


def sentence_folder(folder: Path, *ways: str, dense: int = 0, normalize: bool = False, listed: bool = True) -> Path:
    """A folder as sentence-transformers saves it: the model at its top, a numbered folder for each further module."""
    from safetensors.torch import save_file

    saved(folder, bert(), words())
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules += [("2_Dense", "Dense")] if dense else []
    modules += [("3_Normalize", "Normalize")] if normalize else []
    for path, _ in modules:
        (folder / path).mkdir(exist_ok=True)
    flags = {"word_embedding_dimension": 16} | {flag: way in ways for way, flag in POOLINGS.items()}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(flags))
    if dense:
        settings = {"in_features": 16 * len(ways), "out_features": dense, "bias": True}
        settings["activation_function"] = "torch.nn.modules.activation.Tanh"
        (folder / "2_Dense" / "config.json").write_text(json.dumps(settings))
        weights = {"linear.weight": torch.randn(dense, 16 * len(ways)), "linear.bias": torch.randn(dense)}
        save_file(weights, folder / "2_Dense" / "model.safetensors")
    if listed:
        entries = [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(modules)
        ]
        (folder / "modules.json").write_text(json.dumps(entries))
    return folder


def token_vectors(folder: Path, text: str) -> list[list[float]]:
    """The model's last hidden states of one text, token by token."""
    import transformers as hf

    ids = [2, *(WORDS.index(w) for w in text.split()), 3]
    with torch.no_grad():
        return hf.BertModel.from_pretrained(folder).eval()(input_ids=torch.tensor([ids])).last_hidden_state[0].tolist()


def pooled_by_hand(tokens: list[list[float]], way: str) -> list[float]:
    columns = list(zip(*tokens, strict=True))
    return {
        "cls": tokens[0],
        "max": [max(c) for c in columns],
        "mean": [sum(c) / len(c) for c in columns],
        "mean_sqrt": [sum(c) / math.sqrt(len(c)) for c in columns],
    }[way]


@pytest.mark.parametrize("listed", [True, False], ids=["modules.json", "folders alone"])
@pytest.mark.parametrize("ways", [("cls",), ("max",), ("mean",), ("mean_sqrt",), ("cls", "max", "mean_sqrt")], ids=str)
def test_a_sentence_model_is_pooled_as_its_folder_says(tmp_path, ways, listed):
    folder = sentence_folder(tmp_path / "m", *ways, listed=listed)
    backbone = backbones.resolve_text(str(folder))
    assert backbone.size == 16 * len(ways)
    expected = [[x for way in ways for x in pooled_by_hand(token_vectors(folder, text), way)] for text in TEXTS]
    torch.testing.assert_close(backbone.encode(TEXTS), torch.tensor(expected), atol=1e-5, rtol=1e-4)


def test_the_newer_name_of_a_pooling_is_read(tmp_path):
    older = sentence_folder(tmp_path / "older", "cls")
    expected = backbones.resolve_text(str(older)).encode(TEXTS)
    (older / "1_Pooling" / "config.json").write_text('{"embedding_dimension": 16, "pooling_mode": "cls"}')
    torch.testing.assert_close(backbones.resolve_text(str(older)).encode(TEXTS), expected)


def test_dense_layers_and_normalizing_follow_the_pooling(tmp_path):
    from safetensors.torch import load_file

    folder = sentence_folder(tmp_path / "m", "cls", "mean", dense=5, normalize=True)
    backbone = backbones.resolve_text(str(folder))
    assert backbone.size == 5
    weights = load_file(folder / "2_Dense" / "model.safetensors")
    for text, found in zip(TEXTS, backbone.encode(TEXTS), strict=True):
        tokens = token_vectors(folder, text)
        pooled = torch.tensor(pooled_by_hand(tokens, "cls") + pooled_by_hand(tokens, "mean"))
        dense = torch.tanh(weights["linear.weight"] @ pooled + weights["linear.bias"])
        torch.testing.assert_close(found, dense / dense.norm(), atol=1e-5, rtol=1e-4)


def test_a_model_in_a_folder_of_its_own_is_found(tmp_path):
    folder = sentence_folder(tmp_path / "m", "cls")
    expected = backbones.resolve_text(str(folder)).encode(TEXTS)
    inner = folder / "0_Transformer"
    inner.mkdir()
    for path in [p for p in folder.iterdir() if p.is_file() and p.name != "modules.json"]:
        path.rename(inner / path.name)
    entries = json.loads((folder / "modules.json").read_text())
    entries[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(entries))
    torch.testing.assert_close(backbones.resolve_text(str(folder)).encode(TEXTS), expected)


def test_lower_case_and_the_window_are_those_of_the_sentence_model(tmp_path):
    cased = words(do_lower_case=False)
    folder = Path(saved(tmp_path / "m", bert(), cased))
    plain = backbones.resolve_text(str(folder))
    assert not torch.allclose(plain.encode(["THE CAT"]), plain.encode(["the cat"]))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 5, "do_lower_case": true}')
    stated = backbones.resolve_text(str(folder))
    torch.testing.assert_close(stated.encode(["THE CAT"]), plain.encode(["the cat"]))
    assert stated.max_tokens == 5
    assert stated.encode_counted(["THE RED CAT", "THE RED CAT JUMPS"])[1] == [False, True]


def test_every_file_that_changes_the_vectors_changes_the_fingerprint(tmp_path):
    folder = sentence_folder(tmp_path / "m", "mean", dense=4, normalize=True)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 20, "do_lower_case": false}')
    seen = {backbones.resolve_text(str(folder)).fingerprint}

    def changed(path: Path, old: str, new: str) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        seen.add(backbones.resolve_text(str(folder)).fingerprint)

    changed(folder / "sentence_bert_config.json", "20", "10")
    changed(folder / "sentence_bert_config.json", "false", "true")
    changed(folder / "1_Pooling" / "config.json", '"pooling_mode_mean_tokens": true', '"pooling_mode_max_tokens": true')
    changed(folder / "2_Dense" / "config.json", "Tanh", "Sigmoid")
    entries = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(entries[:-1]))  # without Normalize
    seen.add(backbones.resolve_text(str(folder)).fingerprint)
    from safetensors.torch import save_file

    save_file(
        {"linear.weight": torch.randn(4, 16), "linear.bias": torch.randn(4)},
        folder / "2_Dense" / "model.safetensors",
    )
    seen.add(backbones.resolve_text(str(folder)).fingerprint)
    assert len(seen) == 7


def sentence_with(folder: Path, path: str, values) -> str:
    sentence_folder(folder, "mean", dense=4)
    (folder / path).write_text(values if isinstance(values, str) else json.dumps(values))
    return str(folder)


@pytest.mark.parametrize(
    ("path", "values", "reason"),
    [
        ("1_Pooling/config.json", {"pooling_mode_lasttoken": True}, "pooling 'lasttoken' is not supported"),
        ("1_Pooling/config.json", {"pooling_mode_cls_token": False}, "pooling 'none' is not supported"),
        ("1_Pooling/config.json", "{", "config.json does not read"),
        ("1_Pooling/config.json", "[]", "expected a JSON object"),
        ("modules.json", {}, "is not a list of modules"),
        ("modules.json", [{"type": "x.WordEmbeddings", "path": ""}], "not a Transformer"),
        ("modules.json", [{"type": "x.Transformer", "path": "../../elsewhere"}], "leads out of the folder"),
        (
            "modules.json",
            [{"type": "x.Transformer", "path": ""}, {"type": "x.LSTM", "path": "1_LSTM"}],
            "module 'LSTM'",
        ),
        ("2_Dense/config.json", {"activation_function": "torch.nn.Softshrink"}, "activation 'Softshrink'"),
        ("2_Dense/model.safetensors", "not one", "dense layers do not load"),
        (
            "config_sentence_transformers.json",
            {"prompts": {"query": "query: "}, "default_prompt_name": "query"},
            "a prompt before every text",
        ),
    ],
    ids=lambda v: str(v)[:30],
)
def test_a_sentence_folder_that_cannot_be_followed_is_refused(tmp_path, path, values, reason):
    with pytest.raises(DataError, match=reason) as caught:
        backbones.resolve_text(sentence_with(tmp_path / "m", path, values))
    assert "\n" not in str(caught.value)


def test_a_module_whose_files_are_missing_is_refused(tmp_path):
    folder = sentence_folder(tmp_path / "m", "mean", dense=4)
    (folder / "2_Dense" / "model.safetensors").rename(folder / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(DataError, match="no safetensors weights"):
        backbones.resolve_text(str(folder))
    (folder / "1_Pooling" / "config.json").unlink()
    with pytest.raises(DataError, match=r"config\.json does not read"):
        backbones.resolve_text(str(folder))


# --- what cannot work is refused at opening, in one line


def refused_texts():
    import transformers as hf
    from tokenizers import Tokenizer, models, pre_tokenizers

    level = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    level.pre_tokenizer = pre_tokenizers.Whitespace()
    no_pad = hf.PreTrainedTokenizerFast(tokenizer_object=level, unk_token="[UNK]")
    gpt2 = {"vocab_size": 20, "n_embd": 16, "n_layer": 1, "n_head": 2, "bos_token_id": 1, "eos_token_id": 1}
    t5 = {"vocab_size": 20, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    bart = {f"{part}_{name}": n for part in ("encoder", "decoder") for name, n in
            (("layers", 1), ("attention_heads", 2), ("ffn_dim", 16))}  # fmt: skip
    mpnet = hf.MPNetModel(hf.MPNetConfig(**SMALL, vocab_size=20))
    return {
        "no tokenizer": ([bert()], {}, "tokenizer files are missing"),
        "no tokenizer, which raises": ([mpnet], {}, "tokenizer files are missing"),
        "an empty vocabulary": ([bert(), words(WORDS[:5])], {}, "knows no words"),
        "no unknown word": ([mpnet], {"vocab__txt": "a\ncat"}, "UNK"),
        "a broken tokenizer": ([bert()], {"tokenizer__json": "{"}, "tokenizer does not load"),
        "more words than rows": ([bert(vocab_size=8), words()], {}, "ids up to 14, its model knows 8 tokens"),
        "no padding": ([hf.GPT2Model(hf.GPT2Config(**gpt2)), no_pad], {}, "no padding token"),
        "T5": ([hf.T5Model(hf.T5Config(**t5)), words()], {}, "seq2seq"),
        "BART": ([hf.BartModel(hf.BartConfig(vocab_size=20, d_model=16, **bart)), words()], {}, "seq2seq"),
        "padding that leaks": (
            [hf.FNetModel(hf.FNetConfig(vocab_size=20, hidden_size=16, num_hidden_layers=1)), words()],
            {},
            "one input gives two vectors",
        ),
    }  # fmt: skip


def refused_images():
    import transformers as hf

    towers = {
        "text_config": {**SMALL, "vocab_size": 50},
        "vision_config": {**SMALL, "num_patches": 16, "patch_size": 8},
    }
    resnet = {"embedding_size": 8, "hidden_sizes": [8, 16, 20, 28], "depths": [1, 1, 1, 1]}
    silent = vit()
    for parameter in silent.pooler.parameters():
        torch.nn.init.zeros_(parameter)
    masking = hf.ViTMAEModel(hf.ViTMAEConfig(**SMALL, image_size=32, patch_size=8))
    return {
        "patches": (
            [hf.Siglip2Model(hf.Siglip2Config(**towers)), processor("Siglip2", patch_size=8, max_num_patches=16)],
            "patches or tiles",
        ),
        "one channel": (
            [hf.ResNetModel(hf.ResNetConfig(num_channels=1, **resnet)), square("ViT")],
            "channel dimension",
        ),
        "another size": ([vit(), square("ViT", 64)], "doesn't match model"),
        "chance": ([masking, square("ViT")], "one input gives two vectors"),
        "one vector for all": ([silent, square("ViT")], "two different inputs give the same vector"),
        "no preprocessing": ([vit()], "no usable image preprocessing"),
        "a huge size": ([vit(), square("ViT", 10**9)], "asks for 1000000000 pixels"),
    }


@pytest.mark.parametrize("which", [
    "no tokenizer", "no tokenizer, which raises", "an empty vocabulary", "no unknown word", "a broken tokenizer",
    "more words than rows", "no padding", "T5", "BART", "padding that leaks",
])  # fmt: skip
def test_a_text_model_that_cannot_work_is_refused_at_opening(tmp_path, which):
    parts, files, reason = refused_texts()[which]
    with pytest.raises(DataError, match=reason) as caught:
        backbones.resolve_text(saved(tmp_path / "m", *parts, **files))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("which", [
    "patches", "one channel", "another size", "chance", "one vector for all", "no preprocessing", "a huge size",
])  # fmt: skip
def test_an_image_model_that_cannot_work_is_refused_at_opening(tmp_path, which):
    parts, reason = refused_images()[which]
    with pytest.raises(DataError, match=reason) as caught:
        backbones.resolve_vision(saved(tmp_path / "m", *parts))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_processor_whose_sizes_vary_works_squashed_or_padded(tmp_path):
    import transformers as hf

    convnext = hf.ConvNextModel(hf.ConvNextConfig(hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1]))
    varying = processor("Detr", size={"shortest_edge": 64, "longest_edge": 128})
    folder = saved(tmp_path / "m", convnext, varying)
    with pytest.raises(DataError, match="set crop_fit to squash or pad"):
        backbones.resolve_vision(folder, crop_fit="processor")
    for fit in ("squash", "pad"):
        assert backbones.resolve_vision(folder, crop_fit=fit).encode(panels()).shape == (3, 16)


def test_a_window_longer_than_the_positions_is_refused_at_opening(tmp_path):
    import transformers as hf

    # Positions of XLM start after the padding's, which its settings do not tell.
    model = hf.RobertaModel(hf.RobertaConfig(**SMALL, vocab_size=20, max_position_embeddings=34, pad_token_id=6))
    with pytest.raises(DataError, match="cannot be used"):
        backbones.resolve_text(saved(tmp_path / "m", model, words()))
