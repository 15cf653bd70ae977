"""Maps on the disk: where the map of a checkpoint is kept, how it is read, and how far the process is that makes it.

    runs/NAME/projections/  KEY.parquet  KEY.json (progress)  KEY.lock      KEY = checkpoint fingerprint - parameters

The first nine columns of a map are those that scripts outside this project already read.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stage3.errors import ConfigError, DataError, Stage3Error, StorageError
from stage3.processes import this_process
from stage3.runs import RunFolder
from stage3.storage import Lock, make_folder, read_file, read_json, replace_file, replacing, sha256, to_json

if TYPE_CHECKING:
    import pandas as pd

FORMATS_COLUMNS = (
    "page_index",
    "panel_index",
    "canonical_id",
    "comic_name",
    "page_name",
    "panel_count",
    "cluster_id",
    "umap_dim1",
    "umap_dim2",
)
OUR_COLUMNS = ("row", "pca_1", "pca_2", "trust", "fitted")
NAME = "cluster_name"  # a column that maps of earlier versions lack
DRIFT_COLUMNS = ("epoch", "row", "umap_dim1", "umap_dim2", "kept")
MAX_PARQUET = 2 * 2**30  # bytes
ROWS_AT_ONCE = 2**16  # that are written
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Parameters:
    """What a map depends on besides the checkpoint.

    Attributes:
        neighbors: size of a UMAP neighborhood, the panel itself included, 3 to 200.
        min_dist: how close UMAP lets points come, 0 to 0.99.
        min_cluster: smallest HDBSCAN cluster in panels, from 2; 0 takes a hundredth of the panels, between 5 and 100.
        limit: panels laid out by UMAP; more are sampled evenly over books, and the others placed amid their nearest.
        seed: of UMAP.
    """

    neighbors: int = 15
    min_dist: float = 0.1
    min_cluster: int = 0
    limit: int = 20_000
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("neighbors", 3, 200),
            ("min_dist", 0, 0.99),
            ("min_cluster", 0, 10_000),
            ("limit", 100, 100_000),
            ("seed", 0, 2**31 - 1),
        ):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name}: {getattr(self, name)!r} is out of range: must be from {low} to {high}")
        if self.min_cluster == 1:
            raise ConfigError("min_cluster: a cluster has at least 2 panels; 0 chooses by the number of panels")

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that differ when any parameter does."""
        return sha256(to_json(dataclasses.asdict(self)).encode())[:8]


def projection_path(the_run: RunFolder, step: int | None = None, parameters: Parameters | None = None) -> Path:
    """Where the map of a checkpoint is, or will be, kept."""
    parameters = parameters or Parameters()
    fingerprint = the_run.fingerprint(the_run.checkpoint(step).step)
    return the_run.path / "projections" / f"{fingerprint[:24]}-{parameters.digest}.parquet"


def epoch_files(the_run: RunFolder, most: int = 12) -> list[tuple[int, Path]]:
    """The saved epoch embeddings of a run, ascending; of more than `most`, the first, the last and even steps between.

    Returns:
        (epoch, file) pairs.
    """
    found = sorted((the_run.path / "embeddings").glob("epoch-*.safetensors"))
    files = [(int(p.stem.removeprefix("epoch-")), p) for p in found if p.stem.removeprefix("epoch-").isdecimal()]
    if len(files) <= most:
        return files
    return [files[i] for i in np.linspace(0, len(files) - 1, most).round().astype(int)]


def drift_path(the_run: RunFolder, parameters: Parameters | None = None) -> Path:
    """Where the drift of a run's saved epochs is, or will be, kept; another path once an epoch changes."""
    parameters = parameters or Parameters()
    files = ((epoch, path.stat()) for epoch, path in epoch_files(the_run))
    digest = sha256("".join(f"{epoch} {info.st_size} {info.st_mtime_ns};" for epoch, info in files).encode())
    return the_run.path / "projections" / f"drift-{digest[:16]}-{parameters.digest}.parquet"


def save(path: Path, frame: pd.DataFrame, about: dict[str, Any]) -> None:
    """Write a map completely or not at all; `about` (what it was made of) goes into the Parquet file's metadata."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = {name: "str" for name, kind in frame.dtypes.items() if isinstance(kind, pd.ArrowDtype)}
    make_folder(path.parent)
    with replacing(path) as scratch, ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        for start in range(0, max(len(frame), 1), ROWS_AT_ONCE):
            part = frame.iloc[start : start + ROWS_AT_ONCE].astype(texts)
            table = pa.Table.from_pandas(part, preserve_index=False)
            if writer is None:
                meta = {**(table.schema.metadata or {}), b"stage3": to_json(about).encode()}
                schema = table.schema.with_metadata(meta)
                writer = stack.enter_context(pq.ParquetWriter(scratch, schema))
            writer.write_table(table.cast(writer.schema))


def load(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a map; `attrs["about"]` says what it was made of.

    Args:
        path: of the map.
        columns: those that are wanted; of millions of panels the names of pages alone take half a gigabyte.

    Raises:
        StorageError: the file is missing or not Parquet.
        DataError: columns are missing.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = read_file(path, MAX_PARQUET)
    try:
        file = pq.ParquetFile(io.BytesIO(data))
        there = file.schema_arrow.names
        about = json.loads((file.schema_arrow.metadata or {}).get(b"stage3", b"{}"))
        frame: pd.DataFrame = file.read([c for c in there if columns is None or c in columns]).to_pandas()
    except (pa.ArrowInvalid, ValueError) as error:
        raise StorageError(
            f"{path}: damaged, not readable as Parquet ({error}). Delete it; it will be made again."
        ) from None
    wanted = DRIFT_COLUMNS if path.name.startswith("drift-") else (*FORMATS_COLUMNS, *OUR_COLUMNS)
    missing = [c for c in wanted if c not in there]
    if missing:
        raise DataError(f"{path}: column {missing[0]!r} is missing; it has {', '.join(there)}")
    if "cluster_id" in frame and NAME not in there:
        frame[NAME] = numbered(frame["cluster_id"].to_numpy())
    frame.attrs["about"] = about
    return frame


def numbered(cluster: np.ndarray) -> list[str]:
    """(N,) "cluster 0" and so on for panels whose clusters have no better names; "" for panels in none."""
    return [f"cluster {c}" if c >= 0 else "" for c in cluster.tolist()]


# --- the work of a child process, seen from outside


@dataclass(frozen=True)
class Job:
    """How far a map is: `state` is missing, running, failed or ready; `stage` is done/total in words."""

    state: str
    stage: str = ""
    done: int = 0
    total: int = 0
    message: str = ""
    updated: str = ""


def job_state(path: Path) -> Job:
    """What is known of a map's file: ready, being made by a live process, failed with a message, or missing."""
    if path.is_file():
        return Job("ready")
    record = path.with_suffix(".json")
    if not record.is_file():
        return Job("missing")
    try:
        values = read_json(record, limit=2**20)
    except StorageError:
        return Job("missing")
    job = Job(**{f.name: values[f.name] for f in dataclasses.fields(Job) if f.name in values})
    if job.state == "running" and not Lock(path.with_suffix(".lock")).is_held():
        return dataclasses.replace(job, state="failed", message="the process died")
    return job


def _teller(path: Path) -> Tell:
    def tell(stage: str, done: int, total: int) -> None:
        _record(path, Job("running", stage, done, total))

    return tell


def _record(path: Path, job: Job) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    values = dataclasses.asdict(job) | this_process() | {"updated": now}
    replace_file(path.with_suffix(".json"), to_json(values).encode("utf-8"), durable=False)


def make(path: Path, work: Callable[[Tell], tuple[pd.DataFrame, dict[str, Any]]], *, again: bool = False) -> None:
    """Do some work under the map's own lock, with its progress on the disk, and save the result.

    Args:
        path: of the map.
        work: makes it; called with what takes note of its stages.
        again: replace a map that is there.

    Raises:
        StorageError: another process makes it already, or the disk fails.
    """
    make_folder(path.parent)
    lock = Lock(path.with_suffix(".lock"))
    lock.acquire()
    try:
        if again or not path.is_file():
            tell = _teller(path)
            tell("reading the data", 0, 5)
            frame, about = work(tell)
            save(path, frame, about)
        with suppress(OSError):
            path.with_suffix(".json").unlink()
    except Stage3Error as error:
        _record(path, Job("failed", message=str(error)))
        raise
    finally:
        lock.release()


def summary_of(path: Path, frame: pd.DataFrame) -> dict[str, Any]:
    """What a map holds, in numbers."""
    summary: dict[str, Any] = {"file": str(path), "panels": int(frame["row"].nunique())}
    if "epoch" in frame:
        kept = frame.groupby("epoch")["kept"].mean().dropna()
        return summary | {"epochs": int(frame["epoch"].nunique()), "kept": [float(v) for v in kept]}
    cluster = frame["cluster_id"]
    return summary | {
        "fitted": int(frame["fitted"].sum()),
        "clusters": int(cluster[cluster >= 0].nunique()),
        "unclustered": int((cluster < 0).sum()),
        "trust": float(frame["trust"].mean()),
        "aligned_to": frame.attrs["about"].get("aligned_to"),
    }
