"""A checkpoint of the original trainer becomes a run; `python -m stage3.convert` is the command.

Beside this file: `opening` and `child` open the file in a confined process, `structure` tells from its tensors what it
is, and `towers` writes its backbones as Hugging Face folders. The encoder is `stage3.model.earlier`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stage3.config import Config
from stage3.data.table import LAYOUT_MEANING, LAYOUT_MEANINGS
from stage3.errors import ConfigError, DataError
from stage3.runs import RunFolder
from stage3.runs.settings import BACKBONES
from stage3.storage import TMP, make_folder, remove, rename, storing, sync_folder

if TYPE_CHECKING:
    from stage3.convert.opening import Opened
    from stage3.convert.structure import Earlier
    from stage3.features.backbones import TextBackbone, VisionBackbone
    from stage3.model import Stage3

STEP = 0  # of the run's one checkpoint: no step of this trainer led to it
PLACES = ("data", "manifest", "panels", "panel_format", "labels", "remap", "box_order", "cache_dir")
"""Settings that the run may be given: where its comics are."""
Tell = Callable[[str], None]


def convert_checkpoint(
    file: Path | str,
    path: Path | str,
    *,
    layout: str,
    tokenizer: Path | str,
    image_heads: int = 0,
    text_heads: int = 0,
    image_side: int = 0,
    settings: Mapping[str, Any] | None = None,
    tell: Tell = lambda _: None,
) -> RunFolder:
    """Make a run of a checkpoint of the original trainer; everything that `python -m stage3.convert` does.

    Args:
        file: `best_model.pt`, `best_model_vlm.pt` or a `checkpoint_vlm_*.pt`.
        path: folder of the run; must be new or empty. It appears complete or not at all.
        layout: what the layout features that it was trained on mean, "vlm" or "ocr"; this cannot be told from the file.
        tokenizer: folder with the tokenizer of its text model, such as a copy of all-MiniLM-L6-v2.
        image_heads: attention heads of its SigLIP, which cannot be told from the file either; 0 takes what models of
            its width have.
        text_heads: of its text model; 0 takes what a config.json beside the tokenizer says, else likewise.
        image_side: pixels of the square that crops were stretched to for a ResNet alone; 0: 224, or 32 of a ResNet
            that is narrower than ResNet-50. A SigLIP says itself what it takes.
        settings: where its comics are, any of `PLACES`; without, commands are given --data.
        tell: takes a line for a person.

    Raises:
        ConfigError: an argument cannot be used, or the run is there already.
        DataError: the file is refused; says which tensor or object it is.
        StorageError: the run cannot be written.
    """
    from stage3.convert.opening import open_checkpoint
    from stage3.convert.structure import sort_out
    from stage3.convert.towers import side_of, tokenizer_files

    file, path, tokenizer, places = Path(file), Path(path), Path(tokenizer), dict(settings or {})
    check_arguments(path, layout, places, image_heads=image_heads, text_heads=text_heads, image_side=image_side)
    tokenizer_files(tokenizer)
    opened = open_checkpoint(file)
    try:
        found = sort_out(opened.weights, layout, tokenizer, image_heads=image_heads, text_heads=text_heads)
        config = settings_of(found, places)
    except DataError as error:
        raise DataError(f"{file} is refused: {error}") from None
    side = side_of(found.images, image_side)
    tell(described(found, side))
    if "vlm" in file.name and layout != LAYOUT_MEANING:
        tell(f"the name {file.name} suggests --layout vlm; {layout} is used, as given")
    scratch = path.with_name(f"{TMP}{path.name}-{os.getpid()}")
    with storing(path):
        make_folder(path.parent)
        remove(scratch)
        try:
            write_run(scratch / "run", opened, found, config, tokenizer, side)
            if path.is_dir():
                path.rmdir()
            rename(scratch / "run", path)
        except DataError as error:  # of a backbone that cannot be used; its folder is not there any more
            said = str(error).replace(str((scratch / "run").resolve()), "")
            raise DataError(f"{file} cannot be converted: {said}") from None
        finally:
            remove(scratch)
        sync_folder(path.parent)
    return RunFolder.load(path)


def check_arguments(path: Path, layout: str, places: Mapping[str, Any], **numbers: int) -> None:
    """Refuse arguments that cannot be used, before the file is opened.

    Raises:
        ConfigError: says which and what to give.
    """
    if layout not in LAYOUT_MEANINGS:
        raise ConfigError(f"layout: {layout!r} is not one of {', '.join(LAYOUT_MEANINGS)}")
    for name, number in numbers.items():
        most = 256 if name.endswith("heads") else 4096
        if not 0 <= number <= most:
            raise ConfigError(f"{name}: {number} is out of range: must be from 1 to {most}, or 0 for the usual number")
    if others := [name for name in places if name not in PLACES]:
        raise ConfigError(f"{others[0]} is not a setting of a conversion. It takes {', '.join(PLACES)}.")
    if RunFolder.exists(path):
        raise ConfigError(f"{path} is already a run. Choose another name.")
    with storing(path):
        if path.is_symlink() or (path.exists() and not path.is_dir()) or (path.is_dir() and any(path.iterdir())):
            raise ConfigError(f"{path} exists and is not an empty folder. Choose another name for the run.")
    if "+" in str(path.resolve()):
        raise ConfigError(f"{path.resolve()} contains a +, which joins the names of backbones. Choose another folder.")


def settings_of(found: Earlier, places: Mapping[str, Any]) -> Config:
    """The settings that a converted run records; DataError where a size of the file is none that a setting has."""
    spec = found.spec
    names = [f"{BACKBONES}/{tower.kind}" for tower in (*found.images, found.text)]
    fixed = {
        "vision_backbone": "+".join(names[:-1]),
        "text_backbone": names[-1],
        "text_parts": "description+dialogue",
        "feature_dtype": "float32",
        "form": "plain",  # of a model trained anew with these settings; the checkpoint says what this one is
        "dim": spec.dim,
        "visual_fusion": spec.visual_fusion,
        "gate_hidden": spec.gate_hidden,
        "layout_hidden": spec.layout_hidden,
        "panel_norm": False,
        "contrastive_weight": 1.0,
        "alignment_weight": 0.3,
        "reconstruction_weight": 0.0,  # its head is in no file
        "temperature": 0.07,
    }
    try:
        return Config.layered((fixed, "its sizes"), (places, "settings"))
    except ConfigError as error:
        if set(places) & {str(error).partition(":")[0], "settings"}:
            raise
        raise DataError(str(error)) from None


def described(found: Earlier, side: int) -> str:
    """What was recognized, and what had to be assumed, in one line."""
    spec, parts = found.spec, []
    for tower in (*found.images, found.text):
        heads = getattr(tower.config, "num_attention_heads", None)
        name = {"siglip": "SigLIP", "resnet": "ResNet", "text": "text model"}[tower.kind]
        parts.append(f"{name} of {tower.size}" + (f" with {heads} attention heads" if heads else ""))
    how = f", combined by {spec.visual_fusion}" if len(found.images) > 1 else ""
    return (
        f"found {', '.join(parts)}{how}; {spec.dim} dimensions, gate {'with' if found.indicators else 'without'} flags "
        f"of what is present; layout features {spec.layout} as given; crops of {side} x {side} pixels. Numbers of "
        "heads and, of a ResNet alone, the size of crops are not in the file: usual ones are taken where none is given."
    )


def write_run(path: Path, opened: Opened, found: Earlier, config: Config, tokenizer: Path, side: int) -> None:
    """Write the whole run; an absent modality's constants are computed with its own backbones on the way."""
    import torch

    from stage3.convert import towers
    from stage3.features import fingerprint_of
    from stage3.features.backbones import resolve_text, resolve_vision
    from stage3.model import Stage3

    RunFolder.create(path, config)
    for tower in (*found.images, found.text):
        towers.write(tower, path / BACKBONES / tower.kind, side, tokenizer)
    run = RunFolder.load(path)
    vision = resolve_vision(run.config.vision_backbone, crop_fit=run.config.crop_fit)
    text = resolve_text(run.config.text_backbone)
    model = Stage3.initialized(found.spec, config, seed=0).eval()
    model.encoder.load_state_dict(found.learned | {"absent": torch.zeros(3, found.spec.dim)})
    set_absent(model, vision, text)
    dtype = config.feature_dtype
    run.write_json(
        "data",
        {
            "features": fingerprint_of(vision, text, dtype),
            "image_sizes": list(vision.sizes),
            "text_size": text.size,
            "layout": found.spec.layout,
        },
    )
    origin = {"file": opened.path.name, "sha256": opened.sha256, **opened.facts}
    run.write_json("converted", origin)
    run.save_checkpoint(STEP, {"model": model.state_dict()}, {"encoder": found.spec.to_dict(), "converted": origin})
    run.set_best(STEP, math.nan, "")
    message = f"converted from {opened.path.name}"
    run.log(f"{message}, SHA-256 {opened.sha256}")
    run.set_status("finished", step=STEP, message=message, best_step=STEP, exit_code=0)


def set_absent(model: Stage3, vision: VisionBackbone, text: TextBackbone) -> None:
    """Give the encoder the constants of absent modalities, by its own backbones: a black image, and an empty text."""
    import torch

    from stage3.features.backbones.pretrained_vision import PretrainedVision
    from stage3.model.earlier import EarlierEncoder

    assert isinstance(model.encoder, EarlierEncoder)
    black = []
    for part in vision.parts:
        assert isinstance(part, PretrainedVision)
        black.append(part.encode_prepared([torch.zeros(3, *part.target)])[0])
    model.encoder.set_absent(torch.cat(black), text.encode([""])[0])


def summary(run: RunFolder) -> dict[str, Any]:
    """Where the run is and what it holds, as plain JSON values."""
    names = ("dim", "visual_fusion", "vision_backbone", "text_backbone")
    settings = {name: getattr(run.config, name) for name in names}
    return {"run": str(run.path), **settings, **run.read_json("data"), "converted": run.read_json("converted")}
