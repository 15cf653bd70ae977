"""Embeddings that are made when asked for: those of the whole, at any positions; columns of a frame without them."""

import numpy as np
import pytest
import torch

from stage3.model import EncoderSpec, embedding
from stage3.model.distant import Distant, take
from stage3.model.objectives import Stage3
from stage3.runs import inspection
from tests import synthetic


@pytest.fixture(scope="module")
def world():
    data = synthetic.dataset(books=40, textless=0.3, boxless=0.2)  # 160 pages: several forward passes
    config = synthetic.Config.from_mapping(synthetic.SMALL)
    spec = EncoderSpec.of(config, data.features.image_sizes, data.features.text_dim)
    model = synthetic.under_way(Stage3.initialized(spec, config, seed=3)).eval()
    return data, model, embedding.embed(model, data.panel_set, data.pages("all")), Distant.of(model, data.panel_set)


def test_it_knows_which_panels_there_are(world):
    _, _, whole, distant = world
    for name in ("present", "page_ids", "text_ids", "rows"):
        assert torch.equal(getattr(distant, name), getattr(whole, name))


@pytest.mark.parametrize("positions", [[0], [5, 3, 4], [400, 2, 399, 2, 150], list(range(300, 20, -7))])
def test_what_is_taken_is_what_the_whole_has_there_in_that_order(world, positions):
    _, _, whole, distant = world
    at = torch.tensor(positions)
    found, expected = take(distant, at), take(whole, at)
    for name in ("rows", "page_ids", "text_ids", "present"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    for name in ("panel", "image", "text", "gate"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=2e-6, rtol=1e-5)


def test_the_panel_frame_is_the_same_without_the_embeddings(world, monkeypatch):
    data, model, whole, distant = world
    monkeypatch.setattr(inspection, "MAX_GALLERY", 60)
    ours, expected = (inspection.panel_frame(data, model, embedded) for embedded in (distant, whole))
    assert list(ours) == list(expected)
    for name in expected:
        if expected[name].dtype == np.float32:
            np.testing.assert_allclose(ours[name], expected[name], atol=1e-4, err_msg=name)
        else:
            assert ours[name].equals(expected[name]), name
    assert ours["gate_image"].notna().sum() == len(whole.rows)
