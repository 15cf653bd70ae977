"""The one route of our own: images of panels and pages, requested by run id and number, never by a path.

    /images/panel/{root}/{run}/{panel row}/{side}      /images/page/{root}/{run}/{page row}/{side}

Sides come from a short list, so that the memory of made images stays small. An image that cannot be read is
answered with a small gray one that says so in its alt text's place: a broken file must not break a gallery.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.store import loaders
from app.store.cache import Memory
from stage3.errors import Stage3Error
from stage3.runs import RunFolder

SIDES = (96, 160, 240, 360, 640, 1200)
KINDS = ("panel", "page")
_encoded: Memory[bytes] = Memory(4000)
_at_once = asyncio.Semaphore(4)
HEADERS = {
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "private, max-age=3600",
}


def url(kind: str, run_id: str, row: int, side: int = 240, version: str = "") -> str:
    """The address of an image, relative to the server: for components and image columns."""
    label, _, name = run_id.partition("/")
    at = f"{kind}/{quote(label, safe='')}/{quote(name, safe='')}/{int(row)}/{side_for(side)}"
    return f"/images/{at}?v={version}"


def side_for(side: int) -> int:
    """The smallest size on offer that is not below `side` pixels."""
    return min((s for s in SIDES if s >= side), default=SIDES[-1])


def image(run_id: str, kind: str, row: int, side: int) -> bytes:
    """`image_of` the run of an id, which may come from an address.

    Raises:
        Stage3Error: no such run; and what `image_of` raises.
    """
    return image_of(loaders.entry(run_id).run, kind, row, side)


def image_of(run: RunFolder, kind: str, row: int, side: int) -> bytes:
    """The bytes (WEBP) of a panel's or page's image, its long side at most `side` pixels.

    Raises:
        Stage3Error: the run's data set cannot be read.
        ImageProblem: the page has no readable image.
        IndexError: no such row.
    """
    from stage3.data import images

    key = (*loaders.data_key(run.config), kind, row, side)

    def make() -> bytes:
        table = loaders.open_dataset(run).table
        box, page = None, row
        if kind == "panel":
            panel = table.panels.iloc[row]
            page = int(panel["page"])
            if not panel["has_box"]:
                raise images.ImageProblem("no_box", "the panel has no box")
            box = [float(panel[c]) for c in "xywh"]
        path = table.pages["image_path"].iloc[page]
        if not path:
            raise images.ImageProblem("missing", "the page has no image")
        small = images.thumbnail(path, box, side, max_megapixels=loaders.MAX_MEGAPIXELS)
        return images.encode(small, "WEBP", 82)

    return _encoded.get(key, make)


def whole_page(run: RunFolder, page: int, form: Literal["PNG", "JPEG", "WEBP"]) -> bytes:
    """A page's image at its own size, decoded by the guarded reader and written again in a format.

    Raises:
        Stage3Error: the run's data set cannot be read.
        ImageProblem: the page has no readable image.
    """
    from stage3.data import images

    path = loaders.open_dataset(run).table.pages["image_path"].iloc[page]
    if not path:
        raise images.ImageProblem("missing", "the page has no image")
    return images.encode(images.open_page(path, max_megapixels=loaders.MAX_MEGAPIXELS), form, 92)


def placeholder(side: int) -> bytes:
    """A quiet gray image with a diagonal, for what has no image."""

    def make() -> bytes:
        from PIL import Image, ImageDraw

        from stage3.data import images

        size = min(side, 160)
        image = Image.new("RGB", (size, size), "#8B929B")
        ImageDraw.Draw(image).line((0, size, size, 0), fill="#A9AFB7", width=2)
        return images.encode(image, "WEBP")

    return _encoded.get(("placeholder", min(side, 160)), make)


async def _serve(request: Request) -> Response:
    parts: dict[str, Any] = request.path_params
    kind, row, side = parts["kind"], parts["row"], parts["side"]
    if kind not in KINDS or side not in SIDES:
        return Response("no such image", 404, media_type="text/plain", headers=HEADERS)
    async with _at_once:
        body, status = await asyncio.to_thread(_answer, f"{parts['root']}/{parts['run']}", kind, row, side)
    return Response(body, status, media_type="image/webp", headers=HEADERS)


def _answer(run_id: str, kind: str, row: int, side: int) -> tuple[bytes, int]:
    from stage3.data.images import ImageProblem

    try:
        return image(run_id, kind, row, side), 200
    except ImageProblem:
        return placeholder(side), 200
    except (Stage3Error, IndexError):
        return placeholder(side), 404


ROUTES = [Route("/images/{kind:str}/{root:str}/{run:str}/{row:int}/{side:int}", _serve, methods=["GET"])]
