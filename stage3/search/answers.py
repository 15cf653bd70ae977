"""Questions in a person's words and their answers: what `python -m stage3.search` and `Run.search` share."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from stage3.cli import counted
from stage3.config import nearest
from stage3.data import images
from stage3.errors import ConfigError, DataError
from stage3.search.searcher import SPACES, Filters, Query, Results, Searcher, Space, result_frame, to_json_rows

MAX_TOP = 1000
MAX_BYTES = 20 * 2**20  # of an image that is the query


@dataclass(frozen=True)
class Answer:
    """What one query found.

    Attributes:
        query: what was asked.
        target: the space that was searched.
        results: what a searcher says of it.
        frame: the results as a table, best first: rank, score, relation, panel (row of the panel table), panel_id,
            page_id, book, page_type, split, order, text, has_image, has_text.
    """

    query: Query
    target: Space
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
            "results": to_json_rows(self.frame),
        }


def answers(
    searcher: Searcher,
    *,
    text: str | None = None,
    image: Path | str | Image.Image | None = None,
    panel: int | str | None = None,
    blend: float = 0.5,
    target: Space | None = None,
    top: int = 10,
    filters: Filters | None = None,
) -> list[Answer]:
    """The panels nearest to words, to an image, to both, or to a panel, which is asked in both directions.

    Args:
        searcher: of a run.
        text: words.
        image: an image or its file; with `text` the two are blended.
        panel: id of a panel (page#index) or row of the panel table.
        blend: weight of the words, 0 to 1.
        target: what is searched, "image", "text" or "panel"; None takes the other modality.
        top: how many panels, 1 to `MAX_TOP`.
        filters: which panels may be found.

    Raises:
        ConfigError: no query or more than one; a number out of range.
        DataError: an unknown panel, an unreadable image, empty words, or a filter that no panel passes.
    """
    named = [name for name, value in (("text", text), ("image", image), ("panel", panel)) if value is not None]
    if not named or ("panel" in named and len(named) > 1):
        raise ConfigError("give one query: --text WORDS, --image FILE, both of these, or --panel ID")
    if target is not None and target not in SPACES:
        raise ConfigError(f"target: {target!r} is not one of {', '.join(SPACES)}.{nearest(str(target), SPACES)}")
    if not 1 <= top <= MAX_TOP:
        raise ConfigError(f"top: {top} is not between 1 and {MAX_TOP}")
    if not 0 <= blend <= 1:
        raise ConfigError(f"blend: {blend} is not between 0 (image) and 1 (words)")
    if panel is not None:
        queries = _both_ways(searcher, _panel_row(searcher, panel), target)
    else:
        words = searcher.from_words(text) if text is not None else None
        shown = searcher.from_image(_opened(image)) if image is not None else None
        queries = [_one_way(searcher, words, shown, blend, target)]
    found = []
    for query, space in queries:
        results = searcher.search(query, space, top, filters)
        if not results.gallery:
            lack = "passes the filters" if filters else f"has {'an image' if space == 'image' else 'text'}"
            raise DataError(
                f"there is nothing to search: no other panel of {len(searcher.data.table):,} {lack}. "
                "Choose another --target or other filters, or look at the data with `stage3 data check`."
            )
        found.append(Answer(query, space, results, result_frame(searcher, results)))
    return found


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
    ids = searcher.frame["panel_id"]
    found = ids.index[ids == panel]
    if len(found):
        return int(found[0])
    if str(panel).isdecimal() and int(panel) < len(ids):
        return int(panel)
    raise DataError(
        f"no panel has the id {panel!r}.{nearest(str(panel), ids.tolist()[:20000])} Ids look like {ids.iloc[0]!r}."
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
        if search["match_rank"] is not None:
            yield f"true match: rank {search['match_rank']:g} of {search['gallery']:,}"
        for row in search["results"]:
            mark = f"  [{row['relation']}]" if row["relation"] else ""
            yield f"{row['rank']:>4}  {row['score']:6.3f}  {row['panel_id']}{mark}"
            if row["text"]:
                yield f"              {textwrap.shorten(row['text'], 100, placeholder=' …')}"
        yield ""
    yield f"see them: streamlit run app/main.py, then Search (run {Path(found['run']).name})"
