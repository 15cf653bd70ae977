"""Every step from the files to the explorer, at growing sizes: seconds, panels per second, peak memory, exponents.

    python -m benchmarks.scale --pages 1000 10000 100000         some minutes; 2 GB of disk
    python -m benchmarks.scale --pages 1000000                   two hours or three on two cores; 40 GB of disk
    python -m benchmarks.scale --show --update docs/scale.md     the table and the plot of all that was measured

Makes a manifest and one aligned panel file with five panels per page on average and no pixels. Frozen features are rows
of a small random bank, of the sample run's sizes. Each step runs in a process of its own, which reads what the one
before left on the disk. CPU seconds are of the step itself, without the start of Python; peak memory is of the whole
process (VmHWM, mapped files included). Results are added to `--work`/results.json, the latest of each step and size.
With `--part 0.05` only the beginning of the epoch and of the store is made, and the table says so. With
`--characters 300` panels have longer texts; such results stand beside the table, under a name of their own.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
BANK, TEXTS = 50_000, 20_000
CHARACTERS = 45  # of a text, about, unless told otherwise
IMAGE, TEXT = 128, 224  # sizes of the sample run's features
STEPS = (
    *("index", "index again", "train", "validate", "embed", "search"),
    *("explorer, first", "explorer, no map", "map", "explorer, again"),
)
WHAT = {
    "index": "panel table from a manifest and one panel file",
    "index again": "the same from the cache",
    "train": "one epoch of 32 pages per batch",
    "validate": "losses of all validation pages, retrieval of at most 5,000",
    "embed": "Stage 4's store",
    "search": "embeddings of images and texts, then 10 queries",
    "explorer, first": "first view, all of it measured, embedded for principal components",
    "explorer, no map": "first view in a new server",
    "map": "embeddings, UMAP of 20,000 panels, the others placed",
    "explorer, again": "first view in a new server, with the map",
}
START, END = "<!-- scale:start -->", "<!-- scale:end -->"
RESIDENT_MB, VIEW_S, TRAIN_SHARE = 2000.0, 10.0, 0.6


# --- the data


def make(folder: Path, pages: int, characters: int = CHARACTERS) -> None:
    """A manifest, one aligned panel file and a bank of features; books of 100 pages, pages of 1 to 9 panels.

    Texts have about so many characters; 6 of 7 panels have one.
    """
    if (folder / "complete").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    words = [f"w{rank}" for rank in range(3000)]
    said = round(8 * characters / CHARACTERS)  # words
    texts = [" ".join(words[int(w)] for w in rng.integers(0, 3000, said)) for _ in range(TEXTS)]
    counts = rng.integers(1, 10, pages)
    number = 0
    with (folder / "manifest.csv").open("w", encoding="utf-8") as manifest, (folder / "panels.json").open("w") as file:
        manifest.write("canonical_id,absolute_image_path\n")
        file.write("[\n")
        for page in range(pages):
            page_id = f"Series {page // 2000}/vol{page // 100}/{page % 100:04d}"
            manifest.write(f"{page_id},E:\\comics\\{page}.jpg\n")
            n = int(counts[page])
            panels = []
            for i in range(n):
                box = [40, 30 + 2900 * i // n, 1900, 2800 // n]
                text = texts[(number + i) * 31 % TEXTS] if (number + i) % 7 else ""
                panels.append({"rcnn_bbox": box, "text": text})
            number += n
            value = {"canonical_id": page_id, "image_width": 1988, "image_height": 3057, "panels": panels}
            file.write(json.dumps(value) + (",\n" if page + 1 < pages else "\n"))
        file.write("]\n")
    for name, rows, dim in (("image", BANK, IMAGE), ("text", TEXTS, TEXT)):
        np.save(folder / f"{name}.npy", rng.normal(size=(rows, dim)).astype(np.float16))
    (folder / "complete").touch()


@dataclass(frozen=True)
class Bank:
    """Rows of a small matrix, again and again."""

    array: np.ndarray

    @property
    def dim(self) -> int:
        """Columns."""
        return int(self.array.shape[1])

    def take(self, rows: np.ndarray) -> np.ndarray:
        """(n, dim) float32."""
        return self.array[rows % len(self.array)].astype(np.float32)


def features(folder: Path, table: Any) -> Any:
    """A feature set over the bank: an image for each panel, a text where the table has one."""
    from stage3.features import FeatureReport, FeatureSet

    rows = np.arange(len(table))
    has_text = (table.panels["dialogue"] != "").to_numpy()
    return FeatureSet(
        rows * np.int64(2_654_435_761) % 2**32 // 64,
        np.where(has_text, rows * 31 % TEXTS, -1),
        (IMAGE,),
        "bank",
        FeatureReport(),
        Bank(np.load(folder / "image.npy")),
        Bank(np.load(folder / "text.npy")),
    )


def config_of(folder: Path) -> Any:
    """The settings of a run on this data."""
    from stage3.config import Config

    values = {"manifest": folder / "manifest.csv", "panels": folder / "panels.json", "cache_dir": folder / "cache"}
    settings = {name: str(path) for name, path in values.items()} | {"panel_format": "aligned", "epochs": 1}
    return Config.from_mapping(settings | {"max_without_image": 1.0, "device": "cpu", "threads": 1})


def with_bank(folder: Path) -> None:
    """Whoever loads features in this process gets the bank's."""
    import stage3.features

    stage3.features.load_or_build = lambda table, *_, **__: features(folder, table)  # type: ignore[assignment]


def loaded(folder: Path) -> tuple[Any, Any]:
    """The run and its data set, as commands load them."""
    from stage3.runs import RunFolder
    from stage3.runs.data import load_data

    with_bank(folder)
    run = RunFolder.load(folder / "runs" / "first")
    return run, load_data(run, progress=False)


# --- the steps: each prepares, and returns what is measured


def index(folder: Path) -> Callable[[], dict[str, Any]]:
    """The panel table, from the files the first time and from the cache the second."""
    from stage3.data import readers

    config = config_of(folder)

    def work() -> dict[str, Any]:
        table = readers.load(config)
        return {"panels": len(table), "pages": len(table.pages)}

    return work


def train(folder: Path, part: float = 1.0) -> Callable[[], dict[str, Any]]:
    """Steps of one epoch, without validation; the setting up of the trainer is in the memory, not in the time."""
    from stage3.batches.dataset import Dataset
    from stage3.data import readers
    from stage3.data.splits import split_books
    from stage3.runs import RunFolder

    config = config_of(folder)
    shutil.rmtree(folder / "runs", ignore_errors=True)
    if folder.name == "sample":
        data = Dataset.load(str(ROOT / "data" / "samples"))
    else:
        table = readers.load(config)
        split = split_books(table, config.val_fraction, config.test_fraction, config.split_seed)
        data = Dataset(table, features(folder, table), split)
    return lambda: epoch(RunFolder.create(folder / "runs" / "first", config), data, part)


def epoch(run: Any, data: Any, part: float) -> dict[str, Any]:
    """Train one epoch or its first part (three on the sample) and save a checkpoint."""
    from stage3.batches.sampler import steps_from
    from stage3.train.trainer import Trainer

    with run.lock(), run.threads():
        begin = time.process_time()
        trainer = Trainer(run, data)
        setting_up = time.process_time() - begin
        last = math.ceil(trainer.sampler.n_batches * (3 if len(data.table) < 3000 else part))
        panels, start, cpu = 0, time.monotonic(), time.process_time()
        for step, _, pages in steps_from(trainer.sampler, 0):
            if step > last:
                break
            batch = data.panel_set.batch(pages)
            trainer.train_step(batch, step)
            trainer.step = step
            panels += len(batch)
        spent, cpu = time.monotonic() - start, time.process_time() - cpu
        trainer.checkpoint()
    return {"panels": panels, "steps": last, "seconds": spent, "cpu": cpu, "setting up CPU s": setting_up}


def validate(folder: Path) -> Callable[[], dict[str, Any]]:
    """What a validation during training measures."""
    from stage3.model import validation
    from stage3.train.trainer import Trainer

    run, data = loaded(folder)
    with run.lock():
        trainer = Trainer(run, data)

    def work() -> dict[str, Any]:
        with run.threads():
            validation.validate(trainer.model, data.panel_set, trainer.val_batches)
            row = validation.all_metrics(trainer.model, data.panel_set, trainer.ranked_pages)[0]
        panels = int(data.panel_set.usable_count[trainer.val_pages].sum())
        return {"panels": panels, "gallery": row["retrieval/gallery"]}

    return work


def embed(folder: Path, part: float = 1.0) -> Callable[[], dict[str, Any]]:
    """Stage 4's store, or the chunks of its first part; deleted afterwards."""
    from stage3.embed import export_run

    run, data = loaded(folder)

    def work() -> dict[str, Any]:
        shutil.rmtree(folder / "out", ignore_errors=True)
        (folder / "out").mkdir()
        step, pages = run.checkpoints()[-1].step, len(data.pages("all"))
        written = None if part == 1 else f"0:{math.ceil(part * pages / 100) * 100}"
        found = export_run(run, folder / "out" / "x.zarr", checkpoint=step, data=data, pages=written)
        size = sum(path.stat().st_size for path in (folder / "out").rglob("*") if path.is_file())
        shutil.rmtree(folder / "out")
        return {"panels": round(found["panels"] * part), "MB on disk": size / 1e6}

    return work


def project(folder: Path) -> Callable[[], dict[str, Any]]:
    """The map, embeddings included."""
    import pyarrow.parquet as pq

    from stage3.projection import project_run

    run, data = loaded(folder)
    import stage3.runs.data

    stage3.runs.data.load_data = lambda *_, **__: data  # read already

    def work() -> dict[str, Any]:
        path, _ = project_run(run, checkpoint=run.checkpoints()[-1].step, align=False, again=True)
        frame = pq.read_table(path, columns=["fitted", "trust"]).to_pandas()
        return {"panels": len(frame), "fitted": int(frame["fitted"].sum()), "trust": float(frame["trust"].mean())}

    return work


def search(folder: Path) -> Callable[[], dict[str, Any]]:
    """Ten queries by panels in both directions, and the embeddings that they need."""
    from stage3.search import Searcher

    run, data = loaded(folder)

    def work() -> dict[str, Any]:
        cpu = time.process_time()
        searcher = Searcher.of_run(run, data, checkpoint=run.checkpoints()[-1].step)
        rows = np.flatnonzero(data.panel_set.present.all(axis=1))[:: max(1, len(data.table) // 12)][:10]
        queries = [(searcher.from_panel(int(r), "image"), searcher.from_panel(int(r), "text")) for r in rows]
        searcher.search(queries[0][0], "text")
        made = time.process_time() - cpu
        start, cpu = time.monotonic(), time.process_time()
        for image, text in queries:
            searcher.search(image, "text")
            searcher.search(text, "image")
        spent, cpu = time.monotonic() - start, time.process_time() - cpu
        return {"panels": len(data.table), "a query, s": spent / 20, "a query, CPU s": cpu / 20, "before, CPU s": made}

    return work


def explorer(folder: Path) -> Callable[[], dict[str, Any]]:
    """The first view, as a new server makes it; the script of the page runs as for a browser.

    The child that it starts where there is no map does nothing: "map" is a step of its own.
    """
    from streamlit.testing.v1 import AppTest  # noqa: TID251

    with_bank(folder)
    os.environ["STAGE3_RUNS"] = str(folder / "runs")
    os.chdir(folder)

    def work() -> dict[str, Any]:
        from app.store import loaders, map_jobs

        map_jobs._spawn = lambda _: subprocess.Popen([sys.executable, "-c", ""])
        app = AppTest.from_file(str(ROOT / "app" / "ui.py"), default_timeout=7200)
        app.query_params["view"] = "map"
        app.query_params["run"] = "runs/first"
        app.run()
        assert not app.exception, app.exception
        said = [element.value for element in app.text if element.value.startswith("showing ")]
        assert said, "the first view holds no map"
        return {"panels": len(loaders.panel_frame(loaders.entry("runs/first").run)), "said": said[0]}

    return work


IN_PART = ("train", "embed")  # steps of which the beginning can be measured
WORKS: dict[str, Callable[..., Callable[[], dict[str, Any]]]] = {
    "index": index,
    "index again": index,
    "train": train,
    "validate": validate,
    "embed": embed,
    "search": search,
    "explorer, first": explorer,
    "explorer, no map": explorer,
    "map": project,
    "explorer, again": explorer,
}


def child(step: str, folder: Path, part: float) -> None:
    """Run one step in this process and print what it took."""
    from benchmarks.search import peak_mb

    work = WORKS[step](folder, part) if step in IN_PART else WORKS[step](folder)
    ready = peak_mb()
    start, cpu = time.monotonic(), time.process_time()
    found = work()
    measured = {"seconds": time.monotonic() - start, "cpu": time.process_time() - cpu}
    measured["part"] = part if step in IN_PART else 1.0
    print("RESULT " + json.dumps(measured | found | {"peak_mb": peak_mb(), "ready_mb": ready}), flush=True)


# --- all of them


def measure(step: str, folder: Path, seconds: float, part: float = 1.0) -> dict[str, Any]:
    """A step in a process of its own.

    Raises:
        RuntimeError: it failed; the end of what it said is in the error.
    """
    command = [sys.executable, "-m", "benchmarks.scale", "--child", step, "--work", str(folder), "--part", str(part)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise RuntimeError(f"{step} at {folder} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    load = Path("/proc/loadavg")
    about = load.read_text(encoding="utf-8").split()[0] if load.exists() else "unknown"
    found: dict[str, Any] = json.loads(lines[-1].removeprefix("RESULT ")) | {"load": about}
    return found


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Slope of log(value) over log(size), by least squares; NaN with fewer than three sizes.

    >>> round(exponent([1, 10, 100], [2, 20, 200]), 3)
    1.0
    """
    if len(sizes) < 3:
        return float("nan")
    return float(np.polyfit(np.log(sizes), np.log(np.maximum(values, 1e-9)), 1)[0])


def cpu_of_all(row: dict[str, Any]) -> float:
    """CPU seconds of a whole step; NaN where they do not follow from those of the part that was measured."""
    if whole(row):
        return float(row["cpu"])
    return float(row["cpu"]) / float(row["part"]) if "steps" in row else math.nan


def whole(row: dict[str, Any]) -> bool:
    """Whether all of a step was measured."""
    return bool(row.get("part", 1.0) == 1)


def peak_of(row: dict[str, Any]) -> float:
    """Most MB that were resident."""
    return float(row["peak_mb"])


def cell(row: dict[str, Any]) -> str:
    """What a step took, in words."""
    time = f"{row['cpu']:,.1f} s" if whole(row) else f"{row['cpu']:,.1f} s for the first {row['part']:.0%}"
    return f"{time}, {peak_of(row):,.0f} MB"


def table_of(results: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """Markdown: for each step a row with CPU seconds and peak memory at each size, and the exponent of each."""
    sizes = sorted({int(size) for found in results.values() for size in found if size.isdecimal()})
    head = "| step | " + " | ".join(f"{size:,} pages" for size in sizes) + " | exponent of CPU | exponent of memory |"
    lines = [head, "|" + "---|" * (len(sizes) + 3)]
    for step in STEPS:
        found = {int(size): r for size, r in results.get(step, {}).items() if size.isdecimal()}
        cells = [cell(found[s]) if s in found else "not measured" for s in sizes]
        at = sorted(found)
        slopes = []
        for values in (cpu_of_all, peak_of):
            known = [(s, value) for s in at if not math.isnan(value := values(found[s]))]
            slopes.append(exponent([s for s, _ in known], [value for _, value in known]))
        shown = ["" if np.isnan(slope) else f"{slope:.2f}" for slope in slopes]
        lines.append(f"| {step}: {WHAT[step]} | " + " | ".join([*cells, *shown]) + " |")
    return lines


def plot(results: dict[str, dict[str, dict[str, Any]]], path: Path) -> None:
    """CPU seconds and peak memory over pages, on logarithmic axes, as one SVG that needs no library."""
    from benchmarks.scale_plot import drawn

    path.write_text(drawn(results, STEPS), encoding="utf-8")


def missed(results: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """Bars that were not reached, in words."""
    out = []
    for step, found in results.items():
        for size, row in found.items():
            if row["peak_mb"] > RESIDENT_MB:
                out.append(f"{step}, {size} pages: {row['peak_mb']:,.0f} MB resident (bar {RESIDENT_MB:,.0f})")
            if step in ("explorer, no map", "explorer, again") and row["seconds"] > VIEW_S:
                out.append(f"{step}, {size} pages: {row['seconds']:.1f} s (bar {VIEW_S:.0f})")
            sample = results.get("train", {}).get("sample")
            if step == "train" and size != "sample" and sample:
                share = (row["panels"] / row["cpu"]) / (sample["panels"] / sample["cpu"])
                if share < TRAIN_SHARE:
                    out.append(f"train, {size} pages: {share:.0%} of the sample run's panels per CPU second")
    return out


def main() -> int:
    """Measure, add to the results, print; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, nargs="*", default=[], metavar="N")
    parser.add_argument("--steps", nargs="*", default=list(STEPS), choices=STEPS, metavar="STEP", help="default all")
    parser.add_argument(
        "--part", type=float, default=1.0, help=f"beginning of {' and '.join(IN_PART)} that is measured"
    )
    parser.add_argument("--characters", type=int, default=CHARACTERS, help=f"of a panel's text; default {CHARACTERS}")
    parser.add_argument("--work", type=Path, default=Path("/tmp/stage3-scale"), help="keeps data and results")
    parser.add_argument("--timeout", type=float, default=7200.0, help="seconds of one step")
    parser.add_argument("--show", action="store_true", help="print the table of what was measured")
    parser.add_argument("--update", type=Path, metavar="FILE", help="put the table between the markers in FILE")
    parser.add_argument("--child", choices=list(WORKS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.work, args.part)
        return 0
    args.work.mkdir(parents=True, exist_ok=True)
    kept = args.work / "results.json"
    results: dict[str, dict[str, dict[str, Any]]] = json.loads(kept.read_text()) if kept.exists() else {}
    if args.pages and "train" in args.steps:
        (args.work / "sample").mkdir(exist_ok=True)
        make(args.work / "sample", 10)
        results.setdefault("train", {})["sample"] = measure("train", args.work / "sample", args.timeout)
    for pages in args.pages:
        name = str(pages) if args.characters == CHARACTERS else f"{pages} of {args.characters} characters"
        folder = args.work / name.replace(" ", "-")
        make(folder, pages, args.characters)
        for step in args.steps:
            if step == "index":
                shutil.rmtree(folder / "cache", ignore_errors=True)
            results.setdefault(step, {})[name] = found = measure(step, folder, args.timeout, args.part)
            kept.write_text(json.dumps(results, indent=1))
            speed = found["panels"] / max(found["cpu"], 1e-9)
            line = f"{pages:>9,} {step:<16}{found['seconds']:>9.1f} s {found['cpu']:>9.1f} CPU s"
            print(f"{line} {speed:>11,.0f} panels/CPU s {found['peak_mb']:>7,.0f} MB  load {found['load']}", flush=True)
    lines = table_of(results)
    print("\n".join(lines))
    if args.update:
        text = args.update.read_text(encoding="utf-8")
        before, _, rest = text.partition(START)
        _, _, after = rest.partition(END)
        args.update.write_text("\n".join([before + START, *lines, END + after]), encoding="utf-8")
        plot(results, args.update.with_name("scale.svg"))
    wrong = missed(results)
    print("missed: " + "; ".join(wrong) if wrong else "every bar is reached")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
