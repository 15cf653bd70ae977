"""Balloons, captions and sound effects: words measured, wrapped, placed and drawn with their tails."""

from dataclasses import dataclass
from math import ceil, cos, hypot, pi, sin, sqrt

import numpy as np
from PIL import Image, ImageDraw

from stage3.samples.ink import SCALE, Canvas, Point, font, ring, smooth, text_width
from stage3.samples.looks import Color

Box = tuple[float, float, float, float]  # left, top, right, bottom in the panel's page pixels


@dataclass
class Block:
    """Lettered words: wrapped lines and the room they take."""

    label: str  # "dialogue", "thought", "caption" or "sound"
    text: str
    lines: list[str]
    size: float
    w: float
    h: float
    x: float = 0.0  # left
    y: float = 0.0  # top
    target: Point | None = None  # where a tail points

    @property
    def box(self) -> Box:
        """Where the block lies on the panel."""
        return self.x, self.y, self.x + self.w, self.y + self.h


def wrap(text: str, size: float, width: float) -> list[str]:
    """Words in lines no wider than `width` page pixels, of about equal length."""
    words = text.upper().split()
    total = text_width(" ".join(words), size)
    lines = max(ceil(total / width), 1)
    for n in range(lines, lines + 6):
        goal, out, line = total / n * 1.06, [], ""
        for word in words:
            longer = f"{line} {word}".strip()
            if line and text_width(longer, size) > max(goal, text_width(word, size)):
                out.append(line)
                line = word
            else:
                line = longer
        out.append(line)
        if max(text_width(item, size) for item in out) <= width:
            return out
    return out


def make_block(label: str, text: str, size: float, width: float, balloon: str) -> Block:
    """Wrap a text and measure what surrounds it; at most `width` page pixels wide."""
    if label == "caption":
        lines = wrap(text, size, width - 8)
        w = max(text_width(line, size) for line in lines) + 9
        return Block(label, text, lines, size, w, len(lines) * size * 1.16 + 6)
    round_shape = balloon == "oval" or label == "thought"
    inner = width / (1.26 if round_shape else 1.0) - 10
    lines = wrap(text, size, inner)
    w, h = max(text_width(line, size) for line in lines), len(lines) * size * 1.14
    if round_shape:
        stretch = 1.16 if len(lines) > 1 else 1.1
        return Block(label, text, lines, size, w * stretch + 12, h * (1.3 if len(lines) > 2 else 1.22) + 9)
    return Block(label, text, lines, size, w + 12, h + 9)


def place_blocks(blocks: list[Block], area: Box) -> float:
    """Put blocks along the top of an area in reading order; returns how far down they reach."""
    left, top, right, _ = area
    y, row_bottom, x = top, top, left
    for k, block in enumerate(blocks):
        if k and x + block.w > right + 0.5:
            y, x = row_bottom - (2 if block.label != "caption" else 0), left
        block.x = min(x, right - block.w)
        block.y = y + (0 if x == left else min(5.0, block.h * 0.2))
        x = block.x + block.w + 4
        row_bottom = max(row_bottom, block.y + block.h + 2)
    _spread(blocks, right)
    return row_bottom


def _spread(blocks: list[Block], right: float) -> None:
    """Push each row's last balloon to the right, so that balloons stand over different speakers."""
    spoken = [b for b in blocks if b.label in ("dialogue", "thought")]
    if len(spoken) > 1:
        spoken[-1].x = right - spoken[-1].w


def draw_block(c: Canvas, block: Block) -> None:
    """Draw a placed caption or balloon."""
    if block.label == "caption":
        left, top, right, bottom = block.box
        c.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], c.look.caption, 1.0)
        _letters(c, block, (26, 22, 30))
        return
    outline = _thought(block) if block.label == "thought" else _balloon(block, c.look.balloon)
    shapes = [outline]
    if block.target is not None:
        shapes += _bubbles(block) if block.label == "thought" else [_tail(block)]
    for shape in shapes:
        c.polygon(shape, None, 2.2)
    for shape in shapes:
        c.polygon(shape, (255, 255, 255))
    _letters(c, block, (26, 22, 30))


def _letters(c: Canvas, block: Block, color: Color) -> None:
    step = block.size * (1.16 if block.label == "caption" else 1.14)
    y = block.y + block.h / 2 - step * (len(block.lines) - 1) / 2
    for line in block.lines:
        c.text(block.x + block.w / 2, y, line, block.size, color)
        y += step


def _balloon(block: Block, kind: str) -> list[Point]:
    cx, cy, a, b = block.x + block.w / 2, block.y + block.h / 2, block.w / 2, block.h / 2
    if kind == "oval":
        power = 2 / 2.8  # between an ellipse and a box
    elif kind == "round":
        power = 2 / 5
    else:
        power = 2 / 14
    angles = np.linspace(0, 2 * pi, 48, endpoint=False)
    c, s = np.cos(angles), np.sin(angles)
    xs, ys = cx + a * np.sign(c) * np.abs(c) ** power, cy + b * np.sign(s) * np.abs(s) ** power
    return [(float(x), float(y)) for x, y in zip(xs, ys, strict=True)]


def _thought(block: Block) -> list[Point]:
    cx, cy, a, b = block.x + block.w / 2, block.y + block.h / 2, block.w / 2, block.h / 2
    n = max(round((a + b) / 7), 8)
    points: list[Point] = []
    for k in range(n):
        t0, t1 = 2 * pi * k / n, 2 * pi * (k + 1) / n
        for t, r in ((t0, 0.91), (t0 + (t1 - t0) * 0.28, 1.0), (t0 + (t1 - t0) * 0.72, 1.0)):
            points.append((cx + a * r * cos(t), cy + b * r * sin(t)))
    return smooth(points, steps=4)


def _tail(block: Block) -> list[Point]:
    assert block.target is not None
    tx, ty = block.target
    cx, cy = block.x + block.w / 2, block.y + block.h / 2
    root = (float(np.clip(tx, block.x + block.w * 0.25, block.x + block.w * 0.75)), cy + block.h * 0.3)
    length = max(hypot(tx - root[0], ty - root[1]), 1.0)
    stop = min(max((length - 7) / length, 0.3), (block.h * 0.2 + 46) / length)
    tip = (root[0] + (tx - root[0]) * stop, root[1] + (ty - root[1]) * stop)
    half = min(5.0, block.w * 0.12)
    bend = (root[0] * 0.5 + tip[0] * 0.5 + (cx - tx) * 0.1, root[1] * 0.5 + tip[1] * 0.5)
    return [
        (root[0] - half, root[1]),
        (bend[0] - half * 0.55, bend[1]),
        tip,
        (bend[0] + half * 0.55, bend[1]),
        (root[0] + half, root[1]),
    ]


def _bubbles(block: Block) -> list[list[Point]]:
    assert block.target is not None
    tx, ty = block.target
    x0, y0 = float(np.clip(tx, block.x + block.w * 0.2, block.x + block.w * 0.8)), block.y + block.h
    reach = min(1.0, 60 / max(hypot(tx - x0, ty - y0), 1.0))
    tx, ty = x0 + (tx - x0) * reach, y0 + (ty - y0) * reach
    return [
        ring(x0 + (tx - x0) * t, y0 + (ty - y0) * t, r, r * 0.85, 14) for t, r in ((0.1, 4.2), (0.38, 3.0), (0.64, 2.0))
    ]


def draw_sound(c: Canvas, text: str, center: Point, width: float, color: Color, angle: float, area: Point) -> Box:
    """Big leaning letters of a sound effect; returns where they lie on the panel."""
    size = float(np.clip(width / max(text_width(text, 10.0) / 10.0, 1e-6), 9.0, 40.0))
    face = font(round(size))
    edge = max(round(size * SCALE * 0.07), 3)
    left, top, right, bottom = face.getbbox(text, stroke_width=edge)
    sheet = Image.new("L", (int(right - left) + 8, int(bottom - top) + 8), 0)
    ImageDraw.Draw(sheet).text((4 - left, 4 - top), text, fill=255, font=face, stroke_width=edge)
    inner = Image.new("L", sheet.size, 0)
    ImageDraw.Draw(inner).text((4 - left, 4 - top), text, fill=255, font=face, stroke_width=max(edge // 4, 1))
    sheet, inner = (m.rotate(angle, expand=True, resample=Image.Resampling.BICUBIC) for m in (sheet, inner))
    w, h = sheet.width / SCALE, sheet.height / SCALE
    x = float(np.clip(center[0] - w / 2, 2, max(area[0] - w - 2, 2)))
    y = float(np.clip(center[1] - h / 2, 2, max(area[1] - h - 2, 2)))
    at = (round((x + c.origin[0]) * SCALE), round((y + c.origin[1]) * SCALE))
    c.image.paste((24, 20, 28), at, sheet)
    c.image.paste(color, at, inner)
    return x, y, x + w, y + h


def room_for_words(w: float, h: float, size: float) -> int:
    """How many letters a panel of this size can carry above its figures."""
    return int(0.27 * w * h / (size * size * 1.15)) if min(w, h) > 60 else int(sqrt(w * h) / 6)
