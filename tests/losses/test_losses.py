"""Losses against nested loops in float64, and against the fixes that look right and are not."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from stage3 import losses
from stage3.losses import blockwise, of_own_rows

TEMPERATURES = [1.0, 0.5, 0.1, 0.07, 0.05, 0.02, 0.01]
PAGES = [
    [0, 0, 0, 1, 1, 1],
    [0, 0, 0, 0, 1, 2],
    [0, 1, 2, 3, 4, 5],
    [7, -3, 7, 10**12, -3, 7],  # any values, any order
    [4, 4, 4, 4, 4, 4],
]


def rows(n, d=8, seed=0, dtype=torch.float32):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def cosines(a, b):
    a, b = a.double(), b.double()
    return [[float(x @ y / (x.norm() * y.norm())) for y in b] for x in a]


def log_sum_exp(numbers):
    top = max(numbers)
    return top + math.log(sum(math.exp(n - top) for n in numbers))


def supcon_by_hand(z, pages, tau):
    """The equation, anchor by anchor; None for an anchor without a positive."""
    s = cosines(z, z)
    values = []
    for i in range(len(pages)):
        mates = [p for p in range(len(pages)) if p != i and pages[p] == pages[i]]
        denominator = log_sum_exp([s[i][a] / tau for a in range(len(pages)) if a != i]) if mates else 0.0
        values.append(-sum(s[i][p] / tau - denominator for p in mates) / len(mates) if mates else None)
    return values


def info_nce_by_hand(a, b, tau, ids=None):
    """One direction: rows of `a` choose among rows of `b`; None for a row without a negative."""
    s, n = cosines(a, b), len(a)
    values = []
    for i in range(n):
        negatives = [j for j in range(n) if j != i and not (ids and ids[i] >= 0 and ids[i] == ids[j])]
        terms = [s[i][j] / tau for j in [i, *negatives]]
        values.append(log_sum_exp(terms) - s[i][i] / tau if negatives else None)
    return values


def assert_equals_by_hand(loss, expected, rtol=1e-4, atol=1e-4):
    assert loss.valid.tolist() == [e is not None for e in expected]
    assert loss.value.dtype == torch.float32
    by_hand = torch.tensor([e or 0.0 for e in expected])
    torch.testing.assert_close(loss.value.detach(), by_hand, rtol=rtol, atol=atol)


def gradients(loss_of, *inputs, tau=0.07):
    """Values, and gradients with respect to every input and the temperature, of an unevenly weighted sum."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    temperature = torch.tensor(tau, requires_grad=True)
    out = loss_of(*leaves, temperature)
    parts = out if isinstance(out, tuple) else (out,)
    total = sum((p.value * torch.linspace(0.5, 1.5, len(p.value)) * (1 + n)).mean() for n, p in enumerate(parts))
    total.backward()
    return [p.value.detach() for p in parts], [leaf.grad for leaf in leaves], temperature.grad


# --- values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_size", [None, 1, 4])
@pytest.mark.parametrize("pages", PAGES)
@pytest.mark.parametrize("tau", [0.5, 0.07, 0.01])
def test_supcon_equals_its_formula_even_with_single_panel_pages(pages, tau, chunk_size):
    z = rows(6)
    loss = losses.supcon(z, torch.tensor(pages), tau, chunk_size=chunk_size)
    assert_equals_by_hand(loss, supcon_by_hand(z, pages, tau))


@pytest.mark.parametrize("chunk_size", [None, 1, 4])
@pytest.mark.parametrize("ids", [None, [0, 1, 2, 3, 4, 5], [-1, 1, 0, -1, 1, 0], [9] * 6, [5, 5, 5, 5, 5, -1]])
@pytest.mark.parametrize("tau", [0.5, 0.07, 0.01])
def test_info_nce_equals_its_formula_in_both_directions(ids, tau, chunk_size):
    v, t = rows(6), rows(6, seed=1)
    text_ids = None if ids is None else torch.tensor(ids)
    to_text, to_image = losses.info_nce(v, t, tau, text_ids, chunk_size=chunk_size)
    assert_equals_by_hand(to_text, info_nce_by_hand(v, t, tau, ids))
    assert_equals_by_hand(to_image, info_nce_by_hand(t, v, tau, ids))


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("chunk_size", [None, 7])
@pytest.mark.parametrize("tau", TEMPERATURES)
def test_every_temperature_matches_float64_also_under_autocast(tau, chunk_size, dtype, autocast):
    z, t = rows(20, dtype=dtype), rows(20, seed=1, dtype=dtype)
    pages = [n // 3 for n in range(20)]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = losses.supcon(z, torch.tensor(pages), tau, chunk_size=chunk_size)
        to_text, to_image = losses.info_nce(z, t, tau, chunk_size=chunk_size)
    assert_equals_by_hand(loss, supcon_by_hand(z, pages, tau), atol=1e-4, rtol=0)
    assert_equals_by_hand(to_text, info_nce_by_hand(z, t, tau), atol=1e-4, rtol=0)
    assert_equals_by_hand(to_image, info_nce_by_hand(t, z, tau), atol=1e-4, rtol=0)


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_half_precision_input_loses_nothing_but_its_own_rounding(chunk_size):
    z, t = rows(9, dtype=torch.bfloat16), rows(9, seed=1, dtype=torch.bfloat16)
    pages = [n // 2 for n in range(9)]
    loss = losses.supcon(z.requires_grad_(), torch.tensor(pages), 0.02, chunk_size=chunk_size)
    assert_equals_by_hand(loss, supcon_by_hand(z.detach(), pages, 0.02))
    loss.mean.backward()
    assert z.grad.dtype == torch.bfloat16
    assert_equals_by_hand(losses.info_nce(z, t, 0.02, chunk_size=chunk_size)[0], info_nce_by_hand(z.detach(), t, 0.02))


@pytest.mark.parametrize("tau", [0.07, 0.01])
@pytest.mark.parametrize("chunk_size", [None, 4])
def test_backward_under_autocast_is_still_float32(tau, chunk_size):
    def grad(enabled):
        z = rows(300 if chunk_size is None else 12).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            losses.supcon(z, torch.arange(len(z)) // 3, tau, chunk_size=chunk_size).mean.backward()
        return z.grad

    torch.testing.assert_close(grad(True), grad(False), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize("tau", TEMPERATURES)
def test_collapsed_embeddings_are_finite_and_worth_log_of_the_others(tau, chunk_size):
    z = torch.ones(5, 4).requires_grad_()
    loss = losses.supcon(z, torch.tensor([0, 0, 1, 1, 2]), tau, chunk_size=chunk_size)
    torch.testing.assert_close(loss.value[:4].detach(), torch.full((4,), math.log(4)), rtol=0, atol=1e-4)
    loss.mean.backward()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_self_is_out_of_the_maximum_so_far_away_panels_do_not_underflow(chunk_size):
    z = torch.eye(4).requires_grad_()  # self at 1/tau = 1000 above everything else
    loss = losses.supcon(z, torch.tensor([0, 0, 1, 1]), 0.001, chunk_size=chunk_size)
    torch.testing.assert_close(loss.value.detach(), torch.full((4,), math.log(3)))
    loss.mean.backward()
    assert z.grad.isfinite().all()
    assert z.grad.abs().max() > 0


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_zero_rows_have_finite_gradients(chunk_size):
    z = torch.cat([rows(3), torch.zeros(2, 8)]).requires_grad_()
    loss = losses.supcon(z, torch.tensor([0, 1, 0, 1, 1]), 0.07, chunk_size=chunk_size)
    sum(half.mean for half in losses.info_nce(z, z.flip(0), 0.07, chunk_size=chunk_size)).add(loss.mean).backward()
    assert z.grad.isfinite().all()
    assert z.grad.abs().max() < 1e3
    assert blockwise._safe_norm(z.detach()[3:], torch.float32).tolist() == [[1.0], [1.0]]


# --- chunked = dense -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_size", [1, 5, 16, 37, 100])
@pytest.mark.parametrize("tau", [0.5, 0.07, 0.02, 0.015])
def test_chunked_supcon_is_the_dense_one_in_value_and_gradient(tau, chunk_size):
    z, pages = rows(37, 16), torch.randint(0, 15, (37,), generator=torch.Generator().manual_seed(3))
    dense = gradients(lambda z, tau: losses.supcon(z, pages, tau), z, tau=tau)
    blocks = gradients(lambda z, tau: losses.supcon(z, pages, tau, chunk_size=chunk_size), z, tau=tau)
    torch.testing.assert_close(blocks, dense, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("with_ids", [False, True])
@pytest.mark.parametrize("chunk_size", [1, 5, 16, 37, 100])
@pytest.mark.parametrize("tau", [0.5, 0.07, 0.02, 0.015])
def test_chunked_info_nce_is_the_dense_one_in_value_and_gradient(tau, chunk_size, with_ids):
    v, t = rows(37, 16), rows(37, 16, seed=1)
    ids = torch.randint(-1, 12, (37,), generator=torch.Generator().manual_seed(3)) if with_ids else None
    dense = gradients(lambda v, t, tau: losses.info_nce(v, t, tau, ids), v, t, tau=tau)
    blocks = gradients(lambda v, t, tau: losses.info_nce(v, t, tau, ids, chunk_size=chunk_size), v, t, tau=tau)
    torch.testing.assert_close(blocks, dense, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tau", [0.07, 0.01])
def test_large_batches_take_blocks_by_themselves_and_agree(tau, monkeypatch):
    v, t, pages = rows(400, 32), rows(400, 32, seed=1), torch.arange(400) // 4
    blocks = gradients(lambda z, tau: losses.supcon(z, pages, tau), v, tau=tau)
    pairs = gradients(losses.info_nce, v, t, tau=tau)
    monkeypatch.setattr(losses, "supcon_chunked", None)  # the dense variant must not need it
    monkeypatch.setattr(losses, "info_nce_chunked", None)
    with pytest.raises(TypeError):
        losses.supcon(v, pages, tau)
    with pytest.raises(TypeError):
        losses.info_nce(v, t, tau)
    monkeypatch.setattr(losses, "DENSE_UP_TO", 400)
    torch.testing.assert_close(blocks, gradients(lambda z, tau: losses.supcon(z, pages, tau), v, tau=tau))
    torch.testing.assert_close(pairs, gradients(losses.info_nce, v, t, tau=tau))


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize("panels", [5, 6])
def test_the_whole_matrix_is_formed_up_to_a_size_where_no_blocks_are_asked_for(panels, chunk_size, monkeypatch):
    used = []
    for name in ("_supcon_dense", "supcon_chunked", "_supcon_of_own", "_info_nce_dense", "info_nce_chunked"):
        real = getattr(losses, name)
        monkeypatch.setattr(losses, name, lambda *a, name=name, real=real: used.append(name) or real(*a))
    monkeypatch.setattr(losses, "DENSE_UP_TO", 5)
    z, pages, own = rows(panels), torch.arange(panels) // 2, slice(2, 4)
    losses.supcon(z, pages, 0.5, chunk_size=chunk_size)
    losses.info_nce(z, rows(panels, seed=1), 0.5, chunk_size=chunk_size)
    whole = panels == 5 and chunk_size is None
    assert used == (["_supcon_dense", "_info_nce_dense"] if whole else ["supcon_chunked", "info_nce_chunked"])
    used.clear()
    losses.supcon(z, pages, 0.5, own=own)
    bent = losses.supcon(z, pages, 0.5, log_epsilon=0.1)  # has no other variant, of any size
    torch.testing.assert_close(losses.supcon(z, pages, 0.5, log_epsilon=0.1, own=own).value, bent.value[own])
    assert used == ["_supcon_dense" if panels == 5 else "_supcon_of_own", "_supcon_dense", "_supcon_dense"]


def test_blocks_are_kept_up_to_a_multiple_of_the_rows_and_no_more_than_there_are():
    assert blockwise._UnitRows(rows(40), 4).kept(2.5).shape == (50, 4, 4)  # 2.5 times 40 x 8 floats
    assert blockwise._UnitRows(rows(10), 4).kept(2.5).shape == (9, 4, 4)
    assert [blockwise._block_rows(rows(n), 4) for n in (40, 3, 0)] == [4, 3, 1]


@pytest.mark.parametrize("dense_up_to", [37, 0])
@pytest.mark.parametrize("tau", [0.5, 0.02])
def test_the_shares_of_several_processes_are_the_whole_in_value_and_gradient(tau, dense_up_to, monkeypatch):
    """Each computes its own rows against all rows; the gradients of the shares add up to that of the whole."""
    v, t = rows(37, 16), rows(37, 16, seed=1)
    pages = torch.tensor([0] * 5 + [1] + [2] * 7 + [3] * 4 + [4] * 20)
    ids = torch.randint(-1, 12, (37,), generator=torch.Generator().manual_seed(3))
    weight = torch.linspace(0.5, 1.5, 37)
    shares = [slice(0, 13), slice(13, 13), slice(13, 17), slice(17, 37)]  # whole pages; one process has none

    def losses_of(v, t, tau, own):
        yield losses.supcon(v, pages, tau, own=own)
        for text_ids in (None, ids):
            yield from losses.info_nce(v, t, tau, text_ids, own=own)

    def differentiated(own):
        leaves = v.clone().requires_grad_(), t.clone().requires_grad_(), torch.tensor(tau, requires_grad=True)
        found = list(losses_of(*leaves, own))
        total = sum((n * part.value * weight[own or slice(None)]).sum() for n, part in enumerate(found, start=1))
        total.backward()
        return [part.value.detach() for part in found], [part.valid for part in found], [leaf.grad for leaf in leaves]

    values, valid, gradient = differentiated(None)
    monkeypatch.setattr(losses, "DENSE_UP_TO", dense_up_to)
    monkeypatch.setattr(of_own_rows, "ROWS", 6)
    monkeypatch.setattr(of_own_rows, "COLUMNS", 9)
    wide = torch.tensor(tau, dtype=torch.float64)
    assert all(part.value.dtype == torch.float32 for part in losses_of(v.double(), t.double(), wide, shares[0]))
    parts = [differentiated(own) for own in shares]
    for n in range(len(values)):
        torch.testing.assert_close(torch.cat([part[0][n] for part in parts]), values[n], rtol=1e-5, atol=1e-5)
        assert torch.cat([part[1][n] for part in parts]).equal(valid[n])
    one = torch.ones(1, 1)
    assert of_own_rows.log_sum_exp(one, one, torch.tensor(tau), 0, None).tolist() == [0]  # nobody is left
    for n in range(len(gradient)):
        torch.testing.assert_close(sum(part[2][n] for part in parts), gradient[n], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tau", [0.3, 0.01])  # with and without a shifted exponential
@pytest.mark.parametrize("pages", PAGES)
def test_gradients_of_the_blocks_pass_gradcheck(pages, tau):
    z, t = rows(6, 3, dtype=torch.float64), rows(6, 3, seed=1, dtype=torch.float64)
    ids, tau = torch.tensor(pages), torch.tensor(tau, dtype=torch.float64, requires_grad=True)
    z, t = z.requires_grad_(), t.requires_grad_()
    assert torch.autograd.gradcheck(lambda z, tau: blockwise.supcon_chunked(z, ids, tau, 4), (z, tau))
    assert torch.autograd.gradcheck(lambda v, t, tau: blockwise.info_nce_chunked(v, t, ids, tau, 4), (z, t, tau))


def test_blocks_can_be_backpropagated_twice():
    z = rows(40).requires_grad_()
    total = sum(half.mean for half in losses.info_nce(z, rows(40, seed=1), 0.07, chunk_size=8))
    total = total + losses.supcon(z, torch.arange(40) // 4, 0.07, chunk_size=8).mean
    (once,) = torch.autograd.grad(total, z, retain_graph=True)
    (again,) = torch.autograd.grad(total, z)
    assert torch.equal(once, again)


def peak_floats(work):
    """Most floats that torch holds at once during `work`, beyond what it held before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    changes = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = itertools.accumulate(event.nbytes() for event in sorted(changes, key=lambda event: event.start_ns()))
    return max(held) / 4


@pytest.mark.parametrize("tau", [0.07, 0.01])
@pytest.mark.parametrize("shape", [(1500, 64), (3000, 64), (1000, 256)])
@pytest.mark.slow
def test_memory_is_linear_in_the_number_of_panels(shape, tau):
    z, t, pages = rows(*shape).requires_grad_(), rows(*shape, seed=1).requires_grad_(), torch.arange(shape[0]) // 5
    grow = peak_floats(lambda: losses.supcon(z, pages, tau).mean.backward())
    assert z.numel() < grow < 5 * z.numel()  # the gradient alone is one time V x D
    grow = peak_floats(lambda: sum(half.mean for half in losses.info_nce(z, t, tau)).backward())
    assert z.numel() < grow < 6 * z.numel()


# --- thin batches ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_size", [None, 4])
@pytest.mark.parametrize("panels", [0, 1])
def test_zero_or_one_panel_gives_no_loss_and_a_connected_zero(panels, chunk_size):
    z, t = rows(panels).requires_grad_(), rows(panels, seed=1).requires_grad_()
    parts = [
        losses.supcon(z, torch.zeros(panels, dtype=torch.long), 0.07, chunk_size=chunk_size),
        *losses.info_nce(z, t, 0.07, chunk_size=chunk_size),
        losses.reconstruction(z, t, torch.zeros(panels, dtype=torch.bool)),
    ]
    if chunk_size is None:
        parts.append(losses.supcon(z, torch.zeros(panels, dtype=torch.long), 0.07, log_epsilon=1e-6))
    for part in parts:
        assert part.count == 0
        assert part.value.tolist() == [0.0] * panels
        assert part.mean.item() == 0.0
    sum(part.mean for part in parts).backward()
    assert z.grad.tolist() == torch.zeros_like(z).tolist()


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_single_panel_pages_are_negatives_but_not_zeros_in_the_mean(chunk_size):
    """A wrong fix averages anchors without positives in as zeros: the same pages then look better."""
    z, pages = rows(6), torch.tensor([0, 0, 1, 2, 3, 4])
    loss = losses.supcon(z, pages, 0.07, chunk_size=chunk_size)
    diluted = losses.supcon(z, pages, 0.07, chunk_size=chunk_size, include_singletons=True)
    assert (loss.count, diluted.count) == (2, 6)
    torch.testing.assert_close(loss.mean, loss.value[:2].mean())
    torch.testing.assert_close(diluted.mean, loss.mean / 3)
    without = losses.supcon(z[:2], pages[:2], 0.07, chunk_size=chunk_size)
    assert (loss.value[:2] > without.value + 0.1).all(), "single panels must stay in the denominators"


def test_one_panel_with_the_same_text_everywhere_is_no_perfect_score():
    v, t = rows(3), rows(1).expand(3, 8)
    for half in losses.info_nce(v, t, 0.07, torch.tensor([4, 4, 4])):
        assert half.count == 0
        assert half.mean.item() == 0


# --- the fixes that must fail ----------------------------------------------------------------------------------


def aligned(v, t, tau=0.07):
    to_text, to_image = losses.info_nce(v, t, tau)
    return 0.5 * (to_text.mean + to_image.mean)


def cross_entropies(v, t, tau=0.07):
    logits = F.normalize(v, dim=1) @ F.normalize(t, dim=1).T / tau
    target = torch.arange(len(v))
    return F.cross_entropy(logits, target), F.cross_entropy(logits.T, target), logits, target


def test_alignment_is_the_mean_of_both_directions_and_symmetric():
    v, t = rows(12), rows(12, seed=1)
    row, column, logits, target = cross_entropies(v, t)
    torch.testing.assert_close(aligned(v, t), 0.5 * (row + column), rtol=0, atol=1e-6)
    torch.testing.assert_close(aligned(v, t), aligned(t, v), rtol=0, atol=1e-6)
    one_way, the_sum = row, row + column
    of_averaged_logits = F.cross_entropy((logits + logits.T) / 2, target)
    for wrong in (one_way, the_sum, of_averaged_logits):
        assert abs(wrong - aligned(v, t)) > 1e-3
    assert abs(one_way - cross_entropies(t, v)[0]) > 1e-3, "one direction is not symmetric"


def test_an_epsilon_in_the_logarithm_bends_the_loss_at_small_temperatures():
    """The temperature may be wired through and the loss still wrong: the ablation that shows it."""
    z, pages = rows(20, 64), [n // 3 for n in range(20)]
    exact = torch.tensor([e or 0.0 for e in supcon_by_hand(z, pages, 0.02)])
    bent = losses.supcon(z, torch.tensor(pages), 0.02, log_epsilon=1e-6)
    assert (bent.value - exact).abs().max() > 0.1
    harmless = losses.supcon(z, torch.tensor(pages), 0.5, log_epsilon=1e-6)
    torch.testing.assert_close(harmless.value, losses.supcon(z, torch.tensor(pages), 0.5).value)


def test_dropping_far_blocks_is_not_a_chunked_loss():
    """Chunks that see only their own negatives are linear too, and another loss."""
    z, pages = rows(40), torch.arange(40) // 4
    exact = losses.supcon(z, pages, 0.07, chunk_size=8)
    parts = [losses.supcon(z[i : i + 8], pages[i : i + 8], 0.07).value for i in range(0, 40, 8)]
    assert (exact.value - torch.cat(parts)).min() > 1e-3


def test_reconstruction_detaches_the_target_only():
    e = rows(6).requires_grad_()
    head = torch.nn.Linear(8, 8)
    prediction = head(losses.leave_one_out_mean(e, torch.tensor([0, 0, 0, 1, 1, 2])))
    masked = torch.tensor([True, False, False, False, False, False])
    loss = losses.reconstruction(prediction, e, masked)
    torch.testing.assert_close(loss.mean, F.mse_loss(prediction[0], e[0]))
    wide = losses.reconstruction(prediction.double(), e.double(), masked)
    assert wide.value.dtype == torch.float32
    loss.mean.backward()
    assert e.grad[0].eq(0).all(), "the target row gets no gradient"
    assert e.grad[1:3].ne(0).all(), "the context rows do"
    assert e.grad[3:].eq(0).all()
    assert head.weight.grad.abs().sum() > 0
    (attached,) = torch.autograd.grad(losses.reconstruction(rows(6, seed=1), e, masked, detach_target=False).mean, e)
    assert attached[0].ne(0).all()


def test_rows_without_a_reconstruction_cannot_poison_the_others():
    prediction = rows(3)
    prediction[1] = math.nan
    prediction.requires_grad_()
    loss = losses.reconstruction(prediction, rows(3, seed=1), torch.tensor([True, False, True]))
    loss.mean.backward()
    assert loss.value[1] == 0
    assert loss.mean.isfinite()
    assert prediction.grad.isfinite().all()
    assert prediction.grad[1].eq(0).all()


# --- context ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pages", PAGES)
def test_leave_one_out_mean_is_the_mean_of_the_others(pages):
    e = rows(6)
    expected = []
    for i in range(6):
        others = [e[j] for j in range(6) if j != i and pages[j] == pages[i]]
        expected.append(torch.stack(others).mean(0) if others else torch.zeros(8))
    found = losses.leave_one_out_mean(e.bfloat16(), torch.tensor(pages))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.stack(expected), rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(losses.leave_one_out_mean(e, torch.tensor(pages)), torch.stack(expected))
    assert losses.page_counts(torch.tensor(pages)).tolist() == [pages.count(p) for p in pages]
    assert losses.page_mates(torch.tensor(pages)).tolist() == [
        [i != j and pages[i] == pages[j] for j in range(6)] for i in range(6)
    ]


def test_leave_one_out_gradient_reaches_the_mates_and_not_the_panel():
    e = rows(5).requires_grad_()
    losses.leave_one_out_mean(e, torch.tensor([3, 3, 3, 8, 9]))[0].sum().backward()
    assert e.grad[:, 0].tolist() == [0.0, 0.5, 0.5, 0.0, 0.0]


# --- refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [0.0, -0.07, math.nan, math.inf, torch.tensor(0.0), torch.tensor([0.1, 0.2])])
def test_a_temperature_that_is_no_positive_number_is_refused_by_name(tau):
    with pytest.raises(ValueError, match="temperature"):
        losses.supcon(rows(4), torch.tensor([0, 0, 1, 1]), tau)
    with pytest.raises(ValueError, match="temperature"):
        losses.info_nce(rows(4), rows(4), tau)


def test_shapes_that_disagree_are_refused_by_name():
    ids = torch.zeros(3, dtype=torch.long)
    with pytest.raises(ValueError, match=r"page_ids.*4 rows of z"):
        losses.supcon(rows(4), ids, 0.07)
    with pytest.raises(ValueError, match="image and text"):
        losses.info_nce(rows(4), rows(3), 0.07)
    with pytest.raises(ValueError, match="text_ids"):
        losses.info_nce(rows(4), rows(4), 0.07, ids)
    with pytest.raises(ValueError, match="page_ids"):
        losses.leave_one_out_mean(rows(4), ids)
    with pytest.raises(ValueError, match="valid"):
        losses.reconstruction(rows(4), rows(4), ids.bool())
    with pytest.raises(ValueError, match="prediction and target"):
        losses.reconstruction(rows(4), rows(3), ids.bool())
    with pytest.raises(ValueError, match=r"z must have shape \(rows, dimension\), not \(4,\)"):
        losses.supcon(torch.zeros(4), ids, 0.07)
    with pytest.raises(ValueError, match="chunk_size"):
        losses.supcon(rows(3), ids, 0.07, chunk_size=0)
    with pytest.raises(ValueError, match="log_epsilon"):
        losses.supcon(rows(3), ids, 0.07, chunk_size=2, log_epsilon=1e-6)


def test_a_learnable_temperature_gets_the_derivative():
    z, pages, step = rows(12), torch.arange(12) // 3, 1e-3
    tau = torch.tensor(0.1, requires_grad=True)
    losses.supcon(z, pages, tau).mean.backward()
    up, down = (losses.supcon(z, pages, 0.1 + s).mean.item() for s in (step, -step))
    assert tau.grad.item() == pytest.approx((up - down) / (2 * step), rel=1e-2)
