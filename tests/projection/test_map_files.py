"""Maps on the disk: what is read back, how far a map is, and which older map a new one is laid on."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from map_world import small_map

from stage3.errors import ConfigError, DataError, StorageError
from stage3.projection import files, reference
from stage3.storage import Lock


@pytest.fixture(scope="module")
def frame():
    return small_map()[3]


class Run:
    """As much of a run as has maps: its checkpoints are steps 4 and 12, of which 12 is the best."""

    def __init__(self, path):
        self.path = path

    def checkpoint(self, step):
        return type("Checkpoint", (), {"step": 12 if step is None else step})

    def fingerprint(self, step):
        return f"{step:02d}" * 20


# --- where they are


def test_a_map_is_named_by_its_checkpoint_and_its_parameters(tmp_path):
    run, few = Run(tmp_path), files.Parameters(limit=100)
    path = files.projection_path(run)
    assert path == tmp_path / "projections" / f"{'12' * 12}-{files.Parameters().digest}.parquet"
    assert files.projection_path(run, 4, few).name == f"{'04' * 12}-{few.digest}.parquet"
    assert len(few.digest) == 8
    assert files.Parameters() == files.Parameters(neighbors=15, min_dist=0.1, min_cluster=0, limit=20_000, seed=0)


@pytest.mark.parametrize(
    ("name", "low", "high", "step"),
    [("neighbors", 3, 200, 1), ("min_dist", 0, 0.99, 0.001), ("min_cluster", 0, 10_000, 1), ("limit", 100, 100_000, 1),
     ("seed", 0, 2**31 - 1, 1)],
)  # fmt: skip
def test_the_bounds_of_each_parameter_are_allowed_and_nothing_beyond(name, low, high, step):
    for value in (low, high):
        assert getattr(files.Parameters(**{name: value}), name) == value
    for value in (low - step, high + step):
        with pytest.raises(ConfigError, match=f"{name}: {value!r} is out of range: must be from {low} to {high}"):
            files.Parameters(**{name: value})


def test_a_cluster_of_one_panel_is_refused_before_anything_is_computed():
    with pytest.raises(ConfigError, match="min_cluster: a cluster has at least 2 panels"):
        files.Parameters(min_cluster=1)
    assert files.Parameters(min_cluster=2).min_cluster == 2


def test_of_many_epochs_the_first_the_last_and_even_steps_between_are_drawn(tmp_path):
    run, folder = Run(tmp_path), tmp_path / "embeddings"
    assert files.epoch_files(run) == []
    folder.mkdir()
    for epoch in (3, 10, 7, 112):
        (folder / f"epoch-{epoch:04d}.safetensors").write_bytes(b"x")
    (folder / "epoch-best.safetensors").write_bytes(b"x")
    assert [(e, p.name) for e, p in files.epoch_files(run, 4)] == [
        (e, f"epoch-{e:04d}.safetensors") for e in (3, 7, 10, 112)
    ]
    assert [e for e, _ in files.epoch_files(run, 3)] == [3, 10, 112]  # 1.5 is nearer to the even 2
    for epoch in range(200, 209):
        (folder / f"epoch-{epoch:04d}.safetensors").write_bytes(b"x")
    assert [e for e, _ in files.epoch_files(run)] == [3, 7, 10, 112, 200, 201, *range(203, 209)]  # 12 of 13


def test_the_drift_is_another_once_an_epoch_changes(tmp_path):
    run, few = Run(tmp_path), files.Parameters(limit=100)
    (tmp_path / "embeddings").mkdir()
    path = tmp_path / "embeddings" / "epoch-0003.safetensors"
    path.write_bytes(b"x")
    os.utime(path, ns=(5, 5))
    first = files.drift_path(run)
    assert first.parent == tmp_path / "projections"
    key = first.stem.split("-")
    assert (key[0], len(key[1]), key[2]) == ("drift", 16, files.Parameters().digest)
    assert files.drift_path(run, few).stem == "-".join([*key[:2], few.digest])
    others = {first}
    for size, moment in ((2, 5), (1, 6)):
        path.write_bytes(b"x" * size)
        os.utime(path, ns=(moment, moment))
        others.add(files.drift_path(run))
    path.rename(path.with_name("epoch-0004.safetensors"))
    assert len(others | {files.drift_path(run)}) == 4


# --- what is in them


def test_a_map_is_kept_with_what_it_was_made_of(frame, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "ROWS_AT_ONCE", 50)
    path = tmp_path / "projections" / "x.parquet"
    files.save(path, frame, {"step": 3})
    back = files.load(path)
    assert back.attrs["about"] == {"step": 3}
    texts = {name: "str" for name, kind in frame.dtypes.items() if isinstance(kind, pd.ArrowDtype)}
    assert {"canonical_id", "comic_name", "page_name", "cluster_name"} == set(texts)
    pd.testing.assert_frame_equal(back, frame.astype(texts), check_dtype=False)
    part = files.load(path, ["trust", "row", files.NAME])
    pd.testing.assert_frame_equal(part, back[["row", "trust", files.NAME]], check_like=True)
    earlier = frame.drop(columns=files.NAME)
    files.save(path, earlier, {})
    assert files.load(path, ["row", "trust"]).columns.tolist() == ["row", "trust"]
    assert files.load(path)[files.NAME].tolist() == [f"cluster {c}" if c >= 0 else "" for c in frame["cluster_id"]]
    files.save(path, frame[:0], {"step": 4})  # no panel is a map too
    assert (len(files.load(path)), files.load(path).attrs["about"]) == (0, {"step": 4})
    files.save(path, frame.drop(columns="trust"), {})
    with pytest.raises(DataError, match="'trust' is missing; it has page_index, panel_index"):
        files.load(path)
    frame.astype(texts).to_parquet(path)  # of another program
    assert files.load(path).attrs["about"] == {}
    path.write_bytes(b"PAR1 and nothing more")
    with pytest.raises(StorageError, match="damaged"):
        files.load(path)
    os.truncate(path, 2 * 2**30 + 1)  # nothing of it is read
    with pytest.raises(StorageError, match="more than the 2,147,483,648 allowed"):
        files.load(path)
    with pytest.raises(StorageError):
        files.load(path.with_name("none.parquet"))


def test_a_summary_counts_what_the_map_holds(frame, tmp_path):
    held = frame.assign(fitted=np.arange(112) < 70)
    held.attrs = {"about": {"aligned_to": {"file": "x"}}}
    told = files.summary_of(tmp_path / "m.parquet", held)
    assert told["aligned_to"] == {"file": "x"}
    assert told["file"] == str(tmp_path / "m.parquet")
    assert {k: told[k] for k in ("panels", "fitted", "clusters", "unclustered")} == {
        "panels": 112, "fitted": 70, "clusters": 3, "unclustered": 1,
    }  # fmt: skip
    assert told["trust"] == pytest.approx(frame["trust"].mean())
    nan = float("nan")
    moves = pd.DataFrame({"epoch": [1, 1, 4, 4, 9, 9], "row": [5, 6] * 3, "kept": [nan, nan, 0.5, 1.0, 0.0, 0.25]})
    path = tmp_path / "drift-a.parquet"
    about = {"file": str(path), "panels": 2, "epochs": 3, "kept": [0.75, 0.125]}
    assert files.summary_of(path, moves) == about
    moves = moves.assign(umap_dim1=0.0, umap_dim2=1.0)[list(files.DRIFT_COLUMNS)]
    files.save(path, moves, {})
    assert tuple(files.load(path).columns) == files.DRIFT_COLUMNS
    files.save(path, moves.drop(columns="kept"), {})
    with pytest.raises(DataError, match="'kept' is missing"):
        files.load(path)


# --- jobs


def test_a_job_is_seen_from_outside_while_it_runs_and_after_it_failed(tmp_path, frame):
    path = tmp_path / "projections" / "k.parquet"
    assert files.job_state(path) == files.Job("missing")
    seen = []

    def work(tell):
        seen.append(files.job_state(path))
        tell("layout", 2, 5)
        seen.append(files.job_state(path))
        with pytest.raises(StorageError, match="in use"):
            files.make(path, work)
        return frame, {}

    files.make(path, work)
    assert [(j.state, j.stage, j.done, j.total) for j in seen] == [
        ("running", "reading the data", 0, 5),
        ("running", "layout", 2, 5),
    ]
    assert seen[1].updated.startswith("20")
    assert files.job_state(path) == files.Job("ready")
    assert not path.with_suffix(".json").exists()
    files.make(path, work)  # it is there
    assert len(seen) == 2
    files.make(path, lambda tell: (frame[:5], {}), again=True)
    assert len(files.load(path)) == 5

    def failing(tell):
        raise DataError("no panel")

    broken = path.with_name("f.parquet")
    with pytest.raises(DataError):
        files.make(broken, failing)
    assert files.job_state(broken).message == "no panel"
    assert files.job_state(broken).state == "failed"
    files.make(broken, lambda tell: (frame, {}))  # the lock is free, and the record of the failure goes
    assert files.job_state(broken).state == "ready"
    assert not broken.with_suffix(".json").exists()


def test_a_maker_that_was_killed_counts_as_failed(tmp_path):
    path = tmp_path / "k.parquet"
    path.with_suffix(".json").write_text(json.dumps({"state": "running", "stage": "layout", "pid": 1}))
    assert files.job_state(path) == files.Job("failed", "layout", message="the process died")
    lock = Lock(path.with_suffix(".lock"))
    lock.acquire()
    assert files.job_state(path).state == "running"
    lock.release()
    path.with_suffix(".json").write_text(json.dumps({"state": "failed", "message": "m" * 2**19}))
    assert files.job_state(path).state == "failed"
    path.with_suffix(".json").write_text(json.dumps({"state": "failed", "message": "m" * 2**21}))
    assert files.job_state(path).state == "missing"  # no record of ours is so long


# --- which map is looked for


def save(root, run, name, frame, moment, **about):
    path = root / run / "projections" / f"{name}.parquet"
    files.save(path, frame, {"table": "t0", **about})
    os.utime(path, ns=(moment, moment))


def test_the_oldest_map_of_the_run_itself_comes_first_then_those_beside_it(frame, tmp_path):
    run = Run(tmp_path / "b")
    (tmp_path / "a").mkdir()
    run.path.mkdir()
    assert reference.reference_of(run, "t0", 112) is None
    save(tmp_path, "a", "one", frame, 1)
    save(tmp_path, "c", "two", frame, 0)
    assert reference.reference_of(run, "t0", 112).path.parts[-3:] == ("a", "projections", "one.parquet")
    save(tmp_path, "b", "aligned", frame, 2, aligned_to={"file": "a/one.parquet"})
    found = reference.reference_of(run, "t0", 112)
    assert found.about == {"table": "t0", "aligned_to": {"file": "a/one.parquet"}}
    save(tmp_path, "b", "second", frame, 9)
    save(tmp_path, "b", "third", frame, 10)
    found = reference.reference_of(run, "t0", 112)  # aligned with none; the older one
    assert (found.path.name, len(found.frame)) == ("second.parquet", 112)
    assert reference.reference_of(run, "other data", 112) is None
    elsewhere = Run(tmp_path / "elsewhere" / "d")
    elsewhere.path.mkdir(parents=True)
    assert reference.reference_of(elsewhere, "t0", 112) is None
    assert reference.reference_of(elsewhere, "t0", 112, [tmp_path, tmp_path / "none"]).path.parts[-3] == "a"
    assert reference.reference_of(run, "t0", 224) is not None
    assert reference.reference_of(run, "t0", 225) is None  # it holds less than half of them


def test_a_damaged_map_is_passed_over(frame, tmp_path, monkeypatch):
    run = Run(tmp_path / "a")
    save(tmp_path, "a", "whole", frame, 5, aligned_to={"file": "x"})
    (run.path / "projections" / "bad.parquet").write_bytes(b"PAR1 no")
    (run.path / "projections" / "drift-x.parquet").write_bytes(b"")
    save(tmp_path, "a", "lacks", frame.drop(columns="trust"), 1)
    save(tmp_path, "a", "drift-y", frame, 0)
    pd.DataFrame({"row": [1]}).to_parquet(run.path / "projections" / "foreign.parquet")
    assert reference.reference_of(run, "t0", 112).path.name == "whole.parquet"
    monkeypatch.setattr(reference, "LOOKED_AT", 0)
    assert reference.reference_of(run, "t0", 112) is None


def test_positions_are_those_of_the_rows_asked_for(frame):
    found = reference.Reference(Path("x"), {}, frame.iloc[::-1]).positions(np.array([7, 5, 1]), ("pca_2", "umap_dim1"))
    told = frame.set_index("row")[["pca_2", "umap_dim1"]].astype(np.float64)
    np.testing.assert_array_equal(found, [told.loc[7].to_numpy(), [np.nan, np.nan], told.loc[1].to_numpy()])
