"""Charts of a data set: panels per page, coverage, the split, and a page with its kept and dropped panels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from PIL import Image, ImageDraw, ImageFont

from app.charts import theme
from app.store import loaders
from stage3.cli import percent
from stage3.data import images
from stage3.data.page_check import PageCheck

OUTSIDE = 0.6  # share of a number that lies outside of its frame
LEAST_SIDE = 800  # pixels of a page's long side that frames and numbers are drawn on
KEPT, DROPPED = "#0072B2", "#D55E00"
COVERAGE = {
    "dialogue_share": "panels with dialogue",
    "description_share": "panels with description",
    "textless_share": "textless panels",
    "boxless_share": "panels without box",
    "single_panel_share": "single-panel pages",
    "no_picture_share": "pages without image",
}


def show_panels_per_page(counts: Mapping[str, int]) -> None:
    """How many pages have how many panels."""
    numbers = tuple(sorted((int(n), int(pages)) for n, pages in counts.items()))
    figure = theme.kept(("panels per page", numbers), lambda: _panels_per_page(numbers))
    said = ", ".join(f"{pages} pages with {n}" for n, pages in numbers[:20])
    theme.show(figure, key="data-histogram", alt=f"Panels per page: {said}")


def _panels_per_page(numbers: Sequence[tuple[int, int]]) -> go.Figure:
    figure = go.Figure(
        go.Bar(
            x=[n for n, _ in numbers],
            y=[pages for _, pages in numbers],
            marker_color=theme.categorical()[0],
            text=[f"{pages:,}" for _, pages in numbers],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y:,} pages with %{x} panels<extra></extra>",
        )
    )
    theme.style(figure, height=260, legend=False)
    figure.update_xaxes(title_text="panels per page", dtick=1 if len(numbers) < 25 else None)
    return figure.update_yaxes(title_text="pages", range=[0, 1.15 * max((p for _, p in numbers), default=1)])


def show_coverage(facts: Mapping[str, Any]) -> None:
    """Shares of the panels with text, of those without a box, and so on, in percent."""
    rows = tuple((label, float(facts[name])) for name, label in COVERAGE.items() if name in facts)[::-1]
    figure = theme.kept(("coverage", rows), lambda: _coverage(rows))
    theme.show(figure, key="data-coverage", alt="; ".join(f"{n} {v:.1%}" for n, v in rows))


def _coverage(rows: Sequence[tuple[str, float]]) -> go.Figure:
    colors = [theme.categorical()[2] if " with d" in n else theme.categorical()[1] for n, _ in rows]
    figure = go.Figure(
        go.Bar(
            x=[v for _, v in rows],
            y=[n for n, _ in rows],
            orientation="h",
            marker_color=colors,
            text=[percent(v) for _, v in rows],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}: %{x:.1%}<extra></extra>",
        )
    )
    theme.style(figure, height=260, legend=False)
    figure.update_xaxes(range=[0, 1.12], tickformat=".0%")
    return figure.update_layout(margin={"l": 160})


def show_splits(splits: Mapping[str, Mapping[str, int]]) -> None:
    """Books, pages and panels of each split as shares of the whole."""
    figure = go.Figure()
    kinds = ["books", "pages", "panels"]
    totals = {k: max(1, sum(int(s[k]) for s in splits.values())) for k in kinds}
    for i, (name, sizes) in enumerate(splits.items()):
        figure.add_bar(
            y=kinds,
            x=[int(sizes[k]) / totals[k] for k in kinds],
            name=name,
            orientation="h",
            marker_color=theme.categorical()[i],
            text=[f"{int(sizes[k]):,}" for k in kinds],
            textposition="inside",
            insidetextanchor="middle",
            hovertemplate=f"{name}: %{{text}} %{{y}}, %{{x:.1%}}<extra></extra>",
        )
    theme.style(figure, height=200)
    figure.update_layout(barmode="stack", legend={"traceorder": "normal"})
    figure.update_xaxes(range=[0, 1], tickformat=".0%")
    figure.update_yaxes(autorange="reversed")
    said = "; ".join(f"{n}: {s['books']} books, {s['pages']} pages, {s['panels']} panels" for n, s in splits.items())
    theme.show(figure, key="data-splits", alt=f"Split by book. {said}")


def overlay(check: PageCheck, side: int = 1200) -> bytes:
    """The page as WEBP: kept panels framed and numbered in reading order, dropped ones crossed out.

    Raises:
        ImageProblem: the page's image cannot be read. A page without an image is drawn as an empty sheet.
    """
    if check.image:
        page = images.thumbnail(check.image, None, side, max_megapixels=loaders.MAX_MEGAPIXELS)
        if max(page.size) < min(side, LEAST_SIDE):
            scale = min(side, LEAST_SIDE) / max(page.size)
            page = page.resize((round(page.width * scale), round(page.height * scale)), Image.Resampling.BICUBIC)
    else:
        page = Image.new("RGB", (round(side * 0.7), side), "#E6E9ED")
    draw = ImageDraw.Draw(page)
    unit = max(page.size) / 1000
    font = ImageFont.load_default(size=max(12, round(24 * unit)))
    for panel in sorted(check.panels, key=lambda p: p.order is not None):  # kept ones on top
        if panel.box is None:
            continue
        x, y, w, h = panel.box
        x0, y0 = x * page.width, y * page.height
        x1, y1 = max((x + w) * page.width, x0 + 2), max((y + h) * page.height, y0 + 2)
        kept = panel.order is not None
        color, width = (KEPT, max(3, round(4 * unit))) if kept else (DROPPED, max(2, round(3 * unit)))
        draw.rectangle((x0, y0, x1, y1), outline=color, width=width)
        if not kept:
            draw.line((x0, y0, x1, y1), fill=color, width=width)
            draw.line((x0, y1, x1, y0), fill=color, width=width)
        mark = str(panel.order + 1) if panel.order is not None else f"file #{panel.index}"
        left, top, right, bottom = draw.textbbox((0, 0), mark, font=font)
        pad = width + 3
        tag_w, tag_h = right - left + 2 * pad, bottom - top + 2 * pad
        # on the corner and mostly outside: inside it would cover the first balloon
        tag_x, tag_y = max(0.0, x0 - OUTSIDE * tag_w), max(0.0, y0 - OUTSIDE * tag_h)
        draw.rectangle((tag_x, tag_y, tag_x + tag_w, tag_y + tag_h), fill=color)
        draw.text((tag_x + pad - left, tag_y + pad - top), mark, fill="white", font=font)
    return images.encode(page, "WEBP", 86)


def entries(check: PageCheck, *, left_out: bool = False) -> pd.DataFrame:
    """The entries of a page's file as a table: place in reading order, whether it was kept, why, text.

    Args:
        check: of the page.
        left_out: the whole page is not used, so that none of its panels is.
    """
    rows = []
    for panel in check.panels:
        kept = panel.order is not None
        notes = "; ".join(f"{code}: {detail}" for code, detail in panel.notes)
        place = str(panel.order + 1) if panel.order is not None else "–"
        outcome = ("kept" if panel.box else "kept, text only") if kept else "dropped"
        if left_out and kept:
            outcome = "usable, page left out"
        rows.append((place, panel.index, outcome, notes, panel.text))
    return pd.DataFrame(rows, columns=["order", "entry", "outcome", "notes", "text"])
