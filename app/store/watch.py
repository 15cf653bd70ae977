"""Whether the files of a data set have changed: looked at so seldom that sessions do not feel it.

A look asks the file system for the size and time of every panel file and image, some 10 ms for 500 pages.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable

from stage3.config import Config
from stage3.errors import Stage3Error

SECONDS = 5.0  # between two looks at least
SHARE = 100  # looks take at most one part in so many of the time, however large the data set is
_looks: dict[Hashable, tuple[str, float]] = {}  # what was seen, and when to look again
_lock = threading.Lock()


def forget() -> None:
    """Look again at once: this server has changed files itself."""
    with _lock:
        _looks.clear()


def stamp(key: Hashable, config: Config) -> str:
    """`stage3.data.readers.stamp` as of a moment ago; "" while the data set has not been read here, or cannot be.

    Args:
        key: stands for the settings, so that they need not be compared.
        config: the settings that name the data set.
    """
    now = time.monotonic()
    with _lock:
        seen, again = _looks.get(key, ("", 0.0))
        if now < again:
            return seen
        if seen:  # sessions that ask meanwhile need not look too
            _looks[key] = (seen, now + SECONDS)
    from stage3.data import readers

    try:
        seen = readers.stamp(config)
    except Stage3Error:  # whoever opens the data set is told why
        seen = ""
    ended = time.monotonic()
    with _lock:
        _looks[key] = (seen, ended + max(SECONDS, SHARE * (ended - now)) if seen else 0.0)
    return seen
