"""What `stage3.ablate` leaves in a folder, read for the Evidence view: rows, curves, budget, noise, sweeps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from app.store import loaders
from app.store.cache import Memory
from stage3.ablate.findings import FINDINGS, SWEEPS
from stage3.ablate.tables import read_rows
from stage3.ablate.terms import METRICS
from stage3.errors import DataError

if TYPE_CHECKING:
    from stage3.ablate.evidence import Row

_kept: Memory[Any] = Memory(24)
SHIPPED = loaders.SAMPLES / "evidence"
SEEDS = 5
COMMAND = f"python -m stage3.ablate --findings all --seeds {SEEDS}"
NEEDED = {
    "runs": ("arm", "changes", "data", "command", "seed"),
    "curves": ("arm", "metric", "split", "epoch", "mean", "low", "high", "seeds"),
    "budget": ("arm", "metric", "epoch", "mean", "low", "high", "seeds"),
    "pareto": ("arm", "changes", "seeds", *(f"{s}_{c}" for s in ("val", "test") for c in ("retrieval", "page_coherence",
               "retrieval_std", "page_coherence_std", "front"))),
}  # fmt: skip


def folders() -> list[Path]:
    """Folders of evidence that are there: those made here, newest first, then the shipped one."""
    base = loaders.base()
    made = [f.parent for f in (base / "runs").glob("*/evidence.parquet")]
    made.sort(key=lambda f: (f / "evidence.parquet").stat().st_mtime, reverse=True)
    shipped = base / SHIPPED
    return [*made, shipped] if (shipped / "evidence.parquet").is_file() else made


def command(findings: list[str]) -> str:
    """The command that repeats these findings."""
    return f"python -m stage3.ablate --findings {' '.join(findings)} --seeds {SEEDS}"


def metered() -> list[str]:
    """Findings that read the validation-noise meter."""
    return [f.id for f in FINDINGS.values() if any(c.fixed.meter or c.reviewed.meter for c in f.comparisons)]


def swept() -> list[str]:
    """Findings whose arms the chart of retrieval against page coherence shows."""
    return [name for name in SWEEPS if name in FINDINGS]


def stamp(path: Path) -> tuple[Any, ...]:
    """A key for anything read from a file: another one when the file has changed or gone."""
    try:
        info = path.stat()
    except OSError:
        return (str(path.resolve()),)
    return (str(path.resolve()), info.st_size, info.st_mtime_ns, info.st_ino)


def rows(folder: Path) -> list[Row]:
    """The comparisons, a row for each metric of each; shared, so copy before changing.

    Raises:
        DataError: the table is not readable, lacks a column, or holds a metric this version does not know.
    """
    found: list[Row] = _kept.get(("rows", *stamp(folder / "evidence.parquet")), lambda: _rows(folder))
    return found


def _rows(folder: Path) -> list[Row]:
    import pyarrow

    try:
        found = read_rows(folder)
    except (OSError, pyarrow.ArrowException) as error:
        raise _unreadable("evidence.parquet", error) from None
    unknown = [r.metric for r in found if r.metric not in METRICS]
    if unknown:
        raise DataError(f"evidence.parquet: unknown metric {unknown[0]!r}; made by another version. Run: {COMMAND}")
    return [replace(r, label=METRICS[r.metric].label) for r in found]  # one name each, whoever wrote the file


def table(folder: Path, name: str) -> pd.DataFrame:
    """`runs`, `curves`, `budget` or `pareto`; without rows where the experiment had nothing to put there.

    The frame is shared: copy before changing.

    Raises:
        DataError: not readable, or lacks a column.
    """
    found: pd.DataFrame = _kept.get(("table", *stamp(folder / f"{name}.parquet")), lambda: _table(folder, name))
    return found


def _table(folder: Path, name: str) -> pd.DataFrame:
    import pyarrow

    path = folder / f"{name}.parquet"
    empty = pd.DataFrame({c: pd.Series(dtype="object") for c in NEEDED[name]})
    if not path.is_file():
        return empty
    try:
        frame = pd.read_parquet(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise _unreadable(path.name, error) from None
    if frame.empty:
        return empty
    missing = [c for c in NEEDED[name] if c not in frame.columns]
    if missing:
        raise DataError(f"{path.name}: missing column {missing[0]!r}; made by another version. Run: {COMMAND}")
    return frame


def noise(folder: Path) -> dict[str, dict[str, Any]]:
    """The validation-noise meter by arm: `runs`, `means`, `by_seed`, `losses_of_seed_0`; empty where none was read.

    Raises:
        DataError: not a JSON object of that shape.
    """
    path = folder / "noise.json"
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        wrong = [k for k, v in found.items() if not {"by_seed", "means", "losses_of_seed_0"} <= set(v)]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise _unreadable(path.name, error) from None
    if wrong:
        raise DataError(f"{path.name}: {wrong[0]!r} lacks its measurements. Run: {command(metered())}")
    return dict(found)


def how_made(folder: Path) -> list[str]:
    """The paragraphs of `evidence.md` before its first section: command, data, runs, epochs, seeds, intervals."""
    path = folder / "evidence.md"
    if not path.is_file():
        return []
    head = path.read_text(encoding="utf-8", errors="replace").partition("\n## ")[0]
    parts = (" ".join(p.split()) for p in head.split("\n\n"))
    return [p.replace("`", "").replace("*", "") for p in parts if p and not p.startswith("#")]


def arm_of(runs: pd.DataFrame, train_command: str, label: str) -> str:
    """The name that the curves give the arm whose first run this command makes (an arm may go by several labels)."""
    found = runs.loc[runs["command"] == train_command, "arm"]
    return str(found.iloc[0]) if len(found) else label


def base_arm(runs: pd.DataFrame, arms: list[str]) -> str:
    """Among these arms the one that changes nothing, else the first."""
    plain = runs.loc[(runs["changes"] == "{}") & runs["arm"].isin(arms), "arm"]
    return str(plain.iloc[0]) if len(plain) else arms[0]


def _unreadable(name: str, error: BaseException) -> DataError:
    return DataError(f"{name}: not readable: {' '.join(str(error).split())[:200]}. Run: {COMMAND}")
