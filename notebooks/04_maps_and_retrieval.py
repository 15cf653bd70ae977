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
# What has a model learned? This notebook looks at the sample run that ships with the project, only on books that it was
# not trained on: first as a map, then panel by panel, then as retrieval in both directions with intervals and chance
# levels, and last at what it gets wrong and why.

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

from stage3 import metrics
from stage3.data import images
from stage3.evaluate import evaluation_report
from stage3.metrics import neighbors
from stage3.model import embedding, validation
from stage3.projection import layouts
from stage3.runs import RunFolder, data, inspection
from stage3.samples import facts
from stage3.search.failures import REASONS, failures
from stage3.search.searcher import Filters, Searcher, result_frame

torch.set_num_threads(1)
pd.set_option("display.max_colwidth", 110)
workshop = tempfile.TemporaryDirectory()

run = RunFolder.load("data/samples/runs/sample")
data = data.load_data(run, {"cache_dir": workshop.name}, progress=False)
model = run.model()
test = embedding.embed(model, data.panel_set, data.pages("test"))
panels = inspection.describe_panels(data, run.config.text_parts)
print(
    f"{len(test.rows)} panels of {len(data.pages('test'))} pages in {panels['book'][test.rows.numpy()].nunique()} books"
)

# %% [markdown]
# The samples are drawn by this project, so it is known what each panel shows. None of this reaches the run; it only
# helps to judge.

# %%
shown = pd.DataFrame(facts.read(Path("data/samples"))).rename(columns={"canonical_id": "page_id"})
shown["source_index"] = shown["panel_number"] - 1
shown["kind"] = [row[0]["kind"] if row else "" for row in shown["characters"]]
columns = ["page_id", "source_index", "setting", "time", "kind", "shot", "named"]
known = (
    panels.reset_index(names="row").merge(shown[columns], how="left", on=["page_id", "source_index"]).set_index("row")
)
known.loc[test.rows[:4].numpy(), ["panel_id", "setting", "time", "kind", "dialogue", "description"]]

# %% [markdown]
# ## Two maps of the same panels
#
# **Which map should one look at?** PCA is a straight projection. UMAP bends, to keep neighbors together. Both from the
# fused embeddings, colored by the place that a panel shows:

# %%
z = test.panel.numpy()
at = known.loc[test.rows.numpy()]
common = at["setting"].value_counts().index[:6].tolist()
place = [s if s in common else "other places" for s in at["setting"]]
said = (at["panel_id"] + "<br>" + at["setting"].astype(str)).tolist()
maps = {"PCA": layouts.pca(z), "UMAP": layouts.umap_layout(z, seed=0)}
plots.dots("PCA", maps["PCA"], place, said)

# %%
plots.dots("UMAP", maps["UMAP"], place, said)

# %% [markdown]
# **How far can a map be trusted?** Take each panel's 15 nearest panels in the model's own space. The share of them that
# are still among its 15 nearest on the map is its *trust*. With random positions it would be 15 in a few hundred.

# %%
K = neighbors.TRUST_K
trust = {name: neighbors.trust(z, xy) for name, xy in maps.items()}
chance = K / (len(z) - 1)
summary = pd.Series({name: float(np.nanmean(values)) for name, values in trust.items()} | {"random positions": chance})
plots.bars("Trust: neighbors that the map keeps", "share of 15", {"": summary.to_dict()}, height=320)

# %%
groups = test.page_ids
gain = metrics.paired_bootstrap(trust["UMAP"] - trust["PCA"], groups)
assert gain.low > 0  # UMAP keeps more neighbors than PCA, beyond doubt
assert summary["PCA"] > 2 * chance
assert summary.max() < 0.9  # and both lose many

# %% [markdown]
# UMAP keeps many more neighbors, and both maps lose a good part. So a map is a place to find candidates, not to
# measure. **Is far apart on the map far apart in the model?** Take every pair of panels that are no neighbors, and
# compare their distance on the map with 1 − cosine:

# %%
first, second = np.triu_indices(len(z), k=1)
unit = z / np.linalg.norm(z, axis=1, keepdims=True)
apart = 1 - (unit[first] * unit[second]).sum(axis=1)
beyond = apart > np.quantile(apart, 0.1)  # the nearest tenth of all pairs left out
on_map = np.linalg.norm(maps["UMAP"][first] - maps["UMAP"][second], axis=1)
ranks = pd.DataFrame({"model": apart[beyond], "map": on_map[beyond]}).rank()
agreement = float(ranks.corr().iloc[0, 1])
sample = np.random.default_rng(0).choice(np.flatnonzero(beyond), 1500, replace=False)
fig = plots.figure(
    f"Pairs of panels: rank correlation {agreement:.2f}", "1 − cosine in the model", "distance on the map"
)
fig.add_scatter(x=apart[sample], y=on_map[sample], mode="markers", marker={"size": 4, "opacity": 0.5}, showlegend=False)

# %%
assert agreement < 0.8

# %% [markdown]
# Pairs that the model holds equally far apart lie anywhere on the map. Read a map for who is beside whom, not for how
# far the islands are from each other.
#
# ## Neighbors
#
# **What does the model take to be alike?** The nearest panels of other pages, by cosine of the fused embeddings:

# %%
searcher = Searcher.of_run(run, data)
only_test = Filters(splits=("test",))


def crops(rows, side=125):
    """The panels' images in a row."""
    boxes = data.table.panels[["x", "y", "w", "h"]].to_numpy(dtype=float)[rows]
    paths = data.table.pages["image_path"].to_numpy()[data.table.page_of_panel[rows]]
    return plots.side_by_side([images.thumbnail(p, tuple(b), side) for p, b in zip(paths, boxes, strict=True)])


question = int(at.index[at["has_image"] & at["has_text"] & (at["n_panels"] > 3)][7])
found = searcher.search(searcher.from_panel(question, "panel"), "panel", 30, only_test)
elsewhere = [row for row, relation in zip(found.rows, found.relations, strict=True) if relation != "page mate"][:5]
crops([question, *elsewhere])

# %%
known.loc[[question, *elsewhere], ["panel_id", "setting", "time", "kind", "text"]]

# %% [markdown]
# One example proves nothing. Over all test panels: how often is the nearest panel of *another book* like the panel in
# what it shows, against how often any panel of another book is?

# %%
cosine = torch.from_numpy(neighbors.exact_neighbors(z, len(z) - 1)[0].astype(np.int64))
book = at["book"].to_numpy()
other_book = book[cosine.numpy()] != book[:, None]
nearest = cosine.numpy()[np.arange(len(z)), other_book.argmax(axis=1)]
rows = []
for fact in ("setting", "time", "kind", "shot"):
    value = at[fact].to_numpy()
    alike = (value[nearest] == value).astype(float)
    base = np.mean([(value[book != b] == v).mean() for v, b in zip(value, book, strict=True)])
    interval = metrics.bootstrap_interval(alike, book)
    rows.append((fact, interval.mean, interval.low, interval.high, base, "nearest panel of another book"))
alike = pd.DataFrame(rows, columns=["label", "value", "low", "high", "chance", "group"])
plots.intervals("Nearest panel of another book shows the same …", "share of panels, 95 % by book", alike, height=300)

# %%
assert (alike["low"] > alike["chance"])[alike["label"].isin(["setting", "kind"])].all()

# %% [markdown]
# The run saw no such labels. Its frozen features brought along what a forest looks like, from other drawn books that
# they were trained on; that the fused embedding keeps it, across books with other casts and styles, is what this shows.
#
# ## Retrieval, both ways
#
# **Does an image find its text, and a text its image?** The gallery holds all test panels that have both. Intervals
# come from resampling whole pages, since panels of a page are not independent.

# %%
report = evaluation_report(run, split="test", data=data)
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
plots.intervals(f"Retrieval among {report['gallery']} test panels", "share of panels found, 95 % by page", table)

# %%
found = validation.gallery(test)
hits = {way: (found[way] <= 5).double() for way in WAYS}
difference = metrics.paired_bootstrap(hits["t2i"] - hits["i2t"], test.page_ids[found["rows"]])
by_book = evaluation_report(run, split="test", data=data, intervals="book")["intervals"]["retrieval/mean_r5"]
print(f"text → image minus image → text, R@5: {difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]")
mean, by_page = report["retrieval/mean_r5"], report["intervals"]["retrieval/mean_r5"]
print(f"mean R@5 {mean:.3f}, by page {np.round(by_page, 3)}, by book {np.round(by_book, 3)}")

# %%
assert (table["low"] > 5 * table["chance"]).all()  # both directions, at every depth
assert abs(difference.mean) < 0.1  # neither direction is neglected
assert hits["i2t"].mean() == report["retrieval/i2t_r5"]

# %% [markdown]
# Both directions work, about equally well. A number without its chance level says little: in a gallery of a few
# hundred, R@10 by luck is already several percent. Within one page the question is easier, and chance is much higher:

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
assert (within["found"] > within["chance"]).all()
assert (within["chance"] > 10 * report["chance"]["retrieval/i2t_r1"]).all()

# %% [markdown]
# **Do typed words work too?** They go through the text backbone and the model's text adapter, like any text.

# %%
words = "a wizard in a forest"
typed = result_frame(searcher, searcher.search(searcher.from_words(words), "image", 10, only_test))
crops(typed["panel"].to_numpy()[:5])

# %%
asked = known.loc[typed["panel"], ["panel_id", "setting", "kind", "text"]]
base = known.loc[test.rows.numpy()]
wizards, forests = (asked["kind"] == "wizard").mean(), (asked["setting"] == "forest").mean()
print(f"wizards among the ten: {wizards:.0%}, among all test panels {(base['kind'] == 'wizard').mean():.0%}")
print(f"forests among the ten: {forests:.0%}, among all test panels {(base['setting'] == 'forest').mean():.0%}")

# %%
assert wizards + forests > 2 * ((base["kind"] == "wizard").mean() + (base["setting"] == "forest").mean())

# %% [markdown]
# ## What it gets wrong, and why
#
# **Which panels are found in one direction and missed in the other?** Each comes with the first reason that applies.

# %%
ranks = inspection.retrieval_columns(data, searcher.embedded, len(data.table))
wrong = failures(searcher.embedded, ranks["rank_i2t"], ranks["rank_t2i"], test.rows.numpy())
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
silent = wrong[wrong["reason"] == "no text"]
assert (known.loc[silent["panel"], "text"] == "").all()

# %% [markdown]
# Most have no reason of this kind. **Is it the text's fault all the same?** The samples record how many facts of a
# panel its words name. Retrieval by that number:

# %%
rows = test.rows[found["rows"]].numpy()
naming = known.loc[rows, "named"].map(len).to_numpy()
groups = pd.cut(naming, [-1, 0, 2, 4, 6, 99], labels=["none", "1–2", "3–4", "5–6", "7 and more"])
both_ways = ((hits["i2t"] + hits["t2i"]) / 2).numpy()
pages = test.page_ids[found["rows"]].numpy()
lines = []
for label in groups.categories:
    chosen = np.asarray(groups == label)
    interval = metrics.bootstrap_interval(both_ways[chosen], pages[chosen])
    lines.append(
        (f"{label}  ({chosen.sum()} panels)", interval.mean, interval.low, interval.high, 5 / len(rows), "R@5")
    )
named = pd.DataFrame(lines, columns=["label", "value", "low", "high", "chance", "group"])
plots.intervals(
    "Facts that a panel's words name, and how often it is found", "R@5, mean of both ways", named, height=340
)

# %%
assert named["value"].iloc[0] < named["value"].iloc[-1] - 0.2
assert named["high"].iloc[0] < named["low"].iloc[-1]

# %% [markdown]
# That is the ceiling. A panel whose words are “Since when?” cannot be found by them, by any model. Look at the texts of
# a collection before you look for a better loss.
#
# ## What to take along
#
# - A map shows where to look. Its distances are not the model's.
# - A retrieval number needs its gallery, its chance level and its interval.
# - Ask both directions, and read the failures.
#
# Next: `05_findings`.

# %%
workshop.cleanup()
