"""Columns that are read from a mapped file are those of the table, whatever happens to the file."""

from __future__ import annotations

from pathlib import Path

import app_support
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from stage3.config import Config
from stage3.data import column_file, readers, table
from stage3.errors import StorageError
from stage3.features.texts import Texts


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Settings of comics whose table is cached, and the table as it is held in memory."""
    folder = tmp_path_factory.mktemp("texts")
    app_support.write_comics(folder / "comics", books=3, pages=2, panels=3)
    config = Config(data=str(folder / "comics"), cache_dir=str(folder / "cache"), max_without_image=1.0)
    return config, readers.read(config)


@pytest.fixture
def mapped(world, monkeypatch):
    """The same table, its texts in files; and these files."""
    config, _ = world
    monkeypatch.setattr(column_file, "MAPPED_FROM", 0)
    monkeypatch.setattr(column_file, "SMALL", 0)
    monkeypatch.setattr(table, "AT_ONCE", 4)  # 18 panels are five parts
    return readers.read(config), sorted((Path(config.cache_dir) / "texts").iterdir())


def test_a_table_whose_texts_are_mapped_is_the_same_table(world, mapped):
    held, (found, files) = world[1], mapped
    assert (len(held.mapped), len(found.mapped), len(files)) == (0, 2, 2)
    for _ in range(2):
        pd.testing.assert_frame_equal(found.panels, held.panels, check_exact=True)
        pd.testing.assert_frame_equal(found.pages, held.pages, check_exact=True)
        assert found.fingerprint() == held.fingerprint()
        assert list(found.text_column("description+dialogue")) == held.texts("description+dialogue")
        np.testing.assert_array_equal(found.has_text("dialogue"), held.has_text("dialogue"))
        np.testing.assert_array_equal(Texts(found, "dialogue").distinct, Texts(held, "dialogue").distinct)
        found.give_back()  # and they are read again
    ids = found.panels["panel_id"].array
    assert pa.array(ids).buffers()[2].address == found.mapped[0].columns["panel_id"].buffers()[2].address


def test_any_bit_that_flips_is_noticed_and_the_file_made_again(world, mapped):
    config, held = world
    for path in mapped[1]:
        whole = path.read_bytes()
        for at in np.linspace(0, len(whole) - 1, 40).astype(int):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
            with pytest.raises(StorageError, match="damaged"):
                column_file.ColumnFile(path)
        for cut in (b"", whole[:20], whole[:-1], whole + b"x"):
            path.write_bytes(cut)
            with pytest.raises(StorageError, match="damaged"):
                column_file.ColumnFile(path)
        assert readers.read(config).panels.equals(held.panels)
        assert path.read_bytes() == whole


def test_where_no_file_can_be_made_texts_are_held_in_memory(world, monkeypatch):
    config, held = world

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(column_file, "MAPPED_FROM", 0)
    monkeypatch.setattr(column_file, "SMALL", 0)
    monkeypatch.setattr(column_file, "make_folder", full)
    monkeypatch.setattr(column_file, "mapped_intact", full)
    found = readers.read(config)
    assert not found.mapped
    assert found.panels.equals(held.panels)


def test_columns_come_back_from_parts_of_any_kind_and_missing_values_are_refused(tmp_path, monkeypatch):
    texts = ["", "é", "漫画", "a\0b", "", "x" * 70, "last"]
    whole = pa.array(texts, pa.large_string())
    cuts = ((0, 3), (3, 3), (3, 7))
    parts = [{"a": whole[i:j], "b": pa.array(texts[i:j][::-1], pa.large_string())} for i, j in cuts]
    numbers = np.arange(7, dtype=np.float32)[::-1], np.arange(7) % 3 == 0
    parts = [part | {"c": numbers[0][i:j], "d": numbers[1][i:j]} for part, (i, j) in zip(parts, cuts, strict=True)]
    column_file.write(tmp_path / "x", parts, {"n": 7})
    file = column_file.ColumnFile(tmp_path / "x")
    found = file.columns
    for name, expected in zip("cd", numbers, strict=True):
        np.testing.assert_array_equal(found[name], expected)
    assert file.frame().dtypes.astype(str).to_dict() == {"a": "str", "b": "str", "c": "float32", "d": "bool"}
    assert file.about == {"n": 7}
    monkeypatch.setattr(column_file, "FORMAT", 0)
    with pytest.raises(StorageError, match="another version"):
        column_file.ColumnFile(tmp_path / "x")
    assert found["a"].to_pylist() == texts
    assert found["b"].to_pylist() == [*texts[:3][::-1], *texts[3:][::-1]]
    with pytest.raises(StorageError, match="'a' has missing values"):
        column_file.write(tmp_path / "y", [{"a": pa.array(["x", None], pa.large_string())}])


def test_files_that_were_not_used_for_long_are_removed(world, mapped, tmp_path, monkeypatch):
    monkeypatch.setattr(column_file, "MOST", 2)
    config = world[0].replace(cache_dir=str(tmp_path))
    readers.read(config)
    old = set((tmp_path / "texts").iterdir())
    readers.read(config.replace(limit_pages=3))
    left = set((tmp_path / "texts").iterdir())
    assert (len(old), len(left), old & left) == (2, 2, set())
