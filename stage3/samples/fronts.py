"""Covers and advertisements."""

from dataclasses import replace
from math import cos, radians, sin

from PIL import Image, ImageDraw

from stage3.samples import world
from stage3.samples.cast import COLOR_RGB
from stage3.samples.figures import POSES, Figure, Frame, draw_figure
from stage3.samples.ink import SCALE, Canvas, Letters, Point, font, text_width
from stage3.samples.layout import PAGE
from stage3.samples.lettering import Box
from stage3.samples.lines import SLOGANS, SMALL_PRINT
from stage3.samples.looks import Color, Look, darker
from stage3.samples.props import draw_prop
from stage3.samples.script import Rng, Scene, Story, pick
from stage3.samples.settings import draw_setting
from stage3.samples.staging import Drawn, coarse

GOLD: Color = (255, 224, 92)


def big_letters(c: Canvas, words: str, center: Point, size: float, fill: Color, edge: Color, drop: float = 2.0) -> Box:
    """Display lettering with an outline and a dropped shadow."""
    x, y = (center[0] + c.origin[0]) * SCALE, (center[1] + c.origin[1]) * SCALE
    face, stroke = font(round(size)), max(round(size * SCALE * 0.07), 2)
    d = drop * SCALE
    c.draw.text((x + d, y + d), words, fill=edge, font=face, anchor="mm", stroke_width=stroke)
    c.draw.text((x, y), words, fill=edge, font=face, anchor="mm", stroke_width=stroke)
    c.draw.text((x, y), words, fill=fill, font=face, anchor="mm", stroke_width=max(stroke // 3, 1))
    half = text_width(words, round(size)) / 2 + size * 0.1
    return center[0] - half, center[1] - size * 0.6, center[0] + half, center[1] + size * 0.6


def _title_lines(title: str) -> list[str]:
    words = title.upper().split()
    if len(words) < 3:
        return [" ".join(words)] if sum(map(len, words)) < 11 else words
    best = min(range(1, len(words)), key=lambda k: abs(len(" ".join(words[:k])) - len(" ".join(words[k:]))))
    return [" ".join(words[:best]), " ".join(words[best:])]


def draw_cover(
    page: Image.Image, story: Story, scene: Scene, look: Look, rng: Rng, number: int, letters: list[Letters]
) -> tuple[Drawn, str]:
    """A cover: masthead, hero, the rest of the cast, the treasure; returns where things are and the title."""
    w, h = PAGE
    c = Canvas(page, look, scene.time, letters=letters)
    draw_setting(c, scene.setting, PAGE, scene.place, 0.0, 0.72, 0.62)
    coarse(page)
    if rng.random() < 0.35:
        _rays(c, rng)
    figures = []
    places = ((0.23, 0.8, 0.36), (0.79, 0.8, 0.36)) if len(story.cast) > 2 else ((0.8, 0.82, 0.4),)
    for who, (x, y, size) in zip(story.cast[1:], places, strict=False):
        pose = POSES["stand"][int(rng.integers(4))]
        emotion = pick(rng, world.EMOTIONS)
        figures.append(
            Figure(
                who, "stand", emotion, Frame(w * x, h * y, h * size * min(who.height, 1.0), 1 if x < 0.5 else -1), pose
            )
        )
    action = pick(rng, ["run", "jump", "point", "punch", "cheer", "stand"])
    pose = replace(POSES[action][int(rng.integers(len(POSES[action])))], lift=0.05 if action == "jump" else 0.0)
    hero = story.cast[0]
    holds = story.treasure if story.treasure in world.HAND_PROPS and action in ("run", "jump", "cheer") else None
    figures.append(
        Figure(
            hero,
            action,
            pick(rng, ["happy", "angry", "surprised", "calm"]),
            Frame(w * 0.5, h * 0.94, h * 0.56, 1 if rng.random() < 0.5 else -1),
            pose,
            holds,
        )
    )
    for figure in figures:
        draw_figure(c, figure)
    if not holds:
        draw_prop(c, story.treasure, w * (0.2 if rng.random() < 0.5 else 0.8), h * 0.95, h * 0.13, look.line * 1.2)
    title = _masthead(c, story, look, rng, number)
    return Drawn((0.0, 0.0, w, h), [_clip(f.bounds()) for f in figures], [title]), story.title


def _clip(box: Box) -> Box:
    return max(box[0], 0.0), max(box[1], 0.0), min(box[2], PAGE[0]), min(box[3], PAGE[1])


def _rays(c: Canvas, rng: Rng) -> None:
    w, h = PAGE
    color = c.look.color((255, 244, 196) if c.time != "night" else (70, 80, 140))
    x, y = w / 2, h * 0.6
    for k in range(12):
        a, b = radians(30 * k + 6), radians(30 * k + 15)
        r0, r1 = 150.0, 520.0
        c.polygon(
            [
                (x + r0 * cos(a), y + r0 * sin(a)),
                (x + r1 * cos(a), y + r1 * sin(a)),
                (x + r1 * cos(b), y + r1 * sin(b)),
            ],
            color,
        )


def _masthead(c: Canvas, story: Story, look: Look, rng: Rng, number: int) -> Box:
    w, _ = PAGE
    main = look.color(COLOR_RGB[pick(rng, ["red", "yellow", "orange", "blue", "green", "purple"])])
    lines = _title_lines(story.title)
    size = min(64.0, *(330.0 / max(text_width(line, 10.0) / 10.0, 1e-6) for line in lines))
    step = size * 1.06
    first = 42 + size * 0.5
    tall = step * len(lines)
    light: Color = (255, 252, 240)
    edge = look.ink
    if look.masthead == "banner":
        c.polygon([(0, 0), (w, 0), (w, first + tall - size * 0.2), (0, first + tall - size * 0.45)], main, 2.2)
        fill = light if main[0] * 0.5 + main[1] < 330 else GOLD
    elif look.masthead == "badge":
        c.ellipse(w / 2, first + tall / 2 - size * 0.5, w * 0.53, tall * 0.72 + 16, darker(main, 0.15), 2.4)
        fill = GOLD
    else:
        fill = main if look.masthead == "shadow" else GOLD
    for k, line in enumerate(lines):
        big_letters(c, line, (w / 2, first + k * step), size, fill, edge, 2.6)
    c.polygon([(10, 8), (74, 8), (74, 27), (10, 27)], (255, 255, 250), 1.2)
    c.text(42, 17.5, f"No. {number}", 10, (24, 20, 28))
    c.ellipse(w - 30, 24, 19, 17, (226, 56, 48), 1.4)
    c.text(w - 30, 24, "25c", 11, (255, 255, 255))
    c.polygon([(0, 582), (w, 582), (w, 600), (0, 600)], look.ink)
    c.text(w / 2, 591, "STARRING " + ", ".join(who.name.upper() for who in story.cast), 8.5, (255, 250, 230))
    return 30.0, first - size * 0.5, w - 30, first + tall - size * 0.5


def draw_advertisement(
    page: Image.Image, story: Story, look: Look, rng: Rng, letters: list[Letters]
) -> tuple[Drawn, str, list[str], str]:
    """A page that sells a prop; returns where things are, the product, its words and a description."""
    w, h = PAGE
    c = Canvas(page, look, letters=letters)
    ground = look.color(COLOR_RGB[pick(rng, ["yellow", "orange", "pink", "green", "blue", "white"])])
    ImageDraw.Draw(page).rectangle((0, 0, page.width, page.height), fill=ground)
    for k in range(12):
        a, b = radians(30 * k), radians(30 * k + 15)
        c.polygon(
            [
                (w / 2, h * 0.45),
                (w / 2 + 600 * cos(a), h * 0.45 + 600 * sin(a)),
                (w / 2 + 600 * cos(b), h * 0.45 + 600 * sin(b)),
            ],
            darker(ground, 0.1),
        )
    product = pick(rng, world.PROPS)
    headline = f"{pick(rng, ['SUPER', 'MIRACLE', 'DELUXE', 'TURBO', 'MAGIC'])} {product.upper()}"
    size = min(50.0, 350.0 / (text_width(headline, 10.0) / 10.0))
    c.polygon([(0, 0), (w, 0), (w, 86), (0, 104)], look.color((206, 48, 52)), 2.0)
    boxes = [big_letters(c, headline, (w / 2, 48), size, (255, 252, 240), look.ink, 2.2)]
    c.ellipse(w / 2, h * 0.43, 128, 128, (255, 255, 250), 3.0)
    draw_prop(c, product, w / 2, h * 0.43 + 84, 150 if product not in ("car",) else 130, 2.0)
    slogan, print_ = pick(rng, SLOGANS), pick(rng, SMALL_PRINT)
    points = []
    for k in range(24):
        a, r = radians(15 * k), 62 if k % 2 else 48
        points.append((318 + r * cos(a), 390 + r * 0.8 * sin(a)))
    c.polygon(points, (250, 220, 60), 2.0)
    price = f"${int(rng.integers(1, 20))}.99"
    big_letters(c, price, (318, 390), 26, (206, 48, 52), (255, 255, 255), 0.8)
    who = story.cast[int(rng.integers(len(story.cast)))]
    fan = Figure(who, "cheer", "happy", Frame(78, 520, 178 * min(who.height, 1.0), 1), POSES["cheer"][0])
    draw_figure(c, fan)
    c.polygon([(150, 466), (380, 458), (380, 508), (150, 512)], (255, 255, 255), 1.6)
    boxes.append((150.0, 458.0, 380.0, 512.0))
    c.text(265, 486, slogan.upper(), min(18.0, 200 / (text_width(slogan.upper(), 10) / 10)), (24, 20, 28))
    c.polygon([(0, 530), (w, 530), (w, h), (0, h)], look.color((44, 52, 92)))
    for x in range(12, 388, 10):
        c.stroke([(x, 537), (x + 5, 537)], (240, 240, 240), 1.0, round_ends=False)
    c.text(w / 2, 552, "CUT OUT THIS COUPON AND SEND IT IN TODAY", 9.5, (250, 240, 200))
    c.text(w / 2, 567, print_, 8, (230, 230, 240))
    c.polygon([(40, 577), (360, 577), (360, 594), (40, 594)], (250, 250, 246))
    c.text(46, 585.5, "NAME ............................  TOWN ......................", 8, (60, 60, 70), anchor="lm")
    boxes.append((40.0, 545.0, 360.0, 573.0))
    drawn = Drawn((0.0, 0.0, w, h), [_clip(fan.bounds())], boxes)
    said = [headline, slogan, f"Cut out this coupon and send it in today. {print_}"]
    return drawn, product, said, f"An advertisement for a {product} at {price}, with {who.name} cheering."
