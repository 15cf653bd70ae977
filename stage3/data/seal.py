"""Seals of cached files: a flipped bit is noticed, and what the cache holds is made again. Only time is lost.

A Parquet file has no checksum of its own that readers look at: of 200 random bit flips in a cached panel table, 119
gave other boxes or other text without a word.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd

from stage3.errors import StorageError
from stage3.storage import read_json, replace_file, size_and_sha256, to_json

SEAL = "SEAL.json"
KEY = b"stage3.sha256"  # in the metadata of a Parquet file


def seal(folder: Path) -> None:
    """Write `SEAL.json` beside the files of a folder: length and SHA-256 of each."""
    files = {path.name: size_and_sha256(path) for path in sorted(folder.iterdir()) if path.name != SEAL}
    entries = {name: {"bytes": size, "sha256": digest} for name, (size, digest) in files.items()}
    replace_file(folder / SEAL, to_json({"files": entries}).encode(), durable=False)


def is_sealed(folder: Path) -> bool:
    """Whether a folder holds just the files that were sealed, bit for bit."""
    try:
        entries = read_json(folder / SEAL, limit=2**20).get("files")
        there = {path.name for path in folder.iterdir()} - {SEAL}
        if not isinstance(entries, dict) or set(entries) != there:
            return False
        return all(
            dict(zip(("bytes", "sha256"), size_and_sha256(folder / n), strict=True)) == e for n, e in entries.items()
        )
    except (StorageError, OSError):
        return False


def digest_of(frame: pd.DataFrame) -> bytes:
    """Hex digest of a frame of texts and whole numbers: names, order and every value."""
    digest = hashlib.sha256(f"{len(frame)}".encode())
    for name in frame.columns:
        digest.update(f"\0{name}\0".encode())
        if pd.api.types.is_integer_dtype(frame[name].dtype):
            digest.update(frame[name].to_numpy(dtype="<i8").tobytes())
        else:
            texts = frame[name].tolist()
            digest.update("\0".join(texts).encode("utf-8", "surrogatepass"))
    return digest.hexdigest().encode()
