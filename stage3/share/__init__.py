"""A run to hand on: a folder that others load, with a model card made from the run, and its way to the Hub.

The folder is a run itself, reduced to what using the model takes: settings without places, one checkpoint without the
optimizer, the record of which books are held out, metrics, the evaluation, and local backbones. Log, data report, maps
and everything else that may name files of this machine stay behind, and what is written is searched for such names.

`huggingface_hub.PyTorchModelHubMixin` is not used: it stores one `nn.Module` as one file of weights and the arguments
of its constructor. A run is a folder with its own format, checked by digests, and may hold backbones beside the model;
the plain `HfApi` uploads it as it is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stage3.config import Config
from stage3.errors import ConfigError, DataError, StorageError
from stage3.runs import RunFolder
from stage3.runs.checkpoints import read_manifest
from stage3.share.card import card
from stage3.storage import make_folder, storing, write_new

if TYPE_CHECKING:
    from stage3.batches.dataset import Dataset

PLACES = ("data", "manifest", "panels", "labels", "remap", "cache_dir", "log_to", "max_minutes")
KEPT = ("data.json", "metrics.jsonl")
TEXT = (".json", ".jsonl", ".yaml", ".md", ".txt")


def write_folder(
    run: RunFolder,
    folder: Path | str,
    *,
    checkpoint: int | None = None,
    data: Dataset | None = None,
    license: str = "",
    title: str = "",
) -> Path:
    """Write a run as a folder for others; see `Run.save_pretrained`."""
    folder = Path(folder)
    with storing(folder):
        if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
            raise ConfigError(f"{folder} exists and is not an empty folder. Choose another one.")
    there = run.checkpoint(checkpoint)
    loaded = run.load_checkpoint(there.step)
    report = _measured(run, there.step, data)
    bundled = _local_backbones(run.config)
    text = card(run, there.step, report, license=license, title=title or run.name)
    made = RunFolder.create(folder, _settings(run.config, bundled))
    _plain_records(run, made, there.step)
    for name, path, files in bundled.values():
        for file in files:
            to = folder / "backbones" / name / file.relative_to(path)
            make_folder(to.parent)
            write_new(to, file.read_bytes())
    state: dict[str, Any] = {name: loaded.state[name] for name in ("encoder", "converted") if name in loaded.state}
    models = {name: (loaded.path / name).read_bytes() for name in read_manifest(there) if "/" in name}
    made.save_checkpoint(there.step, {"model": loaded.tensors["model"]}, {"step": there.step, **state}, models)
    best = run.best()
    if best is not None and best.step == there.step:
        made.set_best(best.step, best.value, best.metric)
    if report is not None:
        _keep_report(made, there.step, report | {"run": run.name})
    write_new(folder / "README.md", text.encode("utf-8"))
    check_shareable(folder, run)
    return folder


def _measured(run: RunFolder, step: int, data: Dataset | None) -> dict[str, Any] | None:
    """The evaluation of a checkpoint on held-out pages; where the data is not here, what was measured before."""
    from stage3.evaluate import kept_report, stored_report

    try:
        return kept_report(run, data=data, checkpoint=step)
    except (ConfigError, DataError):
        known = stored_report(run)
        return known if known and known["step"] == step else None


def _keep_report(made: RunFolder, step: int, report: dict[str, Any]) -> None:
    """Where `stored_report` finds it; its key fits no data, so that whoever has some measures again."""
    from stage3.evaluate.kept import FILE, FORMAT

    kept = {"format": FORMAT, "fingerprint": made.fingerprint(step), "key": "", "report": report}
    made.write_json(FILE.format(report["split"]), kept)


def _settings(config: Config, bundled: dict[str, tuple[str, Path, list[Path]]]) -> Config:
    """The settings without places on this machine; local backbones are named as they will lie in the folder."""
    from stage3.config import FIELDS

    def named(names: str) -> str:
        return "+".join(f"backbones/{bundled[part][0]}" if part in bundled else part for part in _parts(names))

    return config.replace(
        **{name: FIELDS[name].default for name in PLACES},
        vision_backbone=named(config.vision_backbone),
        text_backbone=named(config.text_backbone),
    )


def _local_backbones(config: Config) -> dict[str, tuple[str, Path, list[Path]]]:
    """Backbones that are folders of this machine: as the settings name them, their new name, path and files.

    A folder that is both the image and the text backbone keeps one name, as one model, with what either of them reads.
    """
    from stage3.features.backbones import TINY, resolve_text, resolve_vision
    from stage3.features.backbones.pretrained import Pretrained

    kinds: list[tuple[str, str, Callable[[str], Any]]] = [
        ("image", name, resolve_vision) for name in _parts(config.vision_backbone)
    ]
    found: dict[str, tuple[str, Path, list[Path]]] = {}
    for i, (kind, name, resolve) in enumerate([*kinds, ("text", config.text_backbone, resolve_text)], 1):
        path = Path(name).expanduser()
        if not path.is_dir():
            continue
        if (path / TINY).is_file():
            files = [path / TINY, *path.glob("tiny_*.safetensors")]
        else:
            backbone = resolve(name)
            assert isinstance(backbone, Pretrained)
            files = [*backbone.folder.glob("*.safetensors"), *backbone.beside]
        called, _, before = found.get(name, (f"{kind}-{i}", path, []))
        found[name] = (called, path, list(dict.fromkeys([*before, *files])))
    return found


def _parts(names: str) -> list[str]:
    """The names of image backbones that are joined with `+`; a folder may have a plus in its own name."""
    return [names] if Path(names).expanduser().is_dir() else [part.strip() for part in names.split("+")]


def _plain_records(run: RunFolder, made: RunFolder, step: int) -> None:
    """Status and versions without process, machine or messages; what is told of data and metrics as it is."""
    was = run.status
    made.set_status(was.state if was.state != "running" else "stopped", step=step, total_steps=was.total_steps)
    if (run.path / "environment.json").exists():
        known = run.read_json("environment")
        made.write_json("environment", {n: known[n] for n in ("stage3", "versions", "python") if n in known})
    for name in KEPT:
        if (run.path / name).is_file():
            write_new(made.path / name, (run.path / name).read_bytes())
    best = run.best()
    if best is not None and best.step == step and (run.path / "baselines.json").exists():
        made.write_json("baselines", run.read_json("baselines"))


def check_shareable(folder: Path, run: RunFolder) -> None:
    """Refuse a folder in which a file names a place of this machine; DataError says which file and place."""
    config = run.config
    named = {config.data, config.manifest, config.panels, config.labels, config.cache_dir}
    places = {str(Path.home()), str(Path.cwd()), str(run.path.resolve()), str(folder.resolve())}
    places |= {name for name in named if Path(name).is_absolute()}
    places = {place for place in places if len(place) > 1}
    for path in sorted(p for p in folder.rglob("*") if p.suffix in TEXT):
        text = path.read_text(encoding="utf-8", errors="replace")
        for place in sorted(places):
            if f"{place}/" in text or f"{place}\\" in text or f'{place}"' in text:
                raise DataError(f"{path} names {place}, a place of this machine. Remove that before you share the run.")


def push(folder: Path, repo_id: str, *, private: bool, message: str) -> str:
    """Upload a folder that `write_folder` made; returns its address.

    Raises:
        ConfigError: HF_HUB_OFFLINE is on, the name is none, or nobody is logged in.
        StorageError: the Hub does not take it.
    """
    from stage3.hub import UNREACHABLE, offline

    if offline():
        raise ConfigError("nothing is sent while HF_HUB_OFFLINE is on, the default. Set HF_HUB_OFFLINE=0 to share.")
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError

    api = HfApi()
    try:
        address = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message)
    except (HFValidationError, LocalTokenNotFoundError) as error:
        raise ConfigError(f"{repo_id}: {' '.join(str(error).split())}. Log in with `hf auth login`.") from None
    except UNREACHABLE as error:
        raise StorageError(f"{repo_id}: could not be uploaded: {' '.join(str(error).split())[:300]}") from None
    return str(address)


def push_run(run: RunFolder, repo_id: str, *, private: bool = True, message: str = "", **what: Any) -> str:
    """Write a run's folder and upload it; see `Run.push_to_hub`."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_folder(run, Path(scratch) / "run", title=repo_id, **what)
        return push(folder, repo_id, private=private, message=message or f"Run {run.name}")


def fetched(source: Path | str, path: Path | str | None = None, revision: str | None = None) -> Path:
    """The folder of a shared run: one of this machine, or a repository of the Hub, downloaded."""
    if Path(source).is_dir():
        return Path(source)
    from stage3.hub import UNREACHABLE, offline

    name = str(source).rstrip("/").rpartition("/")[2]
    out = Path(path) if path else Path("runs") / name
    if out.exists():
        raise ConfigError(f"{out} exists already. Load it with Run.load, or give path= another folder.")
    if offline():
        raise DataError(f"{source}: no such folder, and HF_HUB_OFFLINE is on. Set HF_HUB_OFFLINE=0 to download it.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(str(source), revision=revision, local_dir=out))
    except HFValidationError as error:
        raise DataError(f"{source}: {' '.join(str(error).split())}") from None
    except UNREACHABLE as error:
        raise DataError(f"{source}: could not be downloaded ({' '.join(str(error).split())[:300]})") from None
