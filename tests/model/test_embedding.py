"""Embeddings in a file, and the pages that are ranked where there are too many."""

from types import SimpleNamespace

import numpy as np
import torch

from stage3.model.embedding import load_embeddings, save_embeddings
from stage3.model.validation import MAX_MEASURED, evenly


def test_saved_embeddings_come_back_in_half_precision_with_their_rows(tmp_path):
    panel = torch.tensor([[0.1, -2.0], [0.3333, 4.0], [5.5, 6.25]])
    path = tmp_path / "deep" / "down" / "e.safetensors"
    for rows in ([1, 2, 3], [7, 2, 9]):
        save_embeddings(path, SimpleNamespace(panel=panel, rows=torch.tensor(rows)))
    found, rows = load_embeddings(path)
    assert found.dtype == torch.float32
    assert torch.equal(found, panel.half().float())
    assert rows.tolist() == [7, 2, 9]


def test_too_many_pages_are_thinned_evenly_from_the_first_to_the_last():
    pages = np.arange(10) * 3
    assert evenly(pages, 4).tolist() == [0, 9, 18, 27]
    assert evenly(pages, 9).tolist() == [0, 3, 6, 9, 12, 18, 21, 24, 27]
    assert evenly(pages, 10) is pages
    assert len(evenly(np.arange(MAX_MEASURED + 1))) == MAX_MEASURED
