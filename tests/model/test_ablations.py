"""Every ablation switch against plain loops over panels, written from the formulas and not from the package."""

import math
from itertools import pairwise

import pytest
import torch

from stage3.batches import IMAGE, LAYOUT, TEXT, PanelBatch, generator
from stage3.config import FIELDS, Config, spec_of
from stage3.model import EncoderSpec, embedding, validation
from stage3.model.objectives import Stage3, sums
from stage3.objectives import LOSSES, TERMS
from stage3.train.optimizer import clip
from tests import synthetic

SHAPES = {"dim": 16, "gate_hidden": 8, "layout_hidden": 8, "dropout": 0.3}
COMPARED_HERE = {
    "detach_target", "detach_context", "symmetric_alignment", "asymmetric_form", "validation_dropout",
    "validation_random_mask", "singleton_anchors", "log_epsilon", "identical_text_negatives", "residual_leak",
    "batch_means", "clip_scope",
}  # fmt: skip


@pytest.fixture(scope="module")
def data():
    return synthetic.dataset(single=0.3, textless=0.3, boxless=0.2)


@pytest.fixture(scope="module")
def batch(data) -> PanelBatch:
    """Pages of one and of several panels, absent modalities, and texts that several panels share."""
    made = data.panel_set.batch(data.pages("train"))
    ids = torch.where(made.text_ids >= 0, made.text_ids % 7, -1)
    return PanelBatch(**{n: getattr(made, n) for n in PanelBatch.__dataclass_fields__} | {"text_ids": ids})


def model(**settings) -> Stage3:
    """A model in eval mode whose every parameter is random: biases of 0 and gains of 1 would hide a leak."""
    config = Config.from_mapping(SHAPES | settings)
    made = synthetic.under_way(Stage3.initialized(EncoderSpec.of(config, (24,), 20), config, seed=0))
    with torch.no_grad():
        for name, p in sorted(made.named_parameters()):
            p.add_(0.2 * torch.randn(p.shape, generator=generator(name)))
    return made.eval()


def unit(rows: torch.Tensor) -> list[list[float]]:
    found = []
    for row in rows.detach().double().tolist():
        norm = math.sqrt(sum(x * x for x in row))
        found.append([x / norm for x in row])
    return found


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_no_switch_is_forgotten_here():
    assert {name for name in FIELDS if spec_of(name).ablation} == COMPARED_HERE


# --- contrastive


def supcon_loops(z: list[list[float]], page: list[int], tau: float, *, singletons: bool, epsilon: float) -> float:
    """The mean over anchors; with an epsilon the row's maximum, the anchor itself among it, is subtracted first."""
    found = []
    for i in range(len(z)):
        mates = [p for p in range(len(z)) if p != i and page[p] == page[i]]
        if not mates:
            found += [0.0] if singletons else []
            continue
        similar = [dot(z[i], other) / tau for other in z]
        most = max(similar) if epsilon else max(s for a, s in enumerate(similar) if a != i)
        below = sum(math.exp(s - most) for a, s in enumerate(similar) if a != i)
        found.append(-mean([similar[p] - most - math.log(below + epsilon) for p in mates]))
    return mean(found)


@pytest.mark.parametrize("singletons", [False, True])
@pytest.mark.parametrize("epsilon", [0.0, 1e-6, 1e-2])
@pytest.mark.parametrize("tau", [0.5, 0.07, 0.02])
def test_the_contrastive_loss_and_its_switches(batch, singletons, epsilon, tau):
    step = model(singleton_anchors=singletons, log_epsilon=epsilon, contrastive_temperature=tau)(batch)
    z, page = unit(step.embeddings.panel), batch.page_ids.tolist()
    expected = supcon_loops(z, page, tau, singletons=singletons, epsilon=epsilon)
    assert step.losses["contrastive"].mean.item() == pytest.approx(expected, rel=1e-4)


def test_the_contrastive_switches_make_a_difference(batch):
    """Else the loops above would agree with a switch that does nothing."""
    plain, zeros, bent = (
        model(contrastive_temperature=0.02, **s)(batch).losses["contrastive"].mean.item()
        for s in ({}, {"singleton_anchors": True}, {"log_epsilon": 1e-2})
    )
    assert abs(plain - zeros) > 0.05
    assert abs(plain - bent) > 0.05


# --- alignment


def cross_entropies(rows: list[list[float]], ids: list[int], *, identical: bool) -> list[float]:
    """-log softmax of the diagonal; identical texts leave the sum, but for the panel's own, unless they are kept."""
    found = []
    for i, row in enumerate(rows):
        kept = [s for j, s in enumerate(row) if j == i or identical or ids[j] != ids[i]]
        most = max(kept)
        found.append(most + math.log(sum(math.exp(s - most) for s in kept)) - row[i])
    return found


@pytest.mark.parametrize("identical", [False, True])
@pytest.mark.parametrize("form", ["symmetric", "i2t", "t2i", "averaged_logits"])
def test_the_alignment_loss_and_its_switches(batch, form, identical):
    switches = {} if form == "symmetric" else {"symmetric_alignment": False, "asymmetric_form": form}
    step = model(identical_text_negatives=identical, alignment_temperature=0.1, **switches)(batch)
    both = (batch.present[:, IMAGE] & batch.present[:, TEXT]).nonzero()[:, 0]
    v, t = unit(step.embeddings.image[both]), unit(step.embeddings.text[both])
    ids = batch.text_ids[both].tolist()
    assert len(set(ids)) < len(ids)
    logits = [[dot(a, b) / 0.1 for b in t] for a in v]
    across = [list(column) for column in zip(*logits, strict=True)]
    averaged = [[(a + b) / 2 for a, b in zip(*rows, strict=True)] for rows in zip(logits, across, strict=True)]
    i2t, t2i = (cross_entropies(rows, ids, identical=identical) for rows in (logits, across))
    expected = {
        "symmetric": (mean(i2t) + mean(t2i)) / 2,
        "i2t": mean(i2t),
        "t2i": mean(t2i),
        "averaged_logits": mean(cross_entropies(averaged, ids, identical=True)),
    }
    assert step.losses["alignment"].mean.item() == pytest.approx(expected[form], rel=1e-4)
    # the four forms, and the two ways with identical texts, are different numbers
    assert min(b - a for a, b in pairwise(sorted(expected.values()))) > 1e-3
    other = cross_entropies(logits, ids, identical=not identical)
    assert abs(mean(other) - mean(i2t)) > 1e-3


# --- reconstruction


def reconstruction_loops(m: Stage3, e: torch.Tensor, page: list[int], chosen: list[int]) -> torch.Tensor:
    """The mean over the chosen panels, with the gradients that the two settings leave."""
    found = []
    for i in chosen:
        context = torch.stack([e[p] for p in range(len(e)) if p != i and page[p] == page[i]]).mean(dim=0)
        context = context.detach() if m.config.detach_context else context
        target = e[i].detach() if m.config.detach_target else e[i]
        found.append((m.reconstruction_head(context[None])[0] - target).square().mean())
    return torch.stack(found).mean()


@pytest.mark.parametrize("target", [True, False])
@pytest.mark.parametrize("context", [True, False])
def test_the_reconstruction_loss_and_where_its_gradient_goes(batch, target, context):
    m = model(detach_target=target, detach_context=context)
    page = batch.page_ids.tolist()
    several = [i for i in range(len(page)) if page.count(page[i]) > 1]
    at, by_hand = (torch.randn(len(page), 16, generator=generator(1)).requires_grad_() for _ in range(2))
    loss, expected = m.reconstruct(at, batch.pages, None).mean, reconstruction_loops(m, by_hand, page, several)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    head = [p.grad.clone() for p in m.reconstruction_head.parameters()]
    m.zero_grad()
    expected.backward()
    torch.testing.assert_close(head, [p.grad for p in m.reconstruction_head.parameters()], rtol=1e-3, atol=1e-6)
    if target and context:
        assert at.grad is None or not at.grad.any()
    else:
        torch.testing.assert_close(at.grad, by_hand.grad, rtol=1e-3, atol=1e-7)


# --- validation


def batches_of(data):
    pages = data.pages("train")
    return [pages[:2], pages[2:9], pages[9:12]]


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("mask", [False, True])
def test_validation_and_its_switches(data, dropout, mask):
    m = model(validation_dropout=dropout, validation_random_mask=mask, contrastive_weight=0, alignment_weight=0)
    found = validation.validate(m, data.panel_set, batches_of(data), noise_seed=5)["loss/reconstruction"]
    total, count = 0.0, 0
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(5)
        for i, pages in enumerate(batches_of(data)):
            batch = data.panel_set.batch(pages)
            e, page = m.encoder(batch).panel, batch.page_ids.tolist()
            lots = torch.rand(len(page), generator=generator(5, "validation mask", i), dtype=torch.float64).tolist()
            chosen = []
            for n in range(len(page)):
                its_lots = [lots[k] for k in range(len(page)) if page[k] == page[n]]
                if len(its_lots) > 1 and (not mask or lots[n] == max(its_lots)):
                    chosen.append(n)
            if not chosen:
                continue
            contexts = [
                torch.stack([e[k] for k in range(len(page)) if k != n and page[k] == page[n]]).mean(0) for n in chosen
            ]
            m.reconstruction_head.train(dropout)  # dropout is drawn once for a batch, as the package does
            predicted = m.reconstruction_head(torch.stack(contexts))
            m.reconstruction_head.eval()
            total += sum(float((a - e[n]).square().mean()) for a, n in zip(predicted, chosen, strict=True))
            count += len(chosen)
    assert found == pytest.approx(total / count, rel=1e-4)
    if mask:
        assert count == sum(int((data.panel_set.count[pages] > 1).sum()) for pages in batches_of(data))


def thin_batches(data):
    """Several batches, one with a single pair and no page mates: no loss is defined on it."""
    lone = next(p for p in data.pages("train") if data.panel_set.count[p] == 1)
    others = [p for p in data.pages("train") if p != lone]
    return [others[:2], [lone], others[2:9]]


def test_means_over_batches_count_those_without_a_signal_as_zeros(data):
    plain, faulty = (validation.validate(model(batch_means=b), data.panel_set, thin_batches(data)) for b in (0, 1))
    m = model()
    with embedding.frozen(m):
        steps = [m(data.panel_set.batch(pages)) for pages in thin_batches(data)]
    assert not steps[1].has_signal
    for name in LOSSES:
        of_batch = [(loss.value[loss.valid].tolist()) for loss in (step.losses[name] for step in steps)]
        assert plain[f"loss/{name}"] == pytest.approx(mean([v for values in of_batch for v in values]), rel=1e-5)
        zeros = [mean(values) if values else 0.0 for values in of_batch]
        assert zeros[1] == 0.0
        assert faulty[f"loss/{name}"] == pytest.approx(mean(zeros), rel=1e-5)
        assert abs(faulty[f"loss/{name}"] - plain[f"loss/{name}"]) > 1e-2
    weights = m.weights
    assert faulty["loss/total"] == pytest.approx(sum(weights[t] * faulty[f"loss/{t}"] for t in TERMS), rel=1e-5)
    assert sums(steps[1], by_batch=True) == dict.fromkeys(LOSSES, (0.0, 1))


# --- the encoder


def encoded_by_hand(m: Stage3, batch: PanelBatch, n: int) -> torch.Tensor:
    """Panel n, modality by modality, as the original trainer's fusion: all three parts, whatever is present."""
    e, there = m.encoder, batch.present[n].tolist()
    image = batch.image[n] if there[IMAGE] else e.absent_image
    text = batch.text[n] if there[TEXT] else e.absent_text
    layout = batch.layout[n] if there[LAYOUT] else torch.zeros(7)
    parts = [encode(x[None])[0] for encode, x in ((e.vision, image), (e.text, text), (e.layout, layout))]
    normed = [norm(part) for norm, part in zip(e.norms, parts, strict=True)]
    logits = e.gate(torch.cat([*normed, batch.present[n].float()])[None])[0].tolist()
    powers = [math.exp(x) if is_there else 0.0 for x, is_there in zip(logits, there, strict=True)]
    weighted = sum(p / sum(powers) * part for p, part in zip(powers, normed, strict=True))
    return weighted + e.residual_weight * (normed[0] + normed[1] + normed[2]) / 3


@torch.no_grad()
def test_what_is_absent_leaks_as_in_the_original_trainer(batch):
    m = model(residual_leak=True, panel_norm=False)
    m.encoder.leak(torch.randn(24, generator=generator("image")), torch.randn(20, generator=generator("text")))
    found = m.encoder(batch)
    clean = model(panel_norm=False).encoder(batch)
    for n in range(len(batch)):
        torch.testing.assert_close(found.panel[n], encoded_by_hand(m, batch, n), rtol=1e-4, atol=1e-4)
        same = torch.allclose(found.panel[n], clean.panel[n], atol=1e-3)
        assert same == bool(batch.present[n].all()), "it leaks where something is absent, and nowhere else"
    # what is compared with other panels' images and texts is what is there
    torch.testing.assert_close(found.image, clean.image, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.text, clean.text, rtol=1e-5, atol=1e-5)
    assert torch.equal(found.gate > 0, batch.present)


@torch.no_grad()
def test_the_leak_is_a_constant_whatever_the_rows_of_absent_modalities_hold(batch):
    m = model(residual_leak=True)
    dirty = PanelBatch(**{n: getattr(batch, n) for n in PanelBatch.__dataclass_fields__} | {
        name: getattr(batch, name).masked_fill(~batch.present[:, [column]], math.nan)
        for column, name in ((IMAGE, "image"), (TEXT, "text"), (LAYOUT, "layout"))
    })  # fmt: skip
    assert torch.equal(m(dirty).embeddings.panel, m(batch).embeddings.panel)


# --- clipping


@pytest.mark.parametrize("scope", ["all", "encoder", "separate", "none"])
def test_each_scope_of_clipping(batch, scope):
    m = model(clip_scope=scope, grad_clip=0.05, learn_temperature=True, reconstruction_weight=5.0)
    m(batch).total.backward()
    before = {name: p.grad.clone() for name, p in m.named_parameters() if p.grad is not None}
    norm = clip(m, m.config)

    def length(names) -> float:
        return math.sqrt(sum(float(x) ** 2 for name in names for x in before[name].flatten()))

    encoder = [name for name in before if name.startswith("encoder.")]
    rest = [name for name in before if name not in encoder]
    parts = {"all": [[*encoder, *rest]], "encoder": [encoder], "separate": [encoder, rest], "none": []}[scope]
    assert min(length(encoder), length(rest)) > 0.05
    assert norm == pytest.approx(length(before), rel=1e-4)
    factor = {name: 0.05 / length(part) for part in parts for name in part}
    for name, p in m.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(p.grad, before[name] * factor.get(name, 1.0), rtol=1e-3, atol=1e-9)
