"""A view that is being built."""

from __future__ import annotations

from app import loaders, shell


def render() -> None:
    """Say what the data set holds until the view is there."""
    chosen = shell.chosen()
    frame = shell.working("Reading the panels", loaders.panel_frame, chosen.run, chosen.step)
    shell.heading("Search")
    shell.empty(
        "Search is being built", f"{len(frame):,} panels on {frame['page'].nunique():,} pages are ready for it."
    )
