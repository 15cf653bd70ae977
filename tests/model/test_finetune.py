"""Trained backbones: at learning rate 0 they are the frozen ones, and everything they do can be resumed and used."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import normalize

from stage3.api import Run
from stage3.batches import IMAGE, generator
from stage3.batches.dataset import Dataset
from stage3.config import Config
from stage3.errors import ConfigError, DataError, Interrupted, StorageError
from stage3.features.backbones import pretrained, resolve_text, resolve_vision
from stage3.model import embedding, mapped
from stage3.model.finetune import Tuned, depths_of
from stage3.runs import RunFolder
from stage3.runs.tuned import backbones_of, seen_by
from stage3.train.optimizer import decays
from stage3.train.trainer import Trainer
from tests import synthetic

pytestmark = pytest.mark.slow

SETTINGS = {
    **synthetic.SMALL,
    "data": "data/samples",
    "limit_pages": 36,
    "val_fraction": 0.25,
    "test_fraction": 0.2,
    "feature_dtype": "float32",
    "grad_clip": 0.05,
    "batch_pages": 8,
}
CLOCKS = ("seconds", "panels_per_second", "finetune_lr")


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> dict:
    return {**SETTINGS, "cache_dir": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture(scope="module")
def data(settings) -> Dataset:
    return Dataset.load(Config.from_mapping(settings), progress=False)


def trainer_of(path: Path, settings: dict, data: Dataset, **changes) -> Trainer:
    run = RunFolder.create(path, Config.from_mapping({**settings, **changes}))
    run.write_json("data", data.identity())
    return Trainer(run, data)


def fitted(trainer: Trainer) -> Trainer:
    with trainer.run.lock():
        trainer.fit(lambda: False)
    return trainer


@pytest.fixture(scope="module")
def tuned(settings, data, tmp_path_factory) -> Trainer:
    """A finished run whose backbones clearly moved."""
    path = tmp_path_factory.mktemp("runs") / "tuned"
    return fitted(trainer_of(path, settings, data, finetune="both", finetune_lr=1e-3, finetune_augment=True))


def rows(run: RunFolder) -> list[dict]:
    lines = (run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in CLOCKS} for line in lines]


def everything_in(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# --- the seam


def test_features_on_the_graph_are_those_of_the_store(settings, data):
    made = Tuned(Config.from_mapping({**settings, "finetune": "both"}), data, torch.device("cpu"))
    for pages in np.array_split(data.pages("all"), 4):
        batch = data.panel_set.batch(pages)
        crops = [crop for page in pages for crop in made.crops.of_page(page)]
        found = made(batch, crops)
        torch.testing.assert_close(found.image, batch.image, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.text, batch.text, atol=1e-5, rtol=1e-5)
        assert found.image.requires_grad
        assert found.text.requires_grad
        assert not found.image[~batch.present[:, IMAGE]].any()


def test_at_learning_rate_0_a_run_is_the_frozen_run(settings, data, tmp_path):
    small = {**settings, "lr": 1e-4}  # AdamW turns last bits into whole steps
    frozen = fitted(trainer_of(tmp_path / "frozen", small, data))
    still = trainer_of(tmp_path / "still", small, data, finetune="both", finetune_lr=0.0)
    before = {name: t.clone() for name, t in still.tuned.state_dict().items()}
    fitted(still)
    pulled = [p.grad for p in still.tuned.parameters() if p.grad is not None]
    assert sum(float(g.abs().sum()) for g in pulled) > 0, "nothing reached the backbones"
    assert all(torch.equal(before[name], t) for name, t in still.tuned.state_dict().items())
    ours, theirs = rows(still.run), rows(frozen.run)
    assert len(ours) == len(theirs) > 6
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.keys() == other.keys()
        for name, value in other.items():
            assert value == mine[name] or mine[name] == pytest.approx(value, rel=1e-5, abs=1e-5), name


def test_weights_move_but_the_statistics_of_batch_norm_do_not(tuned):
    start = Tuned(tuned.config, tuned.data, torch.device("cpu")).state_dict()
    now = tuned.tuned.state_dict()
    statistics = [n for n in now if n.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    assert statistics
    assert all(torch.equal(start[name], now[name]) for name in statistics)
    for kind in ("image", "text"):
        moved = [n for n in now if f"backbone-{kind}" in n and not torch.equal(start[n], now[n])]
        assert moved, kind
    assert not any(module.training for module in tuned.tuned.modules())


def gradients(settings, data, **changes) -> dict[str, torch.Tensor]:
    config = Config.from_mapping({**settings, "finetune": "both", "feature_noise": 0.0, "dropout": 0.0, **changes})
    from stage3.model import EncoderSpec
    from stage3.model.objectives import Stage3

    made = Tuned(config, data, torch.device("cpu"))
    spec = EncoderSpec.of(config, data.features.image_sizes, data.features.text_dim)
    model = synthetic.under_way(Stage3.initialized(spec, config, seed=3))
    pages = data.pages("train")[:6]
    crops = [crop for page in pages for crop in made.crops.of_page(page)]
    model(made(data.panel_set.batch(pages), crops), generator(1)).total.backward()
    return {name: p.grad for name, p in made.named_parameters() if p.grad is not None}


def test_computing_activations_again_gives_the_same_gradients(settings, data):
    kept = gradients(settings, data)
    again = gradients(settings, data, finetune_checkpointing=True)
    assert kept.keys() == again.keys()
    assert len(kept) > 20
    for name, gradient in kept.items():
        assert torch.equal(gradient, again[name]), name


def test_each_block_learns_more_slowly_than_the_next(settings, data):
    changes = {"finetune": "image", "finetune_lr": 0.01, "finetune_layer_decay": 0.5, "weight_decay": 0.3}
    made = Tuned(Config.from_mapping({**settings, **changes}), data, torch.device("cpu"))
    names = {id(p): name.split("backbone-image.")[1] for name, p in made.named_parameters()}
    found = {
        names[id(p)]: (g["rate"], g["weight_decay"]) for g in made.groups(decays) for p in g["params"]
    }  # by the name of each
    blocks = len(made.vision.net.stages)
    assert found["project.weight"] == (0.01, 0.3)
    assert found["project.bias"] == (0.01, 0.0)
    assert found[f"stages.{blocks - 1}.conv1.weight"] == (0.005, 0.3)
    assert found["stages.0.norm1.weight"] == (0.01 * 0.5**blocks, 0.0)
    assert found["stem.weight"] == (0.01 * 0.5 ** (blocks + 1), 0.3)
    assert depths_of(["encoder.layer.10.a.0.weight", "encoder.layer.11.b.weight"]) == [1, 2]


def test_changed_crops_depend_on_seed_step_and_panel_alone(settings, data):
    page = int(data.pages("train")[0])

    def crops(step: int, **changes) -> np.ndarray:
        config = Config.from_mapping({**settings, "finetune": "image", "finetune_augment": True, **changes})
        return np.stack(Tuned(config, data, torch.device("cpu")).crops.of_page(page, step))

    plain, first = crops(0), crops(1)
    assert np.array_equal(plain, crops(1, finetune_augment=False))
    assert np.array_equal(first, crops(1, workers=0))
    assert not np.array_equal(first, crops(2))
    assert not np.array_equal(first, crops(1, seed=1))
    difference = np.abs(first.astype(float) - plain).mean(axis=(1, 2, 3))
    assert (difference > 0).all()
    assert (difference < 64).all()


# --- checkpoints


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(settings, data, tuned, tmp_path):
    changes = {"finetune": "both", "finetune_lr": 1e-3, "finetune_augment": True, "workers": 0}
    first = trainer_of(tmp_path / "parts", settings, data, **changes)
    with first.run.lock(), pytest.raises(Interrupted):
        first.fit(lambda: first.step >= 3)
    second = Trainer(first.run, data)
    second.resume(first.run.load_checkpoint(check=second.check))
    fitted(second)
    ours, theirs = (everything_in(run.checkpoints()[-1].path) for run in (second.run, tuned.run))
    assert "backbone-image/tiny_image.safetensors" in ours
    assert ours == theirs
    assert rows(second.run) == rows(tuned.run)


def test_a_changed_byte_of_a_backbone_damages_its_checkpoint(settings, data, tmp_path):
    done = fitted(trainer_of(tmp_path / "run", settings, data, finetune="text", epochs=1))
    folder = done.run.checkpoints()[-1].path
    assert not (folder / "backbone-image").exists()
    assert done.run.checkpoint().path == folder or done.run.best()
    file = folder / "backbone-text" / "tiny_text.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(StorageError, match=r"backbone-text/tiny_text.safetensors: damaged, its SHA-256"):
        done.run.load_checkpoint(done.run.checkpoints()[-1].step)
    file.unlink()
    with pytest.raises(StorageError, match="backbone-text"):
        done.run.load_checkpoint(done.run.checkpoints()[-1].step)


# --- use


def test_everything_reads_by_the_backbones_of_the_checkpoint(tuned, data, tmp_path, monkeypatch):
    from app.store import loaders
    from stage3.projection import maps
    from stage3.search import Searcher

    run = Run.load(tuned.run.path)
    step = run.checkpoints()[-1].step
    assert step > 0
    seen = seen_by(run, step, run.data)
    moved = np.abs(seen.features.gather(np.arange(9))[0] - data.features.gather(np.arange(9))[0]).max()
    assert moved > 1e-3
    tuned.tuned.load(run.checkpoint(step).path)
    pages = data.pages("val")
    expected = embedding.embed(run.model(step), tuned.panel_set(pages), pages)
    row = next(r for r in rows(tuned.run) if r["split"] == "val" and r["step"] == step)
    report = run.evaluate(split="val", checkpoint=step)
    for name in (n for n in row if n.startswith(("retrieval/", "loss/", "collapse/"))):
        assert report[name] == row[name] or report[name] == pytest.approx(row[name], abs=2e-4), name
    frozen = run.data.panel_set
    assert report["added"]["frozen"] != report["added"]["trained"]
    found = run.embeddings("val", checkpoint=step)
    torch.testing.assert_close(torch.tensor(found.to_numpy(copy=True)), expected.panel, atol=1e-4, rtol=1e-4)
    wrong = embedding.embed(run.model(step), frozen, pages).panel
    assert float((wrong - expected.panel).abs().max()) > 1e-2
    everywhere = embedding.embed(run.model(step), seen.panel_set, data.pages("all")).panel
    searcher = run.searcher(checkpoint=step)
    assert isinstance(searcher, Searcher)
    assert torch.equal(searcher.embedded.panel, everywhere)
    assert searcher.names == backbones_of(run, step)
    assert Path(searcher.names[0]).name == "backbone-image"
    assert torch.equal(loaders.embedded(RunFolder.load(run.path), step).panel, everywhere)
    precision = run.diagnose(split="val", checkpoint=step).numbers["retrieval/same_page_r_precision"]
    assert precision == pytest.approx(report["retrieval/same_page_r_precision"])
    given: list = []
    frame = pd.DataFrame({"row": np.arange(len(everywhere)), "fitted": True})
    frame.attrs["about"] = {"table": data.table.fingerprint()}
    monkeypatch.setattr(maps.files, "load", lambda path: frame)
    monkeypatch.setattr(maps, "write_atlas", lambda out, frame, data, parts, x: given.append(x) or "")
    maps.atlas_of_run(RunFolder.load(run.path), tmp_path / "x.parquet", checkpoint=step)
    assert np.array_equal(given[0], everywhere.numpy())
    monkeypatch.setattr(mapped, "LARGE_BYTES", 2**10)  # the same, from files
    large = Searcher.of_run(run, checkpoint=step, cache=tmp_path)
    assert isinstance(large.embedded, mapped.Mapped)
    kept = large.gallery("panel")[0].rows_at(np.arange(len(everywhere)))
    np.testing.assert_allclose(kept, normalize(everywhere, dim=1).numpy(), atol=5e-4)
    asked, known = large.from_panel(20, "image"), searcher.from_panel(20, "image")
    assert large.search(asked, "text", 1).rows.tolist() == searcher.search(known, "text", 1).rows.tolist()


def test_the_export_holds_the_tuned_embeddings(tuned, tmp_path):
    import stage3

    run = Run.load(tuned.run.path)
    step = run.checkpoints()[-1].step
    run.export(tmp_path / "x.zarr", split="val", checkpoint=step)
    store = stage3.open_store(tmp_path / "x.zarr")
    kept = np.asarray(store.embeddings)[np.asarray(store.masks)]
    np.testing.assert_allclose(kept, run.embeddings("val", checkpoint=step).to_numpy(), atol=1e-5)


# --- models from Hugging Face folders


@pytest.fixture
def nothing_probed_before(monkeypatch):
    monkeypatch.setattr(pretrained, "_sizes", {})
    torch.manual_seed(0)


def tower_folders(folder: Path) -> dict[str, tuple]:
    from tests.features import test_joint_space as joint
    from tests.features import test_model_folders as single

    crops, texts = joint.drawings(), ["the red cat", "jumps"]
    vit = single.saved(folder / "vit", single.vit(), single.square("ViT"))
    return {
        "siglip": (resolve_vision(str(joint.siglip(folder / "siglip"))), crops, resolve_vision),
        "siglip text": (resolve_text(str(folder / "siglip")), texts, resolve_text),
        "vit": (resolve_vision(vit), crops, resolve_vision),
        "sentence": (resolve_text(str(single.sentence_folder(folder / "s", "mean", dense=8))), texts, resolve_text),
    }


def test_a_changed_model_is_saved_as_a_folder_that_gives_its_features(tmp_path, nothing_probed_before):
    for name, (backbone, inputs, resolve) in tower_folders(tmp_path).items():
        prepared = [backbone.prepare(x) for x in inputs] if resolve is resolve_vision else inputs
        before = backbone.encode(inputs)
        net = backbone.net.requires_grad_(True)
        found = backbone.in_graph(prepared)
        torch.testing.assert_close(found.detach(), before, atol=1e-5, rtol=1e-5)
        found.square().sum().backward()
        with torch.no_grad():
            for parameter in (p for p in net.parameters() if p.grad is not None):
                parameter -= 0.1 * parameter.grad / parameter.grad.abs().max().clamp(min=1e-9)
        now = backbone.encode(inputs)
        assert float((now - before).abs().max()) > 1e-3, name
        out = tmp_path / f"saved {name}"
        for file, content in backbone.saved().items():
            (out / file).parent.mkdir(parents=True, exist_ok=True)
            (out / file).write_bytes(content)
        again = resolve(str(out))
        assert again.fingerprint != backbone.fingerprint
        ours, theirs = backbone.net.state_dict(), again.net.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items()), name
        assert float((again.encode(inputs) - now).abs().max() / now.abs().max()) < 1e-6, name


# --- what cannot be trained


def test_a_data_set_without_what_is_trained_is_refused(settings, data):
    config = Config.from_mapping({**settings, "finetune": "both"})
    none = np.full_like(data.features.image_rows, -1)
    without = {"image": replace(data.features, image_rows=none), "text": replace(data.features, text_rows=none)}
    for kind, features in without.items():
        with pytest.raises(DataError, match=f"no training panel has an? {kind}"):
            Tuned(config.replace(finetune=kind), replace(data, features=features), torch.device("cpu"))
    in_memory = synthetic.dataset()
    with pytest.raises(DataError, match=r"images of (\d+) of \1 training and validation pages are not there"):
        Tuned(config, in_memory, torch.device("cpu"))


def test_stored_features_alone_are_not_enough(settings, data):
    pages = data.table.pages.copy()
    first = int(data.pages("train")[0])
    pages.loc[first, "image_path"] = "/gone/page.png"
    table = replace(data.table, pages=pages)
    config = Config.from_mapping({**settings, "finetune": "image"})
    with pytest.raises(
        DataError, match=r"images of 1 of \d+ .* the first is '/gone/page.png'.*--finetune text or none"
    ):
        Tuned(config, replace(data, table=table), torch.device("cpu"))
    made = Tuned(config, data, torch.device("cpu"))
    made.crops.paths = pages["image_path"]
    with pytest.raises(DataError, match=r"reads every image anew.*missing: /gone/page.png"):
        made.crops.of_page(first)


@pytest.mark.parametrize("name", ["average_back", "residual_leak"])
def test_what_only_frozen_features_can_have_is_refused(name):
    with pytest.raises(ConfigError, match=f"{name}: is not possible with finetune text"):
        Config(finetune="text", **{name: True})
    assert math.isclose(Config(finetune="text").finetune_lr, 1e-5)
