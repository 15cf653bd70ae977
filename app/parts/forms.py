"""Form fields made from the settings' own declaration: same ranges, same help, same words for what is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import streamlit as st

from stage3.config import FIELDS, HINTS, Config, describe, spec_of
from stage3.errors import ConfigError
from stage3.objectives import OBJECTIVES, WITH_TEMPERATURE

# A slider needs positions that a hand can hit; a configuration file or the command takes the whole declared range.
WEIGHTS = {o.weight_setting: o.label for o in OBJECTIVES}
TEMPERATURES = {o.temperature_setting: o.label for o in WITH_TEMPERATURE}
WEIGHT_STOPS = (0.0, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
TEMPERATURE_STOPS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)


TITLES = {"lr": "Learning rate", "lr_panels": "Full-rate panels", "dim": "Dimension"}
DEVIATIONS = {  # what a switch turns on: each leaves the corrected variant
    "detach_target": "Gradient through the target",
    "detach_context": "No gradient through the context",
    "symmetric_alignment": "Align in one direction",
    "validation_dropout": "Dropout in validation",
    "validation_random_mask": "Random mask in validation",
    "singleton_anchors": "Singletons count as zeros",
    "identical_text_negatives": "Equal texts as negatives",
    "residual_leak": "Absent modalities leak in",
    "batch_means": "Average over batches",
}


def title(name: str) -> str:
    """A setting's name for people."""
    return TITLES.get(name, name.replace("_", " ").capitalize())


def ablation(name: str, value: Any, prefix: str) -> Any:
    """An ablation setting; of a yes-or-no one a switch that is on where it deviates from the corrected variant."""
    if not isinstance(value, bool):
        return field(name, value, prefix)
    corrected = bool(FIELDS[name].default)
    label = DEVIATIONS.get(name, title(name))
    about = f"{spec_of(name).help} ({name}: {str(corrected).lower()} is the corrected variant)"
    return st.toggle(label, value=value != corrected, key=f"{prefix}-{name}", help=about) != corrected


def stops(name: str, value: float) -> list[float]:
    """The slider's positions: round ones inside the declared range, and the value it starts from."""
    spec = spec_of(name)
    low = -math.inf if spec.low is None else spec.low
    high = math.inf if spec.high is None else spec.high
    base = WEIGHT_STOPS if name in WEIGHTS else TEMPERATURE_STOPS
    return sorted({s for s in base if low <= s <= high} | {value})


def slider(name: str, value: float, prefix: str, label: str = "") -> float:
    """A slider over round positions of a weight or temperature."""
    options = stops(name, value)
    chosen = st.select_slider(
        label or title(name),
        options,
        value=value,
        format_func=lambda v: f"{v:g}",
        key=f"{prefix}-{name}",
        help=f"{spec_of(name).help} ({describe(spec_of(name))})",
    )
    return float(chosen)


def field(name: str, value: Any, prefix: str) -> Any:
    """One setting as the widget that fits it; returns what was typed or chosen, not yet checked."""
    spec, key = spec_of(name), f"{prefix}-{name}"
    accepts = describe(spec)
    about = spec.help if accepts == spec.help else f"{spec.help} ({accepts})"
    if isinstance(value, bool):
        return st.toggle(title(name), value=value, key=key, help=about)
    if spec.choices:
        return st.selectbox(title(name), spec.choices, index=spec.choices.index(value), key=key, help=about)
    shown = (
        ""
        if value is None
        else ",".join(value)
        if isinstance(value, tuple)
        else f"{value:g}"
        if _float(name)
        else value
    )
    return st.text_input(
        title(name), value=str(shown), key=key, help=about, max_chars=400
    )  # text: NaN breaks number_input


def _float(name: str) -> bool:
    return HINTS[name] is float


def plain(value: Any) -> Any:
    """A setting's value as `Config.to_dict` gives it, to compare it with a default."""
    return list(value) if isinstance(value, tuple) else value


def checked(base: Config, typed: Mapping[str, Any]) -> tuple[Config | None, str]:
    """The settings, or why they are refused, in the settings' own words."""
    try:
        return base.replace(**typed), ""
    except ConfigError as error:
        return None, str(error)


def group(names: tuple[str, ...] | None = None, of: str = "") -> list[str]:
    """The settings of a group, in the order of their declaration."""
    return [n for n in FIELDS if (names is None or n in names) and (not of or spec_of(n).group == of)]
