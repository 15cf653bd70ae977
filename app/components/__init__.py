"""Small browser parts: the style sheet, keyboard shortcuts, pictures on hover. Scripts and styles are our own constants."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

HERE = Path(__file__).parent


def _asset(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def style() -> None:
    """Spacing and type that the theme settings do not reach."""
    st.components.v2.component("stage3.style", css=_asset("style.css"), js=_asset("style.js"), isolate_styles=False)(
        key="style", height=1
    )


def shortcuts() -> None:
    """Keyboard shortcuts that click what is on the page."""
