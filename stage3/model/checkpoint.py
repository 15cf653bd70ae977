"""From the tensors of a checkpoint to a model, and what a checkpoint of another model differs in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stage3.config import Config
from stage3.errors import ConfigError, StorageError
from stage3.model.encoder import EncoderSpec
from stage3.model.objectives import Stage3


def model_of(tensors: Mapping[str, Tensor], encoder: Any, config: Config, source: Path) -> Stage3:
    """The model that a checkpoint holds, in eval mode on the CPU.

    Args:
        tensors: its state dict.
        encoder: what it says of its encoder, as `EncoderSpec.to_dict` wrote it; of unknown origin.
        config: the run's settings.
        source: folder of the checkpoint, for messages.

    Raises:
        StorageError: tensors that do not fit the encoder, or an encoder that none can be.
    """
    try:
        spec = EncoderSpec.from_dict(encoder)
        with torch.device("meta"):  # a model of these shapes without any memory: the file must hold as much first
            shapes = Stage3(spec, config)
    except (ConfigError, ValueError) as error:
        raise StorageError(f"{source / 'state.json'}: encoder: {error}") from None
    check_tensors(shapes.state_dict(), tensors, source)
    model = Stage3.initialized(spec, config, seed=0)
    model.load_state_dict(dict(tensors))
    return model.eval()


def check_tensors(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], source: Path) -> None:
    """Refuse a checkpoint whose model has other tensors, by name; StorageError lists the first ten."""
    problems = tensor_differences(ours, theirs)
    if problems:
        more = f" and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise StorageError(f"{source}: its tensors are not this model's: {'; '.join(problems[:10])}{more}")


def tensor_differences(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> list[str]:
    """Names, shapes and dtypes in which two state dicts differ, in words."""
    found = [f"{name} is missing" for name in ours if name not in theirs]
    found += [f"{name} is not known" for name in theirs if name not in ours]
    for name in ours.keys() & theirs.keys():
        a, b = ours[name], theirs[name]
        if a.shape != b.shape or a.dtype != b.dtype:
            found.append(f"{name} is {tuple(b.shape)} {b.dtype}, expected {tuple(a.shape)} {a.dtype}")
    return sorted(found)
