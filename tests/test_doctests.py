"""The examples in docstrings run as written, in the repository's root, and no public name is without one."""

import doctest
import importlib
import inspect
import io
import pkgutil
from pathlib import Path

import pytest

import stage3
from stage3 import losses, metrics

pytestmark = pytest.mark.slow

MODULES = sorted(m.name for m in pkgutil.walk_packages(stage3.__path__, "stage3.") if not m.name.endswith("__main__"))
ROOT = Path(__file__).resolve().parents[1]


def examples(module):
    finder = doctest.DocTestFinder(exclude_empty=True)
    return [test for test in finder.find(module) if test.examples]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run_as_written(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    told = io.StringIO()
    runner = doctest.DocTestRunner()
    for test in examples(importlib.import_module(name)):
        runner.run(test, out=told.write)
    assert not runner.failures, told.getvalue()


def public():
    yield from ((losses, name) for name in losses.__all__)
    yield from ((metrics, name) for name in metrics.__all__)
    yield from ((stage3, name) for name in dir(stage3) if not name.startswith("_"))


@pytest.mark.parametrize(("module", "name"), list(public()), ids=lambda v: v if isinstance(v, str) else v.__name__)
def test_every_public_name_has_an_example(module, name):
    thing = getattr(module, name)
    if not inspect.ismodule(thing) and callable(thing):
        assert ">>> " in (inspect.getdoc(thing) or ""), "a two-line example that doctest runs"
