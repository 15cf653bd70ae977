"""The feature store: computed once, found by content, whole after any interruption, the same whatever the threads."""

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stage3 import features
from stage3.config import Config
from stage3.data import images
from stage3.data.table import DataReport, PanelTable
from stage3.errors import DataError, StorageError
from stage3.features import backbones, crops, loading, page_digests, store

SIZE = (120, 160)
QUADRANTS = [(0.0, 0.0, 0.5, 0.5), (0.5, 0.0, 0.5, 0.5), (0.0, 0.5, 0.5, 0.5), (0.5, 0.5, 0.5, 0.5)]


class CountingVision(backbones.VisionBackbone):
    """Mean colors of a 4 x 4 grid; counts what it is asked for, and mixes nothing between crops."""

    name, sizes, fingerprint, short_side = "counting", (48,), "c" * 64, 4
    parts_made = 0

    def __init__(self) -> None:
        self.calls: list[int] = []

    def prepare(self, image):
        return np.asarray(image.resize((4, 4), Image.Resampling.BOX), dtype=np.float32).ravel() / 255

    def encode_prepared(self, prepared):
        self.calls.append(len(prepared))
        return torch.from_numpy(np.stack(prepared))


class CountingText(backbones.TextBackbone):
    """Counts of letters; texts above 40 letters are cut."""

    name, size, fingerprint = "letters", 26, "t" * 64

    def __init__(self) -> None:
        self.calls: list[int] = []

    def encode_counted(self, texts):
        self.calls.append(len(texts))
        rows = [[t[:40].lower().count(chr(97 + i)) for i in range(26)] for t in texts]
        return torch.tensor(rows, dtype=torch.float32), [len(t) > 40 for t in texts]


class Refusing(CountingVision):
    def prepare(self, image):
        raise AssertionError("a crop was decoded though its features are stored")


class RefusingText(CountingText):
    def encode_counted(self, texts):
        raise AssertionError("a text was encoded though its features are stored")


@pytest.fixture
def use(monkeypatch):
    def use(vision=None, text=None):
        vision, text = vision or CountingVision(), text or CountingText()
        monkeypatch.setattr(loading, "resolve_vision", lambda *_: vision)
        monkeypatch.setattr(loading, "resolve_text", lambda *_: text)
        return vision, text

    return use


def comic(folder: Path, pages: int = 5, seed: int = 0) -> PanelTable:
    """Pages of four panels each; every second panel says something, some of them the same."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    panels = {
        c: []
        for c in (
            "panel_id",
            "page",
            "order",
            "source_index",
            "x",
            "y",
            "w",
            "h",
            "has_box",
            "dialogue",
            "description",
            "speakers",
        )
    }
    rows = {
        c: []
        for c in (
            "page_id",
            "book_id",
            "page_type",
            "image_path",
            "image_sha256",
            "width",
            "height",
            "overall_summary",
            "resolved_by",
            "first_panel",
            "n_panels",
        )
    }
    for page in range(pages):
        path = folder / f"p{page}.png"
        if not path.exists():
            Image.fromarray(rng.integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8)).save(path)
        for k, box in enumerate(QUADRANTS):
            text = "" if k % 2 else ("same words" if k else f"page {chr(97 + page) * (page + 1)}")
            values = (f"b/p{page}#{k}", page, k, k, *box, True, text, "", "")
            for column, value in zip(panels, values, strict=True):
                panels[column].append(value)
        values = (f"b/p{page}", "b", "story", str(path), "", *SIZE, "", "exact", 4 * page, 4)
        for column, value in zip(rows, values, strict=True):
            rows[column].append(value)
    return PanelTable.build(panels, rows, DataReport(pages_listed=pages, pages_kept=pages))


def config(tmp_path: Path, **changes) -> Config:
    return Config(cache_dir=str(tmp_path / "cache"), feature_batch=6, workers=0, feature_dtype="float32").replace(
        **changes
    )


def test_vectors_are_those_of_the_backbone_and_absent_ones_are_zero(tmp_path, use):
    vision, _text = use()
    table = comic(tmp_path / "pages")
    table.panels.loc[3, ["has_box"]] = False
    built = features.load_or_build(table, config(tmp_path), progress=False)
    image, words = built.gather(np.arange(len(table)))
    assert image.shape == (20, 48)
    assert words.shape == (20, 26)
    assert image.dtype == words.dtype == np.float32
    page = Image.open(tmp_path / "pages" / "p2.png")
    crop = page.crop((0, 80, 60, 160))  # panel 2 of page 2
    np.testing.assert_allclose(image[10], vision.prepare(crop), rtol=1e-6)
    assert words[8][ord("c") - 97] == 3  # "page ccc"
    assert built.image_rows[3] == -1
    assert not image[3].any()
    assert (built.text_rows[1::2] == -1).all()
    assert not words[1::2].any()
    assert built.image_sizes == (48,)
    assert (built.report.computed_images, built.report.computed_texts) == (19, 6)


def test_identical_texts_share_a_row(tmp_path, use):
    use()
    built = features.load_or_build(comic(tmp_path / "pages"), config(tmp_path), progress=False)
    assert len(set(built.text_rows[2::4])) == 1
    assert len(set(built.text_rows[0::4])) == 5
    assert built.text_rows[2] not in built.text_rows[0::4]


def test_a_second_build_decodes_and_computes_nothing(tmp_path, use):
    use()
    table = comic(tmp_path / "pages")
    first = features.load_or_build(table, config(tmp_path), progress=False)
    use(Refusing(), RefusingText())
    again = features.load_or_build(table, config(tmp_path, feature_batch=5), progress=False)
    assert again.report.computed_images == again.report.computed_texts == 0
    assert (again.report.reused_images, again.report.reused_texts) == (20, 6)
    assert again.fingerprint == first.fingerprint
    for a, b in zip(first.gather(np.arange(20)), again.gather(np.arange(20)), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(first.text_rows, again.text_rows)


def test_crops_are_known_by_content_not_by_name(tmp_path, use):
    use()
    features.load_or_build(comic(tmp_path / "pages"), config(tmp_path), progress=False)
    (tmp_path / "pages").rename(tmp_path / "moved")
    use(Refusing(), RefusingText())
    moved = comic(tmp_path / "moved")
    assert features.load_or_build(moved, config(tmp_path), progress=False).report.reused_images == 20
    path = tmp_path / "moved" / "p1.png"
    Image.new("RGB", SIZE, (9, 200, 30)).save(path)  # a new image under an old name
    os.utime(path, (1, 1))
    vision, _ = use()
    changed = features.load_or_build(moved, config(tmp_path), progress=False)
    assert sum(vision.calls) == 4
    np.testing.assert_allclose(changed.gather(np.array([4]))[0][0, :3], np.array([9, 200, 30]) / 255, rtol=1e-6)


@pytest.mark.parametrize("workers", [1, 4])
def test_threads_change_nothing(tmp_path, workers):
    table = comic(tmp_path / "pages", pages=9)
    results = []
    for n in (0, workers):
        settings = Config(cache_dir=str(tmp_path / f"cache{n}"), feature_batch=7, workers=n)
        built = features.load_or_build(table, settings, progress=False)  # the real tiny backbones
        results.append(built.gather(np.arange(len(table))))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])


def test_lost_images_lose_only_their_page_and_are_remembered(tmp_path, use):
    table = comic(tmp_path / "pages", pages=6)
    whole = (tmp_path / "pages" / "p1.png").read_bytes()
    (tmp_path / "pages" / "p1.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "pages" / "p3.png").unlink()
    (tmp_path / "pages" / "p4.png").unlink()
    (tmp_path / "pages" / "p4.png").mkdir()
    use()
    built = features.load_or_build(table, config(tmp_path), progress=False)
    lost = built.image_rows.reshape(6, 4) == -1
    assert lost.all(axis=1).tolist() == [False, True, False, True, True, False]
    assert lost.any(axis=1).tolist() == lost.all(axis=1).tolist()
    assert built.report.problems == {"image:truncated": 1, "image:missing": 1, "image:not_a_file": 1}
    assert table.report.counts["image:truncated"] == 1
    assert "p1.png" in table.report.examples["image:truncated"][0]
    assert (built.text_rows.reshape(6, 4)[:, 0] >= 0).all()  # the words of a lost page stay

    use(Refusing(), RefusingText())  # and the damaged file is not tried again
    again = features.load_or_build(table, config(tmp_path), progress=False)
    assert again.report.problems == built.report.problems
    assert table.report.counts["image:truncated"] == 1  # set, not added
    use()
    partly = features.load_or_build(table, config(tmp_path, truncated_images=True), progress=False)
    assert (partly.image_rows.reshape(6, 4)[1] >= 0).all()  # unless asked to be read as far as it goes


def test_a_changed_image_is_lost_where_the_manifest_has_its_sha256(tmp_path, use, monkeypatch):
    table = comic(tmp_path / "pages", pages=4)
    for page in (0, 1, 2):
        Image.open(tmp_path / "pages" / f"p{page}.png").save(tmp_path / "pages" / f"p{page}.png", "JPEG")
    sha256 = [hashlib.sha256((tmp_path / "pages" / f"p{page}.png").read_bytes()).hexdigest() for page in range(4)]
    for page in (1, 2):
        flipped = bytearray((tmp_path / "pages" / f"p{page}.png").read_bytes())
        flipped[-40] ^= 1
        (tmp_path / "pages" / f"p{page}.png").write_bytes(flipped)
    use()
    trusting = features.load_or_build(table, config(tmp_path), progress=False)
    assert (trusting.image_rows >= 0).all()  # a JPEG has no checksum: nothing else can tell
    table.pages["image_sha256"] = [sha256[0], sha256[1], "", sha256[3]]
    for _ in range(2):
        use(Refusing(), RefusingText())
        checked = features.load_or_build(table, config(tmp_path), progress=False)
        assert (checked.image_rows.reshape(4, 4) >= 0).all(axis=1).tolist() == [True, False, True, True]
        assert (checked.image_rows.reshape(4, 4) < 0).all(axis=1).tolist() == [False, True, False, False]
        assert (checked.text_rows >= 0).sum() == 8  # its words stay
        assert checked.report.problems == {"image:sha256": 1}
        assert table.report.counts["image:sha256"] == 1
        assert table.report.examples["image:sha256"] == [str(tmp_path / "pages" / "p1.png")]
        monkeypatch.setattr(page_digests, "_digests", None)  # from then on no file is read for it again


def test_the_sha256_costs_no_second_reading_of_a_new_file(tmp_path, use, monkeypatch):
    table = comic(tmp_path / "pages", pages=3)
    paths = table.pages["image_path"].tolist()
    table.pages["image_sha256"] = [hashlib.sha256(Path(p).read_bytes()).hexdigest() for p in paths]
    opened = []
    real = images.open_regular
    monkeypatch.setattr(page_digests.images, "open_regular", lambda path: opened.append(str(path)) or real(path))
    use()
    assert not features.load_or_build(table, config(tmp_path), progress=False).report.problems
    assert sorted(opened) == sorted([*paths, *paths])  # once for its digests, once to decode it


def test_first_frames_and_partial_images_are_counted_also_when_they_are_not_decoded_again(tmp_path, use):
    table = comic(tmp_path / "pages", pages=4)
    frames = [Image.open(tmp_path / "pages" / f"p{page}.png").copy() for page in (1, 0)]
    frames[0].save(tmp_path / "pages" / "p1.png", "GIF", save_all=True, append_images=frames[1:])
    whole = (tmp_path / "pages" / "p2.png").read_bytes()
    (tmp_path / "pages" / "p2.png").write_bytes(whole[: len(whole) // 2])
    for backbone in (CountingVision, Refusing):
        use(backbone(), CountingText())
        built = features.load_or_build(table, config(tmp_path, truncated_images=True), progress=False)
        assert built.report.problems == {"image:first_frame": 1, "image:read_partly": 1}
        assert "p1.png" in table.report.examples["image:first_frame"][0]
        assert "p2.png" in table.report.examples["image:read_partly"][0]
        assert (built.image_rows >= 0).all()
    use()
    whole_only = features.load_or_build(table, config(tmp_path), progress=False)
    assert whole_only.report.problems == {"image:first_frame": 1, "image:truncated": 1}


def test_joined_backbones_fill_one_store_each(tmp_path, use):
    class Other(CountingVision):
        name, sizes, fingerprint = "other", (3,), "o" * 64

        def prepare(self, image):
            return np.asarray(image.resize((1, 1), Image.Resampling.BOX), dtype=np.float32).ravel()

    table = comic(tmp_path / "pages")
    use(CountingVision())
    features.load_or_build(table, config(tmp_path), progress=False)
    first, second = Refusing(), Other()
    first.prepare = lambda image: None  # it is handed the crops that the other lacks, and must encode none
    first.encode_prepared = Refusing().prepare
    use(backbones.JoinedVision([first, second]))
    joined = features.load_or_build(table, config(tmp_path), progress=False)
    assert joined.image_sizes == (48, 3)
    assert sum(second.calls) == 20
    use(CountingVision())
    single = features.load_or_build(table, config(tmp_path), progress=False)
    np.testing.assert_array_equal(joined.gather(np.arange(20))[0][:, :48], single.gather(np.arange(20))[0])


def test_truncated_texts_are_counted_also_when_they_are_reused(tmp_path, use):
    table = comic(tmp_path / "pages")
    table.panels.loc[0, "dialogue"] = "a long speech " * 10
    for _ in range(2):
        use()
        built = features.load_or_build(table, config(tmp_path), progress=False)
        assert (built.report.truncated_texts, built.report.distinct_texts) == (1, 6)


def test_recomputing_replaces_what_is_stored(tmp_path, use):
    table = comic(tmp_path / "pages")
    use()
    features.load_or_build(table, config(tmp_path), progress=False)

    class Brighter(CountingVision):
        def prepare(self, image):
            return super().prepare(image) + 1

    use(Brighter())
    kept = features.load_or_build(table, config(tmp_path), progress=False)
    assert kept.gather(np.arange(20))[0].max() <= 1
    anew = features.load_or_build(table, config(tmp_path, recompute_features=True), progress=False)
    assert anew.report.computed_images == 20
    assert anew.gather(np.arange(20))[0].min() >= 1
    later = features.load_or_build(table, config(tmp_path), progress=False)
    np.testing.assert_array_equal(later.gather(np.arange(20))[0], anew.gather(np.arange(20))[0])
    assert len(list((tmp_path / "cache" / "features" / f"{'c' * 16}-float32").glob("*.safetensors"))) == 1


def test_shipped_features_are_found_and_never_written(tmp_path, use):
    use()
    table = comic(tmp_path / "pages")
    built = features.load_or_build(table, config(tmp_path), progress=False)
    shipped = tmp_path / "shipped"
    written = features.export(built, shipped)
    before = {p: p.stat().st_mtime_ns for p in written}
    use(Refusing(), RefusingText())
    fresh = config(tmp_path, cache_dir=str(tmp_path / "elsewhere"), feature_dtype="float16")
    found = features.load_or_build(table, fresh, shipped=shipped, progress=False)
    assert (found.report.computed_images, found.report.reused_images) == (0, 20)
    for a, b in zip(found.gather(np.arange(20)), built.gather(np.arange(20)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    assert {p: p.stat().st_mtime_ns for p in shipped.rglob("*") if p.is_file()} == before
    with pytest.raises(DataError, match="in memory"):
        features.export(features.FeatureSet.in_memory(np.zeros((2, 3)), np.zeros((2, 3))), shipped)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "garbage"])
def test_a_damaged_segment_is_named_set_aside_and_computed_again(tmp_path, use, damage):
    use()
    table = comic(tmp_path / "pages")
    first = features.load_or_build(table, config(tmp_path), progress=False)
    (segment,) = (tmp_path / "cache" / "features" / f"{'c' * 16}-float32").glob("*.safetensors")
    data = bytearray(segment.read_bytes())
    if damage == "flip":
        data[len(data) * 3 // 4] ^= 4
    segment.write_bytes({"cut": data[:-100], "empty": b"", "garbage": b"\xff" * 300}.get(damage, bytes(data)))
    vision, _ = use()
    again = features.load_or_build(table, config(tmp_path), progress=False)
    assert sum(vision.calls) == 20
    assert again.report.problems["features:damaged_segment"] == 1
    assert segment.name in again.report.examples["features:damaged_segment"][0]
    np.testing.assert_array_equal(first.gather(np.arange(20))[0], again.gather(np.arange(20))[0])
    use(Refusing())
    assert not features.load_or_build(table, config(tmp_path), progress=False).report.problems


@pytest.mark.slow
def test_a_killed_build_is_continued_with_the_same_vectors(tmp_path):
    table = comic(tmp_path / "pages", pages=24)
    table.save(tmp_path / "table")
    script = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from stage3 import features
        from stage3.features.backbones import tiny
        from stage3.features import store
        from stage3.config import Config
        from stage3.data.table import PanelTable
        store.SEAL_SECONDS = 0.0  # seal after every batch
        quick = tiny.TinyVision.encode_prepared
        def slow(self, prepared):
            time.sleep(0.05)
            print("batch", flush=True)
            return quick(self, prepared)
        tiny.TinyVision.encode_prepared = slow
        root = Path(sys.argv[1])
        config = Config(cache_dir=str(root / "killed"), feature_batch=8, workers=2)
        features.load_or_build(PanelTable.load(root / "table"), config, progress=False)
    """)
    settings = Config(cache_dir=str(tmp_path / "killed"), feature_batch=8, workers=2)
    done = 0
    for batches in (3, 2):  # killed twice
        process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(batches):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
        process.wait()
        process.stdout.close()
        done += batches - 1
    built = features.load_or_build(table, settings, progress=False)
    assert 8 * done <= built.report.reused_images < 96
    assert built.report.computed_images == 96 - built.report.reused_images
    unbroken = features.load_or_build(table, settings.replace(cache_dir=str(tmp_path / "unbroken")), progress=False)
    assert unbroken.report.reused_images == 0
    for a, b in zip(built.gather(np.arange(96)), unbroken.gather(np.arange(96)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not list((tmp_path / "killed").rglob(f"{store.TMP}*"))


@pytest.mark.slow
def test_two_processes_may_fill_one_store(tmp_path):
    table = comic(tmp_path / "pages", pages=12)
    table.save(tmp_path / "table")
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from stage3 import features
        from stage3.features import store
        from stage3.config import Config
        from stage3.data.table import PanelTable
        store.SEAL_SECONDS = 0.0
        root = Path(sys.argv[1])
        config = Config(cache_dir=str(root / "cache"), feature_batch=4, workers=1)
        features.load_or_build(PanelTable.load(root / "table"), config, progress=False)
    """)
    running = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) for _ in range(2)]
    assert [p.wait(60) for p in running] == [0, 0]
    settings = Config(cache_dir=str(tmp_path / "cache"), feature_batch=4, workers=0)
    both = features.load_or_build(table, settings, progress=False)
    assert both.report.computed_images == 0
    assert not both.report.problems
    alone = features.load_or_build(table, settings.replace(cache_dir=str(tmp_path / "alone")), progress=False)
    np.testing.assert_array_equal(both.gather(np.arange(48))[0], alone.gather(np.arange(48))[0])


def test_an_index_finds_the_first_row_of_every_key():
    rng = np.random.default_rng(0)
    index, truth = store.KeyIndex(), {}
    start = 0
    for _ in range(40):
        keys = [int(k).to_bytes(16, "big") for k in rng.integers(0, 500, size=int(rng.integers(1, 60)))]
        index.add(store.as_keys(keys), np.arange(start, start + len(keys)))
        for row, key in enumerate(keys, start):
            truth.setdefault(key, row)
        start += len(keys)
    asked = [int(k).to_bytes(16, "big") for k in range(600)]
    assert index.find(store.as_keys(asked)).tolist() == [truth.get(k, -1) for k in asked]


def test_large_sets_are_read_from_disk_and_give_the_same(tmp_path, use, monkeypatch):
    use()
    table = comic(tmp_path / "pages", pages=8)
    small = features.load_or_build(table, config(tmp_path), progress=False)
    monkeypatch.setattr(loading, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(crops, "SHARD_PAGES", 2)
    large = features.load_or_build(table, config(tmp_path, recompute_features=True), progress=False)
    assert isinstance(large.images, features.StoredRows)
    assert len(large.images.stores[0]._segments) > 3
    rows = np.random.default_rng(0).permutation(32)
    for a, b in zip(small.gather(rows), large.gather(rows), strict=True):
        np.testing.assert_array_equal(a, b)


def test_features_that_do_not_fit_are_refused_by_name(tmp_path, use):
    class Huge(CountingVision):
        def prepare(self, image):
            return super().prepare(image) + 1e6

    class Broken(CountingVision):
        def prepare(self, image):
            return super().prepare(image) * np.float32("nan")

    table = comic(tmp_path / "pages")
    use(Huge())
    with pytest.raises(DataError, match="set feature_dtype to float32"):
        features.load_or_build(table, config(tmp_path, feature_dtype="float16"), progress=False)
    use(Broken())
    with pytest.raises(DataError, match="not finite"):
        features.load_or_build(table, config(tmp_path), progress=False)


def test_in_memory_sets_obey_presence_and_text_identity():
    rng = np.random.default_rng(0)
    image, text = rng.normal(size=(4, 6)), rng.normal(size=(4, 5))
    built = features.FeatureSet.in_memory(
        image, text, has_image=[1, 1, 0, 1], has_text=[1, 0, 1, 1], text_ids=[7, 1, 7, 2], image_sizes=(4, 2)
    )
    assert built.text_rows[0] == built.text_rows[2] != built.text_rows[3]
    got_image, got_text = built.gather(np.array([2, 1, 0]))
    np.testing.assert_allclose(got_image, np.stack([np.zeros(6), image[1], image[0]]), rtol=1e-6)
    np.testing.assert_allclose(got_text, np.stack([text[0], np.zeros(5), text[0]]), rtol=1e-6)
    with pytest.raises(DataError, match="add up"):
        features.FeatureSet.in_memory(image, text, image_sizes=(4, 4))


def test_stale_leftovers_go_and_fresh_ones_stay(tmp_path):
    folder = tmp_path / "store"
    folder.mkdir()
    for name, age in ((".tmp-old-1", 7200), (".tmp-new-1", 0)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - age,) * 2)
    store.VectorStore(folder, 4, "float32")
    assert [p.name for p in folder.iterdir()] == [".tmp-new-1"]


def test_a_store_that_cannot_be_written_says_so(tmp_path, use):
    use()
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="features cannot be stored"):
        features.load_or_build(comic(tmp_path / "pages"), config(tmp_path), progress=False)


def test_duplicate_pages_are_encoded_once(tmp_path, use):
    table = comic(tmp_path / "pages", pages=6)
    (tmp_path / "pages" / "p5.png").write_bytes((tmp_path / "pages" / "p0.png").read_bytes())
    vision, _ = use()
    built = features.load_or_build(table, config(tmp_path), progress=False)
    assert sum(vision.calls) == 20
    assert built.image_rows[20:].tolist() == built.image_rows[:4].tolist()


def test_hostile_texts_never_stop_a_build(tmp_path, use):
    table = comic(tmp_path / "pages", pages=2)
    table.panels["dialogue"] = ["a\0b", "x" * 3_000_000, "x" * 4_000_000, " \n ", "🐱", "a b", "\u200b", "漫画"]
    use()
    built = features.load_or_build(table, config(tmp_path), progress=False)
    assert built.text_rows[3] == -1  # white space is no text
    assert built.text_rows[1] == built.text_rows[2]  # the same after the cut, and so the same vector
    assert built.text_rows[0] == built.text_rows[5]
    assert built.report.truncated_texts == 1
