"""`python -m stage3.ablate`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stage3.ablate import prepare, run_experiments, update_table
from stage3.ablate.findings import FINDINGS
from stage3.cli import Parser, given, run, say
from stage3.errors import NumericError
from stage3.storage import to_json

EXAMPLES = (
    "python -m stage3.ablate --findings all --seeds 5 --jobs 2                 (about a quarter of an hour)",
    "python -m stage3.ablate --findings F2 F3 --seeds 3",
    "python -m stage3.ablate --findings F4 --epochs 20 --out runs/longer",
    "python -m stage3.ablate --out data/samples/evidence --update README.md    (only updates the table there)",
    "python -m stage3.ablate --prepare                                         (only writes the thinned data)",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, train what is missing, write the tables; returns the exit code."""
    about = "Train pairs of variants over several seeds and test their differences. Resumes by itself."
    parser = Parser("ablate", about, EXAMPLES, usage="[--findings F1 F2 ...] [--seeds 5] [--out DIR] [--SETTING VALUE]")
    parser.add_argument("--findings", nargs="+", default=["all"], metavar="ID", help=f"all, or {', '.join(FINDINGS)}")
    parser.add_argument(
        "--seeds", type=int, default=5, metavar="N", help="seeds per variant; default 5, at least 3 for a verdict"
    )
    parser.add_argument("--out", default="runs/evidence", metavar="DIR", help="folder to write; default runs/evidence")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs trained in parallel; default 1")
    parser.add_argument("--update", metavar="FILE", help="copy the table of --out between the markers of FILE")
    parser.add_argument("--prepare", action="store_true", help="write the thinned data set and stop")
    parser.add_json()
    parser.add_settings()
    args = parser.parse(argv)
    tell: Callable[[str], None] = (lambda _: None) if args.json else say
    summary: dict[str, Any]
    if args.update:
        summary = update_table(Path(args.out), Path(args.update), tell)
    elif args.prepare:
        summary = {"thinned": str(prepare(args.out, given(args)))}
        tell(f"thinned data: {summary['thinned']}")
    else:
        summary = run_experiments(args.findings, args.seeds, args.out, jobs=args.jobs, settings=given(args), tell=tell)
    if args.json:
        say(to_json(summary))
    if summary.get("failed"):
        shown = ", ".join(summary["failed"][:5])
        raise NumericError(f"{len(summary['failed'])} runs diverged and are left out of the comparisons: {shown}")
    return 0


if __name__ == "__main__":
    run(main)
