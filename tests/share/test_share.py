"""A shared run gives the same embeddings, says the run's own numbers, and names nothing of this machine."""

import re
import shutil
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import yaml

from stage3.api import Run
from stage3.batches.dataset import Dataset
from stage3.cli import number, percent
from stage3.config import Config
from stage3.errors import ConfigError, DataError, StorageError
from stage3.evaluate import kept_report
from stage3.features.backbones import tiny
from stage3.runs import RunFolder
from stage3.share.card import AS_NUMBER, METRICS
from tests.app_support import write_comics

pytestmark = pytest.mark.slow

SAMPLE = Path("data/samples/runs/sample")
SECRET = "hf_0123456789secret"


@pytest.fixture(scope="module")
def mine(tmp_path_factory) -> Run:
    """A copy of the sample run as a person has it: with absolute places, a log, and a token in the environment."""
    path = tmp_path_factory.mktemp("home") / "runs" / "mine"
    shutil.copytree(SAMPLE, path)
    run = RunFolder.load(path)
    run.write_config(run.config.replace(data=str(Path("data/samples").resolve())))
    run.log(f"trained on {Path('data/samples').resolve()} with {SECRET}")
    run.set_status("finished", message=f"finished in {path}")
    run.write_json("job", {"pid": 1, "parent": str(path)})
    return Run.load(path)


@pytest.fixture(scope="module")
def shared(mine, tmp_path_factory) -> Path:
    return mine.save_pretrained(tmp_path_factory.mktemp("out") / "shared", license="cc-by-4.0")


def test_a_shared_run_gives_the_same_embeddings(mine, shared, tmp_path):
    moved = shutil.copytree(shared, tmp_path / "elsewhere")
    again = Run.from_pretrained(moved)
    data = mine.data
    ours, theirs = mine.embeddings("test"), again.embeddings("test", data=data)
    assert ours.index.equals(theirs.index)
    assert (ours.to_numpy() == theirs.to_numpy()).all()
    assert again.other_data("data/samples").pages("test").tolist() == data.pages("test").tolist()
    assert not (moved / "checkpoints" / "step-00000288" / "optimizer.safetensors").exists()
    assert again.best() == mine.best()


def test_the_card_says_the_numbers_of_the_run(mine, shared):
    text = (shared / "README.md").read_text(encoding="utf-8")
    report = kept_report(mine)
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines() if " | " in line]
    table = {row[0]: row[1:] for row in rows if len(row) == 6}
    assert set(METRICS.values()) <= set(table)
    for name, label in METRICS.items():
        show = number if name in AS_NUMBER else percent
        low, high = report["intervals"][name]
        frozen, untrained = (report["baselines"][b].get(name) for b in ("frozen", "untrained"))
        chance = report["chance"].get(name)
        expected = [report[name], None, chance, frozen, untrained]
        found = table[label]
        assert [f for i, f in enumerate(found) if i != 1] == [show(v) for i, v in enumerate(expected) if i != 1], label
        assert found[1] == f"{show(low)} to {show(high)}"
    assert report["added"]["sentence"].split("[")[0] in text
    assert "| test | held out | 16 | 108 | 432 |" in text
    front = yaml.safe_load(text.split("---")[1])
    assert front["license"] == "cc-by-4.0"
    assert front["library_name"] == "stage3"


def test_nothing_that_is_shared_names_a_place_of_this_machine_or_a_secret(mine, shared, monkeypatch):
    files = [p for p in shared.rglob("*") if p.is_file()]
    assert len(files) > 8
    places = (str(mine.path), str(Path.cwd()), str(shared), SECRET, "/tmp/", 'boot_id": "0')
    for path in files:
        content = path.read_bytes()
        for place in places:
            assert place.encode() not in content, (path, place)
        if path.suffix in (".json", ".yaml", ".md"):
            assert not re.search(rb"[\"' (](/[a-z]+){2,}", content), path
    config = RunFolder.load(shared).config
    assert (config.data, config.manifest, config.cache_dir) == ("", "", Config().cache_dir)
    assert RunFolder.load(shared).status.host == ""
    assert RunFolder.load(shared).status.state == "finished"


def test_a_record_that_names_a_place_is_not_shared(mine, tmp_path):
    path = shutil.copytree(mine.path, tmp_path / "run")
    named = RunFolder.load(path)
    named.write_json("data", named.read_json("data") | {"note": f"{Path.cwd()}/data"})
    with pytest.raises(DataError, match=r"data.json names .*, a place of this machine"):
        Run.load(path).save_pretrained(tmp_path / "out")
    with pytest.raises(ConfigError, match="exists and is not an empty folder"):
        mine.save_pretrained(mine.path)


def test_a_run_with_backbones_of_its_own_brings_them_along(tmp_path):
    own = tmp_path / "my backbone"
    own.mkdir()
    for name, content in tiny.load_vision().saved().items():
        (own / name).write_bytes(content)
    comics = write_comics(tmp_path / "comics", books=6, pages=2, panels=3)
    settings = {"epochs": 1, "finetune": "image", "finetune_lr": 1e-2, "dim": 32}
    places = {"vision_backbone": str(own), "cache_dir": str(tmp_path / "cache"), "val_fraction": 0.3}
    run = Run.train(tmp_path / "run", comics, **settings, **places)
    last = run.checkpoints()[-1].step
    expected = torch.tensor(run.embeddings(checkpoint=last).to_numpy(copy=True))
    made = run.save_pretrained(tmp_path / "out" / "shared", checkpoint=last)
    shutil.rmtree(own)
    again = Run.from_pretrained(shutil.move(made, tmp_path / "moved"))
    assert "backbones/image-1" in (again.path / "config.yaml").read_text(encoding="utf-8")
    data = again.other_data(comics, cache_dir=str(tmp_path / "other"))
    assert isinstance(data, Dataset)
    found = torch.tensor(again.embeddings(data=data).to_numpy(copy=True))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert (again.checkpoints()[-1].path / "backbone-image" / "tiny_image.safetensors").is_file()


# --- the Hub


class Api:
    """What stands for the Hub: keeps what it is given."""

    made: ClassVar[list[tuple[str, bool]]] = []
    uploaded: ClassVar[dict[str, bytes]] = {}

    def create_repo(self, repo_id: str, private: bool, exist_ok: bool) -> str:
        assert exist_ok
        self.made.append((repo_id, private))
        return f"https://huggingface.co/{repo_id}"

    def upload_folder(self, repo_id: str, folder_path: Path, commit_message: str) -> None:
        files = [p for p in Path(folder_path).rglob("*") if p.is_file()]
        self.uploaded.update({p.relative_to(folder_path).as_posix(): p.read_bytes() for p in files})


def test_pushing_uploads_the_folder_privately_and_only_online(mine, shared, monkeypatch, tmp_path):
    import huggingface_hub

    with pytest.raises(ConfigError, match="Set HF_HUB_OFFLINE=0 to share"):
        mine.push_to_hub("me/comics")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert mine.push_to_hub("me/comics") == "https://huggingface.co/me/comics"
    assert Api.made == [("me/comics", True)]
    assert set(Api.uploaded) == {p.relative_to(shared).as_posix() for p in shared.rglob("*") if p.is_file()}
    assert b'from_pretrained("me/comics")' in Api.uploaded["README.md"]
    for name, content in Api.uploaded.items():
        to = tmp_path / "back" / name
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(content)
    assert Run.from_pretrained(tmp_path / "back").best() == mine.best()

    def refuse(self: Api, *args: object, **kwargs: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(Api, "upload_folder", refuse)
    with pytest.raises(StorageError, match="me/comics: could not be uploaded: no route to host"):
        mine.push_to_hub("me/comics")


def test_what_is_neither_a_folder_nor_to_be_had_is_said(tmp_path):
    with pytest.raises(DataError, match=r"me/nowhere: no such folder, and HF_HUB_OFFLINE is on"):
        Run.from_pretrained("me/nowhere", path=tmp_path / "new")
    with pytest.raises(ConfigError, match="exists already"):
        Run.from_pretrained("me/nowhere", path=tmp_path)
