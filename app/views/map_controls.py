"""Controls that one map and two maps share; each follows the address and writes it."""

from __future__ import annotations

import streamlit as st

from app import shell
from app.charts import maps
from app.parts import map_address

TOOLS = {"pan": ":material/arrow_selector_tool: Click", "lasso": ":material/gesture: Lasso"}
TOOLS |= {"select": ":material/select: Box"}
MOUSE = "Click: a click chooses a dot, dragging moves the map. Lasso and box select the panels inside"


def unless(value: str, default: str) -> str | None:
    """A value for the address; None, which leaves it out, for the default."""
    return value if value != default else None


def say(notes: list[str], key: str = "quiet-map-notes") -> None:
    """What of the address could not be read."""
    if notes:
        with st.container(key=key, gap="xxsmall"):
            for note in notes:
                st.badge("address", icon=":material/link_off:", color="orange")
                shell.line(note)


def color(names: list[str], notes: list[str], more: dict[str, maps.Coloring] | None = None) -> str:
    """The list of colorings; the address keeps the choice."""
    known = {**(more or {}), **{name: maps.COLORINGS[name] for name in names}}
    default = next(iter(known))
    if shell.param("color") == "cluster" and "cluster" not in known:
        notes.append("Clusters come with UMAP, which is not there yet.")
        name = "page"
    else:
        name = map_address.one_of("color", known, default, notes)
    st.session_state["map_color"] = name
    st.selectbox(
        "Color by",
        list(known),
        format_func=lambda n: f"Color: {known[n].label}",
        key="map_color",
        on_change=shell.callback(
            lambda: shell.set_params(color=unless(st.session_state["map_color"], default), group=None)
        ),
        label_visibility="collapsed",
        width=220,
    )
    return name


def tool(notes: list[str]) -> None:
    """What the mouse does: click, lasso or box."""
    segments("Mouse", "tool", TOOLS, map_address.one_of("tool", TOOLS, "pan", notes), "pan", MOUSE)


def segments(label: str, name: str, names: dict[str, str], value: str, default: str, about: str = "") -> None:
    """A choice of a few; the address keeps it under `name` unless it is the default."""
    key = f"map_{name}_{len(names)}"
    st.session_state[key] = value
    st.segmented_control(
        label,
        list(names),
        format_func=names.__getitem__,
        key=key,
        required=True,
        label_visibility="collapsed",
        help=about or None,
        on_change=shell.callback(lambda: shell.set_params(**{name: unless(st.session_state[key], default)})),
    )


def zoomed(chart: int, part: list[float] | None, height: int) -> None:
    """Keep what a person zoomed to, and the height of the chart: one that must be stretched shows another part."""
    st.session_state["_moved"] = chart
    st.session_state["_map_next_height"] = height
    map_address.set_zoom(part)
