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
# *How to export embeddings, read them, and know that they are intact. Takes 10 seconds. To open it, run
# `jupytext --to notebook notebooks/06_run_to_stage4.py` and open the result in Jupyter; with the jupytext extension,
# Jupyter opens the .py file directly.*
#
# Stage 4 is the next model. It reads sequences of pages, each as the embeddings of its panels, from a Zarr store. This
# notebook exports the sample run to such a store, reads it back with nothing but Zarr, as Stage 4 does, and then
# damages it in several ways to see whether each damage is found.

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

import stage3

torch.set_num_threads(1)
workshop = tempfile.TemporaryDirectory()
WORK = Path(workshop.name)
run = stage3.Run.load("data/samples/runs/sample")

# %% [markdown]
# ## Writing
#
# The command `python -m stage3.embed --run data/samples/runs/sample --out samples.zarr` does the same.

# %%
OUT = WORK / "samples.zarr"
written = run.export(OUT, tell=print)

# %%
files = pd.DataFrame(
    [(str(p.relative_to(WORK)), p.stat().st_size) for p in sorted(WORK.glob("samples*/**/*")) if p.is_file()]
)
files.columns = ["file", "bytes"]
files

# %%
assert written["finished"]
assert {"samples.metadata.json", "samples.panels.parquet"} <= {p.name for p in WORK.iterdir()}

# %% [markdown]
# ## Reading it as Stage 4 does
#
# **What does Stage 4 see?** Two arrays and a list. Reading them needs no module of this project:

# %%
group = zarr.open_group(str(OUT), mode="r", zarr_format=2)
embeddings, masks = group["panel_embeddings"][:], group["panel_masks"][:]
metadata = json.loads(OUT.with_suffix(".metadata.json").read_text(encoding="utf-8"))
print("panel_embeddings", embeddings.shape, embeddings.dtype, "in chunks of", group["panel_embeddings"].chunks)
print("panel_masks     ", masks.shape, masks.dtype)
print(json.dumps(metadata[0], indent=1))

# %%
shown = plots.figure("Slots that hold a panel, first 60 pages", "row of the store", "slot", height=320)
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
# **Are these the model's embeddings, each in its place?** `stage3.open_store` opens the same arrays and has the
# table that says which panel is in which row and slot. Compare with the model:

# %%
store = stage3.open_store(OUT)
where = store.panels()
where.drop(columns="checkpoint").head(3).T

# %%
expected = run.embeddings().loc[where["panel_id"]].to_numpy()
stored = store.embeddings[:][where["page_row"], where["slot"]]
print("largest difference", float(np.abs(stored - expected).max()))

# %%
assert np.allclose(stored, expected, atol=1e-4)
assert len(where) == masks.sum() == written["panels"]

# %% [markdown]
# **What is in it for Stage 4?** A first look: one vector per page, the mean of its panels, and the cosine of two pages
# by how far apart they are in a book. Are pages that follow each other closer?

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
plots.bars("Cosine of two pages, by their distance", "mean cosine", {"": by_distance}, height=320)

# %%
assert by_distance["1 page apart"] > by_distance["another book"] + 0.05
assert abs(by_distance["1 page apart"] - by_distance["5 pages apart"]) < 0.15

# %% [markdown]
# Pages of one book are closer than pages of two books: they share a cast and a style. How far apart they are in the
# book hardly matters, because every page of the synthetic comics has a scene of its own. In your comics it may.
#
# ## Has it collapsed?
#
# `stage3.diagnose_store` judges any such store, also one that another program wrote. The command is
# `python -m stage3.diagnose --embeddings samples.zarr`.

# %%
diagnosis = stage3.diagnose_store(OUT)
print(diagnosis.verdict, *diagnosis.reasons, sep="\n  ")

# %% [markdown]
# Most of these pages were trained on, so the numbers are better than those of notebook 04.

# %%
assert diagnosis.verdict == "healthy"

# %% [markdown]
# Now a store in which every page has become one point, written with Zarr alone:

# %%
flat = zarr.open_group(str(WORK / "flat.zarr"), mode="w", zarr_format=2)
points = (page_vector[:, None, :] * masks[:, :, None]).astype(np.float32)
flat.create_array("panel_embeddings", data=points, chunks=(100, *points.shape[1:]))
flat.create_array("panel_masks", data=masks, chunks=(100, masks.shape[1]))
collapsed = stage3.diagnose_store(WORK / "flat.zarr")
print(collapsed.verdict, *collapsed.reasons, sep="\n  ")

# %%
assert collapsed.verdict == "page-collapsed"

# %% [markdown]
# ## Damage
#
# Zarr reads a missing chunk as zeros and raises no error. A store of two hundred thousand pages, copied over a network,
# may well lose one. **Does `stage3.verify_store` find every damage?**


# %%
def copy(name):
    """A copy of the store and of the files beside it."""
    for path in list(WORK.glob("samples.*")):
        target = WORK / path.name.replace("samples", name, 1)
        (shutil.copytree if path.is_dir() else shutil.copy2)(path, target)
    return WORK / f"{name}.zarr"


def found(path):
    """Every damage, without the long path."""
    return [damage.replace(f"{WORK}{os.sep}", "") for damage in stage3.verify_store(path)]


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
(WORK / "unfinished.export" / "COMPLETE.json").unlink()

pd.set_option("display.max_colwidth", 150)
stores = {
    "intact": OUT,
    "chunk lost": lost,
    "one bit flipped": flipped,
    "metadata edited": renamed,
    "never finished": unfinished,
}
pd.Series({name: "; ".join(found(path)) or "nothing" for name, path in stores.items()}, name="damage found").to_frame()

# %%
assert not as_zarr_sees_it.any()
assert found(OUT) == []
for name, path in stores.items():
    assert (name == "intact") == (found(path) == []), name

# %% [markdown]
# `stage3.open_store` refuses a store that would give zeros for embeddings:

# %%
for path in (lost, unfinished):
    try:
        stage3.open_store(path)
    except stage3.StorageError as error:
        print(str(error).replace(f"{WORK}{os.sep}", ""), "\n")
    else:
        raise AssertionError(f"{path} was opened")

# %% [markdown]
# **How is it repaired?** The same export writes the damaged chunks again and keeps the intact ones. The result is the
# same, byte for byte:

# %%
repaired = run.export(flipped, tell=print)
names = [p.relative_to(OUT) for p in OUT.rglob("*") if p.is_file()]
equal = [(OUT / n).read_bytes() == (flipped / n).read_bytes() for n in names]
print(f"{sum(equal)} of {len(equal)} files are equal")

# %%
assert repaired["written"] == 1
assert all(equal)
assert found(flipped) == []

# %% [markdown]
# ## Summary
#
# - The store is two arrays and a list; the record beside it makes it trustworthy.
# - Verify after every copy: `stage3.verify_store("X.zarr")`, or `python -m stage3.embed --out X.zarr --verify`.
# - The same export resumes, finishes and repairs.

# %%
workshop.cleanup()
assert not WORK.exists()
