"""The pieces of fine-tuning by hand, with backbones of one small layer: nothing is trained or downloaded here."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save as packed
from torch import nn

from stage3.batches import IMAGE, TEXT
from stage3.config import Config
from stage3.data.splits import TEST, TRAIN, VAL
from stage3.errors import DataError, StorageError
from stage3.model import finetune
from stage3.model.finetune import Crops, Renewed, Tuned
from stage3.peers import ALONE, Peers
from tests import synthetic

DIM_IMAGE, DIM_TEXT = 24, 20  # of `synthetic.dataset`


class Net(nn.Module):
    """Three blocks of one layer."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, 3), nn.Linear(3, 3), nn.Linear(3, size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Backbone:
    """A layer over the number that an input holds, given to it alone or in a list."""

    weights_file = "w.safetensors"

    def __init__(self, size: int, seed: int) -> None:
        torch.manual_seed(seed)
        self.net = Net(size)
        self.calls: list[int] = []

    def in_graph(self, inputs) -> torch.Tensor:
        self.calls.append(len(inputs))
        return self.net(torch.tensor([[number_in(i)] for i in inputs]))

    def saved(self) -> dict[str, bytes]:
        return {self.weights_file: packed(self.net.state_dict()), "config.json": b"{}"}


class Vision:
    """Joined backbones of images, whose crops are the rows of their panels."""

    short_side = 5

    def __init__(self, *sizes: int) -> None:
        self.sizes = sizes
        self.parts = [Backbone(size, seed) for seed, size in enumerate(sizes, start=3)]

    def prepare(self, crop) -> object:
        return [crop] * len(self.parts) if len(self.parts) > 1 else crop

    def encode_prepared(self, crops) -> torch.Tensor:
        with torch.inference_mode():
            return finetune._side_by_side(self.parts, crops)


def number_in(value) -> float:
    return float(value) / 10 if not isinstance(value, str) else len(value) + 0.1 * int(value.split()[-1])


@pytest.fixture
def data(monkeypatch):
    """Panels whose image, when it is decoded, is the number of their row."""
    made = synthetic.dataset(textless=0.3, boxless=0.2)
    first = {path: i for i, path in enumerate(made.table.pages["page_id"])}
    made.table.pages["image_path"] = made.table.pages["page_id"]
    boxes = made.table.panels[["x", "y", "w", "h"]].to_numpy(dtype="<f4")

    def decode_panels(path, wanted, *, short_side, max_megapixels, truncated):
        assert short_side == Vision.short_side
        page = first[path]
        rows = np.arange(made.panel_set.first[page], made.panel_set.first[page] + made.panel_set.count[page])
        rows = rows[made.table.has_box[rows]]
        np.testing.assert_array_equal(wanted, boxes[rows])
        return rows.tolist()

    monkeypatch.setattr(finetune.images, "decode_panels", decode_panels)
    monkeypatch.setattr(finetune, "check_images", lambda _: None)
    return made


def tuned(data, monkeypatch, *sizes: int, **settings) -> Tuned:
    monkeypatch.setattr(finetune, "resolve_vision", lambda *_: Vision(*(sizes or (DIM_IMAGE,))))
    monkeypatch.setattr(finetune, "resolve_text", lambda *_: Backbone(DIM_TEXT, 7))
    return Tuned(Config(finetune_checkpointing=False, **settings), data, torch.device("cpu"))


def by_hand(found: Tuned, data, row: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What the backbones give for a panel's image and text, each alone."""
    crop = found.vision.prepare(row)
    image = found.vision.encode_prepared([crop])[0]
    (text,) = data.table.texts(found.config.text_parts, np.array([row]))
    return image, found.text.in_graph([text])[0] if text else torch.zeros(DIM_TEXT)


@pytest.mark.parametrize("sizes", [(DIM_IMAGE,), (10, 14)])
@pytest.mark.parametrize("chunk", [64, 3])
def test_a_batch_gets_the_features_of_its_own_images_and_texts_on_the_graph(data, monkeypatch, sizes, chunk):
    monkeypatch.setattr(finetune, "CHUNK", chunk)
    found = tuned(data, monkeypatch, *sizes, finetune="both")
    pages = np.array([9, 2, 5])
    batch = data.panel_set.batch(pages)
    assert not batch.present[:, IMAGE].all()
    assert not batch.present[:, TEXT].all()
    crops = [crop for some in found.crops.of_pages(pages) for crop in some]
    new = found(batch, crops)
    for i, row in enumerate(batch.rows.tolist()):
        image, text = by_hand(found, data, row)
        if batch.present[i, IMAGE]:
            torch.testing.assert_close(new.image[i].detach(), image)
        if batch.present[i, TEXT]:
            torch.testing.assert_close(new.text[i], text)
    (new.image.sum() + new.text.sum()).backward()
    assert all(p.grad is not None for p in found.parameters())
    assert max(found.text.calls) <= chunk
    assert not found.train().training


def test_equal_texts_go_through_the_backbone_once_and_only_what_is_trained_changes(data, monkeypatch):
    found = tuned(data, monkeypatch, finetune="text")
    assert found.vision is None
    assert list(found.folders) == ["backbone-text"]
    batch = data.panel_set.batch(np.array([2, 5]))
    where = batch.present[:, TEXT].nonzero()[:, 0]
    batch.text_ids[where[1]] = batch.text_ids[where[0]]  # as if they said the same
    new = found(batch)
    assert found.text.calls == [len(where) - 1]
    assert torch.equal(new.text[where[0]], new.text[where[1]])
    assert new.image is batch.image
    silent = data.panel_set.batch_of_rows(np.flatnonzero(~data.panel_set.present[:, TEXT])[:3])
    assert torch.equal(found(silent).text, silent.text)
    only = tuned(data, monkeypatch, finetune="image")
    assert (only.text, list(only.folders)) == (None, ["backbone-image"])
    assert list(tuned(data, monkeypatch, 10, 14, finetune="image").folders) == ["backbone-image-1", "backbone-image-2"]


@pytest.mark.parametrize("chunk", [64, 4])
def test_validation_reads_the_features_of_its_pages_as_the_backbones_give_them_now(data, monkeypatch, chunk):
    monkeypatch.setattr(finetune, "CHUNK", chunk)
    found = tuned(data, monkeypatch, finetune="both")
    pages = np.array([3, 7, 8, 12])
    new = found.panel_set(pages)
    calls = (found.text.calls, found.vision.parts[0].calls)
    assert all(max(of) <= chunk for of in calls)
    rows, stored = np.arange(len(data.table)), data.panel_set
    images, texts = new.features.gather(rows)
    before_images, before_texts = stored.features.gather(rows)
    own = set(stored.rows_of(pages).tolist())
    for row in rows.tolist():
        image, text = by_hand(found, data, row)
        for modality, now, before, expected in (
            (IMAGE, images, before_images, image), (TEXT, texts, before_texts, text)
        ):  # fmt: skip
            if row in own and stored.present[row, modality]:
                np.testing.assert_allclose(now[row], expected.detach().numpy(), rtol=1e-5, atol=1e-6)
            else:
                np.testing.assert_array_equal(now[row], before[row])
    assert new.features.image_rows is stored.features.image_rows
    assert new.features.text_rows is stored.features.text_rows


def test_of_several_processes_each_encodes_its_own_part_of_the_pages(data, monkeypatch):
    class Part(Peers):
        def gather(self, *rows):
            return list(rows), slice(0, len(rows[0]))

    found = tuned(data, monkeypatch, finetune="image")
    pages, rows = np.array([3, 7, 8, 12, 1]), np.arange(len(data.table))
    for rank, own in enumerate((pages[:3], pages[3:])):
        new = found.panel_set(pages, Part(rank, 2)).features.gather(rows)[0]
        moved = (new != data.panel_set.features.gather(rows)[0]).any(axis=1)
        assert np.flatnonzero(moved).tolist() == sorted(finetune.rows_with(data.panel_set, own, IMAGE).tolist())


def test_renewed_rows_are_found_by_their_number_wherever_they_stand():
    stored = SimpleNamespace(gather=lambda rows: (np.full((len(rows), 2), -1.0), np.full((len(rows), 1), -2.0)))
    known, vectors = np.array([2, 5, 9]), np.array([[20.0, 2], [50, 5], [90, 9]])
    renewed = Renewed(stored, {IMAGE: (known, vectors), TEXT: (np.zeros(0, int), np.zeros((0, 1)))})
    image, text = renewed.gather(np.array([9, 10, 2, 0, 5, 5, 3]))
    assert image[:, 0].tolist() == [90, -1, 20, -1, 50, 50, -1]
    assert image[:, 1].tolist() == [9, -1, 2, -1, 5, 5, -1]
    assert text.tolist() == [[-2.0]] * 7


def test_vectors_of_all_processes_are_ascending_by_row():
    vectors = [torch.tensor([[7.0], [3.0]]), torch.tensor([[5.0]])]
    rows, found = finetune._of_all(np.array([7, 3, 5]), vectors, 1, ALONE)
    assert (rows.tolist(), found.tolist()) == ([3, 5, 7], [[3.0], [5.0], [7.0]])
    rows, found = finetune._of_all(np.zeros(0, np.int64), [], 4, ALONE)
    assert (rows.shape, found.shape) == ((0,), (0, 4))


@pytest.mark.parametrize("workers", [0, 2])
def test_crops_come_ahead_step_by_step_in_the_order_of_their_pages(data, workers):
    crops = Crops(data, Config(workers=workers), Vision(DIM_IMAGE))
    steps = [(4, 1, np.array([6, 1, 3])), (5, 1, np.array([2, 8, 4])), (6, 2, np.array([0, 9, 7]))]
    assert list(crops.of_pages([3, 1])) == [crops.of_page(3), crops.of_page(1)]
    found = list(crops.ahead(iter(steps), lambda pages: pages[1:]))
    assert [f[:2] for f in found] == [s[:2] for s in steps][: len(found)]
    assert len(found) == len(steps) - bool(workers)
    for (_, _, pages, made), (_, _, asked) in zip(found, steps, strict=False):
        assert pages.tolist() == asked.tolist()
        rows = data.panel_set.rows_of(asked[1:])
        assert made == [r for r in rows.tolist() if data.panel_set.present[r, IMAGE]]


def test_a_page_that_cannot_be_read_any_more_is_named(data, monkeypatch):
    def gone(*_: object, **__: object):
        raise finetune.images.ImageProblem("cut", "p.png: cut off")

    monkeypatch.setattr(finetune.images, "decode_panels", gone)
    crops = Crops(data, Config(workers=0), Vision(DIM_IMAGE))
    with pytest.raises(DataError, match=r"reads every image anew, and one is not what it was: .*"):
        crops.of_page(0)
    data.panel_set.present[:, IMAGE] = False
    assert crops.of_page(0) == []


def test_changed_crops_lose_a_little_of_their_edges_and_keep_their_side():
    ramp = np.tile(np.arange(200, dtype=np.uint8), (100, 1))  # brighter to the right
    crop = Image.fromarray(np.dstack([ramp] * 3))
    sizes, means = set(), []
    for seed in range(60):
        made = finetune.changed(crop, np.random.default_rng(seed))
        turned = finetune.changed(crop.resize((100, 200)), np.random.default_rng(seed))
        assert turned.size[0] < 100
        assert turned.size[1] < 200
        width, height = made.size
        assert 200 * (1 - 0.08) - 1 <= width <= 200
        assert 100 * (1 - 0.08) - 1 <= height <= 100
        values = np.asarray(made).astype(float)[0, :, 0]
        assert (np.diff(values) >= 0).all()  # never mirrored
        sizes.add(made.size)
        means.append(values.mean())
    assert len(sizes) > 20
    assert 0.8 * 99.5 < min(means) < 99.5 < max(means) < 1.2 * 99.5

    def sides(*size: int) -> set[tuple[int, int]]:
        empty = Image.new("RGB", size)
        return {finetune.changed(empty, np.random.default_rng(seed)).size for seed in range(20)}

    least = finetune.images.MIN_SIDE
    assert sides(least, least) == {(least, least)}
    assert min(sides(least + 1, least + 1)) == (least, least)
    for long, short in ((0, 1), (1, 0)):  # each side alone says whether it is too small
        narrow = sides(*((1000, 4 * least) if short else (4 * least, 1000)))
        assert max(size[long] for size in narrow) < 1000
        assert min(size[short] for size in narrow) >= least


def test_a_checkpoint_holds_each_backbone_and_gives_it_back(data, monkeypatch, tmp_path):
    found = tuned(data, monkeypatch, finetune="both")
    files = found.files()
    assert set(files) == {f"backbone-{m}/{f}" for m in ("image", "text") for f in ("w.safetensors", "config.json")}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    before = {name: value.clone() for name, value in found.state_dict().items()}
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(1)
    found.load(tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in found.state_dict().items())
    weights = tmp_path / "backbone-text" / "w.safetensors"
    weights.write_bytes((tmp_path / "backbone-image" / "w.safetensors").read_bytes())
    with pytest.raises(StorageError, match=r"backbone-text"):
        found.check(tmp_path)
    weights.write_bytes(b"no")
    with pytest.raises(StorageError, match=r"w\.safetensors: not readable as safetensors"):
        found.check(tmp_path)
    weights.unlink()
    with pytest.raises(StorageError, match=r"backbone-text.w\.safetensors is missing"):
        found.check(tmp_path)


def test_each_block_learns_more_slowly_than_what_follows_it(data, monkeypatch):
    settings = {"finetune_lr": 0.5, "finetune_layer_decay": 0.5, "weight_decay": 0.25}
    found = tuned(data, monkeypatch, finetune="text", **settings)
    groups = found.groups(lambda name, value: value.ndim > 1)
    names = {id(p): name for name, p in found.text.net.named_parameters()}
    shown = {name: (g["rate"], g["weight_decay"]) for g in groups for name in (names[id(p)] for p in g["params"])}
    assert shown == {
        f"layers.{i}.{kind}": (rate, 0.25 if kind == "weight" else 0.0)
        for i, rate in enumerate((0.125, 0.25, 0.5))
        for kind in ("weight", "bias")
    }


def test_blocks_are_counted_from_the_input():
    names = ["stem.weight", "layers.0.a.weight", "layers.0.b.0.weight", "layers.1.a.weight", "head.weight"]
    assert finetune.depths_of(names) == [0, 1, 1, 2, 3]
    assert finetune.depths_of(["a.weight", "b.bias"]) == [0, 0]


@pytest.mark.parametrize(
    ("trained", "image", "text"),
    [
        ("image", ["backbone-image"], []),
        ("text", [], ["backbone-text"]),
        ("both", ["backbone-image"], ["backbone-text"]),
        ("none", [], []),
    ],
)
def test_folders_are_of_what_is_trained(trained, image, text):
    assert finetune.trained_folders(trained, 1) == (image, text)
    several = ["backbone-image-1", "backbone-image-2"] if image else []
    assert finetune.trained_folders(trained, 2) == (several, text)


def test_images_and_texts_must_be_there_to_be_trained_on(tmp_path):
    data = synthetic.dataset(boxless=0.0, textless=0.0)
    (tmp_path / "there.png").touch()
    paths = [str(tmp_path / "there.png"), "https://x.org/a.png"]
    data.table.pages["image_path"] = [paths[i % 2] for i in range(len(data.table.pages))]
    finetune.check_images(data)
    finetune.check_texts(data)
    training, choosing, held_out = (np.flatnonzero(data.split == s) for s in (TRAIN, VAL, TEST))
    data.table.pages.loc[held_out, "image_path"] = "gone.png"  # never trained on, nor validated
    finetune.check_images(data)
    data.table.pages.loc[choosing[:1], "image_path"] = ""
    data.table.pages.loc[training[-2:], "image_path"] = "gone too.png"
    first = "of a page without a path" if choosing[0] < training[-2] else "gone too.png"
    seen = len(training) + len(choosing)
    with pytest.raises(
        DataError, match=f"the images of 3 of {seen} training and validation pages .* first is '{first}'"
    ):
        finetune.check_images(data)
    page = data.table.page_of_panel
    data.panel_set.present[np.isin(page, training), TEXT] = False
    with pytest.raises(DataError, match="no training panel has a text"):
        finetune.check_texts(data)
    data.panel_set.present[np.isin(page, training), IMAGE] = False
    with pytest.raises(DataError, match="no training panel has an image"):
        finetune.check_images(data)
