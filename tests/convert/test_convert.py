"""A checkpoint file becomes a run that every command opens, and a file that is no checkpoint becomes an error."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import forked_children
import numpy as np
import pytest
import torch
from PIL import Image

import stage3
from app.addresses import VIEWS
from stage3 import Run
from stage3.batches import Dataset, PanelBatch
from stage3.convert import __main__ as convert_command
from stage3.convert import convert_checkpoint, opening
from stage3.convert.child import Refused, check_archive, read
from stage3.convert.opening import open_checkpoint
from stage3.data.table import LAYOUT_MEANING
from stage3.diagnose import __main__ as diagnose_command
from stage3.embed import __main__ as embed_command
from stage3.errors import ConfigError, DataError, StorageError
from stage3.evaluate import __main__ as evaluate_command
from stage3.features.backbones import resolve_text, resolve_vision
from stage3.runs import RunFolder
from stage3.runs.data import check_features, load_data
from stage3.samples import draw_books
from stage3.search import __main__ as search_command
from tests.original_trainer import SIDE, Original, tokenizer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def forked() -> Iterator[None]:
    """The process that opens a file comes without four seconds of imports, where there is a fork server."""
    with pytest.MonkeyPatch.context() as patch:
        if sys.platform == "linux":
            patch.setattr(opening, "subprocess", forked_children.SUBPROCESS)
        yield


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> Path:
    return tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def comics(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("comics") / "set"
    draw_books(folder, 4, seed=5, pages=3)
    return folder


@pytest.fixture(scope="module")
def original() -> Original:
    return Original("both", "gate", indicators=False, d=40)


@pytest.fixture(scope="module")
def converted(original, words, comics, tmp_path_factory) -> RunFolder:
    root = tmp_path_factory.mktemp("converted")
    file = original.save(root / "checkpoint_vlm_epoch_3.pt", whole=True, transformers4=True)
    places = {"data": str(comics), "cache_dir": str(root / "cache")}
    return convert_checkpoint(file, root / "runs" / "earlier", layout="vlm", tokenizer=words, settings=places)


def images(n: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (30 + 7 * i, 90 - 9 * i, 3), dtype=np.uint8)) for i in range(n)]


def pixels(image: Image.Image) -> torch.Tensor:
    """As the original trainer read a crop: stretched, bilinear, ImageNet's mean and deviation."""
    values = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR), dtype=np.float32) / 255
    values = (values - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    return torch.from_numpy(values).permute(2, 0, 1).contiguous()


# --- the run


def test_embeddings_from_crops_and_texts_are_the_originals(converted, original):
    vision, text = resolve_vision(converted.config.vision_backbone), resolve_text(converted.config.text_backbone)
    crops, texts = images(6), ["a cat runs", "", "Where is HE now ?", "", "dog " * 300, ""]
    layout = torch.rand(6, 7, generator=torch.Generator().manual_seed(3))
    present = torch.tensor([[1, 1, 1], [1, 0, 1], [1, 1, 0], [1, 0, 0], [0, 1, 1], [0, 0, 1]]).bool()
    texts[4] = "dog " * 40  # of at most 64 tokens, which the small model has places for
    n = torch.arange(6)
    with torch.inference_mode():
        e = converted.model().encoder(PanelBatch(vision.encode(crops), text.encode(texts), layout, present, n, n, n))
    for i, p in enumerate(present.tolist()):
        theirs = original.panel(
            pixels(crops[i]) if p[0] else None, texts[i] if p[1] else "", layout[i] if p[2] else None
        )
        torch.testing.assert_close(e.panel[i], theirs["fused"], rtol=0, atol=1e-5)
        for j, name in ((0, "image"), (1, "text")):
            if p[j]:
                torch.testing.assert_close(getattr(e, name)[i], theirs[name], rtol=0, atol=1e-5)


def test_the_run_records_what_it_is(converted):
    assert [c.step for c in converted.checkpoints()] == [0]
    assert converted.best().step == 0
    assert converted.status.state == "finished"
    assert converted.model().encoder.spec.form == "earlier"
    assert converted.read_json("data")["layout"] == "vlm"
    assert {"epoch": 3, "batch": 40, "val_loss": 1.25}.items() <= converted.read_json("converted").items()
    config = converted.config
    assert (config.dim, config.visual_fusion, config.gate_hidden, config.panel_norm) == (40, "gate", 40, False)
    assert (config.text_parts, config.feature_dtype) == ("description+dialogue", "float32")
    assert config.weights == {"contrastive": 1.0, "reconstruction": 0.0, "alignment": 0.3}
    assert set(config.temperatures.values()) == {0.07}
    folders = {p.name for p in (converted.path / "backbones").iterdir()}
    assert folders == {"siglip", "resnet", "text"}
    assert "description+dialogue" in (converted.path / "config.yaml").read_text()
    assert "vision_backbone: backbones/siglip+backbones/resnet" in (converted.path / "config.yaml").read_text()
    assert resolve_text(config.text_backbone).modules.max_tokens == 128


def test_every_command_opens_it(converted, tmp_path, capsys):
    found = {}
    for name, command, more in (
        ("evaluate", evaluate_command, ["--split", "all"]),
        ("diagnose", diagnose_command, ["--split", "all"]),
        ("search", search_command, ["--text", "a red house"]),
        ("embed", embed_command, ["--out", str(tmp_path / "x.zarr")]),
    ):
        command.main(["--run", str(converted.path), *more, "--json"])
        found[name] = json.loads(capsys.readouterr().out)
    assert "reconstruction/skill" not in found["evaluate"]
    assert found["evaluate"]["gallery"] > 5
    assert any("not recorded" in note for note in found["evaluate"]["notes"])
    assert found["search"]["searches"][0]["results"]
    store = stage3.open_store(tmp_path / "x.zarr")
    embedded = Run.load(converted.path).embeddings()
    assert embedded.shape[1] == 40
    assert store is not None


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_of_the_explorer_opens_it(view, converted, monkeypatch):
    from streamlit.testing.v1 import AppTest

    monkeypatch.chdir(converted.path.parents[1])
    app = AppTest.from_file(str(Path(stage3.__file__).parents[1] / "app" / "ui.py"), default_timeout=60)
    app.query_params["view"], app.query_params["run"] = view, "runs/earlier"
    app.run()
    assert not app.exception
    assert not [e.value for e in app.error]
    if view == "runs":
        assert any("weights 1" in str(t.value) for t in app.text)


def test_it_can_be_moved_with_its_backbones(converted, comics, tmp_path):
    before = Run.load(converted.path).embeddings()
    moved = tmp_path / "elsewhere"
    converted.path.rename(moved)
    try:
        run = Run.load(moved)
        assert str(moved.resolve()) in run.config.vision_backbone
        np.testing.assert_array_equal(run.embeddings(), before)
    finally:
        moved.rename(converted.path)


def test_other_weights_in_its_folder_are_noticed(converted, comics, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(converted.path, copy)
    processor = copy / "backbones" / "resnet" / "preprocessor_config.json"
    processor.write_text(processor.read_text().replace("0.485", "0.5"))
    run = RunFolder.load(copy)
    with pytest.raises(DataError, match="was trained on features"):
        check_features(run, run.model().encoder.spec, load_data(run, progress=False))


def test_training_does_not_continue_it(converted, capsys):
    run = Run.train(converted.path)
    assert [c.step for c in run.checkpoints()] == [0]


def test_the_ocr_meaning_reaches_the_model(words, comics, tmp_path, capsys):
    model = Original("siglip", d=24)
    file = model.save(tmp_path / "best_model.pt")
    made = tmp_path / "runs" / "ocr"
    where = ["--tokenizer", str(words), "--data", str(comics), "--cache_dir", str(tmp_path / "cache")]
    assert convert_command.main([str(file), str(made), "--layout", "ocr", *where, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["layout"], said["dim"]) == ("ocr", 24)
    run = Run.load(made)
    assert run.model().encoder.spec.layout == "ocr"
    np.testing.assert_array_equal(run.data.panel_set.layout, run.data.table.layout("ocr"))
    usual = Dataset(run.data.table, run.data.features, run.data.split)
    assert usual.layout == LAYOUT_MEANING
    with pytest.raises(DataError, match="layout features 'ocr', this data has 'vlm'"):
        check_features(run, run.model().encoder.spec, usual)
    np.testing.assert_array_equal(run.embeddings(data=usual), run.embeddings())  # read as the run's model reads it
    row = int(np.flatnonzero(run.data.panel_set.present.all(axis=1))[0])
    batch = run.data.panel_set.batch_of_rows(np.array([row]))
    with torch.inference_mode():
        image = model.vision.mixed(batch.image)[0]
        parts = [image, model.text.proj(batch.text)[0], model.comp.mlp(batch.layout)[0]]
        fused = model.fusion.one(parts, torch.ones(3))
    ours = run.embeddings().loc[run.data.table.panels["panel_id"].iloc[row]]
    np.testing.assert_allclose(ours, fused.numpy(), rtol=0, atol=1e-5)


def test_arguments_that_cannot_be_used_are_refused_before_the_file_is_opened(converted, words, tmp_path):
    file = tmp_path / "nowhere.pt"
    full = tmp_path / "full"
    full.mkdir()
    (full / "something").write_text("x")
    for changes, said in (
        ({"layout": "aligned"}, "layout: 'aligned' is not one of vlm, ocr"),
        ({"tokenizer": tmp_path}, "has no tokenizer.json and no vocab.txt"),
        ({"path": converted.path}, "is already a run"),
        ({"path": full}, "is not an empty folder"),
        ({"path": tmp_path / "a+b"}, "contains a +"),
        ({"image_side": 5000}, "image_side: 5000 is out of range: must be from 1 to 4096"),
        ({"image_heads": -1}, "image_heads: -1 is out of range"),
        ({"settings": {"dim": 8}}, "dim is not a setting of a conversion"),
    ):
        given = {"path": tmp_path / "run", "layout": "vlm", "tokenizer": words} | changes
        with pytest.raises(ConfigError) as caught:
            convert_checkpoint(file, given.pop("path"), **given)
        assert said in str(caught.value)


def test_a_refused_file_leaves_nothing_behind(words, tmp_path):
    weights = Original("siglip").weights()
    del weights["text.proj.bias"]
    torch.save(weights, tmp_path / "x.pt")
    with pytest.raises(DataError, match=r"x\.pt is refused: .*text\.proj\.bias is missing"):
        convert_checkpoint(tmp_path / "x.pt", tmp_path / "runs" / "x", layout="vlm", tokenizer=words)
    few = tokenizer(tmp_path / "few")
    tokens = json.loads((few / "tokenizer.json").read_text())
    tokens["model"]["vocab"] |= {f"new{i}": 100 + i for i in range(50)}
    (few / "tokenizer.json").write_text(json.dumps(tokens))
    with pytest.raises(DataError, match="its tokenizer has ids up to 149"):
        convert_checkpoint(
            Original("siglip").save(tmp_path / "y.pt"), tmp_path / "runs" / "y", layout="vlm", tokenizer=few
        )
    assert not list((tmp_path / "runs").glob("*"))
    assert not list((tmp_path / "runs").glob(".*"))


# --- opening


class Danger:
    """What makes the file `ran`, in the current folder, when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch ran",)


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files that are no checkpoints, and what is said of each."""
    good = {"text.proj.bias": torch.arange(3.0)}
    out = {
        "code": ({"a": Danger()}, "asks for the Python object posix.system"),
        "a list": ([torch.zeros(3)], "holds a list"),
        "no tensor": ({"a": 3}, "a is a int, not a tensor"),
        "no name": ({3: torch.zeros(3)}, "'3' cannot be the name"),
        "a path": ({"../a": torch.zeros(3)}, "cannot be the name"),
        "nothing": ({}, "holds 0 tensors"),
        "a number for weights": ({"model_state_dict": 3}, "not the weights of a model"),
        "one number shown a billion times": ({"a": torch.zeros(1).expand(10**9)}, "would take 4,000,000,000 bytes"),
        "sparse": ({"a": torch.eye(3).to_sparse()}, "not of plain numbers|cannot read"),
        "complex": ({"a": torch.zeros(3, dtype=torch.complex64)}, "not of plain numbers"),
    }
    made = {}
    for name, (value, said) in out.items():
        path = folder / f"{name}.pt"
        torch.save(value, path)
        made[name] = (path, said)
    torch.save(good, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    made["legacy"] = (folder / "legacy.pt", "not a checkpoint as torch.save writes it")
    (folder / "pickle.pt").write_bytes(pickle.dumps(Danger()))
    made["pickle"] = (folder / "pickle.pt", "not a checkpoint as torch.save writes it")
    (folder / "empty.pt").write_bytes(b"")
    made["empty"] = (folder / "empty.pt", "not a checkpoint as torch.save writes it")
    torch.save(good, folder / "plain.pt")
    with zipfile.ZipFile(folder / "plain.pt") as plain, zipfile.ZipFile(folder / "deflated.pt", "w") as deflated:
        for entry in plain.namelist():
            deflated.writestr(entry, plain.read(entry), zipfile.ZIP_DEFLATED)
    made["deflated"] = (folder / "deflated.pt", "is compressed")
    data = (folder / "plain.pt").read_bytes()
    (folder / "cut.pt").write_bytes(data[: len(data) // 2])
    made["cut"] = (folder / "cut.pt", "not a checkpoint as torch.save writes it")
    with zipfile.ZipFile(folder / "other.pt", "w") as other:
        other.writestr("readme.txt", "no weights")
    made["another archive"] = (folder / "other.pt", "torch cannot read it")
    return made


def test_what_is_no_checkpoint_is_refused_and_nothing_of_it_runs(tmp_path, monkeypatch):

    monkeypatch.chdir(tmp_path)
    bad = bad_files(tmp_path)
    for name, (path, said) in bad.items():
        with pytest.raises(Refused) as caught:
            read(path)
        assert re.search(said, str(caught.value)), f"{name}: {caught.value}"
    with pytest.raises(DataError, match=r"code\.pt is refused: it asks for the Python object posix\.system$"):
        open_checkpoint(bad["code"][0])
    assert not (tmp_path / "ran").exists()
    for path, said in ((tmp_path / "nowhere.pt", "no such file"), (tmp_path, "is not a file")):
        with pytest.raises((DataError, StorageError), match=said):
            open_checkpoint(path)


def test_an_archive_may_not_claim_more_than_its_size_nor_a_large_pickle(tmp_path, monkeypatch):
    from stage3.convert import child

    path = tmp_path / "x.pt"
    torch.save({"a": torch.zeros(1000)}, path)
    check_archive(path, path.stat().st_size)
    with pytest.raises(Refused, match="overlap"):
        check_archive(path, 2000)
    monkeypatch.setattr(child, "MAX_PICKLE", 10)
    with pytest.raises(Refused, match=r"data\.pkl.* more than 10"):
        check_archive(path, path.stat().st_size)
    monkeypatch.setattr(child, "MAX_TENSORS", 1)
    with pytest.raises(Refused, match="entries, more than 2"):
        check_archive(path, path.stat().st_size)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process are Linux's")
def test_the_process_that_opens_a_file_has_little_memory_and_writes_little(tmp_path):
    code = """
from pathlib import Path
from stage3.convert.child import confine
confine(1000)
try:
    bytearray(6 * 2**30)
except MemoryError:
    print("no memory")
try:
    Path("x").write_bytes(bytes(3 * 2**20))
except OSError as error:
    print("no room")
"""
    env = os.environ | {"PYTHONPATH": str(Path(stage3.__file__).parents[1])}
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert ran.stdout.split("\n")[:1] == ["no memory"]
    assert ran.returncode < 0 or "no room" in ran.stdout  # SIGXFSZ ends it, or the write fails
    assert not (tmp_path / "x").exists() or (tmp_path / "x").stat().st_size <= 2**20 + 2000


def test_a_good_file_gives_its_tensors_and_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "subprocess", subprocess)  # as it is started outside of tests
    model = Original("resnet", d=24)
    opened = open_checkpoint(model.save(tmp_path / "x.pt", whole=True))
    assert opened.facts == {"epoch": 3, "batch": 40, "train_loss": 1.5, "val_loss": 1.25, "best_val_loss": 1.25}
    assert opened.weights.keys() == model.weights().keys()
    for name, tensor in model.weights().items():
        assert torch.equal(opened.weights[name], tensor), name
    torch.save({"a": torch.arange(3.0).half(), "b": torch.arange(4)[1:]}, tmp_path / "y.pt")
    opened = open_checkpoint(tmp_path / "y.pt")
    assert (opened.weights["a"].dtype, opened.weights["b"].tolist()) == (torch.float32, [1, 2, 3])


def test_a_resnet_alone_gives_the_originals_constant_for_a_missing_image(words, tmp_path):
    model = Original("resnet", indicators=False, d=24)
    run = convert_checkpoint(model.save(tmp_path / "x.pt"), tmp_path / "run", layout="vlm", tokenizer=words)
    expected = model.panel(None, "a cat", None)
    text = resolve_text(run.config.text_backbone).encode(["a cat"])
    n = torch.arange(1)
    present = torch.tensor([[False, True, False]])
    with torch.inference_mode():
        e = run.model().encoder(PanelBatch(torch.zeros(1, 128), text, torch.zeros(1, 7), present, n, n, n))
    torch.testing.assert_close(e.panel[0], expected["fused"], rtol=0, atol=1e-5)
