"""Features ahead of training: the same store from any number of processes, in any order, after any kill."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stage3.config import Config
from stage3.errors import ConfigError, StorageError
from stage3.features import __main__ as features_main
from stage3.features import command, crops, load_or_build, loading, opened, page_digests, store, texts
from stage3.features.build import Share
from stage3.features.sets import FeatureReport
from tests.features.test_features import CountingText, CountingVision, comic


class Mixing(CountingVision):
    """Vectors that depend on what else is in the batch, as the last bits of real ones do, only more."""

    fingerprint = "m" * 64

    def encode_prepared(self, prepared):
        rows = super().encode_prepared(prepared)
        if self.calls and len(self.calls) > self.limit:
            raise Killed
        return rows + rows.mean()

    limit = 10**9


class MixingText(CountingText):
    fingerprint = "n" * 64

    def encode_counted(self, texts):
        rows, cut = super().encode_counted(texts)
        return rows + rows.mean(), cut


class Killed(BaseException):
    """What no handler of the code under test expects."""


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(crops, "SHARD_PAGES", 4)
    monkeypatch.setattr(texts, "SHARD_TEXTS", 3)
    monkeypatch.setattr(loading, "resolve_vision", lambda *_: Mixing())
    monkeypatch.setattr(loading, "resolve_text", lambda *_: MixingText())


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Fourteen pages in four shards; one of the last shard is a page of the first again, and one does not decode."""
    folder = tmp_path_factory.mktemp("pages")
    made = comic(folder, pages=14)
    (folder / "p13.png").write_bytes((folder / "p2.png").read_bytes())
    (folder / "p5.png").write_bytes((folder / "p5.png").read_bytes()[:-40])
    return made


def settings(cache: Path, **changes) -> Config:
    return Config(cache_dir=str(cache), feature_batch=6, workers=0, feature_dtype="float32").replace(**changes)


def files(cache: Path) -> dict[str, bytes]:
    return {p.relative_to(cache).as_posix(): p.read_bytes() for p in cache.rglob("*.safetensors")}


@pytest.fixture
def alone(table, tmp_path) -> dict[str, bytes]:
    load_or_build(table, settings(tmp_path / "alone"), progress=False)
    found = files(tmp_path / "alone")
    assert len(found) > 5
    return found


def compute(table, config, images=(), words=(), part="") -> FeatureReport:
    report, work = FeatureReport(), opened(table, config, part=part)
    work.images(report, False, images)
    work.words(report, False, words)
    return report


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("of", [1, 2, 3, 7])
def test_shares_in_any_order_leave_the_files_of_one_process(table, tmp_path, alone, of, workers):
    config = settings(tmp_path / "shared", workers=workers)
    n_images, n_texts = 4, opened(table, config).texts.shards
    assert n_texts > 2
    for number in reversed(range(of)):
        share = Share(number, of)
        compute(table, config, share.shards(n_images), share.shards(n_texts), f"{number}-of-{of}")
    assert files(tmp_path / "shared") == alone


def test_processes_that_began_at_the_same_time_leave_the_same_files(table, tmp_path, alone):
    config = settings(tmp_path / "shared")
    works = [opened(table, config, part=str(i)) for i in range(2)]  # neither sees what the other will seal
    for i, work in enumerate(works):
        work.images(FeatureReport(), False, Share(i, 2).shards(4))
        work.words(FeatureReport(), False, [2, 1, 0][i::2] + [n for n in range(3, work.texts.shards) if n % 2 == i])
    assert files(tmp_path / "shared") == alone


@pytest.mark.parametrize("batches", [0, 1, 2, 4, 7])
def test_a_killed_build_goes_on_to_the_same_files(table, tmp_path, alone, batches, monkeypatch):
    monkeypatch.setattr(store, "SEAL_SECONDS", 0.0)
    monkeypatch.setattr(crops._Crops, "leave", lambda self: None)  # nobody tidies up after a kill
    config = settings(tmp_path / "killed")
    monkeypatch.setattr(Mixing, "limit", batches)
    with pytest.raises(Killed):
        load_or_build(table, config, progress=False)
    assert files(tmp_path / "killed") != alone
    monkeypatch.setattr(Mixing, "limit", 10**9)
    vision = Mixing()
    monkeypatch.setattr(loading, "resolve_vision", lambda *_: vision)
    load_or_build(table, config, progress=False)
    assert files(tmp_path / "killed") == alone
    calls = []
    monkeypatch.setattr(loading, "resolve_vision", lambda *_: calls.append(Mixing()) or calls[0])
    load_or_build(table, settings(tmp_path / "whole"), progress=False)
    assert len(vision.calls) == len(calls[0].calls) - batches  # not one batch was computed twice


def test_what_was_stored_before_is_neither_computed_nor_moved(table, tmp_path):
    config = settings(tmp_path / "cache")
    some = table.subset(np.arange(3, 9))
    load_or_build(some, config, progress=False)
    before = files(tmp_path / "cache")
    report = FeatureReport()
    for number in (1, 0):
        again = compute(table, config, Share(number, 2).shards(4), part=str(number))
        report.computed_images += again.computed_images
    after = files(tmp_path / "cache")
    assert before.items() <= after.items()
    distinct = 4 * (14 - 1)  # one page does not decode; the page that is there twice is in two shards
    assert report.computed_images == distinct - 4 * 5


def test_training_after_shares_decodes_and_reads_nothing(table, tmp_path, monkeypatch):
    config = settings(tmp_path / "cache")
    for number in range(3):
        share = Share(number, 3)
        compute(table, config, share.shards(4), share.shards(opened(table, config).texts.shards), str(number))
    assert len(list((tmp_path / "cache" / "features").glob("pages*.parquet"))) == 3

    def never(*_):
        raise AssertionError("a page file was read again")

    monkeypatch.setattr(page_digests, "_digests", never)
    monkeypatch.setattr(crops.images, "decode_panels", never)
    built = load_or_build(table, config, progress=False)
    assert built.report.computed_images == built.report.computed_texts == 0
    assert sum(built.report.problems.values()) == 1
    command.join_digests(config)
    assert [p.name for p in (tmp_path / "cache" / "features").glob("pages*.parquet")] == ["pages.parquet"]
    assert load_or_build(table, config, progress=False).report.problems == built.report.problems


def test_a_page_that_is_mended_joins_its_shard(tmp_path):
    table = comic(tmp_path / "pages", pages=6)
    whole = (tmp_path / "pages" / "p1.png").read_bytes()
    (tmp_path / "pages" / "p1.png").write_bytes(whole[:-40])
    config = settings(tmp_path / "cache")
    load_or_build(table, config, progress=False)
    (tmp_path / "pages" / "p1.png").write_bytes(whole)
    built = load_or_build(table, config, progress=False)
    assert (built.report.computed_images, built.report.reused_images) == (4, 20)
    assert len([name for name in files(tmp_path / "cache") if "/m" in f"/{name.split('/')[1]}"]) == 2  # a file a shard
    assert not load_or_build(table, config, progress=False).report.computed_images


def test_parts_in_a_store_that_is_only_read_serve_as_they_are(tmp_path, monkeypatch):
    keys, vectors = store.as_keys([store.key_of(bytes([i])) for i in range(4)]), np.eye(4, dtype=np.float32)
    writer = store.ShardWriter(store.VectorStore(tmp_path, 4, "float32", build="b"), 3)
    for rows in (slice(0, 2), slice(2, 4)):
        writer.add(keys[rows], np.zeros(2, np.uint8), vectors[rows])
        writer.seal()
    before = files(tmp_path)
    assert len(before) == 2

    def refuse(*_):
        raise StorageError("read-only")

    monkeypatch.setattr(store, "write_segment", refuse)
    found = store.VectorStore(tmp_path, 4, "float32", build="b")
    again = store.ShardWriter(found, 3)
    assert again.holds(keys).all()
    assert (found.find(keys) < 0).all()
    again.close()
    assert files(tmp_path) == before
    found.settle()
    np.testing.assert_array_equal(found.vectors(found.find(keys)), vectors)
    again.add(keys[:1], np.zeros(1, np.uint8), vectors[:1])
    with pytest.raises(StorageError, match="read-only"):
        again.close()


# --- the command, on a data set of files


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    rng = np.random.default_rng(0)
    rows = []
    for book in "abcdef":
        (folder / "json" / book).mkdir(parents=True)
        (folder / "images" / book).mkdir(parents=True)
        for page in range(2):
            image = folder / "images" / book / f"{page}.png"
            Image.fromarray(rng.integers(0, 255, (90, 60, 3), dtype=np.uint8)).save(image)
            boxes = [[0, 0, 480, 1000], [520, 0, 1000, 480], [520, 520, 1000, 1000]]
            panels = [{"box_2d": b, "description": f"{book} {page} says {i}"} for i, b in enumerate(boxes)]
            (folder / "json" / book / f"{page}.json").write_text(json.dumps({"panels": panels}), encoding="utf-8")
            rows.append((f"{book}/{page}", str(image)))
    with (folder / "pages.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("canonical_id", "absolute_image_path"), *rows])
    return folder


def flags(dataset: Path, cache: Path) -> list[str]:
    return [
        *("build", "--manifest", str(dataset / "pages.csv"), "--panels", str(dataset / "json")),
        *("--cache_dir", str(cache), "--workers", "0", "--feature_batch", "5", "--device", "cpu"),
    ]


@pytest.mark.slow
def test_the_command_computes_in_shards_verifies_and_leaves_nothing_to_training(dataset, tmp_path, capsys):
    given = flags(dataset, tmp_path)
    with pytest.raises(StorageError, match=r"36 panels lack their image's vector .first: a/0#0.*without --verify"):
        features_main.main([*given, "--verify"])
    for shard in ("1/2", "0/2"):
        assert features_main.main([*given, "--shard", shard]) == 0
    assert "images computed" in capsys.readouterr().out
    assert features_main.main([*given, "--verify"]) == 0
    assert "complete: 36 panels" in capsys.readouterr().out
    assert features_main.main([*given, "--json"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (report["computed_images"], report["computed_texts"]) == (0, 0)
    from stage3.train.__main__ import main

    given = [*given[1:], "--run", str(tmp_path / "run"), "--epochs", "1", "--dim", "16", "--batch_pages", "4"]
    assert main(given) == 0
    found = json.loads((tmp_path / "run" / "data_report.json").read_text(encoding="utf-8"))["features"]
    assert (found["computed_images"], found["reused_images"]) == (0, 36)
    assert (found["computed_texts"], found["reused_texts"]) == (0, 36)


def test_a_damaged_segment_is_named_left_where_it_is_and_then_mended(dataset, tmp_path, capsys):
    given = flags(dataset, tmp_path)
    features_main.main(given)
    before = files(tmp_path)
    name = next(name for name in before if "/0000-i" in name and "m" * 16 in name)
    (tmp_path / name).write_bytes(before[name][:-3])
    capsys.readouterr()
    with pytest.raises(StorageError, match="1 segment is damaged"):
        features_main.main([*given, "--verify"])
    assert (tmp_path / name).exists()
    features_main.main(given)
    assert "features:damaged_segment 1" in capsys.readouterr().out
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--shard", "2/2"], "i from 0 to n - 1"),
        (["--shard", "half"], "such as 0/8"),
        (["--shard", "0/2", "--recompute_features"], "only one process"),
        (["--shard", "0/2", "--engine", "ray"], "Drop one"),
        (["--engine", "spark"], "not one of torch, ray"),
        (["--actors", "2"], "--engine ray"),
    ],
)
def test_usage_that_cannot_be_is_refused_with_a_remedy(dataset, tmp_path, more, message):
    with pytest.raises(ConfigError, match=message) as refused:
        features_main.main([*flags(dataset, tmp_path), *more])
    assert refused.value.exit_code == 2
    assert not (tmp_path / "features").exists()


def test_reports_of_several_processes_add_up():
    one, two = FeatureReport(computed_images=3, seconds=2.0), FeatureReport(computed_images=4, seconds=1.0)
    one.note("image:missing", "a.png")
    two.note("image:missing", "b.png", 2)
    whole = command.merged([one.to_dict(), two.to_dict()])
    assert (whole.computed_images, whole.seconds, whole.problems["image:missing"]) == (7, 2.0, 3)
    assert whole.examples["image:missing"] == ["a.png", "b.png"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray warns of its own defaults
def test_ray_leaves_the_files_of_one_process(dataset, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    if os.getloadavg()[0] > 2 * (os.cpu_count() or 1):
        pytest.skip("Ray gives itself 30 seconds to start, which it does not keep on a machine as busy as this one")
    from stage3.features import ray_engine

    monkeypatch.undo()  # actors are other processes: the real `tiny`
    config = Config(
        manifest=str(dataset / "pages.csv"), panels=str(dataset / "json"), workers=1, feature_batch=5, device="cpu"
    )
    torch.set_num_threads(1)
    command.build(config.replace(cache_dir=str(tmp_path / "alone")), progress=False)
    report = ray_engine.build(config.replace(cache_dir=str(tmp_path / "ray")), actors=1)
    assert (report.computed_images, report.computed_texts) == (36, 36)
    assert files(tmp_path / "ray") == files(tmp_path / "alone")
