"""An explorer for looking only: with STAGE3_READ_ONLY=1 nothing is trained, added, uploaded or corrected.

Views leave out what would do it, and the functions that do it refuse, whoever calls them. Maps that are missing are
made all the same, and what is computed for showing is kept beside a run where its folder can be written.
"""

from __future__ import annotations

import os

from stage3.errors import ConfigError

VARIABLE = "STAGE3_READ_ONLY"
OFF = ("", "0", "false", "no", "off")
TITLE = "This explorer is for looking only"
ABOUT = f"Nothing can be trained, added or corrected here. Where you install it yourself, leave {VARIABLE} unset."


def on() -> bool:
    """Whether the explorer was started for looking only."""
    return os.environ.get(VARIABLE, "").strip().lower() not in OFF


def refuse() -> None:
    """ConfigError where the explorer is for looking only."""
    if on():
        raise ConfigError(f"{TITLE}. {ABOUT}")
