"""Sample comics: same seed, same bytes; what is written agrees with what is drawn."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from stage3.errors import StorageError
from stage3.samples import draw_books, world
from stage3.samples.__main__ import main
from stage3.samples.facts import VOCABULARIES, read
from stage3.samples.ink import Canvas
from stage3.samples.layout import PAGE, choose_layout, panel_shapes
from stage3.samples.looks import choose_look
from stage3.samples.script import vocabulary_of
from stage3.samples.styles import STYLES

pytestmark = pytest.mark.slow

BOOKS, SEED = 8, 5


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    out = tmp_path_factory.mktemp("samples") / "set"
    return out, draw_books(out, BOOKS, SEED)


def manifest(out):
    with (out / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def records(out):
    return {
        row["canonical_id"]: json.loads((out / "panels" / f"{row['canonical_id']}.json").read_text("utf-8"))
        for row in manifest(out)
    }


def text_of(panel):
    return " ".join([panel["description"], *(item["text"] for item in panel["text_content"])]).strip()


def contents(out):
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def test_the_seed_decides_every_byte(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        draw_books(tmp_path / name, 2, seed, pages=2)
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b
    pages = [name for name in a if name.endswith(".png")]
    assert len(pages) == 4
    assert all(a[name] != c[name] for name in pages)


def test_a_book_does_not_depend_on_how_many_are_drawn(tmp_path, drawn):
    draw_books(tmp_path / "one", 1, SEED)
    few, many = contents(tmp_path / "one"), contents(drawn[0])
    shared = [name for name in few if name.startswith(("images/", "panels/"))]
    assert len(shared) == 16
    assert all(few[name] == many[name] for name in shared)


def test_every_page_listed_has_an_image_a_record_and_a_label(drawn):
    out, summary = drawn
    labels = json.loads((out / "labels.json").read_text("utf-8"))
    rows = manifest(out)
    assert len(rows) == summary.pages == BOOKS * 8
    for row in rows:
        with Image.open(out / row["absolute_image_path"]) as image:
            assert image.size == (400, 600)
            image.load()
        record = json.loads((out / "panels" / f"{row['canonical_id']}.json").read_text("utf-8"))
        assert record["canonical_id"] == row["canonical_id"]
        assert record["panels"]
        assert labels[row["canonical_id"]] in world.PAGE_TYPES
    assert list(labels.values()).count("cover") == BOOKS
    assert all(label == "cover" for page, label in labels.items() if page.endswith("/p000"))


def test_boxes_are_upright_inside_the_page_and_words_and_people_inside_their_panel(drawn):
    for record in records(drawn[0]).values():
        for number, panel in enumerate(record["panels"], 1):
            assert panel["panel_number"] == number
            top, left, bottom, right = panel["box_2d"]
            assert 0 <= top < bottom <= 1000
            assert 0 <= left < right <= 1000
            for item in panel["text_content"] + panel["characters"]:
                t, le, b, r = item["box_2d"]
                assert top <= t < b <= bottom, (record["canonical_id"], item)
                assert left <= le < r <= right, (record["canonical_id"], item)


def test_a_balloon_box_holds_the_letters_on_paper_of_its_own(drawn):
    """Inside a balloon most pixels are its own light color and some are ink: the box is where it is drawn."""
    out, checked = drawn[0], 0
    for page, record in records(out).items():
        if record["overall_summary"].startswith(("The cover", "An adv")):
            continue
        gray = np.asarray(Image.open(out / "images" / f"{page}.png").convert("L"))
        for panel in record["panels"]:
            for item in panel["text_content"]:
                if item["speaker"] == "sound effect" or len(panel["text_content"]) > 1:
                    continue
                t, le, b, r = (round(v * s / 1000) for v, s in zip(item["box_2d"], (600, 400, 600, 400), strict=True))
                inside = gray[t + 2 : b - 2, le + 3 : r - 3]
                assert (inside > 190).mean() > 0.45, (page, item)
                assert 0.02 < (inside < 110).mean() < 0.5, (page, item)
                checked += 1
    assert checked > 60


def test_facts_line_up_with_the_panels_of_story_pages(drawn):
    out, summary = drawn
    labels = json.loads((out / "labels.json").read_text("utf-8"))
    rows, pages = read(out), records(out)
    expected = [
        (p, panel["panel_number"]) for p, record in pages.items() if labels[p] == "story" for panel in record["panels"]
    ]
    assert [(row["canonical_id"], row["panel_number"]) for row in rows] == expected
    assert len(rows) == summary.panels
    for row in rows:
        panel = pages[row["canonical_id"]]["panels"][row["panel_number"] - 1]
        assert [c["name"] for c in row["characters"]] == [c["name"] for c in panel["characters"]]
        for key in ("layout", "setting", "time", "shot", "emotion"):
            assert row[key] in VOCABULARIES[key]
        assert set(row["props"]) <= set(world.PROPS)
        for character in row["characters"]:
            assert all(
                character[key] in VOCABULARIES[key]
                for key in ("kind", "hair", "clothes", "clothes_color", "action", "emotion")
            )
            assert character["holds"] is None or character["holds"] in row["props"]


def fact(row, key):
    if "." not in key:
        return row[key]
    field, k = key.split(".")
    return row["props"][int(k)] if field == "prop" else row["characters"][int(k)][field]


def test_named_facts_are_named_in_the_words_and_others_are_not(drawn):
    pages, seen = records(drawn[0]), set()
    for row in read(drawn[0]):
        words = text_of(pages[row["canonical_id"]]["panels"][row["panel_number"] - 1]).lower()
        for key in row["named"]:
            field, value = vocabulary_of(key), fact(row, key)
            options = [value.lower()] if field == "name" else world.WORDS[field][value]
            assert any(option.lower() in words for option in options), (row, key, words)
            seen.add(field)
        if not words:
            assert row["named"] == []
        if "prop" not in {key.split(".")[0] for key in row["named"]}:
            assert not any(f" {prop} " in f" {words} " for prop in row["props"])
    assert seen == {
        "setting",
        "time",
        "shot",
        "emotion",
        "prop",
        "kind",
        "name",
        "action",
        "clothes",
        "clothes_color",
        "hair",
    }


def test_statistics_stay_in_their_ranges(drawn):
    out, summary = drawn
    rows, pages = read(out), records(out)
    words = [text_of(pages[row["canonical_id"]]["panels"][row["panel_number"] - 1]) for row in rows]
    story = sum(summary.panels_per_page.values())
    assert 3.0 < summary.panels / story < 5.0
    assert {1, 9} <= set(summary.panels_per_page)
    assert 0.17 < np.mean([not w for w in words]) < 0.34
    assert np.mean([not w for w in words]) == summary.textless / summary.panels
    named = np.array([len(row["named"]) for row, w in zip(rows, words, strict=True) if w])
    assert 5 < named.mean() < 9
    assert {row["setting"] for row in rows} == set(world.SETTINGS)
    for book in range(BOOKS):
        names = {
            c["name"] for row in rows if row["canonical_id"].startswith(f"book{book:03d}") for c in row["characters"]
        }
        assert len(names) == 3


def test_a_page_is_small(drawn):
    sizes = [p.stat().st_size for p in (drawn[0] / "images").rglob("*.png")]
    assert np.mean(sizes) < 10_500
    assert max(sizes) < 24_000
    assert drawn[1].bytes / BOOKS < 105_000


def test_story_pages_are_images_and_not_blank(drawn):
    out = drawn[0]
    for row in manifest(out)[:24]:
        image = Image.open(out / row["absolute_image_path"]).convert("RGB")
        assert len(image.getcolors(image.width * image.height)) > 8
        assert np.asarray(image).std() > 20


@pytest.mark.parametrize("name", world.LAYOUTS)
def test_panels_of_a_layout_stay_on_the_page_and_apart(name):
    rng = np.random.default_rng(1)
    for _ in range(5):
        shapes = panel_shapes(name, choose_look(rng), rng)
        for shape in shapes:
            left, top, right, bottom = shape.box
            assert 0 < left < right < PAGE[0]
            assert 0 < top < bottom < PAGE[1]
            assert min(right - left, bottom - top) > 40
        flat = [s.safe() for s in shapes if not s.inset]
        for k, (a, b, c, d) in enumerate(flat):
            for e, f, g, h in flat[k + 1 :]:
                assert min(c, g) <= max(a, e) or min(d, h) <= max(b, f), name


def test_every_layout_is_drawn_now_and_then():
    rng = np.random.default_rng(0)
    assert {choose_layout(rng) for _ in range(600)} == set(world.LAYOUTS)


def test_every_value_has_words_that_name_it_and_no_other_value_of_its_field():
    for field, values in world.WORDS.items():
        for value, words in values.items():
            for word in words:
                assert world.named_in(field, value, f"Here: {word}!"), (field, value)
                others = [v for v in values if v != value and world.named_in(field, v, word)]
                assert not others, (field, word, others)
    assert not world.named_in("prop", "car", "Careful with the scarf.")


def test_times_of_day_differ_in_light():
    from stage3.samples.settings import draw_setting

    for setting in world.SETTINGS:
        means = []
        for time in world.TIMES:
            image = Image.new("RGB", (300, 300))
            draw_setting(Canvas(image, choose_look(np.random.default_rng(0)), time), setting, (100, 100), 1)
            means.append(np.asarray(image).mean())
        assert means[0] > means[2] + 15, setting


def test_the_command_reports_and_refuses(tmp_path, capsys):
    out = tmp_path / "new"
    assert main([str(out), "--books", "1", "--seed", "0", "--pages", "2", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["pages"] == 2
    assert summary["bytes"] == sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    assert main([str(out), "--books", "1", "--seed", "0"]) == 2
    assert "not empty" in capsys.readouterr().err
    assert main([str(tmp_path / "x"), "--books", "0", "--seed", "0"]) == 2
    capsys.readouterr()
    assert main([str(tmp_path / "x"), "--books", "1", "--sed", "0"]) == 2
    assert "usage" not in (said := capsys.readouterr().err)  # one line, as every other command
    assert said.startswith("error: ")
    with pytest.raises(StorageError, match="xxx: "):
        main([str(tmp_path / ("x" * 300)), "--books", "1", "--seed", "0"])
    assert not (tmp_path / "x").exists()


def test_the_command_prints_what_it_drew(tmp_path, capsys):
    assert main([str(tmp_path / "y"), "--books", "1", "--seed", "0", "--pages", "2"]) == 0
    said = capsys.readouterr().out
    assert "Drew 1 book, 2 pages (1 cover, 0 advertisements)" in said
    assert str(tmp_path / "y") in said


def test_a_style_changes_how_panels_lie_and_nothing_of_the_plain_pages(tmp_path):
    for style in STYLES:
        draw_books(tmp_path / style, 2, 3, pages=4, style=style)
    draw_books(tmp_path / "default", 2, 3, pages=4)
    assert contents(tmp_path / "default") == contents(tmp_path / "plain")
    story = [name for name, kind in json.loads((tmp_path / "plain/labels.json").read_text()).items() if kind == "story"]
    boxes = {
        style: [[p["box_2d"] for p in records(tmp_path / style)[name]["panels"]] for name in story] for style in STYLES
    }
    assert [len(page) for page in boxes["plain"]] == [len(page) for page in boxes["slanted"]]
    assert all(min(min(box) for box in page) > 0 for page in boxes["plain"])
    assert all(any(box[0] == 0 or box[1] == 0 or max(box) == 1000 for box in page) for page in boxes["bleeding"])
    assert boxes["overlapping"] != boxes["plain"]
    assert boxes["borderless"] == boxes["plain"]
    images = {style: (tmp_path / style / f"images/{story[0]}.png").read_bytes() for style in STYLES}
    assert len(set(images.values())) >= len(STYLES) - 1


def test_an_unknown_style_is_refused(tmp_path):
    with pytest.raises(ValueError, match="style 'wavy' is not one of plain, bleeding"):
        draw_books(tmp_path / "x", 1, 0, style="wavy")
    assert not (tmp_path / "x").exists()
