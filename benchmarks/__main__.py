"""Every benchmark in turn, and a table of what they found.

    python -m benchmarks                                    all of them: some minutes, and a few GB of memory
    python -m benchmarks losses search                      these two
    python -m benchmarks --update docs/benchmarks.md        also puts the rows between the markers in this file
    python -m benchmarks losses images --quick              small sizes, to see that it works

Each runs in a process of its own, one after the other. With `--update`, rows of benchmarks that were not run stay as
they are, each with the date on which it was measured. Run it on a machine that has nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
START, END = "<!-- benchmarks:start -->", "<!-- benchmarks:end -->"
HEAD = ("| benchmark | what | measured | aim | on |", "|---|---|---|---|---|")

Line = tuple[str, str, str]  # what, measured, aim


@dataclass(frozen=True)
class Benchmark:
    """Arguments of one script, in full and with `--quick`, and how its JSON reads as lines of the table."""

    full: tuple[str, ...]
    quick: tuple[str, ...]
    lines: Callable[[Any], list[Line]]


def losses(found: list[dict[str, Any]]) -> list[Line]:
    """A line per loss: at the temperature where it is slowest, for the aim holds at all."""
    lines = []
    for name in dict.fromkeys(row["name"] for row in found):
        rows = [row for row in found if row["name"] == name]
        ratio, aim = max(row["ratio"] for row in rows), rows[0]["ratio_bar"]
        if rows[0]["floats"] is None:
            lines.append((f"{name}, forward and backward", f"{ratio:.2f} × its head alone", f"≤ {aim:g}"))
            continue
        floats = max(row["floats"] for row in rows)
        shown = f"{ratio:.2f} × three products; {floats:.1f} V·D floats"
        lines.append((f"`{name}`, forward and backward", shown, f"≤ {aim:g}; ≤ {rows[0]['floats_bar']:g}"))
    return lines


def step(found: dict[str, dict[str, float]]) -> list[Line]:
    """A line per way to make a training step, against the padded one that encodes twice."""
    aims = {"packed, encodes once": 4, "packed, encodes once, bf16 backbones": 8, "from the feature store": 800}
    return [
        (f"training step, {name}", f"{found[name]['ratio']:,.1f} × faster", f"≥ {aim}") for name, aim in aims.items()
    ]


def images(found: dict[str, dict[str, float]]) -> list[Line]:
    """One line."""
    fast = found["decode_panels"]
    shown = f"{fast['ratio']:.1f} × faster; mean difference {fast['difference']:.1f} of 255"
    return [("page decode and crops", shown, "≥ 2; ≤ 3")]


def search(found: dict[str, Any]) -> list[Line]:
    """One line per kind of search, in CPU time."""
    rows, ms = f"{found['rows']:,} × {found['dim']}", found["cpu_ms"]
    plain = ms["one query"] / ms["product, one query"]
    return [
        (f"exact search, {rows}", f"{ms['one query']:.0f} ms of CPU; {plain:.1f} × the matrix product", "≤ 40 ms"),
        (f"a changed filter in the explorer, {rows}", f"{ms['filter change']:.0f} ms of CPU", "≤ 1,000 ms"),
        (
            f"words in {found['rows']:,} texts",
            f"{ms['words, one query']:.0f} ms of CPU, {ms['words, a frequent word']:.0f} for a frequent word; "
            f"indexed in {ms['words, making the index'] / 1000:.1f} s, {ms['words, index MB']:.0f} MB",
            "≤ 50 ms",
        ),
    ]


def manifest(found: dict[str, Any]) -> list[Line]:
    """One line."""
    first, again = found["first load"], found["second load"]
    shown = f"{first['s']:.0f} s, {first['MB']:.0f} MB; again {again['s']:.1f} s, {again['MB']:.0f} MB"
    return [(f"manifest of {found['pages']:,} rows, first load and again", shown, "≤ 1 GB")]


def panels(found: dict[str, dict[str, float]]) -> list[Line]:
    """One line per style of synthetic pages."""
    return [
        (
            f"panels found, {style}",
            f"F1 {page['f1_5']:.2f} at .5, {page['f1_8']:.2f} at .8; "
            f"{1000 * page['cpu_s'] / page['pages']:.0f} ms of CPU per page",
            "≤ 50 ms",
        )
        for style, page in found.items()
    ]


BENCHMARKS = {
    "step": Benchmark((), ("--small",), step),
    "losses": Benchmark((), ("--panels", "512", "--dim", "64", "--repeats", "1"), losses),
    "images": Benchmark((), ("--repeats", "2"), images),
    "search": Benchmark((), ("--rows", "2000", "--dim", "64"), search),
    "manifest": Benchmark((), ("--pages", "2000", "--files", "20"), manifest),
    "panels": Benchmark((), ("--books", "1"), panels),
}


def measure(name: str, *, quick: bool) -> list[Line]:
    """Run one script and read its JSON.

    Raises:
        RuntimeError: it ended without a result; its own message is in the error.
    """
    benchmark = BENCHMARKS[name]
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json", *(benchmark.quick if quick else benchmark.full)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    try:  # not the exit code: a script that misses its aim ends with 1 and a result
        return benchmark.lines(json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError) as error:
        raise RuntimeError(f"benchmarks.{name} ended with {done.returncode}: {done.stderr.strip()[-500:]}") from error


def as_rows(name: str, lines: Iterable[Line], when: str) -> list[str]:
    """Lines as Markdown rows."""
    return [f"| `{name}` | {what} | {measured} | {aim} | {when} |" for what, measured, aim in lines]


def updated(text: str, rows: dict[str, list[str]]) -> str:
    """A document with the rows of these benchmarks replaced between the markers; others stay, in a fixed order.

    Raises:
        ValueError: the markers are missing, twice there, or in the wrong order.
    """
    if text.count(START) != 1 or text.count(END) != 1 or text.index(START) > text.index(END):
        raise ValueError(f"needs one line {START} and, below it, one line {END}; the table goes between them")
    head, _, rest = text.partition(START)
    before, _, tail = rest.partition(END)
    kept = {name: [line for line in before.splitlines() if line.startswith(f"| `{name}` |")] for name in BENCHMARKS}
    table = [*HEAD, *(line for lines in (kept | rows).values() for line in lines)]
    return "\n".join([head + START, *table, END + tail])


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and update the file if one is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(BENCHMARKS)}; default all")
    parser.add_argument("--quick", action="store_true", help="small sizes, whose numbers mean nothing")
    parser.add_argument("--update", metavar="FILE", type=Path, help="put the rows between the markers in FILE")
    args = parser.parse_args(argv)
    unknown = [name for name in args.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    before = args.update.read_text(encoding="utf-8") if args.update else ""
    if args.update:
        updated(before, {})  # refuse a file without markers before the work, not after it
    when = f"{datetime.now(UTC):%Y-%m-%d}{', quick' if args.quick else ''}"
    rows = {}
    for name in args.names or BENCHMARKS:
        rows[name] = as_rows(name, measure(name, quick=args.quick), when)
        print("\n".join(rows[name]), flush=True)
    if args.update:
        args.update.write_text(updated(before, rows), encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
