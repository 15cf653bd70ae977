"""`python -m stage3.samples OUT --books N --seed S`: draw synthetic comics."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from stage3.cli import Parser, counted, progress, run
from stage3.errors import StorageError
from stage3.samples.styles import STYLES
from stage3.samples.writer import FORMATS, Summary, draw_books

EXAMPLES = (
    "python -m stage3.samples samples --books 80 --seed 0          the set that ships with the package",
    "python -m stage3.samples /tmp/other --books 12 --seed 1       a small set of other books",
    "python -m stage3.samples more --books 400 --seed 2 --json     prints JSON",
)


def parser() -> Parser:
    """The command line."""
    about = "Draw synthetic comic books with panel boxes, texts, labels and ground-truth facts into a new folder."
    p = Parser(
        "samples",
        about,
        EXAMPLES,
        usage="OUT --books N --seed S [--pages P] [--format png|webp] [--style STYLE] [--json]",
    )
    p.add_argument("out", metavar="OUT", type=Path, help="folder to write to; must be new or empty")
    p.add_argument("--books", type=int, required=True, metavar="N", help="number of books, from 1")
    p.add_argument("--seed", type=int, required=True, metavar="S", help="from 0; the same seed draws the same books")
    p.add_argument("--pages", type=int, default=8, metavar="P", help="pages per book, cover included; default 8")
    p.add_argument("--format", default="png", choices=FORMATS, help="lossless image format; default png")
    p.add_argument("--style", default="plain", choices=STYLES, help="how panels lie on story pages; default plain")
    p.add_json()
    return p


def report(summary: Summary) -> str:
    """What was drawn and where, in words."""
    histogram = "  ".join(f"{n}: {count}" for n, count in sorted(summary.panels_per_page.items()))
    share = summary.textless / max(summary.panels, 1)
    return (
        f"Drew {counted(summary.books, 'book')}, {counted(summary.pages, 'page')} "
        f"({counted(summary.covers, 'cover')}, {counted(summary.advertisements, 'advertisement')})\n"
        f"{counted(summary.panels, 'story panel')}, {100 * share:.0f} % of them without text\n"
        f"story pages by number of panels  {histogram}\n"
        f"{summary.bytes / 1e6:.2f} MB in {summary.out}\n"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Draw; returns 0, or 2 for bad input."""
    try:
        args = parser().parse(argv)
        with progress("drawing books", args.books) as bar:
            summary = draw_books(args.out, args.books, args.seed, args.pages, args.format, bar.advance, args.style)
    except (ValueError, FileExistsError, NotADirectoryError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except OSError as error:
        raise StorageError(f"{args.out}: {error.strerror or error}") from error
    sys.stdout.write(json.dumps(summary.to_json()) + "\n" if args.json else report(summary))
    return 0


if __name__ == "__main__":
    run(main)
