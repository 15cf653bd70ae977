"""Embedding without training: `python -m stage3.embed` as a child, with a record beside the store that it writes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from app.store import children, loaders, readonly
from stage3.config import Config
from stage3.errors import ConfigError, StorageError
from stage3.runs import RunFolder
from stage3.storage import make_folder, read_json, replace_file, sha256, to_json

MODULE = "stage3.embed"
RECORD, LOG = ".embed.json", ".embed.log"


@dataclass(frozen=True)
class Embed:
    """One store that is written or was: its path, by which run, of which data, and how far it is."""

    out: Path
    run: str
    data: str
    state: str  # running, finished or failed
    log: str
    pid: int
    started: float


def folder() -> Path:
    """Where stores go: `embeddings/` beside `runs/`."""
    return loaders.base() / "embeddings"


def start(run: RunFolder, config: Config) -> Path:
    """Embed the data of some settings by a run's best checkpoint; returns the store's path at once.

    A store that was begun goes on where it stopped.

    Raises:
        ConfigError: it is being written already.
        StorageError: the folder cannot be written.
    """
    readonly.refuse()
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", f"{run.name}-{Path(config.data or config.manifest).name}")[:60]
    out = folder() / f"{name}-{sha256(f'{run.path.resolve()} {config.data} {config.manifest}'.encode())[:6]}.zarr"
    make_folder(out.parent)
    if any(e.out == out and e.state == "running" for e in embeds()):
        raise ConfigError(f"{out.name} is being written already.")
    # the run's own data is not named: the command then takes it as the run recorded it
    other = ["--data", config.data] if config.data != run.config.data else []
    here = loaders.config_here(run.config)  # never what a foreign run names
    ours = ["--cache_dir", here.cache_dir, "--max_megapixels", f"{here.max_megapixels:g}"]
    arguments = ["--run", str(run.path.resolve()), "--out", str(out), *other, *ours]
    with _beside(out, LOG).open("wb") as log:
        child = children.spawn(MODULE, arguments, nice=5, log=log, HF_HUB_OFFLINE="1", PYTHONUNBUFFERED="1")
    record = children.remembered(child, children.MEMORY_BYTES)
    record |= {"run": run.name, "data": config.data or config.manifest}
    replace_file(_beside(out, RECORD), to_json(record).encode())
    return out


def embeds() -> list[Embed]:
    """All stores that were started here, the latest first."""
    return sorted(_embeds(), key=lambda e: e.started, reverse=True)


def _embeds() -> Iterator[Embed]:
    root = folder()
    for path in root.glob(f"*{RECORD}") if root.is_dir() else ():
        try:
            record = read_json(path, limit=2**16)
        except StorageError:
            continue
        out = root / path.name.removesuffix(RECORD)
        log = children.tail(_beside(out, LOG), 6)
        started = record.get("started")
        if not isinstance(started, int | float) or type(record.get("pid")) is not int:
            continue
        done = out.exists() and out.with_suffix(".metadata.json").exists()
        state = "running" if children.is_alive(record) else "finished" if done else "failed"
        yield Embed(out, str(record.get("run")), str(record.get("data")), state, log, record["pid"], float(started))


def cancel(embed: Embed) -> None:
    """Stop writing; the same store goes on from there when it is started again."""
    readonly.refuse()
    children.end(embed.pid, MODULE, hard=False)


def _beside(out: Path, suffix: str) -> Path:
    return out.with_name(out.name + suffix)
