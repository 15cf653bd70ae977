"""The data of a run, or other data for the same model: found, loaded and checked against the run's backbones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stage3.cli import counted
from stage3.config import FIELDS, Config
from stage3.errors import ConfigError, DataError, StorageError
from stage3.runs.folder import RunFolder

if TYPE_CHECKING:
    import numpy as np

    from stage3.batches.dataset import Dataset
    from stage3.model import EncoderSpec

# Flags of the commands that read data; giving one of PLACES means other data than the run's record says.
PLACES = ("data", "manifest", "panels")
LIMITS = ("max_skip_fraction", "max_without_box", "max_without_image")
DATA_SETTINGS = (
    *PLACES,
    "panel_format",
    "labels",
    "remap",
    "box_order",
    "box_unit",
    "allow_remote_images",
    *LIMITS,
    "max_megapixels",
    "cache_dir",
)
MAX_PAGES = 5000  # ranking is quadratic: about a minute for 25,000 panels on one core
_RESET = (*PLACES, "panel_format", "labels", "remap", "box_order", "box_unit", "limit_pages", "allow_remote_images")


def config_for(run: RunFolder, given: Mapping[str, Any]) -> Config:
    """The run's settings, pointed at the data that flags name; without such flags, at the run's own.

    Args:
        run: whose backbones, panel limit and text parts count.
        given: settings from the command line, any of `DATA_SETTINGS`.
    """
    # the device is of the machine that looks, not of the one that trained; and whoever looks computes nothing again
    base = run.config.to_dict() | {"device": "auto", "recompute_features": False}
    if any(name in given for name in PLACES):
        base |= {name: FIELDS[name].default for name in _RESET}
    return Config.layered((base, str(run.path)), (given, "command line"))


def load_data(run: RunFolder, given: Mapping[str, Any] | None = None, *, progress: bool = True) -> Dataset:
    """The data set that the flags or the run name, with features of the run's backbones.

    Books keep the split that the run recorded, by name, however the data differs from what it was trained on; books
    that it did not have count as held out. `differences` says what differs.

    Raises:
        ConfigError, DataError: there is no data, or it cannot be used with this run.
    """
    from stage3.batches.dataset import Dataset
    from stage3.data import readers
    from stage3.data.splits import recorded_split, split_books
    from stage3.features import load_or_build

    config = config_for(run, given or {})
    if not config.data and not (config.manifest and config.panels):
        raise ConfigError(f"{run.path} does not say where its data is. Give it: --data FOLDER.")
    try:
        source = readers.source_of(config)
        table = readers.load(config)
    except (ConfigError, DataError) as error:
        if given:
            raise
        raise DataError(f"{error} (the data that {run.path} names; if it has moved, give --data FOLDER)") from None
    features = load_or_build(table, config, shipped=source.features, progress=progress)
    books = recorded(run).get("books")
    if books is None:
        split = split_books(table, config.val_fraction, config.test_fraction, config.split_seed)
    else:
        split = recorded_split(table, books)
    return Dataset(table, features, split, layout=layout_of(run), source=config)


def load_kept(run: RunFolder, config: Config) -> Dataset | None:
    """The data that a run was trained on, from the cache alone, where its files are gone; None unless all is there.

    Args:
        run: the run.
        config: its settings, with `cache_dir` as it is on this machine.
    """
    from pathlib import Path

    from stage3.batches.dataset import Dataset
    from stage3.data.splits import recorded_split
    from stage3.data.table import PanelTable
    from stage3.features import load_or_build

    before = recorded(run)
    try:
        name = Path(str(run.read_json("data_report")["source"]["table"])).name
        table = PanelTable.load(Path(config.cache_dir) / "tables" / name, Path(config.cache_dir) / "texts")
    except (StorageError, DataError, KeyError, TypeError, OSError, ValueError):
        return None
    if not before or table.fingerprint() != before["table"]:
        return None
    features = load_or_build(table, config, progress=False, gone=True)
    data = Dataset(table, features, recorded_split(table, before["books"]), layout=layout_of(run), source=config)
    return data if data.identity() == {**before, "books": data.identity()["books"]} else None


def as_recorded(run: RunFolder, data: Dataset) -> Dataset:
    """The data as the run's model reads it, with the split by book that the run recorded, where it recorded one."""
    from stage3.data.splits import recorded_split

    data = data.with_layout(layout_of(run))
    books = recorded(run).get("books")
    return data if books is None else data.with_split(recorded_split(data.table, books))


def differences(run: RunFolder, data: Dataset) -> list[str]:
    """What differs between the data and what the run was trained on, in at most one sentence; none if nothing does."""
    now = data.identity()
    before = now | recorded(run)  # what an older run did not write down counts as unchanged
    known, here = ({book for books in record["books"].values() for book in books} for record in (before, now))
    if not known & here:
        return [f"none of the books that {run.path} was trained on is here: all of these count as held out"]
    parts = [
        f"{before[name]:,} {name} then and {now[name]:,} now"
        for name in ("pages", "panels")
        if before[name] != now[name]
    ]
    for books, what in ((here - known, "new and held out"), (known - here, "not here")):
        if books:
            parts.append(f"{counted(len(books), 'book')} {what} (the first is {min(books)!r})")
    if not parts and before["table"] != now["table"]:
        parts.append("ids, boxes or texts of some panels")
    if not parts and before["pictures"] != now["pictures"]:
        parts.append("some images")
    differ = f"this data differs from what {run.path} was trained on: {', '.join(parts)}; books keep their split"
    return [differ] if parts else []


def chosen_pages(
    run: RunFolder, data: Dataset, split: str | None, max_pages: int = MAX_PAGES
) -> tuple[str, np.ndarray, list[str]]:
    """The split's name, (n,) its page rows, and what a reader of the numbers must know about the choice."""
    import numpy as np

    from stage3.data.splits import TRAIN

    notes = differences(run, data)
    wanted = ["test", "val", "all"] if split is None else [split]
    for name in wanted:
        pages = data.pages(name)
        if len(pages):
            break
        notes.append(f"the {name} split has no pages; the next one is used")
    else:
        raise DataError(f"split {wanted[-1]!r} of {run.path} has no page with a usable panel. Choose another --split.")
    if name == "val":
        notes.append("these pages chose the checkpoint, so the results are slightly optimistic")
    record = recorded(run)
    if record and "books" not in record:
        notes.append("the books that this model was trained on are not recorded: the results may show memorization")
    trained_on = set(record.get("books", {}).get("train", []))
    seen = trained_on & set(data.table.pages["book_id"].iloc[pages])
    if name in ("train", "all") and (data.split[pages] == TRAIN).any():
        notes.append("the model was trained on these pages: the results show memorization")
    elif seen:
        notes.append(f"{len(seen)} of these books share a name with a training book; the first is {min(seen)!r}")
    if 0 < max_pages < len(pages):
        notes.append(f"{max_pages:,} of {len(pages):,} pages used, evenly spaced; --max_pages 0 uses all")
        pages = pages[np.linspace(0, len(pages) - 1, max_pages).round().astype(np.int64)]
    return name, pages, notes


def recorded(run: RunFolder) -> dict[str, Any]:
    """What the run wrote down of the data it was trained on (`Dataset.identity`); empty where no training made it.

    Raises:
        StorageError: the record is damaged.
    """
    path = run.path / "data.json"
    if not path.exists():
        return {}
    record = run.read_json("data")
    books = record.get("books", {})
    lists = books.values() if isinstance(books, dict) else [None]
    texts = [record.get(name, "") for name in ("table", "features", "pictures", "layout")]
    if not all(isinstance(names, list) and all(isinstance(b, str) for b in names) for names in lists) or not all(
        isinstance(text, str) for text in texts
    ):
        raise StorageError(f"{path}: damaged, it does not name books and fingerprints. Restore it from a copy.")
    return record


def layout_of(run: RunFolder) -> str:
    """What the layout features that the run's model reads mean; only a converted run records another than the usual."""
    from stage3.data.table import LAYOUT_MEANING

    return str(recorded(run).get("layout", LAYOUT_MEANING))


def check_features(run: RunFolder, spec: EncoderSpec, data: Dataset) -> None:
    """Refuse features that the run's encoder was not trained on, even where their sizes fit.

    Raises:
        DataError: sizes, backbones or the meaning of the layout features differ; both are named.
    """
    ours = (tuple(spec.image_sizes), spec.text_size)
    theirs = (tuple(data.features.image_sizes), data.features.text_dim)
    if ours != theirs:
        raise DataError(
            f"{run.path} expects image features of {_sizes(ours[0])} and text features of {ours[1]} numbers, this data "
            f"has {_sizes(theirs[0])} and {theirs[1]}. Compute its features with the run's backbones: "
            f"vision_backbone {run.config.vision_backbone}, text_backbone {run.config.text_backbone}."
        )
    fingerprint = recorded(run).get("features", data.features.fingerprint)
    if fingerprint != data.features.fingerprint:
        raise DataError(
            f"{run.path} was trained on features {fingerprint[:16]}, this data has features "
            f"{data.features.fingerprint[:16]}: other weights or preprocessing of {run.config.vision_backbone} or "
            f"{run.config.text_backbone}, so results would be meaningless. Use the run's backbones."
        )
    if spec.layout != data.layout:
        raise DataError(
            f"{run.path} was trained on layout features {spec.layout!r}, this data has {data.layout!r}. Load it for "
            f"this run, such as with Run.other_data."
        )


def _sizes(sizes: tuple[int, ...]) -> str:
    return " + ".join(map(str, sizes))
