"""Which split each page has once a run's data has changed, and that every command says what differs."""

import csv
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from app_support import make_run, write_comics

from stage3 import Dataset, Run
from stage3.config import SPLITS
from stage3.diagnose import __main__ as diagnose_command
from stage3.embed import __main__ as embed_command
from stage3.evaluate import __main__ as evaluate_command
from stage3.runs import RunFolder
from stage3.runs.data import differences, load_data
from stage3.search import __main__ as search_command

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> RunFolder:
    """A run on eight books of three pages, some for each split."""
    folder = tmp_path_factory.mktemp("run-data")
    data = write_comics(folder / "comics", books=8, pages=3, panels=3)
    shares = {"val_fraction": 0.25, "test_fraction": 0.25}
    return RunFolder.load(make_run(folder / "runs", "first", data, epochs=1, **shares))


@pytest.fixture
def comics(trained, tmp_path) -> Path:
    """A copy of the run's comics, to be changed."""
    return Path(shutil.copytree(trained.config.data, tmp_path / "comics"))


def edit_a_word(comics: Path) -> None:
    path = comics / "panels" / "book003" / "page001.json"
    page = json.loads(path.read_text(encoding="utf-8"))
    page["panels"][0]["description"] = "another word"
    path.write_text(json.dumps(page), encoding="utf-8")


def add_page(comics: Path, page_id: str) -> None:
    target = comics / "panels" / f"{page_id}.json"
    target.parent.mkdir(exist_ok=True)
    shutil.copy(comics / "panels" / "book003" / "page001.json", target)
    with (comics / "manifest.csv").open("a", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow((page_id, "pages/b003p001.png"))
    labels = json.loads((comics / "labels.json").read_text(encoding="utf-8"))
    (comics / "labels.json").write_text(json.dumps({**labels, page_id: "story"}), encoding="utf-8")


def drop_a_book(comics: Path) -> None:
    """Leave the last book out: which books are held out would be drawn anew from the seven that are left."""
    lines = (comics / "manifest.csv").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if not line.startswith("book007/")]
    (comics / "manifest.csv").write_text("\n".join(kept) + "\n", encoding="utf-8")


CHANGES = {
    "a word": (edit_a_word, "texts of some panels"),
    "a page": (lambda c: add_page(c, "book000/page009"), "24 pages then and 25 now"),
    "a new book": (lambda c: add_page(c, "unseen/page000"), "1 book new and held out (the first is 'unseen')"),
    "a book less": (drop_a_book, "1 book not here (the first is 'book007')"),
}


def recorded(run: RunFolder) -> dict[str, str]:
    return {book: name for name, books in run.read_json("data")["books"].items() for book in books}


def split_by_book(data: Dataset) -> dict[str, str]:
    """The one split of each book."""
    found = pd.DataFrame({"book": data.table.pages["book_id"], "split": [SPLITS[s] for s in data.split]})
    assert found.groupby("book")["split"].nunique().max() == 1
    return found.groupby("book")["split"].first().to_dict()


@pytest.mark.parametrize("change", CHANGES)
def test_books_keep_the_split_of_the_run_and_new_ones_are_held_out(trained, comics, change):
    make, said = CHANGES[change]
    make(comics)
    data = load_data(trained, {"data": str(comics)}, progress=False)
    before = recorded(trained)
    assert set(before.values()) == set(SPLITS)
    assert split_by_book(data) == {book: before.get(book, "test") for book in set(data.table.pages["book_id"])}
    (note,) = differences(trained, data)
    assert said in note


def test_pages_left_out_by_a_limit_move_no_book(trained):
    limited = RunFolder(trained.path, trained.config.replace(limit_pages=14))
    data = load_data(limited, progress=False)
    assert split_by_book(data).items() <= recorded(trained).items()
    assert "24 pages then and 14 now" in differences(limited, data)[0]


def test_its_own_data_is_as_it_was_and_nothing_is_said(trained):
    data = load_data(trained, progress=False)
    assert split_by_book(data) == recorded(trained)
    assert differences(trained, data) == []


def test_a_changed_image_is_said(trained, comics):
    shutil.copy(comics / "pages" / "b001p000.png", comics / "pages" / "b002p000.png")
    data = load_data(trained, {"data": str(comics)}, progress=False)
    assert "some images" in differences(trained, data)[0]


def test_other_comics_are_all_held_out(trained, comics):
    text = (comics / "manifest.csv").read_text(encoding="utf-8")
    (comics / "manifest.csv").write_text(text.replace("book0", "other0"), encoding="utf-8")
    (comics / "labels.json").unlink()
    (comics / "dataset.yaml").write_text("manifest: manifest.csv\npanels: panels\npanel_format: vlm\n", "utf-8")
    for folder in list((comics / "panels").iterdir()):
        folder.rename(folder.with_name(folder.name.replace("book0", "other0")))
    data = load_data(trained, {"data": str(comics)}, progress=False)
    assert set(split_by_book(data).values()) == {"test"}
    (note,) = differences(trained, data)
    assert "none of the books" in note


def test_every_command_says_once_what_differs_and_holds_out_the_same_books(trained, comics, tmp_path, capsys):
    add_page(comics, "unseen/page000")
    where = ["--run", str(trained.path), "--data", str(comics), "--cache_dir", trained.config.cache_dir]
    held_out = {book for book, split in recorded(trained).items() if split == "test"} | {"unseen"}
    found = {}
    for name, command, more in (
        ("evaluate", evaluate_command, []),
        ("diagnose", diagnose_command, []),
        ("search", search_command, ["--text", "a red circle", "--split", "test", "--top", "1000"]),
        ("embed", embed_command, ["--out", str(tmp_path / "x.zarr")]),
    ):
        command.main([*where, *more, "--json"])
        found[name] = json.loads(capsys.readouterr().out)
        assert sum("1 book new and held out" in note for note in found[name]["notes"]) == 1, name
    assert found["evaluate"]["split"] == found["diagnose"]["split"] == "test"
    assert found["evaluate"]["books"] == len(held_out)
    assert {row["book"] for row in found["search"]["searches"][0]["results"]} == held_out
    sidecar = pd.read_parquet(tmp_path / "x.panels.parquet")
    exported = dict(zip(sidecar["book_id"], sidecar["split"], strict=True))
    assert exported == recorded(trained) | {"unseen": "test"}


def test_the_facade_puts_any_data_under_the_split_of_the_run(trained, comics):
    drop_a_book(comics)
    run = Run.load(trained.path)
    other = Dataset.load(comics, progress=False, cache_dir=trained.config.cache_dir)
    assert split_by_book(other) != {b: s for b, s in recorded(trained).items() if b != "book007"}  # drawn anew
    panels = run.panels(data=other)
    assert panels.groupby("book")["split"].first().to_dict().items() <= recorded(trained).items()
    assert run.searcher(data=other) is run.searcher(data=other)
