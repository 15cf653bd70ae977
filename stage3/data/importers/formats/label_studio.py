"""Label Studio's JSON export: tasks with `annotations[].result[]`, rectangles and polygons in percent of the image.

A rectangle is turned by `rotation` degrees around its top left corner. Of several annotations of a task one counts: the
ground truth, else the one changed last; cancelled ones never, and `predictions` only where nobody annotated. A text
belongs to the region that has its id.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stage3.data.importers.documents import objects
from stage3.data.importers.format import Classes, Format, Reading, classes, first_text, once, score_of
from stage3.data.importers.geometry import around, declared, no_rectangle, numbers, rotated
from stage3.data.importers.lookup import books_of
from stage3.data.importers.page import Box, Page, PanelBox, Points, TextBlock
from stage3.data.importers.sight import Sight
from stage3.data.importers.trees import ImageRef, SourceProblem, has_image_name, natural, stem
from stage3.data.readers.boxes import number

LABEL_KEYS = ("rectanglelabels", "polygonlabels", "labels")


def claims(sight: Sight) -> bool:
    """A list of tasks."""
    return sight.has("[].data") and (sight.has("[].annotations") or sight.has("[].predictions"))


def read(reading: Reading) -> Iterator[Page]:
    """The pages of all files."""
    yield from once((page for name in reading.files for page in _pages(reading, name)), reading.note)


def _pages(reading: Reading, name: str) -> Iterator[Page]:
    value = reading.json(name)
    where = reading.tree.show(name)
    if not isinstance(value, list):
        raise SourceProblem("label_studio_shape", f"{where}: expected a list of tasks")
    tasks: list[tuple[ImageRef, dict[str, Any], list[dict[str, Any]] | None]] = []
    for task in objects(value):
        written = _image_name(task)
        image = reading.images.find(written, (stem(name),))
        if image is None:
            reading.without_image(written or f"task {task.get('id')}", name)
        else:
            tasks.append((image, task, _result(reading, task, f"{where}: task {task.get('id')}")))
    tasks.sort(key=lambda entry: natural(entry[0].member))  # the order of tasks means nothing
    names = [label for _, _, result in tasks for region in result or () for label in _labels(region)]
    kinds = classes(names, reading.options, where)
    for (image, task, result), book in zip(tasks, books_of([image for image, _, _ in tasks]), strict=True):
        page = Page(book, stem(image.member), image, file=name)
        if result is not None:
            _fill(page, result, kinds, reading, f"{where}: task {task.get('id')}")
        yield page


def _image_name(task: dict[str, Any]) -> str:
    """The image of a task, under whatever name the project gave it."""
    data = task.get("data")
    values = [v for v in data.values() if isinstance(v, str)] if isinstance(data, dict) else []
    return next((v for v in values if has_image_name(v.partition("#")[0])), values[0] if values else "")


def _result(reading: Reading, task: dict[str, Any], where: str) -> list[dict[str, Any]] | None:
    """The regions of the annotation that counts; None when nobody annotated the page."""
    done = [a for a in objects(task.get("annotations")) if not a.get("was_cancelled")]
    if len(done) > 1:
        reading.note("several_annotations", where)
    if done:
        chosen = max(done, key=lambda a: (bool(a.get("ground_truth")), str(a.get("updated_at") or "")))
        return list(objects(chosen.get("result")))
    if not task.get("annotations") and (guesses := list(objects(task.get("predictions")))):
        reading.note("prediction_used", where)
        return list(objects(guesses[-1].get("result")))
    return None


def _labels(region: dict[str, Any]) -> list[str]:
    value = region.get("value")
    found = [value[k] for k in LABEL_KEYS if isinstance(value.get(k), list)] if isinstance(value, dict) else []
    return [str(label) for labels in found for label in labels]


def _fill(page: Page, result: list[dict[str, Any]], kinds: Classes, reading: Reading, where: str) -> None:
    page.panels = [] if kinds.panels else None
    said: dict[str, str] = {}  # of each region
    for region in result:
        value = region.get("value")
        if region.get("type") == "textarea" and isinstance(value, dict):
            said[str(region.get("id"))] = first_text([value.get("text")])
    for region in result:
        roles = {kinds.role(label) for label in _labels(region)} - {""}
        if not roles:
            continue
        here = f"{where}: region {region.get('id')}"
        shape = _shape(region)
        if shape is None:
            reading.note("box_invalid", here)
            continue
        box, polygon, page.size = shape
        text = said.get(str(region.get("id")), "")
        used, score = score_of(region.get("score"), reading.options.min_score, reading.note, here)
        if not used:
            continue
        if "panel" in roles and page.panels is not None:
            page.panels.append(PanelBox(box, score, polygon, text=text))
        elif "text" in roles and text:
            page.texts.append(TextBlock(text, box))


def _shape(region: dict[str, Any]) -> tuple[Box, Points | None, tuple[float, float]] | None:
    """A region in pixels of the size that it was drawn on, its polygon if it is no upright box, and that size."""
    size = declared(region.get("original_width"), region.get("original_height"))
    value = region.get("value")
    if size is None or not isinstance(value, dict):
        return None
    wide, high = size
    if isinstance(value.get("points"), list):
        rows = [numbers(p) for p in value["points"] if isinstance(p, list) and len(p) == 2]
        corners: Points = tuple((r[0] * wide / 100, r[1] * high / 100) for r in rows if r)
        if len(corners) < 3 or len(corners) != len(value["points"]):
            return None
        return around(corners), no_rectangle(corners), (wide, high)
    parts = numbers(value.get(k) for k in ("x", "y", "width", "height"))
    if parts is None:
        return None
    box = (parts[0] * wide / 100, parts[1] * high / 100, parts[2] * wide / 100, parts[3] * high / 100)
    turned = rotated(box, number(value.get("rotation")) or 0.0, box[:2])
    return around(turned), no_rectangle(turned), (wide, high)


FORMAT = Format(
    "label_studio", "Label Studio JSON", "a JSON list of tasks with data and annotations[].result", claims, read
)
