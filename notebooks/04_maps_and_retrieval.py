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
# # Maps and retrieval
#
# *How to look at what a model has learned, and what a map or a score can hide. Takes 30 seconds. To open it, run
# `jupytext --to notebook notebooks/04_maps_and_retrieval.py` and open the result in Jupyter; with the jupytext
# extension, Jupyter opens the .py file directly.*
#
# What has a model learned? This notebook looks at the sample run that ships with the project, on books that it was not
# trained on: first as a map, then panel by panel, then as retrieval in both directions with intervals and chance
# levels, and last at what it gets wrong and why.

# %%
import os
import shutil
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
from stage3 import metrics
from stage3.data import images
from stage3.metrics import neighbors
from stage3.samples import facts
from stage3.search.failures import REASONS, failures

torch.set_num_threads(1)
pd.set_option("display.max_colwidth", 110)
workshop = tempfile.TemporaryDirectory()

copy = shutil.copytree("data/samples/runs/sample", Path(workshop.name) / "sample")  # the one that ships stays as it is
run = stage3.Run.load(copy)
panels = run.panels()  # one row per panel: what it is, and what the model makes of it
print(len(panels), "panels;", ", ".join(panels.columns))

# %% [markdown]
# The samples are drawn by this project, so it is known what each panel shows. The run never saw these facts; here they
# help to judge it.

# %%
shown = pd.DataFrame(facts.read(Path("data/samples"))).rename(columns={"canonical_id": "page_id"})
shown["source_index"] = shown["panel_number"] - 1
shown["kind"] = [row[0]["kind"] if row else "" for row in shown["characters"]]
columns = ["page_id", "source_index", "setting", "time", "kind", "shot", "named"]
known = (
    panels.reset_index(names="row").merge(shown[columns], how="left", on=["page_id", "source_index"]).set_index("row")
)
test = known[known["split"] == "test"]
print(f"{len(test)} test panels of {test['page'].nunique()} pages in {test['book'].nunique()} books")
test[["panel_id", "setting", "time", "kind", "dialogue", "description"]].head(4)

# %% [markdown]
# ## Two maps of the same panels
#
# **Which map should one look at?** PCA is a straight projection. UMAP bends space to keep neighbors together. Both are
# laid out over all panels; shown are the test panels, colored by the place that a panel shows.

# %%
the_map = run.project().set_index("row")
xy = {
    name: the_map[columns].to_numpy()
    for name, columns in (("PCA", ["pca_1", "pca_2"]), ("UMAP", ["umap_dim1", "umap_dim2"]))
}
of_test = the_map.index.isin(test.index)
assert the_map.index[of_test].tolist() == test.index.tolist()

common = test["setting"].value_counts().index[:6].tolist()
place = [s if s in common else "other places" for s in test["setting"]]
said = (test["panel_id"] + "<br>" + test["setting"].astype(str)).tolist()
plots.dots("PCA of the test panels, by place", xy["PCA"][of_test], place, said)

# %%
plots.dots("UMAP of the test panels, by place", xy["UMAP"][of_test], place, said)

# %% [markdown]
# **How far can a map be trusted?** Take the 15 panels that are nearest to a panel in the model's own space. *Neighbors
# kept* is the share of them that are still among its 15 nearest on the map. Random positions would keep 15 in 2,099.

# %%
K = 15
z = run.embeddings().to_numpy()
near = neighbors.exact_neighbors(z, K)[0]
kept = {name: neighbors.shared(near, neighbors.plane_neighbors(xy[name], K)) for name in xy}
chance = K / (len(z) - 1)
summary = pd.Series(
    {name: float(values[of_test].mean()) for name, values in kept.items()} | {"random positions": chance}
)
plots.bars("Neighbors that the map keeps", "share of 15", {"": summary.to_dict()}, height=320)

# %%
gain = metrics.paired_bootstrap((kept["UMAP"] - kept["PCA"])[of_test], test["page"].to_numpy())
assert gain.low > 0  # UMAP keeps more neighbors than PCA: the whole interval is above zero
assert summary["PCA"] > 2 * chance
assert summary.max() < 0.9  # and both lose many
assert abs(float(kept["UMAP"].mean() - the_map["trust"].mean())) < 0.01  # the map has it as the column `trust`

# %% [markdown]
# UMAP keeps many more neighbors than PCA, and both lose a good part. So a map is a place to find candidates, not to
# measure. **Is far apart on the map far apart in the model?** Take all pairs of test panels but the nearest tenth, and
# compare their distance on the map with 1 − cosine in the model:

# %%
z = run.embeddings("test").to_numpy()
first, second = np.triu_indices(len(z), k=1)
unit = z / np.linalg.norm(z, axis=1, keepdims=True)
apart = 1 - (unit[first] * unit[second]).sum(axis=1)
beyond = apart > np.quantile(apart, 0.1)
on_map = np.linalg.norm(xy["UMAP"][of_test][first] - xy["UMAP"][of_test][second], axis=1)
agreement = float(pd.DataFrame({"model": apart[beyond], "map": on_map[beyond]}).rank().corr().iloc[0, 1])
sample = np.random.default_rng(0).choice(np.flatnonzero(beyond), 1500, replace=False)
fig = plots.figure(f"Pairs of panels: rank correlation {agreement:.2f}", "1 − cosine", "map distance")
fig.add_scatter(x=apart[sample], y=on_map[sample], mode="markers", marker={"size": 4, "opacity": 0.5}, showlegend=False)

# %%
assert agreement < 0.8

# %% [markdown]
# Pairs that are equally far apart in the model can lie at very different distances on the map. Read a map for who is
# next to whom, not for how far apart the islands are.
#
# ## Neighbors
#
# **Which panels does the model find alike?** Here are a panel (left) and the nearest panels of other pages, by cosine
# of the fused embeddings:

# %%
searcher = run.searcher()
only_test = stage3.Filters(splits=("test",))


def crops(rows, side=125):
    """The panels' images in a row."""
    table = run.data.table
    boxes = panels.loc[rows, ["x", "y", "w", "h"]].to_numpy(dtype=float)
    paths = table.pages["image_path"].to_numpy()[table.page_of_panel[rows]]
    return plots.side_by_side([images.thumbnail(p, tuple(b), side) for p, b in zip(paths, boxes, strict=True)])


question = int(test.index[test["has_image"] & test["has_text"] & (test["n_panels"] > 3)][7])
found = searcher.search(searcher.from_panel(question, "panel"), "panel", 30, only_test)
elsewhere = [row for row, relation in zip(found.rows, found.relations, strict=True) if relation != "page mate"][:5]
crops([question, *elsewhere])

# %%
known.loc[[question, *elsewhere], ["panel_id", "setting", "time", "kind", "text"]]

# %% [markdown]
# One example proves nothing. Over all test panels: how often does the nearest panel of *another book* show the same
# thing, and how often does any panel of another book?

# %%
order = neighbors.exact_neighbors(z, len(z) - 1)[0]  # every other panel, nearest first
book = test["book"].to_numpy()
nearest = order[np.arange(len(z)), (book[order] != book[:, None]).argmax(axis=1)]
rows = []
for fact in ("setting", "time", "kind", "shot"):
    value = test[fact].to_numpy()
    same = (value[nearest] == value).astype(float)
    base = np.mean([(value[book != b] == v).mean() for v, b in zip(value, book, strict=True)])
    interval = metrics.bootstrap_interval(same, book)
    rows.append((fact, interval.mean, interval.low, interval.high, base, "nearest panel"))
alike = pd.DataFrame(rows, columns=["label", "value", "low", "high", "chance", "group"])
plots.intervals(
    "The nearest panel of another book shows the same … (95 % intervals by book)",
    "share of panels",
    alike,
    mark="any panel",
    height=300,
)

# %%
assert (alike["low"] > alike["chance"])[alike["label"].isin(["setting", "kind"])].all()

# %% [markdown]
# The run saw no such labels. Its frozen backbones know what a forest looks like from other synthetic comics, on which
# they were trained. What this shows is that the fused embedding keeps it, across books with other casts and styles.
#
# ## Retrieval, both ways
#
# **Does an image find its text, and a text its image?** The gallery holds all test panels that have both. Intervals
# come from resampling whole pages, since the panels of a page are not independent.

# %%
report = run.evaluate(split="test")
WAYS = {"i2t": "image → text", "t2i": "text → image"}
names = [(way, k) for k in ("r1", "r5", "r10") for way in WAYS]
table = pd.DataFrame(
    {
        "label": [f"R@{k[1:]}  {WAYS[way]}" for way, k in names],
        "value": [report[f"retrieval/{way}_{k}"] for way, k in names],
        "low": [report["intervals"][f"retrieval/{way}_{k}"][0] for way, k in names],
        "high": [report["intervals"][f"retrieval/{way}_{k}"][1] for way, k in names],
        "chance": [report["chance"][f"retrieval/{way}_{k}"] for way, k in names],
        "group": [WAYS[way] for way, _ in names],
    }
)
plots.intervals(f"Retrieval among {report['gallery']} test panels (95 % intervals by page)", "share found", table)

# %%
gallery = test[test["rank_i2t"].notna()]
hits = {way: (gallery[f"rank_{way}"] <= 5).to_numpy(dtype=float) for way in WAYS}
difference = metrics.paired_bootstrap(hits["t2i"] - hits["i2t"], gallery["page"].to_numpy())
by_book = run.evaluate(split="test", intervals="book")["intervals"]["retrieval/mean_r5"]
print(f"R@5, text → image minus image → text: {difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]")
mean, by_page = report["retrieval/mean_r5"], report["intervals"]["retrieval/mean_r5"]
print(f"mean R@5 {mean:.3f}, interval by page {np.round(by_page, 3)}, by book {np.round(by_book, 3)}")

# %%
assert (table["low"] > 5 * table["chance"]).all()  # both directions, at every depth
assert abs(difference.mean) < 0.1  # neither direction is neglected
assert np.isclose(hits["i2t"].mean(), report["retrieval/i2t_r5"])

# %% [markdown]
# Both directions work about equally well. A number without its chance level says little: in this gallery, R@10 is 3 %
# by chance alone. Within one page the task is easier, and chance is much higher:

# %%
within = pd.DataFrame(
    {
        "found": [report[f"retrieval/within_page_{way}"] for way in WAYS],
        "chance": [report["chance"][f"retrieval/within_page_{way}"] for way in WAYS],
    },
    index=list(WAYS.values()),
)
within.round(3)

# %%
assert abs(report["chance"]["retrieval/i2t_r10"] - 0.03) < 0.005
assert (within["found"] > within["chance"]).all()
assert (within["chance"] > 10 * report["chance"]["retrieval/i2t_r1"]).all()

# %% [markdown]
# **What did training add?** The frozen features know something of pages already, before any training. So does the model
# before its first step, which reads them:

# %%
precision = "retrieval/same_page_r_precision"
baselines = {name: values[precision] for name, values in report["baselines"].items()}
beside = pd.Series({"trained": report[precision]} | baselines | {"chance": report["chance"][precision]})
print(report["added"]["sentence"])
beside.round(3)

# %%
assert report["added"]["answer"] == "adds"
low, high = report["difference"]["frozen"][precision]["book"]
assert 0 < low < beside["trained"] - beside["frozen"] < high
assert beside["chance"] < beside["untrained"] < report["intervals"][precision][0]

# %% [markdown]
# **Does it find typed words?** They go through the text backbone and the model's text adapter, like any text. `target`
# leaves the model alone to answer; without it, panels that say the words come first.

# %%
words = "a wizard in a forest"
typed = run.search(words, target="image", top=10, filters=only_test)
crops(typed["panel"].to_numpy()[:5])

# %%
asked = known.loc[typed["panel"], ["panel_id", "setting", "kind", "text"]]
wizards, forests = (asked["kind"] == "wizard").mean(), (asked["setting"] == "forest").mean()
print(f"wizards among the ten found: {wizards:.0%}, among all test panels {(test['kind'] == 'wizard').mean():.0%}")
print(f"forests among the ten found: {forests:.0%}, among all test panels {(test['setting'] == 'forest').mean():.0%}")

# %%
assert wizards + forests > 2 * ((test["kind"] == "wizard").mean() + (test["setting"] == "forest").mean())

# %% [markdown]
# ## What it gets wrong, and why
#
# **Which panels are found in one direction and missed in the other?** `failures` gives each the first reason that
# applies.

# %%
ranks = panels["rank_i2t"].to_numpy(), panels["rank_t2i"].to_numpy()
wrong = failures(searcher.embedded, *ranks, np.array(test.index))
wrong["text"] = known["text"].reindex(wrong["panel"]).to_numpy()
wrong[wrong["reason"] != "no text"].head(6)[["works", "rank_i2t", "rank_t2i", "reason", "same_text", "text"]]

# %%
one_way = wrong[wrong["works"] != "neither"]
count = one_way.groupby(["works", "reason"]).size().unstack(fill_value=0)
plots.bars(
    "Panels found in one direction only, by reason", "panels", {r: count[r].to_dict() for r in count}, height=340
)

# %%
for reason in one_way["reason"].unique():
    print(f"{reason}: {REASONS[reason]}")

# %%
good = one_way[["rank_i2t", "rank_t2i"]].min(axis=1)
bad = one_way[["rank_i2t", "rank_t2i"]].max(axis=1)
assert ((good <= 5) & (bad > 5)).all()
textless = wrong[wrong["reason"] == "no text"]
assert (known.loc[textless["panel"], "text"] == "").all()

# %% [markdown]
# Most have none of these reasons. **Is the text to blame all the same?** The samples record how many facts about a
# panel its words name. Here is retrieval by that number:

# %%
naming = gallery["named"].map(len).to_numpy()
groups = pd.cut(naming, [-1, 0, 2, 4, 6, 99], labels=["none", "1–2", "3–4", "5–6", "7 or more"])
both_ways = (hits["i2t"] + hits["t2i"]) / 2
pages = gallery["page"].to_numpy()
lines = []
for label in groups.categories:
    chosen = np.asarray(groups == label)
    interval = metrics.bootstrap_interval(both_ways[chosen], pages[chosen])
    lines.append(
        (f"{label}  ({chosen.sum()} panels)", interval.mean, interval.low, interval.high, 5 / len(gallery), "R@5")
    )
named = pd.DataFrame(lines, columns=["label", "value", "low", "high", "chance", "group"])
plots.intervals(
    "R@5 by the number of facts that a panel's words name (95 % intervals by page)", "share found", named, height=340
)

# %%
assert named["value"].iloc[0] < named["value"].iloc[-1] - 0.2
assert named["high"].iloc[0] < named["low"].iloc[-1]

# %% [markdown]
# That sets a ceiling. No model can find a panel by the words “Since when?”. Look at the texts of a collection before
# you look for a better loss.
#
# ## Summary
#
# - A map shows where to look. Its distances are not the model's.
# - A retrieval number needs its gallery, its chance level and its interval.
# - Ask in both directions, and read the failures.
#
# Next: `05_findings`.

# %%
workshop.cleanup()
