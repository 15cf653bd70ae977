"""What beat the true match: found where it was planted, in the direction that misses, with both cosines."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from stage3.model.embedding import Embedded
from stage3.search.failures import I2T, REASONS, T2I, failures
from stage3.search.rivals import ALL_REASONS, RELATIONS, content_words, with_rivals


def world(n: int = 40, d: int = 60) -> SimpleNamespace:
    """Forty panels, rows 100 and up in reverse order, so that a place taken for a row is seen: of 40, 139 - place."""
    draw = torch.Generator().manual_seed(0)
    image = F.normalize(torch.eye(n, d) + 0.05 * torch.randn(n, d, generator=draw), dim=1)
    text = image.clone()
    text[10:18] = F.normalize(text[10:18] + 0.9 * torch.eye(n, d)[0].roll(d - 1), dim=1)  # those say least of their own
    rows = torch.arange(100 + n - 1, 99, -1)
    words = [f"alpha{i} beta{i} gamma{i}" for i in range(n)]
    pages, books = np.arange(n) + 200, np.arange(n) // 4
    features = torch.eye(n, d) + 0.05 * torch.randn(n, d, generator=draw)
    return SimpleNamespace(image=image, text=text, rows=rows, words=words, pages=pages, books=books, features=features)


def searcher(w) -> SimpleNamespace:
    n, d = w.text.shape
    embedded = Embedded(
        panel=w.image, image=w.image, text=w.text, gate=torch.zeros(n, 3), present=torch.ones(n, 3, dtype=torch.bool),
        page_ids=torch.from_numpy(w.pages), text_ids=torch.arange(n) + 7, rows=w.rows,
    )  # fmt: skip
    frame = pd.DataFrame({"text": w.words, "page": w.pages, "book": w.books}, index=w.rows.numpy())
    table = np.zeros((200, d), np.float32)
    table[w.rows.numpy()] = w.features.numpy()
    features = SimpleNamespace(gather=lambda rows: (table[rows], None))
    return SimpleNamespace(embedded=embedded, frame=frame, data=SimpleNamespace(features=features))


def judged(w):
    s = searcher(w)
    ranks = {}
    for way, query, target in (("i2t", w.image, w.text), ("t2i", w.text, w.image)):
        scores = query @ target.T
        rank = 1 + (scores > scores.diagonal()[:, None]).sum(1)
        ranks[way] = np.full(200, np.nan)
        ranks[way][w.rows.numpy()] = rank.numpy()
    found = failures(s.embedded, ranks["i2t"], ranks["t2i"], w.rows.numpy(), k=1)
    return with_rivals(s, found, w.rows.numpy()).set_index("panel")


def beat(w, place: int, rival: int, way: str) -> None:
    """Make the text (or image) of `rival` nearer to the image (text) of `place` than its own is."""
    n, d = w.text.shape
    if way == I2T:
        w.text[rival] = F.normalize(w.text[rival] + 2 * w.image[place], dim=0)
        w.text[place] = F.normalize(w.text[place] + 2 * torch.eye(n, d)[0].roll(n + place % 8), dim=0)
    else:
        w.image[rival] = F.normalize(w.image[rival] + 2 * w.text[place], dim=0)
        w.image[place] = F.normalize(w.image[place] + 2 * torch.eye(n, d)[0].roll(n + 8 + place % 8), dim=0)


@pytest.mark.parametrize("way", [I2T, T2I])
@pytest.mark.parametrize(
    "reason", ["same page", "nearly the same text", "same book", "same words", "image alike", "other"]
)
def test_what_beat_a_panel_is_found_with_its_reason_and_both_cosines(way, reason):
    w = world()
    a, b = 5, 30
    if reason == "same page":
        w.pages[b] = w.pages[a]
    elif reason == "nearly the same text":
        w.words[b] = "alpha5 beta5 gamma5 delta"
    elif reason == "same book":
        w.books[b] = w.books[a]
    elif reason == "same words":
        w.words[a] = "a knight waits underwater at dusk " + w.words[a]
        w.words[b] = "coral and a fish underwater glow " + w.words[b]
    elif reason == "image alike":
        w.features[b] = w.features[a] + 0.1 * w.features[b]
    beat(w, a, b, way)
    found = judged(w)
    row = found.loc[int(w.rows[a])]
    assert row["way"] == way
    assert row["rival"] == int(w.rows[b])
    assert row["reason"] == reason
    query, target = (w.image, w.text) if way == I2T else (w.text, w.image)
    assert row["match_score"] == pytest.approx(float(query[a] @ target[a]), abs=1e-5)
    assert row["rival_score"] == pytest.approx(float(query[a] @ target[b]), abs=1e-5)
    assert row["rival_score"] > row["match_score"]
    if reason == "same words":
        assert row["common"] == "same words: underwater"
    if reason == "image alike":
        centered = w.features - w.features.mean(dim=0)
        assert row["common"] == f"image alike: cosine {float(F.cosine_similarity(centered[a], centered[b], dim=0)):.2f}"
    assert set(found["reason"]) <= set(ALL_REASONS)


def test_four_shared_words_are_named_and_every_reason_is_explained():
    w = world()
    shared = "coral dusk ember fjord grotto"
    w.words[5], w.words[30] = f"{shared} one two three four five six", f"{shared} seven eight nine ten eleven twelve"
    w.words[7] = "a coral"  # so that another word is rarer
    beat(w, 5, 30, I2T)
    assert judged(w).loc[int(w.rows[5]), "common"] == "same words: dusk, ember, fjord, grotto"
    assert set(ALL_REASONS) == set(REASONS) | set(RELATIONS)


@pytest.mark.parametrize(
    ("n", "nearer", "reason"),
    [(40, 0, "image alike"), (40, 1, ""), (100, 1, "image alike"), (100, 2, "")],
)
def test_an_image_among_the_two_percent_that_are_nearest_explains(n, nearer, reason):
    # The nearest alone of 40 panels, one of the two nearest of 100.
    w = world(n, 120)
    for place, share in list(zip((30, 31, 32), (0.3, 0.2, 0.1), strict=True))[: nearer + 1]:
        w.features[place] = w.features[5] + share * w.features[place]
    beat(w, 5, 30, I2T)
    assert judged(w).loc[int(w.rows[5]), "common"][:11] == reason


@pytest.mark.parametrize(("n", "texts", "explains"), [(12, 2, True), (12, 3, False), (40, 4, True), (40, 5, False)])
def test_a_word_explains_where_two_texts_have_it_or_a_tenth_of_all(n, texts, explains):
    w = world(n)
    for place in (5, 10, 1, 2, 3)[:texts]:
        w.words[place] += " lantern"
    beat(w, 5, 10, I2T)
    assert judged(w).loc[int(w.rows[5]), "common"] == ("same words: lantern" if explains else "")


def test_words_that_most_texts_have_explain_nothing():
    w = world()
    w.words = [f"panel night {text}" for text in w.words]
    beat(w, 5, 30, I2T)
    assert judged(w).loc[int(w.rows[5]), "reason"] == "other"


def test_of_two_directions_that_miss_the_worse_one_is_explained():
    w = world()
    beat(w, 5, 30, I2T)
    beat(w, 5, 31, T2I)
    beat(w, 5, 33, T2I)
    row = judged(w).loc[int(w.rows[5])]
    assert row["rank_t2i"] > row["rank_i2t"] > 1
    assert row["way"] == T2I
    assert row["rival"] in (int(w.rows[31]), int(w.rows[33]))


def test_panels_of_the_same_text_do_not_beat_each_other_and_the_textless_have_no_rival():
    w = world()
    s = searcher(w)
    s.embedded.text_ids[[5, 30]] = 99
    s.embedded.text_ids[20] = -1
    s.embedded.present[20, 1] = False
    beat(w, 5, 30, I2T)
    ranks = np.full(200, 3.0)
    ranks[int(w.rows[20])] = np.nan
    found = with_rivals(s, failures(s.embedded, ranks, ranks, w.rows.numpy(), k=1), w.rows.numpy()).set_index("panel")
    assert found.loc[int(w.rows[5]), "rival"] != int(w.rows[30])
    textless = found.loc[int(w.rows[20])]
    assert (textless["rival"], textless["reason"], textless["common"]) == (-1, "no text", "")
    assert np.isnan(textless["rival_score"])


def test_content_words_leave_out_what_says_nothing():
    assert content_words("The Knight is AT sea, o k") == {"knight", "sea"}
