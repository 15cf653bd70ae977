"""One training step three ways: padded and encoding twice, packed and encoding once, packed from the feature store.

    python -m benchmarks.step [--repeats 1] [--small] [--json]

4 pages with 24 panels; backbones of the sizes of SigLIP-base, ResNet-50 and MiniLM with random weights (time does not
depend on them). The padded variant fills every page up to 16 rows and runs the frozen backbones once for the fused
embedding and once more for the alignment, as the original trainer did. Backbones never receive gradients.
Ratios come from one process, forms in turn; the median of the repeats is shown.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from stage3.batches import PanelBatch, generator
from stage3.config import Config
from stage3.model import EncoderSpec
from stage3.model.objectives import Stage3
from stage3.train.optimizer import clip, make_optimizer

PAGES, SLOTS, PANELS, WORDS = 4, 16, 24, 48
SIDE, SMALL = 224, 32  # pixels


class Backbones(nn.Module):
    """Frozen towers of the usual sizes, random weights."""

    def __init__(self, *, small: bool = False) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel, ResNetConfig, ResNetModel, SiglipVisionConfig, SiglipVisionModel

        layers, depths = (1, [1, 1, 1, 1]) if small else (12, [3, 4, 6, 3])
        self.siglip = SiglipVisionModel(
            SiglipVisionConfig(num_hidden_layers=layers, image_size=SMALL if small else SIDE)
        )
        self.resnet = ResNetModel(ResNetConfig(depths=depths))
        mini = BertConfig(
            hidden_size=384, num_hidden_layers=min(layers, 6), num_attention_heads=12, intermediate_size=1536
        )
        self.minilm = BertModel(mini)
        self.eval().requires_grad_(False)

    @torch.inference_mode()
    def encode(self, images: Tensor, words: Tensor, *, bf16: bool) -> tuple[Tensor, Tensor]:
        """(n, 3, 224, 224) images and (n, WORDS) tokens to (n, 768 + 2048) and (n, 384) features."""
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            siglip = self.siglip(images).pooler_output
            resnet = self.resnet(images).pooler_output.flatten(1)
            text = self.minilm(words).last_hidden_state.mean(dim=1)
        return torch.cat([siglip, resnet], dim=1).float(), text.float()


def batch_of(image: Tensor, text: Tensor, pages: Tensor) -> PanelBatch:
    """A batch of features that came out of the backbones."""
    n = len(pages)
    rows = torch.arange(n)
    return PanelBatch(
        image.clone(), text.clone(), torch.rand(n, 7), torch.ones(n, 3, dtype=torch.bool), pages, rows, rows
    )


def forms(config: Config, *, small: bool = False) -> dict[str, Callable[[], None]]:
    """The ways to make one step, by name."""
    backbones = Backbones(small=small)
    model = Stage3.initialized(EncoderSpec.of(config, (768, 2048), 384), config, 0)
    optimizer = make_optimizer(model, config)
    pages = torch.arange(PANELS) % PAGES
    padded_pages = torch.arange(PAGES * SLOTS) // SLOTS
    side = SMALL if small else SIDE
    images, words = torch.randn(PANELS, 3, side, side), torch.randint(1000, (PANELS, WORDS))
    padded, padded_words = (
        torch.zeros(PAGES * SLOTS, 3, side, side),
        torch.zeros(PAGES * SLOTS, WORDS, dtype=torch.long),
    )
    padded[:PANELS], padded_words[:PANELS] = images, words
    stored = backbones.encode(images, words, bf16=False)

    def heads(batch: PanelBatch) -> None:
        optimizer.zero_grad(set_to_none=True)
        model(batch, generator(0)).total.backward()
        clip(model, config)
        optimizer.step()

    def twice_padded() -> None:
        backbones.encode(padded, padded_words, bf16=False)
        heads(batch_of(*backbones.encode(padded, padded_words, bf16=False), padded_pages))

    return {
        "padded, encodes twice": twice_padded,
        "packed, encodes once": lambda: heads(batch_of(*backbones.encode(images, words, bf16=False), pages)),
        "packed, encodes once, bf16 backbones": lambda: heads(
            batch_of(*backbones.encode(images, words, bf16=True), pages)
        ),
        "from the feature store": lambda: heads(batch_of(*stored, pages)),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--small", action="store_true", help="tiny images and one layer, to see that it works")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    made = forms(Config(), small=args.small)
    for name, step in made.items():  # warm up all but the slow one
        if name != "padded, encodes twice":
            step()
    times: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(args.repeats):
        for name, step in made.items():
            inner = 50 if "store" in name else 1
            start = time.process_time()
            for _ in range(inner):
                step()
            times[name].append((time.process_time() - start) / inner)
    seconds = {name: statistics.median(values) for name, values in times.items()}
    slow = seconds["padded, encodes twice"]
    if args.json:
        print(json.dumps({name: {"cpu_s": s, "ratio": slow / s} for name, s in seconds.items()}))
        return
    for name, s in seconds.items():
        print(f"{name:40s} {s:9.4f} s of CPU   {slow / s:8.1f} x")


if __name__ == "__main__":
    main()
