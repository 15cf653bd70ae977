"""The notebooks run as they are, each assertion in them holds, and they keep to the public names of the package."""

import ast
import io
import re
import sys
from pathlib import Path

import forked_children
import jupytext
import pytest
from jupyter_client import launcher
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("[0-9]*.py"))
SECONDS = 56.0  # of processor time, and 4 of imports: a busy machine must not fail a notebook


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    """A kernel that is this interpreter, whatever kernels the machine has."""
    from ipykernel.kernelspec import write_kernel_spec

    folder = tmp_path_factory.mktemp("kernels")
    write_kernel_spec(folder / "this_interpreter")
    return KernelSpecManager(kernel_dirs=[str(folder)])


def forked_kernel(command, *, env, stdin, **given):
    """A kernel that has imported the package; it need not look for its parent, which is the fork server."""
    env = {name: value for name, value in env.items() if name != "JPY_PARENT_PID"}
    kernel = forked_children.Popen(command, env=env, stdin=None, **given)
    kernel.stdin, kernel.stdout, kernel.stderr = io.BytesIO(), None, None  # which Jupyter closes
    return kernel


def outputs(notebook, kind):
    return [o for c in notebook.cells for o in c.get("outputs", []) if o.output_type == kind]


# Weekly: one trains, stops and resumes at the length of a lesson, as tests/train does in seconds; the other's dozen
# trainings show which faults tests/model/test_ablations.py sees one by one. That their names are there is seen below.
LENGTHY = {"03_training_and_reading_curves", "05_findings"}


@pytest.mark.notebook
@pytest.mark.parametrize(
    "path", [pytest.param(p, id=p.stem, marks=[pytest.mark.heavy] * (p.stem in LENGTHY)) for p in NOTEBOOKS]
)
def test_notebook_runs_and_its_conclusions_hold(path, kernels, monkeypatch, tmp_path):
    for name, value in {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # what a notebook leaves behind is gone with the test
    monkeypatch.setenv("TEMP", str(tmp_path))
    if path != NOTEBOOKS[0] and sys.platform == "linux":  # one starts as a person's does
        monkeypatch.setattr(launcher, "Popen", forked_kernel)
    notebook = jupytext.read(path)
    notebook.cells.append(new_code_cell("import time\ntime.process_time()"))
    client = NotebookClient(
        notebook, timeout=600, kernel_name="this_interpreter", resources={"metadata": {"path": str(FOLDER)}}
    )
    client.create_kernel_manager().kernel_spec_manager = kernels
    client.execute()
    spent = float(notebook.cells[-1].outputs[0].data["text/plain"])
    assert spent < SECONDS
    assert not [o.text for o in outputs(notebook, "stream") if o.name == "stderr" and "arning" in o.text]
    figures = [o for kind in ("display_data", "execute_result") for o in outputs(notebook, kind)]
    assert any("application/vnd.plotly.v1+json" in o.data for o in figures)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_keeps_to_public_names_that_are_there(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("stage3"):
            assert not [alias.name for alias in node.names if alias.name.startswith("_")]
            exec(compile(ast.Module([node], []), path.name, "exec"), {})  # each is there
        if isinstance(node, ast.Attribute):
            assert not re.match(r"_[^_]", node.attr), f"line {node.lineno}: {node.attr}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_teaches_and_asserts(path):
    """Every section of a notebook ends in something that the code checks."""
    notebook = jupytext.read(path)
    sections, checked = [], {}
    for cell in notebook.cells:
        titles = re.findall(r"^## (.+)$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else []
        sections.extend(titles)
        if (
            cell.cell_type == "code"
            and sections
            and re.search(r"^\s*assert |assert_close|assert_frame", cell.source, re.MULTILINE)
        ):
            checked[sections[-1]] = True
    assert len(sections) > 2
    assert [s for s in sections[:-1] if s not in checked] == []  # the last sums up


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_begins_with_how_long_it_takes_and_how_to_open_it(path):
    top = " ".join(jupytext.read(path).cells[0].source.split())
    assert re.search(r"Takes (a minute|\d+ seconds)\.", top)
    assert f"`jupytext --to notebook notebooks/{path.name}`" in top


def test_notebooks_are_paired_and_name_no_machine():
    pairing = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'formats = "ipynb,py:percent"' in pairing
    assert len(NOTEBOOKS) == 6
    for path in [*NOTEBOOKS, FOLDER / "plots.py"]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"""["'](/[a-z]+/|[A-Z]:\\)""", text), path.name
