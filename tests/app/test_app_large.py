"""The explorer on a data set that it takes for too large to hold: views draw, and say what they say of a small one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_app_views import opened, words

from app.parts import panel, query
from app.shell import Chosen
from app.store import loaders
from app.store.cache import Memory
from stage3.metrics.mapped import MappedRows
from stage3.model import mapped
from stage3.model.distant import Distant
from stage3.model.mapped import Mapped

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def chosen():
    entry = loaders.entry("samples/sample")
    return Chosen(entry.id, entry.run, None, entry.is_sample)


@pytest.fixture(autouse=True, scope="module")
def large(tmp_path_factory):
    """The embeddings of the sample run count as too many; files, written once, go to a folder of these tests."""
    original, cache = loaders.config_here, str(tmp_path_factory.mktemp("cache"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mapped, "LARGE_BYTES", 2**20)
        patch.setattr(loaders, "config_here", lambda config: original(config).replace(cache_dir=cache))
        for module, name in ((loaders, "_embedded"), (loaders, "_other"), (query, "_searchers"), (panel, "_kept")):
            patch.setattr(module, name, Memory(8))
        yield


def test_neighbors_of_a_panel_come_from_the_file(chosen):
    made = loaders.embedded(chosen.run, None)
    assert isinstance(made, Distant)
    rows = np.array([5, 700, 2099])
    near, cosine = panel.nearest(chosen, rows, 8)
    whole = made.take(torch.arange(len(made.rows))).panel.double()
    whole = whole / whole.norm(dim=1, keepdim=True)
    for i, row in enumerate(rows):
        cosines = whole @ whole[row]
        cosines[row] = -2
        np.testing.assert_allclose(cosine[i], np.sort(cosines.numpy())[::-1][:8], atol=1e-3)
        assert row not in near[i]
    assert isinstance(loaders.panel_vectors(chosen.run), MappedRows)


def test_search_reads_files(chosen):
    searcher = query.searcher_of(chosen)
    assert isinstance(searcher.embedded, Mapped)
    row = int(np.flatnonzero(searcher.data.panel_set.present[:, :2].all(axis=1))[9])
    way = query.Way("", searcher.from_panel(row, "image"), "text")
    found = query.found(searcher, way, 5, query.Filters())
    assert len(found.rows) == 5
    assert found.match_rank is not None


@pytest.mark.parametrize("view", ["map", "page"])
def test_a_view_says_the_same(view):
    app = opened(view, run="samples/sample")
    assert not app.exception
    said = words(app)
    if view == "map":
        assert "showing 2,100 of 2,100 panels" in said
    assert len(said) > 100
