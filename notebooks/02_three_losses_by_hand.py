# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Three losses by hand
#
# *What each loss asks for, and how each can go wrong. Takes 10 seconds. To open it, run
# `jupytext --to notebook notebooks/02_three_losses_by_hand.py` and open the result in Jupyter; with the jupytext
# extension, Jupyter opens the .py file directly.*
#
# A panel embedding is trained by three losses. This notebook takes them one at a time, on a handful of points in two
# dimensions, where every pull can be drawn. Each section asks a question, tries it, shows the result, and asserts its
# conclusion.
#
# | loss | what it asks for |
# |---|---|
# | contrastive | panels of one page lie close together, panels of different pages far apart |
# | reconstruction | a panel can be predicted from its page mates |
# | alignment | the image and the text of a panel find each other |

# %%
import math
import os
import sys
from pathlib import Path

ROOT = next(p for p in (Path.cwd(), *Path.cwd().parents) if (p / "pyproject.toml").is_file())
os.chdir(ROOT)
sys.path[:0] = [str(ROOT), str(ROOT / "notebooks")]

import numpy as np
import pandas as pd
import plots
import torch
from torch.nn import functional as F

from stage3 import losses, metrics

torch.set_num_threads(1)


def at_angles(*degrees):
    """(V, 2) points on the unit circle."""
    turn = torch.tensor(degrees, dtype=torch.float32).deg2rad()
    return torch.stack([turn.cos(), turn.sin()], dim=1)


# %% [markdown]
# ## The contrastive loss
#
# Take an anchor panel $i$. Its positives $P(i)$ are its *page mates*: the other panels of its page. It is compared with
# every other panel of the batch:
#
# $$L_i = -\frac{1}{|P(i)|}\sum_{p \in P(i)} \log
# \frac{\exp(z_i\cdot z_p/\tau)}{\sum_{a \ne i}\exp(z_i\cdot z_a/\tau)}$$
#
# **Does `losses.supcon` compute this formula?** Here is the formula in plain loops:

# %%
PAGES = torch.tensor([0, 0, 0, 1, 1, 1, 2])  # page C has a single panel
NAMES = ["A1", "A2", "A3", "B1", "B2", "B3", "C1"]
PAGE_NAMES = [f"page {name[0]}" for name in NAMES]
z = at_angles(20, 75, 150, 110, 200, 250, 280)


def supcon_by_loops(z, pages, tau):
    """One value per panel; None for a panel alone on its page, whose loss is not defined."""
    z = [[x / math.hypot(*row) for x in row] for row in z.tolist()]
    values = []
    for i, anchor in enumerate(z):
        logit = [sum(a * b for a, b in zip(anchor, other, strict=True)) / tau for other in z]
        denominator = sum(math.exp(logit[a]) for a in range(len(z)) if a != i)
        mates = [p for p in range(len(z)) if p != i and pages[p] == pages[i]]
        terms = [math.log(math.exp(logit[p]) / denominator) for p in mates]
        values.append(-sum(terms) / len(mates) if mates else None)
    return values


by_loops = supcon_by_loops(z, PAGES.tolist(), tau=0.5)
by_library = losses.supcon(z, PAGES, temperature=0.5)
pd.DataFrame({"panel": NAMES, "by loops": by_loops, "by library": by_library.value, "defined": by_library.valid})

# %%
assert by_library.valid.tolist() == [value is not None for value in by_loops]
expected = torch.tensor([value for value in by_loops if value is not None])
torch.testing.assert_close(by_library.value[by_library.valid], expected)

# %% [markdown]
# They agree. Panel C1 is alone on its page, so its own loss is not defined. `valid` says so, and the mean is taken over
# the other six. A zero in its place would make the loss look better the more single-panel pages a batch has.
#
# **Where does the loss pull each panel?** Downhill is minus the gradient, and on the circle only its part along the
# circle counts. The arrows show it, all on one scale:


# %%
def supcon_mean(z, tau):
    return losses.supcon(z, PAGES, tau).mean


def pulls(loss, z):
    """(V, 2) minus the gradient of a loss at each point."""
    moving = z.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss(moving), moving)
    return -gradient


pull = pulls(lambda z: supcon_mean(z, 0.5), z)
plots.on_circle(
    "Where the contrastive loss pulls each panel (τ = 0.5)", z.numpy(), PAGE_NAMES, 1.5 * pull.numpy(), NAMES
)

# %% [markdown]
# A3 is pulled back to A1 and A2, across B1, which lies between them. B1 is pulled the other way. C1 has no loss of its
# own, yet it moves: it is a negative of every other panel, and B3, the nearest, pushes it away.
#
# **Do the arrows lead where they should?** Following them must bring page mates together and move pages apart.

# %%
assert torch.allclose((pull * z).sum(dim=1), torch.zeros(7), atol=1e-6)  # no pull along the radius: length is free
assert pull[6].norm() > 0  # C1 is moved although its own loss is not defined

moved = z.clone()
history = []
for _ in range(300):
    gap = metrics.page_gap(moved, PAGES)
    history.append((gap.intra, gap.inter))
    moved = F.normalize(moved + 0.1 * pulls(lambda z: supcon_mean(z, 0.5), moved), dim=1)
plots.on_circle("The same panels after 300 small steps", moved.numpy(), PAGE_NAMES, None, NAMES)

# %%
intra, inter = np.array(history).T
steps = np.arange(len(history))
plots.lines(
    "Cosine of two panels during these steps",
    "step",
    "mean cosine",
    {"same page": (steps[::10], intra[::10]), "different pages": (steps[::10], inter[::10])},
)

# %%
assert intra[-1] > 0.99 > intra[0]
assert inter[-1] < inter[0]

# %% [markdown]
# The pages become three points. That is all this loss asks for, and why a high cosine within pages proves nothing: the
# *differences within a page* have to come from the other losses.
#
# **Pull panel B1 towards page A. Whose loss changes?**

# %%
towards = z.clone()
towards[3] = F.normalize(0.3 * z[3] + 0.7 * z[1], dim=0)
before, after = losses.supcon(z, PAGES, 0.5).value, losses.supcon(towards, PAGES, 0.5).value
plots.bars(
    "Change of each panel's loss when B1 moves to page A",
    "loss, after − before",
    {"": dict(zip(NAMES, (after - before).tolist(), strict=True))},
    height=300,
)

# %%
assert after[3] > before[3]  # B1 is farther from its mates
assert (after[4:6] > before[4:6]).all()  # and they are farther from it
assert after[1] > before[1]  # A2 has an intruder beside it
assert after[2] < before[2]  # A3 is rid of one

# %% [markdown]
# Both pages notice: its own, which has lost a mate, and the one it intrudes on. Only A3 gains, because B1 was beside it
# before.
#
# ## Temperature
#
# **What does τ decide?** Anchor $i$ pushes a negative $a$ in proportion to its share of the softmax over all other
# panels. How many panels share the push is measured by the exponential of the entropy of these shares. Here are 200
# random panels in 32 dimensions:

# %%
TAUS = (1.0, 0.5, 0.2, 0.1, 0.07, 0.05, 0.02, 0.01)
noise = torch.Generator().manual_seed(0)
cloud = F.normalize(torch.randn(200, 32, generator=noise), dim=1)
cosine = (cloud @ cloud.T).fill_diagonal_(-math.inf)
pushed = []
for tau in TAUS:
    share = (cosine / tau).softmax(dim=1)
    entropy = -(share * share.clamp(min=1e-30).log()).sum(dim=1)
    pushed.append(float(entropy.exp().mean()))
fig = plots.lines(
    "How many of 199 panels an anchor pushes", "temperature τ", "panels", {"": (TAUS, pushed)}, showlegend=False
)
fig.update_xaxes(type="log", tickvals=TAUS).update_yaxes(type="log")

# %%
assert pushed == sorted(pushed, reverse=True)
assert pushed[0] > 190
assert pushed[-1] < 5

# %% [markdown]
# At τ = 1 every panel is pushed about equally, whether it is close or not. At τ = 0.01 only the nearest one or two
# count, right or wrong. The usual 0.07 lies in between.
#
# **Finding F6: is the loss still exact at a small τ?** The exponentials reach $e^{1/\tau}$, which overflows float32
# (about $3\cdot10^{38}$) below τ = 0.0113. The usual cure subtracts the maximum of the row. The original trainer took
# that maximum with the anchor's own cosine of 1 included, and added an epsilon inside the logarithm. At a small τ all
# other exponentials have then vanished, and only the epsilon is left. Three variants are compared with the same sum in
# float64, on panels that have no close neighbor:

# %%
pages = torch.arange(200) // 4


def exact(z, pages, tau):
    """Mean loss in float64."""
    z = F.normalize(z.double(), dim=1)
    logits = (z @ z.T / tau).fill_diagonal_(-math.inf)
    log_prob = logits - logits.logsumexp(dim=1, keepdim=True)
    mates = losses.page_mates(pages)
    return float((-log_prob.masked_fill(~mates, 0.0).sum(dim=1) / mates.sum(dim=1)).mean())


def naive(z, pages, tau):
    """Mean loss in float32 with bare exponentials."""
    exponentials = (z @ z.T / tau).exp().fill_diagonal_(0.0)
    mates = losses.page_mates(pages)
    log_prob = (exponentials / exponentials.sum(dim=1, keepdim=True)).log()
    return float((-log_prob.masked_fill(~mates, 0.0).sum(dim=1) / mates.sum(dim=1)).mean())


errors = pd.DataFrame(
    {
        "τ": TAUS,
        "exact": [exact(cloud, pages, tau) for tau in TAUS],
        "library": [float(losses.supcon(cloud, pages, tau).mean) for tau in TAUS],
        "bare exponentials": [naive(cloud, pages, tau) for tau in TAUS],
        "epsilon 1e-6": [float(losses.supcon(cloud, pages, tau, log_epsilon=1e-6).mean) for tau in TAUS],
    }
)
errors

# %%
relative = {name: (errors[name] / errors["exact"] - 1).abs() for name in errors.columns[2:]}
fig = plots.lines(
    "Error of the loss, compared with float64",
    "temperature τ",
    "relative error",
    {name: (TAUS, np.maximum(error, 1e-9)) for name, error in relative.items()},
)
fig.update_xaxes(type="log", tickvals=TAUS).update_yaxes(type="log", exponentformat="power")

# %%
assert relative["library"].max() < 1e-4
assert relative["epsilon 1e-6"].iloc[-1] > 0.1  # at τ = 0.01
assert relative["epsilon 1e-6"].iloc[:3].max() < 1e-4  # at τ = 0.2 and above it does not show

# %% [markdown]
# The line of the bare exponentials ends where they become infinite. The library agrees with float64 at every τ. The
# epsilon makes no difference at τ = 0.2 and distorts the loss at small τ: a fault that stays hidden until somebody
# lowers the temperature. The ablation switch `log_epsilon` brings it back for experiments.
#
# ## Reconstruction
#
# A panel $m$ is masked. The mean of its page mates goes through a small head, which has to predict $e_m$; the loss is
# the mean squared error. **Finding F2:** the target $e_m$ is itself an output of the encoder. May the loss move it?

# %%
noise = torch.Generator().manual_seed(1)
e = torch.randn(6, 2, generator=noise, requires_grad=True)
page = torch.tensor([0, 0, 0, 1, 1, 1])
masked = torch.tensor([True, False, False, False, False, True])


def gradient_of(detach_target):
    """(6, 2) gradient at every embedding; the head is the identity here."""
    prediction = losses.leave_one_out_mean(e, page)
    loss = losses.reconstruction(prediction, e, masked, detach_target=detach_target).mean
    return torch.autograd.grad(loss, e)[0]


with_detach, without_detach = gradient_of(True), gradient_of(False)
pd.DataFrame(
    {
        "panel": ["masked" if m else "context" for m in masked],
        "gradient, target detached": with_detach.norm(dim=1),
        "gradient, target not detached": without_detach.norm(dim=1),
    }
)

# %%
assert torch.equal(with_detach[masked], torch.zeros(2, 2))  # exactly 0
assert (with_detach[~masked].norm(dim=1) > 0).all()  # the encoder still learns, through the context
assert (without_detach[masked].norm(dim=1) > 0).all()

# %% [markdown]
# **Why does that matter?** Give the loss an impossible task: pages of four unrelated panels, where nothing can be
# predicted. A linear encoder from 8 numbers to 2 and a linear head are trained by reconstruction alone, with and
# without the detached target. A fair score is the *R² of reconstruction*, 1 − mse / mse of always predicting the mean:

# %%
noise = torch.Generator().manual_seed(2)
features = torch.randn(1000, 8, generator=noise)
page = torch.arange(1000) // 4
everyone = torch.ones(1000, dtype=torch.bool)


def train_by_reconstruction(detach_target, steps=400):
    """Mean squared error, R² and variance of the embeddings at every tenth step."""
    weights = torch.Generator().manual_seed(3)
    encoder = torch.randn(8, 2, generator=weights).div(8**0.5).requires_grad_(True)
    head = torch.eye(2).mul(0.1).requires_grad_(True)
    optimizer = torch.optim.Adam([encoder, head], lr=0.02)
    rows = []
    for step in range(steps):
        e = features @ encoder
        loss = losses.reconstruction(
            losses.leave_one_out_mean(e, page) @ head, e, everyone, detach_target=detach_target
        )
        if step % 10 == 0:
            now = e.detach()
            spread = float((now - now.mean(dim=0)).square().mean())
            rows.append(
                (step, float(loss.mean.detach()), metrics.reconstruction_skill(loss.value.detach(), now), spread)
            )
        optimizer.zero_grad()
        loss.mean.backward()
        optimizer.step()
    return pd.DataFrame(rows, columns=["step", "mse", "R²", "variance"])


detached, attached = train_by_reconstruction(True), train_by_reconstruction(False)
plots.lines(
    "Reconstruction error: lower looks better",
    "step",
    "mean squared error",
    {
        "target detached": (detached["step"], detached["mse"]),
        "target not detached": (attached["step"], attached["mse"]),
    },
).update_yaxes(type="log", exponentformat="power")

# %%
plots.lines(
    "Spread of the embeddings: what tells panels apart",
    "step",
    "variance per dimension",
    {
        "target detached": (detached["step"], detached["variance"]),
        "target not detached": (attached["step"], attached["variance"]),
    },
).update_yaxes(type="log", exponentformat="power")

# %%
pd.DataFrame({"target detached": detached.iloc[-1], "target not detached": attached.iloc[-1]}).round(6)

# %%
assert attached["mse"].iloc[-1] < detached["mse"].iloc[-1] / 1000
assert attached["variance"].iloc[-1] < attached["variance"].iloc[0] / 1000
assert max(attached["R²"].iloc[-1], detached["R²"].iloc[-1]) < 0.1

# %% [markdown]
# Without the detached target the error vanishes, although there is nothing to learn. The encoder has shrunk everything
# to one point, and a point is easy to predict. The R² is about 0 in both cases, as it should be. This is why no
# experiment here judges reconstruction by its error.
#
# ## Alignment
#
# Take image embeddings $v$ and text embeddings $t$ of the same panels. Image $j$ should find text $j$ among all texts,
# and text $j$ should find image $j$ among all images. These are two losses: a softmax over the rows of the matrix
# of cosines, and one over its columns. **Does `losses.info_nce` compute both?**

# %%
v, t = at_angles(0, 30, 100, 200), at_angles(-3, 4, 95, 215)


def info_nce_by_loops(v, t, tau):
    """Mean loss of v finding its t."""
    v, t = v.tolist(), t.tolist()
    total = 0.0
    for j in range(len(v)):
        logit = [sum(a * b for a, b in zip(v[j], other, strict=True)) / tau for other in t]
        total -= math.log(math.exp(logit[j]) / sum(math.exp(x) for x in logit))
    return total / len(v)


to_text, to_image = losses.info_nce(v, t, 0.07)
assert math.isclose(float(to_text.mean), info_nce_by_loops(v, t, 0.07), rel_tol=1e-5)
assert math.isclose(float(to_image.mean), info_nce_by_loops(t, v, 0.07), rel_tol=1e-5)
swapped = losses.info_nce(t, v, 0.07)  # swapping the inputs swaps the results: no direction is special
torch.testing.assert_close(swapped[0].value, to_image.value)
torch.testing.assert_close(swapped[1].value, to_text.value)

# %% [markdown]
# **Finding F3: is one direction enough?** In the example above the text nearest to each image is its own, so image →
# text retrieval is perfect. Now look from the side of text 2:

# %%
points = torch.cat([v, t]).numpy()
names = [f"image {i}" for i in (1, 2, 3, 4)] + [f"text {i}" for i in (1, 2, 3, 4)]
radius = np.repeat([[0.86], [1.0]], 4, axis=0)  # images on an inner circle, so that both can be seen
plots.on_circle(
    "Four panels: images (inside) and texts (outside)", points * radius, ["images"] * 4 + ["texts"] * 4, None, names
)

# %%
ranks = pd.DataFrame(
    {
        "panel": [1, 2, 3, 4],
        "image → text": metrics.retrieval_ranks(v, t),
        "text → image": metrics.retrieval_ranks(t, v),
    }
)
ranks

# %%
assert metrics.recall_at(metrics.retrieval_ranks(v, t), 1) == 1.0
assert metrics.recall_at(metrics.retrieval_ranks(t, v), 1) == 0.75  # text 2 finds image 1

# %% [markdown]
# Text 2 is nearer to image 1 than to its own image. Image → text does not notice, because image 1 has a text that is
# nearer still. **Which way does each half pull text 2?**

# %%
half = {
    "image → text only": lambda t: losses.info_nce(v, t, 0.07)[0].mean,
    "text → image only": lambda t: losses.info_nce(v, t, 0.07)[1].mean,
    "both, averaged": lambda t: sum(loss.mean for loss in losses.info_nce(v, t, 0.07)) / 2,
}
forward = torch.tensor([-t[1, 1], t[1, 0]])  # along the circle, towards image 2
strength = {name: float(pulls(loss, t)[1] @ forward) for name, loss in half.items()}
plots.bars("Pull of text 2 towards its own image", "minus the gradient", {"": strength}, height=320)

# %%
assert all(value > 0 for value in strength.values())
assert strength["text → image only"] > 2 * strength["image → text only"]

# %% [markdown]
# Both halves pull it the right way, and the half that sees the mistake pulls more than twice as hard. The difference is
# one of strength, not of direction. Notebook 05 measures what follows: in full training runs the second direction
# changes little.
#
# A tempting shortcut averages the matrix of cosines with its transpose and takes one softmax. That is a different loss:
# it mixes image–text with text–image cosines and is the loss of neither direction of retrieval.

# %%
cosine = v @ t.T / 0.07
shortcut = -((cosine + cosine.T) / 2).log_softmax(dim=1).diagonal().mean()
both = (to_text.mean + to_image.mean) / 2
assert not math.isclose(float(shortcut), float(both), rel_tol=0.05)
print(f"symmetric loss {float(both):.3f}, averaged logits {float(shortcut):.3f}")

# %% [markdown]
# **What about two panels with the same text?** No text backbone can tell them apart, so it is pointless to push them
# apart as each other's negatives. `text_ids` says which texts are identical; those pairs leave both denominators.

# %%
same = t.clone()
same[1] = same[0]  # panels 1 and 2 have the same text
ids = torch.tensor([0, 0, 1, 2])
told = losses.info_nce(v, same, 0.07, ids)[0].value
untold = losses.info_nce(v, same, 0.07)[0].value
pd.DataFrame({"panel": [1, 2, 3, 4], "text_ids given": told, "not given": untold}).round(3)

# %%
assert untold[0] > 0.5  # a coin toss between two identical texts costs log 2
assert told[0] < 0.01

# %% [markdown]
# ## Summary
#
# - The contrastive loss makes pages compact. Alone, it makes them points.
# - The temperature decides how many neighbors matter. It must not decide whether the sum is exact.
# - Reconstruction must not move its own target. Its error says nothing; its R² does.
# - Alignment is two losses. The second sees mistakes that the first cannot.
#
# Next: `03_training_and_reading_curves` trains all three together.
