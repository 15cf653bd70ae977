"""Search in files of float16 rows: the answers of float64 brute force over the rows as stored, whatever is filtered."""

import sys

import numpy as np
import psutil
import pytest
import torch
from test_search import unit

from stage3.batches import IMAGE, TEXT
from stage3.errors import NumericError
from stage3.metrics import mapped as metric
from stage3.metrics.mapped import ROUGH, MappedRows, float_blocks, nearest_mapped, scores_around
from stage3.model import embedding, mapped
from stage3.model.distant import Distant
from stage3.model.objectives import Stage3
from stage3.search import Filters, Searcher, answers
from stage3.search.index import Index, MappedIndex
from tests import synthetic

ROWS, K = 3000, 12


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A file of 3,000 rows in which many are copies or near-copies of row 7."""
    x = unit(ROWS, 64)
    x[100:130] = x[7]
    x[2000:2400] = torch.nn.functional.normalize(x[7] + 0.003 * unit(400, 64), dim=1)
    path = tmp_path_factory.mktemp("rows") / "x.npy"
    np.save(path, x.half().numpy())
    return MappedRows(path)


def brute(rows, query, allowed, own):
    wide = rows.array.astype(np.float64)
    cosine = (wide * query.double().numpy()).sum(axis=1) / np.sqrt((wide * wide).sum(axis=1))
    cosine[~allowed] = -np.inf
    if own >= 0:
        cosine[own] = -np.inf
    order = np.argsort(-cosine, kind="stable")[:K]
    order = order[cosine[order] > -np.inf]
    return order, cosine[order]


@pytest.mark.parametrize("block", [64, 1000, 8192])
@pytest.mark.parametrize("queries", [1, 3, 20, 300])
@pytest.mark.parametrize("share", [1.0, 0.5, 0.02, 0.001])
def test_answers_are_those_of_brute_force_over_the_stored_rows(rows, monkeypatch, block, queries, share):
    monkeypatch.setattr(metric, "BLOCK", block)
    monkeypatch.setattr(metric, "HELD_BYTES", 2**16)
    monkeypatch.setattr(metric, "KEPT_AT_MOST", 500)
    monkeypatch.setattr(metric, "EXACT_AT_ONCE", 150)
    allowed = np.random.default_rng(1).random(ROWS) < share
    own = np.resize([7, -1, 2100, 5], queries)
    asked = unit(queries, 64)
    asked[own == 7] = torch.from_numpy(rows.take(np.array([7])))
    asked = torch.nn.functional.normalize(asked, dim=1)
    hits = nearest_mapped(asked, rows, K, allowed=None if share == 1 else allowed, exclude=own)
    for i in range(0, queries, 7):
        found = hits.rows[i] >= 0
        order, cosine = brute(rows, asked[i], allowed if share < 1 else np.ones(ROWS, bool), own[i])
        assert hits.rows[i][found].tolist() == order.tolist()
        np.testing.assert_allclose(hits.scores[i][found], cosine, atol=1e-12)


def test_blocks_without_an_allowed_row_are_not_read(rows, monkeypatch):
    monkeypatch.setattr(metric, "BLOCK", 100)
    read = []
    monkeypatch.setattr(
        MappedRows, "block", lambda self, a, b: read.append(a) or torch.from_numpy(self.array[a:b].copy())
    )
    allowed = np.zeros(ROWS, bool)
    allowed[[150, 151, *range(900, 960)]] = True
    hits = nearest_mapped(unit(2, 64), rows, 5, allowed=allowed)
    assert read == [900]  # of the block from 100 two rows are read alone
    assert allowed[hits.rows].all()


def test_where_too_few_rows_may_be_found_the_others_are_missing(rows):
    allowed = np.zeros(ROWS, bool)
    allowed[[150, 900, 2900]] = True
    hits = nearest_mapped(unit(3, 64), rows, 5, allowed=allowed, exclude=np.array([900, -1, 7]))
    assert sorted(hits.rows[0].tolist()) == [-1, 150, 2900]
    assert hits.rows[0, -1] == -1
    assert [sorted(found.tolist()) for found in hits.rows[1:]] == [[150, 900, 2900]] * 2
    assert np.isnan(hits.scores).tolist() == [[False, False, True], [False] * 3, [False] * 3]
    allowed[[150, 2900]] = False
    hits = nearest_mapped(unit(1, 64), rows, 5, allowed=allowed, exclude=np.array([900]))
    assert hits.rows.tolist() == [[-1]]
    assert np.isnan(hits.scores).tolist() == [[True]]


def test_only_rows_near_the_best_are_scored_in_float64(rows, monkeypatch):
    monkeypatch.setattr(metric, "BLOCK", 64)
    read, gather = [], MappedRows.gather
    monkeypatch.setattr(MappedRows, "gather", lambda self, at: read.extend(at.tolist()) or gather(self, at))
    query = unit(1, 64)
    hits = nearest_mapped(query, rows, K)
    cosine = rows.array.astype(np.float64) @ query[0].double().numpy()
    assert cosine[read].min() > hits.scores[0, -1] - 4 * ROUGH
    assert K <= len(read) < 2 * K


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system says nothing of a file's part")
def test_rows_that_are_given_back_take_no_memory(rows):
    def resident() -> int:
        return sum(part.rss for part in psutil.Process().memory_maps() if part.path == str(rows.path))

    rows.block(0, ROWS).sum()
    assert resident() >= rows.array.nbytes
    rows.give_back()
    assert resident() == 0


def test_what_was_read_is_given_back_on_the_way_and_at_the_end(rows, monkeypatch):
    monkeypatch.setattr(metric, "BLOCK", 200)
    monkeypatch.setattr(metric, "HELD_BYTES", 2 * 64 * 500)  # of 500 rows
    told, block, give_back = [], MappedRows.block, MappedRows.give_back
    monkeypatch.setattr(MappedRows, "block", lambda self, a, b: (block(self, a, b), told.append(b - a))[0])
    monkeypatch.setattr(MappedRows, "give_back", lambda self: (give_back(self), told.append(None))[0])
    for search in (lambda q: nearest_mapped(q, rows, K), lambda q: scores_around(q[0], rows, 0.0)):
        told.clear()
        search(unit(1, 64))
        assert told[-1] is None
        held = [0]
        for n in told:
            held = [*held, 0] if n is None else [*held[:-1], held[-1] + n]
        assert sum(held) == ROWS
        assert 400 <= max(held) <= 700


@pytest.mark.parametrize("kind", ["in memory", "mapped"])
def test_blocks_are_the_rows_in_order_and_float32(rows, kind):
    found = list(float_blocks(rows if kind == "mapped" else rows.array, 1300))
    assert [(start, len(block), block.dtype) for start, block in found] == [
        (0, 1300, np.float32), (1300, 1300, np.float32), (2600, 400, np.float32),
    ]  # fmt: skip
    assert np.array_equal(np.concatenate([block for _, block in found]), rows.array.astype(np.float32))


def test_float16_products_hold_where_they_are_summed_in_float32_alone(monkeypatch):
    def summed_in_float32(x, q):
        return (x.double() @ q.double()).to(x.dtype)

    def summed_one_by_one(x, q):
        total = x.new_zeros(len(x))
        for column in (x * q).T:
            total += column
        return total

    for product, holds in ((summed_in_float32, True), (summed_one_by_one, False)):
        monkeypatch.setattr(torch, "mv", product)
        assert metric._half_products_hold.__wrapped__() is holds


def test_products_that_are_too_rough_are_not_used(rows, monkeypatch):
    """On a processor that sums float16 products in float16 the quick way is left alone."""
    expected = nearest_mapped(unit(1, 64), rows, K).rows
    monkeypatch.setattr(metric, "_half_products_hold", lambda: False)
    monkeypatch.setattr(torch, "mv", lambda *_: pytest.fail("used"))
    assert nearest_mapped(unit(1, 64), rows, K).rows.tolist() == expected.tolist()


@pytest.mark.parametrize("what", ["dtype", "columns", "shape", "short"])
def test_files_that_are_no_such_matrix_are_refused(tmp_path, what):
    path, half = tmp_path / "x.npy", unit(10, 4).half().numpy()
    held = {"dtype": unit(10, 4).numpy(), "columns": np.asfortranarray(half), "shape": half[:, 0].copy()}
    np.save(path, held.get(what, half))
    if what == "short":
        path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="shorter than" if what == "short" else r"float16 rows"):
        MappedRows(path)


# --- a whole data set


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A searcher in memory and one over files, of the same model and panels, of which some lack image, text or both."""
    data = synthetic.dataset(books=12, textless=0.3, boxless=0.2)
    config = synthetic.Config.from_mapping(synthetic.SMALL)
    spec = synthetic_spec(config, data)
    model = synthetic.under_way(Stage3.initialized(spec, config, seed=3)).eval()
    cache = tmp_path_factory.mktemp("cache")
    here = Searcher(data, model, embedding.embed(model, data.panel_set, data.pages("all")))
    files = mapped.embed_mapped(model, "abc", data, cache, ("image",))
    there = Searcher(data, model, files, cache=cache, checkpoint="abc")
    return data, here, there, files


def synthetic_spec(config, data):
    from stage3.model import EncoderSpec

    return EncoderSpec.of(config, data.features.image_sizes, data.features.text_dim)


def test_files_hold_the_directions_of_the_embeddings_in_memory(pair, tmp_path, monkeypatch):
    data, here, there, files = pair
    made = mapped.embed_mapped(there.model, "abc", data, there.cache)
    assert made.folder == files.folder
    for space, column in (("panel", None), ("image", IMAGE), ("text", TEXT)):
        whole = getattr(here.embedded, space)
        has = here.embedded.present[:, column] if column is not None else torch.ones(len(whole), dtype=torch.bool)
        assert made.rows_of(space).tolist() == here.embedded.rows[has].tolist()
        expected = torch.nn.functional.normalize(whole[has], dim=1)
        np.testing.assert_allclose(made.open(space).array, expected, atol=6e-4)
    assert made.rows.tolist() == here.embedded.rows.tolist()
    assert torch.equal(made.present, here.embedded.present)
    monkeypatch.setattr(mapped, "EMBED_PAGES", 20)  # several forward passes: 48 pages
    parts = mapped.embed_mapped(there.model, "abc", data, tmp_path, ("image",))
    np.testing.assert_allclose(parts.open("image").array, made.open("image").array, atol=6e-4)
    assert parts.path("image").stat().st_size == made.path("image").stat().st_size


def test_a_file_that_is_there_is_opened_and_another_checkpoint_has_another(pair, monkeypatch):
    data, _, there, files = pair
    stamp = files.path("image").stat().st_mtime_ns
    monkeypatch.setattr(mapped, "forward", lambda *_: pytest.fail("embedded again"))
    assert mapped.embed_mapped(there.model, "abc", data, there.cache, ("image",)).folder == files.folder
    assert files.path("image").stat().st_mtime_ns == stamp
    monkeypatch.undo()
    assert mapped.embed_mapped(there.model, "abd", data, there.cache, ()).folder != files.folder
    known = data.identity()
    for part in ("table", "features", "pictures"):
        monkeypatch.setattr(type(data), "identity", lambda _, part=part: known | {part: "others"})
        assert mapped.embed_mapped(there.model, "abc", data, there.cache, ()).folder != files.folder, part


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, 0.0])
def test_an_embedding_without_direction_is_named_and_no_file_is_left(pair, tmp_path, monkeypatch, wrong):
    data, _, there, _ = pair
    original = mapped.forward

    def broken(*given):
        found = original(*given)
        found["text"][found["present"][:, TEXT].nonzero()[3, 0]] = wrong  # one row among many
        return found

    monkeypatch.setattr(mapped, "forward", broken)
    with pytest.raises(NumericError, match="text embeddings of pages 0 to"):
        mapped.embed_mapped(there.model, "abc", data, tmp_path, ("panel", "text"))
    assert not list(tmp_path.rglob("*.npy"))


@pytest.mark.parametrize("space", ["image", "text", "panel"])
@pytest.mark.parametrize("target", ["image", "text", "panel"])
def test_a_searcher_over_files_finds_what_one_in_memory_finds(pair, space, target):
    data, here, there, _ = pair
    for row in np.flatnonzero(data.panel_set.present[:, :2].all(axis=1))[[3, 20, 40]]:
        for filters in (None, Filters(text="with"), Filters(books=("book003", "book007"))):
            a, b = (s.search(s.from_panel(int(row), space), target, 8, filters) for s in (here, there))
            assert a.gallery == b.gallery
            np.testing.assert_allclose(a.scores, b.scores, atol=1e-3)
            assert len(set(a.rows) & set(b.rows)) >= 7  # rounding may exchange the last two
            if a.match_rank is not None:
                assert abs(a.match_rank - b.match_rank) <= 2
                assert b.match_score == pytest.approx(a.match_score, abs=1e-3)
            in_order = here.gallery(target)[0].scores(here.from_panel(int(row), space).vector[None])[0]
            places = np.searchsorted(here.gallery(target)[1], b.rows)
            assert (np.diff(in_order.numpy()[places]) < 1e-3).all()


def test_scores_over_files_are_exact_around_the_row_that_is_ranked(pair, monkeypatch):
    _, here, there, _ = pair
    monkeypatch.setattr("stage3.metrics.mapped.BLOCK", 77)
    one, other = here.gallery("panel")[0], there.gallery("panel")[0]
    assert isinstance(one, Index)
    assert isinstance(other, MappedIndex)
    stored = torch.nn.functional.normalize(torch.from_numpy(other.rows_at(np.arange(len(other)))).double(), dim=1)
    for own, query in zip((3, 90, 160), unit(3, 32), strict=True):
        exact = stored @ (query.double() / query.double().norm())
        found = other.scores_around(5 * query, own)
        near = (exact - exact[own]).abs() < ROUGH
        assert 1 <= near.sum() < len(exact)
        np.testing.assert_allclose(found[near], exact[near], atol=1e-7)
        np.testing.assert_allclose(found, exact, atol=ROUGH)
        assert ((found > found[own]) == (exact > exact[own])).all()
        np.testing.assert_allclose(one.scores_around(5 * query, own), exact, atol=1e-3)


@pytest.mark.slow
def test_large_sets_are_mapped_by_command_and_api_and_small_ones_are_not(tmp_path, monkeypatch):
    from stage3.api import Run

    run = Run.load("data/samples/runs/sample")
    small = Searcher.of_run(run, cache=tmp_path)
    assert not list(tmp_path.rglob("*.npy"))
    monkeypatch.setattr(mapped, "LARGE_BYTES", 2**20)
    large = Searcher.of_run(run, cache=tmp_path)
    assert sorted(path.stem for path in tmp_path.rglob("*.npy")) == ["image", "text"]
    a, b = (answers(s, panel=17, top=5) for s in (small, large))
    for one, two in zip(a, b, strict=True):
        assert one.frame["panel_id"].tolist() == two.frame["panel_id"].tolist()
        assert one.results.match_rank == pytest.approx(two.results.match_rank, abs=1)
    from stage3.search import failures, with_rivals

    panels = run.panels()
    i2t, t2i = panels["rank_i2t"].to_numpy(), panels["rank_t2i"].to_numpy()
    rows = np.flatnonzero((panels["split"] == "test").to_numpy())
    known = (small.embedded, Distant.of(large.model, large.data.panel_set))
    missed = [failures(embedded, i2t, t2i, rows, k=10) for embedded in known]
    one, two = (with_rivals(s, found, rows) for s, found in zip((small, large), missed, strict=True))
    assert len(one) > 10
    assert one["panel"].tolist() == two["panel"].tolist()
    assert (one["rival"] == two["rival"]).mean() > 0.95
