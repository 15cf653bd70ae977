"""`python -m stage3.data check` as a newcomer meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from reader_world import CLEAN, World

from stage3.data import __main__ as data_command
from stage3.data.readers import report_lines
from stage3.data.table import DataReport
from stage3.errors import ConfigError, DataError


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "w")


def flags(world: World, *more: str) -> list[str]:
    config = world.config()
    return [
        "check",
        *("--manifest", config.manifest),
        *("--panels", config.panels),
        *("--cache-dir", config.cache_dir),
        *more,
    ]


def test_the_report_says_what_was_kept_left_out_and_why(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.bad_page(b"{")
    world.ids.append("Book C/none")
    labels = world.root / "labels.json"
    pages = {**dict.fromkeys(world.ids, "story"), CLEAN[0]: "cover"}
    labels.write_text(json.dumps(pages), encoding="utf-8")
    assert data_command.main(flags(world, "--labels", str(labels))) == 0
    out = capsys.readouterr().out
    lines = {" ".join(line.split()) for line in out.splitlines()}  # columns aside
    assert {
        "pages listed 8",
        "pages kept 5",
        "left out: label 1 the page type is not among keep_labels",
        "left out: no_panel_file 1 no panel file for this id",
        "left out: json_syntax 1 the panel file is not JSON",
        f"{CLEAN[0]}: cover",
        "Panel files found by: exact 6.",
        "Panels per page (11 panels, 2 books):",
    } <= lines
    assert "Training would refuse to start: 1 of 7 pages are damaged" in out
    bars = {line.split()[0]: line.split()[-1] for line in out.splitlines() if line.endswith("#")}
    assert bars == {"1": "#" * 20, "2": "#" * 40, "3": "#" * 40}


def test_json_holds_the_whole_report(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world.bad_page({"panels": []})
    out = tmp_path / "report.json"
    assert data_command.main(flags(world, "--json", "--out", str(out))) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(out.read_text(encoding="utf-8"))
    assert printed["pages_listed"] == printed["pages_kept"] + sum(printed["skipped"].values()) == 7
    assert printed["panels_per_page"] == {"1": 2, "2": 2, "3": 2}
    assert printed["examples"]["page:no_panels"][0].endswith("the list of panels is empty")
    assert sum(s["panels"] for s in printed["splits"].values()) == printed["panels"] == 12


def test_one_book_is_said_not_thrown(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.ids = CLEAN[:3]
    assert data_command.main(flags(world)) == 0
    assert "No split: all pages belong to one book, 'Book A'" in capsys.readouterr().out


def test_nothing_left_to_train_on_ends_with_2(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.ids = ["Book C/none"]
    with pytest.raises(DataError, match="nothing is left to train on: 1 page listed") as caught:
        data_command.main(flags(world))
    assert caught.value.exit_code == 2
    assert "left out: no_panel_file" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["chekc"], r"'chekc' is not one of check, import, ocr, export\. Did you mean 'check'\?"),
        (["check", "--manifst", "x"], "Did you mean 'manifest'"),
        (["check", "--panel-format", "vln"], "Did you mean 'vlm'"),
        (["check"], "--data data/samples"),
    ],
)
def test_mistakes_on_the_command_line_are_named(argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        data_command.main(argv)


def test_control_characters_of_file_names_do_not_reach_the_terminal(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.ids.append("Book C/\x1b[31mred")
    data_command.main(flags(world))
    assert "\x1b" not in capsys.readouterr().out


def test_as_a_process_errors_are_one_line_and_help_is_light() -> None:
    command = [sys.executable, "-m", "stage3.data"]
    failed = subprocess.run([*command, "check"], capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: no data set: ")
    assert failed.stderr.count("\n") == 1
    code = (
        "import sys, stage3.data.__main__ as d\n"
        "try:\n    d.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    )
    helped = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert helped.returncode == 0, helped.stderr
    assert "--panel_format" in helped.stdout
    assert "python -m stage3.data check --data data/samples" in helped.stdout


def test_a_kept_label_that_no_page_has_is_answered_with_those_there_are(world: World) -> None:
    labels = world.root / "labels.json"
    labels.write_text(json.dumps({**dict.fromkeys(world.ids, "story"), world.ids[0]: "cover"}), encoding="utf-8")
    with pytest.raises(DataError, match=r"story 5, cover 1; choose those to use with --keep_labels"):
        data_command.main(flags(world, "--labels", str(labels), "--keep_labels", "sotry"))


def test_paths_of_another_machine_are_said_where_they_cannot_be_overlooked(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    config = world.config()
    manifest = Path(config.manifest)
    rows = [f"{page},E:\\comics\\{n}.png" for n, page in enumerate(world.ids)]
    manifest.write_text("\n".join(["canonical_id,absolute_image_path", *rows]) + "\n", encoding="utf-8")
    assert (
        data_command.main(
            ["check", "--manifest", str(manifest), "--panels", config.panels, "--cache_dir", config.cache_dir]
        )
        == 0
    )
    assert "No page has an image: only texts and layout would be trained on." in capsys.readouterr().out


def test_every_reason_why_an_image_is_lost_is_in_words() -> None:
    report = DataReport()
    for code in ("missing", "empty", "truncated", "too_many_pixels", "corrupt"):
        report.note(f"image:{code}", "p1.png")
    lines = [line for line in report_lines(report) if "image:" in line]
    assert len({line.split("  ")[-1] for line in lines}) == len(lines) == 5
    assert all("their pages go without" in line for line in lines)


def test_what_a_killed_reader_left_is_cleared_by_the_next(world: World) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    tables = Path(world.config().cache_dir) / "tables"
    for name in (f".abc.{dead.pid}", f".abc.{dead.pid}.old", f".abc.{os.getpid()}"):
        (tables / name).mkdir(parents=True)
    assert data_command.main(flags(world)) == 0
    assert [p.name for p in tables.glob(".*")] == [f".abc.{os.getpid()}"]  # that one is being written
