"""The settings of a run, as its `config.yaml` records them."""

from __future__ import annotations

from pathlib import Path

from stage3.config import Config
from stage3.errors import ConfigError, DataError, StorageError
from stage3.small_files import Remembered

BACKBONES = "backbones"  # folder of a run with backbones of its own; settings name them `backbones/NAME`


def read_config(path: Path) -> Config:
    """The settings of a run; an unchanged file is read once, for YAML is most of the cost of listing runs."""
    try:
        return _known_config(path)
    except (ConfigError, StorageError) as error:
        if isinstance(error.__cause__, OSError):  # the disk failed; the file may be well
            raise
        raise DataError(f"{path.parent}: its settings cannot be read: {error}") from None


def _recorded_config(path: Path) -> Config:
    config = Config.recorded(path)
    own = {name: _own_backbones(getattr(config, name), path.parent) for name in ("vision_backbone", "text_backbone")}
    return config if all(own[n] == getattr(config, n) for n in own) else config.replace(**own)


_known_config = Remembered(_recorded_config)


def _own_backbones(names: str, run: Path) -> str:
    """The names of backbones, with those that lie in the run as paths, so that a run can be moved with them."""
    parts = names.split("+")
    own = {part for part in parts if part.startswith(f"{BACKBONES}/") and (run / part).is_dir()}
    return "+".join(str((run / part).resolve()) if part in own else part for part in parts)
