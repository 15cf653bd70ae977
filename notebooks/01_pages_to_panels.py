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
# Everything begins with three things on disk: images of pages, a list of them, and files that say where the panels
# are and what is said in them. This notebook reads the sample comics, looks at the table that results, damages a copy
# on purpose to see what becomes of each damage, and ends with a data set of your own.

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

from stage3.config import Config
from stage3.data import images, readers
from stage3.errors import DataError

SAMPLES = Path("data/samples")
workshop = tempfile.TemporaryDirectory()  # everything that this notebook writes; gone when it ends
WORK = Path(workshop.name)
CACHE = str(WORK / "cache")
pd.set_option("display.max_colwidth", 100)

# %% [markdown]
# ## What lies on the disk
#
# A data set is a folder with a `dataset.yaml` that names its parts.

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
# This style is called `vlm`: one JSON a page, as vision-language models write it. Boxes are
# `[ymin, xmin, ymax, xmax]` in thousandths of the page.
#
# ## What the reader makes of it
#
# **What is in the panel table, and does it agree with the image?** The boxes below are drawn from the table, not from
# the file: shares of the page, in reading order.

# %%
config = Config(data=str(SAMPLES), cache_dir=CACHE)
table = readers.load(config)
page = table.pages.set_index("page_id").loc[PAGE]
panels = table.panels.iloc[page.first_panel : page.first_panel + page.n_panels]
plots.framed(images.open_page(page.image_path), panels[["x", "y", "w", "h"]].to_numpy().tolist())

# %%
panels[["panel_id", "order", "x", "y", "w", "h", "dialogue", "description"]].round(3)

# %% [markdown]
# Dialogue and description are kept apart; a setting (`text_parts`) decides what the text encoder reads. `source_index`
# remembers the position in the page's own file, so that a crop, a text and an embedding can never be mixed up when a
# neighbor was dropped.

# %%
source = record["panels"][panels["source_index"].iloc[0]]
ymin, xmin, ymax, xmax = (v / 1000 for v in source["box_2d"])
first = panels.iloc[0]
assert np.allclose([first.x, first.y, first.w, first.h], [xmin, ymin, xmax - xmin, ymax - ymin], atol=1e-6)
assert first.dialogue == source["text_content"][0]["text"]
assert table.texts("dialogue+description")[panels.index[0]].startswith(first.dialogue)  # so that no cut drops it

# %% [markdown]
# ## The data report
#
# **Was anything left out?** Every reading keeps count. The same report is printed by
# `python -m stage3.data check --data data/samples`, and by every training run before it begins.

# %%
report = table.report
print("\n".join(readers.report_lines(report)))

# %%
counts = report.facts["panels_per_page"]
plots.bars("Panels a page", "pages", {"": counts}, height=300).update_xaxes(title="panels", type="category")

# %% [markdown]
# Covers and advertisements are left out by their label. Nothing else is missing: what was listed is what was kept plus
# what was left out for a stated reason.

# %%
assert report.pages_listed == report.pages_kept + sum(report.skipped.values())
assert set(report.skipped) == {"label"}
assert sum(int(n) * pages for n, pages in counts.items()) == len(table)
assert set(table.pages["page_type"]) <= set(config.keep_labels)

# %% [markdown]
# **Which pages will train, and which will judge?** The split is by book and seeded. Pages of one book share characters
# and drawing style, so a page in training and its neighbor in the test would make every number too good.

# %%
splits = pd.DataFrame(report.facts["splits"]).T
splits

# %%
from stage3.config import SPLITS
from stage3.data.splits import split_books

split = split_books(table, config.val_fraction, config.test_fraction, config.split_seed)
books = {name: set(table.pages["book_id"][split == i]) for i, name in enumerate(SPLITS)}
assert not books["train"] & books["test"]
assert not books["train"] & books["val"]
assert sum(map(len, books.values())) == table.pages["book_id"].nunique()

# %% [markdown]
# ## Three styles, one table
#
# **Does it matter which program wrote the panel files?** The same page as a panel detector with text recognition writes
# it (`ocr`: pixels, `[x, y, w, h]`), and as the `aligned` style, one list for all pages, has it:


# %%
def write_dataset(folder, pages, panel_format="vlm", labels=None):
    """A data set folder from {page id: (image file, panel record)}; "aligned" takes one list of records."""
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


def read(folder, **settings):
    """The panel table of a folder, damaged pages and all."""
    return readers.read(Config(data=str(folder), cache_dir=CACHE, **settings))


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
styles = {
    "vlm": read(write_dataset(WORK / "vlm", {PAGE: (image, record)})),
    "ocr": read(write_dataset(WORK / "ocr", {PAGE: (image, ocr)}, "ocr")),
    "aligned": read(write_dataset(WORK / "aligned", {PAGE: (image, aligned)}, "aligned")),
}
pd.DataFrame({name: t.panels["x"].round(3).astype(str) + " · " + t.panels["dialogue"] for name, t in styles.items()})

# %%
for name, other in styles.items():
    for column in "xywh":
        assert np.allclose(other.panels[column], panels[column], atol=1e-4), name
    assert other.panels["dialogue"].tolist() == spoken, name

# %% [markdown]
# The aligned list came in reverse, as match order may, and stands in reading order again. Three files, one table:
# nothing after this point knows which style it was.
#
# ## What damage looks like
#
# **What becomes of a wrong box, a broken file, a lost image?** Eight copies of one page are damaged, each in its own
# way, among eight pages that are left whole.

# %%
sound = {
    p: (table.pages.set_index("page_id").loc[p].image_path, SAMPLES / "panels" / f"{p}.json")
    for p in table.pages["page_id"][:8]
}
pages = {p: (Path(i).resolve(), json.loads(f.read_text(encoding="utf-8"))) for p, (i, f) in sound.items()}


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
damaged = read(write_dataset(WORK / "damaged", pages))
print("\n".join(readers.report_lines(damaged.report)))

# %% [markdown]
# Every damage has a code, a count and the first places where it was seen. Here they are side by side with what was
# done to each page:

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
        "first seen at": {
            p: damaged.report.examples.get(code, ["–"])[0].replace(f"{WORK}{os.sep}damaged{os.sep}panels{os.sep}", "")
            for p, code in SEEN_AS.items()
        },
        "panels kept": {p: int(kept.get(p, 0)) for p in SEEN_AS},
    }
)

# %%
plots.bars(
    "Panels kept of each damaged page (the whole page has " + str(len(panels)) + ")",
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
# A page with one bad box keeps its other panels, and the panel itself stays when it has text: it is then a panel
# without a place. No box is ever replaced by zeros, and no empty "ghost" panel appears.
#
# One damage no reader can see: boxes in pixels of a page smaller than 1000 pixels look exactly like thousandths. Look
# at a few framed pages, as above, before you trust a new source.
#
# **Would a training run start on this?** Above `max_skip_fraction` (1 % of the pages) it refuses and says why.

# %%
try:
    readers.load(Config(data=str(WORK / "damaged"), cache_dir=CACHE))
except DataError as error:
    refusal = str(error)
print(refusal)

# %%
assert "max_skip_fraction" in refusal
assert len(readers.load(Config(data=str(WORK / "damaged"), cache_dir=CACHE, max_skip_fraction=0.5)))

# %% [markdown]
# ## Your own comics
#
# You need images and one panel file a page. Four lines of YAML do the rest. Suppose a manifest that was written on
# another machine, with paths that do not exist here; a cover among the pages; and two junk rows that a file manager
# left:

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
cats = read(mine)
print("\n".join(readers.report_lines(cats.report)))

# %%
assert cats.pages["page_id"].tolist() == ["Cats 01/002", "Cats 01/003"]  # the cover is left out
assert (cats.pages["image_path"] != "").all()  # remapped and found
assert cats.report.counts["junk_row"] == 2
assert cats.pages["book_id"].unique().tolist() == ["Cats 01"]

# %% [markdown]
# The report also says what to do about a single book, which cannot be split. From here on every command takes
# `--data FOLDER`:
#
# ```sh
# python -m stage3.data check --data FOLDER
# python -m stage3.train --run runs/mine --data FOLDER
# ```
#
# ## What to take along
#
# - Everything that reads comics makes the same panel table, and only the table goes on.
# - Nothing is repaired or left out without a code, a count and a path.
# - The split is by book.
#
# Next: `02_three_losses_by_hand`.

# %%
workshop.cleanup()
assert not WORK.exists()
