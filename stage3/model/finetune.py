"""Fine-tuning: the backbones in front of `Stage3`, trained with it, from the pixels and texts of each batch.

The model's input is features, here as always: `Tuned` replaces the fields `image` and `text` of a `PanelBatch` by
features that it has just computed, on the graph. Backbones stay in eval mode while they are trained: BatchNorm keeps
its running statistics and dropout is off, so that what is trained is what is used. Anchors, and all that is compared
with frozen features, keep those of the untouched backbones.

V panels, n of them with an image, D size of a feature.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from PIL import Image, ImageEnhance
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stage3.batches import IMAGE, TEXT, Features, PanelBatch, PanelSet, derived_seed
from stage3.config import SPLITS, Config
from stage3.data import images
from stage3.data.remote import is_url
from stage3.errors import DataError, StorageError
from stage3.features.backbones import Trainable, VisionBackbone, clean_text, resolve_text, resolve_vision
from stage3.model.checkpoint import check_tensors
from stage3.peers import ALONE, Peers
from stage3.storage import read_file

if TYPE_CHECKING:
    from stage3.batches.dataset import Dataset

CHUNK = 64  # crops or texts through a backbone at once; fixed, so that results do not depend on a setting
VALIDATED_PAGES = 2000  # validation pages that are encoded anew at each validation, evenly spaced
JITTER = 0.15  # brightness and contrast are multiplied by 1 ± this
CUT = 0.08  # share of a crop's width and height that is cut off, at most
MAX_WEIGHTS = 16 * 2**30  # bytes of a backbone's file
BACKBONE = "backbone"  # folders of a checkpoint: backbone-image (or -image-1, -image-2 of joined ones), backbone-text
NUMBERED = re.compile(r".*?\.\d+(?=\.)")  # of a parameter's name: up to its block


class Tuned(nn.Module):
    """The backbones that a run trains, and where their inputs come from.

    Attributes:
        vision: the image backbone, where it is trained.
        text: the text backbone, likewise.
        folders: the parts that are trained, by their folder in a checkpoint.
        crops: decodes the images.
    """

    def __init__(self, config: Config, data: Dataset, device: torch.device) -> None:
        """The backbones as they begin.

        Raises:
            DataError: images or texts to train from are not there.
        """
        super().__init__()
        self.config, self.data, self.device = config, data, device
        where, notes = str(device), Path(config.cache_dir) / "features"
        self.vision: VisionBackbone | None = None
        self.folders: dict[str, Trainable] = {}
        if config.finetune in ("image", "both"):
            check_images(data)
            self.vision = resolve_vision(config.vision_backbone, where, config.precision, config.crop_fit, notes)
            parts = self.vision.parts
            for i, part in enumerate(parts, 1):
                self.folders[f"{BACKBONE}-image" + (f"-{i}" if len(parts) > 1 else "")] = cast(Trainable, part)
            self.crops = Crops(data, config, self.vision)
        self.text: Trainable | None = None
        if config.finetune in ("text", "both"):
            check_texts(data)
            self.text = cast(Trainable, resolve_text(config.text_backbone, where, config.precision, notes))
            self.folders[f"{BACKBONE}-text"] = self.text
        # a network of each, under a name that no parameter of `Stage3` has
        self.backbones = nn.ModuleDict({name: part.net.requires_grad_(True) for name, part in self.folders.items()})
        self.eval()

    def train(self, mode: bool = True) -> Tuned:
        """Stay in eval mode."""
        return super().train(False)

    # --- features on the graph

    def forward(self, batch: PanelBatch, crops: Sequence[Any] = ()) -> PanelBatch:
        """The batch with its features computed anew, on the graph of the backbones.

        Args:
            batch: as cut from the feature store, on this device.
            crops: (n,) what `Crops` gives for its panels that have an image, in their order.
        """
        if self.vision is not None:
            rows = batch.present[:, IMAGE].nonzero()[:, 0]
            assert len(rows) == len(crops)
            encode = partial(_side_by_side, [cast(Trainable, part) for part in self.vision.parts])
            batch = replace(batch, image=self._spread(batch.image, rows, self._in_chunks(encode, crops)))
        if self.text is not None:
            rows = batch.present[:, TEXT].nonzero()[:, 0]
            _, first, again = np.unique(batch.text_ids[rows].cpu().numpy(), return_index=True, return_inverse=True)
            distinct = batch.rows[rows].cpu().numpy()[first]
            found = self._in_chunks(self.text.in_graph, self._texts(distinct))
            features = found and [torch.cat(found)[torch.from_numpy(again.ravel()).to(batch.text.device)]]
            batch = replace(batch, text=self._spread(batch.text, rows, features))
        return batch

    def _texts(self, rows: np.ndarray) -> list[str]:
        """What the text backbone reads of these panels."""
        return [clean_text(text)[0] for text in self.data.table.texts(self.config.text_parts, rows)]

    def _in_chunks(self, encode: Callable[[Sequence[Any]], Tensor], inputs: Sequence[Any]) -> list[Tensor]:
        chunks = [inputs[i : i + CHUNK] for i in range(0, len(inputs), CHUNK)]
        if not (self.config.finetune_checkpointing and torch.is_grad_enabled()):
            return [encode(chunk) for chunk in chunks]
        # eval mode draws nothing, so that there is no random state to keep
        return [checkpoint(encode, chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks]

    @staticmethod
    def _spread(stored: Tensor, rows: Tensor, features: list[Tensor]) -> Tensor:
        return (
            torch.zeros_like(stored).index_copy(0, rows, torch.cat(features).to(stored.dtype)) if features else stored
        )

    # --- features as they are now, for validation

    def panel_set(self, pages: np.ndarray, peers: Peers = ALONE) -> PanelSet:
        """The data set with the features of these pages as the backbones give them now; others keep the stored ones.

        Several processes share the work, and each gets all of it.
        """
        stored = self.data.panel_set
        mine = np.array_split(pages, peers.size)[peers.rank]
        found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        if self.vision is not None:
            rows = rows_with(stored, mine, IMAGE)
            vectors = [
                self.vision.encode_prepared(chunk)
                for some in _parts(mine, CHUNK // 4)
                for chunk in _parts(list(chain.from_iterable(self.crops.of_pages(some))), CHUNK)
            ]
            found[IMAGE] = _of_all(rows, vectors, sum(self.vision.sizes), peers)
        if self.text is not None:
            rows = rows_with(stored, mine, TEXT)
            _, first, again = np.unique(self.data.features.text_rows[rows], return_index=True, return_inverse=True)
            texts = self._texts(rows[first])
            with torch.inference_mode():
                vectors = [self.text.in_graph(part).cpu() for part in _parts(texts, CHUNK)]
            vectors = [torch.cat(vectors)[torch.from_numpy(again.ravel())]] if vectors else []
            found[TEXT] = _of_all(rows, vectors, self.data.features.text_dim, peers)
        return replace(stored, features=Renewed(stored.features, found))

    # --- in and out of a checkpoint

    def files(self) -> dict[str, bytes]:
        """Every file of every backbone's folder, by its path in the checkpoint."""
        return {f"{name}/{file}": data for name, part in self.folders.items() for file, data in part.saved().items()}

    def check(self, path: Path) -> dict[str, dict[str, Tensor]]:
        """The weights that a checkpoint's folder holds, by backbone.

        Raises:
            StorageError: they are not there, or are another network's.
        """
        found = {}
        for name, part in self.folders.items():
            file = path / name / part.weights_file
            if not file.is_file():
                raise StorageError(f"{file} is missing: the checkpoint is of a run that trained no such backbone")
            try:
                found[name] = load_tensors(read_file(file, MAX_WEIGHTS))
            except (SafetensorError, ValueError) as error:
                raise StorageError(f"{file}: not readable as safetensors ({error})") from None
            check_tensors(part.net.state_dict(), found[name], file)
        return found

    def load(self, path: Path) -> None:
        """Take the weights of a checkpoint; StorageError as `check`."""
        for name, tensors in self.check(path).items():
            self.folders[name].net.load_state_dict(tensors)

    # --- how fast each block learns

    def groups(self, decays: Callable[[str, Tensor], bool]) -> list[dict[str, Any]]:
        """Parameters with their `weight_decay` and their `rate`, the peak learning rate of their block.

        What follows the last block has `finetune_lr`; each block has the rate of what follows it times
        `finetune_layer_decay`.
        """
        by_rate: dict[tuple[float, float], list[nn.Parameter]] = {}
        for net in self.backbones.values():
            depths = depths_of([name for name, _ in net.named_parameters()])
            for (name, parameter), depth in zip(net.named_parameters(), depths, strict=True):
                rate = self.config.finetune_lr * self.config.finetune_layer_decay ** (max(depths) - depth)
                decay = self.config.weight_decay if decays(name, parameter) else 0.0
                by_rate.setdefault((rate, decay), []).append(parameter)
        return [{"params": p, "rate": rate, "weight_decay": decay} for (rate, decay), p in by_rate.items()]


def depths_of(names: Sequence[str]) -> list[int]:
    """The block of each parameter, counted from the input; what stands before the first is 0, behind the last one more.

    Example:
        >>> depths_of(["stem.weight", "layers.0.a.weight", "layers.0.b.weight", "layers.1.a.weight", "head.weight"])
        [0, 1, 1, 2, 3]
    """
    blocks: dict[str, int] = {}
    found = []
    for name in names:
        block = NUMBERED.match(f"{name}.")
        if block:
            found.append(blocks.setdefault(block[0], len(blocks) + 1))
        else:
            found.append(len(blocks) + 1 if blocks else 0)
    return found


def trained_folders(finetune: str, image_backbones: int) -> tuple[list[str], list[str]]:
    """Folders of a checkpoint for the image backbones and for the text backbone; empty where they are not trained."""
    several = [f"{BACKBONE}-image-{i}" for i in range(1, image_backbones + 1)]
    image = (several if image_backbones > 1 else [f"{BACKBONE}-image"]) if finetune in ("image", "both") else []
    return image, [f"{BACKBONE}-text"] if finetune in ("text", "both") else []


# --- pixels


class Crops:
    """The crops of panels as a backbone wants them, decoded from their pages each time by `workers` threads."""

    def __init__(self, data: Dataset, config: Config, backbone: VisionBackbone) -> None:
        self.data, self.config, self.backbone = data, config, backbone
        self.boxes = data.table.panels[["x", "y", "w", "h"]].to_numpy(dtype="<f4")
        self.has_box = data.table.has_box
        self.paths = data.table.pages["image_path"]
        self.pool = ThreadPoolExecutor(config.workers, thread_name_prefix="decode") if config.workers else None

    def ahead(
        self, steps: Iterable[tuple[int, int, np.ndarray]], share: Callable[[np.ndarray], np.ndarray]
    ) -> Iterator[tuple[int, int, np.ndarray, list[Any]]]:
        """Steps with the crops of their pages' panels, which are decoded while the step before is computed.

        Args:
            steps: (step, epoch, pages), as `batches.steps_from` gives them.
            share: this process's share of a step's pages.
        """
        waiting: list[tuple[int, int, np.ndarray, list[Future[list[Any]]]]] = []
        for step, epoch, pages in steps:
            if self.pool is None:
                yield step, epoch, pages, list(chain.from_iterable(self.of_page(p, step) for p in share(pages)))
                continue
            waiting.append((step, epoch, pages, [self.pool.submit(self.of_page, p, step) for p in share(pages)]))
            if len(waiting) > 1:
                first = waiting.pop(0)
                yield *first[:3], list(chain.from_iterable(future.result() for future in first[3]))

    def of_pages(self, pages: Iterable[int]) -> Iterator[list[Any]]:
        """`of_page` of each, without a random change."""
        return map(self.of_page, pages) if self.pool is None else self.pool.map(self.of_page, pages)

    def of_page(self, page: int, step: int = 0) -> list[Any]:
        """What the backbone wants of each panel of a page that has an image, in their order.

        Args:
            page: row of the page.
            step: of training, where crops are to be changed at random (`finetune_augment`); 0 leaves them as they are.

        Raises:
            DataError: the page's image cannot be read any more.
        """
        panel_set = self.data.panel_set
        rows = np.arange(panel_set.first[page], panel_set.first[page] + panel_set.count[page])
        rows = rows[self.has_box[rows]]
        wanted = panel_set.present[rows, IMAGE]
        if not wanted.any():
            return []
        try:
            # every box of the page, as when the features were stored: the smallest decides how finely it is decoded
            found = images.decode_panels(
                str(self.paths.iloc[page]),
                self.boxes[rows],
                short_side=self.backbone.short_side,
                max_megapixels=self.config.max_megapixels,
                truncated=self.config.truncated_images,
            )
        except images.ImageProblem as problem:
            raise DataError(f"fine-tuning reads every image anew, and one is not what it was: {problem}") from None
        made = []
        for row, crop in zip(rows[wanted], (c for c, w in zip(found, wanted, strict=True) if w), strict=True):
            if step and self.config.finetune_augment:
                crop = changed(crop, np.random.default_rng(derived_seed(self.config.seed, "pixels", step, int(row))))
            made.append(self.backbone.prepare(crop))
        return made


def changed(crop: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A crop with a little cut off its edges, and its brightness and contrast changed; never mirrored, for letters."""
    width, height = crop.size
    x, y = rng.uniform(0, CUT, 2)
    left, top = rng.uniform(0, 1, 2) * (x * width, y * height)
    box = int(left), int(top), int(left + (1 - x) * width), int(top + (1 - y) * height)
    crop = crop.crop(box) if min(box[2] - box[0], box[3] - box[1]) >= images.MIN_SIDE else crop
    bright, contrast = rng.uniform(1 - JITTER, 1 + JITTER, 2)
    return ImageEnhance.Contrast(ImageEnhance.Brightness(crop).enhance(bright)).enhance(contrast)


# --- what there is to train from


def check_images(data: Dataset) -> None:
    """Refuse to train an image backbone without images, or with stored features alone.

    Raises:
        DataError: no training panel has an image, or images are not there any more.
    """
    present, pages = data.panel_set.present, data.table.page_of_panel
    seen = np.unique(pages[present[:, IMAGE] & (data.split[pages] <= SPLITS.index("val"))])
    if not (data.split[seen] == SPLITS.index("train")).any():
        raise DataError("finetune: no training panel has an image. Give --finetune text or none.")
    paths = data.table.pages["image_path"].iloc[seen]
    gone = [str(path) for path in paths if not (path and (is_url(str(path)) or Path(str(path)).is_file()))]
    if gone:
        raise DataError(
            f"finetune: the images of {len(gone):,} of {len(seen):,} training and validation pages are not there, the "
            f"first is {gone[0] or 'of a page without a path'!r}. Their features are stored, but fine-tuning reads the "
            "images anew. Bring them back, or give --finetune text or none."
        )


def check_texts(data: Dataset) -> None:
    """Refuse to train a text backbone without texts; DataError."""
    train = data.split[data.table.page_of_panel] == SPLITS.index("train")
    if not (data.panel_set.present[:, TEXT] & train).any():
        raise DataError("finetune: no training panel has a text. Give --finetune image or none.")


# --- helpers


@dataclass(frozen=True)
class Renewed:
    """Stored features, some rows of which were computed anew: (n,) rows and (n, D) vectors by modality."""

    stored: Features
    found: dict[int, tuple[np.ndarray, np.ndarray]]

    @property
    def image_rows(self) -> np.ndarray:
        """As stored."""
        return self.stored.image_rows

    @property
    def text_rows(self) -> np.ndarray:
        """As stored."""
        return self.stored.text_rows

    def gather(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Features`."""
        out = self.stored.gather(rows)
        for modality, (known, vectors) in self.found.items():
            if len(known):
                at = np.minimum(np.searchsorted(known, rows), len(known) - 1)
                there = known[at] == rows
                out[modality][there] = vectors[at[there]]
        return out


def rows_with(panel_set: PanelSet, pages: np.ndarray, modality: int) -> np.ndarray:
    """Rows of the panels of these pages that have a modality, page after page."""
    rows = panel_set.rows_of(pages)
    there: np.ndarray = rows[panel_set.present[rows, modality]]
    return there


def _of_all(rows: np.ndarray, vectors: list[Tensor], size: int, peers: Peers) -> tuple[np.ndarray, np.ndarray]:
    """Rows and vectors of all processes, ascending by row."""
    with torch.no_grad():
        own = torch.cat([torch.zeros(0, size), *(v.float().clone() for v in vectors)])
        (everywhere, features), _ = peers.gather(torch.from_numpy(rows.astype(np.int64)), own)
    order = np.argsort(everywhere.numpy(), kind="stable")
    return everywhere.numpy()[order], features.numpy()[order]


def _side_by_side(parts: Sequence[Trainable], crops: Sequence[Any]) -> Tensor:
    if len(parts) == 1:
        return parts[0].in_graph(crops)
    return torch.cat([part.in_graph([crop[i] for crop in crops]) for i, part in enumerate(parts)], dim=1)


def _parts(items: Any, size: int) -> list[Any]:
    return [items[i : i + size] for i in range(0, len(items), size)]
