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
# A review of an earlier trainer made six points (F1 to F6) and three smaller ones (S1 to S3). Each has a section here:
# the question, a small experiment that runs in seconds, and what the full experiment found, if its tables are there
# (`python -m stage3.ablate --findings all --seeds 5` makes them, over seeds and with intervals).
#
# The small experiments use one seed and few epochs. They show mechanisms. Whether a fault *costs* anything is for the
# full tables to say, and the answer is sometimes no.

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

from stage3 import losses, metrics
from stage3.ablate import evidence, tables
from stage3.ablate.chunked_check import errors_and_memory
from stage3.ablate.terms import METRICS, REVIEWED
from stage3.batches import PageSampler, fixed_batches, generator, seeded
from stage3.batches.dataset import Dataset
from stage3.config import Config
from stage3.diagnose import diagnose
from stage3.errors import ConfigError
from stage3.model import validation
from stage3.model.objectives import sums
from stage3.runs import RunFolder
from stage3.train import optim
from stage3.train.trainer import Trainer

torch.set_num_threads(1)
pd.set_option("display.max_colwidth", 90)
workshop = tempfile.TemporaryDirectory()
WORK = Path(workshop.name)

NEVER = 1000
BASE = Config(
    data="data/samples", cache_dir=str(WORK / "cache"), dim=64, epochs=6, leave_one_out=False, validate_every=NEVER
).replace(**REVIEWED)
data = Dataset.load(BASE, progress=False)
val_batches = fixed_batches(data.pages("val"), BASE.batch_pages, BASE.seed)
number = itertools.count(1)


@cache
def trained(**changes):
    """A run with some settings changed; the same changes are trained once."""
    run = RunFolder.create(WORK / f"run{next(number)}", BASE.replace(**changes))
    with run.lock():
        trainer = Trainer(run, data)
        trainer.fit(lambda: False)
    return run, trainer.model.eval()


@cache
def measured(**changes):
    """Every metric of such a run on the test books, its validation losses, and the test embeddings."""
    _, model = trained(**changes)
    row, embedded = validation.all_metrics(model, data.panel_set, data.pages("test"))
    return row | validation.validate(model, data.panel_set, val_batches), embedded


EVIDENCE = Path("data/samples/evidence")
ROWS = tables.read_rows(EVIDENCE) if (EVIDENCE / "evidence.parquet").is_file() else []


def full_experiment(finding):
    """The headline rows of the full experiment as a table; a sentence where they do not ship."""
    rows = [r for r in ROWS if r.finding == finding and r.headline]
    if not rows:
        return Markdown(f"*No full experiment here. Make it: `python -m stage3.ablate --findings {finding} --seeds 5`*")
    lines = [
        {
            "fixed form": r.fixed,
            "against": r.reviewed,
            "judged by": r.label,
            "fixed": evidence.number(r.fixed_mean, r.metric),
            "other": evidence.number(r.reviewed_mean, r.metric),
            "difference, 95 % interval": evidence.difference(r),
            "verdict": r.verdict,
        }
        for r in rows
    ]
    return pd.DataFrame(lines).style.hide(axis="index")


# %% [markdown]
# ## F1 · Validation without randomness
#
# The reviewed validation called `eval()` on the model and forgot the objectives, whose reconstruction head has dropout.
# **How much does that blur the validation loss, and is dropout all there is?** Each epoch of one run is validated five
# times with unchanged weights, for each cause of noise:

# %%
run, _ = trained(validate_every=1, keep_checkpoints=0, select_by="loss/total")
CAUSES = {
    "fixed form": (False, False),
    "head's dropout": (True, False),
    "random mask": (False, True),
    "as reviewed": (True, True),
}


def validation_loss(model, seed, dropout, mask):
    """Total validation loss, with the noise of the reviewed form switched on in parts."""
    model.eval()
    model.reconstruction_head.train(dropout)
    parts = {}
    with torch.inference_mode(), seeded(seed, torch.device("cpu")):
        for i, pages in enumerate(val_batches):
            step = model(data.panel_set.batch(pages), generator(seed, "mask", i) if mask else None)
            for name, (value, count) in sums(step).items():
                total, n = parts.get(name, (0.0, 0))
                parts[name] = (total + value, n + count)
    return validation.loss_row({k: v / n for k, (v, n) in parts.items()}, model.weights)["loss/total"]


models = [run.model(checkpoint.step) for checkpoint in run.checkpoints()]
totals = {
    name: np.array([[validation_loss(m, s, *on) for s in range(5)] for m in models]) for name, on in CAUSES.items()
}
fig = plots.figure("Validation loss of unchanged weights, five times", "epoch", "total loss")
for i, (cause, values) in enumerate(totals.items()):
    x = np.repeat(np.arange(1, len(values) + 1) + 0.15 * (i - 1.5), values.shape[1])
    fig.add_scatter(x=x, y=values.ravel(), mode="markers", name=cause, marker={"size": 6})
fig

# %%
spread = {cause: float(np.ptp(values, axis=1).mean()) for cause, values in totals.items()}
plots.bars("From the smallest to the largest of five", "mean over epochs", {"": spread}, height=320)

# %%
recorded = run.metrics().query("split == 'val'")["loss/total"]
assert np.allclose(totals["fixed form"][:, 0], recorded)  # what a run writes down
assert spread["fixed form"] == 0.0  # bit for bit
assert min(spread["head's dropout"], spread["random mask"]) > 0
assert spread["random mask"] > 0.6 * spread["as reviewed"]  # without dropout most of the noise is still there

# %% [markdown]
# The obvious fix, `objectives.eval()`, removes the dropout and leaves nearly all of the noise: the reviewed validation
# also masked one random panel a page. Here every panel is left out once, and nothing is drawn at all.

# %%
full_experiment("F1")

# %% [markdown]
# ## F2 · The reconstruction target gets no gradient
#
# **What does the encoder do when it may move its own target?** Reconstruction alone, 14 epochs:

# %%
ALONE = {"contrastive_weight": 0.0, "alignment_weight": 0.0, "reconstruction_weight": 1.0, "epochs": 14}
arms = {
    "alone, detached": ALONE,
    "alone, not detached": {**ALONE, "detach_target": False},
    "with the others, detached": {},
    "with the others, not detached": {"detach_target": False},
}
wanted = {
    "mse": "loss/reconstruction",
    "skill": "reconstruction/skill",
    "effective rank": "collapse/effective_rank",
    "cosine within a page": "collapse/intra_cosine",
    "R@5": "retrieval/mean_r5",
}
f2 = pd.DataFrame({name: {k: measured(**arm)[0][v] for k, v in wanted.items()} for name, arm in arms.items()}).T
f2.round(4)

# %%
plots.bars(
    "Effective rank of the test panels: directions that are in use",
    "of at most 64",
    {"": f2["effective rank"].to_dict()},
    height=340,
)

# %%
alone, moved = f2.loc["alone, detached"], f2.loc["alone, not detached"]
assert moved["mse"] < alone["mse"] / 20  # the error says "better"
assert moved["skill"] < alone["skill"]  # the skill says what happened
assert moved["effective rank"] < 0.6 * alone["effective rank"]
assert moved["cosine within a page"] > 0.99
together = f2.loc[["with the others, detached", "with the others, not detached"]]
assert together["effective rank"].min() > 20
assert together["R@5"].diff().abs().max() < 0.06

# %% [markdown]
# Alone, the target that moves collapses the space, and its error is the smaller one. Beside a contrastive loss of
# weight 1 nothing collapses: pushing pages apart holds the space open. The fault waits for somebody to change a weight.

# %%
full_experiment("F2")

# %% [markdown]
# ## F3 · Alignment in both directions
#
# **Does training image → text only leave the other direction behind?** Weight 1, so that it can show:

# %%
BOTH, ONE = {"alignment_weight": 1.0}, {"alignment_weight": 1.0, "symmetric_alignment": False}
halves = {
    name: {
        "image → text": measured(**arm)[0]["loss/alignment_i2t"],
        "text → image": measured(**arm)[0]["loss/alignment_t2i"],
    }
    for name, arm in (("both directions", BOTH), ("image → text only", ONE))
}
plots.bars("Validation loss of each half, by what was trained", "loss", halves, height=340)


# %%
def hits(arm, way):
    """(M,) whether each test panel is found among the first five, and (M,) its page."""
    embedded = measured(**arm)[1]
    found = validation.gallery(embedded)
    return (found[way] <= 5).double(), embedded.page_ids[found["rows"]]


rows = []
for way, name in (("i2t", "image → text"), ("t2i", "text → image")):
    (two, pages), (one, _) = hits(BOTH, way), hits(ONE, way)
    interval = metrics.paired_bootstrap(two - one, pages)
    rows.append((name, interval.mean, interval.low, interval.high, 0.0, "both directions minus one"))
f3 = pd.DataFrame(rows, columns=["label", "value", "low", "high", "chance", "group"])
plots.intervals(
    "R@5: what the second direction adds (one seed)", "difference, 95 % by page", f3, mark="no difference", height=300
)

# %%
trained_half = halves["image → text only"]["image → text"]
assert (
    trained_half < halves["both directions"]["image → text"] + 0.02
)  # what is trained alone is trained at least as well
assert f3["value"].abs().max() < 0.06

embedded = measured(**BOTH)[1]
v, t = embedded.image[embedded.aligned], embedded.text[embedded.aligned]
forwards, backwards = losses.info_nce(v, t, 0.07), losses.info_nce(t, v, 0.07)
assert torch.allclose(forwards[0].value, backwards[1].value, atol=1e-5)  # L(v, t) = L(t, v): the halves change places

# %% [markdown]
# Little. One half pulls image and text together too, and both share one space. The symmetric form is right because no
# direction is special, not because it gains much here.

# %%
full_experiment("F3")

# %% [markdown]
# ## F4 · Weights are settings
#
# **Are 1, 0.5 and 0.3 good weights?** The alignment weight alone:

# %%
weights = (0.0, 0.3, 1.0)
f4 = pd.DataFrame({w: measured(**({} if w == 0.3 else {"alignment_weight": w}))[0] for w in weights}).T
plots.lines(
    "What the alignment weight buys, and what it costs",
    "alignment weight",
    "share",
    {
        "R@5, both ways": (weights, f4["retrieval/mean_r5"]),
        "same-page precision": (weights, f4["retrieval/same_page_r_precision"]),
    },
)

# %%
assert f4["retrieval/mean_r5"].is_monotonic_increasing
assert f4["retrieval/mean_r5"][1.0] > f4["retrieval/mean_r5"][0.3] + 0.03
assert f4["retrieval/same_page_r_precision"][1.0] > f4["retrieval/same_page_r_precision"][0.0] - 0.08

# %% [markdown]
# The weight that the reviewed code had fixed at 0.3 is the strongest lever of all, and raising it costs page coherence
# little. Nobody could try, because it was no setting. Now it is one, and a wrong value is refused by name:

# %%
for wrong in ({"alignment_weight": -1}, {"alignment_weight": float("nan")}, {"alignement_weight": 1.0}):
    try:
        Config.from_mapping(wrong)
    except ConfigError as error:
        print(error)
    else:
        raise AssertionError(wrong)

# %%
full_experiment("F4")

# %% [markdown]
# ## F5 · Enough signal in every batch
#
# **What does a batch hold on thin data?** Take the training pages, and suppose that 85 % of them had a single panel and
# 85 % no text, as real collections may. Count the image–text pairs of each batch of 16 pages over 20 epochs. A
# pair alone in its batch has no negative, so two is the least that alignment can learn from:

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
        whole = sampler.epoch(epoch)
        assert sorted(np.concatenate(whole)) == sorted(pages)  # every page once an epoch
        rows += [(epoch, (panels[i] > 1).sum(), pairs[i].sum()) for b in whole for i in [[at[int(p)] for p in b]]]
    return sampler, pd.DataFrame(rows, columns=["epoch", "multi-panel pages", "pairs"])


(promise, guaranteed), (_, shuffled) = batches(True), batches(False)
fig = plots.figure("Image–text pairs of a batch", "pairs", "share of batches")
for name, frame in (("shuffled", shuffled), ("guaranteed", guaranteed)):
    share = frame["pairs"].value_counts(normalize=True).sort_index()
    fig.add_bar(x=share.index, y=share, name=name)
fig

# %%
useless = {name: (frame["pairs"] < 2).mean() for name, frame in (("shuffled", shuffled), ("guaranteed", guaranteed))}
print(f"pairs in all: {pairs.sum()} for {promise.n_batches} batches; promised to each: {promise.min_pairs}")
print("batches with fewer than two:", ", ".join(f"{name} {share:.0%}" for name, share in useless.items()))

# %%
assert promise.min_pairs <= pairs.sum() / promise.n_batches  # what the data cannot give is not promised
assert guaranteed["pairs"].min() >= promise.min_pairs
assert guaranteed["multi-panel pages"].min() >= promise.min_multi
assert useless["guaranteed"] == 0 < useless["shuffled"]
assert (guaranteed.groupby("epoch")["pairs"].sum() == pairs.sum()).all()

# %% [markdown]
# **And a batch with no signal at all?** A page with one panel has no mates, nothing to reconstruct and no other pair to
# align with. A step on it must change nothing: not a weight, and not the optimizer's memory, which would go on pushing.

# %%
trainer = Trainer(RunFolder.create(WORK / "silent", BASE), data)
for step in (1, 2, 3):
    trainer.train_step(data.panel_set.batch(pages[8 * step : 8 * step + 8]), step)
before = {k: v.clone() for k, v in trainer.model.state_dict().items()} | optim.optimizer_tensors(
    trainer.model, trainer.optimizer
)
single = pages[data.panel_set.count[pages] == 1][:1]
trainer.train_step(data.panel_set.batch(single), 4)
after = trainer.model.state_dict() | optim.optimizer_tensors(trainer.model, trainer.optimizer)
assert all(torch.equal(before[k], after[k]) for k in before)
assert trainer.totals.silent == 1  # and it is counted

# %%
full_experiment("F5")

# %% [markdown]
# ## F6 · Temperature is a setting
#
# **Is 0.07 a good temperature?** Three runs:

# %%
taus = (0.01, 0.07, 0.5)
f6 = pd.DataFrame({tau: measured(**({} if tau == 0.07 else {"temperature": tau}))[0] for tau in taus}).T
fig = plots.lines(
    "Retrieval and page coherence by temperature",
    "temperature τ",
    "share",
    {
        "R@5, both ways": (taus, f6["retrieval/mean_r5"]),
        "same-page precision": (taus, f6["retrieval/same_page_r_precision"]),
    },
)
fig.update_xaxes(type="log", tickvals=taus)

# %%
assert f6["retrieval/mean_r5"][0.5] < f6["retrieval/mean_r5"][0.07] - 0.05
cold, _ = trained(temperature=0.01)
row = cold.metrics().iloc[-2]  # a training row: the temperature in use is recorded
assert row["temperature/contrastive"] == row["temperature/alignment"] == 0.01
assert Config.from_mapping({"contrastive_temperature": 0.05}).alignment_temperature == Config().alignment_temperature

# %% [markdown]
# A warm 0.5 costs a good part of what alignment gained. On the cold side short runs of one seed show little. That a
# cold loss is still computed rightly is shown in notebook 02.

# %%
full_experiment("F6")

# %% [markdown]
# ## S1 · The losses by blocks
#
# The matrix of similarities grows with the square of the panels. **Do the losses that never hold it whole give the same
# numbers, and what do they save?** On the embeddings of a trained model, against float64:

# %%
check = errors_and_memory(measured()[1])
s1 = pd.Series(check).rename(lambda k: k.removeprefix("chunked/"))
s1 = s1.rename_axis("what").reset_index(name="value")
s1[["what", "form"]] = s1["what"].str.split("/", expand=True).to_numpy()
s1 = s1.pivot(index="what", columns="form", values="value")
s1

# %%
plots.bars(
    "Kept for the backward pass with 2,048 panels",
    "floats a panel",
    {"": s1.loc["floats_a_panel"].to_dict()},
    height=300,
)

# %%
assert s1.loc["loss_error", "chunked"] < 1e-5
assert s1.loc["gradient_error", "chunked"] < 1e-5
assert s1.loc["floats_a_panel", "chunked"] < s1.loc["floats_a_panel", "dense"] / 3

# %% [markdown]
# The blocks are as exact as the whole matrix, with a part of its memory. No negative is dropped.

# %%
full_experiment("S1")

# %% [markdown]
# ## S2 · One clip over everything
#
# The reviewed clip covered the encoder and missed the reconstruction head, which the same optimizer moves. **What is
# left after a clip to norm 1?** One batch, with a large reconstruction weight so that the head's gradient is large:

# %%
left = {}
for scope in ("all", "encoder", "separate", "none"):
    config = BASE.replace(clip_scope=scope, reconstruction_weight=50.0, grad_clip=1.0)
    model = Trainer(RunFolder.create(WORK / f"clip-{scope}", config), data).model.train(False)
    model(data.panel_set.batch(pages[:16])).total.backward()
    before_clip = optim.clip(model, config)
    norm = {"encoder": 0.0, "head": 0.0}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            norm["encoder" if name.startswith("encoder.") else "head"] += float(parameter.grad.square().sum())
    left[scope] = {part: square**0.5 for part, square in norm.items()}
print(f"global norm before: {before_clip:.1f}")
plots.bars(
    "Gradient norm after the clip, by what the clip covers", "norm", {p: {s: left[s][p] for s in left} for p in norm}
).update_yaxes(type="log")

# %%
total = {scope: (parts["encoder"] ** 2 + parts["head"] ** 2) ** 0.5 for scope, parts in left.items()}
assert abs(total["all"] - 1) < 1e-3
assert left["encoder"]["encoder"] < 1.001
assert left["encoder"]["head"] == left["none"]["head"] > 1  # not clipped at all
ratio = {scope: parts["head"] / parts["encoder"] for scope, parts in left.items()}
assert np.isclose(ratio["all"], ratio["none"], rtol=1e-3)  # one norm keeps the direction; the others bend it
assert not np.isclose(ratio["encoder"], ratio["none"], rtol=0.1)

# %% [markdown]
# Only a clip over everything keeps the direction of the step. Whether that shows in the end is another matter:

# %%
full_experiment("S2")

# %% [markdown]
# ## S3 · A check that sees collapse
#
# **Can one number tell?** Four sets of test embeddings: a trained model, reconstruction alone with the target detached
# and not, and the trained model with every panel replaced by the mean of its page.

# %%
healthy = measured()[1]
page, counts = losses.page_index(healthy.page_ids)
means = torch.zeros(len(counts), healthy.panel.shape[1]).index_add(0, page, healthy.panel) / counts[:, None]
sets = {
    "trained": healthy.panel,
    "reconstruction alone, detached": measured(**ALONE)[1].panel,
    "reconstruction alone, not detached": measured(**arms["alone, not detached"])[1].panel,
    "trained, pages made points": means[page],
}
found = {name: diagnose(z, healthy.page_ids) for name, z in sets.items()}
numbers = ("collapse/intra_cosine", "collapse/page_gap", "collapse/effective_rank", "retrieval/same_page_r_precision")
s3 = pd.DataFrame({name: {n.split("/")[1]: d.numbers[n] for n in numbers} for name, d in found.items()}).T.round(3)
s3["verdict"] = [d.verdict for d in found.values()]
s3

# %%
fig = plots.figure("No axis alone parts good from bad", "cosine within a page", "effective rank", height=420)
for name, row in s3.iterrows():
    fig.add_scatter(
        x=[row["intra_cosine"]], y=[row["effective_rank"]], mode="markers+text", text=[row["verdict"]],
        textposition="bottom center", name=name, marker={"size": 12},
    )  # fmt: skip
fig

# %%
assert found["trained"].verdict == "healthy"
assert found["reconstruction alone, not detached"].verdict == "collapsed"
assert found["trained, pages made points"].verdict == "page-collapsed"
assert [d.exit_code for d in found.values()] == [0, 0, 3, 3]
# the best page gap and the best neighbors belong to a set that has collapsed
assert s3["page_gap"].idxmax() == s3["same_page_r_precision"].idxmax() == "trained, pages made points"

# %% [markdown]
# Reconstruction alone, done right, does not collapse. It learns nothing that pages share, and the verdict says so.

# %%
full_experiment("S3")

# %% [markdown]
# ## What the full experiment says of the whole review
#
# **Which findings show on these comics?** The headline of every main comparison, if the tables are there:

# %%
main = pd.DataFrame([vars(r) for r in ROWS if r.main])
if len(main):
    count = main.groupby(["finding", "verdict"]).size().unstack(fill_value=0)
    overview = plots.bars(
        "Main comparisons of each finding, by verdict", "comparisons", {v: count[v].to_dict() for v in count}
    )
    overview.update_layout(barmode="stack")
else:
    overview = Markdown(
        "*No tables here: run `python -m stage3.ablate --findings all --seeds 5 --out data/samples/evidence`.*"
    )
overview

# %%
for r in ROWS:  # a verdict is nothing but the side of zero on which the whole interval lies
    interval = metrics.Interval(r.difference, r.low, r.high, r.seeds, 0)
    assert r.verdict == evidence.verdict(METRICS[r.metric].better, interval)

# %% [markdown]
# ## What to take along
#
# - A fault can be certain and cost nothing here. It is still a fault: it waits for other weights or other data.
# - Judge by metrics that the fault itself cannot improve.
# - Where the full experiment says *no effect here*, believe it for these comics, and measure again on yours.
#
# Next: `06_run_to_stage4`.

# %%
workshop.cleanup()
assert not WORK.exists()
