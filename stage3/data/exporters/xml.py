"""XML text by hand: elements of few kinds, in order, with what XML cannot hold left out."""

from __future__ import annotations

import re
from xml.sax.saxutils import escape, quoteattr

_REFUSED = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def text(value: str) -> str:
    """Words as XML."""
    return escape(_REFUSED.sub("\ufffd", value))


def element(tag: str, content: str | None = None, /, **attributes: object) -> str:
    """An element; `content` is XML already, None closes it at once."""
    written = "".join(f" {k}={quoteattr(_REFUSED.sub(chr(0xFFFD), str(v)))}" for k, v in attributes.items())
    return f"<{tag}{written}/>" if content is None else f"<{tag}{written}>{content}</{tag}>"
