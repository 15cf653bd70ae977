"""A multilingual text encoder from a folder reads Japanese, and search finds the panel that says it.

The model is a small random one of the form of XLM-R, saved to a folder as its authors save it.
"""

import itertools
import json
from pathlib import Path

import pytest
import torch

from stage3.batches.dataset import Dataset
from stage3.features import backbones
from stage3.features.backbones import pretrained
from stage3.runs import RunFolder
from stage3.samples import draw_books
from stage3.search import Searcher, answers
from stage3.train import __main__ as train_command

pytestmark = pytest.mark.slow

JAPANESE = ["かぼちゃをください", "また雨だ", "どこへ行くの?", "猫が魚を食べた"]
LETTERS = sorted(set("".join(JAPANESE)) | set("abcdefghijklmnopqrstuvwxyz'!?.,"))
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    import transformers as hf
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    torch.manual_seed(4)
    vocabulary = [(token, 0.0) for token in SPECIAL] + [("▁", -2.0)] + [(letter, -3.0) for letter in LETTERS]
    made = Tokenizer(models.Unigram(vocabulary, unk_id=3))
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.post_processor = processors.TemplateProcessing("<s> $A </s>", None, [("<s>", 0), ("</s>", 2)])
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "cls_token": "<s>"}
    tokenizer = hf.PreTrainedTokenizerFast(tokenizer_object=made, **names)
    config = hf.XLMRobertaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=66,
        pad_token_id=1,
    )
    model = hf.XLMRobertaModel(config, add_pooling_layer=False)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.mul_(20)
    path = tmp_path_factory.mktemp("xlmr")
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(autouse=True)
def nothing_probed_before(monkeypatch):
    monkeypatch.setattr(pretrained, "_sizes", {})


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


def test_japanese_texts_have_distinct_vectors_that_follow_their_words(folder):
    backbone = backbones.resolve_text(str(folder))
    features, cut = backbone.encode_counted([*JAPANESE, "雨" * 200])
    assert features.isfinite().all()
    assert cut == [False] * 4 + [True]  # XLM-R keeps two positions: 64 tokens fit
    centered = features[:4] - features[:4].mean(0)
    for a, b in itertools.combinations(centered, 2):
        assert cosine(a, b) < 0.9
    similar, other = backbone.encode(["また雨", "魚を食べた"])
    assert cosine(similar, features[1]) > cosine(other, features[1])
    assert cosine(other, features[3]) > cosine(similar, features[3])


def test_search_finds_the_japanese_panel_by_meaning_and_by_words(folder, tmp_path):
    draw_books(tmp_path / "set", 6, seed=3, pages=2)
    pages = [path for path in sorted((tmp_path / "set" / "panels").rglob("*.json")) if panels(path)]
    where = {}
    for text, path in zip(JAPANESE, pages[1::2], strict=False):  # one panel each, on different pages
        page = json.loads(path.read_text(encoding="utf-8"))
        page["panels"][-1]["text_content"] = [{"text": text, "type": "dialogue"}]
        page["panels"][-1]["description"] = ""
        path.write_text(json.dumps(page), encoding="utf-8")
        where[text] = f"{path.parent.name}/{path.stem}#{len(page['panels']) - 1}"
    assert len(where) == len(JAPANESE)
    arguments = ["--run", str(tmp_path / "r"), "--data", str(tmp_path / "set"), "--cache_dir", str(tmp_path / "cache")]
    assert train_command.main([*arguments, "--text_backbone", str(folder), "--epochs", "0", "--dim", "64"]) == 0
    run = RunFolder.load(tmp_path / "r")
    searcher = Searcher.of_run(run, Dataset.load(run.config, progress=False))
    ids = searcher.data.table.panels.panel_id
    for text, panel_id in where.items():
        asked = text[:-1] if text != "また雨だ" else "また雨"  # not the same text: its beginning
        for target in ("text", "all"):
            (answer,) = answers(searcher, text=asked, target=target, top=1)
            assert ids.iloc[int(answer.results.rows[0])] == panel_id, (text, target)


def panels(path: Path) -> list:
    return json.loads(path.read_text(encoding="utf-8")).get("panels") or []
