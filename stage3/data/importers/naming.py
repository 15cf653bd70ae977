"""Ids of pages: names of books and pages as people know them, safe as file names on every system, and all different."""

from __future__ import annotations

import re
import unicodedata

from stage3.data.readers.names import EXTENSIONS, exact_key, normal_key
from stage3.storage import sha256

MAX_PART = 80  # characters of one folder's or file's name
MAX_NAME = 120  # of a book's name, or of a page's within it
_UNSAFE = re.compile(r'[<>:"|?*\\\x00-\x1f\x7f]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # names that Windows keeps for devices


def safe_name(name: str) -> str:
    """A name, with "/" between its parts, whose parts are file names on every system.

    Example:
        >>> safe_name("Foo: Bar?/../con/ 001 ."), safe_name("...")
        ('Foo_ Bar_/con_/001', 'unnamed')
    """
    parts = []
    for part in unicodedata.normalize("NFC", name).replace("\\", "/").split("/"):
        plain = _UNSAFE.sub("_", "".join(c if c.isprintable() else "_" for c in part)).strip(" .")
        if _RESERVED.fullmatch(plain):
            plain += "_"
        if len(plain) > MAX_PART:
            plain = f"{plain[: MAX_PART - 9].rstrip(' .')}~{sha256(plain.encode())[:8]}"
        if plain:
            parts.append(plain)
    made = "/".join(parts) or "unnamed"
    if len(made) > MAX_NAME:
        made = f"{made[: MAX_NAME - 9].rstrip(' ./')}~{sha256(made.encode())[:8]}"
    return made


def key_of(page_id: str) -> str:
    """Under which two ids count as the same: one panel file would serve both."""
    return normal_key(exact_key(page_id))


def page_id(book: str, name: str, source: str, taken: dict[str, str]) -> str:
    """The id of a page: book and name; with a digest of where it comes from if another page has that id already.

    Args:
        book: name of the book.
        name: name of the page.
        source: what tells this page from all others.
        taken: source by `key_of` of the ids that are given; the new id is added.
    """
    plain = f"{safe_name(book)}/{safe_name(name)}"
    while plain.lower().endswith(EXTENSIONS):  # an id is compared without image extensions
        plain = f"{plain.rpartition('.')[0]}_{plain.rpartition('.')[2]}"
    made = plain
    if taken.get(key_of(made), source) != source:
        made = f"{plain}~{sha256(source.encode('utf-8', 'replace'))[:8]}"
    taken[key_of(made)] = source
    return made
