"""Everything that views read of runs, computed once per checkpoint and shared by all sessions.

Keys are fingerprints of files (a checkpoint's manifest, a data set's settings), never arrays. What comes back is
shared: copy a frame before changing it. No function here needs a session, so the image route may call them.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.store import watch
from app.store.cache import Memory
from stage3.cli import clean
from stage3.config import FIELDS, Config, spec_of
from stage3.errors import DataError, Stage3Error, StorageError
from stage3.runs import RunFolder
from stage3.runs.listing import SMALL, looks_like_a_run, opened
from stage3.small_files import encodable
from stage3.storage import sha256

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from app.store.frames import Frame
    from stage3.batches.dataset import Dataset
    from stage3.diagnose import Diagnosis
    from stage3.evaluate import Comparison
    from stage3.metrics.mapped import MappedRows
    from stage3.model.baselines import Added
    from stage3.model.distant import Distant
    from stage3.model.embedding import Embedded
    from stage3.model.objectives import Stage3

PROJECT = Path(__file__).resolve().parents[2]
SAMPLES = Path("data") / "samples"
MARKS = ("runs", SAMPLES.as_posix())  # one of these folders is where the explorer was started, or it is not meant
DATA_SETTINGS = tuple(name for name in FIELDS if spec_of(name).group in ("data", "features"))
MAX_MEGAPIXELS = 100.0  # of any image that the explorer decodes: 0.8 GB while it does
MAX_EVALUATED = 1000  # pages that the explorer measures a run on; `stage3.evaluate` takes more

PATIENCE = 20.0  # seconds that `warm_up` waits for somebody to look

_meant: set[str] = set()  # folders in which one of the marks was seen
_reading = threading.Lock()
_drawn = threading.Event()
_datasets: Memory[Dataset] = Memory(3)
_splits: Memory[tuple[np.ndarray, str]] = Memory(24)
_seen: Memory[Dataset] = Memory(3)
_models: Memory[Stage3] = Memory(6)
_embedded: Memory[Embedded | Distant] = Memory(6)
_frames: Memory[Frame] = Memory(6)
_metrics: Memory[pd.DataFrame] = Memory(64)
_results: Memory[dict[str, float]] = Memory(2000)  # small: one row per run
_other: Memory[Any] = Memory(128)
_folders: Memory[tuple[Entry | None, str, tuple[str, str]]] = Memory(5000)
_rows: Memory[dict[str, Any]] = Memory(5000)


# --- which runs there are


@dataclass(frozen=True)
class Entry:
    """A run that can be chosen: its id in addresses (`root/name`) and the run."""

    id: str
    run: RunFolder
    is_sample: bool


def roots() -> dict[str, Path]:
    """Folders whose runs are offered, by the label that stands for them in addresses. Nothing else is ever opened.

    `runs/` and `data/samples/runs/` of the folder the app was started in, else of the project; and every folder that
    the environment variable STAGE3_RUNS names (separated like PATH).
    """
    return with_named("STAGE3_RUNS", {"runs": base() / "runs", "samples": base() / SAMPLES / "runs"})


def with_named(variable: str, found: dict[str, Path]) -> dict[str, Path]:
    """These folders by label, and those that an environment variable names (separated like PATH)."""
    for given in filter(None, os.environ.get(variable, "").split(os.pathsep)):
        path = Path(given)
        label = path.resolve().name or "root"
        while label in found and found[label].resolve() != path.resolve():
            label += "-"
        found[label] = path
    return found


def base() -> Path:
    """The folder that relative paths of runs refer to: where the app was started, if runs or data are there."""
    here = os.getcwd()  # noqa: PTH109 - a view asks a hundred times
    if here not in _meant and any(os.path.isdir(f"{here}/{name}") for name in MARKS):  # noqa: PTH112
        _meant.add(here)
    return Path(here) if here in _meant else PROJECT


def entries() -> list[Entry]:
    """All runs of all roots, the one that was active last first."""
    found = [(updated, entry) for entry, updated, _ in _scan() if entry is not None]
    return [entry for _, entry in sorted(found, key=lambda f: f[0], reverse=True)]


def broken() -> list[tuple[str, str]]:
    """Folders that look like runs and cannot be opened: their id and the reason."""
    return [reason for entry, _, reason in _scan() if entry is None and reason[1]]


def _scan() -> Iterator[tuple[Entry | None, str, tuple[str, str]]]:
    """Each folder that may be a run: the run or None, when it was last active, and (its id, why it does not open).

    A folder is opened again only when its settings, its status or its records have changed.
    """
    for label, root in roots().items():
        if not root.is_dir():
            continue
        if RunFolder.exists(root):
            folders = [(str(root.resolve()), root)]
        else:
            at = str(root.resolve())
            with os.scandir(root) as found:
                names = sorted(e.name for e in found if not e.name.startswith(".") and e.is_dir())
            folders = [(f"{at}/{name}", root / name) for name in names]
        for place, path in folders:
            if not encodable(place):
                yield None, "", (f"{label}/{clean(path.name)}", "its name is not UTF-8. Rename the folder.")
                continue
            key = (label, place, *(stamp_of(f"{place}/{name}") for name in SMALL))
            yield _folders.get(key, functools.partial(_opened, label, path))


def _opened(label: str, path: Path) -> tuple[Entry | None, str, tuple[str, str]]:
    name = f"{label}/{path.resolve().name}"
    try:
        run = opened(path)
    except Stage3Error as error:
        return None, "", (name, str(error) if looks_like_a_run(path) else "")
    return Entry(name, run, label == "samples"), run.status.updated, (name, "")


def known_data() -> dict[str, str]:
    """Data sets that a run may be trained on, and what each is called: those of listed runs, and folders of `data/`."""
    found = {e.run.config.data: e.run.config.data for e in entries() if e.run.config.data}
    root = base() / "data"
    for about in sorted(root.glob("*/dataset.yaml")) if root.is_dir() else []:
        path = about.parent.relative_to(base()).as_posix()
        if not any((base() / known).resolve() == about.parent.resolve() for known in found):
            found[path] = path
    return dict(sorted(found.items()))


def default_entry(found: list[Entry]) -> Entry | None:
    """The shipped run, or else the run that was active last."""
    return next((e for e in found if e.is_sample), found[0] if found else None)


def entry(run_id: str) -> Entry:
    """The run of an id; DataError where there is none. Only ids of listed runs are found, never paths."""
    label, _, name = run_id.partition("/")
    root = roots().get(label)
    if root is None or not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise DataError(f"no run is called {run_id[:100]!r} here")
    own = RunFolder.exists(root) and root.resolve().name == name
    return Entry(run_id, RunFolder.load(root if own else root / name), label == "samples")


# --- what a run holds


def steps(run: RunFolder) -> list[int]:
    """Steps of the run's checkpoints, ascending."""
    return [c.step for c in run.checkpoints()]


def resolve_step(run: RunFolder, step: int | None) -> int:
    """The checkpoint that is meant: the given one, else the best, else the newest.

    Raises:
        StorageError: the run has no such checkpoint (yet).
    """
    there = steps(run)
    if not there:
        raise StorageError(f"{run.name}: {'. '.join(without_checkpoint(run))}")
    if step is not None:
        if step not in there:
            raise StorageError(f"{run.name} has no checkpoint of step {step}; it has {', '.join(map(str, there))}.")
        return step
    best = run.best()
    return best.step if best and best.step in there else there[-1]


def without_checkpoint(run: RunFolder) -> tuple[str, str]:
    """Why a run has no checkpoint, and what to do: one that is to come, one that was lost, one that never came."""
    status = run.status
    if run.is_live or status.state == "created":
        about = "A run gets its first checkpoint after its first epoch. Watch it under Retrain, or choose another run."
        return "This run has no checkpoint yet", about
    logged = "Losses and Retrain still show what it logged."
    if status.state == "finished":
        about = f"It finished, but its folder checkpoints/ is gone. Restore that from a copy, or train again. {logged}"
        return "The checkpoints of this run are gone", about
    said = f" It said: {status.message}." if status.state == "failed" and status.message else ""
    again = "Train it again with the same command."
    return "This run has no checkpoint", f"It ended before its first one was written.{said} {again} {logged}"


def metrics(run: RunFolder) -> pd.DataFrame:
    """`RunFolder.metrics()`, read again only when the file has grown."""
    key = metrics_key(run)
    return run.metrics() if key is None else _metrics.get(key, run.metrics)


def metrics_key(run: RunFolder) -> tuple[Any, ...] | None:
    """A key for anything computed from a run's metrics; another one when the file has grown, None without a file."""
    try:
        info = (run.path / "metrics.jsonl").stat()
        return (str(run.path.resolve()), info.st_size, info.st_mtime_ns)
    except OSError:
        return None


def config_here(config: Config) -> Config:
    """The settings as the explorer reads data with them: paths from `base()`, the CPU, and its own limits.

    A run folder may come from anybody. So images are decoded up to `MAX_MEGAPIXELS` whatever a run allows itself, and
    the cache is never the run's choice, unless that lies where the explorer was started or STAGE3_CACHE names it.
    """
    return _config_at(config, base())


@functools.lru_cache(256)  # checking all settings again takes half a millisecond, and keys of many images need it
def _config_at(config: Config, base: Path) -> Config:
    changes: dict[str, Any] = {"device": "cpu", "recompute_features": False}
    changes["max_megapixels"] = min(config.max_megapixels, MAX_MEGAPIXELS)
    changes["cache_dir"] = str(base / own_cache(config))
    for name in ("data", "manifest", "panels", "labels"):
        value = getattr(config, name)
        if value and not Path(value).is_absolute():
            changes[name] = str(base / value)
    return config.replace(**changes)


def own_cache(config: Config) -> str:
    """Where the explorer keeps tables and features: where the run has them, if that is a place of whoever started it.

    Such places are the folder that the explorer was started in and those that STAGE3_CACHE names (separated like PATH).
    """
    here = base().resolve()
    wanted = (here / config.cache_dir).resolve()
    named = [Path(p).resolve() for p in os.environ.get("STAGE3_CACHE", "").split(os.pathsep) if p]
    ours = any(wanted.is_relative_to(place) for place in (here, *named))
    return config.cache_dir if ours else str(FIELDS["cache_dir"].default)


def data_key(config: Config) -> tuple[Any, ...]:
    """What a data set and its features depend on; runs with equal keys share one data set in memory.

    It is another one when a panel file or an image has changed, a few seconds later at most. Files that were not read
    before are read first, for what is found in them says which images count.
    """
    from stage3.data import readers

    key = _key_now(config)
    if not key[-1]:
        with _reading, suppress(Stage3Error):  # whoever opens the data set is told why it cannot be read
            if not _key_now(config)[-1]:
                readers.read(config_here(config))
        key = _key_now(config)
    return key


def _key_now(config: Config) -> tuple[Any, ...]:
    """Settings of the groups "data" and "features", and a stamp of the files, "" where they are still to be read."""
    here = config_here(config)
    settings = tuple(getattr(here, name) for name in DATA_SETTINGS)
    return (*settings, watch.stamp(settings, here))


def data_version(run: RunFolder) -> str:
    """A short text for addresses of images, another one when the data has changed: browsers keep them for an hour."""
    return sha256(repr(data_key(run.config)).encode("utf-8", "replace"))[:12]


def record_key(run: RunFolder) -> tuple[int, int]:
    """A key for what a run recorded of its data, which says the split of each book."""
    try:
        info = (run.path / "data.json").stat()
        return (info.st_size, info.st_mtime_ns)
    except OSError:
        return (0, 0)


def missing(run: RunFolder) -> str:
    """Why the data of a run is not where its settings say, "" where it is; only names are looked at."""
    from stage3.data import readers

    try:
        readers.source_of(config_here(run.config))
    except Stage3Error as error:
        return str(error)
    return ""


def open_dataset(run: RunFolder) -> Dataset:
    """The panels, features and split of a run's data set, as `stage3.runs.data.load_data` gives them to commands.

    Runs share what they read of one data set; computed features are found in the store.

    Raises:
        Stage3Error: the data set is not where the run's settings say, or cannot be read.
    """
    from stage3.runs.data import as_recorded, layout_of, load_data, load_kept

    def make() -> Dataset:
        _one_thread()
        here = RunFolder(run.path, config_here(run.config))
        try:
            return load_data(here, {"device": "cpu"}, progress=False)
        except Stage3Error:
            kept = load_kept(run, here.config) if missing(run) else None
            if kept is None:
                raise
            return kept

    key = data_key(run.config)
    if not key[-1]:  # its files are not there, so what counts is what this run was trained on
        key = (*key, str(run.path), record_key(run))
    shared = _datasets.get(key, make)
    recorded = (key, str(run.path), record_key(run))
    split, layout = _splits.get(recorded, lambda: (as_recorded(run, shared).split, layout_of(run)))
    return shared.with_layout(layout).with_split(split)


def data_changed(run: RunFolder) -> str:
    """What differs between the data a run was trained on and the data found now, in words; "" when nothing does."""
    from stage3.runs.data import differences

    data = open_dataset(run)
    key = ("differences", data_key(run.config), record_key(run))
    return "; ".join(_other.get(key, lambda: differences(run, data)))


def fingerprint(run: RunFolder, step: int | None = None) -> str:
    """SHA-256 that changes with any bit of the checkpoint."""
    return run.fingerprint(resolve_step(run, step))


def checkpoint_key(run: RunFolder, step: int | None = None) -> tuple[Any, ...]:
    """A key for anything computed from a checkpoint and its data set."""
    return (fingerprint(run, step), data_key(run.config), record_key(run))


def load_model(run: RunFolder, step: int | None = None) -> Stage3:
    """The model of a checkpoint, in eval mode on the CPU. Shared: never train it."""
    at = resolve_step(run, step)

    def make() -> Stage3:

        _one_thread()
        return run.model(at)

    return _models.get(run.fingerprint(at), make)


def seen(run: RunFolder, step: int | None = None) -> Dataset:
    """`open_dataset` as a checkpoint's model reads it: by its own backbones, where the run trained them.

    Raises:
        Stage3Error: as `open_dataset`.
    """
    if run.config.finetune == "none":
        return open_dataset(run)

    def make() -> Dataset:
        from stage3.runs.tuned import seen_by

        _one_thread()
        return seen_by(run, resolve_step(run, step), open_dataset(run))

    return _seen.get(checkpoint_key(run, step), make)


def embedded(run: RunFolder, step: int | None = None) -> Embedded | Distant:
    """Embeddings of all usable panels by a checkpoint, from stored features; of many, those that are asked for."""

    def make() -> Embedded | Distant:
        from stage3.model import embedding
        from stage3.model.distant import Distant
        from stage3.model.mapped import is_large

        data, model = seen(run, step), load_model(run, step)
        if is_large(data, model.encoder.spec.dim):
            return Distant.of(model, data.panel_set)
        return embedding.embed(model, data.panel_set, data.pages("all"))

    return _embedded.get(checkpoint_key(run, step), make)


def panel_vectors(run: RunFolder, step: int | None = None) -> np.ndarray | MappedRows:
    """(N, D) panel embeddings in the order of `embedded(run, step).rows`; of many their directions, from a file."""
    from stage3.model.distant import Distant
    from stage3.model.mapped import embed_mapped

    made = embedded(run, step)
    if not isinstance(made, Distant):
        return made.panel.numpy()
    data, cache, mark = open_dataset(run), config_here(run.config).cache_dir, fingerprint(run, step)
    files = embed_mapped(load_model(run, step), mark, data, cache, ("panel",))
    return remember(("mapped", str(files.path("panel"))), lambda: files.open("panel"))  # type: ignore[no-any-return]


def panel_frame(run: RunFolder, step: int | None = None) -> pd.DataFrame:
    """`stage3.runs.inspection.panel_frame` of a checkpoint: one row per panel, index = row of the panel table."""
    return frame(run, step).panels


def embedded_rows(run: RunFolder, step: int | None = None) -> np.ndarray:
    """(N,) int64 rows of the panels that a checkpoint embeds, as in `embedded(run, step).rows`, which is not needed."""
    return frame(run, step).rows


def frame(run: RunFolder, step: int | None = None) -> Frame:
    """The panel frame of a checkpoint with its rows; from the disk where it was made before. See `app.store.frames`.

    Raises:
        Stage3Error: as `open_dataset`, unless the frame was made before.
    """
    key = checkpoint_key(run, step)

    def make() -> Frame:
        import pandas as pd

        from app.store import frames

        place = frame_place(run, step)
        if place is not None:
            with suppress(StorageError):
                return frames.read(place)
        made, table, dim = _frame_parts(run, step)
        if place is not None:
            with suppress(StorageError):
                frames.keep(place, made(), table, dim)
                give_back()
                return frames.read(place)
        return frames.Frame(pd.concat(made(), ignore_index=True), table, dim)

    return _frames.get(key, make)


def frame_place(run: RunFolder, step: int | None) -> Path | None:
    """Where the panel frame of a checkpoint is kept; None where its data is gone, so that nothing tells if it fits."""
    from app.store import frames

    key = checkpoint_key(run, step)
    return frames.place(config_here(run.config).cache_dir, key) if data_key(run.config)[-1] else None


def _frame_parts(run: RunFolder, step: int | None) -> tuple[Callable[[], Iterator[pd.DataFrame]], str, int]:
    """What gives the rows of a panel frame, some at a time; the fingerprint of its table; size of the embeddings."""
    from stage3.runs import inspection

    data, model, made = seen(run, step), load_model(run, step), embedded(run, step)
    measured = inspection.kept_columns(run, resolve_step(run, step), data, model, made)
    give_back()
    parts = functools.partial(inspection.panel_frame_parts, data, model.config.text_parts, measured)
    return parts, open_dataset(run).table.fingerprint(), int(model.encoder.spec.dim)


def _held_out(run: RunFolder, step: int | None) -> Embedded:
    """Embeddings of the pages that `evaluation` measures: books that a checkpoint was not trained on, where there are.

    At most `MAX_EVALUATED` pages: neighbors are quadratic, and 20,000 panels took 40 seconds.
    """
    import torch

    from stage3.model.distant import take
    from stage3.runs.data import chosen_pages

    everything = embedded(run, step)
    pages = chosen_pages(run, open_dataset(run), None, MAX_EVALUATED)[1]
    return take(everything, torch.isin(everything.page_ids, torch.from_numpy(pages)).nonzero()[:, 0])


def added(run: RunFolder, step: int | None = None) -> Added:
    """What training added to the frozen features, on the panels that `diagnosis` judges."""

    def make() -> Added:
        from stage3.model import baselines

        return baselines.added_to(open_dataset(run), _held_out(run, step))

    found: Added = _other.get(("added", *checkpoint_key(run, step)), make)
    return found


def evaluation(run: RunFolder, step: int | None = None, split: str | None = None) -> dict[str, Any]:
    """`stage3.evaluate.kept_report` of a checkpoint, on at most `MAX_EVALUATED` pages: test pages unless one is named.

    Raises:
        Stage3Error: the data or the checkpoint is not there.
    """

    def make() -> dict[str, Any]:
        from stage3.evaluate import kept_report

        at = resolve_step(run, step)
        report = kept_report(run, split=split, data=open_dataset(run), checkpoint=at, max_pages=MAX_EVALUATED)
        give_back()
        return report

    found: dict[str, Any] = _other.get(("evaluation", *checkpoint_key(run, step), split), make)
    return found


def comparison(first: RunFolder, second: RunFolder) -> Comparison:
    """`stage3.evaluate.compare` of two runs' best checkpoints.

    Raises:
        Stage3Error: they are of different data, share no held-out page, or one does not load.
    """

    def make() -> Comparison:
        from stage3.evaluate import Side, compare

        sides = [Side(load_model(run), seen(run), embedded(run)) for run in (first, second)]
        found = compare(*sides, max_pages=MAX_EVALUATED)
        give_back()
        return found

    found: Comparison = _other.get(("comparison", checkpoint_key(first), checkpoint_key(second)), make)
    return found


def stored_evaluation(run: RunFolder) -> dict[str, Any] | None:
    """`stage3.evaluate.stored_report`: what the run is known to be worth, without reading its data."""
    from stage3.evaluate.kept import FILE, HELD_OUT

    stamps: list[object] = [stamp_of(run.path / f"{FILE.format(split)}.json") for split in HELD_OUT]
    if not any(stamps):
        return None
    key = ("stored", str(run.path), *stamps, stamp_of(run.path / "best.json"), stamp_of(run.path / "checkpoints"))

    def make() -> dict[str, Any] | None:
        from stage3.evaluate import stored_report

        return stored_report(run)

    found: dict[str, Any] | None = _other.get(key, make)
    return found


def stamp_of(path: Path | str) -> tuple[int, int] | None:
    """Size and time of a file, which change when it does; None where there is none."""
    try:
        info = os.stat(path)  # noqa: PTH116 - a thousand are asked for at a time
    except OSError:
        return None
    return info.st_size, info.st_mtime_ns


def diagnosis(run: RunFolder, step: int | None = None) -> Diagnosis:
    """`stage3.diagnose.diagnose` of a checkpoint on books it was not trained on: test, else val, else all."""

    def make() -> Diagnosis:
        from stage3.diagnose import diagnose
        from stage3.model import validation

        e = _held_out(run, step)
        row = validation.retrieval_metrics(e) | validation.reconstruction_metrics(load_model(run, step), e)
        found = diagnose(e.panel, e.page_ids, row, added(run, step))
        give_back()
        return found

    found: Diagnosis = _other.get(("diagnosis", *checkpoint_key(run, step)), make)
    return found


def result(run: RunFolder) -> dict[str, float]:
    """The validation row of the best checkpoint (`stage3.train.result`), undefined metrics left out."""

    def make() -> dict[str, float]:
        from stage3.runs import curves

        values = curves.best_validation(metrics(run), run.best())
        return {name: float(v) for name, v in values.items() if isinstance(v, int | float) and v == v}

    logged = metrics_key(run)
    if logged is None:
        return {}
    found: dict[str, float] = _results.get((*logged, stamp_of(run.path / "best.json")), make)
    return found


def warm_up() -> None:
    """Read what the first view shows, and once it is drawn what a click will ask for; a view reports what fails."""
    with _uncollected():
        import plotly.graph_objects  # noqa: F401

        found = default_entry(entries())
        if found is not None:
            with suppress(Stage3Error):
                panel_frame(found.run)
    _drawn.wait(PATIENCE)
    with _uncollected(), suppress(Stage3Error):
        if found is not None:
            embedded(found.run)


def view_drawn() -> None:
    """A session has drawn its first view: the processor is free for what comes next."""
    _drawn.set()


@contextmanager
def _uncollected() -> Iterator[None]:
    """Import and read without the garbage collector, which need not look at what lives as long as the server.

    Walking the 400,000 objects of torch, pandas and plotly stops all sessions, and collecting while they are imported
    took half a second of the first view.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def remember_row(key: tuple[Any, ...], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Keep a small row about a run by key, of as many runs as there may be."""
    return _rows.get(key, make)


def remember(key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
    """Keep a view's own small result by key, such as ("neighbors", *checkpoint_key(run, step), 10)."""
    return _other.get(key, make)


def give_back() -> None:
    """Return freed memory to the system after heavy work: the C library keeps what lies between pieces in use.

    After embedding 100,000 panels that were 156 of 703 MB.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library than glibc
            ctypes.CDLL(None).malloc_trim(0)


def _one_thread() -> None:
    """Sessions share the machine with training: inference uses one thread."""
    import torch

    torch.set_num_threads(1)


__all__ = ["Entry", "Stage3Error", "embedded", "entries", "open_dataset", "panel_frame", "remember"]
