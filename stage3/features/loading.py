"""Features of a table from the store, and what brings in those that it lacks.

Shapes: V panels, U distinct crops, Di and Dt sizes of an image's and a text's feature.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stage3.config import Config, check_value
from stage3.data.table import PanelTable
from stage3.errors import ConfigError, DataError
from stage3.features.backbones import TextBackbone, VisionBackbone, resolve_text, resolve_vision
from stage3.features.building import Building, stem
from stage3.features.sets import ArrayRows, FeatureReport, FeatureSet, Rows, StoredRows, StoreKeys
from stage3.features.store import SUFFIX, Array, VectorStore, write_segment
from stage3.storage import sha256

if TYPE_CHECKING:
    import torch

# Read by cuBLAS, and by torch, at the first product on a GPU: so it is set where a GPU is chosen. With it products of
# equal inputs are equal bit for bit, which training relies on.
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
IN_MEMORY_BYTES = 256 * 2**20  # smaller sets are read into memory whole: gathering from there is quickest


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
    work = opened(table, config, shipped=shipped, gone=gone)
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


def opened(
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
        name = "cuda" if gpus else "cpu"
    if name != "cpu" and int(name.partition(":")[2] or 0) >= gpus:
        seen = f"{gpus} GPU{'' if gpus == 1 else 's'}" if gpus else "no GPU"
        raise ConfigError(f"device: {name} is not on this machine: torch finds {seen}. Give --device cpu or auto.")
    if name != "cpu" and not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        os.environ.setdefault(WORKSPACE, ":4096:8")
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
