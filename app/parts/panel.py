"""One panel in detail, for every view that can point at a panel: its page, words, losses, gate and neighbors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import streamlit as st

from app import shell
from app.charts import names, pages
from app.store import loaders, thumbs
from app.store.cache import Memory
from stage3.cli import percent
from stage3.data.images import ImageProblem
from stage3.metrics import neighbors
from stage3.objectives import OBJECTIVES

if TYPE_CHECKING:
    from stage3.metrics.mapped import MappedRows

MEASURES = {
    **{f"loss_{part.name}": part.short for o in OBJECTIVES for part in o.halves or (o,)},
    "loss_total": names.PANEL_LOSSES["loss_total"],
    **names.RANKS,
}
_kept: Memory[Any] = Memory(300)
GATE = {"gate_image": "image", "gate_text": "text", "gate_box": "box"}


def page_rows(chosen: shell.Chosen, page: int) -> range:
    """The panel rows of a page, in reading order."""
    record = loaders.open_dataset(chosen.run).table.pages.iloc[page]
    first = int(record["first_panel"])
    return range(first, first + int(record["n_panels"]))


def page_image(chosen: shell.Chosen, page: int, focus: int | None = None, side: int = 640) -> tuple[bytes, bool]:
    """A page with numbered boxes, and whether it is the real image (else a drawing of its layout).

    Args:
        chosen: the run.
        page: row of the page.
        focus: position in reading order of the panel that stands out.
        side: longer side in pixels; one of the image route's sizes.
    """

    def make() -> tuple[bytes, bool]:
        table = loaders.open_dataset(chosen.run).table
        part = table.panels.iloc[list(page_rows(chosen, page))]
        boxes = [tuple(float(v) for v in b) if h else None for *b, h in part[[*"xywh", "has_box"]].to_numpy()]
        ratio = pages.ratio_of(table.pages.iloc[page])
        try:
            image = thumbs.image_of(chosen.run, "page", page, side)
        except ImageProblem:
            return pages.boxed(None, boxes, focus, ratio=ratio, side=side), False  # type: ignore[arg-type]
        return pages.boxed(image, boxes, focus), True  # type: ignore[arg-type]

    key = ("boxed", *loaders.data_key(chosen.run.config), page, focus, side)
    return _kept.get(key, make)  # type: ignore[no-any-return]


def positions_of(chosen: shell.Chosen, rows: np.ndarray) -> np.ndarray:
    """Where panel rows stand among the embedded panels, -1 for panels that were not embedded."""

    def make() -> np.ndarray:
        embedded = loaders.embedded_rows(chosen.run, chosen.step)
        return neighbors.own_rows(len(loaders.open_dataset(chosen.run).table), embedded)

    at: np.ndarray = _kept.get(("positions", *loaders.checkpoint_key(chosen.run, chosen.step)), make)
    found: np.ndarray = at[rows]
    return found


def unit_embeddings(chosen: shell.Chosen) -> np.ndarray | MappedRows:
    """(N, D) panel embeddings of length 1, in the order of `Embedded.rows`; of many from a file."""
    key = ("unit", *loaders.checkpoint_key(chosen.run, chosen.step))

    def make() -> np.ndarray | MappedRows:
        vectors = loaders.panel_vectors(chosen.run, chosen.step)
        return neighbors.unit_rows(vectors) if isinstance(vectors, np.ndarray) else vectors

    return _kept.get(key, make)  # type: ignore[no-any-return]


def nearest(chosen: shell.Chosen, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, k) panel rows nearest to some panels by cosine of panel embeddings, and their cosines."""

    def make() -> tuple[np.ndarray, np.ndarray]:
        z = unit_embeddings(chosen)
        at = positions_of(chosen, rows)
        if not isinstance(z, np.ndarray):
            import torch  # whoever only looks at the map need not wait for it

            from stage3.metrics.mapped import nearest_mapped

            asked = torch.from_numpy(neighbors.unit_rows(z.take(at)))
            hits = nearest_mapped(asked, z, min(k, len(z) - 1), exclude=at)
            found, cosine = hits.rows, hits.scores
        else:
            found, cosine = neighbors.exact_neighbors(z[at], k, z, at, refine=True)
        return loaders.embedded_rows(chosen.run, chosen.step)[found], cosine

    key = ("nearest", *loaders.checkpoint_key(chosen.run, chosen.step), tuple(rows.tolist()), k)
    return _kept.get(key, make)  # type: ignore[no-any-return]


def measures(frame: pd.DataFrame, row: int) -> pd.DataFrame:
    """Losses and ranks of a panel, each with the share of panels that have a lower one; undefined ones left out."""
    found = []
    for column, name in MEASURES.items():
        value = float(frame[column].to_numpy(np.float32)[frame.index.get_loc(row)]) if column in frame else float("nan")
        if not np.isnan(value):
            below = neighbors.share_below(frame[column].to_numpy(np.float32), value)
            found.append({"what": name, "value": value, "below": 100 * below})
    return pd.DataFrame(found, columns=["what", "value", "below"])


def show_measures(frame: pd.DataFrame, row: int, key: str) -> None:
    """The panel's losses and ranks as a table with bars."""
    table = measures(frame, row)
    if table.empty:
        shell.line("No loss is defined for this panel: it is alone on its page and lacks an image or a text.")
        return
    st.dataframe(
        table,
        key=key,
        hide_index=True,
        width="stretch",
        row_height=30,
        column_config={
            "what": st.column_config.TextColumn("Measure", width=112, help=f"Losses, and ranks. {names.RANK_HELP}"),
            "value": st.column_config.NumberColumn("Value", format="%.3g", width=64),
            "below": st.column_config.ProgressColumn(
                "Higher than",
                help="Share of panels with a lower value",
                format="%.0f %%",
                min_value=0,
                max_value=100,
            ),
        },
    )

    gallery = float(frame["gallery"][row]) if "gallery" in frame else float("nan")
    if not np.isnan(gallery):
        with st.container(key=f"quiet-{key}"):
            shell.line(
                f"Ranks are among the {gallery:,.0f} panels of the {frame['split'][row]} split with image and text."
            )


def show_gate(frame: pd.DataFrame, row: int) -> None:
    """The weights that the fusion gate gave to image, text and box; their plain mean enters beside them."""
    shares = {name: float(frame[column][row]) for column, name in GATE.items()}
    if any(np.isnan(list(shares.values()))):
        return
    weights = "   ".join(f"{name} {percent(share, 0)}" for name, share in shares.items())
    shell.line(f"Gate: {weights}   (added to the plain mean of all that is there)")


def title_of(frame: pd.DataFrame, row: int) -> str:
    """Which panel of which page, in words (text from data: show it as text)."""
    panel = frame.loc[row]
    return f"Panel {panel['order'] + 1} of {panel['n_panels']}  ·  {panel['page_id']}"


def show_neighbors(
    chosen: shell.Chosen,
    frame: pd.DataFrame,
    row: int,
    *,
    key: str,
    k: int = 8,
    width: int = 72,
    on_choose: Callable[[int], None] | None = None,
) -> None:
    """The nearest panels as small images; a click on one's button makes it the chosen panel (or calls `on_choose`)."""
    if positions_of(chosen, np.array([row]))[0] < 0:
        shell.line("This panel was not embedded.")
        return
    rows, cosine = nearest(chosen, np.array([row]), k)
    with st.grid(min_column_width=width, gap="xsmall", key=f"{key}-near"):
        for other, value in zip(rows[0].tolist(), cosine[0].tolist(), strict=True):
            relation = kinship(frame, row, other)
            with st.container(gap="xxsmall", key=f"tile-{key}-near-{other}"):
                shell.show_image(shell.thumb(chosen, other, 160), title_of(frame, other))
                st.button(
                    f"{value:.3f}",
                    key=f"{key}-near-{other}-go",
                    help=f"Cosine; {relation}. Click to choose this panel",
                    icon=":material/check:" if relation == "same page" else None,
                    type="tertiary",
                    on_click=shell.callback(on_choose or focus_on),
                    args=(other,),
                )


def kinship(frame: pd.DataFrame, a: int, b: int) -> str:
    """What two panels share: "same page", "same book" or "another book"."""
    if frame["page"][a] == frame["page"][b]:
        return "same page"
    return "same book" if frame["book"][a] == frame["book"][b] else "another book"


def focus_on(row: int | None) -> None:
    """Make a panel the one that the address names."""
    shell.set_params(panel=row)


def words(frame: pd.DataFrame, row: int, limit: int = 600) -> str:
    """Who says what in a panel, and its description; a sentence where there is neither."""
    panel: Any = frame.loc[row]
    parts = [str(panel["dialogue"]), str(panel["description"])]
    text = "\n".join(p for p in parts if p)
    if not text:
        return "(no text)"
    return text if len(text) <= limit else text[: limit - 1] + "…"
