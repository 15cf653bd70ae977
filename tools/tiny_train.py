"""`python -m tools.tiny_train`: make the weights of the `tiny` backbones from freshly drawn synthetic comics.

Both encoders learn to tell the facts of a panel, the image encoder from crops of drawn pages, the text encoder from
the words of many more panels, which cost nothing to write. What they then give as features is the layer below the
facts. The books are drawn with seeds of their own, never with that of the shipped samples.

Shapes: N panels, S side of a crop, K classes of a head, D size of a feature.
"""

from __future__ import annotations

import hashlib
import io
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

from stage3 import cli
from stage3.data import images
from stage3.errors import ConfigError
from stage3.features.backbones import tiny
from stage3.samples import facts as sample_facts
from stage3.samples import writer
from stage3.samples.script import PanelScript, choose_scene, write_panel

Array = np.ndarray[Any, Any]
SAMPLE_SEED = 0  # of data/samples, which these weights must never have seen
SIDE, MARGIN = 80, 8  # pixels: what the network sees, and the room for shifting a crop in training
IMAGE: dict[str, Any] = {
    "widths": [32, 32, 64, 96, 144],
    "strides": [1, 2, 2, 1],
    "dim": 128,
    "preprocessing": {"size": SIDE, "fit": "squeeze", "resample": "bilinear", "mean": [0.5] * 3, "std": [0.25] * 3},
}
TEXT: dict[str, Any] = {
    "buckets": 6144,
    "width": 48,
    "heads": 8,
    "dim": 128,
    "fixed": 96,
    "fixed_norm": 5.0,
    "max_words": 160,
}
PAIRS = {
    "kind*clothes_color": ("kind", "clothes_color"),
    "kind*action": ("kind", "action"),
    "kind*emotion": ("kind", "emotion"),
}
PERSON = ("kind", "hair", "clothes", "clothes_color", "action", "emotion")
ONE = ("setting", "time", "shot", "people")  # exactly one class a panel; every other head may have several


@dataclass(frozen=True)
class People:
    """Everybody in the drawn panels, for telling the image encoder what it sees where.

    Attributes:
        panel: (Q,) row of the panel that each of the Q people is in.
        boxes: (Q, 4) top, left, bottom, right as shares of the crop.
        classes: (Q,) class of each fact in `PERSON`.
    """

    panel: Array
    boxes: Array
    classes: dict[str, Tensor]


@dataclass(frozen=True)
class Panels:
    """Drawn or merely written panels.

    Attributes:
        crops: (N, S + 2 MARGIN, S + 2 MARGIN, 3) uint8; no rows when only words were written.
        dialogue: (N,) what is said.
        description: (N,) what is described.
        targets: multi-hot facts of each head, (N, K) float32.
        books: (N,) number of the book.
        people: everybody in the crops, one by one.
    """

    crops: Array
    dialogue: list[str]
    description: list[str]
    targets: dict[str, Tensor]
    books: Array
    people: People

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


def people_of(facts: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """Class numbers of everybody's facts, panel after panel: (Q,) for each name in `PERSON`."""
    known = sample_facts.VOCABULARIES
    return {
        name: torch.tensor([known[name].index(who[name]) for f in facts for who in f["characters"]], dtype=torch.long)
        for name in PERSON
    }


# --- the data -------------------------------------------------------------------------------------------------------


def draw_one(job: tuple[int, int, int]) -> list[tuple[Array, str, str, dict[str, Any], Array]]:
    """Crop, dialogue, description, facts and people's boxes of every story panel of one drawn book."""
    book, seed, pages = job
    found = []
    for page in writer.draw_book(book, seed, pages):
        if not page.facts:
            continue  # covers and advertisements
        page_image = Image.open(io.BytesIO(page.image)).convert("RGB")  # our own bytes: nothing to guard against
        for panel, fact in zip(page.record["panels"], page.facts, strict=True):
            top, left, bottom, right = (v / 1000 for v in panel["box_2d"])
            crop = tiny.pixels(images.crop(page_image, (left, top, right - left, bottom - top)), SIDE + 2 * MARGIN)
            people = np.array([who["box_2d"] for who in panel["characters"]], dtype=np.float32).reshape(-1, 4) / 1000
            corner = np.array((top, left, top, left), dtype=np.float32)
            extent = np.array((bottom - top, right - left) * 2, dtype=np.float32)
            boxes = (people - corner) / extent  # (people, 4) top, left, bottom, right as shares of the crop
            dialogue = " ".join(t["text"] for t in panel["text_content"])
            found.append((crop, dialogue, panel["description"], fact, boxes.clip(0, 1)))
    return found


def draw(n: int, seed: int, workers: int, pages: int = 8) -> Panels:
    """Panels of freshly drawn books, in the order of the books whatever the number of processes."""
    jobs = [(book, seed, pages) for book in range(n)]
    with cli.progress("books drawn", n) as bar:
        if workers < 2:
            found = [_advanced(draw_one(job), bar) for job in jobs]
        else:
            with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
                found = [_advanced(panels, bar) for panels in pool.map(draw_one, jobs)]
    crops, dialogue, description, facts, boxes = zip(*(panel for book in found for panel in book), strict=True)
    books = np.repeat(np.arange(len(found)), [len(book) for book in found])
    owner = np.repeat(np.arange(len(boxes)), [len(b) for b in boxes])
    people = People(owner, np.concatenate(boxes), people_of(facts))
    return Panels(np.stack(crops), list(dialogue), list(description), targets_of(facts), books, people)


def _advanced(value: Any, bar: cli.Progress) -> Any:
    bar.advance(1)
    return value


def drawn(folder: Path | None, n: int, seed: int, workers: int) -> Panels:
    """`draw`, or what an earlier call kept in `folder`; drawing is half of all the work."""
    path = folder / f"{n}-books-seed-{seed}-side-{SIDE + 2 * MARGIN}.npz" if folder else None
    if path is None or not path.is_file():
        panels = draw(n, seed, workers)
        if path is None:
            return panels
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {f"target/{k}": v.numpy() for k, v in panels.targets.items()}
        arrays |= {f"class/{k}": v.numpy() for k, v in panels.people.classes.items()}
        arrays |= {
            "crops": panels.crops,
            "books": panels.books,
            "panel": panels.people.panel,
            "boxes": panels.people.boxes,
        }
        words = np.frombuffer(json.dumps([panels.dialogue, panels.description]).encode(), dtype=np.uint8)
        np.savez(path, allow_pickle=False, words=words, **arrays)
    with np.load(path, allow_pickle=False) as kept:
        dialogue, description = json.loads(kept["words"].tobytes())
        named = {
            p: {k.split("/")[1]: torch.from_numpy(kept[k]) for k in kept if k.startswith(p)}
            for p in ("target/", "class/")
        }
        people = People(kept["panel"], kept["boxes"], named["class/"])
        return Panels(kept["crops"], dialogue, description, named["target/"], kept["books"], people)


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
    nobody = People(np.zeros(0, np.int64), np.zeros((0, 4), np.float32), people_of([]))
    return Panels(none, dialogue, description, targets_of(facts), np.arange(len(facts)) // 20, nobody)


# --- learning -------------------------------------------------------------------------------------------------------


class Heads(nn.Module):
    """One linear read-out per fact, on a feature; used in training and thrown away."""

    def __init__(self, dim: int, targets: dict[str, Tensor]) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.read = nn.ModuleDict()
        for name, target in targets.items():
            layer = nn.Linear(dim, target.shape[1])
            share = target.mean(dim=0).clamp(1e-3, 0.999)
            layer.bias.data.copy_(share.log() if name in ONE else torch.logit(share))  # begins at how common each is
            self.read[name.replace("*", "_x_")] = layer

    def forward(self, feature: Tensor) -> dict[str, Tensor]:
        """(n, D) to (n, K) logits of each head."""
        feature = F.gelu(self.norm(feature))
        return {name.replace("_x_", "*"): layer(feature) for name, layer in self.read.items()}


def fact_loss(logits: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
    """Cross-entropy over heads with one class, binary cross-entropy over the others, weighted and summed over heads."""
    total = torch.zeros(())
    for name, x in logits.items():
        y = targets[name]
        if name in ONE:
            total = total + 4 * F.cross_entropy(x, y)
        else:
            weight = 0.2 if name in PAIRS else 1.0  # pairs have many classes, nearly all of them absent
            missed = x.new_tensor(3.0)  # a fact that is there and not told costs more than one told and not there
            told = F.binary_cross_entropy_with_logits(x, y, reduction="sum", pos_weight=missed)
            total = total + weight * told / len(x)
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
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=max(epochs * steps + 1, 10), pct_start=0.2
    )
    with cli.progress(what, epochs * steps) as bar:
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
            cli.say(f"  {what}: epoch {epoch + 1} of {epochs}, loss {total / steps:.3f}")


def augmented(crops: Array, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Crops shifted, scaled, sometimes mirrored, their light and color changed a little.

    Returns:
        (n, 3, S, S) normalized pixels, and (n, 4) what part of the stored crop they show: top, left, bottom, right as
        shares, left above right where it is mirrored.
    """
    n, side = len(crops), crops.shape[1]
    size = int(rng.integers(SIDE + MARGIN // 2, side + 1))  # one scale a batch
    corner = rng.integers(0, side - size + 1, size=(n, 2))
    cut = np.stack([c[y : y + size, x : x + size] for c, (y, x) in zip(crops, corner, strict=True)])
    out = torch.from_numpy(cut).permute(0, 3, 1, 2).float()
    out = F.interpolate(out, size=(SIDE, SIDE), mode="bilinear", antialias=False)
    window = np.concatenate([corner, corner + size], axis=1) / np.float32(side)
    mirrored = rng.random(n) < 0.5
    out[torch.from_numpy(mirrored)] = out[torch.from_numpy(mirrored)].flip(-1)
    window[mirrored] = window[mirrored][:, [0, 3, 2, 1]]
    gain = torch.from_numpy(rng.uniform(0.92, 1.08, size=(n, 3, 1, 1)).astype(np.float32))
    shift = torch.from_numpy(rng.uniform(-8, 8, size=(n, 1, 1, 1)).astype(np.float32))
    return normalized((out * gain + shift).clamp(0, 255)), torch.from_numpy(window.astype(np.float32))


def normalized(pixels: Tensor) -> Tensor:
    """Pixels 0..255 as the image network takes them, channels last."""
    mean, std = (torch.tensor(IMAGE["preprocessing"][k]).view(3, 1, 1) for k in ("mean", "std"))
    return ((pixels / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def covered(boxes: Tensor, window: Tensor, cells: int) -> Tensor:
    """(Q, cells, cells) share of each box in the cells of a map of the window; rows sum to 1, or to 0 when outside."""
    edges = torch.arange(cells + 1) / cells

    def along(first: Tensor, last: Tensor, start: Tensor, end: Tensor) -> Tensor:
        a, b = (first - start) / (end - start), (last - start) / (end - start)
        low, high = torch.minimum(a, b)[:, None], torch.maximum(a, b)[:, None]
        return (torch.minimum(high, edges[1:]) - torch.maximum(low, edges[:-1])).clamp(min=0)

    tall = along(boxes[:, 0], boxes[:, 2], window[:, 0], window[:, 2])
    wide = along(boxes[:, 1], boxes[:, 3], window[:, 1], window[:, 3])
    area = tall[:, :, None] * wide[:, None]
    return area / area.sum(dim=(1, 2), keepdim=True).clamp(min=1e-6)


class PersonHeads(nn.Module):
    """Read-outs of one person's facts from the map where that person stands; used in training and thrown away."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        known = sample_facts.VOCABULARIES
        self.read = nn.ModuleDict({name: nn.Linear(channels, len(known[name])) for name in PERSON})

    def forward(self, maps: Tensor, shares: Tensor, people: Tensor, classes: dict[str, Tensor]) -> Tensor:
        """Cross-entropy of everybody's facts, summed over facts and averaged over the batch's panels.

        Args:
            maps: (n, C, h, w) last map of the network.
            shares: (Q, h, w) from `covered`.
            people: (Q,) row of `maps` that each person is in.
            classes: (Q,) class of each fact.
        """
        seen = torch.einsum("qchw,qhw->qc", maps[people], shares)
        total = torch.zeros(())
        for name, layer in self.read.items():
            total = total + F.cross_entropy(layer(seen), classes[name], reduction="sum") / len(maps)
        return total


def train_image(panels: Panels, seed: int, epochs: int) -> tuple[tiny.ImageNet, Heads]:
    """The image encoder and its read-outs."""
    torch.manual_seed(seed)  # initial weights; this process makes weights and nothing else
    net = tiny.ImageNet(IMAGE["widths"], IMAGE["strides"], IMAGE["dim"])
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    heads, size = Heads(IMAGE["dim"], panels.targets), min(64, len(panels))
    person = PersonHeads(IMAGE["widths"][-1])
    rng = np.random.default_rng([seed, 2])
    first = np.searchsorted(panels.people.panel, np.arange(len(panels) + 1))

    def batches(epoch: int) -> Iterator[Tensor]:
        order = rng.permutation(len(panels))
        for start in range(0, len(order) - size + 1, size):
            rows = order[start : start + size]
            who = np.concatenate([np.arange(first[r], first[r + 1]) for r in rows])
            where = torch.from_numpy(np.repeat(np.arange(size), first[rows + 1] - first[rows]))
            pixels, window = augmented(panels.crops[rows], rng)
            with torch.autocast("cpu", dtype=torch.bfloat16):  # twice as quick where the processor knows bfloat16
                maps = net.maps(pixels)
            maps = maps.float()
            boxes = torch.from_numpy(panels.people.boxes[who])
            shares = covered(boxes, window[where], maps.shape[-1])
            classes = {k: v[who] for k, v in panels.people.classes.items()}
            told = fact_loss(heads(net.pool(maps)), {k: v[rows] for k, v in panels.targets.items()})
            yield told + person(maps, shares, where, classes)

    parameters = [*net.parameters(), *heads.parameters(), *person.parameters()]
    fit(parameters, batches, epochs, len(panels) // size, 6e-3, "image encoder")
    return net.eval(), heads.eval()


def spoiled(words: list[str], rng: np.random.Generator) -> list[str]:
    """Words as people type them: some left out, some misspelled."""
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
    heads, size = Heads(TEXT["dim"], panels.targets), min(64, len(panels))
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

    fit([*net.parameters(), *heads.parameters()], batches, epochs, len(panels) // size, 8e-3, "text encoder")
    return net.eval(), heads.eval()


# --- judging and keeping --------------------------------------------------------------------------------------------


@torch.inference_mode()
def scores(features: Tensor, heads: Heads, targets: dict[str, Tensor]) -> dict[str, float]:
    """Accuracy of heads with one class, micro-averaged F1 of the others, in percent."""
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
def image_features(net: tiny.ImageNet, crops: Array) -> Tensor:
    """(N, D) features of crops as they are, without their margin for shifting."""
    out = []
    for start in range(0, len(crops), 64):
        pixels = torch.from_numpy(crops[start : start + 64]).permute(0, 3, 1, 2).float()
        out.append(net(normalized(F.interpolate(pixels, size=(SIDE, SIDE), mode="bilinear", antialias=True))))
    return torch.cat(out)


@torch.inference_mode()
def text_features(net: tiny.TextNet, texts: Sequence[str]) -> Tensor:
    """(N, D) learned part of the text features."""
    out: Tensor = net(*tiny.embed_words(net, [tiny.words_of(t) for t in texts], TEXT["buckets"]))
    return out


@torch.no_grad()
def standardize(project: nn.Linear, features: Tensor) -> None:
    """Shift and scale a network's last layer so that its features have mean 0 and a mean square of 1 on `features`."""
    mean = features.mean(dim=0)
    scale = (features - mean).square().mean().sqrt().clamp(min=1e-6)
    project.weight /= scale
    project.bias.copy_((project.bias - mean) / scale)


def keep(folder: Path, image: tiny.ImageNet, text: tiny.TextNet, about: dict[str, Any]) -> int:
    """Write both networks (float16 but for the norms' statistics) and their manifest; returns the bytes written."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest: dict[str, Any] = {"made_by": "python -m tools.tiny_train", "about": about}
    size = 0
    for which, net, settings in (("image", image, IMAGE), ("text", text, TEXT)):
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
    """Draw, train, evaluate on other books, keep the weights."""
    parser = cli.Parser(
        "tools.tiny_train",
        __doc__.split("\n")[0],
        ["python -m tools.tiny_train --out stage3/features/backbones/weights"],
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights")
    parser.add_argument("--books", type=int, default=200, help="books drawn for training; default 200")
    parser.add_argument("--seed", type=int, default=1000, help="seed of the books and of the weights; default 1000")
    parser.add_argument("--epochs", type=int, default=36, help="passes over the drawn panels; default 36")
    parser.add_argument("--written", type=int, default=30000, help="panels written for the text encoder; default 30000")
    parser.add_argument("--workers", type=int, default=2, help="processes that draw; default 2")
    parser.add_argument("--threads", type=int, default=1, help="training threads; default 1, for reproducible weights")
    parser.add_argument("--drawn", type=Path, default=None, help="folder that keeps the drawn panels for the next call")
    args = parser.parse(argv)
    if args.seed == SAMPLE_SEED or args.books < 2:
        raise ConfigError(
            f"tiny_train: give a seed other than {SAMPLE_SEED}, the sample comics' own, and 2 books or more"
        )
    start = time.monotonic()
    torch.set_num_threads(args.threads)
    train = drawn(args.drawn, args.books, args.seed, args.workers)
    held_out = drawn(args.drawn, max(args.books // 12, 2), args.seed + 1, args.workers)
    cli.say(f"drew {len(train)} panels for training, {len(held_out)} for evaluation, {time.monotonic() - start:.0f} s")
    image, image_heads = train_image(train, args.seed, args.epochs)
    text, text_heads = train_text(write(args.written, args.seed), args.seed, 6)
    about = {
        "books": args.books,
        "seed": args.seed,
        "held_out_image": scores(image_features(image, held_out.crops), image_heads, held_out.targets),
        "held_out_text": _text_scores(text, text_heads, write(2000, args.seed + 1)),
    }
    standardize(image.project, image_features(image, train.crops))
    standardize(text.project, text_features(text, _words(write(2000, args.seed))))
    size = keep(args.out, image, text, about)
    cli.say(json.dumps(about, indent=1))
    cli.say(f"wrote {size / 1e6:.2f} MB to {args.out} after {time.monotonic() - start:.0f} s")
    return 0


def _text_scores(text: tiny.TextNet, heads: Heads, panels: Panels) -> dict[str, float]:
    return scores(text_features(text, _words(panels)), heads, panels.targets)


def _words(panels: Panels) -> list[str]:
    return [f"{a} {b}" for a, b in zip(panels.dialogue, panels.description, strict=True)]


if __name__ == "__main__":
    cli.run(main)
