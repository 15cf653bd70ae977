"""Kumiko's JSON: panels in reading order; the texts of panels stand in a further key, which `import` reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from stage3.data.exporters.pages import ExportedPage


def document(pages: Sequence[ExportedPage]) -> bytes:
    """The file."""
    return (json.dumps([_page(page) for page in pages], ensure_ascii=False, indent=1) + "\n").encode()


def _page(page: ExportedPage) -> dict[str, Any]:
    texts = [panel.text for panel in page.panels]
    return {
        "filename": page.file_name,
        "size": list(page.size),
        "numbering": "rtl" if page.right_to_left else "ltr",
        "panels": [[_plain(v) for v in panel.box] for panel in page.panels],
        **({"texts": texts} if any(texts) else {}),
    }


def _plain(value: float) -> float:
    """A whole number without a decimal point, as Kumiko writes it."""
    return int(value) if value == int(value) else value
