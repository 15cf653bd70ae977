"""Small browser parts: the style sheet, keyboard shortcuts, pictures on hover. Scripts and styles are our own constants."""

from __future__ import annotations

from pathlib import Path

import streamlit as st
from PIL import Image, ImageDraw

HERE = Path(__file__).parent


def _asset(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def icon() -> Image.Image:
    """The tab's icon, drawn here: a named icon would be fetched from a server on the internet."""
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    for box, fill in (((4, 4, 36, 28), "#1F5FA8"), ((42, 4, 60, 28), "#E69F00"), ((4, 34, 60, 60), "#009E73")):
        draw.rounded_rectangle(box, radius=5, fill=fill)
    return image


def style() -> None:
    """Spacing and type that the theme settings do not reach."""
    st.components.v2.component("stage3.style", css=_asset("style.css"), js=_asset("style.js"), isolate_styles=False)(
        key="style", height=1
    )


def shortcuts() -> None:
    """Keyboard shortcuts that click what is on the page."""
