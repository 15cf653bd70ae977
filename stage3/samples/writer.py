"""Draws books and writes them as a data set: images, panel JSON, labels, facts, manifest, `dataset.yaml`."""

import csv
import gzip
import io
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stage3.samples import world
from stage3.samples.cast import choose_cast
from stage3.samples.facts import FACTS
from stage3.samples.fronts import draw_advertisement, draw_cover
from stage3.samples.ink import SCALE, Letters
from stage3.samples.layout import PAGE, choose_layout, panel_shapes
from stage3.samples.lettering import Box, room_for_words
from stage3.samples.lines import PLACE_TITLES, TITLES
from stage3.samples.looks import Look, choose_look
from stage3.samples.png import encode
from stage3.samples.script import PanelScript, Story, choose_scene, pick, summarize, write_panel
from stage3.samples.staging import Drawn, draw_panel, letter_size
from stage3.samples.styles import STYLES, styled_look, styled_shapes

TEXTLESS = 0.25  # share of story panels without words
ADVERTISEMENT = 0.3  # share of books with an advertisement
MODEL = "stage3.samples"
FORMATS = ("png", "webp")


@dataclass
class Summary:
    """What was drawn. `panels` and what follows count story panels only."""

    out: Path
    books: int = 0
    pages: int = 0
    covers: int = 0
    advertisements: int = 0
    panels: int = 0
    textless: int = 0
    bytes: int = 0
    panels_per_page: Counter[int] = field(default_factory=Counter)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        histogram = {str(k): v for k, v in sorted(self.panels_per_page.items())}
        return {**self.__dict__, "out": str(self.out), "panels_per_page": histogram}


@dataclass
class Page:
    """A finished page: its image and what is written about it."""

    canonical_id: str
    kind: str
    image: bytes
    record: dict[str, Any]
    facts: list[dict[str, Any]]


def draw_books(
    out: Path,
    books: int,
    seed: int,
    pages: int = 8,
    image_format: str = "png",
    on_book: Callable[[int], None] = lambda _: None,
    style: str = "plain",
) -> Summary:
    """Draw `books` books of `pages` pages into the folder `out`; the same seed gives the same bytes.

    `image_format` "webp" (lossless) holds the same pixels in about a fifth fewer bytes and takes longer to write.
    `on_book` is called with 1 after each book. `style` is one of `STYLES`: story pages with bleeding, borderless,
    overlapping or slanted panels are there to measure detectors of panels on.

    Raises:
        FileExistsError: `out` holds something already.
        ValueError: a count is below 1, the seed below 0, or the image format or the style unknown.
    """
    if style not in STYLES:
        raise ValueError(f"style {style!r} is not one of {', '.join(STYLES)}")
    if image_format not in FORMATS:
        raise ValueError(f"image_format {image_format!r} is not one of {', '.join(FORMATS)}")
    out = Path(out)
    if books < 1 or pages < 1 or seed < 0:
        raise ValueError(
            f"books={books}, pages={pages}, seed={seed}: draw at least one book of one page, with a seed of 0 or more."
        )
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty. Choose a new folder, or empty this one first.")
    summary = Summary(out, books)
    manifest, labels, facts = [], {}, []
    for book in range(books):
        for page in draw_book(book, seed, pages, style):
            name = f"images/{page.canonical_id}.{image_format}"
            image = out / name
            record = out / "panels" / f"{page.canonical_id}.json"
            for path in (image, record):
                path.parent.mkdir(parents=True, exist_ok=True)
            image.write_bytes(page.image if image_format == "png" else _webp(page.image))
            _write(record, _json(page.record))
            manifest.append((page.canonical_id, name))
            labels[page.canonical_id] = page.kind
            facts += page.facts
            _count(summary, page)
        on_book(1)
    _write(out / "manifest.csv", _csv(manifest))
    _write(out / "labels.json", json.dumps(labels, indent=0) + "\n")
    lines = "".join(_json(row) + "\n" for row in facts)
    (out / FACTS).write_bytes(gzip.compress(lines.encode("utf-8"), mtime=0))
    _write(out / "dataset.yaml", _dataset_yaml(books, pages, seed, image_format, style))
    summary.bytes = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    return summary


def _webp(png: bytes) -> bytes:
    """The same pixels as lossless WebP."""
    file = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(file, "WEBP", lossless=True, quality=100, method=4)
    return file.getvalue()


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _csv(rows: list[tuple[str, str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("canonical_id", "absolute_image_path"))
    writer.writerows(rows)
    return text.getvalue()


def _dataset_yaml(books: int, pages: int, seed: int, image_format: str, style: str) -> str:
    styled = "" if style == "plain" else f" --style {style}"
    return (
        "name: sample comics\n"
        "manifest: manifest.csv\n"
        "panels: panels\n"
        "panel_format: vlm\n"
        "labels: labels.json\n"
        f"facts: {FACTS}\n"
        "about: >-\n"
        f"  {books} comic books of {pages} pages, drawn by\n"
        f"  `python -m stage3.samples OUT --books {books} --seed {seed} --pages {pages} --format {image_format}"
        f"{styled}`.\n"
        f"  Every image, name and line is made by the program; {FACTS} holds what each panel shows.\n"
    )


def _count(summary: Summary, page: Page) -> None:
    summary.pages += 1
    summary.covers += page.kind == "cover"
    summary.advertisements += page.kind == "advertisement"
    if page.kind == "story":
        summary.panels += len(page.facts)
        summary.textless += sum(not (p["description"] or p["text_content"]) for p in page.record["panels"])
        summary.panels_per_page[len(page.facts)] += 1


# --- one book -------------------------------------------------------------------------------------------------------


def draw_book(book: int, seed: int, pages: int, style: str = "plain") -> list[Page]:
    """The pages of one book: a cover, sometimes an advertisement, the rest story in a style of `STYLES`."""
    rng = np.random.default_rng([seed, book, 0])
    look, story = choose_look(rng), choose_story(rng)
    name = f"book{book:03d}"
    advert = int(rng.integers(2, pages)) if pages > 3 and rng.random() < ADVERTISEMENT else -1
    drawn = []
    for number in range(pages):
        page_rng = np.random.default_rng([seed, book, number + 1])
        canonical_id = f"{name}/p{number:03d}"
        if number == 0:
            drawn.append(_cover(canonical_id, story, look, page_rng, book + 1))
        elif number == advert:
            drawn.append(_advertisement(canonical_id, story, look, page_rng))
        else:
            drawn.append(_story_page(canonical_id, story, look, page_rng, style))
    return drawn


def choose_story(rng: np.random.Generator) -> Story:
    """Draw the cast, the settings, the treasure and the title of a book."""
    cast = choose_cast(rng)
    settings = [str(s) for s in rng.choice(world.SETTINGS, size=4, replace=False)]
    treasure = pick(rng, world.PROPS)
    title = pick(rng, TITLES).format(
        prop=treasure.capitalize(), place=PLACE_TITLES[settings[0]], name=cast[0].name, other=cast[1].name
    )
    return Story(cast, settings, treasure, title[0].upper() + title[1:])


def _blank(look: Look) -> Image.Image:
    return Image.new("RGB", (round(PAGE[0] * SCALE), round(PAGE[1] * SCALE)), look.paper)


def _story_page(canonical_id: str, story: Story, look: Look, rng: np.random.Generator, style: str) -> Page:
    layout, look = choose_layout(rng), styled_look(look, style)
    shapes = styled_shapes(panel_shapes(layout, look, rng), look, style, rng)
    scene = choose_scene(rng, story)
    image, letters = _blank(look), list[Letters]()
    scripts, drawn = [], []
    for k, shape in enumerate(shapes):
        if k and rng.random() < 0.13:
            scene = choose_scene(rng, story)
        left, top, right, bottom = shape.safe()
        w, h = right - left, bottom - top
        room = room_for_words(w, h, letter_size(w, h)) if w > 40 else 20
        script = write_panel(rng, story, scene, (w, h), min(room, 120), bool(rng.random() < TEXTLESS))
        scripts.append(script)
        drawn.append(draw_panel(image, shape, script, look, rng, letters))
    record = {
        "overall_summary": summarize(rng, scripts),
        "panels": [_panel_record(k, s, d) for k, (s, d) in enumerate(zip(scripts, drawn, strict=True), 1)],
        "canonical_id": canonical_id,
        "model": MODEL,
    }
    facts = [_fact_row(canonical_id, k, layout, s) for k, s in enumerate(scripts, 1)]
    return Page(canonical_id, "story", encode(image, letters), record, facts)


def _box(box: Box) -> list[int]:
    """[ymin, xmin, ymax, xmax] in thousandths of the page, inside the page."""
    left, top, right, bottom = box
    w, h = PAGE
    values = (top / h, left / w, bottom / h, right / w)
    return [min(max(round(value * 1000), 0), 1000) for value in values]


def _panel_record(number: int, script: PanelScript, drawn: Drawn) -> dict[str, Any]:
    words = []
    if not script.textless:
        for u, box in zip(script.words, drawn.words, strict=True):
            speaker = "" if u.speaker is None else script.actors[u.speaker].who.name
            label, speaker = ("caption", "sound effect") if u.label == "sound" else (u.label, speaker)
            words.append({"label": label, "speaker": speaker or "narrator", "text": u.text, "box_2d": _box(box)})
    characters = [{"name": a.who.name, "box_2d": _box(b)} for a, b in zip(script.actors, drawn.characters, strict=True)]
    return {
        "panel_number": number,
        "box_2d": _box(drawn.box),
        "description": script.description,
        "text_content": words,
        "characters": characters,
    }


def _fact_row(canonical_id: str, number: int, layout: str, script: PanelScript) -> dict[str, Any]:
    return {
        "canonical_id": canonical_id,
        "panel_number": number,
        "layout": layout,
        "setting": script.setting,
        "time": script.time,
        "shot": script.shot,
        "characters": [
            {
                "name": a.who.name, "kind": a.who.kind, "hair": a.who.hair, "clothes": a.who.clothes,
                "clothes_color": a.who.clothes_color,
                "action": a.action, "emotion": a.emotion,
            } | ({"holds": a.holds} if a.holds else {})
            for a in script.actors
        ],
        "props": script.props,
        "named": script.named(),
    }  # fmt: skip


def _front_record(
    canonical_id: str, summary: str, description: str, words: list[str], drawn: Drawn, names: list[str]
) -> dict[str, Any]:
    panel = {
        "panel_number": 1,
        "box_2d": _box(drawn.box),
        "description": description,
        "text_content": [
            {"label": "caption", "speaker": "narrator", "text": text, "box_2d": _box(box)}
            for text, box in zip(words, drawn.words, strict=True)
        ],
        "characters": [{"name": n, "box_2d": _box(b)} for n, b in zip(names, drawn.characters, strict=True)],
    }
    return {"overall_summary": summary, "panels": [panel], "canonical_id": canonical_id, "model": MODEL}


def _cover(canonical_id: str, story: Story, look: Look, rng: np.random.Generator, number: int) -> Page:
    scene = choose_scene(rng, story)
    image, letters = _blank(look), list[Letters]()
    drawn, title = draw_cover(image, story, scene, look, rng, number, letters)
    hero = story.cast[0]
    names = [who.name for who in (*story.cast[1:], hero)]
    description = f"Cover: {hero.name} the {world.BEINGS[hero.kind][0]} {pick(rng, world.PLACES[scene.setting])}."
    record = _front_record(canonical_id, f"The cover of {title}.", description, [title], drawn, names)
    return Page(canonical_id, "cover", encode(image, letters), record, [])


def _advertisement(canonical_id: str, story: Story, look: Look, rng: np.random.Generator) -> Page:
    image, letters = _blank(look), list[Letters]()
    drawn, product, words, description = draw_advertisement(image, story, look, rng, letters)
    name = description.rsplit("with ", 1)[1].split()[0]
    record = _front_record(canonical_id, f"An advertisement for a {product}.", description, words, drawn, [name])
    return Page(canonical_id, "advertisement", encode(image, letters), record, [])


# --- files ----------------------------------------------------------------------------------------------------------
