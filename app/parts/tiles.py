"""A run's metrics as tiles, with the change against another run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pandas as pd
import streamlit as st

from app.charts import names
from stage3.cli import number, percent
from stage3.runs import curves

WIDTH = 142  # pixels


def show(
    metrics: Sequence[str],
    values: Mapping[str, float],
    against: Mapping[str, float] | None = None,
    beside: Mapping[str, Callable[[], None]] | None = None,
) -> None:
    """One tile per metric that the run has.

    Args:
        metrics: their names, in the order of the tiles.
        values: of the run.
        against: of the run that it is compared with, or None.
        beside: draws a further tile next to a metric's.
    """
    for name in metrics:
        if name not in values:
            continue
        lower_is_better = name.startswith("loss/")
        form = ".3f" if lower_is_better else ".2f"
        shown = percent(values[name]) if names.is_share(name) else number(values[name], form)
        delta = None
        if against is not None and name in against:
            change = values[name] - against[name]
            delta = f"{100 * change:+.1f} points" if names.is_share(name) else f"{change:+{form}}"
        color = "inverse" if lower_is_better else "normal"
        if delta is not None and not any(c in delta for c in "123456789"):
            color = "off"  # it did not move
        st.metric(names.metric_name(name), shown, delta, width=WIDTH, delta_color=color)  # type: ignore[arg-type]
        if beside and name in beside:
            beside[name]()


def differences(first: Mapping[str, float], second: Mapping[str, float], called: tuple[str, str], height: int) -> None:
    """The metrics that two runs share, side by side, with the difference.

    Args:
        first: metrics of one run.
        second: of the other.
        called: headers of their columns.
        height: of the table in pixels.
    """
    table: pd.DataFrame = curves.metric_differences(first, second)
    table["metric"] = [names.metric_name(m) if m.startswith("retrieval") else m for m in table["metric"]]
    table = table.rename(columns=dict(zip(("first", "second"), called, strict=True)))
    number_of = st.column_config.NumberColumn(format="%.4f")
    columns = dict.fromkeys((*called, "difference"), number_of)
    st.dataframe(table, hide_index=True, height=height, column_config=columns)
