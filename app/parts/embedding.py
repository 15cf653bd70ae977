"""Stores of embeddings that were started here: how far each is, and where it lies."""

from __future__ import annotations

import streamlit as st

from app import shell
from app.store import embeds
from stage3.config import Config
from stage3.runs import RunFolder

LISTED = 5
LOOK = {
    "running": ("writing", "blue", ":material/play_circle:"),
    "finished": ("written", "green", ":material/check_circle:"),
    "failed": ("stopped", "orange", ":material/error:"),
}


def start(run: RunFolder, config: Config) -> None:
    """Begin a store and show it."""
    embeds.start(run, config)
    st.rerun()


def show() -> None:
    """The latest stores; nothing where there is none."""
    found = embeds.embeds()[:LISTED]
    if not found:
        return
    live = any(e.state == "running" for e in found)

    @shell.fragment(run_every="2s" if live else None)
    def watch() -> None:
        now = embeds.embeds()[:LISTED]
        if live and not any(e.state == "running" for e in now):
            st.rerun()
        with st.expander("Embeddings", icon=":material/grid_on:", expanded=live or now[0].state == "failed"):
            for embed in now:
                _one(embed)

    watch()


def _one(embed: embeds.Embed) -> None:
    word, color, icon = LOOK[embed.state]
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.badge(word, color=color, icon=icon)  # type: ignore[arg-type]
        st.text(f"{embed.run} on {embed.data}", width="stretch")
        if embed.state == "running":
            st.button(
                "Cancel",
                key=f"embed-cancel-{embed.out.name}",
                icon=":material/stop:",
                type="tertiary",
                on_click=shell.callback(embeds.cancel),
                args=(embed,),
            )
    shell.line(str(embed.out))
    if embed.state != "finished" and embed.log:
        st.code(embed.log, language=None, wrap_lines=True)
