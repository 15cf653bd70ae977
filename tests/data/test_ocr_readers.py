"""Readers of text, on pages that the tests draw, and on a small random model that they save to a folder."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from import_world import page
from PIL import Image, ImageDraw, ImageFont

from stage3.data import __main__ as data_command
from stage3.data.ocr import Line, load_reader, rapid
from stage3.data.ocr.joining import balloons
from stage3.data.ocr.learned import ModelReader
from stage3.errors import DataError

FONT = Path("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf")
needs_extra = pytest.mark.skipif(
    find_spec("rapidocr") is None, reason='the extra is missing: pip install "stage3[ocr]"'
)
needs_font = pytest.mark.skipif(not FONT.is_file(), reason="the font DejaVu is missing: apt install fonts-dejavu-core")

UPPER = (30, 30, 770, 480)
LOWER = (30, 520, 770, 970)


def drawn(folder: Path) -> Path:
    """A page of two panels; the upper says two balloons, the lower one; a page number below."""
    image = Image.new("RGB", (800, 1040), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.truetype(str(FONT), 24)
    for box in (UPPER, LOWER):
        draw.rectangle(box, outline="black", width=4, fill=(200, 220, 240))
    for at, text in (
        ((80, 80), "We need more\npumpkins for\nthe soup!"),
        ((520, 300), "How many\ndo you want?"),
        ((300, 600), "Exactly eleven."),
    ):
        around = draw.multiline_textbbox(at, text, font=font, align="center")
        draw.rounded_rectangle((around[0] - 24, around[1] - 20, around[2] + 24, around[3] + 20), 30, fill="white")
        draw.multiline_text(at, text, font=font, fill="black", align="center")
    draw.text((392, 995), "12", font=ImageFont.truetype(str(FONT), 18), fill="black")
    folder.mkdir()
    image.save(folder / "1.png")
    return folder


@needs_extra
@needs_font
@pytest.mark.slow
def test_a_drawn_page_is_read_into_its_panels_in_reading_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = drawn(tmp_path / "book"), tmp_path / "out"
    where = ["--out", str(out), "--cache_dir", str(tmp_path / "cache")]
    assert data_command.main(["import", str(source), *where, "--text", "ocr"]) == 0
    assert "Text: 2 panels of 2 by rapidocr" in capsys.readouterr().out
    found = page(out, "book/1")
    assert [p["text"] for p in found["panels"]] == [
        "We need more pumpkins for the soup! How many do you want?",
        "Exactly eleven.",
    ]
    assert all(p["text_confidence"] > 0.9 for p in found["panels"])
    assert [(t["text"], t["kind"]) for t in found["texts"]] == [("12", "page_number")]
    (x, y, w, h), _ = (t["bbox"] for t in found["panels"][0]["texts"])
    assert (60 < x < 84, 60 < y < 90, 150 < w < 230, 70 < h < 120) == (True,) * 4


@needs_extra
@needs_font
@pytest.mark.slow
def test_from_right_to_left_the_right_balloon_comes_first(tmp_path: Path) -> None:
    source, out = drawn(tmp_path / "book"), tmp_path / "out"
    where = ["--out", str(out), "--cache_dir", str(tmp_path / "cache")]
    image = Image.open(source / "1.png")
    moved = image.copy()
    moved.paste(image.crop((490, 270, 740, 390)), (490, 60))  # beside the other, so that the direction alone decides
    moved.paste((200, 220, 240), (490, 270, 740, 390))
    moved.save(source / "1.png")
    assert data_command.main(["import", str(source), *where, "--text", "ocr", "--right_to_left"]) == 0
    first = page(out, "book/1")["panels"][0]["text"]
    assert first == "How many do you want? We need more pumpkins for the soup!"


@needs_extra
@pytest.mark.slow
def test_a_blank_page_has_no_text() -> None:
    reader = load_reader()
    assert reader.read(Image.new("RGB", (300, 400), "white")) == []


class Engine:
    """Finds three lines, of which one is flat and one lies outside; what it is asked to do it goes on doing."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.reads = True

    def __call__(self, image: np.ndarray, use_rec: bool | None = None) -> SimpleNamespace:
        self.reads = self.reads if use_rec is None else use_rec
        assert image.shape == (60, 100, 3)
        sound, flat, outside = (10, 20, 40, 32), (10, 20, 40, 20), (120, 20, 140, 32)
        boxes = [np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]) for x0, y0, x1, y1 in (sound, flat, outside)]
        texts = ("a  b", "c", "d") if self.reads else None
        return SimpleNamespace(boxes=boxes, txts=texts, scores=(0.75, 0.9, 0.9))

    def update_params(self, *, use_rec: bool) -> None:
        self.reads = use_rec


def test_lines_are_read_after_they_were_only_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rapidocr", SimpleNamespace(RapidOCR=Engine))  # type: ignore[arg-type]
    monkeypatch.setattr(rapid, "find_spec", lambda name: name)
    monkeypatch.setattr(rapid, "version", lambda name: "1.2")
    reader, image = rapid.RapidReader(), Image.new("RGB", (100, 60))
    assert reader.name == "rapidocr 1.2"
    box = (10.0, 20.0, 30.0, 12.0)
    for _ in range(2):
        assert reader.find(image) == [box]
        assert reader.read(image) == [Line("a b", box, 0.75)]


# --- models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vision encoder and a text decoder of a few thousand random weights, as TrOCR and manga-ocr are saved."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        BertConfig,
        BertLMHeadModel,
        PreTrainedTokenizerFast,
        VisionEncoderDecoderModel,
        ViTConfig,
        ViTModel,
    )
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    torch.manual_seed(5)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"あいうえおかきくけこ"]
    tokens = Tokenizer(models.WordPiece({t: i for i, t in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = VisionEncoderDecoderModel(
        encoder=ViTModel(ViTConfig(image_size=32, patch_size=16, **small)),
        decoder=BertLMHeadModel(
            BertConfig(vocab_size=len(vocabulary), is_decoder=True, add_cross_attention=True, **small)
        ),
    )
    with torch.no_grad():  # larger weights, so that other pixels give other words
        for parameter in model.parameters():
            parameter.mul_(8 if parameter.dim() > 1 else 1)
    for config in (model.config, model.generation_config):
        config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 2, 0, 3
    model.generation_config.max_length = 12
    path = tmp_path_factory.mktemp("ved")
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(path)
    return path


BOXES = [(10.0, 10.0, 40.0, 8.0), (10.0, 20.0, 40.0, 8.0), (120.0, 100.0, 60.0, 10.0)]


def noise() -> Image.Image:
    torch.manual_seed(1)
    return Image.fromarray(torch.randint(0, 256, (150, 200, 3), dtype=torch.uint8).numpy())


def test_a_model_reads_each_balloon_and_says_how_sure_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stage3.data.ocr import learned

    monkeypatch.setattr(learned, "LONGEST", 6)
    reader = ModelReader(str(folder), lambda image: BOXES)
    reader.model.generation_config.update(num_beams=2, do_sample=True)  # whatever a model was saved with
    image = noise()
    lines = reader.read(image)
    assert [found.box for found in lines] == balloons(BOXES) == [(10.0, 10.0, 40.0, 18.0), (120.0, 100.0, 60.0, 10.0)]
    assert reader.name == str(folder)
    for found in lines:
        crop = learned._crop(image, found.box)
        pixels = reader.processor(images=crop, return_tensors="pt")["pixel_values"]
        tokens, logs = [2], []
        while len(tokens) <= 6 and tokens[-1] != 3:  # greedy, by hand
            with torch.inference_mode():
                scores = reader.model(pixels, decoder_input_ids=torch.tensor([tokens])).logits[0, -1].log_softmax(-1)
            tokens.append(int(scores.argmax()))
            logs.append(float(scores.max()))
        assert found.text == reader.tokenizer.decode(tokens[1:], skip_special_tokens=True)
        assert found.confidence == pytest.approx(torch.tensor(logs).mean().exp().item(), rel=1e-4)


@pytest.mark.parametrize(
    ("remove", "problem"),
    [
        ("model.safetensors", "no safetensors weights"),
        ("preprocessor_config.json", "no usable image preprocessing"),
        ("tokenizer.json", "its tokenizer does not load"),
        ("config.json", "does not load"),
    ],
)
def test_a_folder_that_lacks_a_part_is_refused_in_one_line(
    folder: Path, tmp_path: Path, remove: str, problem: str
) -> None:
    for path in folder.iterdir():
        if path.name != remove:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(DataError, match=problem) as error:
        ModelReader(str(tmp_path), lambda image: [])
    assert "\n" not in str(error.value)


def test_code_that_a_model_brings_is_not_run(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    config["model_type"], config["auto_map"] = "own", {"AutoConfig": "own.Own", "AutoModelForImageTextToText": "own.M"}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n", encoding="utf-8")
    with pytest.raises(DataError, match="does not load"):
        ModelReader(str(tmp_path), lambda image: [])
    assert not (tmp_path / "ran").exists()
