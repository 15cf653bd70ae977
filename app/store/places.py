"""Where the data of runs is: found, missing, or named anew when a folder has moved."""

from __future__ import annotations

from pathlib import Path

from app.store import loaders, readonly
from stage3.config import FIELDS, Config
from stage3.data.readers.source import HOW, PATH_KEYS, YAML_NAME
from stage3.errors import DataError
from stage3.runs import RunFolder

MOST_OFFERED = 300  # data sets
OF_OLD = (*(name for name in (*PATH_KEYS, *HOW) if name in FIELDS), "remap")  # what describes files at the old place


def roots() -> dict[str, Path]:
    """Folders whose data sets are offered, by label: `data/` where the app was started, and those of STAGE3_DATA."""
    return loaders.with_named("STAGE3_DATA", {"data": loaders.base() / "data"})


def offered() -> dict[str, Path]:
    """Data sets that are, or lie directly or one level deeper in, one of the roots, by a name for people."""
    found: dict[str, Path] = {}
    for label, root in roots().items():
        inside = [path for pattern in ("", "*/", "*/*/") for path in root.glob(pattern + YAML_NAME)]
        for path in sorted(inside)[:MOST_OFFERED]:
            below = path.parent.relative_to(root).as_posix()
            if path.resolve().is_relative_to(root.resolve()):
                found[label if below == "." else f"{label}/{below}"] = path.parent
    return found


def name(run: RunFolder, label: str) -> str:
    """Remember in a run that its data is now at a place of `offered`; returns what differs there, "" for nothing.

    Raises:
        DataError: no such place, or none of the books that the run was trained on is there.
        InUse: the run is being trained.
    """
    readonly.refuse()
    from stage3.data import readers
    from stage3.runs.data import recorded

    place = offered().get(label)
    if place is None:
        raise DataError(f"no data set is called {label[:100]!r} here")
    config = moved(run.config, place)
    table = readers.read(loaders.config_here(config))
    before = recorded(run)
    known = {book for books in before.get("books", {}).values() for book in books}
    here = set(table.pages["book_id"])
    if known and not known & here:
        raise DataError(f"{label} is another data set: none of the {len(known)} books of {run.name} is there.")
    with run.lock():
        run.write_config(config)
    if not before or before["table"] == table.fingerprint():
        return ""
    gone = len(known - here)
    return f"{label} differs from what {run.name} was trained on" + (
        f": {gone} of its books are missing" if gone else ""
    )


def moved(config: Config, place: Path) -> Config:
    """The settings with another data set folder; where they named parts, the folder's own count from now on."""
    base = loaders.base().resolve()
    there = place.resolve()
    data = there.relative_to(base).as_posix() if there.is_relative_to(base) else str(there)
    parts = {n: FIELDS[n].default for n in OF_OLD} if config.manifest or config.panels else {}
    return config.replace(**parts, data=data)
