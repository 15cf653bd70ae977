"""Computing the texts' features that the store lacks.

Shapes: V panels, n texts.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack

import numpy as np

from stage3.config import Config
from stage3.data.table import PanelTable
from stage3.features.backbones import TextBackbone, clean_text
from stage3.features.build import Keys, Noting, bar, fitting
from stage3.features.store import KEY_BYTES, Array, ShardWriter, VectorStore, key_of

SHARD_TEXTS = 8192  # distinct texts of a shard, about


class Texts:
    """The distinct texts of a table, in shards.

    Attributes:
        rows: key of each panel's text; texts that are empty after cleaning have none.
        distinct: (n,) the keys, sorted.
        shard_of: (n,) the shard of each; it follows from the key and from how many there are.
        shards: how many shards there are.
    """

    def __init__(self, table: PanelTable, text_parts: str) -> None:
        self._table, self._text_parts = table, text_parts
        self.rows = Keys(len(table))
        lengths = np.zeros(len(table), dtype=np.int64)
        for part in table.parts():
            for i, text in zip(part.tolist(), table.texts(text_parts, part), strict=True):
                cleaned = clean_text(text)[0]
                if cleaned:
                    self.rows.keys[i], self.rows.wanted[i] = key_of(cleaned.encode()), True
                    lengths[i] = len(cleaned)
        there = np.flatnonzero(self.rows.wanted)
        self.distinct, first = np.unique(self.rows.keys[there], return_index=True)
        self._first = there[first]  # a panel that says it
        self._lengths = lengths[self._first]
        self.shards = -(-len(self.distinct) // SHARD_TEXTS)
        head = self.distinct.view(np.uint8).reshape(-1, KEY_BYTES)[:, :4].copy().view("<u4").reshape(-1)
        self.shard_of = head % max(self.shards, 1)

    def of(self, shard: int) -> Array:
        """(m,) the texts of a shard as positions in `distinct`; alike lengths together, for little padding."""
        mine = np.flatnonzero(self.shard_of == shard)
        return mine[np.lexsort((self.distinct[mine], self._lengths[mine]))]

    def cleaned(self, chosen: Array) -> list[tuple[str, bool]]:
        """Some of the distinct texts as their backbone reads them, and whether the end of each was cut."""
        return [clean_text(text) for text in self._table.texts(self._text_parts, self._first[chosen])]


def extract_texts(
    texts: Texts,
    config: Config,
    backbone: TextBackbone,
    store: VectorStore,
    report: Noting,
    progress: bool,
    shards: Iterable[int] | None = None,
) -> None:
    """Bring the texts of some shards, or of all, into the store."""
    chosen = range(texts.shards) if shards is None else list(shards)
    total = int(np.isin(texts.shard_of, np.array(chosen, dtype=np.int64)).sum())
    with bar("texts", total, progress) as advance:
        for shard in chosen:
            rows = texts.of(shard)
            lacking = rows[store.find(texts.distinct[rows]) < 0]
            writer = ShardWriter(store, shard)
            lacking = lacking[~writer.holds(texts.distinct[lacking])]
            report.reused_texts += len(rows) - len(lacking)
            advance(len(rows) - len(lacking))
            with ExitStack() as left:
                left.callback(writer.seal)  # also when it is interrupted
                for start in range(0, len(lacking), config.feature_batch):
                    batch = lacking[start : start + config.feature_batch]
                    cleaned = texts.cleaned(batch)
                    vectors, cut = backbone.encode_counted([text for text, _ in cleaned])
                    flags = np.array([a or b for a, (_, b) in zip(cut, cleaned, strict=True)], dtype=np.uint8)
                    writer.add(texts.distinct[batch], flags, fitting(vectors.numpy(), store.dtype, backbone.name))
                    report.computed_texts += len(batch)
                    advance(len(batch))
                writer.close()
