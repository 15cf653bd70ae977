"""`python -m stage3.evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stage3.cli import Parser, given, run, say
from stage3.evaluate.words import report_lines
from stage3.runs import RunFolder
from stage3.runs.data import DATA_SETTINGS, MAX_PAGES, load_data
from stage3.storage import to_json

EXAMPLES = (
    "python -m stage3.evaluate --run runs/first",
    "python -m stage3.evaluate --run runs/first --split val --intervals book",
    "python -m stage3.evaluate --run runs/first --data other/comics        (all pages of other comics)",
    "python -m stage3.evaluate --run runs/first --checkpoint 120 --json",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, evaluate, print; returns the exit code."""
    about = "Measure a run's best checkpoint on held-out pages: retrieval both ways, collapse, reconstruction."
    parser = Parser("evaluate", about, EXAMPLES, usage="--run RUN [--split SPLIT] [--data FOLDER] [--json] ...")
    parser.add_run()
    parser.add_split(None, "default test, or val if no book is held out")
    parser.add_checkpoint()
    parser.add_argument(
        "--intervals", default="page", choices=("page", "book"), help="what the bootstrap resamples; default page"
    )
    parser.add_argument(
        "--max_pages",
        type=int,
        default=MAX_PAGES,
        metavar="N",
        help=f"use at most N pages, evenly spaced; 0 uses all; default {MAX_PAGES}",
    )
    parser.add_device("cpu", ", which gives the same numbers every time")
    parser.add_json()
    parser.add_settings(DATA_SETTINGS)
    args = parser.parse(argv)
    folder = RunFolder.load(args.run)

    from stage3.evaluate import evaluation_report, kept_report

    flags = given(args, DATA_SETTINGS)
    what: dict[str, Any] = {
        "split": args.split,
        "data": load_data(folder, flags),
        "checkpoint": args.checkpoint,
        "max_pages": args.max_pages,
    }
    if not flags and (args.intervals, args.device) == ("page", "cpu"):  # what the explorer shows of the run
        report = kept_report(folder, **what, again=True)
    else:
        report = evaluation_report(folder, **what, intervals=args.intervals, device=args.device)
    for line in [to_json(report)] if args.json else report_lines(report):
        say(line)
    return 0


if __name__ == "__main__":
    run(main)
