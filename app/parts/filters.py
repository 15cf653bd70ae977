"""Which panels a map shows: filters that the address holds, as chips that a click removes.

    filter=book:book003   filter=book~003   filter=rank_i2t:1..5   filter=loss_total:..0.5   filter=text:kitchen

Filters of one column and kind are joined by "or", different ones by "and".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import streamlit as st

from app import components, shell
from app.charts import names
from app.store import loaders

CATEGORIES = {"book": "Books", "page_type": "Page types", "split": "Splits", "modality": "Modalities",
              "cluster_name": "Clusters"}  # fmt: skip
NUMBERS = {
    **{column: f"Rank {way}" for column, way in zip(names.RANKS, names.WAYS.values(), strict=True)},
    **{column: f"Loss: {label.lower()}" for column, label in names.PANEL_LOSSES.items()},
    "n_panels": "Panels per page",
    "gate_image": "Image weight",
    "trust": "Neighbors kept",
}
LONG_LIST = 500  # values; a longer list is filtered by typing
MOST = 40


@dataclass(frozen=True)
class Filter:
    """One condition.

    Attributes:
        column: of the panel frame.
        values: any of these; the single text of a "~" or text filter.
        part: whether a value need only be contained.
        low: least number, -inf without.
        high: largest number, inf without.
    """

    column: str
    values: tuple[str, ...] = ()
    part: bool = False
    low: float = -math.inf
    high: float = math.inf

    def passes(self, frame: pd.DataFrame) -> np.ndarray:
        """(N,) bool; a number that is not defined does not pass."""
        column = frame[self.column]
        if self.part:
            return column.astype(str).str.contains(self.values[0], case=False, regex=False).to_numpy(dtype=bool)
        if self.values:
            return column.isin(self.values).to_numpy()
        numbers = column.to_numpy(dtype=float)
        return (numbers >= self.low) & (numbers <= self.high)

    def written(self) -> list[str]:
        """As in the address."""
        if self.values:
            joint = "~" if self.part and self.column != "text" else ":"
            return [f"{self.column}{joint}{value}" for value in self.values]
        low, high = ("" if math.isinf(v) else f"{v:g}" for v in (self.low, self.high))
        return [f"{self.column}:{low}..{high}"]

    def label(self) -> str:
        """On its chip; text from data."""
        if self.column == "text":
            return f"Text: {self.values[0]}"
        if self.values:
            label = CATEGORIES[self.column]
            shown = ", ".join(v or "(none)" for v in self.values[:3])
            more = f" and {len(self.values) - 3} more" if len(self.values) > 3 else ""
            return f"{label}{' with' if self.part else ''}: {shown}{more}"
        label = NUMBERS[self.column]
        if math.isinf(self.low):
            return f"{label} ≤ {self.high:g}"
        if math.isinf(self.high):
            return f"{label} ≥ {self.low:g}"
        return f"{label} {self.low:g} to {self.high:g}"


def asked(frame: pd.DataFrame, notes: list[str]) -> list[Filter]:
    """The filters of the address; what cannot be read, or names a value that is not there, is noted and left out."""
    found: dict[tuple[str, bool], Filter] = {}
    for text in st.query_params.get_all("filter")[:MOST]:
        one = _read(text, frame)
        if one is None:
            notes.append(f"filter={text[:60]} in the address does not fit these panels; it is left out.")
            continue
        key = (one.column, one.part)
        if key in found and one.values and not one.part:
            one = Filter(one.column, tuple(dict.fromkeys((*found[key].values, *one.values))))
        found[key] = one
    return list(found.values())


def _read(text: str, frame: pd.DataFrame) -> Filter | None:
    part = "~" in text and (":" not in text or text.index("~") < text.index(":"))
    column, _, value = text.partition("~" if part else ":")
    if column not in frame or (not value and column not in CATEGORIES):
        return None
    if column == "text" or (part and column in CATEGORIES):
        return Filter(column, (value,), True) if value else None
    if column in CATEGORIES:
        return Filter(column, (value,)) if (frame[column] == value).any() else None
    low, dots, high = value.partition("..")
    ends = _number(low, -math.inf), _number(high, math.inf)
    if column not in NUMBERS or not dots or ends[0] is None or ends[1] is None or ends[0] > ends[1]:
        return None
    return Filter(column, low=ends[0], high=ends[1])


def _number(text: str, empty: float) -> float | None:
    """A number; the given one for an empty text, None for what is no number."""
    try:
        value = float(text) if text.strip() else empty
    except ValueError:
        return None
    return None if math.isnan(value) else value


def passing(found: list[Filter], frame: pd.DataFrame) -> np.ndarray:
    """(N,) bool, panels that pass all filters."""
    kept = np.ones(len(frame), bool)
    for one in found:
        kept &= one.passes(frame)
    return kept


def write(found: list[Filter]) -> None:
    """Put filters into the address."""
    texts = [text for one in found for text in one.written()]
    if texts:
        st.query_params["filter"] = texts[:MOST]
    else:
        st.query_params.pop("filter", None)


def put(found: list[Filter], new: Filter | None, column: str, part: bool = False) -> None:
    """Replace the filter of a column and kind; None removes it."""
    rest = [one for one in found if (one.column, one.part) != (column, part)]
    write([*rest, new] if new is not None else rest)


def chips(found: list[Filter]) -> None:
    """One chip per filter; a click removes it."""
    items = [{"id": i, "text": one.label()} for i, one in enumerate(found)]

    def removed(i: int) -> None:
        write([one for j, one in enumerate(found) if j != i])

    if items:
        components.chips(items, key="map-chips", on_pick=removed, hint="Remove this filter", close=True)


# --- choosing them


def popover(chosen: shell.Chosen, frame: pd.DataFrame, found: list[Filter]) -> None:
    """The fields in which filters are made; each writes the address."""
    by = {(one.column, one.part): one for one in found}
    for column, label in CATEGORIES.items():
        if column in frame:
            _category(chosen, frame, column, label, by, found)
    words = by.get(("text", True))
    _text("Text contains", "text", words.values[0] if words else "", found, "a word")
    st.markdown("**Numbers**", help="Panels without the number (no text, alone on the page) do not pass.")
    columns = [column for column in NUMBERS if column in frame]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        column = st.selectbox("Measure", columns, format_func=NUMBERS.__getitem__, key="map_filter_measure", width=190)
        low = st.text_input("From", key="map_filter_low", width=80, max_chars=12, placeholder="any")
        high = st.text_input("To", key="map_filter_high", width=80, max_chars=12, placeholder="any")
        st.button("Add", key="map_filter_add", on_click=shell.callback(_add), args=(found, column, low, high))
    if problem := st.session_state.pop("_map_filter_problem", None):
        shell.line(problem)


def _category(
    chosen: shell.Chosen,
    frame: pd.DataFrame,
    column: str,
    label: str,
    by: dict[tuple[str, bool], Filter],
    found: list[Filter],
) -> None:
    key = ("values", column, frame.attrs.get("of"), *loaders.checkpoint_key(chosen.run, chosen.step))
    values: list[str] = loaders.remember(key, lambda: sorted(v for v in frame[column].unique().tolist()))
    if len(values) < 2:
        return
    if len(values) > LONG_LIST:
        part = by.get((column, True))
        _text(f"{label} containing", column, part.values[0] if part else "", found, "part of the name")
        return
    name, one = f"map_filter_{column}", by.get((column, False))
    st.session_state[name] = [v for v in one.values if v in values] if one else []

    def changed() -> None:
        given = st.session_state[name]
        put(found, Filter(column, tuple(given)) if given else None, column)

    st.multiselect(label, values, key=name, placeholder="all", format_func=lambda v: v or "(none)",
                   on_change=shell.callback(changed))  # fmt: skip


def _text(label: str, column: str, value: str, found: list[Filter], hint: str) -> None:
    name = f"map_filter_{column}_part"
    st.session_state[name] = value

    def changed() -> None:
        given = st.session_state[name].strip()
        put(found, Filter(column, (given,), True) if given else None, column, True)

    st.text_input(label, key=name, placeholder=hint, max_chars=200, on_change=shell.callback(changed))


def _add(found: list[Filter], column: str, low: str, high: str) -> None:
    ends = _number(low, -math.inf), _number(high, math.inf)
    if ends[0] is None or ends[1] is None or ends[0] > ends[1] or (math.isinf(ends[0]) and math.isinf(ends[1])):
        st.session_state["_map_filter_problem"] = "Give a number in From or To, the smaller one first."
        return
    put(found, Filter(column, low=ends[0], high=ends[1]), column)
