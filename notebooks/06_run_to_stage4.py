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
# # From a run to Stage 4
#
# Stage 4 reads sequences of pages, each as the embeddings of its panels, from a Zarr store. This notebook writes that
# store from the sample run, reads it back with nothing but Zarr, as Stage 4 does, and then breaks it in several ways to
# see whether the damage is found.

# %%
import json
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
import zarr

from stage3 import diagnose
from stage3.embed import __main__ as embed_command
from stage3.embed import stage4
from stage3.errors import StorageError
from stage3.model import embedding
from stage3.runs import RunFolder, data

torch.set_num_threads(1)
workshop = tempfile.TemporaryDirectory()
WORK = Path(workshop.name)
RUN = "data/samples/runs/sample"
CACHE = ["--cache_dir", str(WORK / "cache")]

# %% [markdown]
# ## Writing
#
# The same as `python -m stage3.embed --run data/samples/runs/sample --out samples.zarr`:

# %%
OUT = WORK / "samples.zarr"
code = embed_command.main(["--run", RUN, "--out", str(OUT), *CACHE])

# %%
files = pd.DataFrame(
    [(str(p.relative_to(WORK)), p.stat().st_size) for p in sorted(WORK.glob("samples*/**/*")) if p.is_file()]
)
files.columns = ["file", "bytes"]
files

# %%
assert code == 0
assert {"samples.metadata.json", "samples.panels.parquet"} <= {p.name for p in WORK.iterdir()}

# %% [markdown]
# ## Reading it as Stage 4 does
#
# **What does the next stage see?** Two arrays and a list. No module of this project is needed:

# %%
group = zarr.open_group(str(OUT), mode="r", zarr_format=2)
embeddings, masks = group["panel_embeddings"][:], group["panel_masks"][:]
metadata = json.loads(OUT.with_suffix(".metadata.json").read_text(encoding="utf-8"))
print("panel_embeddings", embeddings.shape, embeddings.dtype, "in chunks of", group["panel_embeddings"].chunks)
print("panel_masks     ", masks.shape, masks.dtype)
print(json.dumps(metadata[0], indent=1))

# %%
shown = plots.figure("Which slots of the first 60 pages hold a panel", "page (row of the store)", "slot", height=320)
shown.add_heatmap(z=masks[:60].T.astype(int), colorscale=[[0, "#F3F5F7"], [1, plots.COLORS[0]]], showscale=False)
shown.update_yaxes(autorange="reversed")

# %%
count = masks.sum(axis=1)
assert embeddings.shape[1] == 16
assert embeddings.dtype == np.float32
assert (count > 0).all()  # Stage 4 gives NaN on a page without panels, so none has a row
assert (masks == (np.arange(16) < count[:, None])).all()  # panels first, in reading order
assert not embeddings[~masks].any()  # the rest is exactly zero
assert [m["sequence_index"] for m in metadata] == list(range(len(masks)))
assert [m["num_panels"] for m in metadata] == count.tolist()

# %% [markdown]
# **Are these the model's embeddings, each in its place?** The Parquet file beside the store says which panel is in
# which row and slot. Embed one book again and compare:

# %%
sidecar = pd.read_parquet(OUT.with_suffix(".panels.parquet"))
sidecar.drop(columns="checkpoint").head(3).T

# %%
run = RunFolder.load(RUN)
data = data.load_data(run, {"cache_dir": str(WORK / "cache")}, progress=False)
model = run.model()
book = data.table.pages["book_id"] == data.table.pages["book_id"].iloc[-1]
again = embedding.embed(model, data.panel_set, np.flatnonzero(book & data.panel_set.usable_pages))
ids = data.table.panels["panel_id"].to_numpy()[again.rows.numpy()]
where = sidecar.set_index("panel_id").loc[ids]
stored = embeddings[where["page_row"], where["slot"]]
print("largest difference", float(np.abs(stored - again.panel.numpy()).max()))

# %%
assert np.allclose(stored, again.panel.numpy(), atol=1e-4)
assert len(sidecar) == masks.sum() == len(data.table)

# %% [markdown]
# **What can Stage 4 make of it?** A first look: one vector a page, the mean of its panels, and the cosine of pages by
# how far apart they are in a book. Are neighboring pages closer?

# %%
page_vector = (embeddings * masks[:, :, None]).sum(axis=1) / count[:, None]
page_vector /= np.linalg.norm(page_vector, axis=1, keepdims=True)
of_book = np.array([m["canonical_id"].split("/")[0] for m in metadata])
cosine = page_vector @ page_vector.T
same = of_book[:, None] == of_book[None, :]
apart = np.abs(np.arange(len(count))[:, None] - np.arange(len(count))[None, :])
by_distance = {
    f"{d} page{'s' if d > 1 else ''} apart": float(cosine[same & (apart == d)].mean()) for d in (1, 2, 3, 4, 5)
}
by_distance["another book"] = float(cosine[~same].mean())
plots.bars("Cosine of two pages", "mean cosine", {"": by_distance}, height=320)

# %%
assert by_distance["1 page apart"] > by_distance["another book"] + 0.05
assert abs(by_distance["1 page apart"] - by_distance["5 pages apart"]) < 0.15

# %% [markdown]
# Pages of a book are closer than pages of two books: one cast, one hand. How far apart they lie in the book makes no
# difference, because every page of these drawn books has a scene of its own. In your comics it may.
#
# ## Is it fit to hand on?
#
# `python -m stage3.diagnose --embeddings samples.zarr` judges any such store, also one that another program wrote.

# %%
panel, page_ids, _ = stage4.sample_panels(OUT, most=20_000)
verdict = diagnose.diagnose(panel, page_ids)
print(verdict.verdict, *verdict.reasons, sep="\n  ")

# %% [markdown]
# (Most of these pages were trained on, so its numbers are better than those of notebook 04.)

# %%
assert verdict.exit_code == 0

# %% [markdown]
# And a store in which every page has become one point:

# %%
flat = torch.from_numpy(page_vector)[page_ids]
print(diagnose.diagnose(flat, page_ids).verdict)
assert diagnose.diagnose(flat, page_ids).exit_code == 3

# %% [markdown]
# ## Damage
#
# Zarr reads a chunk that is missing as zeros, without a word. A store of two hundred thousand pages, copied over a
# network, may well lose one. **Is every damage found?**


# %%
def copy(name):
    """A copy of the store and of all that lies beside it."""
    for path in list(WORK.glob("samples.*")):
        target = WORK / path.name.replace("samples", name, 1)
        (shutil.copytree if path.is_dir() else shutil.copy2)(path, target)
    return WORK / f"{name}.zarr"


def found(path):
    """What `--verify` finds, without the long path."""
    return [d.replace(f"{WORK}{os.sep}", "") for d in stage4.damages(stage4.Places.of(path))]


lost = copy("lost")
(lost / "panel_embeddings" / "2.0.0").unlink()
as_zarr_sees_it = zarr.open_group(str(lost), mode="r", zarr_format=2)["panel_embeddings"][200:300]
print("Zarr alone: no error, all zeros:", not as_zarr_sees_it.any())

flipped = copy("flipped")
chunk = flipped / "panel_embeddings" / "1.0.0"
content = bytearray(chunk.read_bytes())
content[len(content) // 2] ^= 1  # a single bit
chunk.write_bytes(content)

renamed = copy("renamed")
metadata_path = renamed.with_suffix(".metadata.json")
metadata_path.write_text(
    metadata_path.read_text(encoding="utf-8").replace("book000/p001", "book000/p100", 1), encoding="utf-8"
)

unfinished = copy("unfinished")
stage4.Places.of(unfinished).complete.unlink()

pd.set_option("display.max_colwidth", 150)
stores = {
    "whole": OUT,
    "a chunk lost": lost,
    "one bit flipped": flipped,
    "metadata edited": renamed,
    "never finished": unfinished,
}
pd.Series(
    {name: "; ".join(found(path)) or "nothing" for name, path in stores.items()}, name="what --verify finds"
).to_frame()

# %%
assert not as_zarr_sees_it.any()
assert found(OUT) == []
for name, path in stores.items():
    assert (name == "whole") == (found(path) == []), name

# %% [markdown]
# Reading is refused where it would give zeros for embeddings:

# %%
for path in (lost, unfinished):
    try:
        stage4.read_store(path)
    except StorageError as error:
        print(str(error).replace(f"{WORK}{os.sep}", ""), "\n")
    else:
        raise AssertionError(f"{path} was opened")

# %% [markdown]
# **And then?** The command that wrote the store makes good what is damaged and keeps what is whole. The result is the
# same, byte for byte:

# %%
code = embed_command.main(["--run", RUN, "--out", str(flipped), *CACHE])
names = [p.relative_to(OUT) for p in OUT.rglob("*") if p.is_file()]
equal = [(OUT / n).read_bytes() == (flipped / n).read_bytes() for n in names]
print(f"{sum(equal)} of {len(equal)} files are equal")

# %%
assert code == 0
assert all(equal)
assert found(flipped) == []

# %% [markdown]
# ## What to take along
#
# - The store is two arrays and a list; the record beside it is what makes it trustworthy.
# - Run `python -m stage3.embed --out X.zarr --verify` after every copy.
# - The same command repairs, resumes and finishes.

# %%
workshop.cleanup()
assert not WORK.exists()
