"""`python -m stage3.samples OUT --books N --seed S`: draw sample comics."""

import argparse
import json
import sys
from pathlib import Path

from stage3.samples.writer import FORMATS, Summary, draw_books

EXAMPLES = """examples:
  python -m stage3.samples samples --books 80 --seed 0          the set that ships with the package
  python -m stage3.samples /tmp/other --books 12 --seed 1       a small set of other books
  python -m stage3.samples more --books 400 --seed 2 --json     as JSON, for a program to read
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m stage3.samples",
        description="Draw comic books with panel boxes, texts, labels and ground-truth facts into a new folder.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("out", metavar="OUT", type=Path, help="folder to write to; must be new or empty")
    p.add_argument("--books", type=int, required=True, metavar="N", help="how many books to draw (1 or more)")
    p.add_argument(
        "--seed", type=int, required=True, metavar="S", help="the same seed draws the same books (0 or more)"
    )
    p.add_argument("--pages", type=int, default=8, metavar="P", help="pages in a book, cover included (default 8)")
    p.add_argument("--format", default="png", choices=FORMATS, help="lossless picture format (default png)")
    p.add_argument("--json", action="store_true", help="print the summary as JSON")
    return p


def report(summary: Summary) -> str:
    """What was drawn and where, in words."""
    histogram = "  ".join(f"{n}: {count}" for n, count in sorted(summary.panels_per_page.items()))
    share = summary.textless / max(summary.panels, 1)
    return (
        f"Drew {summary.books} books, {summary.pages} pages "
        f"({summary.covers} covers, {summary.advertisements} advertisements)\n"
        f"{summary.panels} story panels, {share:.0%} of them without text\n"
        f"story pages by number of panels  {histogram}\n"
        f"{summary.bytes / 1e6:.2f} MB in {summary.out}\n"
    )


def main(argv: list[str] | None = None) -> int:
    """Draw; returns 0, or 2 for bad input."""
    args = parser().parse_args(argv)
    try:
        summary = draw_books(args.out, args.books, args.seed, args.pages, args.format)
    except (ValueError, FileExistsError, NotADirectoryError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(json.dumps(summary.to_json()) + "\n" if args.json else report(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
