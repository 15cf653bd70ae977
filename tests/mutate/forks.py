"""Pytest in forked children of an interpreter that has loaded everything but the package itself."""

from __future__ import annotations

import _posixsubprocess
import contextlib
import importlib
import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis
import pytest

from tests.mutate.mapping import TOO_LONG

WARM = (
    "torch",
    "numpy",
    "pandas",
    "pyarrow.parquet",
    "zarr",
    "PIL.Image",
    "PIL.ImageDraw",
    "yaml",
    "plotly.graph_objects",
    "plotly.io",
    "sklearn.cluster",
    "sklearn.decomposition",
    "umap",
    "scipy.stats",
    "safetensors.torch",
    "streamlit",
    "streamlit.testing.v1",
    "tokenizers",
    "rich.progress",
    "defusedxml.ElementTree",
    "starlette.applications",
    "coverage",
    "hypothesis",
    "hypothesis.strategies",
    "hypothesis.extra.numpy",
    "_hypothesis_pytestplugin",
    "xdist.plugin",
    "pytest_cov.plugin",
    "anyio.pytest_plugin",
)
MEMORY = 24 * 2**30


def warm() -> None:
    """Load what every child would load; the package and its tests are left to the children."""
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    for name in WARM:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    assert not [name for name in sys.modules if name.split(".")[0] in ("stage3", "app")]


@dataclass
class Told:
    """What a child says at its end."""

    rc: int = -1
    failed: str = ""
    why: str = ""
    late: bool = False
    passed: int = 0
    tests: dict[str, float] = field(default_factory=dict)
    shared: dict[str, float] = field(default_factory=dict)  # seconds of these in fixtures of a module or more
    lines: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    starts: list[int] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)
    fixtures: dict[str, dict[str, list[int]]] = field(default_factory=dict)  # lines of each file; "" starts a process

    def own(self, test: str) -> float:
        """Seconds of a test without fixtures that others share: these are kept, and whoever comes first pays them."""
        return self.tests[test] - self.shared.get(test, 0.0)

    def reached(self) -> list[str]:
        """The files of which a test runs a line, beside what an import runs."""
        return [f for f, lines in self.lines.items() if any(i >= 0 for found in lines.values() for i in found)]


def cpu_seconds() -> float:
    """What this process, and those it has waited for, used: a busy machine makes no test longer."""
    mine, theirs = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return mine.ru_utime + mine.ru_stime + theirs.ru_utime + theirs.ru_stime


def named(fixture: pytest.FixtureDef[object]) -> str:
    """The context of a fixture: "fixture NAME PLACE"."""
    return f"fixture {fixture.argname} {fixture.baseid}"


class Order:
    """Runs only the tests that are named, those of the smallest number first; notes CPU seconds and the first failure.

    With `cover` it also tells coverage whose lines are being run, a test's or a fixture's, and notes who starts a
    process, in which coverage sees nothing.
    """

    def __init__(self, rank: Mapping[str, int], told: Told, cover: object = None) -> None:
        self.rank, self.told, self.cover = rank, told, cover
        self.now = ""
        self.fixtures: dict[str, set[str]] = {}
        self.starting: set[str] = set()
        self.used = 0.0  # seconds of CPU when the last report came
        self.setting_up = 0.0  # of these in fixtures that outlive the test which is being set up

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            for name in getattr(item, "fixturenames", ()):
                self.fixtures.setdefault(name, set()).add(item.nodeid)
        if self.rank:
            items[:] = sorted((i for i in items if i.nodeid in self.rank), key=lambda i: self.rank[i.nodeid])
        if self.cover is not None:
            sys.addaudithook(self._audit)
            # multiprocessing tells no audit hook
            _posixsubprocess.fork_exec = self._spawned(_posixsubprocess.fork_exec)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.used = cpu_seconds()
        self._context(nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[object]) -> Iterator[None]:
        before, begun = self.now, cpu_seconds()
        self._context(named(fixturedef))
        try:
            return (yield)
        finally:
            self._context(before)
            self.setting_up += (fixturedef.scope != "function") * (cpu_seconds() - begun)

    def _context(self, name: str) -> None:
        self.now = name
        if self.cover is not None:
            self.cover.switch_context(name)  # type: ignore[attr-defined]

    def _audit(self, event: str, _arguments: object) -> None:
        if event in ("subprocess.Popen", "os.fork", "os.posix_spawn"):
            self.starting.add(self.now)

    def _spawned(self, start: Callable[..., int]) -> Callable[..., int]:
        def noted(*arguments: object) -> int:
            self.starting.add(self.now)
            return start(*arguments)

        return noted

    def tests_of(self, context: str) -> set[str]:
        """The tests that see what was run in a context: one test, all that take a fixture, or none at an import."""
        if not context.startswith("fixture "):
            return {context} & set(self.told.tests)
        _, name, place = context.split(" ", 2)
        return {test for test in self.fixtures.get(name, ()) if test.startswith(place)}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        before, self.used = self.used, cpu_seconds()
        self.told.tests[report.nodeid] = self.told.tests.get(report.nodeid, 0.0) + self.used - before
        if report.when == "setup":
            self.told.shared[report.nodeid], self.setting_up = self.setting_up, 0.0
        if report.failed and not self.told.failed:
            self.told.failed, self.told.why = report.nodeid, report.longreprtext[-1000:]
            self.told.late = "timed out after" in report.longreprtext  # an `AppTest`: a busy machine, or a bug
        if report.failed:
            self.told.tests[report.nodeid] = -1e9
        self.told.passed += report.passed and report.when == "call"


def of_file(told: Told, file: str) -> Told:
    """What concerns the tests of one of several files."""
    every = list(told.tests)
    kept = [i for i, name in enumerate(every) if name.split("::")[0] == file]
    numbers = {old: new for new, old in enumerate(kept)} | {-1: -1}
    lines = {
        source: {line: sorted(numbers[i] for i in found if i in numbers) for line, found in reached.items()}
        for source, reached in told.lines.items()
    }
    return Told(
        told.rc,
        tests={every[i]: told.tests[every[i]] for i in kept},
        shared={every[i]: told.shared.get(every[i], 0.0) for i in kept},
        lines=lines,
        starts=[numbers[i] for i in told.starts if i in numbers],
        modules=told.modules,
        fixtures=told.fixtures,
    )


def limit_cpu(seconds: float) -> None:
    """End this process, and each that it starts, by SIGXCPU once it alone has used so many seconds of CPU."""
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 5))


def run(root: Path, files: Sequence[str], rank: Mapping[str, int], marks: str, seconds: float, *, cover: bool) -> Told:
    """The files' tests in a child that works in `root`; rc -9 where it used more seconds of CPU, or slept on."""
    answer, log, temp = (root.parent / name for name in ("answer.json", "log.txt", "tmp"))
    answer.unlink(missing_ok=True)
    shutil.rmtree(temp, ignore_errors=True)
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        limit_cpu(seconds)
        _child(root, files, rank, marks, answer, log, temp, cover=cover)
    end = time.monotonic() + 5 * seconds + 300
    while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        if time.monotonic() > end:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return Told(rc=-9)
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # whatever its tests started
    if os.WIFSIGNALED(ended[1]) and os.WTERMSIG(ended[1]) == signal.SIGXCPU:
        return Told(rc=-9)
    return Told(**json.loads(answer.read_text(encoding="utf-8"))) if answer.exists() else Told(rc=-1)


def _child(
    root: Path,
    files: Sequence[str],
    rank: Mapping[str, int],
    marks: str,
    answer: Path,
    log: Path,
    temp: Path,
    *,
    cover: bool,
) -> None:
    told = Told()
    try:
        arguments = prepared(root, files, marks, log, temp, cover=cover)
        if cover:
            told.rc = _covered(root, arguments, told)
        else:
            told.rc = int(pytest.main(["-x", *arguments], plugins=[Order(rank, told)]))
            told.rc = -8 if told.late else told.rc
        answer.write_text(json.dumps(told.__dict__), encoding="utf-8")
    except BaseException:  # the child must not go on as its parent; what happened stands in the log
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def prepared(root: Path, files: Sequence[str], marks: str, log: Path, temp: Path, *, cover: bool) -> list[str]:
    """Make this process one that works in `root` and writes to `log`; returns what pytest is told."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.chdir(root)
    os.environ["PYTHONPATH"] = str(root)
    sys.path[:] = [str(root), *(p for p in sys.path if p and Path(p).resolve() != Path(__file__).parents[2])]
    for name in [n for n in sys.modules if n.split(".")[0] == "tests"]:
        del sys.modules[name]
    if not cover:  # the baseline leaves compiled files behind, a mutant must not
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    first = [p for p in hypothesis.Phase if p not in (hypothesis.Phase.shrink, hypothesis.Phase.explain)]
    hypothesis.settings.register_profile("mutate", phases=first, database=None, deadline=None)
    hypothesis.settings.load_profile("mutate")  # whether it fails, not on what
    arguments = ["-q", "--tb=line", "-p", "no:cacheprovider", f"--basetemp={temp}", "--hypothesis-seed=0"]
    return [*arguments, "-W", "ignore::pytest.PytestAssertRewriteWarning", "-m", marks, "-k", TOO_LONG, *files]


def lies_in(root: Path, module: object) -> bool:
    """Whether a module is of the copy: `benchmarks.panels` loads the package, which the copy alone is to give."""
    about = getattr(module, "__dict__", {})  # `torch.classes` makes up every attribute that it is asked for
    return any(Path(str(p)).is_relative_to(root) for p in [about.get("__file__"), *(about.get("__path__") or ())] if p)


def _covered(root: Path, arguments: list[str], told: Told) -> int:
    import coverage

    data = root.parent / "coverage.data"
    data.unlink(missing_ok=True)
    cover = coverage.Coverage(data_file=str(data), source=[str(root / "stage3"), str(root / "app")], config_file=False)
    cover.start()
    order = Order({}, told, cover)
    rc = int(pytest.main(arguments, plugins=[order]))
    cover.stop()
    loaded = {name: module for name, module in sys.modules.items() if name != "__main__"}
    told.modules = [name for name, module in loaded.items() if not lies_in(root, module)]
    found = cover.get_data()
    numbers = {name: i for i, name in enumerate(told.tests)}
    told.starts = sorted(numbers[t] for c in order.starting for t in order.tests_of(c) if t in numbers)
    for file in found.measured_files():
        name = Path(file).relative_to(root).as_posix()
        for line, contexts in found.contexts_by_lineno(file).items():
            tests = {numbers[t] for c in contexts for t in order.tests_of(c) if t in numbers}
            tests |= {-1} if "" in contexts else set()  # at an import
            told.lines.setdefault(name, {})[str(line)] = sorted(tests)
            for context in (c for c in contexts if c.startswith("fixture ")):
                told.fixtures.setdefault(context, {}).setdefault(name, []).append(int(line))
    for context in (c for c in order.starting if c.startswith("fixture ")):
        told.fixtures.setdefault(context, {})[""] = []
    return rc
