"""What training changes of a crop: a little is cut off its edges, letters stay as they are read."""

import numpy as np
from PIL import Image

from stage3.data import images
from stage3.model import finetune

WIDTH, HEIGHT = 200, 100
# a pixel says where it stands: its column in red, its row in green
WHERE = np.stack([*np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT)), np.zeros((HEIGHT, WIDTH))], axis=2)
CROP = Image.fromarray(WHERE.astype(np.uint8))


def test_edges_are_cut_within_their_share_and_nothing_is_moved(monkeypatch):
    monkeypatch.setattr(finetune, "JITTER", 0.0)
    corners = []
    for seed in range(60):
        found = np.asarray(finetune.changed(CROP, np.random.default_rng(seed))).astype(int)
        height, width = found.shape[:2]
        left, top = found[0, 0, :2]
        np.testing.assert_array_equal(found, WHERE[top : top + height, left : left + width])  # neither mirrored
        corners.append((left, top, WIDTH - left - width, HEIGHT - top - height))
    least, most = np.min(corners, axis=0), np.max(corners, axis=0)
    assert (least >= 0).all()
    assert (most <= np.array([WIDTH, HEIGHT] * 2) * finetune.CUT + 1).all()
    assert (most >= np.array([WIDTH, HEIGHT] * 2) * finetune.CUT / 2).all()  # on every side
    again = [np.asarray(finetune.changed(CROP, np.random.default_rng(1))) for _ in range(2)]
    np.testing.assert_array_equal(*again)


def test_brightness_and_contrast_vary_within_their_share(monkeypatch):
    monkeypatch.setattr(finetune, "CUT", 0.0)
    flat = Image.new("RGB", (40, 40), (100, 100, 100))
    levels = [np.asarray(finetune.changed(flat, np.random.default_rng(s))).mean() for s in range(60)]
    assert 84 <= min(levels) < 92  # contrast leaves an even image as it is
    assert 108 < max(levels) <= 116
    halves = Image.fromarray(np.repeat([[60, 140]], 20, axis=1).repeat(40, axis=0).astype(np.uint8)).convert("RGB")
    found = [np.asarray(finetune.changed(halves, np.random.default_rng(s)), float) for s in range(60)]
    spans = [(f[:, -1].mean() - f[:, 0].mean()) / f.mean() for f in found]  # 80 / 100, whatever the brightness
    assert 0.66 <= min(spans) < 0.74
    assert 0.86 < max(spans) <= 0.94


def test_a_crop_that_is_hardly_there_is_left_whole(monkeypatch):
    monkeypatch.setattr(finetune, "JITTER", 0.0)
    monkeypatch.setattr(finetune, "CUT", 0.5)
    size = (40, images.MIN_SIDE)
    assert {finetune.changed(CROP.resize(size), np.random.default_rng(s)).size for s in range(20)} == {size}
