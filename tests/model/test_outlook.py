"""What is said before training: what can be learned, and whether the held-out pages can show it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import app_support
import numpy as np
import pytest

from stage3.config import SPLITS, Config
from stage3.data import readers
from stage3.data.splits import split_books
from stage3.data.table import PanelTable
from stage3.model.outlook import outlook
from tests import synthetic


def seen(folder: Path, config: Config | None = None, **comics: int):
    data = app_support.write_comics(folder / "data", **comics)
    return told(data, config)


def told(data: Path, config: Config | None = None):
    config = (config or Config()).replace(data=str(data), cache_dir=str(data.parent / "cache"))
    return outlook(readers.read(config), config)


def rewrite(data: Path, change) -> None:
    for path in (data / "panels").rglob("*.json"):
        value = json.loads(path.read_text(encoding="utf-8"))
        change(value)
        path.write_text(json.dumps(value), encoding="utf-8")


def test_two_books_train_on_one_and_retrieval_is_noise(tmp_path: Path) -> None:
    found = seen(tmp_path, books=2, pages=7, panels=1)
    assert found.can_train
    assert not found.one_book
    assert found.lines[0] == "1 book to train on (7 pages), 1 book for validation (7 pages)."
    assert "Only image and text are aligned" in found.lines[1]
    assert found.lines[2].startswith("7 validation pages: whether a model is better cannot be told from fewer than 6")
    assert found.lines[3].startswith("7 validation pages with ")
    assert "retrieval will be noise (chance R@5 " in found.lines[3]


def test_more_books_say_how_much_is_chance_and_no_more(tmp_path: Path) -> None:
    found = seen(tmp_path, books=16, pages=12, panels=4)
    assert found.can_train
    assert found.lines[0] == (
        "11 books to train on (132 pages), 2 books for validation (24 pages), 3 books for the test (36 pages)."
    )
    (chance,) = found.lines[1:]
    gallery = int(chance.split(" with ")[1].split()[0])
    assert 60 < gallery < 96  # of 24 pages with four panels, a quarter of them textless
    points = 100 * 1.96 * math.sqrt(2 * 0.25 / gallery)
    assert chance.endswith(f"two models differ by chance by up to {points:.0f} points in R@5.")


def test_many_books_need_no_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stage3.model.outlook.smallest_share", lambda queries: 0.04)  # of about 1,200 panels
    assert len(seen(tmp_path, books=16, pages=12, panels=4).lines) == 1


def test_one_book_goes_without_validation(tmp_path: Path) -> None:
    found = seen(tmp_path, books=1, pages=3, panels=2)
    assert (found.can_train, found.one_book) == (True, True)
    assert "There is one book, and books are never split" in found.lines[1]
    assert len(found.lines) == 2


@pytest.mark.parametrize(("panels", "trains"), [(3, True), (1, False)])
def test_without_text_only_page_mates_are_left_to_learn_from(tmp_path: Path, panels: int, trains: bool) -> None:
    data = app_support.write_comics(tmp_path / "data", books=3, pages=2, panels=panels)

    def silence(page: dict) -> None:
        for panel in page["panels"]:
            panel |= {"description": "", "text_content": []}

    rewrite(data, silence)
    found = told(data)
    assert found.can_train is trains
    wanted = (
        "no panel to train on has a text. Search by words will find nothing" if trains else "Nothing can be learned"
    )
    assert wanted in found.lines[1]
    assert "No validation panel has image and text: retrieval is not measured." in found.lines


def single_panels(books: int, pages: int, **texts: int) -> PanelTable:
    """One panel with an image on each page; of each split that is named only so many have a text."""
    table = synthetic.table(books=books, pages=pages, single=1.0, textless=0.0, boxless=0.0)
    table.pages["image_path"] = "page.png"
    config = Config()
    split = split_books(table, config.val_fraction, config.test_fraction, config.split_seed)
    for name, most in texts.items():
        table.panels.loc[np.flatnonzero(split == SPLITS.index(name))[most:], "dialogue"] = ""
    return table


def test_a_pair_alone_has_nothing_to_be_told_from() -> None:
    assert not outlook(single_panels(5, 3, train=1), Config()).can_train
    two = outlook(single_panels(5, 3, train=2), Config())
    assert two.can_train
    assert "Only image and text are aligned" in two.lines[1]


@pytest.mark.parametrize(("gallery", "noise"), [(1, True), (33, True), (34, False)])
def test_retrieval_is_noise_where_chance_moves_it_by_a_quarter(gallery: int, noise: bool) -> None:
    *_, last = outlook(single_panels(5, 40, val=gallery), Config()).lines
    assert last.startswith("40 validation pages with ")
    assert ("retrieval will be noise (chance R@5" in last) is noise
    assert ("points in R@5" in last) is (gallery > 1)


def test_no_validation_is_said(tmp_path: Path) -> None:
    found = seen(tmp_path, Config(val_fraction=0.0, test_fraction=0.0), books=3, pages=2)
    assert found.lines[1:] == ("No book is held out for validation: the last checkpoint counts.",)
