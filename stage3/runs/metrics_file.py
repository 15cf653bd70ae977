"""`metrics.jsonl`: one row per logged step or validation. Lines that are no such row are left out and counted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stage3.errors import StorageError
from stage3.storage import append_line, parse_object, read_file, replace_file, to_json

if TYPE_CHECKING:
    import pandas as pd

MAX_METRICS = 4 * 2**30  # bytes
MAX_LINE = 2**16  # bytes; ours have 3 KB
MAX_NAMES = 400  # different metrics in all; ours are 60
TEXTS = ("split",)
MAX_SIZE = 1e300  # of a number


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Add one row, NaN as null; safe from kills at once, from power cuts after a checkpoint."""
    append_line(path, to_json(dict(row)).encode("utf-8") + b"\n")


def cut(path: Path, step: int) -> int:
    """Drop rows after a step, which a resumed run writes again, and lines that are no rows; returns how many."""
    if not path.exists():
        return 0
    lines = read_file(path, MAX_METRICS).splitlines(keepends=True)
    kept = [line for line in lines if (row := row_of(line)) is not None and not row.get("step", 0) > step]
    if len(kept) < len(lines):
        replace_file(path, b"".join(kept))
    return len(lines) - len(kept)


def read(path: Path) -> pd.DataFrame:
    """All rows; null is NaN. `attrs["damaged_lines"]` counts lines before the last that are no rows."""
    import pandas as pd

    lines = read_file(path, MAX_METRICS).splitlines(keepends=True) if path.exists() else []
    rows = [row_of(line) for line in lines]
    names = dict.fromkeys(("step", "epoch", "split"))
    for i, row in enumerate(rows):
        if row is not None:
            new = [name for name in row if name not in names]
            if len(names) + len(new) > MAX_NAMES:
                rows[i] = None
            else:
                names.update(dict.fromkeys(new))
    frame = pd.DataFrame([row for row in rows if row is not None])
    for name in ("step", "epoch", "split"):
        if name not in frame:
            frame[name] = pd.Series([None] * len(frame), dtype="str" if name == "split" else "float64")
    for name in frame.columns:
        if frame[name].dtype == object and frame[name].isna().all():
            frame[name] = frame[name].astype("float64")
    frame.attrs["damaged_lines"] = sum(row is None for row in rows[:-1])
    return frame


def row_of(line: bytes) -> dict[str, Any] | None:
    """One line; None when it is torn, too long, or holds what no metric is, such as a text, a list or an infinity."""
    if len(line) > MAX_LINE or not line.endswith(b"\n"):
        return None
    try:
        row = parse_object(line, Path("metrics.jsonl"))
    except StorageError:
        return None
    return row if all(_is_metric(name, value) for name, value in row.items()) else None


def _is_metric(name: str, value: Any) -> bool:
    if name in TEXTS:
        return value is None or (isinstance(value, str) and len(value) <= 20)
    if name == "step":
        return type(value) in (int, float) and 0 <= value < 2**53
    return value is None or (type(value) in (int, float) and abs(value) < MAX_SIZE)
