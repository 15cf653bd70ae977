"""Lines into balloons and captions, and what kind of text each is, by size and place alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from stage3.data.ocr.lines import Box, Line

Kind = Literal["dialogue", "sound", "page_number"]

APART = 0.8  # heights of a line; lines of one balloon are nearer to each other
BESIDE = 0.9  # heights of a line; words of one line are nearer to each other
SAME_ROW = 0.5  # share of the lower line's height that two lines of one row have in common
OVERLAP = 0.2  # share of the narrower line's width that two lines below each other have in common
SAME_SIZE = 1.7  # ratio of two lines' heights in one balloon
TALL = 1.5  # times as high as wide: a column of vertical text
LOUD = 2.0  # times the usual height of a line: lettering of a sound
LOUD_WORDS = 2  # a longer large text is a title or a sign
MARGIN = 0.08  # of the page's height, where page numbers stand
NUMBER = re.compile(r"[-–— ]*\d{1,4}[-–— ]*", re.ASCII)


@dataclass(frozen=True)
class Block:
    """One balloon, caption or sign.

    Attributes:
        text: its lines in reading order, joined.
        box: x, y, width, height around them, in pixels.
        confidence: mean of its lines, each counted by its letters, 0 to 1.
        kind: dialogue, sound or page_number.
    """

    text: str
    box: Box
    confidence: float
    kind: Kind = "dialogue"


def usual_height(lines: Sequence[Line]) -> float:
    """The height (of a column: the width) of the page's middle letter, in pixels; 0 without lines."""
    sizes = [_letter(line) for line in lines for _ in range(len(line.text))]
    return float(median(sizes)) if sizes else 0.0


def column_layout(lines: Sequence[Line]) -> bool:
    """Whether most letters stand in columns, as in Japanese from top to bottom."""
    tall = sum(len(line.text) for line in lines if _is_tall(line))
    return 2 * tall > sum(len(line.text) for line in lines)


def blocks(lines: Sequence[Line], page_height: int, owners: Sequence[int | None] = ()) -> list[Block]:
    """Lines that stand together, joined; in no order.

    Args:
        lines: the lines of a page.
        page_height: in pixels.
        owners: of each line the panel that certainly holds it, None where that is uncertain; lines of different panels
            are never joined. Empty when nothing is known of panels.
    """
    usual = usual_height(lines)
    made = []
    for group in _groups(lines, owners or [None] * len(lines)):
        ordered = _in_order([lines[k] for k in group])
        letters = [max(len(line.text), 1) for line in ordered]
        sure = sum(n * line.confidence for n, line in zip(letters, ordered, strict=True)) / sum(letters)
        box = _around([line.box for line in ordered])
        text = _joined([line.text for line in ordered])
        made.append(Block(text, box, sure, _kind(text, ordered, box, usual, page_height)))
    return made


def _kind(text: str, lines: Sequence[Line], box: Box, usual: float, page_height: int) -> Kind:
    middle = box[1] + box[3] / 2
    if NUMBER.fullmatch(text) and not MARGIN * page_height <= middle <= (1 - MARGIN) * page_height:
        return "page_number"
    if max(map(_letter, lines)) >= LOUD * usual and len(text.split()) <= LOUD_WORDS:
        return "sound"
    return "dialogue"


def _is_tall(line: Line) -> bool:
    return len(line.text) > 1 and line.box[3] >= TALL * line.box[2]


def _letter(line: Line) -> float:
    return line.box[2] if _is_tall(line) else line.box[3]


def _groups(lines: Sequence[Line], owners: Sequence[int | None]) -> list[list[int]]:
    """Indices of lines that belong together, the first line of each group in the order given."""
    group = list(range(len(lines)))
    panel = list(owners)  # of each group, by the index of its first line
    for i in range(len(lines)):
        for k in range(i):
            new, old = sorted((group[i], group[k]))
            apart = panel[new] is not None and panel[old] is not None and panel[new] != panel[old]
            if new != old and not apart and _together(lines[i], lines[k]):
                panel[new] = panel[old] if panel[new] is None else panel[new]
                group = [new if g == old else g for g in group]
    return [[k for k, g in enumerate(group) if g == wanted] for wanted in dict.fromkeys(group)]


def _together(a: Line, b: Line) -> bool:
    """Whether two lines are neighbors in one balloon: below each other, or in one row; of columns, side by side."""
    if _is_tall(a) != _is_tall(b):
        return False
    first, second = (_turned(a.box), _turned(b.box)) if _is_tall(a) else (a.box, b.box)
    low, high = sorted((first[3], second[3]))
    if high > SAME_SIZE * low:
        return False
    across, down = _shared(first, second, 0), _shared(first, second, 1)
    if down >= SAME_ROW * low:
        return across >= -BESIDE * low
    return down >= -APART * low and across >= OVERLAP * min(first[2], second[2])


def _turned(box: Box) -> Box:
    """A column as if it were a line: x and y exchanged."""
    return box[1], box[0], box[3], box[2]


def _shared(a: Box, b: Box, axis: int) -> float:
    """How long two boxes run side by side along an axis; negative is the gap between them."""
    return min(a[axis] + a[axis + 2], b[axis] + b[axis + 2]) - max(a[axis], b[axis])


def _in_order(lines: Sequence[Line]) -> list[Line]:
    """The lines of a balloon: rows from top to bottom, each from left to right; columns from right to left.

    The direction of a page is that of its panels and balloons: letters of a line that was read as a row stand from left
    to right in a manga too.
    """
    if column_layout(lines):
        return sorted(lines, key=lambda line: (-(line.box[0] + line.box[2] / 2), line.box[1]))
    rows: list[list[Line]] = []
    for line in sorted(lines, key=lambda line: line.box[1] + line.box[3] / 2):
        last = rows[-1][-1] if rows else None
        if last is not None and _shared(last.box, line.box, 1) >= SAME_ROW * min(last.box[3], line.box[3]):
            rows[-1].append(line)
        else:
            rows.append([line])
    return [line for row in rows for line in sorted(row, key=lambda line: line.box[0])]


def _joined(texts: Sequence[str]) -> str:
    """Lines as one text. Between letters of scripts without spaces stands none."""
    made = ""
    for text in texts:
        bare = made and text and _spaceless(made[-1]) and _spaceless(text[0])
        made += text if bare or not made else f" {text}"
    return made


def _spaceless(letter: str) -> bool:
    """Whether a letter is of Chinese or Japanese writing."""
    return "\u3000" <= letter <= "\u30ff" or "\u3400" <= letter <= "\u9fff" or "\uff00" <= letter <= "\uffef"


def _around(boxes: Sequence[Box]) -> Box:
    left, top = min(b[0] for b in boxes), min(b[1] for b in boxes)
    right, low = max(b[0] + b[2] for b in boxes), max(b[1] + b[3] for b in boxes)
    return left, top, right - left, low - top


def balloons(boxes: Sequence[Box]) -> list[Box]:
    """Boxes around lines that stand together, for readers that read a balloon at a time."""
    lines = [Line("??", box, 1.0) for box in boxes]  # two letters: a tall box is a column
    return [_around([boxes[k] for k in group]) for group in _groups(lines, [None] * len(lines))]
