"""A bit that flips in what is cached is noticed, and the cached thing is made again: 200 flips each, by seed."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import app_support
import pandas as pd
import pytest

from stage3.config import Config
from stage3.data import readers
from stage3.data.readers import cache
from stage3.data.seal import SEAL, digest_of, is_sealed, seal
from stage3.features.page_digests import COLUMNS, PageDigests

FLIPS = 200


def flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sealed")
    app_support.write_comics(folder / "comics", books=3, pages=2, panels=3)
    config = Config(data=str(folder / "comics"), cache_dir=str(folder / "cache"), max_without_image=1.0)
    table = readers.read(config)
    [tables] = (folder / "cache" / "tables").iterdir()
    return config, table, tables


def same(a, b) -> bool:
    return a.panels.equals(b.panels) and a.pages.equals(b.pages)


def test_random_flips_in_a_cached_table_are_all_noticed(world, tmp_path):
    _, table, tables = world
    rng, taken = random.Random(7), 0
    names = sorted(p.name for p in tables.iterdir())
    assert {"panels.parquet", "pages.parquet", "report.json", "image_folders.json", SEAL} == set(names)
    copy = shutil.copytree(tables, tmp_path / "copy")
    assert same(cache._cached(copy), table)
    for i in range(FLIPS):
        name = names[i % len(names)]
        flip(copy / name, rng)
        taken += cache._cached(copy) is not None
        shutil.copyfile(tables / name, copy / name)
    assert taken == 0
    assert same(cache._cached(copy), table)


def test_a_damaged_table_is_made_again(world):
    config, table, tables = world
    flip(tables / "panels.parquet", random.Random(1))
    before = (tables / SEAL).stat().st_mtime_ns
    assert same(readers.read(config), table)
    assert is_sealed(tables)
    assert (tables / SEAL).stat().st_mtime_ns != before
    made = (tables / SEAL).stat().st_mtime_ns
    assert same(readers.read(config), table)
    assert (tables / SEAL).stat().st_mtime_ns == made, "an intact table is not made again"


@pytest.mark.parametrize(
    "harm",
    [
        lambda f: (f / SEAL).unlink(),
        lambda f: (f / SEAL).write_text("{}"),
        lambda f: (f / SEAL).write_text('{"files": [1]}'),
        lambda f: (f / "more").write_text(""),
        lambda f: (f / "a").unlink(),
        lambda f: (f / "a").write_text("tow"),
        lambda f: (f / "a").rename(f / "b"),
    ],
)
def test_a_seal_holds_for_just_these_files(tmp_path, harm):
    (tmp_path / "a").write_text("two")
    (tmp_path / "c").write_text("")
    seal(tmp_path)
    assert is_sealed(tmp_path)
    harm(tmp_path)
    assert not is_sealed(tmp_path)


def test_random_flips_in_what_is_known_of_page_files_never_give_other_digests(world, tmp_path):
    config, table, _ = world
    paths = [p for p in table.pages["image_path"] if p]
    digests = PageDigests(tmp_path, config)
    expected = {path: digests.look(path).digest for path in paths}
    digests.save()
    good, rng, noticed = (tmp_path / "pages.parquet").read_bytes(), random.Random(11), 0
    assert len(PageDigests(tmp_path, config)._rows) == len(expected) > 3
    for _ in range(FLIPS // 3):
        flip(tmp_path / "pages.parquet", rng)
        known = PageDigests(tmp_path, config)._rows
        noticed += not known
        assert not known or {p: bytes.fromhex(k.digest) for p, k in known.items()} == expected
        (tmp_path / "pages.parquet").write_bytes(good)
    assert noticed > FLIPS // 6
    frame = pd.DataFrame({name: pd.Series(["1", "2"]).astype(kind) for name, kind in COLUMNS.items()})
    swapped = frame.iloc[::-1].reset_index(drop=True)
    assert digest_of(frame) != digest_of(swapped)
    assert digest_of(frame) != digest_of(frame.rename(columns={"size": "pixels", "pixels": "size"}))
