"""Several processes write the bytes of one: ranges on borders of chunks, and two real processes."""

import itertools
import socket

import forked
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_embed import job, made, stored, tree  # noqa: F401

from stage3.embed.exporter import begin, run_export
from stage3.embed.stage4 import CHUNK, Places, damages, read_store
from stage3.embed.together import export_together, share_of
from stage3.errors import DataError, Interrupted
from stage3.peers import ALONE, Peers

pytestmark = pytest.mark.slow


@given(st.integers(0, 40), st.integers(1, 4000), st.integers(1, 9))
def test_shares_are_whole_chunks_side_by_side_and_even(first, pages, size):
    first *= CHUNK
    shares = [share_of((first, first + pages), rank, size) for rank in range(size)]
    there = [share for share in shares if share]
    assert there[0][0] == first
    assert there[-1][1] == first + pages
    assert all(a[1] == b[0] for a, b in itertools.pairwise(there))
    assert all(low % CHUNK == 0 and low < high for low, high in there)
    chunks = [-(-(share[1] - share[0]) // CHUNK) if share else 0 for share in shares]
    assert max(chunks) - min(chunks) <= 1


@pytest.mark.parametrize("size", [2, 3, 5])
def test_ranges_of_several_processes_make_the_bytes_of_one(made, stored, tmp_path, size):  # noqa: F811
    planned = job(made, tmp_path / "x.zarr")
    begin(planned)
    for rank in reversed(range(size)):
        share = share_of((0, len(planned.pages)), rank, size)
        assert (share is None) == (size == 5 and rank in (0, 2))  # three chunks
        if share:
            run_export(planned, shard=share)
    run_export(planned)
    assert tree(tmp_path) == tree(stored.parent)


def test_one_process_is_the_export_itself_and_another_number_goes_on_with_it(made, stored, tmp_path):  # noqa: F811
    planned = job(made, tmp_path / "x.zarr")
    asked = iter([False, True])
    with pytest.raises(Interrupted, match="chunk 1"):
        export_together(planned, ALONE, stop=lambda: next(asked))
    share = share_of((0, len(planned.pages)), 0, 2)
    assert run_export(planned, shard=share)["kept"] == 1
    found = export_together(planned, ALONE)
    assert (found["written"], found["kept"], found["finished"]) == (2, 1, True)
    assert tree(tmp_path) == tree(stored.parent)


class Scripted(Peers):
    """The second of two processes, of which the other is asked to stop."""

    def sum(self, values):
        return [1.0 for _ in values]


def test_a_stop_of_one_process_ends_all(made, tmp_path):  # noqa: F811
    planned = job(made, tmp_path / "x.zarr")
    begin(planned)
    with pytest.raises(Interrupted, match="another process"):
        export_together(planned, Scripted(rank=1, size=2))
    assert not Places.of(tmp_path / "x.zarr").complete.exists()


def test_the_first_process_refuses_a_foreign_place_before_the_others_write(made, tmp_path):  # noqa: F811
    (tmp_path / "x.zarr").mkdir()
    with pytest.raises(DataError, match="was not written by an export"):
        export_together(job(made, tmp_path / "x.zarr"), Peers(rank=0, size=2))
    assert [p.name for p in tmp_path.iterdir()] == ["x.zarr"]


def test_two_real_processes_write_the_bytes_of_one(tmp_path):
    argv = ["--run", "data/samples/runs/sample", "--out", str(tmp_path / "two" / "x.zarr")]
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    both = [forked.start("stage3.embed", argv, RANK=str(r), LOCAL_RANK=str(r), **shared) for r in range(2)]
    told = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert "chunks written, 0 kept" in told[0][0]
    assert told[1][0] == ""
    from stage3.api import Run

    threads = torch.get_num_threads()
    Run.load("data/samples/runs/sample").export(tmp_path / "one" / "x.zarr")
    assert torch.get_num_threads() == threads
    assert not list(damages(Places.of(tmp_path / "two" / "x.zarr")))
    assert len(read_store(tmp_path / "two" / "x.zarr").metadata()) > 2 * CHUNK
    assert tree(tmp_path / "two") == tree(tmp_path / "one")
