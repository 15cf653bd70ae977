"""Panels that a detector finds, against boxes made by people or by the generator of samples.

    python -m benchmarks.panels                                    on synthetic pages of every style
    python -m benchmarks.panels DIR [DIR ...] [--detector NAME] [--right-to-left BOOK ...] [--json]

DIR is a data set folder (with a dataset.yaml), or holds `manifest_all.csv` or `manifest.csv` and panel files in
`ocr_json/`. One line per book: F1 of boxes that overlap a true one (intersection over union) by .5 and by .8, one to
one; the share of pages exactly right (as many boxes as there are, each at .8); CPU milliseconds per page, without
decoding; on how many pages of several panels the reading order of the true boxes is the file's; and on how many it
calls itself certain. Pages without boxes are left out.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from stage3.config import Config
from stage3.data import images, read
from stage3.data.detect import Detector, load_detector
from stage3.data.readers.order import page_order
from stage3.data.table import PanelTable
from stage3.errors import DataError
from stage3.samples import draw_books
from stage3.samples.styles import STYLES

BOOKS, PAGES, SEED = 6, 6, 11  # of every style
MANIFESTS = ("manifest_all.csv", "manifest.csv")


@dataclass
class Score:
    """Sums over the pages of one book."""

    pages: int = 0
    true: int = 0
    found: int = 0
    right_5: int = 0
    right_8: int = 0
    exact: int = 0
    cpu_s: float = 0.0
    ordered: int = 0
    several: int = 0
    certain: int = 0

    def f1(self, right: int) -> float:
        """Harmonic mean of precision and recall."""
        return 2 * right / max(self.true + self.found, 1)

    def to_json(self) -> dict[str, float]:
        """The sums, and what is made of them."""
        return asdict(self) | {"f1_5": self.f1(self.right_5), "f1_8": self.f1(self.right_8)}


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(A, B) intersection over union of boxes x, y, w, h."""
    low, high = (
        np.maximum(a[:, None, :2], b[None, :, :2]),
        np.minimum(a[:, None, :2] + a[:, None, 2:], b[None, :, :2] + b[None, :, 2:]),
    )
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = a[:, 2:].prod(1)[:, None] + b[:, 2:].prod(1)[None]
    result: np.ndarray = shared / np.maximum(areas - shared, 1e-12)
    return result


def matched(found: np.ndarray, true: np.ndarray, least: float) -> int:
    """How many boxes have a partner that overlaps by `least`, one to one, the best pairs first."""
    table = overlaps(found, true)
    pairs = 0
    for flat in np.argsort(-table, axis=None, kind="stable"):
        i, k = np.unravel_index(flat, table.shape)
        if table[i, k] < least:
            continue  # also what has a partner already
        pairs += 1
        table[i], table[:, k] = -1, -1
    return pairs


def table_of(folder: Path, cache: Path) -> PanelTable:
    """The panel table of a folder.

    Raises:
        DataError: the folder is none of those that are read.
    """
    common = {"cache_dir": str(cache), "max_panels": 64}
    if (folder / "dataset.yaml").is_file():
        return read(Config(data=str(folder), **common))  # type: ignore[arg-type]
    manifest = next((folder / name for name in MANIFESTS if (folder / name).is_file()), None)
    if manifest is None or not (folder / "ocr_json").is_dir():
        raise DataError(f"{folder}: neither a dataset.yaml, nor ocr_json/ and one of {', '.join(MANIFESTS)}")
    parts = {"manifest": str(manifest), "panels": str(folder / "ocr_json"), "panel_format": "ocr"}
    return read(Config(**parts, **common))  # type: ignore[arg-type]


def pages_of(folder: Path, cache: Path) -> Iterator[tuple[str, Path, np.ndarray]]:
    """Book, image and true boxes (N, 4) in shares of the page, of every page with boxes."""
    table = table_of(folder, cache)
    for page in table.pages.itertuples():
        panels = table.panels.iloc[page.first_panel : page.first_panel + page.n_panels]
        boxes = panels.loc[panels.has_box, ["x", "y", "w", "h"]].to_numpy(np.float64)
        if page.image_path and len(boxes):
            yield page.book_id, Path(page.image_path), boxes


def measure(folder: Path, detector: Detector, right_to_left: Sequence[str]) -> dict[str, Score]:
    """Scores by book."""
    scores: dict[str, Score] = {}
    with tempfile.TemporaryDirectory() as cache:
        for book, path, shares in pages_of(folder, Path(cache)):
            image = images.open_page(path)
            start = time.process_time()
            found = detector.find(image).boxes
            score = scores.setdefault(book, Score())
            score.cpu_s += time.process_time() - start
            true = shares * np.tile(image.size, 2)
            add(score, found, true)
            if len(true) > 1:
                order = page_order(true, book in right_to_left)
                score.several += 1
                score.ordered += order.rows == list(range(len(true)))
                score.certain += order.certain
    return scores


def add(score: Score, found: np.ndarray, true: np.ndarray) -> None:
    """Count one page."""
    right = matched(found, true, 0.8)
    score.pages += 1
    score.true += len(true)
    score.found += len(found)
    score.right_5 += matched(found, true, 0.5)
    score.right_8 += right
    score.exact += right == len(true) == len(found)


def synthetic(detector: Detector, books: int = BOOKS) -> dict[str, Score]:
    """Scores by style, of pages that are drawn for it."""
    scores = {}
    for style in STYLES:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "set"
            draw_books(out, books, SEED, PAGES, style=style)
            total = Score()
            for score in measure(out, detector, ()).values():
                for name, value in asdict(score).items():
                    setattr(total, name, getattr(total, name) + value)
        scores[f"synthetic, {style}"] = total
    return scores


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="DIR", help="none: synthetic pages")
    parser.add_argument("--detector", default="own", metavar="NAME", help='"own", or a model folder or id')
    parser.add_argument("--classes", nargs="*", default=(), metavar="NAME", help="the model's classes that are panels")
    parser.add_argument("--right-to-left", nargs="*", default=(), metavar="BOOK", help="books read from the right")
    parser.add_argument("--books", type=int, default=BOOKS, metavar="N", help="synthetic books of every style")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    try:
        detector = load_detector(args.detector, args.classes)
        scores = {} if args.folders else synthetic(detector, args.books)
        for folder in args.folders:
            scores |= measure(folder, detector, args.right_to_left)
    except DataError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    if args.json:
        print(json.dumps({book: score.to_json() for book, score in scores.items()}))
        return 0
    print(
        f"{'':<26}{'pages':>6}{'panels':>7}{'F1@.5':>7}{'F1@.8':>7}{'exact':>7}{'CPU ms':>8}{'order':>9}{'certain':>9}"
    )
    for book, s in scores.items():
        order, certain = f"{s.ordered}/{s.several}", f"{s.certain}/{s.several}"
        cpu = 1000 * s.cpu_s / s.pages
        print(
            f"{book:<26}{s.pages:>6}{s.true:>7}{s.f1(s.right_5):>7.2f}{s.f1(s.right_8):>7.2f}"
            f"{100 * s.exact / s.pages:>6.0f}%{cpu:>8.0f}{order:>9}{certain:>9}"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
