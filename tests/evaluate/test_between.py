"""Two runs side by side: signs, verdicts and what may not be compared, against differences by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from stage3 import metrics, train
from stage3.batches import TEXT, fixed_batches
from stage3.batches.dataset import Dataset
from stage3.config import Config
from stage3.errors import DataError
from stage3.evaluate import Side, between, compare, compare_runs, evaluation_report
from stage3.evaluate.between import BETTER, NOISE, NOT, UNKNOWN, WORSE, judged, why_not
from stage3.model import embedding
from stage3.model.distant import take
from stage3.model.objectives import Stage3
from stage3.train.trainer import Trainer
from tests import synthetic

TIGHT = {"rtol": 1e-5, "atol": 1e-6}


def side(folder, data=None, **settings):
    run = synthetic.run(folder / "run", **{"epochs": 4, **settings})
    data = data or synthetic.dataset(run.config, books=16)
    train.check_identity(run, data)
    with run.lock():
        Trainer(run, data).fit(lambda: False)
    model = run.model()
    return run, Side(model, data, embedding.embed(model, data.panel_set, data.pages("all")))


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """A run that learned little, one that learned more, and its weights under another temperature or weight."""
    little = side(tmp_path_factory.mktemp("little"), epochs=1, lr=1e-5)
    more = side(tmp_path_factory.mktemp("more"), little[1].data, epochs=6)
    warm, heavy = ((None, under(more[1], **s)) for s in ({"contrastive_temperature": 0.3}, {"alignment_weight": 3.0}))
    return {"little": little, "more": more, "warm": warm, "heavy": heavy}


def under(side, **settings):
    """The same weights under other settings."""
    model = Stage3.initialized(side.model.encoder.spec, side.model.config.replace(**settings), seed=0)
    weights = {name: tensor for name, tensor in side.model.state_dict().items() if "temperature" not in name}
    model.load_state_dict(weights, strict=False)
    return Side(model.eval(), side.data, side.embedded)


def compared(sides, a, b):
    return compare(sides[a][1], sides[b][1])


def test_values_are_those_of_each_runs_evaluation_and_the_difference_is_second_minus_first(sides):
    found = compared(sides, "little", "more")
    table = found.table.set_index("metric")
    reports = [evaluation_report(sides[n][0], data=sides[n][1].data, split="test") for n in ("little", "more")]
    assert found.split == "test"
    assert (found.panels, found.gallery) == (reports[0]["panels"], reports[0]["gallery"])
    for name in ("retrieval/i2t_r5", "retrieval/t2i_r5", "retrieval/t2i_mrr", "retrieval/same_page_r_precision"):
        assert table.loc[name, "first"] == pytest.approx(reports[0][name])
        assert table.loc[name, "second"] == pytest.approx(reports[1][name])
        assert table.loc[name, "difference"] == pytest.approx(reports[1][name] - reports[0][name])
    assert table.loc["retrieval/i2t_r5", "second"] != table.loc["retrieval/t2i_r5", "second"]
    assert not [n for n in table.index if n.endswith("median_rank") or "_to_panel_" in n]
    assert {"retrieval/within_page_i2t", "reconstruction/skill", "loss/contrastive", "loss/total"} <= set(table.index)
    np.testing.assert_allclose(table["second"] - table["first"], table["difference"], **TIGHT)
    assert ((table["low"] < table["difference"]) & (table["difference"] < table["high"])).mean() > 0.9
    assert found.verdict("loss/none_such") == UNKNOWN == "cannot tell"
    pages, pages_of = sides["more"][1].data.pages("test"), sides["more"][1].embedded.page_ids
    assert found.pages == len(pages)
    thinned = compare(sides["little"][1], sides["more"][1], max_pages=2)
    assert (thinned.pages, thinned.panels) == (2, np.isin(pages_of, pages[[0, -1]]).sum())  # evenly spaced
    assert len(pages) == 16
    thinned = compare(sides["little"][1], sides["more"][1], max_pages=9)  # the nearest to each 15/8 of a page
    assert thinned.panels == np.isin(pages_of, pages[[0, 2, 4, 6, 8, 9, 11, 13, 15]]).sum()
    assert thinned.panels != np.isin(pages_of, pages[[0, 1, 3, 5, 7, 9, 11, 13, 15]]).sum()


def test_losses_are_means_over_the_panels_that_define_them_and_their_interval_is_by_page(sides):
    found = compared(sides, "little", "more")
    row = found.table.set_index("metric").loc["loss/contrastive"]
    data, model = sides["more"][1].data, sides["more"][1].model
    by_hand, pages = {"little": [], "more": []}, []
    for batch in fixed_batches(data.pages("test"), model.config.batch_pages, model.config.seed):
        packed = data.panel_set.batch(batch)
        for name, values in by_hand.items():
            with torch.inference_mode():
                loss = sides[name][1].model.eval()(packed).losses["contrastive"]
            values += loss.value[loss.valid].tolist()
        pages += packed.page_ids[loss.valid].tolist()
    first, second = (np.array(values) for values in by_hand.values())
    assert row["first"] == pytest.approx(first.mean(), rel=1e-12)  # summed in float64
    assert row["second"] == pytest.approx(second.mean(), rel=1e-12)
    low, high = metrics.expanded(metrics.paired_bootstrap(second - first, np.array(pages)))
    assert (row["low"], row["high"]) == pytest.approx((low, high), rel=1e-4)


def test_panels_that_one_run_lacks_are_left_out_and_the_order_of_rows_does_not_matter(sides):
    first, second = sides["little"][1], sides["more"][1]
    whole = compare(first, second)
    rows = torch.arange(len(second.embedded.rows))
    turned = compare(first, Side(second.model, second.data, take(second.embedded, rows.flip(0))))
    assert whole.table.equals(turned.table)
    fewer = compare(first, Side(second.model, second.data, take(second.embedded, rows[rows % 3 > 0].flip(0))))
    kept = np.isin(second.embedded.page_ids, second.data.pages("test"))[rows % 3 > 0]
    assert fewer.panels == kept.sum() < whole.panels
    present = second.embedded.present.clone()
    present[:, TEXT] &= rows % 3 > 0  # the other run's data has more texts: of pairs there is nothing to subtract
    poorer = Side(second.model, second.data, replace(second.embedded, present=present))
    texts = np.where(np.arange(len(second.data.table)) % 3 > 0, second.data.features.text_rows, -1)
    untold = Dataset(second.data.table, replace(second.data.features, text_rows=texts), second.data.split)
    losses = compare(first, Side(second.model, untold, second.embedded)).table.set_index("metric").loc["loss/alignment"]
    assert np.isfinite(losses[["first", "second", "difference"]].astype(float)).all()  # of panels that both define
    names = set(whole.table["metric"]) - set(compare(first, poorer).table["metric"])
    assert {name for name in names if not name.startswith("retrieval/within_page")} == {
        f"retrieval/{way}_{k}" for way in ("i2t", "t2i", "mean") for k in ("r1", "r5", "r10", "mrr")
    }


def test_runs_are_compared_by_their_best_checkpoints(sides, monkeypatch):
    (little, ours), (more, theirs) = sides["little"], sides["more"]
    monkeypatch.setattr(between, "load_data", lambda run: (ours if run is little else theirs).data)
    found = compare_runs(little, more, split="val")
    assert found.split == "val"
    assert found.table.equals(compare(ours, theirs, split="val").table)


def test_the_better_run_is_better_in_either_order_and_lower_losses_are_better(sides):
    forth, back = compared(sides, "little", "more"), compared(sides, "more", "little")
    for name in ("retrieval/mean_r5", "loss/alignment_i2t", "loss/total"):
        assert forth.verdict(name) == BETTER
        assert back.verdict(name) == WORSE
    a, b = (f.table.set_index("metric")["difference"] for f in (forth, back))
    np.testing.assert_allclose(a, -b, **TIGHT)
    assert a["loss/alignment_i2t"] < 0 < a["retrieval/mean_r5"]


def test_a_run_beside_itself_is_within_noise_everywhere(sides):
    assert set(compared(sides, "more", "more").table["verdict"]) == {NOISE}


def test_a_term_with_another_temperature_and_the_total_are_not_subtracted(sides):
    table = compared(sides, "more", "warm").table.set_index("metric")
    for name in ("loss/contrastive", "loss/total"):
        assert table.loc[name, "verdict"] == NOT == "not comparable"
        assert table.loc[name, "why"] == "τ changed"
        assert np.isnan(table.loc[name, ["difference", "low", "high"]].astype(float)).all()
        assert 0 < float(table.loc[name, "first"]) != float(table.loc[name, "second"]) > 0
    assert table.loc["loss/alignment", "verdict"] != NOT  # its temperature is the same
    assert table.loc["loss/reconstruction", "verdict"] != NOT  # it has none


def test_totals_of_other_weights_are_not_subtracted_but_the_terms_are(sides):
    table = compared(sides, "more", "heavy").table.set_index("metric")
    assert (table.loc["loss/total", "verdict"], table.loc["loss/total", "why"]) == (NOT, "weights changed")
    assert not (table.drop(index="loss/total")["verdict"] == NOT).any()


@pytest.mark.parametrize(
    ("settings", "loss", "why"),
    [
        ({"batch_pages": 8}, "contrastive", "batch_pages changed"),
        ({"log_epsilon": 0.1}, "contrastive", "log_epsilon changed"),
        ({"log_epsilon": 0.1}, "alignment", ""),
        ({"symmetric_alignment": False}, "alignment", "symmetric_alignment changed"),
        ({"normalize_target": True}, "reconstruction", "normalize_target changed"),
        ({"alignment_weight": 0.0, "alignment_temperature": 0.2}, "reconstruction", ""),
        ({"contrastive_temperature": 0.2}, "total", "τ changed"),
        ({"alignment_weight": 0.3}, "total", "weights changed"),
    ],
)
def test_what_a_loss_measures_follows_from_the_settings(settings, loss, why):
    assert why_not(loss, Config(), Config().replace(**settings)) == why
    assert why_not("total", Config(), Config()) == ""
    without = Config(alignment_weight=0.0)  # a temperature that no term of the total has
    assert why_not("total", without, without.replace(alignment_temperature=0.2)) == ""


def test_a_learned_temperature_counts_as_it_ended():
    learned = Config(learn_temperature=True)
    assert why_not("contrastive", Config(), learned) == "τ is learned"  # not known while it trains
    before, after = {"contrastive": 0.07, "alignment": 0.07}, {"contrastive": 0.07, "alignment": 0.05}
    assert why_not("contrastive", Config(), learned, (before, after)) == ""
    assert why_not("alignment", Config(), learned, (before, after)) == "τ changed"
    assert why_not("alignment_i2t", Config(), learned, (before, after)) == "τ changed"


def test_only_pages_that_neither_run_was_trained_on_are_compared(sides):
    first, second = sides["little"][1], sides["more"][1]
    moved = second.data.split.copy()
    test = second.data.pages("test")
    moved[test[: len(test) // 2]] = 0
    other = Side(second.model, second.data.with_split(moved), second.embedded)
    found = compare(first, other)
    assert found.pages == len(test) - len(test) // 2
    alone = np.where(first.data.table.pages["n_panels"] == 1, 2, 0)
    single = [Side(s.model, s.data.with_split(alone), s.embedded) for s in (first, second)]
    metrics_of = set(compare(*single).table["metric"])
    assert "loss/alignment" in metrics_of
    assert not {"loss/contrastive", "loss/reconstruction"} & metrics_of  # no panel has page mates
    moved = np.zeros_like(moved)
    with pytest.raises(DataError, match="share no held-out page"):
        compare(first, Side(second.model, second.data.with_split(moved), second.embedded))


def test_other_data_is_refused(sides):
    more = sides["more"][1]
    other = synthetic.dataset(more.model.config, books=12, seed=3)
    with pytest.raises(DataError, match="different data"):
        compare(more, Side(more.model, other, more.embedded))


@pytest.mark.parametrize(
    ("low", "high", "pages", "larger", "said"),
    [
        (0.1, 0.2, 40, True, BETTER),
        (0.1, 0.2, 40, False, WORSE),
        (-0.2, -0.1, 40, True, WORSE),
        (-0.2, -0.1, 40, False, BETTER),
        (-0.1, 0.1, 40, True, NOISE),
        (0.0, 0.1, 40, True, NOISE),
        (0.1, 0.2, 5, True, UNKNOWN),
        (float("nan"), float("nan"), 40, True, UNKNOWN),
    ],
)
def test_a_verdict_needs_an_interval_without_zero_and_enough_pages(low, high, pages, larger, said):
    assert judged(low, high, pages, larger_is_better=larger) == said
