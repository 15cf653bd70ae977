"""Models with a tower for images and one for texts: features of both lie in the joint space that they were trained for.

The models are small random ones, saved to a folder as their authors save them.
"""

from pathlib import Path

import app_support
import numpy as np
import pytest
import torch
from PIL import Image

from stage3.batches.dataset import Dataset
from stage3.evaluate import evaluation_report
from stage3.features import backbones
from stage3.features.backbones import pretrained
from stage3.model.baselines import centers, frozen_features
from stage3.runs import RunFolder
from stage3.search import Searcher
from stage3.share import write_folder
from stage3.train import __main__ as train_command
from tests import synthetic

LETTERS = "abcdefghijklmnopqrstuvwxyz'!?.,-"
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>"]
TOWER = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {**TOWER, "vocab_size": len(SPECIAL) + len(LETTERS), "max_position_embeddings": 40}
TEXT |= {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
VISION = {**TOWER, "image_size": 32, "patch_size": 8}


def tokenizer():
    """Letters, each a token, between a start and an end."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({t: i for i, t in enumerate([*SPECIAL, *LETTERS])}, unk_token="<unk>"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    made.post_processor = processors.TemplateProcessing("<s> $A </s>", None, [("<s>", 2), ("</s>", 3)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def siglip(folder: Path) -> Path:
    import transformers as hf
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    model = hf.SiglipModel(hf.SiglipConfig(text_config=TEXT, vision_config=VISION))
    return saved(folder, model, SiglipImageProcessorPil(size={"height": 32, "width": 32}))


def clip(folder: Path) -> Path:
    import transformers as hf
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    text = TEXT | {"hidden_size": 16}
    model = hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=20))
    return saved(
        folder, model, CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    )


def saved(folder: Path, model, processor) -> Path:
    with torch.no_grad():  # larger weights, so that other inputs give clearly other features
        for parameter in model.parameters():
            parameter.mul_(3 if parameter.dim() > 1 else 1)
    for part in (model, processor, tokenizer()):
        part.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def nothing_probed_before(monkeypatch):
    monkeypatch.setattr(pretrained, "_sizes", {})
    torch.manual_seed(0)


def whole(folder: Path):
    import transformers as hf

    return hf.AutoModel.from_pretrained(folder).eval()


def pooled(out):
    return out if isinstance(out, torch.Tensor) else out.pooler_output


def drawings() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (40, w, 3), dtype=np.uint8)) for w in (30, 60)]


TEXTS = ["a wizard under water", "who?"]


@torch.no_grad()
def test_siglip_texts_fill_the_window_and_both_towers_meet(tmp_path):
    folder = siglip(tmp_path / "m")
    model, tokens = whole(folder), tokenizer()
    ids = tokens(TEXTS, padding="max_length", max_length=40, return_tensors="pt")["input_ids"]
    text = backbones.resolve_text(str(folder))
    torch.testing.assert_close(text.encode(TEXTS), pooled(model.get_text_features(input_ids=ids)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(text.encode(TEXTS[1:]), text.encode(TEXTS)[1:], atol=1e-5, rtol=1e-4)
    vision = backbones.resolve_vision(str(folder))
    stack = torch.stack([vision.prepare(image) for image in drawings()])
    torch.testing.assert_close(
        vision.encode(drawings()), pooled(model.get_image_features(pixel_values=stack)), atol=1e-5, rtol=1e-4
    )
    assert vision.sizes == (text.size,) == (24,)
    # A run that reads both brings along what either tower reads, as one model.
    run = synthetic.run(tmp_path / "r", vision_backbone=str(folder), text_backbone=str(folder))
    run.save_checkpoint(1, {"model": {"w": torch.ones(1)}}, {})
    config = RunFolder.load(write_folder(run, tmp_path / "shared")).config
    assert config.vision_backbone == config.text_backbone == str(tmp_path / "shared" / "backbones" / "image-1")
    assert backbones.resolve_vision(config.vision_backbone).fingerprint == vision.fingerprint
    assert backbones.resolve_text(config.text_backbone).fingerprint == text.fingerprint


@torch.no_grad()
def test_clip_features_are_projected_into_the_joint_space(tmp_path):
    folder = clip(tmp_path / "m")
    model, tokens = whole(folder), tokenizer()
    read = tokens(TEXTS, padding=True, return_tensors="pt")
    text = backbones.resolve_text(str(folder))
    expected = pooled(model.get_text_features(input_ids=read["input_ids"], attention_mask=read["attention_mask"]))
    torch.testing.assert_close(text.encode(TEXTS), expected, atol=1e-5, rtol=1e-4)
    vision = backbones.resolve_vision(str(folder))
    stack = torch.stack([vision.prepare(image) for image in drawings()])
    torch.testing.assert_close(
        vision.encode(drawings()), pooled(model.get_image_features(pixel_values=stack)), atol=1e-5, rtol=1e-4
    )
    assert vision.sizes == (text.size,) == (20,)  # neither tower's own size


def test_the_short_name_serves_both_towers():
    """Not on this machine, but known: the error is about files, not about the name."""
    for resolve in (backbones.resolve_vision, backbones.resolve_text):
        with pytest.raises(ValueError, match="google/siglip-base-patch16-224 is not on this machine"):
            resolve("siglip")


def test_a_missing_projection_is_refused_and_the_other_tower_is_not_needed(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = clip(tmp_path / "m")
    path = folder / "model.safetensors"
    weights = load_file(path)
    save_file({k: v for k, v in weights.items() if not k.startswith("text_")}, path, {"format": "pt"})
    assert backbones.resolve_vision(str(folder)).sizes == (20,)
    with pytest.raises(ValueError, match="weights are missing and would be random numbers: text_model"):
        backbones.resolve_text(str(folder))


@pytest.mark.parametrize("make", [siglip, clip])
def test_without_training_a_run_searches_in_the_joint_space_of_its_backbone(tmp_path, make):
    folder = str(make(tmp_path / "m"))
    app_support.write_comics(tmp_path / "set", pages=3, seed=3)
    arguments = ["--run", str(tmp_path / "r"), "--data", str(tmp_path / "set"), "--cache_dir", str(tmp_path / "cache")]
    arguments += ["--vision_backbone", folder, "--text_backbone", folder, "--epochs", "0", "--feature_dtype", "float32"]
    assert train_command.main([*arguments, "--val_fraction", "0.25", "--test_fraction", "0.25"]) == 0
    run = RunFolder.load(tmp_path / "r")

    # The embeddings' cosines between image and text are those of the features, each centered on the training panels.
    data = Dataset.load(run.config, progress=False)
    searcher = Searcher.of_run(run, data)
    embedded = searcher.embedded
    frozen = frozen_features(data.panel_set, embedded.rows.numpy(), centers(data, data.pages("train")))
    rows = embedded.aligned
    normal = torch.nn.functional.normalize
    ours = normal(embedded.image[rows], dim=1) @ normal(embedded.text[rows], dim=1).T
    torch.testing.assert_close(ours, frozen.image[rows] @ frozen.text[rows].T, atol=2e-4, rtol=1e-3)

    # Evaluation shows zero-shot retrieval in both directions, which is that of the features.
    report = evaluation_report(run, split="all")
    for way in ("i2t_r5", "t2i_r5", "i2t_mrr", "t2i_mrr"):
        shown = report[f"retrieval/{way}"]
        assert shown == pytest.approx(report["baselines"]["frozen"][f"retrieval/{way}"], abs=0.02), way

    # A query of words finds the images that are nearest to it in that space.
    query = "a knight in the rain"
    center = centers(data, data.pages("train"))
    wanted = normal(backbones.resolve_text(folder).encode([query]) - center.text, dim=1)
    has_image = embedded.present[:, 0]
    cosines = (frozen.image @ wanted[0]).masked_fill(~has_image, -9)
    found = searcher.search(searcher.from_words(query), "image", 3)
    assert data.table.panels.panel_id.iloc[embedded.rows[cosines.argsort(descending=True)[:3]].tolist()].tolist() == [
        data.table.panels.panel_id.iloc[row] for row in found.rows.tolist()
    ]
