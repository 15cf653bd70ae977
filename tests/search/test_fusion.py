"""Typed words: three ranked lists fused by hand, and what a search says where one of them is missing."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import synthetic
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stage3.batches.dataset import Dataset
from stage3.config import Config
from stage3.data.table import PanelTable
from stage3.errors import ConfigError, DataError
from stage3.features import FeatureSet
from stage3.model import EncoderSpec, embedding
from stage3.model.objectives import Stage3
from stage3.search import answer_lines, answers, approximate
from stage3.search.fusion import BEST, DEPTH, EVERY_WORD, K, fuse, search_words
from stage3.search.searcher import MAX_WORDS, Filters, Query, Searcher
from stage3.search.words import WordIndex

# --- fusing


def ranked(rows: list[int], ranks: list[int] | None = None, weight: float = 1.0):
    return np.array(rows, np.int64), np.array(ranks or range(1, len(rows) + 1), np.int64), weight


def by_hand(lists, top: int) -> list[int]:
    """Exact fractions; ties go as in the list of words, then to the lower row."""
    scores: dict[int, Fraction] = {}
    for rows, ranks, weight in lists.values():
        for row, rank in zip(rows.tolist(), ranks.tolist(), strict=True):
            scores[row] = scores.get(row, Fraction(0)) + Fraction(int(weight), 60 + rank)
    says = lists["words"][0].tolist() if "words" in lists else []
    place = {row: i for i, row in enumerate(says)}
    return sorted(scores, key=lambda row: (-scores[row], place.get(row, 1000), row))[:top]


def test_three_lists_of_known_scores():
    lists = {
        "words": ranked([9, 4], [1, 1], EVERY_WORD),
        "text": ranked([2, 4, 7]),
        "image": ranked([2, 7]),
    }
    rows, scores = fuse(lists, 10)
    # 4: 2/61 + 1/62; 9: 2/61 and says the words; 2: 1/61 + 1/61, the same; 7: 1/63 + 1/62
    assert rows.tolist() == [4, 9, 2, 7]
    np.testing.assert_allclose(scores, [2 / 61 + 1 / 62, 2 / 61, 2 / 61, 1 / 63 + 1 / 62], rtol=1e-12)
    assert fuse(lists, 2)[0].tolist() == [4, 9]
    assert fuse({}, 5)[0].tolist() == []
    assert (
        max(fuse({name: ranked([3], weight=w) for name, w in (("words", 2.0), ("text", 1.0), ("image", 1.0))}, 1)[1])
        == BEST
    )


@given(
    st.lists(st.integers(0, 30), unique=True, max_size=12),
    st.lists(st.integers(0, 30), unique=True, max_size=20),
    st.lists(st.integers(0, 30), unique=True, max_size=20),
)
def test_fusing_equals_exact_fractions_and_panels_that_say_the_words_come_first(says, text, image):
    lists = {"words": ranked(says, [1] * len(says), EVERY_WORD), "text": ranked(text), "image": ranked(image)}
    rows, scores = fuse(lists, 100)
    assert rows.tolist()[: len(says)] == by_hand(lists, 100)[: len(says)]
    assert set(rows.tolist()[: len(says)]) == set(says)
    assert sorted(rows.tolist()) == sorted(by_hand(lists, 100))
    assert (np.diff(scores) <= 0).all()
    assert K == 60


# --- a searcher


def texts_of(n: int) -> list[str]:
    """Every ninth panel says pumpkin, every tenth pumpkins; a fifth of all have no text."""
    out = []
    for i in range(n):
        said = "a pumpkin by the gate" if i % 9 == 4 else "Pumpkins of autumn" if i % 10 == 7 else f"line {i} of talk"
        out.append("" if i % 5 == 1 else said)
    return out


MADE = synthetic.table(books=12, pages=4, boxless=0.0, textless=0.0)


def made_searcher(texts: list[str] | None = None, seed: int = 1) -> Searcher:
    """A searcher with an untrained model, whose encoder knows nothing of the words."""
    base = MADE
    texts = texts if texts is not None else texts_of(len(base))
    panels = base.panels.assign(dialogue=[t if i % 2 else "" for i, t in enumerate(texts)])
    panels["description"] = ["" if i % 2 else t for i, t in enumerate(texts)]
    table = PanelTable(panels, base.pages, base.report)
    rng = np.random.default_rng(seed)
    features = FeatureSet.in_memory(
        rng.normal(size=(len(table), 24)).astype(np.float32),
        rng.normal(size=(len(table), 20)).astype(np.float32),
        has_image=np.arange(len(table)) % 7 != 3,
        has_text=np.array([bool(t) for t in texts]),
    )
    config = Config.from_mapping({**synthetic.SMALL, "dim": 16})
    split = np.arange(len(table.pages)) % 3
    data = Dataset(table, features, split)
    spec = EncoderSpec.of(config, features.image_sizes, features.text_dim)
    model = synthetic.under_way(Stage3.initialized(spec, config, seed=1)).eval()
    searcher = Searcher(data, model, embedding.embed(model, data.panel_set, data.pages("all")))
    searcher._backbones["text"] = Encoder()
    return searcher


class Encoder:
    """A text backbone that gives every text another random vector."""

    def encode(self, texts: list[str]):
        return torch.randn(len(texts), 20, generator=torch.Generator().manual_seed(len(texts[0])))


@pytest.fixture(scope="module")
def searcher() -> Searcher:
    return made_searcher()


def saying(searcher: Searcher, word: str) -> list[int]:
    panels = searcher.data.table.panels
    text = (panels["dialogue"] + " " + panels["description"]).str.lower()
    return [i for i, t in enumerate(text) if word in t.replace(".", " ").split()]


def test_every_panel_that_says_a_word_comes_first_whatever_the_model(searcher):
    exact, forms = saying(searcher, "pumpkin"), saying(searcher, "pumpkins")
    assert min(len(exact), len(forms)) >= 5
    found = search_words(searcher, "pumpkin", top=1000)
    assert set(found.rows[: len(exact + forms)].tolist()) == {*exact, *forms}
    assert found.said == len(exact) + len(forms)
    ways = dict(zip(found.rows.tolist(), found.ways, strict=True))
    assert all(ways[row]["words"] == 1 for row in exact)
    assert all(ways[row]["word forms"] == 1 for row in forms)
    assert (np.diff(found.scores) <= 0).all()


def test_the_scores_and_ranks_are_those_of_the_three_searches(searcher):
    query = searcher.from_words("pumpkin")
    lists = {space: searcher.search(query, space, DEPTH).rows.tolist() for space in ("text", "image")}
    found = search_words(searcher, "pumpkin", top=40)
    for row, score, ways in zip(found.rows.tolist(), found.scores, found.ways, strict=True):
        expected = 0.0
        for name, rank in ways.items():
            if name in lists:
                assert lists[name].index(row) + 1 == rank
                expected += 1 / (60 + rank)
            else:
                expected += 2 / (60 + rank)
        assert score == pytest.approx(expected, rel=1e-12)
        assert [name for name in lists if row in lists[name]] == [name for name in ways if name in lists]


def test_word_parts_are_said_and_come_before_meaning_where_no_panel_says_the_word():
    searcher = made_searcher(["Thegreatoakland" if i in (21, 44) else "line" for i in range(len(MADE))])
    found = search_words(searcher, "oakland", top=5)
    assert set(found.rows[:2].tolist()) == {21, 44}
    assert [next(iter(ways)) for ways in found.ways[:2]] == ["word parts"] * 2
    assert found.said == 0


def test_filters_hold_for_every_way(searcher):
    chosen = Filters(books=("book003", "book005"))
    found = search_words(searcher, "pumpkin", top=1000, filters=chosen)
    books = searcher.frame["book"]
    says = saying(searcher, "pumpkin") + saying(searcher, "pumpkins")
    there = [row for row in says if books[row] in chosen.books]
    assert there
    assert set(found.rows[: len(there)].tolist()) == set(there)
    assert set(books[found.rows]) == set(chosen.books)
    assert found.gallery == int(books.isin(chosen.books).sum() - sum(
        books[i] in chosen.books and i % 5 == 1 and i % 7 == 3 for i in range(len(books))
    ))  # fmt: skip
    with pytest.raises(DataError, match="no panel has the book 'nope'"):
        search_words(searcher, "pumpkin", filters=Filters(books=("nope",)))


def test_words_alone_find_only_panels_that_say_them(searcher):
    only = answers(searcher, text="pumpkin", target="words", top=1000)[0]
    assert only.frame["panel"].tolist() == saying(searcher, "pumpkin") + saying(searcher, "pumpkins")
    assert set(only.frame["found_by"]) == {"words", "word forms"}
    assert only.frame["text_rank"].isna().all()
    assert only.results.gallery == sum(bool(t) for t in texts_of(len(searcher.frame)))
    nothing = answers(searcher, text="zebra", target="words")[0]
    assert (len(nothing.frame), nothing.results.said) == (0, 0)
    assert pd.concat([nothing.frame]).columns.tolist() == only.frame.columns.tolist()


def test_an_answer_is_json_with_the_keys_it_had_and_those_of_words(searcher):
    fused, plain = (answers(searcher, text="pumpkin", target=target)[0].to_dict() for target in (None, "image"))
    assert json.loads(json.dumps(fused)) == fused
    assert (fused["from"], fused["to"], plain["to"]) == ("text", "all", "image")
    assert set(fused) == set(plain)
    assert {"query", "from", "to", "compared", "gallery", "match_rank", "results"} <= set(plain)
    assert plain["said"] is None
    assert set(fused["results"][0]) - set(plain["results"][0]) == {"found_by", "words_rank", "text_rank", "image_rank"}
    assert any(row["image_rank"] is None for row in answers(searcher, text="pumpkin", top=1000)[0].to_dict()["results"])
    lines = list(answer_lines({"run": "runs/first", "notes": ["a note"], "searches": [fused]}))
    assert lines[:3] == [
        "note: a note",
        f"the words that were typed, among {fused['gallery']} panels",
        f"compared: {fused['compared']}",
    ]
    assert lines[-2:] == ["", "see them: streamlit run app/main.py, then Search (run first)"]
    assert any(line.endswith(("[words, text, image]", "[words, image]", "[words, text]")) for line in lines)
    assert f"said: all the words, in any form, by {fused['said']} panels" in lines


def test_without_a_text_backbone_only_words_are_searched_and_that_is_said():
    searcher = made_searcher()
    searcher._backbones.clear()
    searcher.names = ("tiny", "nobody/no-such-model")
    found = search_words(searcher, "pumpkin", top=1000)
    assert found.rows.tolist() == saying(searcher, "pumpkin") + saying(searcher, "pumpkins")
    assert "only words are searched, not their meaning" in found.notes[0]
    assert "nobody/no-such-model is not on this machine" in found.notes[0]
    assert "embedding" not in found.compared
    with pytest.raises(DataError, match="is not on this machine"):
        answers(searcher, text="pumpkin", target="image")


def test_without_full_text_search_only_meaning_is_searched_and_that_is_said(monkeypatch):
    def refuse(*_: object) -> None:
        raise DataError("the SQLite of this Python has no full-text search (FTS5)")

    searcher = made_searcher()
    monkeypatch.setattr(WordIndex, "__init__", refuse)
    found = search_words(searcher, "pumpkin")
    assert {name for ways in found.ways for name in ways} == {"text", "image"}
    assert "no full-text search" in found.notes[0]
    assert found.said is None
    with pytest.raises(DataError, match="words themselves are not looked up"):
        search_words(searcher, "pumpkin", "words")


def test_comics_without_any_text_are_searched_by_image_alone_and_that_is_said():
    searcher = made_searcher([""] * len(MADE))
    found = search_words(searcher, "pumpkin")
    assert {name for ways in found.ways for name in ways} == {"image"}
    assert found.notes == ("no panel has a text, so no words are looked up",)
    with pytest.raises(DataError, match=r"no other panel of .* has text"):
        answers(searcher, text="pumpkin", target="words")
    if approximate.find_spec("faiss"):
        with pytest.raises(DataError, match=r"no other panel of .* has text"):
            answers(searcher, panel=0, target="text", index="faiss")


@pytest.mark.parametrize(
    "text", ["the", '"', "\0\x07", "南瓜", "*", "x" * MAX_WORDS, "pumpkin\nAND NOT (gate", '"the gate']
)
def test_odd_queries_are_answered(searcher, text):
    found = search_words(searcher, text, top=5)
    assert len(found.rows) == 5


@pytest.mark.parametrize(("text", "message"), [(" \n", "empty"), ("x" * (MAX_WORDS + 1), "2,001 characters")])
def test_no_words_and_too_many_are_refused(searcher, text, message):
    with pytest.raises(DataError, match=message):
        search_words(searcher, text)


def test_words_and_all_take_nothing_but_words(searcher):
    for target in ("words", "all"):
        with pytest.raises(ConfigError, match=f"{target} takes words alone"):
            answers(searcher, panel=0, target=target)
    with pytest.raises(ConfigError, match="Did you mean 'words'"):
        answers(searcher, text="x", target="wrods")


def test_a_blend_and_the_plain_targets_are_as_before(searcher):
    query = searcher.from_words("pumpkin")
    assert isinstance(query, Query)
    for target in ("image", "text", "panel"):
        answer = answers(searcher, text="pumpkin", target=target, top=20)[0]
        assert answer.frame["panel"].tolist() == searcher.search(query, target, 20).rows.tolist()
        assert answer.results.match_rank is None
        assert answer.results.gallery == len(searcher.gallery(target)[1])
        assert "found_by" not in answer.frame


@pytest.mark.parametrize(("dtype", "kept"), [("float16", torch.float16), ("float32", torch.float32)])
def test_features_of_words_are_rounded_as_those_of_the_panels(dtype, kept):
    searcher = made_searcher()
    searcher.model.config = replace(searcher.model.config, feature_dtype=dtype)
    features = Encoder().encode(["pumpkin"]).to(kept).float()
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(searcher.model.encoder.text(features)[0], dim=0)
    assert torch.equal(searcher.from_words("pumpkin").vector, expected)


def test_a_panel_is_asked_by_its_id_or_row_and_one_with_nothing_of_its_own_by_its_fused_embedding(searcher):
    ids = searcher.data.table.panels["panel_id"]
    by_row, by_id = (answers(searcher, panel=panel, top=3) for panel in (4, ids[4]))
    assert [a.to_dict() for a in by_id] == [a.to_dict() for a in by_row]
    assert [a.query.panel for a in answers(searcher, panel="4", top=3)] == [a.query.panel for a in by_row]
    for unknown in ("4th", str(len(ids)), -1):
        with pytest.raises(DataError, match=f"no panel has the id {unknown!r}.*Ids look like {ids[0]!r}"):
            answers(searcher, panel=unknown)
    empty = 31  # neither image nor text
    asked = [answers(searcher, panel=empty, target=target)[0] for target in (None, "image", "text")]
    assert [(a.query.space, a.target) for a in asked] == [("panel", "panel"), ("panel", "image"), ("panel", "text")]


def test_an_image_is_encoded_by_the_vision_backbone_and_adapter():
    searcher = made_searcher()
    features = torch.randn(1, 24, generator=torch.Generator().manual_seed(3))
    given = []
    searcher._backbones["vision"] = SimpleNamespace(encode=lambda images: given.extend(images) or features)
    query = searcher.from_image(Image.new("L", (8, 8)))
    assert (query.space, query.said, [image.mode for image in given]) == ("image", "the image that was given", ["RGB"])
    with torch.inference_mode():
        seen = searcher.model.encoder.vision(features.half().float())[0]
    torch.testing.assert_close(query.vector, torch.nn.functional.normalize(seen, dim=0))
    assert "_backbones" not in repr(searcher)
    unknown = replace(searcher, names=("nobody/no-vision", "tiny"), _backbones={})
    with pytest.raises(DataError, match="nobody/no-vision is not on this machine"):
        unknown.from_image(Image.new("RGB", (8, 8)))
