"""The right column of the maps: the chosen panel, the selection with what sets it apart, and the groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from app import components, shell
from app.charts import apart as apart_chart
from app.charts import maps, theme
from app.parts import cards, export, panel, selection
from app.store import loaders
from app.views.map_parts import GROUPS, Shown
from stage3 import selection as measured
from stage3.cli import counted, number, percent

TABS = {"panel": "Panel", "selection": "Selection", "group": "Group"}
CARDS = 12
BARS = 8
MANY_GROUPS = 200


def tab() -> str:
    """The tab that the address names."""
    name = shell.param("tab")
    return name if name in TABS else "panel"


def render(
    chosen: shell.Chosen,
    shown: Shown,
    coloring: maps.Coloring,
    legend: maps.Legend | None,
    start: Callable[[], None] | None = None,
) -> None:
    """The tabs, and what the open one shows; `start` draws what stands there while no panel is chosen."""
    count = int(shown.picked.sum())
    st.session_state["map_tab"] = tab()
    st.segmented_control(
        "Details",
        list(TABS),
        format_func=lambda name: f"{TABS[name]} · {count:,}" if name == "selection" and count else TABS[name],
        key="map_tab",
        required=True,
        width="stretch",
        label_visibility="collapsed",
        on_change=shell.callback(lambda: shell.set_params(tab=_not_first(st.session_state["map_tab"]))),
    )
    if tab() == "selection":
        _selection(chosen, shown)
    elif tab() == "group":
        _group(chosen, shown, coloring, legend)
    else:
        _panel(chosen, shown, start)


def _not_first(name: str) -> str | None:
    return name if name != "panel" else None


# --- one panel


def focus_row(shown: Shown) -> int | None:
    """The panel that the address names, if it is on the map."""
    row = shell.int_param("panel")
    return row if row is not None and (shown.rows == row).any() else None


def _panel(chosen: shell.Chosen, shown: Shown, start: Callable[[], None] | None) -> None:
    row = focus_row(shown)
    if row is None:
        if start is None:
            _hint(shown)
        else:
            start()
        return
    frame = shown.frame
    page = int(frame["page"][row])
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.text(panel.title_of(frame, row))
        st.button("", icon=":material/close:", on_click=shell.callback(selection.choose), args=(None,),
                  key="map-unfocus", help="Close", type="tertiary")  # fmt: skip
    left, right = st.columns([1, 1], gap="small")
    with left:
        image, real = panel.page_image(chosen, page, int(frame["order"][row]), 640)
        shell.show_image(image, f"The page with {int(frame['n_panels'][row])} numbered panels")
    with right:
        if not real:
            with st.container(key="quiet-map-missing"):
                st.text("The image of this page is missing; this is its layout.")
        shell.line(panel.words(frame, row, 220))
        with st.container(key="quiet-map-facts-panel", gap="xxsmall"):
            panel.show_gate(frame, row)
            kept = float(frame["trust"][row]) if "trust" in frame else float("nan")
            if not np.isnan(kept):
                shell.line(f"Neighbors kept on the map: {percent(kept, 0)} of 15")
            if "cluster_name" in frame:
                shell.line(f"Cluster: {frame['cluster_name'][row] or 'none'}")
        for label, icon, view in (("Open page", "auto_stories", "page"), ("Search with it", "search", "search")):
            st.button(label, icon=f":material/{icon}:", key=f"map-{view}", on_click=shell.callback(shell.go),
                      args=(view,), kwargs={"page": page, "panel": row} if view == "page" else {"panel": row},
                      width="stretch")  # fmt: skip
    st.markdown("**Nearest panels**", help="By cosine in the full space, not on the map. A check mark: same page.")
    panel.show_neighbors(chosen, frame, row, key="map", on_choose=selection.choose)
    panel.show_measures(frame, row, "map-measures")


def _hint(shown: Shown) -> None:
    st.subheader("Look closer", anchor=False)
    st.markdown(
        "- **Point** at a dot to see its panel.\n- **Click** a dot for its page, losses and neighbors.\n"
        "- **Lasso** dots to see what sets them apart, and to export them.\n"
        "- **Scroll** to zoom, drag to move, double-click to see everything."
    )
    facts = {
        "Panels": f"{len(shown.rows):,}",
        "Pages": f"{shown.frame['page'].nunique():,}",
        "Books": f"{shown.frame['book'].nunique():,}",
    }
    with st.container(horizontal=True):
        for name, value in facts.items():
            st.metric(name, value, width="content")


# --- several panels


def _selection(chosen: shell.Chosen, shown: Shown) -> None:
    if not shown.picked.any():
        st.subheader("Nothing selected", anchor=False)
        shell.line("Choose Lasso or Box above the map and draw around dots: all panels inside it, drawn or not.")
        return
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.subheader(
            f"{int(shown.picked.sum()):,} panels selected",
            anchor=False,
            help="All panels inside the lasso that pass the filters, drawn or not",
        )
        st.button("Clear", icon=":material/close:", on_click=shell.callback(selection.clear), key="map-clear",
                  type="tertiary")  # fmt: skip
    _several(chosen, shown, shown.picked, "map-selection")


def _several(chosen: shell.Chosen, shown: Shown, inside: np.ndarray, key: str) -> None:
    """What sets some panels apart, the first of them, and their export."""
    found = _apart(chosen, shown, inside)
    shell.line(found.sentence)
    part = shown.frame[inside]
    _cards(chosen, part, key)
    export.buttons(chosen, part, key)
    facts = found.facts[:BARS]
    if facts:
        st.markdown(
            "**Inside and outside**",
            help=f"The {len(facts)} facts that differ most, of {len(found.facts)} measured. Gray names: the interval "
            "of the difference holds 0. Lines at the bars' ends: 95 % intervals from drawing pages again.",
        )
        alt = f"{len(facts)} facts inside and outside of the selection; first: {facts[0].label}"
        theme.show(apart_chart.bars(facts), key=f"{key}-apart", alt=alt)


def _apart(chosen: shell.Chosen, shown: Shown, inside: np.ndarray) -> measured.Apart:
    which = inside.tobytes() if len(inside) < 1000 else hash(inside.tobytes())
    key = ("apart", which, shown.frame.attrs.get("of"), *loaders.checkpoint_key(chosen.run, chosen.step))
    found: measured.Apart = shell.working(
        "Comparing with the rest", loaders.remember, key, lambda: measured.apart(shown.frame, inside)
    )
    return found


def _cards(chosen: shell.Chosen, part: pd.DataFrame, key: str) -> None:
    pages = -(-len(part) // CARDS)
    place = st.container()
    at = min(max(int(st.pagination(pages, key=f"{key}-page") or 1), 1), pages) if pages > 1 else 1
    some = part.iloc[(at - 1) * CARDS : at * CARDS]
    items = [card(some, int(row)) for row in some.index]
    with place:
        cards.cards(chosen, items, "compact", key=f"{key}-cards", on_query=selection.choose, hint="Show this panel")


def card(frame: pd.DataFrame, row: int) -> dict[str, Any]:
    """A panel with its book, page, rank and loss."""
    one: Any = frame.loc[row]
    page = str(one["page_id"])
    where = page if str(one["book"]) in page else f"{one['book']} · {page}"
    ranks = [number(float(one[c]), ".0f") for c in measured.RANKS]
    loss = number(float(one["loss_total"]), ".2f")
    made = {"row": row, "text": f"{where} · {int(one['order']) + 1}", "where": where}
    return made | {"note": f"rank {' / '.join(ranks)} · loss {loss}"} | ({} if one["has_box"] else {"bare": True})


# --- groups


def _group(chosen: shell.Chosen, shown: Shown, coloring: maps.Coloring, legend: maps.Legend | None) -> None:
    members = shown.members
    if shown.group is not None and members.any():
        column, value = shown.group
        title = str(shown.frame["page_id"][members].iloc[0]) if column == "page" else value or "(none)"
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            shell.line(f"{maps.COLORINGS[GROUPS[column]].label}: {title}")
            st.button("Close", icon=":material/close:", key="map-group-close", type="tertiary",
                      on_click=shell.callback(shell.set_params), kwargs={"group": None})  # fmt: skip
        _several(chosen, shown, members, "map-group")
        return
    if legend is None:
        st.subheader("No groups", anchor=False)
        what = "Click the large dot of a page to see its panels." if coloring.kind == "page" else (
            "Color by cluster, book, page type, modality or split to see groups here."
        )  # fmt: skip
        shell.line(what)
        return
    st.subheader(counted(len(legend.names), coloring.label.lower()), anchor=False)
    items = [
        {"id": name, "text": name or "(none)", "note": f"{n:,}", "color": color}
        for name, n, color in zip(legend.names[:MANY_GROUPS], legend.counts, legend.colors, strict=False)
    ]
    column = coloring.column
    components.chips(
        items,
        key="map-legend",
        on_pick=lambda name: shell.set_params(group=f"{column}:{name}", tab="group"),
        hint="Show what sets it apart",
        column=True,
    )
    if len(legend.names) > MANY_GROUPS:
        shell.line(f"The {MANY_GROUPS} largest of {len(legend.names):,}.")
    if legend.missing:
        shell.line(f"In none: {counted(legend.missing, 'panel')}")
