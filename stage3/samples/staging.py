"""Staging: where figures, props and balloons go in a panel, and the panel drawn."""

from dataclasses import dataclass, field, replace
from math import cos, radians, sin

import numpy as np
from PIL import Image, ImageDraw

from stage3.samples.figures import HEAD, POSES, Figure, Frame, Pose, draw_figure, pose_body
from stage3.samples.ink import SCALE, Canvas, Letters, Point
from stage3.samples.layout import Shape
from stage3.samples.lettering import Block, Box, draw_block, draw_sound, make_block, place_blocks
from stage3.samples.looks import Color, Look, darker
from stage3.samples.props import draw_prop
from stage3.samples.script import PanelScript
from stage3.samples.settings import draw_setting

Rng = np.random.Generator
SHOUTS: tuple[Color, ...] = ((250, 214, 60), (240, 96, 60), (120, 210, 240), (250, 250, 246), (170, 220, 90))


@dataclass
class Drawn:
    """Where things ended up on the page, in page pixels."""

    box: Box
    characters: list[Box] = field(default_factory=list)
    words: list[Box] = field(default_factory=list)


def draw_panel(
    page: Image.Image, shape: Shape, script: PanelScript, look: Look, rng: Rng, letters: list[Letters]
) -> Drawn:
    """Draw a scripted panel into its shape on the page, clipped to it, and say where everything is."""
    left, top, right, bottom = shape.box
    w, h = right - left, bottom - top
    image = Image.new("RGB", (round(w * SCALE), round(h * SCALE)), look.color((200, 200, 200)))
    c = Canvas(image, look, script.time)
    sl, st, sr, sb = shape.safe()
    area = (sl - left + 3.5, st - top + 3.5, sr - left - 3.5, sb - top - 3.5)
    blocks = _blocks(script, look, area)
    words_end = place_blocks(blocks, area) if blocks else 4.0
    figures = _cast_figures(rng, script, (w, h), words_end)
    zoom = {"close-up": 1.5, "medium": 1.0, "long": 0.72}[script.shot]
    horizon = {"close-up": 0.7, "medium": 0.6, "long": 0.56}[script.shot] + float(rng.uniform(-0.04, 0.04))
    draw_setting(c, script.setting, (w, h), script.place, float(rng.uniform(-0.35, 0.35)), zoom, horizon)
    coarse(image)
    if look.shading == "hatch" and w * h > 70_000:
        c.tone(
            [(-2, h * 0.86), (w + 2, h * 0.93), (w + 2, h + 2), (-2, h + 2)],
            darker(c.paint((110, 90, 90)), 0.3),
            "hatch",
            5,
            0.22,
        )
    _action_lines(c, rng, script, figures)
    _scenery(c, rng, script, figures, (w, h))
    for figure in sorted(figures, key=lambda f: f.frame.y):
        _ground_shadow(c, figure)
        _seat(c, figure)
        draw_figure(c, figure)
    _foreground(c, rng, script, figures, (w, h))
    sounds = [
        _sound(c, rng, u.text, figures[u.speaker or 0], (w, h), words_end) for u in script.words if u.label == "sound"
    ]
    _paste(page, image, shape, look)
    over = Canvas(page, look, script.time, (left, top), letters)
    if script.shot == "medium" and not script.textless and rng.random() < 0.12 and not shape.inset:
        for figure in figures[:1]:
            _step_out(over, figure, (w, h), look)
    _point_tails(blocks, script, figures)
    for block in blocks:
        draw_block(over, block)
    return _drawn(shape, script, figures, blocks, sounds)


def coarse(image: Image.Image) -> None:
    """Keep every second row of a background twice: half the bytes, and nobody looks at its edges."""
    w, h = image.size
    rows = image.resize((w, max(h // (2 * SCALE), 1)), Image.Resampling.NEAREST)
    image.paste(rows.resize((w, h), Image.Resampling.NEAREST))


def _drawn(shape: Shape, script: PanelScript, figures: list[Figure], blocks: list[Block], sounds: list[Box]) -> Drawn:
    left, top, right, bottom = shape.box

    def on_page(box: Box) -> Box:
        x0, y0, x1, y1 = box
        return max(x0 + left, left), max(y0 + top, top), min(x1 + left, right), min(y1 + top, bottom)

    remaining, heard = iter(blocks), iter(sounds)
    words = [next(heard) if u.label == "sound" else next(remaining).box for u in script.words]
    return Drawn(shape.box, [on_page(f.bounds()) for f in figures], [on_page(box) for box in words])


# --- words ----------------------------------------------------------------------------------------------------------


def letter_size(w: float, h: float) -> float:
    """Height of the lettering in a panel of this size, in page pixels."""
    return 8.0 if w < 130 or h < 130 else 9.0 if w * h < 90_000 else 10.0


def _blocks(script: PanelScript, look: Look, area: Box) -> list[Block]:
    w, h = area[2] - area[0], area[3] - area[1]
    size = letter_size(w + 7, h + 7)
    blocks = []
    spoken = [u for u in script.words if u.label != "sound"]
    for u in spoken:
        share = 0.96 if len(spoken) == 1 and w < 190 else 0.62 if w >= 190 else 0.86
        width = min(max(w * share, 84.0), w, 150.0)
        blocks.append(make_block(u.label, u.text, size, width, look.balloon))
    return blocks


def _point_tails(blocks: list[Block], script: PanelScript, figures: list[Figure]) -> None:
    spoken = [u for u in script.words if u.label != "sound"]
    for block, u in zip(blocks, spoken, strict=True):
        if u.speaker is None:
            continue
        f = figures[u.speaker]
        mouth, head = f.mouth_at, f.head_at
        toward = block.x + block.w / 2 - head[0]
        side = np.clip(toward / max(f.head_radius, 1.0), -0.6, 0.6)
        hat_top = head[1] - f.head_radius * 0.75
        target = (head[0] + float(side) * f.head_radius, hat_top) if mouth[1] - block.y > 40 else mouth
        if target[1] < block.y + block.h:  # the head is beside the balloon
            target = mouth
        block.target = target
    spoken_blocks = [b for b in blocks if b.target is not None]
    if spoken_blocks:  # bring balloons down to people far below them
        gap = min(b.target[1] - (b.y + b.h) for b in spoken_blocks if b.target is not None)
        for block in spoken_blocks:
            block.y += max(gap - 46, 0.0) * 0.75


# --- figures --------------------------------------------------------------------------------------------------------


def _cast_figures(rng: Rng, script: PanelScript, size: Point, words_end: float) -> list[Figure]:
    """Figures placed side by side under the balloons; those who speak first stand further left."""
    w, h = size
    n = len(script.actors)
    if not n:
        return []
    figures = []
    order = list(range(n))
    depth = {"close-up": 0.0, "medium": 0.03, "long": 0.08}[script.shot]
    slots = (np.arange(n) + 0.5) / n
    for k in order:
        actor = script.actors[k]
        pose = POSES[actor.action][int(rng.integers(len(POSES[actor.action])))]
        facing = 1 if (slots[k] < 0.5 or (n == 1 and rng.random() < 0.5)) else -1
        x = w * float(slots[k]) + float(rng.uniform(-0.05, 0.05)) * w / n
        scale, y = _scale(script.shot, actor.who.height, pose, actor.who.kind, actor.who.hat, size, words_end, n)
        y -= h * depth * float(rng.uniform(0, 1)) if n > 1 or script.shot == "long" else 0.0
        f = Figure(actor.who, actor.action, actor.emotion, Frame(x, y, scale, facing), pose, actor.holds)
        figures.append(_fit(f, w, x, n))
    return figures


def _scale(
    shot: str, height: float, pose: Pose, kind: str, hat: str, size: Point, words_end: float, n: int
) -> tuple[float, float]:
    """Page pixels to a grown-up's height, and where the ground is."""
    w, h = size
    top = max(words_end, 0.05 * h)
    tall_hat = {"pointed hat": 1.5, "top hat": 0.75, "tricorne": 0.4, "helmet": 0.5}.get(hat, 0.15)
    tall_hat = max(tall_hat, 1.2 if kind == "rabbit" else 0.0, 0.5 if kind in ("alien", "robot") else 0.0)
    if shot == "close-up":
        radius = min(0.62 * (h - top) / (2 + 0.55 * tall_hat), 0.34 * w / n)
        scale = max(radius, 0.13 * h) / HEAD
        body = pose_body(pose, kind)
        head_y = top + radius * (1.12 + 0.8 * tall_hat)
        return scale, head_y + body.head[1] * scale
    if pose.lying:
        return min(0.8 * (h - top), 0.78 * w / (1.1 if n == 1 else 1.1 + 0.45 * (n - 1))) * min(height, 1.0), h * (
            0.9 if shot == "medium" else 0.84
        )
    body = pose_body(pose, kind)
    reach = body.head[1] + HEAD * (1.1 + tall_hat)
    reach = max(reach, *(p[1] + 0.04 for arm in (body.near_arm, body.far_arm) for p in arm))
    share, ground = (0.97, 0.975) if shot == "medium" else (0.62, 0.86)
    fit = (h * ground - top) * share * 0.95 / reach
    cap = (0.8 if shot == "medium" else 0.52) * h
    return max(min(fit, cap, 1.9 * w / (n + 0.35)) * (height if height < 1 else 1.0), 0.2 * h), h * ground


def _fit(f: Figure, w: float, x: float, n: int) -> Figure:
    """Move a figure so that it is centered on its place and stays inside the panel where it can."""
    lo, _, hi, _ = f.bounds()
    dx = x - (lo + hi) / 2 if f.pose.lying or f.action in ("run", "jump", "punch", "sit") else (x - f.head_at[0]) * 0.7
    lo, hi = lo + dx, hi + dx
    if hi - lo < w:
        dx += max(2 - lo, 0) - max(hi - w + 2, 0)
    f.frame = replace(f.frame, x=f.frame.x + dx)
    return f


def _ground_shadow(c: Canvas, f: Figure) -> None:
    if f.frame.scale < 60:
        return
    lo, _, hi, _ = f.bounds()
    y = f.frame.y + (0.085 * f.frame.scale if f.pose.lying else 0.0)
    wide = min((hi - lo) / 2, 0.24 * f.frame.scale) if not f.pose.lying else (hi - lo) / 2
    x = (lo + hi) / 2
    dark = c.paint((96, 88, 104), 1.0)
    c.ellipse(x, y, wide * (0.7 if f.pose.lift > 0.1 else 1.0), 0.028 * f.frame.scale, darker(dark, 0.15))


def _seat(c: Canvas, f: Figure) -> None:
    if f.action != "sit":
        return
    hx, hy = f.body.hip
    top = hy - 0.05
    wood = c.paint((176, 122, 76), 0.6)
    line = c.look.line * 0.9
    c.polygon(f.frame.all([(hx - 0.13, 0.0), (hx - 0.13, top), (hx + 0.1, top), (hx + 0.1, 0.0)]), wood, line)
    c.polygon(
        f.frame.all(
            [(hx - 0.15, top - 0.025), (hx - 0.15, top + 0.01), (hx + 0.12, top + 0.01), (hx + 0.12, top - 0.025)]
        ),
        darker(wood, 0.15),
        line,
    )


def _step_out(over: Canvas, f: Figure, size: Point, look: Look) -> None:
    """Draw a figure once more, unclipped, if a small part of it crosses the panel's frame."""
    x0, y0, x1, y1 = f.bounds()
    w, h = size
    out = max(-x0, -y0, x1 - w, y1 - h)
    if 0 < out < look.margin + 4:
        draw_figure(over, f)


# --- things ---------------------------------------------------------------------------------------------------------


def _scenery(c: Canvas, rng: Rng, script: PanelScript, figures: list[Figure], size: Point) -> None:
    """A prop that nobody holds, on the ground beside or between the figures."""
    held = {f.holds for f in figures}
    w, h = size
    for prop in script.props:
        if prop in held or script.shot == "close-up":
            continue
        scale = figures[0].frame.scale if figures else 0.6 * h
        tall = scale * {"car": 0.44, "rocket": 0.52, "umbrella": 0.42}.get(prop, 0.34)
        tall = float(np.clip(tall, 26, 0.5 * h))
        wide = tall * {"car": 1.6, "fish": 1.15, "chest": 1.05, "book": 1.15, "umbrella": 1.25}.get(prop, 0.85)
        x = _free_x(rng, figures, w, wide)
        y = h * (0.95 if script.shot == "medium" else 0.87)
        lift = 0.35 * tall if prop == "fish" and script.setting == "underwater" else 0.0
        c.ellipse(x, y, wide * 0.5, tall * 0.06, darker(c.paint((96, 88, 104)), 0.15))
        draw_prop(c, prop, x, y - lift, tall, c.look.line * 0.9, 1 if x < w / 2 else -1)


def _free_x(rng: Rng, figures: list[Figure], w: float, wide: float) -> float:
    """The place along the ground that figures cover least."""
    best, best_cost = w / 2, 1e9
    for x in np.linspace(wide / 2 + 3, max(w - wide / 2 - 3, wide / 2 + 4), 13):
        cost = float(rng.random()) * 3
        for f in figures:
            lo, _, hi, _ = f.bounds()
            cost += max(min(hi, x + wide / 2) - max(lo, x - wide / 2), 0.0)
        if cost < best_cost:
            best, best_cost = float(x), cost
    return best


def _foreground(c: Canvas, rng: Rng, script: PanelScript, figures: list[Figure], size: Point) -> None:
    """In a close-up a prop is large and in front, in a lower corner."""
    if script.shot != "close-up" or not script.props:
        return
    w, h = size
    tall = min(0.44 * h, 0.4 * w)
    head = figures[0].head_at[0] if figures else w / 2
    side = -1 if head > w / 2 or (abs(head - w / 2) < 2 and rng.random() < 0.5) else 1
    x = w / 2 + side * (w / 2 - tall * (0.72 if script.props[0] == "car" else 0.52))
    draw_prop(c, script.props[0], x, h - 0.05 * h, tall, c.look.line * 1.1, -side)


def _action_lines(c: Canvas, rng: Rng, script: PanelScript, figures: list[Figure]) -> None:
    pale = (252, 250, 244) if script.time != "day" else (70, 70, 84)
    for f in figures:
        lo, top, hi, bottom = f.bounds()
        back = lo if f.frame.facing > 0 else hi
        if f.action == "run":
            for k in range(4):
                y = top + (bottom - top) * (0.25 + 0.18 * k)
                far = back - f.frame.facing * f.frame.scale * float(rng.uniform(0.15, 0.4))
                c.stroke([(back, y), (far, y)], pale, c.look.line * 0.8)
            x, y = back, f.frame.y
            for k in range(2):
                c.ellipse(
                    x - f.frame.facing * k * 0.07 * f.frame.scale,
                    y - 0.02 * f.frame.scale * k,
                    0.04 * f.frame.scale,
                    0.03 * f.frame.scale,
                    c.paint((236, 228, 214)),
                    c.look.line * 0.5,
                )
        elif f.action == "jump":
            for dx in (-0.12, 0.0, 0.12):
                x = f.frame.x + dx * f.frame.scale
                c.stroke(
                    [(x, f.frame.y - 0.02 * f.frame.scale), (x, f.frame.y - 0.13 * f.frame.scale)], pale, c.look.line
                )
        elif f.action == "punch" and script.shot != "long":
            _burst(c, f.frame.at(*f.body.near_arm[2]), 0.24 * f.frame.scale)
        if f.emotion == "surprised" and script.shot == "close-up" and script.textless:
            x, y = f.head_at
            for angle in range(0, 360, 30):
                a = radians(angle)
                r0 = f.head_radius * 1.7
                c.stroke(
                    [(x + r0 * cos(a), y + r0 * sin(a)), (x + 3 * r0 * cos(a), y + 3 * r0 * sin(a))],
                    pale,
                    c.look.line * 0.8,
                )


def _burst(c: Canvas, at: Point, r: float) -> None:
    points = []
    for k in range(18):
        a, reach = radians(20 * k), r * (1.0 if k % 2 else 0.6)
        points.append((at[0] + reach * cos(a), at[1] + reach * sin(a)))
    c.polygon(points, (255, 232, 110), c.look.line)


def _sound(c: Canvas, rng: Rng, text: str, f: Figure, size: Point, words_end: float) -> Box:
    w = size[0]
    x, y = f.head_at
    color = SHOUTS[int(rng.integers(len(SHOUTS)))]
    wide = float(np.clip(0.42 * w, 34, 120))
    if f.action == "punch":
        x, y = f.frame.at(*f.body.near_arm[2])
        y += 0.16 * f.frame.scale
    elif f.action == "sleep":
        y -= f.head_radius * 1.9
    else:
        side = -f.frame.facing
        x += side * 0.3 * w
        y = f.frame.y - 0.3 * f.frame.scale
    return draw_sound(c, text, (x, max(y, words_end + 14)), wide, color, float(rng.uniform(4, 16)), size)


# --- the panel on the page ------------------------------------------------------------------------------------------


def _paste(page: Image.Image, image: Image.Image, shape: Shape, look: Look) -> None:
    """Put a panel's image on the page, clipped to the panel's outline, and draw its frame."""
    left, top, _, _ = shape.box
    at = (round(left * SCALE), round(top * SCALE))
    corners = [((x - left) * SCALE, (y - top) * SCALE) for x, y in shape.corners]
    mask = Image.new("L", image.size, 0)
    pen = ImageDraw.Draw(mask)
    rounded = look.corner > 0 and not shape.slanted
    if rounded:
        pen.rounded_rectangle((0, 0, image.width - 1, image.height - 1), look.corner * SCALE, fill=255)
    else:
        pen.polygon(corners, fill=255)
    width = round(max(look.border, 1.8 if shape.inset else 0.0) * SCALE)
    if shape.inset:  # a rim of paper sets an inset off from the image below
        pad = 4 * SCALE
        ImageDraw.Draw(page).rectangle(
            (at[0] - pad, at[1] - pad, at[0] + image.width + pad, at[1] + image.height + pad), fill=look.paper
        )
    page.paste(image, at, mask)
    if width == 0:
        return
    ink = look.ink if sum(look.paper) > 300 else (250, 248, 240)
    draw = ImageDraw.Draw(page)
    if rounded:
        draw.rounded_rectangle(
            (at[0], at[1], at[0] + image.width - 1, at[1] + image.height - 1),
            look.corner * SCALE,
            outline=ink,
            width=width,
        )
    else:
        outline = [(x * SCALE, y * SCALE) for x, y in shape.corners]
        draw.line([*outline, outline[0], outline[1]], fill=ink, width=width, joint="curve")
