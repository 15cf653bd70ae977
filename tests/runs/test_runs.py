"""The run directory: what opens, who writes, what survives, and which checkpoint files are refused."""

import importlib
import io
import json
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from stage3.config import Config
from stage3.errors import ConfigError, DataError, StorageError
from stage3.runs import Best, RunFolder, Status, list_broken, list_runs
from stage3.storage import sha256

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "runs" / "first", Config(dim=64, seed=3))


# --- the folder


def test_a_new_run_opens_as_what_it_was_made_of(run):
    again = RunFolder.load(run.path)
    assert (again.name, again.config) == ("first", Config(dim=64, seed=3))
    assert again.status == Status(updated=again.status.updated)
    assert (again.checkpoints(), again.best(), again.is_live, again.stop_requested) == ([], None, False, False)
    environment = again.read_json("environment.json")
    assert environment["versions"]["torch"] == torch.__version__
    assert str(Path.home()) not in json.dumps(environment)


def test_a_run_is_made_in_a_new_or_an_empty_folder_only(run, tmp_path):
    with pytest.raises(ConfigError, match="is already a run"):
        RunFolder.create(run.path, Config())
    (tmp_path / "mine").mkdir()
    RunFolder.create(tmp_path / "mine", Config())
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("precious", encoding="utf-8")
    with pytest.raises(ConfigError, match="is not an empty folder"):
        RunFolder.create(tmp_path / "thesis", Config())
    with pytest.raises(ConfigError, match="is not an empty folder"):
        RunFolder.create(tmp_path / "thesis" / "chapter.txt", Config())
    assert [p.name for p in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (None, "no config.yaml"),
        ("lr: -1\n", "out of range"),
        ("learning_rat: 1\n", "unknown setting"),
        ("- 1\n", "found a list"),
        ("a: [", "not readable as YAML"),
        ("a: !!python/object/apply:os.getcwd []\n", "not readable as YAML"),
        ("[" * 5000, "deep"),
        ("#" * 2**21, "more than"),
    ],
    ids=range(8),
)
def test_a_folder_that_is_no_run_says_why(run, settings, reason):
    path = run.path / "config.yaml"
    path.unlink()
    if settings is not None:
        path.write_text(settings, encoding="utf-8")
    with pytest.raises(DataError, match=reason):
        RunFolder.load(run.path)
    assert list_runs([run.path.parent]) == []
    [(broken, why)] = list_broken([run.path.parent])
    assert broken == run.path
    assert reason in why


def test_backbones_that_lie_in_a_run_are_named_by_where_it_is_now(tmp_path):
    names = {"vision_backbone": "backbones/a+backbones/b", "text_backbone": "backbones/c"}
    run = RunFolder.create(tmp_path / "first", Config(**names))
    assert RunFolder.load(run.path).config.vision_backbone == names["vision_backbone"]  # Hugging Face ids, so far
    moved = tmp_path / "second"
    run.path.rename(moved)
    for name in "abc":
        (moved / "backbones" / name).mkdir(parents=True)
    config = RunFolder.load(moved).config
    inside = (moved / "backbones").resolve()
    assert config.vision_backbone == f"{inside / 'a'}+{inside / 'b'}"
    assert config.text_backbone == str(inside / "c")
    assert "vision_backbone: backbones/a+backbones/b\n" in (moved / "config.yaml").read_text()
    RunFolder.load(moved).write_config(Config(vision_backbone="tiny+backbones/a", text_backbone="backbones/d"))
    config = RunFolder.load(moved).config
    assert config.vision_backbone == f"tiny+{inside / 'a'}"  # beside one that every machine has
    assert config.text_backbone == "backbones/d"  # not in this run


def test_the_one_checkpoint_of_a_converted_run_is_the_best_without_a_value(run):
    run.set_best(0, math.nan, "")
    best = run.best()
    assert (best.step, best.metric) == (0, "")
    assert math.isnan(best.value)
    run.write_json("best", {"step": 0, "value": None, "metric": "loss/total"})
    with pytest.raises(StorageError, match="damaged, needs a step and a value"):
        run.best()


def test_runs_are_listed_last_active_first_and_foreign_folders_are_not_broken_runs(tmp_path):
    for name in ("a", "b", "c"):
        RunFolder.create(tmp_path / name, Config())
        time.sleep(0.005)
    RunFolder.load(tmp_path / "a").set_status("finished")
    (tmp_path / "images").mkdir()
    (tmp_path / ".tmp-d-1").mkdir()
    assert [run.name for run in list_runs([tmp_path])] == ["a", "c", "b"]
    assert [run.name for run in list_runs([tmp_path / "b", tmp_path / "missing"])] == ["b"]
    assert list_broken([tmp_path]) == []


def test_listing_runs_imports_neither_torch_nor_pandas(run):
    heavy = {"torch", "pandas", "safetensors", "numpy", "stage3.model.objectives", "streamlit"}
    code = "import sys; from stage3.runs import list_runs; print(len(list_runs(sys.argv[1:]))); "
    code += f"print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code, run.path.parent], cwd=ROOT, capture_output=True, text=True)
    assert out.stdout.split("\n")[:2] == ["1", "[]"], out.stderr


# --- status, stop, log


def test_status_keeps_what_is_not_changed(run):
    run.set_status("running", total_steps=40)
    began = run.status.started
    time.sleep(0.002)
    run.set_status(step=7, best_value=math.nan)
    run.set_status("running")
    status = RunFolder.load(run.path).status
    assert (status.state, status.step, status.total_steps, status.best_value) == ("running", 7, 40, None)
    assert status.pid == os.getpid()
    assert began == status.started < status.updated
    with pytest.raises(TypeError, match="stpe"):
        run.set_status(stpe=8)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"state": "flying"}', '{"step": "x"}', '{"step": 1, "step": 2}'])
def test_a_damaged_status_says_so_and_the_run_still_opens(run, text):
    (run.path / "status.json").write_text(text, encoding="utf-8")
    again = RunFolder.load(run.path)
    assert again.status.state == "failed"
    assert "damaged" in again.status.message
    assert again.set_status("running").state == "running"


def test_a_request_to_stop_is_seen_by_others_and_can_be_withdrawn(run):
    other = RunFolder.load(run.path)
    run.request_stop()
    assert other.stop_requested
    other.clear_stop()
    other.clear_stop()
    assert not run.stop_requested


def test_the_log_is_one_clean_line_an_entry(run):
    run.log("begin\x1b[31m red\nforged line\r\x00")
    run.log("page ‘é’")
    first, second = (run.path / "train.log").read_text(encoding="utf-8").splitlines()
    assert first.split(" ", 1)[1] == "begin\ufffd[31m red forged line\ufffd\ufffd"
    assert second.endswith("page ‘é’")


@pytest.mark.parametrize("name", ["../status", "a/b", "", ".hidden", "a\n", "C:\\x", "x" * 300])
def test_names_of_json_files_stay_in_the_run(run, name):
    with pytest.raises(ValueError, match="cannot name a file"):
        run.write_json(name, {})


def test_json_files_read_back_and_damage_is_named(run):
    run.write_json("data_report", {"pages": 3, "share": math.inf, "names": ["é"]})
    assert run.read_json("data_report.json") == {"pages": 3, "share": None, "names": ["é"]}
    (run.path / "data_report.json").write_text('{"a": NaN}', encoding="utf-8")
    with pytest.raises(StorageError, match=r"data_report.json: damaged.*NaN"):
        run.read_json("data_report")
    run.set_best(4, 0.5, "loss/total")
    assert run.best() == Best(4, 0.5, "loss/total")
    (run.path / "best.json").write_text("{}", encoding="utf-8")
    with pytest.raises(StorageError, match=r"best.json: damaged"):
        run.best()
    run.clear_best()
    assert run.best() is None


# --- metrics


def test_metrics_have_their_columns_before_the_first_row(run):
    frame = run.metrics()
    assert list(frame.columns) == ["step", "epoch", "split"]
    assert len(frame) == 0


def test_metrics_read_back_as_numbers_with_null_as_nan(run):
    run.append_metrics({"step": 1, "epoch": 0, "split": "train", "loss/total": torch.tensor(0.5), "x": math.nan})
    run.append_metrics({"step": 2, "epoch": 0, "split": "val", "loss/total": 0.25, "x": math.inf})
    frame = run.metrics()
    assert frame["step"].tolist() == [1, 2]
    assert frame["loss/total"].tolist() == [0.5, 0.25]
    assert frame["x"].dtype == "float64"
    assert frame["x"].isna().all()
    assert frame[frame["split"] == "val"]["step"].tolist() == [2]


def test_a_torn_line_is_left_out_and_the_next_row_does_not_join_it(run):
    for step in (1, 2):
        run.append_metrics({"step": step})
    path = run.path / "metrics.jsonl"
    whole = path.read_bytes()
    for torn in (b"{", b'{"step": 3', b'{"step": 3}', b"\xff" * 9000):
        path.write_bytes(whole + torn)
        assert run.metrics()["step"].tolist() == [1, 2]
        assert run.metrics().attrs["damaged_lines"] == 0
        run.append_metrics({"step": 3})
        assert path.read_bytes() == whole + b'{"step": 3}\n'


def test_cutting_metrics_keeps_the_bytes_of_what_stays(run):
    path = run.path / "metrics.jsonl"
    assert run.cut_metrics(5) == 0
    path.write_bytes(b'{"step":  1}\n{"step": 2.0}\ngarbage\n{"no step": 7}\n{"step": 3}\n{"step": 4')
    assert run.metrics().attrs["damaged_lines"] == 1
    assert run.cut_metrics(2) == 3
    assert path.read_bytes() == b'{"step":  1}\n{"step": 2.0}\n{"no step": 7}\n'
    assert run.cut_metrics(2) == 0


# --- the lock

HOLDER = """
import sys, time
from stage3.runs import RunFolder
run = RunFolder.load(sys.argv[1])
with run.lock():
    run.set_status("running")
    {inside}
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(run: RunFolder, inside: str = "pass") -> subprocess.Popen:
    code = HOLDER.format(inside=inside)
    command, pipe = [sys.executable, "-c", code, run.path], subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_a_second_process_is_refused_by_name_and_a_killed_holder_frees_the_lock(run):
    with holder(run) as process:
        assert process.stdout.readline() == "held\n"
        assert run.is_live
        with pytest.raises(StorageError, match=f"process {process.pid} on"), run.lock():
            pass
        process.kill()
        process.wait()
    assert run.status.state == "running"
    assert not run.is_live
    with run.lock():
        assert RunFolder.load(run.path).is_live
    assert not run.is_live


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork")
def test_a_forked_worker_does_not_keep_a_killed_holders_lock(run):
    fork = "import os; child = os.fork(); child or time.sleep(60); print(child)"
    with holder(run, fork) as process:
        worker = int(process.stdout.readline())
        process.kill()
        process.wait()
        os.kill(worker, 0)  # it lives
        with run.lock():
            pass
        os.kill(worker, signal.SIGKILL)


def test_of_many_that_start_at_once_exactly_one_gets_the_run(run):
    several = [holder(run) for _ in range(4)]
    until = time.monotonic() + 60
    while sum(process.poll() is None for process in several) > 1:
        assert time.monotonic() < until
        time.sleep(0.02)
    outputs = [process.communicate() for process in several]  # which ends the one that holds it
    assert sorted(out for out, _ in outputs) == ["", "", "", "held\n"]
    assert all("in use by" in err for out, err in outputs if not out)


def test_one_process_cannot_hold_a_run_twice_and_an_error_inside_frees_it(run):
    with run.lock(), pytest.raises(StorageError, match=f"process {os.getpid()}"), RunFolder.load(run.path).lock():
        pass
    with pytest.raises(KeyError), run.lock():
        raise KeyError
    with RunFolder.load(run.path).lock():
        pass


# --- checkpoints


def tensors():
    generator = torch.Generator().manual_seed(0)
    model = {
        "weight": torch.randn(5, 4, generator=generator),
        "transposed": torch.randn(3, 7, generator=generator).T,
        "half": torch.randn(9, generator=generator).to(torch.bfloat16),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "mask": torch.tensor([True, False]),
    }
    return {"model": model, "optimizer": {"step": torch.tensor(3), "tied": model["weight"]}}


def test_a_checkpoint_reads_back_bit_for_bit(run):
    state = {"epoch": 2, "bits": 2**127 + 1, "best": 0.1 + 0.2, "name": "é", "nested": {"list": [1, None, True]}}
    path = run.save_checkpoint(12, tensors(), state)
    assert path == run.path / "checkpoints" / "step-00000012"
    loaded = run.load_checkpoint()
    assert (loaded.step, loaded.state, loaded.path, loaded.damaged) == (12, state, path, [])
    for group, members in tensors().items():
        assert loaded.tensors[group].keys() == members.keys()
        for name, tensor in members.items():
            found = loaded.tensors[group][name]
            assert found.dtype == tensor.dtype
            assert torch.equal(found, tensor)


def test_the_same_state_gives_the_same_fingerprint_and_another_bit_another(run, tmp_path):
    other = RunFolder.create(tmp_path / "runs" / "second", Config())
    run.save_checkpoint(1, tensors(), {"epoch": 1})
    other.save_checkpoint(1, tensors(), {"epoch": 1})
    assert run.fingerprint(1) == other.fingerprint(1)
    other.save_checkpoint(1, tensors(), {"epoch": 2})
    assert run.fingerprint(1) != other.fingerprint(1)


def test_what_json_would_change_is_refused_before_anything_is_written(run):
    with pytest.raises(ValueError, match="JSON"):
        run.save_checkpoint(1, tensors(), {"best": math.nan})
    with pytest.raises(ValueError, match="cannot name a group"):
        run.save_checkpoint(1, {"../model": {}}, {})
    assert not (run.path / "checkpoints").exists()


def test_a_step_that_is_not_there_lists_those_that_are(run):
    with pytest.raises(StorageError, match="no checkpoint yet") as caught:
        run.load_checkpoint()
    assert caught.value.exit_code == 2  # asked too early; nothing is damaged
    for step in (3, 100000000):
        run.save_checkpoint(step, tensors(), {})
    with pytest.raises(StorageError, match="no checkpoint of step 4; available: 3, 100000000") as caught:
        run.load_checkpoint(4)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused(run, value):
    run.save_checkpoint(1, tensors(), {})
    bad = tensors()
    bad["model"]["weight"][1, 2] = value
    run.save_checkpoint(2, bad, {})
    loaded = run.load_checkpoint()
    assert loaded.step == 1
    assert "step-00000002" in loaded.damaged[0]
    assert "weight" in loaded.damaged[0]


# --- files that somebody else made: the manifest vouches for them, the content is hostile


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def forge(run: RunFolder, content: dict[str, bytes], **changes) -> Path:
    """A checkpoint of step 5 with any content and a manifest that agrees with it."""
    folder = run.path / "checkpoints" / "step-00000005"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    content = {"state.json": b"{}", **content}
    entries = {n: {"bytes": len(d), "sha256": sha256(d)} for n, d in content.items()}
    for name, data in content.items():
        (folder / name).write_bytes(data)
    (folder / "MANIFEST.json").write_text(json.dumps({"format": 1, "step": 5, "files": entries, **changes}), "utf-8")
    return folder


def with_header(header, body=bytes(16), length=None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + body


def entry(dtype="F32", shape=(4,), offsets=(0, 16), **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


MALFORMED = {
    "nothing": b"",
    "seven bytes": bytes(7),
    "header longer than the file": with_header({"a": entry()}, length=10**6),
    "header of 2^63 bytes": with_header({"a": entry()}, length=2**63),
    "no JSON": with_header(b"not json"),
    "a list": with_header(b"[]"),
    "deep nesting": with_header(b'{"a":' + b"[" * 100_000),
    "a name twice": with_header(b'{"a": 1, "a": 2}'),
    "entry is null": with_header({"a": None}),
    "unknown dtype": with_header({"a": entry("X32")}),
    "dtype is a list": with_header({"a": entry(["F32"])}),
    "negative size": with_header({"a": entry(shape=(-4,))}),
    "fractional size": with_header({"a": entry(shape=(4.0,))}),
    "true as a size": with_header({"a": entry(shape=(True, 4))}),
    "2^40 numbers": with_header({"a": entry(shape=(2**20, 2**20))}),
    "sizes that overflow": with_header({"a": entry(shape=(2**32, 2**32, 4))}),
    "huge empty": with_header({"a": entry(shape=(0, 2**62), offsets=(0, 0))}, b""),
    "offsets beyond the file": with_header({"a": entry(shape=(400,), offsets=(0, 1600))}),
    "offsets backwards": with_header({"a": entry(offsets=(16, 0))}),
    "a gap": with_header({"a": entry(shape=(2,), offsets=(8, 16))}),
    "overlapping": with_header({"a": entry(), "b": entry()}),
    "bytes left over": with_header({"a": entry()}, bytes(20)),
    "offsets missing": with_header({"a": {"dtype": "F32", "shape": [4]}}),
    "unknown field": with_header({"a": entry(stride=[0])}),
    "17 dimensions": with_header({"a": entry(shape=(1,) * 16 + (4,))}),
    "NaN in the header": with_header(b'{"a": NaN}'),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_safetensors_are_refused_by_name(run, data):
    forge(run, {"model.safetensors": data})
    with pytest.raises(StorageError, match=r"model.safetensors"):
        run.load_checkpoint(5)


def test_the_forged_checkpoint_loads_when_nothing_is_wrong_with_it(run):
    forge(
        run, {"model.safetensors": with_header({"a": entry()}), "optimizer.safetensors": save(tensors()["optimizer"])}
    )
    assert run.load_checkpoint(5).tensors["model"]["a"].tolist() == [0.0] * 4


def test_nothing_that_is_a_pickle_is_opened(run, tmp_path):
    canary = tmp_path / "canary"
    archive, zipped = io.BytesIO(), io.BytesIO()
    torch.save({"w": torch.ones(2), "x": Canary(canary)}, archive)
    with zipfile.ZipFile(zipped, "w") as file:
        file.writestr("data.pkl", pickle.dumps(Canary(canary)))
    for protocol in range(6):
        forge(run, {"model.safetensors": pickle.dumps(Canary(canary), protocol)})
        with pytest.raises(StorageError, match=r"model.safetensors"):
            run.load_checkpoint(5)
    for data in (archive.getvalue(), zipped.getvalue()):
        forge(run, {"model.safetensors": data})
        with pytest.raises(StorageError, match=r"model.safetensors"):
            run.load_checkpoint(5)
        forge(run, {"model.pt": data})
        with pytest.raises(StorageError, match=r"'model.pt' is not a file of a checkpoint"):
            run.load_checkpoint(5)
    assert not canary.exists()


class Calls:
    """Unpickled, it calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def legacy(value) -> bytes:
    data = io.BytesIO()
    torch.save(value, data, _use_new_zipfile_serialization=False)
    return data.getvalue()


def archive(*members: tuple[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members:
            file.writestr(name, content)
    return data.getvalue()


def tarred(name: str, content: bytes) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as file:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        file.addfile(info, io.BytesIO(content))
    return data.getvalue()


def scripted() -> bytes:
    data = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.Linear(1, 1), torch.zeros(1, 1)), data)
    return data.getvalue()


def hostile(canary: Path) -> dict[str, bytes]:
    touch = f"open({str(canary)!r}, 'w')"
    shell = f"touch {canary}"
    calls = {
        "os.system": Calls(os.system, shell),
        "eval": Calls(eval, touch),
        "subprocess": Calls(subprocess.call, ["touch", str(canary)]),
        "import": Calls(importlib.import_module, "this"),
        "getattr": Calls(getattr, Calls(importlib.import_module, "os"), "system"),
    }
    plain = {case: pickle.dumps(call) for case, call in calls.items()}
    return {
        **plain,
        **{f"{case}-legacy": legacy({"w": torch.ones(2), "x": call}) for case, call in calls.items()},
        "tarred": tarred("pickle", plain["os.system"]),
        "torchscript": warnings_aside(scripted),
        "huge bytearray": pickle.dumps(Calls(bytearray, 2**31)),
        "torch archive": archive(("archive/data.pkl", plain["os.system"]), ("archive/data/0", bytes(2**24))),
        "huge strides": legacy(torch.as_strided(torch.zeros(1), (2**20, 2**20), (0, 0))),
    }


def warnings_aside(make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        return make()


def test_hostile_files_are_refused_under_every_name_and_nothing_runs(run, tmp_path):
    canary = tmp_path / "canary"
    run.save_checkpoint(4, tensors(), {})
    before = set(sys.modules)
    cases = hostile(canary)
    assert max(len(data) for case, data in cases.items() if case in ("huge bytearray", "huge strides")) < 1000
    for case, data in cases.items():
        for name, reason in (
            ("model.safetensors", "model.safetensors"),
            ("model.pt", "is not a file"),
            ("x.pkl", "is no"),
        ):
            forge(run, {name: data})
            with pytest.raises(StorageError, match=reason):
                run.load_checkpoint(5)
            loaded = run.load_checkpoint()
            assert loaded.step == 4, case
            assert len(loaded.damaged) == 1
    assert not canary.exists()
    assert "this" not in set(sys.modules) - before


def test_a_pickled_metadata_file_beside_a_checkpoint_is_never_opened(run, tmp_path):
    canary = tmp_path / "canary"
    forge(run, {".metadata": pickle.dumps(Calls(os.system, f"touch {canary}")), "__0_0.distcp": b"x"})
    with pytest.raises(StorageError, match="is not a file of a checkpoint"):
        run.load_checkpoint(5)
    folder = run.save_checkpoint(5, tensors(), {})
    (folder / ".metadata").write_bytes(pickle.dumps(Calls(os.system, f"touch {canary}")))
    assert run.load_checkpoint().step == 5
    assert not canary.exists()


@pytest.mark.parametrize("name", ["../../config.yaml", "/etc/passwd", "..", "a/model.safetensors", "C:\\x.safetensors"])
def test_a_manifest_cannot_name_files_elsewhere(run, name):
    forge(run, {}, files={name: {"bytes": 1, "sha256": ""}, "state.json": {"bytes": 2, "sha256": ""}})
    with pytest.raises(StorageError, match="is not a file of a checkpoint"):
        run.load_checkpoint(5)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": 2}, "newer than"),
        ({"format": "1"}, "damaged"),
        ({"format": None}, "damaged"),
        ({"step": 6}, "belongs to step 6"),
        ({"files": []}, "damaged"),
        ({"files": {"state.json": 5}}, "no length"),
        ({"files": {"state.json": {"bytes": "2"}}}, "no length"),
        ({"files": {"state.json": {"bytes": 2}}}, "SHA-256 differs"),
        ({"files": {"state.json": {"bytes": 10**15, "sha256": ""}}}, "1,000,000,000,000,000"),
    ],
)
def test_manifests_of_the_future_and_of_nobody_are_refused(run, changes, reason):
    forge(run, {}, **changes)
    with pytest.raises(StorageError, match=reason):
        run.load_checkpoint(5)


@pytest.mark.parametrize("state", [b"[]", b"{", b'{"a": NaN}', b'{"a": 1, "a": 2}', b'{"a":' + b"9" * 5000 + b"}"])
def test_the_state_is_strict_json(run, state):
    forge(run, {"state.json": state})
    with pytest.raises(StorageError, match=r"state.json: damaged"):
        run.load_checkpoint(5)


def test_a_state_or_file_of_absurd_size_is_refused_unread(run):
    folder = forge(run, {})
    with (folder / "state.json").open("r+b") as file:
        file.truncate(2**40)  # sparse: takes no room
    start = time.monotonic()
    with pytest.raises(StorageError, match=r"state.json: 1,099,511,627,776 bytes"):
        run.load_checkpoint(5)
    assert time.monotonic() - start < 1


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_links_and_pipes_are_not_followed(run, tmp_path):
    run.save_checkpoint(5, tensors(), {})
    folder = run.path / "checkpoints" / "step-00000005"
    outside = shutil.copytree(folder, tmp_path / "outside")
    for make in (lambda path: path.symlink_to(outside / path.name), os.mkfifo, Path.mkdir):
        (folder / "model.safetensors").unlink()
        make(folder / "model.safetensors")
        with pytest.raises(StorageError, match="not a regular file"):
            run.load_checkpoint(5)
        (folder / "model.safetensors").rmdir() if make is Path.mkdir else (folder / "model.safetensors").unlink()
        shutil.copy(outside / "model.safetensors", folder)
    (run.path / "checkpoints" / "step-00000009").symlink_to(outside)
    assert [c.step for c in run.checkpoints()] == [5]
    run.prune(1)
    (run.path / "status.json").unlink()
    (run.path / "status.json").symlink_to(outside / "state.json")
    assert "not a regular file" in run.status.message
    assert sorted(p.name for p in outside.iterdir()) == sorted(p.name for p in folder.iterdir())


def test_pruning_clears_what_dead_writers_left_and_spares_the_living(run):
    run.save_checkpoint(1, tensors(), {})
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    alive = os.getppid()
    for folder in (run.path, run.path / "checkpoints"):
        for pid in (dead.pid, alive, os.getpid()):
            (folder / f".tmp-x-{pid}").mkdir()
    run.prune(1)
    assert sorted(p.name for p in run.path.rglob(".tmp-*")) == [f".tmp-x-{alive}"] * 2
    with run.lock():  # whoever holds the lock is the only writer of checkpoints
        run.prune(1)
    assert [p.parent.name for p in run.path.rglob(".tmp-*")] == ["first"]
