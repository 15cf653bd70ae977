"""Losses."""

from __future__ import annotations

from app import shell


def render() -> None:
    """Draw the view."""
    shell.heading("Losses")
