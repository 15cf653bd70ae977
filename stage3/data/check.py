"""What is in a data set, what is left out of it, and why."""

from __future__ import annotations

from pathlib import Path

from stage3.config import Config
from stage3.data import readers
from stage3.data.table import DataReport
from stage3.errors import StorageError
from stage3.storage import to_json


def check(config: Config, *, out: Path | str | None = None, refresh: bool = False) -> DataReport:
    """Read a data set as a training run would and report what was found.

    Args:
        config: settings that name the data set.
        out: JSON file that the report is written to as well.
        refresh: read all files again, ignoring the cache.

    Raises:
        ConfigError, DataError: there is no data set, or its manifest or labels cannot be read.
        StorageError: the report cannot be written.
    """
    report = readers.read(config, refresh=refresh).report
    if out:
        try:
            Path(out).write_text(to_json(report.to_dict()) + "\n", encoding="utf-8")
        except OSError as error:
            raise StorageError(f"{out}: cannot be written: {error.strerror}") from None
    return report
