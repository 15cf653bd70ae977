"""Which runs there are: those that open, and those that are damaged, each with its reason."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from stage3.errors import DataError, StorageError
from stage3.runs.folder import RunFolder
from stage3.runs.state import read_best
from stage3.small_files import path_problem
from stage3.storage import storing

TELLING = ("config.yaml", "status.json", "metrics.jsonl", "checkpoints")  # a folder with one of them was a run
SMALL = ("config.yaml", "status.json", "best.json", "data.json")  # files that say whether a run is damaged


def list_runs(roots: Iterable[Path | str]) -> list[RunFolder]:
    """The runs in some folders (or the folders themselves), the one that was active last first.

    Damaged ones are left out: `list_broken` names them.
    """
    runs = []
    for path in _candidates(roots):
        with suppress(DataError, StorageError):
            runs.append(opened(path))
    return sorted(runs, key=lambda run: (run.status.updated, run.name), reverse=True)


def list_broken(roots: Iterable[Path | str]) -> list[tuple[Path, str]]:
    """Folders that look like runs and are damaged, each with the reason."""
    broken = []
    for path in _candidates(roots):
        try:
            opened(path)
        except (DataError, StorageError) as error:
            if looks_like_a_run(path):
                broken.append((path, str(error)))
    return broken


def opened(path: Path) -> RunFolder:
    """A run whose settings and records read; a damaged status is a state of its own (`failed`, with the reason).

    Raises:
        DataError, StorageError: the file that is damaged, and how.
    """
    from stage3.runs.data import recorded

    run = RunFolder.load(path)
    if (path / "best.json").exists():
        read_best(path / "best.json")
    recorded(run)
    return run


def looks_like_a_run(path: Path) -> bool:
    """Whether a folder that does not open was meant to be a run."""
    return any(os.path.lexists(path / name) for name in TELLING)


def _candidates(roots: Iterable[Path | str]) -> Iterator[Path]:
    for root in map(Path, roots):
        if path_problem(str(root)):
            continue
        if RunFolder.exists(root):
            yield root
        elif root.is_dir():
            with storing(root):
                yield from sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
