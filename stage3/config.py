"""Every setting, declared once: default, range, help. The CLI, YAML, the app's form and the run's record read this.

A setting is a field of `Config`. Its metadata says what values it takes and what it means; nothing else in the
project repeats that. `Config(...)` checks every value, so a `Config` that exists is valid.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from stage3.errors import ConfigError
from stage3.objectives import OBJECTIVES, WITH_TEMPERATURE
from stage3.small_files import path_problem, read_yaml, shown


@dataclass(frozen=True)
class Spec:
    """What a setting accepts and what it means; kept in the metadata of each `Config` field."""

    group: str
    help: str
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    choices: tuple[str, ...] = ()
    pattern: str = ""  # what a text, or each text of a list, has to match
    ablation: bool = False
    resume_free: bool = False  # may change when a run is resumed: it does not reach the weights
    before: Any = None  # what it was, in effect, for runs that were recorded before it existed; None: its default


GROUPS = {
    "data": "where the comics are and which panels are used",
    "features": "frozen backbones and their store",
    "model": "the panel encoder",
    "objectives": "losses, weights, temperatures",
    "training": "batches, optimizer, schedule",
    "run": "checkpoints, validation, hardware",
    "ablations": "faults of the original trainer, for experiments; all off by default",
}


def _setting(default: Any, group: str, help: str, **spec: Any) -> Any:
    spec["ablation"] = group == "ablations"
    metadata = {"spec": Spec(group, help, **spec)}
    return dataclasses.field(default=default, metadata=metadata)


SPLITS = ("train", "val", "test")  # of books: to learn from, to choose the checkpoint, held out to the end
TEXT_PARTS = ("dialogue+description", "description+dialogue", "dialogue", "description")
PANEL_FORMATS = ("vlm", "ocr", "aligned")
BOX_ORDERS = ("auto", "yxyx", "xyxy", "xywh", "yxhw")
BOX_UNIT = (  # a pattern; see `stage3.data.readers.units`
    r"auto|permille|percent|fraction|pixels|(pixels_of|pixels_within):[1-9]\d{0,5}x[1-9]\d{0,5}"
    r"|smart_resize(:[1-9]\d{0,8}(-[1-9]\d{0,8})?)?"
)
SELECT_BY = (
    "retrieval/mean_r5",
    "retrieval/mean_r1",
    "retrieval/i2t_r1",
    "retrieval/t2i_r1",
    "retrieval/mean_mrr",
    "retrieval/same_page_r_precision",
    "reconstruction/skill",
    "loss/total",
)


def _objective_settings() -> list[tuple[str, type, Any]]:
    """A weight for each objective, then a temperature for each that has one."""
    weights = [
        (o.weight_setting, float, _setting(o.weight, "objectives", f"weight of {o.of}", low=0.0, high=100))
        for o in OBJECTIVES
    ]
    return weights + [
        (
            o.temperature_setting,
            float,
            _setting(o.temperature, "objectives", f"temperature of {o.temperature_of}", low=0.005, high=1.0),
        )
        for o in WITH_TEMPERATURE
    ]


if TYPE_CHECKING:

    class _ObjectiveSettings:
        def __getattr__(self, name: str) -> float: ...
else:
    _ObjectiveSettings = dataclasses.make_dataclass(
        "_ObjectiveSettings", _objective_settings(), frozen=True, kw_only=True, namespace={"__module__": __name__}
    )


@dataclass(frozen=True, kw_only=True)
class Config(_ObjectiveSettings):
    """All settings of a run. Frozen; `replace` makes a changed copy and checks it again.

    The weights and temperatures of the objectives are settings too: `stage3.objectives` declares them.

    Example:
        >>> config = Config(epochs=3)
        >>> config.epochs, config.replace(temperature=0.1).alignment_temperature
        (3, 0.1)

    """

    # data
    data: str = _setting("", "data", "data set folder; its dataset.yaml names the parts below", resume_free=True)
    manifest: str = _setting("", "data", "CSV with columns canonical_id, absolute_image_path", resume_free=True)
    panels: str = _setting("", "data", "folder with one JSON file per page, or the one aligned file", resume_free=True)
    panel_format: str = _setting("vlm", "data", "format of the panel files", choices=PANEL_FORMATS)
    labels: str = _setting("", "data", "JSON of page labels, flat or by book; empty keeps every page", resume_free=True)
    remap: tuple[str, ...] = _setting(
        (),
        "data",
        r"OLD=NEW path prefixes of the manifest, comma-separated, such as E:\comics=/data/comics",
        resume_free=True,
        pattern="[^=]+=.*",
    )
    box_order: str = _setting(
        "auto",
        "data",
        "what the four values of a box are: corners (yxyx, xyxy) or corner and size (xywh, yxhw); auto: as the format "
        "has it, unless the boxes of many pages contradict it",
        choices=BOX_ORDERS,
    )
    box_unit: str = _setting(
        "auto",
        "data",
        "unit of boxes: permille, percent, fraction, pixels, pixels_of:WxH, pixels_within:WxH, smart_resize, "
        "smart_resize:MAX or smart_resize:MIN-MAX (pixels as Qwen2.5-VL sees the page); auto: told from how far the "
        "boxes of many pages reach",
        pattern=BOX_UNIT,
    )
    keep_labels: tuple[str, ...] = _setting(("story", "narrative"), "data", "page labels to use, comma-separated")
    max_panels: int = _setting(16, "data", "panels kept per page; the rest is reported", low=1, high=64)
    text_parts: str = _setting(
        "dialogue+description", "data", "which texts the text backbone reads, in order", choices=TEXT_PARTS
    )
    max_skip_fraction: float = _setting(
        0.01, "data", "share of damaged pages above which training refuses to start", low=0.0, high=1.0
    )
    skip_bad_rows: bool = _setting(False, "data", "leave out bad rows of the manifest instead of refusing it")
    max_without_box: float = _setting(
        0.5,
        "data",
        "share of panels without a box above which training refuses to start",
        low=0.0,
        high=1.0,
        resume_free=True,
    )
    max_without_image: float = _setting(
        0.1,
        "data",
        "share of pages without an image above which training refuses to start",
        low=0.0,
        high=1.0,
        resume_free=True,
    )
    allow_remote_images: bool = _setting(
        False, "data", "read images whose path in the manifest is a URL (s3://, gs://, https:// …)", resume_free=True
    )
    max_megapixels: float = _setting(100.0, "data", "larger images are left out", low=0.1, high=2000.0)
    truncated_images: bool = _setting(False, "data", "read truncated images as far as they go")
    limit_pages: int = _setting(0, "data", "use only the first N pages; 0 uses all", low=0)
    val_fraction: float = _setting(0.12, "data", "share of books for validation", low=0.0, high=0.5)
    test_fraction: float = _setting(0.20, "data", "share of books held out for the final test", low=0.0, high=0.5)
    split_seed: int = _setting(0, "data", "seed of the split by book", low=0)

    # features
    vision_backbone: str = _setting(
        "tiny", "features", "tiny, siglip, resnet50, siglip+resnet50, a Hugging Face id or a local folder"
    )
    text_backbone: str = _setting("tiny", "features", "tiny, minilm, siglip, a Hugging Face id or a local folder")
    crop_fit: str = _setting(
        "squash",
        "features",
        "how crops fit a Hugging Face image backbone: squash (all of it, stretched), pad (all of it, with borders), "
        "processor (the model's own way, often cut to the center); tiny always squashes",
        choices=("squash", "pad", "processor"),
    )
    feature_dtype: str = _setting(
        "float16", "features", "number format of the feature store", choices=("float16", "float32")
    )
    feature_batch: int = _setting(64, "features", "crops or texts per backbone call", low=1, resume_free=True)
    workers: int = _setting(
        2, "features", "threads that decode pages while a backbone runs", low=0, high=64, resume_free=True
    )
    cache_dir: str = _setting(
        ".stage3", "features", "folder that keeps panel tables and features between runs", resume_free=True
    )
    recompute_features: bool = _setting(
        False, "features", "compute features again even if they are stored", resume_free=True
    )

    # model
    form: str = _setting(
        "anchored",
        "model",
        "anchored: begins at the frozen features; plain: begins at random weights",
        choices=("anchored", "plain"),
        before="plain",
    )
    dim: int = _setting(512, "model", "dimension of a panel embedding", low=8, high=4096)
    visual_fusion: str = _setting(
        "attention", "model", "how two image backbones are combined", choices=("attention", "gate", "concat")
    )
    gate_hidden: int = _setting(64, "model", "width of the fusion gate", low=4, high=4096)
    layout_hidden: int = _setting(64, "model", "width of the layout encoder", low=4, high=4096)
    use_layout: bool = _setting(True, "model", "let the place and shape of a panel into its embedding")
    layout_dropout: float = _setting(
        0.0, "model", "share of the panels whose layout is left out in training, at random", low=0.0, high=1.0
    )
    dropout: float = _setting(0.2, "model", "dropout in adapters, gate and head", low=0.0, high=0.9)
    feature_noise: float = _setting(
        1.0, "model", "noise on features in training, relative to each feature's root mean square", low=0.0, high=10.0
    )
    panel_norm: bool = _setting(True, "model", "LayerNorm on the panel embedding")

    # objectives
    temperature: float | None = _setting(None, "objectives", "sets both temperatures at once", low=0.005, high=1.0)
    learn_temperature: bool = _setting(False, "objectives", "learn both temperatures (log-scale, kept in 0.005 to 1)")
    leave_one_out: bool = _setting(False, "objectives", "reconstruct every panel in training, not one per page")
    normalize_target: bool = _setting(False, "objectives", "layer-normalize (no affine) the reconstruction target")

    # training
    epochs: int = _setting(
        24, "training", "passes over the training pages; 0 keeps the model as it begins", low=0, high=10000
    )
    batch_pages: int = _setting(32, "training", "pages per batch", low=2, high=4096)
    lr: float = _setting(1e-2, "training", "peak learning rate of AdamW", low=0.0, low_open=True, high=1.0)
    lr_panels: int = _setting(
        1000,
        "training",
        "training panels from which lr is used in full; with fewer it is multiplied by the square of their share of "
        "this number; 0 always uses it in full",
        low=0,
        high=10_000_000,
        before=0,
    )
    weight_decay: float = _setting(0.01, "training", "decay of matrices, not norms, biases, scalars", low=0, high=10)
    warmup: float = _setting(0.1, "training", "share of the steps with a rising learning rate", low=0.0, high=0.9)
    average_back: bool = _setting(
        False,
        "training",
        "at the end, also validate averages of the trained weights with those of the start, and keep a better one",
    )
    grad_clip: float = _setting(
        1.0,
        "training",
        "maximum global norm of the gradient of all learned parameters; of trained backbones, a norm of their own",
        low=0.0,
        low_open=True,
        high=1e6,
    )
    finetune: str = _setting(
        "none",
        "training",
        "backbones that are trained too, from the images and texts themselves: none, image, text or both",
        choices=("none", "image", "text", "both"),
    )
    finetune_lr: float = _setting(
        1e-5,
        "training",
        "peak learning rate of the backbones that are trained, at their last layers",
        low=0.0,
        high=1.0,
    )
    finetune_layer_decay: float = _setting(
        0.8,
        "training",
        "each block of a trained backbone has the learning rate of the next one times this",
        low=0.0,
        low_open=True,
        high=1.0,
    )
    finetune_checkpointing: bool = _setting(
        False, "training", "compute a backbone's activations again instead of keeping them: less memory, a third slower"
    )
    finetune_augment: bool = _setting(
        False, "training", "crop, brighten and darken the training images of a trained backbone a little, at random"
    )
    sampler: str = _setting(
        "guaranteed",
        "training",
        "guaranteed: every batch has multi-panel pages and text pairs; shuffled: random order; book: every batch is of "
        "one book",
        choices=("guaranteed", "shuffled", "book"),
    )
    min_multi_pages: int = _setting(2, "training", "multi-panel pages per batch, where feasible", low=0, high=4096)
    min_text_pairs: int = _setting(
        4, "training", "panels with image and text per batch, where feasible", low=0, high=65536
    )
    seed: int = _setting(0, "training", "seed of weights, order, masks and dropout", low=0)
    patience: int = _setting(
        0, "training", "early stopping after N validations without improvement; 0 never", low=0, resume_free=True
    )

    # run
    select_by: str = _setting(
        "retrieval/same_page_r_precision", "run", "metric that picks the best checkpoint", choices=SELECT_BY
    )
    select_margin: float = _setting(
        0.01,
        "run",
        "the latest checkpoint wins of those that are less than this below the best; not for loss/total",
        low=0.0,
        high=1.0,
        before=0.0,
    )
    not_below_start: bool = _setting(
        True,
        "run",
        "no checkpoint is the best whose same-page R-precision on validation books is below that of the start",
        before=False,
    )
    validate_every: int = _setting(1, "run", "epochs between validations", low=1)
    checkpoint_every: int = _setting(
        1, "run", "epochs between checkpoints; one is also written at every stop", low=1, resume_free=True
    )
    checkpoint_steps: int = _setting(
        0, "run", "steps between checkpoints within an epoch; 0 for none", low=0, resume_free=True
    )
    log_every: int = _setting(1, "run", "steps per training row of metrics.jsonl", low=1)
    log_to: tuple[str, ...] = _setting(
        (),
        "run",
        "where metrics also go: tensorboard, trackio, wandb, comma-separated; each is an extra to install",
        pattern="tensorboard|trackio|wandb",
        resume_free=True,
    )
    keep_checkpoints: int = _setting(
        2, "run", "newest checkpoints kept besides the best; 0 keeps all", low=0, resume_free=True
    )
    embed_every: int = _setting(
        0, "run", "epochs between saved embeddings, for drift maps; 0 for none", low=0, resume_free=True
    )
    device: str = _setting("auto", "run", "auto, cpu, cuda or cuda:N", pattern=r"auto|cpu|cuda(:\d{1,3})?")
    precision: str = _setting("float32", "run", "number format of autocast", choices=("float32", "bf16", "fp16"))
    threads: int = _setting(1, "run", "CPU threads of torch; results depend on it in the last bits", low=1, high=256)
    max_minutes: float = _setting(
        0.0, "run", "minutes after which the run stops cleanly; 0 never", low=0, resume_free=True
    )

    # ablations: the original trainer's faults, by name
    detach_target: bool = _setting(True, "ablations", "stop the gradient at the reconstruction target")
    detach_context: bool = _setting(False, "ablations", "stop the gradient at the context too")
    symmetric_alignment: bool = _setting(True, "ablations", "align image to text and text to image")
    asymmetric_form: str = _setting(
        "i2t",
        "ablations",
        "alignment variant if symmetric_alignment is false",
        choices=("i2t", "t2i", "averaged_logits"),
    )
    validation_dropout: bool = _setting(False, "ablations", "leave the reconstruction head's dropout on in validation")
    validation_random_mask: bool = _setting(False, "ablations", "mask one random panel per page in validation")
    singleton_anchors: bool = _setting(False, "ablations", "average panels without page mates in as zeros")
    log_epsilon: float = _setting(0.0, "ablations", "epsilon inside supcon's logarithm", low=0.0, high=1.0)
    identical_text_negatives: bool = _setting(
        False, "ablations", "treat panels with identical text as negatives of each other"
    )
    residual_leak: bool = _setting(
        False, "ablations", "encode absent modalities (zero image, empty text) and let them into gate and residual mean"
    )
    batch_means: bool = _setting(
        False, "ablations", "average losses over batches, one without a signal as zero, not over active panels"
    )
    clip_scope: str = _setting(
        "all", "ablations", "which parameters gradient clipping covers", choices=("all", "encoder", "separate", "none")
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check(field, getattr(self, field.name))
        if self.temperature is not None:  # resolved here, so that a record never contradicts itself
            for objective in WITH_TEMPERATURE:
                object.__setattr__(self, objective.temperature_setting, self.temperature)
            object.__setattr__(self, "temperature", None)
        if not any(self.weights.values()):
            *most, last = (objective.weight_setting for objective in OBJECTIVES)
            raise ConfigError(
                f"{', '.join(most)} and {last} are all 0: nothing would be learned. "
                "Give at least one a positive weight."
            )
        for name in ("average_back", "residual_leak") if self.finetune != "none" else ():
            if getattr(self, name):
                raise ConfigError(f"{name}: is not possible with finetune {self.finetune}. Leave one of them out.")
        if self.val_fraction + self.test_fraction > 0.8:
            raise ConfigError(
                f"val_fraction {self.val_fraction} and test_fraction {self.test_fraction} leave less than a fifth "
                "of the books to train on. Lower one of them."
            )

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each objective, by its name."""
        return {objective.name: getattr(self, objective.weight_setting) for objective in OBJECTIVES}

    @property
    def temperatures(self) -> dict[str, float]:
        """Temperature of each objective that has one, by its name."""
        return {objective.name: getattr(self, objective.temperature_setting) for objective in WITH_TEMPERATURE}

    def replace(self, **changes: Any) -> Config:
        """A checked copy with some settings changed; unknown names are refused with the nearest known one.

        Example:
            >>> Config().replace(epochs=-1)
            Traceback (most recent call last):
            stage3.errors.ConfigError: epochs: -1 is out of range: must be from 0 to 10000
        """
        return Config.layered((self.to_dict(), "settings"), (changes, "changes"))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, in the order of declaration; tuples become lists.

        Example:
            >>> Config().to_dict()["keep_labels"]
            ['story', 'narrative']
        """
        values = {name: getattr(self, name) for name in FIELDS}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], source: str = "settings") -> Config:
        """Settings from plain values, such as a YAML file's.

        Raises:
            ConfigError: an unknown name (with the nearest known one), a wrong type, a value out of range.

        Example:
            >>> Config.from_mapping({"lr": "1e-3", "batch_pages": 8}).lr
            0.001
        """
        return cls.layered((values, source))

    @classmethod
    def layered(cls, *layers: tuple[Mapping[str, Any], str]) -> Config:
        """Settings from (values, source) layers; a later layer wins, `temperature` sets both within its layer.

        Example:
            >>> Config.layered(({"seed": 1, "epochs": 5}, "file"), ({"seed": 2}, "command line")).seed
            2
        """
        merged: dict[str, Any] = {}
        for values, source in layers:
            check_names(values, source)
            coerced = {k: coerce(FIELDS[k], v) for k, v in values.items() if not _meant_vlm_alone(k, values)}
            both = coerced.pop("temperature", None)
            _check(FIELDS["temperature"], both)  # under the name that was given
            for name in (o.temperature_setting for o in WITH_TEMPERATURE) if both is not None else ():
                if coerced.setdefault(name, both) != both:
                    raise ConfigError(
                        f"{source}: temperature {both} sets both temperatures, but {name} is {coerced[name]}. Drop one."
                    )
            merged.update(coerced)
        return cls(**merged)

    @classmethod
    def load(cls, path: Path) -> Config:
        """Read a YAML file of settings (`yaml.safe_load`)."""
        return cls.from_mapping(read_yaml(path), source=str(path))

    @classmethod
    def recorded(cls, path: Path) -> Config:
        """Read what a run recorded of its settings; one that it does not name is what it was before it existed."""
        return cls.layered(
            ({n: spec_of(n).before for n in FIELDS if spec_of(n).before is not None}, "earlier versions"),
            (read_yaml(path), str(path)),
        )

    def to_yaml(self) -> str:
        """All settings as YAML, one per line.

        Example:
            >>> "seed: 7" in Config(seed=7).to_yaml().splitlines()
            True
        """
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True, width=1000)


_IN_ORDER = sorted(dataclasses.fields(Config), key=lambda field: list(GROUPS).index(field.metadata["spec"].group))
FIELDS: dict[str, dataclasses.Field[Any]] = {field.name: field for field in _IN_ORDER}
HINTS: dict[str, Any] = typing.get_type_hints(Config)


def spec_of(name: str) -> Spec:
    """The declaration of one setting."""
    spec = FIELDS[name].metadata["spec"]
    assert isinstance(spec, Spec)
    return spec


def check_value(name: str, value: Any) -> None:
    """Refuse a value that a setting of that name may not have, for flags that are not settings themselves."""
    _check(FIELDS[name], value)


def differences(ours: Config, theirs: Config) -> dict[str, tuple[Any, Any]]:
    """Settings that differ, as {name: (ours, theirs)}."""
    a, b = ours.to_dict(), theirs.to_dict()
    return {name: (a[name], b[name]) for name in a if a[name] != b[name]}


def changes(ours: Config, theirs: Config) -> dict[str, tuple[Any, Any]]:
    """`differences` without what no person chose for its result: how often to save and log, where and how long to run.

    >>> list(changes(Config(), Config(seed=1, checkpoint_every=5, max_minutes=9.0)))
    ['seed']
    """
    found = differences(ours, theirs)
    places = ("data", "manifest", "panels", "labels", "patience")
    return {
        n: v
        for n, v in found.items()
        if n not in ("threads", "log_every") and (n in places or not spec_of(n).resume_free)
    }


def _meant_vlm_alone(name: str, values: Mapping[str, Any]) -> bool:
    """Whether this is the `box_order` of a whole record that is older than `box_unit`: only vlm boxes had an order."""
    older = "box_unit" not in values and len(values) > len(FIELDS) // 2
    return name == "box_order" and older and values.get("panel_format") != "vlm"


def check_names(names: Iterable[str], source: str) -> None:
    """Refuse unknown settings, naming the nearest known one."""
    for name in names:
        if name not in FIELDS:
            raise ConfigError(f"{source}: unknown setting {shown(str(name))}.{nearest(str(name), FIELDS)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """A " Did you mean 'x'?" for a misspelled name, or nothing when no known name is close."""
    close = difflib.get_close_matches(name[:100].replace("-", "_"), list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def coerce(field: dataclasses.Field[Any], value: Any) -> Any:
    """Convert a YAML or text value to the field's type; refuse what does not fit."""
    hint = HINTS[field.name]
    if isinstance(hint, types.UnionType):  # float | None
        if value is None or (isinstance(value, str) and value.lower() in {"none", "null", ""}):
            return None
        hint = next(h for h in typing.get_args(hint) if h is not type(None))
    if typing.get_origin(hint) is tuple:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            raise ConfigError(f"{field.name}: expected a list, got {shown(value)}")
        return tuple(str(p).strip() for p in parts if str(p).strip())
    return _coerce_scalar(field.name, hint, value)


def _coerce_scalar(name: str, hint: type, value: Any) -> Any:
    if hint is bool:
        words = {
            "true": True,
            "yes": True,
            "on": True,
            "1": True,
            "false": False,
            "no": False,
            "off": False,
            "0": False,
        }
        if isinstance(value, bool):
            return value
        if str(value).lower() in words:
            return words[str(value).lower()]
        raise ConfigError(f"{name}: expected true or false, got {shown(value)}")
    if hint is str:
        if isinstance(value, str | Path):
            return str(value)
        raise ConfigError(f"{name}: expected text, got {shown(value)}")
    if isinstance(value, bool):
        raise ConfigError(f"{name}: expected a number, got {shown(value)}")
    try:
        number = hint(value)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(
            f"{name}: expected {'an integer' if hint is int else 'a number'}, got {shown(value)}"
        ) from None
    if hint is int and isinstance(value, float) and value != number:
        raise ConfigError(f"{name}: expected an integer, got {shown(value)}")
    return number


def _check(field: dataclasses.Field[Any], value: Any) -> None:
    """Raise ConfigError unless the value has the field's type and lies in its range."""
    spec: Spec = field.metadata["spec"]
    if value != coerce(field, value) or (isinstance(value, float) and math.isnan(value)):
        raise ConfigError(f"{field.name}: {shown(value)} is not valid: expected {describe(spec)}")
    if spec.choices and value not in spec.choices:
        raise ConfigError(
            f"{field.name}: {shown(value)} is not one of {', '.join(spec.choices)}.{nearest(value, spec.choices)}"
        )
    for text in value if isinstance(value, tuple) else (value,):
        if isinstance(text, str) and (problem := path_problem(text)):
            raise ConfigError(f"{field.name}: {shown(text)} {problem}")
    for text in (value if isinstance(value, tuple) else (value,)) if spec.pattern else ():
        if not re.fullmatch(spec.pattern, text, re.DOTALL):
            raise ConfigError(f"{field.name}: expected {spec.help}, got {shown(text)}")
    if value is None or (spec.low is None and spec.high is None):
        return
    too_low = spec.low is not None and (value < spec.low or (spec.low_open and value == spec.low))
    if too_low or (spec.high is not None and value > spec.high):
        raise ConfigError(f"{field.name}: {shown(value)} is out of range: must be {describe(spec)}")


def describe(spec: Spec) -> str:
    """The accepted values in words."""
    if spec.choices:
        return "one of " + ", ".join(spec.choices)
    if spec.low is None and spec.high is None:
        return spec.help
    low = "" if spec.low is None else f"{'above' if spec.low_open else 'from'} {spec.low:g}"
    high = "" if spec.high is None else f"to {spec.high:g}"
    return f"{low} {high}".strip()
