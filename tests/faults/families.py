"""Families of faults, each a function of a number of rounds, a seed and a scratch folder that counts what it tried.

A family stands on the tests of the same thing where there are any; here it runs with as many rounds as are wanted.
"""

from __future__ import annotations

import io
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
for folder in (HERE.parent, HERE.parent / "runs"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

import app_support  # noqa: E402
import disk_faults  # noqa: E402
import test_checkpoint_faults as checkpoint_faults  # noqa: E402
from PIL import Image  # noqa: E402

from stage3.config import Config  # noqa: E402
from stage3.data import images, readers  # noqa: E402
from stage3.data.readers import cache  # noqa: E402
from stage3.errors import Stage3Error  # noqa: E402
from stage3.runs import RunFolder, list_broken, list_runs  # noqa: E402
from tests.faults import hostile_runs  # noqa: E402

SLOW = 5.0  # seconds of CPU for one damaged file; more is a way to stop a server


@dataclass
class Outcome:
    """What a family tried and what did not hold."""

    tried: int = 0
    violations: list[str] = field(default_factory=list)

    def expect(self, holds: bool, what: str) -> None:
        """Count one attempt; `what` names it where it did not hold."""
        self.tried += 1
        if not holds:
            self.violations.append(what)


Family = Callable[[int, int, Path], Outcome]


def _fresh(scratch: Path) -> tuple[Path, tuple[dict[str, str], list[str]]]:
    """A run that has not begun, and what an undisturbed one leaves with the operations that it made."""
    fresh = RunFolder.create(scratch / "fresh", Config()).path
    path = shutil.copytree(fresh, scratch / "reference")
    with disk_faults.Disk() as disk:
        checkpoint_faults.train(RunFolder.load(path), [])
    return fresh, (checkpoint_faults.content(path), disk.names)


def _at_operations(fault: str) -> Family:
    """The fault at the file operations of a training: at each of them, or evenly spread over as many as wanted."""

    def family(rounds: int, seed: int, scratch: Path) -> Outcome:
        fresh, (expected, names) = _fresh(scratch)
        places = [n for n, name in enumerate(names, 1) if name in checkpoint_faults.AFFECTED.get(fault, names)]
        chosen = places if rounds >= len(places) else places[seed % 3 :: -(-len(places) // rounds)]
        found, seen = Outcome(), set()
        for at in chosen:
            try:
                checkpoint_faults.check_fault(fresh, scratch / "run", fault, at, expected, seen)
                found.expect(True, "")
            except (AssertionError, Stage3Error) as error:
                found.expect(False, f"operation {at} ({names[at - 1]}): {str(error)[:200]}")
                shutil.rmtree(scratch / "run", ignore_errors=True)
        return found

    return family


def kills(rounds: int, seed: int, scratch: Path) -> Outcome:
    """SIGKILL at a random moment of a training in a process of its own; an ordinary rerun ends as if undisturbed."""
    found = Outcome()
    if not hasattr(os, "fork"):
        return found
    fresh, (expected, _) = _fresh(scratch)
    rng = random.Random(seed)
    began = time.monotonic()
    shutil.copytree(fresh, scratch / "timed")
    checkpoint_faults.train(RunFolder.load(scratch / "timed"), [])
    took = time.monotonic() - began
    for number in range(rounds):
        path = shutil.copytree(fresh, scratch / "run")
        child = os.fork()
        if child == 0:
            checkpoint_faults.train(RunFolder.load(path), [])
            os._exit(0)
        time.sleep(rng.uniform(0, took))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        try:
            checkpoint_faults.check_visible(RunFolder.load(path), [])
            checkpoint_faults.train(RunFolder.load(path), [])
            found.expect(checkpoint_faults.content(path) == expected, f"kill {number}: another result")
        except (AssertionError, Stage3Error) as error:
            found.expect(False, f"kill {number}: {str(error)[:200]}")
        shutil.rmtree(path)
    return found


def power_loss(rounds: int, seed: int, scratch: Path) -> Outcome:
    """A power cut after every operation, with unsynced content lost, zeroed, torn or garbage; all of them or none."""
    found = Outcome()
    if rounds < 100:
        return found
    fresh, (expected, _) = _fresh(scratch)
    try:
        found.tried = checkpoint_faults.check_power_cuts(fresh, scratch, expected)
    except (AssertionError, Stage3Error) as error:
        found.expect(False, str(error)[:200])
    return found


def damage(rounds: int, seed: int, scratch: Path) -> Outcome:
    """Random damage to the newest checkpoint: it is named, and the one before is used."""
    fresh = RunFolder.create(scratch / "fresh", Config()).path
    run = checkpoint_faults.three_checkpoints(fresh, scratch / "run")
    newest = run.checkpoints()[-1].path
    files, rng, found = sorted(newest.iterdir()), random.Random(seed), Outcome()
    for number in range(rounds):
        file = files[number % len(files)]
        whole = file.read_bytes()
        file.write_bytes(_mutated(whole, rng))
        if file.read_bytes() != whole:
            loaded = run.load_checkpoint()
            named = len(loaded.damaged) == 1 and newest.name in loaded.damaged[0]
            found.expect(loaded.step == 4 and named, f"round {number}: {file.name} was believed")
        file.write_bytes(whole)
    return found


def _mutated(data: bytes, rng: random.Random) -> bytes:
    """The data with a few bits flipped, cut, extended, or with a part of it zero or repeated."""
    changed = bytearray(data)
    at = rng.randrange(len(changed)) if changed else 0
    match rng.randrange(6):
        case 0 | 1:
            for _ in range(rng.choice((1, 3, 20))):
                place = rng.randrange(len(changed))
                changed[place] ^= 1 << rng.randrange(8)
        case 2:
            del changed[at:]
        case 3:
            changed[at : at + 64] = bytes(len(changed[at : at + 64]))
        case 4:
            changed += rng.randbytes(rng.randrange(1, 64))
        case _:
            changed[at:at] = changed[: rng.randrange(1, 200)]
    return bytes(changed)


def cached_tables(rounds: int, seed: int, scratch: Path) -> Outcome:
    """One bit flipped in the cached panel table: it is never read as it is."""
    data = app_support.write_comics(scratch / "comics", books=3, pages=2, panels=3)
    readers.read(Config(data=str(data), cache_dir=str(scratch / "cache")))
    [tables] = (scratch / "cache" / "tables").iterdir()
    files, rng, found = sorted(tables.iterdir()), random.Random(seed), Outcome()
    for number in range(rounds):
        file = files[number % len(files)]
        whole = file.read_bytes()
        changed = bytearray(whole)
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        file.write_bytes(changed)
        found.expect(cache._cached(tables) is None, f"round {number}: {file.name} was believed")
        file.write_bytes(whole)
    return found


def hostile(rounds: int, seed: int, scratch: Path) -> Outcome:
    """Run folders with each file spoiled in each way: one line that names it, or nothing, in little time."""
    good = checkpoint_faults.three_checkpoints(RunFolder.create(scratch / "fresh", Config()).path, scratch / "good")
    good.set_best(6, 0.5, "score")
    good.append_metrics({"step": 6, "epoch": 1, "split": "val", "loss/total": 1.5})
    good.write_json("data", {"table": "t", "books": {"train": ["a"]}})
    found = Outcome()
    names = list(hostile_runs.CASES)
    for name in names[:: max(1, len(names) // max(1, rounds))]:
        path = hostile_runs.plant(good.path, scratch / "runs", name)
        began = time.process_time()
        said: list[str] = []
        try:
            there = [*list_runs([path.parent]), *list_broken([path.parent])]
            said = _asked(path)
        except Exception as error:
            found.expect(False, f"{name}: {type(error).__name__} {str(error)[:150]}")
        else:
            quick = time.process_time() - began < SLOW
            found.expect(quick and len(there) == 1 and not any("\n" in s for s in said), f"{name}: {said}")
        shutil.rmtree(path)
    return found


def _asked(path: Path) -> list[str]:
    """What a run says when everything is asked of it."""
    said: list[str] = []
    try:
        run = RunFolder.load(path)
    except Stage3Error as error:
        return [str(error)]
    asks: tuple[Callable[[], Any], ...] = (run.best, run.metrics, run.checkpoint, run.load_checkpoint)
    for ask in (lambda: (run.status, run.is_live), *asks):
        try:
            ask()
        except Stage3Error as error:
            said.append(str(error))
    return said


def uploads(rounds: int, seed: int, scratch: Path) -> Outcome:
    """Mutated images of every format, as an upload or a page: an image, or a reason, in little time."""
    rng, found = random.Random(seed), Outcome()
    drawn = Image.effect_noise((160, 120), 40).convert("RGB")
    originals = []
    for form, how in (
        ("PNG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {}),
        ("WEBP", {}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "jpeg"}),
        ("AVIF", {}),
    ):
        buffer = io.BytesIO()
        drawn.save(buffer, form, **how)
        originals.append(buffer.getvalue())
    for number in range(rounds):
        data = _mutated(rng.choice(originals), rng)
        began = time.process_time()
        try:
            image = images.open_bytes(data, max_megapixels=50.0, longest=64)
            holds = image.mode == "RGB" and max(image.size) <= 64
        except images.ImageProblem as problem:
            holds = bool(problem.code) and "\n" not in str(problem)
        except Exception as error:
            found.expect(False, f"round {number}: {type(error).__name__} {str(error)[:150]}")
            continue
        found.expect(holds and time.process_time() - began < SLOW, f"round {number}: {len(data)} bytes")
    return found


def bad_corpus(rounds: int, seed: int, scratch: Path) -> Outcome:
    """A data set whose panel files and images are mutated at random: clean pages are as they were, the rest counted."""
    rng, found = random.Random(seed), Outcome()
    data = app_support.write_comics(scratch / "comics", books=4, pages=3, panels=3)
    spoiled = sorted(p for p in data.rglob("*") if p.suffix in (".json", ".png") and p.parent != data)
    whole = {p: p.read_bytes() for p in spoiled}
    config = Config(data=str(data), cache_dir=str(scratch / "cache"))
    before = readers.read(config).panels.set_index("panel_id")
    for number in range(rounds):
        chosen = rng.sample(spoiled, 4)
        for path in chosen:
            path.write_bytes(_mutated(whole[path], rng))
        try:
            table = readers.read(config, refresh=True)
        except Stage3Error as error:
            found.expect("\n" not in str(error), f"round {number}: {error}")
        else:
            touched = {str(p.relative_to(data / "panels"))[:-5] for p in chosen if p.suffix == ".json"}
            now = table.panels.set_index("panel_id")
            clean = [i for i in before.index if i.rpartition("#")[0] not in touched]
            same = all(i in now.index for i in clean) and (
                now.loc[clean, ["x", "y", "w", "h", "description"]].equals(
                    before.loc[clean, ["x", "y", "w", "h", "description"]]
                )
            )
            report = table.report
            counted = report.pages_listed == report.pages_kept + sum(report.skipped.values())
            found.expect(same and counted, f"round {number}: {[p.name for p in chosen]}")
        for path in chosen:
            path.write_bytes(whole[path])
    return found


FAMILIES: dict[str, tuple[Family, int, int]] = {  # name: (family, rounds of the quick share, rounds in full)
    "kill at file operations": (_at_operations("kill"), 12, 10_000),
    "torn write": (_at_operations("torn"), 4, 10_000),
    "disk full at file operations": (_at_operations("enospc"), 6, 10_000),
    "I/O error at file operations": (_at_operations("eio"), 8, 10_000),
    "short write": (_at_operations("short"), 4, 10_000),
    "SIGKILL at random moments": (kills, 3, 200),
    "power loss": (power_loss, 0, 10_000),
    "damaged checkpoints": (damage, 40, 4000),
    "flipped bits in cached tables": (cached_tables, 40, 1000),
    "hostile runs": (hostile, 12, 1000),
    "bad corpus": (bad_corpus, 5, 150),
    "fuzzed uploads": (uploads, 120, 13_000),
}
