"""The features of one table on their way into the store: what encodes, where vectors are kept, and in which shards.

Shapes: V panels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from stage3.config import Config
from stage3.data.table import PanelTable
from stage3.features import crops, texts
from stage3.features.backbones import TextBackbone, VisionBackbone
from stage3.features.build import Keys
from stage3.features.page_digests import PageDigests
from stage3.features.sets import FeatureReport
from stage3.features.store import VectorStore


class Building:
    """One table, its backbones and their stores.

    Args:
        table: the panels.
        config: texts, batch size, threads, number format, image limits.
        vision: encodes crops; has a store for each of its parts.
        text: encodes texts.
        root: folder of all stores.
        shipped: a read-only folder of stores that are looked up first.
        gone: images that are no longer there count as they were, for crops that are in the stores.
        part: what one of several processes is called, see `PageDigests`.
        repair: see `VectorStore`.
    """

    def __init__(
        self,
        table: PanelTable,
        config: Config,
        vision: VisionBackbone,
        text: TextBackbone,
        root: Path,
        *,
        shipped: Path | None = None,
        gone: bool = False,
        part: str = "",
        repair: bool = True,
    ) -> None:
        self.table, self.config, self.vision, self.text, self.root = table, config, vision, text, root
        self.texts = texts.Texts(table, config.text_parts)
        self.digests = PageDigests(root, config, gone=gone, part=part)
        builds = _name_of_images(table, config, self.digests.reading), _name_of_texts(self.texts, config)

        def store(backbone: VisionBackbone | TextBackbone, dim: int, build: str) -> VectorStore:
            name = f"{stem(backbone)}-{config.feature_dtype}"
            ships = shipped / name if shipped else None
            return VectorStore(root / name, dim, config.feature_dtype, ships, build=build, repair=repair)

        self.stores = [store(p, p.sizes[0], builds[0]) for p in vision.parts]
        self.text_store = store(text, text.size, builds[1])

    @property
    def all_stores(self) -> list[VectorStore]:
        """One for each part of the image backbone, and that of the texts."""
        return [*self.stores, self.text_store]

    @property
    def image_shards(self) -> int:
        """How many shards the images are."""
        return crops.shards_of(self.table)

    def images(self, report: FeatureReport, progress: bool, shards: Iterable[int] | None = None) -> Keys:
        """Bring the crops of some shards, or of all, into the stores; see `extract_crops`."""
        return crops.extract_crops(
            self.table, self.config, self.vision, self.stores, self.digests, report, progress, shards
        )

    def words(self, report: FeatureReport, progress: bool, shards: Iterable[int] | None = None) -> Keys:
        """Bring the texts of some shards, or of all, into their store; returns the keys of all panels' texts."""
        texts.extract_texts(self.texts, self.config, self.text, self.text_store, report, progress, shards)
        return self.texts.rows

    def image_keys(self, report: FeatureReport, progress: bool) -> Keys:
        """The keys of all crops; nothing is computed."""
        return crops.keys_of(self.table, self.config, self.digests, report, progress)

    def settle(self, report: FeatureReport) -> None:
        """Let the stores find all of it; damaged segments that were met join the report."""
        for store in self.all_stores:
            store.settle()
        self.note_damages(report)

    def note_damages(self, report: FeatureReport) -> None:
        """Put the damaged segments that were met into the report."""
        for what in dict.fromkeys(d for store in self.all_stores for d in store.damaged):
            report.note("features:damaged_segment", what)


def stem(backbone: VisionBackbone | TextBackbone) -> str:
    """How the folder of a backbone's store begins."""
    return backbone.fingerprint[:16]


def _name_of_images(table: PanelTable, config: Config, reading: bytes) -> str:
    """What a build of these pages is called: all that decides which crops there are and what is encoded together."""
    digest = hashlib.blake2b(digest_size=6)
    for part in (
        f"{crops.SHARD_PAGES} {config.feature_batch}".encode(),
        crops.CROP_VERSION,
        reading,
        "\0".join(table.pages["page_id"]).encode("utf-8", "surrogatepass"),
        table.pages["n_panels"].to_numpy(dtype="<i8").tobytes(),
        table.has_box.tobytes(),
        table.panels[["x", "y", "w", "h"]].to_numpy(dtype="<f4").tobytes(),
    ):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return f"i{digest.hexdigest()}"


def _name_of_texts(found: texts.Texts, config: Config) -> str:
    digest = hashlib.blake2b(f"{texts.SHARD_TEXTS} {config.feature_batch} ".encode(), digest_size=6)
    digest.update(found.distinct.tobytes())
    return f"t{digest.hexdigest()}"
