"""The approximate index: exact scores and order of what it finds, its recall, its file, and its absence."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from test_search import unit

from stage3.errors import ConfigError
from stage3.metrics.mapped import MappedRows
from stage3.search import __main__ as command
from stage3.search import approximate
from stage3.search.approximate import Approximate, n_lists
from stage3.search.index import Index, MappedIndex

needs_faiss = pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="faiss is not installed")
ROWS, DIM = 6000, 32


@pytest.fixture(scope="module")
def exact():
    """6,000 rows around 60 centers."""
    rows = unit(60, DIM, seed=1)[torch.arange(ROWS) % 60] + 0.8 * unit(ROWS, DIM, seed=2)
    return Index.of(rows)


@pytest.fixture(scope="module")
def index(exact):
    return Approximate.open(exact, None, {})


@needs_faiss
@pytest.mark.parametrize("share", [1.0, 0.4])
def test_what_is_found_has_exact_scores_in_exact_order_and_recall_is_as_told(exact, index, share):
    rng = np.random.default_rng(0)
    allowed = None if share == 1 else rng.random(ROWS) < share
    own = np.array([5, -1, 77, 4000, -1])
    queries = torch.from_numpy(exact.rows_at(np.array([5, 9, 77, 4000, 123])))
    right, ours = (i.search(queries, 10, allowed=allowed, exclude=own) for i in (exact, index))
    wide = exact.source.astype(np.float64)
    for i in range(5):
        rows = ours.rows[i]
        cosine = wide[rows] @ queries[i].double().numpy()
        np.testing.assert_allclose(ours.scores[i], cosine, atol=1e-7)
        assert (np.diff(ours.scores[i]) <= 0).all()
        assert own[i] not in rows
        assert allowed is not None or own[i] >= 0 or right.rows[i, 0] in rows
        assert allowed is None or allowed[rows].all()
        assert len(set(rows) & set(right.rows[i])) >= 8
    assert 0.9 <= index.recall <= 1
    assert f"recall@10 against exact search {index.recall:.3f}, of 100 panels" in index.note()


@needs_faiss
def test_recall_is_a_count_by_hand(exact, index):
    """A broken half of the index is seen in the number."""
    own = np.unique(np.linspace(0, ROWS - 1, 100).round().astype(np.int64))
    queries = torch.from_numpy(exact.rows_at(own))
    right = exact.search(queries, 10, exclude=own).rows
    ours = index.search(queries, 10, exclude=own).rows
    by_hand = sum(len(set(a.tolist()) & set(b.tolist())) for a, b in zip(right, ours, strict=True)) / 1000
    assert index.recall == pytest.approx(by_hand)

    class Half:
        nlist = index.lists.nlist

        def search(self, *given, **named):
            scores, rows = index.lists.search(*given, **named)
            return scores, np.where(rows % 2 == 0, rows, -1)

    assert 0.3 < Approximate(exact, Half(), 0.0)._measured() < 0.7


@needs_faiss
def test_few_allowed_rows_are_searched_exactly(exact, index):
    allowed = np.zeros(ROWS, bool)
    allowed[::40] = True
    queries = unit(3, DIM, seed=9)
    right, ours = (i.search(queries, 20, allowed=allowed) for i in (exact, index))
    assert ours.rows.tolist() == right.rows.tolist()
    best = right.rows[:, 0]
    right, ours = (i.search(queries, 20, allowed=allowed, exclude=best) for i in (exact, index))
    assert ours.rows.tolist() == right.rows.tolist()
    assert not (ours.rows == best[:, None]).any()
    allowed = np.arange(ROWS) % 16 == 0  # one of sixteen is not few, but no more than are scored again
    right, ours = (i.search(queries, 40, allowed=allowed) for i in (exact, index))
    assert ours.rows.tolist() == right.rows.tolist()


@needs_faiss
@pytest.mark.parametrize(("lists", "read"), [(150, 16), (1000, 31), (2048, 64)])
def test_a_query_looks_into_sixteen_lists_and_into_one_of_32_where_there_are_many(exact, index, lists, read):
    asked = []

    class Noted:
        nlist = lists

        def search(self, queries, many, params):
            asked.append((many, params.nprobe))
            return index.lists.search(queries, many, params=params)

    for k in (10, 30):
        Approximate(exact, Noted(), 0.0).search(unit(1, DIM), k)
    assert asked == [(400, read), (600, read)]  # twenty times as many rows as asked for are scored again, 400 at least


def test_where_few_rows_of_many_are_allowed_the_lists_are_not_asked():
    rows = Index.of(unit(10_000, 8))
    allowed = np.arange(10_000) % 22 == 0
    found = Approximate(rows, None, 0.0).search(unit(2, 8, seed=3), 5, allowed=allowed)
    assert found.rows.tolist() == rows.search(unit(2, 8, seed=3), 5, allowed=allowed).rows.tolist()


@needs_faiss
def test_where_the_lists_give_too_few_rows_the_rest_is_missing(exact):
    class Poor:
        nlist = 1

        def search(self, queries, many, params):
            return None, np.array([[-1, 9, 0, -1], [-1, -1, -1, 5]])

    rows = unit(2, DIM, seed=3)
    found = Approximate(exact, Poor(), 0.0).search(rows, 3, exclude=np.array([-1, 5]))
    best = sorted((0, 9), key=lambda row: -float(rows[0] @ torch.from_numpy(exact.source[row])))
    assert found.rows.tolist() == [[*best, -1], [-1, -1, -1]]
    assert np.isnan(found.scores).tolist() == [[False, False, True], [True, True, True]]


@needs_faiss
def test_the_file_is_a_cache_with_an_identity(exact, tmp_path, monkeypatch):
    known = {"checkpoint": "a", "space": "image"}
    made = Approximate.open(exact, tmp_path, known)
    (path,) = tmp_path.rglob("*.faiss")
    assert json.loads(path.with_suffix(".json").read_text())["checkpoint"] == "a"
    queries = unit(4, DIM, seed=5)
    monkeypatch.setattr(approximate, "_make", lambda *_: pytest.fail("made again"))
    again = Approximate.open(exact, tmp_path, known)
    assert again.recall == made.recall
    assert again.search(queries, 10).rows.tolist() == made.search(queries, 10).rows.tolist()
    monkeypatch.undo()
    path.write_bytes(path.read_bytes()[:100])  # damaged: made again
    assert (
        Approximate.open(exact, tmp_path, known).search(queries, 10).rows.tolist()
        == made.search(queries, 10).rows.tolist()
    )
    Approximate.open(exact, tmp_path, {**known, "checkpoint": "b"})
    assert len(list(tmp_path.rglob("*.faiss"))) == 2
    Approximate.open(exact, tmp_path, {})  # no one knows what its rows are, so it is not kept
    assert len(list(tmp_path.rglob("*.faiss"))) == 2


@needs_faiss
def test_mapped_rows_are_indexed_too(exact, tmp_path):
    np.save(tmp_path / "x.npy", exact.source.astype(np.float16))
    mapped = MappedIndex(MappedRows(tmp_path / "x.npy"))
    found = Approximate.open(mapped, None, {})
    assert found.recall > 0.9
    queries = unit(2, DIM, seed=4)
    rows = found.search(queries, 5).rows
    np.testing.assert_allclose(found.search(queries, 5).scores[0], mapped.cosines_of(queries[0], rows[0]), atol=1e-12)


@pytest.mark.parametrize(("rows", "lists"), [(1, 1), (79, 1), (6000, 150), (40_000, 800), (10**6, 2048), (10**8, 2048)])
def test_lists_have_enough_rows(rows, lists):
    assert n_lists(rows) == lists


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(approximate, "find_spec", lambda name: None)
    asked = ["--run", "data/samples/runs/sample", "--panel", "3", "--index", "faiss"]
    with pytest.raises(ConfigError, match=r'faiss is not installed: pip install "stage3\[faiss\]"'):
        command.main(asked)
    with pytest.raises(ConfigError, match="faiss is not installed"):
        Approximate.open(Index.of(unit(5, 4)), None, {})
    assert command.INDICES == approximate.INDICES


@needs_faiss
@pytest.mark.slow
def test_command_api_and_explorer_search_by_it(tmp_path, capsys, monkeypatch):
    from app.parts import query
    from stage3.api import Run
    from stage3.search import Searcher

    run = Run.load("data/samples/runs/sample")
    cached = Searcher.of_run(run, cache=tmp_path)
    monkeypatch.setattr(Run, "searcher", lambda *_, **__: cached)
    exact, found = (run.search(panel=3, top=5, index=index) for index in ("exact", "faiss"))
    assert "recall@10 against exact search" in found.attrs["notes"][0]
    assert not exact.attrs["notes"]
    same = found.merge(exact, on=["target", "panel"], suffixes=("", "_exact"))
    assert len(same) >= 8
    np.testing.assert_allclose(same["score"], same["score_exact"], atol=1e-6)
    monkeypatch.setattr(approximate, "_make", lambda *_: pytest.fail("made again"))  # the command reads what was kept
    argv = ["--run", "data/samples/runs/sample", "--panel", "3", "--index", "faiss", "--cache_dir", str(tmp_path)]
    monkeypatch.setattr("stage3.search.Searcher.of_run", lambda *_, **__: cached)
    assert command.main(argv) == 0
    assert "recall@10 against exact search" in capsys.readouterr().out
    assert query.indices(cached) == ("exact",)
    monkeypatch.setattr(query, "MANY", 1000)
    assert query.indices(cached) == ("exact", "faiss")
    way = query.Way("image → text", cached.from_panel(3, "image"), "text")
    shown = query.found(cached, way, 5, query.Filters(), "faiss")
    assert shown.rows.tolist() == found[found["target"] == "text"]["panel"].tolist()
    assert shown.notes
    with pytest.raises(ConfigError, match="Did you mean 'faiss'"):
        run.search(panel=3, index="fais")
