"""Computing the images' features that the store lacks: threads decode pages ahead, crops are encoded in table order.

Three things go on at once: threads look at and decode the pages that come next, the backbone encodes a batch or two,
and finished vectors are kept. On a GPU two batches are under way, so that it never waits for the next one's pixels.

Shapes: V panels, n crops of one batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from stage3.config import Config
from stage3.data import images
from stage3.data.table import PanelTable
from stage3.features.backbones import VisionBackbone
from stage3.features.build import Keys, Noting, bar, fitting, ordered, threads
from stage3.features.page_digests import PageDigests, PageFile
from stage3.features.store import Array, ShardWriter, VectorStore, as_keys, key_of

CROP_VERSION = b"crop-1"  # how a box becomes pixels; a new number makes every crop new
REMARKS = {"truncated": "read_partly", "animated": "first_frame"}  # of a decoded page's info: the code it counts under
SHARD_PAGES = 256  # consecutive pages of a shard


def shards_of(table: PanelTable) -> int:
    """How many shards the images of a table are."""
    return -(-len(table.pages) // SHARD_PAGES)


def extract_crops(
    table: PanelTable,
    config: Config,
    backbone: VisionBackbone,
    stores: Sequence[VectorStore],
    digests: PageDigests,
    report: Noting,
    progress: bool,
    shards: Iterable[int] | None = None,
) -> Keys:
    """Bring the crops of some shards, or of all, into the stores; returns the keys of their panels.

    Args:
        table: the panels.
        config: batch size, threads, image limits.
        backbone: what encodes; `stores` holds one store for each of its parts.
        stores: where vectors are looked up and kept.
        digests: what is known of page files.
        report: counts what was computed and lost.
        progress: show a progress bar.
        shards: numbers of the shards.
    """
    chosen = list(range(shards_of(table)) if shards is None else shards)
    work = _Crops(table, config, backbone, stores, digests, report)
    with threads(config.workers) as pool, bar("images", work.panels(chosen), progress) as work.advance:
        try:
            for shard, page, result in ordered(pool, work.decoded, work.jobs(pool, chosen), config.workers):
                work.take(shard, page, result)
            work.finish()
        finally:
            work.leave()
    return work.keys


def keys_of(table: PanelTable, config: Config, digests: PageDigests, report: Noting, progress: bool) -> Keys:
    """The keys of all crops of a table; files that are new or have changed are read for it, and none is decoded."""
    work = _Crops(table, config, None, (), digests, report)
    shards = range(shards_of(table))
    with threads(config.workers) as pool, bar("page files", work.panels(shards), progress) as advance:
        for number, files in work.looked_at(pool, shards):
            work.keyed(work.pages(number), files)
            advance(work.panels([number]))
    digests.save()
    return work.keys


@dataclass(frozen=True)
class _Decoded:
    """Crops of a page as its backbone wants them, and codes of what is worth a remark about the page."""

    prepared: list[Any]
    remarks: tuple[str, ...]


@dataclass
class _Shard:
    """A shard on its way: what keeps its vectors, and for each part of the backbone the crops of the next batch."""

    writers: list[ShardWriter]
    waiting: list[list[tuple[int, Any]]] = field(default_factory=list)
    lacking: dict[int, Array] = field(default_factory=dict)  # by panel: (parts,) bool, which vectors it lacks


@dataclass(frozen=True)
class _Page:
    """A page to decode: rows of its panels, those of them that are needed."""

    shard: _Shard
    row: int
    panels: Array
    needed: Array


@dataclass(frozen=True)
class _Flying:
    """A batch that is being encoded, or, without keys, the end of a shard."""

    shard: _Shard
    part: int
    keys: Array | None
    vectors: Callable[[], Tensor] | None


class _Crops:
    """The crops of a table on their way into the stores."""

    def __init__(
        self,
        table: PanelTable,
        config: Config,
        backbone: VisionBackbone | None,
        stores: Sequence[VectorStore],
        digests: PageDigests,
        report: Noting,
    ) -> None:
        self.config, self._backbone, self.stores = config, backbone, stores
        self.digests, self.report = digests, report
        self.keys = Keys(len(table))
        self.advance: Callable[[int], None] = lambda n: None
        self._boxes = table.panels[["x", "y", "w", "h"]].to_numpy(dtype="<f4")
        self._has_box = table.has_box
        self._first = table.pages["first_panel"].to_numpy(dtype=np.int64)
        self._count = table.pages["n_panels"].to_numpy(dtype=np.int64)
        self._paths: list[str] = table.pages["image_path"].tolist()
        self._hashes: list[str] = table.pages["image_sha256"].tolist()
        self._open: list[_Shard] = []
        self._flying: deque[_Flying] = deque()

    def panels(self, shards: Sequence[int]) -> int:
        """How many panels with a box the shards hold."""
        return sum(int(self._has_box[self._panels_of(page)].sum()) for shard in shards for page in self.pages(shard))

    @property
    def backbone(self) -> VisionBackbone:
        """What encodes; nothing does where only keys are asked for."""
        assert self._backbone is not None
        return self._backbone

    def pages(self, shard: int) -> range:
        """The pages of a shard, as rows of the table."""
        return range(shard * SHARD_PAGES, min((shard + 1) * SHARD_PAGES, len(self._paths)))

    def _panels_of(self, page: int) -> Array:
        return np.arange(self._first[page], self._first[page] + self._count[page])

    # --- what is to be decoded

    def jobs(self, pool: ThreadPoolExecutor | None, shards: Sequence[int]) -> Iterator[_Page | _Shard]:
        """The pages to decode in order, and after the last page of each shard the shard itself."""
        for number, files in self.looked_at(pool, shards):
            shard = _Shard([ShardWriter(store, number) for store in self.stores], [[] for _ in self.stores])
            self._open.append(shard)
            yield from self._lacking(shard, self.pages(number), files)
            yield shard

    def looked_at(
        self, pool: ThreadPoolExecutor | None, shards: Sequence[int]
    ) -> Iterator[tuple[int, Sequence[PageFile]]]:
        """Each shard with what is known of its files; those of the next one are read meanwhile."""

        def look(page: int) -> PageFile:
            return self.digests.look(self._paths[page], self._hashes[page])

        if pool is None:
            for shard in shards:
                yield shard, [look(page) for page in self.pages(shard)]
            return
        ahead: deque[tuple[int, list[Future[PageFile]]]] = deque()
        for shard in shards:
            ahead.append((shard, [pool.submit(look, page) for page in self.pages(shard)]))
            if len(ahead) > 1:
                number, files = ahead.popleft()
                yield number, [file.result() for file in files]
        for number, files in ahead:
            yield number, [file.result() for file in files]

    def _lacking(self, shard: _Shard, pages: range, files: Sequence[PageFile]) -> Iterator[_Page]:
        """The pages with crops that a store lacks; what is there is counted."""
        jobs = self.keyed(pages, files)
        panels = np.concatenate([p for _, p in jobs] or [np.zeros(0, np.int64)])
        keys = self.keys.keys[panels]
        _, at = np.unique(keys, return_index=True)
        first = np.zeros(len(panels), dtype=bool)
        first[at] = True
        lacking = np.stack(
            [(store.find(keys) < 0) & ~w.holds(keys) for store, w in zip(self.stores, shard.writers, strict=True)]
        )
        need = first & lacking.any(axis=0)
        self.report.reused_images += int(np.count_nonzero(first & ~need))
        self.advance(int(np.count_nonzero(~need)))
        start = 0
        for page, its_panels in jobs:
            needed = np.flatnonzero(need[start : start + len(its_panels)])
            if len(needed):
                shard.lacking |= {int(its_panels[i]): lacking[:, start + i] for i in needed}
                yield _Page(shard, page, its_panels, needed)
            start += len(its_panels)

    def keyed(self, pages: range, files: Sequence[PageFile]) -> list[tuple[int, Array]]:
        """Fill in the keys of some pages' crops; returns (page, its panels), and counts what cannot be read."""
        jobs: list[tuple[int, Array]] = []
        for page, file in zip(pages, files, strict=True):
            panels = self._panels_of(page)
            panels = panels[self._has_box[panels]]
            if file.problem and len(panels):
                if self._paths[page]:  # without a path the table has counted the page already
                    self.report.note(file.problem, self._paths[page])
                self.advance(len(panels))
            elif len(panels):
                for remark in file.remarks:
                    self.report.note(remark, self._paths[page])
                self.keys.keys[panels] = as_keys(
                    [key_of(CROP_VERSION, self.digests.reading, file.digest, self._boxes[p].tobytes()) for p in panels]
                )
                self.keys.wanted[panels] = True
                jobs.append((page, panels))
        return jobs

    def decoded(self, job: _Page | _Shard) -> tuple[_Shard, _Page | None, _Decoded | images.ImageProblem | None]:
        """A page decoded, or why it cannot be; the end of a shard passes through."""
        if isinstance(job, _Shard):
            return job, None, None
        try:
            return job.shard, job, self._decode(job)
        except images.ImageProblem as problem:
            return job.shard, job, problem

    def _decode(self, page: _Page) -> _Decoded:
        # Every box of the page is named, needed or not: the resolution that a page is decoded at depends on the
        # smallest, and must not depend on what happens to be stored already.
        found = images.decode_panels(
            self._paths[page.row],
            self._boxes[page.panels],
            short_side=self.backbone.short_side,
            max_megapixels=self.config.max_megapixels,
            truncated=self.config.truncated_images,
        )
        remarks = tuple(remark for name, remark in REMARKS.items() if found[0].info.get(name))
        return _Decoded([self.backbone.compact(found[i]) for i in page.needed], remarks)

    # --- what is encoded

    def take(self, shard: _Shard, page: _Page | None, result: _Decoded | images.ImageProblem | None) -> None:
        """Encode what has been decoded, as soon as it fills a batch; close a shard that is complete."""
        if page is None:
            for part in range(len(self.stores)):
                self._encode(shard, part)
            self._fly(_Flying(shard, 0, None, None))
            return
        path = self._paths[page.row]
        if isinstance(result, images.ImageProblem):
            self.digests.lost(path, result.code)
            self.report.note(f"image:{result.code}", path)
            self.advance(len(page.needed))
            return
        assert result is not None
        if result.remarks and self.digests.remark(path, result.remarks):
            for remark in result.remarks:
                self.report.note(f"image:{remark}", path)
        for panel, prepared in zip(page.panels[page.needed], result.prepared, strict=True):
            lacking = shard.lacking.pop(int(panel))
            for part in np.flatnonzero(lacking).tolist():
                pixels = prepared[part] if len(self.stores) > 1 else prepared
                shard.waiting[part].append((int(panel), pixels))
                if len(shard.waiting[part]) == self.config.feature_batch:
                    self._encode(shard, part)
            self.report.computed_images += 1
            self.advance(1)

    def _encode(self, shard: _Shard, part: int) -> None:
        batch, shard.waiting[part] = shard.waiting[part], []
        if batch:
            vectors = self.backbone.parts[part].encode_later([pixels for _, pixels in batch])
            self._fly(_Flying(shard, part, self.keys.keys[[panel for panel, _ in batch]], vectors))

    def _fly(self, batch: _Flying) -> None:
        self._flying.append(batch)
        while len(self._flying) > self.backbone.in_flight:
            self._land(self._flying.popleft())

    def _land(self, batch: _Flying) -> None:
        """Keep the vectors of the batch that was sent first, or close the shard that has ended."""
        if batch.keys is not None and batch.vectors is not None:
            store, name = self.stores[batch.part], self.backbone.parts[batch.part].name
            vectors = fitting(batch.vectors().numpy(), store.dtype, name)
            batch.shard.writers[batch.part].add(batch.keys, np.zeros(len(batch.keys), np.uint8), vectors)
            return
        for writer in batch.shard.writers:
            writer.close()
        self._open.remove(batch.shard)
        self.digests.save(every=60.0)

    def finish(self) -> None:
        """Land what is still under way."""
        while self._flying:
            self._land(self._flying.popleft())

    def leave(self) -> None:
        """Keep what is done of shards that were interrupted, and what is known of files."""
        for shard in self._open:
            for writer in shard.writers:
                writer.seal()
        self.digests.save()
