"""The architecture: layers, no cycles, quick help, and nothing that a file could make run."""

import ast
import functools
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from stage3.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PICKLES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}


@functools.cache
def parsed(path: Path) -> ast.Module:
    """The code of a file, which several tests read."""
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module", autouse=True)
def _code_is_kept_for_these_tests() -> Iterator[None]:
    yield
    parsed.cache_clear()
    imports.cache_clear()


distributions = functools.cache(packages_distributions)


def dotted(node: ast.expr) -> str:
    """`a.b.c` as it stands; what else it begins with is a question mark."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else "?"


def modules() -> dict[str, list[Path]]:
    """Files of each module or package directly under stage3."""
    found: dict[str, list[Path]] = {}
    for path in sorted((ROOT / "stage3").rglob("*.py")):
        name = path.relative_to(ROOT / "stage3").parts[0].removesuffix(".py")
        if not name.startswith("__"):
            found.setdefault(name, []).append(path)
    return found


@functools.cache
def imports(path: Path) -> frozenset[str]:
    """Dotted names that a file imports anywhere, inside functions too, but not for types only."""
    tree = parsed(path)
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return frozenset(names)


def test_the_layers_hold_and_nothing_imports_in_a_circle():
    """The layers are declared in pyproject.toml; docs/architecture.md shows them."""
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def test_every_package_of_stage3_has_a_layer_and_a_place_in_the_document():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    contracts = declared["contracts"]
    layers = {name.strip() for line in contracts[0]["layers"] for name in line.split("|")}
    assert layers == {f"stage3.{name}" for name in modules()} | {"stage3.__main__"}
    document = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert not [name for name in modules() if not re.search(rf"\b{name}(\.py|/)", document)]


@pytest.mark.parametrize("folder", ["stage3", "app", "benchmarks"])
def test_what_is_imported_is_declared(folder):
    """Not only brought along by something else that is."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {
        "stage3": ["app", "faiss", "ocr", "ray", "remote", "tensorboard"],
        "app": ["app", "test"],
        "benchmarks": ["app", "test"],
    }[folder]
    wanted = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    declared = {re.split(r"[^A-Za-z0-9._-]", line)[0].lower().replace("_", "-") for line in wanted}
    known = distributions()
    for path in (ROOT / folder).rglob("*.py"):
        for name in (
            {n.split(".")[0] for n in imports(path)} - sys.stdlib_module_names - {"stage3", "app", "benchmarks"}
        ):
            its = {d.lower().replace("_", "-") for d in known.get(name, [])}
            assert not its or its & declared, f"{path} imports {name}"


HELPS = """
import contextlib, io, json, runpy, sys
found = {}
for command in sys.argv[1].split():
    sys.argv, printed, code = [command, "--help"], io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        try:
            runpy.run_module(f"stage3.{command}", run_name="__main__")
        except SystemExit as end:
            code = end.code
    heavy = {"torch", "transformers", "sklearn", "umap", "zarr"} & set(sys.modules)
    found[command] = [code, sorted(heavy), printed.getvalue()]
print(json.dumps(found))
"""


def test_help_is_quick_because_it_loads_no_torch():
    """Three seconds to the help text would be gone with torch and transformers alone."""
    words = [sys.executable, "-c", HELPS, " ".join(COMMANDS)]  # one process: what none of them loads, all do not
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=True)
    helps = json.loads(done.stdout)
    assert helps.keys() == set(COMMANDS)
    for command, (code, heavy, printed) in helps.items():
        assert (code, heavy) == (0, []), command
        assert f"python -m stage3.{command}" in printed
        assert "examples:" in printed, command


def test_nothing_that_a_file_could_hold_is_ever_run():
    """No pickle anywhere: whatever reads one is named here, whichever library it comes from.

    One confined process opens checkpoints of the original trainer, as weights alone, and knows one error by its name.
    """
    confined = ROOT / "stage3" / "convert" / "child.py"
    named = {"eval", "exec", "torch.load", "torch.save", "torch.jit.load"}
    switches = {"weights_only", "allow_pickle", "trust_remote_code"}
    for path in sorted([*(ROOT / "stage3").rglob("*.py"), *(ROOT / "app").rglob("*.py")]):
        if path != confined:
            assert not {n.split(".")[0] for n in imports(path)} & PICKLES, path
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ImportFrom) and node.module in PICKLES:
                assert [name.name for name in node.names] == ["UnpicklingError"], f"{path}:{node.lineno}"
            if isinstance(node, ast.Import):
                assert not {name.name for name in node.names} & PICKLES, f"{path}:{node.lineno}"
            if not isinstance(node, ast.Call):
                continue
            called = dotted(node.func)
            given = {k.arg: ast.unparse(k.value) for k in node.keywords if k.arg in switches}
            if path == confined and called == "torch.load":
                assert given["weights_only"] == "True", f"{path}:{node.lineno}"
                continue
            assert called not in named, f"{path}:{node.lineno}: {called}"
            assert not called.endswith((".read_pickle", ".to_pickle")), f"{path}:{node.lineno}: {called}"
            assert called != "np.load" or given.get("allow_pickle") == "False", f"{path}:{node.lineno}"
            assert given.get("allow_pickle", "False") == "False", f"{path}:{node.lineno}"
            assert given.get("trust_remote_code", "False") == "False", f"{path}:{node.lineno}"


def test_nothing_loosens_pillow_for_the_whole_process():
    for path in sorted([*(ROOT / "stage3").rglob("*.py"), *(ROOT / "app").rglob("*.py")]):
        text = path.read_text(encoding="utf-8")
        assert "LOAD_TRUNCATED_IMAGES = True" not in text, path
        assert "MAX_IMAGE_PIXELS = None" not in text, path


def test_one_place_catches_every_error():
    """The explorer's boundary, which shows them and writes them into the log; others may only pass one on."""
    broad = {"", "Exception", "BaseException"}
    found = []
    for folder in ("stage3", "app", "tools", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(parsed(path)):
                if isinstance(node, ast.Call) and dotted(node.func).endswith("suppress"):
                    assert not broad & {ast.unparse(kind) for kind in node.args}, f"{path}:{node.lineno}"
                if not isinstance(node, ast.ExceptHandler):
                    continue
                kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type] if node.type else []
                passes_on = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
                if (not kinds or broad & {ast.unparse(kind) for kind in kinds}) and not passes_on:
                    found.append(path.relative_to(ROOT).as_posix())
    assert found == ["app/guard.py"]


def test_images_travel_within_their_message():
    """`st.image` with bytes makes a file that the next run of the script may delete before a browser asks for it."""
    found = []
    for path in sorted((ROOT / "app").rglob("*.py")):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call) and re.fullmatch(r"st\.(image|audio|video|pyplot)", dotted(node.func)):
                found.append(path.relative_to(ROOT).as_posix())
    assert found == ["app/shell.py"]
