"""The README and the documentation say what is true: the example runs, links lead somewhere, commands exist."""

import contextlib
import io
import json
import os
import re
import runpy
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

import stage3
from stage3.__main__ import COMMANDS
from stage3.config import Config
from stage3.data import readers
from tests.planted_bugs import ROOT

pytestmark = pytest.mark.slow

README = ROOT / "README.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
HISTORY = ROOT / "CHANGELOG.md"  # names what is gone, too
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]


def blocks(text: str) -> list[tuple[str, str]]:
    """(language, content) of each fenced code block, indented or not."""
    found = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [(language, content) for language, content in found]


def fenced(text: str, language: str) -> list[str]:
    """Code blocks of one language."""
    return [content for name, content in blocks(text) if name == language]


def prose(text: str) -> str:
    """A document without its code blocks."""
    return re.sub(r"^ *```\w*\n.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)


def lines_of(path: Path) -> list[str]:
    """Pieces of code, in blocks or in backticks, a line each."""
    text = path.read_text(encoding="utf-8")
    inline = re.findall(r"`([^`]+)`", prose(text))
    return [*(line for _, block in blocks(text) for line in block.splitlines()), *(" ".join(i.split()) for i in inline)]


# --- the README


def test_the_readme_has_at_most_a_thousand_words():
    assert len(README.read_text(encoding="utf-8").split()) <= 1000


def test_the_example_stands_in_the_first_screen_and_has_ten_lines():
    text = README.read_text(encoding="utf-8")
    (example,) = fenced(text, "python")
    assert sum(bool(line) for line in example.splitlines()) == 10
    assert text[: text.index(example)].count("\n") < 20


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The README's example, run as it stands in a folder that has the samples; its folder and what it printed."""
    folder = tmp_path_factory.mktemp("example")
    (folder / "data").mkdir()
    try:
        (folder / "data" / "samples").symlink_to(ROOT / "data" / "samples", target_is_directory=True)
    except OSError:  # Windows, without the right to make links
        import shutil

        shutil.copytree(ROOT / "data" / "samples", folder / "data" / "samples")
    (example,) = fenced(README.read_text(encoding="utf-8"), "python")
    checks = "print(len(vectors), vectors.shape[1], vectors.index.name, vectors.index[0])\n"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", example + checks],
        cwd=folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout.splitlines()


@pytest.mark.slow
def test_the_example_prints_both_recalls_with_intervals_around_them(ran):
    _, printed = ran
    pattern = re.compile(r"retrieval/(i2t|t2i)_r5: ([\d.]+)%, 95 % interval ([\d.]+)% to ([\d.]+)%")
    found = [m for line in printed if (m := pattern.fullmatch(line))]
    assert [m[1] for m in found] == ["i2t", "t2i"]
    for m in found:
        value, low, high = map(float, m.groups()[1:])
        assert 10 < low < value < high < 100  # chance is 1.6 %


@pytest.mark.slow
def test_the_example_finds_panels_by_words(ran):
    folder, printed = ran
    panels = set(pd.read_parquet(folder / "panels.panels.parquet")["panel_id"])
    head = next(i for i, line in enumerate(printed) if line.split() == ["panel_id", "score"])
    scores = []
    for line in printed[head + 1 : head + 4]:
        _, panel_id, score = line.split()
        assert panel_id in panels
        scores.append(float(score))
    assert scores == sorted(scores, reverse=True)
    assert 0 < scores[-1] <= scores[0] <= 1


@pytest.mark.slow
def test_the_examples_embeddings_are_a_frame_with_panel_ids_and_its_store_is_intact(ran):
    folder, printed = ran
    rows, dim, index, first = printed[-1].split()
    store = stage3.open_store(folder / "panels.zarr")
    written = store.panels()
    test = written[written["split"] == "test"]
    assert (int(rows), int(dim), index) == (len(test), store.embeddings.shape[2], "panel_id")
    assert first in set(test["panel_id"])
    assert stage3.verify_store(folder / "panels.zarr") == []


@pytest.mark.slow
def test_the_example_trains_with_the_two_settings_that_it_changes(ran):
    folder, _ = ran
    (example,) = fenced(README.read_text(encoding="utf-8"), "python")
    asked = dict(re.findall(r"(\w+)=([\d.]+)", re.search(r"Run\.train\((.*)\)", example)[1]))
    run = stage3.Run.load(folder / "runs" / "first")
    assert len(asked) == 2
    for name, value in asked.items():
        assert getattr(run.config, name) == float(value) != getattr(Config(), name)
    assert run.metrics()["epoch"].max() == run.config.epochs


@pytest.mark.slow
def test_a_run_has_the_files_that_the_readme_shows(ran):
    folder, _ = ran
    text = README.read_text(encoding="utf-8")
    (tree,) = [block for block in fenced(text, "") if block.startswith("runs/first/")]
    named = [n for line in tree.splitlines()[1:] for n in re.findall(r"[\w.-]+(?:/[\w-]+)*/?", line.split("   ")[0])]
    on_demand = {"evaluation-test.json", "embeddings/", "projections/", "inspection/"}
    assert on_demand < set(named)
    run = folder / "runs" / "first"
    for name in set(named) - on_demand:
        assert (run / name).exists(), name
    shown = {name.split("/")[0] for name in named}
    assert {p.name for p in run.iterdir()} - shown == {"lock"}


# --- links


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_to_files_of_the_repository(name):
    path = ROOT / name
    text = prose(path.read_text(encoding="utf-8"))
    targets = [t for t in re.findall(r"\]\(([^)\s]+)\)", text) if not t.startswith(("http://", "https://", "#"))]
    missing = [t for t in targets if not (path.parent / t.split("#")[0]).exists()]
    assert not missing


def test_documents_are_within_reach_of_the_readme():
    seen, new = set(), {README}
    while new:
        seen |= new
        found = {
            (p.parent / t.split("#")[0]).resolve()
            for p in new
            for t in re.findall(r"\]\(([^)\s]+\.md)\)", p.read_text(encoding="utf-8"))
        }
        new = {p for p in found if p in DOCUMENTS} - seen
    assert seen == set(DOCUMENTS)


def test_every_notebook_is_in_the_readme():
    text = README.read_text(encoding="utf-8")
    books = sorted(p.stem for p in (ROOT / "notebooks").glob("[0-9]*.py"))
    assert re.findall(r"^\| `(\d\d_\w+)` \|", text, re.MULTILINE) == books


# --- commands


def module_file(dotted: str) -> Path | None:
    """The file that `python -m` runs."""
    base = ROOT.joinpath(*dotted.split("."))
    return next((p for p in (base / "__main__.py", base.with_suffix(".py")) if p.is_file()), None)


COMMAND = re.compile(
    r"(?:(?:^|[\s(&])python3? -m (?P<module>(?:stage3|tools|tests|benchmarks)[\w.]*)|^stage3 (?P<name>[a-z]+))"
    r"(?P<rest>.*)"
)


ACTIONS = re.compile(r"\s+(import|export)\b")  # of `stage3.data`: each has a help of its own


def commands() -> list[tuple[str, str, str]]:
    """(document, module, rest of the line) of every command that the documents name, but for what history names."""
    found = []
    for path in DOCUMENTS:
        for line in lines_of(path) if path != HISTORY else ():
            if m := COMMAND.search(line.split("  #")[0]):
                found.append((path.name, m["module"] or f"stage3.{m['name']}", m["rest"]))
    return found


def test_the_documents_name_most_commands():
    named = {module for _, module, _ in commands()}
    assert {f"stage3.{name}" for name in COMMANDS} <= named | {"stage3.projection", "stage3.search"}
    assert len(commands()) > 20


def test_every_command_that_is_named_exists():
    for document, module, _ in commands():
        if module == "stage3.COMMAND":
            continue
        assert module_file(module), f"{document}: python -m {module}"
        assert not module.startswith("stage3.") or module.split(".")[1] in COMMANDS, f"{document}: {module}"


@cache
def options(module: str, *action: str) -> set[str]:
    """Long options in the help of a module, or of one of its actions; as `python -m` runs it, in this process."""
    shown = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(), contextlib.redirect_stdout(shown):
        warnings.filterwarnings("ignore", ".*found in sys.modules", RuntimeWarning)  # another test has imported it
        patch.setattr(sys, "argv", [module, *action, "--help"])
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(module, run_name="__main__")
    assert not ended.value.code, module
    return {name.replace("-", "_") for name in re.findall(r"--([a-z][\w-]*)", shown.getvalue())}


def test_every_option_that_is_shown_is_in_the_help_of_its_command():
    shown = 0
    for document, module, rest in commands():
        for option in re.findall(r"--([a-z][\w-]*)", rest.split("|")[0]):
            action = ACTIONS.match(rest) if module == "stage3.data" else None
            known = options(module, *(action.groups() if action else ()))
            assert option.replace("-", "_") in known, f"{document}: python -m {module} --{option}"
            shown += 1
    assert shown > 15


def test_settings_that_stand_alone_exist():
    """`--setting` without a command before it, in backticks."""
    known = set().union(
        *(options(f"stage3.{name}") for name in COMMANDS),
        *(options("stage3.data", action) for action in ("import", "export")),
        options("tools.release"),
        options("benchmarks"),
        options("tests.mutate"),
    )
    for path in DOCUMENTS:
        for line in lines_of(path) if path != HISTORY else ():
            if m := re.match(r"--([a-z][\w-]*)", line):
                assert m[1].replace("-", "_") in known, f"{path.name}: {line}"


# --- formats


@pytest.mark.parametrize("style", ["vlm", "ocr", "aligned"])
def test_the_examples_of_formats_are_read_as_they_stand(style, tmp_path):
    text = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    pairs = re.findall(r"<!-- example: ([\w.]+) -->\n```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    example = dict(pairs)
    about = yaml.safe_load(example["dataset.yaml"]) | {"panel_format": style}
    (tmp_path / "scans").mkdir()
    ids = [line.split(",")[0] for line in example["pages.csv"].splitlines()[1:]]
    for page_id in ids:
        Image.new("RGB", (400, 600 + ids.index(page_id)), "white").save(
            tmp_path / "scans" / f"{page_id.replace('/', '_')}.png"
        )
    if style == "aligned":
        about["panels"] = "panels.json"
        (tmp_path / "panels.json").write_text(example["aligned.json"], encoding="utf-8")
        ids = [page["canonical_id"] for page in json.loads(example["aligned.json"])]  # of the pages that it lists
    else:
        for page_id in ids:
            file = tmp_path / about["panels"] / f"{page_id}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(example[f"{style}.json"], encoding="utf-8")
    for name in ("pages.csv", "labels.json"):
        (tmp_path / name).write_text(example[name], encoding="utf-8")
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump(about), encoding="utf-8")
    table = readers.read(Config(data=str(tmp_path), cache_dir=str(tmp_path / "cache")))
    first = table.panels[table.panels["page"] == 0]
    assert table.pages["page_id"].tolist() == ids
    assert (table.pages["image_path"] != "").all()
    assert first["dialogue"].tolist()[0] == "Where is it?"
    assert first["has_box"].tolist() == ([True, True, False] if style == "aligned" else [True, True])
    top = first.iloc[0]
    assert (top.x, top.y, top.w, top.h) == pytest.approx((0.053, 0.035, 0.894, 0.444), abs=2e-3)
    expected = {"box_missing", "page:no_panel_file"} if style == "aligned" else set()
    assert {code for code in table.report.counts if code.startswith(("box", "page", "image"))} == expected


def test_the_example_of_corrections_is_applied_to_the_example_of_a_panel_file(tmp_path):
    text = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    example = dict(re.findall(r"<!-- example: ([\w.]+) -->\n```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    file = tmp_path / "json" / "Cats 01" / "001.json"
    file.parent.mkdir(parents=True)
    file.write_text(example["vlm.json"], encoding="utf-8")
    (tmp_path / "json.corrections.json").write_text(example["corrections.json"], encoding="utf-8")
    (tmp_path / "pages.csv").write_text("canonical_id,absolute_image_path\nCats 01/001,none.png\n", encoding="utf-8")
    config = Config(manifest=str(tmp_path / "pages.csv"), panels=str(file.parents[1]), cache_dir=str(tmp_path / "c"))
    table = readers.read(config)
    assert table.panels["source_index"].tolist() == [1, 0, 2]
    assert table.panels["dialogue"].tolist() == ["", "Where is it?", ""]
    assert table.panels["y"].tolist() == pytest.approx([0.49, 0.04, 0.7])
    assert (table.report.counts["page_corrected"], table.report.counts["correction_outdated"]) == (1, 0)
