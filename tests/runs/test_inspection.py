"""Per-panel numbers agree with what validation measured; curves and tables of a run's metrics."""

from __future__ import annotations

import math

import app_support
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stage3.batches.dataset import Dataset
from stage3.config import Config
from stage3.model import embedding
from stage3.runs import RunFolder, curves, inspection


@pytest.fixture(scope="module")
def inspected(tmp_path_factory):
    folder = app_support.workspace(tmp_path_factory.mktemp("inspect"), books=12)
    run = RunFolder.load(folder / "data" / "samples" / "runs" / "first")
    data = Dataset.load(run.config, progress=False)
    model = run.model()
    embedded = embedding.embed(model, data.panel_set, data.pages("all"))
    return run, data, model, embedded, inspection.panel_frame(data, model, embedded)


def test_embeddings_are_plain_tensors_that_a_caller_may_train_on(inspected):
    embedded = inspected[3]
    assert not any(getattr(embedded, name).is_inference() for name in embedded.__dataclass_fields__)


def test_some_panels_are_described_as_among_all(inspected):
    run, data, *_ = inspected
    rows = np.array([7, 3, 40])
    some, every = (inspection.describe_panels(data, run.config.text_parts, chosen) for chosen in (rows, None))
    pd.testing.assert_frame_equal(some, every.loc[rows])


@pytest.mark.parametrize("many", [0, 1, 4, 7, 8])
def test_panels_far_apart_are_described_some_at_a_time_and_their_texts_given_back(inspected, monkeypatch, many):
    run, data, *_ = inspected
    monkeypatch.setattr(inspection, "FAR_ROWS", 4)
    given_back = []
    monkeypatch.setattr(type(data.table), "give_back", lambda table: given_back.append(table))
    rows = np.array([7, 3, 40, 41, 2, 0, 39, 8])[:many]
    found = inspection.describe_scattered(data, run.config.text_parts, rows)
    pd.testing.assert_frame_equal(found, inspection.describe_panels(data, run.config.text_parts, rows))
    assert len(given_back) == max(1, -(-many // 4))


def best_row(run):
    frame = run.metrics()
    return frame[(frame["split"] == "val") & (frame["step"] == run.best().step)].iloc[0]


@pytest.mark.parametrize(
    "term", ["contrastive", "reconstruction", "alignment", "alignment_i2t", "alignment_t2i"]
)  # fmt: skip
def test_mean_panel_loss_on_validation_panels_is_the_logged_validation_loss(inspected, term):
    run, *_, frame = inspected
    val = frame[frame["split"] == "val"][f"loss_{term}"]
    assert val.notna().any()
    assert val.mean() == pytest.approx(best_row(run)[f"loss/{term}"], rel=1e-4)


@pytest.mark.parametrize("way", ["i2t", "t2i"])
def test_ranks_give_the_logged_recall(inspected, way):
    run, *_, frame = inspected
    ranks = frame[frame["split"] == "val"][f"rank_{way}"].dropna()
    assert len(ranks) == best_row(run)["retrieval/gallery"]
    assert (ranks <= 5).mean() == pytest.approx(best_row(run)[f"retrieval/{way}_r5"])
    within = frame[frame["split"] == "val"][f"within_{way}"].dropna()
    assert (within <= 1).mean() == pytest.approx(best_row(run)[f"retrieval/within_page_{way}"])


def test_reconstruction_columns_give_the_logged_rank_accuracy(inspected):
    run, _, _, embedded, frame = inspected
    val = frame[(frame["split"] == "val") & (frame["modality"] != "nothing")]
    assert (val["reconstruction_rank"] <= 1).mean() == pytest.approx(best_row(run)["reconstruction/rank_r1"])
    target = embedded.panel[torch.tensor([int(r) in set(val.index) for r in embedded.rows])]
    skill = 1 - val["reconstruction_error"].mean() / float((target - target.mean(0)).square().mean())
    assert skill == pytest.approx(best_row(run)["reconstruction/skill"], rel=1e-3)


def test_rows_describe_their_own_panel(inspected):
    _, data, _, embedded, frame = inspected
    assert frame["panel_id"].tolist() == data.table.panels["panel_id"].tolist()
    for row in (0, 7, len(frame) - 1):
        page = int(data.table.panels["page"][row])
        assert frame["page_id"][row] == data.table.pages["page_id"][page]
        assert frame["has_text"][row] == bool(frame["text"][row])
    nothing = frame["modality"] == "nothing"
    assert nothing[:8].tolist() == [False] * 7 + [True]
    gates = frame[["gate_image", "gate_text", "gate_box"]].to_numpy()
    assert np.isnan(gates[nothing]).all()
    assert np.allclose(gates[~nothing].sum(axis=1), 1, atol=1e-5)
    assert (gates[~nothing & ~frame["has_text"], 1] == 0).all()
    position = 50
    assert gates[int(embedded.rows[position])] == pytest.approx(embedded.gate[position].tolist())


def test_a_large_gallery_is_drawn_by_whole_pages_and_always_the_same(inspected, monkeypatch):
    *_, embedded, _ = inspected
    monkeypatch.setattr(inspection, "MAX_GALLERY", 40)
    later = torch.arange(len(embedded.rows))[embedded.page_ids >= 3]  # no position is its own place among them
    kept = inspection.gallery_sample(later, embedded)
    assert 0 < len(kept) <= 48
    assert torch.equal(kept, inspection.gallery_sample(later, embedded))
    all_pages = embedded.page_ids[later].unique()
    order = torch.randperm(len(all_pages), generator=torch.Generator().manual_seed(0))
    pages = all_pages[order[: max(1, len(all_pages) * 40 // len(later))]]
    assert torch.equal(kept, later[torch.isin(embedded.page_ids[later], pages)])
    assert torch.isin(embedded.page_ids, pages).sum() == len(kept)


# --- curves


def test_an_epoch_mean_weighs_rows_by_their_active_items():
    frame = pd.DataFrame(
        {"step": [1, 2, 3], "epoch": [1, 1, 2], "split": "train", "loss/alignment": [1.0, 4.0, 9.0]}
        | {"active/aligned": [30, 10, 5], "grad_norm": [1.0, 3.0, 5.0]}
    )
    assert curves.series(frame, "loss/alignment", "train", "epoch")["y"].tolist() == [1.75, 9.0]
    assert curves.series(frame, "grad_norm", "train", "epoch")["y"].tolist() == [2.0, 5.0]
    assert curves.series(frame, "active/aligned", "train", "epoch")["y"].tolist() == [40, 5]
    assert curves.series(frame, "loss/alignment", "val").empty
    assert curves.series(frame, "no such", "train").empty
    with pytest.raises(ValueError, match="step, epoch"):
        curves.series(frame, "grad_norm", "train", "hour")


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30), st.floats(0, 0.99))
def test_smoothing_is_a_mean_of_what_came_before(values, weight):
    y = np.array(values)
    smoothed = curves.smooth(y, weight)
    assert smoothed[0] == pytest.approx(y[0])
    for i, value in enumerate(smoothed):
        assert y[: i + 1].min() - 1e-6 <= value <= y[: i + 1].max() + 1e-6
    weights = [(weight ** (len(y) - 1 - i)) for i in range(len(y))]
    assert smoothed[-1] == pytest.approx(np.average(y, weights=weights), abs=1e-6)


def test_a_band_is_mean_and_standard_deviation_where_all_runs_have_a_point():
    one = pd.DataFrame({"x": [1.0, 2.0, 3.0], "y": [1.0, 2.0, 3.0]})
    two = pd.DataFrame({"x": [1.0, 3.0], "y": [3.0, 5.0]})
    found = curves.band([one, two])
    assert found["x"].tolist() == [1, 3]
    assert found["mean"].tolist() == [2, 4]
    assert (found["high"] - found["mean"]).tolist() == pytest.approx([math.sqrt(2)] * 2)
    assert curves.band([one]).empty


def test_runs_that_differ_in_the_seed_alone_belong_together():
    base = Config(seed=2)
    configs = {"b": base, "a": base.replace(seed=1), "other": base.replace(lr=0.1, seed=3)}
    configs["slow"] = base.replace(seed=4, max_minutes=5)
    assert curves.seed_groups(configs) == [["a", "b", "slow"]]


def test_expected_time_is_the_measured_pace():
    frame = pd.DataFrame(
        {"epoch": [1, 1, 1, 2, 2, 2], "split": ["train", "train", "val"] * 2, "seconds": [1, 1, 0.5, 1, 1, 0.5]}
    )
    assert curves.expected_seconds(frame, 10, 2) == pytest.approx(10 * 2 + 5 * 0.5)
    assert math.isnan(curves.expected_seconds(frame.head(0), 10))


def test_gap_is_validation_minus_training(inspected):
    run, *_ = inspected
    table = curves.gap_table(run.metrics(), run.best().step).set_index("loss")
    assert table["val_best"]["total"] == best_row(run)["loss/total"]
    last = run.metrics().query("split == 'val'")["loss/total"]
    assert table["val_change"]["total"] == pytest.approx(last.iloc[-1] - last.iloc[-2])
    assert table["gap"]["total"] == pytest.approx(table["val_last"]["total"] - table["train_last"]["total"])
