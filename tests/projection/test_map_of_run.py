"""Maps of the sample run from its folder to the file, and what the command says; UMAP has a stand-in."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from map_world import PLACE, TURN, Layout

from stage3.errors import ConfigError, DataError, StorageError
from stage3.metrics.neighbors import unit_rows
from stage3.model import mapped
from stage3.projection import __main__ as command
from stage3.projection import atlas, files, layouts, maps
from stage3.runs import RunFolder
from stage3.runs.data import load_data
from stage3.runs.inspection import describe_panels

SAMPLE = "data/samples/runs/sample"
FEW = files.Parameters(limit=700, min_cluster=40)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A copy of the sample run with two maps: one of all panels, and on it one of a sample; and what was told."""
    path = tmp_path_factory.mktemp("runs") / "first"
    shutil.copytree(SAMPLE, path, ignore=shutil.ignore_patterns("projections"))
    run, told = RunFolder.load(path), []

    def layout(x, neighbors=None, seed=0, init=None, **others):
        return (10 * layouts.pca(x) if init is None else init @ TURN).astype(np.float32)

    with pytest.MonkeyPatch.context() as patch:
        for module in (maps, layouts):
            patch.setattr(module, "umap_layout", layout)
        whole, there = maps.project_run(run, advance=told.append)
        sample, again = maps.project_run(run, parameters=FEW, advance=told.append)
    assert (there, again) == (False, False)
    return run, whole, sample, told


def test_a_map_of_a_run_holds_its_panels_and_says_what_it_was_made_of(made):
    run, whole, sample, told = made
    assert whole == files.projection_path(run)
    frame, few = files.load(whole), files.load(sample)
    assert frame["row"].tolist() == list(range(2100))
    about = frame.attrs["about"]
    step = run.checkpoint(None).step
    assert (about["checkpoint"], about["step"]) == (run.fingerprint(step), step)
    assert (about["neighbors"], about["limit"], about["placed"], about["aligned_to"]) == (15, 20_000, None, None)
    other = few.attrs["about"]
    assert other["table"] == about["table"]
    assert (other["limit"], other["placed"]["fitted"], other["placed"]["panels"]) == (700, 700, 1400)
    assert other["aligned_to"]["file"] == f"first/{whole.name}"
    assert (other["aligned_to"]["shared"], other["aligned_to"]["checkpoint"]) == (2100, about["checkpoint"])
    np.testing.assert_allclose(few.loc[few["fitted"], PLACE], frame.loc[few["fitted"], PLACE], atol=1e-3)
    # percents: reading, embedding, and five stages, each counted once it is over; the second map places as it goes
    assert told == [0, 0, *[20] * 5, 0, 0, *[20] * 5, 0]
    assert {name.split(" ")[0] for name in frame[files.NAME]} - {"", "cluster"}  # some are called by what they hold


def test_a_map_that_is_there_is_only_read_and_one_made_again_stays_where_it_was(made, monkeypatch):
    run, whole, sample, _ = made
    before = sample.stat().st_mtime_ns
    monkeypatch.setattr(maps, "check_installed", lambda: pytest.fail("nothing is to be made"))
    assert maps.project_run(run, checkpoint=run.checkpoint(None).step, parameters=FEW) == (sample, True)
    assert sample.stat().st_mtime_ns == before
    monkeypatch.undo()
    onto, kept = [], sample.read_bytes()

    def project(x, rows, *others, **named):
        onto.append(named["onto"])
        frame = files.load(sample)
        frame.attrs["aligned_to"] = {"layout": "moved"}
        return frame

    monkeypatch.setattr(maps, "project", project)
    hidden = whole.rename(whole.with_suffix(".away"))
    try:
        assert maps.project_run(run, parameters=FEW, again=True) == (sample, False)
        assert onto[0].path == sample
        assert files.load(sample).attrs["about"]["aligned_to"]["file"] == f"first/{whole.name}"
        maps.project_run(run, parameters=FEW, again=True, align=False)
        assert onto[1] is None
        assert files.load(sample).attrs["about"]["aligned_to"] == {"layout": "moved"}
    finally:
        hidden.rename(whole)
        sample.write_bytes(kept)


def test_the_drift_of_a_run_is_made_of_its_saved_epochs(made, monkeypatch):
    from stage3.model import embedding

    run = made[0]
    rows = np.arange(60)
    saved = {4: np.eye(60, 16, dtype=np.float32) + 0.1, 10: np.eye(60, 16, 3, dtype=np.float32) + 0.2}
    folder = run.path / "embeddings"
    folder.mkdir()
    for epoch in saved:
        (folder / f"epoch-{epoch:04d}.safetensors").write_bytes(b"")
    import torch

    def loaded(path):
        return torch.from_numpy(saved[int(path.stem[-4:])]), torch.from_numpy(rows)

    monkeypatch.setattr(embedding, "load_embeddings", loaded)
    monkeypatch.setattr(maps, "umap_layout", Layout())
    path, there = maps.project_run(run, drift=True, parameters=files.Parameters(neighbors=8))
    assert (path, there) == (files.drift_path(run, files.Parameters(neighbors=8)), False)
    frame = files.load(path)
    assert (frame["epoch"].tolist(), frame["row"].tolist()) == ([4] * 60 + [10] * 60, [*range(60)] * 2)
    assert frame.attrs["about"]["epochs"] == [4, 10]
    assert frame.attrs["about"]["neighbors"] == 8
    shutil.rmtree(folder)


def test_a_file_for_embedding_atlas_has_ids_and_neighbors_where_all_were_laid_out(made, tmp_path, monkeypatch):
    run, whole, _, _ = made
    monkeypatch.setattr(atlas, "ROWS", 900)
    out = tmp_path / "new" / "map.parquet"
    told = maps.atlas_of_run(run, out)
    assert told == f"embedding-atlas {out} --x projection_x --y projection_y --text text --neighbors neighbors"
    shown, frame = pd.read_parquet(out), files.load(whole)
    assert not maps.atlas_of_run(run, tmp_path / "few.parquet", parameters=FEW).endswith("neighbors")
    few = pd.read_parquet(tmp_path / "few.parquet")
    assert [*few.columns, "neighbors"] == [*shown.columns]
    for name, own in (("projection_x", "umap_dim1"), ("projection_y", "umap_dim2"), ("neighbors_kept", "trust"),
                      ("page", "canonical_id"), ("book", "comic_name"), ("cluster", "cluster_name")):  # fmt: skip
        assert shown[name].tolist() == frame[own].tolist()
    data = load_data(run, progress=False)
    panels = describe_panels(data, run.config.text_parts)
    for name, own in (("id", "panel_id"), ("text", "text"), ("split", "split"), ("page_type", "page_type")):
        assert shown[name].tolist() == panels[own].tolist()
    assert pq.ParquetFile(out).num_row_groups == 3
    x = unit_rows(maps._embeddings(run, run.checkpoint(None).step, data)[0]).astype(np.float64)
    for row in (0, 950, 2099):
        near, cosine = shown["neighbors"][row], x @ x[row]
        cosine[row] = -2
        assert near["ids"].tolist() == np.argsort(-cosine, kind="stable")[:15].tolist()
        np.testing.assert_allclose(near["distances"], 1 - cosine[near["ids"]], atol=1e-6)
    copies = np.ones((40, 8), np.float32)  # equal ones come in the order of rows
    atlas.write_atlas(out, frame[:40], data, run.config.text_parts, copies)
    assert pd.read_parquet(out)["neighbors"][3]["ids"].tolist() == [0, 1, 2, *range(4, 16)]
    for n in (1, 2):  # one has no neighbor
        atlas.write_atlas(out, frame[:n], data, run.config.text_parts, copies[:n])
        assert ("neighbors" in pd.read_parquet(out)) == (n == 2)
    monkeypatch.setattr(mapped, "is_large", lambda *_: True)
    embedded, apart = [], RunFolder(run.path, run.config.replace(cache_dir=str(tmp_path / "cache")))
    found, rows = maps._embeddings(apart, run.checkpoint(None).step, data, lambda *now: embedded.append(now))
    assert rows.tolist() == list(range(2100))
    pages = len(data.pages("all"))
    assert embedded[-1] == (f"embedding pages: {pages} of {pages}", 100, 500)
    np.testing.assert_allclose(unit_rows(found.take(np.array([0, 950]))), x[[0, 950]], atol=2e-3)
    with pytest.raises(ConfigError, match=r"must end in \.parquet"):
        maps.atlas_of_run(run, tmp_path / "x.csv")
    with pytest.raises(StorageError):
        maps.atlas_of_run(run, out, parameters=files.Parameters(seed=9))
    files.save(files.projection_path(run, None, files.Parameters(seed=8)), frame, {"table": "another"})
    with pytest.raises(DataError, match="Make it again with --again"):
        maps.atlas_of_run(run, out, parameters=files.Parameters(seed=8))


def test_the_command_says_what_a_map_holds(made, capsys):
    run, whole, sample, _ = made
    own = ["--run", str(run.path)]
    assert command.main(own) == 0
    told, frame = capsys.readouterr().out, files.load(whole)
    clusters = frame["cluster_id"].max() + 1
    assert told.splitlines()[0] == f"2,100 panels, {clusters} clusters, already present: {whole}"
    assert f"neighbors kept: {frame['trust'].mean():.3f} of" in told
    assert "aligned" not in told
    assert command.main([*own, "--limit", "700", "--min_cluster", "40"]) == 0
    told = capsys.readouterr().out
    assert f"already present: {sample}" in told
    assert f"aligned with first/{whole.name}: half of the panels moved at most 0" in told
    assert command.main([*own, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["file"], told["panels"], told["fitted"], told["notes"]) == (str(whole), 2100, 2100, [])


def test_every_option_of_the_command_reaches_the_map(made, monkeypatch, capsys, tmp_path):
    run, whole, _, _ = made
    asked = {}

    def project_run(folder, **others):
        others["say"]("other data")
        asked.update(others, path=folder.path, cache=folder.config.cache_dir)
        return whole, False

    import stage3.projection as package

    monkeypatch.setattr(package, "project_run", project_run)
    monkeypatch.setattr(package, "atlas_of_run", lambda folder, out, **others: f"open {out} {others['checkpoint']}")
    own = f"--run {run.path} --checkpoint 3 --neighbors 20 --min_dist 0.3 --min_cluster 9 --limit 500 --seed 6 --again"
    own += f" --alone --beside a --beside b --atlas x.parquet --cache_dir {tmp_path}"
    assert command.main(own.split()) == 0
    assert asked["parameters"] == files.Parameters(20, 0.3, 9, 500, 6)
    assert (asked["checkpoint"], asked["drift"], asked["align"], asked["again"]) == (3, False, False, True)
    assert [str(root) for root in asked["roots"]] == ["a", "b"]
    assert (asked["path"], str(asked["cache"])) == (run.path, str(tmp_path))
    told = capsys.readouterr().out
    assert "note: other data" in told
    assert f"written: {whole}" in told
    assert "see it in Embedding Atlas: open x.parquet 3" in told
    assert command.main(["--run", str(run.path), "--json"]) == 0
    assert (asked["align"], asked["again"], asked["checkpoint"], asked["roots"]) == (True, False, None, [])
    assert asked["parameters"] == files.Parameters()
    assert json.loads(capsys.readouterr().out)["notes"] == ["other data"]
    moves = whole.with_name("drift-x.parquet")
    columns = {"epoch": [1, 4], "row": [2, 2], "umap_dim1": [0.0, 1.0], "umap_dim2": [0.0, 1.0], "kept": [np.nan, 0.5]}
    files.save(moves, pd.DataFrame(columns), {})
    monkeypatch.setattr(package, "project_run", lambda folder, drift, **others: (moves, drift))
    assert command.main(["--run", str(run.path), "--drift"]) == 0
    assert capsys.readouterr().out == f"1 panel, 2 epochs, already present: {moves}\n"
    moves.unlink()
    with pytest.raises(ConfigError, match="leave out --drift"):
        command.main(["--run", str(run.path), "--atlas", "x.parquet", "--drift"])
