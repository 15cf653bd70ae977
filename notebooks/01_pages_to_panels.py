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
# # From pages to panels
#
# *How files on disk become a panel table, and what happens to damaged ones. Takes 10 seconds. To open it, run
# `jupytext --to notebook notebooks/01_pages_to_panels.py` and open the result in Jupyter; with the jupytext extension,
# Jupyter opens the .py file directly.*
#
# A data set is three things on disk: images of pages, a list of the pages, and files that say where the panels are and
# what is said in them. This notebook reads the synthetic comics, looks at the table that results, damages a copy on
# purpose, and ends with a data set of your own.

# %%
import json
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
from PIL import Image

import stage3
from stage3.data import images
from stage3.data.readers import read, report_lines

SAMPLES = Path("data/samples")
workshop = tempfile.TemporaryDirectory()  # everything that this notebook writes; gone when it ends
WORK = Path(workshop.name)
CACHE = str(WORK / "cache")
pd.set_option("display.max_colwidth", 100)

# %% [markdown]
# ## What is on disk
#
# A data set is a folder with a `dataset.yaml`, which names its parts.

# %%
print((SAMPLES / "dataset.yaml").read_text(encoding="utf-8"))
manifest = pd.read_csv(SAMPLES / "manifest.csv")
manifest.head(3)

# %%
assert all((SAMPLES / path).is_file() for path in manifest["absolute_image_path"])  # relative to the manifest

# %%
PAGE = "book000/p002"
record = json.loads((SAMPLES / "panels" / f"{PAGE}.json").read_text(encoding="utf-8"))
print(json.dumps(record["panels"][0], indent=1))

# %% [markdown]
# This format is called `vlm`: one JSON file per page, as vision-language models write it. A box is
# `[ymin, xmin, ymax, xmax]` in thousandths of the page.
#
# ## The panel table
#
# `Dataset.load` reads the files into one table and finds the features of every panel. **Does the table agree with the
# image?** The frames below are drawn from the table, where a box is in shares of the page and panels are in reading
# order.

# %%
data = stage3.Dataset.load(SAMPLES, cache_dir=CACHE, progress=False)
table = data.table
page = table.pages.set_index("page_id").loc[PAGE]
panels = table.panels.iloc[page.first_panel : page.first_panel + page.n_panels]
plots.framed(images.open_page(page.image_path), panels[["x", "y", "w", "h"]].to_numpy().tolist())

# %%
panels[["panel_id", "order", "x", "y", "w", "h", "dialogue", "description"]].round(3)

# %% [markdown]
# Dialogue and description are kept apart; the setting `text_parts` decides which of them the text backbone reads.
# `source_index` is the panel's position in the page's own file. It ties crop, text and embedding together even where
# another panel of the page was dropped.

# %%
source = record["panels"][panels["source_index"].iloc[0]]
ymin, xmin, ymax, xmax = (v / 1000 for v in source["box_2d"])
first = panels.iloc[0]
assert np.allclose([first.x, first.y, first.w, first.h], [xmin, ymin, xmax - xmin, ymax - ymin], atol=1e-6)
assert first.dialogue == source["text_content"][0]["text"]
assert table.texts("dialogue+description")[panels.index[0]].startswith(first.dialogue)  # first, so that a cut keeps it

# %% [markdown]
# ## The data report
#
# **Was anything left out?** `stage3.check_data` says so without computing features. The command
# `python -m stage3.data check --data data/samples` prints the same report, and so does every run before it trains.

# %%
report = stage3.check_data(SAMPLES, cache_dir=CACHE)
print("\n".join(report_lines(report)))

# %%
counts = report.facts["panels_per_page"]
plots.bars("Panels per page", "pages", {"": counts}, height=300).update_xaxes(title="panels", type="category")

# %% [markdown]
# Covers and advertisements are left out because of their label, and nothing else is missing: the pages listed are the
# pages kept plus the pages skipped for a stated reason.

# %%
assert report.pages_listed == report.pages_kept + sum(report.skipped.values())
assert set(report.skipped) == {"label"}
assert sum(int(n) * pages for n, pages in counts.items()) == len(table)
assert set(table.pages["page_type"]) <= set(data.config.keep_labels)

# %% [markdown]
# **Which pages will train the model, and which will judge it?** The split is by book, and seeded. Pages of one book
# share characters and style, so a book on both sides of the split would make every number too good.

# %%
splits = pd.DataFrame(report.facts["splits"]).T
splits

# %%
books = {name: set(table.pages["book_id"].iloc[data.pages(name)]) for name in splits.index}
assert not books["train"] & books["test"]
assert not books["train"] & books["val"]
assert sum(map(len, books.values())) == table.pages["book_id"].nunique()

# %% [markdown]
# ## Three formats, one table
#
# **Does it matter which program wrote the panel files?** Here is the same page in two other formats: `ocr`, as a panel
# detector with text recognition writes it (pixels, `[x, y, w, h]`), and `aligned`, one list for all pages.


# %%
def write_dataset(folder, pages, panel_format="vlm", labels=None):
    """Make a data set folder of {page id: (image file, panel record)}; "aligned" is one list of records."""
    rows = ["canonical_id,absolute_image_path", *(f"{page_id},{image}" for page_id, (image, _) in pages.items())]
    folder.mkdir(parents=True)
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    parts = {"manifest": "manifest.csv", "panels": "panels", "panel_format": panel_format}
    records = {page_id: record for page_id, (_, record) in pages.items()}
    if panel_format == "aligned":
        parts["panels"] = "panels.json"
        (folder / "panels.json").write_text(json.dumps(list(records.values())), encoding="utf-8")
    else:
        for page_id, record in records.items():
            path = folder / "panels" / f"{page_id}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(record if isinstance(record, str) else json.dumps(record), encoding="utf-8")
    if labels:
        parts["labels"] = "labels.json"
        (folder / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
    (folder / "dataset.yaml").write_text("\n".join(f"{k}: {v}" for k, v in parts.items()), encoding="utf-8")
    return folder


def table_of(folder):
    """The panel table of a folder, however much of it is damaged."""
    return read(stage3.Config(data=str(folder), cache_dir=CACHE))


image = Path(page.image_path).resolve()
width, height = images.page_size(image)
shares = panels[["x", "y", "w", "h"]].to_numpy(dtype=np.float64)
pixels = (shares * [width, height, width, height]).tolist()
spoken = panels["dialogue"].tolist()
ocr = {
    "image_width": width,
    "image_height": height,
    "panels": [{"bbox": box, "text": text} for box, text in zip(pixels, spoken, strict=True)],
}
aligned = ocr | {
    "canonical_id": PAGE,
    "panels": [{"rcnn_bbox": box, "text": text} for box, text in zip(pixels[::-1], spoken[::-1], strict=True)],
}
formats = {
    "vlm": table_of(write_dataset(WORK / "vlm", {PAGE: (image, record)})),
    "ocr": table_of(write_dataset(WORK / "ocr", {PAGE: (image, ocr)}, "ocr")),
    "aligned": table_of(write_dataset(WORK / "aligned", {PAGE: (image, aligned)}, "aligned")),
}
pd.DataFrame({name: t.panels["x"].round(3).astype(str) + " · " + t.panels["dialogue"] for name, t in formats.items()})

# %%
for name, other in formats.items():
    for column in "xywh":
        assert np.allclose(other.panels[column], panels[column], atol=1e-4), name
    assert other.panels["dialogue"].tolist() == spoken, name

# %% [markdown]
# The aligned list was written in reverse, as such lists may be, and is in reading order again. Three formats, one
# table: nothing after this point knows which it was.
#
# ## Damaged pages
#
# **What happens to a wrong box, a broken file, a lost image?** Eight copies of one page are damaged, each in its own
# way, beside eight intact pages.

# %%
intact = {
    p: (table.pages.set_index("page_id").loc[p].image_path, SAMPLES / "panels" / f"{p}.json")
    for p in table.pages["page_id"][:8]
}
pages = {p: (Path(i).resolve(), json.loads(f.read_text(encoding="utf-8"))) for p, (i, f) in intact.items()}


def with_box(box, panel=0):
    """The record with the box of one panel replaced."""
    changed = json.loads(json.dumps(record))
    changed["panels"][panel]["box_2d"] = box
    return changed


DAMAGED = {
    "damaged/reversed": with_box([328, 522, 35, 53]),
    "damaged/sticks out": with_box([35, -80, 328, 522]),
    "damaged/not a number": with_box([35, "wide", 328, 522]),
    "damaged/three values": with_box([35, 53, 328]),
    "damaged/in shares": {**record, "panels": [{"box_2d": [y, x, y + h, x + w]} for x, y, w, h in shares.tolist()]},
    "damaged/broken file": json.dumps(record)[:200],
    "damaged/empty": {"panels": []},
}
pages |= {page_id: (image, changed) for page_id, changed in DAMAGED.items()}
pages["damaged/no image"] = (WORK / "nowhere.png", record)
damaged = table_of(write_dataset(WORK / "damaged", pages))
print("\n".join(report_lines(damaged.report)))

# %% [markdown]
# Each kind of damage has a code, a count, and the first places where it was found. Page by page:

# %%
SEEN_AS = {
    "damaged/reversed": "box_swapped",
    "damaged/sticks out": "box_clamped",
    "damaged/not a number": "box_not_numbers",
    "damaged/three values": "box_shape",
    "damaged/in shares": "boxes_rescaled",
    "damaged/broken file": "page:json_syntax",
    "damaged/empty": "page:no_panels",
    "damaged/no image": "image_missing",
}
kept = damaged.pages.set_index("page_id")["n_panels"]
pd.DataFrame(
    {
        "code": SEEN_AS,
        "first place": {
            p: damaged.report.examples.get(code, ["–"])[0].replace(f"{WORK}{os.sep}damaged{os.sep}panels{os.sep}", "")
            for p, code in SEEN_AS.items()
        },
        "panels kept": {p: int(kept.get(p, 0)) for p in SEEN_AS},
    }
)

# %%
plots.bars(
    f"Panels kept of each damaged page (intact: {len(panels)})",
    "panels",
    {"": {p.removeprefix("damaged/"): int(kept.get(p, 0)) for p in SEEN_AS}},
    height=320,
)

# %%
for page_id, code in SEEN_AS.items():
    assert any(page_id in place for place in damaged.report.examples[code]), (page_id, code)
assert "damaged/broken file" not in kept.index
assert damaged.report.pages_listed == damaged.report.pages_kept + sum(damaged.report.skipped.values())
boxes = damaged.panels[["x", "y", "w", "h"]][damaged.has_box]
assert ((boxes >= 0) & (boxes <= 1)).all(axis=None)
assert not (damaged.panels[["w", "h"]][damaged.has_box] == 0).any(axis=None)

# %% [markdown]
# A page with one bad box keeps its other panels. The panel with the bad box stays too if it has text; it is then a
# panel without a place. No box is ever replaced by zeros, and no empty panel is made up.
#
# No reader can see one mistake: boxes in pixels, on a page smaller than 1000 pixels, look exactly like thousandths.
# Look at a few framed pages, as above, before you trust a new source.
#
# **Would training start on this?** It refuses if more than `max_skip_fraction` of the pages (1 %) are damaged, if more
# than `max_without_image` (10 %) have no image, or if more than `max_without_box` of the panels (50 %) have no box.

# %%
try:
    stage3.Dataset.load(WORK / "damaged", cache_dir=CACHE)
except stage3.DataError as error:
    refusal = str(error)
print(refusal)

# %%
assert "max_skip_fraction" in refusal
limits = {"max_skip_fraction": 0.5, "max_without_image": 0.5}
accepted = stage3.Dataset.load(WORK / "damaged", cache_dir=CACHE, progress=False, **limits)
assert len(accepted.table) == len(damaged)

# %% [markdown]
# ## Your own comics
#
# You need images, one panel file per page, and a `dataset.yaml` of a few lines. Suppose that the manifest was written
# on another machine, so that its paths do not exist here; that one page is a cover; and that a file manager left two
# junk rows:

# %%
mine = WORK / "mine"
for number in (1, 2, 3):
    target = mine / "scans" / f"Cats 01_{number:03d}.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    images.open_page(image).resize((width, height + number), Image.Resampling.LANCZOS).save(target)
    records = mine / "json" / "Cats 01" / f"{number:03d}.json"
    records.parent.mkdir(parents=True, exist_ok=True)
    records.write_text(json.dumps(record), encoding="utf-8")
(mine / "pages.csv").write_text(
    "canonical_id,absolute_image_path\n"
    + "".join(f"Cats 01/{n:03d},E:\\comics\\Cats 01_{n:03d}.png\n" for n in (1, 2, 3))
    + "__MACOSX/._001,E:\\comics\\._001.png\nCats 01/Thumbs.db,E:\\comics\\Thumbs.db\n",
    encoding="utf-8",
)
(mine / "labels.json").write_text(
    json.dumps({"Cats 01": {"001": "cover", "002": "Story", "003": "story"}}), encoding="utf-8"
)
(mine / "dataset.yaml").write_text(
    "name: my cats\nmanifest: pages.csv\npanels: json\nlabels: labels.json\nremap: E:\\comics=scans\n", encoding="utf-8"
)
cats = table_of(mine)
print("\n".join(report_lines(cats.report)))

# %%
assert cats.pages["page_id"].tolist() == ["Cats 01/002", "Cats 01/003"]  # the cover is left out
assert (cats.pages["image_path"] != "").all()  # remapped and found
assert cats.report.counts["junk_row"] == 2
assert cats.pages["book_id"].unique().tolist() == ["Cats 01"]

# %% [markdown]
# The report also says what to do about a single book, which cannot be split. Training on a folder of your own is one
# line, in Python or in a shell:
#
# ```python
# run = stage3.Run.train("runs/mine", FOLDER)
# ```
# ```sh
# python -m stage3.train --run runs/mine --data FOLDER
# ```
#
# ## Summary
#
# - Every format becomes the same panel table, and nothing else is passed on.
# - Nothing is repaired or left out without a code, a count and a path.
# - The split is by book.
#
# Next: `02_three_losses_by_hand`.

# %%
workshop.cleanup()
assert not WORK.exists()
