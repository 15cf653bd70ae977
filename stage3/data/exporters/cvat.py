"""CVAT for images 1.1: panels and texts as boxes or polygons, with their words and the reading order as attributes."""

from __future__ import annotations

from collections.abc import Sequence

from stage3.data.exporters.pages import Box, ExportedPage, ExportedPanel, Text
from stage3.data.exporters.xml import element, text

PANEL_ATTRIBUTES = ("reading_order", "text", "confidence")
TEXT_ATTRIBUTES = ("text", "kind", "speaker")


def document(pages: Sequence[ExportedPage]) -> bytes:
    """The file."""
    types = sorted({page.label for page in pages if page.label})
    labels = [_label("panel", "any", PANEL_ATTRIBUTES), _label("text", "any", TEXT_ATTRIBUTES)]
    labels += [_label(name, "tag", ()) for name in types]
    task = "".join(
        [
            element("name", "stage3"),
            element("size", str(len(pages))),
            element("mode", "annotation"),
            element("labels", "".join(labels)),
        ]
    )
    lines = ['<?xml version="1.0" encoding="utf-8"?>', "<annotations>", element("version", "1.1")]
    lines.append(element("meta", element("task", task)))
    lines += [_image(page, number) for number, page in enumerate(pages)]
    return "\n".join([*lines, "</annotations>", ""]).encode()


def _label(name: str, kind: str, attributes: Sequence[str]) -> str:
    made = "".join(
        element(
            "attribute",
            element("name", a)
            + element("mutable", "False")
            + element("input_type", "text")
            + element("default_value", "")
            + element("values", ""),
        )
        for a in attributes
    )
    return element("label", element("name", text(name)) + element("type", kind) + element("attributes", made))


def _image(page: ExportedPage, number: int) -> str:
    shapes = [_panel(panel, order) for order, panel in enumerate(page.panels, start=1)]
    shapes += [_text(t) for t in (*page.texts, *(t for panel in page.panels for t in panel.texts))]
    if page.label:
        shapes.append(element("tag", "", label=page.label, source="manual"))
    content = "".join(f"\n  {shape}" for shape in shapes) + "\n"
    return element("image", content, id=number, name=page.file_name, width=page.size[0], height=page.size[1])


def _panel(panel: ExportedPanel, order: int) -> str:
    known = {"reading_order": str(order), "text": panel.other_text}
    if panel.confidence is not None:
        known["confidence"] = str(panel.confidence)
    if panel.polygon is None:
        return _box("panel", panel.box, known)
    points = ";".join(f"{x:.2f},{y:.2f}" for x, y in panel.polygon)
    return element("polygon", _attributes(known), label="panel", source="manual", occluded=0, points=points, z_order=0)


def _text(block: Text) -> str:
    return _box("text", block.box, {"text": block.text, "kind": block.kind, "speaker": block.speaker})


def _box(label: str, box: Box, known: dict[str, str]) -> str:
    x, y, w, h = box
    edges = {"xtl": f"{x:.2f}", "ytl": f"{y:.2f}", "xbr": f"{x + w:.2f}", "ybr": f"{y + h:.2f}"}
    return element("box", _attributes(known), label=label, source="manual", occluded=0, **edges, z_order=0)


def _attributes(known: dict[str, str]) -> str:
    return "".join(element("attribute", text(value), name=name) for name, value in known.items() if value)
