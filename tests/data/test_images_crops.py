"""The crop store: the same pixels as decoding, made once."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stage3.crops import CropStore
from stage3.data import images

BOXES = np.array([[0, 0, 0.5, 0.5], [0.5, 0.25, 0.5, 0.75]], np.float32)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "page.png")
    return tmp_path / "page.png"


def test_crops_are_the_decoded_ones_and_made_once(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CropStore(tmp_path / "crops", 16)
    expected = [np.asarray(c) for c in images.decode_panels(page, BOXES, short_side=16, size=(16, 16))]
    first = store.panels(page, BOXES)
    np.testing.assert_array_equal(first, expected)
    assert not first.flags.writeable
    monkeypatch.setattr(images, "decode_panels", None)
    np.testing.assert_array_equal(CropStore(tmp_path / "crops", 16).panels(page, BOXES), expected)
    assert store.panels(page, BOXES[:0]).shape == (0, 16, 16, 3)


def test_changed_boxes_sides_and_images_make_new_crops(page: Path, tmp_path: Path) -> None:
    store = CropStore(tmp_path / "crops", 16)
    before = np.array(store.panels(page, BOXES))
    moved = store.panels(page, BOXES * np.float32(0.5))
    assert not np.array_equal(before, moved)
    assert CropStore(tmp_path / "crops", 8).panels(page, BOXES).shape == (2, 8, 8, 3)
    Image.new("RGB", (60, 90), "red").save(page)
    os.utime(page, (1, 1))
    np.testing.assert_array_equal(store.panels(page, BOXES)[..., 1], 0)


def test_a_cut_file_is_made_again_and_a_bad_image_leaves_none(page: Path, tmp_path: Path) -> None:
    store = CropStore(tmp_path / "crops", 16)
    before = np.array(store.panels(page, BOXES))
    (file,) = (tmp_path / "crops").rglob("*.u8")
    file.write_bytes(file.read_bytes()[:-1])
    np.testing.assert_array_equal(store.panels(page, BOXES), before)
    page.write_bytes(b"")
    with pytest.raises(images.ImageProblem, match="empty"):
        store.panels(page, BOXES)
    with pytest.raises(images.ImageProblem, match="missing"):
        store.panels(tmp_path / "none.png", BOXES)
    assert len(list((tmp_path / "crops").rglob("*.*"))) == 1
