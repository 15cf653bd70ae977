"""What the explorer says of its children from their records alone: no process is started."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.store import children, embeds, jobs, loaders, waiter
from stage3.config import Config
from stage3.errors import ConfigError, StorageError
from stage3.runs import RunFolder
from stage3.storage import Lock


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loaders, "SAMPLES", Path("none"))
    return tmp_path


# --- training


def job(folder: Path, name: str, state: str, started: str, updated: str) -> jobs.Job:
    status = SimpleNamespace(started=started, updated=updated)
    (folder / name).mkdir()
    run: Any = SimpleNamespace(name=name, path=folder / name, status=status, checkpoints=list)
    return jobs.Job(run, "", 1, state, "")


def test_jobs_are_listed_newest_first_and_those_that_can_go_on_by_their_last_word(here, monkeypatch) -> None:
    made = [
        job(here, "waits", "queued", "", "2026-01-02"),  # nothing has started: since it was asked for
        job(here, "new", "stopped", "2026-01-03", "2026-01-04"),
        job(here, "long", "stopped", "2026-01-01", "2026-01-09"),
        job(here, "bare", "stopped", "2026-01-05", "2026-01-08"),
        job(here, "dead", "failed", "2026-01-06", "2026-01-07"),  # without a checkpoint
    ]
    monkeypatch.setattr(jobs, "_jobs", lambda: iter(made))
    assert [j.run.name for j in jobs.jobs()] == ["dead", "bare", "new", "waits", "long"]
    for name in ("new", "long", "dead"):
        (here / name / "status.json").write_text("{}", encoding="utf-8")
    live, stopped = jobs.live_and_stopped(1.0)  # "bare" has no status: it was written at no time
    assert [j.run.name for j in live] == [j.run.name for j in jobs.live()] == ["waits"]
    assert [j.run.name for j in stopped] == ["long", "new"]
    assert jobs.live_and_stopped(2e12)[1] == []


def test_data_sets_are_those_of_runs_and_of_folders_each_once(here, monkeypatch) -> None:
    for name in ("a", "b", "c"):
        (here / "data" / name).mkdir(parents=True)
        (here / "data" / name / "dataset.yaml").touch()
    (here / "data" / "none").mkdir()
    known = ("data/a", str(here / "data" / "b"), "elsewhere", "")
    runs: list[Any] = [SimpleNamespace(run=SimpleNamespace(config=SimpleNamespace(data=data))) for data in known]
    monkeypatch.setattr(loaders, "entries", lambda: runs)
    assert list(loaders.known_data()) == sorted(["data/a", known[1], "data/c", "elsewhere"])


def test_why_a_run_has_no_checkpoint_is_told_with_its_last_words() -> None:
    def told(state: str, message: str = "", *, is_live: bool = False) -> str:
        run: Any = SimpleNamespace(status=SimpleNamespace(state=state, message=message), is_live=is_live)
        return " ".join(loaders.without_checkpoint(run))

    assert told("created").startswith("This run has no checkpoint yet")
    assert told("failed", is_live=True).startswith("This run has no checkpoint yet")
    assert told("finished").startswith("The checkpoints of this run are gone")
    assert "before its first one was written. It said: the disk is full. Train it again" in told(
        "failed", "the disk is full"
    )
    for state, message in (("failed", ""), ("stopped", "canceled")):
        assert "first one was written. Train it again" in told(state, message)


def test_more_seeds_are_named_after_the_run_in_letters_that_a_name_may_have(here, monkeypatch) -> None:
    asked: list[tuple[int, str, str]] = []
    monkeypatch.setattr(jobs, "start", lambda config, name, parent: asked.append((config.seed, name, parent)))
    run = RunFolder.create(here / "_漫画 b!-seed1", Config(seed=1))
    (here / "runs" / "b--seed2").mkdir()
    jobs.start_seeds(run, 2, "samples/first")
    assert asked == [(0, "b--seed0", "samples/first"), (2, "b--seed2-1", "samples/first")]
    jobs.start_seeds(RunFolder.create(here / ("x" * 60), Config(seed=0)), 1)
    assert asked[2:] == [(1, "x" * 45 + "-seed1", "")]


def test_what_a_job_does_is_told_by_its_record_its_process_and_its_status(here, monkeypatch) -> None:
    alive = [True]
    monkeypatch.setattr(children, "is_alive", lambda record: alive[0] and record["pid"] == 2**22)
    run = RunFolder.create(here / "runs" / "one", Config())
    status = run.set_status("created", updated="2026-01-01T00:00:00+00:00")

    def told(**record: object) -> tuple[str, str]:
        run.write_json("job", {"pid": 2**22, "parent": "samples/first", "seen": status.updated, **record})
        found = jobs.read(run)
        assert (found.run, found.parent, found.pid) == (run, "samples/first", 2**22)
        return found.state, found.message

    long_ago, just_now = 1.0, time.time()
    run.write_json("queued", {"ticket": "1"})
    assert told(started=long_ago) == ("queued", "")
    (run.path / "queued.json").unlink()
    assert told(started=long_ago) == ("starting", "")
    (run.path / "console.log").write_text("\n".join("abcdefg"), encoding="utf-8")
    assert jobs.tail(run) == "a\nb\nc\nd\ne\nf\ng"
    alive[0] = False
    assert told(started=just_now) == ("failed", "c\nd\ne\nf\ng")
    status = run.set_status("running", message="epoch 1", updated="2026-01-01T00:00:01+00:00")
    assert told(started=just_now) == ("failed", "the process died; see its log")
    alive[0] = True  # it goes on after it was resumed: what it says is what the process before it said
    assert told(started=just_now) == ("starting", "")
    assert told(started=long_ago) == ("running", "epoch 1")
    assert told(started=just_now, seen="earlier") == ("failed", "the process died; see its log")
    with run.lock():
        assert told(started=just_now) == ("running", "epoch 1")
    run.set_status("stopped", message="canceled")
    assert told(started=just_now, seen="earlier") == ("stopped", "canceled")
    for pid in (0, -1, "5", None, 2**22 + 1):
        run.write_json("job", {"pid": pid, "parent": ""})
        with pytest.raises(StorageError):
            jobs.read(run)


def test_jobs_are_the_runs_with_a_record_in_the_order_of_their_records(here, monkeypatch) -> None:
    monkeypatch.setattr(children, "is_alive", lambda record: False)
    for at, name in enumerate(("late", "early", "bad", ".hidden")):
        run = RunFolder.create(here / "runs" / name, Config())
        run.write_json("job", {"pid": 5 if name != "bad" else "x", "parent": name})
        os.utime(run.path / "job.json", ns=(10**9 * (9 - at), 10**9 * (9 - at)))
    RunFolder.create(here / "runs" / "trained-in-a-shell", Config())
    (here / "runs" / "no-run").mkdir()
    (here / "runs" / "no-run" / "job.json").write_text("{}", encoding="utf-8")
    found = list(jobs._jobs())
    assert [(job.run.name, job.parent, job.pid, job.state) for job in found] == [
        ("bad", "", 0, "failed"), ("early", "early", 5, "failed"), ("late", "late", 5, "failed"),
    ]  # fmt: skip
    assert list(jobs._jobs()) == found
    assert "bad" in found[0].message


def test_who_waits_goes_after_older_tickets_that_are_held_and_is_gone_once_canceled(here) -> None:
    run = RunFolder.create(here / "runs" / "one", Config())
    queue = waiter.queue_of(here / "runs")
    queue.mkdir()
    older, dead = Lock(queue / "1-older"), queue / "0-dead"
    dead.touch()
    older.acquire()
    assert not waiter._is_first(queue / "2-one")
    assert not dead.exists()
    older.release()
    place = waiter.wait(run, "2")
    assert place is not None
    assert [p.name for p in queue.iterdir()] == ["place-0"]
    run.request_stop()
    assert waiter.wait(run, "3") is None
    place.release()
    assert (run.status.state, run.status.message, run.stop_requested) == ("stopped", waiter.CANCELED, False)
    assert not (run.path / waiter.QUEUED).exists()


# --- embedding


class Child:
    """A child process that has only just begun."""

    pid = 2**22 + 1

    def poll(self) -> None:
        return None


def test_stores_are_listed_latest_first_with_how_far_they_are(here, monkeypatch) -> None:
    assert embeds.embeds() == []
    folder = embeds.folder()
    assert folder == here / "embeddings"
    (folder / "done.zarr").mkdir(parents=True)
    (folder / "done.metadata.json").write_text("{}", encoding="utf-8")
    (folder / "half.zarr").mkdir()
    records: dict[str, object] = {
        "done": {"pid": 11, "started": 2, "run": "first", "data": "data/a"},
        "half": {"pid": 12, "started": 4.5, "run": "second", "data": "data/b"},
        "works": {"pid": 13, "started": 3.0, "run": "third", "data": "data/c"},
        "timeless": {"pid": 14, "started": "yesterday"},
        "nobody": {"pid": "15", "started": 1.0},
    }
    for name, record in records.items():
        (folder / f"{name}.zarr.embed.json").write_text(json.dumps(record), encoding="utf-8")
    (folder / "damaged.zarr.embed.json").write_text("{", encoding="utf-8")
    (folder / "half.zarr.embed.log").write_text("\n".join("abcdefgh"), encoding="utf-8")
    monkeypatch.setattr(children, "is_alive", lambda record: record["pid"] == 13)
    half, works, done = embeds.embeds()
    assert half == embeds.Embed(folder / "half.zarr", "second", "data/b", "failed", "c\nd\ne\nf\ng\nh", 12, 4.5)
    assert works == embeds.Embed(folder / "works.zarr", "third", "data/c", "running", "", 13, 3.0)
    assert done == embeds.Embed(folder / "done.zarr", "first", "data/a", "finished", "", 11, 2.0)


def test_a_store_is_written_by_one_child_and_another_store_beside_it(here, monkeypatch) -> None:
    spawned: list[list[str]] = []
    monkeypatch.setattr(children, "spawn", lambda module, arguments, **_: (spawned.append(arguments), Child())[1])
    monkeypatch.setattr(children, "STARTED", {})
    monkeypatch.setattr(children, "is_alive", lambda record: True)
    run = RunFolder.create(here / "runs" / "first", Config(data="data/mine"))
    first = embeds.start(run, run.config)
    other = embeds.start(run, run.config.replace(data="data/more comics"))
    assert first.name.startswith("first-mine-")
    assert other.name.startswith("first-more-comics-")
    assert "--data" not in spawned[0]
    assert spawned[1][4:6] == ["--data", "data/more comics"]
    with pytest.raises(ConfigError, match="is being written already"):
        embeds.start(run, run.config)
    assert sorted((e.run, e.data) for e in embeds.embeds()) == [("first", "data/mine"), ("first", "data/more comics")]
