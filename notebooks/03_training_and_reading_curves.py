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
# # Training, and reading its curves
#
# *How to train a run from Python, and what its curves do and do not say. Takes 30 seconds. To open it, run
# `jupytext --to notebook notebooks/03_training_and_reading_curves.py` and open the result in Jupyter; with the jupytext
# extension, Jupyter opens the .py file directly.*
#
# A small model is trained on the synthetic comics. Then each curve that a run records is read with one question in
# mind: what follows from it, and what does not?

# %%
import os
import sys
import tempfile
from pathlib import Path

ROOT = next(p for p in (Path.cwd(), *Path.cwd().parents) if (p / "pyproject.toml").is_file())
os.chdir(ROOT)
sys.path[:0] = [str(ROOT), str(ROOT / "notebooks")]

import numpy as np
import pandas as pd
import plots
import torch

import stage3
from stage3.objectives import TERMS
from stage3.runs.curves import series

torch.set_num_threads(1)
workshop = tempfile.TemporaryDirectory()
WORK = Path(workshop.name)

# %% [markdown]
# ## A run
#
# `Run.train` takes a folder for the run, the data, and any settings. Here they are the weights of the original trainer,
# with a smaller model and fewer epochs. The command
# `python -m stage3.train --run RUN --data data/samples --dim 128 --epochs 8 …` does the same.

# %%
WEIGHTS = {"contrastive_weight": 1.0, "reconstruction_weight": 0.5, "alignment_weight": 0.3}
SETTINGS = WEIGHTS | {"dim": 128, "epochs": 8, "batch_pages": 16, "lr": 3e-3, "dropout": 0.1, "feature_noise": 0.0}
SETTINGS |= {"gate_hidden": 128, "leave_one_out": False, "keep_checkpoints": 0, "log_every": 1}

data = stage3.Dataset.load("data/samples", cache_dir=str(WORK / "cache"), progress=False)
run = stage3.Run.train(WORK / "first", data, **SETTINGS)
print(run.status.message, "at step", run.status.step)

# %%
frame = run.metrics()
frame.groupby("split").tail(1).set_index("split").T.dropna().head(12)

# %%
assert run.best() is not None
assert set(frame["split"]) == {"train", "val"}
assert frame["skipped_steps"].fillna(0).sum() == 0  # no step met infinite numbers

# %% [markdown]
# ## Raw, weighted, total
#
# **What is "the loss"?** Three numbers and their weighted sum. The raw values say how well each objective does; only
# they can be compared between runs with different weights. The weighted values are what the optimizer sees.


# %%


def epochs_of(name, split):
    """One point per epoch; means are weighted by the items behind them."""
    curve = series(frame, name, split, by="epoch")
    return curve["x"], curve["y"]


plots.lines(
    "Raw losses: training (solid), validation (dashed)",
    "epoch",
    "raw loss",
    {f"{t}{' (val)' if s == 'val' else ''}": epochs_of(f"loss/{t}", s) for t in TERMS for s in ("train", "val")},
)

# %%
weighted = {t: epochs_of(f"weighted/{t}", "val")[1] for t in TERMS}
fig = plots.figure("What the total validation loss is made of", "epoch", "weighted loss")
for term, values in weighted.items():
    fig.add_bar(x=list(range(1, 9)), y=values, name=term, marker_color=plots.TERMS[term])
fig.update_layout(barmode="stack")

# %%
for _, row in frame.iterrows():
    parts = [WEIGHTS[f"{t}_weight"] * row[f"loss/{t}"] for t in TERMS if pd.notna(row[f"loss/{t}"])]
    assert abs(sum(parts) - row["loss/total"]) < 1e-5  # in training and in validation
for term in TERMS:
    train_curve, val_curve = epochs_of(f"loss/{term}", "train")[1], epochs_of(f"loss/{term}", "val")[1]
    assert train_curve.iloc[-1] < train_curve.iloc[0]
    if term != "reconstruction":
        assert val_curve.iloc[-1] > train_curve.iloc[-1]  # 55 books are few: the model memorizes them

# %% [markdown]
# The contrastive term makes up most of the total. So the total says little about alignment, although retrieval depends
# on alignment most.
#
# ## Active items
#
# **A mean over what?** Not every panel has every loss: a panel alone on its page is not an anchor, a textless panel has
# nothing to align. Each mean is over the items for which the loss is defined, and the run counts them.

# %%
active = ["panels", "anchors", "aligned", "reconstructed"]
steps = frame[frame["split"] == "train"]
per_epoch = len(steps) // SETTINGS["epochs"]
plots.lines(
    "Active items per training step, first three epochs",
    "step",
    "items",
    {name: (steps["step"][: 3 * per_epoch], steps[f"active/{name}"][: 3 * per_epoch]) for name in active},
)

# %%
sums = steps.groupby("epoch")[[f"active/{name}" for name in [*active, "silent_batches"]]].sum().astype(int)
sums

# %%
training = data.panel_set.rows_of(data.pages("train"))
assert (sums["active/panels"] == len(training)).all()  # every panel once per epoch
assert (sums["active/aligned"] < sums["active/panels"]).all()
assert (sums["active/silent_batches"] == 0).all()  # batches without any signal
several = data.panel_set.count[data.pages("train")] > 1
assert (sums["active/reconstructed"] == several.sum()).all()  # one masked panel per page with two or more

by_hand = (steps["loss/alignment"] * steps["active/aligned"]).groupby(steps["epoch"]).sum() / sums["active/aligned"]
assert np.allclose(by_hand, epochs_of("loss/alignment", "train")[1])

# %% [markdown]
# The last line shows why the counts are kept: the loss of an epoch is the sum over items divided by their number. In a
# mean over batches, a batch with three pairs would count as much as one with forty.
#
# ## Gradients
#
# **Which objective moves the encoder?** Not the one with the largest value, but the one with the largest gradient. At
# every validation the run records the norm of each weighted term's gradient, and the cosine between any two of them.

# %%
fig = plots.lines(
    "Gradient norm per loss, on the encoder",
    "epoch",
    "gradient norm",
    {t: epochs_of(f"gradient/{t}", "val") for t in TERMS},
)
fig.update_yaxes(type="log")

# %%
pairs = [(a, b) for i, a in enumerate(TERMS) for b in TERMS[i + 1 :]]
cosines = {f"{a} and {b}": epochs_of(f"gradient_cosine/{a}_{b}", "val") for a, b in pairs}
fig = plots.figure("Do two losses pull the same way?", "epoch", "gradient cosine")
for name, (x, y) in cosines.items():
    fig.add_scatter(x=x, y=y, name=name, mode="lines+markers")
fig.update_yaxes(range=[-1, 1])

# %%
norm = {t: epochs_of(f"gradient/{t}", "val")[1] for t in TERMS}
share = pd.DataFrame(
    {
        "share of loss": {t: weighted[t].iloc[-1] for t in TERMS},
        "share of gradient": {t: norm[t].mean() for t in TERMS},
    }
)
(share / share.sum()).round(2)

# %%
share = share / share.sum()
assert share.loc["alignment", "share of gradient"] > 1.3 * share.loc["alignment", "share of loss"]
latest = {name: y.iloc[-1] for name, (_, y) in cosines.items()}
assert max(abs(latest["contrastive and alignment"]), abs(latest["reconstruction and alignment"])) < 0.3
assert latest["contrastive and reconstruction"] > 0

# %% [markdown]
# Alignment is a small part of the total loss and a larger part of the gradient. It is nearly perpendicular to the other
# two: it asks for something that they do not. Contrastive and reconstruction come to pull the same way, since page
# mates that are alike can be predicted from each other, but reconstruction hardly pulls at all. Were a cosine near −1,
# the weights of those two would decide which of them wins.
#
# ## Which epoch is best?
#
# **By which number should the checkpoint be chosen?** Two candidates are the validation loss and retrieval among all
# validation panels.

# %%
val = frame[frame["split"] == "val"].set_index("epoch")
plots.lines("Total validation loss", "epoch", "total loss", {"total (val)": (val.index, val["loss/total"])}, height=300)

# %%
ways = {"image → text": "retrieval/i2t_r5", "text → image": "retrieval/t2i_r5", "mean of both": "retrieval/mean_r5"}
plots.lines(
    "R@5 among the validation panels",
    "epoch",
    "share of panels",
    {name: (val.index, val[column]) for name, column in ways.items()},
)

# %% [markdown]
# Epoch 0 is the model before its first step. It begins at the frozen features, so it knows something of pages already;
# image and text lie in subspaces of their own, so it cannot match them yet. **How many of a panel's nearest panels are
# its page mates?** The dotted line is what the frozen features give without any model, and chance is near 1 %.

# %%
SAME_PAGE = "retrieval/same_page_r_precision"
added = run.evaluate(split="val", data=data)["added"]
plots.lines(
    "Same-page R-precision of the validation panels",
    "epoch",
    "share of the nearest panels",
    {"model": (val.index, val[SAME_PAGE]), "frozen features": (val.index, [added["frozen"]] * len(val))},
)
print(added["sentence"])

# %% [markdown]
# Training is worth it only where the model ends above its features. No checkpoint below the start is ever the best one;
# of the others the latest within a hundredth of the highest is taken, for smaller differences are noise.

# %%
by_loss, by_pages = int(val["loss/total"].idxmin()), int(val[SAME_PAGE].idxmax())
print(f"lowest loss: epoch {by_loss}; most page mates: epoch {by_pages}; chosen: step {run.best().step}")

# %%
assert run.best().metric == SAME_PAGE
assert run.best().value >= max(val[SAME_PAGE].max() - 0.01, val[SAME_PAGE].iloc[0])
assert added["answer"] == "adds"
assert abs(val[SAME_PAGE].iloc[0] - added["frozen"]) < 0.01  # training begins at the frozen features
assert val["loss/total"].iloc[-1] < 1.02 * val["loss/total"].min()  # the loss ends close to its lowest

# %% [markdown]
# Here loss and retrieval agree. They need not: the loss also grows when a model becomes too sure of itself on panels
# that it gets wrong, while retrieval depends on the order alone.
#
# There is another reason not to choose by the loss. **What happens if all weights are divided by ten?** Open the run
# once more, with other weights of the losses and the same weights of the model:

# %%
rows = {}
for name, factor in (("as trained", 1.0), ("weights / 10", 0.1)):
    judged = stage3.Run.load(run.path)
    judged.config = judged.config.replace(**{weight: value * factor for weight, value in WEIGHTS.items()})
    report = judged.evaluate(split="val", data=data)
    rows[name] = {metric: report[metric] for metric in ("loss/total", "retrieval/mean_r5", "retrieval/mean_r1")}
pd.DataFrame(rows).T.round(4)

# %%
assert np.isclose(rows["weights / 10"]["loss/total"], rows["as trained"]["loss/total"] / 10)
assert rows["weights / 10"]["retrieval/mean_r5"] == rows["as trained"]["retrieval/mean_r5"]

# %% [markdown]
# The same model has a tenth of the loss and the same retrieval. A metric that a setting can change by itself must not
# be used to compare runs. This is why `select_by`, which chooses the checkpoint, is a retrieval metric by default.
#
# ## Stop and resume
#
# **Is a run that was stopped the same as one that was not?** Ctrl-C stops a run at the next step, and so does
# `request_stop`, from any process. Here it is called after the third validation. The same call to `Run.train` then
# resumes the run from its files.


# %%
def stop_after_three(line):
    """Called with each line that the command would print."""
    so_far = stage3.Run.load(WORK / "stopped")
    if (so_far.metrics()["split"] == "val").sum() == 3:
        so_far.request_stop()


try:
    stage3.Run.train(WORK / "stopped", data, **SETTINGS, tell=stop_after_three)
except stage3.Interrupted as reason:
    print(reason)
steps_done = stage3.Run.load(WORK / "stopped").status.step
again = stage3.Run.train(WORK / "stopped", data, **SETTINGS)
print(again.status.message, "at step", again.status.step)

# %%
assert 0 < steps_done < again.status.step == run.status.step
uninterrupted, resumed = (r.load_checkpoint(run.status.step).tensors for r in (run, again))
tensors = [(group, name) for group in uninterrupted for name in uninterrupted[group]]
equal = [torch.equal(uninterrupted[group][name], resumed[group][name]) for group, name in tensors]
print(f"{sum(equal)} of {len(equal)} tensors of model and optimizer are equal, bit for bit")

# %%
assert len(equal) == sum(map(len, resumed.values()))
assert all(equal)
told = [c for c in frame.columns if c not in ("seconds", "panels_per_second")]  # all but the clock
pd.testing.assert_frame_equal(frame[told], again.metrics()[told], check_exact=True)

# %%
both = {"uninterrupted": frame, "resumed": again.metrics()}
plots.lines(
    "Training loss of both runs: one line covers the other",
    "step",
    "total loss",
    {name: tuple(series(f, "loss/total", "train")[["x", "y"]].T.to_numpy()) for name, f in both.items()},
)

# %% [markdown]
# Every weight, every number of the optimizer and every row of the metrics is the same. The batches, masked panels and
# dropout of a step depend on the seed and the step alone, so no random state has to be saved.
#
# **What if a setting changes in between?** Then it would be another run, and `Run.train` refuses:

# %%
try:
    stage3.Run.train(WORK / "stopped", lr=0.01)
except stage3.ConfigError as error:
    refusal = str(error)
print(refusal.replace(str(WORK), "…"))

# %%
assert "lr is 0.003, asked for 0.01" in refusal

# %% [markdown]
# ## Summary
#
# - Compare raw losses, never totals of runs with different weights.
# - A mean needs its count. Both are in every row.
# - Gradients, not values, say which objective moves the encoder.
# - The checkpoint is chosen by a metric that no weight can scale.
#
# Next: `04_maps_and_retrieval`.

# %%
workshop.cleanup()
assert not WORK.exists()
