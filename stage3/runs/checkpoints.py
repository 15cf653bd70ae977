"""Checkpoints: folders `step-NNNNNNNN` of safetensors and JSON, complete as soon as they are visible.

A save writes everything into a scratch folder, syncs every file, writes the manifest (length and SHA-256 of each
file), syncs that and the folder, and only then renames the folder to its name and syncs the parent. A load trusts
nothing that the manifest does not vouch for, and nothing is ever unpickled.

    checkpoints/step-00000012/  model.safetensors  optimizer.safetensors  state.json  MANIFEST.json
                                backbone-image/  backbone-text/   model folders, where a run trains its backbones
"""

from __future__ import annotations

import functools
import json
import math
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stage3.errors import NotThere, StorageError
from stage3.storage import (
    MAX_JSON,
    TMP,
    clear_scratch,
    make_folder,
    parse_object,
    read_file,
    read_json,
    remove,
    rename,
    sha256,
    size_and_sha256,
    storing,
    sync_folder,
    write_new,
)

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
MANIFEST = "MANIFEST.json"
MAX_FILE = 16 * 2**30  # bytes of one file; a manifest that promises more is not believed
MAX_HEADER = 32 * 2**20  # bytes of a safetensors header
ITEM_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL"), 1),
}
_STEP = re.compile(r"step-(\d{8,})")
_GROUP = re.compile(r"[a-z][a-z0-9_]{0,39}")
_MODEL_FILE = re.compile(r"backbone-(image|text)(-\d)?(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}){1,3}")
_TENSOR_FILE = re.compile(r"([a-z][a-z0-9_]{0,39})\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on the disk; whether it is intact shows when it is loaded or verified."""

    step: int
    path: Path


@dataclass(frozen=True)
class Loaded:
    """A checkpoint's content, checked against its manifest; `damaged` names newer ones that were damaged."""

    step: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]
    path: Path
    damaged: list[str] = field(default_factory=list)


class CheckpointFolder:
    """The folder `checkpoints/` of a run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    # --- saving

    def save(
        self,
        step: int,
        tensors: Mapping[str, Mapping[str, Tensor]],
        state: Mapping[str, Any],
        models: Mapping[str, bytes] | None = None,
    ) -> Path:
        """Write a checkpoint; it becomes visible complete or not at all. See `RunFolder.save_checkpoint`."""
        files = {f"{_group(name)}.safetensors": _safetensors(group) for name, group in tensors.items()}
        for name, data in (models or {}).items():
            assert _MODEL_FILE.fullmatch(name), name
            files[name] = data
        files["state.json"] = _strict_json(state)
        target = self.path / f"step-{step:08d}"
        scratch = self.path / f"{TMP}{step:08d}-{os.getpid()}"
        with storing(target):
            make_folder(self.path)
            remove(scratch)
            try:
                self._write(scratch, step, files)
                self._publish(scratch, target)
            except OSError:
                with suppress(OSError):
                    remove(scratch)
                raise
            sync_folder(self.path)
            self._clear_replaced(target)
        return target

    def _write(self, scratch: Path, step: int, files: Mapping[str, bytes]) -> None:
        scratch.mkdir()
        folders = {folder for name in files for folder in (scratch / name).parents if folder.is_relative_to(scratch)}
        for folder in sorted(folders - {scratch}):
            folder.mkdir()
        for name, data in files.items():
            write_new(scratch / name, data)
        entries = {name: {"bytes": len(data), "sha256": sha256(data)} for name, data in files.items()}
        write_new(scratch / MANIFEST, _strict_json({"format": FORMAT, "step": step, "files": entries}))
        for folder in (*folders - {scratch}, scratch):
            sync_folder(folder)

    def _publish(self, scratch: Path, target: Path) -> None:
        """Rename to the visible name; one of the same step steps aside under a name that loading still finds."""
        aside = _aside(target)
        if not _present(target):
            rename(scratch, target)
            return
        remove(aside)  # left by a crash after its replacement became visible
        rename(target, aside)
        try:
            rename(scratch, target)
        except OSError:
            rename(aside, target)
            raise

    def _clear_replaced(self, target: Path) -> None:
        if _present(_aside(target)):
            self._delete(_aside(target))

    # --- looking

    def visible(self) -> list[Checkpoint]:
        """All checkpoints, ascending by step, without reading them."""
        if not self.path.is_dir() or self.path.is_symlink():
            return []
        found: dict[int, Path] = {}
        with storing(self.path):
            for entry in sorted(self.path.iterdir(), key=lambda e: e.name.startswith(".")):
                match = _STEP.fullmatch(entry.name.removeprefix(".old-"))
                if match and entry.is_dir() and not entry.is_symlink():
                    found.setdefault(int(match[1]), entry)  # `.old-` counts only where its replacement is missing
        return [Checkpoint(step, found[step]) for step in sorted(found)]

    def at(self, step: int) -> Checkpoint:
        """The checkpoint of one step; NotThere lists the steps there are."""
        there = self.visible()
        for checkpoint in there:
            if checkpoint.step == step:
                return checkpoint
        steps = ", ".join(str(c.step) for c in there) or "none"
        raise NotThere(f"{self.path}: no checkpoint of step {step}; available: {steps}")

    def newest_intact(self) -> Checkpoint:
        """The newest checkpoint whose files are what its manifest promises.

        Raises:
            NotThere: there is no checkpoint yet.
            StorageError: all of them are damaged; each is named.
        """
        damaged: list[str] = []
        for checkpoint in reversed(self.visible()):
            problem = _known_damage(checkpoint)
            if not problem:
                return checkpoint
            damaged.append(problem)
        raise self._none(damaged)

    def _none(self, damaged: list[str]) -> StorageError:
        if damaged:
            return StorageError(f"{self.path}: no checkpoint is intact: " + "; ".join(damaged))
        return NotThere(f"{self.path.parent}: no checkpoint yet. Train for at least one epoch.")

    # --- loading

    def load(self, step: int | None = None, check: Callable[[Loaded], None] | None = None) -> Loaded:
        """Load one step, or the newest that is intact and passes `check`. See `RunFolder.load_checkpoint`."""
        if step is not None:
            return _checked(self.at(step), check)
        damaged: list[str] = []
        for checkpoint in reversed(self.visible()):
            try:
                loaded = _checked(checkpoint, check)
            except StorageError as error:
                damaged.append(str(error))
                continue
            return Loaded(loaded.step, loaded.tensors, loaded.state, loaded.path, damaged)
        raise self._none(damaged)

    # --- retention

    def prune(self, keep: int, best: int | None, *, all_writers: bool = False) -> list[int]:
        """Delete old checkpoints and what dead writers left behind; see `RunFolder.prune`."""
        if not self.path.is_dir() or self.path.is_symlink():
            return []
        with storing(self.path):
            doomed = self._doomed(keep, best) if keep > 0 else []
            for checkpoint in doomed:
                self._delete(checkpoint.path)
            for entry in self.path.glob(".old-step-*"):
                if _present(entry.with_name(entry.name.removeprefix(".old-"))):
                    self._delete(entry)
            clear_scratch(self.path, all_writers=all_writers)
        return [c.step for c in doomed]

    def _doomed(self, keep: int, best: int | None) -> list[Checkpoint]:
        """Everything older than the `keep` newest intact checkpoints, but the best; nothing if there are fewer."""
        intact = 0
        doomed: list[Checkpoint] = []
        for checkpoint in reversed(self.visible()):
            if intact >= keep:
                doomed.append(checkpoint)
            else:
                intact += not damage(checkpoint)
        return [c for c in doomed if c.step != best]

    def _delete(self, path: Path) -> None:
        """Take the name away first, so that a half-deleted checkpoint is never visible."""
        hidden = path.with_name(f"{TMP}{path.name.lstrip('.')}-{os.getpid()}")
        remove(hidden)  # a dead process of the same pid may have left it
        try:
            rename(path, hidden)
        except PermissionError:  # a reader has it open (Windows); the next prune deletes it
            return
        sync_folder(self.path)  # else a power cut may bring the name back over an emptied folder
        remove(hidden)


def _present(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _aside(target: Path) -> Path:
    return target.with_name(f".old-{target.name}")


def _group(name: str) -> str:
    if not _GROUP.fullmatch(name):
        raise ValueError(f"{name!r} cannot name a group of tensors: use lower-case letters, digits and _")
    return name


def _strict_json(value: Mapping[str, Any]) -> bytes:
    """JSON that reads back as it was; NaN raises ValueError, since a null in its place would not resume exactly."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1).encode("utf-8")


def _safetensors(group: Mapping[str, Tensor]) -> bytes:
    from safetensors.torch import save

    return save({name: t.detach().cpu().contiguous().clone() for name, t in group.items()})


# --- reading one checkpoint


def load(checkpoint: Checkpoint) -> Loaded:
    """Read one checkpoint; StorageError names the file that is damaged and how."""
    files = read_manifest(checkpoint)
    tensors: dict[str, dict[str, Tensor]] = {}
    state: dict[str, Any] = {}
    for name, entry in files.items():
        path = checkpoint.path / name
        data = read_file(path, limit=MAX_JSON if name == "state.json" else MAX_FILE)
        check_content(path, entry, len(data), sha256(data))
        if match := _TENSOR_FILE.fullmatch(name):
            tensors[match[1]] = parse_tensors(data, path)
        elif name == "state.json":
            state = parse_object(data, path)
    check_finite(tensors.get("model", {}), checkpoint.path / "model.safetensors")
    return Loaded(checkpoint.step, tensors, state, checkpoint.path)


def _checked(checkpoint: Checkpoint, check: Callable[[Loaded], None] | None) -> Loaded:
    loaded = load(checkpoint)
    if check is not None:
        check(loaded)
    return loaded


def damage(checkpoint: Checkpoint) -> str:
    """What is wrong with a checkpoint's files, or "" when each has the length and SHA-256 of the manifest."""
    try:
        for name, entry in read_manifest(checkpoint).items():
            path = checkpoint.path / name
            check_content(path, entry, *size_and_sha256(path, MAX_FILE))
    except StorageError as error:
        return str(error)
    return ""


def _known_damage(checkpoint: Checkpoint) -> str:
    """`damage`, measured again only when a file of the checkpoint has changed: hashing takes the time of a read."""
    try:
        files = sorted(checkpoint.path.rglob("*"))
        stamp = tuple((f.name, (s := f.lstat()).st_size, s.st_mtime_ns, s.st_ino) for f in files)
    except OSError as error:
        return f"{checkpoint.path}: {error.strerror or error}"
    return _damage_of(checkpoint, stamp)


@functools.lru_cache(maxsize=512)
def _damage_of(checkpoint: Checkpoint, stamp: tuple[tuple[str, int, int, int], ...]) -> str:
    return damage(checkpoint)


def read_manifest(checkpoint: Checkpoint) -> dict[str, dict[str, Any]]:
    """File name to {bytes, sha256}; refuses manifests of a newer format, of another step, or with foreign names."""
    path = checkpoint.path / MANIFEST
    manifest = read_json(path, limit=2**20)
    version, files = manifest.get("format"), manifest.get("files")
    if isinstance(version, int) and version > FORMAT:
        raise StorageError(f"{path}: format {version} is newer than the {FORMAT} this version reads. Update stage3.")
    if version != FORMAT or not isinstance(files, dict) or "state.json" not in files:
        raise StorageError(f"{path}: damaged, not a manifest of format {FORMAT}")
    if manifest.get("step") != checkpoint.step:
        raise StorageError(f"{path}: belongs to step {manifest.get('step')}, not {checkpoint.step}")
    for name, entry in files.items():
        if name != "state.json" and not _TENSOR_FILE.fullmatch(name) and not _MODEL_FILE.fullmatch(name):
            raise StorageError(f"{path}: {name!r} is not a file of a checkpoint")
        if not isinstance(entry, dict) or not isinstance(entry.get("bytes"), int):
            raise StorageError(f"{path}: damaged, no length and sha256 for {name}")
    return files


def check_content(path: Path, entry: Mapping[str, Any], size: int, digest: str) -> None:
    """Raise StorageError unless a file has the length and SHA-256 that its manifest promises."""
    if size != entry["bytes"]:
        raise StorageError(f"{path}: damaged, {size:,} bytes where the manifest says {entry['bytes']:,}")
    if digest != entry.get("sha256"):
        raise StorageError(f"{path}: damaged, its SHA-256 differs from the manifest's")


def parse_tensors(data: bytes, source: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file's bytes, after its header has been checked against its length."""
    from safetensors import SafetensorError
    from safetensors.torch import load as load_bytes

    check_header(data, source)
    try:
        return load_bytes(data)
    except SafetensorError as error:
        raise StorageError(f"{source}: not readable as safetensors ({error})") from None


def check_header(data: bytes, source: Path) -> None:
    """Refuse a safetensors header that is malformed or whose tensors do not fill the file exactly.

    Nothing is allocated from what the header declares, so a small file cannot ask for much memory.
    """
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(MAX_HEADER, len(data) - 8):
        raise StorageError(f"{source}: not a safetensors file (its header does not fit)")
    header = parse_object(data[8 : 8 + length], source)
    header.pop("__metadata__", None)
    spans = sorted(_span(name, entry, source) for name, entry in header.items())
    position = 0
    for begin, end, name in spans:
        if begin != position:
            raise StorageError(f"{source}: tensor {name!r} starts at {begin}, not at {position}")
        position = end
    if position != len(data) - 8 - length:
        raise StorageError(f"{source}: its tensors take {position:,} bytes of {len(data) - 8 - length:,}")


def _span(name: str, entry: Any, source: Path) -> tuple[int, int, str]:
    """Begin and end of one tensor in the file, once dtype, shape and length agree."""
    wrong = StorageError(f"{source}: tensor {name!r} has a malformed header entry")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise wrong
    shape, offsets, item = entry["shape"], entry["data_offsets"], ITEM_BYTES.get(str(entry["dtype"]))
    if not isinstance(shape, list) or not isinstance(offsets, list) or len(offsets) != 2 or len(shape) > 16:
        raise wrong
    if any(type(n) is not int or not 0 <= n < 2**48 for n in (*shape, *offsets)) or item is None:
        raise wrong
    if math.prod(shape) * item != offsets[1] - offsets[0]:
        raise StorageError(
            f"{source}: tensor {name!r} of shape {shape} does not fit its {offsets[1] - offsets[0]} bytes"
        )
    return offsets[0], offsets[1], name


def check_finite(weights: Mapping[str, Tensor], source: Path) -> None:
    """Refuse weights with NaN or infinity: the run would go on and learn nothing."""
    bad = [name for name, t in weights.items() if t.is_floating_point() and not bool(t.isfinite().all())]
    if bad:
        more = f" and {len(bad) - 10} more" if len(bad) > 10 else ""
        raise StorageError(f"{source}: NaN or infinite weights in {', '.join(bad[:10])}{more}")
