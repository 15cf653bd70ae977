"""`python -m tests.faults [--full] [--seed N] [--only NAME] [--report FILE.md]`: inject faults and count what breaks.

The quick share takes about a minute and is part of the tests; `--full` takes a quarter of an hour or more. The exit
code is 1 where anything did not hold. The same seed injects the same faults, except for SIGKILL at random moments.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.faults.families import FAMILIES, Outcome


def run(name: str, seed: int, *, full: bool) -> tuple[Outcome, int, float]:
    """One family: its outcome, the rounds that were asked for, and the seconds it took."""
    family, quick, whole = FAMILIES[name]
    rounds = whole if full else quick
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="stage3-faults-") as scratch:
        (Path(scratch) / "runs").mkdir()
        outcome = family(rounds, seed, Path(scratch))
    return outcome, rounds, time.monotonic() - began


def report(found: dict[str, tuple[Outcome, int, float]], seed: int) -> str:
    """The counts as Markdown."""
    total = sum(outcome.tried for outcome, _, _ in found.values())
    broken = sum(len(outcome.violations) for outcome, _, _ in found.values())
    lines = [
        "# Injected faults",
        "",
        f"Seed {seed}, Python {platform.python_version()}, {platform.system()}: {total:,} faults, {broken} violations.",
        "",
        "| faults | tried | violations | seconds |",
        "|---|---|---|---|",
        *(f"| {name} | {o.tried:,} | {len(o.violations)} | {s:.0f} |" for name, (o, _, s) in found.items()),
    ]
    for name, (outcome, _, _) in found.items():
        if outcome.violations:
            lines += ["", f"## {name}", "", *(f"- {v}" for v in outcome.violations[:20])]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, inject, report; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--full", action="store_true", help="all rounds, about a quarter of an hour")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=list(FAMILIES), help="one family; repeatable")
    parser.add_argument("--report", type=Path, help="write the Markdown report here as well")
    args = parser.parse_args(argv)
    found = {}
    for name in args.only or FAMILIES:
        found[name] = run(name, args.seed, full=args.full)
        outcome, _, seconds = found[name]
        sys.stdout.write(f"{name}: {outcome.tried:,} tried, {len(outcome.violations)} violations, {seconds:.0f} s\n")
        sys.stdout.flush()
    text = report(found, args.seed)
    sys.stdout.write("\n" + text)
    if args.report:
        args.report.write_text(text, encoding="utf-8")
    return int(any(outcome.violations for outcome, _, _ in found.values()))


if __name__ == "__main__":
    raise SystemExit(main())
