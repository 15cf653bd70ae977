"""From a `.pt` file of unknown origin to tensors and numbers; `child` is the process that opens it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stage3.errors import DataError
from stage3.runs.checkpoints import parse_tensors
from stage3.storage import open_regular, read_file, read_json, size_and_sha256, storing

if TYPE_CHECKING:
    from torch import Tensor

MAX_FILE = 16 * 2**30  # bytes; the largest known has 1.7 GB, with the state of its optimizer
SECONDS = 1200  # of the clock, for the child
KEPT = ("PATH", "HOME", "SYSTEMROOT", "USERPROFILE", "TMPDIR", "TEMP", "TMP", "LD_LIBRARY_PATH")  # of the environment


@dataclass(frozen=True)
class Opened:
    """A checkpoint file's content.

    Attributes:
        path: the file.
        sha256: of its bytes, in hex.
        weights: float32 and int64 tensors by the names in the file.
        facts: numbers that it says of its training, such as `epoch` and `val_loss`.
    """

    path: Path
    sha256: str
    weights: dict[str, Tensor]
    facts: dict[str, float]


def open_checkpoint(path: Path) -> Opened:
    """Open a file that `torch.save` wrote, in a confined process.

    Raises:
        DataError: it is missing, too large, or holds anything but weights and numbers; says which.
        StorageError: the disk fails.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file")
    if not path.is_file():
        raise DataError(f"{path} is not a file. Give the checkpoint that the original trainer wrote.")
    descriptor, size = open_regular(path, links=True)
    os.close(descriptor)
    if size > MAX_FILE:
        raise DataError(f"{path}: {size:,} bytes, more than the {MAX_FILE:,} of any known checkpoint")
    with tempfile.TemporaryDirectory(prefix="stage3-convert-") as scratch:
        out = Path(scratch)
        _run_child(path.resolve(), out)
        with storing(out):
            _, digest = size_and_sha256(path, links=True)
            weights = parse_tensors(read_file(out / "weights.safetensors", limit=2 * MAX_FILE), path)
            return Opened(path, digest, weights, read_json(out / "facts.json", limit=2**16))


def _run_child(path: Path, out: Path) -> None:
    """Run `child`; DataError with its reason, or with how it died."""
    package = Path(__file__).resolve().parents[2]
    env = {name: os.environ[name] for name in KEPT if name in os.environ}
    env |= {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "stage3.convert.child", str(path), str(out)]
    try:
        done = subprocess.run(
            command, cwd=out, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"{path} is refused: it was not read within {SECONDS // 60} minutes") from None
    if done.returncode == 2 and done.stdout:
        raise DataError(f"{path} is refused: {done.stdout.decode('utf-8', 'replace').strip()[:500]}")
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        last = f": {said[-1][:200]}" if said else ""
        raise DataError(
            f"{path} is refused: the process that opened it ended with {done.returncode}{last}. "
            "It has less memory than its size allows for, or the file is damaged."
        )
