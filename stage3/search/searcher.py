"""Queries of every kind against the panels of a run: a panel, typed words, an image, or an image and words.

Three spaces hold the panels: `image` and `text`, which the alignment loss brings together, and `panel`, the fused
embedding of all that a panel has. A query lies in one of them (or between image and text) and searches one of them.

V panels of the table, N of them in a gallery, D embedding size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from stage3 import metrics
from stage3.batches import IMAGE, TEXT
from stage3.batches.dataset import Dataset
from stage3.config import SPLITS
from stage3.config import nearest as near_name
from stage3.errors import ConfigError, DataError
from stage3.features.backbones import TextBackbone, VisionBackbone, resolve_text, resolve_vision
from stage3.model import embedding
from stage3.model.embedding import Embedded
from stage3.model.mapped import Mapped, embed_mapped, is_large
from stage3.model.objectives import Stage3
from stage3.runs.data import check_features, load_data
from stage3.runs.inspection import describe_panels
from stage3.runs.tuned import backbones_of, seen_by
from stage3.search.approximate import INDICES, Approximate
from stage3.search.index import Index, MappedIndex
from stage3.search.words import WordIndex
from stage3.storage import sha256

if TYPE_CHECKING:
    from stage3.runs import RunFolder

Space = Literal["image", "text", "panel"]
SPACES: tuple[Space, ...] = ("image", "text", "panel")
SPACE_NAMES = {
    "image": "image embedding",
    "text": "text embedding",
    "panel": "fused panel embedding",
    "blend": "blend of an image and a text embedding",
}
MAX_WORDS = 2000  # characters of a typed query
WORD_WAYS = ("words", "word forms", "word parts", "some words")  # how a panel can say a query
TEXT_FILTERS = ("any", "with", "without", "pair")


@dataclass(frozen=True)
class Query:
    """Something to search with.

    Attributes:
        vector: (D,) float32 of norm 1.
        space: where the vector lies: "image", "text", "panel" or "blend".
        said: what it is, in words of our own.
        panel: row of the panel table when the query is a panel of the set.
    """

    vector: Tensor
    space: str
    said: str
    panel: int | None = None


@dataclass(frozen=True)
class Filters:
    """Which panels may be found; an empty tuple lets all through.

    Attributes:
        books: names of books.
        page_types: page types.
        splits: of "train", "val", "test".
        text: "any", "with" or "without" text; "pair": with a text and an image.

    Example:
        >>> bool(Filters()), bool(Filters(books=("book001",)))
        (False, True)
    """

    books: tuple[str, ...] = ()
    page_types: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    text: str = "any"

    def __bool__(self) -> bool:
        return bool(self.books or self.page_types or self.splits or self.text != "any")


@dataclass(frozen=True)
class Results:
    """What a search found.

    Attributes:
        rows: (k,) rows of the panel table, best first.
        scores: (k,) cosines, -1 to 1.
        relations: (k,) what each result is to a panel that asked: "true match" (its own other half), "same text",
            "page mate" or "".
        gallery: number of panels that were searched.
        match_rank: rank of the true match in that gallery, ties counting half and panels of the same text not
            competing, as in the metrics; None when the query has no true match there.
        match_score: its cosine; None likewise.
        compared: which spaces are compared, in words.
        ways: for each result of typed words the ways that found it, with its rank there: "words" (says all of them),
            "word forms" (other forms of them), "word parts" (within longer words), "some words", "text" and "image" (by
            meaning); None otherwise.
        said: number of panels that say all the words, in any form; None where they were not looked up.
        notes: what a reader of the result must know.
    """

    rows: np.ndarray[Any, Any]
    scores: np.ndarray[Any, Any]
    relations: list[str]
    gallery: int
    match_rank: float | None
    match_score: float | None
    compared: str
    ways: list[dict[str, int]] | None = None
    said: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(eq=False)
class Searcher:
    """Search over the panels of one checkpoint. Holds no state between searches; threads may share it.

    Attributes:
        data: the panels.
        model: in eval mode, on the CPU.
        embedded: its embeddings of all usable pages; of many panels mapped from files.
        names: (vision, text) backbones, by which words and uploaded images become features.
        crop_fit: how an uploaded image is fitted to the vision backbone, as the setting says.
        cache: folder that keeps the index of words, and approximate ones, between searches; None keeps it in memory.
        checkpoint: fingerprint of the checkpoint, by which an approximate index is kept; "" keeps none.
        panels: `inspection.describe_panels` of all panels, where the caller holds it; None makes it when it is needed.

    Example:
        >>> from stage3.runs import RunFolder
        >>> searcher = Searcher.of_run(RunFolder.load("data/samples/runs/sample"))
        >>> searcher.search(searcher.from_words("a wizard under water"), "image", 3).gallery
        2100
    """

    data: Dataset
    model: Stage3
    embedded: Embedded | Mapped
    names: tuple[str, str] = ("tiny", "tiny")
    crop_fit: str = "squash"
    cache: Path | None = None
    checkpoint: str = ""
    panels: pd.DataFrame | None = field(default=None, repr=False)
    _backbones: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of_run(
        cls,
        run: RunFolder,
        data: Dataset | None = None,
        *,
        checkpoint: int | None = None,
        cache: Path | str | None = None,
    ) -> Searcher:
        """A searcher of a run's checkpoint (None: the best) over its own data set, or other panels.

        Args:
            run: the run.
            data: other panels; None is the run's own data set.
            checkpoint: step; None is the best.
            cache: where the index of words is kept; None is the run's `cache_dir`.

        Raises:
            DataError: the data cannot be read, or its features come from other backbones than the run's.
            StorageError: the checkpoint does not load.
        """
        with run.threads():
            step = run.checkpoint(checkpoint).step
            model = run.model(step)
            data = data or load_data(run)
            check_features(run, model.encoder.spec, data)
            data, where = seen_by(run, step, data), Path(cache or run.config.cache_dir)
            fingerprint = run.fingerprint(step)
            embedded = embeddings_of(model, fingerprint, data, where)
        return cls(data, model, embedded, backbones_of(run, step), run.config.crop_fit, where, fingerprint)

    # --- what is searched

    @cached_property
    def frame(self) -> pd.DataFrame:
        """`inspection.describe_panels` of all panels."""
        return describe_panels(self.data, self.model.config.text_parts) if self.panels is None else self.panels

    def described(self, rows: np.ndarray[Any, Any]) -> pd.DataFrame:
        """Some rows of `frame`; the others are not made."""
        return describe_panels(self.data, self.model.config.text_parts, rows)

    @cached_property
    def words(self) -> WordIndex:
        """The index of the words in the panels' texts, opened or made with the first words.

        Raises:
            DataError: this Python's SQLite has no full-text search.
        """
        return WordIndex(self.data.table, self.cache)

    @cached_property
    def position(self) -> np.ndarray[Any, Any]:
        """(V,) int64 position of each panel in `embedded`, -1 where it has none."""
        found = np.full(len(self.data.table), -1, np.int64)
        found[self.embedded.rows.numpy()] = np.arange(len(self.embedded.rows))
        return found

    @cached_property
    def _galleries(self) -> dict[str, tuple[Index | MappedIndex, np.ndarray[Any, Any]]]:
        return {}

    @cached_property
    def _approximate(self) -> dict[str, Approximate]:
        return {}

    def gallery(self, space: Space) -> tuple[Index | MappedIndex, np.ndarray[Any, Any]]:
        """The index of a space and (N,) the panel rows behind it: only panels that have the modality."""
        if space not in self._galleries:
            if isinstance(self.embedded, Mapped):
                assert self.cache is not None
                embed_mapped(self.model, self.checkpoint, self.data, self.cache, (space,))  # where it is not there yet
                self._galleries[space] = MappedIndex(self.embedded.open(space)), self.embedded.rows_of(space)
            else:
                at = torch.arange(len(self.embedded.rows))
                if space != "panel":
                    at = self.embedded.present[:, IMAGE if space == "image" else TEXT].nonzero()[:, 0]
                vectors = {"image": self.embedded.image, "text": self.embedded.text, "panel": self.embedded.panel}
                self._galleries[space] = Index.of(vectors[space][at]), self.embedded.rows[at].numpy()
        return self._galleries[space]

    def approximate(self, space: Space) -> Approximate:
        """The approximate index of a space, read from the cache or made with the first search that wants it.

        Raises:
            ConfigError: FAISS is not installed.
        """
        if space not in self._approximate:
            known = {"checkpoint": self.checkpoint, "table": self.data.table.fingerprint(), "space": space}
            known |= {"features": self.data.features.fingerprint, "layout": self.data.layout}
            exact, rows = self.gallery(space)
            known["panels"] = sha256(rows.tobytes())
            identity = known if self.checkpoint else {}
            self._approximate[space] = Approximate.open(exact, self.cache, identity)
        return self._approximate[space]

    @cached_property
    def _codes(self) -> dict[str, tuple[np.ndarray[Any, Any], dict[str, int]]]:
        """Columns that are filtered by, as numbers: comparing 100,000 strings takes longer than searching."""
        out = {}
        table = self.data.table
        split = pd.Series(pd.array(SPLITS, dtype="str")[self.data.split])
        columns = {"book": table.pages["book_id"], "page_type": table.pages["page_type"], "split": split}
        for column, of_page in columns.items():
            codes, names = pd.factorize(of_page)
            out[column] = (codes[table.page_of_panel], {str(n): i for i, n in enumerate(names)})
        return out

    def choices(self, column: str) -> list[str]:
        """The values that "book", "page_type" or "split" takes, in order of first appearance."""
        return list(self._codes[column][1])

    def allowed(self, filters: Filters) -> np.ndarray[Any, Any]:
        """(V,) bool: the panels that the filters let through.

        Raises:
            DataError: a value that no panel has.
        """
        mask = np.ones(len(self.data.table), bool)
        for column, wanted in (
            ("book", filters.books),
            ("page_type", filters.page_types),
            ("split", filters.splits),
        ):
            if not wanted:
                continue
            codes, numbers = self._codes[column]
            unknown = next((w for w in wanted if w not in numbers), None)
            if unknown is not None:
                raise DataError(f"no panel has the {column.replace('_', ' ')} {unknown!r}")
            keep = np.zeros(len(numbers) + 1, bool)
            keep[[numbers[w] for w in wanted]] = True
            mask &= keep[codes]
        if filters.text not in TEXT_FILTERS:
            raise DataError(f"text: {filters.text!r} is not one of {', '.join(TEXT_FILTERS)}")
        present = self.data.panel_set.present
        if filters.text != "any":
            mask &= present[:, TEXT] == (filters.text != "without")
        if filters.text == "pair":
            mask &= present[:, IMAGE]
        return mask

    # --- queries

    def spaces_of(self, row: int) -> tuple[Space, ...]:
        """The spaces in which a panel can be a query."""
        if not 0 <= row < len(self.position) or self.position[row] < 0:
            return ()
        present = self.embedded.present[int(self.position[row])]
        has = {"image": bool(present[IMAGE]), "text": bool(present[TEXT]), "panel": True}
        return tuple(s for s in SPACES if has[s])

    def from_panel(self, row: int, space: Space) -> Query:
        """A panel of the set as the query.

        Raises:
            DataError: no such panel, or it lacks the modality.
        """
        if space not in self.spaces_of(row):
            there = 0 <= row < len(self.position)
            raise DataError(f"panel {row} has no {space}" if there else f"there is no panel {row}")
        index, rows = self.gallery(space)
        vector = F.normalize(torch.from_numpy(index.rows_at(np.searchsorted(rows, [row])))[0], dim=0)
        return Query(vector, space, f"the {SPACE_NAMES[space]} of panel {row}", row)

    def from_words(self, words: str) -> Query:
        """Typed words: text backbone, then the model's text adapter.

        Raises:
            DataError: nothing but white space, or more than `MAX_WORDS` characters.
        """
        checked_words(words)
        features = self.text_backbone.encode([words])
        return self._encoded(features, "text", "the words that were typed")

    def from_image(self, image: Image.Image) -> Query:
        """An image that need not be of the set: vision backbone, then the model's image adapter."""
        features = self.vision_backbone.encode([image.convert("RGB")])
        return self._encoded(features, "image", "the image that was given")

    def blend(self, image: Query, words: Query, weight: float) -> Query:
        """An image and words together: the normalized (1 - weight) * image + weight * words.

        Args:
            image: a query in the image space.
            words: a query in the text space.
            weight: of the words, 0 to 1; 0 is the image alone, 1 the words alone.

        Raises:
            DataError: a weight or space that is none of these, or two opposite vectors that cancel out.
        """
        if not 0 <= weight <= 1:
            raise DataError(f"the blend must be from 0 (image) to 1 (words), not {weight}")
        if (image.space, words.space) != ("image", "text"):
            raise DataError(f"a blend takes an image and words, not {image.space} and {words.space}")
        mixed = (1 - weight) * image.vector + weight * words.vector
        if float(mixed.norm()) < 1e-6:
            raise DataError("image and words cancel out; change the blend")
        said = f"{1 - weight:.0%} image and {weight:.0%} words"
        return Query(F.normalize(mixed, dim=0), "blend", said)

    @property
    def text_backbone(self) -> TextBackbone:
        """The run's text backbone; its weights load with the first words."""
        if "text" not in self._backbones:
            self._backbones["text"] = resolve_text(self.names[1])
        found: TextBackbone = self._backbones["text"]
        return found

    @property
    def vision_backbone(self) -> VisionBackbone:
        """The run's vision backbone; its weights load with the first image."""
        if "vision" not in self._backbones:
            self._backbones["vision"] = resolve_vision(self.names[0], crop_fit=self.crop_fit)
        found: VisionBackbone = self._backbones["vision"]
        return found

    def _encoded(self, features: Tensor, space: str, said: str) -> Query:
        encoder = self.model.encoder
        dtype = torch.float16 if self.model.config.feature_dtype == "float16" else torch.float32
        with torch.inference_mode():  # rounded as the store rounds what training reads
            vector = (encoder.text if space == "text" else encoder.vision)(features.to(dtype).float())[0]
        return Query(F.normalize(vector.clone(), dim=0), space, said)

    # --- searching

    def search(
        self, query: Query, target: Space, k: int = 10, filters: Filters | None = None, index: str = "exact"
    ) -> Results:
        """The k panels of the target space nearest to the query by cosine, best first, ties by row.

        A panel does not find itself within one space; across spaces it is its own true match and stays.

        Args:
            query: what to search with.
            target: the space.
            k: how many panels.
            filters: which panels may be found.
            index: "exact", or "faiss" for an approximate index, whose recall is among the notes.

        Raises:
            ConfigError: another index, or one whose package is not installed.
            DataError: a filter names what no panel has.
        """
        if index not in INDICES:
            raise ConfigError(f"index: {index!r} is not one of {', '.join(INDICES)}.{near_name(index, INDICES)}")
        exact, rows = self.gallery(target)
        by = self.approximate(target) if index == "faiss" and len(rows) else exact
        allowed = self.allowed(filters)[rows] if filters else None
        own = self._own(query, rows)
        within = query.space == target
        exclude = np.array([own]) if within and own >= 0 else None
        vector = query.vector[None]
        hits = by.search(vector, k, allowed=allowed, exclude=exclude)
        found = hits.rows[0][hits.rows[0] >= 0]
        size = len(rows) if allowed is None else int(allowed.sum())
        if own >= 0 and within and (allowed is None or allowed[own]):
            size -= 1
        rank = score = None
        if own >= 0 and not within and (allowed is None or allowed[own]):
            scores = exact.scores_around(query.vector, own)
            rank, score = self._rank(scores, own, rows, allowed), float(scores[own])
        return Results(
            rows[found],
            hits.scores[0][: len(found)],
            self._relations(query, rows[found], within),
            size,
            rank,
            score,
            compared(query.space, target),
            notes=(by.note(),) if isinstance(by, Approximate) else (),
        )

    def _own(self, query: Query, rows: np.ndarray[Any, Any]) -> int:
        """Place of the asking panel in a gallery, -1 when it is not in it."""
        if query.panel is None:
            return -1
        at = int(np.searchsorted(rows, query.panel))
        return at if at < len(rows) and rows[at] == query.panel else -1

    def _rank(
        self, scores: Tensor, own: int, rows: np.ndarray[Any, Any], allowed: np.ndarray[Any, Any] | None
    ) -> float:
        ids = self.data.features.text_rows[rows]
        rivals = (ids != ids[own]) | (ids < 0)
        rivals[own] = False
        if allowed is not None:
            rivals &= allowed
        ahead = (scores - scores[own]).numpy()[rivals]
        return float(1 + (ahead > metrics.TIE).sum() + 0.5 * (np.abs(ahead) <= metrics.TIE).sum())

    def _relations(self, query: Query, rows: np.ndarray[Any, Any], within: bool) -> list[str]:
        if query.panel is None:
            return [""] * len(rows)
        ids, page = self.data.features.text_rows, self.data.table.page_of_panel
        me = query.panel
        out = []
        for row in rows:
            if row == me and not within:
                out.append("true match")
            elif ids[row] == ids[me] and ids[me] >= 0:
                out.append("same text")
            else:
                out.append("page mate" if page[row] == page[me] else "")
        return out


def embeddings_of(model: Stage3, fingerprint: str, data: Dataset, cache: Path) -> Embedded | Mapped:
    """The embeddings of all panels: in memory, or in files of the cache where there are many."""
    if is_large(data, model.encoder.spec.dim):
        return embed_mapped(model, fingerprint, data, cache, ("image", "text"))
    return embedding.embed(model, data.panel_set, data.pages("all"))


def checked_words(words: str) -> None:
    """Refuse typed words that no search takes.

    Raises:
        DataError: nothing but white space, or more than `MAX_WORDS` characters.
    """
    if len(words) > MAX_WORDS:
        raise DataError(f"the query has {len(words):,} characters; at most {MAX_WORDS:,} are allowed. Shorten it.")
    if not words.strip():
        raise DataError("the query is empty: type some words")


def compared(space: str, target: str) -> str:
    """Which spaces a search compares and what that is worth, in words.

    >>> compared("text", "text")
    'text embedding against text embeddings: one space'
    """
    what = f"{SPACE_NAMES[space]} against {SPACE_NAMES[target]}s"
    if space == target:
        return f"{what}: one space"
    if space == "blend":
        fused = target == "panel"
        return f"{what}: " + ("no loss brings these together" if fused else "half of it is from the other space")
    if "panel" in (space, target):
        seen = space if target == "panel" else target
        return f"{what}: no loss brings these together, and a fused embedding has seen its own panel's {seen}"
    return f"{what}: pairs that the alignment loss brings together"
