"""Losses: every term raw, weighted and counted, both splits, several runs, and who does the work."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from app import shell
from app.charts import theme
from app.charts.curves import How, Source, chart
from app.store import loaders
from stage3.errors import Stage3Error
from stage3.objectives import OBJECTIVES, PAIRS, TERMS, WITH_TEMPERATURE
from stage3.runs import curves

KINDS = {"raw": "loss", "weighted": "weighted"}
MAX_RUNS = 6
ACTIVE = {f"active/{o.counted}": o.counted_label for o in OBJECTIVES} | {"active/pairs": "page-mate pairs"}


def render() -> None:
    """Controls, then curves that poll while a run trains, then tables."""
    chosen = shell.chosen(needs_checkpoint=False)
    shell.heading("Losses", "Each loss as it is, times its weight, and over how many panels it was taken.")
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium", key="losses-controls"):
        entries = _runs(chosen)
        kind, how = _controls(entries)
    live = any(e.run.is_live for e in entries)

    @st.fragment(run_every="1s" if live else None)
    def watch() -> None:
        if live and not any(e.run.is_live for e in entries):
            st.rerun()
        sources = [Source(e.id, loaders.metrics(e.run), loaders.metrics_key(e.run)) for e in entries]
        if all(s.frame.empty for s in sources):
            shell.empty("Nothing has been logged yet", "The first row comes after the first step of training.")
        else:
            _curves(sources, kind, how)
            _tables(entries, sources)

    watch()


def _runs(chosen: shell.Chosen) -> list[loaders.Entry]:
    """The chosen run, and others laid over it."""
    everything = {e.id: e for e in loaders.entries()}
    asked = [i for i in (shell.param("with") or "").split(",") if i in everything and i != chosen.id]
    groups = curves.seed_groups({i: e.run.config for i, e in everything.items()})
    seeds = next(([i for i in g if i != chosen.id] for g in groups if chosen.id in g), [])
    if "losses-with" not in st.session_state:
        st.session_state["losses-with"] = asked
    others = [i for i in everything if i != chosen.id]
    st.session_state["losses-with"] = [i for i in st.session_state["losses-with"] if i in others]
    added = st.multiselect(
        "Lay over it",
        others,
        key="losses-with",
        max_selections=MAX_RUNS - 1,
        placeholder="other runs",
        width=330,
    )
    if seeds:
        st.button(
            f"Its {len(seeds)} other seed" + ("s" if len(seeds) > 1 else ""),
            icon=":material/casino:",
            help="Runs that differ in nothing but the seed",
            on_click=lambda: st.session_state.update({"losses-with": seeds[: MAX_RUNS - 1]}),
        )
    shell.set_params(**{"with": ",".join(added) or None})
    return [everything[chosen.id], *(everything[i] for i in added)]


def _controls(entries: list[loaders.Entry]) -> tuple[str, How]:
    kind = st.segmented_control(
        "Value", ["raw", "weighted", "active"], default="raw", required=True, key="losses-kind",
        help="raw: the loss. weighted: times its weight, as the total adds it up. active: over how many items",
    )  # fmt: skip
    by = st.segmented_control("Over", list(curves.AXES), default="step", required=True, key="losses-by")
    splits = st.segmented_control(
        "Split", ["train", "val"], default=["train", "val"], selection_mode="multi", key="losses-split"
    )
    smoothing = st.select_slider(
        "Smoothing of training",
        [0.0, 0.5, 0.8, 0.9, 0.95, 0.98],
        value=0.0,
        format_func=lambda w: "none" if not w else f"about {1 / (1 - w):.0f} points",
        key="losses-smoothing",
        help="Exponential moving average without start-up bias, over about so many points. The unsmoothed curve "
        "stays behind it, faint. Validation is never smoothed.",
        width=200,
    )
    as_band = False
    if len(entries) > 1:
        as_band = st.toggle(
            "Mean and band", key="losses-band", help="Mean of the runs, band of one standard deviation (n - 1)"
        )
    chosen_splits = tuple(splits) if splits else ("train", "val")
    return str(kind), How(str(by), chosen_splits, float(smoothing), bool(as_band))


def _card(title: str, key: str, about: str = "") -> st.delta_generator.DeltaGenerator:
    box = st.container(border=True, key=f"card-{key}", gap="xxsmall")
    with box:
        st.subheader(title, anchor=False, help=about or None)
    return box


def _draw(title: str, key: str, sources: list[Source], metrics: dict[str, str], how: How, **more: Any) -> None:
    about = str(more.pop("about", ""))
    with _card(title, key, about):
        shown = (title, *metrics.items(), how, *more.items(), *((s.name, s.stamp) for s in sources))
        if any(s.stamp is None for s in sources):
            figure = chart(sources, metrics, how, **more)
        else:
            figure = theme.kept(shown, lambda: chart(sources, metrics, how, **more))
        if not figure.data:
            shell.line("This run has no such measurement.")
            return
        theme.show(figure, key=f"losses-{key}", alt=f"{title} by {how.by}")


def _curves(sources: list[Source], kind: str, how: How) -> None:
    if kind == "active":
        columns = st.columns(2, gap="small")
        for i, (metric, label) in enumerate(ACTIVE.items()):
            with columns[i % 2]:
                _draw(
                    label.capitalize(), metric.replace("/", "-"), sources, {metric: label}, how, y_title="items a row"
                )
    else:
        prefix = KINDS[kind]
        total = {"loss/total": "total"}
        if kind == "weighted" and len(sources) == 1:
            total |= {f"weighted/{t}": t for t in TERMS}
        columns = st.columns(2, gap="small")
        with columns[0]:
            _draw("Total", "total", sources, total, how, about="The weighted sum that training minimizes")
        for i, objective in enumerate(OBJECTIVES, start=1):
            halves = objective.halves if kind == "raw" else ()  # only terms have a weight
            shown = {f"loss/{half.name}": half.label.lower() for half in halves}
            title = f"{objective.label}, both directions" if halves else objective.label
            with columns[i % 2]:
                _draw(title, objective.name, sources, shown or {f"{prefix}/{objective.name}": objective.name}, how)
    _work(sources, how)


def _work(sources: list[Source], how: How) -> None:
    """Who pulls, what is retrieved, and whether anything collapses."""
    val = How(how.by, ("val",), 0.0, how.as_band)
    train = How(how.by, ("train",), how.smoothing, how.as_band)
    terms = {f"gradient/{t}": t for t in TERMS}
    cosines = {f"gradient_cosine/{a.name}_{b.name}": f"{a.label.lower()} · {b.label.lower()}" for a, b in PAIRS}
    rates = {"lr": "learning rate"} | {f"temperature/{o.name}": f"τ {o.label.lower()}" for o in WITH_TEMPERATURE}
    cells: list[tuple[str, str, dict[str, str], How, dict[str, Any]]] = [
        ("Who does the work", "gradient", terms, val, {"y_title": "gradient norm", "log": True,
         "about": "Norm of each weighted term's gradient on the encoder, on one fixed validation batch"}),
        ("Do the terms agree", "cosine", cosines, val, {"y_title": "cosine of gradients, -1 to 1",
         "about": "Above 0 two terms pull the weights the same way, below 0 against each other"}),
        ("Gradient norm of all", "norm", {"grad_norm": "before clipping"}, train, {"log": True}),
        ("Retrieval", "retrieval", {"retrieval/i2t_r5": "R@5 image→text", "retrieval/t2i_r5": "R@5 text→image"},
         val, {"percent": True}),
        ("Collapse watch: effective rank", "rank", {"collapse/effective_rank": "effective rank"}, val,
         {"about": "RankMe: how many directions the embeddings use. Near 1 everything is the same"}),
        ("Collapse watch: cosines", "cosines", {"collapse/intra_cosine": "same page", "collapse/inter_cosine":
         "different pages"}, val, {"y_title": "mean cosine, -1 to 1"}),
        ("Reconstruction skill", "skill", {"reconstruction/skill": "1 - mse / mse of the mean"}, val,
         {"about": "1 is perfect, 0 no better than always answering the mean; a collapsed model has no skill"}),
        ("Temperatures and learning rate", "rate", rates, train, {"log": True}),
    ]  # fmt: skip
    columns = st.columns(2, gap="small")
    for i, (title, key, metrics, chosen, more) in enumerate(cells):
        with columns[i % 2]:
            _draw(title, key, sources, metrics, chosen, height=220, **more)


def _tables(entries: list[loaders.Entry], sources: list[Source]) -> None:
    with _card(
        "Change and gap",
        "gap",
        "gap: last validation minus last training epoch; negative is usual, with dropout and noise in training",
    ):
        frames = []
        for entry, source in zip(entries, sources, strict=True):
            try:
                best = entry.run.best()
            except Stage3Error:
                best = None
            frames.append(_gap_table(source, best.step if best else None).assign(run=source.name))
        joined = pd.concat(frames, ignore_index=True)
        named = [] if len(entries) == 1 else ["run"]
        joined = joined[[*named, *(c for c in joined.columns if c != "run")]]
        number = st.column_config.NumberColumn
        st.dataframe(
            joined,
            hide_index=True,
            column_config={
                "train_first": number("Training, first epoch", format="%.4f"),
                "train_last": number("Training, last epoch", format="%.4f"),
                "val_best": number("Validation at best", format="%.4f"),
                "val_last": number("Validation, last", format="%.4f"),
                "val_change": number("Δ to the one before", format="%+.4f"),
                "gap": number("Gap", format="%+.4f"),
            },
        )


def _gap_table(source: Source, best_step: int | None) -> pd.DataFrame:
    def make() -> pd.DataFrame:
        return curves.gap_table(source.frame, best_step)

    if source.stamp is None:
        return make()
    found: pd.DataFrame = loaders.remember(("gap", source.stamp, best_step), make)
    return found
