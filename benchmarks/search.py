"""CPU time of exact search, and of a changed filter in the explorer: `python -m benchmarks.search [--rows 100000]`.

    python -m benchmarks.search --mapped 6000000             search in a file of float16 rows instead: 6 GB of disk
    python -m benchmarks.search --mapped 6000000 --faiss     also an approximate index: half an hour

The index is measured beside the bare matrix product that any exact search has to make. The second part searches as the
explorer does when a filter changes: which panels are allowed, and two lists with the rank of the true match, on
panels with random embeddings. The third part makes the index of words for as many texts
of 20 words, whose frequencies fall as 1 / rank, and looks up a word, a frequent word and a whole text. CPU seconds are
the least of several repeats on one thread; `/proc/loadavg` is printed beside them. Answers are compared with float64
brute force, and with a comparison of all words, while they are measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stage3.search.index import Index

BARS = {"one query": 40.0, "filter change": 1000.0, "words, one query": 50.0}  # milliseconds of CPU at 100,000 rows
MAPPED_S, MAPPED_MB = 1.5, 1000.0  # of 6,000,000 x 512 on two cores
TOP = 50


def milliseconds(work: Callable[[], Any], repeats: int = 9) -> float:
    """Minimum CPU time of one call."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return 1e3 * min(times)


def unit(rows: int, dim: int, seed: int) -> torch.Tensor:
    """Random directions."""
    x = torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(x, dim=1, out=x)


def measure_index(rows: int, dim: int) -> dict[str, float]:
    """One query and a batch against the bare product; the answers are checked."""
    matrix, queries = unit(rows, dim, 0), unit(100, dim, 1)
    index = Index(matrix)
    hits = index.search(queries[:3], TOP)
    for i in range(3):
        exact = (matrix.double() @ queries[i].double()).numpy()
        brute = np.lexsort((np.arange(rows), -exact))[:TOP]
        assert hits.rows[i].tolist() == brute.tolist(), "not the answer of float64 brute force"
    allowed = np.arange(rows) % 3 == 0
    wide = matrix.T
    found = {
        "product, one query": milliseconds(lambda: queries[:1] @ wide),
        "one query": milliseconds(lambda: index.search(queries[:1], TOP)),
        "one query, a third allowed": milliseconds(lambda: index.search(queries[:1], TOP, allowed=allowed)),
        "product, 100 queries": milliseconds(lambda: queries @ wide, 3),
        "100 queries": milliseconds(lambda: index.search(queries, TOP), 3),
    }
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "matrix.f32"
        matrix.numpy().tofile(path)
        mapped = Index(np.memmap(path, np.float32, "r", shape=(rows, dim)))
        found["one query, memory-mapped"] = milliseconds(lambda: mapped.search(queries[:1], TOP))
    return found


def measure_filters(rows: int, dim: int) -> dict[str, float]:
    """A changed filter: the allowed panels, and both directions of a panel of the set."""
    from stage3.search.searcher import Filters

    searcher = synthetic_searcher(rows, dim)
    queries = [(searcher.from_panel(7, "image"), "text"), (searcher.from_panel(7, "text"), "image")]
    for query, target in queries:
        searcher.search(query, target)  # the indices are made with the first search
    turn = iter(range(10**9))

    def change() -> None:
        filters = Filters(books=(f"book{next(turn) % 50:04d}", "book0000"), splits=("train", "val"), text="with")
        for query, target in queries:
            searcher.search(query, target, 10, filters)

    return {"filter change": milliseconds(change)}


def measure_words(rows: int) -> dict[str, float]:
    """The index of words: making it, and three queries, whose answers are checked."""
    from dataclasses import replace

    from stage3.search.words import WordIndex

    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, 30_001)
    names = [f"w{rank}" for rank in range(30_000)]
    spoken = rng.choice(30_000, (rows, 20), p=share / share.sum())
    table = synthetic_searcher(rows, 2).data.table
    table = replace(
        table, panels=table.panels.assign(description=[" ".join(names[rank] for rank in text) for text in spoken])
    )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        found = {"words, making the index": milliseconds(lambda: WordIndex(table, Path(folder)), 1)}
        index = WordIndex(table, Path(folder))
        assert index.path is not None
        found["words, index MB"] = index.path.stat().st_size / 1e6
        for name, rank in (("one query", 20), ("a frequent word", 4)):
            says = np.flatnonzero((spoken == rank).any(axis=1))
            assert index.find(names[rank]).rows.tolist() == says.tolist(), "not the panels that say it"
            found[f"words, {name}"] = milliseconds(partial(index.find, names[rank]))
        text = " ".join(names[rank] for rank in spoken[7])
        assert 7 in index.find(text).rows
        found["words, a whole text"] = milliseconds(lambda: index.find(text))
    return found


def mapped_file(path: Path, rows: int, dim: int) -> None:
    """A file of random directions in 1,000 loose clusters, in blocks: a bank of them under ever other signs."""
    draw = np.random.default_rng(0)
    bank = unit(1000, dim, 5).numpy()[draw.integers(0, 1000, 50_000)] + 0.8 * unit(50_000, dim, 6).numpy()
    bank /= np.linalg.norm(bank, axis=1, keepdims=True)
    with path.open("wb") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": (rows, dim)}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, rows, len(bank)):
            signs = draw.choice(np.array([-1, 1], np.float32), dim)
            file.write((bank[: rows - start] * signs).astype(np.float16).tobytes())


def measure_mapped(rows: int, dim: int, folder: Path, *, faiss: bool, threads: int = 2) -> dict[str, float]:
    """Search in a file of float16 rows: seconds of the clock and of CPU, warm, and resident memory."""
    import psutil

    from stage3.metrics.mapped import MappedRows
    from stage3.search.approximate import Approximate
    from stage3.search.index import MappedIndex

    torch.set_num_threads(threads)
    path, process = folder / "rows.npy", psutil.Process()
    mapped_file(path, rows, dim)
    index, draw = MappedIndex(MappedRows(path)), np.random.default_rng(1)
    asked = torch.from_numpy(index.rows_at(np.sort(draw.integers(0, rows, 20)))) + 0.3 * unit(20, dim, 8)
    third, few = draw.random(rows) < 1 / 3, draw.random(rows) < 0.001
    peak_mb(again=True)
    found: dict[str, float] = {"resident MB before": process.memory_info().rss / 1e6}
    index.search(asked[:1], TOP)  # whatever of the file is in the disk cache is there now
    works: dict[str, Callable[[], Any]] = {
        "one query": lambda: index.search(asked[:1], TOP),
        "one query, a third allowed": lambda: index.search(asked[:1], TOP, allowed=third),
        "one query, a thousandth allowed": lambda: index.search(asked[:1], TOP, allowed=few),
        "20 queries": lambda: index.search(asked, TOP),
    }
    if faiss:
        start = time.monotonic()
        rough = Approximate.open(index, None, {})
        found |= {"faiss, making it, s": time.monotonic() - start, "faiss, recall@10": rough.recall}
        works["faiss, one query"] = lambda: rough.search(asked[:1], 10)
    for name, work in works.items():
        times = []
        for _ in range(5):
            start, cpu = time.monotonic(), time.process_time()
            work()
            times.append((time.monotonic() - start, time.process_time() - cpu))
        found |= {f"{name}, s": min(t[0] for t in times), f"{name}, CPU s": min(t[1] for t in times)}
    found["peak resident MB"] = peak_mb()
    hits, wide = index.search(asked[:1], TOP), asked[0].double().numpy() / float(asked[0].double().norm())
    best = np.zeros(0)
    for start in range(0, rows, 2**17):
        block = index.source.array[start : start + 2**17].astype(np.float64)
        cosine = (block @ wide) / np.linalg.norm(block, axis=1)
        best = np.sort(np.concatenate([best, cosine]))[-TOP:]
    assert np.allclose(hits.scores[0], best[::-1], atol=1e-12), "not the answer of float64 brute force"
    return found


def peak_mb(*, again: bool = False) -> float:
    """Most memory that this process had resident since its start, or since it was last asked with `again`, in MB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    if again:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return float(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def synthetic_searcher(rows: int, dim: int) -> Any:
    """A searcher over `rows` panels, four per page and a hundred per book, with random embeddings and no images."""
    import pandas as pd

    from stage3.batches import PanelSet
    from stage3.batches.dataset import Dataset
    from stage3.config import Config
    from stage3.data.table import PAGE_COLUMNS, PANEL_COLUMNS, DataReport, PanelTable
    from stage3.features import FeatureSet
    from stage3.model import EncoderSpec
    from stage3.model.embedding import Embedded
    from stage3.model.objectives import Stage3
    from stage3.search.searcher import Searcher

    page = np.arange(rows) // 4
    n_pages = int(page[-1]) + 1
    order = np.arange(rows) % 4
    values: dict[str, Any] = {"panel_id": [f"p{i}#0" for i in range(rows)], "page": page, "order": order}
    values |= {"source_index": order, "x": 0.1, "y": order / 4, "w": 0.8, "h": 0.2, "has_box": True}
    values |= {"dialogue": [f"words of panel {i}" for i in range(rows)], "description": "", "speakers": ""}
    panels = pd.DataFrame(values).astype({k: v for k, v in PANEL_COLUMNS.items() if v != "str"})
    about: dict[str, Any] = {
        "page_id": [f"p{i}" for i in range(n_pages)],
        "overall_summary": "",
        "resolved_by": "exact",
    }
    about |= {"book_id": [f"book{i // 25:04d}" for i in range(n_pages)], "page_type": "story", "image_path": ""}
    about |= {"width": 0, "height": 0, "first_panel": 4 * np.arange(n_pages), "n_panels": np.bincount(page)}
    pages = pd.DataFrame(about).astype({k: v for k, v in PAGE_COLUMNS.items() if v != "str"})
    features = FeatureSet.in_memory(np.zeros((rows, 2), np.float32), np.zeros((rows, 2), np.float32))
    data = Dataset(PanelTable(panels, pages, DataReport()), features, np.arange(n_pages) // 25 % 3)
    assert isinstance(data.panel_set, PanelSet)
    embedded = Embedded(
        *(unit(rows, dim, seed) for seed in (2, 3, 4)),
        gate=torch.full((rows, 3), 1 / 3),
        present=torch.ones(rows, 3, dtype=torch.bool),
        page_ids=torch.from_numpy(page),
        text_ids=torch.arange(rows),
        rows=torch.arange(rows),
    )
    config = Config.from_mapping({"dim": 32})
    model = Stage3.initialized(EncoderSpec.of(config, (2,), 2), config, seed=0).eval()
    return Searcher(data, model, embedded)


def main() -> int:
    """Measure and print; 1 when a bar is missed at 100,000 rows or fewer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--mapped", type=int, metavar="ROWS", help="search in a file of so many float16 rows instead")
    parser.add_argument("--faiss", action="store_true", help="with --mapped: an approximate index, too")
    parser.add_argument("--threads", type=int, default=2, help="with --mapped; CPU seconds are least with 1")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    if args.mapped:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            told = measure_mapped(args.mapped, args.dim, Path(folder), faiss=args.faiss, threads=args.threads)
        for name, value in told.items():
            sys.stdout.write(f"  {name:<36}{value:12.3f}\n")
        large = args.mapped >= 6_000_000
        return 1 if large and (told["one query, s"] > MAPPED_S or told["peak resident MB"] > MAPPED_MB) else 0
    torch.set_num_threads(1)
    found = measure_index(args.rows, args.dim) | measure_filters(args.rows, args.dim) | measure_words(args.rows)
    load = Path("/proc/loadavg")
    about = load.read_text(encoding="utf-8").strip() if load.exists() else ""
    if args.json:
        sys.stdout.write(json.dumps({"rows": args.rows, "dim": args.dim, "cpu_ms": found, "loadavg": about}) + "\n")
    else:
        sys.stdout.write(f"{args.rows:,} x {args.dim}, CPU milliseconds, one thread; load {about}\n")
        for name, value in found.items():
            bar = f"  (bar {BARS[name]:g})" if name in BARS else ""
            sys.stdout.write(f"  {name:<28}{value:9.1f}{bar}\n")
    missed = args.rows <= 100_000 and any(found[name] > bar for name, bar in BARS.items())
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
