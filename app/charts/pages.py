"""A page with its panels: the image (or a drawing of the layout) with numbered boxes, and its similarity matrix."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from PIL import Image, ImageDraw, ImageFont

from app.charts import theme
from stage3.data import images

if TYPE_CHECKING:
    import pandas as pd

Box = tuple[float, float, float, float]
INK = "#1F5FA8"
FOCUS = "#D55E00"
USUAL_RATIO = 0.7  # width over height of a page whose size is not known


def ratio_of(page: Mapping[str, Any] | pd.Series[Any]) -> float:
    """Width over height of a page of the panel table."""
    width, height = int(page["width"]), int(page["height"])
    return width / height if width > 0 and height > 0 else USUAL_RATIO


def boxed(
    image: bytes | None,
    boxes: Sequence[Box | None],
    focus: int | None = None,
    *,
    ratio: float = USUAL_RATIO,
    side: int = 1200,
) -> bytes:
    """A page with a numbered frame around each panel, as WEBP.

    Args:
        image: the page's image as the image route gives it; None draws the layout on an empty page.
        boxes: x, y, w, h of each panel in reading order, shares of the page; None for panels without a box.
        focus: the panel whose frame stands out.
        ratio: width over height of an empty page.
        side: longer side of an empty page in pixels.
    """
    if image is None:
        page = Image.new("RGB", _plain_size(ratio, side), "#E6E9ED")
    else:
        with Image.open(io.BytesIO(image), formats=["WEBP"]) as opened:
            page = opened.convert("RGB")
    draw = ImageDraw.Draw(page, "RGBA")
    unit = max(page.size) / 1000
    font = ImageFont.load_default(size=max(10, round(18 * unit)))
    for i, box in enumerate(boxes):
        if box is not None and i != focus:
            _frame(draw, page.size, box, str(i + 1), INK, max(2, round(3 * unit)), font, plain=image is None)
    if focus is not None and focus < len(boxes) and (box := boxes[focus]) is not None:
        _frame(draw, page.size, box, str(focus + 1), FOCUS, max(4, round(6 * unit)), font, plain=image is None)
    return images.encode(page, "WEBP", 86)


def _plain_size(ratio: float, side: int) -> tuple[int, int]:
    ratio = min(max(ratio, 0.2), 5.0)
    return (round(side * ratio), side) if ratio <= 1 else (side, round(side / ratio))


def _frame(
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    box: Box,
    number: str,
    color: str,
    width: int,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    *,
    plain: bool,
) -> None:
    x0, y0 = box[0] * size[0], box[1] * size[1]
    x1, y1 = x0 + box[2] * size[0], y0 + box[3] * size[1]
    x1, y1 = max(x1, x0 + 2), max(y1, y0 + 2)
    draw.rectangle((x0, y0, x1, y1), outline=color, width=width, fill="#FFFFFF" if plain else None)
    left, top, right, bottom = draw.textbbox((0, 0), number, font=font)
    pad = width + 2
    w, h = max(right - left, bottom - top) + 2 * pad, bottom - top + 2 * pad
    # on the corner and mostly outside: inside it would cover the first balloon
    tag_x, tag_y = max(0.0, x0 - 0.6 * w), max(0.0, y0 - 0.6 * h)
    draw.rounded_rectangle((tag_x, tag_y, tag_x + w, tag_y + h), radius=h / 4, fill=color, outline="white")
    draw.text((tag_x + (w - (right - left)) / 2 - left, tag_y + pad - top), number, fill="white", font=font)


def similarities(
    matrix: np.ndarray, rows: Sequence[str], columns: Sequence[str], *, axes: tuple[str, str]
) -> go.Figure:
    """A matrix of cosines with its values written in, both axes in reading order from the top left; do not change it.

    Args:
        matrix: (N, M) cosines; NaN cells stay empty.
        rows: names of the rows.
        columns: names of the columns.
        axes: what rows and columns are.
    """
    key = ("similarities", matrix.tobytes(), str(matrix.dtype), *rows, "against", *columns, *axes)
    return theme.kept(key, lambda: _similarities(matrix, rows, columns, axes))


def _similarities(matrix: np.ndarray, rows: Sequence[str], columns: Sequence[str], axes: tuple[str, str]) -> go.Figure:
    n = max(matrix.shape)
    text = [["" if np.isnan(v) else f"{v:.2f}" for v in row] for row in matrix] if n <= 16 else None
    heat = go.Heatmap(
        z=matrix.astype(np.float32),
        x=list(columns),
        y=list(rows),
        text=text,
        texttemplate="%{text}" if text else None,
        colorscale=theme.ordered(),
        zmin=float(np.nanmin(matrix)),
        zmax=float(np.nanmax(matrix)),
        hovertemplate=f"{axes[0]} %{{y}}, {axes[1]} %{{x}}: %{{z:.3f}}<extra></extra>",
        colorbar={"thickness": 10, "title": {"text": "cosine", "side": "right"}, "outlinewidth": 0},
        xgap=1,
        ygap=1,
    )
    figure = theme.style(go.Figure(heat), height=int(min(480, 120 + 42 * len(rows))), legend=False)
    figure.update_xaxes(title=axes[1], type="category", showgrid=False)
    figure.update_yaxes(title=axes[0], type="category", autorange="reversed", showgrid=False)
    return figure
