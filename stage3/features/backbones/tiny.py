"""The `tiny` backbones: small encoders whose weights ship with the package, for a machine with no network.

`python -m tools.tiny_train` makes the weights from synthetic comics. Both encoders are ordinary modules, read from
safetensors beside a JSON manifest that holds their shape and their preprocessing.

Shapes: n crops or texts of one call, S side of a resized crop, L words of the longest text, D size of a feature.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn
from torch.nn import functional as F

from stage3.errors import StorageError
from stage3.features.backbones import TINY, TextBackbone, VisionBackbone
from stage3.storage import sha256

WEIGHTS = Path(__file__).parent / "weights"
WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?", re.UNICODE)
CALL = 32  # crops through the network at once: bounds memory, and fixes what is summed together


class Block(nn.Module):
    """A residual block: two 3x3 convolutions, the first with the stride."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outside)
        self.skip = nn.Conv2d(inside, outside, 1, stride, bias=False) if stride > 1 or inside != outside else None

    def forward(self, x: Tensor) -> Tensor:
        """(n, inside, h, w) to (n, outside, h / stride, w / stride)."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + (x if self.skip is None else self.skip(x)))


class ImageNet(nn.Module):
    """A small residual network; its feature is the mean and the maximum of the last map, projected to D.

    Args:
        widths: channels of the stem and of each stage.
        strides: how much each stage shrinks its map.
        dim: D.
    """

    def __init__(self, widths: Sequence[int], strides: Sequence[int], dim: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 5, 2, 2, bias=False)
        self.stem_norm = nn.BatchNorm2d(widths[0])
        sizes = zip(widths[:-1], widths[1:], strides, strict=True)
        self.stages = nn.Sequential(*(Block(inside, outside, stride) for inside, outside, stride in sizes))
        self.project = nn.Linear(2 * widths[-1], dim)

    def maps(self, x: Tensor) -> Tensor:
        """(n, 3, S, S) normalized pixels to the last map, (n, C, h, w)."""
        x = F.max_pool2d(F.relu(self.stem_norm(self.stem(x))), 2)
        out: Tensor = self.stages(x)
        return out

    def pool(self, maps: Tensor) -> Tensor:
        """The last map to (n, D)."""
        out: Tensor = self.project(torch.cat([maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))], dim=1))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, S, S) normalized pixels to (n, D)."""
        return self.pool(self.maps(x))


class TextNet(nn.Module):
    """Words by their hashed pieces, mixed with their neighbors, then summed through gates.

    Args:
        buckets: rows of the table of pieces.
        width: size of a word's vector.
        heads: gates per word; each lets through its own part of the word's value.
        dim: D of the learned part.
    """

    def __init__(self, buckets: int, width: int, heads: int, dim: int) -> None:
        super().__init__()
        self.pieces = nn.EmbeddingBag(buckets, width, mode="sum")
        self.mix = nn.Conv1d(width, width, 3, padding=1)
        self.norm = nn.LayerNorm(width)
        self.score = nn.Linear(width, heads)
        self.value = nn.Linear(width, dim)
        self.project = nn.Linear(2 * dim, dim)
        nn.init.normal_(self.pieces.weight, std=0.1)

    def words(self, ids: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
        """(w, width) vectors of words from flat piece ids; `offsets` (w,) starts of the words, `weights` 1/pieces."""
        out: Tensor = self.pieces(ids, offsets, per_sample_weights=weights)
        return out

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        """(n, L, width) words and (n, L) bool which of them exist, to (n, D)."""
        words = words * mask[..., None]
        mixed = self.norm(words + F.gelu(self.mix(words.transpose(1, 2)).transpose(1, 2)))
        value = self.value(mixed)
        n, length, dim = value.shape
        gate = torch.sigmoid(self.score(mixed)) * mask[..., None]  # (n, L, heads): which words count, and for what
        split = value.view(n, length, gate.shape[2], -1)
        summed = torch.einsum("nlh,nlhd->nhd", gate, split).reshape(n, dim) / 4
        largest = F.relu(value).masked_fill(~mask[..., None], 0.0).amax(dim=1)
        out: Tensor = self.project(torch.cat([summed, largest], dim=1))
        return out


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, accents removed.

    >>> words_of("Où est l'ÉPÉE?!")
    ['ou', 'est', "l'epee"]
    """
    plain = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    return [w.replace("’", "'") for w in WORD.findall(plain)]


@lru_cache(maxsize=65536)
def pieces_of(word: str, buckets: int) -> tuple[int, ...]:
    """Rows of the table for a word: the word itself and its runs of three and four letters, hashed.

    A word and its misspelling share most pieces, and every string has some: no word is unknown.
    """
    framed = f"<{word[:40]}>"
    runs = {framed, *(framed[i : i + n] for n in (3, 4) for i in range(len(framed) - n + 1))}
    return tuple(sorted(int.from_bytes(_hash(run, b"piece"), "little") % buckets for run in runs))


@lru_cache(maxsize=65536)
def signs_of(word: str, dim: int) -> np.ndarray[Any, Any]:
    """(dim,) a fixed random direction of a word's own, the same on every machine; it tells unseen words apart."""
    bits = np.unpackbits(
        np.frombuffer(hashlib.blake2b(word.encode(), digest_size=64, person=b"sign").digest(), np.uint8)
    )
    return (bits[:dim].astype(np.float32) * 2 - 1) / np.float32(dim**0.5)


def _hash(text: str, person: bytes) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8, person=person).digest()


def hashed_words(texts: Sequence[list[str]], buckets: int) -> tuple[Tensor, Tensor, Tensor]:
    """Flat piece ids, offsets of the words and weights, as `TextNet.words` takes them."""
    pieces = [pieces_of(word, buckets) for words in texts for word in words]
    lengths = np.array([len(p) for p in pieces], dtype=np.int64)
    ids = torch.tensor([i for p in pieces for i in p], dtype=torch.long)
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)[: len(lengths)])
    return ids, offsets, torch.from_numpy(np.repeat(1.0 / lengths, lengths).astype(np.float32))


def embed_words(net: TextNet, texts: Sequence[list[str]], buckets: int) -> tuple[Tensor, Tensor]:
    """(n, L, width) word vectors and (n, L) mask of texts given as words."""
    counts = [len(words) for words in texts]
    device = net.pieces.weight.device
    mask = (torch.arange(max(max(counts, default=0), 1))[None] < torch.tensor(counts)[:, None]).to(device)
    flat = (
        net.words(*(t.to(device) for t in hashed_words(texts, buckets)))
        if sum(counts)
        else net.pieces.weight.new_zeros(0, net.mix.in_channels)
    )
    padded = flat.new_zeros(*mask.shape, flat.shape[1])
    padded[mask] = flat
    return padded, mask


def random_projection(texts: Sequence[list[str]], dim: int) -> Tensor:
    """(n, dim) fixed part of the text feature: the sum of the distinct words' own directions, length-normalized."""
    out = np.zeros((len(texts), dim), dtype=np.float32)
    for row, words in zip(out, texts, strict=True):
        for word in dict.fromkeys(words):
            row += signs_of(word, dim)
    return F.normalize(torch.from_numpy(out), dim=1)


def pixels(image: Image.Image, side: int) -> np.ndarray[Any, Any]:
    """(S, S, 3) uint8: the crop squeezed to a square, so that all of it is seen."""
    return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0))


class TinyVision(VisionBackbone):
    """The shipped image encoder."""

    weights_file = "tiny_image.safetensors"

    def __init__(self, net: ImageNet, manifest: dict[str, Any], fingerprint: str, device: str) -> None:
        self.name, self.fingerprint, self.manifest = "tiny", fingerprint, manifest
        preprocessing = manifest["preprocessing"]
        self.sizes, self.short_side = (int(manifest["dim"]),), int(preprocessing["size"])
        self.device = torch.device(device)
        self.net = net.to(self.device).requires_grad_(False).eval()
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.mean = torch.tensor(preprocessing["mean"], device=self.device).view(3, 1, 1)
        self.std = torch.tensor(preprocessing["std"], device=self.device).view(3, 1, 1)

    @property
    def zero_color(self) -> tuple[int, int, int]:
        """See the base class."""
        red, green, blue = (round(255 * mean) for mean in self.mean.flatten().tolist())
        return red, green, blue

    def prepare(self, image: Image.Image) -> Any:
        """See the base class."""
        return pixels(image, self.short_side)

    @torch.inference_mode()
    def encode_prepared(self, prepared: Sequence[Any]) -> Tensor:
        """See the base class."""
        return self.in_graph(prepared).cpu() if len(prepared) else torch.zeros(0, *self.sizes)

    def in_graph(self, prepared: Sequence[Any]) -> Tensor:
        """See `Trainable`."""
        out = []
        for start in range(0, len(prepared), CALL):
            stack = torch.from_numpy(np.stack(prepared[start : start + CALL])).to(self.device)
            x = (stack.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
            out.append(self.net(x.contiguous(memory_format=torch.channels_last)).float())
        return torch.cat(out)

    def saved(self) -> dict[str, bytes]:
        """See `Trainable`."""
        return _saved(self.net, self.manifest, "image")


class TinyText(TextBackbone):
    """The shipped text encoder: a learned part, and a fixed one that tells unseen words apart."""

    weights_file = "tiny_text.safetensors"

    def __init__(self, net: TextNet, manifest: dict[str, Any], fingerprint: str, device: str) -> None:
        self.name, self.fingerprint, self.manifest = "tiny", fingerprint, manifest
        self.learned, self.fixed = int(manifest["dim"]), int(manifest["fixed"])
        self.size = self.learned + self.fixed
        self.fixed_norm = float(manifest["fixed_norm"])  # beside the learned part, whose numbers are about 1 each
        self.buckets, self.max_words = int(manifest["buckets"]), int(manifest["max_words"])
        self.device = torch.device(device)
        self.net = net.to(self.device).requires_grad_(False).eval()

    @torch.inference_mode()
    def encode_counted(self, texts: Sequence[str]) -> tuple[Tensor, list[bool]]:
        """See the base class."""
        words = [words_of(text) for text in texts]
        return self._features(words).cpu(), [len(w) > self.max_words for w in words]

    def in_graph(self, texts: Sequence[Any]) -> Tensor:
        """See `Trainable`; the fixed part stays what it is."""
        return self._features([words_of(text) for text in texts])

    def _features(self, texts: Sequence[list[str]]) -> Tensor:
        words = [w[: self.max_words] for w in texts]
        vectors, mask = embed_words(self.net, words, self.buckets)
        learned = self.net(vectors, mask).float()
        fixed = self.fixed_norm * random_projection(words, self.fixed)
        return torch.cat([learned, fixed.to(learned.device)], dim=1)

    def saved(self) -> dict[str, bytes]:
        """See `Trainable`."""
        return _saved(self.net, self.manifest, "text")


def load_vision(device: str = "cpu", folder: Path = WEIGHTS) -> TinyVision:
    """The shipped image encoder.

    Raises:
        StorageError: the package's weights are missing or damaged.
    """
    manifest, tensors, fingerprint = _load(folder, "image")
    net = ImageNet(manifest["widths"], manifest["strides"], manifest["dim"])
    net.load_state_dict(tensors)
    return TinyVision(net, manifest, fingerprint, device)


def load_text(device: str = "cpu", folder: Path = WEIGHTS) -> TinyText:
    """The shipped text encoder; see `load_vision`."""
    manifest, tensors, fingerprint = _load(folder, "text")
    net = TextNet(manifest["buckets"], manifest["width"], manifest["heads"], manifest["dim"])
    net.load_state_dict(tensors)
    return TinyText(net, manifest, fingerprint, device)


def _saved(net: nn.Module, manifest: dict[str, Any], which: str) -> dict[str, bytes]:
    """The two files that `_load` reads, of a network as it is now."""
    data = save_safetensors({name: t.detach().cpu().contiguous().clone() for name, t in net.state_dict().items()})
    about = json.dumps({which: manifest | {"sha256": sha256(data)}}, sort_keys=True, indent=1)
    return {TINY: about.encode(), f"tiny_{which}.safetensors": data}


def _load(folder: Path, which: str) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    """Manifest entry, float32 tensors and fingerprint of one encoder, its digest checked."""
    try:
        data = (folder / f"tiny_{which}.safetensors").read_bytes()
        manifest = json.loads((folder / TINY).read_text(encoding="utf-8"))[which]
    except (OSError, ValueError, KeyError) as error:
        raise StorageError(
            f"{folder}: the tiny backbone's files cannot be read ({error}). Install the package again"
        ) from error
    if sha256(data) != manifest["sha256"]:
        raise StorageError(f"{folder}/tiny_{which}.safetensors does not match its manifest. Install the package again")
    tensors = {k: v.float() if v.is_floating_point() else v for k, v in load_safetensors(data).items()}
    fingerprint = sha256(json.dumps(manifest, sort_keys=True).encode() + data)
    return manifest, tensors, fingerprint
