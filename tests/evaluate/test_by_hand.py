"""Every number of a report against loops over a handful of panels: who lacks a text, and both directions differ."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stage3 import losses
from stage3.config import Config
from stage3.evaluate import items, undefined, words
from stage3.model import validation
from stage3.model.embedding import Embedded
from stage3.model.encoder import EncoderSpec
from stage3.model.objectives import Stage3
from stage3.runs import inspection
from stage3.train.trainer import validation_line
from tests import synthetic

PAGES = [0, 1, 1, 1, 2, 2, 2, 2, 3, 3]
TEXTLESS, IMAGELESS = (2, 5), (8,)


def made() -> Embedded:
    """Ten panels of four pages, one of them alone; two without a text, one without an image; rows are not positions."""
    draw = torch.Generator().manual_seed(3)
    panel, image, text = (torch.randn(10, 4, generator=draw) for _ in range(3))
    text += 0.7 * image
    present = torch.ones(10, 3, dtype=torch.bool)
    present[list(TEXTLESS), 1] = False
    present[list(IMAGELESS), 0] = False
    ids = torch.where(present[:, 1], torch.arange(10) + 20, -1)
    ids[9] = ids[1]  # the same text twice
    rows = torch.tensor([0, 2, 3, 5, 6, 7, 9, 11, 12, 15])
    return Embedded(panel, image, text, present.float() / 3, present, torch.tensor(PAGES), ids, rows)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.dot(a, b) / a.norm() / b.norm())


def rank(e: Embedded, query: torch.Tensor, gallery: torch.Tensor, i: int, among: list[int]) -> float:
    """Place of panel i's own half among those of other panels with another text."""
    own = cosine(query[i], gallery[i])
    rivals = [j for j in among if j != i and e.text_ids[j] != e.text_ids[i]]
    return 1.0 + sum(cosine(query[i], gallery[j]) > own for j in rivals)


def by_hand(e: Embedded) -> dict[str, dict[int, float]]:
    """Ranks by position: `i2t`, `t2i` in the gallery, `within_*` on the page where there is somebody to beat."""
    both = [i for i in range(len(e.rows)) if e.present[i, 0] and e.present[i, 1]]
    found: dict[str, dict[int, float]] = {}
    for way, query, gallery in (("i2t", e.image, e.text), ("t2i", e.text, e.image)):
        found[way] = {i: rank(e, query, gallery, i, both) for i in both}
        mates = {i: [j for j in both if PAGES[j] == PAGES[i] and j != i] for i in both}
        found[f"within_{way}"] = {i: rank(e, query, gallery, i, mates[i]) for i in both if mates[i]}
    return found


def test_ranks_of_both_directions_and_within_pages_are_those_of_loops():
    e, expected = made(), by_hand(made())
    found = validation.gallery(e)
    assert found["rows"].tolist() == [0, 1, 3, 4, 6, 7, 9]
    for way in ("i2t", "t2i"):
        assert dict(zip(found["rows"].tolist(), found[way].tolist(), strict=True)) == expected[way]
        within = found[f"within_{way}"]
        assert (
            dict(zip(found["rows"][within.panels].tolist(), within.ranks.tolist(), strict=True))
            == expected[f"within_{way}"]
        )
    assert expected["i2t"] != expected["t2i"]
    assert expected["within_i2t"] != expected["within_t2i"]


def test_each_metric_is_the_mean_of_its_own_direction():
    e, expected = made(), by_hand(made())
    row = validation.retrieval_metrics(e)
    for way in ("i2t", "t2i"):
        ranks = list(expected[way].values())
        for k in (1, 5, 10):
            assert row[f"retrieval/{way}_r{k}"] == pytest.approx(sum(r <= k for r in ranks) / 7)
        assert row[f"retrieval/{way}_mrr"] == pytest.approx(sum(1 / r for r in ranks) / 7)
        assert row[f"retrieval/{way}_median_rank"] == np.median(ranks)
        within = list(expected[f"within_{way}"].values())
        assert row[f"retrieval/within_page_{way}"] == pytest.approx(sum(r == 1 for r in within) / len(within))
    assert row["retrieval/mean_mrr"] == pytest.approx((row["retrieval/i2t_mrr"] + row["retrieval/t2i_mrr"]) / 2)
    assert row["retrieval/i2t_mrr"] != row["retrieval/t2i_mrr"]
    assert row["retrieval/gallery"] == 7


def test_items_stand_at_the_positions_of_their_own_panels():
    """An interval resamples the pages of these positions: a panel without a text must not shift the others'."""
    e, expected = made(), by_hand(made())
    model = SimpleNamespace(weights={"reconstruction": 0.0})
    values, chance = items.item_values(model, e)  # type: ignore[arg-type]
    both = [0, 1, 3, 4, 6, 7, 9]
    galleries = [1 + sum(j != i and bool(e.text_ids[j] != e.text_ids[i]) for j in both) for i in both]
    assert sorted(set(galleries)) == [6, 7]  # two panels say the same and do not compete
    for k in (1, 5, 10):
        assert chance[f"retrieval/t2i_r{k}"] == pytest.approx(np.mean([min(k, g) / g for g in galleries]))
    harmonic = [sum(1 / r for r in range(1, g + 1)) / g for g in galleries]
    assert chance["retrieval/mean_mrr"] == chance["retrieval/i2t_mrr"] == pytest.approx(np.mean(harmonic))
    assert chance["retrieval/i2t_median_rank"] == pytest.approx(np.mean([(g + 1) / 2 for g in galleries]))
    for way, query in (("image_to_panel", e.image), ("text_to_panel", e.text)):
        assert values[f"retrieval/{way}_median_rank"][0].tolist() == [rank(e, query, e.panel, i, both) for i in both]
    for way in ("i2t", "t2i"):
        value, at = values[f"retrieval/{way}_mrr"]
        assert dict(zip(at.tolist(), value.tolist(), strict=True)) == pytest.approx(
            {i: 1 / r for i, r in expected[way].items()}
        )
        value, at = values[f"retrieval/within_page_{way}"]
        assert dict(zip(at.tolist(), value.tolist(), strict=True)) == {
            i: float(r == 1) for i, r in expected[f"within_{way}"].items()
        }


def test_what_decides_whether_a_number_is_defined_is_counted():
    """One panel is alone on its page, one lacks its image, two lack their text: five counts, all different."""
    assert undefined.Counts.of(made()) == undefined.Counts(panels=10, images=9, texts=8, pairs=7, mates=9, pages=4)


def mean_of_others(e: Embedded, i: int) -> torch.Tensor:
    return torch.stack([e.panel[j] for j in range(10) if j != i and PAGES[j] == PAGES[i]]).mean(dim=0)


def stub(normalize: bool) -> Stage3:
    """A model that predicts a panel to be the mean of its page mates."""
    head = torch.nn.Identity()
    model = SimpleNamespace(
        config=Config(normalize_target=normalize), weights={"reconstruction": 0.5}, predict=head, modules=head.modules,
        eval=head.eval,
    )  # fmt: skip
    return model  # type: ignore[return-value]


@pytest.mark.parametrize("normalize", [False, True])
def test_skill_is_of_the_mean_of_page_mates_against_the_configured_target(normalize, monkeypatch):
    """Neither the panel itself nor another target: a mean that holds the panel would know part of the answer."""
    monkeypatch.setattr(validation, "frozen", lambda _: torch.no_grad())
    e = made()
    several = list(range(1, 10))
    prediction = torch.stack([mean_of_others(e, i) for i in several])
    target = e.panel[several]
    if normalize:
        target = (target - target.mean(1, keepdim=True)) / (target.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    error = ((prediction - target) ** 2).mean(1)
    spread = ((target - target.mean(0)) ** 2).mean()
    hits = [int(((prediction[i] - target) ** 2).sum(1).argmin()) == i for i in range(9)]
    row = validation.reconstruction_metrics(stub(normalize), e)
    assert row["reconstruction/skill"] == pytest.approx(float(1 - error.mean() / spread), abs=1e-6)
    assert row["reconstruction/rank_r1"] == pytest.approx(sum(hits) / 9)
    values, chance = items.item_values(stub(normalize), e)
    skill, at = values["reconstruction/skill"]
    assert at.tolist() == several
    torch.testing.assert_close(skill.float(), 1 - error / spread)
    assert values["reconstruction/rank_r1"][0].tolist() == [float(h) for h in hits]
    assert chance["reconstruction/rank_r1"] == pytest.approx(1 / 9)
    assert chance["reconstruction/skill"] == 0


@pytest.mark.parametrize("normalize", [False, True])
def test_a_panel_s_own_columns_are_its_own(normalize, monkeypatch):
    """Ranks and errors stand in the panel's row of the table, each split ranked by itself."""
    monkeypatch.setattr(validation, "frozen", lambda _: torch.no_grad())
    e = made()
    data = SimpleNamespace(split=np.zeros(4, int))
    ranks, expected = inspection.retrieval_columns(data, e, 17), by_hand(e)  # type: ignore[arg-type]
    rows = e.rows.tolist()
    for column, way in (
        ("rank_i2t", "i2t"),
        ("rank_t2i", "t2i"),
        ("within_i2t", "within_i2t"),
        ("within_t2i", "within_t2i"),
    ):
        assert {r: v for r, v in enumerate(ranks[column].tolist()) if not math.isnan(v)} == {
            rows[i]: r for i, r in expected[way].items()
        }
    found = inspection._reconstruction_columns(data, stub(normalize), e, 17)  # type: ignore[arg-type]
    for i, row in enumerate(rows):
        if i == 0:  # alone on its page
            assert math.isnan(found["reconstruction_error"][row])
            continue
        target = e.panel[i]
        if normalize:
            target = (target - target.mean()) / (target.var(unbiased=False) + 1e-5).sqrt()
        error = float(((mean_of_others(e, i) - target) ** 2).mean())
        assert found["reconstruction_error"][row] == pytest.approx(error, rel=1e-5)
    apart = SimpleNamespace(split=np.array([0, 1, 1, 0]))
    ranks = inspection.retrieval_columns(apart, e, 17)  # type: ignore[arg-type]
    here = [i for i in expected["i2t"] if PAGES[i] in (1, 2)]
    assert {i: ranks["rank_i2t"][rows[i]] for i in here} == {i: rank(e, e.image, e.text, i, here) for i in here}
    assert [ranks["gallery"][rows[i]] for i in (3, 0)] == [5, 2]


def test_the_budget_is_of_the_weighted_terms():
    config = Config.from_mapping({**synthetic.SMALL, "dropout": 0.0, "feature_noise": 0.0})
    data = synthetic.dataset(config)
    batch = data.panel_set.batch(data.pages("train")[:6])
    rows = []
    for weight in (1.0, 3.0):
        settings = config.replace(alignment_weight=weight)
        spec = EncoderSpec.of(settings, data.features.image_sizes, data.features.text_dim)
        model = synthetic.under_way(Stage3.initialized(spec, settings, seed=0))
        rows.append(validation.gradient_budget(model, batch))
    assert rows[1]["gradient/alignment"] == pytest.approx(3 * rows[0]["gradient/alignment"], rel=1e-4)
    assert rows[1]["gradient/contrastive"] == pytest.approx(rows[0]["gradient/contrastive"], rel=1e-4)
    assert rows[0]["gradient/reconstruction"] > 0
    name = "gradient_cosine/contrastive_alignment"
    assert rows[1][name] == pytest.approx(rows[0][name], abs=1e-4)
    alone = data.panel_set.batch(np.flatnonzero(data.panel_set.count == 1))  # no panel has a mate
    assert set(validation.gradient_budget(model, alone)) == {"gradient/alignment"}


def test_page_mates_lack_the_panel_itself():
    e = made()
    mean = losses.leave_one_out_mean(e.panel, e.page_ids)
    for i in range(10):
        if i != 0:
            torch.testing.assert_close(mean[i], mean_of_others(e, i))


# --- what a terminal says


def numbered() -> dict[str, object]:
    """A report of which every number is another one: value 0.11, 0.12, …, its ends, and those of the baselines."""
    of = [f"retrieval/{way}_{row}" for way in words.WAYS for row in words.ROWS]
    of += ["retrieval/within_page_i2t", "retrieval/within_page_t2i", "retrieval/same_page_r_precision"]
    of += ["reconstruction/skill", "reconstruction/rank_r1"]
    value = {name: 0.11 + 0.01 * i for i, name in enumerate(of)}
    columns = {column: {name: v + shift for name, v in value.items()} for column, shift in (
        ("frozen", 0.001), ("untrained", 0.002), ("chance", 0.003))}  # fmt: skip
    check = {name: 1.5 + 0.25 * i for i, name in enumerate(f"collapse/{n}" for n in words.COLLAPSE)}
    for column, shift in (("frozen", 0.01), ("untrained", 0.02)):
        columns[column] |= {name: v + shift for name, v in check.items()}
    return {
        "run": "r", "step": 3, "selected_by": None, "split": "test", "books": 2, "pages": 3, "panels": 4, "gallery": 5,
        "notes": [], "level": 0.95, "resampled": "page", "spaces": {}, "undefined": {}, "against_chance": [],
        "added": {"metric": "retrieval/same_page_r_precision", "sentence": "."},
        "intervals": {name: [v - 0.004, v + 0.005] for name, v in value.items()},
        "chance": columns["chance"] | {"collapse/effective_rank_most": 4.0},
        "baselines": {
            "frozen": columns["frozen"], "untrained": columns["untrained"],
            "frozen_image": {"retrieval/same_page_r_precision": 0.91},
            "frozen_text": {"retrieval/same_page_r_precision": 0.92},
        },
        "loss/alignment_i2t": 1.5, "loss/alignment_t2i": 2.5, **value, **check,
    }  # fmt: skip


def test_every_line_of_a_terminal_has_the_numbers_of_its_name():
    report = numbered()
    lines = list(words.report_lines(report))

    def cells(name: str, percents: bool = True, digits: int = 3) -> str:
        def shown(v: float) -> str:
            return f"{100 * v:.1f} %" if percents else f"{v:.{digits}f}"

        v = float(report[name])  # type: ignore[arg-type]
        return " ".join([
            shown(v), f"{shown(v - 0.004)} to {shown(v + 0.005)}", shown(v + 0.001), shown(v + 0.002), shown(v + 0.003)
        ])  # fmt: skip

    def after(title: str, label: str) -> str:
        start = lines.index(title)
        return " ".join(next(line for line in lines[start:] if line.startswith(f"  {label} "))[36:].split())

    assert lines[:3] == [
        "r, checkpoint of step 3",
        "test split: 2 books, 3 pages, 4 panels; gallery of 5 panels with image and text",
        "",
    ]
    assert lines[-1] == "next: python -m stage3.diagnose --run r"
    header = next(line for line in lines if "untrained" in line)
    assert header.split() == ["value", "95", "%", "by", "page", "frozen", "untrained", "chance"]
    for way, title in words.WAYS.items():
        for row, label in words.ROWS.items():
            digits = 1 if row == "median_rank" else 3
            assert after(title, label) == cells(f"retrieval/{way}_{row}", row not in ("mrr", "median_rank"), digits)
    assert words.WAYS["i2t"].startswith("image → text")
    assert after(words.WITHIN, "image → its text first") == cells("retrieval/within_page_i2t")
    assert after(words.WITHIN, "text → its image first") == cells("retrieval/within_page_t2i")
    (same_page,) = (line for line in lines if line.startswith(words.SAME_PAGE))
    assert same_page[36:].split() == cells("retrieval/same_page_r_precision").split()
    title = "reconstruction of a panel from its page mates"
    assert after(title, "R² (1 perfect, 0 the mean panel)") == cells("reconstruction/skill", percents=False)
    assert after(title, "prediction is nearest to its panel") == cells("reconstruction/rank_r1")
    assert "collapse check, 4 fused panel embeddings" in lines
    assert "  of frozen image features alone 91.0 %, of text alone 92.0 %" in lines
    assert "losses, in fixed batches: alignment_i2t 1.500, alignment_t2i 2.500" in lines
    for name, label in words.COLLAPSE.items():
        v, most = float(report[f"collapse/{name}"]), "of at most 4" if name == "effective_rank" else ""  # type: ignore[arg-type]
        line = next(line for line in lines if line.startswith(f"  {label} "))
        assert line[36:].split() == f"{v:.3f} {most} {v + 0.01:.3f} {v + 0.02:.3f}".split()


def test_the_terminal_says_why_a_number_is_missing_and_of_which_parts():
    report = numbered()
    del report["reconstruction/skill"]
    short = list(words.report_lines(report))
    at = short.index("reconstruction of a panel from its page mates")
    assert short[at + 1 : at + 3] == ["  not measured: its weight is 0, so its head was not trained", ""]
    assert not [line for line in words.report_lines(report) if line.startswith("Why there is")]
    report["undefined"] = {
        "retrieval/i2t_r1": {"interval": "one page", "untrained": "no gallery", "chance": "no gallery"},
        "retrieval/within_page_t2i": {"interval": "one page"},
        "collapse/page_gap": {"value": "one page", "untrained": "one page"},
    }
    report["spaces"] = {"frozen2": "word " * 40}
    report |= {"selected_by": "loss/total", "notes": ["one", "two"], "against_chance": [{"sentence": "above"}]}
    del report["intervals"]["retrieval/i2t_r1"], report["chance"]["retrieval/i2t_r1"]  # type: ignore[attr-defined]
    lines = list(words.report_lines(report))
    assert lines[0] == "r, checkpoint of step 3 (best by loss/total)"
    assert lines[2:5] == ["note: one", "note: two", ""]
    assert lines[7].split() == ["R@1", "11.0", "%", "–", "11.1", "%", "11.2", "%", "–"]
    at = lines.index("above")
    assert lines[at - 2 : at + 3] == ["", ".", "above", "", "Why there is a –:"]
    start = lines.index("Why there is a –:")
    compared = lines.index("What is compared:")
    assert " ".join(" ".join(lines[start + 1 : compared]).split()) == (
        "interval of image → text, among the panels of one page; value, untrained of collapse check (page gap): "
        "one page untrained, chance of image → text: no gallery"
    )
    wrapped = lines[compared + 1 : compared + 3]
    assert [len(line) for line in wrapped] == [110, 4 + 20 * 5 - 1]  # as wide as the table
    below = lines[start + 1 : compared] + lines[compared + 1 : -1]
    begins = [line for line in below if not line.startswith("    ")]  # each sentence, and how it goes on
    assert [line[:9] for line in begins] == ["  interva", "  untrain", "  frozen2", "  frozen,"]
    assert all(line.startswith("  ") for line in below)


def test_a_reason_is_as_wide_as_the_table():
    report = numbered()
    beginning = "  value of collapse check (page gap): "
    reason = "a" * (110 - len(beginning) - 2) + " b"
    report["undefined"] = {"collapse/page_gap": {"value": f"{reason} c"}}
    lines = list(words.report_lines(report))
    at = lines.index("Why there is a –:")
    assert lines[at + 1 : at + 3] == [beginning + reason, "    c"]


def test_the_line_of_an_epoch_has_the_numbers_of_its_names():
    row = {"epoch": 2, "step": 30, "loss/total": 9.0, "retrieval/i2t_r5": 0.25, "retrieval/t2i_r5": 0.5}
    row |= {"loss/contrastive": 1.0, "loss/reconstruction": 2.0, "loss/alignment": 3.0}
    assert validation_line(row, Config(epochs=7), 90) == (
        "epoch   2/7  step    30/90  val loss 9.000 (contrastive 1.000, reconstruction 2.000, alignment 3.000)  "
        "R@5 image→text 25.0 %, text→image 50.0 %"
    )
