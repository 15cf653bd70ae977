"""Curves of a run that trains are read again at a pace at which something new can be seen.

A part of a view that follows a run is drawn every second. A browser leaves a chart alone whose numbers are as before,
and takes a tenth of a second or more for one whose numbers changed: with ten charts of a long run, that each second
would leave it no time for the person.
"""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime

import streamlit as st

from app.charts.curves import Source
from app.store import loaders
from stage3.runs import RunFolder

SHARE = 0.1  # of the time that a run has taken may pass before its curves are drawn again
LEAST, MOST = 2.0, 30.0  # seconds
RUNS = 8  # that trained while they were shown, whose last look a session keeps


def source(name: str, run: RunFolder) -> Source:
    """A run's metrics under a name; of a run that trains those of the last look, as long as that is recent enough."""
    looks: dict[str, tuple[float, Source]] = st.session_state.setdefault("_followed_curves", {})
    at, seen = looks.pop(str(run.path), (-math.inf, None))
    live, now = run.is_live, time.monotonic()
    wait = max(LEAST, min(MOST, SHARE * seconds_between(run.status.started)))
    if seen is None or seen.name != name or seen.frame.empty or not live or now - at > wait:
        stamp = loaders.metrics_key(run)  # before the rows: one that comes between them must not be taken for shown
        at, seen = now, Source(name, loaders.metrics(run), stamp)
    if live:
        looks[str(run.path)] = (at, seen)
        while len(looks) > RUNS:
            del looks[next(iter(looks))]
    return seen


def seconds_between(start: str, end: str = "") -> float:
    """Seconds between two times of a run's status; until now without an end, NaN where a time cannot be read."""
    try:
        began = datetime.fromisoformat(start)
        until = datetime.fromisoformat(end) if end else datetime.now(UTC)
    except ValueError:
        return math.nan
    return (until - began).total_seconds()
