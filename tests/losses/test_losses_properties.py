"""Invariances of the losses over generated batches."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stage3 import losses

PROFILE = settings(max_examples=40, deadline=None, derandomize=True)

TAUS = st.sampled_from([1.0, 0.2, 0.07, 0.03, 0.01])
CHUNKS = st.sampled_from([None, 1, 3, 8])


@st.composite
def batches(draw, smallest=0):
    """(z, t, page_ids) of up to 12 panels: any page structure, thin ones included."""
    pages = draw(st.lists(st.integers(-3, 4), min_size=smallest, max_size=12))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    z, t = (torch.randn(len(pages), 6, generator=generator) for _ in range(2))
    return z, t, torch.tensor(pages, dtype=torch.long)


def tolerance(tau):
    return {"rtol": 1e-4, "atol": 2e-6 / tau}


@PROFILE
@given(batches(), TAUS, CHUNKS, st.randoms(use_true_random=False))
def test_permuting_the_panels_permutes_the_values(batch, tau, chunk_size, random):
    z, t, pages = batch
    order = list(range(len(pages)))
    random.shuffle(order)
    one = losses.supcon(z, pages, tau, chunk_size=chunk_size)
    two = losses.supcon(z[order], pages[order], tau, chunk_size=chunk_size)
    torch.testing.assert_close(two.value, one.value[order], **tolerance(tau))
    assert torch.equal(two.valid, one.valid[order])
    for a, b in zip(
        losses.info_nce(z, t, tau, pages, chunk_size=chunk_size),
        losses.info_nce(z[order], t[order], tau, pages[order], chunk_size=chunk_size),
        strict=True,
    ):
        torch.testing.assert_close(b.value, a.value[order], **tolerance(tau))
    context = losses.leave_one_out_mean(z, pages)
    torch.testing.assert_close(losses.leave_one_out_mean(z[order], pages[order]), context[order])


@PROFILE
@given(batches(), TAUS, CHUNKS)
def test_page_names_do_not_matter(batch, tau, chunk_size):
    z, _, pages = batch
    renamed = 1000 - 17 * pages
    one, two = (losses.supcon(z, p, tau, chunk_size=chunk_size) for p in (pages, renamed))
    torch.testing.assert_close(one.value, two.value, **tolerance(tau))
    torch.testing.assert_close(losses.leave_one_out_mean(z, pages), losses.leave_one_out_mean(z, renamed))


@PROFILE
@given(batches(), TAUS, CHUNKS, st.floats(1e-3, 1e3))
def test_the_norm_of_an_embedding_does_not_matter(batch, tau, chunk_size, scale):
    z, t, pages = batch
    scales = torch.linspace(1, scale, len(pages))[:, None] if len(pages) else torch.ones(0, 1)
    one, two = (losses.supcon(x, pages, tau, chunk_size=chunk_size) for x in (z, z * scales))
    torch.testing.assert_close(one.value, two.value, **tolerance(tau))
    for a, b in zip(losses.info_nce(z, t, tau), losses.info_nce(z * scales, t * scale, tau), strict=True):
        torch.testing.assert_close(a.value, b.value, **tolerance(tau))


@PROFILE
@given(batches(), TAUS, CHUNKS)
def test_swapping_images_and_texts_swaps_the_directions(batch, tau, chunk_size):
    v, t, ids = batch
    to_text, to_image = losses.info_nce(v, t, tau, ids, chunk_size=chunk_size)
    swapped = losses.info_nce(t, v, tau, ids, chunk_size=chunk_size)
    torch.testing.assert_close(swapped[0].value, to_image.value, **tolerance(tau))
    torch.testing.assert_close(swapped[1].value, to_text.value, **tolerance(tau))


@PROFILE
@given(batches(), TAUS, CHUNKS)
def test_values_are_non_negative_finite_and_zero_where_undefined(batch, tau, chunk_size):
    z, t, pages = batch
    z.requires_grad_()
    parts = [
        losses.supcon(z, pages, tau, chunk_size=chunk_size),
        *losses.info_nce(z, t, tau, pages, chunk_size=chunk_size),
    ]
    for part in parts:
        assert part.value.isfinite().all()
        assert (part.value >= -1e-5 / tau).all()
        assert part.value[~part.valid].eq(0).all()
        assert part.count == int(part.valid.sum())
    sum(part.mean for part in parts).backward()
    assert z.grad.isfinite().all()


@PROFILE
@given(batches(smallest=1), TAUS, CHUNKS)
def test_another_panel_elsewhere_only_raises_the_loss(batch, tau, chunk_size):
    """A new single-panel page is one more negative for everyone and changes nobody's positives."""
    z, t, pages = batch
    more = losses.supcon(torch.cat([z, t[:1]]), torch.cat([pages, torch.tensor([99])]), tau, chunk_size=chunk_size)
    less = losses.supcon(z, pages, tau, chunk_size=chunk_size)
    assert not more.valid[-1]
    assert torch.equal(more.valid[:-1], less.valid)
    assert (more.value[:-1] >= less.value - 2e-6 / tau).all()


@PROFILE
@given(batches(), TAUS, CHUNKS)
def test_blocks_equal_the_whole_matrix_in_gradient(batch, tau, chunk_size):
    grads = []
    for size in (None, chunk_size or 5):
        z, t = batch[0].clone().requires_grad_(), batch[1].clone().requires_grad_()
        total = losses.supcon(z, batch[2], tau, chunk_size=size).mean
        total = total + sum(half.mean for half in losses.info_nce(z, t, tau, batch[2], chunk_size=size))
        total.backward()
        grads.append((z.grad, t.grad))
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-5 / tau)


@pytest.mark.parametrize("chunk_size", [None, 4])
@pytest.mark.parametrize("tau", [0.0101, 0.011, 0.0125, 0.0166])
def test_no_temperature_in_use_overflows_where_panels_agree_wholly_or_oppose_each_other(tau, chunk_size):
    """exp(1 / tau) leaves float32 between 0.0101 and 0.0113: cosines of 1 and −1 are where it shows."""
    line = torch.tensor([1.0, 1.0, -1.0, -1.0, 1.0, -1.0, 1.0, 0.5])[:, None] * torch.tensor([[0.6, 0.8]])
    z = torch.cat([line, line @ torch.tensor([[0.0, 1.0], [-1.0, 0.0]])]).requires_grad_()
    pages = torch.arange(16) // 4
    loss = losses.supcon(z, pages, tau, chunk_size=chunk_size)
    unit = torch.nn.functional.normalize(z.detach().double(), dim=1)
    logits = (unit @ unit.T / tau).masked_fill(torch.eye(16, dtype=torch.bool), -torch.inf)
    mates = (pages[:, None] == pages) & ~torch.eye(16, dtype=torch.bool)
    expected = -logits.log_softmax(dim=1).masked_fill(~mates, 0.0).sum(dim=1) / mates.sum(dim=1)
    torch.testing.assert_close(loss.value.detach().double(), expected, rtol=1e-4, atol=1e-4)
    to_text, to_image = losses.info_nce(z, -z, tau, chunk_size=chunk_size)
    assert torch.isfinite(torch.stack([loss.mean, to_text.mean, to_image.mean])).all()
    (loss.mean + to_text.mean + to_image.mean).backward()
    assert torch.isfinite(z.grad).all()
