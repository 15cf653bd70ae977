"""Decoding a page and cropping its panels: plain Pillow and the fast path, side by side.

    python -m benchmarks.images [--repeats 15] [--json]

One 1988 x 3057 JPEG with six panels, each resized to 224 x 224. Prints the median time of each way, its ratio to plain
Pillow, and how far its pixels are from plain Pillow's (mean difference, of 255).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from stage3.data import images

SIZE = (1988, 3057)
SIDE = 224
BOXES = np.array([[x, y, 0.47, 0.31] for y in (0.02, 0.345, 0.67) for x in (0.02, 0.51)])


def draw_page(path: Path) -> None:
    """Flat colors, outlines, hatching, lettering and some grain, as comics have them."""
    rng = np.random.default_rng(0)
    page = Image.new("RGB", SIZE, "white")
    pen = ImageDraw.Draw(page)
    for x, y, w, h in BOXES:
        left, top, right, bottom = x * SIZE[0], y * SIZE[1], (x + w) * SIZE[0], (y + h) * SIZE[1]
        pen.rectangle((left, top, right, bottom), fill=tuple(rng.integers(90, 230, 3).tolist()), outline=0, width=6)
        for _ in range(60):
            cx, cy, r = rng.uniform(left, right), rng.uniform(top, bottom), rng.uniform(8, 90)
            fill = tuple(rng.integers(0, 256, 3).tolist())
            pen.ellipse((cx - r, cy - r, min(cx + r, right), min(cy + r, bottom)), fill=fill, outline=0, width=3)
        for i in range(40):
            pen.line((left, top + 14 * i, left + 9 * i, top), fill=0, width=2)
        for i in range(4):
            pen.text((left + 40, top + 40 + 40 * i), "WHERE DID THE CAT GO THIS TIME?", fill=0, font_size=34)
    grain = rng.normal(0, 2, (SIZE[1], SIZE[0], 1))
    Image.fromarray(np.clip(np.asarray(page) + grain, 0, 255).astype(np.uint8)).save(path, quality=90)


def plain(path: Path) -> np.ndarray:
    """What a script without this package does."""
    with Image.open(path) as opened:
        page = opened.convert("RGB")
    crops = []
    for x, y, w, h in BOXES:
        box = (round(x * SIZE[0]), round(y * SIZE[1]), round((x + w) * SIZE[0]), round((y + h) * SIZE[1]))
        crops.append(np.asarray(page.crop(box).resize((SIDE, SIDE), Image.Resampling.BICUBIC)))
    return np.stack(crops)


def fast(path: Path) -> np.ndarray:
    """`images.decode_panels`, which resizes too."""
    return np.stack([np.asarray(c) for c in images.decode_panels(path, BOXES, short_side=SIDE, size=(SIDE, SIDE))])


def unsized(path: Path) -> np.ndarray:
    """`images.decode_panels`, then the caller's own resize."""
    crops = images.decode_panels(path, BOXES, short_side=SIDE)
    return np.stack([np.asarray(c.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for c in crops])


def main() -> None:
    """Measure the ways in turn, so that a busy machine slows all of them alike."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.jpg"
        draw_page(path)
        ways: dict[str, Callable[[Path], np.ndarray]] = {
            "plain Pillow": plain,
            "decode_panels": fast,
            "  own resize": unsized,
        }
        results = {name: way(path).astype(np.float64) for name, way in ways.items()}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(args.repeats):
            for name, way in ways.items():
                start = time.perf_counter()
                way(path)
                times[name].append(time.perf_counter() - start)
        base = statistics.median(times["plain Pillow"])
        away = {name: float(np.abs(results[name] - results["plain Pillow"]).mean()) for name in ways}
        if args.json:
            ratios = {name: base / statistics.median(taken) for name, taken in times.items()}
            print(json.dumps({name.strip(): {"ratio": ratios[name], "difference": away[name]} for name in ways}))
            return
        print(f"{path.stat().st_size / 1e6:.1f} MB JPEG, {SIZE[0]} x {SIZE[1]}, {len(BOXES)} panels to {SIDE} x {SIDE}")
        for name in ways:
            median = statistics.median(times[name])
            shown = f"{base / median:7.1f} x  mean difference {away[name]:.2f} / 255"
            print(f"{name:<14} {1000 * median:8.2f} ms  {shown}")


if __name__ == "__main__":
    main()
