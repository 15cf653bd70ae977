"""What parts of views say and write, against hand values: no view is opened for it."""

from __future__ import annotations

import io
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from app.charts import maps, worth
from app.parts import (
    add_choice,
    add_import,
    add_train,
    cards,
    compared,
    export,
    filters,
    forms,
    map_address,
    panel,
    query,
    results,
    retrain_form,
    selection,
    strip,
    tiles,
)
from app.store import imports
from app.store.cache import Memory
from app.views import data as data_view
from app.views import evidence, losses, map_column, map_controls, map_parts, retrain
from app.views import page as page_view
from app.views import runs as runs_view
from app.views import search as search_view
from stage3.config import Config
from stage3.data.images import ImageProblem
from stage3.evaluate import Comparison
from stage3.evaluate.between import BETTER, NOISE, NOT, UNKNOWN, WORSE

# --- filters


def numbers() -> pd.DataFrame:
    """Panels whose rows are not their positions."""
    return pd.DataFrame(
        {"book": ["a", "b", "b", "ab"], "page_type": ["", "story", "story", "x"], "split": ["train"] * 4,
         "text": ["Red", "a red FOX", "", "blue"], "rank_i2t": [1.0, 2.0, math.nan, 9.0],
         "loss_total": [0.25, 4.0, 1.0, 2.0]}, index=[3, 5, 8, 9],
    )  # fmt: skip


class Address(dict):
    """Query parameters that a test can look at."""

    def get_all(self, name: str) -> list[str]:
        return self.get(name, [])


@pytest.mark.parametrize(
    ("text", "passes", "label"),
    [
        ("book:b", [5, 8], "Books: b"),
        ("book~B", [5, 8, 9], "Books with: B"),
        ("page_type:", [3], "Page types: (none)"),
        ("text:red", [3, 5], "Text: red"),
        ("text:b:c~d", [], "Text: b:c~d"),
        ("rank_i2t:2..9", [5, 9], "Rank image → text 2 to 9"),
        ("rank_i2t:..2", [3, 5], "Rank image → text ≤ 2"),
        ("loss_total:1..", [5, 8, 9], "Loss: weighted sum ≥ 1"),
        ("loss_total:1..1", [8], "Loss: weighted sum 1 to 1"),
    ],
)
def test_a_filter_of_the_address_lets_pass_what_it_says_and_is_written_back(monkeypatch, text, passes, label):
    address = Address(filter=[text])
    monkeypatch.setattr(filters.st, "query_params", address)
    notes: list[str] = []
    (one,) = filters.asked(numbers(), notes)
    assert not notes
    assert numbers().index[one.passes(numbers())].tolist() == passes
    assert one.label() == label
    filters.write([one])
    assert address["filter"] == [text]
    filters.put([one], None, one.column, one.part)
    assert "filter" not in address


@pytest.mark.parametrize(
    "text",
    ["book:c", "x" * 61, "book~", "text:", "nothing:1", "rank_i2t:2", "rank_i2t:3..2", "rank_i2t:x..", "rank_i2t:nan..",
     "split~", "index:1..2", "rank_i2t~2"],
)  # fmt: skip
def test_a_filter_that_does_not_fit_is_noted(monkeypatch, text):
    monkeypatch.setattr(filters.st, "query_params", Address(filter=[text, "book:a", "book:b", "book:a"]))
    notes: list[str] = []
    assert filters.asked(numbers(), notes) == [filters.Filter("book", ("a", "b"))]
    assert notes == [f"filter={text[:60]} in the address does not fit these panels; it is left out."]


def test_filters_add_up_and_one_of_a_column_replaces_its_like(monkeypatch):
    address = Address()
    monkeypatch.setattr(filters.st, "query_params", address)
    found = [filters.Filter("book", ("b",)), filters.Filter("text", ("fox",), True)]
    assert filters.passing(found, numbers()).tolist() == [False, True, False, False]
    assert filters.passing([], numbers()).all()
    filters.put(found, filters.Filter("book", ("a", "ab")), "book")
    assert address["filter"] == ["text:fox", "book:a", "book:ab"]
    state: dict[str, str] = {}
    monkeypatch.setattr(filters.st, "session_state", state)
    filters._add(found, "rank_i2t", "2", "")
    assert address["filter"] == ["book:b", "text:fox", "rank_i2t:2.."]
    for low, high in (("", ""), ("5", "2"), ("x", "2"), ("nan", "")):
        filters._add([], "rank_i2t", low, high)
        assert state.pop("_map_filter_problem").startswith("Give a number")
    assert address["filter"] == ["book:b", "text:fox", "rank_i2t:2.."]
    filters._add([], "rank_i2t", "2", "2")
    assert address["filter"] == ["rank_i2t:2..2"]
    books = [str(n) for n in range(50)]
    address["filter"] = [f"book:{b}" for b in books]
    (many,) = filters.asked(pd.DataFrame({"book": books}), [])
    assert many.values == tuple(books[:40])  # as many as an address may carry
    filters.write([filters.Filter("book", tuple(books))])
    assert len(address["filter"]) == 40


# --- addresses of a map, and what was drawn on it


@pytest.fixture
def address(monkeypatch):
    """The address, as a dictionary."""
    kept: dict[str, object] = {}

    def set_params(**values: object) -> None:
        kept.update(values)
        for name in [n for n, v in kept.items() if v is None]:
            del kept[name]

    monkeypatch.setattr(map_address.shell, "param", kept.get)
    monkeypatch.setattr(map_address.shell, "set_params", set_params)
    return kept


def test_words_zoom_and_shapes_of_a_map_come_back_from_the_address(address):
    notes: list[str] = []
    assert map_address.one_of("tool", ("pan", "lasso"), "pan", notes) == "pan"
    address["tool"] = "lasso"
    assert map_address.one_of("tool", ("pan", "lasso"), "pan", notes) == "lasso"
    assert map_address.zoom(notes) is None
    map_address.set_zoom((1.234567, 2.0, -3.0, 4.5))
    assert address["zoom"] == "1.2346,2,-3,4.5"
    assert map_address.zoom(notes) == (1.2346, 2.0, -3.0, 4.5)
    map_address.set_zoom(None)
    assert "zoom" not in address
    square, triangle = np.array([[0, 0], [4, 0], [4, 4.04], [0, 4]]), np.array([[9, 9], [11, 9], [10, 12.0]])
    assert map_address.drawn(notes) is None
    map_address.set_drawn("umap", [square, triangle], 10.0)
    drawn = map_address.drawn(notes)
    assert (drawn.on, notes) == ("umap", [])
    corners = [{tuple(c) for c in shape.tolist()} for shape in drawn.shapes]
    assert corners == [{(0, 0), (4, 0), (4, 4.04), (0, 4)}, {(9, 9), (11, 9), (10, 12)}]
    xy = np.array([[1.0, 1.0], [10.0, 10.0], [6.0, 6.0], [3.0, 1.0]])
    assert selection.caught(drawn, xy).tolist() == [True, True, False, True]
    assert not selection.caught(None, xy).any()
    map_address.set_drawn("pca", [square] * 21, 10.0)
    assert len(map_address.drawn(notes).shapes) == str(address["lasso"]).count("|") + 1 == 20  # no more than it reads
    selection.clear()
    assert "lasso" not in address


@pytest.mark.parametrize(
    ("name", "text"),
    [("zoom", "x" * 99), ("zoom", "1,1,0,2"), ("zoom", "0,1,2,2"), ("zoom", "0,1,0"), ("zoom", "0,inf,0,1"),
     ("zoom", "0,1e9,0,1"), ("lasso", "pca:0,0;1,1"), ("lasso", "pca:0,0;1,1;2"), ("lasso", "0,0;1,1;2,0"),
     ("lasso", "umap:0,0;1,1;2,0|1,2")],
)  # fmt: skip
def test_a_zoom_or_lasso_that_cannot_be_read_is_noted_and_left_out(address, name, text):
    address[name] = text
    notes: list[str] = []
    assert getattr(map_address, "zoom" if name == "zoom" else "drawn")(notes) is None
    assert len(notes) == 1
    assert notes[0].startswith(name)
    assert len(notes[0]) < 130  # however long the address is


def test_a_box_is_a_lasso_with_four_corners_and_a_click_names_a_panel_or_a_page(address):
    box = {"x": [3.0, 1.0], "y": [2.0, 8.0]}
    shapes = selection.shapes_of({"selection": {"lasso": [{"x": [0, 1, 2], "y": [5, 6, 7]}], "box": [box]}})
    assert [s.tolist() for s in shapes] == [[[0, 5], [1, 6], [2, 7]], [[1, 2], [3, 2], [3, 8], [1, 8]]]
    assert selection.shapes_of(None) == []
    assert selection.clicked({"selection": {"points": [{}, {"customdata": [4, 5]}, {"customdata": 6}]}}) == 4
    assert selection.clicked({"selection": {"points": []}}) is None
    rows, xy = np.array([4, 9]), np.zeros((2, 2))  # panels at one place have a map, too
    selection.take({"selection": {"box": [box], "points": [{"customdata": 9}]}}, "right", rows, xy)
    assert (address["lasso"], address["tab"]) == ("right:1,2;3,2;3,8;1,8", "selection")
    assert "panel" not in address
    selection.take({"selection": {"points": [{"customdata": 9}]}}, "pca", rows, xy)
    assert (address["panel"], address.get("tab")) == (9, None)
    selection.take({"selection": {"points": [{"customdata": -1}]}}, "pca", rows, xy)
    assert (address["group"], address["tab"]) == ("page:0", "group")


def test_a_query_of_the_address_is_taken_once_and_a_panel_wins(address, monkeypatch):
    state: dict[str, object] = {}
    monkeypatch.setattr(query.st, "session_state", state)
    monkeypatch.setattr(query.shell, "int_param", lambda name: int(address[name]) if name in address else None)
    address.update(panel=7, q="red")
    query.follow_address()
    assert (state["search_kind"], state["search_panel"]) == ("panel", 7)
    assert "search_words" not in state
    state["search_panel"] = 9  # chosen since: the same address does not undo it
    query.follow_address()
    assert state["search_panel"] == 9
    query.write_address("panel")
    assert address == {"panel": 9}
    query.follow_address()  # what the view wrote itself is not followed
    assert state["search_panel"] == 9
    address.clear()
    address["q"] = "x" * 201
    query.follow_address()
    assert (state["search_kind"], state["search_words"]) == ("words", "x" * 200)
    query.write_address("words")
    assert address == {"q": "x" * 200}
    state["search_words"] = "y" * 201  # too long for an address
    query.write_address("words")
    assert address == {}
    state["search_words"] = " z "
    query.write_address("words")
    assert address == {"q": "z"}
    query.write_address("image")
    assert address == {}
    query.use_panel_within(4, "val")
    assert (address, state["search_kind"], state["search_filter_split"]) == ({"panel": 4}, "panel", ["val"])


def test_the_first_query_is_a_held_out_panel_that_says_more_than_most():
    frame = pd.DataFrame(
        {"has_image": [True, True, True, False, True, True], "has_text": [True, True, True, True, True, False],
         "text": ["a" * 9, "b", "c" * 5, "d" * 9, "e" * 7, ""],
         "split": ["train", "test", "test", "test", "val", "test"]},
    )  # fmt: skip

    def first(**changed: object) -> int:
        return query.first_panel(SimpleNamespace(frame=frame.assign(**changed), embedded=SimpleNamespace(rows=[2, 3])))

    assert first() == 4  # texts of both have 1, 5, 7 and 9 letters: 6 is in their middle
    assert first(text=["a" * 9, "b", "c" * 7, "d", "e" * 7, ""]) == 2  # as many as half of them have
    assert first(split="train") == 0
    assert first(has_text=[False, True, False, False, False, False]) == 1
    assert first(has_image=False) == 2


def test_stopped_jobs_are_put_away_one_by_one(monkeypatch):
    state: dict[str, object] = {}
    monkeypatch.setattr(strip.st, "session_state", state)
    strip._hide("a", "1")
    strip._hide("b", "2")
    assert state == {"_strip_hidden": {("a", "1"), ("b", "2")}}


def test_levels_of_a_zoom_are_its_doublings():
    full = (0.0, 16.0, 0.0, 4.0)
    levels = [map_parts.level_of((0.0, w, 0.0, h), full) for w, h in ((16, 4), (8, 1), (2, 2), (1, 8), (64, 1))]
    assert levels == [0, 1, 3, 1, 0]
    assert map_controls.unless("a", "a") is None
    assert map_controls.unless("a", "b") == "a"


# --- panels


def panels() -> pd.DataFrame:
    return pd.DataFrame(
        {"page": [7, 7, 9], "book": ["b", "b", "b"], "page_id": ["b/p1", "b/p1", "p2"], "order": [0, 1, 4],
         "n_panels": [2, 2, 5], "dialogue": ["A: hi", "", "x" * 700], "description": ["a fox", "", ""],
         "text": ["hi", "", "y" * 300], "has_box": [True, False, True], "rank_i2t": [3.0, math.nan, 1.0],
         "rank_t2i": [8.0, math.nan, 2.0], "loss_total": [1.25, math.nan, 0.5]}, index=[4, 6, 9],
    )  # fmt: skip


def test_a_panel_is_called_by_its_number_and_page_and_related_by_page_and_book():
    frame = panels()
    assert panel.title_of(frame, 6) == "Panel 2 of 2  ·  b/p1"
    assert panel.words(frame, 4) == "A: hi\na fox"
    assert panel.words(frame, 6) == "(no text)"
    assert panel.words(frame, 9, 10) == "x" * 9 + "…"
    assert panel.words(frame, 9, 700) == "x" * 700
    assert [panel.kinship(frame, 4, other) for other in (6, 9)] == ["same page", "same book"]
    assert panel.kinship(frame.assign(book=["b", "b", "c"]), 4, 9) == "another book"
    assert map_column.card(frame, 4) == {
        "row": 4, "text": "b/p1 · 1", "where": "b/p1", "note": "rank 3 / 8 · loss 1.25"
    }  # fmt: skip
    assert map_column.card(frame.assign(book="other"), 6) == {
        "row": 6, "text": "other · b/p1 · 2", "where": "other · b/p1", "note": "rank – / – · loss –", "bare": True
    }  # fmt: skip
    assert cards.item(frame, 9) == {"row": 9, "text": "y" * 239 + "…", "where": "p2 · panel 5"}
    assert cards.item(frame, 6) == {"row": 6, "text": "", "where": "b/p1 · panel 2", "bare": True}
    assert cards.item(frame.assign(text="z" * 240), 4)["text"] == "z" * 240
    assert page_view._short("b/p1", "b") == "p1"
    assert page_view._short("b", "b") == "b"
    assert page_view._span(np.array([[0.25, math.nan], [-0.5, 1.0]])) == "from -0.50 to 1.00"


def test_panels_are_near_by_the_direction_of_their_embeddings_alone(monkeypatch):
    monkeypatch.setattr(panel, "_kept", Memory(1))
    monkeypatch.setattr(panel.loaders, "checkpoint_key", lambda run, step: (run, step))
    monkeypatch.setattr(panel.loaders, "panel_vectors", lambda run, step: np.array([[3.0, 4.0], [0.0, -2.0]]))
    z = panel.unit_embeddings(SimpleNamespace(run="a", step=1))
    np.testing.assert_allclose(z, [[0.6, 0.8], [0.0, -1.0]])


def test_a_hovered_dot_is_told_with_its_page_number_and_value():
    frame = panels().assign(cluster_name=["fox", "", "fox"])
    shown = map_parts.Shown(frame, frame.index.to_numpy(), np.zeros((3, 2)), np.array([True, True, False]), "pca", "",
                            np.zeros(3, bool), ("book", "b"), (0, 1, 0, 1))  # fmt: skip
    lines = map_parts._hover(shown, maps.COLORINGS["cluster"], frame["cluster_name"], np.array([2, 1]))
    assert lines == ["p2 · 5/5\nCluster: fox", "b/p1 · 2/2\nCluster: (none)"]
    lines = map_parts._hover(shown, maps.COLORINGS["total"], frame["loss_total"], np.arange(3))
    assert lines[0] == "b/p1 · 1/2\nLoss: weighted sum: 1.25"
    assert map_parts._hover(shown, maps.COLORINGS["page"], frame["page"], np.arange(3))[0] == "b/p1 · 1/2"
    assert shown.members.tolist() == [True, True, False]  # of the group, if they pass the filters


# --- files


def test_files_have_the_row_first_and_numbers_from_one():
    frame = panels().assign(x=[0.1, math.nan, 0.3], y=0.2, w=0.5, h=0.25)
    table = pd.read_parquet(io.BytesIO(export.parquet(frame)))
    assert table["row"].tolist() == [4, 6, 9]
    assert table["panel_number"].tolist() == [1, 2, 5]
    assert table["page_row"].tolist() == [7, 7, 9]
    assert [table[f"box_{c}"].iloc[0] for c in "xywh"] == [0.1, 0.2, 0.5, 0.25]
    assert not {"x", "order", "page"} & set(table)
    assert export.file_stem("runs/a-b") == "runs-a-b"
    long = [export.file_stem("x" * 81 + end) for end in "ab"]
    assert long[0] != long[1]
    assert {len(s) for s in long} == {79}
    assert export.file_stem("x" * 80) == "x" * 80
    changed = [export.file_stem(name) for name in ("a b", "a?b")]
    assert changed[0] != changed[1]
    assert all(s.startswith("a-b-") for s in changed)


# --- what runs are worth


def of(metric: str, **changed: object) -> dict[str, object]:
    row = {"metric": metric, "first": 0.5, "second": 0.625, "difference": 0.125, "low": -0.25, "high": 0.375}
    return row | {"verdict": NOISE, "why": ""} | changed


def test_a_comparison_is_told_with_signs_units_and_words():
    assert compared.difference("retrieval/i2t_r5", of("retrieval/i2t_r5")) == "+12.5 [−25.0, +37.5]"
    assert compared.difference("loss/total", of("loss/total")) == "+0.125 [−0.250, +0.375]"
    assert compared.difference("loss/total", of("loss/total", low=math.nan, high=math.nan)) == "+0.125"
    assert compared.difference("loss/total", of("loss/total", difference=math.nan)) == "–"
    assert compared.value("loss/total", 0.5) == "0.500"
    assert compared.value("retrieval/i2t_r5", 0.5) == "50.0 %"
    words = [compared.verdict_words(of("x", verdict=v, difference=d)) for v, d in ((BETTER, 1.0), (WORSE, -1.0))]
    assert words == ["↑ better", "↓ worse"]
    assert compared.verdict_words(of("x")) == NOISE
    assert compared.verdict_words(of("x", verdict=NOT, why="τ changed")) == "not comparable: τ changed"
    rows = [of("loss/total"), of("retrieval/t2i_r5", first=0.25), of("retrieval/i2t_r5"), of("collapse/x")]
    rows += [of("retrieval/same_page_r_precision", first=0.75)]
    found = Comparison(pd.DataFrame(rows), "val", panels=1, pages=2, gallery=1200)
    table = compared.rows_of(found, ("before", "now"))
    assert list(table.columns) == ["metric", "before", "now", "difference", "verdict"]
    assert table["metric"].tolist() == ["Same-page precision", "R@5 image → text", "R@5 text → image", "Total loss"]
    assert table["before"].tolist() == ["75.0 %", "50.0 %", "25.0 %", "0.500"]
    assert table["now"].tolist() == ["62.5 %", "62.5 %", "62.5 %", "0.625"]
    assert compared.basis(found) == (
        "Validation pages that neither run was trained on: 1 panel of 2 pages, 1,200 with image and text. "
        "Paired by panel; intervals by page."
    )
    noise = compared.delta(Comparison(pd.DataFrame([of("retrieval/i2t_r5")]), "test", 1, 2, 3), "retrieval/i2t_r5")
    assert noise == {
        "delta": "+12.5 points", "delta_color": "off", "delta_arrow": "off", "delta_description": NOISE
    }  # fmt: skip
    unknown = Comparison(pd.DataFrame([of("loss/total", verdict=UNKNOWN)]), "test", panels=1, pages=2, gallery=3)
    assert compared.delta(unknown, "loss/total") == {
        "delta": "+0.125", "delta_color": "off", "delta_arrow": "off", "delta_description": UNKNOWN
    }  # fmt: skip


def test_an_evaluation_is_told_with_interval_chance_and_baselines_of_its_own_metric():
    report = {
        "split": "test", "panels": 1, "pages": 30, "gallery": 1200.0, "retrieval/i2t_r5": 0.5, results.SAME_PAGE: 0.75,
        "collapse/effective_rank": 12.34, "intervals": {"retrieval/i2t_r5": [0.25, 0.75]},
        "chance": {"retrieval/i2t_r5": 0.125}, "baselines": {"untrained": {"retrieval/i2t_r5": 0.0625}, "frozen": {}},
    }  # fmt: skip
    assert results.rows(report).to_dict("records") == [
        {"metric": "R@5 image → text", "value": "50.0 %", "interval": "25.0 % to 75.0 %", "chance": "12.5 %",
         "frozen": "–", "untrained": "6.2 %"},
        {"metric": "Same-page precision", "value": "75.0 %", "interval": "–", "chance": "–", "frozen": "–",
         "untrained": "–"},
        {"metric": "Effective rank", "value": "12.3", "interval": "–", "chance": "–", "frozen": "–", "untrained": "–"},
    ]  # fmt: skip
    assert results.basis(report) == "Test pages: 1 panel of 30 pages; R@5 among the 1,200 with image and text."
    words = [results.basis(report | {"split": split}).partition(":")[0] for split in ("val", "train", "all")]
    assert words == ["Validation pages, which chose the checkpoint", "Training pages", "All pages"]
    assert worth.shown("collapse/effective_rank", 9.994) == "9.99"
    assert worth.shown("collapse/effective_rank", 10.0) == "10.0"
    assert worth.shown("collapse/effective_rank", math.nan) == "–"
    small = [worth._small(n) for n in ("Same-page precision", "R@5 image → text", "MRR, both ways", "Total loss")]
    assert small == ["same-page precision", "R@5 image → text", "MRR, both ways", "total loss"]


def test_the_line_of_a_run_names_what_chose_its_checkpoint(monkeypatch):
    kept: list[dict[str, object] | None] = [None]
    monkeypatch.setattr(worth.loaders, "stored_evaluation", lambda run: kept[0])

    def line(metric: str, value: float) -> str:
        return worth.headline(SimpleNamespace(best=lambda: SimpleNamespace(metric=metric, value=value)))

    assert worth.headline(SimpleNamespace(best=lambda: None)) == ""
    assert line("", 0.5) == ""
    assert line("loss/total", 1.5) == "Total loss 1.50"
    assert line("retrieval/i2t_r5", 0.5) == "Validation, which chose the checkpoint: R@5 image → text 50.0 %"
    kept[0] = {"split": "val", "retrieval/i2t_r5": 0.25}
    assert "Validation, which chose the checkpoint" in line("retrieval/i2t_r5", 0.5)
    kept[0] = {
        "split": "test",
        "panels": 9,
        "gallery": 7,
        "retrieval/i2t_r5": 0.25,
        "chance": {},
        "intervals": {},
        "baselines": {},
    }
    assert line("retrieval/i2t_r5", 0.5).startswith("Test: R@5 image → text 25.0 %")
    assert "Validation, which chose the checkpoint" in line("retrieval/t2i_r5", 0.5)  # it was not measured


def test_tiles_and_differences_stand_under_their_names(monkeypatch):
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(tiles.st, "metric", lambda name, text, width: told.append((name, text)))
    tiles.show(("loss/total", "none", "retrieval/t2i_r5"), {"retrieval/t2i_r5": 0.25, "loss/total": 1.0})
    assert told == [("Total loss", "1.000"), ("R@5 text → image", "25.0 %")]
    tables = []
    monkeypatch.setattr(tiles.st, "dataframe", lambda table, **_: tables.append(table.set_index("metric")))
    first, second = {"retrieval/i2t_r5": 0.25, "loss/total": 2.0}, {"retrieval/i2t_r5": 0.75, "loss/total": 1.5}
    tiles.differences(first, second, ("one", "two"), 9)
    assert tables[0].loc["R@5 image → text", ["one", "two", "difference"]].tolist() == [0.25, 0.75, 0.5]
    assert tables[0].loc["loss/total", ["one", "two", "difference"]].tolist() == [2.0, 1.5, -0.5]


# --- settings and times


def test_settings_are_written_as_yaml_has_them_and_sliders_hold_their_start():
    assert [retrain_form.short(v) for v in (0.30, True, 5, "x", 1e-5)] == ["0.3", "true", "5", "x", "1e-05"]
    base = Config(data="data/samples")
    changed = base.replace(lr=0.5, keep_labels=("a b", "c"), detach_target=False)
    assert retrain_form.to_address(base, changed) == "keep_labels:a%20b%2Cc;lr:0.5;detach_target:False" or (
        sorted(retrain_form.to_address(base, changed).split(";"))
        == ["detach_target:False", "keep_labels:a%20b%2Cc", "lr:0.5"]
    )
    assert retrain_form.from_address(base, "lr:0.5;;epochs:3") == (base.replace(lr=0.5, epochs=3), "")
    for text, why in (("threads:2", "unknown setting 'threads'"), ("data:elsewhere", "no data set is known"),
                      ("labels:x", "cannot name files"), ("lr:0.5;lr", "lr")):  # fmt: skip
        config, refused = retrain_form.from_address(base, text)
        assert config == base
        assert why in refused
    files = Config(manifest="pages.csv", panels="panels", labels="labels.json")  # which an address may repeat
    assert retrain_form.from_address(files, "lr:0.5;labels:labels.json") == (files.replace(lr=0.5), "")
    stops = [0.0, 0.01, 0.03, 0.1, 0.2, 0.3, 0.42, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0]
    assert forms.stops("alignment_weight", 0.42) == stops
    temperatures = [0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0]
    low = forms.spec_of("contrastive_temperature").low
    assert forms.stops("contrastive_temperature", 0.07) == [t for t in temperatures if t >= low]
    assert forms.title("batch_pages") == "Batch pages"
    assert forms.title("lr") == "Learning rate"
    assert forms.plain(("a", "b")) == ["a", "b"]
    assert runs_view._shown(["a", "b"]) == "a, b"
    assert [runs_view._shown(v) for v in ("", None, 0, False)] == ["–", "–", "0", "False"]
    assert [runs_view._in_percent(v) for v in (None, 0.25)] == [None, 25.0]
    assert forms.checked(base, {"lr": 0.5}) == (base.replace(lr=0.5), "")
    refused, why = forms.checked(base, {"lr": -1.0})
    assert refused is None
    assert "lr" in why


def test_the_address_of_the_first_look_gives_the_settings_that_a_form_starts_from(address, monkeypatch):
    state: dict[str, object] = {}
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(retrain_form.st, "session_state", state)
    monkeypatch.setattr(retrain_form.shell, "error_box", lambda *words: told.append(words))
    base = Config(data="data/samples")
    chosen = SimpleNamespace(run=SimpleNamespace(config=base))
    address["set"] = "lr:0.5"
    assert retrain_form._start(chosen, "a") == base.replace(lr=0.5)
    address["set"] = "lr:0.25"  # what a person has typed since is not undone
    assert retrain_form._start(chosen, "a") == base.replace(lr=0.5)
    assert retrain_form._start(chosen, "b") == base.replace(lr=0.25)
    address["set"] = "lr:x"
    assert retrain_form._start(chosen, "c") == base
    assert [title for _, title in told] == ["The address asks for settings that are refused"]
    retrain_form._start(chosen, "c")
    assert len(told) == 1, "it is said once"
    said: list[tuple[list[str], str]] = []
    monkeypatch.setattr(retrain_form.outlook, "of", lambda config: (SimpleNamespace(lines=["size", "a", "b"]), 9, 3))
    monkeypatch.setattr(retrain_form.outlook, "say", lambda lines, key: said.append((lines, key)))
    retrain_form._outlook(base)
    assert said == [(["a", "b"], "quiet-retrain-outlook")]  # how large it is, the form says


def test_an_import_is_told_by_how_far_it_is(monkeypatch):
    told: list[object] = []
    monkeypatch.setattr(add_import, "_watch", lambda made: told.append("watched"))
    monkeypatch.setattr(add_import, "_start", lambda made, state: told.append("offered"))
    monkeypatch.setattr(add_import, "_report", lambda result, report: told.append(report))
    monkeypatch.setattr(add_import.shell, "error_box", lambda message, title="": told.append((message, title)))
    monkeypatch.setattr(add_import.DataReport, "from_dict", lambda check: f"report of {check['pages']}")

    def shown(word: str, result: object = None, *, is_live: bool = False) -> tuple[bool, list[object]]:
        told.clear()
        state = SimpleNamespace(word=word, is_live=is_live, message="why")
        task = SimpleNamespace(state=lambda: state, result=lambda: result, folder=Path("all"))
        return add_import.show(SimpleNamespace(task=lambda kind: {"all": task}[kind])), list(told)

    assert shown("running", is_live=True) == (False, ["watched"])
    assert shown("none") == (False, ["offered"])
    assert shown("failed") == (False, ["offered", ("why", "The import failed")])
    assert shown("stopped") == (False, ["offered", ("why", "Not everything was imported")])
    assert shown("finished") == (False, ["offered"])
    assert shown("finished", {"check": {"pages": 3}}) == (True, ["offered", "report of 3"])
    done, (_, (message, _)) = shown("finished", {"nothing": 0})
    assert not done
    assert message.startswith("all/result.json: damaged")


def test_pages_of_a_look_are_drawn_with_their_panels_also_one_whose_image_is_damaged(monkeypatch):
    pages = pd.DataFrame({"image": ["1.png", "2.png"], "label": "x", "page_id": ["p1", "p2"]}, index=[5, 9])
    panels = {"p1": [SimpleNamespace(order=0), SimpleNamespace(order=None)], "p2": [SimpleNamespace(order=0)] * 2}

    def drawn(check: SimpleNamespace, side: int) -> bytes:
        if check.image == "2.png":
            raise ImageProblem("truncated", "it ends early")
        return check.image.encode()

    def checked(config: Config, page_id: str, image: str, seen: str) -> SimpleNamespace:
        assert seen == "seen"
        return SimpleNamespace(panels=panels[page_id], image=image)

    monkeypatch.setattr(add_choice.page_check, "listed_pages", lambda config: pages)
    monkeypatch.setattr(add_choice.page_check, "check_page", checked)
    monkeypatch.setattr(add_choice.charts, "overlay", drawn)
    assert add_choice._drawn(Config(), {"check": "seen"}) == [("p1", b"1.png", 1), ("p2", b"", 2)]


def test_a_look_is_asked_for_as_the_fields_stand_now(monkeypatch):
    asked: list[object] = []
    state = {"add-one-class": " panel ", "add-one-boxes": "find", "add-two-texts": "none"}
    monkeypatch.setattr(add_choice.st, "session_state", state)
    monkeypatch.setattr(add_choice.imports, "look", lambda made, choice: asked.append(choice))
    old = imports.Choice("files", "files", "coco", "frame", "rtl")
    add_choice._changed(SimpleNamespace(name="one", choice=old))
    assert asked == [imports.Choice("find", "files", "coco", "panel", "rtl")]


def test_what_speaks_against_chosen_files_is_told_from_what_was_found_on_the_pages():
    def doubt(boxes: str, annotated: bool | None, pages: int = 6, **found: object) -> str:
        made = SimpleNamespace(choice=imports.Choice(boxes), annotated=annotated)
        return add_choice._doubt(made, {"import": {"pages": pages, **found}})

    source, whole = {"source": 9}, [{"found": 1, "whole": n} for n in (3, 4)]
    assert doubt("files", True, panels_from={"found": 2}).startswith("The files have no boxes")
    assert doubt("files", True, panels_from=source) == ""
    assert doubt("files", None, panels_from={"found": 2}) == doubt("find", True, panels_from={"found": 2}) == ""
    for code in ("page_shape_differs", "box_invalid"):
        notes = [{code: {"count": n}} for n in (2, 3)]
        assert doubt("files", True, panels_from=source, notes=notes[0]) == ""
        assert doubt("files", True, panels_from=source, notes=notes[1]).startswith("On most pages, boxes do not fit")
    assert doubt("find", None, panels_from=whole[0]) == doubt("page", None, panels_from=whole[1]) == ""
    assert doubt("find", None, panels_from=whole[1]).startswith("On 4 of 6 pages, panels were not found")
    assert doubt("find", None, pages=0) == ""


def test_durations_are_told_in_words(monkeypatch):
    assert [add_train._words(s) for s in (1, 5, 5.1, 89, 90, 121)] == ["5 s", "5 s", "10 s", "90 s", "2 min", "3 min"]
    config = Config(epochs=10, val_fraction=0.25, test_fraction=0.25, batch_pages=8)
    # 8 s + 0.02 s a panel; 10 epochs of 5 steps (40 of 80 pages by 8) of 0.05 s
    assert add_train.estimate(config, 100, 80) == "Train: about 15 s. Embed only: about 10 s."
    chosen = SimpleNamespace(run=SimpleNamespace(config=config))
    monkeypatch.setattr(retrain_form.loaders, "metrics", lambda run: None)
    for seconds, words in ((30, "About 30 s."), (300, "About 5 min."), (math.nan, "Duration unknown: the run above")):
        measured = seconds - 3  # until the first step
        monkeypatch.setattr(retrain_form.curves, "expected_seconds", lambda *_, measured=measured: measured)
        assert retrain_form._estimate(chosen, config).startswith(words)


def test_other_words_of_views():
    assert data_view._why("label", "") == "Left out under “label”: the page type is not among keep_labels."
    assert data_view._why("odd", "line 3") == "Left out under “odd”: line 3."
    assert data_view._why("odd", "") == "Left out under “odd”."
    assert losses._gallery([losses.Source("a", pd.DataFrame({"split": ["val"], "step": [1]}))])[0] == ""

    class Seen:
        metric = "retrieval/mean_r5"
        measured_at = "last"

    assert evidence._measured_on([Seen]) == "Test books, last checkpoint"


def test_numbers_of_seeds_and_what_a_search_says_of_its_true_match(monkeypatch):
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(evidence.st, "metric", lambda label, value, width: told.append((label, value)))
    rows = [SimpleNamespace(verdict=v, seeds=n) for v, n in (("helps", 5), ("hurts", 3), ("helps", 4))]
    evidence._counts(rows)
    assert told == [("Helps", "2"), ("No effect here", "0"), ("Hurts", "1"), ("Seeds per variant", "3–5")]
    evidence._counts(rows[:1])
    assert told[-1] == ("Seeds per variant", "5")

    def standing(said: int | None, rank: float | None, panel: int | None, space: str) -> str:
        way = query.Way("", SimpleNamespace(panel=panel, space=space), "text")
        return search_view._standing(SimpleNamespace(gallery=1200, said=said, match_rank=rank), way)

    among = "1,200 panels searched"
    assert standing(3, None, None, "words") == f"{among}; 3 panels with all the words."
    assert standing(None, 4.0, 7, "image") == "True match at rank 4 of 1,200."
    assert standing(None, None, 7, "image") == f"{among}; the true match is not among them."
    assert standing(None, None, 7, "text") == standing(None, None, None, "image") == f"{among}."  # there is none


def test_files_of_a_data_set_are_called_after_its_run_in_few_letters(monkeypatch):
    names: list[str] = []
    monkeypatch.setattr(data_view.st, "download_button", lambda label, make, name, *_, **__: names.append(name))
    data_view._downloads(
        SimpleNamespace(id="runs/ö " + "x" * 99), Config(), SimpleNamespace(table=SimpleNamespace(report=None))
    )
    assert len(names) == 4
    assert {len(name.removeprefix("runs-" + "x" * 55 + "-")) < 20 for name in names} == {True}


def test_the_largest_groups_of_a_map_are_offered_and_the_others_counted(monkeypatch):
    offered: list[str] = []
    said: list[str] = []
    monkeypatch.setattr(map_column, "MANY_GROUPS", 2)
    monkeypatch.setattr(map_column.components, "chips", lambda items, **_: offered.extend(i["text"] for i in items))
    monkeypatch.setattr(map_column.shell, "line", said.append)
    nobody = SimpleNamespace(members=np.zeros(9, bool), group=None)
    legend = maps.Legend(["c", "a", "b"], ["#1", "#2", "#3"], [4, 2, 1], 2)
    map_column._group(None, nobody, maps.COLORINGS["book"], legend)
    assert (offered, said) == (["c", "a"], ["The 2 largest of 3.", "In none: 2 panels"])


# --- retrain


def test_where_the_buttons_of_a_run_lead(monkeypatch):
    went: list[tuple[str, dict[str, str]]] = []
    monkeypatch.setattr(retrain.shell, "go", lambda view, **params: went.append((view, params)))
    for parent in ("samples/first", ""):
        for view in ("compare", "losses", "map"):
            retrain._open(view, SimpleNamespace(id="runs/new"), SimpleNamespace(parent=parent))
    new, both = {"run": "runs/new"}, {"run": "runs/new", "with": "samples/first"}
    assert went == [
        ("map", {**both, "mode": "two"}), ("losses", both), ("map", new), ("runs", new), ("losses", new), ("map", new)
    ]  # fmt: skip


def test_how_far_a_run_is_and_what_chance_is_meanwhile(monkeypatch):
    begun = {"started": "2026-01-01T00:00:00+00:00", "updated": "2026-01-01T00:01:30+00:00"}

    def words(state: str, step: int, total: int) -> str:
        status = SimpleNamespace(step=step, total_steps=total, message="what it said", **begun)
        return retrain._progress_words(SimpleNamespace(state=state, is_live=False, run=SimpleNamespace(status=status)))

    assert words("starting", 0, 0) == ""
    assert words("queued", 0, 0) == "waits until fewer than 2 runs train"
    assert words("finished", 1200, 1200) == "step 1,200 of 1,200  ·  90 s"
    assert words("failed", 0, 0) == "what it said  ·  90 s"
    said: list[str] = []
    values = {"retrieval/gallery": 40.0}
    monkeypatch.setattr(retrain.loaders, "result", lambda run: values)
    monkeypatch.setattr(retrain.tiles, "show", lambda metrics, values: None)
    monkeypatch.setattr(retrain.shell, "line", said.append)
    retrain._validation(None)
    values["retrieval/gallery"] = 3.0
    retrain._validation(None)
    values["retrieval/gallery"] = 0.0
    retrain._validation(None)
    values.clear()
    retrain._validation(None)
    assert [line.partition(" Compared")[0].partition("epoch: ")[2] for line in said] == [
        "R@5 among 40 panels with image and text (chance 12.5 %).",
        "R@5 among 3 panels with image and text (chance 100.0 %).",
        "no panel has image and text, so that there is no R@5.",
    ]
