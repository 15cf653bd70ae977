"""Whatever a disk does during a run, an ordinary rerun ends as the undisturbed run did, byte for byte.

`train` below is a run in miniature on the real run directory. Faults are injected at every operation it makes; the
invariants are checked on what is left, and again after a rerun. Each planted bug must break them.
"""

import hashlib
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import disk_faults
import pytest
import torch
from disk_faults import Disk, Killed, PowerModel, write_tree

from stage3 import storage
from stage3.config import Config
from stage3.errors import StorageError
from stage3.runs import RunFolder, checkpoints, folder, metrics_file
from stage3.runs.checkpoints import CheckpointFolder, damage
from stage3.storage import Lock

pytestmark = pytest.mark.slow

STEPS, EVERY, KEEP = 6, 2, 1
SCORES = {2: 0.5, 4: 0.1, 6: 0.9}  # the best changes, and is not always the newest


def train(run: RunFolder, saved: list[int], steps: int = STEPS) -> None:
    """Weights that depend on all steps before; `saved` collects the steps whose save returned."""
    with run.lock():
        weights, momentum, step, best = torch.zeros(3), torch.zeros(300), 0, None
        if run.checkpoints():
            loaded = run.load_checkpoint()
            weights, momentum = loaded.tensors["model"]["w"], loaded.tensors["optimizer"]["m"]
            step, best = loaded.step, loaded.state["best"]
        run.cut_metrics(step)
        if best:
            run.set_best(best, SCORES[best], "score")
        run.prune(KEEP)
        while step < steps:
            step += 1
            weights, momentum = weights * 0.5 + step, momentum * 0.9 + weights.sum()
            run.append_metrics({"step": step, "split": "train", "loss/total": float(weights[0]) / 7})
            if step % EVERY == 0:
                best = step if best is None or SCORES[step] > SCORES[best] else best
                run.save_checkpoint(step, {"model": {"w": weights}, "optimizer": {"m": momentum}}, {"best": best})
                saved.append(step)
                run.set_best(best, SCORES[best], "score")
                run.prune(KEEP)


def content(path: Path) -> dict[str, str]:
    """Hash of every file but the lock; folders and leftovers count too."""
    return {
        p.relative_to(path).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else "folder"
        for p in sorted(path.rglob("*"))
        if p.name != "lock"
    }


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A run that has not begun; tests work on copies."""
    return RunFolder.create(tmp_path_factory.mktemp("runs") / "fresh", Config()).path


@pytest.fixture(scope="module")
def reference(fresh):
    """What an undisturbed run leaves, and the operations it makes."""
    path = shutil.copytree(fresh, fresh.with_name("reference"))
    with Disk() as disk:
        train(RunFolder.load(path), [])
    return content(path), disk.names


def check_visible(run: RunFolder, saved: list[int]) -> None:
    """Every visible checkpoint is whole, the best reads, and nothing that was saved is lost."""
    assert [damage(c) for c in run.checkpoints() if damage(c)] == []
    run.best()
    if saved:
        assert run.load_checkpoint().step >= saved[-1]


def check_rerun(path: Path, expected: dict[str, str], seen: set[int]) -> None:
    """An ordinary rerun ends as the undisturbed run, with nothing left over; each state of the folder is rerun once."""
    state = hash(tuple(content(path).items()))
    if state in seen:
        return
    seen.add(state)
    with Disk():
        train(RunFolder.load(path), [])
    assert content(path) == expected


def check_fault(fresh: Path, path: Path, fault: str, at: int, expected: dict[str, str], seen: set[int]) -> bool:
    """One fault at one operation; returns whether it ended the run."""
    shutil.copytree(fresh, path)
    saved: list[int] = []
    ended, message = False, "Input/output" if fault == "eio" else "space"
    with Disk(fault, at) as disk:
        try:
            train(RunFolder.load(path), saved)
        except Killed:
            ended = True
        except StorageError as error:
            message = str(error)
            ended = True
    assert disk.hit
    assert {"enospc": "space", "eio": "Input/output"}.get(fault, "") in message
    check_visible(RunFolder.load(path), saved)
    check_rerun(path, expected, seen)
    shutil.rmtree(path)
    return ended


AFFECTED = {"torn": ("write",), "short": ("write",), "enospc": ("write", "create", "mkdir")}


def check_operations(fresh: Path, scratch: Path, fault: str, reference, every: int = 1) -> tuple[int, int]:
    """The fault at every n-th operation where it is one; how many were tried, and how many of them ended the run."""
    expected, names = reference
    seen: set[int] = set()
    places = [at for at, name in enumerate(names, start=1) if name in AFFECTED.get(fault, names)][::every]
    return len(places), sum(check_fault(fresh, scratch / fault, fault, at, expected, seen) for at in places)


# Weekly at each operation, as in `tests.faults --full`: each of three saves repeats 42, of which every fifth differs.
@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.heavy), 5])
@pytest.mark.parametrize("fault", ["kill", "torn", "enospc", "eio", "short"])
def test_a_fault_at_any_operation_costs_nothing_that_was_saved(fresh, tmp_path, reference, fault, every):
    tried, ended = check_operations(fresh, tmp_path, fault, reference, every)
    assert len(reference[1]) > 120
    assert ended == {"kill": tried, "torn": tried, "short": 0}.get(fault, ended)
    assert ended > 40 // every or fault in ("torn", "short")


KILLER = """
import os, sys
from pathlib import Path
sys.path[:0] = sys.argv[1:4]
import torch
from disk_faults import Disk
from stage3.runs import RunFolder
from test_checkpoint_faults import train
for at in range(1, int(sys.argv[5]) + 1, 16):
    child = os.fork()
    if child == 0:
        with Disk("sigkill", at):
            train(RunFolder.load(Path(sys.argv[4]) / f"run-{at}"), [])
        os._exit(0)
    print(at, os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs fork and SIGKILL")
def test_real_kills_leave_what_the_simulated_ones_do(fresh, tmp_path, reference):
    expected, names = reference
    operations = len(names)
    for at in range(1, operations + 1, 16):
        shutil.copytree(fresh, tmp_path / f"run-{at}")
    here = Path(__file__).parent
    arguments = [str(here), str(here.parent), str(here.parents[1]), str(tmp_path), str(operations)]
    killer = subprocess.run([sys.executable, "-c", KILLER, *arguments], capture_output=True, text=True, check=True)
    outcomes = [line.split() for line in killer.stdout.splitlines()]
    assert len(outcomes) > 7
    for at, status in outcomes:
        assert int(status) == signal.SIGKILL
        check_visible(RunFolder.load(tmp_path / f"run-{at}"), [])
        check_rerun(tmp_path / f"run-{at}", expected, set())


def check_power_cuts(fresh: Path, scratch: Path, expected: dict[str, str], every: int = 1) -> int:
    """A power cut after every n-th operation, unsynced content lost, zeroed, torn or garbage; how many states."""
    path = shutil.copytree(fresh, scratch / "recorded")
    saved: list[int] = []
    marks: list[tuple[int, int]] = []  # (events so far, last saved step)
    model = PowerModel(path)
    with Disk(root=path) as disk:
        for steps in range(EVERY, STEPS + 1, EVERY):  # three sessions: each save is followed by a resume
            train(RunFolder.load(path), saved, steps)
            marks.append((len(disk.events), steps))
    rng = random.Random(0)
    seen, rerun = set(), set()
    for number, event in enumerate(disk.events, start=1):
        model.apply(*event)
        if number % every:
            continue
        durable_step = max((step for events, step in marks if events <= number), default=0)
        for tree in model.after_power_cut(rng):
            key = (durable_step, hash(tuple(tree.items())))
            if key not in seen:
                seen.add(key)
                found = scratch / f"cut-{len(seen)}"
                write_tree(found, tree)
                check_visible(RunFolder.load(found), [durable_step] if durable_step else [])
                check_rerun(found, expected, rerun)
                shutil.rmtree(found)
    return len(seen)


# Weekly after each operation: they repeat with each of three saves.
@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.heavy), 5])
def test_a_power_cut_at_any_moment_costs_nothing_that_was_saved(fresh, tmp_path, reference, every):
    assert check_power_cuts(fresh, tmp_path, reference[0], every) > 300 // (every + 1)


def test_creating_a_run_is_all_or_nothing(tmp_path):
    with Disk() as disk:
        RunFolder.create(tmp_path / "counted" / "run", Config())
    for fault in ("kill", "enospc", "eio"):
        for at in range(1, disk.count + 1):
            path = tmp_path / f"{fault}-{at}" / "run"
            try:
                with Disk(fault, at):
                    RunFolder.create(path, Config())
            except (Killed, StorageError):
                pass
            run = RunFolder.load(path) if RunFolder.exists(path) else RunFolder.create(path, Config())
            assert run.config == Config()
            assert [p.name for p in path.parent.iterdir()] == ["run"]


# --- damage


def three_checkpoints(fresh: Path, path: Path) -> RunFolder:
    shutil.copytree(fresh, path)
    run = RunFolder.load(path)
    generator = torch.Generator().manual_seed(0)
    for step in (2, 4, 6):
        model = {"w": torch.randn(20, 8, generator=generator), "count": torch.tensor(step)}
        optimizer = {"w.exp_avg": torch.randn(20, 8, generator=generator)}
        run.save_checkpoint(step, {"model": model, "optimizer": optimizer}, {"epoch": step, "seed": 2**90})
    return run


def damages(folder: Path, older: Path):
    """(file, what it becomes), for every file of a checkpoint; None deletes it."""
    rng = random.Random(1)
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        for _ in range(60):
            bit = rng.randrange(8 * len(data))
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            yield path, bytes(flipped)
        for length in {0, 1, 7, 8, len(data) // 2, len(data) - 1, *(rng.randrange(len(data)) for _ in range(10))}:
            yield path, data[:length]
        yield path, bytes(len(data))
        yield path, data + b"\0"
        yield path, (older / path.name).read_bytes()
        yield path, rng.randbytes(len(data))
        yield path, None


def check_damage(fresh: Path, path: Path) -> int:
    """Every damage to the newest checkpoint is named, and the one before is used; returns how many."""
    run = three_checkpoints(fresh, path)
    newest, older = (run.checkpoints()[i].path for i in (-1, -2))
    whole = run.load_checkpoint(4)
    tried = 0
    for file, broken in damages(newest, older):
        original = file.read_bytes()
        if broken is None:
            file.unlink()
        else:
            file.write_bytes(broken)
        loaded = run.load_checkpoint()
        assert loaded.step == 4
        assert len(loaded.damaged) == 1
        assert file.name in loaded.damaged[0] or file.name == "MANIFEST.json"
        assert newest.name in loaded.damaged[0]
        assert loaded.state == whole.state
        assert all(torch.equal(loaded.tensors["model"][k], v) for k, v in whole.tensors["model"].items())
        with pytest.raises(StorageError, match=newest.name):
            run.load_checkpoint(6)
        assert damage(run.checkpoints()[-1])
        file.write_bytes(original)
        tried += 1
    assert run.load_checkpoint().step == 6
    return tried


def test_damage_to_the_newest_checkpoint_is_named_and_the_one_before_is_used(fresh, tmp_path):
    assert check_damage(fresh, tmp_path / "run") > 250


def test_when_every_checkpoint_is_damaged_nothing_restarts_silently(fresh, tmp_path):
    run = three_checkpoints(fresh, tmp_path / "run")
    for checkpoint in run.checkpoints():
        (checkpoint.path / "MANIFEST.json").unlink()
    assert len(run.checkpoints()) == 3
    with pytest.raises(StorageError, match=r"step-00000006.*step-00000004.*step-00000002"):
        run.load_checkpoint()
    assert run.prune(1) == []


def test_pruning_counts_only_whole_checkpoints_and_keeps_the_best(fresh, tmp_path):
    run = three_checkpoints(fresh, tmp_path / "run")
    (run.path / "checkpoints" / "step-00000006" / "model.safetensors").write_bytes(b"damaged")
    assert run.prune(1) == [2]
    assert run.load_checkpoint().step == 4
    run.set_best(4, 0.5, "score")
    for step in (8, 10):
        run.save_checkpoint(step, {"model": {"w": torch.ones(2)}}, {})
    assert run.prune(0) == []
    assert run.prune(1) == [8, 6]
    assert [c.step for c in run.checkpoints()] == [4, 10]


def test_a_checkpoint_saved_again_is_replaced_whole_at_any_fault(fresh, tmp_path):
    """The only checkpoint is saved again with other weights: one of the two loads, whatever happens."""

    def prepared(path: Path) -> RunFolder:
        run = RunFolder.load(shutil.copytree(fresh, path))
        run.save_checkpoint(2, {"model": {"w": torch.zeros(2)}}, {})
        return run

    with Disk() as disk:
        prepared(tmp_path / "counted").save_checkpoint(2, {"model": {"w": torch.ones(2)}}, {})
    for fault in ("kill", "eio", "enospc"):
        for at in range(1, disk.count + 1):
            with Disk():
                run = prepared(tmp_path / f"{fault}-{at}")
            try:
                with Disk(fault, at):
                    run.save_checkpoint(2, {"model": {"w": torch.ones(2)}}, {})
                loads = {1.0}
            except (Killed, StorageError):
                loads = {0.0, 1.0}
            assert run.load_checkpoint().tensors["model"]["w"].tolist()[0] in loads
            with Disk():
                run.save_checkpoint(2, {"model": {"w": torch.ones(2)}}, {})
                run.prune(1)
            assert [p.name for p in (run.path / "checkpoints").iterdir()] == ["step-00000002"]
            assert run.load_checkpoint().tensors["model"]["w"].tolist() == [1.0, 1.0]


# --- the harness catches planted bugs: weekly but for one of each kind, since they look at these tests alone


def plant(monkeypatch, name, replacement):
    """Replace a function in every module that imported it."""
    for module in (storage, checkpoints, folder, metrics_file):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, replacement)


def no_rename(monkeypatch):
    def write(self, scratch, step, files):
        return original(self, self.path / f"step-{step:08d}", step, files)

    original = CheckpointFolder._write
    monkeypatch.setattr(CheckpointFolder, "_write", write)
    monkeypatch.setattr(CheckpointFolder, "_publish", lambda self, scratch, target: None)


def no_checksum(monkeypatch):
    plant(monkeypatch, "check_content", lambda *args: None)


def length_only(monkeypatch):
    whole = checkpoints.check_content
    plant(monkeypatch, "check_content", lambda path, entry, size, sha256: whole(path, entry, size, entry["sha256"]))


def prune_before_save(monkeypatch):
    def save(self, step, tensors, state):
        best = self.best()
        for checkpoint in self.checkpoints():
            if best and checkpoint.step != best.step:
                storage.remove(checkpoint.path)
        return original(self, step, tensors, state)

    original = RunFolder.save_checkpoint
    monkeypatch.setattr(RunFolder, "save_checkpoint", save)


def delete_in_place(monkeypatch):
    monkeypatch.setattr(CheckpointFolder, "_delete", lambda self, path: storage.remove(path))


def rewrite_in_place(monkeypatch):
    def replace(path, data, *, durable=True):
        path.unlink(missing_ok=True)
        checkpoints.write_new(path, data)

    plant(monkeypatch, "replace_file", replace)


def metrics_not_cut(monkeypatch):
    monkeypatch.setattr(RunFolder, "cut_metrics", lambda self, step: 0)


def metrics_not_synced(monkeypatch):
    monkeypatch.setattr(RunFolder, "_sync_metrics", lambda self: None)


def files_not_synced(monkeypatch):
    def write(path, data, *, durable=True):
        return original(path, data, durable=False)

    original = checkpoints.write_new
    plant(monkeypatch, "write_new", write)


def folders_not_synced(monkeypatch):
    plant(monkeypatch, "sync_folder", lambda path: None)


def leftovers_stay(monkeypatch):
    plant(monkeypatch, "clear_scratch", lambda *args, **kwargs: None)


def errors_unnamed(monkeypatch):
    import contextlib

    plant(monkeypatch, "storing", lambda path: contextlib.nullcontext())


KILLS = (no_rename, prune_before_save, delete_in_place, rewrite_in_place, metrics_not_cut, leftovers_stay)


def one_now(bugs):
    """The first of some bugs, and the others weekly."""
    return [pytest.param(bug, id=bug.__name__, marks=[pytest.mark.heavy] * (bug != bugs[0])) for bug in bugs]


@pytest.mark.parametrize("bug", one_now(KILLS))
def test_kills_catch(fresh, tmp_path, reference, monkeypatch, bug):
    bug(monkeypatch)
    expected, _ = reference
    path = shutil.copytree(fresh, tmp_path / "undisturbed")
    with Disk() as disk:
        train(RunFolder.load(path), [])
    assert content(path) == expected  # nobody sees the bug until something goes wrong
    with pytest.raises((AssertionError, StorageError)):
        check_operations(fresh, tmp_path, "kill", (expected, disk.names))


def test_a_full_disk_catches_errors_that_name_nothing(fresh, tmp_path, reference, monkeypatch):
    errors_unnamed(monkeypatch)
    with pytest.raises(OSError, match=r"^.Errno 28. No space left on device$"):
        check_operations(fresh, tmp_path, "enospc", reference)


@pytest.mark.parametrize("bug", one_now([files_not_synced, metrics_not_synced, folders_not_synced]))
def test_power_cuts_catch(fresh, tmp_path, reference, monkeypatch, bug):
    bug(monkeypatch)
    with pytest.raises((AssertionError, StorageError)):
        check_power_cuts(fresh, tmp_path, reference[0])


@pytest.mark.parametrize("bug", one_now([length_only, no_checksum]))
def test_damage_catches(fresh, tmp_path, monkeypatch, bug):
    bug(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check_damage(fresh, tmp_path / "run")


def test_the_failing_disk_leaves_os_as_it_found_it():
    import os

    before = {name: getattr(os, name) for name in disk_faults.COUNTED}
    with Disk("kill", 1), pytest.raises(Killed):
        Path("never-made").mkdir()
    assert {name: getattr(os, name) for name in disk_faults.COUNTED} == before
    assert not Path("never-made").exists()
    assert Lock is storage.Lock
