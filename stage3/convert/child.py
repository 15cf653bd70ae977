"""`python -m stage3.convert.child FILE FOLDER`: open a `.pt` file within limits and write what it holds plainly.

The file may be anybody's. It is read here and nowhere else: in a process of its own, with little memory, no further
processes and few files, by torch's reader of weights, which builds tensors and plain values and calls nothing.
`FOLDER/weights.safetensors` gets the tensors, `FOLDER/facts.json` the numbers of the training. What is refused goes to
standard output as one line, with exit code 2.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MAX_TENSORS = 20_000  # the largest known checkpoint has 678
MAX_PICKLE = 16 * 2**20  # bytes of the description of all tensors; the largest known has 0.2 MB
MAX_NAME = 200
HEADROOM = 2 * 2**30  # bytes that torch needs of its own, besides the weights
SECONDS = 600  # of CPU
FACTS = ("epoch", "batch", "train_loss", "val_loss", "best_val_loss")


class Refused(Exception):
    """What is wrong with the file, in words."""


def confine(size: int) -> None:
    """Limit this process to what a file of `size` bytes needs; Windows has no such limits."""
    if sys.platform == "win32":
        return
    import resource

    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE") if _has_proc() else 0
    wanted = {
        resource.RLIMIT_CPU: SECONDS,
        resource.RLIMIT_FSIZE: 2 * size + 2**20,  # 16-bit weights become float32
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: 0,
    }
    if used:
        wanted[resource.RLIMIT_AS] = used + 6 * size + HEADROOM
    for which, limit in wanted.items():
        _, most = resource.getrlimit(which)
        limit = limit if most == resource.RLIM_INFINITY else min(limit, most)
        resource.setrlimit(which, (limit, limit))


def _has_proc() -> bool:
    return Path("/proc/self/statm").is_file()


def check_archive(path: Path, size: int) -> None:
    """Refuse an archive that would need more than its own size, before anything of it is read.

    Raises:
        Refused: it is not what `torch.save` writes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, EOFError, UnicodeError) as error:
        raise Refused(f"it is not a checkpoint as torch.save writes it ({error})") from None
    if len(entries) > 2 * MAX_TENSORS:
        raise Refused(f"it has {len(entries):,} entries, more than {2 * MAX_TENSORS:,}")
    for entry in entries:
        name = entry.filename[:MAX_NAME]
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise Refused(f"its entry {name!r} is compressed, which torch.save never does")
        if name.endswith(".pkl") and entry.file_size > MAX_PICKLE:
            raise Refused(f"its entry {name!r} has {entry.file_size:,} bytes, more than {MAX_PICKLE:,}")
    if sum(entry.file_size for entry in entries) > size:
        raise Refused("its entries overlap: they claim more bytes than the file has")


def weights_of(loaded: Any) -> dict[str, Any]:
    """The state dict in what a file held: the object itself, or its `model_state_dict`."""
    found = loaded.get("model_state_dict", loaded) if isinstance(loaded, Mapping) else None
    if not isinstance(found, Mapping):
        raise Refused(f"it holds a {type(loaded).__name__}, not the weights of a model")
    return dict(found)


def check_tensors(weights: dict[str, Any], size: int) -> None:
    """Refuse what is not a plain tensor with a plain name, and tensors that are larger than the file."""
    import torch

    if not 0 < len(weights) <= MAX_TENSORS:
        raise Refused(f"it holds {len(weights):,} tensors; expected 1 to {MAX_TENSORS:,}")
    plain = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64)
    total = 0
    for name, tensor in weights.items():
        if not isinstance(name, str) or len(name) > MAX_NAME or not re.fullmatch(r"[\w.]+", name, re.ASCII):
            raise Refused(f"{str(name)[:60]!r} cannot be the name of a tensor")
        if not isinstance(tensor, torch.Tensor):
            raise Refused(f"{name} is a {type(tensor).__name__}, not a tensor")
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.dtype not in plain:
            raise Refused(f"{name} is a {tensor.layout} tensor of {tensor.dtype}, not of plain numbers")
        total += tensor.numel() * tensor.element_size()
    if total > size:
        raise Refused(f"its tensors would take {total:,} bytes, the file has {size:,}")


def facts_of(loaded: Mapping[str, Any]) -> dict[str, float]:
    """The numbers that a checkpoint says of its training."""
    given = {name: loaded.get(name) for name in FACTS}
    return {n: v for n, v in given.items() if isinstance(v, int | float) and math.isfinite(v) and abs(v) < 2**53}


def read(path: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """The tensors of a file, float32 or int64, and the numbers that it says of its training.

    Raises:
        Refused: it is no checkpoint.
    """
    from pickle import UnpicklingError

    import torch

    size = path.stat().st_size
    check_archive(path, size)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except UnpicklingError as error:
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"it asks for the Python object {wanted[1]}" if wanted else "it holds more than weights and numbers"
        raise Refused(what) from None
    except (ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError,
            ValueError) as error:  # fmt: skip
        raise Refused(f"torch cannot read it: {' '.join(str(error).split())[:200]}") from None
    weights = weights_of(loaded)
    check_tensors(weights, size)
    plain = {n: (t.detach().float() if t.is_floating_point() else t).clone().contiguous() for n, t in weights.items()}
    return plain, facts_of(loaded)


def convert(path: Path, out: Path) -> None:
    """Read the file within limits and write what it holds; Refused says what is wrong with it."""
    import torch
    from safetensors.torch import save_file

    torch.set_num_threads(1)  # the limits allow no other
    confine(path.stat().st_size)
    weights, facts = read(path)
    save_file(weights, out / "weights.safetensors")
    (out / "facts.json").write_text(json.dumps(facts), encoding="utf-8")


def main(argv: list[str]) -> int:
    """Convert; 0, or 2 with the reason on standard output."""
    try:
        convert(Path(argv[0]), Path(argv[1]))
    except Refused as error:
        reason = str(error)
    except MemoryError:
        reason = "it needs more memory than a checkpoint of its size"
    else:
        return 0
    sys.stdout.write(" ".join(reason.split()) + "\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
