"""The form of Retrain: the settings of a run, changed; kept in the address, so that a reload keeps them."""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import quote, unquote

import streamlit as st

from app import shell
from app.parts import embedding, forms, outlook
from app.store import jobs, loaders
from stage3.config import FIELDS, GROUPS, Config, changes, coerce, differences
from stage3.errors import ConfigError, Stage3Error
from stage3.runs import curves

START_UP = 3.0  # rough number of seconds until the first step: imports, data, features from the store
TRAINING = ("epochs", "seed", "lr")
SHOWN = (*forms.WEIGHTS, *TRAINING)
HIDDEN = ("temperature", *forms.TEMPERATURES, "recompute_features", "threads", "max_minutes")
OF_OTHER_DATA = (
    *("manifest", "panels", "panel_format", "labels", "remap", "box_order", "box_unit", "limit_pages"),
    "allow_remote_images",
)
MAX_ADDRESS = 1500  # characters of changed settings that an address may carry
OWN = ""  # the choice of the run's own data


def show(chosen: shell.Chosen) -> None:
    """Fields, what they change, and Train."""
    prefix = f"retrain-{chosen.id}"
    start = _start(chosen, prefix)
    typed: dict[str, Any] = _data(chosen, start, prefix)
    st.subheader("Weights", anchor=False)
    for name, label in forms.WEIGHTS.items():
        typed[name] = forms.slider(name, getattr(start, name), prefix, label)
    typed |= _temperatures(start, prefix)
    st.subheader("Training", anchor=False)
    columns = st.columns([1, 1, 1.5], gap="small")
    for column, name in zip(columns, TRAINING, strict=True):
        with column:
            typed[name] = forms.field(name, getattr(start, name), prefix)
    what = st.segmented_control(
        "Compute",
        ["Heads only", "Everything"],
        default="Heads only",
        required=True,
        key=f"{prefix}-what",
        help="Heads only: train on stored features. Everything: run the frozen backbones again, too.",
    )
    typed["recompute_features"] = what == "Everything"
    with st.expander("Ablations", icon=":material/science:"):
        shell.line("Faults of the original trainer, on purpose. Off is the corrected variant.")
        for name in forms.group(of="ablations"):
            if name != "asymmetric_form" or not typed["symmetric_alignment"]:
                typed[name] = forms.ablation(name, getattr(start, name), prefix)
    with st.expander("All other settings", icon=":material/tune:"):
        for group in ("objectives", "training", "model", "run"):
            st.caption(GROUPS[group].capitalize())
            for name in forms.group(of=group):
                if name not in (*SHOWN, *HIDDEN):
                    typed[name] = forms.field(name, getattr(start, name), prefix)
    config, problem = forms.checked(chosen.run.config, typed)
    with st.container(key="form-launch", gap="small"):
        _launch(chosen, config, problem)
    _as_text(chosen, config)


def _start(chosen: shell.Chosen, prefix: str) -> Config:
    """The run's settings with the changes that the address of this session's first look named."""
    key = f"{prefix}-start"
    if key not in st.session_state:
        config, refused = from_address(chosen.run.config, shell.param("set") or "")
        st.session_state[key] = config
        if refused:
            st.session_state[f"{prefix}-refused"] = refused
    if refused := st.session_state.pop(f"{prefix}-refused", ""):
        shell.error_box(refused, "The address asks for settings that are refused")
    found: Config = st.session_state[key]
    return found


def to_address(base: Config, config: Config) -> str:
    """What differs from the run, for an address; "" when that is too long for one."""
    parts = []
    for name, (_, value) in differences(base, config).items():
        text = ",".join(value) if isinstance(value, list) else str(value)
        parts.append(f"{name}:{quote(text, safe='')}")
    text = ";".join(parts)
    return text if len(text) <= MAX_ADDRESS else ""


def from_address(base: Config, text: str) -> tuple[Config, str]:
    """The settings that an address asks for, and why they are refused; then the run's own."""
    typed = {}
    try:
        for part in filter(None, text[:MAX_ADDRESS].split(";")):
            name, _, value = part.partition(":")
            if name not in FIELDS or name in ("cache_dir", "threads", "max_minutes"):
                raise ConfigError(f"unknown setting {name[:40]!r}")
            typed[name] = coerce(FIELDS[name], unquote(value))
        if typed.get("data") not in (None, base.data, *loaders.known_data()):
            raise ConfigError(f"no data set is known at {str(typed['data'])[:100]!r}")
        if any(typed.get(name, "") not in ("", getattr(base, name)) for name in ("manifest", "panels", "labels")):
            raise ConfigError("an address cannot name files")
        return base.replace(**typed), ""
    except ConfigError as error:
        return base, str(error)


def _data(chosen: shell.Chosen, start: Config, prefix: str) -> dict[str, Any]:
    """The data set: the run's own, or another one that the explorer knows."""
    base = chosen.run.config
    others = {path: name for path, name in loaders.known_data().items() if path != base.data}
    own = base.data or base.manifest or "its own files"
    at = start.data if start.data in others else OWN
    picked = st.selectbox(
        "Data",
        [OWN, *others],
        index=[OWN, *others].index(at),
        format_func=lambda path: others.get(path, f"{own} (as before)"),
        key=f"{prefix}-data",
        help="Data sets of all runs that are listed, and folders below data/ that have a dataset.yaml",
    )
    if picked == OWN:
        return {}
    return {"data": picked} | {name: FIELDS[name].default for name in OF_OTHER_DATA}


def _temperatures(base: Config, prefix: str) -> dict[str, float]:
    st.subheader("Temperatures", anchor=False)
    same = len(set(base.temperatures.values())) == 1
    linked = st.toggle("Linked", value=same, key=f"{prefix}-linked", help="One temperature for all losses")
    if linked:
        first = next(iter(forms.TEMPERATURES))
        return dict.fromkeys(forms.TEMPERATURES, forms.slider(first, getattr(base, first), f"{prefix}-both", "Both, τ"))
    return {
        name: forms.slider(name, getattr(base, name), prefix, f"{label}, τ")
        for name, label in forms.TEMPERATURES.items()
    }


def _launch(chosen: shell.Chosen, config: Config | None, problem: str) -> None:
    if config is None:
        shell.error_box(problem, "Invalid setting")
        return
    changed = changes(chosen.run.config, config)
    shell.set_params(set=to_address(chosen.run.config, config) or None)
    with st.container(key="quiet-changes", gap="xxsmall"):
        shown = list(changed.items())[:3]
        for name, (old, new) in shown:
            st.text(f"{name}: {short(old)} → {short(new)}")
        if len(changed) > len(shown):
            st.text(f"and {len(changed) - len(shown)} more changes")
        if not changed:
            st.text("Nothing has changed: the same seed gives the same run again.")
        st.text(_estimate(chosen, config))
    _outlook(config)
    started = st.session_state.get("_retrain_started", 0)
    name = st.text_input("Name", value=jobs.free_name(), max_chars=60, key=f"retrain-name-{started}",
                         label_visibility="collapsed", help="Name of the new run")  # fmt: skip
    with st.container(horizontal=True, gap="small"):
        train = st.button("Train", type="primary", icon=":material/play_arrow:", width="stretch", key="retrain-start",
                          shortcut="Ctrl+Enter")  # fmt: skip
        embed = st.button(
            "Embed only",
            icon=":material/grid_on:",
            key="retrain-embed",
            help="Write the embeddings of the data above by this run's model, without training: a store for Stage 4",
        )
    try:
        if train:
            run = jobs.start(config, name.strip(), chosen.id)
            st.session_state["_retrain_started"] = started + 1  # a new key: the field starts from a free name
            st.session_state["_retrain_into_view"] = run.name
            shell.set_params(job=f"runs/{run.name}")
            st.rerun()
        if embed:
            embedding.start(chosen.run, config)
    except Stage3Error as error:
        shell.error_box(error, "The run was not started" if train else "Nothing was embedded")


def _outlook(config: Config) -> None:
    """What speaks against believing a comparison on these pages; nothing where the data set cannot be opened."""
    try:
        found, _, _ = outlook.of(config)
    except Stage3Error:
        return  # training would say why
    outlook.say(found.lines[1:], "quiet-retrain-outlook")


def _as_text(chosen: shell.Chosen, config: Config | None) -> None:
    if config is None:
        return
    name = str(st.session_state.get(f"retrain-name-{st.session_state.get('_retrain_started', 0)}", "")) or "NAME"
    with st.expander("As a command or a YAML file", icon=":material/terminal:"):
        st.code(jobs.command(config, name), language="bash", wrap_lines=True)
        lines = {n: v for n, v in config.to_dict().items() if v != forms.plain(FIELDS[n].default)}
        st.code("\n".join(f"{n}: {short(v)}" for n, v in lines.items()), language="yaml")
        st.download_button("All settings as YAML", data=config.to_yaml, file_name="config.yaml", on_click="ignore",
                           icon=":material/download:", type="tertiary")  # fmt: skip


def short(value: Any) -> str:
    """A setting's value as YAML has it."""
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def _estimate(chosen: shell.Chosen, config: Config) -> str:
    seconds = curves.expected_seconds(loaders.metrics(chosen.run), config.epochs, config.validate_every)
    if config.data != chosen.run.config.data:
        return "Duration unknown: no run on this data was measured here."
    if not math.isfinite(seconds):
        return "Duration unknown: the run above has no timings."
    total = START_UP + seconds
    duration = f"{total:.0f} s" if total < 90 else f"{total / 60:.0f} min"
    return f"About {duration}{' and the time to compute features' if config.recompute_features else ''}."
