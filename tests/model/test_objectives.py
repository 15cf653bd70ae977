"""One forward pass: what each setting does to the losses and where gradients go."""

import math

import numpy as np
import pytest
import torch

from stage3 import losses
from stage3.batches import PanelBatch, generator
from stage3.config import Config
from stage3.losses import page_index
from stage3.model import EncoderSpec
from stage3.model.objectives import Stage3, Temperature, masked_panels, reconstruction_target, sums
from stage3.objectives import LOSSES, TERMS
from tests import synthetic

SPEC = EncoderSpec((24,), 20, dim=16, gate_hidden=8, layout_hidden=8)


@pytest.fixture(scope="module")
def batch() -> PanelBatch:
    data = synthetic.dataset()
    return data.panel_set.batch(data.pages("train"))


def model(**settings) -> Stage3:
    return synthetic.under_way(Stage3.initialized(SPEC, Config.from_mapping(settings), seed=0)).eval()


def value(step, name: str) -> float:
    return step.losses[name].mean.item()


ONE = {"contrastive_weight": 0, "reconstruction_weight": 0, "alignment_weight": 0}


def test_every_loss_is_there_with_its_active_count(batch):
    step = model()(batch)
    assert set(step.losses) == set(LOSSES)
    sizes = batch.page_ids.unique(return_counts=True)[1]
    both = batch.present[:, 0] & batch.present[:, 1]
    assert step.counts == {
        "pages": len(sizes),
        "panels": len(batch),
        "anchors": int(sizes[sizes > 1].sum()),
        "pairs": sum(math.comb(int(n), 2) for n in sizes),
        "reconstructed": int(sizes[sizes > 1].sum()),
        "aligned": int(both.sum()),
    }
    assert all(not bool(loss.value[~loss.valid].any()) for loss in step.losses.values())


def test_training_masks_one_panel_a_page_drawn_by_the_generator_alone(batch):
    m = model().train()
    masked = [m(batch, generator(0, "mask", 1)).losses["reconstruction"].valid for _ in range(2)]
    assert torch.equal(*masked)
    pages = batch.page_ids[masked[0]]
    assert len(pages) == len(pages.unique()) == sum(int(n) > 1 for n in batch.page_ids.unique(return_counts=True)[1])
    chosen = {tuple(m(batch, generator(0, "mask", s)).losses["reconstruction"].valid.tolist()) for s in range(8)}
    assert len(chosen) == 8


def test_the_drawn_panel_is_uniform_over_the_page():
    page = torch.zeros(4, dtype=torch.int64)
    hits = torch.zeros(4)
    for s in range(400):
        hits += masked_panels(page_index(page), generator(s)).float()
    assert hits.sum() == 400
    assert hits.min() > 60  # 100 expected, 8.7 standard deviation


def test_leave_one_out_equals_masking_each_panel_by_hand(batch):
    m = model()
    step = m(batch)
    e, pages = step.embeddings.panel, batch.page_ids
    for i in range(len(batch)):
        mates = (pages == pages[i]) & (torch.arange(len(batch)) != i)
        if mates.any():
            expected = (m.predict(e[mates].mean(dim=0, keepdim=True))[0] - e[i]).square().mean()
            torch.testing.assert_close(step.losses["reconstruction"].value[i], expected, rtol=1e-4, atol=1e-6)


def _gradients(m: Stage3) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradient of a reconstruction of panel 0 from panels 1, 2 with respect to target and context."""
    e = torch.randn(3, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = m.reconstruct(e, torch.zeros(3, dtype=torch.int64), None)
    loss.value[0].backward()
    return e.grad[0], e.grad[1:]


def test_the_target_gets_exactly_no_gradient_and_the_context_does():
    target, context = _gradients(model())
    assert not target.any()
    assert context.abs().sum() > 0


def test_the_two_detach_settings_do_what_they_say():
    target, context = _gradients(model(detach_target=False))
    assert target.abs().sum() > 0
    assert context.abs().sum() > 0
    m = model(detach_context=True)
    e = torch.randn(3, 16, requires_grad=True)
    m.reconstruct(e, torch.zeros(3, dtype=torch.int64), None).mean.backward()
    assert e.grad is None or not e.grad.any()  # detaching everything starves the encoder: why it is not the default
    assert any(p.grad.abs().sum() > 0 for p in m.reconstruction_head.parameters())


def test_alignment_is_the_mean_of_both_directions_over_panels_with_both(batch):
    m = model()
    step = m(batch)
    rows = (batch.present[:, 0] & batch.present[:, 1]).nonzero()[:, 0]
    i2t, t2i = losses.info_nce(step.embeddings.image[rows], step.embeddings.text[rows], 0.07, batch.text_ids[rows])
    assert value(step, "alignment_i2t") == pytest.approx(i2t.mean.item(), abs=1e-6)
    assert value(step, "alignment") == pytest.approx((i2t.mean + t2i.mean).item() / 2, abs=1e-6)
    assert value(step, "alignment_i2t") != pytest.approx(value(step, "alignment_t2i"), abs=1e-4)


@pytest.mark.parametrize("form", ["i2t", "t2i", "averaged_logits"])
def test_each_asymmetric_form_differs_from_the_symmetric_one(batch, form):
    fixed, faulty = model()(batch), model(symmetric_alignment=False, asymmetric_form=form)(batch)
    assert abs(value(fixed, "alignment") - value(faulty, "alignment")) > 1e-4
    if form != "averaged_logits":
        assert value(faulty, "alignment") == pytest.approx(value(fixed, f"alignment_{form}"), abs=1e-6)
        return
    rows = (batch.present[:, 0] & batch.present[:, 1]).nonzero()[:, 0]
    cosines = torch.nn.functional.cosine_similarity(
        fixed.embeddings.image[rows, None], fixed.embeddings.text[None, rows], dim=2
    )
    logits = (cosines + cosines.T) / 2 / 0.07
    expected = torch.nn.functional.cross_entropy(logits, torch.arange(len(rows)), reduction="none")
    torch.testing.assert_close(faulty.losses["alignment"].value[rows], expected)


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_pair_alone_cannot_be_aligned_and_two_can(symmetric):
    data = synthetic.dataset()
    both = np.flatnonzero(data.panel_set.present[:, :2].all(axis=1))
    m = model(symmetric_alignment=symmetric, asymmetric_form="averaged_logits")
    counts = [m(data.panel_set.batch_of_rows(both[:n])).losses["alignment"].count for n in (0, 1, 2, 3)]
    assert counts == [0, 0, 2, 3]


@pytest.mark.parametrize(
    ("setting", "faulty", "loss"),
    [
        ("contrastive_temperature", 0.2, "contrastive"),
        ("alignment_temperature", 0.2, "alignment"),
        ("singleton_anchors", True, "contrastive"),
        ("log_epsilon", 0.1, "contrastive"),
        ("normalize_target", True, "reconstruction"),
        ("residual_leak", True, "contrastive"),
        ("panel_norm", False, "contrastive"),
    ],
)
def test_a_setting_reaches_its_loss(batch, setting, faulty, loss):
    settings = {setting: faulty}
    spec = EncoderSpec.of(Config.from_mapping({"dim": 16, "gate_hidden": 8, "layout_hidden": 8} | settings), (24,), 20)
    plain = EncoderSpec.of(Config(dim=16, gate_hidden=8, layout_hidden=8), (24,), 20)
    made = []
    for s, c in ((plain, Config()), (spec, Config.from_mapping(settings))):
        m = synthetic.under_way(Stage3.initialized(s, c, 0)).eval()
        with torch.no_grad():
            for p in (*m.encoder.norms.parameters(), *m.encoder.panel_norm.parameters()):
                p.add_(0.3)  # biases that a leak would show, scales that a normalized target would lose
        made.append(value(m(batch), loss))
    assert abs(made[0] - made[1]) > 1e-3


def test_contrastive_and_alignment_temperatures_are_separate(batch):
    base, c, a = (model(**s)(batch) for s in ({}, {"contrastive_temperature": 0.5}, {"alignment_temperature": 0.5}))
    assert value(c, "alignment") == value(base, "alignment")
    assert abs(value(c, "contrastive") - value(base, "contrastive")) > 0.1
    assert abs(value(a, "alignment") - value(base, "alignment")) > 0.1
    assert value(a, "contrastive") == value(base, "contrastive")
    assert c.temperatures == {"contrastive": 0.5, "alignment": 0.07}
    assert a.temperatures == {"contrastive": 0.07, "alignment": 0.5}
    both = model(temperature=0.5)(batch)
    assert (value(both, "contrastive"), value(both, "alignment")) == (value(c, "contrastive"), value(a, "alignment"))


def test_identical_texts_are_no_negatives_unless_asked(batch):
    twins = PanelBatch(**{n: getattr(batch, n) for n in PanelBatch.__dataclass_fields__} | {
        "text_ids": torch.where(batch.text_ids >= 0, batch.text_ids % 3, -1)
    })  # fmt: skip
    assert value(model()(twins), "alignment") < value(model()(batch), "alignment")
    faulty = model(identical_text_negatives=True)
    assert value(faulty(twins), "alignment") == value(faulty(batch), "alignment")


@pytest.mark.parametrize("term", TERMS)
def test_a_weight_of_zero_skips_its_term_and_its_gradient(batch, term):
    m = model(**{f"{term}_weight": 0})
    step = m(batch)
    assert not any(name.startswith(term) for name in step.losses)
    step.total.backward()
    if term == "reconstruction":
        assert all(p.grad is None for p in m.reconstruction_head.parameters())


def test_the_total_weighs_the_means(batch):
    weights = {"contrastive_weight": 0.7, "reconstruction_weight": 2, "alignment_weight": 0.1}
    step = model(**weights)(batch)
    expected = sum(w * value(step, term) for w, term in zip(weights.values(), TERMS, strict=True))
    assert step.total.item() == pytest.approx(expected, abs=1e-6)


def test_sums_over_batches_give_the_mean_over_items(batch):
    m = model()
    found = sums(m(batch))
    for name, (total, count) in found.items():
        assert total / count == pytest.approx(value(m(batch), name), rel=1e-5)


def test_a_learned_temperature_starts_where_set_moves_and_stays_in_range(batch):
    m = model(learn_temperature=True, contrastive_temperature=0.1)
    step = m(batch)
    assert step.temperatures == pytest.approx({"contrastive": 0.1, "alignment": 0.07}, rel=1e-4)
    step.total.backward()
    assert m.contrastive_temperature.raw.grad.abs() > 0
    assert m.alignment_temperature.raw.grad.abs() > 0
    t = Temperature(0.07, True, "temperature")
    for far in (-1e4, 1e4):
        with torch.no_grad():
            t.raw.fill_(far)
        assert 0.005 * 0.999 <= t.value <= 1.001
    assert "raw" not in dict(Temperature(0.07, False, "temperature").named_parameters())
    span = math.log(1 / 0.005)
    for end, inwards in ((0.005, 1), (1.0, -1)):  # at an end it begins a thousandth of the way from it, and can move
        begun = math.log(Temperature(end, True, "temperature").value / end)
        assert begun == pytest.approx(inwards * 0.001 * span, rel=1e-3)


@pytest.mark.parametrize("kind", ["one panel", "no text", "single panels"])
def test_thin_batches_neither_crash_nor_invent_a_zero(kind):
    data = synthetic.dataset(single=1.0 if kind != "no text" else 0.0, textless=1.0 if kind == "no text" else 0.2)
    pages = data.pages("all")
    step = model().train()(data.panel_set.batch(pages[:1] if kind == "one panel" else pages), generator(0))
    undefined = {"one panel": set(LOSSES), "no text": {"alignment"}, "single panels": {"contrastive", "reconstruction"}}
    for name in undefined[kind]:
        assert step.losses[name].count == 0
        assert step.losses[name].mean.item() == 0
    assert step.has_signal == (kind != "one panel")
    step.total.backward()  # connected to the graph all the same


def test_no_panel_at_all_is_not_an_error():
    data = synthetic.dataset()
    step = model()(data.panel_set.batch_of_rows(data.panel_set.rows_of(data.pages("all")[:0])))
    assert not step.has_signal
    assert step.total.item() == 0


def test_losses_are_float32_under_bf16_autocast(batch):
    m = model()
    plain = m(batch)
    with torch.autocast("cpu", torch.bfloat16):
        step = m(batch)
    assert all(loss.value.dtype == torch.float32 for loss in step.losses.values())
    for name in LOSSES:
        assert value(step, name) == pytest.approx(value(plain, name), rel=0.05)
    assert reconstruction_target(torch.ones(2, 4, dtype=torch.bfloat16), Config()).dtype == torch.float32
