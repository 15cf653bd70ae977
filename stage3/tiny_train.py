"""`python -m stage3.tiny_train`: make the weights of the `tiny` backbones from freshly drawn comics.

Both encoders learn to tell the facts of a panel, the picture encoder from crops of drawn pages, the text encoder from
the words of many more panels, which cost nothing to write. What they then give as features is the layer below the
facts. The books are drawn with seeds of their own, never with that of the sample comics.

Shapes: N panels, S side of a crop, K classes of a head, D size of a feature.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from stage3 import console, images, tiny
from stage3.config import ConfigError
from stage3.samples import facts as sample_facts
from stage3.samples import writer
from stage3.samples.ink import SCALE
from stage3.samples.layout import PAGE, choose_layout, panel_shapes
from stage3.samples.lettering import room_for_words
from stage3.samples.looks import choose_look
from stage3.samples.script import PanelScript, choose_scene, write_panel
from stage3.samples.staging import draw_panel, letter_size

Array = np.ndarray[Any, Any]
SAMPLE_SEED = 0  # of data/samples, which these weights must never have seen
SIDE, MARGIN = 96, 8  # pixels: what the network sees, and the room for shifting a crop in training
PICTURE: dict[str, Any] = {
    "widths": [32, 32, 64, 96, 144],
    "dim": 128,
    "side": SIDE,
    "mean": [0.5] * 3,
    "std": [0.25] * 3,
}
TEXT: dict[str, Any] = {"buckets": 6144, "width": 48, "heads": 8, "dim": 128, "fixed": 96, "max_words": 160}
PAIRS = {
    "kind*clothes_color": ("kind", "clothes_color"),
    "kind*action": ("kind", "action"),
    "kind*emotion": ("kind", "emotion"),
}
ONE = ("setting", "time", "shot", "people")  # exactly one class a panel; every other head may have several


@dataclass(frozen=True)
class Panels:
    """Drawn or merely written panels.

    Attributes:
        crops: (N, S + 2 MARGIN, S + 2 MARGIN, 3) uint8; no rows when only words were written.
        dialogue: (N,) what is said.
        description: (N,) what is described.
        targets: multi-hot facts of each head, (N, K) float32.
        books: (N,) number of the book.
    """

    crops: Array
    dialogue: list[str]
    description: list[str]
    targets: dict[str, Tensor]
    books: Array

    def __len__(self) -> int:
        return len(self.dialogue)


def classes() -> dict[str, list[str]]:
    """Every head and its classes."""
    known = sample_facts.VOCABULARIES
    single = ("setting", "time", "shot", "props", "kind", "hair", "clothes", "clothes_color", "action", "emotion")
    heads = {name: list(known[name]) for name in single} | {"people": ["0", "1", "2", "3"]}
    heads |= {name: [f"{a} {b}" for a in known[x] for b in known[y]] for name, (x, y) in PAIRS.items()}
    return heads


def targets_of(facts: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """Multi-hot facts of panels, (N, K) for each head."""
    heads = classes()
    out = {name: np.zeros((len(facts), len(labels)), dtype=np.float32) for name, labels in heads.items()}
    place = {name: {label: i for i, label in enumerate(labels)} for name, labels in heads.items()}
    for row, fact in enumerate(facts):
        said = {name: [fact[name]] for name in ("setting", "time", "shot")} | {"props": fact["props"]}
        said["people"] = [str(min(len(fact["characters"]), 3))]
        for name in ("kind", "hair", "clothes", "clothes_color", "action", "emotion"):
            said[name] = [who[name] for who in fact["characters"]]
        for name, (x, y) in PAIRS.items():
            said[name] = [f"{who[x]} {who[y]}" for who in fact["characters"]]
        for name, labels in said.items():
            out[name][row, [place[name][label] for label in labels]] = 1
    return {name: torch.from_numpy(array) for name, array in out.items()}


# --- the data -------------------------------------------------------------------------------------------------------


def draw_one(job: tuple[int, int, int]) -> tuple[list[Array], list[str], list[str], list[dict[str, Any]]]:
    """Crops, dialogue, descriptions and facts of the story pages of one drawn book.

    Pages are drawn as `stage3.samples` draws them and reduced to few colours likewise, but never written to a file:
    most of the time of drawing a book goes into small files.
    """
    book, seed, pages = job
    rng = np.random.default_rng([seed, book, 0])
    look, story = choose_look(rng), writer.choose_story(rng)
    crops, dialogue, description, facts = [], [], [], []
    for number in range(pages):
        rng = np.random.default_rng([seed, book, number + 1])
        image = Image.new("RGB", (round(PAGE[0] * SCALE), round(PAGE[1] * SCALE)), look.paper)
        scripts, boxes = [], []
        scene = choose_scene(rng, story)
        for shape in panel_shapes(choose_layout(rng), look, rng):
            scene = choose_scene(rng, story) if rng.random() < 0.2 else scene
            left, top, right, bottom = shape.safe()
            w, h = right - left, bottom - top
            room = room_for_words(w, h, letter_size(w, h)) if w > 40 else 20
            scripts.append(write_panel(rng, story, scene, (w, h), min(room, 120), bool(rng.random() < 0.25)))
            boxes.append(draw_panel(image, shape, scripts[-1], look, rng).box)
        page = image.reduce(SCALE).quantize(int(rng.choice([12, 16, 24, 40])), dither=Image.Dither.NONE).convert("RGB")
        for script, (left, top, right, bottom) in zip(scripts, boxes, strict=True):
            box = (left / PAGE[0], top / PAGE[1], (right - left) / PAGE[0], (bottom - top) / PAGE[1])
            crops.append(tiny.pixels(images.crop(page, box), SIDE + 2 * MARGIN))
            dialogue.append("" if script.textless else " ".join(u.text for u in script.words))
            description.append("" if script.textless else script.description)
            facts.append(facts_of(script))
    return crops, dialogue, description, facts


def draw(n: int, seed: int, workers: int, pages: int = 8) -> Panels:
    """Panels of freshly drawn books, in the order of the books whatever the number of processes."""
    jobs = [(book, seed, pages) for book in range(n)]
    found: list[Any] = []
    with console.progress("books drawn", n) as bar:
        if workers < 2:
            results: Iterator[Any] = map(draw_one, jobs)
        else:
            pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
            results = pool.map(draw_one, jobs, chunksize=2)
        for result in results:
            found.append(result)
            bar.advance(1)
    crops, dialogue, description, facts = ([x for book in found for x in book[i]] for i in range(4))
    books = np.repeat(np.arange(len(found)), [len(book[1]) for book in found])
    return Panels(np.stack(crops), dialogue, description, targets_of(facts), books)


def facts_of(script: PanelScript) -> dict[str, Any]:
    """The facts of a panel as `facts.jsonl` has them, as far as the heads ask for them."""
    fields = ("kind", "hair", "clothes", "clothes_color")
    people = [
        {**{f: getattr(actor.who, f) for f in fields}, "action": actor.action, "emotion": actor.emotion}
        for actor in script.actors
    ]
    place = {"setting": script.setting, "time": script.time, "shot": script.shot}
    return {**place, "props": script.props, "characters": people}


def write(panels: int, seed: int) -> Panels:
    """Panels that are written and not drawn: their words and facts alone."""
    rng = np.random.default_rng([seed, 1])
    dialogue: list[str] = []
    description: list[str] = []
    facts: list[dict[str, Any]] = []
    while len(facts) < panels:
        story = writer.choose_story(rng)
        for _ in range(20):
            size = (float(rng.uniform(80, 380)), float(rng.uniform(80, 280)))
            script = write_panel(rng, story, choose_scene(rng, story), size, int(rng.integers(20, 120)), textless=False)
            dialogue.append(" ".join(u.text for u in script.words))
            description.append(script.description)
            facts.append(facts_of(script))
    none = np.zeros((0, 0, 0, 3), np.uint8)
    return Panels(none, dialogue, description, targets_of(facts), np.arange(len(facts)) // 20)


# --- learning -------------------------------------------------------------------------------------------------------


class Heads(nn.Module):
    """One linear read-out a fact, on a feature; used in training and thrown away."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.read = nn.ModuleDict({name.replace("*", "_x_"): nn.Linear(dim, len(k)) for name, k in classes().items()})

    def forward(self, feature: Tensor) -> dict[str, Tensor]:
        """(n, D) to (n, K) logits of each head."""
        feature = F.gelu(self.norm(feature))
        return {name.replace("_x_", "*"): layer(feature) for name, layer in self.read.items()}


def fact_loss(logits: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
    """Cross-entropy over heads with one class, binary cross-entropy over the others, summed over heads."""
    total = torch.zeros(())
    for name, x in logits.items():
        y = targets[name]
        if name in ONE:
            total = total + F.cross_entropy(x, y)
        else:
            total = total + F.binary_cross_entropy_with_logits(x, y, reduction="sum") / len(x) / 3
    return total


def fit(
    parameters: list[nn.Parameter],
    batches: Callable[[int], Iterator[Tensor]],
    epochs: int,
    steps: int,
    lr: float,
    what: str,
) -> None:
    """AdamW with a one-cycle schedule over `batches(epoch)`, which yields losses."""
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * steps + 1, pct_start=0.2)
    with console.progress(what, epochs * steps) as bar:
        for epoch in range(epochs):
            total = 0.0
            for loss in batches(epoch):
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(parameters, 5.0)
                optimizer.step()
                schedule.step()
                total += float(loss.detach())
                bar.advance(1)
            console.say(f"  {what}: epoch {epoch + 1} of {epochs}, loss {total / steps:.3f}")


def augmented(crops: Array, rng: np.random.Generator) -> Tensor:
    """(n, 3, S, S) pixels: shifted, sometimes mirrored, their light and colour changed a little."""
    side = crops.shape[1]
    cut = rng.integers(0, 2 * MARGIN + 1, size=(len(crops), 2))
    size = rng.integers(SIDE - MARGIN, SIDE + MARGIN + 1, size=len(crops))
    out = torch.empty(len(crops), 3, SIDE, SIDE)
    for i, crop in enumerate(crops):
        y, x = np.minimum(cut[i], side - size[i])
        part = torch.from_numpy(np.ascontiguousarray(crop[y : y + size[i], x : x + size[i]])).permute(2, 0, 1).float()
        out[i] = F.interpolate(part[None], size=(SIDE, SIDE), mode="bilinear", antialias=False)[0]
    mirrored = torch.from_numpy(rng.random(len(crops)) < 0.5)
    out[mirrored] = out[mirrored].flip(-1)
    gain = torch.from_numpy(rng.uniform(0.9, 1.1, size=(len(crops), 3, 1, 1)).astype(np.float32))
    shift = torch.from_numpy(rng.uniform(-10, 10, size=(len(crops), 1, 1, 1)).astype(np.float32))
    return normalised((out * gain + shift).clamp(0, 255))


def normalised(pixels: Tensor) -> Tensor:
    """Pixels 0..255 as the picture network takes them, channels last."""
    mean, std = (torch.tensor(PICTURE[k]).view(3, 1, 1) for k in ("mean", "std"))
    return ((pixels / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def train_picture(panels: Panels, seed: int, epochs: int) -> tuple[tiny.PictureNet, Heads]:
    """The picture encoder and its read-outs."""
    torch.manual_seed(seed)  # initial weights; this process makes weights and nothing else
    net = tiny.PictureNet(PICTURE["widths"], PICTURE["dim"]).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    heads, size = Heads(PICTURE["dim"]), 64
    rng = np.random.default_rng([seed, 2])

    def batches(epoch: int) -> Iterator[Tensor]:
        order = rng.permutation(len(panels))
        for start in range(0, len(order) - size + 1, size):
            rows = order[start : start + size]
            logits = heads(net(augmented(panels.crops[rows], rng)))
            yield fact_loss(logits, {k: v[rows] for k, v in panels.targets.items()})

    fit([*net.parameters(), *heads.parameters()], batches, epochs, len(panels) // size, 4e-3, "picture encoder")
    return net.eval(), heads.eval()


def spoiled(words: list[str], rng: np.random.Generator) -> list[str]:
    """Words as people type them: some left out, some misspelt."""
    kept = []
    for word in words:
        draw = rng.random()
        if draw < 0.08:
            continue
        if draw < 0.13 and len(word) > 3:
            at = int(rng.integers(1, len(word) - 1))
            word = word[:at] + word[at + 1 :] if draw < 0.105 else word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        kept.append(word)
    return kept


def train_text(panels: Panels, seed: int, epochs: int) -> tuple[tiny.TextNet, Heads]:
    """The text encoder and its read-outs."""
    torch.manual_seed(seed + 1)
    net = tiny.TextNet(TEXT["buckets"], TEXT["width"], TEXT["heads"], TEXT["dim"])
    heads, size = Heads(TEXT["dim"]), 128
    rng = np.random.default_rng([seed, 3])
    spoken = [tiny.words_of(t) for t in panels.dialogue]
    described = [tiny.words_of(t) for t in panels.description]

    def batches(epoch: int) -> Iterator[Tensor]:
        order = rng.permutation(len(panels))
        for start in range(0, len(order) - size + 1, size):
            rows = order[start : start + size]
            draw = rng.random(size)
            words = [
                described[i] if d < 0.15 else spoken[i] if d < 0.2 else spoken[i] + described[i]
                for i, d in zip(rows, draw, strict=True)
            ]
            logits = heads(net(*tiny.embed_words(net, [spoiled(w, rng) for w in words], TEXT["buckets"])))
            yield fact_loss(logits, {k: v[rows] for k, v in panels.targets.items()})

    fit([*net.parameters(), *heads.parameters()], batches, epochs, len(panels) // size, 6e-3, "text encoder")
    return net.eval(), heads.eval()


# --- judging and keeping --------------------------------------------------------------------------------------------


@torch.inference_mode()
def scores(features: Tensor, heads: Heads, targets: dict[str, Tensor]) -> dict[str, float]:
    """Accuracy of heads with one class, micro-averaged F1 of the others, in per cent."""
    out = {}
    for name, x in heads(features).items():
        y = targets[name]
        if name in ONE:
            out[name] = float((x.argmax(1) == y.argmax(1)).float().mean()) * 100
        else:
            said = x > 0
            hit = float((said & (y > 0)).sum())
            out[name] = 200 * hit / max(float(said.sum() + y.sum()), 1.0)
    return {name: round(value, 1) for name, value in out.items()}


@torch.inference_mode()
def picture_features(net: tiny.PictureNet, crops: Array) -> Tensor:
    """(N, D) features of crops as they are, without their margin for shifting."""
    out = []
    for start in range(0, len(crops), 64):
        pixels = torch.from_numpy(crops[start : start + 64]).permute(0, 3, 1, 2).float()
        out.append(net(normalised(F.interpolate(pixels, size=(SIDE, SIDE), mode="bilinear", antialias=True))))
    return torch.cat(out)


@torch.inference_mode()
def text_features(net: tiny.TextNet, texts: Sequence[str]) -> Tensor:
    """(N, D) learned part of the text features."""
    out: Tensor = net(*tiny.embed_words(net, [tiny.words_of(t) for t in texts], TEXT["buckets"]))
    return out


def keep(folder: Path, picture: tiny.PictureNet, text: tiny.TextNet, about: dict[str, Any]) -> int:
    """Write both networks (float16 but for the norms' statistics) and their manifest; returns the bytes written."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest: dict[str, Any] = {"made_by": "python -m stage3.tiny_train", "about": about}
    size = 0
    for which, net, settings in (("picture", picture, PICTURE), ("text", text, TEXT)):
        tensors = {}
        for key, tensor in net.state_dict().items():
            small = tensor.is_floating_point() and "running" not in key
            tensors[key] = (tensor.half() if small else tensor).contiguous()
        data = save(tensors)
        (folder / f"tiny_{which}.safetensors").write_bytes(data)
        manifest[which] = {**settings, "sha256": hashlib.sha256(data).hexdigest()}
        size += len(data)
    (folder / "tiny.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return size


def main(argv: Sequence[str] | None = None) -> int:
    """Draw, train, judge on other drawn books, keep."""
    parser = console.Parser("tiny_train", __doc__.split("\n")[0], ["python -m stage3.tiny_train --out stage3/weights"])
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights")
    parser.add_argument("--books", type=int, default=240, help="books drawn to learn from; default 240")
    parser.add_argument("--seed", type=int, default=1000, help="seed of the books and of the weights; default 1000")
    parser.add_argument("--epochs", type=int, default=12, help="passes over the drawn panels; default 12")
    parser.add_argument("--written", type=int, default=40000, help="panels written for the text encoder; default 40000")
    parser.add_argument("--workers", type=int, default=2, help="processes that draw, threads that learn; default 2")
    args = parser.parse(argv)
    if args.seed == SAMPLE_SEED or args.books < 8:
        raise ConfigError(
            f"tiny_train: give a seed other than {SAMPLE_SEED}, the sample comics' own, and 8 books or more"
        )
    start = time.monotonic()
    torch.set_num_threads(args.workers)
    train = draw(args.books, args.seed, args.workers)
    held_out = draw(max(args.books // 12, 2), args.seed + 1, args.workers)
    console.say(
        f"drew {len(train)} panels to learn from and {len(held_out)} to judge by, {time.monotonic() - start:.0f} s"
    )
    picture, picture_heads = train_picture(train, args.seed, args.epochs)
    text, text_heads = train_text(write(args.written, args.seed), args.seed, 4)
    about = {
        "books": args.books,
        "seed": args.seed,
        "held_out_picture": scores(picture_features(picture, held_out.crops), picture_heads, held_out.targets),
        "held_out_text": _text_scores(text, text_heads, write(2000, args.seed + 1)),
    }
    size = keep(args.out, picture, text, about)
    console.say(json.dumps(about, indent=1))
    console.say(f"wrote {size / 1e6:.2f} MB to {args.out} after {time.monotonic() - start:.0f} s")
    return 0


def _text_scores(text: tiny.TextNet, heads: Heads, panels: Panels) -> dict[str, float]:
    words = [f"{a} {b}" for a, b in zip(panels.dialogue, panels.description, strict=True)]
    return scores(text_features(text, words), heads, panels.targets)


if __name__ == "__main__":
    console.run(main)
