"""Losses: every term raw, weighted and counted, both splits, several runs, and the gradient of each."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import streamlit as st

from app import shell
from app.charts import names, theme
from app.charts.curves import How, Source, kept_chart
from app.parts import followed
from app.store import loaders
from stage3.cli import counted, percent
from stage3.errors import Stage3Error
from stage3.metrics import chance_recall
from stage3.objectives import OBJECTIVES, TERMS, WITH_TEMPERATURE
from stage3.runs import curves

KINDS = {"raw": "loss", "weighted": "weighted"}
MAX_RUNS = 6
NO_SIGNAL = "active/silent_batches"
ACTIVE = {f"active/{o.counted}": o.counted_label for o in OBJECTIVES}
ACTIVE |= {"active/pairs": "page-mate pairs", NO_SIGNAL: "no-signal batches"}


def render() -> None:
    """Controls, then curves that poll while a run trains, then tables."""
    chosen = shell.chosen(needs_checkpoint=False)
    shell.heading("Losses", "Each loss: raw, times its weight, and the number of panels that it is averaged over.")
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium", key="losses-controls"):
        entries = _runs(chosen)
        kind, how = _controls(entries)
    live = any(e.run.is_live for e in entries)

    @shell.fragment(run_every="1s" if live else None)
    def watch() -> None:
        if live and not any(e.run.is_live for e in entries):
            st.rerun()
        sources = [followed.source(e.id, e.run) for e in entries]
        if all(s.frame.empty for s in sources):
            shell.empty("Nothing has been logged yet", "The first row comes after the first step of training.")
        else:
            _curves(sources, kind, how)
            _tables(entries, sources)

    watch()


def _runs(chosen: shell.Chosen) -> list[loaders.Entry]:
    """The chosen run, and others to compare it with."""
    everything = {e.id: e for e in loaders.entries()}
    named = [i for i in (shell.param("with") or "").split(",") if i]
    asked = [i for i in named if i in everything and i != chosen.id]
    groups = curves.seed_groups({i: e.run.config for i, e in everything.items()})
    seeds = next(([i for i in g if i != chosen.id] for g in groups if chosen.id in g), [])
    if "losses-with" not in st.session_state:
        st.session_state["losses-with"] = asked
        if set(named) - set(everything):
            shell.unused("with", "names a run that is not here.")
    others = [i for i in everything if i != chosen.id]
    st.session_state["losses-with"] = [i for i in st.session_state["losses-with"] if i in others]
    added = st.multiselect(
        "Compare with",
        others,
        key="losses-with",
        max_selections=MAX_RUNS - 1,
        placeholder="other runs",
        width=330,
    )
    if seeds:
        st.button(
            f"Add {counted(len(seeds), 'other seed')}",
            icon=":material/casino:",
            help="Runs that differ only in the seed",
            on_click=shell.callback(lambda: st.session_state.update({"losses-with": seeds[: MAX_RUNS - 1]})),
        )
    shell.set_params(**{"with": ",".join(added) or None})
    return [everything[chosen.id], *(everything[i] for i in added)]


def _controls(entries: list[loaders.Entry]) -> tuple[str, How]:
    kind = st.segmented_control(
        "Value", ["raw", "weighted", "active"], default="raw", required=True, key="losses-kind",
        help="raw: the loss. weighted: times its weight, as summed in the total. active: what it is averaged over",
    )  # fmt: skip
    by = st.segmented_control("X axis", list(curves.AXES), default="step", required=True, key="losses-by")
    splits = st.segmented_control(
        "Split", ["train", "val"], default=["train", "val"], selection_mode="multi", key="losses-split"
    )
    smoothing = st.select_slider(
        "Smoothing",
        [0.0, 0.5, 0.8, 0.9, 0.95, 0.98],
        value=0.0,
        format_func=lambda w: "none" if not w else f"about {1 / (1 - w):.0f} points",
        key="losses-smoothing",
        help="Exponential moving average of the training curves, without start-up bias, over about that many points. "
        "The unsmoothed curve stays behind it, faint. Validation is never smoothed.",
        width=200,
    )
    as_band = False
    if len(entries) > 1:
        seeds = is_seed_group(entries)
        as_band = st.toggle(
            "Mean and band",
            value=seeds,
            key=f"losses-band-{seeds}",
            help="Mean of the runs, with a band of one standard deviation (n − 1); on where only the seed differs",
        )
    chosen_splits = tuple(splits) if splits else ("train", "val")
    return str(kind), How(str(by), chosen_splits, float(smoothing), bool(as_band))


def is_seed_group(entries: list[loaders.Entry]) -> bool:
    """Whether all runs have the same settings but the seed."""
    return len({curves.seed_key(e.run.config) for e in entries}) == 1


def _card(title: str, key: str, about: str = "") -> st.delta_generator.DeltaGenerator:
    box = st.container(border=True, key=f"card-{key}", gap="xxsmall")
    with box:
        st.subheader(title, anchor=False, help=about or None)
    return box


def _draw(title: str, key: str, sources: list[Source], metrics: dict[str, str], how: How, **more: Any) -> None:
    about, basis = str(more.pop("about", "")), str(more.pop("basis", ""))
    with _card(title, key, about):
        figure = kept_chart(sources, metrics, how, **more)
        if not figure.data:
            shell.line("Not measured in this run.")
            return
        theme.show(figure, key=f"losses-{key}", alt=f"{title} by {how.by}")
        if basis:
            with st.container(key=f"quiet-losses-{key}"):
                shell.line(basis)


def _gallery(sources: list[Source]) -> tuple[str, float]:
    """On what R@5 was measured in training, and what chance is there; NaN where the runs had different galleries."""
    found = set()
    for source in sources:
        sizes = curves.series(source.frame, "retrieval/gallery", "val", "step")["y"]
        found |= {int(size) for size in sizes.iloc[-1:]}
    if len(found) != 1:
        several = " to ".join(f"{size:,}" for size in sorted(found)[:: max(1, len(found) - 1)])
        return (f"Validation pages; the runs were measured among {several} panels." if found else "", math.nan)
    (size,) = found
    chance = chance_recall(size, 5)
    return f"Validation pages: among {size:,} panels with image and text; dotted: chance, {percent(chance)}.", chance


def _curves(sources: list[Source], kind: str, how: How) -> None:
    if kind == "active":
        columns = st.columns(2, gap="small")
        for i, (metric, label) in enumerate(ACTIVE.items()):
            with columns[i % 2]:
                of = "batches" if metric == NO_SIGNAL else "items"
                key = metric.replace("/", "-")
                _draw(label.capitalize(), key, sources, {metric: label}, how, y_title=f"{of} per row")
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
    """Gradients, retrieval, and whether anything collapses."""
    val = How(how.by, ("val",), 0.0, how.as_band)
    train = How(how.by, ("train",), how.smoothing, how.as_band)
    terms = {f"gradient/{t}": t for t in TERMS}
    cosines = {f"gradient_cosine/{pair}": label for pair, label in names.PAIR_NAMES.items()}
    temperatures = {f"temperature/{o.name}": o.label.lower() for o in WITH_TEMPERATURE}
    basis, chance = _gallery(sources)
    idle = {NO_SIGNAL: "no signal", "skipped_steps": "not finite"}
    cells: list[tuple[str, str, dict[str, str], How, dict[str, Any]]] = [
        ("Gradient norm per loss", "gradient", terms, val, {"y_title": "gradient norm", "log": True,
         "about": "Norm of the gradient of each weighted loss on the encoder, on one fixed validation batch"}),
        ("Gradient agreement", "cosine", cosines, val, {"y_title": "cosine, −1 to 1",
         "about": "Cosine between the gradients of two losses. Above 0 they pull the weights the same way"}),
        ("Total gradient norm", "norm", {"grad_norm": "before clipping"}, train, {"log": True}),
        ("Retrieval", "retrieval", {m: names.metric_name(m) for m in ("retrieval/i2t_r5", "retrieval/t2i_r5")},
         val, {"percent": True, "basis": basis, "chance": chance}),
        ("Effective rank", "rank", {"collapse/effective_rank": "effective rank"}, val,
         {"about": "RankMe: how many directions the embeddings use. Near 1 they have collapsed"}),
        ("Mean cosine", "cosines", {"collapse/intra_cosine": "same page", "collapse/inter_cosine":
         "different pages"}, val, {"y_title": "cosine, −1 to 1", "about": "Near 1 for different pages: collapsed"}),
        (names.metric_name("reconstruction/skill"), "skill", {"reconstruction/skill": "R²"}, val,
         {"about": "1 − mse / mse of the mean. 1 is perfect, 0 no better than the mean, as in a collapsed model"}),
        ("Temperatures", "temperature", temperatures, How(how.by, how.splits, 0.0, how.as_band),
         {"y_title": "temperature τ"}),
        ("Learning rate", "rate", {"lr": "learning rate"}, train, {"log": True}),
        ("Steps without effect", "idle", idle, How(how.by, ("train",), 0.0, how.as_band), {"y_title": "steps per row",
         "about": "Steps on a batch on which no loss is defined, and steps skipped because the loss or its gradient "
         "was not finite. Neither changes a weight"}),
    ]  # fmt: skip
    columns = st.columns(2, gap="small")
    for i, (title, key, metrics, chosen, more) in enumerate(cells):
        with columns[i % 2]:
            _draw(title, key, sources, metrics, chosen, height=220, **more)


def _tables(entries: list[loaders.Entry], sources: list[Source]) -> None:
    with _card(
        "Change and gap",
        "gap",
        "Gap: last validation minus last training epoch; can be negative, because only training has dropout and noise",
    ):
        frames = []
        for entry, source in zip(entries, sources, strict=True):
            try:
                best = entry.run.best()
            except Stage3Error:
                best = None
            frames.append(_gap_table(source, best.step if best else None).assign(run=source.name))
        joined = pd.concat(frames, ignore_index=True)
        joined["loss"] = [names.metric_name(f"loss/{name}") for name in joined["loss"]]
        named = [] if len(entries) == 1 else ["run"]
        joined = joined[[*named, *(c for c in joined.columns if c != "run")]]
        number = st.column_config.NumberColumn
        st.dataframe(
            joined,
            hide_index=True,
            column_config={
                "loss": st.column_config.TextColumn("Loss", width="medium"),
                "train_first": number("First training", format="%.4f", help="Mean over the first epoch"),
                "train_last": number("Last training", format="%.4f", help="Mean over the last epoch"),
                "val_best": number("Best validation", format="%.4f", help="At the best checkpoint"),
                "val_last": number("Last validation", format="%.4f"),
                "val_change": number("Last change", format="%+.4f", help="Last validation minus the one before"),
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
