"""Small comics with finished runs for tests of the explorer: drawn shapes whose color and form the text names.

Nothing in them is what it need not be, so that a mistake shows: panels without text, without an image, and without
either, which no run embeds (row is not position); files that list panels in another order than they are read; two page
types. The runs of `world` differ in data, seed, weights, temperatures and split.
"""

from __future__ import annotations

import atexit
import csv
import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from stage3.features import __main__ as features_command
from stage3.train import __main__ as train_command

COLORS = {
    "red": (200, 60, 50),
    "blue": (50, 90, 190),
    "green": (60, 150, 80),
    "yellow": (225, 195, 60),
    "purple": (130, 80, 160),
    "gray": (130, 130, 130),
}
SHAPES = ("circle", "square", "stripe", "frame")
SIZE = (150, 200)


def write_comics(
    folder: Path, books: int = 8, pages: int = 4, panels: int = 4, seed: int = 0, drawings: int = 200
) -> Path:
    """A data set folder: manifest, vlm panel files, labels, dataset.yaml. A quarter of the panels are textless.

    Of 24 panels one has no box, and one has neither a box nor a description: it is spoken in, which `make_run` leaves
    out. Files list the panels of a page backwards; every third page is of another type.

    At most `drawings` different pages are drawn; further ones repeat them, so that large sets cost little.

    The first book's first page has a name and text that would do harm as HTML, Markdown or a formula.
    """
    rng = np.random.default_rng(seed)
    (folder / "pages").mkdir(parents=True)
    rows, labels, drawn = [], {}, []
    for b in range(books):
        palette = rng.permutation(list(COLORS))[:3]
        for p in range(pages):
            page_id = f"book{b:03d}/page{p:03d}"
            if b == p == 0:
                page_id = "book000/[x](http:) =1+1 page"
            if len(drawn) < drawings:
                name = f"b{b:03d}p{p:03d}.png"
                drawn.append((name, _draw_page(folder / "pages" / name, panels, palette, rng, evil=b == p == 0)))
            name, entries = drawn[-1] if len(drawn) < drawings else drawn[(b * pages + p) % drawings]
            entries = _bared(entries, first=(b * pages + p) * panels)
            target = folder / "panels" / f"{page_id}.json"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps({"panels": entries, "overall_summary": f"page {p}"}), encoding="utf-8")
            rows.append((page_id, f"pages/{name}"))
            labels[page_id] = "narrative" if (b * pages + p) % 3 == 1 else "story"
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("canonical_id", "absolute_image_path"))
        writer.writerows(rows)
    (folder / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
    (folder / "dataset.yaml").write_text(
        "name: drawn\nmanifest: manifest.csv\npanels: panels\npanel_format: vlm\nlabels: labels.json\n",
        encoding="utf-8",
    )
    return folder


def _bared(entries: list[dict], first: int) -> list[dict]:
    """The entries backwards, a few without a box, a few of these without a description as well."""
    bared = []
    for number, entry in enumerate(entries, start=first):
        if number % 24 in (7, 18):
            entry = {k: v for k, v in entry.items() if k != "box_2d"} | {"text_content": [f"said {number}"]}
            entry["description"] = f"a green circle before {number}" if number % 24 == 18 else ""
        bared.append(entry)
    return bared[::-1]


def _draw_page(path: Path, panels: int, palette: np.ndarray, rng: np.random.Generator, *, evil: bool) -> list[dict]:
    image = Image.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(image)
    entries = []
    height = 1000 // panels
    for i in range(panels):
        color, back = rng.choice(palette), rng.choice(palette)
        shape = str(rng.choice(SHAPES))
        box = [i * height + 10, 20, (i + 1) * height - 10, 980]  # y, x, y, x in thousandths
        x0, y0, x1, y1 = (
            box[1] * SIZE[0] // 1000,
            box[0] * SIZE[1] // 1000,
            box[3] * SIZE[0] // 1000,
            box[2] * SIZE[1] // 1000,
        )
        light = tuple(min(255, c + 60) for c in COLORS[back])
        draw.rectangle((x0, y0, x1, y1), fill=light, outline="black")
        _draw_shape(draw, shape, (x0 + 8, y0 + 5, x1 - int(rng.integers(8, 60)), y1 - 5), COLORS[color])
        textless = rng.random() < 0.25
        text = "" if textless else f"a {color} {shape} before {back}"
        if evil and i == 0:
            text = "<script>alert(1)</script> **bold** =HYPERLINK(1)"
        entries.append({"panel_number": i + 1, "box_2d": box, "description": text, "text_content": []})
    image.save(path)
    return entries


def _draw_shape(draw: ImageDraw.ImageDraw, shape: str, box: tuple[int, int, int, int], fill: tuple[int, ...]) -> None:
    if shape == "circle":
        draw.ellipse(box, fill=fill)
    elif shape == "square":
        draw.rectangle(box, fill=fill)
    elif shape == "frame":
        draw.rectangle(box, outline=fill, width=4)
    else:
        for x in range(box[0], box[2], 10):
            draw.rectangle((x, box[1], x + 4, box[3]), fill=fill)


def make_run(root: Path, name: str, data: Path, **settings: object) -> Path:
    """Train a small run `root/name`, in this process."""
    values = {
        "epochs": 4,
        "dim": 32,
        "batch_pages": 8,
        "workers": 0,
        "cache_dir": str(data.parent / "cache"),
        "text_parts": "description",
    } | settings
    flags = [f"--{k}={v}" for k, v in values.items()]
    train_command.main(["--run", str(root / name), "--data", str(data), "--json", *flags])
    return root / name


def workspace(folder: Path, books: int = 8, pages: int = 4, panels: int = 4, **settings: object) -> Path:
    """A folder to start the explorer in: `data/samples` with comics and one finished run in `data/samples/runs`."""
    return copied(_made(_workspace, books, pages, panels, *settings.items()), folder)


def world(folder: Path) -> Path:
    """`workspace` and in `runs` two more: `second` on the same comics, `other` on those of `data/others`.

    Any two of the three differ in seed, in every weight and temperature, and in the split of their books.
    """
    return copied(_made(_world), folder)


def five_thousand(folder: Path) -> None:
    """As `workspace`, with 5,300 panels on 1,325 pages of 53 books.

    There are 200 drawings. Their features are made from a small set that has each once; one build makes an image again
    for each shard of pages.
    """
    once = write_comics(folder / "once", books=8, pages=25, panels=4)
    cache = folder / "data" / "cache"
    features_command.main(["build", "--data", str(once), "--cache_dir", str(cache), "--text_parts", "description"])
    _workspace(folder, 53, 25, 4, ("epochs", 1))


def copied(made: Path, folder: Path) -> Path:
    """A copy of a folder that one of these made, as if it had been made there.

    What a process keeps of a table beside its features is left out: it belongs to the place of the table.
    """
    shutil.copytree(made, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("tables"))
    for path in (p for name in ("config.yaml", "train.log", "data_report.json") for p in folder.rglob(name)):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(str(made), str(folder)), encoding="utf-8")
    return folder


@functools.cache
def _made(make: Callable[..., None], *arguments: object) -> Path:
    """A folder that `make` filled, once in this process; it is gone when the process ends."""
    made = Path(tempfile.mkdtemp(prefix="explorer-")).resolve()
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    make(made, *arguments)
    return made


def _workspace(folder: Path, books: int, pages: int, panels: int, *settings: tuple[str, object]) -> None:
    data = write_comics(folder / "data" / "samples", books, pages, panels)
    make_run(data / "runs", "first", data, **dict(settings))
    (folder / "runs").mkdir()


def _world(folder: Path) -> None:
    first = {"embed_every": 2, "lr": 0.04, "epochs": 5, "keep_checkpoints": 5}
    _workspace(folder, 8, 4, 4, *first.items())
    data = folder / "data" / "samples"
    others = write_comics(folder / "data" / "others", books=7, pages=3, panels=3, seed=9)
    far = {"contrastive_weight": 2.0, "reconstruction_weight": 0.25, "alignment_weight": 3.0, "test_fraction": 0.3}
    warm = {"contrastive_temperature": 0.4, "alignment_temperature": 0.3}
    make_run(folder / "runs", "second", data, seed=1, split_seed=5, epochs=3, lr=0.03, **far, **warm)
    near = {"contrastive_weight": 0.5, "reconstruction_weight": 1.5, "alignment_weight": 0.75, "lr": 0.02}
    cold = {"contrastive_temperature": 0.2, "alignment_temperature": 0.05}
    make_run(folder / "runs", "other", others, seed=2, split_seed=3, epochs=5, **near, **cold)
