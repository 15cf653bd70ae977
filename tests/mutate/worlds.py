"""A plugin of pytest that trains each run of `app_support` once: no change of the explorer changes what a run is.

Where a run is asked for a second time, at the same place, of the same files and with the same settings, its folder and
the cache beside its data are copied. Only for mutants of `app`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

KEEP = "STAGE3_MUTATE_WORLDS"  # names the folder for what is kept


def pytest_collection() -> None:
    """Before the tests are imported."""
    import app_support

    app_support.make_run = kept(app_support.make_run, Path(os.environ[KEEP]))


def kept(make: Callable[..., Path], where: Path) -> Callable[..., Path]:
    """`make_run` that remembers."""

    def make_run(root: Path, name: str, data: Path, **settings: object) -> Path:
        about = hashlib.sha256(repr((str(root), name, str(data), sorted(settings.items()))).encode())
        for path in sorted(p for p in data.rglob("*") if p.is_file() and "runs" not in p.relative_to(data).parts):
            about.update(str(path).encode() + path.read_bytes())
        found, run, cache = where / about.hexdigest()[:24], root / name, data.parent / "cache"
        if not found.exists():
            make(root, name, data, **settings)
            half = found.with_suffix(".half")
            shutil.rmtree(half, ignore_errors=True)
            shutil.copytree(run, half / "run")
            if cache.exists():
                shutil.copytree(cache, half / "cache")
            half.rename(found)
        else:
            shutil.copytree(found / "run", run)
            if (found / "cache").exists():
                shutil.copytree(found / "cache", cache, dirs_exist_ok=True)
        return run

    return make_run
