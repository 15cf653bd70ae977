"""A GPU at work: matrix products, the losses blockwise and dense, training steps from the feature store.

    python -m benchmarks.device --device cuda [--json]
    python -m benchmarks.device --quick                    small sizes on the CPU, to see that it works

Every time is the median of several passes between two waits for the device; memory is the peak over one pass. The
roofline of a contrastive loss is three V x V x D products in float32, what its forward and backward pass need at least,
timed on the same device. Steps are whole ones: the batch is cut from features in the host's memory, copied, and the
heads of the default settings are trained on it, forward, backward, clipping and optimizer.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch

from stage3 import losses
from stage3.batches import generator
from stage3.batches.batch import PanelBatch, PanelSet
from stage3.config import Config
from stage3.features import ArrayRows, FeatureReport, FeatureSet, usable_device
from stage3.model import EncoderSpec
from stage3.model.objectives import Stage3
from stage3.train.ahead import ahead
from stage3.train.fixed_order import fixed_order
from stage3.train.optimizer import clip, make_optimizer

SIZES, QUICK = (512, 4096, 32768), (64, 512)
D, IMAGE, TEXT = 512, 768, 384  # the model's dimension; features of SigLIP-base and MiniLM
PER_PAGE = 5
AT_ONCE = 8  # steps of a pass
PRECISIONS = {"float32": (torch.float32, "highest"), "tf32": (torch.float32, "high"), "bf16": (torch.bfloat16, "high")}


def seconds(device: torch.device, work: Callable[[], object], repeats: int = 7) -> float:
    """The median time of one pass, the device's work included; two passes warm up."""
    taken = []
    for _ in range(repeats + 2):
        wait(device)
        start = time.perf_counter()
        work()
        wait(device)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[2:])


def wait(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak(device: torch.device, work: Callable[[], object]) -> float:
    """Gigabytes of the device's memory that one pass takes beyond what is held already; NaN on a CPU."""
    if device.type != "cuda":
        return float("nan")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    return (torch.cuda.max_memory_allocated(device) - before) / 1e9


def products(device: torch.device, side: int) -> dict[str, float]:
    """Matrix products of this side in each precision, TFLOP per second."""
    found = {}
    for name, (dtype, setting) in PRECISIONS.items():
        torch.set_float32_matmul_precision(setting)
        a = torch.randn(side, side, device=device, dtype=dtype)
        found[name] = 2 * side**3 / seconds(device, partial(torch.matmul, a, a)) / 1e12
    torch.set_float32_matmul_precision("highest")
    return found


def loss_rows(device: torch.device, panels: int) -> list[dict[str, Any]]:
    """Both contrastive losses, blockwise and dense, with their share of the roofline."""
    seed = torch.Generator().manual_seed(0)
    a, b = (torch.randn(panels, D, generator=seed).to(device).requires_grad_() for _ in range(2))
    pages = torch.arange(panels, device=device) // PER_PAGE
    z = a.detach()
    least = 3 * seconds(device, lambda: z @ z.T)

    def supcon() -> None:
        a.grad = None
        torch.autograd.backward(losses.supcon(a, pages, 0.07).mean)

    def info_nce() -> None:
        a.grad = b.grad = None
        to_text, to_image = losses.info_nce(a, b, 0.07)
        torch.autograd.backward(to_text.mean + to_image.mean)

    rows = []
    usual = losses.DENSE_UP_TO
    for form, most in (("blockwise", 0), ("dense", panels)):
        losses.DENSE_UP_TO = most
        for work in (supcon, info_nce):
            took, memory = seconds(device, work), peak(device, work)
            rows.append({"loss": work.__name__, "form": form, "panels": panels, "ms": 1e3 * took, "gb": memory,
                         "of_roofline": least / took})  # fmt: skip
    losses.DENSE_UP_TO = usual
    return rows


def panel_set(panels: int) -> PanelSet:
    """So many panels with random float16 features, as a store holds them."""
    rng = np.random.default_rng(0)
    images, texts = (rng.standard_normal((panels, size), np.float32).astype(np.float16) for size in (IMAGE, TEXT))
    at = np.arange(panels)
    features = FeatureSet(at, at, (IMAGE,), "benchmark", FeatureReport(), ArrayRows(images), ArrayRows(texts))
    layout = rng.random((panels, 7), np.float32)
    return PanelSet.build(features, layout, np.ones(panels, bool), at // PER_PAGE)


def step_row(device: torch.device, panels: int, precision: str, data: PanelSet, *, order: bool) -> dict[str, Any]:
    """Training steps on this many panels as training takes them, one alone, and cutting and copying its batch alone."""
    config = Config(precision=precision)
    model = Stage3.initialized(EncoderSpec.of(config, (IMAGE,), TEXT), config, 0).to(device).train()
    optimizer = make_optimizer(model, config)
    pages = np.random.default_rng(1).permutation(len(data.first))[: panels // PER_PAGE]

    def cut() -> PanelBatch:
        return data.batch(pages).to(device)

    def step(batch: PanelBatch) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision != "float32"):
            found = model(batch, generator(0))
        optimizer.zero_grad(set_to_none=True)
        found.total.backward()
        clip(model, config)
        optimizer.step()

    def steps() -> None:
        gpu = device.type == "cuda"
        make = (lambda _: data.batch(pages).pinned()) if gpu else (lambda _: data.batch(pages))
        for _, batch in ahead(range(AT_ONCE), make, beforehand=gpu):
            step(batch.to(device))

    with fixed_order(device) if order else nullcontext():
        alone, took = seconds(device, lambda: step(cut())), seconds(device, steps) / AT_ONCE
        memory = peak(device, lambda: step(cut()))
    panels = len(pages) * PER_PAGE
    row = {"panels": panels, "precision": precision, "order": "fixed" if order else "any", "ms": 1e3 * took}
    row |= {"alone_ms": 1e3 * alone, "cut_ms": 1e3 * seconds(device, cut)}
    return row | {"panels_per_second": panels / took, "gb": memory}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    device = torch.device(usable_device(args.device))
    sizes = QUICK if args.quick else SIZES
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    data = panel_set(sizes[-1] + PER_PAGE)
    found: dict[str, Any] = {
        "device": card,
        "torch": torch.__version__,
        "tflops": products(device, 512 if args.quick else 8192),
        "losses": [row for size in sizes for row in loss_rows(device, size)],
        "steps": [
            step_row(device, size, kind, data, order=order)
            for size in sizes
            for kind in ("float32", "bf16")
            for order in (True, False)
        ],
    }
    if args.json:
        print(json.dumps(found))
        return
    print(f"{card}, torch {found['torch']}; TFLOP/s of matrix products: "
          + ", ".join(f"{name} {value:.0f}" for name, value in found["tflops"].items()))  # fmt: skip
    for row in found["losses"]:
        print("{panels:6d} panels  {loss:9s} {form:10s} {ms:9.2f} ms  {gb:6.2f} GB  {of_roofline:6.2f} of the roofline"
              .format(**row))  # fmt: skip
    for row in found["steps"]:
        print("{panels:6d} panels  step {precision:8s} {order:6s}{ms:9.2f} ms, one alone {alone_ms:9.2f} ms, "
              "cut and copied {cut_ms:7.2f} ms  {gb:6.2f} GB  "
              "{panels_per_second:10,.0f} panels/s".format(**row))  # fmt: skip


if __name__ == "__main__":
    main()
