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
# A small model is trained on the sample comics, in seconds. Then every curve that a run records is looked at with one
# question in mind: what may be concluded from it, and what may not.

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

from stage3.ablate.terms import REVIEWED
from stage3.batches import fixed_batches
from stage3.batches.dataset import Dataset
from stage3.config import Config
from stage3.errors import ConfigError, Interrupted
from stage3.model import validation
from stage3.objectives import TERMS
from stage3.runs import RunFolder, curves
from stage3.train import __main__ as train_command
from stage3.train.trainer import Trainer

torch.set_num_threads(1)
workshop = tempfile.TemporaryDirectory()
WORK = Path(workshop.name)

# %% [markdown]
# ## A run
#
# The same as `python -m stage3.train --run RUN --data data/samples` with a smaller model, fewer epochs and the settings
# of the reviewed system, which are written down once for all experiments:

# %%
config = Config.from_mapping(
    {"data": "data/samples", "cache_dir": str(WORK / "cache"), "dim": 128, "epochs": 8, "leave_one_out": False}
    | {"keep_checkpoints": 0, "log_every": 1}
    | REVIEWED
)
WEIGHTS = {f"{term}_weight": REVIEWED[f"{term}_weight"] for term in TERMS}
print(REVIEWED)
data = Dataset.load(config, progress=False)
print({name: len(data.pages(name)) for name in ("train", "val", "test")}, "pages")


def trained(name, stop=lambda: False, **settings):
    """A run of these settings, trained until it ends or `stop()`."""
    run = RunFolder.create(WORK / name, config.replace(**settings))
    with run.lock():
        trainer = Trainer(run, data, say=print)
        try:
            trainer.fit(stop)
        except Interrupted as stopped:
            print(stopped)
    return run


run = trained("first")
frame = run.metrics()

# %%
assert run.best() is not None
assert set(frame["split"]) == {"train", "val"}
assert frame["skipped_steps"].fillna(0).sum() == 0  # no step met infinite numbers

# %% [markdown]
# ## Raw, weighted, total
#
# **What is "the loss"?** Three numbers and a weighted sum. The raw values say how well each objective does; only they
# can be compared between runs with other weights. The weighted ones say what the optimizer sees.


# %%
def epochs_of(name, split):
    """One point an epoch; means are weighted by the items behind them."""
    curve = curves.series(frame, name, split, by="epoch")
    return curve["x"], curve["y"]


plots.lines(
    "Raw losses: training (solid) and validation (dashed)",
    "epoch",
    "mean over active items",
    {f"{t}{' (val)' if s == 'val' else ''}": epochs_of(f"loss/{t}", s) for t in TERMS for s in ("train", "val")},
)

# %%
weighted = {t: epochs_of(f"weighted/{t}", "val")[1] for t in TERMS}
fig = plots.figure("Validation total, and what it is made of", "epoch", "weighted loss")
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
        assert val_curve.iloc[-1] > train_curve.iloc[-1]  # 55 books are few: training books are learned by heart

# %% [markdown]
# The contrastive term makes up most of the total. So the total tells little about alignment, although retrieval
# depends on alignment most.
#
# ## Active items
#
# **A mean over what?** Not every panel has every loss: a panel alone on its page is no anchor, a silent panel has no
# text to align. Each mean is over the items for which the loss is defined, and the run counts them.

# %%
active = ["panels", "anchors", "aligned", "reconstructed"]
steps = frame[frame["split"] == "train"]
a_pass = len(steps) // config.epochs  # steps an epoch
plots.lines(
    "Active items of each training step, first three epochs",
    "step",
    "items",
    {name: (steps["step"][: 3 * a_pass], steps[f"active/{name}"][: 3 * a_pass]) for name in active},
)

# %%
sums = steps.groupby("epoch")[[f"active/{name}" for name in [*active, "silent_batches"]]].sum().astype(int)
sums

# %%
training = data.panel_set.rows_of(data.pages("train"))
assert (sums["active/panels"] == len(training)).all()  # every panel once an epoch
assert (sums["active/aligned"] < sums["active/panels"]).all()
assert (sums["active/silent_batches"] == 0).all()
several = data.panel_set.count[data.pages("train")] > 1
assert (sums["active/reconstructed"] == several.sum()).all()  # one masked panel a page that has two or more

by_hand = (steps["loss/alignment"] * steps["active/aligned"]).groupby(steps["epoch"]).sum() / sums["active/aligned"]
assert np.allclose(by_hand, epochs_of("loss/alignment", "train")[1])

# %% [markdown]
# The last line is why the counts are kept: an epoch's loss is the sum over items divided by their number. A mean over
# batches would let a batch with three pairs count as much as one with forty.
#
# ## The gradient budget
#
# **Which objective moves the encoder?** Not the one with the largest value, but the one with the largest gradient. At
# every validation the run records the norm of each weighted term's gradient, and the cosine between them.

# %%
fig = plots.lines(
    "Gradient norm of each weighted term on the encoder",
    "epoch",
    "norm",
    {t: epochs_of(f"gradient/{t}", "val") for t in TERMS},
)
fig.update_yaxes(type="log")

# %%
pairs = [(a, b) for i, a in enumerate(TERMS) for b in TERMS[i + 1 :]]
cosines = {f"{a} and {b}": epochs_of(f"gradient_cosine/{a}_{b}", "val") for a, b in pairs}
fig = plots.figure("Do two terms pull the same way?", "epoch", "cosine of their gradients")
for name, (x, y) in cosines.items():
    fig.add_scatter(x=x, y=y, name=name, mode="lines+markers")
fig.update_yaxes(range=[-1, 1])

# %%
norm = {t: epochs_of(f"gradient/{t}", "val")[1] for t in TERMS}
share = pd.DataFrame(
    {
        "of the total loss": {t: weighted[t].iloc[-1] for t in TERMS},
        "of the gradient": {t: norm[t].mean() for t in TERMS},
    }
)
(share / share.sum()).round(2)

# %%
share = share / share.sum()
assert share.loc["alignment", "of the gradient"] > 1.3 * share.loc["alignment", "of the total loss"]
latest = {name: y.iloc[-1] for name, (_, y) in cosines.items()}
assert max(abs(latest["contrastive and alignment"]), abs(latest["reconstruction and alignment"])) < 0.3
assert latest["contrastive and reconstruction"] > 0

# %% [markdown]
# Alignment is a small part of the total and a larger one of the gradient, and it is perpendicular to the other two: it
# asks for something they do not. Contrastive and reconstruction come to pull the same way, since page mates that are
# alike can be predicted from each other; but reconstruction hardly pulls at all. If a cosine were near −1, a weight
# between those two would decide a trade.
#
# ## Which epoch is best?
#
# **By which number should the checkpoint be chosen?** Two candidates: the validation loss, and retrieval in a fixed
# gallery of all validation panels.

# %%
val = frame[frame["split"] == "val"].set_index("epoch")
plots.lines("Validation loss", "epoch", "total", {"total (val)": (val.index, val["loss/total"])}, height=300)

# %%
ways = {"image → text": "retrieval/i2t_r5", "text → image": "retrieval/t2i_r5", "mean of both": "retrieval/mean_r5"}
plots.lines(
    "Retrieval in the gallery of validation panels",
    "epoch",
    "R@5, share of panels",
    {name: (val.index, val[column]) for name, column in ways.items()},
)

# %%
by_loss, by_retrieval = int(val["loss/total"].idxmin()), int(val["retrieval/mean_r5"].idxmax())
print(f"smallest loss in epoch {by_loss}, best retrieval in epoch {by_retrieval}, chosen: step {run.best().step}")

# %%
assert run.best().metric == "retrieval/mean_r5"
assert run.best().step == val.loc[by_retrieval, "step"]
assert val["loss/total"].iloc[-1] > 1.03 * val["loss/total"].min()  # by the loss the last epoch is worse
assert val["retrieval/mean_r5"].iloc[-1] > val.loc[by_loss, "retrieval/mean_r5"] - 0.02  # by retrieval it is not

# %% [markdown]
# After its minimum the loss says that the model gets worse. Retrieval does not. The loss grows when the model becomes
# too sure of itself on panels that it gets wrong; retrieval only asks for the order.
#
# There is a second reason not to choose by the loss. **What happens to it when all weights are divided by ten?**

# %%
model = run.model()
batches = fixed_batches(data.pages("val"), config.batch_pages, config.seed)
rows = {}
for name, factor in (("as trained", 1.0), ("weights / 10", 0.1)):
    model.config = config.replace(**{k: v * factor for k, v in WEIGHTS.items()})
    losses_now = validation.validate(model, data.panel_set, batches)
    found, _ = validation.all_metrics(model, data.panel_set, data.pages("val"))
    rows[name] = {"loss/total": losses_now["loss/total"]} | {
        k: found[k] for k in ("retrieval/mean_r5", "retrieval/mean_r1")
    }
model.config = config
pd.DataFrame(rows).T.round(4)

# %%
assert np.isclose(rows["weights / 10"]["loss/total"], rows["as trained"]["loss/total"] / 10)
assert rows["weights / 10"]["retrieval/mean_r5"] == rows["as trained"]["retrieval/mean_r5"]

# %% [markdown]
# The same weights of the model, a tenth of the loss, the same retrieval. A metric that a setting can change by itself
# must not compare runs with other settings. `select_by` is a retrieval metric by default for this reason.
#
# ## Stop and resume
#
# **Is a run that was stopped the same as one that was not?** Stop another run of the same settings in the middle of the
# third epoch, then go on from its files alone:

# %%
asked = iter(range(5 * a_pass // 2))
stopped = trained("stopped", stop=lambda: next(asked, None) is None)
print([c.step for c in stopped.checkpoints()])

# %%
again = RunFolder.load(WORK / "stopped")
with again.lock():
    trainer = Trainer(again, data)
    trainer.resume(again.load_checkpoint())
    trainer.fit(lambda: False)
whole, resumed = (r.load_checkpoint(config.epochs * a_pass).tensors for r in (run, again))
tensors = [(group, name) for group in whole for name in whole[group]]
equal = [torch.equal(whole[group][name], resumed[group][name]) for group, name in tensors]
print(f"{sum(equal)} of {len(equal)} tensors of model and optimizer are equal, bit for bit")

# %%
assert len(equal) == sum(map(len, resumed.values()))
assert all(equal)
told = [c for c in frame.columns if c not in ("seconds", "panels_per_second")]  # all but the clock
pd.testing.assert_frame_equal(frame[told], again.metrics()[told], check_exact=True)

# %%
both = {"not stopped": frame, "stopped and resumed": again.metrics()}
plots.lines(
    "Training loss of both runs: one line covers the other",
    "step",
    "total",
    {name: tuple(curves.series(f, "loss/total", "train")[["x", "y"]].T.to_numpy()) for name, f in both.items()},
)

# %% [markdown]
# Every weight, every number of the optimizer and every row of the metrics is the same. Batches, masked panels and
# dropout of a step depend on the seed and the step alone, so nothing has to be remembered.
#
# **And if the settings were changed in between?** Then it would be another run, and the command says so:

# %%
try:
    train_command.main(["--run", str(WORK / "stopped"), "--lr", "0.01"])
except ConfigError as error:
    refusal = str(error)
print(refusal.replace(str(WORK), "…"))

# %%
assert f"lr is {config.lr}, asked for 0.01" in refusal

# %% [markdown]
# ## What to take along
#
# - Compare raw losses, never totals of runs with other weights.
# - A mean needs its count. Both are in every row.
# - Gradients, not values, say which objective is at work.
# - The checkpoint is chosen by something that no weight can move.
#
# Next: `04_maps_and_retrieval`.

# %%
workshop.cleanup()
assert not WORK.exists()
