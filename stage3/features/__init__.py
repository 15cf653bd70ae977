"""What training reads of images and texts: features of frozen backbones, computed once and kept.

`load_or_build` finds every vector it can in the store and computes the rest; a second run on the same data decodes
nothing. Vectors are found by content (the page file's bytes and the box; the text itself), so moving or renaming
files, reordering pages or dropping some costs nothing. Beside this file: `store` keeps vectors by content key;
`building` brings in what it lacks, with `crops` and `texts`; `page_digests` remembers which page files have not
changed; `command` does it ahead of training, in one process or many.

Shapes: V panels, U distinct crops, T distinct texts, Di and Dt sizes of an image's and a text's feature.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from stage3.config import Config, check_value
from stage3.data.table import PanelTable
from stage3.errors import ConfigError, DataError
from stage3.features.backbones import TextBackbone, VisionBackbone, resolve_text, resolve_vision
from stage3.features.build import EXAMPLES
from stage3.features.building import Building, stem
from stage3.features.store import SUFFIX, Array, VectorStore, write_segment
from stage3.storage import sha256

if TYPE_CHECKING:
    import torch

IN_MEMORY_BYTES = 256 * 2**20  # smaller sets are read into memory whole: gathering from there is quickest


class Rows(Protocol):
    """A matrix that is read by rows."""

    @property
    def dim(self) -> int:
        """Columns."""

    def take(self, rows: Array) -> Array:
        """(n, dim) float32."""


@dataclass(frozen=True)
class ArrayRows:
    """A matrix in memory."""

    array: Array

    @property
    def dim(self) -> int:
        """Columns."""
        return int(self.array.shape[1])

    def take(self, rows: Array) -> Array:
        """(n, dim) float32."""
        return self.array[rows].astype(np.float32, copy=False)


@dataclass(frozen=True)
class StoredRows:
    """Rows of one or more stores side by side; `places[i]` (U,) says where row u lies in store i."""

    stores: Sequence[VectorStore]
    places: Sequence[Array]

    @property
    def dim(self) -> int:
        """Columns over all stores."""
        return sum(store.dim for store in self.stores)

    def take(self, rows: Array) -> Array:
        """(n, dim) float32."""
        return np.concatenate([s.vectors(p[rows]) for s, p in zip(self.stores, self.places, strict=True)], axis=1)


@dataclass
class FeatureReport:
    """What building the features did: new vectors, found ones, and what was lost to which reason."""

    computed_images: int = 0
    reused_images: int = 0
    computed_texts: int = 0
    reused_texts: int = 0
    truncated_texts: int = 0  # distinct texts whose end did not fit the text backbone's window
    distinct_texts: int = 0
    seconds: float = 0.0
    problems: Counter[str] = field(default_factory=Counter)  # panels or files lost, by code
    examples: dict[str, list[str]] = field(default_factory=dict)

    def note(self, code: str, where: str, n: int = 1) -> None:
        """Count a problem and remember where it was first seen."""
        self.problems[code] += n
        seen = self.examples.setdefault(code, [])
        if len(seen) < EXAMPLES and where not in seen:
            seen.append(where)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**vars(self), "problems": dict(self.problems)}

    def sentence(self) -> str:
        """One line for a terminal."""
        lost = ", ".join(f"{code} {n}" for code, n in sorted(self.problems.items()))
        return (
            f"features: {self.computed_images:,} images computed, {self.reused_images:,} reused; "
            f"{self.computed_texts:,} texts computed, {self.reused_texts:,} reused, "
            f"{self.truncated_texts:,} of {self.distinct_texts:,} truncated; {self.seconds:.1f} s"
            + (f"; lost: {lost}" if lost else "")
        )


@dataclass(frozen=True)
class StoreKeys:
    """What the store knows each row by: content keys, and the name of each backbone's folder without its format."""

    images: Array  # (U,) 16 bytes each
    texts: Array  # (T,)
    text_flags: Array  # (T,) uint8
    image_stores: tuple[str, ...]
    text_store: str


@dataclass
class FeatureSet:
    """Features of every panel of a table.

    Attributes:
        image_rows: (V,) int64 row of each panel's crop, -1 where the panel has no image.
        text_rows: (V,) int64 row of each panel's text, -1 where it has none; identical texts share a row, so this
            is also the text's identity.
        image_sizes: sizes of the parts of an image's feature, in order (several for joined backbones).
        fingerprint: SHA-256 over the backbones and the number format; changes whenever vectors would.
        report: what building them did.
        images, texts: the matrices that the rows point into.
        keys: what the store knows the rows by; None for features made in memory.
    """

    image_rows: Array
    text_rows: Array
    image_sizes: tuple[int, ...]
    fingerprint: str
    report: FeatureReport
    images: Rows
    texts: Rows
    keys: StoreKeys | None = None

    def __len__(self) -> int:
        return len(self.image_rows)

    @property
    def image_dim(self) -> int:
        """Di."""
        return self.images.dim

    @property
    def text_dim(self) -> int:
        """Dt."""
        return self.texts.dim

    def gather(self, rows: Array) -> tuple[Array, Array]:
        """Features of some panels: (n, Di) and (n, Dt) float32, zeros where the modality is absent.

        Args:
            rows: (n,) panels, as rows of the table.
        """
        return _take(self.images, self.image_rows[rows]), _take(self.texts, self.text_rows[rows])

    @classmethod
    def in_memory(
        cls,
        image: Array,
        text: Array,
        *,
        has_image: Array | None = None,
        has_text: Array | None = None,
        text_ids: Array | None = None,
        image_sizes: tuple[int, ...] | None = None,
    ) -> FeatureSet:
        """A feature set from arrays, one row per panel; for tests and synthetic data.

        Args:
            image: (V, Di).
            text: (V, Dt).
            has_image: (V,) bool; all True when left out.
            has_text: (V,) bool; all True when left out.
            text_ids: (V,) identity of each text; panels with equal ids share the first one's vector.
            image_sizes: sizes of the parts of `image`; one part when left out.

        Raises:
            DataError: shapes that do not fit together.
        """
        n = len(image)
        if image.ndim != 2 or text.ndim != 2 or len(text) != n:
            raise DataError(f"image {image.shape} and text {text.shape} must be matrices with one row per panel")
        sizes = image_sizes or (image.shape[1],)
        if sum(sizes) != image.shape[1]:
            raise DataError(f"image_sizes {sizes} add up to {sum(sizes)}, image has {image.shape[1]} columns")
        text_rows = np.arange(n)
        if text_ids is not None:
            _, first, inverse = np.unique(text_ids, return_index=True, return_inverse=True)
            text_rows = first[inverse.ravel()]
        present = [np.ones(n, bool) if p is None else np.asarray(p, bool) for p in (has_image, has_text)]
        image, text = (np.ascontiguousarray(a, dtype=np.float32) for a in (image, text))
        digest = hashlib.sha256(image.tobytes() + text.tobytes() + repr(sizes).encode())
        return cls(
            np.where(present[0], np.arange(n), -1).astype(np.int64),
            np.where(present[1], text_rows, -1).astype(np.int64),
            sizes,
            digest.hexdigest(),
            FeatureReport(),
            ArrayRows(image),
            ArrayRows(text),
        )


def _take(matrix: Rows, rows: Array) -> Array:
    present = rows >= 0
    if present.all():
        return matrix.take(rows)
    out = np.zeros((len(rows), matrix.dim), dtype=np.float32)
    out[present] = matrix.take(rows[present])
    return out


def load_or_build(
    table: PanelTable, config: Config, *, shipped: Path | None = None, progress: bool = True, gone: bool = False
) -> FeatureSet:
    """Features of every panel, from the store where it has them, else computed.

    Interrupted work is continued by the next call; a page whose image is missing or unreadable loses its image
    modality and is counted in the report, which also joins `table.report`.

    Args:
        table: the panels.
        config: names the backbones, the store (`cache_dir`), its number format, batch size and threads.
        shipped: a folder that `export` wrote, looked up first and never written.
        progress: show how far the work is on standard error.
        gone: images that are no longer there count as they were, where the store has their features.

    Raises:
        ConfigError, DataError: a backbone is unknown or not on this machine; a feature does not fit `feature_dtype`.
        StorageError: the store cannot be written.
    """
    start = time.monotonic()
    report = FeatureReport()
    work = building(table, config, shipped=shipped, gone=gone)
    replaced = [p for s in {s.folder: s for s in work.all_stores}.values() for p in _forgotten(s, config)]
    crops = work.images(report, progress)
    texts = work.words(report, progress)
    work.settle(report)
    stores, text_store, vision, text = work.stores, work.text_store, work.vision, work.text
    image_rows, crop_ids, places = _rows(crops.keys, crops.wanted, stores)
    text_rows, text_ids, text_places = _rows(texts.keys, texts.wanted, [text_store])
    flags = text_store.flags(text_places[0])
    report.distinct_texts, report.truncated_texts = len(flags), int(np.count_nonzero(flags))
    for path in replaced:
        _remove(path)
    report.seconds = time.monotonic() - start
    _into(table, report)
    return FeatureSet(
        image_rows,
        text_rows,
        vision.sizes,
        fingerprint_of(vision, text, config.feature_dtype),
        report,
        _matrix(stores, places),
        _matrix([text_store], text_places),
        StoreKeys(crop_ids, text_ids, flags, tuple(stem(p) for p in vision.parts), stem(text)),
    )


def building(
    table: PanelTable,
    config: Config,
    *,
    device: str | None = None,
    shipped: Path | None = None,
    gone: bool = False,
    part: str = "",
    repair: bool = True,
) -> Building:
    """What encodes a table, and its stores; see `Building`.

    Args:
        table: the panels.
        config: as for `load_or_build`.
        device: where the backbones run; None takes that of the settings.
        shipped: as for `load_or_build`.
        gone: as for `load_or_build`.
        part: what one of several processes is called.
        repair: set damaged segments aside.

    Raises:
        ConfigError, DataError: a backbone is unknown or not on this machine.
    """
    where, root = device or usable_device(config.device), Path(config.cache_dir) / "features"
    vision = resolve_vision(config.vision_backbone, where, config.precision, config.crop_fit, root)
    text = resolve_text(config.text_backbone, where, config.precision, root)
    return Building(table, config, vision, text, root, shipped=shipped, gone=gone, part=part, repair=repair)


def absent_features(config: Config) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of an image that is 0 everywhere after preprocessing, (Di,), and of an empty text, (Dt,).

    The original trainer encoded these where a panel has no image or no text; the ablation `residual_leak` does.

    Raises:
        ConfigError, DataError: a backbone is unknown or not on this machine.
    """
    import torch
    from PIL import Image

    device, root = usable_device(config.device), Path(config.cache_dir) / "features"
    vision = resolve_vision(config.vision_backbone, device, config.precision, config.crop_fit, root)
    text = resolve_text(config.text_backbone, device, config.precision, root)
    blanks = [(part, Image.new("RGB", (part.short_side, part.short_side), part.zero_color)) for part in vision.parts]
    return torch.cat([part.encode([blank])[0] for part, blank in blanks]), text.encode([""])[0]


def export(features: FeatureSet, folder: Path) -> list[Path]:
    """Write a small float16 store of exactly these features, to ship with the data; `load_or_build` looks there first.

    Returns:
        The files written, one per backbone.

    Raises:
        DataError: the features were made in memory, so that there is nothing to find them by.
    """
    if features.keys is None:
        raise DataError(f"{folder}: only features from load_or_build can be exported; these were made in memory")
    keys, written = features.keys, []
    edges = np.cumsum((0, *features.image_sizes))
    vectors_of_images = features.images.take(np.arange(len(keys.images)))
    parts = [
        (name, keys.images, np.zeros(len(keys.images), np.uint8), vectors_of_images[:, a:b])
        for name, a, b in zip(keys.image_stores, edges[:-1], edges[1:], strict=True)
    ]
    parts.append((keys.text_store, keys.texts, keys.text_flags, features.texts.take(np.arange(len(keys.texts)))))
    for name, part_keys, flags, vectors in parts:
        path = folder / f"{name}-float16" / f"0000-shipped{SUFFIX}"
        write_segment(path, part_keys, flags, vectors.astype(np.float16))
        written.append(path)
    return written


def usable_device(name: str) -> str:
    """The device of a setting as torch calls it; `auto` is the first GPU, else the CPU.

    Raises:
        ConfigError: there is no such device, or this machine lacks it.
    """
    import torch

    check_value("device", name)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return "cuda" if gpus else "cpu"
    if name != "cpu" and int(name.partition(":")[2] or 0) >= gpus:
        seen = f"{gpus} GPU{'' if gpus == 1 else 's'}" if gpus else "no GPU"
        raise ConfigError(f"device: {name} is not on this machine: torch finds {seen}. Give --device cpu or auto.")
    return name


def _forgotten(store: VectorStore, config: Config) -> list[Path]:
    return store.forget() if config.recompute_features else []


def _rows(keys: Array, wanted: Array, stores: Sequence[VectorStore]) -> tuple[Array, Array, list[Array]]:
    """(V,) rows numbered by first appearance (-1: absent), the key of each row, and its place in every store."""
    distinct, first, inverse = np.unique(keys[wanted], return_index=True, return_inverse=True)
    places = [store.find(distinct) for store in stores]
    there = np.logical_and.reduce([p >= 0 for p in places])
    order = np.flatnonzero(there)[np.argsort(first[there], kind="stable")]
    number = np.full(len(distinct), -1, dtype=np.int64)
    number[order] = np.arange(len(order))
    rows = np.full(len(keys), -1, dtype=np.int64)
    rows[wanted] = number[inverse.ravel()]
    return rows, distinct[order], [p[order] for p in places]


def _matrix(stores: Sequence[VectorStore], places: Sequence[Array]) -> Rows:
    stored = StoredRows(stores, places)
    rows = len(places[0])
    if rows * stored.dim * 4 > IN_MEMORY_BYTES:
        for store in stores:
            store.close_index()
        return stored
    return ArrayRows(stored.take(np.arange(rows)))


def fingerprint_of(vision: VisionBackbone, text: TextBackbone, dtype: str) -> str:
    """What a `FeatureSet` of these backbones and this number format is known by."""
    return sha256(f"{vision.fingerprint} {text.fingerprint} {dtype}".encode())


def _into(table: PanelTable, report: FeatureReport) -> None:
    """Put the losses into the data report; set, not added, so that a second call changes nothing."""
    for code, n in report.problems.items():
        table.report.counts[code] = n
        table.report.examples[code] = list(report.examples[code])
    table.report.facts["features"] = report.to_dict()


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except OSError:  # another process still reads it (Windows); the newer generation wins either way
        return
