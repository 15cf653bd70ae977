"""From a new data set to a run: what can be learned from it, how long that takes, training or embedding alone."""

from __future__ import annotations

import math

import streamlit as st

from app import shell
from app.parts import forms, outlook
from app.store import imports, jobs
from stage3.config import Config
from stage3.errors import Stage3Error
from stage3.model.outlook import Outlook

START_UP = 8.0  # seconds until the first step: imports, the panel table
PER_PANEL = 0.02  # seconds of one core for the features of the built-in backbones, decoding included
PER_STEP = 0.05  # seconds of one core for a step from stored features, validation included: 14.2 s for 288 steps
BUILT_IN = "tiny"


def show(made: imports.Import) -> None:
    """Say what can be learned, then offer Train and Embed only."""
    config = Config(data=made.data)
    try:
        found, panels, pages = outlook.of(config)
    except Stage3Error as error:
        shell.error_box(error, "The data set cannot be opened")
        return
    with st.container(border=True, key="card-add-train"):
        st.subheader("What can be learned", anchor=False)
        outlook.say(found.lines, "add-outlook")
        _form(made, config, found, panels, pages)


def _form(made: imports.Import, config: Config, found: Outlook, panels: int, pages: int) -> None:
    if found.one_book:
        config = config.replace(val_fraction=0.0, test_fraction=0.0)
    prefix = f"add-train-{made.name}"
    columns = st.columns([1, 1, 1, 1.3], gap="small")
    typed = {}
    for column, name in zip(columns, ("epochs", "vision_backbone", "text_backbone"), strict=False):
        with column:
            typed[name] = forms.field(name, getattr(config, name), prefix)
    with columns[3]:
        turn = st.session_state.get("_add_started", 0)
        run = st.text_input(
            "Name of the run", value=jobs.free_name(made.name), max_chars=60, key=f"{prefix}-run-{turn}"
        )
    asked, problem = forms.checked(config, typed)
    if asked is None:
        shell.error_box(problem, "Invalid setting")
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        train = st.button(
            "Train", type="primary", icon=":material/play_arrow:", key="add-train", disabled=not found.can_train
        )
        embed = st.button(
            "Embed only",
            icon=":material/scatter_plot:",
            key="add-embed",
            help="A run of 0 epochs: map and search of the frozen features, without training",
        )
        with st.container(key="quiet-add-estimate"):
            shell.line(estimate(asked, panels, pages))
    if train or embed:
        try:
            started = jobs.start(asked.replace(epochs=0) if embed else asked, run.strip())
        except Stage3Error as error:
            shell.error_box(error, "The run was not started")
            return
        st.session_state["_add_started"] = turn + 1
        shell.go("retrain", run=f"runs/{started.name}", job=f"runs/{started.name}")


def estimate(config: Config, panels: int, pages: int) -> str:
    """How long training and embedding take on one core, in words.

    Args:
        config: the settings.
        panels: how many there are.
        pages: on which they are.
    """
    if {config.vision_backbone, config.text_backbone} != {BUILT_IN}:
        return "Duration unknown: computing features with these backbones takes most of it."
    steps = config.epochs * math.ceil(pages * (1 - config.val_fraction - config.test_fraction) / config.batch_pages)
    features = START_UP + PER_PANEL * panels
    return f"Train: about {_words(features + PER_STEP * steps)}. Embed only: about {_words(features)}."


def _words(seconds: float) -> str:
    return f"{math.ceil(seconds / 5) * 5} s" if seconds < 90 else f"{math.ceil(seconds / 60)} min"
