"""Text that a reader finds, against transcripts made by people or by the generator of samples.

    python -m benchmarks.ocr                                    on pages of data/samples
    python -m benchmarks.ocr DIR [--books NAME ...] [--text HOW] [--right-to-left BOOK ...] [--show] [--json]

DIR is as for `benchmarks.panels`; panels are the true ones, so that reading alone is measured. One line per book:

- character error rate: edits (Levenshtein) from what was read to the transcript, over the transcript's characters;
- panels with text whose text is right: 1 - edits / length of the longer one is at least 0.8;
- panels without text in which nothing was read;
- CPU seconds per page, without decoding.

Compared are letters and digits in lower case with single spaces; sounds count, page numbers do not. `spaces` is the
character error rate that is left without any spaces: more than that, splitting glued words could not gain.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.panels import table_of
from stage3.data import images
from stage3.data.ocr import OCR, TextReader, load_reader
from stage3.data.ocr.placing import placed
from stage3.errors import ConfigError, DataError

SAMPLES, PAGES = Path("data/samples"), 24  # pages of the samples, the first of each book in turn
RIGHT = 0.8  # similarity


@dataclass
class Score:
    """Sums over the pages of one book."""

    pages: int = 0
    edits: int = 0
    letters: int = 0
    edits_without_spaces: int = 0
    letters_without_spaces: int = 0
    with_text: int = 0
    right: int = 0
    without_text: int = 0
    left_empty: int = 0
    cpu_s: float = 0.0

    def to_json(self) -> dict[str, float]:
        """The sums, and what is made of them."""
        return asdict(self) | {
            "error_rate": self.edits / max(self.letters, 1),
            "error_rate_without_spaces": self.edits_without_spaces / max(self.letters_without_spaces, 1),
            "share_right": self.right / max(self.with_text, 1),
        }


def plain(text: str) -> str:
    """Letters and digits in lower case, single spaces; apostrophes part no words."""
    return " ".join(re.sub(r"[\W_]+", " ", re.sub("['’]", "", text.casefold())).split())


def distance(a: str, b: str) -> int:
    """Levenshtein distance: the least number of letters to insert, delete or change."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        made = [i]
        for k, y in enumerate(b, start=1):
            made.append(min(row[k] + 1, made[-1] + 1, row[k - 1] + (x != y)))
        row = made
    return row[-1]


def add(score: Score, read: str, true: str) -> bool:
    """Count one panel; whether it is right."""
    read, true = plain(read), plain(true)
    edits = distance(read, true)
    score.edits += edits
    score.letters += len(true)
    bare = true.replace(" ", "")
    score.edits_without_spaces += distance(read.replace(" ", ""), bare)
    score.letters_without_spaces += len(bare)
    if not true:
        score.without_text += 1
        score.left_empty += not read
        return not read
    right = 1 - edits / max(len(read), len(true)) >= RIGHT
    score.with_text += 1
    score.right += right
    return right


def pages_of(folder: Path, cache: Path, books: Sequence[str]) -> Iterator[tuple[str, str, Path, np.ndarray, list[str]]]:
    """Book, page, image, true boxes (N, 4) in shares of the page and transcripts (N,) of every page with boxes."""
    table = table_of(folder, cache)
    for page in table.pages.itertuples():
        panels = table.panels.iloc[page.first_panel : page.first_panel + page.n_panels]
        panels = panels[panels.has_box]
        if page.image_path and len(panels) and (not books or page.book_id in books):
            shares = panels[["x", "y", "w", "h"]].to_numpy(np.float64)
            yield page.book_id, page.page_id, Path(page.image_path), shares, list(panels.dialogue)


def measure(
    folder: Path,
    reader: TextReader,
    *,
    books: Sequence[str] = (),
    right_to_left: Sequence[str] = (),
    most: int = 0,
    show: bool = False,
) -> dict[str, Score]:
    """Scores by book; `most` pages at most, 0 for all."""
    scores: dict[str, Score] = {}
    with tempfile.TemporaryDirectory() as cache:
        for count, (book, page_id, path, shares, true) in enumerate(pages_of(folder, Path(cache), books)):
            if most and count == most:
                break
            image = images.open_page(path)
            start = time.process_time()
            lines = reader.read(image)
            boxes = [(x, y, w, h) for x, y, w, h in (shares * np.tile(image.size, 2)).tolist()]
            found = placed(lines, boxes, image.size, book in right_to_left)
            score = scores.setdefault(book, Score())
            score.cpu_s += time.process_time() - start
            score.pages += 1
            for k, (some, wanted) in enumerate(zip(found.panels, true, strict=True), start=1):
                read = " ".join(block.text for block in some)
                if not add(score, read, wanted) and show:
                    print(f"{page_id} panel {k}\n  read {read!r}\n  true {wanted!r}")
    return scores


def total(scores: dict[str, Score]) -> Score:
    """All books together."""
    made = Score()
    for score in scores.values():
        for name, value in asdict(score).items():
            setattr(made, name, getattr(made, name) + value)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, metavar="DIR", help="none: pages of data/samples")
    parser.add_argument("--books", nargs="*", default=(), metavar="NAME", help="these books alone")
    parser.add_argument("--text", default=OCR, metavar="HOW", help='"ocr", or an image-to-text model folder or id')
    parser.add_argument("--right-to-left", nargs="*", default=(), metavar="BOOK", help="books read from the right")
    parser.add_argument("--pages", type=int, default=PAGES, metavar="N", help="pages of the samples")
    parser.add_argument("--show", action="store_true", help="print the panels that are not right")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    try:
        reader = load_reader(args.text)
        most = 0 if args.folder else args.pages
        scores = measure(
            args.folder or SAMPLES,
            reader,
            books=args.books,
            right_to_left=args.right_to_left,
            most=most,
            show=args.show,
        )
    except (ConfigError, DataError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    if len(scores) > 1:
        scores["all"] = total(scores)
    if args.json:
        print(json.dumps({book: score.to_json() for book, score in scores.items()}))
        return 0
    print(f"{'':<26}{'pages':>6}{'letters':>9}{'errors':>8}{'spaces':>8}{'right':>12}{'empty':>9}{'CPU s':>7}")
    for book, s in scores.items():
        found = s.to_json()
        right, empty = f"{s.right}/{s.with_text}", f"{s.left_empty}/{s.without_text}"
        print(
            f"{book:<26}{s.pages:>6}{s.letters:>9,}{100 * found['error_rate']:>7.1f}%"
            f"{100 * found['error_rate_without_spaces']:>7.1f}%{right:>12}{empty:>9}{s.cpu_s / s.pages:>7.2f}"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
