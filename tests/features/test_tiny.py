"""The tiny backbones that ship: small, whole, deterministic, and about images and words rather than about files."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from stage3.errors import ConfigError, StorageError
from stage3.features import backbones
from stage3.features.backbones import tiny
from tools import tiny_train


@pytest.fixture(scope="module")
def text():
    return backbones.resolve_text("tiny")


@pytest.fixture(scope="module")
def vision():
    return backbones.resolve_vision("tiny")


@pytest.fixture(scope="module")
def drawn():
    """The panels of a few freshly drawn books that no weights have seen."""
    return tiny_train.draw(6, seed=555, workers=1, pages=4)


def cosine(text, a: str, b: str) -> float:
    x = text.encode([a, b])
    return float(F.cosine_similarity(x[0], x[1], dim=0))


def test_what_ships_is_small_and_says_how_it_was_made():
    manifest = json.loads((tiny.WEIGHTS / "tiny.json").read_text(encoding="utf-8"))
    assert sum(p.stat().st_size for p in tiny.WEIGHTS.iterdir()) < 3_000_000
    assert manifest["about"]["seed"] != tiny_train.SAMPLE_SEED
    assert manifest["about"]["held_out_image"]["setting"] > 80  # per cent
    assert {"size", "mean", "std", "resample"} <= manifest["image"]["preprocessing"].keys()


def test_a_text_has_one_vector_whatever_stands_beside_it(text):
    words = ["a woman in a red dress runs", "", "¿Qué?!", "word " * 500]
    together = text.encode(words)
    assert together.shape == (4, text.size)
    assert torch.isfinite(together).all()
    torch.testing.assert_close(torch.cat([text.encode([w]) for w in words]), together, atol=1e-5, rtol=1e-4)
    assert text.encode_counted(words)[1] == [False, False, False, True]
    torch.testing.assert_close(text.encode(["A WOMAN in a red dress… runs!"]), together[:1], atol=1e-5, rtol=1e-4)


def test_words_that_training_never_saw_still_differ(text):
    strange = ["zorbl", "quinte", "ξένος", "漫画", "мороз", "zorbl quinte", "42"]
    unit = F.normalize(text.encode(strange), dim=1)
    similarity = unit @ unit.T - torch.eye(len(strange))
    assert similarity.max() < 0.95


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        ("she runs in the forest", "she sprints deep in the woods", "she sleeps in the kitchen"),
        ("a bunny in a red robe", "a hare in a scarlet robe", "a robot in a blue robe"),
        ("at night by the castle", "by moonlight at the fortress gate", "at noon on the beach"),
        ("he holds an umbrella", "he holds a parasol", "he holds a sword"),
        ("a pirate stands, looking angry", "a buccaneer stands, looking furious", "a pirate stands, looking relaxed"),
        ("a knight in the desert", "a knigt in the dessert", "a knight in the kitchen"),
    ],
)
def test_synonyms_and_misspellings_lie_close(text, one, same, other):
    assert cosine(text, one, same) > cosine(text, one, other)


def test_the_order_of_words_matters(text):
    assert cosine(text, "a red cat and a blue dog", "a blue cat and a red dog") < 0.9999


def test_crops_of_the_same_place_lie_closer(vision, drawn):
    features = F.normalize(tiny_train.image_features(vision.net, drawn.crops), dim=1)
    features = F.normalize(features - features.mean(dim=0), dim=1)
    similarity = features @ features.T
    setting = drawn.targets["setting"].argmax(dim=1)
    other_page = torch.from_numpy(drawn.books[:, None] != drawn.books[None])  # not merely the same drawing
    same = (setting[:, None] == setting[None]) & other_page
    assert same.any()
    assert similarity[same].mean() > similarity[~same & other_page].mean() + 0.1


def test_a_crop_has_one_vector_whatever_stands_beside_it(vision, drawn):
    images = [Image.fromarray(c) for c in drawn.crops[:40]]
    together = vision.encode(images)
    torch.testing.assert_close(vision.encode(images), together, atol=0, rtol=0)
    torch.testing.assert_close(
        torch.cat([vision.encode([i]) for i in images[30:35]]), together[30:35], atol=1e-4, rtol=1e-3
    )
    assert not any(m.training for m in vision.net.modules())
    assert vision.encode([]).shape == (0, *vision.sizes)


def test_its_own_preprocessing_is_used(vision):
    image = Image.new("RGB", (50, 80), (200, 100, 50))
    stack = vision.prepare(image)
    assert stack.shape == (vision.short_side, vision.short_side, 3)
    manifest = tiny_manifest("image")
    changed = {**manifest["preprocessing"], "mean": [0.1, 0.2, 0.3]}
    shifted = tiny.TinyVision(vision.net, {**manifest, "preprocessing": changed}, "x", "cpu")
    assert (shifted.encode([image]) - vision.encode([image])).abs().max() > 1e-3


def test_the_color_that_is_zero_to_it_is_the_mean_of_its_preprocessing(vision):
    blank = vision.prepare(Image.new("RGB", (30, 50), vision.zero_color))
    seen = (torch.tensor(blank).permute(2, 0, 1) / 255 - vision.mean) / vision.std
    assert seen.abs().max() < 0.02  # the mean color, rounded to whole numbers


def tiny_manifest(which: str) -> dict:
    return json.loads((tiny.WEIGHTS / "tiny.json").read_text(encoding="utf-8"))[which]


def test_damaged_or_missing_weights_are_refused(tmp_path):
    folder = tmp_path / "weights"
    shutil.copytree(tiny.WEIGHTS, folder)
    original = tiny.load_text(folder=folder).fingerprint
    assert original == backbones.resolve_text("tiny").fingerprint
    path = folder / "tiny_text.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(StorageError, match="does not match its manifest"):
        tiny.load_text(folder=folder)
    path.unlink()
    with pytest.raises(StorageError, match="cannot be read"):
        tiny.load_text(folder=folder)
    manifest = json.loads((folder / "tiny.json").read_text())
    manifest["image"]["preprocessing"]["std"][0] *= 1.01
    (folder / "tiny.json").write_text(json.dumps(manifest))
    assert tiny.load_vision(folder=folder).fingerprint != backbones.resolve_vision("tiny").fingerprint


def test_the_command_that_makes_the_weights_learns_and_keeps(tmp_path, drawn):
    image, heads = tiny_train.train_image(drawn, seed=1, epochs=1)
    words, _ = tiny_train.train_text(tiny_train.write(300, seed=1), seed=1, epochs=1)
    tiny_train.keep(tmp_path, image, words, {"seed": 1})
    loaded = tiny.load_vision(folder=tmp_path)
    expected = tiny_train.image_features(image, drawn.crops[:8])
    kept = tiny_train.image_features(loaded.net, drawn.crops[:8])
    torch.testing.assert_close(kept, expected, atol=0.02, rtol=0.02)  # stored as float16
    assert set(tiny_train.scores(kept, heads, {k: v[:8] for k, v in drawn.targets.items()})) == set(
        tiny_train.classes()
    )
    assert tiny.load_text(folder=tmp_path).encode(["a cat"]).shape == (1, 128 + tiny_train.TEXT["fixed"])
    with pytest.raises(ConfigError, match="seed other than 0"):
        tiny_train.main(["--out", str(tmp_path), "--seed", "0"])


def test_drawing_does_not_depend_on_the_number_of_processes_and_facts_become_targets():
    panels = tiny_train.write(40, seed=3)
    again = tiny_train.write(40, seed=3)
    assert panels.description == again.description
    assert len(panels) == len(panels.targets["setting"])
    for name in tiny_train.ONE:
        assert (panels.targets[name].sum(dim=1) == 1).all(), name
    assert (panels.targets["kind"].sum(dim=1) <= panels.targets["people"].argmax(dim=1)).all()
    who = {"kind": "cat", "hair": "none", "clothes": "coat", "clothes_color": "red", "action": "run", "emotion": "sad"}
    fact = {"setting": "city", "time": "night", "shot": "long", "props": ["cake"], "characters": [who]}
    target = tiny_train.targets_of([fact])
    named = {k: [tiny_train.classes()[k][i] for i in v[0].nonzero().ravel()] for k, v in target.items()}
    assert named["kind*clothes_color"] == ["cat red"]
    assert named["props"] == ["cake"]
    assert named["people"] == ["1"]
    assert np.isclose(sum(float(v.sum()) for v in target.values()), 14)


def test_the_command_ends_with_loadable_weights_and_its_drawings_are_kept(tmp_path, capsys):
    flags = ["--books", "2", "--epochs", "1", "--written", "64", "--workers", "1", "--drawn", str(tmp_path / "drawn")]
    assert tiny_train.main(["--out", str(tmp_path / "one"), "--seed", "7", *flags]) == 0
    assert "wrote" in capsys.readouterr().out
    assert len(list((tmp_path / "drawn").iterdir())) == 2
    assert tiny_train.main(["--out", str(tmp_path / "two"), "--seed", "7", *flags]) == 0  # drawn once, learned twice
    for name in ("tiny_image.safetensors", "tiny_text.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    vision = tiny.load_vision(folder=tmp_path / "one")
    panels = tiny_train.drawn(tmp_path / "drawn", 2, 7, 1)
    features = tiny_train.image_features(vision.net, panels.crops)
    assert features.mean(dim=0).abs().max() < 0.1  # standardized on what it learned from
    assert 0.9 < float(features.square().mean()) < 1.1
