"""A shared run gives the same embeddings, says the run's own numbers, and names nothing of this machine."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

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
from tests import hub_server
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


@pytest.fixture
def hub(monkeypatch):
    """A Hub of this machine that the real client talks to."""
    with hub_server.in_use(monkeypatch) as running:
        yield running


def test_a_pushed_run_is_private_and_comes_back_as_it_was(mine, shared, hub, tmp_path):
    assert mine.push_to_hub("me/comics") == f"{hub.address}/me/comics"
    assert (hub.private, hub.messages) == ({"me/comics": True}, {"me/comics": [f"Run {mine.path.name}"]})
    sent = hub.files["me/comics"]
    assert set(sent) == {p.relative_to(shared).as_posix() for p in shared.rglob("*") if p.is_file()}
    assert b'from_pretrained("me/comics")' in sent["README.md"]
    again = Run.from_pretrained("me/comics", path=tmp_path / "back")
    assert again.best() == mine.best()
    for name, content in sent.items():
        assert (again.path / name).read_bytes() == content
    mine.push_to_hub("me/open", private=False, message="for all")
    assert (hub.private["me/open"], hub.messages["me/open"]) == (False, ["for all"])


def test_what_the_hub_refuses_is_said_in_one_line(mine, hub, monkeypatch, tmp_path):
    with pytest.raises(DataError, match=r"me/nowhere: could not be downloaded \(404"):
        Run.from_pretrained("me/nowhere", path=tmp_path / "new")
    hub.full = True
    with pytest.raises(StorageError, match=r"^me/comics: could not be uploaded: .*Storage limit reached"):
        mine.push_to_hub("me/comics")
    monkeypatch.setenv("HF_TOKEN", "another")
    with pytest.raises(StorageError, match=r"^me/comics: could not be uploaded: .*401"):
        mine.push_to_hub("me/comics")
    with pytest.raises(ConfigError, match=r"^a b/c: .*Log in with"):
        mine.push_to_hub("a b/c")


def test_without_an_answer_that_is_said_too(mine, hub, monkeypatch, tmp_path):
    from huggingface_hub import constants

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(StorageError, match=r"^me/comics: could not be uploaded: .*refused"):
            mine.push_to_hub("me/comics")
        with pytest.raises(DataError, match="me/comics: could not be downloaded"):
            Run.from_pretrained("me/comics", path=tmp_path / "new")


def test_nothing_is_sent_or_fetched_unless_it_is_asked_for(tmp_path):
    """In a new process, where nobody has said HF_HUB_OFFLINE yet."""
    code = """
from pathlib import Path
from stage3 import share
from stage3.errors import Stage3Error
for work in (lambda: share.fetched("me/x", "new"), lambda: share.push(Path(), "me/x", private=True, message="")):
    try:
        work()
    except Stage3Error as error:
        print(error)
"""
    own = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    closed = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": "none", "PYTHONPATH": os.pathsep.join(sys.path)}
    told = subprocess.run([sys.executable, "-c", code], env=own | closed, cwd=tmp_path, capture_output=True, text=True)
    lines = told.stdout.splitlines()
    assert lines[0].startswith("me/x: no such folder, and HF_HUB_OFFLINE is on")
    assert lines[1].startswith("nothing is sent while HF_HUB_OFFLINE is on")


def test_what_is_neither_a_folder_nor_to_be_had_is_said(tmp_path):
    with pytest.raises(DataError, match=r"me/nowhere: no such folder, and HF_HUB_OFFLINE is on"):
        Run.from_pretrained("me/nowhere", path=tmp_path / "new")
    with pytest.raises(ConfigError, match="exists already"):
        Run.from_pretrained("me/nowhere", path=tmp_path)
