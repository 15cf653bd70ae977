"""What is said of `tiny` backbones, and of which comics."""

import json
import shutil
from pathlib import Path

import pytest

from stage3.config import Config
from stage3.features.known_comics import tiny_note
from stage3.samples import draw_books
from stage3.search import __main__ as search_command
from stage3.train import __main__ as train_command


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """The same comics as the generator leaves them, and as somebody's own: without its file of facts."""
    own, drawn = tmp_path_factory.mktemp("own"), tmp_path_factory.mktemp("drawn")
    draw_books(drawn, 4, seed=2, pages=2)
    shutil.copytree(drawn, own, dirs_exist_ok=True)
    yaml = own / "dataset.yaml"
    lines = yaml.read_text(encoding="utf-8").splitlines(keepends=True)
    yaml.write_text("".join(line for line in lines if not line.startswith("facts")), encoding="utf-8")
    return {"own": own, "drawn": drawn}


@pytest.mark.parametrize(
    ("backbones", "which"),
    [
        (("tiny", "tiny"), "the tiny image and text backbones learned"),
        (("tiny+siglip", "minilm"), "the tiny image backbone learned"),
        (("siglip", "tiny"), "the tiny text backbone learned"),
        (("siglip", "siglip"), ""),
    ],
)
def test_other_comics_than_those_it_learned_from_are_named_once_for_the_backbones_concerned(folders, backbones, which):
    config = Config(data=str(folders["own"]), vision_backbone=backbones[0], text_backbone=backbones[1])
    assert tiny_note(config).startswith(which)
    assert bool(tiny_note(config)) == bool(which)
    assert tiny_note(config.replace(data=str(folders["drawn"]))) == ""


def test_data_that_is_named_part_by_part_counts_as_other_comics(folders):
    own = folders["drawn"]
    parts = Config(manifest=str(own / "manifest.csv"), panels=str(own / "panels"), data="")
    assert tiny_note(parts).startswith("the tiny image and text backbones")


def test_of_panels_that_were_made_in_memory_nothing_is_said():
    assert tiny_note(Config(data="")) == ""


@pytest.mark.slow
@pytest.mark.parametrize("which", ["own", "drawn"])
def test_training_and_search_by_words_say_it_once(folders, which, tmp_path, capsys):
    run = ["--run", str(tmp_path / "r")]
    data = ["--data", str(folders[which]), "--cache_dir", str(tmp_path / "cache")]
    said = int(which == "own")
    assert train_command.main([*run, *data, "--epochs", "1", "--dim", "32"]) == 0
    assert capsys.readouterr().out.count("learned from synthetic comics alone") == said
    assert train_command.main(run) == 0  # finished already: nothing is trained, nothing is said again
    assert "learned from synthetic comics alone" not in capsys.readouterr().out
    assert search_command.main([*run, "--text", "a wizard"]) == 0
    assert capsys.readouterr().out.count("learned from synthetic comics alone") == said
    assert search_command.main([*run, "--text", "a wizard", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["notes"]) == said
    assert search_command.main([*run, "--panel", "book000/p001#1"]) == 0  # no words
    assert "learned from synthetic comics alone" not in capsys.readouterr().out
