"""Which book a page belongs to, when neither a column nor a folder says so: read from ids such as `Foo - p012.jpg`.

An id gives its book only together with the others: `Foo 12-13` is a double page of `Foo` or page 13 of issue 12. So
every id is cut at its page number first, and then books of a single page are looked at again. A page that is counted
to the wrong book costs little; pages of one comic in different books would lie in training and test at once.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from stage3.data.readers.names import stem_key

UNNAMED = "unnamed"  # ids that are nothing but a page number
NEAR_END = 24  # characters of an id's end in which its page number is looked for
WITH_TAGS = 120  # the same, where the id ends in a bracket

# The page number at the end of a name: `p012`, `012a`, `(12)`, `012 (of 24)`, `v01c01p001`.
_NUMBER = re.compile(
    r"""
    (?: (?<![^\W\d_]) (?: pages? | pg | p ) [\s_.-]* )?    # "p" and the like, not the end of a word
    (?: (?P<bare>\d+) [abclr]?                              # halves of a double page: a, b, l, r
        (?: [\s_-]* of [\s_-]* \d+ )?
        (?: \s* [(\[] [^()\[\]]* [)\]] )*                   # "(of 24)", "(2019)", "[digital]"
      | [(\[] (?P<inner>\d{1,3}) [)\]]
    ) $""",
    re.VERBOSE | re.IGNORECASE,
)
_LEADING = re.compile(r"\d+[\s_.-]+(?=[^\W\d_])")  # "0001-Foo"
_DASH = re.compile(r"\s*[-–+&]\s*p?", re.IGNORECASE)
_AROUND = " -_.–—"
_CUT = re.compile(r"[\s_.–—-]+")


def guessed_books(page_ids: Sequence[str]) -> list[str]:
    """The book of each id without a folder.

    An id's book is its name without image extensions and page number; of `Book 1_Book 1 - p000`, where the folder's
    name stands twice, it is that name. A book of one page is then a double page of the book before it (`Foo 012-013`),
    or a page without a number of a book whose name it continues (`Foo_cover`).

    Args:
        page_ids: canonical ids, of the whole data set.

    Returns:
        One name per id; "unnamed" for ids that are nothing but a number.
    """
    stems = [stem_key(page_id) for page_id in page_ids]
    led = _led_by_page_numbers(stems)
    books = [led.get(stem) or _repeated(stem) or _without_number(stem)[0] for stem in stems]
    counts = Counter(books)
    books = [(counts[book] == 1 and _double_page(stem)) or book for stem, book in zip(stems, books, strict=True)]
    counts = Counter(books)
    return [_continued(book, counts) if counts[book] == 1 else book for book in books]


def _repeated(stem: str) -> str:
    """`X` of `X_X - 012`, "" when the name does not begin so."""
    at = stem.find("_")
    while 0 < at <= len(stem) // 2:
        end = 2 * at + 1
        if stem.startswith(stem[:at], at + 1) and end < len(stem) and not stem[end].isalnum():
            return stem[:at]
        at = stem.find("_", at + 1)
    return ""


def _without_number(stem: str) -> tuple[str, int, int]:
    """(name before the page number, the number, where it begins); the whole name and -1 without a number."""
    found = _NUMBER.search(stem, max(0, len(stem) - (WITH_TAGS if stem.endswith((")", "]")) else NEAR_END)))
    if found is None:
        return stem.strip(_AROUND) or UNNAMED, -1, len(stem)
    number = (found["bare"] or found["inner"])[:15]
    return stem[: found.start()].rstrip(_AROUND).lstrip(" -_") or UNNAMED, int(number), found.start()


def names_its_book(page_id: str) -> bool:
    """Whether an id without a folder says more than a page number: `Foo 012`, not `012`, and not `cover` either."""
    name, number, _ = _without_number(stem_key(page_id))
    return number >= 0 and name != UNNAMED


def _double_page(stem: str) -> str:
    """`Foo` of `Foo 012-013`, "" for other names."""
    _, second, at = _without_number(stem)
    dash = next((m for m in _DASH.finditer(stem, max(0, at - 8)) if m.end() >= at), None)
    if second < 1 or dash is None:
        return ""
    book, first, _ = _without_number(stem[: dash.start()])
    return book if first == second - 1 else ""


def _led_by_page_numbers(stems: list[str]) -> dict[str, str]:
    """The books of names that begin with their page number: `Foo` of `0001-Foo`, `Foo 2` of `0001-Foo 2`.

    Where a number stands at both ends, the page number is the one with more values over all names with the same middle:
    `100 Bullets_001`, `100 Bullets_002` are pages of `100 Bullets`.
    """
    parts: dict[str, tuple[str, str, str, int]] = {}  # number in front, what is behind it, that without its number, it
    for stem in stems:
        if head := _LEADING.match(stem):
            rest = stem[head.end() :].strip(_AROUND)
            middle, number, _ = _without_number(rest)
            parts[stem] = (head[0], rest, middle, number)
    heads, tails = defaultdict(set), defaultdict(set)
    for front, _, middle, number in parts.values():
        heads[middle].add(front)
        tails[middle].add(number)
    return {stem: rest for stem, (_, rest, middle, _) in parts.items() if len(heads[middle]) > len(tails[middle])}


def _continued(book: str, counts: Counter[str]) -> str:
    """The longest book of several pages that a name continues; the name itself when there is none."""
    for cut in reversed(list(_CUT.finditer(book[:500]))):
        if counts[book[: cut.start()]] > 1:
            return book[: cut.start()]
    return book
