"""Draws sample comics: books with their own look and cast, in the formats that users have, with their ground truth."""

from stage3.samples.writer import Summary, draw_books

__all__ = ["Summary", "draw_books"]
