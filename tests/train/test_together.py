"""Several processes train one model: the same gradients, one writer, and an end for all when one is gone."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import forked
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stage3.errors import ConfigError
from stage3.peers import ALONE, Peers, joined
from stage3.runs import RunFolder
from tests import peers_world

pytestmark = pytest.mark.slow

SETTINGS = ["--data", "data/samples", "--dropout", "0", "--feature_noise", "0", "--dim", "64"]
SETTINGS += ["--batch_pages", "64", "--epochs"]


def start(size: int, module: str, *argv: str) -> list[forked.Process]:
    """Processes that find each other as those of torchrun do, without it."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    shared = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [forked.start(module, argv, RANK=str(r), LOCAL_RANK=str(r), **shared) for r in range(size)]


def ended(processes: list[forked.Process], seconds: float = 300) -> list[tuple[int, str, str]]:
    found = []
    for process in processes:
        out, err = process.communicate(timeout=seconds)
        found.append((process.returncode, out, err))
    return found


TORCHRUN = "torch.distributed.run"


def as_typed(run: Path, *argv: str, restarts: int = 0) -> list[str]:
    """What a person gives torchrun: `--` keeps it from taking `--run` for its own `--run-path`."""
    own = ["--nproc-per-node", "2", f"--max-restarts={restarts}", "--standalone"]
    return [*own, "-m", "--", "stage3.train", "--run", str(run), *argv]


def torchrun(run: Path, *argv: str) -> subprocess.Popen:
    command = [sys.executable, "-m", TORCHRUN, *as_typed(run, *argv)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=-1, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True
    )


def forked_torchrun(run: Path, *argv: str, restarts: int = 0) -> forked.Process:
    return forked.start(TORCHRUN, as_typed(run, *argv, restarts=restarts), OMP_NUM_THREADS="1")


def said(agent: forked.Process | subprocess.Popen) -> str:
    """All that it and its workers wrote, once it has ended."""
    return "".join(filter(None, agent.communicate(timeout=300)))


@pytest.fixture(scope="module")
def one() -> dict:
    return peers_world.everything(ALONE)


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.heavy)])
def several(request, tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp(f"peers{request.param}")
    for code, _, err in ended(start(request.param, "tests.peers_world", str(folder))):
        assert code == 0, err
    return [torch.load(folder / f"{r}.pt", weights_only=False) for r in range(request.param)]


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """Over all gradients, relative to the largest entry of any."""
    scale = max(float(g.abs().max()) for g in a.values())
    return max(float((a[name] - b[name]).abs().max()) for name in a) / scale


def test_w_processes_have_the_gradients_of_one(one, several):
    cases = [name for name in one if " / " in name]
    assert len(cases) > 40
    for name in cases:
        for found in several:
            expected, got = one[name], found[name]
            assert got["signal"] == expected["signal"], name
            assert got["gradients"].keys() == expected["gradients"].keys(), name
            if expected["signal"]:  # bfloat16 keeps 8 bits, so that sums of other orders differ in the second digit
                bound = 2e-2 if name.startswith("bf16") else 1e-5
                assert largest_difference(expected["gradients"], got["gradients"]) < bound, name


def test_losses_and_counts_are_those_of_the_whole_batch(one, several):
    for name in (n for n in one if " / " in n):
        for found in several:
            relative = 1e-2 if name.startswith("bf16") else 1e-5
            assert found[name]["row"] == pytest.approx(one[name]["row"], rel=relative, abs=1e-6, nan_ok=True), name
            assert found[name]["means"] == pytest.approx(one[name]["means"], rel=relative, abs=1e-6), name


def test_batches_without_signal_or_with_fewer_pages_than_processes_are_among_them(one):
    data = peers_world.world()
    of = peers_world.batches(data.panel_set)
    assert not one["corrected / no signal"]["signal"]
    assert len(of["one page"]) == 1
    assert len(of["no signal"]) > 0
    assert one["corrected / no text"]["row"]["active/aligned"] == 0
    assert len(data.panel_set.batch(of["blockwise"])) > 256
    shared = np.bincount(data.features.text_rows[data.features.text_rows >= 0]).max()
    assert shared > 1


def test_validation_gives_the_same_numbers(one, several):
    for found in several:
        for name in ("validation", "noisy validation", "metrics"):
            assert found[name] == pytest.approx(one[name], rel=1e-5, nan_ok=True), name
        for name, tensor in one["embedded"].items():
            assert torch.equal(found["embedded"][name], tensor), name


@given(st.lists(st.integers(1, 9), min_size=0, max_size=20), st.integers(2, 5))
def test_shares_are_the_batch_in_order_and_even(panels, size):
    pages, counts = np.arange(len(panels)) * 7 + 3, np.array(panels, dtype=np.int64)
    shares = [Peers(rank, size).own_share(pages, counts) for rank in range(size)]
    assert np.concatenate(shares).tolist() == pages.tolist()
    of_each = [int(counts[np.isin(pages, share)].sum()) for share in shares]
    assert max(of_each, default=0) <= sum(panels) / size + max(panels, default=0)


def test_one_process_alone_gives_back_what_it_was_given():
    rows = torch.arange(6.0).reshape(3, 2)
    (same,), own = ALONE.gather(rows)
    assert same is rows
    assert own == slice(0, 3)
    assert ALONE.sum([1.5, 2.0]) == [1.5, 2.0]


def test_an_environment_of_several_that_says_not_where_they_are_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=r"RANK is not set.*torchrun"), joined():
        pass


@pytest.mark.parametrize("device", ["cuda:0", "cuda:1"])
def test_one_gpu_for_several_processes_is_refused(device, monkeypatch):
    for name, value in (("WORLD_SIZE", 2), ("RANK", 0), ("LOCAL_RANK", 0), ("MASTER_ADDR", "x"), ("MASTER_PORT", 1)):
        monkeypatch.setenv(name, str(value))
    with pytest.raises(ConfigError, match=f"{device} is one GPU for 2 processes. Give cuda"), joined(lambda: device):
        pass


# --- whole runs


def weights(run: Path) -> dict[str, torch.Tensor]:
    return RunFolder.load(run).load_checkpoint().tensors["model"]


def validations(run: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [r for r in rows if r["split"] == "val"]


def wait_for_step(run: Path, step: int, process: forked.Process | subprocess.Popen) -> None:
    until = time.monotonic() + 120
    while not (run / "checkpoints" / f"step-{step:08d}").is_dir():
        assert process.poll() is None, said(process)
        assert time.monotonic() < until
        time.sleep(0.05)


def workers_of(agent: forked.Process) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(agent.pid)], capture_output=True, text=True, check=True)
    return sorted(int(pid) for pid in found.stdout.split())


def wait_for_end(pids: list[int]) -> None:
    until = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() and "Z" not in _state(pid) for pid in pids):
        assert time.monotonic() < until, "a process outlived its training"
        time.sleep(0.1)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


def test_torchrun_trains_as_one_process_does(tmp_path):
    asked = [*SETTINGS, "2", "--lr", "0.001"]  # AdamW turns last bits into whole steps: these are small
    agent = torchrun(tmp_path / "two", *asked)
    out = said(agent)
    assert agent.returncode == 0, out
    assert out.count("next: python -m stage3.evaluate") == 1  # one process speaks
    alone = forked.start("stage3.train", ["--run", str(tmp_path / "one"), *asked])
    alone.communicate(timeout=300)
    assert alone.returncode == 0
    two, one = weights(tmp_path / "two"), weights(tmp_path / "one")
    apart = sum(float((one[n] - v).square().sum()) for n, v in two.items())
    assert apart / sum(float(v.square().sum()) for v in one.values()) < 1e-7
    for a, b in zip(validations(tmp_path / "one"), validations(tmp_path / "two"), strict=True):
        assert b["loss/total"] == pytest.approx(a["loss/total"], rel=1e-3)
        assert b["active/panels"] == a["active/panels"]
    state = RunFolder.load(tmp_path / "two").load_checkpoint().state
    assert state["processes"] == 2


def test_a_requested_stop_ends_all_and_another_number_of_processes_must_be_allowed(tmp_path):
    run = tmp_path / "run"
    agent = forked_torchrun(run, *SETTINGS, "200", restarts=2)
    wait_for_step(run, 6, agent)
    RunFolder.load(run).request_stop()
    out = said(agent)
    assert agent.returncode == 0, out  # any other code would make torchrun start it again
    status = RunFolder.load(run).status
    assert status.state == "stopped"
    refused = forked.start("stage3.train", ["--run", str(run)])
    _, errors = refused.communicate(timeout=300)
    assert refused.returncode == 4
    assert "processes 2 then, 1 now" in errors
    assert "--allow_inexact_resume" in errors
    alone = forked.start("stage3.train", ["--run", str(run), "--allow_inexact_resume", "--max_minutes", "0.001"])
    out, _ = alone.communicate(timeout=300)
    assert f"resuming {run} after step {status.step}" in out


def test_a_killed_process_ends_all_and_restarts_resume(tmp_path):
    """First one that follows, then the one that leads, of those that took their place."""
    run = tmp_path / "run"
    agent = forked_torchrun(run, *SETTINGS, "10", restarts=2)
    wait_for_step(run, 6, agent)
    workers = workers_of(agent)
    leader = RunFolder.load(run).status.pid
    assert len(workers) == 2
    assert leader in workers
    os.kill(next(p for p in workers if p != leader), signal.SIGKILL)
    wait_for_end(workers)
    killed_at = RunFolder.load(run).status.step
    until = time.monotonic() + 120
    while RunFolder.load(run).status.pid == leader or RunFolder.load(run).status.step <= killed_at:
        assert agent.poll() is None, said(agent)
        assert time.monotonic() < until
        time.sleep(0.02)
    os.kill(RunFolder.load(run).status.pid, signal.SIGKILL)
    out = said(agent)
    assert agent.returncode == 0, out
    assert out.count(f"resuming {run} after step") == 2
    assert RunFolder.load(run).status.state == "finished"
    for code, _, errors in ended(start(2, "stage3.train", "--run", str(tmp_path / "whole"), *SETTINGS, "10")):
        assert code == 0, errors
    assert all(torch.equal(v, weights(run)[n]) for n, v in weights(tmp_path / "whole").items())


def test_a_killed_agent_leaves_no_process_and_a_checkpoint(tmp_path):
    run = tmp_path / "run"
    agent = forked_torchrun(run, *SETTINGS, "200")
    wait_for_step(run, 6, agent)
    workers = workers_of(agent)
    agent.kill()
    said(agent)
    wait_for_end(workers)
    assert RunFolder.load(run).status.state == "stopped"
    assert RunFolder.load(run).checkpoints()


def test_refused_settings_end_all_with_one_message(tmp_path):
    agent = forked_torchrun(tmp_path / "run", "--data", "nowhere")
    out = said(agent)
    assert agent.returncode != 0
    assert out.count("nowhere has no dataset.yaml") == 1, out
    assert not (tmp_path / "run").exists()
