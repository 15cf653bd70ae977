"""How the map moved while a run was trained: one layout per epoch, each started from the previous one."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from app import components, shell
from app.charts import map_drift, maps, theme
from app.parts import waiting
from app.store import jobs, loaders, map_jobs
from stage3.errors import Stage3Error
from stage3.projection.files import drift_path, epoch_files, load


def render(chosen: shell.Chosen, frame: pd.DataFrame) -> None:
    """The animation, and the neighbors that epochs have in common; without saved epochs, a button that trains again."""
    files = epoch_files(chosen.run)
    if not files:
        _without(chosen)
        return
    job = map_jobs.ensure(chosen.run, chosen.step, drift=True)
    path = drift_path(chosen.run)
    if job.state != "ready":
        waiting.show(path, job, chosen, drift=True)
        return
    made = loaders.remember(("drift", path, path.stat().st_mtime_ns), lambda: load(path))
    _show(chosen, frame, made)


def _without(chosen: shell.Chosen) -> None:
    """A run that kept its last embeddings only can be trained once more, the same way, keeping those of every epoch."""
    again = chosen.run.config.replace(embed_every=1)
    name = jobs.free_name("epochs")
    shell.empty(
        "This run kept no embeddings of its epochs",
        "The same training again, from the same seed, keeps them. The map can then be followed from epoch to epoch.",
        jobs.command(again, name),
    )
    if st.button("Train again, keeping every epoch", icon=":material/replay:", type="primary", key="drift-train"):
        try:
            started = jobs.start(again, name, chosen.id)
        except Stage3Error as error:
            shell.error_box(error, "The run was not started")
            return
        shell.go("retrain", run=chosen.id, job=f"runs/{started.name}")


@shell.fragment()
def _show(chosen: shell.Chosen, frame: pd.DataFrame, made: pd.DataFrame) -> None:
    left, right = st.columns([2.1, 1], gap="medium")
    epochs = pd.unique(made["epoch"])
    rows = made.loc[made["epoch"] == epochs[0], "row"].to_numpy()
    rows = rows[rows < len(frame)]
    with left:
        name = st.selectbox(
            "Color by",
            ["page", "book"],
            key="map_drift_color",
            width=230,
            format_func=lambda n: maps.COLORINGS[n].label,
        )
        column = frame[maps.COLORINGS[name].column].loc[rows]
        codes = pd.factorize(column)[0]  # not every page is among the saved panels: number those that are
        shown = made[made["row"].isin(rows)]
        with st.container(key="map-drift", border=True):
            theme.show(
                map_drift.drift(shown, codes),
                key="map-drift-plot",
                tools=True,
                alt=f"Animation of the map of {len(rows):,} panels over {len(epochs)} epochs",
            )
        components.hover("map-drift", lambda row: shell.thumb_url(chosen, row, 240), 220)
        with st.container(key="quiet-map-drift"):
            st.text(f"showing {len(rows):,} of {len(frame):,} panels  ·  each UMAP starts from the previous one")
    with right, st.container(border=True, key="card-map-drift"):
        st.subheader("Neighbors in common", anchor=False)
        st.caption("Share of a panel's 15 nearest panels that were among them in the previous saved epoch, too.")
        kept = 100 * made.groupby("epoch")["kept"].mean().dropna()
        if kept.empty:
            shell.line("Only one epoch was saved: there is nothing to compare it with.")
            return
        line = go.Scatter(
            x=kept.index, y=kept, mode="lines+markers", hovertemplate="epoch %{x}: %{y:.0f} %<extra></extra>"
        )
        figure = theme.style(go.Figure(line), height=260, legend=False)
        figure.update_yaxes(title="in common, %", rangemode="tozero").update_xaxes(title="epoch")
        theme.show(
            figure, key="map-drift-kept", alt=f"Neighbors in common with the epoch before, last {kept.iloc[-1]:.0f} %"
        )
