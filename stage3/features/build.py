"""Computing features that the store lacks: pages are decoded by threads, crops and texts encoded in a fixed order.

What is encoded together depends on the table alone, never on threads or on how often the work was interrupted:
vectors that an interrupted build and its continuation leave are those of one that ran through.

Shapes: V panels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from stage3 import cli
from stage3.config import Config
from stage3.data import images
from stage3.data.table import PanelTable
from stage3.errors import DataError
from stage3.features.backbones import TextBackbone, VisionBackbone, clean_text
from stage3.features.page_digests import PageDigests
from stage3.features.store import KEY_BYTES, Array, VectorStore, as_keys, key_of

EXAMPLES = 20  # paths kept of each kind of problem
CROP_VERSION = b"crop-1"  # how a box becomes pixels; a new number makes every crop new
REMARKS = {"truncated": "read_partly", "animated": "first_frame"}  # of a decoded page's info: the code it counts under
SHARD_PAGES = 1024  # pages whose files are hashed, then decoded while the system still has them in memory


class Noting(Protocol):
    """The part of `features.FeatureReport` that building fills in."""

    computed_images: int
    reused_images: int
    computed_texts: int
    reused_texts: int

    def note(self, code: str, where: str, n: int = 1) -> None:
        """Count a problem."""


class Crops:
    """Content keys of all crops of a table, filled shard by shard.

    Attributes:
        keys: (V,) 16-byte keys.
        wanted: (V,) bool; panels that have a key: a box, and a page file that could be read.
    """

    def __init__(self, n: int) -> None:
        self.keys = np.zeros(n, dtype=f"S{KEY_BYTES}")
        self.wanted = np.zeros(n, dtype=bool)


def extract_crops(
    table: PanelTable,
    config: Config,
    backbone: VisionBackbone,
    stores: Sequence[VectorStore],
    root: Path,
    report: Noting,
    progress: bool,
    *,
    gone: bool = False,
) -> Crops:
    """Bring every crop of the table into the stores; returns their keys.

    Args:
        table: the panels.
        config: batch size, threads, image limits.
        backbone: what encodes; `stores` holds one store for each of its parts.
        stores: where vectors are looked up and kept.
        root: the folder of the page digests.
        report: counts what was computed and lost.
        progress: show a progress bar.
        gone: images that are no longer there count as they were, for crops that are in the stores.
    """
    crops = Crops(len(table))
    digests = PageDigests(root, config, gone=gone)
    boxes = table.panels[["x", "y", "w", "h"]].to_numpy(dtype="<f4")
    has_box = table.has_box
    first = table.pages["first_panel"].to_numpy(dtype=np.int64)
    count = table.pages["n_panels"].to_numpy(dtype=np.int64)
    paths = table.pages["image_path"].tolist()
    hashes = table.pages["image_sha256"].tolist()
    with _pool(config.workers) as pool, _bar("images", int(has_box.sum()), progress) as advance:
        try:
            for start in range(0, len(paths), SHARD_PAGES):
                pages = range(start, min(start + SHARD_PAGES, len(paths)))
                known = list(ordered(pool, lambda p: digests.look(paths[p], hashes[p]), pages, config.workers))
                jobs: list[tuple[int, Array]] = []
                for page, file in zip(pages, known, strict=True):
                    panels = np.arange(first[page], first[page] + count[page])
                    panels = panels[has_box[panels]]
                    if file.problem and len(panels):
                        if paths[page]:  # without a path the table has counted the page already
                            report.note(file.problem, paths[page])
                        advance(len(panels))
                    elif len(panels):
                        for remark in file.remarks:
                            report.note(remark, paths[page])
                        crops.keys[panels] = as_keys(
                            [key_of(CROP_VERSION, digests.reading, file.digest, boxes[p].tobytes()) for p in panels]
                        )
                        crops.wanted[panels] = True
                        jobs.append((page, panels))
                work = _Shard(config, backbone, stores, crops, report, advance)
                work.run(pool, jobs, paths, boxes, digests)
                digests.save(every=60.0)
        finally:
            for store in stores:
                store.seal()
            digests.save()
    return crops


@dataclass(frozen=True)
class _Decoded:
    """Crops of a page as its backbone wants them, and codes of what is worth a remark about the page."""

    prepared: list[Any]
    remarks: tuple[str, ...]


class _Shard:
    """The missing crops of some pages: decoded ahead by threads, encoded in table order."""

    def __init__(
        self,
        config: Config,
        backbone: VisionBackbone,
        stores: Sequence[VectorStore],
        crops: Crops,
        report: Noting,
        advance: Callable[[int], None],
    ) -> None:
        self.config, self.backbone, self.stores = config, backbone, stores
        self.crops, self.report, self.advance = crops, report, advance

    def run(
        self,
        pool: ThreadPoolExecutor | None,
        jobs: Sequence[tuple[int, Array]],
        paths: Sequence[str],
        boxes: Array,
        digests: PageDigests,
    ) -> None:
        """Decode and encode what no store has; a page that cannot be decoded loses its crops."""
        panels = np.concatenate([p for _, p in jobs] or [np.zeros(0, np.int64)])
        _, first = np.unique(self.crops.keys[panels], return_index=True)
        position = np.full(len(panels), -1, dtype=np.int64)  # among the distinct crops of the shard, in table order
        position[np.sort(first)] = np.arange(len(first))
        lacking = np.stack([store.find(self.crops.keys[panels]) < 0 for store in self.stores])
        need = (position >= 0) & lacking.any(axis=0)
        self.report.reused_images += int(np.count_nonzero((position >= 0) & ~need))
        self.advance(int(np.count_nonzero(~need)))
        batch: list[tuple[int, Any]] = []
        at, todo = 0, []
        for page, its_panels in jobs:
            chosen = np.flatnonzero(need[at : at + len(its_panels)])
            if len(chosen):
                todo.append((page, its_panels, chosen, chosen + at))
            at += len(its_panels)

        def decode(job: tuple[int, Array, Array, Array]) -> tuple[int, Array, _Decoded | images.ImageProblem]:
            page, its_panels, chosen, mine = job
            try:
                return page, mine, self._decode(paths[page], boxes[its_panels], chosen)
            except images.ImageProblem as problem:
                return page, mine, problem

        for page, mine, result in ordered(pool, decode, todo, self.config.workers):
            if isinstance(result, images.ImageProblem):
                digests.lost(paths[page], result.code)
                self.report.note(f"image:{result.code}", paths[page])
                self.advance(len(mine))
                continue
            if result.remarks and digests.remark(paths[page], result.remarks):
                for remark in result.remarks:
                    self.report.note(f"image:{remark}", paths[page])
            for row, prepared in zip(mine, result.prepared, strict=True):
                if (
                    batch
                    and position[row] // self.config.feature_batch != position[batch[0][0]] // self.config.feature_batch
                ):
                    self._encode(batch, panels, lacking)
                    batch = []
                batch.append((int(row), prepared))
        self._encode(batch, panels, lacking)

    def _decode(self, path: str, boxes: Array, chosen: Array) -> _Decoded:
        # Every box of the page is named, needed or not: the resolution that a page is decoded at depends on the
        # smallest, and must not depend on what happens to be stored already.
        found = images.decode_panels(
            Path(path),
            boxes,
            short_side=self.backbone.short_side,
            max_megapixels=self.config.max_megapixels,
            truncated=self.config.truncated_images,
        )
        remarks = tuple(remark for name, remark in REMARKS.items() if found[0].info.get(name))
        return _Decoded([self.backbone.prepare(found[i]) for i in chosen], remarks)

    def _encode(self, batch: Sequence[tuple[int, Any]], panels: Array, lacking: Array) -> None:
        parts = self.backbone.parts
        for i, (part, store) in enumerate(zip(parts, self.stores, strict=True)):
            chosen = [(row, p[i] if len(parts) > 1 else p) for row, p in batch if lacking[i, row]]
            if chosen:
                vectors = part.encode_prepared([p for _, p in chosen]).numpy()
                keys = self.crops.keys[panels[[row for row, _ in chosen]]]
                store.add(keys, np.zeros(len(keys), np.uint8), fitting(vectors, store.dtype, part.name))
        self.report.computed_images += len(batch)
        self.advance(len(batch))


def extract_texts(
    texts: Sequence[str], config: Config, backbone: TextBackbone, store: VectorStore, report: Noting, progress: bool
) -> Crops:
    """Bring every text into the store; returns their keys. Texts that are empty after cleaning have none."""
    rows = Crops(len(texts))
    lengths = np.zeros(len(texts), dtype=np.int64)
    for i, text in enumerate(texts):
        cleaned = clean_text(text)[0]
        if cleaned:
            rows.keys[i], rows.wanted[i], lengths[i] = key_of(cleaned.encode()), True, len(cleaned)
    there = np.flatnonzero(rows.wanted)
    distinct, first = np.unique(rows.keys[there], return_index=True)
    order = np.lexsort(
        (distinct, lengths[there[first]])
    )  # alike lengths together: little padding, and the same batches every time
    missing = store.find(distinct) < 0
    report.reused_texts += int(np.count_nonzero(~missing))
    with _bar("texts", len(distinct), progress) as advance:
        try:
            for start in range(0, len(order), config.feature_batch):
                batch = order[start : start + config.feature_batch]
                advance(len(batch))
                batch = batch[missing[batch]]
                if len(batch):
                    chosen = [clean_text(texts[there[first[i]]]) for i in batch]
                    vectors, cut = backbone.encode_counted([t for t, _ in chosen])
                    flags = np.array([a or b for a, (_, b) in zip(cut, chosen, strict=True)], dtype=np.uint8)
                    store.add(distinct[batch], flags, fitting(vectors.numpy(), store.dtype, backbone.name))
                    report.computed_texts += len(batch)
        finally:
            store.seal()
    return rows


def fitting(vectors: Array, dtype: str, name: str) -> Array:
    """The vectors, if all their numbers are finite and stay so in the store's format."""
    if not np.isfinite(vectors).all():
        raise DataError(f"backbone {name}: its features are not finite; check its weights and the precision")
    if np.abs(vectors).max(initial=0.0) > np.finfo(dtype).max:
        raise DataError(f"backbone {name}: features up to {np.abs(vectors).max():.3g}; set feature_dtype to float32")
    return vectors


def ordered(
    pool: ThreadPoolExecutor | None, work: Callable[[Any], Any], jobs: Iterable[Any], workers: int
) -> Iterator[Any]:
    """Results in the order of the jobs; at most a few jobs per thread are ahead of the reader."""
    if pool is None:
        yield from map(work, jobs)
        return
    ahead: deque[Future[Any]] = deque()
    try:
        for job in jobs:
            ahead.append(pool.submit(work, job))
            if len(ahead) > 4 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        for future in ahead:
            future.cancel()


@contextmanager
def _pool(workers: int) -> Iterator[ThreadPoolExecutor | None]:
    if not workers:
        yield None
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        yield pool


@contextmanager
def _bar(what: str, total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    if not shown or not total:
        yield lambda n: None
        return
    with cli.progress(what, total) as bar:
        yield bar.advance
