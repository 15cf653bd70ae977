"""The card and the folder of a run that was made by hand: what each says and holds, what is left out or refused."""

import json
import math
from pathlib import Path

import huggingface_hub
import pytest
import torch
import yaml
from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError

import stage3.evaluate
from stage3.config import Config
from stage3.errors import ConfigError, DataError, StorageError
from stage3.evaluate import stored_report
from stage3.evaluate.words import TITLES
from stage3.runs import RunFolder
from stage3.share import check_shareable, fetched, push, push_run, write_folder
from stage3.share.card import METRICS, card
from tests import synthetic

REPORT = {
    "run": "elsewhere", "step": 6, "split": "test", "panels": 4320, "pages": 1080, "books": 1016, "gallery": 3000,
    "level": 0.9, "resampled": "book", "notes": ["few <b>"], "difference": {}, "undefined": {},
    "retrieval/t2i_r5": 0.125, "retrieval/i2t_r5": 0.25, "retrieval/i2t_mrr": 0.7, "reconstruction/skill": 0.5,
    "intervals": {
        "retrieval/i2t_r5": [0.2, 0.3], "retrieval/t2i_r5": [math.nan] * 2, "reconstruction/skill": [0.4, 0.625],
    },
    "chance": {"retrieval/i2t_r5": 0.01, "reconstruction/skill": 0.0},
    "baselines": {"frozen": {"retrieval/i2t_r5": 0.02}, "untrained": {"retrieval/t2i_r5": 0.03}},
    "added": {"sentence": "It added *much*."}, "against_chance": [{"sentence": "One way."}, {"sentence": "The other."}],
}  # fmt: skip
RECORD = {
    "panels": 2100, "pages": 1050, "books": {"train": ["a", "b"], "val": ["c"], "test": []}, "table": "t" * 64,
    "features": "f" * 64,
}  # fmt: skip
SIZES = {"train": {"pages": 1000, "panels": 2000}, "val": {"pages": 42, "panels": "many"}}


@pytest.fixture
def run(tmp_path) -> RunFolder:
    """A run of two checkpoints, the first of which is its best; its data is not on this machine."""
    settings = {"data": str(tmp_path / "gone" / "my|comics"), "epochs": 7, "max_minutes": 5.0, "max_panels": 11}
    made = synthetic.run(tmp_path / "mine", vision_backbone="tiny", text_backbone="minilm", **settings)
    for step in (6, 9):
        tensors = {"model": {"w": torch.full((2,), float(step))}, "optimizer": {"m": torch.ones(2)}}
        state = {"step": step, "epoch": 2, "encoder": {"dim": 32}, "converted": "yes"}
        made.save_checkpoint(step, tensors, state, {"backbone-image/tiny.json": b"{}"})
    made.set_best(6, 0.5, "retrieval/mean_r5")
    made.set_status("finished", step=9, total_steps=12, message=str(tmp_path))
    made.append_metrics({"step": 6, "split": "val"})
    made.write_json("data", RECORD)
    made.write_json("data_report", {"can_show": {"sizes": SIZES, "smallest": 0.2}, "source": str(tmp_path)})
    made.write_json("baselines", {"frozen": 0.25})
    kept = {"format": 1, "fingerprint": made.fingerprint(6), "key": "k", "report": REPORT}
    made.write_json("evaluation-test", kept)
    return made


def blocks(text: str) -> dict[str, list[str]]:
    """The parts of a card under the heading of each, the first under its title."""
    found: dict[str, list[str]] = {}
    for block in text.split("\n\n")[1:]:
        if block.startswith("#"):
            found[block] = under = []
        else:
            under.append(block)
    return found


def test_the_card_says_data_numbers_limits_and_settings_each_in_its_place(run):
    text = card(run, 6, REPORT, license="cc-by-4.0", title="me/my_run")
    assert text.startswith("---\nlibrary_name: stage3\npipeline_tag: feature-extraction\ntags:\n- comics\n")
    assert yaml.safe_load(text.split("---")[1])["license"] == "cc-by-4.0"
    assert text.endswith("run.evaluate(data=comics)\n```\n")
    found = blocks(text)
    assert list(found) == [
        "# me/my\\_run", "## Data", "## What it is worth", "## Limits", "## Training", "## How to load"
    ]  # fmt: skip
    assert found["## Data"] == [
        "my\\|comics: 2,100 panels on 1,050 pages, split by book:",
        "| split | role | books | pages | panels |\n|---|---|---|---|---|\n"
        "| train | trained on | 2 | 1,000 | 2,000 |\n"
        "| val | chose the checkpoint | 1 | 42 | – |\n"
        "| test | held out | 0 | – | – |",
        "Panel table `tttttttttttttttt`, features `ffffffffffffffff`.",
    ]
    assert found["## What it is worth"] == [
        "Checkpoint of step 6, on 4,320 panels of 1,080 pages and 1,016 books of the test split; gallery of 3,000 "
        "panels with image and text. Intervals of 90 % from resampling books.",
        "| metric | value | interval | chance | frozen features | untrained model |\n|---|---|---|---|---|---|\n"
        "| R@5, image → text | 25.0 % | 20.0 % to 30.0 % | 1.0 % | 2.0 % | – |\n"
        "| R@5, text → image | 12.5 % | – | – | – | 3.0 % |\n"
        "| R² of reconstruction | 0.500 | 0.400 to 0.625 | 0.000 | – | – |",
        "- It added \\*much\\*.\n- One way.\n- The other.",
    ]
    limits = found["## Limits"][0].split("\n")
    assert limits[0].startswith("- The `tiny` backbones were trained on synthetic comics alone")
    assert limits[2].startswith("- At most 11 panels of a page were read;")
    assert limits[4:] == [
        "- On its held-out pages, differences below 20.0 points of R-precision may be chance.",
        "- few \\<b\\>",
    ]
    settings = found["## Training"][0].split("\n")
    assert settings[:3] == ["| setting | value |", "|---|---|", "| `max_panels` | `11` |"]
    assert "| `vision_backbone` | `tiny` |" in settings
    names = [line.split("`")[1] for line in settings[2:]]
    assert sorted(names) == [
        "alignment_temperature", "alignment_weight", "batch_pages", "contrastive_temperature", "contrastive_weight",
        "dim", "epochs", "finetune", "form", "lr", "max_panels", "reconstruction_weight", "seed", "text_backbone",
        "text_parts", "vision_backbone",
    ]  # fmt: skip
    assert "| `epochs` | `7` |" in settings
    assert not [line for line in settings if "data" in line or "threads" in line]
    assert 'stage3.Run.from_pretrained("me/my_run")' in text


def test_a_card_says_what_is_not_known(run):
    for name in ("data", "data_report"):
        (run.path / f"{name}.json").unlink()
    text = card(run, 6, None, license="", title="mine")
    assert "license" not in yaml.safe_load(text.split("---")[1])
    assert blocks(text)["## Data"] == ["The data that it was trained on is not recorded."]
    assert blocks(text)["## What it is worth"] == ["Not measured on held-out pages."]
    assert len(blocks(text)["## Limits"][0].split("\n")) == 4  # no differences that may be chance, and no notes
    run.write_json("data", {"books": {"train": ["a"]}})
    assert blocks(card(run, 6, None, license="", title=""))["## Data"] == [
        "The data that it was trained on is not recorded."
    ]
    run.write_json("data", {name: RECORD[name] for name in ("panels", "pages")})
    other = {"data": "", "manifest": "C:\\comics\\pages.json", "vision_backbone": "resnet50", "text_backbone": "minilm"}
    run.write_config(run.config.replace(**other))
    found = blocks(card(run, 6, {**REPORT, "notes": [], "intervals": {}}, license="", title=""))
    assert "| R² of reconstruction | 0.500 | – | 0.000 | – | – |" in found["## What it is worth"][1]
    assert found["## Data"][0].startswith("pages.json: 2,100 panels")
    assert found["## Data"][1].endswith("| test | held out | 0 | – | – |")
    assert found["## Data"][2] == "Panel table ``, features ``."
    assert [line for line in found["## Limits"][0].split("\n") if "tiny" in line] == []
    run.write_config(run.config.replace(manifest="", vision_backbone="resnet50+tiny"))
    found = blocks(card(run, 6, None, license="", title=""))
    assert found["## Data"][0].startswith("2,100 panels")
    assert "tiny" in found["## Limits"][0]


def test_the_metrics_of_a_card_are_those_of_an_evaluation_each_under_its_name():
    assert set(METRICS) <= set(TITLES)
    asked_and_found = {"i2t": ("image → text", "own text first"), "t2i": ("text → image", "own image first")}
    for name, label in METRICS.items():
        for way, words in asked_and_found.items():
            assert (way in name) is any(word in label for word in words)


def files_of(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_a_folder_holds_one_checkpoint_and_the_records_without_places(run, tmp_path):
    run.log("a line")
    made = RunFolder.load(write_folder(run, tmp_path / "out"))
    checkpoint = ["MANIFEST.json", "backbone-image/tiny.json", "model.safetensors", "state.json"]
    records = ["baselines", "best", "data", "environment", "evaluation-test", "status"]
    assert files_of(made.path) == sorted(
        ["README.md", "config.yaml", "metrics.jsonl", *(f"{name}.json" for name in records)]
        + [f"checkpoints/step-00000006/{name}" for name in checkpoint]
    )
    loaded = made.load_checkpoint()
    assert loaded.tensors["model"]["w"].tolist() == [6.0, 6.0]
    assert loaded.state == {"step": 6, "encoder": {"dim": 32}, "converted": "yes"}
    assert made.best() == run.best()
    status = made.status
    assert (status.state, status.step, status.total_steps, status.message) == ("finished", 6, 12, "")
    assert sorted(made.read_json("environment")) == ["python", "stage3", "versions"]
    for name in ("data.json", "metrics.jsonl", "baselines.json"):
        assert (made.path / name).read_bytes() == (run.path / name).read_bytes()
    config = made.config
    assert (config.data, config.max_minutes, config.epochs) == ("", Config().max_minutes, 7)
    kept = made.read_json("evaluation-test")
    assert (kept["report"]["run"], kept["key"]) == ("mine", "")  # of no data, so that who has some measures again
    expected = REPORT | {"run": str(made.path)}
    assert json.dumps(stored_report(made), sort_keys=True) == json.dumps(expected, sort_keys=True)  # NaN is NaN
    text = (made.path / "README.md").read_text(encoding="utf-8")
    assert next(iter(blocks(text))) == "# mine"
    assert "Checkpoint of step 6" in text


def test_of_another_checkpoint_nothing_is_said_that_was_measured_of_the_best(run, tmp_path, monkeypatch):
    (run.path / "environment.json").unlink()
    run.set_status("running", step=9)
    made = RunFolder.load(write_folder(run, tmp_path / "out", checkpoint=9, title="me/mine", license="mit"))
    assert [c.step for c in made.checkpoints()] == [9]
    assert made.best() is None
    assert made.status.state == "stopped"
    assert not {"baselines.json", "evaluation-test.json"} & set(files_of(made.path))
    text = (made.path / "README.md").read_text(encoding="utf-8")
    assert next(iter(blocks(text))) == "# me/mine"
    assert "license: mit" in text
    assert "Not measured" in text
    asked: list[dict[str, object]] = []

    def measure(run, **what):
        asked.append(what)
        return REPORT | {"step": what["checkpoint"]}

    with monkeypatch.context() as patched:
        patched.setattr(stage3.evaluate, "kept_report", measure)
        made = RunFolder.load(write_folder(run, tmp_path / "measured", checkpoint=9, data="the data"))
    assert asked == [{"data": "the data", "checkpoint": 9}]
    assert "Checkpoint of step 9" in (made.path / "README.md").read_text(encoding="utf-8")
    for name in ("baselines", "evaluation-test"):
        (run.path / f"{name}.json").unlink()
    made = RunFolder.load(write_folder(run, tmp_path / "unmeasured"))
    assert made.best().step == 6
    assert "Not measured" in (made.path / "README.md").read_text(encoding="utf-8")
    run.clear_best()
    kept = {"format": 1, "fingerprint": run.fingerprint(9), "key": "k", "report": REPORT | {"step": 9}}
    run.write_json("evaluation-test", kept)  # of the newest, which counts where none is the best
    assert not (write_folder(run, tmp_path / "first", checkpoint=6) / "evaluation-test.json").exists()
    assert (write_folder(run, tmp_path / "newest") / "evaluation-test.json").exists()


def test_local_backbones_come_along_under_names_of_their_own(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a+b", "text"):
        (tmp_path / name).mkdir()
        for file in ("tiny.json", "tiny_image.safetensors", "tiny_text.safetensors", "notes.txt"):
            (tmp_path / name / file).write_text(f"{name} {file}", encoding="utf-8")
    files = ["tiny.json", "tiny_image.safetensors", "tiny_text.safetensors"]
    own, text = str(tmp_path / "a+b"), str(tmp_path / "text")
    run.write_config(run.config.replace(vision_backbone=own, text_backbone=text))
    made = write_folder(run, tmp_path / "one")
    assert files_of(made / "backbones") == [f"{name}/{file}" for name in ("image-1", "text-2") for file in files]
    assert (made / "backbones" / "image-1" / "tiny.json").read_text() == "a+b tiny.json"
    config = RunFolder.load(made).config
    assert config.vision_backbone == str(made.resolve() / "backbones" / "image-1")
    assert config.text_backbone == str(made.resolve() / "backbones" / "text-2")
    run.write_config(run.config.replace(vision_backbone="resnet50 + ~/text", text_backbone="~/text"))
    made = write_folder(run, tmp_path / "joined")
    assert files_of(made / "backbones") == [f"image-2/{file}" for file in files]  # one folder for both
    config = RunFolder.load(made).config
    assert config.vision_backbone == f"resnet50+{made.resolve() / 'backbones' / 'image-2'}"
    assert config.text_backbone == str(made.resolve() / "backbones" / "image-2")


PLACES = ("data", "manifest", "panels", "labels", "cache_dir")


def test_every_place_of_this_machine_is_found_in_every_file_of_text(run, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", "/home/me")
    run.write_config(run.config.replace(**{name: f"/{name}" for name in PLACES} | {"labels": "/l"}))
    folder = tmp_path / "out"
    (folder / "sub").mkdir(parents=True)
    places = [
        "/home/me",
        str(tmp_path / "here"),
        str(run.path),
        str(folder),
        *(f"/{name}" for name in PLACES if name != "labels"),
        "/l",
    ]
    for place in places:
        for i, said in enumerate((f"{place}/x", f"{place}\\x", f'"{place}"')):
            file = folder / ("sub" if i else "") / f"record{('.json', '.jsonl', '.md')[i]}"
            file.write_text(said, encoding="utf-8")
            with pytest.raises(DataError, match=f"{file.name} names {place}, a place of this machine"):
                check_shareable(folder, run)
            file.unlink()
    (folder / "all.txt").write_text("".join(f"{place}/x\n" for place in places), encoding="utf-8")
    with pytest.raises(DataError, match=f"all.txt names {min(places)},"):
        check_shareable(folder, run)
    (folder / "all.txt").unlink()
    for suffix in (".yaml", ".txt"):
        (folder / f"a{suffix}").write_text("/data/x", encoding="utf-8")
        with pytest.raises(DataError, match=f"a{suffix} names /data,"):
            check_shareable(folder, run)
        (folder / f"a{suffix}").unlink()
    (tmp_path / "link").symlink_to(run.path)
    (folder / "c.md").write_text(f"{run.path}/x", encoding="utf-8")
    with pytest.raises(DataError, match=f"names {run.path},"):  # where it lies, by whichever name it was opened
        check_shareable(folder, RunFolder.load(tmp_path / "link"))
    (tmp_path / "other").symlink_to(folder)
    for name in ("d.md", "c.md"):
        (folder / name).write_text(f"{folder}/x", encoding="utf-8")
    with pytest.raises(DataError, match=f"c.md names {folder},"):
        check_shareable(tmp_path / "other", run)
    for name in ("d.md", "c.md"):
        (folder / name).write_bytes(b"\xff is no letter; https://huggingface.co is no place")
    (folder / "weights.bin").write_text("/data/x", encoding="utf-8")
    (folder / "b.json").write_text('"/database/x" and "gone/x" and "/etc/x"', encoding="utf-8")  # no place of ours
    run.write_config(run.config.replace(data="gone"))
    monkeypatch.setenv("HOME", "/")
    check_shareable(folder, run)


def test_only_a_new_or_empty_folder_is_written_to(run, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    for name in ("file", "link", "full"):
        with pytest.raises(ConfigError, match=f"{name} exists and is not an empty folder. Choose another one"):
            write_folder(run, tmp_path / name)
    (tmp_path / "empty").mkdir()
    assert (write_folder(run, str(tmp_path / "empty")) / "README.md").is_file()


# --- the Hub


class Hub:
    """What stands for the Hub: notes what it was asked, or fails."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []
        self.failure: Exception | None = None

    def create_repo(self, repo_id: str, private: bool, exist_ok: bool) -> str:
        if self.failure:
            raise self.failure
        self.asked.append((repo_id, private, exist_ok))
        return f"https://hub/{repo_id}"

    def upload_folder(self, repo_id: str, folder_path: Path, commit_message: str) -> None:
        title = (folder_path / "README.md").read_text(encoding="utf-8")
        self.asked.append((repo_id, folder_path.name, commit_message, title))


@pytest.fixture
def hub(monkeypatch) -> Hub:
    made = Hub()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: made)
    return made


def test_a_run_is_pushed_privately_under_its_new_name_unless_asked_otherwise(run, hub):
    assert push_run(run, "me/comics") == "https://hub/me/comics"
    (asked, (repo, name, message, text)) = hub.asked
    assert asked == ("me/comics", True, True)
    assert (repo, name, message) == ("me/comics", "run", "Run mine")
    assert next(iter(blocks(text))) == "# me/comics"
    push_run(run, "me/comics", private=False, message="again", checkpoint=9)
    assert (hub.asked[2][1], hub.asked[3][2]) == (False, "again")
    assert "Not measured" in hub.asked[3][3]


def test_what_the_hub_refuses_is_one_line_with_what_to_do(tmp_path, hub):
    for hub.failure in (HFValidationError("bad\nname"), LocalTokenNotFoundError("bad\nname")):
        with pytest.raises(ConfigError, match=r"^me: bad name\. Log in with `hf auth login`\.$"):
            push(tmp_path, "me", private=True, message="")
    hub.failure = OSError("no\nroute" + "e" * 400)
    with pytest.raises(StorageError, match=r"^me: could not be uploaded: no route{293}$"):
        push(tmp_path, "me", private=True, message="")
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    with pytest.raises(ConfigError, match="Set HF_HUB_OFFLINE=0 to share"):
        push(tmp_path, "me", private=True, message="")


def test_a_run_of_the_hub_is_fetched_to_a_folder_of_its_name(tmp_path, hub, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked: list[tuple[object, ...]] = []

    def download(repo_id: str, revision: str | None, local_dir: Path) -> str:
        asked.append((repo_id, revision, local_dir))
        if hub.failure:
            raise hub.failure
        return str(local_dir)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert fetched(str(tmp_path)) == tmp_path
    assert fetched("me/comics/") == Path("runs/comics")
    assert fetched("me/comics", "there", "v2") == Path("there")
    assert asked == [("me/comics/", None, Path("runs/comics")), ("me/comics", "v2", Path("there"))]
    for hub.failure in (HFValidationError("bad\nname"), OSError("bad\nname")):
        with pytest.raises(DataError, match=r"^me: (could not be downloaded \()?bad name\)?$"):
            fetched("me")
    hub.failure = OSError("bad\nroute" + "e" * 400)
    with pytest.raises(DataError, match=r"^me: could not be downloaded \(bad route{292}\)$"):
        fetched("me")
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    with pytest.raises(DataError, match="me: no such folder, and HF_HUB_OFFLINE is on"):
        fetched("me")
    Path("runs/comics").mkdir(parents=True)
    with pytest.raises(ConfigError, match="runs/comics exists already"):
        fetched("me/comics")
