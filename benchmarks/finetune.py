"""A training step that trains the image backbone as well: panels per second and memory, with SigLIP-base's sizes.

    python -m benchmarks.finetune --device cuda              in bf16; about a minute on a GPU
    python -m benchmarks.finetune --quick                    a small model on this processor, to see that it works

The backbone has random weights and is made here, so nothing is downloaded. Steps are those of training, on the sample
comics: forward and backward through backbone and encoder, the clip, AdamW. `encoding` is the backbone's forward pass
alone, as for stored features; `whole step` also waits for pages that threads decode, a batch ahead.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from stage3.batches import PanelBatch, steps_from
from stage3.batches.dataset import Dataset
from stage3.config import Config
from stage3.features import ArrayRows
from stage3.features.backbones import VisionBackbone
from stage3.model import finetune
from stage3.runs import RunFolder
from stage3.storage import to_json
from stage3.train.fixed_order import fixed_order
from stage3.train.trainer import Trainer


class RandomSiglip(VisionBackbone):
    """The image tower of SigLIP-base with random weights; its preprocessing needs nothing but Pillow."""

    name, fingerprint, weights_file = "random siglip", "0" * 64, "model.safetensors"

    def __init__(self, device: str, precision: str, small: bool) -> None:
        from transformers import SiglipVisionConfig, SiglipVisionModel

        torch.manual_seed(0)
        sizes = {"hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 3, "num_attention_heads": 4}
        self.short_side = 64 if small else 224
        config = SiglipVisionConfig(image_size=self.short_side, patch_size=16, **(sizes if small else {}))
        self.net = SiglipVisionModel(config).to(device).eval()
        self.sizes, self.device = (int(config.hidden_size),), torch.device(device)
        self.dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)

    def prepare(self, image: Image.Image) -> torch.Tensor:
        """(3, side, side) float32, stretched."""
        small = image.convert("RGB").resize((self.short_side, self.short_side), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.asarray(small, dtype=np.float32) / 127.5 - 1).permute(2, 0, 1)

    def in_graph(self, prepared: Sequence[torch.Tensor]) -> torch.Tensor:
        """(n, D) on the device."""
        pooled: torch.Tensor = self.net(pixel_values=torch.stack(list(prepared)).to(self.device)).pooler_output
        return pooled.float()

    @torch.inference_mode()
    def encode_prepared(self, prepared: Sequence[torch.Tensor]) -> torch.Tensor:
        """(n, D) on the CPU."""
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            return self.in_graph(prepared).cpu()

    def saved(self) -> dict[str, bytes]:
        """Nothing: a step saves no checkpoint."""
        return {}


def dataset(config: Config, backbone: RandomSiglip) -> Dataset:
    """The sample comics; their stored image features are random numbers of the backbone's size, which nothing reads."""
    data = Dataset.load(config, progress=False)
    draw = np.random.default_rng(0)
    drawn = draw.normal(size=(int(data.features.image_rows.max()) + 1, *backbone.sizes)).astype(np.float32)
    features = replace(data.features, images=ArrayRows(drawn), image_sizes=backbone.sizes)
    return replace(data, features=features)


class Clock:
    """Seconds of some calls, once what was begun on the device has ended."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"

    def _now(self) -> float:
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def per_call(self, work: Callable[[int], Any], calls: int, warm: int = 2) -> float:
        """Seconds of a call, on average, after `warm` calls that do not count; `work` is given the call's number."""
        for i in range(warm):
            work(i)
        began = self._now()
        for i in range(calls):
            work(warm + i)
        return (self._now() - began) / calls


def measure(config: Config, data: Dataset, folder: Path, calls: int) -> dict[str, float]:
    """Panels per second of a step, of encoding alone and of steps that wait for decoding; the peak of memory in GiB."""
    run = RunFolder.create(folder, config)
    trainer = Trainer(run, data)
    trainer.total_steps = max(trainer.total_steps, 1000)
    tuned, panels, clock = trainer.tuned, data.panel_set, Clock(trainer.device)
    assert tuned is not None
    assert tuned.vision is not None
    ready: list[tuple[PanelBatch, list[Any]]] = []
    for step, _, pages in islice(steps_from(trainer.sampler, 0), 2):
        ready.append((panels.batch(pages), [crop for page in pages for crop in tuned.crops.of_page(int(page), step)]))
    sizes = [len(crops) for _, crops in ready]
    if trainer.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    step_s = clock.per_call(lambda i: trainer.train_step(*_at(ready[i % 2], i + 1)), calls)
    peak = torch.cuda.max_memory_allocated() / 2**30 if trainer.device.type == "cuda" else float("nan")
    encode_s = clock.per_call(lambda i: tuned.vision.encode_prepared(ready[i % 2][1][:64]), calls)
    stream = tuned.crops.ahead(steps_from(trainer.sampler, 0), lambda pages: pages)

    def whole(_: int) -> None:
        step, _, pages, crops = next(stream)
        trainer.train_step(panels.batch(pages), step, crops)

    whole_s = clock.per_call(whole, calls)
    per_step = sum(sizes) / len(sizes)
    return {
        "panels_per_step": per_step,
        "step_ms": 1000 * step_s,
        "step_panels_per_s": per_step / step_s,
        "whole_step_panels_per_s": per_step / whole_s,
        "encoding_panels_per_s": min(64, *sizes) / encode_s,
        "peak_gib": peak,
    }


def _at(ready: tuple[PanelBatch, list[Any]], step: int) -> tuple[PanelBatch, int, list[Any]]:
    return ready[0], step, ready[1]


def main() -> None:
    """Measure without and with computing activations again, and print both as JSON and in words."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="bf16", choices=("float32", "bf16", "fp16"))
    parser.add_argument("--pages", type=int, default=48, help="pages per step; the samples have four panels per page")
    parser.add_argument("--calls", type=int, default=8, help="steps that are timed")
    parser.add_argument("--workers", type=int, default=8, help="threads that decode")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        common: dict[str, Any] = {
            "data": "data/samples",
            "limit_pages": 40 if args.quick else 4 * args.pages,
            "cache_dir": str(folder / "cache"),
            "batch_pages": 8 if args.quick else args.pages,
            "device": args.device,
            "precision": "float32" if args.quick else args.precision,
            "workers": args.workers,
            "finetune": "image",
            "val_fraction": 0.0,
            "test_fraction": 0.0,
        }
        backbone = RandomSiglip(args.device, common["precision"], args.quick)
        finetune.resolve_vision = lambda *_: backbone  # no name stands for random weights
        data = dataset(Config(**common), backbone)
        found = {}
        for again in (False, True):
            config = Config(**common, finetune_checkpointing=again)
            name = "activations computed again" if again else "activations kept"
            with fixed_order(torch.device(args.device), strict=False):
                found[name] = measure(config, data, folder / f"run{again}", 2 if args.quick else args.calls)
    on = torch.cuda.get_device_name() if args.device.startswith("cuda") else "CPU"
    about = {"on": on, "torch": torch.__version__, "precision": common["precision"]}
    about["seconds"] = round(time.perf_counter() - began, 1)
    if args.json:
        print(to_json(about | {"found": found}))
        return
    print(about)
    for name, row in found.items():
        print(
            f"{name}: {row['panels_per_step']:.0f} panels in {row['step_ms']:.0f} ms = {row['step_panels_per_s']:.0f} "
            f"panels/s; with decoding {row['whole_step_panels_per_s']:.0f}; encoding alone "
            f"{row['encoding_panels_per_s']:.0f}; peak {row['peak_gib']:.2f} GiB"
        )


if __name__ == "__main__":
    main()
