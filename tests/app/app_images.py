"""What an `AppTest` shows: its images, beside those of a row that is asked for directly, and what needs no choice."""

from __future__ import annotations

import base64

from streamlit.testing.v1 import AppTest

from app.store import loaders
from stage3.data import images
from stage3.data.images import ImageProblem
from stage3.runs import RunFolder

MISSING = b""


def shown(app: AppTest) -> list[tuple[str, bytes]]:
    """What each image of the page is called, and its bytes, in the order of the page."""
    found = []
    for element in app.get("image"):
        (image,) = element.proto.imgs
        kind, _, code = image.url.partition(",")
        assert kind == "data:image/webp;base64", image.url[:60]
        found.append((image.alt, base64.b64decode(code)))
    return found


def containers(app: AppTest) -> set[str]:
    """Keys of the containers of a page, by which the styles know them."""
    found: set[str] = set()
    left = list(app.main.children.values())
    while left:
        node = left.pop()
        found.add(str(getattr(node.proto, "id", "")).partition("-")[2].partition("-")[2])
        left += getattr(node, "children", {}).values()
    return found


def of_panel(run: RunFolder, row: int, side: int) -> bytes:
    """The image of a panel row, cut from its page here; `MISSING` where there is none."""
    table = loaders.open_dataset(run).table
    panel = table.panels.iloc[row]
    if not panel["has_box"]:
        return MISSING
    return _made(table.pages["image_path"].iloc[int(panel["page"])], [float(panel[c]) for c in "xywh"], side)


def of_page(run: RunFolder, page: int, side: int) -> bytes:
    """The image of a page row; `MISSING` where there is none."""
    return _made(loaders.open_dataset(run).table.pages["image_path"].iloc[page], None, side)


def _made(path: str, box: list[float] | None, side: int) -> bytes:
    try:
        return images.encode(images.thumbnail(path, box, side, max_megapixels=50.0), "WEBP", 82)
    except ImageProblem:
        return MISSING


def undecided(app: AppTest) -> set[str]:
    """Labels of choices of one of several that may be left with none, where what is drawn by them needs one."""
    groups = [element.proto for element in app.get("button_group")]
    return {g.label for g in groups if g.click_mode == g.SINGLE_SELECT and not g.required}
