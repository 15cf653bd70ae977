"""Frozen backbones by name: what turns a crop or a text into a feature vector, and nothing that learns.

A backbone brings its own preprocessing (size, mean, std, interpolation), its own pooling and a fingerprint of both
weights and preprocessing. It always runs in eval mode, and without gradients but for `in_graph`, by which a run trains
it (`stage3.model.finetune`); the feature store keeps what it says.
Beside this file: `tiny`, whose weights ship in `weights/`, and `pretrained`, which reads Hugging Face models with
`pretrained_vision`, `pretrained_text` and `sentence`.

Shapes: n crops or texts of one call, D size of a feature.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from stage3.config import nearest
from stage3.errors import ConfigError
from stage3.storage import sha256

SHORT_NAMES: dict[str, tuple[tuple[str, ...], str]] = {  # name: (kinds, Hugging Face id)
    "siglip": (("vision", "text"), "google/siglip-base-patch16-224"),
    "resnet50": (("vision",), "microsoft/resnet-50"),
    "minilm": (("text",), "sentence-transformers/all-MiniLM-L6-v2"),
}
TINY = "tiny.json"  # in a folder of weights of a `tiny` backbone
MAX_CHARACTERS = 10_000  # of a text; far beyond any backbone's window, and cheap to tokenise


class Trainable(Protocol):
    """What it takes to train a backbone and to keep what was trained; every backbone here but a joined one has it.

    Attributes:
        net: the network whose weights are trained.
        weights_file: where in `saved` its weights are.
    """

    @property
    def net(self) -> nn.Module:
        """See above."""

    @property
    def weights_file(self) -> str:
        """See above."""

    def in_graph(self, inputs: Sequence[Any]) -> Tensor:
        """(n, D) float32 features on the backbone's device, on the graph of its weights where these are trained.

        Args:
            inputs: crops as `prepare` made them, or cleaned texts; at least one.
        """

    def saved(self) -> dict[str, bytes]:
        """The files, by their path in it, of a folder that is this backbone with its weights as they are now."""


class VisionBackbone(ABC):
    """Turns crops into vectors. `encode` is `prepare` on each crop, then `encode_prepared` on the stack.

    Attributes:
        name: as given to `resolve_vision`.
        sizes: size of each part's feature; one number unless several backbones are joined with `+`.
        fingerprint: SHA-256 in hex over weights and preprocessing.
        short_side: pixels that the shorter side of a crop must keep for nothing to be lost; readers may decode
            a page at a lower resolution as long as they keep that.
        in_flight: batches worth having under way with `encode_later` before asking for the first one's vectors.
    """

    name: str
    sizes: tuple[int, ...]
    fingerprint: str
    short_side: int
    in_flight: int = 0

    @abstractmethod
    def prepare(self, image: Image.Image) -> Any:
        """One RGB crop, resized and laid out as this backbone wants it; safe to call from several threads."""

    def compact(self, image: Image.Image) -> Any:
        """As `prepare`, in the smallest form that `encode_prepared` takes, for crops that wait in thousands."""
        return self.prepare(image)

    @abstractmethod
    def encode_prepared(self, prepared: Sequence[Any]) -> Tensor:
        """(n, D) float32 on the CPU, from what `prepare` made."""

    def encode_later(self, prepared: Sequence[Any]) -> Callable[[], Tensor]:
        """Begin `encode_prepared`; what it returns waits for the result. A GPU works on meanwhile, a CPU is done."""
        vectors = self.encode_prepared(prepared)
        return lambda: vectors

    @property
    def zero_color(self) -> tuple[int, int, int]:
        """The color that preprocessing turns to 0, the mean that it subtracts; middle gray where none is named."""
        return 128, 128, 128

    @property
    def parts(self) -> tuple[VisionBackbone, ...]:
        """The backbones that were joined with `+`; a single backbone is its own only part."""
        return (self,)

    def encode(self, images: Sequence[Image.Image]) -> Tensor:
        """(n, D) float32 features of RGB crops, on the CPU."""
        if not images:
            return torch.zeros(0, sum(self.sizes))
        return self.encode_prepared([self.prepare(image) for image in images])


class TextBackbone(ABC):
    """Turns texts into vectors.

    Attributes:
        name: as given to `resolve_text`.
        size: D.
        fingerprint: SHA-256 in hex over weights and preprocessing.
    """

    name: str
    size: int
    fingerprint: str

    @abstractmethod
    def encode_counted(self, texts: Sequence[str]) -> tuple[Tensor, list[bool]]:
        """(n, D) float32 features of cleaned texts, and for each text whether its end did not fit."""

    def encode(self, texts: Sequence[str]) -> Tensor:
        """(n, D) float32 features, on the CPU; texts of any content and length."""
        if not texts:
            return torch.zeros(0, self.size)
        return self.encode_counted([clean_text(text)[0] for text in texts])[0]


class JoinedVision(VisionBackbone):
    """Several vision backbones over the same crops; features side by side, `sizes` says how to split them."""

    def __init__(self, parts: Sequence[VisionBackbone]) -> None:
        self._parts = tuple(parts)
        self.name = "+".join(p.name for p in parts)
        self.sizes = tuple(size for p in parts for size in p.sizes)
        self.short_side = max(p.short_side for p in parts)
        self.in_flight = max(p.in_flight for p in parts)
        self.fingerprint = sha256("+".join(p.fingerprint for p in parts).encode())

    @property
    def parts(self) -> tuple[VisionBackbone, ...]:
        """See the base class."""
        return self._parts

    def prepare(self, image: Image.Image) -> Any:
        """See the base class."""
        return tuple(part.prepare(image) for part in self._parts)

    def compact(self, image: Image.Image) -> Any:
        """See the base class."""
        return tuple(part.compact(image) for part in self._parts)

    def encode_prepared(self, prepared: Sequence[Any]) -> Tensor:
        """See the base class."""
        return torch.cat([part.encode_prepared([p[i] for p in prepared]) for i, part in enumerate(self._parts)], dim=1)


def clean_text(text: str) -> tuple[str, bool]:
    """A text that every tokenizer survives, and whether its end was cut.

    Lone surrogates become U+FFFD, NUL becomes a space, surrounding white space goes, and everything after
    `MAX_CHARACTERS` is cut before a tokenizer spends seconds on it.

    >>> clean_text("  who? ")
    ('who?', False)
    """
    cut = len(text) > MAX_CHARACTERS
    text = text[:MAX_CHARACTERS]
    if not text.isascii():
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\0", " ").strip(), cut


def resolve_vision(
    name: str,
    device: str = "cpu",
    precision: str = "float32",
    crop_fit: str = "squash",
    notes: Path | None = None,
) -> VisionBackbone:
    """The vision backbone of that name, tried on two images and ready to encode.

    Args:
        name: `tiny`, `siglip`, `resnet50`, a Hugging Face id (`owner/model` or `owner/model@revision`), a local
            folder, or several of these joined with `+`.
        device: where it runs, such as `cpu` or `cuda:0`.
        precision: `float32`, or `bf16` / `fp16` for autocast on a GPU.
        crop_fit: how a crop is fitted to the backbone's input: `squash`, `pad` or `processor`, see
            `pretrained_vision.PretrainedVision`; `tiny` always squashes.
        notes: a folder that remembers which backbones were tried; None tries each once per process.

    Raises:
        ConfigError: no backbone has that name, or it reads text.
        DataError: a model whose files are not on this machine, incomplete, or not safetensors, or that cannot be
            used: it fails on the first two images, does not tell them apart, or gives one image two vectors.
    """
    if "+" in name and not Path(name).is_dir():
        names = [part.strip() for part in name.split("+")]
        if len(set(names)) != len(names):
            raise ConfigError(f"vision_backbone: {name!r} names a backbone twice")
        return JoinedVision([resolve_vision(part, device, precision, crop_fit, notes) for part in names])
    if name == "tiny" or (Path(name) / TINY).is_file():
        from stage3.features.backbones import tiny

        return tiny.load_vision(device) if name == "tiny" else tiny.load_vision(device, Path(name))
    where = _model_id(name, "vision")
    from stage3.features.backbones.pretrained_vision import PretrainedVision

    return PretrainedVision(name, where, device, precision, crop_fit, notes)


def resolve_text(name: str, device: str = "cpu", precision: str = "float32", notes: Path | None = None) -> TextBackbone:
    """The text backbone of that name: `tiny`, `minilm`, `siglip`, a Hugging Face id or a folder; see `resolve_vision`.

    A sentence-transformers folder is read with its pooling, dense layers, window and lower case.
    """
    if name == "tiny" or (Path(name) / TINY).is_file():
        from stage3.features.backbones import tiny

        return tiny.load_text(device) if name == "tiny" else tiny.load_text(device, Path(name))
    where = _model_id(name, "text")
    from stage3.features.backbones.pretrained_text import PretrainedText

    return PretrainedText(name, where, device, precision, notes)


def _model_id(name: str, kind: str) -> str:
    """What to load for a name: a folder or a Hugging Face id; names that are neither are refused."""
    if name in SHORT_NAMES:
        kinds, model_id = SHORT_NAMES[name]
        if kind not in kinds:
            known = ", ".join(["tiny", *(n for n, (k, _) in SHORT_NAMES.items() if kind in k)])
            raise ConfigError(f"{kind}_backbone: {name!r} is a {kinds[0]} backbone. Known {kind} backbones: {known}")
        return model_id
    folder = Path(name).expanduser() if name.strip() else None
    if folder is not None and folder.is_dir():
        if not any((folder / file).is_file() for file in ("config.json", "modules.json")):
            raise ConfigError(f"{kind}_backbone: folder {name!r} has no config.json; is it a Hugging Face model?")
        return str(folder)
    if name.count("/") == 1 and all(name.split("/")) and not name.startswith((".", "~")) and "\\" not in name:
        return name
    known_names = ["tiny", *SHORT_NAMES]
    raise ConfigError(
        f"{kind}_backbone: unknown name {name!r}.{nearest(name, known_names)} Known: {', '.join(known_names)}, "
        "a Hugging Face id (owner/model) or a local folder with a config.json"
    )
