"""What metrics and losses are called on screen: one name each, short, and never a key of a file."""

from __future__ import annotations

import doctest
import re

import app_support
import pytest

from app.charts import maps, names
from app.store import loaders
from app.views import runs


def words_of(label: str) -> list[str]:
    return [word for word in re.split(r"[\s:,·→−]+", label) if word]


def test_the_examples_in_the_docstrings_hold():
    found = doctest.testmod(names)
    assert found.attempted
    assert not found.failed


def test_a_pair_of_losses_is_called_by_both_within_a_sentence():
    assert names.PAIR_NAMES == {
        "contrastive_reconstruction": "contrastive · reconstruction",
        "contrastive_alignment": "contrastive · alignment",
        "reconstruction_alignment": "reconstruction · alignment",
    }


LABELS = [*names.PANEL_LOSSES.values(), *names.RANKS.values(), *names.PAIR_NAMES.values()]
LABELS += [coloring.label for coloring in maps.COLORINGS.values()] + [names.metric_name(m) for m in runs.TILES]


@pytest.mark.parametrize("label", dict.fromkeys(LABELS))
def test_a_label_has_at_most_three_words(label):
    assert 1 <= len(words_of(label)) <= 3


def test_every_retrieval_metric_of_a_run_has_a_name_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(app_support.workspace(tmp_path, epochs=1))
    metrics = loaders.metrics(loaders.entry("samples/first").run)
    keys = [k for k in metrics.columns if k.startswith("retrieval/")]
    called = [names.metric_name(k) for k in keys]
    assert len(keys) > 15
    assert len(set(called)) == len(keys)
    assert not [name for name in called if "_" in name or "/" in name or "i2t" in name]
