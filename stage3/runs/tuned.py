"""What a run that trains its backbones needs to be used: features by the backbones of the checkpoint in question."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stage3.errors import ConfigError, DataError
from stage3.runs.folder import RunFolder

if TYPE_CHECKING:
    from stage3.batches.dataset import Dataset


def backbones_of(run: RunFolder, step: int) -> tuple[str, str]:
    """Names of the image and the text backbone by which a checkpoint's model reads: its own, where it trained them.

    Raises:
        NotThere: the run has no such checkpoint.
        ConfigError: several image backbones lie in a folder whose name cannot be joined.
    """
    from stage3.model.finetune import trained_folders

    config = run.config
    parts = config.vision_backbone.split("+")
    image, text = trained_folders(config.finetune, len(parts))
    if not image and not text:
        return config.vision_backbone, config.text_backbone
    folder = run.checkpoint(step).path.resolve()
    if len(image) > 1 and "+" in str(folder):
        raise ConfigError(f"{folder} contains a +, which joins the names of backbones. Move the run to another folder.")
    vision = "+".join(str(folder / name) for name in image) or config.vision_backbone
    return vision, str(folder / text[0]) if text else config.text_backbone


def seen_by(run: RunFolder, step: int, data: Dataset) -> Dataset:
    """The data set as a checkpoint's model reads it: with features of the backbones that were trained with it.

    They are found in the store under the fingerprint of those weights, or computed now. Of a run that trains no
    backbone it is the data set itself.

    Args:
        run: the run.
        step: of the checkpoint.
        data: its data set, or another for the same run, with features of the untrained backbones.

    Raises:
        DataError: images of the data set are not there any more.
    """
    if run.config.finetune == "none":
        return data
    from stage3.data import readers
    from stage3.features import load_or_build

    config = data.source or data.config
    if config is None:
        raise DataError(f"{run.path} trained its backbones, and this data set was made in memory: there is no image")
    vision, text = backbones_of(run, step)
    config = config.replace(vision_backbone=vision, text_backbone=text, recompute_features=False)
    try:
        shipped = readers.source_of(config).features
    except (ConfigError, DataError):  # the files are gone; what was stored of them may do
        shipped = None
    for gone in (False, True):
        features = load_or_build(data.table, config, shipped=shipped, progress=False, gone=gone)
        lost = int(((data.features.image_rows >= 0) & (features.image_rows < 0)).sum())
        if not lost:
            return replace(data, features=features)
    raise DataError(
        f"{run.path} trained its backbones, which have to see the images: those of {lost:,} panels are not there. "
        "Bring them back, or give --data FOLDER."
    )
