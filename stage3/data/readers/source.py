"""Where a data set's parts are: a folder with a dataset.yaml, or the same parts given as settings."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from stage3.config import FIELDS, Config, check_value, nearest
from stage3.data.readers.units import AUTO, Notation, unit_problem
from stage3.data.remote import is_url, redacted
from stage3.errors import ConfigError, DataError
from stage3.small_files import path_problem, read_yaml, shown

YAML_NAME = "dataset.yaml"
PATH_KEYS = ("manifest", "panels", "labels", "facts", "features")
HOW = ("panel_format", "box_order", "box_unit")  # how the panel files are read
KEYS = ("name", *PATH_KEYS, *HOW, "remap")
# Keys for people; nothing reads them.
ABOUT_KEYS = ("about", "books", "pages", "licence", "license", "source", "url", "seed", "version", "made_by")


@dataclass(frozen=True)
class DataSource:
    """The parts of one data set, as paths of this machine.

    Attributes:
        name: for people.
        root: folder that relative image paths of the yaml's parts refer to (the yaml's, or the manifest's).
        manifest: CSV of pages.
        panels: folder with one JSON file per page, or the one aligned file.
        panel_format: key of `READERS`.
        labels: JSON of page labels, None when every page is kept.
        facts: ground truth that comes with synthetic comics, for evaluation.
        features: a feature store that the data set ships; read only.
        remap: (old prefix, new prefix) of image paths, tried longest first.
        box_order: what the values of a box are, "auto" as the format has it or as the boxes themselves tell.
        box_unit: unit of boxes, likewise.
    """

    name: str
    root: Path
    manifest: Path
    panels: Path
    panel_format: str
    labels: Path | None = None
    facts: Path | None = None
    features: Path | None = None
    remap: tuple[tuple[str, str], ...] = ()
    box_order: str = AUTO
    box_unit: str = AUTO

    def notation(self, order: str, unit: str) -> Notation:
        """How boxes are written, given how the format has them; settings override that."""
        asked = (self.box_order, order), (self.box_unit, unit)
        return Notation(*(own if said == AUTO else said for said, own in asked))

    def box_settings(self, field: str) -> tuple[str, str]:
        """`box_order` and `box_unit` for a field of panel files; they do not speak of what aligned files took over."""
        return (AUTO, AUTO) if field in ("rcnn_bbox", "vlm_box_px") else (self.box_order, self.box_unit)


def source_of(config: Config) -> DataSource:
    """The data set that the settings name.

    `data` points to a folder with a dataset.yaml (or to that file). A part given as a setting beside it overrides the
    yaml; giving `panels` also takes `panel_format`, `box_order` and `box_unit` from the settings, because the yaml's
    describe the panels it names.

    Raises:
        ConfigError: neither `data` nor `manifest` and `panels` is given, or the yaml has an unknown key or value.
        DataError: a named file or folder does not exist.
    """
    if config.data:
        parts, root = _read_dataset_yaml(Path(config.data))
    else:
        parts, root = {}, Path(config.manifest).parent
    for key in ("manifest", "panels", "labels"):
        given = getattr(config, key)
        if given:
            parts[key] = Path(given)
    for key in HOW:
        given = getattr(config, key)
        if config.panels or key not in parts or given != FIELDS[key].default:
            parts[key] = given
    if config.remap:
        parts["remap"] = _pairs(config.remap, "remap", Path())
    missing = [key for key in ("manifest", "panels") if key not in parts]
    if missing:
        raise ConfigError(
            f"no data set: {' and '.join(missing)} missing. Give a data set folder, such as "
            "--data data/samples, or --manifest FILE.csv --panels FOLDER."
        )
    name = parts.pop("name", "") or (root.resolve().name if config.data else parts["manifest"].stem)
    source = DataSource(name=str(name), root=root, **parts)
    if problem := unit_problem(source.box_unit):
        raise ConfigError(f"box_unit: {source.box_unit!r}: {problem}")
    _check_exists(source)
    return source


def _read_dataset_yaml(folder: Path) -> tuple[dict[str, Any], Path]:
    path = folder / YAML_NAME if folder.is_dir() else folder
    if not path.is_file():
        raise ConfigError(f"data: {folder} has no {YAML_NAME}. Give a data set folder, such as --data data/samples.")
    values = read_yaml(path)
    for key in values:
        if key not in KEYS and key not in ABOUT_KEYS:
            raise ConfigError(f"{path}: unknown key {str(key)!r}.{nearest(str(key), (*KEYS, *ABOUT_KEYS))}")
    root = path.parent
    parts: dict[str, Any] = {}
    for key in PATH_KEYS:
        if values.get(key):
            parts[key] = root / _text(path, key, values[key])
    if values.get("name"):
        parts["name"] = _text(path, "name", values["name"])
    for key in (name for name in HOW if name in values):
        try:
            check_value(key, values[key])
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
        parts[key] = values[key]
    if values.get("remap"):
        remap = values["remap"]
        parts["remap"] = _pairs([remap] if isinstance(remap, str) else remap, f"{path}: remap", root)
    return parts, root


def _text(path: Path, key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{path}: {key}: expected text, got {shown(value)}")
    if problem := path_problem(value):
        raise ConfigError(f"{path}: {key}: {shown(value)} {problem}")
    return value


def _pairs(remap: Any, where: str, root: Path) -> tuple[tuple[str, str], ...]:
    """OLD=NEW strings as pairs, longest OLD first; a relative NEW is relative to the file that names it."""
    pairs = []
    for item in remap if isinstance(remap, list | tuple) else [remap]:
        old, equals, new = str(item).partition("=")
        if not equals or not old.strip() or not new.strip():
            raise ConfigError(f"{where}: expected OLD=NEW, such as E:\\comics=/data/comics, got {item!r}")
        new = new.strip()
        if new != redacted(new):
            raise ConfigError(f"{where}: {redacted(new)}: credentials are the environment's, and none of a URL")
        absolute = is_url(new) or os.path.isabs(new) or bool(PureWindowsPath(new).drive)  # noqa: PTH117 - text, not a path of ours
        pairs.append((old.strip(), new if absolute else str(root / new)))
    return tuple(sorted(pairs, key=lambda pair: -len(pair[0])))


def _check_exists(source: DataSource) -> None:
    for key in ("manifest", "labels", "facts"):
        path = getattr(source, key)
        if path is not None and not path.is_file():
            raise DataError(f"{key}: {path}: no such file")
    if source.panel_format == "aligned":
        if not source.panels.is_file():
            raise DataError(f"panels: {source.panels}: no such file; the aligned format is one JSON list of all pages")
    elif not source.panels.is_dir():
        raise DataError(
            f"panels: {source.panels}: no such folder; the {source.panel_format} format is one JSON file per page"
        )
