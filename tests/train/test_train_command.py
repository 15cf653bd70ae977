"""`python -m stage3.train` as its user meets it: files, exit codes, stopping, resuming, refusals."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import app_support
import forked
import pytest
import torch
import yaml
from PIL import Image

from stage3 import train
from stage3.config import Config
from stage3.data import readers
from stage3.errors import ConfigError, DataError, Interrupted, StorageError
from stage3.evaluate import evaluation_report
from stage3.features import backbones
from stage3.runs import RunFolder
from stage3.train import __main__ as train_command

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["--dim", "32", "--epochs", "2", "--batch_pages", "4", "--val_fraction", "0.3", "--test_fraction", "0.2"]
CLOCKS = ("seconds", "panels_per_second")


@pytest.fixture(scope="module")
def comics(tmp_path_factory) -> Path:
    return app_support.write_comics(tmp_path_factory.mktemp("comics") / "set", books=6, pages=5, seed=5)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def args(comics, cache):
    return ["--data", str(comics), "--cache_dir", str(cache), *QUICK]


@pytest.fixture(scope="module")
def _plain(tmp_path_factory, comics, cache) -> tuple[Path, str]:
    run, printed = tmp_path_factory.mktemp("plain") / "r", io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert train_command.main(["--run", str(run), "--data", str(comics), "--cache_dir", str(cache), *QUICK]) == 0
    return run, printed.getvalue()


@pytest.fixture
def plain(tmp_path, _plain) -> Path:
    """A copy of a finished run of `args`."""
    return shutil.copytree(_plain[0], tmp_path / "plain")


@pytest.fixture
def printed(_plain) -> str:
    """What its training printed."""
    return _plain[1]


def rows(run: Path) -> list[dict]:
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in CLOCKS} for line in lines]


def weights(run: Path) -> bytes:
    return (RunFolder.load(run).checkpoints()[-1].path / "model.safetensors").read_bytes()


def start(run: Path, args: list[str]) -> forked.Process:
    return forked.start("stage3.train", ["--run", str(run), *args])


def wait_for_step(run: Path, step: int, process: forked.Process) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if RunFolder.exists(run):
            status = RunFolder.load(run).status
            if status.pid == process.pid and status.step >= step:  # not what one that was killed has written
                return
        time.sleep(0.02)
    raise AssertionError(f"step {step} was not reached: {process.communicate(timeout=5)}")


def test_a_run_leaves_everything_that_others_read(tmp_path, args, capsys):
    run = tmp_path / "r"
    assert train_command.main(["--run", str(run), *args, "--embed_every", "1"]) == 0
    printed = capsys.readouterr().out
    assert "pages listed" in printed
    assert f"next: python -m stage3.evaluate --run {run}" in printed
    for name in ("config.yaml", "status.json", "metrics.jsonl", "train.log", "data_report.json", "environment.json"):
        assert (run / name).stat().st_size > 0, name
    assert RunFolder.load(run).status.state == "finished"
    assert RunFolder.load(run).best().metric == "retrieval/same_page_r_precision"
    assert not list(run.rglob("*.p[tk]*"))
    val = [r for r in rows(run) if r["split"] == "val"][-1]
    contract = """loss/contrastive loss/reconstruction loss/alignment loss/alignment_i2t loss/alignment_t2i loss/total
        weighted/contrastive active/pages active/panels active/anchors active/pairs active/reconstructed active/aligned
        retrieval/i2t_r1 retrieval/t2i_r5 retrieval/i2t_r10 retrieval/t2i_mrr retrieval/i2t_median_rank
        retrieval/within_page_i2t retrieval/within_page_t2i collapse/effective_rank collapse/mean_cosine
        collapse/page_gap collapse/uniformity collapse/alignment reconstruction/skill reconstruction/rank_r1"""
    assert set(contract.split()) <= set(val)
    assert {"lr", "grad_norm", "step", "epoch"} <= set(next(r for r in rows(run) if r["split"] == "train"))


def test_training_ends_with_what_it_added_to_the_frozen_features(plain, printed, capsys):
    """The sentence is about the best checkpoint and validation pages, as `evaluate --split val` measures it."""
    run = plain
    kept = RunFolder.load(run).read_json("baselines")
    report = evaluation_report(RunFolder.load(run), split="val")
    assert {name: kept[name] for name in report["added"]} == report["added"]
    assert (kept["step"], kept["split"]) == (RunFolder.load(run).best().step, "val")
    assert f"validation pages: {report['added']['sentence']}\n" in printed
    assert kept["retrieval"] == report["against_chance"]
    assert [way["way"] for way in kept["retrieval"]] == ["i2t", "t2i"]
    for way in kept["retrieval"]:
        assert f"  {way['sentence']}\n" in printed
    assert train_command.main(["--run", str(run), "--json"]) == 0  # a finished run says it again
    assert json.loads(capsys.readouterr().out)["added"] == kept


def test_without_validation_books_nothing_is_compared(tmp_path, args, capsys):
    assert train_command.main(["--run", str(tmp_path / "r"), *args, "--val_fraction", "0"]) == 0
    assert "frozen features" not in capsys.readouterr().out
    assert not (tmp_path / "r" / "baselines.json").exists()


def test_the_recorded_config_reproduces_the_run(tmp_path, args):
    first, again = tmp_path / "a", tmp_path / "b"
    assert train_command.main(["--run", str(first), *args, "--temperature", "0.1", "--seed", "3"]) == 0
    assert train_command.main(["--run", str(again), "--config", str(first / "config.yaml")]) == 0
    assert weights(first) == weights(again)
    assert rows(first) == rows(again)


@pytest.mark.usefixtures("plain")
def test_a_second_run_on_the_same_data_computes_no_feature(tmp_path, args, monkeypatch):
    from stage3.features.backbones import tiny

    def fail(*_: object) -> None:
        raise AssertionError("a backbone ran although every feature is stored")

    monkeypatch.setattr(tiny.TinyVision, "encode", fail)
    monkeypatch.setattr(tiny.TinyText, "encode", fail)
    assert train_command.main(["--run", str(tmp_path / "b"), *args]) == 0


LONG = ["--epochs", "12", "--checkpoint_steps", "1"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, comics, cache) -> Path:
    """A run of `LONG` that nothing disturbed."""
    run = tmp_path_factory.mktemp("undisturbed") / "whole"
    assert train_command.main(["--run", str(run), "--data", str(comics), "--cache_dir", str(cache), *QUICK, *LONG]) == 0
    return run


@pytest.mark.skipif(sys.platform == "win32", reason="signals reach a child differently on Windows; STOP is tested")
@pytest.mark.parametrize(
    # Weekly: what SIGTERM does but for its number, which test_a_stop_does_not_wait_for_all_features sees of both.
    "how",
    [pytest.param(signal.SIGINT, marks=pytest.mark.heavy), signal.SIGTERM, signal.SIGKILL],
)
def test_a_stopped_or_killed_command_resumes_to_the_same_bytes(tmp_path, args, how, whole):
    long, parts = [*args, *LONG], tmp_path / "parts"
    process = start(parts, long)
    wait_for_step(parts, 3, process)
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 75)
    if how != signal.SIGKILL:
        assert "the same command resumes it" in errors
        assert "error" not in errors  # it did as it was told
        assert RunFolder.load(parts).status.state == "stopped"
    else:
        assert not RunFolder.load(parts).is_live  # its status still says running; the lock died with it
    assert train_command.main(["--run", str(parts), *long]) == 0
    assert weights(parts) == weights(whole)
    assert rows(parts) == rows(whole)


def test_a_stop_file_ends_the_run_and_the_next_start_clears_it(tmp_path, args):
    run = tmp_path / "r"
    process = start(run, [*args, "--epochs", "200"])
    wait_for_step(run, 2, process)
    RunFolder.load(run).request_stop()
    process.communicate(timeout=60)
    assert process.returncode == 75
    stopped = RunFolder.load(run).status.step
    assert RunFolder.load(run).checkpoints()[-1].step == stopped
    process = start(run, [])
    wait_for_step(run, stopped + 2, process)
    process.kill()
    process.communicate(timeout=60)


def test_two_trainers_cannot_share_a_run(tmp_path, args):
    run = tmp_path / "r"
    process = start(run, [*args, "--epochs", "200"])
    wait_for_step(run, 1, process)
    second = start(run, [])
    _, errors = second.communicate(timeout=60)
    process.kill()
    process.communicate(timeout=60)
    assert second.returncode == 2
    assert str(process.pid) in errors


def test_a_run_refuses_changed_settings_by_name_and_takes_harmless_ones(plain):
    run = plain
    with pytest.raises(ConfigError, match=rf"lr is {Config().lr}, asked for 0.1"):
        train_command.main(["--run", str(run), "--lr", "0.1"])
    assert train_command.main(["--run", str(run), "--keep_checkpoints", "5"]) == 0
    assert RunFolder.load(run).config.keep_checkpoints == 5


def test_a_run_refuses_other_data(tmp_path, comics, args):
    run = tmp_path / "r"
    process = start(run, [*args, "--epochs", "200"])
    wait_for_step(run, 1, process)
    RunFolder.load(run).request_stop()
    process.communicate(timeout=60)
    other = tmp_path / "other"
    app_support.write_comics(other, books=6, pages=2, seed=6)
    with pytest.raises(DataError, match="was trained on other data"):
        train_command.main(["--run", str(run), "--data", str(other)])
    assert RunFolder.load(run).status.state == "failed"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--temprature", "0.1"], "Did you mean 'temperature'"),
        (["--temperature", "0"], "error: temperature: 0.0 is out of range"),
        (["--temperature", "nan"], "error: temperature: nan is not valid"),
        (["--device", "cudda"], "device: expected auto, cpu, cuda or cuda:N, got 'cudda'"),
        (["--device", "cuda:99", "--data", "data/samples"], "device: cuda:99 is not on this machine"),
        (["--config", "tests"], "tests: is a folder"),
        (["--contrastive_weight", "-1"], "contrastive_weight: -1.0 is out of range"),
        (["--config", "missing.yaml"], "missing.yaml: no such file"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, argv, message):
    process = start(tmp_path / "r", argv)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 2, (out, errors)
    assert not (tmp_path / "r").exists()
    assert "Traceback" not in errors
    lines = errors.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert any(part in lines[0] for part in message.split("|"))


def pages(folder: Path, comics: Path, manifest: str) -> list[str]:
    """Flags for the comics' panels under another manifest."""
    file = folder / "pages.csv"
    file.write_text(manifest, encoding="utf-8")
    return ["--data", str(comics), "--manifest", str(file), "--cache_dir", str(folder / "cache"), *QUICK]


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("canonical_id;absolute_image_path\na;b\n", r"pages\.csv:1: columns are separated by"),
        ("canonical_id,absolute_image_path\n", "lists no page"),
        ("canonical_id,absolute_image_path\n/etc/passwd,b\n", r"pages\.csv:2: canonical_id"),
        ("canonical_id,absolute_image_path\nnowhere/1,b\n", "nothing is left to train on"),
    ],
)
def test_refused_data_leaves_no_run_behind(tmp_path, comics, manifest, message):
    run = tmp_path / "runs" / "r"
    with pytest.raises(DataError, match=message):
        train_command.main(["--run", str(run), *pages(tmp_path, comics, manifest)])
    assert not run.parent.exists()


def test_more_than_a_hundredth_of_damaged_pages_refuse_the_run(tmp_path, comics, cache):
    damaged = tmp_path / "set"
    shutil.copytree(comics, damaged)
    files = sorted((damaged / "panels").rglob("*.json"))
    files[3].write_bytes(b"{")
    flags = ["--data", str(damaged), "--cache_dir", str(cache), *QUICK]
    with pytest.raises(DataError, match=r"1 of 30 pages are damaged.*json_syntax.*repair them or"):
        train_command.main(["--run", str(tmp_path / "r"), *flags])
    assert train_command.main(["--run", str(tmp_path / "r"), *flags, "--max_skip_fraction", "0.05"]) == 0
    report = json.loads((tmp_path / "r" / "data_report.json").read_text(encoding="utf-8"))
    assert report["pages_listed"] == report["pages_kept"] + sum(report["skipped"].values())
    assert files[3].name in report["examples"]["page:json_syntax"][0]


def test_a_failed_start_leaves_no_setting_to_the_next_one_and_that_is_said(tmp_path, args, capsys):
    """A run that a command makes and refuses is gone; one that was prepared, as the explorer does, stays."""
    given = dict(zip([a.removeprefix("--") for a in args[::2]], args[1::2], strict=True))
    failing = {**given, "vision_backbone": str(tmp_path), "lr": 0.5, "seed": 7}
    run = RunFolder.create(tmp_path / "r", Config.from_mapping(failing)).path
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"has no config\.json"):
            train_command.main(["--run", str(run)])  # nothing given: as it was asked for
        assert RunFolder.load(run).status.state == "failed"
        assert RunFolder.load(run).config.lr == 0.5
    with pytest.raises(ConfigError, match="no data set"):
        train_command.main(["--run", str(run), "--epochs", "3"])
    assert RunFolder.load(run).config.lr == 0.5  # a refused start changes nothing
    capsys.readouterr()
    assert train_command.main(["--run", str(run), *args, "--seed", "8"]) == 0
    config, fresh = RunFolder.load(run).config, Config()
    assert (config.lr, config.vision_backbone, config.seed) == (fresh.lr, fresh.vision_backbone, 8)
    said = next(line for line in capsys.readouterr().out.splitlines() if "never began" in line)
    assert said.endswith(f"not kept from its earlier start: vision_backbone {tmp_path}, lr 0.5")
    assert said in (run / "train.log").read_text(encoding="utf-8")


def test_a_run_that_is_only_prepared_starts_with_its_own_settings(tmp_path, args):
    """As the explorer starts one."""
    given = dict(zip([a.removeprefix("--") for a in args[::2]], args[1::2], strict=True))
    run = RunFolder.create(tmp_path / "r", Config.from_mapping({**given, "lr": 0.004, "threads": 2}))
    assert train_command.main(["--run", str(run.path)]) == 0
    assert RunFolder.load(run.path).config == run.config
    assert run.load_checkpoint().state["threads"] == 2


def test_a_run_inside_the_panels_is_refused(tmp_path, comics, args):
    run = comics / "panels" / "runs" / "r"
    with pytest.raises(ConfigError, match="lies inside the panels"):
        train_command.main(["--run", str(run), *args])
    assert not run.parent.exists()


def test_settings_that_are_hardly_meant_are_pointed_out(tmp_path, args, capsys):
    file = tmp_path / "c.yaml"
    file.write_text("lr: 0.002\ndim: 32\n", encoding="utf-8")
    run = tmp_path / "r"
    more = ["--config", str(file), "--lr", "0.003", "--max_panels", "1"]
    assert train_command.main(["--run", str(run), *args, *more]) == 0
    printed, logged = capsys.readouterr().out, (run / "train.log").read_text(encoding="utf-8")
    for line in (f"lr: 0.003 from the command line overrides 0.002 of {file}", "max_panels 1: no panel has page mates"):
        assert line in printed
        assert line in logged
    assert "dim:" not in printed  # both say the same
    many = train.cautions(Config(workers=64))
    assert bool(many) == (4 * os.cpu_count() < 64)
    assert train.cautions(Config(workers=1)) == []


@pytest.fixture(scope="module")
def _stopped(tmp_path_factory, comics, cache) -> Path:
    run, args = tmp_path_factory.mktemp("once") / "stopped", ["--data", str(comics), "--cache_dir", str(cache), *QUICK]
    process = start(run, [*args, "--epochs", "200", "--checkpoint_steps", "1"])
    wait_for_step(run, 6, process)
    while not (run / "best.json").exists():
        time.sleep(0.02)
    RunFolder.load(run).request_stop()
    process.communicate(timeout=60)
    assert process.returncode == 75
    return run


@pytest.fixture
def stopped(tmp_path, _stopped) -> Path:
    """A run that was stopped after a few steps of many, behind its first best checkpoint."""
    return shutil.copytree(_stopped, tmp_path / "stopped")


def test_lost_checkpoints_never_restart_a_run(stopped):
    shutil.rmtree(stopped / "checkpoints")
    logged = (stopped / "metrics.jsonl").read_bytes()
    with pytest.raises(StorageError, match="its folder checkpoints/ is gone"):
        train_command.main(["--run", str(stopped)])
    assert (stopped / "metrics.jsonl").read_bytes() == logged
    assert RunFolder.load(stopped).best() is not None


def test_a_newest_checkpoint_of_another_model_is_named_and_the_one_before_resumed(stopped, capsys):
    run = RunFolder.load(stopped)
    newest = run.load_checkpoint()
    tensors = {**newest.tensors, "model": {"w": torch.zeros(2)}}
    run.save_checkpoint(newest.step + 1, tensors, {**newest.state, "step": newest.step + 1})
    run.write_config(run.config.replace(max_minutes=1e-4))
    with pytest.raises(Interrupted):
        train_command.main(["--run", str(stopped)])
    printed = capsys.readouterr().out
    assert "its tensors are not this model's" in printed
    assert f"resuming {stopped} after step {newest.step}" in printed


def test_checkpoints_without_a_record_of_their_data_are_not_resumed(stopped):
    (stopped / "data.json").unlink()
    with pytest.raises(StorageError, match=r"data\.json is gone"):
        train_command.main(["--run", str(stopped)])
    assert not (stopped / "data.json").exists()


def test_a_changed_or_missing_image_is_other_data(stopped):
    image = Path(readers.load(RunFolder.load(stopped).config).pages["image_path"][0])
    aside = image.with_name("aside")
    image.rename(aside)
    try:
        with pytest.raises(DataError, match=r"was trained on other data \(images: "):
            train_command.main(["--run", str(stopped)])
    finally:
        aside.rename(image)


def test_json_is_one_object(tmp_path, args):
    """Nothing else reaches the output of the process, whoever writes it."""
    process = start(tmp_path / "r", [*args, "--json"])
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    result = json.loads(out)
    assert result["state"] == "finished"
    assert result["validation"][result["selected_by"]] >= 0


def test_a_start_imports_nothing_for_nothing_and_its_output_is_utf8_whatever_the_code_page(tmp_path, args):
    command = [sys.executable, "-m", "stage3.train", "--run", str(tmp_path / "r"), *args]
    pages = {"PYTHONIOENCODING": "cp1252"}  # what Windows takes for files and pipes
    environment = {**os.environ, **pages, "PYTHONPROFILEIMPORTTIME": "1"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
    errors = ended.stderr.decode("utf-8")
    assert ended.returncode == 0, errors
    assert "image→text" in ended.stdout.decode("utf-8")
    imported = {line.rpartition("|")[2].strip() for line in errors.splitlines()}
    assert {"torch", "stage3.train.trainer"} <= imported
    assert not {"torch._dynamo", "sympy", "sklearn", "umap", "transformers"} & imported  # seconds for nothing


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_used(tmp_path, args, capsys):
    run = tmp_path / "r"
    process = start(run, [*args, "--epochs", "50", "--checkpoint_steps", "1"])
    wait_for_step(run, 4, process)
    process.kill()
    process.communicate(timeout=60)
    newest = RunFolder.load(run).checkpoints()[-1]
    file = newest.path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-3] + b"xyz")
    process = start(run, [])
    wait_for_step(run, newest.step + 1, process)
    RunFolder.load(run).request_stop()
    out, _ = process.communicate(timeout=60)
    assert "damaged checkpoint passed over" in out
    assert f"resuming {run} after step {newest.step - 1}" in out


def test_settings_file_and_flags_end_in_the_record(tmp_path, args):
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump({"lr": 0.002, "alignment_weight": 2}), encoding="utf-8")
    run = tmp_path / "r"
    assert train_command.main(["--run", str(run), *args, "--config", str(file), "--alignment_weight", "3"]) == 0
    assert (RunFolder.load(run).config.lr, RunFolder.load(run).config.alignment_weight) == (0.002, 3)
    val = [r for r in rows(run) if r["split"] == "val"][-1]
    assert val["weighted/alignment"] == pytest.approx(3 * val["loss/alignment"])


def test_the_environment_is_recorded_without_paths_or_names(plain):
    text = (plain / "environment.json").read_text(encoding="utf-8")
    assert "torch" in text
    assert str(Path.home()) not in text
    assert os.environ.get("USER", "no-such-user-name") not in text or os.environ.get("USER") == "root"


def test_a_run_that_never_got_to_a_checkpoint_takes_better_flags(tmp_path, args):
    run = tmp_path / "r"
    with pytest.raises(DataError, match="nothing is left"):
        train_command.main(["--run", str(run), *args, "--keep_labels", "sotry"])
    assert train_command.main(["--run", str(run), *args, "--keep_labels", "story,narrative", "--lr", "0.01"]) == 0
    fresh = tmp_path / "fresh"
    assert train_command.main(["--run", str(fresh), *args, "--lr", "0.01"]) == 0
    assert weights(run) == weights(fresh)
    assert (RunFolder.load(run).path / "config.yaml").read_bytes() == (fresh / "config.yaml").read_bytes()


def test_a_refused_command_changes_no_setting_of_a_run_that_is_being_trained(tmp_path, args):
    run = tmp_path / "r"
    process = start(run, [*args, "--epochs", "200"])
    wait_for_step(run, 1, process)
    before = (run / "config.yaml").read_bytes()
    second = start(run, ["--patience", "7"])
    second.communicate(timeout=60)
    process.kill()
    process.communicate(timeout=60)
    assert second.returncode == 2
    assert (run / "config.yaml").read_bytes() == before


def test_other_threads_are_refused_with_the_flag_that_allows_them(tmp_path, args):
    run = tmp_path / "r"
    process = start(run, [*args, "--epochs", "200"])
    wait_for_step(run, 1, process)
    RunFolder.load(run).request_stop()
    process.communicate(timeout=60)
    with pytest.raises(ConfigError, match=r"threads is 1, asked for 2.*--allow_inexact_resume"):
        train_command.main(["--run", str(run), "--threads", "2"])
    process = start(run, ["--threads", "2", "--allow_inexact_resume"])
    wait_for_step(run, RunFolder.load(run).status.step + 1, process)
    RunFolder.load(run).request_stop()
    process.communicate(timeout=60)
    assert process.returncode == 75
    assert RunFolder.load(run).load_checkpoint().state["threads"] == 2


def test_training_says_what_its_features_cost_and_lost(plain, printed):
    line = next(line for line in printed.splitlines() if line.startswith("features: "))
    assert "truncated" in line
    assert line in (plain / "train.log").read_text(encoding="utf-8")


def test_without_an_image_in_validation_page_mates_choose_the_checkpoint(tmp_path, comics, args, capsys):
    manifest = tmp_path / "pages.csv"
    lines = (comics / "manifest.csv").read_text(encoding="utf-8").splitlines()
    rows = [lines[0], *(f"{line.split(',')[0]},E:\\comics\\{n}.png" for n, line in enumerate(lines[1:]))]
    manifest.write_text("\n".join(rows) + "\n", encoding="utf-8")
    blind = ["--manifest", str(manifest), "--max_without_image", "1", "--select_by", "retrieval/mean_r5"]
    assert train_command.main(["--run", str(tmp_path / "r"), *args, *blind]) == 0
    chosen = "retrieval/mean_r5 was not measured: retrieval/same_page_r_precision chose the checkpoint"
    assert chosen in capsys.readouterr().out


@pytest.mark.skipif(sys.platform == "win32", reason="signals reach a child differently on Windows")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_does_not_wait_for_all_features(tmp_path, args, monkeypatch, how):
    run = tmp_path / "r"

    def slow(*_: object, **__: object) -> None:
        os.kill(os.getpid(), how)
        raise AssertionError("the work went on")

    monkeypatch.setattr("stage3.batches.dataset.load_or_build", slow)
    with pytest.raises(Interrupted) as caught:
        train_command.main(["--run", str(run), *args])
    assert caught.value.exit_code == 75
    assert (RunFolder.load(run).status.state, RunFolder.load(run).status.exit_code) == ("stopped", 75)
    monkeypatch.undo()
    assert train_command.main(["--run", str(run)]) == 0


def test_the_leak_ablation_encodes_a_gray_image_and_no_words_where_something_is_absent(args, tmp_path):
    assert train_command.main(["--run", str(tmp_path / "r"), *args, "--residual_leak", "true"]) == 0
    run = RunFolder.load(tmp_path / "r")
    encoder = run.model().encoder
    vision, text = backbones.resolve_vision("tiny"), backbones.resolve_text("tiny")
    blank = Image.new("RGB", (64, 64), vision.zero_color)
    torch.testing.assert_close(encoder.absent_image, vision.encode([blank])[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(encoder.absent_text, text.encode([""])[0], rtol=1e-4, atol=1e-4)
    assert encoder.absent_image.abs().sum() > 0
    assert evaluation_report(run, split="val")  # the checkpoint holds all that an evaluation needs
