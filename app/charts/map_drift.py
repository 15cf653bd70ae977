"""The map from epoch to epoch, as an animation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from app.charts import maps, theme


def drift(frame: pd.DataFrame, groups_of: np.ndarray, *, height: int = 620) -> go.Figure:
    """The saved epochs as an animation with a slider; a dot stands for the same panel in every epoch.

    Args:
        frame: of `stage3.projection.drift`, the same panels in the same order in each epoch.
        groups_of: (N,) what colors them, such as the page.
        height: of the figure in pixels.
    """
    epochs = [int(e) for e in pd.unique(frame["epoch"])]
    parts = dict(iter(frame.groupby("epoch", sort=False)))
    first = parts[epochs[0]]
    figure = go.Figure()
    dots = maps.Dots(first["row"].to_numpy(), first[["umap_dim1", "umap_dim2"]].to_numpy(), None, None, 0.1, go.Scatter)
    maps.cycled(figure, dots, np.arange(len(first)), groups_of)
    figure.data[0].ids = first["row"].astype(str).tolist()
    figure.frames = [
        go.Frame(
            name=str(e),
            data=[
                {
                    "type": "scatter",
                    "x": parts[e]["umap_dim1"].to_numpy(np.float32),
                    "y": parts[e]["umap_dim2"].to_numpy(np.float32),
                }
            ],
            traces=[0],
        )
        for e in epochs
    ]
    theme.bare(theme.style(figure, height=height, legend=False))
    spans = [(float(frame[c].min()), float(frame[c].max())) for c in ("umap_dim1", "umap_dim2")]
    (x0, x1), (y0, y1) = [(lo - 0.04 * (hi - lo), hi + 0.04 * (hi - lo)) for lo, hi in spans]
    figure.update_xaxes(range=[x0, x1]).update_yaxes(range=[y0, y1])
    move: dict[str, Any] = {"frame": {"duration": 700, "redraw": False}, "transition": {"duration": 600}}
    play = {"label": "Play", "method": "animate", "args": [None, {**move, "fromcurrent": True}]}
    stop = {"label": "Pause", "method": "animate", "args": [[None], {"mode": "immediate", "frame": {"duration": 0}}]}
    look = theme.look()
    menu = {"type": "buttons", "direction": "right", "x": 0, "y": -0.04, "xanchor": "left", "yanchor": "top"}
    menu |= {"buttons": [play, stop], "bgcolor": look.panel, "bordercolor": look.grid, "font": {"color": look.text}}
    steps = [{"label": str(e), "method": "animate", "args": [[str(e)], {"mode": "immediate", **move}]} for e in epochs]
    slider = {"steps": steps, "x": 0.16, "len": 0.82, "y": -0.02, "currentvalue": {"prefix": "epoch "}}
    figure.update_layout(
        modebar=maps.tools(),
        dragmode="pan",
        updatemenus=[{**menu, "showactive": False}],
        sliders=[{**slider, "bgcolor": look.panel, "bordercolor": look.grid}],
        margin={"l": 0, "r": 0, "t": 0, "b": 70},
    )
    return figure
