"""`python -m stage3.search`: find panels by words, by a picture, by both, or by a panel, in one direction or both.

This file is the command, and loads no torch before it searches. Beside it: `searcher` asks and answers, `index` finds
exact nearest neighbours, and `failures` says what is found in one direction only.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stage3.config import FIELDS, ConfigError, DataError, nearest
from stage3.console import Parser, counted, say, to_json
from stage3.loading import DATA_SETTINGS, load_data
from stage3.runs import Run

if TYPE_CHECKING:
    from stage3.search.searcher import Filters, Query, Results, Searcher, Space

EXAMPLES = (
    'python -m stage3.search --run runs/first --text "a man runs in the rain"',
    "python -m stage3.search --run runs/first --image drawing.png --target text",
    'python -m stage3.search --run runs/first --image drawing.png --text "at night" --blend 0.3',
    "python -m stage3.search --run runs/first --panel book012/p003#1 --top 5      (both directions)",
)
TARGETS = ("picture", "text", "panel")
MAX_TOP = 1000
MAX_BYTES = 20 * 2**20  # of a picture that is the query


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, search, print; returns the exit code."""
    about = (
        "Find the panels of a run's data set that lie nearest to a query: typed words, a picture file, a blend of "
        "both, or a panel of the set, which is asked in both directions."
    )
    parser = Parser("search", about, EXAMPLES, usage="--run RUN (--text WORDS | --image FILE | --panel ID) ...")
    parser.add_argument("--run", required=True, help="folder of the run, such as runs/first")
    parser.add_argument("--text", help="words to search with")
    parser.add_argument("--image", help="picture file to search with; beside --text the two are blended")
    parser.add_argument("--panel", metavar="ID", help="panel id (page#index, as printed) or row of the panel table")
    parser.add_argument("--blend", type=float, default=0.5, help="weight of the words beside a picture, 0 to 1")
    parser.add_argument("--target", help=f"what is searched: {', '.join(TARGETS)}; default the other modality")
    parser.add_argument("--top", type=int, default=10, help=f"how many, 1 to {MAX_TOP}; default 10")
    parser.add_argument("--book", action="append", default=[], help="only this book; may stand several times")
    parser.add_argument("--page_type", action="append", default=[], help="only this page type; likewise")
    parser.add_argument("--split", action="append", default=[], help="only train, val or test; likewise")
    parser.add_argument("--has_text", default="any", help="any, with or without; default any")
    parser.add_argument("--checkpoint", type=int, metavar="STEP", help="search this step; default the best")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_settings(DATA_SETTINGS)
    args = parser.parse(argv)
    _check(args)
    found = _search(args)
    if args.json:
        say(to_json(found))
    else:
        for line in lines(found):
            say(line)
    return 0


def _check(args: Any) -> None:
    given = [name for name in ("text", "image", "panel") if getattr(args, name) is not None]
    if not given or ("panel" in given and len(given) > 1):
        raise ConfigError("name one query: --text WORDS, --image FILE, both of these, or --panel ID")
    if args.target is not None and args.target not in TARGETS:
        raise ConfigError(f"target: {args.target!r} is not one of {', '.join(TARGETS)}.{nearest(args.target, TARGETS)}")
    if not 1 <= args.top <= MAX_TOP:
        raise ConfigError(f"top: {args.top} is not between 1 and {MAX_TOP}")
    if not 0 <= args.blend <= 1:
        raise ConfigError(f"blend: {args.blend} is not between 0 (picture) and 1 (words)")


def _search(args: Any) -> dict[str, Any]:
    the_run = Run.open(args.run)
    import torch

    from stage3.search import searcher as s

    torch.set_num_threads(the_run.config.threads)
    data = load_data(the_run, {k: v for k, v in vars(args).items() if k in FIELDS and k in DATA_SETTINGS})
    searcher = s.Searcher.of_run(the_run, data, checkpoint=args.checkpoint)
    filters = s.Filters(tuple(args.book), tuple(args.page_type), tuple(args.split), args.has_text)
    return {
        "run": str(the_run.path),
        "searches": [
            _one(searcher, query, target, args.top, filters) for query, target in _queries(searcher, args, s.SPACES)
        ],
    }


def _queries(searcher: Searcher, args: Any, spaces: Sequence[Space]) -> Iterator[tuple[Query, Space]]:
    """Each query and what it searches; a panel is asked in both directions."""
    target: Space | None = args.target
    if args.panel is not None:
        row = _panel_row(searcher, args.panel)
        own = [space for space in searcher.spaces_of(row) if space != "panel"]
        for space in own:
            other: Space = "text" if space == "picture" else "picture"
            yield searcher.from_panel(row, space), target or other
        if not own:
            yield searcher.from_panel(row, "panel"), target or "panel"
        return
    words = searcher.from_words(args.text) if args.text is not None else None
    picture = searcher.from_picture(_read_picture(args.image)) if args.image is not None else None
    if words and picture:
        yield searcher.blend(picture, words, args.blend), target or "picture"
    elif words:
        yield words, target or "picture"
    elif picture:
        yield picture, target or "text"


def _read_picture(path: str) -> Any:
    from stage3 import images

    try:
        if Path(path).is_file() and Path(path).stat().st_size > MAX_BYTES:
            raise DataError(f"image: {path}: over {MAX_BYTES >> 20} MB")
        return images.open_page(path)
    except images.ImageProblem as problem:
        raise DataError(f"image: {problem.detail} ({problem.code})") from None


def _panel_row(searcher: Searcher, panel: str) -> int:
    ids = searcher.frame["panel_id"]
    found = ids.index[ids == panel]
    if len(found):
        return int(found[0])
    if panel.isdecimal() and int(panel) < len(ids):
        return int(panel)
    raise DataError(
        f"no panel is called {panel!r}.{nearest(panel, ids.tolist()[:20000])} Ids look like {ids.iloc[0]!r}."
    )


def _one(searcher: Searcher, query: Query, target: Space, top: int, filters: Filters) -> dict[str, Any]:
    from stage3.search.searcher import result_frame, to_json_rows

    results: Results = searcher.search(query, target, top, filters)
    return {
        "query": query.said,
        "from": query.space,
        "to": target,
        "compared": results.compared,
        "gallery": results.gallery,
        "partner_rank": results.partner_rank,
        "results": to_json_rows(result_frame(searcher, results)),
    }


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The findings for a person, line by line."""
    for search in found["searches"]:
        yield f"{search['query']}, among {counted(search['gallery'], 'panel')}"
        yield f"compared: {search['compared']}"
        if search["partner_rank"] is not None:
            yield f"true partner: rank {search['partner_rank']:g} of {search['gallery']:,}"
        for row in search["results"]:
            mark = f"  [{row['relation']}]" if row["relation"] else ""
            yield f"{row['rank']:>4}  {row['score']:6.3f}  {row['panel_id']}{mark}"
            if row["text"]:
                yield f"              {textwrap.shorten(row['text'], 100, placeholder=' …')}"
        yield ""
    yield f"see them: streamlit run app/main.py, then Search (run {Path(found['run']).name})"
