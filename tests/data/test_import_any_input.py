"""Whatever stands in an annotation file, an import ends with pages or with one sentence."""

from __future__ import annotations

import json
import random
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from import_world import BUILDERS, boxes, png, write, write_images

from stage3.data.importers import import_comics
from stage3.data.importers.sight import json_keys, look
from stage3.errors import DataError

JUNK: list[Any] = [
    None,
    True,
    -1,
    0,
    1e308,
    10**400,
    -0.5,
    "",
    "nan",
    "x" * 500,
    "../../etc/passwd",
    "\ud800",
    [],
    {},
    [[[]]],
    {"a": 1},
    [1, 2, 3],
    [None] * 4,
    ["1", "2", "3", "4"],
    float("nan"),
]
FILES = {
    "coco": "instances.json",
    "mokuro": "Book A.mokuro",
    "magi": "magi.json",
    "kumiko": "panels.json",
    "label_studio": "export.json",
    "labelme": "Book A/page2.json",
    "manga109": "annotations/Book A.xml",
    "cvat": "annotations.xml",
    "comix": "xml/a1b2.xml",
    "yolo": "train/labels/Book A/page2.txt",
}


def mutated(value: Any, rng: random.Random, depth: int = 0) -> Any:
    """The value with one node somewhere in it replaced, dropped or doubled."""
    if not isinstance(value, dict | list) or not value or (depth and rng.random() < 0.25):
        return rng.choice(JUNK)
    made = dict(value) if isinstance(value, dict) else list(value)
    at: Any = rng.choice(list(made)) if isinstance(made, dict) else rng.randrange(len(made))
    act = rng.random()
    if act < 0.15:
        del made[at]
    elif act < 0.25 and isinstance(made, list):
        made.append(made[at])
    else:
        made[at] = mutated(made[at], rng, depth + 1)
    return made


def scrambled(text: str, rng: random.Random) -> str:
    """An XML or text file with some attribute, number or tag replaced."""
    spots = [m.span() for m in re.finditer(r'"[^"]*"|[\d.]+|</?\w+', text)]
    for start, end in sorted(rng.sample(spots, min(len(spots), 3)), reverse=True):
        word = rng.choice(["", '"nan"', '"-5"', '"1e400"', '","', '"9999999999999999999999"', "<x", "0", "&amp;", '""'])
        text = text[:start] + word + text[end:]
    return text


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FILES))
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_a_damaged_annotation_file_never_ends_in_a_traceback(name: str, seed: int) -> None:
    rng = random.Random(seed)
    root = Path(tempfile.mkdtemp())
    try:
        source = BUILDERS[name](root / "in")
        path = source / FILES[name]
        text = path.read_text(encoding="utf-8")
        if path.suffix in (".json", ".mokuro"):
            changed = json.dumps(mutated(json.loads(text), rng)).replace("1e+308", "1e400")
        else:
            changed = scrambled(text, rng)
        path.write_text(changed, encoding="utf-8", errors="replace")
        try:
            made = import_comics(source, root / "out", panels="none")
        except DataError:
            assert not (root / "out").exists()
        else:
            for done in made.pages:
                for x, y, w, h in boxes(root / "out", done.id):
                    size = json.loads((root / "out" / "panels" / f"{done.id}.json").read_text())
                    assert 0 <= x <= x + w <= size["image_width"] + 0.01
                    assert 0 <= y <= y + h <= size["image_height"] + 0.01
                    assert min(w, h) >= 2
    finally:
        shutil.rmtree(root)


@given(st.text(max_size=400) | st.text('{}[]",:\\ab', max_size=400))
def test_any_beginning_of_a_file_can_be_looked_at(text: str) -> None:
    json_keys(text)
    look("x.json", text.encode("utf-8", "surrogatepass"))


def test_hostile_beginnings_take_no_time() -> None:
    for text in ('"' * 40_000 + "\\", '"\\' * 20_000, '{"a":' * 8_000, "[" * 40_000, '{"' + "a" * 40_000):
        json_keys(text)
        look("x.xml", ("<" + text).encode())


@pytest.mark.parametrize("depth", [200_000])
def test_deep_nesting_is_refused_or_read_and_never_a_crash(depth: int, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in")
    write(folder / "a.json", '[{"filename": "page2.png", "size": [200, 300], "panels": ' + "[" * depth)
    with pytest.raises(DataError, match=r"nested too deeply|line 1"):
        import_comics(folder, tmp_path / "out")
    (folder / "a.json").unlink()
    write(folder / "B" / "000.jpg", png())
    inner = "<x>" * depth + "</x>" * depth
    write(folder / "B.xml", f'<book title="B"><pages><page index="0"><frame/>{inner}</page></pages></book>')
    made = import_comics(folder, tmp_path / "out")
    assert [done.id for done in made.pages] == ["B/000"]


def test_long_and_odd_names_inside_files_become_short_safe_ids(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in")
    image = {"id": 1, "file_name": "page2.png", "book": "../" * 500 + "a/" * 3000 + "NUL\0" + "9" * 6000}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40]}
    write(folder / "c.json", {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "panel"}]})
    (done,) = import_comics(folder, tmp_path / "out").pages
    assert len(done.id) < 200
    assert not {"..", "."} & set(done.id.split("/"))
    assert boxes(tmp_path / "out", done.id) == [(1.0, 2.0, 30.0, 40.0)]
