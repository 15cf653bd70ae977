"""Every setting reaches the result: changing it changes weights, metrics, files, or what is refused; nothing is decor.

What may change when a run is resumed (`resume_free`) must on the other hand leave the weights as they are.
"""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from stage3.batches.dataset import Dataset
from stage3.config import FIELDS, Config, spec_of
from stage3.errors import Stage3Error
from stage3.runs import RunFolder
from stage3.samples import draw_books
from stage3.train.trainer import Trainer

pytestmark = pytest.mark.slow

CLOCKS = ("seconds", "panels_per_second")
CHANGES = {
    "panel_format": "ocr",
    "remap": (),
    "box_order": "xyxy",
    "box_unit": "pixels_of:2000x2000",
    "labels": "",
    "keep_labels": ("story", "cover"),
    "max_panels": 2,
    "text_parts": "dialogue",
    "max_skip_fraction": 0.0,
    "max_megapixels": 0.1,
    "truncated_images": True,
    "limit_pages": 24,
    "val_fraction": 0.5,
    "test_fraction": 0.4,
    "split_seed": 1,
    "vision_backbone": "siglip",
    "text_backbone": "minilm",
    "feature_dtype": "float32",
    "dim": 16,
    "gate_hidden": 8,
    "layout_hidden": 8,
    "dropout": 0.6,
    "feature_noise": 0.3,
    "panel_norm": False,
    "contrastive_weight": 2.0,
    "reconstruction_weight": 2.0,
    "alignment_weight": 2.0,
    "contrastive_temperature": 0.2,
    "alignment_temperature": 0.2,
    "temperature": 0.3,
    "learn_temperature": True,
    "leave_one_out": True,
    "normalize_target": True,
    "epochs": 3,
    "form": "plain",
    "use_layout": False,
    "layout_dropout": 0.5,
    "lr_panels": 0,
    "average_back": True,
    "batch_pages": 5,
    "lr": 1e-3,
    "weight_decay": 1.0,
    "warmup": 0.5,
    "grad_clip": 0.01,
    "finetune": "text",
    "finetune_lr": 1e-3,
    "finetune_layer_decay": 0.1,
    "finetune_augment": True,
    "sampler": "shuffled",
    "min_multi_pages": 0,
    "min_text_pairs": 40,
    "seed": 1,
    "select_by": "loss/total",
    "validate_every": 2,
    "log_every": 3,
    "precision": "bf16",
    "detach_target": False,
    "detach_context": True,
    "symmetric_alignment": False,
    "asymmetric_form": "t2i",
    "validation_dropout": True,
    "validation_random_mask": True,
    "singleton_anchors": True,
    "log_epsilon": 0.5,
    "identical_text_negatives": True,
    "residual_leak": True,
    "batch_means": True,
    "clip_scope": "none",
    "checkpoint_every": 2,
    "checkpoint_steps": 1,
    "keep_checkpoints": 1,
    "embed_every": 1,
    "patience": 1,
}
BESIDE = {  # what else has to be set for a change to show
    "asymmetric_form": {"symmetric_alignment": False},
    "clip_scope": {"grad_clip": 0.01},
    "finetune_lr": {"finetune": "text"},
    "finetune_layer_decay": {"finetune": "image", "finetune_lr": 1e-3},
    "finetune_augment": {"finetune": "image", "finetune_lr": 1e-3},
    # a checkpoint that is the best is written all the same
    "checkpoint_every": {"lr": 1e-9, "epochs": 4, "select_margin": 0.0},
    "keep_checkpoints": {"checkpoint_steps": 1},
    "patience": {"lr": 1e-9, "epochs": 4},
    "min_multi_pages": {"min_text_pairs": 0},
    "min_text_pairs": {"min_multi_pages": 0},
}
ELSEWHERE = {  # shown by other tests, since this little run cannot show it
    "data": "test_readers: a dataset.yaml instead of the parts",
    "manifest": "test_readers",
    "panels": "test_readers",
    "skip_bad_rows": "test_bad_input: without it such a manifest is refused",
    "max_without_box": "test_sight",
    "max_without_image": "test_sight",
    "allow_remote_images": "test_remote",
    "visual_fusion": "test_model: it takes two image backbones",
    "crop_fit": "test_model_folders: it takes a Hugging Face image backbone",
    "feature_batch": "test_features: vectors do not depend on it",
    "workers": "test_features: vectors do not depend on it",
    "cache_dir": "test_features",
    "recompute_features": "test_features",
    "finetune_checkpointing": "test_finetune: the gradients are the same, in less memory",
    "log_to": "test_sinks",
    "select_margin": "test_selection",
    "not_below_start": "test_selection",
    "device": "test_train_command",
    "threads": "test_train_command",
    "max_minutes": "test_trainer",
}


@pytest.fixture(scope="module")
def comics(tmp_path_factory) -> Path:
    """Drawn books with a broken panel file, an image cut short, a large one, and a text that repeats."""
    folder = tmp_path_factory.mktemp("comics") / "set"
    draw_books(folder, 8, seed=5, pages=5)
    pages = sorted((folder / "panels").glob("*/p00[1-4].json"))
    pages[0].write_text("{", encoding="utf-8")
    path_of_image = folder / "images" / pages[1].relative_to(folder / "panels").with_suffix(".png")
    path_of_image.write_bytes(path_of_image.read_bytes()[:-3000])
    path_of_image = folder / "images" / pages[2].relative_to(folder / "panels").with_suffix(".png")
    with Image.open(path_of_image) as image:
        image.resize((500, 700)).save(path_of_image)  # more than 0.1 megapixels
    for path in pages[2:]:
        page = json.loads(path.read_text(encoding="utf-8"))
        page["panels"][0] |= {"description": "Silence.", "text_content": []}
        path.write_text(json.dumps(page), encoding="utf-8")
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([head, *([page, "E:\\comics\\" + path] for page, path in rows)])
    return folder


@pytest.fixture(scope="module")
def outcome(comics, tmp_path_factory):
    """A function from settings to what a run with them leaves, or why it is refused; the same settings run once."""
    root, known, read = tmp_path_factory.mktemp("runs"), {}, {}
    base = {
        "manifest": str(comics / "manifest.csv"),
        "panels": str(comics / "panels"),
        "labels": str(comics / "labels.json"),
        "remap": (f"E:\\comics={comics}",),
        "cache_dir": str(root / "cache"),
        "max_skip_fraction": 0.5,
        "val_fraction": 0.3,
        "dim": 32,
        "epochs": 2,
        "batch_pages": 4,
        "keep_checkpoints": 0,
    }

    def run(**settings):
        key = repr(sorted(settings.items()))
        if key not in known:
            known[key] = _outcome(root / f"run{len(known)}", Config(**base | settings), read)
        return known[key]

    return run


def _outcome(path: Path, config: Config, read: dict[str, Dataset]) -> dict:
    """What a run leaves; data sets that were read once are not read again with the same settings of the data."""
    of_data = repr({n: v for n, v in config.to_dict().items() if spec_of(n).group in ("data", "features")})
    try:
        if of_data not in read:
            read[of_data] = Dataset.load(config, progress=False)
        data = replace(read[of_data], config=config)
        run = RunFolder.create(path, config)
        with run.lock():
            Trainer(run, data).fit(lambda: False)
    except Stage3Error as error:
        return {"refused": str(error)}
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        "weights": (run.checkpoints()[-1].path / "model.safetensors").read_bytes(),
        "rows": [{k: v for k, v in row.items() if k not in CLOCKS} for row in rows],
        "best": run.best(),
        "files": sorted(str(p.relative_to(path)) for p in path.rglob("*")),
    }


def test_no_setting_is_forgotten_here():
    assert set(CHANGES) | set(ELSEWHERE) == set(FIELDS)
    assert not set(CHANGES) & set(ELSEWHERE)


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_setting_changes_the_result(name, outcome):
    beside = BESIDE.get(name, {})
    before = outcome(**beside)
    assert "weights" in before
    assert outcome(**beside | {name: CHANGES[name]}) != before


@pytest.mark.parametrize("name", [n for n in CHANGES if spec_of(n).resume_free and spec_of(n).group == "run"])
def test_what_a_resumed_run_may_change_does_not_reach_the_weights(name, outcome):
    beside = BESIDE.get(name, {})
    assert outcome(**beside | {name: CHANGES[name]})["weights"] == outcome(**beside)["weights"]
