"""The mutation runner: what it changes, what it leaves alone, which tests it runs, and that its exceptions are real."""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from tests.mutate import __main__ as command
from tests.mutate import forks
from tests.mutate.mapping import MORE, files_for
from tests.mutate.operators import mutants
from tests.mutate.server import Restored, Server, replaced

ROOT = Path(__file__).resolve().parents[1]
SOURCE = '''
def rank_of(i2t, t2i, key, flag=True):
    """Rank 3."""
    if not flag and len(i2t) > 1:
        raise ValueError("at least 1")
    found = kept.get((i2t, "text", key), limit=5)
    log(f"{i2t[0]} ü", max(i2t, t2i))
    return pair(i2t, t2i) - found.sum(dim=1)
'''


def changes() -> set[tuple[str, str, str]]:
    return {(m.operator, m.before, m.after) for m in mutants("x.py", SOURCE)}


@pytest.mark.parametrize(
    "expected",
    [
        ("negate", "not flag and len(i2t) > 1", "(not (not flag and len(i2t) > 1))"),
        ("drop not", "not flag", "(flag)"),
        ("swap comparison", "len(i2t) > 1", "(len(i2t) >= 1)"),
        ("drop part", '(i2t, "text", key)', "(('text', key))"),
        ("swap sides", '"text"', "('image')"),
        ("swap sides", "i2t", "(t2i)"),
        ("swap sides", "max", "(min)"),
        ("swap arguments", "pair(i2t, t2i)", "(pair(t2i, i2t))"),
        ("drop keyword", 'kept.get((i2t, "text", key), limit=5)', "(kept.get((i2t, 'text', key)))"),
        ("one more", "5", "(6)"),
        ("swap axes", "1", "(0)"),
        ("swap operator", "pair(i2t, t2i) - found.sum(dim=1)", "(pair(i2t, t2i) + found.sum(dim=1))"),
        ("drop statement", 'raise ValueError("at least 1")', "pass"),
        ("last for first", 'f"{i2t[0]} ü"', "(f'{i2t[-1]} ü')"),
    ],
)
def test_each_operator_makes_its_change(expected):
    assert expected in changes()


def test_every_mutant_is_another_sound_program_and_words_are_left_alone():
    found = mutants("x.py", SOURCE)
    assert len({m.key for m in found}) == len(found)
    for mutant in found:
        assert ast.dump(ast.parse(mutant.apply(SOURCE))) != ast.dump(ast.parse(SOURCE))
        assert SOURCE[mutant.start : mutant.end] == mutant.before
        assert '"""Rank 3."""' in mutant.apply(SOURCE)
    assert not [m for m in found if m.before == '"at least 1"']


def test_a_choice_is_the_same_for_a_seed_and_takes_operators_in_turn():
    files = ["stage3/metrics/nearest.py"]
    first = command.chosen(files, 12, 0)
    assert first == command.chosen(files, 12, 0) != command.chosen(files, 12, 1)
    assert len({m.operator for m in first}) == 12


def test_every_file_has_tests_and_every_place_of_the_table_is_there():
    for place in {place for places in MORE.values() for place in places}:
        assert (ROOT / place).exists(), place
    for file in (*MORE, "stage3/search/fusion.py"):
        assert (ROOT / file).exists(), file
        assert files_for(ROOT, file), file
    found = files_for(ROOT, "stage3/search/fusion.py")
    assert {"tests/search/test_fusion.py", "tests/search/test_words.py"} <= set(found)


def test_what_counts_as_equivalent_still_stands_in_the_source_and_has_a_reason():
    entries = command.exceptions()
    keys = {f: {m.key for m in mutants(f, (ROOT / f).read_text("utf-8"))} for f in {e["file"] for e in entries}}
    for entry in entries:
        assert entry["key"] in keys[entry["file"]], entry
        assert len(entry["reason"]) > 20, entry


def test_a_summary_counts_by_package_and_lists_who_is_alive(monkeypatch):
    monkeypatch.setattr(command, "exceptions", lambda: [{"key": "c", "file": "app/a.py", "reason": "r"}])
    about = {"package": "app", "file": "app/a.py", "line": 3, "operator": "negate", "before": "x", "after": "(not x)"}
    results = [
        about | {"key": k, "outcome": o}
        for k, o in zip("abcde", ("killed", "timeout", "alive", "alive", "uncovered"), strict=True)
    ]
    text = command.summary(results)
    assert "| app | 5 | 2 | 1 | 1 | 1 | 50 % |" in text
    assert "| app/a.py:3 | negate | `x` → `(not x)` | alive | d |" in text
    assert "| c |" not in text


MODULE = """
from functools import cache
LIMIT = 3
def outer(x, most=LIMIT):
    return [inner(x) for _ in range(most)]
def inner(x): return x + 1
class Kept:
    size = 2
    @cache
    def twice(self, x): return (lambda y: y * 2)(x)
"""


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("x + 1", "x - 1", ([4, 4, 4], 10)),
        ("inner(x) for", "(inner(x),\n inner(x))[0] + 1 for", ([7, 7, 7], 10)),  # what follows moves a line down
        ("y * 2", "y + 2", ([6, 6, 6], 7)),
        ("LIMIT = 3", "LIMIT = 2", None),
        ("most=LIMIT", "most=2", None),
        ("size = 2", "size = 3", None),
        ("@cache", "", None),
    ],
)
def test_a_change_goes_into_loaded_functions_or_is_said_to_lie_outside_them(old, new, expected, tmp_path):
    path = tmp_path / "loaded.py"
    path.write_text(MODULE)
    spec = importlib.util.spec_from_file_location("loaded_here", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    functions = [module.outer, module.inner, module.Kept.twice.__wrapped__]
    sys.modules["loaded_here"] = module
    try:
        assert replaced(functions, str(path), MODULE, MODULE.replace(old, new)) == (expected is not None)
    finally:
        del sys.modules["loaded_here"]
    if expected:
        assert (module.outer(5), module.Kept().twice(5)) == expected


def test_a_file_that_changes_once_the_tests_are_loaded_is_not_what_they_see(tmp_path):
    """Or the first mutant would stay in the process that all later ones are forked from."""
    root, file, name = tmp_path / "copy", "doubled_by_mutants.py", "test_doubled.py::test_doubled"
    root.mkdir()
    source = "def double(x):\n    return 2 * x\n"
    changed = source.replace("2", "3")
    (root / file).write_text(source)
    test = "from doubled_by_mutants import double\ndef test_doubled():\n    assert double(4) == 8\n"
    late, later = "loaded_late_by_mutants.py", "test_doubled.py::test_late"
    (root / late).write_text(source)
    test += "def test_late():\n    from loaded_late_by_mutants import double\n    assert double(4) == 8\n"
    (root / "test_doubled.py").write_text(test)
    server = Server(root, ["test_doubled.py"], "not slow", [])
    try:
        (root / file).write_text(changed)
        outcomes = [server.judge(file, source, other, {name: 1.0}) for other in (source, changed, source)]
        (root / late).write_text(changed)
        seen = server.judge(late, source, changed, {later: 1.0})
    finally:
        server.close()
    assert [(told.rc, told.passed, told.failed) for told in outcomes] == [(0, 1, ""), (1, 0, name), (0, 1, "")]
    assert (seen.rc, seen.failed) == (1, later)  # the check without the bug must not load the changed file


def test_a_folder_is_as_it_was_after_every_kind_of_change(tmp_path):
    folder = tmp_path / "folder"
    for name in ("kept/same.txt", "changed.txt", "replaced.txt", "gone/deep/file.txt", "turned"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "link").symlink_to("kept")
    (folder / "empty").mkdir()

    def held() -> dict[str, str]:
        files = {p: p.read_text() if p.is_file() else p.is_dir() for p in sorted(folder.rglob("*"))}
        return {str(p): f"{p.is_symlink()} {what}" for p, what in files.items()}

    before, made = held(), Restored(folder, tmp_path / "copy")
    same, old = (folder / "kept" / "same.txt").stat().st_ino, (folder / "changed.txt").stat()
    for _ in range(2):
        (folder / "changed.txt").write_text("CHANGED.TXT")
        os.utime(folder / "changed.txt", ns=(old.st_atime_ns, old.st_mtime_ns))  # of the same size and time
        (folder / "new" / "deep").mkdir(parents=True)
        (folder / "new" / "deep" / "file").touch()
        (folder / "replaced.txt").unlink()
        (folder / "replaced.txt").mkdir()
        (folder / "replaced.txt" / "inside").touch()
        shutil.rmtree(folder / "gone")
        (folder / "gone").touch()
        (folder / "link").unlink()
        (folder / "link").write_text("no link")
        (folder / "turned").unlink()
        (folder / "empty").rmdir()
        made.restore()
        assert held() == before
    assert (folder / "kept" / "same.txt").stat().st_ino == same, "what nobody touched is not written again"
    shutil.rmtree(folder)
    made.restore()
    assert held() == before


def test_modules_of_the_copy_are_not_loaded_before_it(tmp_path):
    """Or they bring the package from where the runner stands, and no change of the copy is in what the tests run."""
    inside, outside = (ModuleType("panels") for _ in range(2))
    inside.__file__, outside.__file__ = str(tmp_path / "benchmarks/panels.py"), str(tmp_path.parent / "panels.py")
    space = ModuleType("benchmarks")
    space.__path__ = [str(tmp_path / "benchmarks")]
    assert [forks.lies_in(tmp_path, m) for m in (inside, outside, space, sys)] == [True, False, True, False]


def test_a_child_is_ended_by_the_cpu_that_it_used_and_not_by_the_clock():
    """On a machine with much else to do, the clock would count slow tests as endless ones."""
    ended = {}
    for name, child in {"loops": lambda: [None for _ in iter(int, 1)], "sleeps": lambda: time.sleep(1.2)}.items():
        pid = os.fork()
        if pid == 0:
            forks.limit_cpu(0)  # rounded up to a second
            child()
            os._exit(0)
        ended[name] = os.waitpid(pid, 0)[1]
    assert os.WTERMSIG(ended["loops"]) == signal.SIGXCPU
    assert ended["sleeps"] == 0


def test_slices_stand_in_no_parentheses_and_every_mutant_compiles():
    source = "found = x[:, 0] + x[None, :]\n"
    found = mutants("x.py", source)
    assert {"0,", ":,"} <= {m.after.strip("()") for m in found if m.before == ":, 0"}
    assert not [m for m in found if m.before == "None, :" and m.operator == "drop part"]
    for mutant in found:
        compile(mutant.apply(source), "x.py", "exec")


def test_tests_that_noticed_other_mutants_of_a_function_come_first():
    mutant = next(m for m in mutants("x.py", SOURCE) if m.operator == "negate")
    same = {"file": "x.py", "scope": mutant.scope}
    killed = [{**same, "test": "c"}, {**same, "test": "b"}, {**same, "test": "c"}, {**same, "test": ""}]
    other = [{**same, "scope": "other", "test": "a"}] * 3 + [{**same, "file": "y.py", "test": "a"}] * 3
    assert command.seasoned(["a", "b", "c", "d"], mutant, [*killed, *other]) == ["c", "b", "a", "d"]


def test_quick_tests_of_all_files_come_before_slow_ones():
    mutant = mutants("x.py", SOURCE)[0]
    suite = command.Suite.__new__(command.Suite)
    times = {"a": {"a::1": 0.1, "a::2": 3.0, "a::3": -1e9, "a::4": 9.4}, "b": {"b::1": 0.3, "b::2": 1.0, "b::3": 2.5}}
    lines = {"x.py": {str(mutant.line): [0, 1, 2, 3]}}
    suite.told = {name: forks.Told(tests=tests, lines=lines) for name, tests in times.items()}
    suite.told["b"].lines = {"x.py": {str(mutant.line): [0, 2]}}
    suite.told["a"].shared = {"a::4": 9.0}  # in a fixture that is kept
    assert suite.own_seconds(["a::4", "b::1"]) == pytest.approx({"a::4": 0.4, "b::1": 0.3})
    assert list(suite.rank(mutant, ["b", "a"])) == ["a::1", "a::4", "b::1", "a::2", "b::3"]
    for told in suite.told.values():
        told.lines = {"x.py": {str(mutant.line): [-1]}}
    every = ["a::1", "a::4", "b::1", "b::2", "a::2", "b::3"]
    assert list(suite.rank(mutant, ["b", "a"])) == every  # a module that runs at its import alone declares something
    suite.told["b"].lines["x.py"]["99"] = [1]
    assert list(suite.rank(mutant, ["b", "a"])) == ["b::2", "b::1", "b::3"]  # who uses it, then who may


def test_of_a_constant_over_several_lines_the_first_is_traced():
    source = "NAMES = (\n    'other',\n    'image',\n)\n\n\ndef name():\n    return (\n        'image'\n    )\n"
    constant, returned = (next(m for m in mutants("x.py", source) if m.line == line) for line in (3, 9))
    suite = command.Suite.__new__(command.Suite)
    suite.told = {"a": forks.Told(tests={"a::1": 0.1}, lines={"x.py": {"1": [-1], "7": [-1]}})}
    assert suite.at_import(constant)
    assert not suite.at_import(returned)  # no test has called it
    assert list(suite.rank(returned, ["a"])) == []


def test_a_second_run_in_the_same_checkout_is_refused_and_the_next_one_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "STATE", tmp_path)
    with command.alone(), pytest.raises(SystemExit, match=f"process {os.getpid()}.*another checkout"), command.alone():
        raise AssertionError("two runs would change one copy")
    with command.alone():
        assert (tmp_path / "lock").read_text() == str(os.getpid())
