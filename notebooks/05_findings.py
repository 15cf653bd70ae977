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
# # The findings, one by one
#
# *What was wrong with the original trainer, and what each fault costs. Takes a minute. To open it, run
# `jupytext --to notebook notebooks/05_findings.py` and open the result in Jupyter; with the jupytext extension, Jupyter
# opens the .py file directly.*
#
# A review of the original trainer made six findings (F1 to F6) and three smaller ones (S1 to S3). Each has a section
# here: the question, a small experiment that runs in seconds, and what the full experiment found, with several seeds
# and intervals. `python -m stage3.ablate --findings all --seeds 5`, or `stage3.run_experiments()`, repeats the full
# one.
#
# The small experiments use one seed and few epochs. They show how a fault works. Whether it *costs* anything is for the
# full experiment to say, and the answer is sometimes no.

# %%
import itertools
import os
import sys
import tempfile
from functools import cache
from pathlib import Path

ROOT = next(p for p in (Path.cwd(), *Path.cwd().parents) if (p / "pyproject.toml").is_file())
os.chdir(ROOT)
sys.path[:0] = [str(ROOT), str(ROOT / "notebooks")]

import numpy as np
import pandas as pd
import plots
import torch
from IPython.display import Markdown

import stage3
from stage3 import metrics
from stage3.ablate import evidence
from stage3.ablate.chunked_check import errors_and_memory
from stage3.ablate.terms import METRICS
from stage3.batches import PageSampler, fixed_batches
from stage3.diagnose import diagnose
from stage3.model import embedding, validation
from stage3.train.optimizer import clip, optimizer_tensors
from stage3.train.trainer import Trainer

torch.set_num_threads(1)
pd.set_option("display.max_colwidth", 90)
workshop = tempfile.TemporaryDirectory()
WORK = Path(workshop.name)

# The original trainer's weights and settings, in a smaller model that is validated and saved only at the start and the
# end. It begins at random weights, as the original did; the package's own models begin at the frozen features.
BASE = {"contrastive_weight": 1.0, "reconstruction_weight": 0.5, "alignment_weight": 0.3, "leave_one_out": False}
BASE |= {"dim": 64, "epochs": 4, "batch_pages": 16, "lr": 3e-3, "dropout": 0.1, "feature_noise": 0.0}
BASE |= {"gate_hidden": 128, "validate_every": 1000, "checkpoint_every": 1000, "form": "plain", "lr_panels": 0}
BASE |= {"not_below_start": False, "select_margin": 1.0}  # the last model is looked at, however bad a fault made it
data = stage3.Dataset.load("data/samples", cache_dir=str(WORK / "cache"), progress=False)
number = itertools.count(1)


@cache
def trained(**changes):
    """A run with some settings changed; the same changes are trained once."""
    return stage3.Run.train(WORK / f"run{next(number)}", data, **(BASE | changes))


@cache
def measured(**changes):
    """Every metric of such a run on the test books."""
    return trained(**changes).evaluate(split="test")


EVIDENCE = Path("data/samples/evidence/evidence.parquet")
ROWS = pd.read_parquet(EVIDENCE) if EVIDENCE.is_file() else pd.DataFrame()


def full_experiment(finding):
    """What the full experiment found, by the main metric of each comparison."""
    if ROWS.empty:
        return Markdown(f"*Not run yet: `python -m stage3.ablate --findings {finding} --seeds 5`*")
    lines = [
        {
            "variant": row.fixed,
            "against": row.reviewed,
            "metric": row.label,
            "variant's value": evidence.number(row.fixed_mean, row.metric),
            "other value": evidence.number(row.reviewed_mean, row.metric),
            "difference [95 %]": evidence.difference(row),
            "verdict": row.verdict,
        }
        for row in ROWS[(ROWS["finding"] == finding) & ROWS["headline"]].itertuples()
    ]
    return pd.DataFrame(lines).style.hide(axis="index")


# %% [markdown]
# ## F1 · Validation without randomness
#
# The original trainer's validation called `eval()` on the model and forgot the objectives, whose reconstruction head
# has dropout. **How much noise does that add to the validation loss, and is dropout all there is?** Each epoch of one
# run is validated five times with unchanged weights, for each cause of noise. Both causes can be switched on as
# ablations:

# %%
run = trained(validate_every=1, checkpoint_every=1, keep_checkpoints=0, select_by="loss/total")
val_batches = fixed_batches(data.pages("val"), run.config.batch_pages, run.config.seed)
CAUSES = {
    "no noise": {},
    "dropout": {"validation_dropout": True},
    "random mask": {"validation_random_mask": True},
    "both": {"validation_dropout": True, "validation_random_mask": True},
}
models = [run.model(checkpoint.step) for checkpoint in run.checkpoints() if checkpoint.step > 0]


def validation_losses(switches):
    """(epochs, 5) total validation losses: every epoch's model, five times."""
    for model in models:
        model.config = run.config.replace(**switches)
    return np.array(
        [
            [validation.validate(m, data.panel_set, val_batches, noise_seed=s)["loss/total"] for s in range(5)]
            for m in models
        ]
    )


totals = {cause: validation_losses(switches) for cause, switches in CAUSES.items()}
fig = plots.figure("Validation loss of unchanged weights, five times", "epoch", "total loss")
for i, (cause, values) in enumerate(totals.items()):
    x = np.repeat(np.arange(1, len(values) + 1) + 0.15 * (i - 1.5), values.shape[1])
    fig.add_scatter(x=x, y=values.ravel(), mode="markers", name=cause, marker={"size": 6})
fig

# %%
spread = {cause: float(np.ptp(values, axis=1).mean()) for cause, values in totals.items()}
plots.bars("Largest minus smallest of five validation losses", "mean over epochs", {"": spread}, height=320)

# %%
recorded = run.metrics().query("split == 'val' and step > 0")["loss/total"]
assert np.allclose(totals["no noise"][:, 0], recorded)  # what a run records
assert spread["no noise"] == 0.0  # bit for bit
assert min(spread["dropout"], spread["random mask"]) > 0
assert spread["random mask"] > 0.6 * spread["both"]  # without dropout most of the noise is still there

# %% [markdown]
# The obvious fix, `objectives.eval()`, removes the dropout and leaves most of the noise, because the original trainer
# also masked one random panel per page in validation. Here every panel is masked once, and nothing is random.

# %%
full_experiment("F1")

# %% [markdown]
# ## F2 · The reconstruction target gets no gradient
#
# **What does the encoder do when it may move its own target?** Here it is trained by reconstruction alone, for 10
# epochs, and together with the other two losses, for 4:

# %%
ALONE = {"contrastive_weight": 0.0, "alignment_weight": 0.0, "reconstruction_weight": 1.0, "epochs": 10}
arms = {
    "alone, detached": ALONE,
    "alone, not detached": {**ALONE, "detach_target": False},
    "with the others, detached": {},
    "with the others, not detached": {"detach_target": False},
}
wanted = {
    "mse": "loss/reconstruction",
    "R²": "reconstruction/skill",
    "effective rank": "collapse/effective_rank",
    "cosine within page": "collapse/intra_cosine",
    "R@5": "retrieval/mean_r5",
}
f2 = pd.DataFrame({name: {k: measured(**arm)[v] for k, v in wanted.items()} for name, arm in arms.items()}).T
f2.round(4)

# %%
plots.bars(
    "Effective rank of the test panels (at most 64)",
    "effective rank",
    {"": f2["effective rank"].to_dict()},
    height=340,
)

# %%
alone, moved = f2.loc["alone, detached"], f2.loc["alone, not detached"]
assert moved["mse"] < alone["mse"] / 20  # the error says "better"
assert moved["R²"] < alone["R²"]  # the R² of reconstruction says what happened
assert moved["effective rank"] < 0.6 * alone["effective rank"]
assert moved["cosine within page"] > 0.99
together = f2.loc[["with the others, detached", "with the others, not detached"]]
assert together["effective rank"].min() > 20
assert together["R@5"].diff().abs().max() < 0.06

# %% [markdown]
# With reconstruction alone, a target that is not detached makes the space collapse, and the error gets *smaller*. With
# a contrastive loss of weight 1 nothing collapses, because pushing pages apart holds the space open. The fault stays
# hidden until somebody changes a weight.

# %%
full_experiment("F2")

# %% [markdown]
# ## F3 · Alignment in both directions
#
# **If only image → text is trained, does text → image fall behind?** The weight is 1 here, to make an effect visible:

# %%
BOTH, ONE = {"alignment_weight": 1.0}, {"alignment_weight": 1.0, "symmetric_alignment": False}
halves = {
    name: {
        "image → text": measured(**arm)["loss/alignment_i2t"],
        "text → image": measured(**arm)["loss/alignment_t2i"],
    }
    for name, arm in (("both directions", BOTH), ("image → text only", ONE))
}
plots.bars("Test loss of each direction, by what was trained", "alignment loss", halves, height=340)


# %%
def hits(arm, way):
    """(M,) 1 for each test panel whose match is among the first five, else 0, and (M,) its page."""
    panels = trained(**arm).panels()
    asked = panels[(panels["split"] == "test") & panels[f"rank_{way}"].notna()]
    return (asked[f"rank_{way}"] <= 5).to_numpy(dtype=float), asked["page"].to_numpy()


rows = []
for way, name in (("i2t", "image → text"), ("t2i", "text → image")):
    (two, pages), (one, _) = hits(BOTH, way), hits(ONE, way)
    interval = metrics.paired_bootstrap(two - one, pages)
    rows.append((name, interval.mean, interval.low, interval.high, 0.0, "both − one"))
f3 = pd.DataFrame(rows, columns=["label", "value", "low", "high", "chance", "group"])
plots.intervals(
    "R@5: what the second direction adds (one seed, 95 % intervals by page)",
    "difference of shares",
    f3,
    mark="no difference",
    height=300,
)

# %%
trained_half = halves["image → text only"]["image → text"]
assert (
    trained_half < halves["both directions"]["image → text"] + 0.02
)  # what is trained alone is trained at least as well
assert f3["value"].abs().max() < 0.06

# %% [markdown]
# It hardly does. One direction also pulls image and text together, and both share one space. The symmetric loss is
# right because neither direction is special, not because it gains much here.

# %%
full_experiment("F3")

# %% [markdown]
# ## F4 · Weights are settings
#
# The original trainer had its weights 1, 0.5 and 0.3 in the code. **Are they good weights?** Vary the alignment weight
# alone:

# %%
PLOTTED = {"R@5, both ways": "retrieval/mean_r5", "same-page precision": "retrieval/same_page_r_precision"}


def numbers(report):
    """The numbers of a report that are plotted below."""
    return {name: report[metric] for name, metric in PLOTTED.items()}


weights = (0.0, 0.3, 1.0)
f4 = pd.DataFrame({w: numbers(measured(**({} if w == 0.3 else {"alignment_weight": w}))) for w in weights}).T
plots.lines(
    "Retrieval and page coherence by alignment weight",
    "alignment weight",
    "share",
    {name: (weights, f4[name]) for name in PLOTTED},
)

# %%
assert f4["R@5, both ways"].is_monotonic_increasing
assert f4["R@5, both ways"][1.0] > f4["R@5, both ways"][0.3] + 0.03
assert f4["same-page precision"][1.0] > f4["same-page precision"][0.0] - 0.08

# %% [markdown]
# Raising the weight from 0.3 to 1 improves retrieval a lot and costs little page coherence. In the original trainer
# nobody could try that without editing code. Now each weight is a setting, and a wrong value or name is refused:

# %%
for wrong in ({"alignment_weight": -1}, {"alignment_weight": float("nan")}, {"alignement_weight": 1.0}):
    try:
        stage3.Config.from_mapping(wrong)
    except stage3.ConfigError as error:
        print(error)
    else:
        raise AssertionError(wrong)

# %%
full_experiment("F4")

# %% [markdown]
# ## F5 · Enough signal in every batch
#
# **What is in a batch when data is thin?** Take the training pages, and suppose that 85 % of them had a single panel
# and 85 % no text, as can happen in real collections. Count the image–text pairs in each batch of 16 pages, over 20
# epochs. A pair that is alone in its batch has no negative, so alignment needs at least two:

# %%
rng = np.random.default_rng(0)
pages = data.pages("train")
panels = np.where(rng.random(len(pages)) < 0.85, 1, data.panel_set.count[pages])
pairs = np.where(rng.random(len(pages)) < 0.85, 0, np.minimum(data.panel_set.pairs[pages], panels))


def batches(guaranteed):
    """Pages, multi-panel pages and pairs of every batch."""
    sampler = PageSampler(pages, panels, pairs, batch_pages=16, seed=0, guaranteed=guaranteed, min_multi=2, min_pairs=2)
    at = {int(page): i for i, page in enumerate(pages)}
    rows = []
    for epoch in range(20):
        drawn = sampler.epoch(epoch)
        assert sorted(np.concatenate(drawn)) == sorted(pages)  # every page once per epoch
        rows += [(epoch, (panels[i] > 1).sum(), pairs[i].sum()) for b in drawn for i in [[at[int(p)] for p in b]]]
    return sampler, pd.DataFrame(rows, columns=["epoch", "multi-panel pages", "pairs"])


(promise, guaranteed), (_, shuffled) = batches(True), batches(False)
fig = plots.figure("Image–text pairs per batch", "pairs", "share of batches")
for name, frame in (("shuffled", shuffled), ("guaranteed", guaranteed)):
    share = frame["pairs"].value_counts(normalize=True).sort_index()
    fig.add_bar(x=share.index, y=share, name=name)
fig

# %%
useless = {name: (frame["pairs"] < 2).mean() for name, frame in (("shuffled", shuffled), ("guaranteed", guaranteed))}
print(f"{pairs.sum()} pairs for {promise.n_batches} batches; guaranteed to each: {promise.min_pairs}")
print("batches with fewer than two pairs:", ", ".join(f"{name} {share:.0%}" for name, share in useless.items()))

# %%
assert promise.min_pairs <= pairs.sum() / promise.n_batches  # no more is guaranteed than the data has
assert guaranteed["pairs"].min() >= promise.min_pairs
assert guaranteed["multi-panel pages"].min() >= promise.min_multi
assert useless["guaranteed"] == 0 < useless["shuffled"]
assert (guaranteed.groupby("epoch")["pairs"].sum() == pairs.sum()).all()

# %% [markdown]
# **And a no-signal batch?** In a batch of one page with one panel there are no page mates, nothing to reconstruct and
# nothing to tell a pair apart from. A step on it must change nothing: neither a weight nor the optimizer's moments,
# which would go on moving the weights.

# %%
config = stage3.Config.from_mapping(data.settings() | BASE)
trainer = Trainer(stage3.Run.create(WORK / "no-signal", config), data)


def learned():
    """Every tensor of the model and of the optimizer."""
    return trainer.model.state_dict() | optimizer_tensors(trainer.model, trainer.optimizer)


for step in (1, 2, 3):
    trainer.train_step(data.panel_set.batch(pages[8 * step : 8 * step + 8]), step)
before = {name: tensor.clone() for name, tensor in learned().items()}
single = pages[data.panel_set.count[pages] == 1][:1]
trainer.train_step(data.panel_set.batch(single), 4)
after = learned()
assert all(torch.equal(before[name], after[name]) for name in before)
assert trainer.totals.row(trainer.model.weights)["active/silent_batches"] == 1  # and it is counted

# %%
full_experiment("F5")

# %% [markdown]
# ## F6 · Temperature is a setting
#
# **Is 0.07 a good temperature?** Compare three runs:

# %%
taus = (0.01, 0.07, 0.5)
f6 = pd.DataFrame({tau: numbers(measured(**({} if tau == 0.07 else {"temperature": tau}))) for tau in taus}).T
fig = plots.lines(
    "Retrieval and page coherence by temperature",
    "temperature τ",
    "share",
    {name: (taus, f6[name]) for name in PLOTTED},
)
fig.update_xaxes(type="log", tickvals=taus)

# %%
assert f6["R@5, both ways"][0.5] < f6["R@5, both ways"][0.07] - 0.05
row = trained(temperature=0.01).metrics().iloc[-2]  # a training row records the temperature
assert row["temperature/contrastive"] == row["temperature/alignment"] == 0.01
default = stage3.Config().alignment_temperature
assert stage3.Config(contrastive_temperature=0.05).alignment_temperature == default  # one does not move the other

# %% [markdown]
# At τ = 0.5 a good part of the retrieval is lost. At τ = 0.01, short runs with one seed show little. That the loss is
# exact at a small τ is shown in notebook 02.

# %%
full_experiment("F6")

# %% [markdown]
# ## S1 · Blockwise losses
#
# The matrix of cosines grows with the square of the number of panels. **Do the blockwise losses, which never hold the
# full matrix, give the same numbers, and how much memory do they save?** Both are compared with float64, on the
# embeddings of a trained model:

# %%
embedded = embedding.embed(trained().model(), data.panel_set, data.pages("test"))
s1 = pd.Series(errors_and_memory(embedded))
s1.index = pd.MultiIndex.from_tuples([tuple(name.split("/")[1:]) for name in s1.index])
s1 = s1.unstack()
s1

# %%
plots.bars(
    "Memory for the backward pass, 2,048 panels",
    "floats per panel",
    {"": s1.loc["floats_a_panel"].to_dict()},
    height=300,
)

# %%
assert s1.loc["loss_error", "chunked"] < 1e-5
assert s1.loc["gradient_error", "chunked"] < 1e-5
assert s1.loc["floats_a_panel", "chunked"] < s1.loc["floats_a_panel", "dense"] / 3

# %% [markdown]
# The blockwise losses are as exact as the full matrix and need a fraction of its memory. No negative is left out.

# %%
full_experiment("S1")

# %% [markdown]
# ## S2 · One clip over everything
#
# The original trainer clipped the gradient of the encoder and missed the reconstruction head, which the same optimizer
# moves. **What is left after clipping to norm 1?** One batch, with a large reconstruction weight so that the gradient
# of the head is large:

# %%
model = trained().model()
model.config = model.config.replace(reconstruction_weight=50.0, grad_clip=1.0)
left = {}
for scope in ("all", "encoder", "separate", "none"):
    model.zero_grad()
    model(data.panel_set.batch(pages[:16])).total.backward()
    before_clip = clip(model, model.config.replace(clip_scope=scope))
    norm = {"encoder": 0.0, "head": 0.0}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            norm["encoder" if name.startswith("encoder.") else "head"] += float(parameter.grad.square().sum())
    left[scope] = {part: square**0.5 for part, square in norm.items()}
print(f"gradient norm before clipping: {before_clip:.1f}")
plots.bars(
    "Gradient norm after clipping, by what is clipped",
    "gradient norm",
    {p: {s: left[s][p] for s in left} for p in norm},
).update_yaxes(type="log")

# %%
total = {scope: (parts["encoder"] ** 2 + parts["head"] ** 2) ** 0.5 for scope, parts in left.items()}
assert abs(total["all"] - 1) < 1e-3
assert left["encoder"]["encoder"] < 1.001
assert left["encoder"]["head"] == left["none"]["head"] > 1  # not clipped at all
ratio = {scope: parts["head"] / parts["encoder"] for scope, parts in left.items()}
assert np.isclose(ratio["all"], ratio["none"], rtol=1e-3)  # one norm keeps the direction
assert not np.isclose(ratio["encoder"], ratio["none"], rtol=0.1)

# %% [markdown]
# Only one clip over everything keeps the direction of the step. Whether that makes a difference in the end is another
# question:

# %%
full_experiment("S2")

# %% [markdown]
# ## S3 · A check that sees collapse
#
# **Can one number tell?** Compare four sets of test embeddings: a trained model, reconstruction alone with the target
# detached and not, and the trained model with every panel replaced by the mean of its page.

# %%
z = trained().embeddings("test")
page = trained().panels().set_index("panel_id")["page"].loc[z.index].to_numpy()
points = z.groupby(page).transform("mean")
found = {
    "trained": trained().diagnose(split="test"),
    "reconstruction, detached": trained(**ALONE).diagnose(split="test"),
    "reconstruction, not detached": trained(**arms["alone, not detached"]).diagnose(split="test"),
    "pages made points": diagnose(torch.tensor(points.to_numpy()), torch.tensor(page)),
}
shown = ("collapse/intra_cosine", "collapse/page_gap", "collapse/effective_rank", "retrieval/same_page_r_precision")
s3 = pd.DataFrame({name: {n.split("/")[1]: d.numbers[n] for n in shown} for name, d in found.items()}).T.round(3)
s3["verdict"] = [d.verdict for d in found.values()]
s3

# %%
fig = plots.figure("Four sets of embeddings and their verdicts", "cosine within page", "effective rank", height=420)
for name, row in s3.iterrows():
    fig.add_scatter(
        x=[row["intra_cosine"]], y=[row["effective_rank"]], mode="markers+text", text=[row["verdict"]],
        textposition="bottom center", name=name, marker={"size": 12},
    )  # fmt: skip
fig.update_xaxes(range=[0.7, 1.03])

# %%
assert found["trained"].verdict == "healthy"
assert found["reconstruction, not detached"].verdict == "collapsed"
assert found["pages made points"].verdict == "page-collapsed"
assert found["reconstruction, detached"].verdict == "below its features"
assert [d.exit_code for d in found.values()] == [0, 3, 3, 3]
# the set with the best page gap and the best neighbors has collapsed, and its rank is not low
assert s3["page_gap"].idxmax() == s3["same_page_r_precision"].idxmax() == "pages made points"
assert s3.loc["pages made points", "effective_rank"] > s3.loc["reconstruction, detached", "effective_rank"]

# %% [markdown]
# It cannot. Page gap and same-page precision are best for the set whose pages have become points, and its effective
# rank is higher than that of a set that has not collapsed. The verdict looks at several numbers at once. Reconstruction
# alone with a detached target does not collapse; it loses the page mates that its frozen features show, and the verdict
# says so.

# %%
full_experiment("S3")

# %% [markdown]
# ## The whole review
#
# **Which findings show on these comics?** Here are the main comparisons of the full experiment, by verdict.
# E1 to E10 are further experiments:

# %%
if ROWS.empty:
    overview = Markdown("*Not run yet: `python -m stage3.ablate --findings all --seeds 5 --out data/samples/evidence`*")
else:
    count = ROWS[ROWS["main"]].groupby(["finding", "verdict"]).size().unstack(fill_value=0)
    overview = plots.bars("Main comparisons per finding", "comparisons", {v: count[v].to_dict() for v in count})
    overview.update_layout(barmode="stack")
overview

# %%
for row in ROWS.itertuples():  # a verdict says on which side of zero the whole interval lies, if on one
    interval = metrics.Interval(row.difference, row.low, row.high, row.seeds, 0)
    assert row.verdict == evidence.verdict(METRICS[row.metric].better, interval)

# %% [markdown]
# ## Summary
#
# - A fault can be certain and cost nothing here. It is still a fault: other weights or other data can bring it out.
# - Judge by metrics that the fault itself cannot improve.
# - Where the full experiment says *no effect here*, that holds for these comics. Measure again on yours.
#
# Next: `06_run_to_stage4`.

# %%
workshop.cleanup()
assert not WORK.exists()
