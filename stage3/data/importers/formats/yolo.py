"""YOLO text files (Ultralytics, Roboflow): one `.txt` per image, one line per box, in shares of the image.

A line is `class x_center y_center width height [confidence]`, or `class x1 y1 x2 y2 x3 y3 …` of a polygon. An empty
file says that the page has no panels; a missing one, that nobody labeled it. Names of the classes stand in a YAML file
with `names` (data.yaml), or one per line in classes.txt or obj.names. Labels lie beside the images, or in a folder
`labels` where the images lie in `images`; where the YAML says that they are is not looked at, since it seldom holds on
another machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stage3.data.importers.documents import MAX_SETTINGS, read_yaml
from stage3.data.importers.format import Classes, Format, Reading, classes, score_of
from stage3.data.importers.geometry import around, no_rectangle, numbers, pairs, whole_number
from stage3.data.importers.lookup import books_of, in_order
from stage3.data.importers.page import Page, PanelBox
from stage3.data.importers.sight import Sight
from stage3.data.importers.trees import ImageRef, SourceProblem, leaf, parent, stem
from stage3.data.readers.jsonfile import PageProblem

NAME_LISTS = ("classes.txt", "obj.names")
MAX_LABELS = 4 * 2**20  # bytes of one label file
OVERSHOOT = 0.05  # of the page; boxes may reach out so far before they count as pixels


def claims(sight: Sight) -> bool:
    """A list of class names: data.yaml with names, classes.txt, obj.names."""
    return (sight.kind == "yaml" and sight.has("names")) or leaf(sight.name).lower() in NAME_LISTS


def read(reading: Reading) -> Iterator[Page]:
    """All images below the source, with the boxes of those that have a label file."""
    names, file, pose = _names(reading)
    kinds = classes(names.values(), reading.options, reading.tree.show(file))
    if not kinds.panels:
        raise SourceProblem(
            "no_panel_class", f"{reading.tree.show(file)}: no class is a panel. Name it with --panel_class."
        )
    labels = {name: name for name in reading.tree.names if name.lower().endswith(".txt") and name not in reading.files}
    images = in_order(reading.images.all)
    shown = 0
    for image, book in zip(images, books_of(images), strict=True):
        page = Page(book, stem(image.member), image, size=(1.0, 1.0), squashed=True)
        page.file = file
        if label := next((labels[n] for n in _label_names(image) if n in labels), ""):
            shown += 1
            try:
                page.panels = _panels(reading, label, names, kinds, pose=pose)
            except PageProblem as problem:
                page.problem = (problem.code, problem.detail)
        yield page
    if images and not shown:
        raise SourceProblem("yolo_no_labels", f"{reading.tree.where}: no .txt file of labels belongs to any image")


def _names(reading: Reading) -> tuple[dict[int, str], str, bool]:
    """Class names by number, the file that has them, and whether labels have key points; data.yaml wins over lists."""
    for name in sorted(reading.files, key=lambda n: (not n.lower().endswith((".yaml", ".yml")), n.count("/"), n)):
        if not name.lower().endswith((".yaml", ".yml")):
            lines = reading.tree.read(name, MAX_SETTINGS).decode("utf-8-sig", "replace").splitlines()
            return {k: line.strip() for k, line in enumerate(lines) if line.strip()}, name, False
        settings = read_yaml(reading.tree, name)
        value: Any = settings.get("names")
        if isinstance(value, list):
            value = dict(enumerate(value))
        if isinstance(value, dict):
            return (
                {n: str(v) for k, v in value.items() if (n := whole_number(str(k))) is not None},
                name,
                "kpt_shape" in settings,
            )
    raise SourceProblem("yolo_names", f"{reading.tree.where}: no YAML file has the names of the classes under 'names'")


def _label_names(image: ImageRef) -> Iterator[str]:
    """Where an image's labels may lie: beside it, or with the last folder "images" of the path called "labels"."""
    folder, name = parent(image.member), f"{stem(image.member)}.txt"
    parts = folder.split("/")
    for k in range(len(parts) - 1, -1, -1):
        if parts[k].casefold() == "images":
            yield "/".join([*parts[:k], "labels", *parts[k + 1 :], name])
            break
    yield f"{folder}/{name}" if folder else name
    yield f"{folder}/labels/{name}" if folder else f"labels/{name}"


def _panels(reading: Reading, label: str, names: dict[int, str], kinds: Classes, *, pose: bool) -> list[PanelBox]:
    panels = []
    text = reading.tree.read(label, MAX_LABELS).decode("utf-8-sig", "replace")
    for line, row in enumerate(text.splitlines(), start=1):
        where = f"{reading.tree.show(label)}:{line}"
        if not row.strip():
            continue
        values = numbers(row.split())
        if values is None or len(values) < 5 or values[0] != int(values[0]):
            raise PageProblem("yolo_line", f"{where}: expected a class and at least four numbers, found {row[:60]!r}")
        if int(values[0]) not in names:
            reading.note("class_unknown", f"{where}: class {int(values[0])}")
        if kinds.role(names.get(int(values[0]), "")) != "panel":
            continue
        values = values[:5] if pose else values
        if not all(-OVERSHOOT <= v <= 1 + OVERSHOOT for v in values[1:]):
            raise PageProblem(
                "yolo_unit", f"{where}: coordinates are shares of the page, from 0 to 1; found {row[:60]!r}"
            )
        panel = _panel(values[1:])
        used, panel.confidence = score_of(panel.confidence, reading.options.min_score, reading.note, where)
        if used:
            panels.append(panel)
    return panels


def _panel(values: list[float]) -> PanelBox:
    """Four numbers are a box, six and more a polygon; an odd one at the end is the confidence."""
    score = values[-1] if len(values) % 2 else None
    if len(values) <= 5:
        x, y, w, h = values[:4]
        return PanelBox((x - w / 2, y - h / 2, w, h), score)
    corners = pairs(values[: len(values) // 2 * 2])
    assert corners is not None
    return PanelBox(around(corners), score, no_rectangle(corners, tolerance=1e-3))


FORMAT = Format(
    "yolo", "YOLO text files", "data.yaml with names (or classes.txt) and one .txt of labels per image", claims, read
)
