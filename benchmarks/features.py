"""Features of whole pages against the encoder alone on the same crops, side by side in one run.

    python -m benchmarks.features                               SigLIP-base sizes and `tiny`, on the processor
    python -m benchmarks.features --device cuda --workers 16    SigLIP-base in bf16 on a GPU, in about a minute
    python -m benchmarks.features --quick                       a small model, to see that it works

Draws pages of 1988 x 3057 pixels with six panels each, as JPEG, and a SigLIP of random weights; needs no network.
Prints panels per second of the encoder alone (on prepared crops that lie in memory), of decoding alone (the same
threads, nothing is encoded) and of the whole: page files are read and hashed, decoded, cut, encoded, and sealed in a
new store. On a GPU also what share of the card's bf16 matrix product, measured here, the encoder alone reaches.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch

from benchmarks.images import BOXES, SIZE, draw_page
from stage3 import features
from stage3.config import Config
from stage3.data import images
from stage3.data.table import PAGE_COLUMNS, PANEL_COLUMNS, DataReport, PanelTable
from stage3.features import FeatureReport
from stage3.features.backbones import VisionBackbone
from stage3.features.build import ordered, threads

BASE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
PRODUCT = 8192  # rows and columns of the matrix product that the card is measured by


def siglip(folder: Path, size: dict[str, int]) -> str:
    """A SigLIP of random weights as a Hugging Face folder; its text tower, which is not used, is tiny."""
    import transformers as hf

    torch.manual_seed(0)
    text = {**SMALL, "hidden_size": size["hidden_size"], "num_hidden_layers": 1, "vocab_size": 64}
    vision = {**size, "image_size": 224, "patch_size": 16}
    hf.SiglipModel(hf.SiglipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    half = [0.5, 0.5, 0.5]
    processor = {
        "image_processor_type": "SiglipImageProcessor",
        "size": {"height": 224, "width": 224},
        "resample": 3,
        "image_mean": half,
        "image_std": half,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    return str(folder)


def operations(size: dict[str, int]) -> float:
    """Floating-point operations of SigLIP's image tower for one panel: matrix products alone."""
    tokens, wide, inner = (224 // 16) ** 2, size["hidden_size"], size["intermediate_size"]
    layer = tokens * (4 * wide * wide + 2 * wide * inner) + 2 * tokens * tokens * wide
    head = tokens * 2 * wide * wide + 2 * wide * wide + 2 * wide * inner
    return 2.0 * (size["num_hidden_layers"] * layer + tokens * 3 * 16 * 16 * wide + head)


def pages_on_disk(folder: Path, pages: int) -> PanelTable:
    """Pages whose files all differ: one drawing, with a number behind its end, which no decoder reads."""
    draw_page(folder / "drawn.jpg")
    drawn = (folder / "drawn.jpg").read_bytes()
    rows: dict[str, list[Any]] = {name: [] for name in PAGE_COLUMNS}
    panels: dict[str, list[Any]] = {name: [] for name in PANEL_COLUMNS}
    for page in range(pages):
        path = folder / f"{page:06d}.jpg"
        path.write_bytes(drawn + page.to_bytes(8, "little"))
        row = (f"b/{page}", "b", "story", str(path), "", *SIZE, "", "exact", page * len(BOXES), len(BOXES))
        for column, value in zip(rows.values(), row, strict=True):
            column.append(value)
        for i, box in enumerate(BOXES.tolist()):
            entry = (f"b/{page}#{i}", page, i, i, *box, True, "", "", "")
            for column, value in zip(panels.values(), entry, strict=True):
                column.append(value)
    return PanelTable.build(panels, rows, DataReport(pages_listed=pages, pages_kept=pages))


def peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product."""
    side = PRODUCT if device.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    rates = []
    for _ in range(4):
        settle(device)
        start = time.perf_counter()
        for _ in range(20 if device.type == "cuda" else 2):
            a @ b
        settle(device)
        rates.append((20 if device.type == "cuda" else 2) * 2 * side**3 / (time.perf_counter() - start))
    return max(rates)


def settle(device: torch.device) -> None:
    """Wait for the card."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def encoding(backbone: VisionBackbone, prepared: Sequence[Any], panels: int, batch: int) -> float:
    """Panels per second of the encoder alone, with as many batches under way as a build has."""
    flying: list[Callable[[], torch.Tensor]] = []
    start, done = time.perf_counter(), 0
    while done < panels:
        at = done % max(len(prepared) - batch + 1, 1)
        chosen = prepared[at : at + batch]
        flying.append(backbone.encode_later(chosen))
        done += len(chosen)
        if len(flying) > backbone.in_flight:
            flying.pop(0)()
    for vectors in flying:
        vectors()
    return done / (time.perf_counter() - start)


def decoding(backbone: VisionBackbone, paths: Sequence[str], workers: int) -> tuple[float, list[Any]]:
    """Panels per second of decoding, cutting and preparing alone, and the crops."""

    def one(path: str) -> list[Any]:
        found = images.decode_panels(Path(path), BOXES, short_side=backbone.short_side)
        return [backbone.compact(crop) for crop in found]

    start = time.perf_counter()
    with threads(workers) as pool:
        prepared = [crop for crops in ordered(pool, one, paths, workers) for crop in crops]
    return len(prepared) / (time.perf_counter() - start), prepared


def whole(table: PanelTable, config: Config, cache: Path) -> float:
    """Panels per second from page files to a new store; the model is loaded before."""
    work = features.opened(table, config.replace(cache_dir=str(cache)))
    work.vision.encode([images.open_page(table.pages["image_path"].iloc[0])])
    report = FeatureReport()
    start = time.perf_counter()
    work.images(report, progress=False)
    took = time.perf_counter() - start
    assert report.computed_images == len(table), report.sentence()
    return report.computed_images / took


def measured(table: PanelTable, config: Config, folder: Path, repeats: int) -> dict[str, float]:
    """The three rates, in turn, so that a busy machine slows all of them alike."""
    backbone = features.opened(table, config.replace(cache_dir=str(folder / "warm"))).vision
    paths = table.pages["image_path"].tolist()
    _, prepared = decoding(backbone, paths[: max(4 * config.workers, 8)], config.workers)
    encoding(backbone, prepared, 2 * config.feature_batch, config.feature_batch)  # warm
    found: dict[str, list[float]] = {"encoder alone": [], "decoding alone": [], "whole": []}
    for turn in range(repeats):
        found["encoder alone"].append(encoding(backbone, prepared, len(table), config.feature_batch))
        found["decoding alone"].append(decoding(backbone, paths[: max(len(paths) // 2, 1)], config.workers)[0])
        found["whole"].append(whole(table, config, folder / f"cache{turn}"))
        found["encoder alone"].append(encoding(backbone, prepared, len(table), config.feature_batch))
    rates = {name: statistics.median(values) for name, values in found.items()}
    rates["ratio"] = rates["whole"] / rates["encoder alone"]
    rates["of the slower"] = rates["whole"] / min(rates["encoder alone"], rates["decoding alone"])
    return rates


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda; default cpu")
    parser.add_argument("--pages", type=int, help="pages of six panels; default 12 on a processor, 2,048 on a GPU")
    parser.add_argument("--workers", type=int, help="threads that decode; default one fewer than there are cores")
    parser.add_argument("--batch", type=int, help="crops per call; default 32 on a processor, 256 on a GPU")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a small model, whose numbers mean nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    device = torch.device(args.device)
    cuda, size = device.type == "cuda", SMALL if args.quick else BASE
    pages = args.pages or (2048 if cuda else 12)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = args.workers if args.workers is not None else max(cores - 1, 1)
    config = Config(
        device=args.device,
        precision="bf16" if cuda else "float32",
        feature_batch=args.batch or (256 if cuda else 32),
        workers=workers,
    )
    if not cuda:
        torch.set_num_threads(max(cores - workers, 1))
    about: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if cuda else f"{torch.get_num_threads()} cores encode",
        "cores": cores,
        "workers": workers,
        "batch": config.feature_batch,
        "torch": torch.__version__,
    }
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name, torch.inference_mode():
        folder = Path(name)
        (folder / "pages").mkdir()
        table = pages_on_disk(folder / "pages", pages)
        models = {"SigLIP-base": siglip(folder / "siglip", size)} | ({} if cuda else {"tiny": "tiny"})
        for model, where in models.items():
            (folder / model).mkdir()
            found[model] = measured(table, config.replace(vision_backbone=where), folder / model, args.repeats)
        product = peak(device, torch.bfloat16 if cuda else torch.float32)
    rate = found["SigLIP-base"]["encoder alone"] * operations(size)
    about |= {"product TFLOP/s": product / 1e12, "encoder's share of it": rate / product}
    if args.json:
        print(json.dumps({**about, "rates": found, "aim": 0.85 if cuda else 0.9}))
        return 0
    print(f"{len(table):,} panels of {pages:,} pages; " + ", ".join(f"{k} {_short(v)}" for k, v in about.items()))
    for model, rates in found.items():
        shown = "  ".join(f"{k} {v:,.1f}/s" for k, v in rates.items() if k not in ("ratio", "of the slower"))
        print(f"{model:<12} {shown}  whole / encoder {rates['ratio']:.1%}, / the slower {rates['of the slower']:.1%}")
    return 0


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    raise SystemExit(main())
