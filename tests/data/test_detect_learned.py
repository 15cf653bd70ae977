"""Learned detectors, on a small random model that the tests save to a folder."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from stage3.data.detect import load_detector
from stage3.data.detect.learned import LEAST, LearnedDetector, overlap
from stage3.errors import DataError

LABELS = {0: "Text", 1: "Comic_Panel", 2: "face"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A YOLOS of a few thousand weights whose second class is panels; it says "panel" of every box."""
    from transformers import YolosConfig, YolosForObjectDetection
    from transformers.models.yolos.image_processing_pil_yolos import YolosImageProcessorPil

    torch.manual_seed(3)
    config = YolosConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=[64, 48],
        patch_size=16,
        num_detection_tokens=6,
        id2label=LABELS,
        label2id={label: i for i, label in LABELS.items()},
    )
    model = YolosForObjectDetection(config)
    with torch.no_grad():
        model.class_labels_classifier.layers[-1].bias.copy_(torch.tensor([-9.0, 6.0, -9.0, -9.0]))
        model.bbox_predictor.layers[-1].weight.mul_(40)
    path = tmp_path_factory.mktemp("yolos")
    model.save_pretrained(path)
    YolosImageProcessorPil(size={"height": 64, "width": 48}).save_pretrained(path)
    return path


def page(width=200, height=320):
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def test_a_folder_gives_boxes_in_pixels_of_the_page_as_the_model_itself_does(folder):
    detector = load_detector(str(folder))
    found = detector.find(page())
    assert len(found) > 0
    assert (found.confidence >= LEAST).all()
    assert (found.confidence <= 1).all()
    assert (np.diff(found.confidence) <= 0).all()
    with torch.inference_mode():
        outputs = detector.model(**detector.processor(images=page(), return_tensors="pt"))
    centers = outputs.pred_boxes[0].double().numpy() * [200, 320, 200, 320]  # center x, center y, w, h
    corner = np.clip(centers[:, :2] - centers[:, 2:] / 2, 0, [200, 320])
    end = np.clip(centers[:, :2] + centers[:, 2:] / 2, 0, [200, 320])
    expected = np.concatenate([corner, end - corner], axis=1)
    assert all(np.abs(expected - box).max(1).min() < 1e-3 for box in found.boxes)
    pairs = [(i, k) for i in range(len(found)) for k in range(i)]
    assert all(overlap(found.boxes[i], found.boxes[k]) <= 0.7 for i, k in pairs)


def test_a_gray_page_is_found_on_too(folder):
    gray = page().convert("L")
    found = load_detector(str(folder)).find(gray)
    assert np.array_equal(found.boxes, load_detector(str(folder)).find(gray.convert("RGB")).boxes)


def test_only_classes_that_are_panels_count(folder):
    assert len(LearnedDetector(str(folder), ["FACE"]).find(page())) == 0
    assert len(LearnedDetector(str(folder), ["face", "comic panel"]).find(page())) > 0


def test_a_model_without_panels_is_refused_with_its_classes(folder):
    with pytest.raises(DataError, match=r"Text, Comic_Panel, face.*Name its panel classes"):
        load_detector(str(folder), ["page"])


def test_a_model_that_is_not_here_says_how_to_get_it():
    with pytest.raises(DataError, match=r"detector 'someone/panels'.*hf download"):
        load_detector("someone/panels")


@pytest.mark.parametrize("damage", ["weights", "config", "processor", "key"])
def test_a_folder_that_is_no_detector_is_refused_by_name(damage, folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    if damage == "weights":
        (tmp_path / "model.safetensors").unlink()
    elif damage == "config":
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}), encoding="utf-8")
    elif damage == "processor":
        (tmp_path / "preprocessor_config.json").unlink()
    else:
        from safetensors.torch import load_file, save_file

        weights = load_file(tmp_path / "model.safetensors")
        weights.pop("bbox_predictor.layers.0.weight")
        save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=tmp_path.name):
        load_detector(str(tmp_path))


def test_remote_code_is_never_run(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "mine", "auto_map": {"AutoModelForObjectDetection": "code.Model", "AutoConfig": "code.C"}}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "code.py").write_text("raise SystemExit('ran')", encoding="utf-8")
    with pytest.raises(DataError, match="does not load"):
        load_detector(str(tmp_path))
