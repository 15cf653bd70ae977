"""Versions and machine of a run, for the record."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from contextlib import suppress
from functools import cache
from typing import Any

from stage3.config import Config

VERSIONS_OF = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "pandas", "pyarrow", "pillow", "zarr")


def environment(config: Config) -> dict[str, Any]:
    """Versions and machine, for the record; nothing about the user, their paths or their repositories."""
    from stage3 import __version__

    return {
        "stage3": __version__,
        "versions": dict(_versions()),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "byteorder": sys.byteorder,
        "threads": config.threads,
        "cpus": os.cpu_count(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS", ""),
    }


@cache
def _versions() -> dict[str, str]:
    """Of those packages that are installed: looked up once, which takes as long as two steps of a small run."""
    versions = {}
    for name in VERSIONS_OF:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
