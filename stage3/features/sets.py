"""Features of every panel of a table, from the store or from memory, and the report of making them.

Shapes: V panels, U distinct crops, T distinct texts, Di and Dt sizes of an image's and a text's feature.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from stage3.data.remote import redacted
from stage3.errors import DataError
from stage3.features.build import EXAMPLES
from stage3.features.store import Array, VectorStore


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
        seen, where = self.examples.setdefault(code, []), redacted(where)
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
            f"{self.computed_texts:,} texts computed, {self.reused_texts:,} reused"
            + (f", {self.truncated_texts:,} of {self.distinct_texts:,} truncated" if self.distinct_texts else "")
            + f"; {self.seconds:.1f} s"
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
