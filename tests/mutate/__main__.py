"""The command: chooses mutants, runs the tests on each, keeps what came out, and sums up."""

from __future__ import annotations

import argparse
import bisect
import collections
import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import random
import shutil
import sys
import time
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tests.mutate import forks, worlds
from tests.mutate.mapping import files_for, package_of
from tests.mutate.operators import Mutant, mutants
from tests.mutate.server import Server

ROOT = Path(__file__).resolve().parents[2]
STATE = ROOT / ".stage3" / "mutate"
EQUIVALENT = Path(__file__).with_name("equivalent.toml")
USUAL = "not browser and not heavy"  # which tests, as pytest's -m
STEPS = (0.5, 2, 8)  # seconds: the tests below each come before those above it
PARTS = ("stage3", "app", "tests", "data", "notebooks", "tools", "benchmarks", "docs")


def sources(paths: Iterable[str]) -> list[str]:
    """The Python files below the paths, relative to the root."""
    found: list[str] = []
    for path in paths:
        start = ROOT / path
        files = sorted(start.rglob("*.py")) if start.is_dir() else [start]
        found += [f.resolve().relative_to(ROOT).as_posix() for f in files]
    return found


def chosen(files: list[str], most: int, seed: int) -> list[Mutant]:
    """At most `most` mutants: a shuffle by the seed, the operators taken in turn, so that none outweighs the others."""
    by_operator: dict[str, list[Mutant]] = collections.defaultdict(list)
    for file in files:
        for mutant in mutants(file, (ROOT / file).read_text(encoding="utf-8")):
            by_operator[mutant.operator].append(mutant)
    draw = random.Random(seed)
    for part in by_operator.values():
        draw.shuffle(part)
    found: list[Mutant] = []
    while len(found) < most and any(by_operator.values()):
        for name in sorted(by_operator):
            if by_operator[name]:
                found.append(by_operator[name].pop())
    return found[:most]


def copied(copy: Path) -> None:
    """Bring the copy up to date: compiled files stay where nothing changed."""
    wanted: set[Path] = set()
    for part in PARTS:
        for path in sorted((ROOT / part).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                wanted.add(path.relative_to(ROOT))
    wanted |= {p.relative_to(ROOT) for p in ROOT.iterdir() if p.is_file() and p.name != ".git"}
    for name in wanted:
        new, old = ROOT / name, copy / name
        info = new.stat()
        if not old.exists() or (old.stat().st_size, old.stat().st_mtime_ns) != (info.st_size, info.st_mtime_ns):
            old.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(new, old)
    for path in [p for p in copy.rglob("*") if p.is_file() and "__pycache__" not in p.parts]:
        if path.relative_to(copy) not in wanted:
            path.unlink()


def digest(*paths: Path) -> str:
    """One number for the content of files."""
    found = hashlib.sha256()
    for path in paths:
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def baselines(copy: Path, tests: list[str], marks: str) -> dict[str, forks.Told]:
    """Duration and outcome of each file's tests, and which lines they reach; kept until one of the files changes."""
    found: dict[str, forks.Told] = {}
    for test in tests:
        kept = _kept(test, marks)
        if kept.exists():
            known = json.loads(kept.read_text(encoding="utf-8"))
            same = {f: digest(copy / f) for f in known["files"] if (copy / f).exists()} == known["files"]
            if same and known["support"] == _support(copy, test):
                found[test] = forks.Told(**known["told"])
    missing = [test for test in tests if test not in found]
    if missing:
        print(f"baseline of {' '.join(missing)}", flush=True)
        told = forks.run(copy, missing, {}, marks, 2400, cover=True)
        if told.rc not in (0, 1, 5):
            raise SystemExit(f"pytest ended with {told.rc}; see {copy.parent / 'log.txt'}")
        for test in missing:
            found[test] = forks.of_file(told, test)
            files = {f: digest(copy / f) for f in found[test].reached()}
            about = {"support": _support(copy, test), "files": files, "told": found[test].__dict__}
            _kept(test, marks).parent.mkdir(parents=True, exist_ok=True)
            _kept(test, marks).write_text(json.dumps(about))
    return {test: found[test] for test in tests}


def _kept(test: str, marks: str) -> Path:
    return STATE / "baseline" / marks.replace(" ", "-") / (test.replace("/", "-") + ".json")


def _support(copy: Path, test: str) -> str:
    """A number for the test file and for the worlds that tests are made of."""
    worlds = [p for p in sorted((copy / "tests").glob("*.py")) if not p.name.startswith(("test_", "planted"))]
    return digest(copy / test, *worlds)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Refuse a second run in this checkout: both would plant their bugs in one copy. Children hold the lock too."""
    with (STATE / "lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read() or "unknown"
            raise SystemExit(
                f"{ROOT}: a run is under way here (process {holder}, or what it left behind). "
                "Wait until it ends, end it, or run in another checkout"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


class Suite:
    """The tests of a list of files, and which of them reach a line."""

    def __init__(self, copy: Path, tests: list[str], marks: str) -> None:
        self.copy, self.marks = copy, marks
        self.told = baselines(copy, tests, marks)
        self.server: Server | None = None

    def served(self) -> Server:
        """The process that has the tests collected."""
        if not self.server:
            modules = dict.fromkeys(name for told in self.told.values() for name in told.modules)
            self.server = Server(self.copy, list(self.told), self.marks, modules)
        return self.server

    def close(self) -> None:
        """End the process, if there is one."""
        if self.server:
            self.server.close()

    def rank(self, mutant: Mutant, files: Sequence[str]) -> dict[str, int]:
        """The tests of some files to run, in order: those that reach the change, then those that start processes.

        What only an import reaches is seen by all tests of a file that uses the module, or of all files where none
        does: it declares what others use. None where no test is near.
        A file's tests stay together, as they share fixtures, but its slow ones wait for the quick ones of the others.
        """
        near: list[tuple[int, float, list[str]]] = []
        far: list[str] = []
        declared = not any(_anywhere(self.told[file], mutant.file) for file in files)
        for told in (self.told[file] for file in files):
            every = list(told.tests)
            hits = self._hits(told, mutant)
            anywhere = set(range(len(every))) if declared else _anywhere(told, mutant.file)
            if hits == {-1} and not anywhere:
                continue
            # what the explorer starts are commands of stage3, in which no line of the explorer runs
            starts = set() if mutant.file.startswith("app/") else set(told.starts)
            rest = set(range(len(every))) if -1 in hits else starts
            if -1 in hits:
                hits = anywhere
            first = _quickest(told, hits)
            for steps, part in itertools.groupby(first, key=lambda name: bisect.bisect(STEPS, told.own(name))):
                near.append((steps, told.own(first[0]), list(part)))
            if first:
                far += _quickest(told, rest - hits)
        order = [n for _, _, part in sorted(near, key=lambda p: p[:2]) for n in part] + far
        return {name: i for i, name in enumerate(order)}

    def at_import(self, mutant: Mutant) -> bool:
        """Whether the line runs when the module is loaded, or while tests are collected."""
        return any(-1 in self._hits(told, mutant) for told in self.told.values())

    def _hits(self, told: forks.Told, mutant: Mutant) -> set[int]:
        lines = range(mutant.line, mutant.line + mutant.before.count("\n") + 1)
        reached = told.lines.get(mutant.file, {})
        found = {i for line in lines for i in reached.get(str(line), [])}
        if not found and not mutant.scope:  # of a constant that takes several lines the first alone is traced
            before = max((int(line) for line in reached if int(line) < mutant.line), default=0)
            found = set(reached.get(str(before), []))
        return found

    def stale(self, mutant: Mutant) -> list[str]:
        """The fixtures that reach a mutant, or start a process: what they made before tells nothing of it."""
        lines = range(mutant.line, mutant.line + mutant.before.count("\n") + 1)
        reached = {name: files for told in self.told.values() for name, files in told.fixtures.items()}
        return [name for name, files in reached.items() if "" in files or set(lines) & set(files.get(mutant.file, []))]

    def seconds(self, names: Iterable[str]) -> dict[str, float]:
        """CPU seconds of the tests without a bug, in the order of the names."""
        took = {n: max(s, 0.0) for told in self.told.values() for n, s in told.tests.items()}
        return {name: took[name] for name in names}

    def own_seconds(self, names: Iterable[str]) -> dict[str, float]:
        """`seconds` without those of fixtures that are kept for all mutants."""
        took = {n: max(told.own(n), 0.0) for told in self.told.values() for n in told.tests}
        return {name: took[name] for name in names}


def _anywhere(told: forks.Told, file: str) -> set[int]:
    """The tests that run a line of a file, beside what its import runs."""
    return {i for found in told.lines.get(file, {}).values() for i in found if i >= 0}


def _quickest(told: forks.Told, numbers: Iterable[int]) -> list[str]:
    """The tests of these numbers, the quickest first, without those that fail without a bug: they see nothing."""
    names = [list(told.tests)[i] for i in numbers]
    return sorted((n for n in names if told.tests[n] >= 0), key=told.own)


def within(seconds: dict[str, float], budget: float) -> list[str]:
    """The first tests, of those with their durations, that take no longer together; one at least."""
    ends = itertools.accumulate(seconds.values())
    return [name for i, (name, end) in enumerate(zip(seconds, ends, strict=True)) if i == 0 or end <= budget]


def seasoned(names: Sequence[str], mutant: Mutant, found: Iterable[dict[str, object]]) -> list[str]:
    """The tests in order, first those that have noticed most mutants of the same function."""
    seen = collections.Counter(r["test"] for r in found if (r["file"], r["scope"]) == (mutant.file, mutant.scope))
    return sorted(names, key=lambda name: -seen[name])


def judged(
    copy: Path, mutant: Mutant, suite: Suite, tests: Sequence[str], budget: float, found: Iterable[dict[str, object]]
) -> dict[str, object]:
    """What the tests say of a mutant: killed, timeout, alive, or uncovered where no test reaches the line."""
    order = seasoned(list(suite.rank(mutant, tests)), mutant, found)
    rank = {name: i for i, name in enumerate(within(suite.own_seconds(order), budget))}
    begun = time.monotonic()
    outcome, test = "uncovered", ""
    if rank:
        path = copy / mutant.file
        source = path.read_text(encoding="utf-8")
        seconds = suite.seconds(rank)
        inside = mutant.file != "app/ui.py" and not suite.at_import(mutant)  # what an import has done stays done
        server = suite.served() if inside else None  # started before the file changes
        path.write_text(mutant.apply(source), encoding="utf-8")
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            compiled.unlink()
        try:
            told = None
            for _ in range(2 if server else 0):
                told = server.judge(mutant.file, source, mutant.apply(source), seconds, suite.stale(mutant))
                if told is None or told.rc != -8:  # where it only took long, it may be others who use the machine
                    break
            if told is None:
                files = list(dict.fromkeys(name.split("::")[0] for name in rank))
                told = forks.run(copy, files, rank, suite.marks, 5 * sum(seconds.values()) + 120, cover=False)
        finally:
            path.write_text(source, encoding="utf-8")
        outcome, test = {0: "alive", -8: "timeout", -9: "timeout"}.get(told.rc, "killed"), told.failed
    fields = ("file", "line", "scope", "operator", "before", "after")
    about = {"key": mutant.key, "package": package_of(mutant.file)} | {f: getattr(mutant, f) for f in fields}
    return about | {
        "outcome": outcome,
        "test": test,
        "why": told.why[-200:] if rank else "",
        "seconds": round(time.monotonic() - begun, 1),
    }


def exceptions() -> list[dict[str, str]]:
    """Key, file and reason of each mutant that no test can tell from the program."""
    if not EQUIVALENT.exists():
        return []
    found: list[dict[str, str]] = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8")).get("mutant", [])
    return found


def results() -> dict[str, dict[str, object]]:
    """The last result of each mutant."""
    path = STATE / "results.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {r["key"]: r for r in map(json.loads, lines)}


def standing(found: list[dict[str, object]]) -> list[dict[str, object]]:
    """The results of mutants that the source still has: what was rewritten since tells nothing."""
    keys: set[str] = set()
    for file in {str(r["file"]) for r in found if (ROOT / str(r["file"])).exists()}:
        keys |= {m.key for m in mutants(file, (ROOT / file).read_text(encoding="utf-8"))}
    return [r for r in found if r["key"] in keys]


def summary(found: Iterable[dict[str, object]]) -> str:
    """A Markdown table per package, and below it every mutant that is alive."""
    known, rows = {e["key"] for e in exceptions()}, []
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for r in found:
        outcome = "equivalent" if r["key"] in known and r["outcome"] != "killed" else str(r["outcome"])
        counts[str(r["package"])][outcome] += 1
        if outcome in ("alive", "uncovered"):
            change = f"`{_short(r['before'])}` → `{_short(r['after'])}`"
            rows.append(f"| {r['file']}:{r['line']} | {r['operator']} | {change} | {outcome} | {r['key']} |")
    text = "| package | mutants | killed | equivalent | alive | not reached | killed of the others |\n"
    text += "|---|--:|--:|--:|--:|--:|--:|\n"
    for package, n in sorted(counts.items()):
        dead, every = n["killed"] + n["timeout"], sum(n.values())
        share = f"{100 * dead // max(1, every - n['equivalent'])} %"  # 100 % is all of them
        text += f"| {package} | {every} | {dead} | {n['equivalent']} | {n['alive']} | {n['uncovered']} | {share} |\n"
    return text + "\n| where | operator | change | | key |\n|---|---|---|---|---|\n" + "\n".join(sorted(rows)) + "\n"


def _short(text: object) -> str:
    line = " ".join(str(text).split()).replace("|", "\\|").replace("`", "'")
    return line if len(line) < 110 else line[:107] + "…"


def main(arguments: list[str]) -> int:
    """Run the chosen mutants one after the other."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutate", description=__doc__)
    parser.add_argument("paths", nargs="*", help="files or folders of the source, like app or stage3/metrics")
    parser.add_argument("--most", type=int, default=300, help="how many mutants")
    parser.add_argument("--seed", type=int, default=0, help="which ones")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so long; the next run goes on")
    parser.add_argument(
        "--budget",
        type=float,
        default=1e9,
        help="seconds of CPU for the tests of each mutant, the quickest first: a lower bound",
    )
    parser.add_argument("--again", action="store_true", help="try once more those that were alive")
    parser.add_argument("--tests", nargs="*", default=[], help="these test files instead of the table's: a lower bound")
    parser.add_argument("--only", nargs="*", default=[], help="keys of single mutants")
    parser.add_argument(
        "--marks", default="", help="which tests, as pytest's -m; the default leaves slow ones out but in app"
    )
    parser.add_argument("--report", type=Path, help="write the summary of all known results here")
    asked = parser.parse_args(arguments)
    STATE.mkdir(parents=True, exist_ok=True)
    if asked.paths:
        with alone():
            _run(asked)
    found = list(results().values())
    if asked.report:
        found = standing(found)
    text = summary(found)
    if asked.report:
        asked.report.write_text(text, encoding="utf-8")
    print(text.split("\n\n")[0])
    return 0


def _run(asked: argparse.Namespace) -> None:
    files = sources(asked.paths)
    known, end = results(), time.monotonic() + 60 * asked.minutes
    most = 10**9 if asked.only else asked.most
    todo = chosen(files, most, asked.seed)
    if asked.only:
        todo = [m for m in todo if m.key in asked.only]
    elif asked.again:
        lost = {entry["key"] for entry in exceptions()}
        todo = [m for m in todo if known.get(m.key, {}).get("outcome") in ("alive", "uncovered") and m.key not in lost]
    else:
        todo = [m for m in todo if m.key not in known]
    copy = STATE / "copy"
    copied(copy)
    if todo and all(m.file.startswith("app/") for m in todo):
        os.environ |= {"PYTEST_PLUGINS": worlds.__name__, worlds.KEEP: str(STATE / "worlds")}
    forks.warm()
    suites: dict[tuple[str, ...], Suite] = {}
    # one process for all mutants of the explorer: to load its tests takes longer than to run the few that see a line
    explorer = dict.fromkeys(t for m in todo if m.file.startswith("app/") for t in files_for(copy, m.file))
    with (STATE / "results.jsonl").open("a", encoding="utf-8") as out:
        for i, mutant in enumerate(todo, start=1):
            if time.monotonic() > end:
                break
            marks = asked.marks or (USUAL if mutant.file.startswith("app") else f"{USUAL} and not slow")
            tests = tuple(asked.tests or files_for(copy, mutant.file))  # as copied: the work goes on beside
            shared = tuple(explorer) if mutant.file.startswith("app/") and not asked.tests else tests
            if shared not in suites:
                begun = time.monotonic()
                suites[shared] = Suite(copy, list(shared), marks)
                end += time.monotonic() - begun  # what is kept for the next run does not count
            found = judged(copy, mutant, suites[shared], tests, asked.budget, known.values())
            known[mutant.key] = found
            out.write(json.dumps(found) + "\n")
            out.flush()
            change = f"{_short(mutant.before)} -> {_short(mutant.after)}"
            place = f"{mutant.file}:{mutant.line} {mutant.operator}"
            print(
                f"{i}/{len(todo)} {found['outcome']:9} {found['seconds']:5} s {mutant.key} {place}: {change}",
                flush=True,
            )
    for suite in reversed(suites.values()):  # a later one holds what the earlier ones listen to
        suite.close()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
