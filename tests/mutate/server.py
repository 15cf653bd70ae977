"""Tests that stay collected: each mutant is put into the functions of a fork, so that nothing is imported again.

What fixtures of a module or session made is kept too: a mutant whose lines a fixture does not reach finds it ready.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import inspect
import itertools
import json
import os
import shutil
import signal
import stat
import sys
import tempfile
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import CodeType, FunctionType

import pytest

from tests.mutate.forks import Order, Told, limit_cpu, named, prepared

PATIENCE = 20  # seconds of CPU that a test may use beside five times what it took
ASLEEP = 300  # seconds of the clock beside twenty times what it took: who uses no CPU for so long waits for ever


class Server:
    """A process that has collected test files, and forks once for each mutant."""

    def __init__(self, root: Path, files: Sequence[str], marks: str, modules: Iterable[str]) -> None:
        """Start it, with modules loaded that some test will need. It ends with this process, or at `close`."""
        self.root = root
        self.answer, log, temp = (root.parent / name for name in ("answer.json", "log.txt", "tmp"))
        self.sound: set[str] = set()  # tests that pass without a bug, in a fork
        self.broken: set[str] = set()
        asked, ask = os.pipe()
        replied, reply = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(ask)
            os.close(replied)
            try:
                there = set(sys.modules)
                for name in modules:
                    with contextlib.suppress(ImportError):
                        importlib.import_module(name)
                assert not [name for name in set(sys.modules) - there if name.split(".")[0] in ("stage3", "app")]
                arguments = prepared(root, files, marks, log, temp, cover=False)
                pytest.main(["-x", *arguments], plugins=[_Serve(root, self.answer, temp, asked, reply)])
            except BaseException:  # the child must not go on as its parent; what happened stands in the log
                traceback.print_exc()
            finally:
                os._exit(0)
        os.close(asked)
        os.close(reply)
        self.asks, self.replies = os.fdopen(ask, "w"), os.fdopen(replied)
        if not self.replies.readline():  # until all is loaded: the files may change from now on
            self.close()
            raise SystemExit(f"the tests could not be collected; see {log}")

    def judge(
        self, file: str, source: str, other: str, limits: Mapping[str, float], stale: Sequence[str] = ()
    ) -> Told | None:
        """Run the tests, in order, each with the seconds that it took, on `other` instead of `source` of a file.

        None where the change is not inside functions that can be replaced. The rc is -9 where a test used too much CPU,
        so that a machine with much else to do kills no mutant, and -8 where it slept on.
        """
        while True:
            told = self._ask(file, source, other, {n: t for n, t in limits.items() if n not in self.broken}, stale)
            if told is None or not told.failed or told.failed in self.sound:
                return told
            path = self.root / file
            changed = path.read_text(encoding="utf-8")
            path.write_text(source, encoding="utf-8")  # a test may be the first to load it
            alone = self._ask(file, source, source, {told.failed: limits[told.failed]}, ())
            path.write_text(changed, encoding="utf-8")
            if alone and alone.rc == 0:
                self.sound.add(told.failed)
            else:
                self.broken.add(told.failed)  # it fails among kept fixtures, with no bug
                print(f"not used: {told.failed} fails without a bug: {alone and alone.why[-300:]}", flush=True)

    def _ask(
        self, file: str, source: str, other: str, limits: Mapping[str, float], stale: Sequence[str]
    ) -> Told | None:
        self.answer.unlink(missing_ok=True)
        self.asks.write(json.dumps([file, source, other, dict(limits), list(stale)]) + "\n")
        self.asks.flush()
        replied = self.replies.readline()
        if not replied:  # no verdict on the mutant
            raise SystemExit("the process that runs the tests has ended; see log.txt beside the copy")
        status = int(replied)
        if status in (signal.SIGALRM, signal.SIGPROF, signal.SIGXCPU):
            return Told(rc=-8 if status == signal.SIGALRM else -9)
        told = Told(**json.loads(self.answer.read_text(encoding="utf-8"))) if self.answer.exists() else Told(rc=-1)
        return None if told.rc == NOT_HERE else told

    def close(self) -> None:
        """End it."""
        self.asks.close()
        self.replies.close()
        os.waitpid(self.pid, 0)


NOT_HERE = 99


class Restored:
    """A folder that is brought back to what it held; only what has changed since is copied: thousands of files stay."""

    def __init__(self, folder: Path, copy: Path) -> None:
        """Copy what it holds now."""
        self.folder, self.copy = folder, copy
        folder.mkdir(exist_ok=True)
        shutil.rmtree(copy, ignore_errors=True)
        with contextlib.suppress(shutil.Error):  # a socket, or a pipe, that a fixture made
            shutil.copytree(folder, copy, symlinks=True)
        self.held = self._found()

    def restore(self) -> None:
        """As it was: also what was changed in place, replaced, added or removed."""
        self.folder.mkdir(exist_ok=True)  # a run of pytest beside it takes the same place
        now = self._found()
        for name in now.keys() - self.held.keys():
            _remove(self.folder / name)
        for name in [name for name, what in self.held.items() if now.get(name) != what]:  # a folder before its files
            here, kept = self.folder / name, self.copy / name
            if here.is_dir() and kept.is_dir() and not here.is_symlink():
                continue
            _remove(here)
            if kept.is_symlink():
                here.symlink_to(kept.readlink())
            elif kept.is_dir():
                here.mkdir()
            elif kept.exists():
                shutil.copy2(kept, here)
            if os.path.lexists(here):
                self.held[name] = self._what(here)

    def _found(self) -> dict[str, tuple[int, ...]]:
        """All below it, a folder before what is in it; a change of a file in place has another time of change."""
        found = {}
        for root, folders, files in os.walk(self.folder):
            for path in (Path(root, name) for name in (*folders, *files)):
                found[str(path.relative_to(self.folder))] = self._what(path)
        return found

    @staticmethod
    def _what(path: Path) -> tuple[int, ...]:
        info = path.lstat()
        if stat.S_ISDIR(info.st_mode):
            return (info.st_mode,)
        return (info.st_mode, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


class _Serve:
    """In place of pytest's loop over the tests: one fork for each line that is asked."""

    def __init__(self, root: Path, answer: Path, temp: Path, asked: int, reply: int) -> None:
        self.root, self.answer, self.temp = root, answer, temp
        self.asked, self.reply = os.fdopen(asked), os.fdopen(reply, "w")
        self.kept: dict[tuple[str, int], object] = {}
        self.needs: dict[str, set[str]] = {}  # names of the fixtures that a fixture takes
        self.stale: set[str] = set()
        self.ready = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        self._make_ready(session)
        if (self.root / "app").is_dir() and any(name.split(".")[0] == "app" for name in sys.modules):
            _explorer_loaded(self.root)
        gc.unfreeze()  # or what was collected before the tests is not among the objects
        functions = [f for f in gc.get_objects() if type(f) is FunctionType]
        functions = [f for f in functions if f.__code__.co_filename.startswith(str(self.root))]
        caches = [c for c in gc.get_objects() if type(c) is functools._lru_cache_wrapper]  # asking a proxy may warn
        caches = [c for c in caches if str(getattr(c, "__module__", "")).split(".")[0] in ("stage3", "tests")]
        gc.collect()
        gc.freeze()
        made = Restored(self.temp, self.temp.with_name("tmp.kept"))
        self.reply.write("loaded\n")
        self.reply.flush()
        for line in self.asked:
            file, source, other, limits, stale = json.loads(line)
            made.restore()  # it finds what the fixtures wrote, and no more
            pid = os.fork()
            if pid == 0:
                told = Told()
                try:
                    os.setsid()
                    self.stale = self._with_dependents(set(stale))
                    for cache in caches:
                        cache.cache_clear()
                    if other == source or replaced(functions, str(self.root / file), source, other):
                        _run(session, [items[name] for name in limits if name in items], told, limits)
                    else:
                        told.rc = NOT_HERE
                    self.answer.write_text(json.dumps(told.__dict__), encoding="utf-8")
                finally:
                    os._exit(0)
            _, status = os.waitpid(pid, 0)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)  # whatever its tests started
            self.reply.write(f"{os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0}\n")
            self.reply.flush()
        return True

    def _make_ready(self, session: pytest.Session) -> None:
        """Set up, and tear down, one test for each fixture that can be kept: of a module or more, and a plain value."""
        for item in session.items:
            defined = [d[-1] for d in item._fixtureinfo.name2fixturedefs.values() if d]  # type: ignore[attr-defined]
            if all(not _can_be_kept(d) or any(name == named(d) for name, _ in self.kept) for d in defined):
                continue
            with contextlib.suppress(Exception, pytest.skip.Exception, pytest.fail.Exception):
                session._setupstate.setup(item)
            with contextlib.suppress(Exception):
                session._setupstate.teardown_exact(None)
            item._initrequest()  # type: ignore[attr-defined]
        self.ready = True

    @pytest.hookimpl(tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest) -> object:
        key = (named(fixturedef), request.param_index)  # type: ignore[attr-defined]
        if key not in self.kept or key[0] in self.stale:
            return None
        fixturedef.cached_result = (self.kept[key], fixturedef.cache_key(request), None)  # type: ignore[arg-type]
        return self.kept[key]

    @pytest.hookimpl(wrapper=True, tryfirst=True, specname="pytest_fixture_setup")
    def pytest_keep(self, fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest) -> Iterator[None]:
        value = yield
        if not self.ready and _can_be_kept(fixturedef) and value is not None:
            self.kept[named(fixturedef), request.param_index] = value  # type: ignore[attr-defined]
            self.needs.setdefault(named(fixturedef), set()).update(fixturedef.argnames)
        return value  # type: ignore[return-value]

    def _with_dependents(self, stale: set[str]) -> set[str]:
        while True:
            names = {name.split(" ")[1] for name in stale}
            more = {name for name, needs in self.needs.items() if needs & names}
            if more <= stale:
                return stale
            stale = stale | more


def _can_be_kept(fixture: pytest.FixtureDef[object]) -> bool:
    return fixture.scope in ("module", "package", "session") and not inspect.isgeneratorfunction(fixture.func)


def _explorer_loaded(root: Path) -> None:
    """Load what the explorer loads when a view is opened; nothing of it is kept but modules."""
    import streamlit as st
    from streamlit.components.v2 import manifest_scanner
    from streamlit.testing.v1 import AppTest

    manifest_scanner.scan_component_manifests = functools.cache(manifest_scanner.scan_component_manifests)
    for path in sorted((root / "app").rglob("*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        if name != "app.ui":  # the page itself, which is run and not imported
            importlib.import_module(name)
    with tempfile.TemporaryDirectory() as empty, contextlib.chdir(empty):
        AppTest.from_file(str(root / "app" / "ui.py"), default_timeout=600).run()
    st.cache_data.clear()
    st.cache_resource.clear()


def _run(session: pytest.Session, items: Sequence[pytest.Item], told: Told, limits: Mapping[str, float]) -> None:
    session.config.pluginmanager.register(Order({}, told))
    limit_cpu(PATIENCE + 5 * sum(limits.values()))  # processes that the tests start inherit it
    for item, after in itertools.zip_longest(items, items[1:]):
        for number in (signal.SIGALRM, signal.SIGPROF):
            signal.signal(number, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, PATIENCE + 5 * limits[item.nodeid])
        signal.alarm(ASLEEP + int(20 * limits[item.nodeid]))
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
        if told.failed:
            break
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.alarm(0)
    told.rc = (-8 if told.late else 1) if told.failed else 0


def replaced(functions: Sequence[FunctionType], path: str, source: str, other: str) -> bool:
    """Give the functions of a loaded file the code that `other` has; False where more than functions differ.

    A file that is not loaded yet comes from the disk, changed, when it is.
    """
    if not any(getattr(m, "__file__", None) == path for m in list(sys.modules.values())):
        return True
    old, new = (compile(text, path, "exec", dont_inherit=True) for text in (source, other))
    changed = differing(old, new)
    if not changed:
        return False
    for old, new in changed:
        outer = [f for f in functions if f.__code__ == old]
        if not outer:
            return False
        for before, after in [(old, new), *_inner(old, new)]:
            for function in [f for f in functions if f.__code__ == before]:
                try:
                    function.__code__ = after
                except ValueError:  # another number of names taken from around it
                    return False
    return True


def differing(old: CodeType, new: CodeType) -> list[tuple[CodeType, CodeType]] | None:
    """The outermost functions that differ, with what they become; None where the code around them does."""
    if _bare(old) != _bare(new):
        return None
    found: list[tuple[CodeType, CodeType]] = []
    for before, after in zip(_codes(old), _codes(new), strict=True):
        if _same(before, after):
            continue
        if "__module__" in before.co_names and "__qualname__" in before.co_names:  # a class body
            inner = differing(before, after)
            if inner is None:
                return None
            found += inner
        else:
            found.append((before, after))
    return found


def _codes(code: CodeType) -> list[CodeType]:
    return [c for c in code.co_consts if isinstance(c, CodeType)]


def _inner(old: CodeType, new: CodeType) -> Iterator[tuple[CodeType, CodeType]]:
    if len(_codes(old)) == len(_codes(new)):
        for before, after in zip(_codes(old), _codes(new), strict=True):
            yield before, after
            yield from _inner(before, after)


def _bare(code: CodeType) -> tuple[object, ...]:
    """What a code is apart from its lines and the codes in it."""
    constants = [repr(c) if not isinstance(c, CodeType) else c.co_name for c in code.co_consts]
    return (code.co_name, code.co_code, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars,
            code.co_argcount, code.co_kwonlyargcount, code.co_flags, code.co_exceptiontable, constants)  # fmt: skip


def _same(old: CodeType, new: CodeType) -> bool:
    inner = _codes(old), _codes(new)
    return _bare(old) == _bare(new) and all(_same(a, b) for a, b in zip(*inner, strict=True))
