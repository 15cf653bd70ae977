"""Stage 3: one embedding per comic panel, from its picture, its text and its place on the page."""

__version__ = "0.1.0"
