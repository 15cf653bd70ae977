"""A run's metrics as tiles, and those of two runs in a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import streamlit as st

from app.charts import names
from app.charts.worth import shown
from stage3.runs import curves

WIDTH = 142  # pixels


def show(metrics: Sequence[str], values: Mapping[str, float]) -> None:
    """One tile per metric that the run has.

    Args:
        metrics: their names, in the order of the tiles.
        values: of the run.
    """
    for name in metrics:
        if name in values:
            value = values[name]
            text = f"{value:.3f}" if name.startswith("loss/") else shown(name, value)
            st.metric(names.metric_name(name), text, width=WIDTH)


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
