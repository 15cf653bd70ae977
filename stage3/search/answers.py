"""Questions in a person's words and their answers: what `python -m stage3.search` and `Run.search` share."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from stage3.cli import counted
from stage3.config import nearest
from stage3.data import images
from stage3.errors import ConfigError, DataError
from stage3.search.approximate import INDICES, check_installed
from stage3.search.fusion import WORD_TARGETS, Words, WordTarget, search_words
from stage3.search.searcher import SPACES, WORD_WAYS, Filters, Query, Results, Searcher, Space

MAX_TOP = 1000
MAX_BYTES = 20 * 2**20  # of an image that is the query


@dataclass(frozen=True)
class Answer:
    """What one query found.

    Attributes:
        query: what was asked.
        target: the space that was searched, "words", or "all" of words, texts and images.
        results: what a searcher says of it.
        frame: the results as a table, best first: rank, score, relation, panel (row of the panel table), panel_id,
            page_id, book, page_type, split, order, text, has_image, has_text; of typed words also found_by, words_rank,
            text_rank and image_rank.
    """

    query: Query | Words
    target: Space | WordTarget
    results: Results
    frame: pd.DataFrame

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "query": self.query.said,
            "from": self.query.space,
            "to": self.target,
            "compared": self.results.compared,
            "gallery": self.results.gallery,
            "match_rank": self.results.match_rank,
            "said": self.results.said,
            "notes": list(self.results.notes),
            "results": to_json_rows(self.frame),
        }


def answers(
    searcher: Searcher,
    *,
    text: str | None = None,
    image: Path | str | Image.Image | None = None,
    panel: int | str | None = None,
    blend: float = 0.5,
    target: Space | WordTarget | None = None,
    top: int = 10,
    filters: Filters | None = None,
    index: str = "exact",
) -> list[Answer]:
    """The panels nearest to words, to an image, to both, or to a panel, which is asked in both directions.

    Args:
        searcher: of a run.
        text: words.
        image: an image or its file; with `text` the two are blended.
        panel: id of a panel (page#index) or row of the panel table.
        blend: weight of the words, 0 to 1.
        target: what is searched, "image", "text" or "panel"; for words alone also "words" (panels that say them) or
            "all" (words, texts and images fused). None takes "all" for words, else the other modality.
        top: how many panels, 1 to `MAX_TOP`.
        filters: which panels may be found.
        index: "exact", or "faiss" for an approximate index; see `stage3.search.approximate`.

    Raises:
        ConfigError: no query or more than one; a number out of range; an index that is not installed.
        DataError: an unknown panel, an unreadable image, empty words, or a filter that no panel passes.
    """
    if index not in INDICES:
        raise ConfigError(f"index: {index!r} is not one of {', '.join(INDICES)}.{nearest(index, INDICES)}")
    if index == "faiss":
        check_installed()
    named = [name for name, value in (("text", text), ("image", image), ("panel", panel)) if value is not None]
    if not named or ("panel" in named and len(named) > 1):
        raise ConfigError("give one query: --text WORDS, --image FILE, both of these, or --panel ID")
    targets = (*SPACES, *WORD_TARGETS)
    if target is not None and target not in targets:
        raise ConfigError(f"target: {target!r} is not one of {', '.join(targets)}.{nearest(str(target), targets)}")
    if target in WORD_TARGETS and named != ["text"]:
        raise ConfigError(f"target: {target} takes words alone; give only --text, or another --target")
    if not 1 <= top <= MAX_TOP:
        raise ConfigError(f"top: {top} is not between 1 and {MAX_TOP}")
    if not 0 <= blend <= 1:
        raise ConfigError(f"blend: {blend} is not between 0 (image) and 1 (words)")
    if text is not None and image is None and (target is None or target in WORD_TARGETS):
        return [_word_answer(searcher, text, target or "all", top, filters, index)]
    asked = next((space for space in SPACES if space == target), None)
    if panel is not None:
        queries = _both_ways(searcher, _panel_row(searcher, panel), asked)
    else:
        words = searcher.from_words(text) if text is not None else None
        shown = searcher.from_image(_opened(image)) if image is not None else None
        queries = [_one_way(searcher, words, shown, blend, asked)]
    found = []
    for query, space in queries:
        results = searcher.search(query, space, top, filters, index)
        _check_any(searcher, results, filters, "an image" if space == "image" else "text")
        found.append(Answer(query, space, results, result_frame(searcher, results)))
    return found


def _word_answer(
    searcher: Searcher, text: str, target: WordTarget, top: int, filters: Filters | None, index: str
) -> Answer:
    results = search_words(searcher, text, target, top, filters, index)
    _check_any(searcher, results, filters, "text" if target == "words" else "text or an image")
    return Answer(Words(text), target, results, result_frame(searcher, results))


def _check_any(searcher: Searcher, results: Results, filters: Filters | None, needed: str) -> None:
    if not results.gallery:
        lack = "passes the filters" if filters else f"has {needed}"
        raise DataError(
            f"there is nothing to search: no other panel of {len(searcher.data.table):,} {lack}. "
            "Choose another --target or other filters, or look at the data with `stage3 data check`."
        )


def _both_ways(searcher: Searcher, row: int, target: Space | None) -> list[tuple[Query, Space]]:
    own = [space for space in searcher.spaces_of(row) if space != "panel"]
    other: dict[Space, Space] = {"image": "text", "text": "image"}
    asked = [(searcher.from_panel(row, space), target or other[space]) for space in own]
    return asked or [(searcher.from_panel(row, "panel"), target or "panel")]


def _one_way(
    searcher: Searcher, words: Query | None, shown: Query | None, blend: float, target: Space | None
) -> tuple[Query, Space]:
    if words and shown:
        return searcher.blend(shown, words, blend), target or "image"
    if words:
        return words, target or "image"
    assert shown is not None
    return shown, target or "text"


def _opened(image: Path | str | Image.Image) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    try:
        if Path(image).is_file() and Path(image).stat().st_size > MAX_BYTES:
            raise DataError(f"image: {image}: over {MAX_BYTES >> 20} MB")
        return images.open_page(image)
    except images.ImageProblem as problem:
        raise DataError(f"image: {problem.detail} ({problem.code})") from None


def _panel_row(searcher: Searcher, panel: int | str) -> int:
    ids = searcher.data.table.panels["panel_id"]
    found = np.flatnonzero((ids == panel).to_numpy())
    searcher.data.table.give_back()
    if len(found):
        return int(found[0])
    if str(panel).isdecimal() and int(panel) < len(ids):
        return int(panel)
    raise DataError(
        f"no panel has the id {panel!r}.{nearest(str(panel), ids.iloc[:20000].tolist())} Ids look like {ids.iloc[0]!r}."
    )


def answer_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The answers for a person, line by line.

    Args:
        found: `run`, its folder, `notes`, and `searches`, a list of `Answer.to_dict`.
    """
    for note in found["notes"]:
        yield f"note: {note}"
    for search in found["searches"]:
        yield f"{search['query']}, among {counted(search['gallery'], 'panel')}"
        yield f"compared: {search['compared']}"
        if search["said"] is not None:
            yield f"said: all the words, in any form, by {counted(search['said'], 'panel')}"
        for note in search["notes"]:
            yield f"note: {note}"
        if search["match_rank"] is not None:
            yield f"true match: rank {search['match_rank']:g} of {search['gallery']:,}"
        for row in search["results"]:
            mark = "".join(f"  [{row[k]}]" for k in ("relation", "found_by") if row.get(k))
            yield f"{row['rank']:>4}  {row['score']:6.3f}  {row['panel_id']}{mark}"
            if row["text"]:
                yield f"              {textwrap.shorten(row['text'], 100, placeholder=' …')}"
        yield ""
    yield f"see them: streamlit run app/main.py, then Search (run {Path(found['run']).name})"


def result_frame(searcher: Searcher, results: Results) -> pd.DataFrame:
    """The results as a table: rank, score, relation, and what the panel table says of each.

    Of typed words also `found_by`, the ways that found it, and `words_rank`, `text_rank` and `image_rank`, its rank in
    each list (missing where that way did not find it).
    """
    columns = ["panel_id", "page_id", "book", "page_type", "split", "order", "text", "has_image", "has_text"]
    frame = searcher.described(results.rows)[columns].reset_index(names="panel")
    frame.insert(0, "rank", np.arange(1, len(frame) + 1))
    frame.insert(1, "score", results.scores)
    frame.insert(2, "relation", results.relations)
    if results.ways is not None:
        frame["found_by"] = [", ".join(ways) for ways in results.ways]
        for name in ("words", "text", "image"):
            of = WORD_WAYS if name == "words" else (name,)
            ranks = [next((ways[way] for way in of if way in ways), None) for ways in results.ways]
            frame[f"{name}_rank"] = pd.array(ranks, dtype="Int64")
    return frame


def to_json_rows(frame: pd.DataFrame) -> list[Mapping[str, Any]]:
    """Rows of a table as plain values for JSON."""
    rows: Sequence[Mapping[str, Any]] = frame.to_dict(orient="records")  # type: ignore[assignment]
    return [
        {k: None if v is pd.NA else v.item() if isinstance(v, np.generic) else v for k, v in row.items()}
        for row in rows
    ]
