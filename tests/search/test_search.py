"""Search against float64 brute force, and what a searcher says of its results."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import synthetic
import torch
from PIL import Image

from stage3 import metrics
from stage3.batches import IMAGE, TEXT
from stage3.data import readers
from stage3.errors import ConfigError, DataError
from stage3.model import EncoderSpec, embedding
from stage3.model.embedding import Embedded
from stage3.model.objectives import Stage3
from stage3.runs import RunFolder
from stage3.runs.data import load_data
from stage3.search import __main__ as search_command
from stage3.search import answers
from stage3.search.answers import result_frame
from stage3.search.failures import I2T, NEITHER, T2I, failures, text_crowding
from stage3.search.index import Index
from stage3.search.searcher import MAX_WORDS, Filters, Query, Searcher, compared


def unit(n: int, d: int, seed: int = 0) -> torch.Tensor:
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(x, dim=1)


def brute(queries: torch.Tensor, matrix: torch.Tensor, k: int, allowed=None) -> tuple[np.ndarray, np.ndarray]:
    """Every product in float64, sorted by score and then by row."""
    q = queries.double().numpy()
    q = (q / np.linalg.norm(q, axis=1, keepdims=True)).astype(np.float32).astype(np.float64)
    rows, scores = [], []
    for one in q:
        s = (matrix.double().numpy() * one).sum(axis=1)
        keep = np.flatnonzero(allowed) if allowed is not None else np.arange(len(s))
        order = keep[np.lexsort((keep, -s[keep]))][:k]
        rows.append(order)
        scores.append(s[order])
    return np.array(rows), np.array(scores)


# --- the index


@pytest.mark.parametrize(("n", "d", "k"), [(1, 4, 5), (50, 8, 50), (3000, 64, 10), (70_000, 8, 7)])
def test_search_equals_brute_force_in_float64(n, d, k):
    matrix, queries = unit(n, d), torch.randn(9, d, generator=torch.Generator().manual_seed(1))
    hits = Index(matrix).search(queries, k)
    rows, scores = brute(queries, matrix, k)
    assert hits.rows.tolist() == rows.tolist()
    np.testing.assert_array_equal(hits.scores, scores)


def test_equal_rows_come_in_the_order_of_rows_even_where_the_list_is_cut():
    matrix = unit(5, 16)[torch.arange(400) % 5]
    hits = Index(matrix).search(matrix[2:3], 100)
    assert hits.rows[0, :80].tolist() == list(range(2, 400, 5))
    assert hits.rows.tolist() == brute(matrix[2:3], matrix, 100)[0].tolist()


def test_rows_that_float32_cannot_tell_apart_are_ordered_by_float64():
    query = unit(1, 512)
    close = query + 1e-6 * torch.randn(2000, 512, generator=torch.Generator().manual_seed(3))
    matrix = torch.nn.functional.normalize(close, dim=1)
    ordered = (matrix @ query[0]).sort(descending=True, stable=True).indices[:20].tolist()
    rows, _ = brute(query, matrix, 20)
    assert ordered != rows[0].tolist(), "the case is too easy: float32 alone gets it right"
    assert Index(matrix).search(query, 20).rows.tolist() == rows.tolist()


def test_only_allowed_rows_are_found_and_excluded_ones_are_not():
    matrix = unit(300, 12)
    allowed = np.arange(300) % 7 == 3
    hits = Index(matrix).search(matrix[:4], 50, allowed=allowed, exclude=np.array([-1, -1, 2, 3]))
    rows, _ = brute(matrix[:3], matrix, 50, allowed)
    assert hits.rows[:3, :43].tolist() == rows.tolist()
    assert hits.rows.shape == (4, 43)  # as many as may be found
    assert 3 not in hits.rows[3]
    assert hits.rows[3, -1] == -1
    assert math.isnan(hits.scores[3, -1])
    assert Index(matrix).search(matrix[:1], 5, allowed=np.zeros(300, bool)).rows.shape == (1, 0)


def test_a_memory_mapped_matrix_gives_the_same(tmp_path):
    matrix = unit(70_000, 8)
    matrix.numpy().tofile(tmp_path / "m.f32")
    mapped = np.memmap(tmp_path / "m.f32", np.float32, "r", shape=(70_000, 8))
    queries = unit(3, 8, seed=5)
    there, here = Index(mapped).search(queries, 9), Index(matrix).search(queries, 9)
    assert there.rows.tolist() == here.rows.tolist()
    np.testing.assert_array_equal(there.scores, here.scores)


@pytest.mark.parametrize("bad", [0.0, float("nan"), 2.0])
def test_a_row_that_is_not_of_norm_one_is_named(bad):
    matrix = unit(10, 4)
    matrix[6] *= bad
    with pytest.raises(DataError, match="row 6"):
        Index(matrix)


def test_queries_without_direction_or_of_another_size_are_refused():
    index = Index(unit(10, 4))
    with pytest.raises(DataError, match="zero or not finite"):
        index.search(torch.zeros(1, 4), 3)
    with pytest.raises(DataError, match="4 numbers"):
        index.search(torch.ones(1, 5), 3)
    with pytest.raises(DataError, match="4 numbers"):
        index.search(torch.ones(4), 3)
    with pytest.raises(DataError, match="float32"):
        Index(unit(10, 4).double())


# --- the searcher


@pytest.fixture(scope="module")
def searcher() -> Searcher:
    data = synthetic.dataset(boxless=0.1, textless=0.25)
    run_config = {**synthetic.SMALL, "dim": 16}
    from stage3.config import Config

    config = Config.from_mapping(run_config)
    spec = EncoderSpec.of(config, data.features.image_sizes, data.features.text_dim)
    model = synthetic.under_way(Stage3.initialized(spec, config, seed=1)).eval()
    return Searcher(data, model, embedding.embed(model, data.panel_set, data.pages("all")))


def rows_with(searcher: Searcher, *modalities: int) -> np.ndarray:
    present = searcher.embedded.present[:, list(modalities)].all(dim=1)
    return searcher.embedded.rows[present].numpy()


@pytest.mark.parametrize(("space", "target"), [("image", "text"), ("text", "image"), ("image", "panel")])
def test_a_panel_finds_by_the_cosines_of_its_embeddings(searcher, space, target):
    row = int(rows_with(searcher, IMAGE, TEXT)[3])
    of = {"image": searcher.embedded.image, "text": searcher.embedded.text, "panel": searcher.embedded.panel}
    gallery = rows_with(searcher, *{"image": [IMAGE], "text": [TEXT], "panel": []}[target])
    at = searcher.position
    vectors = torch.nn.functional.normalize(of[target][at[gallery]].double(), dim=1)
    query = torch.nn.functional.normalize(of[space][at[row]].double(), dim=0)
    scores = (vectors @ query).numpy()
    found = searcher.search(searcher.from_panel(row, space), target, 10)
    order = gallery[np.lexsort((gallery, -scores))][:10]
    assert found.rows.tolist() == order.tolist()
    np.testing.assert_allclose(found.scores, np.sort(scores)[::-1][:10], atol=1e-6)
    assert found.gallery == len(gallery)
    assert found.match_score == pytest.approx(float(scores[list(gallery).index(row)]), abs=1e-6)


def test_the_rank_of_the_true_match_is_the_one_of_the_metrics(searcher):
    rows = rows_with(searcher, IMAGE, TEXT)
    at = torch.from_numpy(searcher.position[rows])
    texts = searcher.embedded.present[:, TEXT].nonzero()[:, 0]
    match = torch.searchsorted(texts, at)
    ids = searcher.embedded.text_ids
    ranks = metrics.retrieval_ranks(
        searcher.embedded.image[at],
        searcher.embedded.text[texts],
        partner=match,
        query_ids=ids[at],
        gallery_ids=ids[texts],
    )
    ours = [searcher.search(searcher.from_panel(int(r), "image"), "text", 3).match_rank for r in rows]
    assert ours == ranks.tolist()


def test_the_true_match_and_page_mates_are_marked_and_a_panel_does_not_find_itself_in_one_space(searcher):
    row = int(rows_with(searcher, IMAGE, TEXT)[0])
    across = searcher.search(searcher.from_panel(row, "image"), "text", 1000)
    assert [r for r, mark in zip(across.rows, across.relations, strict=True) if mark == "true match"] == [row]
    page = searcher.data.table.page_of_panel
    for found, relation in zip(across.rows, across.relations, strict=True):
        assert (relation == "page mate") == (page[found] == page[row] and found != row)
    within = searcher.search(searcher.from_panel(row, "image"), "image", 1000)
    assert row not in within.rows
    assert within.match_rank is None
    assert within.gallery == len(rows_with(searcher, IMAGE)) - 1 == len(within.rows) == len(within.scores)
    assert np.isfinite(within.scores).all()
    silent = min(set(rows_with(searcher, IMAGE)) - set(rows_with(searcher, TEXT)))
    alone = searcher.search(searcher.from_panel(int(silent), "image"), "text", 1000)
    assert (alone.match_rank, alone.match_score) == (None, None)
    assert alone.gallery == len(rows_with(searcher, TEXT)) == len(alone.rows)
    assert "true match" not in alone.relations


def test_a_rank_is_among_the_panels_that_pass_the_filters(searcher):
    """Those that the filters leave out compete as little as they are found."""
    frame = searcher.frame
    pairs = rows_with(searcher, IMAGE, TEXT)
    lower = 0
    for row in pairs[::4].tolist():
        chosen = Filters(books=(str(frame["book"][row]),), text="pair")
        found = searcher.search(searcher.from_panel(row, "image"), "text", 3, chosen)
        mine = [r for r in pairs.tolist() if frame["book"][r] == frame["book"][row]]
        z = torch.nn.functional.normalize(searcher.embedded.image[searcher.position[row]], dim=0)
        text = torch.nn.functional.normalize(searcher.embedded.text[searcher.position[mine]], dim=1)
        scores = text @ z
        assert found.match_rank == 1 + int((scores > scores[mine.index(row)] + 1e-6).sum())
        assert found.gallery == len(mine)
        lower += found.match_rank < (searcher.search(searcher.from_panel(row, "image"), "text", 3).match_rank or 0)
    assert lower > 3


def test_filters_shrink_the_gallery_and_nothing_else(searcher):
    row = int(rows_with(searcher, IMAGE, TEXT)[0])
    query = searcher.from_panel(row, "text")
    frame = searcher.frame
    chosen = Filters(books=("book001", "book005"), splits=("train", "val", "test"), text="with")
    everything = searcher.search(query, "image", 10_000)
    found = searcher.search(query, "image", 10_000, chosen)
    keep = (frame["book"].isin(["book001", "book005"]) & frame["has_text"]).to_numpy()
    assert found.rows.tolist() == [r for r in everything.rows if keep[r]]
    assert found.gallery == int((keep & frame["has_image"]).sum())
    assert (found.match_rank is None) == (not keep[row])
    assert bool(chosen)
    assert not Filters()
    pairs = searcher.search(query, "image", 10_000, Filters(text="pair"))
    assert pairs.rows.tolist() == [r for r in everything.rows if frame["has_text"][r] and frame["has_image"][r]]
    assert 0 < len(pairs.rows) < len(everything.rows)
    elsewhere = Filters(books=tuple(b for b in searcher.choices("book") if b != frame["book"][row]))
    within = searcher.search(query, "text", 10_000, elsewhere)  # in its own space, and left out by the filters
    assert within.gallery == len(within.rows) == int((frame["has_text"] & (frame["book"] != frame["book"][row])).sum())
    at_home = searcher.search(query, "text", 10_000, Filters(books=(str(frame["book"][row]),)))  # and let through
    others = frame["has_text"] & (frame["book"] == frame["book"][row]) & (frame.index != row)
    assert at_home.gallery == len(at_home.rows) == int(others.sum())
    assert searcher.choices("split") == list(dict.fromkeys(frame["split"]))
    textless = searcher.search(query, "image", 10_000, Filters(text="without"))
    assert not frame.loc[textless.rows, "has_text"].any()
    assert len(textless.rows)
    with pytest.raises(DataError, match="no panel has the book 'nope'"):
        searcher.search(query, "image", 3, Filters(books=("nope",)))
    with pytest.raises(DataError, match="any, with, without"):
        searcher.search(query, "image", 3, Filters(text="maybe"))


def test_a_blend_is_the_normalized_weighted_sum(searcher):
    a, b = unit(2, 16)
    image, words = Query(a, "image", ""), Query(b, "text", "")
    for weight in (0.0, 0.3, 1.0):
        mixed = searcher.blend(image, words, weight)
        expected = (1 - weight) * a + weight * b
        torch.testing.assert_close(mixed.vector, expected / expected.norm())
        assert mixed.space == "blend"
    at_ends = [searcher.search(searcher.blend(image, words, w), "text", 5).rows.tolist() for w in (0, 1)]
    assert at_ends == [searcher.search(q, "text", 5).rows.tolist() for q in (image, words)]
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(DataError, match="0 \\(image\\) to 1"):
            searcher.blend(image, words, wrong)
    with pytest.raises(DataError, match="cancel out"):
        searcher.blend(image, Query(-a, "text", ""), 0.5)
    with pytest.raises(DataError, match="image and words"):
        searcher.blend(words, image, 0.5)


def test_a_panel_asks_only_in_the_spaces_it_has(searcher):
    textless = int(np.setdiff1d(rows_with(searcher, IMAGE), rows_with(searcher, TEXT))[0])
    assert searcher.spaces_of(textless) == ("image", "panel")
    with pytest.raises(DataError, match="has no text"):
        searcher.from_panel(textless, "text")
    with pytest.raises(DataError, match="there is no panel 99999"):
        searcher.from_panel(99_999, "image")
    assert searcher.spaces_of(-1) == ()
    pages = searcher.data.pages("train")
    part = replace(searcher, embedded=embedding.embed(searcher.model, searcher.data.panel_set, pages))
    for row in rows_with(searcher, IMAGE):  # only what has an embedding can ask
        assert bool(part.spaces_of(int(row))) == (row in part.embedded.rows)
    with pytest.raises(DataError, match=f"at most {MAX_WORDS:,} are allowed"):
        searcher.from_words("x" * (MAX_WORDS + 1))
    with pytest.raises(DataError, match="empty"):
        searcher.from_words("  \n")


def test_results_say_which_spaces_are_compared_and_what_each_result_is(searcher):
    row = int(rows_with(searcher, IMAGE, TEXT)[0])
    found = searcher.search(searcher.from_panel(row, "image"), "text", 4)
    frame = result_frame(searcher, found)
    assert frame["panel"].tolist() == found.rows.tolist()
    assert frame["rank"].tolist() == [1, 2, 3, 4]
    assert frame["score"].tolist() == found.scores.tolist()
    assert frame["relation"].tolist() == found.relations
    assert frame.columns.tolist() == [
        "rank", "score", "relation", "panel", "panel_id", "page_id", "book", "page_type", "split", "order", "text",
        "has_image", "has_text",
    ]  # fmt: skip
    assert frame["text"].tolist() == searcher.frame["text"][found.rows].tolist()
    assert "alignment loss" in found.compared
    assert "one space" in compared("text", "text")
    assert "no loss" in compared("text", "panel")
    assert compared("image", "panel").endswith("has seen its own panel's image")
    assert compared("panel", "text").endswith("has seen its own panel's text")
    assert "no loss" in compared("blend", "panel")


def test_what_is_asked_decides_what_is_searched(searcher, monkeypatch, tmp_path):
    a, b = unit(2, 16)
    monkeypatch.setattr(Searcher, "from_image", lambda *_: Query(a, "image", "an image"))
    monkeypatch.setattr(Searcher, "from_words", lambda *_: Query(b, "text", "words"))
    shown = Image.new("RGB", (8, 8))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    noise.save(tmp_path / "noise.png")
    for given in (tmp_path / "noise.png", str(tmp_path / "noise.png")):
        assert answers(searcher, image=given)[0].query.said == "an image"
    for size, message in ((20 * 2**20, "format"), (20 * 2**20 + 1, "over 20 MB")):
        with (tmp_path / "large.png").open("wb") as file:
            file.truncate(size)
        with pytest.raises(DataError, match=message):
            answers(searcher, image=tmp_path / "large.png")
    found = [
        (answer.query.space, answer.target)
        for asked in ({"image": shown}, {"image": shown, "text": "x"}, {"text": "x", "target": "image"})
        for answer in answers(searcher, **asked, top=2)
    ]
    assert found == [("image", "text"), ("blend", "image"), ("text", "image")]
    row = int(rows_with(searcher, IMAGE, TEXT)[0])
    assert [(a.query.space, a.target) for a in answers(searcher, panel=row)] == [("image", "text"), ("text", "image")]
    for wrong in ({}, {"panel": row, "text": "x"}, {"panel": row, "image": shown}):
        with pytest.raises(ConfigError, match="give one query"):
            answers(searcher, **wrong)


# --- failures


def planted(text: torch.Tensor, text_ids: list[int], d: int = 8) -> Embedded:
    n = len(text_ids)
    ids = torch.tensor(text_ids)
    present = torch.stack([torch.ones(n, dtype=torch.bool), ids >= 0, torch.ones(n, dtype=torch.bool)], dim=1)
    return Embedded(
        panel=unit(n, d, 7), image=unit(n, d, 8), text=text * (ids >= 0)[:, None], gate=torch.full((n, 3), 1 / 3),
        present=present, page_ids=torch.arange(n), text_ids=ids, rows=torch.arange(n),
    )  # fmt: skip


def test_each_reason_is_found_where_it_was_planted():
    text = unit(60, 64)
    text[50:56] = torch.nn.functional.normalize(
        text[50] + 0.02 * unit(6, 64, seed=4), dim=1
    )  # say nothing of their own
    ids = list(range(60))
    ids[11] = ids[10]  # the same words
    text[11] = text[10]
    ids[20] = -1
    embedded = planted(text, ids, 64)
    i2t, t2i = np.ones(60), np.ones(60)
    t2i[[10, 30, 51]] = 40.0  # found by image only
    i2t[[11, 52]] = 30.0  # found by words only
    i2t[33] = t2i[33] = 50.0  # missed both ways
    i2t[20] = t2i[20] = np.nan
    found = failures(embedded, i2t, t2i, np.arange(60), k=5).set_index("panel")
    assert found["reason"].to_dict() == {
        10: "same text", 11: "same text", 30: "other", 33: "other", 51: "generic", 52: "generic", 20: "no text",
    }  # fmt: skip
    assert found.reset_index().columns.tolist() == [
        "panel", "works", "rank_i2t", "rank_t2i", "reason", "same_text", "nearest_texts"
    ]  # fmt: skip
    works = {10: I2T, 30: I2T, 51: I2T, 11: T2I, 52: T2I, 33: NEITHER, 20: NEITHER}
    assert found["works"].to_dict() == works
    assert found.loc[10, "same_text"] == 1
    assert found.loc[51, "nearest_texts"] > 0.95 > found.loc[30, "nearest_texts"]
    assert found.index[0] == 33  # the worst rank first
    assert found.index[-1] == 20
    assert found.index.tolist() == [33, 10, 30, 51, 11, 52, 20]  # ranks 50, 40 three times, 30 twice, none
    judged = failures(embedded, i2t, t2i, np.array([30, 33]), k=5)
    assert judged["panel"].tolist() == [33, 30]
    assert failures(embedded, i2t, t2i, np.arange(60), k=60)["reason"].tolist() == ["no text"]
    textless = failures(planted(text, [-1] * 60, 64), *np.full((2, 60), np.nan), np.arange(60))
    assert textless["panel"].tolist() == list(range(60))
    assert set(textless["reason"]) == {"no text"}
    assert textless["same_text"].eq(0).all()
    assert textless["nearest_texts"].isna().all()


def test_crowding_is_the_mean_cosine_to_the_nearest_other_texts():
    text = unit(9, 8)
    text[4] = text[3]
    ids = [0, 1, 2, 3, 3, 5, 6, 7, -1]
    same, near = text_crowding(planted(text, ids))
    distinct = [0, 1, 2, 3, 5, 6, 7]
    cosines = (text.double() @ text.double().T).numpy()
    for i in distinct:
        others = sorted((cosines[i, j] for j in distinct if j != i), reverse=True)[:5]
        assert near[i] == pytest.approx(np.mean(others), abs=1e-6)
    assert near[4] == near[3]
    assert math.isnan(near[8])
    assert same.tolist() == [0, 0, 0, 1, 1, 0, 0, 0, 0]


# --- the command


@pytest.fixture(scope="module")
def comics(tmp_path_factory):
    import app_support

    folder = tmp_path_factory.mktemp("search")
    return app_support.workspace(folder) / "data" / "samples"


def test_a_search_among_no_panels_is_an_error(searcher):
    with pytest.raises(DataError, match=r"nothing to search: no other panel of .* passes the filters"):
        answers(searcher, panel=int(rows_with(searcher, IMAGE)[0]), target="text", filters=Filters(text="without"))


def ask(comics, capsys, *args: str) -> dict:
    assert search_command.main(["--run", str(comics / "runs" / "first"), "--json", *args]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.slow
def test_a_panel_is_asked_both_ways_and_its_own_image_file_finds_it(comics, capsys, tmp_path):
    found = ask(comics, capsys, "--panel", "book001/page001#1", "--top", "200")
    assert [(s["from"], s["to"]) for s in found["searches"]] in (
        [("image", "text"), ("text", "image")],
        [("image", "text")],
    )
    first = found["searches"][0]
    ranked = [row["panel_id"] for row in first["results"]]
    if first["match_rank"] is not None:
        assert "book001/page001#1" in ranked
        marked = [r["panel_id"] for r in first["results"] if r["relation"] == "true match"]
        assert marked == ["book001/page001#1"]
    table = readers.read(RunFolder.load(comics / "runs" / "first").config)
    x, y, w, h = table.panels.set_index("panel_id").loc["book001/page001#1", list("xywh")]
    with Image.open(comics / "pages" / "b001p001.png") as page:
        box = (x * page.width, y * page.height, (x + w) * page.width, (y + h) * page.height)
        page.crop(tuple(round(v) for v in box)).save(tmp_path / "crop.png")
    same = ask(comics, capsys, "--image", str(tmp_path / "crop.png"), "--target", "image", "--top", "1")
    result = same["searches"][0]["results"][0]
    assert result["panel_id"] == "book001/page001#1"
    assert result["score"] > 0.99


@pytest.mark.slow
def test_words_and_filters_through_the_command(comics, capsys):
    found = ask(comics, capsys, "--text", "a red circle", "--book", "book002", "--top", "4")["searches"][0]
    assert {row["book"] for row in found["results"]} == {"book002"}
    assert len(found["results"]) == 4
    scores = [row["score"] for row in found["results"]]
    assert scores == sorted(scores, reverse=True)
    plain = ["--run", str(comics / "runs" / "first"), "--text", "a red circle", "--top", "2"]
    assert search_command.main(plain) == 0
    said = capsys.readouterr().out
    assert "compared: words in panels' texts; text embedding against text embeddings" in said
    assert "[words, text, image]" in said
    assert said.endswith("see them: streamlit run app/main.py, then Search (run first)\n")
    assert search_command.main([*plain, "--target", "image"]) == 0
    assert "compared: text embedding against image embeddings" in capsys.readouterr().out


@pytest.mark.slow
def test_panels_whose_features_are_of_other_backbones_are_not_searched(comics):
    run = RunFolder.load(comics / "runs" / "first")
    data = load_data(run)
    other = replace(data, features=replace(data.features, fingerprint="0123456789abcdef" * 4))
    with pytest.raises(DataError, match="this data has features 0123456789abcdef:"):
        Searcher.of_run(run, other)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "give one query"),
        (["--panel", "1", "--text", "x"], "give one query"),
        (["--text", "x", "--target", "txt"], "Did you mean 'text'"),
        (["--text", "x", "--top", "0"], "top"),
        (["--text", "x", "--blend", "nan"], "blend"),
        (["--panel", "book001/page001#99"], "no panel has the id"),
        (["--text", " "], "empty"),
        (["--image", "{comics}/manifest.csv"], "format"),
        (["--image", "{comics}/nope.png"], "missing"),
        (["--text", "x", "--split", "tset"], "split: 'tset' is not one of train, val, test. Did you mean 'test'"),
    ],
)
@pytest.mark.slow
def test_what_cannot_be_asked_is_one_sentence(comics, args, message):
    args = [a.replace("{comics}", str(comics)) for a in args]
    with pytest.raises((ConfigError, DataError), match=message):
        search_command.main(["--run", str(comics / "runs" / "first"), *args])
