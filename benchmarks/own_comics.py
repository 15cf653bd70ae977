"""From comics on a disk to a search by words: what each step costs, and what is found.

    python -m benchmarks.own_comics SOURCE [--word WORD ...] [--transcripts DIR] [--no-text] [--right-to-left] [--json]

SOURCE is what `stage3.data import` takes. The steps are the commands that a user types, with `tiny` backbones: import
with panels found, text read, training, and one search per word. Times are CPU seconds of the commands. What a command
needs that has nothing to do is its start (of training: with the features there and no epoch); the rest grows with the
pages, which gives the column for 1,000 pages.

With `--transcripts`, a folder of panel files with text (style `ocr`, page names unique), the panels that the search
says to hold a word are compared with the panels that do.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MANY = 1000  # pages


def command(*arguments: str) -> tuple[float, str]:
    """CPU seconds and output of `python -m stage3 …`.

    Raises:
        RuntimeError: it ended with an error; its message is in the error.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def with_word(folder: Path, word: str) -> set[tuple[str, int]]:
    """(page name, place in reading order from 1) of the panels whose text holds a word."""
    found = set()
    for path in folder.rglob("*.json"):
        panels = json.loads(path.read_text(encoding="utf-8"))["panels"]
        found |= {(path.stem, k) for k, panel in enumerate(panels, 1) if word.casefold() in panel["text"].casefold()}
    return found


def said(hits: Sequence[dict[str, Any]], word: str) -> set[tuple[str, int]]:
    """The same of the hits whose own words hold it."""
    return {
        (hit["page_id"].rpartition("/")[2], hit["order"] + 1)
        for hit in hits
        if word.casefold() in hit["text"].casefold()
    }


def measure(
    source: Path, words: Sequence[str], transcripts: Path | None, *, text: bool, right_to_left: bool
) -> dict[str, Any]:
    """CPU seconds by step, for these pages and for 1,000, and what the search found."""
    with tempfile.TemporaryDirectory() as folder:
        data, run, cache = f"{folder}/data", f"{folder}/run", f"{folder}/cache"
        direction = ["--right_to_left"] if right_to_left else []
        importing = ["stage3.data", "import", str(source), "--out", data, "--cache_dir", cache, "--json", *direction]
        steps: dict[str, tuple[float, float]] = {}  # CPU seconds, and those with nothing to do
        first, output = command(*importing)
        steps["import, panels found"] = first, command(*importing)[0]
        imported = json.loads(output.splitlines()[-1])["import"]
        if text:
            reading = ["stage3.data", "ocr", "--data", data]
            steps["text read"] = command(*reading)[0], command(*reading)[0]
        training = ["stage3.train", "--run", run, "--data", data, "--cache_dir", cache]
        if imported["books"] < 3:
            training += ["--val_fraction", "0", "--test_fraction", "0"]
        spent, start = command(*training)[0], command(*training, "--run", f"{folder}/start", "--epochs", "0")[0]
        steps["features and training"] = spent, start
        found = {}
        for word in words:
            spent, output = command("stage3.search", "--run", run, "--text", word, "--top", "20", "--json")
            steps.setdefault("one search", (spent, spent))
            hits = json.loads(output)["searches"][0]["results"]
            found[word] = {"best": hits[:3], "said": sorted(said(hits, word))}
            if transcripts is not None:
                found[word]["true"] = sorted(with_word(transcripts, word))
        pages = imported["pages"]
        rows = {
            name: {"cpu_s": spent, "start_s": start, "many_s": start + max(spent - start, 0) / pages * MANY}
            for name, (spent, start) in steps.items()
        }
        return {"pages": pages, "panels": imported["panels"], "steps": rows, "found": found}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="comics to import")
    parser.add_argument("--word", nargs="*", default=[], metavar="WORD", help="what to search for")
    parser.add_argument("--transcripts", type=Path, metavar="DIR", help="panel files with the true texts")
    parser.add_argument("--no-text", action="store_true", help="do not read text")
    parser.add_argument("--right-to-left", action="store_true", help="the comics are read from the right")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    try:
        made = measure(
            args.source, args.word, args.transcripts, text=not args.no_text, right_to_left=args.right_to_left
        )
    except RuntimeError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    if args.json:
        print(json.dumps(made))
        return 0
    print(
        f"{made['pages']} pages, {made['panels']} panels\n{'CPU seconds':<26}{'':>8}{'start':>8}{f'{MANY:,} pages':>14}"
    )
    for name, step in made["steps"].items():
        print(f"{name:<26}{step['cpu_s']:>8.1f}{step['start_s']:>8.1f}{step['many_s']:>14.0f}")
    print(f"{'all':<26}{'':>16}{sum(step['many_s'] for step in made['steps'].values()):>14.0f}")
    for word, found in made["found"].items():
        print(f"\n{word}: best {', '.join(hit['panel_id'] for hit in found['best'])}")
        print(f"  says it: {found['said']}")
        if "true" in found:
            print(f"  by the transcripts: {found['true']}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
