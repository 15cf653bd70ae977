"""`python -m stage3.search`."""

from __future__ import annotations

from collections.abc import Sequence

from stage3.cli import Parser, given, run, say
from stage3.config import SPLITS
from stage3.runs import RunFolder
from stage3.runs.data import DATA_SETTINGS, config_for, differences, load_data
from stage3.storage import to_json

EXAMPLES = (
    'python -m stage3.search --run runs/first --text "a man runs in the rain"',
    'python -m stage3.search --run runs/first --text "pumpkin" --target words      (only panels that say it)',
    "python -m stage3.search --run runs/first --image drawing.png --target text",
    'python -m stage3.search --run runs/first --image drawing.png --text "at night" --blend 0.3',
    "python -m stage3.search --run runs/first --panel book012/p003#1 --top 5      (both directions)",
    'python -m stage3.search --run runs/first --text "at sea" --index faiss   (approximate, for millions of panels)',
)
INDICES = ("exact", "faiss")  # of `stage3.search.approximate`, which imports torch
TARGETS = ("image", "text", "panel", "words", "all")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, search, print; returns the exit code."""
    about = (
        "Find the panels of a run's data set nearest to a query: words, an image file, a blend of both, or a panel of\n"
        "the set, which is searched in both directions. Words are looked up in the panels' texts too: panels that say\n"
        "all of them come first, and each result says which ways found it."
    )
    parser = Parser("search", about, EXAMPLES, usage="--run RUN (--text WORDS | --image FILE | --panel ID) ...")
    parser.add_run()
    parser.add_argument(
        "--text", metavar="WORDS", help='words to search for; those in "double quotes" must be said exactly so'
    )
    parser.add_argument("--image", metavar="FILE", help="image file to search for; with --text the two are blended")
    parser.add_argument("--panel", metavar="ID", help="panel id (page#index, as printed) or row of the panel table")
    parser.add_argument(
        "--blend", type=float, default=0.5, metavar="X", help="weight of the words, 0 to 1; default 0.5"
    )
    parser.add_argument(
        "--target",
        choices=TARGETS,
        help="what to search; default the other modality, and for words alone all: words, texts and images",
    )
    parser.add_argument("--top", type=int, default=10, metavar="N", help="number of results, 1 to 1000; default 10")
    parser.add_argument("--book", action="append", default=[], metavar="BOOK", help="only this book; repeatable")
    parser.add_argument(
        "--page_type", action="append", default=[], metavar="TYPE", help="only this page type; repeatable"
    )
    parser.add_argument("--split", action="append", default=[], choices=SPLITS, help="only this split; repeatable")
    parser.add_argument(
        "--has_text", default="any", choices=("any", "with", "without"), help="only panels with or without text"
    )
    parser.add_argument(
        "--index",
        default="exact",
        choices=INDICES,
        help="exact, or faiss: an approximate index, kept in the cache; prints its recall; needs stage3[faiss]",
    )
    parser.add_checkpoint()
    parser.add_json()
    parser.add_settings(DATA_SETTINGS)
    args = parser.parse(argv)
    folder = RunFolder.load(args.run)

    from stage3.features.known_comics import tiny_note
    from stage3.search import Filters, Searcher, answer_lines, answers

    asked = given(args, DATA_SETTINGS)
    data = load_data(folder, asked)
    found = answers(
        Searcher.of_run(folder, data, checkpoint=args.checkpoint, cache=asked.get("cache_dir")),
        text=args.text,
        image=args.image,
        panel=args.panel,
        blend=args.blend,
        target=args.target,
        top=args.top,
        filters=Filters(tuple(args.book), tuple(args.page_type), tuple(args.split), args.has_text),
        index=args.index,
    )
    searches = [answer.to_dict() for answer in found]
    note = tiny_note(config_for(folder, asked)) if args.text else ""
    notes = [*differences(folder, data), *([note] if note else [])]
    summary = {"run": str(folder.path), "notes": notes, "searches": searches}
    for line in [to_json(summary)] if args.json else answer_lines(summary):
        say(line)
    return 0


if __name__ == "__main__":
    run(main)
