"""Text models from Hugging Face and sentence-transformers folders.

Shapes: n texts of one call, L tokens of the longest, D size of a feature.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stage3.features.backbones import TextBackbone, sentence
from stage3.features.backbones.pretrained import Pretrained

TOKENIZER_FILES = (
    "tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model", "spm.model",
    "tokenizer.model",
)  # fmt: skip
BESIDE_THEM = ("config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
NO_VOCABULARY = ("byt5", "canine", "perceiver")  # model types that read bytes or characters
UNUSED = ("pooler.", "lm_head.", "classifier.", "cls.")  # weights: pooling reads none of these
LONGEST = 512  # tokens, for tokenizers that state no limit; also the longest text of the probe


class PretrainedText(Pretrained, TextBackbone):
    """A BERT-like text model and what its folder says of pooling; the mean over the tokens that exist, if nothing.

    Of a model with two towers (CLIP, SigLIP) it is the text's place in their joint space.
    """

    kind = "text"

    def __init__(
        self,
        name: str,
        model_id: str,
        device: str = "cpu",
        precision: str = "float32",
        notes: Path | None = None,
    ) -> None:
        super().__init__(name, model_id, device, precision, notes)
        self.modules = sentence.read(self.folder)
        self.folder = self.modules.transformer
        files = [self.folder / file for file in (*TOKENIZER_FILES, *BESIDE_THEM)]
        self.fingerprint = self._fingerprint([*files, *self.modules.files], *(["joint"] if self.joint else []))
        config = getattr(self.config, "text_config", None) or self.config
        kind = getattr(config, "model_type", "nameless")
        if getattr(self.config, "is_encoder_decoder", False):
            raise self.refused(f"a {kind} model is seq2seq; a text backbone is an encoder, such as BERT")
        if not hasattr(config, "vocab_size") and kind not in NO_VOCABULARY:
            raise self.refused(f"a {kind} model is not a text backbone")
        self._check_tokenizer(str(kind))
        limits = [getattr(config, "max_position_embeddings", 0) - _position_offset(kind), self.modules.max_tokens]
        limits.append(int(min(self.tokenizer.model_max_length, 10**9)))
        self.max_tokens = min([n for n in limits if 0 < n < 10**6], default=LONGEST)
        self.size = self.probed_size()

    @cached_property
    def tokenizer(self) -> Any:
        """The model's own tokenizer."""
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        return self.load_tokenizer()

    @cached_property
    def after(self) -> nn.ModuleList:
        """The layers between pooling and feature."""
        with self.refusing("its dense layers do not load"), torch.inference_mode(False):
            layers = self.modules.layers()
        return layers.to(self.device).requires_grad_(False).eval()

    def _check_tokenizer(self, kind: str) -> None:
        """Refuse missing files: transformers goes on without them, and every word becomes the unknown one."""
        if kind not in NO_VOCABULARY and not any((self.folder / file).is_file() for file in TOKENIZER_FILES):
            raise self.refused("its tokenizer files are missing (tokenizer.json, vocab.txt or another vocabulary)")
        needed = set(type(self.tokenizer).vocab_files_names.values()) - {"tokenizer.json"}
        lacking = sorted(file for file in needed if not (self.folder / file).is_file())
        if lacking and not (self.folder / "tokenizer.json").is_file():
            raise self.refused(f"its tokenizer files are missing: {', '.join(lacking)}")
        if self.tokenizer.pad_token_id is None:
            raise self.refused("its tokenizer has no padding token, so texts of several lengths do not fit together")

    @torch.inference_mode()
    def encode_counted(self, texts: Sequence[str]) -> tuple[Tensor, list[bool]]:
        """See the base class."""
        if not texts:
            return torch.zeros(0, self.size), []
        texts = self._cased(texts)
        special = self.tokenizer.num_special_tokens_to_add()
        plain = self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        cut = [len(ids) + special > self.max_tokens for ids in plain]
        return self._checked(self._encode(texts, self.max_tokens)), cut

    def in_graph(self, texts: Sequence[Any]) -> Tensor:
        """See `Trainable`; dense layers behind the pooling stay as they are."""
        return self._encode(self._cased(texts), self.max_tokens).float()

    def _cased(self, texts: Sequence[str]) -> list[str]:
        return [text.lower() for text in texts] if self.modules.lower_case else list(texts)

    def _encode(self, texts: list[str], max_tokens: int) -> Tensor:
        if self.joint:
            return self._encode_jointly(texts, max_tokens)
        tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=max_tokens, return_tensors="pt").to(
            self.device
        )
        with self._autocast():
            hidden = self.model(**tokens).last_hidden_state.float()
        features = sentence.pooled(hidden, tokens["attention_mask"], self.modules.pooling)
        for layer in self.after:
            features = layer(features)
        return features

    def _encode_jointly(self, texts: list[str], max_tokens: int) -> Tensor:
        """As the two towers were trained: SigLIP reads texts that fill its window, and never hides the filling."""
        fills = str(self.config.model_type).startswith("siglip")
        tokens = self.tokenizer(
            texts,
            padding="max_length" if fills else True,
            truncation=True,
            max_length=self.max_tokens if fills else max_tokens,
            return_tensors="pt",
        ).to(self.device)
        used = ("input_ids",) if fills else ("input_ids", "attention_mask")
        with self._autocast():
            return self._joint_features(**{name: tokens[name] for name in used})

    def _probe(self) -> tuple[Tensor, Tensor]:
        words = self._known_words()
        short = self._cased([" ".join([*words[:2], "\N{SNOWMAN}"])])  # a sign that few vocabularies have
        # As long as the window: a table of positions that is shorter than stated shows here, not in the middle of
        # a build.
        long = self._cased([" ".join((words[1:] + words[:1]) * LONGEST)])
        longest = min(self.max_tokens, LONGEST)
        return self._encode(short, longest), self._encode(short + long, longest)

    def _known_words(self) -> list[str]:
        """Some words of the tokenizer's own vocabulary; refused where it has none, or more than the model has rows."""
        special = set(self.tokenizer.all_special_ids)
        ids = sorted(i for i in self.tokenizer.get_vocab().values() if i not in special)
        rows = getattr(getattr(self.config, "text_config", None) or self.config, "vocab_size", None)
        if ids and rows is not None and ids[-1] >= rows:
            raise self.refused(f"its tokenizer has ids up to {ids[-1]}, its model knows {rows} tokens")
        chosen = [*ids[:: max(1, len(ids) // 64)], *ids[-1:]]
        words = [word for i in chosen if (word := self.tokenizer.decode([i]).strip())]
        words = [word for word in words if word.isalpha()] or words
        found = self.tokenizer(words, add_special_tokens=False)["input_ids"] if words else []
        if not any(i != self.tokenizer.unk_token_id for row in found for i in row):
            raise self.refused("its tokenizer knows no words: every text would be the same unknown one")
        return words

    def _needed(self, key: str) -> bool:
        return not key.startswith(UNUSED)


def _position_offset(kind: str) -> int:
    """Positions that RoBERTa-like models keep for padding."""
    return 2 if "roberta" in kind or kind in ("mpnet", "camembert") else 0
