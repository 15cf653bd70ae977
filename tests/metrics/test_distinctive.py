"""Class-based TF-IDF against the formula written out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stage3.metrics.distinctive import class_tfidf, words_of

TEXTS = ["red house", "red house", "the red boat", "blue boat boat", "", "green tree"]
GROUPS = [0, 0, 1, 1, 1, -1]


def by_hand(texts, groups):
    """{(group, word): score} by loops over words."""
    said = [(g, set(words_of(t))) for t, g in zip(texts, groups, strict=True) if g >= 0]
    words = {w for _, s in said for w in s}
    times = {g: {w: sum(w in s for h, s in said if h == g) for w in words} for g in {g for g, _ in said}}
    average = sum(sum(t.values()) for t in times.values()) / len(times)
    return {
        (g, w): t[w] / max(sum(t.values()), 1) * math.log(1 + average / sum(o[w] for o in times.values()))
        for g, t in times.items()
        for w in words
    }


def test_scores_equal_the_formula_and_a_word_counts_once_per_text():
    found = class_tfidf(TEXTS, GROUPS)
    expected = by_hand(TEXTS, GROUPS)
    assert found.vocabulary == ["blue", "boat", "house", "red"]  # nothing of the text that belongs to no group
    for g in (0, 1):
        for t, word in enumerate(found.vocabulary):
            assert found.score[g, t] == pytest.approx(expected[g, word])
    assert found.says[1].tolist() == [1, 2, 0, 1]
    assert found.sizes.tolist() == [2, 3]


def test_the_best_words_are_said_often_enough_and_more_than_elsewhere():
    found = class_tfidf(TEXTS, GROUPS)
    assert found.best(0, 5) == ["house", "red"]
    assert found.best(0, 1) == ["house"]
    assert found.best(1, 5) == ["boat"]  # "blue" and "red" are said by one text only
    assert found.best(1, 5, least=1) == ["boat", "blue"]  # "red" is said more by the others
    assert found.best(0, 5, lift=4.0) == ["house"]  # red: 2 of 2 against 1 of 3
    assert found.best(1, 5, share=0.7) == []
    one_other = class_tfidf([*TEXTS[:2], "red boat"], [0, 0, 1])
    assert one_other.best(0, 5) == ["house"]  # "red" is said by all


def test_words_of_scripts_without_spaces_are_pairs_and_short_words_are_left_out():
    assert words_of("To be at the Château") == ["château"]
    assert words_of("東京タワー") == ["東京", "タワ"]


def test_texts_and_groups_must_be_as_many():
    with pytest.raises(ValueError, match="2 texts and 1 groups"):
        class_tfidf(["a", "b"], [0])


def test_no_text_has_no_words():
    found = class_tfidf(["", ""], np.array([0, 1]))
    assert found.best(0, 3) == []
    assert class_tfidf(["red", "blue"], [0, -1]).sizes.tolist() == [1]
    assert class_tfidf(["red"], [-1]).score.shape == class_tfidf([], []).score.shape == (0, 0)
