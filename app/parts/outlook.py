"""What a data set lets a model learn, told before anything is trained on it."""

from __future__ import annotations

import streamlit as st

from app import shell
from app.store import loaders
from stage3.config import Config
from stage3.data import readers
from stage3.model.outlook import Outlook, outlook


def of(config: Config) -> tuple[Outlook, int, int]:
    """What can be learned with these settings, and the numbers of panels and pages.

    Raises:
        Stage3Error: the data set cannot be opened.
    """

    def make() -> tuple[Outlook, int, int]:
        here = loaders.config_here(config)
        table = readers.read(here)
        return outlook(table, here), len(table), len(table.pages)

    key = shell.working("Reading the panels", loaders.data_key, config)
    found: tuple[Outlook, int, int] = loaders.remember(("outlook", config.text_parts, *key), make)
    return found


def say(lines: tuple[str, ...], key: str) -> None:
    """Lines of an outlook."""
    with st.container(key=key, gap="xsmall"):
        for line in lines:
            shell.line(line)
