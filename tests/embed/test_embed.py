"""The Stage 4 store: read as Stage 4 reads it, the same bytes after any fault, refused while anything is missing."""

import dataclasses
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import zarr
from disk_faults import Disk, Killed

from stage3 import embed as package
from stage3.batches.dataset import Dataset
from stage3.config import SPLITS
from stage3.data.table import PAGE_COLUMNS, PANEL_COLUMNS, DataReport, PanelTable
from stage3.embed import __main__ as embed_command
from stage3.embed import exporter, stage4
from stage3.embed.exporter import Export, run_export
from stage3.embed.stage4 import CHUNK, SLOTS, Places, damages, read_store
from stage3.errors import ConfigError, DataError, Interrupted, NumericError, StorageError
from stage3.features import FeatureSet
from stage3.model import embedding
from stage3.storage import Lock
from stage3.train.trainer import Trainer
from tests import synthetic

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run with two checkpoints and its data set of 252 pages: three chunks, the last one short."""
    run = synthetic.run(
        tmp_path_factory.mktemp("runs") / "run", epochs=2, batch_pages=64, dim=16, keep_checkpoints=0, validate_every=2
    )
    data = synthetic.dataset(run.config, books=63)
    with run.lock():
        Trainer(run, data).fit(lambda: False)
    return run, data


def job(made, out: Path, *, step: int | None = None, split: str = "all", data: Dataset | None = None) -> Export:
    run, own = made
    step = step or run.checkpoints()[-1].step
    return Export.of(run, step, run.model(step), data or own, out, split, CPU)


def tree(folder: Path) -> dict[str, str]:
    """Hash of every file but the locks, leftovers too."""
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and not p.name.startswith("lock")
    }


@pytest.fixture(scope="module")
def stored(made, tmp_path_factory):
    """A finished store, never to be changed."""
    folder = tmp_path_factory.mktemp("stored")
    run_export(job(made, folder / "x.zarr"))
    return folder / "x.zarr"


@pytest.fixture
def copied(stored, tmp_path):
    """A finished store to damage."""
    shutil.copytree(stored.parent, tmp_path / "copy")
    return tmp_path / "copy" / "x.zarr"


# --- what Stage 4 reads ----------------------------------------------------------------------------------------------


def test_stage_4_finds_every_panel_at_its_page_and_place(made, stored):
    """Opened by zarr alone, rows matched by position with the metadata, sliced to `num_panels`."""
    run, data = made
    group = zarr.open(str(stored), mode="r")
    pages = json.loads(stored.with_suffix(".metadata.json").read_text(encoding="utf-8"))
    embeddings, masks = group["panel_embeddings"], group["panel_masks"]
    assert embeddings.shape == (len(pages), 16, 16)
    assert (embeddings.chunks, masks.chunks) == ((100, 16, 16), (100, 16))
    assert (embeddings.dtype, masks.dtype) == (np.float32, bool)
    assert [p["canonical_id"] for p in pages] == data.table.pages["page_id"].tolist()
    model = run.model(run.checkpoints()[-1].step)
    for i in (0, 57, 99, 100, 199, 200, 251):
        n = pages[i]["num_panels"]
        alone = embedding.embed(model, data.panel_set, np.array([i])).panel.numpy()
        assert pages[i]["sequence_index"] == i
        np.testing.assert_allclose(embeddings[i, :n], alone, atol=1e-5)
        assert not np.any(embeddings[i, n:])
        assert masks[i].tolist() == [True] * n + [False] * (SLOTS - n)


def test_zarr_itself_would_have_written_the_same_metadata(stored, tmp_path):
    group = zarr.open_group(tmp_path / "z.zarr", mode="w", zarr_format=2)
    from numcodecs import Zstd

    for name, shape, dtype in (("panel_embeddings", (252, 16, 16), "float32"), ("panel_masks", (252, 16), "bool")):
        chunks = (100, *shape[1:])
        group.create_array(name, shape=shape, chunks=chunks, dtype=dtype, compressors=Zstd(level=stage4.ZSTD_LEVEL))
        theirs = json.loads((tmp_path / "z.zarr" / name / ".zarray").read_text(encoding="utf-8"))
        assert json.loads((stored / name / ".zarray").read_text(encoding="utf-8")) == theirs


def test_the_sidecar_has_one_row_a_panel_in_the_order_of_the_store(made, stored):
    run, data = made
    store = read_store(stored)
    panels = store.panels()
    masks = np.asarray(store.masks[:])
    assert list(zip(panels["page_row"], panels["slot"], strict=True)) == list(zip(*np.nonzero(masks), strict=True))
    table = data.table.panels
    assert panels["panel_id"].tolist() == table["panel_id"].tolist()
    assert panels["source_index"].tolist() == table["source_index"].tolist()
    pd.testing.assert_frame_equal(panels[list("xywh")], table[list("xywh")])
    assert panels["has_text"].tolist() == (table["dialogue"] != "").tolist()
    names = np.array(SPLITS)[data.split[data.table.page_of_panel]]
    assert panels["split"].tolist() == names.tolist()
    assert set(panels["checkpoint"]) == {run.fingerprint(run.checkpoints()[-1].step)}


def test_a_store_of_one_split_has_its_pages_alone(made, tmp_path):
    _, data = made
    found = run_export(job(made, tmp_path / "v.zarr", split="val"))
    pages = [p["canonical_id"] for p in read_store(tmp_path / "v.zarr").metadata()]
    panels = read_store(tmp_path / "v.zarr").panels()
    assert set(panels["split"]) == {"val"}
    own = np.isin(data.table.page_of_panel, data.pages("val"))
    assert panels["panel_id"].tolist() == data.table.panels["panel_id"][own].tolist()
    assert panels["canonical_id"].tolist() == [pages[row] for row in panels["page_row"]]
    assert pages == data.table.pages["page_id"].iloc[data.pages("val")].tolist()
    assert found["pages"] == len(pages)


def pages_with(counts: list[int], image_size: int = 24, text_size: int = 20) -> Dataset:
    """A data set whose pages have so many panels; panels of count 0 lose every modality."""
    panels: dict[str, list] = {name: [] for name in PANEL_COLUMNS}
    pages: dict[str, list] = {name: [] for name in PAGE_COLUMNS}
    bare = []
    for page, count in enumerate(counts):
        rows = (
            f"p{page}",
            "b",
            "story",
            "",
            "",
            10,
            10,
            f'sum "{page}" \u00e9\U0001f600',
            "exact",
            len(bare),
            max(count, 1),
        )
        for name, value in zip(PAGE_COLUMNS, rows, strict=True):
            pages[name].append(value)
        for i in range(max(count, 1)):
            bare.append(count == 0)
            row = (f"p{page}#{i}", page, i, i, 0, 0, 1, 1, count > 0, "", "", "")
            for name, value in zip(PANEL_COLUMNS, row, strict=True):
                panels[name].append(value)
    rng, there = np.random.default_rng(0), ~np.array(bare)
    image, text = rng.normal(size=(len(bare), image_size)), rng.normal(size=(len(bare), text_size))
    features = FeatureSet.in_memory(image, text, has_image=there, has_text=there)
    return Dataset(PanelTable.build(panels, pages, DataReport()), features, np.full(len(counts), 2))


def test_a_crowded_page_is_cut_at_16_and_counted_and_an_empty_one_has_no_row(made, tmp_path):
    data = pages_with([20, 0, 16, 3, 17])
    found = run_export(job(made, tmp_path / "x.zarr", data=data))
    assert (found["panels_cut"], found["pages_cut"], found["panels"]) == (5, 2, 16 + 16 + 3 + 16)
    pages = read_store(tmp_path / "x.zarr").metadata()
    assert [(p["canonical_id"], p["num_panels"]) for p in pages] == [("p0", 16), ("p2", 16), ("p3", 3), ("p4", 16)]
    assert pages[2]["overall_summary"] == 'sum "3" \u00e9\U0001f600'
    assert any("5 panels on 2 pages" in line for line in package.summary_lines(found, Places.of(tmp_path / "x.zarr")))


def test_the_pages_are_embedded_chunk_by_chunk(made, tmp_path, monkeypatch):
    asked = []
    real = embedding.embed

    def watched(model, panel_set, pages, device):
        asked.append(len(pages))
        return real(model, panel_set, pages, device)

    monkeypatch.setattr(embedding, "embed", watched)
    run_export(job(made, tmp_path / "x.zarr"))
    assert asked == [100, 100, 52]


# --- faults ----------------------------------------------------------------------------------------------------------


class Remembered(Export):
    """An export whose embeddings are computed once, so that hundreds of attempts are quick."""

    memory: dict = {}  # noqa: RUF012

    def embed_chunk(self, chunk):
        key = (self.plan["checkpoint"], chunk)
        if key not in self.memory:
            self.memory[key] = super().embed_chunk(chunk)
        return self.memory[key]


@pytest.fixture(scope="module")
def attempt(made, tmp_path_factory):
    """A function that exports into a folder as the reference does."""
    planned = job(made, tmp_path_factory.mktemp("plan") / "x.zarr")

    def go(folder: Path, **options):
        values = {f.name: getattr(planned, f.name) for f in dataclasses.fields(planned)}
        return run_export(Remembered(**values | {"places": Places.of(folder / "x.zarr")}), **options)

    return go


def faulty_attempts(
    attempt, folder: Path, fault: str, reference: dict[str, str], seen: set[tuple], places: Iterable[int]
) -> int:
    """Meet the fault at the given operations, as far as there are so many; returns the last. Asserts the promises.

    `seen` holds what earlier faults left: the same folder found again needs no second proof.
    """
    for at in places:
        where = folder / f"{fault}-{at}"
        where.mkdir()
        with Disk(fault, at) as disk, suppress(Killed, StorageError):
            attempt(where)
        if not disk.hit:
            return at - 1
        left = (*tree(where).items(), *sorted(p.relative_to(where) for p in where.rglob("*") if p.is_dir()))
        if left in seen:
            shutil.rmtree(where)
            continue
        seen.add(left)
        store = where / "x.zarr"
        if Places.of(store).complete.exists():
            read_store(store)
        elif store.is_dir():
            with pytest.raises(StorageError, match="not finished"):
                read_store(store)
        with Disk():  # syncs nothing, and so is quick
            attempt(where)
        assert tree(where) == reference, f"{fault} at operation {at}, {disk.names[at - 1]}"
        assert list(damages(Places.of(store))) == []
        shutil.rmtree(where)


# Weekly each fault at each operation; otherwise each operation meets one of the four.
@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.heavy), 4])
def test_a_fault_at_any_operation_and_an_ordinary_rerun_end_with_the_same_bytes(attempt, stored, tmp_path, every):
    seen: set[tuple] = set()
    for number, fault in enumerate(("kill", "torn", "enospc", "eio")):
        places = itertools.count(1 + number % every, every)
        assert faulty_attempts(attempt, tmp_path, fault, tree(stored.parent), seen, places) > 100
    assert len(seen) > 50 // every


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("at", [40, 70, 100, 130])
def test_a_process_killed_with_sigkill_leaves_what_the_next_one_completes(attempt, stored, tmp_path, at):
    child = os.fork()
    if child == 0:
        with Disk("sigkill", at):
            attempt(tmp_path)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
    attempt(tmp_path)
    assert tree(tmp_path) == tree(stored.parent)


def test_progress_recorded_before_the_data_and_trusted_is_caught(attempt, stored, tmp_path, monkeypatch):
    """The planted bug of promise 10: without it the tests above might pass for the wrong reason."""

    def hasty(places, chunk, embeddings, masks):
        encoded = stage4.chunk_bytes(embeddings, masks)
        line = {"chunk": chunk, "sha256": [stage4.sha256(e) for e in encoded], "bytes": [len(e) for e in encoded]}
        stage4.add_done(places.done(), line)
        return real(places, chunk, embeddings, masks)

    real = stage4.write_chunk
    monkeypatch.setattr(exporter, "write_chunk", hasty)
    monkeypatch.setattr(exporter, "chunk_damage", lambda places, entry: [])
    with pytest.raises((AssertionError, StorageError)):
        faulty_attempts(attempt, tmp_path, "kill", tree(stored.parent), set(), itertools.count(1))


def test_stopping_on_request_is_resumable(attempt, stored, tmp_path):
    with pytest.raises(Interrupted, match="chunk 1 of 3"):
        attempt(tmp_path, stop=iter([False, True]).__next__)
    assert attempt(tmp_path)["kept"] == 1
    assert tree(tmp_path) == tree(stored.parent)


def test_exporting_twice_writes_nothing(attempt, stored, copied):
    before = {p: p.stat().st_mtime_ns for p in copied.rglob("*.0*")}
    found = attempt(copied.parent)
    assert (found["written"], found["kept"], found["finished"]) == (0, 3, True)
    assert {p: p.stat().st_mtime_ns for p in copied.rglob("*.0*")} == before


# --- damage ----------------------------------------------------------------------------------------------------------


def all_files(stored: Path) -> list[str]:
    return [name for name in tree(stored.parent) if not name.endswith("COMPLETE.json")]


def test_a_flipped_bit_anywhere_is_found_named_and_repaired(attempt, stored, tmp_path):
    reference = tree(stored.parent)
    for i, name in enumerate(all_files(stored)):
        folder = shutil.copytree(stored.parent, tmp_path / str(i))
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)
        found = list(damages(Places.of(folder / "x.zarr")))
        assert any(line.startswith(f"{folder / name}:") for line in found), (name, found)
        if name != "x.export/plan.json":  # what the store is made of cannot be guessed
            attempt(folder)
            assert tree(folder) == reference, name


def test_a_missing_chunk_reads_as_zeros_by_zarr_and_is_refused_by_us(copied):
    (copied / "panel_embeddings" / "1.0.0").unlink()
    zeros = zarr.open(str(copied), mode="r")["panel_embeddings"][100:200]
    assert zeros.shape == (100, 16, 16)
    assert not zeros.any()
    with pytest.raises(StorageError, match=r"1\.0\.0: missing \(rows 100 to 199\)"):
        read_store(copied)


def test_a_truncated_chunk_and_a_chunk_too_many_are_refused(copied):
    path = copied / "panel_masks" / "0.0"
    path.write_bytes(path.read_bytes()[:-1])
    (copied / "panel_embeddings" / "3.0.0").write_bytes(b"")
    found = list(damages(Places.of(copied), thorough=False))
    assert len(found) == 2
    assert "bytes where" in found[0]
    assert "does not belong" in found[1]


def test_files_of_a_file_manager_do_not_matter(copied):
    (copied / ".DS_Store").write_bytes(b"x")
    read_store(copied)


@pytest.mark.parametrize("gone", ["COMPLETE.json", "done.jsonl", "plan.json"])
def test_a_store_without_its_record_is_refused(copied, gone):
    (Places.of(copied).export / gone).unlink()
    with pytest.raises(StorageError):
        read_store(copied)


# --- another store, another writer -----------------------------------------------------------------------------------


def other_data(data: Dataset) -> Dataset:
    """The same pages in another order."""
    order = np.arange(len(data.table.pages))[::-1].copy()
    table = data.table.subset(order)
    rows = np.concatenate([np.flatnonzero(data.table.page_of_panel == p) for p in order])
    features = dataclasses.replace(
        data.features, image_rows=data.features.image_rows[rows], text_rows=data.features.text_rows[rows]
    )
    return Dataset(table, features, data.split[order])


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("what", ["checkpoint", "page_list", "split"])
def test_a_store_of_something_else_is_refused_and_left_alone(made, copied, what, finished):
    run, data = made
    if not finished:
        Places.of(copied).complete.unlink()
        (copied / "panel_embeddings" / "2.0.0").unlink()
    before = tree(copied.parent)
    other = {
        "checkpoint": {"step": next(c.step for c in run.checkpoints() if c.step != run.checkpoint().step)},
        "page_list": {"data": other_data(data)},
        "split": {"split": "train"},
    }[what]
    with pytest.raises(DataError, match=what):
        run_export(job(made, copied, **other))
    assert tree(copied.parent) == before


def test_chunks_of_another_device_or_thread_count_do_not_mix(made, copied):
    planned = job(made, copied)
    run_export(dataclasses.replace(planned, plan=planned.plan | {"threads": 7}))  # finished: nothing to write
    (copied / "panel_embeddings" / "2.0.0").unlink()
    with pytest.raises(StorageError, match="threads 1"):
        run_export(dataclasses.replace(planned, plan=planned.plan | {"threads": 7}))


@pytest.mark.parametrize("name", ["x.zarr", "x.metadata.json", "x.panels.parquet"])
def test_what_no_export_made_is_never_written_over(made, tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(DataError, match="was not written by an export"):
        run_export(job(made, tmp_path / "x.zarr"))
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_second_writer_is_refused_by_name(made, tmp_path):
    places = Places.of(tmp_path / "x.zarr")
    places.export.mkdir()
    for shard, options in (("", {}), ("", {"shard": (0, 100)}), ("-0-100", {})):
        lock = Lock(places.lock(shard))
        lock.acquire()
        with pytest.raises(StorageError, match=r"in use by process|another export"):
            run_export(job(made, tmp_path / "x.zarr"), **options)
        lock.release()


def test_parts_written_side_by_side_make_the_same_store(attempt, stored, tmp_path):
    for part in ((200, 252), (0, 100), (100, 200)):
        assert attempt(tmp_path, shard=part)["finished"] is False
    with pytest.raises(StorageError, match="not finished"):
        read_store(tmp_path / "x.zarr")
    assert attempt(tmp_path)["written"] == 0
    assert tree(tmp_path) == tree(stored.parent)
    assert attempt(tmp_path, shard=(0, 100))["written"] == 0
    read_store(tmp_path / "x.zarr")


@pytest.mark.parametrize("part", [(0, 50), (10, 100), (100, 100), (0, 300), (200, 100)])
def test_parts_keep_to_the_borders_of_chunks(attempt, tmp_path, part):
    with pytest.raises(DataError, match="must be multiples of 100"):
        attempt(tmp_path, shard=part)


def test_an_embedding_that_is_no_number_ends_the_export_before_it_is_written(made, tmp_path):
    _, data = made
    features = dataclasses.replace(data.features, images=type(data.features.images)(data.features.images.array.copy()))
    row = int(np.flatnonzero((data.table.page_of_panel == 120) & data.table.has_box)[0])
    features.images.array[features.image_rows[row]] = np.inf
    bad = Dataset(data.table, features, data.split)
    with pytest.raises(NumericError, match="chunk 1"):
        run_export(job(made, tmp_path / "x.zarr", data=bad))
    assert list(stage4.done_lines(Places.of(tmp_path / "x.zarr").done())) == [0]


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_exports_verifies_and_tells_a_program(made, tmp_path, monkeypatch, capsys):
    run, data = made
    monkeypatch.setattr(embed_command, "load_data", lambda run, given: data)
    out = str(tmp_path / "x.zarr")
    assert embed_command.main(["--run", str(run.path), "--out", out, "--verify", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["pages"], told["written"], told["damages"]) == (252, 3, [])
    assert told["checkpoint"] == run.fingerprint(run.best().step)
    assert embed_command.main(["--run", str(run.path), "--out", out]) == 0
    assert "complete: 3 chunks as written" in capsys.readouterr().out
    (tmp_path / "x.zarr" / "panel_masks" / "2.0").unlink()
    with pytest.raises(StorageError, match="1 damaged"):
        embed_command.main(["--out", out, "--verify"])
    assert "2.0: missing" in capsys.readouterr().out


def test_a_damaged_store_ends_verification_with_exit_code_4(copied):
    (copied / "panel_masks" / "2.0").unlink()
    command = [sys.executable, "-m", "stage3.embed", "--out", str(copied), "--verify"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 4
    assert "2.0: missing (rows 200 to 299)" in ended.stdout
    assert ended.stderr.startswith("error: ")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--out", "x.zarr"], "--run RUN"),
        (["--out", "x.zarr", "--run", "r", "--split", "tset"], "Did you mean 'test'"),
        (["--out", "x.zarr", "--run", "no/such/run"], "no such run"),
        (["--out", "x", "--verify"], r"must end in \.zarr"),
        (["--out", "no.zarr", "--verify"], "no such store"),
    ],
)
def test_wrong_requests_are_refused_with_what_to_do(argv, words):
    with pytest.raises((ConfigError, DataError), match=words):
        embed_command.main(argv)


@pytest.mark.parametrize("text", ["100", "a:b", "-1:5", "1:2:3"])
def test_a_page_range_is_two_numbers(text):
    with pytest.raises(ConfigError, match="A:B"):
        package.page_range(text, 300)
    assert package.page_range("100:", 300) == (100, 300)
    with pytest.raises(ConfigError, match="starts after the last row; the store has 300 pages"):
        package.page_range("300:", 300)
    assert package.page_range(":1000", 300) == (0, 300)


def test_help_is_quick_because_it_imports_no_torch():
    code = "import sys, stage3.embed, stage3.diagnose, stage3.evaluate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_chunks_are_of_100_pages_as_stage_4_expects():
    assert (CHUNK, SLOTS) == (100, 16)
